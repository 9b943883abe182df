"""A study's folder → its pages: report.html, report.md, report.json, figures; without torch, and without its runs.

`reading` has the summary; `panels` what it says of each factor, `claims` of what was expected, `study` all of it;
`findings`, `factors` and `making` say it in sections, `figures` and `settings` draw it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from submillion.reports import page
from submillion.reports.sections import Page, Section
from submillion.reports.sweep import factors, figures, findings, making, reading, study
from submillion.reports.sweep.study import StudyReport
from submillion.runs import write_atomically
from submillion.runs.records import dumps

__all__ = ["StudyReport", "read", "sections", "summary", "write"]

_SUMMED_UP = ("answer", "ties", "factors", "claims", "stages", "trials")


def read(folder: Path) -> StudyReport:
    """Return the report of a study's folder; RunError if its summary is missing, damaged, or of another version."""
    return study.make(folder.resolve().name, reading.read(folder))


def write(folder: Path) -> list[Path]:
    """Write a study's reports into its folder, in place of older ones; return their paths.

    The same summary gives the same bytes. A study that is not finished gets a page that says so.
    """
    report = read(folder)
    origin = f"submillion report from the study folder {report.name}"
    html, markdown, drawn = page.save(Page(report.name, origin, sections(report), figures.draw(report)), folder)
    write_atomically(folder / "report.json", dumps(asdict(report), indent=2) + "\n")
    return [html, markdown, folder / "report.json", drawn]


def summary(report: StudyReport) -> list[Section]:
    """Return the sections that a terminal shows."""
    return [section for section in sections(report) if section.anchor in _SUMMED_UP]


def sections(report: StudyReport) -> list[Section]:
    """Return the sections in the order that they are read; those that the study has numbers for."""
    found = [
        findings.answer(report),
        findings.ties(report),
        factors.factors(report),
        factors.claims(report),
        findings.budget(report),
        making.settings(report),
        making.stages(report),
        making.cost(report),
        making.trials(report),
        making.setup(report),
    ]
    return [section for section in found if section is not None]

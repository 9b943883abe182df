"""A study's folder → its pages: report.html, report.md, report.json, figures; without torch, and without its runs.

`runs.study` reads the summary; `study` has what follows from it; `findings` and `factors` say it in sections, `figures`
draws it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import TypeAdapter

from submillion.reports import page
from submillion.reports.sections import Page, Section
from submillion.reports.sweep import course, factors, figures, findings
from submillion.reports.sweep.study import StudyReport, make
from submillion.runs import dumps, study, write_atomically

__all__ = ["StudyReport", "page_of", "read", "sections", "summary", "write"]

_SUMMED_UP = ("answer", "ties", "race", "importance", "factors", "claims", "stages", "trials")


def read(folder: Path) -> StudyReport:
    """Return the report of a study's folder; RunError if its summary is missing, damaged, or of another version."""
    return make(folder.resolve().name, study.read(folder))


def write(folder: Path) -> list[Path]:
    """Write a study's reports into its folder, in place of older ones; return their paths.

    The same summary gives the same bytes. A study that is not finished gets a page that says so.
    """
    report = read(folder)
    beside = [path.parent.name for path in folder.resolve().parent.glob("*/report.html")]
    html, markdown, drawn = page.save(page_of(report, beside), folder)
    values = TypeAdapter(StudyReport).dump_python(report, mode="json", by_alias=True)
    write_atomically(folder / "report.json", dumps(values, indent=2) + "\n")
    return [html, markdown, folder / "report.json", drawn]


def page_of(report: StudyReport, runs: Collection[str] = (), with_png: bool = True) -> Page:
    """Return the page of a study; `runs` are those next to its folder that have a page, to which names link."""
    origin = f"submillion report from the study folder {report.name}"
    links = {run: f"../{run}/report.html" for trial in report.summary.trials for run in trial.runs if run in runs}
    for number, trial in report.summary.done:
        if trial.runs[0] in links:
            links[f"{number}: {trial.name}"] = links[trial.runs[0]]
    return Page(report.name, origin, sections(report), figures.draw(report, with_png), links)


def summary(report: StudyReport) -> list[Section]:
    """Return the sections that a terminal shows."""
    return [section for section in sections(report) if section.anchor in _SUMMED_UP]


def sections(report: StudyReport) -> list[Section]:
    """Return the sections that the study has numbers for, in reading order."""
    parts = [
        findings.answer(report),
        findings.ties(report),
        course.history(report),
        course.race(report),
        course.importance(report),
        factors.factors(report),
        factors.claims(report),
        findings.budget(report),
        findings.settings(report),
        findings.stages(report),
        findings.cost(report),
        findings.trials(report),
        findings.setup(report),
    ]
    return [section for section in parts if section is not None]

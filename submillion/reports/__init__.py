"""Run folders → pages for people: report.html, report.md, report.json, figures, a model card; without torch.

`run` reads a folder, with the `baselines`; `findings` says in `sections` what it shows; `figures` draws it
in the style of `drawing`; `page` and `card` write it down. Everything can be made again from the folder alone.
`sweep` does the same for a study's folder, `comparing` for runs that were compared, with `verdicts` and `forests`.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from submillion.data import Splits
from submillion.reports import card, comparing, figures, findings, page, run
from submillion.reports.run import Report, read
from submillion.reports.sections import Page, Section
from submillion.reports.sweep import write as write_study
from submillion.runs import Run
from submillion.runs.study import is_study

__all__ = ["Report", "is_study", "read", "write", "write_comparison", "write_study"]

write_comparison = comparing.write


def write(of: Run, splits: Splits | None = None) -> list[Path]:
    """Write the reports of a finished run into its folder, in place of older ones; return their paths.

    `splits` are the run's rows where they are at hand; without, its data is read again. The same folder and data give
    the same bytes. RunError says why a run cannot be reported.
    """
    report = run.read(of, splits)
    origin = f"submillion report from the run folder {of.name}"
    page.save(Page(report.run, origin, sections(report), figures.draw(report)), of.path)
    of.write_json("report.json", asdict(report))
    (of.path / "adapter").mkdir(exist_ok=True)
    of.write("adapter/README.md", card.markdown(of, report))
    return [of.path / name for name in ("report.html", "report.md", "report.json", "adapter/README.md", "figures")]


def sections(report: Report) -> list[Section]:
    """Return the report's sections in the order that they are read."""
    return [
        findings.answer(report),
        findings.plan(report),
        findings.training(report),
        findings.confusion(report),
        findings.classes(report),
        findings.distribution(report),
        findings.calibration(report),
        findings.coverage(report),
        findings.lengths(report),
        findings.mistakes(report),
        findings.cost(report),
        findings.setup(report),
    ]

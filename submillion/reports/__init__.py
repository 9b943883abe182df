"""Run folders → pages for people: report.html, report.md, report.json, figures, a model card; without torch.

`run` reads a folder, with the `baselines`; `findings` and `making` say in `sections` what it shows; `figures` draws it
in the style of `drawing`; `page` and `card` write it down. Everything can be made again from the folder alone.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

from submillion.data import Splits
from submillion.reports import card, figures, findings, making, page, run
from submillion.reports.run import Report, read
from submillion.reports.sections import Section
from submillion.runs import Run, write_atomically

__all__ = ["Report", "read", "write"]


def write(of: Run, splits: Splits | None = None) -> list[Path]:
    """Write the reports of a finished run into its folder, in place of older ones; return their paths.

    `splits` are the run's rows where they are at hand; without, its data is read again. The same folder and data give
    the same bytes. RunError says why a run cannot be reported.
    """
    report = run.read(of, splits)
    drawn, parts = figures.draw(report), sections(report)
    of.write("report.html", page.html(report.run, parts, drawn))
    of.write("report.md", page.markdown(report.run, parts, drawn))
    of.write_json("report.json", asdict(report))
    (of.path / "adapter").mkdir(exist_ok=True)
    of.write("adapter/README.md", card.markdown(of, report))
    shutil.rmtree(of.path / "figures", ignore_errors=True)
    (of.path / "figures").mkdir()
    for name, figure in drawn.items():
        of.write(f"figures/{name}.svg", figure.svg)
        write_atomically(of.path / "figures" / f"{name}.png", figure.png)
    return [of.path / name for name in ("report.html", "report.md", "report.json", "adapter/README.md", "figures")]


def sections(report: Report) -> list[Section]:
    """Return the report's sections in the order that they are read."""
    return [
        findings.answer(report),
        making.plan(report),
        making.training(report),
        findings.confusion(report),
        findings.classes(report),
        findings.distribution(report),
        findings.calibration(report),
        findings.coverage(report),
        findings.lengths(report),
        findings.mistakes(report),
        making.cost(report),
        making.setup(report),
    ]

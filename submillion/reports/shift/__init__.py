"""A file without labels, and runs → shift.html, shift.md, shift.json: what can be said before the truth is known.

`reading` gathers the numbers; `findings` says what they show and draws it. The pages are written into a folder
of the first run, `shift/<file>-<hash>/`, next to its predictions; what `DONE` seals is never touched.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from submillion.reports import page
from submillion.reports.sections import Page, Section
from submillion.reports.shift.findings import draw, sections
from submillion.reports.shift.reading import Asked, Disagreement, OfRun, ShiftReport, ask, read
from submillion.runs import dumps, write_atomically

__all__ = [
    "MAX_ROWS",
    "Asked",
    "Disagreement",
    "OfRun",
    "Shift",
    "ShiftReport",
    "ask",
    "read",
    "sections",
    "summary",
    "values",
    "write",
]

_SUMMED_UP = ("answer", "classes", "labels", "shares", "texts", "disagreement")
MAX_ROWS = 10_000  # more would narrow no interval that matters: the methods' own errors are larger


@dataclass(frozen=True)
class Shift:
    """What runs say about a file without labels, and the page that shows it."""

    report: ShiftReport
    page: Path


def summary(report: ShiftReport) -> list[Section]:
    """Return the sections that a terminal shows: each one's title and first table, and what the answer says."""
    return [
        replace(section, sentences=section.sentences * (section.anchor == "answer"), tables=section.tables[:1])
        for section in sections(report)
        if section.anchor in _SUMMED_UP
    ]


def values(report: ShiftReport) -> str:
    """Return the report's numbers as JSON."""
    return dumps(asdict(report), indent=2)


def write(folder: Path, report: ShiftReport) -> Path:
    """Write shift.html, shift.md with its figures, and shift.json into a folder; return the page's path."""
    run = report.runs[0].run
    origin = f"submillion shift from the run folder {run}"
    write_atomically(folder / "shift.json", values(report) + "\n")
    return page.save(Page(run, origin, sections(report), draw(report)), folder, "shift")[0]

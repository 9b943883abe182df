"""`submillion report`: the pages of a finished run, or of a study, written again, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from submillion.cli.options import JsonOption, OutOption

WhichArgument = Annotated[
    str, typer.Argument(metavar="RUN|STUDY", help="A run's folder, name or hash, or a study's folder or name.")
]


def report(which: WhichArgument, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Write the report of a run or of a study again: report.html, report.md, report.json, figures.

    Reads folders only; nothing is trained or predicted. A run's model card is written too. A study that is not
    finished gets a page that says so.
    """
    from submillion import reports, runs

    folder = _study(which, out or "runs")
    if folder is not None:
        written = reports.write_study(folder)
    else:
        written = reports.write(runs.Run(runs.locate(which, out or "runs")))
    if as_json:
        typer.echo(written[2].read_text(encoding="utf-8").rstrip())
        return
    typer.echo("\n".join(map(str, written)))


def _study(which: str, out: str) -> Path | None:
    """The folder of a study by its path, or by its name within `out`; None if there is none."""
    from submillion import reports

    places = (Path(which).expanduser(), Path(out).expanduser() / which)
    return next((place for place in places if reports.is_study(place)), None)

"""`submillion report`: the pages of a finished run, or of a study, written again, without torch."""

from __future__ import annotations

from typing import Annotated

import typer

from submillion import reports
from submillion.cli.options import JsonOption, OutOption

WhichArgument = Annotated[
    str, typer.Argument(metavar="RUN|STUDY", help="A run's folder, name or hash, or a study's folder or name.")
]


def report(which: WhichArgument, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Rewrite the report of a run or study: report.html, report.md, report.json, figures.

    Nothing is trained or predicted. A run's model card is rewritten too, from its data, which is read again. An
    unfinished study gets a page that says so.
    """
    written = reports.report(which, out or "runs")
    if as_json:
        typer.echo(written[2].read_text(encoding="utf-8").rstrip())
        return
    typer.echo("\n".join(map(str, written)))

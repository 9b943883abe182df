"""`submillion report`: a finished run's pages written again, without torch."""

from __future__ import annotations

import typer

from submillion.cli.options import JsonOption, OutOption
from submillion.cli.runs import RunArgument


def report(run: RunArgument, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Write a run's report.html, report.md, figures and model card again.

    Reads the run folder and its data; nothing is trained or predicted.
    """
    from submillion import reports, runs

    written = reports.write(runs.Run(runs.locate(run, out or "runs")))
    if as_json:
        typer.echo(written[2].read_text(encoding="utf-8").rstrip())
        return
    typer.echo("\n".join(map(str, written)))

"""The `compare` command: run folders in, their comparison out, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from submillion.cli.options import ForceOption, JsonOption, OutOption
from submillion.config import Metric
from submillion.judging import comparison
from submillion.judging.comparison.conclusion import Split
from submillion.reports import comparing, terminal

RunsArgument = Annotated[list[str], typer.Argument(metavar="RUN", help="Run folders, their names or hashes.")]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.html", help="Also write the comparison as one HTML file.")
]
SplitOption = Annotated[Split, typer.Option("--split", help="The split to compare on; reading test is recorded.")]

MarginOption = Annotated[
    float | None,
    typer.Option(
        "--margin",
        min=0.0,
        metavar="SCORE",
        help="Take the cheapest at most this much worse than the best, such as 0.005; default: the cheapest tied.",
    ),
]


DecideOption = Annotated[
    Metric | None,
    typer.Option(
        "--decide",
        metavar="SCORE",
        help="The score that decides: log-loss (after temperature scaling; the usual one), accuracy, macro-f1, ...",
    ),
]


def compare(  # noqa: PLR0913 - each is an option
    run: RunsArgument,
    split: SplitOption = "validation",
    report: ReportOption = None,
    margin: MarginOption = None,
    decide: DecideOption = None,
    force: ForceOption = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which runs or settings can be told apart, and which to use.

    Runs that differ only in train.seed are one setting.
    """
    verdict = comparing.compare(run, split, report, out or "runs", force, margin, decide)
    if as_json:
        typer.echo(json.dumps(comparison.values(verdict), indent=2, ensure_ascii=False))
        return
    terminal.show(comparing.sections(verdict))
    if report is not None:
        typer.echo(f"\n{report}")

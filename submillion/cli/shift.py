"""The `shift` command: a file without labels in, what can be said before the truth is known out."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

import submillion
from submillion import runs
from submillion.cli.options import ForceOption, JsonOption, OutOption
from submillion.cli.progress import View
from submillion.reports import shift as pages
from submillion.reports import terminal
from submillion.text import plural

RunsArgument = Annotated[list[str], typer.Argument(metavar="RUN", help="Run folders, names or hashes.")]
InputOption = Annotated[Path, typer.Option("--input", help="Rows without labels: .csv, .tsv, .jsonl or .parquet.")]
RowsOption = Annotated[int, typer.Option("--rows", min=10, help="Maximum rows to read; of more, a fixed sample.")]
CorrectOption = Annotated[
    Path | None,
    typer.Option(
        "--correct-priors",
        metavar="FILE",
        help="Also write labels for all rows to this CSV, from probabilities corrected for the estimated class shares.",
    ),
]


def shift(
    run: RunsArgument,
    source: InputOption,
    rows: RowsOption = pages.MAX_ROWS,
    correct_priors: CorrectOption = None,
    force: ForceOption = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how an unlabelled file differs from the training data, and estimate accuracy on it.

    No accuracy is estimated for rows with several labels.

    Writes a page into the first run's folder, next to its predictions for the file: shift/<file>-<hash>/.
    """
    several = [runs.load(each, out or "runs") for each in run]
    with View() as view:
        answer = submillion.shift(several, source, rows, correct_priors, partial(view.through, "predicting"), force)
    if as_json:
        typer.echo(pages.values(answer.report))
        return
    terminal.show(pages.summary(answer.report))
    typer.echo(f"\n{answer.page}")
    n = answer.report.n_read
    if correct_priors is not None:
        typer.echo(f"{correct_priors}: {n:,} {plural(n, 'row')}, corrected for EM's class shares")

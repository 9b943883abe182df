"""The `ask` command: a file without labels in, the rows that are worth a label out, as a CSV file to fill in."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

import submillion
from submillion import runs
from submillion.cli.options import ForceOption, JsonOption, OutOption, to_type
from submillion.cli.progress import View
from submillion.reports import asking, terminal

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, its name, or its hash.")]
InputOption = Annotated[Path, typer.Option("--input", help="Rows without labels: .csv, .tsv, .jsonl or .parquet.")]
NumberOption = Annotated[int | None, typer.Option("-n", metavar="N", help="How many rows to label.")]
WidthOption = Annotated[
    float | None,
    typer.Option(
        "--half-width",
        metavar="SHARE",
        help="Instead of -n: as many rows as an interval of this half-width takes, such as 0.03.",
    ),
]
PurposeOption = Annotated[
    Literal["know", "learn"],
    typer.Option(
        "--for",
        help="know: measure accuracy on the file from few labels; learn: rows to train on, which taught more than "
        "random ones. The default is know: its rows can be trained on too; those of learn say nothing about accuracy.",
    ),
]
OutputOption = Annotated[Path, typer.Option("--output", help="The CSV file to write.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed that decides which rows are drawn.")]


def ask(  # noqa: PLR0913 - one parameter an option
    run: RunArgument,
    source: InputOption,
    number: NumberOption = None,
    purpose: PurposeOption = "know",
    half_width: WidthOption = None,
    output: OutputOption = Path("ask.csv"),
    seed: SeedOption = 0,
    force: ForceOption = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose which rows of a file to label, to measure accuracy on it or to train on.

    Fill in the labels; then run `evaluate --labelled` or `train --start`. Rows that the run was trained on
    are left out.
    """
    loaded = runs.load(run, out or "runs")
    with View() as view:
        watch = partial(view.through, "predicting")
        rows = submillion.ask(loaded, source, number, purpose, half_width, output, seed, watch, force)
    if as_json:
        typer.echo(json.dumps(asdict(rows) | {"path": str(rows.path)}, indent=2))
        return
    seen = f" ({rows.n_trained_on:,} more were trained on and are left out)" if rows.n_trained_on else ""
    title = f"{rows.path}: {len(rows.ids):,} of {rows.n_rows:,} rows to label, to {purpose}{seen}"
    typed = [to_type("train", "--start", loaded.path, "--data", rows.path)]
    if rows.worth:
        typed.insert(0, to_type("evaluate", loaded.path, "--input", source, "--labelled", rows.path))
    terminal.show([asking.to_label(title, rows.worth, (rows.column, rows.classes), typed)])

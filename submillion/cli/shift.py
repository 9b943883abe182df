"""The `shift` command: a file without labels in, what may be said before anyone knows the truth out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from submillion.cli.options import JsonOption, OutOption

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table as Grid

    from submillion.reports.sections import Section, Table
    from submillion.reports.shift import Asked

RunsArgument = Annotated[list[str], typer.Argument(metavar="RUN [RUN ...]", help="Run folders, names or hashes.")]
InputOption = Annotated[Path, typer.Option("--input", help="Rows without labels: .csv, .tsv, .jsonl or .parquet.")]
RowsOption = Annotated[int, typer.Option("--rows", min=10, help="Most rows to read; of more, a fixed draw.")]
CorrectOption = Annotated[
    Path | None,
    typer.Option(
        "--correct-priors",
        metavar="FILE",
        help="Also write all rows' labels to this CSV, by probabilities corrected for the estimated class shares.",
    ),
]
_MAX_ROWS = 10_000  # more would narrow no interval that matters: the methods' own errors are larger
_SHOWN = ("answer", "classes", "shares", "texts", "disagreement")


def shift(
    run: RunsArgument,
    source: InputOption,
    rows: RowsOption = _MAX_ROWS,
    correct_priors: CorrectOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say how a file without labels differs from training, and estimate the accuracy on it.

    Writes a page into the first run's folder, beside its predictions of the file: shift/<file>-<hash>/.
    """
    from submillion import runs
    from submillion.reports import shift as pages

    found = [runs.load(each, out or "runs") for each in run]
    if correct_priors is not None:
        from submillion import prediction

        prediction.check_output(correct_priors, source)
    asked = pages.ask(found, source, None if correct_priors is not None else rows)
    probs = [_probs(one) for one in asked]
    report = pages.read(asked, probs, source)
    page = pages.write(asked[0].folder, report)
    if correct_priors is not None:
        _write_corrected(asked[0], probs[0], correct_priors)
    if as_json:
        typer.echo(pages.values(report))
        return
    _show([section for section in pages.sections(report) if section.anchor in _SHOWN])
    typer.echo(f"\n{page}")
    if correct_priors is not None:
        typer.echo(f"{correct_priors}: {len(probs[0]):,} rows, corrected for EM's class shares")


def _probs(asked: Asked) -> np.ndarray:
    """The run's probabilities: saved ones, or new ones, which are saved. torch is imported for the latter only."""
    from submillion import runs

    labels = asked.run.labels()
    saved = runs.load_unlabelled(asked.folder, asked.ids, labels)
    if saved is not None:
        return saved
    from submillion import prediction
    from submillion.cli.progress import StepsView

    pairs = [(one.text, one.text_pair) for one in asked.examples if one.text_pair is not None]
    rows, n_rows = pairs or [one.text for one in asked.examples], len(asked.examples)
    with StepsView() as view:
        probs = prediction.predict(asked.run, rows, watch=lambda n_done: view("predicting", n_done, n_rows)).probs
    runs.save_unlabelled(asked.folder, asked.ids, probs, asked.run.classes())
    return probs


def _write_corrected(asked: Asked, probs: np.ndarray, output: Path) -> None:
    from submillion import prediction
    from submillion.judging.shift import class_shares, corrected

    found = corrected(*class_shares(asked.run.load_predictions("validation"), probs))
    prediction.write_rows(output, asked.run.classes(), (asked.ids, found), prediction.Form(probabilities=True))


def _show(sections: list[Section]) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    for number, section in enumerate(sections):
        console.print(f"{section.title}" if number == 0 else f"\n{section.title}", soft_wrap=True)
        for sentence in section.sentences if number == 0 else ():  # the page has the others, and more tables
            console.print(f"- {sentence}", soft_wrap=True)
        for table in map(_table, section.tables[:1]):
            needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
            console.width = max(console.width, needed)
            console.print(table)


def _table(found: Table) -> Grid:
    from rich.table import Table as Grid

    grid = Grid(box=None, pad_edge=False)
    for number, head in enumerate(found.heads):
        grid.add_column(head, justify="left" if number == 0 else "right", no_wrap=True)
    for row in found.rows:
        grid.add_row(*row)
    return grid

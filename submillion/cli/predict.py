"""The commands that use a finished run: `evaluate` and `predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from submillion.cli.options import JsonOption, OutOption

if TYPE_CHECKING:
    from submillion.runs import Run

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, its name, or its hash.")]


def evaluate(
    run: RunArgument,
    data: Annotated[Path, typer.Option("--data", help="A labelled file, read by the run's own columns.")],
    perturb: Annotated[
        str | None,
        typer.Option("--perturb", metavar="NAMES", help="all, or some: typos,lower,truncation (robustness)."),
    ] = None,
    figure: Annotated[Path | None, typer.Option("--figure", help="With --perturb: an .svg or .png to draw.")] = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run on a labelled file, as it is or perturbed at three strengths.

    Perturbations: typos, lower, upper, punctuation, truncation, first-column, synonyms, insertion, swap, deletion.
    """
    from submillion import runs

    found = runs.load(runs.locate(run, out or "runs"))
    if perturb is not None or figure is not None:
        _evaluate_perturbed(found, data, perturb, figure, as_json)
        return
    from submillion import prediction
    from submillion.cli.show import score_table

    scores = prediction.evaluate(found, data)
    values = {name: vars(score) for name, score in scores.items()}
    typer.echo(json.dumps(values, indent=2) if as_json else "\n".join(score_table(scores)))


def _evaluate_perturbed(run: Run, data: Path, perturb: str | None, figure: Path | None, as_json: bool) -> None:
    from submillion.cli.progress import RowsView
    from submillion.cli.robustness_view import parse_kinds, show, values
    from submillion.errors import ConfigError
    from submillion.reports import robustness as drawing

    if perturb is None:
        raise ConfigError(f"--figure {figure}: it shows perturbations; add --perturb all")
    kinds = parse_kinds(perturb)
    if figure is not None:
        drawing.check_figure(figure)
    from submillion import robustness

    with RowsView("evaluating") as view:
        found = robustness.measure(run, data, kinds, watch=view)
    if figure is not None:
        accuracies = {kind: [each.accuracy for each in levels] for kind, levels in found.by_kind.items()}
        drawing.write_figure(figure, found.scores["accuracy"], accuracies)
    if as_json:
        typer.echo(json.dumps(values(found), indent=2))
    else:
        show(found)


def predict(
    run: RunArgument,
    source: Annotated[Path, typer.Option("--input", help="Rows to label: .csv, .tsv, .jsonl or .parquet.")],
    output: Annotated[Path, typer.Option("--output", help="The CSV file to write.")],
    label_ids: Annotated[bool, typer.Option("--label-ids", help="Columns ID,Label with the labels' numbers.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="A column with each class's probability.")
    ] = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the labels of a file's rows.

    Rows keep their order and their ids (column id); rows without ids are numbered from 0.
    """
    from submillion import runs
    from submillion.cli.progress import RowsView

    found = runs.load(runs.locate(run, out or "runs"))
    from submillion import prediction

    prediction.check_output(output, source)
    with RowsView("predicting") as view:
        labelled = prediction.predict(found, source, watch=view)
    prediction.write_csv(labelled, output, probabilities, label_ids)
    counts = {label: labelled.labels.count(label) for label in labelled.classes}
    if as_json:
        typer.echo(json.dumps({"output": str(output), "rows": len(labelled.ids), "predicted": counts}, indent=2))
        return
    shares = ", ".join(f"{label} {100 * n / max(1, len(labelled.ids)):.1f} %" for label, n in counts.items())
    typer.echo(f"{output}: {len(labelled.ids):,} rows ({shares})")

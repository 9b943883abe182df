"""The commands that use a finished run: `evaluate` and `predict`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from submillion.cli.options import JsonOption, OutOption

if TYPE_CHECKING:
    from submillion.runs import Run

Executor = Literal["inline", "processes", "ray"]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, its name, or its hash.")]
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="A run folder, its name, or its hash; several predict together.")
]
ProcessesOption = Annotated[
    int | None, typer.Option("--processes", min=1, help="Processes, which share the cores; with ray its workers.")
]
ExecutorOption = Annotated[
    Executor | None, typer.Option("--executor", help="Where rows are predicted; else inline, or as --processes says.")
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="A Ray cluster's address; else a local one is started.")
]


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

    found = runs.load(run, out or "runs")
    if perturb is not None or figure is not None:
        _evaluate_perturbed(found, data, perturb, figure, as_json)
        return
    from submillion import prediction
    from submillion.cli.show import evaluation_values, score_table, warning_lines

    evaluation = prediction.evaluate(found, data)
    lines = [*score_table(evaluation.scores), *warning_lines(evaluation.warnings)]
    typer.echo(json.dumps(evaluation_values(evaluation), indent=2) if as_json else "\n".join(lines))


def _evaluate_perturbed(run: Run, data: Path, perturb: str | None, figure: Path | None, as_json: bool) -> None:
    from submillion.cli.progress import StepsView
    from submillion.cli.robustness_view import parse_kinds, show, values
    from submillion.errors import ConfigError
    from submillion.reports import robustness as drawing

    if perturb is None:
        raise ConfigError(f"--figure {figure}: it shows perturbations; add --perturb all")
    kinds = parse_kinds(perturb)
    if figure is not None:
        drawing.check_figure(figure)
    from submillion.prediction import robustness

    with StepsView() as view:
        found = robustness.measure(run, data, kinds, watch=partial(view, "evaluating"))
    if figure is not None:
        accuracies = {kind: [each.accuracy for each in levels] for kind, levels in found.by_kind.items()}
        drawing.write_figure(figure, found.plain["accuracy"], accuracies)
    if as_json:
        typer.echo(json.dumps(values(found), indent=2))
    else:
        show(found)


def predict(  # noqa: PLR0913 - one parameter an option
    chosen: RunsArgument,
    source: Annotated[
        Path, typer.Option("--input", help="Rows to label: .csv, .tsv, .jsonl or .parquet, or a folder of them.")
    ],
    output: Annotated[
        Path, typer.Option("--output", help="The file to write, its format by its name; a folder for a folder.")
    ],
    label_ids: Annotated[bool, typer.Option("--label-ids", help="Columns ID,Label with the labels' numbers.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="A column with each class's probability.")
    ] = False,
    processes: ProcessesOption = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the labels of a file's rows, by a run or by the mean of several.

    Rows keep their order and their ids (column id); rows without ids are numbered from 0. The same command goes on
    where it stopped.
    """
    from submillion import runs
    from submillion.cli.progress import RowsView

    found = [runs.load(run, out or "runs") for run in chosen]
    from submillion import prediction

    where = executor or ("processes" if (processes or 1) > 1 else "inline")
    how = prediction.How(where, processes, address)
    with RowsView() as view:
        written = prediction.predict_file(
            found, source, output, prediction.Form(probabilities, label_ids), how, watch=view
        )
    if as_json:
        counts = {"output": str(output), "rows": written.n_rows, "predicted": written.counts}
        typer.echo(json.dumps(counts, indent=2))
        return
    shares = ", ".join(f"{label} {100 * n / max(1, written.n_rows):.1f} %" for label, n in written.counts.items())
    typer.echo(f"{output}: {written.n_rows:,} rows ({shares})")

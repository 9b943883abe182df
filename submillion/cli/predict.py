"""The commands that use a finished run: `evaluate` and `predict`."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import submillion
from submillion import runs
from submillion.cli.options import ForceOption, JsonOption, OutOption
from submillion.cli.progress import View
from submillion.data.tokens import blank_warning
from submillion.errors import ConfigError
from submillion.reports import acting, asking, brief, robustness, terminal
from submillion.runs import Run
from submillion.text import plural

if TYPE_CHECKING:
    from submillion.prediction import Evaluation
    from submillion.prediction.streaming import Written

Executor = Literal["inline", "processes", "ray"]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, its name, or its hash.")]
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN", help="A run folder, its name, or its hash; several predict together.")
]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--processes", min=1, help="Number of processes, which share the cores; with ray, of workers."),
]
ExecutorOption = Annotated[
    Executor | None,
    typer.Option("--executor", help="Where rows are predicted; default: inline, or processes with --processes."),
]
IdOption = Annotated[
    str | None,
    typer.Option("--id", metavar="COLUMN", help="The column with the rows' ids; default: id, if there is one."),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="COLUMN,COLUMN", help="Columns of the input to copy into the output. Repeatable."),
]
MaxErrorOption = Annotated[
    float | None,
    typer.Option(
        "--max-error", metavar="SHARE", help="Answer only where at most this share of answers is wrong: 0.02."
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="Address of a Ray cluster; default: $RAY_ADDRESS, else a local one is started."),
]


def evaluate(  # noqa: PLR0913 - one parameter an option
    run: RunArgument,
    data: Annotated[Path | None, typer.Option("--data", help="A labelled file, read by the run's own columns.")] = None,
    labelled: Annotated[
        Path | None, typer.Option("--labelled", help="Instead of --data: the file that `ask` wrote, now with labels.")
    ] = None,
    source: Annotated[Path | None, typer.Option("--input", help="With --labelled: the file that `ask` read.")] = None,
    perturb: Annotated[
        str | None,
        typer.Option("--perturb", metavar="NAMES", help="all, or some: typos,lower,truncation (robustness)."),
    ] = None,
    figure: Annotated[Path | None, typer.Option("--figure", help="With --perturb: an .svg or .png to draw.")] = None,
    max_error: MaxErrorOption = None,
    force: ForceOption = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run on a labelled file, unchanged or perturbed, or on one with only a few labels.

    Perturbations: typos, lower, upper, punctuation, truncation, first-column, synonyms, insertion, swap, deletion.
    """
    loaded = runs.load(run, out or "runs")
    if labelled is not None or source is not None:
        _refuse_beside_labels({"--data": data, "--perturb": perturb, "--figure": figure, "--max-error": max_error})
        _evaluate_by_labels(loaded, source, labelled, as_json)
        return
    if data is None:
        raise ConfigError("no rows are given: add --data LABELLED, or --input FILE --labelled CSV, which `ask` wrote")
    if perturb is not None or figure is not None:
        if max_error is not None:
            raise ConfigError("--max-error and --perturb cannot be combined: give one at a time")
        _evaluate_perturbed(loaded, data, perturb, figure, force, as_json)
        return
    evaluation = submillion.evaluate(loaded, data, max_error=max_error)
    if as_json:
        typer.echo(json.dumps(_values(evaluation), indent=2))
        return
    terminal.show([brief.scores(evaluation.scores)])
    if evaluation.answers is not None:
        typer.echo(f"\n{acting.kept(evaluation.answers)}")
    _warn(evaluation)


def _evaluate_by_labels(run: Run, source: Path | None, labelled: Path | None, as_json: bool) -> None:
    if source is None or labelled is None:
        lacks = "--input, the file that `ask` read" if source is None else "--labelled, the file that `ask` wrote"
        raise ConfigError(f"--input and --labelled go together: give {lacks}")
    with View() as view:
        evaluation = submillion.evaluate(run, source, labelled=labelled, watch=partial(view.through, "predicting"))
    if as_json:
        typer.echo(json.dumps(_values(evaluation), indent=2))
        return
    if evaluation.sample is not None:
        typer.echo(asking.known(evaluation["accuracy"], evaluation.n_rows, evaluation.sample.plain_half_width))
    _warn(evaluation)


def _refuse_beside_labels(options: dict[str, object]) -> None:
    if names := [name for name, value in options.items() if value is not None]:
        raise ConfigError(f"{', '.join(names)}: --labelled only measures accuracy on --input; leave it out")


def _evaluate_perturbed(
    run: Run, data: Path, perturb: str | None, figure: Path | None, force: bool, as_json: bool
) -> None:
    if perturb is None:
        raise ConfigError(f"--figure {figure}: it shows perturbations; add --perturb all")
    with View() as view:
        result = submillion.robustness(run, data, perturb, figure, None, partial(view.through, "evaluating"), force)
    if as_json:
        perturbations = [asdict(each) for each in result.perturbed]
        typer.echo(json.dumps(_values(result.plain) | {"perturbations": perturbations}, indent=2))
        return
    terminal.show([robustness.section(result.accuracy, result.by_kind)])
    _warn(result.plain)


def _values(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as --json prints it: a score per key, the number of rows that were trained on, warnings."""
    scores = {name: vars(score) for name, score in evaluation.scores.items()}
    answers = {} if evaluation.answers is None else {"answers": asdict(evaluation.answers)}
    sample = {} if evaluation.sample is None else {"n_rows": evaluation.n_rows, "sample": asdict(evaluation.sample)}
    return scores | {"n_trained_on": evaluation.n_trained_on, "warnings": list(evaluation.warnings)} | answers | sample


def _warn(evaluation: Evaluation) -> None:
    for warning in evaluation.warnings:
        typer.echo(f"\nwarning: {warning}")


def predict(  # noqa: PLR0913 - one parameter an option
    chosen: RunsArgument,
    source: Annotated[
        Path, typer.Option("--input", help="Rows to label: .csv, .tsv, .jsonl or .parquet, or a folder of them.")
    ],
    output: Annotated[
        Path, typer.Option("--output", help="The file to write, whose suffix sets the format; a folder for a folder.")
    ],
    label_ids: Annotated[bool, typer.Option("--label-ids", help="Write ID,Label, with labels as numbers.")] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Add a column with each label's probability.")
    ] = False,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Scale probabilities to fit how often labels are right.")
    ] = False,
    max_error: MaxErrorOption = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            "--coverage", metavar="SHARE", help="Write label sets that contain the true one this often: 0.95."
        ),
    ] = None,
    id_column: IdOption = None,
    keep: KeepOption = None,
    processes: ProcessesOption = None,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    force: ForceOption = False,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict labels for the rows of a file, with one run or the mean of several.

    Rows keep their order and their ids (--id COLUMN, else the column id); rows without ids are numbered from 0.
    The same command resumes where it stopped.
    """
    from submillion import prediction

    loaded = [runs.load(run, out or "runs") for run in chosen]
    where = executor or ("processes" if (processes or 1) > 1 else "inline")
    how = prediction.How(where, processes, address)
    answering = prediction.Answering(calibrated, max_error, coverage)
    form = prediction.Form(probabilities, label_ids, force, id_column, _columns(keep or []), answering)
    with View() as view:
        written = prediction.predict_file(loaded, source, output, form, how, watch=view)
    n_answered = None if max_error is None else sum(written.counts.values())
    if as_json:
        typer.echo(json.dumps(_counts(written, n_answered), indent=2))
        return
    shares = ", ".join(f"{label} {100 * n / max(1, written.n_rows):.1f} %" for label, n in written.counts.items())
    typer.echo(f"{output}: {written.n_rows:,} {plural(written.n_rows, 'row')} ({shares})")
    if max_error is not None and n_answered is not None:
        typer.echo(acting.answered(max_error, n_answered, written.n_rows))
    if written.n_dropped:
        which = plural(written.n_dropped, "row is", "rows are")
        typer.echo(f"{written.n_dropped:,} more {which} left out (the run's data.drop) and not in the output")
    if warning := blank_warning(written.n_blank, written.n_rows):
        typer.echo(f"warning: {warning}")
    if written.is_numbered:
        typer.echo(f"rows are numbered from 0: {source} has no column id; --id COLUMN uses another column")


def _counts(written: Written, n_answered: int | None) -> dict[str, Any]:
    """A finished output as --json prints it."""
    counts = {"output": str(written.output), "rows": written.n_rows, "predicted": written.counts}
    counts |= {"numbered": written.is_numbered, "without_known_tokens": written.n_blank, "dropped": written.n_dropped}
    return counts if n_answered is None else counts | {"answered": n_answered}


def _columns(keep: list[str]) -> tuple[str, ...]:
    """The columns of --keep: a name that holds a comma is quoted, as in a CSV file."""
    return tuple(name for value in keep for row in csv.reader([value], skipinitialspace=True) for name in row)

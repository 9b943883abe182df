"""The `train` command: from options to a run, with progress on stderr and the result on stdout."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from submillion import runs
from submillion.cli.options import (
    BudgetOption,
    ConfigOption,
    DataOption,
    JsonOption,
    OutOption,
    RecipeOption,
    SetOption,
    resolved,
    to_type,
)
from submillion.cli.progress import View
from submillion.config import Config
from submillion.errors import ConfigError
from submillion.reports import brief, terminal
from submillion.reports import folds as pages
from submillion.reports.sections import Section
from submillion.runs import Run

StartOption = Annotated[
    str | None,
    typer.Option(
        "--start", metavar="RUN", help="Continue from a run: its settings, weights and rows, plus those of --data."
    ),
]
FoldsOption = Annotated[
    int | None,
    typer.Option(
        "--folds", help="Train this many runs, each without one part of the rows, and pool their predictions."
    ),
]


def train(  # noqa: PLR0913 - one parameter an option
    file: ConfigOption = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    budget: BudgetOption = None,
    data: DataOption = None,
    start: StartOption = None,
    out: OutOption = None,
    folds: FoldsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier inside the budget.

    The same command resumes an interrupted run, and shows a finished one. --start RUN --data FILE continues from
    a finished run with more rows.
    """
    if start is None:
        settings = resolved(file, recipe, overrides, {"budget": budget, "data.source": data, "out": out})
    else:
        settings = _going_on(start, {"--config": file, "--recipe": recipe}, data, out)
        settings = resolved(settings, None, overrides, {"budget": budget, "out": out})
    with View() as view:
        view.say("loading")
        from submillion.model import processes
        from submillion.training import workflow

        if folds is not None:
            from submillion.training import folds as in_folds

            all_folds = in_folds.train(settings, folds, view)
            if processes.is_main():  # another machine may not see the folder
                _show_folds(all_folds.folder, as_json)
            return
        run = workflow.train(settings, view)

    if processes.is_main():
        if as_json:
            typer.echo(json.dumps(_summary(run), indent=2))
        else:
            terminal.show([_result(run)])


def _going_on(start: str, beside: dict[str, object], data: str | None, out: str | None) -> Config:
    if names := [name for name, value in beside.items() if value is not None]:
        raise ConfigError(f"{', '.join(names)}: --start takes the settings of its run; change some with --set")
    if data is None:
        raise ConfigError("--start trains on new rows: give --data FILE, such as one that `submillion ask` wrote")
    return runs.continued(runs.load(start, out or "runs"), data)


def _show_folds(folder: Path, as_json: bool) -> None:
    report = pages.read(folder)
    if as_json:
        scores = {name: asdict(score) for name, score in report.scores.items()}
        by_fold = {run: {name: asdict(s) for name, s in own.items()} for run, own in report.folds.items()}
        values = {"folder": str(folder), "scores": scores, "folds": by_fold, "n_label_errors": len(report.errors)}
        typer.echo(json.dumps(values | {"label_error_share": report.error_share}, indent=2))
        return
    answer = pages.answer(report)
    errors = to_type("data", "errors", folder)
    section = Section("result", "Result", answer.title, tables=answer.tables, code=(("next", errors),))
    terminal.show([section])
    typer.echo(f"{folder / 'report.html'} has the rest")


def _summary(run: Run) -> dict[str, object]:
    plan = run.read_json("plan.json")
    return {
        "run": str(run.path),
        "scores": run.read_json("scores.json"),
        "after_selection": len(run.evaluations()) > 1,
        "total": plan["total"],
        "budget": plan["budget"],
        "all_params": plan["all_params"],
    }


def _result(run: Run) -> Section:
    """The result as people read it: the score first, then what was written, then what to type next."""
    show = to_type("runs", "show", run.path)
    predict = to_type("predict", run.path, "--input", "FILE", "--output", "predictions.csv")
    tables = (brief.accuracy(run), brief.parameters(run))
    return Section("result", "Result", "", tables=tables, code=(brief.files(run), ("next", f"{show}\n{predict}")))

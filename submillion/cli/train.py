"""The `train` command: from options to a run, with progress on stderr and the result on stdout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from submillion.cli.options import (
    BudgetOption,
    ConfigOption,
    DataOption,
    JsonOption,
    OutOption,
    RecipeOption,
    SetOption,
    resolved,
)

if TYPE_CHECKING:
    from submillion.runs import Run


def train(
    file: ConfigOption = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    budget: BudgetOption = None,
    data: DataOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a classifier inside the budget.

    The same command resumes an interrupted run, and shows a finished one.
    """
    settings = resolved(file, recipe, overrides, {"budget": budget, "data.source": data, "out": out})
    from submillion.cli.progress import TrainingView

    with TrainingView() as view:
        view.say("loading")
        from submillion.model import processes
        from submillion.training import workflow

        run = workflow.train(settings, view)
    if processes.is_main():  # another machine may not see the folder
        typer.echo(json.dumps(_summary(run), indent=2) if as_json else _text(run))


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


def _text(run: Run) -> str:
    """The result as people read it: the score first, then what was written, then what to type next."""
    from submillion.cli.show import files, program, score_lines
    from submillion.errors import command

    plan = run.read_json("plan.json")
    share = 100 * plan["total"] / plan["all_params"]
    limit = "no budget: full fine-tuning" if plan["budget"] is None else f"budget {plan['budget']:,}"
    return "\n".join(
        [
            *score_lines(run),
            f"trainable parameters  {plan['total']:,} of {plan['all_params']:,} ({share:.4f} %), {limit}",
            "",
            f"{run.path}/",
            *files(run),
            "",
            "next:",
            f"  {command('runs', 'show', run.path, program=program())}",
            f"  {command('predict', run.path, '--input', 'FILE', '--output', 'predictions.csv', program=program())}",
        ]
    )

"""Options that several commands share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from submillion import config
from submillion.config import Config

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="A YAML file of settings.")]
RecipeOption = Annotated[str | None, typer.Option("--recipe", help="A shipped set of settings (`submillion recipes`).")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as train.epochs=2. Repeatable."),
]
BudgetOption = Annotated[int | None, typer.Option("--budget", help="Most trainable parameters (budget).")]
DataOption = Annotated[str | None, typer.Option("--data", help="Training rows (data.source).")]
OutOption = Annotated[str | None, typer.Option("--out", help="The folder of run folders (out; default runs).")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


def resolved(
    file: Path | None, recipe: str | None, overrides: list[str] | None, shortcuts: dict[str, object]
) -> Config:
    """Return the config of the options; a shortcut (`{"budget": 5000}`) counts where it is not None."""
    extra = [f"{key}={_yaml(value)}" for key, value in shortcuts.items() if value is not None]
    return config.load(file, recipe, [*(overrides or []), *extra])


def _yaml(value: object) -> str:
    import json

    return json.dumps(value)

"""What several commands share: their options, so that they read the same everywhere, and what to type next."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from submillion import config
from submillion.config import Config
from submillion.errors import command

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="A YAML file of settings.")]
RecipeOption = Annotated[str | None, typer.Option("--recipe", help="A shipped set of settings (`submillion recipes`).")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, such as train.epochs=2. Repeatable."),
]
BudgetOption = Annotated[int | None, typer.Option("--budget", help="Maximum trainable parameters (budget).")]
DataOption = Annotated[str | None, typer.Option("--data", help="Training rows (data.source).")]
OutOption = Annotated[str | None, typer.Option("--out", help="The folder of run folders (out; default runs).")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace a file that this command did not write; never one in a run folder.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else.")]


def resolved(
    file: Path | Config | None, recipe: str | None, overrides: list[str] | None, shortcuts: dict[str, object]
) -> Config:
    """Return the config of the options; a shortcut (`{"budget": 5000}`) counts if it is not None."""
    extra = [f"{key}={json.dumps(value)}" for key, value in shortcuts.items() if value is not None]
    return config.load(file, recipe, [*(overrides or []), *extra])


def to_type(*words: object) -> str:
    """Return a command of this program as it is typed: by its name, or by its path if not on the PATH."""
    called = sys.argv[0]
    is_away = called.endswith("/submillion") and not shutil.which("submillion")
    return command(*words, program=called if is_away else "submillion")

"""The commands that print settings: `config` and `recipes`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from submillion.cli.options import ConfigOption, JsonOption, RecipeOption, SetOption, resolved
from submillion.config import commented, recipe_names, recipe_text


def config(
    file: ConfigOption = None, recipe: RecipeOption = None, overrides: SetOption = None, as_json: JsonOption = False
) -> None:
    """Print every setting with its meaning, as YAML.

    The settings are those of a file or a recipe, with overrides; without either, the defaults.
    """
    settings = resolved(file, recipe, overrides, {})
    typer.echo(settings.model_dump_json(indent=2) if as_json else commented(settings).rstrip())


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this recipe.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the shipped recipes, or print one."""
    if name is not None:
        typer.echo(json.dumps(recipe_text(name)) if as_json else recipe_text(name).rstrip())
        return
    first_lines = {recipe: recipe_text(recipe).splitlines()[0].removeprefix("# ") for recipe in recipe_names()}
    if as_json:
        typer.echo(json.dumps(first_lines, indent=2))
        return
    for recipe, line in first_lines.items():
        typer.echo(f"{recipe:<16} {line}")

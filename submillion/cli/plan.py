"""The `plan` command: what a budget buys, where each parameter goes, and what else it would buy; and how many
validation rows a question needs.

Needs no weights and no torch: it answers in under a second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from submillion import data as datasets
from submillion import planning
from submillion.cli.options import (
    BudgetOption,
    ConfigOption,
    DataOption,
    JsonOption,
    RecipeOption,
    SetOption,
    resolved,
)
from submillion.errors import BudgetError, ConfigError
from submillion.judging import comparison
from submillion.judging.comparison.rows import ACCURACY, POINTS
from submillion.planning import Alternative, Plan, architectures
from submillion.reports import terminal, verdicts

_BAR_WIDTH = 16

ClassesOption = Annotated[
    int | None, typer.Option("--classes", min=2, help="Number of classes; default: counted in the data, else 4.")
]
ModelsOption = Annotated[bool, typer.Option("--models", help="List the checkpoints known offline, and exit.")]

RowsOption = Annotated[
    bool, typer.Option("--rows", help="Say how many validation rows a difference of given points takes, and exit.")
]
PointsOption = Annotated[
    list[float] | None,
    typer.Option("--points", help="With --rows: a true difference of accuracy, in points. Repeatable."),
]
AccuracyOption = Annotated[
    float | None,
    typer.Option("--accuracy", help=f"With --rows: the accuracy that runs reach, roughly (default {ACCURACY})."),
]
DiscordanceOption = Annotated[
    float | None,
    typer.Option("--discordance", help="With --rows: the share of rows that two runs decide differently."),
]


def plan(  # noqa: PLR0913 - one parameter an option
    file: ConfigOption = None,
    recipe: RecipeOption = None,
    overrides: SetOption = None,
    budget: BudgetOption = None,
    data: DataOption = None,
    classes: ClassesOption = None,
    models: ModelsOption = False,
    rows: RowsOption = False,
    points: PointsOption = None,
    accuracy: AccuracyOption = None,
    discordance: DiscordanceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the exact ranks that a budget buys.

    Also shows where each parameter goes, what one more rank costs, and what else the budget would buy.
    """
    of_plan = {"--config": file, "--recipe": recipe, "--set": overrides, "--budget": budget, "--data": data}
    of_plan["--classes"] = classes
    of_rows = {"--points": points, "--accuracy": accuracy, "--discordance": discordance}
    if models:
        _refuse_with("--models", "lists checkpoints", of_plan | {"--rows": rows or None} | of_rows)
        _print_models(as_json)
        return
    if rows:
        _refuse_with("--rows", "says how many rows a difference takes", of_plan)
        _print_rows(points or POINTS, ACCURACY if accuracy is None else accuracy, discordance, as_json)
        return
    _refuse_without_rows(of_rows)
    settings = resolved(file, recipe, overrides, {"budget": budget, "data.source": data})
    n_classes, origin = datasets.expected_classes(settings.data, classes)
    wishes = planning.resolve(settings, n_classes)
    draft = planning.draft(wishes)
    if (overrun := planning.overrun(wishes, draft)) is not None:
        if as_json:
            typer.echo(json.dumps(planning.overrun_values(wishes, draft, overrun), indent=2))
        raise BudgetError(overrun)
    others = planning.alternatives(wishes)
    if as_json:
        typer.echo(json.dumps(planning.values(draft, others), indent=2))
    else:
        _show(draft, others, origin)


def _print_rows(points: Sequence[float], accuracy: float, discordance: float | None, as_json: bool) -> None:
    rows = comparison.rows_for_points(points, accuracy, discordance)
    if as_json:
        typer.echo(json.dumps({"accuracy": accuracy, "rows": [asdict(each) for each in rows]}, indent=2))
    else:
        terminal.show([verdicts.rows_for_points(rows, accuracy)])


def _refuse_with(option: str, does: str, others: Mapping[str, object]) -> None:
    names = [name for name, value in others.items() if value not in (None, [])]
    if names:
        raise ConfigError(f"{', '.join(names)}: {option} {does}, and no plan is made; leave one of them out")


def _refuse_without_rows(options: Mapping[str, object]) -> None:
    names = [name for name, value in options.items() if value is not None]
    if names:
        raise ConfigError(f"{', '.join(names)}: used only with --rows; add --rows, or leave it out")


def _print_models(as_json: bool) -> None:
    ids = {name: architectures.hub_id(name) for name in architectures.known()}
    width = max(map(len, ids))
    typer.echo(json.dumps(ids, indent=2) if as_json else "\n".join(f"{name:<{width}}  {ids[name]}" for name in ids))


def _show(draft: Plan, rows: Sequence[Alternative], origin: str) -> None:
    console = terminal.plain()
    console.print(f"{planning.encoder_words(draft)}, {origin}\n{planning.wish_words(draft)}\n", soft_wrap=True)
    console.print(_parts_table(draft, console))
    lines = [
        f"\n{planning.total_words(draft)}",
        planning.slack_words(draft),
        "\nwhy",
        *(f"- {reason}" for reason in draft.reasons),
    ]
    console.print("\n".join(lines), soft_wrap=True)
    if rows:
        console.print(f"\nwhat else {draft.budget:,} would buy: the largest rank, and its total", soft_wrap=True)
        console.print(_alternatives_table(rows))


def _parts_table(draft: Plan, console: Console) -> Table:
    block = "█" if console.encoding.startswith("utf") else "#"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("site", overflow="fold")
    for heading in ("rank", "alpha", "layers", "parameters", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for part in planning.parts(draft):
        share = part.params / draft.total
        numbers = (_cell(part.rank), _cell(part.alpha), _cell(part.n_layers), f"{part.params:,}")
        table.add_row(part.name, *numbers, f"{100 * share:.1f} %", block * round(_BAR_WIDTH * share))
    table.add_row("total", "", "", "", f"{draft.total:,}", style="bold")
    return table


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _alternatives_table(rows: Sequence[Alternative]) -> Table:
    """A line for each of sites × layers, a column for each head; the config's own cell in bold."""
    heads = list(dict.fromkeys(row.head for row in rows))
    cells = {(row.sites, row.layers, row.head): row for row in rows}
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("sites", overflow="fold")
    table.add_column("layers", overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    width = max(len(f"{row.total:,}") for row in rows)
    for sites, layers in dict.fromkeys((row.sites, row.layers) for row in rows):
        line = (cells[sites, layers, head] for head in heads)
        shown = (Text(_alternative(row, width), style="" if row.n_changes else "bold") for row in line)
        table.add_row(sites, layers, *shown)
    return table


def _alternative(row: Alternative, width: int) -> str:
    """A rank and its total, aligned; a dash if nothing fits."""
    if not row.fits:
        return "-"
    return f"{row.total:,}" if row.rank is None else f"r{row.rank} {row.total:>{width},}"

"""`submillion runs list|show|remove`: run folders, without torch."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from submillion.cli.options import JsonOption, OutOption

if TYPE_CHECKING:
    from submillion.runs import Run

app = typer.Typer(no_args_is_help=True)
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, its name, or its hash.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
def list_runs(out: OutOption = None, as_json: JsonOption = False) -> None:
    """List the runs of a folder with their scores."""
    from submillion import runs

    folder = out or "runs"
    rows = [runs.facts(run) for run in runs.list_runs(folder)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        _print_table(rows)
    else:
        typer.echo(f"no runs in {folder}; `submillion train` makes one")


@app.command("show")
def show(run: RunArgument, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Show what a run was asked, what came out, and its files."""
    from submillion import runs
    from submillion.cli.show import files, program, score_table
    from submillion.errors import command

    found = runs.Run(runs.locate(run, out or "runs"))
    facts = runs.facts(found)
    if as_json:
        typer.echo(json.dumps(facts | _parts(found), indent=2, ensure_ascii=False))
        return
    lines = [f"{key.replace('_', ' '):<20} {_cell(facts[key])}" for key in runs.COLUMNS]
    for split, scores in _scores(found).items():
        is_selected = split == "validation" and len(found.evaluations()) > 1
        lines += ["", f"{split}, after selection" if is_selected else split, *score_table(scores)]
    typer.echo("\n".join([*lines, "", f"files in {found.path}/", *files(found)]))
    if (stopped := found.stopped()) is not None:
        typer.echo(f"\n{stopped}")
    if facts["state"] == "interrupted":
        typer.echo(f"\nit goes on with: {command('train', '--config', found.path / 'config.yaml', program=program())}")


@app.command("remove")
def remove(run: RunArgument, out: OutOption = None, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Delete a run folder."""
    from submillion import runs
    from submillion.errors import RunError

    found = runs.Run(runs.locate(run, out or "runs"))
    if not yes:
        if not sys.stdin.isatty():
            raise RunError(f"{found.path} is not removed: nobody is there to ask; say --yes")
        typer.confirm(f"remove {found.path} ({found.state})?", abort=True, err=True)
    runs.remove(found)
    typer.echo(json.dumps({"removed": str(found.path)}) if as_json else f"removed {found.path}")


def _scores(run: Run) -> dict[str, Any]:
    return run.scores() if (run.path / "scores.json").exists() else {}


def _parts(run: Run) -> dict[str, Any]:
    """The run's JSON files, those that are there."""
    names = ("plan", "data", "teachers", "labels", "environment", "scores")
    parts = {name: run.read_json(f"{name}.json") for name in names if (run.path / f"{name}.json").exists()}
    return {"path": str(run.path), "config": run.config().model_dump(mode="json"), **parts}


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from submillion import runs

    table = Table(box=None, pad_edge=False)
    for column in runs.COLUMNS:
        right = column in ("trainable_params", "minutes")
        # Names and paths are what people copy: they are never cut, the terminal wraps them.
        table.add_column(column.replace("_", " "), justify="right" if right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(row[column]) for column in runs.COLUMNS))
    console = Console(markup=False, highlight=False, emoji=False)
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, needed)
    console.print(table)


def _cell(value: Any) -> str:
    """A fact for people: scores with their interval in percent, numbers with commas, a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return f"{100 * value['value']:.1f} % [{100 * value['low']:.1f}, {100 * value['high']:.1f}]"
    return f"{value:,}" if isinstance(value, int) else str(value)

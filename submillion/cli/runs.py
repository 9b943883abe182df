"""`submillion runs list|show|remove`: run folders, without torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from submillion import runs
from submillion.cli.options import JsonOption, OutOption, to_type
from submillion.errors import RunError, SubmillionError
from submillion.judging.metrics import NAMES, Score
from submillion.reports import brief, terminal
from submillion.reports.sections import Section, Table
from submillion.runs import Run, folds
from submillion.text import interval

app = typer.Typer(no_args_is_help=True)
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, its name, or its hash.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("list")
def list_runs(out: OutOption = None, as_json: JsonOption = False) -> None:
    """List the runs of a folder with their scores."""
    folder = out or "runs"
    listed = runs.list_runs(folder)
    if as_json:
        typer.echo(json.dumps([runs.facts(run) for run in listed], indent=2, ensure_ascii=False))
    elif listed:
        rows = [runs.examined(run) for run in listed]
        heads = tuple(column.replace("_", " ") for column in runs.COLUMNS)
        terminal.show_table(Table("", heads, [_cells(row) for row in rows]))
        if reasons := "\n".join(f"  {row['run']}: {row['why']}" for row in rows if row["why"]):
            typer.echo(f"\ndamaged:\n{reasons}")
    else:
        typer.echo(f"no runs in {folder}; `submillion train` makes one")
    if not as_json and (of_folds := folds.inside(folder)):
        each = "\n".join(f"  {to_type('runs', 'list', '--out', path)}" for path in of_folds)
        typer.echo(f"\nfolders of folds have their own runs:\n{each}")


@app.command("show")
def show(run: RunArgument, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Show what a run was asked, what came out, and its files."""
    located = runs.Run(runs.locate(run, out or "runs"))
    if as_json:
        typer.echo(json.dumps(runs.facts(located) | _parts(located), indent=2, ensure_ascii=False))
        return
    facts = runs.examined(located)
    is_whole = facts["state"] != "damaged"
    rows = [(key.replace("_", " "), cell) for key, cell in zip(runs.COLUMNS, _cells(facts), strict=True)]
    sections = [Section("run", "Run", located.name, tables=(Table("", ("", ""), rows),))]
    for split, scores in (_scores(located) if is_whole else {}).items():
        is_selected = split == "validation" and len(located.evaluations()) > 1
        sections.append(brief.scores(scores, f"{split}, after selection" if is_selected else split))
    stopped = located.stopped() if is_whole else None
    sentences = () if stopped is None else (str(stopped),)
    sections.append(Section("files", "Files", "", sentences, code=(brief.files(located),)))
    terminal.show(sections)
    if not is_whole:
        typer.echo(f"\ndamaged: {facts['why']}")
    elif facts["state"] == "interrupted":
        call = f"{located.call_again} in Python, given the same rows again"
        typed = call if located.is_of_memory else to_type("train", "--config", located.path / "config.yaml")
        typer.echo(f"\nresume it with: {typed}")


@app.command("remove")
def remove(run: RunArgument, out: OutOption = None, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Delete a run folder."""
    located = runs.Run(runs.locate(run, out or "runs"))
    if not yes:
        if not sys.stdin.isatty():
            raise RunError(f"{located.path} is not removed: there is no terminal to confirm on; pass --yes")
        typer.confirm(f"remove {located.path} ({located.state})?", abort=True, err=True)
    runs.remove(located)
    typer.echo(json.dumps({"removed": str(located.path)}) if as_json else f"removed {located.path}")


def _scores(run: Run) -> dict[str, Any]:
    return run.scores() if (run.path / "scores.json").exists() else {}


def _parts(run: Run) -> dict[str, Any]:
    """The run's settings and its JSON files, as far as they exist; None for what is damaged."""
    names = ("plan", "data", "teachers", "labels", "environment", "scores")
    parts = {
        name: _readable(partial(run.read_json, f"{name}.json"))
        for name in names
        if (run.path / f"{name}.json").exists()
    }
    return {"path": str(run.path), "config": _readable(lambda: run.config().model_dump(mode="json")), **parts}


def _readable(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except SubmillionError:
        return None


def _cells(facts: dict[str, Any]) -> tuple[str, ...]:
    """A run's facts for people, by `COLUMNS`, the metric by its name."""
    named = facts | {"metric": NAMES.get(facts["metric"])}
    return tuple(_cell(named[column]) for column in runs.COLUMNS)


def _cell(value: Any) -> str:
    """A fact for people: scores with their interval, numbers with commas, a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return interval(Score(**value))
    return f"{value:,}" if isinstance(value, int) else str(value)

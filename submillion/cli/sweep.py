"""The `sweep` command: a study file in, trials as ordinary runs, what may be said of them out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from submillion.cli.options import DataOption, JsonOption, OutOption, SetOption

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from submillion.sweeps.previews import Preview
    from submillion.sweeps.study import Prepared, Sweep
    from submillion.sweeps.trials import Trial

Executor = Literal["inline", "processes", "ray"]
StudyArgument = Annotated[
    str | None, typer.Argument(metavar="STUDY", help="A study file, or a shipped study's name; none lists these.")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="List the trials and the estimated time; start nothing.")]
ScaleOption = Annotated[float, typer.Option("--scale", help="Cut training rows and steps by this factor, such as 0.1.")]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, help="Processes, which share the cores.")]
ExecutorOption = Annotated[
    Executor | None, typer.Option("--executor", help="Where trials run; else inline, or processes with --workers.")
]
AddressOption = Annotated[
    str | None, typer.Option("--address", help="A Ray cluster's address; else a local one is started.")
]
StorageOption = Annotated[
    str | None, typer.Option("--storage", help="An Optuna storage's URL; else SQLite in the study's folder.")
]


def sweep(  # noqa: PLR0913 - one parameter an option
    study: StudyArgument = None,
    overrides: SetOption = None,
    data: DataOption = None,
    out: OutOption = None,
    dry_run: DryOption = False,
    scale: ScaleOption = 1.0,
    workers: WorkersOption = 1,
    executor: ExecutorOption = None,
    address: AddressOption = None,
    storage: StorageOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a study: every trial an ordinary run, an honest comparison, one recommendation.

    The same command goes on where it stopped, and shows a finished study.
    """
    if study is None:
        _list(as_json)
        return
    shortcuts = {"data.source": data, "out": out}
    given = [f"{key}={json.dumps(value)}" for key, value in shortcuts.items() if value is not None]
    from submillion.sweeps import sitting, summary
    from submillion.sweeps.study import How, prepare

    prepared = prepare(study, [*(overrides or []), *given], scale)
    if dry_run:
        if as_json:
            typer.echo(json.dumps(summary.preview_values(prepared.preview), indent=2, ensure_ascii=False))
        else:
            _show_preview(prepared)
        return
    how = How(executor or ("processes" if workers > 1 else "inline"), workers, address, storage, scale)
    from submillion.cli.sweep_view import SweepView

    with SweepView(prepared) as view:
        found = sitting.run(prepared, how, view)
    if as_json:
        typer.echo(json.dumps(summary.values(found), indent=2, ensure_ascii=False))
    else:
        _show(found)


def _list(as_json: bool) -> None:
    from submillion.sweeps import study_names, study_text

    first_lines = {name: study_text(name).splitlines()[0].removeprefix("# ") for name in study_names()}
    if as_json:
        typer.echo(json.dumps(first_lines, indent=2))
        return
    for name, line in first_lines.items():
        typer.echo(f"{name:<10} {line}")


def _show_preview(prepared: Prepared) -> None:
    from submillion.sweeps.timing import duration

    found = prepared.preview
    console = _console()
    console.print(f"{prepared.study.name} ({prepared.study.kind}), runs in {prepared.space.base.out}\n")
    _print_wide(console, _preview_table(found))
    over = [trial for trial, _ in found.trials if not trial.fits]
    console.print(
        f"\n{len(found.trials)} trials, {len(over)} over budget and not started; {found.n_runs} runs, about "
        f"{duration(found.seconds)} one after the other: an estimate"
    )
    for note in found.notes:
        console.print(f"- {note}", soft_wrap=True)


def _preview_table(found: Preview) -> Table:
    from rich.table import Table

    from submillion.sweeps.timing import duration

    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    for heading in ("stage", "trial", "rank"):
        table.add_column(heading, no_wrap=True)
    for heading in ("parameters", "seeds", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for number, (trial, n_flops) in enumerate(found.trials, start=1):
        ranks = sorted(set(trial.plan.ranks.values()))
        table.add_row(
            *(str(number), trial.candidate.stage, trial.candidate.name, ", ".join(map(str, ranks)) or "-"),
            *(f"{trial.plan.total:,}", str(len(trial.configs))),
            duration(found.seconds_of(n_flops)) if trial.fits else "-",
            "" if trial.fits else _what_fits(trial),
        )
    return table


def _what_fits(trial: Trial) -> str:
    excess = trial.plan.total - (trial.plan.budget or 0)
    fits = "no rank fits" if trial.largest_rank is None else f"rank {trial.largest_rank} fits"
    return f"{excess:,} over budget; {fits}"


def _show(found: Sweep) -> None:
    from submillion import runs
    from submillion.cli import compare
    from submillion.cli.show import program, score_lines
    from submillion.errors import command
    from submillion.sweeps import summary

    console = _console()
    console.print(f"{found.study.name} ({found.study.kind})\n")
    for outcome in found.outcomes:
        trial = outcome.trial
        more = "" if trial.fits else f" ({_what_fits(trial)})"
        console.print(f"{trial.candidate.stage}: {summary.outcome_line(outcome)}{more}", soft_wrap=True)
    for note in found.notes:
        console.print(f"- {note}", soft_wrap=True)
    console.print()
    if found.comparison is not None:
        compare.show(found.comparison)
        console.print()
    lines = [
        f"recommended: {found.recommended.path}",
        *score_lines(found.recommended, is_chosen=len(found.outcomes) > 1),
    ]
    lines += [f"the test rows were opened {runs.times(found.n_test_reads)} so far"] if found.n_test_reads else []
    lines += ["", f"{found.folder}/", f"  {', '.join(_files(found))}", ""]
    lines += ["next:", f"  {command('runs', 'show', found.recommended.path, program=program())}"]
    console.print("\n".join(lines), soft_wrap=True)


def _files(found: Sweep) -> list[str]:
    """What stands in the study's folder, what people open first."""
    names = ("report.html", "report.md", "report.json", "figures", "study.yaml", "summary.json", "summary.md")
    return [name for name in (*names, "study.sqlite3") if (found.folder / name).exists()]


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def _print_wide(console: Console, table: Table) -> None:
    """Print a table whose cells are what people copy: it is never cut, the terminal wraps it."""
    needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
    console.width = max(console.width, needed)
    console.print(table)

"""The `sweep` command: a study file in, trials as ordinary runs, their comparison out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from submillion.cli.options import DataOption, JsonOption, OutOption, SetOption, to_type
from submillion.cli.sweep_view import SweepView
from submillion.reports import brief, terminal
from submillion.reports import sweep as pages
from submillion.reports.sections import Section, Table
from submillion.sweeps import study_names, study_text
from submillion.text import duration, plural

if TYPE_CHECKING:
    from submillion.sweeps.previews import Preview
    from submillion.sweeps.study import Prepared, Sweep
    from submillion.sweeps.trials import Trial

Executor = Literal["inline", "processes", "ray"]
StudyArgument = Annotated[
    str | None,
    typer.Argument(metavar="STUDY", help="A study file, or a shipped study's name; left out, it lists those."),
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="List the trials and the estimated time; start nothing.")]
ScaleOption = Annotated[
    float, typer.Option("--scale", help="Scale training rows and steps by this factor, such as 0.1.")
]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, help="Number of processes, which share the cores.")]
ExecutorOption = Annotated[
    Executor | None, typer.Option("--executor", help="Where trials run; default: inline, or processes with --workers.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", help="Address of a Ray cluster; default: $RAY_ADDRESS, else a local one is started."),
]
StorageOption = Annotated[
    str | None, typer.Option("--storage", help="URL of an Optuna storage; default: SQLite in the study's folder.")
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
    """Run a study: train its trials as ordinary runs, compare them, recommend one.

    The same command resumes where it stopped, and shows a finished study.
    """
    if study is None:
        _list(as_json)
        return
    shortcuts = {"data.source": data, "out": out}
    more = [f"{key}={json.dumps(value)}" for key, value in shortcuts.items() if value is not None]

    from submillion.sweeps import sitting, summary
    from submillion.sweeps.study import How, prepare

    prepared = prepare(study, [*(overrides or []), *more], scale)
    if dry_run:
        if as_json:
            typer.echo(json.dumps(summary.preview_values(prepared.preview), indent=2, ensure_ascii=False))
        else:
            terminal.show([_preview(prepared)])
        return
    how = How(executor or ("processes" if workers > 1 else "inline"), workers, address, storage, scale)
    with SweepView(prepared) as view:
        result = sitting.run(prepared, how, view)
    if as_json:
        typer.echo(json.dumps(summary.values(result), indent=2, ensure_ascii=False))
    else:
        terminal.show([*pages.summary(pages.read(result.folder)), _result(result)])


def _list(as_json: bool) -> None:
    first_lines = {name: study_text(name).splitlines()[0].removeprefix("# ") for name in study_names()}
    if as_json:
        typer.echo(json.dumps(first_lines, indent=2))
        return
    for name, line in first_lines.items():
        typer.echo(f"{name:<10} {line}")


def _preview(prepared: Prepared) -> Section:
    preview = prepared.preview
    n_over = sum(not trial.fits for trial, _ in preview.trials)
    seconds = duration(preview.seconds, is_rough=True)
    return Section(
        anchor="preview",
        nav="Preview",
        title=f"{prepared.study.name} ({prepared.study.kind}), runs in {prepared.space.base.out}",
        sentences=(
            f"{len(preview.trials)} {plural(len(preview.trials), 'trial')}, {n_over} over budget and not started; "
            f"{preview.n_runs} {plural(preview.n_runs, 'run')}, an estimated "
            f"{seconds} one after the other",
            *preview.notes,
        ),
        tables=(_preview_table(preview),),
    )


def _preview_table(preview: Preview) -> Table:
    rows = []
    for number, (trial, n_flops) in enumerate(preview.trials, start=1):
        ranks = ", ".join(map(str, sorted(set(trial.plan.ranks.values()))))
        time = duration(preview.seconds_of(n_flops), is_rough=True) if trial.fits else "-"
        counts = (f"{trial.plan.total:,}", str(len(trial.configs)), time)
        fits = "" if trial.fits else _what_fits(trial)
        rows.append((str(number), trial.candidate.stage, trial.candidate.name, ranks or "-", *counts, fits))
    return Table("Trials", ("", "stage", "trial", "rank", "parameters", "seeds", "time", ""), rows)


def _what_fits(trial: Trial) -> str:
    excess = trial.plan.total - (trial.plan.budget or 0)
    fits = "no rank fits" if trial.largest_rank is None else f"rank {trial.largest_rank} fits"
    return f"{excess:,} over budget; {fits}"


def _result(result: Sweep) -> Section:
    """The recommended run, where the pages are, and what to type next."""
    return Section(
        anchor="result",
        nav="Result",
        title=f"recommended: {result.recommended.path}",
        tables=(brief.accuracy(result.recommended, is_chosen=len(result.outcomes) > 1),),
        code=(
            (f"files in {result.folder}/", ", ".join(_files(result))),
            ("next", to_type("runs", "show", result.recommended.path)),
        ),
    )


def _files(result: Sweep) -> list[str]:
    """The files in the study's folder, those that people open first at the front."""
    names = ("report.html", "report.md", "report.json", "figures", "study.yaml", "summary.json")
    return [name for name in (*names, "study.sqlite3") if (result.folder / name).exists()]

"""The `compare` command: run folders in, what may be said of them out, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from submillion.cli.options import JsonOption, OutOption

if TYPE_CHECKING:
    from rich.table import Table

    from submillion.judging.comparison import Verdict
    from submillion.judging.metrics import Score

Split = Literal["validation", "test"]
RunsArgument = Annotated[list[str], typer.Argument(metavar="RUN RUN ...", help="Run folders, their names or hashes.")]
ReportOption = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.html", help="Also write it as a page, one HTML file.")
]
SplitOption = Annotated[Split, typer.Option("--split", help="The rows to compare on; reading test is noted.")]


def compare(
    run: RunsArgument,
    split: SplitOption = "validation",
    report: ReportOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which runs, or settings, can be told apart, and which to take.

    Runs that differ only in train.seed are one setting.
    """
    from submillion import runs
    from submillion.judging import comparison
    from submillion.runs import compared

    _refuse_no_page(report)
    found = compared.compare([runs.locate(each, out or "runs") for each in run], split)
    if report is not None:
        from submillion import reports

        reports.write_comparison(found, report)
    if as_json:
        typer.echo(json.dumps(comparison.values(found), indent=2, ensure_ascii=False))
        return
    show(found)
    if report is not None:
        typer.echo(f"\n{report}")


def _refuse_no_page(file: Path | None) -> None:
    """A wrong file is named before test is opened."""
    from submillion.errors import RunError

    if file is None:
        return
    if file.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"--report {file}: the page is an HTML file; give a name such as comparison.html")
    if not file.absolute().parent.is_dir():
        raise RunError(f"--report {file}: there is no folder {file.absolute().parent}; make it, or give another one")


def show(found: Verdict) -> None:
    """Print a comparison: its settings, the tests against the best, what follows."""
    from rich.console import Console

    from submillion.judging import comparison

    console = Console(markup=False, highlight=False, emoji=False)
    console.print(f"{found.split} split, {found.n_rows:,} rows; 95 % intervals")
    tables = [_settings_table(found)]
    tables += [_keys_table(found)] if found.keys else []
    tables += [_pairs_table(found)] if found.pairs else []
    for table in tables:
        # Keys and values are what people copy: they are never cut, the terminal wraps them.
        needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
        console.width = max(console.width, needed)
        console.print()
        console.print(table)
    console.print()
    for line in comparison.sentences(found):
        console.print(line, soft_wrap=True)
    for note in found.notes:
        console.print(f"- {note}", soft_wrap=True)


def _settings_table(found: Verdict) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("setting", no_wrap=True)
    table.add_column("accuracy", no_wrap=True)
    for column in ("seeds", "parameters", "training s"):
        table.add_column(column, justify="right", no_wrap=True)
    for number, setting in enumerate(found.settings, start=1):
        table.add_row(
            str(number),
            setting.name.replace(", ", "\n"),
            _interval(setting.scores["accuracy"]) + ("  after selection" if setting.after_selection else ""),
            str(len(setting.runs)),
            f"{setting.n_params:,}",
            f"{setting.training_s:,.1f}",
        )
    return table


def _keys_table(found: Verdict) -> Table:
    from rich.table import Table

    columns = [["", *found.keys]]
    columns += [[str(n), *(each.keys.get(key, "") for key in found.keys)] for n, each in enumerate(found.settings, 1)]
    lines = columns if len(found.settings) > len(found.keys) else list(zip(*columns, strict=True))
    table = Table(*lines[0], box=None, pad_edge=False)
    for line in lines[1:]:
        table.add_row(*line)
    return table


def _pairs_table(found: Verdict) -> Table:
    from rich.table import Table

    from submillion.judging.comparison import p_value

    table = Table(box=None, pad_edge=False)
    table.add_column("minus 1", justify="right")
    for column in ("metric", "difference", "p", "p (Holm)", ""):
        table.add_column(column, no_wrap=True, justify="left" if column in ("metric", "difference") else "right")
    for number, pair in enumerate(found.pairs, start=2):
        for metric, each in pair.differences.items():
            table.add_row(
                str(number) if metric == "accuracy" else "",
                metric.replace("_", " "),
                f"{each.value:+.4f}  [{each.low:+.4f}, {each.high:+.4f}]",
                p_value(each.p),
                p_value(each.p_holm),
                ("tie" if pair.is_tied else "worse") if metric == "accuracy" else "",
            )
    return table


def _interval(score: Score) -> str:
    return f"{score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]"

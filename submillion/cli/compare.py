"""The `compare` command: run folders in, what may be said of them out, without torch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from submillion.cli.options import JsonOption, OutOption

if TYPE_CHECKING:
    from rich.table import Table

    from submillion.comparison import Comparison, Pair
    from submillion.metrics import Score

Split = Literal["validation", "test"]
RunsArgument = Annotated[list[str], typer.Argument(metavar="RUN RUN ...", help="Run folders, their names or hashes.")]
SplitOption = Annotated[Split, typer.Option("--split", help="The rows to compare on; reading test is noted.")]


def compare(
    run: RunsArgument, split: SplitOption = "validation", out: OutOption = None, as_json: JsonOption = False
) -> None:
    """Say which runs, or settings, can be told apart, and which to take.

    Runs that differ only in train.seed are one setting.
    """
    from submillion import comparison, runs

    found = comparison.compare([runs.locate(each, out or "runs") for each in run], split)
    if as_json:
        typer.echo(json.dumps(_values(found), indent=2, ensure_ascii=False))
        return
    _print(found)


def _values(found: Comparison) -> dict[str, Any]:
    """The comparison as JSON holds it: settings by name, the best first."""
    settings = [
        {
            "setting": setting.name,
            "runs": list(setting.runs),
            "n_seeds": len(setting.runs),
            "scores": {metric: vars(score) for metric, score in scores.items()},
            "after_selection": found.split == "validation" and setting.n_evaluations > 1,
            "n_params": setting.n_params,
            "training_s": setting.training_s,
        }
        for setting, scores in zip(found.settings, found.scores, strict=True)
    ]
    return {
        "split": found.split,
        "n_rows": found.n_rows,
        "settings": settings,
        "against_best": [_pair_values(pair) for pair in found.pairs],
        "tie_group": list(found.group),
        "recommended": found.recommended,
        "n_rows_needed": found.n_rows_needed,
        "notes": list(found.notes),
    }


def _pair_values(pair: Pair) -> dict[str, Any]:
    differences = {name: vars(each) | {"p_holm": pair.p_holm[name]} for name, each in pair.differences.items()}
    return {"setting": pair.setting, "about": pair.about, "is_tied": pair.is_tied, "differences": differences}


def _print(found: Comparison) -> None:
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    console.print(f"{found.split} split, {found.n_rows:,} rows; 95 % intervals")
    tables = [_settings_table(found), *([_pairs_table(found)] if found.pairs else [])]
    for table in tables:
        # Keys and values are what people copy: they are never cut, the terminal wraps them.
        needed = console.measure(table, options=console.options.update(max_width=1000)).maximum
        console.width = max(console.width, needed)
        console.print()
        console.print(table)
    console.print()
    for line in _verdict(found):
        console.print(line, soft_wrap=True)
    for note in found.notes:
        console.print(f"- {note}", soft_wrap=True)


def _settings_table(found: Comparison) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("", justify="right")
    table.add_column("setting", no_wrap=True)
    table.add_column("accuracy", no_wrap=True)
    for column in ("seeds", "parameters", "training s"):
        table.add_column(column, justify="right", no_wrap=True)
    for number, (setting, scores) in enumerate(zip(found.settings, found.scores, strict=True), start=1):
        selected = found.split == "validation" and setting.n_evaluations > 1
        table.add_row(
            str(number),
            setting.name.replace(", ", "\n"),
            _interval(scores["accuracy"]) + ("  after selection" if selected else ""),
            str(len(setting.runs)),
            f"{setting.n_params:,}",
            f"{setting.training_s:,.1f}",
        )
    return table


def _pairs_table(found: Comparison) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("minus 1", justify="right")
    for column in ("metric", "difference", "p", "p (Holm)", ""):
        table.add_column(column, no_wrap=True, justify="left" if column in ("metric", "difference") else "right")
    for number, pair in enumerate(found.pairs, start=2):
        for metric, each in pair.differences.items():
            corrected = pair.p_holm[metric]
            table.add_row(
                str(number) if metric == "accuracy" else "",
                metric.replace("_", " "),
                f"{each.value:+.4f}  [{each.low:+.4f}, {each.high:+.4f}]",
                _p(each.p),
                _p(corrected),
                ("tie" if pair.is_tied else "worse") if metric == "accuracy" else "",
            )
    return table


def _interval(score: Score) -> str:
    return f"{score.value:.4f}  [{score.low:.4f}, {score.high:.4f}]"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "< 0.0001"


def _verdict(found: Comparison) -> list[str]:
    """The conclusion in sentences; settings by their number in the table."""
    if not found.pairs:
        return []
    numbers = {setting.name: number for number, setting in enumerate(found.settings, start=1)}
    group = [numbers[name] for name in found.group]
    lines = [_group_sentence(found, group)]
    if found.recommended is not None:
        number = numbers[found.recommended]
        setting = found.settings[number - 1]
        reason = "the only one left" if len(group) == 1 else "the cheapest of these"
        cost = f"{setting.n_params:,} parameters, {setting.training_s:,.1f} s of training"
        lines.append(f"take {number}, {reason} ({cost}): {setting.name}")
    return [*lines, _rows_sentence(found)]


def _group_sentence(found: Comparison, group: list[int]) -> str:
    what = "settings" if all(pair.about == "settings" for pair in found.pairs) else "runs"
    if len(found.settings) == 2:
        several = what == "runs" and sum(len(setting.runs) for setting in found.settings) > 2
        what = "the runs of 1 and 2" if several else f"these two {what}"
        return f"{what} cannot be told apart" if len(group) == 2 else f"{what} differ: 1 is better than 2"
    if len(group) == 1:
        return f"1 is better than each other of these {what}"
    return f"these {what} cannot be told from the best: {', '.join(map(str, group))}"


def _rows_sentence(found: Comparison) -> str:
    first, n_rows = found.pairs[0], found.n_rows_needed
    difference = first.differences["accuracy"].value
    if difference == 0:
        return "1 and 2 have the same accuracy on these rows: there is no difference that more rows could confirm"
    if n_rows is None:
        return "no number of rows would separate 1 and 2: their seeds vary too much; train more of them"
    return (
        f"to separate 1 and 2 about {n_rows:,} {found.split} rows are needed, if the true difference is the one seen "
        f"({abs(difference):.4f}; power 0.8, level 0.05, these two alone); there are {found.n_rows:,}"
    )

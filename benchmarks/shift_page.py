"""The measured part of docs/shift.md, made of results/shift.json: `python -m benchmarks.shift_page`."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.shift import RESULTS

PAGE = RESULTS.parent.parent.parent / "docs" / "shift.md"
_BEGIN, _END = "<!-- made by benchmarks/shift_page.py -->\n", "<!-- until here -->\n"
_HALVES = ("fixed on", "judged")
_GROUPS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "made of AG News": lambda row: row["group"] == "made" and row["source"] == "agnews",
    "made of sentiment rows": lambda row: row["group"] == "made" and row["source"] != "agnews",
    "between domains": lambda row: row["group"] == "pair",
}


def summary(rows: Iterable[dict[str, Any]]) -> str:
    """Return the cells of one line: how many, errors, coverage and width of what is stated, errors of the others."""
    rows = list(rows)
    if not rows:
        return "0 | | | | | | "
    errors = [row["stated"]["value"] - row["truth"] for row in rows]
    cells = [
        f"{len(rows)}",
        f"**{_mean_points(map(abs, errors)):.1f}**",
        f"{_mean_points(errors):+.1f}",
        f"**{sum(map(_held, rows))} ({100 * sum(map(_held, rows)) / len(rows):.0f} %)**",
        f"{100 * statistics.median(map(_half_width, rows)):.1f}",
        f"{_mean_points(abs(row['doc']['value'] - row['truth']) for row in rows):.1f}",
        f"{_mean_points(abs(row['validation'] - row['truth']) for row in rows):.1f}",
    ]
    return " | ".join(cells)


def tables(rows: list[dict[str, Any]]) -> list[str]:
    """Return the lines of the tables: by group and half, by whether the report warns, each shift, class shares."""
    head = "shifts | mean error | bias | interval holds the truth | half-width | DoC's error | validation's error |"
    lines = [f"| | {head}", "|---|" + "---:|" * 7]
    chosen = {
        f"{name}, {half}": [r for r in rows if r["half"] == half and test(r)]
        for half in _HALVES
        for name, test in _GROUPS.items()
    }
    chosen["no shift"] = [row for row in rows if row["half"] == "no shift"]
    judged = [row for row in rows if row["half"] == "judged"]
    chosen["all judged"] = judged
    chosen["all judged, without a warning"] = [row for row in judged if row["is_trusted"]]
    chosen["all judged, with a warning"] = [row for row in judged if not row["is_trusted"]]
    lines += [f"| {name} | {summary(found)} |" for name, found in chosen.items()]
    lines += [
        "",
        "| shift | run | half | truth | stated [90 %] | off by | difference | |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    lines += [_line(row) for row in rows]
    lines += [
        "",
        "| class shares | BBSE off by | EM off by | BBSE's intervals hold | EM's hold |",
        "|---|---:|---:|---:|---:|",
    ]
    sorts = {
        "no shift": [row for row in rows if row["half"] == "no shift"],
        "only shares changed (AG News)": [row for row in rows if row["shift"].startswith("priors")],
        "made otherwise": [
            r for r in rows if r["group"] == "made" and r["half"] != "no shift" and "priors" not in r["shift"]
        ],
        "between domains": [row for row in rows if row["group"] == "pair"],
    }
    return lines + [f"| {name} | {_shares(found)} |" for name, found in sorts.items()]


def _mean_points(values: Iterable[float]) -> float:
    return 100 * statistics.fmean(values)


def _held(row: dict[str, Any]) -> bool:
    return row["stated"]["low"] <= row["truth"] <= row["stated"]["high"]


def _half_width(row: dict[str, Any]) -> float:
    return (row["stated"]["high"] - row["stated"]["low"]) / 2


def _line(row: dict[str, Any]) -> str:
    stated = row["stated"]
    span = f"{100 * stated['value']:.1f} [{100 * stated['low']:.1f}, {100 * stated['high']:.1f}]"
    marks = ", ".join((["missed"] if not _held(row) else []) + (["warned"] if not row["is_trusted"] else []))
    off = f"{100 * (stated['value'] - row['truth']):+.1f}"
    name = row["shift"] if row["group"] == "made" else row["shift"].replace("→", "on")
    numbers = (f"{100 * row['truth']:.1f}", span, off, f"{row['difference']:.2f}")
    cells = (name, row["source"], row["half"], *numbers, marks)
    return f"| {' | '.join(cells)} |"


def _shares(rows: list[dict[str, Any]]) -> str:
    off = [f"{_mean_points(row['shares'][name]['off'] for row in rows):.1f}" for name in ("bbse", "em")]
    held = [f"{_mean_points(row['shares'][name]['held'] for row in rows):.0f} %" for name in ("bbse", "em")]
    return " | ".join([*off, *held])


def main() -> None:
    """Write the tables into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(_BEGIN)
    lines = tables(json.loads(RESULTS.read_text())["rows"])
    PAGE.write_text(before + _BEGIN + "\n" + "\n".join(lines) + "\n\n" + _END + rest.split(_END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()

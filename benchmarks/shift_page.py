"""The measured part of docs/shift.md, made from results/shift.json: `python -m benchmarks.shift_page`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.results import DOCS, kept, shown, table

PAGE = DOCS / "shift.md"
_BEGIN, _END = "<!-- made by benchmarks/shift_page.py -->\n", "<!-- until here -->\n"
Rows = list[dict[str, Any]]


def summaries(rows: Rows) -> list[str]:
    """Return the table by group and half, and by whether the report warns."""
    judged = [row for row in rows if row["half"] == "judged"]
    chosen = {
        f"{name}, {half}": [row for row in rows if row["half"] == half and _group(row) == name]
        for half in ("fixed on", "judged")
        for name in ("made of AG News", "made of sentiment rows", "between domains")
    }
    chosen |= {
        "no shift": [row for row in rows if row["half"] == "no shift"],
        "all judged": judged,
        "all judged, without a warning": [row for row in judged if row["is_trusted"]],
        "all judged, with a warning": [row for row in judged if not row["is_trusted"]],
    }
    head = "| | shifts | mean error | bias | interval holds the truth | half-width | DoC's error | validation's error |"
    return table(head, ((name, *_summary(group)) for name, group in chosen.items()), n_numbers=7)


def _group(row: dict[str, Any]) -> str:
    if row["group"] == "pair":
        return "between domains"
    return "made of AG News" if row["source"] == "agnews" else "made of sentiment rows"


def _summary(rows: Rows) -> list[str]:
    """The number; errors, coverage and width of what is stated; errors of the others."""
    if not rows:
        return ["0", *6 * [""]]
    errors, n_held = [row["stated"]["value"] - row["truth"] for row in rows], sum(map(_held, rows))
    widths = [row["stated"]["high"] - row["stated"]["low"] for row in rows]
    return [
        f"{len(rows)}",
        f"**{_mean_points(map(abs, errors)):.1f}**",
        f"{_mean_points(errors):+.1f}",
        f"**{n_held} ({100 * n_held / len(rows):.0f} %)**",
        f"{100 * statistics.median(widths) / 2:.1f}",
        f"{_mean_points(abs(row['doc']['value'] - row['truth']) for row in rows):.1f}",
        f"{_mean_points(abs(row['validation'] - row['truth']) for row in rows):.1f}",
    ]


def shifts(rows: Rows) -> list[str]:
    """Return the table of each shift."""

    def cells(row: dict[str, Any]) -> list[str]:
        points = {name: 100 * row["stated"][name] for name in ("value", "low", "high")}
        marks = ["missed"] * (not _held(row)) + ["warned"] * (not row["is_trusted"])
        name = row["shift"] if row["group"] == "made" else row["shift"].replace("→", "on")
        off = f"{100 * (row['stated']['value'] - row['truth']):+.1f}"
        numbers = [f"{100 * row['truth']:.1f}", shown(points, ".1f", "value"), off, f"{row['difference']:.2f}"]
        return [name, row["source"], row["half"], *numbers, ", ".join(marks)]

    head = "| shift | run | half | truth | stated [90 %] | off by | difference | |"
    return table(head, map(cells, rows), n_numbers=4, start=3)


def class_shares(rows: Rows) -> list[str]:
    """Return the table of how far estimated shares of the classes are off."""
    artificial = [row for row in rows if row["group"] == "made" and row["half"] != "no shift"]
    sorts = {
        "no shift": [row for row in rows if row["half"] == "no shift"],
        "only shares changed (AG News)": [row for row in rows if row["shift"].startswith("priors")],
        "made otherwise": [row for row in artificial if "priors" not in row["shift"]],
        "between domains": [row for row in rows if row["group"] == "pair"],
    }

    def cells(rows: Rows) -> list[str]:
        off = [f"{_mean_points(row['shares'][name]['off'] for row in rows):.1f}" for name in ("bbse", "em")]
        held = [f"{_mean_points(row['shares'][name]['held'] for row in rows):.0f} %" for name in ("bbse", "em")]
        return [*off, *held, f"{_mean_points(row['corrected'] - row['truth'] for row in rows):+.1f}"]

    head = "| class shares | BBSE off by | EM off by | BBSE's intervals hold | EM's hold | accuracy, corrected priors |"
    return table(head, ((name, *cells(group)) for name, group in sorts.items()), n_numbers=5)


def _mean_points(values: Iterable[float]) -> float:
    return 100 * statistics.fmean(values)


def _held(row: dict[str, Any]) -> bool:
    return row["stated"]["low"] <= row["truth"] <= row["stated"]["high"]


def main() -> None:
    """Write the tables into the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(_BEGIN)
    rows = kept("shift")["rows"]
    lines = [*summaries(rows), "", *shifts(rows), "", *class_shares(rows)]
    PAGE.write_text(before + _BEGIN + "\n" + "\n".join(lines) + "\n\n" + _END + rest.split(_END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()

"""Scores of many settings side by side, a line each, with their intervals: ties with the best are seen at once.

Shared by the page of a comparison and that of a study. Ties are decided in `comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from submillion.judging.metrics import Score
from submillion.reports.drawing import BLUE, INK, MUTED, ORANGE, SMALL, WIDTH, canvas, short

READING = (
    "Filled: the best, and what cannot be told from it on these rows. Hollow: worse. Lines are 95 % intervals; the "
    "tests are paired, so intervals may overlap even if the difference is real."
)
ROW = 0.23  # inches per line
_N_WIDTHS = 6  # of an interval: what lies further below the best would squeeze the others together
_LONGEST = 64  # characters of a name
_FITTING = 22  # that a figure of the usual width has room for
_CHARACTER = 0.07  # inches, about


@dataclass(frozen=True)
class Row:
    """A line: tied with the best or not, None if nothing was compared; marked: the one that was taken.

    Without a score `note` says why there is none.
    """

    name: str
    score: Score | None
    is_tied: bool | None
    is_marked: bool = False
    note: str = ""


def window(scores: Sequence[Score], is_loss: bool = False) -> tuple[float, float]:
    """Return the range of an axis of scores: what is far below the best is left outside, but for losses.

    >>> window([Score(0.9, 0.89, 0.91, 900), Score(0.3, 0.29, 0.31, 900)])
    (0.778, 0.912)
    """
    width = float(np.median([score.high - score.low for score in scores])) or 0.01
    best = max(score.value for score in scores)
    near = [score for score in scores if is_loss or score.value >= best - _N_WIDTHS * width]
    low, high = min(score.low for score in near), max(score.high for score in scores)
    if len(near) < len(scores):
        low = min(low, best - _N_WIDTHS * width)
    return round(low - 0.1 * width, 6), round(high + 0.1 * width, 6)


def forest(rows: Sequence[Row], label: str, marked: str, is_loss: bool = False) -> Any:
    """Return a figure of the rows in their order; marked: what the mark means · is_loss: lower is better."""
    figure = canvas(0.95 + ROW * len(rows), width_for([row.name for row in rows]))
    axes = figure.subplots()
    draw(axes, rows, window([row.score for row in rows if row.score is not None], is_loss), is_loss)
    axes.set_xlabel(label)
    legend(figure, rows, marked)
    return figure


def width_for(names: Sequence[str]) -> float:
    """Return the width in inches of a figure with these names at its side: long ones make it wide, none is cut below
    64 characters."""
    longest = min(max(map(len, names), default=0), _LONGEST)
    return WIDTH + _CHARACTER * max(0, longest - _FITTING)


def without_shared(names: Sequence[str]) -> list[str]:
    """Return names without the parts that all of them share; of one name, or of equal ones, nothing is left out.

    >>> without_shared(["rank=2, seed=1", "rank=8, seed=1"])
    ['rank=2', 'rank=8']
    """
    parts = [name.split(", ") for name in names]
    shared = set.intersection(*map(set, parts)) if len(set(names)) > 1 else set()
    return [
        ", ".join(part for part in each if part not in shared) or name for each, name in zip(parts, names, strict=True)
    ]


def draw(axes: Any, rows: Sequence[Row], limits: tuple[float, float], is_loss: bool = False) -> None:
    """Draw the rows from the top; a score left of the limits is an arrow with its value."""
    scores = [row.score for row in rows if row.score is not None]
    if scores:
        best = (min if is_loss else max)(score.value for score in scores)
        axes.axvline(best, color=MUTED, lw=0.7, ls=(0, (4, 3)), zorder=1)
    for y, row in enumerate(rows):
        _draw(axes, y, row, limits)
    axes.set_xlim(*limits)
    axes.locator_params(axis="x", nbins=5)
    axes.set_yticks(range(len(rows)), [short(row.name, _LONGEST) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _draw(axes: Any, y: int, row: Row, limits: tuple[float, float]) -> None:
    left = limits[0] + 0.01 * (limits[1] - limits[0])
    if row.score is None:
        axes.text(left, y, short(row.note, 40), va="center", color=MUTED, fontsize=SMALL)
        return
    colour, fill, marker = look(row.is_tied)
    if row.score.value < limits[0]:
        axes.text(left, y, f"← {row.score.value:.4f}", va="center", color=colour, fontsize=SMALL)
    else:
        axes.plot([max(row.score.low, limits[0]), row.score.high], [y, y], color=colour, lw=1.2, zorder=2)
        axes.plot(row.score.value, y, marker=marker, ms=4, color=colour, mfc=fill, mew=1, ls="none", zorder=3)
    if row.is_marked:
        at = max(row.score.value, left)
        axes.plot(at, y, marker="o", ms=9, mfc="none", mec=ORANGE, mew=1.4, ls="none", zorder=4, clip_on=False)


def look(is_tied: bool | None) -> tuple[str, str, str]:
    """Return the colour, the fill and the marker of a setting: filled if it is tied with the best."""
    if is_tied is None:
        return INK, INK, "s"
    return (BLUE, BLUE, "o") if is_tied else (MUTED, "none", "o")


def legend(figure: Any, rows: Sequence[Row], marked: str) -> None:
    """Explain above a figure the marks that occur in it."""
    from matplotlib.lines import Line2D

    names = {True: "best, or tied with it", False: "worse", None: "not compared"}
    handles = []
    there = {row.is_tied for row in rows if row.score is not None}
    for kind in (kind for kind in names if kind in there):
        colour, fill, marker = look(kind)
        handles.append(Line2D([], [], color=colour, mfc=fill, marker=marker, ms=4, lw=1.2, label=names[kind]))
    if any(row.is_marked for row in rows):
        handles.append(Line2D([], [], mfc="none", mec=ORANGE, marker="o", ms=9, mew=1.4, ls="none", label=marked))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, handlelength=1.4, columnspacing=1.2)

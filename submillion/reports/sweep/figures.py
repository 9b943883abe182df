"""The figures of a study's page: a function each, from a `StudyReport` to a matplotlib figure.

Filled means tied with the best, everywhere; a ring marks what was taken. How figures look is left to `drawing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from submillion.judging.metrics import NAMES
from submillion.reports import forests
from submillion.reports.drawing import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    SMALL,
    WIDTH,
    Drawn,
    arms,
    canvas,
    files,
    short,
    style,
)
from submillion.reports.forests import ROW, Row
from submillion.reports.sweep import course
from submillion.reports.sweep.study import Panel, StudyReport
from submillion.runs.study import StudyRecord, TrialRecord, label

MAX_ROWS = 40  # of the settings, the choices of a factor, and the times that a figure shows
MAX_LINES = 80
_LONGEST_VALUE = 28  # characters
_MAX_TICKS = 8  # of more values only the first, the middle and the last are named
_UNDER = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8}  # behind text that lines run through


def draw(report: StudyReport, with_png: bool = True) -> dict[str, Drawn]:
    """Return every figure that the study has numbers for, by name."""
    makers: dict[str, Callable[[StudyReport], Any]] = {
        "ties": _ties,
        "history": course.draw_history,
        "race": course.draw_race,
        "importance": course.draw_importance,
        "factors": _factors,
        "frontier": _frontier,
        "settings": _settings,
        "stages": _stages,
        "time": _time,
    }
    with style():
        drawn = {name: make(report) for name, make in makers.items()}
        return {name: files(name, figure, with_png) for name, figure in drawn.items() if figure is not None}


def _ties(report: StudyReport) -> Any:
    """The settings that were compared, the best first, and after a gap the recommended one if it is lower."""
    entries = report.entries
    if len(entries) < 2:
        return None
    shown = [e for i, e in enumerate(entries) if i < MAX_ROWS or e.is_recommended]
    names = forests.without_shared([e.name for e in shown])
    rows = [
        Row(f"{e.number}  {name}", e.score, e.is_tied, e.is_recommended) for e, name in zip(shown, names, strict=True)
    ]
    return forests.forest(rows, _axis(report), "recommended", report.summary.is_loss)


def _factors(report: StudyReport) -> Any:
    panels = [panel for panel in report.panels if panel.scored]
    if not panels:
        return None
    rows = {panel.factor: _rows(panel, report.summary) for panel in panels}
    heights = [(8 if panel.is_range else len(rows[panel.factor])) + 1.7 for panel in panels]
    labels = [row.name for each in rows.values() for row in each]
    figure = canvas(0.6 + ROW * sum(heights), forests.width_for(labels))
    scores = [row.score for each in rows.values() for row in each if row.score is not None]
    limits = forests.window(scores, report.summary.is_loss)
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, panel in zip(grid, panels, strict=True):
        if panel.is_range:
            _range(axes, panel, limits)
        else:
            forests.draw(axes, rows[panel.factor], limits, report.summary.is_loss)
        axes.set_title(f"{short(panel.factor, 40)}: {said(panel)}")
    grid[-1].set_xlabel(_axis(report))
    marked = "fixed for the next" if report.summary.kind == "one-factor" else "in the recommended run"
    forests.legend(figure, [row for each in rows.values() for row in each], marked)
    return figure


def _axis(report: StudyReport) -> str:
    return f"validation {report.summary.metric_name}, after selection"


def _rows(panel: Panel, summary: StudyRecord) -> list[Row]:
    """The choices in their order; of too many, only the best."""
    choices = list(panel.choices)
    if len(choices) > MAX_ROWS:
        best = sorted(panel.scored, key=lambda each: -summary.height(each.score.value if each.score else 0.0))[
            :MAX_ROWS
        ]
        choices = [choice for choice in choices if choice in best]
    compared = panel.found != "not compared"
    return [Row(c.label, c.score, c.is_tied if compared else None, c.is_fixed, c.why or "") for c in choices]


def said(panel: Panel) -> str:
    """Return what a factor's panel shows, in a few words."""
    if panel.found == "not compared":
        return "nothing to compare"
    if panel.found == "told apart":
        return "one told from the rest"
    return f"{len(panel.tied)} of {len(panel.scored)} tied"


def _range(axes: Any, panel: Panel, limits: tuple[float, float]) -> None:
    """Drawn values against their scores."""
    for choice in panel.scored:
        colour, fill, marker = forests.look(choice.is_tied if panel.found != "not compared" else None)
        if choice.score is None or choice.score.value < limits[0]:
            continue
        y = float(choice.label)
        axes.plot([max(choice.score.low, limits[0]), choice.score.high], [y, y], color=colour, lw=0.8)
        axes.plot(choice.score.value, y, marker=marker, ms=3.6, color=colour, mfc=fill, ls="none")
        if choice.is_fixed:
            axes.plot(choice.score.value, y, marker="o", ms=9, mfc="none", mec=ORANGE, mew=1.4, ls="none")
    axes.set_yscale("log" if panel.is_log else "linear")
    labels = [choice.label for choice in panel.scored]  # by size
    named = list(dict.fromkeys((labels[0], labels[len(labels) // 2], labels[-1])))
    axes.set_yticks([float(label) for label in named], named)
    axes.set_yticks([], minor=True)
    axes.set_xlim(*limits)
    axes.locator_params(axis="x", nbins=5)


def _frontier(report: StudyReport) -> Any:
    """Trainable parameters against the score, and the best score that each size reaches."""
    entries = report.entries
    if len({entry.n_params for entry in entries}) < 2:
        return None
    low, high = forests.window([entry.score for entry in entries], report.summary.is_loss)
    near = [entry for entry in entries if entry.score.value >= low]
    figure = canvas(3.4)
    axes = figure.subplots()
    for is_tied in (False, True):
        group = [entry for entry in near if entry.is_tied == is_tied]
        if group:
            colour, fill, marker = forests.look(is_tied)
            x, y = [e.n_params for e in group], [e.score.value for e in group]
            yerr = arms([e.score for e in group])
            axes.errorbar(x, y, yerr=yerr, fmt=marker, ms=4, color=colour, mfc=fill, elinewidth=0.7, alpha=0.8)
    steps = report.frontier
    most = max(entry.n_params for entry in entries)
    axes.step(
        [*(e.n_params for e in steps), most],
        [*(e.score.value for e in steps), steps[-1].score.value],
        where="post",
        color=INK,
        lw=0.9,
    )
    for entry in near:
        if entry.is_recommended:
            axes.plot(entry.n_params, entry.score.value, marker="o", ms=10, mfc="none", mec=ORANGE, mew=1.6, ls="none")
    axes.set_ylim(low, high)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_locator(_few_ticks())
    axes.set_xlabel("trainable parameters")
    axes.set_ylabel(_axis(report))
    forests.legend(figure, [Row("", e.score, e.is_tied, e.is_recommended) for e in near], "recommended")
    return figure


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5, integer=True)


def _settings(report: StudyReport) -> Any:
    """Parallel coordinates: one line per setting, through its values, to its score at the right."""
    entries = report.entries[:MAX_LINES]
    key_axes = axes_of([report.summary.trials[entry.number - 1] for entry in entries])
    if len(entries) < 2 or len(key_axes) < 2:
        return None
    longest = [max(len(short(text, _LONGEST_VALUE)) for _, text in axis.ticks) for axis in key_axes]
    figure = canvas(3.6, max(WIDTH, 0.8 + sum(max(0.85, 0.2 + 0.072 * n) for n in longest)))
    axes = figure.subplots()
    limits = forests.window([entry.score for entry in entries], report.summary.is_loss)
    heights = [_height(entry.score.value, limits) for entry in entries]
    for number, entry in reversed(list(enumerate(entries))):
        apart = 0.5 - number / max(len(entries) - 1, 1)
        trial = report.summary.trials[entry.number - 1]
        y = [*(_place(axis, trial, apart) for axis in key_axes), heights[number]]
        colour = ORANGE if entry.is_recommended else BLUE if entry.is_tied else MUTED
        strength = 1.0 if entry.is_recommended else 0.15 + 0.75 * heights[number]
        line, thick = ("-", 1.2) if entry.is_tied else ((0, (3, 2)), 0.8)
        axes.plot(y, color=colour, alpha=strength, lw=2 if entry.is_recommended else thick, ls=line)
    _label(axes, key_axes, limits, report.summary.metric_name)
    rows = [Row("", e.score, e.is_tied) for e in entries]
    _settings_legend(figure, rows)
    return figure


@dataclass(frozen=True)
class Axis:
    """A key that a study varied, an axis of parallel coordinates: its values as text, evenly spaced from the bottom.

    Distances on it mean nothing, the order does: powers of ten and names of sites fit one figure.
    """

    key: str
    values: tuple[str, ...]

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Return the heights, from 0 to 1, of the values that are named."""
        n = len(self.values)
        named = range(n) if n <= _MAX_TICKS else (0, n // 2, n - 1)
        return [(self.height(self.values[i]), self.values[i]) for i in named]

    def height(self, value: str) -> float:
        """Return a value's height, from 0 to 1, with a margin as wide as half a step."""
        return (self.values.index(value) + 0.5) / len(self.values)


def axes_of(trials: Sequence[TrialRecord]) -> list[Axis]:
    """Return an axis for each key that has more than one value in the trials."""
    keys = dict.fromkeys(key for trial in trials for key in trial.resolved)
    key_axes = [Axis(key, tuple(map(label, _ordered([trial.resolved.get(key) for trial in trials])))) for key in keys]
    return [axis for axis in key_axes if len(axis.values) > 1]


def _place(axis: Axis, trial: TrialRecord, apart: float) -> float:
    """Return the height of a trial's line on an axis; apart, from -0.5 to 0.5, separates lines of one value."""
    return axis.height(label(trial.resolved.get(axis.key))) + 0.6 * apart / len(axis.values)


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Each value once: numbers by size, then others in order of appearance."""
    once = list({label(value): value for value in values}.values())
    numbers = sorted(value for value in once if isinstance(value, (int, float)))
    return [*numbers, *(value for value in once if not isinstance(value, (int, float)))]


def _height(value: float, limits: tuple[float, float]) -> float:
    return max(0.0, (value - limits[0]) / (limits[1] - limits[0]))


def _label(axes: Any, key_axes: Sequence[Axis], limits: tuple[float, float], score: str) -> None:
    for x, axis in enumerate(key_axes):
        axes.axvline(x, color=MUTED, lw=0.6)
        for y, text in axis.ticks:
            axes.text(x + 0.03, y, short(text, _LONGEST_VALUE), fontsize=SMALL, va="center", bbox=_UNDER, zorder=5)
    last = len(key_axes)
    axes.axvline(last, color=MUTED, lw=0.6)
    for value in np.linspace(*limits, 4):
        axes.text(
            last + 0.03, _height(value, limits), f"{value:.3f}", fontsize=SMALL, va="center", bbox=_UNDER, zorder=5
        )
    names = [short(axis.key.rpartition(".")[2].replace("_", " "), 16).replace(" ", "\n") for axis in key_axes]
    axes.set_xticks(range(last + 1), [*names, score])
    axes.set_xlim(-0.1, last + 0.45)
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks([])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def _settings_legend(figure: Any, rows: Sequence[Row]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=BLUE, lw=1.4, label="best, or tied with it")]
    if not all(row.is_tied for row in rows):
        handles.append(Line2D([], [], color=MUTED, lw=1, ls=(0, (3, 2)), label="worse"))
    handles.append(Line2D([], [], color=ORANGE, lw=2, label="recommended"))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, handlelength=1.6)


def _stages(report: StudyReport) -> Any:
    """Short against full results of the settings that were kept."""
    if not report.pairs:
        return None
    figure = canvas(3.2)
    axes = figure.subplots()
    for pair in report.pairs:
        axes.errorbar(
            pair.short.value,
            pair.full.value,
            xerr=arms([pair.short]),
            yerr=arms([pair.full]),
            fmt="o",
            ms=4,
            color=BLUE,
            elinewidth=0.7,
        )
        axes.annotate(
            str(pair.number), (pair.short.value, pair.full.value), (4, 4), textcoords="offset points", fontsize=SMALL
        )
    axes.set_xlabel(f"validation {NAMES[report.summary.deciding]}, short")
    axes.set_ylabel(f"validation {NAMES[report.summary.deciding]}, full")
    return figure


def _time(report: StudyReport) -> Any:
    trials: list[tuple[int, TrialRecord]] = report.timed
    if not trials:
        return None
    longest = sorted(trials, key=lambda each: -(each[1].training_s + each[1].evaluation_s))[:MAX_ROWS]
    shown = sorted(longest, key=lambda each: each[0])
    parts = forests.without_shared([trial.name for _, trial in shown])
    names = [f"{number}  {name}" for (number, _), name in zip(shown, parts, strict=True)]
    figure = canvas(0.95 + ROW * len(shown), forests.width_for(names))
    axes = figure.subplots()
    y, steps = np.arange(len(shown)), [trial.training_s for _, trial in shown]
    axes.barh(y, steps, 0.62, color=BLUE, label="steps")
    axes.barh(y, [t.evaluation_s for _, t in shown], 0.62, left=steps, color=MUTED, alpha=0.55, label="evaluations")
    axes.set_yticks(y, [short(name, 64) for name in names])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("seconds per run")
    figure.legend(loc="outside upper center", ncols=2)
    return figure

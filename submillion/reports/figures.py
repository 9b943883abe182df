"""The report's figures: a function each, from a `Report` to a matplotlib figure. How they look is left to `drawing`.

matplotlib is imported when the first figure is drawn. Intervals are drawn wherever there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from submillion.judging.metrics import NAMES, Bin, leading
from submillion.reports import curves
from submillion.reports.curves import Curve
from submillion.reports.drawing import (
    BLUE,
    INK,
    MUTED,
    ORANGE,
    SMALL,
    WIDTH,
    Drawn,
    arms,
    bare,
    canvas,
    cell,
    dots,
    files,
    short,
    style,
)
from submillion.reports.run import Report

MAX_CLASSES = 20  # that a figure shows
_MAX_CONFUSED = 12  # classes of a confusion matrix that is too large to be shown whole
_CELL = 0.56  # inches a side


def draw(report: Report, with_png: bool = True) -> dict[str, Drawn]:
    """Return every figure that the report has numbers for, by name."""
    makers: dict[str, Callable[[Report], Any]] = {
        "scores": _scores,
        "plan": _plan,
        "training": _training,
        "confusion": _confusion,
        "together": _together,
        "classes": _classes,
        "distribution": _distribution,
        "reliability": _reliability,
        "coverage": _coverage,
        "lengths": _lengths,
        "cost": _cost,
    }
    with style():
        drawn = {name: make(report) for name, make in makers.items()}
        return {name: files(name, figure, with_png) for name, figure in drawn.items() if figure is not None}


def shown_classes(weights: Sequence[float], n_most: int = MAX_CLASSES) -> list[int]:
    """Return the classes with the largest weights, in the order of their ids; all if there are few.

    >>> shown_classes([0.1, 0.5, 0.2], n_most=2)
    [1, 2]
    """
    order = sorted(range(len(weights)), key=lambda number: (-weights[number], number))
    return sorted(order[:n_most])


def confused_classes(confusion: Sequence[Sequence[int]]) -> list[int]:
    """Return the classes of the confusion matrix that are shown: all of at most 20, else the 12 most confused."""
    counts = np.array(confusion)
    wrong = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    return shown_classes(wrong.tolist(), len(counts) if len(counts) <= MAX_CLASSES else _MAX_CONFUSED)


def shown_labels(together: Sequence[Sequence[int]]) -> list[int]:
    """Return the labels of a co-occurrence matrix that are shown: all of at most 20, else the 12 with most rows."""
    counts = np.array(together)
    return shown_classes(np.diag(counts).tolist(), len(counts) if len(counts) <= MAX_CLASSES else _MAX_CONFUSED)


def _scores(report: Report) -> Any:
    key, own = leading(report.scores[report.split])
    rows = [("this run", own), *((each.name, each.scores[key]) for each in report.baselines if key in each.scores)]
    figure = canvas(0.55 + 0.34 * len(rows))
    axes = figure.subplots()
    dots(axes, [name for name, _ in rows], [[score for _, score in rows]], [BLUE], [None])
    axes.set_xlabel(f"{NAMES[key]} on {report.split}")
    return figure


def _plan(report: Report) -> Any:
    """Layers × sites, in a stronger colour for more parameters; the head is on top, as in the model."""
    plan = report.plan
    if not plan.targets:
        return None
    sites = list(dict.fromkeys(target.site for target in plan.targets))
    n_layers = plan.architecture.n_layers
    head = [part for part in report.parts if part.name not in sites]
    figure = canvas(0.5 + 0.23 * (n_layers + len(head)))
    axes = figure.subplots()
    share = {part.name: part.params / (part.n_layers or 1) for part in report.parts}
    most = max(share[site] for site in sites)
    for x, y in np.ndindex(len(sites), n_layers):
        cell(axes, (x, y), 0, "")
    for target in plan.targets:
        text = f"r {target.rank}" if target.rank else f"{share[target.site]:,.0f}"
        cell(axes, (sites.index(target.site), target.layer), share[target.site] / most * 0.8, text)
    for row, part in enumerate(head, start=n_layers):
        cell(axes, (0, row), 0.15, f"{part.name}  {part.params:,}", n_wide=len(sites))
    axes.set_xlim(-0.5, len(sites) - 0.5)
    axes.set_ylim(-0.5, n_layers + len(head) - 0.5)
    axes.set_xticks(range(len(sites)), [short(site.replace("_", " "), 18).replace(" ", "\n") for site in sites])
    axes.set_yticks(
        [*range(n_layers)], [str(layer) if n_layers <= 12 or layer % 2 == 0 else "" for layer in range(n_layers)]
    )
    axes.set_ylabel("layer")
    bare(axes)
    return figure


def _training(report: Report) -> Any:
    return curves.alone(Curve(report.run, (*report.steps, *report.evaluations))) if report.steps else None


def _confusion(report: Report) -> Any:
    if not report.confusion:
        return None
    counts = np.array(report.confusion)
    names = ("true", "predicted")
    return _matrix(report.labels, confused_classes(report.confusion), counts, counts.sum(axis=1), names)


def _together(report: Report) -> Any:
    if report.several is None:
        return None
    counts = np.array(report.several.together)
    shown = shown_labels(counts.tolist())
    return _matrix(report.labels, shown, counts, np.diag(counts), ("has", "and has"), has_diagonal=False)


def _matrix(
    labels: Sequence[str],
    shown: Sequence[int],
    counts: np.ndarray,
    totals: np.ndarray,
    axis_names: tuple[str, str],
    has_diagonal: bool = True,
) -> Any:
    """Counts [C, C] as cells, each with its share of its line's total, which is also its colour; a diagonal that
    holds the totals themselves has neither."""
    totals = np.maximum(totals, 1)
    side = max(_CELL * len(shown), 2.2)
    width = max(WIDTH, side + 1.9)
    figure = canvas(side + 1.2, width)
    axes = figure.subplots()
    for i, of_line in enumerate(shown):
        for j, of_column in enumerate(shown):
            count, share = counts[of_line, of_column], counts[of_line, of_column] / totals[of_line]
            is_told = has_diagonal or i != j
            text = f"{count:,}" + (f"\n{100 * share:.0f} %" if is_told else "")
            cell(axes, (j, i), share * 0.95 * is_told, text if count else "·", size=SMALL - 0.5)
    names = [short(labels[number], 16) for number in shown]
    axes.set_xlim(-0.5, len(shown) - 0.5)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    turned = len(shown) > 4 or max(map(len, names)) > 9
    axes.set_xticks(
        range(len(shown)),
        names,
        rotation=45 if turned else 0,
        ha="right" if turned else "center",
        rotation_mode="anchor",
    )
    axes.set_yticks(range(len(shown)), names)
    axes.set_xlabel(axis_names[1])
    axes.set_ylabel(axis_names[0])
    bare(axes)
    return figure


def _classes(report: Report) -> Any:
    shown = shown_classes([-each.f1.value for each in report.classes])
    classes = [report.classes[number] for number in shown]
    figure = canvas(0.75 + 0.36 * len(classes))
    axes = figure.subplots()
    series = [[each.precision for each in classes], [each.recall for each in classes], [each.f1 for each in classes]]
    dots(axes, [report.labels[n] for n in shown], series, [BLUE, ORANGE, INK], ["precision", "recall", "F1"])
    figure.legend(loc="outside upper center", ncols=3)
    return figure


def _distribution(report: Report) -> Any:
    shown = shown_classes([abs(each.n_predicted - each.n_true) for each in report.classes])
    classes = [report.classes[number] for number in shown]
    figure = canvas(0.75 + 0.36 * len(classes))
    axes = figure.subplots()
    y = np.arange(len(classes))
    axes.barh(y - 0.19, [each.n_true for each in classes], 0.34, color=MUTED, alpha=0.55, label="true")
    axes.barh(y + 0.19, [each.n_predicted for each in classes], 0.34, color=BLUE, label="predicted")
    axes.set_yticks(y, [short(report.labels[number], 30) for number in shown])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"{report.split} rows")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def _reliability(report: Report) -> Any:
    figure = canvas(3.3)
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=(0, (4, 3)))
    _bins(axes, report.calibration.before, BLUE, "o", "as trained")
    _bins(axes, report.calibration.after, ORANGE, "s", "temperature scaled")
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("confidence" if report.several is None else "probability of a label")
    axes.set_ylabel("accuracy" if report.several is None else "share that has it")
    axes.legend(loc="upper left")
    return figure


def _bins(axes: Any, bins: Sequence[Bin], colour: str, marker: str, title: str) -> None:
    x, scores = [each.confidence for each in bins], [each.accuracy for each in bins]
    y, sizes = [s.value for s in scores], np.array([s.n for s in scores])
    axes.plot(x, y, color=colour, lw=0.8, alpha=0.4)
    axes.errorbar(x, y, yerr=arms(scores), color=colour, fmt="none", elinewidth=0.6)
    axes.scatter(x, y, 6 + 60 * sizes / sizes.sum(), color=colour, marker=marker, label=title, zorder=3)


def _coverage(report: Report) -> Any:
    if not report.coverage:
        return None
    figure = canvas(2.6)
    axes = figure.subplots()
    x, scores = [100 * each.share for each in report.coverage], [each.accuracy for each in report.coverage]
    axes.fill_between(x, [s.low for s in scores], [s.high for s in scores], color=BLUE, alpha=0.2, lw=0)
    axes.plot(x, [s.value for s in scores], color=BLUE, lw=1.4, marker="o", ms=2)
    axes.set_xlim(0, 101)
    axes.set_xlabel("answered, % of rows, the surest first")
    axes.set_ylabel("accuracy")
    return figure


def _lengths(report: Report) -> Any:
    if report.lengths is None:
        return None
    figure = canvas(2.5)
    axes = figure.subplots()
    scores = [each.accuracy for each in report.lengths]
    x = range(len(scores))
    axes.errorbar(x, [s.value for s in scores], yerr=arms(scores), color=BLUE, fmt="o", ms=4, lw=1.3)
    axes.set_xticks(x, [_range(each.n_least, each.n_most) for each in report.lengths])
    axes.set_xlim(-0.5, len(scores) - 0.5)
    axes.set_xlabel("words")
    axes.set_ylabel("accuracy" if report.several is None else "subset accuracy")
    axes.grid(visible=False, axis="x")
    return figure


def _range(least: int, most: int) -> str:
    return str(least) if least == most else f"{least}–{most}"


def _cost(report: Report) -> Any:
    if not report.cost:
        return None
    phases = report.cost["phases_s"]
    figure = canvas(0.55 + 0.26 * len(phases))
    axes = figure.subplots()
    y = range(len(phases))
    axes.barh(y, list(phases.values()), 0.6, color=BLUE)
    axes.set_yticks(y, [short(name, 34) for name in phases])
    axes.set_ylim(len(phases) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("seconds")
    return figure

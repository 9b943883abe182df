"""The figures of a shift report: estimated accuracy, and the shares of classes. How they look is `drawing`'s affair."""

from __future__ import annotations

from typing import Any

from submillion.judging.metrics import Score
from submillion.reports.drawing import BLUE, MUTED, ORANGE, Drawn, canvas, dots, files, style
from submillion.reports.figures import MAX_CLASSES, shown_classes
from submillion.reports.shift.reading import ShiftReport


def draw(report: ShiftReport, with_png: bool = True) -> dict[str, Drawn]:
    """Return the figures by name."""
    with style():
        drawn = {"accuracy": _accuracy(report), "shares": _shares(report)}
        return {name: files(name, figure, with_png) for name, figure in drawn.items()}


def _accuracy(report: ShiftReport) -> Any:
    """The run that the report is about, the first: validation, both methods, what is stated."""
    one = report.runs[0]
    found = one.estimates
    rows = [
        ("validation, measured", found.validation),
        ("here: ATC, chance alone", found.atc),
        ("here: DoC, chance alone", found.doc),
        ("here: stated", one.verdict.accuracy),
    ]
    figure = canvas(0.55 + 0.34 * len(rows))
    axes = figure.subplots()
    dots(axes, [name for name, _ in rows], [[score for _, score in rows]], [BLUE], [None])
    axes.set_xlabel("accuracy")
    axes.locator_params(axis="x", nbins=6)
    return figure


def _shares(report: ShiftReport) -> Any:
    one = report.runs[0]
    found = one.estimates
    apart = [abs(a.value - b.value) for a, b in zip(found.predicted, found.predicted_validation, strict=True)]
    chosen = shown_classes(apart, MAX_CLASSES)
    training = [Score(share, share, share, 0) for share in one.train_shares]
    series = [[each[i] for i in chosen] for each in (training, found.predicted_validation, found.predicted)]
    names = [report.labels[i] for i in chosen]
    figure = canvas(0.8 + 0.46 * len(names))
    axes = figure.subplots()
    dots(axes, names, series, [MUTED, BLUE, ORANGE], ["training, true", "validation, predicted", "here, predicted"])
    axes.set_xlabel("share of rows")
    figure.legend(loc="outside lower right", ncols=3)
    return figure

"""The figure of `submillion evaluate --perturb`: accuracy by perturbation and strength, and that of unchanged rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from submillion.errors import ConfigError
from submillion.judging.metrics import Score
from submillion.reports.drawing import BLUE, MUTED, ORANGE, canvas, dots, files, style
from submillion.runs import write_atomically

_STRENGTHS = {"mild": MUTED, "moderate": BLUE, "strong": ORANGE}


def check_figure(path: Path) -> None:
    """Raise a ConfigError if no figure can be written to the path."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise ConfigError(f"{path}: figures are written as .svg or .png")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path.absolute().parent}: no such folder; make it first")


def write_figure(path: Path, plain: Score, perturbed: Mapping[str, Sequence[Score]]) -> None:
    """Draw the accuracies of each perturbation (mild, moderate, strong) and write them as SVG or PNG."""
    with style():
        figure = canvas(0.9 + 0.42 * len(perturbed))
        axes = figure.subplots()
        axes.axvspan(plain.low, plain.high, color=MUTED, alpha=0.15, lw=0)
        axes.axvline(plain.value, color=MUTED, lw=0.8)
        dots(axes, [*perturbed], [*zip(*perturbed.values(), strict=True)], [*_STRENGTHS.values()], [*_STRENGTHS])
        axes.set_xlabel("accuracy; the line and band: rows as they are")
        figure.legend(loc="outside upper right", ncols=3)
        drawn = files("robustness", figure)
    write_atomically(path, drawn.svg if path.suffix.lower() == ".svg" else drawn.png)

"""Accuracy by perturbation and strength, as `submillion evaluate --perturb` prints and draws it.

Owns what is known about one perturbation; measuring it is left to `prediction.robustness`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from submillion.config import AugmentationKind
from submillion.errors import ConfigError
from submillion.judging.comparison import LEVEL, Difference
from submillion.judging.metrics import Score
from submillion.reports.drawing import BLUE, MUTED, ORANGE, canvas, dots, files, style
from submillion.reports.sections import Section, Table
from submillion.runs import Output
from submillion.text import interval

_STRENGTHS = {"mild": MUTED, "moderate": BLUE, "strong": ORANGE}


@dataclass(frozen=True)
class Perturbed:
    """What one perturbation does at one rate: rows whose text it changed, rows whose predicted class changed, the
    accuracy, its difference from that of the unchanged rows, and that test's p after Holm's correction for all."""

    kind: AugmentationKind
    rate: float
    n_changed: int
    n_flipped: int
    accuracy: Score
    difference: Difference
    p_holm: float = 1.0


def section(plain: Score, by_kind: Mapping[str, Sequence[Perturbed]]) -> Section:
    """Return what perturbations make of `plain`, the accuracy of the unchanged rows, strengths as columns."""
    rows: list[tuple[str, ...]] = []
    for kind, levels in by_kind.items():
        rates = ", ".join(f"{100 * each.rate:.0f}" for each in levels)
        if not any(each.n_changed for each in levels):
            rows.append((kind, *(f"0 of {plain.n:,} rows could be changed" for _ in levels)))
            continue
        rows.append((kind, *(interval(each.accuracy, digits=3) for each in levels)))
        rows.append((f"  {rates} %", *(_difference(each) for each in levels)))
        rows.append(("  rows changed", *(f"{each.n_changed:,} of {plain.n:,}" for each in levels)))
    caption = (
        "below each accuracy its paired difference, and how many rows were changed; * = p < 0.05 after Holm's "
        "correction for all of them"
    )
    return Section(
        anchor="robustness",
        nav="Robustness",
        title=f"accuracy of the {plain.n:,} rows unchanged: {interval(plain, digits=3)}; 95 % intervals",
        tables=(Table(caption, ("", *_STRENGTHS), rows),),
    )


def _difference(each: Perturbed) -> str:
    if not each.n_changed:
        return "no row could be changed"
    return interval(each.difference, digits=3, sign="+") + " *" * (each.p_holm < LEVEL)


def check_figure(output: Output) -> None:
    """Raise a ConfigError if no figure can be written to the output."""
    path = output.path
    if path.suffix.lower() not in (".svg", ".png"):
        raise ConfigError(f"{path}: figures are written as .svg or .png")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path.absolute().parent}: no such folder; make it first")
    output.check()


def write_figure(output: Output, plain: Score, by_kind: Mapping[str, Sequence[Perturbed]]) -> None:
    """Draw the accuracies of each perturbation (mild, moderate, strong) and write them as SVG or PNG."""
    accuracies = [[each.accuracy for each in levels] for levels in by_kind.values()]
    with style():
        figure = canvas(0.9 + 0.42 * len(by_kind))
        axes = figure.subplots()
        axes.axvspan(plain.low, plain.high, color=MUTED, alpha=0.15, lw=0)
        axes.axvline(plain.value, color=MUTED, lw=0.8)
        dots(axes, [*by_kind], [*zip(*accuracies, strict=True)], [*_STRENGTHS.values()], [*_STRENGTHS])
        axes.set_xlabel("accuracy; the line and band: rows unchanged")
        figure.legend(loc="outside upper right", ncols=3)
        drawn = files("robustness", figure)
    output.write(drawn.svg if output.path.suffix.lower() == ".svg" else drawn.png)

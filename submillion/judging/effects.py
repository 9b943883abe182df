"""How much each factor of a study matters: how far apart its choices are, other factors held equal, and how surely.

An additive model (Fisher's analysis of variance, for designs that need not be balanced) is fitted by least squares to
the scores of all runs. Its residuals, from seeds and interactions of factors, are one source of chance; the rows that
scores were measured on are another, the same for all runs, and are added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from submillion.judging.comparison import LEVEL

_ESTIMABLE = 1e-8


@dataclass(frozen=True)
class Effect:
    """The best and the worst choice of a factor, and the difference of their scores with its 95 % interval."""

    factor: str
    best: str
    worst: str
    value: float
    low: float
    high: float

    @property
    def is_told(self) -> bool:
        """Say whether the interval excludes zero."""
        return self.low > 0


def effects(
    choices: Sequence[Mapping[str, str]],
    scores: Sequence[float],
    rows_error: float,
    ranges: Mapping[str, bool],
) -> list[Effect]:
    """Return the effect of each factor that has more than one choice, the largest first; none with fewer runs than
    the model needs.

    choices: factor → choice, for each run · rows_error: a difference's standard error from the rows alone · ranges:
    factors whose choices are numbers in a range, and whether it is logarithmic: a straight line is fitted to these.
    The interval is Student's, with the level shared among the pairs of choices (Bonferroni): the best and the worst
    were picked by their scores.
    """
    columns, contrasts = _design(choices, ranges)
    design, y = np.column_stack([np.ones(len(scores)), *columns]), np.array(scores)
    inverse = np.linalg.pinv(design)
    coefficients = inverse @ y
    n_free = len(y) - int(np.linalg.matrix_rank(design))
    if n_free < 1:
        return []
    variance = float(np.sum((y - design @ coefficients) ** 2)) / n_free
    estimates = []
    for factor, levels in contrasts.items():
        names = sorted(levels, key=lambda name: -float(levels[name] @ coefficients))
        contrast = levels[names[0]] - levels[names[-1]]
        if np.abs(contrast - contrast @ inverse @ design).max() > _ESTIMABLE:
            continue  # changed together with another factor: nothing tells the two apart
        spread = math.sqrt(variance * float(np.sum((contrast @ inverse) ** 2)) + rows_error**2)
        n_pairs = len(names) * (len(names) - 1) / 2
        half_width = float(special.stdtrit(n_free, 1 - LEVEL / (2 * n_pairs))) * spread
        value = float(contrast @ coefficients)
        estimates.append(Effect(factor, names[0], names[-1], value, value - half_width, value + half_width))
    return sorted(estimates, key=lambda effect: -effect.value)


def _design(
    choices: Sequence[Mapping[str, str]], ranges: Mapping[str, bool]
) -> tuple[list[np.ndarray], dict[str, dict[str, np.ndarray]]]:
    """Return the columns after the constant one, and each choice's coefficients for each factor, [1 + columns]."""
    columns: list[np.ndarray] = []
    places: dict[str, dict[str, tuple[int, float]]] = {}
    for factor in dict.fromkeys(name for run in choices for name in run):
        labels = [run.get(factor, "") for run in choices]
        distinct = list(dict.fromkeys(labels))
        if len(distinct) < 2:
            continue
        if factor in ranges:
            sizes = {label: math.log(float(label)) if ranges[factor] else float(label) for label in distinct}
            low, high = min(sizes, key=lambda k: sizes[k]), max(sizes, key=lambda k: sizes[k])
            share = {label: (size - sizes[low]) / (sizes[high] - sizes[low]) for label, size in sizes.items()}
            places[factor] = {label: (len(columns), share[label]) for label in (low, high)}
            columns.append(np.array([share[label] for label in labels]))
            continue
        places[factor] = {distinct[0]: (0, 0.0)}
        for label in distinct[1:]:
            places[factor][label] = (len(columns), 1.0)
            columns.append(np.array([float(run_label == label) for run_label in labels]))
    unit = np.eye(1 + len(columns))[1:]
    return columns, {
        factor: {label: weight * unit[column] for label, (column, weight) in terms.items()}
        for factor, terms in places.items()
    }

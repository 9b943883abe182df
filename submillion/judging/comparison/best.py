"""Which of many settings may be the best: a confidence set, by how far each is below any other.

The family of all pairs of K settings has K (K - 1) / 2 tests, and its correction hides what two would show. The
question "may this one be the best" has one test per setting, and needs no correction for their number, since only one
of them is true of the best (Hsu 1984, Annals of Statistics 12; Mogstad, Romano, Shaikh and Wilhelm 2024, Review of
Economic Studies 91). Shapes: D draws, K settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

from submillion.judging.comparison.bootstrap import Resampled, of_seeds, seed_variances
from submillion.judging.comparison.paired import FEWEST_GROUPS, LEVEL
from submillion.judging.metrics import Z_95

_SEED = 20254


def may_be_best(settings: Sequence[Resampled], sign: float = 1.0) -> np.ndarray:
    """Return which settings may be the best by one metric, bool [K]: the true best is among them in 95 % of samples.

    settings: all on the same rows, moderated if that is done · sign: -1 if less is better. A setting is left out if
    its largest studentised distance below another one is larger than chance makes it for the best in 5 % of
    draws. Of several that are equally good each is kept in 95 %, not all at once. All are kept if rows are of fewer
    than 6 groups, which tell too little.
    """
    if (settings[0].n_groups or FEWEST_GROUPS) < FEWEST_GROUPS:
        return np.ones(len(settings), dtype=bool)
    means, errors = sign * np.array([setting.values.mean() for setting in settings]), sign * _errors(settings)
    kept = np.ones(len(means), dtype=bool)
    for i in range(len(means)):
        others = np.arange(len(means)) != i
        apart = errors[:, others] - errors[:, [i]]
        spread = apart.std(axis=0, ddof=1)
        varies = spread > 0
        below = means[others] - means[i]
        if (below[~varies] > 0).any():
            kept[i] = False
        elif varies.any():
            largest = (apart[:, varies] / spread[varies]).max(axis=1)
            kept[i] = (below[varies] / spread[varies]).max() <= np.quantile(largest, 1 - LEVEL)
    return kept


def _errors(settings: Sequence[Resampled]) -> np.ndarray:
    """Return draws of each mean's error, float64 [D, K]: the draws of rows, which all settings share, and what better
    and worse seeds add, whose variance is drawn too, as it is known from few."""
    rng, columns = np.random.default_rng(_SEED), []
    for setting in settings:
        rows = setting.draws.mean(axis=0) - setting.draws.mean()
        if setting.n_groups is not None:  # of few the bootstrap's spread is too small and uncertain
            rows *= (
                special.stdtrit(setting.n_groups - 1, 0.975)
                / Z_95
                * math.sqrt(setting.n_groups / (setting.n_groups - 1))
            )
        if setting.by_chance is not None:
            fitted = math.sqrt(float(setting.by_chance.sum())) / len(setting.values)
            rows = rows + fitted * rng.standard_normal(len(rows))
        if len(setting.values) > 1:
            (of_rows, _), known = seed_variances(setting), of_seeds(setting)
            variance = known.variance * known.dof / rng.chisquare(known.dof, len(rows)) / len(setting.values)
            rows = rows + np.sqrt(np.maximum(variance - of_rows, 0.0)) * rng.standard_normal(len(rows))
        columns.append(rows)
    return np.stack(columns, axis=1)

"""Two runs on the same rows: the exact test, its interval, and the correction of many tests; and whether the
lowest share among groups of rows differs from the highest.

Only rows that one of two runs has right and the other wrong, the discordant ones, tell them apart. Shapes: B rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from scipy import special

from submillion.judging.metrics import Z_95, Score, effective_rows, summed

LEVEL = 0.05  # of every test here, two-sided
FEWEST_GROUPS = 6  # of rows that are not independent: fewer tell too little when resampled
_EDGE = 1 - 1e-12


@dataclass(frozen=True)
class Difference:
    """A score of a first run or setting minus that of a second: the value, its 95 % interval, the number of rows,
    and the two-sided p value of "there is none", before any correction."""

    value: float
    low: float
    high: float
    n: int
    p: float


def mcnemar(first_right: np.ndarray, second_right: np.ndarray, groups: np.ndarray | None = None) -> Difference:
    """Return the difference of two runs' accuracies; bool [B] says which rows each has right.

    The p value is McNemar's (1947), exact: discordant rows fall to either side like a fair coin. The interval
    inverts the score test of a paired difference (Tango 1998, Statistics in Medicine 17). That test is asymptotic
    and a little less cautious: at the border the interval may leave out 0 while p is above 0.05. p decides.

    groups: int64 [B] from 0, of rows that are not independent of each other. Then a coin is tossed for each group's sum
    (the sign test of Fisher 1935, exact), and the interval is that of as many rows as these are worth.

    >>> mcnemar(np.array([True] * 9 + [False]), np.array([True] * 4 + [False] * 6)).p
    0.0625
    >>> round(mcnemar(np.array([True] * 9 + [False]), np.array([True] * 4 + [False] * 6), np.arange(10) // 5).p, 6)
    0.5
    """
    n, differences = len(first_right), first_right.astype(np.int64) - second_right
    n_first, n_second = int((differences > 0).sum()), int((differences < 0).sum())
    worth = effective_rows(differences.astype(np.float64), groups) / n
    p = _sign_test(differences if groups is None else summed(differences, groups))
    return Difference((n_first - n_second) / n, *_tango(n_first * worth, n_second * worth, n * worth), n, p)


def _sign_test(sums: np.ndarray) -> float:
    """Return the two-sided p value of whole numbers, each of which might as well have the other sign: exact."""
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    if sizes[-1] == 1:
        n_more, n = int((sums > 0).sum()), int(counts[0])
        return min(1.0, 2 * float(special.bdtr(min(n_more, n - n_more), n, 0.5)))
    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        of_size = np.zeros(2 * size * count + 1)
        of_size[:: 2 * size] = scipy.stats.binom.pmf(np.arange(count + 1), count, 0.5)
        chances = scipy.signal.convolve(chances, of_size)
    far = np.abs(np.arange(len(chances)) - len(chances) // 2) >= abs(int(sums.sum()))
    return float(np.clip(chances[far].sum(), 0.0, 1.0))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Return the p values corrected for their number (Holm 1979): never smaller, in the same order.

    Rejecting those at or below a level keeps the chance of any false rejection at that level, whatever the
    dependence.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(p_values), 0, -1)
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p_values[order]), 1.0)
    return corrected


def lowest_and_highest(shares: Sequence[Score]) -> float:
    """Return the p value of "the lowest and the highest of these shares are the same", each of rows of its own.

    Fisher's exact test, corrected for all pairs (Bonferroni), since the two were picked by their shares.

    >>> lowest_and_highest([Score(0.5, 0, 1, 40), Score(0.9, 0, 1, 40), Score(0.8, 0, 1, 40)]) < 0.01
    True
    """
    low, high = min(shares, key=lambda share: share.value), max(shares, key=lambda share: share.value)
    table = [[round(share.value * share.n), share.n - round(share.value * share.n)] for share in (low, high)]
    test: Any = scipy.stats.fisher_exact(table)
    return min(float(test.pvalue) * max(len(shares) * (len(shares) - 1) / 2, 1), 1.0)


def _tango(n_first: float, n_second: float, n: float) -> tuple[float, float]:
    """The 95 % interval of (n_first - n_second) / n: the differences that the score test does not reject."""

    def statistic(difference: float) -> float:
        b = (2 * n - n_first + n_second) * difference - n_first - n_second
        c = -n_second * difference * (1 - difference)
        share = (math.sqrt(b * b - 8 * n * c) - b) / (4 * n)  # of rows that only the second has right, constrained
        return (n_first - n_second - n * difference) / math.sqrt(n * (2 * share + difference * (1 - difference)))

    def bound(z: float) -> float:
        if (statistic(-_EDGE) - z) * (statistic(_EDGE) - z) > 0:
            return -1.0 if z > 0 else 1.0
        solution = scipy.optimize.root_scalar(
            lambda difference: statistic(difference) - z, bracket=(-_EDGE, _EDGE), xtol=1e-12
        )
        return float(solution.root)

    return bound(Z_95), bound(-Z_95)

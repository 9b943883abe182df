"""What is scored, and what a score is: predictions of labelled rows, of one label each or of several, and their scores.

Rows with several labels have a probability for each label, and a label is predicted if its probability reaches its
threshold. Shapes: B rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from submillion.errors import DataError
from submillion.text import plural

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point
EVEN = 0.5  # the threshold of labels for which none was chosen
_NOTHING = 1e-9  # of a row: an interval at so few spans everything
_WORTH_SAYING = 1.02  # a few repeated texts make intervals at most 1 % wider than this many rows would


@dataclass(frozen=True)
class Score:
    """A value, its 95 % interval (low <= value <= high) and the number of rows it comes from."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, eq=False)
class Predictions:
    """A model's predictions of a labelled split: ids, B of them, and for each row

    one label: label_ids int64 [B], the truth, 0 to C - 1 · probs float32 or float64 [B, C], each row sums to 1.
    several: label_ids int64 [B, C], 1 where the row has the label, else 0 · probs [B, C], each from 0 to 1 by itself ·
    thresholds float64 [C], or [B, C] if those of a row were chosen on other rows; None is 0.5.

    groups: int64 [B], the number of each row's group, from 0: rows of one group (`data.group`, or the same text) are
    not independent of each other; None if each row is alone.
    """

    ids: list[str]
    label_ids: np.ndarray
    probs: np.ndarray
    thresholds: np.ndarray | None = None
    groups: np.ndarray | None = None

    @property
    def has_several(self) -> bool:
        """Say whether a row may have several labels, or none."""
        return self.label_ids.ndim == 2

    @property
    def has_own_thresholds(self) -> bool:
        """Say whether rows have thresholds that were chosen on others of these rows."""
        return self.thresholds is not None and self.thresholds.ndim == 2

    @property
    def predicted(self) -> np.ndarray:
        """Return the likeliest class of each row (of equals the first), int64 [B]; of several labels which are
        predicted, bool [B, C]."""
        if self.has_several:
            return self.probs >= (EVEN if self.thresholds is None else self.thresholds)
        return self.probs.argmax(axis=1)

    @property
    def truth(self) -> np.ndarray:
        """Return which row has which label, bool [B, C]."""
        if self.has_several:
            return self.label_ids.astype(bool)
        return self.label_ids[:, None] == np.arange(self.probs.shape[1])

    @property
    def right(self) -> np.ndarray:
        """Return which rows are right, bool [B]: of several labels if every one is."""
        return equal_rows(self.predicted, self.label_ids)

    def rows(self, places: np.ndarray) -> Predictions:
        """Return the rows at these places, in their order."""
        thresholds = self.thresholds
        if thresholds is not None and thresholds.ndim == 2:
            thresholds = thresholds[places]
        ids = [self.ids[place] for place in places] if self.ids else []
        groups = None if self.groups is None else numbered(self.groups[places])
        return Predictions(ids, self.label_ids[places], self.probs[places], thresholds, groups)

    @property
    def fold_keys(self) -> list[str]:
        """Return what decides each row's fold: its id, or the first id of its group, which is then in one fold."""
        if self.groups is None:
            return self.ids
        firsts: dict[int, str] = {}
        for group, row_id in zip(self.groups.tolist(), self.ids, strict=True):
            firsts[group] = min(firsts.get(group, row_id), row_id)
        return [firsts[group] for group in self.groups.tolist()]

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Return the sums of values, [B] or [B, any], over the rows of each group; without groups the values."""
        return values if self.groups is None else summed(values, self.groups)

    def refuse_unscorable(self) -> None:
        """Raise a DataError when there is no row, or when a probability is not a number."""
        n_rows = len(self.probs)
        assert len(self.label_ids) == n_rows, "a label for each row"
        if n_rows == 0:
            raise DataError("there are no predictions to score: give at least one labelled row")
        n_broken = int((~np.isfinite(self.probs).all(axis=1)).sum())
        if n_broken:
            raise DataError(
                f"{n_broken} of {n_rows} predictions are not numbers: the training diverged; "
                "lower train.learning_rate or set train.precision to fp32"
            )


def in_same_groups(predictions: Sequence[Predictions]) -> list[Predictions]:
    """Return several runs' predictions of the same rows in one order, with the fewest groups that one of them has:
    the rows are the same, however settings or older versions group them."""
    known = [run.groups for run in predictions if run.groups is not None]
    groups = min(known, key=lambda groups: int(groups.max()), default=None)
    return [replace(run, groups=groups) for run in predictions]


def equal_rows(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return which rows of two arrays, [B] or [B, C], are equal, bool [B]."""
    return (one == other).reshape(len(one), -1).all(axis=1)


def wilson(n_right: int, n: int) -> Score:
    """Return the share n_right / n with its score interval (Wilson 1927, without continuity correction).

    >>> accuracy = wilson(585, 640)
    >>> print(f"{accuracy.value:.4f} in {accuracy.low:.4f} to {accuracy.high:.4f}")
    0.9141 in 0.8898 to 0.9334
    """
    low, high = wilson_ends(n_right / n, n)
    return Score(n_right / n, low, high, n)


def wilson_ends(share: float, n: float, z: float = Z_95) -> tuple[float, float]:
    """Return the ends of Wilson's interval of a share of n, which need not be a whole number; z: the quantile."""
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return 0.0 if share == 0 else centre - half, 1.0 if share == 1 else centre + half


# Rows that are not independent --------------------------------------------------------------------------------------


def numbered(groups: np.ndarray) -> np.ndarray | None:
    """Return groups, [B] of any kind, as numbers from 0 in the order of their first rows, int64; None if each row is
    alone."""
    distinct, firsts, numbers = np.unique(groups, return_index=True, return_inverse=True)
    return None if len(distinct) == len(groups) else np.argsort(np.argsort(firsts))[numbers]


def summed(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the sums of values, [B] or [B, any], over the rows of each group, [G, any]: the same to the bit in any
    order of the rows, as truth values are counted."""
    values = values.astype(np.int64) if values.dtype == bool else values
    order = np.lexsort((*values.reshape(len(values), -1).T, groups))
    return np.add.reduceat(values[order], np.flatnonzero(np.diff(groups[order], prepend=-1)))


def share(is_right: np.ndarray, groups: np.ndarray | None = None, among: np.ndarray | None = None) -> Score:
    """Return the share of rows that are right, bool [B], among some, bool [B], or all, with Wilson's interval: with
    groups that of `clustered`. A share of no rows is 0, its n is 0 and its interval 0 to 1."""
    among = np.ones(len(is_right), dtype=bool) if among is None else among
    n = int(among.sum())
    if n == 0:
        return Score(0.0, 0.0, 1.0, 0)
    if groups is None:
        return wilson(int((is_right & among).sum()), n)
    right, of = (summed(flags[among], groups[among]) for flags in (is_right, among))
    return clustered(right, of, n)


def clustered(right: np.ndarray, of: np.ndarray, n_rows: int) -> Score:
    """Return the sum of right over the sum of `of`, int64 [G] each, with Wilson's interval at the effective number.

    G units are independent of each other, their decisions are not: units are rows with several labels, or groups of
    rows. The number is that of independent decisions with the variance that the units show (a ratio estimator's:
    Cochran 1977, section 6.3), the design effect limited to between 1 and its largest, that of units whose decisions
    are right or wrong together (Kish 1965, section 8.2), which is taken if nothing varies; and less if units are fewer
    than the rows, n_rows (`certainty`).
    """
    n, total, n_right = len(of), int(of.sum()), int(right.sum())
    if total == 0:
        return Score(0.0, 0.0, 1.0, n_rows)
    value, most = n_right / total, float((of**2).sum()) / total
    effect = most
    if 0 < n_right < total and n > 1:
        squares = float(np.sort((right - value * of) ** 2).sum()) * n / (n - 1)
        effect = min(max(squares / total / (value * (1 - value)), 1.0), most)
    low, high = wilson_ends(value, total / effect * certainty(n_rows, n))
    return Score(value, min(low, value), max(high, value), n_rows)


def effective_rows(influence: np.ndarray, groups: np.ndarray | None) -> float:
    """Return how many independent rows would have a mean that varies like these rows', at most B.

    influence: how much each row moves the score, float64 [B], which sum to 0. The design effect is limited as in
    `clustered`.
    """
    n = len(influence)
    if groups is None:
        return float(n)
    n_groups, most = int(groups.max()) + 1, float((np.bincount(groups) ** 2).sum()) / n
    alone = float(np.sort(influence**2).sum())
    together = float(np.sort(summed(influence, groups) ** 2).sum()) * n_groups / max(n_groups - 1, 1)
    effect = min(max(together / alone, 1.0), most) if alone > 0 else most
    return n / effect * certainty(n, n_groups)


def about_groups(groups: np.ndarray | None) -> tuple[str, ...]:
    """Return the sentence, without its stop, about rows that are not independent of each other, if they matter."""
    if groups is None:
        return ()
    n_groups, most = int(groups.max()) + 1, float((np.bincount(groups) ** 2).sum()) / len(groups)
    if most < _WORTH_SAYING:
        return ()
    return (
        f"the {len(groups):,} rows are in {n_groups:,} {plural(n_groups, 'group')} (data.group, or the same text): "
        "intervals and tests treat groups, not rows, as independent",
    )


def certainty(n_rows: int, n_groups: int) -> float:
    """Return what a variance seen between few groups is worth, as a factor on the effective number of rows (Korn and
    Graubard 1998, Survey Methodology 24), by Student's quantiles; one group says nothing.

    >>> certainty(100, 100), round(certainty(100, 10), 2)
    (1.0, 0.77)
    """
    if n_groups >= n_rows:
        return 1.0
    if n_groups == 1:
        return _NOTHING
    of_rows, of_groups = special.stdtrit([n_rows - 1, n_groups - 1], 0.975)
    return float((of_rows / of_groups) ** 2)

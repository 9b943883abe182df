"""What is scored, and what a score is: predictions of labelled rows, of one label each or of several, and their scores.

Rows with several labels have a probability for each label, and a label is predicted where its probability reaches its
threshold. Shapes: B rows, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from submillion.errors import DataError

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point
EVEN = 0.5  # the threshold of labels for which none was chosen


@dataclass(frozen=True)
class Score:
    """A value, its 95 % interval (low <= value <= high) and the number of rows it comes from."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of a labelled split: ids, B of them, and for each row

    one label: label_ids int64 [B], the truth, 0 to C - 1 · probs float32 or float64 [B, C], each row sums to 1.
    several: label_ids int64 [B, C], 1 where the row has the label, else 0 · probs [B, C], each from 0 to 1 by itself ·
    thresholds float64 [C], or [B, C] where those of a row were chosen on other rows; None is 0.5.
    """

    ids: list[str]
    label_ids: np.ndarray
    probs: np.ndarray
    thresholds: np.ndarray | None = None

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
        """Return which rows are right, bool [B]: of several labels where every one is."""
        return equal_rows(self.predicted, self.label_ids)

    def rows(self, places: np.ndarray) -> Predictions:
        """Return the rows at these places, in their order."""
        thresholds = self.thresholds
        if thresholds is not None and thresholds.ndim == 2:
            thresholds = thresholds[places]
        ids = [self.ids[place] for place in places] if self.ids else []
        return Predictions(ids, self.label_ids[places], self.probs[places], thresholds)

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

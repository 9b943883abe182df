"""What predictions of several labels say about unlabelled rows: how often each is predicted, here and on validation.

Accuracy is not estimated: the methods of `estimates` were fixed and judged on rows with one label, and no simulation
here supports one of them for micro-F1, of which a part, missed labels, leaves no trace in the confidence of those that
are predicted. Shapes: V validation rows, N rows without labels, C labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from submillion.errors import DataError
from submillion.judging.comparison import holm
from submillion.judging.metrics import Z_95, Score, wilson
from submillion.judging.shift.estimates import MIN_ROWS


@dataclass(frozen=True)
class LabelRates:
    """How often labels are predicted, in the order of the labels; all intervals are of 95 %.

    predicted, predicted_validation: the share of rows that get each label · p_holm: of "both have the same share", of
    each label, Fisher's exact test, corrected over all labels · per_row, per_row_validation: labels per row, their
    mean · without, without_validation: the share of rows that get none.
    """

    n: int
    n_validation: int
    predicted: tuple[Score, ...]
    predicted_validation: tuple[Score, ...]
    p_holm: tuple[float, ...]
    per_row: Score
    per_row_validation: Score
    without: Score
    without_validation: Score


def label_rates(validation: np.ndarray, unlabelled: np.ndarray) -> LabelRates:
    """Return the rates of labels that one run predicts by the same thresholds, bool [V, C] and [N, C].

    DataError with fewer than 10 rows of either kind.
    """
    problems = [
        f"{len(rows)} rows {where}: a comparison needs at least {MIN_ROWS}"
        for rows, where in ((unlabelled, "without labels"), (validation, "of validation predictions"))
        if len(rows) < MIN_ROWS
    ]
    if problems:
        raise DataError(*problems)
    counts = [rows.sum(axis=0) for rows in (unlabelled, validation)]
    p_values = [_fisher(int(a), len(unlabelled), int(b), len(validation)) for a, b in zip(*counts, strict=True)]
    return LabelRates(
        n=len(unlabelled),
        n_validation=len(validation),
        predicted=tuple(wilson(int(count), len(unlabelled)) for count in counts[0]),
        predicted_validation=tuple(wilson(int(count), len(validation)) for count in counts[1]),
        p_holm=tuple(holm(np.array(p_values)).tolist()),
        per_row=_per_row(unlabelled),
        per_row_validation=_per_row(validation),
        without=wilson(int((~unlabelled.any(axis=1)).sum()), len(unlabelled)),
        without_validation=wilson(int((~validation.any(axis=1)).sum()), len(validation)),
    )


def _fisher(n_first: int, of_first: int, n_second: int, of_second: int) -> float:
    test: Any = scipy.stats.fisher_exact([[n_first, of_first - n_first], [n_second, of_second - n_second]])
    return float(test.pvalue)


def _per_row(predicted: np.ndarray) -> Score:
    numbers, n = predicted.sum(axis=1), len(predicted)
    value, half = float(numbers.mean()), Z_95 * float(np.sort(numbers).std(ddof=1)) / np.sqrt(n)
    return Score(value, max(value - half, 0.0), min(value + half, float(predicted.shape[1])), n)

"""The probabilities from which labels are predicted: thresholds chosen where the truth is known, and used elsewhere.

Thresholds that are judged on the rows they were chosen on look better than they are. So validation rows get those that
were chosen without their own fold, and a finished run keeps those chosen on all of them. Shapes: B rows, C labels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import special

from submillion.judging.metrics.predictions import EVEN

Threshold = Literal["one", "each"] | float
MIN_POSITIVES = 10  # rows of a label below which its own threshold would be chance
N_FOLDS = 5
_N_OF_ALL = 50  # rows of a label that the common threshold counts for: of 0 to 1e9 the best at 150 to 2,400 rows
_STEP = 0.1
_STEPS = np.arange(-120, 121) * _STEP  # log-odds that are distinguished


def chosen(probs: np.ndarray, label_ids: np.ndarray, how: Threshold) -> np.ndarray:
    """Return the threshold of each label, float64 [C], of probabilities [B, C] and what is true, 0 or 1 [B, C].

    one: the same for all, with the highest micro-F1 · each: a label's own, with its highest F1, pulled towards that of
    all, in log-odds, as by 50 more rows of the label; and that of all if fewer than 10 rows have the label
    (`few_positives`) · a number: that. F1 is smoothed over thresholds; of equals the one nearest to 0.5 is chosen. If
    no row has a label it is 0.5.
    """
    n_labels, truth = probs.shape[1], np.asarray(label_ids).astype(bool)
    if isinstance(how, float | int):
        return np.full(n_labels, float(how))
    thresholds = np.full(n_labels, _best(probs.ravel(), truth.ravel()))
    if how == "each":
        counts = truth.sum(axis=0)
        for label_id in np.flatnonzero(counts >= MIN_POSITIVES):
            log_odds = special.logit([_best(probs[:, label_id], truth[:, label_id]), thresholds[label_id]])
            weights = np.array([counts[label_id], _N_OF_ALL]) / (counts[label_id] + _N_OF_ALL)
            thresholds[label_id] = special.expit(weights @ log_odds)
    return thresholds


def few_positives(label_ids: np.ndarray) -> np.ndarray:
    """Return the labels that have fewer than 10 rows, int64: `each` gives these the threshold of all."""
    return np.flatnonzero(np.asarray(label_ids).astype(bool).sum(axis=0) < MIN_POSITIVES)


def out_of_fold(
    probs: np.ndarray, label_ids: np.ndarray, ids: Sequence[str], how: Threshold, folds: int = N_FOLDS
) -> np.ndarray:
    """Return each row's thresholds, float64 [B, C], chosen on the rows of the other folds.

    A row's fold follows from its id alone: neither the order of rows nor the other rows matter.
    """
    numbers = folds_of(ids, folds)
    thresholds = np.empty(probs.shape)
    for number in np.unique(numbers):
        inside = numbers == number
        thresholds[inside] = chosen(probs[~inside], label_ids[~inside], how)
    return thresholds


def folds_of(ids: Sequence[str], folds: int = N_FOLDS) -> np.ndarray:
    """Return each row's fold, int64 [B]: rows of one fold have the same thresholds in `out_of_fold`."""
    return np.array([_fold(row_id, folds) for row_id in ids], dtype=np.int64)


def _fold(row_id: str, folds: int) -> int:
    digest = hashlib.sha256(row_id.encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % folds


def _best(probs: np.ndarray, truth: np.ndarray) -> float:
    """Return the threshold of the highest F1 of decisions, [N] each, smoothed.

    F1 over thresholds is a jagged curve, whose peak depends on few rows: smoothing lets a threshold be chosen as well
    on fewer rows. Each log-odds counts as a normal distribution around it, whose width falls with the number of labels
    like a kernel density's (Silverman 1986, section 3.4.2). Counts in steps of 0.1 make it independent
    of the rows' order.
    """
    n_true = int(truth.sum())
    if n_true == 0:
        return EVEN
    odds = special.logit(probs.astype(np.float64))
    places = np.rint((np.clip(odds, _STEPS[0], _STEPS[-1]) - _STEPS[0]) / _STEP).astype(np.int64)
    n_all, n_right = (np.bincount(steps, minlength=len(_STEPS)) for steps in (places, places[truth]))
    mean = (n_all @ _STEPS) / len(probs)
    spread = np.sqrt((n_all @ (_STEPS - mean) ** 2) / len(probs))
    reached = special.ndtr((_STEPS - _STEPS[:, None]) / max(spread * n_true**-0.2, _STEP))
    f1 = 2 * (reached @ n_right) / (reached @ n_all + n_true)
    best = np.flatnonzero(f1 == f1.max())
    return float(special.expit(_STEPS[best[np.argmin(np.abs(_STEPS[best]))]]))

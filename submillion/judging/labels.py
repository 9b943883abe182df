"""Find labels that are likely wrong, from probabilities of models that did not see the rows: confident learning.

Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels", section 3. A class's
threshold is its mean probability over the rows with that label; a row counts as the likeliest of the classes whose
thresholds it reaches. Shapes: B rows, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from submillion.judging.metrics import Predictions


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """Likely label errors. rows: int64 [E], the likeliest error first · label_ids: int64 [E], each row's likely class ·
    share: the estimated share of wrong labels among all rows · joint: float64 [C, C], the estimated number of rows of
    each label (line) and true class (column)."""

    rows: np.ndarray
    label_ids: np.ndarray
    share: float
    joint: np.ndarray


def label_errors(predictions: Predictions) -> LabelErrors:
    """Return the rows whose label is likely another class's.

    They are the rows off the confident joint's diagonal ("C_confusion" in the paper's benchmarks), ranked by the
    normalised margin: the label's probability minus the likeliest other's. Probabilities must be out of sample.
    """
    labels, probs = predictions.label_ids, predictions.probs
    likely = _likely(labels, probs)
    n_classes = probs.shape[1]
    known = likely >= 0
    counts = np.bincount(labels[known] * n_classes + likely[known], minlength=n_classes**2)
    joint = _calibrated(counts.reshape(n_classes, n_classes), np.bincount(labels, minlength=n_classes))
    rows = np.flatnonzero(known & (likely != labels))
    of_label = probs[rows, labels[rows]]
    others = probs[rows].copy()
    others[np.arange(len(rows)), labels[rows]] = -1.0
    rows = rows[np.lexsort((rows, of_label - others.max(axis=1)))]
    return LabelErrors(rows, likely[rows], float(1 - np.trace(joint) / len(labels)), joint)


def _likely(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Return each row's confident class, int64 [B]; -1 if it reaches no class's threshold."""
    is_of = labels[:, None] == np.arange(probs.shape[1])
    n_of = is_of.sum(axis=0)
    thresholds = np.where(n_of, (probs * is_of).sum(axis=0) / np.maximum(n_of, 1), np.inf)  # a class without rows
    reached = np.where(probs >= thresholds, probs, -1.0)
    return np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)


def _calibrated(counts: np.ndarray, n_labelled: np.ndarray) -> np.ndarray:
    """Return the confident joint, each line scaled to the rows with that label (the paper's equation 3, in rows)."""
    total = counts.sum(axis=1, keepdims=True)
    shares = np.where(total, counts / np.maximum(total, 1), np.eye(len(counts)))
    return shares * n_labelled[:, None]

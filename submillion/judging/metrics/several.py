"""The scores of rows with several labels: micro- and macro-F1, Hamming and subset accuracy.

The decisions of one row are not independent of each other, so the unit of every interval is the row, or its group.
Labels that neither occur nor are predicted have no F1 and are left out of its mean, as scikit-learn does with
`zero_division=nan`. Independent of the rows' order and repeatable to the bit. Shapes: B rows, C labels.
"""

from __future__ import annotations

import numpy as np

from submillion.judging.metrics.predictions import Predictions, Score, clustered, effective_rows, share, wilson_ends
from submillion.judging.metrics.scores import ece, f1_influence, hamming, log_loss


def scores_of_several(predictions: Predictions) -> dict[str, Score]:
    """Return micro_f1, macro_f1, hamming, subset_accuracy, log_loss and ece."""
    return {
        "micro_f1": micro_f1(predictions),
        "macro_f1": macro_f1(predictions),
        "hamming": hamming(predictions),
        "subset_accuracy": share(predictions.right, predictions.groups),
        "log_loss": log_loss(predictions),
        "ece": ece(predictions),
    }


def micro_f1(predictions: Predictions) -> Score:
    """Return the F1 of all label decisions together; 0 if no label occurs or is predicted.

    F1 is 2q / (1 + q), where q is the share of right ones among the labels that a row has or is given: the ends of q's
    interval give F1's, as for one class.
    """
    truth, predicted = predictions.truth, predictions.predicted
    right, of = (predictions.summed(decisions.sum(axis=1)) for decisions in (truth & predicted, truth | predicted))
    jaccard = clustered(right, of, len(truth))
    value, low, high = (2 * q / (1 + q) for q in (jaccard.value, jaccard.low, jaccard.high))
    return Score(value, low, high, jaccard.n)


def macro_f1(predictions: Predictions) -> Score:
    """Return the mean F1 of the labels that occur or are predicted.

    Wilson's interval, at the number of independent decisions whose variance is the mean's: by the infinitesimal
    jackknife over rows (Efron 1982), or by the labels' own rows plus four, two of them right (Agresti and Coull 1998),
    if that is larger. The second keeps labels with few rows, all of them right, from being certain.
    """
    truth, predicted = predictions.truth, predictions.predicted
    right, involved = (truth & predicted).sum(axis=0), (truth | predicted).sum(axis=0)
    is_involved, n = involved > 0, len(truth)
    if not is_involved.any():
        return Score(0.0, 0.0, 1.0, n)
    right, involved = right[is_involved], involved[is_involved]
    f1, influence = 2 * right / (right + involved), f1_influence(truth, predicted)
    shares = (right + 2) / (involved + 4)
    variances = (2 / (1 + shares) ** 2) ** 2 * shares * (1 - shares) / (involved + 4)
    variance = max(float(np.sort(influence**2).sum()), float(variances.sum()) / len(f1) ** 2)
    variance *= n / effective_rows(influence, predictions.groups)
    value, middle = float(f1.mean()), float((2 * shares / (1 + shares)).mean())
    low, high = wilson_ends(value, middle * (1 - middle) / variance)
    return Score(value, min(low, value), max(high, value), n)


def together(truth: np.ndarray) -> np.ndarray:
    """Return how many rows have both of two labels, int64 [C, C], of bool [B, C]; the diagonal has a label's rows."""
    counts = truth.astype(np.float64)
    return np.rint(counts.T @ counts).astype(np.int64)

"""The scores of rows with several labels: micro- and macro-F1, Hamming and subset accuracy, calibration; each label's.

The decisions of one row are not independent of each other, so every interval takes the row for the unit. Labels that
neither occur nor are predicted have no F1 and are left out of its mean, as scikit-learn does with `zero_division=nan`.
Independent of the rows' order and repeatable to the bit. Shapes: B rows, C labels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from submillion.judging.metrics.predictions import Predictions, Score, wilson, wilson_ends
from submillion.judging.metrics.scores import (
    DRAW_SEED,
    N_BINS,
    N_DRAWS,
    ClassScores,
    classes_of,
    log_loss,
    mirrored,
)
from submillion.judging.metrics.scores import ece as ece_of_one


def scores_of_several(predictions: Predictions) -> dict[str, Score]:
    """Return micro_f1, macro_f1, hamming, subset_accuracy, log_loss and ece."""
    truth, predicted = predictions.truth, predictions.predicted
    return {
        "micro_f1": micro_f1(truth, predicted),
        "macro_f1": macro_f1(truth, predicted),
        "hamming": hamming(truth, predicted),
        "subset_accuracy": wilson(int(predictions.right.sum()), len(truth)),
        "log_loss": log_loss(predictions),
        "ece": ece(predictions),
    }


def micro_f1(truth: np.ndarray, predicted: np.ndarray) -> Score:
    """Return the F1 of all label decisions together, bool [B, C] each; 0 where no label occurs or is predicted.

    F1 is 2q / (1 + q), where q is the share of right ones among the labels that a row has or is given: the ends of q's
    interval give F1's, as for one class.
    """
    share = clustered((truth & predicted).sum(axis=1), (truth | predicted).sum(axis=1))
    value, low, high = (2 * q / (1 + q) for q in (share.value, share.low, share.high))
    return Score(value, low, high, share.n)


def hamming(truth: np.ndarray, predicted: np.ndarray) -> Score:
    """Return the share of label decisions that are right, bool [B, C] each: 1 minus the Hamming loss."""
    return clustered((truth == predicted).sum(axis=1), np.full(len(truth), truth.shape[1]))


def clustered(right: np.ndarray, of: np.ndarray) -> Score:
    """Return the sum of right over the sum of `of`, int64 [B] each, with Wilson's interval at the effective number.

    That number is what as many independent decisions would need to be for the variance that the rows show (a ratio
    estimator's: Cochran 1977, section 6.3), the design effect held between 1 and its largest, that of rows whose
    decisions are right or wrong together (Kish 1965, section 8.2), which is taken where nothing varies.
    """
    n, total, n_right = len(of), int(of.sum()), int(right.sum())
    if total == 0:
        return Score(0.0, 0.0, 1.0, n)
    share, most = n_right / total, float((of**2).sum()) / total
    effect = most
    if 0 < n_right < total and n > 1:
        squares = float(np.sort((right - share * of) ** 2).sum()) * n / (n - 1)
        effect = min(max(squares / total / (share * (1 - share)), 1.0), most)
    low, high = wilson_ends(share, total / effect)
    return Score(share, min(low, share), max(high, share), n)


def macro_f1(truth: np.ndarray, predicted: np.ndarray) -> Score:
    """Return the mean F1 of the labels that occur or are predicted, bool [B, C] each.

    Wilson's interval, at the number of independent decisions whose variance is the mean's: that of the infinitesimal
    jackknife over rows (Efron 1982), or that of the labels' own rows with four more, two of them right (Agresti and
    Coull 1998), where it is larger. The second keeps labels with few rows, all of them right, from being certain.
    """
    right, involved = (truth & predicted).sum(axis=0), (truth | predicted).sum(axis=0)
    there, n = involved > 0, len(truth)
    if not there.any():
        return Score(0.0, 0.0, 1.0, n)
    right, involved = right[there], involved[there]
    f1 = 2 * right / (right + involved)
    parts = 2 * (truth & predicted)[:, there] - f1 * (truth[:, there].astype(np.int64) + predicted[:, there])
    influence = (parts / (right + involved)).mean(axis=1)
    shares = (right + 2) / (involved + 4)
    own = (2 / (1 + shares) ** 2) ** 2 * shares * (1 - shares) / (involved + 4)
    variance = max(float(np.sort(influence**2).sum()), float(own.sum()) / len(f1) ** 2)
    value, middle = float(f1.mean()), float((2 * shares / (1 + shares)).mean())
    low, high = wilson_ends(value, middle * (1 - middle) / variance)
    return Score(value, min(low, value), max(high, value), n)


def ece(predictions: Predictions) -> Score:
    """Return the expected calibration error: of one label that of `scores.ece`, of several that of their probabilities,
    |mean probability - share that has the label|, averaged over 15 bins of equal width, each weighted by its decisions.

    The interval is made in the same way, its draws those of whole rows.
    """
    if not predictions.has_several:
        return ece_of_one(predictions)
    of_rows = binned_gaps(predictions)
    of_rows = of_rows[np.lexsort(of_rows.T)]  # sums of floats must not depend on the order of the rows
    errors = errors_of(of_rows)
    decisions = hamming(predictions.truth, predictions.predicted)
    return replace(mirrored(of_rows.sum(axis=0), errors, errors, decisions), n=len(of_rows))


def binned_gaps(predictions: Predictions) -> np.ndarray:
    """Return what each row adds to the gaps of the 15 bins, probability minus truth of its decisions, as a share of all
    decisions, float64 [B, 15]: the absolute sums over rows add up to the expected calibration error.

    Of one label a row has one decision, the class that is predicted.
    """
    probs, truth = predictions.probs.astype(np.float64), predictions.truth
    if not predictions.has_several:
        probs, truth = probs.max(axis=1, keepdims=True), predictions.right[:, None]
    bins, n = np.minimum((probs * N_BINS).astype(np.int64), N_BINS - 1), len(probs)
    cells = (np.arange(n)[:, None] * N_BINS + bins).ravel()
    return np.bincount(cells, (probs - truth).ravel(), n * N_BINS).reshape(n, N_BINS) / probs.size


def errors_of(of_rows: np.ndarray) -> np.ndarray:
    """Return 1,000 draws of the errors of sums over rows [B, any], normal with the covariance that the rows show."""
    values, vectors = np.linalg.eigh(of_rows.T @ of_rows)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    return np.random.default_rng(DRAW_SEED).standard_normal((N_DRAWS, of_rows.shape[1])) @ root


def label_scores(predictions: Predictions) -> list[ClassScores]:
    """Return the scores of each label: its rows are independent, so that its intervals are those of a class."""
    truth, predicted = predictions.truth, predictions.predicted
    return classes_of((truth & predicted).sum(axis=0), truth.sum(axis=0), predicted.sum(axis=0))


def together(truth: np.ndarray) -> np.ndarray:
    """Return how many rows have both of two labels, int64 [C, C], of bool [B, C]; the diagonal has a label's rows."""
    counts = truth.astype(np.float64)
    return np.rint(counts.T @ counts).astype(np.int64)

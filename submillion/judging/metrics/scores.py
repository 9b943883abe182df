"""The scores of rows with one label each: accuracy, macro-F1, log loss, calibration; the confusion matrix, each class.

Independent of the rows' order and repeatable to the bit. Log loss, calibration and a class's own scores are also for
rows with several labels. Comparing two runs is left to others. Shapes: B rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from submillion.judging.metrics.predictions import (
    Z_95,
    Predictions,
    Score,
    certainty,
    clustered,
    effective_rows,
    share,
    wilson_ends,
)

N_DRAWS, DRAW_SEED = 1000, 20250
_BLOCK = 1_000_000  # cells of drawn matrices that are in memory at a time
N_BINS = 15  # as in Guo et al. 2017
_N_FORETOLD = 4  # mistakes: of 0, 2 and 4 this covered the truth best in simulations (docs/statements.md)


def scores_of_one(predictions: Predictions) -> dict[str, Score]:
    """Return accuracy, macro_f1, log_loss and ece of rows that have one label each."""
    return {
        "accuracy": share(predictions.right, predictions.groups),
        "macro_f1": macro_f1(confusion(predictions, predictions.probs.shape[1]), matrix_rows(predictions)),
        "log_loss": log_loss(predictions),
        "ece": ece(predictions),
    }


def confusion(predictions: Predictions, n_classes: int) -> np.ndarray:
    """Return the counts int64 [C, C]: row = true class, column = predicted class."""
    cells = predictions.label_ids * n_classes + predictions.predicted
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def matrix_rows(predictions: Predictions) -> float:
    """Return how many independent rows the confusion matrix is worth: by the share that is right, and by macro-F1."""
    if predictions.groups is None:
        return float(len(predictions.probs))
    predicted = predictions.predicted[:, None] == np.arange(predictions.probs.shape[1])
    influences = (predictions.right - predictions.right.mean(), f1_influence(predictions.truth, predicted))
    return min(effective_rows(influence, predictions.groups) for influence in influences)


def macro_f1(counts: np.ndarray, n_independent: float | None = None) -> Score:
    """Return the mean F1 of the classes that occur among labels or predictions, as scikit-learn's default.

    `counts` is a confusion matrix [C, C] · n_independent: the rows that it is worth, None for all. The interval is
    `score_of_draws`'s, of 1,000 draws from the observed matrix's multinomial distribution, which is a bootstrap of the
    rows.
    """
    n_independent = n_independent or float(counts.sum())
    values = [
        mean_f1(rights, trues + n_predicted) for rights, trues, n_predicted in drawn_classes(counts, n_independent)
    ]
    return score_of_draws(np.concatenate(values).tolist(), counts, n_independent)


def score_of_draws(
    values: Sequence[float], counts: np.ndarray, n_independent: float, factor: float = 1.0, least: float = 0.0
) -> Score:
    """Return a score of a confusion matrix [C, C] from its values on `drawn_classes`, the first of which is its own.

    The interval is the middle 95 % of the draws, at least as far from the value as Wilson's of the accuracy, times a
    factor, but not below `least`, the lowest score: matrices drawn from one with few mistakes have too few. With 30
    rows of four classes, 99 % right, macro-F1's draws covered the truth in 21 % of simulations; widened, in all.
    """
    value, *draws = values
    low, high = np.quantile(draws, (0.025, 0.975))
    n = int(counts.sum())
    accuracy = int(np.trace(counts)) / n
    ends = wilson_ends(accuracy, n_independent)
    below, above = (factor * (accuracy - ends[0]), factor * (ends[1] - accuracy))
    low, high = min(float(low), value - below), max(float(high), value + above)
    return Score(value, max(low, least), min(high, 1.0), n)


def drawn_classes(counts: np.ndarray, n_independent: float) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield, some draws at a time, each class's numbers of right, true and predicted rows, float64 [draws, C] each, of
    a confusion matrix [C, C]: unchanged, then drawn 1,000 times from its multinomial distribution, with as many rows as
    it is worth."""
    n, n_classes, (true, predicted) = int(counts.sum()), len(counts), np.nonzero(counts)
    observed, is_right = counts[true, predicted], true == predicted
    generator = np.random.default_rng(DRAW_SEED)
    block = max(1, _BLOCK // len(observed))
    for start in range(0, 1 + N_DRAWS, block):
        n_drawn = min(block, 1 + N_DRAWS - start) - (start == 0)
        drawn = generator.multinomial(max(round(n_independent), 1), observed / n, n_drawn)
        cells = np.concatenate([observed[None], drawn]) if start == 0 else drawn
        of_draw = np.arange(len(cells))[:, None] * n_classes

        def summed(classes: np.ndarray, cells: np.ndarray, of_draw: np.ndarray = of_draw) -> np.ndarray:
            places = (of_draw + classes).ravel()
            return np.bincount(places, cells.ravel(), len(of_draw) * n_classes).reshape(-1, n_classes)

        yield summed(true[is_right], cells[:, is_right]), summed(true, cells), summed(predicted, cells)


def log_loss(predictions: Predictions) -> Score:
    """Return the mean of `row_losses` with its interval, which allows for mistakes that few rows have not shown.

    Rows are right or wrong: the share of wrong rows moves within its Wilson interval, times the cost of a mistake; and
    both kinds spread, by 1.96 standard errors. With many mistakes this is the mean plus or minus 1.96 of its standard
    errors, which alone covered the truth in 53 % of simulations with 30 rows and 99 % right, most without a mistake.
    The cost is the mean of the mistakes that were seen and of four more that cost what `_foretold` says.

    One row alone says nothing about the spread: its interval is all that is possible.
    """
    n, losses, right = len(predictions.label_ids), row_losses(predictions), predictions.right
    value, most = float(np.sort(losses).mean()), float(-np.log(np.finfo(predictions.probs.dtype).eps))
    if n == 1:
        return Score(value, max(value - most, 0.0), min(value + most, most), n)
    of_wrong, of_right = np.sort(losses[~right]), np.sort(losses[right])
    wrong, n_independent = share(~right, predictions.groups), effective_rows(losses - value, predictions.groups)
    worth = n_independent / n
    n_wrong = len(of_wrong) * worth
    cost = (float(of_wrong.sum()) * worth + _N_FORETOLD * _foretold(predictions)) / (n_wrong + _N_FORETOLD)
    # A cost that no row has shown is assumed to spread like an exponential variable.
    squares = float(((of_wrong - cost) ** 2).sum()) * worth + _N_FORETOLD * cost**2
    spread = wrong.value * squares / (n_wrong + _N_FORETOLD) + float(of_right.var() if len(of_right) else 0) * (
        1 - wrong.value
    )
    more = max(cost - float(of_right.mean() if len(of_right) else 0), 0.0)
    below, above = (
        math.hypot(distance * more, Z_95 * math.sqrt(spread / n_independent))
        for distance in (wrong.value - wrong.low, wrong.high - wrong.value)
    )
    return Score(value, max(value - below, 0.0), min(value + above, most), n)


def _foretold(predictions: Predictions) -> float:
    """Return the cost of a mistake by the probabilities alone: the second class's loss, or of several labels the row's
    with its least sure decision reversed. Unsure rows count more, by the square root of 1 - confidence: mistakes are
    mostly theirs, but a model that is too sure makes others too."""
    epsilon = np.finfo(predictions.probs.dtype).eps
    probs = np.clip(predictions.probs, epsilon, 1 - epsilon).astype(np.float64)
    if predictions.has_several:
        sure = np.maximum(probs, 1 - probs)
        first = sure.min(axis=1)
        cost = -np.log(sure).mean(axis=1) + (np.log(first) - np.log1p(-first)) / probs.shape[1]
    else:
        second, first = np.sort(probs, axis=1)[:, -2:].T
        cost = -np.log(second)
    weights = np.sqrt(1 - first)
    return float(np.sort(weights * cost).sum() / np.sort(weights).sum())


def row_losses(predictions: Predictions) -> np.ndarray:
    """Return -log(probability of the true class) of each row, in nats, float64 [B]; of several labels the mean over
    them of -log(probability of what is true of the label).

    Probabilities are kept away from 0 and 1 by their dtype's epsilon, as scikit-learn 1.9 does.
    """
    epsilon = np.finfo(predictions.probs.dtype).eps
    if predictions.has_several:
        probs = np.clip(predictions.probs, epsilon, 1 - epsilon).astype(np.float64)
        return -np.log(np.where(predictions.truth, probs, 1 - probs)).mean(axis=1)
    of_truth = predictions.probs[np.arange(len(predictions.label_ids)), predictions.label_ids]
    return -np.log(np.clip(of_truth, epsilon, 1 - epsilon).astype(np.float64))


def mean_f1(right: np.ndarray, involved: np.ndarray) -> np.ndarray:
    """Return the mean F1 over the last axis, the classes; a class that is not involved has none and is left out.

    It is 0 if none is involved, as in a draw of rows that have, and get, none of several labels.

    right: rows of the class that were predicted as such · involved: rows of the class, and rows predicted as it.
    """
    n_involved = np.maximum(np.sum(involved > 0, axis=-1), 1)
    return np.sum(2 * right / np.maximum(involved, 1), axis=-1) / n_involved


def f1_influence(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return how much each row moves the mean F1 of the classes that are involved, bool [B, C] each, float64 [B]."""
    right, involved = (truth & predicted).sum(axis=0), truth.sum(axis=0) + predicted.sum(axis=0)
    is_involved = involved > 0
    truth, predicted, involved = truth[:, is_involved], predicted[:, is_involved], involved[is_involved]
    parts = 2 * (truth & predicted) - 2 * right[is_involved] / involved * (truth.astype(np.int64) + predicted)
    return (parts / involved).mean(axis=1)


def ece(predictions: Predictions) -> Score:
    """Return the expected calibration error: |confidence - accuracy|, averaged over 15 bins of equal width; of several
    labels |mean probability - share that has the label|, each bin weighted by its decisions.

    The top class's probability is the confidence (Guo et al. 2017, section 2). Chance makes the error look
    larger than it is, and a bootstrap of it larger again by about as much; so the interval is the basic
    bootstrap's (Davison and Hinkley 1997, section 5.2): the draws mirrored at the value, which removes the
    excess. It is widened to hold the value, and starts at 0 if at least 2.5 % of perfectly calibrated models would
    show as much (consistency resampling: Broecker and Smith 2007). Draws are of the bins' sums, as normal variables
    with the Poisson bootstrap's variance; if rows have several labels, or groups, with the covariance of whole
    rows, or groups. Its high end is at least as far off as the accuracy's low end: mistakes that few rows have not
    shown yet would add as much.
    """
    if predictions.has_several or predictions.groups is not None:
        of_units = predictions.summed(binned_gaps(predictions))
        of_units = of_units[np.lexsort(of_units.T)]  # sums of floats must not depend on the order of the rows
        errors = errors_of(of_units, len(predictions.probs))
        return mirrored(of_units.sum(axis=0), errors, errors, hamming(predictions))
    confidence = predictions.probs.max(axis=1).astype(np.float64)
    right = predictions.right
    order = np.lexsort((right, confidence))
    confidence, gaps = confidence[order], (confidence - right)[order]
    bins = np.minimum((confidence * N_BINS).astype(np.int64), N_BINS - 1)
    n = len(gaps)
    sums, squares, noise = (
        np.bincount(bins, weights, N_BINS) / n
        for weights in (gaps, gaps**2 / n, np.maximum(confidence * (1 - confidence), 0) / n)
    )
    normal = np.random.default_rng(DRAW_SEED).standard_normal((N_DRAWS, N_BINS))
    return mirrored(sums, normal * np.sqrt(squares), normal * np.sqrt(noise), share(right))


def mirrored(sums: np.ndarray, errors: np.ndarray, of_calibrated: np.ndarray, accuracy: Score) -> Score:
    """Return the expected calibration error with its interval, as in `ece`.

    sums: of the gaps in each bin, as shares of all decisions, [15] · errors: draws of their errors, [1000, 15] ·
    of_calibrated: draws of the sums that a calibrated model would show, [1000, 15] · accuracy: of the decisions.
    """
    value = float(np.abs(sums).sum())
    drawn, calibrated = (np.abs(draws).sum(axis=1) for draws in (sums + errors, of_calibrated))
    low, high = 2 * value - np.quantile(drawn, (0.975, 0.025))
    if value <= np.quantile(calibrated, 0.975):
        low = 0.0
    high = max(float(high), value + accuracy.value - accuracy.low)
    return Score(value, max(min(float(low), value), 0.0), min(high, 1.0), accuracy.n)


def hamming(predictions: Predictions) -> Score:
    """Return the share of label decisions that are right: 1 minus the Hamming loss; of one label the accuracy."""
    if not predictions.has_several:
        return share(predictions.right, predictions.groups)
    is_right = predictions.truth == predictions.predicted
    right, of = (predictions.summed(decisions.sum(axis=1)) for decisions in (is_right, np.ones_like(is_right)))
    return clustered(right, of, len(is_right))


def binned_gaps(predictions: Predictions) -> np.ndarray:
    """Return what each row adds to the gaps of the 15 bins, probability minus truth of its decisions, as a share of all
    decisions, float64 [B, 15]: the absolute sums over rows add up to the expected calibration error.

    With one label a row has one decision, the predicted class.
    """
    probs, truth = predictions.probs.astype(np.float64), predictions.truth
    if not predictions.has_several:
        probs, truth = probs.max(axis=1, keepdims=True), predictions.right[:, None]
    bins, n = np.minimum((probs * N_BINS).astype(np.int64), N_BINS - 1), len(probs)
    cells = (np.arange(n)[:, None] * N_BINS + bins).ravel()
    return np.bincount(cells, (probs - truth).ravel(), n * N_BINS).reshape(n, N_BINS) / probs.size


def errors_of(of_units: np.ndarray, n_rows: int) -> np.ndarray:
    """Return 1,000 draws of the errors of sums over units, rows or groups of them, [G, any], normal with the covariance
    that the units show, and wider if few groups show it."""
    values, vectors = np.linalg.eigh(of_units.T @ of_units / certainty(n_rows, len(of_units)))
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    return np.random.default_rng(DRAW_SEED).standard_normal((N_DRAWS, of_units.shape[1])) @ root


@dataclass(frozen=True)
class ClassScores:
    """A class: n_true rows of it, n_predicted rows predicted as it, their shares of all rows, and its scores."""

    n_true: int
    n_predicted: int
    true_share: Score
    predicted_share: Score
    precision: Score
    recall: Score
    f1: Score


def class_scores(predictions: Predictions) -> list[ClassScores]:
    """Return the scores of each class, or of each of several labels.

    Precision is a share of the rows predicted as the class, recall of its true rows: each has `share`'s interval. F1 is
    2q / (1 + q), where q is the share of right ones among the rows that are of the class or predicted as it; so the
    ends of q's Wilson interval give F1's (Wilson indirect: Lam, Gopal and Qian 2023, arXiv 2309.14621). A share of no
    rows is 0 as in scikit-learn, its n is 0 and its interval 0 to 1.
    """
    is_predicted = predictions.predicted
    if not predictions.has_several:
        is_predicted = is_predicted[:, None] == np.arange(predictions.probs.shape[1])
    columns = zip(predictions.truth.T, is_predicted.T, strict=True)
    return [_of_class(truth, predicted, predictions.groups) for truth, predicted in columns]


def _of_class(truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray | None) -> ClassScores:
    right = truth & predicted
    precision, recall, both = (share(right, groups, among) for among in (predicted, truth, truth | predicted))
    value, low, high = (2 * q / (1 + q) for q in (both.value, both.low, both.high))
    return ClassScores(
        n_true=int(truth.sum()),
        n_predicted=int(predicted.sum()),
        true_share=share(truth, groups),
        predicted_share=share(predicted, groups),
        precision=precision,
        recall=recall,
        f1=Score(value, low, high, both.n),
    )

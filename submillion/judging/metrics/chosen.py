"""The scores that may choose a checkpoint (`train.metric`): their names, their directions, and the two that are
needed nowhere else, Matthews' correlation and the mean average precision.

Shapes: B rows, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from submillion.config import Metric
from submillion.judging.metrics.calibration import deciding_losses
from submillion.judging.metrics.predictions import Z_95, Predictions, Score, effective_rows, wilson_ends
from submillion.judging.metrics.scores import confusion, drawn_classes, matrix_rows, score_of_draws, scores_of_one
from submillion.judging.metrics.several import scores_of_several

NAMES = {
    "accuracy": "accuracy",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "log_loss": "log loss",
    "scaled_log_loss": "scaled log loss",
    "average_precision": "average precision",
    "mcc": "MCC",
    "hamming": "Hamming accuracy",
    "subset_accuracy": "subset accuracy",
    "ece": "ECE",
}
"""Each score's key in JSON and its name. Scaled log loss is log loss after temperature scaling."""
LOSSES = ("log_loss", "scaled_log_loss")  # lower is better, and there is no upper end


_OF_BOTH: tuple[Metric, ...] = ("macro-f1", "log-loss", "average-precision")
_OF_ONE: tuple[Metric, ...] = ("accuracy", *_OF_BOTH, "mcc")
_OF_SEVERAL: tuple[Metric, ...] = ("micro-f1", *_OF_BOTH, "hamming", "subset-accuracy")


def allowed_metrics(has_several: bool) -> tuple[Metric, ...]:
    """Return the metrics that rows with one label have, or rows with several, first the usual one."""
    return _OF_SEVERAL if has_several else _OF_ONE


def usual_metric(has_several: bool) -> Metric:
    """Return what `train.metric: null` means.

    >>> usual_metric(False), usual_metric(True)
    ('accuracy', 'micro-f1')
    """
    return allowed_metrics(has_several)[0]


def key_of(metric: Metric | None) -> str:
    """Return the key that a setting's score has in JSON; None is accuracy, as if rows have one label.

    >>> key_of("macro-f1")
    'macro_f1'
    """
    return (metric or "accuracy").replace("-", "_")


def deciding_key(metric: Metric) -> str:
    """Return the key of the score by which checkpoints are chosen and comparisons decided; log-loss is the scaled one.

    >>> deciding_key("log-loss"), deciding_key("mcc")
    ('scaled_log_loss', 'mcc')
    """
    return "scaled_log_loss" if metric == "log-loss" else key_of(metric)


def is_better(key: str, value: float, other: float) -> bool:
    """Say whether a score is better than another one: lower for losses, higher for all others."""
    return height(key, value) > height(key, other)


def height(key: str, value: float) -> float:
    """Return the value, negated for losses: more is better."""
    return -value if key in LOSSES else value


def score(predictions: Predictions) -> dict[str, Score]:
    """Return accuracy, macro_f1, log_loss and ece; of several labels micro_f1, macro_f1, average_precision, hamming,
    subset_accuracy, log_loss and ece.

    DataError when there is no row, or when a probability is not a number.
    """
    predictions.refuse_unscorable()
    if not predictions.has_several:
        return scores_of_one(predictions)
    scores = scores_of_several(predictions)
    first = {key: scores.pop(key) for key in ("micro_f1", "macro_f1")}
    return first | {"average_precision": average_precision(predictions)} | scores


def score_by(predictions: Predictions, metric: Metric) -> dict[str, Score]:
    """Return the scores of `score`, first the one that is reported first."""
    scores, key = score(predictions), key_of(metric)
    if key not in scores:
        assert metric in ("average-precision", "mcc"), f"{metric} is no score of these rows"
        of_one = average_precision if metric == "average-precision" else _mcc_of
        scores[key] = of_one(predictions)
    return {key: scores[key]} | scores


def height_by(predictions: Predictions, decide: Metric) -> float:
    """Return the score that decides, negated for losses; log-loss is the scaled one."""
    if decide == "log-loss":
        return -float(np.sort(deciding_losses(predictions)).mean())
    return height(key_of(decide), score_by(predictions, decide)[key_of(decide)].value)


def _mcc_of(predictions: Predictions) -> Score:
    return mcc(confusion(predictions, predictions.probs.shape[1]), matrix_rows(predictions))


def leading(scores: Mapping[str, Score]) -> tuple[str, Score]:
    """Return the score that is reported first, and its key."""
    return next(iter(scores.items()))


def mcc(counts: np.ndarray, n_independent: float | None = None) -> Score:
    """Return Matthews' correlation of a confusion matrix [C, C], -1 to 1 (Gorodkin 2004); 0 if one class is all.
    n_independent: the rows that the matrix is worth, None for all.

    The interval is macro-F1's; of C balanced classes a mistake lowers MCC C / (C - 1) times as much as the accuracy.
    """
    n_independent = n_independent or float(counts.sum())
    values = np.concatenate([correlation(*classes) for classes in drawn_classes(counts, n_independent)])
    return score_of_draws(values.tolist(), counts, n_independent, len(counts) / (len(counts) - 1), least=-1.0)


def correlation(rights: np.ndarray, trues: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return Matthews' correlation over the last axis, the classes: rows that are right, of it, predicted as it."""
    n = trues.sum(axis=-1)
    together = rights.sum(axis=-1) * n - (trues * predicted).sum(axis=-1)
    spread = (n**2 - (trues**2).sum(axis=-1)) * (n**2 - (predicted**2).sum(axis=-1))
    spread = np.maximum(spread, 0)  # shares that sum to 1 but for rounding leave less than 0 of one class alone
    return np.divide(together, np.sqrt(spread), out=np.zeros_like(spread, dtype=np.float64), where=spread > 0)


def average_precision(predictions: Predictions) -> Score:
    """Return the mean over classes of the average precision, one class against the rest; classes without rows are left
    out. Its interval is `_around`'s; 0 in 0 to 1 if no row has any of several labels."""
    truth = predictions.truth
    if not truth.any():
        return Score(0.0, 0.0, 1.0, len(predictions.label_ids))
    value, influence = precision_parts(predictions)
    n_of = truth.sum(axis=0)
    return _around(value, influence, n_of[n_of > 0], predictions.groups)


def precision_parts(predictions: Predictions) -> tuple[float, np.ndarray]:
    """Return the mean average precision and its derivative by each row's weight, float64 [B], which sums to 0.

    Average precision as scikit-learn's: the sum over thresholds of precision times the gain in recall; rows of equal
    probability share a threshold.
    """
    truth = predictions.truth
    label_ids = np.flatnonzero(truth.any(axis=0))
    values, influence = [0.0] * (len(label_ids) == 0), np.zeros(len(truth))
    for label_id in label_ids:
        value, derivative = _one_precision(predictions.probs[:, label_id], truth[:, label_id])
        values.append(value)
        influence += derivative / len(label_ids)
    return float(np.mean(values)), influence


def label_precisions(predictions: Predictions) -> list[Score]:
    """Return each label's average precision, with the interval of `average_precision`; 0 in 0 to 1 without rows."""
    truth, n = predictions.truth, len(predictions.label_ids)
    scores = []
    for label_id in range(truth.shape[1]):
        if not truth[:, label_id].any():
            scores.append(Score(0.0, 0.0, 1.0, n))
            continue
        value, influence = _one_precision(predictions.probs[:, label_id], truth[:, label_id])
        scores.append(_around(value, influence, truth[:, [label_id]].sum(axis=0), predictions.groups))
    return scores


def _around(value: float, influence: np.ndarray, n_of: np.ndarray, groups: np.ndarray | None) -> Score:
    """Return the value plus or minus 1.96 standard errors of the infinitesimal jackknife (Efron 1982), at least as far
    as Wilson's interval at the number of rows with the variance of shares of the classes' own rows, int64 [C], plus
    four, two of them right (Agresti and Coull 1998): if all is in order nothing varies, but nothing is certain."""
    worth = effective_rows(influence, groups) / len(influence)
    half_width = Z_95 * math.sqrt(float((np.sort(influence) ** 2).sum()) / worth)
    n_of = n_of * worth
    shares = (value * n_of + 2) / (n_of + 4)
    middle, variance = float(shares.mean()), float((shares * (1 - shares) / (n_of + 4)).sum()) / len(n_of) ** 2
    low, high = wilson_ends(value, middle * (1 - middle) / variance)
    return Score(value, max(min(value - half_width, low), 0.0), min(max(value + half_width, high), 1.0), len(influence))


def _one_precision(confidence: np.ndarray, is_of_class: np.ndarray) -> tuple[float, np.ndarray]:
    """One class's average precision and its derivative by each row's weight."""
    order = np.argsort(-confidence.astype(np.float64), kind="stable")
    confidence, positive = confidence[order], is_of_class[order].astype(np.float64)
    starts = np.flatnonzero(np.append(True, confidence[1:] != confidence[:-1]))  # of rows that tie
    of_class, n_tied = np.add.reduceat(positive, starts), np.diff(np.append(starts, len(order)))
    n_right, n_above, n = np.cumsum(of_class), np.cumsum(n_tied), positive.sum()
    precision = n_right / n_above
    value = float((of_class * precision).sum() / n)
    # Another positive at a threshold adds its precision and raises that of lower ones; any row there lowers them.
    raised = np.cumsum((of_class / n_above)[::-1])[::-1]
    lowered = np.cumsum((of_class * precision / n_above)[::-1])[::-1]
    group = np.repeat(np.arange(len(starts)), n_tied)
    derivative = np.empty(len(order))
    derivative[order] = (positive * (precision[group] + raised[group] - value) - lowered[group]) / n
    return value, derivative

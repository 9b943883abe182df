"""Whether confidence can be believed: the bins of a reliability diagram, whether it is too high or too low, temperature
scaling and whether it helps, risk and coverage.

The expected calibration error itself is with the other scores. Shapes: B rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy
from scipy import special

from submillion.judging.metrics.predictions import Z_95, Predictions, Score, clustered, effective_rows, share
from submillion.judging.metrics.scores import N_BINS, binned_gaps, errors_of, row_losses

N_FOLDS = 5
_OF_CHANCE = 0.01  # in the probabilities of `tempered`
LossOf = Callable[[np.ndarray, np.ndarray], Callable[[float], float]]
_HOTTEST = np.log(50.0)  # |log T| beyond which no minimum is searched: all rows right, or all of chance


@dataclass(frozen=True)
class Bin:
    """A bin of a reliability diagram: mean confidence of its rows, and the share of them that is right; of several
    labels the mean probability of its decisions, and the share of them whose row has the label."""

    confidence: float
    accuracy: Score


@dataclass(frozen=True, eq=False)
class Scaling:
    """Predictions after temperature scaling, and the temperature of each fold; above 1 the model was too sure."""

    predictions: Predictions
    temperatures: tuple[float, ...]


def reliability(predictions: Predictions) -> list[Bin]:
    """Return the bins of equal width that hold rows, by rising confidence, with `share`'s intervals."""
    if predictions.has_several:
        return _of_decisions(predictions)
    confidence = predictions.probs.max(axis=1).astype(np.float64)
    right = predictions.right
    bins = np.minimum((confidence * N_BINS).astype(np.int64), N_BINS - 1)
    members = [bins == number for number in np.unique(bins)]
    shares = [share(right, predictions.groups, m) for m in members]
    return [Bin(float(np.sort(confidence[m]).mean()), accuracy) for m, accuracy in zip(members, shares, strict=True)]


def _of_decisions(predictions: Predictions) -> list[Bin]:
    """The bins of all label decisions; the interval takes a row's, or a group's, decisions of one bin together."""
    probs, truth = predictions.probs.astype(np.float64), predictions.truth
    bins = np.minimum((probs * N_BINS).astype(np.int64), N_BINS - 1)
    members = [bins == number for number in np.unique(bins)]
    shares = []
    for m in members:
        right, of = (predictions.summed(decisions.sum(axis=1)) for decisions in (m & truth, m))
        shares.append(replace(clustered(right, of, len(probs)), n=int(m.sum())))
    return [Bin(float(np.sort(probs[m]).mean()), accuracy) for m, accuracy in zip(members, shares, strict=True)]


def confidence_gap(predictions: Predictions) -> Score:
    """Return the mean confidence minus the accuracy, -1 to 1, with its 95 % interval; of several labels the labels per
    row that probabilities add up to, minus those that rows have.

    The accuracy's interval is `share`'s. With several labels it is 1.96 standard errors of the rows' mean, or of the
    rows that the probabilities predict, whichever is larger: rows that are all alike show no spread.
    """
    n = len(predictions.probs)
    if not predictions.has_several:
        accuracy = share(predictions.right, predictions.groups)
        confidence = float(np.sort(predictions.probs.max(axis=1).astype(np.float64)).mean())
        return Score(confidence - accuracy.value, confidence - accuracy.high, confidence - accuracy.low, n)
    probs = predictions.probs.astype(np.float64)
    gaps = probs.sum(axis=1) - predictions.truth.sum(axis=1)
    expected = float(np.sort((probs * (1 - probs)).sum(axis=1)).mean())
    value, variance = float(np.sort(gaps).mean()), max(float(np.sort(gaps).var()), expected)
    half_width = Z_95 * np.sqrt(variance / effective_rows(gaps - value, predictions.groups))
    return Score(value, value - half_width, value + half_width, n)


def ece_change(before: Predictions, after: Predictions) -> Score:
    """Return the expected calibration error after minus before, of the same rows in the same order, with its 95 %
    interval: the basic bootstrap of both at once, as in `ece`."""
    both = np.column_stack([binned_gaps(predictions) for predictions in (before, after)])
    both = before.summed(both)
    both = both[np.lexsort(both.T)]
    sums, n_bins = both.sum(axis=0), both.shape[1] // 2
    drawn = np.abs(np.vstack([sums, sums + errors_of(both, len(before.probs))]))
    value, *draws = drawn[:, n_bins:].sum(axis=1) - drawn[:, :n_bins].sum(axis=1)
    low, high = 2 * value - np.quantile(draws, (0.975, 0.025))
    return Score(float(value), min(float(low), float(value)), max(float(high), float(value)), len(before.probs))


def calibrated(predictions: Predictions) -> Scaling:
    """Return the predictions with their logits divided by a temperature T (Guo et al. 2017, section 4.2).

    Cross-fitted: each fifth of the rows gets the T that minimises the log loss of the others, so no row is scaled by
    what was learnt from its own label, or its group's. Folds follow the rows' ids, not their order. Log-probabilities
    serve as logits: they differ by a constant per row; with several labels each one's log-odds are its logit, and one T
    serves all. With fewer rows, or groups, than folds nothing is scaled.
    """
    return _cross_fitted(predictions, _mean_loss)


def _cross_fitted(predictions: Predictions, loss_of: LossOf) -> Scaling:
    ranks = _ranks(predictions)
    if len(ranks) == 0 or ranks.max() < N_FOLDS - 1:
        return Scaling(predictions, ())
    logits = _logits(predictions.probs, predictions.has_several)
    folds, probs, temperatures = ranks % N_FOLDS, np.empty(logits.shape), []
    for fold in range(N_FOLDS):
        held_out = folds == fold
        inverse = _inverse_temperature(loss_of(logits[~held_out], predictions.label_ids[~held_out]))
        probs[held_out] = scaled(predictions.probs[held_out], 1 / inverse, predictions.has_several)
        temperatures.append(1 / inverse)
    return Scaling(replace(predictions, probs=probs, thresholds=None), tuple(temperatures))


def _ranks(predictions: Predictions) -> np.ndarray:
    """Return the places of the rows in the order of their ids, int64 [B]; with groups, the groups' places."""
    keys = predictions.fold_keys
    if predictions.groups is not None:
        places = {key: place for place, key in enumerate(sorted(set(keys)))}
        return np.array([places[key] for key in keys], dtype=np.int64)
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
    return ranks


def tempered(predictions: Predictions) -> Scaling:
    """Return the predictions whose log loss is the scaled one, by which comparisons decide: cross-fitted
    like `calibrated` ones, and mixed with 1 % of chance.

    So no row's loss is above log(100 C), of several labels log(200) for each: else a few wrong labels, of which a model
    is sure, would hide what all other rows say. DataError when a probability is not a number.
    """
    predictions.refuse_unscorable()
    scaling = _cross_fitted(predictions, _mixed_loss)
    mixed = _mixed(scaling.predictions.probs, _n_choices(predictions))
    return replace(scaling, predictions=replace(predictions, probs=mixed, thresholds=None))


def temperature_variance(predictions: Predictions, temperatures: tuple[float, ...]) -> float:
    """Return the variance of the mean scaled log loss that comes from the fitted temperature, by the delete-a-group
    jackknife: each fold's was fitted without one group of the rows (Shao and Tu 1995, section 2.3).

    It is next to nothing, unless a class has a single row. That row decides the temperature, which moves the losses of
    all others the same way; without this, equal runs were told apart too often (docs/log.md).
    """
    has_several, means = predictions.has_several, []
    for temperature in temperatures:
        probs = _mixed(scaled(predictions.probs, temperature, has_several), _n_choices(predictions))
        losses = row_losses(replace(predictions, probs=probs, thresholds=None))
        means.append(float(np.sort(losses).mean()))
    return (len(means) - 1) * float(np.var(means)) if means else 0.0


def _mixed(probs: np.ndarray, n_choices: int) -> np.ndarray:
    """Return probabilities with 1 % of chance over n_choices: the classes, or each of several labels' two outcomes."""
    return (1 - _OF_CHANCE) * probs.astype(np.float64) + _OF_CHANCE * (1 / n_choices)


def _n_choices(predictions: Predictions) -> int:
    return 2 if predictions.has_several else predictions.probs.shape[1]


def _mixed_loss(logits: np.ndarray, label_ids: np.ndarray) -> Callable[[float], float]:
    """Return the mean loss of `tempered` rows as a function of log(1 / T).

    The temperature must minimise the very loss that is tested. With the doubt of `_mean_loss`, or without the mixing,
    it is a little off, its own noise no longer cancels, and equal runs were told apart in 10 % of cases with 50 rows
    and in 6.5 % with 300 instead of 5.
    """
    if label_ids.ndim == 2:
        truth = label_ids.astype(bool)

        def loss_of_several(log_inverse: float) -> float:
            probs = _mixed(special.expit(logits * np.exp(log_inverse)), 2)
            return float(np.sort(-np.log(np.where(truth, probs, 1 - probs)).mean(axis=1)).mean())

        return loss_of_several
    rows, n_classes, largest = np.arange(len(label_ids)), logits.shape[1], logits.max(axis=1, keepdims=True)

    def loss(log_inverse: float) -> float:
        inverse = np.exp(log_inverse)
        # To the bit what `special.softmax` gives the true class: the largest logit is the largest at any temperature.
        raised = np.exp(logits * inverse - largest * inverse)
        probs = _mixed(raised[rows, label_ids] / raised.sum(axis=1), n_classes)
        return float(np.sort(-np.log(probs)).mean())

    return loss


def deciding_losses(predictions: Predictions) -> np.ndarray:
    """Return the scaled log loss of each row, in nats, float64 [B]: `row_losses` of the predictions, `tempered`."""
    return row_losses(tempered(predictions).predictions)


def _logits(probs: np.ndarray, has_several: bool) -> np.ndarray:
    log_probs = safe_log(probs)
    return log_probs - safe_log(1 - probs.astype(np.float64)) if has_several else log_probs


def temperature(predictions: Predictions) -> float:
    """Return the T that minimises the log loss of all rows, between 1/50 and 50: for rows other than these."""
    return 1 / _inverse_temperature(
        _mean_loss(_logits(predictions.probs, predictions.has_several), predictions.label_ids)
    )


def scaled(probs: np.ndarray, temperature: float, has_several: bool = False) -> np.ndarray:
    """Return probabilities [..., C] whose logits are divided by a temperature, float64; several labels each alone."""
    logits = _logits(probs, has_several) / temperature
    return special.expit(logits) if has_several else special.softmax(logits, axis=-1)


def safe_log(probs: np.ndarray) -> np.ndarray:
    """Return the logarithm in float64, finite even if a probability is 0."""
    return np.log(np.maximum(probs.astype(np.float64), np.finfo(np.float64).tiny))


def _inverse_temperature(loss: Callable[[float], float]) -> float:
    """Return the 1 / T that minimises a mean log loss, a function of log(1 / T)."""
    minimum = scipy.optimize.minimize_scalar(loss, bounds=(-_HOTTEST, _HOTTEST), method="bounded")
    return float(np.exp(minimum.x))


def _mean_loss(logits: np.ndarray, label_ids: np.ndarray) -> Callable[[float], float]:
    """Return the mean log loss by log(1 / T), with labels doubted a little: one in n + 2 rows may have any label.

    As in Platt (1999, section 2.2): if all n rows are right, undoubted labels would be fitted best by a confidence of
    1, but n rows support no more than 1 - 1 / (n + 2).
    """
    doubt = 1 / (len(label_ids) + 2)
    if label_ids.ndim == 2:
        wrong_way = np.where(label_ids, -logits, logits)

        def loss_of_several(log_inverse: float) -> float:
            # -log sigmoid of the logit of what is true, the mean over labels of each row; sorted as below.
            heated = wrong_way * np.exp(log_inverse)
            return float(np.sort((np.logaddexp(0, heated) - doubt / 2 * heated).mean(axis=1)).mean())

        return loss_of_several
    below = logits - logits.max(axis=1, keepdims=True)  # so the largest summand is 1, at any temperature
    of_truth = (1 - doubt) * below[np.arange(len(label_ids)), label_ids] + doubt * below.mean(axis=1)

    def loss(log_inverse: float) -> float:
        inverse = np.exp(log_inverse)
        # Sorted, so the order of the rows does not show in the last bits.
        return float(np.sort(np.log(np.exp(below * inverse).sum(axis=1)) - of_truth * inverse).mean())

    return loss


@dataclass(frozen=True)
class RiskCoverage:
    """Rows whose confidence is at least `threshold`: their share of all, and the accuracy on them."""

    threshold: float
    share: float
    accuracy: Score


def risk_coverage(predictions: Predictions, n_points: int = 50) -> list[RiskCoverage]:
    """Return points of the risk-coverage curve, the surest rows first, all rows last (Geifman and El-Yaniv 2017).

    At most n_points, evenly spread over the rows. Rows of equal confidence are taken together: no threshold could
    tell them apart. Intervals are `share`'s, each for its own point, as if its threshold had been chosen before.
    """
    of_row = predictions.probs.max(axis=1).astype(np.float64)
    right, confidence, n = predictions.right, -np.sort(-of_row), len(of_row)
    last_of_equals = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True))
    wanted = np.ceil(np.linspace(n / n_points, n, n_points)).astype(np.int64) - 1
    ends = np.unique(last_of_equals[np.searchsorted(last_of_equals, wanted)])
    accuracies = [share(right, predictions.groups, of_row >= confidence[i]) for i in ends]
    return [
        RiskCoverage(float(confidence[i]), (i + 1) / n, accuracy) for i, accuracy in zip(ends, accuracies, strict=True)
    ]

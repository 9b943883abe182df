"""Choose the rows to label to know the accuracy on a file, and estimate it for all its rows from those labels.

The sample is stratified by calibrated confidence: where errors are likelier, more rows are labelled. The estimate is
prediction-powered (Angelopoulos et al. 2023): the confidence of all rows, fitted to the labelled ones, plus the mean
difference of the labelled rows from it. Random drawing alone makes it right; the quality of the confidence only decides
how wide the interval is. Shapes: N rows of the file, M of them labelled, H strata.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import cast

import numpy as np
import scipy
from scipy import special

from submillion.judging.metrics import Score
from submillion.judging.metrics.predictions import wilson_ends

_ROWS_EACH, _MOST_STRATA = 10, 50  # labelled rows per stratum: with fewer, errors of sure rows are missed
# The least chance of an error assumed for a row when drawing: with 0.02 too few sure rows are drawn, and confident
# errors are missed.
_LEAST_ERROR = 0.08
_PRIOR_ROWS = 2.0  # by which a stratum's share of errors is pulled towards the confidence's
_PRIOR_SD = (1.5, 0.5)  # of the shift and the stretch of all log-odds, before labels are seen
_N_STEPS = 25  # of Newton's method, each at most 1 long
_EPSILON = 1e-4  # least distance of a confidence from 0 and 1
_FEW, _SKIPPED_P = 5, 0.001  # for the test of skipped rows: rows with and without a label that it needs; its level


@dataclass(frozen=True, eq=False)
class Design:
    """How a sample is drawn: each row's stratum, int64 [N], 0 the surest; rows to draw per stratum, int64 [H]."""

    stratum: np.ndarray
    n_drawn: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Return the number of rows in each stratum, int64 [H]."""
        return np.bincount(self.stratum, minlength=len(self.n_drawn))

    def draw(self, seed: int) -> np.ndarray:
        """Return the rows of a sample, int64 [n], in random order: any prefix of it is a sample too."""
        generator = np.random.default_rng(seed)
        drawn = [
            generator.choice(np.flatnonzero(self.stratum == number), n, replace=False)
            for number, n in enumerate(self.n_drawn.tolist())
        ]
        return generator.permutation(np.concatenate(drawn))


def design(confidence: np.ndarray, n: int) -> Design:
    """Return how to draw n rows (1 to N) by their calibrated confidence, float64 [N].

    Strata have equal sums of the rows' standard deviations, sqrt(e (1 - e)) for the chance e of an error, so equal
    numbers of each are nearly Neyman's allocation (Cochran 1977, sections 5.5 and 5A.7).
    """
    spread, order = _spread(confidence), np.argsort(-confidence, kind="stable")
    n_strata = min(max(1, n // _ROWS_EACH), _MOST_STRATA)
    middles = np.cumsum(spread[order]) - spread[order] / 2
    places = np.minimum((middles * n_strata / spread.sum()).astype(np.int64), n_strata - 1)
    stratum = np.empty(len(order), dtype=np.int64)
    stratum[order] = np.unique(places, return_inverse=True)[1]  # empty ones are left out
    return Design(stratum, _allocated(np.bincount(stratum), np.bincount(stratum, spread), n))


def _spread(confidence: np.ndarray) -> np.ndarray:
    errors = np.clip(1 - confidence, _LEAST_ERROR, 1 - _LEAST_ERROR)
    return np.sqrt(errors * (1 - errors))


def _allocated(sizes: np.ndarray, weights: np.ndarray, n: int) -> np.ndarray:
    """Return n rows in proportion to weights, float64 [H], at least one per stratum and no more than it has."""

    def shares(scale: float) -> np.ndarray:
        return np.clip(scale * weights, 1, sizes)

    if n >= sizes.sum():
        return sizes.astype(np.int64)
    most = float((sizes / weights).max())
    exact = shares(cast("float", scipy.optimize.brentq(lambda scale: shares(scale).sum() - n, 0, most)))
    n_drawn = np.floor(exact + 1e-9).astype(np.int64)
    n_drawn[np.argsort(n_drawn - exact, kind="stable")[: n - int(n_drawn.sum())]] += 1
    return n_drawn


def expected_half_width(confidence: np.ndarray, n: int) -> float:
    """Return half the width of the 95 % interval that n labels will give, if the confidences are right."""
    sample = design(confidence, n)
    return _half(_interval(confidence, sample.stratum, sample.n_drawn, 1 - _means(confidence, sample.stratum)))


def plain_half_width(accuracy: float, n: int, n_rows: int) -> float:
    """Return half the width of Wilson's interval for n rows drawn at random from all n_rows."""
    if n >= n_rows:
        return 0.0
    return _half(wilson_ends(accuracy, n / (1 - n / n_rows)))


@dataclass(frozen=True)
class Worth:
    """What n labels are worth: the expected half-width of the accuracy's 95 % interval, if the confidences are right,
    and that of a plain random sample of as many rows."""

    n: int
    half_width: float
    plain_half_width: float


def worth(confidence: np.ndarray, n: int) -> Worth:
    """Return what n labels are worth on rows of these calibrated confidences, float64 [N]."""
    plain = plain_half_width(float(confidence.mean()), n, len(confidence))
    return Worth(n, expected_half_width(confidence, n), plain)


def labels_for(confidence: np.ndarray, half_width: float) -> int:
    """Return the least number of labels whose expected half-width is at most this one."""
    numbers = range(1, len(confidence) + 1)
    return numbers[bisect_left(numbers, True, key=lambda n: expected_half_width(confidence, n) <= half_width)]


def accuracy(confidence: np.ndarray, stratum: np.ndarray, rows: np.ndarray, is_right: np.ndarray) -> Score:
    """Return the accuracy on all N rows with its 95 % interval, from M drawn within strata and labelled.

    confidence: calibrated, float64 [N] · stratum: int64 [N] · rows: int64 [M], the labelled ones · is_right: bool [M].

    The estimate is a sum over strata (Cochran 1977, section 5.3; Fisch et al. 2024): the mean of the fitted confidence
    over all rows plus the labelled rows' mean difference from it. The interval is Wilson's at the size of an equally
    informative plain sample, with Student's quantile. A stratum's few labelled rows often show no variance: its share
    of errors is pulled towards the confidence's, by two rows. Strata without a labelled row are joined to the nearest
    with one.
    """
    stratum = _with_labels(stratum, rows)
    fitted = _fitted(confidence, rows, is_right)
    n_labelled = np.bincount(stratum[rows], minlength=int(stratum.max()) + 1)
    n_wrong = np.bincount(stratum[rows], ~is_right, len(n_labelled))
    differences = np.bincount(stratum[rows], is_right - fitted[rows], len(n_labelled)) / n_labelled
    expected, shares = _means(fitted, stratum), np.bincount(stratum) / len(stratum)
    value = float(np.clip(shares @ (expected + differences), 0.0, 1.0))
    errors = (n_wrong + _PRIOR_ROWS * (1 - expected)) / (n_labelled + _PRIOR_ROWS)
    low, high = _interval(fitted, stratum, n_labelled, errors, value)
    return Score(value, low, high, len(rows))


def skipped_warning(confidence: np.ndarray, is_labelled: np.ndarray) -> list[str]:
    """Return a warning, or none, about rows without a label that differ from those with one; float and bool [n].

    Rows come in random order, so if none is skipped, those labelled first are like the others: a rank-sum test of
    their confidences (Mann and Whitney 1947) tells whether they are.
    """
    labelled, unlabelled = (confidence[rows & np.isfinite(confidence)] for rows in (is_labelled, ~is_labelled))
    if min(len(labelled), len(unlabelled)) < _FEW:
        return []
    p = float(scipy.stats.mannwhitneyu(labelled, unlabelled).pvalue)
    if p > _SKIPPED_P:
        return []
    kind = "surer" if np.median(labelled) > np.median(unlabelled) else "less sure"
    return [
        f"the rows with a label are {kind} than those without (p = {p:.1g}): if rows were skipped because they were "
        "hard, or easy, the accuracy is wrong; label the others too"
    ]


def _interval(
    confidence: np.ndarray, stratum: np.ndarray, n_labelled: np.ndarray, errors: np.ndarray, value: float | None = None
) -> tuple[float, float]:
    """Return Wilson's interval at the effective number of rows. errors: each stratum's share of errors, float64 [H].

    value: the estimate; None: 1 - the overall share of errors.
    """
    sizes, means = np.bincount(stratum), _means(confidence, stratum)
    shares = sizes / len(stratum)
    within = _means(confidence * (1 - confidence), stratum) / (means * (1 - means))  # what confidence leaves open
    variances = errors * (1 - errors) * within * (1 - n_labelled / sizes) / n_labelled
    variance, error = float(shares**2 @ variances), float(shares @ errors)
    value = 1 - error if value is None else value
    quantile = float(special.stdtrit(max(int(n_labelled.sum()) - len(sizes), 1), 0.975))
    return (value, value) if variance == 0 else wilson_ends(value, error * (1 - error) / variance, quantile)


def _fitted(confidence: np.ndarray, rows: np.ndarray, is_right: np.ndarray) -> np.ndarray:
    """Return the confidence of all rows, float64 [N], its log-odds shifted and stretched to fit the labelled rows.

    The posterior mode of a logistic regression with a normal prior centred on no change (Newton's method).
    """
    log_odds = special.logit(np.clip(confidence, _EPSILON, 1 - _EPSILON))
    middle = float(log_odds.mean())
    regressors = np.stack([np.ones_like(log_odds), log_odds - middle], axis=1)
    prior_means, precision = np.array([middle, 1.0]), 1 / np.square(_PRIOR_SD)
    coefficients, labelled = prior_means, regressors[rows]
    for _ in range(_N_STEPS):
        fitted = special.expit(labelled @ coefficients)
        gradient = labelled.T @ (is_right - fitted) - precision * (coefficients - prior_means)
        curvature = labelled.T @ (labelled * (fitted * (1 - fitted))[:, None]) + np.diag(precision)
        step = np.linalg.solve(curvature, gradient)
        coefficients = coefficients + step / max(1.0, float(np.abs(step).max()))
    return special.expit(regressors @ coefficients)


def _with_labels(stratum: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the strata, each without a labelled row joined to the nearest with one, numbered from 0."""
    labelled = np.unique(stratum[rows])
    distances = np.abs(np.arange(int(stratum.max()) + 1)[:, None] - labelled)
    return distances.argmin(axis=1)[stratum]


def _means(values: np.ndarray, stratum: np.ndarray) -> np.ndarray:
    return np.bincount(stratum, values) / np.bincount(stratum)


def _half(ends: tuple[float, float]) -> float:
    return (ends[1] - ends[0]) / 2

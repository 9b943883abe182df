"""How often each class occurs among unlabelled rows, if only the classes' shares have changed since training.

Label shift: texts of a class look as they did, p(x | y) stays, p(y) moves. If texts themselves have changed, these
numbers are wrong without showing it. Shapes: V validation rows, N rows without labels, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from scipy import special

from submillion.judging.metrics import Predictions, confusion, safe_log

_N_STEPS, _TOLERANCE = 500, 1e-6
_RIDGE = 1e-3  # keeps the bias of a class without validation rows finite


@dataclass(frozen=True, eq=False)
class Calibrator:
    """Bias-corrected temperature scaling: log-probabilities times `inverse` plus `biases`, float64 [C]."""

    inverse: float
    biases: np.ndarray

    def __call__(self, probs: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities, float64 [N, C]."""
        return special.softmax(safe_log(probs) * self.inverse + self.biases, axis=1)


def calibrator(validation: Predictions, start: Calibrator | None = None) -> Calibrator:
    """Return the scaling that minimises validation's log loss (Alexandari et al. 2020, section 3.1).

    One temperature, and a bias per class: EM needs the latter, since plain temperature scaling does not change which
    class a classifier favours. Biases are kept near 0 by a ridge of 0.001. The search begins at `start`.
    """
    log_probs, n_classes = safe_log(validation.probs), validation.probs.shape[1]
    truth = np.eye(n_classes)[validation.label_ids]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scaled = special.log_softmax(log_probs * parameters[0] + parameters[1:], axis=1)
        apart = np.exp(scaled) - truth
        value = float(_RIDGE * (parameters[1:] ** 2).sum() - (scaled * truth).sum(axis=1).mean())
        gradient = np.concatenate(
            [[(apart * log_probs).sum(axis=1).mean()], apart.mean(axis=0) + 2 * _RIDGE * parameters[1:]]
        )
        return value, gradient

    first = Calibrator(1.0, np.zeros(n_classes)) if start is None else start
    bounds = [(0.02, 50.0), *[(None, None)] * n_classes]
    minimum = scipy.optimize.minimize(loss, [first.inverse, *first.biases], jac=True, method="L-BFGS-B", bounds=bounds)
    return Calibrator(float(minimum.x[0]), minimum.x[1:])


def bbse(validation: Predictions, predicted: np.ndarray) -> np.ndarray:
    """Return each class's share among rows with these predicted classes, int64 [N], by black-box shift estimation.

    The weights w solve C w = m, where C holds the joint shares of (predicted, true) on validation and m the shares of
    predicted classes here (Lipton, Wang and Smola 2018, section 4). Negative shares are set to 0 and the others scaled
    to sum to 1; the least squares solution is used if C has no inverse. Float64 [C].
    """
    n_classes = validation.probs.shape[1]
    joint = confusion(validation, n_classes).T / len(validation.label_ids)
    shares = np.bincount(predicted, minlength=n_classes) / len(predicted)
    true_shares = np.maximum(np.linalg.lstsq(joint, shares, rcond=1e-6)[0] * joint.sum(axis=0), 0)
    return true_shares / true_shares.sum()


def tells_apart(validation: Predictions, probs: np.ndarray) -> bool:
    """Say whether predictions of classes that validation has could show their shares among rows, [N, C].

    They cannot if validation's confusion matrix is singular, as when one class is always predicted, nor if the rows'
    probabilities are: other shares would then give the same predictions.
    """
    n_classes = validation.probs.shape[1]
    joint = confusion(validation, n_classes)
    present = joint.sum(axis=1) > 0
    ranks = [
        np.linalg.matrix_rank(matrix, rtol=1e-6) for matrix in (joint[present].astype(np.float64), probs.T @ probs)
    ]
    return bool(ranks[0] == present.sum() and ranks[1] >= present.sum())


def em(probs: np.ndarray, priors: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """Return each class's share of largest likelihood (Saerens, Latinne and Decaestecker 2002, section 2.2).

    probs: calibrated probabilities [N, C] · priors: the shares they stand for, each above 0, float64 [C]. The
    likelihood is concave in the shares, so the start affects only the time.
    """
    ratios = probs / priors
    shares = priors if start is None else np.maximum(start, _TOLERANCE) / np.maximum(start, _TOLERANCE).sum()
    for _ in range(_N_STEPS):
        before = shares
        shares = before * (ratios / (ratios @ before)[:, None]).mean(axis=0)
        if np.abs(shares - before).max() < _TOLERANCE:
            break
    return shares / shares.sum()


def corrected(probs: np.ndarray, priors: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return probabilities of other priors: each class times shares / priors, rows scaled to sum to 1 (Saerens et al.
    2002, equation 4). float64 [N, C].

    >>> corrected(np.array([[0.5, 0.5]]), np.array([0.5, 0.5]), np.array([0.8, 0.2])).round(2).tolist()
    [[0.8, 0.2]]
    """
    weighted = probs * (shares / priors)
    return weighted / weighted.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class SharesTest:
    """Whether two sets of predictions have the same shares of classes: the chi-squared test of homogeneity.

    distance: total variation, the share of rows that would have to change class, 0 to 1 · least_expected: the smallest
    expected count of a cell; below 5 the p-value is rough.
    """

    p: float
    distance: float
    least_expected: float


def shares_test(first: np.ndarray, second: np.ndarray, n_classes: int) -> SharesTest:
    """Return the test of two arrays of predicted classes, int64; classes that neither has are left out.

    One model predicts both, so its errors do not pass for a shift (Rabanser, Günnemann and Lipton 2019, BBSDh).
    """
    counts = np.stack([np.bincount(predicted, minlength=n_classes) for predicted in (first, second)])
    distance = float(np.abs(counts[0] / len(first) - counts[1] / len(second)).sum() / 2)
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2:
        return SharesTest(1.0, distance, float(counts.min()))
    test: Any = scipy.stats.chi2_contingency(counts)
    return SharesTest(float(test.pvalue), distance, float(test.expected_freq.min()))

"""What the seeds of other settings say about a setting's: variances moderated by empirical Bayes.

Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression in microarray experiments",
Statistical Applications in Genetics and Molecular Biology 3(1), sections 4 and 6.2.

Three seeds leave two degrees of freedom, which finds little; the settings of a study have many together. K settings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from scipy import special

FEWEST = 3
"""Fewer settings with several seeds borrow nothing: two variances say too little about how far others are apart."""
_LEAST = 1e-6  # of the mean: a smaller variance is one that rounding hides, and its logarithm would say too much


@dataclass(frozen=True)
class Moderated:
    """The variance of a setting's single runs, and the degrees of freedom that it is known with (not always whole)."""

    variance: float
    dof: float


def moderated(variances: Sequence[float], dofs: Sequence[int]) -> list[Moderated]:
    """Return each of K settings' variance, mixed with what all have in common; unchanged for fewer than `FEWEST`.

    Smyth's estimate, made conservative in three ways, so that tied settings whose seeds vary unevenly are told apart in
    at most 5 % of cases (docs/comparison.md has the simulations): the variances are taken as more uneven than they are,
    by one standard error; what they have in common is their mean, not the geometric one; and none is lowered. All, also
    those that stay, get the degrees of freedom of both, at most those of all.
    """
    if len(variances) < FEWEST or not any(variances):
        return [Moderated(variance, dof) for variance, dof in zip(variances, dofs, strict=True)]
    common, prior_dof = float(np.average(variances, weights=dofs)), _prior_dof(variances, dofs)
    moderations = []
    for variance, dof in zip(variances, dofs, strict=True):
        share = 1.0 if math.isinf(prior_dof) else prior_dof / (prior_dof + dof)
        mixed = share * common + (1 - share) * variance
        moderations.append(Moderated(max(mixed, variance), min(prior_dof + dof, float(sum(dofs)))))
    return moderations


def _prior_dof(variances: Sequence[float], dofs: Sequence[int]) -> float:
    """Return how many degrees of freedom what is common is worth, by the moments of the logarithms; infinitely many if
    the variances differ no more than by chance."""
    freedom = np.array(dofs, dtype=np.float64)
    logs = np.log(np.maximum(variances, _LEAST * np.mean(variances)))
    logs += np.log(freedom / 2) - special.digamma(freedom / 2)
    one_error_more = 1 + math.sqrt(2 / (len(logs) - 1))
    excess = float(logs.var(ddof=1)) * one_error_more - float(special.polygamma(1, freedom / 2).mean())
    return 2 * _inverse_trigamma(excess) if excess > 0 else math.inf


def _inverse_trigamma(value: float) -> float:
    """Return the number whose trigamma is `value`, which is positive."""
    # trigamma(x) is between 1 / x + 1 / (2 x^2) and 1 / x + 1 / x^2
    ends = 0.5 / max(math.sqrt(value), 1.0), 1 + 2 / value
    return float(scipy.optimize.root_scalar(lambda x: float(special.polygamma(1, x)) - value, bracket=ends).root)

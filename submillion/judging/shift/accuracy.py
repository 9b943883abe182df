"""How many predictions are right where no labels are: what a model's confidence says of its errors.

No method can be right for every shift (Garg et al. 2022, section 3): each assumes that errors show in the confidence as
they did on validation. Shapes: V validation rows, N rows without labels, C classes.
"""

from __future__ import annotations

import numpy as np


def atc(validation: np.ndarray, is_right: np.ndarray, found: np.ndarray) -> float:
    """Return the accuracy by average thresholded confidence (Garg et al. 2022, section 4).

    validation, found: scores that rise with confidence, [V] and [N] · is_right: bool [V]. The threshold is the one
    below which validation has as many rows as errors; the share of rows that reach it is the estimate.

    >>> atc(np.array([0.3, 0.6, 0.8, 0.9]), np.array([False, True, True, True]), np.array([0.5, 0.7, 0.2, 0.95]))
    0.5
    """
    n_wrong = int((~is_right).sum())
    if n_wrong == len(validation):
        return 0.0
    return float((found >= np.sort(validation)[n_wrong]).mean())


def doc(validation: np.ndarray, is_right: np.ndarray, found: np.ndarray) -> float:
    """Return validation's accuracy less the difference of mean confidences (Guillory et al. 2021, section 3.1).

    validation, found: the likeliest class's probability, [V] and [N] · is_right: bool [V].
    """
    return float(np.clip(is_right.mean() - validation.mean() + found.mean(), 0.0, 1.0))


def negative_entropy(probs: np.ndarray) -> np.ndarray:
    """Return the sum of p log p of each row, [N]: a score that rises with confidence, 0 at most."""
    return (probs * np.log(np.maximum(probs, np.finfo(np.float64).tiny))).sum(axis=1)

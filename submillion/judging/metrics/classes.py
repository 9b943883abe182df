"""What a confusion matrix says of each class: precision, recall and F1 with their intervals. Shapes: C classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from submillion.judging.metrics.scores import Score, wilson


@dataclass(frozen=True)
class ClassScores:
    """A class: n_true rows of it, n_predicted rows predicted as it, and its scores."""

    n_true: int
    n_predicted: int
    precision: Score
    recall: Score
    f1: Score


def class_scores(counts: np.ndarray) -> list[ClassScores]:
    """Return the scores of each class of a confusion matrix, int64 [C, C], rows = true classes.

    Precision is a share of the rows predicted as the class, recall of its true rows: each has Wilson's interval. F1 is
    2q / (1 + q), where q is the share of right ones among the rows that are of the class or predicted as it; so the
    ends of q's Wilson interval give F1's (Wilson indirect: Lam, Gopal and Qian 2023, arXiv 2309.14621). A share of no
    rows is 0 as in scikit-learn, its n is 0 and its interval 0 to 1.
    """
    right, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    return [
        ClassScores(
            n_true=int(t),
            n_predicted=int(p),
            precision=_share(int(r), int(p)),
            recall=_share(int(r), int(t)),
            f1=_f1(r, t, p),
        )
        for r, t, p in zip(right, true, predicted, strict=True)
    ]


def _f1(right: int, true: int, predicted: int) -> Score:
    share = _share(int(right), int(true + predicted - right))
    value, low, high = (2 * q / (1 + q) for q in (share.value, share.low, share.high))
    return Score(value, low, high, share.n)


def _share(n_right: int, n: int) -> Score:
    return wilson(n_right, n) if n else Score(0.0, 0.0, 1.0, 0)

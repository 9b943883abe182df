"""What is gained by answering only what is sure: accuracy of the surest rows (risk and coverage). Shapes: B rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from submillion.judging.metrics.scores import Predictions, Score, wilson


@dataclass(frozen=True)
class Coverage:
    """Rows whose confidence is at least `threshold`: their share of all, and the accuracy on them."""

    threshold: float
    share: float
    accuracy: Score


def coverage(predictions: Predictions, n_points: int = 50) -> list[Coverage]:
    """Return points of the risk-coverage curve, the surest rows first, all rows last (Geifman and El-Yaniv 2017).

    At most n_points, evenly spread over the rows. Rows of equal confidence are taken together: no threshold could
    tell them apart. Intervals are Wilson's, each for its own point, as if its threshold had been chosen before.
    """
    confidence = predictions.probs.max(axis=1).astype(np.float64)
    right = predictions.predicted == predictions.label_ids
    order = np.argsort(-confidence, kind="stable")
    confidence, n_right, n = confidence[order], np.cumsum(right[order]), len(order)
    last_of_equals = np.flatnonzero(np.append(confidence[1:] != confidence[:-1], True))
    wanted = np.ceil(np.linspace(n / n_points, n, n_points)).astype(np.int64) - 1
    ends = np.unique(last_of_equals[np.searchsorted(last_of_equals, wanted)])
    return [Coverage(float(confidence[i]), (i + 1) / n, wilson(int(n_right[i]), int(i) + 1)) for i in ends]

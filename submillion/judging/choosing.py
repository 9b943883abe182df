"""Which rows to label for a run to learn most from: those it is least sure of, as different from each other as can be.

Margin and diversity: of the rows with the smallest margins the centres of weighted clusters (Zhdanov 2019; Citovsky et
al. 2021 take margins and clusters at scale). docs/ask.md says what it was worth. Shapes: N rows, C classes, D features.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

_CANDIDATES = 10  # for each row that is asked for, of those with the smallest margins


def margins(probs: np.ndarray) -> np.ndarray:
    """Return how far the likeliest class is from the second, 0 to 1, float64 [N], by probabilities [N, C]."""
    top = np.partition(probs, -2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]


def candidates(margins: np.ndarray, n: int) -> np.ndarray:
    """Return the rows that n are chosen from, int64 [at most 10 n]: those with the smallest margins, in their order."""
    return np.argsort(margins, kind="stable")[: _CANDIDATES * n]


def spread_out(features: np.ndarray, margins: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return n of the candidates, int64 [n], far from each other: the nearest to the centre of each of n clusters.

    features: float [M, D], of which the direction counts · margins: float64 [M]; unsure rows draw the centres. Where
    rows are so alike that there are fewer clusters, the least sure of the others follow.
    """
    from sklearn.cluster import KMeans

    if len(margins) <= n:
        return np.arange(len(margins))
    directions = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    clusters: Any = KMeans(n, n_init="auto", random_state=seed)  # one start: k-means++; its results are untyped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer different rows than clusters
        distances = clusters.fit_transform(directions, sample_weight=1 - margins + 1e-6)
    own = distances[np.arange(len(margins)), clusters.labels_]
    by_distance = np.lexsort((own, clusters.labels_))
    nearest = by_distance[np.unique(clusters.labels_[by_distance], return_index=True)[1]]
    others = np.setdiff1d(np.argsort(margins, kind="stable"), nearest, assume_unique=True)
    return np.concatenate([nearest, others[np.argsort(margins[others], kind="stable")][: n - len(nearest)]])

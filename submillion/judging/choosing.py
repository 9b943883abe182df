"""Choose the rows to label that teach a run most: those it is least sure of, as different from each other as possible.

Margin and diversity: the centres of weighted clusters of the rows with the smallest margins (Zhdanov 2019; Citovsky et
al. 2021 use margins and clusters at scale). docs/ask.md has the gain. Shapes: N rows, C classes, D features.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

_CANDIDATES = 10  # with the smallest margins, per row to label


def margins(probs: np.ndarray) -> np.ndarray:
    """Return the likeliest class's lead over the second, 0 to 1, float64 [N], from probabilities [N, C]."""
    top = np.partition(probs, -2, axis=1)[:, -2:]
    return top[:, 1] - top[:, 0]


def candidates(margins: np.ndarray, n: int) -> np.ndarray:
    """Return the rows to choose n from, int64 [at most 10 n]: those with the smallest margins, smallest first."""
    return np.argsort(margins, kind="stable")[: _CANDIDATES * n]


def spread_out(features: np.ndarray, margins: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Return n of the candidates, int64 [n], far from each other: the nearest to the centre of each of n clusters.

    features: float [M, D], only their direction counts · margins: float64 [M]; unsure rows pull the centres. If rows
    are so alike that there are fewer clusters, the least sure of the others follow.
    """
    from sklearn.cluster import KMeans

    if len(margins) <= n:
        return np.arange(len(margins))
    directions = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    clusters: Any = KMeans(n, n_init="auto", random_state=seed)  # one start: k-means++; its results are untyped
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer different rows than clusters
        distances = clusters.fit_transform(directions, sample_weight=1 - margins + 1e-6)
    own_distances = distances[np.arange(len(margins)), clusters.labels_]
    by_distance = np.lexsort((own_distances, clusters.labels_))
    nearest = by_distance[np.unique(clusters.labels_[by_distance], return_index=True)[1]]
    others = np.setdiff1d(np.argsort(margins, kind="stable"), nearest, assume_unique=True)
    return np.concatenate([nearest, others[np.argsort(margins[others], kind="stable")][: n - len(nearest)]])

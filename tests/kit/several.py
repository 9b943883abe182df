"""Rows with several labels, drawn: labels of a row that go together, probabilities that a model might give."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from submillion.judging.metrics import Predictions


def drawn(
    seed: int,
    n_rows: int,
    n_labels: int = 6,
    noise: float = 1.0,
    together: float = 1.0,
    heat: float = 1.0,
    rarity: float = 2.0,
) -> Predictions:
    """Return predictions whose probabilities are calibrated at heat 1 (but for the noise): a label is true with the
    sigmoid of a row's own part, what all its labels share, and how rare the label is.

    noise: of the model's logits, a standard deviation · together: of what a row's labels share · heat: what logits are
    multiplied by · rarity: the logit of the rarest label, negative; the commonest has 0.
    """
    rng = np.random.default_rng(seed)
    rates = -np.linspace(0, rarity, n_labels)
    logits = rates + together * rng.normal(0, 1, (n_rows, 1)) + rng.normal(0, 1.5, (n_rows, n_labels))
    truth = (rng.random((n_rows, n_labels)) < expit(logits)).astype(np.int64)
    probs = expit(heat * (logits + noise * rng.normal(0, 1, logits.shape)))
    return Predictions([f"row {i}" for i in range(n_rows)], truth, probs)


def pair(seed: int, n_rows: int, n_labels: int = 6, noises: tuple[float, float] = (1.0, 1.0)) -> list[Predictions]:
    """Return two runs' predictions of the same rows: each has errors of its own of that size."""
    rng = np.random.default_rng(seed)
    logits = -np.linspace(0, 2, n_labels) + rng.normal(0, 1, (n_rows, 1)) + rng.normal(0, 1.5, (n_rows, n_labels))
    truth = (rng.random((n_rows, n_labels)) < expit(logits)).astype(np.int64)
    ids = [f"row {i}" for i in range(n_rows)]
    return [Predictions(ids, truth, expit(logits + noise * rng.normal(0, 1, logits.shape))) for noise in noises]

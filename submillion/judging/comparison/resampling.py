"""The paired bootstrap: the metrics of runs on the same resampled rows (Efron and Tibshirani 1993, chapter 8).

Owns the draws, which depend on the number of rows alone, so that all runs share them and every comparison can be
repeated to the bit. What a difference is worth is left to `seeds`. Shapes: B rows, C classes, S seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from submillion.judging.metrics import Predictions, mean_f1, row_losses

METRICS = ("accuracy", "macro_f1", "log_loss")

_N_DRAWS, _DRAW_SEED = 1000, 20251
_BLOCK = 100  # draws that are floats at a time


@dataclass(frozen=True, eq=False)
class Resampled:
    """A metric of a setting's runs: values [S] on the rows as they are, draws [S, 1000] on resampled ones."""

    values: np.ndarray
    draws: np.ndarray


def resample(predictions: Sequence[Predictions]) -> dict[str, Resampled]:
    """Return each metric of the runs of one setting, all on the same rows in the same order."""
    found = [_metrics(run) for run in predictions]
    stacked = {metric: np.stack([values[metric] for values in found]) for metric in METRICS}
    return {metric: Resampled(values[:, 0], values[:, 1:]) for metric, values in stacked.items()}


@lru_cache(maxsize=1)
def weights(n_rows: int) -> np.ndarray:
    """Return how often each draw takes each row, uint8 [1 + 1000, B]; the first takes each row once."""
    generator = np.random.default_rng(_DRAW_SEED)
    counts = np.ones((1 + _N_DRAWS, n_rows), dtype=np.uint8)
    for draw in counts[1:]:
        draw[:] = np.bincount(generator.integers(0, n_rows, n_rows), minlength=n_rows)
    return counts


def _metrics(predictions: Predictions) -> dict[str, np.ndarray]:
    """The metrics of one run, [1 + 1000] each. All follow from weighted sums over rows."""
    n, n_classes = predictions.probs.shape
    classes = np.arange(n_classes)
    true, predicted = predictions.label_ids[:, None] == classes, predictions.predicted[:, None] == classes
    right = true & predicted
    columns = np.column_stack([row_losses(predictions), right, true.astype(np.float64) + predicted])
    blocks = np.array_split(weights(n), 1 + _N_DRAWS // _BLOCK)
    sums = np.concatenate([block.astype(np.float64) @ columns for block in blocks])
    rights, involved = sums[:, 1 : 1 + n_classes], sums[:, 1 + n_classes :]
    return {"accuracy": rights.sum(axis=1) / n, "macro_f1": mean_f1(rights, involved), "log_loss": sums[:, 0] / n}

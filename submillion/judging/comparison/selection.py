"""The best score without the luck of having been chosen: the choice is made again on rows that are drawn anew, and
scored on those that were not drawn.

Tsamardinos, Greasidou and Borboudakis 2018, "Bootstrapping the out-of-sample predictions for efficient and accurate
cross-validation", Machine Learning 107 (BBC-CV). Shapes: B rows, K evaluations of a run.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from submillion.judging.comparison.bootstrap import weights
from submillion.judging.metrics import Score, wilson_ends

_BLOCK = 2**24  # draws times rows that are worked on at once: 64 MiB of each of two matrices


def corrected(settings: Sequence[Sequence[np.ndarray]]) -> Score:
    """Return the accuracy of the best setting's chosen checkpoints, corrected for both choices, with its 95 % interval.

    settings: of each its runs, of each run which rows its evaluations had right, bool [K, B]. A run's checkpoint is the
    best of its evaluations; the best setting has the best mean over its runs. Both are chosen on 1,000 draws of rows,
    and scored on the third of the rows that a draw leaves out. The interval is Wilson's of all rows.
    """
    n_rows = settings[0][0].shape[1]
    drawn = weights(n_rows)[1:]
    floats = [[run.astype(np.float32) for run in runs] for runs in settings]
    blocks = np.array_split(drawn, -(-drawn.size // _BLOCK))
    value = float(np.concatenate([_left_out(block, floats) for block in blocks]).mean())
    return Score(value, *wilson_ends(value, n_rows), n_rows)


def _left_out(drawn: np.ndarray, settings: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """The score of what each draw chooses, on the rows that the draw leaves out; drawn: how often each takes a row."""
    inside, outside = drawn.astype(np.float32), (drawn == 0).astype(np.float32)
    outside /= np.maximum(outside.sum(axis=1, keepdims=True), 1)
    scores = [_chosen([(inside @ run.T, outside @ run.T) for run in runs]) for runs in settings]
    on_drawn, on_others = (np.stack(each, axis=1) for each in zip(*scores, strict=True))
    return _at(on_others, on_drawn.argmax(axis=1))


def _chosen(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean over runs of their chosen checkpoints' scores, on drawn rows and on the others, [1000] each; of each
    run these are given for all evaluations, [1000, K]."""
    choices = [inside.argmax(axis=1) for inside, _ in runs]
    of_runs = [[_at(side, choice) for side in run] for run, choice in zip(runs, choices, strict=True)]
    on_drawn, on_others = (np.mean(each, axis=0) for each in zip(*of_runs, strict=True))
    return on_drawn, on_others


def _at(values: np.ndarray, choice: np.ndarray) -> np.ndarray:
    return values[np.arange(len(values)), choice]

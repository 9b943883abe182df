"""The best score without the luck of having been chosen: the choice is repeated on resampled rows, and scored on those
that were not drawn.

Tsamardinos, Greasidou and Borboudakis 2018, "Bootstrapping the out-of-sample predictions for efficient and accurate
cross-validation", Machine Learning 107 (BBC-CV). Shapes: B rows, K evaluations of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from submillion.judging.comparison.bootstrap import weights
from submillion.judging.comparison.paired import FEWEST_GROUPS, LEVEL, mcnemar
from submillion.judging.metrics import Z_95, Score, effective_rows, wilson_ends

_BLOCK = 2**24  # draws times rows that are worked on at once: 64 MiB of each of two matrices


@dataclass(frozen=True, eq=False)
class Noted:
    """What the evaluations of a run noted of each row, float32 [K, B] each; more is better.

    right: 1 if the row was right · chose: its mean chose the checkpoint · decides: its mean compares settings ·
    is_guarded: the choice was `is_better_checkpoint`'s.
    """

    right: np.ndarray
    chose: np.ndarray
    decides: np.ndarray
    is_guarded: bool = False

    def rows(self, places: np.ndarray) -> Noted:
        """Return the rows at these places, in their order."""
        return Noted(self.right[:, places], self.chose[:, places], self.decides[:, places], self.is_guarded)

    def allowed(self, shares: np.ndarray) -> np.ndarray:
        """Return which evaluations, by their shares of right rows on some draws [D, K], cannot be told from the most
        accurate one: by the normal approximation of McNemar's test, with the discordance of all rows."""
        best = shares.argmax(axis=1)
        n_right, n_rows = self.right.sum(axis=1), self.right.shape[1]
        discordant = n_right[:, None] + n_right - 2 * self.right @ self.right.T
        apart = (_at(shares, best)[:, None] - shares) * n_rows
        return apart <= Z_95 * np.sqrt(discordant[best])


def is_better_checkpoint(
    right: np.ndarray, best_right: np.ndarray, is_lower: bool, groups: np.ndarray | None = None
) -> bool:
    """Say whether a checkpoint replaces the best so far: one with a lower scaled log loss does, unless
    accuracy's own test tells the two apart, which then decides.

    right, best_right: which rows are right, bool [B] · is_lower: its loss is · groups: of rows that are not
    independent, int64 [B]. Log loss alone chose checkpoints that were 1.5 to 10 points less accurate than others of the
    run in four of thirty trainings (benchmarks/rows.py).
    """
    test = mcnemar(right, best_right, groups)
    return test.value > 0 if test.p <= LEVEL else is_lower


def corrected(settings: Sequence[Sequence[Noted]], groups: np.ndarray | None = None) -> Score | None:
    """Return the accuracy of the best setting's chosen checkpoints, corrected for both choices, with its 95 % interval.

    settings: the runs of each. A run's checkpoint is the best of its evaluations; the best setting has the best mean
    over its runs. Both are chosen on 1,000 draws of rows, and scored on the third of the rows that a draw leaves out.
    The interval is Wilson's of all rows. groups: int64 [B] from 0, of rows that are not independent of each other, and
    are drawn together. None if these are fewer than 6: most draws would leave out none.
    """
    if groups is not None and groups.max() + 1 < FEWEST_GROUPS:
        return None
    n_rows = settings[0][0].right.shape[1]
    drawn = weights(n_rows)[1:] if groups is None else weights(int(groups.max()) + 1)[1:, groups]
    blocks = np.array_split(drawn, -(-drawn.size // _BLOCK))
    value = float(np.nanmean(np.concatenate([_left_out(block, settings) for block in blocks])))
    best = max(settings, key=lambda runs: sum(float(run.decides.mean(axis=1).max()) for run in runs) / len(runs))[0]
    right = best.right[best.chose.mean(axis=1).argmax()].astype(np.float64)
    n_independent = effective_rows(right - right.mean(), groups)
    return Score(value, *wilson_ends(value, n_independent), n_rows)


def _left_out(drawn: np.ndarray, settings: Sequence[Sequence[Noted]]) -> np.ndarray:
    """Return the score of each draw's choice on the rows that the draw leaves out, NaN if it leaves out none, as some
    do with few groups; drawn: how often each takes a row."""
    inside, outside = drawn.astype(np.float32), (drawn == 0).astype(np.float32)
    n_outside = outside.sum(axis=1, keepdims=True)
    outside /= np.where(n_outside > 0, n_outside, np.nan)
    scores = [np.mean([_chosen(inside, outside, run) for run in runs], axis=0) for runs in settings]
    decides, right = np.stack(scores, axis=-1)
    return _at(right, decides.argmax(axis=1))


def _chosen(inside: np.ndarray, outside: np.ndarray, run: Noted) -> tuple[np.ndarray, np.ndarray]:
    """Return the chosen checkpoint's deciding score on the drawn rows, and its accuracy on the others, [1000] each."""
    heights = inside @ run.chose.T
    if run.is_guarded:
        heights = np.where(run.allowed(inside @ run.right.T / run.right.shape[1]), heights, -np.inf)
    choice = heights.argmax(axis=1)
    return _at(inside @ run.decides.T, choice), _at(outside @ run.right.T, choice)


def _at(values: np.ndarray, choice: np.ndarray) -> np.ndarray:
    return values[np.arange(len(values)), choice]

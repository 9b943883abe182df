"""The paired test that may stop at any row: is a trial worse than the best so far?

An e-process on discordant rows (Ramdas et al. 2023, "Game-theoretic statistics and safe anytime-valid inference",
Statistical Science 38): a bet that the trial loses them, whose capital grows beyond 1 / level with a chance of at
most level if the trial is not worse, however often one looks (Ville 1939).
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special

from submillion.judging.comparison.paired import LEVEL


def log_evidence(n_lost: int, n_won: int) -> float:
    """Return the natural logarithm of the evidence that the trial is worse; 0 before the first discordant row.

    n_lost: rows that the best so far has right and the trial wrong · n_won: the other way round. The evidence is the
    likelihood ratio of a uniform mixture over all chances of losing above 1/2, against 1/2. In closed form, with
    n = n_lost + n_won + 1: the beta function of n_lost + 1 and n_won + 1, times the sum of n over k for k <= n_lost.

    >>> round(log_evidence(20, 4), 2)
    4.84
    """
    n, k = n_lost + n_won + 1, np.arange(n_lost + 1)
    log_binomials = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return float(special.betaln(n_lost + 1, n_won + 1) + special.logsumexp(log_binomials))


def is_ruled_out(best_right: np.ndarray, trial_right: np.ndarray, n_checkpoints: int = 1, level: float = LEVEL) -> bool:
    """Say whether a trial is worse than the best so far, both at the same step; bool [B] are rows each has right.

    A trial that is as good or better is ruled out with a chance of at most `level` in all. One checkpoint may be
    looked at again whenever more of its rows are known. Several checkpoints on the same rows are no independent bets:
    give their number, and each gets an equal share of the level.
    """
    n_lost, n_won = int((best_right & ~trial_right).sum()), int((trial_right & ~best_right).sum())
    return log_evidence(n_lost, n_won) >= math.log(n_checkpoints / level)

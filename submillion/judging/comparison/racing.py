"""Which trials of a race can no longer win: a test of their rows' losses part of the way through their schedules.

A trial is dropped if it will end behind another one even if it keeps gaining at its present pace, and the rows cannot
have made that by chance, however many trials there are and at however many rungs one looks. Shapes: B validation
rows, the same for all trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from submillion.judging.comparison.paired import LEVEL

EVALUATE_EVERY = 1 / 16  # of a trial's steps: rungs, and the shares they look back at, are multiples of it
RUNGS = (1 / 4, 1 / 2, 3 / 4)  # shares of its steps after which a trial may be dropped
SHARES = tuple(sorted({at for rung in RUNGS for at in (rung, rung / 2, rung**2)}))  # at which losses are read
MIN_ROWS = 100  # with fewer, next to nothing can be said
_BETS = 0.9 * 0.5 ** np.arange(6)  # shares of the most that a row can cost
# A loss falls like a power of the steps: a trial is granted the least exponent, which is the same gain for each
# doubling; its rival is only trusted to flatten like one over the steps. Both were chosen by simulation
# (benchmarks/racing.py), and after a look at real courses: they drop the best in at most 5 % of races.
_OWN_EXPONENT, _RIVAL_EXPONENT = 0.0, 1.0
# benchmarks/racing.py, the family "rates": the mean cost, and what 90 % of races lie between, by rows and by trials.
_ROWS, _TRIALS = (300, 1000, 5000), (2, 8, 32)
_COSTS = (
    ((0.961, 0.744, 1.0), (0.927, 0.719, 1.0), (0.951, 0.857, 1.0)),
    ((0.966, 0.869, 1.0), (0.91, 0.688, 1.0), (0.859, 0.645, 1.0)),
    ((0.904, 0.625, 1.0), (0.819, 0.562, 1.0), (0.791, 0.663, 0.946)),
)


@dataclass(frozen=True)
class Course:
    """How a trial went so far: share of its steps → its rows' losses then, float [B], of at least 0; and the share
    after which its learning rate no longer rises."""

    losses: Mapping[float, np.ndarray]
    warmup: float = 0.0


@dataclass(frozen=True)
class Behind:
    """Why a trial is dropped: the number of the rival with the strongest evidence, by how much mean loss it is behind
    that one, and how much of it their present paces would make good by the end."""

    rival: int
    gap: float
    gain: float


@dataclass(frozen=True)
class Cost:
    """The share of a grid's steps that a race is expected to train, and what nine of ten simulated ones lie between."""

    value: float
    low: float
    high: float


def expected_cost(n_trials: int, n_rows: int) -> Cost:
    """Return what a race of so many trials on so many validation rows costs, by simulation.

    >>> expected_cost(16, 1000).value < expected_cost(4, 1000).value
    True
    """
    of_trials = [
        [np.interp(math.log(max(1, n_trials)), np.log(_TRIALS), costs) for costs in zip(*by_trials, strict=True)]
        for by_trials in _COSTS
    ]
    return Cost(*(float(np.interp(math.log(n_rows), np.log(_ROWS), costs)) for costs in zip(*of_trials, strict=True)))


def dropped(courses: Mapping[int, Course], rung: float, n_trials: int, most: float) -> dict[int, Behind]:
    """Return the trials that can no longer win, by number, from the courses of all that were trained up to a rung.

    n_trials: that began the race · most: an upper bound of every loss. No trial is dropped while its last doubling was
    in its warm-up. Each bet of the trial that ends best against another one is expected to lose, and so is the mean of
    these bets: it is dropped at any rung with a chance of at most `LEVEL`, unless its pace grows. Which trial leads was
    picked by its losses; the mean over all of them pays for that.
    """
    means = {number: _means(course, rung) for number, course in courses.items()}
    ranked = sorted(means, key=lambda number: (means[number][rung], number))
    threshold = math.log(len(RUNGS) * max(1, n_trials - 1) / LEVEL)
    drops: dict[int, Behind] = {}
    for place, number in enumerate(ranked):
        if rung / 2 < courses[number].warmup:
            continue
        evidence: dict[int, float] = {}
        for rival in ranked[:place]:
            behind = _behind(means[number], means[rival], rival, rung)
            best = min(means[number].values())
            if behind.gain >= behind.gap or best <= means[rival][rung] or means[number][rung] <= means[rival][rung**2]:
                continue  # a capital of at most 1, by Jensen's inequality
            evidence[rival] = _log_evidence(courses[number], courses[rival], rung, most)
            if special.logsumexp([*evidence.values()]) >= threshold:
                most_telling = max(evidence, key=evidence.__getitem__)
                drops[number] = _behind(means[number], means[most_telling], most_telling, rung)
                break
    return drops


def log_capital(excess: np.ndarray, most: float) -> float:
    """Return the natural logarithm of the evidence that the mean of `excess`, float [B], is above 0.

    It is the capital of bets on that (Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by
    betting", Journal of the Royal Statistical Society B 86), which starts at 1: a mean over bets of several sizes, each
    the same for all rows, so their order does not matter. If the mean is at most 0 and no row is below -most,
    the capital is expected to be at most 1, whatever the distribution; it is 1 / level or more with a chance of at most
    level (Markov's inequality). Rows need be neither normal nor many.

    >>> round(log_capital(np.array([0.4, 0.6, -0.1, 0.5] * 30), most=1.0), 1)
    28.7
    """
    bets = (_BETS / most).astype(excess.dtype)
    capitals = np.log1p(bets[:, None] * excess).sum(axis=1, dtype=np.float64)
    return float(np.logaddexp.reduce(capitals)) - math.log(len(_BETS))


def gain_left(share: float, exponent: float) -> float:
    """Return how many times a trial's last gain, of the doubling up to a share of its steps, is still to come by its
    end, if its loss falls like steps ** -exponent; 0 is the limit: the same gain for each doubling.

    >>> gain_left(1 / 4, 0), round(gain_left(1 / 4, 0.5), 2)
    (2.0, 1.21)
    """
    return math.log2(1 / share) if exponent == 0 else (1 - share**exponent) / (2**exponent - 1)


def _log_evidence(trial: Course, rival: Course, rung: float, most: float) -> float:
    """Return the evidence that a trial will end behind a rival: the least over all that it may end with, which is what
    its pace leads to, what its rival's progress would, or any checkpoint so far, as the best one is kept."""
    own_gain, rival_gain = gain_left(rung, _OWN_EXPONENT), gain_left(rung, _RIVAL_EXPONENT)
    now, before = trial.losses[rung], trial.losses[rung / 2]
    rival_now, rival_before = rival.losses[rung], rival.losses[rung / 2]
    # Row by row, so the test includes what chance does to the paces.
    at_pace = (1 + own_gain) * now - own_gain * before - (1 + rival_gain) * rival_now + rival_gain * rival_before
    evidence = log_capital(at_pace, (1 + own_gain + rival_gain) * most)
    if evidence <= 0:
        return -math.inf  # as good as nothing, and the rest does not matter
    # The rival came here from rung² by as many doublings as are left: a trial that is not behind its loss then may be
    # late, and fall as it did, whatever its pace is on the plateau before.
    as_rival = log_capital(now - rival.losses[rung**2], most)
    kept = (log_capital(losses - rival_now, most) for at, losses in trial.losses.items() if at <= rung)
    return min(evidence, as_rival, *kept)


def _means(course: Course, rung: float) -> dict[float, float]:
    return {share: float(losses.mean()) for share, losses in course.losses.items() if share <= rung}


def _behind(means: Mapping[float, float], of_rival: Mapping[float, float], rival: int, rung: float) -> Behind:
    own_gain, rival_gain = gain_left(rung, _OWN_EXPONENT), gain_left(rung, _RIVAL_EXPONENT)
    gain = own_gain * (means[rung / 2] - means[rung]) - rival_gain * (of_rival[rung / 2] - of_rival[rung])
    return Behind(rival, means[rung] - of_rival[rung], max(0.0, gain))

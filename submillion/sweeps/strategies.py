"""Which candidates come next: one generator per kind of study, which yields batches and is sent their results.

Owns the order, the winners that are fixed, and the rank correlation of short and full trials. Nothing is run or
stored here; data flows one way, from a `Ranking` to the next `Batch`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

import numpy as np
import scipy

from submillion.errors import RunError
from submillion.judging.comparison import RUNGS
from submillion.judging.metrics import Z_95
from submillion.runs.study import RankCorrelation
from submillion.sweeps.space import Factor, Study, options
from submillion.sweeps.trials import Candidate, for_stage


@dataclass(frozen=True)
class Batch:
    """Candidates that may be run in any order, at the same time; `notes` are earlier conclusions, `fixed` the choice
    that won the previous factor; `settles` says whether a tie among them is worth more seeds; `rungs` are the shares
    of their schedules at which those that can no longer win are dropped."""

    stage: str
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()
    fixed: str | None = None
    settles: bool = True
    rungs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Ranking:
    """A batch's result: the candidates that finished, with the score that decides, the best (highest) first.

    group: those that cannot be told from the best · recommended: the cheapest of them. All empty, or None, if
    nothing finished.
    """

    ranked: tuple[tuple[Candidate, float], ...]
    group: tuple[Candidate, ...]
    recommended: Candidate | None


@dataclass(frozen=True)
class Ending:
    """What a study ends with: the candidates whose runs are compared, the last conclusions; `fixed` and `settles` as
    in `Batch`."""

    contenders: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()
    correlation: RankCorrelation | None = None
    fixed: str | None = None
    settles: bool = False


Strategy = Generator[Batch, Ranking, Ending]
Propose = Callable[[int], tuple[Candidate, ...]]


def strategy(study: Study, propose: Propose) -> Strategy:
    """Return the generator of a study; `propose(n)` gives the next n drawn candidates, fewer at the end."""
    match study.kind:
        case "grid":
            return _grid(study)
        case "race":
            return _grid(study, RUNGS)
        case "one-factor":
            return _one_factor(study)
        case "two-stage":
            return _two_stage(study)
        case "random" | "tpe":
            return _drawn(propose)


def _grid(study: Study, rungs: tuple[float, ...] = ()) -> Strategy:
    candidates = _combinations(study, study.kind)
    yield Batch(study.kind, candidates, rungs=rungs)
    return Ending(candidates)


def _combinations(study: Study, stage: str) -> tuple[Candidate, ...]:
    """Every combination of the factors' choices; if two factors set one key, the later one counts."""
    titles = [factor.title for factor in study.factors]
    return tuple(
        Candidate(
            stage,
            {title: option.label for title, option in zip(titles, combination, strict=True)},
            {key: value for option in combination for key, value in option.settings.items()},
        )
        for combination in product(*(options(factor) for factor in study.factors))
    )


def _one_factor(study: Study) -> Strategy:
    fixed = Candidate("", {}, {})
    tried: list[Candidate] = []
    notes: tuple[str, ...] = ()
    won: str | None = None
    for factor in study.factors:
        candidates = tuple(
            Candidate(
                factor.title, {**fixed.choices, factor.title: option.label}, {**fixed.settings, **option.settings}
            )
            for option in options(factor)
        )
        ranking = yield Batch(factor.title, candidates, notes, won)
        if not ranking.ranked or ranking.recommended is None:
            raise RunError(f"factor {factor.title}: none of its choices could be trained, so none can be fixed")
        fixed = ranking.ranked[0][0] if study.fix == "best" else ranking.recommended
        notes, won = (_fixed_sentence(factor, fixed, ranking),), fixed.choices[factor.title]
        tried += candidates
    return Ending(tuple(tried), notes, fixed=won)


def _fixed_sentence(factor: Factor, fixed: Candidate, ranking: Ranking) -> str:
    title = factor.title
    line = f"{title}: {fixed.choices[title]} is fixed for the next factors"
    others = [candidate.choices[title] for candidate in ranking.group if candidate is not fixed]
    if not others:
        return line
    if fixed not in ranking.group:
        return f"{line}: the cheapest within the margin, though these rows tell it apart from the best"
    return f"{line}, inside a tie: these rows cannot tell it from {', '.join(others)}"


def _two_stage(study: Study) -> Strategy:
    short = tuple(for_stage(each, "short", study.short) for each in _combinations(study, "short"))
    ranking = yield Batch("short", short, settles=False)
    short_ranked = ranking.ranked
    kept = short_ranked[: study.keep]
    full = tuple(for_stage(candidate, "full", study.full) for candidate, _ in kept)
    names = "; ".join(candidate.name for candidate in full)
    cut = [c for c, _ in ranking.ranked[study.keep :] if c in ranking.group]
    notes = [f"kept for full training, {len(full)} of {len(ranking.ranked)}: {names}"]
    if cut:
        notes.append(f"{len(cut)} that were not kept cannot be told from the best short trial on these rows")
    ranking = yield Batch("full", full, tuple(notes))
    scores = {candidate.name: value for candidate, value in ranking.ranked}
    pairs = [(value, scores[candidate.name]) for candidate, value in kept if candidate.name in scores]
    of_short, of_full = ([pair[side] for pair in pairs] for side in (0, 1))
    rank_correlation = correlation(of_short, of_full, [value for _, value in short_ranked])
    return Ending(full, (correlation_sentence(rank_correlation),), rank_correlation)


def correlation(short: list[float], full: list[float], every: Sequence[float] = ()) -> RankCorrelation:
    """Return the rank correlation of short and full results, in the same order of settings.

    every: the short results of all settings. The kept ones are the best, and nearer to each other than all are, which
    makes their correlation smaller than that of all: rho's interval is corrected to all, by the ratio of the two
    standard deviations (Thorndike 1949, case 2; for ranks approximately). Before that it is Fisher's, with the
    variance 1.06 / (n - 3) (Fieller, Hartley and Pearson 1957).

    >>> correlation([0.7, 0.8, 0.9], [0.8, 0.9, 0.95]).tau
    1.0
    """
    n = len(short)
    if n < 2 or len(set(short)) == 1 or len(set(full)) == 1:
        return RankCorrelation(n, None, None, None, None)
    # scipy's results are untyped tuples.
    tau, rho = (
        float(cast("Any", test(short, full)).statistic) for test in (scipy.stats.kendalltau, scipy.stats.spearmanr)
    )
    if n < 5 or abs(rho) > 1 - 1e-12:
        return RankCorrelation(n, tau, rho, None, None)
    half = Z_95 * math.sqrt(1.06 / (n - 3))
    wider = float(np.std(every) / np.std(short)) if len(every) > n else 1.0
    low, of_all, high = (_unrestricted(math.tanh(math.atanh(rho) + by), wider) for by in (-half, 0.0, half))
    return RankCorrelation(n, tau, rho, low, high, of_all)


def _unrestricted(rho: float, wider: float) -> float:
    """The correlation of all, whose spread is `wider` times that of the kept ones, which have `rho`."""
    return rho * wider / math.sqrt(1 + rho**2 * (wider**2 - 1))


def correlation_sentence(ranks: RankCorrelation) -> str:
    """Return the correlation with its number of settings, and how little that proves."""
    what = f"rank correlation of short and full trials, {ranks.n} settings"
    if ranks.tau is None or ranks.rho is None:
        return f"{what}: none can be computed: fewer than two, or all tied"
    bounded = ranks.of_all_low is not None and ranks.of_all_high is not None
    of_all = f"; {ranks.n} values do not bound it"
    if bounded and ranks.of_all is not None:
        of_all = (
            f"; among all settings, of which these are the best by the short trials, Spearman is about "
            f"{ranks.of_all:.2f} [{ranks.of_all_low:.2f}, {ranks.of_all_high:.2f}], if the dropped ones follow the "
            "same line"
        )
    return f"{what}, the kept ones alone: Kendall {ranks.tau:.2f}, Spearman {ranks.rho:.2f}{of_all}"


def _drawn(propose: Propose) -> Strategy:
    candidates: list[Candidate] = []
    while drawn := propose(len(candidates)):
        candidates += drawn
        yield Batch("drawn", drawn, settles=False)
    return Ending(tuple(candidates), settles=True)

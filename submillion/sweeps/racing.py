"""A race as its run folders show it: how far trials are, which can no longer win, and what it cost.

The test is in `judging.comparison.racing`. Nothing is stored here: a killed race is decided again from the same
evaluations, with the same result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from submillion.judging.comparison import SHARES, Behind, Course, dropped
from submillion.runs import EvalRecord, Run, pace, unpacked_losses
from submillion.runs.study import Point
from submillion.sweeps.study import Outcome
from submillion.text import plural


def has_reached(run: Run, share: float) -> bool:
    """Say whether a run was evaluated at or after this share of its steps, or is finished."""
    return run.is_done or any(at >= share for at, _ in _evaluations(run))


def rulings(
    outcomes: Sequence[Outcome], rung: float, n_classes: int, groups: np.ndarray | None = None
) -> list[tuple[Outcome, str]]:
    """Return the outcomes that can no longer win, each with a sentence, from all that were trained up to a rung.

    groups: of the validation rows, int64 [B], if some are not independent of each other. Outcomes that an earlier
    sitting ruled out at this rung are rivals again, so that the others are decided as they were then.
    """
    begun = [outcome for outcome in outcomes if outcome.trial.fits]
    every = {number: course(outcome.folders, rung, groups) for number, outcome in enumerate(begun)}
    courses = {number: each for number, each in every.items() if each is not None}
    most = math.log(100 * n_classes)  # a row's largest scaled log loss; with several labels it is log(200)
    # The factor that turns a mean over groups, as in `course`, into one over rows.
    per_row = 1.0 if groups is None else np.bincount(groups).max() * (groups.max() + 1) / len(groups)
    return [
        (begun[number], _sentence(behind, begun[behind.rival], rung, float(per_row)))
        for number, behind in dropped(courses, rung, len(begun), most).items()
        if begun[number].failure is None and not begun[number].is_done
    ]


def course(folders: Sequence[Path], rung: float, groups: np.ndarray | None = None) -> Course | None:
    """Return a trial's course up to a rung: its rows' losses, as means over its seeds' runs, which are in these
    folders; None if a seed has not come so far, or its evaluations noted no losses.

    Rows of one group are one bet: their sum over the size of the largest group, which keeps the bound of a row.
    """
    of_seeds = [(_evaluations(Run(path)), Run(path).is_done) for path in folders]
    losses: dict[float, np.ndarray] = {}
    for share in (each for each in SHARES if each <= rung):
        at = [_losses_at(evaluations, share, rung, is_done) for evaluations, is_done in of_seeds]
        noted = [each for each in at if each is not None]
        if not at or len(noted) < len(at):
            return None
        of_rows = np.mean(noted, axis=0)
        losses[share] = of_rows if groups is None else np.bincount(groups, of_rows) / np.bincount(groups).max()
    first = Run(folders[0])
    warmup = first.config().train.warmup
    return Course(losses, warmup if warmup < 1 else warmup / (_pace(first).n_steps or 1))


def _losses_at(
    evaluations: Sequence[tuple[float, EvalRecord]], share: float, rung: float, is_done: bool
) -> np.ndarray | None:
    """A seed's losses at a share of its steps; None if it has not come so far. Steps are whole, and shares are not: a
    rung looks back at the evaluation at or before a share, so that no gain counts for fewer steps than it took. A
    training that ended early keeps its last losses."""
    before = [record for at, record in evaluations if at <= share]
    after = [record for at, record in evaluations if at >= share]
    if share == rung and not after and not is_done:
        return None
    records = after[:1] if share == rung and after else before[-1:] or after[:1]
    return unpacked_losses(records[0].losses) if records and records[0].losses is not None else None


def points(outcome: Outcome) -> tuple[Point, ...]:
    """Return the course of a trial's first seed, for people: its mean loss at each evaluation so far."""
    return tuple(
        Point(share, float(unpacked_losses(record.losses).mean()))
        for path in outcome.folders[:1]
        for share, record in _evaluations(Run(path))
        if record.losses is not None
    )


def cost_sentence(outcomes: Sequence[Outcome]) -> str:
    """Return how many of a grid's steps a race trained, and how many trials it dropped."""
    begun = [outcome for outcome in outcomes if outcome.trial.fits]
    # Trials that ended by themselves, early or not, a grid would have trained as far.
    dropped_paths = {path for outcome in begun if outcome.state == "ruled out" for path in outcome.folders}
    paces = {path: _pace(Run(path)) for outcome in begun for path in outcome.folders}
    trained = sum(each.step for each in paces.values())
    planned = sum(each.n_steps or each.step if path in dropped_paths else each.step for path, each in paces.items())
    n_dropped = sum(outcome.state == "ruled out" for outcome in begun)
    return (
        f"the race trained {trained:,} of the {planned:,} steps of a grid ({100 * trained / max(1, planned):.0f} %), "
        f"and dropped {n_dropped} of {len(begun)} {plural(len(begun), 'trial')}"
    )


def _evaluations(run: Run) -> list[tuple[float, EvalRecord]]:
    """A run's evaluations, each with the share of its steps that it comes after."""
    evaluations = run.evaluations()
    n_steps = _pace(run).n_steps if evaluations else None
    return [(each.step / n_steps, each) for each in evaluations] if n_steps else []


def _pace(run: Run) -> pace.Pace:
    return (
        pace.pace(run.config().train, run.records()) if (run.path / "config.yaml").exists() else pace.Pace(0, 0, None)
    )


def _sentence(behind: Behind, rival: Outcome, rung: float, per_row: float) -> str:
    gap, gain = behind.gap * per_row, behind.gain * per_row
    return (
        f"after {Fraction(rung)} of its steps its log loss is {gap:.3f} above that of "
        f"{rival.trial.candidate.name}, and at their present rates it would make up {gain:.3f} by its end"
    )

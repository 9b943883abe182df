"""A race as its run folders tell it: how far trials are, who can no longer win, and what it cost.

The test is `judging.comparison.racing`'s. Nothing is kept here: a race that was killed is decided again from the same
evaluations, to the same end.
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


def has_reached(run: Run, share: float) -> bool:
    """Say whether a run was evaluated at or after this share of its steps, or is finished."""
    return run.is_done or any(at >= share for at, _ in _evaluations(run))


def rulings(
    outcomes: Sequence[Outcome], rung: float, n_classes: int, groups: np.ndarray | None = None
) -> list[tuple[Outcome, str]]:
    """Return the outcomes that can no longer win, each with a sentence, from all that were trained up to a rung.

    groups: of the validation rows, int64 [B], where some are not independent of each other. What an earlier sitting
    ruled out at this rung is a rival again, so that the others are decided as they were then.
    """
    begun = [outcome for outcome in outcomes if outcome.trial.fits]
    every = {number: course(outcome.folders, rung, groups) for number, outcome in enumerate(begun)}
    courses = {number: each for number, each in every.items() if each is not None}
    most = math.log(100 * n_classes)  # of a row's scaled log loss; of several labels it is log(200)
    # A mean over groups, as `course` has them, made one over rows again.
    per_row = 1.0 if groups is None else np.bincount(groups).max() * (groups.max() + 1) / len(groups)
    return [
        (begun[number], _sentence(behind, begun[behind.rival], rung, float(per_row)))
        for number, behind in dropped(courses, rung, len(begun), most).items()
        if begun[number].failure is None and not begun[number].is_done
    ]


def course(folders: Sequence[Path], rung: float, groups: np.ndarray | None = None) -> Course | None:
    """Return the course up to a rung of a trial whose seeds' runs are in these folders, its rows' losses as means over
    them; None where a seed has not come so far, or where its evaluations noted no losses.

    Rows of one group are one bet: their sum, by the size of the largest group, so that it keeps the bound of a row.
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
    """A seed's losses at a share of its steps; None where it has not come so far. Steps are whole, and shares are not:
    what a rung looks back at is the evaluation at or before it, so that no gain is counted for less than it took. A
    training that ended early stays as it was."""
    before = [record for at, record in evaluations if at <= share]
    after = [record for at, record in evaluations if at >= share]
    if share == rung and not after and not is_done:
        return None
    found = after[:1] if share == rung and after else before[-1:] or after[:1]
    return unpacked_losses(found[0].losses) if found and found[0].losses is not None else None


def points(outcome: Outcome) -> tuple[Point, ...]:
    """Return the course of a trial's first seed, for people: its mean loss at each evaluation so far."""
    return tuple(
        Point(share, float(unpacked_losses(record.losses).mean()))
        for path in outcome.folders[:1]
        for share, record in _evaluations(Run(path))
        if record.losses is not None
    )


def cost_sentence(outcomes: Sequence[Outcome]) -> str:
    """Return how many steps a race trained of those that a grid would have, and how many trials it dropped."""
    begun = [outcome for outcome in outcomes if outcome.trial.fits]
    # Of those that ended by themselves, early or not, a grid would have trained as many.
    dropped_paths = {path for outcome in begun if outcome.state == "ruled out" for path in outcome.folders}
    paces = {path: _pace(Run(path)) for outcome in begun for path in outcome.folders}
    trained = sum(each.step for each in paces.values())
    planned = sum(each.n_steps or each.step if path in dropped_paths else each.step for path, each in paces.items())
    n_dropped = sum(outcome.state == "ruled out" for outcome in begun)
    return (
        f"the race trained {trained:,} of the {planned:,} steps of a grid ({trained / max(1, planned):.0%}), and "
        f"dropped {n_dropped} of {len(begun)} trials"
    )


def _evaluations(run: Run) -> list[tuple[float, EvalRecord]]:
    """A run's evaluations, each with the share of its steps that it comes after."""
    found = run.evaluations()
    n_steps = _pace(run).n_steps if found else None
    return [(each.step / n_steps, each) for each in found] if n_steps else []


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

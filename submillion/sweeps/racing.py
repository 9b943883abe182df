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


def rulings(outcomes: Sequence[Outcome], rung: float, n_classes: int) -> list[tuple[Outcome, str]]:
    """Return the outcomes that can no longer win, each with a sentence, from all that were trained up to a rung.

    What an earlier sitting ruled out at this rung is a rival again, so that the others are decided as they were then.
    """
    begun = [outcome for outcome in outcomes if outcome.trial.fits]
    every = {number: course(outcome.folders, rung) for number, outcome in enumerate(begun)}
    courses = {number: each for number, each in every.items() if each is not None}
    most = math.log(100 * n_classes)  # of a row's scaled log loss; of several labels it is log(200)
    return [
        (begun[number], _sentence(behind, begun[behind.rival], rung))
        for number, behind in dropped(courses, rung, len(begun), most).items()
        if begun[number].failure is None and not begun[number].is_done
    ]


def course(folders: Sequence[Path], rung: float) -> Course | None:
    """Return the course up to a rung of a trial whose seeds' runs are in these folders, its rows' losses as means over
    them; None where a seed has not come so far, or where its evaluations noted no losses."""
    of_seeds = [_evaluations(Run(path)) for path in folders]
    losses: dict[float, np.ndarray] = {}
    for share in (each for each in SHARES if each <= rung):
        # The first evaluation there: steps are whole, and rungs are not always.
        at = [next((record.losses for where, record in seed if where >= share), None) for seed in of_seeds]
        noted = [unpacked_losses(each) for each in at if each is not None]
        if not at or len(noted) < len(at):
            return None
        losses[share] = np.mean(noted, axis=0)
    first = Run(folders[0])
    warmup = first.config().train.warmup
    return Course(losses, warmup if warmup < 1 else warmup / (_pace(first).n_steps or 1))


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
    paces = [_pace(Run(path)) for path in sorted({path for outcome in begun for path in outcome.folders})]
    trained, planned = sum(each.step for each in paces), sum(each.n_steps or each.step for each in paces)
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


def _sentence(behind: Behind, rival: Outcome, rung: float) -> str:
    return (
        f"after {Fraction(rung)} of its steps its log loss is {behind.gap:.3f} higher than that of "
        f"{rival.trial.candidate.name}, and at their present paces it would make good {behind.gain:.3f} until its end"
    )

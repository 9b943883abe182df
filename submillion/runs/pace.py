"""How far a training is, by its records: steps done and in all, and about how long the rest takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from submillion.config.settings import TrainConfig
from submillion.runs.records import EvalRecord, Record, StepRecord

MIN_STEPS, MAX_EPOCHS = 600, 10  # of a training whose length the config leaves open


@dataclass(frozen=True)
class Pace:
    """Steps done of n_steps, and the seconds that the rest takes at the pace so far, evaluations included; None before
    the first step. Early stopping may end it sooner."""

    step: int
    n_steps: int | None
    seconds_left: float | None


def n_steps(train: TrainConfig, n_epoch_steps: int) -> int:
    """Return the optimiser steps of a training with n_epoch_steps steps per epoch."""
    epochs = derived_epochs(n_epoch_steps) if train.epochs is None else train.epochs
    return train.steps or max(1, round(epochs * n_epoch_steps))


def derived_epochs(n_epoch_steps: int) -> int:
    """Return the epochs of a config without steps and epochs: enough for `MIN_STEPS` steps, at most `MAX_EPOCHS`.

    >>> derived_epochs(250), derived_epochs(10)
    (3, 10)
    """
    return min(MAX_EPOCHS, math.ceil(MIN_STEPS / n_epoch_steps))


def pace(train: TrainConfig, records: Sequence[Record]) -> Pace:
    """Return how far the training with these records is."""
    steps = [record for record in records if isinstance(record, StepRecord)]
    if not steps or steps[-1].epoch <= 0:
        return Pace(0, train.steps, None)
    last = steps[-1]
    total = n_steps(train, max(1, round(last.step / last.epoch)))
    timed = steps[1:] or steps  # the first one's seconds include the work before it
    evaluation_s = sum(record.evaluation_s for record in records if isinstance(record, EvalRecord))
    step_s = sum(record.seconds for record in timed) / len(timed) + evaluation_s / last.step
    return Pace(last.step, total, max(0, total - last.step) * step_s)

"""From a candidate's choices to its trial: the exact config of each seed, its plan, and why it cannot start.

Owns the scale, alphas that follow the rank, and the budget's answer. Which candidates there are is left to
`strategies`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from submillion import config, planning
from submillion.config import Config
from submillion.errors import ConfigError, HubError
from submillion.planning import Plan

_TIMES_RANK = re.compile(r"(\d*\.?\d*)r")


@dataclass(frozen=True)
class Failure:
    """Why a trial has no result, in a word and in a sentence."""

    state: Literal["over budget", "diverged", "ruled out"]
    why: str


@dataclass(frozen=True, eq=False)
class Candidate:
    """A setting that a strategy wants tried: its stage, its choices (factor → label), the settings these stand for.

    `number` is its trial's in the storage, if that proposed it.
    """

    stage: str
    choices: Mapping[str, str]
    settings: Mapping[str, Any]
    number: int | None = None

    @property
    def name(self) -> str:
        """Return the choices as text."""
        return ", ".join(f"{factor}={label}" for factor, label in self.choices.items())


@dataclass(frozen=True, eq=False)
class Trial:
    """A candidate with its configs, one per seed, and its plan as wished.

    excess: the message if the plan exceeds the budget, else None · largest_rank: the largest that would fit then, with
    the same sites, layers and head; None if none would.
    """

    candidate: Candidate
    configs: tuple[Config, ...]
    plan: Plan
    excess: str | None = None
    largest_rank: int | None = None

    @property
    def fits(self) -> bool:
        """Say whether the trial may be started."""
        return self.excess is None


@dataclass(frozen=True)
class Space:
    """What every trial is made from: the shared settings, the number of classes C, of seeds, and the scale."""

    base: Config
    n_classes: int
    n_seeds: int = 1
    scale: float = 1.0

    def trial(self, candidate: Candidate) -> Trial:
        """Return the trial of a candidate; ConfigError or HubError names it and everything that is wrong with it."""
        try:
            settings = self._settings(candidate)
            wishes = planning.resolve(settings, self.n_classes)
            plan = planning.draft(wishes)
        except (ConfigError, HubError) as error:
            raise type(error)(*(f"{candidate.name}: {problem}" for problem in error.problems)) from None
        configs = _seeded(settings, self.n_seeds)
        if (overrun := planning.overrun(wishes, plan)) is not None:
            return Trial(candidate, configs, plan, overrun, planning.fitting_rank(wishes))
        return Trial(candidate, configs, plan)

    def _settings(self, candidate: Candidate) -> Config:
        """The candidate's config, cut by the scale; an alpha such as 2r is multiplied out last."""
        values = dict(candidate.settings)
        times = _TIMES_RANK.fullmatch(str(values.get("adapter.alpha")))
        if times:
            values["adapter.alpha"] = None
        settings = scaled(config.changed(self.base, values, "the trial's"), self.scale)
        if times is None:
            return settings
        ranks = set(planning.draft(planning.resolve(settings, self.n_classes)).ranks.values())
        if len(ranks) != 1:
            raise ConfigError(f"adapter.alpha is {times[0]}, and there is no one rank: give numbers")
        return config.changed(settings, {"adapter.alpha": float(times[1] or 1) * ranks.pop()})


def scaled(settings: Config, scale: float) -> Config:
    """Return the settings with training rows and counted steps cut; epochs stay, for they pass over fewer rows.

    >>> cut = scaled(config.validate({"train": {"steps": 200, "warmup": 0.1}}), 0.1)
    >>> cut.data.train_rows, cut.train.steps, cut.train.warmup
    (0.1, 20, 0.1)
    """
    if scale == 1:
        return settings
    rows = settings.data.train_rows or 1.0
    cut: dict[str, Any] = {"data.train_rows": max(1, math.floor(rows * scale)) if rows > 1 else rows * scale}
    for key in ("steps", "evaluate_every", "warmup"):
        value = getattr(settings.train, key)
        if value is not None and value >= 1:
            cut[f"train.{key}"] = max(1, round(value * scale))
    return config.changed(settings, cut, "--scale")


def scale_sentence(scale: float) -> str:
    """Return what the scale cuts, for people."""
    return (
        f"scale {scale:g}: training rows, train.steps, train.evaluate_every and a train.warmup that counts steps are "
        f"multiplied by {scale:g}; epochs pass over the reduced rows; validation and test rows are unchanged"
    )


def with_seeds(trial: Trial, n_seeds: int) -> Trial:
    """Return the trial with n_seeds seeds."""
    return replace(trial, configs=_seeded(trial.configs[0], n_seeds))


def _seeded(first: Config, n_seeds: int) -> tuple[Config, ...]:
    """The config with its own seed and those that follow."""
    trains = [first.train.model_copy(update={"seed": first.train.seed + i}) for i in range(n_seeds)]
    return tuple(first.model_copy(update={"train": train}) for train in trains)


def for_stage(candidate: Candidate, stage: str, settings: Mapping[str, Any]) -> Candidate:
    """Return the candidate for another stage, with these settings on top."""
    return replace(candidate, stage=stage, settings={**candidate.settings, **settings})

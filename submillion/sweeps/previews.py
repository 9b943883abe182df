"""A study's trials before any is run: exact configs, plans, what does not fit the budget, the estimated time.

If later trials depend on results, these are assumed, and the preview says so. Nothing is started or stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from submillion.errors import ConfigError, HubError
from submillion.judging.comparison import Cost, expected_cost
from submillion.runs.study import label
from submillion.sweeps import storage, timing
from submillion.sweeps.space import Study, options
from submillion.sweeps.strategies import Batch, Ranking, strategy
from submillion.sweeps.timing import Size, Speed
from submillion.sweeps.trials import Space, Trial, scale_sentence

_ASSUMED = {
    "grid": "",
    "race": "",
    "one-factor": "later factors assume that the base's choice, else the first that fits, won each factor before",
    "two-stage": "the full trials assume that the first settings that fit are kept",
    "random": "",
    "tpe": "tpe proposes by results; here its settings are drawn at random",
}


@dataclass(frozen=True)
class Preview:
    """The trials in their order, each with its floating-point operations (of all its seeds; 0 over budget), the speed
    that divides them, and sentences worth printing. `n_asked` also counts trials that repeat an earlier one;
    `expected_share` is the share of them that a race is expected to train."""

    trials: tuple[tuple[Trial, float], ...]
    speed: Speed
    notes: tuple[str, ...]
    n_asked: int
    expected_share: float = 1.0

    def seconds_of(self, n_flops: float) -> float:
        """Return the estimated time of n_flops operations."""
        return n_flops / self.speed.flops_per_s

    @property
    def seconds(self) -> float:
        """Return the estimated time of all trials that fit, one after the other; of a race, of the share that it is
        expected to train."""
        return self.expected_share * self.seconds_of(sum(n_flops for _, n_flops in self.trials))

    @property
    def n_runs(self) -> int:
        """Return the number of runs, seeds counted."""
        return sum(len(trial.configs) for trial, _ in self.trials if trial.fits)


def preview(study: Study, space: Space, size: Size, speed: Speed) -> Preview:
    """Return the preview of a study; ConfigError lists the problems of all trials together."""
    generator = strategy(study, storage.in_memory(study).propose)
    problems: list[str] = []
    seen: dict[str, Trial] = {}
    n_asked = 0
    batch: Batch | None = next(generator)
    while batch is not None:
        trials = _trials(space, batch, problems)
        n_asked += len(trials)
        for trial in trials:
            seen.setdefault(_identity(trial), trial)
        fitting = [trial for trial in trials if trial.fits]
        if problems or not fitting:
            break
        try:
            batch = generator.send(_assumed(study, space, fitting))
        except StopIteration:
            batch = None
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    race = None
    if study.kind == "race":
        race = expected_cost(sum(trial.fits for trial in seen.values()), size.n_validation)
    return Preview(
        tuple((trial, _flops(trial, size)) for trial in seen.values()),
        speed,
        _notes(study, space, size, speed, race),
        n_asked,
        1.0 if race is None else race.value,
    )


def _trials(space: Space, batch: Batch, problems: list[str]) -> list[Trial]:
    trials = []
    for candidate in batch.candidates:
        try:
            trials.append(space.trial(candidate))
        except (ConfigError, HubError) as error:
            problems += error.problems
    return trials


def _assumed(study: Study, space: Space, fitting: list[Trial]) -> Ranking:
    """The batch as if the base's own choice had won; else the first one."""
    first = next((trial for trial in fitting if _is_base(trial, space, study)), fitting[0])
    ordered = [first, *(trial for trial in fitting if trial is not first)]
    return Ranking(tuple((trial.candidate, 0.0) for trial in ordered), (first.candidate,), first.candidate)


def _is_base(trial: Trial, space: Space, study: Study) -> bool:
    """Whether a one-factor trial makes the base's choice."""
    stage, base = trial.candidate.stage, space.base.model_dump()
    for factor in study.factors:
        for option in options(factor):
            if factor.title == stage and option.label == trial.candidate.choices[stage]:
                keys = [factor.key] if factor.key is not None else option.settings
                return all(label(option.settings[key]) == label(_at(base, key)) for key in keys)
    return False


def _at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values


def _identity(trial: Trial) -> str:
    return trial.configs[0].model_dump_json()


def _flops(trial: Trial, size: Size) -> float:
    return len(trial.configs) * timing.flops(trial.configs[0], trial.plan, size) if trial.fits else 0.0


def _notes(study: Study, space: Space, size: Size, speed: Speed, race: Cost | None) -> tuple[str, ...]:
    notes = [f"estimated from {size.sentence}; {speed.sentence} ({speed.flops_per_s / 1e9:,.0f} GFLOP/s)"]
    notes += [_ASSUMED[study.kind]] if _ASSUMED[study.kind] else []
    if race is not None:
        notes.append(
            f"a race of this many trials on this many validation rows trains about {100 * race.value:.0f} % of "
            f"their steps; nine of ten simulated ones {100 * race.low:.0f} % to {100 * race.high:.0f} %: fewer "
            "if few trials are near the best"
        )
    if study.tie_seeds is not None:
        notes.append(
            f"each setting that ties with the best gets {study.tie_seeds} seeds instead of {study.seeds}, after "
            "all compared settings got two: the estimate includes neither these second seeds, which may double "
            "the time, nor the others"
        )
    notes += [scale_sentence(space.scale)] if space.scale != 1 else []
    return tuple(notes)

"""What a sweep leaves in its folder: `study.yaml` and `summary.json`; and its trials as plain values.

Files are written atomically. Runs are named, not copied. Reports are made from `summary.json` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import yaml

from submillion import runs
from submillion.errors import RunError
from submillion.judging.metrics import NAMES, key_of
from submillion.runs.study import FORMAT, FactorRecord, SeedScores, Stage, StudyRecord, TrialRecord
from submillion.sweeps.previews import Preview
from submillion.sweeps.space import Factor, keys_of, options
from submillion.sweeps.study import Outcome, Prepared, Sweep
from submillion.sweeps.trials import Trial
from submillion.text import interval


def make_folder(prepared: Prepared) -> None:
    """Make the study's folder; RunError if that fails."""
    try:
        prepared.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{prepared.folder} cannot be made: {error.strerror}") from None


def write_study(prepared: Prepared) -> None:
    """Write the study as it was read."""
    text = yaml.safe_dump(prepared.study.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    runs.write_atomically(prepared.folder / "study.yaml", text)


def write_outcomes(prepared: Prepared, outcomes: Sequence[Outcome], stages: Sequence[Stage]) -> None:
    """Write what is known so far: a study that is stopped leaves this."""
    runs.write_atomically(prepared.folder / "summary.json", _json(_known(prepared, outcomes, stages).values()))


def write(sweep: Sweep) -> None:
    """Write the conclusion, for programs and for people."""
    runs.write_atomically(sweep.folder / "summary.json", _json(values(sweep)))


def preview_values(preview: Preview) -> dict[str, Any]:
    """Return a dry run as JSON holds it."""
    return {
        "n_trials": len(preview.trials),
        "n_runs": preview.n_runs,
        "estimated_s": _rounded(preview.seconds),
        "notes": list(preview.notes),
        "trials": [
            trial_values(trial) | {"estimated_s": _rounded(preview.seconds_of(n))} for trial, n in preview.trials
        ],
    }


def trial_values(trial: Trial) -> dict[str, Any]:
    """Return a trial as JSON holds it."""
    return {
        "stage": trial.candidate.stage,
        "choices": dict(trial.candidate.choices),
        "settings": dict(trial.candidate.settings),
        "seeds": tuple(each.train.seed for each in trial.configs),
        "rank": trial.plan.ranks,
        "total": trial.plan.total,
        "budget": trial.plan.budget,
        "fits": trial.fits,
        "largest_rank": trial.largest_rank,
        "over_budget": trial.excess,
    }


def trial_record(outcome: Outcome, keys: Sequence[str] = ()) -> TrialRecord:
    """Return an outcome's record, with the trial's values of these keys."""
    return TrialRecord(
        **trial_values(outcome.trial),
        resolved={key: _resolved(outcome.trial, key) for key in keys},
        state=outcome.state,
        why=outcome.why,
        runs=tuple(path.name for path in outcome.runs),
        validation_score=SeedScores(mean=outcome.score, by_seed=tuple(outcome.scores)),
        seconds=tuple(outcome.seconds),
        course=outcome.course,
    )


def _resolved(trial: Trial, key: str) -> Any:
    values: Any = trial.configs[0].model_dump(mode="json")
    for part in key.split("."):
        values = values[part]
    if values is None and key == "adapter.rank":
        return _shared(trial.plan.ranks)
    return _shared(trial.plan.alpha) if values is None and key == "adapter.alpha" else values


def _shared(values: Any) -> Any:
    """The value that all sites share; all values if they differ."""
    if not isinstance(values, dict):
        return values
    return next(iter(values.values())) if len(set(values.values())) == 1 else list(values.values())


def outcome_line(outcome: Outcome, until: float = 1.0) -> str:
    """Return a trial's result in a line; if it paused in a race, where."""
    name = outcome.trial.candidate.name
    if outcome.is_done:
        return f"{name}: validation {NAMES[outcome.metric]} {score_text(outcome)}"
    if outcome.why is not None:
        return f"{name}: {outcome.why}"
    if until < 1:
        return f"{name}: trained up to {Fraction(until)} of its steps"
    return f"{name}: {len(outcome.runs)} of {len(outcome.trial.configs)} seeds are finished"


def score_text(outcome: Outcome) -> str:
    """Return a finished trial's score: one run's with its interval, several seeds' mean with their range."""
    scores = outcome.scores
    if len(scores) == 1:
        return f"{interval(scores[0])}  after selection"
    low, high = min(score.value for score in scores), max(score.value for score in scores)
    return f"{outcome.score:.4f}  (mean of {len(scores)} seeds, {low:.4f} to {high:.4f})  after selection"


def values(sweep: Sweep) -> dict[str, Any]:
    """Return a finished sweep as JSON holds it."""
    record = replace(
        _known(sweep.prepared, sweep.outcomes, sweep.stages),
        finished=True,
        folder=str(sweep.folder),
        recommended=str(sweep.recommended.path),
        scores=sweep.recommended.scores(),
        n_test_reads=sweep.n_test_reads,
        rank_correlation=sweep.ending.correlation,
        notes=sweep.notes,
        comparison=sweep.comparison,
    )
    return record.values()


def _known(prepared: Prepared, outcomes: Sequence[Outcome], stages: Sequence[Stage]) -> StudyRecord:
    """What is known of a study at any time; stages only if trials were compared within their stage."""
    study, space = prepared.study, prepared.space
    keys = list(dict.fromkeys(key for factor in study.factors for key in sorted(keys_of(factor))))
    keys += sorted({*study.short, *study.full} - {*keys})
    return StudyRecord(
        format=FORMAT,
        study=study.name,
        kind=study.kind,
        finished=False,
        n_planned=prepared.preview.n_asked,
        scale=space.scale,
        encoder=space.base.model.name,
        factors=tuple(_factor_record(factor) for factor in study.factors),
        claims=study.claims,
        stages=tuple(stages) if study.kind in ("one-factor", "two-stage") else (),
        trials=tuple(trial_record(each, keys) for each in outcomes),
        metric=key_of(space.base.train.metric),
        tie_seeds=study.tie_seeds,
    )


def _factor_record(factor: Factor) -> FactorRecord:
    choices = None if factor.is_range else tuple(option.label for option in options(factor))
    return FactorRecord(factor.title, choices, factor.log)


def _json(values: dict[str, Any]) -> str:
    return runs.dumps(values, indent=2) + "\n"


def _rounded(seconds: float) -> float:
    """An estimate with no more digits than it may claim."""
    return float(f"{seconds:.3g}")

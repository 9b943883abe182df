"""A study's folder becomes a `Summary`: what `summary.json` says, typed and checked.

Everything on a study's page comes from this one file, so that a page can be made without its runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from submillion.errors import RunError
from submillion.judging.metrics import Score
from submillion.reports.verdicts import Standing, Verdict
from submillion.runs.files import read_json

FORMAT = 1  # of summary.json; raised when an older version could no longer read it


@dataclass(frozen=True)
class Accuracy:
    """A trial's validation accuracy, after selection: a seed's each, and the mean once all are finished."""

    mean: float | None
    by_seed: tuple[Score, ...]


@dataclass(frozen=True)
class Seconds:
    """What a run's steps and evaluations took."""

    training: float
    evaluation: float


@dataclass(frozen=True)
class Trial:
    """A trial: choices by factor, the varied keys as resolved in its config, what it trains, and what became of it.

    total: parameters that would train · largest_rank: that fits the budget where the trial does not · why: it has no
    result.
    """

    stage: str
    choices: dict[str, str]
    resolved: dict[str, Any]
    seeds: tuple[int, ...]
    total: int
    budget: int | None
    fits: bool
    largest_rank: int | None
    state: str
    why: str | None
    runs: tuple[str, ...]
    validation_accuracy: Accuracy
    seconds: tuple[Seconds, ...]

    @property
    def is_done(self) -> bool:
        """Say whether all its seeds are finished."""
        return self.state == "done"

    @property
    def training_s(self) -> float:
        """Return the seconds of steps, the mean of its runs."""
        return sum(each.training for each in self.seconds) / len(self.seconds)

    @property
    def evaluation_s(self) -> float:
        """Return the seconds of evaluations, the mean of its runs."""
        return sum(each.evaluation for each in self.seconds) / len(self.seconds)


@dataclass(frozen=True)
class Factor:
    """A factor and its choices; None for a range, `log` where that is drawn on a logarithmic scale."""

    factor: str
    choices: tuple[str, ...] | None
    log: bool


@dataclass(frozen=True)
class Claim:
    """A choice that is said to win its factor; claimed accuracies by choice, from so many rows."""

    factor: str
    winner: str
    scores: dict[str, float]
    rows: int | None
    says: str | None


@dataclass(frozen=True)
class Stage:
    """Trials that were compared among themselves, and the choice that was fixed after them."""

    stage: str
    fixed: str | None
    comparison: Verdict | None


@dataclass(frozen=True)
class RankCorrelation:
    """How short trials order settings as full ones do; low and high bound rho."""

    n: int
    tau: float | None
    rho: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Summary:
    """A study as `summary.json` has it; what only a finished one has is absent before."""

    format: int
    study: str
    kind: Literal["grid", "one-factor", "two-stage", "random", "tpe"]
    finished: bool
    n_planned: int
    scale: float
    encoder: str
    factors: tuple[Factor, ...]
    claims: tuple[Claim, ...]
    stages: tuple[Stage, ...]
    trials: tuple[Trial, ...]
    recommended: str | None = None
    scores: dict[str, dict[str, Score]] | None = None
    n_test_reads: int = 0
    rank_correlation: RankCorrelation | None = None
    notes: tuple[str, ...] = ()
    comparison: Verdict | None = None

    @property
    def done(self) -> list[tuple[int, Trial]]:
        """Return the finished trials with their numbers, from 1 in the order of the study."""
        return [(number, trial) for number, trial in enumerate(self.trials, start=1) if trial.is_done]

    @property
    def encoder_name(self) -> str:
        """Return the encoder's name as people read it: a local one's without the folders of this machine."""
        return Path(self.encoder).name if Path(self.encoder).is_absolute() else self.encoder

    @property
    def recommended_run(self) -> str | None:
        """Return the name of the recommended run's folder."""
        return None if self.recommended is None else Path(self.recommended).name

    def first_of(self, standing: Standing) -> tuple[int, Trial]:
        """Return the first trial of the main comparison's stage whose runs a setting has, with its number."""
        of_it = [(n, trial) for n, trial in self.done if trial.runs[0] in standing.runs]
        return next((each for each in of_it if each[1].stage == "full"), of_it[0])


def name_of(trial: Trial) -> str:
    """Return what a trial is called: of one factor at a time the one it tries, else all its choices."""
    if trial.stage in trial.choices:
        return f"{trial.stage}={trial.choices[trial.stage]}"
    choices = ", ".join(f"{factor}={choice}" for factor, choice in trial.choices.items())
    return f"{trial.stage}: {choices}" if trial.stage in ("short", "full") else choices


def is_study(folder: Path) -> bool:
    """Say whether a folder is a study's."""
    return (folder / "study.yaml").is_file() or (folder / "summary.json").is_file()


def read(folder: Path) -> Summary:
    """Return the study of a folder; RunError if its summary is missing, damaged, or of another version."""
    path = folder / "summary.json"
    again = "start `submillion sweep` with the study again: it trains only what is not finished, and writes it"
    if not path.exists():
        raise RunError(f"{path} is missing: nothing of the study is finished; {again}")
    values = read_json(path)
    found = values.get("format") if isinstance(values, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise RunError(f"{path} has format {found}; this version reads {FORMAT}: update submillion")
    if isinstance(values, dict) and found is None:
        raise RunError(f"{path} has no format: an older version wrote it; {again}")
    try:
        return _checked(TypeAdapter(Summary).validate_python(values), path, again)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3]]
        raise RunError(f"{path} is damaged ({'; '.join(problems)}): {again}") from None


def _checked(summary: Summary, path: Path, again: str) -> Summary:
    """Refuse a summary whose parts do not belong together: a page of it would be wrong without looking it."""
    known = {run for _, trial in summary.done for run in trial.runs}
    verdicts = [*(stage.comparison for stage in summary.stages), summary.comparison]
    unknown = [r for v in verdicts if v is not None for each in v.settings for r in each.runs if r not in known]
    broken = [str(number) for number, trial in summary.done if not trial.runs or len(trial.seconds) != len(trial.runs)]
    problems = [f"no finished trial has the compared run {name}" for name in unknown[:3]]
    problems += [f"trial {number} is done and its runs are not all there" for number in broken[:3]]
    if summary.finished and (summary.recommended_run not in known or summary.scores is None):
        problems.append("no finished trial has the recommended run, or its scores are missing")
    if problems:
        raise RunError(f"{path} is damaged ({'; '.join(problems)}): {again}")
    return summary

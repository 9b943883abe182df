"""The types of a sweep, and a study made ready to run: read, checked, its trials previewed.

Running it is left to `sitting`, writing it down to `summary`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from submillion import config, runs
from submillion.config import Config, DataConfig
from submillion.data import sources
from submillion.errors import ConfigError
from submillion.judging import metrics
from submillion.judging.comparison import MIN_ROWS, Verdict
from submillion.judging.metrics import Score
from submillion.runs import EvalRecord, Record, Run
from submillion.runs.study import Point, Seconds, Stage, TrialState
from submillion.sweeps import previews, timing
from submillion.sweeps.executors import Where
from submillion.sweeps.previews import Preview
from submillion.sweeps.space import Study, base_config, load_study, metric_problems
from submillion.sweeps.strategies import Ending
from submillion.sweeps.timing import Size, Speed
from submillion.sweeps.trials import Failure, Space, Trial


@dataclass(frozen=True)
class How:
    """How a study is run; only the scale changes what its trials are.

    n_workers: processes, or cores of a local Ray cluster · address: of a Ray cluster, None starts a local one ·
    storage: an SQLAlchemy URL, None for SQLite in the study's folder · scale: of rows and steps, above 0, at most 1.
    """

    where: Where = "inline"
    n_workers: int = 1
    address: str | None = None
    storage: str | None = None
    scale: float = 1.0


@dataclass(eq=False)
class Outcome:
    """What is known of a trial: its finished runs so far, in the order of their seeds, and why it will have no more.

    folders: where its runs are, or will be · number: its trial's in the storage, None before it is begun ·
    course: in a race, once it has ended.
    """

    trial: Trial
    runs: list[Path] = field(default_factory=list)
    failure: Failure | None = None
    folders: tuple[Path, ...] = ()
    number: int | None = None
    course: tuple[Point, ...] = ()
    _results: dict[Path, tuple[Score, Seconds, float]] = field(default_factory=dict, repr=False)

    @property
    def is_done(self) -> bool:
        """Say whether all seeds are finished."""
        return len(self.runs) == len(self.trial.configs)

    @property
    def state(self) -> TrialState:
        """Return what became of the trial, in a word."""
        if self.is_done:
            return "done"
        return "unfinished" if self.failure is None else self.failure.state

    @property
    def why(self) -> str | None:
        """Return why the trial has no result, in a sentence."""
        return None if self.failure is None else self.failure.why

    @property
    def score(self) -> float | None:
        """Return the mean over seeds of the validation score by `train.metric`, after selection; None before all are
        finished."""
        if not self.is_done:
            return None
        return sum(score.value for score in self.scores) / len(self.runs)

    @property
    def height(self) -> float:
        """Return the mean over seeds of the score that decides, signed so that higher is better; minus infinity before
        all are finished."""
        if not self.is_done:
            return -math.inf
        return sum(self._result(path)[2] for path in self.runs) / len(self.runs)

    @property
    def metric(self) -> str:
        """Return the key of the score that is reported."""
        return metrics.key_of(self.trial.configs[0].train.metric)

    @property
    def step(self) -> int | None:
        """Return the last step of the unfinished run that is furthest on; None if none has begun."""
        underway = [Run(path).records() for path in self.folders if path not in self.runs]
        return max((records[-1].step for records in underway if records), default=None)

    @property
    def scores(self) -> list[Score]:
        """Return the finished runs' validation scores by `train.metric`, after selection."""
        return [self._result(path)[0] for path in self.runs]

    @property
    def seconds(self) -> list[Seconds]:
        """Return the seconds that each finished run trained and evaluated; for a trial that was ruled out, each run
        that began."""
        if self.state != "ruled out":
            return [self._result(path)[1] for path in self.runs]
        return [_seconds(records) for path in self.folders if (records := Run(path).records())]

    def _result(self, path: Path) -> tuple[Score, Seconds, float]:
        """A finished run's validation score, its seconds, and the height of the score that decides, read once: all is
        written after each trial."""
        if path not in self._results:
            records, predictions = Run(path).records(), Run(path).load_predictions("validation")
            seconds = _seconds(records)
            decides = metrics.height_by(predictions, self.trial.configs[0].train.deciding)
            self._results[path] = metrics.leading(Run(path).scores()["validation"])[1], seconds, decides
        return self._results[path]


def _seconds(records: Sequence[Record]) -> Seconds:
    evaluation = sum(each.evaluation_s for each in records if isinstance(each, EvalRecord))
    return Seconds(sum(each.seconds for each in records), evaluation)


@dataclass(frozen=True)
class Status:
    """What a watcher sees: every outcome so far, the stage at work, the estimated seconds left, a line to print."""

    outcomes: tuple[Outcome, ...]
    stage: str
    left_s: float
    line: str


@dataclass(frozen=True, eq=False)
class Sweep:
    """A finished study: its outcomes, stages, conclusions, the comparison of what finished (None for fewer than two
    runs), and the recommended run, whose test split was opened if it has one."""

    prepared: Prepared
    outcomes: tuple[Outcome, ...]
    stages: tuple[Stage, ...]
    ending: Ending
    notes: tuple[str, ...]
    comparison: Verdict | None
    recommended: Run
    n_test_reads: int

    @property
    def study(self) -> Study:
        """Return the study as in its file."""
        return self.prepared.study

    @property
    def folder(self) -> Path:
        """Return the study's folder."""
        return self.prepared.folder


StatusWatch = Callable[[Status], None]


@dataclass(frozen=True)
class Prepared:
    """A study that was read and checked: its shared settings, space, data, and the preview of its trials."""

    study: Study
    space: Space
    preview: Preview

    @property
    def folder(self) -> Path:
        """Return the study's folder, `<out>/<name>`; a scale other than 1 is part of its name."""
        scale = "" if self.space.scale == 1 else f"-x{self.space.scale:g}"
        return Path(self.space.base.out).expanduser() / f"{self.study.name}{scale}"


def prepare(which: Path | str, overrides: Mapping[str, Any] | Sequence[str] = (), scale: float = 1.0) -> Prepared:
    """Return a study ready to run, by its file or a shipped one's name; nothing is started.

    overrides: over its base, as `load_config` takes them. ConfigError or DataError lists what is wrong.
    """
    if not 0 < scale <= 1:
        raise ConfigError(f"the scale is {scale:g}: give one above 0, at most 1, such as 0.1")
    study, folder = load_study(which)
    base = base_config(study, folder, overrides)
    if base.data.source:  # a preview needs none
        sources.refuse_missing(base.data)  # before the encoder is looked for
    speed = timing.speed(base.out, base.model.name)
    prepared = previewed(study, Space(base, 0, study.seeds, scale), timing.size_of(whole(base)), speed)
    for trial, _ in prepared.preview.trials:  # a start may be a factor
        runs.refuse_missing_start(trial.configs[0])
    return prepared


def whole(base: Config) -> DataConfig:
    """Return the data settings with all training rows."""
    return base.data.model_copy(update={"train_rows": None})


def with_metric(prepared: Prepared, has_several: bool) -> Prepared:
    """Return the study with the score that is reported for its trials, if its settings leave that to the data: the
    usual one for rows with one label, or with several. ConfigError for claims that do not suit it."""
    base = prepared.space.base
    if base.train.metric is not None:
        return prepared
    metric = metrics.usual_metric(has_several)
    if problems := metric_problems(prepared.study, metric):
        raise ConfigError(*problems)
    space = replace(
        prepared.space, base=config.changed(base, {"train.metric": metric, "train.decide": base.train.deciding})
    )
    return replace(prepared, space=space)


def previewed(study: Study, space: Space, size: Size, speed: Speed) -> Prepared:
    """Return the study with the preview of its trials on data of this size; ConfigError for a race on too few rows."""
    if study.kind == "race" and size.n_validation < MIN_ROWS:
        raise ConfigError(
            f"kind is race, but there are only {size.n_validation} validation rows: give at least {MIN_ROWS} "
            "(data.validation), or use kind grid, which drops no trial"
        )
    space = replace(space, n_classes=size.n_classes)
    return Prepared(study, space, previews.preview(study, space, size, speed))

"""A study's record, `summary.json`: one type, written by `sweeps`, read by reports.

Everything on a study's page comes from this one file, so that a page can be made without its runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, FiniteFloat, PositiveInt, TypeAdapter, ValidationError

from submillion.config.fields import Section, setting
from submillion.errors import RunError
from submillion.judging.comparison import Standing, Verdict
from submillion.judging.metrics import NAMES, Score, height
from submillion.runs.files import read_json
from submillion.text import shown

FORMAT = 4  # of summary.json; raised when an older version could no longer read it
Kind = Literal["grid", "race", "one-factor", "two-stage", "random", "tpe"]
TrialState = Literal["done", "unfinished", "over budget", "diverged", "ruled out"]
_AT_THE_END = {"folder", "recommended", "scores", "n_test_reads", "rank_correlation", "notes", "comparison"}


def label(value: Any) -> str:
    """Return a value as tables show it, which is also how claims name a choice.

    >>> label(2e-05), label(None), label(["query", "key"])
    ('2e-05', 'null', 'query+key')
    """
    match value:
        case None:
            return "null"
        case float():
            return f"{value:.4g}"
        case list() | tuple():
            return "+".join(shown(part) if isinstance(part, (list, tuple, dict)) else label(part) for part in value)
        case dict() if any(isinstance(part, (list, tuple, dict)) for part in value.values()):
            return shown(value)  # no setting is as deep, and its text may be endless
        case _:
            return str(value)


def _labelled(values: Any) -> Any:
    return {label(key): value for key, value in values.items()} if isinstance(values, Mapping) else values


class Claim(Section):
    """A claim about one factor: which of its choices wins. Both the study file and `summary.json` hold it."""

    factor: str = setting(..., "the factor's name, else the last part of its key")
    winner: Annotated[str, BeforeValidator(label)] = setting(..., "the choice that is claimed to be the best")
    scores: Annotated[dict[str, FiniteFloat], BeforeValidator(_labelled)] = setting(
        {}, "scores of the study's metric that are claimed, by choice, such as 0.914"
    )
    rows: PositiveInt | None = setting(None, "how many rows the scores come from; null = not known")
    says: str | None = setting(None, "the claim in words, and what supports it")


@dataclass(frozen=True)
class FactorRecord:
    """A factor and its choices; None for a range, `log` if it is drawn on a logarithmic scale."""

    factor: str
    choices: tuple[str, ...] | None
    log: bool


@dataclass(frozen=True)
class Stage:
    """Trials that ran side by side, compared (None for fewer than two runs); `fixed` is the choice that later factors
    build on, None if there is none."""

    name: Annotated[str, Field(alias="stage")]
    fixed: str | None
    comparison: Verdict | None


@dataclass(frozen=True, kw_only=True)
class SeedScores:
    """A trial's validation scores, after selection: one per seed, and their mean once all are finished."""

    after_selection: bool = True
    mean: float | None
    by_seed: tuple[Score, ...]


@dataclass(frozen=True)
class Seconds:
    """How long a run's steps and evaluations took."""

    training: float
    evaluation: float


@dataclass(frozen=True)
class Point:
    """A trial's mean scaled log loss on all validation rows after a share of its steps."""

    share: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial: choices by factor, the settings that they mean, what it trains, and what became of it.

    total: parameters that would train · largest_rank: the largest that fits, if the trial exceeds the budget ·
    over_budget: the message then · resolved: the varied keys as in its config, ranks and alphas as planned · why: the
    reason for no result · course: in a race, how its first seed went.
    """

    stage: str
    choices: dict[str, str]
    settings: dict[str, Any]
    seeds: tuple[int, ...]
    rank: dict[str, int]
    total: int
    budget: int | None
    fits: bool
    largest_rank: int | None
    over_budget: str | None
    resolved: dict[str, Any]
    state: TrialState
    why: str | None
    runs: tuple[str, ...]
    # By the study's metric; earlier versions had accuracy alone, and called it so.
    validation_score: Annotated[
        SeedScores,
        Field(
            validation_alias=AliasChoices("validation_score", "validation_accuracy"),
            serialization_alias="validation_score",
        ),
    ]
    seconds: tuple[Seconds, ...]
    course: tuple[Point, ...] = ()

    @property
    def is_done(self) -> bool:
        """Say whether all its seeds are finished."""
        return self.state == "done"

    @property
    def training_s(self) -> float:
        """Return the seconds of steps, averaged over its runs."""
        return sum(each.training for each in self.seconds) / len(self.seconds)

    @property
    def evaluation_s(self) -> float:
        """Return the seconds of evaluations, averaged over its runs."""
        return sum(each.evaluation for each in self.seconds) / len(self.seconds)

    @property
    def name(self) -> str:
        """Return the trial's name: the one choice it tries in a study of one factor at a time, else all its choices."""
        if self.stage in self.choices:
            return f"{self.stage}={self.choices[self.stage]}"
        choices = ", ".join(f"{factor}={choice}" for factor, choice in self.choices.items())
        return f"{self.stage}: {choices}" if self.stage in ("short", "full") else choices


@dataclass(frozen=True)
class RankCorrelation:
    """How well short trials order settings as full ones do: Kendall's tau and Spearman's rho of n settings.

    of_all: rho of all settings, including those that the short trials dropped, estimated from the kept ones, with its
    approximate 95 % interval, in JSON low and high. None for fewer than 5 settings, or if all are tied.
    """

    n: int
    tau: float | None
    rho: float | None
    of_all_low: Annotated[float | None, Field(alias="low")]
    of_all_high: Annotated[float | None, Field(alias="high")]
    of_all: float | None = None


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study as in `summary.json`; fields that only a finished one has are absent before."""

    format: int
    study: str
    kind: Kind
    finished: bool
    n_planned: int
    scale: float
    encoder: str
    factors: tuple[FactorRecord, ...]
    claims: tuple[Claim, ...]
    stages: tuple[Stage, ...]
    trials: tuple[TrialRecord, ...]
    folder: str | None = None
    recommended: str | None = None
    scores: dict[str, dict[str, Score]] | None = None
    n_test_reads: int = 0
    rank_correlation: RankCorrelation | None = None
    notes: tuple[str, ...] = ()
    comparison: Verdict | None = None
    metric: str = "accuracy"
    tie_seeds: int | None = None

    @property
    def done(self) -> list[tuple[int, TrialRecord]]:
        """Return the finished trials with their numbers, from 1 in the order of the study."""
        return [(number, trial) for number, trial in enumerate(self.trials, start=1) if trial.is_done]

    @property
    def metric_name(self) -> str:
        """Return the name of the score that is reported for trials."""
        return NAMES[self.metric]

    @property
    def deciding(self) -> str:
        """Return the key of the score that decides; the metric if nothing was compared yet."""
        verdicts = (*(stage.comparison for stage in self.stages), self.comparison)
        return next((each.deciding for each in verdicts if each is not None), self.metric)

    @property
    def is_loss(self) -> bool:
        """Say whether a lower score is better."""
        return self.height(1.0) < 0

    def height(self, value: float) -> float:
        """Return a score of the study's metric, signed so that higher is better."""
        return height(self.metric, value)

    @property
    def encoder_name(self) -> str:
        """Return the encoder's name for people: a local one's without the folders of this machine."""
        return Path(self.encoder).name if Path(self.encoder).is_absolute() else self.encoder

    @property
    def recommended_run(self) -> str | None:
        """Return the name of the recommended run's folder."""
        return None if self.recommended is None else Path(self.recommended).name

    def values(self) -> dict[str, Any]:
        """Return the study as JSON holds it."""
        absent = None if self.finished else _AT_THE_END
        return _FORMAT.dump_python(self, mode="json", by_alias=True, exclude=absent)

    def first_of(self, standing: Standing) -> tuple[int, TrialRecord]:
        """Return the first trial of the main comparison's stage that has a setting's runs, with its number."""
        of_it = [(n, trial) for n, trial in self.done if trial.runs[0] in standing.runs]
        return next((each for each in of_it if each[1].stage == "full"), of_it[0])


_FORMAT = TypeAdapter(StudyRecord)


def is_study(folder: Path) -> bool:
    """Say whether a folder is a study's."""
    return (folder / "study.yaml").is_file() or (folder / "summary.json").is_file()


def read(folder: Path) -> StudyRecord:
    """Return the study of a folder; RunError if its summary is missing, damaged, or of another version."""
    path = folder / "summary.json"
    again = "run `submillion sweep` with the study again: it trains only what is not finished, and writes it"
    if not path.exists():
        raise RunError(f"{path} is missing: nothing of the study is finished; {again}")
    content = read_json(path)
    version = content.get("format") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise RunError(f"{path} has format {version}; this version reads {FORMAT}: update submillion")
    if isinstance(content, dict) and version is None:
        raise RunError(f"{path} has no format: an older version wrote it; {again}")
    try:
        return _checked(_FORMAT.validate_python(content), path, again)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3]]
        raise RunError(f"{path} is damaged ({'; '.join(problems)}): {again}") from None


def _checked(record: StudyRecord, path: Path, again: str) -> StudyRecord:
    """Refuse a record whose parts do not belong together: a page made from it would be wrong without looking wrong."""
    known = {run for _, trial in record.done for run in trial.runs}
    verdicts = [*(stage.comparison for stage in record.stages), record.comparison]
    unknown = [r for v in verdicts if v is not None for each in v.settings for r in each.runs if r not in known]
    broken = [str(number) for number, trial in record.done if not trial.runs or len(trial.seconds) != len(trial.runs)]
    problems = [f"no finished trial has the compared run {name}" for name in unknown[:3]]
    problems += [f"trial {number} is done and its runs are not all there" for number in broken[:3]]
    if record.finished and (record.recommended_run not in known or record.scores is None):
        problems.append("no finished trial has the recommended run, or its scores are missing")
    if problems:
        raise RunError(f"{path} is damaged ({'; '.join(problems)}): {again}")
    return record

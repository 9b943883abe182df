"""The study file: where it is, its keys, their checks, and what a factor's alternatives set.

Owns everything that can be said about a study before a row is read. Which trials follow is left to `strategies`,
what a trial costs to `trials`.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from submillion import config
from submillion.config import NOT_HASHED, Config, Metric
from submillion.config.fields import Section, setting
from submillion.config.loading import meant_key
from submillion.errors import ConfigError
from submillion.judging.comparison import EVALUATE_EVERY
from submillion.judging.metrics import usual_metric
from submillion.runs.study import Claim, Kind, label
from submillion.text import a_kind, did_you_mean, shown

_MOST_TRIALS = 2000  # of a minute each: more than a day
_MOST_SUBSETS_OF = 10  # 1,023 subsets
_SAME = (
    "data.source",
    "data.validation",
    "data.test",
    "data.seed",
    "data.label",
    "data.labels",
    "train.metric",
    "train.decide",
)
_EVERY = "train.evaluate_every"


@dataclass(frozen=True)
class Option:
    """One choice of a factor: what it is called, and the settings it stands for, by their full keys."""

    label: str
    settings: Mapping[str, Any] = field(hash=False)


class Alternative(Section):
    """A choice with a name that sets several keys."""

    label: Annotated[str, Field(min_length=1)]
    settings: dict[str, Any]


class Factor(Section):
    """What a study varies: values of one key, named alternatives, subsets of a list, or a range."""

    name: str | None = setting(None, "what tables call it; null = the key")
    key: str | None = setting(None, "a setting's full key, such as train.learning_rate")
    values: tuple[Any, ...] | None = setting(
        None, "the key's values; of adapter.alpha also multiples of the rank, such as 2r"
    )
    alternatives: tuple[Alternative, ...] | None = setting(None, "choices with a label that set several keys")
    subsets: tuple[str, ...] | None = setting(None, "every subset of these, but the empty one, is a value of the key")
    settings: dict[str, Any] = setting({}, "set along with every value, such as adapter.rank: null")
    low: float | int | None = setting(None, "the range's least value; kinds random and tpe")
    high: float | int | None = setting(None, "the range's greatest value")
    log: bool = setting(False, "draw from the range on a logarithmic scale")

    @property
    def title(self) -> str:
        """Return what tables call the factor."""
        return self.name or (self.key or "alternatives").rpartition(".")[2]

    @property
    def is_range(self) -> bool:
        """Say whether the factor is a range, which only random and tpe can draw from."""
        return self.low is not None or self.high is not None

    @model_validator(mode="after")
    def _one_kind(self) -> Factor:
        title = self.title
        kinds = [name for name in ("values", "alternatives", "subsets") if getattr(self, name) is not None]
        kinds += ["low and high"] * self.is_range
        if len(kinds) != 1:
            what = " and ".join(kinds) or "nothing"
            raise ValueError(f"factor {title} has {what}: give one of values, alternatives, subsets, or low and high")
        if kinds != ["low and high"] and not getattr(self, kinds[0]):
            raise ValueError(f"factor {title} is empty: give at least one of its {kinds[0]}")
        if (self.key is None) != (kinds == ["alternatives"]):
            raise ValueError(
                f"factor {title}: {kinds[0]} {'need a key' if self.key is None else 'name their own keys'}"
            )
        if self.is_range:
            self._check_range()
        if len(self.subsets or ()) > _MOST_SUBSETS_OF:
            raise ValueError(
                f"factor {title} has subsets of {len(self.subsets or ())}: give at most {_MOST_SUBSETS_OF}"
            )
        twice = [label for label, n in Counter(option.label for option in options(self)).items() if n > 1]
        if twice:
            raise ValueError(f"factor {title} has {', '.join(twice)} more than once: give each once")
        return self

    def _check_range(self) -> None:
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(f"factor {self.title}: low is {self.low} and high is {self.high}: give low below high")
        if self.log and self.low <= 0:
            raise ValueError(f"factor {self.title}: low is {self.low}, and a logarithmic range starts above 0")


class Base(Section):
    """The settings that all trials share."""

    recipe: str | None = setting(None, "a shipped recipe")
    config: str | None = setting(None, "a config file, its path counted from the study file")
    settings: dict[str, Any] = setting({}, "settings by their full keys, over the recipe's or the file's")


class Study(Section):
    """A study file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")] = setting(
        "study", "names the study's folder and the runs: letters, digits, dot, dash, underscore"
    )
    kind: Kind
    base: Base = Base()
    factors: Annotated[tuple[Factor, ...], Field(min_length=1)]
    seeds: Annotated[int, Field(gt=0, le=100)] = setting(1, "runs per setting, with train.seed, train.seed + 1, …")
    tie_seeds: Annotated[int, Field(gt=0, le=100)] | None = setting(
        None,
        "runs for each setting that cannot be told from the best; all get two before that is tested; null = no more",
    )
    fix: Literal["best", "cheapest"] = setting(
        "best", "one-factor: which choice the next factor builds on: the best score, or the cheapest of the tie group"
    )
    margin: Annotated[float, Field(ge=0, lt=1)] | None = setting(
        None, "take the cheapest setting at most this much worse than the best, such as 0.005; null = the cheapest tied"
    )
    keep: Annotated[int, Field(ge=2)] = setting(3, "two-stage: how many settings are trained in full")
    short: dict[str, Any] = setting({}, "two-stage: settings of the short trials")
    full: dict[str, Any] = setting({}, "two-stage: settings of the full ones")
    n_trials: Annotated[int, Field(gt=0, le=_MOST_TRIALS)] = setting(20, "random and tpe: settings that are tried")
    sampler_seed: Annotated[int, Field(ge=0, le=4000)] = setting(0, "random and tpe: which settings are drawn")
    split: Literal["validation", "test"] = setting("validation", "what trials are chosen on")
    claims: tuple[Claim, ...] = setting((), "which choices are expected, or were published, to win; the report judges")

    @model_validator(mode="after")
    def _agree(self) -> Study:
        problems = []
        if self.split == "test":
            problems.append(
                "split is test: trials are chosen on validation; test is opened once, by the recommended run"
            )
        if self.kind == "two-stage" and not (self.short and self.full):
            problems.append("kind is two-stage: give short and full, such as short: {train.epochs: 1}")
        if self.kind != "two-stage" and (self.short or self.full):
            problems.append(f"short and full are for kind two-stage, but kind is {self.kind}")
        if self.tie_seeds is not None and self.tie_seeds <= self.seeds:
            problems.append(
                f"tie_seeds is {self.tie_seeds} and seeds is {self.seeds}: give tie_seeds above seeds, such as 3"
            )
        ranges = [factor.title for factor in self.factors if factor.is_range]
        if ranges and self.kind not in ("random", "tpe"):
            problems.append(f"{', '.join(ranges)}: a range is for kinds random and tpe; give values for {self.kind}")
        n_trials = self._n_trials()
        if n_trials > _MOST_TRIALS:
            problems.append(f"the factors make {n_trials:,} trials: at most {_MOST_TRIALS:,} are run; vary less")
        problems += [*_race_problems(self, n_trials), *_key_problems(self), *_twice(self)]
        problems += _claim_problems(self.claims, _choices(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _n_trials(self) -> int:
        """How many trials there are, without the full ones of two stages."""
        n_choices = [len(options(factor)) for factor in self.factors]
        match self.kind:
            case "grid" | "two-stage" | "race":
                return math.prod(n_choices)
            case "one-factor":
                return sum(n_choices)
            case "random" | "tpe":  # drawn from a space of any size
                return self.n_trials


def options(factor: Factor) -> tuple[Option, ...]:
    """Return a factor's choices in their order; empty for a range."""
    beside = factor.settings
    if factor.alternatives is not None:
        return tuple(Option(each.label, {**beside, **each.settings}) for each in factor.alternatives)
    key = str(factor.key)
    if factor.subsets is not None:
        sets = [s for n in range(1, len(factor.subsets) + 1) for s in combinations(factor.subsets, n)]
        return tuple(Option("+".join(s), {**beside, key: list(s)}) for s in sets)
    return tuple(Option(label(value), {**beside, key: value}) for value in factor.values or ())


def study_names() -> list[str]:
    """Return the names of the studies that ship with the package, sorted."""
    return sorted(f.name.removesuffix(".yaml") for f in _studies().iterdir() if f.name.endswith(".yaml"))


def study_text(name: str) -> str:
    """Return a shipped study's YAML."""
    return (_studies() / f"{name}.yaml").read_text(encoding="utf-8")


def load_study(which: Path | str) -> tuple[Study, Path]:
    """Return a study, by its file or a shipped one's name, and the folder that its paths are relative to.

    ConfigError lists every problem of the file.
    """
    if not isinstance(which, str | os.PathLike):
        raise ConfigError(
            f"{a_kind(which)} is not a study: give its file, or a shipped one: {', '.join(study_names())}"
        )
    path = Path(which).expanduser()
    if not path.is_file() and str(which).removesuffix(".yaml") in study_names():
        path = Path(str(_studies() / f"{str(which).removesuffix('.yaml')}.yaml"))
    if not path.is_file():
        raise ConfigError(f"{which}: no such file, and no shipped study; {did_you_mean(which, study_names())}")
    return parse(config.read_mapping(path), path.name), path.parent


def _studies() -> Any:
    return resources.files("submillion") / "studies"


def parse(values: Mapping[str, Any], origin: str) -> Study:
    """Return the study of plain values; ConfigError lists every problem."""
    try:
        return Study.model_validate(values)
    except ValidationError as error:
        problems = [f"{origin}: {line}" for detail in error.errors() for line in _problem(detail).splitlines()]
        raise ConfigError(*dict.fromkeys(problems)) from None


def base_config(study: Study, folder: Path, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Config:
    """Return the settings that all trials share: the base's, overridden; its file is relative to `folder`."""
    file = None if study.base.config is None else folder / study.base.config
    settings = config.changed(config.load(file, study.base.recipe), study.base.settings, "base.settings")
    values = config.parse_overrides(overrides)
    varied = {key for factor in study.factors for key in keys_of(factor)} & values.keys()
    if varied:
        raise ConfigError(
            *(f"--set {key}: the study varies it; change the study file instead" for key in sorted(varied))
        )
    shared = config.changed(settings, {**values, "name": study.name}, "--set")
    problems = metric_problems(study, shared.train.metric or usual_metric(has_several=False))
    if study.kind == "race":
        problems += _evaluation_problems(shared)
        shared = shared if problems else _with_evaluations(shared)
    if problems:
        raise ConfigError(*problems)
    return shared


def _evaluation_problems(settings: Config) -> list[str]:
    every = settings.train.evaluate_every
    if every is None or every <= EVALUATE_EVERY:
        return []
    return [
        f"{_EVERY} is {every:g}, but a race compares trials at the same shares of their steps: give a fraction of at "
        f"most {EVALUATE_EVERY:g}, or null, which takes that one"
    ]


def _with_evaluations(settings: Config) -> Config:
    """The settings with evaluations at the shares where a race looks."""
    return config.changed(settings, {_EVERY: settings.train.evaluate_every or EVALUATE_EVERY}, "the race's")


def metric_problems(study: Study, metric: Metric) -> list[str]:
    """Return the claimed scores that the ranking metric cannot have, as problems."""
    problems = []
    least, most = {"log-loss": (0.0, math.inf), "mcc": (-1.0, 1.0)}.get(metric, (0.0, 1.0))
    problems += [
        f"claims.{i}.scores.{label} is {value:g}, but claimed scores are of train.metric, {metric}: give {least:g} to "
        f"{most:g}"
        for i, claim in enumerate(study.claims)
        for label, value in claim.scores.items()
        if not least <= value <= most
    ]
    return problems


def keys_of(factor: Factor) -> set[str]:
    """Return every key that a factor sets."""
    own = {factor.key} if factor.key is not None else set[str]()
    return own | {key for option in options(factor) for key in option.settings}


def _key_problems(study: Study) -> list[str]:
    problems = []
    named = [("base", study.base.settings), ("short", study.short), ("full", study.full)]
    named += [(f"factor {factor.title}", keys_of(factor)) for factor in study.factors]
    for where, keys in named:
        for key in sorted(keys):
            if problem := _unknown(key):
                problems.append(f"{where}: {problem}")
            elif where != "base" and key in (*NOT_HASHED, *_SAME):
                problems.append(f"{where}: {key} is the same for all trials; set it in base")
            elif where != "base" and key == "train.seed":
                problems.append(f"{where}: train.seed cannot be a factor; seeds: 3 trains each setting with three")
    return problems


def _race_problems(study: Study, n_trials: int) -> list[str]:
    """What prevents a comparison of trials at the same shares of their schedules."""
    if study.kind != "race":
        return []
    problems = ["kind is race, but the factors make one trial: vary more, or use kind grid"] if n_trials == 1 else []
    return problems + [
        f"kind is race, but factor {factor.title} varies {key}: trials are compared side by side, on the same rows; "
        "set it in base, or use kind grid"
        for factor in study.factors
        for key in sorted(keys_of(factor))
        if key == _EVERY or (key.startswith("data.") and key != "data.train_rows")
    ]


def _unknown(key: str) -> str | None:
    section: Any = Config
    for part in key.split("."):
        fields = section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else {}
        if part not in fields:
            return f"unknown key {key}: {meant_key(part, fields) if fields else 'it is not a section'}"
        section = fields[part].annotation
    return (
        f"{key} is a section: name one of its keys"
        if isinstance(section, type) and issubclass(section, BaseModel)
        else None
    )


def _choices(study: Study) -> dict[str, list[str] | None]:
    return {f.title: None if f.is_range else [option.label for option in options(f)] for f in study.factors}


def _claim_problems(claims: Sequence[Claim], choices: Mapping[str, Sequence[str] | None]) -> list[str]:
    """What is wrong with the claims; choices: each factor's labels, None for a range."""
    problems = []
    for claim in claims:
        if claim.factor not in choices:
            problems.append(f"a claim names factor {claim.factor}: {did_you_mean(claim.factor, choices)}")
            continue
        labels = choices[claim.factor]
        if labels is None:
            problems.append(
                f"a claim names factor {claim.factor}, which is a range: only choices can be claimed to win"
            )
            continue
        unknown = [name for name in dict.fromkeys((claim.winner, *claim.scores)) if name not in labels]
        problems += [
            f"the claim about {claim.factor} names {name!r}, which is not a choice: {did_you_mean(name, labels)}"
            for name in unknown
        ]
    return problems


def _twice(study: Study) -> list[str]:
    """Two factors on one key; in a one-factor study, one may set a fixed factor's key again beside its own."""
    sets = [{factor.key} - {None} if study.kind == "one-factor" else keys_of(factor) for factor in study.factors]
    problems = [
        f"factors {a.title} and {b.title} both vary {key}: keep one"
        for (a, keys_a), (b, keys_b) in combinations(zip(study.factors, sets, strict=True), 2)
        for key in sorted(map(str, keys_a & keys_b))
    ]
    titles = Counter(factor.title for factor in study.factors)
    return problems or [f"two factors are called {title}: give one a name" for title, n in titles.items() if n > 1]


def _problem(detail: Any) -> str:
    """One pydantic error as a sentence."""
    where = ".".join(str(part) for part in detail["loc"])
    if where == "stop_early":
        return "stop_early was removed: kind: race drops trials of a grid that can no longer win; leave stop_early out"
    if detail["type"] == "extra_forbidden":
        sections = {"factors": Factor, "base": Base, "claims": Claim}
        section = sections.get(str(detail["loc"][0]), Study) if len(detail["loc"]) > 1 else Study
        return f"unknown key {where}: {did_you_mean(detail['loc'][-1], section.model_fields)}"
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    if where == "factors" and detail["type"] == "too_short":
        return "factors is empty: name at least one"
    what = "" if detail["type"] == "missing" else f" is {shown(detail['input'])}"
    return f"{where}{what}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"

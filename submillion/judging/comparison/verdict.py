"""What a comparison concludes, as `submillion compare` and studies write it down, and the sentences that say it.

Owns the JSON of a verdict; it has no predictions. `conclusion` decides what is concluded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from submillion.judging.comparison.paired import LEVEL
from submillion.judging.metrics import LOSSES, Score, height

Split = Literal["validation", "test"]


@dataclass(frozen=True)
class Tested:
    """A difference with its 95 % interval, the p value of "there is none", and that value corrected by Holm over all
    pairs of settings."""

    value: float
    low: float
    high: float
    n: int
    p: float
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A setting with its scores.

    keys: those of the config that differ within the comparison, with this setting's values · named_by: these keys, or
    its first run if they are too many; not written down · runs: their folders' names · after_selection: a checkpoint
    was chosen on the rows of the scores · training_s: mean of the runs · corrected: the score that is
    reported first, without the luck of that choice, None if nothing was chosen or it is not known.
    """

    name: Annotated[str, Field(alias="setting")]
    keys: dict[str, str] = field(default_factory=dict)
    named_by: Annotated[Literal["keys", "run"], Field(exclude=True)] = "keys"
    runs: tuple[str, ...]
    n_seeds: int
    scores: dict[str, Score]
    after_selection: bool
    n_params: int
    training_s: float
    corrected: Score | None = None


@dataclass(frozen=True)
class Pair:
    """How a setting compares with the best: differences by metric, its score minus the best's; whether the tests are
    about the settings or only about these runs; tied, if the score that decides cannot be told from the best's."""

    setting: str
    about: Literal["settings", "runs"]
    is_tied: bool
    differences: dict[str, Tested]

    def told(self, metric: str) -> Literal["better", "worse"] | None:
        """Return what a score's own test says about the setting and the best, at 0.05 after Holm; None if nothing."""
        difference = self.differences[metric]
        if difference.p_holm > LEVEL or difference.value == 0:
            return None
        return "better" if height(metric, difference.value) > 0 else "worse"

    def most_lost(self, metric: str) -> float:
        """Return by how much the setting is worse than the best at most, by the key of a score: at least 0."""
        difference = self.differences[metric]
        return max(difference.high if metric in LOSSES else -difference.low, 0.0)


@dataclass(frozen=True)
class Needed:
    """Rows with which a test finds a difference with a chance of 0.8 at level 0.05, and the seeds of each setting."""

    n_rows: int
    n_seeds: int


@dataclass(frozen=True)
class RowsNeeded:
    """What separates the two best in a test of these two alone, if the true difference of the reported score is this
    one: an assumed one, the one that was seen, or the largest that these rows allow, the far end of its 95 % interval,
    which takes the fewest rows.

    by_score: with its own test · by_log_loss: with the scaled log loss's, which is assumed to differ by 0.58 of the
    errors' proportion (benchmarks/rows.py), except that the difference seen has its own. None if nothing that was tried
    would do, or if the log loss was seen to differ the other way.
    """

    difference: float
    basis: Literal["assumed", "seen", "largest"]
    by_score: Needed | None
    by_log_loss: Needed | None


@dataclass(frozen=True)
class Verdict:
    """What may be said of settings on one split; in Python some names are shorter than their keys in JSON.

    settings: best first, by what decides · pairs: each other setting against the best, in the same order · group: the
    best and those that cannot be told from it · recommended: a setting's name, None on the test split · notes:
    sentences to print · metric: the key of the score that is reported first · decides: the key of the one that decides,
    None if that is `metric` · rows_needed: to separate the two best, the smallest difference first; empty if they are
    told apart already, or there is one setting · margin: by how much the recommended setting may be worse than the
    best, in `metric`, None if any tied one may be taken · corrected: the best score without the luck of having been
    chosen among settings and checkpoints, None if that is not known · may_be_best: names of the settings among which
    the truly best one is by what decides, with 95 % confidence; empty for fewer than three.
    """

    split: Split
    n_rows: int
    settings: tuple[Standing, ...]
    pairs: Annotated[tuple[Pair, ...], Field(alias="against_best")]
    group: Annotated[tuple[str, ...], Field(alias="tie_group")]
    recommended: str | None
    notes: tuple[str, ...]
    metric: str = "accuracy"
    decides: str | None = None
    rows_needed: tuple[RowsNeeded, ...] = ()
    margin: float | None = None
    corrected: Score | None = None
    may_be_best: tuple[str, ...] = ()

    @property
    def deciding(self) -> str:
        """Return the key of the score that decides."""
        return self.decides or self.metric

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys that differ, if they are too many for the settings to be named by them; else none."""
        return tuple(
            dict.fromkeys(key for standing in self.settings if standing.named_by == "run" for key in standing.keys)
        )

    @property
    def about(self) -> Literal["settings", "runs"]:
        """Return what the tests of those that tie with the best are about, else of all: settings, or these runs,
        if one has a single seed."""
        relevant = [pair for pair in self.pairs if pair.is_tied] or self.pairs
        return "settings" if all(pair.about == "settings" for pair in relevant) else "runs"

    def against(self, standing: Standing) -> Pair | None:
        """Return how a setting compares with the best; None for the best itself."""
        return next((pair for pair in self.pairs if pair.setting == standing.name), None)

    def most_lost(self, standing: Standing) -> float:
        """Return by how much a setting is worse than the best at most: the far end of their 95 % interval, at least 0;
        0 for the best itself."""
        pair = self.against(standing)
        return 0.0 if pair is None else pair.most_lost(self.metric)

    def is_tied(self, standing: Standing) -> bool:
        """Say whether a setting is the best, or cannot be told from it."""
        return standing.name in self.group

    def of_run(self, run: str) -> Standing | None:
        """Return the setting that a run belongs to."""
        return next((standing for standing in self.settings if run in standing.runs), None)


_FORMAT = TypeAdapter(Verdict)


def values(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict's JSON values."""
    return _FORMAT.dump_python(verdict, mode="json", by_alias=True)


def p_value(p: float) -> str:
    """Return a p value as tables show it.

    >>> p_value(0.03125), p_value(1e-9)
    ('0.0312', '< 0.0001')
    """
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"

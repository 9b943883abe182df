"""What a comparison concludes, as `submillion compare` and studies write it down, and the sentences that say it.

Owns the JSON of a verdict; predictions stay out of it. What is concluded was decided in `conclusion`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from submillion.judging.metrics import Score

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
    its first run where they are too many; not written down · runs: their folders' names · after_selection: a checkpoint
    was chosen on the rows of the scores · training_s: mean of the runs.
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


@dataclass(frozen=True)
class Pair:
    """How a setting stands to the best one: differences by metric, its score minus the best's; whether the tests speak
    of the settings or only of these runs; tied, if its accuracy cannot be told from the best's."""

    setting: str
    about: Literal["settings", "runs"]
    is_tied: bool
    differences: dict[str, Tested]


@dataclass(frozen=True)
class Verdict:
    """What may be said of settings on one split; in Python some names are shorter than their keys in JSON.

    settings: best accuracy first · pairs: each other setting against the best, in the same order · group: the best and
    those that cannot be told from it · recommended: a setting's name, None on the test split · n_rows_needed:
    validation rows that would separate the two best, None where they are told apart already, no number would do, or
    there is one setting · notes: sentences worth printing.
    """

    split: Split
    n_rows: int
    settings: tuple[Standing, ...]
    pairs: Annotated[tuple[Pair, ...], Field(alias="against_best")]
    group: Annotated[tuple[str, ...], Field(alias="tie_group")]
    recommended: str | None
    n_rows_needed: int | None
    notes: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the keys that differ, where they are too many for the settings to be named by them; else none."""
        return tuple(dict.fromkeys(key for each in self.settings if each.named_by == "run" for key in each.keys))

    @property
    def about(self) -> Literal["settings", "runs"]:
        """Return what the tests of those that tie with the best are about, else of all: settings, or these runs,
        where one has a single seed."""
        spoken_of = [pair for pair in self.pairs if pair.is_tied] or self.pairs
        return "settings" if all(pair.about == "settings" for pair in spoken_of) else "runs"

    def against(self, standing: Standing) -> Pair | None:
        """Return how a setting stands to the best; None of the best itself."""
        return next((pair for pair in self.pairs if pair.setting == standing.name), None)

    def is_tied(self, standing: Standing) -> bool:
        """Say whether a setting is the best, or cannot be told from it."""
        return standing.name in self.group

    def of_run(self, run: str) -> Standing | None:
        """Return the setting that a run belongs to."""
        return next((each for each in self.settings if run in each.runs), None)


_FORMAT = TypeAdapter(Verdict)


def values(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as JSON holds it."""
    return _FORMAT.dump_python(verdict, mode="json", by_alias=True)


def p_value(p: float) -> str:
    """Return a p value as tables have it.

    >>> p_value(0.03125), p_value(1e-9)
    ('0.0312', '< 0.0001')
    """
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"

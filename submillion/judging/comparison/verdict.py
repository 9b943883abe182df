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


def sentences(verdict: Verdict) -> list[str]:
    """Return the conclusion in sentences; settings by their number, the best first, from 1."""
    if not verdict.pairs:
        return []
    numbers = {setting.name: number for number, setting in enumerate(verdict.settings, start=1)}
    group = [numbers[name] for name in verdict.group]
    lines = [_group_sentence(verdict, group)]
    if verdict.recommended is not None:
        number = numbers[verdict.recommended]
        setting = verdict.settings[number - 1]
        reason = "the only one left" if len(group) == 1 else "the cheapest of these"
        cost = f"{setting.n_params:,} parameters, {setting.training_s:,.1f} s of training"
        lines.append(f"take {number}, {reason} ({cost}): {setting.name}")
    return [*lines, _rows_sentence(verdict)] if verdict.pairs[0].is_tied else lines


def _group_sentence(verdict: Verdict, group: list[int]) -> str:
    what: str = verdict.about
    if len(verdict.settings) == 2:
        several = what == "runs" and sum(len(setting.runs) for setting in verdict.settings) > 2
        what = "the runs of 1 and 2" if several else f"these two {what}"
        return f"{what} cannot be told apart" if len(group) == 2 else f"{what} differ: 1 is better than 2"
    if len(group) == 1:
        return f"1 is better than each other of these {what}"
    return f"these {what} cannot be told from the best: {', '.join(map(str, group))}"


def _rows_sentence(verdict: Verdict) -> str:
    difference = verdict.pairs[0].differences["accuracy"].value
    if difference == 0:
        return "1 and 2 have the same accuracy on these rows: there is no difference that more rows could confirm"
    if verdict.n_rows_needed is None:
        return "no number of rows would separate 1 and 2: their seeds vary too much; train more of them"
    return (
        f"to separate 1 and 2 about {verdict.n_rows_needed:,} {verdict.split} rows are needed, if the true difference "
        f"is the one seen ({abs(difference):.4f}; power 0.8, level 0.05, these two alone); there are "
        f"{verdict.n_rows:,}"
    )

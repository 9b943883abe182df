"""A comparison as pages show it, typed: read from its plain values, which `submillion compare` and studies write.

Owns the words and the table of a comparison that the page of runs and the page of a study share. What is concluded
was decided in `comparison`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

from submillion.judging.comparison import p_value
from submillion.judging.metrics import Score
from submillion.reports.sections import Table
from submillion.text import interval


@dataclass(frozen=True)
class Tested:
    """A difference with its 95 % interval, the p value of "there is none", and that value corrected by Holm."""

    value: float
    low: float
    high: float
    n: int
    p: float
    p_holm: float


@dataclass(frozen=True)
class Against:
    """How a setting stands to the best: differences by metric, its score minus the best's."""

    setting: str
    about: Literal["settings", "runs"]
    is_tied: bool
    differences: dict[str, Tested]


@dataclass(frozen=True)
class Standing:
    """A setting with its scores; training_s is the mean of its runs, keys are those that differ, with its values."""

    setting: str
    runs: tuple[str, ...]
    scores: dict[str, Score]
    after_selection: bool
    n_params: int
    training_s: float
    keys: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """A comparison: settings best first, and each other one against the best, in the same order."""

    split: Literal["validation", "test"]
    n_rows: int
    settings: tuple[Standing, ...]
    against_best: tuple[Against, ...]
    tie_group: tuple[str, ...]
    recommended: str | None
    n_rows_needed: int | None
    notes: tuple[str, ...]

    def against(self, standing: Standing) -> Against | None:
        """Return how a setting stands to the best; None of the best itself."""
        return next((each for each in self.against_best if each.setting == standing.setting), None)

    def is_tied(self, standing: Standing) -> bool:
        """Say whether a setting is the best, or cannot be told from it."""
        return standing.setting in self.tie_group

    def of_run(self, run: str) -> Standing | None:
        """Return the setting that a run belongs to."""
        return next((each for each in self.settings if run in each.runs), None)

    @property
    def about(self) -> str:
        """Return what the tests of those that tie with the best speak of, else of all: settings, or these runs,
        where one has a single seed."""
        spoken_of = [each for each in self.against_best if each.is_tied] or self.against_best
        return "settings" if all(each.about == "settings" for each in spoken_of) else "runs"


def rows_sentences(verdict: Verdict, names: dict[str, str]) -> list[str]:
    """Return how many rows would separate the two best settings, by these names, in a sentence; none if they differ."""
    return [_rows_sentence(verdict, names)] if verdict.against_best and verdict.against_best[0].is_tied else []


def _rows_sentence(verdict: Verdict, names: dict[str, str]) -> str:
    first, second = (names[each.setting] for each in verdict.settings[:2])
    value = verdict.against_best[0].differences["accuracy"].value
    if value == 0:
        return f"The two best, {first} and {second}, have the same accuracy: more rows have nothing to confirm."
    if verdict.n_rows_needed is None:
        return f"No number of rows would separate the two best, {first} and {second}: their seeds vary too much."
    return (
        f"To separate the two best, {first} and {second}, about {verdict.n_rows_needed:,} {verdict.split} rows are "
        f"needed, if the true difference is the one seen ({abs(value):.4f}; power 0.8, level 0.05, these two alone); "
        f"there are {verdict.n_rows:,}."
    )


def pairs_table(verdict: Verdict, names: dict[str, str]) -> Table:
    """Return each other setting against the best, every metric."""
    rows = [
        (
            names[each.setting],
            metric.replace("_", " "),
            interval(found, sign="+"),
            p_value(found.p),
            p_value(found.p_holm),
            ("tie" if each.is_tied else "worse") if metric == "accuracy" else "",
        )
        for each in verdict.against_best
        for metric, found in each.differences.items()
    ]
    best = names[verdict.settings[0].setting]
    heads = ("", "metric", "difference", "p", "p (Holm)", "accuracy says")
    return Table(f"Each of the others minus {best}; Holm's correction is over all pairs", heads, rows)


def verdict_of(values: dict[str, Any]) -> Verdict:
    """Return a comparison from its plain values, as `comparison.values` gives them."""
    return TypeAdapter(Verdict).validate_python(values)

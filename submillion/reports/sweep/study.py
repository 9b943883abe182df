"""A study as its pages tell it: the `Summary` and what follows from it, and nothing drawn or worded.

No score, test or tie is computed here: each stands in `summary.json`, but for the intervals of claims.
"""

from __future__ import annotations

from dataclasses import dataclass

from submillion.judging.metrics import Score
from submillion.reports.sweep import claims, panels
from submillion.reports.sweep.claims import Judged
from submillion.reports.sweep.panels import Panel
from submillion.reports.sweep.reading import Summary, Trial, name_of
from submillion.reports.verdicts import Standing, Tested


@dataclass(frozen=True)
class Entry:
    """A setting that was compared, by the number and the name of the first trial that asked for it.

    difference: its accuracy minus the best's, None of the best itself.
    """

    number: int
    name: str
    runs: tuple[str, ...]
    score: Score
    difference: Tested | None
    is_tied: bool
    is_recommended: bool
    n_params: int
    training_s: float


@dataclass(frozen=True)
class Pair:
    """A setting that was kept for full training: the number of its full trial, and both results."""

    number: int
    name: str
    short: Score
    full: Score


@dataclass(frozen=True)
class StudyReport:
    """A study's report. entries: the best first, empty before the study is finished · frontier: those that no cheaper
    one reaches, the cheapest first · timed: finished trials whose runs no earlier one has, with their numbers."""

    name: str
    summary: Summary
    entries: list[Entry]
    panels: list[Panel]
    claims: list[Judged]
    frontier: list[Entry]
    pairs: list[Pair]
    timed: list[tuple[int, Trial]]

    @property
    def group(self) -> list[Entry]:
        """Return the settings that are the best, or cannot be told from it."""
        return [entry for entry in self.entries if entry.is_tied]

    @property
    def recommended(self) -> Entry | None:
        """Return the recommended setting."""
        return next((entry for entry in self.entries if entry.is_recommended), None)


def make(name: str, summary: Summary) -> StudyReport:
    """Return the report of a study; name: its folder's."""
    entries, found = _entries(summary), panels.panels(summary)
    return StudyReport(
        name=name,
        summary=summary,
        entries=entries,
        panels=found,
        claims=claims.judge(summary.claims, found),
        frontier=_frontier(entries),
        pairs=_pairs(summary),
        timed=list({trial.runs: (number, trial) for number, trial in reversed(summary.done)}.values())[::-1],
    )


def _entries(summary: Summary) -> list[Entry]:
    verdict = summary.comparison
    if verdict is not None:
        return [_entry(summary, standing) for standing in verdict.settings]
    if not summary.finished:
        return []
    number, trial = summary.done[-1]
    score = trial.validation_accuracy.by_seed[0]
    return [Entry(number, name_of(trial), trial.runs, score, None, True, True, trial.total, trial.training_s)]


def _entry(summary: Summary, standing: Standing) -> Entry:
    verdict = summary.comparison
    assert verdict is not None
    number, trial = summary.first_of(standing)
    against = verdict.against(standing)
    return Entry(
        number=number,
        name=name_of(trial),
        runs=standing.runs,
        score=standing.scores["accuracy"],
        difference=None if against is None else against.differences["accuracy"],
        is_tied=verdict.is_tied(standing),
        is_recommended=summary.recommended_run in standing.runs,
        n_params=standing.n_params,
        training_s=standing.training_s,
    )


def _frontier(entries: list[Entry]) -> list[Entry]:
    found: list[Entry] = []
    for entry in sorted(entries, key=lambda each: (each.n_params, -each.score.value)):
        if not found or entry.score.value > found[-1].score.value:
            found.append(entry)
    return found


def _pairs(summary: Summary) -> list[Pair]:
    """The kept settings' short and full scores; several seeds have theirs in the comparison of their stage."""
    short = {str(trial.choices): _score(summary, trial) for _, trial in summary.done if trial.stage == "short"}
    full = [(number, trial) for number, trial in summary.done if trial.stage == "full"]
    found = [(n, name_of(trial), short.get(str(trial.choices)), _score(summary, trial)) for n, trial in full]
    return [Pair(number, name, a, b) for number, name, a, b in found if a is not None and b is not None]


def _score(summary: Summary, trial: Trial) -> Score | None:
    verdict = next((stage.comparison for stage in summary.stages if stage.stage == trial.stage), None)
    standing = None if verdict is None else verdict.of_run(trial.runs[0])
    if standing is not None:
        return standing.scores["accuracy"]
    return trial.validation_accuracy.by_seed[0] if len(trial.runs) == 1 else None

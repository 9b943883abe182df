"""A study as its pages show it: its record and what follows from it for entries, factors and claims; nothing is drawn.

No score, test or tie is computed here: all are in `summary.json`, except the intervals of claims.

In a one-factor study, a factor's own trials were compared among themselves. Elsewhere a choice is represented by its
best trial: the first in the order of scores that is tied with the best of all, else simply the first. A claim says
which choice of a factor wins. It holds if every other choice is told from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from submillion.judging.comparison import Standing, Tested, Verdict
from submillion.judging.metrics import Score, wilson
from submillion.runs.study import Claim, FactorRecord, StudyRecord, TrialRecord

Judgement = Literal["holds", "told apart against it", "a tie", "not tested here"]


@dataclass(frozen=True)
class Compared:
    """A setting that was compared, by the number and the name of the first trial that tried it.

    difference: its score minus the best's, None for the best itself · decided: the same for the score that decides ·
    is_pursued: it got as many seeds as the tied ones.
    """

    number: int
    name: str
    runs: tuple[str, ...]
    score: Score
    difference: Tested | None
    decided: Tested | None
    is_tied: bool
    is_recommended: bool
    n_params: int
    training_s: float
    is_pursued: bool = True


@dataclass(frozen=True)
class Kept:
    """A setting that was kept for full training: the number of its full trial, and both results."""

    number: int
    name: str
    short: Score
    full: Score


@dataclass(frozen=True)
class Choice:
    """A choice with the trial that represents it: its score over its seeds, and its difference to the best.

    score is None if no trial finished, or several seeds were not compared yet; difference and decided, the same for the
    score that decides, are None for the best one and if nothing was compared · is_fixed: later factors build on it, or
    the recommended run has it · why: the reason for no score.
    """

    label: str
    trial: int | None
    runs: tuple[str, ...]
    n_params: int | None
    score: Score | None
    difference: Tested | None
    decided: Tested | None
    is_tied: bool
    is_fixed: bool
    why: str | None = None
    is_pursued: bool = True


@dataclass(frozen=True)
class Panel:
    """A factor: its choices in their order, and what was found: one is told from all others, a tie, or nothing.

    given: the choices of earlier factors that all its trials share · about: what its tests are about.
    """

    factor: str
    is_range: bool
    is_log: bool
    given: dict[str, str]
    choices: tuple[Choice, ...]
    found: Literal["told apart", "tie", "not compared"]
    n_rows: int | None
    about: Literal["settings", "runs"] = "settings"

    @property
    def tied(self) -> list[Choice]:
        """Return the choices that are the best, or cannot be told from it."""
        return [choice for choice in self.choices if choice.is_tied]

    @property
    def scored(self) -> list[Choice]:
        """Return the choices that have a score."""
        return [choice for choice in self.choices if choice.score is not None]

    @property
    def best(self) -> Choice | None:
        """Return the best choice, which the others are compared with."""
        compared = [choice for choice in self.scored if choice.is_tied and choice.difference is None]
        return next(iter(compared), None)

    @property
    def fixed(self) -> Choice | None:
        """Return the choice that later factors build on, or that the recommended run has."""
        return next((choice for choice in self.choices if choice.is_fixed), None)


@dataclass(frozen=True)
class Judged:
    """A claim and what was measured: the claimed choice, and its rival.

    claimed: the scores that were claimed, by choice; accuracies with Wilson's interval on the claim's own rows. Without
    rows, and for other scores, there is none, and n is 0 · rival: the best choice here, or if that is the claimed one
    the best of the others · why: the reason why it could not be tested.
    """

    claim: Claim
    judgement: Judgement
    claimed: dict[str, Score]
    measured: Choice | None
    rival: Choice | None
    why: str | None = None


@dataclass(frozen=True)
class StudyReport:
    """A study's report. entries: the best first, empty before the study is finished · frontier: those that no cheaper
    one matches, the cheapest first · timed: finished trials whose runs no earlier one has, with their numbers."""

    name: str
    summary: StudyRecord
    entries: list[Compared]
    panels: list[Panel]
    claims: list[Judged]
    frontier: list[Compared]
    pairs: list[Kept]
    timed: list[tuple[int, TrialRecord]]

    @property
    def group(self) -> list[Compared]:
        """Return the settings that are the best, or cannot be told from it."""
        return [entry for entry in self.entries if entry.is_tied]

    @property
    def recommended(self) -> Compared | None:
        """Return the recommended setting."""
        return next((entry for entry in self.entries if entry.is_recommended), None)


def make(name: str, summary: StudyRecord) -> StudyReport:
    """Return the report of a study; name: its folder's."""
    entries, factor_panels = _entries(summary), panels(summary)
    return StudyReport(
        name=name,
        summary=summary,
        entries=entries,
        panels=factor_panels,
        claims=judge(summary, factor_panels),
        frontier=_frontier(entries, summary),
        pairs=_pairs(summary),
        timed=list({trial.runs: (number, trial) for number, trial in reversed(summary.done)}.values())[::-1],
    )


def _entries(summary: StudyRecord) -> list[Compared]:
    verdict = summary.comparison
    if verdict is not None:
        return [_entry(summary, standing) for standing in verdict.settings]
    if not summary.finished:
        return []
    number, trial = summary.done[-1]
    score = trial.validation_score.by_seed[0]
    return [Compared(number, trial.name, trial.runs, score, None, None, True, True, trial.total, trial.training_s)]


def _entry(summary: StudyRecord, standing: Standing) -> Compared:
    verdict = summary.comparison
    assert verdict is not None
    number, trial = summary.first_of(standing)
    against = verdict.against(standing)
    return Compared(
        number=number,
        name=trial.name,
        runs=standing.runs,
        score=standing.scores[verdict.metric],
        difference=None if against is None else against.differences[verdict.metric],
        decided=None if against is None else against.differences[verdict.deciding],
        is_tied=verdict.is_tied(standing),
        is_recommended=summary.recommended_run in standing.runs,
        n_params=standing.n_params,
        training_s=standing.training_s,
        is_pursued=is_pursued(standing, verdict, summary.tie_seeds),
    )


def is_pursued(standing: Standing, verdict: Verdict, tie_seeds: int | None) -> bool:
    """Say whether a setting got as many seeds as a study gives those that tie; if none got more, all did."""
    return standing.n_seeds >= min(max(each.n_seeds for each in verdict.settings), tie_seeds or 0)


def _frontier(entries: list[Compared], summary: StudyRecord) -> list[Compared]:
    frontier: list[Compared] = []
    for entry in sorted(entries, key=lambda each: (each.n_params, -summary.height(each.score.value))):
        if not frontier or summary.height(entry.score.value) > summary.height(frontier[-1].score.value):
            frontier.append(entry)
    return frontier


def _pairs(summary: StudyRecord) -> list[Kept]:
    """The kept settings' short and full scores by the key that decides, which are correlated."""
    key = summary.deciding
    short = {str(trial.choices): score_of(summary, trial, key) for _, trial in summary.done if trial.stage == "short"}
    full = [(number, trial) for number, trial in summary.done if trial.stage == "full"]
    kept = [(n, trial.name, short.get(str(trial.choices)), score_of(summary, trial, key)) for n, trial in full]
    return [Kept(number, name, a, b) for number, name, a, b in kept if a is not None and b is not None]


def score_of(summary: StudyRecord, trial: TrialRecord, key: str | None = None) -> Score | None:
    """Return a finished trial's score with its interval: its stage's comparison's, over its seeds, else its only
    run's. key: the score's; None is the metric's."""
    verdict = next((stage.comparison for stage in summary.stages if stage.name == trial.stage), None)
    standing = None if verdict is None else verdict.of_run(trial.runs[0])
    if standing is not None and verdict is not None:
        return standing.scores[key or verdict.metric]
    return trial.validation_score.by_seed[0] if len(trial.runs) == 1 and key in (None, summary.metric) else None


def panels(summary: StudyRecord) -> list[Panel]:
    """Return a panel for each factor that any trial has tried."""
    factor_panels = [_panel(summary, factor) for factor in summary.factors]
    return [panel for panel in factor_panels if panel.choices]


def _panel(summary: StudyRecord, factor: FactorRecord) -> Panel:
    title, number = factor.factor, [each.factor for each in summary.factors].index(factor.factor)
    trials = _trials(summary, title)
    verdict, fixed = _verdict(summary, title), _fixed(summary, title)
    labels = list(dict.fromkeys(trial.choices[title] for _, trial in trials))
    if factor.choices is None:
        labels.sort(key=float)
    elif labels:
        labels = list(factor.choices)
    choices = tuple(
        _choice(label, fixed, [e for e in trials if e[1].choices[title] == label], verdict, summary) for label in labels
    )
    earlier = [each.factor for each in summary.factors[:number]] if summary.kind == "one-factor" else []
    return Panel(
        factor=title,
        is_range=factor.choices is None,
        is_log=factor.log,
        given={name: trials[0][1].choices[name] for name in earlier if trials},
        choices=choices,
        found=_found(choices, verdict),
        n_rows=None if verdict is None else verdict.n_rows,
        about="settings" if verdict is None else verdict.about,
    )


def _trials(summary: StudyRecord, title: str) -> list[tuple[int, TrialRecord]]:
    """The trials that a factor is judged by: its own stage's, or the short ones, or all."""
    stages = {"one-factor": title, "two-stage": "short"}
    wanted = stages.get(summary.kind)
    return [each for each in enumerate(summary.trials, start=1) if wanted in (None, each[1].stage)]


def _verdict(summary: StudyRecord, title: str) -> Verdict | None:
    """The comparison of these trials."""
    if summary.kind not in ("one-factor", "two-stage"):
        return summary.comparison
    name = title if summary.kind == "one-factor" else "short"
    return next((stage.comparison for stage in summary.stages if stage.name == name), None)


def _fixed(summary: StudyRecord, title: str) -> str | None:
    """The choice that was fixed; else the recommended run's."""
    if summary.kind == "one-factor":
        return next((stage.fixed for stage in summary.stages if stage.name == title), None)
    of_it = [trial for trial in summary.trials if summary.recommended_run in trial.runs]
    return of_it[0].choices[title] if of_it else None


def _choice(
    label: str,
    fixed: str | None,
    trials: list[tuple[int, TrialRecord]],
    verdict: Verdict | None,
    summary: StudyRecord,
) -> Choice:
    done = [(number, trial) for number, trial in trials if trial.is_done]
    if not done:
        reasons = (trial.why or trial.state for _, trial in trials)
        return Choice(label, None, (), None, None, None, None, False, label == fixed, next(reasons, "not begun"))
    if verdict is None:
        number, trial = max(done, key=lambda each: (summary.height(each[1].validation_score.mean or 0.0), -each[0]))
        score = trial.validation_score.by_seed[0] if len(trial.runs) == 1 else None
        return Choice(label, number, trial.runs, trial.total, score, None, None, False, label == fixed)
    places = {setting.name: place for place, setting in enumerate(verdict.settings)}
    stands = [(verdict.of_run(trial.runs[0]), number, trial) for number, trial in done]
    known = [(standing, number, trial) for standing, number, trial in stands if standing is not None]
    if not known:
        return Choice(label, None, (), None, None, None, None, False, label == fixed, "not compared")
    standing, number, trial = min(known, key=lambda e: (not verdict.is_tied(e[0]), places[e[0].name], e[1]))
    against, score = verdict.against(standing), standing.scores[verdict.metric]
    difference, decided = (
        None if against is None else against.differences[key] for key in (verdict.metric, verdict.deciding)
    )
    return Choice(
        label=label,
        trial=number,
        runs=trial.runs,
        n_params=trial.total,
        score=score,
        difference=difference,
        decided=decided,
        is_tied=verdict.is_tied(standing),
        is_fixed=label == fixed,
        is_pursued=is_pursued(standing, verdict, summary.tie_seeds),
    )


def _found(choices: tuple[Choice, ...], verdict: Verdict | None) -> Literal["told apart", "tie", "not compared"]:
    """What a panel found; choices with the same runs are one."""
    scored = {choice.runs: choice for choice in choices if choice.score is not None}
    if verdict is None or len(scored) < 2:
        return "not compared"
    return "told apart" if sum(choice.is_tied for choice in scored.values()) == 1 else "tie"


def judge(summary: StudyRecord, panels: Sequence[Panel]) -> list[Judged]:
    """Return the claims, each judged by its factor's panel."""
    by_factor = {panel.factor: panel for panel in panels}
    return [_judged(claim, by_factor.get(claim.factor), summary) for claim in summary.claims]


def _judged(claim: Claim, panel: Panel | None, summary: StudyRecord) -> Judged:
    claimed = {
        label: _claimed(value, claim.rows if summary.metric == "accuracy" else None)
        for label, value in claim.scores.items()
    }
    if panel is None:
        return Judged(claim, "not tested here", claimed, None, None, "no trial of this factor was begun")
    winner = next((choice for choice in panel.choices if choice.label == claim.winner), None)
    if winner is None or winner.score is None:
        why = "no such choice" if winner is None else winner.why or "not compared yet"
        return Judged(claim, "not tested here", claimed, winner, panel.best, why)
    others = [each for each in panel.scored if each.runs != winner.runs]
    rivals = sorted(others, key=lambda each: (not each.is_tied, -summary.height(_value(each))))
    if panel.found == "not compared" or not rivals:
        return Judged(claim, "not tested here", claimed, winner, None, "no other choice was compared with it")
    if not winner.is_tied:
        return Judged(claim, "told apart against it", claimed, winner, panel.best)
    return Judged(claim, "a tie" if rivals[0].is_tied else "holds", claimed, winner, rivals[0])


def _claimed(value: float, rows: int | None) -> Score:
    return Score(value, value, value, 0) if rows is None else wilson(round(value * rows), rows)


def _value(choice: Choice) -> float:
    return 0.0 if choice.score is None else choice.score.value

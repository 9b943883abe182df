"""What a study says of each factor: its choices, how each stands, and whether the rows tell the best one from the rest.

Of one factor at a time, the factor's own trials were compared among themselves. Elsewhere a choice stands for its best
trial: the first in the order of scores that is tied with the best of all, else simply the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from submillion.judging.metrics import Score
from submillion.reports.sweep.reading import Factor, Summary, Trial
from submillion.reports.verdicts import Tested, Verdict


@dataclass(frozen=True)
class Choice:
    """A choice with the trial that stands for it: its accuracy over its seeds, and its difference to the best.

    score is None where no trial finished, or several seeds were not compared yet; difference of the best one and where
    nothing was compared · is_fixed: later factors build on it, or the recommended run has it · why: it has no score.
    """

    label: str
    trial: int | None
    runs: tuple[str, ...]
    n_params: int | None
    score: Score | None
    difference: Tested | None
    is_tied: bool
    is_fixed: bool
    why: str | None = None


@dataclass(frozen=True)
class Panel:
    """A factor: its choices in their order, and what was found: one is told from all others, a tie, or nothing.

    given: the choices of earlier factors that all its trials share.
    """

    factor: str
    is_range: bool
    is_log: bool
    given: dict[str, str]
    choices: tuple[Choice, ...]
    found: Literal["told apart", "tie", "not compared"]
    n_rows: int | None

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
        """Return the choice with the highest score; of equals the one that none is compared with."""
        compared = [choice for choice in self.scored if choice.is_tied and choice.difference is None]
        return next(iter(compared), None)

    @property
    def fixed(self) -> Choice | None:
        """Return the choice that later factors build on, or that the recommended run has."""
        return next((choice for choice in self.choices if choice.is_fixed), None)


def panels(summary: Summary) -> list[Panel]:
    """Return a panel a factor that any trial has begun with."""
    found = [_panel(summary, factor) for factor in summary.factors]
    return [panel for panel in found if panel.choices]


def _panel(summary: Summary, factor: Factor) -> Panel:
    title, number = factor.factor, [each.factor for each in summary.factors].index(factor.factor)
    trials = _trials(summary, title)
    verdict, fixed = _verdict(summary, title), _fixed(summary, title)
    labels = list(dict.fromkeys(trial.choices[title] for _, trial in trials))
    if factor.choices is None:
        labels.sort(key=float)
    elif labels:
        labels = list(factor.choices)
    choices = tuple(
        _choice(label, fixed, [e for e in trials if e[1].choices[title] == label], verdict) for label in labels
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
    )


def _trials(summary: Summary, title: str) -> list[tuple[int, Trial]]:
    """The trials that a factor is judged by: its own stage's, or the short ones, or all."""
    stages = {"one-factor": title, "two-stage": "short"}
    wanted = stages.get(summary.kind)
    return [each for each in enumerate(summary.trials, start=1) if wanted in (None, each[1].stage)]


def _verdict(summary: Summary, title: str) -> Verdict | None:
    """The comparison of these trials."""
    if summary.kind not in ("one-factor", "two-stage"):
        return summary.comparison
    name = title if summary.kind == "one-factor" else "short"
    return next((stage.comparison for stage in summary.stages if stage.stage == name), None)


def _fixed(summary: Summary, title: str) -> str | None:
    """The choice that was fixed; else the recommended run's."""
    if summary.kind == "one-factor":
        return next((stage.fixed for stage in summary.stages if stage.stage == title), None)
    of_it = [trial for trial in summary.trials if summary.recommended_run in trial.runs]
    return of_it[0].choices[title] if of_it else None


def _choice(label: str, fixed: str | None, trials: list[tuple[int, Trial]], verdict: Verdict | None) -> Choice:
    done = [(number, trial) for number, trial in trials if trial.is_done]
    if not done:
        reasons = (trial.why or trial.state for _, trial in trials)
        return Choice(label, None, (), None, None, None, False, label == fixed, next(reasons, "not begun"))
    if verdict is None:
        number, trial = max(done, key=lambda each: (each[1].validation_accuracy.mean or 0.0, -each[0]))
        score = trial.validation_accuracy.by_seed[0] if len(trial.runs) == 1 else None
        return Choice(label, number, trial.runs, trial.total, score, None, False, label == fixed)
    places = {setting.setting: place for place, setting in enumerate(verdict.settings)}
    stands = [(verdict.of_run(trial.runs[0]), number, trial) for number, trial in done]
    known = [(standing, number, trial) for standing, number, trial in stands if standing is not None]
    if not known:
        return Choice(label, None, (), None, None, None, False, label == fixed, "not compared")
    standing, number, trial = min(known, key=lambda e: (not verdict.is_tied(e[0]), places[e[0].setting], e[1]))
    against, score = verdict.against(standing), standing.scores["accuracy"]
    tested = None if against is None else against.differences["accuracy"]
    return Choice(label, number, trial.runs, trial.total, score, tested, verdict.is_tied(standing), label == fixed)


def _found(choices: tuple[Choice, ...], verdict: Verdict | None) -> Literal["told apart", "tie", "not compared"]:
    """Choices whose trials are the same runs are one."""
    scored = {choice.runs: choice for choice in choices if choice.score is not None}
    if verdict is None or len(scored) < 2:
        return "not compared"
    return "told apart" if sum(choice.is_tied for choice in scored.values()) == 1 else "tie"

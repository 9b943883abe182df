"""What a study's trials say as a whole: how the best score was reached, trial by trial, where a race dropped
trials, and which factor matters most.

Each has a section and a figure. The differences of factors are from `judging.effects`, or from a factor's own trials.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from submillion.judging.comparison import EVALUATE_EVERY, RUNGS
from submillion.judging.effects import Effect, effects
from submillion.judging.metrics import Score
from submillion.reports import forests
from submillion.reports.drawing import BLUE, INK, MUTED, ORANGE, SMALL, arms, canvas, short
from submillion.reports.sections import Section, Table, as_sentences
from submillion.reports.sweep.study import StudyReport, score_of
from submillion.runs.study import StudyRecord, TrialRecord
from submillion.text import interval

_Z = 1.96  # half a 95 % interval in standard errors


def history(report: StudyReport) -> Section | None:
    """How the best score was reached."""
    done = _scored(report.summary)
    if len(done) < 2:
        return None
    best = max(done, key=lambda each: (report.summary.height(_mean(each[1])), -each[0]))[0]
    return Section(
        anchor="history",
        nav="History",
        title=f"Of {len(done)} finished trials, number {best} has the best {report.summary.metric_name}",
        figure="history",
        reading="A point is a trial, in the order of the study, with its 95 % interval where it has one; several seeds "
        "that were not compared have only their mean. The steps are the best so far: the best of several scores is "
        "too good.",
    )


def draw_history(report: StudyReport) -> Any:
    """Return the figure of `history`; None if there are fewer than two trials. Drawn inside `style`."""
    done = _scored(report.summary)
    if len(done) < 2:
        return None
    figure = canvas(2.9)
    axes = figure.subplots()
    tied = {run for entry in report.group for run in entry.runs}
    for number, trial in done:
        is_tied = None if not report.entries else trial.runs[0] in tied
        colour, fill, marker = forests.look(is_tied)
        score = score_of(report.summary, trial)
        if score is not None:
            axes.errorbar(number, score.value, yerr=arms([score]), color=colour, elinewidth=0.8, fmt="none", alpha=0.8)
        axes.plot(number, _mean(trial), color=colour, mfc=fill, marker=marker, ms=4, ls="none")
    numbers = [number for number, _ in done]
    best = np.minimum.accumulate if report.summary.is_loss else np.maximum.accumulate
    axes.step(numbers, best([_mean(trial) for _, trial in done]), where="post", color=INK, lw=0.9)
    recommended = [(n, t) for n, t in done if report.summary.recommended_run in t.runs][:1]
    for number, trial in recommended:
        axes.plot(number, _mean(trial), marker="o", ms=10, mfc="none", mec=ORANGE, mew=1.6, ls="none")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("trial")
    axes.set_ylabel(f"validation {report.summary.metric_name}, after selection")
    rows = [forests.Row("", e.score, e.is_tied, e.is_recommended) for e in report.entries]
    if rows:
        forests.legend(figure, rows, "recommended")
    return figure


def _scored(summary: StudyRecord) -> list[tuple[int, TrialRecord]]:
    return [(n, trial) for n, trial in summary.done if trial.validation_score.mean is not None]


def _mean(trial: TrialRecord) -> float:
    return trial.validation_score.mean or 0.0


def race(report: StudyReport) -> Section | None:
    """At which rungs a race dropped trials, and what it cost."""
    begun = [trial for trial in report.summary.trials if trial.course]
    if report.summary.kind != "race" or not begun:
        return None
    last = {rung: [trial for trial in begun if _rung(trial) == rung] for rung in (*RUNGS, None)}
    rows, n_left = [], len(begun)
    for rung in RUNGS:
        rows.append((f"{Fraction(rung)} of the steps", str(n_left), str(len(last[rung]))))
        n_left -= len(last[rung])
    n_dropped = len(begun) - n_left
    return Section(
        anchor="race",
        nav="Race",
        title=f"{n_dropped} of {len(begun)} trials were dropped on the way" if n_dropped else "No trial was dropped",
        sentences=as_sentences(report.summary.notes),
        figure="race",
        reading="A line is a trial, by its number, from evaluation to evaluation: its mean scaled log loss of the "
        "validation rows. A cross is where it was dropped, behind by more than its pace would make up.",
        tables=(Table("Where trials were dropped", ("after", "trials", "dropped"), rows),),
    )


def _rung(trial: TrialRecord) -> float | None:
    """The rung at which a race dropped a trial."""
    reached = [rung for rung in RUNGS if trial.course and rung <= trial.course[-1].share]
    return reached[-1] if trial.state == "ruled out" and reached else None


def draw_race(report: StudyReport) -> Any:
    """Return the figure of `race`; None for other studies. Drawn inside `style`."""
    begun = [trial for trial in report.summary.trials if trial.course]
    if report.summary.kind != "race" or not begun:
        return None
    figure = canvas(3.2)
    axes = figure.subplots()
    for number, trial in enumerate(report.summary.trials, start=1):
        if not trial.course:
            continue
        x, y = [point.share for point in trial.course], [point.loss for point in trial.course]
        is_dropped = trial.state == "ruled out"
        axes.plot(x, y, color=MUTED if is_dropped else BLUE, lw=0.9 if is_dropped else 1.3)
        if is_dropped:
            axes.plot(x[-1], y[-1], color=MUTED, marker="x", ms=5, ls="none")
        axes.annotate(str(number), (x[-1], y[-1]), (6, 0), textcoords="offset points", fontsize=SMALL, va="center")
    axes.set_xscale("log", base=2)
    axes.set_xticks([EVALUATE_EVERY, *RUNGS, 1], [str(Fraction(each)) for each in (EVALUATE_EVERY, *RUNGS, 1)])
    axes.minorticks_off()
    axes.set_xlabel("share of its own steps")
    axes.set_ylabel("scaled log loss, validation")
    return figure


def importance(report: StudyReport) -> Section | None:
    """Which factor matters most, and how surely."""
    ranked = factor_effects(report)
    if not ranked:
        return None
    told = [each.factor for each in ranked if each.is_told]
    between = f"{ranked[0].value:.4f} of {report.summary.metric_name} between its best and worst choice"
    title = f"{ranked[0].factor} matters most: {between}"
    if not told:
        title = "No factor can be told from one that does not matter"
    how = (
        "Each factor's own trials, which differ in nothing else: the best choice minus the worst, with the interval of "
        "that pair."
        if report.summary.kind == "one-factor"
        else "The best choice minus the worst, the other factors held alike: an additive model of all trials. Its "
        "interval accounts for seeds, interacting factors, the rows, and that the two were found by looking."
    )
    rows = [
        (each.factor, each.best, each.worst, _difference(each), "matters" if each.is_told else "may make none")
        for each in ranked
    ]
    heads = ("factor", "best choice", "worst choice", "difference", "")
    return Section(
        anchor="importance",
        nav="Importance",
        title=title,
        sentences=(how, *_left_out(report.summary)),
        figure="importance",
        reading="Filled: the interval excludes zero. Hollow: it does not, and the difference may be chance.",
        tables=(Table(f"Differences in {report.summary.metric_name} between a factor's choices", heads, rows),),
    )


def _left_out(summary: StudyRecord) -> list[str]:
    n = sum(trial.state == "ruled out" for trial in summary.trials)
    dropped = f"{n} trials that were dropped on the way are" if n > 1 else "One trial that was dropped on the way is"
    return [f"{dropped} left out: among all trials differences may be larger."] if n else []


def _difference(effect: Effect) -> str:
    return interval(Score(effect.value, effect.low, effect.high, 1), sign="+")


def draw_importance(report: StudyReport) -> Any:
    """Return the figure of `importance`; None if no factor has an effect. Drawn inside `style`."""
    ranked = factor_effects(report)
    if not ranked:
        return None
    names = [short(f"{each.factor}: {each.best}, not {each.worst}", 64) for each in ranked]
    figure = canvas(0.75 + 0.28 * len(ranked), forests.width_for(names))
    axes = figure.subplots()
    axes.axvline(0, color=MUTED, lw=0.7, ls=(0, (4, 3)))
    for y, each in enumerate(ranked):
        colour, fill = (BLUE, BLUE) if each.is_told else (MUTED, "none")
        axes.plot([each.low, each.high], [y, y], color=colour, lw=1.3)
        axes.plot(each.value, y, marker="o", ms=5, color=colour, mfc=fill, ls="none")
    axes.set_yticks(range(len(ranked)), names)
    axes.set_ylim(len(ranked) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(f"difference in {report.summary.metric_name}")
    return figure


def factor_effects(report: StudyReport) -> list[Effect]:
    """Return how much each factor matters, the most important first; empty if there are too few trials."""
    summary = report.summary
    if summary.kind == "one-factor":
        return _of_panels(report)
    stage = "short" if summary.kind == "two-stage" else None
    done = {trial.runs: trial for _, trial in _scored(summary) if stage in (None, trial.stage)}.values()
    each_run = [
        (trial.choices, summary.height(score.value)) for trial in done for score in trial.validation_score.by_seed
    ]
    if not each_run:
        return []
    ranges = {factor.factor: factor.log for factor in summary.factors if factor.choices is None}
    choices, scores = zip(*each_run, strict=True)
    return effects(choices, scores, _rows_error(summary), ranges)


def _rows_error(summary: StudyRecord) -> float:
    """The standard error of a difference of two trials on these rows: the tests' median, else as on other rows."""
    if summary.comparison is not None and summary.comparison.pairs:
        tested = [pair.differences[summary.metric] for pair in summary.comparison.pairs]
        return float(np.median([each.high - each.low for each in tested])) / (2 * _Z)
    scores = [score for _, trial in summary.done for score in trial.validation_score.by_seed]
    return float(np.median([score.high - score.low for score in scores])) / (2 * _Z) * 2**0.5


def _of_panels(report: StudyReport) -> list[Effect]:
    differences = []
    for panel in report.panels:
        tested = [(choice, choice.difference) for choice in panel.choices if choice.difference is not None]
        if panel.best is None or not tested:
            continue
        worst, difference = min(tested, key=lambda each: each[1].value)
        value, low, high = -difference.value, -difference.high, -difference.low
        differences.append(Effect(panel.factor, panel.best.label, worst.label, value, low, high))
    return sorted(differences, key=lambda each: -each.value)

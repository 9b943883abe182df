"""Training curves: of one run, of several in one figure, and a page of a run that has nothing else yet.

Only `metrics.jsonl` and `config.yaml` are read, so that a training can be watched while it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from submillion.errors import command
from submillion.judging.metrics import NAMES, leading
from submillion.reports.drawing import BLUE, GREEN, INK, ORANGE, PINK, Drawn, arms, canvas, files, short, style
from submillion.reports.forests import width_for
from submillion.reports.sections import Page, Section, Table, as_sentences
from submillion.runs import EvalRecord, Record, Run, StepRecord
from submillion.text import interval

_SHARED = ("accuracy", "micro_f1", "macro_f1")  # of runs that report different scores first
MAX_CURVES = 10  # in one figure
BAND = "The band is the 95 % interval: ups and downs within it may be chance."
_LOOKS = [(colour, line) for line in ("-", (0, (4, 2))) for colour in (BLUE, ORANGE, GREEN, PINK, INK)]
_LONGEST = 64  # characters of a name in the legend


@dataclass(frozen=True)
class Curve:
    """A run's records under its name in the figure."""

    name: str
    records: tuple[Record, ...]

    @property
    def steps(self) -> list[StepRecord]:
        """Return the records of steps."""
        return [record for record in self.records if isinstance(record, StepRecord)]

    @property
    def evaluations(self) -> list[EvalRecord]:
        """Return the records of evaluations."""
        return [record for record in self.records if isinstance(record, EvalRecord)]


def draw(curves: Sequence[Curve], with_png: bool = True) -> dict[str, Drawn]:
    """Return the figure `curves`: training loss and the first validation score, of at most
    `MAX_CURVES` runs, one over the other; empty if no run has made a step."""
    shown = [curve for curve in curves if curve.steps][:MAX_CURVES]
    if not shown:
        return {}
    with style():
        figure = alone(shown[0]) if len(curves) == 1 else _together(shown)
        return {"curves": files("curves", figure, with_png)}


def alone(curve: Curve) -> Any:
    """Return a figure of one run: its losses, its validation score, the chosen checkpoint. Drawn inside `style`."""
    figure = canvas(3.7)
    top, bottom = figure.subplots(2, 1, sharex=True)
    steps, loss = np.array([(record.step, record.loss) for record in curve.steps]).T
    top.plot(steps, loss, color=BLUE, lw=0.5, alpha=0.3)
    top.plot(steps, _smoothed(loss), color=BLUE, lw=1.4, label="training, smoothed")
    evaluations = curve.evaluations
    x = [record.step for record in evaluations]
    if evaluations:
        top.plot(x, [e.loss for e in evaluations], color=ORANGE, marker="s", ms=3, lw=1.2, label="validation")
    top.legend()
    key = _key([curve])
    _scores(bottom, evaluations, key, ORANGE, "-")
    chosen = [record for record in evaluations if record.best][-1:] if len(evaluations) > 1 else []
    for record in chosen:
        value = record.scores[key].value
        bottom.plot(record.step, value, marker="o", ms=9, mfc="none", mec=INK, ls="none", label="chosen checkpoint")
        bottom.legend(loc="lower right")
    _titled(top, bottom, "loss", key)
    return figure


def _together(curves: Sequence[Curve]) -> Any:
    """A look for each name: runs of one name are one setting with several seeds."""
    names = list(dict.fromkeys(curve.name for curve in curves))
    looks, key = dict(zip(names, _LOOKS, strict=False)), _key(curves)
    figure = canvas(3.7 + 0.2 * len(names), width_for(names))
    top, bottom = figure.subplots(2, 1, sharex=True)
    for curve in curves:
        colour, line = looks[curve.name]
        steps, loss = np.array([(record.step, record.loss) for record in curve.steps]).T
        label = short(curve.name, _LONGEST) if curve.name in names else None
        names = [name for name in names if name != curve.name]
        top.plot(steps, _smoothed(loss), color=colour, lw=1.3, ls=line, label=label)
        _scores(bottom, curve.evaluations, key, colour, line)
    _titled(top, bottom, "training loss, smoothed", key)
    figure.legend(loc="outside upper left", ncols=1)
    return figure


def _key(curves: Sequence[Curve]) -> str:
    """The score that all runs report first; if they differ, one that all have."""
    every = [record.scores for curve in curves for record in curve.evaluations]
    keys = {leading(scores)[0] for scores in every}
    return (
        keys.pop()
        if len(keys) == 1
        else next((key for key in _SHARED if all(key in each for each in every)), "log_loss")
    )


def _scores(axes: Any, evaluations: Sequence[EvalRecord], key: str, colour: str, line: Any) -> None:
    if not evaluations:
        return
    x, scores = [record.step for record in evaluations], [record.scores[key] for record in evaluations]
    axes.fill_between(x, [s.low for s in scores], [s.high for s in scores], color=colour, alpha=0.13, lw=0)
    axes.errorbar(x, [s.value for s in scores], yerr=arms(scores), color=colour, ls=line, lw=1.2, elinewidth=0.6)
    axes.plot(x, [s.value for s in scores], color=colour, marker="s", ms=3, ls="none")


def _titled(top: Any, bottom: Any, loss: str, key: str) -> None:
    top.set_title(loss)
    top.set_ylim(0, None)
    bottom.set_title(f"validation {NAMES[key]}")
    bottom.set_xlabel("step")
    bottom.xaxis.get_major_locator().set_params(integer=True)


def _smoothed(loss: np.ndarray, weight: float = 0.05) -> np.ndarray:
    """The exponential mean, its start corrected as in Adam; a step without a number counts as the one before."""
    mean, smoothed = 0.0, np.empty(len(loss))
    for i, value in enumerate(loss):
        mean += weight * ((value if np.isfinite(value) else mean) - mean)
        smoothed[i] = mean / (1 - (1 - weight) ** (i + 1))
    return smoothed


def evaluations_table(evaluations: Sequence[EvalRecord]) -> Table:
    """Return a table of the evaluations; of several, the one whose checkpoint is the best so far is marked."""
    best = [record for record in evaluations if record.best][-1:] if len(evaluations) > 1 else []
    key = leading(evaluations[0].scores)[0] if evaluations else "accuracy"
    keys = [each for each in (key, "scaled_log_loss") if all(each in record.scores for record in evaluations)]
    rows = [
        (
            f"{record.step:,}",
            f"{record.epoch:.2f}",
            f"{record.loss:.4f}",
            *(interval(record.scores[key]) for key in keys),
            "chosen" if record in best else "",
        )
        for record in evaluations
    ]
    return Table(
        "Evaluations", ("step", "epoch", "validation loss", *(f"validation {NAMES[key]}" for key in keys), ""), rows
    )


def page(run: Run, state: str, why: str) -> Page:
    """Return the page of a run without a report: its state and why, its curves so far, its settings."""
    curve = Curve(run.name, tuple(run.records()))
    drawn = draw([curve], with_png=False)
    evaluations = curve.evaluations
    section = Section(
        anchor="curves",
        nav="Training",
        title=f"{run.name} is {state}",
        sentences=as_sentences([why or f"`{command('report', run.path)}` writes its report"]),
        figure="curves",
        reading=BAND,
        tables=(evaluations_table(evaluations),) if evaluations else (),
    )
    config = (run.path / "config.yaml").read_text(encoding="utf-8", errors="replace")
    setup = Section("setup", "Setup", "How to repeat this run", code=(("config.yaml", config.rstrip()),))
    return Page(run.name, f"submillion serve from the run folder {run.name}", [section, setup], drawn)

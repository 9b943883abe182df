"""A run and rows without labels: its predictions, which its folder keeps, and which rows it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from submillion import runs
from submillion.data import Example
from submillion.errors import DataError, RunError
from submillion.judging import metrics
from submillion.reports import shift as pages
from submillion.runs import Run

if TYPE_CHECKING:
    from submillion.reports.shift import Asked

Watch = Callable[[int, int], object]  # called with the rows done and the rows in all


def not_watched(_n_done: int, _n_rows: int) -> None:
    """Do nothing with either number."""


def probs_of(asked: Asked, watch: Watch = not_watched, device: str | None = None) -> np.ndarray:
    """Return the run's probabilities of its rows, float64 [N, C]; saved ones need no torch."""
    saved = runs.load_unlabelled(asked.folder, asked.ids, asked.run.labels())
    if saved is not None:
        return saved
    from submillion import prediction

    pairs = [(one.text, one.text_pair) for one in asked.examples if one.text_pair is not None]
    rows, n_rows = pairs or [one.text for one in asked.examples], len(asked.examples)
    probs = prediction.predict(asked.run, rows, device, lambda n_done: watch(n_done, n_rows)).probs
    runs.save_unlabelled(asked.folder, asked.ids, probs, asked.run.classes(), asked.run.thresholds())
    return probs


@dataclass(frozen=True, eq=False)
class Opened:
    """Rows of a file that a run was not trained on: their numbers in it, int64 [N], and calibrated probs, [N, C]."""

    run: Run
    examples: list[Example]
    numbers: np.ndarray
    probs: np.ndarray
    n_trained_on: int | None

    @property
    def confidence(self) -> np.ndarray:
        """Return the likeliest labels' probabilities, float64 [N]."""
        return self.probs.max(axis=1)

    @property
    def predicted(self) -> list[str]:
        """Return the names of the likeliest labels."""
        labels = self.run.labels()
        return [labels[place] for place in self.probs.argmax(axis=1).tolist()]


def opened(run: Run, source: object, watch: Watch = not_watched, device: str | None = None) -> Opened:
    """Return the rows of a file or in memory that a run was not trained on, with its predictions.

    RunError if the run's rows have several labels; DataError lists everything that is wrong with the rows, and is
    raised if the run was trained on all of them.
    """
    if run.has_several():
        raise RunError(
            f"the rows of {run.path} have several labels: an empty cell means that none applies, so "
            "unlabelled rows could not be told from those; ask is for rows with one label"
        )
    (asked,) = pages.ask([run], source)
    seen = runs.trained_on(run, asked.examples)
    numbers = np.arange(len(asked.examples)) if seen is None else np.flatnonzero(~seen)
    if not len(numbers):
        raise DataError(f"{run.path} was trained on all {len(asked.examples):,} rows: none is left to ask about")
    probs = metrics.scaled(probs_of(asked, watch, device)[numbers], run.temperature())
    examples = [asked.examples[number] for number in numbers.tolist()]
    return Opened(run, examples, numbers, probs, None if seen is None else int(seen.sum()))

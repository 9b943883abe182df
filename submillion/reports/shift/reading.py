"""Runs and a file without labels → the `ShiftReport`: every number that its pages show, and nothing drawn.

Owns which rows are read, the folder of their predictions, and the refusals. Predictions are made by others; estimates
are those of `submillion.judging.shift`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from submillion import data, runs
from submillion.data import Example
from submillion.errors import RunError, SubmillionError
from submillion.judging.metrics import Predictions, Score, wilson
from submillion.judging.shift import (
    Drift,
    Estimates,
    LabelRates,
    StatedAccuracy,
    drift,
    estimate,
    judge,
    label_rates,
)
from submillion.reports import acting
from submillion.reports.acting import AnsweredHere
from submillion.reports.baselines import text_of
from submillion.reports.run import reread
from submillion.runs import Run

_SEED = 20254


@dataclass(frozen=True)
class Asked:
    """A run and the rows that it is asked about; `folder` holds its predictions of them.

    n_rows: rows of the file, of which `examples` are all or a sample · has_labels: the file has a label column, unread.
    """

    run: Run
    examples: list[Example]
    n_rows: int
    has_labels: bool
    folder: Path

    @property
    def ids(self) -> list[str]:
        """Return the rows' ids."""
        return [example.id for example in self.examples]


@dataclass(frozen=True)
class OfRun:
    """What one run says about the rows. `drift` is None if its training texts are gone, and `data_problem` says why.

    estimates: for several labels their rates · n_trained_on: rows whose text it was trained on; None for runs from
    before that was noted · after_selection: its checkpoint was chosen on validation · verdict: None if rows have
    several labels, for which no score is estimated · acting: what would be answered at stated errors; empty for those.
    """

    run: str
    train_shares: tuple[float, ...]
    estimates: Estimates | LabelRates
    drift: Drift | None
    data_problem: str | None
    n_trained_on: int | None
    after_selection: bool
    verdict: StatedAccuracy | None
    acting: tuple[AnsweredHere, ...]


@dataclass(frozen=True)
class Disagreement:
    """How often two runs predict different classes, or labels: here, and on validation if they share its rows."""

    first: str
    second: str
    here: Score
    validation: Score | None


@dataclass(frozen=True)
class ShiftReport:
    """What runs say about a file without labels, the first run first; n_read of its n_rows were read."""

    source: str
    n_rows: int
    n_read: int
    has_labels: bool
    labels: tuple[str, ...]
    runs: tuple[OfRun, ...]
    pairs: tuple[Disagreement, ...]

    @property
    def has_several(self) -> bool:
        """Say whether rows have several labels."""
        return isinstance(self.runs[0].estimates, LabelRates)


def ask(finished: Sequence[Run], source: object, max_rows: int | None = None) -> list[Asked]:
    """Return each finished run with the rows of a file or in memory, in their order.

    Of more than max_rows rows a fixed sample is taken; None takes all. The label column is never read. RunError names
    every run that is damaged, given twice or of other labels; DataError every row that cannot be used.
    """
    problems = runs.repeated(finished)
    for run in finished:
        try:
            runs.verify(run)
        except SubmillionError as error:
            problems += error.problems
    for run in finished:
        if run.has_several() != finished[0].has_several():
            problems.append(
                f"{finished[0].path} and {run.path}: rows have several labels in one, one label in the other"
            )
        elif run.labels() != finished[0].labels():
            labels = " and ".join(", ".join(each.labels()[:20]) for each in (finished[0], run))
            problems.append(f"{finished[0].path} and {run.path} have different labels: {labels}; give runs of one task")
    if problems:
        raise RunError(*problems)
    return [_asked(run, source, max_rows) for run in finished]


def _asked(run: Run, source: object, max_rows: int | None) -> Asked:
    examples, has_labels = data.read_unlabelled(source, run.config().data)
    n_rows = len(examples)
    if max_rows is not None and n_rows > max_rows:
        rows = np.random.default_rng(_SEED).choice(n_rows, max_rows, replace=False)
        examples = [examples[row] for row in np.sort(rows)]
    stem = Path(source).name.partition(".")[0] if isinstance(source, str | Path) else "rows"
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:40].strip("-") or "rows"
    rows = json.dumps([(one.id, one.text, one.text_pair) for one in examples])  # in their order: so are predictions
    key = hashlib.sha256(rows.encode()).hexdigest()[:8]
    return Asked(run, examples, n_rows, has_labels, run.path / "shift" / f"{name}-{key}")


def read(asked: Sequence[Asked], probs: Sequence[np.ndarray], source: Path | str) -> ShiftReport:
    """Return the report of runs from their predictions of the rows, float64 [N, C] each."""
    validations = [one.run.load_predictions("validation") for one in asked]
    drifts: dict[tuple[str, ...], tuple[Drift | None, str | None]] = {}
    of_runs = []
    for one, validation, run_probs in zip(asked, validations, probs, strict=True):
        estimates = _estimates(one.run, validation, run_probs)
        settings, facts = one.run.config().data, one.run.read_json("data.json")
        # Runs on the same rows share one drift, which takes longer than all else.
        key = (facts["fingerprint"], repr(settings.text), repr(settings.text_pair))
        if key not in drifts:
            drifts[key] = _drift(one, validation)
        counts = np.array([facts["classes"]["train"][label] for label in one.run.labels()])
        shares = tuple((counts / facts["rows"]["train"]).tolist())
        n_seen = runs.count_trained_on(one.run, one.examples)
        verdict = None if isinstance(estimates, LabelRates) else judge(estimates, drifts[key][0], n_seen)
        is_selected = len(one.run.evaluations()) > 1
        answered = () if verdict is None else acting.here(validation, run_probs, one.run.n_choices(validation))
        of_runs.append(OfRun(one.run.name, shares, estimates, *drifts[key], n_seen, is_selected, verdict, answered))
    return ShiftReport(
        source=str(source),
        n_rows=asked[0].n_rows,
        n_read=len(asked[0].examples),
        has_labels=any(one.has_labels for one in asked),
        labels=asked[0].run.labels(),
        runs=tuple(of_runs),
        pairs=tuple(
            _pair(*two)
            for two in combinations(list(zip([one.run for one in asked], probs, validations, strict=True)), 2)
        ),
    )


def _estimates(run: Run, validation: Predictions, probs: np.ndarray) -> Estimates | LabelRates:
    if not run.has_several():
        return estimate(validation, probs)
    return label_rates(_said(run, validation.probs), _said(run, probs))


def _said(run: Run, probs: np.ndarray) -> np.ndarray:
    """What the run predicts from these probabilities: classes, int64 [N], or labels, bool [N, C]."""
    thresholds = run.thresholds()
    return probs.argmax(axis=1) if thresholds is None else probs >= thresholds


def _drift(asked: Asked, validation: Predictions) -> tuple[Drift | None, str | None]:
    splits, problem = reread(asked.run, {"validation": validation})
    if splits is None:
        return None, problem
    rows = (splits.train, splits.validation, asked.examples)
    return drift(*([text_of(example) for example in each] for each in rows)), None


def _pair(first: tuple[Run, np.ndarray, Predictions], second: tuple[Run, np.ndarray, Predictions]) -> Disagreement:
    differ = _differ(_said(first[0], first[1]), _said(second[0], second[1]))
    places = {row_id: place for place, row_id in enumerate(second[2].ids)}
    on_validation = None
    if places.keys() == set(first[2].ids):
        others = second[2].rows(np.array([places[row_id] for row_id in first[2].ids]))
        apart = _differ(_said(first[0], first[2].probs), _said(second[0], others.probs))
        on_validation = wilson(int(apart.sum()), len(apart))
    return Disagreement(first[0].name, second[0].name, wilson(int(differ.sum()), len(differ)), on_validation)


def _differ(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which rows are predicted differently, bool [N]."""
    return (first != second).reshape(len(first), -1).any(axis=1)

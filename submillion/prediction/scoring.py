"""A finished run at work on rows in memory: labels and probabilities for any rows, scores for labelled ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from submillion import data, runs
from submillion.config import Config
from submillion.data import Example, Label
from submillion.judging import metrics
from submillion.judging.metrics import Score
from submillion.model.classifier import Classifier
from submillion.prediction.ensemble import Ensemble, members
from submillion.runs import Which
from submillion.training import evaluation


@dataclass(frozen=True)
class Labelled:
    """Rows with the labels a run gives them: ids and labels of length N, probs float64 [N, C] whose
    columns are `classes`. Labels that were whole numbers or truth values in training are so here."""

    ids: list[str]
    labels: list[Label]
    probs: np.ndarray
    classes: tuple[Label, ...]


@dataclass(frozen=True)
class Evaluation:
    """A run's scores on labelled rows: accuracy, macro_f1, log_loss and ece, as `evaluation["accuracy"]` too.

    n_trained_on: rows whose text the run was trained on; None for runs of before that was noted.
    """

    scores: dict[str, Score]
    n_rows: int
    n_trained_on: int | None

    def __getitem__(self, name: str) -> Score:
        """Return the score of this name."""
        return self.scores[name]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the sentences without which the scores mislead."""
        return runs.seen_warnings(self.n_trained_on, self.n_rows)


def evaluate(run: Which, rows: object, device: str | None = None) -> Evaluation:
    """Return a run's scores on labelled rows, each with its 95 % interval, and how many rows the run was trained on.

    run: what `train` returns, a run's folder, or a run's name or hash in `runs/`. rows: a file's path, a pandas
    DataFrame, a datasets.Dataset or a list of dicts (a row each), with the columns that the run was trained on.

    The opening is noted in `test-reads.jsonl` beside the run with the rows' fingerprint, which is a test
    split's if they are just its rows. DataError lists everything that is wrong with the rows.

        scores = submillion.evaluate("reviews", "new.csv")
        print(scores["accuracy"].value, scores["accuracy"].low, scores["accuracy"].high)
    """
    run = runs.load(run)
    classifier, settings, examples = open_labelled(run, rows, device)
    scores = metrics.score(evaluation.predictions_of(classifier, settings, examples))
    return Evaluation(scores, len(examples), runs.count_trained_on(run, examples))


def open_labelled(run: Which, rows: object, device: str | None = None) -> tuple[Classifier, Config, list[Example]]:
    """Return a run's classifier and settings, and labelled rows; the opening is noted, as `evaluate` says."""
    run = runs.load(run)
    classifier, settings = evaluation.load(run, device)
    examples = data.read_rows(rows, settings.data, labels=classifier.labels)
    runs.append_test_read(run.path.parent, data.fingerprint(examples), run, "evaluate")
    return classifier, settings, examples


def predict(
    run: Which | Sequence[Which],
    rows: object,
    device: str | None = None,
    watch: Callable[[int], object] | None = None,
) -> Labelled:
    """Return the labels and probabilities of rows, in their order.

    run: what `train` returns, a run's folder, or a run's name or hash in `runs/`; several, in a list, give the mean
    of their probabilities. rows: texts in a list, a tuple, a numpy array or a pandas Series, which are pairs
    (text, second text) for runs that were trained on pairs; or a pandas DataFrame, a datasets.Dataset, a list of
    dicts (a row each) or a file's path, read by the run's own columns, whose labels are ignored.

    Ids are those of a column `id`, else a DataFrame's or Series' index, else numbers from 0. `watch` is called with the
    number of rows done. Rows and results are in memory: `predict_file` is for files of any size. DataError lists
    everything that is wrong with the rows, RunError with the run.

        found = submillion.predict("reviews", ["Lovely!", "Never again."])
        print(found.labels, found.probs.max(axis=1))
    """
    found = members(run, device)
    readings = [data.read_rows(rows, each) for each in found.readings]
    probs = Ensemble(found).probs(readings, watch, keep=True)
    chosen = probs.argmax(axis=1)
    return Labelled([example.id for example in readings[0]], [found.classes[i] for i in chosen], probs, found.classes)

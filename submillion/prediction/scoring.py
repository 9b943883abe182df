"""A finished run at work on rows in memory: labels and probabilities for texts, scores for labelled files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from submillion import batching, data, evaluation, metrics, runs
from submillion.classifier import Classifier
from submillion.config import Config, DataConfig
from submillion.data import Example, Splits, reading
from submillion.errors import ConfigError, DataError
from submillion.metrics import Score
from submillion.prediction.ensemble import Ensemble, Which, members
from submillion.runs import Run


@dataclass(frozen=True)
class Labelled:
    """Rows with the labels a run gives them: ids and labels of length N, probs float64 [N, C] whose
    columns are `classes`."""

    ids: list[str]
    labels: list[str]
    probs: np.ndarray
    classes: tuple[str, ...]


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


def load(run: Run | Path | str, device: str | None = None) -> tuple[Classifier, Config]:
    """Return a finished run's classifier and settings; RunError if it is unfinished or damaged.

    device None is the best there is here, whatever the run was trained on.
    """
    run = run if isinstance(run, Run) else runs.load(run)
    runs.verify(run)
    settings = run.config()
    return Classifier.load(run, device), settings


def evaluate(run: Run | Path | str, source: Path | str, device: str | None = None) -> Evaluation:
    """Return a run's scores on a labelled file, and how many of its rows the run was trained on.

    The opening is noted in `test-reads.jsonl` beside the run with the rows' fingerprint, which is a test
    split's if the file holds just its rows.
    """
    run = run if isinstance(run, Run) else runs.load(run)
    classifier, settings, examples = open_labelled(run, source, device)
    scores = metrics.score(predictions_of(classifier, settings, examples))
    return Evaluation(scores, len(examples), runs.count_trained_on(run, examples))


def open_labelled(
    run: Run | Path | str, source: Path | str, device: str | None = None
) -> tuple[Classifier, Config, list[Example]]:
    """Return a run's classifier and settings and a labelled file's rows; the opening is noted, as `evaluate` says."""
    run = run if isinstance(run, Run) else runs.load(run)
    classifier, settings = load(run, device)
    examples = data.read_rows(source, settings.data, labels=classifier.labels)
    runs.append_test_read(run.path.parent, data.fingerprint(examples), run, "evaluate")
    return classifier, settings, examples


def open_test(run: Run, splits: Splits, device: str | None = None) -> None:
    """Score a finished run, whose test split was left sealed, on it; the opening is noted first."""
    with run.lock():
        classifier, settings = load(run, device)
        runs.append_test_read(run.path.parent, str(splits.test_fingerprint), run, "train")
        run.save_predictions("test", predictions_of(classifier, settings, splits.test))
        scores = {**run.scores(), "test": metrics.score(run.load_predictions("test"))}
        run.mark_done(unsealed="scores.json")  # killed before the last line, the run is whole still
        run.write_scores(scores)
        run.mark_done()


def predict(
    run: Which | Sequence[Which],
    texts: Sequence[str] | Sequence[tuple[str, str]] | Path | str,
    device: str | None = None,
    watch: Callable[[int], object] | None = None,
) -> Labelled:
    """Return the labels of texts (a sequence) or of a file's rows (a path), in their order.

    Several runs give the mean of their probabilities. Texts are pairs (text, second text) for runs that were trained
    on pairs. A file is read by each run's own columns; labels in it are ignored. `watch` is called with the number of
    rows done. Rows and results are in memory: `predict_file` is for files of any size.
    """
    found = members(run, device)
    if isinstance(texts, (str, Path)):
        readings = [data.read_rows(texts, each) for each in found.readings]
    else:
        readings = [[_example(i, text, each) for i, text in enumerate(texts)] for each in found.readings]
    probs = Ensemble(found).probs(readings, watch, keep=True)
    chosen = probs.argmax(axis=1)
    return Labelled([example.id for example in readings[0]], [found.labels[i] for i in chosen], probs, found.labels)


def _example(number: int, text: str | tuple[str, str], settings: DataConfig) -> Example:
    if isinstance(text, str) != (settings.text_pair is None):
        expected = "texts" if settings.text_pair is None else "pairs (text, second text)"
        raise ConfigError(f"text {number} is a {type(text).__name__}: the run was trained on {expected}")
    if not all(reading.is_unicode(part) for part in ((text,) if isinstance(text, str) else text)):
        raise DataError(f"text {number} has half a character (a lone surrogate): decode it anew, or drop it")
    first, second = (text, None) if isinstance(text, str) else text
    return Example(str(number), first, None, second)


def predictions_of(
    classifier: Classifier, settings: Config, examples: Sequence[Example], watch: Callable[[int], None] | None = None
) -> metrics.Predictions:
    """Return what a run's classifier says of examples; `watch` is called with the number of rows done."""
    split = batching.tokenize(examples, classifier.tokenizer, classifier.labels, settings.model.max_length)
    return evaluation.predict(classifier, split, settings.train.evaluation_batch_size, watch)

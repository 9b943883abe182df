"""A finished run at work: labels and probabilities for texts and files, scores for labelled files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from submillion import batching, data, evaluation, metrics, runs
from submillion.classifier import Classifier
from submillion.config import Config
from submillion.data import Example, Splits, reading
from submillion.errors import ConfigError, DataError
from submillion.metrics import Score
from submillion.runs import Run


@dataclass(frozen=True)
class Labelled:
    """Rows with the labels a run gives them: ids and labels of length N, probs float64 [N, C] whose
    columns are `classes`."""

    ids: list[str]
    labels: list[str]
    probs: np.ndarray
    classes: tuple[str, ...]


def load(run: Run | Path | str, device: str | None = None) -> tuple[Classifier, Config]:
    """Return a finished run's classifier and settings; RunError if it is unfinished or damaged.

    device None is the best there is here, whatever the run was trained on.
    """
    run = run if isinstance(run, Run) else runs.load(run)
    runs.verify(run)
    settings = run.config()
    return Classifier.load(run, device), settings


def evaluate(run: Run | Path | str, source: Path | str, device: str | None = None) -> dict[str, Score]:
    """Return a run's scores on a labelled file.

    The opening is noted in `test-reads.jsonl` beside the run with the rows' fingerprint, which is a test
    split's if the file holds just its rows.
    """
    return metrics.score(predictions_of(*open_labelled(run, source, device)))


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
    run: Run | Path | str,
    texts: Sequence[str] | Sequence[tuple[str, str]] | Path | str,
    device: str | None = None,
    watch: Callable[[int], None] | None = None,
) -> Labelled:
    """Return the labels of texts (a sequence) or of a file's rows (a path), in their order.

    Texts are pairs (text, second text) for a run that was trained on pairs. A file is read by the run's
    own columns; labels in it are ignored. `watch` is called with the number of rows done.
    """
    classifier, settings = load(run, device)
    if isinstance(texts, (str, Path)):
        examples = data.read_rows(texts, settings.data, labels=None)
    else:
        examples = [_example(i, text, settings) for i, text in enumerate(texts)]
    predictions = predictions_of(classifier, settings, examples, watch)
    chosen = predictions.probs.argmax(axis=1)
    return Labelled(predictions.ids, [classifier.labels[i] for i in chosen], predictions.probs, classifier.labels)


def _example(number: int, text: str | tuple[str, str], settings: Config) -> Example:
    if isinstance(text, str) != (settings.data.text_pair is None):
        expected = "texts" if settings.data.text_pair is None else "pairs (text, second text)"
        raise ConfigError(f"text {number} is a {type(text).__name__}: the run was trained on {expected}")
    if not all(reading.is_unicode(part) for part in ((text,) if isinstance(text, str) else text)):
        raise DataError(f"text {number} has half a character (a lone surrogate): decode it anew, or drop it")
    first, second = (text, None) if isinstance(text, str) else text
    return Example(str(number), first, None, second)


def write_csv(labelled: Labelled, output: Path, probabilities: bool = False, label_ids: bool = False) -> None:
    """Write `id,label` rows, `prob_<class>` columns on request; with `label_ids`, `ID,Label` and numbers."""
    check_output(output)
    numbers = {label: str(i) for i, label in enumerate(labelled.classes)}
    header = ["ID", "Label"] if label_ids else ["id", "label"]
    if probabilities:
        header += [f"prob_{name}" for name in labelled.classes]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row_id, label, probs in zip(labelled.ids, labelled.labels, labelled.probs, strict=True):
        chances = [f"{p:.6f}" for p in probs] if probabilities else []
        writer.writerow([row_id, numbers[label] if label_ids else label, *chances])
    runs.write_atomically(output, text.getvalue())


def check_output(output: Path, source: Path | None = None) -> None:
    """Raise a ConfigError if predictions cannot be written to `output`, or would replace `source`, their input."""
    if output.suffix.lower() != ".csv":
        raise ConfigError(f"{output}: predictions are written as CSV; give a name that ends in .csv")
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"{output.absolute().parent}: no such folder; make it first")
    if source is not None and output.resolve() == source.resolve():
        raise ConfigError(f"{output} is the input too: give another name, so that its texts are kept")


def predictions_of(
    classifier: Classifier, settings: Config, examples: Sequence[Example], watch: Callable[[int], None] | None = None
) -> metrics.Predictions:
    """Return what a run's classifier says of examples; `watch` is called with the number of rows done."""
    split = batching.tokenize(examples, classifier.tokenizer, classifier.labels, settings.model.max_length)
    return evaluation.predict(classifier, split, settings.train.evaluation_batch_size, watch)

"""Finished runs applied to rows in memory: labels and probabilities for any rows, scores for labelled ones.

Several runs give the mean of their probabilities. Owns that their labels agree, that each has one precision everywhere,
and whose columns a text is read from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from submillion import data, runs
from submillion.config import Config, DataConfig, Precision
from submillion.data import Example, Label
from submillion.data.long_texts import Reading
from submillion.data.tokens import blank_warning
from submillion.errors import RunError
from submillion.judging import confidence, metrics
from submillion.judging.confidence import AS_TRAINED, RAW, Answering, AnsweringScores, Rules
from submillion.judging.metrics import Predictions, Score
from submillion.model import backbone, batching
from submillion.model.classifier import Classifier, encoder_of, precision_of
from submillion.prediction.sharing import Loader
from submillion.runs import Run, Which
from submillion.text import shown
from submillion.training import evaluation, workers

_MOST_NAMES = 5  # of classes that a warning lists


@dataclass(frozen=True)
class Members:
    """What any process needs to compute the same results: runs, the device, each run's precision on it, threads."""

    runs: tuple[Run, ...]
    device: str
    precisions: tuple[Precision, ...]
    n_threads: int

    @cached_property
    def configs(self) -> tuple[Config, ...]:
        """Return each run's settings."""
        return tuple(run.config() for run in self.runs)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Return the labels, in the order of the first run."""
        return self.runs[0].labels()

    @cached_property
    def classes(self) -> tuple[Label, ...]:
        """Return the labels as the first run's training rows had them."""
        return self.runs[0].classes()

    @cached_property
    def thresholds(self) -> np.ndarray | None:
        """Return the runs' mean threshold of each of several labels, float64 [C], as in `labels`; None if rows have
        one."""
        by_run = [(run.labels(), run.thresholds()) for run in self.runs]
        ordered = [
            values[[labels.index(label) for label in self.labels]] for labels, values in by_run if values is not None
        ]
        return np.mean(ordered, axis=0) if ordered else None

    @cached_property
    def readings(self) -> tuple[DataConfig, ...]:
        """Return the different ways in which the runs read rows: their text columns."""
        return tuple(dict.fromkeys(map(_reading, self.configs)))

    @property
    def reading_of(self) -> tuple[int, ...]:
        """Return each run's number among the `readings`."""
        return tuple(self.readings.index(_reading(settings)) for settings in self.configs)

    def read(self, rows: object, id_column: str | None = None) -> list[list[Example]]:
        """Return rows in each of the `readings`; none is dropped, so each gets a label. DataError as in `predict`."""
        readings = [each.model_copy(update={"drop": ()}) for each in self.readings]
        return [data.read_rows(rows, each, id_column=id_column) for each in readings]


def members(which: Which | Sequence[Which], device: str | None = None) -> Members:
    """Return finished runs that may vote together, each as for `runs.load`; device None is the best available here.

    RunError if one is unfinished, damaged or given twice, if its encoder is gone or changed, or if their labels differ.
    """
    finished = runs.load_several(which)
    runs.refuse_twice(finished)
    for run in finished:
        runs.verify(run)
        encoder_of(run)  # now, not when all rows are read
    problems = [problem for run in finished[1:] for problem in _other_labels(finished[0], run)]
    if problems:
        raise RunError(*problems)
    place = backbone.choose_device(device)
    absolute = tuple(Run(run.path.resolve()) for run in finished)
    return Members(absolute, place.type, tuple(precision_of(run, place) for run in absolute), torch.get_num_threads())


def rules(members: Sequence[Run], answering: Answering) -> Rules:
    """Return the requested rules for probabilities, learnt from the runs' predictions of their common validation rows.

    RunError if they have none, or if a promise cannot be kept.
    """
    if answering == AS_TRAINED:
        return RAW
    validation = _validation(members)
    temperature = members[0].temperature() if len(members) == 1 else metrics.temperature(validation)
    if answering.max_error is None:
        return confidence.rules(answering, validation, temperature)
    # A mean of several runs leaves no more choice than the run with the most checkpoints.
    n_choices = max(run.n_choices(run.load_predictions("validation")) for run in members)
    return confidence.rules(answering, validation, temperature, n_choices)


def _validation(members: Sequence[Run]) -> Predictions:
    """Return the runs' mean probabilities for their validation rows, which must be equal; columns as the first's."""
    by_run = [run.load_predictions("validation") for run in members]
    if len(by_run) == 1:
        return by_run[0]
    orders = [np.argsort(np.array(each.ids, dtype=object)) for each in by_run]
    columns = [[run.labels().index(label) for label in members[0].labels()] for run in members]
    truths = [each.truth[order][:, index] for each, order, index in zip(by_run, orders, columns, strict=True)]
    ids = [[each.ids[row] for row in order] for each, order in zip(by_run, orders, strict=True)]
    contents = [run.read_json("data.json").get("validation_fingerprint") for run in members]
    for run, *run_rows in zip(members, ids, contents, strict=True):
        if run_rows != [ids[0], contents[0]]:
            raise RunError(
                f"{members[0].path} and {run.path} have different validation rows, and calibration "
                "needs rows that no run was trained on: give runs of the same data and data.seed, or one run"
            )
    probs = np.mean([each.probs[o][:, c] for each, o, c in zip(by_run, orders, columns, strict=True)], axis=0)
    labels = truths[0].astype(np.int64) if by_run[0].has_several else truths[0].argmax(axis=1)
    groups = metrics.in_same_groups([each.rows(order) for each, order in zip(by_run, orders, strict=True)])[0].groups
    return Predictions(ids[0], labels, probs, groups=groups)


class Ensemble:
    """Loaded members; those on one encoder share its weights, and the layers that none of them adapts."""

    def __init__(self, members: Members) -> None:
        self.members, self.labels = members, members.labels
        loaders = {precision: Loader(precision, members.device) for precision in members.precisions}
        precisions = zip(members.runs, members.precisions, strict=True)
        self.loaded = [loaders[precision].load(run) for run, precision in precisions]

    def probs(
        self, readings: Sequence[Sequence[Example]], watch: Callable[[int], object] | None = None, keep: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean of the members' probabilities, float64 [N, C], for rows in each of the members' readings, and
        which rows hold no token that one of the encoders knows, bool [N].

        `watch` is called with the number of rows done. `keep` as in `batching.tokenize`.
        """
        with workers.threads(self.members.n_threads):
            return self._probs(readings, watch, keep)

    def _probs(
        self, readings: Sequence[Sequence[Example]], watch: Callable[[int], object] | None, keep: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        found: list[np.ndarray] = [np.empty(0)] * len(self.loaded)
        n_done, is_blank = 0, np.zeros(len(readings[0]), dtype=bool)
        for numbers in self._groups():
            first, reading = self.loaded[numbers[0]], self.members.reading_of[numbers[0]]
            settings, examples, tokenizer = first.settings, readings[reading], first.classifier.tokenizer
            split = batching.tokenize(examples, tokenizer, self.labels, Reading.of(settings.model), keep)
            is_blank |= split.seen(tokenizer).is_blank
            share = None if watch is None else self._share(watch, n_done, len(numbers), len(examples))
            classifiers = [self.loaded[number].classifier for number in numbers]
            logits = evaluation.several_logits(classifiers, split, settings.train.evaluation_batch_size, share)
            for number, classifier, row_logits in zip(numbers, classifiers, logits, strict=True):
                evaluation.refuse_not_finite(row_logits, split.example_ids, classifier.precision)
                probs = evaluation.probabilities(row_logits, classifier.has_several)
                found[number] = probs[:, [classifier.labels.index(label) for label in self.labels]]
            n_done += len(numbers)
        return found[0] if len(found) == 1 else np.mean(found, axis=0), is_blank

    def _groups(self) -> list[list[int]]:
        """Return the members grouped by encoder, with the same tokens in the same batches."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for number, loaded in enumerate(self.loaded):
            size, long_texts = loaded.settings.train.evaluation_batch_size, Reading.of(loaded.settings.model)
            key = (loaded.encoder, loaded.tokenizer, self.members.reading_of[number], size, long_texts)
            groups.setdefault(key, []).append(number)
        return list(groups.values())

    def _share(
        self, watch: Callable[[int], object], n_before: int, n_members: int, n_rows: int
    ) -> Callable[[int], object]:
        return lambda n_done: watch((n_before * n_rows + n_members * n_done) // len(self.loaded))


@dataclass(frozen=True)
class Labelled:
    """Rows with a run's labels: ids and labels of length N, probs float64 [N, C] whose columns are `classes`. Labels
    that were whole numbers or truth values in training are so here. If rows have several, each of `labels` is a tuple,
    given from the probabilities `thresholds`, float64 [C], on; else these are None. n_blank: rows without a token that
    the encoder knows.

    answered: with `max_error`, bool [N]; the label of other rows is None · label_sets: with `coverage`, the labels that
    each row may have.
    """

    ids: list[str]
    labels: list[Label | None] | list[tuple[Label, ...]]
    probs: np.ndarray
    classes: tuple[Label, ...]
    n_blank: int = 0
    thresholds: np.ndarray | None = None
    answered: np.ndarray | None = None
    label_sets: list[tuple[Label, ...]] | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the sentences without which the labels mislead."""
        warning = blank_warning(self.n_blank, len(self.ids))
        return (warning,) if warning else ()


@dataclass(frozen=True)
class Sample:
    """The basis of an accuracy on a whole file: rows of the sample with and without a label, and half the width of the
    interval from as many labels of a plain random sample."""

    n_labelled: int
    n_unlabelled: int
    plain_half_width: float


@dataclass(frozen=True)
class Evaluation:
    """A run's scores on labelled rows, also as `evaluation["accuracy"]`: accuracy, macro_f1, log_loss and ece; for
    several labels micro_f1, macro_f1, average_precision, hamming, subset_accuracy, log_loss and ece. The run's
    `train.metric` comes first.

    n_trained_on: rows whose text the run was trained on; None for runs from before that was recorded · absent: the
    run's classes that no row has · notes: how the file was read, if not as its name says, and which rows `data.drop`
    left out · answers: with `max_error`, how that promise held on these rows · sample: if the accuracy of all `n_rows`
    is estimated from the labels of some, what these are.
    """

    scores: dict[str, Score]
    n_rows: int
    n_trained_on: int | None
    absent: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    answers: AnsweringScores | None = None
    sample: Sample | None = None

    def __getitem__(self, name: str) -> Score:
        """Return the score of this name."""
        return self.scores[name]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return the sentences without which the scores mislead."""
        seen = runs.seen_warnings(self.n_trained_on, self.n_rows)
        return (*self.notes, *seen, *_absent_warnings(self.absent))


def _absent_warnings(absent: Sequence[str]) -> tuple[str, ...]:
    """Return the sentence about classes that no row has, if there are any."""
    if not absent:
        return ()
    more = f" and {len(absent) - _MOST_NAMES} more" if len(absent) > _MOST_NAMES else ""
    names = ", ".join(map(shown, absent[:_MOST_NAMES])) + more
    return (
        f"no row is of {names}: the scores say nothing about that, and macro-F1 is the mean over the "
        "classes found among labels or predictions",
    )


def evaluate(run: Which, rows: object, device: str | None = None, max_error: float | None = None) -> Evaluation:
    """Return a run's scores on labelled rows, each with its 95 % interval, and how many rows the run was trained on.

    run: what `train` returns, a run's folder, or a run's name or hash in `runs/`. rows: a file's path, a pandas
    DataFrame, a datasets.Dataset or a list of dicts (a row each), with the columns that the run was trained on.

    The opening is recorded in `test-reads.jsonl` next to the run with the rows' fingerprint, which equals a test
    split's if they are exactly its rows. DataError lists everything that is wrong with the rows.

    max_error: `predict` with it answers only some rows; `answers` says which share, and how many of them are wrong.

        scores = submillion.evaluate("reviews", "new.csv")
        print(scores["accuracy"].value, scores["accuracy"].low, scores["accuracy"].high)
    """
    run = runs.load(run)
    selected = None
    if max_error is not None:
        selected = rules([run], Answering(max_error=max_error)).selection
    notes: list[str] = []
    classifier, examples = open_labelled(run, rows, device, notes)
    predictions = evaluation.predictions_of(run, classifier, examples)
    answers = None if selected is None else confidence.answering_scores(selected, predictions)
    notes += _selection_warnings(run, examples, max_error is not None)
    return replace(scored(run, predictions, examples, classifier.labels, notes), answers=answers)


def _selection_warnings(run: Run, examples: Sequence[Example], has_threshold: bool) -> list[str]:
    """Return the sentence about validation rows, if these are the rows: they chose what is judged on them."""
    if data.fingerprint(examples) != run.read_json("data.json").get("validation_fingerprint"):
        return []
    chosen = ["the checkpoint"] * (len(run.evaluations()) > 1) + ["the threshold of max_error"] * has_threshold
    if not chosen:
        return []
    return [
        f"these are the run's validation rows, which chose {' and '.join(chosen)}: the scores are slightly too "
        "high; use other rows"
    ]


def scored(
    run: Run, predictions: Predictions, examples: Sequence[Example], labels: Sequence[str], notes: Sequence[str] = ()
) -> Evaluation:
    """Return the scores of a run's predictions of labelled rows, and what to know before trusting them."""
    counts = predictions.truth.sum(axis=0)
    absent = tuple(label for label, n in zip(labels, counts, strict=True) if n == 0)
    n_trained_on = runs.count_trained_on(run, examples)
    scores = metrics.score_by(predictions, run.metric())
    all_notes = (*notes, *metrics.about_groups(predictions.groups))
    return Evaluation(scores, len(examples), n_trained_on, absent, all_notes)


def open_labelled(
    run: Which, rows: object, device: str | None = None, notes: list[str] | None = None
) -> tuple[Classifier, list[Example]]:
    """Return a run's classifier, and labelled rows; the opening is recorded, as in `evaluate`.

    Notes on how the rows were read are added to `notes`.
    """
    run = runs.load(run)
    classifier, settings = evaluation.load(run, device)
    examples = data.read_rows(rows, settings.data, labels=classifier.labels, warnings=notes)
    runs.append_test_read(run.path.parent, data.fingerprint(examples), run, "evaluate")
    return classifier, examples


def predict(
    run: Which | Sequence[Which],
    rows: object,
    device: str | None = None,
    watch: Callable[[int], object] | None = None,
    id: str | None = None,  # noqa: A002 - the command's word
    answering: Answering = AS_TRAINED,
) -> Labelled:
    """Return the labels and probabilities of rows, as `submillion.predict` does."""
    voters = members(run, device)
    answer_rules = rules(voters.runs, answering)
    readings = voters.read(rows, id)
    raw, is_blank = Ensemble(voters).probs(readings, watch, keep=True)
    thresholds = voters.thresholds
    answered, sets = answer_rules.answered(raw), answer_rules.members(raw)
    return Labelled(
        ids=[example.id for example in readings[0]],
        labels=given(raw, voters.classes, thresholds, answered),
        probs=answer_rules.probs(raw),
        classes=voters.classes,
        n_blank=int(is_blank.sum()),
        thresholds=None if thresholds is None else answer_rules.probs(thresholds),
        answered=answered,
        label_sets=None if sets is None else named(sets, voters.classes),
    )


def given(
    probs: np.ndarray, classes: Sequence[Label], thresholds: np.ndarray | None, answered: np.ndarray | None = None
) -> list[Label | None] | list[tuple[Label, ...]]:
    """Return each row's label by its raw probabilities, float64 [N, C]: the likeliest; None if the row is not
    `answered`, bool [N]; with thresholds, float64 [C], a tuple of the labels whose probabilities reach them."""
    if thresholds is not None:
        return named(probs >= thresholds, classes)
    is_answered = np.full(len(probs), True) if answered is None else answered
    return [classes[i] if is_sure else None for i, is_sure in zip(probs.argmax(axis=1), is_answered, strict=True)]


def named(members: np.ndarray, classes: Sequence[Label]) -> list[tuple[Label, ...]]:
    """Return the labels of each row of a table, bool [N, C]."""
    return [tuple(classes[i] for i in np.flatnonzero(row).tolist()) for row in members]


def _reading(settings: Config) -> DataConfig:
    """Return what decides how a run reads rows without labels."""
    keys = ("text", "text_pair", "encoding", "separator", "header", "drop")
    return DataConfig(**{key: getattr(settings.data, key) for key in keys})


def _other_labels(first: Run, run: Run) -> list[str]:
    ours, theirs = first.labels(), run.labels()
    if first.has_several() != run.has_several():
        several, one = (first, run) if first.has_several() else (run, first)
        return [f"{several.path} gives a row several labels, and {one.path} one: runs that predict together must agree"]
    if set(ours) == set(theirs):
        return []
    return [
        f"{run.path} gives the labels {', '.join(theirs)}, and {first.path} {', '.join(ours)}: "
        "runs that predict together must have the same labels"
    ]

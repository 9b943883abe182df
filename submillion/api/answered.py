"""Scores of labelled rows, and the accuracy on a whole file from the labels of a few: `submillion.evaluate`.

The few are those that `asking` drew to know the accuracy. Owns the check that they are its rows, of this file and for
this run; what they say is left to `judging.sampling`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from submillion import data, runs
from submillion.api import unlabelled
from submillion.api.asking import DRAWN, OF_SAMPLE
from submillion.api.unlabelled import Opened, Watch, not_watched
from submillion.data import filled, naming
from submillion.data.duplicates import key_of
from submillion.data.filled import Filled
from submillion.data.tables import Table
from submillion.errors import ConfigError, DataError
from submillion.judging import sampling
from submillion.runs import Which
from submillion.text import plural

if TYPE_CHECKING:
    from submillion.prediction import Evaluation

_SAID = ("predicted", "confidence")
_UNCLEAR = "its text is in the input more than once, and its id in none of these rows: restore its id"
_TWICE = "the row appears twice: remove one of the two"
_CLOSE, _MOST_OTHER = 0.02, 0.1  # of confidence; share of rows: another precision differs less, another run more


def evaluate(
    run: Which,
    rows: object,
    device: str | None = None,
    max_error: float | None = None,
    labelled: object = None,
    watch: Watch = not_watched,
) -> Evaluation:
    """Return a run's scores on labelled rows, each with its 95 % interval, and how many rows the run was trained on;
    with `labelled` the accuracy on all rows of a file from the labels of a few.

    run: what `train` returns, a run's folder, or a run's name or hash in `runs/`. rows: a file's path, a pandas
    DataFrame, a datasets.Dataset or a list of dicts (one per row), with the columns that the run was trained on.

    The call is noted in `test-reads.jsonl` next to the run with the rows' fingerprint, which is a test
    split's if they are exactly its rows. DataError lists everything that is wrong with the rows.

    max_error: `predict` then answers only some rows; `answers` says what share, and how many answers are wrong.

    labelled: the file that `ask` wrote for these rows and this run, with labels in some or all of its rows. `rows` then
    need no labels, and may be whatever `predict` takes. `sample` says how many labels there are, and what a
    plain random sample of as many would give. `watch` is called with the rows predicted and all rows.

        scores = submillion.evaluate("reviews", "labelled.csv")
        print(scores["accuracy"].value, scores["accuracy"].low, scores["accuracy"].high)
        print(submillion.evaluate("reviews", "new.csv", labelled="ask.csv")["accuracy"])
    """
    from submillion import prediction

    if labelled is None:
        return prediction.evaluate(run, rows, device, max_error)
    if max_error is not None:
        raise ConfigError(
            "--max-error (max_error) and --labelled (labelled) are both set: a sample only measures accuracy; leave "
            "one out"
        )
    opened = unlabelled.opened(runs.load(run), rows, watch, device)
    settings, labels = opened.run.config().data, opened.run.labels()
    sample = filled.read_filled(labelled, settings, labels, (*_SAID, *OF_SAMPLE, DRAWN))
    places = _places(sample, opened)
    numbers, sizes = _drawn(sample, len(opened.examples))
    _refuse_another_run(sample, opened, places)
    runs.append_test_read(opened.run.path.parent, data.fingerprint(sample.rows.examples), opened.run, "evaluate")
    stratum = _strata(opened, sizes, places, numbers)
    is_right = [one.label == opened.predicted[i] for one, i in zip(sample.rows.examples, places.tolist(), strict=True)]
    accuracy = sampling.accuracy(opened.confidence, stratum, places, np.array(is_right))
    plain = sampling.plain_half_width(accuracy.value, len(places), len(opened.examples))
    return prediction.Evaluation(
        scores={"accuracy": accuracy},
        n_rows=len(opened.examples),
        n_trained_on=None if opened.n_trained_on is None else 0,
        notes=_notes(sample, opened),
        sample=prediction.Sample(len(places), sample.n_unlabelled, plain),
    )


def _drawn(sample: Filled, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """The stratum of each labelled row, from 0, int64 [M], and the number of rows in each stratum, int64 [H].

    DataError if the file is no sample, or not of n_rows rows.
    """
    table = sample.table
    if missing := [name for name in OF_SAMPLE if name not in table.columns]:
        raise DataError(
            f"{table.origin} has no column {' and '.join(map(repr, missing))}: it is not a sample drawn to know the "
            "accuracy; rows chosen to learn from are the hard ones, and say nothing about the others. Ask "
            "with --for know (in Python purpose='know'); rows that all have labels need no sample: evaluate --data"
        )
    strata, sizes = (np.array([_number(cell) for cell in table.columns[name]]) for name in OF_SAMPLE)
    if len(bad := np.flatnonzero(~((strata >= 1) & (sizes >= 1) & (strata % 1 == 0) & (sizes % 1 == 0)))):
        raise DataError(
            f"{table.place(bad.tolist())}: columns {' and '.join(map(repr, OF_SAMPLE))} do not hold whole numbers "
            "above 0: put back what `ask` wrote"
        )
    pairs = np.unique(np.stack([strata, sizes], axis=1).astype(np.int64), axis=0)
    if pairs[:, 0].tolist() != [*range(1, len(pairs) + 1)] or pairs[:, 1].sum() != n_rows:
        raise DataError(
            f"{table.origin} is a sample of {pairs[:, 1].sum():,} rows, and the input has {n_rows:,} that the run was "
            "not trained on: give the file that was asked about, and keep all rows of the sample, including those "
            "without a label"
        )
    of_number = dict(zip(table.numbers, strata.astype(np.int64).tolist(), strict=True))
    own = sample.rows.table.numbers
    return np.array([of_number[own[row]] - 1 for row in sample.rows.rows]), pairs[:, 1]


def _strata(opened: Opened, sizes: np.ndarray, places: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The stratum of each opened row, int64 [N]: consecutive strata by falling confidence."""
    stratum = np.empty(len(opened.examples), dtype=np.int64)
    stratum[np.argsort(-opened.confidence, kind="stable")] = np.repeat(np.arange(len(sizes)), sizes)
    stratum[places] = numbers  # drawn rows keep theirs, though rounding may move a row across a border
    return stratum


def _places(sample: Filled, opened: Opened) -> np.ndarray:
    """The labelled rows' places among the opened ones, int64 [M]: by id and text, else by a text that occurs once.

    DataError lists rows that are missing there, and those that occur twice.
    """
    keys, by_text = [key_of(example) for example in opened.examples], defaultdict[str, list[int]](list)
    by_id = {example.id: place for place, example in enumerate(opened.examples)}
    for place, key in enumerate(keys):
        by_text[key].append(place)
    places, strange, unclear, twice = list[int](), list[int](), list[int](), list[int]()
    for number, example in enumerate(sample.rows.examples):
        key, place = key_of(example), by_id.get(example.id)
        if place is None or keys[place] != key:  # a spreadsheet may have changed the id
            place = by_text[key][0] if len(by_text[key]) == 1 else None
        if place is None:
            (unclear if by_text[key] else strange).append(number)
        elif place in places:
            twice.append(number)
        else:
            places.append(place)
    _refuse_strange(sample, opened, strange, {_UNCLEAR: unclear, _TWICE: twice})
    return np.array(places, dtype=np.int64)


def _refuse_strange(
    sample: Filled, opened: Opened, strange: Sequence[int], others: Mapping[str, Sequence[int]]
) -> None:
    """Raise a DataError about labelled rows, by their numbers, that are not among the opened ones, and about others, by
    what is wrong with them."""
    seen = runs.trained_on(opened.run, [sample.rows.examples[number] for number in strange]) if strange else None
    is_seen = dict.fromkeys(strange, False) if seen is None else dict(zip(strange, seen.tolist(), strict=True))
    sentences = (
        (
            [number for number in strange if is_seen[number]],
            f"{opened.run.path} was trained on the row, so it says nothing about new ones: ask again with this run",
        ),
        (
            [number for number in strange if not is_seen[number]],
            "the input has no row with this text: give the file that was asked about, and leave its texts as they are",
        ),
        *((rows, why) for why, rows in others.items()),
    )
    place = sample.rows.table.place
    problems = [f"{place([sample.rows.rows[i] for i in rows])}: {why}" for rows, why in sentences if rows]
    if problems:
        raise DataError(*problems)


def _refuse_another_run(sample: Filled, opened: Opened, places: np.ndarray) -> None:
    """Raise a DataError if the file's predictions are not this run's: its sample was drawn with another's."""
    columns, predicted, confidence = sample.rows.table.columns, opened.predicted, opened.confidence
    if not set(_SAID) <= columns.keys():
        return
    labels, cells = ([columns[name][row] for row in sample.rows.rows] for name in _SAID)
    n_other = sum(
        naming.name_of(label) != predicted[place] or not abs(_number(cell) - confidence[place]) <= _CLOSE
        for label, cell, place in zip(labels, cells, places.tolist(), strict=True)
    )
    if n_other > _MOST_OTHER * len(places):
        raise DataError(
            f"{sample.table.origin}: {n_other:,} of {len(places):,} predictions are not those of {opened.run.path}: "
            "give the run that was asked; for another run, ask again"
        )


def _notes(sample: Filled, opened: Opened) -> tuple[str, ...]:
    """What to know before trusting the accuracy."""
    notes, n_all = [*sample.table.notes], len(sample.table.numbers)
    if opened.n_trained_on:
        n_rows = opened.n_trained_on + len(opened.examples)
        notes.append(
            f"{opened.n_trained_on:,} of {n_rows:,} rows {plural(opened.n_trained_on, 'was', 'were')} trained on, "
            "and left out"
        )
    if sample.n_unlabelled:
        notes.append(
            f"{sample.n_unlabelled:,} of {n_all:,} rows of {sample.table.origin} "
            f"{plural(sample.n_unlabelled, 'has', 'have')} no label yet: the accuracy holds if these are "
            "like the others; label from the top, where the order is random"
        )
        confidence = np.array([_number(cell) for cell in sample.table.columns.get("confidence", ["nan"] * n_all)])
        is_labelled = np.isin(sample.table.numbers, [sample.rows.table.numbers[row] for row in sample.rows.rows])
        notes += sampling.skipped_warning(confidence, is_labelled)
    if n_deleted := _n_drawn(sample.table) - n_all:
        notes.append(
            f"{n_deleted:,} of {n_all + n_deleted:,} rows that were asked about {plural(n_deleted, 'is', 'are')} not "
            f"in {sample.table.origin}: if "
            "they were deleted for being hard, or easy, the accuracy is wrong; keep them without a label"
        )
    return tuple(notes)


def _n_drawn(table: Table) -> int:
    """How many rows the sample had; those in the file if it does not say."""
    drawn = zip(*(table.columns.get(name, ()) for name in (OF_SAMPLE[0], DRAWN)), strict=True)
    of_stratum = {_number(stratum): _number(n) for stratum, n in drawn} if DRAWN in table.columns else {}
    n_drawn = sum(of_stratum.values())
    return int(n_drawn) if n_drawn >= len(table.numbers) else len(table.numbers)


def _number(cell: object) -> float:
    try:
        return float(str(cell))
    except ValueError:
        return float("nan")

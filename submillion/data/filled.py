"""Files of rows to label (`submillion ask`), as people return them: some rows have a label, others not yet.

Owns how such a file is read, whatever the layout of the training rows, and how its rows become training rows
(`data.more`). Which rows are to be labelled, and what their labels say about a file, is left to others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from submillion.config import DataConfig
from submillion.data import memory, naming, reading
from submillion.data.duplicates import key_of
from submillion.data.labels import named
from submillion.data.reading import Example, Rows
from submillion.data.tables import Table
from submillion.errors import DataError
from submillion.text import plural


@dataclass(frozen=True)
class Filled:
    """A file of rows to label: its whole `table`, and the `rows` that have a label by now."""

    table: Table
    rows: Rows

    @property
    def n_unlabelled(self) -> int:
        """Return how many rows have no label yet."""
        return len(self.table.numbers) - len(self.rows.examples)


def as_asked(data: DataConfig) -> DataConfig:
    """Return the settings by which a file of rows to label is read: the run's columns, named by the first line."""
    overrides = {"header": True, "separator": None, "split": None, "drop": (), "more": ()}
    return data.model_copy(update=overrides)


def read_filled(source: object, data: DataConfig, labels: Sequence[str], more: Collection[str] = ()) -> Filled:
    """Return the rows of a file to label; `more` are further columns, which are read if they exist.

    If rows have several labels, an empty cell says that none applies; else the row has no label yet. DataError lists
    everything that is wrong with the labelled rows, and is raised if there are none.
    """
    data, problems = as_asked(data), list[str]()
    table, data = memory.opened(source, data, labelled=True, more=more)
    if data.group not in (None, *table.names):
        data = data.model_copy(update={"group": None})
    labelled = table if data.labels == "several" else _without_unlabelled(table, data)
    rows = reading.examples_of(labelled, data, problems, advice="run")
    reading.refuse_unknown(rows, labels, problems, data)
    reading.raise_all(problems)
    return Filled(table, rows)


def _without_unlabelled(table: Table, data: DataConfig) -> Table:
    cells = table.columns.get(str(data.label))
    if cells is None or not table.numbers:  # the reader reports it
        return table
    missing = {number for number, cell in zip(table.numbers, cells, strict=True) if naming.name_of(cell) is None}
    if len(missing) == len(table.numbers):
        raise DataError(f"{table.origin}: none of its {len(missing):,} rows has a label yet: fill in the {named(data)}")
    return table.without(missing)


def added(
    data: DataConfig, splits: Mapping[str, Sequence[Example]], labels: Sequence[str], warnings: list[str]
) -> list[Example]:
    """Return the rows of `data.more`, which are trained on besides the source's; their ids have the file's name.

    Rows whose text or group is held out, in validation or test, are left out, and so are rows whose text is trained on
    already; warnings say how many. DataError lists everything that is wrong with all files.
    """
    problems, more_examples = list[str](), list[Example]()
    held_out = [example for name in ("validation", "test") for example in splits[name]]
    texts, groups = {key_of(example) for example in held_out}, {example.group for example in held_out} - {None}
    trained_on = {key_of(example) for example in splits["train"]}
    for source in data.more:
        try:
            filled = read_filled(Path(source), data, labels)
        except DataError as error:
            problems += error.problems
            continue
        origin, examples = filled.table.origin, filled.rows.examples
        kept = [example for example in examples if key_of(example) not in texts and example.group not in groups]
        new: dict[str, Example] = {}
        for example in kept:
            if key_of(example) not in trained_on:
                new.setdefault(key_of(example), example)
        more_examples += [replace(example, id=f"{source}:{example.id}") for example in new.values()]
        trained_on |= new.keys()
        warnings += _left_out(origin, filled.n_unlabelled, len(filled.table.numbers), ("has", "have"), "no label yet")
        n_held_out = len(examples) - len(kept)
        warnings += _left_out(origin, n_held_out, len(examples), ("is", "are"), "also held out, in validation or test")
        warnings += _left_out(
            origin, len(kept) - len(new), len(examples), ("has", "have"), "a text that is already trained on"
        )
    reading.raise_all(problems)
    return more_examples


def _left_out(origin: str, n: int, n_all: int, verbs: tuple[str, str], why: str) -> list[str]:
    return [f"{origin}: {n:,} of {n_all:,} rows {plural(n, *verbs)} {why}, and {plural(n, 'is', 'are')} left out"] * (
        n > 0
    )


def cells_to_show(source: object, data: DataConfig, rows: Sequence[int]) -> dict[str, list[str]]:
    """Return the texts of rows (their numbers from 0), column by column as the run reads them, and their groups if
    the run has some; texts without a column are in the first.

    The rows must be readable: `read_unlabelled` says what is wrong with them.
    """
    data = data.model_copy(update={"drop": ()})
    table, own = memory.opened(source, data, labelled=False, more=() if data.group is None else (data.group,))
    wanted = {name: name for name in (*reading.text_columns(data), *([data.group] if data.group else []))}
    if own is not data:  # texts in a list, or pairs
        wanted = {reading.text_columns(data)[0]: "text", **({data.text_pair: "text_pair"} if data.text_pair else {})}
    columns = {name: table.columns.get(wanted.get(name, "")) for name in (*reading.text_columns(data), *wanted)}
    return {
        name: ["" if cells is None or naming.is_missing(cells[row]) else str(cells[row]) for row in rows]
        for name, cells in columns.items()
    }

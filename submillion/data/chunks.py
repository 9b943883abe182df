"""Files of any size in chunks of a fixed number of rows: counted and checked in one pass, then read again by chunk.

A chunk's key is a hash of its texts and ids, so a chunk that was read before is recognised, and one that has changed is
not. Rows follow the rules of `tables` and `reading`; memory holds one chunk, and 8 bytes per row for ids while a file
is checked.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from submillion.config import DataConfig
from submillion.data import naming, reading, sources
from submillion.data.columns import missing_columns
from submillion.data.formats import tables
from submillion.data.kinds import ALLOWED
from submillion.data.naming import ID_COLUMNS
from submillion.data.packaged import PREFIX, packaged
from submillion.data.reading import Example, Rows
from submillion.data.tables import Table, place
from submillion.errors import DataError

CHUNK_ROWS = 4096
_SHOWN_NOTES = 8
Kind = Literal["bool", "int", "float", "text"]


@dataclass(frozen=True)
class Columns:
    """What is read besides the texts. id: the column of the rows' ids, None for `id` if there is one · keep: columns
    that are copied."""

    id: str | None = None
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """Some rows of a source: the `number`-th of its chunks, from 0.

    n_rows: those that are predicted · key: 32 hex digits of the ids and texts · id_column: the ids' column; None if
    rows are numbered.
    """

    source: str
    number: int
    n_rows: int
    key: str
    id_column: str | None


@dataclass(frozen=True)
class Part:
    """A file of a source: its path in a folder, or its name alone, and its chunks, which may be none in a folder.

    notes: how it was read, and what `data.drop` leaves out · kept: the columns that are copied, each with the kind of
    its cells · n_dropped: rows that `data.drop` leaves out.
    """

    name: str
    source: str
    chunks: tuple[Chunk, ...]
    notes: tuple[str, ...] = ()
    kept: tuple[tuple[str, Kind], ...] = ()
    n_dropped: int = 0

    @property
    def n_rows(self) -> int:
        """Return the rows of all chunks."""
        return sum(chunk.n_rows for chunk in self.chunks)


def survey(
    source: str,
    settings: Sequence[DataConfig],
    n_rows: int = CHUNK_ROWS,
    watch: Callable[[int], object] | None = None,
    columns: Columns | None = None,
) -> list[Part]:
    """Return the parts of a file, of packaged data or of a folder, cut into chunks of n_rows; labels are not read.

    Rows are checked by the columns of each of the settings; a folder's files are checked as if each were alone, but
    may have no rows. `watch` is called with the number of rows read. DataError lists everything that is wrong.
    """
    columns, problems = columns or Columns(), list[str]()
    parts, n_read = [], 0
    for name, file in _files(source):
        check = _Check(file, settings, columns, may_be_empty=sources.kind_of(source) == "folder")
        try:
            for table in _tables(file, settings, n_rows, columns):
                check.add(table)
                n_read += len(table.numbers)
                if watch is not None:
                    watch(n_read)
            parts.append(Part(name, file, check.conclude(n_rows), check.notes(), check.kept(), check.n_dropped))
        except DataError as error:
            check.problems += error.problems
        problems += check.problems
    if not problems and not any(part.chunks for part in parts):
        problems.append(f"{source} has no rows")
    reading.raise_all(problems)
    return parts


class Reader:
    """Reads chunks of a survey: quickly in ascending order, since files are read forwards."""

    def __init__(self, settings: Sequence[DataConfig], n_rows: int = CHUNK_ROWS, keep: tuple[str, ...] = ()) -> None:
        self.settings, self.n_rows, self.keep = settings, n_rows, keep
        self._source, self._next = "", 0
        self._tables: Iterator[Table] = iter(())

    def read(self, chunk: Chunk) -> list[list[Example]]:
        """Return the chunk's rows as examples, by the columns of each of the settings.

        DataError if they are not what the survey saw.
        """
        table = self._table(chunk)
        names = [] if chunk.id_column is None else naming.names_of_rows(table, chunk.id_column)
        ids = [str(name) for name in names] or naming.numbers_of_rows(table)
        return _examples(table, self.settings, ids, [])[0]

    def kept(self, chunk: Chunk) -> list[list[Any]]:
        """Return the cells of each kept column in the chunk's rows; DataError as in `read`."""
        table = self._table(chunk)
        _, readings = _examples(table, self.settings, naming.numbers_of_rows(table), [])
        usable = _usable(readings)
        rows = [row for row, number in enumerate(table.numbers) if number in usable]
        cells = (table.columns.get(name) or [None] * len(table.numbers) for name in self.keep)
        return [[column[row] for row in rows] for column in cells]

    def _table(self, chunk: Chunk) -> Table:
        if chunk.source != self._source or chunk.number < self._next:
            self._source, self._next = chunk.source, 0
            self._tables = _tables(chunk.source, self.settings, self.n_rows, Columns(chunk.id_column, self.keep))
        table = next(islice(self._tables, chunk.number - self._next, None), None)
        self._next = chunk.number + 1
        if table is None or _key(table, chunk.number, chunk.id_column, self.settings) != chunk.key:
            raise DataError(f"{chunk.source} changed while it was being read: run the same command again")
        return table


def _examples(
    table: Table, settings: Sequence[DataConfig], ids: Sequence[str], problems: list[str]
) -> tuple[list[list[Example]], list[Rows]]:
    """Return the examples by each of the settings, of the rows usable by all of them, and all rows by each."""
    readings = [reading.examples_of(table, data, problems, labelled=False, ids=ids, advice="run") for data in settings]
    usable = _usable(readings)
    examples = [
        [example for example, row in zip(rows.examples, rows.rows, strict=True) if rows.table.numbers[row] in usable]
        for rows in readings
    ]
    return examples, readings


def _usable(readings: Sequence[Rows]) -> set[int]:
    """Return the numbers of the rows usable by all."""
    return set.intersection(*({rows.table.numbers[row] for row in rows.rows} for rows in readings))


class _Check:
    """What is known about a file, chunk after chunk."""

    def __init__(self, file: str, settings: Sequence[DataConfig], columns: Columns, may_be_empty: bool) -> None:
        self.file, self.settings, self.columns, self.may_be_empty = file, settings, columns, may_be_empty
        self.problems: list[str] = []
        self.chunks: list[Chunk] = []
        self.hashes: list[np.ndarray] = []  # of ids, "" for a missing one
        self.said: dict[str, None] = {}
        self.n_dropped = 0
        self.types: dict[str, set[type]] = {name: set() for name in columns.keep}  # of kept cells
        self.last: Table | None = None

    def add(self, table: Table) -> None:
        if self.may_be_empty and not table.numbers and not table.bad:
            return
        column, self.last = self.columns.id, table
        if column is None:
            column = next((name for name in ID_COLUMNS if name in table.columns), None)
        examples, readings = _examples(table, self.settings, naming.numbers_of_rows(table), self.problems)
        self.said |= dict.fromkeys(table.notes)
        if dropped := {number: bad for rows in readings for bad in rows.dropped for number in bad.numbers}:
            self.n_dropped += len(dropped)
            self.said |= {bad.sentence: None for bad in dropped.values()}
        for name, types in self.types.items():
            types |= {type(cell) for cell in table.columns.get(name, ()) if not naming.is_missing(cell)}
        if column is not None:
            has_column = column in table.columns
            ids = naming.names_of_rows(table, column) if has_column else [None] * len(table.numbers)
            self.hashes.append(np.fromiter((hash(name or "") for name in ids), np.int64, len(ids)))
        number = len(self.chunks)
        self.chunks.append(
            Chunk(self.file, number, len(examples[0]), _key(table, number, column, self.settings), column)
        )

    def notes(self) -> tuple[str, ...]:
        """Return the first notes on the file, after the count of rows that are left out."""
        sentences = list(self.said)
        if self.n_dropped:
            plural = "s are" if self.n_dropped > 1 else " is"
            sentences.insert(0, f"{self.file}: {self.n_dropped:,} row{plural} left out and not predicted (data.drop)")
        return (
            *sentences[:_SHOWN_NOTES],
            *([f"and {len(sentences) - _SHOWN_NOTES} more"] * (len(sentences) > _SHOWN_NOTES)),
        )

    def conclude(self, n_rows: int) -> tuple[Chunk, ...]:
        """Return the file's chunks; add a problem for ids that cannot be used, which only the last row may show."""
        options = dict.fromkeys(self.columns.keep, "--keep")
        options |= {} if self.columns.id is None else {self.columns.id: "--id"}
        missing = [] if self.last is None else missing_columns(self.last, options, "columns")
        if missing:
            self.problems += missing
            return tuple(self.chunks)
        column = self.chunks[-1].id_column if self.chunks else None
        if column is None:
            return tuple(self.chunks)
        hashes, counts = np.unique(np.concatenate(self.hashes), return_counts=True)
        repeated = set(hashes[counts > 1].tolist())
        if repeated or hash("") in hashes or any(chunk.id_column != column for chunk in self.chunks):
            self._add_bad_ids(column, repeated, n_rows)
        return tuple(self.chunks)

    def kept(self) -> tuple[tuple[str, Kind], ...]:
        return tuple((name, _kind(types)) for name, types in self.types.items())

    def _add_bad_ids(self, column: str, repeated: set[int], n_rows: int) -> None:
        """Read the file again for the rows without an id, or with a repeated one: hashes may agree by chance."""
        numbers, lines, seen = array("q"), array("q"), set[str]()
        for table in _tables(self.file, self.settings, n_rows, self.columns):
            has_column = column in table.columns
            names = naming.names_of_rows(table, column) if has_column else [None] * len(table.numbers)
            for row, name in enumerate(names):
                if name is None or name in seen:
                    numbers.append(table.numbers[row])
                    lines.extend([] if table.lines is None else [table.lines[row]])
                elif hash(name) in repeated:
                    seen.add(name)
        if numbers:
            where = place(self.file, numbers, lines or None)
            self.problems.append(naming.bad_ids(where, column, is_chosen=self.columns.id is not None))


def _files(source: str) -> list[tuple[str, str]]:
    """The name and the place of each of a source's files, in the order of their names."""
    path = Path(os.path.expanduser(source))
    match sources.kind_of(source):
        case "packaged":
            return [(source, source)]
        case "hub" | "memory":
            raise DataError(f"{source}: no such file or folder; give one, or packaged:NAME")
        case "file":
            return [(path.name, str(path))]
    names = [file.relative_to(path) for file in path.rglob("*") if file.is_file()]
    # Spark and others leave notes next to the parts, such as _SUCCESS and .part-0.csv.crc.
    kept = sorted(name.as_posix() for name in names if not any(piece.startswith((".", "_")) for piece in name.parts))
    if not kept:
        raise DataError(f"{source} holds no files that are read: allowed are {ALLOWED}")
    return [(name, str(path / name)) for name in kept]


def _kind(types: set[type]) -> Kind:
    """Return the kind of a column whose cells have these types."""
    match types:
        case _ if types == {bool}:
            return "bool"
        case _ if types == {int}:
            return "int"
        case _ if types and types <= {int, float}:
            return "float"
    return "text"


def _tables(file: str, settings: Sequence[DataConfig], n_rows: int, columns: Columns) -> Iterator[Table]:
    wanted = {column for data in settings for column in reading.wanted_columns(data, labelled=False)}
    wanted |= {*columns.keep, *(() if columns.id is None else (columns.id,))}
    if not file.startswith(PREFIX):
        yield from tables(Path(file), wanted, n_rows, reading.layout_of(settings[0], labelled=False))
        return
    whole = packaged(file)
    kept = {name: values for name, values in whole.columns.items() if name in wanted}
    for start in range(0, len(whole.numbers), n_rows):
        span = slice(start, start + n_rows)
        yield replace(whole, columns={name: column[span] for name, column in kept.items()}, numbers=whole.numbers[span])


def _key(table: Table, number: int, id_column: str | None, settings: Sequence[DataConfig]) -> str:
    """Return a hash of a chunk's texts, ids and number, which makes the ids of rows that have none."""
    used = {column for data in settings for column in reading.text_columns(data)} | {id_column}
    content = repr((number, id_column, sorted((name, cells) for name, cells in table.columns.items() if name in used)))
    return hashlib.sha256(content.encode()).hexdigest()[:32]

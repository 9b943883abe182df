"""Files become tables, whole or some rows at a time: columns of plain values, each row with its place in the file.

Owns formats and broken rows. Bytes and encodings are left to `files`, what columns mean to `reading`.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from submillion.data.files import Lines, bomb, listed, most_unpacked, read_errors, refuse, suffix_of
from submillion.errors import DataError
from submillion.text import shown

_PARQUET_BUFFER_BYTES = 2**20


@dataclass(frozen=True)
class Table:
    """Rows of one file: `columns` holds those that were asked for and found, `names` all there are.

    numbers: each row's number among the file's data rows, from 1 · lines: the line of the file on which it
    begins, from 1, None where a file has no lines · index: what Python calls it, for rows that come from memory ·
    class_names: the labels in their order, where the source defines one · is_text: numbers, too, can only be written
    as text here · is_published: a data set that its readers do not edit · problems: what is wrong with rows that were
    left out, or hold U+FFFD for bytes that are not UTF-8 · path: the file, None where the rows come from none.
    """

    origin: str
    names: tuple[str, ...]
    columns: dict[str, list[Any]]
    numbers: Sequence[int]
    lines: Sequence[int] | None = None
    index: Sequence[Any] | None = None
    class_names: tuple[str, ...] | None = None
    is_text: bool = False
    is_published: bool = False
    problems: tuple[str, ...] = field(default=())
    path: Path | None = None

    def place(self, rows: Sequence[int]) -> str:
        """Return where rows (indices into the columns) stand, for messages: file, row numbers, lines.

        >>> table = Table("a.csv", ("text",), {"text": ["x", "y"]}, numbers=[1, 2], lines=[2, 3])
        >>> table.place([1]), table.place([0, 1])
        ('a.csv, row 2 (line 3)', 'a.csv, rows 1, 2 (lines 2, 3)')
        """
        lines = None if self.lines is None else [self.lines[row] for row in rows]
        index = None if self.index is None else [self.index[row] for row in rows]
        return place(self.origin, [self.numbers[row] for row in rows], lines, index)


def table_of(origin: str, columns: dict[str, list[Any]], class_names: tuple[str, ...] | None = None) -> Table:
    """Return the table of columns that come from no file; its rows are numbered from 1."""
    n_rows = len(next(iter(columns.values()), []))
    return Table(origin, tuple(columns), columns, range(1, n_rows + 1), class_names=class_names)


def read_table(path: Path, wanted: Collection[str]) -> Table:
    """Return a file's table with the `wanted` columns; DataError if the file cannot be read at all."""
    (table,) = tables(path, wanted)
    return table


def tables(path: Path, wanted: Collection[str], n_rows: int | None = None) -> Iterator[Table]:
    """Yield a file's rows as tables with the `wanted` columns; for None all of them in one.

    Each table is of the next `n_rows` rows, the last of what is left; broken ones count and are left out. The first
    table comes even if there are no rows. `names` are those seen so far: a JSON Lines file may have new ones at any
    row. DataError if the file cannot be read.
    """
    refuse(path)
    match suffix_of(path):
        case ".parquet":
            found = _parquet(path, wanted, n_rows)
        case ".csv":
            found = _delimited(path, ",", wanted, n_rows)
        case ".tsv":
            found = _delimited(path, "\t", wanted, n_rows)
        case _:
            found = _json_lines(path, wanted, n_rows)
    yield next(found)
    yield from (table for table in found if table.numbers or table.problems)


def _delimited(path: Path, delimiter: str, wanted: Collection[str], n_rows: int | None) -> Iterator[Table]:
    lines, broken = Lines(path, newline=""), list[str]()
    rows = _cells(lines, delimiter, broken)
    with _long_cells():
        names = [name.strip() for name in next(rows, (1, []))[1]]
    _check_header(path, names, delimiter)
    for first, batch in _batches(rows, n_rows):
        kept, ragged = [], []
        for number, (line, cells) in enumerate(batch, start=first):
            (kept if len(cells) == len(names) else ragged).append((number, line, cells))
        problems = [*lines.problems(), *broken]
        if ragged:
            where = place(str(path), [number for number, _, _ in ragged], [line for _, line, _ in ragged])
            problems.append(
                f"{where}: {len(ragged[0][2])} cells where the header has {len(names)}: "
                f"put texts that hold the separator {delimiter!r} in double quotes"
            )
        columns = {name: [cells[i] for _, _, cells in kept] for i, name in enumerate(names) if name in wanted}
        numbers, starts = [number for number, _, _ in kept], [line for _, line, _ in kept]
        where = {"numbers": numbers, "lines": starts, "path": path}
        yield Table(str(path), tuple(names), columns, **where, is_text=True, problems=tuple(problems))


def _cells(lines: Lines, delimiter: str, problems: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Each row's first line and its cells, empty lines left out; a broken quote ends the rows with a problem."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote opens here and never closes" if "unexpected end" in str(error) else str(error)
        problems.append(
            f"{lines.path}, line {line}: {reason}: write a quote inside a quoted cell twice; later rows were not read"
        )


def _batches(rows: Iterable[Any], n_rows: int | None) -> Iterator[tuple[int, list[Any]]]:
    """The number of the first, from 1, and the next n_rows rows; the last batch is shorter, and may be empty."""
    rows, first = iter(rows), 1
    while True:
        with _long_cells():
            batch = list(islice(rows, n_rows))
        yield first, batch
        first += len(batch)
        if n_rows is None or len(batch) < n_rows:
            return


def _check_header(path: Path, names: Sequence[str], delimiter: str) -> None:
    if not names:
        raise DataError(f"{path} is empty: the first line must name the columns")
    refuse_repeated(str(path), [name for name in names if name])
    other = next((mark for mark in ";\t|," if mark in names[0]), None)
    if len(names) == 1 and other is not None:
        raise DataError(
            f"{path} seems to be separated by {other!r}, and a {suffix_of(path)} file is by {delimiter!r}: "
            "save it with that, or name it .tsv if tabs separate it"
        )


def refuse_repeated(origin: str, names: Sequence[str]) -> None:
    """Raise a DataError if a column's name stands twice."""
    if repeated := sorted(name for name, n in Counter(names).items() if n > 1):
        raise DataError(f"{origin}: the header names {', '.join(map(repr, repeated))} more than once: rename one")


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let csv read cells of any length: its limit of 131,072 characters is below a long document's."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _json_lines(path: Path, wanted: Collection[str], n_rows: int | None) -> Iterator[Table]:
    lines, names = Lines(path, newline="\n"), dict[str, None]()
    filled = ((line, content) for line, content in enumerate(lines, start=1) if content.strip())
    for first, batch in _batches(filled, n_rows):
        rows, numbers, starts, broken, reason = [], [], [], [], ""
        for number, (line, content) in enumerate(batch, start=first):
            try:
                rows.append(_json_object(content.rstrip("\n")))
            except (ValueError, RecursionError) as error:
                broken.append((number, line))
                reason = reason or str(error)
                continue
            numbers.append(number)
            starts.append(line)
        problems = lines.problems()
        if broken:
            where = place(str(path), [number for number, _ in broken], [line for _, line in broken])
            problems.append(f"{where}: not a JSON object ({reason}): write one object a line")
        names |= {name: None for row in rows for name in row}
        columns = {name: [row.get(name) for row in rows] for name in names if name in wanted}
        yield Table(str(path), tuple(names), columns, numbers, starts, problems=tuple(problems), path=path)


def _json_object(content: str) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError(f"it is {shown(content)}")
    return value


def _parquet(path: Path, wanted: Collection[str], n_rows: int | None) -> Iterator[Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = 1
    try:
        # Read through a small buffer: a row group may be as large as the file.
        with (
            read_errors(path),
            pq.ParquetFile(path, pre_buffer=False, buffer_size=_PARQUET_BUFFER_BYTES) as file,
        ):
            names = tuple(file.schema_arrow.names)
            refuse_repeated(str(path), [name for name in names if name in wanted])
            if file.metadata.num_rows > most_unpacked(path):
                raise DataError(bomb(path))
            chosen = [name for name in names if name in wanted]
            whole = (file.read(columns=chosen) for _ in range(1))
            for found in whole if n_rows is None else _sliced(file, chosen, n_rows):
                problems: list[str] = []
                columns = {name: _values(path, name, found[name], first, problems) for name in found.column_names}
                numbers = range(first, first + found.num_rows)
                first += found.num_rows
                yield Table(str(path), names, columns, numbers, problems=tuple(problems), path=path)
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {str(error).splitlines()[0]}") from None


def _sliced(file: Any, columns: list[str], n_rows: int) -> Iterator[Any]:
    """A Parquet file's rows in Arrow tables of n_rows, whatever its row groups are; the last one may be empty."""
    import pyarrow as pa

    held = file.schema_arrow.empty_table().select(columns)
    for batch in file.iter_batches(batch_size=n_rows, columns=columns):
        held = pa.concat_tables([held, pa.Table.from_batches([batch])])
        while held.num_rows >= n_rows:
            yield held.slice(0, n_rows)
            held = held.slice(n_rows)
    yield held


def _values(path: Path, name: str, column: Any, first: int, problems: list[str]) -> list[Any]:
    """A column's values, bytes decoded."""
    import pyarrow as pa

    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(pa.large_binary()).to_pylist()
    except (OverflowError, ValueError) as error:  # a day beyond the year 9999, say
        raise DataError(
            f"{path}: column {name!r} ({column.type}) holds values that are not text ({error}): write text"
        ) from None
    return decoded(str(path), name, values, first, problems)


def decoded(origin: str, name: str, values: list[Any], first: int, problems: list[str]) -> list[Any]:
    """Return a column's values with bytes decoded as UTF-8; broken ones are a problem, and become U+FFFD.

    `first` is the first row's number.
    """
    if not any(isinstance(value, bytes) for value in values):
        return values
    broken, texts = [], []
    for number, value in enumerate(values, start=first):
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        if isinstance(value, bytes) and text.encode() != value:
            broken.append(number)
        texts.append(text)
    if broken:
        problems.append(f"{place(origin, broken)}: column {name!r} is not UTF-8: write it again as text")
    return texts


def place(
    origin: str, numbers: Sequence[int], lines: Sequence[int] | None = None, index: Sequence[Any] | None = None
) -> str:
    """Return where rows stand, for messages: their origin, numbers and, where it has any, lines or index.

    >>> place("the list", [1, 3], index=[0, 2])
    'the list, rows 1, 3 (index 0, 2)'
    """
    plural = "s" if len(numbers) > 1 else ""
    where = f" (line{plural} {listed(lines)})" if lines is not None else ""
    where += f" (index {listed(index)})" if index is not None else ""
    return f"{origin}, row{plural} {listed(numbers)}{where}"

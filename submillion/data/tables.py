"""What every source of rows becomes: columns of plain values, each row with its place in the file.

Owns the type, rows that cannot be used, and the places that messages name. Formats are read in `formats`, what columns
mean in `reading`.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from submillion.data.files import BrokenLines, Lines, listed
from submillion.errors import DataError


@dataclass(frozen=True)
class Layout:
    """How text files are laid out, as `data.encoding`, `data.separator` and `data.header` say; and a label's column,
    which tells rows from text that looks like them, None if labels are not read."""

    encoding: str | None = None
    separator: str | None = None
    header: bool | tuple[str, ...] = True
    label: str | None = None


AS_NAMED = Layout()  # as a file's name and its first line say


@dataclass(frozen=True)
class BadRows:
    """Rows that cannot be used: their numbers in the file, none if a line before the first is meant, and why.

    can_be_dropped: they are faulty by themselves; else the whole column is not what is needed.
    """

    numbers: tuple[int, ...]
    sentence: str
    can_be_dropped: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of one file: `columns` holds those that were asked for and found, `names` all there are.

    numbers: each row's number among the file's data rows, from 1 · lines: the line of the file on which it
    begins, from 1, None if the file has no lines · index: what Python calls it, for rows that come from memory ·
    class_names: the labels in their order, if the source defines one · is_text: numbers, too, can only be written
    as text here · is_published: a data set that its readers do not edit · bad: rows that could not be read, which are
    left out · notes: how the file was read, if not as its name says · path, layout: the file, None if the rows come
    from none, and how the settings say to read it · parts: the files' tables, if several make one, each with the number
    of rows before it.
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
    bad: tuple[BadRows, ...] = ()
    notes: tuple[str, ...] = ()
    path: Path | None = None
    layout: Layout = AS_NAMED
    parts: tuple[tuple[int, Table], ...] = ()

    def place(self, rows: Sequence[int]) -> str:
        """Return where rows (indices into the columns) are, for messages: file, row numbers, lines.

        >>> table = Table("a.csv", ("text",), {"text": ["x", "y"]}, numbers=[1, 2], lines=[2, 3])
        >>> table.place([1]), table.place([0, 1])
        ('a.csv, row 2 (line 3)', 'a.csv, rows 1, 2 (lines 2, 3)')
        """
        if self.parts:
            return "; ".join(part.place(indices) for part, indices in self._by_part(rows))
        lines = None if self.lines is None else [self.lines[row] for row in rows]
        index = None if self.index is None else [self.index[row] for row in rows]
        return place(self.origin, [self.numbers[row] for row in rows], lines, index)

    def _by_part(self, rows: Sequence[int]) -> Iterator[tuple[Table, list[int]]]:
        """Yield the parts that rows are in, with their indices there."""
        numbers = [self.numbers[row] for row in rows]
        for i, (before, part) in enumerate(self.parts):
            end = self.parts[i + 1][0] if i + 1 < len(self.parts) else math.inf
            part_numbers = [number - before for number in numbers if before < number <= end]
            if part_numbers:
                yield part, [bisect_left(part.numbers, number) for number in part_numbers]

    def faulty(self, rows: Sequence[int], sentence: str, can_be_dropped: bool = True) -> BadRows:
        """Return rows (indices into the columns) as bad ones, with the reason."""
        return BadRows(tuple(self.numbers[row] for row in rows), f"{self.place(rows)}: {sentence}", can_be_dropped)

    def without(self, numbers: Collection[int]) -> Table:
        """Return the table without the rows of these numbers."""
        kept = [row for row, number in enumerate(self.numbers) if number not in numbers]
        if len(kept) == len(self.numbers):
            return self
        return replace(
            self,
            columns={name: [cells[row] for row in kept] for name, cells in self.columns.items()},
            numbers=[self.numbers[row] for row in kept],
            lines=None if self.lines is None else [self.lines[row] for row in kept],
            index=None if self.index is None else [self.index[row] for row in kept],
        )


def table_of(origin: str, columns: dict[str, list[Any]], class_names: tuple[str, ...] | None = None) -> Table:
    """Return the table of columns that come from no file; its rows are numbered from 1."""
    n_rows = len(next(iter(columns.values()), []))
    return Table(origin, tuple(columns), columns, range(1, n_rows + 1), class_names=class_names)


def joined(origin: str, parts: Sequence[Table]) -> Table:
    """Return the table of several files' rows, one after the other, numbered consecutively.

    DataError if they differ in the columns that were asked for.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    problems = [
        f"{part.origin} has the columns {', '.join(part.names) or 'none'}, and {first.origin} "
        f"{', '.join(first.names)}: files of one split must have the same ones"
        for part in parts
        if part.columns.keys() != first.columns.keys()
    ]
    if problems:
        raise DataError(*problems)
    renumbered, start = [], 0
    for part in parts:
        renumbered.append(numbered_on(part, start))
        start = max([start, last_number(renumbered[-1])])
    return replace(
        first,
        origin=origin,
        columns={name: [cell for part in parts for cell in part.columns[name]] for name in first.columns},
        numbers=[number for part in renumbered for number in part.numbers],
        lines=None,
        bad=tuple(each for part in renumbered for each in part.bad),
        notes=tuple(note for part in parts for note in part.notes),
        parts=tuple(entry for part in renumbered for entry in part.parts),
    )


def numbered_on(table: Table, before: int) -> Table:
    """Return a part of a larger table, `before` rows of which come first; messages name its rows as the part does."""
    return replace(
        table,
        numbers=[before + number for number in table.numbers],
        lines=None,
        bad=tuple(replace(each, numbers=tuple(before + number for number in each.numbers)) for each in table.bad),
        parts=((before, table),),
    )


def last_number(table: Table) -> int:
    """Return the number of the last row, one that could not be read included; 0 if there is none."""
    return max([0, *table.numbers[-1:], *(number for each in table.bad for number in each.numbers)])


def refuse_repeated(origin: str, names: Sequence[str]) -> None:
    """Raise a DataError if a column's name is repeated."""
    if repeated := sorted(name for name, n in Counter(names).items() if n > 1):
        raise DataError(f"{origin}: the header names {', '.join(map(repr, repeated))} more than once: rename one")


def decoded(table: Table) -> Table:
    """Return the table with bytes in its columns decoded as UTF-8; rows with other bytes are bad."""
    columns, bad, broken = {}, list(table.bad), set[int]()
    for name, values in table.columns.items():
        columns[name] = values
        if not any(isinstance(value, bytes) for value in values):
            continue
        columns[name] = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values]
        rows = [
            row
            for row, (value, text) in enumerate(zip(values, columns[name], strict=True))
            if isinstance(value, bytes) and text.encode() != value
        ]
        if rows:
            numbers = tuple(table.numbers[row] for row in rows)
            bad.append(BadRows(numbers, f"{table.place(rows)}: column {name!r} is not UTF-8: write it again as text"))
            broken.update(numbers)
    return replace(table, columns=columns, bad=tuple(bad)).without(broken)


def place(
    origin: str, numbers: Sequence[int], lines: Sequence[int] | None = None, index: Sequence[Any] | None = None
) -> str:
    """Return where rows are, for messages: their origin, numbers and, if it has any, lines or index.

    >>> place("the list", [1, 3], index=[0, 2])
    'the list, rows 1, 3 (index 0, 2)'
    """
    plural = "s" if len(numbers) > 1 else ""
    where = f" (line{plural} {listed(lines)})" if lines is not None else ""
    where += f" (index {listed(index)})" if index is not None else ""
    return f"{origin}, row{plural} {listed(numbers)}{where}"


def unread_rows(
    broken: BrokenLines | None, numbers: Sequence[int], starts: Sequence[int], layout: Layout
) -> list[BadRows]:
    """Return the rows that hold lines of bytes that are not text, as a list of one or none."""
    if broken is None:
        return []
    rows = {bisect_right(starts, line) - 1 for line in broken.lines}
    unread = tuple(numbers[row] for row in sorted(rows) if row >= 0)
    todo = ""
    if broken.guess is not None:  # predicting has no settings
        todo = f": save the file as UTF-8 (iconv -f {broken.guess} -t UTF-8)"
    if broken.guess is not None and layout.encoding is None:
        todo += f", or train on it with --set data.encoding={broken.guess}"
    return [BadRows(unread, broken.sentence + todo)]


def encoding_notes(lines: Lines) -> tuple[str, ...]:
    """Return a sentence, or none, about a file that is not UTF-8."""
    name = lines.encoding
    return () if name in (None, "utf-8-sig") else (f"{lines.path} is read as {name}",)

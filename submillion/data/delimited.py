"""CSV and TSV files become tables: separators, headers, quotes, and what is wrong with a row.

A quote counts only if the file means it. One that never closes, closes amid a text, or swallows rows of a .tsv file is
text if its line alone has the right number of cells. No row is lost in a cell unreported.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from submillion.data.files import Lines
from submillion.data.kinds import suffix_of
from submillion.data.tables import BadRows, Layout, Table, encoding_notes, place, refuse_repeated, unread_rows
from submillion.errors import DataError
from submillion.text import plural

_MARKS = (",", ";", "\t", "|")
_MOST_IN_A_RECORD = 2**27  # characters; a quote that is open for longer never closes
_FEW = 4  # lines within a cell; fewer can end alike by chance
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"  # around names; editors do not show them


@dataclass(frozen=True, slots=True)
class _Record:
    """A row's first line and its cells. fault: why it has none · is_text: its quotes were read as text · swallowed: the
    label cells of the lines inside a cell, if these are rows."""

    line: int
    cells: list[str]
    fault: str = ""
    is_text: bool = False
    swallowed: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Shape:
    """How a file's lines become cells: `names` are the columns, `label` is the index of the label's, None if there is
    none or it is not read, `first_line` is the first row's."""

    separator: str
    names: tuple[str, ...]
    label: int | None
    notes: tuple[str, ...]
    first_line: int


def delimited(path: Path, wanted: Collection[str], n_rows: int | None, layout: Layout) -> Iterator[Table]:
    """Yield the rows of a CSV or TSV file as tables with the `wanted` columns, as `formats.tables` does."""
    lines = Lines(path, "", layout.encoding)
    feed = _Feed(lines)
    with _long_cells():
        shape = _shape(path, feed, set(wanted), layout)
    rows = _records(feed, shape)
    for first, batch in batches(rows, n_rows):
        numbered = [(first + i, record) for i, record in enumerate(batch)]
        yield _table(path, numbered, lines, shape, wanted, layout)


def _table(
    path: Path,
    numbered: Sequence[tuple[int, _Record]],
    lines: Lines,
    shape: _Shape,
    wanted: Collection[str],
    layout: Layout,
) -> Table:
    names, notes = shape.names, [*shape.notes, *encoding_notes(lines)]
    starts = [record.line for _, record in numbered]
    bad = unread_rows(lines.problem(), [number for number, _ in numbered], starts, layout)
    bad += _faulty(path, numbered)
    if layout.header is True and len(names) > 1:
        bad += _repeated_headers(path, numbered, names)
    bad += _swallowing(path, numbered, shape, notes)
    bad += _ragged(path, numbered, shape, notes)
    if as_text := [each for each in numbered if each[1].is_text]:
        notes.append(
            f"{_place(path, as_text)}: quotes are read as text: they open or close in the middle of a cell, and the "
            f"line by itself has {len(names)} cells"
        )
    left_out = {number for each in bad for number in each.numbers}
    kept = [(number, record) for number, record in numbered if number not in left_out]
    columns = {name: [record.cells[i] for _, record in kept] for i, name in enumerate(names) if name in wanted}
    numbers, lines_of = [number for number, _ in kept], [record.line for _, record in kept]
    where = {"numbers": numbers, "lines": lines_of, "path": path, "layout": layout}
    return Table(str(path), names, columns, **where, is_text=True, bad=tuple(bad), notes=tuple(notes))


def _faulty(path: Path, numbered: Sequence[tuple[int, _Record]]) -> list[BadRows]:
    reasons = dict.fromkeys(record.fault for _, record in numbered if record.fault)
    by_reason = {reason: [each for each in numbered if each[1].fault == reason] for reason in reasons}
    return [
        BadRows(tuple(number for number, _ in rows), f"{_place(path, rows)}: {reason}")
        for reason, rows in by_reason.items()
    ]


def _repeated_headers(path: Path, numbered: Sequence[tuple[int, _Record]], names: Sequence[str]) -> list[BadRows]:
    """Return the rows that repeat the first line, as in concatenated files."""
    repeated = [each for each in numbered if list(map(_name, each[1].cells)) == list(names)]
    if not repeated:
        return []
    sentence = f"{_place(path, repeated)}: the line that names the columns is repeated: delete it"
    return [BadRows(tuple(number for number, _ in repeated), sentence)]


def _swallowing(path: Path, numbered: Sequence[tuple[int, _Record]], shape: _Shape, notes: list[str]) -> list[BadRows]:
    """Return the rows with a cell that holds rows, as the labels in it show; if labels are not read, add a note."""
    spanning = [each for each in numbered if each[1].swallowed]
    if not spanning:
        return []
    if shape.label is None:
        notes.append(
            f"{_place(path, spanning)}: a quoted cell spans several lines, each of which would be a row: it "
            "is read as one text; if its opening quote is a mistake, remove it or double it in a quoted cell"
        )
        return []
    whole = (record.cells for _, record in numbered if not record.swallowed and len(record.cells) > shape.label)
    labels = {_bare(cells[shape.label]) for cells in whole}
    guilty = [each for each in spanning if _are_labels(list(map(_bare, each[1].swallowed)), labels)]
    if not guilty:
        return []
    sentence = (
        f"{_place(path, guilty)}: a quote opens there and closes lines later, which puts whole rows in "
        "one cell: remove it, or quote the cell and double the quotes inside"
    )
    return [BadRows(tuple(number for number, _ in guilty), sentence)]


def _are_labels(cells: Sequence[str], labels: Set[str]) -> bool:
    """Say whether cells are labels: all are whole rows' or, if most rows are swallowed, few that come often."""
    return labels >= {*cells} or len(cells) >= max(_FEW, 2 * len(set(cells)))


def _ragged(path: Path, numbered: Sequence[tuple[int, _Record]], shape: _Shape, notes: list[str]) -> list[BadRows]:
    """Return the rows with more or fewer cells than the header, by how many; empty ones at the end are cut off."""
    names, by_width, cut = shape.names, dict[int, list[tuple[int, _Record]]](), []
    for each in numbered:
        cells = each[1].cells
        if each[1].fault or len(cells) == len(names):
            continue
        if len(cells) > len(names) and not any(map(str.strip, cells[len(names) :])):
            del cells[len(names) :]
            cut.append(each)
        else:
            by_width.setdefault(len(cells), []).append(each)
    if cut:
        where = f"{path}: every row ends with" if len(cut) == len(numbered) else f"{_place(path, cut)}:"
        notes.append(f"{where} empty cells beyond the {len(names)} that the header names: they are ignored")
    header = f"where the header has {len(names)} ({', '.join(names[:6])}{', ...' * (len(names) > 6)})"
    bad = []
    for n, rows in by_width.items():
        todo = _advice(n, shape, are_all=len(rows) == sum(not each[1].fault for each in numbered) > 1)
        sentence = f"{_place(path, rows)}: {n} {plural(n, 'cell')} {header}: {todo}"
        bad.append(BadRows(tuple(number for number, _ in rows), sentence))
    return bad


def _advice(n_cells: int, shape: _Shape, are_all: bool) -> str:
    """Return what to do about rows of too few or too many cells; are_all: no row has another number of them."""
    if n_cells < len(shape.names):
        return f"separate the cells with {shape.separator!r}, fill in the missing ones, or delete the row"
    quoting = "put texts that contain the separator in double quotes"
    name_them = "all rows have as many: name each column in the first line"
    return f"{name_them}, or {quoting}" if are_all else f"{quoting}, and double the quotes inside them"


def _place(path: Path, rows: Sequence[tuple[int, _Record]]) -> str:
    return place(str(path), [number for number, _ in rows], [record.line for _, record in rows])


def _bare(cell: str) -> str:
    return cell.strip().strip('"').strip()


class _Feed:
    """Lines for `csv.reader`, which can be rewound to the end of any line since the last record."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._back = iter(lines), deque[str]()
        self.held: list[str] = []  # of the current record
        self._n_characters = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._lines)
        self.held.append(line)
        self._n_characters += len(line)
        if self._n_characters > _MOST_IN_A_RECORD:
            raise csv.Error("unexpected end of data")
        return line

    def start(self) -> None:
        """Begin a record."""
        self.held.clear()
        self._n_characters = 0

    def keep(self, n_lines: int) -> None:
        """Give back the record's lines except its first ones."""
        self._back.extendleft(reversed(self.held[n_lines:]))
        del self.held[n_lines:]


def _records(feed: _Feed, shape: _Shape) -> Iterator[_Record]:
    """Yield the records of a file after its header. An empty line is none; in a file of one column it is an empty cell,
    unless no record follows."""
    n_blank, line = 0, shape.first_line
    reader = csv.reader(feed, delimiter=shape.separator, strict=True)
    while True:
        feed.start()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            record = _unquoted(feed, line, shape, has_end="unexpected end" not in str(error))
            reader = csv.reader(feed, delimiter=shape.separator, strict=True)
        else:
            if not cells:
                n_blank += 1
                line += 1
                continue
            record = _Record(line, cells) if len(feed.held) == 1 else _spanning(feed, line, cells, shape)
        if len(shape.names) == 1:
            yield from (_Record(line - n_blank + i, [""]) for i in range(n_blank))
        n_blank = 0
        yield record
        line += len(feed.held)


def _unquoted(feed: _Feed, line: int, shape: _Shape, has_end: bool) -> _Record:
    """The record of a line whose quotes are wrong; `has_end` says that they close, amid a text."""
    cells = _split(feed.held[0], shape)
    if len(cells) == len(shape.names):
        feed.keep(1)
        return _Record(line, cells, is_text=True)
    if not has_end:
        feed.keep(1)
        return _Record(line, [], "a quote opens here and never closes: remove it, or double each quote inside a cell")
    return _Record(line, [], "text follows a closing quote: double the quotes inside a quoted cell")


def _spanning(feed: _Feed, line: int, cells: list[str], shape: _Shape) -> _Record:
    """Return the record of a cell that spans several lines, some of which may be rows."""
    lines = [_split(each, shape) for each in feed.held]
    fits = [len(each) == len(shape.names) for each in lines]
    may_be_rows = all(fits) or any(fits[1:-1])
    if may_be_rows and shape.separator == "\t" and len(shape.names) > 1 and fits[0]:  # a text holds no tabs
        feed.keep(1)
        return _Record(line, lines[0], is_text=True)
    if shape.label is None:
        return _Record(line, cells, swallowed=("",) if may_be_rows else ())
    return _Record(line, cells, swallowed=_labels_inside(lines, cells, shape.label, len(shape.names)))


def _labels_inside(lines: Sequence[Sequence[str]], cells: Sequence[str], label: int, n_columns: int) -> tuple[str, ...]:
    """Return the labels in a record's lines, if these are rows: labels before the quoted cell begin every line but the
    first, labels after it end every line but the last. Counted from that end, commas in texts do no harm."""
    opens = next((i for i, cell in enumerate(cells) if "\n" in cell or "\r" in cell), 0)
    inside, index = (lines[1:], label) if label < opens else (lines[:-1], label - n_columns)
    return tuple(line[index] for line in inside if len(line) >= n_columns)


def _split(line: str, shape: _Shape) -> list[str]:
    return line.rstrip("\r\n").split(shape.separator)


def _shape(path: Path, feed: _Feed, wanted: Set[str], layout: Layout) -> _Shape:
    """Return the separator and the columns' names; the feed is then before the first row."""
    notes, expected = [], layout.separator or ("\t" if suffix_of(path) == ".tsv" else ",")
    first, second, marked = _first_lines(feed)
    if not first:
        raise DataError(f"{path} is empty: the first line must name the columns")
    separator = _separator(first, second, marked or expected, wanted, layout)
    if separator != expected:
        notes.append(f"{path} is read as separated by {separator!r}")
    names = _names(path, feed, _cells(first, separator), separator, wanted, layout, notes)
    refuse_repeated(str(path), [name for name in names if name in wanted])
    label = names.index(layout.label) if layout.label in names else None
    return _Shape(separator, tuple(names), label, tuple(notes), len(feed.held) + 1)


def _names(
    path: Path,
    feed: _Feed,
    cells: list[str],
    separator: str,
    wanted: Set[str],
    layout: Layout,
    notes: list[str],
) -> list[str]:
    """The columns' names; the line that holds them is taken from the feed."""
    if not names_columns(cells, wanted, layout):
        return unnamed(cells, layout)
    names = _header(feed, separator)
    if layout.header is True:
        return names
    notes.append(f"{path} has a first line that names its columns: it is not read as a row (data.header)")
    return names if wanted & set(names) else unnamed(cells, layout)


def names_columns(cells: Sequence[str], wanted: Set[str], layout: Layout) -> bool:
    """Say whether the cells of a first line name the columns, as `data.header` says or although it says otherwise."""
    if isinstance(layout.header, bool):
        return layout.header
    expected = {name.casefold() for name in wanted & set(layout.header)}
    return bool(expected) and expected <= set(map(str.casefold, cells))


def unnamed(cells: Sequence[str], layout: Layout) -> list[str]:
    """Return the names of columns that have none in the file: those of `data.header`, else their numbers."""
    return [str(i) for i in range(len(cells))] if isinstance(layout.header, bool) else list(layout.header)


def _first_lines(feed: _Feed) -> tuple[str, str, str | None]:
    """The first two lines, which are given back, and the separator that Excel's line before them names."""
    feed.start()
    first = next((line for line in feed if line.strip()), "")
    marked, n_before = None, max(len(feed.held) - 1, 0)
    if match := re.fullmatch(r"sep=(.)\s*", first):
        marked, n_before = match[1], n_before + 1
        first = next(feed, "")
    second = next(feed, "")
    feed.keep(n_before)
    return first, second, marked


def _separator(first: str, second: str, usual: str, wanted: Collection[str], layout: Layout) -> str:
    """Return the mark by which the first line names the most wanted columns; of equal ones the usual.

    If it names none, one that splits the first two lines into equally many cells.
    """
    marks = [usual, *(mark for mark in _MARKS if mark != usual)]
    n_wanted = {mark: _n_wanted(_cells(first, mark), wanted, layout) for mark in marks}
    if any(n_wanted.values()):
        return max(marks, key=n_wanted.__getitem__)
    widths = {mark: (len(_cells(first, mark)), len(_cells(second, mark))) for mark in marks}
    even = [mark for mark in marks if widths[mark][0] == widths[mark][1] > 1]
    return next(iter(even), None) or (usual if widths[usual][0] > 1 else max(marks, key=lambda mark: widths[mark][0]))


def _n_wanted(cells: Sequence[str], wanted: Collection[str], layout: Layout) -> int:
    if layout.header is False:
        return sum(str(i) in wanted for i in range(len(cells)))
    n_named = sum(name in wanted for name in cells)
    return n_named + (isinstance(layout.header, tuple) and len(cells) == len(layout.header))


def _cells(line: str, separator: str) -> list[str]:
    """A line's cells as names of columns."""
    return list(map(_name, next(csv.reader([line], delimiter=separator), [])))


def _name(cell: str) -> str:
    return cell.strip().strip(_INVISIBLE).strip()


def _header(feed: _Feed, separator: str) -> list[str]:
    """The names in the first line, without empty ones at its end."""
    n_before = len(feed.held)
    try:
        names = next(csv.reader(feed, delimiter=separator, strict=True))
    except csv.Error:
        names = feed.held[n_before].rstrip("\r\n").split(separator)
        feed.keep(n_before + 1)
    names = list(map(_name, names))
    while len(names) > 1 and not names[-1]:
        names.pop()
    return names


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let csv read cells of any length: its limit of 131,072 characters is below a long document's."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def batches(rows: Iterable[Any], n_rows: int | None) -> Iterator[tuple[int, list[Any]]]:
    """Yield the number of the first, from 1, and the next n_rows rows; the last batch is shorter, and may be empty."""
    rows, first = iter(rows), 1
    while True:
        with _long_cells():
            batch = list(islice(rows, n_rows))
        yield first, batch
        first += len(batch)
        if n_rows is None or len(batch) < n_rows:
            return

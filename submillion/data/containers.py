"""Files that hold several tables: the sheets of a workbook, the tables of a database, the files of an archive.

FILE::NAME says which one is read. Here they are read in rows of values; text files in an archive are left to `files`,
and the meaning of columns to `reading`.
"""

from __future__ import annotations

import re
import sqlite3
import warnings
import zipfile
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from submillion.data.delimited import batches, names_columns, unnamed
from submillion.data.files import bomb, listed, most_unpacked, read_errors
from submillion.data.folders import parts_of_one
from submillion.data.kinds import ALLOWED, REFUSED_SUFFIXES, SUFFIXES, parted, suffix_of
from submillion.data.tables import BadRows, Layout, Table, decoded, refuse_repeated
from submillion.errors import DataError, install_line
from submillion.text import did_you_mean, first_line, shown

Row = tuple[int, tuple[Any, ...]]  # of a sheet: its number there, from 1, and its cells
# What Excel shows if a formula has no value.
_EXCEL_ERRORS = ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A")
_MERGED_CELLS = re.compile(rb'<(?:\w+:)?mergeCell\b[^>]*?\bref="([A-Z]+[0-9]+:[A-Z]+[0-9]+)"')
_ROWS_AT_ONCE = 1000
_TITLE_ROWS = 30  # searched for the names of columns
_CHUNK_BYTES, _MARK_BYTES = 2**20, 2**8  # of a sheet that is searched for merged cells, and of one mark
_EXACT = 2**53  # beyond it floats skip whole numbers
_WAIT_S = 2.0  # for a program that writes to a database: longer than a transaction takes


def _chosen(path: Path, names: Sequence[str], kind: str) -> str:
    """Return the table that a place names; the only one if it names none. DataError lists the tables."""
    file, name = parted(path)
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        content = f"holds {len(names):,} {kind}s ({listed(list(map(shown, names)))})" if names else f"holds no {kind}"
        raise DataError(f"{file} {content}{f': name one, {file}::{names[0]}' if names else ''}")
    if name not in names:
        raise DataError(f"{file} has no {kind} {name!r}: {did_you_mean(name, names)}")
    return name


# Workbooks


def sheet(path: Path, wanted: Collection[str], n_rows: int | None, layout: Layout) -> Iterator[Table]:
    """Yield the rows of an Excel sheet as tables with the `wanted` columns, as `formats.tables` does.

    It is the first sheet if the path names none. Rows are read one after the other, so a stray cell in the last row
    costs time and no memory: python-calamine 0.9.1, which is faster, makes room for all cells before it, and aborts the
    process.
    """
    file, name = parted(path)
    with _excel_errors(file):
        book = _workbook(file)
        with closing(book):
            titles = [worksheet.title for worksheet in book.worksheets]
            title = _chosen(path, titles if name is not None else titles[:1], "sheet")
            notes = ()
            if len(titles) > 1 and name is None:
                notes = (f"{file}: its first sheet, {title!r}, is read; {file}::{titles[1]} names the next",)
            source = book[title]
            source.reset_dimensions()  # what a file says about its size may be wrong
            yield from _sheet_tables(path, source, notes, layout, {*wanted}, n_rows)


def _sheet_tables(
    path: Path, source: Any, notes: tuple[str, ...], layout: Layout, wanted: Set[str], n_rows: int | None
) -> Iterator[Table]:
    merged = _merged(parted(path)[0], source)
    rows = _filled_rows(source)
    first_rows = list(islice(rows, _TITLE_ROWS))
    if not first_rows:
        others = ", ".join(worksheet.title for worksheet in source.parent.worksheets if worksheet.title != source.title)
        hint = f"; its other sheets are {others}: {parted(path)[0]}::NAME names one" if others else ""
        raise DataError(f"{path}: the sheet {source.title!r} is empty: its first row must name the columns{hint}")
    first = ["" if cell is None else str(cell).strip() for cell in first_rows[0][1]]
    while not first[-1]:
        first.pop()
    if is_header := names_columns(first, wanted, layout):
        _check_header(path, first, first_rows, merged, wanted)
    names = tuple(first if is_header else unnamed(first, layout))
    refuse_repeated(str(path), [name for name in names if name in wanted])
    places = {name: i for i, name in enumerate(names) if name in wanted}
    for number, batch in batches(_rows_of(chain(first_rows[is_header:], rows), len(names)), n_rows):
        columns = {name: [row[i] if i < len(row) else None for _, row in batch] for name, i in places.items()}
        numbers, lines = range(number, number + len(batch)), [line for line, _ in batch]
        table = Table(str(path), names, columns, numbers, lines, notes=notes, path=path, layout=layout)
        yield _without_holes(table, places, merged)


def _check_header(
    path: Path, names: Sequence[str], rows: Sequence[Row], merged: Sequence[Any], wanted: Set[str]
) -> None:
    """Raise a DataError if the first of the rows does not name the columns: another does, or its cells are merged."""
    if not wanted & {*names} and (later := [line for line, cells in rows if wanted & {*map(str, cells)}]):
        raise DataError(f"{path}: row {later[0]} names the columns, but the first row must: delete the rows before it")
    if across := [span.coord for span in merged if span.min_row <= rows[0][0] <= span.max_row]:
        raise DataError(
            f"{path}: cells of the first row are merged ({listed(across)}), but it must name each column "
            "in its own cell: unmerge them"
        )


def _rows_of(rows: Iterable[Row], width: int) -> Iterator[Row]:
    """Return the rows that have a cell under a name, without cells beyond the names."""
    return ((line, cells[:width]) for line, cells in rows if any(cell is not None for cell in cells[:width]))


def _filled_rows(source: Any) -> Iterator[Row]:
    """Yield a sheet's non-empty rows with their numbers in Excel; openpyxl's warnings are about formats."""
    rows = enumerate(source.iter_rows(values_only=True), start=1)
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            part = list(islice(rows, _ROWS_AT_ONCE))
        if not part:
            return
        for line, cells in part:
            values = tuple(map(_plain, cells))
            if any(value is not None for value in values):
                yield line, values


def _plain(value: Any) -> Any:
    """Return a cell's value as in other files: 1.0 is 1, dates are ISO text, blanks are None."""
    match value:
        case bool():
            return value
        case float() if value.is_integer() and abs(value) < _EXACT:
            return int(value)
        case datetime():  # Excel stores a day as its midnight
            return (value.date() if value.time() == time() else value).isoformat()
        case date() | time():
            return value.isoformat()
        case timedelta():
            return str(value)
        case str():
            from openpyxl.utils.escape import unescape

            text = unescape(value) if "_x" in value else value
            return None if not text or text.isspace() else text
    return value


def _without_holes(table: Table, places: dict[str, int], merged: Sequence[Any]) -> Table:
    """The table without rows whose wanted cells are a formula's error or empty parts of merged cells, which are bad."""
    lines, bad = table.lines or (), list[BadRows]()
    for name, i in places.items():
        cells = table.columns[name]
        spans = [span for span in merged if span.min_col <= i + 1 <= span.max_col]
        holes = [
            row
            for row, line in enumerate(lines)
            if cells[row] is None and any(span.min_row <= line <= span.max_row for span in spans)
        ]
        errors = [row for row, cell in enumerate(cells) if cell in _EXCEL_ERRORS]
        for rows, reason in (
            (holes, "is empty, as part of merged cells: unmerge them and fill in each one"),
            (errors, f"is {cells[errors[0]] if errors else ''}, a formula without a value: fix it, or empty the cell"),
        ):
            if rows:
                numbers = tuple(table.numbers[row] for row in rows)
                bad.append(BadRows(numbers, f"{table.place(rows)}: the cell of column {name!r} {reason}"))
    return replace(table.without({number for each in bad for number in each.numbers}), bad=tuple(bad))


def _merged(file: Path, source: Any) -> list[Any]:
    """Return a sheet's merged cells, which openpyxl does not give for sheets read row by row."""
    from openpyxl.worksheet.cell_range import CellRange

    marks, tail = dict[bytes, None](), b""
    with zipfile.ZipFile(file) as archive, archive.open(source._worksheet_path) as xml:
        while chunk := xml.read(_CHUNK_BYTES):
            marks |= dict.fromkeys(_MERGED_CELLS.findall(tail + chunk))
            tail = chunk[-_MARK_BYTES:]
    return [CellRange(place.decode()) for place in marks]


def _workbook(file: Path) -> Any:
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise DataError(
            f"{file}: Excel files are read by openpyxl: {install_line('excel')}; or save it as 'CSV UTF-8'"
        ) from None
    with zipfile.ZipFile(file) as archive:
        if sum(info.file_size for info in archive.infolist()) > most_unpacked(file):
            raise DataError(bomb(file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return load_workbook(file, read_only=True, data_only=True, keep_links=False)


@contextmanager
def _excel_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # of openpyxl, archives and XML: these share no class
        raise DataError(
            f"{file} is not an Excel file that can be read ({first_line(error)}): open it, and save it as .xlsx or as "
            "'CSV UTF-8'"
        ) from None


# Databases


def database(path: Path, wanted: Collection[str], n_rows: int | None) -> Iterator[Table]:
    """Yield the rows of a table or a view of a SQLite database, as `formats.tables` does; nothing is written."""
    file, _ = parted(path)
    with _sqlite_errors(file), closing(_connected(file)) as connection:
        listing = connection.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
        kinds = {name.decode(): kind.decode() for name, kind in listing if not name.startswith(b"sqlite_")}
        chosen = _chosen(path, list(kinds), "table")
        names = tuple(
            column[0] for column in connection.execute(f"SELECT * FROM {_quoted(chosen)} LIMIT 0").description
        )
        refuse_repeated(str(path), [name for name in names if name in wanted])
        kept = [name for name in names if name in wanted]
        cursor = _selected(connection, chosen, kept, is_view=kinds[chosen] == "view")
        most = most_unpacked(file)  # a view may have endless rows
        for first, rows in batches(_counted(cursor, most, bomb(file)), n_rows):
            columns = {name: [row[i] for row in rows] for i, name in enumerate(kept)}
            yield decoded(Table(str(path), names, columns, range(first, first + len(rows)), path=path))


def _connected(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(file.absolute()))}?mode=ro", uri=True, timeout=_WAIT_S)
    connection.execute("PRAGMA trusted_schema = OFF")  # a view can call no function with side effects
    connection.text_factory = bytes  # what is not UTF-8 is reported by its row
    return connection


def _selected(connection: sqlite3.Connection, table: str, names: Sequence[str], is_view: bool) -> sqlite3.Cursor:
    """Select the rows in the order they were written, if the table keeps it: an index could give another."""
    query = f"SELECT {', '.join(map(_quoted, names)) or 'NULL'} FROM {_quoted(table)}"
    if not is_view:
        try:
            return connection.execute(f"{query} ORDER BY rowid")
        except sqlite3.OperationalError:  # WITHOUT ROWID: in the order of the key
            pass
    return connection.execute(query)


def _counted(cursor: sqlite3.Cursor, most: int, problem: str) -> Iterator[Any]:
    for number, row in enumerate(cursor, start=1):
        if number > most:
            raise DataError(problem)
        yield row


def _quoted(name: str) -> str:
    """Return a name quoted for SQL."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def _sqlite_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, sqlite3.Warning) as error:
        reason, todo = first_line(error), "open it with sqlite3, and run PRAGMA integrity_check"
        if "locked" in reason or "busy" in reason:
            todo = "another program is writing to it: wait until it has finished, or give a copy"
        elif "not a database" in reason:
            todo = "it is another kind of file, or has a password: export the rows to a .csv file"
        elif "unable to open" in reason:
            todo = "allow reading it and, for its -wal file, writing in its folder; or give a copy"
        raise DataError(f"{file} cannot be read as a SQLite database ({reason}): {todo}") from None


# Archives


def members(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Return the places of the files in a .zip archive that make its table, in their order, and notes about the others.

    Several are one table if their names number them; else DataError lists them, or says what is wrong.
    """
    with read_errors(path), zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if not info.is_dir() and not _is_hidden(info.filename)]
        if sum(info.file_size for info in infos) > most_unpacked(path):
            raise DataError(bomb(path))
    places = [Path(f"{path}::{info.filename}") for info in infos]
    readable = [place for place in places if suffix_of(place) in SUFFIXES]
    names = [parted(place)[1] for place in places]
    if not readable:
        content = f"holds {listed(names)}" if names else "is empty"
        raise DataError(f"{path} {content}, and no table: allowed are {ALLOWED}")
    parts = readable if len(readable) == 1 else parts_of_one(path, readable)
    if not parts:
        tables = ", ".join(str(parted(place)[1]) for place in readable[:8])
        raise DataError(
            f"{path} holds {len(readable):,} tables ({tables}{', ...' * (len(readable) > 8)}): name one, {readable[0]}"
            "; data.validation and data.test name those of other splits"
        )
    others = [str(parted(place)[1]) for place in places if place not in parts and suffix_of(place) in REFUSED_SUFFIXES]
    notes = (f"{path}: {parted(parts[0])[1]} is read, and {listed(others)} is not",) if others else ()
    return list(parts), notes


def _is_hidden(name: str) -> bool:
    """Say whether a file is one that systems leave behind, such as __MACOSX/._a.csv."""
    return any(piece.startswith((".", "_")) for piece in name.split("/"))

"""Files become tables: columns of plain values, each row with its place in the file.

Owns formats, encodings and broken rows. What columns mean is left to `reading`. No file that could
run code is opened.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submillion.errors import DataError, did_you_mean

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_ALLOWED = ".csv, .tsv, .jsonl, .ndjson (each may be .gz) and .parquet"
_PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth", ".bin", ".npy", ".npz", ".joblib", ".dill")
_SHEETS = (".xlsx", ".xls", ".xlsm", ".ods")
REFUSED_SUFFIXES = (*_PICKLES, *_SHEETS, ".json", ".txt", ".zip", ".arrow", ".feather")
_SHOWN_ROWS = 8


@dataclass(frozen=True)
class Table:
    """Rows of one file: `columns` holds those that were asked for and found, `names` all there are.

    numbers: each row's number among the file's data rows, from 1 · lines: the line of the file on which it
    begins, from 1, None where a file has no lines · class_names: the labels in their order, where the source
    defines one · problems: what is wrong with rows that were left out.
    """

    origin: str
    names: tuple[str, ...]
    columns: dict[str, list[Any]]
    numbers: Sequence[int]
    lines: Sequence[int] | None = None
    class_names: tuple[str, ...] | None = None
    problems: tuple[str, ...] = field(default=())

    def place(self, rows: Sequence[int]) -> str:
        """Return where rows (indices into the columns) stand, for messages: file, row numbers, lines.

        >>> table = Table("a.csv", ("text",), {"text": ["x", "y"]}, numbers=[1, 2], lines=[2, 3])
        >>> table.place([1]), table.place([0, 1])
        ('a.csv, row 2 (line 3)', 'a.csv, rows 1, 2 (lines 2, 3)')
        """
        lines = None if self.lines is None else [self.lines[row] for row in rows]
        return _place(self.origin, [self.numbers[row] for row in rows], lines)


def table_of(origin: str, columns: dict[str, list[Any]], class_names: tuple[str, ...] | None = None) -> Table:
    """Return the table of columns that come from no file; its rows are numbered from 1."""
    n_rows = len(next(iter(columns.values()), []))
    return Table(origin, tuple(columns), columns, range(1, n_rows + 1), class_names=class_names)


def read_table(path: Path, wanted: Collection[str]) -> Table:
    """Return a file's table with the `wanted` columns; DataError if the file cannot be read at all."""
    suffix = suffix_of(path)
    _refuse(path, suffix)
    if suffix == ".parquet":
        return _parquet(path, wanted)
    text, problems = _text(path)
    match suffix:
        case ".csv" | ".tsv":
            return _delimited(path, text, "," if suffix == ".csv" else "\t", wanted, problems)
        case _:
            return _json_lines(path, text, wanted, problems)


def suffix_of(path: Path) -> str:
    """Return the suffix that decides the format: in lower case, without .gz.

    >>> suffix_of(Path("Train.CSV.gz"))
    '.csv'
    """
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def _refuse(path: Path, suffix: str) -> None:
    if suffix in _PICKLES:
        raise DataError(
            f"{path}: {suffix} files may hold Python pickles, and reading a pickle runs any code in it: none is read. "
            "In an environment that you trust, convert it: pandas.read_pickle(...).to_parquet('rows.parquet')"
        )
    if suffix in _SHEETS:
        raise DataError(f"{path} is a spreadsheet: save it there as 'CSV UTF-8' and give the .csv file")
    if suffix == ".json":
        raise DataError(
            f"{path}: a .json file is one value, and rows are read one by one: convert it to JSON Lines, "
            "pandas.read_json(...).to_json('rows.jsonl', orient='records', lines=True)"
        )
    if suffix not in SUFFIXES and not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if suffix not in SUFFIXES or (suffix == ".parquet" and path.name.lower().endswith(".gz")):
        raise DataError(f"{path}: unknown kind of file {suffix or path.name!r}; allowed are {_ALLOWED}")
    if not path.exists():
        raise DataError(f"{path}: no such file{_neighbour(path)}")
    if not path.is_file():
        raise DataError(f"{path} is not a file")


def _neighbour(path: Path) -> str:
    if not path.absolute().parent.is_dir():
        return f", and no folder {path.parent} either"
    names = sorted(file.name for file in path.absolute().parent.iterdir() if suffix_of(file) in SUFFIXES)
    return f": {did_you_mean(path.name, names[:20])}" if names else f"; the folder {path.parent} holds no data file"


def _text(path: Path) -> tuple[str, list[str]]:
    """The file's text, and a problem if it is not UTF-8; broken bytes then stand as U+FFFD, so that reading goes on."""
    with _os_errors(path):
        content = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} cannot be unpacked: {error}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path} is UTF-16: save it as UTF-8 ('CSV UTF-8' in spreadsheets)")
    try:
        return content.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        return content.decode("utf-8-sig", errors="replace"), [_broken_bytes(path, content)]


def _broken_bytes(path: Path, content: bytes) -> str:
    lines, first = [], ""
    for number, line in enumerate(content.split(b"\n"), start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            lines.append(number)
            first = first or f"byte {error.start + 1} of line {number} is 0x{line[error.start]:02X}"
    where = f"line{'s' if len(lines) > 1 else ''} {_listed(lines)}"
    return f"{path}, {where}: not UTF-8 ({first}): save the file as UTF-8 (it may be Latin-1 or Windows-1252)"


def _delimited(path: Path, text: str, delimiter: str, wanted: Collection[str], problems: list[str]) -> Table:
    with _long_cells():
        rows = _cells(path, text, delimiter, problems)
        names = [name.strip() for name in next(rows, (1, []))[1]]
        _check_header(path, names, delimiter)
        kept, numbers, lines, ragged = [], [], [], []
        for number, (line, cells) in enumerate(rows, start=1):
            if len(cells) != len(names):
                ragged.append((number, line, len(cells)))
                continue
            kept.append(cells)
            numbers.append(number)
            lines.append(line)
    if ragged:
        where = _place(str(path), [number for number, _, _ in ragged], [line for _, line, _ in ragged])
        problems.append(
            f"{where}: {ragged[0][2]} cells where the header has {len(names)}: "
            f"put texts that hold the separator {delimiter!r} in double quotes"
        )
    columns = {name: [cells[i] for cells in kept] for i, name in enumerate(names) if name in wanted}
    return Table(str(path), tuple(names), columns, numbers, lines, problems=tuple(problems))


def _cells(path: Path, text: str, delimiter: str, problems: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Each row's first line and its cells, empty lines left out; a broken quote ends the rows with a problem."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        reason = "a quote opens here and never closes" if "unexpected end" in str(error) else str(error)
        problems.append(
            f"{path}, line {line}: {reason}: write a quote inside a quoted cell twice; later rows were not read"
        )


def _check_header(path: Path, names: Sequence[str], delimiter: str) -> None:
    if not names:
        raise DataError(f"{path} is empty: the first line must name the columns")
    repeated = sorted({name for name in names if name and names.count(name) > 1})
    if repeated:
        raise DataError(f"{path}: the header names {', '.join(map(repr, repeated))} more than once: rename one")
    other = next((mark for mark in ";\t|," if mark in names[0]), None)
    if len(names) == 1 and other is not None:
        raise DataError(
            f"{path} seems to be separated by {other!r}, and a {suffix_of(path)} file is by {delimiter!r}: "
            "save it with that, or name it .tsv if tabs separate it"
        )


@contextmanager
def _long_cells() -> Iterator[None]:
    """Let csv read cells of any length: its limit of 131,072 characters is below a long document's."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _json_lines(path: Path, text: str, wanted: Collection[str], problems: list[str]) -> Table:
    rows, numbers, lines, broken, reason, number = [], [], [], [], "", 0
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        number += 1
        try:
            rows.append(_json_object(content))
        except (ValueError, RecursionError) as error:
            broken.append((number, line))
            reason = reason or str(error)
            continue
        numbers.append(number)
        lines.append(line)
    if broken:
        where = _place(str(path), [number for number, _ in broken], [line for _, line in broken])
        problems.append(f"{where}: not a JSON object ({reason}): write one object a line")
    names = tuple({name: None for row in rows for name in row})
    columns = {name: [row.get(name) for row in rows] for name in names if name in wanted}
    return Table(str(path), names, columns, numbers, lines, problems=tuple(problems))


def _json_object(content: str) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}")
    return value


def _parquet(path: Path, wanted: Collection[str]) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _os_errors(path), pq.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            found = file.read(columns=[name for name in names if name in wanted])
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a Parquet file that can be read: {str(error).splitlines()[0]}") from None
    problems: list[str] = []
    columns = {name: _values(path, name, found[name], problems) for name in found.column_names}
    return Table(str(path), names, columns, range(1, found.num_rows + 1), problems=tuple(problems))


def _values(path: Path, name: str, column: Any, problems: list[str]) -> list[Any]:
    """A column's values, bytes decoded as UTF-8; broken ones are a problem, and stand as U+FFFD."""
    import pyarrow as pa

    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(pa.large_binary()).to_pylist()
    if not any(isinstance(value, bytes) for value in values):
        return values
    broken, decoded = [], []
    for number, value in enumerate(values, start=1):
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        if isinstance(value, bytes) and text.encode() != value:
            broken.append(number)
        decoded.append(text)
    if broken:
        problems.append(f"{_place(str(path), broken)}: column {name!r} is not UTF-8: write it again as text")
    return decoded


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _place(origin: str, numbers: Sequence[int], lines: Sequence[int] | None = None) -> str:
    plural = "s" if len(numbers) > 1 else ""
    where = f" (line{plural} {_listed(lines)})" if lines is not None else ""
    return f"{origin}, row{plural} {_listed(numbers)}{where}"


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(f"{number}" for number in numbers[:_SHOWN_ROWS])
    more = len(numbers) - _SHOWN_ROWS
    return shown if more <= 0 else f"{shown} and {more:,} more"

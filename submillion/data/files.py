"""Files as lines of text: which kinds are read and which are refused, unpacking, encodings.

Owns the bytes. What a line means is left to `tables`. No file that could run code is opened.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from submillion.errors import DataError
from submillion.text import did_you_mean

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
ALLOWED = ".csv, .tsv, .jsonl, .ndjson (each may be .gz, .bz2, .xz or .zst) and .parquet"
_PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth", ".bin", ".npy", ".npz", ".joblib", ".dill")
_SHEETS = (".xlsx", ".xls", ".xlsm", ".ods")
REFUSED_SUFFIXES = (*_PICKLES, *_SHEETS, ".json", ".txt", ".zip", ".arrow", ".feather")
_SHOWN_LINES = 8
_MAX_LINE_CHARACTERS = 2**26  # 600 times the text of a long novel's chapter; without it one line could fill the memory
_MAX_UNPACKED = 100  # times the packed size; texts unpack to 3 to 10 times, copies of a few rows to 1,000
_LET_UNPACK = 2**23  # characters, or rows of Parquet, that are never too many


def suffix_of(path: Path) -> str:
    """Return the suffix that decides the format: in lower case, without that of the packing.

    >>> suffix_of(Path("Train.CSV.gz"))
    '.csv'
    """
    name = path.name.lower()
    return Path(name.removesuffix(packing_of(path))).suffix


def packing_of(path: Path) -> str:
    """Return the suffix that says how a file is packed, in lower case; "" if it is not."""
    suffix = path.suffix.lower()
    return suffix if suffix in PACKED_SUFFIXES else ""


def refuse(path: Path) -> None:
    """Raise a DataError if a file is not there or is of a kind that is not read; the error names the way out."""
    suffix = suffix_of(path)
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
    if suffix not in SUFFIXES and not os.path.exists(path):  # Path's own raises where a name is too long for one
        raise DataError(f"{path}: no such file or folder")
    if suffix not in SUFFIXES or (suffix == ".parquet" and packing_of(path)):
        raise DataError(f"{path}: unknown kind of file {suffix or path.name!r}; allowed are {ALLOWED}")
    if not os.path.exists(path):
        raise DataError(f"{path}: no such file{_neighbour(path)}")
    if not path.is_file():
        raise DataError(f"{path} is not a file")


class Lines:
    """A text file's lines as they come, with their ends; only the line at hand is in memory.

    `newline` as `open` has it: "" ends lines at \\n, \\r and \\r\\n, "\\n" at \\n alone. Bytes that are not UTF-8 stand
    as U+FFFD, so that reading goes on, and `problems` tells of them. DataError if the file cannot be read or unpacked.
    """

    def __init__(self, path: Path, newline: str) -> None:
        self.path, self.newline = path, newline
        self.n_lines = 0
        self._broken: list[int] = []
        self._first = ""

    def __iter__(self) -> Iterator[str]:
        with read_errors(self.path), _opened(self.path) as file:
            if file.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise DataError(f"{self.path} is UTF-16: save it as UTF-8 ('CSV UTF-8' in spreadsheets)")
            # Each byte that is not UTF-8 comes as a lone surrogate, which no UTF-8 text can hold.
            text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=self.newline)
            n_characters, most = 0, most_unpacked(self.path) if packing_of(self.path) else math.inf
            for line in iter(partial(text.readline, _MAX_LINE_CHARACTERS), ""):
                self.n_lines += 1
                n_characters += len(line)
                if len(line) == _MAX_LINE_CHARACTERS:
                    raise DataError(
                        f"{self.path}, line {self.n_lines}, has {_MAX_LINE_CHARACTERS:,} characters and more: it is no "
                        "text, or its line ends are missing"
                    )
                if n_characters > most:
                    raise DataError(bomb(self.path))
                yield line if line.isascii() else self._repaired(line)

    def problems(self) -> list[str]:
        """Return a problem if lines since the last call were not UTF-8."""
        lines, first = self._broken, self._first
        self._broken, self._first = [], ""
        if not lines:
            return []
        where = f"line{'s' if len(lines) > 1 else ''} {listed(lines)}"
        return [
            f"{self.path}, {where}: not UTF-8 ({first}): save the file as UTF-8 (it may be Latin-1 or Windows-1252)"
        ]

    def _repaired(self, line: str) -> str:
        try:
            line.encode()
            return line
        except UnicodeEncodeError:
            content = line.encode("utf-8", "surrogateescape")
        self._broken.append(self.n_lines)
        try:
            content.decode()
        except UnicodeDecodeError as error:
            where = f"byte {error.start + 1} of line {self.n_lines} is 0x{content[error.start]:02X}"
            self._first = self._first or where
        return content.decode(errors="replace")


def most_unpacked(path: Path) -> int:
    """Return how many characters a packed file may hold, or a Parquet file rows, before it is taken for a bomb."""
    return max(_LET_UNPACK, _MAX_UNPACKED * path.stat().st_size)


def bomb(path: Path) -> str:
    """Return the problem of a file that unpacks to more than it may."""
    return (
        f"{path} has {path.stat().st_size:,} bytes, and unpacked more than {_MAX_UNPACKED} times as many: made "
        "to fill the memory, it seems; if it is data, unpack it yourself and give the .csv or .jsonl file"
    )


def listed(numbers: Sequence[Any]) -> str:
    """Return the first eight of a sequence of numbers and a count of the others, as text.

    >>> listed(range(1, 11))
    '1, 2, 3, 4, 5, 6, 7, 8 and 2 more'
    """
    shown = ", ".join(f"{number}" for number in numbers[:_SHOWN_LINES])
    more = len(numbers) - _SHOWN_LINES
    return shown if more <= 0 else f"{shown} and {more:,} more"


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn what reading and unpacking raise inside into a DataError that names the file and the reason."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None)  # only the system's errors have it, not a damaged content's
        done = "unpacked" if packing_of(path) and not reason else "read"
        raise DataError(f"{path} cannot be {done}: {reason or error}") from None


def _opened(path: Path) -> io.BufferedReader:
    """The file's unpacked bytes."""
    match packing_of(path):
        case ".gz":
            return io.BufferedReader(cast("io.RawIOBase", gzip.open(path)))
        case ".bz2":
            return io.BufferedReader(cast("io.RawIOBase", bz2.open(path)))
        case ".xz":
            return io.BufferedReader(cast("io.RawIOBase", lzma.open(path)))
        case ".zst":
            import pyarrow as pa

            return io.BufferedReader(cast("io.RawIOBase", pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")))
        case _:
            return open(path, "rb")


def _neighbour(path: Path) -> str:
    if not os.path.isdir(path.absolute().parent):
        return f", and no folder {path.parent} either"
    names = sorted(file.name for file in path.absolute().parent.iterdir() if suffix_of(file) in SUFFIXES)
    return f": {did_you_mean(path.name, names[:20])}" if names else f"; the folder {path.parent} holds no data file"

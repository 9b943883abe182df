"""Files as bytes and as lines of text: what they hold whatever they are called, unpacking, encodings.

Which kinds are read is left to `kinds`, what a line means to `tables` and `delimited`. No file that could run code is
opened.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import math
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

from submillion.data.kinds import ARROW, EXCEL, SQLITE, ZIP, is_in_archive, packing_of, parted, suffix_of
from submillion.errors import DataError
from submillion.text import did_you_mean, shown

# The kinds of files that rightly begin so.
_OWN = {
    b'{"': (".jsonl", ".ndjson"),
    b"PAR1": (".parquet",),
    b"ARROW1": ARROW,
    b"PK\x03\x04": (*EXCEL, *ZIP),
    b"SQLite format 3": SQLITE,
}
# How files of other kinds begin, whatever they are called, and what to do.
_DISGUISES = {
    b"\x1f\x8b": "is compressed with gzip: add .gz to its name",
    b"BZh": "is compressed with bzip2: add .bz2 to its name",
    b"\xfd7zXZ": "is compressed with xz: add .xz to its name",
    b"\x28\xb5\x2f\xfd": "is compressed with zstandard: add .zst to its name",
    b"PK\x03\x04": "is a .zip archive or an Excel sheet: name it .zip or .xlsx",
    b"\xd0\xcf\x11\xe0": "is an Excel file with a password, or in the old format (.xls): open it, remove the "
    "password, and save it as .xlsx",
    b"SQLite format 3": "is a SQLite database: name it .sqlite",
    b"ARROW1": "is an Arrow (Feather) file: name it .feather",
    b"version https://git-lfs": "is a Git LFS pointer, not the file: get it with git lfs pull",
    b"<!doctype html": "is a web page: download the file itself",
    b"<html": "is a web page: download the file itself",
    b"PAR1": "is a Parquet file: name it .parquet",
    b'{"': "holds JSON objects: name it .jsonl",
    b"[{": "is one JSON value, but rows are read one by one: convert it, pandas.read_json(...).to_json('rows.jsonl', "
    "orient='records', lines=True)",
}
_SHOWN_LINES = 8
_UTF_8 = "utf-8-sig"  # a byte order mark is left out
_MARKS = {  # UTF-32 first: its mark begins like UTF-16's
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
    codecs.BOM_UTF8: _UTF_8,
}
_START_BYTES = 64
_SAMPLE_BYTES = 2**14  # of what is not UTF-8, to guess from
_SHOWN_CHARACTERS = 20  # around the first that is not ASCII
_TYPOGRAPHIC = "‘’‚“”„–—…«»€£°§·\xa0¿¡"
# Encodings in use, by the names that charset_normalizer gives them.
_OF_OTHER_SCRIPTS = frozenset(
    "cp1251 koi8_r cp1253 cp1255 cp1256 cp874 tis_620 gb18030 gb2312 gbk big5 big5hkscs cp950 cp932 shift_jis euc_jp "
    "euc_kr cp949 johab".split()
)
_SURE_LETTERS = 8
_MAX_LINE_CHARACTERS = 2**26  # 600 times the text of a long novel's chapter; without it one line could fill the memory
_MAX_UNPACKED = 100  # times the packed size; texts unpack to 3 to 10 times, copies of a few rows to 1,000
_LET_UNPACK = 2**23  # characters, or rows of Parquet, that are never too many


def refuse_disguised(path: Path) -> None:
    """Raise a DataError if a file, as its first bytes say, is of another kind than its name says."""
    if packing_of(path):
        return
    with read_errors(path), opened(path) as file:
        start = file.read(_START_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
    suffix, lower = suffix_of(path), start.lower()
    for mark, advice in _DISGUISES.items():
        if suffix not in _OWN.get(mark, ()) and (start.startswith(mark) or lower.startswith(mark)):
            raise DataError(f"{path} {advice}")


class Lines:
    """A text file's lines as they come, with their ends; only the current line is in memory.

    `newline` as in `open`: "" ends lines at \\n, \\r and \\r\\n, "\\n" at \\n alone. `encoding` is for files that are
    not UTF-8; what a file says itself, by a byte order mark or the zeros of UTF-16, takes precedence. Bytes that cannot
    be decoded become U+FFFD, reading continues, and `problem` reports them. While reading, `encoding` is the one in
    use. DataError if the file cannot be read or unpacked.
    """

    def __init__(self, path: Path, newline: str, encoding: str | None = None) -> None:
        self.path, self.newline, self.encoding = path, newline, encoding
        self.n_lines = 0
        self._broken: list[int] = []
        self._first = ""
        self._sample = b""  # what is not UTF-8, to guess its encoding

    def __iter__(self) -> Iterator[str]:
        with read_errors(self.path):
            self.encoding = _encoding_of(self.path, self.encoding)
            # Each byte that is not UTF-8 comes as a lone surrogate, which no UTF-8 text can hold.
            errors = "surrogateescape" if self.encoding == _UTF_8 else "replace"
            with (
                opened(self.path) as content,
                io.TextIOWrapper(content, self.encoding, errors, self.newline) as text,
            ):
                yield from self._lines(text, self.encoding)

    def _lines(self, text: io.TextIOWrapper, encoding: str) -> Iterator[str]:
        is_utf_8 = encoding == _UTF_8
        is_packed = packing_of(self.path) or is_in_archive(self.path)
        n_characters, most = 0, most_unpacked(self.path) if is_packed else math.inf
        for line in iter(partial(text.readline, _MAX_LINE_CHARACTERS), ""):
            self.n_lines += 1
            n_characters += len(line)
            if len(line) == _MAX_LINE_CHARACTERS:
                raise DataError(
                    f"{self.path}, line {self.n_lines}, has {_MAX_LINE_CHARACTERS:,} characters or more: it "
                    "is not text, or its line ends are missing"
                )
            if n_characters > most:
                raise DataError(bomb(self.path))
            yield line if line.isascii() else self._repaired(line) if is_utf_8 else self._checked(line, encoding)

    def problem(self) -> BrokenLines | None:
        """Return the lines since the last call that could not be read, with the sentence about them."""
        lines, first, sample = self._broken, self._first, self._sample
        self._broken, self._first, self._sample = [], "", b""
        if not lines:
            return None
        where = f"{self.path}, line{'s' if len(lines) > 1 else ''} {listed(lines)}"
        if self.encoding != _UTF_8:
            return BrokenLines(lines, f"{where}: bytes that are not {self.encoding} text: save them as UTF-8")
        name, text = guessed_encoding(sample)
        return BrokenLines(lines, f"{where}: not UTF-8 ({first}; as {name} it reads {shown(text)})", name)

    def _repaired(self, line: str) -> str:
        try:
            line.encode()
            return line
        except UnicodeEncodeError:
            content = line.encode("utf-8", "surrogateescape")
        self._broken.append(self.n_lines)
        if len(self._sample) < _SAMPLE_BYTES:
            self._sample += content
        try:
            content.decode()
        except UnicodeDecodeError as error:
            where = f"byte {error.start + 1} of line {self.n_lines} is 0x{content[error.start]:02X}"
            self._first = self._first or where
        return content.decode(errors="replace")

    def _checked(self, line: str, encoding: str) -> str:
        """Return the line; in a file of a single-byte encoding, a line that is UTF-8 is read as such."""
        if "\ufffd" in line:
            self._broken.append(self.n_lines)
        if _is_single_byte(encoding):
            with suppress(UnicodeError):
                return line.encode(encoding).decode()
        return line


@dataclass(frozen=True)
class BrokenLines:
    """Lines with bytes that are invalid in the file's encoding: their numbers, the sentence, their likely encoding."""

    lines: list[int]
    sentence: str
    guess: str | None = None


def guessed_encoding(content: bytes) -> tuple[str, str]:
    """Return the likely encoding of bytes that are not UTF-8, and the text around the first non-ASCII character.

    >>> guessed_encoding("un café, une forêt".encode("latin-1"))
    ('cp1252', 'un café, une forêt')
    """
    from charset_normalizer import from_bytes

    name, text = "cp1252", content.decode("cp1252", errors="replace")
    letters = [character for character in text if not character.isascii()]
    is_western = all(character.isalpha() or character in _TYPOGRAPHIC for character in letters)
    best = from_bytes(content).best()
    # From a few letters every Western encoding is as good a guess, and Windows's own is the most common.
    if best is not None and (not is_western or (best.encoding in _OF_OTHER_SCRIPTS and len(letters) >= _SURE_LETTERS)):
        name, text = best.encoding, content.decode(best.encoding, errors="replace")
    line = next((line for line in text.splitlines() if not line.isascii()), text)
    first = next((i for i, character in enumerate(line) if not character.isascii()), 0)
    return name, line[max(first - _SHOWN_CHARACTERS, 0) : first + _SHOWN_CHARACTERS].strip()


def _encoding_of(path: Path, wanted: str | None) -> str:
    """Return the encoding to read a file with: what its first bytes say, else UTF-8 if it is that or none is wanted."""
    with opened(path) as file:
        start = file.peek(4)[:_START_BYTES]
        for mark, name in _MARKS.items():
            if start.startswith(mark):
                return name
        if len(start) > 3 and not start[0] and start[1] and not start[2]:
            return "utf-16-be"
        if len(start) > 3 and start[0] and not start[1] and start[2] and not start[3]:
            return "utf-16-le"
        return _UTF_8 if wanted is None or _is_utf_8(file) else wanted


def _is_utf_8(file: io.BufferedReader) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while chunk := file.read(2**20):
            decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


@lru_cache
def _is_single_byte(encoding: str) -> bool:
    return len("é".encode(encoding, errors="replace")) == len("あ".encode(encoding, errors="replace")) == 1


def most_unpacked(path: Path) -> int:
    """Return how many characters a packed file, or rows a Parquet file, may hold before it counts as a bomb."""
    return max(_LET_UNPACK, _MAX_UNPACKED * parted(path)[0].stat().st_size)


def bomb(path: Path) -> str:
    """Return the problem of a file that unpacks to more than it may."""
    return (
        f"{path} has {parted(path)[0].stat().st_size:,} bytes, and unpacked more than {_MAX_UNPACKED} times as many: "
        "it seems made to fill memory; if it is real data, unpack it yourself and give the .csv or .jsonl file"
    )


def listed(numbers: Sequence[Any]) -> str:
    """Return the first eight of a sequence of numbers and a count of the others, as text.

    >>> listed(range(1, 11))
    '1, 2, 3, 4, 5, 6, 7, 8 and 2 more'
    """
    first = ", ".join(f"{number}" for number in numbers[:_SHOWN_LINES])
    more = len(numbers) - _SHOWN_LINES
    return first if more <= 0 else f"{first} and {more:,} more"


@contextmanager
def read_errors(path: Path) -> Iterator[None]:
    """Turn what reading and unpacking raise inside into a DataError that names the file and the reason."""
    try:
        yield
    except (OSError, EOFError, zlib.error, lzma.LZMAError, BadZipFile, NotImplementedError) as error:
        reason = getattr(error, "strerror", None)  # only the system's errors have it, not a damaged content's
        done = "unpacked" if packing_of(path) and not reason else "read"
        raise DataError(f"{path} cannot be {done}: {reason or error}") from None


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """Yield the unpacked bytes of a file, or of the file in an archive that the path names."""
    file, name = parted(path)
    if name is None or not is_in_archive(path):
        with _unpacked(file, packing_of(path)) as content:
            yield content
        return
    with ZipFile(file) as archive:
        if name not in archive.namelist():
            raise DataError(f"{file} holds no {name!r}: {did_you_mean(name, archive.namelist())}")
        if archive.getinfo(name).flag_bits & 1:
            raise DataError(f"{path} is protected by a password: unpack it, and give the file")
        with archive.open(name) as member, _unpacked(member, packing_of(path)) as content:
            yield content


@contextmanager
def seekable(path: Path) -> Iterator[Path | IO[bytes]]:
    """Yield what can be read in any order: the path, or for a file in an archive an unnamed copy on the disk."""
    if not is_in_archive(path):
        yield path
        return
    with opened(path) as file, TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        yield copy


def _unpacked(file: Path | IO[bytes], packing: str) -> io.BufferedReader:
    match packing:
        case ".gz":
            raw: Any = gzip.open(file)  # noqa: SIM115 - the caller closes it
        case ".bz2":
            raw = bz2.open(file)  # noqa: SIM115 - the caller closes it
        case ".xz":
            raw = lzma.open(file)  # noqa: SIM115 - the caller closes it
        case ".zst":
            import pyarrow as pa

            source = pa.OSFile(str(file)) if isinstance(file, Path) else pa.PythonFile(file)
            raw = pa.CompressedInputStream(source, "zstd")
        case _:
            raw = open(file, "rb") if isinstance(file, Path) else file  # noqa: SIM115
    return raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)

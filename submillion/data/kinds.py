"""Kinds of files: which are read, which are refused and with what advice, and places in files that hold several tables.

A place is what the user types: a file, or FILE::NAME, a sheet, a table or a file in it. Only names count here; the
bytes are left to `files`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from submillion.errors import DataError
from submillion.text import closest, did_you_mean

WRITTEN_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")  # predictions may be written so, too
ARROW, EXCEL, SQLITE, ZIP = (".feather", ".arrow"), (".xlsx", ".xlsm"), (".sqlite", ".sqlite3", ".db"), (".zip",)
SUFFIXES = (*WRITTEN_SUFFIXES, *ARROW, *EXCEL, *SQLITE, *ZIP)
PACKED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
WRITTEN = ".csv, .tsv, .jsonl, .ndjson (each may be .gz, .bz2, .xz or .zst) and .parquet"
ALLOWED = f"{WRITTEN.replace(' and', ',')}, {', '.join((*ARROW, *EXCEL, *SQLITE))} and .zip"
_PICKLES = (".pkl", ".pickle", ".p", ".pt", ".pth", ".bin", ".npy", ".npz", ".joblib", ".dill")
_SHEETS = (".xls", ".xlsb", ".ods", ".numbers")
_ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar")
_DATABASES = (".duckdb",)
# Kinds of files whose readers in pandas give a table.
_BY_PANDAS = {
    ".orc": "read_orc(X)",
    ".xml": "read_xml(X)",
    ".html": "read_html(X)[0]",
    ".htm": "read_html(X)[0]",
    ".dta": "read_stata(X)",
    ".sas7bdat": "read_sas(X)",
    ".xpt": "read_sas(X)",
    ".sav": "read_spss(X)",
    ".h5": "read_hdf(X)",
    ".hdf5": "read_hdf(X)",
}
REFUSED_SUFFIXES = (*_PICKLES, *_SHEETS, *_ARCHIVES, *_DATABASES, *_BY_PANDAS, ".json", ".txt", ".text")
# A sheet, a table or a file in a file that holds several: FILE::NAME.
_PLACE = re.compile(rf"(.+(?:{'|'.join(map(re.escape, (*EXCEL, *SQLITE, *ZIP)))}))::(.+)", re.IGNORECASE | re.DOTALL)


def parted(path: Path) -> tuple[Path, str | None]:
    """Return the file of a place, and the sheet, table or file in it that the place names; None if it names none.

    >>> parted(Path("a.xlsx::Sheet 2")), parted(Path("a.csv"))
    ((PosixPath('a.xlsx'), 'Sheet 2'), (PosixPath('a.csv'), None))
    """
    place = _PLACE.fullmatch(str(path))
    return (path, None) if place is None else (Path(place[1]), place[2])


def suffix_of(path: Path) -> str:
    """Return the suffix that decides the format: in lower case, without the packing's.

    >>> suffix_of(Path("Train.CSV.gz")), suffix_of(Path("a.xlsx::New.csv")), suffix_of(Path("a.zip::new.csv"))
    ('.csv', '.xlsx', '.csv')
    """
    return Path(read_as(path).name.lower().removesuffix(packing_of(path))).suffix


def packing_of(path: Path) -> str:
    """Return the suffix that says how a file is packed, in lower case; "" if it is not."""
    suffix = read_as(path).suffix.lower()
    return suffix if suffix in PACKED_SUFFIXES else ""


def is_in_archive(path: Path) -> bool:
    """Say whether a place is a file in an archive."""
    file, name = parted(path)
    return name is not None and file.suffix.lower() in ZIP


def read_as(path: Path) -> Path:
    """Return the name that decides how a place is read: the name in an archive, else the file's."""
    file, name = parted(path)
    return Path(name) if name is not None and is_in_archive(path) else file


def refuse(path: Path) -> None:
    """Raise a DataError if a file is not there or is of a kind that is not read; the error says what to do."""
    suffix = suffix_of(path)
    if suffix in REFUSED_SUFFIXES:
        if not os.path.exists(path) and suffix not in (*_PICKLES, *_SHEETS, ".json"):
            raise DataError(f"{path}: no such file{_neighbour(path)}")
        raise DataError(f"{path}{_way_out(path, suffix)}")
    file, _ = parted(path)
    if suffix not in SUFFIXES and not os.path.exists(file):  # Path.exists raises if a name is too long
        raise DataError(f"{path}: no such file or folder{_neighbour(path, only_near=True)}")
    if packing_of(path) and suffix in (*EXCEL, *SQLITE, *ZIP):
        raise DataError(f"{path} is compressed twice: unpack it, and give the {suffix} file")
    if suffix not in SUFFIXES or (suffix in (".parquet", *ARROW) and packing_of(path)):
        raise DataError(
            f"{path}: unknown kind of file {suffix or path.name!r}; allowed are {ALLOWED}: rename it if it is one of "
            "them, else convert it"
        )
    if not os.path.exists(file):
        raise DataError(f"{file}: no such file{_neighbour(file)}")
    if not file.is_file():
        raise DataError(f"{file} is not a file")
    if is_in_archive(path) and suffix in (*EXCEL, *SQLITE, *ZIP):
        raise DataError(f"{path}: {suffix} files are not read inside an archive: unpack it, and give the {suffix} file")


def _way_out(path: Path, suffix: str) -> str:
    """Return why a file of a known kind is not read, and what to do."""
    if suffix in _PICKLES:
        return (
            f": {suffix} files may hold Python pickles, and reading one runs any code in it: they are "
            "not read. In an environment that you trust, convert it: pandas.read_pickle(...).to_parquet('rows.parquet')"
        )
    if suffix in _SHEETS:
        return " is a spreadsheet in a format that is not read: open it, save it as .xlsx, and give that"
    if suffix in _DATABASES:
        return (
            " is a database: write the rows that you want to a file, pandas.read_sql('select * from TABLE', "
            "connection).to_parquet('rows.parquet'), and give that"
        )
    if suffix in _BY_PANDAS:
        call = _BY_PANDAS[suffix].replace("X", repr(path.name))
        return f": {suffix} files are not read: convert it, pandas.{call}.to_parquet('rows.parquet')"
    if suffix == ".json":
        return (
            ": a .json file is one value, but rows are read one by one: convert it to JSON Lines, "
            "pandas.read_json(...).to_json('rows.jsonl', orient='records', lines=True)"
        )
    if suffix in (".txt", ".text"):
        return (
            ": a .txt file may be anything: if tabs or commas separate its columns, rename it .tsv or .csv; if each "
            "line is a text, rename it .tsv and make its first line: text"
        )
    return " is an archive: unpack it, and give the file, or the folder, that was inside"


def _neighbour(path: Path, only_near: bool = False) -> str:
    """Return the file that may be meant, or those that exist."""
    if not os.path.isdir(path.absolute().parent):
        return f", and no folder {path.parent} either" * (not only_near)
    names = sorted(file.name for file in path.absolute().parent.iterdir() if only_near or suffix_of(file) in SUFFIXES)
    if only_near:
        return "" if (near := closest(path.name, names)) is None else f": did you mean {near!r}?"
    return f": {did_you_mean(path.name, names)}" if names else f"; the folder {path.parent} holds no data file"

"""Rows in memory become tables, as files do: texts, pairs, rows as dicts, other libraries' tables.

pandas and datasets are not imported here: an object can be theirs only if somebody has imported them. What the
columns mean is left to `reading`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np

from submillion.config import DataConfig
from submillion.data import naming, reading, sources
from submillion.data.hub import table_of_dataset
from submillion.data.labels import named
from submillion.data.packaged import PREFIX
from submillion.data.sources import MEMORY, SPLITS
from submillion.data.tables import Table, decoded, refuse_repeated
from submillion.errors import DataError
from submillion.text import a_kind, did_you_mean, shown

Kind = Literal["path", "texts", "DataFrame", "Dataset"]
_ALLOWED = (
    "allowed are a list of texts, a numpy array or pandas Series of texts, a pandas DataFrame, a datasets.Dataset, a "
    "list of dicts (a row each), or a file's path"
)


def kind_of(rows: object) -> Kind | None:
    """Return how an object holds rows; None for one that is not read."""
    match rows:
        case str() | os.PathLike():
            return "path"
        case list() | tuple():
            return "texts"
        case np.ndarray():
            return "texts" if rows.ndim else None
    if _is_of(rows, "pandas", "Series") or _is_array_of_pandas(rows):
        return "texts"
    if _is_of(rows, "pandas", "DataFrame"):
        return "DataFrame"
    return "Dataset" if _is_of(rows, "datasets", "Dataset") else None


def opened(rows: object, data: DataConfig, labelled: bool, more: Collection[str] = ()) -> tuple[Table, DataConfig]:
    """Return the table of rows in memory or in a file, and the settings whose columns it is read by.

    These are the run's own, except for texts without columns; `more` are read too. With `labelled`, texts alone are
    refused. DataError says what is wrong.
    """
    wanted = reading.wanted_columns(data, labelled) | {*more}
    match kind_of(rows):
        case "path":
            return _file(rows, data, labelled, more), data
        case "DataFrame":
            return _frame(rows, wanted), data
        case "Dataset":
            table = table_of_dataset("the Dataset", rows, wanted)
            return decoded(replace(table, index=range(len(table.numbers)))), data
        case "texts":
            return _sequence(rows, data, wanted, labelled)
    raise _refusal(rows)


def splits(rows: object, data: DataConfig) -> dict[str, Table]:
    """Return the table of each split: of a mapping (a DatasetDict is one) those that it has; else rows are train's."""
    parts = rows if isinstance(rows, Mapping) else {"train": rows}
    if unknown := [name for name in parts if name not in SPLITS]:
        raise DataError(
            *(
                f"a dict of rows has the splits train, validation and test, and {shown(name)} is not one of them: "
                f"{did_you_mean(name, SPLITS)}; columns go into a DataFrame, settings into overrides"
                for name in unknown
            )
        )
    if "train" not in parts:
        raise DataError(f"a dict of rows needs the split train; it has {', '.join(map(str, parts)) or 'none'}")
    tables, problems = {}, list[str]()
    for name, part in parts.items():
        try:
            table, _ = opened(part, data, labelled=True)
            tables[name] = replace(table, origin=f"{table.origin} ({name})") if len(parts) > 1 else table
        except DataError as error:
            problems += error.problems
    reading.raise_all(problems)
    return tables


def _file(rows: Any, data: DataConfig, labelled: bool, more: Collection[str]) -> Table:
    path = os.path.expanduser(os.fsdecode(rows))
    is_named = path.startswith(PREFIX) or path == MEMORY or sources.is_named_like_a_file(Path(path))
    if isinstance(rows, str) and not is_named and not os.path.exists(path):
        raise DataError(
            f"{shown(path)}: no such file; a str is taken as a file's path: for one text give [text]; "
            "else give a file, or packaged:NAME"
        )
    return sources.one_table(path, data, labelled, more)


def _frame(frame: Any, wanted: Collection[str]) -> Table:
    names = [str(name) for name in frame.columns]
    refuse_repeated("the DataFrame", [name for name in names if name in wanted])
    columns = {name: _cells(frame.iloc[:, i]) for i, name in enumerate(names) if name in wanted}
    index = frame.index.tolist()
    return decoded(Table("the DataFrame", tuple(names), columns, range(1, len(index) + 1), index=index))


def _cells(series: Any) -> list[Any]:
    """A pandas Series as plain values, None for each kind of missing one."""
    return [plain(value) for value in series.astype(object).where(series.notna(), None)]


def plain(value: Any) -> Any:
    """Return a cell as a plain value, None for pandas' missing ones; numpy's types become Python's."""
    match value:
        case np.generic() | np.ndarray():
            return value.tolist()
    return None if type(value).__name__ in ("NAType", "NaTType") else value  # pandas', which may be in a list too


def _sequence(rows: Any, data: DataConfig, wanted: Collection[str], labelled: bool) -> tuple[Table, DataConfig]:
    """The table of texts or pairs, or of rows as dicts, and the settings that it is read by."""
    if isinstance(rows, np.ndarray | list | tuple):
        origin = "the array" if isinstance(rows, np.ndarray) else f"the {type(rows).__name__}"
        values = [plain(value) for value in (rows.tolist() if isinstance(rows, np.ndarray) else rows)]
        index = range(len(values))
    elif _is_array_of_pandas(rows):
        origin, values, index = f"the {type(rows).__name__}", [plain(value) for value in rows], range(len(rows))
    else:
        origin, values, index = "the Series", _cells(rows), rows.index.tolist()
    table = Table(origin, (), {}, range(1, len(values) + 1), index=index)
    if any(isinstance(value, Mapping) for value in values):
        return _of_dicts(table, values, wanted), data
    if labelled:
        if not values:
            raise DataError(f"{origin} has no rows")
        raise DataError(
            f"{origin} has no labels: give a DataFrame, a datasets.Dataset, a list of dicts or a file, with the "
            f"{named(data)}"
        )
    columns = ("text",) if data.text_pair is None else ("text", "text_pair")
    cells = _texts(table, values, data)
    table = decoded(replace(table, names=columns, columns=dict(zip(columns, cells, strict=True))))
    return table, data.model_copy(update={name: name for name in columns})


def _of_dicts(table: Table, rows: Sequence[Any], wanted: Collection[str]) -> Table:
    _refuse_others(table, rows, lambda row: isinstance(row, Mapping), "other rows are dicts: give them all as dicts")
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: [plain(row.get(name)) for row in rows] for name in names if name in wanted}
    return decoded(replace(table, names=tuple(map(str, names)), columns=columns))


def _texts(table: Table, values: Sequence[Any], data: DataConfig) -> list[list[Any]]:
    """The column of texts, or the two of pairs; the reader refuses missing texts."""
    if data.text_pair is None:
        advice = "give texts (str)"
        if not isinstance(data.text, str):
            advice += f"; the columns {', '.join(data.text)} are read from a DataFrame, a datasets.Dataset or dicts"
        _refuse_others(table, values, _is_text, advice)
        return [list(values)]
    pairs = [(None, None) if naming.is_missing(value) else value for value in values]
    _refuse_others(table, pairs, _is_pair, "give pairs (text, second text), as the run was trained on pairs")
    return [[pair[i] for pair in pairs] for i in (0, 1)]


def _is_text(value: Any) -> bool:
    """Say whether a value is read as text, as in a table's column."""
    return isinstance(value, str | bytes | int | float | date) or value is None


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_text, value))


def _refuse_others(table: Table, values: Sequence[Any], fits: Callable[[Any], bool], advice: str) -> None:
    if wrong := [row for row, value in enumerate(values) if not fits(value)]:
        value = values[wrong[0]]
        raise DataError(f"{table.place(wrong)}: {shown(value)} is {a_kind(value)}: {advice}")


def _refusal(rows: object) -> DataError:
    match rows:
        case None:
            advice = "there are no rows"
        case bytes() | bytearray():
            advice = "decode a text, x.decode(), and put it in a list"
        case Mapping() if _is_of(rows, "datasets", "DatasetDict"):
            advice = f"give one of its splits, such as x[{next(iter(rows), 'test')!r}]"
        case Mapping():
            advice = "of columns make pandas.DataFrame(x), of one row [x]"
        case Set():
            advice = "a set has no order: give sorted(x)"
        case Iterator():
            advice = "give list(x)"
        case _ if hasattr(rows, "to_pandas"):  # polars, pyarrow
            advice = "give x.to_pandas()"
        case _:
            advice = "it holds no rows that can be read"
    return DataError(f"rows are given as {a_kind(rows)}: {advice}; {_ALLOWED}")


def _is_array_of_pandas(rows: object) -> bool:
    """Say whether rows are what a Series has in `.values` or `.array`, or an Index."""
    return _is_of(rows, "pandas", "Index") or _is_of(rows, "pandas.api.extensions", "ExtensionArray")


def _is_of(value: object, package: str, name: str) -> bool:
    """Say whether a value is of a package's class, which is possible only if that is imported."""
    kind = getattr(sys.modules.get(package), name, None)
    return isinstance(kind, type) and isinstance(value, kind)

"""What cells name: labels and ids as text, and the ids of rows, from a column or by their numbers."""

from __future__ import annotations

import re
from typing import Any

from submillion.data.columns import missing_columns
from submillion.data.tables import Table

ID_COLUMNS = ("id", "ID", "Id")
WHOLE = re.compile(r"[+-]?\d+\.0*")


def names_of_rows(table: Table, column: str) -> list[str | None]:
    """Return the ids that a column gives the rows, None where one is missing."""
    cells = table.columns[column]
    return [(cell.strip() or None) if isinstance(cell, str) else name_of(cell) for cell in cells]


def numbers_of_rows(table: Table) -> list[str]:
    """Return the ids of rows that have none of their own: their numbers in the file, from 0.

    Rows from memory have their index instead, unless it repeats a value.
    """
    index = [name for value in table.index or () if (name := name_of(value)) is not None]
    return index if len(set(index)) == len(table.numbers) else [str(number - 1) for number in table.numbers]


def bad_ids(where: str, column: str, is_chosen: bool = False) -> str:
    """Return the problem of rows, at `where`, whose ids in the column cannot be used; is_chosen: by the user."""
    instead = "or choose another" if is_chosen else f"or rename the column {column} to have rows numbered"
    return f"{where}: the {column} is missing or repeats an earlier row's: make each one unique, {instead}"


def ids_in(table: Table, column: str, problems: list[str]) -> list[str]:
    """Return the ids that a chosen column gives the rows; a missing or repeated one is a problem."""
    if column not in table.columns:
        problems += missing_columns(table, {column: "--id"}, "columns")
        return numbers_of_rows(table)
    names = names_of_rows(table, column)
    first = {name: row for row, name in reversed(list(enumerate(names)))}
    if bad := [row for row, name in enumerate(names) if name is None or first[name] != row]:
        problems.append(bad_ids(table.place(bad), column, is_chosen=True))
    return [str(name) for name in names]


def ids_of(table: Table, problems: list[str]) -> list[str]:
    """Return the ids of an id column, if it has one for each row and none twice; else the rows' numbers from 0.

    An id column that cannot be used is a problem if ids go into predictions.
    """
    for column in (name for name in ID_COLUMNS if name in table.columns):
        names = names_of_rows(table, column)
        ids = [name for name in names if name is not None]
        if ids and len(set(ids)) == len(ids) == len(table.numbers):
            return ids
        if names:
            first = {name: row for row, name in reversed(list(enumerate(names)))}
            bad = [row for row, name in enumerate(names) if name is None or first[name] != row]
            problems += [bad_ids(table.place(bad), column)] if bad else []
    return numbers_of_rows(table)


def name_of(value: Any) -> str | None:
    """Return a label or an id as text, None if it is missing; whole floats lose their point.

    >>> name_of(1.0), name_of("1.0"), name_of(" World "), name_of(float("nan")), name_of("")
    ('1', '1', 'World', None, None)
    """
    if is_missing(value):
        return None
    text = str(value).strip()
    if not is_unicode(text):
        return None
    return (text.partition(".")[0] if WHOLE.fullmatch(text) else text) or None


def is_missing(value: Any) -> bool:
    """Say whether a cell holds nothing: None, or NaN."""
    return value is None or (isinstance(value, float) and value != value)


def is_unicode(text: str) -> bool:
    """Return False for text with half a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

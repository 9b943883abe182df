"""Report columns that a table lacks, and guess which of its own may be meant.

A guess goes by names and, for a file, by its first rows. It is proposed and never used: only columns that the settings
name are read.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from itertools import islice
from statistics import fmean
from typing import Literal

import yaml

from submillion.data.files import Lines
from submillion.data.formats import tables
from submillion.data.tables import Table
from submillion.errors import DataError
from submillion.text import closest, shown
from submillion.words import count

# What the user types: options, Python, or columns by name; or what fixes the columns: a finished run, or the other
# splits.
Advice = Literal["options", "overrides", "run", "splits", "columns"]
_SHOWN_NAMES = 20
_GUESSED_NAMES, _GUESSED_ROWS, _GUESSED_LINES = 100, 200, 30  # that a guess looks at
_TEXT_WORDS = 3  # on average in the cells of a column that holds texts
_CLASSES_FRAC = 0.2  # of the rows: a column with more distinct values does not hold classes
_TEXT, _LABEL = "data.text", "data.label"
# What such columns are often called, the surest name first.
_NAMES = {
    _TEXT: "text review sentence comment message tweet post content body question utterance query headline title "
    "description abstract summary document article news snippet phrase".split(),
    _LABEL: "label class category target sentiment topic intent emotion polarity star rating genre tag type "
    "score".split(),
}


def missing_columns(table: Table, keys: Mapping[str, str], advice: Advice = "options") -> list[str]:
    """Return the problem with the columns that the table does not have, as a list of one; an empty list if it has all.

    keys: column → the setting that names it · advice: what is typed, or whose settings these are, so only the
    file can be changed.
    """
    missing = [name for name in keys if name not in table.names]
    if not missing or not (table.names or table.numbers):
        return []
    if (header := _header(table, keys)) is not None:
        first = ", ".join(map(shown, table.names[:_SHOWN_NAMES]))
        typed = {
            "options": f", or give --set {shlex.quote(f'data.header={_as_yaml(header)}')}",
            "overrides": f", or give overrides={{'data.header': {header}}}",
        }
        return [
            f"{table.origin}: its first line looks like a row ({first}), but it must name the columns: "
            f"add a line that does{typed.get(advice, '')}"
        ]
    if (line := _line_of_names(table, keys)) is not None:
        return [f"{table.origin}: line {line} names the columns, but the first line must: delete the lines before it"]
    names = ", ".join(table.names[:_SHOWN_NAMES]) + (", ..." if len(table.names) > _SHOWN_NAMES else "")
    guesses = _guesses(table, keys, missing)
    match advice:
        case "run":
            todo = f"the run reads only these: rename {_renamed(missing, guesses)}"
            if not guesses and {keys[name] for name in missing} == {_LABEL}:
                todo += "; if it has no labels, `submillion predict` and `submillion shift` read it"
        case "splits":
            todo = f"all splits use the same columns: rename {_renamed(missing, guesses)}"
        case "columns":
            meant = {name: closest(name, table.names) for name in missing}
            guessed = [f"did you mean {near!r}?" for near in meant.values() if near is not None]
            todo = (
                " ".join(guessed)
                or f"name one of these with {' and '.join(dict.fromkeys(keys[name] for name in missing))}"
            )
        case _:
            todo = _setting(keys, missing, guesses, in_python=advice == "overrides" or table.index is not None)
    what = " and no column ".join(map(repr, missing))
    return [f"{table.origin} has no column {what}; it has {names or 'none'}; {todo}"]


def _renamed(missing: Sequence[str], guesses: Mapping[str, str]) -> str:
    steps = (f"{guesses[name]!r} to {name!r}" if name in guesses else f"one to {name!r}" for name in missing)
    return " and ".join(steps)


def _setting(keys: Mapping[str, str], missing: Sequence[str], guesses: Mapping[str, str], in_python: bool) -> str:
    """Return what to type: a setting for each key, `...` if no column can be guessed."""
    values: dict[str, str | list[str]] = {}
    for key in dict.fromkeys(keys[name] for name in missing):
        columns = [guesses.get(name, "..." if name in missing else name) for name in keys if keys[name] == key]
        values[key] = columns[0] if len(columns) == 1 else columns
    options = [f"--set {shlex.quote(f'{key}={_as_yaml(value)}')}" for key, value in values.items()]
    typed = f"overrides={values}" if in_python else " ".join(options)
    return f"give {typed}, or rename the column{'s' if len(missing) > 1 else ''}"


def _as_yaml(name: str | list[str]) -> str:
    """A name, or a list of names, as YAML reads it back."""
    if isinstance(name, list):
        return f"[{', '.join(map(_as_yaml, name))}]"
    is_plain = re.fullmatch(r"[\w. -]+", name) is not None and (name == "..." or yaml.safe_load(name) == name)
    return name if is_plain else json.dumps(name, ensure_ascii=False)


def _guesses(table: Table, keys: Mapping[str, str], missing: Sequence[str]) -> dict[str, str]:
    """Guess columns for the missing ones: those of similar names, else the likeliest text or label."""
    free = [name for name in table.names[:_GUESSED_NAMES] if name and name not in keys and name.lower() != "id"]
    guesses: dict[str, str] = {}
    for name in missing:
        if (near := closest(name, free)) is not None:
            guesses[name] = near
            free.remove(near)
    cells = _first_cells(table, free)
    for name in missing:
        is_alone = list(keys.values()).count(keys[name]) == 1  # which of several texts is meant is unknown
        if name in guesses or keys[name] not in _NAMES or not is_alone:
            continue
        guess = _likeliest_text(free, cells) if keys[name] == _TEXT else _likeliest_label(free, cells)
        if guess is not None:
            guesses[name] = guess
            free.remove(guess)
    return guesses


def _line_of_names(table: Table, keys: Mapping[str, str]) -> int | None:
    """The line, from 1, that names the columns of a file which begins with other lines; None if none does."""
    if not table.is_text or table.path is None or table.layout.header is not True:
        return None
    lines = enumerate(islice(Lines(table.path, "", table.layout.encoding), _GUESSED_LINES), start=1)
    cells = ((line, {cell.strip().strip('"') for cell in re.split(r"[,;\t|]", text)}) for line, text in lines)
    return next((line for line, names in cells if names.issuperset(keys)), None)


def _header(table: Table, keys: Mapping[str, str]) -> list[str] | None:
    """Names for the columns of a file whose first line is a row like the others; None if it names them."""
    if not table.is_text or table.layout.header is not True or any(name in keys for name in table.names):
        return None
    cells = _first_cells(table, table.names[:_GUESSED_NAMES])
    if not any(name in cells.get(name, ()) or re.fullmatch(r"\d+(\.\d+)?", name) for name in table.names if name):
        return None
    free = list(cells)
    names = {name: f"column{i}" for i, name in enumerate(table.names, start=1)}
    wanted = {key: name for name, key in keys.items()}
    if _LABEL in wanted and (label := _likeliest_label(free, cells)) is not None:
        names[label] = wanted[_LABEL]
        free.remove(label)
    if (text := _likeliest_text(free, cells) or next(iter(free), None)) is not None:
        names[text] = wanted[_TEXT]
    return list(names.values())


def _first_cells(table: Table, names: Sequence[str]) -> dict[str, list[str]]:
    """The first cells of a file's columns, without empty ones; tables that come from no file have none."""
    if table.path is None:
        return {}
    try:
        columns = next(tables(table.path, names, _GUESSED_ROWS, table.layout)).columns
    except DataError:  # in a column that was not asked for
        return {}
    return {name: [str(cell) for cell in columns.get(name, ()) if cell not in (None, "")] for name in names}


def _likeliest_text(names: Sequence[str], cells: Mapping[str, list[str]]) -> str | None:
    """Return the wordiest of the columns called like texts, else of those that hold texts."""
    candidates = _called_like(_TEXT, names)
    if not cells:
        return next(iter(candidates), None)
    n_words = {name: fmean([count(cell) for cell in cells[name]] or [0]) for name in names}
    return max(
        candidates or [name for name in names if n_words[name] >= _TEXT_WORDS], key=n_words.__getitem__, default=None
    )


def _likeliest_label(names: Sequence[str], cells: Mapping[str, list[str]]) -> str | None:
    """Return the first column called like a label in which a value repeats, else the one with the fewest values."""
    candidates = _called_like(_LABEL, names)
    if not cells:
        return next(iter(candidates), None)
    n_values = {name: len(set(cells[name])) for name in names}
    repeated = [name for name in names if 2 <= n_values[name] < len(cells[name])]
    few = [name for name in repeated if n_values[name] <= max(2, _CLASSES_FRAC * len(cells[name]))]
    named = [name for name in candidates if name in repeated or not cells[name]]
    return next(iter(named), None) or min(few, key=n_values.__getitem__, default=None)


def _called_like(key: str, names: Sequence[str]) -> list[str]:
    """The names that have a word such columns are often called by, the surest first."""
    words = {
        name: {word.lower().removesuffix("s") for word in re.findall(r"[A-Z]*[a-z]+|[A-Z]+", name)} for name in names
    }
    ranks = {n: [i for i, call in enumerate(_NAMES[key]) if call.removesuffix("s") in words[n]] for n in names}
    return sorted((name for name in names if ranks[name]), key=lambda name: ranks[name][0])

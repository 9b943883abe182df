"""What the cells of a label's column mean: one label, or several, and which names they have.

Several are lists, a text that joins them, or columns of 0 and 1. Whether rows have several is recognised once, in the
training rows (`resolved`), and holds for everything read later. Which rows make a fit set is left to `checking`.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from submillion.config import DataConfig
from submillion.data import naming
from submillion.data.tables import BadRows, Table
from submillion.text import plural, shown

Label = str | int  # as the rows have it: text, a whole number or a truth value
RowLabel = str | tuple[str, ...]  # names: one, or several (none too) in the order of their characters

_SEPARATORS = "|;,\t"
# A share of the rows, and rows: if fewer have several labels, that is more likely a mistake than meant.
_LEAST_SHARE, _LEAST_ROWS = 0.05, 2
_TRUTH = {"0": False, "1": True, "false": False, "true": True}
_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?|[+-]?\d+[eE]-\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_DECIMAL = re.compile(r"[+-]?\d+(,\d+)?")  # with a decimal comma
# Python and JSON lists, sets and objects as text, and numpy's [0 1 0]; "[urgent]" is a name.
_LIST = re.compile(r"""[\[({].*['"].*[\])}]|[\[{].*,.*[\]}]|\[[\d.\s]*\]""", re.DOTALL)
_MAX_DIGITS = 16  # more than any count of classes; int() refuses texts of thousands, and Parquet numbers of 20


def columns(data: DataConfig) -> tuple[str, ...]:
    """Return the label's column, or the columns of 0 and 1."""
    return (data.label,) if isinstance(data.label, str) else data.label


def named(data: DataConfig) -> str:
    """Return the label's column, or columns, for messages: column 'label'."""
    names = columns(data)
    return f"{plural(len(names), 'column')} {', '.join(map(repr, names))}"


def names_in(label: RowLabel | None) -> tuple[str, ...]:
    """Return the names of a row's labels, one or several; none if it is not known.

    >>> names_in("a"), names_in(("a", "b")), names_in(None)
    (('a',), ('a', 'b'), ())
    """
    return label if isinstance(label, tuple) else () if label is None else (label,)


def counted(labels: Iterable[RowLabel | None]) -> Counter[str]:
    """Return the number of rows that have each label."""
    return Counter(name for label in labels for name in names_in(label))


def resolved(table: Table, data: DataConfig) -> DataConfig:
    """Return the settings with `data.labels` and its separator as the training rows have them.

    Several if there are several columns, or if at least 5 % of the rows, and two, have lists or join labels that others
    have too; else they are unchanged, and null means one.
    """
    if data.labels == "one" or not isinstance(data.label, str):
        return data if data.labels == "one" else data.model_copy(update={"labels": "several"})
    cells = table.columns.get(data.label, [])
    separator = data.label_separator or _joining(cells)
    is_set = data.labels == "several" or data.label_separator is not None
    n_several = len(_several_rows(cells, separator))
    if not is_set and n_several < max(_LEAST_ROWS, _LEAST_SHARE * len(cells)):
        return data
    return data.model_copy(update={"labels": "several", "label_separator": separator})


def labels_of(table: Table, data: DataConfig, bad: list[BadRows], is_run: bool = False) -> list[RowLabel | None]:
    """Return each row's label as a name, or its several labels' names; None for one that is missing or refused, a bad
    row.

    3 and 3.0 are "3". If rows have one, lists and numbers with fractions (regression) are refused by name. All are None
    if a column is missing. `is_run`: a finished run's settings, which nobody can change.
    """
    if not set(columns(data)).issubset(table.columns):
        return [None] * len(table.numbers)
    if data.labels != "several":
        return _one(table, data, bad, is_run)
    row_names = _of_cells(table, data, bad) if isinstance(data.label, str) else _of_columns(table, data.label, bad)
    return [None if names is None else tuple(sorted(set(names))) for names in row_names]


def note(origin: str, labels: Sequence[RowLabel | None], data: DataConfig) -> str:
    """Return the note on rows with several labels: how they have them, how many, and how many rows have none."""
    if not isinstance(data.label, str):
        how = f"the label columns {', '.join(map(repr, data.label))} hold 0 and 1"
    elif data.label_separator is not None:
        how = f"the label column {data.label!r} joins labels with {data.label_separator!r}"
    else:
        how = f"the label column {data.label!r} holds several labels per row"
    per_row = sum(map(len, map(names_in, labels))) / max(1, len(labels))
    rest = with_none(sum(label == () for label in labels))
    counts = counted(labels)
    if always := [name for name, n in counts.items() if n == len(labels)]:
        rest += f"; every row has {', '.join(map(repr, always))}: nothing can be learned about that"
    return f"{origin}: {how}: {len(counts):,} {plural(len(counts), 'label')}, {per_row:.1f} per row, {rest}"


def with_none(n_rows: int) -> str:
    """Return how many rows have no label, for a sentence on labels.

    >>> with_none(0), with_none(1), with_none(40)
    ('no row without one', '1 row with none', '40 rows with none')
    """
    return f"{n_rows:,} {plural(n_rows, 'row')} with none" if n_rows else "no row without one"


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return distinct labels, sorted: whole numbers by their value, names by their characters.

    >>> in_order(["10", "9", "10"]), in_order(["b", "10", "a"])
    (('9', '10'), ('10', 'a', 'b'))
    """
    names = set(labels)
    numeric = all(re.fullmatch(r"-?\d+", name) and len(name) <= _MAX_DIGITS for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numeric else (0, name)))


def as_in_rows(labels: Sequence[str], table: Table, column: str | tuple[str, ...]) -> tuple[Label, ...]:
    """Return labels' names as the values in a table's rows: whole numbers and truth values keep their type.

    All rows must have that type. In a file that holds nothing but text, labels are what the names spell. Names of
    columns are text.

    >>> cells = ("label",), {"label": ["0", "1"]}, [1, 2]
    >>> as_in_rows(["0", "1"], Table("a.csv", *cells, is_text=True), "label")
    (0, 1)
    >>> as_in_rows(["0", "1"], Table("a.jsonl", *cells), "label")
    ('0', '1')
    """
    if not isinstance(column, str):
        return tuple(labels)
    spelt = as_spelt(labels)
    kinds = {bool} if set(map(type, spelt)) == {bool} else {int, float}
    values = [value for cell in table.columns[column] for value in _items(cell)]
    types = {type(value) for value in values if not naming.is_missing(value)}
    return spelt if table.is_text or types <= kinds else tuple(labels)


def as_spelt(labels: Sequence[str]) -> tuple[Label, ...]:
    """Return labels as what their names spell, all of them whole numbers or truth values; else the names.

    >>> as_spelt(["1", "10"]), as_spelt(["False", "True"]), as_spelt(["01", "1"]), as_spelt(["1", "many"])
    ((1, 10), (False, True), ('01', '1'), ('1', 'many'))
    """
    if set(labels) <= {"False", "True"}:
        return tuple(label == "True" for label in labels)
    if all(len(label) <= _MAX_DIGITS and re.fullmatch(r"0|-?[1-9]\d*", label) for label in labels):
        return tuple(map(int, labels))
    return tuple(labels)


def _one(table: Table, data: DataConfig, bad: list[BadRows], is_run: bool) -> list[RowLabel | None]:
    """Each row's one label."""
    (column,) = columns(data)
    values = table.columns[column]
    labels: list[RowLabel | None] = [naming.name_of(value) for value in values]
    counts = counted(labels)
    if missing := [row for row, label in enumerate(labels) if label is None]:
        bad.append(table.faulty(missing, f"the label (column {column!r}) is missing: give one or delete the row"))
    refused = []
    separator = None if data.labels == "one" else _joining(values)
    if lists := [row for row, value in enumerate(values) if _is_list(value)]:
        what, todo = f"(column {column!r}) is a list ({shown(values[lists[0]])})", "or give one name"
        sentence = _multi_label(what, len(lists), len(values), is_run, todo)
        bad.append(table.faulty(lists, sentence))
        refused += lists
    elif data.labels != "one" and (joined := _several_rows(values, separator)):
        what, todo = (
            f"(column {column!r}) joins several labels ({labels[joined[0]]!r})",
            "data.labels=one if that is one label's name",
        )
        sentence = _multi_label(what, len(joined), len(values), is_run, f"{todo}, or correct the row")
        bad.append(table.faulty(joined, sentence))
        refused += joined
    elif counts and all(map(_NUMBER.fullmatch, counts)) and any(map(_FRACTION.fullmatch, counts)):
        rows = [row for row, label in enumerate(labels) if label is not None and _FRACTION.fullmatch(str(label))]
        sentence = (
            f"the labels of column {column!r} are fractional numbers ({labels[rows[0]]}): "
            "that is a regression target, and only classes can be learned; bin it into "
            "classes, or write names (v2.7) if they are names"
        )
        bad.append(table.faulty(rows, sentence, can_be_dropped=False))
        refused += rows
    for row in refused:
        labels[row] = None
    return labels


def _multi_label(what: str, n: int, n_rows: int, is_run: bool, otherwise: str) -> str:
    todo = f"; set data.labels=several to learn it, {otherwise}"
    if is_run:
        todo = ", but the run was trained on rows with one label: give one label per row"
    return f"the label {what}, in {n:,} of {n_rows:,} rows: that is multi-label classification{todo}"


@dataclass(frozen=True)
class _Fault:
    """Why a cell's labels cannot be used; rows with the same reason are reported together."""

    reason: str
    can_be_dropped: bool = True


def _of_columns(table: Table, names: Sequence[str], bad: list[BadRows]) -> list[list[str] | None]:
    """The names of the columns that are 1 in each row."""
    labels: list[list[str] | None] = [[] for _ in table.numbers]
    for column in names:
        truths = [_truth(column, cell) for cell in table.columns[column]]
        _add_faults(table, truths, bad)
        for row, truth in enumerate(truths):
            own = labels[row]
            if isinstance(truth, _Fault):
                labels[row] = None
            elif truth and own is not None:
                own.append(column)
    return labels


def _truth(column: str, cell: Any) -> bool | _Fault:
    name = naming.name_of(cell)
    if name is None:
        return _Fault(f"the label column {column!r} is missing: give 0 or 1, or delete the row")
    truth = _TRUTH.get(name.casefold())
    if truth is not None:
        return truth
    if _FRACTION.fullmatch(name):
        return _Fault(
            f"the label column {column!r} holds fractional numbers, but a label applies or does not: write 1 "
            "from some value upwards, else 0",
            can_be_dropped=False,
        )
    return _Fault(f"the label column {column!r} holds {shown(cell)}: 0 and 1 are allowed, or false and true")


def _of_cells(table: Table, data: DataConfig, bad: list[BadRows]) -> list[list[str] | None]:
    """The names in each cell of one column: of a list, or of a text that joins them."""
    (column,) = columns(data)
    cells = table.columns[column]
    what = f"the label (column {column!r})"
    if (vector := _vector(cells)) is not None:
        sentence = (
            f"{what} is {shown(vector)}, 0 and 1 without label names: give lists of names, or a column "
            "of 0 and 1 for each label, named by data.label=[NAME, NAME]"
        )
        bad.append(table.faulty(range(len(cells)), sentence, can_be_dropped=False))
        return [None] * len(cells)
    has_lists = any(isinstance(cell, list | tuple | set | frozenset) for cell in cells)
    known: dict[str, list[str] | _Fault] = {}  # of texts, most of which repeat
    labels: list[list[str] | _Fault] = []
    for cell in cells:
        if naming.is_missing(cell) and has_lists:
            labels.append(_Fault(f"{what} is missing: give [] if none applies, or delete the row"))
        elif isinstance(cell, str):
            if cell not in known:
                known[cell] = _names(cell, data.label_separator, what)
            labels.append(known[cell])
        else:
            labels.append(_names(cell, data.label_separator, what))
    _add_faults(table, labels, bad)
    return [None if isinstance(names, _Fault) else names for names in labels]


def _names(cell: Any, separator: str | None, what: str) -> list[str] | _Fault:
    """The names in a cell; none in an empty or a missing one."""
    items = _listed(cell)
    if items is None and (isinstance(cell, dict) or (isinstance(cell, str) and _LIST.fullmatch(cell.strip()))):
        return _Fault(f"{what} is {shown(cell)}, which is not a list of names: give [] or ['NAME', 'NAME']")
    if items is None:
        name = naming.name_of(cell)
        names = [] if name is None else [name] if separator is None else _pieces(name, separator)
    else:
        names = [None if _is_list(item) else naming.name_of(item) for item in items]
    if None in names:
        return _Fault(f"{what} is {shown(cell)}, a list with a missing name: leave it out, or name it")
    if any(_FRACTION.fullmatch(str(name)) for name in names):
        return _Fault(f"{what} holds fractional numbers ({shown(cell)}): give the names of labels", False)
    return [str(name) for name in names]


def _add_faults(table: Table, values: Sequence[Any], bad: list[BadRows]) -> None:
    rows: dict[_Fault, list[int]] = {}
    for row, value in enumerate(values):
        if isinstance(value, _Fault):
            rows.setdefault(value, []).append(row)
    bad += [table.faulty(where, fault.reason, fault.can_be_dropped) for fault, where in rows.items()]


def _vector(cells: Sequence[Any]) -> list[Any] | None:
    """The first cell of a column of vectors of 0 and 1, all of one length; None for lists of names."""
    lists = [items for cell in cells if (items := _listed(cell)) is not None]
    is_one = len(lists) > 0 and len(lists[0]) > 1 and len({len(items) for items in lists}) == 1
    return lists[0] if is_one and all(item in (0, 1) for items in lists for item in items) else None


def _joining(cells: Sequence[Any]) -> str | None:
    """Return the separator by which cells join labels; None if none does.

    Of several, the one of the fewest labels, as names may hold others: "Boston, MA; New York, NY" has two, neither of
    which is "MA; New York".
    """
    n_rows = {mark: n for mark in _SEPARATORS if (n := len(_joined_rows(cells, mark)))}
    usual = [mark for mark, n in n_rows.items() if n >= max(_LEAST_ROWS, _LEAST_SHARE * len(cells))]
    texts = {cell for cell in cells if isinstance(cell, str)}
    n_labels = {mark: len({name for text in texts for name in _pieces(text, mark)}) for mark in usual or n_rows}
    return min(n_labels, key=n_labels.__getitem__, default=None)


def _several_rows(cells: Sequence[Any], separator: str | None) -> list[int]:
    """The rows whose cell is a list, or written as one, or joins labels that others have too."""
    joined = set() if separator is None else {*_joined_rows(cells, separator)}
    is_list: dict[str, bool] = {}
    for cell in cells:
        if isinstance(cell, str) and cell not in is_list:
            is_list[cell] = _LIST.fullmatch(cell.strip()) is not None
    return [
        row
        for row, cell in enumerate(cells)
        if row in joined or (is_list[cell] if isinstance(cell, str) else _is_list(cell))
    ]


def _joined_rows(cells: Sequence[Any], separator: str) -> list[int]:
    """The rows whose text joins labels, each of which is in another text too, alone or joined."""
    texts = {cell for cell in cells if isinstance(cell, str)}
    pieces = {text: _pieces(text, separator) for text in texts if not _LIST.fullmatch(text.strip())}
    if separator == "," and all(map(_DECIMAL.fullmatch, filter(None, map(str.strip, pieces)))):
        return []
    n_texts = Counter(name for names in pieces.values() for name in set(names))
    joined = {t for t, names in pieces.items() if len(names) > 1 and all(n_texts[name] > 1 for name in names)}
    return [row for row, cell in enumerate(cells) if isinstance(cell, str) and cell in joined]


def _pieces(text: str, separator: str) -> list[str]:
    return [name for piece in text.split(separator) if (name := naming.name_of(piece)) is not None]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | dict | set | frozenset)


def _listed(cell: Any) -> list[Any] | None:
    """The items of a list, a tuple or a set, also of one that is written as text; None for anything else."""
    if isinstance(cell, list | tuple | set | frozenset):
        return list(cell)
    if not isinstance(cell, str) or not _LIST.fullmatch(cell.strip()):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python's, of escapes in a text
                value = parse(cell.strip())
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, list | tuple | set):
            return list(value)
    return None


def _items(cell: Any) -> list[Any]:
    items = _listed(cell)
    return [cell] if items is None else items

"""Tables become examples: columns joined, labels named, every unusable row reported.

Owns what a column means. Which file is read is left to `sources`, how to `tables`, and whether
examples make a fit training set to `checking`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from submillion.config import DataConfig
from submillion.data import naming
from submillion.data.columns import Advice, missing_columns
from submillion.data.tables import BadRows, Layout, Table
from submillion.errors import DataError
from submillion.text import did_you_mean, shown

Label = str | int  # as the rows have it: text, a whole number or a truth value

_FRACTION = re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?|[+-]?\d+[eE]-\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Python and JSON lists, sets and objects as text, and numpy's [0 1 0]; "[urgent]" is a name.
_LIST = re.compile(r"""[\[({].*['"].*[\])}]|[\[{].*,.*[\]}]|\[[\d.\s]*\]""", re.DOTALL)
_SEPARATORS = "|;,"
_SHOWN_LABELS = 5
_MAX_DIGITS = 16  # more than any count of classes; int() refuses texts of thousands, and Parquet numbers of 20


@dataclass(frozen=True)
class Example:
    """A row: its id, its text, its label (None where labels are not read), the second text of a pair.

    first_chars: characters of the text that came from the first of several columns, the blank after it included;
    0 where there is one column, or the first or all others are empty · group: what rows of one split share with none of
    another (`data.group`); None where rows have no groups.
    """

    id: str
    text: str
    label: str | None
    text_pair: str | None = None
    first_chars: int = 0
    group: str | None = None


@dataclass(frozen=True)
class Rows:
    """The usable rows of a table; `rows` are their indices in it.

    labels: of every row of the table, usable or not; None where it is missing, refused or not read · dropped: the
    rows that `data.drop` leaves out, and why.
    """

    table: Table
    examples: list[Example]
    rows: list[int]
    labels: list[str | None]
    dropped: tuple[BadRows, ...] = ()

    @property
    def n_dropped(self) -> int:
        """Return how many rows of the source were left out."""
        return len({number for each in self.dropped for number in each.numbers})


def wanted_columns(data: DataConfig, labelled: bool = True) -> set[str]:
    """Return the names of the columns that the settings name, and those that may hold ids."""
    labels = {data.label, data.group, data.split} - {None} if labelled else set()
    return {*text_columns(data), *naming.ID_COLUMNS, *map(str, labels)}


def layout_of(data: DataConfig, labelled: bool = True) -> Layout:
    """Return how the settings say that text files are laid out."""
    return Layout(data.encoding, data.separator, data.header, data.label if labelled else None)


def examples_of(
    table: Table,
    data: DataConfig,
    problems: list[str],
    labelled: bool = True,
    ids: Sequence[str] | None = None,
    advice: Advice = "options",
) -> Rows:
    """Return the usable rows; what is wrong with the others is added to `problems`, unless `data.drop` leaves them out.

    Text columns are joined by a blank, empty parts left out. With `labelled` false the label column is not
    looked at and labels are None. `ids` are each row's, where the caller has found them; else the table's own.
    `advice` as in `missing_columns`.
    """
    bad = list(table.bad)
    missing = missing_columns(table, _keys(data, labelled), advice)
    columns = (data.text,) if isinstance(data.text, str) else data.text
    texts = _texts(table, columns, bad)
    pairs = [None] * len(texts) if data.text_pair is None else _texts(table, (data.text_pair,), bad)
    labels: list[str | None] = [None] * len(texts)
    if labelled:
        labels = labels_of(table, data.label, bad)
    groups = _groups(table, data.group, bad) if labelled else [None] * len(texts)
    if "bad-rows" in data.drop and not missing and any(each.can_be_dropped for each in bad):
        return _without_bad_rows(table, bad, data, problems, labelled, ids)
    problems += missing
    if not (missing and sum(len(each.numbers) for each in table.bad) > len(table.numbers)):  # a wrong header is why
        problems += [each.sentence for each in bad]
    if not table.numbers and not bad:
        problems.append(f"{table.origin} has no rows")
    ids = naming.ids_of(table, [] if labelled else problems) if ids is None else ids
    usable = [
        row
        for row, text in enumerate(texts)
        if text and (pairs[row] or data.text_pair is None) and (labels[row] is not None or not labelled)
    ]
    firsts = _first_chars(table, columns, texts)
    examples = [Example(ids[row], texts[row], labels[row], pairs[row], firsts[row], groups[row]) for row in usable]
    return Rows(table, examples, usable, labels)


def _without_bad_rows(
    table: Table,
    bad: Sequence[BadRows],
    data: DataConfig,
    problems: list[str],
    labelled: bool,
    ids: Sequence[str] | None,
) -> Rows:
    """The rows without those that can be dropped; a problem where none is left."""
    dropped = tuple(each for each in bad if each.can_be_dropped)
    numbers = {number for each in dropped for number in each.numbers}
    rest = replace(table, bad=()).without(numbers)
    if not rest.numbers:
        problems += [f"{each.sentence}; data.drop leaves no row" for each in dropped]
    kept = (
        None if ids is None else [row for row, number in zip(ids, table.numbers, strict=True) if number not in numbers]
    )
    told = problems if rest.numbers else []
    rows = examples_of(rest, data, told, labelled, kept)
    return replace(rows, dropped=(*dropped, *rows.dropped))


def dropped_warning(rows: Rows) -> list[str]:
    """Return the sentence, or none, about the rows that `data.drop` leaves out: how many and which."""
    if not rows.dropped:
        return []
    n_all = len({*rows.table.numbers, *(number for each in rows.dropped for number in each.numbers)})
    return [
        f"{rows.table.origin}: {rows.n_dropped:,} of {n_all:,} rows {'is' if rows.n_dropped == 1 else 'are'} left out "
        f"(data.drop): {'; '.join(each.sentence.removeprefix(f'{rows.table.origin}, ') for each in rows.dropped)}"
    ]


def labels_of(table: Table, column: str, bad: list[BadRows]) -> list[str | None]:
    """Return each row's label as a name: 3 and 3.0 are "3"; None for one that is missing or refused, a bad row.

    Lists of labels (multi-label) and numbers with fractions (regression) are refused by name. All are None where there
    is no such column.
    """
    values = table.columns.get(column)
    if values is None:
        return [None] * len(table.numbers)
    labels = [naming.name_of(value) for value in values]
    found = Counter(label for label in labels if label is not None)
    if missing := [row for row, label in enumerate(labels) if label is None]:
        bad.append(_bad(table, missing, f"the label (column {column!r}) is missing: give one or delete the row"))
    refused = []
    if lists := [row for row, value in enumerate(values) if _is_list(value)]:
        bad.append(_bad(table, lists, _multi_label(f"is a list ({shown(values[lists[0]])})")))
        refused += lists
    elif joined := {label for label in found if _joins(label, found)}:
        rows = [row for row, label in enumerate(labels) if label in joined]
        bad.append(_bad(table, rows, _multi_label(f"joins several labels ({labels[rows[0]]!r})")))
        refused += rows
    elif found and all(map(_NUMBER.fullmatch, found)) and any(map(_FRACTION.fullmatch, found)):
        rows = [row for row, label in enumerate(labels) if label is not None and _FRACTION.fullmatch(label)]
        sentence = (
            f"the labels of column {column!r} are numbers with fractions ({labels[rows[0]]}): "
            "that is a regression target, and only classes can be learned; cut it into classes, "
            "or write names (v2.7) if they are names"
        )
        bad.append(replace(_bad(table, rows, sentence), can_be_dropped=False))
        refused += rows
    for row in refused:
        labels[row] = None
    return labels


def _groups(table: Table, column: str | None, bad: list[BadRows]) -> list[str | None]:
    """Each row's group as a name; a row without one is bad, as it could be of any."""
    if column is None or column not in table.columns:
        return [None] * len(table.numbers)
    groups = [naming.name_of(value) for value in table.columns[column]]
    if missing := [row for row, group in enumerate(groups) if group is None]:
        bad.append(_bad(table, missing, f"the group (column {column!r}) is missing: give one or delete the row"))
    return groups


def _bad(table: Table, rows: Sequence[int], sentence: str) -> BadRows:
    return BadRows(tuple(table.numbers[row] for row in rows), f"{table.place(rows)}: {sentence}")


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return distinct labels, sorted: whole numbers by their value, names by their characters.

    >>> in_order(["10", "9", "10"]), in_order(["b", "10", "a"])
    (('9', '10'), ('10', 'a', 'b'))
    """
    names = set(labels)
    numeric = all(re.fullmatch(r"-?\d+", name) and len(name) <= _MAX_DIGITS for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if numeric else (0, name)))


def as_in_rows(labels: Sequence[str], table: Table, column: str) -> tuple[Label, ...]:
    """Return names of labels as the values that a table's rows have: whole numbers and truth values stay what they are.

    They must be that in all rows. In a file that holds nothing but text they are what the names spell.

    >>> cells = ("label",), {"label": ["0", "1"]}, [1, 2]
    >>> as_in_rows(["0", "1"], Table("a.csv", *cells, is_text=True), "label")
    (0, 1)
    >>> as_in_rows(["0", "1"], Table("a.jsonl", *cells), "label")
    ('0', '1')
    """
    found = as_spelt(labels)
    kinds = {bool} if set(map(type, found)) == {bool} else {int, float}
    types = {type(value) for value in table.columns[column] if not naming.is_missing(value)}
    return found if table.is_text or types <= kinds else tuple(labels)


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


def refuse_unknown(rows: Rows, labels: Sequence[str], problems: list[str], column: str = "label") -> None:
    """Add a problem for each label of the rows that is not among `labels`; one alone where they have nothing to do with
    each other."""
    unknown: dict[str, list[int]] = {}
    known = set(labels)
    for row, label in enumerate(rows.labels):
        if label is not None and label not in known:
            unknown.setdefault(label, []).append(row)
    if len(unknown) > _SHOWN_LABELS and not known.intersection(filter(None, rows.labels)):
        problems.append(
            f"{rows.table.origin}: none of the {len(unknown):,} labels of column {column!r} "
            f"({', '.join(map(repr, list(unknown)[:_SHOWN_LABELS]))}, ...) is one that is trained "
            f"({', '.join(labels[:_SHOWN_LABELS])}{', ...' * (len(labels) > _SHOWN_LABELS)}): is it the right column?"
        )
        return
    problems += [
        f"{rows.table.place(found)}: label {label!r} is not one that is trained: {did_you_mean(label, labels)}"
        for label, found in unknown.items()
    ]


def raise_all(problems: Sequence[str]) -> None:
    """Raise a DataError with the problems, each once; nothing if there are none."""
    if problems:
        raise DataError(*dict.fromkeys(problems))


def _keys(data: DataConfig, labelled: bool) -> dict[str, str]:
    """The columns that are needed, each with the setting that names it."""
    keys = dict.fromkeys(text_columns(data), "data.text")
    if data.text_pair is not None:
        keys[data.text_pair] = "data.text_pair"
    if labelled and data.group is not None:
        keys[data.group] = "data.group"
    return keys | ({data.label: "data.label"} if labelled else {})


def text_columns(data: DataConfig) -> tuple[str, ...]:
    """Return the columns that make a text, and a second one."""
    columns = (data.text,) if isinstance(data.text, str) else data.text
    return columns if data.text_pair is None else (*columns, data.text_pair)


def _texts(table: Table, columns: Sequence[str], bad: list[BadRows]) -> list[str]:
    """The columns' joined text of each row, "" where it is empty or no text, which is a bad row.

    All are "" where a column is missing.
    """
    if not all(column in table.columns for column in columns):
        return [""] * len(table.numbers)
    parts = [[_plain(value) for value in table.columns[column]] for column in columns]
    texts = [" ".join(filter(None, row)).strip() for row in zip(*parts, strict=True)]
    name = f"the text (column{'s' if len(columns) > 1 else ''} {', '.join(map(repr, columns))})"
    odd = {row for column in columns for row, value in enumerate(table.columns[column]) if _is_list(value)}
    if odd:
        bad.append(_bad(table, sorted(odd), f"{name} is a list or an object: give plain text"))
    halves = {row for row, text in enumerate(texts) if not naming.is_unicode(text)}
    if halves:
        sentence = f"{name} holds half a surrogate pair, which is no character: repair it"
        bad.append(_bad(table, sorted(halves), sentence))
    unusable = odd | halves
    empty = [row for row, text in enumerate(texts) if not text and row not in unusable]
    if empty:
        bad.append(_bad(table, empty, f"{name} is empty: fill it in or delete the row"))
    return ["" if row in unusable else text for row, text in enumerate(texts)]


def _first_chars(table: Table, columns: Sequence[str], texts: Sequence[str]) -> list[int]:
    if len(columns) == 1 or not any(texts):
        return [0] * len(texts)
    lengths = [len(_plain(value).lstrip()) for value in table.columns[columns[0]]]
    return [n + 1 if 0 < n < len(text.rstrip()) else 0 for n, text in zip(lengths, texts, strict=True)]


def _plain(value: Any) -> str:
    """A cell as text: "" if there is none."""
    text = "" if naming.is_missing(value) else str(value)
    return "" if text.isspace() else text


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | dict)


def _joins(label: str, found: Counter[str]) -> bool:
    """Whether a label is written like a list, or as others with a separator between them."""
    if _LIST.fullmatch(label):
        return True
    pieces = ([piece.strip() for piece in label.split(mark)] for mark in _SEPARATORS if mark in label)
    return any(all(piece in found for piece in parts) for parts in pieces)


def _multi_label(found: str) -> str:
    return f"the label {found}: that is multi-label classification, and a row has one class here"

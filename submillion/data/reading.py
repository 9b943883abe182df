"""Tables become examples: columns joined, labels named, every unusable row reported.

Owns what a column means. Which file is read is left to `sources`, how to `tables`, and whether
examples make a fit training set to `checking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from submillion.config import DataConfig
from submillion.data import naming
from submillion.data.columns import Advice, missing_columns
from submillion.data.labels import RowLabel, columns, labels_of, named, names_in
from submillion.data.tables import BadRows, Layout, Table
from submillion.errors import DataError
from submillion.text import did_you_mean

_SHOWN_LABELS = 5


@dataclass(frozen=True)
class Example:
    """A row: its id, its text, its label (several are a tuple of names, empty if none applies; None if labels are not
    read), the second text of a pair.

    first_chars: characters of the text that came from the first of several columns, the blank after it included;
    0 if there is one column, or the first or all others are empty · group: rows of one are never in two splits
    (`data.group`); None if rows have no groups.
    """

    id: str
    text: str
    label: RowLabel | None
    text_pair: str | None = None
    first_chars: int = 0
    group: str | None = None


@dataclass(frozen=True)
class Rows:
    """The usable rows of a table; `rows` are their indices in it.

    labels: of every row of the table, usable or not; None if it is missing, refused or not read · dropped: the
    rows that `data.drop` leaves out, and why.
    """

    table: Table
    examples: list[Example]
    rows: list[int]
    labels: list[RowLabel | None]
    dropped: tuple[BadRows, ...] = ()

    @property
    def n_dropped(self) -> int:
        """Return how many rows of the source were left out."""
        return len({number for each in self.dropped for number in each.numbers})


def wanted_columns(data: DataConfig, labelled: bool = True) -> set[str]:
    """Return the names of the columns that the settings name, and those that may hold ids."""
    others = {*columns(data), data.group, data.split} - {None} if labelled else set()
    return {*text_columns(data), *naming.ID_COLUMNS, *map(str, others)}


def layout_of(data: DataConfig, labelled: bool = True) -> Layout:
    """Return the layout of text files that the settings give."""
    return Layout(data.encoding, data.separator, data.header, columns(data)[0] if labelled else None)


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
    read and labels are None. `ids` are each row's, if the caller has them; else the table's own. `advice` as in
    `missing_columns`.
    """
    bad = list(table.bad)
    missing = missing_columns(table, _keys(data, labelled), advice)
    parts = (data.text,) if isinstance(data.text, str) else data.text
    texts = _texts(table, parts, bad)
    pairs = [None] * len(texts) if data.text_pair is None else _texts(table, (data.text_pair,), bad)
    labels: list[RowLabel | None] = [None] * len(texts)
    if labelled:
        labels = labels_of(table, data, bad, is_run=advice == "run")
    groups = _groups(table, data.group, [] if advice == "run" else bad) if labelled else [None] * len(texts)
    if "bad-rows" in data.drop and not missing and any(each.can_be_dropped for each in bad):
        return _without_bad_rows(table, bad, data, problems, labelled, ids)
    problems += missing
    if not (missing and sum(len(each.numbers) for each in table.bad) > len(table.numbers)):  # because of a wrong header
        problems += [each.sentence for each in bad]
    if not table.numbers and not bad:
        problems.append(f"{table.origin} has no rows")
    ids = naming.ids_of(table, [] if labelled else problems) if ids is None else ids
    usable = [
        row
        for row, text in enumerate(texts)
        if text and (pairs[row] or data.text_pair is None) and (labels[row] is not None or not labelled)
    ]
    firsts = _first_chars(table, parts, texts)
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
    """Return the rows without those that can be dropped; a problem if none is left."""
    dropped = tuple(each for each in bad if each.can_be_dropped)
    numbers = {number for each in dropped for number in each.numbers}
    rest = replace(table, bad=()).without(numbers)
    if not rest.numbers:
        problems += [f"{each.sentence}; data.drop leaves no row" for each in dropped]
    kept = (
        None if ids is None else [row for row, number in zip(ids, table.numbers, strict=True) if number not in numbers]
    )
    reported = problems if rest.numbers else []
    rows = examples_of(rest, data, reported, labelled, kept)
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


def _groups(table: Table, column: str | None, bad: list[BadRows]) -> list[str | None]:
    """Each row's group as a name; a row without one is bad, as it could be of any."""
    if column is None or column not in table.columns:
        return [None] * len(table.numbers)
    groups = [naming.name_of(value) for value in table.columns[column]]
    if missing := [row for row, group in enumerate(groups) if group is None]:
        bad.append(table.faulty(missing, f"the group (column {column!r}) is missing: give one or delete the row"))
    return groups


def refuse_unknown(rows: Rows, labels: Sequence[str], problems: list[str], data: DataConfig) -> None:
    """Add a problem for each label of the rows that is not among `labels`; a single one if they have nothing in
    common."""
    unknown: dict[str, list[int]] = {}
    known = set(labels)
    row_names = [names_in(label) for label in rows.labels]
    for row, names in enumerate(row_names):
        for name in names:
            if name not in known:
                unknown.setdefault(name, []).append(row)
    if len(unknown) > _SHOWN_LABELS and known.isdisjoint(name for names in row_names for name in names):
        problems.append(
            f"{rows.table.origin}: none of the {len(unknown):,} labels of {named(data)} "
            f"({', '.join(map(repr, list(unknown)[:_SHOWN_LABELS]))}, ...) is a training label "
            f"({', '.join(labels[:_SHOWN_LABELS])}{', ...' * (len(labels) > _SHOWN_LABELS)}): is it the right column?"
        )
        return
    problems += [
        f"{rows.table.place(where)}: label {label!r} is not a training label: {did_you_mean(label, labels)}"
        for label, where in unknown.items()
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
    return keys | (dict.fromkeys(columns(data), "data.label") if labelled else {})


def text_columns(data: DataConfig) -> tuple[str, ...]:
    """Return the columns that make a text, and a second one."""
    names = (data.text,) if isinstance(data.text, str) else data.text
    return names if data.text_pair is None else (*names, data.text_pair)


def _texts(table: Table, columns: Sequence[str], bad: list[BadRows]) -> list[str]:
    """Return each row's text, its columns joined; "" if it is empty or not text, which is a bad row.

    All are "" if a column is missing.
    """
    if not all(column in table.columns for column in columns):
        return [""] * len(table.numbers)
    parts = [[_plain(value) for value in table.columns[column]] for column in columns]
    texts = [" ".join(filter(None, row)).strip() for row in zip(*parts, strict=True)]
    name = f"the text (column{'s' if len(columns) > 1 else ''} {', '.join(map(repr, columns))})"
    odd = {row for column in columns for row, value in enumerate(table.columns[column]) if _is_list(value)}
    if odd:
        bad.append(table.faulty(sorted(odd), f"{name} is a list or an object: give plain text"))
    halves = {row for row, text in enumerate(texts) if not naming.is_unicode(text)}
    if halves:
        sentence = f"{name} holds half a surrogate pair, which is not a character: repair it"
        bad.append(table.faulty(sorted(halves), sentence))
    unusable = odd | halves
    empty = [row for row, text in enumerate(texts) if not text and row not in unusable]
    if empty:
        bad.append(table.faulty(empty, f"{name} is empty: fill it in or delete the row"))
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

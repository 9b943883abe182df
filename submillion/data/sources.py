"""What a source's name means: a file, a folder, packaged data or a Hub data set, opened as tables."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from submillion import hub
from submillion.config import DataConfig
from submillion.data import folders
from submillion.data.columns import missing_columns
from submillion.data.formats import read_table
from submillion.data.hub import download_set, hub_tables, labelled_tables
from submillion.data.kinds import REFUSED_SUFFIXES, SUFFIXES, parted, refuse, suffix_of
from submillion.data.labels import columns, named
from submillion.data.naming import ID_COLUMNS, is_missing
from submillion.data.packaged import PREFIX, packaged
from submillion.data.reading import layout_of, text_columns, wanted_columns
from submillion.data.tables import Table, joined
from submillion.errors import DataError, HubError, command
from submillion.hub.answers import name_in
from submillion.text import plural, shown

Kind = Literal["packaged", "folder", "file", "hub", "memory"]
MEMORY = "<memory>"  # the source of rows that were given to `submillion.train` itself
SPLITS = ("train", "validation", "test")
_EMPTY = "data.source is empty: give the training rows, with --data or --set data.source=rows.csv"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def kind_of(source: str) -> Kind:
    """Return what a source is; what could be a Hub name and is not on the disk is one. DataError for a URL.

    >>> kind_of("packaged:tweets"), kind_of("rows.csv"), kind_of("fancyzhx/ag_news"), kind_of("./rows")
    ('packaged', 'file', 'hub', 'file')
    """
    if source.startswith(PREFIX):
        return "packaged"
    if source == MEMORY:
        return "memory"
    if "://" in source:
        if (name := name_in(source)) is not None:
            raise DataError(f"{source} is an address of the Hub: give organisation/name: {name}")
        raise DataError(f"{source} is a URL, but rows are read from files: download it, and give the file")
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):  # unlike Path.is_dir, it returns False for a name that is too long
        return "folder"
    is_file = is_named_like_a_file(path) or os.path.isfile(path) or not _HUB_NAME.fullmatch(source)
    return "file" if is_file else "hub"


def pinned(data: DataConfig, say: Callable[[str], object] = lambda _: None) -> DataConfig:
    """Return the settings with the id and the commit that the name and the revision of a Hub set mean now.

    One request, none if both are given already; `say` is called if the cache answers instead. Other sources come back
    unchanged; DataError if they have a revision or a configuration, HubError if there is no such set.
    """
    refuse_hub_keys(data)
    if not is_on_hub(data) or (hub.is_commit(data.revision) and "/" in str(data.source)):
        return data
    source = str(data.source)
    repository = hub.resolve(source, "dataset", data.revision)
    if repository.note is not None:
        say(repository.note)
    if "/" not in repository.id:
        raise DataError(f"data.source is {source}: on the Hub it has no owner, and `datasets` reads no such set")
    return data.model_copy(update={"source": repository.id, "revision": repository.commit})


def download(data: DataConfig, watch: Callable[[hub.Download], object]) -> None:
    """Download a pinned Hub set if it is not on this disk, reporting to `watch`; errors are those of reading it."""
    if is_on_hub(data):
        download_set(data, watch)


def refuse_missing(data: DataConfig) -> None:
    """Raise a DataError if the source is empty, a URL, or a file that is not there or of a kind that is not read."""
    if not data.source:
        raise DataError(_EMPTY)
    if kind_of(str(data.source)) == "file":
        refuse(Path(os.path.expanduser(str(data.source))))


def is_on_hub(data: DataConfig) -> bool:
    """Say whether the source is a data set of the Hub."""
    return bool(data.source) and kind_of(str(data.source)) == "hub"


def refuse_hub_keys(data: DataConfig) -> None:
    """Raise a DataError for settings that only a Hub set can have, if the source is not one."""
    problems = [
        f"data.{key} is {shown(value)}, but data.source is {data.source}: only Hub sets have one; set it to null"
        for key in ("revision", "config")
        if (value := getattr(data, key)) is not None and data.source and not is_on_hub(data)
    ]
    if problems:
        raise DataError(*problems)


def is_named_like_a_file(path: Path) -> bool:
    """Say whether a name ends like those of files of rows, of kinds that are read or refused."""
    return suffix_of(path) in (*SUFFIXES, *REFUSED_SUFFIXES)


def open_source(
    data: DataConfig, problems: list[str], warnings: list[str], given: Mapping[str, Table] | None = None
) -> dict[str, Table]:
    """Return the tables of the splits that are in files or in the source: train, validation, test.

    Files named by data.validation and data.test take precedence over the source's own splits; data.test, if not
    null, always does. `given` are splits of rows in memory, which precede both. What cannot be read is added to
    `problems` and left out, each split by itself.
    """
    tables = labelled_tables(given or {}, data, warnings)
    files = {
        split: file
        for split in ("validation", "test")
        if isinstance(file := getattr(data, split), str) and split not in tables
    }
    own_splits = [split for split in SPLITS if split not in files and (split != "test" or data.test is None)]
    if given is None and not data.source:
        problems.append(_EMPTY)
    elif given is None:
        with _added_to(problems):
            tables = _own_splits(data, own_splits, problems, warnings)
    if data.split is not None and "train" in tables:
        with _added_to(problems):
            tables = _by_column(tables, data.split)
            _leave_out_unlabelled_test(tables, data, warnings)
    for split, file in files.items():
        with _added_to(problems):
            table = one_table(file, data)
            if reason := _no_labels(table, tables.get("train"), data):
                problems.append(_unlabelled(split, table, reason, data))
            else:
                tables[split] = table
    return tables


def _unlabelled(split: str, table: Table, reason: str, data: DataConfig) -> str:
    """Return the problem of a file that is named as a split and has no labels."""
    wanted = columns(data)
    others = [name for name in table.names if name not in (*text_columns(data), *ID_COLUMNS, *wanted)]
    elsewhere = f"; if its labels are in {' or '.join(map(repr, others[:3]))}, call that column {wanted[0]!r}"
    typed = command("predict", "RUN", "--input", table.origin)
    return (
        f"data.{split} is {table.origin}, which {reason}, and a {split} split is scored by its labels: if these are "
        f"rows to predict, leave data.{split} out, and give them to `{typed}` "
        f"afterwards{elsewhere if others and len(wanted) == 1 else '; else write the labels into it'}"
    )


@contextmanager
def _added_to(problems: list[str]) -> Iterator[None]:
    """Add the problems of an error inside to `problems`, and continue after the block."""
    try:
        yield
    except (DataError, HubError) as error:
        problems += error.problems


def one_table(source: str, data: DataConfig, labelled: bool = True, more: Collection[str] = ()) -> Table:
    """Return the table of a source that is one split, a file or packaged data, read as the settings say.

    `more` are columns that are read besides theirs.
    """
    match kind_of(source):
        case "packaged":
            return packaged(source)
        case "folder":
            raise DataError(f"{source} is a folder: give one file of it")
        case "hub":
            raise DataError(f"{source}: no such file; give a file, or packaged:NAME")
        case "memory":
            raise DataError(
                f"{MEMORY}: these rows were given to submillion.train in Python and are not stored: give them again, "
                "train(config, rows), or give a file"
            )
        case _:
            path = Path(os.path.expanduser(source))
            return read_table(path, wanted_columns(data, labelled) | {*more}, layout_of(data, labelled))


def stamp(data: DataConfig) -> tuple[tuple[str, int, int], ...]:
    """Return path, size and time of change (ns) of each local file that may hold rows: equal stamps, equal rows."""
    names = [data.source, *(source for source in (data.validation, data.test) if isinstance(source, str)), *data.more]
    paths = [parted(Path(os.path.expanduser(source)))[0] for source in names if source]
    files = [file for path in paths for file in (_files_of(path) if path.is_dir() else [path]) if file.is_file()]
    return tuple((str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _files_of(path: Path) -> list[Path]:
    """Return the files of a folder that may hold rows; if it has no readable splits, all in it."""
    try:
        folder = folders.opened(path)
    except DataError:
        return sorted(path.iterdir())
    return [*(file for files in folder.splits.values() for file in files), *folder.left_over]


def train_table(data: DataConfig, wanted: Collection[str]) -> Table:
    """Return the table of the training rows of a local file, folder or packaged data, with the `wanted` columns."""
    path, layout = Path(os.path.expanduser(str(data.source))), layout_of(data)
    match kind_of(str(data.source)):
        case "packaged":
            return packaged(str(data.source))
        case "folder":
            files = folders.train_files(folders.opened(path))
            return joined(_origin(files), [read_table(file, wanted, layout) for file in files])
        case _:
            return read_table(path, wanted, layout)


def _own_splits(
    data: DataConfig, splits: Collection[str], problems: list[str], warnings: list[str]
) -> dict[str, Table]:
    """The tables of these splits that the source has."""
    source = str(data.source)
    match kind_of(source):
        case "hub":
            return hub_tables(data, wanted_columns(data), splits, warnings)
        case "folder":
            return _folder_tables(data, splits, problems, warnings)
        case _:
            return {"train": one_table(source, data)}


def _folder_tables(
    data: DataConfig, splits: Collection[str], problems: list[str], warnings: list[str]
) -> dict[str, Table]:
    folder = folders.opened(Path(os.path.expanduser(str(data.source))))
    tables: dict[str, Table] = {}
    for split in splits:
        with _added_to(problems):
            files = folders.train_files(folder) if split == "train" else folder.splits.get(split, ())
            parts = [read_table(file, wanted_columns(data), layout_of(data)) for file in files]
            if parts:
                tables[split] = joined(_origin(files), parts)
    if "train" in folder.splits:
        warnings += folder.notes(splits)
    _leave_out_unlabelled_test(tables, data, warnings)
    return tables


def _leave_out_unlabelled_test(tables: dict[str, Table], data: DataConfig, warnings: list[str]) -> None:
    if "test" in tables and (reason := _no_labels(tables["test"], tables.get("train"), data)):
        warnings.append(
            f"{tables['test'].origin} {reason}: it is taken as rows to predict (submillion predict --input), "
            "not as a test split; data.test=0.1 takes one from the training rows"
        )
        del tables["test"]


def _by_column(tables: Mapping[str, Table], column: str) -> dict[str, Table]:
    """Return the splits that a column of one table names; DataError if it names another, or none is train."""
    whole = tables["train"]
    if missing := missing_columns(whole, {column: "data.split"}):
        raise DataError(*missing)
    if len(tables) > 1:
        raise DataError(
            f"data.split is {column!r}, and the source has the splits {', '.join(tables)} already: leave data.split "
            "out, or give one file"
        )
    values = ["" if is_missing(cell) else str(cell).strip() for cell in whole.columns[column]]
    splits = [folders.SPLIT_OF.get(value.casefold()) for value in values]
    if unknown := Counter(value for value, split in zip(values, splits, strict=True) if split is None):
        counts = [
            f"{shown(value) if value else 'empty'} in {n:,} {plural(n, 'row')}" for value, n in unknown.most_common(5)
        ]
        more = f" and {len(unknown) - 5:,} other values" * (len(unknown) > 5)
        raise DataError(
            f"{whole.origin}: column {column!r} (data.split) is {', '.join(counts)}{more}: allowed are "
            f"{', '.join(folders.SPLIT_OF)}"
        )
    numbers = {split: [n for n, own in zip(whole.numbers, splits, strict=True) if own != split] for split in SPLITS}
    parts = {split: whole.without({*others}) for split, others in numbers.items() if split in splits}
    if "train" not in parts:
        raise DataError(f"{whole.origin}: no row is train according to column {column!r} (data.split)")
    # Rows that could not be read are reported once; they may be of any split.
    return {
        split: replace(part, origin=f"{part.origin} ({split})", bad=part.bad if split == "train" else ())
        for split, part in parts.items()
    }


def _origin(files: Sequence[Path]) -> str:
    return f"{files[0]}{f' and {len(files) - 1:,} more' * (len(files) > 1)}"


def _no_labels(table: Table, train: Table | None, data: DataConfig) -> str:
    """Return why a table has texts but no labels, unlike train; "" if it has labels, or train has none either."""
    if not {*columns(data)}.issubset(table.names):
        is_label = train is not None and bool({*train.names} - {*table.names})
        has_texts = {*text_columns(data)}.issubset(table.names)
        return f"has no {named(data)}" if is_label and has_texts else ""
    cells = [cell for name in columns(data) for cell in table.columns[name]]
    is_empty = bool(cells) and all(is_missing(cell) or not str(cell).strip() for cell in cells)
    return f"has no label in its {named(data)}" if is_empty else ""

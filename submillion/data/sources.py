"""What a source's name means: a file, a folder, packaged data or a Hub data set, opened as tables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from submillion import hub
from submillion.config import DataConfig
from submillion.data.files import REFUSED_SUFFIXES, SUFFIXES, suffix_of
from submillion.data.hub import download_set, hub_tables, labelled_tables
from submillion.data.packaged import PREFIX, packaged
from submillion.data.reading import wanted_columns
from submillion.data.tables import Table, read_table
from submillion.errors import DataError, HubError
from submillion.hub.answers import name_in
from submillion.text import shown

Kind = Literal["packaged", "folder", "file", "hub", "memory"]
MEMORY = "<memory>"  # the source of rows that were given to `submillion.train` itself
SPLITS = ("train", "validation", "test")
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
        raise DataError(f"{source} is a URL, and rows are read from files: download it, and give the file")
    path = Path(os.path.expanduser(source))
    if os.path.isdir(path):  # unlike Path's own, it says no of a name that is too long for one
        return "folder"
    is_file = is_named_like_a_file(path) or os.path.isfile(path) or not _HUB_NAME.fullmatch(source)
    return "file" if is_file else "hub"


def pinned(data: DataConfig, say: Callable[[str], object] = lambda _: None) -> DataConfig:
    """Return the settings with the id and the commit that the name and the revision of a Hub set mean now.

    One request, none where both are given already; `say` is told where the cache answers instead. Other sources come
    back as they are; DataError if they have a revision or a configuration, HubError if there is no such set.
    """
    refuse_hub_keys(data)
    if not is_on_hub(data) or (hub.is_commit(data.revision) and "/" in str(data.source)):
        return data
    source = str(data.source)
    repository = hub.resolve(source, "dataset", data.revision)
    if repository.note is not None:
        say(repository.note)
    if "/" not in repository.id:
        raise DataError(f"data.source is {source}: on the Hub it belongs to nobody, and `datasets` reads no such set")
    return data.model_copy(update={"source": repository.id, "revision": repository.commit})


def download(data: DataConfig, watch: Callable[[hub.Download], object]) -> None:
    """Bring a pinned Hub set to this disk, before `watch`, where it is not there; the same errors as reading it."""
    if is_on_hub(data):
        download_set(data, watch)


def is_on_hub(data: DataConfig) -> bool:
    """Say whether the source is a data set of the Hub."""
    return bool(data.source) and kind_of(str(data.source)) == "hub"


def refuse_hub_keys(data: DataConfig) -> None:
    """Raise a DataError for settings that only a Hub set can have, where the source is not one."""
    problems = [
        f"data.{key} is {shown(value)}, but data.source is {data.source}: only sets of the Hub have one; set it to null"
        for key in ("revision", "config")
        if (value := getattr(data, key)) is not None and data.source and not is_on_hub(data)
    ]
    if problems:
        raise DataError(*problems)


def is_named_like_a_file(path: Path) -> bool:
    """Say whether a name ends as those of files that hold rows do, of kinds that are read or refused."""
    return suffix_of(path) in (*SUFFIXES, *REFUSED_SUFFIXES)


def open_source(
    data: DataConfig, problems: list[str], warnings: list[str], given: Mapping[str, Table] | None = None
) -> dict[str, Table]:
    """Return the tables of the splits that are in files or in the source: train, validation, test.

    Files named by data.validation and data.test go before the source's own splits; data.test, when it is not
    null, always does. `given` are splits of rows in memory, which go before both. What cannot be read is added to
    `problems` and left out, each split by itself.
    """
    tables = labelled_tables(given or {}, data, warnings)
    named = {
        split: file
        for split in ("validation", "test")
        if isinstance(file := getattr(data, split), str) and split not in tables
    }
    own = [split for split in SPLITS if split not in named and (split != "test" or data.test is None)]
    if given is None and not data.source:
        problems.append("data.source is empty: give the training rows, with --data or --set data.source=rows.csv")
    elif given is None:
        with _added_to(problems):
            tables = _own_splits(data, own, problems, warnings)
    for split, file in named.items():
        with _added_to(problems):
            tables[split] = one_table(file, wanted_columns(data))
    return tables


@contextmanager
def _added_to(problems: list[str]) -> Iterator[None]:
    """Add the problems of an error inside to `problems`, and go on after the block."""
    try:
        yield
    except (DataError, HubError) as error:
        problems += error.problems


def one_table(source: str, wanted: Collection[str]) -> Table:
    """Return the table of a source that is one split: a file or packaged data."""
    match kind_of(source):
        case "packaged":
            return packaged(source)
        case "folder":
            raise DataError(f"{source} is a folder: give one file of it")
        case "hub":
            raise DataError(f"{source}: no such file; give a file, or packaged:NAME")
        case "memory":
            raise DataError(
                f"{MEMORY}: these rows were given to submillion.train in Python and are kept nowhere: give them again, "
                "train(config, rows), or give a file"
            )
        case _:
            return read_table(Path(os.path.expanduser(source)), wanted)


def stamp(data: DataConfig) -> tuple[tuple[str, int, int], ...]:
    """Return path, size and time of change (ns) of each local file that may hold rows: equal stamps, equal rows."""
    named = [data.source, *(source for source in (data.validation, data.test) if isinstance(source, str))]
    paths = [Path(os.path.expanduser(source)) for source in named if source]
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path]) if file.is_file()]
    return tuple((str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def train_file(folder: Path) -> Path:
    """Return the training file of a folder; DataError if there is none, or several."""
    return _file_of(folder, "train") or _no_train_file(folder)


def _own_splits(
    data: DataConfig, splits: Collection[str], problems: list[str], warnings: list[str]
) -> dict[str, Table]:
    """The tables of these splits that the source has."""
    source, wanted = str(data.source), wanted_columns(data)
    match kind_of(source):
        case "hub":
            return hub_tables(data, wanted, splits, warnings)
        case "folder":
            return _folder_tables(Path(os.path.expanduser(source)), wanted, splits, problems)
        case _:
            return {"train": one_table(source, wanted)}


def _folder_tables(
    folder: Path, wanted: Collection[str], splits: Collection[str], problems: list[str]
) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for split in splits:
        with _added_to(problems):
            file = train_file(folder) if split == "train" else _file_of(folder, split)
            if file is not None:
                tables[split] = read_table(file, wanted)
    return tables


def _file_of(folder: Path, split: str) -> Path | None:
    found = sorted(file for file in folder.iterdir() if file.name.partition(".")[0] == split and file.is_file())
    readable = [file for file in found if suffix_of(file) in SUFFIXES]
    if len(readable) > 1:
        raise DataError(
            f"{folder} holds {', '.join(file.name for file in readable)}: keep one, or name one by its path"
        )
    # A file in another format is handed on, so that its refusal says why.
    return (readable or found or [None])[0]


def _no_train_file(folder: Path) -> Path:
    names = sorted(file.name for file in folder.iterdir())
    inside = f"it holds {', '.join(names[:8])}{' and more' if len(names) > 8 else ''}" if names else "it is empty"
    raise DataError(f"{folder} holds no train file ({' or '.join(f'train{suffix}' for suffix in SUFFIXES)}): {inside}")

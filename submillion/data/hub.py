"""Data sets of the Hugging Face Hub, through the `datasets` package (extra `submillion[hub]`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from submillion.data.tables import Table, table_of
from submillion.errors import DataError


def hub_tables(name: str, wanted: Collection[str]) -> dict[str, Table]:
    """Return the tables of a Hub data set's train, validation and test splits, those that it has.

    Numbered labels with names (ClassLabel) become the names, -1 becomes missing. A copy in the local
    cache is used where there is no network. DataError if `datasets` is not installed or the set cannot be had.
    """
    splits = _load(name)
    if "train" not in splits:
        raise DataError(f"{name} on the Hub has no train split; it has {', '.join(map(str, splits))}")
    return {
        split: _table(f"{name} ({split})", splits[split], wanted)
        for split in ("train", "validation", "test")
        if split in splits
    }


def _load(name: str) -> Any:
    try:
        from datasets import load_dataset
    except ImportError:
        raise DataError(
            f"{name} is no local file or folder, and reading it from the Hub needs `datasets`: "
            "pip install 'submillion[hub]'"
        ) from None
    try:
        return load_dataset(name)
    except Exception as error:  # its errors share no class: HTTP, connection, missing script, config and file errors
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"{name} is no local file or folder, and the Hub gave no such data set ({reason}): check the name and the "
            "network, or give the rows as a .parquet, .csv or .jsonl file"
        ) from None


def _table(origin: str, dataset: Any, wanted: Collection[str]) -> Table:
    names = [name for name in dataset.column_names if name in wanted]
    columns = dataset.select_columns(names).with_format(None).to_dict() if names else {}
    class_names = None
    for name in names:
        of_classes = getattr(dataset.features[name], "names", None)
        if of_classes is not None:
            class_names = tuple(of_classes)
            columns[name] = [None if i is None or i < 0 else class_names[i] for i in columns[name]]
    table = table_of(origin, columns, class_names)
    return Table(origin, tuple(dataset.column_names), columns, table.numbers, class_names=class_names)

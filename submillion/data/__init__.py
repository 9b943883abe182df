"""Rows in, checked splits out.

The order of the steps: open the source, make examples, check them, split, seal with a fingerprint. Each
step is a module of this folder; everything that is wrong is raised together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numpy as np

from submillion.config import DataConfig, fold_of
from submillion.data import checking, filled, memory, naming, packaged, reading, repeats, sources, splitting, tokens
from submillion.data.checking import Census
from submillion.data.columns import Advice, missing_columns
from submillion.data.duplicates import key_of
from submillion.data.labels import Label, RowLabel, as_in_rows, as_spelt, counted, in_order, labels_of
from submillion.data.labels import columns as label_columns
from submillion.data.labels import note as labels_note
from submillion.data.labels import resolved as with_labels
from submillion.data.long_texts import Reading
from submillion.data.reading import Example, Rows
from submillion.data.sources import download, pinned
from submillion.data.spellings import spelling_warnings
from submillion.data.splitting import content_fingerprint as fingerprint
from submillion.data.splitting import groups_of, text_hashes
from submillion.data.tables import Table
from submillion.errors import DataError

__all__ = [
    "Census",
    "Example",
    "Label",
    "RowLabel",
    "Splits",
    "Survey",
    "count_classes",
    "download",
    "expected_classes",
    "fingerprint",
    "groups_of",
    "pinned",
    "read",
    "read_rows",
    "read_unlabelled",
    "survey",
    "text_hashes",
]

_ASSUMED_CLASSES = 4


@dataclass(frozen=True)
class Splits:
    """The rows of a run. test may be empty; labels are names, in the order of their ids.

    classes: the labels as the rows have them, such as 0 if the name is "0" · fingerprint: of everything, order
    included · test_fingerprint: of the test rows' content alone, the same wherever they come from, None without test
    rows · warnings: sentences to print · n_dropped: rows of each split's source that `data.drop` left out
    · settings: the data's, with `labels` and `label_separator` as the rows have them; null if they have one label
    · n_more: how many of the training rows, the last ones, are from `data.more`.
    """

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    labels: tuple[str, ...]
    classes: tuple[Label, ...]
    fingerprint: str
    test_fingerprint: str | None
    warnings: tuple[str, ...]
    n_dropped: Mapping[str, int] = field(default_factory=dict)
    settings: DataConfig = field(default_factory=DataConfig)
    n_more: int = 0

    @property
    def has_several(self) -> bool:
        """Say whether rows have several labels."""
        return self.settings.labels == "several"

    @property
    def key(self) -> str:
        """Return a run's address: the fingerprint, and the labels' type if their names look like another type.

        So folders older than that type are found, and rows of "0" and "1" are not answered with numbers.
        """
        return self.fingerprint if self.classes == as_spelt(self.labels) else f"{self.fingerprint} as text"

    def summary(self) -> dict[str, Any]:
        """Return what `data.json` holds: rows and classes of each split, fingerprints, warnings; no text."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        counts = {name: counted(example.label for example in examples) for name, examples in splits.items()}
        return {
            "labels": list(self.labels),
            "rows": {name: len(examples) for name, examples in splits.items()},
            "classes": {name: {label: count[label] for label in self.labels} for name, count in counts.items()},
            "dropped": dict(self.n_dropped),
            "fingerprint": self.fingerprint,
            "validation_fingerprint": fingerprint(self.validation),
            "test_fingerprint": self.test_fingerprint,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Survey:
    """What `data check` found: a census of each split that is in a file, problems, warnings."""

    censuses: dict[str, Census]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def read(data: DataConfig, given: Mapping[str, Table] | None = None) -> Splits:
    """Return the checked splits of the settings; one DataError lists everything that is wrong.

    `given` are tables of rows in memory (`memory.splits`), used instead of data.source. The last splits that were read
    stay in memory, for the next trial of a study: callers must not change them. A Hub set is pinned first; HubError
    says why it cannot be fetched.
    """
    if given is not None:
        return _made(data, given)
    data = pinned(data)
    return _read(data.model_dump_json(), sources.stamp(data))


@lru_cache(maxsize=1)
def _read(settings: str, _stamp: tuple[tuple[str, int, int], ...]) -> Splits:
    return _made(DataConfig.model_validate_json(settings))


def _made(data: DataConfig, given: Mapping[str, Table] | None = None) -> Splits:
    data, parts, labels, problems, warnings = _checked(data, given)
    reading.raise_all(problems)
    splits = _split(data, {name: rows.examples for name, rows in parts.items()}, warnings)
    splits["train"] = [*splits["train"], *(more := filled.added(data, splits, labels, warnings))]
    warnings += checking.lost_classes(splits, labels)
    warnings += repeats.near_warnings(splits)
    return Splits(
        **splits,
        labels=labels,
        classes=as_in_rows(labels, parts["train"].table, data.label),
        settings=data,
        fingerprint=splitting.fingerprint(splits),
        test_fingerprint=fingerprint(splits["test"]) if splits["test"] else None,
        warnings=tuple(warnings),
        n_dropped={name: rows.n_dropped for name, rows in parts.items() if rows.n_dropped},
        n_more=len(more),
    )


def read_rows(
    source: object,
    data: DataConfig,
    labels: Sequence[str] | None = None,
    warnings: list[str] | None = None,
    id_column: str | None = None,
) -> list[Example]:
    """Return the rows of a file, of packaged data or in memory (`memory.opened`), by the settings' columns.

    With `labels` each row must have one of them; without, the label column is not read and labels
    are None. id_column: the column of the rows' ids, if not `id`. What `data.drop` leaves out, and how a file was
    read, is added to `warnings`. DataError lists everything that is wrong.
    """
    problems: list[str] = []
    data = data.model_copy(update={"split": None})  # these rows are not split
    table, columns = memory.opened(source, data, labels is not None, () if id_column is None else (id_column,))
    if data.group not in table.names:
        columns = columns.model_copy(update={"group": None})
    ids = None if id_column is None else naming.ids_in(table, id_column, problems)
    rows = reading.examples_of(table, columns, problems, labelled=labels is not None, ids=ids, advice="run")
    if labels is not None and "rare-classes" in data.drop:
        unknown = {*counted(rows.labels)} - {*labels}
        rows = checking.without_classes(rows, unknown, "no place here: the run was not trained on it")
        problems += [f"{table.origin}: no row is left"] * (not rows.examples and not problems)
    if labels is not None:
        reading.refuse_unknown(rows, labels, problems, data)
    reading.raise_all(problems)
    if warnings is not None:
        warnings += [*table.notes, *reading.dropped_warning(rows)]
    return rows.examples


def read_unlabelled(source: object, data: DataConfig) -> tuple[list[Example], bool]:
    """Return the rows of a file, of packaged data or in memory without labels, and whether they have label columns.

    These are not read. No row is left out, whatever `data.drop` says. DataError lists everything that is wrong.
    """
    problems: list[str] = []
    table, columns = memory.opened(source, data.model_copy(update={"drop": ()}), labelled=False)
    rows = reading.examples_of(table, columns, problems, labelled=False, advice="run")
    reading.raise_all(problems)
    return rows.examples, {*label_columns(data)}.issubset(table.names)


def expected_classes(data: DataConfig, n_classes: int | None = None) -> tuple[int, str]:
    """Return the number of classes that a plan is made for, and its origin in words: n_classes if given, else counted
    in the data, else assumed, as for data on the Hub, which is not queried."""
    if n_classes is not None:
        return n_classes, f"{n_classes} classes"
    if not data.source:
        return _ASSUMED_CLASSES, f"{_ASSUMED_CLASSES} classes assumed (--classes N, or --data FILE to count them)"
    if (n_counted := count_classes(data)) is not None:
        return n_counted, f"{n_counted} classes in {data.source}"
    return _ASSUMED_CLASSES, (
        f"{_ASSUMED_CLASSES} classes assumed (plan does not ask the Hub about {data.source}: --classes N)"
    )


def count_classes(data: DataConfig) -> int | None:
    """Return the number of classes of a local file or folder or of packaged data; None if that needs the network.

    Only labels are read, unless rows are left out. DataError if they cannot be.
    """
    if not data.source:
        return None
    sources.refuse_hub_keys(data)
    match sources.kind_of(data.source):
        case "hub" | "memory":
            return None
        case "packaged":
            packaged.check_name(data.source)
            return len(packaged.CLASSES)
    if data.drop:
        _, _, labels, problems, _ = _checked(data)
        reading.raise_all(problems)
        return len(labels)
    wanted = label_columns(data)
    table = sources.train_table(data, {*wanted})
    if missing := missing_columns(table, dict.fromkeys(wanted, "data.label")):
        raise DataError(*missing)
    bad = list(table.bad)
    classes = counted(labels_of(table, with_labels(table, data), bad))
    reading.raise_all([each.sentence for each in bad])
    return len(classes)


def survey(data: DataConfig, how: Reading, tokenizer: Any = None) -> Survey:
    """Return the censuses, problems and warnings of everything the settings name, without splitting it; `how` texts are
    read.

    HubError says why a Hub set cannot be fetched.
    """
    _, parts, _, problems, warnings = _checked(pinned(data))
    examples = {name: rows.examples for name, rows in parts.items()}
    warnings += repeats.near_warnings(examples)
    lengths: dict[str, np.ndarray] = {}
    if tokenizer is not None:
        tokenised = {name: checking.tokenized(some, how, tokenizer) for name, some in examples.items()}
        lengths = {name: n_tokens for name, (n_tokens, _) in tokenised.items()}
        warnings += tokens.warnings({name: (examples[name], rows) for name, (_, rows) in tokenised.items()})
    n_special = checking.n_special_of(data, tokenizer)
    censuses = {
        name: checking.census(rows.examples, how, lengths.get(name), n_special, rows.n_dropped)
        for name, rows in parts.items()
    }
    return Survey(censuses, tuple(dict.fromkeys(problems)), tuple(warnings))


def _checked(
    data: DataConfig, given: Mapping[str, Table] | None = None
) -> tuple[DataConfig, dict[str, Rows], tuple[str, ...], list[str], list[str]]:
    """Return the settings with the kind of labels in the rows, the rows of each split that is in a file or was given,
    the labels, the problems and the warnings."""
    problems, warnings = list[str](), list[str]()
    tables = sources.open_source(data, problems, warnings, given)
    if "train" in tables:
        data = with_labels(tables["train"], data)
    parts = {}
    for name in (name for name in sources.SPLITS if name in tables):
        columns, advice = data, _advice(name, tables, data, given is not None)
        if name != "train" and data.group not in (None, *tables[name].names):
            columns = data.model_copy(update={"group": None})
            warnings.append(
                f"{tables[name].origin} has no column {data.group!r} (data.group): it may share "
                "groups with the training rows"
            )
        parts[name] = reading.examples_of(tables[name], columns, problems, advice=advice)
    warnings += [note for table in tables.values() for note in table.notes]
    labels = _labels_of(parts["train"], data) if "train" in parts else None
    if labels is not None and "rare-classes" in data.drop:
        parts, labels = _without_rare(parts, labels)
    for name, rows in parts.items() if labels is not None else ():
        if name == "train":
            checking.check_classes(rows, problems, data)
        elif labels:
            reading.refuse_unknown(rows, labels, problems, data)
    warnings += [warning for rows in parts.values() for warning in reading.dropped_warning(rows)]
    warnings += _unused(data, parts, given or ())
    parts, left_out = _apart(data, parts, problems)
    warnings += left_out
    warnings += [warning for rows in parts.values() for warning in checking.conflict_warning(rows)]
    if "train" in parts:
        origin, row_labels = parts["train"].table.origin, parts["train"].labels
        warnings += [labels_note(origin, row_labels, data)] if data.labels == "several" else []
        warnings += spelling_warnings(origin, dict(counted(row_labels).most_common()))
    return data, parts, labels or (), problems, list(dict.fromkeys(warnings))


def _without_rare(parts: Mapping[str, Rows], labels: Sequence[str]) -> tuple[dict[str, Rows], tuple[str, ...]]:
    """Return the rows without train's rare classes, and the labels that are left; dropping rows for one of several
    labels may make another rare."""
    reasons = {name: f"no place in {name}, as train has too few of it" for name in parts}
    reasons["train"] = "fewer than 2 different texts"
    left = dict(parts)
    while rare := checking.rare_classes(left["train"]):
        left = {name: checking.without_classes(rows, rare, reasons[name]) for name, rows in left.items()}
    kept = counted(left["train"].labels)
    return left, tuple(label for label in labels if label in kept)


def _advice(split: str, tables: Mapping[str, Table], data: DataConfig, in_python: bool) -> Advice:
    """Return the advice if a split lacks columns: another setting would lose those that the other splits have."""
    others = {column for name, table in tables.items() if name != split for column in table.names}
    missing = reading.wanted_columns(data) - {*naming.ID_COLUMNS, *tables[split].names}
    if missing & others:
        return "splits"
    return "overrides" if in_python else "options"


def _labels_of(train: Rows, data: DataConfig) -> tuple[str, ...] | None:
    """Return the labels, in the order of their ids; None if a row's could not be read: it may be of any class."""
    if None in train.labels or train.table.bad or not train.labels:
        return None
    counts, names = counted(train.labels), train.table.class_names if isinstance(data.label, str) else None
    if names is None or not counts.keys() <= set(names):  # they may be the names of a column of groups
        return in_order(counts)
    return tuple(name for name in names if name in counts)


def _apart(data: DataConfig, parts: dict[str, Rows], problems: list[str]) -> tuple[dict[str, Rows], list[str]]:
    """Refuse rows, and groups, that are in two splits. A published data set is not edited: there the earlier split
    loses them."""
    warnings, reported = [], set[tuple[str, int]]()
    for (left, right), pairs in checking.shared_rows(parts, key_of).items():
        if parts[left].table.is_published:
            keys = {key_of(parts[right].examples[i]) for _, i in pairs}
            parts[left], n = checking.without(parts[left], lambda example, keys=keys: key_of(example) in keys)
            warnings.append(f"{n:,} {left} rows of {data.source} are left out: they are also in its {right} split")
        else:
            problems.append(checking.overlap_problem(parts[left], parts[right], pairs))
            reported |= {(right, i) for _, i in pairs}
    for (left, right), pairs in checking.shared_rows(parts, attrgetter("group")).items():
        if parts[left].table.is_published:
            keys = {parts[right].examples[i].group for _, i in pairs}
            parts[left], n = checking.without(parts[left], lambda example, keys=keys: example.group in keys)
            warnings.append(
                f"{n:,} {left} rows of {data.source} are left out: they share groups with its {right} split"
            )
        elif unreported := [pair for pair in pairs if (right, pair[1]) not in reported]:
            problems.append(checking.group_problem(parts[left], parts[right], unreported, str(data.group)))
    return parts, warnings


def _unused(data: DataConfig, parts: dict[str, Rows], given: Collection[str]) -> list[str]:
    """Return a warning for each split used instead of the size, or the file, asked for."""
    return [
        f"data.{split} is {setting} and not used: {parts[split].table.origin} is the {split} split"
        for split in ("validation", "test")
        if split in parts and not (split == "validation" and data.fold)
        if (setting := getattr(data, split)) != getattr(DataConfig(), split)
        if split in given or not isinstance(setting, str)
    ]


def _split(data: DataConfig, parts: dict[str, list[Example]], warnings: list[str]) -> dict[str, list[Example]]:
    """Return all three splits: those given, and those carved from the training rows by fraction or count.

    Sizes other than those asked for are added to `warnings`.
    """
    rest, n_total = parts["train"], len(parts["train"])
    carved: dict[str, list[Example]] = {"validation": [], "test": []}
    # The test split is carved first, so it is the same whatever data.validation asks for.
    if "test" not in parts and data.test is not None:
        keep = 1 if "validation" in parts else 2
        size = float(data.test)
        rest, carved["test"] = splitting.carve(rest, "test", size, n_total, data.seed, keep)
        warnings += splitting.size_warning("test", size, n_total, carved["test"], rest)
    if (fold := fold_of(data.fold)) is not None:
        n_test, pool = len(parts.get("test", carved["test"])), splitting.pool(rest, parts.get("validation", []))
        rest, carved["test"] = splitting.fold(pool, *fold, data.seed)
        parts, n_total = {}, len(rest)
        warnings.append(splitting.fold_note(str(data.fold), len(carved["test"]), len(pool), n_test))
    if "validation" not in parts:
        # If validation is a file, its rows are in the folds too.
        size = float(DataConfig().validation if isinstance(data.validation, str) else data.validation)
        rest, carved["validation"] = splitting.carve(rest, "validation", size, n_total, data.seed)
        warnings += splitting.size_warning("validation", size, n_total, carved["validation"], rest)
    if data.train_rows is not None:
        size, n_total = float(data.train_rows), len(rest)
        # All of them train, so groups may be split.
        alone = [replace(example, group=None) for example in rest]
        rest = splitting.carve(alone, "train_rows", size, n_total, data.seed, keep=0)[1]
        warnings += splitting.size_warning("train_rows", size, n_total, rest)
    return {"train": rest, **{name: parts.get(name, carved[name]) for name in ("validation", "test")}}

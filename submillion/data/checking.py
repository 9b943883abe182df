"""Check whether examples make a fit data set, and describe them: classes, copies, contradictions, lengths.

Single rows are checked in `reading`. Nothing here changes a row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np

from submillion.config import DataConfig, LongTexts, TrainConfig
from submillion.data import cutting, tokens
from submillion.data.duplicates import key_of, near_groups
from submillion.data.labels import columns, counted, named, names_in
from submillion.data.long_texts import Reading
from submillion.data.reading import Example, Rows
from submillion.data.tables import BadRows
from submillion.data.tokens import Seen
from submillion.errors import DataError
from submillion.text import percent, plural, shown
from submillion.words import count

Shared = dict[tuple[str, str], list[tuple[int, int]]]  # two splits → pairs of places of rows with equal keys
_MIN_CLASSES = 2
_MIN_ROWS = 2  # one to train on, one to validate with
_SHOWN_CLASSES = 8
_TOKENIZED_AT_ONCE = 1000
_MAJORITY = 0.8  # share of rows in one class from which accuracy says little about the others


@dataclass(frozen=True)
class Census:
    """What a set of rows looks like. lengths: min, median, mean, p95 and max, in `unit`.

    classes: rows of each label, the largest first · labels_per_row: the mean if rows have several, else None ·
    n_none: rows that have none of several · n_long: texts longer than max_length tokens · n_truncated: texts with
    tokens that are not read · mean_windows: windows read per text · token_factor: tokens read, as a multiple of those
    read if texts are cut; all four None in words · n_duplicates: rows that repeat an earlier text (normalised) ·
    n_near: further rows that nearly repeat another · n_conflicts: texts with different labels · n_dropped: rows that
    `data.drop` left out.
    """

    n_rows: int
    classes: dict[str, int]
    unit: Literal["tokens", "words"]
    lengths: dict[str, float]
    max_length: int
    long_texts: LongTexts
    n_long: int | None
    n_truncated: int | None
    mean_windows: float | None
    token_factor: float | None
    n_duplicates: int
    n_near: int
    n_conflicts: int
    n_dropped: int = 0
    labels_per_row: float | None = None
    n_none: int = 0


def census(
    examples: Sequence[Example],
    reading: Reading,
    n_tokens: np.ndarray | None = None,
    n_special: int = 0,
    n_dropped: int = 0,
) -> Census:
    """Return the census; lengths in tokens, special ones included, if they are given (int64 [N]), else in words."""
    keys = [key_of(example) for example in examples]
    n_distinct = len(set(keys))
    labels = counted(example.label for example in examples)
    has_several = any(isinstance(example.label, tuple) for example in examples)
    return Census(
        n_rows=len(examples),
        classes=dict(labels.most_common()),
        unit="words" if n_tokens is None else "tokens",
        lengths=_summary(_n_words(examples) if n_tokens is None else n_tokens),
        max_length=reading.max_length,
        long_texts=reading.long_texts,
        **_read(reading, n_tokens, n_special),
        n_duplicates=len(keys) - n_distinct,
        n_near=n_distinct - len(set(near_groups(keys).tolist())),
        n_conflicts=len(_conflicts(keys, examples)),
        n_dropped=n_dropped,
        labels_per_row=labels.total() / len(examples) if has_several else None,
        n_none=sum(example.label == () for example in examples),
    )


def _read(reading: Reading, n_tokens: np.ndarray | None, n_special: int) -> dict[str, Any]:
    """Return a census's fields on how texts of these lengths are read."""
    if n_tokens is None or not len(n_tokens):
        return dict.fromkeys(("n_long", "n_truncated", "mean_windows", "token_factor"))
    cut = np.minimum(n_tokens, reading.max_length)
    return {
        "n_long": int((n_tokens > reading.max_length).sum()),
        "n_truncated": int((n_tokens > reading.most_tokens(n_special) + n_special).sum()),
        "mean_windows": float(reading.n_windows(n_tokens, n_special).mean()),
        "token_factor": float(reading.n_read(n_tokens, n_special).sum() / cut.sum()),
    }


def rare_classes(rows: Rows) -> list[str]:
    """Return the classes that have fewer than 2 different texts, too few to both train and validate on."""
    texts: dict[str, set[str]] = {}
    for example in rows.examples:
        for label in names_in(example.label):
            texts.setdefault(label, set()).add(key_of(example))
    return [label for label, keys in texts.items() if len(keys) < _MIN_ROWS]


def without_classes(rows: Rows, labels: Collection[str], reason: str) -> Rows:
    """Return the rows without those of some classes, even if of others too; these are counted as dropped, with the
    reason."""
    excluded = set(labels)
    left_out = [row for row, label in enumerate(rows.labels) if not excluded.isdisjoint(names_in(label))]
    if not left_out:
        return rows
    kept = [i for i, example in enumerate(rows.examples) if excluded.isdisjoint(names_in(example.label))]
    present = list(dict.fromkeys(name for row in left_out for name in names_in(rows.labels[row]) if name in excluded))
    sentence = f"{rows.table.place(left_out)}: {_classes(present)} {reason}"
    return replace(
        rows,
        examples=[rows.examples[i] for i in kept],
        rows=[rows.rows[i] for i in kept],
        labels=[label if excluded.isdisjoint(names_in(label)) else None for label in rows.labels],
        dropped=(*rows.dropped, BadRows(tuple(rows.table.numbers[row] for row in left_out), sentence)),
    )


def check_classes(rows: Rows, problems: list[str], data: DataConfig) -> None:
    """Add a problem if there are fewer than two classes, and one for classes of fewer than two rows.

    Every row has a label, or several; one whose text is a problem counts too.
    """
    is_left_out = isinstance(data.label, str) or "rare-classes" in data.drop  # a class that no row has
    of_label: dict[str, list[int]] = {} if is_left_out else {name: [] for name in columns(data)}
    for row, label in enumerate(rows.labels):
        for name in names_in(label):
            of_label.setdefault(name, []).append(row)
    if len(of_label) < _MIN_CLASSES:
        finding = "no row has a label"
        for label in of_label:
            finding = (
                f"every row has the label {label!r}" if data.labels != "several" else f"{label!r} is the only label"
            )
        problems.append(
            f"{rows.table.origin}: {finding}: at least 2 classes are needed; is data.label the right column?"
        )
    if empty := [label for label, indices in of_label.items() if not indices]:
        problems.append(
            f"{rows.table.origin}: no row has 1 in {', '.join(map(repr, empty))} (data.label): there is nothing to "
            "learn; leave the column out"
        )
        of_label = {label: indices for label, indices in of_label.items() if indices}
    single = {label: indices for label, indices in of_label.items() if len(indices) < _MIN_ROWS}
    if not single:
        return
    if len(single) > max(_SHOWN_CLASSES, len(of_label) / 2):
        first = ", ".join(map(shown, list(single)[:3]))
        problems.append(
            f"{rows.table.origin}: {named(data)} has {len(of_label):,} different values in {len(rows.labels):,} "
            f"rows, {len(single):,} of them used once ({first}, ...): is data.label the right column?"
        )
        return
    places = rows.table.place([row for indices in single.values() for row in indices])
    names = ", ".join(map(repr, list(single)[:_SHOWN_CLASSES]))
    more = f" and {len(single) - _SHOWN_CLASSES:,} more" * (len(single) > _SHOWN_CLASSES)
    subject = f"classes {names}{more} have 1 row each" if len(single) > 1 else f"class {names} has 1 row"
    problems.append(
        f"{places}: {subject}: at least {_MIN_ROWS} are needed, one to train on and one to validate with; add rows, "
        f"remove {'them' if len(single) > 1 else 'it'}, or leave such rows out with data.drop=rare-classes"
    )


def metric_warnings(classes: Mapping[str, int], train: TrainConfig) -> tuple[str, ...]:
    """Return a sentence about accuracy if rare classes seem to matter.

    >>> metric_warnings({"ham": 1, "spam": 1}, TrainConfig())
    ()
    """
    if train.metric not in (None, "accuracy") or len(classes) < 2:
        return ()
    role = "which chooses the checkpoint" if train.deciding == "accuracy" else "which is reported first"
    largest, n = max(classes.items(), key=lambda item: item[1])
    advice = "set train.metric to macro-f1, which counts all classes alike"
    if train.class_weights is not None:
        return (f"train.class_weights weighs classes, but accuracy, {role}, does not: {advice}",)
    if n <= _MAJORITY * sum(classes.values()):
        return ()
    share = percent(n / sum(classes.values()))
    return (
        f"{share} of the training rows are of class {shown(largest)}: accuracy, {role}, hardly "
        f"reflects the others; {advice}, or leave it if only overall accuracy matters",
    )


def shared_rows(splits: Mapping[str, Rows], key: Callable[[Example], str | None]) -> Shared:
    """Return, for each two splits with rows of equal keys, the pairs of these rows' places (in their examples): the
    first in one, and each in the other."""
    keys = {name: [key(example) for example in rows.examples] for name, rows in splits.items()}
    places = {
        name: {row_key: i for i, row_key in reversed([*enumerate(row_keys)]) if row_key is not None}
        for name, row_keys in keys.items()
    }
    shared = {
        (left, right): [(places[left][key], i) for i, key in enumerate(keys[right]) if key in places[left]]
        for left, right in combinations(splits, 2)
    }
    return {names: pairs for names, pairs in shared.items() if pairs}


def without(rows: Rows, is_out: Callable[[Example], bool]) -> tuple[Rows, int]:
    """Return the rows without those whose examples are to go, and the number of these."""
    kept = [i for i, example in enumerate(rows.examples) if not is_out(example)]
    left = replace(rows, examples=[rows.examples[i] for i in kept], rows=[rows.rows[i] for i in kept])
    return left, len(rows.examples) - len(kept)


def group_problem(left: Rows, right: Rows, pairs: Sequence[tuple[int, int]], column: str) -> str:
    """Return the sentence for groups that are in two splits."""
    groups = list(dict.fromkeys(right.examples[i].group for _, i in pairs))
    first = left.table.place([left.rows[pairs[0][0]]]).removeprefix(left.table.origin + ", ")
    return (
        f"{right.table.place([right.rows[i] for _, i in pairs])}: {len(pairs):,} of {len(right.examples):,} rows "
        f"{'is' if len(pairs) == 1 else 'are'} in {len(groups):,} {plural(len(groups), 'group')} (column {column!r}, "
        f"such as {shown(groups[0])}) that {left.table.origin} also has (the first in {first}): scores on groups "
        "already seen are too high; move each group into one of the two, or leave data.group out"
    )


def overlap_problem(left: Rows, right: Rows, pairs: Sequence[tuple[int, int]]) -> str:
    """Return the sentence for rows that are in two splits."""
    n, first = len(pairs), left.rows[pairs[0][0]]
    return (
        f"{right.table.place([right.rows[i] for _, i in pairs])}: {n:,} of {len(right.examples):,} rows "
        f"{'is' if n == 1 else 'are'} also in {left.table.origin}, ignoring case and white space "
        f"(the first in {left.table.place([first]).removeprefix(left.table.origin + ', ')}): "
        "scores on rows already seen mean nothing; remove them from one of the two"
    )


def conflict_warning(rows: Rows) -> list[str]:
    """Return a warning, or none, about texts with different labels."""
    texts = _conflicts([key_of(example) for example in rows.examples], rows.examples)
    if not texts:
        return []
    place = rows.table.place([rows.rows[i] for i in texts[0]]).removeprefix(rows.table.origin + ", ")
    where = f"the first in {place}" if len(texts) > 1 else place
    what = plural(len(texts), "text occurs", "texts occur")
    return [
        f"{rows.table.origin}: {len(texts):,} {what} with different labels ({where}): "
        "at most one per text can be learned"
    ]


def _conflicts(keys: Sequence[str], examples: Sequence[Example]) -> list[list[int]]:
    """Return the places of each text with several labels."""
    places: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, []).append(i)
    return [indices for indices in places.values() if len({examples[i].label for i in indices}) > 1]


def _n_words(examples: Sequence[Example]) -> np.ndarray:
    return np.array([count(example.text) + count(example.text_pair) for example in examples])


def n_special_of(data: DataConfig, tokenizer: Any) -> int:
    """Return the number of special tokens in each row; 0 without a tokenizer."""
    return 0 if tokenizer is None else tokenizer.num_special_tokens_to_add(data.text_pair is not None)


def tokenized(examples: Sequence[Example], reading: Reading, tokenizer: Any) -> tuple[np.ndarray, Seen]:
    """Return the number of tokens of each row, int64 [N], and what an encoder sees of those that it reads.

    tokenizer: a `tokenizers.Tokenizer`, without truncation or padding. Long texts are counted in parts.
    """
    n_special = tokenizer.num_special_tokens_to_add(bool(examples) and examples[0].text_pair is not None)
    lengths, rows = list[int](), list[np.ndarray]()
    for start in range(0, len(examples), _TOKENIZED_AT_ONCE):
        batch = examples[start : start + _TOKENIZED_AT_ONCE]
        parts = [_parts_read(example, tokenizer, reading, n_special) for example in batch]
        firsts, lasts = (tokenizer.encode_batch_fast([part[i] for part in parts]) for i in (0, -1))
        for example, part, first, last in zip(batch, parts, firsts, lasts, strict=True):
            n_tokens = len(first)
            if part[0] != _texts(example):
                n_tokens = n_special + sum(cutting.count(text, tokenizer) for text in _parts(example))
            lengths.append(n_tokens)
            rows.append(np.array(_ids_read(first, last, n_tokens, reading, n_special), dtype=np.int32))
    offsets = np.cumsum([0, *map(len, rows)])
    return np.array(lengths), tokens.seen(np.concatenate([np.empty(0, np.int32), *rows]), offsets, tokenizer)


def _texts(example: Example) -> str | tuple[str, str]:
    return example.text if example.text_pair is None else (example.text, example.text_pair)


def _parts(example: Example) -> tuple[str, ...]:
    return (example.text,) if example.text_pair is None else (example.text, example.text_pair)


def _parts_read(
    example: Example, tokenizer: Any, reading: Reading, n_special: int
) -> tuple[str | tuple[str, str], ...]:
    """Return the parts of a row that decide the tokens read: its beginning, or both ends."""
    if example.text_pair is not None:
        return (cutting.cut_pair((example.text, example.text_pair), tokenizer, reading.max_length),)
    if reading.long_texts == "head-tail":
        return cutting.ends(example.text, tokenizer, *reading.ends(n_special))
    return (cutting.cut(example.text, tokenizer, reading.most_tokens(0)),)


def _ids_read(first: Any, last: Any, n_tokens: int, reading: Reading, n_special: int) -> list[int]:
    """Return the tokens read, each once, of a row of n_tokens, from the encodings of its parts."""
    if reading.long_texts == "head-tail" and n_tokens > reading.max_length:
        n_first, n_last = reading.kept(first.sequence_ids.index(0), n_special)
        return first.ids[:n_first] + last.ids[-n_last:]
    return first.ids[: reading.most_tokens(n_special) + n_special]


def _summary(lengths: np.ndarray) -> dict[str, float]:
    if not len(lengths):
        return {}
    values = {
        "min": lengths.min(),
        "median": np.median(lengths),
        "mean": lengths.mean(),
        "p95": np.quantile(lengths, 0.95),
        "max": lengths.max(),
    }
    return {name: float(value) for name, value in values.items()}


def lost_classes(splits: Mapping[str, Sequence[Example]], labels: Sequence[str]) -> list[str]:
    """Return warnings about classes that validation or test lack.

    DataError if training lacks one, or if validation is empty. Equal texts stay together when a split is made,
    so a class of few distinct texts may fall on one side.
    """
    counts = {name: counted(example.label for example in rows) for name, rows in splits.items()}
    lost = {name: [label for label in labels if label not in counts[name]] for name in splits}
    problems = []
    if lost["train"]:
        problems.append(
            f"{_classes(lost['train'])} no row left to train on after splitting: give more distinct texts, or smaller "
            "splits, or leave classes of one text out with data.drop=rare-classes"
        )
    if not splits["validation"]:
        problems.append("no row could be taken for validation: each class has only one distinct text; give more rows")
    if problems:
        raise DataError(*problems)
    return [
        f"{_classes(lost[name])} no row in the {name} split: nothing is measured about "
        f"{'it' if len(lost[name]) == 1 else 'them'} there"
        for name in ("validation", "test")
        if splits[name] and lost[name]
    ]


def _classes(labels: Sequence[str]) -> str:
    """Return the first of the classes as a sentence's subject, with its verb."""
    names = ", ".join(map(repr, labels[:_SHOWN_CLASSES]))
    more = f" and {len(labels) - _SHOWN_CLASSES:,} more" * (len(labels) > _SHOWN_CLASSES)
    return f"class {names} has" if len(labels) == 1 else f"{len(labels):,} classes ({names}{more}) have"

"""Splits made by fraction or count, and the fingerprints of splits.

A made split is stratified and depends on the data, the sizes and data.seed alone: each text is placed by
a hash of itself, so the order of rows does not matter, and the same text is never on both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Literal

import numpy as np

from submillion.data.duplicates import key_of
from submillion.data.reading import Example
from submillion.errors import DataError

Part = Literal["validation", "test", "train_rows"]


def carve(
    examples: Sequence[Example], part: Part, size: float, n_total: int, seed: int, keep: int = 1
) -> tuple[list[Example], list[Example]]:
    """Return (rest, taken), both in the rows' order: each class gives its share of the part.

    A size below 1 is a fraction of `n_total` rows, but at least a row of each class; others are counts. A class
    keeps at least `keep` rows in the rest, and gives at least one where it has more and the count allows. Equal
    texts go together, so that a few rows fewer or more may be taken. DataError if too many are asked for.
    """
    by_class = _grouped(examples, part, seed)
    sizes = {label: sum(map(len, groups)) for label, groups in by_class.items()}
    most = {label: max(n - keep, 0) for label, n in sizes.items()}
    n_rows = n_asked(size, n_total) if size >= 1 else max(n_asked(size, n_total), sum(map(bool, most.values())))
    if n_rows > sum(most.values()):
        raise DataError(
            f"data.{part} is {size:g}, {n_rows:,} of {n_total:,} rows, and only {sum(most.values()):,} can be taken: "
            f"{keep} of each class must be left, to train on{' and to validate with' * (keep - 1)}; ask for fewer"
        )
    quotas = _quotas(sizes, most, n_rows)
    taken = {i for label in sizes for i in _take(by_class[label], quotas[label], most[label])}
    rest = [example for i, example in enumerate(examples) if i not in taken]
    return rest, [examples[i] for i in sorted(taken)]


def n_asked(size: float, n_total: int) -> int:
    """Return how many of `n_total` rows a size asks for: a fraction below 1, or a count.

    As the decimal fraction that was written: 0.15 of 10 rows is 1.5, though the float is below it.
    """
    return int(size) if size >= 1 else round(Fraction(str(size)) * n_total)


def size_warning(part: Part, size: float, n_total: int, taken: Sequence[Example]) -> list[str]:
    """Return the sentence, or none, about a part that has another number of rows than was asked for, and why."""
    wanted, n_classes = n_asked(size, n_total), len({example.label for example in taken})
    if len(taken) == wanted:
        return []
    asked = f"{wanted:,} rows" if size >= 1 else f"{wanted:,} of {n_total:,} rows"
    if len(taken) > wanted and len(taken) == n_classes:
        reason = f"a fraction takes at least one row of each of the {n_classes:,} classes; a number takes just as many"
    elif len(taken) > wanted and n_classes > wanted:
        reason = f"at least one row of each of the {n_classes:,} classes is taken, and equal texts stay together"
    else:
        reason = "equal texts stay on one side, and each class gives its share"
    return [f"data.{part} is {size:g}, {asked}, and {len(taken):,} were taken: {reason}"]


def fingerprint(splits: Mapping[str, Sequence[Example]]) -> str:
    """Return the SHA-256, as hex digits, of the splits' rows: their order, ids, texts and labels."""
    digest = hashlib.sha256()
    for name, examples in splits.items():
        digest.update(f"{name} {len(examples)}\n".encode())
        for example in examples:
            digest.update(_sealed((example.id, example.text, example.text_pair, example.label)))
    return digest.hexdigest()


def content_fingerprint(examples: Iterable[Example]) -> str:
    """Return the SHA-256 of the rows' texts (normalised) and labels: the same for any order, ids or file format."""
    rows = sorted(hashlib.sha256(_sealed((key_of(example), example.label))).digest() for example in examples)
    return hashlib.sha256(b"".join(rows)).hexdigest()


def text_hashes(examples: Sequence[Example]) -> np.ndarray:
    """Return 64 bits of each row's text (normalised), uint64 [N]: equal for the same text, whatever its label."""
    digests = [hashlib.sha256(key_of(example).encode()).digest()[:8] for example in examples]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def _grouped(examples: Sequence[Example], part: Part, seed: int) -> dict[str, list[list[int]]]:
    """Class → its texts in the seed's order, each with the rows (indices) that hold it."""
    groups: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(key_of(example), []).append(i)
    by_class: dict[str, list[list[int]]] = {}
    for key in sorted(groups, key=lambda key: hashlib.sha256(_sealed((str(seed), part, key))).digest()):
        label = min(str(examples[i].label) for i in groups[key])
        by_class.setdefault(label, []).append(groups[key])
    return by_class


def _sealed(parts: Iterable[str | None]) -> bytes:
    """The parts as bytes that no other parts give: each with its length, "-" for none."""
    return "".join("-" if part is None else f"{len(part)}:{part}" for part in parts).encode()


def _quotas(sizes: Mapping[str, int], most: Mapping[str, int], n_rows: int) -> dict[str, int]:
    """How many rows each class gives: its share, but at least one if n_rows allows, and no more than `most`."""
    covers_all = n_rows >= sum(map(bool, most.values()))
    least = {label: min(1, most[label]) if covers_all else 0 for label in sizes}
    share = {label: n_rows * size / sum(sizes.values()) for label, size in sizes.items()}
    quotas = {label: max(least[label], min(int(share[label]), most[label])) for label in sizes}
    labels = sorted(sizes)
    while (excess := sum(quotas.values()) - n_rows) != 0:
        if excess > 0:
            label = max((x for x in labels if quotas[x] > least[x]), key=lambda x: quotas[x] - share[x])
            quotas[label] -= 1
        else:
            label = max((x for x in labels if quotas[x] < most[x]), key=lambda x: share[x] - quotas[x])
            quotas[label] += 1
    return quotas


def _take(groups: Sequence[list[int]], quota: int, most: int) -> list[int]:
    """The rows of the first groups that fit into the quota; one larger group where none fits."""
    taken: list[int] = []
    for group in groups:
        if len(taken) + len(group) <= quota:
            taken += group
    if quota and not taken:
        taken = next((group for group in groups if len(group) <= most), [])
    return taken

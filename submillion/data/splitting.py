"""Splits made by fraction or count, and the fingerprints of splits.

Such a split is stratified and depends on the data, the sizes and data.seed alone: each text is placed by
its own hash, so the order of rows does not matter, and the same text is never on both sides.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Literal

import numpy as np

from submillion.data.duplicates import key_of
from submillion.data.labels import RowLabel, counted, names_in
from submillion.data.reading import Example
from submillion.errors import DataError
from submillion.text import percent, plural

Part = Literal["validation", "test", "train_rows"]
_FOLD: Literal["fold"] = "fold"


def carve(
    examples: Sequence[Example], part: Part, size: float, n_total: int, seed: int, keep: int = 1
) -> tuple[list[Example], list[Example]]:
    """Return (rest, taken), both in the rows' order: each class gives its share of the part.

    If rows have several labels, a class is the row's rarest label, or all of them if many rows have exactly these.

    A size below 1 is a fraction of `n_total` rows, but at least a row of each class; others are counts. A class
    keeps at least `keep` rows in the rest, and gives at least one if it has more and the count allows. Equal
    texts go together, so a few rows fewer or more may be taken, and so do rows of one group. DataError if too
    many are asked for.
    """
    if any(example.group is not None for example in examples):
        return _carve_groups(examples, part, size, n_total, seed, keep)
    by_class = _grouped(examples, part, seed, _strata(examples, n_asked(size, n_total) / n_total))
    sizes = {label: sum(map(len, groups)) for label, groups in by_class.items()}
    if any(isinstance(example.label, tuple) for example in examples):
        by_class = _without_kept(by_class, examples, keep)
        most = {label: sum(map(len, groups)) for label, groups in by_class.items()}
    else:
        most = {label: max(n - keep, 0) for label, n in sizes.items()}
    n_rows = n_asked(size, n_total) if size >= 1 else max(n_asked(size, n_total), sum(map(bool, most.values())))
    if n_rows > sum(most.values()):
        if not keep:
            n = f"{n_total:,} training {plural(n_total, 'row')}"
            raise DataError(f"data.{part} is {size:g}, but there are only {n}: ask for fewer, or null for all")
        raise DataError(
            f"data.{part} is {size:g}, {n_rows:,} of {n_total:,} rows, but only {sum(most.values()):,} can be taken: "
            f"{keep} of each class must be left, to train on{' and to validate with' * (keep - 1)}; ask for fewer"
        )
    quotas = _quotas(sizes, most, n_rows)
    taken = {i for label in sizes for i in _take(by_class[label], quotas[label], most[label])}
    rest = [example for i, example in enumerate(examples) if i not in taken]
    return rest, [examples[i] for i in sorted(taken)]


def fold(examples: Sequence[Example], number: int, n_folds: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Return (rest, fold), both in the rows' order: fold `number`, from 1, of `n_folds` of about equal size.

    Each row is in one fold. Classes have about the same shares in all; equal texts, and rows of one group, are in one
    fold. It depends on the rows and the seed, not on their order. DataError if a class has too few texts or groups, or
    rows have several labels.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    asked = f"data.fold is {number}/{n_folds} (--folds {n_folds})"
    if any(isinstance(example.label, tuple) for example in examples):
        raise DataError(
            f"{asked}, but rows have several labels: folds need rows with one; leave it "
            "out, or train runs with several values of data.seed"
        )
    has_groups = any(example.group is not None for example in examples)
    if has_groups:
        units = _units(examples, _FOLD, seed)
    else:
        labels = [str(example.label) for example in examples]
        units = [rows for of_class in _grouped(examples, _FOLD, seed, labels).values() for rows in of_class]
    _refuse_few_units(examples, units, n_folds, asked, "group" if has_groups else "different text")
    if has_groups:
        rows = [row for unit in units for row in unit]
        owners = [i for i, unit in enumerate(units) for _ in unit]
        splitter, labels = StratifiedGroupKFold(n_folds), [str(examples[row].label) for row in rows]
        chosen = [[rows[i] for i in held] for _, held in splitter.split(rows, labels, owners)]
    else:
        labels = [min(str(examples[row].label) for row in unit) for unit in units]
        held_units = [held for _, held in StratifiedKFold(n_folds).split(labels, labels)]
        chosen = [[row for i in held for row in units[i]] for held in held_units]
    if not all(chosen):
        raise DataError(f"{asked}, but no group is left for one of them: ask for fewer folds")
    _refuse_lost_classes(examples, chosen, asked)
    held_out = set(chosen[number - 1])
    rest = [example for i, example in enumerate(examples) if i not in held_out]
    return rest, [examples[i] for i in sorted(held_out)]


def pool(train: Sequence[Example], validation: Sequence[Example]) -> list[Example]:
    """Return the rows that folds are made of; validation ids that training rows have too get a prefix."""
    known = {row.id for row in train}
    return [*train, *(replace(row, id=f"validation {row.id}") if row.id in known else row for row in validation)]


def fold_note(fold: str, n_held_out: int, n_all: int, n_test: int) -> str:
    """Return the sentence on which rows a fold holds out."""
    sealed = f"; the {n_test:,} test rows are in no fold and stay unread" if n_test else ""
    return (
        f"data.fold is {fold}: {n_held_out:,} of the {n_all:,} training and validation rows are held out, as the test "
        f"split; validation is taken from the others{sealed}"
    )


def _refuse_few_units(
    examples: Sequence[Example], units: Sequence[Sequence[int]], n_folds: int, asked: str, what: str
) -> None:
    """Raise a DataError for classes that cannot be in every fold."""
    counts = Counter(label for unit in units for label in {str(examples[row].label) for row in unit})
    problems = [
        f"{asked}, but class {label!r} has rows in {n} {plural(n, what)}: folds need one each; "
        f"{'ask for fewer, or give more rows of it' if n > 1 else 'give more rows of it, or train without folds'}"
        for label, n in sorted(counts.items())
        if n < n_folds
    ]
    if problems:
        raise DataError(*problems)


def _refuse_lost_classes(examples: Sequence[Example], chosen: Sequence[Sequence[int]], asked: str) -> None:
    """Raise a DataError for classes whose rows are all in one fold, whichever that is: none would be left to learn."""
    folds_of: dict[str, set[int]] = {}
    for i, rows in enumerate(chosen):
        for row in rows:
            folds_of.setdefault(str(examples[row].label), set()).add(i)
    problems = [
        f"{asked}, but all rows of class {label!r} are in one fold, since those of one text or group stay "
        "together: try another number of folds or another data.seed, or give more rows of it"
        for label, numbers in sorted(folds_of.items())
        if len(numbers) == 1
    ]
    if problems:
        raise DataError(*problems)


def n_asked(size: float, n_total: int) -> int:
    """Return how many of `n_total` rows a size asks for: a fraction below 1, or a count.

    A fraction counts as the decimal that was written: 0.15 of 10 rows is 1.5, though the float is below it.
    """
    return int(size) if size >= 1 else round(Fraction(str(size)) * n_total)


def size_warning(
    part: Part, size: float, n_total: int, taken: Sequence[Example], rest: Sequence[Example] = ()
) -> list[str]:
    """Return the sentence, or none, about a part that has another number of rows than was asked for, and why; one with
    groups is always reported, compared with the `rest`."""
    wanted, n_classes = n_asked(size, n_total), len(counted(example.label for example in taken))
    request = f"{wanted:,} rows" if size >= 1 else f"{wanted:,} of {n_total:,} rows"
    if taken and taken[0].group is not None:
        n_groups, n_all = (len({example.group for example in some}) for some in (taken, (*taken, *rest)))
        return [
            f"data.{part} is {size:g}, {request}, and {len(taken):,} were taken: {n_groups:,} of {n_all:,} groups "
            f"({_shares(taken, rest)}); groups are not split"
        ]
    if len(taken) == wanted:
        return []
    if len(taken) > wanted and len(taken) == n_classes:
        reason = f"a fraction takes at least one row of each of the {n_classes:,} classes; a number is exact"
    elif len(taken) > wanted and n_classes > wanted:
        reason = f"at least one row of each of the {n_classes:,} classes is taken, and equal texts stay together"
    else:
        reason = "equal texts stay together, and each class gives its share"
    return [f"data.{part} is {size:g}, {request}, and {len(taken):,} were taken: {reason}"]


def _shares(taken: Sequence[Example], rest: Sequence[Example]) -> str:
    """Return the least and the largest share of a class's rows that were taken."""
    counts, left = (counted(example.label for example in some) for some in (taken, rest))
    shares = {label: counts[label] / (counts[label] + left[label]) for label in sorted(counts | left)}
    low, high = (choose(shares, key=shares.__getitem__) for choose in (min, max))
    if percent(shares[low]) == percent(shares[high]):
        return f"{percent(shares[low])} of the rows of each class"
    return f"{percent(shares[low])} of the rows of {low!r}, {percent(shares[high])} of {high!r}"


def fingerprint(splits: Mapping[str, Sequence[Example]]) -> str:
    """Return the SHA-256, as hex digits, of the splits' rows: their order, ids, texts and labels."""
    digest = hashlib.sha256()
    for name, examples in splits.items():
        digest.update(f"{name} {len(examples)}\n".encode())
        for example in examples:
            digest.update(_sealed((example.id, example.text, example.text_pair, *_parts(example.label))))
    return digest.hexdigest()


def content_fingerprint(examples: Iterable[Example]) -> str:
    """Return the SHA-256 of the rows' texts (normalised) and labels: the same for any order, ids or file format."""
    rows = sorted(hashlib.sha256(_sealed((key_of(example), *_parts(example.label)))).digest() for example in examples)
    return hashlib.sha256(b"".join(rows)).hexdigest()


def groups_of(examples: Sequence[Example]) -> np.ndarray | None:
    """Return the number of each row's group, int64 [N]: the same for rows of one group or of one text, which stay
    together when splits are made, and are not independent of each other. None if each row is alone."""
    groups = _components(examples) if examples else np.empty(0, dtype=np.int64)
    return None if int(groups.max(initial=-1)) + 1 == len(groups) else groups


def text_hashes(examples: Sequence[Example]) -> np.ndarray:
    """Return 64 bits of each row's text (normalised), uint64 [N]: equal for the same text, whatever its label."""
    digests = [hashlib.sha256(key_of(example).encode()).digest()[:8] for example in examples]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def _carve_groups(
    examples: Sequence[Example], part: Part, size: float, n_total: int, seed: int, keep: int
) -> tuple[list[Example], list[Example]]:
    """Return (rest, taken), as `carve`, in whole groups; each class keeps rows of `keep` groups."""
    units, n_rows = _units(examples, part, seed), n_asked(size, n_total)
    strata = _strata(examples, n_rows / n_total)
    counts = _counts(units, [(stratum,) for stratum in strata])
    has = _counts(units, [names_in(example.label) for example in examples]) > 0
    taken = _nearest(counts, has, n_rows, keep)
    if not len(taken):
        raise DataError(
            f"data.{part} is {size:g}, but none of the {len(units):,} groups can be taken: each class must be left in "
            f"{keep} of them, to train on{' and to validate with' * (keep - 1)}: give rows of more groups, or leave "
            "data.group out"
        )
    chosen = {row for unit in taken for row in units[unit]}
    rest = [example for i, example in enumerate(examples) if i not in chosen]
    return rest, [examples[i] for i in sorted(chosen)]


def _counts(units: Sequence[Sequence[int]], names: Sequence[Sequence[str]]) -> np.ndarray:
    """Return how many rows of each unit have each of the names, int64 [U, C]; `names` are each row's."""
    columns = {name: i for i, name in enumerate(sorted({name for row_names in names for name in row_names}))}
    counts = np.zeros((len(units), len(columns)), dtype=np.int64)
    for unit, rows in enumerate(units):
        np.add.at(counts[unit], [columns[name] for row in rows for name in names[row]], 1)
    return counts


def _nearest(counts: np.ndarray, has: np.ndarray, n_rows: int, keep: int) -> list[int]:
    """Return the units, of counts int64 [U, C] of rows per class, that come near n_rows and each class's share of them.

    has: bool [U, L], which labels are in a unit; each is left in `keep` of them. Near is a small chi-square. Units are
    taken in their order while they fit, so the seed decides; then the one that gains most, as long as one gains
    anything. scikit-learn's StratifiedGroupKFold makes k equal folds only, and depends on the order of rows.
    """
    taken = list[int]()
    target = np.maximum(n_rows * counts.sum(axis=0) / counts.sum(), 1)
    missing, n_left = target.copy(), has.sum(axis=0)  # rows, and units that are left, of each class

    def gains(units: np.ndarray | slice | list[int]) -> np.ndarray:
        """Return by how much each unit lowers chi-square; -inf for those that the rest cannot do without."""
        gain = ((missing**2 - (missing - counts[units]) ** 2) / target).sum(axis=-1)
        return np.where((has[units] & (n_left <= keep)).any(axis=-1), -np.inf, gain)

    def take(unit: int) -> None:
        nonlocal missing, n_left
        missing, n_left = missing - counts[unit], n_left - has[unit]
        taken.append(unit)

    room = n_rows
    for unit, size in enumerate(counts.sum(axis=1).tolist()):
        if size <= room and gains([unit])[0] > 0:
            take(unit)
            room -= size
    while len(taken) < len(counts):
        gain = gains(slice(None))
        gain[taken] = -np.inf
        best = int(gain.argmax())
        if gain[best] == -np.inf or (taken and gain[best] <= 0):
            break
        take(best)
    return taken


def _units(examples: Sequence[Example], part: Part | Literal["fold"], seed: int) -> list[list[int]]:
    """Return the rows (indices) that must stay together, being of one group or one text; in the seed's order."""
    units: dict[int, list[int]] = {}
    for row, unit in enumerate(_components(examples).tolist()):
        units.setdefault(unit, []).append(row)
    names = {unit: min(_group_of(examples[row])[1] for row in rows) for unit, rows in units.items()}
    order = sorted(units, key=lambda unit: hashlib.sha256(_sealed((str(seed), part, names[unit]))).digest())
    return [units[unit] for unit in order]


def _components(examples: Sequence[Example]) -> np.ndarray:
    """Return a number for each row, int64 [N], from 0: equal for rows that stay together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes: dict[tuple[str, str], int] = {}
    ends = [[nodes.setdefault(key, len(nodes)) for key in (_group_of(row), ("text", key_of(row)))] for row in examples]
    groups, texts = np.array(ends, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(ends), dtype=bool), (groups, texts)), shape=(len(nodes),) * 2)
    _, component = connected_components(graph, directed=False)
    return component[groups].astype(np.int64)


def _group_of(example: Example) -> tuple[str, str]:
    """Return the key of a row's group; a row without one, from a file that lacks the column, has its text's."""
    return ("text", key_of(example)) if example.group is None else ("group", example.group)


def _strata(examples: Sequence[Example], frac: float) -> list[str]:
    """Return each row's class when a share of the rows is taken: its label; of several the rarest, or all of them if so
    many rows have exactly these that the share holds one."""
    sets, n_of = Counter(example.label for example in examples), counted(example.label for example in examples)
    names: dict[object, str] = {}
    for label, n in sets.items():
        if not isinstance(label, tuple):
            names[label] = str(label)
        elif not label or n * frac >= 1:
            names[label] = _sealed(label).decode()
        else:
            names[label] = _sealed([min(label, key=lambda name: (n_of[name], name))]).decode()
    return [names[example.label] for example in examples]


def _without_kept(
    by_class: Mapping[str, list[list[int]]], examples: Sequence[Example], keep: int
) -> dict[str, list[list[int]]]:
    """Return the texts of each class without those that must be left for each label to be in `keep` of them: the last
    ones in the seed's order."""
    groups = [group for texts in by_class.values() for group in reversed(texts)]
    names = [{name for row in group for name in names_in(examples[row].label)} for group in groups]
    n_of, n_kept, kept = Counter(name for group_names in names for name in group_names), Counter[str](), set[int]()
    places: dict[str, list[int]] = {}
    for place, group_names in enumerate(names):
        for name in group_names:
            places.setdefault(name, []).append(place)
    for label in sorted(n_of, key=lambda name: (n_of[name], name)):  # the rarest first: its rows have others too
        for place in places[label]:
            if n_kept[label] >= keep:
                break
            if place not in kept:
                kept.add(place)
                n_kept.update(names[place])
    kept_rows = {groups[place][0] for place in kept}
    return {stratum: [group for group in texts if group[0] not in kept_rows] for stratum, texts in by_class.items()}


def _grouped(
    examples: Sequence[Example], part: Part | Literal["fold"], seed: int, strata: Sequence[str]
) -> dict[str, list[list[int]]]:
    """Class → its texts in the seed's order, each with the rows (indices) that hold it; `strata`: each row's class."""
    groups: dict[str, list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(key_of(example), []).append(i)
    by_class: dict[str, list[list[int]]] = {}
    for key in sorted(groups, key=lambda key: hashlib.sha256(_sealed((str(seed), part, key))).digest()):
        label = min(strata[i] for i in groups[key])
        by_class.setdefault(label, []).append(groups[key])
    return by_class


def _parts(label: RowLabel | None) -> tuple[str | None, ...]:
    """Return a row's label as parts to seal; several as a part of their own, which no single one equals."""
    return ("", _sealed(label).decode()) if isinstance(label, tuple) else (label,)


def _sealed(parts: Iterable[str | None]) -> bytes:
    """Return the parts as bytes that no other parts give: each with its length, "-" for none."""
    return "".join("-" if part is None else f"{len(part)}:{part}" for part in parts).encode()


def _quotas(sizes: Mapping[str, int], most: Mapping[str, int], n_rows: int) -> dict[str, int]:
    """Return how many rows each class gives: its share, but at least one if n_rows allows, and no more than `most`."""
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
    """The rows of the first groups that fit into the quota; one larger group if none fits."""
    taken: list[int] = []
    for group in groups:
        if len(taken) + len(group) <= quota:
            taken += group
    if quota and not taken:
        taken = next((group for group in groups if len(group) <= most), [])
    return taken

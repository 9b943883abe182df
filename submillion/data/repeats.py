"""Warnings about rows that nearly repeat others, of an earlier split or of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from submillion.data.duplicates import key_of, near_groups
from submillion.data.reading import Example
from submillion.data.splitting import groups_of
from submillion.text import percent, plural

_MANY_COPIES = 0.05  # share of rows that nearly repeat others from which intervals are visibly too narrow


def near_warnings(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """Return a warning for each split with rows nearly the same as rows of an earlier one, and for each but train with
    many rows that nearly repeat each other."""
    splits = {name: examples for name, examples in splits.items() if examples}
    if len(splits) < 2:
        return []
    groups = np.split(
        near_groups([key_of(example) for examples in splits.values() for example in examples]),
        np.cumsum([len(examples) for examples in splits.values()])[:-1],
    )
    warnings = [
        warning
        for (name, examples), near in zip(splits.items(), groups, strict=True)
        if name != "train"
        for warning in _near_copies(name, examples, near)
    ]
    for (left, ours), (right, theirs) in combinations(zip(splits, groups, strict=True), 2):
        n = int(np.isin(theirs, ours).sum())
        if n:
            warnings.append(
                f"{n:,} of {len(theirs):,} {right} rows ({percent(n / len(theirs))}) "
                f"nearly {plural(n, 'repeats', 'repeat')} rows of {left}: their scores may be slightly too high"
            )
    return warnings


def _near_copies(name: str, examples: Sequence[Example], near: np.ndarray) -> list[str]:
    """Return a warning, or none, about rows of a split that nearly repeat others of it without sharing their group;
    near: a number for each row, equal for near copies."""
    groups = groups_of(examples)
    pairs = np.unique(np.stack([near, np.arange(len(near)) if groups is None else groups], axis=1), axis=0)
    several = np.flatnonzero(np.bincount(pairs[:, 0]) > 1)
    n = int(np.isin(near, several).sum())
    if n < _MANY_COPIES * len(near):
        return []
    return [
        f"{n:,} of {len(near):,} {name} rows ({percent(n / len(near))}) nearly repeat other such rows but count "
        "as independent: intervals are too narrow; name the column that they share in data.group"
    ]

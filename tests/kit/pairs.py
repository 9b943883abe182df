"""Fewer cases than the full product: every two choices meet in one of them, or every choice is in one of them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import combinations, cycle, islice, product
from typing import Any


def pairwise(*axes: Collection[Any], where: Callable[..., bool] = lambda *_: True) -> list[tuple[Any, ...]]:
    """Return combinations of a value of each axis, greedily few: any two values that meet in the product meet here.

    `where` says which combinations there are.

    >>> pairwise("ab", "xy", [1, 2])
    [('a', 'x', 1), ('a', 'y', 2), ('b', 'x', 2), ('b', 'y', 1)]
    """
    cases = dict(zip(product(*(range(len(axis)) for axis in axes)), product(*axes), strict=True))
    pairs = {place: set(combinations(enumerate(place), 2)) for place, case in cases.items() if where(*case)}
    left = set[tuple].union(*pairs.values())
    chosen = set()
    while left:
        best = max(pairs, key=lambda place: len(pairs[place] & left))
        chosen.add(best)
        left -= pairs[best]
    return [cases[place] for place in sorted(chosen)]


def each(*axes: Collection[Any]) -> list[tuple[Any, ...]]:
    """Return as many combinations as the longest axis has values, each value in one: for choices that do not meet.

    >>> each("abc", [1, 2])
    [('a', 1), ('b', 2), ('c', 1)]
    """
    n_cases = max(map(len, axes))
    return list(zip(*(islice(cycle(axis), n_cases) for axis in axes), strict=True))

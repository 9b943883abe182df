"""What else the budget would buy: the largest rank for each of sites × layers × head."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from submillion.config import Head
from submillion.errors import ConfigError
from submillion.planning import budget, costs
from submillion.planning.budget import HeadSize
from submillion.planning.costs import Wishes
from submillion.planning.targets import select, site_keys

_SITES = (
    "query",
    "value",
    "query+value",
    "query+key+value",
    "query+key+value+attention_output",
    "query+dense",
    "all-linear",
)


@dataclass(frozen=True)
class Alternative:
    """One row: `rank` is the largest that fits and `total` its trainable parameters.

    If no rank fits, `rank` is None and `total` is the smallest rank's. With ia3 `rank` is always None.
    `n_changes` counts how many of sites, layers and head differ from the config's.
    """

    sites: str
    layers: str
    head: Head
    rank: int | None
    total: int
    fits: bool
    n_changes: int


@dataclass(frozen=True)
class _Variant:
    """One combination before it is counted: its names in the table, and its wishes."""

    sites: str
    layers: str
    wishes: Wishes


def alternatives(wishes: Wishes) -> list[Alternative]:
    """Return the table for the wishes' encoder, method, biases and budget, their own row included.

    Rows are ordered by sites, layers (all, the top two thirds, the top third) and head, without the heads
    that the family refuses. Empty with method none.
    """
    return [_row(variant, wishes, None) for variant in _variants(wishes)]


def nearest(wishes: Wishes, rank: int) -> Alternative | None:
    """Return the row that fits at `rank` with the fewest changes, then the least total."""
    rows = (_row(variant, wishes, rank) for variant in _variants(wishes))
    return min((row for row in rows if row.fits), key=lambda row: (row.n_changes, row.total), default=None)


def smallest(wishes: Wishes) -> Alternative | None:
    """Return the row with the least total at the smallest rank, whether it fits or not; None with method none."""
    rows = (_row(variant, wishes, wishes.rank_unit) for variant in _variants(wishes))
    return min(rows, key=lambda row: (row.total, row.n_changes), default=None)


def _row(variant: _Variant, own: Wishes, rank: int | None) -> Alternative:
    wishes, limit = variant.wishes, own.config.budget
    if rank is None:
        rank = costs.largest_rank(wishes, limit)
    total = costs.total(wishes, rank or wishes.rank_unit)
    changes = (set(wishes.sites) != set(own.sites), wishes.layers != own.layers, wishes.head != own.head)
    return Alternative(
        variant.sites, variant.layers, wishes.head.kind, rank, total, total <= limit, n_changes=sum(changes)
    )


def _variants(own: Wishes) -> Iterator[_Variant]:
    """Yield every combination that exists; the user's own pattern may match nothing in some of the layers."""
    if own.method == "none":
        return
    arch = own.architecture
    choices = itertools.product(_site_choices(own), _layer_choices(own).items(), _head_choices(own))
    for (sites, keys), (label, layers), head in choices:
        with contextlib.suppress(ConfigError):
            targets = select(arch, keys, layers)
            kept = tuple(key for key in keys if any(target.site == key for target in targets))
            yield _Variant(sites, label, replace(own, sites=kept, layers=layers, targets=targets, head=head))


def _site_choices(own: Wishes) -> list[tuple[str, Sequence[str]]]:
    """Return the table's sites, preceded by the user's own if they are not among them."""
    choices: list[tuple[str, Sequence[str]]] = []
    for sites in _SITES:
        with contextlib.suppress(ConfigError):  # some of query, key and value, if they are one layer
            choices.append((sites, site_keys(own.architecture, sites)))
    if any(set(keys) == set(own.sites) for _, keys in choices):
        return choices
    return [("+".join(own.sites), own.sites), *choices]


def _layer_choices(own: Wishes) -> dict[str, tuple[int, ...]]:
    n = own.architecture.n_layers
    tops = [top for top in dict.fromkeys((round(2 * n / 3), round(n / 3))) if 1 <= top < n]
    choices = {"all": tuple(range(n))} | {f"top:{top}": tuple(range(n - top, n)) for top in tops}
    if own.layers in choices.values():
        return choices
    layers = own.config.adapter.layers
    return {layers if isinstance(layers, str) else ",".join(map(str, own.layers)): own.layers} | choices


def _head_choices(own: Wishes) -> list[HeadSize]:
    """Return the heads that the family takes; the bottleneck at the user's width, else the default."""
    width = own.head.width or budget.DEFAULT_HEAD_WIDTH
    sizes = [HeadSize(kind, own.head.n_classes, width if kind == "bottleneck" else None) for kind in get_args(Head)]
    return [size for size in sizes if not budget.head_problems(own.architecture, size)]

"""The gate: a plan that does not fit its budget is refused, with what would fit instead."""

from __future__ import annotations

import os
from collections.abc import Mapping
from operator import index
from typing import Any, SupportsIndex

from submillion import config as configs
from submillion.config import Config
from submillion.errors import BudgetError, ConfigError
from submillion.planning import costs
from submillion.planning.alternatives import Alternative, nearest, smallest
from submillion.planning.costs import Wishes
from submillion.planning.drafts import draft
from submillion.planning.plans import Plan
from submillion.text import shown


def plan(config: Config | Mapping[str, Any] | os.PathLike[str] | str, n_classes: int) -> Plan:
    """Return the plan for settings, as `load_config` takes them, and C classes.

    BudgetError gives the total, the excess, the largest rank that fits and the nearest alternative;
    ConfigError lists wishes that the encoder cannot meet.
    """
    if not isinstance(n_classes, SupportsIndex):
        raise ConfigError(f"n_classes is {shown(n_classes)}: give a whole number, 2 or more")
    settings = config if isinstance(config, Config) else configs.load(config)  # pyright: ignore[reportArgumentType]
    wishes = costs.resolve(settings, index(n_classes))
    drafted = draft(wishes)
    if (problem := overrun(wishes, drafted)) is not None:
        raise BudgetError(problem)
    return drafted


def fitting_rank(wishes: Wishes) -> int | None:
    """Return the largest rank, the same at every site, that fits with the other wishes."""
    return costs.largest_rank(wishes, wishes.config.budget)


def overrun(wishes: Wishes, drafted: Plan) -> str | None:
    """Return by how much a draft is over its budget, and what would fit; None if it fits."""
    if drafted.slack is None or drafted.slack >= 0:
        return None
    return (
        f"{_wished(wishes, drafted)}: {drafted.total:,} trainable parameters, {-drafted.slack:,} over the budget of "
        f"{wishes.config.budget:,} (in the encoder {drafted.adapter_params:,}, head {drafted.head_params:,})\n"
        f"{_rank_hint(wishes, drafted)}\n{_alternative_hint(wishes, drafted)}"
    )


def _wished(wishes: Wishes, drafted: Plan) -> str:
    sites = wishes.config.adapter.sites
    named = sites if isinstance(sites, str) else "+".join(sites)
    ranks = sorted(set(drafted.ranks.values()))
    rank = f" at rank {', '.join(map(str, ranks))}" if ranks else ""
    return f"{drafted.method} on {named}{rank} in {len(drafted.layers)} layers with the {drafted.head} head"


def _rank_hint(wishes: Wishes, drafted: Plan) -> str:
    if not drafted.ranks:
        return f"{drafted.method} has no rank to lower"
    rank = fitting_rank(wishes)
    if rank is None:
        return "no rank fits with the same sites, layers and head"
    needed = costs.total(wishes, rank)
    return f"the largest rank that fits with the same sites, layers and head is {rank} ({needed:,})"


def _alternative_hint(wishes: Wishes, drafted: Plan) -> str:
    """Return the nearest row at the wished rank, else at the smallest; else the budget that the smallest row needs."""
    for rank in (max(drafted.ranks.values(), default=wishes.rank_unit), wishes.rank_unit):
        if (row := nearest(wishes, rank)) is not None:
            return f"the nearest alternative{_at(drafted, rank)}: {_settings(row)} ({row.total:,})"
    if (row := smallest(wishes)) is None:
        return f"raise the budget of {wishes.config.budget:,} to {drafted.total:,} or more, or set it to null"
    return (
        f"no alternative fits, whatever the sites, layers and head: raise the budget of {wishes.config.budget:,} to "
        f"{row.total:,} or more, which the smallest needs{_at(drafted, wishes.rank_unit)}: {_settings(row)}"
    )


def _at(drafted: Plan, rank: int) -> str:
    return f" at rank {rank}" if drafted.ranks else ""


def _settings(row: Alternative) -> str:
    return f"sites {row.sites}, layers {row.layers}, head {row.head}"

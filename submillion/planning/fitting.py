"""The gate: a plan that does not fit its budget is refused, with what would fit instead."""

from __future__ import annotations

from submillion.config import Config
from submillion.errors import BudgetError
from submillion.planning import costs
from submillion.planning.alternatives import cheapest
from submillion.planning.drafts import draft
from submillion.planning.plans import Plan


def plan(config: Config, n_classes: int) -> Plan:
    """Return the plan of a config for C classes.

    BudgetError tells the total, the excess, the largest rank that fits and the cheapest alternative;
    ConfigError lists wishes that the encoder cannot meet.
    """
    drafted = draft(config, n_classes)
    if drafted.slack is not None and drafted.slack < 0:
        raise BudgetError(_overrun(config, drafted, drafted.slack))
    return drafted


def fitting_rank(config: Config, n_classes: int) -> int | None:
    """Return the largest rank, the same at every site, that fits with the config's other wishes."""
    return costs.largest_rank(costs.read(config, n_classes), config.budget)


def _overrun(config: Config, drafted: Plan, slack: int) -> str:
    return (
        f"{_wished(config, drafted)}: {drafted.total:,} trainable parameters, {-slack:,} over the budget of "
        f"{config.budget:,} (in the encoder {drafted.adapter_params:,}, head {drafted.head_params:,})\n"
        f"{_rank_hint(config, drafted)}\n{_alternative_hint(config, drafted)}"
    )


def _wished(config: Config, drafted: Plan) -> str:
    sites = config.adapter.sites if isinstance(config.adapter.sites, str) else "+".join(config.adapter.sites)
    ranks = sorted(set(drafted.ranks.values()))
    rank = f" at rank {', '.join(map(str, ranks))}" if ranks else ""
    return f"{drafted.method} on {sites}{rank} in {len(drafted.layers)} layers with the {drafted.head} head"


def _rank_hint(config: Config, drafted: Plan) -> str:
    if not drafted.ranks:
        return f"{drafted.method} has no rank to lower"
    rank = fitting_rank(config, drafted.n_classes)
    if rank is None:
        return "no rank fits with the same sites, layers and head"
    needed = costs.total(costs.read(config, drafted.n_classes), rank)
    return f"the largest rank that fits with the same sites, layers and head is {rank} ({needed:,})"


def _alternative_hint(config: Config, drafted: Plan) -> str:
    """The cheapest row at the wished rank, else at the smallest."""
    smallest = costs.read(config, drafted.n_classes).rank_unit
    for rank in (max(drafted.ranks.values(), default=smallest), smallest):
        if found := cheapest(config, drafted.n_classes, rank):
            at = f" at rank {rank}" if drafted.ranks else ""
            settings = f"sites {found.sites}, layers {found.layers}, head {found.head}"
            return f"the cheapest alternative{at}: {settings} ({found.total:,})"
    return f"no alternative fits, whatever the sites, layers and head: raise the budget of {config.budget:,}"

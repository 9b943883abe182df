"""From a config to a `Plan`: ranks, alpha, totals, and the reason for each choice.

A draft is the plan as wished, even over its budget; `fitting.plan` refuses that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from submillion.errors import ConfigError
from submillion.planning import budget, costs
from submillion.planning.costs import Wishes
from submillion.planning.plans import Plan
from submillion.planning.reasons import reasons
from submillion.planning.targets import GROUPS, spelt_out
from submillion.text import did_you_mean


def draft(wishes: Wishes) -> Plan:
    """Return the plan as wished; over its budget, `slack` is negative.

    If no rank is wished and none fits, it has the smallest. ConfigError lists impossible ranks.
    """
    config = wishes.config
    ranks = _ranks(wishes)
    alphas = {site: config.adapter.alpha or 2.0 * rank for site, rank in ranks.items()}
    targets = tuple(replace(target, alpha=alphas.get(target.site, 0.0)) for target in costs.ranked(wishes, ranks))
    adapter_params = costs.adapter_params(wishes, targets)
    head_params = budget.head_params(wishes.architecture, wishes.head)
    total = adapter_params + head_params
    limit = None if wishes.method == "none" else config.budget
    plan = Plan(
        architecture=wishes.architecture,
        method=wishes.method,
        ranks=ranks,
        alpha=_shared(alphas),
        layers=tuple(sorted({target.layer for target in targets})) or wishes.layers,
        targets=targets,
        head=wishes.head.kind,
        head_width=wishes.head.width,
        n_classes=wishes.head.n_classes,
        bias=wishes.bias,
        adapter_params=adapter_params,
        head_params=head_params,
        total=total,
        all_params=budget.all_params(wishes.architecture, wishes.method, targets, wishes.head),
        budget=limit,
        slack=None if limit is None else limit - total,
        reasons=(),
        n_prefix_layers=_n_prefix_layers(wishes),
    )
    return replace(plan, reasons=reasons(wishes, plan))


def _n_prefix_layers(wishes: Wishes) -> int:
    """Return how many layers the prefix has; by default only without dropout: it then changes only the time."""
    model = wishes.config.model
    wanted = model.dropout == 0 if model.prefix is None else model.prefix
    return costs.n_frozen_layers(wishes) if wanted else 0


def _ranks(wishes: Wishes) -> dict[str, int]:
    config = wishes.config
    if not costs.has_rank(wishes):
        return {}
    match config.adapter.rank:
        case None:
            ranks = dict.fromkeys(wishes.sites, costs.largest_rank(wishes, config.budget) or wishes.rank_unit)
        case int(rank):
            ranks = dict.fromkeys(wishes.sites, rank)
        case table:
            ranks = _from_table(table, wishes)
    if problems := _rank_problems(wishes, ranks):
        raise ConfigError(*problems)
    return ranks


def _from_table(table: Mapping[str, int], wishes: Wishes) -> dict[str, int]:
    """Return the rank of each site; a group's (`dense`) counts for those of its sites without their own."""
    arch, sites = wishes.architecture, list(wishes.sites)
    ranks = {site: rank for key, rank in table.items() if key in GROUPS for site in spelt_out(arch, key)} | dict(table)
    problems = [
        f"adapter.rank names {key!r}, which is not a site with layers of its own here: {did_you_mean(key, sites)}"
        for key in table
        if not {key, *spelt_out(arch, key)} & set(sites)
    ]
    if missing := [site for site in sites if site not in ranks]:
        problems.append(f"adapter.rank has no rank for {', '.join(missing)}: give one to each site")
    if problems:
        raise ConfigError(*problems)
    return {site: ranks[site] for site in sites}


def _rank_problems(wishes: Wishes, ranks: Mapping[str, int]) -> list[str]:
    adapter = wishes.config.adapter
    problems = []
    if adapter.target_rank is not None and adapter.target_rank > min(ranks.values()):
        problems.append(
            f"adapter.target_rank is {adapter.target_rank}: AdaLoRA only prunes, so allowed are 1 to its "
            f"first rank, {min(ranks.values())}"
        )
    problems += [
        f"adapter.rank is {rank} for {site}: init {adapter.init} needs an even rank"
        for site, rank in ranks.items()
        if rank % wishes.rank_unit
    ]
    if adapter.init in ("pissa", "olora"):
        problems += [
            f"adapter.rank is {ranks[target.site]} for {target.site}: init {adapter.init} takes A and B from the "
            f"weights, so allowed are 1 to {min(target.d_in, target.d_out)}"
            for target in {target.site: target for target in wishes.targets}.values()
            if ranks[target.site] > min(target.d_in, target.d_out)
        ]
    return problems


def _shared(alphas: Mapping[str, float]) -> float | dict[str, float] | None:
    """Return one number if all sites share it; None without sites."""
    values = set(alphas.values())
    return dict(alphas) if len(values) > 1 else next(iter(values), None)

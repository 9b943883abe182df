"""A plan as plain values and in words, for the command line and the page.

`drafts`, `fitting` and `alternatives` decide; this only words it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from submillion.planning.alternatives import Alternative
from submillion.planning.budget import step
from submillion.planning.costs import Wishes
from submillion.planning.fitting import fitting_rank
from submillion.planning.plans import Plan, parts, to_json


def values(plan: Plan, rows: Sequence[Alternative]) -> dict[str, object]:
    """Return a plan's JSON values, with its parts and the alternatives."""
    return json.loads(to_json(plan)) | {
        "percent": round(_percent(plan), 4),
        "per_site": [asdict(part) for part in parts(plan)],
        "one_more_rank": step(plan.method, plan.targets),
        "alternatives": [asdict(row) for row in rows],
    }


def overrun_values(wishes: Wishes, drafted: Plan, message: str) -> dict[str, object]:
    """Return an overrun's JSON values: the message, the numbers, the largest rank that would fit."""
    return {
        "error": message,
        "total": drafted.total,
        "budget": wishes.config.budget,
        "excess": drafted.total - wishes.config.budget,
        "largest_rank": fitting_rank(wishes),
    }


def encoder_words(plan: Plan) -> str:
    """Return the encoder and its shape."""
    arch = plan.architecture
    if arch.n_repeats > 1:
        return f"{arch.name} ({arch.family}, one layer of width {arch.width}, applied {arch.n_repeats} times)"
    return f"{arch.name} ({arch.family}, {arch.n_layers} layers of width {arch.width})"


def wish_words(plan: Plan) -> str:
    """Return the wishes: method, layers, head, budget."""
    limit = "no budget" if plan.budget is None else f"budget {plan.budget:,}"
    return f"method {plan.method} in {_layers(plan)}, head {plan.head}, {limit}"


def total_words(plan: Plan) -> str:
    """Return how many of the model's parameters train."""
    return f"{plan.total:,} of {plan.all_params:,} parameters train ({_percent(plan):.4f} %)"


def slack_words(plan: Plan) -> str:
    """Return what is left of the budget, and what one more rank would cost."""
    if plan.slack is None:
        return "the budget does not apply"
    cost = step(plan.method, plan.targets)
    return f"slack {plan.slack:,}" + (f"; one more rank at every site costs {cost:,}" if cost else "")


def _percent(plan: Plan) -> float:
    return 100 * plan.total / plan.all_params


def _layers(plan: Plan) -> str:
    """Return the adapted layers in words."""
    n, chosen = plan.architecture.n_layers, plan.layers
    if n == 1:
        return "its one layer"
    if len(chosen) == n:
        return f"all {n} layers"
    for end, layers in (("top", range(n - len(chosen), n)), ("bottom", range(len(chosen)))):
        if chosen == tuple(layers):
            return f"the {end} {len(chosen)} of {n} layers"
    return f"layers {', '.join(map(str, chosen))}"

"""The `Plan`: what will train, to the parameter, and why; its parts; its JSON, the run folder's plan.json."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from submillion.config import Head, Method
from submillion.errors import RunError
from submillion.planning.architectures import Architecture, head_layers
from submillion.planning.budget import Bias, Target, last_layer_params, target_params


@dataclass(frozen=True)
class Plan:
    """What trains: counts are in parameters, layers count from 0 at the bottom.

    `ranks` is {site: rank}, empty with ia3 and none. `alpha` is one number if all sites share it, else
    {site: alpha}; None without ranks. `layers` are those with a target. `adapter_params` counts
    what trains inside the encoder, biases included; `all_params` what the model holds in training,
    PEFT's copies of the head included. `budget` and `slack` are None with method none, which lifts the budget.
    `n_prefix_layers` counts the frozen layers, from the bottom, that run without dropout and whose output is
    kept; older files lack it, which means 0.
    """

    architecture: Architecture
    method: Method
    ranks: dict[str, int]
    alpha: float | dict[str, float] | None
    layers: tuple[int, ...]
    targets: tuple[Target, ...]
    head: Head
    head_width: int | None
    n_classes: int
    bias: Bias
    adapter_params: int
    head_params: int
    total: int
    all_params: int
    budget: int | None
    slack: int | None
    reasons: tuple[str, ...]
    n_prefix_layers: int = 0


@dataclass(frozen=True)
class Part:
    """Where some of the trainable parameters are: a site, the biases, or a layer of the head.

    `rank`, `alpha` and `n_layers` are None if the part has none.
    """

    name: str
    params: int
    rank: int | None = None
    alpha: float | None = None
    n_layers: int | None = None


def parts(plan: Plan) -> list[Part]:
    """Return where each trainable parameter of a plan goes; the parts add up to its total."""
    all_parts = [_site_part(plan, site) for site in dict.fromkeys(target.site for target in plan.targets)]
    rest = plan.adapter_params - sum(part.params for part in all_parts)
    if rest:
        all_parts.append(Part("encoder" if plan.method == "none" else f"biases ({plan.bias})", rest))
    dense, last = head_layers(plan.architecture)
    last_params = last_layer_params(plan.architecture, plan.n_classes)
    if plan.head_params > last_params:
        all_parts.append(Part(dense, plan.head_params - last_params, rank=plan.head_width))
    return [*all_parts, Part(last, last_params)]


def _site_part(plan: Plan, site: str) -> Part:
    targets = [target for target in plan.targets if target.site == site]
    params = sum(target_params(plan.method, target) for target in targets)
    n_layers = len({target.layer for target in targets})
    if site not in plan.ranks:
        return Part(site, params, n_layers=n_layers)
    return Part(site, params, targets[0].rank, targets[0].alpha, n_layers)


def to_json(plan: Plan) -> str:
    """Return the plan as JSON; `from_json` gives an equal plan."""
    return TypeAdapter(Plan).dump_json(plan, indent=2).decode()


def from_json(text: str | bytes) -> Plan:
    """Return the plan that `to_json` wrote; RunError names what is missing or of the wrong type."""
    try:
        return TypeAdapter(Plan).validate_json(text)
    except ValidationError as error:
        problems = (f"plan.json: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise RunError(*problems) from None

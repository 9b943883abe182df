"""A config's wishes, resolved against its encoder, and what they cost at any rank.

Costs are linear in the rank, so a division gives the largest that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from submillion.config import Config, Method
from submillion.errors import ConfigError
from submillion.planning import architectures, budget
from submillion.planning.architectures import Architecture, longest_tokens
from submillion.planning.budget import Bias, HeadSize, Target
from submillion.planning.targets import chosen_layers, select, site_keys

T = TypeVar("T")


@dataclass(frozen=True)
class Wishes:
    """A config's wishes for its encoder, before ranks are given: `targets` have rank 0, `sites` keep the user's order.

    `resolve` makes it once: the plan, the alternatives and the largest rank all come from it. Ranks are multiples of
    `rank_unit`: orthogonal A and B need an even one.
    """

    config: Config
    architecture: Architecture
    method: Method
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    targets: tuple[Target, ...]
    head: HeadSize
    bias: Bias
    rank_unit: int


def resolve(config: Config, n_classes: int) -> Wishes:
    """Return the wishes of a config for C classes; ConfigError lists all that its encoder cannot do."""
    arch = architectures.load(config.model.name, config.model.revision)
    adapter = config.adapter
    head = HeadSize(config.model.head, n_classes, _head_width(config))
    problems = [*_length_problems(config, arch), *budget.head_problems(arch, head), *_full_problems(config)]
    layers = _kept(lambda: chosen_layers(arch, adapter.layers), problems) or list(range(arch.n_layers))
    keys = (_kept(lambda: site_keys(arch, adapter.sites), problems) or []) if adapter.method != "none" else []
    targets = _kept(lambda: select(arch, keys, layers), problems) or ()
    problems += _bias_problems(arch, adapter.bias, targets)
    if targets or adapter.method == "none":
        problems += _prefix_problems(config, arch, targets)
    if problems:
        raise ConfigError(*problems)
    sites = tuple(key for key in keys if any(target.site == key for target in targets))
    rank_unit = 2 if adapter.init == "orthogonal" else 1
    return Wishes(config, arch, adapter.method, sites, tuple(layers), targets, head, adapter.bias, rank_unit)


def _length_problems(config: Config, arch: Architecture) -> list[str]:
    """Return a problem if texts may be longer than the encoder has positions."""
    longest = longest_tokens(arch)
    if config.model.max_length <= longest:
        return []
    return [f"model.max_length is {config.model.max_length}: {arch.name} has positions for at most {longest} tokens"]


def ranked(wishes: Wishes, ranks: int | Mapping[str, int]) -> tuple[Target, ...]:
    """Return the wishes' targets with one rank, or with their site's (0 if it has none)."""
    by_site = dict.fromkeys(wishes.sites, ranks) if isinstance(ranks, int) else ranks
    return tuple(replace(target, rank=by_site.get(target.site, 0)) for target in wishes.targets)


def adapter_params(wishes: Wishes, targets: Sequence[Target]) -> int:
    """Return what trains inside the encoder with these ranks, biases included."""
    arch = wishes.architecture
    if wishes.method == "none":
        return architectures.encoder_parameters(arch)
    adapters = sum(budget.target_params(wishes.method, target) for target in targets)
    return adapters + budget.bias_params(arch, wishes.bias, targets, wishes.head.kind)


def total(wishes: Wishes, ranks: int | Mapping[str, int]) -> int:
    """Return every trainable parameter, the head included, with these ranks."""
    return adapter_params(wishes, ranked(wishes, ranks)) + budget.head_params(wishes.architecture, wishes.head)


def n_frozen_layers(wishes: Wishes) -> int:
    """Return how many layers, from the bottom, a prefix may hold: frozen, with the embeddings; 0 to L - 1.

    0 too if the packed pass, which alone keeps prefixes, does not support the encoder.
    """
    if wishes.method == "none" or wishes.bias == "all" or not architectures.has_walk(wishes.architecture):
        return 0
    return min(target.layer for target in wishes.targets)


def has_rank(wishes: Wishes) -> bool:
    """Say whether the method has ranks."""
    return wishes.method in ("lora", "dora", "adalora")


def rank_cap(targets: Sequence[Target]) -> int:
    """Return the rank beyond which some target's full matrix has fewer parameters than A and B."""
    return min(target.d_in * target.d_out // (target.d_in + target.d_out) for target in targets)


def largest_rank(wishes: Wishes, limit: int) -> int | None:
    """Return the largest rank, up to `rank_cap`, whose total is at most `limit`; None if there is none."""
    if not has_rank(wishes):
        return None
    fitting = (limit - total(wishes, 0)) // budget.step(wishes.method, wishes.targets)
    rank = _whole_units(wishes, min(fitting, rank_cap(wishes.targets)))
    return rank if rank >= 1 else None


def is_capped(wishes: Wishes, rank: int) -> bool:
    """Say whether a larger rank would be beyond `rank_cap`."""
    return rank >= _whole_units(wishes, rank_cap(wishes.targets))


def _whole_units(wishes: Wishes, rank: int) -> int:
    return rank - rank % wishes.rank_unit


def _head_width(config: Config) -> int | None:
    return (config.model.head_width or budget.DEFAULT_HEAD_WIDTH) if config.model.head == "bottleneck" else None


def _bias_problems(arch: Architecture, bias: Bias, targets: Sequence[Target]) -> list[str]:
    if bias == "none" or budget.bias_params(arch, bias, targets, "full") or (bias == "lora_only" and not targets):
        return []
    return [f"adapter.bias is {bias}, but {arch.name} ({arch.family}) has no biases there: set it to none"]


def _full_problems(config: Config) -> list[str]:
    """Return the settings that leave something frozen, which full fine-tuning cannot."""
    problems = []
    if config.adapter.method == "none" and config.model.head != "full":
        problems.append(f"model.head is {config.model.head}, but method none trains every layer: use head: full")
    if config.adapter.method == "none" and config.adapter.layers is not None:
        problems.append(f"adapter.layers is {config.adapter.layers!r}, but method none trains every layer: set null")
    return problems


def _prefix_problems(config: Config, arch: Architecture, targets: Sequence[Target]) -> list[str]:
    """Return why nothing is frozen below the lowest adapted layer, if model.prefix asks for that."""
    if not config.model.prefix:
        return []
    start = "model.prefix is true, but"
    if config.adapter.method == "none":
        return [f"{start} method none trains every layer, so none is frozen: set it to null"]
    if not architectures.has_walk(arch):
        return [f"{start} {arch.name} ({arch.family}) has no packed pass, which alone keeps a prefix: set it to null"]
    if arch.n_repeats > 1:
        return [f"{start} {arch.name} applies one layer {arch.n_repeats} times, and it is adapted: set it to null"]
    if config.adapter.bias == "all":
        return [f"{start} adapter.bias all trains biases in every layer: use none or lora_only, or prefix: null"]
    if any(target.layer == 0 for target in targets):
        return [f"{start} layer 0 is adapted, so none below is frozen: use adapter.layers top:N, or prefix: null"]
    return []


def _kept(resolve: Callable[[], T], problems: list[str]) -> T | None:
    """Return the result, or None after adding its problems to the others: all are reported together."""
    try:
        return resolve()
    except ConfigError as error:
        problems += error.problems
        return None

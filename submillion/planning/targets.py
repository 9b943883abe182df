"""Which linear layers the wishes `adapter.sites` and `adapter.layers` name.

A site is one of the six names, a group of them (`dense`, `all-linear`), the end of a module's name, or
a pattern with `*` over the full name. Ranks are given later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from submillion.errors import ConfigError
from submillion.planning.architectures import SITES, Architecture, Site, linear_modules, site_shape
from submillion.planning.budget import Target
from submillion.text import did_you_mean

GROUPS: dict[str, tuple[str, ...]] = {
    "dense": ("attention_output", "ffn_in", "ffn_out"),  # what the suffix matches in RoBERTa's encoder
    "all-linear": SITES,
}

_COUNTED_LAYERS = re.compile(r"(top|bottom):(\d{1,9})")


def site_keys(sites: str | Iterable[str]) -> list[str]:
    """Return the sites named, groups spelt out, each once; a text may join several with `+` or `,`.

    >>> site_keys("query + dense")
    ['query', 'attention_output', 'ffn_in', 'ffn_out']
    """
    texts = [sites] if isinstance(sites, str) else sites
    names = [name.strip() for text in texts for name in re.split("[+,]", text)]
    return list(dict.fromkeys(key for name in names for key in GROUPS.get(name, (name,))))


def chosen_layers(arch: Architecture, layers: str | Sequence[int] | None) -> list[int]:
    """Return the layers that `adapter.layers` names, from the bottom up; ConfigError lists what is wrong."""
    everything = list(range(arch.n_layers))
    match layers:
        case None:
            return everything
        case str():
            n = _counted(layers, arch)
            return everything[-n:] if layers.startswith("top") else everything[:n]
        case _:
            if problems := _list_problems(arch, layers):
                raise ConfigError(*problems)
            return sorted(layers)


def select(arch: Architecture, keys: Sequence[str], layers: Sequence[int]) -> tuple[Target, ...]:
    """Return the targets (rank 0) of the sites within the layers, from the bottom up; each module once.

    Where sites overlap, a name or pattern of the user's own goes before the six names, and among its
    like the one named first. ConfigError names each site that no module matches.
    """
    modules = linear_modules(arch)
    owner: dict[str, str] = {}
    problems = []
    for key in sorted(keys, key=SITES.__contains__):  # own names first: False sorts before True
        matched = [module for module, (site, _) in modules.items() if _matches(key, module, site)]
        if not any(modules[module][1] in layers for module in matched):
            problems.append(_unmatched(arch, key, sorted({modules[module][1] for module in matched})))
        owner = {module: key for module in matched if modules[module][1] in layers} | owner
    if problems:
        raise ConfigError(*problems)
    return tuple(_target(arch, module, owner[module], *modules[module]) for module in modules if module in owner)


def _counted(layers: str, arch: Architecture) -> int:
    """N of `top:N` or `bottom:N`."""
    found = _COUNTED_LAYERS.fullmatch(layers)
    if found and 1 <= int(found[2]) <= arch.n_layers:
        return int(found[2])
    raise ConfigError(
        f"adapter.layers is {layers!r}: {arch.name} has {arch.n_layers} layers; allowed are null (all), "
        f"top:N and bottom:N with N from 1 to {arch.n_layers}, or a list such as [0, {arch.n_layers - 1}]"
    )


def _list_problems(arch: Architecture, layers: Sequence[int]) -> list[str]:
    problems = []
    if not layers:
        problems.append("adapter.layers is an empty list: name at least one layer, or null for all")
    if outside := [layer for layer in layers if not 0 <= layer < arch.n_layers]:
        problems.append(
            f"adapter.layers has {', '.join(map(str, outside))}: {arch.name} has layers 0 to {arch.n_layers - 1}"
        )
    if twice := sorted({layer for layer in layers if layers.count(layer) > 1}):
        problems.append(f"adapter.layers names {', '.join(map(str, twice))} more than once: name each layer once")
    return problems


def _matches(key: str, module: str, site: str) -> bool:
    if key in SITES:
        return key == site
    return fnmatchcase(module, key) if "*" in key else f".{module}".endswith(f".{key}")


def _unmatched(arch: Architecture, key: str, elsewhere: Sequence[int]) -> str:
    if elsewhere:
        found = ", ".join(map(str, elsewhere))
        return f"adapter.sites has {key!r}, which is in layer {found} only, outside adapter.layers: change one of them"
    example = next(iter(linear_modules(arch)))
    return (
        f"adapter.sites has {key!r}: no linear layer in {arch.name}'s encoder has that name; "
        f"{did_you_mean(key, [*SITES, *GROUPS])} (or the end of a module's name, or a pattern with * "
        f"over all of it, such as {example})"
    )


def _target(arch: Architecture, module: str, key: str, site: Site, layer: int) -> Target:
    d_in, d_out = site_shape(arch, site)
    return Target(module, key, layer, d_in, d_out, feed_forward=site == "ffn_out")

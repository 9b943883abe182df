"""Find the linear layers that the wishes `adapter.sites` and `adapter.layers` name.

A site is one of `SITES`, a group of them (`dense`, `qkv`, `all-linear`), the end of a module's name, or
a pattern with `*` over the full name. Ranks are given later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from submillion.errors import ConfigError
from submillion.planning.architectures import SEPARATE_SITES, SITES, Architecture, Linear, is_fused, linears
from submillion.planning.budget import Target
from submillion.text import did_you_mean

_QKV = ("query", "key", "value")
GROUPS: dict[str, tuple[str, ...]] = {
    "dense": ("attention_output", "ffn_in", "ffn_out"),  # what the suffix matches in RoBERTa's encoder
    "qkv": _QKV,
    "all-linear": SEPARATE_SITES,  # or whatever else the layers have
}

_COUNTED_LAYERS = re.compile(r"(top|bottom):(\d{1,9})")


def site_keys(arch: Architecture, sites: str | Iterable[str]) -> list[str]:
    """Return the sites named, groups spelt out, each once; a text may join several with `+` or `,`.

    If query, key and value are one linear layer, the three together are its site, `qkv`, and naming only some of them
    is a ConfigError.
    """
    texts = [sites] if isinstance(sites, str) else sites
    names = [name.strip() for text in texts for name in re.split("[+,]", text)]
    keys = list(dict.fromkeys(key for name in names for key in spelt_out(arch, name)))
    wanted = [key for key in keys if key in _QKV]
    if not wanted or not is_fused(arch):
        return keys
    if len(wanted) < len(_QKV):
        raise ConfigError(
            f"adapter.sites has {', '.join(wanted)}: {arch.name} ({arch.family}) computes query, key and value in "
            "one linear layer, which one adapter changes as a whole; use qkv"
        )
    place = keys.index(wanted[0])
    return list(dict.fromkeys([*keys[:place], "qkv", *(key for key in keys[place:] if key not in _QKV)]))


def spelt_out(arch: Architecture, name: str) -> Iterable[str]:
    """Return the sites of a group in an encoder; for any other name, that name alone."""
    if name == "all-linear":
        return dict.fromkeys(linear.site for linear in linears(arch))
    if name == "qkv" and is_fused(arch):
        return (name,)
    return GROUPS.get(name, (name,))


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

    If sites overlap, the user's own names and patterns come before the six names, and earlier ones before
    later ones. ConfigError names each site that no module matches.
    """
    owner: dict[str, str] = {}
    problems = []
    for key in sorted(keys, key=SITES.__contains__):  # own names first: False sorts before True
        matched = [linear for linear in linears(arch) if _matches(key, linear)]
        if not any(linear.layer in layers for linear in matched):
            problems.append(_unmatched(arch, key, sorted({linear.layer for linear in matched})))
        owner = {linear.module: key for linear in matched if linear.layer in layers} | owner
    if problems:
        raise ConfigError(*problems)
    return tuple(_target(linear, owner[linear.module]) for linear in linears(arch) if linear.module in owner)


def _counted(layers: str, arch: Architecture) -> int:
    """Return N of `top:N` or `bottom:N`."""
    match = _COUNTED_LAYERS.fullmatch(layers)
    if match and 1 <= int(match[2]) <= arch.n_layers:
        return int(match[2])
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


def _matches(key: str, linear: Linear) -> bool:
    if key in SITES or key == linear.site:
        return key == linear.site
    return fnmatchcase(linear.module, key) if "*" in key else f".{linear.module}".endswith(f".{key}")


def _unmatched(arch: Architecture, key: str, elsewhere: Sequence[int]) -> str:
    if elsewhere:
        layers = ", ".join(map(str, elsewhere))
        return f"adapter.sites has {key!r}, which is in layer {layers} only, outside adapter.layers: change one of them"
    example = linears(arch)[0].module
    sites = dict.fromkeys(linear.site for linear in linears(arch))
    return (
        f"adapter.sites has {key!r}: no linear layer in {arch.name}'s encoder has that name; "
        f"{did_you_mean(key, [*sites, *GROUPS])} (or the end of a module's name, or a pattern with * "
        f"over all of it, such as {example})"
    )


def _target(linear: Linear, key: str) -> Target:
    is_ffn_out, n_biases = linear.site == "ffn_out", linear.d_out if linear.has_bias else 0
    return Target(linear.module, key, linear.layer, linear.d_in, linear.d_out, is_ffn_out, n_biases=n_biases)

"""From a model's name to its `Architecture`: the checkpoints known offline, local files, the Hub.

A config is read as plain JSON and checked here, so planning needs no transformers. `files` finds a checkpoint's files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from submillion.errors import ConfigError
from submillion.planning.architectures import built, files
from submillion.planning.architectures.families import FAMILIES, Architecture
from submillion.planning.architectures.known import KNOWN, hub_id

_MAX_CONFIG_BYTES = 1_000_000
_MAX_SIZE = 10_000_000
_MAX_LAYERS = 1_000


def load(name: str, revision: str | None = None) -> Architecture:
    """Return the architecture of a folder, a config.json, a known checkpoint or another Hub model at a revision.

    A local file takes precedence over a known name, as in transformers. Only the last kind asks the network.
    ConfigError or HubError names what was not found, or the file and its keys that cannot be used.
    """
    if file := files.local_config(name):
        arch = _from_json(name, file, str(file))
    elif (hub := hub_id(name)) is not None:
        arch = replace(KNOWN[hub], name=name)
    else:
        files.refuse_slip(name)
        arch = _from_json(name, files.config(name, revision), f"model.name is {name} (its config.json)")
    return replace(arch, revision=revision)


def _from_json(name: str, file: Path, where: str) -> Architecture:
    values = _read(file)
    family = values.get("model_type")
    if not isinstance(family, str):
        raise ConfigError(f"{where}: model_type is {family!r}; supported are {', '.join(FAMILIES)}, and more by name")
    if problems := _shape_problems(values):
        raise ConfigError(*(f"{where}: {problem}" for problem in problems))
    if family not in FAMILIES or not _is_plain(family, values):
        if problems := _too_large(values):  # building it would take the memory
            raise ConfigError(*(f"{where}: {problem}" for problem in problems))
        return built.load(name, file, where)
    keys = _keys(family)
    sizes = {field: values.get(key) for field, key in keys.items()}
    if problems := _size_problems(sizes, keys):
        raise ConfigError(*(f"{where}: {problem}" for problem in problems))
    if family == "albert":
        sizes |= {"n_layers": 1, "n_repeats": sizes["n_layers"]}
    arch = Architecture(name=name, family=family, **{"embedding_width": sizes["width"], "n_types": 0, **sizes})
    if arch.width % arch.n_heads:
        raise ConfigError(
            f"{where}: {keys['width']} is {arch.width}, not a multiple of {keys['n_heads']}, {arch.n_heads}"
        )
    return arch


def _read(file: Path) -> Mapping[str, Any]:
    try:
        if file.stat().st_size > _MAX_CONFIG_BYTES:
            raise ConfigError(f"{file} has {file.stat().st_size:,} bytes: too large for a model's config.json")
        values = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{file} is not JSON ({error}): give the config.json of a transformers model") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds a {type(values).__name__}, not the settings of a transformers model")
    return values


def _keys(family: str) -> dict[str, str]:
    """Architecture's field → the key of config.json that holds it, in a family."""
    shared = {"vocab_size": "vocab_size", "n_positions": "max_position_embeddings"}
    if family == "distilbert":
        return {"n_layers": "n_layers", "width": "dim", "ffn_width": "hidden_dim", "n_heads": "n_heads", **shared}
    shared |= {
        "n_layers": "num_hidden_layers",
        "width": "hidden_size",
        "ffn_width": "intermediate_size",
        "n_heads": "num_attention_heads",
    }
    match family:
        case "mpnet":
            return {**shared, "n_buckets": "relative_attention_num_buckets"}
        case "electra" | "albert":
            return {**shared, "n_types": "type_vocab_size", "embedding_width": "embedding_size"}
        case "modernbert":
            return shared
        case "deberta-v2":
            return {**shared, "n_buckets": "position_buckets"}
        case _:
            return {**shared, "n_types": "type_vocab_size"}


def _is_plain(family: str, values: Mapping[str, Any]) -> bool:
    """Say whether a config is one that the table of its family describes; any other is built."""
    match family:
        case "modernbert":
            return not any(values.get(key) for key in ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"))
        case "deberta-v2":  # as all of version 3 are; defaults of transformers if a key is missing
            width = values.get("hidden_size")
            same = ("embedding_size", "pooler_hidden_size")
            return (
                values.get("position_biased_input") is False
                and values.get("relative_attention") is True
                and values.get("share_att_key") is True
                and "layer_norm" in str(values.get("norm_rel_ebd"))
                and not any(values.get(key) for key in ("type_vocab_size", "conv_kernel_size", "attention_head_size"))
                and all(values.get(key) in (None, width) for key in same)
            )
        case "albert":
            return all(values.get(key) in (None, 1) for key in ("num_hidden_groups", "inner_group_num"))
        case _:
            return True


def _size_problems(sizes: Mapping[str, Any], keys: Mapping[str, str]) -> list[str]:
    problems = []
    for field, value in sizes.items():
        largest = _MAX_LAYERS if field == "n_layers" else _MAX_SIZE
        if value is None:
            problems.append(f"{keys[field]} is missing; it is needed to count parameters")
        elif not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
            problems.append(f"{keys[field]} is {value!r}: allowed are whole numbers from 1 to {largest:,}")
    return problems


def _too_large(values: Mapping[str, Any]) -> list[str]:
    """Return problems with sizes that no encoder has: too many layers, or too large ones."""
    inner = [problem for value in values.values() if isinstance(value, dict) for problem in _too_large(value)]
    return inner + [
        f"{key} is {value!r}: allowed are whole numbers from 1 to {largest:,}"
        for key, value in values.items()
        if isinstance(value, int) and value > (largest := _MAX_LAYERS if "layer" in key else _MAX_SIZE)
    ]


def _shape_problems(values: Mapping[str, Any]) -> list[str]:
    """Settings that give the stock class other parameters than the ones counted here."""
    keys = [key for key in ("is_decoder", "add_cross_attention", "quantization_config") if values.get(key)]
    problems = [f"{key} is set: only plain encoders are counted and trained" for key in keys]
    if values.get("auto_map"):
        problems.append(
            "auto_map is set: the model needs its own code, and code from a model's folder is never run; "
            "use a checkpoint that transformers supports itself"
        )
    return problems

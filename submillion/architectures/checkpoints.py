"""From a model's name to its `Architecture`: the checkpoints known offline, local files, the Hub.

The table holds sizes as published in each checkpoint's config.json. Weights and tokenizers are
loaded elsewhere; a config is read as plain JSON and checked here, so that planning needs no transformers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from submillion.architectures.families import FAMILIES, Architecture, Family
from submillion.errors import ConfigError, did_you_mean

_MAX_CONFIG_BYTES = 1_000_000
_MAX_SIZE = 10_000_000
_MAX_LAYERS = 1_000

# Hub id: (family, layers, width, ffn width, heads, vocabulary, positions, token types, embedding width, buckets)
_KNOWN: dict[str, tuple[Family, int, int, int, int, int, int, int, int, int]] = {
    "FacebookAI/roberta-base": ("roberta", 12, 768, 3072, 12, 50265, 514, 1, 768, 0),
    "FacebookAI/roberta-large": ("roberta", 24, 1024, 4096, 16, 50265, 514, 1, 1024, 0),
    "distilbert/distilroberta-base": ("roberta", 6, 768, 3072, 12, 50265, 514, 1, 768, 0),
    "google-bert/bert-base-uncased": ("bert", 12, 768, 3072, 12, 30522, 512, 2, 768, 0),
    "google-bert/bert-base-cased": ("bert", 12, 768, 3072, 12, 28996, 512, 2, 768, 0),
    "google-bert/bert-large-uncased": ("bert", 24, 1024, 4096, 16, 30522, 512, 2, 1024, 0),
    "google-bert/bert-large-cased": ("bert", 24, 1024, 4096, 16, 28996, 512, 2, 1024, 0),
    "distilbert/distilbert-base-uncased": ("distilbert", 6, 768, 3072, 12, 30522, 512, 0, 768, 0),
    "google/electra-small-discriminator": ("electra", 12, 256, 1024, 4, 30522, 512, 2, 128, 0),
    "google/electra-base-discriminator": ("electra", 12, 768, 3072, 12, 30522, 512, 2, 768, 0),
    "microsoft/mpnet-base": ("mpnet", 12, 768, 3072, 12, 30527, 514, 0, 768, 32),
    "sentence-transformers/all-mpnet-base-v2": ("mpnet", 12, 768, 3072, 12, 30527, 514, 0, 768, 32),
    "sentence-transformers/all-MiniLM-L6-v2": ("bert", 6, 384, 1536, 12, 30522, 512, 2, 384, 0),
    "sentence-transformers/all-MiniLM-L12-v2": ("bert", 12, 384, 1536, 12, 30522, 512, 2, 384, 0),
    "FacebookAI/xlm-roberta-base": ("xlm-roberta", 12, 768, 3072, 12, 250002, 514, 1, 768, 0),
}
_SHORT = {"electra-small": "google/electra-small-discriminator", "electra-base": "google/electra-base-discriminator"}


def known() -> list[str]:
    """Return the short names of the checkpoints that need no config.json, sorted."""
    return sorted({hub.partition("/")[2] for hub in _KNOWN} | set(_SHORT), key=str.lower)


def hub_id(name: str) -> str | None:
    """Return the Hub id of a checkpoint known offline, or None.

    >>> hub_id("roberta-base")
    'FacebookAI/roberta-base'
    """
    if name in _KNOWN:
        return name
    return _SHORT.get(name) or next((hub for hub in _KNOWN if hub.partition("/")[2] == name), None)


def local_config(name: str) -> Path | None:
    """Return the config.json that a model's name means on this disk: the file itself, or in the folder."""
    path = os.path.expanduser(name)  # unlike pathlib's, os.path's functions take any text
    file = path if path.endswith(".json") else os.path.join(path, "config.json")
    return Path(file) if os.path.isfile(file) else None


def load(name: str) -> Architecture:
    """Return the architecture of a folder, a config.json, a known checkpoint or another Hub model.

    A local file goes before a known name, as in transformers. Only the last kind asks the network.
    ConfigError names what was not found, or the file and its keys that cannot be used.
    """
    if file := local_config(name):
        return _from_json(name, file)
    if (hub := hub_id(name)) is not None:
        return Architecture(name, *_KNOWN[hub])
    if _is_path(name):
        raise ConfigError(f"model.name is {name}: no config.json there; give a folder that holds one, or the file")
    if "/" not in name:  # a bare name is far more often a slip than a Hub model, and asking takes long offline
        hint = did_you_mean(name, known())
        raise ConfigError(
            f"model.name is {name!r}: neither a checkpoint known offline ({hint}) nor a local folder; "
            f"for another Hub model give its full name, organisation/name"
        )
    return _from_json(name, _download(name))


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~")) or name.endswith(".json") or name.count("/") > 1 or os.path.isdir(name)


@cache  # planning asks for the same name several times
def _download(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(name, "config.json"))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise ConfigError(
            f"model.name is {name!r}: not a checkpoint known offline ({did_you_mean(name, known())}), "
            f"not a local folder, and the Hub gave no config.json: {reason}"
        ) from None


def _from_json(name: str, file: Path) -> Architecture:
    values = _read(file)
    family = values.get("model_type")
    if family not in FAMILIES:
        raise ConfigError(f"{file}: model_type is {family!r}; supported are {', '.join(FAMILIES)}")
    keys = _keys(family)
    sizes = {field: values.get(key) for field, key in keys.items()}
    if problems := [*_size_problems(sizes, keys), *_shape_problems(values)]:
        raise ConfigError(*(f"{file}: {problem}" for problem in problems))
    arch = Architecture(name=name, family=family, **{"embedding_width": sizes["width"], "n_types": 0, **sizes})
    if arch.width % arch.n_heads:
        raise ConfigError(
            f"{file}: {keys['width']} is {arch.width}, not a multiple of {keys['n_heads']}, {arch.n_heads}"
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


def _keys(family: Family) -> dict[str, str]:
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
        case "electra":
            return {**shared, "n_types": "type_vocab_size", "embedding_width": "embedding_size"}
        case _:
            return {**shared, "n_types": "type_vocab_size"}


def _size_problems(sizes: Mapping[str, Any], keys: Mapping[str, str]) -> list[str]:
    problems = []
    for field, value in sizes.items():
        largest = _MAX_LAYERS if field == "n_layers" else _MAX_SIZE
        if value is None:
            problems.append(f"{keys[field]} is missing; it is needed to count parameters")
        elif not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
            problems.append(f"{keys[field]} is {value!r}: allowed are whole numbers from 1 to {largest:,}")
    return problems


def _shape_problems(values: Mapping[str, Any]) -> list[str]:
    """Settings that give the stock class other parameters than the ones counted here."""
    found = [key for key in ("is_decoder", "add_cross_attention", "quantization_config") if values.get(key)]
    problems = [f"{key} is set: only plain encoders are counted and trained" for key in found]
    if values.get("auto_map"):
        problems.append(
            "auto_map is set: the model wants to run code of its own, and none of a model's folder is run; take a "
            "checkpoint that transformers knows by itself"
        )
    return problems

"""Encoders that no family's table describes: transformers builds one without weights, and its parts are counted.

torch and transformers are imported when the first such encoder is planned. Encoders that the table of `families`
describes need neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from submillion.errors import ConfigError
from submillion.planning.architectures.families import Architecture, Built, Linear

_ENCODERS_ONLY = "only encoders are counted and trained"
_CLASSES = (2, 3)  # two sizes of the head: what differs is its part per class
# What encoders call the six sites, by the end of a module's name; the first that fits.
_SITE_NAMES = (
    ("qkv", r"(Wqkv|qkv|qkv_proj|query_key_value|in_proj)"),
    ("query", r"(query|query_proj|q_proj|q_lin|q_head|q)"),
    ("key", r"(key|key_proj|k_proj|k_lin|k_head|k)"),
    ("value", r"(value|value_proj|v_proj|v_lin|v_head|v)"),
    ("attention_output", r".*att\w*\b.*\b(output\.dense|dense|out_lin|out_proj|o_proj|post_proj|Wo|o)"),
    ("ffn_in", r"(intermediate\.dense|ffn|lin1|fc1|linear_1|up_proj|Wi|wi|dense1|upsample)"),
    ("ffn_out", r"(output\.dense|ffn_output|lin2|fc2|linear_2|down_proj|Wo|wo|dense2|downsample)"),
)


def load(name: str, file: Path, where: str) -> Architecture:
    """Return the architecture of a config.json by building its stock classifier on torch's meta device.

    ConfigError if transformers has no sequence classifier for it, or if it is not an encoder.
    """
    config = _config(file, where)
    models = [_model(config, n_classes, where) for n_classes in _CLASSES]
    built = _inspected(models, where)

    def size(*keys: str) -> int:
        return next((value for key in keys if isinstance(value := getattr(config, key, None), int)), 0)

    return Architecture(
        name=name,
        family=config.model_type,
        n_layers=1 + max(linear.layer for linear in built.linears),
        width=size("hidden_size", "d_model", "dim"),
        ffn_width=size("intermediate_size", "d_inner", "hidden_dim"),
        n_heads=size("num_attention_heads", "n_heads"),
        vocab_size=size("vocab_size"),
        n_positions=size("max_position_embeddings"),
        n_types=size("type_vocab_size"),
        embedding_width=size("embedding_size", "hidden_size"),
        built=built,
    )


def head_modules(model: Any) -> tuple[str, ...]:
    """Return the modules after the encoder of a stock classifier, first to last: a pooler inside it, and its own."""
    base = model.base_model_prefix
    pooler = [f"{base}.pooler"] if _n_parameters(getattr(getattr(model, base), "pooler", None)) else []
    return (*pooler, *(name for name, child in model.named_children() if name != base and _n_parameters(child)))


def last_layer_name(model: Any, n_classes: int) -> str | None:
    """Return the full name of the linear layer that gives the logits; None if there is none."""
    heads = tuple(f"{name}." for name in head_modules(model))
    names = [
        name
        for name, module in model.named_modules()
        if f"{name}.".startswith(heads) and getattr(module, "out_features", None) == n_classes
    ]
    return names[-1] if names else None


def _config(file: Path, where: str) -> Any:
    import transformers
    from transformers.models.auto import modeling_auto as auto

    try:
        config = transformers.AutoConfig.from_pretrained(str(file), trust_remote_code=False)
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: transformers {transformers.__version__} cannot read it: {_line(error)}") from None
    kind = config.model_type
    if kind not in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise ConfigError(
            f"{where}: model_type is {kind!r}, for which transformers {transformers.__version__} has no sequence "
            "classifier; use an encoder that has one, such as bert, modernbert or deberta-v2"
        )
    is_causal = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if config.is_encoder_decoder or is_causal or getattr(config, "is_decoder", False):
        what = "an encoder with a decoder" if config.is_encoder_decoder else "a decoder"
        raise ConfigError(f"{where}: model_type is {kind!r}, {what}: {_ENCODERS_ONLY}")
    return config


def _model(config: Any, n_classes: int, where: str) -> Any:
    import torch
    import transformers

    config.num_labels = n_classes
    try:
        with torch.device("meta"):
            return transformers.AutoModelForSequenceClassification.from_config(config)
    except Exception as error:  # whatever a class raises about its config
        raise ConfigError(f"{where}: transformers cannot build it: {_line(error)}") from None


def _inspected(models: list[Any], where: str) -> Built:
    model, larger = models
    linears = tuple(_linears(model))
    if not linears:
        raise ConfigError(f"{where}: it has no layers with linear modules that an adapter could go to")
    heads = head_modules(model)
    last = last_layer_name(model, _CLASSES[0])
    if last == "score":  # transformers' generic classifier on the last token of a decoder
        raise ConfigError(f"{where}: model_type is {model.config.model_type!r}, a decoder: {_ENCODERS_ONLY}")
    if last is None or last != last_layer_name(larger, _CLASSES[1]):
        raise ConfigError(f"{where}: its classifier does not end in one linear layer, so its head cannot be counted")
    n_head, n_larger = (sum(_n_parameters(variant.get_submodule(name)) for name in heads) for variant in models)
    prefixes = tuple(f"{name}." for name in heads)
    encoder = {name: p.numel() for name, p in model.named_parameters() if not name.startswith(prefixes)}
    per_class = n_larger - n_head
    return Built(
        linears=linears,
        encoder_parameters=sum(encoder.values()),
        encoder_biases=sum(n for name, n in encoder.items() if name.endswith(".bias")),
        head_modules=heads,
        last=last,
        head_fixed=n_head - _CLASSES[0] * per_class,
        head_per_class=per_class,
        longest_tokens=_longest_tokens(model),
    )


def _linears(model: Any) -> Iterator[Linear]:
    """Yield the linear modules inside the encoder's outermost lists: its layers, numbered consecutively."""
    from torch import nn

    layers = [child for path in _layer_lists(model) for child in _children(model, path)]
    for number, path in enumerate(layers):
        used = set[str]()
        for name, module in model.get_submodule(path).named_modules():
            if isinstance(module, nn.Linear):
                site = _site(name)
                site = name if site in used else site
                used.add(site)
                has_bias = module.bias is not None
                yield Linear(f"{path}.{name}", site, number, module.in_features, module.out_features, has_bias)


def _layer_lists(model: Any) -> list[str]:
    """The full names of the outermost lists of modules in the encoder that hold linear layers."""
    from torch import nn

    base, lists = model.base_model_prefix, list[str]()
    for name, module in model.named_modules():
        inside = name.startswith(tuple(f"{each}." for each in lists))
        holds = any(isinstance(each, nn.Linear) for each in module.modules())
        if isinstance(module, nn.ModuleList) and name.startswith(f"{base}.") and holds and not inside:
            lists.append(name)
    return lists


def _children(model: Any, path: str) -> list[str]:
    return [f"{path}.{name}" for name, _ in model.get_submodule(path).named_children()]


def _site(name: str) -> str:
    """One of the usual sites by the end of a module's name, else that name itself."""
    return next((site for site, ends in _SITE_NAMES if re.fullmatch(rf"(.*\.)?{ends}", name)), name)


def _longest_tokens(model: Any) -> int:
    """Return the positions that a text may use; tables with a padding index begin after it, as RoBERTa's."""
    longest = getattr(model.config, "max_position_embeddings", None) or 512
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(getattr(module, "num_embeddings", None), int):
            padding = module.padding_idx
            return min(longest, module.num_embeddings) - (0 if padding is None else padding + 1)
    return longest


def _n_parameters(module: Any) -> int:
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

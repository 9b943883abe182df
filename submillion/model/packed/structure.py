"""The modules of an encoder that the packed pass walks, found once in the stock model.

Knows where each family keeps its layers; nothing of how they are computed. Holds references only:
weights that are loaded or trained later are seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from submillion.model.adapters import stock
from submillion.model.packed.weights import stack
from submillion.planning.architectures import (
    FAMILIES,
    SEPARATE_SITES,
    Architecture,
    Site,
    has_walk,
    layer_name,
    module_name,
)

# The linear layers of a layer, those of one input together.
_INPUTS: tuple[tuple[Site, ...], ...] = (("query", "key", "value"), ("attention_output",), ("ffn_in",), ("ffn_out",))
# Where a layer keeps the parts of `Layer`: BERT's way, and the families that differ from it.
_BERT = {
    "activation": "intermediate.intermediate_act_fn",
    "attention_norm": "attention.output.LayerNorm",
    "ffn_norm": "output.LayerNorm",
    "probs_dropout": "attention.self.dropout",
    "attention_dropout": "attention.output.dropout",
    "ffn_dropout": "output.dropout",
}
_PARTS: dict[str, dict[str, str]] = {
    "distilbert": {
        "activation": "ffn.activation",
        "attention_norm": "sa_layer_norm",
        "ffn_norm": "output_layer_norm",
        "probs_dropout": "attention.dropout",
        "ffn_dropout": "ffn.dropout",
    },
    "mpnet": {
        **_BERT,
        "attention_norm": "attention.LayerNorm",
        "probs_dropout": "attention.attn.dropout",
        "attention_dropout": "attention.dropout",
    },
}


@dataclass(frozen=True)
class Layer:
    """One encoder layer: the linear layer of each site, the norms after attention and feed-forward, and dropouts.

    `probs_dropout` falls on the attention's weights, the other two on what is added to the residual.
    """

    sites: dict[Site, nn.Module]
    activation: Callable[[torch.Tensor], torch.Tensor]
    attention_norm: nn.LayerNorm
    ffn_norm: nn.LayerNorm
    probs_dropout: nn.Module
    ffn_dropout: nn.Module
    attention_dropout: nn.Module | None = None


@dataclass(frozen=True, eq=False)
class Packed:
    """An encoder as the packed pass sees it; `dtype` is that of its rows and products.

    padding_id: where positions count from, and what they skip, or None where they count from 0 · widen: ELECTRA's
    projection of narrow embeddings · mpnet: the module with the relative position bias · n_prefix_layers: how many
    layers from the bottom a batch that carries their output skips.
    """

    embeddings: Any
    widen: nn.Module | None
    mpnet: Any
    layers: tuple[Layer, ...]
    width: int
    n_heads: int
    has_types: bool
    padding_id: int | None
    dtype: torch.dtype
    n_prefix_layers: int = 0


def supported(model: nn.Module, architecture: Architecture) -> str | None:
    """Return None, or the reason why a model must take its stock padded forward pass."""
    if not has_walk(architecture):
        return f"the packed pass does not know {architecture.family} yet"
    config: Any = stock(model).config
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "it is a decoder"
    kind = getattr(config, "position_embedding_type", None)
    if kind not in (None, "absolute"):
        return f"its position_embedding_type is {kind}"
    if getattr(config, "chunk_size_feed_forward", 0):
        return "its config sets chunk_size_feed_forward"
    if config.model_type != architecture.family:
        return f"its model_type is {config.model_type}, not {architecture.family}"
    return None


def prepare(
    model: nn.Module, architecture: Architecture, dtype: torch.dtype | None = None, n_prefix_layers: int = 0
) -> Packed:
    """Return what `encode` needs of a stock sequence-classification model, wrapped by PEFT or not.

    `dtype` is that of rows and products, by default the embeddings'. Frozen query, key and value weights of a layer
    are moved into one tensor (their values stay, and so do the modules), so call it after `.to(device)`, and again
    where frozen weights were changed through `.data`, as merging does.
    """
    inner = stock(model)
    base: Any = getattr(inner, inner.base_model_prefix)
    layers = tuple(_layer(inner, architecture.family, i) for i in range(architecture.n_layers))
    for layer in layers:
        for sites in _INPUTS:
            stack([_weight(layer.sites[site]) for site in sites])
    return Packed(
        embeddings=base.embeddings,
        widen=getattr(base, "embeddings_project", None),
        mpnet=base.encoder if architecture.family == "mpnet" else None,
        layers=layers,
        width=architecture.width,
        n_heads=architecture.n_heads,
        has_types=hasattr(base.embeddings, "token_type_embeddings"),
        padding_id=base.embeddings.padding_idx if FAMILIES[architecture.family].n_unused_positions else None,
        dtype=dtype or base.embeddings.word_embeddings.weight.dtype,
        n_prefix_layers=n_prefix_layers,
    )


def _weight(module: nn.Module) -> nn.Parameter:
    """The weight of a linear layer, below its adapter."""
    linear: Any = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return linear.weight


def _layer(model: nn.Module, family: str, number: int) -> Layer:
    sites: dict[Site, nn.Module] = {
        site: model.get_submodule(module_name(family, site, number)) for site in SEPARATE_SITES
    }
    block = model.get_submodule(layer_name(family, number))
    parts: dict[str, Any] = {part: attrgetter(path)(block) for part, path in _PARTS.get(family, _BERT).items()}
    return Layer(sites, **parts)

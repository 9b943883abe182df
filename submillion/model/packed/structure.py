"""The modules of an encoder that the packed pass walks, found once in the stock model.

Knows where each family keeps its layers; nothing of how they are computed. Holds references only:
weights that are loaded or trained later are seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from submillion.model.packed.weights import stack
from submillion.planning.architectures import SITES, Architecture, Site, module_name

# The linear layers of a layer, those of one input together.
_INPUTS: tuple[tuple[Site, ...], ...] = (("query", "key", "value"), ("attention_output",), ("ffn_in",), ("ffn_out",))


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
    attention_dropout: nn.Module | None
    ffn_dropout: nn.Module


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
    n_heads: int
    has_types: bool
    padding_id: int | None
    dtype: torch.dtype
    n_prefix_layers: int = 0


def supported(model: nn.Module, architecture: Architecture) -> str | None:
    """Return None, or the reason why a model must take its stock padded forward pass."""
    config = stock_model(model).config
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
    stock = stock_model(model)
    base: Any = getattr(stock, stock.base_model_prefix)
    layers = tuple(_layer(stock, base, architecture, i) for i in range(architecture.n_layers))
    for layer in layers:
        for sites in _INPUTS:
            stack([_weight(layer.sites[site]) for site in sites])
    is_roberta = architecture.family in ("roberta", "xlm-roberta", "mpnet")
    return Packed(
        embeddings=base.embeddings,
        widen=getattr(base, "embeddings_project", None),
        mpnet=base.encoder if architecture.family == "mpnet" else None,
        layers=layers,
        n_heads=architecture.n_heads,
        has_types=hasattr(base.embeddings, "token_type_embeddings"),
        padding_id=base.embeddings.padding_idx if is_roberta else None,
        dtype=dtype or base.embeddings.word_embeddings.weight.dtype,
        n_prefix_layers=n_prefix_layers,
    )


def _weight(module: nn.Module) -> nn.Parameter:
    """The weight of a linear layer, below its adapter."""
    linear: Any = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return linear.weight


def stock_model(model: nn.Module) -> Any:
    """Return the stock model inside a PEFT wrapper, or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _layer(stock: nn.Module, base: Any, architecture: Architecture, number: int) -> Layer:
    sites: dict[Site, nn.Module] = {
        site: stock.get_submodule(module_name(architecture.family, site, number)) for site in SITES
    }
    match architecture.family:
        case "distilbert":
            block = base.transformer.layer[number]
            return Layer(
                sites=sites,
                activation=block.ffn.activation,
                attention_norm=block.sa_layer_norm,
                ffn_norm=block.output_layer_norm,
                probs_dropout=block.attention.dropout,
                attention_dropout=None,
                ffn_dropout=block.ffn.dropout,
            )
        case "mpnet":
            block = base.encoder.layer[number]
            inner, end = block.attention.attn, block.attention
        case _:
            block = base.encoder.layer[number]
            inner, end = block.attention.self, block.attention.output
    return Layer(
        sites=sites,
        activation=block.intermediate.intermediate_act_fn,
        attention_norm=end.LayerNorm,
        ffn_norm=block.output.LayerNorm,
        probs_dropout=inner.dropout,
        attention_dropout=end.dropout,
        ffn_dropout=block.output.dropout,
    )

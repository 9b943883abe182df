"""The modules of an encoder that the packed pass walks, found once in the stock model.

Knows where each family keeps its layers, not how they are computed. Holds only references: weights that are loaded or
trained later are seen, except for norms' effect on products in int8, and what is changed through `.data`: see
`prepare`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from submillion.model.adapters import stock
from submillion.model.packed.weights import multiply_in_int8, stack
from submillion.planning.architectures import (
    FAMILIES,
    Architecture,
    Site,
    has_walk,
    layer_name,
    module_name,
)

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
    "albert": {
        "activation": "activation",
        "attention_norm": "attention.LayerNorm",
        "ffn_norm": "full_layer_layer_norm",
        "probs_dropout": "attention.attention_dropout",
        "attention_dropout": "attention.output_dropout",
    },
    "deberta-v2": {**_BERT, "distances_dropout": "attention.self.pos_dropout"},
    "mpnet": {
        **_BERT,
        "attention_norm": "attention.LayerNorm",
        "probs_dropout": "attention.attn.dropout",
        "attention_dropout": "attention.dropout",
    },
    "modernbert": {
        "activation": "mlp.act",
        "attention_norm": "mlp_norm",
        "probs_dropout": "attn",
        "attention_dropout": "attn.out_drop",
        "gate_dropout": "mlp.drop",
        "attention_type": "attention_type",
    },
}
# The families with norms before attention and feed-forward: where each layer has its first norm, and the encoder its
# last. The walk counts a norm as part of the layer before it: a layer ends with the first norm of the next.
_PRE_NORMS = {"modernbert": ("attn_norm", "final_norm")}
# The module inside the encoder that widens narrow embeddings to its width.
_WIDEN = {"electra": "embeddings_project", "albert": "encoder.embedding_hidden_mapping_in"}
# Where the embeddings keep the parts of `Embeddings`; a family may lack the last two.
_TABLES = {
    "words": "word_embeddings",
    "norm": "LayerNorm",
    "dropout": "dropout",
    "types": "token_type_embeddings",
    "positions": "position_embeddings",
}
_TABLES_OF: dict[str, dict[str, str]] = {"modernbert": {"words": "tok_embeddings", "norm": "norm", "dropout": "drop"}}


@dataclass(frozen=True)
class Embeddings:
    """The tables whose sum is normed: of words, and of token types and positions if the family has them."""

    whole: nn.Module
    words: nn.Embedding
    norm: nn.LayerNorm
    dropout: nn.Module
    types: nn.Embedding | None
    positions: nn.Embedding | None


@dataclass(frozen=True)
class Layer:
    """One encoder layer: the linear layer of each site, the norms after attention and feed-forward, and dropouts.

    `probs_dropout` falls on the attention's weights, `gate_dropout` on the gated activations, `distances_dropout` on
    DeBERTa's table of distances, the other two on what is added to the residual. `attention_type` is ModernBERT's kind
    of attention, local or global · noted: what `whole_layers` keeps.
    """

    sites: dict[Site, nn.Module]
    activation: Callable[[torch.Tensor], torch.Tensor]
    attention_norm: nn.LayerNorm
    ffn_norm: nn.LayerNorm
    probs_dropout: nn.Module
    ffn_dropout: nn.Module | None = None
    attention_dropout: nn.Module | None = None
    gate_dropout: nn.Module | None = None
    distances_dropout: nn.Module | None = None
    attention_type: str | None = None
    is_gated: bool = False
    noted: dict[bool, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def attention_inputs(self) -> list[nn.Module]:
        """Return the linear layers that make query, key and value, side by side: three, or one."""
        return [self.sites[site] for site in inputs_of(self.sites)[0]]


@dataclass(frozen=True)
class DistanceTable:
    """DeBERTa's table of distances between tokens, which all layers share, and the norm of its rows.

    sites: the layers that project it, of query (for p2c) and key (c2p) · n_buckets: of distances to either side, the
    farther ones together up to `reach`; 0 if each distance has its own row.
    """

    embeddings: nn.Embedding
    norm: nn.LayerNorm
    sites: tuple[Site, ...]
    n_buckets: int
    reach: int


@dataclass(frozen=True, eq=False)
class Packed:
    """An encoder as the packed pass sees it; `dtype` is its rows' and products'.

    padding_id: where positions count from, and what they skip, or None if they count from 0 · widen: the projection of
    narrow embeddings (ELECTRA, ALBERT) · layers: bottom to top, ALBERT's one as often as it is applied · mpnet: the
    module with the relative position bias · distances: DeBERTa's, None if no score has a part of them · rotary: the
    module with the angles of positions, by a layer's attention type · window: how far local attention reaches ·
    is_pre_norm: the residual connection goes around the norms · pools_mean: a text's result is the mean of its tokens,
    not the first one · n_prefix_layers: how many layers from the bottom a batch that carries their output skips ·
    in_int8: the products with the layers' frozen weights are · trains: something in the model does.
    """

    embeddings: Embeddings
    widen: nn.Module | None
    mpnet: Any
    layers: tuple[Layer, ...]
    width: int
    n_heads: int
    padding_id: int | None
    dtype: torch.dtype
    n_prefix_layers: int = 0
    distances: DistanceTable | None = None
    rotary: Any = None
    window: int | None = None
    is_pre_norm: bool = False
    pools_mean: bool = False
    in_int8: bool = False
    trains: bool = False


def supported(config: Any, architecture: Architecture) -> str | None:
    """Return why a model of such a config must use its stock padded forward pass; None if it need not."""
    if not has_walk(architecture):
        is_other = architecture.family in FAMILIES
        return f"the packed pass does not know {architecture.family}{' with such a config' if is_other else ' yet'}"
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return "it is a decoder"
    kind = getattr(config, "position_embedding_type", None)
    if kind not in (None, "absolute"):
        return f"its position_embedding_type is {kind}"
    if getattr(config, "chunk_size_feed_forward", 0):
        return "its config sets chunk_size_feed_forward"
    if config.model_type != architecture.family:
        return f"its model_type is {config.model_type}, not {architecture.family}"
    scaled = {values["rope_type"] for values in _rotary_values(config)} - {"default"}
    if scaled:
        return f"its config scales rotary positions: rope_type is {', '.join(sorted(scaled))}"
    return None


def _rotary_values(config: Any) -> list[dict[str, Any]]:
    """Return what a family's config says about rotary positions, for each kind of attention."""
    return list(config.rope_parameters.values()) if config.model_type == "modernbert" else []


def prepare(
    model: nn.Module,
    architecture: Architecture,
    dtype: torch.dtype | None = None,
    n_prefix_layers: int = 0,
    in_int8: bool = False,
) -> Packed:
    """Return what `encode` needs from a stock sequence-classification model, wrapped by PEFT or not.

    `dtype` is the rows' and products', by default the embeddings'; in_int8: frozen weights' products with bfloat16 rows
    are, on a CPU, for every model that shares the weights, by this model's current norms. Frozen query, key and value
    weights of a layer are moved into one tensor (values and modules are unchanged), so call it after `.to(device)`, and
    again if what does not train (frozen weights; in a finished run also adapters, norms and biases) was changed through
    `.data`, as merging does.
    """
    inner = stock(model)
    base: Any = getattr(inner, inner.base_model_prefix)
    config: Any = inner.config
    layers = tuple(_layer(inner, architecture, i) for i in range(architecture.n_layers))
    for layer in layers:
        for sites in inputs_of(layer.sites):
            weights = [_weight(layer.sites[site]) for site in sites]
            stack(weights)
            is_after_norm = in_int8 and sites == ["ffn_in"]
            multiply_in_int8(weights, in_int8, _reach(layer.attention_norm) if is_after_norm else None)
    embeddings = _embeddings(base.embeddings, architecture.family)
    return Packed(
        embeddings=embeddings,
        widen=_widen(base, architecture.family),
        mpnet=base.encoder if architecture.family == "mpnet" else None,
        layers=layers * architecture.n_repeats,
        width=architecture.width,
        n_heads=architecture.n_heads,
        padding_id=base.embeddings.padding_idx if FAMILIES[architecture.family].n_unused_positions else None,
        dtype=dtype or embeddings.words.weight.dtype,
        n_prefix_layers=n_prefix_layers,
        distances=_distances(base.encoder) if architecture.family == "deberta-v2" else None,
        rotary=getattr(base, "rotary_emb", None),
        window=getattr(config, "sliding_window", None),
        is_pre_norm=architecture.family in _PRE_NORMS,
        pools_mean=getattr(config, "classifier_pooling", "cls") == "mean",
        in_int8=in_int8,
        trains=any(parameter.requires_grad for parameter in inner.parameters()),
    )


def _reach(norm: nn.LayerNorm) -> torch.Tensor:
    """Return about how far from 0 each column of a norm's output gets, float32 [D]: three standard deviations."""
    spread = 3 * norm.weight.detach().abs().float()
    return spread if norm.bias is None else spread + norm.bias.detach().abs().float()


def _widen(base: Any, family: str) -> nn.Module | None:
    """Return the projection of narrow embeddings; ELECTRA has it if they are narrow, ALBERT always."""
    place = _WIDEN.get(family)
    return None if place is None or not hasattr(base, place.partition(".")[0]) else base.get_submodule(place)


def _distances(encoder: Any) -> DistanceTable | None:
    """Return DeBERTa's table, if any part of its scores is of distances."""
    attention = encoder.layer[0].attention.self
    kinds: tuple[tuple[str, Site], ...] = (("p2c", "query"), ("c2p", "key"))
    sites: tuple[Site, ...] = tuple(site for kind, site in kinds if kind in attention.pos_att_type)
    shape = (attention.position_buckets, attention.max_relative_positions)
    return DistanceTable(encoder.rel_embeddings, encoder.LayerNorm, sites, *shape) if sites else None


def inputs_of(sites: Iterable[Site]) -> list[list[Site]]:
    """Return the sites of a layer, grouped by the input they read; query, key and value come first."""
    others: list[list[Site]] = [["attention_output"], ["ffn_in"], ["ffn_out"]]
    return [[site for site in sites if [site] not in others], *others]


def _weight(module: nn.Module) -> nn.Parameter:
    """Return the weight of a linear layer, below its adapter."""
    linear: Any = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return linear.weight


def _embeddings(whole: nn.Module, family: str) -> Embeddings:
    tables = _TABLES_OF.get(family, _TABLES)
    parts: dict[str, Any] = {part: getattr(whole, tables.get(part, ""), None) for part in _TABLES}
    return Embeddings(whole, **parts)


def _layer(model: Any, architecture: Architecture, number: int) -> Layer:
    family = architecture.family
    sites: dict[Site, nn.Module] = {
        site: model.get_submodule(module_name(family, site, number)) for site in FAMILIES[family].sites
    }
    block = model.get_submodule(layer_name(family, number))
    parts: dict[str, Any] = {part: attrgetter(path)(block) for part, path in _PARTS.get(family, _BERT).items()}
    if family in _PRE_NORMS:
        first, last = _PRE_NORMS[family]
        is_last = number == architecture.n_layers - 1
        place = f"{model.base_model_prefix}.{last}" if is_last else f"{layer_name(family, number + 1)}.{first}"
        parts["ffn_norm"] = model.get_submodule(place)
    return Layer(sites, **parts, is_gated=FAMILIES[family].is_gated)

"""The encoder families counted from their config alone: where their linear layers are, what shapes they have.

Names are those of transformers' stock sequence-classification classes (5.23), since PEFT finds its
targets by them. Any other encoder is built without weights (`built`), and its `Architecture` carries what was found.
Which layers get an adapter is decided in `planning`; what trains is counted in `budget`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

Site = Literal["query", "key", "value", "qkv", "attention_output", "ffn_in", "ffn_out"]

SITES: tuple[Site, ...] = get_args(Site)
SEPARATE_SITES: tuple[Site, ...] = tuple(site for site in SITES if site != "qkv")  # query, key and value are three
_FUSED: tuple[Site, ...] = ("qkv", "attention_output", "ffn_in", "ffn_out")


@dataclass(frozen=True)
class Linear:
    """A linear layer of an encoder: its full name in the stock model, its site, layer and sizes.

    `site` is one of `SITES`, or a name of the encoder's own.
    """

    module: str
    site: str
    layer: int
    d_in: int
    d_out: int
    has_bias: bool = True


@dataclass(frozen=True)
class Built:
    """What building an encoder without weights shows: its linear layers, bottom to top, and counts of parameters.

    head_modules: the stock class' modules after the encoder · last: the full name of its last layer [C, D] ·
    head_fixed + C * head_per_class are the parameters of `head_modules` · biases: entries of parameters named `*.bias`.
    """

    linears: tuple[Linear, ...]
    encoder_parameters: int
    encoder_biases: int
    head_modules: tuple[str, ...]
    last: str
    head_fixed: int
    head_per_class: int
    longest_tokens: int


@dataclass(frozen=True)
class Architecture:
    """The sizes of an encoder, in units (neurons, entries, layers), and its family.

    `name` is what the user wrote, `revision` a commit if it comes from the Hub. `family` is transformers'
    model_type. `n_types` counts token types and `n_buckets` the relative positions; each is 0 if the family has
    none. `embedding_width` differs from `width` in ELECTRA and ALBERT only. `n_layers` counts layers with weights of
    their own; ALBERT applies its one layer `n_repeats` times. `built` is None if the family's sizes say everything.
    """

    name: str
    family: str
    n_layers: int
    width: int
    ffn_width: int
    n_heads: int
    vocab_size: int
    n_positions: int
    n_types: int
    embedding_width: int
    n_buckets: int = 0
    revision: str | None = None
    n_repeats: int = 1
    built: Built | None = None


@dataclass(frozen=True)
class Family:
    """How a model type names its parts in the stock class.

    layers: where the layers are, before their number · sites: each site's name inside a layer · head: the modules
    after the encoder, first to last, each trained and saved whole · dense, last: the full names of the head's two
    linear layers [D, D] and [C, D] · activation: of the head, if a negative feature would not pass it, else None ·
    pretrained: the checkpoint has the dense layer's weights · n_unused_positions: position embeddings before the first
    token's, if they begin after the padding id · is_gated: the feed-forward computes a gate besides its inputs ·
    is_bare: no linear layer has a bias but the last, norms have none, and one norm is in the head (ModernBERT).
    """

    layers: str
    sites: dict[Site, str]
    head: tuple[str, ...]
    dense: str
    last: str
    activation: str | None = None
    pretrained: bool = False
    n_unused_positions: int = 0
    is_gated: bool = False
    is_bare: bool = False


def _sites(attention: tuple[str, ...], *others: str) -> dict[Site, str]:
    names = (*attention, *others)
    return dict(zip(SEPARATE_SITES if len(names) == len(SEPARATE_SITES) else _FUSED, names, strict=True))


_BERT = _sites(
    ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_ROBERTA = Family(
    "roberta.encoder.layer", _BERT, ("classifier",), "classifier.dense", "classifier.out_proj", n_unused_positions=2
)

FAMILIES: dict[str, Family] = {
    "bert": Family(
        "bert.encoder.layer", _BERT, ("bert.pooler", "classifier"), "bert.pooler.dense", "classifier", pretrained=True
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "electra": Family(
        "electra.encoder.layer", _BERT, ("classifier",), "classifier.dense", "classifier.out_proj", activation="GELU"
    ),
    "mpnet": Family(
        "mpnet.encoder.layer",
        _sites(
            ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
            "attention.attn.o",
            "intermediate.dense",
            "output.dense",
        ),
        ("classifier",),
        "classifier.dense",
        "classifier.out_proj",
        n_unused_positions=2,
    ),
    "distilbert": Family(
        "distilbert.transformer.layer",
        _sites(("attention.q_lin", "attention.k_lin", "attention.v_lin"), "attention.out_lin", "ffn.lin1", "ffn.lin2"),
        ("pre_classifier", "classifier"),
        "pre_classifier",
        "classifier",
        activation="ReLU",
    ),
    "modernbert": Family(
        "model.layers",
        _sites(("attn.Wqkv",), "attn.Wo", "mlp.Wi", "mlp.Wo"),
        ("head", "classifier"),
        "head.dense",
        "classifier",
        pretrained=True,
        is_gated=True,
        is_bare=True,
    ),
    "deberta-v2": Family(
        "deberta.encoder.layer",
        _sites(
            ("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
            "attention.output.dense",
            "intermediate.dense",
            "output.dense",
        ),
        ("pooler", "classifier"),
        "pooler.dense",
        "classifier",
        activation="GELU",
    ),
    "albert": Family(
        "albert.encoder.albert_layer_groups.0.albert_layers",
        _sites(("attention.query", "attention.key", "attention.value"), "attention.dense", "ffn", "ffn_output"),
        ("albert.pooler", "classifier"),
        "albert.pooler",
        "classifier",
        pretrained=True,
    ),
}


def has_walk(arch: Architecture) -> bool:
    """Say whether the packed pass can compute the encoder; any other uses its stock padded forward pass."""
    return arch.built is None


def is_fused(arch: Architecture) -> bool:
    """Say whether query, key and value are one linear layer, the site `qkv`."""
    return any(linear.site == "qkv" for linear in linears(arch))


def module_name(family: str, site: Site, layer: int) -> str:
    """Return the full name of a linear layer in the stock sequence-classification model.

    >>> module_name("roberta", "query", 3)
    'roberta.encoder.layer.3.attention.self.query'
    """
    return f"{layer_name(family, layer)}.{FAMILIES[family].sites[site]}"


def layer_name(family: str, layer: int) -> str:
    """Return the full name of an encoder layer in the stock sequence-classification model."""
    return f"{FAMILIES[family].layers}.{layer}"


def linears(arch: Architecture) -> tuple[Linear, ...]:
    """Return every linear layer inside the encoder's layers, bottom to top."""
    return _sized_linears(arch) if arch.built is None else arch.built.linears


@lru_cache  # a study's plan asks for them many thousand times
def _sized_linears(arch: Architecture) -> tuple[Linear, ...]:
    family = FAMILIES[arch.family]
    return tuple(
        Linear(module_name(arch.family, site, layer), site, layer, *site_shape(arch, site), not family.is_bare)
        for layer in range(arch.n_layers)
        for site in family.sites
    )


def site_shape(arch: Architecture, site: Site) -> tuple[int, int]:
    """Return (d_in, d_out) of a site's linear layer, in a family that its sizes describe."""
    match site:
        case "qkv":
            return arch.width, 3 * arch.width
        case "ffn_in":
            return arch.width, arch.ffn_width * (2 if FAMILIES[arch.family].is_gated else 1)
        case "ffn_out":
            return arch.ffn_width, arch.width
        case _:
            return arch.width, arch.width


def longest_tokens(arch: Architecture) -> int:
    """Return the most tokens that a text may have, special ones included."""
    if arch.built is not None:
        return arch.built.longest_tokens
    return arch.n_positions - FAMILIES[arch.family].n_unused_positions


def head_modules(arch: Architecture) -> tuple[str, ...]:
    """Return the modules that the stock class has after the encoder, first to last; each is trained and saved whole.

    BERT's and ALBERT's pooler counts as one. The single `classifier` of RoBERTa and its like holds two linear layers.
    """
    return FAMILIES[arch.family].head if arch.built is None else arch.built.head_modules


def head_layers(arch: Architecture) -> tuple[str, str]:
    """Return the full names of the head's dense part and of its last layer [C, D].

    The dense part is one layer [D, D]; of an encoder that was built, everything before the last layer.
    """
    if arch.built is not None:
        return "+".join(arch.built.head_modules), arch.built.last
    return FAMILIES[arch.family].dense, FAMILIES[arch.family].last


def n_parameters(arch: Architecture, n_classes: int) -> int:
    """Return the number of parameters of the stock sequence-classification model with C classes."""
    return encoder_parameters(arch) + head_parameters(arch, n_classes)


def head_parameters(arch: Architecture, n_classes: int) -> int:
    """Return the parameters of every layer after the encoder: linear ones [D, D] and [D, C], and ModernBERT's norm."""
    if arch.built is not None:
        return arch.built.head_fixed + n_classes * arch.built.head_per_class
    return arch.width**2 + dense_bias(arch) + _head_norm(arch) + _linear(arch.width, n_classes)


def dense_bias(arch: Architecture) -> int:
    """Return the entries of the bias of the head's dense layer; ModernBERT's has none."""
    return 0 if FAMILIES[arch.family].is_bare else arch.width


def _head_norm(arch: Architecture) -> int:
    """The parameters of a norm in the head, which only ModernBERT has."""
    return arch.width if FAMILIES[arch.family].is_bare else 0


def encoder_parameters(arch: Architecture) -> int:
    """Return the parameters of the embeddings and the encoder's layers (BERT's pooler counts as head)."""
    if arch.built is not None:
        return arch.built.encoder_parameters
    matrices = sum(linear.d_in * linear.d_out for linear in linears(arch))
    return matrices + _embeddings(arch) + _norm_weights(arch) + encoder_biases(arch)


def encoder_biases(arch: Architecture) -> int:
    """Return the entries of every parameter named `*.bias` in the embeddings and the encoder's layers.

    Layer norms have one each, except ModernBERT's. MPNet's `relative_attention_bias.weight` is a table, not a bias.
    """
    if arch.built is not None:
        return arch.built.encoder_biases
    if FAMILIES[arch.family].is_bare:
        return 0
    return sum(linear.d_out for linear in linears(arch)) + _projection_width(arch) + _norm_weights(arch)


def _embeddings(arch: Architecture) -> int:
    """The tables of the embeddings, relative positions included, and the matrix from narrow embeddings to the width."""
    entries = arch.vocab_size + arch.n_types
    match arch.family:
        case "modernbert":  # rotary positions
            relative = 0
        case "deberta-v2":  # one table for all layers, buckets of both directions
            relative = 2 * arch.n_buckets * arch.width
        case _:
            entries += arch.n_positions
            relative = arch.n_buckets * arch.n_heads
    return entries * arch.embedding_width + arch.embedding_width * _projection_width(arch) + relative


def _projection_width(arch: Architecture) -> int:
    """Return D if a layer takes the embeddings to the width: ELECTRA's if they differ, ALBERT's always; else 0."""
    return arch.width if arch.embedding_width != arch.width or arch.family == "albert" else 0


def _norm_weights(arch: Architecture) -> int:
    """The weights of the layer norms: the embeddings', two per layer, and what a family has besides."""
    of_positions = arch.width if arch.family == "deberta-v2" else 0
    # ModernBERT's first layer lacks one, and its end has one.
    return arch.embedding_width + 2 * arch.width * arch.n_layers + of_positions


def _linear(d_in: int, d_out: int) -> int:
    return d_in * d_out + d_out

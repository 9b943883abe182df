"""The six encoder families: where their linear layers are, what shapes they have, how they are counted.

Names are those of transformers' stock sequence-classification classes (5.23), since PEFT finds its
targets by them. Which layers get an adapter is decided in `planning`; what trains is counted in `budget`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Family = Literal["bert", "roberta", "xlm-roberta", "electra", "mpnet", "distilbert"]
Site = Literal["query", "key", "value", "attention_output", "ffn_in", "ffn_out"]

FAMILIES: tuple[Family, ...] = get_args(Family)
SITES: tuple[Site, ...] = get_args(Site)


@dataclass(frozen=True)
class Architecture:
    """The sizes of an encoder, in units (neurons, entries, layers), and its family.

    `name` is what the user wrote, `revision` a commit where it comes from the Hub. `n_types` counts token types and
    `n_buckets` the relative positions; each is 0 where the family has none. `embedding_width` differs from `width`
    in some ELECTRAs only.
    """

    name: str
    family: Family
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


def module_name(family: Family, site: Site, layer: int) -> str:
    """Return the full name of a linear layer in the stock sequence-classification model.

    >>> module_name("roberta", "query", 3)
    'roberta.encoder.layer.3.attention.self.query'
    """
    return f"{layer_name(family, layer)}.{_inner_name(family, site)}"


def layer_name(family: Family, layer: int) -> str:
    """Return the full name of an encoder layer in the stock sequence-classification model."""
    return f"{_layers_path(family)}.{layer}"


def linear_modules(arch: Architecture) -> dict[str, tuple[Site, int]]:
    """Return {full name: (site, layer)} of every linear layer inside the encoder's layers, bottom to top."""
    return {module_name(arch.family, site, layer): (site, layer) for layer in range(arch.n_layers) for site in SITES}


def site_shape(arch: Architecture, site: Site) -> tuple[int, int]:
    """Return (d_in, d_out) of a site's linear layer."""
    match site:
        case "ffn_in":
            return arch.width, arch.ffn_width
        case "ffn_out":
            return arch.ffn_width, arch.width
        case _:
            return arch.width, arch.width


def head_modules(family: Family) -> tuple[str, ...]:
    """Return the modules that the stock class has after the encoder, first to last.

    Each is one linear layer, but the single `classifier` of RoBERTa, XLM-R, ELECTRA and MPNet,
    which holds two: `dense` and `out_proj`.

    >>> head_modules("bert")
    ('bert.pooler', 'classifier')
    """
    match family:
        case "bert":
            return ("bert.pooler", "classifier")
        case "distilbert":
            return ("pre_classifier", "classifier")
        case _:
            return ("classifier",)


def head_layers(family: Family) -> tuple[str, str]:
    """Return the full names of the head's two linear layers: the dense one [D, D] and the last one [C, D]."""
    match family:
        case "bert":
            return "bert.pooler.dense", "classifier"
        case "distilbert":
            return "pre_classifier", "classifier"
        case _:
            return "classifier.dense", "classifier.out_proj"


def n_parameters(arch: Architecture, n_classes: int) -> int:
    """Return the number of parameters of the stock sequence-classification model with C classes."""
    return encoder_parameters(arch) + head_parameters(arch, n_classes)


def head_parameters(arch: Architecture, n_classes: int) -> int:
    """Return the parameters of every layer after the encoder: a dense layer [D, D] and one [D, C]."""
    return _linear(arch.width, arch.width) + _linear(arch.width, n_classes)


def encoder_parameters(arch: Architecture) -> int:
    """Return the parameters of the embeddings and the encoder's layers (BERT's pooler counts as head)."""
    entries = arch.vocab_size + arch.n_positions + arch.n_types
    embeddings = entries * arch.embedding_width + 2 * arch.embedding_width
    attention_norm = ffn_norm = 2 * arch.width
    linear = sum(_linear(*site_shape(arch, site)) for site in SITES)
    buckets = arch.n_buckets * arch.n_heads
    return embeddings + _projection(arch) + arch.n_layers * (linear + attention_norm + ffn_norm) + buckets


def encoder_biases(arch: Architecture) -> int:
    """Return the entries of every parameter named `*.bias` in the embeddings and the encoder's layers.

    Layer norms have one each. MPNet's `relative_attention_bias.weight` is a table, not a bias.
    """
    attention_norm = ffn_norm = arch.width
    linear = sum(site_shape(arch, site)[1] for site in SITES)
    projection = arch.width if _projection(arch) else 0
    return arch.embedding_width + projection + arch.n_layers * (linear + attention_norm + ffn_norm)


def _linear(d_in: int, d_out: int) -> int:
    return d_in * d_out + d_out


def _projection(arch: Architecture) -> int:
    """The parameters of ELECTRA's layer from embedding width to width; 0 where both are equal."""
    return 0 if arch.embedding_width == arch.width else _linear(arch.embedding_width, arch.width)


def _layers_path(family: Family) -> str:
    match family:
        case "xlm-roberta":
            return "roberta.encoder.layer"
        case "distilbert":
            return "distilbert.transformer.layer"
        case _:
            return f"{family}.encoder.layer"


def _inner_name(family: Family, site: Site) -> str:
    """The site's name inside one layer of the encoder."""
    names = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    ffn = ("intermediate.dense", "output.dense")
    match family:
        case "mpnet":
            names = ("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o")
        case "distilbert":
            names = ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin")
            ffn = ("ffn.lin1", "ffn.lin2")
        case _:
            pass
    return (names + ffn)[SITES.index(site)]

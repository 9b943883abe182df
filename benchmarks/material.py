"""What the contestants work on: encoders of known sizes, and rows of token ids as long as AG News texts are.

Nothing is fetched. MiniLM's weights come from their package; roberta-base's size has random weights, which
cost what trained ones cost. Without the package, $SUBMILLION_TOKENIZER is a folder with MiniLM's tokenizer and
config.json, and MiniLM's weights are random, too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoModel, AutoTokenizer

from submillion.model import backbone
from submillion.model.batching import TokenizedSplit
from submillion.planning.architectures import files

LABELS = ("Business", "Sci/Tech", "Sports", "World")
MINILM = "all-MiniLM-L6-v2"
_TOKENIZER = "SUBMILLION_TOKENIZER"
# Each is one of MiniLM's tokens.
WORDS = "market team world new software player government price game plan report year oil web record".split()
# In MiniLM's tokens, of 20,000 of AG News' training texts (title and description): the quantiles 0, 5 % ... 100 %.
_LENGTHS = (18, 32, 36, 39, 41, 43, 44, 46, 48, 49, 51, 52, 54, 55, 57, 59, 62, 65, 70, 83, 128)


# What differs from the defaults of transformers' configs, which have the base size; MiniLM is a BERT.
_SIZES: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "roberta": {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
    "modernbert": {"pad_token_id": 0, "cls_token_id": 101, "sep_token_id": 102},
    "albert": {"vocab_size": 30522, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    "deberta-v2": {
        "vocab_size": 128100,
        "relative_attention": True,
        "position_buckets": 256,
        "share_att_key": True,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "type_vocab_size": 0,
        "intermediate_size": 3072,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "layer_norm_eps": 1e-7,
    },
}


def roberta_base(folder: Path) -> Path:
    """Save a random encoder of roberta-base's size, with MiniLM's tokenizer; return the folder."""
    return random_encoder("roberta", folder)


def minilm(folder: Path) -> str:
    """Return MiniLM's name, or if it is not at hand the folder of a random encoder of its size, saved there."""
    return str(random_encoder("bert", folder)) if _TOKENIZER in os.environ else MINILM


def random_encoder(family: str, folder: Path) -> Path:
    """Save a random encoder of the family's size, with MiniLM's tokenizer; return the folder."""
    import torch

    config = AutoConfig.for_model(family, **_SIZES[family])
    torch.manual_seed(0)
    with backbone.quiet():
        AutoModel.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(os.environ.get(_TOKENIZER) or files.folder(MINILM)).save_pretrained(folder)
    return folder


def rows(n_rows: int, seed: int, length: int | None = None) -> TokenizedSplit:
    """Return rows of random tokens and labels, as long as AG News texts, or all of one length, in tokens."""
    rng = np.random.default_rng(seed)
    if length is None:
        places = rng.uniform(0, len(_LENGTHS) - 1, n_rows)
        lengths = np.interp(places, np.arange(len(_LENGTHS)), _LENGTHS).round().astype(np.int64)
    else:
        lengths = np.full(n_rows, length)
    n_tokens = int(lengths.sum())
    return TokenizedSplit(
        tokens=rng.integers(1000, 30000, n_tokens, dtype=np.int32),
        token_types=np.zeros(n_tokens, np.uint8),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        label_ids=rng.integers(0, len(LABELS), n_rows),
        example_ids=tuple(map(str, range(n_rows))),
        n_truncated=0,
    )


def texts(n_texts: int, seed: int, length: int | None = None) -> list[str]:
    """Return texts of as many tokens as those `rows`: each of their words is one, and two are special."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, n - 2)) for n in rows(n_texts, seed, length).lengths]


def as_dicts(split: TokenizedSplit) -> list[dict[str, Any]]:
    """Return the rows in the form that transformers' Trainer reads."""
    parts = np.split(split.tokens, split.offsets[1:-1])
    return [
        {"input_ids": tokens.tolist(), "attention_mask": [1] * len(tokens), "labels": int(label)}
        for tokens, label in zip(parts, split.label_ids, strict=True)
    ]

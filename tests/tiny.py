"""Tiny random encoders of each family, and of one that is built, each with a tokenizer of its own class.

Everything is built in memory and saved as a stock checkpoint: a folder that every command and plain
transformers can read. Weights are larger than a fresh model's, and no bias is zero, so that a
difference anywhere shows in the logits.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    AlbertTokenizer,
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    BertTokenizer,
    CamembertTokenizer,
    DebertaV2Tokenizer,
    DistilBertTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerBase,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from submillion.config import Config, validate
from submillion.model.backbone import quiet
from tests.kit.architectures import DEBERTA_V3

# Of the packed pass.
FAMILIES = ("bert", "roberta", "xlm-roberta", "electra", "mpnet", "distilbert", "modernbert", "deberta-v2", "albert")
PADDED = ("nomic_bert",)  # in no table
WORDS = "the a of and in to good bad fine poor film book play game team market world news great dull".split()
TEXTS = (
    "a good film",
    "the market in the world news of the team",
    "bad",
    "poor play and a dull game in the book 42",
    "great",
    "fine news to a team of the world",
)

_CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation
_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")


def make_encoder(
    family: str,
    folder: Path | str,
    n_layers: int = 2,
    width: int = 32,
    n_heads: int = 4,
    ffn_width: int = 64,
    **config_kwargs: Any,
) -> Path:
    """Save a tiny random pretrained encoder of `family` with its tokenizer; return the folder.

    `config_kwargs` go to the family's transformers config. The same arguments give the same weights.
    """
    tokenizer = make_tokenizer(family)
    config = AutoConfig.for_model(
        family,
        **{
            **_sizes(family, n_layers, width, n_heads, ffn_width),
            **_vocabulary(family, tokenizer),
            **config_kwargs,
        },
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # ModernBERT's classifiers begin with the head of its masked language model, BERT's with its pooler.
        model = (AutoModelForMaskedLM if family == "modernbert" else AutoModel).from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Path(folder)


def make_tokenizer(family: str) -> PreTrainedTokenizerBase:
    """Return a fast tokenizer of the family's own class over `WORDS` and single characters."""
    match family:
        case "bert" | "electra" | "modernbert" | "nomic_bert":
            return BertTokenizer(vocab=_word_pieces(_BERT_SPECIALS), model_max_length=128)
        case "distilbert":
            return DistilBertTokenizer(vocab=_word_pieces(_BERT_SPECIALS), model_max_length=128)
        case "mpnet":
            specials = ("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>")
            return MPNetTokenizer(vocab=_word_pieces(specials), model_max_length=128)
        case "roberta":
            tokens = (*_ROBERTA_SPECIALS, *sorted(ByteLevel.alphabet()), "<mask>")
            return RobertaTokenizer(vocab=_numbered(tokens), merges=[], model_max_length=128)
        case "xlm-roberta":
            return XLMRobertaTokenizer(vocab=_unigrams(_ROBERTA_SPECIALS, "<mask>"), model_max_length=128)
        case "camembert":
            specials = ("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>")
            vocab = _unigrams(specials, "<mask>", "<s>", "</s>")
            return CamembertTokenizer(vocab=vocab, model_max_length=128)
        case "deberta-v2":
            vocab = _unigrams(("[PAD]", "[CLS]", "[SEP]", "[UNK]"), "[MASK]")
            return DebertaV2Tokenizer(vocab=vocab, unk_id=3, model_max_length=128)
        case "albert":
            return AlbertTokenizer(
                vocab=_unigrams(("<pad>", "<unk>", "[CLS]", "[SEP]"), "[MASK]"), model_max_length=128
            )
    raise ValueError(family)


def _unigrams(specials: tuple[str, ...], *last: str) -> list[tuple[str, float]]:
    words = [(f"▁{word}", -2.0) for word in WORDS]
    pieces = [(piece, -8.0) for piece in ("▁", *_CHARACTERS)]
    return [*((token, 0.0) for token in specials), *words, *pieces, *((token, 0.0) for token in last)]


def _word_pieces(specials: tuple[str, ...]) -> dict[str, int]:
    return _numbered((*specials, *WORDS, *_CHARACTERS, *(f"##{character}" for character in _CHARACTERS)))


def _numbered(tokens: tuple[str, ...]) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def _sizes(family: str, n_layers: int, width: int, n_heads: int, ffn_width: int) -> dict[str, int]:
    if family == "distilbert":
        return {"n_layers": n_layers, "dim": width, "n_heads": n_heads, "hidden_dim": ffn_width}
    sizes = {
        "num_hidden_layers": n_layers,
        "hidden_size": width,
        "num_attention_heads": n_heads,
        "intermediate_size": ffn_width,
    }
    match family:
        case "electra" | "albert":
            return {**sizes, "embedding_size": width // 2}
        case "deberta-v2":  # as all of version 3 are
            return {**sizes, "position_buckets": 8}
        case _:
            return sizes


def _vocabulary(family: str, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Config values that follow from the tokenizer; positions of the RoBERTa kind start at pad id + 1."""
    offset = 2 if family in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    values = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": 128 + offset,
    }
    if offset:
        values |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    match family:
        case "roberta" | "xlm-roberta" | "camembert":
            return {**values, "type_vocab_size": 1}
        case "modernbert":
            specials = {"cls_token_id": tokenizer.cls_token_id, "sep_token_id": tokenizer.sep_token_id}
            return {**values, **specials, "bos_token_id": None, "eos_token_id": None, "local_attention": 8}
        case "deberta-v2":
            return {**values, **DEBERTA_V3}
        case _:
            return values


def settings(encoder: Path | str, head: str = "full", train: dict[str, Any] | None = None, **adapter: Any) -> Config:
    """Return a config on a tiny encoder whose budget is no limit; `adapter` are keys of that section."""
    model = {"name": str(encoder), "head": head, "max_length": 32}
    if head == "bottleneck":
        model["head_width"] = 3
    adapter = {"rank": 4, **adapter} if adapter.get("method", "lora") in ("lora", "dora", "adalora") else adapter
    return validate({"model": model, "adapter": adapter, "train": train or {}})

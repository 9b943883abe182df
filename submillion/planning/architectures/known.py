"""The checkpoints that can be planned without their config.json: names, and sizes as published in it."""

from __future__ import annotations

from typing import Any

from submillion.planning.architectures.families import Architecture


def _sizes(
    family: str, n_layers: int, width: int, ffn_width: int, vocab_size: int, n_positions: int, **others: int
) -> Architecture:
    """An architecture without a name; all of these have heads of 64 entries, unless `n_heads` says otherwise."""
    sizes = {"n_layers": n_layers, "width": width, "ffn_width": ffn_width, "n_heads": width // 64}
    shapes = {"vocab_size": vocab_size, "n_positions": n_positions, "n_types": 0, "embedding_width": width}
    fields: dict[str, Any] = {**sizes, **shapes, **others}
    return Architecture("", family, **fields)


def _bert(n_layers: int, width: int, vocab_size: int, **others: int) -> Architecture:
    return _sizes("bert", n_layers, width, 4 * width, vocab_size, 512, n_types=2, **others)


def _roberta(
    n_layers: int, width: int, vocab_size: int = 50265, family: str = "roberta", n_positions: int = 514
) -> Architecture:
    return _sizes(family, n_layers, width, 4 * width, vocab_size, n_positions, n_types=1)


def _xlm_roberta(n_layers: int, width: int, n_positions: int = 514) -> Architecture:
    return _roberta(n_layers, width, 250002, "xlm-roberta", n_positions)


def _modernbert(
    n_layers: int, width: int, ffn_width: int, vocab_size: int = 50368, n_positions: int = 8192
) -> Architecture:
    return _sizes("modernbert", n_layers, width, ffn_width, vocab_size, n_positions)


def _ettin(n_layers: int, width: int, ffn_width: int) -> Architecture:
    return _modernbert(n_layers, width, ffn_width, n_positions=7999)


def _deberta(n_layers: int, width: int, vocab_size: int = 128100) -> Architecture:
    return _sizes("deberta-v2", n_layers, width, 4 * width, vocab_size, 512, n_buckets=256)


KNOWN: dict[str, Architecture] = {
    "FacebookAI/roberta-base": _roberta(12, 768),
    "FacebookAI/roberta-large": _roberta(24, 1024),
    "distilbert/distilroberta-base": _roberta(6, 768),
    "google-bert/bert-base-uncased": _bert(12, 768, 30522),
    "google-bert/bert-base-cased": _bert(12, 768, 28996),
    "google-bert/bert-large-uncased": _bert(24, 1024, 30522),
    "google-bert/bert-large-cased": _bert(24, 1024, 28996),
    "distilbert/distilbert-base-uncased": _sizes("distilbert", 6, 768, 3072, 30522, 512),
    "google/electra-small-discriminator": _sizes("electra", 12, 256, 1024, 30522, 512, n_types=2, embedding_width=128),
    "google/electra-base-discriminator": _sizes("electra", 12, 768, 3072, 30522, 512, n_types=2),
    "microsoft/mpnet-base": _sizes("mpnet", 12, 768, 3072, 30527, 514, n_buckets=32),
    "sentence-transformers/all-mpnet-base-v2": _sizes("mpnet", 12, 768, 3072, 30527, 514, n_buckets=32),
    "sentence-transformers/all-MiniLM-L6-v2": _bert(6, 384, 30522, n_heads=12),
    "sentence-transformers/all-MiniLM-L12-v2": _bert(12, 384, 30522, n_heads=12),
    "FacebookAI/xlm-roberta-base": _xlm_roberta(12, 768),
    "FacebookAI/xlm-roberta-large": _xlm_roberta(24, 1024),
    "intfloat/multilingual-e5-small": _bert(12, 384, 250037, n_heads=12),
    "intfloat/multilingual-e5-base": _xlm_roberta(12, 768),
    "BAAI/bge-m3": _xlm_roberta(24, 1024, n_positions=8194),
    "answerdotai/ModernBERT-base": _modernbert(22, 768, 1152),
    "answerdotai/ModernBERT-large": _modernbert(28, 1024, 2624),
    "jhu-clsp/ettin-encoder-17m": _ettin(7, 256, 384),
    "jhu-clsp/ettin-encoder-32m": _ettin(10, 384, 576),
    "jhu-clsp/ettin-encoder-68m": _ettin(19, 512, 768),
    "jhu-clsp/ettin-encoder-150m": _ettin(22, 768, 1152),
    "jhu-clsp/ettin-encoder-400m": _ettin(28, 1024, 2624),
    "jhu-clsp/mmBERT-small": _modernbert(22, 384, 1152, 256000),
    "jhu-clsp/mmBERT-base": _modernbert(22, 768, 1152, 256000),
    "microsoft/deberta-v3-xsmall": _deberta(12, 384),
    "microsoft/deberta-v3-small": _deberta(6, 768),
    "microsoft/deberta-v3-base": _deberta(12, 768),
    "microsoft/deberta-v3-large": _deberta(24, 1024),
    "microsoft/mdeberta-v3-base": _deberta(12, 768, 251000),
    "albert/albert-base-v2": _sizes("albert", 1, 768, 3072, 30000, 512, n_types=2, embedding_width=128, n_repeats=12),
}
_SHORT = {"electra-small": "google/electra-small-discriminator", "electra-base": "google/electra-base-discriminator"}


def known() -> list[str]:
    """Return the short names of the checkpoints that need no config.json, sorted."""
    return sorted({hub.partition("/")[2] for hub in KNOWN} | set(_SHORT), key=str.lower)


def hub_id(name: str) -> str | None:
    """Return the Hub id of a checkpoint known offline, or None.

    >>> hub_id("roberta-base")
    'FacebookAI/roberta-base'
    """
    if name in KNOWN:
        return name
    return _SHORT.get(name) or next((hub for hub in KNOWN if hub.partition("/")[2] == name), None)

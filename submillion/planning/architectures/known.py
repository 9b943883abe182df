"""The checkpoints that can be planned without their config.json: names, and sizes as published in it."""

from __future__ import annotations

from submillion.planning.architectures.families import Family

# Hub id: (family, layers, width, ffn width, heads, vocabulary, positions, token types, embedding width, buckets)
KNOWN: dict[str, tuple[Family, int, int, int, int, int, int, int, int, int]] = {
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
    return sorted({hub.partition("/")[2] for hub in KNOWN} | set(_SHORT), key=str.lower)


def hub_id(name: str) -> str | None:
    """Return the Hub id of a checkpoint known offline, or None.

    >>> hub_id("roberta-base")
    'FacebookAI/roberta-base'
    """
    if name in KNOWN:
        return name
    return _SHORT.get(name) or next((hub for hub in KNOWN if hub.partition("/")[2] == name), None)

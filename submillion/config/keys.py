"""Settings as full keys with their values in text, to compare configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return every key with its section, and its value as written in a config.

    >>> flat({"train": {"steps": 20, "epochs": None}})
    {'train.steps': '20', 'train.epochs': 'null'}
    """
    texts: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            texts |= flat(value, f"{prefix}{key}.")
        else:
            texts[prefix + key] = as_text(value)
    return texts


def as_text(value: Any) -> str:
    """Return a setting's value in text: numbers in up to 12 digits, lists in brackets, absent as null."""
    match value:
        case None:
            return "null"
        case float():
            return f"{value:.12g}"
        case list():
            return f"[{','.join(map(as_text, value))}]"
        case _:
            return str(value)

"""The settings, one by one."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def sections(section: BaseModel, path: str = "") -> list[tuple[str, Any]]:
    """Every leaf setting with its dotted key and its field."""
    found: list[tuple[str, Any]] = []
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        found += sections(value, f"{path}{key}.") if isinstance(value, BaseModel) else [(path + key, field)]
    return found

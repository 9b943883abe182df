"""What settings are made of: sections that reject unknown keys, and numbers with limits."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from submillion.text import shown

Count = Annotated[int, Field(gt=0, le=10**12)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Frac = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=10)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
_NO_TEXT = re.compile(r"[\0\ud800-\udfff]")  # bytes of a file's name that are not UTF-8 come as lone surrogates


class Section(BaseModel):
    """A group of settings: frozen, no unknown keys, numbers finite, no truth value as a number, no NUL in a text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_slip(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return value  # its own fields are checked
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
        # A bool is an int to Python: true would be 1. If a text is expected, pydantic refuses it.
        accepted = {annotation, *get_args(annotation)} & {bool, str}
        is_slip = (isinstance(value, bool) and not accepted) or any(isinstance(part, bool) for part in parts)
        if is_slip and "Any" not in str(annotation):
            raise ValueError(f"{info.field_name} is {shown(value)}: true and false are not numbers")
        if any(isinstance(part, str) and _NO_TEXT.search(part) for part in (value, *parts)):
            raise ValueError(f"{info.field_name} is {shown(value)}: settings must be valid UTF-8 without NUL")
        return value


def setting(default: Any, help_text: str) -> Any:
    """Return a field with its help text; `default` is what an empty config means."""
    return Field(default, description=help_text)

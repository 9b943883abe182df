"""Long texts as an encoder reads them: both ends, or windows whose logits make one row.

Which tokens are read is decided by `data.long_texts`. Windows are the tokenizer's own: what a stock call with `stride`
and `return_overflowing_tokens` gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from submillion.config import Pooling
from submillion.data import cutting
from submillion.data.long_texts import Reading

Read = tuple[list[int], list[int]]  # token ids and token types of what the encoder reads at once
Span = tuple[int, int]  # of characters


@dataclass(frozen=True)
class Windows:
    """Where the windows of a split's rows are: row i has the windows firsts[i] to firsts[i + 1], int64 [N + 1], and
    window w the tokens offsets[w] to offsets[w + 1], int64 [W + 1]. Each row has at least one."""

    firsts: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, lengths: Sequence[Sequence[int] | np.ndarray]) -> Windows:
        """Return the windows of rows, given each window's number of tokens."""
        firsts = np.cumsum([0, *map(len, lengths)], dtype=np.int64)
        return cls(firsts, np.cumsum([0, *(n for row in lengths for n in row)], dtype=np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Windows]) -> Windows | None:
        """Return the windows of the rows of several splits, one split after the other; None for no splits."""
        return cls.of([each.of_row(row) for each in parts for row in range(len(each.firsts) - 1)]) if parts else None

    @property
    def counts(self) -> np.ndarray:
        """Return the number of windows of each row, int64 [N]."""
        return np.diff(self.firsts)

    @property
    def first_lengths(self) -> np.ndarray:
        """Return the tokens of each row's first window, int64 [N]: those that are read if texts are cut."""
        return np.diff(self.offsets)[self.firsts[:-1]]

    def lengths(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of windows of each of these rows, int64 [B], and each window's tokens, int64 [W]."""
        counts = self.counts[rows]
        numbers = ranges(torch.from_numpy(self.firsts[rows]), torch.from_numpy(counts)).numpy()
        return counts, np.diff(self.offsets)[numbers]

    def of_row(self, row: int) -> np.ndarray:
        """Return the tokens of each window of a row, int64 [its windows]."""
        return np.diff(self.offsets[self.firsts[row] : self.firsts[row + 1] + 1])


def ranges(starts: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Return the numbers of several ranges, one after the other, int64 [their sum].

    >>> ranges(torch.tensor([5, 0]), torch.tensor([2, 3]))
    tensor([5, 6, 0, 1, 2])
    """
    begins = lengths.cumsum(0) - lengths
    return torch.repeat_interleave(starts - begins, lengths) + torch.arange(int(lengths.sum()))


def pooled(logits: torch.Tensor, n_windows: torch.Tensor | None, pooling: Pooling) -> torch.Tensor:
    """Return the logits of each text, float32 [B, C], from those of its windows, [W, C].

    n_windows: of each text, int64 [B]; None if each is one window, whose logits are the text's.
    """
    if n_windows is None:
        return logits
    # Each text's windows are added up in their order, whatever else is in the batch. `unsafe`: lengths are not checked,
    # which would wait for a GPU.
    return torch.segment_reduce(logits, pooling, lengths=n_windows, axis=0, unsafe=True)


def read_windows(texts: Sequence[str], tokenizer: Any, reading: Reading) -> tuple[list[list[Read]], list[bool]]:
    """Return the windows of each text, and whether the text continues beyond the last."""
    encodings = _windowed(texts, tokenizer, reading)
    are_longer = [len(each) > reading.max_windows for each in encodings]
    rows = [[(each.ids, each.type_ids) for each in windows[: reading.max_windows]] for windows in encodings]
    return rows, are_longer


def read_ends(texts: Sequence[str], tokenizer: Any, reading: Reading) -> tuple[list[Read], list[bool]]:
    """Return both ends of each text in one row, and whether it has more between them."""
    n_special = tokenizer.num_special_tokens_to_add(False)
    parts = [cutting.ends(text, tokenizer.backend_tokenizer, *reading.ends(n_special)) for text in texts]
    firsts = _whole([first for first, _ in parts], tokenizer)
    others = iter(_whole([last for first, last in parts if first is not last], tokenizer))
    rows, are_longer = list[Read](), list[bool]()
    for (first, last), beginning in zip(parts, firsts, strict=True):
        end = beginning if first is last else next(others)
        are_longer.append(end is not beginning or len(beginning) > reading.max_length)
        if not are_longer[-1]:
            rows.append((beginning.ids, beginning.type_ids))
            continue
        head, tail = _kept(beginning, reading, n_special)
        rows.append((beginning.ids[:head] + end.ids[-tail:], beginning.type_ids[:head] + end.type_ids[-tail:]))
    return rows, are_longer


def spans(text: str, pair: str | None, tokenizer: Any, reading: Reading) -> tuple[list[Span], list[Span]]:
    """Return which characters of a text, and of the second one of a pair, the encoder reads."""
    match reading.long_texts:
        case "head-tail":
            (whole,) = _whole([text], tokenizer)
            if len(whole) <= reading.max_length:
                return [(0, len(text))], []
            head, tail = _kept(whole, reading, tokenizer.num_special_tokens_to_add(False))
            (_, first_end), (last_start, _) = whole.offsets[head - 1], whole.offsets[-tail]
            return [(0, first_end), (last_start, len(text))], []
        case "windows":
            read = _windowed([text], tokenizer, reading)[0][: reading.max_windows]
        case "cut":
            pairs = None if pair is None else [pair]
            read = tokenizer([text], pairs, truncation=True, max_length=reading.max_length, padding=False).encodings
    is_end_read = tokenizer.truncation_side == "left"
    both = (_read_of(0, text, read, is_end_read), _read_of(1, pair or "", read, is_end_read))
    return both[0], both[1]


def _read_of(number: int, text: str, read: Sequence[Any], is_end_read: bool) -> list[Span]:
    """Return the characters of text 0 or 1 that are read: up to its last token, or from its first one."""
    parts = [
        span
        for encoding in read
        for sequence, span in zip(encoding.sequence_ids, encoding.offsets, strict=True)
        if sequence == number
    ]
    if not parts:
        return []
    return [(min(start for start, _ in parts), len(text))] if is_end_read else [(0, max(end for _, end in parts))]


def _windowed(texts: Sequence[str], tokenizer: Any, reading: Reading) -> list[list[Any]]:
    """Return the encodings of each text's windows; at least one more than are read if the text goes beyond them."""
    n_special = tokenizer.num_special_tokens_to_add(False)
    if tokenizer.truncation_side == "right":
        most = reading.most_tokens(n_special)
        texts = [cutting.cut(text, tokenizer.backend_tokenizer, most) for text in texts]
    settings = {"max_length": reading.max_length, "stride": reading.overlap(n_special)}
    encodings = tokenizer(list(texts), truncation=True, padding=False, **settings).encodings
    return [[each, *each.overflowing] for each in encodings]


def _whole(texts: list[str], tokenizer: Any) -> list[Any]:
    """The encodings of whole texts, special tokens included."""
    return tokenizer(texts, truncation=False, padding=False, verbose=False).encodings if texts else []


def _kept(encoding: Any, reading: Reading, n_special: int) -> tuple[int, int]:
    """Return how many of the first and last tokens are kept, the special ones around a text included."""
    return reading.kept(encoding.sequence_ids.index(0), n_special)

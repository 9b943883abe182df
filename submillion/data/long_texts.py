"""What is read of texts that are longer than an encoder reads at once: their beginning, both ends, or windows.

Owns the arithmetic: how long windows are, by how much they overlap, how many a text has, and what they cost. Which
tokens these are is left to `model.batching`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from submillion.config import MAX_WINDOWS, LongTexts, ModelConfig

# Sun et al. 2019, "How to Fine-Tune BERT for Text Classification?", section 5.3.1: 128 of 510 tokens from the head and
# 382 from the tail had the lowest error on IMDb and Sogou, below either end alone and below pooled pieces.
_HEAD = 0.25
# Half as much repeats nearly no token; more costs tokens. What a window cuts in two is whole in the next one.
_OVERLAP = 0.25


@dataclass(frozen=True)
class Reading:
    """How texts are read: at most `max_length` tokens at once, special ones included; longer ones by `long_texts`.

    max_windows: of a text, with `windows`; what is beyond the last one is not read.
    """

    max_length: int
    long_texts: LongTexts = "cut"
    max_windows: int = MAX_WINDOWS

    @classmethod
    def of(cls, model: ModelConfig) -> Reading:
        """Return what the settings say."""
        return cls(model.max_length, model.long_texts, model.max_windows or MAX_WINDOWS)

    def ends(self, n_special: int) -> tuple[int, int]:
        """Return how many of a long text's first and last tokens `head-tail` reads, special ones not counted.

        >>> Reading(512, "head-tail").ends(2)
        (128, 382)
        """
        n_tokens = self._n_tokens(n_special)
        n_head = round(_HEAD * n_tokens)
        return n_head, n_tokens - n_head

    def kept(self, n_before: int, n_special: int) -> tuple[int, int]:
        """Return the same for a text with its special tokens, `n_before` of which come first; both ends keep theirs.

        >>> Reading(512, "head-tail").kept(1, 2)
        (129, 383)
        """
        n_first, n_last = self.ends(n_special)
        return n_before + n_first, n_last + n_special - n_before

    def overlap(self, n_special: int) -> int:
        """Return how many tokens two neighbouring windows share: a quarter of a window's, special ones not counted.

        >>> Reading(512, "windows").overlap(2)
        127
        """
        return int(_OVERLAP * self._n_tokens(n_special))

    def most_tokens(self, n_special: int) -> int:
        """Return how many different tokens of a text are read at most, special ones not counted.

        >>> Reading(512, "windows", max_windows=3).most_tokens(2)  # 510, and two times 510 - 127
        1276
        """
        n_tokens = self._n_tokens(n_special)
        if self.long_texts != "windows":
            return n_tokens
        return n_tokens + (self.max_windows - 1) * (n_tokens - self.overlap(n_special))

    def n_windows(self, lengths: np.ndarray, n_special: int) -> np.ndarray:
        """Return how many windows texts of these lengths (tokens, special ones included) have, int64 [N]; else 1.

        >>> Reading(12, "windows", max_windows=3).n_windows(np.array([5, 12, 13, 20, 21, 99]), 2)
        array([1, 1, 2, 2, 3, 3])
        """
        lengths = np.asarray(lengths, dtype=np.int64)
        if self.long_texts != "windows":
            return np.ones_like(lengths)
        step = self._n_tokens(n_special) - self.overlap(n_special)
        n_further = -(-np.maximum(lengths - self.max_length, 0) // step)
        return np.minimum(1 + n_further, self.max_windows)

    def n_read(self, lengths: np.ndarray, n_special: int) -> np.ndarray:
        """Return how many tokens the encoder reads of texts of these lengths, special and repeated ones included.

        >>> Reading(12, "windows", max_windows=3).n_read(np.array([5, 12, 13, 20, 21, 99]), 2)
        array([ 5, 12, 17, 24, 29, 36])
        """
        lengths = np.asarray(lengths, dtype=np.int64)
        n_repeated = self.overlap(n_special) + n_special
        once = np.minimum(lengths, self.most_tokens(n_special) + n_special)
        return once + (self.n_windows(lengths, n_special) - 1) * n_repeated

    def _n_tokens(self, n_special: int) -> int:
        """Return a window's tokens without special ones; at least one, even if pairs' special tokens are as many."""
        return max(1, self.max_length - n_special)

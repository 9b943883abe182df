"""The flat storage of a split's token ids, and the `Batch` that is cut from it.

Where the ids come from is the affair of `tokens`, which rows make a batch that of `order`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch


@dataclass(frozen=True)
class Batch:
    """Rows for one forward pass: T tokens of B texts, one after the other, without padding.

    tokens, token_types: int64 [T] · offsets: int64 [B + 1], text i is tokens[offsets[i]:offsets[i+1]],
    kept on the CPU · label_ids: int64 [B] · teacher_logits: float32 [B, C] or None · hidden: [T, D], the output of
    the model's frozen lower layers where that is kept, or None.
    """

    tokens: torch.Tensor
    token_types: torch.Tensor
    offsets: torch.Tensor
    label_ids: torch.Tensor
    teacher_logits: torch.Tensor | None
    example_ids: tuple[str, ...]
    hidden: torch.Tensor | None = None

    @property
    def n_rows(self) -> int:
        """Return B."""
        return len(self.example_ids)

    @property
    def n_tokens(self) -> int:
        """Return T, the real tokens."""
        return int(self.tokens.numel())

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch with its tensors, but the offsets, on `device`."""
        teacher = None if self.teacher_logits is None else self.teacher_logits.to(device)
        return replace(
            self,
            tokens=self.tokens.to(device),
            token_types=self.token_types.to(device),
            label_ids=self.label_ids.to(device),
            teacher_logits=teacher,
            hidden=None if self.hidden is None else self.hidden.to(device),
        )


@dataclass(frozen=True)
class TokenizedSplit:
    """A split's token ids in flat arrays: tokens uint16 or int32 [T], token_types uint8 [T], offsets int64 [N + 1],
    label_ids int64 [N] (-1 where a row has no label), example_ids of length N, n_truncated rows cut.

    notes: sentences worth printing · hidden, where the frozen layers' output is kept: from the texts' first tokens
    and lengths (int64 [B] each) to their rows [T, D], one text after the other.
    n_variants: the rows are so many blocks of equal length, each a variant of the same examples in the same order, of
    which an epoch reads one.
    teacher_logits: float32 [N, C], where there is a teacher.
    """

    tokens: np.ndarray
    token_types: np.ndarray
    offsets: np.ndarray
    label_ids: np.ndarray
    example_ids: tuple[str, ...]
    n_truncated: int
    notes: tuple[str, ...] = ()
    hidden: Callable[[np.ndarray, np.ndarray], torch.Tensor] | None = None
    n_variants: int = 1
    teacher_logits: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.example_ids)

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each row, int64 [N]."""
        return np.diff(self.offsets)

    @property
    def epoch_lengths(self) -> np.ndarray:
        """Return the tokens of each row of an epoch, int64 [N / n_variants]: its longest variant's, so that all fit."""
        return self.lengths.reshape(self.n_variants, -1).max(axis=0)

    def in_epoch(self, rows: np.ndarray, epoch: int) -> np.ndarray:
        """Return where the variants of an epoch's rows stand: variant 0 in epoch 0, then 1, and round again."""
        return rows + epoch % self.n_variants * (len(self) // self.n_variants)

    def batch(self, rows: np.ndarray) -> Batch:
        """Return the rows (int64 [B], in the order wanted) as a `Batch` on the CPU."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        index = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Batch(
            tokens=torch.from_numpy(self.tokens[index].astype(np.int64)),
            token_types=torch.from_numpy(self.token_types[index].astype(np.int64)),
            offsets=torch.from_numpy(offsets),
            label_ids=torch.from_numpy(self.label_ids[rows]),
            teacher_logits=None if self.teacher_logits is None else torch.from_numpy(self.teacher_logits[rows]),
            example_ids=tuple(self.example_ids[row] for row in rows),
            hidden=None if self.hidden is None else self.hidden(starts, lengths),
        )

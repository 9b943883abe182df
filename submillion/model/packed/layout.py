"""Where the tokens of a batch stand during a packed forward pass.

Owns the order of rows (texts sorted by length), their positions, and the groups of texts of similar
length whose attention is computed together on padded tiles. Only attention ever sees padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch

# bf16 softmax and additions run up to 3 times faster on rows that fill whole 64-byte vectors.
_TILE = 32
# A group of its own costs some 15 calls a layer; merging costs padding. In attention weights, of all heads.
_MERGE_BELOW = 40_000
# A group's attention weights, of all heads, that stay in the processor's cache while they are worked on.
_CACHED = 400_000
# Kernels are made for each new number of rows, at 100 ms a step in all: only this many numbers an octave.
_STEPS = 16


@dataclass(frozen=True)
class Group:
    """Consecutive texts, attended to together: texts first … last, rows start … stop, padded to `width` tokens.

    rows: int64 [texts, width], the row of each token, for padding the first row that belongs to no text.
    slots: int64 [stop - start], each row's place in the flattened [texts, width].
    """

    first: int
    last: int
    start: int
    stop: int
    width: int
    rows: torch.Tensor
    slots: torch.Tensor
    lengths: torch.Tensor

    @property
    def n_texts(self) -> int:
        """Return the number of texts."""
        return self.last - self.first

    def gather(self, n_blocks: int, n_heads: int) -> torch.Tensor:
        """Return the index that takes [rows · blocks · heads, head width] to [blocks, texts, heads, width]."""
        rows = self.rows[None, :, None, :] * (n_blocks * n_heads)
        parts = torch.arange(n_blocks * n_heads, device=rows.device).view(n_blocks, 1, n_heads, 1)
        return (rows + parts).flatten()

    def scatter(self, n_blocks: int, n_heads: int) -> torch.Tensor:
        """Return the index that takes [blocks · texts · heads · width, head width] to [rows, blocks, heads]."""
        text, token = self.slots // self.width, self.slots % self.width
        tile = n_heads * self.width
        blocks = torch.arange(n_blocks, device=text.device) * (self.n_texts * tile)
        heads = torch.arange(n_heads, device=text.device) * self.width
        rows = text * tile + token
        return (rows[:, None, None] + blocks[:, None] + heads).flatten()

    def padding(self, dtype: torch.dtype) -> torch.Tensor:
        """Return what is added to the scores: 0 for tokens, -inf for padding, [texts, 1, 1, width]."""
        is_padding = torch.arange(self.width, device=self.lengths.device) >= self.lengths[:, None]
        return torch.zeros(is_padding.shape, dtype=dtype, device=is_padding.device).masked_fill_(
            is_padding, float("-inf")
        )[:, None, None, :]


@dataclass(frozen=True)
class Layout:
    """The rows of a batch of B texts and T tokens: texts by rising length, then at least one row of none.

    take: int64 [rows], the batch's token of each row (any, for rows of no text) · positions: int64 [rows],
    from 0 in each text · firsts: int64 [B], the row of each text's first token · unsort: int64 [B], which
    text of the layout is text i of the batch.
    """

    take: torch.Tensor
    positions: torch.Tensor
    firsts: torch.Tensor
    unsort: torch.Tensor
    groups: tuple[Group, ...]
    n_tokens: int

    @property
    def n_rows(self) -> int:
        """Return the number of rows, those of no text included."""
        return self.take.numel()

    @property
    def longest(self) -> int:
        """Return the length of the longest tile, in tokens."""
        return max(group.width for group in self.groups)

    @cached_property
    def bounds(self) -> torch.Tensor:
        """Return where texts start and the last one ends, int32 [B + 1], as fused kernels want it."""
        end = torch.tensor([self.n_tokens], device=self.firsts.device)
        return torch.cat([self.firsts, end]).to(torch.int32)


def lay_out(offsets: torch.Tensor, n_heads: int, device: torch.device) -> Layout:
    """Return the layout of a batch with these offsets (int64 [B + 1], on the CPU), its tensors on `device`."""
    ends = offsets.numpy()
    lengths = np.diff(ends)
    order = np.argsort(lengths, kind="stable")
    lengths = lengths[order]
    firsts = np.cumsum(lengths) - lengths
    n_tokens = int(lengths.sum())
    positions = np.arange(n_tokens) - np.repeat(firsts, lengths)
    take = positions + np.repeat(ends[:-1][order], lengths)
    spare = np.zeros(n_rows_for(n_tokens + 1) - n_tokens, dtype=np.int64)

    def there(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    return Layout(
        take=there(np.concatenate([take, spare])),
        positions=there(np.concatenate([positions, spare])),
        firsts=there(firsts),
        unsort=there(np.argsort(order, kind="stable")),
        groups=tuple(_group(bounds, lengths, firsts, device) for bounds in _cuts(lengths, n_heads)),
        n_tokens=n_tokens,
    )


def n_rows_for(n_rows: int) -> int:
    """Return n_rows or a few more, 3 % on average.

    >>> n_rows_for(33), n_rows_for(800), n_rows_for(801)
    (34, 800, 832)
    """
    step = max(1, (1 << n_rows.bit_length() - 1) // _STEPS)
    return -(-n_rows // step) * step


def _cuts(lengths: np.ndarray, n_heads: int) -> list[tuple[int, int]]:
    """Return the groups' (first, last) texts: those of equal tiles, few short ones with longer ones, in small lots."""
    widths = (-(-lengths // _TILE) * _TILE).tolist()
    cuts: list[tuple[int, int]] = []
    last = len(widths)
    while last:
        width = widths[last - 1]
        first = widths.index(width)
        while first:
            below = widths.index(widths[first - 1])
            if (first - below) * (width**2 - widths[below] ** 2) * n_heads > _MERGE_BELOW:
                break
            first = below
        n_lots = -(-(last - first) * n_heads * width**2 // _CACHED)
        edges = np.linspace(first, last, min(n_lots, last - first) + 1).round().astype(int).tolist()
        cuts += list(pairwise(edges))[::-1]
        last = first
    return cuts[::-1]


def _group(bounds: tuple[int, int], lengths: np.ndarray, firsts: np.ndarray, device: torch.device) -> Group:
    first, last = bounds
    spare_row = int(lengths.sum())
    lengths, starts = lengths[first:last], firsts[first:last]
    columns = np.arange(-(-int(lengths[-1]) // _TILE) * _TILE)
    inside = columns < lengths[:, None]
    return Group(
        first=first,
        last=last,
        start=int(starts[0]),
        stop=int(starts[-1] + lengths[-1]),
        width=len(columns),
        rows=torch.from_numpy(np.where(inside, starts[:, None] + columns, spare_row)).to(device),
        slots=torch.from_numpy(np.flatnonzero(inside)).to(device),
        lengths=torch.from_numpy(lengths).to(device),
    )

"""The order of a batch's tokens during a packed forward pass.

Owns the order of rows (texts sorted by length), their positions, and the groups of texts of similar
length whose attention is computed together on padded tiles. Only attention ever sees padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from submillion.model.batching import on_device

# bf16 softmax and additions run up to 3 times faster on rows that fill whole 64-byte vectors.
_TILE = 32
# A group of its own costs some 15 calls a layer; merging costs padding. In attention weights, of all heads.
_MERGE_BELOW = 40_000
# So many of a group's attention weights, of all heads, stay in the processor's cache while in use.
_CACHED = 400_000
# Kernels are made for each new number of rows, at 100 ms per step in all: only this many numbers per octave.
_STEPS = 16
# If steps are recorded, each number of rows and each longest text has a graph of its own: hence few.
_RECORDED_STEP = 128
_SHORT = 64


@dataclass(frozen=True)
class Group:
    """Consecutive texts whose attention is computed together: texts first … last, rows start … stop, padded to `width`
    tokens.

    rows: int64 [texts, width], the row of each token, for padding the first spare row. slots: int64 [stop - start],
    each row's place in the flattened [texts, width].
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
        """Return the index from [rows · blocks · heads, head width] to [blocks, heads, texts, width]."""
        parts = torch.arange(n_blocks * n_heads, device=self.rows.device).view(-1, 1, 1)
        return (self.rows * (n_blocks * n_heads) + parts).flatten()

    def scatter(self, n_blocks: int, n_heads: int) -> torch.Tensor:
        """Return the index from [blocks · heads · texts · width, head width] to [rows, blocks, heads]."""
        parts = torch.arange(n_blocks * n_heads, device=self.slots.device) * (self.n_texts * self.width)
        return (self.slots[:, None] + parts).flatten()

    def padding(self, dtype: torch.dtype) -> torch.Tensor:
        """Return what is added to the scores: 0 for tokens, -inf for padding, [texts, 1, width]."""
        is_padding = torch.arange(self.width, device=self.lengths.device) >= self.lengths[:, None]
        return torch.zeros(is_padding.shape, dtype=dtype, device=is_padding.device).masked_fill_(
            is_padding, float("-inf")
        )[:, None, :]


@dataclass(frozen=True)
class Layout:
    """The rows of a batch of B texts and T tokens: texts by rising length, then at least one spare row.

    take: int64 [rows], the batch's token of each row (any, for spare rows) · positions: int64 [rows], from 0 in each
    text · bounds: int64 [B + 1], where texts start and the last one ends · unsort: int64 [B], the layout's number of
    text i of the batch · longest: tokens that no text exceeds · groups: of its texts; none if attention needs none.
    """

    take: torch.Tensor
    positions: torch.Tensor
    bounds: torch.Tensor
    unsort: torch.Tensor
    n_tokens: int
    longest: int
    groups: tuple[Group, ...] = ()

    @property
    def n_rows(self) -> int:
        """Return the number of rows, spare ones included."""
        return self.take.numel()

    @property
    def firsts(self) -> torch.Tensor:
        """Return the row of each text's first token, int64 [B]."""
        return self.bounds[:-1]


def lay_out(offsets: torch.Tensor, n_heads: int | None, device: torch.device, *, is_recorded: bool = False) -> Layout:
    """Return the layout of a batch with these offsets (int64 [B + 1], on the CPU), its tensors on `device`.

    `n_heads` None: without groups · is_recorded: with one of the few numbers of rows that graphs are recorded for.
    """
    ends = offsets.numpy()
    lengths = np.diff(ends)
    order = np.argsort(lengths, kind="stable")
    lengths = lengths[order]
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    n_tokens = int(bounds[-1])
    positions = np.arange(n_tokens) - np.repeat(bounds[:-1], lengths)
    take = positions + np.repeat(ends[:-1][order], lengths)
    n_rows = n_rows_for(n_tokens + 1, _RECORDED_STEP if is_recorded else 1)
    spare = np.zeros(n_rows - n_tokens, dtype=np.int64)

    def there(array: np.ndarray) -> torch.Tensor:
        return on_device(torch.from_numpy(array), device)

    groups = () if n_heads is None else tuple(_group(cut, lengths, bounds, device) for cut in _cuts(lengths, n_heads))
    return Layout(
        take=there(np.concatenate([take, spare])),
        positions=there(np.concatenate([positions, spare])),
        bounds=there(bounds),
        unsort=there(np.argsort(order, kind="stable")),
        n_tokens=n_tokens,
        longest=groups[-1].width if groups else max(_SHORT, 1 << (int(lengths[-1]) - 1).bit_length()),
        groups=groups,
    )


def n_rows_for(n_rows: int, least_step: int = 1) -> int:
    """Return n_rows or a few more, 3 % on average, a multiple of `least_step`.

    >>> n_rows_for(33), n_rows_for(800), n_rows_for(801), n_rows_for(801, 64)
    (34, 800, 832, 832)
    """
    step = max(least_step, (1 << n_rows.bit_length() - 1) // _STEPS)
    return -(-n_rows // step) * step


def _cuts(lengths: np.ndarray, n_heads: int) -> list[tuple[int, int]]:
    """Return the groups' (first, last) texts: texts of equal tiles, few short ones with longer ones, in small lots."""
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


def _group(cut: tuple[int, int], lengths: np.ndarray, bounds: np.ndarray, device: torch.device) -> Group:
    first, last = cut
    spare_row = int(bounds[-1])
    lengths, starts = lengths[first:last], bounds[first:last]
    columns = np.arange(-(-int(lengths[-1]) // _TILE) * _TILE)
    inside = columns < lengths[:, None]
    return Group(
        first=first,
        last=last,
        start=int(starts[0]),
        stop=int(starts[-1] + lengths[-1]),
        width=len(columns),
        rows=on_device(torch.from_numpy(np.where(inside, starts[:, None] + columns, spare_row)), device),
        slots=on_device(torch.from_numpy(np.flatnonzero(inside)), device),
        lengths=on_device(torch.from_numpy(lengths), device),
    )

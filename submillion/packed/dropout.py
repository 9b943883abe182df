"""Dropout's randomness and its application, cheap enough for the fast path.

Owns the masks: 16 random bits an element from numpy's SFC64 on the CPU, whose seed is drawn from
torch's generator, so that `torch.manual_seed` and checkpointing's replay decide them. Where
dropout is applied is the business of the functions that call this.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

_LEVELS = 1 << 16
# Half of the numbers of a mask come from a second stream and thread; the same ones however many threads torch has.
_HELPER = ThreadPoolExecutor(1, thread_name_prefix="dropout")


def active_p(module: nn.Module | None) -> float:
    """Return the dropout probability in force: 0 in evaluation, without a module, or for an identity."""
    return module.p if isinstance(module, nn.Dropout) and module.training else 0.0


def keep_frac(p: float) -> float:
    """Return the exact probability that a mask for `p` keeps an element: 1 - p to within 1/131072.

    >>> keep_frac(0.5)
    0.5
    """
    return 1.0 - _n_dropped(p) / _LEVELS


def masked(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return a copy of `x` (16 or 32 bits an element) with 0 where the mask (int16, 1 or 0) is 0.

    The integer product of the bits is 4 to 10 times as fast here as masked_fill or a product with bools.
    """
    return (x.view(_bits(x)) * mask).view(x.dtype)


def mask_(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Do the same in place, which takes half the time; return `x`."""
    x.view(_bits(x)).mul_(mask)
    return x


class Dice:
    """The masks of one layer's forward pass, in the order asked for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: tuple[np.random.SFC64, np.random.SFC64] | None = None

    def mask(self, shape: Sequence[int], p: float) -> torch.Tensor | None:
        """Return an int16 mask of `shape`, 1 (keep) with probability `keep_frac(p)`, else 0; None if p is 0."""
        return self.masks([shape], p)[0]

    def masks(self, shapes: Sequence[Sequence[int]], p: float) -> list[torch.Tensor | None]:
        """Return a mask of each shape, from one draw."""
        if p == 0.0:
            return [None] * len(shapes)
        sizes = [math.prod(shape) for shape in shapes]
        drawn = self._draw(sum(sizes), _n_dropped(p) - _LEVELS // 2)
        return [part.view(*shape) for part, shape in zip(drawn.split(sizes), shapes, strict=True)]

    def _draw(self, n: int, least: int) -> torch.Tensor:
        """Return n numbers, 1 where a uniform int16 number is at least `least`, else 0."""
        if self._device.type != "cpu":
            numbers = torch.empty(n, dtype=torch.int16, device=self._device).random_(-_LEVELS // 2, _LEVELS // 2)
            return torch.ge(numbers, least, out=numbers)
        if self._streams is None:
            seed = int(torch.randint(2**62, ()))
            self._streams = (np.random.SFC64(seed), np.random.SFC64(seed + 1))
        n_words = -(-n // 8)
        other = _HELPER.submit(self._streams[1].random_raw, n_words)  # numpy lets other threads run meanwhile
        halves = (self._streams[0].random_raw(n_words), other.result())
        out = torch.empty(8 * n_words, dtype=torch.int16)
        for raw, place in zip(halves, out.chunk(2), strict=True):
            torch.ge(torch.from_numpy(raw.view(np.int16)), least, out=place)
        return out[:n]


def _bits(x: torch.Tensor) -> torch.dtype:
    return torch.int16 if x.element_size() == 2 else torch.int32


def _n_dropped(p: float) -> int:
    return min(round(p * _LEVELS), _LEVELS - 1)

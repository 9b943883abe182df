"""LoRA's small products over packed rows, bfloat16, by C functions: on matrix tiles (lora.c), elsewhere in vectors
(vectors.c).

Down [R, d_in] and up [columns, R] are the parameters themselves, or made from them, float32 or bfloat16: they are
rounded to bfloat16 inside, and their gradients are float32. In vectors they may be several layers' factors of equal
shapes, stacked by rows: down [layers · R, d_in] and up [columns, R], each layer making its share of the columns. If
rows do not fit, `linear` uses torch's products.
"""

from __future__ import annotations

import torch

from submillion.model.packed import native

_PANEL = 32  # DEPTH in tiles.h
_DTYPES = {torch.float32, torch.bfloat16}  # of the factors: while they train, and in runs that predict
_Factors = tuple[torch.Tensor, torch.Tensor]
_Dropout = tuple[int, int]  # a mask's seed and least; the second 0 for none


def fits(x: torch.Tensor, down: torch.Tensor, up: torch.Tensor) -> bool:
    """Return whether the functions take rows x [T, d_in] with these factors."""
    return native.fits(x) and fits_factors(x.shape[1], down, up)


def fits_factors(depth: int, down: torch.Tensor, up: torch.Tensor) -> bool:
    """Return whether they take these factors for rows of width `depth`; torch says what is wrong with other shapes."""
    n_stacked = n_layers(down, up)
    if not {down.dtype, up.dtype} <= _DTYPES or down.shape != (n_stacked * up.shape[1], depth) or not n_stacked:
        return False
    return native.fits_widths(depth, len(up) // n_stacked)


def takes_stacked(x: torch.Tensor) -> bool:
    """Return whether factors for rows x may be those of several layers."""
    return not native.has_tiles() and native.fits(x)


def n_layers(down: torch.Tensor, up: torch.Tensor) -> int:
    """Return how many layers' factors are stacked."""
    return len(down) // up.shape[1]


def add_(y: torch.Tensor, x: torch.Tensor, factors: _Factors, dropout: _Dropout) -> torch.Tensor:
    """Add dropout(x) down^T up^T, of each layer to its columns, to y [T, columns], whose rows may be apart; return
    dropout(x) down^T, bfloat16 [T, layers · R], filled up with zeros to a multiple of 32 columns.

    Dropout drops what `native.drop` would, and does not scale what it keeps.
    """
    down, up = (factor.float().contiguous() for factor in factors)
    low = x.new_empty(len(x), _filled(len(down)))
    scratch, sizes = _scratch_and_sizes(x, down, up)
    pointers = (x.data_ptr(), y.data_ptr(), y.stride(0), down.data_ptr(), up.data_ptr(), low.data_ptr())
    native.library().lora_forward(*pointers, scratch.data_ptr(), *sizes, *dropout, *_how())
    return low


def backward(
    dy: torch.Tensor,
    saved: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    dropout: _Dropout,
    dx: torch.Tensor | None,
    *,
    wants_dx: bool,
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Return the gradients of x, down and up; `saved`: x, what `add_` returned, and the factors.

    dx: what the gradient of x is added to, which is overwritten, or None. Rows of dy [T, columns] may be apart.
    """
    x, low, down, up = saved
    down, up = down.float().contiguous(), up.float().contiguous()
    dy = dy if dy.stride(1) == 1 else dy.contiguous()
    adds = dx is not None
    dx = dx.contiguous() if dx is not None else torch.empty_like(x) if wants_dx else None
    ddown, dup = torch.empty(low.shape[1], x.shape[1]), torch.empty(_filled(up.shape[1]), dy.shape[1])
    scratch, sizes = _scratch_and_sizes(x, down, up)
    pointers = (x.data_ptr(), dy.data_ptr(), dy.stride(0), down.data_ptr(), up.data_ptr(), low.data_ptr())
    native.library().lora_backward(
        *(*pointers, scratch.data_ptr(), *sizes, *dropout, *_how()),
        *(dx.data_ptr() if dx is not None and wants_dx else None, adds, ddown.data_ptr(), dup.data_ptr()),
    )
    return dx, ddown[: len(down)], dup[: up.shape[1]].t()


def _filled(rank: int) -> int:
    return -(-rank // _PANEL) * _PANEL


def _how() -> tuple[int, bool]:
    """Return how many threads work, and whether on tiles."""
    return torch.get_num_threads(), native.has_tiles()


def _scratch_and_sizes(
    x: torch.Tensor, down: torch.Tensor, up: torch.Tensor
) -> tuple[torch.Tensor, tuple[int, int, int, int, int]]:
    """Return memory to work in, and the numbers of rows, d_in, columns, R, and layers of the factors."""
    sizes = (len(x), x.shape[1], len(up), up.shape[1], n_layers(down, up))
    assert sizes[-1] == 1 or not native.has_tiles()
    n_bytes = native.library().lora_scratch(*sizes, *_how())
    return torch.empty(n_bytes, dtype=torch.int8), sizes

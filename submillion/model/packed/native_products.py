"""Products of bfloat16 rows with frozen weights in bfloat16 or int8, by functions of products.c and integers.c.

If none fits, callers use torch's.
"""

from __future__ import annotations

import torch

from submillion.model.packed import native

_PANEL = 32  # DEPTH in tiles.h
_MOST_DEPTH = 16_384  # integers.c keeps 12 rows of this depth
_UNITS = {torch.bfloat16: 32, torch.int8: 64}  # elements in 64 bytes


def fits_weight(dtype: torch.dtype, depth: int, width: int) -> bool:
    """Return whether `multiply` can take a weight [depth, width], bfloat16 or int8."""
    is_there = dtype in _UNITS and (native.has_tiles() or (dtype == torch.int8 and native.has_integers()))
    is_right = is_there and depth % _UNITS[dtype] == 0 and width % _PANEL == 0
    return is_right and (native.has_tiles() or depth <= _MOST_DEPTH)


def fits_rows(x: torch.Tensor) -> bool:
    """Return whether `multiply` can take rows [T, K] for a weight in bfloat16."""
    return x.dtype == torch.bfloat16 and x.is_cpu and x.stride(1) == 1


def fits_integers(x: torch.Tensor) -> bool:
    """Return whether `multiply` can take rows for a weight in int8."""
    return fits_quantised(x) if native.has_tiles() else fits_rows(x)


def packed(weight: torch.Tensor) -> torch.Tensor:
    """Return a copy of a weight [K, N], bfloat16 or int8, as `multiply` reads it: [K · N]."""
    depth, width = weight.shape
    if not native.has_tiles():  # panels of 32 columns, 4 rows of them at a time, plus 128: integers.c has them unsigned
        panels = weight.reshape(depth // 4, 4, width // _PANEL, _PANEL).permute(2, 0, 3, 1).contiguous()
        return panels.view(-1).view(torch.uint8).bitwise_xor_(128).view(torch.int8)
    size = weight.element_size()
    out = torch.empty(depth * width, dtype=weight.dtype)
    native.library().pack(weight.data_ptr(), out.data_ptr(), depth * size // 2, width, *weight.stride(), size)
    return out


def multiply(
    x: torch.Tensor, weight: torch.Tensor, start: torch.Tensor | None, column_scales: torch.Tensor | None = None
) -> torch.Tensor:
    """Return x [T, K] times a packed weight [K · N], plus a bias [N] or rows [T, N], which are overwritten; bfloat16.

    column_scales: the value of an integer in each column, float32 [N], of a weight in int8; rows then become int8 too.
    """
    assert (weight.dtype == torch.int8) == (column_scales is not None)  # C takes scales as the sign of int8
    assert {x.dtype, x.dtype if start is None else start.dtype} == {torch.bfloat16}
    n_rows, depth = x.shape
    width, size = weight.numel() // depth, weight.element_size()
    bias, rows = (start, None) if start is None or start.dim() == 1 else (None, start.contiguous())
    out = torch.empty(n_rows, width, dtype=torch.bfloat16) if rows is None else rows
    row_scales = None
    if column_scales is not None and native.has_tiles():
        x, row_scales = quantised(x)
    native.library().multiply(
        *(x.data_ptr(), x.stride(0) * x.element_size() // 2, weight.data_ptr()),
        *(None if tensor is None else tensor.data_ptr() for tensor in (bias, rows)),
        *(out.data_ptr(), n_rows, width, depth * size // 2),
        *(None if scales is None else scales.data_ptr() for scales in (row_scales, column_scales)),
        *(torch.get_num_threads(), native.has_tiles()),
    )
    return out


def fits_quantised(x: torch.Tensor) -> bool:
    """Return whether `quantised` can take rows: it reads two elements at once."""
    is_even = x.shape[1] % 2 == 0 and x.stride(0) % 2 == 0 and x.data_ptr() % 4 == 0
    return native.available() and x.dtype == torch.bfloat16 and x.is_cpu and x.stride(1) == 1 and is_even


def quantised(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows x [T, K], bfloat16, as int8 [T, K], and the value of an integer in each row, float32 [T].

    The largest magnitude of a row is 127. A row that is not all finite has the scale NaN.
    """
    out = torch.empty(x.shape, dtype=torch.int8)
    scales = torch.empty(len(x), dtype=torch.float32)
    place = x.data_ptr(), x.stride(0), out.data_ptr(), scales.data_ptr()
    native.library().quantise(*place, *x.shape, torch.get_num_threads())
    return out, scales


def rescaled(sums: torch.Tensor, scales: tuple[torch.Tensor, torch.Tensor], start: torch.Tensor | None) -> torch.Tensor:
    """Return sums [T, N], int32, times the scales of rows [T] and columns [N], plus what `multiply` adds; bfloat16."""
    bias, rows = (start.float(), None) if start is not None and start.dim() == 1 else (None, start)
    rows = None if rows is None else rows.contiguous()
    out = torch.empty(sums.shape, dtype=torch.bfloat16) if rows is None else rows
    pointers = (None if tensor is None else tensor.data_ptr() for tensor in (sums, *scales, bias, rows, out))
    native.library().rescale(*pointers, *sums.shape, torch.get_num_threads())
    return out

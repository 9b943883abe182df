"""The passes between products, and attention, on CUDA: the functions of `native`, written in Triton.

Owns which tensors the kernels take, their block sizes, and where a mask's seed comes from: torch's CUDA generator, read
on the device, so that a recorded graph draws new masks at each replay. Without Triton, or on a card older than Ampere,
callers use torch's operators, which do the same more slowly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from submillion.text import first_line

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_MAX_WIDTH = 8192
_HEADS = (16, 32, 64, 128)  # widths of a head: products of tiles need at least 16, and powers of 2
_LEAST_CAPABILITY = (8, 0)
_ELEMENTS = 1024  # of a program of an elementwise kernel
_BLOCK, _BLOCK_FP32 = 64, 16  # queries and keys of a program, at most: its registers hold products of both
_LEAST_BLOCK = 16


@dataclass(frozen=True)
class Seed:
    """Where a mask comes from: `base`, int64 [1] on the device, and the mask's number among that base's."""

    base: torch.Tensor
    number: int


def fits(x: torch.Tensor) -> bool:
    """Return whether these functions take a tensor: dense, on a card that has them."""
    is_right = x.dtype in _DTYPES and x.is_contiguous() and x.shape[-1] <= _MAX_WIDTH
    return is_right and x.is_cuda and _is_able(x.device)


def fits_heads(device: torch.device, dtype: torch.dtype, head: int) -> bool:
    """Return whether `attend` takes rows there, of that dtype, with heads of this width."""
    return head in _HEADS and dtype in _DTYPES and device.type == "cuda" and _is_able(device)


def _is_able(device: torch.device) -> bool:
    return missing(device) is None


@cache
def missing(device: torch.device) -> str | None:
    """Return why these functions do not work on a card, or None: they are tried once, as they are compiled there."""
    if torch.version.hip is not None:
        return "they have never been run on AMD cards"
    capability = torch.cuda.get_device_capability(device)
    if capability < _LEAST_CAPABILITY:
        return f"the card's compute capability is {'.'.join(map(str, capability))}, and they need 8.0"
    if _kernels() is None:
        return "Triton is not installed: pip install triton"
    ones, out = torch.ones(2, 16, device=device)
    try:
        drop(ones, Seed(torch.zeros(1, dtype=torch.int64, device=device), 1), 0, out.zero_())
        return None if bool(out.all()) else "Triton's kernels give wrong results here"
    except Exception as error:  # no C compiler, no headers of Python, another driver: all kinds
        return f"Triton cannot compile them ({first_line(error)}); it needs a C compiler and Python's headers"


def kind(device: torch.device) -> str:
    """Return which functions work there: results of different kinds differ in their last bits."""
    return "none" if missing(device) is not None else f"triton {version('triton')}"


@cache
def _kernels() -> Any:
    """Return the module of the kernels, or None: not every build of torch brings Triton."""
    try:
        from submillion.model.packed import triton_kernels
    except ImportError:
        return None
    return triton_kernels


def new_base(device: torch.device) -> torch.Tensor:
    """Return a base of seeds from torch's generator of the device, without waiting for it."""
    return torch.randint(-(2**63), 2**63 - 1, (1,), dtype=torch.int64, device=device)


def drop(x: torch.Tensor, seed: Seed, least: int, out: torch.Tensor) -> None:
    """Write `x` to `out`, perhaps itself, with 0 for a fraction least / 65536 of the elements."""
    _drop(x, seed, least, out, adds=False)


def add_dropped(x: torch.Tensor, seed: Seed, least: int, out: torch.Tensor) -> None:
    """Add to `out` what `drop` would write."""
    _drop(x, seed, least, out, adds=True)


def _drop(x: torch.Tensor, seed: Seed, least: int, out: torch.Tensor, *, adds: bool) -> None:
    grid = (_n_blocks(x.numel(), _ELEMENTS),)
    _kernels().drop[grid](x, out, x.numel(), seed.base, seed.number, least, ADDS=adds, BLOCK=_ELEMENTS)


def gelu(x: torch.Tensor) -> torch.Tensor:
    """Return x Phi(x)."""
    out = torch.empty_like(x)
    _kernels().gelu[(_n_blocks(x.numel(), _ELEMENTS),)](x, out, x.numel(), BLOCK=_ELEMENTS)
    return out


def gelu_backward(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Return the gradient of `x`, given that of gelu(x)."""
    out = torch.empty_like(x)
    _kernels().gelu_backward[(_n_blocks(x.numel(), _ELEMENTS),)](x, grad, out, x.numel(), BLOCK=_ELEMENTS)
    return out


def add_norm_(
    y: torch.Tensor,
    residual: torch.Tensor,
    norm: tuple[torch.Tensor, torch.Tensor, float],
    factor: float,
    seed: Seed | int,
    least: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put residual + factor · dropout(y) in place of y; return its LayerNorm [T, D], mean and 1 / deviation [T, 1].

    `norm`: weight and bias, float32 [D], and epsilon. An int for a seed: no dropout.
    """
    weight, bias, eps = norm
    n_rows, width = y.shape
    out = torch.empty_like(y)
    mean, rstd = y.new_empty(2, n_rows, 1, dtype=torch.float32)
    _kernels().add_norm[(n_rows,)](
        *(y, residual, weight, bias, out, mean, rstd, width, eps, factor),
        *_seeded(seed, least, y),
        **_sizes(width, least),
    )
    return out, mean, rstd


def add_norm_backward(
    grad: torch.Tensor,
    saved: tuple[torch.Tensor, ...],
    factor: float,
    seed: Seed | int,
    least: int,
    passed: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of residual and y; `saved`: the sum, mean, 1 / deviation, and the norm's weight.

    `passed`: the sum's own gradient, if it is read too.
    """
    total, mean, rstd, weight = saved
    n_rows, width = total.shape
    dtotal = torch.empty_like(total)
    dy = torch.empty_like(total) if least else dtotal
    _kernels().add_norm_backward[(n_rows,)](
        *(grad, total, mean, rstd, weight, dtotal, dy, grad if passed is None else passed.contiguous(), width, factor),
        *_seeded(seed, least, total),
        **_sizes(width, least),
        HAS_PASSED=passed is not None,
    )
    return dtotal, dy


@dataclass(frozen=True)
class Texts:
    """What attention needs to know about a batch of B texts in rows; spare rows follow the last text.

    bounds: int64 [B + 1], where texts start and the last one ends · longest: tokens that no text exceeds · relative:
    [heads, longest, longest], added to the scores, or None.
    """

    bounds: torch.Tensor
    longest: int
    n_heads: int
    relative: torch.Tensor | None

    @property
    def n_texts(self) -> int:
        """Return B."""
        return len(self.bounds) - 1


@dataclass(frozen=True)
class Dropout:
    """Dropout of attention's weights; `least` 0 for none, with an int for a seed."""

    seed: Seed | int
    least: int
    factor: float


def attend(
    texts: Texts, rows: torch.Tensor, firsts: torch.Tensor | None, dropout: Dropout
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each query's mixture of its text's values [T, D], and the log of its weights' sum, float32 [T, heads].

    Rows [T, 3 D] hold query, key and value side by side; with `firsts` [B, D], the queries of first tokens only, rows
    [T, 2 D] hold key and value, and the results have B rows.
    """
    query = rows if firsts is None else firsts
    width = rows.shape[1] // 3 if firsts is None else firsts.shape[1]
    out = query.new_empty(len(query), width)
    lse = query.new_empty(len(query), texts.n_heads, dtype=torch.float32)
    n_blocks, sizes = _attention_sizes(texts, rows, width, firsts is not None)
    grid = (1 if firsts is not None else n_blocks, texts.n_texts + (firsts is None), texts.n_heads)
    _kernels().attend[grid](
        *(query, rows, out, lse, texts.bounds, rows if texts.relative is None else texts.relative),
        *_seeded(dropout.seed, dropout.least, rows),
        *(dropout.factor, (width // texts.n_heads) ** -0.5, texts.n_texts, len(rows), texts.longest),
        **sizes,
        DROPS=dropout.least > 0,
    )
    return out, lse


def attend_backward(
    texts: Texts,
    saved: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor],
    dout: torch.Tensor,
    dropout: Dropout,
    wants_scores: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the gradients of rows and firsts; `saved`: rows, firsts, and what `attend` returned.

    Without `wants_scores` the gradients of queries and keys are 0.
    """
    rows, firsts, out, lse = saved
    drows, dfirsts = torch.empty_like(rows), None if firsts is None else torch.empty_like(firsts)
    query, dquery = (rows, drows) if firsts is None or dfirsts is None else (firsts, dfirsts)
    n_blocks, sizes = _attention_sizes(texts, rows, out.shape[1], firsts is not None)
    grid = (n_blocks, texts.n_texts + 1, texts.n_heads)
    _kernels().attend_backward[grid](
        *(query, rows, out, dout, lse, dquery, drows, texts.bounds),
        rows if texts.relative is None else texts.relative,
        *_seeded(dropout.seed, dropout.least, rows),
        *(dropout.factor, (out.shape[1] // texts.n_heads) ** -0.5, texts.n_texts, len(rows), texts.longest),
        **sizes,
        DROPS=dropout.least > 0,
        WANTS_SCORES=wants_scores,
        ONE=n_blocks == 1,
    )
    return drows, dfirsts


def _attention_sizes(texts: Texts, rows: torch.Tensor, width: int, is_firsts: bool) -> tuple[int, dict[str, Any]]:
    """Return the blocks of the longest text, and what the kernels are compiled for."""
    most = _BLOCK_FP32 if rows.dtype == torch.float32 else _BLOCK
    block = max(_LEAST_BLOCK, min(most, _power_of_2(texts.longest)))
    return _n_blocks(texts.longest, block), {
        "N_HEADS": texts.n_heads,
        "HEAD": width // texts.n_heads,
        "FIRSTS": is_firsts,
        "HAS_RELATIVE": texts.relative is not None,
        "PRECISION": "ieee" if rows.dtype == torch.float32 else "tf32",  # the second has no effect in half precision
        "M": _LEAST_BLOCK if is_firsts else block,
        "N": block,
        "num_stages": 1,  # most texts are one or two blocks: nothing to load ahead, and more programs fit in memory
    }


def _seeded(seed: Seed | int, least: int, anything: torch.Tensor) -> tuple[torch.Tensor, int, int]:
    """Return base, number and least, as kernels take them; without dropout the first is never read."""
    return (anything, 0, 0) if isinstance(seed, int) else (seed.base, seed.number, least)


def _sizes(width: int, least: int) -> dict[str, Any]:
    block = _power_of_2(width)
    return {"DROPS": least > 0, "BLOCK": block, "num_warps": min(8, max(1, block // 256))}


def _power_of_2(n: int) -> int:
    """Return the least power of 2 that is not below n."""
    return 1 << (n - 1).bit_length()


def _n_blocks(n: int, block: int) -> int:
    return -(-n // block)

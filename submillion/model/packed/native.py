"""The functions of kernels.c and scores.c: passes over bfloat16 rows on the CPU, each replacing several of torch's.
Those of calls.c are in `native_attention`, `native_lora` and `native_products`.

Owns finding the compiled library and torch's OpenMP runtime, whose threads it shares; what else on this machine decides
the last bits of a computation; and what libraries below torch keep in memory between batches: freed blocks (glibc),
kernels (oneDNN). If the library was not compiled, or rows do not fit, callers use torch's operators, which do the same
more slowly and draw other masks.
"""

from __future__ import annotations

import ctypes
import os
import platform
from contextlib import suppress
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
import transformers

from submillion.model.packed import cuda

_VERSION = 13  # kernels_version in kernels.c
MAX_WIDTH = 8192  # MAX_WIDTH in scores.c
_PANEL = 32  # DEPTH in tiles.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
# Some 130 KiB each. oneDNN's own limit, 1,024, is reached after hours: until then memory grows.
_MOST_KERNELS = "256"


def _load() -> Any:
    """Return the library with its functions' types declared, or None."""
    try:
        paths = (Path(__file__).with_name(f"_kernels{suffix}") for suffix in EXTENSION_SUFFIXES)
        file = next(file for file in paths if file.is_file())
        library = ctypes.CDLL(str(file))
        if library.kernels_version() != _VERSION:
            return None
        _share_threads(library)
    except (StopIteration, OSError, AttributeError):  # not compiled; for another machine; older; no OpenMP in torch
        return None
    _declare(library)
    return library


def _declare(library: Any) -> None:
    pointer, integer, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    dropout = [ctypes.c_uint64, ctypes.c_uint32, ctypes.c_int]  # seed, least, threads
    tiles = [ctypes.c_int]
    attention = [pointer, integer] * 2 + [pointer] * 5 + [integer] * 5 + [ctypes.c_int, number, *dropout, *tiles]
    lora = [pointer] * 2 + [integer] + [pointer] * 4 + [integer] * 5 + dropout + tiles
    arguments = {
        "drop": [pointer] * 2 + [integer, *dropout],
        "add_dropped": [pointer] * 2 + [integer, *dropout],
        "gelu": [pointer] * 2 + [integer, ctypes.c_int],
        "gelu_backward": [pointer] * 3 + [integer, ctypes.c_int],
        "gated_gelu": [pointer] * 2 + [integer] * 2 + [number, *dropout],
        "gated_gelu_backward": [pointer] * 3 + [integer] * 2 + [number, *dropout],
        "turn": [pointer] * 3 + [integer] * 3 + [ctypes.c_int],
        "read_diagonals": [pointer] * 3 + [integer] * 4 + [number, ctypes.c_int],
        "spread_diagonals": [pointer] * 3 + [integer] * 4 + [number, ctypes.c_int],
        "softmax": [pointer] * 3 + [integer] * 5 + dropout,
        "softmax_backward": [pointer] * 2 + [integer] * 2 + dropout,
        "add_norm": [pointer] * 7 + [integer] * 2 + [number] * 2 + dropout,
        "add_norm_backward": [pointer] * 8 + [integer] * 2 + [number, *dropout],
        "pack": [pointer] * 2 + [integer] * 5,
        "multiply": [pointer, integer] + [pointer] * 4 + [integer] * 3 + [pointer] * 2 + [ctypes.c_int, *tiles],
        "quantise": [pointer, integer] + [pointer] * 2 + [integer] * 2 + [ctypes.c_int],
        "rescale": [pointer] * 6 + [integer] * 2 + [ctypes.c_int],
        "attend": attention,
        "attend_backward": attention + [pointer] * 3 + [ctypes.c_int],
        "attention_scratch": [integer] * 2 + [ctypes.c_int, *tiles],
        "lora_forward": lora,
        "lora_backward": lora + [pointer, ctypes.c_int] + [pointer] * 2,
        "lora_scratch": [integer] * 5 + [ctypes.c_int, *tiles],
        "layer_scratch": [pointer] * 2,
        "whole_layer": [pointer] * 5,
        "layer_in_floats_scratch": [pointer] * 2,
        "layer_in_floats": [pointer] * 5,
    }
    for name, types in arguments.items():
        function = getattr(library, name)
        function.argtypes, function.restype = types, None
    for name in ("attention_scratch", "lora_scratch", "layer_scratch", "layer_in_floats_scratch"):
        getattr(library, name).restype = integer


def _share_threads(library: Any) -> None:
    """Give the library torch's own threads: a second pool would spin against them. AttributeError if torch has none."""
    openmp = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))  # and what it is linked to
    functions = (openmp.GOMP_parallel, openmp.omp_get_thread_num, openmp.omp_get_num_threads)
    library.set_threads(*(ctypes.cast(function, ctypes.c_void_p) for function in functions))


_library = _load()
_has_tiles = _library is not None and bool(_library.products_available())
_has_integers = _library is not None and bool(_library.integers_available())
_n_floats = 0 if _library is None else int(_library.vector_floats())


def available() -> bool:
    """Return whether the library is available."""
    return _library is not None


def library() -> Any:
    """Return the library, or None if it is not available."""
    return _library


def has_tiles() -> bool:
    """Return whether products are on matrix tiles here."""
    return _has_tiles


def has_integers() -> bool:
    """Return whether products in int8 are in our vectors here, if they are not on matrix tiles."""
    return _has_integers and _library is not None


def vector_floats() -> int:
    """Return how many floats a vector of our products has here: 16, 8 or 4; 0 without the library."""
    return 0 if _library is None else _n_floats


def kind() -> str:
    """Return which functions work here, and their version: results of different kinds differ in their last bits."""
    if _library is None:
        return "none"
    products = " and products" if _has_tiles else " and products in int8" if _has_integers else ""
    return f"passes{products}, vectors of {_n_floats} floats, version {_VERSION}"


def keep_freed() -> None:
    """Let glibc keep freed blocks below 1 GiB for reuse; do nothing with another C library.

    By default it returns blocks above 32 MiB to the system at once, and gets them again page by page: a quarter of the
    time of an evaluation at roberta-base's size. This holds for the whole process.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(_M_MMAP_THRESHOLD, 1 << 30) == 1:  # refused before glibc 2.35, in which the second alone would harm
            mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def keep_few_kernels() -> None:
    """Let oneDNN keep few kernels, in a process that predicts; call it before the first product.

    Each new number of texts or tokens needs some; making one again costs 0.4 ms. Training uses more of them in turn,
    and keeps them all. `$ONEDNN_PRIMITIVE_CACHE_CAPACITY` is unchanged if it is set.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _MOST_KERNELS)


@cache
def processor() -> str:
    """Return the processor's name, from Linux, else from Python."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def conditions(device: torch.device) -> list[object]:
    """Return what the last bits of a computation depend on besides its inputs, for the keys of what is kept."""
    versions: list[object] = [torch.__version__, transformers.__version__, device.type]
    if device.type == "cuda":
        return [*versions, torch.cuda.get_device_name(device), cuda.kind(device)]
    if device.type != "cpu":
        return versions
    return [*versions, processor(), torch.backends.cpu.get_cpu_capability(), kind(), torch.get_num_threads()]


def fits(x: torch.Tensor) -> bool:
    """Return whether these functions take a tensor: bfloat16 on the CPU, dense, of an even width."""
    is_right = x.dtype == torch.bfloat16 and x.is_cpu and x.is_contiguous()
    return _library is not None and is_right and x.shape[-1] % 2 == 0 and x.shape[-1] <= MAX_WIDTH


def fits_widths(*widths: int) -> bool:
    """Return whether C functions take heads or rows of these widths, in attention and LoRA, in bfloat16."""
    return _library is not None and all(width % _PANEL == 0 for width in widths)


def drop(x: torch.Tensor, seed: int, least: int, out: torch.Tensor) -> None:
    """Write `x` (16 bits an element) to `out`, perhaps itself, with 0 for a fraction least / 65536 of the elements."""
    _library.drop(x.data_ptr(), out.data_ptr(), x.numel() // 2, seed, least, torch.get_num_threads())


def add_dropped(x: torch.Tensor, seed: int, least: int, out: torch.Tensor) -> None:
    """Add to `out` what `drop` would write."""
    _library.add_dropped(x.data_ptr(), out.data_ptr(), x.numel() // 2, seed, least, torch.get_num_threads())


def gelu(x: torch.Tensor) -> torch.Tensor:
    """Return x Phi(x)."""
    out = torch.empty_like(x)
    _library.gelu(x.data_ptr(), out.data_ptr(), x.numel() // 2, torch.get_num_threads())
    return out


def gelu_backward(x: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """Return the gradient of `x`, given that of gelu(x)."""
    out = torch.empty_like(x)
    _library.gelu_backward(x.data_ptr(), grad.data_ptr(), out.data_ptr(), x.numel() // 2, torch.get_num_threads())
    return out


def gated_gelu(x: torch.Tensor, factor: float, seed: int, least: int) -> torch.Tensor:
    """Return factor · dropout(a Phi(a) g), [T, F], where x [T, 2 F] holds a and g side by side; F is even."""
    n_rows, width = len(x), x.shape[1] // 2
    out = x.new_empty(n_rows, width)
    dropout = (factor, seed, least, torch.get_num_threads())
    _library.gated_gelu(x.data_ptr(), out.data_ptr(), n_rows, width, *dropout)
    return out


def gated_gelu_backward(x: torch.Tensor, grad: torch.Tensor, factor: float, seed: int, least: int) -> torch.Tensor:
    """Return the gradient of `x`, given that of what `gated_gelu` returned."""
    out = torch.empty_like(x)
    dropout = (factor, seed, least, torch.get_num_threads())
    _library.gated_gelu_backward(x.data_ptr(), grad.data_ptr(), out.data_ptr(), *grad.shape, *dropout)
    return out


def turn_(heads: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> None:
    """Turn each pair of entries i and i + E / 2 of heads [..., W, E] by the angle i of its position, in place.

    cosine, sine: float32 [W, E / 2], dense; E is a multiple of 4.
    """
    *_, width, head = heads.shape
    n_rows = heads.numel() // head
    place = (heads.data_ptr(), cosine.data_ptr(), sine.data_ptr())
    _library.turn(*place, n_rows, width, head, torch.get_num_threads())


def softmax_(
    scores: torch.Tensor, lengths: torch.Tensor, seed: int, least: int, window: int | None = None
) -> torch.Tensor:
    """Turn scores [G, Q, W] into probabilities in place; return them after dropout, a separate tensor if least > 0.

    G are heads of texts, one head after the other. Columns at and beyond the length of a row's text (lengths: int64
    [texts]) get 0, and so do those more than `window` places from a query of the text.
    """
    *_, n_queries, width = scores.shape
    n_rows = scores.numel() // width
    dropped = torch.empty_like(scores) if least else scores
    _library.softmax(
        scores.data_ptr(),
        dropped.data_ptr() if least else None,
        lengths.data_ptr(),
        n_rows,
        len(lengths),
        n_queries,
        width,
        width if window is None else window,
        seed,
        least,
        torch.get_num_threads(),
    )
    return dropped


def read_diagonals(
    of_queries: torch.Tensor | None, of_keys: torch.Tensor | None, out: torch.Tensor, factor: float
) -> None:
    """Write to out [G, Q, W] factor times the sum of two products' diagonals, one of which may be absent.

    For query i and key j: column j - i + Q - 1 of row i of `of_queries` [G, Q, C], i - j + W - 1 of row j of `of_keys`
    [G, W, C].
    """
    _diagonals(_library.read_diagonals, out, of_queries, of_keys, factor)


def spread_diagonals(
    grad: torch.Tensor, of_queries: torch.Tensor | None, of_keys: torch.Tensor | None, factor: float
) -> None:
    """Write to `of_queries` and `of_keys` the gradients that `read_diagonals` passes back; 0 where it reads nothing."""
    _diagonals(_library.spread_diagonals, grad, of_queries, of_keys, factor)


def _diagonals(
    function: Any, scores: torch.Tensor, of_queries: torch.Tensor | None, of_keys: torch.Tensor | None, factor: float
) -> None:
    n_columns = next(each.shape[2] for each in (of_queries, of_keys) if each is not None)
    pointers = (None if each is None else each.data_ptr() for each in (scores, of_queries, of_keys))
    function(*pointers, *scores.shape, n_columns, factor, torch.get_num_threads())


def softmax_backward_(probs: torch.Tensor, grad: torch.Tensor, seed: int, least: int) -> torch.Tensor:
    """Turn the gradient of what `softmax_` returned into the scores' gradient, in place; return it."""
    *_, width = probs.shape
    n_rows = probs.numel() // width
    _library.softmax_backward(probs.data_ptr(), grad.data_ptr(), n_rows, width, seed, least, torch.get_num_threads())
    return grad


def add_norm_(
    y: torch.Tensor,
    residual: torch.Tensor,
    norm: tuple[torch.Tensor, torch.Tensor, float],
    factor: float,
    seed: int,
    least: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put residual + factor · dropout(y) in place of y; return its LayerNorm [T, D], mean and 1 / deviation [T, 1].

    `norm`: weight and bias, float32 [D], and epsilon.
    """
    weight, bias, eps = norm
    n_rows, width = y.shape
    out = torch.empty_like(y)
    mean, rstd = y.new_empty(2, n_rows, 1, dtype=torch.float32)
    _library.add_norm(
        *(tensor.data_ptr() for tensor in (y, residual, weight, bias, out, mean, rstd)),
        *(n_rows, width, eps, factor, seed, least, torch.get_num_threads()),
    )
    return out, mean, rstd


def add_norm_backward(
    grad: torch.Tensor,
    saved: tuple[torch.Tensor, ...],
    factor: float,
    seed: int,
    least: int,
    passed: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of residual and y; `saved`: the sum, mean, 1 / deviation, and the norm's weight.

    `passed`: the sum's own gradient, if it is read too.
    """
    total, mean, rstd, weight = saved
    n_rows, width = total.shape
    passed = None if passed is None else passed.contiguous()
    dtotal = torch.empty_like(total)
    dy = torch.empty_like(total) if least else dtotal
    _library.add_norm_backward(
        *(tensor.data_ptr() for tensor in (grad, total, mean, rstd, weight, dtotal)),
        dy.data_ptr() if least else None,
        None if passed is None else passed.data_ptr(),
        *(n_rows, width, factor, seed, least, torch.get_num_threads()),
    )
    return dtotal, dy

"""The precision of products with frozen weights, if none is configured: on a CPU it is measured."""

from __future__ import annotations

import time
from functools import cache
from typing import Literal

import torch
from torch.nn import functional as F

from submillion.config import Precision
from submillion.errors import ConfigError
from submillion.model.packed.integers import IntegerWeight

_PROBE_SHAPE = (256, 768, 3072)  # rows, in, out: a feed-forward layer of a 12 x 768 encoder
_PROBE_REPEATS = 3
_WORTHWHILE = 1.3  # products are most of a step, not all: a smaller gain is lost in the casts
_WORTHWHILE_IN_INT8 = 2.0  # it rounds more, also in products that it does not speed up

# What becomes of int8 if nobody asked for it: ignored; named in the note if it is faster; or used if it is faster.
Int8 = Literal["unsuited", "unproved", "proved"]


def choose_precision(
    precision: Precision | None, device: torch.device, *, int8: Int8 = "unsuited"
) -> tuple[Precision, str]:
    """Return the precision of the frozen weights' products, and a sentence that says why.

    None is decided here: on a CPU by timing products, on a GPU by what its hardware supports. fp16 is never chosen,
    since its range needs a loss scale; int8 only if it is proved and bf16 is slow. ConfigError for fp16 off cuda, int8
    off CPUs and bf16 on mps.
    """
    if precision is not None:
        allowed = {"cpu": ("fp32", "bf16", "int8"), "cuda": ("fp32", "bf16", "fp16"), "mps": ("fp32",)}[device.type]
        if precision not in allowed:
            raise ConfigError(
                f"train.precision is {precision}: on device {device.type} allowed are {', '.join(allowed)}, or null"
            )
        return precision, f"{precision}: as asked"
    match device.type:
        case "cuda" if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "bf16: this GPU computes in it"
        case "cuda":
            return "fp32", "fp32: this GPU does not compute in bf16; ask for fp16 to use it"
        case "mps":
            return "fp32", "fp32: the only precision used on mps"
        case _:
            return _probed(int8)


def _probed(int8: Int8) -> tuple[Precision, str]:
    bf16 = _speedup_of("bf16")
    if bf16 >= _WORTHWHILE:
        return "bf16", f"bf16: products are {bf16:.1f} x as fast as fp32 here"
    reason = f"fp32: bf16 products are {bf16:.1f} x as fast here; at least {_WORTHWHILE} x pays"
    if int8 == "unsuited":
        return "fp32", reason
    speedup = _speedup_of("int8")
    if speedup < _WORTHWHILE_IN_INT8:
        return "fp32", f"{reason}, of int8 {_WORTHWHILE_IN_INT8:g} x (here {speedup:.1f} x)"
    if int8 == "unproved":
        return "fp32", (
            f"{reason}; int8 ones are {speedup:.1f} x as fast: train.precision=int8 uses them, at a loss of accuracy "
            "that was not measured for this encoder's family and size (see decision 037, int8, in the documentation)"
        )
    return "int8", f"int8: products are {speedup:.1f} x as fast as fp32 here, bf16 ones {bf16:.1f} x"


@cache  # close to the limit a second measurement may differ: one process has one answer
def _speedup_of(precision: Literal["bf16", "int8"]) -> float:
    """Return a product's speed on this CPU as a multiple of fp32's; int8 includes rounding its rows. Takes about 50 ms.

    The two are timed in turn, and the fastest of each counts: machines drift and are shared.
    """
    n_rows, d_in, d_out = _PROBE_SHAPE
    rows, weight = torch.ones(n_rows, d_in), torch.ones(d_out, d_in)
    halves = rows.bfloat16()
    other = IntegerWeight.of(weight.t()) if precision == "int8" else weight.bfloat16()
    seconds = [float("inf"), float("inf")]
    with torch.no_grad():
        for _ in range(1 + _PROBE_REPEATS):  # the first one also prepares the kernels; the minimum drops it
            for i in range(2):
                start = time.perf_counter()
                if i == 0:
                    F.linear(rows, weight)
                elif isinstance(other, IntegerWeight):
                    other.product(halves, None)
                else:
                    F.linear(halves, other)
                seconds[i] = min(seconds[i], time.perf_counter() - start)
    return seconds[0] / seconds[1]

"""The passes between products: dropout's masks, the residual connection with its norm, and the activation.

Each is computed by a function of `native` (CPUs) or `cuda` if rows fit it, else by torch's operators. Masks have 16
random bits an element: computed from a seed wherever they are applied (by those two), else drawn from numpy's SFC64.
Seeds come from torch's generator, so that `torch.manual_seed` and checkpointing's replay decide them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import GELUActivation, NewGELUActivation

from submillion.model.packed import cuda, native

_LEVELS = 1 << 16
_SEED_STEP = 0x9E3779B97F4A7C15  # odd, and far from any multiple of 2^32: both halves of the seed change
# Half of the numbers of a mask come from a second stream and thread; the same ones whatever the number of torch's
# threads.
_HELPER = ThreadPoolExecutor(1, thread_name_prefix="dropout")


def kernels(*rows: torch.Tensor) -> Any:
    """Return the module whose functions can work on all the tensors, `native` or `cuda`; None if neither can."""
    return next((each for each in (native, cuda) if all(each.fits(x) for x in rows)), None)


class _NoContext:
    """The context of a forward pass without a backward pass."""

    def save_for_backward(self, *_: torch.Tensor | None) -> None:
        """Keep nothing."""

    def set_materialize_grads(self, _: bool) -> None:
        """Do nothing: there are no gradients."""


def apply(function: type[torch.autograd.Function], *inputs: Any) -> Any:
    """Return function.apply(*inputs); without gradients only its forward pass, a tenth less time for a single text."""
    return function.apply(*inputs) if torch.is_grad_enabled() else function.forward(_NoContext(), *inputs)


def active_p(module: nn.Module | None) -> float:
    """Return the dropout probability in force: 0 in evaluation, without a module, or for an identity.

    ModernBERT's attention keeps the dropout of its weights as a number.
    """
    if module is None or not module.training:
        return 0.0
    return module.p if isinstance(module, nn.Dropout) else getattr(module, "attention_dropout", 0.0)


def keep_frac(p: float) -> float:
    """Return the exact probability that a mask for `p` keeps an element: 1 - p to within 1/131072.

    >>> keep_frac(0.5)
    0.5
    """
    return 1.0 - _n_dropped(p) / _LEVELS


@dataclass(frozen=True)
class Mask:
    """Which elements dropout keeps: `bits`, an int16 tensor of 1 and 0, or None if `seed` decides.

    least: how many of 65,536 possible numbers drop an element.
    """

    seed: int | cuda.Seed
    least: int
    bits: torch.Tensor | None

    @property
    def kernels(self) -> Any:
        """Return the module that computes the mask from its seed."""
        return cuda if isinstance(self.seed, cuda.Seed) else native


def masked(x: torch.Tensor, mask: Mask) -> torch.Tensor:
    """Return a copy of `x` (16 or 32 bits an element) with 0 where the mask drops."""
    if mask.bits is None:
        x = x.contiguous()
        out = torch.empty_like(x)
        mask.kernels.drop(x, mask.seed, mask.least, out)
        return out
    # The integer product of the bits is 4 to 10 times as fast here as masked_fill or a product with bools.
    return (x.view(_bits(x)) * mask.bits).view(x.dtype)


def mask_(x: torch.Tensor, mask: Mask) -> torch.Tensor:
    """Do as `masked` in place, in a dense tensor; return `x`."""
    if mask.bits is None:
        mask.kernels.drop(x, mask.seed, mask.least, x)
    else:
        x.view(_bits(x)).mul_(mask.bits)
    return x


def add_masked_(out: torch.Tensor, x: torch.Tensor, mask: Mask | None) -> torch.Tensor:
    """Add `x`, with 0 where the mask drops, to `out` in place; return `out`. `x` may be overwritten."""
    if mask is not None and mask.bits is None and kernels(out, x) is not None:
        mask.kernels.add_dropped(x, mask.seed, mask.least, out)
        return out
    return out.add_(x if mask is None else mask_(x, mask))


class Dice:
    """The masks of one layer's forward pass over rows like `x`, in the order of requests."""

    def __init__(self, x: torch.Tensor) -> None:
        self._device, self.dtype = x.device, x.dtype
        self._kernels = kernels(x)
        self._seed: int | None = None
        self._base: torch.Tensor | None = None
        self._n_masks = 0
        self._streams: tuple[np.random.SFC64, np.random.SFC64] | None = None

    def mask(self, shape: Sequence[int], p: float) -> Mask | None:
        """Return a mask that keeps with probability `keep_frac(p)`; None if p is 0."""
        return self.masks([shape], p)[0]

    def masks(self, shapes: Sequence[Sequence[int]], p: float) -> list[Mask | None]:
        """Return a mask for each shape."""
        if p == 0.0:
            return [None] * len(shapes)
        least = _n_dropped(p)
        if self._kernels is cuda:
            return [Mask(self._next_of_base(), least, None) for _ in shapes]
        if self._kernels is native and all(shape[-1] % 2 == 0 for shape in shapes):
            return [Mask(self._next_seed(), least, None) for _ in shapes]
        sizes = [math.prod(shape) for shape in shapes]
        drawn = self._draw(sum(sizes), least - _LEVELS // 2)
        parts = drawn.split(sizes)
        return [Mask(0, least, part.view(*shape)) for part, shape in zip(parts, shapes, strict=True)]

    def _next_seed(self) -> int:
        if self._seed is None:
            self._seed = int(torch.randint(2**62, ()))
        self._seed = (self._seed + _SEED_STEP) % 2**64
        return self._seed

    def _next_of_base(self) -> cuda.Seed:
        if self._base is None:
            self._base = cuda.new_base(self._device)
        self._n_masks += 1
        return cuda.Seed(self._base, self._n_masks)

    def _draw(self, n: int, least: int) -> torch.Tensor:
        """Return n numbers, 1 where a uniform int16 number is at least `least`, else 0."""
        if self._device.type != "cpu":
            numbers = torch.empty(n, dtype=torch.int16, device=self._device).random_(-_LEVELS // 2, _LEVELS // 2)
            return torch.ge(numbers, least, out=numbers)
        if self._streams is None:
            seed = self._next_seed()
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


def dropout(x: torch.Tensor, p: float, dice: Dice) -> torch.Tensor:
    """Return dropout(x), scaled, of any shape; the mask is one for rows in the dtype of `dice`."""
    return _dropped(x, dice.mask(tuple(x.shape), p), p, dice.dtype)


def _dropped(x: torch.Tensor, mask: Mask | None, p: float, dtype: torch.dtype) -> torch.Tensor:
    return x if mask is None else x * masked(torch.ones_like(x, dtype=dtype), mask) * (1.0 / keep_frac(p))


def add_and_norm(
    y: torch.Tensor, residual: torch.Tensor, norm: nn.LayerNorm, p: float, dice: Dice
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return norm(residual + dropout(y)) and the sum that it norms, all [T, D] in one dtype; `y` is overwritten.

    Statistics are float32.
    """
    spec = _Spec(dice.mask(tuple(y.shape), p), 1.0 / keep_frac(p), norm.eps)
    weight = norm.weight.float().contiguous()
    bias = torch.zeros_like(weight) if norm.bias is None else norm.bias.float().contiguous()
    return apply(_AddAndNorm, y, residual, weight, bias, spec)


@dataclass(frozen=True)
class _Spec:
    mask: Mask | None
    factor: float
    eps: float = 0.0

    @property
    def dropout(self) -> tuple[float, int | cuda.Seed, int]:
        """Factor, seed and least, as the kernels take them."""
        return (1.0, 0, 0) if self.mask is None else (self.factor, self.mask.seed, self.mask.least)


class _AddAndNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, spec: _Spec
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.spec = spec
        ctx.set_materialize_grads(False)
        is_right = weight.shape == bias.shape == y.shape[1:]  # else torch says what is wrong
        if is_right and (functions := _kernels_for(spec, y, residual)) is not None:
            out, mean, rstd = functions.add_norm_(y, residual, (weight, bias, spec.eps), *spec.dropout)
            ctx.save_for_backward(y, mean, rstd, weight, bias)
            return out, y
        if spec.mask is None:
            total = residual + y
        else:
            total = torch.add(residual, mask_(y, spec.mask), alpha=spec.factor, out=y)
        summed = _normable(total)
        out, mean, rstd = torch.native_layer_norm(summed, weight.shape, weight, bias, spec.eps)
        ctx.save_for_backward(summed, mean, rstd, weight, bias)
        return out.to(total.dtype), total

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        total, mean, rstd, weight, bias = ctx.saved_tensors
        dout, dpassed = grads
        needs_y, needs_residual, needs_weight, needs_bias, _ = ctx.needs_input_grad
        assert dout is not None  # the norm is always read, the sum not always
        functions = None if needs_weight or needs_bias or not needs_y else _kernels_for(ctx.spec, dout, total)
        if functions is not None:
            saved = (total, mean, rstd, weight)
            dtotal, dy = functions.add_norm_backward(dout, saved, *ctx.spec.dropout, dpassed)
            return dy, dtotal, None, None, None
        wanted = [needs_y or needs_residual, needs_weight, needs_bias]
        total = _normable(total)
        dtotal, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
            dout.to(total.dtype), total, weight.shape, mean, rstd, weight, bias, wanted
        )
        dtotal = None if dtotal is None else dtotal.to(dout.dtype)
        if dtotal is not None and dpassed is not None:
            dtotal = dtotal.add_(dpassed)
        dy = dtotal
        if ctx.spec.mask is not None and dtotal is not None and needs_y:
            dy = masked(dtotal, ctx.spec.mask).mul_(ctx.spec.factor)
        return dy, dtotal, dweight, dbias, None


def _kernels_for(spec: _Spec, *rows: torch.Tensor) -> Any:
    return kernels(*rows) if spec.mask is None or spec.mask.bits is None else None


def _normable(x: torch.Tensor) -> torch.Tensor:
    """Return the tensor in a dtype that LayerNorm takes with float32 weights: on a CPU its own, elsewhere float32."""
    return x if x.device.type == "cpu" else x.float()


def activate(x: torch.Tensor, activation: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return activation(x), [T, D]."""
    if isinstance(activation, NewGELUActivation):  # ALBERT's: in transformers some eight operators
        return F.gelu(x, approximate="tanh")
    return apply(_Gelu, x) if is_gelu(activation) and kernels(x) is not None else activation(x)


def gate(x: torch.Tensor, activation: Callable[[torch.Tensor], torch.Tensor], p: float, dice: Dice) -> torch.Tensor:
    """Return dropout(activation(a) g), [T, F], where x [T, 2 F] holds a and g side by side (GeGLU: Shazeer 2020)."""
    spec = _Spec(dice.mask((len(x), x.shape[1] // 2), p), 1.0 / keep_frac(p))
    if is_gelu(activation) and _kernels_for(spec, x) is native and x.shape[1] % 4 == 0:
        return apply(_GatedGelu, x, spec)
    inputs, gates = x.chunk(2, 1)
    return _dropped(activation(inputs) * gates, spec.mask, p, x.dtype)


def is_gelu(activation: Any) -> bool:
    """Return whether it is GELU itself, not one of its approximations by tanh or a sigmoid."""
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return type(activation) is GELUActivation and activation.act is F.gelu


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return kernels(x).gelu(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return kernels(x).gelu_backward(x, grads[0].contiguous())


class _GatedGelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, spec: _Spec) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.spec = spec
        return kernels(x).gated_gelu(x, *spec.dropout)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return kernels(x).gated_gelu_backward(x, grads[0].contiguous(), *ctx.spec.dropout), None

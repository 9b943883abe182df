"""The end of each half of a layer: dropout, residual connection and LayerNorm in one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from submillion.model.packed import native
from submillion.model.packed.dropout import Dice, Mask, keep_frac, mask_, masked


def add_and_norm(y: torch.Tensor, residual: torch.Tensor, norm: nn.LayerNorm, p: float, dice: Dice) -> torch.Tensor:
    """Return norm(residual + dropout(y)), all [T, D] in one dtype; statistics are float32. `y` is overwritten."""
    spec = _Spec(dice.mask(tuple(y.shape), p), 1.0 / keep_frac(p), norm.eps)
    return _AddAndNorm.apply(y, residual, norm.weight.float(), norm.bias.float(), spec)


@dataclass(frozen=True)
class _Spec:
    mask: Mask | None
    factor: float
    eps: float

    @property
    def dropout(self) -> tuple[float, int, int]:
        """Factor, seed and least, as the native functions take them."""
        return (1.0, 0, 0) if self.mask is None else (self.factor, self.mask.seed, self.mask.least)


class _AddAndNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, spec: _Spec
    ) -> torch.Tensor:
        ctx.spec = spec
        if _is_native(spec, y, residual):
            out, mean, rstd = native.add_norm_(y, residual, (weight, bias, spec.eps), *spec.dropout)
            ctx.save_for_backward(y, mean, rstd, weight, bias)
            return out
        if spec.mask is None:
            total = residual + y
        else:
            total = torch.add(residual, mask_(y, spec.mask), alpha=spec.factor, out=y)
        summed = _normable(total)
        out, mean, rstd = torch.native_layer_norm(summed, weight.shape, weight, bias, spec.eps)
        ctx.save_for_backward(summed, mean, rstd, weight, bias)
        return out.to(total.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        total, mean, rstd, weight, bias = ctx.saved_tensors
        needs_y, needs_residual, needs_weight, needs_bias, _ = ctx.needs_input_grad
        if _is_native(ctx.spec, grads[0], total) and needs_y and not (needs_weight or needs_bias):
            dtotal, dy = native.add_norm_backward(grads[0], (total, mean, rstd, weight), *ctx.spec.dropout)
            return dy, dtotal, None, None, None
        wanted = [needs_y or needs_residual, needs_weight, needs_bias]
        dtotal, dweight, dbias = torch.ops.aten.native_layer_norm_backward(
            grads[0].to(total.dtype), total, weight.shape, mean, rstd, weight, bias, wanted
        )
        dtotal = None if dtotal is None else dtotal.to(grads[0].dtype)
        dy = dtotal
        if ctx.spec.mask is not None and dtotal is not None and needs_y:
            dy = masked(dtotal, ctx.spec.mask).mul_(ctx.spec.factor)
        return dy, dtotal, dweight, dbias, None


def _is_native(spec: _Spec, *rows: torch.Tensor) -> bool:
    return all(native.fits(x) for x in rows) and (spec.mask is None or spec.mask.bits is None)


def _normable(x: torch.Tensor) -> torch.Tensor:
    """The tensor in a dtype that LayerNorm takes beside float32 weights: on a CPU its own, elsewhere float32."""
    return x if x.device.type == "cpu" else x.float()

"""The feed-forward's activation: GELU by its own function where that is faster, any other by the model's module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.activations import GELUActivation

from submillion.model.packed import native


def activate(x: torch.Tensor, activation: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return activation(x), [T, D]."""
    return _Gelu.apply(x) if native.fits(x) and _is_gelu(activation) else activation(x)


def _is_gelu(activation: Any) -> bool:
    """Whether it is GELU itself, not one of its approximations by tanh or a sigmoid."""
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return type(activation) is GELUActivation and activation.act is F.gelu


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return native.gelu(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return native.gelu_backward(x, grads[0].contiguous())

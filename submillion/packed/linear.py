"""Linear layers over packed rows: frozen, with plain LoRA, or whatever PEFT made of them.

Layers that read the same input are computed together where their frozen weights stand one behind the
other in memory (`stack`). Plain LoRA and rsLoRA are computed here; any other method calls PEFT's own
module, under autocast where the rows are of half precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners import lora
from torch import nn

from submillion.packed.dropout import Dice, active_p, keep_frac, mask_, masked

# oneDNN 3.12 falls back to one thread in bf16 products of this width with more than _WHOLE_ROWS rows; in parts of at
# most _PART_ROWS rows they take 0.6 of the time. Narrower and wider products are not helped.
_PART_WIDTHS = range(640, 1281)
_WHOLE_ROWS = 704
_PART_ROWS = 640


@dataclass(frozen=True)
class _Part:
    """A linear layer whose weight is frozen: down [R, d_in] and up [d_out, R] if it has LoRA, p its dropout."""

    linear: nn.Linear
    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    scaling: float = 1.0
    p: float = 0.0


def stack(modules: Sequence[nn.Module]) -> None:
    """Move the frozen weights of linear layers of one input, adapted or not, into one tensor, which they then view.

    Nothing happens where a weight trains, or the weights differ in dtype or device.
    """
    linears = [module.get_base_layer() if isinstance(module, lora.LoraLayer) else module for module in modules]
    weights = [linear.weight for linear in linears if isinstance(linear, nn.Linear)]
    if len(weights) < len(modules) or len({(w.dtype, w.device, w.shape[1], w.requires_grad) for w in weights}) > 1:
        return
    if weights[0].requires_grad or _stacked(weights) is not None:
        return
    whole = torch.cat([weight.data for weight in weights])
    for weight, rows in zip(weights, whole.split([len(weight) for weight in weights]), strict=True):
        weight.data = rows


def project(x: torch.Tensor, modules: Sequence[nn.Module], dice: Dice) -> torch.Tensor:
    """Return the modules' outputs side by side, [T, sum of d_out], from their common input x [T, d_in]."""
    parts = [_part(module) for module in modules]
    ours = [part for part in parts if part is not None]
    if len(ours) == len(parts) and len({part.p for part in ours if part.down is not None}) <= 1:
        weight = _stacked([part.linear.weight for part in ours])
        if weight is not None:
            return _project(x, weight, ours, dice)
    outputs = [
        _foreign(module, x) if part is None else _project(x, part.linear.weight, [part], dice)
        for module, part in zip(modules, parts, strict=True)
    ]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)


def _part(module: Any) -> _Part | None:
    """The module as a `_Part`, or None if it must be called itself."""
    if type(module) is nn.Linear:
        return None if module.weight.requires_grad else _Part(module)
    if type(module) is not lora.Linear or module.merged or module.disable_adapters or len(module.active_adapters) != 1:
        return None
    name, base = module.active_adapters[0], module.get_base_layer()
    is_plain = name in module.lora_A and name not in module.lora_variant and not module.lora_bias[name]
    if not is_plain or type(base) is not nn.Linear or base.weight.requires_grad or module.fan_in_fan_out:
        return None
    down: Any = module.lora_A[name].weight
    up: Any = module.lora_B[name].weight
    return _Part(base, down, up, float(module.scaling[name]), active_p(module.lora_dropout[name]))


def _stacked(weights: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """The weights as one [sum of d_out, d_in] view, if they stand one behind the other in one storage."""
    first = weights[0].detach()
    if len(weights) == 1:
        return first
    place, storage = first.data_ptr(), first.untyped_storage().data_ptr()
    for weight in weights:
        is_next = weight.data_ptr() == place and weight.untyped_storage().data_ptr() == storage
        if not is_next or weight.dtype != first.dtype or weight.shape[1:] != first.shape[1:]:
            return None
        place += weight.numel() * weight.element_size()
    return first.as_strided((sum(len(weight) for weight in weights), first.shape[1]), (first.shape[1], 1))


def _project(x: torch.Tensor, weight: torch.Tensor, parts: Sequence[_Part], dice: Dice) -> torch.Tensor:
    biases: list[torch.Tensor] = [part.linear.bias for part in parts if part.linear.bias is not None]
    bias = None if not biases else biases[0] if len(biases) == 1 else torch.cat(biases)
    bias = None if bias is None else bias.to(x.dtype)
    adapted = [i for i, part in enumerate(parts) if part.down is not None]
    if not adapted:
        return _Linear.apply(x, bias, None, None, _Spec(weight.to(x.dtype)))
    p = parts[adapted[0]].p
    span = parts[adapted[0] : adapted[-1] + 1]
    start = sum(part.linear.out_features for part in parts[: adapted[0]])
    down, up = _adapters(span, 1.0 / keep_frac(p))
    spec = _Spec(weight.to(x.dtype), start, dice.mask(tuple(x.shape), p))
    return _Linear.apply(x, bias, down.to(x.dtype), up.to(x.dtype), spec)


def _adapters(parts: Sequence[_Part], factor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """All A below each other [sum R, d_in], and all B, scaled, as the blocks of one [sum d_out, sum R]."""
    downs = [part.down for part in parts if part.down is not None]
    ups = [
        downs[0].new_zeros(part.linear.out_features, 0) if part.up is None else part.up * (part.scaling * factor)
        for part in parts
    ]
    return (downs[0], ups[0]) if len(parts) == 1 else (torch.cat(downs), torch.block_diag(*ups))


@dataclass(frozen=True)
class _Spec:
    """What does not train: the frozen weight, the first output column that `up` reaches, the adapters' dropout mask."""

    weight: torch.Tensor
    start: int = 0
    mask: torch.Tensor | None = None


class _Linear(torch.autograd.Function):
    """x W^T + bias + dropout(x) down^T up^T, `up` [columns, R] reaching the columns from `start` on, or absent."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor | None,
        up: torch.Tensor | None,
        spec: _Spec,
    ) -> torch.Tensor:
        y = _product(x, spec.weight.t(), bias)
        ctx.weight, ctx.start = spec.weight, spec.start
        if down is None or up is None:
            return y
        seen = x if spec.mask is None else masked(x, spec.mask)
        low = seen @ down.t()
        y[:, spec.start : spec.start + len(up)].addmm_(low, up.t())
        ctx.save_for_backward(seen, low, down, up, spec.mask)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (dy,) = grads
        dbias = dy.sum(0) if ctx.needs_input_grad[1] else None
        saved = ctx.saved_tensors
        if not saved:
            return _product(dy, ctx.weight) if ctx.needs_input_grad[0] else None, dbias, None, None, None
        seen, low, down, up, mask = saved
        reached = dy[:, ctx.start : ctx.start + len(up)]
        dlow = reached @ up
        dx = None
        if ctx.needs_input_grad[0]:  # the large product last: adding to what is there costs less than a pass of its own
            dx = dlow @ down
            dx = _product(dy, ctx.weight, dx if mask is None else mask_(dx, mask))
        return dx, dbias, dlow.t() @ seen, (low.t() @ reached).t(), None


def _product(x: torch.Tensor, weight: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
    """x weight + start, of a bias [N] or of rows [T, N], which are overwritten; in parts where that is faster."""
    n_rows, width = len(x), weight.shape[1]
    is_slow = x.is_cpu and x.element_size() == 2 and width in _PART_WIDTHS and n_rows > _WHOLE_ROWS
    n_parts = -(-n_rows // _PART_ROWS) if is_slow else 1
    rows = -(-n_rows // n_parts)
    out = start if start is not None and start.dim() == 2 else x.new_empty(n_rows, width)
    for part, place in zip(x.split(rows), out.split(rows), strict=True):
        if start is None:
            torch.mm(part, weight, out=place)
        else:
            torch.addmm(place if start is out else start, part, weight, out=place)
    return out


def _foreign(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Call the module itself; weights that train in float32 are cast to the rows' dtype at each use."""
    with torch.autocast(x.device.type, dtype=x.dtype, enabled=x.dtype != torch.float32):
        return module(x).to(x.dtype)

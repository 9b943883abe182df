"""Linear layers over packed rows: frozen, with plain LoRA, or whatever PEFT made of them.

Layers that read the same input are computed together if their frozen weights are contiguous in memory (`weights`).
Plain LoRA and rsLoRA are computed here; any other method calls PEFT's own module, under autocast if the rows are of
half precision. `Mixed` is one site of several models that share their frozen weights, for batches that mix their rows
(`mixing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft.tuners import lora
from torch import nn

from submillion.model.packed import native_lora
from submillion.model.packed.passes import Dice, Mask, active_p, add_masked_, apply, keep_frac, mask_, masked
from submillion.model.packed.weights import Weight, frozen


@dataclass(frozen=True)
class Part:
    """A linear layer whose weight is frozen: down [R, d_in] and up [d_out, R] if it has LoRA, p its dropout."""

    linear: nn.Linear
    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    scaling: float = 1.0
    p: float = 0.0


@dataclass(frozen=True)
class Lots:
    """The rows of each model in lots of equal size, the last of each model padded.

    model: int64 [lots], the model whose rows a lot has · take: int64 [lots · size], the row at each place (any, for
    padding) · put: int64 [rows], the place of each row (any, for rows of no model).
    """

    model: torch.Tensor
    take: torch.Tensor
    put: torch.Tensor


class Mixed(nn.Module):
    """One site of several models over one frozen layer; each model's LoRA applies only to its own rows.

    lora: down [models, R, d_in] and up, scaled, [models, R, d_out], zero beyond a model's rank; None if none has any ·
    lots: by the number of rows in the input, since the last layer has fewer · text_models: int64 [texts], each text's
    model, in the layout's order.
    """

    def __init__(
        self,
        linear: nn.Linear,
        lora: tuple[torch.Tensor, torch.Tensor] | None,
        lots: Mapping[int, Lots],
        text_models: torch.Tensor,
    ) -> None:
        super().__init__()
        self.linear, self.lora, self.lots, self.text_models = linear, lora, lots, text_models


def frozen_and_lora(module: nn.Module, dtype: torch.dtype) -> tuple[nn.Linear, tuple[torch.Tensor, torch.Tensor]]:
    """Return the frozen layer of a linear layer that `is_ours`, and its LoRA: down [R, d_in], scaled up [R, d_out].

    They have their current values; without LoRA, R is 0.
    """
    part = part_of(module)
    assert part is not None
    if part.down is None or part.up is None:
        weight = part.linear.weight.detach()
        return part.linear, (weight.new_empty(0, weight.shape[1]).to(dtype), weight.new_empty(0, len(weight)).to(dtype))
    up = (part.up.detach() * part.scaling).t().to(dtype)
    return part.linear, (part.down.detach().to(dtype), up.contiguous())


def is_ours(module: nn.Module) -> bool:
    """Return whether a linear layer is frozen, with or without plain LoRA, and so is computed here."""
    return part_of(module) is not None


def project(x: torch.Tensor, modules: Sequence[nn.Module], dice: Dice) -> torch.Tensor:
    """Return the modules' outputs side by side, [T, sum of d_out], from their common input x [T, d_in]."""
    return project_and_pass(x, modules, dice)[0]


def project_and_pass(x: torch.Tensor, modules: Sequence[nn.Module], dice: Dice) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `project` does, and x for a residual connection, whose gradient the backward pass's product adds."""
    if isinstance(modules[0], Mixed):
        return _project_mixed(x, cast("Sequence[Mixed]", modules), dice), x
    parts = [part_of(module) for module in modules]
    ours = [part for part in parts if part is not None]
    if len(ours) == len(parts) and len({part.p for part in ours if part.down is not None}) <= 1:
        weight = frozen([part.linear.weight for part in ours])
        if weight is not None:
            return _project(x, weight, ours, dice)
    outputs: list[torch.Tensor] = []
    for module, part in zip(modules, parts, strict=True):
        weight = None if part is None else frozen([part.linear.weight])
        if part is None or weight is None:
            outputs.append(_foreign(module, x))
        else:
            y, x = _project(x, weight, [part], dice)
            outputs.append(y)
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1), x


def project_for_each(x: torch.Tensor, modules: Sequence[nn.Module], dice: Dice) -> torch.Tensor:
    """Return the modules' outputs side by side from rows that all models read: [models, T, sum of d_out], or [1, ...].

    There is one for each model if the modules are `Mixed` and some model has LoRA on them.
    """
    if not isinstance(modules[0], Mixed):
        return project(x, modules, dice)[None]
    mixed = cast("Sequence[Mixed]", modules)
    y = project(x, [module.linear for module in mixed], dice)[None]
    n_models = max((len(module.lora[0]) for module in mixed if module.lora is not None), default=1)
    y = y.repeat(n_models, 1, 1)
    for module, part in zip(mixed, y.split([module.linear.out_features for module in mixed], 2), strict=True):
        if module.lora is not None:
            down, up = module.lora
            part += (x @ down.transpose(1, 2)) @ up
    return y


def part_of(module: Any) -> Part | None:
    """Return the module as a `Part`, or None if the module itself must be called."""
    if type(module) is nn.Linear:
        return None if module.weight.requires_grad else Part(module)
    if type(module) is not lora.Linear or module.merged or module.disable_adapters or len(module.active_adapters) != 1:
        return None
    # Children by their dictionaries: `nn.Module.__getattr__` took an eighth of a short text's time in Python.
    children: Any = module._modules
    name = module.active_adapters[0]
    base, downs, ups = children["base_layer"], children["lora_A"], children["lora_B"]
    is_plain = name in downs and name not in module.lora_variant and not module.lora_bias[name]
    if not is_plain or type(base) is not nn.Linear or module.fan_in_fan_out:
        return None
    if _weight(base).requires_grad:
        return None
    down, up = (_weight(factors._modules[name]) for factors in (downs, ups))
    return Part(base, down, up, float(module.scaling[name]), active_p(children["lora_dropout"][name]))


def _weight(module: Any) -> Any:
    """Return a module's weight; torch.nn.utils.prune, for one, replaces the parameter by another tensor."""
    weight = module._parameters.get("weight")
    return module.weight if weight is None else weight


def _project_mixed(x: torch.Tensor, modules: Sequence[Mixed], dice: Dice) -> torch.Tensor:
    """The frozen products of all rows at once, then each site's LoRA in two batched products; for evaluation only."""
    y = project(x, [module.linear for module in modules], dice)
    lots = modules[0].lots[len(x)]
    rows = None
    for module, part in zip(modules, y.split([module.linear.out_features for module in modules], 1), strict=True):
        if module.lora is not None:
            if rows is None:
                rows = x.index_select(0, lots.take).view(len(lots.model), -1, x.shape[1])
            down, up = (factor.index_select(0, lots.model) for factor in module.lora)
            added = torch.bmm(torch.bmm(rows, down.transpose(1, 2)), up)
            part += added.flatten(0, 1).index_select(0, lots.put)
    return y


def _project(x: torch.Tensor, weight: Weight, parts: Sequence[Part], dice: Dice) -> tuple[torch.Tensor, torch.Tensor]:
    bias = bias_of(parts, x.dtype)
    down = up = mask = None
    start, is_native = 0, False
    p = next((part.p for part in parts if part.down is not None), 0.0)
    if (lora := lora_of(parts, 1.0 / keep_frac(p), stacked=native_lora.takes_stacked(x))) is not None:
        down, up, start = lora.down, lora.up, lora.start
        mask = dice.mask(tuple(x.shape), p)
        is_inside = start + len(up) <= len(weight.matrix)
        is_native = is_inside and native_lora.fits(x, down, up) and (mask is None or mask.bits is None)
        if not is_native:
            down, up = down.to(x.dtype), lora.whole_up().to(x.dtype)
    y, passed = apply(_Linear, x, bias, down, up, _Spec(weight, start, mask, is_native))
    return y, passed if x.requires_grad else x


def bias_of(parts: Sequence[Part], dtype: torch.dtype) -> torch.Tensor | None:
    """Return the parts' biases side by side, dense; None if they have none."""
    linears = [part.linear for part in parts]
    if all(linear.bias is None for linear in linears):
        return None
    biases = [
        linear.weight.new_zeros(linear.out_features) if linear.bias is None else linear.bias for linear in linears
    ]
    return (biases[0] if len(biases) == 1 else torch.cat(biases)).to(dtype).contiguous()


@dataclass(frozen=True)
class Lora:
    """The LoRA of layers side by side: `up` [columns, R] times `down` [R, d_in], from the output column `start` on.

    Or the factors of equally shaped layers, stacked by rows: `down` [layers · R, d_in], `up` [columns, R].
    """

    down: torch.Tensor
    up: torch.Tensor
    start: int

    @property
    def n_layers(self) -> int:
        """Return how many layers' factors are stacked."""
        return native_lora.n_layers(self.down, self.up)

    def whole_up(self) -> torch.Tensor:
        """Return `up` as one block-diagonal matrix, [columns, rows of `down`]."""
        return self.up if self.n_layers == 1 else torch.block_diag(*self.up.chunk(self.n_layers))


def lora_of(parts: Sequence[Part], factor: float, *, stacked: bool = False) -> Lora | None:
    """Return the parts' LoRA, scaled by `factor` too; None if none has any.

    stacked: the factors of equally shaped layers may be stacked by rows.
    """
    adapted = [i for i, part in enumerate(parts) if part.down is not None]
    if not adapted:
        return None
    down, up = _adapters(parts[adapted[0] : adapted[-1] + 1], factor, stacked=stacked)
    return Lora(down, up, sum(part.linear.out_features for part in parts[: adapted[0]]))


def _adapters(parts: Sequence[Part], factor: float, *, stacked: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return all A below each other, [sum R, d_in], and all B, scaled, as the blocks of one [sum d_out, sum R]; or if
    they have one shape and may be `stacked`, below each other too, [sum d_out, R]."""
    downs = [part.down for part in parts if part.down is not None]
    ups = [
        downs[0].new_zeros(part.linear.out_features, 0) if part.up is None else part.up * (part.scaling * factor)
        for part in parts
    ]
    if len(parts) == 1:
        return downs[0], ups[0]
    is_even = len({up.shape for up in ups}) == 1
    return torch.cat(downs), torch.cat(ups) if stacked and is_even else torch.block_diag(*ups)


@dataclass(frozen=True)
class _Spec:
    """What does not train: the frozen weight, the first output column that `up` reaches, the adapters' dropout mask.

    is_native: `native_lora` computes LoRA's products.
    """

    weight: Weight
    start: int = 0
    mask: Mask | None = None
    is_native: bool = False

    @property
    def dropout(self) -> tuple[int, int]:
        """Return seed and least, as `native_lora` takes them."""
        if self.mask is None:
            return 0, 0
        assert isinstance(self.mask.seed, int)
        return self.mask.seed, self.mask.least


class _Linear(torch.autograd.Function):
    """x W^T + bias + dropout(x) down^T up^T, and x; `up` [columns, R] starts at the column `start`, or is absent.

    If `is_native`, the factors may be stacked as in `Lora`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor | None,
        up: torch.Tensor | None,
        spec: _Spec,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.set_materialize_grads(False)
        ctx.spec = spec
        y = spec.weight.forward(x, bias)
        if down is None or up is None:
            return y, x
        reached = y[:, spec.start : spec.start + len(up)]
        if spec.is_native:
            seen, low = x, native_lora.add_(reached, x, (down, up), spec.dropout)
        else:
            seen = x if spec.mask is None else masked(x, spec.mask)
            low = seen @ down.t()
            reached.addmm_(low, up.t())
        ctx.save_for_backward(seen, low, down, up)
        return y, x

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        dy, dpassed = grads
        if dy is None:
            return dpassed, None, None, None, None
        spec, saved = ctx.spec, ctx.saved_tensors
        dbias = dy.sum(0) if ctx.needs_input_grad[1] else None
        ddown = dup = None
        dx = dpassed  # nothing reads it after this
        if saved and spec.is_native:
            reached = dy[:, spec.start : spec.start + len(saved[3])]
            dx, ddown, dup = native_lora.backward(reached, saved, spec.dropout, dx, wants_dx=ctx.needs_input_grad[0])
        elif saved:
            seen, low, down, up = saved
            reached = dy[:, spec.start : spec.start + len(up)]
            dlow = reached @ up
            ddown, dup = dlow.t() @ seen, (low.t() @ reached).t()
            if ctx.needs_input_grad[0]:
                small = dlow @ down
                if dx is not None:
                    dx = add_masked_(dx, small, spec.mask)
                else:
                    dx = small if spec.mask is None else mask_(small, spec.mask)
        # The large product comes last: adding to an existing sum costs less than a separate pass.
        dx = spec.weight.backward(dy, dx) if ctx.needs_input_grad[0] else None
        return dx, dbias, ddown, dup, None


def _foreign(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Call the module itself; weights that train in float32 are cast to the rows' dtype at each use."""
    with torch.autocast(x.device.type, dtype=x.dtype, enabled=x.dtype != torch.float32):
        return module(x).to(x.dtype)

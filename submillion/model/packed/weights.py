"""Frozen weights and products with them.

Owns weights of one input in one tensor (`stack`), the copies of a weight that products on matrix tiles or in int8 read,
made when first needed, and the choice between those products and torch's. Trainable weights are outside its scope.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

from submillion.model.packed import native_products
from submillion.model.packed.integers import IntegerWeight

# oneDNN 3.12 falls back to one thread in bf16 products of this width with more than _WHOLE_ROWS rows; in parts of at
# most _PART_ROWS rows they take 0.6 of the time. Narrower and wider products gain nothing.
_PART_WIDTHS = range(640, 1281)
_WHOLE_ROWS = 704
_PART_ROWS = 640


@dataclass(eq=False)
class Weight:
    """A frozen weight [d_out, d_in], perhaps of several layers, and its copies packed for either product.

    A copy is as large as the weight, or half as large in int8, and has the values that the weight had when it was made.
    `reach`: about how far from 0 each column of its input gets, float32 [d_in], None if unknown · `known`: a product
    kept for all batches, and what it was made from (`disentangled`).
    """

    matrix: torch.Tensor
    version: int
    in_int8: bool = False
    reach: torch.Tensor | None = None
    known: tuple[list[Any], torch.Tensor] | None = None
    _packed: dict[bool, torch.Tensor] = field(default_factory=dict)
    _integers: dict[bool, IntegerWeight] = field(default_factory=dict)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Return x W^T + bias, [T, d_out], from x [T, d_in]."""
        return self._product(x, self.matrix.t(), bias, is_forward=True)

    def backward(self, dy: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
        """Return dy W + start, [T, d_in], from dy [T, d_out]; `start` is overwritten."""
        return self._product(dy, self.matrix, start, is_forward=False)

    def _product(
        self, x: torch.Tensor, matrix: torch.Tensor, start: torch.Tensor | None, *, is_forward: bool
    ) -> torch.Tensor:
        if x.shape[1] != len(matrix) or (start is not None and start.shape[-1] != matrix.shape[1]):
            return torch_product(x, matrix.to(x.dtype), start)  # which says what is wrong
        if self.in_int8:
            return self._in_integers(matrix, is_forward=is_forward).product(x, start)
        if not (native_products.fits_weight(x.dtype, *matrix.shape) and native_products.fits_rows(x)):
            return torch_product(x, matrix.to(x.dtype), start)
        if is_forward not in self._packed:
            self._packed[is_forward] = native_products.packed(matrix.to(x.dtype))
        return native_products.multiply(x, self._packed[is_forward], start)

    def integers(self) -> IntegerWeight:
        """Return the copy that `forward` reads in int8."""
        return self._in_integers(self.matrix.t(), is_forward=True)

    def _in_integers(self, matrix: torch.Tensor, *, is_forward: bool) -> IntegerWeight:
        if is_forward not in self._integers:  # if threads make it at once, all use the first one's
            self._integers.setdefault(is_forward, IntegerWeight.of(matrix, self.reach if is_forward else None))
        return self._integers[is_forward]


# By the first weight, then by how many are together: query and key alone, or all three.
_weights: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_in_int8: WeakTensorKeyDictionary = WeakTensorKeyDictionary()  # parameter -> `Weight.reach`
_generations = itertools.count(1)
_generation = 0


def generation() -> int:
    """Return a number that changes whenever `stack` or `multiply_in_int8` discards copies, or an optimiser steps."""
    return _generation


def _change(*_: Any) -> None:
    global _generation
    _generation = next(_generations)


def _forget(parameter: nn.Parameter) -> None:
    """Discard a parameter's copies. The number changes last: whoever notes a copy with it has seen the new state."""
    _weights.pop(parameter, None)
    _change()


# Fused optimisers change tensors, which may be frozen later, without a new version.
register_optimizer_step_post_hook(_change)


def stack(parameters: Sequence[nn.Parameter]) -> None:
    """Move frozen weights of one input into one tensor, which they then view; discard old copies.

    Nothing moves if a weight trains, or if they differ in dtype or device.
    """
    for parameter in parameters:
        _forget(parameter)
    if len({(w.dtype, w.device, w.shape[1], w.requires_grad) for w in parameters}) > 1:
        return
    if parameters[0].requires_grad or _stacked(parameters) is not None:
        return
    whole = torch.cat([parameter.data for parameter in parameters])
    for parameter, rows in zip(parameters, whole.split([len(parameter) for parameter in parameters]), strict=True):
        parameter.data = rows


def multiply_in_int8(parameters: Sequence[nn.Parameter], in_int8: bool, reach: torch.Tensor | None = None) -> None:
    """Let products with frozen weights be in int8 from now on, or in the dtype of the rows again.

    reach: about how far from 0 each column of their input gets, float32 [d_in], if known.
    """
    for parameter in parameters:
        if in_int8:
            _in_int8[parameter] = reach
            _forget(parameter)
        elif parameter in _in_int8:
            del _in_int8[parameter]
            _forget(parameter)


def frozen(parameters: Sequence[torch.Tensor]) -> Weight | None:
    """Return weights that are contiguous in one storage as one, None if they are not.

    A weight that is changed in place is seen, but one changed through `.data` only after `stack`.
    """
    matrix = _stacked(parameters)
    if matrix is None:
        return None
    first, version = parameters[0], sum(parameter._version for parameter in parameters)
    together = cast("dict[int, Weight]", _weights.setdefault(first, {}))
    weight = together.get(len(parameters))
    if weight is not None and (weight.version != version or not _is_same(weight.matrix, matrix)):
        together.pop(len(parameters), None)  # another thread may have done so
        weight = None
    return weight or together.setdefault(
        len(parameters), Weight(matrix, version, first in _in_int8, _in_int8.get(first))
    )


def _is_same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return first.data_ptr() == second.data_ptr() and first.shape == second.shape and first.dtype == second.dtype


def _stacked(weights: Sequence[torch.Tensor]) -> torch.Tensor | None:
    """Return the weights as one [sum of d_out, d_in] view, if they are contiguous in one storage."""
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


def torch_product(x: torch.Tensor, weight: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
    """Return x weight + start (a bias [N], or rows [T, N], which are overwritten), in parts if that is faster."""
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

"""A layer in one C call (layer.c), where nothing trains, nothing is dropped and products are in int8 vectors.

A text that comes alone is bound by calls from Python, not by what they compute. Results are the same to the bit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from submillion.model.packed import native, native_lora, weights
from submillion.model.packed.attention import Tiles
from submillion.model.packed.linear import Part, bias_of, lora_of, part_of
from submillion.model.packed.passes import active_p, is_gelu
from submillion.model.packed.structure import Layer, inputs_of


def _fields(names: str, kind: Any) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Site(ctypes.Structure):
    """`site` in layer.c."""

    _fields_ = [
        *_fields("weight scales factors bias down up", ctypes.c_void_p),
        *_fields("depth width rank first columns", ctypes.c_int64),
    ]


class _Norm(ctypes.Structure):
    _fields_ = [*_fields("weight bias", ctypes.c_void_p), ("eps", ctypes.c_double)]


class _Layer(ctypes.Structure):
    """`layer` in layer.c."""

    _fields_ = [*_fields("inputs output ffn_in ffn_out", _Site), *_fields("attention_norm ffn_norm", _Norm)]


class _Batch(ctypes.Structure):
    """`batch` in layer.c."""

    _fields_ = [
        *_fields("bounds relative", ctypes.c_void_p),
        *_fields("n_texts n_heads n_rows longest threads", ctypes.c_int64),
    ]


def run(layer: Layer, x: torch.Tensor, tiles: Tiles) -> torch.Tensor | None:
    """Return what the layer makes of rows x [T, D], or None where it has to be walked step by step.

    All but the frozen weights' copies in int8 is read anew in each call, as the steps do: optimisers change parameters
    without a trace.
    """
    if torch.is_grad_enabled() or not native.has_integers() or native.has_tiles() or not native.fits(x):
        return None
    dropouts = (layer.probs_dropout, layer.attention_dropout, layer.ffn_dropout)
    if tiles.tiles or layer.is_gated or not is_gelu(layer.activation) or any(active_p(each) for each in dropouts):
        return None
    kept: list[torch.Tensor | None] = []
    found = []
    for sites in inputs_of(layer.sites):
        site = _site([part_of(layer.sites[each]) for each in sites], kept)
        if site is None:
            return None
        found.append(site)
    inputs, _, inner, _ = found
    if inputs.width != 3 * inputs.depth or inner.width > native.MAX_WIDTH:
        return None
    norms = _norm(layer.attention_norm, kept), _norm(layer.ffn_norm, kept)
    return _run(_Layer(*found, *norms), x, tiles)


def _run(layer: _Layer, x: torch.Tensor, tiles: Tiles) -> torch.Tensor:
    layout, relative = tiles.layout, tiles.positions.relative
    batch = _Batch(
        *(layout.bounds.data_ptr(), None if relative is None else relative.data_ptr()),
        *(len(layout.bounds) - 1, tiles.n_heads, len(x), layout.longest, torch.get_num_threads()),
    )
    both = ctypes.byref(layer), ctypes.byref(batch)
    scratch = torch.empty(native.library().layer_scratch(*both), dtype=torch.int8)
    out = torch.empty_like(x)
    native.library().whole_layer(*both, x.data_ptr(), out.data_ptr(), scratch.data_ptr())
    return out


def _site(parts: Sequence[Part | None], kept: list[torch.Tensor | None]) -> _Site | None:
    """What reads one input; `kept` keeps alive what its addresses are of. None where the function cannot take it."""
    ours = [part for part in parts if part is not None and part.p == 0]
    weight = weights.frozen([part.linear.weight for part in ours]) if len(ours) == len(parts) else None
    if weight is None or not weight.in_int8 or not (integers := weight.integers()).is_packed:
        return None
    bias, lora, width, depth = bias_of(ours, torch.bfloat16), lora_of(ours, 1.0), *weight.matrix.shape
    tensors = [integers.values, integers.scales, integers.column_factors, bias]
    sizes = (depth, width, 0, 0, 0)
    if lora is not None:
        if not native_lora.fits_factors(depth, lora.down, lora.up):
            return None
        tensors += [lora.down.float().contiguous(), lora.up.float().contiguous()]
        sizes = (depth, width, lora.up.shape[1], lora.start, len(lora.up))
    kept += tensors
    addresses = [None if each is None else each.data_ptr() for each in tensors]
    return _Site(*addresses, *[None] * (6 - len(addresses)), *sizes)


def _norm(norm: nn.LayerNorm, kept: list[torch.Tensor | None]) -> _Norm:
    weight = norm.weight.float().contiguous()
    bias = torch.zeros_like(weight) if norm.bias is None else norm.bias.float().contiguous()
    kept += [weight, bias]
    return _Norm(weight.data_ptr(), bias.data_ptr(), norm.eps)

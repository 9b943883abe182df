"""A layer in one C call (layer.c), where nothing trains, nothing is dropped and products are in int8 vectors.

A text that comes alone is bound by calls from Python, not by what they compute. Results are the same to the bit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from submillion.model.packed import native, native_lora, weights
from submillion.model.packed.attention import Tiles
from submillion.model.packed.linear import Part, bias_of, lora_of, part_of
from submillion.model.packed.passes import active_p, is_gelu
from submillion.model.packed.structure import Layer, inputs_of
from submillion.planning.architectures import Site


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


@dataclass(frozen=True, eq=False)
class _Known:
    """A layer as the C function takes it, None if it cannot; of what it was made; what its addresses keep alive."""

    made_of: tuple[object, ...]
    layer: _Layer | None
    kept: list[torch.Tensor | None]

    @classmethod
    def of(
        cls,
        layer: Layer,
        parts: Mapping[Site, Part],
        made_of: tuple[object, ...],
        tensors: Iterable[torch.Tensor | None],
        x: torch.Tensor,
    ) -> _Known:
        """Return the layer for rows like x."""
        kept = [*tensors]
        inputs, *others = ([parts[site] for site in sites] for sites in inputs_of(layer.sites))
        sites = [_site(each, x.shape[1], kept) for each in (inputs, *others[:2])]
        sites.append(_site(others[2], others[2][0].linear.in_features, kept))
        if any(site is None for site in sites) or len(inputs) != 3:
            return cls(made_of, None, kept)
        return cls(made_of, _Layer(*sites, _norm(layer.attention_norm, kept), _norm(layer.ffn_norm, kept)), kept)


def _site(parts: Sequence[Part], depth: int, kept: list[torch.Tensor | None]) -> _Site | None:
    """What reads one input, its tensors added to `kept`; None where the function cannot take it."""
    weight = weights.frozen([part.linear.weight for part in parts])
    if weight is None or not weight.in_int8 or not (integers := weight.integers()).is_packed:
        return None
    bias, lora, width = bias_of(parts, torch.bfloat16), lora_of(parts, 1.0), len(integers.scales)
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
    weight = norm.weight.detach().float().contiguous()
    bias = torch.zeros_like(weight) if norm.bias is None else norm.bias.detach().float().contiguous()
    kept += [weight, bias]
    return _Norm(weight.data_ptr(), bias.data_ptr(), norm.eps)


_known: WeakIdKeyDictionary = WeakIdKeyDictionary()  # by layer


def run(layer: Layer, x: torch.Tensor, tiles: Tiles) -> torch.Tensor | None:
    """Return what the layer makes of rows x [T, D], or None where it has to be walked step by step."""
    if torch.is_grad_enabled() or not native.has_integers() or native.has_tiles() or not native.fits(x):
        return None
    dropouts = (layer.probs_dropout, layer.attention_dropout, layer.ffn_dropout)
    if tiles.tiles or layer.is_gated or not is_gelu(layer.activation) or any(active_p(each) for each in dropouts):
        return None
    parts = [part_of(module) for module in layer.sites.values()]
    ours = dict(zip(layer.sites, (part for part in parts if part is not None), strict=False))
    if len(ours) < len(parts) or any(part.p for part in ours.values()):
        return None
    tensors, made_of = _made_of(layer, ours.values())
    known: _Known | None = _known.get(layer)
    if known is None or known.made_of != made_of:
        known = _known[layer] = _Known.of(layer, ours, made_of, tensors, x)
    return None if known.layer is None else _run(known.layer, x, tiles)


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


def _made_of(layer: Layer, parts: Iterable[Part]) -> tuple[list[torch.Tensor | None], tuple[object, ...]]:
    """A layer's tensors, and what is another tuple once a weight, an adapter or a norm has changed.

    Another tensor has another address as long as those that are known are kept alive.
    """
    tensors: list[torch.Tensor | None] = [
        layer.attention_norm.weight,
        layer.attention_norm.bias,
        layer.ffn_norm.weight,
        layer.ffn_norm.bias,
    ]
    scalings = []
    for part in parts:
        tensors += [part.linear.weight, part.linear.bias, part.down, part.up]
        scalings.append(part.scaling)
    versions = (None if each is None else (each.data_ptr(), each._version) for each in tensors)
    return tensors, (weights.n_changes(), *versions, *scalings)

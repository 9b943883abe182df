"""A layer in one C call, if no gradient is wanted and nothing is dropped: with products in int8 vectors (layer.c), or
in float32 for few rows (floats.c).

Half of a single text's time went to calls from Python, and in float32 much of the rest to torch's copies of weights.
In int8 results are the same to the bit. A finished run's layers are noted as C reads them, and the notes are used until
something they were made from changes, or an optimiser steps anywhere: fused ones change tensors without a new version.
A model that trains is read anew each time.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from submillion.model.packed import native, native_lora, weights
from submillion.model.packed.attention import Positions, Tiles
from submillion.model.packed.linear import Part, bias_of, lora_of, part_of
from submillion.model.packed.passes import active_p, is_gelu
from submillion.model.packed.structure import Layer, inputs_of

# Rows in float32 times the width of the feed-forward, by the floats of a vector: from about so many on, torch's
# products were faster at 768 features (docs/log.md). At 384 features they were only beyond twice as many.
_MOST_CELLS = {16: 250_000, 8: 150_000}
_DENSE = (torch.Tensor, nn.Parameter)  # subclasses may wrap others, or have no address


def _fields(names: str, kind: Any) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names.split()]


class _Site(ctypes.Structure):
    """`site` in layer.h."""

    _fields_ = [
        *_fields("weight scales factors bias down up", ctypes.c_void_p),
        *_fields("depth width rank layers first columns", ctypes.c_int64),
    ]


class _Norm(ctypes.Structure):
    _fields_ = [*_fields("weight bias", ctypes.c_void_p), ("eps", ctypes.c_double)]


class _Layer(ctypes.Structure):
    """`layer` in layer.h."""

    _fields_ = [
        *_fields("firsts inputs output ffn_in ffn_out", _Site),
        ("is_last", ctypes.c_int64),
        *_fields("attention_norm ffn_norm", _Norm),
    ]


class _Batch(ctypes.Structure):
    """`batch` in layer.h."""

    _fields_ = [
        *_fields("bounds relative", ctypes.c_void_p),
        *_fields("n_texts n_heads n_rows longest threads", ctypes.c_int64),
    ]


@dataclass(frozen=True)
class _Note:
    """A layer as C reads it: what it was made from, its fields, and what they point to.

    state: addresses, versions, shapes, numbers · kept: tensors, so that nothing else gets their addresses · copies: of
    frozen weights in int8, which may be those of many models and live as long as `weights` keeps them.
    """

    state: tuple[Any, ...]
    fields: _Layer
    kept: list[Any]
    copies: list[weakref.ref[weights.Weight]]


def run(layer: Layer, x: torch.Tensor, tiles: Tiles, *, is_last: bool = False) -> torch.Tensor | None:
    """Return the layer's output for rows x [T, D], or None if it must be computed step by step.

    is_last: only for the texts' first tokens, [B, D].
    """
    in_floats = _fits_floats(x, tiles.positions)
    if torch.is_grad_enabled() or not (in_floats or _fits_integers(x, tiles)):
        return None
    dropouts = (layer.probs_dropout, layer.attention_dropout, layer.ffn_dropout)
    if layer.is_gated or not is_gelu(layer.activation) or any(active_p(each) for each in dropouts):
        return None
    inputs, *others = inputs_of(layer.sites)
    sites = [inputs[:1], inputs[1:], *others] if is_last else [inputs, *others]
    parts = [[part_of(layer.sites[each]) for each in together] for together in sites]
    if len(inputs) != 3 or any(part is None or part.p for together in parts for part in together):
        return None
    all_parts = cast("list[list[Part]]", parts)
    if in_floats and len(x) * all_parts[-2][0].linear.out_features > _MOST_CELLS[native.vector_floats()]:
        return None
    note = _note(layer, all_parts, x.shape[1], is_last=is_last, in_floats=in_floats)
    copies = [] if note is None else [copy() for copy in note.copies]  # they live until the call ends
    return None if note is None or None in copies else _run(note.fields, x, tiles, in_floats=in_floats)


def _fits_integers(x: torch.Tensor, tiles: Tiles) -> bool:
    return native.has_integers() and not native.has_tiles() and native.fits(x) and not tiles.layout.groups


def _fits_floats(x: torch.Tensor, positions: Positions) -> bool:
    is_plain = positions.window is None and positions.rotary is None and positions.distances is None
    is_right = x.dtype == torch.float32 and x.is_cpu and x.is_contiguous()
    return is_right and is_plain and native.vector_floats() in _MOST_CELLS


def _run(layer: _Layer, x: torch.Tensor, tiles: Tiles, *, in_floats: bool) -> torch.Tensor:
    layout, library = tiles.layout, native.library()
    if in_floats:
        relative, size_of, function = tiles.relative_by_key, library.layer_in_floats_scratch, library.layer_in_floats
    else:
        relative, size_of, function = tiles.positions.relative, library.layer_scratch, library.whole_layer
    n_texts = len(layout.bounds) - 1
    batch = _Batch(
        *(layout.bounds.data_ptr(), None if relative is None else relative.data_ptr()),
        *(n_texts, tiles.n_heads, len(x), layout.longest, torch.get_num_threads()),
    )
    both = ctypes.byref(layer), ctypes.byref(batch)
    scratch = torch.empty(size_of(*both), dtype=torch.int8, device="cpu")  # whatever torch's default is
    out = x.new_empty(n_texts, x.shape[1]) if layer.is_last else torch.empty_like(x)
    function(*both, x.data_ptr(), out.data_ptr(), scratch.data_ptr())
    return out


def _note(layer: Layer, parts: Sequence[Sequence[Part]], width: int, *, is_last: bool, in_floats: bool) -> _Note | None:
    """Return the layer as C reads it for rows of this width, kept if nothing in it trains; None if the function cannot
    take it."""
    norms = layer.attention_norm, layer.ffn_norm
    flat = [part for together in parts for part in together]
    tensors: list[Any] = [
        *(x for part in flat for x in (part.linear.weight, part.linear.bias, part.down, part.up)),
        *(x for norm in norms for x in (norm.weight, norm.bias)),
    ]
    there = [x for x in tensors if x is not None]
    if any(x.is_inference() or type(x) not in _DENSE for x in there):
        return None  # they have no versions, or no address
    states = [
        None if x is None else (x.data_ptr(), x._version, x.requires_grad, x.dtype, x.shape, x.stride())
        for x in tensors
    ]
    state = (
        in_floats,
        width,
        weights.generation(),
        states,
        [part.scaling for part in flat],
        [norm.eps for norm in norms],
    )
    noted: _Note | None = layer.noted.get(is_last)
    if noted is not None and noted.state == state:
        return noted
    frozen = [weights.frozen([part.linear.weight for part in together]) for together in parts]
    kept = [x.detach() for x in there]
    candidates = [
        _site(together, weight, kept, in_floats=in_floats) for together, weight in zip(parts, frozen, strict=True)
    ]
    sites = [site for site in candidates if site is not None]
    if len(sites) < len(candidates) or (not in_floats and sites[-2].width > native.MAX_WIDTH):
        return None
    if not _fit_together(sites, norms, width, is_last=is_last):
        return None  # steps say what is wrong
    fields = _Layer(*(sites if is_last else (_Site(), *sites)), is_last, *(_norm(norm, kept) for norm in norms))
    # In float32 C reads the parameters themselves, whichever thread's `Weight` is kept.
    copies = [] if in_floats else [weakref.ref(weight) for weight in frozen if weight is not None]
    note = _Note(state, fields, kept, copies)
    if not any(x.requires_grad for x in there):
        layer.noted[is_last] = note
    return note


def _site(parts: Sequence[Part], weight: weights.Weight | None, kept: list[Any], *, in_floats: bool) -> _Site | None:
    """Return what reads one input; `kept` keeps alive all it points to but the weight. None if it cannot be read."""
    if weight is None or weight.in_int8 == in_floats:
        return None
    lora, (width, depth) = lora_of(parts, 1.0, stacked=True), weight.matrix.shape
    pointers: list[torch.Tensor | None]
    if in_floats:
        if weight.matrix.dtype != torch.float32 or not weight.matrix.is_contiguous():
            return None
        pointers = [weight.matrix, None, None]
    else:
        integers = weight.integers()
        if not integers.is_packed or (lora is not None and not native_lora.fits_factors(depth, lora.down, lora.up)):
            return None
        pointers = [integers.values, integers.scales, integers.column_factors]
    bias = bias_of(parts, torch.float32 if in_floats else torch.bfloat16)
    if bias is not None and bias.shape != (width,):
        return None
    made: list[torch.Tensor | None] = [bias, None, None]
    sizes = (depth, width, 0, 0, 0, 0)
    if lora is not None:
        rank = lora.up.shape[1]
        if lora.down.shape != (lora.n_layers * rank, depth) or lora.start + len(lora.up) > width:
            return None
        made[1:] = [lora.down.float().contiguous(), lora.up.float().contiguous()]
        sizes = (depth, width, rank, lora.n_layers, lora.start, len(lora.up))
    kept += made
    return _Site(*(None if each is None else each.data_ptr() for each in (*pointers, *made)), *sizes)


def _fit_together(sites: Sequence[_Site], norms: Sequence[nn.LayerNorm], width: int, *, is_last: bool) -> bool:
    """Return whether sites have the shapes of a layer for rows of this width: C does not look."""
    *inputs, output, ffn_in, ffn_out = [(site.depth, site.width) for site in sites]
    is_right = inputs == ([(width, width), (width, 2 * width)] if is_last else [(width, 3 * width)])
    is_right = is_right and output == (width, width) and ffn_in[0] == ffn_out[1] == width and ffn_in[1] == ffn_out[0]
    tensors = [x for norm in norms for x in (norm.weight, norm.bias) if x is not None]
    return is_right and all(x.shape == (width,) for x in tensors)


def _norm(norm: nn.LayerNorm, kept: list[Any]) -> _Norm:
    weight = norm.weight.float().contiguous()
    bias = torch.zeros_like(weight) if norm.bias is None else norm.bias.float().contiguous()
    kept += [weight, bias]
    return _Norm(weight.data_ptr(), bias.data_ptr(), norm.eps)

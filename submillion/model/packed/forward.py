"""The packed forward pass: from a batch of unpadded tokens to the hidden states that the head reads.

Owns the embeddings, the order of steps inside a layer, the residual stream of encoders with norms before each step,
and the shortcut of the last layer, which computes only what the first tokens need.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recomputed

from submillion.model.batching import Batch
from submillion.model.packed import cuda, whole_layers
from submillion.model.packed.attention import Positions, Tiles, attend, kernels_for
from submillion.model.packed.disentangled import Projected, distances, projected
from submillion.model.packed.layout import Layout, lay_out
from submillion.model.packed.linear import project, project_and_pass
from submillion.model.packed.passes import Dice, activate, active_p, add_and_norm, dropout, gate
from submillion.model.packed.structure import Layer, Packed

_State = tuple[torch.Tensor, torch.Tensor | None]  # what a layer reads; the residual stream if it is another


def encode(packed: Packed, batch: Batch, *, checkpoint: bool = False) -> torch.Tensor:
    """Return the last hidden state of each text's first token, float32 [B, D], in the batch's order.

    If ModernBERT pools by the mean, it is the mean over the text's tokens. Equal to the stock padded model's within
    1e-5 in float32 without dropout. With dropout it depends only on torch's CPU generator (on a GPU, also on CUDA's).
    `checkpoint` recomputes each layer in the backward pass. A batch that carries the lower layers' output starts above
    them.
    """
    layout, tiles = _lay_out(packed, batch)
    if batch.hidden is None:
        x, first = _embed(packed, batch, layout), 0
    else:
        x, first = batch.hidden.index_select(0, layout.take), packed.n_prefix_layers
    state = _entering(packed, x, first)
    for i, layer in enumerate(packed.layers[first:], first):
        step = _last if i == len(packed.layers) - 1 and not packed.pools_mean else _full
        keep = not checkpoint or not torch.is_grad_enabled()
        arguments = layer, state, tiles[layer.attention_type], _is_in_steps(packed, i)
        state = step(*arguments) if keep else recomputed(step, *arguments, use_reentrant=False)
    x = _means(state[0], layout) if packed.pools_mean else state[0]
    return x.index_select(0, layout.unsort).float()


@torch.no_grad()
def lower(packed: Packed, batch: Batch) -> torch.Tensor:
    """Return the output of the embeddings and the first `n_prefix_layers` layers: `packed.dtype` [T, D].

    Rows are in the order of the batch's tokens, as in `Batch.hidden`; dropout must be 0 there. If norms come first,
    they are the residual stream, before the next norm.
    """
    layout, tiles = _lay_out(packed, batch)
    state = _entering(packed, _embed(packed, batch, layout), 0)
    for i, layer in enumerate(packed.layers[: packed.n_prefix_layers]):
        state = _full(layer, state, tiles[layer.attention_type], _is_in_steps(packed, i))
    x = state[0] if state[1] is None else state[1]
    rows = torch.empty_like(x[: layout.n_tokens])
    rows[layout.take[: layout.n_tokens]] = x[: layout.n_tokens]
    return rows


def laid_out(packed: Packed, batch: Batch) -> Layout:
    """Return the batch's layout: its own, if it has one."""
    if batch.layout is not None:
        return batch.layout
    device = batch.tokens.device
    kernels = attention_kernels(packed, device)
    return lay_out(batch.offsets, packed.n_heads if kernels is None else None, device, is_recorded=kernels is cuda)


def attention_kernels(packed: Packed, device: torch.device) -> Any:
    """Return the module that attends, `cuda` or `native_attention`, whose layouts have no groups; None if none does.

    They lack rotary positions, local and disentangled attention, and MPNet's position bias if it trains.
    """
    is_bias_trained = packed.mpnet is not None and packed.mpnet.relative_attention_bias.weight.requires_grad
    if packed.rotary is not None or packed.distances is not None or is_bias_trained:
        return None
    return kernels_for(device, packed.dtype, packed.width // packed.n_heads)


def _lay_out(packed: Packed, batch: Batch) -> tuple[Layout, dict[str | None, Tiles]]:
    """Return the batch's layout, and its tiles for each kind of attention that the layers have."""
    layout = laid_out(packed, batch)
    kinds = {layer.attention_type for layer in packed.layers}
    return layout, {
        kind: Tiles(layout, packed.n_heads, packed.dtype, _positions_for(packed, layout, kind)) for kind in kinds
    }


def _positions_for(packed: Packed, layout: Layout, kind: str | None) -> Positions:
    """Return how positions affect attention in layers of this kind."""
    if packed.distances is not None:
        return Positions(distances=distances(packed.distances, layout.longest, packed.dtype))
    if packed.rotary is None:
        return Positions(_relative(packed, layout))
    places = torch.arange(layout.longest, device=layout.take.device)
    angles = packed.rotary(places.float(), places[None], kind)  # each angle twice; in float32, like the first argument
    cosine, sine = (of_places[0, :, : of_places.shape[-1] // 2].contiguous() for of_places in angles)
    return Positions(window=packed.window if kind == "sliding_attention" else None, rotary=(cosine, sine))


def _entering(packed: Packed, x: torch.Tensor, first: int) -> _State:
    """Return what the layer `first` reads, from the output of what is below it."""
    if not packed.is_pre_norm:
        return x, None
    if first == 0:
        return x, x
    # By the function that computes it without a prefix, adding 0 here: equal to the bit.
    norm = packed.layers[first - 1].ffn_norm
    return add_and_norm(torch.zeros_like(x), x, norm, 0.0, Dice(x))


def _means(x: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The mean of each text's rows, float32 [B, D]."""
    rows = x[: layout.n_tokens].float()
    return torch.segment_reduce(rows, "mean", lengths=layout.bounds.diff(), axis=0)


def _embed(packed: Packed, batch: Batch, layout: Layout) -> torch.Tensor:
    tables = packed.embeddings
    tokens = batch.tokens[layout.take]
    x = tables.words(tokens).float()
    if tables.types is not None:
        x = x + tables.types(batch.token_types[layout.take].clamp(max=tables.types.num_embeddings - 1))
    if tables.positions is not None:
        x = x + tables.positions(_positions(packed, tokens, layout))
    norm = tables.norm
    bias = None if norm.bias is None else norm.bias.float()
    x = F.layer_norm(x, norm.normalized_shape, norm.weight.float(), bias, norm.eps)
    dice = Dice(torch.empty_like(x, dtype=packed.dtype))
    x = dropout(x, active_p(tables.dropout), dice).to(packed.dtype)
    return x if packed.widen is None else project(x, [packed.widen], dice)


def _positions(packed: Packed, tokens: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The position of each row; RoBERTa's kind counts from the padding id and skips tokens with that id."""
    if packed.padding_id is None:
        return layout.positions
    is_real = (tokens != packed.padding_id).long()
    count = is_real.cumsum(0)
    first = torch.arange(len(tokens), device=tokens.device) - layout.positions
    return (count - (count - is_real)[first]) * is_real + packed.padding_id


def _relative(packed: Packed, layout: Layout) -> torch.Tensor | None:
    """MPNet's position bias [heads, tokens, tokens], as wide as the widest tile."""
    if packed.mpnet is None:
        return None
    places = torch.arange(layout.longest, device=layout.take.device)
    buckets = packed.mpnet.relative_position_bucket(places[None, :] - places[:, None])
    bias = packed.mpnet.relative_attention_bias(buckets).permute(2, 0, 1)
    return bias if layout.groups else bias.to(packed.dtype).contiguous()


def _is_in_steps(packed: Packed, number: int) -> bool:
    """Return whether a layer is always computed in steps: one whose output a training may keep, in float32, in which
    one call has other last bits. So a training without the file is that with it."""
    return packed.trains and number < packed.n_prefix_layers and packed.dtype == torch.float32


def _full(layer: Layer, state: _State, tiles: Tiles, is_in_steps: bool) -> _State:
    """A layer for all rows: [rows, D] to [rows, D]."""
    x, stream = state
    if stream is None and not is_in_steps:
        whole = whole_layers.run(layer, x, tiles)
        if whole is not None:
            return whole, None
    dice, wanted = Dice(x), _wanted(layer, x)
    heads, x = project_and_pass(x, layer.attention_inputs, dice)
    mixed = attend(tiles, heads, None, active_p(layer.probs_dropout), dice, wanted, _projected(layer, tiles, dice))
    return _rest(layer, mixed, (x, stream), dice)


def _last(layer: Layer, state: _State, tiles: Tiles, is_in_steps: bool) -> _State:
    """The last layer, for queries of the first tokens only: [rows, D] to [B, D], in the layout's order."""
    x, stream = state
    if stream is None and not is_in_steps:
        whole = whole_layers.run(layer, x, tiles, is_last=True)
        if whole is not None:
            return whole, None
    dice, firsts = Dice(x), tiles.layout.firsts
    of_firsts = x.index_select(0, firsts)
    query, *others = layer.attention_inputs
    if others:
        queries, heads = project(of_firsts, [query], dice), project(x, others, dice)
    else:  # one layer computes all three; its adapter's dropout falls on the same elements for each
        inputs, width = project(x, [query], dice), x.shape[1]
        queries, heads = inputs[:, :width].index_select(0, firsts), inputs[:, width:].contiguous()
    p, wanted = active_p(layer.probs_dropout), _wanted(layer, x)
    mixed = attend(tiles, heads, queries, p, dice, wanted, _projected(layer, tiles, dice))
    return _rest(layer, mixed, (of_firsts, None if stream is None else stream.index_select(0, firsts)), dice)


def _projected(layer: Layer, tiles: Tiles, dice: Dice) -> Projected | None:
    """Return the table of distances through this layer, if the encoder has one."""
    return None if tiles.positions.distances is None else projected(layer, tiles.positions.distances, dice)


def _rest(layer: Layer, mixed: torch.Tensor, state: _State, dice: Dice) -> _State:
    """What follows attention: its output, the feed-forward, and their norms."""
    x, stream = state
    y = project(mixed, [layer.sites["attention_output"]], dice)
    residual = x if stream is None else stream
    x, total = add_and_norm(y, residual, layer.attention_norm, active_p(layer.attention_dropout), dice)
    inner, x = project_and_pass(x, [layer.sites["ffn_in"]], dice)
    if layer.is_gated:
        inner = gate(inner, layer.activation, active_p(layer.gate_dropout), dice)
    else:
        inner = activate(inner, layer.activation)
    y = project(inner, [layer.sites["ffn_out"]], dice)
    residual = x if stream is None else total
    x, total = add_and_norm(y, residual, layer.ffn_norm, active_p(layer.ffn_dropout), dice)
    return x, None if stream is None else total


def _wanted(layer: Layer, x: torch.Tensor) -> tuple[bool, bool, bool]:
    """Return which of query, key and value need a gradient: all above the lowest adapted layer, in it the adapted."""
    if x.requires_grad or not torch.is_grad_enabled():
        return (x.requires_grad, x.requires_grad, x.requires_grad)
    modules = layer.attention_inputs
    adapted = [any(parameter.requires_grad for parameter in module.parameters()) for module in modules]
    query, key, value = adapted if len(adapted) == 3 else adapted * 3
    return (query, key, value)

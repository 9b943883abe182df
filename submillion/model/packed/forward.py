"""The packed forward pass: from a batch of unpadded tokens to the first token's hidden states.

Owns the embeddings, the order of steps inside a layer, and the shortcut of the last layer, which
computes only what the first tokens need.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recomputed

from submillion.model.batching import Batch
from submillion.model.packed import cuda
from submillion.model.packed.attention import Tiles, attend, tile
from submillion.model.packed.layout import Layout, lay_out
from submillion.model.packed.linear import project, project_and_pass
from submillion.model.packed.passes import Dice, activate, active_p, add_and_norm, keep_frac, masked
from submillion.model.packed.structure import Layer, Packed


def encode(packed: Packed, batch: Batch, *, checkpoint: bool = False) -> torch.Tensor:
    """Return the last hidden state of each text's first token, float32 [B, D], in the batch's order.

    Equal to the stock padded model's within 1e-5 in float32 without dropout. With dropout it depends on torch's
    CPU generator alone (and on CUDA's, there). `checkpoint` computes each layer again in the backward pass.
    A batch that carries the lower layers' output starts above them.
    """
    layout, tiles = _lay_out(packed, batch)
    if batch.hidden is None:
        x, first = _embed(packed, batch, layout), 0
    else:
        x, first = batch.hidden.index_select(0, layout.take), packed.n_prefix_layers
    for i, layer in enumerate(packed.layers[first:], first):
        step = _last if i == len(packed.layers) - 1 else _full
        keep = not checkpoint or not torch.is_grad_enabled()
        x = step(layer, x, tiles) if keep else recomputed(step, layer, x, tiles, use_reentrant=False)
    return x.index_select(0, layout.unsort).float()


@torch.no_grad()
def lower(packed: Packed, batch: Batch) -> torch.Tensor:
    """Return the output of the embeddings and the first `n_prefix_layers` layers: `packed.dtype` [T, D].

    In the order of the batch's tokens, as `Batch.hidden` has it; dropout must be 0 there.
    """
    layout, tiles = _lay_out(packed, batch)
    x = _embed(packed, batch, layout)
    for layer in packed.layers[: packed.n_prefix_layers]:
        x = _full(layer, x, tiles)
    rows = torch.empty_like(x[: layout.n_tokens])
    rows[layout.take[: layout.n_tokens]] = x[: layout.n_tokens]
    return rows


def laid_out(packed: Packed, batch: Batch) -> Layout:
    """Return the batch's layout: its own, where it has one."""
    if batch.layout is not None:
        return batch.layout
    n_heads = None if attends_by_kernels(packed, batch.tokens.device) else packed.n_heads
    return lay_out(batch.offsets, n_heads, batch.tokens.device)


def attends_by_kernels(packed: Packed, device: torch.device) -> bool:
    """Return whether `cuda` attends, whose layouts have no groups; never where MPNet's position bias trains."""
    is_bias_trained = packed.mpnet is not None and packed.mpnet.relative_attention_bias.weight.requires_grad
    return not is_bias_trained and cuda.fits_heads(device, packed.dtype, packed.width // packed.n_heads)


def _lay_out(packed: Packed, batch: Batch) -> tuple[Layout, Tiles]:
    layout = laid_out(packed, batch)
    return layout, tile(layout, packed.n_heads, packed.dtype, _relative(packed, layout))


def _embed(packed: Packed, batch: Batch, layout: Layout) -> torch.Tensor:
    tables = packed.embeddings
    tokens = batch.tokens[layout.take]
    x = tables.word_embeddings(tokens).float()
    if packed.has_types:
        types = batch.token_types[layout.take].clamp(max=tables.token_type_embeddings.num_embeddings - 1)
        x = x + tables.token_type_embeddings(types)
    x = x + tables.position_embeddings(_positions(packed, tokens, layout))
    norm = tables.LayerNorm
    x = F.layer_norm(x, norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
    ones = torch.ones_like(x, dtype=packed.dtype)
    dice, p = Dice(ones), active_p(tables.dropout)
    mask = dice.mask(tuple(x.shape), p)
    if mask is not None:
        x = x * masked(ones, mask).float().mul_(1.0 / keep_frac(p))
    x = x.to(packed.dtype)
    return x if packed.widen is None else project(x, [packed.widen], dice)


def _positions(packed: Packed, tokens: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The position of each row; RoBERTa's kind counts from the padding id and skips tokens of that id in a text."""
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


def _full(layer: Layer, x: torch.Tensor, tiles: Tiles) -> torch.Tensor:
    """A layer for all rows: [rows, D] to [rows, D]."""
    dice, sites = Dice(x), layer.sites
    wanted = _wanted(layer, x)
    heads, x = project_and_pass(x, [sites["query"], sites["key"], sites["value"]], dice)
    mixed = attend(tiles, heads, None, active_p(layer.probs_dropout), dice, wanted)
    return _rest(layer, mixed, x, dice)


def _last(layer: Layer, x: torch.Tensor, tiles: Tiles) -> torch.Tensor:
    """The last layer, queries of the first tokens only: [rows, D] to [B, D], in the layout's order."""
    dice, sites = Dice(x), layer.sites
    firsts = x.index_select(0, tiles.layout.firsts)
    asked = project(firsts, [sites["query"]], dice)
    heads = project(x, [sites["key"], sites["value"]], dice)
    mixed = attend(tiles, heads, asked, active_p(layer.probs_dropout), dice, _wanted(layer, x))
    return _rest(layer, mixed, firsts, dice)


def _rest(layer: Layer, mixed: torch.Tensor, residual: torch.Tensor, dice: Dice) -> torch.Tensor:
    """What follows attention: its output, the feed-forward, and their norms."""
    y = project(mixed, [layer.sites["attention_output"]], dice)
    x = add_and_norm(y, residual, layer.attention_norm, active_p(layer.attention_dropout), dice)
    inner, x = project_and_pass(x, [layer.sites["ffn_in"]], dice)
    inner = activate(inner, layer.activation)
    y = project(inner, [layer.sites["ffn_out"]], dice)
    return add_and_norm(y, x, layer.ffn_norm, active_p(layer.ffn_dropout), dice)


def _wanted(layer: Layer, x: torch.Tensor) -> tuple[bool, bool, bool]:
    """Which of query, key and value need a gradient: all above the lowest adapted layer, there the adapted ones."""
    if x.requires_grad:
        return (True, True, True)
    query, key, value = (
        any(parameter.requires_grad for parameter in layer.sites[site].parameters())
        for site in ("query", "key", "value")
    )
    return (query, key, value)

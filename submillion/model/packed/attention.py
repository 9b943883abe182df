"""Attention inside each text of a packed batch, with a backward pass written by hand.

torch's fused attention is about 8 times too slow backwards in bf16 on the CPU; batched products on tiles of padded
texts are not. Kernels for packed texts replace them on CUDA (`cuda`) and, in bf16, on CPUs (`native_attention`).
Shapes: G heads of all texts of a tile (heads x texts), W its width in tokens, E the width of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from submillion.model.packed import cuda, disentangled, native, native_attention
from submillion.model.packed.disentangled import Columns, Distances, Projected
from submillion.model.packed.layout import Group, Layout
from submillion.model.packed.passes import Dice, Mask, apply, keep_frac, mask_, masked


@dataclass(frozen=True)
class Positions:
    """How the positions of tokens affect attention.

    relative [heads, tokens, tokens]: MPNet's position bias · distances: DeBERTa's, whose projections have parts in the
    scores · window: how far tokens see to either side, None for all · rotary: the cosines and sines by which ModernBERT
    rotates queries and keys, float32 [tokens, E / 2] each.
    """

    relative: torch.Tensor | None = None
    distances: Distances | None = None
    window: int | None = None
    rotary: tuple[torch.Tensor, torch.Tensor] | None = None


@dataclass(frozen=True)
class Tile:
    """A group of texts with what every layer needs: indices by number of blocks, and the scores' addend.

    gather, scatter: see `Group` · window: see `Positions`, None if no text is longer · addend:
    [1 or heads, 1 or texts, 1 or W, W], -inf where a token does not see, or None · is_plain: whether the addend holds
    only padding and window · columns: of distances, by the number of queries: 1 or W.
    """

    group: Group
    gather: dict[int, torch.Tensor]
    scatter: dict[int, torch.Tensor]
    window: int | None
    addend: torch.Tensor | None
    is_plain: bool
    columns: dict[int, Columns]


@dataclass(frozen=True)
class Tiles:
    """A batch's layout for rows of `dtype`, and how positions affect attention, for layers in which they do so alike.

    What follows is made when a layer first needs it.
    """

    layout: Layout
    n_heads: int
    dtype: torch.dtype
    positions: Positions

    @cached_property
    def tiles(self) -> tuple[Tile, ...]:
        """Return a tile for each group of texts: none if kernels attend. A layer that is one C call needs none."""
        return tuple(_tile(group, self.n_heads, self.dtype, self.positions) for group in self.layout.groups)

    @cached_property
    def relative_by_key(self) -> torch.Tensor | None:
        """Return MPNet's position bias by key and query, float32 [heads, tokens, tokens], dense."""
        relative = self.positions.relative
        return None if relative is None else relative.detach().transpose(1, 2).float().contiguous()


def attend(
    tiles: Tiles,
    rows: torch.Tensor,
    firsts: torch.Tensor | None,
    p: float,
    dice: Dice,
    wanted: tuple[bool, bool, bool],
    projected: Projected | None = None,
) -> torch.Tensor:
    """Return each query's mixture of its text's values.

    Without `firsts`, rows [rows, 3 D] holds query, key and value side by side, and so does the result [rows, D]. With
    `firsts` [B, D], the queries of the texts' first tokens, rows [rows, 2 D] holds key and value; the result is [B, D].
    `p` is the dropout of the weights; `wanted` says which of query, key, value need a gradient. `projected`: the
    distances through the layer, if `tiles` have any.
    """
    if not tiles.tiles:
        mask = dice.mask((len(rows), 2), p)
        assert mask is None or mask.bits is None
        dropout = cuda.Dropout(0, 0, 1.0) if mask is None else cuda.Dropout(mask.seed, mask.least, 1.0 / keep_frac(p))
        texts = cuda.Texts(tiles.layout.bounds, tiles.layout.longest, tiles.n_heads, tiles.positions.relative)
        return apply(_FusedAttention, rows, firsts, texts, dropout, wanted[0] or wanted[1])
    groups = [part.group for part in tiles.tiles]
    n_queries = [group.width if firsts is None else 1 for group in groups]
    shapes = [(group.n_texts * tiles.n_heads, n, group.width) for group, n in zip(groups, n_queries, strict=True)]
    masks = tuple(dice.masks(shapes, p))
    spec = _Spec(tiles, masks, 1.0 / keep_frac(p), wanted, None if projected is None else projected.models)
    distances = None if projected is None else projected.rows
    return apply(_Attention, rows, firsts, tiles.positions.relative, distances, spec)


def _tile(group: Group, n_heads: int, dtype: torch.dtype, positions: Positions) -> Tile:
    addend = group.padding(dtype) if bool((group.lengths < group.width).any()) else None
    if positions.relative is not None:
        near = positions.relative.detach()[:, None, : group.width, : group.width].to(dtype)
        addend = near if addend is None else addend + near
    window = positions.window
    if window is not None and bool((group.lengths <= window + 1).all()):
        window = None
    if window is not None:
        far = _far(group, window, dtype)
        addend = far if addend is None else addend + far
    gather = {n: group.gather(n, n_heads) for n in (1, 2, 3)}
    scatter = {n: group.scatter(n, n_heads) for n in (1, 2, 3)}
    places = positions.distances
    columns = {} if places is None else {n: disentangled.columns(places, group.width, n) for n in (1, group.width)}
    return Tile(group, gather, scatter, window, addend, positions.relative is None, columns)


def _far(group: Group, window: int, dtype: torch.dtype) -> torch.Tensor:
    """Return -inf where a key is outside a query's window, else 0: [texts, W, W].

    Padding queries see all keys: their results are not read, but must not be NaN.
    """
    places = torch.arange(group.width, device=group.lengths.device)
    is_far = (places[:, None] - places).abs() > window
    is_query = places < group.lengths[:, None]
    zeros = torch.zeros(group.n_texts, group.width, group.width, dtype=dtype, device=places.device)
    return zeros.masked_fill_(is_far & is_query[:, :, None], float("-inf"))


@dataclass(frozen=True)
class _Spec:
    tiles: Tiles
    masks: tuple[Mask | None, ...]
    factor: float
    wanted: tuple[bool, bool, bool]
    text_models: torch.Tensor | None

    def projected(self, part: Tile, rows: torch.Tensor) -> Projected:
        """Return the distances through the layer, for the texts of a tile."""
        return Projected(
            rows, None if self.text_models is None else self.text_models[part.group.first : part.group.last]
        )

    def scale(self, head: int) -> float:
        """Return the scores' factor: each score sums this many products."""
        distances = self.tiles.positions.distances
        return (head * (1 if distances is None else 1 + len(distances.table.sites))) ** -0.5


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        firsts: torch.Tensor | None,
        relative: torch.Tensor | None,
        distances: torch.Tensor | None,
        spec: _Spec,
    ) -> torch.Tensor:
        n_blocks = 3 if firsts is None else 2
        width = rows.shape[1] // n_blocks
        head = width // spec.tiles.n_heads
        result = rows.new_empty(len(rows) if firsts is None else len(firsts), width)
        saved: list[torch.Tensor | None] = []
        for part, mask in zip(spec.tiles.tiles, spec.masks, strict=True):
            group = part.group
            heads = rows.view(-1, head).index_select(0, part.gather[n_blocks]).view(n_blocks, -1, group.width, head)
            _turn_(heads[:-1], spec.tiles.positions)  # first tokens' queries stay: their angle is 0
            query = heads[0] if firsts is None else _by_head(firsts[group.first : group.last], head)
            places = None if distances is None else spec.projected(part, distances)
            probs, dropped = _probs(_scores(query, heads[-2], part, places, spec.scale(head)), part, mask)
            mixed = _product(dropped, heads[-1], spec.factor)
            if firsts is None:
                place = result[group.start : group.stop].view(-1, head)
                torch.index_select(mixed.view(-1, head), 0, part.scatter[1], out=place)
            else:
                result[group.first : group.last] = _by_text(mixed, group.n_texts)
            saved += [heads, None if firsts is None else query, probs]
        if firsts is None:
            result[spec.tiles.layout.n_tokens :] = 0
        ctx.spec, ctx.width = spec, width
        ctx.save_for_backward(distances, *saved)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (dresult,) = grads
        tiles, (distances, *saved) = ctx.spec.tiles, ctx.saved_tensors
        n_blocks = len(saved[0])
        head = ctx.width // tiles.n_heads
        dresult = dresult.contiguous()
        drows = dresult.new_empty(tiles.layout.n_rows, n_blocks * ctx.width)
        drows[tiles.layout.n_tokens :] = 0
        dfirsts = torch.empty_like(dresult) if n_blocks == 2 else None
        relative = tiles.positions.relative
        drelative = torch.zeros_like(relative) if relative is not None and ctx.needs_input_grad[2] else None
        ddistances = None
        if distances is not None and ctx.needs_input_grad[3]:
            ddistances = torch.zeros_like(distances[0], dtype=torch.float32)
        wanted = ctx.spec.wanted if drelative is None and ddistances is None else (True, True, True)
        for i, part in enumerate(tiles.tiles):
            heads, query, probs = saved[3 * i : 3 * i + 3]
            group = part.group
            if dfirsts is None:
                dmixed = dresult.view(-1, head).index_select(0, part.gather[1]).view(heads.shape[1:])
            else:
                dmixed = _by_head(dresult[group.first : group.last], head)
            dheads = torch.empty_like(heads)
            dquery = dheads[0] if dfirsts is None else torch.empty_like(query)
            queries = heads[0] if query is None else query
            scale = ctx.spec.scale(head)
            dscores = _backward(
                (queries, heads[-2], heads[-1]),
                (probs, ctx.spec.masks[i], dmixed, ctx.spec.factor),
                (dquery, dheads[-2], dheads[-1]),
                wanted,
                scale,
            )
            if distances is not None and dscores is not None:
                places, out = ctx.spec.projected(part, distances), (dquery, dheads[-2], ddistances)
                disentangled.add_gradients(
                    dscores, (queries, heads[-2]), part.columns[dscores.shape[1]], places, scale, out
                )
            if drelative is not None and dscores is not None:
                n_queries = dscores.shape[1]
                summed = dscores.view(tiles.n_heads, group.n_texts, n_queries, group.width).sum(1, dtype=torch.float32)
                drelative[:, :n_queries, : group.width] += summed
            if dfirsts is not None:
                dfirsts[group.first : group.last] = _by_text(dquery, group.n_texts)
            _turn_(dheads[:-1], tiles.positions, is_back=True)
            place = drows[group.start : group.stop].view(-1, head)
            torch.index_select(dheads.view(-1, head), 0, part.scatter[n_blocks], out=place)
        return drows, dfirsts, drelative, None if ddistances is None else ddistances.to(dresult.dtype)[None], None


def _by_head(rows: torch.Tensor, head: int) -> torch.Tensor:
    """Return one row for each text, [texts, D], as [G, 1, E]."""
    return rows.unflatten(1, (-1, head)).transpose(0, 1).reshape(-1, 1, head)


def _by_text(heads: torch.Tensor, n_texts: int) -> torch.Tensor:
    """Return [G, 1, E] as one row for each text, [texts, D]."""
    return heads.view(-1, n_texts, heads.shape[2]).transpose(0, 1).flatten(1)


def _turn_(heads: torch.Tensor, positions: Positions, *, is_back: bool = False) -> None:
    """Rotate queries and keys [blocks, G, W, E] by their positions' angles, in place, or back (RoFormer: Su 2021)."""
    if positions.rotary is None:
        return
    cosine, sine = (of_places[: heads.shape[2]] for of_places in positions.rotary)
    sine = -sine if is_back else sine
    if native.fits(heads) and heads.shape[-1] % 4 == 0:
        native.turn_(heads, cosine, sine)
        return
    first, second = heads.chunk(2, -1)
    # Both are computed before either is overwritten.
    turned = first.float() * cosine - second.float() * sine, second.float() * cosine + first.float() * sine
    first.copy_(turned[0])
    second.copy_(turned[1])


_Three = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _scores(
    query: torch.Tensor, key: torch.Tensor, part: Tile, projected: Projected | None, scale: float
) -> torch.Tensor:
    """Return query key^T scale, [G, queries, W], plus what distances add."""
    if projected is None:
        return _product(query, key.transpose(1, 2), scale)
    scores = disentangled.scores(query, key, part.columns[query.shape[1]], projected, scale)
    return scores.baddbmm_(query, key.transpose(1, 2), alpha=scale)


def _probs(scores: torch.Tensor, part: Tile, mask: Mask | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return softmax(scores + addend), [G, queries, W], before and after dropout; scores are overwritten."""
    if part.is_plain and native.fits(scores) and (mask is None or mask.bits is None):
        return scores, native.softmax_(scores, part.group.lengths, *_seed(mask), part.window)
    if part.addend is not None:
        by_text = scores.view(-1, part.group.n_texts, *scores.shape[1:])
        by_text.add_(part.addend[..., : scores.shape[1], :])
    probs = torch.softmax(scores, -1)
    return probs, probs if mask is None else masked(probs, mask)


def _seed(mask: Mask | None) -> tuple[int, int]:
    """Return a mask's seed and least, as the native functions take them."""
    if mask is None:
        return 0, 0
    assert isinstance(mask.seed, int)
    return mask.seed, mask.least


def _product(a: torch.Tensor, b: torch.Tensor, factor: float, out: torch.Tensor | None = None) -> torch.Tensor:
    """Return factor · a b, batched; the factor costs nothing inside the product."""
    if out is None:
        out = a.new_empty(len(a), a.shape[1], b.shape[2])
    return torch.baddbmm(out, a, b, beta=0, alpha=factor, out=out)


def _backward(
    heads: _Three,
    weights: tuple[torch.Tensor, Mask | None, torch.Tensor, float],
    out: _Three,
    wanted: tuple[bool, ...],
    scale: float,
) -> torch.Tensor | None:
    """Write the gradients of query, key and value [G, ., E] to `out`; return the scores' gradient, if it was needed."""
    query, key, value = heads
    probs, mask, dmixed, factor = weights
    dquery, dkey, dvalue = out
    if wanted[2]:
        _product((probs if mask is None else masked(probs, mask)).transpose(1, 2), dmixed, factor, dvalue)
    else:
        dvalue.zero_()
    if not (wanted[0] or wanted[1]):
        dquery.zero_()
        dkey.zero_()
        return None
    dprobs = _product(dmixed, value.transpose(1, 2), factor)
    if native.fits(dprobs) and (mask is None or mask.bits is None):
        dscores = native.softmax_backward_(probs, dprobs, *_seed(mask))
    else:
        if mask is not None:
            mask_(dprobs, mask)
        dscores = torch.ops.aten._softmax_backward_data(dprobs, probs, -1, probs.dtype)
    _product(dscores, key, scale, dquery)
    _product(dscores.transpose(1, 2), query, scale, dkey)
    return dscores


def kernels_for(device: torch.device, dtype: torch.dtype, head: int) -> Any:
    """Return the module whose kernels attend there, with heads of this width; None if tiles do."""
    return next((each for each in (cuda, native_attention) if each.fits_heads(device, dtype, head)), None)


class _FusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        firsts: torch.Tensor | None,
        texts: cuda.Texts,
        dropout: cuda.Dropout,
        wants_scores: bool,
    ) -> torch.Tensor:
        width = rows.shape[1] // 3 if firsts is None else firsts.shape[1]
        ctx.kernels = kernels_for(rows.device, rows.dtype, width // texts.n_heads)
        out, lse = ctx.kernels.attend(texts, rows, firsts, dropout)
        ctx.texts, ctx.dropout, ctx.wants_scores = texts, dropout, wants_scores
        ctx.save_for_backward(rows, firsts, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        drows, dfirsts = ctx.kernels.attend_backward(
            ctx.texts, ctx.saved_tensors, grads[0].contiguous(), ctx.dropout, ctx.wants_scores
        )
        return drows, dfirsts, None, None, None

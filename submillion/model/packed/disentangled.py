"""DeBERTa's disentangled attention: the parts of scores that come from the distance between two tokens.

Owns the rows of the table of distances that a batch needs, their projections by a layer's query and key layers, and the
two parts of a score with them (He et al. 2021, section 3.1): c2p, of a query with its distance to a key, and p2c, of a
key with its distance to a query. Products with one column per distance hold each part once, and scores read them along
diagonals (as in Transformer-XL: Dai et al. 2019, appendix B): there is no index as large as the scores.
Shapes: G heads of all texts of a tile, Q queries, W its width in tokens, E the width of a head, C columns, M models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from submillion.model.packed import native
from submillion.model.packed.linear import Mixed, project_for_each
from submillion.model.packed.passes import Dice, active_p, dropout
from submillion.model.packed.structure import DistanceTable, Layer
from submillion.model.packed.weights import frozen

_VECTOR = 32  # columns are a multiple of it, as tiles' widths are


@dataclass(frozen=True)
class Distances:
    """What a batch needs from the table of distances: a query's position minus a key's.

    rows: [R, D], normed, those of `place` in the table · row: int64 [2 L - 1], the row of distance d, at d + L - 1, if
    texts have up to L tokens.
    """

    table: DistanceTable
    rows: torch.Tensor
    place: slice
    row: torch.Tensor


@dataclass(frozen=True)
class Projected:
    """A layer's projections of the rows, [M, R, D or 2 D]: by its query layer (for p2c), then by its key layer (c2p).

    models: int64 [texts], the model whose projection a text has; None if one is for all.
    """

    rows: torch.Tensor
    models: torch.Tensor | None


@dataclass(frozen=True)
class Columns:
    """The row of each column, int64 [C]: of products of queries (c2p) and of keys (p2c); None for a missing part."""

    of_queries: torch.Tensor | None
    of_keys: torch.Tensor | None


def distances(table: DistanceTable, longest: int, dtype: torch.dtype) -> Distances:
    """Return the rows that texts of up to `longest` tokens need."""
    weight = table.embeddings.weight
    row, first, last = _rows(table.n_buckets, table.reach, len(weight) // 2, longest, weight.device)
    place = slice(first, last + 1)
    return Distances(table, _normed(table, place, dtype), place, row)


@cache
def _rows(n_buckets: int, reach: int, span: int, longest: int, device: torch.device) -> tuple[torch.Tensor, int, int]:
    """Return each distance's row in the used part of the table, and that part's first and last row."""
    relative = torch.arange(1 - longest, longest, device=device)
    if n_buckets > 0:
        relative = make_log_bucket_position(relative, n_buckets, reach)
    row = (relative.long() + span).clamp(0, 2 * span - 1)
    first, last = int(row[0]), int(row[-1])
    return row - first, first, last


def _normed(table: DistanceTable, place: slice, dtype: torch.dtype) -> torch.Tensor:
    norm = table.norm
    rows = table.embeddings.weight[place].float()
    return F.layer_norm(rows, norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps).to(dtype)


def columns(distances: Distances, width: int, n_queries: int) -> Columns:
    """Return the columns for a tile of this width with this many queries.

    Query i has its distance to key j in column j - i + Q - 1, key j that to query i in column i - j + W - 1.
    """
    n_columns = -(-(width + n_queries - 1) // _VECTOR) * _VECTOR
    number = torch.arange(n_columns, device=distances.row.device)
    # The last columns may be of distances that do not occur in the tile: nothing reads them.
    end = len(distances.row) - 1
    of_queries, of_keys = (
        distances.row[(each + end // 2).clamp(0, end)] for each in (n_queries - 1 - number, number - width + 1)
    )
    sites = distances.table.sites
    return Columns(of_queries if "key" in sites else None, of_keys if "query" in sites else None)


def projected(layer: Layer, distances: Distances, dice: Dice) -> Projected:
    """Return the rows through the layer's query and key layers, adapters included.

    They are computed once, for all batches, if nothing in it trains or drops.
    """
    modules = [layer.sites[site] for site in distances.table.sites]
    p = active_p(layer.distances_dropout)
    if p == 0.0 and (whole := _kept(distances, modules)) is not None:
        return Projected(whole[None, distances.place], None)
    rows = project_for_each(dropout(distances.rows, p, dice), modules, dice)
    return Projected(rows, modules[0].text_models if isinstance(modules[0], Mixed) and len(rows) > 1 else None)


def _kept(distances: Distances, modules: Sequence[nn.Module]) -> torch.Tensor | None:
    """Return the whole table through frozen layers, [rows, D or 2 D]; None if one of them trains or has an adapter."""
    bare = [module.linear if isinstance(module, Mixed) and module.lora is None else module for module in modules]
    linears = [each for each in bare if type(each) is nn.Linear]
    table, dtype = distances.table, distances.rows.dtype
    inputs = [table.embeddings.weight, *table.norm.parameters(), *(p for each in linears for p in each.parameters())]
    if len(linears) < len(bare) or any(each.requires_grad for each in inputs):
        return None
    weight = frozen([linear.weight for linear in linears])
    if weight is None:
        return None
    state = [dtype, *((each.data_ptr(), each._version) for each in inputs)]
    if weight.known is None or weight.known[0] != state:
        with torch.inference_mode(False), torch.no_grad():
            whole = _normed(table, slice(None), dtype)
            weight.known = (state, project_for_each(whole, linears, Dice(whole))[0])
    return weight.known[1]


def scores(query: torch.Tensor, key: torch.Tensor, at: Columns, projected: Projected, factor: float) -> torch.Tensor:
    """Return factor · (c2p + p2c), [G, Q, W], of queries [G, Q, E] and keys [G, W, E]."""
    c2p, p2c = (
        None if table is None else torch.bmm(_by_table(x, table), table.transpose(1, 2))
        for x, table in zip((query, key), _tables(projected, at, query.shape[2]), strict=True)
    )
    out = query.new_empty(len(query), query.shape[1], key.shape[1])
    if native.fits(out):
        native.read_diagonals(c2p, p2c, out, factor)
        return out
    first, *others = _diagonals(c2p, p2c, out.shape)
    return torch.mul(first, factor, out=out) if not others else torch.add(first, others[0], out=out).mul_(factor)


def add_gradients(
    dscores: torch.Tensor,
    heads: tuple[torch.Tensor, torch.Tensor],
    at: Columns,
    projected: Projected,
    factor: float,
    out: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
) -> None:
    """Add what `scores` passes back of its gradient [G, Q, W] to the gradients of query, key and projected rows.

    heads, out: query and key, and their gradients; then the rows' gradient [R, D or 2 D], float32, if it is wanted.
    There must be one projection for all texts.
    """
    dc2p, dp2c = _spread(dscores, at, factor)
    tables, width = _tables(projected, at, heads[0].shape[2]), projected.rows.shape[2]
    for x, dx, dpart, table, index, first in (
        (heads[0], out[0], dc2p, tables[0], at.of_queries, 0 if at.of_keys is None else width // 2),
        (heads[1], out[1], dp2c, tables[1], at.of_keys, 0),
    ):
        if dpart is None or table is None or index is None:
            continue
        dpart = _by_table(dpart, table)
        _by_table(dx, table).baddbmm_(dpart, table)
        if out[2] is not None:
            dtable = torch.bmm(dpart.transpose(1, 2), _by_table(x, table)).transpose(0, 1).flatten(1)
            # Not index_add_, whose order of additions on a GPU varies.
            place = out[2][:, first : first + dtable.shape[1]]
            place.index_put_((index,), dtable.float(), accumulate=True)


def _by_table(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Return the rows of x [G, rows, any] for each table: one table per head, or per head and text."""
    return x.view(len(table), -1, x.shape[2])


def _tables(projected: Projected, at: Columns, head: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return the projected row of each column, for products of queries and of keys: [heads, C, E], or [G, C, E]."""
    rows = projected.rows
    n_parts = (at.of_queries is not None) + (at.of_keys is not None)
    parts = rows.split(rows.shape[2] // n_parts, 2)

    def table(part: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor | None:
        if index is None:
            return None
        by_head = part.index_select(1, index).unflatten(2, (-1, head)).transpose(1, 2)
        if projected.models is None:
            return by_head[0].contiguous()
        return by_head[projected.models].transpose(0, 1).flatten(0, 1)

    return table(parts[-1], at.of_queries), table(parts[0], at.of_keys)


def _diagonals(c2p: torch.Tensor | None, p2c: torch.Tensor | None, shape: Sequence[int]) -> list[torch.Tensor]:
    """Return views [G, Q, W] of the products: of queries [G, Q, C], and of keys [G, W, C]."""
    _, n_queries, width = shape
    views: list[torch.Tensor] = []
    if c2p is not None:
        n = c2p.shape[-1]
        views.append(c2p.as_strided(shape, (n_queries * n, n - 1, 1), n_queries - 1))
    if p2c is not None:
        n = p2c.shape[-1]
        views.append(p2c.as_strided(shape, (width * n, 1, n - 1), width - 1))
    return views


def _spread(dscores: torch.Tensor, at: Columns, factor: float) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Return factor · dscores where scores read the products, 0 elsewhere: [G, Q, C] and [G, W, C]."""
    n_heads, n_queries, width = dscores.shape
    dc2p, dp2c = (
        None if index is None else dscores.new_empty(n_heads, n_rows, len(index))
        for index, n_rows in ((at.of_queries, n_queries), (at.of_keys, width))
    )
    if native.fits(dscores):
        native.spread_diagonals(dscores, dc2p, dp2c, factor)
        return dc2p, dp2c
    scaled = dscores * factor
    for part in (dc2p, dp2c):
        if part is not None:
            part.zero_()
    for view in _diagonals(dc2p, dp2c, dscores.shape):
        view.copy_(scaled)
    return dc2p, dp2c

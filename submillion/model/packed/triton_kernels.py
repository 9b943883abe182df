"""The kernels of `cuda`, in Triton: dropout, GELU, the residual connection with its norm, and attention.

No two programs write the same place: their order does not matter. Arithmetic is float32; stored values have their
tensor's dtype. Names in capitals are fixed when a kernel is compiled. Shapes are as in `cuda`, which calls these.
"""

from __future__ import annotations

import triton
import triton.language as tl

_VARYING = ["number", "least"]  # values for which a kernel is not compiled anew


@triton.jit
def _mixed(x):
    """A hash of 32 bits: the finaliser of MurmurHash3 with the constants of Wellons (2018), `lowbias32`."""
    x = x ^ (x >> 16)
    x = x * tl.full((), 0x7FEB352D, tl.uint32)
    x = x ^ (x >> 15)
    x = x * tl.full((), 0x846CA68B, tl.uint32)
    return x ^ (x >> 16)


@triton.jit
def keeps(seed_ptr, number, index, least):
    """Whether mask `number` of a seed (int64) keeps its elements `index`: one of 65,536 numbers is at least `least`."""
    seed = tl.load(seed_ptr)
    low, high = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    salt = number.to(tl.uint32) * tl.full((), 0x9E3779B9, tl.uint32)
    hashed = _mixed(_mixed(index.to(tl.uint32) + low) ^ (high + salt))
    return (hashed & 0xFFFF).to(tl.int32) >= least


@triton.jit(do_not_specialize=_VARYING)
def drop(
    x_ptr,
    out_ptr,
    n,
    seed_ptr,
    number,
    least,
    ADDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write x, with 0 where the mask drops, to out, or add it there."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_inside = index < n
    x = tl.load(x_ptr + index, mask=is_inside, other=0.0).to(tl.float32)
    x = tl.where(keeps(seed_ptr, number, index, least), x, 0.0)
    if ADDS:
        x += tl.load(out_ptr + index, mask=is_inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + index, x.to(out_ptr.dtype.element_ty), mask=is_inside)


@triton.jit
def gelu(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """Write x Phi(x)."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_inside = index < n
    x = tl.load(x_ptr + index, mask=is_inside, other=0.0).to(tl.float32)
    out = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    tl.store(out_ptr + index, out.to(out_ptr.dtype.element_ty), mask=is_inside)


@triton.jit
def gelu_backward(x_ptr, grad_ptr, out_ptr, n, BLOCK: tl.constexpr):
    """Write grad (Phi(x) + x phi(x))."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_inside = index < n
    x = tl.load(x_ptr + index, mask=is_inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + index, mask=is_inside, other=0.0).to(tl.float32)
    slope = 0.5 * (1.0 + tl.erf(x * 0.7071067811865476)) + x * tl.exp(-0.5 * x * x) * 0.3989422804014327
    tl.store(out_ptr + index, (grad * slope).to(out_ptr.dtype.element_ty), mask=is_inside)


@triton.jit(do_not_specialize=_VARYING)
def add_norm(
    y_ptr,
    residual_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    mean_ptr,
    rstd_ptr,
    width,
    eps,
    factor,
    seed_ptr,
    number,
    least,
    DROPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row: residual + factor * dropout(y) takes the place of y; its norm goes to out."""
    row = tl.program_id(0)
    columns = tl.arange(0, BLOCK)
    is_inside = columns < width
    index = row * width + columns
    y = tl.load(y_ptr + index, mask=is_inside, other=0.0).to(tl.float32)
    if DROPS:
        y = tl.where(keeps(seed_ptr, number, index, least), y * factor, 0.0)
    stored = (y + tl.load(residual_ptr + index, mask=is_inside, other=0.0).to(tl.float32)).to(y_ptr.dtype.element_ty)
    tl.store(y_ptr + index, stored, mask=is_inside)
    total = stored.to(tl.float32)
    mean = tl.sum(total, 0) / width
    centred = tl.where(is_inside, total - mean, 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    weight = tl.load(weight_ptr + columns, mask=is_inside, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + columns, mask=is_inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + index, (centred * rstd * weight + bias).to(out_ptr.dtype.element_ty), mask=is_inside)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)


@triton.jit(do_not_specialize=_VARYING)
def add_norm_backward(
    grad_ptr,
    total_ptr,
    mean_ptr,
    rstd_ptr,
    weight_ptr,
    dtotal_ptr,
    dy_ptr,
    passed_ptr,
    width,
    factor,
    seed_ptr,
    number,
    least,
    DROPS: tl.constexpr,
    BLOCK: tl.constexpr,
    HAS_PASSED: tl.constexpr,
):
    """One row: the gradients of the residual, and of y if it had dropout."""
    row, columns = tl.program_id(0), tl.arange(0, BLOCK)
    is_inside = columns < width
    index = row * width + columns
    mean, rstd = tl.load(mean_ptr + row), tl.load(rstd_ptr + row)
    total = tl.load(total_ptr + index, mask=is_inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + index, mask=is_inside, other=0.0).to(tl.float32)
    weighted = grad * tl.load(weight_ptr + columns, mask=is_inside, other=0.0).to(tl.float32)
    normed = tl.where(is_inside, (total - mean) * rstd, 0.0)
    shared = tl.sum(normed * weighted, 0) / width
    dtotal = (weighted - normed * shared - tl.sum(weighted, 0) / width) * rstd
    dtotal += tl.load(passed_ptr + index, mask=is_inside & HAS_PASSED, other=0.0).to(tl.float32)
    tl.store(dtotal_ptr + index, dtotal.to(dtotal_ptr.dtype.element_ty), mask=is_inside)
    if DROPS:
        dy = tl.where(keeps(seed_ptr, number, index, least), dtotal * factor, 0.0)
        tl.store(dy_ptr + index, dy.to(dy_ptr.dtype.element_ty), mask=is_inside)


@triton.jit
def _clear(rows_ptr, begin, end, stride, column, HEAD: tl.constexpr, N: tl.constexpr):
    """Write 0 to the columns of one head in rows begin ... end."""
    e = tl.arange(0, HEAD)
    for first in range(begin, end, N):
        rows = first + tl.arange(0, N)
        zeros = tl.zeros((N, HEAD), tl.float32).to(rows_ptr.dtype.element_ty)
        tl.store(rows_ptr + rows[:, None] * stride + column + e[None, :], zeros, mask=(rows < end)[:, None])


@triton.jit
def _scores(
    query,
    key,
    scale,
    relative_ptr,
    queries,
    keys,
    longest,
    length,
    HAS_RELATIVE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """scale query key^T + relative, [M, N], -inf where there is no key; relative_ptr is at the head."""
    scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
    is_key = (keys < length)[None, :]
    if HAS_RELATIVE:
        place = relative_ptr + queries[:, None] * longest + keys[None, :]
        scores += tl.load(place, mask=(queries < length)[:, None] & is_key, other=0.0).to(tl.float32)
    return tl.where(is_key, scores, float("-inf"))


@triton.jit(do_not_specialize=_VARYING)
def attend(
    query_ptr,
    rows_ptr,
    out_ptr,
    lse_ptr,
    bounds_ptr,
    relative_ptr,
    seed_ptr,
    number,
    least,
    factor,
    scale,
    n_texts,
    n_rows,
    longest,
    N_HEADS: tl.constexpr,
    HEAD: tl.constexpr,
    FIRSTS: tl.constexpr,
    DROPS: tl.constexpr,
    HAS_RELATIVE: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    """M queries of one text and head, by online softmax (Dao et al. 2022); behind the last text, zeros."""
    block, text, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    WIDTH: tl.constexpr = N_HEADS * HEAD
    STRIDE: tl.constexpr = (2 if FIRSTS else 3) * WIDTH
    column = head * HEAD
    start = tl.load(bounds_ptr + text).to(tl.int32)
    if text == n_texts:
        if not FIRSTS:
            if block == 0:
                _clear(out_ptr, start, n_rows, WIDTH, column, HEAD, N)
    else:
        length = tl.load(bounds_ptr + text + 1).to(tl.int32) - start
        n_queries = 1 if FIRSTS else length
        if block * M < n_queries:
            queries, e = block * M + tl.arange(0, M), tl.arange(0, HEAD)
            is_query = (queries < n_queries)[:, None]
            asking = text + queries if FIRSTS else start + queries
            place = query_ptr + asking[:, None] * (WIDTH if FIRSTS else STRIDE) + column + e[None, :]
            query = tl.load(place, mask=is_query, other=0.0)
            highest = tl.full((M,), float("-inf"), tl.float32)
            total = tl.zeros((M,), tl.float32)
            mixed = tl.zeros((M, HEAD), tl.float32)
            for first in range(0, length, N):
                keys = first + tl.arange(0, N)
                key_place = rows_ptr + (start + keys)[:, None] * STRIDE + (STRIDE - 2 * WIDTH) + column + e[None, :]
                is_key = (keys < length)[:, None]
                key = tl.load(key_place, mask=is_key, other=0.0)
                value = tl.load(key_place + WIDTH, mask=is_key, other=0.0)
                scores = _scores(
                    query, key, scale, relative_ptr + head * longest * longest, queries, keys, longest, length,
                    HAS_RELATIVE, PRECISION,
                )  # fmt: skip
                higher = tl.maximum(highest, tl.max(scores, 1))
                shrink = tl.exp(highest - higher)
                probs = tl.exp(scores - higher[:, None])
                total = total * shrink + tl.sum(probs, 1)
                if DROPS:
                    index = ((text * N_HEADS + head) * longest + queries[:, None]) * longest + keys[None, :]
                    probs = tl.where(keeps(seed_ptr, number, index, least), probs, 0.0)
                mixed = mixed * shrink[:, None] + tl.dot(probs.to(value.dtype), value, input_precision=PRECISION)
                highest = higher
            mixed = mixed * (factor / total)[:, None]
            place = out_ptr + asking[:, None] * WIDTH + column + e[None, :]
            tl.store(place, mixed.to(out_ptr.dtype.element_ty), mask=is_query)
            tl.store(lse_ptr + asking * N_HEADS + head, highest + tl.log(total), mask=queries < n_queries)


@triton.jit
def _gradients(
    query,
    key,
    value,
    dmixed,
    mixed,
    lse,
    scores,
    keep,
    factor,
    scale,
    DROPS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The weights after dropout and the gradient of scale * query key^T, [M, N] both, in the rows' dtype."""
    probs = tl.exp(scores - lse[:, None])
    dprobs = tl.dot(dmixed, tl.trans(value), input_precision=PRECISION)
    dropped = probs
    if DROPS:
        dropped = tl.where(keep, probs * factor, 0.0)
        dprobs = tl.where(keep, dprobs * factor, 0.0)
    delta = tl.sum(dmixed.to(tl.float32) * mixed.to(tl.float32), 1)
    dscores = probs * (dprobs - tl.expand_dims(delta, 1)) * scale
    return dropped.to(query.dtype), dscores.to(query.dtype)


@triton.jit(do_not_specialize=_VARYING)
def attend_backward(
    query_ptr,
    rows_ptr,
    out_ptr,
    dout_ptr,
    lse_ptr,
    dquery_ptr,
    drows_ptr,
    bounds_ptr,
    relative_ptr,
    seed_ptr,
    number,
    least,
    factor,
    scale,
    n_texts,
    n_rows,
    longest,
    N_HEADS: tl.constexpr,
    HEAD: tl.constexpr,
    FIRSTS: tl.constexpr,
    DROPS: tl.constexpr,
    HAS_RELATIVE: tl.constexpr,
    WANTS_SCORES: tl.constexpr,
    ONE: tl.constexpr,
    PRECISION: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
):
    """The gradients of N keys and values, then of M queries, of one text and head; ONE: a text is one block of each.

    As in Dao (2023), FlashAttention-2, algorithm 2, but queries have their own loop: nothing is added across programs,
    and two runs agree to the bit. Without WANTS_SCORES only values have gradients; the others are 0.
    """
    block, text, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    WIDTH: tl.constexpr = N_HEADS * HEAD
    STRIDE: tl.constexpr = (2 if FIRSTS else 3) * WIDTH
    QUERY_STRIDE: tl.constexpr = WIDTH if FIRSTS else STRIDE
    column = head * HEAD
    start = tl.load(bounds_ptr + text).to(tl.int32)
    if text == n_texts:
        if block == 0:
            if not FIRSTS:
                _clear(drows_ptr, start, n_rows, STRIDE, column, HEAD, N)
            _clear(drows_ptr, start, n_rows, STRIDE, STRIDE - 2 * WIDTH + column, HEAD, N)
            _clear(drows_ptr, start, n_rows, STRIDE, STRIDE - WIDTH + column, HEAD, N)
    else:
        length = tl.load(bounds_ptr + text + 1).to(tl.int32) - start
        n_queries = 1 if FIRSTS else length
        e = tl.arange(0, HEAD)
        relative_ptr += head * longest * longest
        element = (text * N_HEADS + head) * longest
        if block * N < length:
            keys = block * N + tl.arange(0, N)
            is_key = (keys < length)[:, None]
            key_place = (start + keys)[:, None] * STRIDE + (STRIDE - 2 * WIDTH) + column + e[None, :]
            key = tl.load(rows_ptr + key_place, mask=is_key, other=0.0)
            value = tl.load(rows_ptr + key_place + WIDTH, mask=is_key, other=0.0)
            dkey = tl.zeros((N, HEAD), tl.float32)
            dvalue = tl.zeros((N, HEAD), tl.float32)
            for first in range(0, n_queries, M):
                queries = first + tl.arange(0, M)
                is_query = (queries < n_queries)[:, None]
                asking = text + queries if FIRSTS else start + queries
                place = asking[:, None] * WIDTH + column + e[None, :]
                query_place = asking[:, None] * QUERY_STRIDE + column + e[None, :]
                query = tl.load(query_ptr + query_place, mask=is_query, other=0.0)
                mixed = tl.load(out_ptr + place, mask=is_query, other=0.0)
                dmixed = tl.load(dout_ptr + place, mask=is_query, other=0.0)
                # Rows beyond the last query weigh nothing: exp(-inf).
                lse = tl.load(lse_ptr + asking * N_HEADS + head, mask=queries < n_queries, other=float("inf"))
                scores = _scores(
                    query, key, scale, relative_ptr, queries, keys, longest, length, HAS_RELATIVE, PRECISION
                )
                index = (element + queries[:, None]) * longest + keys[None, :]
                keep = keeps(seed_ptr, number, index, least) if DROPS else index >= 0
                dropped, dscores = _gradients(
                    query, key, value, dmixed, mixed, lse, scores, keep, factor, scale, DROPS, PRECISION
                )
                dvalue += tl.dot(tl.trans(dropped), dmixed, input_precision=PRECISION)
                if WANTS_SCORES:
                    dkey += tl.dot(tl.trans(dscores), query, input_precision=PRECISION)
                    if ONE:
                        dquery = tl.dot(dscores, key, input_precision=PRECISION)
                        tl.store(dquery_ptr + query_place, dquery.to(dquery_ptr.dtype.element_ty), mask=is_query)
            tl.store(drows_ptr + key_place, dkey.to(drows_ptr.dtype.element_ty), mask=is_key)
            tl.store(drows_ptr + key_place + WIDTH, dvalue.to(drows_ptr.dtype.element_ty), mask=is_key)
        if (not ONE) or (not WANTS_SCORES):
            if block * M < n_queries:
                queries = block * M + tl.arange(0, M)
                is_query = (queries < n_queries)[:, None]
                asking = text + queries if FIRSTS else start + queries
                place = asking[:, None] * WIDTH + column + e[None, :]
                query_place = asking[:, None] * QUERY_STRIDE + column + e[None, :]
                dquery = tl.zeros((M, HEAD), tl.float32)
                if WANTS_SCORES:
                    query = tl.load(query_ptr + query_place, mask=is_query, other=0.0)
                    mixed = tl.load(out_ptr + place, mask=is_query, other=0.0)
                    dmixed = tl.load(dout_ptr + place, mask=is_query, other=0.0)
                    lse = tl.load(lse_ptr + asking * N_HEADS + head, mask=queries < n_queries, other=float("inf"))
                    for first in range(0, length, N):
                        keys = first + tl.arange(0, N)
                        is_key = (keys < length)[:, None]
                        key_place = (start + keys)[:, None] * STRIDE + (STRIDE - 2 * WIDTH) + column + e[None, :]
                        key = tl.load(rows_ptr + key_place, mask=is_key, other=0.0)
                        value = tl.load(rows_ptr + key_place + WIDTH, mask=is_key, other=0.0)
                        scores = _scores(
                            query, key, scale, relative_ptr, queries, keys, longest, length, HAS_RELATIVE, PRECISION
                        )
                        index = (element + queries[:, None]) * longest + keys[None, :]
                        keep = keeps(seed_ptr, number, index, least) if DROPS else index >= 0
                        _, dscores = _gradients(
                            query, key, value, dmixed, mixed, lse, scores, keep, factor, scale, DROPS, PRECISION
                        )
                        dquery += tl.dot(dscores, key, input_precision=PRECISION)
                tl.store(dquery_ptr + query_place, dquery.to(dquery_ptr.dtype.element_ty), mask=is_query)

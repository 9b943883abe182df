/* Attention inside each text of a packed batch, forward and backward, in bfloat16, on processors with matrix tiles
 * (Intel AMX). A text's part of a head is processed as a whole, in the caches of one core: nothing is padded, moved
 * into tiles of texts or kept for the backward pass, which recomputes the weights (as Dao et al. 2022, section 3.1).
 *
 * Scores, weights and sums are float32; inputs of products, and results, are rounded to bfloat16. A row's result
 * depends only on its own text. native_attention.py says what the functions compute.
 */
#include <math.h>

#include "tiles.h"

static i64 scratch_forward(i64 n, i64 head) { return 4 * n * head + 6 * DEPTH * n + 4 * DEPTH * head; }

static i64 scratch_backward(i64 n, i64 n_queries, i64 head) {
    return 8 * n_queries * head + 2 * n * head + 14 * DEPTH * n_queries + 4 * (n_queries + DEPTH) * head + 8 * n_queries;
}

i64 attention_scratch_on_tiles(i64 longest, i64 head, int is_firsts) {
    i64 n = filled(longest), forward = scratch_forward(n, head);
    i64 backward = scratch_backward(n, is_firsts ? DEPTH : n, head);
    return forward > backward ? forward : backward;
}

#ifdef HAS_TILES

/* 2^x: a polynomial on +-1/2 (Cephes' exp2f), times a power of 2. */
TILES static inline __m512 power_of_2(__m512 x) {
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), part = _mm512_sub_ps(x, whole);
    __m512 y = _mm512_set1_ps(1.535336188319500e-4f);
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(1.339887440266574e-3f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(9.618437357674640e-3f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(5.550332471162809e-2f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(2.402264791363012e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(6.931472028550421e-1f));
    y = _mm512_fmadd_ps(y, part, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}

/* ---- forward ---- */

/* Scores are multiplied by 1 / sqrt(head), and their exponentials are powers of 2. */
static float scale_of(const attention *a) { return 1.0f / sqrtf((float)a->head); }
static float scale_to_base_2(const attention *a) { return scale_of(a) * 1.4426950408889634f; }

/* Adds the relative part to rows of scores from `first`, not yet multiplied by their scale. */
TILES static void add_relative(const attention *a, i64 head, i64 first, i64 n_rows, i64 n_columns, float *scores) {
    const __m512 factor = _mm512_set1_ps(1.0f / scale_of(a));
    for (i64 i = 0; i < n_rows; i++) {
        const bf16 *relative = a->relative + (head * a->longest + first + i) * a->longest;
        for (i64 j = 0; j < n_columns; j += 16) {
            float *at = scores + i * n_columns + j;
            _mm512_storeu_ps(at, _mm512_fmadd_ps(widened(relative + j), factor, _mm512_loadu_ps(at)));
        }
    }
}

/* The weights of up to 32 queries for n keys, not yet divided by their sum, after dropout; the factors of their
 * mixtures; and `lse`. */
TILES static void weigh(const attention *a, const float *scores, i64 n, i64 query, i64 n_rows, i64 head, bf16 *weights,
                        float *factors) {
    const float scale = scale_to_base_2(a);
    for (i64 i = 0; i < n_rows; i++, scores += filled(n), weights += filled(n)) {
        __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
        for (i64 j = 0; j < n; j += 16) top = _mm512_mask_max_ps(top, among(n - j), top, _mm512_loadu_ps(scores + j));
        const float most = _mm512_reduce_max_ps(top) * scale;
        const uint32_t word = mask_word(a, head, query + i, 0);
        for (i64 j = 0; j < n; j += DEPTH) {
            __m512 first = _mm512_fmsub_ps(_mm512_loadu_ps(scores + j), _mm512_set1_ps(scale), _mm512_set1_ps(most));
            __m512 second = _mm512_fmsub_ps(_mm512_loadu_ps(scores + j + 16), _mm512_set1_ps(scale), _mm512_set1_ps(most));
            first = _mm512_maskz_mov_ps(among(n - j), power_of_2(first));
            second = _mm512_maskz_mov_ps(among(n - j - 16), power_of_2(second));
            sum = _mm512_add_ps(sum, _mm512_add_ps(first, second));
            __m512i both = halves(first, second);
            if (a->least) both = _mm512_maskz_mov_epi16(kept_halves(word + (uint32_t)(j / 2), a->seed, a->least), both);
            _mm512_storeu_si512(weights + j, both);
        }
        const float total = _mm512_reduce_add_ps(sum);
        factors[i] = a->factor / total;
        a->lse[head * n_queries(a) + query + i] = most + log2f(total);
    }
}

TILES static void attend_text(const attention *a, i64 text, i64 head, char *scratch) {
    const i64 row = a->bounds[text], n = a->bounds[text + 1] - row, whole = filled(n), e = a->head;
    const i64 first = a->is_firsts ? text : row, n_asked = a->is_firsts ? 1 : n;
    const bf16 *key = a->key + row * a->key_step + head * e;
    bf16 *keys = take(&scratch, 2 * whole * e), *values = take(&scratch, 2 * whole * e);
    float *scores = take(&scratch, 4 * DEPTH * whole), *mixed = take(&scratch, 4 * DEPTH * e), factors[DEPTH];
    bf16 *weights = take(&scratch, 2 * DEPTH * whole);
    turned(key, a->key_step, n, e, keys);
    panelled(key + width(a), a->key_step, n, e, values);
    for (i64 i = 0; i < n_asked; i += DEPTH) {
        const i64 query = first + i, n_rows = least(n_asked - i, DEPTH);
        shape_tiles(n_rows);
        const bf16 *asked = a->query + query * a->query_step + head * e;
        product(rows_of(asked, a->query_step, n_rows), e, keys, e * DEPTH, whole, scores, 0);
        if (a->relative) add_relative(a, head, i, n_rows, whole, scores);
        weigh(a, scores, n, query, n_rows, head, weights, factors);
        product(rows_of(weights, whole, n_rows), whole, values, whole * DEPTH, e, mixed, 0);
        write_rows(mixed, n_rows, e, factors, 1, a->out + query * width(a) + head * e, width(a));
    }
}

/* ---- backward ---- */

typedef struct {
    bf16 *queries_turned, *grads_turned, *queries, *grads, *keys; /* panels */
    float *scores, *dweights; /* of 32 keys with all queries */
    bf16 *weights, *dscores, *dscores_turned; /* the same, the last as the left side of a product with keys */
    float *dquery, *sums, *lse, *dots; /* [queries, head], [32, head], [queries] twice */
} buffers;

TILES static buffers buffers_for(const attention *a, i64 n, i64 n_asked, char *scratch) {
    const i64 m = filled(n_asked), e = a->head;
    bf16 *panels = take(&scratch, 8 * m * e);
    return (buffers){
        .queries_turned = panels,
        .grads_turned = panels + m * e,
        .queries = panels + 2 * m * e,
        .grads = panels + 3 * m * e,
        .keys = take(&scratch, 2 * filled(n) * e),
        .scores = take(&scratch, 4 * DEPTH * m),
        .dweights = take(&scratch, 4 * DEPTH * m),
        .weights = take(&scratch, 2 * DEPTH * m),
        .dscores = take(&scratch, 2 * DEPTH * m),
        .dscores_turned = take(&scratch, 2 * DEPTH * m),
        .dquery = take(&scratch, 4 * m * e),
        .sums = take(&scratch, 4 * DEPTH * e),
        .lse = take(&scratch, 4 * m),
        .dots = take(&scratch, 4 * m),
    };
}

/* lse of the queries, and each one's sum of weights times their gradients, equal to that of result times gradient. */
TILES static void read_rows(const attention *a, i64 first, i64 n_asked, i64 head, buffers b) {
    for (i64 i = 0; i < filled(n_asked); i++) {
        __m512 sum = _mm512_setzero_ps();
        const i64 at = (first + i) * width(a) + head * a->head;
        for (i64 k = 0; i < n_asked && k < a->head; k += DEPTH) {
            sum = _mm512_dpbf16_ps(
                sum, (__m512bh)_mm512_loadu_si512(a->out + at + k), (__m512bh)_mm512_loadu_si512(a->dout + at + k));
        }
        b.dots[i] = _mm512_reduce_add_ps(sum);
        b.lse[i] = i < n_asked ? a->lse[head * n_queries(a) + first + i] : 0.0f;
    }
}

/* Weights and the gradients of scores for up to 32 keys (rows) and 16 queries from `i` (columns), two keys at a time, as
 * a mask's words hold two. */
TILES static void weigh_back(const attention *a, i64 first, i64 key, i64 n_keys, i64 head, i64 m, i64 i, buffers b) {
    const __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i steps = _mm512_mullo_epi32(places, _mm512_set1_epi32((int)(a->longest / 2)));
    const __m512i least_kept = _mm512_set1_epi32((int)a->least), lower = _mm512_set1_epi32(0xffff);
    const __m512 scale = _mm512_set1_ps(scale_to_base_2(a)), factor = _mm512_set1_ps(a->factor);
    const __m512 lse = _mm512_loadu_ps(b.lse + i), dots = _mm512_loadu_ps(b.dots + i);
    const uint32_t word = mask_word(a, head, first + i, key);
    __m512i pairs[16];
    for (i64 pair = 0; pair < 16; pair++) {
        const i64 j = 2 * pair, at = j * m + i;
        if (j >= n_keys) {
            pairs[pair] = _mm512_setzero_si512();
            continue;
        }
        __mmask16 has_second = j + 1 < n_keys ? 0xffff : 0, keeps_first = 0xffff, keeps_second = 0xffff;
        __m512 p = power_of_2(_mm512_fmsub_ps(_mm512_loadu_ps(b.scores + at), scale, lse));
        __m512 q = power_of_2(_mm512_fmsub_ps(_mm512_maskz_loadu_ps(has_second, b.scores + at + m), scale, lse));
        if (a->least) {
            __m512i x = random_words(_mm512_add_epi32(steps, _mm512_set1_epi32((int)(word + (uint32_t)pair))), a->seed);
            keeps_first = _mm512_cmpge_epu32_mask(_mm512_and_si512(x, lower), least_kept);
            keeps_second = _mm512_cmpge_epu32_mask(_mm512_srli_epi32(x, 16), least_kept);
        }
        _mm256_storeu_si256((void *)(b.weights + at), half(_mm512_maskz_mov_ps(keeps_first, p)));
        _mm256_storeu_si256((void *)(b.weights + at + m), half(_mm512_maskz_mov_ps(keeps_second, q)));
        if (!a->wants_scores) continue;
        __m512 dp = _mm512_maskz_loadu_ps(keeps_first, b.dweights + at);
        __m512 dq = _mm512_maskz_loadu_ps(keeps_second & has_second, b.dweights + at + m);
        __m256i ds = half(_mm512_mul_ps(p, _mm512_fmsub_ps(dp, factor, dots)));
        __m256i dt = half(_mm512_maskz_mul_ps(has_second, q, _mm512_fmsub_ps(dq, factor, dots)));
        _mm256_storeu_si256((void *)(b.dscores + at), ds);
        _mm256_storeu_si256((void *)(b.dscores + at + m), dt);
        pairs[pair] = in_turn(ds, dt);
    }
    if (a->wants_scores) turn_tile(pairs, b.dscores_turned + i * DEPTH);
}

/* The gradients of up to 32 keys and their values, and their part of the queries' gradients. */
TILES static void keys_back(const attention *a, i64 first, i64 m, i64 row, i64 key, i64 n, i64 head, buffers b) {
    const i64 n_keys = least(n - key, DEPTH);
    const i64 e = a->head, at = (row + key) * a->key_step + head * e;
    const bf16 *keys = a->key + at;
    bf16 *dkeys = a->dkey + at;
    const float scale = scale_of(a);
    shape_tiles(n_keys);
    product(rows_of(keys, a->key_step, n_keys), e, b.queries_turned, e * DEPTH, m, b.scores, 0);
    if (a->relative) add_relative(a, head, key, n_keys, m, b.scores);
    if (a->wants_scores) {
        product(rows_of(keys + width(a), a->key_step, n_keys), e, b.grads_turned, e * DEPTH, m, b.dweights, 0);
    }
    for (i64 i = 0; i < m; i += 16) weigh_back(a, first, key, n_keys, head, m, i, b);
    product(rows_of(b.weights, m, n_keys), m, b.grads, m * DEPTH, e, b.sums, 0);
    write_rows(b.sums, n_keys, e, &a->factor, 0, dkeys + width(a), a->key_step);
    if (!a->wants_scores) return;
    product(rows_of(b.dscores, m, n_keys), m, b.queries, m * DEPTH, e, b.sums, 0);
    write_rows(b.sums, n_keys, e, &scale, 0, dkeys, a->key_step);
    shape_tiles(DEPTH);
    for (i64 i = 0; i < m; i += DEPTH) {
        left rows = {b.dscores_turned + i * DEPTH, 2 * DEPTH, 0, TILE};
        product(rows, DEPTH, b.keys + key * DEPTH, filled(n) * DEPTH, e, b.dquery + i * e, key > 0);
    }
}

TILES static void attend_text_back(const attention *a, i64 text, i64 head, char *scratch) {
    const i64 row = a->bounds[text], n = a->bounds[text + 1] - row, e = a->head;
    const i64 first = a->is_firsts ? text : row, n_asked = a->is_firsts ? 1 : n, m = filled(n_asked);
    const buffers b = buffers_for(a, n, n_asked, scratch);
    const bf16 *asked = a->query + first * a->query_step + head * e, *dout = a->dout + first * width(a) + head * e;
    bf16 *dquery = a->dquery + first * a->query_step + head * e;
    const float scale = scale_of(a);
    read_rows(a, first, n_asked, head, b);
    turned(asked, a->query_step, n_asked, e, b.queries_turned);
    panelled(dout, width(a), n_asked, e, b.grads);
    if (a->wants_scores) {
        turned(dout, width(a), n_asked, e, b.grads_turned);
        panelled(asked, a->query_step, n_asked, e, b.queries);
        panelled(a->key + row * a->key_step + head * e, a->key_step, n, e, b.keys);
    }
    for (i64 key = 0; key < n; key += DEPTH) keys_back(a, first, m, row, key, n, head, b);
    if (a->wants_scores) {
        write_rows(b.dquery, n_asked, e, &scale, 0, dquery, a->query_step);
        return;
    }
    for (i64 i = 0; i < n_asked; i++) memset(dquery + i * a->query_step, 0, (size_t)(2 * e));
    for (i64 i = 0; i < n; i++) memset(a->dkey + (row + i) * a->key_step + head * e, 0, (size_t)(2 * e));
}

/* ---- for all texts and heads ---- */

static char *own_scratch(const attention *a) {
    return a->scratch + this_thread() * attention_scratch_on_tiles(a->longest, a->head, a->is_firsts);
}

TILES static void attend_body(const void *data, i64 first, i64 last) {
    const attention *a = data;
    char *scratch = own_scratch(a);
    for (i64 i = first; i < last; i++) attend_text(a, i % a->n_texts, i / a->n_texts, scratch);
    _tile_release();
}

TILES static void attend_back_body(const void *data, i64 first, i64 last) {
    const attention *a = data;
    char *scratch = own_scratch(a);
    for (i64 i = first; i < last; i++) attend_text_back(a, i % a->n_texts, i / a->n_texts, scratch);
    _tile_release();
}

void attend_on_tiles(const attention *a, int threads) { in_parallel(attend_body, a, a->n_texts * a->n_heads, 1, threads); }
void attend_back_on_tiles(const attention *a, int threads) {
    in_parallel(attend_back_body, a, a->n_texts * a->n_heads, 1, threads);
}

#else

void attend_on_tiles(const attention *a, int threads) {}
void attend_back_on_tiles(const attention *a, int threads) {}

#endif

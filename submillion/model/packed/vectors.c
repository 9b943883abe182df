/* Attention inside each text of a packed batch, and LoRA's small products, forward and backward, on processors without
 * matrix tiles: what attention.c and lora.c compute, in float32 vectors that compilers map to those of a processor
 * (AVX-512, AVX2, SSE, NEON). Rows are read from and rounded to bfloat16 at the ends; in between only LoRA's factors
 * and its low rows, which are kept, are rounded.
 *
 * Each element's terms are added in one order whatever the number of threads, and a row's result does not depend on
 * other rows.
 */
#include <math.h>
#include <string.h>

#include "vectors.h"

#define BLOCK 48 /* rows that pass through a product together */
#define STRIP 64 /* columns of a product over rows */

/* ---- rows ---- */

FAST static void read_rows(const bf16 *x, i64 step, i64 n, i64 n_columns, float *out) {
    for (i64 i = 0; i < n; i++, x += step, out += n_columns) {
        for (i64 k = 0; k < n_columns; k++) out[k] = wide(x[k]);
    }
}

/* Rows as columns [columns, out_step], filled up with 0. */
FAST static void read_turned(const bf16 *x, i64 step, i64 n, i64 n_columns, float *out, i64 out_step) {
    for (i64 i = 0; i < n; i++, x += step) {
        for (i64 k = 0; k < n_columns; k++) out[k * out_step + i] = wide(x[k]);
    }
    for (i64 k = 0; k < n_columns; k++) {
        for (i64 i = n; i < out_step; i++) out[k * out_step + i] = 0.0f;
    }
}

FAST static void write_rows(const float *x, i64 n, i64 n_columns, float factor, bf16 *out, i64 step) {
    for (i64 i = 0; i < n; i++, x += n_columns, out += step) {
        for (i64 k = 0; k < n_columns; k++) out[k] = (bf16)rounded(factor * x[k]);
    }
}

/* 1 or 0 for n elements of a mask, from an even one on; n is even. */
FAST static void read_mask(word first, i64 n, uint64_t seed, word least_kept, float *out) {
    for (i64 i = 0; i < n / 2; i++) {
        const word x = random_bits(first + (word)i, (word)seed, (word)(seed >> 32));
        out[2 * i] = (x & 0xffffu) >= least_kept ? 1.0f : 0.0f;
        out[2 * i + 1] = (x >> 16) >= least_kept ? 1.0f : 0.0f;
    }
}

/* ---- attention ---- */

typedef struct {
    float *keys_turned, *values; /* [head, whole], [whole, head] */
    float *queries, *scores, *mixed, *kept; /* of BLOCK queries: [., head], [., whole], [., head]; [whole] */
    float *values_turned, *keys, *grads, *dweights; /* backward: [head, whole], [whole, head], of BLOCK queries */
    float *dkeys, *dvalues; /* [whole, head] */
} buffers;

static i64 n_floats(i64 whole, i64 head) { return whole * (6 * head + 1) + BLOCK * (3 * head + 2 * whole); }

i64 attention_scratch_in_vectors(i64 longest, i64 head) { return 4 * n_floats(in_lanes(longest), head); }

static buffers buffers_for(const attention *a, i64 whole) {
    char *scratch = a->scratch + this_thread() * attention_scratch_in_vectors(a->longest, a->head);
    const i64 of_keys = 4 * whole * a->head, of_queries = 4 * BLOCK * a->head, of_scores = 4 * BLOCK * whole;
    return (buffers){
        .keys_turned = take(&scratch, of_keys),
        .values = take(&scratch, of_keys),
        .values_turned = take(&scratch, of_keys),
        .keys = take(&scratch, of_keys),
        .dkeys = take(&scratch, of_keys),
        .dvalues = take(&scratch, of_keys),
        .queries = take(&scratch, of_queries),
        .mixed = take(&scratch, of_queries),
        .grads = take(&scratch, of_queries),
        .scores = take(&scratch, of_scores),
        .dweights = take(&scratch, of_scores),
        .kept = take(&scratch, 4 * whole),
    };
}

typedef struct { i64 row, n, whole, first, n_asked, head; } place; /* of a text's keys and queries, and the head's number */

static place place_of(const attention *a, i64 number) {
    const i64 text = number % a->n_texts, row = a->bounds[text], n = a->bounds[text + 1] - row;
    return (place){row, n, in_lanes(n), a->is_firsts ? text : row, a->is_firsts ? 1 : n, number / a->n_texts};
}

/* Scores of a query [whole] times their factor, as exponents of 2; `i` is its place in the text. Loops take whole
 * LANES, since single elements at their end would cost as much as all before them: weights behind the last key are next
 * to nothing. */
FAST static void to_exponents(const attention *a, place p, i64 i, float *scores) {
    const float scale = LOG2_E / sqrtf((float)a->head);
    for (i64 j = 0; j < p.whole; j++) scores[j] *= scale;
    if (a->relative) {
        const bf16 *relative = a->relative + (p.head * a->longest + i) * a->longest;
        for (i64 j = 0; j < p.n; j++) scores[j] += LOG2_E * wide(relative[j]);
    }
    for (i64 j = p.n; j < p.whole; j++) scores[j] = -1e30f;
}

static const float *kept_of(const attention *a, place p, i64 i, float *kept) {
    if (!a->least) return 0;
    read_mask(mask_word(a, p.head, p.first + i, 0), p.whole, a->seed, a->least, kept);
    return kept;
}

/* Replaces a query's exponents by its weights after dropout; returns their factor. */
FAST static float weigh(const attention *a, place p, i64 i, float *scores, float *kept) {
    float top = -INFINITY, sum = 0.0f;
#pragma omp simd reduction(max : top)
    for (i64 j = 0; j < p.whole; j++) top = scores[j] > top ? scores[j] : top;
#pragma omp simd reduction(+ : sum)
    for (i64 j = 0; j < p.whole; j++) {
        scores[j] = power_of_2(scores[j] - top);
        sum += scores[j];
    }
    a->lse[p.head * n_queries(a) + p.first + i] = top + log2f(sum);
    if (kept_of(a, p, i, kept)) {
        for (i64 j = 0; j < p.whole; j++) scores[j] *= kept[j];
    }
    return a->factor / sum;
}

static void attend_text(const attention *a, i64 number) {
    const place p = place_of(a, number);
    const buffers b = buffers_for(a, p.whole);
    const i64 e = a->head;
    const bf16 *key = a->key + p.row * a->key_step + p.head * e;
    read_turned(key, a->key_step, p.n, e, b.keys_turned, p.whole);
    read_rows(key + width(a), a->key_step, p.n, e, b.values);
    for (i64 i = 0; i < p.n_asked; i += BLOCK) {
        const i64 n_rows = least(p.n_asked - i, BLOCK);
        float factors[BLOCK];
        read_rows(a->query + (p.first + i) * a->query_step + p.head * e, a->query_step, n_rows, e, b.queries);
        multiply_all((left){b.queries, e, 1}, b.keys_turned, p.whole, n_rows, e, p.whole, b.scores, p.whole, 0);
        for (i64 row = 0; row < n_rows; row++) {
            to_exponents(a, p, i + row, b.scores + row * p.whole);
            factors[row] = weigh(a, p, i + row, b.scores + row * p.whole, b.kept);
        }
        multiply_all((left){b.scores, p.whole, 1}, b.values, e, n_rows, p.n, e, b.mixed, e, 0);
        for (i64 row = 0; row < n_rows; row++) {
            write_rows(b.mixed + row * e, 1, e, factors[row], a->out + (p.first + i + row) * width(a) + p.head * e, 0);
        }
    }
}

/* Replaces a query's exponents by its weights after dropout, and, if they are wanted, the weights' gradients by the
 * scores'. */
FAST static void weigh_back(const attention *a, place p, i64 i, float *scores, float *dweights, float *kept_row) {
    const float lse = a->lse[p.head * n_queries(a) + p.first + i];
    const float *kept = kept_of(a, p, i, kept_row);
    float dot = 0.0f;
    for (i64 j = 0; j < p.whole; j++) scores[j] = power_of_2(scores[j] > lse ? 0.0f : scores[j] - lse);
    for (i64 j = p.n; j < p.whole; j++) scores[j] = 0.0f; /* next to nothing times a gradient would be a slow, subnormal number */
    if (a->wants_scores) {
        for (i64 j = 0; j < p.whole; j++) dweights[j] *= kept ? a->factor * kept[j] : a->factor;
#pragma omp simd reduction(+ : dot)
        for (i64 j = 0; j < p.whole; j++) dot += scores[j] * dweights[j];
        for (i64 j = 0; j < p.whole; j++) dweights[j] = scores[j] * (dweights[j] - dot);
    }
    if (kept) {
        for (i64 j = 0; j < p.whole; j++) scores[j] *= kept[j];
    }
}

/* What a block of queries adds to the gradients of keys and values; the queries' own, if they are wanted. */
static void queries_back(const attention *a, place p, i64 i, buffers b) {
    const i64 n_rows = least(p.n_asked - i, BLOCK), e = a->head, at = (p.first + i) * a->query_step + p.head * e;
    read_rows(a->query + at, a->query_step, n_rows, e, b.queries);
    read_rows(a->dout + (p.first + i) * width(a) + p.head * e, width(a), n_rows, e, b.grads);
    multiply_all((left){b.queries, e, 1}, b.keys_turned, p.whole, n_rows, e, p.whole, b.scores, p.whole, 0);
    if (a->wants_scores) {
        multiply_all((left){b.grads, e, 1}, b.values_turned, p.whole, n_rows, e, p.whole, b.dweights, p.whole, 0);
    }
    for (i64 row = 0; row < n_rows; row++) {
        float *scores = b.scores + row * p.whole;
        to_exponents(a, p, i + row, scores);
        weigh_back(a, p, i + row, scores, b.dweights + row * p.whole, b.kept);
    }
    multiply_all((left){b.scores, 1, p.whole}, b.grads, e, p.n, n_rows, e, b.dvalues, e, i > 0);
    if (!a->wants_scores) return;
    multiply_all((left){b.dweights, p.whole, 1}, b.keys, e, n_rows, p.n, e, b.mixed, e, 0);
    write_rows(b.mixed, n_rows, e, 1.0f / sqrtf((float)e), a->dquery + at, a->query_step);
    multiply_all((left){b.dweights, 1, p.whole}, b.queries, e, p.n, n_rows, e, b.dkeys, e, i > 0);
}

static void clear(bf16 *rows, i64 step, i64 n, i64 n_columns) {
    for (i64 i = 0; i < n; i++) memset(rows + i * step, 0, (size_t)(2 * n_columns));
}

static void attend_text_back(const attention *a, i64 number) {
    const place p = place_of(a, number);
    const buffers b = buffers_for(a, p.whole);
    const i64 e = a->head, at = p.row * a->key_step + p.head * e;
    const bf16 *key = a->key + at;
    bf16 *dkey = a->dkey + at;
    read_turned(key, a->key_step, p.n, e, b.keys_turned, p.whole);
    if (a->wants_scores) {
        read_turned(key + width(a), a->key_step, p.n, e, b.values_turned, p.whole);
        read_rows(key, a->key_step, p.n, e, b.keys);
    } else {
        clear(dkey, a->key_step, p.n, e);
        clear(a->dquery + p.first * a->query_step + p.head * e, a->query_step, p.n_asked, e);
    }
    for (i64 i = 0; i < p.n_asked; i += BLOCK) queries_back(a, p, i, b);
    write_rows(b.dvalues, p.n, e, a->factor, dkey + width(a), a->key_step);
    if (a->wants_scores) write_rows(b.dkeys, p.n, e, 1.0f / sqrtf((float)e), dkey, a->key_step);
}

static void attend_body(const void *data, i64 first, i64 last) {
    for (i64 i = first; i < last; i++) attend_text(data, i);
}

static void attend_back_body(const void *data, i64 first, i64 last) {
    for (i64 i = first; i < last; i++) attend_text_back(data, i);
}

void attend_in_vectors(const attention *a, int threads) { in_parallel(attend_body, a, a->n_texts * a->n_heads, 1, threads); }

void attend_back_in_vectors(const attention *a, int threads) {
    in_parallel(attend_back_body, a, a->n_texts * a->n_heads, 1, threads);
}

/* ---- LoRA ---- */

typedef struct {
    lora_call c;
    float *down, *up; /* forward: [depth, r] and [rank, width]; backward: [ranks, depth] and [width, wide] */
    float *low, *dlow; /* backward: [rows, r] */
    i64 ranks; /* of all layers */
    i64 wide;  /* rank of a layer, filled up with 0 to whole LANES */
    i64 r;     /* columns of low rows: a layer's last vector runs past its own, and the next layer overwrites them */
    i64 share; /* columns that a layer makes */
} lora;

static lora lora_of(const lora_call *c) {
    const i64 ranks = c->rank * c->layers, wide = in_lanes(c->rank);
    return (lora){.c = *c, .ranks = ranks, .wide = wide, .r = in_lanes(ranks - c->rank + wide), .share = c->width / c->layers};
}

static i64 own_floats(const lora *l) { return BLOCK * (l->c.depth + l->c.width + l->r) + l->c.depth; }
static i64 shared_floats(const lora *l) { return l->r * (l->c.depth + 2 * l->c.n_rows) + l->wide * l->c.width; }

i64 lora_scratch_in_vectors(i64 n_rows, i64 depth, i64 width, i64 rank, i64 layers, int threads) {
    const lora_call c = {.n_rows = n_rows, .depth = depth, .width = width, .rank = rank, .layers = layers};
    const lora l = lora_of(&c);
    return 4 * (shared_floats(&l) + threads * own_floats(&l));
}

/* Rows of a matrix, rounded to bfloat16 and filled up with 0. */
FAST static void copy_matrix(const float *x, i64 n_rows, i64 n_columns, float *out, i64 out_columns) {
    for (i64 i = 0; i < n_rows; i++, x += n_columns, out += out_columns) {
        for (i64 k = 0; k < n_columns; k++) out[k] = wide((bf16)rounded(x[k]));
        for (i64 k = n_columns; k < out_columns; k++) out[k] = 0.0f;
    }
}

/* The same for the columns of x [columns, rows]. */
FAST static void copy_turned(const float *x, i64 n_rows, i64 n_columns, float *out, i64 out_columns) {
    for (i64 i = 0; i < n_rows; i++, out += out_columns) {
        for (i64 k = 0; k < n_columns; k++) out[k] = wide((bf16)rounded(x[k * n_rows + i]));
        for (i64 k = n_columns; k < out_columns; k++) out[k] = 0.0f;
    }
}

/* Columns of rows of x after dropout. */
FAST static void read_seen(const lora_call *c, i64 row, i64 n, i64 column, i64 n_columns, float *out) {
    for (i64 i = 0; i < n; i++, out += n_columns) {
        const i64 at = (row + i) * c->depth + column;
        if (!c->least) {
            for (i64 k = 0; k < n_columns; k++) out[k] = wide(c->x[at + k]);
            continue;
        }
        read_mask((word)(at / 2), n_columns, c->seed, c->least, out);
        for (i64 k = 0; k < n_columns; k++) out[k] *= wide(c->x[at + k]);
    }
}

/* Rounded as they are kept, so that both directions see the same; kept rows are filled up to `n_kept`. */
FAST static void keep_low(float *low, i64 n, i64 r, i64 ranks, bf16 *out, i64 n_kept) {
    for (i64 i = 0; i < n; i++, low += r, out += n_kept) {
        for (i64 k = 0; k < ranks; k++) {
            out[k] = (bf16)rounded(low[k]);
            low[k] = wide(out[k]);
        }
        for (i64 k = ranks; k < n_kept; k++) out[k] = 0;
    }
}

FAST static void add_rows(const float *x, i64 n, i64 n_columns, bf16 *out, i64 step) {
    for (i64 i = 0; i < n; i++, x += n_columns, out += step) {
        for (i64 k = 0; k < n_columns; k++) out[k] = (bf16)rounded(wide(out[k]) + x[k]);
    }
}

static float *own_memory(const lora *l) {
    return (float *)l->c.scratch + shared_floats(l) + this_thread() * own_floats(l);
}

static void forward_rows(const void *data, i64 first, i64 last) {
    const lora *l = data;
    const lora_call *c = &l->c;
    const i64 n_kept = filled(l->ranks);
    float *seen = own_memory(l), *low = seen + BLOCK * c->depth, *sums = low + BLOCK * l->r;
    for (i64 row = first; row < last; row += BLOCK) {
        const i64 n = least(last - row, BLOCK);
        read_seen(c, row, n, 0, c->depth, seen);
        multiply_all((left){seen, c->depth, 1}, l->down, l->r, n, c->depth, in_lanes(l->ranks), low, l->r, 0);
        keep_low(low, n, l->r, l->ranks, c->low + row * n_kept, n_kept);
        for (i64 i = 0; i < c->layers; i++) {
            const i64 at = i * l->share;
            multiply_all((left){low + i * c->rank, l->r, 1}, l->up + at, c->width, n, c->rank, l->share, sums + at, c->width, 0);
        }
        add_rows(sums, n, c->width, c->y + row * c->y_step, c->y_step);
    }
}

void lora_forward_in_vectors(const lora_call *c, int threads) {
    lora l = lora_of(c);
    l.down = (float *)c->scratch;
    l.up = l.down + l.r * c->depth;
    copy_turned(c->down, c->depth, l.ranks, l.down, l.r);
    copy_turned(c->up, c->rank, c->width, l.up, c->width);
    in_parallel(forward_rows, &l, c->n_rows, BLOCK, threads);
}

/* Adds rows after dropout's mask, or writes them. */
FAST static void write_dx(const lora_call *c, const float *x, i64 row, i64 n, float *kept) {
    for (i64 i = 0; i < n; i++, x += c->depth) {
        const i64 at = (row + i) * c->depth;
        bf16 *dx = c->dx + at;
        if (c->least) read_mask((word)(at / 2), c->depth, c->seed, c->least, kept);
        for (i64 k = 0; k < c->depth; k++) {
            const float value = c->least ? x[k] * kept[k] : x[k];
            dx[k] = (bf16)rounded(c->adds ? wide(dx[k]) + value : value);
        }
    }
}

static void backward_rows(const void *data, i64 first, i64 last) {
    const lora *l = data;
    const lora_call *c = &l->c;
    const i64 n_kept = filled(l->ranks);
    float *grads = own_memory(l), *sums = grads + BLOCK * c->width, *kept = sums + BLOCK * c->depth;
    for (i64 row = first; row < last; row += BLOCK) {
        const i64 n = least(last - row, BLOCK);
        float *dlow = l->dlow + row * l->r;
        read_rows(c->y + row * c->y_step, c->y_step, n, c->width, grads);
        for (i64 i = 0; i < c->layers; i++) {
            const i64 at = i * l->share;
            multiply_all((left){grads + at, c->width, 1}, l->up + at * l->wide, l->wide, n, l->share, l->wide,
                         dlow + i * c->rank, l->r, 0);
        }
        for (i64 i = 0; i < n; i++) read_rows(c->low + (row + i) * n_kept, 0, 1, l->ranks, l->low + (row + i) * l->r);
        if (!c->dx) continue;
        multiply_all((left){dlow, l->r, 1}, l->down, c->depth, n, l->ranks, c->depth, sums, c->depth, 0);
        write_dx(c, sums, row, n, kept);
    }
}

/* Columns of the factors' gradients: low rows, as columns, times rows of x or of y's gradient. */
static void columns_over_rows(const lora *l, i64 first, i64 last, int of_x) {
    const lora_call *c = &l->c;
    const i64 n_columns = of_x ? c->depth : c->width, share = of_x ? c->depth : l->share;
    float strip[BLOCK * STRIP], *out = of_x ? c->ddown : c->dup;
    i64 n_wide;
    for (i64 column = first; column < last; column += n_wide) {
        const i64 number = column / share; /* 0 for x, whose columns all ranks see */
        const float *low = of_x ? l->dlow : l->low + number * c->rank;
        n_wide = least(least(last, (number + 1) * share) - column, STRIP);
        for (i64 row = 0; row < c->n_rows; row += BLOCK) {
            const i64 n = least(c->n_rows - row, BLOCK);
            if (of_x) read_seen(c, row, n, column, n_wide, strip);
            else read_rows(c->y + row * c->y_step + column, c->y_step, n, n_wide, strip);
            const left turned = {low + row * l->r, 1, l->r};
            multiply_all(turned, strip, n_wide, of_x ? l->ranks : c->rank, n, n_wide, out + column, n_columns, row > 0);
        }
    }
}

static void down_columns(const void *data, i64 first, i64 last) { columns_over_rows(data, first, last, 1); }
static void up_columns(const void *data, i64 first, i64 last) { columns_over_rows(data, first, last, 0); }

void lora_backward_in_vectors(const lora_call *c, int threads) {
    lora l = lora_of(c);
    l.down = (float *)c->scratch;
    l.up = l.down + l.r * c->depth;
    l.low = l.up + l.wide * c->width;
    l.dlow = l.low + l.r * c->n_rows;
    copy_matrix(c->down, l.ranks, c->depth, l.down, c->depth);
    copy_matrix(c->up, c->width, c->rank, l.up, l.wide);
    in_parallel(backward_rows, &l, c->n_rows, BLOCK, threads);
    in_parallel(down_columns, &l, c->depth, STRIP, threads);
    in_parallel(up_columns, &l, c->width, STRIP, threads);
}

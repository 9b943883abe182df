/* A layer in float32 in one call, if nothing trains and nothing is dropped: short batches are bound by calls, and by the
 * copies that libraries make of weights for a few rows. whole_layers.py fills the structures.
 *
 * A matrix here has a line for each feature and a column for each token. So weights are read as they are, once, and
 * norms and softmax are sums over lines. An element's terms are added in one order: a token's result depends on nothing
 * but its text, in any batch that is computed here and with any number of threads.
 */
#include <string.h>

#include "layer.h"
#include "vectors.h"

#define BLOCK 48 /* lines of a weight that stay in the L2 cache while columns pass by */
#define GRAIN 12 /* a thread's lines are a multiple: TALL of AVX-512 */

typedef struct {
    const layer *l;
    const batch *b;
    i64 n, step, n_asked, asked_step, head; /* tokens; columns of their matrices, whole LANES; the same of queries; of a head */
    float *x, *firsts, *asked, *heads, *mixed, *sums, *normed, *inner, *low, *numbers, *rest; /* numbers: 3 a column */
    i64 n_rest, size; /* floats of each thread; of all */
} work;

/* Where everything is, from `scratch` on. Vectors read up to LANES behind a matrix, 0 or another text's columns: what
 * they make of it is not kept. */
static work work_of(const layer *l, const batch *b, float *scratch) {
    const i64 width = l->output.width, step = in_lanes(b->n_rows), n_asked = l->is_last ? b->n_texts : b->n_rows;
    work w = {
        .l = l, .b = b, .n = b->n_rows, .step = step, .n_asked = n_asked, .asked_step = in_lanes(n_asked), .head = width / b->n_heads,
    };
    const site *const sites[] = {&l->inputs, &l->output, &l->ffn_in, &l->ffn_out, &l->firsts};
    i64 rank = 0;
    for (int i = 0; i < 4 + l->is_last; i++) rank = more(rank, sites[i]->rank * sites[i]->layers);
    w.n_rest = (b->longest + w.head + 2) * in_lanes(b->longest); /* scores, what they mix, tops and sums */
    float **const places[] = {&w.x, &w.firsts, &w.asked, &w.heads, &w.mixed, &w.sums, &w.normed, &w.inner, &w.low, &w.numbers, &w.rest};
    const i64 of_firsts = l->is_last ? width * w.asked_step : 0;
    const i64 sizes[] = {
        width * step, of_firsts, of_firsts, l->inputs.width * step, width * w.asked_step, width * w.asked_step,
        width * w.asked_step, l->ffn_in.width * w.asked_step, rank * step, 3 * step, b->threads * w.n_rest,
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        *places[i] = scratch ? scratch + w.size : 0;
        if (scratch) memset(scratch + w.size + sizes[i], 0, LANES * sizeof *scratch);
        w.size += sizes[i] + LANES;
    }
    return w;
}

i64 layer_in_floats_scratch(const layer *l, const batch *b) { return 4 * work_of(l, b, 0).size; }

/* ---- products ---- */

typedef struct {
    const site *s;
    const float *x; /* [depth, step] */
    float *low, *y; /* [all ranks, step], [width, step] */
    i64 step;
    int is_gelu;
} product;

/* x Phi(x), and Phi by erfc to within 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26): that of kernels.c is only good enough
 * for bfloat16. */
static inline float exact_gelu(float x) {
    const float z = (x < 0.0f ? -x : x) * 0.70710678f, t = 1.0f / (1.0f + 0.3275911f * z);
    const float terms = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    const float tail = 0.5f * terms * power_of_2(-LOG2_E * z * z);
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

FAST static void gelu_lines(float *y, i64 n) {
    for (i64 i = 0; i < n; i++) y[i] = exact_gelu(y[i]);
}

static void low_body(const void *data, i64 first, i64 last) {
    const product *p = data;
    const i64 depth = p->s->depth;
    multiply_all((left){p->s->down + first * depth, depth, 1}, p->x, p->step, last - first, depth, p->step,
                 p->low + first * p->step, p->step, 0);
}

/* Adds LoRA's part to lines of the product, those of one layer after the other. */
static void add_lora(const product *p, i64 first, i64 last) {
    const site *s = p->s;
    const i64 share = s->columns / (s->layers ? s->layers : 1), end = least(last, s->first + s->columns);
    for (i64 line = more(first, s->first), next; line < end; line = next) {
        const i64 i = (line - s->first) / share;
        next = least(end, s->first + (i + 1) * share);
        multiply_all((left){s->up + (line - s->first) * s->rank, s->rank, 1}, p->low + i * s->rank * p->step, p->step,
                     next - line, s->rank, p->step, p->y + line * p->step, p->step, 1);
    }
}

static void product_body(const void *data, i64 first, i64 last) {
    const product *p = data;
    const i64 depth = p->s->depth, step = p->step;
    const float *weight = p->s->weight, *bias = p->s->bias;
    for (i64 line = first; line < last; line += BLOCK) {
        const i64 n = least(last - line, BLOCK);
        float *y = p->y + line * step;
        for (i64 i = 0; i < n; i++) {
            for (i64 j = 0; j < step; j++) y[i * step + j] = bias ? bias[line + i] : 0.0f;
        }
        multiply_all((left){weight + line * depth, depth, 1}, p->x, step, n, depth, step, y, step, 1);
        if (p->s->rank) add_lora(p, line, line + n);
        if (p->is_gelu) gelu_lines(y, n * step);
    }
}

static void project(const work *w, const site *s, const float *x, float *y, i64 step, int is_gelu) {
    const product p = {s, x, w->low, y, step, is_gelu};
    if (s->rank) in_parallel(low_body, &p, s->rank * s->layers, GRAIN, (int)w->b->threads);
    in_parallel(product_body, &p, s->width, GRAIN, (int)w->b->threads);
}

/* ---- attention ---- */

/* Weights of queries (columns), not yet divided by their sums, from scores [keys, columns]. */
FAST static void weigh(float *scores, i64 n_keys, i64 n_columns, float scale, const float *relative, i64 relative_step,
                       i64 n_asked, float *tops, float *sums) {
    for (i64 q = 0; q < n_columns; q++) tops[q] = -INFINITY, sums[q] = 0.0f;
    for (i64 key = 0; key < n_keys; key++) {
        float *of_key = scores + key * n_columns;
        for (i64 q = 0; q < n_columns; q++) of_key[q] *= scale * LOG2_E;
        for (i64 q = 0; relative && q < n_asked; q++) of_key[q] += LOG2_E * relative[key * relative_step + q];
        for (i64 q = 0; q < n_columns; q++) tops[q] = of_key[q] > tops[q] ? of_key[q] : tops[q];
    }
    for (i64 key = 0; key < n_keys; key++) {
        float *of_key = scores + key * n_columns;
        for (i64 q = 0; q < n_columns; q++) {
            of_key[q] = power_of_2(of_key[q] - tops[q]);
            sums[q] += of_key[q];
        }
    }
}

static void attend_text(const work *w, i64 text, i64 head) {
    const batch *b = w->b;
    const i64 is_last = w->l->is_last, row = b->bounds[text], n = b->bounds[text + 1] - row, width = w->l->output.width;
    const i64 first = is_last ? text : row, n_asked = is_last ? 1 : n, n_columns = in_lanes(n_asked);
    const i64 query_step = is_last ? w->asked_step : w->step, line = head * w->head;
    const float *queries = (is_last ? w->asked : w->heads) + line * query_step + first;
    const float *keys = w->heads + ((is_last ? 0 : width) + line) * w->step + row, *values = keys + width * w->step;
    const float *relative = b->relative ? (const float *)b->relative + head * b->longest * b->longest : 0;
    float *scores = w->rest + this_thread() * w->n_rest, *mixed = scores + n * n_columns;
    float *tops = mixed + w->head * n_columns, *sums = tops + n_columns;
    multiply_all((left){keys, 1, w->step}, queries, query_step, n, w->head, n_columns, scores, n_columns, 0);
    weigh(scores, n, n_columns, 1.0f / sqrtf((float)w->head), relative, b->longest, n_asked, tops, sums);
    multiply_all((left){values, w->step, 1}, scores, n_columns, w->head, n, n_columns, mixed, n_columns, 0);
    for (i64 i = 0; i < w->head; i++) {
        float *out = w->mixed + (line + i) * w->asked_step + first;
        for (i64 q = 0; q < n_asked; q++) out[q] = mixed[i * n_columns + q] / sums[q];
    }
}

static void attend_body(const void *data, i64 first, i64 last) {
    const work *w = data;
    for (i64 i = first; i < last; i++) attend_text(w, i % w->b->n_texts, i / w->b->n_texts);
}

/* ---- norms ---- */

typedef struct { const norm_of *of; const float *y, *residual; float *out, *numbers; i64 width, step; } norm_args;

/* The norm of y plus residual, for some columns; numbers: the mean and 1 / deviation of each, and what its mean is off by,
 * a sum of many floats. A variance that is not finite makes a column NaN, as its model has diverged. */
FAST static void norm_body(const void *data, i64 first, i64 last) {
    const norm_args *a = data;
    float *mean = a->numbers, *scale = mean + a->step, *off = scale + a->step;
    for (i64 j = first; j < last; j++) mean[j] = scale[j] = off[j] = 0.0f;
    for (i64 i = 0; i < a->width; i++) {
        const float *y = a->y + i * a->step, *residual = a->residual + i * a->step;
        float *out = a->out + i * a->step;
#pragma omp simd /* out may be y */
        for (i64 j = first; j < last; j++) {
            out[j] = y[j] + residual[j];
            mean[j] += out[j];
        }
    }
    for (i64 j = first; j < last; j++) mean[j] /= (float)a->width;
    for (i64 i = 0; i < a->width; i++) {
        const float *out = a->out + i * a->step;
#pragma omp simd
        for (i64 j = first; j < last; j++) {
            off[j] += out[j] - mean[j];
            scale[j] += (out[j] - mean[j]) * (out[j] - mean[j]);
        }
    }
    for (i64 j = first; j < last; j++) {
        off[j] /= (float)a->width;
        mean[j] += off[j];
        const float variance = scale[j] / (float)a->width - off[j] * off[j];
        scale[j] = variance < INFINITY ? 1.0f / sqrtf(variance + (float)a->of->eps) : NAN;
    }
    for (i64 i = 0; i < a->width; i++) {
        float *out = a->out + i * a->step;
        const float weight = a->of->weight[i], bias = a->of->bias[i];
#pragma omp simd
        for (i64 j = first; j < last; j++) out[j] = (out[j] - mean[j]) * scale[j] * weight + bias;
    }
}

static void norm(const work *w, const norm_of *of, const float *y, const float *residual, float *out) {
    const norm_args a = {of, y, residual, out, w->numbers, w->l->output.width, w->asked_step};
    in_parallel(norm_body, &a, w->asked_step, LANES, (int)w->b->threads);
}

/* ---- the layer ---- */

/* Rows [n, width] as columns; those behind the last row are 0. */
FAST static void turn_in(const float *x, i64 n, i64 width, float *out, i64 step) {
    for (i64 i = 0; i < width; i++) {
        for (i64 j = 0; j < n; j++) out[i * step + j] = x[j * width + i];
        for (i64 j = n; j < step; j++) out[i * step + j] = 0.0f;
    }
}

FAST static void turn_out(const float *x, i64 n, i64 width, float *out, i64 step) {
    for (i64 j = 0; j < n; j++) {
        for (i64 i = 0; i < width; i++) out[j * width + i] = x[i * step + j];
    }
}

/* x: [rows, width] · out: the same for the next layer, or of first tokens, [texts, width]. */
void layer_in_floats(const layer *l, const batch *b, const float *x, float *out, float *scratch) {
    const work w = work_of(l, b, scratch);
    const i64 width = l->output.width;
    const float *residual = w.x;
    turn_in(x, w.n, width, w.x, w.step);
    if (l->is_last) {
        for (i64 i = 0; i < width; i++) {
            for (i64 j = 0; j < w.asked_step; j++) {
                w.firsts[i * w.asked_step + j] = j < b->n_texts ? w.x[i * w.step + b->bounds[j]] : 0.0f;
            }
        }
        project(&w, &l->firsts, residual = w.firsts, w.asked, w.asked_step, 0);
    }
    project(&w, &l->inputs, w.x, w.heads, w.step, 0);
    memset(w.mixed, 0, (size_t)(width * w.asked_step) * sizeof *w.mixed); /* columns of no text stay 0 */
    in_parallel(attend_body, &w, b->n_texts * b->n_heads, 1, (int)b->threads);
    project(&w, &l->output, w.mixed, w.sums, w.asked_step, 0);
    norm(&w, &l->attention_norm, w.sums, residual, w.normed);
    project(&w, &l->ffn_in, w.normed, w.inner, w.asked_step, 1);
    project(&w, &l->ffn_out, w.inner, w.sums, w.asked_step, 0);
    norm(&w, &l->ffn_norm, w.sums, w.normed, w.sums);
    turn_out(w.sums, w.n_asked, width, out, w.asked_step);
}

/* A layer in one call, where nothing trains and nothing is dropped: short batches are bound by calls. It calls what Python
 * would call step by step, in the same order, so that all results are equal to the bit. whole_layers.py gives what is here.
 */
#include <stddef.h>

#include "calls.h"
#include "words.h"

/* A frozen weight [depth, width] in int8, packed, and LoRA that reaches `columns` columns from `first` on; rank 0: none. */
typedef struct {
    const void *weight;
    const float *scales;
    const bf16 *factors; /* of the input's columns, or NULL */
    const bf16 *bias;    /* or NULL */
    const float *down, *up;
    i64 depth, width, rank, first, columns;
} site;

typedef struct {
    site inputs, output, ffn_in, ffn_out; /* inputs: query, key and value */
    struct { const float *weight, *bias; double eps; } attention_norm, ffn_norm;
} layer;

typedef struct {
    const i64 *bounds;
    const bf16 *relative;
    i64 n_texts, n_heads, n_rows, longest, threads;
} batch;

/* Where things lie in the scratch memory, in bytes from its beginning. */
typedef struct { i64 heads, mixed, sums, normed, inner, scaled, low, numbers, rest, size; } places;

static i64 more(i64 a, i64 b) { return a > b ? a : b; }

static i64 for_lora(const site *s, const batch *b) {
    return s->rank ? lora_scratch(b->n_rows, s->depth, s->columns, s->rank, (int)b->threads, 0) : 0;
}

static places places_of(const layer *l, const batch *b) {
    const i64 width = l->output.width, n_bf16 = 2 * b->n_rows;
    const site *const sites[] = {&l->inputs, &l->output, &l->ffn_in, &l->ffn_out};
    i64 rank = 0, scaled = 0, rest = b->threads * attention_scratch(b->longest, width / b->n_heads, 0, 0), at = 0;
    for (int i = 0; i < 4; i++) {
        rank = more(rank, filled(sites[i]->rank));
        if (sites[i]->factors) scaled = more(scaled, sites[i]->depth);
        rest = more(rest, for_lora(sites[i], b));
    }
    const i64 sizes[] = {
        n_bf16 * l->inputs.width, n_bf16 * width, n_bf16 * width, n_bf16 * width, n_bf16 * l->ffn_in.width, n_bf16 * scaled,
        n_bf16 * rank, 4 * b->n_rows * more(b->n_heads, 2), rest,
    };
    i64 found[9];
    for (int i = 0; i < 9; i++) {
        found[i] = at;
        at += (sizes[i] + 63) / 64 * 64;
    }
    return (places){found[0], found[1], found[2], found[3], found[4], found[5], found[6], found[7], found[8], at};
}

i64 layer_scratch(const layer *l, const batch *b) { return places_of(l, b).size; }

typedef struct { const word *x, *factors; word *out; i64 n_words; } scale_args;

/* As torch multiplies: in float32, rounded. */
FAST static void scale_rows(const void *data, i64 first, i64 last) {
    const scale_args *a = data;
    for (i64 row = first; row < last; row++) {
        const word *x = a->x + row * a->n_words;
        word *out = a->out + row * a->n_words;
#pragma omp simd
        for (i64 i = 0; i < a->n_words; i++) {
            out[i] = both(low(x[i]) * low(a->factors[i]), high(x[i]) * high(a->factors[i]));
        }
    }
}

static void project(const site *s, const batch *b, const bf16 *x, bf16 *y, const places *p, char *scratch) {
    const bf16 *from = x;
    const int threads = (int)b->threads;
    if (s->factors) {
        scale_args a = {(const word *)x, (const word *)s->factors, (word *)(scratch + p->scaled), s->depth / 2};
        in_parallel(scale_rows, &a, b->n_rows, 1, threads);
        from = (const bf16 *)(scratch + p->scaled);
    }
    multiply(from, s->depth, s->weight, s->bias, NULL, y, b->n_rows, s->width, s->depth / 2, NULL, s->scales, threads, 0);
    if (s->rank) {
        lora_forward(x, y + s->first, s->width, s->down, s->up, (bf16 *)(scratch + p->low), scratch + p->rest, b->n_rows,
                     s->depth, s->columns, s->rank, 0, 0, threads, 0);
    }
}

/* x: [rows, width] · out: the same for the next layer. */
void whole_layer(const layer *l, const batch *b, const bf16 *x, bf16 *out, char *scratch) {
    const i64 width = l->output.width, n = b->n_rows;
    const int threads = (int)b->threads;
    const places p = places_of(l, b);
    bf16 *heads = (bf16 *)(scratch + p.heads), *mixed = (bf16 *)(scratch + p.mixed), *sums = (bf16 *)(scratch + p.sums);
    bf16 *normed = (bf16 *)(scratch + p.normed), *inner = (bf16 *)(scratch + p.inner);
    float *numbers = (float *)(scratch + p.numbers); /* lse; mean and 1 / deviation */
    project(&l->inputs, b, x, heads, &p, scratch);
    attend(heads, 3 * width, heads + width, 3 * width, b->bounds, b->relative, mixed, numbers, scratch + p.rest, b->n_texts,
           b->n_heads, width / b->n_heads, n, b->longest, 0, 1.0f, 0, 0, threads, 0);
    project(&l->output, b, mixed, sums, &p, scratch);
    add_norm((word *)sums, (const word *)x, l->attention_norm.weight, l->attention_norm.bias, (word *)normed, numbers,
             numbers + n, n, width, (float)l->attention_norm.eps, 1.0f, 0, 0, threads);
    project(&l->ffn_in, b, normed, inner, &p, scratch);
    gelu((const word *)inner, (word *)inner, n * l->ffn_in.width / 2, threads);
    project(&l->ffn_out, b, inner, sums, &p, scratch);
    add_norm((word *)sums, (const word *)normed, l->ffn_norm.weight, l->ffn_norm.bias, (word *)out, numbers, numbers + n,
             n, width, (float)l->ffn_norm.eps, 1.0f, 0, 0, threads);
}

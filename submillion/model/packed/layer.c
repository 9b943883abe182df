/* A layer in one call, if nothing trains and nothing is dropped: short batches are bound by calls. It makes the calls
 * that Python would make, in the same order, so all results are equal to the bit. whole_layers.py fills the structures.
 */
#include <stddef.h>
#include <string.h>

#include "layer.h"
#include "words.h"

/* Offsets into the scratch memory, in bytes, in the order of `sizes` below. */
typedef struct { i64 firsts, asked, heads, mixed, sums, normed, inner, scaled, low, numbers, rest, size; } places;

static i64 for_lora(const site *s, const batch *b) {
    return s->rank ? lora_scratch(b->n_rows, s->depth, s->columns, s->rank, s->layers, (int)b->threads, 0) : 0;
}

static places places_of(const layer *l, const batch *b) {
    const i64 width = l->output.width, n_bf16 = 2 * b->n_rows;
    const i64 of_firsts = l->is_last ? 2 * b->n_texts * width : 0;
    const i64 of_attention = attention_scratch(b->longest, width / b->n_heads, (int)l->is_last, 0);
    const site *const sites[] = {&l->inputs, &l->output, &l->ffn_in, &l->ffn_out, &l->firsts};
    i64 rank = 0, scaled = 0, rest = b->threads * of_attention, at = 0;
    for (int i = 0; i < 4 + l->is_last; i++) {
        rank = more(rank, filled(sites[i]->rank * sites[i]->layers));
        if (sites[i]->factors) scaled = more(scaled, sites[i]->depth);
        rest = more(rest, for_lora(sites[i], b));
    }
    const i64 sizes[] = {
        of_firsts, of_firsts, n_bf16 * l->inputs.width, n_bf16 * width, n_bf16 * width, n_bf16 * width,
        n_bf16 * l->ffn_in.width, n_bf16 * scaled, n_bf16 * rank, 4 * b->n_rows * more(b->n_heads, 2), rest,
    };
    places found;
    i64 *const all = (i64 *)&found;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        all[i] = at;
        at += (sizes[i] + 63) / 64 * 64;
    }
    found.size = at;
    return found;
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

static void project(const site *s, const batch *b, const bf16 *x, bf16 *y, i64 n_rows, const places *p, char *scratch) {
    const bf16 *from = x;
    const int threads = (int)b->threads;
    if (s->factors) {
        scale_args a = {(const word *)x, (const word *)s->factors, (word *)(scratch + p->scaled), s->depth / 2};
        in_parallel(scale_rows, &a, n_rows, 1, threads);
        from = (const bf16 *)(scratch + p->scaled);
    }
    multiply(from, s->depth, s->weight, s->bias, NULL, y, n_rows, s->width, s->depth / 2, NULL, s->scales, threads, 0);
    if (s->rank) {
        lora_forward(x, y + s->first, s->width, s->down, s->up, (bf16 *)(scratch + p->low), scratch + p->rest, n_rows,
                     s->depth, s->columns, s->rank, s->layers, 0, 0, threads, 0);
    }
}

static void norm(const bf16 *y, const bf16 *residual, const norm_of *of, bf16 *out, float *numbers, i64 n, i64 width,
                 int threads) {
    add_norm((word *)y, (const word *)residual, of->weight, of->bias, (word *)out, numbers, numbers + n, n, width,
             (float)of->eps, 1.0f, 0, 0, threads);
}

/* x: [rows, width] · out: the same for the next layer, or of first tokens, [texts, width]. */
void whole_layer(const layer *l, const batch *b, const bf16 *x, bf16 *out, char *scratch) {
    const int threads = (int)b->threads, is_last = (int)l->is_last;
    const i64 width = l->output.width, step = l->inputs.width, n = is_last ? b->n_texts : b->n_rows;
    const places p = places_of(l, b);
    bf16 *firsts = (bf16 *)(scratch + p.firsts), *asked = (bf16 *)(scratch + p.asked);
    bf16 *heads = (bf16 *)(scratch + p.heads), *mixed = (bf16 *)(scratch + p.mixed), *sums = (bf16 *)(scratch + p.sums);
    bf16 *normed = (bf16 *)(scratch + p.normed), *inner = (bf16 *)(scratch + p.inner);
    float *numbers = (float *)(scratch + p.numbers); /* lse; mean and 1 / deviation */
    if (is_last) {
        for (i64 i = 0; i < n; i++) memcpy(firsts + i * width, x + b->bounds[i] * width, (size_t)width * sizeof *x);
        project(&l->firsts, b, firsts, asked, n, &p, scratch);
    }
    project(&l->inputs, b, x, heads, b->n_rows, &p, scratch);
    attend(is_last ? asked : heads, is_last ? width : step, is_last ? heads : heads + width, step, b->bounds, b->relative,
           mixed, numbers, scratch + p.rest, b->n_texts, b->n_heads, width / b->n_heads, b->n_rows, b->longest, is_last,
           1.0f, 0, 0, threads, 0);
    if (is_last) x = firsts;
    project(&l->output, b, mixed, sums, n, &p, scratch);
    norm(sums, x, &l->attention_norm, normed, numbers, n, width, threads);
    project(&l->ffn_in, b, normed, inner, n, &p, scratch);
    gelu((const word *)inner, (word *)inner, n * l->ffn_in.width / 2, threads);
    project(&l->ffn_out, b, inner, sums, n, &p, scratch);
    norm(sums, normed, &l->ffn_norm, out, numbers, n, width, threads);
}

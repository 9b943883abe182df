/* What whole_layers.py passes to layer.c (int8) and floats.c (float32). */
#ifndef LAYER_H
#define LAYER_H

#include "calls.h"

/* A frozen weight of `width` features made from `depth`, and LoRA that reaches `columns` of them from `first` on; rank
 * 0: none. The weight is packed int8 [depth, width] with `scales`, or float32 [width, depth]. */
typedef struct {
    const void *weight;
    const float *scales;
    const bf16 *factors; /* of the input's columns, or NULL */
    const void *bias;    /* bfloat16 beside int8, else float32; or NULL */
    const float *down, *up;
    i64 depth, width, rank, layers, first, columns;
} site;

typedef struct { const float *weight, *bias; double eps; } norm_of;

typedef struct {
    site firsts, inputs, output, ffn_in, ffn_out;
    i64 is_last; /* 1: `firsts` makes the queries of first tokens, the only rows kept, `inputs` keys and values; 0: all three */
    norm_of attention_norm, ffn_norm;
} layer;

typedef struct {
    const i64 *bounds;
    const void *relative; /* [heads, longest queries, longest keys]; in float32 [heads, longest keys, longest queries] */
    i64 n_texts, n_heads, n_rows, longest, threads;
} batch;

#endif

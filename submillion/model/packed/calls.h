/* What calls.c passes to attention.c, lora.c and products.c (matrix tiles) or vectors.c and integers.c (elsewhere). */
#ifndef CALLS_H
#define CALLS_H

#include <stdint.h>

typedef int64_t i64;
typedef uint16_t bf16;

/* Defined in kernels.c: calls body(args, first, last) over 0 ... n, in parts of a multiple of grain; and the number of
 * the calling thread inside it. */
void in_parallel(void (*body)(const void *, i64, i64), const void *args, i64 n, i64 grain, int threads);
int this_thread(void);

/* What calls.c defines, for Python and for layer.c. */
void multiply(const void *x, i64 x_step, const void *weight, const bf16 *bias, const bf16 *start, bf16 *out, i64 n_rows,
              i64 width, i64 depth, const float *row_scales, const float *column_scales, int threads, int tiles);
void lora_forward(const bf16 *x, bf16 *y, i64 y_step, const float *down, const float *up, bf16 *low, char *scratch,
                  i64 n_rows, i64 depth, i64 width, i64 rank, i64 layers, uint64_t seed, uint32_t least, int threads, int tiles);
i64 lora_scratch(i64 n_rows, i64 depth, i64 width, i64 rank, i64 layers, int threads, int tiles);
void attend(const bf16 *query, i64 query_step, const bf16 *key, i64 key_step, const i64 *bounds, const bf16 *relative,
            bf16 *out, float *lse, char *scratch, i64 n_texts, i64 n_heads, i64 head, i64 n_rows, i64 longest,
            int is_firsts, float factor, uint64_t seed, uint32_t least, int threads, int tiles);
i64 attention_scratch(i64 longest, i64 head, int is_firsts, int tiles);

static inline i64 filled(i64 n) { return (n + 31) / 32 * 32; } /* up to a whole panel of tiles.h */
static inline i64 least(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 more(i64 a, i64 b) { return a > b ? a : b; }

/* Takes n_bytes of the scratch memory. */
static inline void *take(char **scratch, i64 n_bytes) {
    char *at = *scratch;
    *scratch += n_bytes;
    return at;
}

/* Queries and keys of one text and head are rows of `head` elements, which is a multiple of 32. */
typedef struct {
    const bf16 *query, *key; /* of the first row and head; values are `width` elements behind their keys */
    i64 query_step, key_step;
    const i64 *bounds; /* where texts begin and the last one ends */
    const bf16 *relative; /* added to scores [heads, longest, longest], backward on tiles transposed; or NULL */
    bf16 *out;
    float *lse; /* [heads, rows]: the binary logarithm of the sum that the weights were divided by */
    const bf16 *dout;
    bf16 *dquery, *dkey; /* with the steps of `query` and `key` */
    char *scratch;
    i64 n_texts, n_heads, head, n_rows, longest;
    int is_firsts; /* one query for each text, its first token's */
    int wants_scores;
    float factor; /* of what dropout keeps */
    uint64_t seed;
    uint32_t least;
} attention;

static inline i64 n_queries(const attention *a) { return a->is_firsts ? a->n_texts : a->n_rows; }
static inline i64 width(const attention *a) { return a->n_heads * a->head; }

/* The word of a mask [heads, queries, longest] where the weights of a query begin, at the column `key`. */
static inline uint32_t mask_word(const attention *a, i64 head, i64 query, i64 key) {
    return (uint32_t)(((head * n_queries(a) + query) * a->longest + key) / 2);
}

void attend_on_tiles(const attention *a, int threads);
void attend_back_on_tiles(const attention *a, int threads);
i64 attention_scratch_on_tiles(i64 longest, i64 head, int is_firsts);
void attend_in_vectors(const attention *a, int threads);
void attend_back_in_vectors(const attention *a, int threads);
i64 attention_scratch_in_vectors(i64 longest, i64 head);

/* What native_lora.py passes: down [layers * rank, depth] and up [width, rank]. Each layer makes its share of the
 * columns, so that nothing is multiplied by the zeros of a block-diagonal matrix. `low` has layers * rank columns,
 * filled up to a multiple of 32. */
typedef struct {
    const bf16 *x; /* [rows, depth], dense */
    bf16 *y; /* forward: what is added to; backward: its gradient */
    i64 y_step;
    const float *down, *up;
    bf16 *low; /* x times down, after dropout */
    char *scratch;
    i64 n_rows, depth, width, rank, layers;
    uint64_t seed;
    uint32_t least;
    bf16 *dx; /* NULL if it is not wanted */
    int adds; /* to dx, else it is written */
    float *ddown, *dup; /* [low's columns, depth], [filled rank, width] */
} lora_call;

/* What native_products.py passes. */
typedef struct {
    const bf16 *x, *weight, *bias, *start; /* two int8 are a unit; depth counts the weight's units, x_step x's */
    bf16 *out;
    i64 x_step, n_rows, width, depth;
    const float *row_scales, *column_scales; /* of int8, else NULL; in vectors rows have none yet */
} product_call;

void multiply_on_tiles(const product_call *c, int threads);
void multiply_in_vectors(const product_call *c, int threads);

void lora_forward_on_tiles(const lora_call *c, int threads);
void lora_backward_on_tiles(const lora_call *c, int threads);
i64 lora_scratch_on_tiles(i64 n_rows, i64 depth, i64 width, i64 rank, int threads);
void lora_forward_in_vectors(const lora_call *c, int threads);
void lora_backward_in_vectors(const lora_call *c, int threads);
i64 lora_scratch_in_vectors(i64 n_rows, i64 depth, i64 width, i64 rank, i64 layers, int threads);

#endif

/* Attention, LoRA's products and products with frozen weights, for native_attention.py, native_lora.py and
 * native_products.py: on matrix tiles if `tiles` says that the processor has them, else in vectors.
 */
#include <string.h>

#include "calls.h"

#define ATTENTION_PARAMETERS                                                                                             \
    const bf16 *query, i64 query_step, const bf16 *key, i64 key_step, const i64 *bounds, const bf16 *relative, bf16 *out, \
        float *lse, char *scratch, i64 n_texts, i64 n_heads, i64 head, i64 n_rows, i64 longest, int is_firsts,            \
        float factor, uint64_t seed, uint32_t least, int threads, int tiles
#define GIVEN_ATTENTION                                                                                                  \
    .query = query, .query_step = query_step, .key = key, .key_step = key_step, .bounds = bounds, .relative = relative,   \
    .out = out, .lse = lse, .scratch = scratch, .n_texts = n_texts, .n_heads = n_heads, .head = head, .n_rows = n_rows,   \
    .longest = longest, .is_firsts = is_firsts, .factor = factor, .seed = seed, .least = least
#define LORA_PARAMETERS                                                                                                  \
    const bf16 *x, bf16 *y, i64 y_step, const float *down, const float *up, bf16 *low, char *scratch, i64 n_rows,         \
        i64 depth, i64 width, i64 rank, i64 layers, uint64_t seed, uint32_t least, int threads, int tiles
#define GIVEN_LORA                                                                                                       \
    .x = x, .y = y, .y_step = y_step, .down = down, .up = up, .low = low, .scratch = scratch, .n_rows = n_rows,           \
    .depth = depth, .width = width, .rank = rank, .layers = layers, .seed = seed, .least = least

/* Bytes for each thread: `longest` is the number of keys that no text exceeds. */
i64 attention_scratch(i64 longest, i64 head, int is_firsts, int tiles) {
    return tiles ? attention_scratch_on_tiles(longest, head, is_firsts) : attention_scratch_in_vectors(longest, head);
}

/* Rows of no text get 0. */
static void clear_rest(const attention *a, bf16 *rows, i64 step) {
    const i64 end = a->bounds[a->n_texts];
    memset(rows + end * step, 0, (size_t)(2 * (a->n_rows - end) * step));
}

void attend(ATTENTION_PARAMETERS) {
    const attention a = {GIVEN_ATTENTION};
    (tiles ? attend_on_tiles : attend_in_vectors)(&a, threads);
    if (!is_firsts) clear_rest(&a, out, width(&a));
}

/* out and lse: what `attend` wrote. Rows are dense: if they hold queries, they begin with those, else with the keys. */
void attend_backward(ATTENTION_PARAMETERS, const bf16 *dout, bf16 *dquery, bf16 *dkey, int wants_scores) {
    const attention a = {
        GIVEN_ATTENTION, .dout = dout, .dquery = dquery, .dkey = dkey, .wants_scores = wants_scores,
    };
    (tiles ? attend_back_on_tiles : attend_back_in_vectors)(&a, threads);
    clear_rest(&a, is_firsts ? dkey : dquery, key_step);
}

/* Bytes of memory that both functions need. Factors of several layers are stacked only in vectors. */
i64 lora_scratch(i64 n_rows, i64 depth, i64 width, i64 rank, i64 layers, int threads, int tiles) {
    return tiles ? lora_scratch_on_tiles(n_rows, depth, width, rank, threads)
                 : lora_scratch_in_vectors(n_rows, depth, width, rank, layers, threads);
}

void lora_forward(LORA_PARAMETERS) {
    const lora_call c = {GIVEN_LORA};
    (tiles ? lora_forward_on_tiles : lora_forward_in_vectors)(&c, threads);
}

void lora_backward(LORA_PARAMETERS, bf16 *dx, int adds, float *ddown, float *dup) {
    const lora_call c = {GIVEN_LORA, .dx = dx, .adds = adds, .ddown = ddown, .dup = dup};
    (tiles ? lora_backward_on_tiles : lora_backward_in_vectors)(&c, threads);
}

/* `out` may be `start`. In vectors only for a weight in int8, with rows in bfloat16. */
void multiply(const void *x, i64 x_step, const void *weight, const bf16 *bias, const bf16 *start, bf16 *out, i64 n_rows,
              i64 width, i64 depth, const float *row_scales, const float *column_scales, int threads, int tiles) {
    const product_call c = {x, weight, bias, start, out, x_step, n_rows, width, depth, row_scales, column_scales};
    (tiles ? multiply_on_tiles : multiply_in_vectors)(&c, threads);
}

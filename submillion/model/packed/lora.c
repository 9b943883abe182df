/* The small products of LoRA in bfloat16, forward and backward, on processors with matrix tiles (Intel AMX): one call
 * per direction in place of two and four products, dropout's passes and casts. Dropout's mask is computed wherever rows
 * are read, so only x itself and the low rows are kept.
 *
 * Sums are float32. Each element's terms are added in one order whatever the number of threads, and a row's result does
 * not depend on other rows. native_lora.py says what the functions compute.
 *
 * `rank` is filled up to a multiple of 32 with 0. Widths are multiples of 32.
 */
#include "tiles.h"

typedef struct {
    const bf16 *x; /* [rows, depth], dense */
    bf16 *y; /* forward: what is added to; backward: its gradient */
    i64 y_step;
    bf16 *low; /* [rows, rank]: x times down, after dropout */
    bf16 *dx;
    int adds; /* to dx, else it is written */
    i64 n_rows, depth, width, rank;
    uint64_t seed;
    uint32_t least;
    const bf16 *down, *up; /* panels */
    bf16 *turned_low, *turned_dlow; /* left sides of the products over rows */
    char *scratch;
} lora;

static i64 own_bytes(i64 depth, i64 width, i64 rank) {
    return 2 * DEPTH * (depth + rank) + 4 * DEPTH * (rank + (depth > width ? depth : width));
}

i64 lora_scratch_on_tiles(i64 n_rows, i64 depth, i64 width, i64 rank, int threads) {
    i64 r = filled(rank);
    return 4 * r * (depth + width) + 4 * r * filled(n_rows) + threads * own_bytes(depth, width, r);
}

#ifdef HAS_TILES

/* Rows of floats, filled up with 0 to `step` elements. */
TILES static void rounded_rows(const float *x, i64 n_rows, i64 width, i64 step, bf16 *out) {
    for (i64 row = 0; row < n_rows; row++) {
        for (i64 k = 0; k < step; k += 16) {
            __m512 part = _mm512_maskz_loadu_ps(among(width - k), x + row * width + k);
            _mm256_storeu_si256((void *)(out + row * step + k), half(part));
        }
    }
}

/* 32 elements of x after dropout, as in `drop` of kernels.c. */
TILES static inline __m512i seen(const lora *a, i64 row, i64 k) {
    const i64 at = row * a->depth + k;
    __m512i x = _mm512_loadu_si512(a->x + at);
    if (!a->least) return x;
    return _mm512_maskz_mov_epi16(kept_halves((uint32_t)(at / 2), a->seed, a->least), x);
}

/* Rows of x after dropout: in place, or in `out`. */
TILES static const bf16 *seen_rows(const lora *a, i64 row, i64 n, bf16 *out) {
    if (!a->least) return a->x + row * a->depth;
    for (i64 i = 0; i < n; i++) {
        for (i64 k = 0; k < a->depth; k += DEPTH) _mm512_storeu_si512(out + i * a->depth + k, seen(a, row + i, k));
    }
    return out;
}

TILES static void add_rows(const float *x, i64 n, i64 width, bf16 *out, i64 step) {
    for (i64 i = 0; i < n; i++) {
        for (i64 k = 0; k < width; k += DEPTH) {
            bf16 *at = out + i * step + k;
            __m512 first = _mm512_add_ps(widened(at), _mm512_loadu_ps(x + i * width + k));
            __m512 second = _mm512_add_ps(widened(at + 16), _mm512_loadu_ps(x + i * width + k + 16));
            _mm512_storeu_si512(at, halves(first, second));
        }
    }
}

/* Adds rows after dropout's mask, or writes them. */
TILES static void write_dx(const lora *a, const float *x, i64 row, i64 n) {
    const __m512 zero = _mm512_setzero_ps();
    for (i64 i = 0; i < n; i++) {
        for (i64 k = 0; k < a->depth; k += DEPTH) {
            const i64 at = (row + i) * a->depth + k;
            __m512 first = _mm512_loadu_ps(x + i * a->depth + k), second = _mm512_loadu_ps(x + i * a->depth + k + 16);
            if (a->least) {
                __m512i kept = _mm512_maskz_set1_epi16(kept_halves((uint32_t)(at / 2), a->seed, a->least), -1);
                __m256i lower = _mm512_castsi512_si256(kept), upper = _mm512_extracti64x4_epi64(kept, 1);
                first = _mm512_maskz_mov_ps(_mm256_movepi16_mask(lower), first);
                second = _mm512_maskz_mov_ps(_mm256_movepi16_mask(upper), second);
            }
            first = _mm512_add_ps(first, a->adds ? widened(a->dx + at) : zero);
            second = _mm512_add_ps(second, a->adds ? widened(a->dx + at + 16) : zero);
            _mm512_storeu_si512(a->dx + at, halves(first, second));
        }
    }
}

typedef struct { bf16 *seen, *low; float *low_sums, *sums; } buffers;

static buffers own_buffers(const lora *a) {
    char *scratch = a->scratch + this_thread() * own_bytes(a->depth, a->width, a->rank);
    return (buffers){
        .seen = take(&scratch, 2 * DEPTH * a->depth),
        .low = take(&scratch, 2 * DEPTH * a->rank),
        .low_sums = take(&scratch, 4 * DEPTH * a->rank),
        .sums = (float *)scratch,
    };
}

TILES static void forward_rows(const void *data, i64 first, i64 last) {
    const lora *a = data;
    const buffers b = own_buffers(a);
    const float one = 1.0f;
    for (i64 row = first; row < last; row += DEPTH) {
        const i64 n = least(last - row, DEPTH);
        bf16 *low = a->low + row * a->rank;
        shape_tiles(n);
        product(rows_of(seen_rows(a, row, n, b.seen), a->depth, n), a->depth, a->down, a->depth * DEPTH, a->rank, b.low_sums, 0);
        write_rows(b.low_sums, n, a->rank, &one, 0, low, a->rank);
        product(rows_of(low, a->rank, n), a->rank, a->up, a->rank * DEPTH, a->width, b.sums, 0);
        add_rows(b.sums, n, a->width, a->y + row * a->y_step, a->y_step);
    }
    _tile_release();
}

/* n rows of low elements as the left side of a product over rows: [rank, 32], tile below tile. */
TILES static void turn_low(const bf16 *low, i64 rank, i64 n, bf16 *out) {
    for (i64 r = 0; r < rank; r += 16) {
        __m512i pairs[16];
        for (i64 pair = 0; pair < 16; pair++) {
            const __m256i zero = _mm256_setzero_si256();
            const bf16 *at = low + 2 * pair * rank + r;
            pairs[pair] = in_turn(
                2 * pair < n ? _mm256_loadu_si256((const void *)at) : zero,
                2 * pair + 1 < n ? _mm256_loadu_si256((const void *)(at + rank)) : zero);
        }
        turn_tile(pairs, out + r * DEPTH);
    }
}

TILES static void backward_rows(const void *data, i64 first, i64 last) {
    const lora *a = data;
    const buffers b = own_buffers(a);
    const float one = 1.0f;
    for (i64 row = first; row < last; row += DEPTH) {
        const i64 n = least(last - row, DEPTH);
        shape_tiles(n);
        product(rows_of(a->y + row * a->y_step, a->y_step, n), a->width, a->up, a->width * DEPTH, a->rank, b.low_sums, 0);
        write_rows(b.low_sums, n, a->rank, &one, 0, b.low, a->rank);
        if (a->dx) {
            product(rows_of(b.low, a->rank, n), a->rank, a->down, a->rank * DEPTH, a->depth, b.sums, 0);
            write_dx(a, b.sums, row, n);
        }
        turn_low(b.low, a->rank, n, a->turned_dlow + row * a->rank);
        turn_low(a->low + row * a->rank, a->rank, n, a->turned_low + row * a->rank);
    }
    _tile_release();
}

#define AHEAD (2 * DEPTH) /* rows */

/* ---- products over rows: [rank, rows] times [rows, columns], some columns ---- */

typedef struct { const lora *a; const bf16 *rows; i64 step, n_columns; const bf16 *turned; float *out; int drops; } over_rows;

TILES static void columns_over_rows(const void *data, i64 first, i64 last) {
    const over_rows *o = data;
    const lora *a = o->a;
    bf16 panel[2 * TILE] __attribute__((aligned(64))), dropped[DEPTH * DEPTH];
    shape_tiles(DEPTH);
    for (i64 column = first; column < last; column += DEPTH) {
        for (i64 r = 0; r < a->rank; r += DEPTH) {
            float *out = o->out + r * o->n_columns + column;
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
            for (i64 row = 0; row < a->n_rows; row += DEPTH) {
                const i64 n = least(a->n_rows - row, DEPTH);
                /* The processor does not prefetch from page to page. */
                for (i64 i = 0; i < DEPTH; i++) _mm_prefetch(o->rows + (row + AHEAD + i) * o->step + column, _MM_HINT_T0);
                if (o->drops) {
                    for (i64 i = 0; i < n; i++) _mm512_storeu_si512(dropped + i * DEPTH, seen(a, row + i, column));
                    panelled(dropped, DEPTH, n, DEPTH, panel);
                } else {
                    panelled(o->rows + row * o->step + column, o->step, n, DEPTH, panel);
                }
                multiply_tiles((left){o->turned + row * a->rank + r * DEPTH, 2 * DEPTH, 0, TILE}, panel, 1);
            }
            _tile_stored(0, out, o->n_columns * 4); _tile_stored(1, out + 16, o->n_columns * 4);
            _tile_stored(2, out + 16 * o->n_columns, o->n_columns * 4);
            _tile_stored(3, out + 16 * o->n_columns + 16, o->n_columns * 4);
        }
    }
    _tile_release();
}

/* ---- all of it ---- */

static void copies_of(const lora_call *c, i64 r, bf16 *copy) {
    rounded_rows(c->down, c->rank, c->depth, c->depth, copy);
    rounded_rows(c->up, c->width, c->rank, r, copy + r * c->depth);
}

static lora lora_of(const lora_call *c, i64 r, const bf16 *panels, char *scratch) {
    return (lora){
        .x = c->x, .y = c->y, .y_step = c->y_step, .low = c->low, .n_rows = c->n_rows, .depth = c->depth,
        .width = c->width, .rank = r, .seed = c->seed, .least = c->least, .down = panels, .up = panels + r * c->depth,
        .scratch = scratch, .dx = c->dx, .adds = c->adds,
    };
}

void lora_forward_on_tiles(const lora_call *c, int threads) {
    char *scratch = c->scratch;
    const i64 r = filled(c->rank), n_bytes = 2 * r * (c->depth + c->width);
    bf16 *copy = take(&scratch, n_bytes), *panels = take(&scratch, n_bytes);
    copies_of(c, r, copy);
    turned(copy, c->depth, c->rank, c->depth, panels);
    turned(copy + r * c->depth, r, c->width, r, panels + r * c->depth);
    const lora a = lora_of(c, r, panels, scratch);
    in_parallel(forward_rows, &a, c->n_rows, DEPTH, threads);
}

void lora_backward_on_tiles(const lora_call *c, int threads) {
    char *scratch = c->scratch;
    const i64 r = filled(c->rank), n_bytes = 2 * r * (c->depth + c->width);
    bf16 *copy = take(&scratch, n_bytes), *panels = take(&scratch, n_bytes);
    bf16 *turned_low = take(&scratch, 2 * r * filled(c->n_rows)), *turned_dlow = take(&scratch, 2 * r * filled(c->n_rows));
    copies_of(c, r, copy);
    panelled(copy, c->depth, c->rank, c->depth, panels);
    panelled(copy + r * c->depth, r, c->width, r, panels + r * c->depth);
    lora a = lora_of(c, r, panels, scratch);
    a.turned_low = turned_low;
    a.turned_dlow = turned_dlow;
    in_parallel(backward_rows, &a, c->n_rows, DEPTH, threads);
    over_rows of_x = {&a, c->x, c->depth, c->depth, turned_dlow, c->ddown, c->least > 0};
    over_rows of_dy = {&a, c->y, c->y_step, c->width, turned_low, c->dup, 0};
    in_parallel(columns_over_rows, &of_x, c->depth, DEPTH, threads);
    in_parallel(columns_over_rows, &of_dy, c->width, DEPTH, threads);
}

#else

void lora_forward_on_tiles(const lora_call *c, int threads) {}
void lora_backward_on_tiles(const lora_call *c, int threads) {}

#endif

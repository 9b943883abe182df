/* Products of bfloat16 or int8 rows with a frozen weight that was packed once, on processors with matrix tiles (Intel
 * AMX).
 *
 * Sums are float32, or int32 and then scaled by row and column; they are rounded once, after the bias or the rows to
 * add. An element's terms are added in one order whatever the other rows, the number of rows and of threads: the same
 * row gives the same result in every batch. Elsewhere integers.c or torch multiplies.
 */
#include "tiles.h"

/* What stays in the caches while in use: sums of ROWS x COLUMNS in L2, rows of DEEP units in L1. */
#define ROWS 224

/* Found by experiment, docs/log.md: weights of at most WHOLE rows need no second pass over the sums. */
#define COLUMNS 192
#define DEEP 192
#define WHOLE 384

static i64 deep_for(i64 depth) { return depth <= WHOLE ? depth : DEEP; }

#ifdef HAS_TILES
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Whether the processor has the instructions and Linux lets this process use tiles (arch_prctl, ARCH_REQ_XCOMP_PERM). */
int products_available(void) {
    unsigned a, b, c, d, more;
    if (!__get_cpuid_count(7, 0, &more, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1) || !(d >> 25 & 1)) return 0;
    if (more < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return 0;
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

/* Rows that are a multiple of 4 KiB apart, or nearly, evict each other from the L1 cache: they are copied. */
#define FAR 2048

static _Thread_local float sums[ROWS * COLUMNS] __attribute__((aligned(64)));
static _Thread_local bf16 copies[DEPTH * WHOLE] __attribute__((aligned(64)));

/* Writes the sums of 32 columns from `column`, in rows of 32 floats. */
TILES static void finish(const product_call *a, const float *total, i64 row, i64 n_rows, i64 column) {
    for (i64 i = 0; i < n_rows; i++, total += DEPTH) {
        i64 at = (row + i) * a->width + column;
        __m512 low = _mm512_load_ps(total), high = _mm512_load_ps(total + 16);
        if (a->row_scales) {
            __m512 scale = _mm512_set1_ps(a->row_scales[row + i]);
            low = _mm512_cvtepi32_ps(_mm512_castps_si512(low));
            high = _mm512_cvtepi32_ps(_mm512_castps_si512(high));
            low = _mm512_mul_ps(low, _mm512_mul_ps(scale, _mm512_loadu_ps(a->column_scales + column)));
            high = _mm512_mul_ps(high, _mm512_mul_ps(scale, _mm512_loadu_ps(a->column_scales + column + 16)));
        }
        if (a->bias) {
            low = _mm512_add_ps(low, widened(a->bias + column));
            high = _mm512_add_ps(high, widened(a->bias + column + 16));
        }
        if (a->start) {
            low = _mm512_add_ps(low, widened(a->start + at));
            high = _mm512_add_ps(high, widened(a->start + at + 16));
        }
        _mm512_storeu_si512(a->out + at, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}

TILES static left left_rows(const product_call *a, i64 row, i64 n_rows, i64 k, i64 depth) {
    const bf16 *x = a->x + row * a->x_step + k;
    i64 below = n_rows > 16;
    if (a->depth < FAR) return (left){x, a->x_step * 2, DEPTH, below * 16 * a->x_step};
    for (i64 i = 0; i < n_rows; i++) {
        for (i64 j = 0; j < depth; j += DEPTH) {
            _mm512_store_si512(copies + j * DEPTH + i * DEPTH, _mm512_loadu_si512(x + i * a->x_step + j));
        }
    }
    return (left){copies, 64, 2 * TILE, below * TILE};
}

/* Up to 32 rows times `depth` rows of the weight from k, for the columns of a block; `total` holds the block's sums. */
TILES static void step(const product_call *a, i64 row, i64 n_rows, i64 k, i64 depth, i64 columns[2], float *total) {
    const bf16 *weight = a->weight + columns[0] * a->depth + k * (columns[1] - columns[0]);
    float last[DEPTH * DEPTH] __attribute__((aligned(64)));
    left rows = left_rows(a, row, n_rows, k, depth);
    for (i64 column = columns[0]; column < columns[1]; column += DEPTH, total += 4 * 256, weight += depth * DEPTH) {
        if (k == 0) {
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
        } else {
            _tile_loadd(0, total, 64); _tile_loadd(1, total + 256, 64);
            _tile_loadd(2, total + 512, 64); _tile_loadd(3, total + 768, 64);
        }
        if (a->row_scales) multiply_tiles_int8(rows, weight, depth / DEPTH);
        else multiply_tiles(rows, weight, depth / DEPTH);
        if (k + depth < a->depth) {
            _tile_stored(0, total, 64); _tile_stored(1, total + 256, 64);
            _tile_stored(2, total + 512, 64); _tile_stored(3, total + 768, 64);
        } else {
            _tile_stored(0, last, 128); _tile_stored(1, last + 16, 128);
            _tile_stored(2, last + 512, 128); _tile_stored(3, last + 528, 128);
            finish(a, last, row, n_rows, column);
        }
    }
}

/* A block's sums stay in the cache while the weight's rows pass by, DEEP at a time. */
TILES static void block(const product_call *a, i64 rows[2], i64 columns[2]) {
    i64 deep = deep_for(a->depth), shaped = 0;
    for (i64 k = 0; k < a->depth; k += deep) {
        float *total = sums;
        for (i64 row = rows[0]; row < rows[1]; row += DEPTH, total += DEPTH * COLUMNS) {
            i64 n_rows = least(rows[1] - row, DEPTH);
            if (n_rows != shaped) shape_tiles(shaped = n_rows);
            step(a, row, n_rows, k, least(a->depth - k, deep), columns, total);
        }
    }
}

TILES static void blocks(const product_call *a, i64 rows[2], i64 columns[2]) {
    for (i64 row = rows[0]; row < rows[1]; row += ROWS) {
        for (i64 column = columns[0]; column < columns[1]; column += COLUMNS) {
            block(a, (i64[]){row, least(row + ROWS, rows[1])}, (i64[]){column, least(column + COLUMNS, columns[1])});
        }
    }
    _tile_release();
}

TILES static void rows_body(const void *data, i64 first, i64 last) {
    const product_call *a = data;
    blocks(a, (i64[]){first, last}, (i64[]){0, a->width});
}

TILES static void columns_body(const void *data, i64 first, i64 last) {
    const product_call *a = data;
    blocks(a, (i64[]){0, a->n_rows}, (i64[]){first, last});
}

void multiply_on_tiles(const product_call *a, int threads) {
    if (a->n_rows > a->width) in_parallel(rows_body, a, a->n_rows, DEPTH, threads);
    else in_parallel(columns_body, a, a->width, COLUMNS, threads);
}

#else

int products_available(void) { return 0; }
void multiply_on_tiles(const product_call *a, int threads) {}

#endif

typedef struct { const char *weight; char *out; i64 depth, k_step, n_step, size; } pack_args;

static void pack_columns(const pack_args *a, i64 first, i64 last) {
    char *out = a->out + first * a->depth * 2;
    i64 together = 4 / a->size; /* rows of the matrix in one row of a tile */
    for (i64 k = 0; k < a->depth; k += deep_for(a->depth)) {
        i64 end = least(k + deep_for(a->depth), a->depth);
        for (i64 n = first; n < last; n += DEPTH) {
            for (i64 tiles = k; tiles < end; tiles += DEPTH) {
                for (i64 i = 0; i < TILE; i++) { /* two tiles: tile, row, column */
                    i64 row = tiles * 2 / a->size + i % 256 / 16 * together, column = n + i / 256 * 16 + i % 16;
                    for (i64 j = 0; j < together; j++, out += a->size) {
                        const char *from = a->weight + ((row + j) * a->k_step + column * a->n_step) * a->size;
                        for (i64 byte = 0; byte < a->size; byte++) out[byte] = from[byte];
                    }
                }
            }
        }
    }
}

/* The matrix [depth, width] of elements of 2 bytes (bfloat16) or 1 (int8), with element (k, n) at
 * weight[k * k_step + n * n_step], in the order in which products read it: blocks of COLUMNS; in a block, `deep_for`
 * units at a time; in these, panels of 32 columns; in a panel, two tiles side by side for every 64 bytes. depth: in
 * units. */
void pack(const void *weight, void *out, i64 depth, i64 width, i64 k_step, i64 n_step, i64 size) {
    pack_args a = {weight, out, depth, k_step, n_step, size};
    for (i64 n = 0; n < width; n += COLUMNS) pack_columns(&a, n, least(n + COLUMNS, width));
}

/* What products.c and attention.c share: matrix tiles (Intel AMX), and one product on them.
 *
 * A tile is 16 rows of 64 bytes. `_tile_dpbf16ps` adds to 16 x 16 sums the product of 16 x 32 elements with 32 x 16,
 * where a row of the second tile holds two rows of the matrix, element by element in turn. `_tile_dpbssd` does so with
 * 64 int8 and four rows. All else is the same byte by byte: lengths here count units of two bytes.
 */
#ifndef TILES_H
#define TILES_H

#include <stdint.h>
#include <string.h>

typedef int64_t i64;
typedef uint16_t bf16;

/* Defined in kernels.c: calls body(args, first, last) over 0 ... n, in parts of a multiple of grain; the number of the
 * thread that asks inside it. */
void in_parallel(void (*body)(const void *, i64, i64), const void *args, i64 n, i64 grain, int threads);
int this_thread(void);

#define DEPTH 32 /* of a tile, in units; a panel of the right side is so many columns wide */
#define TILE 512 /* units */

static inline i64 least(i64 a, i64 b) { return a < b ? a : b; }

#if defined(__x86_64__) && defined(__linux__) && (__GNUC__ >= 12 || __clang_major__ >= 14)
#define HAS_TILES 1
#include <immintrin.h>

#define TILES __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512vl,avx512bf16")))

/* Compilers do not know that loads of tiles read memory: what was written before is in memory from here on. */
#define BEFORE_TILES __asm__ volatile("" ::: "memory")

TILES static inline __m512 widened(const bf16 *x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)x)), 16));
}

typedef struct { const bf16 *at; i64 row_bytes, next, below; } left; /* 32 rows: next tile to the right, tile below */

/* Tiles 0-3: sums; 4 and 5: rows, of which 32 or fewer are there; 6 and 7: the right side. */
TILES static inline void shape_tiles(i64 n_rows) {
    struct { uint8_t palette, start_row, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } shape;
    memset(&shape, 0, sizeof shape);
    shape.palette = 1;
    for (int i = 0; i < 8; i++) {
        int is_below = i == 2 || i == 3 || i == 5, is_right = i > 5;
        i64 rows = is_right ? 16 : is_below ? n_rows - 16 : n_rows;
        shape.bytes[i] = 64;
        shape.rows[i] = (uint8_t)(rows < 1 ? 1 : rows > 16 ? 16 : rows);
    }
    BEFORE_TILES;
    _tile_loadconfig(&shape);
}

/* A function for each kind of element, which the instruction names: it adds to the sums what two tiles of rows and two of
 * a panel come to. */
#define MULTIPLY_TILES(name, add_product)                                    \
    TILES static inline void name(left rows, const bf16 *panel, i64 n_tiles) { \
        BEFORE_TILES;                                                        \
        for (i64 i = 0; i < n_tiles; i++) {                                  \
            _tile_loadd(6, panel, 64);                                       \
            _tile_loadd(4, rows.at, rows.row_bytes);                         \
            add_product(0, 4, 6);                                            \
            _tile_loadd(7, panel + TILE, 64);                                \
            add_product(1, 4, 7);                                            \
            _tile_loadd(5, rows.at + rows.below, rows.row_bytes);            \
            add_product(2, 5, 6);                                            \
            add_product(3, 5, 7);                                            \
            panel += 2 * TILE;                                               \
            rows.at += rows.next;                                            \
        }                                                                    \
    }

MULTIPLY_TILES(multiply_tiles, _tile_dpbf16ps)
MULTIPLY_TILES(multiply_tiles_int8, _tile_dpbssd)

#endif
#endif

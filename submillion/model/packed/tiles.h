/* What products.c, attention.c and lora.c share: matrix tiles (Intel AMX), and products of few rows on them.
 *
 * A tile is 16 rows of 64 bytes. `_tile_dpbf16ps` adds to 16 x 16 sums the product of 16 x 32 elements with 32 x 16,
 * where a row of the second tile holds two rows of the matrix, element by element in turn. `_tile_dpbssd` does so with
 * 64 int8 and four rows. Otherwise the two are the same byte for byte: lengths here count units of two bytes.
 *
 * "Panels" are the right side of a product, in the order in which it is read: 32 columns side by side, 32 rows deep at a
 * time, two tiles each. Padding inside panels is 0.
 */
#ifndef TILES_H
#define TILES_H

#include <string.h>

#include "calls.h"

#define DEPTH 32 /* of a tile, in units; a panel of the right side is this many columns wide */
#define TILE 512 /* units */


#if defined(__x86_64__) && defined(__linux__) && (__GNUC__ >= 12 || __clang_major__ >= 14)
#define HAS_TILES 1
#include "turn.h"

#define TILES __attribute__((target("amx-tile,amx-bf16,amx-int8,avx512f,avx512bw,avx512vl,avx512bf16")))

/* Compilers do not know that loads of tiles read memory: what was written before is in memory from here on. */
#define BEFORE_TILES __asm__ volatile("" ::: "memory")

typedef struct { const bf16 *at; i64 row_bytes, next, below; } left; /* 32 rows: next tile to the right, tile below */

/* Tiles 0-3: sums; 4 and 5: up to 32 rows; 6 and 7: the right side. */
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

/* A function for each type of element, set by the instruction: it adds to the sums the products of two tiles of rows
 * and two of a panel. */
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

/* random_bits of words.h, for 16 words. */
TILES static inline __m512i random_words(__m512i word, uint64_t seed) {
    const __m512i first = _mm512_set1_epi32(0x7feb352d), second = _mm512_set1_epi32((int)0x846ca68bu);
    __m512i x = _mm512_xor_si512(word, _mm512_set1_epi32((int)(uint32_t)seed));
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
    x = _mm512_mullo_epi32(x, first);
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
    x = _mm512_mullo_epi32(x, second);
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
    x = _mm512_add_epi32(x, _mm512_set1_epi32((int)(uint32_t)(seed >> 32)));
    x = _mm512_mullo_epi32(x, first);
    x = _mm512_xor_si512(x, _mm512_srli_epi32(x, 15));
    x = _mm512_mullo_epi32(x, second);
    return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}

/* Which of 16 elements are among the first n. */
static inline uint16_t among(i64 n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (uint16_t)((1u << n) - 1); }

/* Which elements of 16 words, from `word` on, a mask keeps, as in `kept` of words.h. */
TILES static inline __mmask32 kept_halves(uint32_t word, uint64_t seed, uint32_t least) {
    const __m512i places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i words = _mm512_add_epi32(places, _mm512_set1_epi32((int)word));
    return _mm512_cmpge_epu16_mask(random_words(words, seed), _mm512_set1_epi16((short)least));
}

TILES static inline __m512i halves(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }
TILES static inline __m256i half(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

/* Elements of two rows in turn. */
TILES static inline __m512i in_turn(__m256i first, __m256i second) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

/* ---- panels ---- */

TILES static inline void turn_tile(__m512i r[16], bf16 *out) {
    turn_words(r);
    for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + i * DEPTH, r[i]);
}

/* Panels of the transposed matrix: n rows become columns, their `head` elements the depth. */
TILES static inline void turned(const bf16 *x, i64 step, i64 n, i64 head, bf16 *panels) {
    for (i64 row = 0; row < filled(n); row += 16) {
        for (i64 k = 0; k < head; k += DEPTH) {
            __m512i r[16];
            for (i64 i = 0; i < 16; i++) {
                r[i] = row + i < n ? _mm512_loadu_si512(x + (row + i) * step + k) : _mm512_setzero_si512();
            }
            turn_tile(r, panels + ((row / DEPTH * (head / DEPTH) + k / DEPTH) * 2 + row / 16 % 2) * TILE);
        }
    }
}

/* Panels of the matrix itself: n rows are the depth, their `head` elements the columns. */
TILES static inline void panelled(const bf16 *x, i64 step, i64 n, i64 head, bf16 *panels) {
    const __m512i zero = _mm512_setzero_si512();
    for (i64 column = 0; column < head; column += DEPTH) {
        for (i64 row = 0; row < filled(n); row += 2) {
            const bf16 *at = x + row * step + column;
            __m512i first = row < n ? _mm512_loadu_si512(at) : zero;
            __m512i second = row + 1 < n ? _mm512_loadu_si512(at + step) : zero;
            bf16 *out = panels + (column / DEPTH * filled(n) + row / DEPTH * DEPTH) * DEPTH + row / 2 % 16 * DEPTH;
            _mm512_storeu_si512(out, in_turn(_mm512_castsi512_si256(first), _mm512_castsi512_si256(second)));
            _mm512_storeu_si512(
                out + TILE, in_turn(_mm512_extracti64x4_epi64(first, 1), _mm512_extracti64x4_epi64(second, 1)));
        }
    }
}

/* ---- products of at most 32 rows ---- */

TILES static inline left rows_of(const bf16 *at, i64 step, i64 n_rows) {
    return (left){at, step * 2, DEPTH, n_rows > 16 ? 16 * step : 0};
}

/* out [32, columns] = rows times panels that are `panel_step` elements apart, plus what it holds if `adds`. */
TILES static inline void product(left rows, i64 depth, const bf16 *panels, i64 panel_step, i64 n_columns, float *out,
                                 int adds) {
    for (i64 column = 0; column < n_columns; column += DEPTH, panels += panel_step) {
        float *at = out + column, *below = at + 16 * n_columns;
        if (adds) {
            BEFORE_TILES;
            _tile_loadd(0, at, n_columns * 4); _tile_loadd(1, at + 16, n_columns * 4);
            _tile_loadd(2, below, n_columns * 4); _tile_loadd(3, below + 16, n_columns * 4);
        } else {
            _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
        }
        multiply_tiles(rows, panels, depth / DEPTH);
        _tile_stored(0, at, n_columns * 4); _tile_stored(1, at + 16, n_columns * 4);
        _tile_stored(2, below, n_columns * 4); _tile_stored(3, below + 16, n_columns * 4);
    }
}

/* Writes rows of `head` floats, each times its factor, or all times the first, if `factor_step` is 0. */
TILES static inline void write_rows(const float *x, i64 n, i64 head, const float *factors, i64 factor_step, bf16 *out,
                                    i64 step) {
    for (i64 i = 0; i < n; i++) {
        __m512 factor = _mm512_set1_ps(factors[i * factor_step]);
        for (i64 k = 0; k < head; k += DEPTH) {
            __m512 first = _mm512_mul_ps(factor, _mm512_loadu_ps(x + i * head + k));
            __m512 second = _mm512_mul_ps(factor, _mm512_loadu_ps(x + i * head + k + 16));
            _mm512_storeu_si512(out + i * step + k, halves(first, second));
        }
    }
}

#endif
#endif

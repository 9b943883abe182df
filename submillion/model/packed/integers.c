/* Products of bfloat16 rows with a weight in int8 in vectors, on processors with AVX-512 VNNI but without matrix tiles.
 * Rows become int8 here, each by its largest magnitude.
 *
 * `vpdpbusd` adds to 16 sums the products of 4 unsigned bytes each with 4 signed ones. The rows are signed; 128 is
 * added to a weight when it is packed, and 128 times the row's sum subtracted. Sums are exact: a row gives the same
 * result in every batch. A weight is packed in panels of 32 columns, 4 rows of the matrix at a time.
 */
#include <string.h>

#include "calls.h"

#if defined(__x86_64__) && (__GNUC__ >= 8 || __clang_major__ >= 7)
#include "turn.h"

#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))
#define TAKEN (192 << 10) /* bytes of rows that stay in the L2 cache while panels of the weight pass by */
#define BLOCK 240      /* rows, at most */
#define MOST_ROWS 12   /* at once: 24 of 32 vectors are sums */
#define PANEL 32       /* columns at once */

int integers_available(void) {
    return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

/* To bfloat16, to nearest, ties to even, as `rounded` of words.h. */
VNNI static inline __m256i narrowed(__m512 x) {
    __m512i bits = _mm512_castps_si512(x);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16));
}

VNNI static void write_rows(const product_call *c, const int32_t *sums, const float *scales, i64 row, i64 column, i64 n) {
    for (i64 i = row; i < row + n; i++) {
        const __m512 of_row = _mm512_set1_ps(scales[i - row]);
        for (i64 j = column; j < column + PANEL; j += 16, sums += 16) {
            const __m512 scale = _mm512_mul_ps(of_row, _mm512_loadu_ps(c->column_scales + j));
            __m512 y = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sums)), scale);
            if (c->bias) y = _mm512_add_ps(y, widened(c->bias + j));
            if (c->start) y = _mm512_add_ps(y, widened(c->start + i * c->width + j));
            _mm256_storeu_si256((void *)(c->out + i * c->width + j), narrowed(y));
        }
    }
}

/* Sums are named, since GCC keeps no arrays of them in registers, and each number of rows has its own function. */
#define EVERY_ROW(do) do(0) do(1) do(2) do(3) do(4) do(5) do(6) do(7) do(8) do(9) do(10) do(11)
#define BEGIN(i)                                                   \
    __m512i left##i = _mm512_set1_epi32(n > i ? offsets[i] : 0);   \
    __m512i right##i = _mm512_set1_epi32(n > i ? offsets[i] : 0);
#define ADD(i)                                                     \
    if (n > i) {                                                   \
        memcpy(&four, x + 4 * i, 4);                               \
        of_row = _mm512_set1_epi32(four);                          \
        left##i = _mm512_dpbusd_epi32(left##i, lower, of_row);     \
        right##i = _mm512_dpbusd_epi32(right##i, upper, of_row);   \
    }
#define END(i)                                                     \
    if (n > i) {                                                   \
        _mm512_storeu_si512(sums + i * PANEL, left##i);            \
        _mm512_storeu_si512(sums + i * PANEL + 16, right##i);      \
    }
#define MULTIPLY_ROWS(n_rows)                                                                                         \
    VNNI static void multiply_rows_##n_rows(const char *x, const char *panel, i64 n_steps, const int32_t *offsets,    \
                                            int32_t *sums) {                                                          \
        enum { n = n_rows };                                                                                          \
        EVERY_ROW(BEGIN)                                                                                              \
        for (; n_steps > 0; n_steps--, panel += 128, x += 4 * n) {                                                    \
            const __m512i lower = _mm512_loadu_si512(panel), upper = _mm512_loadu_si512(panel + 64);                  \
            __m512i of_row;                                                                                           \
            int32_t four;                                                                                             \
            EVERY_ROW(ADD)                                                                                            \
        }                                                                                                             \
        EVERY_ROW(END)                                                                                                \
    }

MULTIPLY_ROWS(1) MULTIPLY_ROWS(2) MULTIPLY_ROWS(3) MULTIPLY_ROWS(4) MULTIPLY_ROWS(5) MULTIPLY_ROWS(6)
MULTIPLY_ROWS(7) MULTIPLY_ROWS(8) MULTIPLY_ROWS(9) MULTIPLY_ROWS(10) MULTIPLY_ROWS(11) MULTIPLY_ROWS(12)

/* x: four bytes of each row in turn. panel: 32 columns. */
static void (*const multiply_rows[])(const char *x, const char *panel, i64 n_steps, const int32_t *offsets, int32_t *sums) = {
    multiply_rows_1, multiply_rows_2, multiply_rows_3, multiply_rows_4, multiply_rows_5, multiply_rows_6,
    multiply_rows_7, multiply_rows_8, multiply_rows_9, multiply_rows_10, multiply_rows_11, multiply_rows_12,
};

/* The factor that turns a row into integers, and the value of one of them, as in `quantise_rows` of kernels.c. */
VNNI static float factor_of(const bf16 *x, i64 width, float *scale) {
    __m512i most = _mm512_setzero_si512();
    for (i64 i = 0; i < width; i += 32) {
        most = _mm512_max_epu16(most, _mm512_and_si512(_mm512_loadu_si512(x + i), _mm512_set1_epi16(0x7fff)));
    }
    most = _mm512_max_epu32(_mm512_and_si512(most, _mm512_set1_epi32(0xffff)), _mm512_srli_epi32(most, 16));
    const unsigned bits = _mm512_reduce_max_epu32(most) << 16;
    float largest, by;
    memcpy(&largest, &bits, 4);
    const int is_finite = bits < 0x7f800000u;
    by = is_finite && largest > 0 ? 127.0f / largest : 0.0f;
    by = by < 3e38f ? by : 0.0f;
    *scale = !is_finite ? __builtin_nanf("") : by > 0 ? largest / 127.0f : 0.0f;
    return is_finite ? by : __builtin_nanf("");
}

/* 16 elements; NaN as a factor makes them 0. Adding 1.5 * 2^23 rounds to an integer, in the low bits. */
VNNI static inline __m128i integers_of(const bf16 *x, float by) {
    const __m512 magic = _mm512_set1_ps(12582912.0f);
    __m512 rounded = _mm512_fmadd_ps(widened(x), _mm512_set1_ps(by), magic);
    return _mm512_cvtepi32_epi8(_mm512_castps_si512(by == by ? rounded : magic));
}

VNNI static inline __m512i bytes_of(const bf16 *x, float by) {
    __m256i lower = _mm256_set_m128i(integers_of(x + 16, by), integers_of(x, by));
    __m256i upper = _mm256_set_m128i(integers_of(x + 48, by), integers_of(x + 32, by));
    return _mm512_inserti64x4(_mm512_castsi256_si512(lower), upper, 1);
}

/* Rows as integers, four bytes of each in turn; the value of one; and the start of each row's sum, since the weights
 * are 128 too large. */
VNNI static void take_rows(const product_call *c, i64 row, i64 n_rows, char *out, int32_t *offsets, float *scales) {
    const bf16 *x = c->x + row * c->x_step;
    __m512i sums = _mm512_setzero_si512(), first[16];
    float by[MOST_ROWS];
    for (i64 i = 0; i < n_rows; i++) by[i] = factor_of(x + i * c->x_step, c->depth * 2, scales + i);
    for (i64 at = 0; at < c->depth * 2; at += 64) {
        for (i64 i = 0; i < 16; i++) {
            first[i] = i < n_rows ? bytes_of(x + i * c->x_step + at, by[i]) : _mm512_setzero_si512();
        }
        turn_words(first);
        for (i64 i = 0; i < 16; i++, out += 4 * n_rows) {
            sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), first[i]);
            _mm512_storeu_si512(out, first[i]); /* the next one overwrites the excess */
        }
    }
    _mm512_mask_storeu_epi32(offsets, (__mmask16)((1 << n_rows) - 1), _mm512_mullo_epi32(sums, _mm512_set1_epi32(-128)));
}

static _Thread_local char taken[TAKEN + 64] __attribute__((aligned(64)));

VNNI static void blocks(const product_call *c, const i64 rows[2], const i64 columns[2]) {
    const i64 width = c->depth * 2, most = least(TAKEN / width / MOST_ROWS * MOST_ROWS, BLOCK);
    int32_t offsets[BLOCK], sums[MOST_ROWS * PANEL];
    float scales[BLOCK];
    for (i64 row = rows[0]; row < rows[1]; row += most) {
        const i64 n_rows = least(rows[1] - row, most), n_groups = (n_rows + MOST_ROWS - 1) / MOST_ROWS;
        for (i64 i = 0; i < n_groups; i++) { /* of nearly the same size */
            const i64 from = i * n_rows / n_groups, to = (i + 1) * n_rows / n_groups;
            take_rows(c, row + from, to - from, taken + from * width, offsets + from, scales + from);
        }
        for (i64 column = columns[0]; column < columns[1]; column += PANEL) {
            for (i64 i = 0; i < n_groups; i++) {
                const i64 from = i * n_rows / n_groups, to = (i + 1) * n_rows / n_groups;
                const char *panel = (const char *)c->weight + column * width;
                multiply_rows[to - from - 1](taken + from * width, panel, width / 4, offsets + from, sums);
                write_rows(c, sums, scales + from, row + from, column, to - from);
            }
        }
    }
}

static void rows_body(const void *data, i64 first, i64 last) {
    const product_call *c = data;
    blocks(c, (i64[]){first, last}, (i64[]){0, c->width});
}

static void columns_body(const void *data, i64 first, i64 last) {
    const product_call *c = data;
    blocks(c, (i64[]){0, c->n_rows}, (i64[]){first, last});
}

void multiply_in_vectors(const product_call *c, int threads) {
    if (c->n_rows >= 4 * MOST_ROWS * threads) in_parallel(rows_body, c, c->n_rows, MOST_ROWS, threads);
    else in_parallel(columns_body, c, c->width, PANEL, threads);
}

#else

int integers_available(void) { return 0; }
void multiply_in_vectors(const product_call *c, int threads) {}

#endif

/* What tiles.h and integers.c share. */
#ifndef TURN_H
#define TURN_H

#include <immintrin.h>

#include "calls.h"

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

/* 16 elements in float32. */
AVX512 static inline __m512 widened(const bf16 *x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)x)), 16));
}

/* 16 rows of 16 words become 16 columns. */
AVX512 static inline void turn_words(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) { /* r[4 k + i] has, in its quarter l, column 4 l + i of rows 4 k to 4 k + 3 */
        __m512i even = _mm512_shuffle_i32x4(r[i], r[4 + i], 0x88), odd = _mm512_shuffle_i32x4(r[i], r[4 + i], 0xdd);
        __m512i next_even = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0x88);
        __m512i next_odd = _mm512_shuffle_i32x4(r[8 + i], r[12 + i], 0xdd);
        r[i] = _mm512_shuffle_i32x4(even, next_even, 0x88);
        r[4 + i] = _mm512_shuffle_i32x4(odd, next_odd, 0x88);
        r[8 + i] = _mm512_shuffle_i32x4(even, next_even, 0xdd);
        r[12 + i] = _mm512_shuffle_i32x4(odd, next_odd, 0xdd);
    }
}

#endif

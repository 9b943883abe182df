/* What the C files share but for matrix tiles: several versions of a function for several processors, bfloat16 as 32-bit
 * words of two, and the random bits of dropout's masks.
 */
#ifndef WORDS_H
#define WORDS_H

#include <stdint.h>

/* Several versions of a function; the loader takes the one for this processor. */
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define FAST __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define WITH_AVX512 __attribute__((target("arch=x86-64-v4")))
#define WITH_AVX2 __attribute__((target("arch=x86-64-v3")))
#define HAS_AVX512 __builtin_cpu_supports("x86-64-v4")
#define HAS_AVX2 __builtin_cpu_supports("x86-64-v3")
#elif defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) /* Clang, older GCC */
#define FAST __attribute__((target_clones("avx512f", "avx2", "default")))
#define WITH_AVX512 __attribute__((target("avx512f,avx2,fma")))
#define WITH_AVX2 __attribute__((target("avx2,fma")))
#define HAS_AVX512 __builtin_cpu_supports("avx512f")
#define HAS_AVX2 (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
#else
#define FAST
#endif

#define INLINE static inline __attribute__((always_inline))

typedef int64_t i64;
typedef uint32_t word; /* two bfloat16: the first in the low half */

/* Defined in kernels.c, for Python and for layer.c. */
void gelu(const word *x, word *out, i64 n_words, int threads);
void add_norm(word *y, const word *residual, const float *weight, const float *bias, word *out, float *mean, float *rstd,
              i64 n_rows, i64 width, float eps, float factor, uint64_t seed, word least, int threads);

static inline float bits_float(word bits) {
    union { word i; float f; } u = {bits};
    return u.f;
}

static inline word float_bits(float value) {
    union { float f; word i; } u = {value};
    return u.i;
}

static inline float wide(uint16_t x) { return bits_float((word)x << 16); } /* one bfloat16 */
static inline float low(word w) { return bits_float(w << 16); }
static inline float high(word w) { return bits_float(w & 0xffff0000u); }

/* Rounded to nearest, ties to even, as torch does. */
static inline word rounded(float value) {
    word bits = float_bits(value);
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}

static inline word both(float first, float second) { return rounded(first) | (rounded(second) << 16); }

/* 32 random bits of word i: two rounds of the integer hash "lowbias32" (Wellons 2018), one for each half of the seed. */
static inline word random_bits(word i, word seed_low, word seed_high) {
    word x = i ^ seed_low;
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    x ^= x >> 16;
    x += seed_high;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

/* All bits of each half of word i set where a uniform 16-bit number is at least `least`. */
static inline word kept(word i, uint64_t seed, word least) {
    word x = random_bits(i, (word)seed, (word)(seed >> 32));
    return ((x & 0xffffu) >= least ? 0xffffu : 0u) | ((x >> 16) >= least ? 0xffff0000u : 0u);
}

#endif

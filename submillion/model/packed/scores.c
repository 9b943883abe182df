/* Passes between the products of attention that torch computes: rotary positions, scores by distance, softmax; rows are
 * bfloat16, as in kernels.c, of which this is a part.
 */
#include <math.h>

#include "calls.h"
#include "words.h"

/* e^x for x <= 0: 2^k times a polynomial of degree 5 on +-ln 2 / 2 (Cephes' expf). */
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    float k = floorf(x * 1.44269504f + 0.5f);
    float r = x - k * 0.693359375f + k * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return y * bits_float((word)((int32_t)k + 127) << 23);
}

/* ---- rotary positions: entries i and i + head / 2 are rotated by an angle; row r is at position r mod width ---- */

typedef struct { word *rows; const float *cosine, *sine; i64 width, head; } turn_args;

FAST static void turn_body(const void *data, i64 first, i64 last) {
    const turn_args a = *(const turn_args *)data;
    const i64 n = a.head / 4;
    for (i64 row = first; row < last; row++) {
        word *x = a.rows + row * 2 * n, *y = x + n;
        const float *c = a.cosine + row % a.width * 2 * n, *s = a.sine + row % a.width * 2 * n;
#pragma omp simd
        for (i64 i = 0; i < n; i++) {
            word u = x[i], v = y[i];
            float c0 = c[2 * i], c1 = c[2 * i + 1], s0 = s[2 * i], s1 = s[2 * i + 1];
            x[i] = both(low(u) * c0 - low(v) * s0, high(u) * c1 - high(v) * s1);
            y[i] = both(low(v) * c0 + low(u) * s0, high(v) * c1 + high(u) * s1);
        }
    }
}

void turn(word *rows, const float *cosine, const float *sine, i64 n_rows, i64 width, i64 head, int threads) {
    turn_args a = {rows, cosine, sine, width, head};
    in_parallel(turn_body, &a, n_rows, 64, threads);
}

/* ---- scores from products with one column per distance, along diagonals ---- */

typedef struct {
    bf16 *scores, *of_queries, *of_keys;
    i64 n_queries, width, n_columns;
    float factor;
} diagonal_args;

/* `of_keys` is read across its rows: a head's part of it, 16 KB at 64 tokens, is in the L1 cache. */
FAST static void read_diagonals_body(const void *data, i64 first, i64 last) {
    const diagonal_args a = *(const diagonal_args *)data;
    const i64 n = a.n_columns;
    for (i64 head = first; head < last; head++) {
        for (i64 i = 0; i < a.n_queries; i++) {
            bf16 *scores = a.scores + (head * a.n_queries + i) * a.width;
            const bf16 *x = a.of_queries ? a.of_queries + (head * a.n_queries + i) * n + a.n_queries - 1 - i : 0;
            const bf16 *y = a.of_keys ? a.of_keys + head * a.width * n + a.width - 1 + i : 0;
            if (!y) {
                for (i64 j = 0; j < a.width; j++) scores[j] = (bf16)rounded(a.factor * wide(x[j]));
            } else if (!x) {
                for (i64 j = 0; j < a.width; j++) scores[j] = (bf16)rounded(a.factor * wide(y[j * (n - 1)]));
            } else {
                for (i64 j = 0; j < a.width; j++) {
                    scores[j] = (bf16)rounded(a.factor * (wide(x[j]) + wide(y[j * (n - 1)])));
                }
            }
        }
    }
}

FAST static void spread_diagonals_body(const void *data, i64 first, i64 last) {
    const diagonal_args a = *(const diagonal_args *)data;
    const i64 n = a.n_columns;
    for (i64 head = first; head < last; head++) {
        const bf16 *grad = a.scores + head * a.n_queries * a.width;
        for (i64 i = 0; a.of_queries && i < a.n_queries; i++) {
            bf16 *x = a.of_queries + (head * a.n_queries + i) * n;
            const i64 from = a.n_queries - 1 - i;
            for (i64 c = 0; c < from; c++) x[c] = 0;
            for (i64 j = 0; j < a.width; j++) x[from + j] = (bf16)rounded(a.factor * wide(grad[i * a.width + j]));
            for (i64 c = from + a.width; c < n; c++) x[c] = 0;
        }
        for (i64 j = 0; a.of_keys && j < a.width; j++) {
            bf16 *y = a.of_keys + (head * a.width + j) * n;
            const i64 from = a.width - 1 - j;
            for (i64 c = 0; c < from; c++) y[c] = 0;
            for (i64 i = 0; i < a.n_queries; i++) y[from + i] = (bf16)rounded(a.factor * wide(grad[i * a.width + j]));
            for (i64 c = from + a.n_queries; c < n; c++) y[c] = 0;
        }
    }
}

void read_diagonals(bf16 *scores, bf16 *of_queries, bf16 *of_keys, i64 n_heads, i64 n_queries, i64 width, i64 n_columns,
                    float factor, int threads) {
    diagonal_args a = {scores, of_queries, of_keys, n_queries, width, n_columns, factor};
    in_parallel(read_diagonals_body, &a, n_heads, 1, threads);
}

void spread_diagonals(bf16 *scores, bf16 *of_queries, bf16 *of_keys, i64 n_heads, i64 n_queries, i64 width,
                      i64 n_columns, float factor, int threads) {
    diagonal_args a = {scores, of_queries, of_keys, n_queries, width, n_columns, factor};
    in_parallel(spread_diagonals_body, &a, n_heads, 1, threads);
}

/* ---- softmax over the columns that a query sees of its text, and dropout of the result ---- */

typedef struct {
    word *scores, *dropped;
    const i64 *lengths;
    i64 n_texts, n_queries, width, window;
    uint64_t seed;
    word least;
} softmax_args;

#define MAX_WIDTH 8192

FAST static void softmax_body(const void *data, i64 first, i64 last) {
    const softmax_args a = *(const softmax_args *)data;
    const i64 n = a.width / 2;
    float even[MAX_WIDTH / 2], odd[MAX_WIDTH / 2];
    for (i64 row = first; row < last; row++) {
        word *scores = a.scores + row * n;
        const i64 length = a.lengths[row / a.n_queries % a.n_texts], query = row % a.n_queries;
        const int is_local = query < length; /* a padding query sees all: its result is not read, but must not be NaN */
        const i64 begin = is_local && query > a.window ? query - a.window : 0;
        const i64 end = is_local && query + a.window < length ? query + a.window + 1 : length;
        const i64 from = begin / 2, to = (end + 1) / 2; /* words; the first and the last may be half outside */
        float top = -INFINITY, sum = 0.0f;
        for (i64 i = from; i < to; i++) {
            even[i] = low(scores[i]);
            odd[i] = high(scores[i]);
        }
        if (begin % 2) even[from] = -INFINITY;
        if (end % 2) odd[to - 1] = -INFINITY;
#pragma omp simd reduction(max : top)
        for (i64 i = from; i < to; i++) {
            float larger = even[i] > odd[i] ? even[i] : odd[i];
            top = larger > top ? larger : top;
        }
#pragma omp simd reduction(+ : sum)
        for (i64 i = from; i < to; i++) {
            even[i] = exponential(even[i] - top);
            odd[i] = exponential(odd[i] - top);
            sum += even[i] + odd[i];
        }
        if (begin % 2) even[from] = 0.0f; /* it was e^-87 */
        if (end % 2) odd[to - 1] = 0.0f;
        const float factor = 1.0f / sum;
        for (i64 i = 0; i < from; i++) scores[i] = 0;
        for (i64 i = from; i < to; i++) scores[i] = both(even[i] * factor, odd[i] * factor);
        for (i64 i = to; i < n; i++) scores[i] = 0;
        if (a.dropped) {
            word *dropped = a.dropped + row * n;
            for (i64 i = 0; i < n; i++) dropped[i] = scores[i] & kept((word)(row * n + i), a.seed, a.least);
        }
    }
}

void softmax(word *scores, word *dropped, const i64 *lengths, i64 n_rows, i64 n_texts, i64 n_queries, i64 width,
             i64 window, uint64_t seed, word least, int threads) {
    softmax_args a = {scores, dropped, lengths, n_texts, n_queries, width, window, seed, least};
    in_parallel(softmax_body, &a, n_rows, 1, threads);
}

typedef struct { const word *probs; word *grad; i64 width; uint64_t seed; word least; } softmax_backward_args;

FAST static void softmax_backward_body(const void *data, i64 first, i64 last) {
    const softmax_backward_args a = *(const softmax_backward_args *)data;
    const i64 n = a.width / 2;
    for (i64 row = first; row < last; row++) {
        const word *probs = a.probs + row * n;
        word *grad = a.grad + row * n;
        float dot = 0.0f;
        if (a.least) {
            for (i64 i = 0; i < n; i++) grad[i] &= kept((word)(row * n + i), a.seed, a.least);
        }
#pragma omp simd reduction(+ : dot)
        for (i64 i = 0; i < n; i++) dot += low(grad[i]) * low(probs[i]) + high(grad[i]) * high(probs[i]);
        for (i64 i = 0; i < n; i++) {
            grad[i] = both(low(probs[i]) * (low(grad[i]) - dot), high(probs[i]) * (high(grad[i]) - dot));
        }
    }
}

void softmax_backward(const word *probs, word *grad, i64 n_rows, i64 width, uint64_t seed, word least, int threads) {
    softmax_backward_args a = {probs, grad, width, seed, least};
    in_parallel(softmax_backward_body, &a, n_rows, 1, threads);
}

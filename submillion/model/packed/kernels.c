/* Passes over bfloat16 rows, each replacing several of torch's operators: dropout, GELU, LayerNorm, quantising. Those over
 * scores of attention are in scores.c.
 *
 * Plain C; nothing is allocated, nothing depends on Python. native.py declares these functions; it and
 * native_products.py call them, and say what each computes; without this library torch's operators do the same with
 * other random numbers.
 *
 * Rows are read as 32-bit words of two elements, so every width is even. A mask is a function of (seed, element), not
 * an array: the backward pass recomputes it.
 */
#include <math.h>

#include "calls.h"
#include "words.h"

int kernels_version(void) { return 13; } /* raised, in C and in native.py, with any change of a function's arguments or of a result's last bits */

/* ---- threads: torch's own OpenMP runtime, found by native.py, so that no second pool of threads spins ---- */

typedef void (*parallel_fn)(void (*)(void *), void *, unsigned, unsigned);
static parallel_fn start_threads;
static int (*thread_number)(void);
static int (*thread_count)(void);

void set_threads(void *parallel, void *number, void *count) {
    start_threads = (parallel_fn)parallel;
    thread_number = (int (*)(void))number;
    thread_count = (int (*)(void))count;
}

typedef struct {
    void (*body)(const void *, i64, i64);
    const void *args;
    i64 n, grain;
} job;

static void share(void *data) {
    const job *j = data;
    i64 part = (j->n + thread_count() - 1) / thread_count();
    part = (part + j->grain - 1) / j->grain * j->grain;
    i64 first = part * thread_number(), last = first + part;
    if (first < j->n) j->body(j->args, first, last < j->n ? last : j->n);
}

/* The number of the calling thread, inside `in_parallel`. */
int this_thread(void) { return thread_number ? thread_number() : 0; }

/* Calls body(args, first, last) over 0 ... n, in parts of a multiple of grain. */
void in_parallel(void (*body)(const void *, i64, i64), const void *args, i64 n, i64 grain, int threads) {
    job j = {body, args, n, grain};
    if (threads > 1 && start_threads && n > grain) start_threads(share, &j, (unsigned)threads, 0);
    else body(args, 0, n);
}

/* ---- numbers of GELU ---- */

/* GELU is x (1/2 + x P(x^2)) and its derivative 1/2 + x Q(x^2), up to where they are x or 0 to within bfloat16. P and Q
 * are polynomials of y = 2 x^2 / end^2 - 1, fitted by least squares at Chebyshev nodes, reweighted to even out the
 * error: at most 2e-6 of P's function, 1e-5 of Q's. */
#define GELU_END 4.6f
#define SLOPE_END 5.2f

static const float GELU_TERMS[] = {
    0.0010770784f, -0.0028697676f, 0.00359337009f, -0.00596237089f, 0.0122136837f, -0.020145487f,
    0.029230684f, -0.0403740741f, 0.0541581884f, -0.0757691562f, 0.153543264f,
};
static const float SLOPE_TERMS[] = {
    0.0176069159f, -0.0397933796f, 0.0205935966f, -0.0122187203f, 0.0598396622f, -0.0895029455f, 0.0800428763f,
    -0.0741603002f, 0.0718833506f, -0.0643235669f, 0.0606266297f, -0.070850648f, 0.13641195f,
};
#define N_TERMS(terms) ((int)(sizeof(terms) / sizeof(float)))

static inline float bounded(float x, float end) { return x > end ? end : x < -end ? -end : x; }

/* x times the polynomial of 2 x^2 / end^2 - 1, the highest power first. */
static inline float odd(float x, float end, const float *terms, int n) {
    float y = x * x * (2.0f / (end * end)) - 1.0f, sum = terms[0];
    for (int i = 1; i < n; i++) sum = sum * y + terms[i];
    return x * sum;
}

static inline float gelu_of(float x) {
    float share = 0.5f + odd(bounded(x, GELU_END), GELU_END, GELU_TERMS, N_TERMS(GELU_TERMS));
    return (x < -GELU_END ? -GELU_END : x) * share;
}

static inline float gelu_slope(float x) {
    return 0.5f + odd(bounded(x, SLOPE_END), SLOPE_END, SLOPE_TERMS, N_TERMS(SLOPE_TERMS));
}

/* ---- dropout ---- */

typedef struct { const word *x; word *out; uint64_t seed; word least; } drop_args;

FAST static void drop_body(const void *data, i64 first, i64 last) {
    const drop_args a = *(const drop_args *)data;
#pragma omp simd /* x may be out, but does not overlap it otherwise */
    for (i64 i = first; i < last; i++) a.out[i] = a.x[i] & kept((word)i, a.seed, a.least);
}

void drop(const word *x, word *out, i64 n_words, uint64_t seed, word least, int threads) {
    drop_args a = {x, out, seed, least};
    in_parallel(drop_body, &a, n_words, 4096, threads);
}

FAST static void add_dropped_body(const void *data, i64 first, i64 last) {
    const drop_args a = *(const drop_args *)data;
#pragma omp simd
    for (i64 i = first; i < last; i++) {
        word x = a.x[i] & kept((word)i, a.seed, a.least);
        a.out[i] = both(low(a.out[i]) + low(x), high(a.out[i]) + high(x));
    }
}

void add_dropped(const word *x, word *out, i64 n_words, uint64_t seed, word least, int threads) {
    drop_args a = {x, out, seed, least};
    in_parallel(add_dropped_body, &a, n_words, 4096, threads);
}

/* ---- GELU ---- */

typedef struct { const word *x; const word *grad; word *out; } gelu_args;

FAST static void gelu_body(const void *data, i64 first, i64 last) {
    const gelu_args a = *(const gelu_args *)data;
#pragma omp simd
    for (i64 i = first; i < last; i++) {
        a.out[i] = both(gelu_of(low(a.x[i])), gelu_of(high(a.x[i])));
    }
}

FAST static void gelu_backward_body(const void *data, i64 first, i64 last) {
    const gelu_args a = *(const gelu_args *)data;
#pragma omp simd
    for (i64 i = first; i < last; i++) {
        a.out[i] = both(low(a.grad[i]) * gelu_slope(low(a.x[i])), high(a.grad[i]) * gelu_slope(high(a.x[i])));
    }
}

void gelu(const word *x, word *out, i64 n_words, int threads) {
    gelu_args a = {x, 0, out};
    in_parallel(gelu_body, &a, n_words, 1024, threads);
}

void gelu_backward(const word *x, const word *grad, word *out, i64 n_words, int threads) {
    gelu_args a = {x, grad, out};
    in_parallel(gelu_backward_body, &a, n_words, 1024, threads);
}

/* ---- GELU times a gate next to it, and dropout of the result ---- */

typedef struct {
    const word *x, *grad;
    word *out;
    i64 width;
    float factor;
    uint64_t seed;
    word least;
} gate_args;

FAST static void gated_gelu_body(const void *data, i64 first, i64 last) {
    const gate_args a = *(const gate_args *)data;
    const i64 n = a.width / 2;
    for (i64 row = first; row < last; row++) {
        const word *x = a.x + 2 * row * n, *gate = x + n;
        word *out = a.out + row * n;
#pragma omp simd
        for (i64 i = 0; i < n; i++) {
            out[i] = both(a.factor * gelu_of(low(x[i])) * low(gate[i]), a.factor * gelu_of(high(x[i])) * high(gate[i]));
        }
        if (a.least) {
            for (i64 i = 0; i < n; i++) out[i] &= kept((word)(row * n + i), a.seed, a.least);
        }
    }
}

FAST static void gated_gelu_backward_body(const void *data, i64 first, i64 last) {
    const gate_args a = *(const gate_args *)data;
    const i64 n = a.width / 2;
    for (i64 row = first; row < last; row++) {
        const word *x = a.x + 2 * row * n, *gate = x + n, *grad = a.grad + row * n;
        word *dx = a.out + 2 * row * n, *dgate = dx + n;
#pragma omp simd
        for (i64 i = 0; i < n; i++) {
            word g = a.least ? grad[i] & kept((word)(row * n + i), a.seed, a.least) : grad[i];
            float u = a.factor * low(g), v = a.factor * high(g);
            dgate[i] = both(u * gelu_of(low(x[i])), v * gelu_of(high(x[i])));
            dx[i] = both(u * low(gate[i]) * gelu_slope(low(x[i])), v * high(gate[i]) * gelu_slope(high(x[i])));
        }
    }
}

void gated_gelu(const word *x, word *out, i64 n_rows, i64 width, float factor, uint64_t seed, word least, int threads) {
    gate_args a = {x, 0, out, width, factor, seed, least};
    in_parallel(gated_gelu_body, &a, n_rows, 1, threads);
}

void gated_gelu_backward(const word *x, const word *grad, word *out, i64 n_rows, i64 width, float factor, uint64_t seed,
                         word least, int threads) {
    gate_args a = {x, grad, out, width, factor, seed, least};
    in_parallel(gated_gelu_backward_body, &a, n_rows, 1, threads);
}

/* ---- dropout, residual and LayerNorm ---- */

typedef struct {
    word *y;
    const word *residual;
    const float *weight, *bias;
    word *out;
    float *mean, *rstd;
    i64 width;
    float eps, factor;
    uint64_t seed;
    word least;
} norm_args;

FAST static void norm_body(const void *data, i64 first, i64 last) {
    const norm_args a = *(const norm_args *)data;
    const i64 n = a.width / 2;
    for (i64 row = first; row < last; row++) {
        word *y = a.y + row * n, *out = a.out + row * n;
        const word *residual = a.residual + row * n;
        float sum = 0.0f, squares = 0.0f;
        if (a.least) {
            for (i64 i = 0; i < n; i++) y[i] &= kept((word)(row * n + i), a.seed, a.least);
        }
#pragma omp simd reduction(+ : sum)
        for (i64 i = 0; i < n; i++) {
            y[i] = both(low(residual[i]) + a.factor * low(y[i]), high(residual[i]) + a.factor * high(y[i]));
            sum += low(y[i]) + high(y[i]);
        }
        const float mean = sum / (float)a.width;
#pragma omp simd reduction(+ : squares)
        for (i64 i = 0; i < n; i++) {
            float u = low(y[i]) - mean, v = high(y[i]) - mean;
            squares += u * u + v * v;
        }
        const float rstd = 1.0f / sqrtf(squares / (float)a.width + a.eps);
        for (i64 i = 0; i < n; i++) {
            float u = (low(y[i]) - mean) * rstd, v = (high(y[i]) - mean) * rstd;
            out[i] = both(u * a.weight[2 * i] + a.bias[2 * i], v * a.weight[2 * i + 1] + a.bias[2 * i + 1]);
        }
        a.mean[row] = mean;
        a.rstd[row] = rstd;
    }
}

void add_norm(word *y, const word *residual, const float *weight, const float *bias, word *out, float *mean, float *rstd,
              i64 n_rows, i64 width, float eps, float factor, uint64_t seed, word least, int threads) {
    norm_args a = {y, residual, weight, bias, out, mean, rstd, width, eps, factor, seed, least};
    in_parallel(norm_body, &a, n_rows, 1, threads);
}

typedef struct {
    const word *grad, *total;
    const float *mean, *rstd, *weight;
    word *dtotal, *dy;
    const word *passed;
    i64 width;
    float factor;
    uint64_t seed;
    word least;
} norm_backward_args;

FAST static void norm_backward_body(const void *data, i64 first, i64 last) {
    const norm_backward_args a = *(const norm_backward_args *)data;
    const i64 n = a.width / 2;
    for (i64 row = first; row < last; row++) {
        const word *grad = a.grad + row * n, *total = a.total + row * n;
        word *dtotal = a.dtotal + row * n;
        const float mean = a.mean[row], rstd = a.rstd[row];
        float sum = 0.0f, dot = 0.0f;
#pragma omp simd reduction(+ : sum, dot)
        for (i64 i = 0; i < n; i++) {
            float u = low(grad[i]) * a.weight[2 * i], v = high(grad[i]) * a.weight[2 * i + 1];
            sum += u + v;
            dot += u * (low(total[i]) - mean) + v * (high(total[i]) - mean);
        }
        const float shift = sum / (float)a.width, slope = dot * rstd * rstd / (float)a.width;
        for (i64 i = 0; i < n; i++) {
            float u = low(grad[i]) * a.weight[2 * i], v = high(grad[i]) * a.weight[2 * i + 1];
            u = (u - shift - slope * (low(total[i]) - mean)) * rstd;
            v = (v - shift - slope * (high(total[i]) - mean)) * rstd;
            if (a.passed) {
                u += low(a.passed[row * n + i]);
                v += high(a.passed[row * n + i]);
            }
            dtotal[i] = both(u, v);
            if (a.dy) {
                a.dy[row * n + i] = both(a.factor * u, a.factor * v) & kept((word)(row * n + i), a.seed, a.least);
            }
        }
    }
}

void add_norm_backward(const word *grad, const word *total, const float *mean, const float *rstd, const float *weight,
                       word *dtotal, word *dy, const word *passed, i64 n_rows, i64 width, float factor, uint64_t seed,
                       word least, int threads) {
    norm_backward_args a = {grad, total, mean, rstd, weight, dtotal, dy, passed, width, factor, seed, least};
    in_parallel(norm_backward_body, &a, n_rows, 1, threads);
}

/* ---- int8 ---- */

typedef struct {
    const void *x;
    void *out;
    float *scales;
    i64 x_step, width;
} quantise_args;

/* By each row's largest magnitude, rounded to nearest. The scale of a row that is not all finite is NaN, and so are its
 * products. */
FAST static void quantise_rows(const void *data, i64 first, i64 last) {
    const quantise_args *a = data;
    for (i64 row = first; row < last; row++) {
        const word *x = (const word *)((const uint16_t *)a->x + row * a->x_step);
        uint16_t *restrict out = (uint16_t *)a->out + row * (a->width / 2);
        word most = 0;
        for (i64 i = 0; i < a->width / 2; i++) {
            word first_bits = x[i] & 0x7fffu, second_bits = (x[i] >> 16) & 0x7fffu;
            word larger = first_bits > second_bits ? first_bits : second_bits;
            most = larger > most ? larger : most;
        }
        float largest = bits_float(most << 16);
        int is_finite = most < 0x7f80u;
        float by = is_finite && largest > 0 ? 127.0f / largest : 0.0f;
        by = by < 3e38f ? by : 0.0f; /* of a subnormal row */
        a->scales[row] = !is_finite ? bits_float(0x7fc00000u) : by > 0 ? largest / 127.0f : 0.0f;
        for (i64 i = 0; i < a->width / 2; i++) {
            /* Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits. */
            word lower = float_bits((is_finite ? low(x[i]) : 0.0f) * by + 12582912.0f);
            word upper = float_bits((is_finite ? high(x[i]) : 0.0f) * by + 12582912.0f);
            out[i] = (uint16_t)((lower & 0xffu) | (upper & 0xffu) << 8);
        }
    }
}

void quantise(const void *x, i64 x_step, void *out, float *scales, i64 n_rows, i64 width, int threads) {
    quantise_args a = {x, out, scales, x_step, width};
    in_parallel(quantise_rows, &a, n_rows, 1, threads);
}

typedef struct {
    const int32_t *sums;
    const float *row_scales, *column_scales, *bias;
    const uint16_t *start;
    uint16_t *out;
    i64 width;
} rescale_args;

FAST static void rescale_rows(const void *data, i64 first, i64 last) {
    const rescale_args *a = data;
    const float *columns = a->column_scales, *bias = a->bias;
    for (i64 row = first; row < last; row++) {
        const int32_t *sums = a->sums + row * a->width;
        uint16_t *out = a->out + row * a->width; /* perhaps the rows of `start` */
        float by = a->row_scales[row];
        if (bias) {
#pragma omp simd
            for (i64 i = 0; i < a->width; i++) out[i] = (uint16_t)rounded((float)sums[i] * (by * columns[i]) + bias[i]);
        } else if (a->start) {
            const uint16_t *start = a->start + row * a->width;
#pragma omp simd
            for (i64 i = 0; i < a->width; i++)
                out[i] = (uint16_t)rounded((float)sums[i] * (by * columns[i]) + bits_float((word)start[i] << 16));
        } else {
#pragma omp simd
            for (i64 i = 0; i < a->width; i++) out[i] = (uint16_t)rounded((float)sums[i] * (by * columns[i]));
        }
    }
}

/* Sums of int8 products, scaled by row and column, plus a bias in float32 or rows in bfloat16. */
void rescale(const int32_t *sums, const float *row_scales, const float *column_scales, const float *bias,
             const uint16_t *start, uint16_t *out, i64 n_rows, i64 width, int threads) {
    rescale_args a = {sums, row_scales, column_scales, bias, start, out, width};
    in_parallel(rescale_rows, &a, n_rows, 1, threads);
}

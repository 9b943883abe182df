/* The product of products_in_vectors.c, for vectors.c and floats.c. */
#ifndef VECTORS_H
#define VECTORS_H

#include <math.h>

#include "calls.h"
#include "words.h"

#define LANES 16
#define LOG2_E 1.4426950408889634f

static inline i64 in_lanes(i64 n) { return (n + LANES - 1) / LANES * LANES; }

/* The left side of a product: element (row, k) is at[row * row_step + k * k_step]. */
typedef struct { const float *at; i64 row_step, k_step; } left;

/* out [rows, columns] = a times b [depth, columns], plus what it holds if `adds`; columns: a multiple of LANES. */
void multiply_all(left a, const float *b, i64 b_step, i64 n_rows, i64 depth, i64 n_columns, float *out, i64 out_step,
                  int adds);

/* 2^x for x <= 0: a polynomial on +-1/2 (Cephes' exp2f), times a power of 2. */
INLINE float power_of_2(float x) {
    x = x < -126.0f ? -126.0f : x;
    const float whole = floorf(x + 0.5f), part = x - whole;
    float y = 1.535336188319500e-4f;
    y = y * part + 1.339887440266574e-3f;
    y = y * part + 9.618437357674640e-3f;
    y = y * part + 5.550332471162809e-2f;
    y = y * part + 2.402264791363012e-1f;
    y = y * part + 6.931472028550421e-1f;
    y = y * part + 1.0f;
    return y * bits_float((word)((int32_t)whole + 127) << 23);
}

#endif

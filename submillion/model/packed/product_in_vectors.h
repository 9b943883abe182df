/* multiply_all of vectors.h in vectors of one width, a template: products_in_vectors.c includes it once for each. Set
 * before it and undefined behind it: NAME, TARGET (an attribute), FLOATS of a vector, and how many rows (TALL) and
 * vectors side by side (WIDE) keep their sums in registers. GCC keeps sums in memory if a vector is wider than a
 * register, which takes several times as long.
 */
#define JOINED(one, other) one##other
#define NAMED(name, part) JOINED(name, part)
#define VECTOR NAMED(NAME, _vector)
#define SOME_ROWS NAMED(NAME, _rows)
#define ALL_ROWS NAMED(NAME, _columns)

typedef float VECTOR __attribute__((vector_size(4 * FLOATS), aligned(4), may_alias));

/* n rows of n_wide vectors; both are constants where this is inlined. */
INLINE void SOME_ROWS(const int n, const int n_wide, left a, const float *b, i64 b_step, i64 depth, float *out, i64 out_step,
                      int adds) {
    VECTOR sums[TALL][WIDE];
#pragma GCC unroll 12
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < n_wide; j++) {
            sums[i][j] = adds ? *(const VECTOR *)(out + i * out_step + j * FLOATS) : (VECTOR){0};
        }
    }
    for (i64 k = 0; k < depth; k++) {
        const float *at = a.at + k * a.k_step, *right = b + k * b_step;
#pragma GCC unroll 12
        for (int i = 0; i < n; i++) {
#pragma GCC unroll 4
            for (int j = 0; j < n_wide; j++) sums[i][j] += at[i * a.row_step] * *(const VECTOR *)(right + j * FLOATS);
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < n_wide; j++) *(VECTOR *)(out + i * out_step + j * FLOATS) = sums[i][j];
    }
}

INLINE void ALL_ROWS(const int n_wide, left a, const float *b, i64 b_step, i64 n_rows, i64 depth, float *out, i64 out_step,
                     int adds) {
    for (; n_rows >= TALL; n_rows -= TALL, a.at += TALL * a.row_step, out += TALL * out_step) {
        SOME_ROWS(TALL, n_wide, a, b, b_step, depth, out, out_step, adds);
    }
    if (TALL > 6 && n_rows >= 6) {
        SOME_ROWS(least(TALL, 6), n_wide, a, b, b_step, depth, out, out_step, adds);
        n_rows -= 6, a.at += 6 * a.row_step, out += 6 * out_step;
    }
    if (TALL > 3 && n_rows >= 3) {
        SOME_ROWS(3, n_wide, a, b, b_step, depth, out, out_step, adds);
        n_rows -= 3, a.at += 3 * a.row_step, out += 3 * out_step;
    }
    if (n_rows == 2) SOME_ROWS(2, n_wide, a, b, b_step, depth, out, out_step, adds);
    if (n_rows == 1) SOME_ROWS(1, n_wide, a, b, b_step, depth, out, out_step, adds);
}

TARGET static void NAME(left a, const float *b, i64 b_step, i64 n_rows, i64 depth, i64 n_columns, float *out, i64 out_step,
                        int adds) {
    for (; n_columns >= WIDE * FLOATS; n_columns -= WIDE * FLOATS, b += WIDE * FLOATS, out += WIDE * FLOATS) {
        ALL_ROWS(WIDE, a, b, b_step, n_rows, depth, out, out_step, adds);
    }
#if WIDE * FLOATS > LANES
    if (n_columns > 0) ALL_ROWS(WIDE / 2, a, b, b_step, n_rows, depth, out, out_step, adds);
#endif
}

#undef JOINED
#undef NAMED
#undef VECTOR
#undef SOME_ROWS
#undef ALL_ROWS
#undef NAME
#undef TARGET
#undef FLOATS
#undef TALL
#undef WIDE

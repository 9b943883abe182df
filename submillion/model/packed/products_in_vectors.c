/* The one product of vectors.c and floats.c: float32, in vectors as wide as the processor's registers. Its sums stay in
 * registers. An element's terms are added in one order, whatever the width.
 */
#include "vectors.h"

#ifdef WITH_AVX512
#define NAME multiply_512
#define TARGET WITH_AVX512
#define FLOATS 16
#define TALL 12
#define WIDE 2
#include "product_in_vectors.h"

#define NAME multiply_256
#define TARGET WITH_AVX2
#define FLOATS 8
#define TALL 6
#define WIDE 2
#include "product_in_vectors.h"
#endif

#define NAME multiply_128
#define TARGET
#define FLOATS 4
#ifdef __aarch64__ /* with 32 registers */
#define TALL 6
#else
#define TALL 3
#endif
#define WIDE 4
#include "product_in_vectors.h"

static int widest = 16;

/* So that tests reach what other processors take: vectors of at most so many floats. */
void limit_vectors(int n_floats) { widest = n_floats; }

/* How many floats a vector has here. */
int vector_floats(void) {
#ifdef WITH_AVX512
    if (widest >= 16 && HAS_AVX512) return 16;
    if (widest >= 8 && HAS_AVX2) return 8;
#endif
    return 4;
}

void multiply_all(left a, const float *b, i64 b_step, i64 n_rows, i64 depth, i64 n_columns, float *out, i64 out_step,
                  int adds) {
    switch (vector_floats()) {
#ifdef WITH_AVX512
        case 16: multiply_512(a, b, b_step, n_rows, depth, n_columns, out, out_step, adds); return;
        case 8: multiply_256(a, b, b_step, n_rows, depth, n_columns, out, out_step, adds); return;
#endif
        default: multiply_128(a, b, b_step, n_rows, depth, n_columns, out, out_step, adds);
    }
}

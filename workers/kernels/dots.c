/* Products of rows for both types: dots_rows.h has the loops. A fused multiplication and addition
 * is rounded once wherever it is done, by an instruction or by the C library, so all machines give
 * the same bytes. */
#include "workers/kernels/dots.h"

#include <math.h>
#include <string.h>

#ifdef __x86_64__
#include <immintrin.h>
#define AVX2 __attribute__((target("avx2,fma")))
#endif

#define T float
#define VECTOR __m256
#define LANES 8
#define FMA _mm256_fmadd_ps
#define SET _mm256_set1_ps
#define LOAD _mm256_loadu_ps
#define FUSED fmaf
#define NAME(before, after) before##_float##after
#include "workers/kernels/dots_rows.h"
#undef T
#undef VECTOR
#undef LANES
#undef FMA
#undef SET
#undef LOAD
#undef FUSED
#undef NAME

#define T double
#define VECTOR __m256d
#define LANES 4
#define FMA _mm256_fmadd_pd
#define SET _mm256_set1_pd
#define LOAD _mm256_loadu_pd
#define FUSED fma
#define NAME(before, after) before##_double##after
#include "workers/kernels/dots_rows.h"

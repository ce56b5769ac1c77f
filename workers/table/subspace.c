/* Eigenvectors and orthonormal bases by LAPACK, products by OpenBLAS. PCA's map brings centred rows
 * to sm_subspace_add; its next asks for the following Q, and in the end for directions and
 * variances. */
#include "workers/table/subspace.h"

#include "lib/rng.h"
#include "workers/table/blas.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

static void turn_round(double *values, double *vectors, size_t n);
static void start_directions(uint64_t seed, double *q, size_t d, size_t l);

int sm_eigen(double *a, size_t n, double *values, struct sm_err *err) {
    const struct sm_blas *blas = sm_blas(err);
    if (blas == NULL) return -1;
    blasint d = (blasint)n, info = 0, lwork = -1, liwork = -1, isize = 0;
    double size = 0;
    /* row by row the lower half is column by column the upper one */
    blas->dsyevd("V", "U", &d, a, &d, values, &size, &lwork, &isize, &liwork, &info);
    lwork = (blasint)size;
    liwork = isize;
    double *work = malloc((size_t)lwork * sizeof *work);
    blasint *iwork = malloc((size_t)liwork * sizeof *iwork);
    if (work == NULL || iwork == NULL) {
        free(work);
        free(iwork);
        return sm_fail(err, SM_E_MEMORY, "no memory for the eigenvectors of %zu columns", n);
    }
    blas->dsyevd("V", "U", &d, a, &d, values, work, &lwork, iwork, &liwork, &info);
    free(work);
    free(iwork);
    if (info == 0) turn_round(values, a, n);
    if (info == 0) return 0;
    return sm_fail(err, SM_E_OP,
                   "the eigenvectors of %zu columns were not found (LAPACK's dsyevd says %d; hint: "
                   "are the numbers very large or very unlike in size? StandardScaler before it)",
                   n, (int)info);
}

int sm_subspace_begin(uint64_t seed, size_t d, size_t l, double *q, struct sm_err *err) {
    start_directions(seed, q, d, l);
    return sm_orthonormal(q, d, l, err);
}

int sm_subspace_add(const double *x, size_t rows, size_t d, size_t l, const double *q, double *w,
                    struct sm_err *err) {
    const struct sm_blas *blas = sm_blas(err);
    const blasint bd = (blasint)d, bl = (blasint)l, n = (blasint)rows;
    double *y = malloc((rows * l + 1) * sizeof *y);
    if (blas == NULL || y == NULL) {
        free(y);
        return blas == NULL ? -1 : sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    blas->dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, bl, bd, 1, x, bd, q, bl, 0, y, bl);
    blas->dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, bd, bl, n, 1, x, bd, y, bl, 1, w, bl);
    free(y);
    return 0;
}

int sm_orthonormal(double *w, size_t d, size_t l, struct sm_err *err) {
    const struct sm_blas *blas = sm_blas(err);
    const blasint m = (blasint)d, n = (blasint)l;
    blasint lwork = -1, info = 0;
    double size = 0;
    if (blas == NULL) return -1;
    double *columns = malloc((d * l + l) * sizeof *columns), *tau = columns + d * l;
    if (columns == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < d; i++)
        for (size_t k = 0; k < l; k++)
            columns[k * d + i] = w[i * l + k];
    blas->dgeqrf(&m, &n, columns, &m, tau, &size, &lwork, &info);
    lwork = (blasint)size + n;
    double *work = malloc((size_t)lwork * sizeof *work);
    if (work != NULL) {
        blas->dgeqrf(&m, &n, columns, &m, tau, work, &lwork, &info);
        blas->dorgqr(&m, &n, &n, columns, &m, tau, work, &lwork, &info);
    }
    for (size_t i = 0; work != NULL && i < d; i++)
        for (size_t k = 0; k < l; k++)
            w[i * l + k] = columns[k * d + i];
    const bool ok = work != NULL && info == 0;
    free(work);
    free(columns);
    return ok ? 0 : sm_fail(err, SM_E_OP, "the directions could not be made orthonormal");
}

/* By the eigenvectors of the small problem Q' C Q. */
int sm_subspace_end(const double *q, const double *w, size_t d, size_t l, double n, double *vectors,
                    double *values, struct sm_err *err) {
    const struct sm_blas *blas = sm_blas(err);
    const blasint bd = (blasint)d, bl = (blasint)l;
    double *small = calloc(l * l + 1, sizeof *small);
    if (blas == NULL || small == NULL) {
        free(small);
        return blas == NULL ? -1 : sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    blas->dgemm(CblasRowMajor, CblasTrans, CblasNoTrans, bl, bl, bd, 1 / (n - 1), q, bl, w, bl, 0,
                small, bl);
    int failed = sm_eigen(small, l, values, err);
    if (!failed)
        blas->dgemm(CblasRowMajor, CblasNoTrans, CblasTrans, bl, bd, bl, 1, small, bl, q, bl, 0,
                    vectors, bd);
    free(small);
    return failed;
}

/* From rising to falling values, none below nothing. */
static void turn_round(double *values, double *vectors, size_t n) {
    for (size_t i = 0; i < n / 2; i++) {
        double *a = vectors + i * n, *b = vectors + (n - 1 - i) * n;
        const double v = values[i];
        values[i] = values[n - 1 - i];
        values[n - 1 - i] = v;
        for (size_t k = 0; k < n; k++) {
            const double x = a[k];
            a[k] = b[k];
            b[k] = x;
        }
    }
    for (size_t i = 0; i < n; i++)
        if (values[i] < 0) values[i] = 0;
}

/* Normal numbers, each named by its place. */
static void start_directions(uint64_t seed, double *q, size_t d, size_t l) {
    for (size_t i = 0; i < d; i++)
        for (size_t k = 0; k < l; k++) {
            struct sm_rng rng = sm_rng_op(seed, 0, i, (uint32_t)k, SM_RNG_PCA);
            q[i * l + k] = sm_rng_normal(&rng);
        }
}

/* Blocks are centred by their own means, multiplied by OpenBLAS, and merged by the formula of Chan,
 * Golub and LeVeque. PCA's map brings the blocks; its merge joins what ranges have found. */
#include "workers/table/scatter.h"

#include "workers/kernels/rows.h"
#include "workers/table/blas.h"

#include <stdlib.h>
#include <string.h>

/* Merges n and the means; *factor becomes what products of the differences weigh, difference
 * (which may be other_mean) the difference of the means. */
static void means_merge(const struct sm_scatter *to, double n, const double *other_mean,
                        double *difference, double *factor) {
    const double all = *to->n + n;
    *factor = *to->n * n / all;
    for (size_t k = 0; k < to->columns; k++) {
        const double d = other_mean[k] - to->mean[k];
        to->mean[k] += d * n / all;
        *to->squares += *factor * d * d;
        difference[k] = d;
    }
    *to->n = all;
}

static void rows_merge(const struct sm_scatter *to, const double *scatter, double factor,
                       const double *d) {
    for (size_t i = 0; i < to->columns; i++) {
        const double fd = factor * d[i];
        double *row = to->scatter + i * to->columns;
        const double *other = scatter + i * to->columns;
        for (size_t k = 0; k <= i; k++)
            row[k] += other[k] + fd * d[k];
    }
}

void sm_scatter_merge(const struct sm_scatter *to, const struct sm_scatter *other) {
    double factor;
    if (*other->n == 0) return;
    *to->squares += *other->squares;
    means_merge(to, *other->n, other->mean, other->mean, &factor);
    if (to->scatter != NULL) rows_merge(to, other->scatter, factor, other->mean);
}

static void centre(const struct sm_scatter *to, double *x, size_t rows, double *mean) {
    const size_t columns = to->columns;
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < columns; k++)
            mean[k] += x[i * columns + k];
    for (size_t k = 0; k < columns; k++)
        mean[k] /= (double)rows;
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < columns; k++) {
            double *at = &x[i * columns + k];
            *at -= mean[k];
            *to->squares += *at * *at;
        }
}

int sm_scatter_add(const struct sm_scatter *to, double *x, size_t rows, struct sm_err *err) {
    const struct sm_blas *blas = sm_blas(err);
    const blasint d = (blasint)to->columns, n = (blasint)rows;
    const size_t square = to->scatter != NULL ? to->columns * to->columns : 0;
    if (blas == NULL) return -1;
    double *mean = calloc(to->columns + 1, sizeof *mean),
           *scatter = malloc((square + 1) * sizeof *scatter), factor;
    if (mean == NULL || scatter == NULL) {
        free(mean);
        free(scatter);
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    centre(to, x, rows, mean);
    if (square > 0)
        blas->dsyrk(CblasRowMajor, CblasLower, CblasTrans, d, n, 1, x, d, 0, scatter, d);
    means_merge(to, (double)rows, mean, mean, &factor);
    if (square > 0) rows_merge(to, scatter, factor, mean);
    free(mean);
    free(scatter);
    return 0;
}

/* Multiplies the centred rows and adds what comes out. d: differences of the means. */
static int products_add(const struct sm_scatter *to, const float *x, size_t rows, double factor,
                        const double *d, struct sm_err *err) {
    const struct sm_blas *blas = sm_blas(err);
    const blasint columns = (blasint)to->columns;
    if (blas == NULL) return -1;
    float *s = malloc((to->columns * to->columns + 1) * sizeof *s);
    if (s == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    blas->ssyrk(CblasRowMajor, CblasLower, CblasTrans, columns, (blasint)rows, 1, x, columns, 0, s,
                columns);
    for (size_t i = 0; i < to->columns; i++)
        sm_rows_scatter(to->scatter + i * to->columns, s + i * to->columns, i + 1, factor * d[i],
                        d);
    free(s);
    return 0;
}

int sm_scatter_add_float(const struct sm_scatter *to, const float *x, size_t rows,
                         struct sm_err *err) {
    const size_t columns = to->columns;
    double *mean = calloc(3 * columns + 1, sizeof *mean), *count = mean + columns,
           *squares = count + columns, factor;
    float *centred = malloc((rows * columns + 1) * sizeof *centred);
    int failed = mean == NULL || centred == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    if (!failed) {
        sm_rows_sums(x, rows, columns, count, mean);
        for (size_t k = 0; k < columns; k++)
            mean[k] /= (double)rows;
        if (to->scatter != NULL) {
            sm_rows_centre(x, rows, columns, mean, centred);
        } else {
            sm_rows_squares(x, rows, columns, mean, squares);
            for (size_t k = 0; k < columns; k++)
                *to->squares += squares[k];
        }
        means_merge(to, (double)rows, mean, mean, &factor);
        if (to->scatter != NULL) failed = products_add(to, centred, rows, factor, mean, err);
    }
    free(mean);
    free(centred);
    return failed;
}

/* OpenBLAS, loaded when the first row op needs it: with the program it would start threads in every
 * command and cage. One thread, since workers are processes; its core type is part of a worker's
 * fingerprint, because it decides bytes. */
#pragma once

#include "lib/err.h"

#include <cblas.h>

struct sm_blas {
    void (*sgemm)(CBLAS_ORDER, CBLAS_TRANSPOSE, CBLAS_TRANSPOSE, blasint m, blasint n, blasint k,
                  float alpha, const float *a, blasint lda, const float *b, blasint ldb, float beta,
                  float *c, blasint ldc);
    void (*dgemm)(CBLAS_ORDER, CBLAS_TRANSPOSE, CBLAS_TRANSPOSE, blasint m, blasint n, blasint k,
                  double alpha, const double *a, blasint lda, const double *b, blasint ldb,
                  double beta, double *c, blasint ldc);
    void (*ssyrk)(CBLAS_ORDER, CBLAS_UPLO, CBLAS_TRANSPOSE, blasint n, blasint k, float alpha,
                  const float *a, blasint lda, float beta, float *c, blasint ldc);
    void (*dsyrk)(CBLAS_ORDER, CBLAS_UPLO, CBLAS_TRANSPOSE, blasint n, blasint k, double alpha,
                  const double *a, blasint lda, double beta, double *c, blasint ldc);
    /* Fortran's LAPACK, column-major. */
    void (*dsyevd)(const char *jobz, const char *uplo, const blasint *n, double *a,
                   const blasint *lda, double *w, double *work, const blasint *lwork,
                   blasint *iwork, const blasint *liwork, blasint *info);
    void (*dgeqrf)(const blasint *m, const blasint *n, double *a, const blasint *lda, double *tau,
                   double *work, const blasint *lwork, blasint *info);
    void (*dorgqr)(const blasint *m, const blasint *n, const blasint *k, double *a,
                   const blasint *lda, const double *tau, double *work, const blasint *lwork,
                   blasint *info);
    char version[64]; /* "OpenBLAS 0.3.21 Haswell" */
};

/* Loads it once; any thread. SM_E_MISSING with a hint when the library is not there. */
const struct sm_blas *sm_blas(struct sm_err *err);

/* Loops of kmeans.c in one element type: included once for float, once for double, with T, INT (the
 * whole number of T's width), GEMM, PANELS, DOTS and NAME(x) defined. Nobody else includes it. */

/* scratch: k x d of T. */
static void NAME(centers_make)(struct sm_centers *c, const double *centers, T *scratch) {
    T *norms = c->norms;
    for (size_t j = 0; j < c->k; j++) {
        double norm = 0;
        for (size_t i = 0; i < c->d; i++) {
            const T v = (T)centers[j * c->d + i];
            scratch[j * c->d + i] = -2 * v;
            norm += (double)v * (double)v;
        }
        norms[j] = (T)norm;
    }
    PANELS(scratch, c->k, c->d, c->panels);
}

/* The place of the least of norms[j] + scores[j]; eight side by side, of equals the first. */
static uint32_t NAME(least)(const T *norms, const T *scores, size_t k) {
    T best[LANES];
    INT at[LANES];
    size_t j = 0;
    for (int l = 0; l < LANES; l++) {
        best[l] = (T)INFINITY;
        at[l] = 0;
    }
    for (; j + LANES <= k; j += LANES)
        for (int l = 0; l < LANES; l++) {
            const T v = norms[j + (size_t)l] + scores[j + (size_t)l];
            const INT take = -(INT)(v < best[l]);
            best[l] = v < best[l] ? v : best[l];
            at[l] = (at[l] & ~take) | ((INT)j & take);
        }
    T least = (T)INFINITY;
    size_t where = 0;
    for (int l = 0; l < LANES; l++) {
        const size_t there = (size_t)at[l] + (size_t)l;
        if (best[l] < least || (best[l] == least && there < where)) {
            least = best[l];
            where = there;
        }
    }
    for (; j < k; j++)
        if (norms[j] + scores[j] < least) {
            least = norms[j] + scores[j];
            where = j;
        }
    return where < k ? (uint32_t)where : 0;
}

static void NAME(assign)(struct sm_centers *c, const T *x, size_t n, uint32_t *labels) {
    T *scores = c->scores;
    for (size_t first = 0; first < n; first += PIECE_ROWS) {
        const size_t rows = n - first < PIECE_ROWS ? n - first : PIECE_ROWS;
        DOTS(x + first * c->d, rows, c->panels, c->k, c->d, scores);
        for (size_t i = 0; i < rows; i++)
            labels[first + i] = NAME(least)(c->norms, scores + i * c->k, c->k);
    }
}

static void NAME(add)(const T *x, size_t n, size_t d, const uint32_t *labels, double *sums,
                      double *counts) {
    for (size_t i = 0; i < n; i++) {
        const T *row = x + i * d;
        double *restrict sum = sums + labels[i] * d;
        for (size_t k = 0; k < d; k++)
            sum[k] += (double)row[k];
        counts[labels[i]]++;
    }
}

static double NAME(distance)(const T *row, size_t d, const double *center) {
    double sum = 0;
    for (size_t k = 0; k < d; k++) {
        const double v = (double)row[k] - center[k];
        sum += v * v;
    }
    return sum;
}

/* out[t][i]: squared distance of row i from the row tries[t]. */
static void NAME(distances_from)(const struct sm_blas *blas, const T *x, const double *lengths,
                                 size_t n, size_t d, const size_t *tries, size_t n_tries,
                                 T *scratch, double *out) {
    T *chosen = scratch, *scores = chosen + n_tries * d;
    for (size_t t = 0; t < n_tries; t++)
        memcpy(chosen + t * d, x + tries[t] * d, d * sizeof *chosen);
    blas->GEMM(CblasRowMajor, CblasNoTrans, CblasTrans, (blasint)n_tries, (blasint)n, (blasint)d,
               -2, chosen, (blasint)d, x, (blasint)d, 0, scores, (blasint)n);
    for (size_t t = 0; t < n_tries; t++)
        for (size_t i = 0; i < n; i++) {
            const double v = lengths[i] + lengths[tries[t]] + (double)scores[t * n + i];
            out[t * n + i] = v > 0 && i != tries[t] ? v : 0;
        }
}

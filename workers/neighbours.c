/* What rebalancing learns of a table's rows, in one process: neighbours, and what a category weighs
 * between them, or the scales of noise. The rows come from neighbours_rows.c, the search itself is
 * neighbours_search.c; neighbour_ranges.c learns the same by many processes. */
#include "workers/neighbours_state.h"

#include "workers/rebalance/method.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int scales_learn(struct search *s, struct sm_artifact *a, struct sm_arena *arena,
                        struct sm_err *err);
static int neighbours_learn(struct search *s, const struct sm_neighbours_watch *watch,
                            struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err);

int sm_neighbours_learn(const struct sm_places *places, const char *artifacts, const char *root,
                        const struct sm_neighbours_watch *watch, struct sm_artifact *artifact,
                        struct sm_arena *arena, struct sm_err *err) {
    struct search s;
    *artifact = (struct sm_artifact){0};
    int failed = search_open(&s, places, artifacts, root, err);
    if (!failed)
        failed = s.k > 0 ? neighbours_learn(&s, watch, artifact, arena, err)
                         : scales_learn(&s, artifact, arena, err);
    search_close(&s);
    return failed;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* What a category that differs adds to the squared distance of two rows of the class: the square of
 * the median of the standard deviations (over the class's rows, dividing by their number) of the
 * class's numbers. So imbalanced-learn computes it from 0.14 on (SMOTENC._fit_resample: each of the
 * two columns of the one-hot matrix in which the rows differ holds median / sqrt(2)), which is the
 * distance of SMOTE's paper, 6.1, for each class that rows are added to. Before, it took half of
 * that square, of the smallest class for all. */
int search_category_weight(struct search *s, struct sm_err *err) {
    double *spread = calloc(s->numbers + 1, sizeof *spread);
    if (spread == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int failed = search_moments(s, NULL, spread, err);
    for (size_t k = 0; k < s->numbers; k++)
        spread[k] = sqrt(spread[k]);
    qsort(spread, s->numbers, sizeof *spread, by_size);
    const double median = s->numbers == 0 ? 0
                          : s->numbers % 2
                              ? spread[s->numbers / 2]
                              : (spread[s->numbers / 2 - 1] + spread[s->numbers / 2]) / 2;
    s->category_weight = median * median;
    free(spread);
    if (!failed && !isfinite(s->category_weight))
        return sm_fail(err, SM_E_DATASET,
                       "class '%.60s' has numbers too large: their spread is no finite number "
                       "(hint: a smaller unit in the source)",
                       sm_index_class(sm_places_index(s->places), s->label));
    return failed;
}

int search_artifact(const struct search *s, const uint32_t *list, struct sm_artifact *a,
                    struct sm_arena *arena, struct sm_err *err) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    int64_t *offsets = sm_arena_alloc(arena, (r->classes + (size_t)1) * sizeof *offsets);
    if (offsets == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint32_t c = 0; c < r->classes; c++)
        offsets[c + 1] =
            offsets[c] + (r->of[c].drawn > r->of[c].present ? (int64_t)r->of[c].present : 0);
    sm_artifact_add(a, "offsets", SM_ARRAY_I64, r->classes + UINT64_C(1), 0, offsets);
    sm_artifact_add(a, "neighbours", SM_ARRAY_U32, (uint64_t)offsets[r->classes], s->k, list);
    return 0;
}

/* Of the class, which begins with row `from` of `rows` that are searched. out: n x k. */
static int class_search(struct search *s, const struct sm_neighbours_watch *watch, uint64_t from,
                        uint64_t rows, uint32_t *out, struct sm_err *err) {
    struct piece p = {0};
    const size_t most = search_block_rows(s);
    const bool one = s->n <= most;
    s->asked = s->n;
    int failed = one ? 0 : search_centre(s, err);
    if (!failed) failed = piece_make(s, &p, most, one ? 0 : most, err);
    for (uint64_t first = 0; !failed && first < s->n; first += p.q.rows.n) {
        failed =
            piece_begin(s, &p, first, s->n - first < most ? (size_t)(s->n - first) : most, err);
        int r = failed;
        while (r == 0) {
            r = piece_step(s, &p, err);
            const double share = (double)piece_step_at(s, &p) / (double)piece_steps(s, &p);
            if (r == 0 && watch != NULL && watch->told != NULL)
                watch->told(watch->context, from + first + (uint64_t)(share * (double)p.q.rows.n),
                            rows);
        }
        failed = r < 0;
        if (!failed) piece_end(s, &p, out + first * s->k);
    }
    piece_free(s, &p);
    return failed ? -1 : 0;
}

static int neighbours_learn(struct search *s, const struct sm_neighbours_watch *watch,
                            struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    uint64_t rows = 0;
    for (uint32_t c = 0; c < r->classes; c++)
        rows += search_class(s, c) ? s->n : 0;
    uint32_t *list = sm_arena_alloc(arena, (size_t)rows * s->k * sizeof *list + 1);
    if (list == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for the neighbours");
    int failed = 0;
    uint64_t from = 0;
    for (uint32_t c = 0; !failed && c < r->classes; c++) {
        if (!search_class(s, c)) continue;
        if (s->mixed) failed = search_category_weight(s, err);
        if (!failed) failed = class_search(s, watch, from, rows, list + from * s->k, err);
        from += s->n;
    }
    return failed ? -1 : search_artifact(s, list, a, arena, err);
}

/* Silverman's rule, as in imbalanced-learn: factor x (4 / ((d + 2) n))^(1 / (d + 4)) x the standard
 * deviation of the class, n samples in all. */
static int scales_learn(struct search *s, struct sm_artifact *a, struct sm_arena *arena,
                        struct sm_err *err) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    const struct sm_pipeline *p = sm_places_pipeline(s->places);
    const size_t d = s->schema->n;
    int64_t *offsets = sm_arena_alloc(arena, (r->classes + (size_t)1) * sizeof *offsets);
    double *scales = sm_arena_alloc(arena, r->classes * d * sizeof *scales + 1);
    const double n = (double)sm_places_part_samples(s->places),
                 smoothing = pow(4 / (((double)d + 2) * n), 1 / ((double)d + 4));
    if (offsets == NULL || scales == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint32_t c = 0; c < r->classes; c++) {
        const char *name = sm_index_class(sm_places_index(s->places), c);
        const double factor = sm_method_shrinkage(p->rebalance, name) * smoothing;
        const bool grows = r->of[c].drawn > r->of[c].present;
        offsets[c + 1] = offsets[c] + (grows ? (int64_t)r->of[c].present : 0);
        if (!grows) continue;
        s->label = c;
        s->n = r->of[c].present;
        if (search_moments(s, NULL, scales + c * d, err) != 0) return -1;
        for (size_t k = 0; k < d; k++)
            scales[c * d + k] = factor * sqrt(scales[c * d + k]);
    }
    sm_artifact_add(a, "offsets", SM_ARRAY_I64, r->classes + UINT64_C(1), 0, offsets);
    sm_artifact_add(a, "scales", SM_ARRAY_F64, r->classes, d, scales);
    return 0;
}

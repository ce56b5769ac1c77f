/* A lease of a FIT job: one range of one round of a fit, mapped block after block into its partial,
 * or of a search for neighbours, strip after strip; the partial is then the whole of the part, or
 * goes to the broker. Before: fit_input.c reads the rows. After: the fit that submitted the job
 * merges the partials (cli/fit_rounds.c). */
#include "workers/lease_state.h"

#include "lib/limits.h"

#include <assert.h>
#include <stdlib.h>

enum { ALIGN = 64 };

struct lease_fit {
    struct sm_fit_cursor cursor;
    struct sm_neighbours_range *range; /* of a search, instead */
    void *partial;
    size_t bytes;
};

int lease_fit_start(struct sm_lease *l, struct sm_err *err) {
    struct lease_fit *f = l->fit = calloc(1, sizeof *f);
    if (f == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (lease_is_skipped(l, l->range.first))
        return sm_fail(err, SM_E_DATASET, "workers died again and again over range %llu of a fit",
                       (unsigned long long)l->range.first);
    f->bytes = l->job.partial_bytes;
    f->partial = aligned_alloc(ALIGN, (f->bytes + ALIGN) / ALIGN * ALIGN);
    if (f->partial == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for a fit");
    if (l->job.search != NULL)
        return sm_neighbours_range_new(&f->range, l->job.search, l->job.fit_state, l->range.first,
                                       f->partial, err);
    return sm_fit_map_begin(&f->cursor, sm_fit_input_fit(l->job.fit),
                            sm_fit_input_context(l->job.fit), l->job.fit_state, l->range.first,
                            f->partial, err);
}

void lease_fit_free(struct sm_lease *l) {
    struct lease_fit *f = l->fit;
    if (f == NULL) return;
    sm_fit_map_end(&f->cursor);
    sm_neighbours_range_free(&f->range);
    free(f->partial);
    free(f);
    l->fit = NULL;
}

uint64_t lease_fit_row(const struct sm_lease *l) {
    const struct lease_fit *f = l->fit;
    return f->range != NULL ? sm_neighbours_range_at(f->range) : f->cursor.at;
}

void *sm_lease_take_partial(struct sm_lease *l, size_t *n) {
    struct lease_fit *f = l->fit;
    if (f == NULL || l->part != NULL) return NULL;
    assert(l->done == l->range.count);
    void *partial = f->partial;
    f->partial = NULL;
    *n = f->bytes;
    return partial;
}

/* As sm_fit_map_step. */
static int step(struct sm_lease *l, struct sm_err *err) {
    struct lease_fit *f = l->fit;
    if (f->range != NULL) return sm_neighbours_range_step(f->range, err);
    const struct sm_fit_rows rows = sm_fit_input_rows(l->job.fit);
    return sm_fit_map_step(&f->cursor, sm_fit_input_fit(l->job.fit),
                           sm_fit_input_context(l->job.fit), l->job.fit_state, &rows, f->partial,
                           err);
}

int lease_fit_step(struct sm_lease *l, struct sm_err *err) {
    struct lease_fit *f = l->fit;
    if (l->done == l->range.count) return 1;
    const int r = step(l, err);
    if (r <= 0) return r;
    if (l->part != NULL && sm_part_partial(l->part, f->partial, f->bytes, err) != 0) return -1;
    l->done = l->range.count;
    return 1;
}

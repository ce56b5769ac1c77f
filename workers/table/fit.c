/* Runs the rounds of a fit. Partials are merged as a binary counter counts: two of one level make
 * one of the next, so the tree is fixed by the number of ranges, and at most one partial a level
 * waits. */
#include "workers/table/fit.h"

#include "lib/limits.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEVELS = 64,
    ALIGN = 64,
    BLOCK_BYTES = 1 << 20, /* of a block: it stays in a core's cache */
    BLOCK_ROWS_MIN = 64,   /* below it a matrix product does not pay */
    BLOCK_ROWS_MAX = 8192,
    RANGE_BLOCKS = 4, /* at least, where there are so many rows */
    RANGES_MAX = 64,
    PARTIALS_BYTES = 256 << 20, /* of all ranges' partials together, about */
};

struct tree {
    const struct sm_fit *fit;
    const struct sm_fit_context *c;
    const struct sm_buf *state;
    size_t bytes;
    uint8_t *levels[LEVELS]; /* NULL: none waits there */
};

static int rounds_run(const struct sm_fit *fit, const struct sm_fit_context *c,
                      const struct sm_fit_rows *rows, const struct sm_fit_executor *executor,
                      struct sm_buf *state, struct sm_artifact *artifact, struct sm_arena *arena,
                      struct sm_err *err);

size_t sm_fit_block_rows(const struct sm_fit_context *c) {
    const size_t element = c->in->is_double ? sizeof(double) : sizeof(float);
    size_t n = BLOCK_BYTES / (c->in->n * element);
    if (n > BLOCK_ROWS_MAX) n = BLOCK_ROWS_MAX;
    return n < BLOCK_ROWS_MIN ? BLOCK_ROWS_MIN : n / BLOCK_ROWS_MIN * BLOCK_ROWS_MIN;
}

uint64_t sm_fit_range_rows(const struct sm_fit_context *c, size_t partial_bytes) {
    const uint64_t block = sm_fit_block_rows(c), blocks = (c->rows + block - 1) / block;
    uint64_t ranges = (blocks + RANGE_BLOCKS - 1) / RANGE_BLOCKS;
    const uint64_t room = PARTIALS_BYTES / (partial_bytes + 1) + 1;
    if (ranges > RANGES_MAX) ranges = RANGES_MAX;
    if (ranges > room) ranges = room;
    return (blocks + ranges - 1) / ranges * block;
}

uint64_t sm_fit_ranges(const struct sm_fit_context *c, size_t partial_bytes) {
    const uint64_t rows = sm_fit_range_rows(c, partial_bytes);
    return (c->rows + rows - 1) / rows;
}

int sm_fit_map_begin(struct sm_fit_cursor *cursor, const struct sm_fit *fit,
                     const struct sm_fit_context *c, const struct sm_buf *state, uint64_t range,
                     void *partial, struct sm_err *err) {
    const size_t bytes = fit->partial_bytes(c, state);
    const uint64_t length = sm_fit_range_rows(c, bytes), first = range * length,
                   end = first + length < c->rows ? first + length : c->rows;
    assert(first < c->rows);
    memset(partial, 0, bytes);
    *cursor = (struct sm_fit_cursor){.at = first, .end = end};
    return sm_rows_alloc(&cursor->block, sm_fit_block_rows(c), c->in->n, c->in->is_double, err);
}

int sm_fit_map_step(struct sm_fit_cursor *cursor, const struct sm_fit *fit,
                    const struct sm_fit_context *c, const struct sm_buf *state,
                    const struct sm_fit_rows *rows, void *partial, struct sm_err *err) {
    struct sm_rows used = cursor->block;
    const uint64_t left = cursor->end - cursor->at;
    if (left < used.n) used.n = (size_t)left;
    if (rows->read(rows->context, cursor->at, &used, err) != 0 ||
        fit->map(c, state, &used, cursor->at, partial, err) != 0)
        return -1;
    cursor->at += used.n;
    return cursor->at == cursor->end;
}

void sm_fit_map_end(struct sm_fit_cursor *cursor) {
    sm_rows_free(&cursor->block);
}

int sm_fit_map(const struct sm_fit *fit, const struct sm_fit_context *c, const struct sm_buf *state,
               const struct sm_fit_rows *rows, uint64_t range, void *partial, struct sm_err *err) {
    struct sm_fit_cursor cursor;
    int r = sm_fit_map_begin(&cursor, fit, c, state, range, partial, err);
    while (r == 0)
        r = sm_fit_map_step(&cursor, fit, c, state, rows, partial, err);
    sm_fit_map_end(&cursor);
    return r < 0 ? -1 : 0;
}

/* --- the tree --------------------------------------------------------------------------------- */

static void *partial_alloc(size_t bytes) {
    void *p = NULL;
    return posix_memalign(&p, ALIGN, (bytes + ALIGN - 1) / ALIGN * ALIGN + ALIGN) == 0 ? p : NULL;
}

/* Takes the partial of the next range; it belongs to the tree. */
static void tree_add(struct tree *t, uint8_t *partial) {
    for (int level = 0;; level++) {
        assert(level < LEVELS);
        uint8_t *before = t->levels[level];
        if (before == NULL) {
            t->levels[level] = partial;
            return;
        }
        t->fit->merge(t->c, t->state, before, partial);
        free(partial);
        t->levels[level] = NULL;
        partial = before;
    }
}

/* Gives the whole: what waits at lower levels comes after what waits above. */
static uint8_t *tree_end(struct tree *t) {
    uint8_t *whole = NULL;
    for (int level = 0; level < LEVELS; level++) {
        uint8_t *before = t->levels[level];
        if (before == NULL) continue;
        if (whole != NULL) t->fit->merge(t->c, t->state, before, whole);
        free(whole);
        whole = before;
        t->levels[level] = NULL;
    }
    return whole;
}

static void tree_free(struct tree *t) {
    for (int level = 0; level < LEVELS; level++)
        free(t->levels[level]);
}

static int round_here(struct tree *t, const struct sm_fit_rows *rows, uint64_t ranges,
                      struct sm_err *err) {
    for (uint64_t i = 0; i < ranges; i++) {
        uint8_t *partial = partial_alloc(t->bytes);
        if (partial == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for a fit");
        if (sm_fit_map(t->fit, t->c, t->state, rows, i, partial, err) != 0) {
            free(partial);
            return -1;
        }
        tree_add(t, partial);
    }
    return 0;
}

static int round_there(struct tree *t, const struct sm_fit_executor *executor, uint64_t ranges,
                       struct sm_err *err) {
    const size_t stride = (t->bytes + ALIGN - 1) / ALIGN * ALIGN;
    uint8_t *all = partial_alloc(stride * ranges);
    if (all == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for a fit");
    int failed =
        executor->round(executor->context, t->fit, t->c, t->state, ranges, stride, all, err);
    for (uint64_t i = 0; !failed && i < ranges; i++) {
        uint8_t *partial = partial_alloc(t->bytes);
        if (partial == NULL) failed = sm_fail(err, SM_E_MEMORY, "no memory for a fit");
        if (failed) break;
        memcpy(partial, all + i * stride, t->bytes);
        tree_add(t, partial);
    }
    free(all);
    return failed;
}

/* --- rounds ----------------------------------------------------------------------------------- */

int sm_fit_run(const struct sm_fit *fit, const struct sm_fit_context *c,
               const struct sm_fit_rows *rows, const struct sm_fit_executor *executor,
               struct sm_artifact *artifact, struct sm_arena *arena, struct sm_err *err) {
    struct sm_buf state;
    assert(c->rows > 0);
    *artifact = (struct sm_artifact){0};
    sm_buf_init(&state, SM_MAX_ARTIFACT_BYTES);
    int failed = fit->begin(c, &state, err);
    if (!failed) failed = rounds_run(fit, c, rows, executor, &state, artifact, arena, err);
    sm_buf_release(&state);
    return failed;
}

static int rounds_run(const struct sm_fit *fit, const struct sm_fit_context *c,
                      const struct sm_fit_rows *rows, const struct sm_fit_executor *executor,
                      struct sm_buf *state, struct sm_artifact *artifact, struct sm_arena *arena,
                      struct sm_err *err) {
    bool done = false;
    for (int round = 0; !done; round++) {
        if (round == SM_MAX_FIT_ROUNDS)
            return sm_fail(err, SM_E_INTERNAL, "a fit that does not end");
        struct tree tree = {fit, c, state, fit->partial_bytes(c, state), {NULL}};
        const uint64_t ranges = sm_fit_ranges(c, tree.bytes);
        int failed = executor != NULL ? round_there(&tree, executor, ranges, err)
                                      : round_here(&tree, rows, ranges, err);
        uint8_t *whole = failed ? NULL : tree_end(&tree);
        if (!failed) failed = fit->next(c, state, whole, &done, artifact, arena, err);
        if (!failed && state->full)
            failed = sm_fail(err, SM_E_TOO_LARGE, "what a fit keeps between rounds is too large");
        free(whole);
        tree_free(&tree);
        if (failed) return -1;
    }
    return 0;
}

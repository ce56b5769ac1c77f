/* The fit of one row op: rounds of map, merge, next. map sums one fixed range of rows into a
 * partial; partials are merged in a fixed binary tree over the ranges; next turns the merged
 * partial and the state into the state of the next round, or ends. Ranges depend on the data and
 * the op alone, never on who computes them: so the artifact's bytes are the same for any number of
 * workers. Before: cli/fit.c walks the pipeline's ops. After: artifact.h. */
#pragma once

#include "lib/buf.h"
#include "workers/table/artifact.h"
#include "workers/table/rows.h"

struct sm_fit_context {
    const void *params; /* of the op */
    const struct sm_schema *in;
    uint64_t rows; /* training rows, > 0 */
    uint64_t
        seed; /* for fits with chance (KMeans, randomized PCA): Philox, keyed by row and round */
};

/* Functions of an op that learns. state and partial are plain bytes, so that they can travel. */
struct sm_fit {
    /* Refuses what cannot be learned from (fewer rows than components…) and writes the state of
     * round 0. */
    int (*begin)(const struct sm_fit_context *c, struct sm_buf *state, struct sm_err *err);
    /* Bytes of a partial in the round of this state; zeroed before the first map. 64-byte aligned.
     */
    size_t (*partial_bytes)(const struct sm_fit_context *c, const struct sm_buf *state);
    /* Rows first … first + block->n - 1, in order, of one range. Called once or more for each
     * range. The block's size may differ between calls and must not show in the result beyond what
     * the caller fixes: it always cuts a range into the same blocks. */
    int (*map)(const struct sm_fit_context *c, const struct sm_buf *state,
               const struct sm_rows *block, uint64_t first, void *partial, struct sm_err *err);
    /* into takes in other, the range after it. */
    void (*merge)(const struct sm_fit_context *c, const struct sm_buf *state, void *into,
                  const void *other);
    /* The next state in place of this one, or *done with the artifact's arrays, whose data lies in
     * the arena. */
    int (*next)(const struct sm_fit_context *c, struct sm_buf *state, const void *merged,
                bool *done, struct sm_artifact *artifact, struct sm_arena *arena,
                struct sm_err *err);
};

/* Which rows make a range, and a block within it: a function of rows, columns and partial bytes. */
uint64_t sm_fit_range_rows(const struct sm_fit_context *c, size_t partial_bytes);
size_t sm_fit_block_rows(const struct sm_fit_context *c);

/* Where training rows come from: fills out (allocated, out->n rows wanted) with rows first … of the
 * matrix that enters the op, ops before it applied. */
struct sm_fit_rows {
    int (*read)(void *context, uint64_t first, struct sm_rows *out, struct sm_err *err);
    void *context;
};

/* How many ranges a round has whose partials have so many bytes. */
uint64_t sm_fit_ranges(const struct sm_fit_context *c, size_t partial_bytes);

/* One range of one round, block after block: what a FIT lease does. partial: partial_bytes of
 * memory. step gives 1 when the range is through, 0 when there is more, or -1. */
struct sm_fit_cursor {
    uint64_t at, end;
    struct sm_rows block; /* owned */
};
int sm_fit_map_begin(struct sm_fit_cursor *cursor, const struct sm_fit *fit,
                     const struct sm_fit_context *c, const struct sm_buf *state, uint64_t range,
                     void *partial, struct sm_err *err);
int sm_fit_map_step(struct sm_fit_cursor *cursor, const struct sm_fit *fit,
                    const struct sm_fit_context *c, const struct sm_buf *state,
                    const struct sm_fit_rows *rows, void *partial, struct sm_err *err);
void sm_fit_map_end(struct sm_fit_cursor *cursor);
/* All of that at once. */
int sm_fit_map(const struct sm_fit *fit, const struct sm_fit_context *c, const struct sm_buf *state,
               const struct sm_fit_rows *rows, uint64_t range, void *partial, struct sm_err *err);

/* Computes all partials of a round, in order of the ranges (n of them, `bytes` apart). The local
 * one calls sm_fit_map for one after the other; a broker's workers give the same bytes. */
struct sm_fit_executor {
    int (*round)(void *context, const struct sm_fit *fit, const struct sm_fit_context *c,
                 const struct sm_buf *state, uint64_t ranges, size_t bytes, void *partials,
                 struct sm_err *err);
    void *context;
};

/* All rounds. executor NULL: in this process, with `rows`, and partials merged as they come, so
 * that memory is O(log ranges) partials. Fills artifact, whose arrays live in the arena. */
int sm_fit_run(const struct sm_fit *fit, const struct sm_fit_context *c,
               const struct sm_fit_rows *rows, const struct sm_fit_executor *executor,
               struct sm_artifact *artifact, struct sm_arena *arena, struct sm_err *err);

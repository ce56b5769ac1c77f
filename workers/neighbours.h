/* What rebalancing learns from rows: the nearest neighbours of each row within its class (SMOTE,
 * SMOTENC), or how wide each class spreads (the noise of RandomOverSampler's shrinkage). Before:
 * the places are planned. After: an artifact, with which places.h and synthesis.h make synthetic
 * rows.
 *
 *   offsets     i64[classes + 1]  rows of class c are offsets[c] to offsets[c + 1] of neighbours
 *   neighbours  u32[rows, k]      numbers within the class, nearest first; of equals the first
 *   scales      f64[classes, columns]  standard deviation of the noise (instead of neighbours)
 *
 * A search may be cut into ranges of the rows of `neighbours`, each of which anybody can make by
 * itself (a lease of a FIT job). Distances are exact and equals go by number, so every way to
 * divide the work gives the same bytes. */
#pragma once

#include "lib/buf.h"
#include "workers/places.h"
#include "workers/table/artifact.h"

/* Who is told how many rows of how many are through; told may be NULL. */
struct sm_neighbours_watch {
    void (*told)(void *context, uint64_t done, uint64_t total);
    void *context;
};

/* Fills the arrays of artifact, in the arena. artifacts: folder with what the ops up to `after`
 * have learned (the pipeline says which), among whose rows the search then is; not looked at
 * without it. root: of the source; watch may be NULL. Classes that nothing is added to have no
 * neighbours. Distances are exact (float64), whatever the machine; memory beside the result, and
 * beside what those ops keep of their artifacts, stays below SM_MAX_NEIGHBOR_BYTES. A missing cell
 * is SM_E_DATASET naming column and count, a row that an op cannot take SM_E_DATASET naming the
 * row. */
int sm_neighbours_learn(const struct sm_places *places, const char *artifacts, const char *root,
                        const struct sm_neighbours_watch *watch, struct sm_artifact *artifact,
                        struct sm_arena *arena, struct sm_err *err);

/* --- in ranges (neighbour_ranges.c) ----------------------------------------------------------- */

/* What a search takes, from counts and columns alone: the same for everybody who has the index and
 * what the ops before the search have learned. */
struct sm_neighbours_plan {
    uint64_t rows; /* that are searched; 0: nothing is */
    uint32_t k;
    uint64_t artifact; /* bytes of the file */
    /* 0 while columns are not known, since an op before the search is yet to learn: */
    size_t row_bytes;
    uint64_t range_rows, ranges; /* a range may end in another class than it begins in */
    size_t partial_bytes;        /* u32[range_rows, k]; behind the last row zeros */
    uint64_t state_bytes;
    double here, there; /* multiplications in one process, where each pair of rows may be seen once
                           for both, and of all ranges together */
    uint64_t memory;    /* bytes in a process at most, beside the result */
};
struct sm_neighbours_plan sm_neighbours_plan(const struct sm_places *places, const char *artifacts);

struct sm_neighbours_search;
/* places: of a table, with a method that looks for neighbours; kept. */
int sm_neighbours_search_new(struct sm_neighbours_search **gives, const struct sm_places *places,
                             const char *artifacts, const char *root, struct sm_err *err);
void sm_neighbours_search_free(struct sm_neighbours_search **s);
const struct sm_neighbours_plan *sm_neighbours_search_plan(const struct sm_neighbours_search *s);
/* What all ranges go out from: means of the classes, and what a differing category weighs. Reads
 * the classes once and refuses missing cells. */
int sm_neighbours_state(struct sm_neighbours_search *s, struct sm_buf *state, struct sm_err *err);
/* The artifact from all partials, one behind the other; keeps them. Numbers that no class has are
 * refused. */
int sm_neighbours_finish(struct sm_neighbours_search *s, const uint32_t *partials,
                         struct sm_artifact *artifact, struct sm_arena *arena, struct sm_err *err);

/* One range. A step takes a fraction of a second and gives 1 when all of the partial is there, 0
 * when there is more, or -1. */
struct sm_neighbours_range;
/* Keeps s, state and partial (partial_bytes). */
int sm_neighbours_range_new(struct sm_neighbours_range **gives, struct sm_neighbours_search *s,
                            const struct sm_buf *state, uint64_t range, uint32_t *partial,
                            struct sm_err *err);
void sm_neighbours_range_free(struct sm_neighbours_range **r);
int sm_neighbours_range_step(struct sm_neighbours_range *r, struct sm_err *err);
/* Grows with each step. */
uint64_t sm_neighbours_range_at(const struct sm_neighbours_range *r);

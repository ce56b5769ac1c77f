/* The rows that stand at places of an epoch: those of the table, and synthetic ones, made out of a
 * parent and a neighbour (SMOTE, SMOTENC) or a parent and noise (a smoothed bootstrap). Before:
 * places.h says which. After: epoch_rows.h, which runs the ops, and for `after` makes synthetic
 * rows among what comes out of one of them with the arithmetic that stands here. */
#pragma once

#include "workers/places.h"
#include "workers/table/artifact.h"

/* Fills rows (as many as rows->n says) with what stands at the places. Each is a pure function of
 * its place, the dataset and what was learned. learned: NULL when no place is synthetic. */
int sm_placed_rows(const struct sm_places *places, struct sm_table *table,
                   const struct sm_artifact *learned, const struct sm_placed *placed,
                   struct sm_rows *rows, struct sm_err *err);

/* The same without the table, for rows that have come out of an op. Row i of rows holds the parent,
 * row j of `to` the neighbour; near: all neighbours of the parent from row `at` on, k of them,
 * whose categories are voted on (SMOTENC), NULL: SMOTE. */
struct sm_ends {
    const struct sm_rows *to, *near;
    size_t j, at, k;
};
void sm_row_between(const struct sm_schema *schema, const struct sm_ends *ends, double gap,
                    struct sm_rows *rows, size_t i);
/* How many neighbours a row has; 0: they are not known. */
size_t sm_neighbours_kept(const struct sm_artifact *learned);
/* The samples that the parent's neighbours are, as many. */
void sm_parent_neighbours(const struct sm_places *places, const struct sm_artifact *learned,
                          const struct sm_placed *placed, uint64_t *samples);

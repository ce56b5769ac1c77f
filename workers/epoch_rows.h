/* Blocks of an epoch's rows on their way from the table to what a trainer gets: read, made where
 * they are synthetic, run through the ops. With `after` of SMOTE and SMOTENC a synthetic row comes
 * into being between two ops: parent and neighbour go through those up to the one that is named,
 * what is made of them through the others. Before: places.h says what stands where. After: a lease
 * (lease_rows.c) or a preview stores the block. */
#pragma once

#include "workers/features.h"
#include "workers/places.h"
#include "workers/table/artifact.h"

struct sm_epoch_rows;

/* What it works with, kept. learned: NULL when no place is synthetic. */
struct sm_epoch_rows_from {
    const struct sm_places *places;
    struct sm_table *table;
    const struct sm_artifact *learned;
    struct sm_features *features; /* all ops */
};

/* most: rows of a block. Belongs to one thread, as table and features do. */
int sm_epoch_rows_new(struct sm_epoch_rows **gives, const struct sm_epoch_rows_from *from,
                      size_t most, struct sm_err *err);
void sm_epoch_rows_free(struct sm_epoch_rows **e);
/* Fills out with the rows at out->n <= most places. in: as many rows of the source, in which then
 * stands what went into the ops: of a row that is made behind one of them its parent. A row is a
 * pure function of its place, whatever stands beside it. A synthetic row has the fault of its
 * parent or of a neighbour that it is made of, too. */
int sm_epoch_rows_make(struct sm_epoch_rows *e, const struct sm_placed *placed, struct sm_rows *in,
                       struct sm_rows *out, struct sm_row_faults *faults, struct sm_err *err);

/* The rows that stand at places of an epoch: those of the table, and synthetic ones, made out of a
 * parent and a neighbour (SMOTE, SMOTENC) or a parent and noise (a smoothed bootstrap). Before:
 * places.h says which. After: they go through the ops. */
#pragma once

#include "workers/places.h"
#include "workers/table/artifact.h"

/* Fills rows (as many as rows->n says) with what stands at the places. Each is a pure function of
 * its place, the dataset and what was learned. learned: NULL when no place is synthetic. */
int sm_placed_rows(const struct sm_places *places, struct sm_table *table,
                   const struct sm_artifact *learned, const struct sm_placed *placed,
                   struct sm_rows *rows, struct sm_err *err);

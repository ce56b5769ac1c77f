/* Makes a synthetic row out of its parent and a neighbour (SMOTE, SMOTENC), or a parent and noise
 * (a smoothed bootstrap). Before: places.h says which. After: the row goes through the ops like any
 * other. */
#pragma once

#include "workers/places.h"
#include "workers/table/artifact.h"

/* Row i of rows holds the parent already; it becomes the synthetic row. A pure function of placed,
 * the dataset and what was learned. */
int sm_synthesize(const struct sm_places *places, struct sm_table *table,
                  const struct sm_artifact *neighbours, const struct sm_placed *placed,
                  struct sm_rows *rows, size_t i, struct sm_err *err);

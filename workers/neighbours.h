/* What rebalancing learns from rows: the nearest neighbours of each row within its class (SMOTE,
 * SMOTENC), or how wide each class spreads (the noise of RandomOverSampler's shrinkage). Before:
 * the places are planned. After: an artifact, with which places.h and synthesis.h make synthetic
 * rows.
 *
 *   offsets     i64[classes + 1]  rows of class c are offsets[c] to offsets[c + 1] of neighbours
 *   neighbours  u32[rows, k]      numbers within the class, nearest first; of equals the first
 *   scales      f64[classes, columns]  standard deviation of the noise (instead of neighbours) */
#pragma once

#include "workers/places.h"
#include "workers/table/artifact.h"

/* Fills the arrays of artifact, in the arena. root: of the source. Classes that nothing is added to
 * have no neighbours. Distances are exact (float64), whatever the machine; memory beside the result
 * stays below SM_MAX_NEIGHBOR_BYTES. A missing cell is SM_E_DATASET naming column and count. */
int sm_neighbours_learn(const struct sm_places *places, const char *root,
                        struct sm_artifact *artifact, struct sm_arena *arena, struct sm_err *err);

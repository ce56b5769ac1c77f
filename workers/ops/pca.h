/* What explain tells of PCA before it is fitted. pca.c decides. */
#pragma once

#include "workers/table/rows.h"

/* "covariance_eigh" or "randomized": the way that PCA with these parameters takes over these
 * columns. Lends. */
const char *sm_pca_route(const void *params, const struct sm_schema *in);

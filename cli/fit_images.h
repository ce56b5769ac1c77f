/* The features that images of the training part become before the first op on rows, made once by
 * the machinery of expand and kept in one file while ops are fitted. */
#pragma once

#include "cli/fit.h"

/* Makes DIR/features: float32 rows as Flatten leaves them, of the training part in the order of the
 * dataset; images that cannot be read are left out. Goes on where an interrupted call stopped. */
int sm_fit_images(const struct sm_pipeline *p, const struct sm_fit_options *options,
                  const char *dir, struct sm_err *err);
#define SM_FIT_FEATURES_NAME "features"

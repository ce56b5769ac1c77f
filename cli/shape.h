/* What comes out of a pipeline, before anything runs. */
#pragma once

#include "workers/ops/op.h"

/* Runs the shapes of all ops. Width and height are 0 where each sample has its own. */
int sm_shape_out(const struct sm_pipeline *p, struct sm_shape *shape, struct sm_err *err);
/* "224x224 RGB uint8"; "any size L float32" */
int sm_shape_text(const struct sm_pipeline *p, char *text, size_t max, struct sm_err *err);
/* Bytes of one sample as a tensor, 0 when the size is open. */
int64_t sm_shape_bytes(const struct sm_pipeline *p, const struct sm_shape *shape);
/* The words of the output's dtype. */
const char *sm_dtype_word(int dtype);

/* What comes out of a pipeline, before anything runs. */
#pragma once

#include "workers/engine.h"
#include "workers/ops/op.h"

/* Runs the shapes of all ops, then compiles the pipeline, as every run does. Width and height of
 * *shape are 0 where each sample has its own. path is for the error, which names the op's place.
 * engine may be NULL; else it is given. */
int sm_cli_compile(const struct sm_pipeline *p, const char *path, struct sm_shape *shape,
                   struct sm_engine **engine, struct sm_err *err);
/* "224x224 RGB uint8"; "any size L float32" */
void sm_shape_text(const struct sm_pipeline *p, const struct sm_shape *shape, char *text,
                   size_t max);
/* Bytes of one sample as a tensor, 0 when the size is open. */
int64_t sm_shape_bytes(const struct sm_pipeline *p, const struct sm_shape *shape);

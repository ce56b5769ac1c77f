/* The last look at a parsed pipeline: what `auto` means, and which parts of a file do not go
 * together. Before: pipeline.c has read every key. Private to it. */
#pragma once

#include "pipelines/lang/pipeline.h"
#include "pipelines/lang/yaml.h"

/* Resolves output.dtype and expand.encode; every contradiction is an error at the place of the key
 * or op that is wrong. */
int sm_pipeline_settle(struct sm_pipeline *p, const struct sm_text *text,
                       const struct sm_node *root, struct sm_err *err);

/* A pipeline as YAML for people to read, every default filled in. It parses to the same pipeline.
 */
#pragma once

#include "pipelines/lang/pipeline.h"

void sm_pipeline_yaml(const struct sm_pipeline *p, struct sm_buf *out);

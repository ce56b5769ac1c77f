/* What a trainer would see, on one picture. */
#pragma once

#include "lib/err.h"
#include "pipelines/lang/pipeline.h"

#include <stdbool.h>
#include <stdint.h>

struct sm_preview_options {
    const char *out_path;
    int64_t samples, copies; /* rows of the sheet, and augmented pictures beside each source */
    int64_t tile;            /* side in pixels of the square that a picture is fitted into */
    const char *class_name;  /* NULL: round robin over all classes, so that the rare ones show */
    uint32_t epoch;
    bool no_sandbox, no_fuse;
};

/* Each row: the source, then its copies, with class, file and what was drawn. A sample that cannot
 * be read shows why. Normalize is left out, and dtype and layout are those of a picture: the rest
 * is what the trainer gets. */
int sm_preview(const struct sm_pipeline *pipeline, const struct sm_preview_options *options,
               struct sm_err *err);

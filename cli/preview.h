/* What a trainer would see: images and features on one picture, rows of a table as text. */
#pragma once

#include "cli/cli.h"
#include "lib/err.h"
#include "pipelines/lang/pipeline.h"

#include <stdbool.h>
#include <stdint.h>

struct sm_preview_options {
    const char *out_path;    /* NULL: a table, to standard output */
    const char *state_dir;   /* where what the ops learn is kept */
    int64_t samples, copies; /* rows of the sheet, and augmented pictures beside each source */
    int64_t tile;            /* side in pixels of the square that a picture is fitted into */
    const char *class_name;  /* NULL: round robin over all classes, so that the rare ones show */
    uint32_t epoch;
    const struct sm_common *common; /* sandbox, fusing, workers of fits */
};

/* Of images each row is the source, then its copies, with class, file and what was drawn; copies
 * that rebalancing added say so. A sample that cannot be read shows why. Normalize is left out, and
 * dtype and layout are those of a picture: the rest is what the trainer gets. Of images that become
 * features: mean, components and variance of PCA, and samples beside what the features keep of
 * them. Of a table: the first rows of the epoch as read and as a trainer gets them (out_path:
 * *.txt, or
 * *.csv of the latter). Fits are made or found; pipeline gets its artifacts. */
int sm_preview(struct sm_pipeline *pipeline, const struct sm_preview_options *options,
               struct sm_err *err);

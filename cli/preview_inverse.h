/* Undoes row ops: from features back to the pixels before Flatten. Before: the fits, whose
 * artifacts it reads. After: preview_rows.c draws what comes out. */
#pragma once

#include "lib/err.h"
#include "lib/limits.h"
#include "pipelines/lang/pipeline.h"
#include "workers/table/artifact.h"

#include <stdbool.h>

/* One op backwards: y = shift + scale x (components^T (weight x z), or z). */
struct preview_undo {
    size_t in, out;           /* numbers of z and of y */
    double *shift, *scale;    /* owned, out numbers */
    double *weight;           /* owned, in numbers; NULL without components */
    const double *components; /* in x out, of the artifact */
    struct sm_artifact learned;
};

struct preview_inverse {
    int channels, height, width; /* of the image before Flatten */
    double mean[3], std[3];      /* of Normalize; pixel / 255 = mean + std x number */
    struct preview_undo steps[SM_MAX_OPS];
    size_t n;            /* ops that are undone; 0: none can be */
    size_t end;          /* top-level ops up to the last of them */
    bool has_mean;       /* features of 0 are the mean image */
    size_t components;   /* of PCA, the last op that is undone; 0: there is none */
    const double *ratio; /* explained variance ratio of each */
};

/* Reads the longest run of ops behind Flatten that can be undone, up to PCA: StandardScaler,
 * RobustScaler, MinMaxScaler and PCA over all columns. dir: of the artifacts. */
int preview_inverse_open(struct preview_inverse *v, const struct sm_pipeline *p, const char *dir,
                         struct sm_err *err);
void preview_inverse_release(struct preview_inverse *v);
/* z: the features after the ops that are undone; linear: without the shifts, for directions. x:
 * channels x height x width numbers as they leave Flatten. */
void preview_inverse_apply(const struct preview_inverse *v, const double *z, bool linear,
                           double *x);

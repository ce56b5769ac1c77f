/* What the kinds of preview share: the dataset, the samples that were chosen, the cages, the sheet.
 * Before: cmd_preview.c has loaded the pipeline. After: preview.c shows images, preview_rows.c
 * images that become features, preview_table.c rows of a table. */
#pragma once

#include "cli/dataset.h"
#include "cli/preview.h"
#include "cli/sheet.h"
#include "workers/cage.h"
#include "workers/places.h"

/* How a sample is drawn once: which copy, and whether rebalancing added it. */
struct preview_copy {
    uint32_t copy;
    bool added;
};

struct preview {
    struct sm_pipeline *pipeline;
    const struct sm_preview_options *options;
    struct sm_dataset data;
    char state[PATH_MAX], artifacts[PATH_MAX]; /* the folder of a pipeline that learns, and of what
                                                  its ops have learned */
    struct sm_artifact neighbours;
    bool has_neighbours;      /* of SMOTE */
    struct sm_places *places; /* of the training part */
    struct sm_plan plan;
    struct sm_reader *reader;
    struct sm_cage *augment,
        *shrink; /* the pipeline's cage, and the one for the source beside it */
    struct sm_sheet *sheet;
    uint64_t *samples;
    size_t n_samples;
    struct preview_copy *copies; /* options->copies of each sample */
    size_t *n_copies;            /* of each sample, how many of them there are */
};

/* Positions of an epoch that are looked through for what is asked for. */
enum { PREVIEW_SCAN_MAX = 1 << 22 };

/* The class of options->class_name, or the nearest name in an error. */
int preview_class(const struct preview *v, uint32_t *label, struct sm_err *err);
/* Fills samples: class by class in turns. */
int preview_choose(struct preview *v, struct sm_err *err);
int preview_cage(struct sm_cage **cage, const struct sm_pipeline *p,
                 const struct sm_preview_options *preview, struct sm_err *err);
/* The cage that shrinks the source to a tile. */
int preview_shrink(struct preview *v, struct sm_err *err);
/* The cell of the source, with class and file. A sample that cannot be read shows why. */
int preview_add_source(struct preview *v, uint64_t sample, struct sm_err *err);
/* One sample through one cage, waiting for it. out and draws are lent until the next. */
int preview_make(struct preview *v, struct sm_cage *cage, uint64_t sample, struct preview_copy copy,
                 struct sm_engine_result *result, const uint8_t **out, const char **draws,
                 struct sm_err *err);

int preview_rows(struct preview *v, struct sm_err *err);
int preview_table(struct preview *v, struct sm_err *err);

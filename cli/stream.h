/* A streaming job as it is submitted: the pipeline's dataset indexed, its batch laid out, its spec
 * and its id. serve, submit and replay make the same one from the same file. */
#pragma once

#include "cli/cli.h"
#include "cli/dataset.h"
#include "lib/batch.h"
#include "lib/wire.h"
#include "workers/places.h"

struct sm_stream {
    struct sm_pipeline pipeline;
    struct sm_dataset data;
    struct sm_places *places;     /* what an epoch consists of */
    struct sm_batch_header batch; /* of a full batch: shape and bytes */
    struct sm_buf json;
    char name[SM_MAX_NAME_BYTES + 1]; /* of the held-out part: NAME/val */
    char pipeline_digest[SM_XXH_HEX];
    uint64_t *counts;    /* of classes: present, then drawn; NULL when there are too many */
    char **names;        /* of classes; NULL when they are long; the index owns the texts */
    char id[SM_XXH_HEX]; /* of pipeline, dataset and seed: the same file again is the same job */
    char state[PATH_MAX];
    Shardmill__JobSpec spec; /* lends from all above */
};

struct sm_stream_options {
    const struct sm_common *common;
    const char *state_dir; /* holds the index; made when it is not there */
    const char *learned;   /* another folder where the same may have been fitted, or NULL */
    uint32_t epochs;       /* 0: without end */
    bool reindex;
    const volatile sig_atomic_t *stop; /* ends a fit; may be NULL */
};

/* Loads FILE, checks that its samples have one shape (a batch is one tensor), opens or builds the
 * index. *s is to be released in any case. */
int sm_stream_open(struct sm_stream *s, const char *file, const struct sm_stream_options *options,
                   struct sm_err *err);
void sm_stream_release(struct sm_stream *s);
/* Steps of an epoch for one rank of a world. */
uint64_t sm_stream_steps(const Shardmill__JobSpec *spec, uint32_t world_size);

/* A lease: the samples of some positions, made one after the other into a part of a shard (RANGE)
 * or into a batch in memory (STEP); of a FIT job a range of rows, mapped into a partial. It never
 * blocks for long: whoever drives it (shell.c) polls its descriptor and calls step. Comes after:
 * sinks/, which store parts, and batches.h, where batches lie. */
#pragma once

#include "lib/batch.h"
#include "lib/err.h"
#include "lib/plan.h"
#include "workers/cage.h"
#include "workers/features.h"
#include "workers/fit_input.h"
#include "workers/neighbours.h"
#include "workers/places.h"
#include "workers/sinks/sink.h"
#include "workers/sources/source.h"

#include <stdbool.h>
#include <stdint.h>

/* What the leases of one job have in common. Everything is kept. */
struct sm_lease_job {
    const struct sm_pipeline *pipeline;
    const struct sm_index *index;
    struct sm_reader *reader;
    struct sm_cage *cage; /* NULL for a table: nothing untrusted is left to parse */
    struct sm_plan plan;
    const struct sm_places *places;
    struct sm_features *features;           /* NULL: images leave the pipeline */
    const struct sm_row_format *row_format; /* of rows in shards, else NULL */
    struct sm_table *table;                 /* of a table */
    const struct sm_artifact *neighbours;   /* of SMOTE, else NULL */
    /* of a FIT job, which has no places, one of both: */
    struct sm_fit_input *fit;
    struct sm_neighbours_search *search;
    const struct sm_buf *fit_state; /* of its round; NULL: no FIT job */
    size_t partial_bytes;
    const char *out_dir; /* of a FIT job "": the partial is not written but taken */
};

/* Where a STEP lease's batch goes. header is laid out, and its epoch, step and first are set. */
struct sm_batch_place {
    uint8_t *memory; /* header.bytes of it, aligned; kept */
    struct sm_batch_header header;
};

struct sm_range {
    struct sm_part_name
        part;  /* of a batch only first and count: global indices, see plan_position */
    bool last; /* the part ends its shard */
    const struct sm_batch_place *batch; /* NULL: a part of a shard */
    const uint64_t *
        skip; /* positions whose sample is taken as quarantined without being read; sorted or not */
    size_t n_skip;
};

/* A sample that could not be made, and what fills its place. */
struct sm_quarantined {
    uint64_t position, sample, substitute;
    enum sm_code code;
    char stage[8];                               /* read, decode, ops, cage, worker */
    char text[SM_MAX_QUARANTINE_TEXT_BYTES + 1]; /* never empty */
};

struct sm_lease;

/* Starts: reads the first sample and hands it to the cage. Keeps job; range is copied, skip too. */
int sm_lease_start(struct sm_lease **gives, const struct sm_lease_job *job,
                   const struct sm_range *range, struct sm_err *err);
/* Throws the part away and waits for nothing: the sample in the cage, if any, is finished or its
 * cage ended. */
void sm_lease_free(struct sm_lease **l);

/* When to call step: the descriptor is readable, or the time (milliseconds) is over. */
int sm_lease_fd(const struct sm_lease *l);
int sm_lease_wait_ms(const struct sm_lease *l);
/* 1: every sample is in the part; 0: not yet; -1: the lease failed. */
int sm_lease_step(struct sm_lease *l, struct sm_err *err);

uint32_t sm_lease_done(const struct sm_lease *l); /* samples finished */
/* In work; of a FIT job's lease the row or, in a search for neighbours, the step, so that a long
 * range shows that it moves. */
uint64_t sm_lease_position(const struct sm_lease *l);

/* Lends the quarantined ones, in order of position, until the lease is freed. */
const struct sm_quarantined *sm_lease_quarantined(const struct sm_lease *l, size_t *n);
/* After step gave 1: gives the open part, to be finished by whoever may wait for the disk. */
struct sm_part *sm_lease_take_part(struct sm_lease *l);
/* The same of a FIT job's lease: gives the partial, of n bytes (free), instead of a part where the
 * job has no out_dir, else NULL. */
void *sm_lease_take_partial(struct sm_lease *l, size_t *n);
/* The same of a batch: it is whole, its header the last that was written. Fills its digest. */
void sm_lease_finish_batch(struct sm_lease *l, char digest[SM_XXH_HEX]);

/* A job as a worker knows it: its spec, the parsed pipeline, the index, a reader and a cage.
 * Fetched once, kept while leases of it come, and made again at no loss. */
#pragma once

#include "lib/wire.h"
#include "workers/fetched.h"
#include "workers/job_learned.h"
#include "workers/lease.h"

#include <stdbool.h>

struct sm_job_options {
    bool no_sandbox, no_fuse;
    uint64_t cage_memory;
    struct sm_job *const
        *others; /* n_others jobs, some NULL, that may have opened the same index */
    size_t n_others;
};

enum sm_job_state {
    SM_JOB_ASK_SPEC,  /* JobGet is to be sent */
    SM_JOB_ASK_FILES, /* FileGet is to be sent, as sm_job_ask_piece says */
    SM_JOB_READY,     /* leases may run */
    SM_JOB_BROKEN,    /* err says why */
};

/* An index that has been opened and verified; rounds of a fit, jobs of their own, share it. */
struct sm_job_index {
    unsigned users;
    struct sm_index *index;
    struct sm_fetched fetched; /* when it is not at its path */
};

struct sm_job {
    char *id;
    enum sm_job_state state;
    struct sm_err err;
    int64_t asked_ms;             /* when the last question was sent; 0: never */
    uint64_t used;                /* when last, by the cache's count */
    Shardmill__Envelope *message; /* owns the spec */
    const Shardmill__JobSpec *spec;
    struct sm_pipeline pipeline;
    struct sm_job_index *shared;
    struct sm_index *index; /* shared's; NULL as long as it is not there */
    struct sm_job_learned learned;
    struct sm_places *places;
    struct sm_features *features; /* NULL: images leave the pipeline */
    struct sm_table *table;
    struct sm_artifact neighbours;
    bool has_neighbours;
    struct sm_fit_input *fit;            /* of a FIT job */
    struct sm_neighbours_search *search; /* of a search for neighbours, instead */
    struct sm_buf fit_state;
    struct sm_row_format row_format;
    const char **classes;         /* of row_format */
    struct sm_lease_job lease;    /* what leases need; lends from all above */
    struct sm_batch_header batch; /* STREAM: laid out for batch_size samples */
};

/* Gives a job of which nothing is known but its id. */
struct sm_job *sm_job_new(const char *id);
void sm_job_free(struct sm_job **job);
/* Takes the message, whose body is the Job. */
void sm_job_take_spec(struct sm_job *job, sm_envelope **message,
                      const struct sm_job_options *options);
/* Fills what FileGet asks for next: of the index, an artifact, or the state of a fit. */
void sm_job_ask_piece(const struct sm_job *job, Shardmill__FileGet *m);
/* A piece of what was asked for; others are ignored. An empty one: ask again. */
void sm_job_take_piece(struct sm_job *job, const Shardmill__FileChunk *m,
                       const struct sm_job_options *options);
/* Whether a lease lies within the job's plan. */
int sm_job_check_lease(const struct sm_job *job, const Shardmill__Lease *m, struct sm_err *err);

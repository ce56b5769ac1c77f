/* A batch that a trainer saw, made again: the job as a worker gets to know it, one STEP lease in
 * this process, its cages, and what can be done with the result. */
#pragma once

#include "lib/batch.h"
#include "workers/job.h"

struct sm_replay {
    struct sm_job *job;
    struct sm_batch_header batch;
    uint8_t *memory; /* the batch, header included */
    char digest[SM_XXH_HEX];
    uint32_t padding;
};

struct sm_replay_step {
    uint32_t epoch, rank, world_size;
    uint64_t step, position; /* where the trainers entered the epoch, 0: at its start */
};

/* The job of a pipeline file, or of a broker. *r is to be released in any case. */
int sm_replay_open_spec(struct sm_replay *r, const char *id, Shardmill__JobSpec *spec,
                        bool no_sandbox, struct sm_err *err);
int sm_replay_open_job(struct sm_replay *r, const char *endpoint, const char *name, bool no_sandbox,
                       struct sm_err *err);
int sm_replay_make(struct sm_replay *r, const struct sm_replay_step *step, struct sm_err *err);
/* The tensor as an .npy file. */
int sm_replay_write_tensor(const struct sm_replay *r, const char *path, struct sm_err *err);
/* The importance weights likewise: float32, one for each sample. SM_E_USAGE when the job's batches
 * carry none. */
int sm_replay_write_weights(const struct sm_replay *r, const char *path, struct sm_err *err);
/* The samples as pictures, with class, file and position. Floats are stretched to 0..255. */
int sm_replay_write_sheet(const struct sm_replay *r, const char *path, struct sm_err *err);
void sm_replay_release(struct sm_replay *r);

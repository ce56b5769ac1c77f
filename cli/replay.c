/* Makes a batch as a worker would: the same job.c, lease.c and cage.c, without a broker between.
 * Before: cli/cmd_replay.c says which step. After: replay_show.c writes it. */
#include "cli/replay.h"

#include "cli/client.h"
#include "lib/steps.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { PATIENCE_MS = 5000 };

static int index_fetch(struct sm_replay *r, struct sm_client *client,
                       const struct sm_job_options *options, struct sm_err *err);
static int job_check(const struct sm_replay *r, struct sm_err *err);
static int lease_run(struct sm_replay *r, struct sm_err *err);

int sm_replay_open_spec(struct sm_replay *r, const char *id, Shardmill__JobSpec *spec,
                        bool no_sandbox, struct sm_err *err) {
    memset(r, 0, sizeof *r);
    Shardmill__Job job = SHARDMILL__JOB__INIT;
    job.job = (char *)id;
    job.spec = spec;
    sm_envelope m = SHARDMILL__ENVELOPE__INIT;
    m.protocol = SM_PROTOCOL;
    m.body_case = SHARDMILL__ENVELOPE__BODY_JOB;
    m.job = &job;
    uint8_t *bytes = malloc(SM_MAX_MESSAGE_BYTES);
    size_t n = bytes != NULL ? sm_wire_pack(&m, bytes, SM_MAX_MESSAGE_BYTES) : 0;
    sm_envelope *message = n > 0 ? sm_wire_unpack(bytes, n, err) : NULL;
    free(bytes);
    if (message == NULL) return sm_fail(err, SM_E_PIPELINE, "the pipeline is too long");
    const struct sm_job_options options = {.no_sandbox = no_sandbox};
    r->job = sm_job_new(id);
    if (r->job != NULL) sm_job_take_spec(r->job, &message, &options);
    sm_wire_free(&message);
    return job_check(r, err);
}

int sm_replay_open_job(struct sm_replay *r, const char *endpoint, const char *name, bool no_sandbox,
                       struct sm_err *err) {
    memset(r, 0, sizeof *r);
    struct sm_client *client = NULL;
    sm_envelope *answer = NULL;
    char id[SM_MAX_JOB_ID_BYTES + 1];
    Shardmill__JobGet get = SHARDMILL__JOB_GET__INIT;
    get.job = id;
    sm_envelope m = SHARDMILL__ENVELOPE__INIT;
    m.protocol = SM_PROTOCOL;
    m.body_case = SHARDMILL__ENVELOPE__BODY_JOB_GET;
    m.job_get = &get;
    const struct sm_job_options options = {.no_sandbox = no_sandbox};
    int result = sm_client_new(&client, endpoint, NULL, err);
    if (result == 0) result = sm_client_find(client, name, PATIENCE_MS, id, err);
    if (result == 0)
        result =
            sm_client_ask(client, &m, SHARDMILL__ENVELOPE__BODY_JOB, PATIENCE_MS, &answer, err);
    if (result == 0 && (r->job = sm_job_new(id)) != NULL) {
        sm_job_take_spec(r->job, &answer, &options);
        result = index_fetch(r, client, &options, err);
    }
    if (answer != NULL) sm_wire_free(&answer);
    sm_client_free(&client);
    return result < 0 ? -1 : job_check(r, err);
}

/* Piece by piece, when the index or an artifact does not lie where the submitter wrote it. */
static int index_fetch(struct sm_replay *r, struct sm_client *client,
                       const struct sm_job_options *options, struct sm_err *err) {
    Shardmill__FileGet get = SHARDMILL__FILE_GET__INIT;
    sm_envelope m = SHARDMILL__ENVELOPE__INIT;
    m.protocol = SM_PROTOCOL;
    m.body_case = SHARDMILL__ENVELOPE__BODY_FILE_GET;
    m.file_get = &get;
    while (r->job->state == SM_JOB_ASK_FILES) {
        sm_envelope *answer = NULL;
        sm_job_ask_piece(r->job, &get);
        if (sm_client_ask(client, &m, SHARDMILL__ENVELOPE__BODY_FILE_CHUNK, PATIENCE_MS, &answer,
                          err) < 0)
            return -1;
        sm_job_take_piece(r->job, answer->file_chunk, options);
        sm_wire_free(&answer);
    }
    return 0;
}

static int job_check(const struct sm_replay *r, struct sm_err *err) {
    if (r->job == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (r->job->state == SM_JOB_BROKEN) {
        *err = r->job->err;
        return -1;
    }
    if (r->job->state != SM_JOB_READY)
        return sm_fail(err, SM_E_DATASET, "the index of job '%s' is not there", r->job->id);
    if (r->job->spec->kind != SHARDMILL__JOB_KIND__STREAM)
        return sm_fail(
            err, SM_E_USAGE,
            "job '%s' makes shards, it has no steps (hint: its shards say what was drawn)",
            r->job->id);
    return 0;
}

int sm_replay_make(struct sm_replay *r, const struct sm_replay_step *which, struct sm_err *err) {
    const Shardmill__JobSpec *spec = r->job->spec;
    if (which->position > spec->samples)
        return sm_fail(err, SM_E_USAGE, "--position is %" PRIu64 ", the epoch has %" PRIu64,
                       which->position, spec->samples);
    if (spec->epochs > 0 && which->epoch >= spec->epochs)
        return sm_fail(err, SM_E_USAGE, "--epoch is %u, the job has %u (from 0 on)", which->epoch,
                       spec->epochs);
    const struct sm_steps steps = {.positions = spec->samples,
                                   .entered = which->position,
                                   .batch_size = spec->batch_size,
                                   .world_size = which->world_size,
                                   .drop_last = spec->drop_last};
    uint64_t n = sm_steps_count(&steps);
    if (which->step >= n)
        return sm_fail(err, SM_E_USAGE,
                       "--step is %" PRIu64 ", the epoch has %" PRIu64 " for each of %u trainers",
                       which->step, n, which->world_size);
    const struct sm_step step = sm_steps_at(&steps, which->rank, which->step);
    r->batch = r->job->batch;
    r->batch.epoch = which->epoch;
    r->batch.step = which->step;
    r->batch.first = step.first;
    r->padding = step.padding;
    if (sm_batch_layout(&r->batch, err) < 0) return -1;
    if (posix_memalign((void **)&r->memory, SM_BATCH_ALIGN, r->batch.bytes) != 0)
        return sm_fail(err, SM_E_MEMORY, "no memory for a batch of %" PRIu64 " bytes",
                       r->batch.bytes);
    return lease_run(r, err);
}

static int lease_run(struct sm_replay *r, struct sm_err *err) {
    const struct sm_batch_place place = {.memory = r->memory, .header = r->batch};
    const struct sm_range range = {.part = {.first = r->batch.first, .count = r->batch.count},
                                   .batch = &place};
    struct sm_lease *lease = NULL;
    int made = sm_lease_start(&lease, &r->job->lease, &range, err);
    while (made == 0) {
        struct pollfd fd = {.fd = sm_lease_fd(lease), .events = POLLIN};
        if (poll(&fd, 1, sm_lease_wait_ms(lease)) < 0 && errno != EINTR) {
            made = sm_fail_errno(err, "cannot wait for the cage");
            break;
        }
        made = sm_lease_step(lease, err);
    }
    if (made == 1) sm_lease_finish_batch(lease, r->digest);
    sm_lease_free(&lease);
    return made == 1 ? 0 : -1;
}

void sm_replay_release(struct sm_replay *r) {
    sm_job_free(&r->job);
    free(r->memory);
    r->memory = NULL;
}

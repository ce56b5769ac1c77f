/* What each journaled fact does to the state. A live step persists a fact and applies it here; a
 * restarted broker replays its journal through the same function, so both end in the same state. */
#include "broker/state.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static int job_apply(struct sm_core *core, const struct sm_record *r, struct sm_err *err);
static int done_apply(struct job *job, const struct sm_record *r, struct sm_err *err);
static int sealed_apply(struct job *job, const struct sm_record *r, struct sm_err *err);
static int remake_apply(struct job *job, const struct sm_record *r, struct sm_err *err);
static void poison_apply(struct job *job, const struct sm_record *r);
static int run_apply(struct job *job, const struct sm_record *r, struct sm_err *err);
static int commit_apply(struct job *job, const struct sm_record *r, struct sm_err *err);

int core_record_apply(struct sm_core *core, const struct sm_record *r, struct sm_err *err) {
    if (r->kind == SM_RECORD_JOB) return job_apply(core, r, err);
    struct job *job = core_job_find(core, r->job);
    if (job == NULL) return sm_fail(err, SM_E_INTERNAL, "a record of the unknown job '%s'", r->job);
    switch (r->kind) {
    case SM_RECORD_STATE:
        job->state = r->state;
        job->code = r->code;
        free(job->text);
        job->text = core_strdup(r->text != NULL ? r->text : "");
        return 0;
    case SM_RECORD_FINGERPRINT:
        free(job->fingerprint);
        job->fingerprint = core_strdup(r->text);
        return 0;
    case SM_RECORD_DONE:
        return done_apply(job, r, err);
    case SM_RECORD_SEALED:
        return sealed_apply(job, r, err);
    case SM_RECORD_REMAKE:
        return remake_apply(job, r, err);
    case SM_RECORD_QUARANTINE:
        poison_apply(job, r);
        return 0;
    case SM_RECORD_FORGET:
        core_job_free(core, job);
        return 0;
    case SM_RECORD_RUN:
        return run_apply(job, r, err);
    case SM_RECORD_COMMIT:
        return commit_apply(job, r, err);
    case SM_RECORD_JOB:
        break;
    }
    return sm_fail(err, SM_E_INTERNAL, "a record of the unknown kind %d", (int)r->kind);
}

struct quarantined core_quarantined_copy(Shardmill__Quarantined *const *items, size_t n) {
    struct quarantined q = {.n = n};
    if (n == 0) return q;
    size_t bytes = n * (sizeof *q.items + sizeof **q.items);
    for (size_t i = 0; i < n; i++)
        bytes += strlen(items[i]->stage) + strlen(items[i]->text) + 2;
    q.items = core_calloc(1, bytes);
    Shardmill__Quarantined *structs = (void *)(q.items + n);
    char *text = (char *)(structs + n);
    for (size_t i = 0; i < n; i++) {
        q.items[i] = &structs[i];
        structs[i] = *items[i];
        structs[i].base.n_unknown_fields = 0;
        structs[i].base.unknown_fields = NULL;
        structs[i].stage = text;
        text = stpcpy(text, items[i]->stage) + 1;
        structs[i].text = text;
        text = stpcpy(text, items[i]->text) + 1;
    }
    return q;
}

static int job_apply(struct sm_core *core, const struct sm_record *r, struct sm_err *err) {
    if (core_job_find(core, r->job) != NULL)
        return sm_fail(err, SM_E_INTERNAL, "the job '%s' is recorded twice", r->job);
    Shardmill__JobSpec *spec = shardmill__job_spec__unpack(NULL, r->spec_n, r->spec);
    if (spec == NULL)
        return sm_fail(err, SM_E_INTERNAL, "the spec of job '%s' does not unpack", r->job);
    if (core_job_new(core, r->job, spec) == NULL) {
        shardmill__job_spec__free_unpacked(spec, NULL);
        return sm_fail(err, SM_E_INTERNAL, "the spec of job '%s' is not valid", r->job);
    }
    return 0;
}

static struct shard *shard_find(struct job *job, uint64_t number, uint64_t *ordinal,
                                struct sm_err *err) {
    if (core_job_holds(job, number, ordinal)) return &job->shards[*ordinal];
    sm_fail(err, SM_E_INTERNAL, "shard %llu is none of job '%s'", (unsigned long long)number,
            job->id);
    return NULL;
}

static int done_apply(struct job *job, const struct sm_record *r, struct sm_err *err) {
    uint64_t ordinal;
    struct shard *shard = shard_find(job, r->shard, &ordinal, err);
    if (shard == NULL) return -1;
    if (shard->sealed)
        return sm_fail(err, SM_E_INTERNAL, "a part of the sealed shard %llu",
                       (unsigned long long)r->shard);
    struct open_shard *open = core_shard_open(job, ordinal);
    if (r->count == 0 || r->first < open->first || r->count > open->first + open->count - r->first)
        return sm_fail(err, SM_E_INTERNAL, "a part outside of shard %llu",
                       (unsigned long long)r->shard);
    struct work *range = core_range_insert(open, r->first, r->count);
    if (range == NULL)
        return sm_fail(err, SM_E_INTERNAL, "two parts of shard %llu overlap at position %llu",
                       (unsigned long long)r->shard, (unsigned long long)r->first);
    range->state = WORK_DONE;
    range->generation = r->generation;
    range->bytes = r->bytes;
    strncpy(range->sha256, r->sha256, sizeof range->sha256 - 1);
    range->quarantined = core_quarantined_copy(r->quarantined, r->n_quarantined);
    open->done += r->count;
    job->made += r->count;
    job->quarantined += r->n_quarantined;
    job->cages += r->cages;
    core_shard_check(open);
    return 0;
}

void core_hex_bytes(const char *hex, uint8_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned v = 0;
        for (int k = 0; k < 2; k++) {
            char c = hex[2 * i + (size_t)k];
            v = v * 16 + (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
        }
        out[i] = (uint8_t)v;
    }
}

static int sealed_apply(struct job *job, const struct sm_record *r, struct sm_err *err) {
    uint64_t ordinal;
    struct shard *shard = shard_find(job, r->shard, &ordinal, err);
    if (shard == NULL) return -1;
    if (shard->sealed)
        return sm_fail(err, SM_E_INTERNAL, "shard %llu is sealed twice",
                       (unsigned long long)r->shard);
    if (shard->open != NULL) {
        struct open_shard *open = shard->open;
        job->made -= open->done;
        for (size_t i = 0; i < open->n; i++)
            job->quarantined -= open->ranges[i]->quarantined.n;
        core_shard_close(open);
    }
    shard->sealed = true;
    shard->bytes = r->bytes;
    core_hex_bytes(r->sha256, shard->sha256, sizeof shard->sha256);
    shard->quarantined = core_quarantined_copy(r->quarantined, r->n_quarantined);
    job->sealed++;
    job->made += sm_plan_shard_count(&job->plan, r->shard);
    job->quarantined += r->n_quarantined;
    return 0;
}

static int remake_apply(struct job *job, const struct sm_record *r, struct sm_err *err) {
    uint64_t ordinal;
    struct shard *shard = shard_find(job, r->shard, &ordinal, err);
    if (shard == NULL) return -1;
    if (shard->open == NULL) return 0;
    struct open_shard *open = shard->open;
    job->made -= open->done;
    for (size_t i = 0; i < open->n; i++)
        job->quarantined -= open->ranges[i]->quarantined.n;
    core_shard_close(open);
    if (ordinal < job->cursor) job->cursor = ordinal;
    return 0;
}

static int run_apply(struct job *job, const struct sm_record *r, struct sm_err *err) {
    if (r->world_size == 0 || r->world_size > SM_MAX_TRAINERS || r->position >= job->spec->samples)
        return sm_fail(err, SM_E_INTERNAL, "a run of job '%s' that cannot be", job->id);
    core_run_set(job, r->world_size, r->epoch, r->position);
    return 0;
}

static int commit_apply(struct job *job, const struct sm_record *r, struct sm_err *err) {
    if (r->rank >= job->run.world_size || r->position >= job->spec->samples)
        return sm_fail(err, SM_E_INTERNAL, "a commit of job '%s' that cannot be", job->id);
    job->run.commits[r->rank] = (struct commit){true, r->epoch, r->position};
    return 0;
}

static void poison_apply(struct job *job, const struct sm_record *r) {
    size_t i = core_poison_at(job, r->position);
    if (i < job->n_poisons && job->poisons[i].position == r->position) {
        if (r->attempt > job->poisons[i].fence) job->poisons[i].fence = r->attempt;
        return;
    }
    job->poisons = realloc(job->poisons, (job->n_poisons + 1) * sizeof *job->poisons);
    assert(job->poisons != NULL);
    memmove(&job->poisons[i + 1], &job->poisons[i], (job->n_poisons - i) * sizeof *job->poisons);
    job->poisons[i] = (struct poison){.position = r->position, .fence = r->attempt};
    job->n_poisons++;
}

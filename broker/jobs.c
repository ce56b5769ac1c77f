/* Jobs: submitted, begun again, cancelled, failed, forgotten. What a job's positions become is
 * plan.c; a job never reads its own pipeline, it only hands the text on. */
#include "broker/state.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WRONG_BYTES = 160 };

static const char *spec_wrong(const Shardmill__JobSpec *s, char text[WRONG_BYTES]);
static const char *spec_differs(const Shardmill__JobSpec *a, const Shardmill__JobSpec *b);
static bool room_make(struct sm_core *core);
static void job_begin_again(struct sm_core *core, struct job *job);

struct job *core_job_find(struct sm_core *core, const char *id) {
    for (struct job *job = core->jobs; job != NULL; job = job->next)
        if (strcmp(job->id, id) == 0) return job;
    return NULL;
}

/* The job that a peer asks about; NULL: it has been refused. */
struct job *core_job_asked(struct sm_core *core, const struct sm_peer *peer, const char *id) {
    struct job *job = core_job_find(core, id);
    if (job == NULL)
        core_refuse_of(core, peer, id, 0, SM_E_MISSING, "no job '%.100s' is known here", id);
    return job;
}

/* The stream that goes by this id or name; of several with the name the one that is running.
 * *fitting: how many there are. */
struct job *core_job_named(struct sm_core *core, const char *name, unsigned *fitting) {
    struct job *job = core_job_find(core, name), *last = NULL, *running = NULL;
    unsigned n = 0, n_running = 0;
    *fitting = job != NULL;
    if (job != NULL) return job;
    for (job = core->jobs; job != NULL; job = job->next) {
        if (job->spec->kind != SHARDMILL__JOB_KIND__STREAM || strcmp(job->spec->name, name) != 0)
            continue;
        n++;
        last = job;
        if (job->state != SHARDMILL__JOB_STATE__RUNNING) continue;
        n_running++;
        running = job;
    }
    *fitting = n_running > 0 ? n_running : n;
    return n_running > 0 ? running : last;
}

/* NULL when the spec is not valid or there is no room; then the spec stays the caller's. */
struct job *core_job_new(struct sm_core *core, const char *id, Shardmill__JobSpec *spec) {
    char wrong[WRONG_BYTES];
    if (spec_wrong(spec, wrong) != NULL || core->n_jobs == SM_MAX_JOBS) return NULL;
    struct job *job = core_calloc(1, sizeof *job);
    job->id = core_strdup(id);
    job->text = core_strdup("");
    job->spec = spec;
    bool stream = spec->kind == SHARDMILL__JOB_KIND__STREAM;
    job->plan = (struct sm_plan){.samples = spec->samples,
                                 .copies = stream ? 1 : spec->copies,
                                 .shuffle = spec->shuffle,
                                 .seed = spec->seed,
                                 .epoch = spec->epoch,
                                 .shard_samples = spec->shard_samples};
    uint64_t shards = stream ? 0 : sm_plan_shards(&job->plan);
    job->n_shards = shards > spec->slice ? (shards - spec->slice - 1) / spec->slices + 1 : 0;
    job->planned = job->n_shards * spec->shard_samples;
    if (job->n_shards > 0) { /* only the last shard of all may be shorter */
        uint64_t last = spec->slice + (job->n_shards - 1) * spec->slices;
        job->planned -= spec->shard_samples - sm_plan_shard_count(&job->plan, last);
    }
    if (stream) job->planned = spec->samples * spec->epochs;
    job->shards = core_calloc(job->n_shards + 1, sizeof *job->shards);
    while (core->slots[job->slot / 8] & 1u << job->slot % 8)
        job->slot++;
    core->slots[job->slot / 8] |= (uint8_t)(1u << job->slot % 8);
    struct job **tail = &core->jobs;
    while (*tail != NULL)
        tail = &(*tail)->next;
    *tail = job;
    core->n_jobs++;
    return job;
}

void core_job_free(struct sm_core *core, struct job *job) {
    struct job **p = &core->jobs;
    while (*p != job)
        p = &(*p)->next;
    *p = job->next;
    core->n_jobs--;
    core->slots[job->slot / 8] &= (uint8_t) ~(1u << job->slot % 8);
    for (struct worker *w = core->workers; w != NULL; w = w->next)
        w->told[job->slot / 8] &= (uint8_t) ~(1u << job->slot % 8);
    while (job->opens != NULL)
        core_shard_close(job->opens);
    for (uint64_t i = 0; i < job->n_shards && job->sealed > 0; i++)
        free(job->shards[i].quarantined.items);
    assert(job->sessions == NULL);
    shardmill__job_spec__free_unpacked(job->spec, NULL);
    free(job->run.commits);
    free(job->shards);
    free(job->poisons);
    free(job->fingerprint);
    free(job->text);
    free(job->id);
    free(job);
}

/* Ends all leases and throws away what is cut but not done. */
void core_job_stop(struct sm_core *core, struct job *job) {
    for (struct open_shard *open = job->opens; open != NULL; open = open->next) {
        for (size_t i = open->n; i-- > 0;) {
            struct work *range = open->ranges[i];
            core_leases_revoke(core, range, NULL);
            if (range->state != WORK_DONE) core_range_remove(range);
        }
        core_leases_revoke(core, &open->seal, NULL);
        if (open->sealing) {
            core_work_unwait(&open->seal);
            core_work_wait(&open->seal, false);
        }
    }
}

void core_job_fail(struct sm_core *core, struct job *job, uint32_t code, const char *text) {
    char *copy = core_text(core, "%s", text); /* it may belong to what is thrown away */
    core_sessions_stop(core, job, code, copy);
    core_job_stop(core, job);
    core_persist(core, &(struct sm_record){.kind = SM_RECORD_STATE,
                                           .job = job->id,
                                           .state = SHARDMILL__JOB_STATE__FAILED,
                                           .code = code,
                                           .text = copy});
}

static void accept(struct sm_core *core, const struct sm_peer *peer, const char *job) {
    BODY(core, m, Shardmill__Accepted, shardmill__accepted__init);
    m->job = core_text(core, "%s", job);
    core_send(core, peer, SHARDMILL__ENVELOPE__BODY_ACCEPTED, m);
}

static bool id_valid(const char *id) {
    size_t n = strlen(id);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)id[i] <= 0x20 || (unsigned char)id[i] >= 0x7f) return false;
    return n > 0 && n <= SM_MAX_JOB_ID_BYTES;
}

void core_on_submit(struct sm_core *core, const struct sm_peer *peer, const Shardmill__Submit *m) {
    char text[WRONG_BYTES];
    if (!id_valid(m->job)) {
        core_refuse(core, peer, SM_E_USAGE,
                    "a job that cannot be: job: its id must be 1 to %d printable characters",
                    SM_MAX_JOB_ID_BYTES);
        return;
    }
    const char *wrong = m->spec == NULL ? "spec: there is none" : spec_wrong(m->spec, text);
    if (wrong != NULL) {
        core_refuse(core, peer, SM_E_USAGE, "a job that cannot be: %s", wrong);
        return;
    }
    struct job *job = core_job_find(core, m->job);
    if (job != NULL) {
        const char *field = spec_differs(job->spec, m->spec);
        if (field != NULL) {
            core_refuse(
                core, peer, SM_E_DIFFERS,
                "job '%s' is known here with another '%s' (hint: what has begun goes on only "
                "as it was submitted; another folder, or another state, begins anew)",
                job->id, field);
            return;
        }
        if (job->state == SHARDMILL__JOB_STATE__FAILED ||
            job->state == SHARDMILL__JOB_STATE__CANCELLED)
            job_begin_again(core, job);
        accept(core, peer, job->id);
        return;
    }
    if (!room_make(core)) {
        core_refuse(core, peer, SM_E_BUSY,
                    "this broker holds %d unfinished jobs, which is its limit", SM_MAX_JOBS);
        return;
    }
    size_t n = shardmill__job_spec__get_packed_size(m->spec);
    uint8_t *spec = core_scratch(core, n + 1);
    shardmill__job_spec__pack(m->spec, spec);
    core_persist(
        core, &(struct sm_record){.kind = SM_RECORD_JOB, .job = m->job, .spec = spec, .spec_n = n});
    job = core_job_find(core, m->job);
    if (job->n_shards == 0 && job->spec->kind == SHARDMILL__JOB_KIND__EXPAND)
        core_persist(core, &(struct sm_record){.kind = SM_RECORD_STATE,
                                               .job = m->job,
                                               .state = SHARDMILL__JOB_STATE__COMPLETE});
    core->work_added = true;
    accept(core, peer, m->job);
}

static void job_begin_again(struct sm_core *core, struct job *job) {
    core_persist(core, &(struct sm_record){.kind = SM_RECORD_STATE,
                                           .job = job->id,
                                           .state = SHARDMILL__JOB_STATE__RUNNING});
    for (struct open_shard *open = job->opens; open != NULL; open = open->next) {
        open->seal.failures = open->seal.deaths = 0;
        open->seal.not_before = 0;
    }
    core->work_added = true;
}

void core_on_cancel(struct sm_core *core, const struct sm_peer *peer, const Shardmill__Cancel *m) {
    struct job *job = core_job_asked(core, peer, m->job);
    if (job == NULL) return;
    if (job->state == SHARDMILL__JOB_STATE__RUNNING) {
        core_sessions_stop(core, job, SM_E_CANCELLED, "the job was cancelled on request");
        core_job_stop(core, job);
        core_persist(core, &(struct sm_record){.kind = SM_RECORD_STATE,
                                               .job = job->id,
                                               .state = SHARDMILL__JOB_STATE__CANCELLED,
                                               .code = SM_E_CANCELLED,
                                               .text = "cancelled on request"});
    }
    accept(core, peer, job->id);
}

static void *scratch_alloc(void *core, size_t n) {
    return core_scratch(core, n);
}

static void scratch_free(void *core, void *piece) {
    (void)core, (void)piece;
}

void core_on_job_get(struct sm_core *core, const struct sm_peer *peer, const Shardmill__JobGet *m) {
    struct job *job = core_job_asked(core, peer, m->job);
    if (job == NULL) return;
    BODY(core, answer, Shardmill__Job, shardmill__job__init);
    answer->job = core_text(core, "%s", job->id);
    /* a copy of its own, since the job may be forgotten before the answer leaves */
    size_t n = shardmill__job_spec__get_packed_size(job->spec);
    uint8_t *bytes = core_scratch(core, n + 1);
    shardmill__job_spec__pack(job->spec, bytes);
    ProtobufCAllocator scratch = {
        .alloc = scratch_alloc, .free = scratch_free, .allocator_data = core};
    answer->spec = shardmill__job_spec__unpack(&scratch, n, bytes);
    core_send(core, peer, SHARDMILL__ENVELOPE__BODY_JOB, answer);
}

/* A number of a spec that is at least 1. */
struct bounded {
    const char *field;
    uint64_t value, most;
};

static const char *bounds_wrong(const struct bounded *fields, size_t n, char text[WRONG_BYTES]) {
    for (size_t i = 0; i < n; i++) {
        if (fields[i].value >= 1 && fields[i].value <= fields[i].most) continue;
        snprintf(text, WRONG_BYTES, "%s: 1 to %" PRIu64, fields[i].field, fields[i].most);
        return text;
    }
    return NULL;
}

static const char *stream_wrong(const Shardmill__JobSpec *s, char text[WRONG_BYTES]) {
    const struct bounded fields[] = {{"batch_size", s->batch_size, SM_MAX_BATCH_SAMPLES},
                                     {"batch_bytes", s->batch_bytes, SM_MAX_BATCH_BYTES}};
    const char *wrong = bounds_wrong(fields, sizeof fields / sizeof *fields, text);
    if (wrong == NULL && s->drop_last && s->samples < s->batch_size)
        return "drop_last: leaves no step, the dataset is smaller than one batch";
    return wrong;
}

static const char *shards_wrong(const Shardmill__JobSpec *s, char text[WRONG_BYTES]) {
    const struct bounded fields[] = {{"copies", s->copies, SM_MAX_COPIES},
                                     {"shard_samples", s->shard_samples, SM_MAX_SHARD_SAMPLES},
                                     {"lease_samples", s->lease_samples, SM_MAX_LEASE_SAMPLES},
                                     {"slices", s->slices, SM_MAX_SLICES}};
    const char *wrong = bounds_wrong(fields, sizeof fields / sizeof *fields, text);
    if (wrong != NULL) return wrong;
    if (s->slice >= s->slices) return "slice: below slices";
    const struct sm_plan plan = {
        .samples = s->samples, .copies = s->copies, .shard_samples = s->shard_samples};
    const uint64_t shards = sm_plan_shards(&plan);
    if (shards / s->slices >= SM_MAX_JOB_SHARDS)
        return "shard_samples: too many shards for one job";
    if (core_spec_is_carried(s) && shards > SM_MAX_KEPT_FILES) {
        snprintf(text, WRONG_BYTES,
                 "samples: a broker keeps at most %d files, and each range leaves one",
                 SM_MAX_KEPT_FILES);
        return text;
    }
    if (s->shard_samples / s->lease_samples >= SM_MAX_SHARD_PARTS)
        return "lease_samples: too many parts in one shard";
    return NULL;
}

/* Why no such job can be, or NULL. It may be spelled in text. */
static const char *spec_wrong(const Shardmill__JobSpec *s, char text[WRONG_BYTES]) {
    const struct bounded samples = {"samples", s->samples, UINT64_C(1) << SM_MAX_JOB_SAMPLES_LOG2};
    const char *wrong = bounds_wrong(&samples, 1, text);
    if (wrong != NULL) return wrong;
    if (s->n_present != s->n_drawn || s->n_present > SM_MAX_CLASS_COUNTS) {
        snprintf(text, WRONG_BYTES, "present, drawn: one of each for a class, at most %d",
                 SM_MAX_CLASS_COUNTS);
        return text;
    }
    if (s->n_class_names != 0 && s->n_class_names != s->n_present)
        return "class_names: as many as there are counts, or none";
    if (s->kind == SHARDMILL__JOB_KIND__STREAM) return stream_wrong(s, text);
    if (s->kind != SHARDMILL__JOB_KIND__EXPAND && s->kind != SHARDMILL__JOB_KIND__FIT)
        return "kind: EXPAND, STREAM or FIT";
    return shards_wrong(s, text);
}

static bool field_equal(const ProtobufCFieldDescriptor *f, const void *a, const void *b) {
    const char *x = (const char *)a + f->offset, *y = (const char *)b + f->offset;
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        return strcmp(*(char *const *)(const void *)x, *(char *const *)(const void *)y) == 0;
    case PROTOBUF_C_TYPE_UINT64:
        return memcmp(x, y, sizeof(uint64_t)) == 0;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_ENUM:
        return memcmp(x, y, sizeof(uint32_t)) == 0;
    case PROTOBUF_C_TYPE_BOOL:
        return memcmp(x, y, sizeof(protobuf_c_boolean)) == 0;
    default:
        assert(!"a JobSpec field of a type that is not compared");
    }
    return false;
}

/* The name of the first field that is another one, or NULL. The name is for people and may change;
 * so may index_path, since the file has a digest, and lease_samples, which a client chooses by its
 * number of workers: the job keeps its first cut. Lists, the counts of classes, follow from
 * pipeline and dataset, and so does weights, which an older submitter does not tell. */
static const char *spec_differs(const Shardmill__JobSpec *a, const Shardmill__JobSpec *b) {
    const ProtobufCMessageDescriptor *d = &shardmill__job_spec__descriptor;
    for (unsigned i = 0; i < d->n_fields; i++) {
        const char *name = d->fields[i].name;
        if (strcmp(name, "name") == 0 || strcmp(name, "lease_samples") == 0 ||
            strcmp(name, "weights") == 0 || strcmp(name, "index_path") == 0)
            continue;
        if (d->fields[i].label == PROTOBUF_C_LABEL_REPEATED) continue;
        if (!field_equal(&d->fields[i], a, b)) return name;
    }
    return NULL;
}

/* Forgets the oldest job that has ended when all places are taken. */
static bool room_make(struct sm_core *core) {
    if (core->n_jobs < SM_MAX_JOBS) return true;
    for (struct job *job = core->jobs; job != NULL; job = job->next) {
        if (job->state == SHARDMILL__JOB_STATE__RUNNING || job->sessions != NULL) continue;
        core_persist(core, &(struct sm_record){.kind = SM_RECORD_FORGET, .job = job->id});
        return true;
    }
    return false;
}

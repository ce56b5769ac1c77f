/* Makes a job ready for leases: spec from the broker, index from the path where the submitter wrote
 * it or else from the broker in pieces. shell.c asks and hands the answers in; lease.c runs on the
 * result. */
#include "workers/job.h"

#include "lib/limits.h"
#include "workers/ops/op.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const uint64_t INDEX_BYTES_MAX = UINT64_C(1) << 38;

static int take_spec(struct sm_job *job, const struct sm_job_options *options);
static int take_index(struct sm_job *job, const Shardmill__IndexChunk *m,
                      const struct sm_job_options *options);
static int check_spec(const Shardmill__JobSpec *spec, struct sm_err *err);
static int make_ready(struct sm_job *job, const struct sm_job_options *options);

struct sm_job *sm_job_new(const char *id) {
    struct sm_job *job = calloc(1, sizeof *job);
    if (job == NULL) return NULL;
    job->index_fd = -1;
    job->id = strdup(id);
    if (job->id == NULL) sm_job_free(&job);
    return job;
}

void sm_job_free(struct sm_job **jp) {
    struct sm_job *job = *jp;
    if (job == NULL) return;
    sm_cage_free(&job->lease.cage);
    sm_reader_free(&job->lease.reader);
    sm_index_close(&job->index);
    if (job->index_map != NULL) munmap(job->index_map, job->index_total);
    if (job->index_fd >= 0) close(job->index_fd);
    if (job->spec != NULL) sm_pipeline_release(&job->pipeline);
    sm_wire_free(&job->message);
    free(job->id);
    free(job);
    *jp = NULL;
}

void sm_job_take_spec(struct sm_job *job, sm_envelope **message,
                      const struct sm_job_options *options) {
    if (job->state != SM_JOB_ASK_SPEC) return;
    job->message = *message;
    *message = NULL;
    job->asked_ms = 0;
    if (take_spec(job, options) != 0) job->state = SM_JOB_BROKEN;
}

void sm_job_take_index(struct sm_job *job, const Shardmill__IndexChunk *m,
                       const struct sm_job_options *options) {
    if (job->state != SM_JOB_ASK_INDEX || m->offset != job->index_got) return;
    job->asked_ms = 0;
    if (take_index(job, m, options) != 0) job->state = SM_JOB_BROKEN;
}

static int take_spec(struct sm_job *job, const struct sm_job_options *options) {
    struct sm_err *err = &job->err;
    const Shardmill__JobSpec *spec = job->message->job->spec;
    if (spec == NULL || check_spec(spec, err) != 0)
        return spec != NULL ? -1 : sm_fail(err, SM_E_PROTOCOL, "the job came without its spec");
    job->spec = spec;
    if (sm_pipeline_parse(&job->pipeline, "pipeline", spec->pipeline, strlen(spec->pipeline),
                          sm_op_table(), err) != 0)
        return -1;
    job->state = SM_JOB_ASK_INDEX;
    if (sm_index_open(&job->index, spec->index_path, NULL) != 0) return 0;
    if (strcmp(sm_index_digest(job->index), spec->index_digest) == 0)
        return make_ready(job, options);
    sm_index_close(&job->index);
    return 0;
}

static int check_spec(const Shardmill__JobSpec *s, struct sm_err *err) {
    bool ok =
        s->samples > 0 && s->copies > 0 && s->copies <= SM_MAX_COPIES && s->shard_samples > 0 &&
        s->shard_samples <= SM_MAX_SHARD_SAMPLES && s->samples <= UINT64_MAX / SM_MAX_COPIES &&
        strlen(s->out_dir) + SM_PART_NAME_MAX + 64 < SM_MAX_PATH_BYTES &&
        strlen(s->source_root) < SM_MAX_PATH_BYTES && s->out_dir[0] != 0 && s->source_root[0] != 0;
    return ok ? 0
              : sm_fail(err, SM_E_PROTOCOL,
                        "the job's spec cannot be: a number or path is out of range");
}

static int take_index(struct sm_job *job, const Shardmill__IndexChunk *m,
                      const struct sm_job_options *options) {
    struct sm_err *err = &job->err;
    if (job->index_got == 0) {
        if (m->total == 0 || m->total > INDEX_BYTES_MAX)
            return sm_fail(err, SM_E_PROTOCOL, "an index of %llu bytes",
                           (unsigned long long)m->total);
        job->index_fd = memfd_create("shardmill-index", MFD_CLOEXEC);
        if (job->index_fd < 0) return sm_fail_errno(err, "cannot make memory for the index");
        job->index_total = m->total;
    }
    if (m->total != job->index_total || m->data.len == 0 ||
        m->data.len > job->index_total - job->index_got)
        return sm_fail(err, SM_E_CHANGED, "the index changed while it was fetched");
    for (size_t done = 0; done < m->data.len;) {
        ssize_t n =
            pwrite(job->index_fd, m->data.data + done, m->data.len - done, (off_t)job->index_got);
        if (n < 0 && errno != EINTR) return sm_fail_errno(err, "cannot keep the index");
        done += n > 0 ? (size_t)n : 0;
        job->index_got += n > 0 ? (uint64_t)n : 0;
    }
    if (job->index_got < job->index_total) return 0;
    void *map = mmap(NULL, job->index_total, PROT_READ, MAP_SHARED, job->index_fd, 0);
    if (map == MAP_FAILED) return sm_fail_errno(err, "cannot map the index");
    job->index_map = map;
    if (sm_index_open_bytes(&job->index, map, job->index_total, err) != 0) return -1;
    if (strcmp(sm_index_digest(job->index), job->spec->index_digest) != 0)
        return sm_fail(err, SM_E_DIFFERS,
                       "the index is not the one that the job was submitted with");
    return make_ready(job, options);
}

static int start_cage(struct sm_job *job, const struct sm_job_options *options) {
    struct sm_cage_options cage = {.no_sandbox = options->no_sandbox,
                                   .memory_bytes = options->cage_memory};
    return sm_cage_new(&job->lease.cage, job->spec->pipeline, &cage, &job->err);
}

static int make_ready(struct sm_job *job, const struct sm_job_options *options) {
    struct sm_err *err = &job->err;
    const Shardmill__JobSpec *spec = job->spec;
    if (sm_index_samples(job->index) != spec->samples ||
        strcmp(sm_index_dataset_digest(job->index), spec->dataset_digest) != 0)
        return sm_fail(err, SM_E_DIFFERS, "the index is one of another dataset than the job's");
    job->lease.reader = sm_reader_new(spec->source_root);
    if (job->lease.reader == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    job->lease.pipeline = &job->pipeline;
    job->lease.index = job->index;
    job->lease.out_dir = spec->out_dir;
    job->lease.plan = (struct sm_plan){.samples = spec->samples,
                                       .copies = spec->copies,
                                       .shuffle = spec->shuffle,
                                       .seed = spec->seed,
                                       .epoch = spec->epoch,
                                       .shard_samples = spec->shard_samples};
    if (start_cage(job, options) != 0) return -1;
    job->state = SM_JOB_READY;
    return 0;
}

int sm_job_check_lease(const struct sm_job *job, const Shardmill__Lease *m, struct sm_err *err) {
    const struct sm_plan *plan = &job->lease.plan;
    bool ok = m->shard < sm_plan_shards(plan);
    if (ok && m->kind == SHARDMILL__LEASE_KIND__RANGE) {
        uint64_t first = sm_plan_shard_first(plan, m->shard),
                 count = sm_plan_shard_count(plan, m->shard);
        ok = m->count > 0 && m->count <= SM_MAX_LEASE_SAMPLES && m->first >= first &&
             m->first - first <= count && m->count <= count - (m->first - first);
    } else if (ok) {
        ok = m->kind == SHARDMILL__LEASE_KIND__SEAL && m->n_parts > 0;
    }
    return ok ? 0 : sm_fail(err, SM_E_PROTOCOL, "a lease that lies outside of its job");
}

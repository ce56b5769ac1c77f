/* Makes a job ready for leases: spec from the broker, index and artifacts from the path where the
 * submitter wrote them or else from the broker in pieces. shell.c asks and hands the answers in;
 * lease.c runs on the result. */
#include "workers/job.h"

#include "lib/fs.h"
#include "lib/limits.h"
#include "workers/chain.h"
#include "workers/ops/op.h"
#include "workers/rebalance/method.h"
#include "workers/table/blas.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static int take_spec(struct sm_job *job, const struct sm_job_options *options);
static int take_piece(struct sm_job *job, const Shardmill__FileChunk *m,
                      const struct sm_job_options *options);
static int check_spec(const Shardmill__JobSpec *spec, struct sm_err *err);
static int find_learned(struct sm_job *job, const struct sm_job_options *options);
static void index_leave(struct sm_job *job);
static int make_ready(struct sm_job *job, const struct sm_job_options *options);

/* The one of another job, or a new one that is to be opened. */
static int index_join(struct sm_job *job, const struct sm_job_options *options) {
    for (size_t i = 0; i < options->n_others; i++) {
        const struct sm_job *other = options->others[i];
        if (other == NULL || other == job || other->index == NULL ||
            strcmp(sm_index_digest(other->index), job->spec->index_digest) != 0)
            continue;
        job->shared = other->shared;
        job->shared->users++;
        job->index = job->shared->index;
        return 0;
    }
    job->shared = calloc(1, sizeof *job->shared);
    if (job->shared == NULL) return sm_fail(&job->err, SM_E_MEMORY, "out of memory");
    job->shared->users = 1;
    sm_fetched_init(&job->shared->fetched);
    return 0;
}

static void index_leave(struct sm_job *job) {
    struct sm_job_index *s = job->shared;
    job->shared = NULL;
    job->index = NULL;
    if (s == NULL || --s->users > 0) return;
    sm_index_close(&s->index);
    sm_fetched_release(&s->fetched);
    free(s);
}

struct sm_job *sm_job_new(const char *id) {
    struct sm_job *job = calloc(1, sizeof *job);
    if (job == NULL) return NULL;
    job->id = strdup(id);
    if (job->id == NULL) sm_job_free(&job);
    return job;
}

void sm_job_free(struct sm_job **jp) {
    struct sm_job *job = *jp;
    if (job == NULL) return;
    sm_cage_free(&job->lease.cage);
    sm_reader_free(&job->lease.reader);
    free(job->classes);
    sm_fit_input_free(&job->fit);
    sm_neighbours_search_free(&job->search);
    sm_buf_release(&job->fit_state);
    sm_table_close(&job->table);
    sm_features_free(&job->features);
    sm_places_free(&job->places);
    if (job->has_neighbours) sm_artifact_close(&job->neighbours);
    index_leave(job);
    sm_job_learned_release(&job->learned);
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

void sm_job_ask_piece(const struct sm_job *job, Shardmill__FileGet *m) {
    const bool artifact = job->learned.wanted != NULL;
    m->job = job->id;
    m->offset = artifact              ? sm_job_learned_offset(&job->learned)
                : job->shared != NULL ? job->shared->fetched.got
                                      : 0;
    if (artifact) m->sha256 = (char *)job->learned.wanted;
}

void sm_job_take_piece(struct sm_job *job, const Shardmill__FileChunk *m,
                       const struct sm_job_options *options) {
    Shardmill__FileGet asked = SHARDMILL__FILE_GET__INIT;
    sm_job_ask_piece(job, &asked);
    if (job->state != SM_JOB_ASK_FILES || m->offset != asked.offset ||
        strcmp(m->sha256, asked.sha256) != 0)
        return;
    job->asked_ms = 0;
    if (take_piece(job, m, options) != 0) job->state = SM_JOB_BROKEN;
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
    job->state = SM_JOB_ASK_FILES;
    if (index_join(job, options) != 0) return -1;
    if (job->index != NULL) return find_learned(job, options);
    struct sm_index **index = &job->shared->index;
    if (sm_index_open(index, spec->index_path, NULL) != 0) return 0;
    if (strcmp(sm_index_digest(*index), spec->index_digest) != 0) {
        sm_index_close(index);
        return 0;
    }
    job->index = *index;
    return find_learned(job, options);
}

static int check_spec(const Shardmill__JobSpec *s, struct sm_err *err) {
    const bool stream = s->kind == SHARDMILL__JOB_KIND__STREAM;
    bool ok = s->samples > 0 && s->copies > 0 && s->copies <= SM_MAX_COPIES &&
              s->shard_samples > 0 && s->shard_samples <= SM_MAX_SHARD_SAMPLES &&
              s->samples <= UINT64_MAX / SM_MAX_COPIES &&
              strlen(s->out_dir) + SM_PART_NAME_MAX + 64 < SM_MAX_PATH_BYTES &&
              strlen(s->source_root) < SM_MAX_PATH_BYTES && s->source_root[0] != 0 &&
              strlen(s->index_path) + sizeof SM_ARTIFACTS_NAME <= SM_MAX_PATH_BYTES &&
              (stream ? s->batch_size > 0 && s->batch_size <= SM_MAX_BATCH_SAMPLES
                      : s->out_dir[0] != 0 || s->kind == SHARDMILL__JOB_KIND__FIT);
    return ok ? 0
              : sm_fail(err, SM_E_PROTOCOL,
                        "the job's spec cannot be: a number or path is out of range");
}

static int take_piece(struct sm_job *job, const Shardmill__FileChunk *m,
                      const struct sm_job_options *options) {
    struct sm_err *err = &job->err;
    if (m->data.len == 0 && m->offset < m->total) return 0;
    if (job->learned.wanted != NULL) {
        if (sm_job_learned_take(&job->learned, m->data.data, m->data.len, m->total, err) != 0)
            return -1;
        return job->learned.wanted != NULL ? 0 : make_ready(job, options);
    }
    struct sm_job_index *s = job->shared;
    int r = sm_fetched_take(&s->fetched, m->data.data, m->data.len, m->total,
                            (uint64_t)SM_MAX_INDEX_MIB << 20, "the index", err);
    if (r <= 0) return r;
    if (sm_index_open_bytes(&s->index, s->fetched.map, s->fetched.total, err) != 0) return -1;
    if (strcmp(sm_index_digest(s->index), job->spec->index_digest) != 0)
        return sm_fail(err, SM_E_DIFFERS,
                       "the index is not the one that the job was submitted with");
    job->index = s->index;
    return find_learned(job, options);
}

/* The broker carries what the rounds of a fit hand to each other when they have no folder. */
static bool is_carried(const struct sm_job *job) {
    return job->spec->kind == SHARDMILL__JOB_KIND__FIT && job->spec->out_dir[0] == 0;
}

/* What fits have learned lies beside the index, where the submitter put it, or comes in pieces. */
static int find_learned(struct sm_job *job, const struct sm_job_options *options) {
    char dir[SM_MAX_PATH_BYTES];
    const char *path = job->spec->index_path;
    snprintf(dir, SM_MAX_PATH_BYTES, "%.*s" SM_ARTIFACTS_NAME, sm_index_folder(path), path);
    const char *state = is_carried(job) ? job->spec->fit_state : NULL;
    if (sm_job_learned_begin(&job->learned, &job->pipeline, dir, state, &job->err) != 0) return -1;
    return job->learned.wanted != NULL ? 0 : make_ready(job, options);
}

static int start_cage(struct sm_job *job, const struct sm_job_options *options) {
    struct sm_cage_options cage = {.no_sandbox = options->no_sandbox,
                                   .no_fuse = options->no_fuse,
                                   .memory_bytes = options->cage_memory};
    return sm_cage_new(&job->lease.cage, job->spec->pipeline, &cage, &job->err);
}

/* What a batch of this job looks like follows from the ops; the submitter must have come to the
 * same. */
static int lay_out_batch(struct sm_job *job) {
    if (sm_features_layout(&job->pipeline, job->features, job->spec->batch_size, &job->batch,
                           &job->err) != 0)
        return -1;
    if (job->batch.bytes == job->spec->batch_bytes) return 0;
    return sm_fail(&job->err, SM_E_DIFFERS,
                   "a batch has %llu bytes here and %llu in the job's spec (hint: do submitter and "
                   "worker have the same version?)",
                   (unsigned long long)job->batch.bytes,
                   (unsigned long long)job->spec->batch_bytes);
}

/* What shards of rows look like. */
static int describe_rows(struct sm_job *job) {
    const struct sm_pipeline *p = &job->pipeline;
    const uint32_t n = sm_index_classes(job->index);
    job->classes = calloc(n + 1, sizeof *job->classes);
    if (job->classes == NULL) return sm_fail(&job->err, SM_E_MEMORY, "out of memory");
    for (uint32_t c = 0; c < n; c++)
        job->classes[c] = sm_index_class(job->index, c);
    job->row_format = sm_features_shard(p, job->features, sm_places_rebalance(job->places) != NULL);
    job->row_format.classes = job->classes;
    job->row_format.n_classes = n;
    job->row_format.plan = job->lease.plan;
    job->lease.row_format = &job->row_format;
    return 0;
}

/* Order, rebalancing and the rows' half of the pipeline. */
static int make_places(struct sm_job *job) {
    const struct sm_pipeline *p = &job->pipeline;
    struct sm_err *err = &job->err;
    const char *dir = job->learned.dir;
    if (p->rebalance_artifact != NULL) {
        if (sm_artifact_open(&job->neighbours, dir, p->rebalance_artifact, err) != 0) return -1;
        job->has_neighbours = true;
        job->lease.neighbours = &job->neighbours;
    }
    if (sm_places_new(&job->places, p, job->index, p->part, job->lease.neighbours, err) != 0)
        return -1;
    job->lease.places = job->places;
    if (sm_places_samples(job->places) != job->spec->samples)
        return sm_fail(err, SM_E_DIFFERS,
                       "an epoch has %llu samples here and %llu in the job's spec (hint: do "
                       "submitter and worker have the same version?)",
                       (unsigned long long)sm_places_samples(job->places),
                       (unsigned long long)job->spec->samples);
    if (!sm_pipeline_is_rows(p)) return 0;
    if (sm_features_new(&job->features, p, p->n_ops, job->index, dir, err) != 0) return -1;
    job->lease.features = job->features;
    if (describe_rows(job) != 0) return -1;
    if (!sm_index_is_table(job->index)) return 0;
    if (sm_table_open(&job->table, job->index, job->spec->source_root, err) != 0) return -1;
    job->lease.table = job->table;
    return 0;
}

/* The state of the round, by its digest: a file that another round has replaced is refused. */
static int read_fit_state(struct sm_job *job) {
    char path[SM_MAX_PATH_BYTES + 16], sha[SM_SHA_HEX];
    if (is_carried(job)) {
        const struct sm_fetched *f = sm_job_learned_state(&job->learned);
        sm_buf_init(&job->fit_state, SM_MAX_ARTIFACT_BYTES);
        if (job->spec->fit_state[0] == 0) return 0; /* a first round may have none */
        return sm_buf_add(&job->fit_state, f->map, f->total)
                   ? 0
                   : sm_fail(&job->err, SM_E_MEMORY, "out of memory");
    }
    snprintf(path, sizeof path, "%s/" SM_FIT_STATE_NAME, job->spec->out_dir);
    sm_buf_init(&job->fit_state, SM_MAX_ARTIFACT_BYTES);
    int failed = sm_fs_read_file(path, SM_MAX_ARTIFACT_BYTES, &job->fit_state, &job->err);
    sm_sha256(job->fit_state.data, job->fit_state.len, sha);
    if (failed || strcmp(sha, job->spec->fit_state) == 0) return failed;
    return sm_fail(&job->err, SM_E_DIFFERS, "'%s' is not the state of this job's round", path);
}

/* The last of a FIT job: ranges and bytes of a partial are those that are counted here. */
static int fit_ready(struct sm_job *job, uint64_t ranges, size_t bytes) {
    if (ranges != job->spec->samples)
        return sm_fail(&job->err, SM_E_DIFFERS,
                       "a fit has %llu ranges here and %llu in the job's spec (hint: do submitter "
                       "and worker have the same version?)",
                       (unsigned long long)ranges, (unsigned long long)job->spec->samples);
    job->lease.partial_bytes = bytes;
    job->lease.fit_state = &job->fit_state;
    sm_job_learned_release(&job->learned);
    job->state = SM_JOB_READY;
    return 0;
}

/* A search for the neighbours that rebalancing learns. */
static int make_search(struct sm_job *job) {
    struct sm_err *err = &job->err;
    const struct sm_pipeline *p = &job->pipeline;
    if (p->rebalance == NULL || sm_method_of(p->rebalance)->neighbours == NULL)
        return sm_fail(err, SM_E_PROTOCOL, "a search for neighbours that nothing needs");
    if (read_fit_state(job) != 0 ||
        sm_places_new(&job->places, p, job->index, SM_PART_TRAIN, NULL, err) != 0 ||
        sm_neighbours_search_new(&job->search, job->places, job->learned.dir,
                                 job->spec->source_root, err) != 0)
        return -1;
    const struct sm_neighbours_plan *plan = sm_neighbours_search_plan(job->search);
    job->lease.search = job->search;
    return fit_ready(job, plan->ranges, plan->partial_bytes);
}

/* A round of a fit: training rows instead of places, ranges instead of samples. */
static int make_fit(struct sm_job *job) {
    const Shardmill__JobSpec *spec = job->spec;
    struct sm_err *err = &job->err;
    if (spec->fit_op == job->pipeline.n_ops) return make_search(job);
    if (spec->fit_op > job->pipeline.n_ops)
        return sm_fail(err, SM_E_PROTOCOL, "a fit of an op that is not there");
    const struct sm_blas *blas = sm_blas(err);
    if (blas == NULL) return -1;
    if (strcmp(blas->version, spec->fit_blas) != 0)
        return sm_fail(err, SM_E_DIFFERS,
                       "this worker has %s and the fit was begun with %s: they round differently "
                       "(hint: workers of one kind of processor, or OPENBLAS_CORETYPE)",
                       blas->version, spec->fit_blas);
    const struct sm_fit_source source = {.pipeline = &job->pipeline,
                                         .op = spec->fit_op,
                                         .index = job->index,
                                         .root = spec->source_root,
                                         .artifacts = job->learned.dir,
                                         .features = spec->fit_features};
    if (read_fit_state(job) != 0 || sm_fit_input_new(&job->fit, &source, err) != 0) return -1;
    const struct sm_fit_context *c = sm_fit_input_context(job->fit);
    const size_t bytes = sm_fit_input_fit(job->fit)->partial_bytes(c, &job->fit_state);
    job->lease.fit = job->fit;
    return fit_ready(job, sm_fit_ranges(c, bytes), bytes);
}

static int make_ready(struct sm_job *job, const struct sm_job_options *options) {
    struct sm_err *err = &job->err;
    const Shardmill__JobSpec *spec = job->spec;
    if (strcmp(sm_index_dataset_digest(job->index), spec->dataset_digest) != 0 ||
        sm_index_is_table(job->index) != sm_source_is_table(&job->pipeline.source))
        return sm_fail(err, SM_E_DIFFERS, "the index is one of another dataset than the job's");
    job->lease.reader = sm_reader_new(spec->source_root);
    if (job->lease.reader == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    job->lease.pipeline = &job->pipeline;
    job->lease.index = job->index;
    job->lease.out_dir = spec->out_dir;
    const bool stream = spec->kind == SHARDMILL__JOB_KIND__STREAM;
    job->lease.plan = (struct sm_plan){.samples = spec->samples,
                                       .copies = stream ? 1 : spec->copies,
                                       .shuffle = spec->shuffle,
                                       .seed = spec->seed,
                                       .epoch = spec->epoch,
                                       .shard_samples = spec->shard_samples};
    if (spec->kind == SHARDMILL__JOB_KIND__FIT) return make_fit(job);
    if (make_places(job) != 0) return -1;
    if (stream && lay_out_batch(job) != 0) return -1;
    if (!sm_index_is_table(job->index) && start_cage(job, options) != 0) return -1;
    sm_job_learned_release(&job->learned); /* what is open stays open */
    job->state = SM_JOB_READY;
    return 0;
}

int sm_job_check_lease(const struct sm_job *job, const Shardmill__Lease *m, struct sm_err *err) {
    const struct sm_plan *plan = &job->lease.plan;
    const bool stream = job->spec->kind == SHARDMILL__JOB_KIND__STREAM,
               step = m->kind == SHARDMILL__LEASE_KIND__STEP;
    bool ok = stream == step && (step || m->shard < sm_plan_shards(plan));
    if (ok && step) {
        ok = m->count > 0 && m->count <= job->spec->batch_size && m->first <= UINT64_MAX - m->count;
    } else if (ok && m->kind == SHARDMILL__LEASE_KIND__RANGE) {
        uint64_t first = sm_plan_shard_first(plan, m->shard),
                 count = sm_plan_shard_count(plan, m->shard);
        ok = m->count > 0 && m->count <= SM_MAX_LEASE_SAMPLES && m->first >= first &&
             m->first - first <= count && m->count <= count - (m->first - first);
    } else if (ok) {
        ok = m->kind == SHARDMILL__LEASE_KIND__SEAL && m->n_parts > 0;
    }
    return ok ? 0 : sm_fail(err, SM_E_PROTOCOL, "a lease that lies outside of its job");
}

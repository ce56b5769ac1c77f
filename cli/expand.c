/* The main job from the command's side. Before: cli/cmd_expand.c has read the options and the
 * pipeline. Here: the output folder is claimed and compared with what it holds, the dataset is
 * indexed, the plan is submitted to a broker, progress is shown, and when every shard is sealed the
 * record is written. Next in the flow: broker/loop.c hands out the leases. */
#include "cli/expand.h"

#include "cli/await.h"
#include "cli/dataset.h"
#include "cli/expand_folder.h"
#include "cli/fit.h"
#include "cli/hand_over.h"
#include "cli/progress.h"
#include "cli/stream.h"
#include "lib/fs.h"
#include "lib/limits.h"
#include "workers/features.h"
#include "workers/places.h"
#include "workers/sinks/sink.h"

#include <assert.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    POLL_MS = 50,
    LEASE_SAMPLES = 128, /* a lease of about a second: what a kill can cost */
    LEASE_ROWS = SM_MAX_LEASE_SAMPLES,
    LEASE_SAMPLES_MIN = 16,
    LEASES_PER_WORKER = 8, /* so that the last ones do not leave a core idle for long */
};

struct expansion {
    const struct sm_pipeline *pipeline;
    const struct sm_expand_options *options;
    struct sm_run *run;
    char dir[PATH_MAX], state[PATH_MAX]; /* absolute */
    int lock_fd;
    struct sm_dataset data;
    struct sm_places *places;
    struct sm_embedded *embedded;
    struct sm_client *client;
    char job[SM_XXH_HEX], asked[SM_XXH_HEX];
    struct sm_progress progress;
};

static int claim_folder(struct expansion *x, struct sm_err *err);
static void asked_digest(struct expansion *x);
static bool was_complete(struct expansion *x);
static int learn(struct expansion *x, struct sm_pipeline *p, struct sm_err *err);
static int describe_run(struct expansion *x, struct sm_err *err);
static int work(struct expansion *x, struct sm_err *err);
static int collect(struct expansion *x, struct sm_err *err);

int sm_expand(struct sm_pipeline *pipeline, const struct sm_expand_options *options,
              struct sm_run *run, enum sm_expand_end *end, struct sm_err *err) {
    struct expansion *x = calloc(1, sizeof *x);
    if (x == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    x->pipeline = pipeline;
    x->options = options;
    x->run = run;
    x->lock_fd = -1;
    *run = (struct sm_run){0};
    bool complete = false;
    int r = -1;
    if (claim_folder(x, err) < 0 ||
        sm_dataset_open(&x->data, &pipeline->source, x->state, false, err) < 0)
        goto out;
    asked_digest(x);
    complete = was_complete(x);
    if (!complete && (learn(x, pipeline, err) < 0 || describe_run(x, err) < 0 ||
                      sm_folder_compare(x->dir, x->run, &complete, err) < 0))
        goto out;
    *end = complete ? SM_EXPAND_WAS_DONE : SM_EXPAND_DONE;
    r = complete ? 0 : work(x, err);
    if (r == 0) sm_folder_forget(x->state);
out:
    sm_client_free(&x->client);
    sm_embedded_stop(&x->embedded, SM_GRACE_MS);
    sm_progress_end(&x->progress);
    sm_places_free(&x->places);
    sm_dataset_close(&x->data);
    if (x->lock_fd >= 0) close(x->lock_fd);
    free(x);
    return r;
}

/* Makes DIR and its state folder and takes the lock that keeps a second run out. A slice has a
 * state folder of its own: slices run side by side in one DIR. */
static int claim_folder(struct expansion *x, struct sm_err *err) {
    const struct sm_expand_options *o = x->options;
    if (sm_fs_mkdirs(o->out_dir, err) < 0) return -1;
    if (realpath(o->out_dir, x->dir) == NULL)
        return sm_fail_errno(err, "cannot use '%s'", o->out_dir);
    int n = o->slices > 1
                ? snprintf(x->state, sizeof x->state, "%s/" SM_STATE_NAME "/slice-%u-of-%u", x->dir,
                           o->slice + 1, o->slices)
                : snprintf(x->state, sizeof x->state, "%s/" SM_STATE_NAME, x->dir);
    if (n >= (int)sizeof x->state - 32)
        return sm_fail(err, SM_E_USAGE, "the path of '%s' is too long", x->dir);
    if (sm_fs_mkdirs(x->state, err) < 0) return -1;
    char lock[PATH_MAX];
    snprintf(lock, sizeof lock, "%.*s/expand.lock", (int)(sizeof lock - 16), x->state);
    x->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (x->lock_fd < 0) return sm_fail_errno(err, "cannot make '%s'", lock);
    if (flock(x->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return sm_fail(err, SM_E_BUSY,
                       "another expand is at work in '%s' (hint: wait for it, or end it)", x->dir);
    return 0;
}

static int learn(struct expansion *x, struct sm_pipeline *p, struct sm_err *err) {
    const struct sm_expand_options *o = x->options;
    const struct sm_fit_options fit = {.state = x->state,
                                       .borrow = o->learned,
                                       .lock = o->lock,
                                       .broker = o->broker,
                                       .workers = o->workers,
                                       .no_sandbox = o->no_sandbox,
                                       .quiet = o->quiet,
                                       .stop = o->stop};
    return sm_fit_ensure(p, &fit, &x->data, NULL, err);
}

/* A csv shard says where each row comes from in columns of its own, whose names no feature may
 * have: who reads it back could not tell them apart. */
static int names_check(const struct expansion *x, const struct sm_features *features,
                       struct sm_err *err) {
    const struct sm_row_format f =
        sm_features_shard(x->pipeline, features, sm_places_rebalance(x->places) != NULL);
    const char *own[SM_ROW_NAMES];
    if (f.format != SM_SHARD_CSV) return 0;
    const size_t n = sm_row_format_names(&f, own);
    for (size_t c = 0; c < f.schema->n; c++)
        for (size_t i = 0; i < n; i++)
            if (strcmp(f.schema->columns[c].name, own[i]) == 0)
                return sm_fail(err, SM_E_PIPELINE,
                               "a csv shard has a column '%s' of its own, and so have these rows "
                               "(hint: name it otherwise in the source, drop it with DropColumns, "
                               "or expand: {encode: npy})",
                               own[i]);
    return 0;
}

/* The places of the plan and, of rows, their columns. */
static int describe_run(struct expansion *x, struct sm_err *err) {
    const struct sm_pipeline *p = x->pipeline;
    uint64_t ignored = sm_index_ignored(x->data.index);
    if (ignored > 0 && !x->options->quiet)
        fprintf(stderr, "shardmill: %" PRIu64 " files in '%s' are no images that are read here\n",
                ignored, p->source.path);
    if (sm_places_new(&x->places, p, x->data.index, p->part, NULL, err) < 0) return -1;
    struct sm_features *features = NULL;
    if (sm_pipeline_is_rows(p)) {
        char artifacts[PATH_MAX + 16];
        snprintf(artifacts, sizeof artifacts, "%s/" SM_ARTIFACTS_NAME, x->state);
        if (sm_features_new(&features, p, p->n_ops, x->data.index, artifacts, err) < 0) return -1;
        if (names_check(x, features, err) < 0) {
            sm_features_free(&features);
            return -1;
        }
    }
    struct sm_run_source source = {.pipeline = p,
                                   .index = x->data.index,
                                   .places = x->places,
                                   .columns = features ? sm_features_out(features) : NULL,
                                   .epoch = x->options->epoch,
                                   .slice = x->options->slice,
                                   .slices = x->options->slices};
    int r = sm_run_plan(x->run, &source, err);
    memcpy(x->run->asked_digest, x->asked, sizeof x->asked);
    sm_features_free(&features);
    return r;
}

/* What decides all that a pipeline learns, but for the dataset and the seed. */
static void asked_digest(struct expansion *x) {
    char hex[SM_XXH_HEX], text[1024];
    if (!sm_pipeline_learns(x->pipeline)) return;
    sm_pipeline_digest(x->pipeline, hex);
    snprintf(text, sizeof text, "%s %s", hex, sm_fit_fingerprint());
    sm_xxh(text, strlen(text), x->asked);
}

/* Whether the folder holds all of this very run, so that nothing need be learned to say so. A lock
 * file pins what is learned: then that is looked at too. */
static bool was_complete(struct expansion *x) {
    const struct sm_pipeline *p = x->pipeline;
    const struct sm_expand_options *o = x->options;
    char path[PATH_MAX + 64], gone[SM_PART_NAME_MAX];
    struct sm_run before;
    snprintf(path, sizeof path, "%s/" SM_MANIFEST_NAME, x->dir);
    if (x->asked[0] == 0 || (o->lock != NULL && access(o->lock, F_OK) == 0) ||
        sm_run_read(&before, path, NULL) < 0)
        return false;
    const bool same = strcmp(before.asked_digest, x->asked) == 0 &&
                      strcmp(before.dataset_digest, sm_index_dataset_digest(x->data.index)) == 0 &&
                      before.plan.seed == (uint64_t)p->seed && before.plan.epoch == o->epoch;
    if (same && sm_folder_shards(x->dir, &before, gone)) {
        *x->run = before;
        return true;
    }
    sm_run_release(&before);
    return false;
}

/* ---- the run itself ---- */

static uint32_t lease_samples(const struct expansion *x) {
    const struct sm_plan *plan = &x->run->plan;
    uint64_t lease = (uint64_t)x->options->lease_samples, all = sm_run_planned(x->run);
    if (lease == 0) {
        lease = sm_source_is_table(&x->pipeline->source) ? LEASE_ROWS : LEASE_SAMPLES;
        uint64_t workers = x->options->broker ? 1 : (uint64_t)x->options->workers;
        if (all / (workers * LEASES_PER_WORKER) < lease)
            lease = all / (workers * LEASES_PER_WORKER);
        if (lease < LEASE_SAMPLES_MIN) lease = LEASE_SAMPLES_MIN;
    }
    if (lease > SM_MAX_LEASE_SAMPLES) lease = SM_MAX_LEASE_SAMPLES;
    if (lease >= plan->shard_samples) return (uint32_t)plan->shard_samples;
    uint64_t leases = (plan->shard_samples + lease - 1) / lease; /* of equal size within a shard */
    return (uint32_t)((plan->shard_samples + leases - 1) / leases);
}

/* What the broker says while it works, and last when all is done. */
static int told(void *context, const Shardmill__JobStatus *s, struct sm_err *err) {
    struct expansion *x = context;
    const bool complete = s->state == SHARDMILL__JOB_STATE__COMPLETE;
    if (x->progress.unit == NULL)
        sm_progress_start(&x->progress, x->options->quiet, "samples", s->made);
    sm_progress_show(&x->progress, complete ? s->planned : s->made + s->in_work, s->planned,
                     s->quarantined, s->waits_for);
    if (complete && s->fingerprint[0] && (x->run->fingerprint = strdup(s->fingerprint)) == NULL)
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    return 0;
}

/* Hands the job over and waits for its end. */
static int job_run(struct expansion *x, struct sm_err *err) {
    const struct sm_await await = {.client = x->client,
                                   .embedded = x->embedded,
                                   .broker = x->options->broker,
                                   .quiet = x->options->quiet,
                                   .stop = x->options->stop,
                                   .poll_ms = POLL_MS,
                                   .told = told,
                                   .context = x};
    struct sm_buf json;
    sm_buf_init(&json, SM_MAX_MESSAGE_BYTES / 2);
    sm_pipeline_json(x->pipeline, &json);
    const struct sm_plan *plan = &x->run->plan;
    Shardmill__JobSpec spec = SHARDMILL__JOB_SPEC__INIT;
    spec.pipeline = json.data;
    spec.pipeline_digest = x->run->pipeline_digest;
    spec.dataset_digest = x->run->dataset_digest;
    spec.index_path = x->data.index_path;
    spec.index_digest = (char *)sm_index_digest(x->data.index);
    spec.source_root = x->data.root;
    spec.out_dir = x->dir;
    spec.samples = plan->samples;
    spec.copies = plan->copies;
    spec.shuffle = plan->shuffle;
    spec.seed = plan->seed;
    spec.epoch = plan->epoch;
    spec.shard_samples = plan->shard_samples;
    spec.slice = x->run->slice;
    spec.slices = x->run->slices;
    spec.name = x->run->name;
    /* the job's name says what is made and where, not how it is cut into leases: a resumed run may
     * cut otherwise */
    char identity[3 * PATH_MAX];
    int n =
        snprintf(identity, sizeof identity, "%s %s %" PRIu64 " %u %u/%u %s", spec.pipeline_digest,
                 spec.dataset_digest, spec.seed, spec.epoch, spec.slice, spec.slices, spec.out_dir);
    sm_xxh(identity, (size_t)n, x->job);
    spec.lease_samples = lease_samples(x);
    int r = json.full ? sm_fail(err, SM_E_PIPELINE, "the pipeline is too long for a message") : 0;
    if (r == 0 && x->options->broker != NULL)
        r = sm_hand_over_job(x->client, x->pipeline, &spec, err);
    if (r == 0) r = sm_await_job(&await, x->job, &spec, err);
    sm_buf_release(&json);
    return r;
}

static int work(struct expansion *x, struct sm_err *err) {
    if (sm_run_slice_shards(x->run) == 0) return sm_run_write_slice(x->run, x->dir, err);
    const char *endpoint = x->options->broker;
    if (endpoint == NULL) {
        struct sm_embedded_options embedded = {.state_dir = x->state,
                                               .workers = x->options->workers,
                                               .no_sandbox = x->options->no_sandbox,
                                               .no_fuse = x->options->no_fuse};
        if (sm_embedded_start(&x->embedded, &embedded, err) < 0) return -1;
        endpoint = sm_embedded_endpoint(x->embedded);
    }
    if (sm_client_new(&x->client, endpoint, x->options->stop, err) < 0) return -1;
    return job_run(x, err) < 0 ? -1 : collect(x, err);
}

/* ---- the results ---- */

static int take_shard(void *context, const Shardmill__ShardRecord *record, struct sm_err *err) {
    struct expansion *x = context;
    struct sm_shard_record s = {
        .shard = record->shard, .samples = record->samples, .bytes = record->bytes};
    snprintf(s.sha256, sizeof s.sha256, "%s", record->sha256);
    const struct sm_run *r = x->run;
    if (!sm_run_has_shard(r, &s))
        return sm_fail(err, SM_E_PROTOCOL,
                       "the broker names shard %" PRIu64 " of %" PRIu64
                       " samples, which the plan does not have",
                       s.shard, s.samples);
    bool more =
        r->n_shards > 0 && r->shards[r->n_shards - 1].shard == s.shard; /* of its bad ones */
    if (!more && sm_run_add_shard(x->run, &s, err) < 0) return -1;
    for (size_t i = 0; i < record->n_quarantined; i++)
        if (sm_run_take_bad(x->run, x->places, record->quarantined[i], err) < 0) return -1;
    return 0;
}

static int collect(struct expansion *x, struct sm_err *err) {
    if (sm_client_results(x->client, x->job, take_shard, x, err) < 0) return -1;
    if (x->run->n_shards != sm_run_slice_shards(x->run))
        return sm_fail(err, SM_E_INTERNAL, "the broker reports %zu shards of %" PRIu64,
                       x->run->n_shards, sm_run_slice_shards(x->run));
    char gone[SM_PART_NAME_MAX];
    if (!sm_folder_shards(x->dir, x->run, gone)) {
        bool ours = x->options->broker == NULL;
        if (ours) sm_embedded_stop(&x->embedded, SM_GRACE_MS), sm_folder_forget(x->state);
        return sm_fail(err, SM_E_MISSING,
                       "'%s/%s' was finished, and now is missing or has another size (hint: %s)",
                       x->dir, gone,
                       ours ? "run it again: all shards are made anew"
                            : "this broker knows the run as complete; make it without --broker");
    }
    sm_client_free(&x->client);
    sm_embedded_stop(&x->embedded, SM_GRACE_MS);
    const int found = sm_run_find_bad(x->run, x->places, x->data.root, err);
    if (found < 0) return -1;
    if (found > 0)
        fprintf(stderr, "shardmill: rows are quarantined without their lines: %s\n", err->text);
    if (x->run->slices > 1) return sm_run_write_slice(x->run, x->dir, err);
    sm_sink_sweep(x->dir);
    return sm_run_write_manifest(x->run, x->dir, err);
}

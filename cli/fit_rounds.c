/* Submits a round, waits for it, reads the partials back in the order of their ranges. What a round
 * leaves is removed before the next one; a fit that was interrupted begins again. */
#include "cli/fit_rounds.h"

#include "cli/await.h"
#include "cli/hand_over.h"
#include "lib/fs.h"
#include "workers/sinks/sink.h"
#include "workers/table/blas.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { POLL_MS = 10 };

struct sm_fit_crew {
    const struct sm_fit_options *options;
    const struct sm_fit_source *source;
    const struct sm_dataset *data;
    const char *dir;
    struct sm_fit_watch *watch;
    struct sm_embedded *embedded;
    struct sm_client *client;
    struct sm_buf pipeline; /* as JSON */
    char pipeline_digest[SM_XXH_HEX];
    uint32_t round;
    char round_dir[PATH_MAX]; /* ""; the broker carries states and partials */
    char unique[SM_XXH_HEX];  /* a fit's rounds are jobs of their own: partials do not stay */
};

/* Where the partials of a round go. */
struct taking {
    struct sm_fit_crew *crew;
    const char *job;
    uint8_t *partials;
    size_t bytes, stride;
    uint64_t ranges, taken;
};

static int round_run(void *context, const struct sm_fit *fit, const struct sm_fit_context *c,
                     const struct sm_buf *state, uint64_t ranges, size_t stride, void *partials,
                     struct sm_err *err);

int sm_fit_crew_start(struct sm_fit_crew **gives, const struct sm_fit_options *options,
                      const struct sm_fit_source *source, const struct sm_dataset *data,
                      const char *dir, struct sm_fit_watch *watch, struct sm_err *err) {
    struct sm_fit_crew *crew = *gives = calloc(1, sizeof *crew);
    if (crew == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    *crew = (struct sm_fit_crew){
        .options = options, .source = source, .data = data, .dir = dir, .watch = watch};
    sm_buf_init(&crew->pipeline, SM_MAX_MESSAGE_BYTES / 2);
    sm_pipeline_json(source->pipeline, &crew->pipeline);
    sm_pipeline_digest(source->pipeline, crew->pipeline_digest);
    if (crew->pipeline.full)
        return sm_fail(err, SM_E_PIPELINE, "the pipeline is too long for a message");
    const char *endpoint = options->broker;
    if (endpoint == NULL) {
        const struct sm_embedded_options embedded = {
            .state_dir = dir, .workers = options->workers, .no_sandbox = options->no_sandbox};
        if (sm_embedded_start(&crew->embedded, &embedded, err) < 0) return -1;
        endpoint = sm_embedded_endpoint(crew->embedded);
    }
    uint64_t chance[2];
    if (getrandom(chance, sizeof chance, 0) != sizeof chance)
        return sm_fail_errno(err, "no random numbers");
    sm_xxh(chance, sizeof chance, crew->unique);
    return sm_client_new(&crew->client, endpoint, options->stop, err);
}

void sm_fit_crew_stop(struct sm_fit_crew **cp) {
    struct sm_fit_crew *crew = *cp;
    if (crew == NULL) return;
    sm_client_free(&crew->client);
    sm_embedded_stop(&crew->embedded, SM_GRACE_MS);
    sm_buf_release(&crew->pipeline);
    free(crew);
    *cp = NULL;
}

struct sm_fit_executor sm_fit_crew_executor(struct sm_fit_crew *crew) {
    return (struct sm_fit_executor){round_run, crew};
}

/* --- one round -------------------------------------------------------------------------------- */

/* A running broker's workers may be on other hosts. */
static bool is_carried(const struct sm_fit_crew *crew) {
    return crew->embedded == NULL;
}

/* Puts the state where the workers find it and fills its digest. */
static int state_write(struct sm_fit_crew *crew, const struct sm_buf *state, char sha[SM_SHA_HEX],
                       struct sm_err *err) {
    char path[PATH_MAX + 16];
    sm_sha256(state->data, state->len, sha);
    if (is_carried(crew)) {
        if (state->len == 0) sha[0] = 0; /* nothing to carry */
        return state->len == 0
                   ? 0
                   : sm_hand_over_bytes(crew->client, sha, state->data, state->len, err);
    }
    snprintf(crew->round_dir, sizeof crew->round_dir, "%.*s/round-%u",
             (int)(sizeof crew->round_dir - 32), crew->dir, crew->round);
    snprintf(path, sizeof path, "%s/" SM_FIT_STATE_NAME, crew->round_dir);
    if (sm_fs_mkdirs(crew->round_dir, err) < 0) return -1;
    return sm_fs_write_file(path, state->data, state->len, err);
}

static int told(void *context, const Shardmill__JobStatus *s, struct sm_err *err) {
    struct sm_fit_crew *crew = context;
    (void)err;
    sm_fit_watch_show(crew->watch, s->made, s->planned, s->waits_for);
    return 0;
}

/* Reads a partial in and removes its file. */
static int take_partial(void *context, const Shardmill__ShardRecord *record, struct sm_err *err) {
    struct taking *t = context;
    char name[SM_PART_NAME_MAX], path[PATH_MAX + SM_PART_NAME_MAX], sha[SM_SHA_HEX];
    if (record->shard >= t->ranges || record->bytes != t->bytes)
        return sm_fail(err, SM_E_PROTOCOL, "the broker names a partial that cannot be");
    uint8_t *to = t->partials + record->shard * t->stride;
    if (is_carried(t->crew)) {
        t->taken++;
        return sm_hand_back(t->crew->client, t->job, record->sha256, to, t->bytes, err);
    }
    sm_shard_file(record->shard, SM_SHARD_PARTIAL, name);
    snprintf(path, sizeof path, "%s/%s", t->crew->round_dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return sm_fail_errno(err, "cannot read '%s'", path);
    ssize_t got = sm_fs_pread(fd, to, t->bytes, 0);
    close(fd);
    if (got < 0) return sm_fail_errno(err, "cannot read '%s'", path);
    sm_sha256(to, (size_t)got, sha);
    if ((size_t)got != t->bytes || strcmp(sha, record->sha256) != 0)
        return sm_fail(err, SM_E_CHANGED, "'%s' is not what the worker wrote", path);
    unlink(path);
    t->taken++;
    return 0;
}

int sm_fit_crew_round(struct sm_fit_crew *crew, const struct sm_fit_round *round,
                      struct sm_err *err) {
    const struct sm_pipeline *p = crew->source->pipeline;
    char sha[SM_SHA_HEX], identity[PATH_MAX + 256], job[SM_XXH_HEX], name[160];
    if (state_write(crew, round->state, sha, err) < 0) return -1;
    snprintf(name, sizeof name, "%.100s/fit", p->name != NULL ? p->name : "");
    Shardmill__JobSpec spec = SHARDMILL__JOB_SPEC__INIT;
    spec.kind = SHARDMILL__JOB_KIND__FIT;
    spec.pipeline = crew->pipeline.data;
    spec.pipeline_digest = crew->pipeline_digest;
    spec.dataset_digest = (char *)sm_index_dataset_digest(crew->data->index);
    spec.index_path = (char *)crew->data->index_path;
    spec.index_digest = (char *)sm_index_digest(crew->data->index);
    spec.source_root = (char *)crew->data->root;
    spec.out_dir = crew->round_dir;
    spec.samples = round->ranges;
    spec.copies = spec.shard_samples = spec.lease_samples = spec.slices = 1;
    spec.seed = round->seed;
    spec.name = name;
    spec.fit_op = (uint32_t)crew->source->op;
    spec.fit_state = sha;
    spec.fit_features = (char *)(crew->source->features != NULL ? crew->source->features : "");
    spec.fit_blas = (char *)round->blas;
    int n = snprintf(identity, sizeof identity, "fit %s %s %zu %s %s %u", crew->pipeline_digest,
                     spec.dataset_digest, crew->source->op, sha, crew->unique, crew->round);
    sm_xxh(identity, (size_t)n, job);
    struct taking t = {.crew = crew,
                       .job = job,
                       .partials = round->partials,
                       .bytes = round->bytes,
                       .stride = round->stride,
                       .ranges = round->ranges};
    if (is_carried(crew) && sm_hand_over_job(crew->client, p, &spec, err) < 0) return -1;
    const struct sm_await await = {.client = crew->client,
                                   .embedded = crew->embedded,
                                   .broker = crew->options->broker,
                                   .quiet = crew->options->quiet,
                                   .stop = crew->options->stop,
                                   .poll_ms = POLL_MS,
                                   .told = told,
                                   .context = crew};
    if (sm_await_job(&await, job, &spec, err) < 0) return -1;
    if (sm_client_results(crew->client, job, take_partial, &t, err) < 0) return -1;
    crew->round++;
    if (t.taken == round->ranges) return 0;
    return sm_fail(err, SM_E_INTERNAL, "the broker reports %llu partials of %llu",
                   (unsigned long long)t.taken, (unsigned long long)round->ranges);
}

static int round_run(void *context, const struct sm_fit *fit, const struct sm_fit_context *c,
                     const struct sm_buf *state, uint64_t ranges, size_t stride, void *partials,
                     struct sm_err *err) {
    struct sm_fit_crew *crew = context;
    const struct sm_blas *blas = sm_blas(NULL);
    const struct sm_fit_round round = {.state = state,
                                       .seed = c->seed,
                                       .ranges = ranges,
                                       .bytes = fit->partial_bytes(c, state),
                                       .stride = stride,
                                       .partials = partials,
                                       .blas = blas != NULL ? blas->version : ""};
    sm_fit_watch_round(crew->watch, "ranges");
    sm_cli_stop_at_once(false);
    const int failed = sm_fit_crew_round(crew, &round, err);
    sm_cli_stop_at_once(!failed);
    return failed;
}

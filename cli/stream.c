/* From a pipeline file to the spec of a streaming job. Before: a command has read its options.
 * After: it is submitted to a broker (client.h), whose sessions (broker/) lease its steps. */
#include "cli/stream.h"

#include "cli/lock.h"
#include "cli/shape.h"
#include "lib/fs.h"
#include "workers/features.h"
#include "workers/places.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int batch_describe(struct sm_stream *s, const char *file, struct sm_err *err);
static int batch_lay_out(struct sm_stream *s, const char *file, const struct sm_features *f,
                         struct sm_err *err);
static int learn(struct sm_stream *s, const char *file, const struct sm_stream_options *options,
                 struct sm_err *err);
static int epoch_describe(struct sm_stream *s, const char *file, struct sm_err *err);
static int spec_describe(struct sm_stream *s, uint32_t epochs, struct sm_err *err);

int sm_stream_open(struct sm_stream *s, const char *file, const struct sm_stream_options *options,
                   struct sm_err *err) {
    memset(s, 0, sizeof *s);
    sm_buf_init(&s->json, SM_MAX_MESSAGE_BYTES / 2);
    if (sm_cli_load(&s->pipeline, file, options->common, err) < 0 ||
        batch_describe(s, file, err) < 0 || sm_fs_mkdirs(options->state_dir, err) < 0)
        return -1;
    if (realpath(options->state_dir, s->state) == NULL)
        return sm_fail_errno(err, "cannot use '%s'", options->state_dir);
    if (strlen(s->state) > sizeof s->state - 64)
        return sm_fail(err, SM_E_USAGE, "the path of '%s' is too long", s->state);
    if (sm_dataset_open(&s->data, &s->pipeline.source, s->state, options->reindex, err) < 0)
        return -1;
    if (learn(s, file, options, err) < 0 || epoch_describe(s, file, err) < 0) return -1;
    return spec_describe(s, options->epochs, err);
}

void sm_stream_release(struct sm_stream *s) {
    free(s->counts);
    free(s->names);
    sm_places_free(&s->places);
    sm_dataset_close(&s->data);
    sm_buf_release(&s->json);
    sm_pipeline_release(&s->pipeline);
}

uint64_t sm_stream_steps(const Shardmill__JobSpec *spec, uint32_t world_size) {
    uint64_t step = (uint64_t)spec->batch_size * world_size;
    return spec->drop_last ? spec->samples / step : (spec->samples + step - 1) / step;
}

/* What the file alone tells: of images also the shape of a batch. */
static int batch_describe(struct sm_stream *s, const char *file, struct sm_err *err) {
    const struct sm_pipeline_output *output = &s->pipeline.output;
    struct sm_shape shape;
    if (sm_cli_compile(&s->pipeline, file, &shape, NULL, err) < 0) return -1;
    if (output->batch_size > SM_MAX_BATCH_SAMPLES)
        return sm_fail(err, SM_E_PIPELINE, "%s: output.batch_size is %" PRId64 ", at most %d", file,
                       output->batch_size, SM_MAX_BATCH_SAMPLES);
    return sm_pipeline_is_rows(&s->pipeline) ? 0 : batch_lay_out(s, file, NULL, err);
}

static int batch_lay_out(struct sm_stream *s, const char *file, const struct sm_features *f,
                         struct sm_err *err) {
    if (sm_features_layout(&s->pipeline, f, (uint32_t)s->pipeline.output.batch_size, &s->batch,
                           err) == 0)
        return 0;
    bool large = err->code == SM_E_TOO_LARGE;
    err->code = SM_E_PIPELINE;
    if (!large) return sm_err_context(err, "%s", file);
    return sm_err_context(err, "%s: output.batch_size %u", file, s->batch.count);
}

/* Long names stay in the index, where trainers that want them ask. */
static int names_describe(struct sm_stream *s, uint32_t n, struct sm_err *err) {
    size_t bytes = 0;
    for (uint32_t c = 0; c < n; c++)
        bytes += strlen(sm_index_class(s->data.index, c)) + 1;
    if (bytes > SM_MAX_SPEC_NAMES_BYTES) return 0;
    s->names = calloc(n, sizeof *s->names);
    if (s->names == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint32_t c = 0; c < n; c++)
        s->names[c] = (char *)sm_index_class(s->data.index, c);
    s->spec.class_names = s->names;
    s->spec.n_class_names = n;
    return 0;
}

/* What trainers are told of the classes. */
static int counts_describe(struct sm_stream *s, struct sm_err *err) {
    const uint32_t n = sm_index_classes(s->data.index);
    if (n > SM_MAX_CLASS_COUNTS) return 0;
    s->counts = calloc(n, 2 * sizeof *s->counts);
    if (s->counts == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    s->spec.present = s->counts;
    s->spec.drawn = s->counts + n;
    s->spec.n_present = s->spec.n_drawn = n;
    for (uint32_t c = 0; c < n; c++) {
        const struct sm_account account = sm_places_account(s->places, c);
        s->spec.present[c] = account.present;
        s->spec.drawn[c] = account.drawn;
    }
    return names_describe(s, n, err);
}

/* What ops learn is part of the pipeline that is submitted, and so of its digest and id. */
static int learn(struct sm_stream *s, const char *file, const struct sm_stream_options *options,
                 struct sm_err *err) {
    char lock[PATH_MAX];
    if (sm_lock_path(file, lock, err) < 0) return -1;
    struct sm_fit_options fit = sm_fit_options_of(options->common, s->state, lock);
    fit.stop = options->stop;
    fit.borrow = options->learned;
    if (sm_fit_ensure(&s->pipeline, &fit, &s->data, NULL, err) == 0) return 0;
    return sm_err_context(err, "%s", file);
}

/* What needs the dataset: how many samples an epoch has, and of rows the columns of a batch. */
static int epoch_describe(struct sm_stream *s, const char *file, struct sm_err *err) {
    const struct sm_pipeline *p = &s->pipeline;
    if (sm_places_new(&s->places, p, s->data.index, p->part, NULL, err) < 0)
        return sm_err_context(err, "%s", file);
    if (!sm_pipeline_is_rows(p)) return 0;
    struct sm_features *f = NULL;
    char artifacts[PATH_MAX + 16];
    snprintf(artifacts, sizeof artifacts, "%s/" SM_ARTIFACTS_NAME, s->state);
    int r = sm_features_new(&f, p, p->n_ops, s->data.index, artifacts, err);
    if (r == 0)
        r = batch_lay_out(s, file, f, err);
    else
        sm_err_context(err, "%s", file);
    sm_features_free(&f);
    return r;
}

static Shardmill__Weights weights_of(const struct sm_stream *s) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    if (s->pipeline.output.weights) return SHARDMILL__WEIGHTS__IN_BATCHES;
    return r != NULL && r->method == SM_REBALANCE_ROWS ? SHARDMILL__WEIGHTS__BY_SAMPLE
                                                       : SHARDMILL__WEIGHTS__BY_CLASS;
}

static int spec_describe(struct sm_stream *s, uint32_t epochs, struct sm_err *err) {
    const struct sm_pipeline *p = &s->pipeline;
    sm_pipeline_json(p, &s->json);
    if (s->json.full) return sm_fail(err, SM_E_PIPELINE, "the pipeline is too long for a message");
    sm_pipeline_digest(p, s->pipeline_digest);
    shardmill__job_spec__init(&s->spec);
    s->spec.kind = SHARDMILL__JOB_KIND__STREAM;
    snprintf(s->name, sizeof s->name, "%s%s", p->name != NULL ? p->name : "",
             p->part == SM_PART_VAL ? "/val" : "");
    s->spec.name = s->name;
    s->spec.pipeline = s->json.data;
    s->spec.pipeline_digest = s->pipeline_digest;
    s->spec.dataset_digest = (char *)sm_index_dataset_digest(s->data.index);
    s->spec.index_path = s->data.index_path;
    s->spec.index_digest = (char *)sm_index_digest(s->data.index);
    s->spec.source_root = s->data.root;
    s->spec.samples = sm_places_samples(s->places);
    s->spec.copies = 1; /* an epoch of training sees each sample once */
    s->spec.shuffle = p->output.shuffle;
    s->spec.seed = (uint64_t)p->seed;
    s->spec.shard_samples = SM_MAX_SHARD_SAMPLES; /* no shards are made of it */
    s->spec.lease_samples = SM_MAX_LEASE_SAMPLES;
    s->spec.slices = 1;
    s->spec.batch_size = s->batch.count;
    s->spec.batch_bytes = s->batch.bytes;
    s->spec.drop_last = p->output.drop_last;
    s->spec.epochs = epochs;
    s->spec.weights = weights_of(s);
    if (counts_describe(s, err) < 0) return -1;
    char identity[3 * SM_XXH_HEX + 64];
    int n = snprintf(identity, sizeof identity, "stream %s %s %" PRIu64, s->pipeline_digest,
                     s->spec.dataset_digest, s->spec.seed);
    sm_xxh(identity, (size_t)n, s->id);
    return 0;
}

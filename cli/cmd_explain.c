/* `shardmill explain FILE`: everything that can be known before a run: defaults, the compiled plan,
 * sizes, and, when the data is there, what an expansion will make of each class. */
#include "cli/cli.h"
#include "cli/dataset.h"
#include "cli/shape.h"
#include "cli/stream.h"
#include "cli/yaml.h"
#include "lib/plan.h"
#include "workers/sources/source.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES_MAX = 64 << 20, BAR_COLUMNS = 40, CLASSES_SHOWN = 40, NAME_COLUMNS = 24 };

struct values {
    struct sm_common common;
    bool reindex;
};

struct explanation {
    struct sm_pipeline pipeline;
    struct sm_engine *engine;
    struct sm_dataset data;
    struct sm_index *index; /* NULL: the source is not there, or cannot be indexed */
    bool failed;            /* the second */
    bool kept;              /* the index is one that a serve has made */
    struct sm_shape shape;
    struct sm_plan plan; /* when index is not NULL */
    char digest[SM_XXH_HEX];
};

static int dataset_read(struct explanation *x, bool fresh, struct sm_err *err);
static void as_text(const struct explanation *x, struct sm_buf *out);
static void as_json(const struct explanation *x, struct sm_buf *out);

static int explain(struct explanation *x, const char *path, const struct values *v,
                   struct sm_err *err) {
    if (sm_cli_load(&x->pipeline, path, &v->common, err) != 0) return -1;
    if (sm_cli_compile(&x->pipeline, path, &x->shape, &x->engine, err) != 0) return -1;
    sm_pipeline_digest(&x->pipeline, x->digest);
    return dataset_read(x, v->reindex, err);
}

static int run(const void *values, int n, char **operands) {
    (void)n;
    const struct values *v = values;
    struct explanation x = {0};
    struct sm_err err;
    struct sm_buf out;
    sm_buf_init(&out, TEXT_BYTES_MAX);
    int rc = explain(&x, operands[0], v, &err);
    /* the plan is worth showing although the data is not in order */
    if (x.engine != NULL) (v->common.json ? as_json : as_text)(&x, &out);
    if (out.data != NULL) fputs(out.data, stdout);
    sm_buf_release(&out);
    sm_dataset_close(&x.data);
    sm_engine_free(&x.engine);
    sm_pipeline_release(&x.pipeline);
    return rc == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

static const struct sm_option options[] = {SM_OPTION_SOURCE, SM_OPTION_SEED,
                                           SM_OPTION_REINDEX(offsetof(struct values, reindex)),
                                           SM_OPTION_JSON};
static const char *const examples[] = {
    "shardmill explain pipelines/photos.yaml --source data/photos", NULL};

const struct sm_command sm_cmd_explain = {
    .name = "explain",
    .order = 2,
    .brief = "the plan of a pipeline: defaults, ops, sizes, classes",
    .operands = "FILE",
    .operands_min = 1,
    .operands_max = 1,
    .operand = SM_OPERAND_PIPELINE,
    .details = "Shows the file with every default filled in, what is done to a sample and in which "
               "shape it comes out. When the source is there, also the samples of each class and "
               "the shards that an expansion will write.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

/* --- the dataset ---------------------------------------------------------------------------- */

/* A source that is not there is no error. */
static int dataset_read(struct explanation *x, bool fresh, struct sm_err *err) {
    const struct sm_pipeline *p = &x->pipeline;
    /* a pattern's braces: only the index knows the files */
    bool pattern = p->source.format == SM_SOURCE_WEBDATASET;
    if (!pattern && access(p->source.path, F_OK) != 0) return 0;
    x->failed = sm_dataset_look(&x->data, &p->source, fresh, &x->kept, err) < 0;
    x->index = x->data.index;
    if (x->failed && pattern && err->code == SM_E_MISSING) x->failed = false;
    if (x->index == NULL) return x->failed ? -1 : 0;
    x->plan = (struct sm_plan){.samples = sm_index_samples(x->index),
                               .copies = (uint32_t)p->expand.copies,
                               .shuffle = p->output.shuffle,
                               .seed = (uint64_t)p->seed,
                               .shard_samples = (uint64_t)p->expand.samples_per_shard};
    return 0;
}

/* --- text ----------------------------------------------------------------------------------- */

static void bytes_text(double bytes, struct sm_buf *out) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int i = 0;
    while (bytes >= 1024 && i < 5)
        bytes /= 1024, i++;
    sm_buf_printf(out, i ? "%.1f %s" : "%.0f %s", bytes, units[i]);
}

/* A folder's name may hold anything; a terminal gets no commands from it. */
static void name_text(const char *name, struct sm_buf *out) {
    for (; *name; name++)
        sm_buf_add(out, (unsigned char)*name < 0x20 || *name == 0x7f ? "?" : name, 1);
}

static void class_text(const struct explanation *x, uint32_t label, uint64_t largest,
                       struct sm_buf *out) {
    uint64_t n = sm_index_class_samples(x->index, label);
    const char *name = sm_index_class(x->index, label);
    size_t used = strlen(name);
    int columns = 0;
    for (size_t i = 0; i < used; i++)
        columns += ((unsigned char)name[i] & 0xc0) != 0x80;
    int bar = largest ? (int)((n * BAR_COLUMNS + largest - 1) / largest) : 0;
    sm_buf_text(out, "  ");
    name_text(name, out);
    sm_buf_printf(out, "%*s %10" PRIu64 " %12" PRIu64 "  ",
                  columns < NAME_COLUMNS ? NAME_COLUMNS - columns : 0, "", n,
                  n * (uint64_t)x->plan.copies);
    while (bar-- > 0)
        sm_buf_text(out, "#");
    sm_buf_text(out, "\n");
}

static void classes_text(const struct explanation *x, struct sm_buf *out) {
    uint32_t n = sm_index_classes(x->index), shown = n > CLASSES_SHOWN ? CLASSES_SHOWN : n;
    uint64_t largest = 0, smallest = UINT64_MAX;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t count = sm_index_class_samples(x->index, i);
        if (count > largest) largest = count;
        if (count < smallest) smallest = count;
    }
    sm_buf_printf(out, "  %-*s %10s %12s\n", NAME_COLUMNS, "class", "samples", "in shards");
    for (uint32_t i = 0; i < shown; i++)
        class_text(x, i, largest, out);
    if (shown < n) sm_buf_printf(out, "  … and %" PRIu32 " more (--json lists all)\n", n - shown);
    if (n > 1 && smallest > 0)
        sm_buf_printf(out, "  the largest class has %.1f times as many samples as the smallest\n",
                      (double)largest / (double)smallest);
}

static void dataset_text(const struct explanation *x, struct sm_buf *out) {
    const struct sm_pipeline *p = &x->pipeline;
    if (x->index == NULL) {
        if (x->failed)
            sm_buf_printf(out, "dataset: '%s' cannot be indexed\n", p->source.path);
        else
            sm_buf_printf(out, "dataset: nothing at '%s' (hint: --source PATH)\n", p->source.path);
        return;
    }
    uint32_t classes = sm_index_classes(x->index);
    sm_buf_printf(out, "dataset: %" PRIu64 " samples in %" PRIu32 " class%s at %s%s\n",
                  sm_index_samples(x->index), classes, classes == 1 ? "" : "es", p->source.path,
                  x->kept ? ", as indexed in " SM_STREAM_STATE " (hint: --reindex looks anew)"
                          : "");
    classes_text(x, out);
    sm_buf_printf(out,
                  "\nexpansion: %" PRIu64 " samples x %" PRIu32 " cop%s = %" PRIu64
                  " positions in %" PRIu64 " shard%s of %" PRIu64 "\n",
                  x->plan.samples, x->plan.copies, x->plan.copies == 1 ? "y" : "ies",
                  sm_plan_positions(&x->plan), sm_plan_shards(&x->plan),
                  sm_plan_shards(&x->plan) == 1 ? "" : "s", x->plan.shard_samples);
}

static void as_text(const struct explanation *x, struct sm_buf *out) {
    const struct sm_pipeline *p = &x->pipeline;
    char shape[64];
    int64_t bytes = sm_shape_bytes(p, &x->shape);
    sm_buf_printf(out, "# pipeline %s, every default filled in\n", x->digest);
    sm_pipeline_yaml(p, out);
    sm_buf_text(out, "\n# the plan of a sample\n");
    sm_engine_explain(x->engine, out);
    if (out->data[out->len - 1] != '\n') sm_buf_text(out, "\n");
    sm_shape_text(p, &x->shape, shape, sizeof shape);
    sm_buf_printf(out, "\nout: %s", shape);
    if (bytes > 0) {
        sm_buf_text(out, ", ");
        bytes_text((double)bytes, out);
        sm_buf_printf(out, " as a tensor; a batch of %" PRId64 ": ", p->output.batch_size);
        bytes_text((double)bytes * (double)p->output.batch_size, out);
    }
    sm_buf_text(out, "\n");
    dataset_text(x, out);
}

/* --- JSON ----------------------------------------------------------------------------------- */

static void dataset_json(const struct explanation *x, struct sm_buf *out) {
    sm_buf_printf(out,
                  ",\n\"dataset\": {\"samples\": %" PRIu64 ", \"positions\": %" PRIu64
                  ", \"shards\": %" PRIu64 ", \"classes\": [",
                  x->plan.samples, sm_plan_positions(&x->plan), sm_plan_shards(&x->plan));
    for (uint32_t i = 0; i < sm_index_classes(x->index); i++) {
        uint64_t n = sm_index_class_samples(x->index, i);
        sm_buf_text(out, i ? ",\n  {\"name\": " : "\n  {\"name\": ");
        sm_buf_json(out, sm_index_class(x->index, i));
        sm_buf_printf(out, ", \"samples\": %" PRIu64 ", \"in_shards\": %" PRIu64 "}", n,
                      n * (uint64_t)x->plan.copies);
    }
    sm_buf_text(out, "]}");
}

static void as_json(const struct explanation *x, struct sm_buf *out) {
    const struct sm_pipeline *p = &x->pipeline;
    struct sm_buf plan;
    char shape[64];
    sm_buf_init(&plan, 1 << 20);
    sm_engine_explain(x->engine, &plan);
    sm_shape_text(p, &x->shape, shape, sizeof shape);
    sm_buf_printf(out, "{\"pipeline_digest\": \"%s\",\n\"pipeline\": ", x->digest);
    sm_pipeline_json(p, out);
    sm_buf_text(out, ",\n\"plan\": ");
    sm_buf_json(out, plan.data != NULL ? plan.data : "");
    sm_buf_printf(out,
                  ",\n\"out\": {\"text\": \"%s\", \"width\": %d, \"height\": %d, \"channels\": %d, "
                  "\"sample_bytes\": %" PRId64 ", \"batch_bytes\": %" PRId64 "}",
                  shape, x->shape.width, x->shape.height, x->shape.channels,
                  sm_shape_bytes(p, &x->shape),
                  sm_shape_bytes(p, &x->shape) * p->output.batch_size);
    if (x->index != NULL) dataset_json(x, out);
    sm_buf_text(out, "}\n");
    sm_buf_release(&plan);
}

/* `shardmill explain FILE`: everything that can be known before a run: defaults, the compiled plan,
 * sizes, and, when the data is there, what an expansion will make of each class. */
#include "cli/account.h"
#include "cli/cli.h"
#include "cli/dataset.h"
#include "cli/explain_rows.h"
#include "cli/fit.h"
#include "cli/shape.h"
#include "cli/stream.h"
#include "cli/yaml.h"
#include "lib/plan.h"
#include "workers/places.h"
#include "workers/sources/number.h"
#include "workers/sources/source.h"
#include "workers/table/artifact.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TEXT_BYTES_MAX = 64 << 20,
    BAR_COLUMNS = 40,
    CLASSES_SHOWN = 40,
    NAME_COLUMNS = 24,
    MANY_CLASSES = 10, /* among as few rows as twice that */
    MANY_SINGLE = 200  /* classes of one row each, among any rows */
};

struct values {
    struct sm_common common;
    const char *state;
    bool reindex;
};

struct explanation {
    struct sm_pipeline pipeline;
    struct sm_engine *engine;
    struct sm_dataset data;
    struct sm_index *index; /* NULL: the source is not there, or cannot be indexed */
    bool failed;            /* the second */
    bool kept;              /* the index is one that a serve has made */
    const char *state;      /* where it, and what fits have learned, would be */
    struct sm_shape shape;
    bool compiled;                    /* the file is all right by itself */
    struct sm_row_plan *rows;         /* NULL: images leave the pipeline, or a table is not there */
    struct sm_places *places;         /* when index is not NULL */
    struct sm_neighbours_plan search; /* of rows */
    struct sm_plan plan;              /* when index is not NULL */
    char digest[SM_XXH_HEX];
};

static int dataset_read(struct explanation *x, const char *path, bool fresh, struct sm_err *err);
static void as_text(const struct explanation *x, struct sm_buf *out);
static void as_json(const struct explanation *x, struct sm_buf *out);

static int rows_plan(struct explanation *x, const char *path, struct sm_err *err);

static int explain(struct explanation *x, const char *path, const struct values *v,
                   struct sm_err *err) {
    x->state = v->state;
    if (sm_cli_load(&x->pipeline, path, &v->common, err) != 0) return -1;
    if (sm_cli_compile(&x->pipeline, path, &x->shape, &x->engine, err) != 0) return -1;
    sm_pipeline_digest(&x->pipeline, x->digest);
    x->compiled = true;
    if (dataset_read(x, path, v->reindex, err) != 0) return -1;
    return sm_pipeline_is_rows(&x->pipeline) ? rows_plan(x, path, err) : 0;
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
    if (x.compiled) (v->common.json ? as_json : as_text)(&x, &out);
    if (out.data != NULL) fputs(out.data, stdout);
    sm_buf_release(&out);
    sm_row_plan_free(&x.rows);
    sm_places_free(&x.places);
    sm_dataset_close(&x.data);
    sm_engine_free(&x.engine);
    sm_pipeline_release(&x.pipeline);
    return rc == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

static const struct sm_option options[] = {
    SM_OPTION_SOURCE, SM_OPTION_SEED,
    SM_OPTION_STATE(offsetof(struct values, state),
                    "folder in which `fit` or `serve` keeps the index and what ops learn"),
    SM_OPTION_REINDEX(offsetof(struct values, reindex)), SM_OPTION_JSON};
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
               "the shards that an expansion will write. Of rows also the columns, what the ops "
               "have learned or are yet to learn, and the rows that cannot be read.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

/* --- the dataset ---------------------------------------------------------------------------- */

/* A source that is not there is no error. */
static int dataset_read(struct explanation *x, const char *path, bool fresh, struct sm_err *err) {
    const struct sm_pipeline *p = &x->pipeline;
    /* a pattern's braces: only the index knows the files */
    bool pattern = p->source.format == SM_SOURCE_WEBDATASET;
    if (!pattern && access(p->source.path, F_OK) != 0) return 0;
    x->failed = sm_dataset_look(&x->data, &p->source, x->state, fresh, &x->kept, err) < 0;
    x->index = x->data.index;
    if (x->failed && pattern && err->code == SM_E_MISSING) x->failed = false;
    if (x->index == NULL) return x->failed ? -1 : 0;
    x->plan = (struct sm_plan){.samples = sm_index_samples(x->index),
                               .copies = (uint32_t)p->expand.copies,
                               .shuffle = p->output.shuffle,
                               .seed = (uint64_t)p->seed,
                               .shard_samples = (uint64_t)p->expand.samples_per_shard};
    if (sm_places_new(&x->places, p, x->index, SM_PART_TRAIN, NULL, err) != 0)
        return sm_err_context(err, "%s", path);
    x->plan.samples = sm_places_samples(x->places);
    return 0;
}

/* Without a dataset nothing is known of a table. What was fitted before is found in the state that
 * serve keeps. */
static int rows_plan(struct explanation *x, const char *path, struct sm_err *err) {
    struct sm_pipeline *p = &x->pipeline;
    const struct sm_strs none = p->artifacts; /* the file is shown without them */
    if (x->index == NULL && sm_source_is_table(&p->source)) return 0;
    if (x->index != NULL) sm_fit_look(p, x->state, &x->data);
    const uint64_t rows = x->places != NULL ? sm_places_part_samples(x->places) : 0;
    char artifacts[PATH_MAX];
    snprintf(artifacts, sizeof artifacts, "%s/" SM_ARTIFACTS_NAME, x->state);
    if (x->places != NULL) x->search = sm_neighbours_plan(x->places, artifacts);
    const int failed = sm_row_plan_new(&x->rows, p, path, &x->data, rows, artifacts, err);
    p->artifacts = none;
    return failed;
}

/* --- text ----------------------------------------------------------------------------------- */

/* Samples of a class in an epoch. */
static uint64_t drawn_of(const struct explanation *x, uint32_t label) {
    return x->places != NULL ? sm_places_account(x->places, label).drawn
                             : sm_index_class_samples(x->index, label);
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
    sm_name_text(name, out);
    sm_buf_printf(out, "%*s %10" PRIu64 " %12" PRIu64 "  ",
                  columns < NAME_COLUMNS ? NAME_COLUMNS - columns : 0, "", n,
                  drawn_of(x, label) * (uint64_t)x->plan.copies);
    while (bar-- > 0)
        sm_buf_text(out, "#");
    sm_buf_text(out, "\n");
}

/* Labels that are numbers leave classes without samples: these are not listed. */
static void classes_text(const struct explanation *x, struct sm_buf *out) {
    const uint32_t n = sm_index_classes(x->index), occur = sm_index_classes_occur(x->index);
    uint64_t largest = 0, smallest = UINT64_MAX;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t count = sm_index_class_samples(x->index, i);
        if (count > largest) largest = count;
        if (count < smallest && count > 0) smallest = count;
    }
    sm_buf_printf(out, "  %-*s %10s %12s\n", NAME_COLUMNS, "class", "samples", "in shards");
    uint32_t shown = 0;
    for (uint32_t i = 0; i < n && shown < CLASSES_SHOWN; i++) {
        if (sm_index_class_samples(x->index, i) == 0) continue;
        class_text(x, i, largest, out);
        shown++;
    }
    if (shown < occur)
        sm_buf_printf(out, "  … and %" PRIu32 " more (--json lists all)\n", occur - shown);
    if (occur > 1)
        sm_buf_printf(out, "  the largest class has %.1f times as many samples as the smallest\n",
                      (double)largest / (double)smallest);
}

/* Every value of a label is a class, also of a column that was meant to be predicted as a number.
 */
static void label_text(const struct explanation *x, struct sm_buf *out) {
    const uint32_t n = sm_index_classes(x->index), occur = sm_index_classes_occur(x->index);
    const uint64_t rows = sm_index_samples(x->index);
    const char *fraction = NULL;
    bool numbers = true;
    uint32_t single = 0;
    if (!sm_source_is_table(&x->pipeline.source) || x->pipeline.source.label == NULL) return;
    for (uint32_t i = 0; i < n; i++) {
        const char *name = sm_index_class(x->index, i);
        double v;
        single += sm_index_class_samples(x->index, i) == 1;
        if (sm_number_parse(name, strlen(name), &v) != SM_NUMBER_FINITE)
            numbers = false;
        else if (fraction == NULL && v != floor(v))
            fraction = name;
    }
    const bool many = occur >= MANY_CLASSES && occur > rows / 2;
    if (!many && single < MANY_SINGLE && !(numbers && fraction != NULL)) return;
    sm_buf_text(out, "  the label looks like a number to predict, or an id: ");
    if (numbers && fraction != NULL) {
        sm_buf_text(out, "a class is called ");
        sm_name_text(fraction, out);
    } else {
        sm_buf_printf(out, "%" PRIu32 " classes in %" PRIu64 " rows, %" PRIu32 " of them with one",
                      occur, rows, single);
    }
    sm_buf_text(out, " (hint: without source.label it stays a column)\n");
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
    sm_buf_printf(out, "dataset: %" PRIu64 " samples in %" PRIu32 " class%s",
                  sm_index_samples(x->index), classes, classes == 1 ? "" : "es");
    if (sm_index_classes_occur(x->index) < classes)
        sm_buf_printf(out, ", %" PRIu32 " of them occur%s,", sm_index_classes_occur(x->index),
                      sm_index_classes_occur(x->index) == 1 ? "s" : "");
    sm_buf_printf(out, " at %s", p->source.path);
    if (x->kept) sm_buf_printf(out, ", as indexed in %s (hint: --reindex looks anew)", x->state);
    sm_buf_text(out, "\n");
    const uint64_t held =
        x->places != NULL ? sm_index_samples(x->index) - sm_places_part_samples(x->places) : 0;
    if (held > 0)
        sm_buf_printf(out,
                      "%" PRIu64 " of them are held out (--part val), %" PRIu64 " are drawn from\n",
                      held, sm_places_part_samples(x->places));
    if (p->rebalance != NULL && x->places != NULL)
        sm_account_text(x->places, x->index, &x->search, out);
    else
        classes_text(x, out);
    label_text(x, out);
    sm_buf_printf(out,
                  "\nexpansion: %" PRIu64 " samples x %" PRIu32 " cop%s = %" PRIu64
                  " positions in %" PRIu64 " shard%s of %" PRIu64 "\n",
                  x->plan.samples, x->plan.copies, x->plan.copies == 1 ? "y" : "ies",
                  sm_plan_positions(&x->plan), sm_plan_shards(&x->plan),
                  sm_plan_shards(&x->plan) == 1 ? "" : "s", x->plan.shard_samples);
}

/* Bytes of a sample; 0 while they are not known. */
static int64_t sample_bytes(const struct explanation *x) {
    if (!sm_pipeline_is_rows(&x->pipeline)) return sm_shape_bytes(&x->pipeline, &x->shape);
    const size_t columns = x->rows != NULL ? sm_row_plan_columns(x->rows) : 0;
    return (int64_t)(columns * (x->pipeline.output.dtype == SM_DTYPE_FLOAT64 ? 8 : 4));
}

static int64_t batch_bytes(const struct explanation *x) {
    const struct sm_pipeline_output *o = &x->pipeline.output;
    return (sample_bytes(x) + (o->weights ? (int64_t)sizeof(float) : 0)) * o->batch_size;
}

static void out_text(const struct explanation *x, struct sm_buf *out) {
    const struct sm_pipeline *p = &x->pipeline;
    const int64_t bytes = sample_bytes(x);
    char shape[64];
    sm_shape_text(p, &x->shape, shape, sizeof shape);
    sm_buf_printf(out, "\nout: %s", shape);
    if (x->rows != NULL && bytes > 0)
        sm_buf_printf(out, " of %zu column%s", sm_row_plan_columns(x->rows),
                      sm_row_plan_columns(x->rows) == 1 ? "" : "s");
    else if (x->rows != NULL)
        sm_buf_text(out, ", of which only the fit tells the columns (hint: shardmill fit)");
    if (bytes > 0) {
        sm_buf_text(out, ", ");
        sm_bytes_text((double)bytes, out);
        sm_buf_printf(out, " %s; a batch of %" PRId64 ": ",
                      sm_pipeline_is_rows(p) ? "a row" : "as a tensor", p->output.batch_size);
        sm_bytes_text((double)batch_bytes(x), out);
        if (p->output.weights) sm_buf_text(out, " with its weights");
    }
    sm_buf_text(out, "\n");
}

static void as_text(const struct explanation *x, struct sm_buf *out) {
    sm_buf_printf(out, "# pipeline %s, every default filled in\n", x->digest);
    sm_pipeline_yaml(&x->pipeline, out);
    sm_buf_printf(out, "\n# the plan of a %s\n", x->engine != NULL ? "sample" : "row");
    if (x->engine != NULL) sm_engine_explain(x->engine, out);
    if (out->data[out->len - 1] != '\n') sm_buf_text(out, "\n");
    if (x->rows != NULL) sm_row_plan_ops_text(x->rows, out);
    out_text(x, out);
    dataset_text(x, out);
    if (x->rows != NULL) sm_row_plan_table_text(x->rows, out);
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
        sm_buf_printf(out, ", \"samples\": %" PRIu64 ", \"in_shards\": %" PRIu64, n,
                      drawn_of(x, i) * (uint64_t)x->plan.copies);
        if (x->places != NULL) {
            sm_buf_text(out, ", ");
            sm_account_json(x->places, i, out);
        }
        sm_buf_text(out, "}");
    }
    sm_buf_text(out, "]");
    if (x->places != NULL) sm_account_search_json(x->places, &x->search, out);
    sm_buf_text(out, "}");
}

static void out_json(const struct explanation *x, struct sm_buf *out) {
    const struct sm_pipeline *p = &x->pipeline;
    const int64_t bytes = sample_bytes(x);
    char shape[64];
    sm_shape_text(p, &x->shape, shape, sizeof shape);
    sm_buf_printf(out, ",\n\"out\": {\"text\": \"%s\", ", shape);
    if (!sm_pipeline_is_rows(p))
        sm_buf_printf(out, "\"width\": %d, \"height\": %d, \"channels\": %d, ", x->shape.width,
                      x->shape.height, x->shape.channels);
    else if (bytes > 0)
        sm_buf_printf(out, "\"columns\": %zu, ", sm_row_plan_columns(x->rows));
    else
        sm_buf_text(out, "\"columns\": null, ");
    if (p->output.weights) sm_buf_text(out, "\"weights\": \"float32\", ");
    sm_buf_printf(out, "\"sample_bytes\": %" PRId64 ", \"batch_bytes\": %" PRId64 "}", bytes,
                  bytes > 0 ? batch_bytes(x) : 0);
}

static void as_json(const struct explanation *x, struct sm_buf *out) {
    struct sm_buf plan;
    sm_buf_init(&plan, 1 << 20);
    if (x->engine != NULL) sm_engine_explain(x->engine, &plan);
    if (x->rows != NULL) sm_row_plan_ops_text(x->rows, &plan);
    sm_buf_printf(out, "{\"pipeline_digest\": \"%s\",\n\"pipeline\": ", x->digest);
    sm_pipeline_json(&x->pipeline, out);
    sm_buf_text(out, ",\n\"plan\": ");
    sm_buf_json(out, plan.data != NULL ? plan.data : "");
    out_json(x, out);
    if (x->rows != NULL) {
        sm_buf_text(out, ",\n");
        sm_row_plan_json(x->rows, out);
    }
    if (x->index != NULL) dataset_json(x, out);
    sm_buf_text(out, "}\n");
    sm_buf_release(&plan);
}

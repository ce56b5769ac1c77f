/* Walks the ops on rows as a run does, but with what is known before it: schemas, artifacts that
 * are there, and of ops that are yet to learn what their first round takes. Before: features.h
 * gives the columns that go in. After: text and JSON. */
#include "cli/explain_rows.h"

#include "workers/features.h"
#include "workers/ops/pca.h"
#include "workers/places.h"
#include "workers/rebalance/method.h"
#include "workers/sources/number.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    COLUMNS_SHOWN = 40,
    CATEGORIES_SHOWN = 5,
    BAD_SHOWN = 5,
    NEARLY_ALL_PERCENT = 90, /* of a column's categories are numbers: it is told */
    NAME_COLUMNS = 24,
    BLOCK_ROWS = 4096,
    ARENA_MAX = 256 << 20,
    COUNTED_MAX = 64 << 20 /* bytes of a matrix whose missing cells are counted */
};

struct row_plan_op {
    const struct sm_op_node *node;
    size_t in, out; /* columns; 0: not known before a fit */
    bool learns;
    char sha256[SM_SHA_HEX]; /* of what it has learned; "" */
    const char *route;       /* of PCA */
    double kept;             /* of PCA: share of the variance; 0 before its fit */
    uint64_t ranges, memory; /* of its first round, when it is yet to learn and that is known */
};

struct sm_row_plan {
    struct sm_arena arena;
    struct sm_schema in;
    const struct sm_pipeline *pipeline;
    const struct sm_index *index; /* NULL: images */
    uint64_t *missing;            /* of each column; NULL: not counted */
    struct row_plan_op ops[SM_MAX_OPS];
    size_t n, out, first; /* first: place of the first op on rows in the pipeline */
};

static int columns_in(struct sm_row_plan *x, const struct sm_index *index, struct sm_err *err);
static int ops_walk(struct sm_row_plan *x, const char *file, uint64_t rows, const char *dir,
                    struct sm_err *err);
static int missing_count(struct sm_row_plan *x, const struct sm_dataset *data, struct sm_err *err);

/* Of an op; file: NULL when whoever called names it. */
static int fail_at(const char *file, const struct sm_op_node *node, bool named,
                   struct sm_err *err) {
    const char *name = named ? node->info->name : "";
    if (file == NULL) return sm_err_at(err, node->line, node->column, named ? name : NULL);
    return sm_err_context(err, "%s:%d:%d%s%s%s", file, node->line, node->column, named ? ": '" : "",
                          name, named ? "'" : "");
}

/* All but the count of missing cells, for which a table would be read. */
static int plan_make(struct sm_row_plan **gives, const struct sm_pipeline *p, const char *file,
                     const struct sm_dataset *data, uint64_t rows, const char *dir,
                     struct sm_err *err) {
    struct sm_row_plan *x = calloc(1, sizeof *x);
    *gives = NULL;
    if (x == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    sm_arena_init(&x->arena, ARENA_MAX);
    x->pipeline = p;
    if (sm_source_is_table(&p->source)) x->index = data->index;
    int failed = columns_in(x, x->index, err);
    if (failed && x->index == NULL && p->n_ops > 0) {
        err->code = err->code == SM_E_MEMORY ? SM_E_MEMORY : SM_E_PIPELINE;
        fail_at(file, &p->ops[sm_pipeline_image_ops(p) - 1], false, err);
    }
    if (!failed) failed = ops_walk(x, file, rows, dir, err);
    if (failed)
        sm_row_plan_free(&x);
    else
        *gives = x;
    return failed ? -1 : 0;
}

int sm_row_plan_new(struct sm_row_plan **gives, const struct sm_pipeline *p, const char *file,
                    const struct sm_dataset *data, uint64_t rows, const char *dir,
                    struct sm_err *err) {
    if (plan_make(gives, p, file, data, rows, dir, err) != 0) return -1;
    if ((*gives)->index == NULL || missing_count(*gives, data, err) == 0) return 0;
    sm_row_plan_free(gives);
    return -1;
}

int sm_row_plan_check(const struct sm_pipeline *p, const struct sm_dataset *data, const char *dir,
                      struct sm_err *err) {
    struct sm_places *places = NULL;
    struct sm_row_plan *x = NULL;
    if (sm_places_new(&places, p, data->index, SM_PART_TRAIN, NULL, err) != 0) return -1;
    int failed = plan_make(&x, p, NULL, data, sm_places_part_samples(places), dir, err);
    sm_row_plan_free(&x);
    sm_places_free(&places);
    return failed;
}

void sm_row_plan_free(struct sm_row_plan **plan) {
    if (*plan == NULL) return;
    sm_arena_release(&(*plan)->arena);
    free((*plan)->missing);
    free(*plan);
    *plan = NULL;
}

size_t sm_row_plan_columns(const struct sm_row_plan *x) {
    return x->out;
}

/* --- the walk --------------------------------------------------------------------------------- */

static int columns_in(struct sm_row_plan *x, const struct sm_index *index, struct sm_err *err) {
    struct sm_features *f = NULL;
    int failed =
        sm_features_new(&f, x->pipeline, sm_pipeline_image_ops(x->pipeline), index, "", err);
    if (!failed) failed = sm_schema_copy(&x->in, sm_features_in(f), &x->arena, err);
    sm_features_free(&f);
    return failed;
}

/* What the first round of a fit takes, from its partials; refuses what cannot be learned. */
static int first_round(struct row_plan_op *op, const struct sm_fit *fit,
                       const struct sm_fit_context *c, struct sm_err *err) {
    struct sm_buf state;
    sm_buf_init(&state, SM_MAX_ARTIFACT_BYTES);
    int failed = fit->begin(c, &state, err);
    if (!failed) {
        const size_t partial = fit->partial_bytes(c, &state),
                     element = c->in->is_double ? sizeof(double) : sizeof(float);
        op->ranges = sm_fit_ranges(c, partial);
        uint64_t kept = 2; /* the partial in work, and one that waits at each level of the tree */
        for (uint64_t n = op->ranges; n > 1; n /= 2)
            kept++;
        op->memory = kept * partial + sm_fit_block_rows(c) * c->in->n * element;
    }
    sm_buf_release(&state);
    return failed;
}

static double variance_kept(const struct sm_artifact *learned) {
    const struct sm_array *ratio = sm_artifact_find(learned, "explained_variance_ratio_");
    double sum = 0;
    for (uint64_t i = 0; ratio != NULL && ratio->type == SM_ARRAY_F64 && i < ratio->shape[0]; i++)
        sum += ((const double *)ratio->data)[i];
    return sum;
}

static int op_walk(struct sm_row_plan *x, struct row_plan_op *op, const struct sm_row_op *rows,
                   const char *dir, uint64_t samples, const struct sm_schema *in,
                   struct sm_schema *out, struct sm_err *err) {
    struct sm_artifact learned;
    const bool known = op->sha256[0] != 0;
    const struct sm_fit_context c = {
        .params = op->node->params, .in = in, .rows = samples, .seed = (uint64_t)x->pipeline->seed};
    if (known && sm_artifact_open(&learned, dir, op->sha256, err) != 0) return -1;
    if (strcmp(op->node->info->name, "PCA") == 0) op->route = sm_pca_route(c.params, in);
    int failed = rows->schema(c.params, known ? &learned : NULL, in, out, &x->arena, err);
    if (!failed && op->learns && !known && samples > 0)
        failed = first_round(op, rows->fit, &c, err);
    if (known) {
        op->kept = variance_kept(&learned);
        sm_artifact_close(&learned);
    }
    return failed;
}

/* What rebalancing makes rows of, where that is known and not the source. */
static int rebalance_walk(const struct sm_row_plan *x, const char *file, size_t place,
                          const struct sm_schema *schema, struct sm_err *err) {
    const struct sm_pipeline *p = x->pipeline;
    if (place == 0 || place != p->rebalance_after || schema->n == 0 ||
        sm_method_columns(p->rebalance, schema, err) == 0)
        return 0;
    return fail_at(file, p->rebalance, true, err);
}

/* Behind an op whose columns only its fit tells, the others are listed without numbers. */
static int ops_walk(struct sm_row_plan *x, const char *file, uint64_t rows, const char *dir,
                    struct sm_err *err) {
    const struct sm_pipeline *p = x->pipeline;
    struct sm_schema schema = x->in;
    x->first = sm_pipeline_image_ops(p);
    for (size_t i = x->first; i < p->n_ops; i++) {
        struct row_plan_op *op = &x->ops[x->n++];
        const struct sm_row_op *run = sm_op_find(p->ops[i].info->name)->rows;
        struct sm_schema out = {.n = 0};
        *op = (struct row_plan_op){.node = &p->ops[i], .in = schema.n, .learns = run->fit != NULL};
        if (schema.n == 0) continue;
        if (op->learns && i < p->artifacts.count)
            snprintf(op->sha256, sizeof op->sha256, "%s", p->artifacts.v[i]);
        if (op_walk(x, op, run, dir, rows, &schema, &out, err) != 0) {
            if (err->code != SM_E_MEMORY && err->code != SM_E_MISSING) err->code = SM_E_PIPELINE;
            return fail_at(file, op->node, true, err);
        }
        op->out = out.n;
        schema = out;
        if (rebalance_walk(x, file, i + 1, &schema, err) != 0) return -1;
    }
    x->out = schema.n;
    return 0;
}

static int missing_count(struct sm_row_plan *x, const struct sm_dataset *data, struct sm_err *err) {
    const uint64_t samples = sm_index_samples(x->index);
    const size_t row = x->in.n * (x->in.is_double ? sizeof(double) : sizeof(float));
    struct sm_table *table = NULL;
    struct sm_rows block = {0};
    if (samples > COUNTED_MAX / (row + 1)) return 0;
    x->missing = calloc(x->in.n + 1, sizeof *x->missing);
    if (x->missing == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int failed = sm_table_open(&table, x->index, data->root, err);
    if (!failed) failed = sm_rows_alloc(&block, BLOCK_ROWS, x->in.n, x->in.is_double, err);
    for (uint64_t at = 0; !failed && at < samples; at += block.n) {
        if (samples - at < block.n) block.n = (size_t)(samples - at);
        failed = sm_table_read(table, NULL, at, block.n, &block, err);
        for (size_t i = 0; !failed && i < block.n * x->in.n; i++) {
            const double v = block.is_double ? block.f64[i] : (double)block.f32[i];
            x->missing[i % x->in.n] += v != v;
        }
    }
    sm_rows_free(&block);
    sm_table_close(&table);
    return failed;
}

/* --- text ------------------------------------------------------------------------------------- */

void sm_bytes_text(double bytes, struct sm_buf *out) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    int i = 0;
    while (bytes >= 1024 && i < 5)
        bytes /= 1024, i++;
    sm_buf_printf(out, i ? "%.1f %s" : "%.0f %s", bytes, units[i]);
}

void sm_name_text(const char *name, struct sm_buf *out) {
    for (; *name; name++)
        sm_buf_add(out, (unsigned char)*name < 0x20 || *name == 0x7f ? "?" : name, 1);
}

/* Of a column that became categories although nearly all of them are numbers: a word that did it,
 * else NULL. */
static const char *stray_word(const struct sm_row_plan *x, const struct sm_column *column) {
    const struct sm_strs *declared = &x->pipeline->source.categorical;
    const char *stray = NULL;
    uint32_t numbers = 0;
    for (size_t i = 0; i < declared->count; i++)
        if (strcmp(declared->v[i], column->name) == 0) return NULL;
    for (uint32_t i = 0; i < column->n_categories; i++) {
        const char *word = column->categories[i];
        double v;
        if (sm_number_parse(word, strlen(word), &v) != SM_NUMBER_NONE)
            numbers++;
        else if (stray == NULL)
            stray = word;
    }
    const uint64_t all = column->n_categories;
    return stray != NULL && numbers * UINT64_C(100) >= all * NEARLY_ALL_PERCENT ? stray : NULL;
}

/* Whether most of a column's categories are numbers but for a comma in the place of the point. */
static bool has_commas(const struct sm_column *column) {
    uint32_t commas = 0;
    for (uint32_t i = 0; i < column->n_categories; i++) {
        char text[64];
        double v;
        snprintf(text, sizeof text, "%s", column->categories[i]);
        char *comma = strchr(text, ',');
        if (comma == NULL || strchr(text, '.') != NULL) continue;
        *comma = '.';
        commas += sm_number_parse(text, strlen(text), &v) == SM_NUMBER_FINITE;
    }
    return commas > column->n_categories / 2;
}

static void stray_text(const struct sm_row_plan *x, const struct sm_column *column,
                       struct sm_buf *out) {
    const char *word = stray_word(x, column);
    if (has_commas(column))
        sm_buf_text(out,
                    "    most of these are numbers with a comma (hint: source.decimal: \",\")\n");
    if (word == NULL) return;
    sm_buf_text(out, "    nearly all of these are numbers, but not '");
    sm_name_text(word, out);
    sm_buf_text(out, "' (hint: source.missing for words that mean a missing cell, source.numeric "
                     "to go on without such rows)\n");
}

static void column_text(const struct sm_row_plan *x, size_t c, struct sm_buf *out) {
    const struct sm_column *column = &x->in.columns[c];
    int columns = 0;
    for (const char *at = column->name; *at; at++)
        columns += ((unsigned char)*at & 0xc0) != 0x80;
    sm_buf_text(out, "  ");
    sm_name_text(column->name, out);
    sm_buf_printf(out, "%*s  ", columns < NAME_COLUMNS ? NAME_COLUMNS - columns : 0, "");
    if (column->kind == SM_COLUMN_NUMBER)
        sm_buf_text(out, "number");
    else
        sm_buf_printf(out, "%" PRIu32 " categor%s: ", column->n_categories,
                      column->n_categories == 1 ? "y" : "ies");
    for (uint32_t i = 0; i < column->n_categories && i < CATEGORIES_SHOWN; i++) {
        if (i > 0) sm_buf_text(out, ", ");
        sm_name_text(column->categories[i], out);
    }
    if (column->n_categories > CATEGORIES_SHOWN) sm_buf_text(out, ", …");
    if (x->missing != NULL && x->missing[c] > 0)
        sm_buf_printf(out, "; %" PRIu64 " missing", x->missing[c]);
    sm_buf_text(out, "\n");
    stray_text(x, column, out);
}

static void bad_rows_text(const struct sm_index *index, struct sm_buf *out) {
    const uint64_t n = sm_index_bad_rows(index);
    if (n == 0) return;
    sm_buf_printf(out, "  %" PRIu64 " row%s cannot be read and %s quarantined:\n", n,
                  n == 1 ? "" : "s", n == 1 ? "is" : "are");
    for (uint64_t k = 0; k < n && k < BAD_SHOWN; k++) {
        const struct sm_bad_row bad = sm_index_bad_row(index, k);
        sm_buf_printf(out, "    row %" PRIu64 ", line %" PRIu64 ", byte %" PRIu64 ": ", bad.row,
                      bad.line, bad.offset);
        sm_name_text(bad.text, out);
        sm_buf_text(out, "\n");
    }
    if (n > BAD_SHOWN)
        sm_buf_printf(out, "    … and %" PRIu64 " more (an expansion lists all)\n", n - BAD_SHOWN);
}

void sm_row_plan_table_text(const struct sm_row_plan *x, struct sm_buf *out) {
    const size_t shown = x->in.n < COLUMNS_SHOWN ? x->in.n : COLUMNS_SHOWN;
    const char *label = x->pipeline->source.label;
    if (x->index == NULL) return;
    sm_buf_printf(out, "table: %zu column%s of %s, label ", x->in.n, x->in.n == 1 ? "" : "s",
                  x->in.is_double ? "float64" : "float32");
    sm_name_text(label != NULL ? label : "none", out);
    sm_buf_text(out, "\n");
    for (size_t c = 0; c < shown; c++)
        column_text(x, c, out);
    if (shown < x->in.n)
        sm_buf_printf(out, "  … and %zu more columns (--json lists all)\n", x->in.n - shown);
    bad_rows_text(x->index, out);
}

static void columns_number(size_t n, struct sm_buf *out) {
    if (n == 0)
        sm_buf_text(out, "?");
    else
        sm_buf_printf(out, "%zu", n);
}

void sm_row_plan_ops_text(const struct sm_row_plan *x, struct sm_buf *out) {
    sm_buf_printf(out, "rows     %zu column%s of %s\n", x->in.n, x->in.n == 1 ? "" : "s",
                  x->in.is_double ? "float64" : "float32");
    for (size_t i = 0; i < x->n; i++) {
        const struct row_plan_op *op = &x->ops[i];
        sm_buf_printf(out, "%3zu      %-20s ", x->first + i, op->node->info->name);
        columns_number(op->in, out);
        sm_buf_text(out, " -> ");
        columns_number(op->out, out);
        sm_buf_text(out, " columns");
        if (op->route != NULL) sm_buf_printf(out, ", by %s", op->route);
        if (op->sha256[0] != 0) sm_buf_printf(out, ", has learned %.12s", op->sha256);
        if (op->kept > 0) sm_buf_printf(out, ", keeps %.2f %% of the variance", 100 * op->kept);
        if (op->learns && op->sha256[0] == 0) sm_buf_text(out, ", is yet to be fitted");
        if (op->ranges > 0) {
            sm_buf_printf(out, " (%" PRIu64 " range%s of rows, ", op->ranges,
                          op->ranges == 1 ? "" : "s");
            sm_bytes_text((double)op->memory, out);
            sm_buf_text(out, " of memory)");
        }
        sm_buf_text(out, "\n");
        if (x->first + i + 1 == x->pipeline->rebalance_after)
            sm_buf_printf(out, "         %s makes rows between those that come out here\n",
                          x->pipeline->rebalance->info->name);
    }
}

/* --- JSON ------------------------------------------------------------------------------------- */

static void table_json(const struct sm_row_plan *x, struct sm_buf *out) {
    const uint64_t n = sm_index_bad_rows(x->index);
    sm_buf_printf(
        out, "\"table\": {\"dtype\": \"%s\", \"label\": ", x->in.is_double ? "float64" : "float32");
    if (x->pipeline->source.label != NULL)
        sm_buf_json(out, x->pipeline->source.label);
    else
        sm_buf_text(out, "null");
    sm_buf_text(out, ", \"columns\": [");
    for (size_t c = 0; c < x->in.n; c++) {
        const struct sm_column *column = &x->in.columns[c];
        sm_buf_text(out, c ? ",\n  {\"name\": " : "\n  {\"name\": ");
        sm_buf_json(out, column->name);
        sm_buf_printf(out, ", \"kind\": \"%s\"",
                      column->kind == SM_COLUMN_NUMBER ? "number" : "category");
        if (x->missing != NULL) sm_buf_printf(out, ", \"missing\": %" PRIu64, x->missing[c]);
        if (column->kind == SM_COLUMN_CATEGORY) {
            sm_buf_text(out, ", \"categories\": [");
            for (uint32_t i = 0; i < column->n_categories; i++) {
                if (i > 0) sm_buf_text(out, ", ");
                sm_buf_json(out, column->categories[i]);
            }
            sm_buf_text(out, "]");
        }
        const char *word = stray_word(x, column);
        if (word != NULL) {
            sm_buf_text(out, ", \"stray_word\": ");
            sm_buf_json(out, word);
        }
        sm_buf_text(out, "}");
    }
    sm_buf_printf(out, "],\n  \"bad_rows\": %" PRIu64 ", \"bad\": [", n);
    for (uint64_t k = 0; k < n && k < BAD_SHOWN; k++) {
        const struct sm_bad_row bad = sm_index_bad_row(x->index, k);
        sm_buf_printf(out,
                      "%s{\"row\": %" PRIu64 ", \"line\": %" PRIu64 ", \"offset\": %" PRIu64
                      ", \"code\": \"%s\", \"error\": ",
                      k ? ", " : "", bad.row, bad.line, bad.offset, sm_code_word(bad.code));
        sm_buf_json(out, bad.text);
        sm_buf_text(out, "}");
    }
    sm_buf_text(out, "]},\n");
}

static void op_json(const struct row_plan_op *op, struct sm_buf *out) {
    sm_buf_printf(out, "{\"op\": \"%s\", \"line\": %d, \"columns_in\": ", op->node->info->name,
                  op->node->line);
    op->in > 0 ? sm_buf_printf(out, "%zu", op->in) : sm_buf_text(out, "null");
    sm_buf_text(out, ", \"columns_out\": ");
    op->out > 0 ? sm_buf_printf(out, "%zu", op->out) : sm_buf_text(out, "null");
    sm_buf_printf(out, ", \"learns\": %s", op->learns ? "true" : "false");
    if (op->sha256[0] != 0) sm_buf_printf(out, ", \"artifact\": \"%s\"", op->sha256);
    if (op->route != NULL) sm_buf_printf(out, ", \"svd_solver\": \"%s\"", op->route);
    if (op->kept > 0) sm_buf_printf(out, ", \"variance_kept\": %.9f", op->kept);
    if (op->ranges > 0)
        sm_buf_printf(out, ", \"ranges\": %" PRIu64 ", \"memory_bytes\": %" PRIu64, op->ranges,
                      op->memory);
    sm_buf_text(out, "}");
}

void sm_row_plan_json(const struct sm_row_plan *x, struct sm_buf *out) {
    if (x->index != NULL) table_json(x, out);
    sm_buf_text(out, "\"features\": [");
    for (size_t i = 0; i < x->n; i++) {
        sm_buf_text(out, i ? ",\n  " : "\n  ");
        op_json(&x->ops[i], out);
    }
    sm_buf_text(out, "]");
}

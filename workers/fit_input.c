/* Reads blocks of training rows for a fit. The part's samples are gathered from the table in the
 * order of the index; features of images lie in one file, row after row. */
#include "workers/fit_input.h"

#include "lib/fs.h"
#include "workers/features.h"
#include "workers/places.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct sm_fit_input {
    struct sm_fit_source source;
    const struct sm_op *op;
    struct sm_places *places; /* of a table: the training part */
    struct sm_table *table;
    int file; /* of images; -1: a table */
    struct sm_features *features;
    bool plain; /* no op stands before */
    struct sm_fit_context context;
    uint64_t *samples; /* of a block */
    struct sm_rows raw;
    uint8_t *bad;
    size_t room; /* rows that these three hold */
};

static int open_table(struct sm_fit_input *in, struct sm_err *err);
static int open_features(struct sm_fit_input *in, struct sm_err *err);
static int rows_read(void *context, uint64_t first, struct sm_rows *out, struct sm_err *err);

static int fail_at(const struct sm_fit_input *in, struct sm_err *err) {
    const struct sm_op_node *node = &in->source.pipeline->ops[in->source.op];
    return sm_err_at(err, node->line, node->column, node->info->name);
}

int sm_fit_input_new(struct sm_fit_input **gives, const struct sm_fit_source *source,
                     struct sm_err *err) {
    struct sm_fit_input *in = calloc(1, sizeof *in);
    const struct sm_pipeline *p = source->pipeline;
    *gives = NULL;
    if (in == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    in->source = *source;
    in->file = -1;
    assert(source->op < p->n_ops);
    in->op = sm_op_find(p->ops[source->op].info->name);
    assert(in->op != NULL && in->op->rows != NULL && in->op->rows->fit != NULL);
    in->plain = source->op == sm_pipeline_image_ops(p);
    int failed =
        sm_features_new(&in->features, p, source->op, source->index, source->artifacts, err);
    if (!failed && sm_source_is_table(&p->source))
        failed = open_table(in, err);
    else if (!failed)
        failed = open_features(in, err);
    if (!failed && in->context.rows == 0) {
        sm_fail(err, SM_E_DATASET, "there are no training rows to learn from");
        failed = fail_at(in, err);
    }
    if (failed) {
        sm_fit_input_free(&in);
        return -1;
    }
    in->context.params = p->ops[source->op].params;
    in->context.in = sm_features_out(in->features);
    in->context.seed = (uint64_t)p->seed;
    *gives = in;
    return 0;
}

void sm_fit_input_free(struct sm_fit_input **inp) {
    struct sm_fit_input *in = *inp;
    if (in == NULL) return;
    sm_features_free(&in->features);
    sm_table_close(&in->table);
    sm_places_free(&in->places);
    if (in->file >= 0) close(in->file);
    sm_rows_free(&in->raw);
    free(in->samples);
    free(in->bad);
    free(in);
    *inp = NULL;
}

const struct sm_fit *sm_fit_input_fit(const struct sm_fit_input *in) {
    return in->op->rows->fit;
}

const struct sm_fit_context *sm_fit_input_context(const struct sm_fit_input *in) {
    return &in->context;
}

struct sm_fit_rows sm_fit_input_rows(struct sm_fit_input *in) {
    return (struct sm_fit_rows){rows_read, in};
}

static int open_table(struct sm_fit_input *in, struct sm_err *err) {
    const struct sm_fit_source *s = &in->source;
    if (sm_places_new(&in->places, s->pipeline, s->index, SM_PART_TRAIN, NULL, err) != 0) return -1;
    in->context.rows = sm_places_part_samples(in->places);
    return sm_table_open(&in->table, s->index, s->root, err);
}

static int open_features(struct sm_fit_input *in, struct sm_err *err) {
    const size_t row = sm_features_in(in->features)->n * sizeof(float);
    struct stat st;
    assert(in->source.features != NULL && !sm_features_in(in->features)->is_double);
    in->file = open(in->source.features, O_RDONLY | O_CLOEXEC);
    if (in->file < 0 || fstat(in->file, &st) != 0)
        return sm_fail_errno(err, "cannot read '%s'", in->source.features);
    if ((uint64_t)st.st_size % row != 0)
        return sm_fail(err, SM_E_DIFFERS, "'%s' does not hold whole rows of %zu bytes",
                       in->source.features, row);
    in->context.rows = (uint64_t)st.st_size / row;
    return 0;
}

/* --- a block ---------------------------------------------------------------------------------- */

static int room_make(struct sm_fit_input *in, size_t n, struct sm_err *err) {
    const struct sm_schema *s = sm_features_in(in->features);
    if (n <= in->room) return 0;
    sm_rows_free(&in->raw);
    free(in->samples);
    free(in->bad);
    in->room = 0;
    in->samples = calloc(n, sizeof *in->samples);
    in->bad = calloc(n, 1);
    if (in->samples == NULL || in->bad == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (!in->plain && sm_rows_alloc(&in->raw, n, s->n, s->is_double, err) != 0) return -1;
    in->room = n;
    return 0;
}

static int raw_read(struct sm_fit_input *in, uint64_t first, struct sm_rows *out,
                    struct sm_err *err) {
    if (in->table != NULL) {
        for (size_t i = 0; i < out->n; i++)
            in->samples[i] = sm_places_part_sample(in->places, first + i);
        return sm_table_read(in->table, in->samples, 0, out->n, out, err);
    }
    const size_t row = out->columns * sizeof(float), want = out->n * row;
    const ssize_t got = sm_fs_pread(in->file, out->data, want, first * row);
    if (got < 0) return sm_fail_errno(err, "cannot read '%s'", in->source.features);
    if ((size_t)got != want)
        return sm_fail(err, SM_E_CHANGED, "'%s' was cut short", in->source.features);
    return 0;
}

/* The row as a user counts. */
static int refuse(const struct sm_fit_input *in, uint64_t row, const char *why,
                  struct sm_err *err) {
    const bool table = in->table != NULL;
    if (table) row = sm_index_row(in->source.index, sm_places_part_sample(in->places, row));
    return sm_fail(err, SM_E_DATASET, "%s %llu of the training part cannot be learned from: %s",
                   table ? "row" : "image", (unsigned long long)row, why);
}

static int rows_read(void *context, uint64_t first, struct sm_rows *out, struct sm_err *err) {
    struct sm_fit_input *in = context;
    assert(first + out->n <= in->context.rows);
    if (room_make(in, out->n, err) != 0) return -1;
    if (in->plain) return raw_read(in, first, out, err);
    struct sm_rows raw = in->raw;
    struct sm_row_faults faults = {.bad = in->bad};
    raw.n = out->n;
    memset(in->bad, 0, out->n);
    if (raw_read(in, first, &raw, err) != 0 ||
        sm_features_apply(in->features, &raw, out, &faults, err) != 0)
        return -1;
    return faults.n_bad == 0 ? 0 : refuse(in, first + faults.first, faults.text, err);
}

/* Compiles and runs the row ops of a pipeline: each op turns one block into the next, in pieces of
 * a fixed number of rows. A last short piece is filled up with copies of its last row, so that
 * every matrix product has the same shape and a row comes out the same whatever stands beside it.
 */
#include "workers/features.h"

#include "workers/chain.h"
#include "workers/kernels/rows.h"
#include "workers/rebalance/method.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The least number that becomes infinite in float32: half a unit beyond its largest. */
#define FLOAT_INFINITE 0x1.ffffffp+127

enum { PIECE_ROWS = 64, PIECES = 4, ARENA_MAX = 256 << 20 };

struct row_step {
    const struct sm_op *op;
    const struct sm_op_node *node;
    struct sm_artifact learned;
    bool has_learned;
    struct sm_schema out;
};

struct sm_features {
    struct sm_schema in;
    struct row_step steps[SM_MAX_OPS];
    size_t n;
    struct sm_rows
        piece[PIECES]; /* of PIECE_ROWS rows: what comes in, between two ops, what goes out */
    size_t widest;
    struct sm_arena arena;
};

static int schema_of_images(struct sm_features *f, const struct sm_pipeline *p, size_t n_ops,
                            struct sm_err *err);
static int step_compile(struct sm_features *f, const struct sm_pipeline *p, size_t i,
                        const char *artifact_dir, struct sm_err *err);
struct part; /* which ops, and which rows of a block */
static int piece_apply(struct sm_features *f, const struct part *part, const struct sm_rows *from,
                       struct sm_rows *to, struct sm_row_faults *faults, struct sm_err *err);

int sm_features_new(struct sm_features **gives, const struct sm_pipeline *p, size_t n_ops,
                    const struct sm_index *index, const char *artifact_dir, struct sm_err *err) {
    struct sm_features *f = calloc(1, sizeof *f);
    *gives = NULL;
    if (f == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    sm_arena_init(&f->arena, ARENA_MAX);
    const size_t first = sm_pipeline_image_ops(p);
    assert(n_ops >= first && n_ops <= p->n_ops);
    int failed = 0;
    if (sm_source_is_table(&p->source))
        f->in = *sm_index_schema(index);
    else
        failed = schema_of_images(f, p, first, err);
    f->widest = f->in.n;
    for (size_t i = first; !failed && i < n_ops; i++)
        failed = step_compile(f, p, i, artifact_dir, err);
    for (int i = 0; !failed && i < PIECES; i++)
        failed = sm_rows_alloc(&f->piece[i], PIECE_ROWS, f->widest, f->in.is_double, err);
    if (failed) {
        sm_features_free(&f);
        return -1;
    }
    *gives = f;
    return 0;
}

void sm_features_free(struct sm_features **fp) {
    struct sm_features *f = *fp;
    if (f == NULL) return;
    for (size_t i = 0; i < f->n; i++)
        sm_artifact_close(&f->steps[i].learned);
    for (int i = 0; i < PIECES; i++)
        sm_rows_free(&f->piece[i]);
    sm_arena_release(&f->arena);
    free(f);
    *fp = NULL;
}

const struct sm_schema *sm_features_in(const struct sm_features *f) {
    return &f->in;
}

const struct sm_schema *sm_features_out(const struct sm_features *f) {
    return sm_features_behind(f, f->n);
}

const struct sm_schema *sm_features_behind(const struct sm_features *f, size_t n) {
    assert(n <= f->n);
    return n > 0 ? &f->steps[n - 1].out : &f->in;
}

size_t sm_features_bytes(const struct sm_features *f) {
    return PIECES * PIECE_ROWS * f->widest * (f->in.is_double ? sizeof(double) : sizeof(float));
}

/* --- compile ---------------------------------------------------------------------------------- */

/* Every pixel is a column, channel by channel, row by row. */
static int schema_of_images(struct sm_features *f, const struct sm_pipeline *p, size_t n_ops,
                            struct sm_err *err) {
    struct sm_chain chain = {0};
    const struct sm_shape in = {.channels = p->source.mode == SM_MODE_L ? 1 : 3};
    int failed = sm_chain_compile(&chain, p->ops, n_ops, in, err);
    const struct sm_shape out = chain.out;
    sm_chain_release(&chain);
    if (failed) return -1;
    if (out.width <= 0 || out.height <= 0)
        return sm_fail(err, SM_E_PIPELINE,
                       "'Flatten' needs images of one size (hint: a Resize or crop with two sides "
                       "before it)");
    const size_t n = (size_t)out.channels * (size_t)out.width * (size_t)out.height;
    if (n > SM_MAX_FEATURES)
        return sm_fail(err, SM_E_TOO_LARGE,
                       "'Flatten' makes %zu columns of %d x %d x %d, at most %d (hint: a smaller "
                       "Resize, or Grayscale)",
                       n, out.channels, out.height, out.width, SM_MAX_FEATURES);
    enum { NAME = 12 };
    char *names = sm_arena_alloc(&f->arena, n * NAME);
    struct sm_column *columns = sm_arena_alloc(&f->arena, n * sizeof *columns);
    if (names == NULL || columns == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < n; i++) {
        snprintf(names + i * NAME, NAME, "p%zu", i);
        columns[i] = (struct sm_column){.name = names + i * NAME};
    }
    f->in = (struct sm_schema){.columns = columns, .n = n};
    return 0;
}

static int fail_at(const struct row_step *step, struct sm_err *err) {
    if (err->code != SM_E_MISSING && err->code != SM_E_DIFFERS && err->code != SM_E_MEMORY)
        err->code = SM_E_PIPELINE;
    return sm_err_at(err, step->node->line, step->node->column, step->op->info.name);
}

static int step_compile(struct sm_features *f, const struct sm_pipeline *p, size_t i,
                        const char *artifact_dir, struct sm_err *err) {
    struct row_step *step = &f->steps[f->n];
    const struct sm_schema *in = sm_features_out(f);
    *step = (struct row_step){.op = sm_op_find(p->ops[i].info->name), .node = &p->ops[i]};
    assert(step->op != NULL && step->op->rows != NULL);
    if (step->op->rows->fit != NULL) {
        const char *sha = i < p->artifacts.count ? p->artifacts.v[i] : "";
        int failed =
            sha[0] == 0 ? sm_fail(err, SM_E_MISSING, "it has not been fitted (hint: shardmill fit)")
                        : sm_artifact_open(&step->learned, artifact_dir, sha, err);
        if (failed) return fail_at(step, err);
        step->has_learned = true;
    }
    const struct sm_artifact *learned = step->has_learned ? &step->learned : NULL;
    f->n++; /* the artifact is closed with f */
    if (step->op->rows->schema(step->node->params, learned, in, &step->out, &f->arena, err) != 0)
        return fail_at(step, err);
    if (step->op->rows->prepare != NULL &&
        step->op->rows->prepare(step->node->params, &step->learned, in, err) != 0)
        return fail_at(step, err);
    if (step->out.n == 0 || step->out.n > SM_MAX_FEATURES) {
        sm_fail(err, SM_E_PIPELINE, "it leaves %zu columns, wanted 1 to %d", step->out.n,
                SM_MAX_FEATURES);
        return fail_at(step, err);
    }
    const char *twice = sm_schema_twice(&step->out);
    if (twice != NULL) {
        sm_fail(err, SM_E_PIPELINE,
                "two of the columns that it leaves are called '%.80s' (hint: name one otherwise in "
                "the source, or DropColumns before it)",
                twice);
        return fail_at(step, err);
    }
    assert(step->out.is_double == f->in.is_double);
    if (step->out.n > f->widest) f->widest = step->out.n;
    return 0;
}

/* --- a block ---------------------------------------------------------------------------------- */

struct part {
    size_t op, end;   /* the first of the ops, and the one behind the last */
    size_t row, used; /* the piece's first row in the block, and how many of its rows are of it */
};

int sm_features_apply(struct sm_features *f, const struct sm_rows *in, struct sm_rows *out,
                      struct sm_row_faults *faults, struct sm_err *err) {
    return sm_features_apply_part(f, 0, f->n, in, out, faults, err);
}

int sm_features_apply_part(struct sm_features *f, size_t op, size_t end, const struct sm_rows *in,
                           struct sm_rows *out, struct sm_row_faults *faults, struct sm_err *err) {
    assert(op <= end && end <= f->n);
    const size_t element = sm_rows_element(in), in_row = sm_features_behind(f, op)->n * element,
                 out_row = sm_features_behind(f, end)->n * element;
    assert(in->columns == sm_features_behind(f, op)->n && in->is_double == f->in.is_double &&
           out->n == in->n && out->columns == sm_features_behind(f, end)->n &&
           out->is_double == in->is_double);
    for (size_t first = 0; first < in->n; first += PIECE_ROWS) {
        const size_t used = in->n - first < PIECE_ROWS ? in->n - first : PIECE_ROWS;
        struct sm_rows from = f->piece[0], to = f->piece[3];
        uint8_t *source = (uint8_t *)in->data + first * in_row,
                *target = (uint8_t *)out->data + first * out_row;
        if (used == PIECE_ROWS) {
            from.data = source;
            to.data = target;
        } else {
            memcpy(from.data, source, used * in_row);
            for (size_t i = used; i < PIECE_ROWS; i++)
                memcpy((uint8_t *)from.data + i * in_row, source + (used - 1) * in_row, in_row);
        }
        const struct part part = {op, end, first, used};
        if (piece_apply(f, &part, &from, &to, faults, err) != 0) return -1;
        if (used < PIECE_ROWS) memcpy(target, to.data, used * out_row);
    }
    return 0;
}

/* Moves the faults of a piece to the block's; those of rows that only fill up do not count. */
static void faults_move(const struct sm_row_faults *from, size_t used, size_t first,
                        struct sm_row_faults *to) {
    for (size_t i = 0; i < used; i++) {
        if (from->bad[i] == 0 || to->bad[first + i] != 0) continue;
        to->bad[first + i] = 1;
        if (to->n_bad++ == 0 || first + i < to->first) {
            to->first = first + i;
            memcpy(to->text, from->text, sizeof to->text);
        }
    }
}

/* Whether a cell is so large; one look at all of them, since hardly any block has one. */
static bool any_reaches(const struct sm_rows *r, double bound) {
    const size_t n = r->n * r->columns;
    bool any = false;
    if (!r->is_double && sm_rows_finite(r->f32, n)) return false;
    for (size_t i = 0; i < n; i++)
        any |= fabs(r->is_double ? r->f64[i] : (double)r->f32[i]) >= bound;
    return any;
}

/* The first column of row i with such a cell, or -1. */
static long reaches_at(const struct sm_rows *r, size_t i, double bound) {
    for (size_t k = 0; k < r->columns; k++)
        if (fabs(sm_rows_cell(r, i, k)) >= bound) return (long)k;
    return -1;
}

/* A number that overflows is lost, and whoever reads the row could not know. */
static void overflows_find(const struct row_step *step, const struct sm_rows *out,
                           struct sm_row_faults *faults) {
    if (!any_reaches(out, INFINITY)) return;
    for (size_t i = 0; i < out->n; i++) {
        const long k = reaches_at(out, i, INFINITY);
        if (k >= 0)
            sm_row_fault(faults, i, "'%s' makes column '%.60s' infinite", step->op->info.name,
                         step->out.columns[k].name);
    }
}

void sm_features_leave(const struct sm_features *f, const struct sm_rows *out, bool narrow,
                       struct sm_row_faults *faults) {
    const struct sm_schema *schema = sm_features_out(f);
    const double bound = narrow ? FLOAT_INFINITE : INFINITY;
    if (!any_reaches(out, bound)) return;
    for (size_t i = 0; i < out->n; i++) {
        const long k = reaches_at(out, i, bound);
        if (k < 0) continue;
        const double x = sm_rows_cell(out, i, (size_t)k);
        if (isinf(x))
            sm_row_fault(faults, i, "column '%.60s' is infinite", schema->columns[k].name);
        else
            sm_row_fault(faults, i,
                         "column '%.60s' is %g, too large for float32 (hint: output: {dtype: "
                         "float64})",
                         schema->columns[k].name, x);
    }
}

static int piece_apply(struct sm_features *f, const struct part *part, const struct sm_rows *from,
                       struct sm_rows *to, struct sm_row_faults *faults, struct sm_err *err) {
    struct sm_rows in = *from;
    in.columns = sm_features_behind(f, part->op)->n;
    if (part->op == part->end)
        memcpy(to->data, in.data, PIECE_ROWS * in.columns * sm_rows_element(&in));
    for (size_t i = part->op; i < part->end; i++) {
        struct row_step *step = &f->steps[i];
        uint8_t bad[PIECE_ROWS] = {0};
        struct sm_row_faults found = {.bad = bad};
        struct sm_rows out = i + 1 == part->end ? *to : f->piece[1 + i % 2];
        out.columns = step->out.n;
        if (step->op->rows->apply(step->node->params, &step->learned, sm_features_behind(f, i), &in,
                                  &out, &found, err) != 0)
            return fail_at(step, err);
        overflows_find(step, &out, &found);
        if (found.n_bad > 0) faults_move(&found, part->used, part->row, faults);
        in = out;
    }
    return 0;
}

/* --- a shard ---------------------------------------------------------------------------------- */

struct sm_row_format sm_features_shard(const struct sm_pipeline *p, const struct sm_features *f,
                                       bool rebalances) {
    return (struct sm_row_format){.format = sm_shard_format(p->expand.encode),
                                  .is_double = p->output.dtype == SM_DTYPE_FLOAT64,
                                  .schema = sm_features_out(f),
                                  .row_name = sm_source_is_table(&p->source) ? "row" : "sample",
                                  .copy = rebalances || p->expand.copies > 1,
                                  .parents = rebalances && sm_method_learns(p->rebalance),
                                  .weight = p->output.weights};
}

/* --- a batch ---------------------------------------------------------------------------------- */

int sm_features_layout(const struct sm_pipeline *p, const struct sm_features *f, uint32_t count,
                       struct sm_batch_header *h, struct sm_err *err) {
    *h = (struct sm_batch_header){
        .count = count, .dtype = (uint32_t)p->output.dtype, .weight = p->output.weights};
    if (f != NULL) {
        h->layout = SM_LAYOUT_ROWS;
        h->channels = h->height = 1;
        h->width = (uint32_t)sm_features_out(f)->n;
        return sm_batch_layout(h, err);
    }
    struct sm_chain chain = {0};
    const struct sm_shape in = {.channels = p->source.mode == SM_MODE_L ? 1 : 3};
    int failed = sm_chain_compile(&chain, p->ops, p->n_ops, in, err);
    const struct sm_shape out = chain.out;
    sm_chain_release(&chain);
    if (failed) return -1;
    if (out.width <= 0 || out.height <= 0)
        return sm_fail(err, SM_E_PIPELINE,
                       "the samples have sizes of their own, and a batch is one tensor (hint: add "
                       "a Resize or crop with two sides)");
    h->layout = (uint32_t)p->output.layout;
    h->channels = (uint32_t)out.channels;
    h->height = (uint32_t)out.height;
    h->width = (uint32_t)out.width;
    return sm_batch_layout(h, err);
}

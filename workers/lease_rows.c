/* Rows for a lease: of a table they are read in blocks, of images they are collected as the cage
 * makes them; the row ops run on a block, and what comes out goes into the batch or the part. A row
 * that an op cannot take is quarantined and replaced like a picture that cannot be decoded. */
#include "workers/lease_state.h"

#include "lib/limits.h"
#include "workers/epoch_rows.h"
#include "workers/rebalance/method.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_ROWS = 1024, IMAGE_BLOCK_ROWS = 256 };

/* What fills a place of the block. A substitute keeps the place's weight: it stands for the row
 * that was planned there, so an epoch's weights add up to the same. Padding has none. */
struct row_place {
    struct sm_placed placed;
    uint64_t position;
    bool padding;
    int tries;
};

struct lease_rows {
    size_t block;               /* rows of a full block */
    size_t n;                   /* rows in it now */
    size_t stored;              /* rows of the lease that are stored */
    struct sm_rows in, out;     /* of `block` rows */
    struct sm_epoch_rows *made; /* of a table: makes them */
    struct row_place *places;
    struct sm_placed *placed; /* of them, as they are found */
    uint64_t *positions;      /* before that */
    struct sm_row_record *records;
    uint8_t *bad;
};

static void places_read(const struct sm_lease *l);
static int block_make(struct sm_lease *l, struct sm_err *err);
static int replace_bad(struct sm_lease *l, const struct sm_row_faults *faults, struct sm_err *err);
static int block_store(struct sm_lease *l, struct sm_err *err);

int lease_rows_start(struct sm_lease *l, struct sm_err *err) {
    const struct sm_features *f = l->job.features;
    const struct sm_schema *in = sm_features_in(f), *out = sm_features_out(f);
    struct lease_rows *r = l->rows = calloc(1, sizeof *r);
    if (r == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    r->block = l->job.cage != NULL ? IMAGE_BLOCK_ROWS : BLOCK_ROWS;
    if (r->block > l->range.count) r->block = l->range.count;
    r->places = calloc(r->block, sizeof *r->places);
    r->placed = calloc(r->block, sizeof *r->placed);
    r->positions = calloc(r->block, sizeof *r->positions);
    r->records = calloc(r->block, sizeof *r->records);
    r->bad = calloc(r->block, 1);
    if (r->places == NULL || r->placed == NULL || r->positions == NULL || r->records == NULL ||
        r->bad == NULL)
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (sm_rows_alloc(&r->in, r->block, in->n, in->is_double, err) != 0) return -1;
    const struct sm_epoch_rows_from from = {.places = l->job.places,
                                            .table = l->job.table,
                                            .learned = l->job.neighbours,
                                            .features = l->job.features};
    if (l->job.table != NULL && sm_epoch_rows_new(&r->made, &from, r->block, err) != 0) return -1;
    return sm_rows_alloc(&r->out, r->block, out->n, out->is_double, err);
}

void lease_rows_free(struct sm_lease *l) {
    struct lease_rows *r = l->rows;
    if (r == NULL) return;
    sm_epoch_rows_free(&r->made);
    sm_rows_free(&r->in);
    sm_rows_free(&r->out);
    free(r->places);
    free(r->placed);
    free(r->positions);
    free(r->records);
    free(r->bad);
    free(r);
    l->rows = NULL;
}

/* --- a table ---------------------------------------------------------------------------------- */

int lease_rows_step(struct sm_lease *l, struct sm_err *err) {
    struct lease_rows *r = l->rows;
    const uint32_t left = l->range.count - l->done;
    if (left == 0) return 1;
    r->n = left < r->block ? left : r->block;
    places_read(l);
    if (block_make(l, err) != 0 || block_store(l, err) != 0) return -1;
    l->done += (uint32_t)r->n;
    return l->done == l->range.count;
}

/* Of the block that begins where the lease has come to. */
static void places_read(const struct sm_lease *l) {
    const struct lease_rows *r = l->rows;
    const uint64_t positions = sm_plan_positions(&l->job.plan);
    for (size_t i = 0; i < r->n; i++) {
        const uint64_t at = l->range.first + l->done + i;
        r->places[i] = (struct row_place){.position = at % positions, .padding = at >= positions};
        r->positions[i] = at % positions;
    }
    sm_places_many(l->job.places, &l->job.plan, r->positions, r->n, r->placed);
    for (size_t i = 0; i < r->n; i++) {
        r->places[i].placed = r->placed[i];
        if (r->places[i].padding) r->places[i].placed.weight = 0;
    }
}

/* Rows that float32 cannot hold, or that were infinite before any op (SMOTE between two numbers
 * whose difference overflows). */
static void leave(const struct sm_lease *l, const struct sm_rows *out,
                  struct sm_row_faults *faults) {
    const bool is_double = l->batch.memory != NULL ? l->batch.header.dtype == SM_DTYPE_FLOAT64
                                                   : l->job.row_format->is_double;
    if (out->is_double || l->job.neighbours != NULL)
        sm_features_leave(l->job.features, out, !is_double, faults);
}

static int block_make(struct sm_lease *l, struct sm_err *err) {
    struct lease_rows *r = l->rows;
    struct sm_rows in = r->in, out = r->out;
    struct sm_row_faults faults = {.bad = r->bad};
    in.n = out.n = r->n;
    memset(r->bad, 0, r->n);
    if (sm_epoch_rows_make(r->made, r->placed, &in, &out, &faults, err) != 0) return -1;
    leave(l, &out, &faults);
    for (size_t i = 0; i < r->n && l->n_skip > 0; i++)
        if (lease_is_skipped(l, r->places[i].position)) {
            r->bad[i] = 1;
            if (faults.n_bad++ == 0)
                snprintf(faults.text, sizeof faults.text, "%s", sm_code_doc(SM_E_WORKER_DIED));
        }
    return faults.n_bad > 0 ? replace_bad(l, &faults, err) : 0;
}

/* One row by itself, so that each has its own sentence; bad ones are few. */
static int row_make(struct sm_lease *l, size_t i, struct sm_row_faults *faults,
                    struct sm_err *err) {
    struct lease_rows *r = l->rows;
    const struct sm_schema *in_schema = sm_features_in(l->job.features),
                           *out_schema = sm_features_out(l->job.features);
    struct sm_rows in, out;
    if (sm_rows_alloc(&in, 1, in_schema->n, in_schema->is_double, err) != 0) return -1;
    int failed = sm_rows_alloc(&out, 1, out_schema->n, out_schema->is_double, err);
    if (!failed) {
        failed = sm_epoch_rows_make(r->made, &r->places[i].placed, &in, &out, faults, err);
        if (!failed) leave(l, &out, faults);
        if (!failed && faults->n_bad == 0)
            memcpy((uint8_t *)r->out.data + i * out_schema->n * sm_rows_element(&out), out.data,
                   out_schema->n * sm_rows_element(&out));
        sm_rows_free(&out);
    }
    sm_rows_free(&in);
    return failed;
}

static int row_replace(struct sm_lease *l, size_t i, struct sm_err *err) {
    struct row_place *p = &l->rows->places[i];
    const uint64_t planned = p->placed.sample;
    uint8_t bad = 0;
    struct sm_row_faults faults = {.bad = &bad};
    struct sm_err why = {.code = SM_E_OP};
    const bool skipped = lease_is_skipped(l, p->position);
    int tried = 0;
    if (skipped)
        sm_fail(&why, SM_E_WORKER_DIED, "%s", sm_code_doc(SM_E_WORKER_DIED));
    else if (row_make(l, i, &faults, err) != 0)
        return -1;
    else if (p->placed.synthetic && p->placed.neighbour != planned)
        sm_fail(&why, SM_E_OP, "made between row %llu and %llu: %s",
                (unsigned long long)sm_index_row(l->job.index, planned),
                (unsigned long long)sm_index_row(l->job.index, p->placed.neighbour), faults.text);
    else
        sm_fail(&why, SM_E_OP, "%s%s", p->placed.synthetic ? "made with noise: " : "", faults.text);
    if (l->job.pipeline->source.on_error == SM_ON_ERROR_FAIL)
        return sm_fail(err, why.code, "row %llu: %s",
                       (unsigned long long)sm_index_row(l->job.index, planned), why.text);
    if (!p->padding &&
        lease_note_bad(l, p->position, planned, skipped ? "worker" : "ops", &why, err) != 0)
        return -1;
    while (lease_substitute(l, planned, &p->tries, &p->placed.sample)) {
        bad = 0;
        tried++;
        faults = (struct sm_row_faults){.bad = &bad};
        p->placed.synthetic = false;
        p->placed.label = sm_index_label(l->job.index, p->placed.sample);
        if (row_make(l, i, &faults, err) != 0) return -1;
        if (faults.n_bad > 0) continue;
        if (!p->padding) lease_note_substitute(l, p->position, p->placed.sample);
        return 0;
    }
    return sm_fail(
        err, SM_E_DATASET,
        "no row was found to fill the place of row %llu; others were tried %d times: %.200s "
        "(hint: does an op fit the data?)",
        (unsigned long long)sm_index_row(l->job.index, planned), tried, why.text);
}

static int replace_bad(struct sm_lease *l, const struct sm_row_faults *faults, struct sm_err *err) {
    for (size_t i = 0; i < l->rows->n; i++)
        if (faults->bad[i] != 0 && row_replace(l, i, err) != 0) return -1;
    return 0;
}

/* --- images ----------------------------------------------------------------------------------- */

int lease_rows_collect(struct sm_lease *l, const struct attempt *a, const uint8_t *npy, size_t n,
                       struct sm_err *err) {
    struct lease_rows *r = l->rows;
    const size_t bytes = sm_features_in(l->job.features)->n * sizeof(float);
    struct row_place *p = &r->places[r->n];
    assert(!r->in.is_double && n >= bytes && r->n < r->block);
    *p = (struct row_place){.position = a->position, .padding = a->padding, .tries = a->tries};
    p->placed = (struct sm_placed){.sample = a->sample,
                                   .copy = a->copy,
                                   .label = sm_index_label(l->job.index, a->sample),
                                   .added = a->added,
                                   .weight = a->weight};
    memcpy((uint8_t *)r->in.data + r->n * bytes, npy + n - bytes, bytes);
    r->n++;
    if (r->n < r->block && a->i + 1 < l->range.count) return 0;
    struct sm_rows in = r->in, out = r->out;
    struct sm_row_faults faults = {.bad = r->bad};
    in.n = out.n = r->n;
    memset(r->bad, 0, r->n);
    if (sm_features_apply(l->job.features, &in, &out, &faults, err) != 0) return -1;
    if (faults.n_bad > 0) /* pixels are finite numbers, so the fault is the pipeline's */
        return sm_fail(err, SM_E_PIPELINE, "the features of sample %llu cannot be made: %s",
                       (unsigned long long)r->places[faults.first].placed.sample, faults.text);
    if (block_store(l, err) != 0) return -1;
    r->n = 0;
    return 0;
}

/* --- where rows go ---------------------------------------------------------------------------- */

/* n elements of the rows' type as the batch's. */
static void elements_convert(const struct sm_rows *from, size_t n, bool to_double, void *to) {
    if (from->is_double == to_double) {
        memcpy(to, from->data, n * sm_rows_element(from));
    } else if (to_double) {
        for (size_t i = 0; i < n; i++)
            ((double *)to)[i] = (double)from->f32[i];
    } else {
        for (size_t i = 0; i < n; i++)
            ((float *)to)[i] = (float)from->f64[i];
    }
}

static void store_in_batch(struct sm_lease *l, size_t first) {
    const struct lease_rows *r = l->rows;
    const struct sm_batch_header *h = &l->batch.header;
    uint8_t *m = l->batch.memory;
    const uint64_t row = sm_batch_sample_bytes(h);
    uint8_t *to = m + h->tensor + row * first;
    elements_convert(&r->out, r->n * r->out.columns, h->dtype == SM_DTYPE_FLOAT64, to);
    sm_hash_add(l->hash, to, row * r->n);
    for (size_t i = 0; i < r->n; i++) {
        const struct row_place *p = &r->places[i];
        ((int64_t *)(m + h->label))[first + i] = p->placed.label;
        ((uint64_t *)(m + h->index))[first + i] = p->placed.sample;
        ((uint64_t *)(m + h->position))[first + i] = p->position;
        if (h->weight != 0) ((float *)(void *)(m + h->weight))[first + i] = p->placed.weight;
        m[h->flags + first + i] = (uint8_t)((p->padding ? SM_BATCH_PADDING : 0) |
                                            (p->tries > 0 ? SM_BATCH_SUBSTITUTE : 0));
    }
}

/* As a user counts: the row in the table, the sample of images. */
static int64_t row_number(const struct sm_lease *l, uint64_t sample) {
    return (int64_t)(l->job.table != NULL ? sm_index_row(l->job.index, sample) : sample);
}

static int store_in_part(struct sm_lease *l, struct sm_err *err) {
    struct lease_rows *r = l->rows;
    struct sm_rows rows = r->out;
    const struct sm_op_node *node = l->job.pipeline->rebalance;
    const bool between = node != NULL && sm_method_of(node)->neighbours != NULL;
    rows.n = r->n;
    for (size_t i = 0; i < r->n; i++) {
        const struct sm_placed *p = &r->places[i].placed;
        struct sm_row_record *record = &r->records[i];
        *record = (struct sm_row_record){.row = row_number(l, p->sample),
                                         .label = p->label,
                                         .copy = p->copy & ~SUBSTITUTE_COPY,
                                         .weight = p->weight,
                                         .parent = -1,
                                         .neighbour = -1,
                                         .gap = NAN};
        if (!p->synthetic) continue;
        record->parent = record->row;
        record->row = -1;
        if (!between) continue; /* noise has no direction */
        record->neighbour = row_number(l, p->neighbour);
        record->gap = p->gap;
    }
    return sm_part_rows(l->part, &rows, r->records, err);
}

static int block_store(struct sm_lease *l, struct sm_err *err) {
    if (l->batch.memory == NULL) return store_in_part(l, err);
    store_in_batch(l, l->rows->stored);
    l->rows->stored += l->rows->n;
    return 0;
}

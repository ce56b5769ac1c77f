/* A block is made in pieces. Of a piece all parents go through the first ops as one block of rows,
 * so do all neighbours, and what lies between them through the rest: ops give a row the same bytes
 * whatever stands beside it. Blocks without a synthetic row go through all ops at once. */
#include "workers/epoch_rows.h"

#include "workers/rebalance/method.h"
#include "workers/synthesis.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Rows of a piece: as many as make no difference, of wide tables fewer. */
enum { PIECE_BYTES = 4 << 20, PIECE_ROWS = 1024, PIECE_ROWS_MIN = 64 };

struct sm_epoch_rows {
    struct sm_epoch_rows_from from;
    /* with `after`: */
    size_t after;             /* ops before synthetic rows are made; 0: none, and no more is here */
    size_t k;                 /* SMOTENC: neighbours of a row, which vote on categories; else 0 */
    size_t room;              /* rows of a piece, */
    struct sm_rows made;      /* which holds parents, then rows between, */
    struct sm_rows raw, ends; /* and of as many neighbours as there is room for before and behind
                                 these ops */
    uint64_t *samples;
    size_t *at; /* of each neighbour: to which row of the piece it belongs */
    uint8_t *bad;
};

/* A part of a block. */
struct piece {
    const struct sm_placed *placed;
    struct sm_rows in, out;
    struct sm_row_faults faults;
};

static int buffers_make(struct sm_epoch_rows *e, size_t most, struct sm_err *err);
static int piece_make(struct sm_epoch_rows *e, struct piece *p, struct sm_err *err);

int sm_epoch_rows_new(struct sm_epoch_rows **gives, const struct sm_epoch_rows_from *from,
                      size_t most, struct sm_err *err) {
    const struct sm_pipeline *p = sm_places_pipeline(from->places);
    struct sm_epoch_rows *e = *gives = calloc(1, sizeof *e);
    if (e == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    e->from = *from;
    if (p->rebalance_after == 0 || sm_places_rebalance(from->places) == NULL) return 0;
    e->after = p->rebalance_after;
    if (sm_method_of(p->rebalance)->mixed) e->k = sm_neighbours_kept(from->learned);
    if (buffers_make(e, most, err) == 0) return 0;
    sm_epoch_rows_free(gives);
    return -1;
}

void sm_epoch_rows_free(struct sm_epoch_rows **ep) {
    struct sm_epoch_rows *e = *ep;
    if (e == NULL) return;
    sm_rows_free(&e->made);
    sm_rows_free(&e->raw);
    sm_rows_free(&e->ends);
    free(e->samples);
    free(e->at);
    free(e->bad);
    free(e);
    *ep = NULL;
}

static int buffers_make(struct sm_epoch_rows *e, size_t most, struct sm_err *err) {
    const struct sm_schema *in = sm_features_in(e->from.features),
                           *behind = sm_features_behind(e->from.features, e->after);
    const size_t widest = in->n > behind->n ? in->n : behind->n,
                 fit = PIECE_BYTES / (widest * (in->is_double ? sizeof(double) : sizeof(float)));
    e->room = fit > PIECE_ROWS ? PIECE_ROWS : fit < PIECE_ROWS_MIN ? PIECE_ROWS_MIN : fit;
    if (e->room > most) e->room = most;
    const size_t ends = e->room > e->k ? e->room : e->k; /* those of a row together */
    e->samples = calloc(ends + 1, sizeof *e->samples);
    e->at = calloc(ends + 1, sizeof *e->at);
    e->bad = calloc(ends + 1, 1);
    if (e->samples == NULL || e->at == NULL || e->bad == NULL)
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (sm_rows_alloc(&e->made, e->room, behind->n, in->is_double, err) != 0 ||
        sm_rows_alloc(&e->raw, ends, in->n, in->is_double, err) != 0)
        return -1;
    return sm_rows_alloc(&e->ends, ends, behind->n, in->is_double, err);
}

/* --- a block ---------------------------------------------------------------------------------- */

static struct sm_rows rows_part(const struct sm_rows *rows, size_t first, size_t n) {
    struct sm_rows part = *rows;
    part.n = n;
    part.data = (char *)rows->data + first * rows->columns * sm_rows_element(rows);
    return part;
}

/* Adds the faults of rows from `first` on, which have their bytes in `to` already. */
static void faults_add(const struct sm_row_faults *part, size_t first, struct sm_row_faults *to) {
    if (part->n_bad == 0) return;
    if (to->n_bad == 0) {
        to->first = first + part->first;
        memcpy(to->text, part->text, sizeof to->text);
    }
    to->n_bad += part->n_bad;
}

static bool any_synthetic(const struct sm_placed *placed, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (placed[i].synthetic) return true;
    return false;
}

int sm_epoch_rows_make(struct sm_epoch_rows *e, const struct sm_placed *placed, struct sm_rows *in,
                       struct sm_rows *out, struct sm_row_faults *faults, struct sm_err *err) {
    const struct sm_epoch_rows_from *f = &e->from;
    assert(in->n == out->n);
    if (e->after == 0 || !any_synthetic(placed, in->n))
        return sm_placed_rows(f->places, f->table, f->learned, placed, in, err) != 0
                   ? -1
                   : sm_features_apply(f->features, in, out, faults, err);
    for (size_t first = 0; first < in->n; first += e->room) {
        const size_t n = in->n - first < e->room ? in->n - first : e->room;
        struct piece piece = {.placed = placed + first,
                              .in = rows_part(in, first, n),
                              .out = rows_part(out, first, n),
                              .faults = {.bad = faults->bad + first}};
        if (piece_make(e, &piece, err) != 0) return -1;
        faults_add(&piece.faults, first, faults);
    }
    return 0;
}

/* --- a piece ---------------------------------------------------------------------------------- */

/* Rows of the table and what the first ops make of them. */
static int first_ops(struct sm_epoch_rows *e, size_t n, struct sm_rows *raw, struct sm_rows *made,
                     struct sm_row_faults *faults, struct sm_err *err) {
    raw->n = made->n = n;
    return sm_table_read(e->from.table, e->samples, 0, n, raw, err) != 0
               ? -1
               : sm_features_apply_part(e->from.features, 0, e->after, raw, made, faults, err);
}

/* Rows at the other end of a synthetic one: the neighbour, or all of them when they vote. */
static size_t ends_each(const struct sm_epoch_rows *e) {
    return e->k > 0 ? e->k : 1;
}

/* Notes the ends of synthetic rows from row *i on, as many as there is room for. Gives their
 * number. */
static size_t ends_note(struct sm_epoch_rows *e, const struct piece *p, size_t *i) {
    const size_t each = ends_each(e), most = e->room > e->k ? e->room : e->k;
    size_t n = 0;
    for (; *i < p->in.n && n + each <= most; ++*i) {
        const struct sm_placed *placed = &p->placed[*i];
        if (!placed->synthetic || p->faults.bad[*i] != 0) continue;
        e->at[n] = *i;
        if (e->k > 0)
            sm_parent_neighbours(e->from.places, e->from.learned, placed, e->samples + n);
        else
            e->samples[n] = placed->neighbour;
        n += each;
    }
    return n;
}

/* The next synthetic rows of a piece, from row *i on, become what lies between their ends. */
static int some_between(struct sm_epoch_rows *e, struct piece *p, struct sm_rows *made, size_t *i,
                        struct sm_err *err) {
    const struct sm_schema *schema = sm_features_behind(e->from.features, e->after);
    const size_t each = ends_each(e), n = ends_note(e, p, i);
    struct sm_rows raw = e->raw, ends = e->ends;
    struct sm_row_faults faults = {.bad = e->bad};
    if (n == 0) return 0;
    memset(e->bad, 0, n);
    if (first_ops(e, n, &raw, &ends, &faults, err) != 0) return -1;
    for (size_t j = 0; j < n; j += each) {
        const struct sm_placed *placed = &p->placed[e->at[j]];
        struct sm_ends to = {
            .to = &ends, .near = e->k > 0 ? &ends : NULL, .j = j, .at = j, .k = each};
        while (to.j < j + each - 1 && e->samples[to.j] != placed->neighbour)
            to.j++;
        if (memchr(e->bad + j, 1, each) != NULL)
            sm_row_fault(&p->faults, e->at[j], "a neighbour of its parent: %.100s", faults.text);
        else
            sm_row_between(schema, &to, placed->gap, made, e->at[j]);
    }
    return 0;
}

static int piece_make(struct sm_epoch_rows *e, struct piece *p, struct sm_err *err) {
    const struct sm_pipeline *pipeline = sm_places_pipeline(e->from.places);
    struct sm_rows made = e->made;
    if (sm_neighbours_kept(e->from.learned) == 0)
        return sm_fail(err, SM_E_MISSING, "neighbours are not known (hint: shardmill fit)");
    for (size_t i = 0; i < p->in.n; i++)
        e->samples[i] = p->placed[i].sample;
    if (first_ops(e, p->in.n, &p->in, &made, &p->faults, err) != 0) return -1;
    for (size_t i = 0; i < made.n;)
        if (some_between(e, p, &made, &i, err) != 0) return -1;
    return sm_features_apply_part(e->from.features, e->after, pipeline->n_ops, &made, &p->out,
                                  &p->faults, err);
}

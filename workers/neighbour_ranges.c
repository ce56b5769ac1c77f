/* The search for neighbours in ranges of rows, which say by counts alone what each takes. A range
 * looks its rows up among all of their class, in blocks that are small enough for a step to be
 * short. Before: the client has read the classes once, for what all ranges go out from. After: it
 * puts the partials together. */
#include "workers/neighbours_state.h"

#include "lib/limits.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    RANGES = 256,    /* about so many, so that workers end at about the same time, */
    STRIP_ROWS = 96, /* of whole strips, */
    STRIPS_MIN = 10, /* but so many that a class is not read for a few rows */
    OTHERS_MIN = 64, /* a tile's columns */
    OTHERS_BYTES =
        16 << 20, /* of rows that others are compared with: a step is one strip of them */
    PRODUCT = 24, /* what a pair costs besides its products, in products */
};

struct sm_neighbours_search {
    struct search s;
    struct sm_neighbours_plan plan;
};

struct sm_neighbours_range {
    struct search s; /* with a mean of its own, lent from the state */
    const struct sm_neighbours_plan *plan;
    const double *from; /* the state: of each class that is searched, one behind the other */
    uint64_t at, end;   /* rows of all classes: the next piece's first, and the range's end */
    uint32_t *out;
    uint32_t label;      /* of the class to look at next */
    uint64_t class_from; /* rows of the classes before it that are searched */
    struct piece piece;
    bool busy;
    uint64_t steps; /* done */
};

/* What a differing category weighs, then the means. */
static size_t state_class(const struct search *s) {
    return (1 + s->numbers) * sizeof(double);
}

/* --- what it takes ---------------------------------------------------------------------------- */

/* Rows of a range that memory allows. */
static uint64_t rows_most(const struct search *s) {
    const uint64_t n = search_room(s) / 2 / search_query_bytes(s);
    return n < SM_CODES_PANEL ? SM_CODES_PANEL : n / SM_CODES_PANEL * SM_CODES_PANEL;
}

static uint64_t larger(uint64_t a, uint64_t b) {
    return a > b ? a : b;
}

/* Where ops come first, wide rows may have become narrow ones: a step reads no more of them. */
static uint64_t others(const struct search *s) {
    const uint64_t each = search_other_bytes(s), read = search_source_bytes(s);
    uint64_t n = OTHERS_BYTES / larger(each, read) / OTHERS_MIN * OTHERS_MIN;
    if (n < OTHERS_MIN) n = OTHERS_MIN;
    const uint64_t room = (search_room(s) / 2 - search_own_bytes(s)) / each;
    if (n > room) n = room;
    return n < s->n ? n : s->n;
}

static uint64_t range_rows(const struct search *s, uint64_t rows) {
    uint64_t n = (rows + RANGES - 1) / RANGES;
    n = (n + STRIP_ROWS - 1) / STRIP_ROWS * STRIP_ROWS;
    if (n < STRIPS_MIN * STRIP_ROWS) n = STRIPS_MIN * STRIP_ROWS;
    return n < rows_most(s) ? n : rows_most(s);
}

static uint64_t artifact_bytes(const struct search *s, uint64_t rows) {
    const uint64_t classes = sm_places_rebalance(s->places)->classes;
    const struct sm_artifact a = {
        .n = 2,
        .arrays = {{.name = "offsets", .type = SM_ARRAY_I64, .ndim = 1, .shape = {classes + 1}},
                   {.name = "neighbours", .type = SM_ARRAY_U32, .ndim = 2, .shape = {rows, s->k}}}};
    return sm_artifact_size(&a);
}

/* What columns decide. */
static void plan_columns(struct search *s, struct sm_neighbours_plan *plan) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    const uint64_t reading = search_reading_bytes(s);
    for (uint32_t c = 0; c < r->classes; c++) {
        if (!search_class(s, c)) continue;
        const double pairs = (double)s->n * (double)s->n * (double)(s->numbers + PRODUCT);
        plan->state_bytes += state_class(s);
        plan->there += pairs;
        plan->here += s->n <= search_block_rows(s) ? pairs / 2 : pairs;
        plan->memory = larger(plan->memory, search_block_bytes(s));
    }
    plan->row_bytes = s->schema->n * (s->schema->is_double ? sizeof(double) : sizeof(float));
    plan->range_rows = range_rows(s, plan->rows);
    plan->ranges = (plan->rows + plan->range_rows - 1) / plan->range_rows;
    plan->partial_bytes = (size_t)plan->range_rows * s->k * sizeof(uint32_t);
    s->n = UINT64_MAX;
    plan->memory =
        reading + larger(plan->memory, plan->range_rows * search_query_bytes(s) +
                                           others(s) * search_other_bytes(s) + search_own_bytes(s));
}

struct sm_neighbours_plan sm_neighbours_plan(const struct sm_places *places,
                                             const char *artifacts) {
    struct sm_neighbours_plan plan = {0};
    struct search s;
    struct sm_err err;
    const struct sm_rebalance *r = sm_places_rebalance(places);
    if (r == NULL || sm_places_pipeline(places)->rebalance == NULL) return plan;
    const bool known = search_open(&s, places, artifacts, NULL, &err) == 0;
    for (uint32_t c = 0; s.k > 0 && c < r->classes; c++)
        plan.rows += search_class(&s, c) ? s.n : 0;
    if (plan.rows > 0) {
        plan.k = s.k;
        plan.artifact = artifact_bytes(&s, plan.rows);
        if (known) plan_columns(&s, &plan);
    }
    search_close(&s);
    return plan;
}

/* --- for all ranges --------------------------------------------------------------------------- */

int sm_neighbours_search_new(struct sm_neighbours_search **gives, const struct sm_places *places,
                             const char *artifacts, const char *root, struct sm_err *err) {
    struct sm_neighbours_search *n = *gives = calloc(1, sizeof *n);
    if (n == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    n->plan = sm_neighbours_plan(places, artifacts);
    if (search_open(&n->s, places, artifacts, root, err) == 0) return 0;
    sm_neighbours_search_free(gives);
    return -1;
}

void sm_neighbours_search_free(struct sm_neighbours_search **np) {
    if (*np == NULL) return;
    search_close(&(*np)->s);
    free(*np);
    *np = NULL;
}

const struct sm_neighbours_plan *sm_neighbours_search_plan(const struct sm_neighbours_search *n) {
    return &n->plan;
}

int sm_neighbours_state(struct sm_neighbours_search *n, struct sm_buf *state, struct sm_err *err) {
    struct search *s = &n->s;
    bool kept = true;
    for (uint32_t c = 0; c < sm_places_rebalance(s->places)->classes; c++) {
        if (!search_class(s, c)) continue;
        if ((s->mixed && search_category_weight(s, err) != 0) || search_centre(s, err) != 0)
            return -1;
        kept = kept && sm_buf_add(state, &s->category_weight, sizeof s->category_weight) &&
               sm_buf_add(state, s->mean, s->numbers * sizeof *s->mean);
    }
    return kept ? 0 : sm_fail(err, SM_E_TOO_LARGE, "the means of all classes are too large");
}

int sm_neighbours_finish(struct sm_neighbours_search *n, const uint32_t *partials,
                         struct sm_artifact *artifact, struct sm_arena *arena, struct sm_err *err) {
    struct search *s = &n->s;
    const uint32_t *at = partials;
    *artifact = (struct sm_artifact){0};
    for (uint32_t c = 0; c < sm_places_rebalance(s->places)->classes; c++) {
        if (!search_class(s, c)) continue;
        for (uint64_t i = 0; i < s->n * s->k; i++)
            if (*at++ >= s->n)
                return sm_fail(err, SM_E_PROTOCOL, "a worker names a neighbour that is not there");
    }
    return search_artifact(s, partials, artifact, arena, err);
}

/* --- one range -------------------------------------------------------------------------------- */

int sm_neighbours_range_new(struct sm_neighbours_range **gives, struct sm_neighbours_search *n,
                            const struct sm_buf *state, uint64_t range, uint32_t *partial,
                            struct sm_err *err) {
    const struct sm_neighbours_plan *plan = &n->plan;
    *gives = NULL;
    if (state->len != plan->state_bytes)
        return sm_fail(err, SM_E_DIFFERS,
                       "what a search for neighbours goes out from has %zu bytes, and %llu here "
                       "(hint: do submitter and worker have the same version?)",
                       state->len, (unsigned long long)plan->state_bytes);
    assert(range < plan->ranges);
    struct sm_neighbours_range *r = *gives = calloc(1, sizeof *r);
    if (r == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    const uint64_t first = range * plan->range_rows, end = first + plan->range_rows;
    memset(partial, 0, plan->partial_bytes);
    *r = (struct sm_neighbours_range){.s = n->s,
                                      .plan = plan,
                                      .from = (const double *)(const void *)state->data,
                                      .at = first,
                                      .end = end < plan->rows ? end : plan->rows,
                                      .out = partial};
    return 0;
}

void sm_neighbours_range_free(struct sm_neighbours_range **rp) {
    if (*rp == NULL) return;
    piece_free(&(*rp)->s, &(*rp)->piece);
    free(*rp);
    *rp = NULL;
}

uint64_t sm_neighbours_range_at(const struct sm_neighbours_range *r) {
    return r->steps;
}

/* The range's rows of the class that holds its next one. A class that lies in it as a whole and is
 * no larger than what others are compared with is compared with itself. */
static int next_piece(struct sm_neighbours_range *r, struct sm_err *err) {
    struct search *s = &r->s;
    for (;; r->label++) {
        if (!search_class(s, r->label)) continue;
        if (r->at < r->class_from + s->n) break;
        r->class_from += s->n;
        r->from += state_class(s) / sizeof *r->from;
    }
    const uint64_t first = r->at - r->class_from, left = r->end - r->at,
                   rows = s->n - first < left ? s->n - first : left;
    const bool one = rows == s->n && rows <= others(s);
    s->category_weight = r->from[0];
    s->mean = (double *)r->from + 1;
    s->is_centred = true;
    s->asked = rows;
    r->busy = true;
    return piece_make(s, &r->piece, (size_t)rows, one ? 0 : (size_t)others(s), err) != 0 ||
                   piece_begin(s, &r->piece, first, (size_t)rows, err) != 0
               ? -1
               : 0;
}

int sm_neighbours_range_step(struct sm_neighbours_range *r, struct sm_err *err) {
    if (!r->busy && next_piece(r, err) != 0) return -1;
    const int stepped = piece_step(&r->s, &r->piece, err);
    r->steps++;
    if (stepped <= 0) return stepped;
    const size_t rows = r->piece.q.rows.n;
    piece_end(&r->s, &r->piece, r->out);
    piece_free(&r->s, &r->piece);
    r->busy = false;
    r->out += rows * r->s.k;
    r->at += rows;
    return r->at == r->end;
}

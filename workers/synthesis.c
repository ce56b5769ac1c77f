/* Rows of an epoch as they stand in the table, and the arithmetic of synthetic ones. */
#include "workers/synthesis.h"

#include "lib/guard.h"
#include "lib/rng.h"
#include "workers/kernels/rows.h"
#include "workers/rebalance/method.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHORT_ROW_BYTES = 16 << 10, PIECE_ROWS = 1024 };
/* How many rows ahead memory is asked for, and how much of each; the processor guesses the rest. */
enum { AHEAD = 2, FETCH_BYTES = 1024, LINE_BYTES = 64 };

/* scikit-learn contrib's smoothed bootstrap: normal noise, as wide as the class spreads in each
 * column (the array "scales", classes x columns). */
static int noise_add(const struct sm_places *places, const struct sm_artifact *learned,
                     const struct sm_placed *p, struct sm_rows *rows, size_t i,
                     struct sm_err *err) {
    const struct sm_array *scales = learned != NULL ? sm_artifact_find(learned, "scales") : NULL;
    const uint64_t seed = (uint64_t)sm_places_pipeline(places)->seed;
    if (scales == NULL || scales->type != SM_ARRAY_F64 || scales->ndim != 2 ||
        scales->shape[1] != rows->columns || p->label >= scales->shape[0])
        return sm_fail(err, SM_E_DIFFERS,
                       "the scales of noise are of another dataset (hint: shardmill fit)");
    const double *scale = (const double *)scales->data + (size_t)p->label * rows->columns;
    struct sm_rng rng = sm_rng_op(seed, p->epoch, p->chance, p->label, SM_RNG_NOISE);
    for (size_t k = 0; k < rows->columns; k++) {
        const double noise = scale[k] * sm_rng_normal(&rng);
        sm_rows_put(rows, i, k, sm_rows_cell(rows, i, k) + noise);
    }
    return 0;
}

/* The category that most of the parent's neighbours have; of equals the first. */
static double voted(const struct sm_ends *ends, size_t k, uint32_t categories) {
    double best = NAN;
    size_t most = 0;
    for (uint32_t c = 0; c < categories; c++) {
        size_t n = 0;
        for (size_t i = 0; i < ends->k; i++)
            n += sm_rows_cell(ends->near, ends->at + i, k) == c;
        if (n > most) most = n, best = c;
    }
    return best;
}

size_t sm_neighbours_kept(const struct sm_artifact *learned) {
    const struct sm_array *list = learned != NULL ? sm_artifact_find(learned, "neighbours") : NULL;
    return list != NULL ? list->shape[1] : 0;
}

void sm_parent_neighbours(const struct sm_places *places, const struct sm_artifact *learned,
                          const struct sm_placed *p, uint64_t *samples) {
    const struct sm_array *list = sm_artifact_find(learned, "neighbours"),
                          *offsets = sm_artifact_find(learned, "offsets");
    const uint64_t k = list->shape[1],
                   row = (uint64_t)((const int64_t *)offsets->data)[p->label] + p->parent;
    for (uint64_t i = 0; i < k; i++)
        samples[i] =
            sm_places_class_sample(places, p->label, ((const uint32_t *)list->data)[row * k + i]);
}

static int rows_near(const struct sm_places *places, struct sm_table *table,
                     const struct sm_artifact *learned, const struct sm_placed *p,
                     const struct sm_schema *schema, struct sm_rows *near, struct sm_err *err) {
    const size_t k = sm_neighbours_kept(learned);
    uint64_t *samples = calloc(k + 1, sizeof *samples);
    if (samples == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    sm_parent_neighbours(places, learned, p, samples);
    int failed = sm_rows_alloc(near, k, schema->n, schema->is_double, err);
    if (!failed) failed = sm_table_read(table, samples, 0, k, near, err);
    free(samples);
    return failed;
}

/* Row i of rows lies on the way from one row to another. */
static void row_mix(const void *from, const void *to, double gap, struct sm_rows *rows, size_t i) {
    const size_t n = rows->columns;
    if (!rows->is_double) {
        sm_rows_mix(from, to, n, gap, rows->f32 + i * n);
        return;
    }
    const double *x = from, *y = to;
    double *row = rows->f64 + i * n;
    for (size_t k = 0; k < n; k++)
        row[k] = x[k] + gap * (y[k] - x[k]);
}

/* The same of a row whose categories are voted on. */
static void row_mix_vote(const struct sm_schema *schema, const struct sm_ends *ends, double gap,
                         struct sm_rows *rows, size_t i) {
    for (size_t k = 0; k < schema->n; k++) {
        const double from = sm_rows_cell(rows, i, k);
        sm_rows_put(rows, i, k,
                    schema->columns[k].kind == SM_COLUMN_CATEGORY
                        ? voted(ends, k, schema->columns[k].n_categories)
                        : from + gap * (sm_rows_cell(ends->to, ends->j, k) - from));
    }
}

void sm_row_between(const struct sm_schema *schema, const struct sm_ends *ends, double gap,
                    struct sm_rows *rows, size_t i) {
    const size_t row = schema->n * sm_rows_element(rows);
    if (ends->near != NULL)
        row_mix_vote(schema, ends, gap, rows, i);
    else
        row_mix((const char *)rows->data + i * row, (const char *)ends->to->data + ends->j * row,
                gap, rows, i);
}

/* Row i of rows holds the parent already. */
static int synthesize(const struct sm_places *places, struct sm_table *table,
                      const struct sm_artifact *learned, const struct sm_placed *p,
                      struct sm_rows *rows, size_t i, struct sm_err *err) {
    const struct sm_schema *schema = sm_index_schema(sm_places_index(places));
    const struct sm_method *method = sm_method_of(sm_places_pipeline(places)->rebalance);
    assert(sm_places_pipeline(places)->rebalance_after == 0); /* else epoch_rows.c makes them */
    if (method->neighbours == NULL) return noise_add(places, learned, p, rows, i, err);
    if (sm_neighbours_kept(learned) == 0)
        return sm_fail(err, SM_E_MISSING, "neighbours are not known (hint: shardmill fit)");
    /* most rows are short, and a row is made for each of many */
    _Alignas(64) char shorter[SHORT_ROW_BYTES];
    struct sm_rows near = {0}, to = {.n = 1, .columns = schema->n, .is_double = schema->is_double};
    const bool is_short = schema->n * sm_rows_element(&to) <= sizeof shorter;
    to.data = shorter;
    int failed = is_short ? 0 : sm_rows_alloc(&to, 1, schema->n, schema->is_double, err);
    if (!failed) failed = sm_table_read(table, &p->neighbour, 0, 1, &to, err);
    if (!failed && method->mixed) failed = rows_near(places, table, learned, p, schema, &near, err);
    const struct sm_ends ends = {.to = &to, .near = method->mixed ? &near : NULL, .k = near.n};
    if (!failed) sm_row_between(schema, &ends, p->gap, rows, i);
    if (!is_short) sm_rows_free(&to);
    sm_rows_free(&near);
    return failed;
}

/* Reads the rows of places, parents of synthetic ones too, and makes those of them. */
static int rows_read(const struct sm_places *places, struct sm_table *table,
                     const struct sm_artifact *learned, const struct sm_placed *placed,
                     struct sm_rows *rows, struct sm_err *err) {
    uint64_t samples[PIECE_ROWS];
    for (size_t i = 0; i < rows->n; i++)
        samples[i] = placed[i].sample;
    int failed = sm_table_read(table, samples, 0, rows->n, rows, err);
    for (size_t i = 0; !failed && i < rows->n; i++)
        if (placed[i].synthetic)
            failed = synthesize(places, table, learned, &placed[i], rows, i, err);
    return failed;
}

/* Asks for both ends of a row that is soon to be made: they lie anywhere in the table, and waiting
 * for them takes longer than the arithmetic. */
static void ends_fetch(struct sm_table *table, const struct sm_placed *p, size_t row_bytes) {
    const char *from = sm_table_lend(table, p->sample), *to = sm_table_lend(table, p->neighbour);
    for (size_t at = 0; at < row_bytes && at < FETCH_BYTES; at += LINE_BYTES) {
        __builtin_prefetch(from + at);
        __builtin_prefetch(to + at);
    }
}

/* Synthetic rows that follow each other, out of the mapped table. */
struct mixing {
    struct sm_table *table;
    const struct sm_placed *placed;
    struct sm_rows *rows;
    size_t first, n;
};

static void rows_mix(void *context) {
    const struct mixing *m = context;
    const size_t row_bytes = m->rows->columns * sm_rows_element(m->rows);
    for (size_t i = 0; i < m->n; i++) {
        const struct sm_placed *p = m->placed + i;
        if (i + AHEAD < m->n) ends_fetch(m->table, p + AHEAD, row_bytes);
        row_mix(sm_table_lend(m->table, p->sample), sm_table_lend(m->table, p->neighbour), p->gap,
                m->rows, m->first + i);
    }
}

int sm_placed_rows(const struct sm_places *places, struct sm_table *table,
                   const struct sm_artifact *learned, const struct sm_placed *placed,
                   struct sm_rows *rows, struct sm_err *err) {
    const struct sm_op_node *node = sm_places_pipeline(places)->rebalance;
    const struct sm_method *method = node != NULL ? sm_method_of(node) : NULL;
    const size_t row_bytes = rows->columns * sm_rows_element(rows);
    /* what lies between two rows that are in memory is made without a copy of either */
    const bool mixes = method != NULL && method->neighbours != NULL && !method->mixed &&
                       sm_places_pipeline(places)->rebalance_after == 0 &&
                       sm_neighbours_kept(learned) > 0 && rows->n > 0 &&
                       sm_table_lend(table, placed->sample) != NULL;
    for (size_t i = 0, k; i < rows->n; i += k) {
        const struct sm_placed *p = placed + i;
        const bool mixed = mixes && p->synthetic;
        k = 1;
        while (i + k < rows->n && (mixed || k < PIECE_ROWS) && (mixes && p[k].synthetic) == mixed)
            k++;
        if (mixed) {
            struct mixing m = {table, p, rows, i, k};
            if (sm_guard(rows_mix, &m)) continue;
            return sm_fail(err, SM_E_CHANGED, "the index became shorter after it was opened");
        }
        struct sm_rows part = *rows;
        part.n = k;
        part.data = (char *)rows->data + i * row_bytes;
        if (rows_read(places, table, learned, p, &part, err) != 0) return -1;
    }
    return 0;
}

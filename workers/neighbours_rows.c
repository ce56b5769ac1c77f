/* The rows that a search for neighbours compares: those of a class, read from the table and, with
 * `after`, run through the ops up to it; their means and spreads. Before: neighbours.c opens the
 * search. After: neighbours_search.c compares them. */
#include "workers/neighbours_state.h"

#include "lib/limits.h"
#include "workers/kernels/rows.h"
#include "workers/rebalance/method.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows that are looked through for the moments. */
enum { READ_BYTES = SM_MAX_NEIGHBOR_BYTES / 8, READ_ROWS = 4096 };
/* Rows that go through the ops at once: as many as make no difference, of wide tables fewer. */
enum { RAW_BYTES = 4 << 20, RAW_ROWS = 1024, RAW_ROWS_MIN = 64 };

size_t search_source_bytes(const struct search *s) {
    const struct sm_schema *in = s->features != NULL ? sm_features_in(s->features) : NULL;
    return in == NULL ? 0 : in->n * (in->is_double ? sizeof(double) : sizeof(float));
}

/* Rows of a piece that goes through the ops. */
static size_t raw_rows(const struct search *s) {
    const size_t n = RAW_BYTES / search_source_bytes(s);
    return n > RAW_ROWS ? RAW_ROWS : n < RAW_ROWS_MIN ? RAW_ROWS_MIN : n;
}

size_t search_reading_bytes(const struct search *s) {
    return s->features == NULL
               ? 0
               : sm_features_bytes(s->features) + raw_rows(s) * (search_source_bytes(s) + 1);
}

size_t search_room(const struct search *s) {
    const size_t reading = search_reading_bytes(s);
    return reading < SM_MAX_NEIGHBOR_BYTES / 2 ? SM_MAX_NEIGHBOR_BYTES - reading
                                               : SM_MAX_NEIGHBOR_BYTES / 2;
}

/* The rows that are compared are those that come out of the op that the method names. */
static int behind_ops(struct search *s, const char *artifacts, bool reads, struct sm_err *err) {
    const struct sm_pipeline *p = sm_places_pipeline(s->places);
    const struct sm_index *index = sm_places_index(s->places);
    if (sm_features_new(&s->features, p, p->rebalance_after, index, artifacts, err) != 0) return -1;
    const struct sm_schema *in = sm_features_in(s->features);
    s->schema = sm_features_out(s->features);
    if (!reads) return 0;
    s->bad = malloc(raw_rows(s));
    if (s->bad == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    return sm_rows_alloc(&s->raw, raw_rows(s), in->n, in->is_double, err);
}

int search_open(struct search *s, const struct sm_places *places, const char *artifacts,
                const char *root, struct sm_err *err) {
    const struct sm_index *index = sm_places_index(places);
    const struct sm_pipeline *p = sm_places_pipeline(places);
    const struct sm_op_node *node = p->rebalance;
    const struct sm_method *method = sm_method_of(node);
    *s = (struct search){.places = places};
    if (!sm_index_is_table(index))
        return sm_fail(err, SM_E_PIPELINE, "'%s' makes rows, and the source holds images",
                       method->info.name);
    s->k = method->neighbours != NULL ? method->neighbours(node->params) : 0;
    s->mixed = method->mixed;
    if (p->rebalance_after == 0)
        s->schema = sm_index_schema(index);
    else if (behind_ops(s, artifacts, root != NULL, err) != 0 ||
             sm_method_columns(node, s->schema, err) != 0)
        return -1;
    s->at = calloc(s->schema->n + 1, sizeof *s->at);
    s->mean = calloc(s->schema->n + 1, sizeof *s->mean);
    if (s->at == NULL || s->mean == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t k = 0; k < s->schema->n; k++)
        if (s->schema->columns[k].kind == SM_COLUMN_NUMBER) s->at[s->numbers++] = k;
    return root != NULL ? sm_table_open(&s->table, index, root, err) : 0;
}

void search_close(struct search *s) {
    sm_table_close(&s->table);
    sm_features_free(&s->features);
    sm_rows_free(&s->raw);
    free(s->bad);
    free(s->at);
    free(s->mean);
}

bool search_class(struct search *s, uint32_t label) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    if (r->of[label].drawn <= r->of[label].present) return false;
    s->label = label;
    s->n = r->of[label].present;
    s->is_centred = false;
    assert(s->k == 0 || (s->k < s->n && s->n <= UINT32_MAX)); /* the method's plan has seen to it */
    return true;
}

/* --- rows of a class -------------------------------------------------------------------------- */

/* As a fit says it of a row that it cannot learn from. */
static int refuse(const struct search *s, uint64_t sample, const char *why, struct sm_err *err) {
    const uint64_t row = sm_index_row(sm_places_index(s->places), sample);
    return sm_fail(
        err, SM_E_DATASET, "row %llu of class '%.60s' cannot be compared with others: %s",
        (unsigned long long)row, sm_index_class(sm_places_index(s->places), s->label), why);
}

/* Rows of the table, run through the ops. */
static int behind_read(const struct search *s, const uint64_t *samples, struct sm_rows *rows,
                       struct sm_err *err) {
    const size_t row = rows->columns * sm_rows_element(rows), most = raw_rows(s);
    for (size_t at = 0; at < rows->n; at += most) {
        struct sm_rows in = s->raw, out = *rows;
        struct sm_row_faults faults = {.bad = s->bad};
        in.n = out.n = rows->n - at < most ? rows->n - at : most;
        out.data = (char *)rows->data + at * row;
        memset(s->bad, 0, in.n);
        if (sm_table_read(s->table, samples + at, 0, in.n, &in, err) != 0 ||
            sm_features_apply(s->features, &in, &out, &faults, err) != 0)
            return -1;
        if (faults.n_bad > 0) return refuse(s, samples[at + faults.first], faults.text, err);
    }
    return 0;
}

int search_read(const struct search *s, uint64_t first, struct sm_rows *rows, struct sm_err *err) {
    uint64_t *samples = malloc((rows->n + 1) * sizeof *samples);
    if (samples == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < rows->n; i++)
        samples[i] = sm_places_class_sample(s->places, s->label, first + i);
    int failed = s->features != NULL ? behind_read(s, samples, rows, err)
                                     : sm_table_read(s->table, samples, 0, rows->n, rows, err);
    free(samples);
    return failed;
}

/* Whether loops over float32 do for its rows. */
bool search_is_plain(const struct search *s) {
    return !s->schema->is_double && s->numbers == s->schema->n;
}

/* Welford's way. */
static void moments_add(struct search *s, const struct sm_rows *block, uint64_t first,
                        double *variance) {
    for (size_t i = 0; i < block->n; i++) {
        const double seen = (double)(first + i + 1);
        for (size_t k = 0; k < s->numbers; k++) {
            const double x = sm_rows_cell(block, i, s->at[k]), d = x - s->mean[k];
            s->mean[k] += d / seen;
            variance[k] += d * (x - s->mean[k]);
        }
    }
}

static void missing_count(const struct search *s, const struct sm_rows *block, uint64_t *missing,
                          size_t *column) {
    if (search_is_plain(s) && sm_rows_finite(block->f32, block->n * s->numbers)) return;
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < s->schema->n; k++)
            if (!isfinite(sm_rows_cell(block, i, k)) && (*missing)++ == 0) *column = k;
}

size_t search_row_bytes(const struct search *s) {
    return s->schema->n * (s->schema->is_double ? sizeof(double) : sizeof(float));
}

static int refuse_missing(const struct search *s, size_t column, uint64_t missing,
                          struct sm_err *err) {
    const struct sm_pipeline *p = sm_places_pipeline(s->places);
    const char *after =
        p->rebalance_after > 0 ? p->ops[p->rebalance_after - 1].info->name : "the source";
    return sm_fail(err, SM_E_DATASET,
                   "class '%.60s': column '%.60s' has missing cells (%llu in all columns), and a "
                   "distance needs all of them, as they %s%.40s%s (hint: %s)",
                   sm_index_class(sm_places_index(s->places), s->label),
                   s->schema->columns[column].name, (unsigned long long)missing,
                   p->rebalance_after > 0 ? "come out of '" : "stand in ", after,
                   p->rebalance_after > 0 ? "'" : "",
                   p->rebalance_after > 0 ? "SimpleImputer before it"
                                          : "SimpleImputer in 'ops', and {after: SimpleImputer}");
}

/* Means (into s->mean) and variances (NULL: not wanted) of the class's numbers; refuses missing
 * cells. held: all its rows; NULL: they are read. */
int search_moments(struct search *s, const struct sm_rows *held, double *variance,
                   struct sm_err *err) {
    struct sm_rows rows = {0};
    uint64_t missing = 0;
    size_t column = 0;
    const bool sums = variance == NULL && search_is_plain(s);
    const size_t fit = READ_BYTES / (search_row_bytes(s) + 1) + 1,
                 most = fit < READ_ROWS ? fit : READ_ROWS;
    double *scratch = calloc(2 * s->numbers + 1, sizeof *scratch);
    if (scratch == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int failed =
        held != NULL ? 0 : sm_rows_alloc(&rows, most, s->schema->n, s->schema->is_double, err);
    if (failed) rows.data = NULL;
    if (variance == NULL) variance = scratch;
    memset(s->mean, 0, s->numbers * sizeof *s->mean);
    memset(variance, 0, s->numbers * sizeof *variance);
    for (uint64_t first = 0; !failed && first < s->n; first += most) {
        struct sm_rows block = held != NULL ? *held : rows;
        block.n = s->n - first < most ? (size_t)(s->n - first) : most;
        if (held != NULL)
            block.data = (char *)held->data + first * held->columns * sm_rows_element(held);
        else
            failed = search_read(s, first, &block, err);
        if (failed) break;
        missing_count(s, &block, &missing, &column);
        if (sums)
            sm_rows_sums(block.f32, block.n, s->numbers, scratch + s->numbers, s->mean);
        else
            moments_add(s, &block, first, variance);
    }
    for (size_t k = 0; k < s->numbers; k++) {
        variance[k] /= (double)s->n;
        if (sums) s->mean[k] /= (double)s->n;
    }
    sm_rows_free(&rows);
    free(scratch);
    s->is_centred = !failed && missing == 0;
    return failed || missing == 0 ? failed : refuse_missing(s, column, missing, err);
}

int search_centre(struct search *s, struct sm_err *err) {
    return search_moments(s, NULL, NULL, err);
}

/* Position -> virtual sample -> class and number -> sample of the part: three maps put together,
 * each of them arithmetic or a search in running sums. */
#include "workers/places.h"

#include "lib/rng.h"
#include "workers/rebalance/method.h"
#include "workers/view.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { READ_ROWS = 4096 };

/* Counts of epoch 0. */
struct tally {
    uint64_t drawn, distinct;
    double importance; /* sum over what is drawn */
};

struct sm_places {
    const struct sm_pipeline *p;
    const struct sm_index *index;
    struct sm_view *view;
    bool rebalanced;
    struct sm_rebalance rebalance;
    double *sums;        /* of the weights of rows, for methods that draw by a column */
    struct tally *tally; /* then also of each class */
    uint8_t *seen;       /* room to count the distinct draws of any class */
    /* of methods that learn: rows of class c are offsets[c] to offsets[c + 1] of neighbours, k
     * each; NULL while they are not known, neighbours NULL for noise */
    const int64_t *offsets;
    const uint32_t *neighbours;
    uint64_t k;
};

static int rebalance_plan(struct sm_places *v, struct sm_err *err);
static int weights_read(struct sm_places *v, const char *column, struct sm_err *err);
static int rows_tally(struct sm_places *v, struct sm_err *err);
static int seen_alloc(struct sm_places *v, struct sm_err *err);
static int learned_take(struct sm_places *v, const struct sm_artifact *a, struct sm_err *err);

int sm_places_new(struct sm_places **gives, const struct sm_pipeline *p,
                  const struct sm_index *index, int part, const struct sm_artifact *neighbours,
                  struct sm_err *err) {
    struct sm_places *v = calloc(1, sizeof *v);
    *gives = NULL;
    if (v == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    v->p = p;
    v->index = index;
    int failed = sm_view_new(&v->view, index, &p->split, (uint64_t)p->seed, part, err);
    if (!failed && p->rebalance != NULL && part == SM_PART_TRAIN) {
        failed = rebalance_plan(v, err);
        if (!failed && neighbours != NULL) failed = learned_take(v, neighbours, err);
    }
    if (failed) {
        sm_places_free(&v);
        return -1;
    }
    *gives = v;
    return 0;
}

void sm_places_free(struct sm_places **vp) {
    struct sm_places *v = *vp;
    if (v == NULL) return;
    sm_view_free(&v->view);
    sm_rebalance_release(&v->rebalance);
    free(v->sums);
    free(v->tally);
    free(v->seen);
    free(v);
    *vp = NULL;
}

uint64_t sm_places_samples(const struct sm_places *v) {
    return v->rebalanced ? v->rebalance.total : sm_view_samples(v->view);
}

uint64_t sm_places_part_samples(const struct sm_places *v) {
    return sm_view_samples(v->view);
}

uint64_t sm_places_part_sample(const struct sm_places *v, uint64_t i) {
    return sm_view_sample(v->view, i);
}

uint64_t sm_places_class_samples(const struct sm_places *v, uint32_t label) {
    return sm_view_class_samples(v->view, label);
}

uint64_t sm_places_class_sample(const struct sm_places *v, uint32_t label, uint64_t k) {
    return sm_view_class_sample(v->view, label, k);
}

const struct sm_rebalance *sm_places_rebalance(const struct sm_places *v) {
    return v->rebalanced ? &v->rebalance : NULL;
}

const struct sm_pipeline *sm_places_pipeline(const struct sm_places *v) {
    return v->p;
}

const struct sm_index *sm_places_index(const struct sm_places *v) {
    return v->index;
}

/* --- plans ------------------------------------------------------------------------------------ */

static int rebalance_plan(struct sm_places *v, struct sm_err *err) {
    const struct sm_op_node *node = v->p->rebalance;
    const struct sm_method *method = sm_method_of(node);
    struct sm_rebalance *r = &v->rebalance;
    const uint32_t n = sm_index_classes(v->index);
    const char **names = calloc(n + 1, sizeof *names);
    r->seed = (uint64_t)v->p->seed;
    r->classes = n;
    r->of = calloc(n + 1, sizeof *r->of);
    int failed = names == NULL || r->of == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    for (uint32_t c = 0; !failed && c < n; c++) {
        names[c] = sm_index_class(v->index, c);
        r->of[c].present = sm_view_class_samples(v->view, c);
    }
    const struct sm_method_data data = {
        .classes = names,
        .n = n,
        .schema = sm_index_is_table(v->index) ? sm_index_schema(v->index) : NULL,
        .batch_size = (uint64_t)v->p->output.batch_size};
    /* of rows behind an op only its fit may tell the columns: who has it asks (neighbours_rows.c)
     */
    if (!failed && data.schema != NULL && v->p->rebalance_after == 0)
        failed = sm_method_columns(node, data.schema, err);
    if (!failed) failed = method->plan(node->params, &data, r, err);
    const char *column = method->column != NULL ? method->column(node->params) : NULL;
    if (!failed && column != NULL) failed = weights_read(v, column, err);
    if (!failed) failed = sm_rebalance_lay(r, err);
    if (!failed && column != NULL) failed = rows_tally(v, err);
    if (!failed && r->replacement) failed = seen_alloc(v, err);
    free(names);
    v->rebalanced = true;
    if (!failed) return 0;
    return sm_err_at(err, node->line, node->column, node->info->name);
}

/* Here, where a lack of memory can be told: an account is a number in a manifest. */
static int seen_alloc(struct sm_places *v, struct sm_err *err) {
    uint64_t most = 0;
    for (uint32_t c = 0; c < v->rebalance.classes; c++)
        if (v->rebalance.of[c].present > most) most = v->rebalance.of[c].present;
    v->seen = malloc(most + 1);
    return v->seen != NULL ? 0 : sm_fail(err, SM_E_MEMORY, "out of memory");
}

/* Adds the weight of one row to the running sums. */
static int weight_add(struct sm_places *v, uint64_t i, double weight, const char *column,
                      struct sm_err *err) {
    if (isnan(weight) || isinf(weight) || weight < 0)
        return sm_fail(err, SM_E_PIPELINE, "the weight of row %llu in column '%.60s' is %g",
                       (unsigned long long)sm_index_row(v->index, sm_view_sample(v->view, i)),
                       column, weight);
    v->sums[i] = (i > 0 ? v->sums[i - 1] : 0) + weight;
    return 0;
}

static int weights_read(struct sm_places *v, const char *column, struct sm_err *err) {
    const struct sm_schema *schema = sm_index_schema(v->index);
    const long at = sm_schema_find(schema, column);
    const uint64_t n = sm_view_samples(v->view);
    char root[SM_MAX_PATH_BYTES];
    struct sm_table *table = NULL;
    struct sm_rows rows = {0};
    uint64_t *samples = calloc(READ_ROWS, sizeof *samples);
    if (at < 0 || schema->columns[at].kind != SM_COLUMN_NUMBER) {
        free(samples);
        return sm_fail(err, SM_E_PIPELINE, "'weights' names '%.60s', which is no column of numbers",
                       column);
    }
    v->sums = calloc(n, sizeof *v->sums);
    int failed =
        v->sums == NULL || samples == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    if (!failed) failed = sm_source_root(&v->p->source, root, err);
    if (!failed) failed = sm_table_open(&table, v->index, root, err);
    if (!failed) failed = sm_rows_alloc(&rows, READ_ROWS, schema->n, schema->is_double, err);
    for (uint64_t first = 0; !failed && first < n; first += READ_ROWS) {
        struct sm_rows block = rows;
        block.n = n - first < READ_ROWS ? (size_t)(n - first) : READ_ROWS;
        for (size_t i = 0; i < block.n; i++)
            samples[i] = sm_view_sample(v->view, first + i);
        failed = sm_table_read(table, samples, 0, block.n, &block, err);
        for (size_t i = 0; !failed && i < block.n; i++)
            failed = weight_add(v, first + i, sm_rows_cell(&block, i, (size_t)at), column, err);
    }
    sm_rows_free(&rows);
    sm_table_close(&table);
    free(samples);
    v->rebalance.sums = v->sums;
    v->rebalance.sums_n = n;
    if (!failed && !(v->sums[n - 1] > 0))
        failed = sm_fail(err, SM_E_PIPELINE, "the weights in column '%.60s' are all 0", column);
    if (!failed && isinf(v->sums[n - 1]))
        failed = sm_fail(err, SM_E_PIPELINE, "the weights in column '%.60s' add up to inf", column);
    return failed;
}

/* How often the rows of each class come. */
static int rows_tally(struct sm_places *v, struct sm_err *err) {
    v->tally = calloc(v->rebalance.classes + (size_t)1, sizeof *v->tally);
    if (v->tally == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint64_t i = 0; i < v->rebalance.sums_n; i++) {
        struct tally *t = &v->tally[sm_index_label(v->index, sm_view_sample(v->view, i))];
        const uint64_t times = sm_rebalance_row_count(&v->rebalance, 0, i);
        t->drawn += times;
        t->distinct += times > 0;
        if (times > 0)
            t->importance +=
                (double)times * sm_rebalance_importance(&v->rebalance, &(struct sm_drawn){.k = i});
    }
    return 0;
}

/* Lists of the wanted length for each class that is added to, and of no other; every number is a
 * row of the class. */
static bool neighbours_fit(const struct sm_places *v, const struct sm_array *lists,
                           const int64_t *offsets) {
    const struct sm_op_node *node = v->p->rebalance;
    const uint64_t k = sm_method_of(node)->neighbours(node->params);
    const uint32_t classes = v->rebalance.classes, *numbers = lists->data;
    if (lists->type != SM_ARRAY_U32 || lists->ndim != 2 || lists->shape[1] != k ||
        offsets[0] != 0 || (uint64_t)offsets[classes] != lists->shape[0])
        return false;
    for (uint32_t c = 0; c < classes; c++) {
        const struct sm_rebalance_class *of = &v->rebalance.of[c];
        const uint64_t rows = of->drawn > of->present ? of->present : 0;
        if (offsets[c + 1] < offsets[c] || (uint64_t)(offsets[c + 1] - offsets[c]) != rows)
            return false;
        for (uint64_t i = 0; i < rows * k; i++)
            if (numbers[(uint64_t)offsets[c] * k + i] >= of->present) return false;
    }
    return true;
}

/* What was learned must be of these classes, columns and parameters. */
static int learned_take(struct sm_places *v, const struct sm_artifact *a, struct sm_err *err) {
    const struct sm_array *offsets = sm_artifact_find(a, "offsets"),
                          *lists = sm_artifact_find(a, "neighbours"),
                          *scales = sm_artifact_find(a, "scales");
    const uint32_t n = sm_index_classes(v->index);
    if (!sm_method_learns(v->p->rebalance)) return 0;
    bool fits = offsets != NULL && offsets->type == SM_ARRAY_I64 && offsets->ndim == 1 &&
                offsets->shape[0] == (uint64_t)n + 1;
    if (sm_method_of(v->p->rebalance)->neighbours != NULL)
        fits = fits && lists != NULL && neighbours_fit(v, lists, offsets->data);
    else
        fits = fits && scales != NULL && scales->type == SM_ARRAY_F64 && scales->ndim == 2 &&
               scales->shape[0] == n && scales->shape[1] == sm_index_schema(v->index)->n;
    if (!fits)
        return sm_fail(err, SM_E_DIFFERS,
                       "the neighbours are of another dataset, split or method (hint: shardmill "
                       "fit)");
    v->offsets = offsets->data;
    v->neighbours = lists != NULL ? lists->data : NULL;
    v->k = lists != NULL ? lists->shape[1] : 0;
    return 0;
}

/* --- places ----------------------------------------------------------------------------------- */

/* Parent, neighbour and gap of a synthetic row, by its number within its class (copies counted). */
static void synthetic_place(const struct sm_places *v, uint32_t epoch, const struct sm_drawn *d,
                            uint64_t number, struct sm_placed *placed) {
    const uint64_t present = v->rebalance.of[d->label].present;
    struct sm_rng rng = sm_rng_op((uint64_t)v->p->seed, epoch, number, d->label, SM_RNG_SYNTHETIC);
    const uint64_t parent = placed->parent = sm_rng_below(&rng, present);
    placed->sample = placed->neighbour = sm_view_class_sample(v->view, d->label, parent);
    placed->gap = sm_rng_double(&rng);
    if (v->neighbours == NULL) return;
    const uint64_t row = (uint64_t)v->offsets[d->label] + parent;
    const uint64_t to = v->neighbours[row * v->k + sm_rng_below(&rng, v->k)];
    placed->neighbour = sm_view_class_sample(v->view, d->label, to);
}

/* The classes of a batch stand together, in an order that is a keyed one already; copies are the
 * whole epoch once more. */
static bool keeps_order(const struct sm_places *v) {
    return v->rebalanced && v->rebalance.method == SM_REBALANCE_BATCHES;
}

static struct sm_place place_in_order(const struct sm_plan *plan, uint64_t position) {
    return (struct sm_place){position % plan->samples, (uint32_t)(position / plan->samples)};
}

static struct sm_placed placed_at(const struct sm_places *v, const struct sm_plan *plan,
                                  struct sm_place place) {
    struct sm_placed placed = {.copy = place.copy, .epoch = plan->epoch, .weight = 1};
    if (!v->rebalanced) {
        placed.sample = placed.neighbour = sm_view_sample(v->view, place.sample);
        placed.label = sm_index_label(v->index, placed.sample);
        return placed;
    }
    const struct sm_drawn d = sm_rebalance_at(&v->rebalance, plan->epoch, place.sample);
    placed.label = d.label;
    placed.weight = (float)fmin(sm_rebalance_importance(&v->rebalance, &d), (double)FLT_MAX);
    placed.added = d.added;
    placed.synthetic = d.synthetic;
    placed.chance = place.sample * plan->copies + place.copy;
    placed.copy = d.copy * plan->copies + place.copy;
    if (d.synthetic) {
        synthetic_place(v, plan->epoch, &d, d.k * plan->copies + place.copy, &placed);
        return placed;
    }
    const bool by_row = v->rebalance.method == SM_REBALANCE_ROWS;
    placed.sample = placed.neighbour =
        by_row ? sm_view_sample(v->view, d.k) : sm_view_class_sample(v->view, d.label, d.k);
    placed.label = sm_index_label(v->index, placed.sample);
    /* noise around added rows: a smoothed bootstrap */
    placed.synthetic =
        d.added && sm_method_shrinkage(v->p->rebalance, sm_index_class(v->index, placed.label)) > 0;
    return placed;
}

struct sm_placed sm_places_at(const struct sm_places *v, const struct sm_plan *plan,
                              uint64_t position) {
    return placed_at(v, plan,
                     keeps_order(v) ? place_in_order(plan, position) : sm_plan_at(plan, position));
}

void sm_places_many(const struct sm_places *v, const struct sm_plan *plan,
                    const uint64_t *positions, size_t n, struct sm_placed *placed) {
    enum { PIECE = 256 };
    struct sm_place places[PIECE];
    for (size_t first = 0; first < n; first += PIECE) {
        const size_t m = n - first < PIECE ? n - first : PIECE;
        if (keeps_order(v))
            for (size_t i = 0; i < m; i++)
                places[i] = place_in_order(plan, positions[first + i]);
        else
            sm_plan_many(plan, positions + first, m, places);
        for (size_t i = 0; i < m; i++)
            placed[first + i] = placed_at(v, plan, places[i]);
    }
}

/* --- the account ------------------------------------------------------------------------------ */

/* Distinct samples of draws with replacement in epoch 0. */
static uint64_t distinct_draws(const struct sm_places *v, uint32_t label) {
    const struct sm_rebalance_class *of = &v->rebalance.of[label];
    uint8_t *seen = v->seen;
    uint64_t n = 0;
    memset(seen, 0, of->present + 1);
    for (uint64_t i = 0; i < of->drawn; i++) {
        const struct sm_drawn d = sm_rebalance_at(&v->rebalance, 0, of->first + i);
        n += seen[d.k] == 0;
        seen[d.k] = 1;
    }
    return n;
}

struct sm_account sm_places_account(const struct sm_places *v, uint32_t label) {
    const struct sm_rebalance *r = &v->rebalance;
    struct sm_account a = {.present = sm_view_class_samples(v->view, label)};
    if (!v->rebalanced) {
        a.drawn = a.distinct = a.present;
        a.weight = 1;
        return a;
    }
    if (r->method == SM_REBALANCE_ROWS) {
        a.drawn = v->tally[label].drawn;
        a.distinct = v->tally[label].distinct;
    } else {
        a.drawn = r->of[label].drawn;
        a.distinct = r->replacement        ? distinct_draws(v, label)
                     : a.drawn < a.present ? a.drawn
                                           : a.present;
    }
    a.repeated = a.drawn - a.distinct;
    const char *name = sm_index_class(v->index, label);
    if (r->method == SM_REBALANCE_SMOTE || sm_method_shrinkage(v->p->rebalance, name) > 0) {
        a.synthetic = a.repeated;
        a.repeated = 0;
    }
    const double pi = (double)a.present / (double)sm_view_samples(v->view),
                 drawn = (double)a.drawn / (double)r->total;
    if (a.present > 0) a.log_prior_shift = a.drawn == 0 ? NAN : log(pi) - log(drawn);
    if (a.log_prior_shift == 0) a.log_prior_shift = 0; /* no -0 */
    if (a.drawn > 0)
        a.weight = r->method == SM_REBALANCE_ROWS ? v->tally[label].importance / (double)a.drawn
                                                  : r->of[label].importance;
    return a;
}

/* Exact nearest neighbours by blocks: a matrix product says who cannot be near, with the error that
 * it may have taken off; who may be is measured in float64. So most pairs cost no more than a
 * product. Products are of 16-bit codes, which are made fastest; where rows lie so close together
 * that those tell too few of them apart, of float32. */
#include "workers/neighbours_state.h"

#include "lib/limits.h"
#include "workers/kernels/dots.h"
#include "workers/kernels/rows.h"
#include "workers/rebalance/method.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A tile of products and the rows that it is made of stay in the caches. */
enum { TILE_ROWS = 96, TILE_COLUMNS = SM_CODES_COLUMNS, READ_ROWS = 4096 };
/* Rows that go through the ops at once: as many as make no difference, of wide tables fewer. */
enum { RAW_BYTES = 4 << 20, RAW_ROWS = 1024, RAW_ROWS_MIN = 64 };
enum { READ_BYTES = SM_MAX_NEIGHBOR_BYTES / 8 };
static_assert((int)TILE_COLUMNS <= (int)SM_LOOK_MOST && TILE_ROWS % SM_CODES_PANEL == 0 &&
                  TILE_COLUMNS % SM_CODES_PANEL == 0,
              "a tile begins with panels, and is looked at a row at a time");

/* Codes are too coarse when more pairs pass than these for each neighbour that is wanted, and more
 * than one of so many: rows in any order that are told apart need about ln(rows) for each. */
enum { PASSES = 16, PASSES_OF = 32 };

static int class_read(const struct search *s, uint64_t first, struct sm_rows *rows,
                      struct sm_err *err);
static int moments(struct search *s, const struct sm_rows *held, double *variance,
                   struct sm_err *err);
static int scales_learn(struct search *s, struct sm_artifact *a, struct sm_arena *arena,
                        struct sm_err *err);
static int neighbours_learn(struct search *s, const struct sm_neighbours_watch *watch,
                            struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err);

int sm_neighbours_learn(const struct sm_places *places, const char *artifacts, const char *root,
                        const struct sm_neighbours_watch *watch, struct sm_artifact *artifact,
                        struct sm_arena *arena, struct sm_err *err) {
    struct search s;
    *artifact = (struct sm_artifact){0};
    int failed = search_open(&s, places, artifacts, root, err);
    if (!failed)
        failed = s.k > 0 ? neighbours_learn(&s, watch, artifact, arena, err)
                         : scales_learn(&s, artifact, arena, err);
    search_close(&s);
    return failed;
}

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

static int class_read(const struct search *s, uint64_t first, struct sm_rows *rows,
                      struct sm_err *err) {
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
static bool is_plain(const struct search *s) {
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
    if (is_plain(s) && sm_rows_finite(block->f32, block->n * s->numbers)) return;
    for (size_t i = 0; i < block->n; i++)
        for (size_t k = 0; k < s->schema->n; k++)
            if (!isfinite(sm_rows_cell(block, i, k)) && (*missing)++ == 0) *column = k;
}

static size_t row_bytes(const struct search *s) {
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
static int moments(struct search *s, const struct sm_rows *held, double *variance,
                   struct sm_err *err) {
    struct sm_rows rows = {0};
    uint64_t missing = 0;
    size_t column = 0;
    const bool sums = variance == NULL && is_plain(s);
    const size_t fit = READ_BYTES / (row_bytes(s) + 1) + 1,
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
            failed = class_read(s, first, &block, err);
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
    return moments(s, NULL, NULL, err);
}

static int block_make(const struct search *s, struct block *b, size_t room, struct sm_err *err) {
    *b = (struct block){.room = room, .codes = {.d = s->numbers}};
    b->norms = malloc((room + 1) * sizeof *b->norms);
    b->codes.codes = malloc(sm_codes_bytes(room, s->numbers) + 1);
    b->codes.units = malloc((sm_codes_padded(room) + 1) * sizeof *b->codes.units);
    if (b->norms == NULL || b->codes.codes == NULL || b->codes.units == NULL)
        return sm_fail(err, SM_E_MEMORY, "no memory to look for neighbours");
    return sm_rows_alloc(&b->rows, room, s->schema->n, s->schema->is_double, err);
}

static void codes_free(struct block *b) {
    free(b->codes.codes);
    free(b->codes.units);
    b->codes.codes = NULL;
    b->codes.units = NULL;
}

static void block_free(struct block *b) {
    sm_rows_free(&b->rows);
    codes_free(b);
    free(b->norms);
    free(b->shifted);
    free(b->panels);
}

/* Rows i0 to i0 + n, less the mean. */
static void rows_shift(const struct search *s, const struct block *b, size_t i0, size_t n,
                       float *out) {
    if (is_plain(s)) {
        sm_rows_centre(b->rows.f32 + i0 * s->numbers, n, s->numbers, s->mean, out);
        return;
    }
    for (size_t i = 0; i < n; i++, out += s->numbers)
        for (size_t k = 0; k < s->numbers; k++)
            out[k] = (float)(sm_rows_cell(&b->rows, i0 + i, s->at[k]) - s->mean[k]);
}

/* What of two such norms is added up still is a float32. */
static float norm_of(const struct search *s, const float *row) {
    const double norm = sm_distance_float(row, s->zeros, s->numbers);
    return norm < FLT_MAX / 8 ? (float)norm : NAN;
}

/* From its rows to all that products are made of. */
static void block_fill(const struct search *s, struct block *b) {
    const size_t d = s->numbers, n = b->rows.n;
    for (size_t i = 0; i < n; i += SM_CODES_PANEL) {
        const size_t m = n - i < SM_CODES_PANEL ? n - i : SM_CODES_PANEL;
        float *shifted = s->is_fine ? b->shifted + i * d : s->few;
        rows_shift(s, b, i, m, shifted);
        for (size_t r = 0; r < m; r++)
            b->norms[i + r] = norm_of(s, shifted + r * d);
        if (s->is_fine) continue;
        struct sm_codes codes = sm_codes_from(&b->codes, i);
        sm_codes_make(shifted, b->norms + i, m, &codes);
    }
    if (b->panels == NULL) return;
    sm_panels_float(b->shifted, n, d, b->panels);
    for (size_t i = 0; i < sm_panels_float_bytes(n, d) / sizeof(float); i++)
        b->panels[i] *= -2;
}

static int block_read(const struct search *s, struct block *b, uint64_t first, struct sm_err *err) {
    b->first = first;
    b->rows.n = s->n - first < b->room ? (size_t)(s->n - first) : b->room;
    if (class_read(s, first, &b->rows, err) != 0) return -1;
    block_fill(s, b);
    return 0;
}

/* float32 instead of codes. panels: whether others are compared with its rows. */
static int block_refine(const struct search *s, struct block *b, bool panels, struct sm_err *err) {
    codes_free(b);
    b->shifted = malloc((b->room * s->numbers + 1) * sizeof *b->shifted);
    if (panels) b->panels = malloc(sm_panels_float_bytes(b->room, s->numbers) + 1);
    if (b->shifted == NULL || (panels && b->panels == NULL))
        return sm_fail(err, SM_E_MEMORY, "no memory to look for neighbours");
    block_fill(s, b);
    return 0;
}

/* --- distances -------------------------------------------------------------------------------- */

static double distance(const struct search *s, const struct sm_rows *a, size_t i,
                       const struct sm_rows *b, size_t j) {
    double sum = 0;
    if (!s->mixed && !a->is_double && !b->is_double)
        return sm_distance_float(a->f32 + i * a->columns, b->f32 + j * b->columns, a->columns);
    for (size_t k = 0; k < s->schema->n; k++) {
        const double d = sm_rows_cell(a, i, k) - sm_rows_cell(b, j, k);
        if (s->schema->columns[k].kind == SM_COLUMN_NUMBER)
            sum += d * d;
        else
            sum += d != 0 ? s->category_weight : 0;
    }
    return sum;
}

static bool is_before(const struct near *a, const struct near *b) {
    return a->distance < b->distance || (a->distance == b->distance && a->number < b->number);
}

static void near_add(struct near *list, uint32_t k, double d, uint32_t number) {
    const struct near new = {d, number};
    uint32_t at = k - 1;
    if (!is_before(&new, &list[at])) return;
    for (; at > 0 && is_before(&new, &list[at - 1]); at--)
        list[at] = list[at - 1];
    list[at] = new;
}

/* How far a product may be off, relative to the sum of both norms and absolutely. In float32 a sum
 * of n products is off by at most n FLT_EPSILON / 2 of the sum of their sizes, in whatever order,
 * and twice that sum is at most that of the norms; that of codes by their error times both lengths,
 * which twice are no more than that sum. 16 is for what is added up and the rounding of rows. Below
 * FLT_MIN bits are lost, and a row with such a norm has no codes: twice its product with another is
 * at most FLT_MIN / error + error times the other's norm. */
static void precision_set(struct search *s, bool is_fine) {
    const double error = is_fine ? 0 : sm_codes_error(s->numbers),
                 terms = is_fine ? 0.55 * (double)s->numbers + 16 : 16;
    const double loss = terms * FLT_EPSILON + error,
                 tiny = 4 * terms * FLT_MIN + (is_fine ? 0 : 2 * FLT_MIN / error),
                 words = s->mixed ? s->category_weight * (double)(s->schema->n - s->numbers) : 0;
    s->is_fine = is_fine;
    s->slack = (struct sm_slack){.keep = (float)(1 - loss), .tiny = (float)tiny};
    s->grow = (float)(1 + loss);
    s->most = (float)(tiny + words * (1 + 4 * FLT_EPSILON));
}

/* Rounded up, for the looks. */
static float worst_of(const struct near *list, uint32_t k) {
    return nextafterf((float)list[k - 1].distance, INFINITY);
}

/* The bound of a pair's distance from above; categories may all differ. */
static float up_of(const struct search *s, float norms, float product) {
    return norms * s->grow + product + s->most;
}

static void lower(float *bound, float to) {
    if (to < *bound) *bound = to;
}

static void settle(const struct search *s, struct lists *l, const struct block *q, size_t row,
                   const struct block *b) {
    struct near *near = l->near + row * s->k;
    for (size_t i = 0; i < l->n[row]; i++) {
        const struct waiting *w = &l->waiting[row * WAITING + i];
        if (w->low > l->bound[row]) continue;
        near_add(near, s->k, distance(s, &q->rows, row, &b->rows, (size_t)(w->number - b->first)),
                 w->number);
    }
    l->n[row] = 0;
    lower(&l->bound[row], worst_of(near, s->k));
}

/* A row of b that may be near, by the bounds of its distance. Distances are only measured when the
 * bounds of others have told how near is near: most never are. */
static void offer(const struct search *s, struct lists *l, const struct block *q, size_t row,
                  const struct block *b, uint64_t number, float low, float up) {
    float *ups = l->ups + row * s->k;
    uint32_t at = s->k;
    if (low > l->bound[row]) return;
    if (l->n[row] == WAITING) settle(s, l, q, row, b);
    l->waiting[row * WAITING + l->n[row]++] = (struct waiting){low, (uint32_t)number};
    if (!(up < ups[--at])) return;
    for (; at > 0 && up < ups[at - 1]; at--)
        ups[at] = ups[at - 1];
    ups[at] = up;
    lower(&l->bound[row], ups[s->k - 1]);
}

/* Row i of q against the rows of b of a tile, which begins with row j0, from `from` on. Within one
 * block each pair is seen once and goes into both lists. */
static void row_compare(struct search *s, const struct block *q, size_t i, const struct block *b,
                        size_t j0, size_t from, struct sm_look *look, struct lists *l) {
    const struct sm_slack slack = look->slack;
    const uint64_t self = q->first + i;
    look->norm = q->norms[i];
    for (uint64_t near = sm_look(look, l->bound[i]) >> from << from; near != 0; near &= near - 1) {
        const size_t at = (size_t)__builtin_ctzll(near), j = j0 + at;
        const float norms = look->norm + look->norms[at], product = look->products[at],
                    low = norms * slack.keep + product - slack.tiny;
        if ((low > l->bound[i] && low > look->worst[at]) || b->first + j == self) continue;
        const float up = up_of(s, norms, product);
        s->passed++;
        offer(s, l, q, i, b, b->first + j, low, up);
        if (q == b) offer(s, l, q, j, b, self, low, up);
    }
}

/* Rows i0 … of q against all of b, tile by tile, or against those behind them when the blocks are
 * one. */
static void rows_compare(struct search *s, const struct block *q, size_t i0, size_t rows,
                         const struct block *b, struct lists *l) {
    const size_t d = s->numbers;
    for (size_t j0 = q == b ? i0 / TILE_COLUMNS * TILE_COLUMNS : 0; j0 < b->rows.n;
         j0 += TILE_COLUMNS) {
        const size_t left = b->rows.n - j0, columns = left < TILE_COLUMNS ? left : TILE_COLUMNS;
        const size_t stride = s->is_fine ? columns : TILE_COLUMNS;
        struct sm_look look = {
            .norms = b->norms + j0, .worst = l->worst + j0, .end = columns, .slack = s->slack};
        if (s->is_fine)
            sm_dots_float(q->shifted + i0 * d, rows, b->panels + j0 * d, columns, d, s->products);
        else
            sm_codes_dots(&q->codes, i0, rows, &b->codes, j0, columns, s->products);
        s->seen += rows * columns;
        for (size_t i = 0; i < rows; i++) {
            const size_t behind = i0 + i + 1, from = q == b && behind > j0 ? behind - j0 : 0;
            look.products = s->products + i * stride;
            if (from < columns) row_compare(s, q, i0 + i, b, j0, from, &look, l);
        }
    }
}

static bool is_coarse(const struct search *s) {
    return !s->is_fine && s->passed > PASSES * s->k * s->asked + s->seen / PASSES_OF;
}

/* --- a piece ---------------------------------------------------------------------------------- */

static int lists_make(const struct search *s, size_t rows, struct lists *l, struct sm_err *err) {
    l->near = malloc(rows * s->k * sizeof *l->near);
    l->ups = malloc(rows * s->k * sizeof *l->ups);
    l->waiting = malloc(rows * WAITING * sizeof *l->waiting);
    l->n = calloc(rows, 1);
    l->bound = malloc(rows * sizeof *l->bound);
    return l->near == NULL || l->ups == NULL || l->waiting == NULL || l->n == NULL ||
                   l->bound == NULL
               ? sm_fail(err, SM_E_MEMORY, "no memory to look for neighbours")
               : 0;
}

/* Rows of b that look for nobody. */
static int lists_apart(struct lists *l, size_t rows, struct sm_err *err) {
    l->apart = malloc(rows * sizeof *l->apart);
    if (l->apart == NULL) return sm_fail(err, SM_E_MEMORY, "no memory to look for neighbours");
    for (size_t i = 0; i < rows; i++)
        l->apart[i] = -INFINITY;
    l->worst = l->apart;
    return 0;
}

static void lists_begin(const struct search *s, size_t rows, struct lists *l) {
    for (size_t i = 0; i < rows * s->k; i++) {
        l->near[i] = (struct near){INFINITY, UINT32_MAX};
        l->ups[i] = INFINITY;
    }
    for (size_t i = 0; i < rows; i++)
        l->bound[i] = INFINITY;
}

static void lists_free(struct lists *l) {
    free(l->near);
    free(l->ups);
    free(l->waiting);
    free(l->n);
    free(l->bound);
    free(l->apart);
}

size_t search_query_bytes(const struct search *s) {
    return row_bytes(s) + sizeof(uint64_t) /* its number, while it is read */ +
           (s->numbers + 2) * sizeof(float) /* codes or shifted, norm, unit */ +
           s->k * (sizeof(struct near) + sizeof(float)) + WAITING * sizeof(struct waiting) + 1 +
           sizeof(float);
}

size_t search_other_bytes(const struct search *s) {
    return row_bytes(s) + sizeof(uint64_t) + (2 * s->numbers + 3) * sizeof(float);
}

/* Of rows, codes and panels also what fills their last panel. */
size_t search_own_bytes(const struct search *s) {
    const size_t panels = 2 * SM_CODES_PANEL * (2 * s->numbers + 2);
    return sizeof(float) * (TILE_ROWS * TILE_COLUMNS + panels + (SM_CODES_PANEL + 1) * s->numbers);
}

size_t search_block_rows(const struct search *s) {
    const size_t each = search_query_bytes(s) + search_other_bytes(s);
    size_t n = (search_room(s) - search_own_bytes(s)) / each;
    if (n > s->n) n = (size_t)s->n;
    return n < SM_CODES_PANEL ? SM_CODES_PANEL : n;
}

size_t search_block_bytes(const struct search *s) {
    const size_t rows = search_block_rows(s);
    return rows * (search_query_bytes(s) +
                   (s->n <= rows ? s->numbers * sizeof(float) : search_other_bytes(s))) +
           search_own_bytes(s);
}

int piece_make(struct search *s, struct piece *p, size_t rows, size_t others, struct sm_err *err) {
    *p = (struct piece){.one = others == 0};
    s->seen = s->passed = 0;
    precision_set(s, false);
    s->products = malloc(sizeof(float) * TILE_ROWS * TILE_COLUMNS);
    s->few = malloc((SM_CODES_PANEL * s->numbers + 1) * sizeof *s->few);
    s->zeros = calloc(s->numbers + 1, sizeof *s->zeros);
    if (s->products == NULL || s->few == NULL || s->zeros == NULL)
        return sm_fail(err, SM_E_MEMORY, "no memory to look for neighbours");
    if (lists_make(s, rows, &p->lists, err) != 0 || block_make(s, &p->q, rows, err) != 0) return -1;
    p->lists.worst = p->lists.bound;
    if (p->one) return 0;
    return lists_apart(&p->lists, others, err) != 0 ? -1 : block_make(s, &p->b, others, err);
}

void piece_free(struct search *s, struct piece *p) {
    block_free(&p->q);
    block_free(&p->b);
    lists_free(&p->lists);
    free(s->products);
    free(s->few);
    free(s->zeros);
    s->products = s->few = s->zeros = NULL;
    *p = (struct piece){0};
}

/* When the rows are all of the class it is read once, also for its mean. */
int piece_begin(struct search *s, struct piece *p, uint64_t first, size_t rows,
                struct sm_err *err) {
    struct block *q = &p->q;
    assert(rows <= q->room && first + rows <= s->n && (!p->one || rows == s->n));
    q->first = first;
    q->rows.n = rows;
    p->at = 0;
    p->i0 = 0;
    if (class_read(s, first, &q->rows, err) != 0) return -1;
    if (!s->is_centred && moments(s, p->one ? &q->rows : NULL, NULL, err) != 0) return -1;
    block_fill(s, q);
    lists_begin(s, rows, &p->lists);
    return 0;
}

int piece_step(struct search *s, struct piece *p, struct sm_err *err) {
    struct block *q = &p->q, *b = p->one ? q : &p->b;
    const size_t n = q->rows.n, left = n - p->i0;
    if (!p->one && p->i0 == 0 && block_read(s, b, p->at, err) != 0) return -1;
    rows_compare(s, q, p->i0, left < TILE_ROWS ? left : TILE_ROWS, b, &p->lists);
    if (is_coarse(s)) {
        precision_set(s, true);
        if (block_refine(s, q, p->one, err) != 0 || (!p->one && block_refine(s, b, true, err) != 0))
            return -1;
    }
    p->i0 += TILE_ROWS;
    if (p->i0 < n) return 0;
    for (size_t i = 0; i < n; i++)
        settle(s, &p->lists, q, i, b);
    p->i0 = 0;
    p->at += b->rows.n;
    return p->at == s->n;
}

static uint64_t parts(uint64_t n, uint64_t each) {
    return (n + each - 1) / each;
}

uint64_t piece_steps(const struct search *s, const struct piece *p) {
    return parts(p->q.rows.n, TILE_ROWS) * (p->one ? 1 : parts(s->n, p->b.room));
}

uint64_t piece_step_at(const struct search *s, const struct piece *p) {
    const uint64_t blocks = p->one ? p->at / s->n : parts(p->at, p->b.room);
    return blocks * parts(p->q.rows.n, TILE_ROWS) + p->i0 / TILE_ROWS;
}

void piece_end(const struct search *s, const struct piece *p, uint32_t *out) {
    for (size_t i = 0; i < p->q.rows.n * s->k; i++)
        out[i] = p->lists.near[i].number;
}

/* --- what is learned -------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* What a category that differs adds to the squared distance of two rows of the class: the square of
 * the median of the standard deviations (over the class's rows, dividing by their number) of the
 * class's numbers. So imbalanced-learn computes it from 0.14 on (SMOTENC._fit_resample: each of the
 * two columns of the one-hot matrix in which the rows differ holds median / sqrt(2)), which is the
 * distance of SMOTE's paper, 6.1, for each class that rows are added to. Before, it took half of
 * that square, of the smallest class for all. */
int search_category_weight(struct search *s, struct sm_err *err) {
    double *spread = calloc(s->numbers + 1, sizeof *spread);
    if (spread == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int failed = moments(s, NULL, spread, err);
    for (size_t k = 0; k < s->numbers; k++)
        spread[k] = sqrt(spread[k]);
    qsort(spread, s->numbers, sizeof *spread, by_size);
    const double median = s->numbers == 0 ? 0
                          : s->numbers % 2
                              ? spread[s->numbers / 2]
                              : (spread[s->numbers / 2 - 1] + spread[s->numbers / 2]) / 2;
    s->category_weight = median * median;
    free(spread);
    if (!failed && !isfinite(s->category_weight))
        return sm_fail(err, SM_E_DATASET,
                       "class '%.60s' has numbers too large: their spread is no finite number "
                       "(hint: a smaller unit in the source)",
                       sm_index_class(sm_places_index(s->places), s->label));
    return failed;
}

int search_artifact(const struct search *s, const uint32_t *list, struct sm_artifact *a,
                    struct sm_arena *arena, struct sm_err *err) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    int64_t *offsets = sm_arena_alloc(arena, (r->classes + (size_t)1) * sizeof *offsets);
    if (offsets == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint32_t c = 0; c < r->classes; c++)
        offsets[c + 1] =
            offsets[c] + (r->of[c].drawn > r->of[c].present ? (int64_t)r->of[c].present : 0);
    sm_artifact_add(a, "offsets", SM_ARRAY_I64, r->classes + UINT64_C(1), 0, offsets);
    sm_artifact_add(a, "neighbours", SM_ARRAY_U32, (uint64_t)offsets[r->classes], s->k, list);
    return 0;
}

/* Of the class, which begins with row `from` of `rows` that are searched. out: n x k. */
static int class_search(struct search *s, const struct sm_neighbours_watch *watch, uint64_t from,
                        uint64_t rows, uint32_t *out, struct sm_err *err) {
    struct piece p = {0};
    const size_t most = search_block_rows(s);
    const bool one = s->n <= most;
    s->asked = s->n;
    int failed = one ? 0 : search_centre(s, err);
    if (!failed) failed = piece_make(s, &p, most, one ? 0 : most, err);
    for (uint64_t first = 0; !failed && first < s->n; first += p.q.rows.n) {
        failed =
            piece_begin(s, &p, first, s->n - first < most ? (size_t)(s->n - first) : most, err);
        int r = failed;
        while (r == 0) {
            r = piece_step(s, &p, err);
            const double share = (double)piece_step_at(s, &p) / (double)piece_steps(s, &p);
            if (r == 0 && watch != NULL && watch->told != NULL)
                watch->told(watch->context, from + first + (uint64_t)(share * (double)p.q.rows.n),
                            rows);
        }
        failed = r < 0;
        if (!failed) piece_end(s, &p, out + first * s->k);
    }
    piece_free(s, &p);
    return failed ? -1 : 0;
}

static int neighbours_learn(struct search *s, const struct sm_neighbours_watch *watch,
                            struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    uint64_t rows = 0;
    for (uint32_t c = 0; c < r->classes; c++)
        rows += search_class(s, c) ? s->n : 0;
    uint32_t *list = sm_arena_alloc(arena, (size_t)rows * s->k * sizeof *list + 1);
    if (list == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for the neighbours");
    int failed = 0;
    uint64_t from = 0;
    for (uint32_t c = 0; !failed && c < r->classes; c++) {
        if (!search_class(s, c)) continue;
        if (s->mixed) failed = search_category_weight(s, err);
        if (!failed) failed = class_search(s, watch, from, rows, list + from * s->k, err);
        from += s->n;
    }
    return failed ? -1 : search_artifact(s, list, a, arena, err);
}

/* Silverman's rule, as in imbalanced-learn: factor x (4 / ((d + 2) n))^(1 / (d + 4)) x the standard
 * deviation of the class, n samples in all. */
static int scales_learn(struct search *s, struct sm_artifact *a, struct sm_arena *arena,
                        struct sm_err *err) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    const struct sm_pipeline *p = sm_places_pipeline(s->places);
    const size_t d = s->schema->n;
    int64_t *offsets = sm_arena_alloc(arena, (r->classes + (size_t)1) * sizeof *offsets);
    double *scales = sm_arena_alloc(arena, r->classes * d * sizeof *scales + 1);
    const double n = (double)sm_places_part_samples(s->places),
                 smoothing = pow(4 / (((double)d + 2) * n), 1 / ((double)d + 4));
    if (offsets == NULL || scales == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint32_t c = 0; c < r->classes; c++) {
        const char *name = sm_index_class(sm_places_index(s->places), c);
        const double factor = sm_method_shrinkage(p->rebalance, name) * smoothing;
        const bool grows = r->of[c].drawn > r->of[c].present;
        offsets[c + 1] = offsets[c] + (grows ? (int64_t)r->of[c].present : 0);
        if (!grows) continue;
        s->label = c;
        s->n = r->of[c].present;
        if (moments(s, NULL, scales + c * d, err) != 0) return -1;
        for (size_t k = 0; k < d; k++)
            scales[c * d + k] = factor * sqrt(scales[c * d + k]);
    }
    sm_artifact_add(a, "offsets", SM_ARRAY_I64, r->classes + UINT64_C(1), 0, offsets);
    sm_artifact_add(a, "scales", SM_ARRAY_F64, r->classes, d, scales);
    return 0;
}

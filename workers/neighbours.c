/* Exact nearest neighbours by blocks: a matrix product in float32 says who cannot be near, with the
 * error that it may have taken off; who may be is measured in float64. So most pairs cost no more
 * than a product. */
#include "workers/neighbours.h"

#include "lib/limits.h"
#include "workers/kernels/distances.h"
#include "workers/kernels/dots.h"
#include "workers/kernels/rows.h"
#include "workers/rebalance/method.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A tile of products and the rows that it is made of stay in the caches. */
enum { TILE_ROWS = 96, TILE_COLUMNS = 64, READ_ROWS = 4096 };

/* Rows of one class in memory. */
struct block {
    uint64_t first; /* number within the class of the first */
    struct sm_rows rows;
    float *shifted; /* numbers less the class's mean, without gaps */
    float *panels;  /* -2 times them, as what the rows of a tile are multiplied with; NULL: not */
    float *norms;   /* squared lengths of shifted rows */
};

struct search {
    const struct sm_places *places;
    const struct sm_schema *schema;
    struct sm_table *table;
    uint32_t label;
    uint64_t n;          /* rows of the class */
    size_t numbers, *at; /* columns that hold numbers */
    double *mean;        /* of them */
    uint32_t k;
    bool mixed;             /* SMOTENC */
    double category_weight; /* what a differing category adds to a squared distance */
    size_t block_rows;
    float *products; /* of a tile */
};

/* The k best of one row so far, sorted by (distance, number). */
struct near {
    double distance;
    uint32_t number;
};

/* One that may be among them, and how near it may be. */
enum { WAITING = 32 };
struct waiting {
    float low;
    uint32_t number;
};

/* Of each row of a block: those that were measured, the k least bounds from above of all that were
 * seen, those that wait, and beyond which distance nobody is wanted. worst: the same of the rows
 * that they are compared with, -INFINITY when those look for nobody. */
struct lists {
    struct near *near;
    float *ups;
    struct waiting *waiting;
    uint8_t *n;
    float *bound, *apart;
    const float *worst;
};

static int class_read(const struct search *s, uint64_t first, struct sm_rows *rows,
                      struct sm_err *err);
static int moments(struct search *s, double *variance, struct sm_err *err);
static int class_search(struct search *s, uint32_t *out, struct sm_err *err);
static int scales_learn(struct search *s, struct sm_artifact *a, struct sm_arena *arena,
                        struct sm_err *err);
static int neighbours_learn(struct search *s, const struct sm_method *method, struct sm_artifact *a,
                            struct sm_arena *arena, struct sm_err *err);

int sm_neighbours_learn(const struct sm_places *places, const char *root,
                        struct sm_artifact *artifact, struct sm_arena *arena, struct sm_err *err) {
    const struct sm_index *index = sm_places_index(places);
    const struct sm_method *method = sm_method_of(sm_places_pipeline(places)->rebalance);
    *artifact = (struct sm_artifact){0};
    if (!sm_index_is_table(index))
        return sm_fail(err, SM_E_PIPELINE, "'%s' makes rows, and the source holds images",
                       method->info.name);
    struct search s = {.places = places, .schema = sm_index_schema(index)};
    s.at = calloc(s.schema->n + 1, sizeof *s.at);
    s.mean = calloc(s.schema->n + 1, sizeof *s.mean);
    int failed = s.at == NULL || s.mean == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory")
                                                : sm_table_open(&s.table, index, root, err);
    for (size_t k = 0; !failed && k < s.schema->n; k++)
        if (s.schema->columns[k].kind == SM_COLUMN_NUMBER) s.at[s.numbers++] = k;
    if (!failed)
        failed = method->neighbours != NULL ? neighbours_learn(&s, method, artifact, arena, err)
                                            : scales_learn(&s, artifact, arena, err);
    sm_table_close(&s.table);
    free(s.at);
    free(s.mean);
    return failed;
}

/* --- rows of a class -------------------------------------------------------------------------- */

static int class_read(const struct search *s, uint64_t first, struct sm_rows *rows,
                      struct sm_err *err) {
    uint64_t *samples = malloc((rows->n + 1) * sizeof *samples);
    if (samples == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < rows->n; i++)
        samples[i] = sm_places_class_sample(s->places, s->label, first + i);
    int failed = sm_table_read(s->table, samples, 0, rows->n, rows, err);
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

/* Means (into s->mean) and variances (NULL: not wanted) of the class's numbers; refuses missing
 * cells. */
static int moments(struct search *s, double *variance, struct sm_err *err) {
    struct sm_rows rows;
    uint64_t missing = 0;
    size_t column = 0;
    const bool sums = variance == NULL && is_plain(s);
    double *scratch = calloc(2 * s->numbers + 1, sizeof *scratch);
    if (scratch == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    int failed = sm_rows_alloc(&rows, READ_ROWS, s->schema->n, s->schema->is_double, err);
    if (failed) rows.data = NULL;
    if (variance == NULL) variance = scratch;
    memset(s->mean, 0, s->numbers * sizeof *s->mean);
    memset(variance, 0, s->numbers * sizeof *variance);
    for (uint64_t first = 0; !failed && first < s->n; first += READ_ROWS) {
        struct sm_rows block = rows;
        block.n = s->n - first < READ_ROWS ? (size_t)(s->n - first) : READ_ROWS;
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
    if (failed || missing == 0) return failed;
    return sm_fail(err, SM_E_DATASET,
                   "class '%.60s': column '%.60s' has missing cells (%llu in all columns), and a "
                   "distance needs all of them, as they stand in the source (hint: "
                   "RandomOverSampler needs none)",
                   sm_index_class(sm_places_index(s->places), s->label),
                   s->schema->columns[column].name, (unsigned long long)missing);
}

/* panels: whether others are compared with its rows. */
static int block_make(const struct search *s, struct block *b, bool panels, struct sm_err *err) {
    *b = (struct block){0};
    if (panels) {
        b->panels = malloc(sm_panels_float_bytes(s->block_rows, s->numbers) + 1);
        if (b->panels == NULL) return sm_fail(err, SM_E_MEMORY, "no memory to look for neighbours");
    }
    b->shifted = malloc((s->block_rows * s->numbers + 1) * sizeof *b->shifted);
    b->norms = malloc((s->block_rows + 1) * sizeof *b->norms);
    if (b->shifted == NULL || b->norms == NULL)
        return sm_fail(err, SM_E_MEMORY, "no memory to look for neighbours");
    return sm_rows_alloc(&b->rows, s->block_rows, s->schema->n, s->schema->is_double, err);
}

static void block_free(struct block *b) {
    sm_rows_free(&b->rows);
    free(b->shifted);
    free(b->panels);
    free(b->norms);
}

static int block_read(const struct search *s, struct block *b, uint64_t first, struct sm_err *err) {
    b->first = first;
    b->rows.n = s->n - first < s->block_rows ? (size_t)(s->n - first) : s->block_rows;
    if (class_read(s, first, &b->rows, err) != 0) return -1;
    if (is_plain(s)) sm_rows_centre(b->rows.f32, b->rows.n, s->numbers, s->mean, b->shifted);
    for (size_t i = 0; i < b->rows.n; i++) {
        float *row = b->shifted + i * s->numbers;
        double norm = 0;
        for (size_t k = 0; !is_plain(s) && k < s->numbers; k++)
            row[k] = (float)(sm_rows_cell(&b->rows, i, s->at[k]) - s->mean[k]);
        for (size_t k = 0; k < s->numbers; k++)
            norm += (double)row[k] * (double)row[k];
        b->norms[i] = (float)norm;
    }
    if (b->panels == NULL) return 0;
    sm_panels_float(b->shifted, b->rows.n, s->numbers, b->panels);
    for (size_t i = 0; i < sm_panels_float_bytes(b->rows.n, s->numbers) / sizeof(float); i++)
        b->panels[i] *= -2;
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

static void near_add(struct near *list, uint32_t k, double d, uint32_t number) {
    uint32_t at = k;
    while (at > 0 && (d < list[at - 1].distance ||
                      (d == list[at - 1].distance && number < list[at - 1].number)))
        at--;
    if (at == k) return;
    memmove(list + at + 1, list + at, (k - 1 - at) * sizeof *list);
    list[at] = (struct near){d, number};
}

/* How far float32 may be off, relative to the sum of both norms and absolutely. A sum of n products
 * is off by at most n FLT_EPSILON / 2 of the sum of their sizes, in whatever order, and twice that
 * sum is at most that of the norms; the rest is for what is added up and the rounding of rows.
 * Below FLT_MIN bits are lost. */
static double terms_of(size_t numbers) {
    return 0.55 * (double)numbers + 16;
}

static struct sm_slack slack_of(size_t numbers) {
    const double terms = terms_of(numbers);
    return (struct sm_slack){(float)(1 - terms * FLT_EPSILON), (float)(4 * terms * FLT_MIN)};
}

/* Rounded up, for the strips. */
static float worst_of(const struct near *list, uint32_t k) {
    return nextafterf((float)list[k - 1].distance, INFINITY);
}

/* The bound of a pair's distance from above; categories may all differ. */
static float grown(const struct search *s, float norms, float product) {
    const double terms = terms_of(s->numbers),
                 words = s->mixed ? s->category_weight * (double)(s->schema->n - s->numbers) : 0;
    return nextafterf((float)((double)norms * (1 + terms * FLT_EPSILON) + (double)product +
                              4 * terms * FLT_MIN + words),
                      INFINITY);
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
    l->bound[row] = fminf(l->bound[row], worst_of(near, s->k));
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
    while (at > 0 && up < ups[at - 1])
        at--;
    if (at == s->k) return;
    memmove(ups + at + 1, ups + at, (s->k - 1 - at) * sizeof *ups);
    ups[at] = up;
    l->bound[row] = fminf(l->bound[row], ups[s->k - 1]);
}

/* Row i of q against the rows of b of a tile, which begins with row j0, from `from` on. Within one
 * block each pair is seen once and goes into both lists. */
static void row_compare(const struct search *s, const struct block *q, size_t i,
                        const struct block *b, size_t j0, size_t from, struct sm_look *look,
                        struct lists *l) {
    const struct sm_slack slack = look->slack;
    const uint64_t self = q->first + i;
    look->norm = q->norms[i];
    for (size_t at = from; (at = sm_look_next(look, at, l->bound[i])) < look->end;) {
        const size_t end = at + SM_LOOK_STRIP < look->end ? at + SM_LOOK_STRIP : look->end;
        for (; at < end; at++) {
            const size_t j = j0 + at;
            const float norms = look->norm + look->norms[at], product = look->products[at],
                        low = norms * slack.keep + product - slack.tiny;
            if ((low > l->bound[i] && low > look->worst[at]) || b->first + j == self) continue;
            const float up = grown(s, norms, product);
            offer(s, l, q, i, b, b->first + j, low, up);
            if (q == b) offer(s, l, q, j, b, self, low, up);
        }
    }
}

/* Rows i0 … of q against all of b, tile by tile, or against those behind them when the blocks are
 * one. */
static void rows_compare(const struct search *s, const struct block *q, size_t i0, size_t rows,
                         const struct block *b, struct lists *l) {
    const size_t d = s->numbers;
    for (size_t j0 = q == b ? i0 / TILE_COLUMNS * TILE_COLUMNS : 0; j0 < b->rows.n;
         j0 += TILE_COLUMNS) {
        const size_t left = b->rows.n - j0, columns = left < TILE_COLUMNS ? left : TILE_COLUMNS;
        struct sm_look look = {
            .norms = b->norms + j0, .worst = l->worst + j0, .end = columns, .slack = slack_of(d)};
        sm_dots_float(q->shifted + i0 * d, rows, b->panels + j0 * d, columns, d, s->products);
        for (size_t i = 0; i < rows; i++) {
            const size_t behind = i0 + i + 1, from = q == b && behind > j0 ? behind - j0 : 0;
            look.products = s->products + i * columns;
            if (from < columns) row_compare(s, q, i0 + i, b, j0, from, &look, l);
        }
    }
}

static int queries_run(const struct search *s, const struct block *q, struct block *b,
                       struct lists *l, uint32_t *out, struct sm_err *err) {
    const bool one = s->n <= s->block_rows;
    const size_t n = q->rows.n;
    for (size_t i = 0; i < n * s->k; i++) {
        l->near[i] = (struct near){INFINITY, UINT32_MAX};
        l->ups[i] = INFINITY;
    }
    for (size_t i = 0; i < n; i++)
        l->bound[i] = INFINITY;
    for (uint64_t first = 0; first < s->n; first += s->block_rows) {
        if (!one && block_read(s, b, first, err) != 0) return -1;
        for (size_t i0 = 0; i0 < n; i0 += TILE_ROWS)
            rows_compare(s, q, i0, n - i0 < TILE_ROWS ? n - i0 : TILE_ROWS, one ? q : b, l);
        for (size_t i = 0; i < n; i++)
            settle(s, l, q, i, one ? q : b);
    }
    for (size_t i = 0; i < n * s->k; i++)
        out[i] = l->near[i].number;
    return 0;
}

static size_t list_bytes(const struct search *s) {
    return s->k * (sizeof(struct near) + sizeof(float)) + WAITING * sizeof(struct waiting) + 1 +
           2 * sizeof(float);
}

static int lists_make(const struct search *s, bool one, struct lists *l, struct sm_err *err) {
    const size_t rows = s->block_rows;
    l->near = malloc(rows * s->k * sizeof *l->near);
    l->ups = malloc(rows * s->k * sizeof *l->ups);
    l->waiting = malloc(rows * WAITING * sizeof *l->waiting);
    l->n = calloc(rows, 1);
    l->bound = malloc(rows * sizeof *l->bound);
    l->apart = one ? NULL : malloc(rows * sizeof *l->apart);
    if (l->near == NULL || l->ups == NULL || l->waiting == NULL || l->n == NULL ||
        l->bound == NULL || (!one && l->apart == NULL))
        return sm_fail(err, SM_E_MEMORY, "no memory to look for neighbours");
    for (size_t i = 0; !one && i < rows; i++)
        l->apart[i] = -INFINITY;
    l->worst = one ? l->bound : l->apart;
    return 0;
}

static void lists_free(struct lists *l) {
    free(l->near);
    free(l->ups);
    free(l->waiting);
    free(l->n);
    free(l->bound);
    free(l->apart);
}

/* As many rows in a block as the ceiling allows for two of them, with their lists and products. */
static size_t rows_in_memory(const struct search *s) {
    const size_t element = s->schema->is_double ? sizeof(double) : sizeof(float),
                 row = s->schema->n * element + (s->numbers + 1) * sizeof(float),
                 panel = s->numbers * sizeof(float), each = 2 * row + panel + list_bytes(s);
    size_t n = SM_MAX_NEIGHBOR_BYTES / each;
    if (n > s->n) n = (size_t)s->n;
    return n < TILE_ROWS ? TILE_ROWS : n;
}

/* out: n x k. */
static int class_search(struct search *s, uint32_t *out, struct sm_err *err) {
    struct block q = {0}, b = {0};
    struct lists lists = {0};
    s->block_rows = rows_in_memory(s);
    const bool one = s->n <= s->block_rows;
    s->products = malloc(sizeof(float) * TILE_ROWS * TILE_COLUMNS);
    int failed = s->products == NULL ? sm_fail(err, SM_E_MEMORY, "no memory to look for neighbours")
                                     : lists_make(s, one, &lists, err);
    if (!failed) failed = block_make(s, &q, one, err);
    if (!failed && !one) failed = block_make(s, &b, true, err);
    for (uint64_t first = 0; !failed && first < s->n; first += s->block_rows) {
        failed = block_read(s, &q, first, err);
        if (!failed) failed = queries_run(s, &q, &b, &lists, out + first * s->k, err);
    }
    block_free(&q);
    block_free(&b);
    lists_free(&lists);
    free(s->products);
    s->products = NULL;
    return failed;
}

/* --- what is learned -------------------------------------------------------------------------- */

static void array_add(struct sm_artifact *a, const char *name, int type, uint64_t rows,
                      uint64_t columns, const void *data) {
    struct sm_array *array = &a->arrays[a->n++];
    *array = (struct sm_array){
        .type = type, .ndim = columns > 0 ? 2 : 1, .shape = {rows, columns}, .data = data};
    memcpy(array->name, name, strlen(name) + 1);
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median of the standard deviations of the smallest class's numbers (SMOTE's paper, 6.1). Two
 * rows of different categories differ in two columns of the one-hot matrix, each of which holds
 * half of that median, as in imbalanced-learn. */
static int category_weight(struct search *s, struct sm_err *err) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    double *spread = calloc(s->numbers + 1, sizeof *spread);
    if (spread == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    s->n = UINT64_MAX;
    for (uint32_t c = 0; c < r->classes; c++)
        if (r->of[c].present > 0 && r->of[c].present < s->n) {
            s->label = c;
            s->n = r->of[c].present;
        }
    int failed = moments(s, spread, err);
    for (size_t k = 0; k < s->numbers; k++)
        spread[k] = sqrt(spread[k]);
    qsort(spread, s->numbers, sizeof *spread, by_size);
    const double median = s->numbers == 0 ? 0
                          : s->numbers % 2
                              ? spread[s->numbers / 2]
                              : (spread[s->numbers / 2 - 1] + spread[s->numbers / 2]) / 2;
    s->category_weight = median * median / 2;
    free(spread);
    return failed;
}

static int neighbours_learn(struct search *s, const struct sm_method *method, struct sm_artifact *a,
                            struct sm_arena *arena, struct sm_err *err) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    int64_t *offsets = sm_arena_alloc(arena, (r->classes + (size_t)1) * sizeof *offsets);
    int failed = offsets == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    s->k = method->neighbours(sm_places_pipeline(s->places)->rebalance->params);
    s->mixed = method->mixed;
    for (uint32_t c = 0; !failed && c < r->classes; c++)
        offsets[c + 1] =
            offsets[c] + (r->of[c].drawn > r->of[c].present ? (int64_t)r->of[c].present : 0);
    uint32_t *list = NULL;
    if (!failed) {
        list = sm_arena_alloc(arena, (size_t)offsets[r->classes] * s->k * sizeof *list + 1);
        if (list == NULL) failed = sm_fail(err, SM_E_MEMORY, "no memory for the neighbours");
    }
    if (!failed && s->mixed) failed = category_weight(s, err);
    for (uint32_t c = 0; !failed && c < r->classes; c++) {
        if (offsets[c + 1] == offsets[c]) continue;
        s->label = c;
        s->n = r->of[c].present;
        assert(s->k < s->n && s->n <= UINT32_MAX); /* the method's plan has seen to it */
        failed = moments(s, NULL, err);
        if (!failed) failed = class_search(s, list + (size_t)offsets[c] * s->k, err);
    }
    if (failed) return -1;
    array_add(a, "offsets", SM_ARRAY_I64, r->classes + UINT64_C(1), 0, offsets);
    array_add(a, "neighbours", SM_ARRAY_U32, (uint64_t)offsets[r->classes], s->k, list);
    return 0;
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
        if (moments(s, scales + c * d, err) != 0) return -1;
        for (size_t k = 0; k < d; k++)
            scales[c * d + k] = factor * sqrt(scales[c * d + k]);
    }
    array_add(a, "offsets", SM_ARRAY_I64, r->classes + UINT64_C(1), 0, offsets);
    array_add(a, "scales", SM_ARRAY_F64, r->classes, d, scales);
    return 0;
}

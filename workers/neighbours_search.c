/* Exact nearest neighbours by blocks: a matrix product says who cannot be near, with the error that
 * it may have taken off; who may be is measured in float64. So most pairs cost no more than a
 * product. Products are of 16-bit codes, which are made fastest; where rows lie so close together
 * that those tell too few of them apart, of float32. */
#include "workers/neighbours_state.h"

#include "lib/limits.h"
#include "workers/kernels/dots.h"
#include "workers/kernels/rows.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A tile of products and the rows that it is made of stay in the caches. */
enum { TILE_ROWS = 96, TILE_COLUMNS = SM_CODES_COLUMNS };
static_assert((int)TILE_COLUMNS <= (int)SM_LOOK_MOST && TILE_ROWS % SM_CODES_PANEL == 0 &&
                  TILE_COLUMNS % SM_CODES_PANEL == 0,
              "a tile begins with panels, and is looked at a row at a time");

/* Codes are too coarse when more pairs pass than these for each neighbour that is wanted, and more
 * than one of so many: rows in any order that are told apart need about ln(rows) for each. */
enum { PASSES = 16, PASSES_OF = 32 };

/* --- blocks ----------------------------------------------------------------------------------- */

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
    if (search_is_plain(s)) {
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
    if (search_read(s, first, &b->rows, err) != 0) return -1;
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
    return search_row_bytes(s) + sizeof(uint64_t) /* its number, while it is read */ +
           (s->numbers + 2) * sizeof(float) /* codes or shifted, norm, unit */ +
           s->k * (sizeof(struct near) + sizeof(float)) + WAITING * sizeof(struct waiting) + 1 +
           sizeof(float);
}

size_t search_other_bytes(const struct search *s) {
    return search_row_bytes(s) + sizeof(uint64_t) + (2 * s->numbers + 3) * sizeof(float);
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
    if (search_read(s, first, &q->rows, err) != 0) return -1;
    if (!s->is_centred && search_moments(s, p->one ? &q->rows : NULL, NULL, err) != 0) return -1;
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

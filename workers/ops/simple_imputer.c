/* SimpleImputer: fills missing cells with what the column's other cells say, as scikit-learn's:
 * their mean, their median (exact), the most frequent value, or a constant. */
#include "workers/ops/columns.h"
#include "workers/sources/words.h"
#include "workers/table/modes.h"
#include "workers/table/quantiles.h"

enum strategy { MEAN, MEDIAN, MOST_FREQUENT, CONSTANT };
static const char *const strategies[] = {"mean", "median", "most_frequent", "constant", NULL};

struct params {
    int strategy; /* enum strategy */
    struct sm_any fill_value;
    bool add_indicator, keep_empty_features;
    struct sm_strs columns;
};

static const struct sm_param params[] = {
    {.name = "strategy",
     .type = SM_T_ENUM,
     .offset = offsetof(struct params, strategy),
     .dflt = "mean",
     .choices = strategies,
     .doc = "mean and median: of numbers; most_frequent: of categories, and of columns that are "
            "named; constant: fill_value"},
    {.name = "fill_value",
     .type = SM_T_ANY,
     .offset = offsetof(struct params, fill_value),
     .dflt = "null",
     .null_ok = true,
     .doc =
         "for constant: a number, or a word, which columns of categories get where they lack it; "
         "null: 0"},
    {.name = "add_indicator",
     .type = SM_T_BOOL,
     .offset = offsetof(struct params, add_indicator),
     .dflt = "false",
     .doc = "a column more for each that lacked cells in training: 1 where the cell is missing"},
    {.name = "keep_empty_features",
     .type = SM_T_BOOL,
     .offset = offsetof(struct params, keep_empty_features),
     .dflt = "false",
     .doc =
         "mean and median: a column without a value in training becomes 0 instead of being refused"},
    COLUMNS_PARAM(struct params, "all of the kind that the strategy works on"),
};

static int kind_of(const struct params *p) {
    if (p->strategy == MOST_FREQUENT) return SM_COLUMN_CATEGORY;
    return p->strategy == CONSTANT && p->fill_value.kind == SM_ANY_WORD ? SM_COLUMN_CATEGORY
                                                                        : SM_COLUMN_NUMBER;
}

/* What named columns must be. */
static int kind_named(const struct params *p) {
    return p->strategy == MOST_FREQUENT ? COLUMNS_ANY : kind_of(p);
}

static int names_check(const struct params *p, const struct sm_schema *in, struct sm_err *err) {
    struct sm_schema_names by_name = sm_schema_names_make(in);
    int failed = 0;
    for (size_t i = 0; i < p->columns.count && kind_named(p) == SM_COLUMN_NUMBER && !failed; i++) {
        const long c = sm_schema_names_find(&by_name, p->columns.v[i]);
        if (c >= 0 && in->columns[c].kind == SM_COLUMN_CATEGORY)
            failed = sm_fail(err, SM_E_PIPELINE,
                             "column '%.80s' holds categories, and numbers would fill it (hint: "
                             "strategy: most_frequent, or a word: fill_value: \"0\")",
                             p->columns.v[i]);
    }
    sm_schema_names_release(&by_name);
    return failed ? -1 : columns_check(in, &p->columns, kind_named(p), err);
}

static const struct sm_quantiles median = {1, {0.5}};

/* Sums of a column, for the mean and for how many cells there are. */
struct sum {
    double n, mean;
};

/* Where a column's counts of categories begin, in the partial. */
static size_t categories_before(const struct sm_schema *in, size_t column) {
    size_t n = 0;
    for (size_t k = 0; k < column; k++)
        n += in->columns[k].n_categories;
    return n;
}

/* The state of most_frequent: a byte for each column, 1 for the named ones of numbers. */
static int modes_begin(const struct sm_fit_context *c, struct sm_buf *state, struct sm_err *err) {
    const struct params *p = c->params;
    const size_t n = c->in->n;
    uint8_t *named = sm_buf_room(state, n);
    if (named == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    memset(named, 0, n);
    if (p->columns.v != NULL) columns_pick(c->in, &p->columns, COLUMNS_ANY, named);
    for (size_t k = 0; k < n; k++)
        if (c->in->columns[k].kind != SM_COLUMN_NUMBER) named[k] = 0;
    state->len += n;
    return 0;
}

/* How many of the columns before this one are such. */
static size_t modes_before(const struct sm_buf *state, size_t column) {
    size_t n = 0;
    for (size_t k = 0; k < column && k < state->len; k++)
        n += state->data[k] != 0;
    return n;
}

/* Their tables lie behind the counts of categories. */
static struct sm_modes *modes_of(const struct sm_fit_context *c, const void *partial) {
    return (void *)((uint64_t *)(uintptr_t)partial + categories_before(c->in, c->in->n) + 1);
}

static void map_modes(const struct sm_fit_context *c, const struct sm_buf *state,
                      const struct sm_rows *block, void *partial) {
    struct sm_modes *modes = modes_of(c, partial);
    for (size_t k = 0; k < c->in->n && k < state->len; k++) {
        if (state->data[k] == 0) continue;
        for (size_t i = 0; i < block->n; i++) {
            const double x = sm_rows_cell(block, i, k);
            if (x == x) sm_modes_add(modes, x, 1);
        }
        modes++;
    }
}

static int begin(const struct sm_fit_context *c, struct sm_buf *state, struct sm_err *err) {
    const struct params *p = c->params;
    if (names_check(p, c->in, err) != 0) return -1;
    if (p->strategy == MEDIAN) return sm_quantiles_begin(c, &median, state, err);
    return p->strategy == MOST_FREQUENT ? modes_begin(c, state, err) : 0;
}

static size_t partial_bytes(const struct sm_fit_context *c, const struct sm_buf *state) {
    const struct params *p = c->params;
    if (p->strategy == MEDIAN) return sm_quantiles_partial(c, &median, state);
    if (p->strategy == MOST_FREQUENT)
        return (categories_before(c->in, c->in->n) + 1) * sizeof(uint64_t) +
               modes_before(state, c->in->n) * sizeof(struct sm_modes);
    return c->in->n * sizeof(struct sum);
}

static void sum_merge(struct sum *a, const struct sum *b) {
    if (b->n == 0) return;
    a->mean += (b->mean - a->mean) * b->n / (a->n + b->n);
    a->n += b->n;
}

static void map_categories(const struct sm_fit_context *c, const struct sm_rows *block,
                           uint64_t *counts) {
    for (size_t k = 0, at = 0; k < c->in->n; at += c->in->columns[k].n_categories, k++) {
        if (c->in->columns[k].kind != SM_COLUMN_CATEGORY) continue;
        for (size_t i = 0; i < block->n; i++) {
            const double x = sm_rows_cell(block, i, k);
            if (x >= 0 && x < c->in->columns[k].n_categories) counts[at + (size_t)x]++;
        }
    }
}

static int map(const struct sm_fit_context *c, const struct sm_buf *state,
               const struct sm_rows *block, uint64_t first, void *partial, struct sm_err *err) {
    const struct params *p = c->params;
    (void)first, (void)err;
    if (p->strategy == MEDIAN) {
        sm_quantiles_map(c, &median, state, block, partial);
    } else if (p->strategy == MOST_FREQUENT) {
        map_categories(c, block, partial);
        map_modes(c, state, block, partial);
    } else {
        for (size_t k = 0; k < c->in->n; k++) {
            struct sum sum = {0};
            for (size_t i = 0; i < block->n; i++) {
                const double x = sm_rows_cell(block, i, k);
                sum.n += x == x;
                sum.mean += x == x ? x : 0;
            }
            if (sum.n > 0) sum.mean /= sum.n;
            sum_merge((struct sum *)partial + k, &sum);
        }
    }
    return 0;
}

static void merge(const struct sm_fit_context *c, const struct sm_buf *state, void *into,
                  const void *other) {
    const struct params *p = c->params;
    if (p->strategy == MEDIAN) {
        sm_quantiles_merge(c, &median, state, into, other);
    } else if (p->strategy == MOST_FREQUENT) {
        const size_t n = categories_before(c->in, c->in->n), named = modes_before(state, c->in->n);
        for (size_t i = 0; i < n; i++)
            ((uint64_t *)into)[i] += ((const uint64_t *)other)[i];
        struct sm_modes *modes = modes_of(c, into);
        const struct sm_modes *more = modes_of(c, other);
        for (size_t k = 0; k < named; k++)
            sm_modes_merge(modes + k, more + k);
    } else {
        for (size_t k = 0; k < c->in->n; k++)
            sum_merge((struct sum *)into + k, (const struct sum *)other + k);
    }
}

/* The number that a word has among the column's categories, or is to have: they stay sorted as the
 * index sorts them. */
static uint32_t word_at(const struct sm_column *column, const char *word, bool *there) {
    bool numbers = sm_word_is_number(word);
    *there = false;
    for (uint32_t i = 0; i < column->n_categories; i++) {
        numbers = numbers && sm_word_is_number(column->categories[i]);
        if (strcmp(column->categories[i], word) != 0) continue;
        *there = true;
        return i;
    }
    for (uint32_t i = 0; i < column->n_categories; i++)
        if (numbers ? sm_words_compare_numbers(column->categories[i], word) > 0
                    : strcmp(column->categories[i], word) > 0)
            return i;
    return column->n_categories;
}

/* Whether column k, which is picked or not, gets the constant as a new category, and which number
 * that has. */
static bool word_is_new(const struct params *p, const struct sm_column *column, bool picked,
                        uint32_t *at) {
    bool there;
    if (!picked || p->strategy != CONSTANT || p->fill_value.kind != SM_ANY_WORD) return false;
    *at = word_at(column, p->fill_value.word, &there);
    return !there;
}

/* What fills column k; cells: how many it had to learn from. */
static int fill_find(const struct sm_fit_context *c, const struct sm_buf *state, size_t k,
                     const void *merged, const double *medians, const double *counts, double *fill,
                     double *cells, struct sm_err *err) {
    const struct params *p = c->params;
    const struct sm_column *column = &c->in->columns[k];
    double n = 0;
    bool there;
    if (p->strategy == CONSTANT) {
        *cells = ((const struct sum *)merged)[k].n;
        *fill = p->fill_value.kind == SM_ANY_NUMBER ? p->fill_value.number
                : p->fill_value.kind == SM_ANY_WORD ? word_at(column, p->fill_value.word, &there)
                                                    : 0;
        return 0;
    }
    if (p->strategy == MEAN) {
        n = ((const struct sum *)merged)[k].n;
        *fill = ((const struct sum *)merged)[k].mean;
    } else if (p->strategy == MEDIAN) {
        n = counts[k];
        *fill = medians[k];
    } else if (column->kind == SM_COLUMN_NUMBER) {
        const struct sm_modes *modes = modes_of(c, merged) + modes_before(state, k);
        if (modes->overflow)
            return sm_fail(err, SM_E_TOO_LARGE,
                           "column '%.80s' has more than %d different numbers, too many for "
                           "most_frequent (hint: strategy: median)",
                           column->name, SM_MODES_MAX);
        n = (double)modes->n;
        *fill = modes->n > 0 ? sm_modes_most(modes) : 0;
    } else {
        const uint64_t *seen = (const uint64_t *)merged + categories_before(c->in, k);
        uint64_t most = 0;
        for (uint32_t i = 0; i < column->n_categories; i++) {
            if (seen[i] > most) most = seen[i], *fill = i; /* of equals the first */
            n += (double)seen[i];
        }
    }
    *cells = n;
    if (n > 0)
        return learned_finite(c, k, p->strategy == MEAN ? "its mean" : "its median", *fill, err);
    if (p->keep_empty_features && column->kind == SM_COLUMN_NUMBER) {
        *fill = 0;
        return 0;
    }
    return sm_fail(err, SM_E_DATASET,
                   "column '%.80s' has no value in %llu rows (hint: DropColumns, or strategy: "
                   "constant, or of numbers keep_empty_features: true)",
                   column->name, (unsigned long long)c->rows);
}

static int next(const struct sm_fit_context *c, struct sm_buf *state, const void *merged,
                bool *done, struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    const struct params *p = c->params;
    const size_t n = c->in->n;
    double *fill = calloc(3 * n + 1, sizeof *fill), *medians = fill + n, *counts = medians + n;
    uint8_t *picked = calloc(2 * n + 1, 1), *lacked = picked + n;
    int failed = fill == NULL || picked == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    *done = true;
    if (!failed && p->strategy == MEDIAN)
        *done = sm_quantiles_next(c, &median, state, merged, medians, counts);
    if (!failed && *done) {
        columns_pick(c->in, &p->columns, kind_of(p), picked);
        for (size_t k = 0; !failed && k < n; k++) {
            double cells = (double)c->rows;
            fill[k] = NAN; /* stays missing */
            if (picked[k])
                failed = fill_find(c, state, k, merged, medians, counts, &fill[k], &cells, err);
            lacked[k] = cells < (double)c->rows;
        }
        if (!failed) failed = learned_add(a, arena, "statistics_", SM_ARRAY_F64, n, 0, fill, err);
        if (!failed && p->add_indicator)
            failed = learned_add(a, arena, "indicator_", SM_ARRAY_U8, n, 0, lacked, err);
    }
    free(fill);
    free(picked);
    return failed;
}

static const struct sm_fit fit = {begin, partial_bytes, map, merge, next};

static int schema_with_indicators(const struct sm_schema *in, const uint8_t *lacked,
                                  struct sm_schema *out, struct sm_arena *arena,
                                  struct sm_err *err) {
    struct sm_schema made = {.n = in->n, .is_double = in->is_double};
    made.columns = calloc(2 * in->n + 1, sizeof *made.columns);
    if (made.columns == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    memcpy(made.columns, in->columns, in->n * sizeof *made.columns);
    int failed = 0;
    for (size_t k = 0; !failed && k < in->n; k++) {
        if (!lacked[k]) continue;
        const size_t n = strlen(in->columns[k].name) + sizeof "missingindicator_";
        char *name = sm_arena_alloc(arena, n);
        if (name == NULL) failed = sm_fail(err, SM_E_MEMORY, "out of memory");
        if (failed) break;
        snprintf(name, n, "missingindicator_%s", in->columns[k].name);
        made.columns[made.n++] = (struct sm_column){.name = name};
    }
    if (!failed) failed = sm_schema_copy(out, &made, arena, err);
    free(made.columns);
    return failed;
}

/* in, with the constant among the categories of picked columns that lack it. */
static int schema_with_word(const struct params *p, const struct sm_schema *in,
                            const uint8_t *picked, struct sm_schema *out, struct sm_arena *arena,
                            struct sm_err *err) {
    *out = *in;
    out->columns = sm_arena_alloc(arena, in->n * sizeof *out->columns + 1);
    if (out->columns == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    memcpy(out->columns, in->columns, in->n * sizeof *out->columns);
    for (size_t k = 0; k < in->n; k++) {
        uint32_t at;
        struct sm_column *column = &out->columns[k];
        if (!word_is_new(p, column, picked[k], &at)) continue;
        const uint32_t n = column->n_categories;
        const char **words = sm_arena_alloc(arena, (n + (size_t)1) * sizeof *words);
        if (words == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        for (uint32_t i = 0; i < n; i++)
            words[i + (i >= at)] = column->categories[i];
        words[at] = p->fill_value.word;
        column->categories = words;
        column->n_categories = n + 1;
    }
    return 0;
}

static int schema(const void *params_, const struct sm_artifact *learned,
                  const struct sm_schema *in, struct sm_schema *out, struct sm_arena *arena,
                  struct sm_err *err) {
    const struct params *p = params_;
    struct sm_schema filled;
    if (names_check(p, in, err) != 0) return -1;
    uint8_t *picked = calloc(in->n + 1, 1);
    if (picked == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    columns_pick(in, &p->columns, kind_of(p), picked);
    int failed = schema_with_word(p, in, picked, &filled, arena, err);
    free(picked);
    if (failed) return -1;
    if (!p->add_indicator) return sm_schema_copy(out, &filled, arena, err);
    *out = (struct sm_schema){.is_double = in->is_double};
    if (learned == NULL) return 0; /* only the fit knows which columns lack cells */
    const uint8_t *lacked = learned_find(learned, "indicator_", SM_ARRAY_U8, in->n);
    if (lacked == NULL) return learned_wrong(err);
    return schema_with_indicators(&filled, lacked, out, arena, err);
}

/* Whether a column can be filled with it: a number where numbers stand, one of the categories, and
 * nothing where the op leaves cells missing. */
static bool fill_fits(const struct sm_column *column, bool picked, uint32_t n_categories,
                      double fill) {
    if (!picked) return isnan(fill);
    if (column->kind == SM_COLUMN_NUMBER) return isfinite(fill);
    return fill >= 0 && fill < n_categories && fill == floor(fill);
}

/* From which number on a column's categories go up by one, to make room for the constant. */
static int prepare(const void *params_, struct sm_artifact *learned, const struct sm_schema *in,
                   struct sm_err *err) {
    const struct params *p = params_;
    const double *fill = learned_find(learned, "statistics_", SM_ARRAY_F64, in->n);
    double *from = malloc((in->n + 1) * sizeof *from);
    uint8_t *picked = calloc(in->n + 1, 1);
    int failed = from == NULL || picked == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    learned->prepared = from;
    learned->release = free;
    if (!failed && fill == NULL) failed = learned_wrong(err);
    if (!failed) columns_pick(in, &p->columns, kind_of(p), picked);
    for (size_t k = 0; !failed && k < in->n; k++) {
        const struct sm_column *column = &in->columns[k];
        uint32_t at;
        const bool is_new = word_is_new(p, column, picked[k], &at);
        from[k] = is_new ? at : INFINITY;
        if (!fill_fits(column, picked[k], column->n_categories + is_new, fill[k]))
            failed = learned_wrong(err);
    }
    free(picked);
    return failed;
}

static int apply(const void *params_, const struct sm_artifact *learned, const struct sm_schema *in,
                 const struct sm_rows *block, struct sm_rows *out, struct sm_row_faults *faults,
                 struct sm_err *err) {
    const struct params *p = params_;
    const size_t n = in->n;
    const double *fill = learned_find(learned, "statistics_", SM_ARRAY_F64, n);
    const uint8_t *lacked = learned_find(learned, "indicator_", SM_ARRAY_U8, n);
    const double *from = learned->prepared;
    (void)faults;
    if (fill == NULL || (p->add_indicator && lacked == NULL)) return learned_wrong(err);
    for (size_t i = 0; i < block->n; i++) {
        for (size_t k = 0; k < n; k++) {
            const double x = sm_rows_cell(block, i, k);
            sm_rows_put(out, i, k, x != x ? fill[k] : x >= from[k] ? x + 1 : x);
        }
        for (size_t k = 0, at = n; p->add_indicator && k < n; k++)
            if (lacked[k]) sm_rows_put(out, i, at++, isnan(sm_rows_cell(block, i, k)));
    }
    return 0;
}

static const struct sm_row_op rows = {
    .schema = schema, .fit = &fit, .prepare = prepare, .apply = apply};

const struct sm_op sm_op_simple_imputer = {
    .info =
        {.name = "SimpleImputer",
         .doc =
             "Fills missing cells with the mean, median or most frequent value of the column, or "
             "with a constant.",
         .example = "SimpleImputer: {strategy: median}",
         .params = params,
         .n_params = sizeof params / sizeof *params,
         .params_size = sizeof(struct params),
         .rows = true},
    .rows = &rows,
};

/* OneHotEncoder: a column of categories becomes a column of 0 and 1 for each category that occurs
 * in training, as scikit-learn's (dense). The other columns come first, unchanged. */
#include "workers/ops/categories.h"

enum drop { DROP_NONE, DROP_FIRST, DROP_IF_BINARY };
static const char *const drops[] = {"none", "first", "if_binary", NULL};
enum unknown { ERROR, IGNORE, INFREQUENT_IF_EXIST };
static const char *const unknowns[] = {"error", "ignore", "infrequent_if_exist", NULL};

struct params {
    int drop;           /* enum drop */
    int handle_unknown; /* enum unknown */
    struct grouping grouping;
    struct sm_strs columns;
};

static const struct sm_param params[] = {
    {.name = "drop",
     .type = SM_T_ENUM,
     .offset = offsetof(struct params, drop),
     .dflt = "none",
     .choices = drops,
     .doc = "leave a category's column out: the first of each, or of columns with two categories"},
    {.name = "handle_unknown",
     .type = SM_T_ENUM,
     .offset = offsetof(struct params, handle_unknown),
     .dflt = "error",
     .choices = unknowns,
     .doc =
         "a category that did not occur in training: the row is quarantined, or all its columns are "
         "0, or it counts as infrequent where there are such"},
    GROUPING_PARAMS(struct params),
    COLUMNS_PARAM(struct params, "all that hold categories"),
};

static int begin(const struct sm_fit_context *c, struct sm_buf *state, struct sm_err *err) {
    const struct params *p = c->params;
    (void)state;
    return columns_check(c->in, &p->columns, SM_COLUMN_CATEGORY, err);
}

static int next(const struct sm_fit_context *c, struct sm_buf *state, const void *merged,
                bool *done, struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    const struct params *p = c->params;
    (void)state;
    *done = true;
    return categories_learn(c, &p->grouping, true, merged, a, arena, err);
}

static const struct sm_fit fit = {begin, categories_partial_bytes, categories_map, categories_merge,
                                  next};

static int check(const void *p_, struct sm_err *err) {
    const struct params *p = p_;
    return grouping_check(&p->grouping, err);
}

static void known_advance(struct known *known, size_t cells) {
    known->codes += cells;
    if (known->rare != NULL) known->rare += cells;
}

/* How many different codes a column has, and how many of the first are dropped. */
static size_t occurring(const struct known *known, size_t cells) {
    int64_t most = -1;
    for (size_t i = 0; i < cells; i++)
        if (known->codes[i] > most) most = known->codes[i];
    return (size_t)(most + 1);
}

static bool is_rare(const struct known *known, size_t cell) {
    return known->rare != NULL && known->rare[cell] != 0;
}

/* The code of a column's rare categories; -1: it has none. */
static int64_t rare_code(const struct known *known, size_t cells) {
    for (size_t i = 0; i < cells; i++)
        if (is_rare(known, i)) return known->codes[i];
    return -1;
}

static size_t dropped(const struct params *p, size_t n) {
    return n > 0 && (p->drop == DROP_FIRST || (p->drop == DROP_IF_BINARY && n == 2)) ? 1 : 0;
}

static int column_add(struct sm_schema *out, size_t *at, const char *column, const char *word,
                      struct sm_arena *arena, struct sm_err *err) {
    const size_t n = strlen(column) + strlen(word) + 2;
    char *name = sm_arena_alloc(arena, n);
    if (name == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    snprintf(name, n, "%s_%s", column, word);
    out->columns[(*at)++] = (struct sm_column){.name = name};
    return 0;
}

static int columns_make(const struct params *p, const struct sm_schema *in, struct known known,
                        const uint8_t *picked, struct sm_schema *out, struct sm_arena *arena,
                        struct sm_err *err) {
    size_t at = 0;
    int failed = 0;
    for (size_t k = 0; k < in->n; k++)
        if (!picked[k]) out->columns[at++] = in->columns[k];
    for (size_t k = 0; k < in->n; known_advance(&known, categories_cells(in, k)), k++) {
        const struct sm_column *column = &in->columns[k];
        const size_t cells = categories_cells(in, k);
        if (!picked[k]) continue;
        const int64_t skip = (int64_t)dropped(p, occurring(&known, cells)),
                      rare = rare_code(&known, cells);
        for (size_t i = 0; !failed && i < cells; i++)
            if (known.codes[i] >= skip && !is_rare(&known, i)) /* -1: it does not occur */
                failed = column_add(out, &at, column->name, category_word(column, i), arena, err);
        if (!failed && rare >= skip)
            failed = column_add(out, &at, column->name, "infrequent_sklearn", arena, err);
    }
    return failed;
}

static int schema(const void *params_, const struct sm_artifact *learned,
                  const struct sm_schema *in, struct sm_schema *out, struct sm_arena *arena,
                  struct sm_err *err) {
    const struct params *p = params_;
    const struct known known = known_find(learned, in);
    if (columns_check(in, &p->columns, SM_COLUMN_CATEGORY, err) != 0) return -1;
    *out = (struct sm_schema){.is_double = in->is_double};
    if (learned == NULL) return 0; /* only the fit knows how many there are */
    if (!known_is_sound(&known, in, true)) return learned_wrong(err);
    uint8_t *picked = calloc(in->n + 1, 1);
    if (picked == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    columns_pick(in, &p->columns, SM_COLUMN_CATEGORY, picked);
    struct known of = known;
    for (size_t k = 0; k < in->n; known_advance(&of, categories_cells(in, k)), k++) {
        const size_t n = occurring(&of, categories_cells(in, k));
        out->n += picked[k] ? n - dropped(p, n) : 1;
    }
    struct sm_schema made = {.n = out->n, .is_double = in->is_double};
    made.columns = calloc(made.n + 1, sizeof *made.columns);
    int failed = made.columns == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory")
                                      : columns_make(p, in, known, picked, &made, arena, err);
    if (!failed) failed = sm_schema_copy(out, &made, arena, err);
    free(made.columns);
    free(picked);
    return failed;
}

static int prepare(const void *params_, struct sm_artifact *learned, const struct sm_schema *in,
                   struct sm_err *err) {
    const struct params *p = params_;
    return columns_prepare(in, &p->columns, SM_COLUMN_CATEGORY, learned, err);
}

static int apply(const void *params_, const struct sm_artifact *learned, const struct sm_schema *in,
                 const struct sm_rows *block, struct sm_rows *out, struct sm_row_faults *faults,
                 struct sm_err *err) {
    const struct params *p = params_;
    struct known known = known_find(learned, in);
    const uint8_t *picked = learned->prepared;
    if (known.codes == NULL) return learned_wrong(err);
    memset(out->data, 0, out->n * out->columns * sm_rows_element(out)); /* zeros of either type */
    size_t at = 0;
    for (size_t k = 0; k < in->n; k++) {
        if (picked[k]) continue;
        for (size_t i = 0; i < block->n; i++)
            sm_rows_put(out, i, at, sm_rows_cell(block, i, k));
        at++;
    }
    for (size_t k = 0; k < in->n; known_advance(&known, categories_cells(in, k)), k++) {
        if (!picked[k]) continue;
        const size_t cells = categories_cells(in, k), n = occurring(&known, cells),
                     skip = dropped(p, n);
        const int64_t rare =
            p->handle_unknown == INFREQUENT_IF_EXIST ? rare_code(&known, cells) : -1;
        for (size_t i = 0; i < block->n; i++) {
            const long of = categories_cell(&in->columns[k], sm_rows_cell(block, i, k));
            int64_t code = of < 0 ? -1 : known.codes[of];
            if (code < 0 && p->handle_unknown == ERROR)
                category_fault(faults, i, &in->columns[k], of);
            if (code < 0) code = rare;
            if (code >= (int64_t)skip) sm_rows_put(out, i, at + (size_t)code - skip, 1);
        }
        at += n - skip;
    }
    return 0;
}

static const struct sm_row_op rows = {
    .schema = schema, .fit = &fit, .prepare = prepare, .apply = apply};

const struct sm_op sm_op_one_hot_encoder = {
    .info =
        {.name = "OneHotEncoder",
         .doc =
             "Turns a column of categories into a column of 0 and 1 for each category; the other "
             "columns come first.",
         .example = "OneHotEncoder: {handle_unknown: ignore}",
         .params = params,
         .n_params = sizeof params / sizeof *params,
         .params_size = sizeof(struct params),
         .rows = true},
    .check = check,
    .rows = &rows,
};

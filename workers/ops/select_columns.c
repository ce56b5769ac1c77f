/* SelectColumns: keeps the named columns, in the order in which they are named. */
#include "workers/ops/columns.h"

struct params {
    struct sm_strs columns;
};

static const struct sm_param params[] = {
    {.name = "columns",
     .type = SM_T_STRS,
     .offset = offsetof(struct params, columns),
     .doc = "names of the columns that stay, in their new order"},
};

static int check(const void *p_, struct sm_err *err) {
    const struct params *p = p_;
    return p->columns.count > 0 ? 0 : sm_fail(err, SM_E_PIPELINE, "'columns' names no column");
}

static int schema(const void *params_, const struct sm_artifact *learned,
                  const struct sm_schema *in, struct sm_schema *out, struct sm_arena *arena,
                  struct sm_err *err) {
    const struct params *p = params_;
    struct sm_schema chosen = {.n = p->columns.count, .is_double = in->is_double};
    (void)learned;
    if (columns_check(in, &p->columns, COLUMNS_ANY, err) != 0) return -1;
    chosen.columns = calloc(chosen.n, sizeof *chosen.columns);
    size_t *from = calloc(chosen.n, sizeof *from);
    int failed =
        chosen.columns == NULL || from == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    if (!failed) columns_places(in, &p->columns, from);
    for (size_t i = 0; !failed && i < chosen.n; i++)
        chosen.columns[i] = in->columns[from[i]];
    if (!failed) failed = sm_schema_copy(out, &chosen, arena, err);
    free(chosen.columns);
    free(from);
    return failed;
}

/* Where each column comes from. */
static int prepare(const void *params_, struct sm_artifact *learned, const struct sm_schema *in,
                   struct sm_err *err) {
    const struct params *p = params_;
    size_t *from = calloc(p->columns.count, sizeof *from);
    if (from == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    columns_places(in, &p->columns, from);
    learned->prepared = from;
    learned->release = free;
    return 0;
}

static int apply(const void *params_, const struct sm_artifact *learned, const struct sm_schema *in,
                 const struct sm_rows *block, struct sm_rows *out, struct sm_row_faults *faults,
                 struct sm_err *err) {
    const size_t *from = learned->prepared;
    (void)params_, (void)in, (void)faults, (void)err;
    for (size_t k = 0; k < out->columns; k++)
        for (size_t i = 0; i < block->n; i++)
            sm_rows_put(out, i, k, sm_rows_cell(block, i, from[k]));
    return 0;
}

static const struct sm_row_op rows = {.schema = schema, .prepare = prepare, .apply = apply};

const struct sm_op sm_op_select_columns = {
    .info = {.name = "SelectColumns",
             .doc = "Keeps the named columns, in the order in which they are named.",
             .example = "SelectColumns: {columns: [age, income]}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .rows = true},
    .check = check,
    .rows = &rows,
};

/* DropColumns: leaves the named columns out. */
#include "workers/ops/columns.h"

struct params {
    struct sm_strs columns;
};

static const struct sm_param params[] = {
    {.name = "columns",
     .type = SM_T_STRS,
     .offset = offsetof(struct params, columns),
     .doc = "names of the columns that go"},
};

static int schema(const void *params_, const struct sm_artifact *learned,
                  const struct sm_schema *in, struct sm_schema *out, struct sm_arena *arena,
                  struct sm_err *err) {
    const struct params *p = params_;
    struct sm_schema rest = {.is_double = in->is_double};
    (void)learned;
    if (columns_check(in, &p->columns, COLUMNS_ANY, err) != 0) return -1;
    uint8_t *dropped = calloc(in->n + 1, 1);
    rest.columns = calloc(in->n + 1, sizeof *rest.columns);
    int failed =
        dropped == NULL || rest.columns == NULL ? sm_fail(err, SM_E_MEMORY, "out of memory") : 0;
    if (!failed) columns_pick(in, &p->columns, COLUMNS_ANY, dropped);
    for (size_t c = 0; !failed && c < in->n; c++)
        if (!dropped[c]) rest.columns[rest.n++] = in->columns[c];
    if (!failed)
        failed = rest.n > 0 ? sm_schema_copy(out, &rest, arena, err)
                            : sm_fail(err, SM_E_PIPELINE, "no column is left");
    free(rest.columns);
    free(dropped);
    return failed;
}

static int prepare(const void *params_, struct sm_artifact *learned, const struct sm_schema *in,
                   struct sm_err *err) {
    const struct params *p = params_;
    return columns_prepare(in, &p->columns, COLUMNS_ANY, learned, err);
}

static int apply(const void *params_, const struct sm_artifact *learned, const struct sm_schema *in,
                 const struct sm_rows *block, struct sm_rows *out, struct sm_row_faults *faults,
                 struct sm_err *err) {
    const uint8_t *dropped = learned->prepared;
    (void)params_, (void)faults, (void)err;
    for (size_t c = 0, to = 0; c < in->n; c++) {
        if (dropped[c]) continue;
        for (size_t i = 0; i < block->n; i++)
            sm_rows_put(out, i, to, sm_rows_cell(block, i, c));
        to++;
    }
    return 0;
}

static const struct sm_row_op rows = {.schema = schema, .prepare = prepare, .apply = apply};

const struct sm_op sm_op_drop_columns = {
    .info = {.name = "DropColumns",
             .doc = "Leaves the named columns out.",
             .example = "DropColumns: {columns: [id, name]}",
             .params = params,
             .n_params = sizeof params / sizeof *params,
             .params_size = sizeof(struct params),
             .rows = true},
    .rows = &rows,
};

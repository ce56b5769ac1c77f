/* Fits and applies a chain of row ops on a matrix, without a source, a broker or a worker between:
 * rows_run PIPELINE.yaml IN.npy OUT.npy ARTIFACTS. IN is a 2-D array of float32 or float64 in C
 * order; the pipeline's source is not looked at. Ops run one after the other over the whole matrix,
 * each learning from what comes before it; then all of them at once, piece by piece as in
 * features.c, which must give the same. Tells on stderr how many seconds of processor time it took.
 * For tests/parity/test_rows.py and tests/bench/. */
#include "lib/fs.h"
#include "lib/limits.h"
#include "workers/ops/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PIECE = 64 };

/* An op, what it has learned, and the columns that go in and come out. */
struct step {
    const struct sm_op_node *node;
    struct sm_artifact learned;
    struct sm_schema in, out;
};

static int fail(const struct sm_err *err) {
    fprintf(stderr, "%s\n", err->text);
    return 1;
}

/* Processor time of this process: what others do on the machine shows in it least. */
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int npy_read(const char *path, struct sm_rows *rows, struct sm_err *err) {
    struct sm_buf file;
    char descr[8];
    unsigned long long n = 0, columns = 0;
    sm_buf_init(&file, (size_t)8 << 30);
    if (sm_fs_read_file(path, (size_t)8 << 30, &file, err) != 0) return -1;
    const unsigned head = (unsigned char)file.data[8] + 256u * (unsigned char)file.data[9];
    char *text = strndup(file.data + 10, head);
    if (sscanf(text, "{'descr': '%7[^']', 'fortran_order': False, 'shape': (%llu, %llu)", descr, &n,
               &columns) != 3)
        return sm_fail(err, SM_E_FORMAT, "'%s': %s", path, text);
    if (sm_rows_alloc(rows, n, columns, strcmp(descr, "<f8") == 0, err) != 0) return -1;
    memcpy(rows->data, file.data + 10 + head, n * columns * sm_rows_element(rows));
    free(text);
    sm_buf_release(&file);
    return 0;
}

static int npy_write(const char *path, const struct sm_rows *rows) {
    char dict[120], head[128];
    FILE *f = fopen(path, "wb");
    if (f == NULL) return -1;
    int n = snprintf(dict, sizeof dict,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (%zu, %zu), }",
                     rows->is_double ? "<f8" : "<f4", rows->n, rows->columns);
    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\x01\0\x76\0", 10);
    memcpy(head + 10, dict, (size_t)n);
    head[127] = '\n';
    fwrite(head, 1, sizeof head, f);
    fwrite(rows->data, sm_rows_element(rows), rows->n * rows->columns, f);
    return fclose(f);
}

static int matrix_read(void *context, uint64_t first, struct sm_rows *out, struct sm_err *err) {
    const struct sm_rows *all = context;
    const size_t row = all->columns * sm_rows_element(all);
    (void)err;
    memcpy(out->data, (const uint8_t *)all->data + first * row, out->n * row);
    return 0;
}

/* Learns what the op learns, then runs it over the whole matrix in pieces as features.c does. */
static int op_run(struct step *step, uint64_t seed, struct sm_schema *schema, struct sm_rows *rows,
                  const char *dir, struct sm_arena *arena, struct sm_err *err) {
    const struct sm_op_node *node = step->node;
    const struct sm_row_op *op = sm_op_find(node->info->name)->rows;
    struct sm_schema out_schema;
    struct sm_rows out, piece, to;
    const double start = seconds();
    if (op->fit != NULL) {
        const struct sm_fit_context c = {node->params, schema, rows->n, seed};
        const struct sm_fit_rows source = {matrix_read, rows};
        if (sm_fit_run(op->fit, &c, &source, NULL, &step->learned, arena, err) != 0 ||
            sm_artifact_write(&step->learned, dir, err) != 0)
            return -1;
        printf("%s %s\n", node->info->name, step->learned.sha256);
    }
    const double fitted = seconds();
    step->in = *schema;
    if (op->schema(node->params, op->fit != NULL ? &step->learned : NULL, schema, &out_schema,
                   arena, err) != 0 ||
        (op->prepare != NULL && op->prepare(node->params, &step->learned, schema, err) != 0) ||
        sm_rows_alloc(&out, rows->n, out_schema.n, rows->is_double, err) != 0 ||
        sm_rows_alloc(&piece, PIECE, schema->n, rows->is_double, err) != 0 ||
        sm_rows_alloc(&to, PIECE, out_schema.n, rows->is_double, err) != 0)
        return -1;
    const size_t in_row = schema->n * sm_rows_element(rows),
                 out_row = out_schema.n * sm_rows_element(rows);
    for (size_t first = 0; first < rows->n; first += PIECE) {
        const size_t used = rows->n - first < PIECE ? rows->n - first : PIECE;
        uint8_t bad[PIECE] = {0};
        struct sm_row_faults faults = {.bad = bad};
        memset(piece.data, 0, PIECE * in_row);
        memcpy(piece.data, (uint8_t *)rows->data + first * in_row, used * in_row);
        if (op->apply(node->params, &step->learned, schema, &piece, &to, &faults, err) != 0)
            return -1;
        for (size_t i = 0; i < used; i++)
            if (bad[i]) printf("bad row %zu: %s\n", first + i, faults.text);
        memcpy((uint8_t *)out.data + first * out_row, to.data, used * out_row);
    }
    fprintf(stderr, "seconds fit %s %.6f %.6f\n", node->info->name, fitted - start,
            seconds() - fitted);
    sm_rows_free(rows);
    sm_rows_free(&piece);
    sm_rows_free(&to);
    *rows = out;
    *schema = step->out = out_schema;
    return 0;
}

/* The whole chain over the matrix, piece by piece: as features.c does, a whole piece is read and
 * written where it lies. */
static int chain_run(const struct step *steps, size_t n, const struct sm_rows *rows,
                     struct sm_rows *out, struct sm_err *err) {
    struct sm_rows pieces[4];
    size_t widest = rows->columns;
    for (size_t k = 0; k < n; k++)
        widest = steps[k].out.n > widest ? steps[k].out.n : widest;
    if (sm_rows_alloc(out, rows->n, steps[n - 1].out.n, rows->is_double, err) != 0) return -1;
    for (int i = 0; i < 4; i++)
        if (sm_rows_alloc(&pieces[i], PIECE, widest, rows->is_double, err) != 0) return -1;
    const size_t in_row = rows->columns * sm_rows_element(rows),
                 out_row = out->columns * sm_rows_element(rows);
    for (size_t first = 0; first < rows->n; first += PIECE) {
        const size_t used = rows->n - first < PIECE ? rows->n - first : PIECE;
        uint8_t bad[PIECE] = {0}, *source = (uint8_t *)rows->data + first * in_row,
                *target = (uint8_t *)out->data + first * out_row;
        struct sm_row_faults faults = {.bad = bad};
        struct sm_rows from = pieces[0], last = pieces[3];
        if (used == PIECE) {
            from.data = source;
            last.data = target;
        } else {
            memset(from.data, 0, PIECE * in_row);
            memcpy(from.data, source, used * in_row);
        }
        for (size_t k = 0; k < n; k++) {
            const struct sm_op_node *node = steps[k].node;
            const struct sm_row_op *op = sm_op_find(node->info->name)->rows;
            struct sm_rows to = k + 1 == n ? last : pieces[1 + k % 2];
            from.columns = steps[k].in.n;
            to.columns = steps[k].out.n;
            if (op->apply(node->params, &steps[k].learned, &steps[k].in, &from, &to, &faults,
                          err) != 0)
                return -1;
            from = to;
        }
        if (used < PIECE) memcpy(target, last.data, used * out_row);
    }
    for (int i = 0; i < 4; i++)
        sm_rows_free(&pieces[i]);
    return 0;
}

/* all: what the ops gave one after the other. */
static int chain_check(const struct step *steps, size_t n, const struct sm_rows *source,
                       const struct sm_rows *all, struct sm_err *err) {
    struct sm_rows out;
    const double start = seconds();
    if (chain_run(steps, n, source, &out, err) != 0) return -1;
    fprintf(stderr, "seconds transform %.6f\n", seconds() - start);
    const size_t bytes = out.n * out.columns * sm_rows_element(&out);
    if (out.columns != all->columns || memcmp(out.data, all->data, bytes) != 0)
        return sm_fail(err, SM_E_INTERNAL, "ops piece by piece gave other bytes");
    sm_rows_free(&out);
    return 0;
}

int main(int argc, char **argv) {
    struct sm_pipeline p;
    struct sm_rows rows, source;
    struct step steps[SM_MAX_OPS] = {0};
    struct sm_schema schema = {0};
    struct sm_arena arena;
    struct sm_err err = {0};
    if (argc != 5) {
        fputs("usage: rows_run PIPELINE.yaml IN.npy OUT.npy ARTIFACTS\n", stderr);
        return 2;
    }
    sm_arena_init(&arena, (size_t)4 << 30);
    if (sm_pipeline_load(&p, argv[1], sm_op_table(), &err) != 0 ||
        npy_read(argv[2], &rows, &err) != 0)
        return fail(&err);
    schema.n = rows.columns;
    schema.is_double = rows.is_double;
    schema.columns = sm_arena_alloc(&arena, rows.columns * sizeof *schema.columns);
    for (size_t k = 0; k < rows.columns; k++) {
        char name[24];
        snprintf(name, sizeof name, "x%zu", k);
        schema.columns[k].name = sm_arena_str(&arena, name);
    }
    if (sm_rows_alloc(&source, rows.n, rows.columns, rows.is_double, &err) != 0) return fail(&err);
    memcpy(source.data, rows.data, rows.n * rows.columns * sm_rows_element(&rows));
    for (size_t i = 0; i < p.n_ops; i++) {
        steps[i].node = &p.ops[i];
        if (op_run(&steps[i], (uint64_t)p.seed, &schema, &rows, argv[4], &arena, &err) != 0)
            return fail(&err);
    }
    if (chain_check(steps, p.n_ops, &source, &rows, &err) != 0) return fail(&err);
    int failed = npy_write(argv[3], &rows);
    for (size_t i = 0; i < p.n_ops; i++)
        sm_artifact_close(&steps[i].learned);
    sm_rows_free(&rows);
    sm_rows_free(&source);
    sm_arena_release(&arena);
    sm_pipeline_release(&p);
    return failed ? 1 : 0;
}

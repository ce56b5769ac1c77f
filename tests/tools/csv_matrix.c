/* A CSV file to a matrix in memory, as a fit reads it: builds the index in a folder, opens it,
 * reads all rows. Prints the seconds of each as JSON; for the bench. csv_matrix FILE INDEX [LABEL]
 */
#include "workers/sources/source.h"

#include <stdio.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv) {
    struct sm_err err = {0};
    struct sm_index *index = NULL;
    struct sm_table *table = NULL;
    struct sm_rows rows = {0};
    if (argc < 3) return 2;
    const struct sm_pipeline_source source = {
        .format = SM_SOURCE_CSV, .path = argv[1], .label = argc > 3 ? argv[3] : NULL};
    double start = now();
    int failed = sm_index_build(&source, argv[2], &err);
    double built = now();
    if (!failed) failed = sm_index_open(&index, argv[2], &err);
    double opened = now();
    if (!failed) failed = sm_table_open(&table, index, ".", &err);
    if (!failed)
        failed = sm_rows_alloc(&rows, sm_index_samples(index), sm_index_schema(index)->n,
                               sm_index_schema(index)->is_double, &err);
    if (!failed) failed = sm_table_read(table, NULL, 0, rows.n, &rows, &err);
    double sum = 0;
    for (size_t i = 0; !failed && !rows.is_double && i < rows.n * rows.columns; i++)
        sum += rows.f32[i] == rows.f32[i] ? (double)rows.f32[i] : 0;
    if (failed)
        fprintf(stderr, "%s\n", err.text);
    else
        printf("{\"build\": %.6f, \"open\": %.6f, \"read\": %.6f, \"rows\": %zu, \"columns\": %zu, "
               "\"sum\": %.17g}\n",
               built - start, opened - built, now() - opened, rows.n, rows.columns, sum);
    sm_rows_free(&rows);
    sm_table_close(&table);
    sm_index_close(&index);
    return failed ? 1 : 0;
}

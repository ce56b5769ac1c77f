/* Rebalancing of a table without broker and worker, for benches: learns, then makes the rows of
 * epoch 0, and prints the seconds of both as JSON.
 *
 *   smote_run PIPELINE FOLDER            an epoch of the pipeline's table; the index goes to FOLDER
 *   smote_run plan POSITIONS             nanoseconds of a position in epochs of so many */
#include "lib/fs.h"
#include "workers/neighbours.h"
#include "workers/ops/op.h"
#include "workers/synthesis.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Processor time: what others do on the machine shows in it least. */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int die(const struct sm_err *err) {
    fprintf(stderr, "%s\n", err->text);
    return 1;
}

/* Ten classes, each half as large as the one before, oversampled to the largest. */
static int plan_time(uint64_t positions) {
    enum { CLASSES = 10, TIMES = 400000 };
    struct sm_rebalance r = {.method = SM_REBALANCE_COUNTS,
                             .seed = 1,
                             .classes = CLASSES,
                             .of = calloc(CLASSES, sizeof *r.of)};
    struct sm_err err;
    uint64_t sum = 0;
    for (int c = 0; c < CLASSES; c++) {
        r.of[c].drawn = positions / CLASSES;
        r.of[c].present = r.of[c].drawn >> c;
    }
    if (sm_rebalance_lay(&r, &err) != 0) return die(&err);
    const struct sm_plan plan = {
        .samples = r.total, .copies = 1, .shuffle = true, .seed = 1, .shard_samples = 1000};
    const double start = now();
    for (uint64_t i = 0; i < TIMES; i++)
        sum += sm_rebalance_at(&r, 0, sm_plan_at(&plan, i * 2654435761u % r.total).sample).k;
    printf("{\"positions\": %" PRIu64 ", \"nanoseconds\": %.1f, \"sum\": %" PRIu64 "}\n", positions,
           (now() - start) * 1e9 / TIMES, sum);
    sm_rebalance_release(&r);
    return 0;
}

/* All rows of the epoch, block by block as a lease makes them; *sum over some of their cells, so
 * that runs can be compared. */
static int epoch_make(const struct sm_places *places, struct sm_table *table,
                      const struct sm_artifact *learned, double *sum, struct sm_err *err) {
    enum { BLOCK = 1024 };
    const struct sm_schema *s = sm_index_schema(sm_places_index(places));
    const uint64_t n = sm_places_samples(places);
    const struct sm_plan plan = {.samples = n,
                                 .copies = 1,
                                 .shuffle = false,
                                 .seed = (uint64_t)sm_places_pipeline(places)->seed,
                                 .shard_samples = 1000};
    struct sm_placed placed[BLOCK];
    uint64_t positions[BLOCK];
    struct sm_rows block;
    if (sm_rows_alloc(&block, BLOCK, s->n, s->is_double, err) != 0) return -1;
    *sum = 0;
    for (uint64_t first = 0; first < n; first += BLOCK) {
        block.n = n - first < BLOCK ? (size_t)(n - first) : BLOCK;
        for (size_t i = 0; i < block.n; i++)
            positions[i] = first + i;
        sm_places_many(places, &plan, positions, block.n, placed);
        if (sm_placed_rows(places, table, learned, placed, &block, err) != 0) return -1;
        for (size_t i = 0; i < block.n * s->n; i += 97)
            *sum += s->is_double ? block.f64[i] : (double)block.f32[i];
    }
    sm_rows_free(&block);
    return 0;
}

static int smote_time(const char *pipeline, const char *folder) {
    struct sm_pipeline p;
    struct sm_index *index = NULL;
    struct sm_table *table = NULL;
    struct sm_places *places = NULL;
    struct sm_artifact learned;
    struct sm_arena arena;
    struct sm_err err;
    char path[SM_MAX_PATH_BYTES], root[SM_MAX_PATH_BYTES];
    sm_arena_init(&arena, (size_t)1 << 32);
    snprintf(path, sizeof path, "%s/index", folder);
    if (sm_pipeline_load(&p, pipeline, sm_op_table(), &err) != 0 ||
        sm_source_root(&p.source, root, &err) != 0 || sm_index_build(&p.source, path, &err) != 0 ||
        sm_index_open(&index, path, &err) != 0 || sm_table_open(&table, index, root, &err) != 0 ||
        sm_places_new(&places, &p, index, SM_PART_TRAIN, NULL, &err) != 0)
        return die(&err);
    const double start = now();
    if (sm_neighbours_learn(places, folder, root, NULL, &learned, &arena, &err) != 0)
        return die(&err);
    const double fitted = now();
    sm_places_free(&places);
    double sum;
    if (sm_places_new(&places, &p, index, SM_PART_TRAIN, &learned, &err) != 0 ||
        epoch_make(places, table, &learned, &sum, &err) != 0)
        return die(&err);
    const double made = now();
    printf("{\"rows\": %" PRIu64 ", \"fit\": %.4f, \"make\": %.4f, \"sum\": %.17g}\n",
           sm_places_samples(places), fitted - start, made - fitted, sum);
    sm_arena_release(&arena);
    sm_places_free(&places);
    sm_table_close(&table);
    sm_index_close(&index);
    sm_pipeline_release(&p);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "plan") == 0) return plan_time(strtoull(argv[2], NULL, 10));
    if (argc == 3) return smote_time(argv[1], argv[2]);
    fprintf(stderr, "usage: smote_run PIPELINE FOLDER | smote_run plan POSITIONS\n");
    return 2;
}

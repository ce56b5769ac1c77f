/* The samples that could not be made, as people look for them: which file, and of a table which
 * row, on which line. Before: expand.c gets the broker's list, which knows positions of the plan
 * alone. After: run_write.c writes it. */
#include "cli/run.h"

#include "lib/limits.h"
#include "workers/sources/source.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int sm_run_take_bad(struct sm_run *r, const struct sm_places *places,
                    const Shardmill__Quarantined *q, struct sm_err *err) {
    const struct sm_index *index = sm_places_index(places);
    const bool table = sm_index_is_table(index);
    if (q->position >= sm_plan_positions(&r->plan) || q->substitute >= sm_index_samples(index))
        return sm_fail(err, SM_E_PROTOCOL,
                       "the broker names position %" PRIu64 " of %" PRIu64 " and sample %" PRIu64
                       " of %" PRIu64,
                       q->position, sm_plan_positions(&r->plan), q->substitute,
                       sm_index_samples(index));
    const uint64_t sample = sm_places_at(places, &r->plan, q->position).sample;
    const struct sm_entry entry =
        table ? (struct sm_entry){.file = ""} : sm_index_entry(index, sample);
    char file[2 * SM_MAX_PATH_BYTES];
    snprintf(file, sizeof file, "%s%s%s", entry.file, entry.member ? "!" : "",
             entry.member ? entry.member : "");
    struct sm_bad bad = {.position = q->position,
                         .sample = sample,
                         .row = table ? (int64_t)sm_index_row(index, sample) : -1,
                         .offset = entry.offset,
                         .file = file,
                         .stage = q->stage,
                         .code = (char *)sm_code_word((int)q->code),
                         .text = q->text,
                         .label = sm_index_label(index, sample)};
    return sm_run_add_bad(r, &bad, sm_index_label(index, q->substitute), err);
}

static int by_sample(const void *a, const void *b) {
    const struct sm_bad *x = a, *y = b;
    if (x->sample != y->sample) return x->sample < y->sample ? -1 : 1;
    return x->position < y->position ? -1 : x->position > y->position;
}

void sm_run_sort_bad(struct sm_run *r) {
    if (r->n_bad > 0) qsort(r->bad, r->n_bad, sizeof *r->bad, by_sample);
}

/* In the order of the dataset each stretch of a file is read once. */
int sm_run_find_bad(struct sm_run *r, const struct sm_places *places, const char *root,
                    struct sm_err *err) {
    const struct sm_index *index = sm_places_index(places);
    struct sm_finder *finder;
    if (!sm_index_is_table(index) || r->n_bad == 0) return 0;
    sm_run_sort_bad(r);
    if (sm_finder_open(&finder, index, &sm_places_pipeline(places)->source, root, err) != 0)
        return -1;
    int failed = 0;
    for (size_t i = 0; i < r->n_bad && !failed; i++) {
        struct sm_bad *b = &r->bad[i];
        struct sm_found found;
        failed = sm_finder_find(finder, b->sample, &found, err);
        if (failed) break;
        free(b->file);
        b->file = strdup(found.file);
        if (b->file == NULL) failed = sm_fail(err, SM_E_MEMORY, "out of memory");
        b->line = found.line;
        b->offset = found.offset;
    }
    sm_finder_close(&finder);
    return failed;
}

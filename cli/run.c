/* The record of a run in memory: what is added to it while shards are sealed, and how two of them
 * are compared. Before: run_plan.c says what is planned. After: run_write.c writes it, run_read.c
 * reads it back. */
#include "cli/run.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void free_texts(char **texts, size_t n);

void sm_run_release(struct sm_run *r) {
    for (size_t i = 0; i < r->n_bad; i++) {
        free(r->bad[i].file);
        free(r->bad[i].stage);
        free(r->bad[i].code);
        free(r->bad[i].text);
    }
    for (size_t i = 0; i < r->n_lines; i++) {
        free(r->lines[i].file);
        free(r->lines[i].code);
        free(r->lines[i].text);
    }
    free_texts(r->classes, r->n_classes);
    free_texts(r->columns, r->n_columns);
    free(r->lines);
    free(r->part);
    free(r->rebalance);
    free(r->counts);
    free(r->shards);
    free(r->bad);
    free(r->name);
    free(r->fingerprint);
    *r = (struct sm_run){0};
}

static void free_texts(char **texts, size_t n) {
    for (size_t i = 0; texts != NULL && i < n; i++)
        free(texts[i]);
    free(texts);
}

/* Room for one more element in a growing array. */
static int grow(void **array, size_t n, size_t *max, size_t size, struct sm_err *err) {
    if (n < *max) return 0;
    size_t wanted = *max ? *max * 2 : 64;
    void *bigger = realloc(*array, wanted * size);
    if (bigger == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    *array = bigger;
    *max = wanted;
    return 0;
}

int sm_run_add_shard(struct sm_run *r, const struct sm_shard_record *record, struct sm_err *err) {
    if (grow((void **)&r->shards, r->n_shards, &r->max_shards, sizeof *r->shards, err) < 0)
        return -1;
    r->shards[r->n_shards++] = *record;
    return 0;
}

bool sm_run_has_shard(const struct sm_run *r, const struct sm_shard_record *record) {
    return record->shard < sm_plan_shards(&r->plan) && record->shard % r->slices == r->slice &&
           record->samples == sm_plan_shard_count(&r->plan, record->shard);
}

int sm_run_keep_bad(struct sm_run *r, const struct sm_bad *bad, struct sm_err *err) {
    if (grow((void **)&r->bad, r->n_bad, &r->max_bad, sizeof *r->bad, err) < 0) return -1;
    struct sm_bad *b = &r->bad[r->n_bad++];
    *b = *bad;
    b->file = strdup(bad->file);
    b->stage = strdup(bad->stage);
    b->code = strdup(bad->code);
    b->text = strdup(bad->text);
    if (b->file == NULL || b->stage == NULL || b->code == NULL || b->text == NULL)
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    return 0;
}

int sm_run_add_bad(struct sm_run *r, const struct sm_bad *bad, uint32_t substitute_label,
                   struct sm_err *err) {
    assert(bad->label < r->n_classes && substitute_label < r->n_classes);
    if (sm_run_keep_bad(r, bad, err) < 0) return -1;
    r->counts[bad->label].quarantined++;
    r->counts[bad->label].in_shards--;
    r->counts[substitute_label].in_shards++;
    return 0;
}

int sm_run_add_line(struct sm_run *r, const struct sm_bad_line *line, struct sm_err *err) {
    if (grow((void **)&r->lines, r->n_lines, &r->max_lines, sizeof *r->lines, err) < 0) return -1;
    struct sm_bad_line *l = &r->lines[r->n_lines++];
    *l = *line;
    l->file = strdup(line->file);
    l->code = strdup(line->code);
    l->text = strdup(line->text);
    if (l->file == NULL || l->code == NULL || l->text == NULL)
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    r->unreadable++;
    return 0;
}

uint64_t sm_run_slice_shards(const struct sm_run *r) {
    uint64_t all = sm_plan_shards(&r->plan);
    return all > r->slice ? (all - r->slice + r->slices - 1) / r->slices : 0;
}

uint64_t sm_run_planned(const struct sm_run *r) {
    uint64_t planned = 0;
    for (size_t c = 0; c < r->n_classes; c++)
        planned += r->counts[c].planned;
    return planned;
}

const char *sm_run_differs(const struct sm_run *now, const struct sm_run *before, char *text,
                           size_t text_max) {
    if (now->part != NULL && before->part != NULL && strcmp(now->part, before->part) != 0)
        snprintf(text, text_max, "the part (%s, was %s)", now->part, before->part);
    else if (strcmp(now->dataset_digest, before->dataset_digest) != 0)
        snprintf(
            text, text_max, "the dataset (digest %s, was %s)", now->dataset_digest,
            before->dataset_digest); /* first: what is learned follows it into the pipeline's */
    else if (strcmp(now->pipeline_digest, before->pipeline_digest) != 0)
        snprintf(text, text_max, "the pipeline (digest %s, was %s)", now->pipeline_digest,
                 before->pipeline_digest);
    else if (now->plan.seed != before->plan.seed)
        snprintf(text, text_max, "the seed (%" PRIu64 ", was %" PRIu64 ")", now->plan.seed,
                 before->plan.seed);
    else if (now->plan.epoch != before->plan.epoch)
        snprintf(text, text_max, "the epoch (%u, was %u)", now->plan.epoch, before->plan.epoch);
    else
        return NULL;
    return text;
}

void sm_slice_file(uint32_t slice, uint32_t slices, char name[64]) {
    snprintf(name, 64, "slice-%u-of-%u.json", slice + 1, slices);
}

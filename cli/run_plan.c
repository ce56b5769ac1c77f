/* What a run is to make, before it makes it: the plan, its counts by class, and which rows of a
 * table are no samples. Before: the dataset is open and the places are known. After: expand.c
 * submits it, and what comes back is added (run.c). */
#include "cli/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int texts_fill(struct sm_run *r, const struct sm_run_source *s, struct sm_err *err);
static int classes_count(struct sm_run *r, const struct sm_run_source *s, struct sm_err *err);
static void positions_count(struct sm_run *r, const struct sm_run_source *s);
static uint32_t label_at(const struct sm_run_source *s, const struct sm_plan *plan,
                         uint64_t position);
static int lines_take(struct sm_run *r, const struct sm_index *index, struct sm_err *err);

int sm_run_plan(struct sm_run *r, const struct sm_run_source *s, struct sm_err *err) {
    const struct sm_pipeline *p = s->pipeline;
    r->plan = (struct sm_plan){.samples = sm_places_samples(s->places),
                               .copies = (uint32_t)p->expand.copies,
                               .shuffle = p->output.shuffle,
                               .seed = (uint64_t)p->seed,
                               .epoch = s->epoch,
                               .shard_samples = (uint64_t)p->expand.samples_per_shard};
    r->format = sm_shard_format(p->expand.encode);
    r->weights = p->output.weights;
    r->slice = s->slice;
    r->slices = s->slices;
    sm_pipeline_digest(p, r->pipeline_digest);
    snprintf(r->dataset_digest, sizeof r->dataset_digest, "%s", sm_index_dataset_digest(s->index));
    if (texts_fill(r, s, err) < 0 || classes_count(r, s, err) < 0) return -1;
    return sm_index_is_table(s->index) ? lines_take(r, s->index, err) : 0;
}

/* A copy of n texts; NULL without memory. */
static char **texts_copy(size_t n, const char *(*text)(const void *of, size_t i), const void *of) {
    char **copy = calloc(n + 1, sizeof *copy);
    for (size_t i = 0; copy != NULL && i < n; i++)
        if ((copy[i] = strdup(text(of, i))) == NULL) {
            while (i > 0)
                free(copy[--i]);
            free(copy);
            return NULL;
        }
    return copy;
}

static const char *class_name(const void *index, size_t i) {
    return sm_index_class(index, (uint32_t)i);
}

static const char *column_name(const void *schema, size_t i) {
    return ((const struct sm_schema *)schema)->columns[i].name;
}

static int texts_fill(struct sm_run *r, const struct sm_run_source *s, struct sm_err *err) {
    const struct sm_pipeline *p = s->pipeline;
    r->name = strdup(p->name != NULL ? p->name : "");
    const bool has_part = p->split.val > 0, rebalances = sm_places_rebalance(s->places) != NULL;
    if (has_part) r->part = strdup(p->part == SM_PART_VAL ? "val" : "train");
    if (rebalances) r->rebalance = strdup(p->rebalance->info->name);
    r->n_classes = sm_index_classes(s->index);
    r->classes = texts_copy(r->n_classes, class_name, s->index);
    r->counts = calloc(r->n_classes, sizeof *r->counts);
    if (s->columns != NULL) {
        r->n_columns = s->columns->n;
        r->columns = texts_copy(r->n_columns, column_name, s->columns);
    }
    if (r->name == NULL || r->classes == NULL || r->counts == NULL ||
        (s->columns != NULL && r->columns == NULL) || (has_part && r->part == NULL) ||
        (rebalances && r->rebalance == NULL))
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    return 0;
}

static int classes_count(struct sm_run *r, const struct sm_run_source *s, struct sm_err *err) {
    const struct sm_rebalance *by = sm_places_rebalance(s->places);
    /* weights of rows give a class a little more or less from epoch to epoch */
    const bool differs = by != NULL && by->method == SM_REBALANCE_ROWS && s->epoch > 0;
    for (uint32_t c = 0; c < r->n_classes; c++) {
        const struct sm_account a = sm_places_account(s->places, c);
        r->counts[c] = (struct sm_run_class){.planned = a.drawn * r->plan.copies,
                                             .present = a.present,
                                             .distinct = a.distinct,
                                             .repeated = a.repeated,
                                             .synthetic = a.synthetic,
                                             .log_prior_shift = a.log_prior_shift,
                                             .weight = a.weight};
    }
    if (r->slices > 1 || differs) positions_count(r, s);
    if (r->slices == 1 && sm_run_planned(r) != sm_plan_positions(&r->plan))
        return sm_fail(err, SM_E_INTERNAL, "the classes have %llu positions, and the plan %llu",
                       (unsigned long long)sm_run_planned(r),
                       (unsigned long long)sm_plan_positions(&r->plan));
    for (uint32_t c = 0; c < r->n_classes; c++)
        r->counts[c].in_shards = r->counts[c].planned;
    return 0;
}

/* What stands at each position of the slice. */
static void positions_count(struct sm_run *r, const struct sm_run_source *s) {
    for (uint32_t c = 0; c < r->n_classes; c++)
        r->counts[c].planned = 0;
    for (uint64_t k = r->slice; k < sm_plan_shards(&r->plan); k += r->slices)
        for (uint64_t i = 0, first = sm_plan_shard_first(&r->plan, k);
             i < sm_plan_shard_count(&r->plan, k); i++)
            r->counts[label_at(s, &r->plan, first + i)].planned++;
}

/* The class alone: it is known before SMOTE's neighbours are. */
static uint32_t label_at(const struct sm_run_source *s, const struct sm_plan *plan,
                         uint64_t position) {
    const struct sm_rebalance *r = sm_places_rebalance(s->places);
    if (r != NULL && r->method == SM_REBALANCE_SMOTE)
        return sm_rebalance_at(r, plan->epoch, sm_plan_at(plan, position).sample).label;
    return sm_places_at(s->places, plan, position).label;
}

static int lines_take(struct sm_run *r, const struct sm_index *index, struct sm_err *err) {
    for (uint64_t k = 0; k < sm_index_bad_rows(index); k++) {
        const struct sm_bad_row bad = sm_index_bad_row(index, k);
        const struct sm_bad_line line = {.row = bad.row,
                                         .line = bad.line,
                                         .offset = bad.offset,
                                         .file = (char *)bad.file,
                                         .code = (char *)sm_code_word((int)bad.code),
                                         .text = (char *)bad.text};
        if (sm_run_add_line(r, &line, err) < 0) return -1;
    }
    return 0;
}

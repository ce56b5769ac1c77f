/* From a plan of any length to the little that is open: which shards are touched, which ranges they
 * are cut into, what waits, and what a worker gets next. Leases (leases.c) are given for what this
 * file hands out. */
#include "broker/state.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct work *gap_cut(struct open_shard *open);

bool core_job_holds(const struct job *job, uint64_t shard, uint64_t *ordinal) {
    if (shard < job->spec->slice) return false;
    uint64_t d = shard - job->spec->slice;
    *ordinal = d / job->spec->slices;
    return d % job->spec->slices == 0 && *ordinal < job->n_shards;
}

struct open_shard *core_shard_open(struct job *job, uint64_t ordinal) {
    struct shard *shard = &job->shards[ordinal];
    assert(!shard->sealed);
    if (shard->open != NULL) return shard->open;
    struct open_shard *open = core_calloc(1, sizeof *open);
    open->job = job;
    open->ordinal = ordinal;
    open->number = job->spec->slice + ordinal * job->spec->slices;
    open->first = open->cursor = sm_plan_shard_first(&job->plan, open->number);
    open->count = sm_plan_shard_count(&job->plan, open->number);
    open->seal = (struct work){.kind = SHARDMILL__LEASE_KIND__SEAL,
                               .job = job,
                               .open = open,
                               .first = open->first,
                               .count = (uint32_t)open->count};
    open->next = job->opens;
    if (job->opens != NULL) job->opens->prev = open;
    job->opens = open;
    shard->open = open;
    return open;
}

static void range_free(struct work *range) {
    assert(range->leases == NULL);
    free(range->failure);
    free(range->quarantined.items);
    free(range);
}

/* Frees the shard's ranges and forgets that it is open. Leases must have been dropped. */
void core_shard_close(struct open_shard *open) {
    for (size_t i = 0; i < open->n; i++) {
        core_work_unwait(open->ranges[i]);
        range_free(open->ranges[i]);
    }
    assert(open->seal.leases == NULL);
    core_work_unwait(&open->seal);
    free(open->seal.failure);
    if (open->prev != NULL)
        open->prev->next = open->next;
    else
        open->job->opens = open->next;
    if (open->next != NULL) open->next->prev = open->prev;
    open->job->shards[open->ordinal].open = NULL;
    free(open->ranges);
    free(open);
}

/* Index of the first range that ends behind the position. */
size_t core_range_at(const struct open_shard *open, uint64_t position) {
    size_t lo = 0, hi = open->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (open->ranges[mid]->first + open->ranges[mid]->count <= position)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* NULL when something is cut there already. The new range waits in no list. */
struct work *core_range_insert(struct open_shard *open, uint64_t first, uint32_t count) {
    size_t at = core_range_at(open, first);
    if (at < open->n && open->ranges[at]->first < first + count && !PLANTED(record_replayed_twice))
        return NULL;
    if (open->n == open->cap) {
        open->cap = open->cap ? 2 * open->cap : 8;
        open->ranges = realloc(open->ranges, open->cap * sizeof *open->ranges);
        assert(open->ranges != NULL);
    }
    memmove(&open->ranges[at + 1], &open->ranges[at], (open->n - at) * sizeof *open->ranges);
    open->n++;
    struct work *range = core_calloc(1, sizeof *range);
    *range = (struct work){.kind = SHARDMILL__LEASE_KIND__RANGE,
                           .job = open->job,
                           .open = open,
                           .first = first,
                           .count = count,
                           .generation = core_generation(open->job, first, count)};
    open->ranges[at] = range;
    return range;
}

/* Takes an open range out; its positions are uncut again. Its leases must have been dropped. */
void core_range_remove(struct work *range) {
    struct open_shard *open = range->open;
    assert(range->state != WORK_DONE);
    core_work_unwait(range);
    size_t at = core_range_at(open, range->first);
    assert(at < open->n && open->ranges[at] == range);
    memmove(&open->ranges[at], &open->ranges[at + 1], (open->n - at - 1) * sizeof *open->ranges);
    open->n--;
    if (range->first < open->cursor) open->cursor = range->first;
    if (open->ordinal < open->job->cursor) open->job->cursor = open->ordinal;
    range_free(range);
}

size_t core_poison_at(const struct job *job, uint64_t position) {
    size_t lo = 0, hi = job->n_poisons;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (job->poisons[mid].position < position)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

uint32_t core_generation(const struct job *job, uint64_t first, uint32_t count) {
    return (uint32_t)(core_poison_at(job, first + count) - core_poison_at(job, first));
}

/* The newest attempt that is refused for these positions. */
uint64_t core_fence(const struct job *job, uint64_t first, uint32_t count) {
    uint64_t fence = 0;
    for (size_t i = core_poison_at(job, first);
         i < job->n_poisons && job->poisons[i].position < first + count; i++)
        if (job->poisons[i].fence > fence) fence = job->poisons[i].fence;
    return fence;
}

static struct work_list *list_of(struct work *work) {
    struct job *job = work->job;
    if (work->kind == SHARDMILL__LEASE_KIND__STEP) return &work->batch->session->waiting;
    return work->kind == SHARDMILL__LEASE_KIND__SEAL ? &job->seals : &job->ranges;
}

static bool is_listed(struct work *work) {
    return work->prev != NULL || work->next != NULL || list_of(work)->head == work;
}

void core_work_wait(struct work *work, bool front) {
    struct work_list *list = list_of(work);
    assert(!is_listed(work) && work->state != WORK_DONE);
    work->state = WORK_WAITING;
    if (work->kind == SHARDMILL__LEASE_KIND__STEP) {
        core_step_wait(work);
        return;
    }
    if (front || list->head == NULL) {
        work->next = list->head;
        if (list->head != NULL)
            list->head->prev = work;
        else
            list->tail = work;
        list->head = work;
    } else {
        work->prev = list->tail;
        list->tail->next = work;
        list->tail = work;
    }
}

void core_work_unwait(struct work *work) {
    struct work_list *list = list_of(work);
    if (!is_listed(work)) return;
    if (work->prev != NULL)
        work->prev->next = work->next;
    else
        list->head = work->next;
    if (work->next != NULL)
        work->next->prev = work->prev;
    else
        list->tail = work->prev;
    work->prev = work->next = NULL;
}

/* All ranges done: the seal becomes work. */
void core_shard_check(struct open_shard *open) {
    bool whole = open->done == open->count;
    if (PLANTED(gap_accepted) && open->done > 0 && open->n > 1) whole = true;
    if (!whole || open->sealing) return;
    open->sealing = true;
    core_work_wait(&open->seal, false);
}

void core_shard_sha(const struct shard *shard, char hex[SM_SHA_HEX]) {
    for (size_t i = 0; i < sizeof shard->sha256; i++)
        snprintf(hex + 2 * i, 3, "%02x", shard->sha256[i]);
}

static struct work *first_due(const struct work_list *list, int64_t now) {
    for (struct work *w = list->head; w != NULL; w = w->next)
        if (w->not_before <= now) return w;
    return NULL;
}

/* Seals first, so that few shards are open at a time; then what came back; then the next cut. The
 * work stays in its list until it is leased. */
struct work *core_work_next(struct sm_core *core, struct job *job) {
    struct work *work = first_due(&job->seals, core->now);
    if (work == NULL) work = first_due(&job->ranges, core->now);
    for (; work == NULL && job->cursor < job->n_shards; job->cursor++) {
        if (job->shards[job->cursor].sealed) continue;
        work = gap_cut(core_shard_open(job, job->cursor));
        if (work != NULL) break;
    }
    return work;
}

/* The first positions that no range covers, up to the next multiple of lease_samples within the
 * shard: the same cuts after every restart, so that a result from before it still fits. NULL when
 * all is cut. */
static struct work *gap_cut(struct open_shard *open) {
    uint64_t end = open->first + open->count;
    size_t i = core_range_at(open, open->cursor);
    while (i < open->n && open->ranges[i]->first <= open->cursor) {
        open->cursor = open->ranges[i]->first + open->ranges[i]->count;
        i++;
    }
    if (open->cursor >= end) return NULL;
    uint64_t step = open->job->spec->lease_samples;
    uint64_t stop = open->first + ((open->cursor - open->first) / step + 1) * step;
    if (stop > end) stop = end;
    if (i < open->n && open->ranges[i]->first < stop) stop = open->ranges[i]->first;
    struct work *range = core_range_insert(open, open->cursor, (uint32_t)(stop - open->cursor));
    assert(range != NULL);
    open->cursor = stop;
    core_work_wait(range, false);
    return range;
}

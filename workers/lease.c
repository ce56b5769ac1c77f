/* Position -> sample -> bytes -> cage -> part or batch, with a substitute where a sample cannot be
 * made. While the cage works on one sample the next is read into its other slot, and the last one
 * is stored. */
#include "workers/lease_state.h"

#include "lib/limits.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void read_place(struct sm_lease *l, struct attempt *a, uint32_t i, int slot);
static void read_attempt(struct sm_lease *l, struct attempt *a);
static int go_on(struct sm_lease *l, struct sm_err *err);
static int submit(struct sm_lease *l, struct sm_err *err);
static int store(struct sm_lease *l, const struct attempt *a, const struct sm_engine_result *result,
                 const uint8_t *out, const char *draws, struct sm_err *err);
static int sample_failed(struct sm_lease *l, const struct sm_err *why, struct sm_err *err);
static bool choose_substitute(const struct sm_lease *l, struct attempt *a);
static uint64_t planned_sample(const struct sm_lease *l, uint64_t position);
static int start_batch(struct sm_lease *l, const struct sm_batch_place *batch, struct sm_err *err);
static bool fits_batch(const struct sm_lease *l, const struct sm_engine_result *result,
                       struct sm_err *why);
static void store_in_batch(struct sm_lease *l, const struct attempt *a, const uint8_t *payload);

static int part_open(struct sm_lease *l, struct sm_err *err) {
    const struct sm_lease_job *job = &l->job;
    if (job->fit_state != NULL && job->out_dir[0] == 0) return 0;
    if (job->features == NULL) return sm_part_open(&l->part, job->out_dir, &l->range, err);
    return sm_part_open_rows(&l->part, job->out_dir, &l->range, job->row_format, err);
}

int sm_lease_start(struct sm_lease **gives, const struct sm_lease_job *job,
                   const struct sm_range *range, struct sm_err *err) {
    *gives = NULL;
    assert(range->part.count > 0);
    if (range->batch == NULL)
        assert(range->part.first < sm_plan_positions(&job->plan) &&
               range->part.count <= sm_plan_positions(&job->plan) - range->part.first);
    struct sm_lease *l = calloc(1, sizeof *l);
    if (l == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    l->job = *job;
    l->range = range->part;
    sm_buf_init(&l->json, SM_MAX_DRAWS_BYTES + 8 * SM_MAX_PATH_BYTES);
    l->skip = calloc(range->n_skip + 1, sizeof *l->skip);
    if (l->skip == NULL) {
        sm_lease_free(&l);
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    if (range->n_skip > 0) memcpy(l->skip, range->skip, range->n_skip * sizeof *l->skip);
    l->n_skip = range->n_skip;
    int failed = range->batch != NULL ? start_batch(l, range->batch, err) : part_open(l, err);
    if (!failed && job->features != NULL) failed = lease_rows_start(l, err);
    if (!failed && job->fit_state != NULL) failed = lease_fit_start(l, err);
    if (!failed && job->cage != NULL) {
        read_place(l, &l->now, 0, 0);
        failed = submit(l, err);
    }
    if (failed) {
        sm_lease_free(&l);
        return -1;
    }
    *gives = l;
    return 0;
}

void sm_lease_free(struct sm_lease **lp) {
    struct sm_lease *l = *lp;
    if (l == NULL) return;
    if (l->busy) sm_cage_abandon(l->job.cage);
    sm_part_abandon(&l->part);
    lease_rows_free(l);
    lease_fit_free(l);
    sm_hash_end(&l->hash, NULL);
    sm_buf_release(&l->json);
    free(l->skip);
    free(l->bad);
    free(l);
    *lp = NULL;
}

int sm_lease_fd(const struct sm_lease *l) {
    return l->busy ? sm_cage_fd(l->job.cage) : -1;
}

int sm_lease_wait_ms(const struct sm_lease *l) {
    return l->busy ? sm_cage_wait_ms(l->job.cage) : 0;
}

uint32_t sm_lease_done(const struct sm_lease *l) {
    return l->done;
}

uint64_t sm_lease_position(const struct sm_lease *l) {
    return l->fit != NULL ? lease_fit_row(l) : l->now.position;
}

const struct sm_quarantined *sm_lease_quarantined(const struct sm_lease *l, size_t *n) {
    *n = l->n_bad;
    return l->bad;
}

struct sm_part *sm_lease_take_part(struct sm_lease *l) {
    assert(l->done == l->range.count && l->part != NULL);
    struct sm_part *part = l->part;
    l->part = NULL;
    return part;
}

int sm_lease_step(struct sm_lease *l, struct sm_err *err) {
    if (l->fit != NULL) return lease_fit_step(l, err);
    if (l->job.cage == NULL) return lease_rows_step(l, err);
    if (!l->busy) return l->done == l->range.count ? 1 : 0;
    struct sm_engine_result result;
    const uint8_t *out;
    const char *draws;
    struct sm_err why = {0};
    int made = sm_cage_collect(l->job.cage, &result, &out, &draws, &why);
    if (made == 0) return 0;
    l->busy = false;
    if (made > 0 && (l->batch.memory != NULL || l->rows != NULL) && !fits_batch(l, &result, &why))
        made = -1;
    if (made < 0) return sample_failed(l, &why, err);
    struct attempt was = l->now;
    if (go_on(l, err) != 0 || store(l, &was, &result, out, draws, err) != 0) return -1;
    l->done++;
    if (l->done == l->range.count) return 1;
    /* the slot of the one just stored is free */
    uint32_t ahead = l->now.i + 1;
    if (!l->have_next && ahead < l->range.count) {
        read_place(l, &l->next, ahead, was.slot);
        l->have_next = true;
    }
    return 0;
}

bool lease_is_skipped(const struct sm_lease *l, uint64_t position) {
    for (size_t i = 0; i < l->n_skip; i++)
        if (l->skip[i] == position) return true;
    return false;
}

/* What the plan says for the i-th place of the range, read into a slot. */
static void read_place(struct sm_lease *l, struct attempt *a, uint32_t i, int slot) {
    uint64_t position = l->range.first + i, positions = sm_plan_positions(&l->job.plan);
    bool padding = position >= positions; /* a batch goes on from the start of the epoch's order */
    struct sm_placed place = sm_places_at(l->job.places, &l->job.plan, position % positions);
    *a = (struct attempt){.i = i,
                          .padding = padding,
                          .position = position % positions,
                          .sample = place.sample,
                          .copy = place.copy,
                          .added = place.added,
                          .weight = padding ? 0 : place.weight,
                          .slot = slot};
    a->skipped = lease_is_skipped(l, a->position);
    read_attempt(l, a);
}

static void read_attempt(struct sm_lease *l, struct attempt *a) {
    if (a->skipped) {
        a->failed = sm_fail(&a->err, SM_E_WORKER_DIED, "%s", sm_code_doc(SM_E_WORKER_DIED));
        return;
    }
    struct sm_entry entry = sm_index_entry(l->job.index, a->sample);
    size_t max;
    uint8_t *input = sm_cage_input(l->job.cage, a->slot, &max);
    a->failed = sm_reader_read(l->job.reader, &entry, input, max, &a->err);
}

/* Takes up the place after the present one, if there is one. */
static int go_on(struct sm_lease *l, struct sm_err *err) {
    uint32_t next = l->now.i + 1;
    if (next == l->range.count) return 0;
    if (l->have_next)
        l->now = l->next;
    else
        read_place(l, &l->now, next, 1 - l->now.slot);
    l->have_next = false;
    return submit(l, err);
}

/* Hands the present attempt to the cage. */
static int submit(struct sm_lease *l, struct sm_err *err) {
    struct attempt *a = &l->now;
    if (a->failed) {
        struct sm_err why = a->err;
        return sample_failed(l, &why, err);
    }
    struct sm_engine_request request = {
        .seed = l->job.plan.seed,
        .epoch = l->job.plan.epoch,
        .sample = a->sample,
        .copy = a->copy,
        .added = a->added,
        .original = l->batch.memory == NULL && l->job.pipeline->expand.originals && a->copy == 0,
        .tensor = l->batch.memory != NULL || l->job.features != NULL,
        .n_bytes = sm_index_entry(l->job.index, a->sample).length,
    };
    if (sm_cage_submit(l->job.cage, a->slot, &request, err) != 0) return -1;
    l->busy = true;
    if (l->done == 0 && a->tries == 0 && a->i == 0 &&
        l->range.count > 1) { /* the first: read ahead at once */
        read_place(l, &l->next, 1, 1 - a->slot);
        l->have_next = true;
    }
    return 0;
}

static const char *stage_of(const struct sm_err *why, bool reading) {
    switch (why->code) {
    case SM_E_OP:
        return "ops";
    case SM_E_TIME_LIMIT:
    case SM_E_MEMORY_LIMIT:
    case SM_E_CAGE_DIED:
        return "cage";
    case SM_E_WORKER_DIED:
        return "worker";
    default:
        return reading ? "read" : "decode";
    }
}

/* Cuts a text to n bytes at a border of characters. */
static void cut_text(char *to, size_t to_size, const char *from) {
    size_t n = strlen(from);
    if (n >= to_size) {
        n = to_size - 1;
        while (n > 0 && ((unsigned char)from[n] & 0xc0) == 0x80)
            n--;
    }
    memcpy(to, from, n);
    to[n] = 0;
}

int lease_note_bad(struct sm_lease *l, uint64_t position, uint64_t sample, const char *stage,
                   const struct sm_err *why, struct sm_err *err) {
    if (l->n_bad == l->bad_cap) {
        size_t cap = l->bad_cap * 2 + 8;
        struct sm_quarantined *grown = reallocarray(l->bad, cap, sizeof *grown);
        if (grown == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
        l->bad = grown;
        l->bad_cap = cap;
    }
    struct sm_quarantined *q = &l->bad[l->n_bad++];
    *q = (struct sm_quarantined){.position = position, .sample = sample, .code = why->code};
    snprintf(q->stage, sizeof q->stage, "%s", stage);
    cut_text(q->text, sizeof q->text, why->text[0] != 0 ? why->text : sm_code_doc(why->code));
    return 0;
}

static int fail_naming(const struct sm_lease *l, const struct attempt *a, const struct sm_err *why,
                       struct sm_err *err) {
    struct sm_entry e = sm_index_entry(l->job.index, a->sample);
    return sm_fail(err, why->code, "'%s%s%s': %s", e.file, e.member != NULL ? "!" : "",
                   e.member != NULL ? e.member : "", why->text);
}

/* The present attempt came to nothing: a substitute takes its place, or the lease fails. Loops
 * where substitutes fail already when they are read. */
static int sample_failed(struct sm_lease *l, const struct sm_err *why, struct sm_err *err) {
    struct attempt *a = &l->now;
    struct sm_err reason = *why;
    for (;;) {
        if (!sm_code_charges_sample(reason.code)) {
            if (err != NULL) *err = reason;
            return -1;
        }
        if (l->job.pipeline->source.on_error == SM_ON_ERROR_FAIL)
            return fail_naming(l, a, &reason, err);
        if (a->tries == 0 && !a->padding &&
            lease_note_bad(l, a->position, a->sample, stage_of(&reason, a->failed), &reason, err) !=
                0)
            return -1;
        if (!choose_substitute(l, a))
            return sm_fail(
                err, SM_E_DATASET,
                "no sample was found to fill the place of the bad sample %llu; others were tried %d times, the last failure: %.200s "
                "(hint: is the whole dataset damaged?)",
                (unsigned long long)planned_sample(l, a->position), a->tried, reason.text);
        read_attempt(l, a);
        if (!a->failed) return submit(l, err);
        reason = a->err;
    }
}

static uint64_t planned_sample(const struct sm_lease *l, uint64_t position) {
    return sm_places_at(l->job.places, &l->job.plan, position).sample;
}

/* A sample that is known to kill workers is no substitute. */
static bool kills_workers(const struct sm_lease *l, uint64_t sample) {
    for (size_t i = 0; i < l->n_skip; i++)
        if (l->skip[i] < sm_plan_positions(&l->job.plan) && planned_sample(l, l->skip[i]) == sample)
            return true;
    return false;
}

/* The k-th substitute of a sample (k from 1): first the samples of its class after it, round and
 * round; then all. Only samples of the job's own part of the dataset. */
static bool nth_substitute(const struct sm_lease_job *job, uint64_t original, int k,
                           uint64_t *sample) {
    const int of_class = SM_MAX_SUBSTITUTE_TRIES / 2;
    if (k <= of_class) {
        uint32_t label = sm_index_label(job->index, original);
        uint64_t n = sm_places_class_samples(job->places, label);
        if ((uint64_t)k >= n) return false; /* all of the class have been tried */
        *sample = sm_places_class_sample(
            job->places, label, (sm_index_class_rank(job->index, original) + (uint64_t)k) % n);
    } else {
        uint64_t n = sm_places_part_samples(job->places), step = (uint64_t)(k - of_class);
        if (step >= n) return false;
        *sample = sm_places_part_sample(job->places, (original + step) % n);
    }
    return *sample != original;
}

bool lease_substitute(const struct sm_lease *l, uint64_t original, int *tries, uint64_t *sample) {
    while (++*tries <= SM_MAX_SUBSTITUTE_TRIES)
        if (nth_substitute(&l->job, original, *tries, sample) && !kills_workers(l, *sample))
            return true;
    *tries = SM_MAX_SUBSTITUTE_TRIES;
    return false;
}

/* Moves an attempt on to its next substitute. Its draws are of a copy that the plan never uses, so
 * they differ from those of the substitute's own copies. */
static bool choose_substitute(const struct sm_lease *l, struct attempt *a) {
    struct sm_placed place = sm_places_at(l->job.places, &l->job.plan, a->position);
    if (!lease_substitute(l, place.sample, &a->tries, &a->sample)) return false;
    a->tried++;
    a->copy = place.copy | SUBSTITUTE_COPY;
    a->skipped = false;
    a->failed = 0;
    return true;
}

static void json_source(struct sm_buf *b, const struct sm_entry *e) {
    char name[2 * SM_MAX_PATH_BYTES];
    snprintf(name, sizeof name, "%s%s%s", e->file, e->member != NULL ? "!" : "",
             e->member != NULL ? e->member : "");
    sm_buf_json(b, name);
    if (sm_utf8(name)) return;
    sm_buf_text(b,
                ",\"source_quoted\":\""); /* JSON has no bytes: the name as a URL would hold it */
    sm_buf_quoted(b, name);
    sm_buf_text(b, "\"");
}

/* What KEY.json says of a sample. */
static int describe(struct sm_lease *l, const struct attempt *a, const char *draws, size_t draws_n,
                    struct sm_err *err) {
    struct sm_buf *b = &l->json;
    const struct sm_index *index = l->job.index;
    struct sm_entry e = sm_index_entry(index, a->sample);
    sm_buf_reset(b);
    sm_buf_text(b, "{\"source\":");
    json_source(b, &e);
    sm_buf_text(b, ",\"class\":");
    sm_buf_json(b, sm_index_class(index, e.label));
    sm_buf_printf(b, ",\"copy\":%u,\"epoch\":%u,\"position\":%llu,\"sample\":%llu",
                  a->copy & ~SUBSTITUTE_COPY, l->job.plan.epoch, (unsigned long long)a->position,
                  (unsigned long long)a->sample);
    if (l->job.pipeline->output.weights) {
        sm_buf_text(b, ",\"weight\":");
        sm_buf_float(b, a->weight);
    }
    sm_buf_text(b, ",\"draws\":");
    sm_buf_add(b, draws, draws_n);
    if (a->tries > 0) {
        uint64_t sample = planned_sample(l, a->position);
        struct sm_entry original = sm_index_entry(index, sample);
        sm_buf_printf(
            b, ",\"substitute_for\":{\"sample\":%llu,\"source\":", (unsigned long long)sample);
        json_source(b, &original);
        sm_buf_text(b, "}");
    }
    sm_buf_text(b, "}");
    return b->full ? sm_fail(err, SM_E_MEMORY, "the description of '%s' is too long", e.file) : 0;
}

void lease_note_substitute(struct sm_lease *l, uint64_t position, uint64_t sample) {
    assert(l->n_bad > 0);
    for (size_t i = l->n_bad; i-- > 0;) /* the next place may have failed already */
        if (l->bad[i].position == position) l->bad[i].substitute = sample;
}

static int store(struct sm_lease *l, const struct attempt *a, const struct sm_engine_result *result,
                 const uint8_t *out, const char *draws, struct sm_err *err) {
    char key[24];
    if (a->tries > 0 && !a->padding) {
        lease_note_substitute(l, a->position, a->sample);
    }
    if (l->rows != NULL) return lease_rows_collect(l, a, out, result->n_bytes, err);
    if (l->batch.memory != NULL) {
        store_in_batch(l, a, out + result->n_bytes - sm_batch_sample_bytes(&l->batch.header));
        return 0;
    }
    snprintf(key, sizeof key, "%010llu", (unsigned long long)a->position);
    if (describe(l, a, draws, result->draws_bytes, err) != 0) return -1;
    return sm_part_add(l->part, key, result->extension, out, result->n_bytes,
                       sm_index_label(l->job.index, a->sample), l->json.data, l->json.len, err);
}

/* ---- STEP ---- */

/* The header is void until the batch is whole: a trainer whose session has ended, but who still
 * looks at a batch that lay here, can tell. */
static int start_batch(struct sm_lease *l, const struct sm_batch_place *batch, struct sm_err *err) {
    assert(batch->header.count == l->range.count && batch->header.first == l->range.first &&
           batch->header.tensor == SM_BATCH_HEADER);
    l->batch = *batch;
    l->job.plan.epoch = batch->header.epoch;
    memset(batch->memory, 0, SM_BATCH_HEADER);
    l->hash = sm_hash_new_xxh();
    return l->hash != NULL ? 0 : sm_fail(err, SM_E_MEMORY, "out of memory");
}

/* The cage says what shape it made; a batch, and a row, has one shape, so any other is a lie. */
static bool fits_batch(const struct sm_lease *l, const struct sm_engine_result *result,
                       struct sm_err *why) {
    const struct sm_batch_header *h = &l->batch.header;
    bool fits = strcmp(result->extension, "npy") == 0;
    if (l->rows != NULL) {
        const size_t columns = sm_features_in(l->job.features)->n;
        fits = fits && result->n_bytes >= columns * sizeof(float) &&
               (size_t)result->width * (size_t)result->height * (size_t)result->channels == columns;
    } else {
        fits = fits && result->width == (int)h->width && result->height == (int)h->height &&
               result->channels == (int)h->channels && result->n_bytes >= sm_batch_sample_bytes(h);
    }
    if (!fits)
        sm_fail(why, SM_E_CAGE_DIED, "the cage made a sample of another shape than the batch's");
    return fits;
}

/* Copied out of the cage's memory, so no cage can change a batch any more once it was looked at:
 * that is worth the hundredth of a sample's time that it costs. */
static void store_in_batch(struct sm_lease *l, const struct attempt *a, const uint8_t *payload) {
    const struct sm_batch_header *h = &l->batch.header;
    uint8_t *m = l->batch.memory;
    uint64_t n = sm_batch_sample_bytes(h);
    uint8_t *to = m + h->tensor + n * a->i;
    memcpy(to, payload, n);
    sm_hash_add(l->hash, to, n); /* while it is in the cache */
    ((int64_t *)(m + h->label))[a->i] = sm_index_label(l->job.index, a->sample);
    ((uint64_t *)(m + h->index))[a->i] = a->sample;
    ((uint64_t *)(m + h->position))[a->i] = a->position;
    if (h->weight != 0) ((float *)(void *)(m + h->weight))[a->i] = a->weight;
    m[h->flags + a->i] =
        (uint8_t)((a->padding ? SM_BATCH_PADDING : 0) | (a->tries > 0 ? SM_BATCH_SUBSTITUTE : 0));
}

/* Zeroes what lies between two arrays: bytes of an older batch are nobody's business. */
static void clear_gap(uint8_t *m, uint64_t from, uint64_t to) {
    memset(m + from, 0, to - from);
}

void sm_lease_finish_batch(struct sm_lease *l, char digest[SM_XXH_HEX]) {
    const struct sm_batch_header *h = &l->batch.header;
    struct sm_batch_array arrays[SM_BATCH_ARRAYS];
    const int n = sm_batch_arrays(h, arrays);
    uint8_t *m = l->batch.memory;
    assert(l->done == l->range.count && m != NULL && l->hash != NULL);
    for (int i = 0; i < n; i++) {
        const uint64_t end = arrays[i].offset + arrays[i].bytes;
        if (i > 0) sm_hash_add(l->hash, m + arrays[i].offset, arrays[i].bytes);
        clear_gap(m, end, i + 1 < n ? arrays[i + 1].offset : h->bytes);
    }
    sm_hash_end(&l->hash, digest);
    memcpy(m, h, sizeof *h);
}

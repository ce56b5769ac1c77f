/* The training loop without the training: next, look, hold, release. Before: cli/cmd_read.c. It
 * speaks through client/c/shardmill.h alone, as any other trainer does. */
#include "cli/trainer.h"

#include "cli/drawn.h"
#include "cli/ledger.h"
#include "client/c/shardmill.h"
#include "lib/batch.h"
#include "lib/wire.h"

#include <inttypes.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INFO_BYTES = 65536, DRAWN_BYTES = 16 << 20 };

struct trainer {
    const struct sm_trainer_options *options;
    struct sm_trainer_report *report;
    struct sm_loader *loader;
    struct sm_ledger *ledger;
    char token[SM_TOKEN_BYTES];
    char chain[SM_XXH_HEX];
    uint32_t epoch;
    uint64_t epoch_steps, unsaved;
    struct sm_weights_seen weights;
    char info[INFO_BYTES];
    sm_trainer_epoch *epoch_end;
    void *context;
};

/* The loader that a signal may interrupt. */
static struct sm_loader *volatile running;

static int loader_open(struct trainer *t, struct sm_err *err);
static int batches_read(struct trainer *t, struct sm_err *err);
static int batch_take(struct trainer *t, struct sm_batch_view *view, struct sm_err *err);
static void epoch_close(struct trainer *t);
static void transport_note(struct trainer *t);
static int checkpoint(struct trainer *t, struct sm_err *err);

int sm_trainer_run(const struct sm_trainer_options *options, struct sm_trainer_report *report,
                   sm_trainer_epoch *epoch_end, void (*end)(void *context), void *context,
                   struct sm_err *err) {
    struct trainer *t = calloc(1, sizeof *t);
    if (t == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    *report = (struct sm_trainer_report){0};
    t->options = options;
    t->report = report;
    t->epoch_end = epoch_end;
    t->context = context;
    int r = 0;
    if (options->token != NULL) snprintf(t->token, sizeof t->token, "%s", options->token);
    if (options->ledger != NULL) {
        char last[SM_TOKEN_BYTES];
        r = sm_ledger_open(&t->ledger, options->ledger, last, err);
        if (r == 0 && last[0] != 0) memcpy(t->token, last, sizeof last);
    }
    if (r == 0) r = loader_open(t, err);
    if (r == 0) {
        r = batches_read(t, err);
        if (sm_info(t->loader, t->info, sizeof t->info) >= 0) transport_note(t);
        end(t->context);
    }
    running = NULL;
    sm_close(&t->loader);
    sm_ledger_close(&t->ledger);
    free(t);
    return r;
}

void sm_trainer_interrupt(void) {
    struct sm_loader *loader = running;
    if (loader != NULL) sm_interrupt(loader);
}

static void transport_note(struct trainer *t) {
    json_t *info = json_loads(t->info, 0, NULL);
    const char *text = json_string_value(json_object_get(info, "transport"));
    if (text != NULL) snprintf(t->report->transport, sizeof t->report->transport, "%s", text);
    json_decref(info);
}

static int loader_open(struct trainer *t, struct sm_err *err) {
    const struct sm_trainer_options *o = t->options;
    struct sm_open_options open = {.api_version = SM_API_VERSION,
                                   .broker = o->broker,
                                   .job = o->job,
                                   .rank = o->rank,
                                   .world_size = o->world_size,
                                   .token = t->token[0] != 0 ? t->token : NULL,
                                   .credit_bytes = o->credit_bytes,
                                   .timeout_ms = o->timeout_ms,
                                   .key_dir = o->key_dir,
                                   .transport = o->transport};
    if (sm_open(&t->loader, &open) < 0) return sm_fail(err, SM_E_PEER, "%s", sm_last_error(NULL));
    running = t->loader;
    return 0;
}

static bool enough(const struct trainer *t) {
    const struct sm_trainer_options *o = t->options;
    return (o->steps > 0 && t->report->steps >= o->steps) ||
           (o->epochs > 0 && t->report->epochs >= o->epochs);
}

static int batches_read(struct trainer *t, struct sm_err *err) {
    int64_t start = sm_now_ns();
    int r = 0;
    while (r == 0 && !enough(t)) {
        struct sm_batch_view view;
        int64_t before = sm_now_ns();
        int got = *t->options->stop ? -1 : sm_next(t->loader, &view, t->options->timeout_ms);
        int64_t now = sm_now_ns();
        t->report->elapsed_ns = now - start;
        if (*t->options->stop) {
            r = sm_fail(err, SM_E_CANCELLED, "stopped on request");
        } else if (got == SM_NEXT_BATCH) {
            sm_waits_add(&t->report->waits, now - before);
            r = batch_take(t, &view, err);
            t->report->elapsed_ns = sm_now_ns() - start;
        } else if (got == SM_NEXT_EPOCH_END) {
            epoch_close(t);
        } else if (got == SM_NEXT_JOB_END) {
            break;
        } else {
            r = sm_fail(err, SM_E_PEER, "%s", sm_last_error(t->loader));
        }
    }
    if (r == 0 && t->ledger != NULL && t->unsaved > 0) r = checkpoint(t, err);
    return r;
}

static void line_print(const struct sm_batch_view *v) {
    printf("{\"epoch\":%u,\"step\":%" PRIu64
           ",\"samples\":%u,\"padding\":%u,\"digest\":\"%.32s\"}\n",
           v->epoch, v->step, v->count, v->padding, v->digest);
    fflush(stdout); /* whoever reads the lines sees each when it is made */
}

static void weights_see(struct sm_weights_seen *seen, const struct sm_batch_view *v) {
    for (uint32_t i = 0; i < v->count && v->weight != NULL; i++) {
        const float w = v->weight[i];
        if (v->flags[i] & SM_BATCH_PADDING) continue;
        if (seen->n == 0 || w < seen->least) seen->least = w;
        if (seen->n == 0 || w > seen->most) seen->most = w;
        seen->sum += (double)w;
        seen->n++;
    }
}

static void batch_count(struct trainer *t, const struct sm_batch_view *v) {
    char digest[SM_XXH_HEX];
    snprintf(digest, sizeof digest, "%.32s", v->digest);
    if (t->epoch_steps == 0) {
        t->chain[0] = 0;
        t->weights = (struct sm_weights_seen){0};
    }
    weights_see(&t->weights, v);
    sm_batch_chain(t->chain, digest);
    t->epoch = v->epoch;
    t->epoch_steps++;
    t->report->steps++;
    t->report->samples += v->count;
    t->report->padding += v->padding;
    t->report->bytes += v->data_bytes;
    for (uint32_t i = 0; i < v->count; i++)
        t->report->substitutes += (v->flags[i] & SM_BATCH_SUBSTITUTE) != 0;
}

/* Waits as a step of training would; a stop ends it. */
static void hold(const struct trainer *t) {
    int64_t end = sm_now_ms() + t->options->hold_ms;
    for (int64_t now; (now = sm_now_ms()) < end && !*t->options->stop;)
        poll(NULL, 0, end - now > 100 ? 100 : (int)(end - now));
}

/* Counts, holds and gives back one batch. The ledger's checkpoint comes after the release, as a
 * training loop saves its model after the step. */
static int batch_take(struct trainer *t, struct sm_batch_view *view, struct sm_err *err) {
    batch_count(t, view);
    if (t->options->lines) line_print(view);
    int r = t->ledger != NULL ? sm_ledger_add(t->ledger, view, err) : 0;
    if (t->options->hold_ms > 0) hold(t);
    if (sm_release(t->loader, view) < 0 && r == 0)
        r = sm_fail(err, SM_E_PEER, "%s", sm_last_error(t->loader));
    if (r == 0 && t->ledger != NULL && ++t->unsaved >= t->options->checkpoint)
        r = checkpoint(t, err);
    return r;
}

static void epoch_close(struct trainer *t) {
    t->report->epochs++;
    if (sm_info(t->loader, t->info, sizeof t->info) >= 0) transport_note(t);
    struct sm_buf drawn;
    sm_buf_init(&drawn, DRAWN_BYTES);
    sm_drawn_json(t->loader, &drawn);
    t->epoch_end(t->context, t->epoch, t->epoch_steps, t->chain, t->info,
                 drawn.full || drawn.data == NULL ? "[]" : drawn.data, &t->weights);
    sm_buf_release(&drawn);
    t->epoch_steps = 0;
}

static int checkpoint(struct trainer *t, struct sm_err *err) {
    if (sm_state(t->loader, t->token, sizeof t->token) < 0)
        return sm_fail(err, SM_E_PEER, "%s", sm_last_error(t->loader));
    if (sm_ledger_checkpoint(t->ledger, t->token, err) < 0) return -1;
    t->unsaved = 0;
    if (t->options->commit && sm_commit(t->loader, t->token, t->options->timeout_ms) < 0)
        return sm_fail(err, SM_E_PEER, "%s", sm_last_error(t->loader));
    return 0;
}

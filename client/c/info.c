/* What a loader tells about itself: its facts as JSON, and the sentence that says who waits for
 * whom. Under the lock; api.c asks. */
#include "client/c/loader.h"

#include "lib/buf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void add_audit(struct sm_buf *b, const struct audit *a) {
    sm_buf_printf(b,
                  "{\"epoch\":%" PRIu32 ",\"steps\":%" PRIu64 ",\"planned\":%" PRIu64
                  ",\"delivered\":%" PRIu64 ",\"padded\":%" PRIu64 ",\"dropped\":%" PRIu64
                  ",\"quarantined\":%" PRIu64 ",\"digest\":\"%s\"",
                  a->epoch, a->steps, a->planned, a->delivered, a->padded, a->dropped,
                  a->substituted, a->digest);
    if (a->broker_said)
        sm_buf_printf(b, ",\"broker_agrees\":%s,\"broker_quarantined\":%" PRIu64,
                      a->broker_agrees ? "true" : "false", a->quarantined);
    sm_buf_text(b, "}");
}

static void add_text(struct sm_buf *b, const char *name, const char *text) {
    sm_buf_printf(b, ",\"%s\":", name);
    sm_buf_json(b, text);
}

static uint64_t window(const struct sm_loader *l) {
    if (l->batch_bytes == 0) return 1;
    uint64_t n = l->credit / l->batch_bytes;
    return n > 0 ? n : 1;
}

int sm_loader_info(struct sm_loader *l, char *json, size_t n) {
    static const char *const types[] = {"uint8", "float32", "float16", "bfloat16", "float64"};
    static const char *const weights[] = {"by_class", "by_sample", "in_batches"};
    static const char *const layouts[LAYOUTS] = {"NCHW", "NHWC", "ROWS"};
    const struct loader_counts *c = &l->counts;
    struct sm_buf b;
    sm_buf_init(&b, 1 << 16);
    sm_buf_text(&b, "{\"version\":");
    sm_buf_json(&b, SM_VERSION);
    add_text(&b, "job", l->job_id);
    add_text(&b, "name", l->job);
    add_text(&b, "broker", l->broker);
    add_text(&b, "pipeline_digest", l->pipeline_digest);
    add_text(&b, "dataset_digest", l->dataset_digest);
    sm_buf_printf(&b,
                  ",\"seed\":%" PRIu64 ",\"rank\":%u,\"world_size\":%u,\"epochs\":%u"
                  ",\"epoch\":%u,\"position\":%" PRIu64 ",\"positions\":%" PRIu64
                  ",\"steps_per_epoch\":%" PRIu64 ",\"batch_size\":%u,\"batch_bytes\":%" PRIu64
                  ",\"drop_last\":%s,\"attached\":%s",
                  l->seed, l->rank, l->world_size, l->epochs, l->given.epoch, l->given.position,
                  l->positions, l->steps, l->batch_size, l->batch_bytes,
                  l->drop_last ? "true" : "false", l->state == LOADER_ATTACHED ? "true" : "false");
    if (l->shape[0] != 0) {
        sm_buf_printf(&b, ",\"shape\":[%" PRId64 ",%" PRId64, l->shape[0], l->shape[1]);
        if (l->layout != LAYOUT_ROWS)
            sm_buf_printf(&b, ",%" PRId64 ",%" PRId64, l->shape[2], l->shape[3]);
        sm_buf_printf(&b, "],\"dtype\":\"%s\",\"layout\":\"%s\"", types[l->dtype],
                      layouts[l->layout]);
    }
    if (l->weights < sizeof weights / sizeof *weights) add_text(&b, "weights", weights[l->weights]);
    add_text(&b, "transport",
             l->used_shm && l->used_tcp ? "shm+tcp"
             : l->used_shm              ? "shm"
             : l->used_tcp              ? "tcp"
                                        : "");
    sm_buf_printf(&b,
                  ",\"credit_bytes\":%" PRIu64 ",\"window\":%" PRIu64
                  ",\"held\":%u,\"ready\":%u,\"batches\":%" PRIu64 ",\"bytes\":%" PRIu64
                  ",\"seconds\":%.3f,\"wait_calls\":%" PRIu64 ",\"wait_seconds\":%.6f"
                  ",\"wait_max_seconds\":%.6f",
                  l->credit, window(l), l->held_n, l->ready_n, c->batches, c->bytes,
                  (double)(sm_now_ms() - l->opened_at) / 1e3, c->waits, (double)c->wait_ns / 1e9,
                  (double)c->wait_max_ns / 1e9);
    sm_buf_printf(&b,
                  ",\"dropped\":{\"doubled\":%" PRIu64 ",\"gaps\":%" PRIu64 ",\"stale\":%" PRIu64
                  ",\"garbage\":%" PRIu64 ",\"stray_pieces\":%" PRIu64 "},\"lost\":%" PRIu64
                  ",\"wrong_digests\":%" PRIu64 ",\"attached_times\":%" PRIu64,
                  c->doubled, c->gaps, c->stale, c->garbage, c->pieces_stray, c->lost,
                  c->bad_digest, c->attached);
    if (l->has_committed)
        sm_buf_printf(&b, ",\"committed\":{\"epoch\":%u,\"position\":%" PRIu64 "}",
                      l->committed.epoch, l->committed.position);
    if (l->has_last_audit) {
        sm_buf_text(&b, ",\"audit\":");
        add_audit(&b, &l->last_audit);
    }
    sm_buf_text(&b, ",\"this_epoch\":");
    add_audit(&b, &l->audit);
    char waits[1000];
    sm_loader_waits(l, waits, sizeof waits);
    add_text(&b, "waits_for", l->ready != NULL && l->ready->state == BATCH_READY ? "" : waits);
    sm_buf_text(&b, "}");
    int length = b.full ? -1 : snprintf(json, n, "%s", b.data);
    sm_buf_release(&b);
    return length;
}

void sm_loader_waits(struct sm_loader *l, char *text, size_t n) {
    int64_t now = sm_now_ms();
    if (l->state == LOADER_FAILED) {
        snprintf(text, n, "%s", l->failure.text);
    } else if (l->state == LOADER_ATTACHING && l->refusal[0] != 0) {
        snprintf(text, n, "the trainer waits to attach to job '%s': %s", l->job, l->refusal);
    } else if (l->state == LOADER_ATTACHING) {
        snprintf(text, n,
                 "the trainer waits for the broker at '%s', which has been silent for %.1f s "
                 "(hint: is it running, and is the address right?)",
                 l->broker, (double)(now - l->heard_at) / 1e3);
    } else if (l->ready != NULL && l->ready->pieces != NULL) {
        snprintf(
            text, n,
            "the trainer waits for the worker at '%s': %u of %u pieces of the batch are here%s%s",
            l->ready->endpoint, l->ready->pieces_got, l->ready->pieces_total,
            l->data_refusal[0] != 0 ? ": " : "", l->data_refusal);
    } else if (l->held_n > 0 && l->held_n >= window(l)) {
        snprintf(text, n,
                 "shardmill waits for you: %u batches are not released, and that is all of the "
                 "%" PRIu64 " bytes of credit (hint: release views, or raise credit_bytes)",
                 l->held_n, l->credit);
    } else if (l->waits[0] != 0) {
        snprintf(text, n, "%s", l->waits);
    } else if (l->refusal[0] != 0) {
        snprintf(text, n, "the last batch could not be had: %s", l->refusal);
    } else {
        snprintf(text, n,
                 "the broker at '%s' has not announced the next batch (hint: are there workers? "
                 "shardmill status tells)",
                 l->broker);
    }
}

/* Time, chance and the network of a stream's world: a heap of what happens next, messages that are
 * dropped, doubled and delayed, and so overtake each other, which is more than the transport does:
 * on one connection it keeps their order. Only Attach and Hello are kept in their order here too:
 * they say where a trainer stands and what a worker holds, and of two of them the later counts.
 * Comes before stream.c, which takes what happens out of the heap. */
#include "tests/sim/stream.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void stream_wrong(struct stream_world *w, const char *fmt, ...) {
    va_list ap;
    if (w->wrong[0] != 0) return;
    va_start(ap, fmt);
    vsnprintf(w->wrong, 256, fmt, ap);
    va_end(ap);
}

uint64_t stream_pick(struct stream_world *w, uint64_t n) {
    return (uint64_t)sm_rng_u32(&w->rng) * n >> 32;
}

bool stream_luck(struct stream_world *w, double p) {
    return sm_rng_u32(&w->rng) < p * 4294967296.0;
}

bool stream_troubled(const struct stream_world *w) {
    return w->now < TROUBLE_MS;
}

static bool before(const struct stream_event *a, const struct stream_event *b) {
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

void event_push(struct stream_world *w, struct stream_event e) {
    if (w->n_heap == w->cap_heap) {
        w->cap_heap = w->cap_heap ? 2 * w->cap_heap : 256;
        w->heap = realloc(w->heap, w->cap_heap * sizeof *w->heap);
    }
    e.order = w->order++;
    size_t i = w->n_heap++;
    for (; i > 0 && before(&e, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = e;
}

struct stream_event event_pop(struct stream_world *w) {
    struct stream_event top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < w->n_heap; i = c) {
        if (c + 1 < w->n_heap && before(&w->heap[c + 1], &w->heap[c])) c++;
        if (!before(&w->heap[c], &last)) break;
        w->heap[i] = w->heap[c];
    }
    w->heap[i] = last;
    return top;
}

void event_after(struct stream_world *w, int64_t ms, int kind, uint32_t slot, uint32_t life,
                 uint64_t extra) {
    event_push(w, (struct stream_event){
                      .at = w->now + ms, .kind = kind, .slot = slot, .life = life, .extra = extra});
}

/* Nothing that a peer says, nor its successor, overtakes its Attach or Hello. */
static int64_t in_order(struct stream_world *w, uint32_t slot, Shardmill__Envelope__BodyCase which,
                        int64_t at) {
    if (at < w->in_order[slot]) at = w->in_order[slot];
    if (which == SHARDMILL__ENVELOPE__BODY_ATTACH || which == SHARDMILL__ENVELOPE__BODY_HELLO)
        w->in_order[slot] = at;
    return at;
}

void stream_transmit(struct stream_world *w, int kind, uint32_t slot, uint32_t life,
                     const sm_envelope *e) {
    int times = 1;
    w->stats->messages++;
    if (stream_troubled(w) && stream_luck(w, w->drop)) {
        w->stats->dropped++;
        return;
    }
    if (stream_troubled(w) && stream_luck(w, w->twice)) {
        w->stats->doubled++;
        times = 2;
    }
    for (int i = 0; i < times; i++) {
        size_t n = shardmill__envelope__get_packed_size(e);
        uint8_t *bytes = malloc(n);
        shardmill__envelope__pack(e, bytes);
        int64_t at =
            w->now + 1 +
            (int64_t)stream_pick(w, stream_troubled(w) && stream_luck(w, w->slow) ? 3000 : 20);
        if (kind == TO_CORE) at = in_order(w, slot, e->body_case, at);
        event_push(w,
                   (struct stream_event){
                       .at = at, .kind = kind, .slot = slot, .life = life, .bytes = bytes, .n = n});
    }
}

uint32_t peer_life(const struct stream_world *w, uint32_t slot) {
    return slot < W_MAX ? w->workers[slot].life : w->trainers[slot - W_MAX].life;
}

void peer_say(struct stream_world *w, uint32_t slot, int which, void *body) {
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    e.body_case = (Shardmill__Envelope__BodyCase)which;
    e.hello = body;
    stream_transmit(w, TO_CORE, slot, peer_life(w, slot), &e);
}

/* How fast the broker's core is by itself: simulated workers and trainers, no sockets, no journal.
 * Prints leases per second and the memory in use for plans of 10^3 to 10^9 samples, which must not
 * grow with the plan. */
#include "broker/core.h"
#include "broker/state.h"

#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORKERS = 16, RANKS = 8, WINDOW = 8, LEASES = 200000, BYTES = 1 << 20 };

struct desk {
    struct sm_core *core;
    struct sm_actions now, next; /* being read, being filled */
    uint64_t leases, sessions[RANKS];
};

static void say(struct desk *d, int who, int which, void *body) {
    struct sm_peer peer = {.n = 5, .id = {0, (uint8_t)who}};
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    e.protocol = SM_PROTOCOL;
    e.body_case = (Shardmill__Envelope__BodyCase)which;
    e.hello = body;
    struct sm_event event = {.kind = SM_EVENT_MESSAGE, .peer = &peer, .message = &e};
    sm_core_step(d->core, &event, 1000 + (int64_t)(d->leases / 50), &d->next);
}

static void lease_answer(struct desk *d, int who, const Shardmill__Lease *l) {
    Shardmill__Done done = SHARDMILL__DONE__INIT;
    Shardmill__Ready ready = SHARDMILL__READY__INIT;
    done.job = "job";
    done.kind = l->kind;
    done.attempt = l->attempt;
    done.first = l->first;
    done.count = l->count;
    done.bytes = BYTES;
    done.digest = "0123456789abcdef0123456789abcdef";
    d->leases++;
    say(d, who, SHARDMILL__ENVELOPE__BODY_DONE, &done);
    say(d, who, SHARDMILL__ENVELOPE__BODY_READY, &ready);
}

static void batch_answer(struct desk *d, int who, const Shardmill__Batch *b) {
    Shardmill__Release m = SHARDMILL__RELEASE__INIT;
    m.session = b->session;
    m.epoch = b->epoch;
    m.step = b->step;
    say(d, who, SHARDMILL__ENVELOPE__BODY_RELEASE, &m);
}

static void turn(struct desk *d) {
    struct sm_actions swap = d->now;
    sm_actions_reset(&swap);
    d->now = d->next;
    d->next = swap;
    for (size_t i = 0; i < d->now.n; i++) {
        const struct sm_action *a = &d->now.list[i];
        if (a->kind != SM_ACTION_SEND) continue;
        if (a->message->body_case == SHARDMILL__ENVELOPE__BODY_LEASE)
            lease_answer(d, a->peer->id[1], a->message->lease);
        if (a->message->body_case == SHARDMILL__ENVELOPE__BODY_BATCH)
            batch_answer(d, a->peer->id[1], a->message->batch);
    }
}

static void begin(struct desk *d, uint64_t samples) {
    struct sm_core_options o = {.instance = 7, .incarnation = 1, .heartbeat_ms = 10000};
    memset(d, 0, sizeof *d);
    sm_actions_init(&d->now);
    sm_actions_init(&d->next);
    d->core = sm_core_new(&o, 1000);
    Shardmill__JobSpec spec = SHARDMILL__JOB_SPEC__INIT;
    Shardmill__Submit submit = SHARDMILL__SUBMIT__INIT;
    Shardmill__Hello hello = SHARDMILL__HELLO__INIT;
    Shardmill__Ready ready = SHARDMILL__READY__INIT;
    Shardmill__Attach attach = SHARDMILL__ATTACH__INIT;
    spec.kind = SHARDMILL__JOB_KIND__STREAM;
    spec.samples = samples;
    spec.shuffle = true;
    spec.batch_size = 32;
    spec.batch_bytes = BYTES;
    submit.job = attach.job = "job";
    submit.spec = &spec;
    say(d, 99, SHARDMILL__ENVELOPE__BODY_SUBMIT, &submit);
    hello.name = "w";
    hello.fingerprint = "f";
    hello.batch_memory = (uint64_t)BYTES * 64;
    for (int i = 0; i < WORKERS; i++)
        say(d, i, SHARDMILL__ENVELOPE__BODY_HELLO, &hello);
    attach.world_size = RANKS;
    attach.credit_bytes = (uint64_t)BYTES * WINDOW;
    for (uint32_t r = 0; r < RANKS; r++) {
        char client[16];
        snprintf(client, sizeof client, "c%u", r);
        attach.client = client;
        attach.rank = r;
        say(d, 50 + (int)r, SHARDMILL__ENVELOPE__BODY_ATTACH, &attach);
    }
    for (int i = 0; i < WORKERS; i++)
        say(d, i, SHARDMILL__ENVELOPE__BODY_READY, &ready);
}

int main(void) {
    size_t least = SIZE_MAX, most = 0;
    double slowest = 1e12;
    for (uint64_t samples = 1000; samples <= 1000000000; samples *= 10) {
        struct desk d;
        begin(&d, samples);
        size_t peak = 0;
        int64_t start = sm_now_ns();
        for (int turns = 0; d.leases < LEASES; turns++) {
            uint64_t had = d.leases;
            turn(&d);
            if (turns % 64 == 63 && mallinfo2().uordblks > peak) peak = mallinfo2().uordblks;
            if (d.leases == had && turns > 8 && d.next.n == 0) {
                fprintf(stderr, "broker_leases: nothing moves\n");
                return 1;
            }
        }
        double rate = LEASES / ((double)(sm_now_ns() - start) * 1e-9);
        printf("%10" PRIu64 " samples: %8.0f leases/s, %6.1f KiB in use\n", samples, rate,
               (double)peak / 1024);
        if (rate < slowest) slowest = rate;
        if (peak < least) least = peak;
        if (peak > most) most = peak;
        sm_core_free(&d.core);
        sm_actions_release(&d.now);
        sm_actions_release(&d.next);
    }
    printf(
        "slowest %.0f leases/s (bar: 50000); memory %.2f x from the smallest to the largest plan\n",
        slowest, (double)most / (double)least);
    return slowest < 50000 || most > 2 * least;
}

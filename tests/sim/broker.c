/* The loop around the core, simulated: a journal in memory of which a kill leaves only what was
 * synced, batches that are committed before anything leaves, and kills at each point in between.
 * Structs become messages and back without packing. */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void record_keep(struct world *w, const struct sm_record *r);
static void action_send(struct world *w, const struct sm_action *a);

static struct sm_peer peer_of(uint32_t slot, uint32_t life) {
    struct sm_peer p = {.n = 5, .id = {(uint8_t)slot}};
    memcpy(p.id + 1, &life, 4);
    return p;
}

/* A record with its pointers set again. */
static int kept_load(struct world *w, struct kept *k, struct sm_err *err) {
    Shardmill__Quarantined items[SHARD], *list[SHARD];
    struct sm_record r = k->record;
    for (size_t i = 0; i < r.n_quarantined && i < SHARD; i++) {
        shardmill__quarantined__init(&items[i]);
        items[i].position = k->entries[i].position;
        items[i].code = k->entries[i].code;
        items[i].text = "t";
        list[i] = &items[i];
    }
    r.job = "j";
    r.sha256 = k->sha;
    r.text = k->text;
    r.spec = w->packed;
    r.spec_n = w->packed_n;
    r.quarantined = list;
    return sm_core_load(w->core, &r, err);
}

static char *fingerprint_of(const struct world *w, uint32_t slot) {
    return slot < w->strangers ? "f" : "g";
}

void broker_start(struct world *w) {
    struct sm_err err;
    w->incarnation++; /* in the journal's meta: counted before anything else happens */
    w->instance = w->incarnation * UINT64_C(0x9E3779B97F4A7C15) | 1;
    struct sm_core_options o = {.instance = w->instance,
                                .incarnation = w->incarnation,
                                .heartbeat_ms = BEAT_MS,
                                .lease_ms = LEASE_MS};
    w->core = sm_core_new(&o, w->now);
    w->broker_paused_until = w->now;
    for (size_t i = 0; i < w->n_journal; i++) {
        if (kept_load(w, &w->journal[i], &err) == 0) continue;
        world_violation(w, "the journal does not load: %s", err.text);
        break;
    }
    for (int i = 0; i < ACTORS; i++) {
        w->actors[i].told = w->now;
        w->actors[i].n_singles = 0;
    }
    happen(w, BEAT_MS / 2, BROKER_TICK, 0, w->broker_life, NULL);
}

void broker_kill(struct world *w) {
    if (w->core == NULL) return;
    w->stats->stale += w->core->stale;
    sm_core_free(&w->core);
    sm_actions_reset(&w->actions);
    w->n_journal = w->n_synced;
    w->broker_life++;
    w->flushing = false;
    happen(w, 100 + (int64_t)below(w, 3000), BROKER_START, 0, w->broker_life, NULL);
}

static void step(struct world *w, const struct sm_event *e) {
    sm_core_step(w->core, e, w->now, &w->actions);
    if (w->flushing) return;
    w->flushing = true; /* more may join the batch until then */
    happen(w, chance(w, 0.5) ? 0 : 1, BROKER_FLUSH, 0, w->broker_life, NULL);
}

void broker_accuse(struct world *w, struct actor *a) {
    for (unsigned i = 0; i < a->n_singles; i++)
        w->accused[a->singles[i].position]++;
    a->n_singles = 0;
}

/* A lease belongs to its attempt, not to its position: a worker may be given the position again
 * that it has failed, and then the same Fail once more is no news of the lease that it now has. */
static void single_add(struct world *w, struct actor *a, uint64_t attempt, uint64_t position) {
    for (unsigned i = 0; i < a->n_singles; i++)
        if (a->singles[i].attempt == attempt) return;
    if (a->n_singles == sizeof a->singles / sizeof *a->singles)
        w->accused[position]++; /* rather one too many than a false alarm */
    else
        a->singles[a->n_singles++] = (struct single){attempt, position};
}

static void single_remove(struct actor *a, uint64_t attempt) {
    unsigned n = 0;
    for (unsigned i = 0; i < a->n_singles; i++)
        if (a->singles[i].attempt != attempt) a->singles[n++] = a->singles[i];
    a->n_singles = n;
}

static void single_hold(struct world *w, struct actor *a, bool now, uint64_t attempt,
                        uint64_t position) {
    if (now)
        single_add(w, a, attempt, position);
    else
        w->accused[position]++; /* of a life that has ended; the broker will find out */
}

void broker_tick(struct world *w) {
    for (int i = 0; i < WORKERS; i++)
        if (w->now - w->actors[i].told > SM_LIVENESS * BEAT_MS) broker_accuse(w, &w->actors[i]);
    step(w, &(struct sm_event){.kind = SM_EVENT_TICK});
    happen(w, BEAT_MS / 2, BROKER_TICK, 0, w->broker_life, NULL);
}

/* Commit, then send: with a chance to die before, between and after. */
void broker_flush(struct world *w) {
    bool kill_before = world_chaotic(w) && chance(w, 0.002),
         kill_between = world_chaotic(w) && chance(w, 0.002);
    w->flushing = false;
    size_t n = w->actions.n;
    if (kill_before) {
        w->stats->kills[KILL_BROKER]++;
        broker_kill(w);
        return;
    }
    if (PLANTED(ack_before_journal))
        w->n_synced = w->n_journal; /* this batch reaches the disk with the next one */
    for (size_t i = 0; i < n; i++)
        if (w->actions.list[i].kind == SM_ACTION_PERSIST)
            record_keep(w, &w->actions.list[i].record);
    if (!PLANTED(ack_before_journal)) w->n_synced = w->n_journal;
    uint64_t gone[ACTORS];
    int n_gone = 0;
    for (size_t i = 0; i < n && !kill_between; i++) {
        const struct sm_action *a = &w->actions.list[i];
        if (a->kind != SM_ACTION_SEND) continue;
        uint32_t slot = a->peer->id[0], life;
        memcpy(&life, a->peer->id + 1, 4);
        const struct actor *to = &w->actors[slot];
        if (to->alive && to->life == life) {
            action_send(w, a);
            continue;
        }
        bool lease = a->message->body_case == SHARDMILL__ENVELOPE__BODY_LEASE;
        if (lease && a->message->lease->kind == SHARDMILL__LEASE_KIND__RANGE &&
            a->message->lease->count == 1)
            w->accused[a->message->lease->first]++; /* it is dead and never knew */
        if (slot < WORKERS && n_gone < ACTORS && chance(w, 0.5))
            gone[n_gone++] = (uint64_t)life << 8 | slot;
    }
    sm_actions_reset(&w->actions);
    if (kill_between) {
        w->stats->kills[KILL_BROKER]++;
        broker_kill(w);
    }
    for (int i = 0; i < n_gone && w->core != NULL; i++) {
        struct sm_peer peer = peer_of((uint32_t)(gone[i] & 255), (uint32_t)(gone[i] >> 8));
        broker_accuse(w, &w->actors[gone[i] & 255]);
        step(w, &(struct sm_event){.kind = SM_EVENT_GONE, .peer = &peer});
    }
}

/* --- the journal ----------------------------------------------------------------------------- */

static void record_keep(struct world *w, const struct sm_record *r) {
    if (w->n_journal == w->cap_journal) {
        w->cap_journal = w->cap_journal ? 2 * w->cap_journal : 256;
        struct kept *grown = calloc(w->cap_journal, sizeof *grown);
        if (w->n_journal > 0) memcpy(grown, w->journal, w->n_journal * sizeof *grown);
        free(w->journal);
        w->journal = grown;
    }
    struct kept *k = &w->journal[w->n_journal++];
    memset(k, 0, sizeof *k);
    k->record = *r;
    for (size_t i = 0; i < r->n_quarantined && i < SHARD; i++)
        k->entries[i] = (struct entry){r->quarantined[i]->position, r->quarantined[i]->code};
    if (r->sha256 != NULL) snprintf(k->sha, sizeof k->sha, "%s", r->sha256);
    if (r->text != NULL) snprintf(k->text, sizeof k->text, "%s", r->text);
    if (r->kind == SM_RECORD_FINGERPRINT)
        snprintf(w->fingerprint, sizeof w->fingerprint, "%s", r->text);
    if (r->kind == SM_RECORD_REMAKE) {
        w->stats->remade++;
        if (!(w->tampered >> r->shard & 1))
            world_violation(w, "shard %d is made again although no part was missing",
                            (int)r->shard);
        uint64_t first = sm_plan_shard_first(&w->plan, r->shard);
        for (uint64_t p = first; p < first + sm_plan_shard_count(&w->plan, r->shard); p++)
            w->acked[p] = false;
    }
}

/* --- messages -------------------------------------------------------------------------------- */

static uint64_t sha_read(const char *hex) {
    uint64_t v = 0;
    sscanf(hex, "%16" SCNx64, &v);
    return v;
}

static void sha_write(uint64_t v, char hex[SM_SHA_HEX]) {
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 64; i++)
        hex[i] = digits[v >> (60 - 4 * (i % 16)) & 15];
    hex[64] = 0;
}

static struct given *given_at(struct world *w, uint64_t attempt) {
    return &w->given[(attempt + (attempt >> 32) * 211) % ATTEMPTS];
}

static void holding_fill(Shardmill__Holding *h, const struct msg *m) {
    shardmill__holding__init(h);
    h->job = "j";
    h->kind = m->ahead_kind, h->attempt = m->ahead_attempt, h->shard = m->ahead_shard;
    h->first = m->ahead_first, h->count = m->ahead_count, h->generation = m->ahead_generation;
}

void broker_receive(struct world *w, uint32_t slot, uint32_t life, const struct msg *m) {
    struct sm_peer peer = peer_of(slot, life);
    char sha[SM_SHA_HEX];
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    union {
        Shardmill__Hello hello;
        Shardmill__Heartbeat heartbeat;
        Shardmill__Ready ready;
        Shardmill__Progress progress;
        Shardmill__Done done;
        Shardmill__Fail fail;
        Shardmill__Submit submit;
        Shardmill__JobStatusGet status;
        Shardmill__ResultsGet results;
        Shardmill__Cancel cancel;
    } b;
    Shardmill__Holding holding = SHARDMILL__HOLDING__INIT, ahead, *holdings[] = {&holding, &ahead};
    Shardmill__Quarantined list[SHARD], *pointers[SHARD];
    e.protocol = SM_PROTOCOL;
    e.body_case = m->which;
    e.hello = (void *)&b;
    struct actor *a = &w->actors[slot];
    bool now = a->life == life;
    if (now) a->told = w->now;
    switch (m->which) {
    case SHARDMILL__ENVELOPE__BODY_HELLO:
        shardmill__hello__init(&b.hello);
        b.hello.name = "w";
        b.hello.fingerprint = fingerprint_of(w, slot);
        if (now) a->n_singles = 0; /* it says all that it holds: the rest goes back */
        if (!m->holding) break;
        holding.job = "j";
        holding.kind = m->kind, holding.attempt = m->attempt, holding.shard = m->shard;
        holding.first = m->first, holding.count = m->count, holding.generation = m->generation;
        b.hello.holding = holdings;
        b.hello.n_holding = 1;
        if (m->ahead_attempt != 0) holding_fill(holdings[b.hello.n_holding++], m);
        if (m->ahead_attempt != 0 && m->ahead_kind == SHARDMILL__LEASE_KIND__RANGE &&
            m->ahead_count == 1)
            single_hold(w, a, now, m->ahead_attempt, m->ahead_first);
        if (m->kind == SHARDMILL__LEASE_KIND__RANGE && m->count == 1)
            single_hold(w, a, now, m->attempt, m->first);
        break;
    case SHARDMILL__ENVELOPE__BODY_HEARTBEAT:
        shardmill__heartbeat__init(&b.heartbeat);
        break;
    case SHARDMILL__ENVELOPE__BODY_READY:
        shardmill__ready__init(&b.ready);
        break;
    case SHARDMILL__ENVELOPE__BODY_PROGRESS:
        shardmill__progress__init(&b.progress);
        b.progress.job = "j";
        b.progress.attempt = m->attempt, b.progress.done = m->done, b.progress.position = m->first;
        break;
    case SHARDMILL__ENVELOPE__BODY_DONE:
        shardmill__done__init(&b.done);
        b.done.job = "j";
        b.done.kind = m->kind, b.done.attempt = m->attempt, b.done.shard = m->shard,
        b.done.first = m->first;
        b.done.count = m->count, b.done.generation = m->generation, b.done.bytes = m->bytes;
        sha_write(m->sha, sha);
        b.done.sha256 = sha;
        for (uint32_t i = 0; i < m->n; i++) {
            pointers[i] = &list[i];
            shardmill__quarantined__init(&list[i]);
            list[i].position = m->entries[i].position;
            list[i].code = m->entries[i].code;
            list[i].text = "t";
        }
        b.done.quarantined = pointers;
        b.done.n_quarantined = m->n;
        if (now) single_remove(a, m->attempt);
        break;
    case SHARDMILL__ENVELOPE__BODY_FAIL:
        shardmill__fail__init(&b.fail);
        b.fail.job = "j";
        b.fail.kind = m->kind, b.fail.attempt = m->attempt, b.fail.code = m->code;
        b.fail.text = "it failed";
        given_at(w, m->attempt)->failed = true;
        if (now) single_remove(a, m->attempt);
        break;
    case SHARDMILL__ENVELOPE__BODY_SUBMIT:
        shardmill__submit__init(&b.submit);
        b.submit.job = "j";
        b.submit.spec = &w->spec;
        break;
    case SHARDMILL__ENVELOPE__BODY_JOB_STATUS_GET:
        shardmill__job_status_get__init(&b.status);
        b.status.job = "j";
        break;
    case SHARDMILL__ENVELOPE__BODY_RESULTS_GET:
        shardmill__results_get__init(&b.results);
        b.results.job = "j";
        b.results.shard = m->shard;
        break;
    case SHARDMILL__ENVELOPE__BODY_CANCEL:
        shardmill__cancel__init(&b.cancel);
        b.cancel.job = "j";
        break;
    default:
        world_violation(w, "a message that nobody sends");
        return;
    }
    step(w, &(struct sm_event){.kind = SM_EVENT_MESSAGE, .peer = &peer, .message = &e});
}

static void lease_note(struct world *w, struct actor *to, const Shardmill__Lease *l) {
    *given_at(w, l->attempt) =
        (struct given){l->attempt, l->shard, l->first, l->count, l->kind, false};
    if (strcmp(w->fingerprint, fingerprint_of(w, (uint32_t)(to - w->actors))) != 0)
        world_violation(w, "a lease of a job of '%s' is given to a worker with another fingerprint",
                        w->fingerprint);
    if (l->kind == SHARDMILL__LEASE_KIND__SEAL) return;
    if (l->count == 1) single_add(w, to, l->attempt, l->first);
    for (uint64_t p = l->first; p < l->first + l->count; p++)
        if (w->acked[p])
            world_violation(w, "position %d was acknowledged and is given out again", (int)p);
}

static void ack_note(struct world *w, const Shardmill__Ack *a) {
    const struct given *g = given_at(w, a->attempt);
    if (!a->wanted || g->attempt != a->attempt || g->failed ||
        g->kind == SHARDMILL__LEASE_KIND__SEAL)
        return;
    for (uint64_t p = g->first; p < g->first + g->count; p++)
        w->acked[p] = true;
}

static void results_copy(struct msg *m, const Shardmill__Results *r) {
    m->next = r->next;
    m->end = r->end;
    for (size_t i = 0; i < r->n_shards && i < 2; i++) {
        const Shardmill__ShardRecord *s = r->shards[i];
        struct shard_row *row = &m->rows[m->n++];
        *row = (struct shard_row){
            .shard = s->shard, .samples = s->samples, .sha = sha_read(s->sha256)};
        for (size_t k = 0; k < s->n_quarantined && k < SHARD; k++)
            row->entries[row->n++] =
                (struct entry){s->quarantined[k]->position, s->quarantined[k]->code};
    }
}

static void lease_copy(struct msg *m, const Shardmill__Lease *l) {
    m->attempt = l->attempt, m->kind = l->kind, m->shard = l->shard;
    m->first = l->first, m->count = l->count, m->generation = l->generation;
    for (size_t i = 0; i < l->n_skip && i < SHARD; i++)
        m->skip[m->n++] = l->skip[i];
    for (size_t i = 0; i < l->n_parts && i < SHARD; i++)
        m->parts[m->n++] =
            (struct part_row){l->parts[i]->first, l->parts[i]->count, l->parts[i]->generation};
}

static void action_send(struct world *w, const struct sm_action *a) {
    const sm_envelope *e = a->message;
    struct msg m;
    memset(&m, 0, offsetof(struct msg, skip));
    m.which = e->body_case;
    m.instance = e->instance;
    switch (e->body_case) {
    case SHARDMILL__ENVELOPE__BODY_LEASE:
        lease_note(w, &w->actors[a->peer->id[0]], e->lease);
        lease_copy(&m, e->lease);
        break;
    case SHARDMILL__ENVELOPE__BODY_ACK:
        ack_note(w, e->ack);
        m.attempt = e->ack->attempt;
        m.wanted = e->ack->wanted;
        break;
    case SHARDMILL__ENVELOPE__BODY_REVOKE:
        m.attempt = e->revoke->attempt;
        break;
    case SHARDMILL__ENVELOPE__BODY_REFUSED:
        m.code = e->refused->code;
        break;
    case SHARDMILL__ENVELOPE__BODY_JOB_STATUS:
        m.state = e->job_status->state;
        break;
    case SHARDMILL__ENVELOPE__BODY_RESULTS:
        results_copy(&m, e->results);
        break;
    default:
        break;
    }
    uint32_t slot = a->peer->id[0];
    happen(w, -1, TO_ACTOR, slot, w->actors[slot].life, &m);
}

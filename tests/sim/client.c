/* The one who wants the shards: submits, watches, submits again what failed, collects page by page.
 * It dies too, and then starts from nothing but the job's name. */
#include "tests/sim/sim.h"

static void say(struct world *w, int which) {
    struct msg m = {.which = (Shardmill__Envelope__BodyCase)which,
                    .shard = w->actors[CLIENT].client.cursor};
    actor_send(w, CLIENT, &m);
}

void client_start(struct world *w) {
    w->actors[CLIENT].client = (struct client_sim){0};
    client_timer(w);
}

void client_timer(struct world *w) {
    struct client_sim *c = &w->actors[CLIENT].client;
    if (c->state == FINISHED) return;
    happen(w, 700, ACTOR_TIMER, CLIENT, w->actors[CLIENT].life, NULL);
    switch (c->state) {
    case SUBMITTING:
        say(w, SHARDMILL__ENVELOPE__BODY_SUBMIT);
        break;
    case WATCHING:
        if (world_chaotic(w) && chance(w, w->fault / 4)) say(w, SHARDMILL__ENVELOPE__BODY_CANCEL);
        say(w, SHARDMILL__ENVELOPE__BODY_JOB_STATUS_GET);
        break;
    default:
        say(w, SHARDMILL__ENVELOPE__BODY_RESULTS_GET);
    }
}

static void page_take(struct world *w, const struct msg *m) {
    struct client_sim *c = &w->actors[CLIENT].client;
    for (uint32_t i = 0; i < m->n; i++) {
        if (m->rows[i].shard < c->cursor) continue; /* of a page that has been taken */
        if (c->n == SHARDS) {
            world_violation(w, "more shards are reported than planned");
            return;
        }
        c->rows[c->n++] = m->rows[i];
    }
    if (m->next > c->cursor) c->cursor = m->next;
    if (m->end)
        c->state = FINISHED;
    else
        say(w, SHARDMILL__ENVELOPE__BODY_RESULTS_GET);
}

void client_receive(struct world *w, const struct msg *m) {
    struct client_sim *c = &w->actors[CLIENT].client;
    switch (m->which) {
    case SHARDMILL__ENVELOPE__BODY_ACCEPTED:
        if (c->state == SUBMITTING) c->state = WATCHING;
        break;
    case SHARDMILL__ENVELOPE__BODY_JOB_STATUS:
        if (c->state != WATCHING) break;
        if (m->state == SHARDMILL__JOB_STATE__COMPLETE) {
            c->state = COLLECTING;
            say(w, SHARDMILL__ENVELOPE__BODY_RESULTS_GET);
        } else if (m->state != SHARDMILL__JOB_STATE__RUNNING) {
            c->state = SUBMITTING;
        }
        break;
    case SHARDMILL__ENVELOPE__BODY_RESULTS:
        if (c->state == COLLECTING) page_take(w, m);
        break;
    case SHARDMILL__ENVELOPE__BODY_REFUSED:
        if (m->code == SM_E_MISSING &&
            c->state != SUBMITTING) /* accepted is journaled: it cannot be unknown */
            world_violation(w, "an accepted job is unknown");
        break;
    default:
        break;
    }
}

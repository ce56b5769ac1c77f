/* One DEALER, one question at a time. Comes before: a command that wants something of a broker. */
#include "cli/client.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

enum { ASK_AGAIN_MS = 1000, PATIENCE_MS = 30000 };

struct sm_client {
    void *context, *socket;
    const volatile sig_atomic_t *stop;
    char endpoint[256];
};

int sm_client_new(struct sm_client **gives, const char *endpoint, const volatile sig_atomic_t *stop,
                  struct sm_err *err) {
    struct sm_client *c = calloc(1, sizeof *c);
    if (c == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    c->stop = stop;
    snprintf(c->endpoint, sizeof c->endpoint, "%s", endpoint);
    c->context = zmq_ctx_new();
    if (c->context == NULL || sm_wire_connect(c->context, endpoint, &c->socket, err) < 0) {
        if (c->context == NULL) sm_fail_errno(err, "cannot make a ZeroMQ context");
        sm_client_free(&c);
        return -1;
    }
    *gives = c;
    return 0;
}

void sm_client_free(struct sm_client **cp) {
    struct sm_client *c = *cp;
    if (c == NULL) return;
    if (c->socket != NULL) zmq_close(c->socket);
    if (c->context != NULL) zmq_ctx_term(c->context);
    free(c);
    *cp = NULL;
}

/* 1: the answer is there; 0: something else came or nothing did. */
static int look(struct sm_client *c, Shardmill__Envelope__BodyCase want, sm_envelope **answer,
                struct sm_err *err) {
    sm_envelope *m = NULL;
    int got;
    while ((got = sm_wire_receive(c->socket, NULL, &m, err)) != 0) {
        if (got < 0) continue; /* garbage from a broker: dropped, the deadline speaks */
        if (m->body_case == want) {
            *answer = m;
            return 1;
        }
        if (m->body_case == SHARDMILL__ENVELOPE__BODY_REFUSED) {
            sm_fail(err, (enum sm_code)m->refused->code, "%s", m->refused->text);
            sm_wire_free(&m);
            return -1;
        }
        sm_wire_free(&m);
    }
    return 0;
}

int sm_client_ask(struct sm_client *c, const sm_envelope *request,
                  Shardmill__Envelope__BodyCase want, int64_t patience_ms, sm_envelope **answer,
                  struct sm_err *err) {
    int64_t start = sm_now_ms(), again = start;
    for (;;) {
        int64_t now = sm_now_ms();
        if (c->stop != NULL && *c->stop) return sm_fail(err, SM_E_CANCELLED, "stopped on request");
        if (now - start >= patience_ms)
            return sm_fail(err, SM_E_PEER,
                           "no answer from the broker at '%s' for %.0f s (hint: is it running? "
                           "`shardmill status --broker %s`)",
                           c->endpoint, (double)(now - start) / 1000, c->endpoint);
        if (now >= again) {
            if (sm_wire_send(c->socket, NULL, request, err) < 0) return -1;
            again = now + ASK_AGAIN_MS;
        }
        zmq_pollitem_t item = {.socket = c->socket, .events = ZMQ_POLLIN};
        if (zmq_poll(&item, 1, 50) < 0 && errno != EINTR)
            return sm_fail_errno(err, "cannot wait for the broker at '%s'", c->endpoint);
        int got = look(c, want, answer, err);
        if (got != 0) return got < 0 ? -1 : 0;
    }
}

int sm_client_job(struct sm_client *c, char *job, int64_t patience_ms, sm_envelope **answer,
                  struct sm_err *err) {
    Shardmill__JobStatusGet get = SHARDMILL__JOB_STATUS_GET__INIT;
    get.job = job;
    sm_envelope m = SHARDMILL__ENVELOPE__INIT;
    m.protocol = SM_PROTOCOL;
    m.body_case = SHARDMILL__ENVELOPE__BODY_JOB_STATUS_GET;
    m.job_status_get = &get;
    return sm_client_ask(c, &m, SHARDMILL__ENVELOPE__BODY_JOB_STATUS, patience_ms, answer, err);
}

int sm_client_cancel(struct sm_client *c, char *job, struct sm_err *err) {
    Shardmill__Cancel cancel = SHARDMILL__CANCEL__INIT;
    cancel.job = job;
    sm_envelope m = SHARDMILL__ENVELOPE__INIT, *answer = NULL;
    m.protocol = SM_PROTOCOL;
    m.body_case = SHARDMILL__ENVELOPE__BODY_CANCEL;
    m.cancel = &cancel;
    const volatile sig_atomic_t *stop = c->stop;
    c->stop = NULL; /* this is what a stopped command still has to say */
    int r = sm_client_ask(c, &m, SHARDMILL__ENVELOPE__BODY_JOB_STATUS, ASK_AGAIN_MS, &answer, err);
    c->stop = stop;
    if (r == 0) sm_wire_free(&answer);
    return r;
}

int sm_client_results(struct sm_client *c, char *job,
                      int (*each)(void *context, const Shardmill__ShardRecord *record,
                                  struct sm_err *err),
                      void *context, struct sm_err *err) {
    Shardmill__ResultsGet get = SHARDMILL__RESULTS_GET__INIT;
    get.job = job;
    sm_envelope m = SHARDMILL__ENVELOPE__INIT;
    m.protocol = SM_PROTOCOL;
    m.body_case = SHARDMILL__ENVELOPE__BODY_RESULTS_GET;
    m.results_get = &get;
    for (bool end = false; !end;) {
        sm_envelope *answer = NULL;
        if (sm_client_ask(c, &m, SHARDMILL__ENVELOPE__BODY_RESULTS, PATIENCE_MS, &answer, err) < 0)
            return -1;
        const Shardmill__Results *page = answer->results;
        int r = 0;
        /* a doubled answer to an earlier question starts before the cursor: it is passed over */
        const Shardmill__ShardRecord *head = page->n_shards ? page->shards[0] : NULL;
        bool ours = head == NULL || head->shard > get.shard ||
                    (head->shard == get.shard &&
                     (get.position == 0 ||
                      (head->n_quarantined > 0 && head->quarantined[0]->position >= get.position)));
        for (size_t i = 0; ours && i < page->n_shards && r == 0; i++)
            r = each(context, page->shards[i], err);
        end = ours && page->end;
        if (ours) {
            get.shard = page->next;
            get.position = page->next_position;
        }
        sm_wire_free(&answer);
        if (r < 0) return -1;
    }
    return 0;
}

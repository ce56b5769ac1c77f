/* One DEALER, one question at a time. Comes before: a command that wants something of a broker. */
#include "cli/client.h"

#include "lib/param.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { ASK_AGAIN_MS = 1000, PATIENCE_MS = 30000 };

struct sm_client {
    void *context, *socket;
    struct sm_watch *watch;
    const volatile sig_atomic_t *stop;
    char endpoint[256];
};

static int client_connect(struct sm_client *c, struct sm_err *err) {
    struct sm_keys *keys = NULL;
    if (sm_keys_load(NULL, &keys, err) < 0) return -1;
    const struct sm_wire_security security = {.keys = keys, .watch = &c->watch};
    int r = sm_wire_connect_with(c->context, c->endpoint, &security, &c->socket, err);
    sm_keys_free(&keys); /* the socket has its own copy */
    return r;
}

int sm_client_new(struct sm_client **gives, const char *endpoint, const volatile sig_atomic_t *stop,
                  struct sm_err *err) {
    struct sm_client *c = calloc(1, sizeof *c);
    if (c == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    c->stop = stop;
    snprintf(c->endpoint, sizeof c->endpoint, "%s", endpoint);
    c->context = zmq_ctx_new();
    if (c->context == NULL || client_connect(c, err) < 0) {
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
    sm_watch_free(&c->watch);
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
        if (sm_watch_hopeless(c->watch, err)) return -1;
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

int sm_client_submit(struct sm_client *c, char *job, Shardmill__JobSpec *spec, int64_t patience_ms,
                     struct sm_err *err) {
    Shardmill__Submit submit = SHARDMILL__SUBMIT__INIT;
    submit.job = job;
    submit.spec = spec;
    sm_envelope m = SHARDMILL__ENVELOPE__INIT, *answer = NULL;
    m.protocol = SM_PROTOCOL;
    m.body_case = SHARDMILL__ENVELOPE__BODY_SUBMIT;
    m.submit = &submit;
    int r = sm_client_ask(c, &m, SHARDMILL__ENVELOPE__BODY_ACCEPTED, patience_ms, &answer, err);
    if (r == 0) sm_wire_free(&answer);
    return r;
}

int sm_client_status(struct sm_client *c, int64_t patience_ms, sm_envelope **answer,
                     struct sm_err *err) {
    Shardmill__StatusGet get = SHARDMILL__STATUS_GET__INIT;
    sm_envelope m = SHARDMILL__ENVELOPE__INIT;
    m.protocol = SM_PROTOCOL;
    m.body_case = SHARDMILL__ENVELOPE__BODY_STATUS_GET;
    m.status_get = &get;
    return sm_client_ask(c, &m, SHARDMILL__ENVELOPE__BODY_STATUS, patience_ms, answer, err);
}

static int fail_no_job(const Shardmill__Status *s, const char *name, struct sm_err *err) {
    const char **names = calloc(s->n_jobs + 1, sizeof *names);
    if (names == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t i = 0; i < s->n_jobs; i++)
        names[i] = s->jobs[i]->name[0] ? s->jobs[i]->name : s->jobs[i]->job;
    const char *near = sm_nearest(name, names, s->n_jobs);
    sm_fail(err, SM_E_MISSING, "no job '%.100s' at this broker (hint: %s%s%s)", name,
            near != NULL ? "did you mean '" : "`shardmill jobs` lists them",
            near != NULL ? near : "", near != NULL ? "'?" : "");
    free(names);
    return -1;
}

int sm_client_find(struct sm_client *c, const char *name, int64_t patience_ms,
                   char id[SM_MAX_JOB_ID_BYTES + 1], struct sm_err *err) {
    sm_envelope *answer = NULL;
    if (sm_client_status(c, patience_ms, &answer, err) < 0) return -1;
    const Shardmill__Status *s = answer->status;
    const Shardmill__JobStatus *found = NULL;
    unsigned running = 0;
    for (size_t i = 0; i < s->n_jobs; i++) {
        const Shardmill__JobStatus *j = s->jobs[i];
        bool runs = j->state == SHARDMILL__JOB_STATE__RUNNING;
        if (strcmp(j->job, name) == 0) { /* an id is never ambiguous */
            found = j;
            running = 1;
            break;
        }
        if (strcmp(j->name, name) != 0) continue;
        running += runs;
        if (found == NULL || runs) found = j;
    }
    int r = 0;
    if (found == NULL)
        r = fail_no_job(s, name, err);
    else if (running > 1)
        r = sm_fail(err, SM_E_USAGE,
                    "%u running jobs have the name '%.100s' (hint: give the id that `shardmill "
                    "jobs` shows)",
                    running, name);
    else
        snprintf(id, SM_MAX_JOB_ID_BYTES + 1, "%s", found->job);
    sm_wire_free(&answer);
    return r;
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
    int r = sm_client_ask(c, &m, SHARDMILL__ENVELOPE__BODY_ACCEPTED, ASK_AGAIN_MS, &answer, err);
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

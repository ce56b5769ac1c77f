/* Asks a broker for a job again and again. Before: expand.c and fit_rounds.c have made the job and
 * handed over what it needs. After: they take its results. */
#include "cli/await.h"

#include "lib/wire.h"

#include <poll.h>
#include <stdio.h>

enum {
    ASK_MS = 500, /* one look at the job; children are tended in between */
    SAY_MS = 5000,
    BROKER_SILENT_MS = 60000,
};

/* Asks until the broker has answered or will not. spec: submits it; NULL: gives the job's status.
 */
static int ask(const struct sm_await *w, char *job, Shardmill__JobSpec *spec, sm_envelope **status,
               struct sm_err *err) {
    const int64_t start = sm_now_ms();
    for (int64_t said = start;;) {
        if (w->stop != NULL && *w->stop) return sm_fail(err, SM_E_CANCELLED, "stopped on request");
        if (w->embedded != NULL && sm_embedded_tend(w->embedded, err) < 0) return -1;
        int r = spec != NULL ? sm_client_submit(w->client, job, spec, ASK_MS, err)
                             : sm_client_job(w->client, job, ASK_MS, status, err);
        if (r == 0 || err->code != SM_E_PEER) return r;
        const int64_t now = sm_now_ms();
        if (now - start > BROKER_SILENT_MS) return -1;
        if (now - said > SAY_MS && !w->quiet) {
            fprintf(stderr, "shardmill: waits for the broker at '%s' since %d s\n",
                    w->broker != NULL ? w->broker : "its own", (int)((now - start) / 1000));
            said = now;
        }
    }
}

/* 1: complete; 0: goes on; -1: failed. */
static int look(const struct sm_await *w, char *job, struct sm_err *err) {
    sm_envelope *answer = NULL;
    if (ask(w, job, NULL, &answer, err) < 0) return -1;
    const Shardmill__JobStatus *s = answer->job_status;
    int r = w->told(w->context, s, err);
    if (r == 0 && s->state == SHARDMILL__JOB_STATE__COMPLETE)
        r = 1;
    else if (r == 0 && s->state == SHARDMILL__JOB_STATE__FAILED)
        r = sm_fail(err, (enum sm_code)s->code, "%s", s->text);
    else if (r == 0 && s->state == SHARDMILL__JOB_STATE__CANCELLED)
        r = sm_fail(err, SM_E_CANCELLED, "the job was cancelled at the broker");
    sm_wire_free(&answer);
    return r;
}

int sm_await_job(const struct sm_await *w, char *job, Shardmill__JobSpec *spec,
                 struct sm_err *err) {
    int r = ask(w, job, spec, NULL, err);
    if (r == 0)
        while ((r = look(w, job, err)) == 0)
            poll(NULL, 0, w->poll_ms);
    if (r < 0 && err->code == SM_E_CANCELLED && w->broker != NULL)
        sm_client_cancel(w->client, job, NULL);
    return r < 0 ? -1 : 0;
}

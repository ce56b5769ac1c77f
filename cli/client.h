/* A client of the broker, for commands: asks, waits with a deadline, asks again (every request may
 * be repeated), and says who did not answer. */
#pragma once

#include "lib/err.h"
#include "lib/limits.h"
#include "lib/wire.h"

#include <signal.h>
#include <stdint.h>

/* Where a broker is, when nothing else is said. */
#define SM_BROKER_ENDPOINT "tcp://127.0.0.1:5570"

struct sm_client;

/* Connects (without waiting), with the keys that SHARDMILL_KEYS names (cli.h). stop (may be NULL)
 * ends every wait. Gives. */
int sm_client_new(struct sm_client **gives, const char *endpoint, const volatile sig_atomic_t *stop,
                  struct sm_err *err);
void sm_client_free(struct sm_client **c);

/* Sends a request and waits for the answer of type `want` (a body case of the envelope); other
 * messages are dropped, Refused becomes the error. Gives *answer (sm_wire_free). SM_E_PEER when
 * patience_ms is over, SM_E_CANCELLED on stop. */
int sm_client_ask(struct sm_client *c, const sm_envelope *request,
                  Shardmill__Envelope__BodyCase want, int64_t patience_ms, sm_envelope **answer,
                  struct sm_err *err);

/* Submits a job; the same one again is no new job. */
int sm_client_submit(struct sm_client *c, char *job, Shardmill__JobSpec *spec, int64_t patience_ms,
                     struct sm_err *err);
/* Gives the envelope that holds the Status: all jobs and workers. */
int sm_client_status(struct sm_client *c, int64_t patience_ms, sm_envelope **answer,
                     struct sm_err *err);
/* Fills id with that of the job which has this id, or whose name it is: of several of one name the
 * one that runs. SM_E_MISSING names the nearest. */
int sm_client_find(struct sm_client *c, const char *name, int64_t patience_ms,
                   char id[SM_MAX_JOB_ID_BYTES + 1], struct sm_err *err);
/* Gives the envelope that holds the JobStatus. */
int sm_client_job(struct sm_client *c, char *job, int64_t patience_ms, sm_envelope **answer,
                  struct sm_err *err);
int sm_client_cancel(struct sm_client *c, char *job, struct sm_err *err);
/* Calls each for every sealed shard of the job, in order; for a shard with a long list of
 * quarantined positions again with the next part of the list. */
int sm_client_results(struct sm_client *c, char *job,
                      int (*each)(void *context, const Shardmill__ShardRecord *record,
                                  struct sm_err *err),
                      void *context, struct sm_err *err);

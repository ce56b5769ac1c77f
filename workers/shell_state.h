/* The worker's loop as its files see it: shell.c runs what is due, shell_say.c speaks to the
 * broker, shell_hear.c takes in what it says. Only they include it. */
#pragma once

#include "workers/shell.h"

#include "lib/handover.h"
#include "lib/limits.h"
#include "lib/wire.h"
#include "workers/batches.h"
#include "workers/data.h"
#include "workers/disk.h"
#include "workers/job.h"

enum {
    HELD_MAX = 4,         /* leases: in work, next, and told but not acknowledged */
    JOBS_MAX = 2,         /* kept ready; each has a cage */
    TELL_AGAIN_MS = 1000, /* a result or question without an answer is sent again */
    PROGRESS_MS = 200,
    BACKOFF_MS = 250,
    BACKOFF_MAX_MS = 5000,
    POLL_MAX_MS = 250, /* how long a signal may go unseen when it comes just before the poll */
    ROOM_MS = 200,     /* a batch waits so long for memory before its lease goes back */
    STOP_MS = 600,     /* for the disk, of the second that a stop may take */
    KEPT_BEATS =
        10, /* heartbeats after which the broker is asked whether a batch is still wanted */
};

enum held_state {
    HELD_FREE,
    HELD_WAITING,
    HELD_MAKING,
    HELD_STORING, /* the disk has it */
    HELD_PUTTING, /* the broker is being sent its partial */
    HELD_TOLD
};

/* A lease from its arrival to the Ack of its result. */
struct held {
    enum held_state state;
    sm_envelope *message; /* owns the lease */
    const Shardmill__Lease *m;
    uint64_t order; /* of arrival */
    struct sm_lease *lease;
    struct sm_quarantined *bad;
    size_t n_bad;
    uint32_t cages;
    bool revoked; /* wanted no more, but the disk has it yet */
    int64_t told_ms;
    int failed;
    struct sm_err err;
    uint64_t bytes;
    char sha256[SM_SHA_HEX];
    uint64_t offset; /* STEP: of its slot */
    char digest[SM_XXH_HEX];
    void *partial;      /* PUTTING: of `bytes`, named sha256 */
    uint64_t put;       /* so many of them the broker has */
    int64_t put_ms;     /* when a piece was last sent */
    int64_t no_room_ms; /* since when it has waited for batch memory; 0: it has not */
};

struct worker {
    const struct sm_worker_options *options;
    struct sm_job_options job_options;
    void *context, *socket;
    struct sm_watch *watch; /* handshakes with the broker */
    bool trouble_told;
    struct sm_disk *disk;
    struct sm_batches *batches;
    struct sm_data *data;
    char name[128], host[SM_HANDOVER_HOST];
    struct held held[HELD_MAX];
    uint64_t arrivals;
    struct sm_job *jobs[JOBS_MAX];
    uint64_t job_clock;
    bool welcome, ready_told;
    uint32_t heartbeat_ms, liveness;
    int64_t heard_ms, said_ms, connected_ms, progress_ms;
    int backoff_ms;
    uint32_t progress_done;
    uint64_t progress_position;
    uint64_t cages_before; /* replaced cages that were reported already */
};

/* shell_say.c */
void shell_send(struct worker *w, sm_envelope *e, Shardmill__Envelope__BodyCase which);
#define SEND(w, field, which, body)                                   \
    do {                                                              \
        sm_envelope envelope_ = SHARDMILL__ENVELOPE__INIT;            \
        envelope_.field = (body);                                     \
        shell_send(w, &envelope_, SHARDMILL__ENVELOPE__BODY_##which); \
    } while (0)
void shell_trouble_tell(struct worker *w);
int shell_connect_broker(struct worker *w, struct sm_err *err);
void shell_say_hello(struct worker *w);
void shell_tell_fail(struct worker *w, const struct held *h);
void shell_tell(struct worker *w, struct held *h);
void shell_fail_held(struct worker *w, struct held *h, const struct sm_err *err);
void shell_release(struct held *h);
void shell_give_up(struct worker *w, struct held *h);

/* shell_put.c */
/* Takes the partial of a lease whose job has no folder. */
void shell_put_begin(struct worker *w, struct held *h, void *partial, size_t n);
/* Says again what has had no answer for long. */
void shell_put_tick(struct worker *w, int64_t now);
void shell_put_kept(struct worker *w, const Shardmill__FileKept *m);

/* shell_hear.c */
void shell_receive(struct worker *w);
struct held *shell_find_attempt(struct worker *w, const char *job, uint64_t attempt);

/* shell.c */
struct held *shell_find_state(struct worker *w, enum held_state state);
struct sm_job *shell_find_job(struct worker *w, const char *id);

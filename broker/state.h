/* Every struct of the core. A job is cut into work on demand: ranges of positions that become
 * parts, and seals that join a shard's parts. Work that is out is held by leases; a lease belongs
 * to one worker. Nothing is kept per position, so memory follows what is open, not the size of the
 * plan. */
#pragma once

#include "broker/core.h"
#include "lib/digest.h"
#include "lib/limits.h"
#include "lib/plan.h"
#include "lib/steps.h"

/* Bugs that only the simulator's build can switch on, to prove that it would find them. */
#ifdef SM_SIM
#define SM_PLANTS(X)         \
    X(no_lease_expiry)       \
    X(ack_before_journal)    \
    X(record_replayed_twice) \
    X(gap_accepted)          \
    X(old_attempt_accepted)  \
    X(death_forgotten)       \
    X(fingerprint_ignored)   \
    X(part_missing_ignored)  \
    X(retry_lost)            \
    X(bystander_charged)     \
    X(failure_charged)       \
    X(step_skipped)          \
    X(commit_before_journal) \
    X(old_session_accepted)  \
    X(credit_kept)           \
    X(free_before_release)   \
    X(dead_batch_offered)    \
    X(rank_twice)            \
    X(grid_ignored)          \
    X(left_run_kept)         \
    X(charged_twice)         \
    X(silent_freed)
enum {
    PLANT_none,
#define X(name) PLANT_##name,
    SM_PLANTS(X)
#undef X
        PLANT_count
};
extern int sm_planted;
#define PLANTED(name) (sm_planted == PLANT_##name)
#else
#define PLANTED(name) 0
#endif

struct job;
struct open_shard;
struct worker;

/* Quarantined positions of a part or shard: one block of memory that free() takes as a whole. */
struct quarantined {
    Shardmill__Quarantined **items; /* in order of position */
    size_t n;
};

enum work_state {
    WORK_WAITING, /* in the job's list */
    WORK_LEASED,  /* at least one lease is live */
    WORK_DONE,    /* a range: journaled; a step: its batch lies at a worker */
};

struct work_list {
    struct work *head, *tail;
};

/* A range to be made, the seal of a shard, or the batch of a step. */
struct work {
    Shardmill__LeaseKind kind;
    enum work_state state;
    struct job *job;
    struct open_shard *open; /* of ranges and seals */
    struct batch *batch;     /* of steps */
    uint64_t first;          /* position; of a seal the shard's first */
    uint32_t count, generation;
    uint32_t deaths, failures;
    int64_t not_before;       /* back-off */
    char *failure;            /* text of the last one; owned */
    struct lease *leases;     /* live and late ones */
    struct work *prev, *next; /* among the job's waiting work */
    /* of a DONE range: */
    uint64_t bytes;
    char sha256[SM_SHA_HEX];
    struct quarantined quarantined;
};

struct lease {
    uint64_t attempt;
    struct work *work;
    struct worker *worker;
    int64_t started, deadline, renewed;
    uint32_t done;     /* samples, as last told */
    uint64_t position; /* in work, as last told */
    bool begun;        /* progress has been told: it is in work, not only held in advance */
    bool late; /* its deadline passed: the work may be another's, but a result is still welcome */
    struct lease *next_of_work, *next_of_worker;
};

/* A shard of which something is made but which is not sealed. */
struct open_shard {
    struct job *job;
    uint64_t ordinal; /* in the job's slice */
    uint64_t number, first, count;
    struct work **ranges; /* sorted, without overlap; what lies between is not cut yet */
    size_t n, cap;
    uint64_t cursor; /* all before this position is cut */
    uint64_t done;   /* positions */
    struct work seal;
    bool sealing; /* all ranges are DONE and the seal is work */
    struct open_shard *prev, *next;
};

/* One entry for each shard of the slice; untouched memory until it is opened. */
struct shard {
    struct open_shard *open;
    bool sealed;
    uint8_t stale; /* seals of it that did not fit its parts */
    uint8_t sha256[32];
    uint64_t bytes;
    struct quarantined quarantined;
};

/* A position that killed its workers. */
struct poison {
    uint64_t position, fence; /* attempts up to this one are refused */
};

/* A sample at which workers died, not yet often enough. */
struct suspect {
    uint64_t sample;
    uint32_t deaths;
};

/* One rank's batch of one step: from its cut until the trainer releases it. */
struct batch {
    struct work work;
    struct session *session;
    uint32_t epoch, padding;
    uint64_t step, position; /* position: global, behind the step */
    bool told;               /* the trainer has heard of it at least once */
    /* of a DONE one: */
    struct worker *holder;
    uint64_t attempt, offset, bytes;
    char digest[SM_XXH_HEX]; /* stays when it must be made again */
    uint32_t generation;
    uint64_t rival;       /* the attempt that was at it too when it was made; 0: none */
    uint32_t substituted; /* of its positions, padding not counted */
    int64_t said;
    const struct worker *avoid; /* from which it could not be had; only compared */
    int64_t avoid_until;
    struct batch *prev, *next;           /* of the session, in order of steps */
    struct batch *prev_held, *next_held; /* of the holder */
};

/* What became of one epoch of a session. */
struct audit {
    uint32_t epoch;
    uint64_t steps, released, planned, delivered, padded, dropped, quarantined;
    int64_t said;
    struct audit *next; /* later epoch */
};

/* A made batch that is on offer no more but that a trainer may be reading: it is from before the
 * broker's restart or of an earlier session, or its worker or trainer was taken for dead. Should
 * that worker come back, the memory stays until the trainer releases it. */
struct orphan {
    uint64_t attempt, bytes;
    struct worker *worker;   /* NULL: taken for dead */
    struct session *session; /* that may be reading it; NULL: not known yet */
    bool named;              /* Release names it by its attempt, else by epoch and step */
    uint32_t epoch;
    uint64_t step;
    char *job;
    int64_t deadline;
    struct orphan *next;
};

/* One rank's right to a job. */
struct session {
    uint64_t id;
    struct job *job;
    struct sm_peer peer;
    char *client, *host;
    uint32_t rank, world_size;
    uint64_t credit;
    uint32_t serial; /* of the Attach that made it, which may be said again */
    uint64_t run;    /* the number of the one that it belongs to */
    uint32_t start_epoch;
    uint64_t start_position;
    bool gone;   /* its connection is no more; another client may take the rank */
    bool spoken; /* the trainer has named this session: it heard of it */
    int64_t heard, beat, attached_said;
    uint32_t cut_epoch; /* next to be cut; at spec->epochs: nothing is left */
    uint64_t cut_step, cut_steps;
    struct batch *head, *tail; /* open ones */
    unsigned n_open;
    struct work_list waiting;
    struct audit *audits; /* oldest first */
    uint32_t done_epoch;  /* behind everything that was released */
    uint64_t done_position;
    bool committed; /* the journal has what follows; else it is only where the session began */
    uint32_t committed_epoch;
    uint64_t committed_position;
    uint64_t delivered;
    int64_t moved, waits_said;   /* last new batch or release */
    struct session *prev, *next; /* all sessions, next to be served first */
    struct session *next_of_job, *next_of_bucket;
};

/* Where a world of trainers began, and what its ranks have committed since. */
struct run {
    uint64_t number;     /* counts runs, so that a session knows whether its own is still on */
    uint32_t world_size; /* 0: there was none yet */
    uint32_t epoch;
    uint64_t position;
    struct commit {
        bool set;
        uint32_t epoch;
        uint64_t position;
    } * commits; /* world_size of them */
};

enum { DURATIONS = 31, SUSPECTS = 32, WINDOW_MAX = 1024 };

struct job {
    char *id;
    Shardmill__JobSpec *spec;
    struct sm_plan plan;
    uint64_t n_shards, planned; /* of the slice */
    struct shard *shards;
    struct open_shard *opens;       /* those with ->open, in no order */
    uint64_t cursor;                /* shards before this one are wholly cut or sealed */
    struct work_list ranges, seals; /* that wait; retries come before new cuts */
    Shardmill__JobState state;
    uint32_t code;
    char *text;
    char *fingerprint;      /* NULL before the first lease */
    struct poison *poisons; /* sorted by position */
    size_t n_poisons;
    uint64_t made, sealed, quarantined, leases_lost, cages;
    uint32_t n_leases;             /* that are live */
    uint32_t durations[DURATIONS]; /* microseconds a sample, of the last ranges */
    uint32_t n_durations;          /* ever */
    unsigned slot;                 /* its bit in worker.told */
    /* STREAM */
    struct session *sessions;
    struct run run;
    struct suspect suspects[SUSPECTS]; /* most often blamed last */
    unsigned n_suspects;
    struct job *next; /* in order of submission */
};

struct worker {
    struct sm_peer peer;
    char *name, *fingerprint;
    uint32_t heartbeat_ms;
    int64_t heard, beat; /* last heard from; next heartbeat to it */
    bool ready;          /* room for one more lease */
    bool
        excused; /* a lease was revoked since it last told progress: it may have been at that one */
    struct lease *leases;
    unsigned n_leases;
    uint8_t told[SM_MAX_JOBS / 8]; /* jobs of which it knows that the fingerprint differs */
    char *host, *fd_socket, *data_endpoint, *data_public_key;
    uint64_t batch_memory, batch_used; /* bytes; used by leases, batches and orphans */
    unsigned slots_used;               /* how many those are */
    struct batch *held;
    uint64_t made; /* samples of finished leases, for Status */
    struct worker *next_of_bucket;
    struct worker *prev, *next; /* all workers, oldest first */
};

enum { BUCKETS = 256, ACTIONS_SOFT_BYTES = 4 << 20 };

struct sm_core {
    struct sm_core_options options;
    int64_t started, now, ticked, checked;
    uint32_t attempts; /* given in this incarnation */
    struct job *jobs;
    unsigned n_jobs;
    uint8_t slots[SM_MAX_JOBS / 8];
    struct worker *workers, *workers_tail;
    unsigned n_workers, n_ready;
    struct worker *buckets[BUCKETS];
    uint64_t dropped, stale, refused;
    struct session *sessions, *sessions_tail;
    unsigned n_sessions;
    uint32_t sessions_made; /* in this incarnation */
    struct session *session_buckets[BUCKETS];
    struct orphan *orphans;
    uint64_t batch_memory; /* of all workers */
    bool expand_first;     /* whose turn it is when both kinds have work */
    bool work_added; /* something waits that did not before: hand it out at the end of the step */
    struct sm_actions *out; /* of the running step */
};

/* Memory for the state. A broker without memory stops; its journal holds all that it has
 * acknowledged. */
void *core_calloc(size_t n, size_t size);
char *core_strdup(const char *s);
/* Copies at most max bytes; what is not printable becomes '?', so that it may go to any terminal.
 */
char *core_clean(const char *s, size_t max);

/* actions.c: memory that lives as long as the actions, and the actions themselves. */
void *core_scratch(struct sm_core *core, size_t n);
char *core_text(struct sm_core *core, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void core_send(struct sm_core *core, const struct sm_peer *peer,
               Shardmill__Envelope__BodyCase which, void *body);
/* path "": the file is only looked for among those that are kept. */
void core_send_file(struct sm_core *core, const struct sm_peer *peer, const struct job *job,
                    const char *digest, const char *path, uint64_t offset);
void core_refuse(struct sm_core *core, const struct sm_peer *peer, enum sm_code code,
                 const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* What is refused is of a job, and with an attempt a result of it: a worker acts on no other. */
void core_refuse_of(struct sm_core *core, const struct sm_peer *peer, const char *job,
                    uint64_t attempt, enum sm_code code, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
/* wait_ms: the reason passes by itself within so long, or 0. */
void core_refuse_for(struct sm_core *core, const struct sm_peer *peer, enum sm_code code,
                     int64_t wait_ms, const char *text);
/* Appends PERSIST and applies the record at once. */
void core_persist(struct sm_core *core, const struct sm_record *record);
/* Declares a message body in the actions' memory. */
#define BODY(core, name, type, init)               \
    type *name = core_scratch(core, sizeof *name); \
    init(name)

/* records.c */
int core_record_apply(struct sm_core *core, const struct sm_record *record, struct sm_err *err);
struct quarantined core_quarantined_copy(Shardmill__Quarantined *const *items, size_t n);

/* plan.c: shards and ranges */
bool core_job_holds(const struct job *job, uint64_t shard, uint64_t *ordinal);
struct open_shard *core_shard_open(struct job *job, uint64_t ordinal);
void core_shard_close(struct open_shard *open);
size_t core_range_at(const struct open_shard *open, uint64_t position);
struct work *core_range_insert(struct open_shard *open, uint64_t first, uint32_t count);
void core_range_remove(struct work *range);
uint32_t core_generation(const struct job *job, uint64_t first, uint32_t count);
uint64_t core_fence(const struct job *job, uint64_t first, uint32_t count);
size_t core_poison_at(const struct job *job, uint64_t position);
void core_work_wait(struct work *work, bool front);
void core_work_unwait(struct work *work);
struct work *core_work_next(struct sm_core *core, struct job *job);
void core_shard_check(struct open_shard *open);
/* The digest of a sealed one as text. */
void core_hex_bytes(const char *hex, uint8_t *out, size_t n);
void core_shard_sha(const struct shard *shard, char hex[SM_SHA_HEX]);

/* leases.c */
struct lease *core_lease_new(struct sm_core *core, struct work *work, struct worker *worker,
                             uint64_t attempt);
struct lease *core_lease_find(struct worker *worker, uint64_t attempt);
bool core_work_live(const struct work *work);
void core_lease_drop(struct sm_core *core, struct lease *lease);
void core_leases_revoke(struct sm_core *core, struct work *work, const struct worker *except);
void core_lease_died(struct sm_core *core, struct lease *lease, bool charged);
void core_lease_renew(struct sm_core *core, struct lease *lease);
void core_leases_expire(struct sm_core *core);
void core_assign(struct sm_core *core);
/* Also tells the worker, once, when it does not. */
bool core_fingerprint_fits(struct sm_core *core, struct job *job, struct worker *worker);

/* workers.c */
struct worker *core_worker_find(struct sm_core *core, const struct sm_peer *peer);
void core_worker_free(struct sm_core *core, struct worker *worker);
void core_worker_dies(struct sm_core *core, struct worker *worker);
void core_on_hello(struct sm_core *core, const struct sm_peer *peer, const Shardmill__Hello *m);
void core_on_ready(struct sm_core *core, struct worker *worker);
void core_on_bye(struct sm_core *core, struct worker *worker);
void core_workers_tick(struct sm_core *core);

/* runs.c: where trainers begin */
void core_run_set(struct job *job, uint32_t world_size, uint32_t epoch, uint64_t position);
/* Where this Attach begins; persists a new run and the rank's commit where needed. false: refused.
 */
bool core_run_enter(struct sm_core *core, struct job *job, const struct sm_peer *peer,
                    const Shardmill__Attach *m, uint32_t *epoch, uint64_t *position);
struct sm_steps core_steps(const struct session *s, uint32_t epoch);

/* sessions.c */
struct session *core_session_of(struct sm_core *core, const struct sm_peer *peer);
bool core_session_heard(struct sm_core *core, const struct sm_peer *peer);
void core_session_gone(struct sm_core *core, const struct sm_peer *peer);
/* Until when it counts as gone, should its trainer be dead; and a message that finds out. */
int64_t core_session_gone_in_ms(const struct sm_core *core, const struct session *s);
void core_session_probe(struct sm_core *core, const struct session *s);
void core_session_end(struct sm_core *core, struct session *s, bool quiet);
void core_sessions_stop(struct sm_core *core, struct job *job, uint32_t code, const char *text);
void core_sessions_tick(struct sm_core *core);
void core_on_attach(struct sm_core *core, const struct sm_peer *peer, const Shardmill__Attach *m);
void core_on_trainer(struct sm_core *core, const struct sm_peer *peer, const sm_envelope *e);

/* stream.c */
/* So many bytes of a worker's memory are taken by one more batch, or given back. */
void core_room_take(struct worker *w, uint64_t bytes);
void core_room_give(struct worker *w, uint64_t bytes);
void core_cursor_begin(struct sm_core *core, struct session *s);
unsigned core_window(const struct sm_core *core, const struct session *s);
uint64_t core_step_bytes(const struct job *job);
void core_step_wait(struct work *work);
struct work *core_step_next(struct sm_core *core, struct worker *worker);
struct work *core_step_straggler(struct sm_core *core, struct worker *worker);
size_t core_step_skip(const struct batch *batch, uint64_t *fills);
void core_step_charge(struct sm_core *core, struct work *work, uint64_t position);
void core_step_done(struct sm_core *core, struct worker *worker, struct job *job,
                    const Shardmill__Done *m);
void core_batch_free(struct sm_core *core, struct batch *batch, bool quiet);
void core_batch_say(struct sm_core *core, struct batch *batch);
void core_batch_hold(struct batch *b, struct worker *worker);
void core_batch_unhold(struct sm_core *core, struct batch *b, bool tell);
void core_free_say(struct sm_core *core, const struct worker *worker, const char *job,
                   uint64_t attempt);
void core_on_release(struct sm_core *core, struct session *s, const Shardmill__Release *m);
void core_on_lost(struct sm_core *core, struct session *s, const Shardmill__Lost *m);
void core_epoch_end_say(struct sm_core *core, struct session *s, struct audit *a);

/* orphans.c */
struct orphan *core_orphan_find(struct sm_core *core, const struct worker *worker,
                                uint64_t attempt);
struct batch *core_held_find(const struct worker *worker, uint64_t attempt);
struct orphan *core_orphan_of(struct sm_core *core, struct batch *batch);
void core_batches_leave(struct sm_core *core, struct session *s);
void core_batches_remake(struct sm_core *core, struct worker *worker);
void core_holdings_adopt(struct sm_core *core, struct worker *worker, const Shardmill__Hello *m);
bool core_holding_kept(struct sm_core *core, const struct worker *worker, uint64_t attempt);
void core_orphan_free(struct sm_core *core, struct orphan *orphan, bool tell);
void core_orphans_part(struct sm_core *core, const struct worker *worker);

/* waits.c */
char *core_waits_job(struct sm_core *core, const struct job *job);
char *core_waits_session(struct sm_core *core, const struct session *s);

/* results.c */
void core_work_retry(struct sm_core *core, struct lease *lease, uint32_t code, const char *text);
void core_duration_add(struct sm_core *core, struct job *job, const struct lease *lease);
uint32_t core_duration_median(const struct job *job);
void core_ack(struct sm_core *core, struct worker *worker, const char *job, uint64_t attempt,
              bool wanted);
void core_on_progress(struct sm_core *core, struct worker *worker, const Shardmill__Progress *m);
void core_on_done(struct sm_core *core, struct worker *worker, const Shardmill__Done *m);
void core_on_fail(struct sm_core *core, struct worker *worker, const Shardmill__Fail *m);

/* jobs.c */
struct job *core_job_find(struct sm_core *core, const char *id);
struct job *core_job_asked(struct sm_core *core, const struct sm_peer *peer, const char *id);
/* Takes the spec. */
struct job *core_job_new(struct sm_core *core, const char *id, Shardmill__JobSpec *spec);
void core_job_free(struct sm_core *core, struct job *job);
struct job *core_job_named(struct sm_core *core, const char *name, unsigned *fitting);
void core_job_stop(struct sm_core *core, struct job *job);
void core_job_fail(struct sm_core *core, struct job *job, uint32_t code, const char *text);
void core_on_submit(struct sm_core *core, const struct sm_peer *peer, const Shardmill__Submit *m);
void core_on_cancel(struct sm_core *core, const struct sm_peer *peer, const Shardmill__Cancel *m);
void core_on_job_get(struct sm_core *core, const struct sm_peer *peer, const Shardmill__JobGet *m);

/* job_files.c */
/* Whether the broker carries the state and the partials of a fit's round, which has no folder. */
bool core_spec_is_carried(const Shardmill__JobSpec *spec);
void core_on_file_get(struct sm_core *core, const struct sm_peer *peer,
                      const Shardmill__FileGet *m);

/* status.c */
void core_on_job_status_get(struct sm_core *core, const struct sm_peer *peer,
                            const Shardmill__JobStatusGet *m);
void core_on_results_get(struct sm_core *core, const struct sm_peer *peer,
                         const Shardmill__ResultsGet *m);
void core_on_status_get(struct sm_core *core, const struct sm_peer *peer);

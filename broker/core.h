/* The broker's core: step(state, event, now) -> actions. No socket, no clock, no file: the loop
 * (loop.c) and the simulator (tests/sim) drive the same code. Events come from the wire; the loop
 * first makes all PERSIST actions of a batch durable in one transaction, and only then lets its
 * SEND actions leave. */
#pragma once

#include "lib/arena.h"
#include "lib/err.h"
#include "lib/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    SM_LIVENESS = 3,          /* a peer silent for so many heartbeats is dead */
    SM_HEARTBEAT_MS = 1000,   /* default */
    SM_HEARTBEAT_MIN_MS = 50, /* what a worker may ask for at least */
    SM_HEARTBEAT_MAX_MS = 10000,
    SM_LEASE_MS = 30000,    /* default: without progress for so long, a lease is another's too */
    SM_RANGE_DEATHS = 2,    /* deaths after which a range is split into single samples */
    SM_SINGLE_DEATHS = 3,   /* deaths after which a single sample is quarantined */
    SM_SKIPPED_DEATHS = 10, /* over a stream's sample that is skipped already: the job ends */
    SM_RETRIES = 3,         /* failures of the machine's fault that a lease may have */
    SM_RETRY_MS = 1000,     /* the first pause before a retry; doubled each time */
    SM_REPEAT_MS = 1000,    /* a trainer is told again of what it has not released */
    SM_WAITS_MS = 3000, /* a trainer without a new batch for so long is told what it waits for */
    SM_ORPHAN_MS =
        30000, /* batches from before a restart, until a trainer says that it holds them */
};

/* What must survive the broker: facts, each small. Replaying them in order (or table by table, as
 * journal.c stores them) into a new core gives the same state. If you add a kind:
 * core_record_apply, journal.c (write and load), its schema version, the simulator's copy. */
enum sm_record_kind {
    SM_RECORD_JOB,         /* job, spec, spec_n: it is known and RUNNING */
    SM_RECORD_STATE,       /* job, state, code, text */
    SM_RECORD_FINGERPRINT, /* job, text */
    SM_RECORD_DONE,   /* job, shard, first, count, generation, bytes, sha256, cages, quarantined */
    SM_RECORD_SEALED, /* job, shard, bytes, sha256, quarantined; replaces the shard's DONE records
                       */
    SM_RECORD_REMAKE, /* job, shard: its DONE records no longer hold */
    SM_RECORD_QUARANTINE, /* job, position, attempt: results of that attempt and older are refused
                           */
    SM_RECORD_FORGET,     /* job: everything about it */
    SM_RECORD_RUN,    /* job, world_size, epoch, position: trainers began there; no commits yet */
    SM_RECORD_COMMIT, /* job, rank, epoch, position: it is in the rank's checkpoint */
};

/* All pointers are lent until the actions are reset. */
struct sm_record {
    enum sm_record_kind kind;
    const char *job;
    const uint8_t *spec; /* a packed JobSpec */
    size_t spec_n;
    Shardmill__JobState state;
    uint32_t code;
    const char *text;
    uint64_t shard, first;
    uint32_t count, generation;
    uint64_t bytes;
    const char *sha256; /* 64 hex digits */
    uint32_t cages;
    Shardmill__Quarantined **quarantined; /* in order of position */
    size_t n_quarantined;
    uint64_t position, attempt;
    uint32_t rank, world_size, epoch;
};

enum sm_action_kind {
    SM_ACTION_SEND,    /* message to peer */
    SM_ACTION_PERSIST, /* record */
    SM_ACTION_FILE,    /* send the file of file_digest from offset on to peer as FileChunk of job:
                          the one that is kept (files.h), else what lies at file_path */
};

struct sm_action {
    enum sm_action_kind kind;
    const struct sm_peer *peer;
    sm_envelope *message;
    struct sm_record record;
    const char *job, *file_path, *file_digest; /* FILE: XXH3 of an index, else SHA-256;
                                                  file_path "": it can only be kept */
    uint64_t offset, instance;
};

/* What steps ask for, in order. Steps append; the caller carries out and resets. */
struct sm_actions {
    struct sm_arena arena; /* owns everything that the list points to */
    struct sm_action *list;
    size_t n, cap;
};
void sm_actions_init(struct sm_actions *a);
void sm_actions_reset(struct sm_actions *a);
void sm_actions_release(struct sm_actions *a);

enum sm_event_kind {
    SM_EVENT_MESSAGE, /* peer, message */
    SM_EVENT_GARBAGE, /* something that is no message */
    SM_EVENT_GONE,    /* peer: its connection is no more */
    SM_EVENT_REFUSED, /* n connections did not get through their handshake */
    SM_EVENT_TICK,
};

struct sm_event {
    enum sm_event_kind kind;
    const struct sm_peer *peer;
    const sm_envelope *message; /* lent for the step */
    uint64_t n;
};

struct sm_core_options {
    uint64_t instance;               /* random: which start of which broker speaks */
    uint32_t incarnation;            /* starts on this journal; the upper half of every attempt */
    uint32_t heartbeat_ms, lease_ms; /* 0: the defaults */
    const char *state_dir;           /* for Status; kept */
};

struct sm_core;
struct sm_core *sm_core_new(const struct sm_core_options *options, int64_t now_ms);
void sm_core_free(struct sm_core **core);
/* Before the first step: one fact from the journal. -1 when it contradicts an earlier one. */
int sm_core_load(struct sm_core *core, const struct sm_record *record, struct sm_err *err);
/* One event. Steps append to *out. Time is monotonic milliseconds. */
void sm_core_step(struct sm_core *core, const struct sm_event *event, int64_t now_ms,
                  struct sm_actions *out);
/* Calls each with the digest of every file that a job may still be asked for. */
void sm_core_wants(const struct sm_core *core, void (*each)(void *context, const char *digest),
                   void *context);
/* How many milliseconds from now_ms on the next tick is due. */
int sm_core_sleep_ms(const struct sm_core *core, int64_t now_ms);

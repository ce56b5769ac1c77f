/* A world in which the broker's core works: simulated workers, a client, a lossy network, a journal
 * that keeps only what was synced, an output folder. Time and chance come from one seed, so a
 * failure replays exactly. Nothing here is a copy of the core: the world knows what a peer may see,
 * and what must hold at the end. */
#pragma once

#include "broker/core.h"
#include "broker/state.h"
#include "lib/rng.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    WORKERS = 4,
    CLIENT = WORKERS, /* the client's slot */
    ACTORS = WORKERS + 1,
    SHARDS = 8,
    SHARD = 12, /* positions of a shard at most */
    POSITIONS = SHARDS * SHARD,
    PARTS = 512,     /* files in the folder */
    ATTEMPTS = 2048, /* remembered for checks */
    BEAT_MS = 1000,
    LEASE_MS = 5000,
    CHAOS_MS = 40000, /* then everything is healthy and must come to an end */
    CALM_MS = 600000,
};

/* What is written at a position. */
enum { NOTHING, SAMPLE, SUBSTITUTE };

/* What a sample does to its worker. */
enum {
    GOOD,
    BAD /* cannot be decoded */,
    POISON /* kills it */,
    SLEEPER /* stops it for a while */
};

struct entry {
    uint64_t position;
    uint32_t code;
};

struct shard_row {
    uint64_t shard, samples, sha;
    uint32_t n;
    struct entry entries[SHARD];
};

struct part_row {
    uint64_t first;
    uint32_t count, generation;
};

/* A message as a struct: the fields that the simulation needs of any kind. */
struct msg {
    Shardmill__Envelope__BodyCase which;
    uint64_t instance, attempt, shard, first, sha, bytes, next;
    Shardmill__LeaseKind kind;
    Shardmill__JobState state;
    uint32_t count, generation, code, done;
    bool wanted, end, holding;
    uint64_t ahead_attempt, ahead_shard, ahead_first; /* of a Hello: what else it holds */
    uint32_t ahead_count, ahead_generation;
    Shardmill__LeaseKind ahead_kind;
    uint32_t n;
    union {
        uint64_t skip[SHARD];
        struct part_row parts[SHARD];
        struct entry entries[SHARD];
        struct shard_row rows[2];
    };
};

struct part_file {
    bool there;
    uint64_t shard;
    struct part_row row;
    uint8_t content[SHARD];
};

struct shard_file {
    bool there;
    uint32_t n;
    uint64_t position[2 * SHARD];
    uint8_t content[2 * SHARD];
};

struct worker_sim {
    bool registered;
    enum { IDLE, MAKING, SEALING, TELLING } state;
    struct msg lease, result;
    struct msg ahead; /* the next lease, held in advance; attempt 0: none */
    uint32_t made, step;
    uint8_t content[SHARD];
    int64_t heard;
    uint64_t instance;
};

struct client_sim {
    enum { SUBMITTING, WATCHING, COLLECTING, FINISHED } state;
    uint64_t cursor;
    uint32_t n;
    struct shard_row rows[SHARDS];
};

struct actor {
    bool alive;
    uint32_t life;
    int64_t paused_until;
    union {
        struct worker_sim worker;
        struct client_sim client;
    };
    /* what the broker must believe of this life: for the check of quarantines */
    int64_t told; /* when it last got a message of it */
    struct single {
        uint64_t attempt, position;
    } singles[16]; /* single-sample leases that it may hold, each once */
    unsigned n_singles;
};

/* A journal's record in memory. */
struct kept {
    struct sm_record record;
    struct entry entries[SHARD];
    char sha[SM_SHA_HEX];
    char text[64];
};

struct happening {
    int64_t at;
    uint64_t order;
    enum {
        TO_BROKER,
        TO_ACTOR,
        BROKER_TICK,
        BROKER_FLUSH,
        BROKER_START,
        ACTOR_START,
        ACTOR_TIMER,
        WORKER_STEP,
        CHAOS
    } kind;
    uint32_t slot, life;
    int message; /* index in the pool, or -1 */
};

struct given {
    uint64_t attempt, shard, first;
    uint32_t count;
    Shardmill__LeaseKind kind;
    bool failed; /* so its Ack promises nothing */
};

struct stats {
    uint64_t epochs, kills[4], messages, dropped, doubled, expired, stale, quarantined, remade,
        failures, restarts;
};
enum { KILL_WORKER, KILL_BROKER, KILL_CLIENT, KILL_ALL };

struct world {
    struct sm_rng rng;
    int64_t now;
    uint64_t order;
    struct happening *heap;
    size_t n_heap, cap_heap;
    struct msg *pool;
    int *unused;
    size_t n_pool, n_unused;

    Shardmill__JobSpec spec;
    uint8_t packed[256];
    size_t packed_n;
    struct sm_plan plan;
    uint8_t nature[POSITIONS]; /* of each sample */
    uint32_t strangers;        /* workers from this slot on have another fingerprint */
    double drop, twice, slow, fault;
    bool quiet;  /* nothing but poison harms anybody: then only poison may be quarantined */
    int kill_ms; /* mean pause between kills */

    struct sm_core *core; /* NULL: down */
    struct sm_actions actions;
    uint64_t instance;
    uint32_t incarnation;
    uint32_t broker_life;
    int64_t broker_paused_until;
    bool flushing;
    struct kept *journal;
    size_t n_journal, n_synced, cap_journal;

    struct actor actors[ACTORS];
    struct part_file parts[PARTS];
    struct shard_file shards[SHARDS];

    struct given given[ATTEMPTS];
    bool acked[POSITIONS];       /* the broker told a worker that it holds this */
    uint32_t accused[POSITIONS]; /* how often a worker died over its single lease */
    char fingerprint[8];         /* of the job, once journaled */
    uint64_t tampered;           /* shards (bits) of which the world removed a part */
    bool trace;                  /* print what happens */
    struct stats *stats;
    char wrong[256]; /* what did not hold; empty: nothing yet */
};

/* world.c */
void world_violation(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool chance(struct world *w, double p);
uint64_t below(struct world *w, uint64_t n);
void happen(struct world *w, int64_t in_ms, int kind, uint32_t slot, uint32_t life,
            const struct msg *m);
void actor_send(struct world *w, uint32_t slot, const struct msg *m);
void actor_kill(struct world *w, uint32_t slot);
bool world_chaotic(const struct world *w);
/* Runs one epoch; true when all held. */
bool world_epoch(struct world *w, uint64_t seed, uint64_t epoch, struct stats *stats);
void world_release(struct world *w);

/* broker.c: the loop's part */
void broker_start(struct world *w);
void broker_kill(struct world *w);
void broker_flush(struct world *w);
void broker_tick(struct world *w);
void broker_receive(struct world *w, uint32_t slot, uint32_t life, const struct msg *m);
/* Whatever it held alone counts as an accusation. */
void broker_accuse(struct world *w, struct actor *a);

/* worker.c, client.c */
void worker_start(struct world *w, uint32_t slot);
void worker_timer(struct world *w, uint32_t slot);
void worker_step(struct world *w, uint32_t slot, uint32_t step);
void worker_receive(struct world *w, uint32_t slot, const struct msg *m);
void client_start(struct world *w);
void client_timer(struct world *w);
void client_receive(struct world *w, const struct msg *m);

/* folder.c */
uint64_t content_sha(const uint8_t *content, uint32_t n);
uint64_t content_bytes(const uint8_t *content, uint32_t n);
void part_write(struct world *w, uint64_t shard, const struct part_row *row,
                const uint8_t *content);
/* 0, or SM_E_PART_MISSING; sha is filled. removed: how many parts are removed before it is cut
 * short. */
int shard_seal(struct world *w, const struct msg *lease, uint32_t removed, uint64_t *sha,
               uint64_t *bytes);
void folder_tamper(struct world *w);
void folder_check(struct world *w);

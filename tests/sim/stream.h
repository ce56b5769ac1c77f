/* A world in which trainers are fed: workers that keep batches in memory and die with them,
 * trainers that train, keep checkpoints, commit, stall, are killed and come back, with another
 * world size too. stream.c runs it; each role has a file of its own, and stream_check.c says what
 * must hold. As in sim.h, the world knows what a peer may see, and one seed decides everything. */
#pragma once

#include "tests/sim/sim.h"

enum {
    W_MAX = 3,
    T_MAX = 3,
    PEERS = W_MAX + T_MAX, /* slots: workers, then trainers by rank; from here on, strangers */
    N_MAX = 64,
    E_MAX = 3,
    HELD = 16,
    ROWS = 4096,
    STREAM_CALM_MS = 400000,
    TROUBLE_MS = 30000, /* then everything is healthy and must come to an end */
    BATCH_BYTES = 64,
};

/* A place in the global order of samples. */
struct mark {
    uint32_t epoch;
    uint64_t position;
};

/* A step that a rank has trained on. */
struct row {
    uint32_t epoch;
    uint64_t behind, first; /* the position behind it; N behind the last one */
    uint32_t count, padding;
};

struct made {
    uint64_t attempt, content;
    Shardmill__Lease lease;
    bool acked;
};

struct stream_worker {
    bool alive, registered;
    uint32_t life;
    int64_t heard, until; /* until: it is stopped */
    struct made made[HELD];
    Shardmill__Lease leases[2]; /* without their pointers */
    unsigned n_made, n_leases, memory;
    uint32_t token;  /* of the step under way */
    uint64_t failed; /* its last lease for which there was no room: said once more it is old */
};

struct stream_trainer {
    bool alive, attached, ended, no_token;
    bool again; /* this life was attached before */
    bool back;  /* went back of its own will: only its token tells the broker */
    bool committing;
    bool seeking; /* its loop has loaded an earlier checkpoint; its own turn to go there is near */
    bool sought; /* goes elsewhere in the job without dying, and has not heard of a session there */
    uint32_t life, serial; /* serial: of its Attach */
    char client[24];
    int64_t heard, until;
    uint64_t session, lost; /* lost: an attempt that it will not take any more */
    struct mark at,         /* trained so far */
        asked,              /* of Attach */
        kept,               /* in its checkpoint */
        acked;              /* confirmed by the broker */
    struct {                /* the one view that it holds */
        bool there;
        uint32_t epoch, worker, worker_life;
        uint64_t step, attempt, session;
        int64_t since;
    } view;
    struct row rows[ROWS];
    unsigned n_rows;
};

/* What the broker must know, from the messages that came to it and left it: stream_check.c. */
struct stream_watch {
    struct {
        bool there, gone;
        uint32_t life, world;
        uint64_t session;
        int64_t heard;
        uint32_t runs;        /* that had begun when it was attached */
    } owners[T_MAX];          /* of ranks */
    uint32_t runs, run_world; /* how many; the last one */
    struct mark run;
    struct {
        bool there;
        uint32_t slot, life;
        struct {
            uint64_t attempt, sample;
        } named[4]; /* leases that it told progress of, and where it was */
    } registered[16];
    uint32_t accused[N_MAX]; /* deaths over a sample since it was last made */
    struct {
        uint32_t epoch, count;
        uint64_t first;
        bool made;
    } leases[ROWS]; /* by the lower half of their attempt */
    uint32_t strangers;
};

struct stream_event {
    int64_t at;
    uint64_t order;
    enum {
        TO_CORE,
        TO_PEER,
        TICK,
        FLUSH,
        CORE_START,
        START,
        TIMER,
        MADE,
        GIVE,
        SEEK,
        TROUBLE
    } kind;
    uint32_t slot, life;
    uint64_t extra;
    uint8_t *bytes;
    size_t n;
};

struct stream_world {
    struct sm_rng rng;
    int64_t now;
    uint64_t order;
    struct stream_event *heap;
    size_t n_heap, cap_heap;
    double drop, twice, slow;
    int64_t in_order[PEERS]; /* when a peer's last Attach or Hello comes to the broker */

    struct sm_core *core; /* NULL: down */
    struct sm_actions actions;
    uint32_t incarnation, core_life;
    bool flushing;
    struct sm_record journal[ROWS];
    unsigned n_journal, n_synced;

    Shardmill__JobSpec spec;
    uint8_t packed[256];
    size_t packed_n;
    uint32_t world;
    uint64_t poison; /* a sample that kills; N_MAX: none */
    struct stream_worker workers[W_MAX];
    struct stream_trainer trainers[T_MAX];
    struct row rows[ROWS]; /* of worlds that are past */
    unsigned n_rows;

    struct stream_watch watch;
    struct stats *stats;
    char *wrong; /* what did not hold; empty: nothing yet */
    bool trace;  /* print what happens */
};

/* stream.c: one job from its first Attach to its last epoch; true when all held. wrong: what did
 * not. */
bool stream_epoch(uint64_t seed, uint64_t epoch, struct stats *stats, char wrong[256]);

/* stream_net.c */
void stream_wrong(struct stream_world *w, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
uint64_t stream_pick(struct stream_world *w, uint64_t n);
bool stream_luck(struct stream_world *w, double p);
bool stream_troubled(const struct stream_world *w);
void event_push(struct stream_world *w, struct stream_event e);
struct stream_event event_pop(struct stream_world *w);
void event_after(struct stream_world *w, int64_t ms, int kind, uint32_t slot, uint32_t life,
                 uint64_t extra);
void stream_transmit(struct stream_world *w, int kind, uint32_t slot, uint32_t life,
                     const sm_envelope *e);
uint32_t peer_life(const struct stream_world *w, uint32_t slot);
void peer_say(struct stream_world *w, uint32_t slot, int which, void *body);

/* stream_broker.c: the loop's part */
struct sm_peer stream_peer(uint32_t slot, uint32_t life);
void stream_core_start(struct stream_world *w);
void stream_core_kill(struct stream_world *w);
void stream_core_step(struct stream_world *w, const struct sm_event *e);
void stream_core_flush(struct stream_world *w);

/* stream_worker.c */
uint64_t stream_sample(const struct stream_world *w, uint32_t epoch, uint64_t index);
uint64_t stream_content(const struct stream_world *w, uint32_t epoch, uint64_t first,
                        uint32_t count);
struct made *maker_find(struct stream_worker *x, uint64_t attempt);
void maker_start(struct stream_world *w, uint32_t slot);
void maker_kill(struct stream_world *w, uint32_t slot);
void maker_made(struct stream_world *w, uint32_t slot, uint64_t token);
void maker_timer(struct stream_world *w, uint32_t slot);
void maker_hears(struct stream_world *w, uint32_t slot, const sm_envelope *e);

/* stream_trainer.c */
void trainer_start(struct stream_world *w, uint32_t rank);
void trainer_kill(struct stream_world *w, uint32_t rank, bool again);
void trainer_timer(struct stream_world *w, uint32_t rank);
void trainer_gives(struct stream_world *w, uint32_t rank);
void trainer_hears(struct stream_world *w, uint32_t rank, const sm_envelope *e);
void trainers_change(struct stream_world *w);
void trainers_go_back(struct stream_world *w);
void trainer_seeks(struct stream_world *w, uint32_t rank);

/* stream_check.c */
bool mark_less(struct mark a, struct mark b);
void check_core_start(struct stream_world *w);
/* Of a step of the core; its actions are those from this one on. */
void check_step(struct stream_world *w, const struct sm_event *e, size_t from);
bool check_commits_hold(const struct stream_world *w, uint32_t rank, uint64_t session);
void check_run(struct stream_world *w, const struct sm_record *r);
void check_quarantine(struct stream_world *w, const struct sm_record *r);
void check_strangers(struct stream_world *w);
void check_history(struct stream_world *w);

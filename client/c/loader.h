/* What the files of the client library share: one loader, its batches, and who may touch what. The
 * caller's thread and the background thread both work under loader->lock; sockets, connections and
 * the table of mappings belong to the background thread alone. Below this: api.c is what the caller
 * calls, thread.c is the background thread, session.c understands the broker, memory.c maps
 * batches of this host, fetch.c brings those of others, classes.c the classes' names and counts,
 * info.c tells about all of it. */
#pragma once

#include "client/c/shardmill.h"
#include "lib/batch.h"
#include "lib/buf.h"
#include "lib/err.h"
#include "lib/wire.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Of enum sm_layout; lib/batch.c has checked it. */
enum { LAYOUT_NCHW, LAYOUT_NHWC, LAYOUT_ROWS, LAYOUTS };
enum { LOADER_CONNECTIONS = 8, LOADER_ENDPOINT = 256, LOADER_WINDOW_MAX = 4096 };

/* A worker's batch memory, mapped once. It stays mapped as long as a batch in it is held, also
 * when its worker is dead. */
struct mapping {
    struct mapping *next;
    char name[LOADER_ENDPOINT];
    const uint8_t *base;
    uint64_t bytes;
    unsigned refs;
    int64_t used_at, asked_at; /* asked: whether its worker is still there */
};

/* A connection to a worker of another host. */
struct connection {
    char endpoint[LOADER_ENDPOINT];
    void *socket; /* NULL: free place */
    struct sm_watch *watch;
    unsigned in_flight;
    int64_t used_at;
};

enum batch_state { BATCH_FETCHING, BATCH_READY, BATCH_HELD };

struct batch {
    struct batch *next;
    enum batch_state state;
    uint64_t session, step, attempt, offset, bytes;
    uint32_t epoch;
    uint64_t position, first; /* before this step, over all ranks; of this rank */
    uint32_t count, padding;
    char digest[SM_XXH_HEX];
    struct sm_batch_header header; /* a copy that no worker can change any more */
    const uint8_t *base;
    struct mapping *map; /* NULL: in buffer */
    uint8_t *buffer;
    /* of a fetch */
    char endpoint[LOADER_ENDPOINT], key[SM_KEY_TEXT];
    uint8_t *pieces; /* enum piece_state of each */
    uint32_t pieces_total, pieces_got;
    int64_t moved_at, asked_at;
};

/* A place in the order of samples: what a token holds. */
struct cursor {
    uint32_t epoch;
    uint64_t position;
};

enum loader_state { LOADER_ATTACHING, LOADER_ATTACHED, LOADER_FAILED, LOADER_CLOSED };

struct audit {
    uint32_t epoch;
    uint64_t planned, delivered, padded, dropped, substituted, steps;
    char digest[SM_XXH_HEX];
    bool broker_said, broker_agrees;
    uint64_t quarantined; /* as the broker counts */
};

/* The classes' names, asked for when the caller first wants them. */
struct classes {
    bool wanted, here;
    uint32_t n, got;
    uint64_t at, end;    /* in the index file: what is asked for next; where its strings end */
    struct sm_buf names; /* n texts, each ended by NUL */
    int64_t asked_at;
    struct sm_err refusal; /* code SM_E_OK: none */
};

struct loader_counts {
    uint64_t batches, bytes, doubled, gaps, stale, garbage, lost, bad_digest, attached, pieces,
        pieces_stray, waits, wait_ns, wait_max_ns;
};

struct sm_loader {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    pid_t pid;
    int wake; /* eventfd that the background thread polls */
    int inside, owners;
    atomic_bool interrupted, closing;

    /* of sm_open, constant from then on */
    char broker[LOADER_ENDPOINT], job[256], host[64], client[33];
    struct sm_keys *keys; /* NULL: none */
    uint32_t api_version, rank, world_size;
    bool only_shm, only_tcp, has_start;

    /* what the broker says */
    enum loader_state state;
    struct sm_err failure; /* when state is LOADER_FAILED */
    char refusal[600];     /* why attaching does not succeed now */
    uint64_t session;
    uint32_t serial; /* of what it asks for by Attach */
    uint64_t positions, steps, seed, batch_bytes;
    uint32_t batch_size, epochs;
    uint32_t weights;      /* enum Weights of the protocol */
    bool drop_last, known; /* known: attached at least once */
    char job_id[256], pipeline_digest[65], dataset_digest[65];
    uint32_t heartbeat_ms, liveness;
    char waits[600];
    int64_t waits_at, heard_at, said_at, attach_at, opened_at, silent_since;
    int64_t passes_at; /* a refusal that passes by itself is waited out until then; 0: none */

    uint64_t credit;
    bool credit_asked;
    bool seeking, sought; /* wanted by the caller; done, and the broker has not answered yet */
    struct cursor seek;
    struct cursor accepted,
        given;   /* behind the last batch taken from the broker, and by the caller */
    bool ending; /* the caller has the last batch of epoch audit.epoch */
    struct batch *ready, *held, *freed; /* ready: in order, fetching ones included */
    unsigned ready_n, held_n;

    uint64_t lost[LOADER_WINDOW_MAX]; /* attempts that were said to be lost, a ring */
    unsigned lost_n, lost_next;

    struct classes classes;
    struct sm_class_count *class_counts; /* NULL: the job does not say */
    uint32_t n_class_counts;

    bool commit_pending;
    struct cursor commit, committed;
    bool has_committed;
    char commit_refusal[600];
    int64_t commit_at;

    struct audit audit, last_audit;
    bool has_last_audit;
    bool used_shm, used_tcp;
    int64_t shape[4];
    int dtype, layout;
    struct loader_counts counts;

    /* the background thread's own */
    void *context, *socket;
    struct sm_watch *watch; /* of socket */
    char data_refusal[512]; /* why a worker gives nothing: its handshake; "" when it does */
    struct mapping *mappings;
    struct connection connections[LOADER_CONNECTIONS];
    uint8_t **pool;
    unsigned pool_n;
    uint64_t pool_bytes;

    struct sm_err err; /* of the caller's last call that failed */
};

/* thread.c */
void *sm_loader_thread(void *loader);
void sm_loader_wake(struct sm_loader *l); /* may be called from a signal handler */
void sm_loader_free(struct sm_loader *l);
/* session.c: under the lock, in the background thread */
void sm_loader_hear(struct sm_loader *l, const sm_envelope *m);
void sm_loader_tick(struct sm_loader *l, int64_t now);
int sm_loader_say(struct sm_loader *l, int which, void *body);
void sm_loader_lost(struct sm_loader *l, const struct batch *b, const char *why);
void sm_loader_lost_ready(struct sm_loader *l, struct batch *b, const char *why);
void sm_loader_renew(struct sm_loader *l, const char *why);
void sm_loader_fail(struct sm_loader *l, enum sm_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void sm_loader_batch_free(struct sm_loader *l, struct batch *b);
/* classes.c */
void sm_loader_classes_tick(struct sm_loader *l, int64_t now);
void sm_loader_classes_hear(struct sm_loader *l, const Shardmill__FileChunk *m);
bool sm_loader_classes_refused(struct sm_loader *l, const Shardmill__Refused *m);
int sm_loader_classes_write(const struct sm_loader *l, char *json, size_t n);
/* What Attached says of the classes, once; false: no memory. */
bool sm_loader_classes_take(struct sm_loader *l, const Shardmill__JobSpec *spec);
void sm_loader_counts_add(struct sm_loader *l, const struct sm_batch_view *v);
void sm_loader_counts_epoch(struct sm_loader *l); /* this epoch becomes the last one */
void sm_loader_counts_clear(struct sm_loader *l); /* this epoch is entered anew */
void sm_loader_classes_free(struct sm_loader *l);
/* place.c: arithmetic of steps */
uint64_t sm_loader_step_samples(const struct sm_loader *l);
bool sm_loader_is_end(const struct sm_loader *l, struct cursor c);
struct cursor sm_loader_after(const struct sm_loader *l, struct cursor c);
struct audit sm_loader_audit(const struct sm_loader *l, struct cursor entered);
int sm_loader_token_write(const struct sm_loader *l, struct cursor c, char *text, size_t n);
struct token {
    struct cursor at;
    uint64_t seed;
    char pipeline_digest[65], dataset_digest[65];
};
int sm_loader_token_read(const char *text, struct token *t, struct sm_err *err);
/* memory.c: 0, -1, or 1: not on this host (fetch it) */
int sm_loader_map(struct sm_loader *l, struct batch *b, const char *name, struct sm_err *err);
void sm_loader_unmap(struct mapping *m);
void sm_loader_memory_tick(struct sm_loader *l, int64_t now);
void sm_loader_memory_close(struct sm_loader *l);
uint8_t *sm_loader_buffer(struct sm_loader *l, uint64_t bytes);
void sm_loader_buffer_release(struct sm_loader *l, uint8_t *buffer, uint64_t bytes);
/* fetch.c */
int sm_loader_fetch(struct sm_loader *l, struct batch *b, struct sm_err *err);
void sm_loader_fetch_receive(struct sm_loader *l, struct connection *c);
void sm_loader_fetch_tick(struct sm_loader *l, int64_t now);
void sm_loader_fetch_close(struct sm_loader *l);
/* info.c */
int sm_loader_info(struct sm_loader *l, char *json, size_t n);
void sm_loader_waits(struct sm_loader *l, char *text, size_t n);

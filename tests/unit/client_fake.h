/* A broker and a worker by script, to test the client library against what real ones must never do:
 * doubled, reordered, dropped and lying messages, wrong digests, a worker that dies between
 * announcement and fetch. A real ROUTER, a real memfd, a real handover; one thread. */
#pragma once

#include "client/c/shardmill.h"
#include "lib/batch.h"
#include "lib/handover.h"
#include "lib/index.h"
#include "lib/limits.h"
#include "lib/wire.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zmq.h>

#include <cmocka.h>

enum fake_fault {
    FAKE_DOUBLE = 1,         /* each Batch twice */
    FAKE_DROP = 2,           /* every third Batch is not sent the first time */
    FAKE_REORDER = 4,        /* pairs of Batches change places the first time */
    FAKE_OLD_SESSION = 8,    /* each Batch also of a session that never was */
    FAKE_GARBAGE = 16,       /* bytes that are no message in between */
    FAKE_WRONG_FIRST = 32,   /* the header in memory names another batch, for the first attempt */
    FAKE_BAD_DIGEST = 64,    /* the first attempt of every third batch has another digest */
    FAKE_NO_BATCH = 128,     /* the worker has no batch of a first attempt */
    FAKE_DEAF_WORKER = 256,  /* the worker of a first attempt answers nothing */
    FAKE_DEAF_RELEASE = 512, /* every second Release is not heard the first time */
    FAKE_NO_SEAL = 1024,     /* memory that may be shortened */
    FAKE_OTHER_HOST = 2048,  /* the worker names another host */
    FAKE_PIECES_DROP = 4096, /* every fifth piece is not sent the first time */
    FAKE_PIECES_DOUBLE = 8192,
    FAKE_PIECES_LIE = 16384, /* pieces of wrong length, offset and attempt in between */
    FAKE_OUTSIDE = 32768,    /* the first attempt lies beyond the memory */
    FAKE_NO_BATCHES = 65536, /* attaches, and then nothing */
    FAKE_DEAF_COMMIT = 1 << 17,
    FAKE_REFUSE_COMMIT = 1 << 18,
    FAKE_WRITE_OVER = 1 << 20,     /* a second session gives away what the first one promised */
    FAKE_CRASHED_WORKER = 1 << 19, /* the socket of a first attempt is gone */
    FAKE_DEAF_LOST = 1 << 21, /* the first Lost is not heard, and then that attempt could be had */
};

struct fake {
    /* the job, set before fake_start */
    uint64_t positions;
    uint32_t batch_size, epochs, height;
    _Atomic uint32_t world_size;
    uint32_t columns; /* of batches of rows, float64; 0: of pictures */
    Shardmill__Weights weights;
    uint64_t *counts; /* of three classes, as the spec says: present, then drawn; may be NULL */
    bool drop_last;
    int faults;
    uint32_t heartbeat_ms;
    _Atomic uint32_t refuse_code; /* every Attach is refused */
    const char *waits;            /* a sentence to send */
    const char
        *_Atomic classes; /* names, parted by newlines; NULL: the index is refused as missing */
    uint32_t n_classes;   /* that the index says to have */
    const char *_Atomic index_digest;
    /* what happened */
    atomic_ulong attaches, batches, releases, losts, commits, detached, pieces, heartbeats;
    atomic_ulong held_released, lost_taken, index_asked;
    atomic_ulong committed_epoch, committed_position;
    atomic_bool stop, silent, restart, fresh_memory;
    atomic_ulong instance;

    void *context, *router, *data;
    char endpoint[256], data_endpoint[256], fd_socket[SM_HANDOVER_NAME], host[SM_HANDOVER_HOST];
    int listen_fd, memory_fd;
    uint8_t *memory;
    uint64_t memory_bytes, slot_bytes;
    pthread_t thread;

    struct sm_peer peer;
    bool attached;
    uint64_t session;
    _Atomic uint32_t rank;
    uint32_t epoch;
    uint64_t base, entered, next, freed,
        credit_steps; /* steps of this session, over all its epochs */
    uint64_t attempt_of[64], deaf_to[64];
    bool first_time[64];
    uint64_t attempts, entropy;
    char client[64];
    bool held_back;
    int64_t said_at;
};

enum { FAKE_SLOTS = 64 };

/* A new session does not write where the one before it did: its batches may still be read. */
static inline uint64_t fake_slot(const struct fake *f, uint64_t k) {
    return (f->base + k) % FAKE_SLOTS;
}

static inline struct sm_batch_header fake_header(const struct fake *f) {
    struct sm_batch_header h = {
        .count = f->batch_size, .channels = 3, .height = f->height, .width = 32};
    h.weight = f->weights == SHARDMILL__WEIGHTS__IN_BATCHES;
    if (f->columns > 0) {
        h.dtype = SM_FLOAT64;
        h.layout = 2;
        h.channels = h.height = 1;
        h.width = f->columns;
    }
    struct sm_err err;
    assert_int_equal(sm_batch_layout(&h, &err), 0);
    return h;
}

/* Step k of a session that entered (epoch, entered): its epoch and step there. */
struct fake_step {
    uint32_t epoch;
    uint64_t step, first, position; /* position: behind it */
    bool exists;
};

static inline uint64_t fake_steps(const struct fake *f, uint64_t entered) {
    uint64_t all = (uint64_t)f->batch_size * f->world_size, left = f->positions - entered;
    return f->drop_last ? left / all : (left + all - 1) / all;
}

static inline struct fake_step fake_step_at(const struct fake *f, uint64_t k) {
    struct fake_step s = {.epoch = f->epoch};
    uint64_t entered = f->entered, all = (uint64_t)f->batch_size * f->world_size;
    while (k >= fake_steps(f, entered)) {
        k -= fake_steps(f, entered);
        entered = 0;
        s.epoch++;
    }
    s.step = k;
    s.first = entered + k * all + (uint64_t)f->rank * f->batch_size;
    s.position = entered + (k + 1) * all < f->positions ? entered + (k + 1) * all : f->positions;
    s.exists = f->epochs == 0 || s.epoch < f->epochs;
    return s;
}

/* What stands at (epoch, position), so that a test can tell every sample by its bytes. */
static inline uint8_t fake_byte(uint32_t epoch, uint64_t position, uint64_t i) {
    return (uint8_t)(epoch * 131 + position * 7 + i % 251);
}

static inline void fake_fill(const struct fake *f, struct fake_step s, uint8_t *out) {
    struct sm_batch_header h = fake_header(f);
    uint64_t sample = sm_batch_sample_bytes(&h);
    h.epoch = s.epoch;
    h.step = s.step;
    h.first = s.first;
    memcpy(out, &h, sizeof h);
    for (uint64_t i = 0; i < h.count; i++) {
        uint64_t g = s.first + i, p = g % f->positions;
        for (uint64_t j = 0; j < sample; j++)
            out[h.tensor + i * sample + j] = fake_byte(s.epoch, p, j);
        ((int64_t *)(void *)(out + h.label))[i] = (int64_t)(p % 3);
        ((uint64_t *)(void *)(out + h.index))[i] = p * 2;
        ((uint64_t *)(void *)(out + h.position))[i] = p;
        out[h.flags + i] = g >= f->positions ? SM_BATCH_PADDING : 0;
        if (h.weight != 0)
            ((float *)(void *)(out + h.weight))[i] = g >= f->positions ? 0 : 1 / (float)(p + 1);
    }
}

static inline void fake_send(struct fake *f, void *socket, const struct sm_peer *to, int which,
                             void *body) {
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    struct sm_err err;
    e.protocol = SM_PROTOCOL;
    e.instance = atomic_load(&f->instance);
    e.body_case = (Shardmill__Envelope__BodyCase)which;
    e.hello = body;
    sm_wire_send(socket, to, &e, &err);
}

static inline bool fake_is_first(const struct fake *f, uint64_t k) {
    return f->first_time[fake_slot(f, k)];
}

static inline void fake_announce(struct fake *f, uint64_t k) {
    struct fake_step s = fake_step_at(f, k);
    uint64_t slot = fake_slot(f, k);
    uint8_t *at = f->memory + slot * f->slot_bytes;
    char digest[SM_XXH_HEX];
    struct sm_batch_header h = fake_header(f);
    fake_fill(f, s, at);
    sm_batch_digest(at, digest);
    bool first = fake_is_first(f, k);
    if (first && (f->faults & FAKE_WRONG_FIRST)) ((struct sm_batch_header *)(void *)at)->first += 1;
    if (first && (f->faults & FAKE_BAD_DIGEST) && k % 3 == 0) at[h.tensor] ^= 1;
    Shardmill__Batch m = SHARDMILL__BATCH__INIT;
    m.session = f->session;
    m.epoch = s.epoch;
    m.step = s.step;
    m.position = s.position;
    m.first = s.first;
    m.count = f->batch_size;
    m.padding = s.first >= f->positions ? f->batch_size
                : s.first + f->batch_size > f->positions
                    ? (uint32_t)(s.first + f->batch_size - f->positions)
                    : 0;
    m.attempt = f->attempt_of[slot];
    m.worker_host = f->faults & FAKE_OTHER_HOST ? "elsewhere" : f->host;
    m.fd_socket = first && (f->faults & FAKE_CRASHED_WORKER) ? "@shardmill-gone" : f->fd_socket;
    m.data_endpoint =
        first && (f->faults & FAKE_CRASHED_WORKER) ? "tcp://127.0.0.1:9" : f->data_endpoint;
    m.offset = slot * f->slot_bytes;
    if (first && (f->faults & FAKE_OUTSIDE)) m.offset = UINT64_MAX - 127;
    m.bytes = h.bytes;
    m.digest = digest;
    fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_BATCH, &m);
    f->batches++;
    if (f->faults & FAKE_DOUBLE)
        fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_BATCH, &m);
    if (f->faults & FAKE_OLD_SESSION) {
        m.session = 1;
        fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_BATCH, &m);
    }
    if (f->faults & FAKE_GARBAGE) {
        zmq_send(f->router, f->peer.id, f->peer.n, ZMQ_SNDMORE | ZMQ_DONTWAIT);
        zmq_send(f->router, "\xff\xff garbage", 10, ZMQ_DONTWAIT);
    }
}

static inline void fake_attempt(struct fake *f, uint64_t k, bool first) {
    f->attempt_of[fake_slot(f, k)] = ++f->attempts;
    f->first_time[fake_slot(f, k)] = first;
}

static inline void fake_attach(struct fake *f, const Shardmill__Attach *m) {
    f->attaches++;
    if (f->refuse_code != 0) {
        Shardmill__Refused no = SHARDMILL__REFUSED__INIT;
        no.code = f->refuse_code;
        no.text = "job 'pets' is not for you";
        fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_REFUSED, &no);
        return;
    }
    f->session++;
    f->base += 16;
    if ((f->faults & FAKE_WRITE_OVER) && f->attaches > 1) memset(f->memory, 0, f->memory_bytes);
    f->attached = true;
    f->rank = m->rank;
    f->world_size = m->world_size;
    f->epoch = m->has_token ? m->epoch : 0;
    f->entered = m->has_token ? m->position : 0;
    f->next = f->freed = 0;
    struct sm_batch_header h = fake_header(f);
    f->credit_steps = m->credit_bytes / h.bytes;
    if (f->credit_steps < 1) f->credit_steps = 1;
    if (f->credit_steps > 8) f->credit_steps = 8;
    Shardmill__JobSpec spec = SHARDMILL__JOB_SPEC__INIT;
    spec.batch_size = f->batch_size;
    spec.drop_last = f->drop_last;
    spec.batch_bytes = h.bytes;
    spec.epochs = f->epochs;
    spec.seed = 42;
    spec.weights = f->weights;
    if (f->counts != NULL) {
        spec.n_present = spec.n_drawn = 3;
        spec.present = f->counts;
        spec.drawn = f->counts + 3;
        static char *names[] = {"ash", "", "oak"};
        spec.n_class_names = 3;
        spec.class_names = names;
    }
    Shardmill__Attached yes = SHARDMILL__ATTACHED__INIT;
    yes.serial = m->serial;
    yes.job = "pets-1";
    yes.session = f->session;
    yes.epoch = f->epoch;
    yes.position = f->entered;
    yes.positions = f->positions;
    yes.steps = fake_steps(f, 0);
    yes.spec = &spec;
    yes.heartbeat_ms = f->heartbeat_ms;
    yes.liveness = 3;
    yes.pipeline_digest = "aa00";
    yes.dataset_digest = "bb11";
    fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_ATTACHED, &yes);
    if (f->waits != NULL) {
        Shardmill__Waits w = SHARDMILL__WAITS__INIT;
        w.session = f->session;
        w.text = (char *)f->waits;
        fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_WAITS, &w);
    }
}

/* The number within this session of a step that a message names; UINT64_MAX none. */
static inline uint64_t fake_find(const struct fake *f, uint32_t epoch, uint64_t step) {
    for (uint64_t k = f->freed > FAKE_SLOTS ? f->freed - FAKE_SLOTS : 0; k < f->next; k++) {
        struct fake_step s = fake_step_at(f, k);
        if (s.epoch == epoch && s.step == step) return k;
    }
    return UINT64_MAX;
}

/* Announces what credit allows; with faults that change the order in which it is said. */
static inline void fake_go_on(struct fake *f) {
    if (!f->attached || (f->faults & FAKE_NO_BATCHES)) return;
    while (f->next < f->freed + f->credit_steps && fake_step_at(f, f->next).exists) {
        uint64_t k = f->next++;
        fake_attempt(f, k, true);
        if ((f->faults & FAKE_DROP) && k % 3 == 2) continue;
        if ((f->faults & FAKE_REORDER) && k % 2 == 0 && f->next < f->freed + f->credit_steps &&
            fake_step_at(f, f->next).exists) {
            uint64_t later = f->next++;
            fake_attempt(f, later, true);
            fake_announce(f, later);
        }
        fake_announce(f, k);
    }
}

static inline void fake_release(struct fake *f, const Shardmill__Release *m) {
    if (m->session != f->session) return;
    f->held_released += m->attempt != 0;
    uint64_t k = fake_find(f, m->epoch, m->step);
    if (k == UINT64_MAX) return;
    f->releases++;
    f->lost_taken += f->deaf_to[fake_slot(f, k)] == f->attempt_of[fake_slot(f, k)] &&
                     f->attempt_of[fake_slot(f, k)] != 0;
    if ((f->faults & FAKE_DEAF_RELEASE) && k % 2 == 1 && f->attempt_of[fake_slot(f, k)] != 0 &&
        f->first_time[fake_slot(f, k)]) {
        f->first_time[fake_slot(f, k)] = false;
        return;
    }
    f->attempt_of[fake_slot(f, k)] = 0;
    while (f->freed < f->next && f->attempt_of[fake_slot(f, f->freed)] == 0)
        f->freed++;
}

/* A piece of an index of three samples, in chunks so short that names are cut anywhere. */
static inline void fake_index(struct fake *f, const Shardmill__FileGet *m) {
    enum { SAMPLES = 3, CHUNK = 129 };
    f->index_asked++;
    if (f->classes == NULL) {
        Shardmill__Refused no = SHARDMILL__REFUSED__INIT;
        no.code = SM_E_MISSING;
        no.text = "cannot open the index";
        fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_REFUSED, &no);
        return;
    }
    static uint8_t file[65536];
    struct sm_index_header h = {.version = SM_INDEX_VERSION,
                                .samples = SAMPLES,
                                .classes = f->n_classes,
                                .string_bytes = strlen(f->classes) + 1};
    memcpy(h.magic, SM_INDEX_MAGIC, sizeof h.magic);
    strcpy(h.dataset_digest, f->index_digest);
    size_t strings = sizeof h + SAMPLES * (sizeof(struct sm_index_record) + sizeof(uint64_t)) +
                     f->n_classes * sizeof(struct sm_index_class_record);
    size_t total = strings + h.string_bytes + SM_INDEX_TRAILER;
    memset(file, 0xee, total);
    memcpy(file, &h, sizeof h);
    for (size_t i = 0; i < h.string_bytes; i++)
        file[strings + i] = f->classes[i] == '\n' ? 0 : (uint8_t)f->classes[i];
    Shardmill__FileChunk c = SHARDMILL__FILE_CHUNK__INIT;
    c.job = m->job;
    c.offset = m->offset;
    c.total = total;
    c.data.data = file + m->offset;
    c.data.len = total - m->offset < CHUNK ? total - m->offset : CHUNK;
    fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_FILE_CHUNK, &c);
}

static inline void fake_hear(struct fake *f, const sm_envelope *e) {
    if (atomic_load(&f->silent)) return;
    if (!f->attached && e->body_case != SHARDMILL__ENVELOPE__BODY_ATTACH) {
        Shardmill__Register again = SHARDMILL__REGISTER__INIT;
        fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_REGISTER_AGAIN, &again);
        return;
    }
    switch (e->body_case) {
    case SHARDMILL__ENVELOPE__BODY_ATTACH:
        fake_attach(f, e->attach);
        break;
    case SHARDMILL__ENVELOPE__BODY_RELEASE:
        fake_release(f, e->release);
        break;
    case SHARDMILL__ENVELOPE__BODY_HEARTBEAT:
        f->heartbeats++;
        break;
    case SHARDMILL__ENVELOPE__BODY_DETACH:
        f->detached++;
        f->attached = false;
        break;
    case SHARDMILL__ENVELOPE__BODY_LOST: {
        f->losts++;
        uint64_t k = fake_find(f, e->lost->epoch, e->lost->step);
        if (e->lost->session != f->session || k == UINT64_MAX ||
            f->attempt_of[fake_slot(f, k)] != e->lost->attempt)
            break;
        if ((f->faults & FAKE_DEAF_LOST) && f->deaf_to[fake_slot(f, k)] != e->lost->attempt) {
            f->deaf_to[fake_slot(f, k)] = e->lost->attempt;
            f->first_time[fake_slot(f, k)] = false;
            break;
        }
        fake_attempt(f, k, false);
        fake_announce(f, k);
        break;
    }
    case SHARDMILL__ENVELOPE__BODY_FILE_GET:
        fake_index(f, e->file_get);
        break;
    case SHARDMILL__ENVELOPE__BODY_COMMIT: {
        f->commits++;
        if (f->faults & FAKE_DEAF_COMMIT && f->commits == 1) break;
        if (f->faults & FAKE_REFUSE_COMMIT) {
            Shardmill__Refused no = SHARDMILL__REFUSED__INIT;
            no.code = SM_E_USAGE;
            no.text = "no step ends at that position";
            fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_REFUSED, &no);
            break;
        }
        Shardmill__Committed c = SHARDMILL__COMMITTED__INIT;
        c.session = e->commit->session;
        c.epoch = e->commit->epoch;
        c.position = e->commit->position;
        f->committed_epoch = c.epoch;
        f->committed_position = c.position;
        fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_COMMITTED, &c);
        break;
    }
    default:
        fail_msg("the client said %d", (int)e->body_case);
    }
}

static inline void fake_piece(struct fake *f, const struct sm_peer *to, uint64_t attempt,
                              uint64_t offset, uint64_t total, const void *bytes, size_t n) {
    sm_envelope e = SHARDMILL__ENVELOPE__INIT;
    Shardmill__Piece p = SHARDMILL__PIECE__INIT;
    uint8_t packed[256];
    p.attempt = attempt;
    p.offset = offset;
    p.total = total;
    e.protocol = SM_PROTOCOL;
    e.body_case = SHARDMILL__ENVELOPE__BODY_PIECE;
    e.piece = &p;
    size_t length = sm_wire_pack(&e, packed, sizeof packed);
    zmq_send(f->data, to->id, to->n, ZMQ_SNDMORE);
    zmq_send(f->data, packed, length, ZMQ_SNDMORE);
    zmq_send(f->data, bytes, n, 0);
    f->pieces++;
}

static inline void fake_fetch(struct fake *f, const struct sm_peer *to, const Shardmill__Fetch *m) {
    uint64_t k = UINT64_MAX;
    for (uint64_t i = f->freed; i < f->next; i++)
        if (f->attempt_of[fake_slot(f, i)] == m->attempt) k = i;
    bool first = k != UINT64_MAX && fake_is_first(f, k);
    if (first && (f->faults & FAKE_DEAF_WORKER)) return;
    if (k == UINT64_MAX || (first && (f->faults & FAKE_NO_BATCH))) {
        fake_piece(f, to, m->attempt, m->offset, 0, "", 0);
        return;
    }
    struct sm_batch_header h = fake_header(f);
    const uint8_t *batch = f->memory + fake_slot(f, k) * f->slot_bytes;
    uint64_t offset = m->offset;
    for (uint32_t i = 0; i < m->pieces && offset < h.bytes; i++) {
        size_t n = h.bytes - offset < SM_MAX_PIECE_BYTES ? h.bytes - offset : SM_MAX_PIECE_BYTES;
        f->entropy++;
        if (f->faults & FAKE_PIECES_LIE) {
            fake_piece(f, to, m->attempt, offset + 1, h.bytes, batch, n);
            fake_piece(f, to, m->attempt, offset, h.bytes, batch, n / 2);
            fake_piece(f, to, m->attempt + 1000, offset, h.bytes, batch, n);
            fake_piece(f, to, m->attempt, UINT64_MAX - (1 << 20) + 1, h.bytes, batch, n);
            fake_piece(f, to, m->attempt, offset, h.bytes - 1, batch, n);
        }
        if (!(f->faults & FAKE_PIECES_DROP) || f->entropy % 5 != 0)
            fake_piece(f, to, m->attempt, offset, h.bytes, batch + offset, n);
        if (f->faults & FAKE_PIECES_DOUBLE)
            fake_piece(f, to, m->attempt, offset, h.bytes, batch + offset, n);
        offset += SM_MAX_PIECE_BYTES;
    }
}

static inline void fake_receive(struct fake *f, void *socket) {
    for (;;) {
        struct sm_peer peer;
        sm_envelope *e = NULL;
        struct sm_err err;
        int rc = sm_wire_receive(socket, &peer, &e, &err);
        if (rc == 0) return;
        assert_int_equal(rc, 1);
        if (socket == f->router) {
            f->peer = peer;
            fake_hear(f, e);
        } else {
            assert_int_equal(e->body_case, SHARDMILL__ENVELOPE__BODY_FETCH);
            fake_fetch(f, &peer, e->fetch);
        }
        sm_wire_free(&e);
    }
}

static inline void *fake_run(void *arg) {
    struct fake *f = arg;
    while (!atomic_load(&f->stop)) {
        zmq_pollitem_t items[] = {{.socket = f->router, .events = ZMQ_POLLIN},
                                  {.socket = f->data, .events = ZMQ_POLLIN},
                                  {.fd = f->listen_fd, .events = ZMQ_POLLIN}};
        zmq_poll(items, 3, 10);
        if (atomic_exchange(&f->restart, false)) { /* forgets everything that it did not journal */
            f->attached = false;
            f->session += 1000;
            f->instance++;
        }
        if (atomic_exchange(&f->fresh_memory, false)) { /* as a worker does that says Hello */
            struct sm_err err;
            close(f->listen_fd);
            assert_int_equal(sm_handover_listen(&f->listen_fd, f->fd_socket, &err), 0);
        }
        fake_receive(f, f->router);
        fake_receive(f, f->data);
        while (sm_handover_give(f->listen_fd, f->memory_fd, f->memory_bytes) == 1)
            ;
        if (atomic_load(&f->silent)) continue;
        fake_go_on(f);
        int64_t now = sm_now_ms();
        if (!f->attached || now - f->said_at < f->heartbeat_ms) continue;
        f->said_at = now;
        Shardmill__Heartbeat beat = SHARDMILL__HEARTBEAT__INIT;
        fake_send(f, f->router, &f->peer, SHARDMILL__ENVELOPE__BODY_HEARTBEAT, &beat);
        if (!(f->faults & FAKE_NO_BATCHES)) /* and again what is not released */
            for (uint64_t k = f->freed; k < f->next; k++)
                if (f->attempt_of[fake_slot(f, k)] != 0) fake_announce(f, k);
    }
    return NULL;
}

static inline struct fake *fake_new(void) {
    struct fake *f = calloc(1, sizeof *f);
    f->positions = 100;
    f->batch_size = 8;
    f->world_size = 1;
    f->epochs = 2;
    f->height = 16;
    f->heartbeat_ms = 50;
    f->instance = 7;
    f->session = 100;
    return f;
}

static inline void fake_start(struct fake *f) {
    struct sm_err err;
    struct sm_batch_header h = fake_header(f);
    f->context = zmq_ctx_new();
    assert_int_equal(sm_wire_bind(f->context, "tcp://127.0.0.1:*", &f->router, f->endpoint, &err),
                     0);
    assert_int_equal(
        sm_wire_bind(f->context, "tcp://127.0.0.1:*", &f->data, f->data_endpoint, &err), 0);
    assert_int_equal(sm_handover_listen(&f->listen_fd, f->fd_socket, &err), 0);
    sm_handover_host(f->host);
    f->slot_bytes = h.bytes;
    f->memory_bytes = FAKE_SLOTS * h.bytes;
    f->memory_fd = memfd_create("batches", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(f->memory_fd, (off_t)f->memory_bytes), 0);
    if (!(f->faults & FAKE_NO_SEAL)) fcntl(f->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    f->memory = mmap(NULL, f->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->memory_fd, 0);
    assert_ptr_not_equal(f->memory, MAP_FAILED);
    assert_int_equal(pthread_create(&f->thread, NULL, fake_run, f), 0);
}

static inline void fake_stop(struct fake *f) {
    atomic_store(&f->stop, true);
    pthread_join(f->thread, NULL);
    int linger = 0;
    zmq_setsockopt(f->router, ZMQ_LINGER, &linger, sizeof linger);
    zmq_setsockopt(f->data, ZMQ_LINGER, &linger, sizeof linger);
    zmq_close(f->router);
    zmq_close(f->data);
    zmq_ctx_term(f->context);
    munmap(f->memory, f->memory_bytes);
    close(f->memory_fd);
    close(f->listen_fd);
    free(f);
}

static inline struct sm_open_options fake_options(const struct fake *f) {
    return (struct sm_open_options){.api_version = SM_API_VERSION,
                                    .broker = f->endpoint,
                                    .job = "pets",
                                    .world_size = f->world_size,
                                    .timeout_ms = 5000};
}

static inline struct sm_loader *fake_open(const struct fake *f, struct sm_open_options o) {
    struct sm_loader *l = NULL;
    (void)f;
    if (sm_open(&l, &o) != 0) fail_msg("cannot open: %s", sm_last_error(NULL));
    return l;
}

/* Every byte of a view against what stands at its positions. */
static inline void fake_check(const struct fake *f, const struct sm_batch_view *v, uint32_t epoch,
                              uint64_t first) {
    const uint8_t *data = v->data;
    size_t sample = v->data_bytes / v->count;
    assert_int_equal(v->epoch, epoch);
    assert_int_equal(v->count, f->batch_size);
    assert_int_equal((uintptr_t)v->data % 64, 0);
    for (uint32_t i = 0; i < v->count; i++) {
        uint64_t g = first + i, p = g % f->positions;
        assert_int_equal(v->position[i], p);
        assert_int_equal(v->index[i], p * 2);
        assert_int_equal(v->label[i], p % 3);
        assert_int_equal(v->flags[i], g >= f->positions ? 1 : 0);
        for (size_t j = 0; j < sample; j++)
            if (data[i * sample + j] != fake_byte(epoch, p, j))
                fail_msg("sample %u of position %llu has another byte at %zu", i,
                         (unsigned long long)p, j);
    }
}

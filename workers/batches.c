/* A list of slots in order of their place, first fit; one memfd under them, one socket beside. */
#include "workers/batches.h"

#include "lib/batch.h"
#include "lib/handover.h"

#include <assert.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

enum {
    SERVE_MAX = 16, /* descriptors handed out in one turn */
};

/* The mapping, until the last who reads there is through. */
struct memory {
    uint8_t *map;
    uint64_t bytes;
    atomic_uint holders;
};

struct sm_batches {
    uint64_t bytes;
    struct memory *memory;
    int memory_fd, given_fd; /* ours; what others get */
    int listen_fd;
    char address[SM_HANDOVER_NAME];
    struct sm_slot *slots[SM_BATCH_SLOTS]; /* by offset */
    size_t n;
};

static int make_memory(struct sm_batches *b, struct sm_err *err);

int sm_batches_new(struct sm_batches **gives, uint64_t bytes, struct sm_err *err) {
    *gives = NULL;
    struct sm_batches *b = calloc(1, sizeof *b);
    if (b == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    b->memory_fd = b->given_fd = b->listen_fd = -1;
    b->bytes = bytes;
    if (make_memory(b, err) != 0 || sm_handover_listen(&b->listen_fd, b->address, err) != 0) {
        sm_batches_free(&b);
        return -1;
    }
    *gives = b;
    return 0;
}

/* The size is fixed for ever, so nobody's reading can fault; once our own mapping stands, the
 * kernel refuses every other that could write, even to a process that reopens the descriptor. A
 * kernel without that seal (before 5.1) still hands out a descriptor that is open for reading only.
 * Sealed like this, pages cannot be punched out again: what a freed batch touched stays, up to the
 * configured size. */
static int make_memory(struct sm_batches *b, struct sm_err *err) {
    char path[48];
    b->memory_fd = memfd_create("shardmill-batches", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (b->memory_fd < 0 || ftruncate(b->memory_fd, (off_t)b->bytes) != 0 ||
        fcntl(b->memory_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
        return sm_fail_errno(err, "cannot make batch memory of %llu bytes",
                             (unsigned long long)b->bytes);
    void *map = mmap(NULL, b->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, b->memory_fd, 0);
    if (map == MAP_FAILED) return sm_fail_errno(err, "cannot map batch memory");
    b->memory = malloc(sizeof *b->memory);
    if (b->memory == NULL) {
        munmap(map, b->bytes);
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    *b->memory = (struct memory){.map = map, .bytes = b->bytes, .holders = 1};
    fcntl(b->memory_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE);
    fcntl(b->memory_fd, F_ADD_SEALS, F_SEAL_SEAL);
    snprintf(path, sizeof path, "/proc/self/fd/%d", b->memory_fd);
    b->given_fd = open(path, O_RDONLY | O_CLOEXEC);
    return b->given_fd >= 0 ? 0 : sm_fail_errno(err, "cannot open batch memory for reading");
}

void sm_batches_free(struct sm_batches **bp) {
    struct sm_batches *b = *bp;
    if (b == NULL) return;
    sm_batches_release_all(b);
    if (b->memory != NULL) sm_batches_drop(NULL, b->memory);
    if (b->memory_fd >= 0) close(b->memory_fd);
    if (b->given_fd >= 0) close(b->given_fd);
    if (b->listen_fd >= 0) close(b->listen_fd);
    free(b);
    *bp = NULL;
}

uint64_t sm_batches_bytes(const struct sm_batches *b) {
    return b->bytes;
}

const char *sm_batches_address(const struct sm_batches *b) {
    return b->address;
}

int sm_batches_fd(const struct sm_batches *b) {
    return b->listen_fd;
}

void sm_batches_serve(struct sm_batches *b) {
    for (int i = 0; i < SERVE_MAX; i++)
        if (sm_handover_give(b->listen_fd, b->given_fd, b->bytes) == 0) return;
}

/* Where a gap of so many bytes begins, and before which slot. */
static bool find_gap(const struct sm_batches *b, uint64_t bytes, uint64_t *offset, size_t *before) {
    uint64_t at = 0;
    for (size_t i = 0; i < b->n; i++) {
        if (b->slots[i]->offset - at >= bytes) {
            *offset = at;
            *before = i;
            return true;
        }
        at = b->slots[i]->offset + b->slots[i]->bytes;
    }
    *offset = at;
    *before = b->n;
    return b->bytes - at >= bytes;
}

const struct sm_slot *sm_batches_take(struct sm_batches *b, const char *job, uint64_t attempt,
                                      uint64_t bytes) {
    uint64_t offset;
    size_t before;
    assert(bytes > 0);
    if (bytes > b->bytes || b->n == SM_BATCH_SLOTS) return NULL;
    bytes = (bytes + SM_BATCH_ALIGN - 1) & ~(uint64_t)(SM_BATCH_ALIGN - 1);
    if (!find_gap(b, bytes, &offset, &before)) return NULL;
    struct sm_slot *slot = calloc(1, sizeof *slot);
    char *name = strdup(job);
    if (slot == NULL || name == NULL) {
        free(slot);
        free(name);
        return NULL;
    }
    *slot = (struct sm_slot){.attempt = attempt, .job = name, .offset = offset, .bytes = bytes};
    memmove(&b->slots[before + 1], &b->slots[before], (b->n - before) * sizeof *b->slots);
    b->slots[before] = slot;
    b->n++;
    return slot;
}

uint8_t *sm_batches_at(const struct sm_batches *b, const struct sm_slot *slot) {
    return b->memory->map + slot->offset;
}

/* Index of an attempt's slot; b->n when there is none. */
static size_t find_slot(const struct sm_batches *b, uint64_t attempt) {
    size_t i = 0;
    while (i < b->n && b->slots[i]->attempt != attempt)
        i++;
    return i;
}

void sm_batches_made(struct sm_batches *b, uint64_t attempt) {
    size_t i = find_slot(b, attempt);
    assert(i < b->n);
    b->slots[i]->whole = true;
}

const struct sm_slot *sm_batches_due(struct sm_batches *b, int64_t now_ms, int64_t every_ms) {
    for (size_t i = 0; i < b->n; i++) {
        struct sm_slot *slot = b->slots[i];
        if (!slot->whole) continue;
        if (slot->asked_ms == 0) slot->asked_ms = now_ms;
        if (now_ms - slot->asked_ms < every_ms) continue;
        slot->asked_ms = now_ms;
        return slot;
    }
    return NULL;
}

const struct sm_slot *sm_batches_find(const struct sm_batches *b, uint64_t attempt) {
    size_t i = find_slot(b, attempt);
    return i < b->n && b->slots[i]->whole ? b->slots[i] : NULL;
}

bool sm_batches_release(struct sm_batches *b, const char *job, uint64_t attempt) {
    size_t i = find_slot(b, attempt);
    if (i == b->n || strcmp(b->slots[i]->job, job) != 0) return false;
    free(b->slots[i]->job);
    free(b->slots[i]);
    b->n--;
    memmove(&b->slots[i], &b->slots[i + 1], (b->n - i) * sizeof *b->slots);
    return true;
}

void sm_batches_release_all(struct sm_batches *b) {
    for (size_t i = 0; i < b->n; i++) {
        free(b->slots[i]->job);
        free(b->slots[i]);
    }
    b->n = 0;
}

size_t sm_batches_count(const struct sm_batches *b) {
    return b->n;
}

const struct sm_slot *sm_batches_slot(const struct sm_batches *b, size_t i) {
    return b->slots[i];
}

void *sm_batches_hold(const struct sm_batches *b) {
    atomic_fetch_add(&b->memory->holders, 1);
    return b->memory;
}

void sm_batches_drop(void *bytes, void *hold) {
    struct memory *m = hold;
    (void)bytes;
    if (atomic_fetch_sub(&m->holders, 1) != 1) return;
    munmap(m->map, m->bytes);
    free(m);
}

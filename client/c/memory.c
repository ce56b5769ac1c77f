/* Batches of this host, read where their worker wrote them, and buffers for those of other hosts.
 * A worker's memory is taken by its descriptor (lib/handover.h), which nobody can shorten, and
 * mapped read-only once; session.c has named it, a view points into it. */
#include "client/c/loader.h"

#include "lib/handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    HANDOVER_MS = 300,
    MAPPINGS_MAX = 1024,
    IDLE_MS = 500, /* a mapping that has not been used for so long is looked at, as often */
};

/* Takes and maps; the lock is given up meanwhile, as the peer may make us wait. */
static struct mapping *mapping_new(struct sm_loader *l, const char *name, struct sm_err *err) {
    int fd = -1;
    uint64_t bytes = 0;
    struct mapping *m = calloc(1, sizeof *m);
    if (m == NULL) {
        sm_fail(err, SM_E_MEMORY, "no memory for a mapping");
        return NULL;
    }
    pthread_mutex_unlock(&l->lock);
    int rc = sm_handover_take(name, HANDOVER_MS, &fd, &bytes, err);
    void *base = MAP_FAILED;
    if (rc == 0) {
        base = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (base == MAP_FAILED) sm_fail_errno(err, "cannot map the memory of worker '%s'", name);
        close(fd);
    }
    pthread_mutex_lock(&l->lock);
    if (base == MAP_FAILED) {
        free(m);
        return NULL;
    }
    m->base = base;
    m->bytes = bytes;
    snprintf(m->name, sizeof m->name, "%s", name);
    m->next = l->mappings;
    l->mappings = m;
    return m;
}

static void mapping_drop(struct mapping **p) {
    struct mapping *m = *p;
    *p = m->next;
    munmap((void *)m->base, m->bytes);
    free(m);
}

/* A dead worker's memory would stay with us for ever: what nobody uses goes when its worker is not
 * there any more. A worker that gives work is not asked. */
void sm_loader_memory_tick(struct sm_loader *l, int64_t now) {
    for (struct mapping **p = &l->mappings; *p != NULL;) {
        struct mapping *m = *p;
        bool idle = m->refs == 0 && now - m->used_at >= IDLE_MS && now - m->asked_at >= IDLE_MS;
        if (idle) m->asked_at = now;
        if (idle && !sm_handover_there(m->name))
            mapping_drop(p);
        else
            p = &m->next;
    }
}

/* Room for one more: what has not been used for the longest time goes when there are many. */
static void mappings_trim(struct sm_loader *l) {
    unsigned n = 0;
    struct mapping **oldest = NULL;
    for (struct mapping **p = &l->mappings; *p != NULL; p = &(*p)->next) {
        n++;
        if ((*p)->refs == 0 && (oldest == NULL || (*p)->used_at < (*oldest)->used_at)) oldest = p;
    }
    if (oldest != NULL && n >= MAPPINGS_MAX) mapping_drop(oldest);
}

int sm_loader_map(struct sm_loader *l, struct batch *b, const char *name, struct sm_err *err) {
    struct mapping *m = l->mappings;
    while (m != NULL && strcmp(m->name, name) != 0)
        m = m->next;
    if (m == NULL) {
        mappings_trim(l);
        m = mapping_new(l, name, err);
    }
    if (m == NULL) return err->code == SM_E_PEER ? 1 : -1;
    if (b->bytes > m->bytes || b->offset > m->bytes - b->bytes || b->offset % SM_BATCH_ALIGN != 0)
        return sm_fail(err, SM_E_PROTOCOL, "worker '%s' has no batch at %llu", name,
                       (unsigned long long)b->offset);
    if (sm_batch_check(m->base + b->offset, b->bytes, &b->header, err) != 0) return -1;
    b->map = m;
    b->base = m->base + b->offset;
    m->refs++;
    m->used_at = sm_now_ms();
    return 0;
}

void sm_loader_unmap(struct mapping *m) {
    m->refs--;
    m->used_at = sm_now_ms();
}

void sm_loader_memory_close(struct sm_loader *l) {
    while (l->mappings != NULL)
        mapping_drop(&l->mappings);
    while (l->pool_n > 0)
        free(l->pool[--l->pool_n]);
    free(l->pool);
    l->pool = NULL;
}

/* Buffers come and go with each batch, and a fresh one costs a page fault every 4 KiB: they are
 * kept, never more of them than were in use at a time. */
uint8_t *sm_loader_buffer(struct sm_loader *l, uint64_t bytes) {
    if (l->pool_n > 0 && l->pool_bytes == bytes) return l->pool[--l->pool_n];
    size_t n = (bytes + SM_BATCH_ALIGN - 1) / SM_BATCH_ALIGN * SM_BATCH_ALIGN;
    return aligned_alloc(SM_BATCH_ALIGN, n);
}

void sm_loader_buffer_release(struct sm_loader *l, uint8_t *buffer, uint64_t bytes) {
    if (l->pool_bytes != bytes) {
        while (l->pool_n > 0)
            free(l->pool[--l->pool_n]);
        l->pool_bytes = bytes;
    }
    uint8_t **more = realloc(l->pool, (l->pool_n + 1) * sizeof *more);
    if (more == NULL) {
        free(buffer);
        return;
    }
    l->pool = more;
    l->pool[l->pool_n++] = buffer;
}

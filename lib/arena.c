/* A list of blocks, newest first; requests are cut from the newest. */
#include "lib/arena.h"

#include <assert.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_BYTES = 16 << 10 };

struct sm_arena_block {
    struct sm_arena_block *next;
    size_t size, used;
    alignas(16) unsigned char data[];
};

void sm_arena_init(struct sm_arena *a, size_t max) {
    *a = (struct sm_arena){.max = max};
}

void sm_arena_release(struct sm_arena *a) {
    for (struct sm_arena_block *b = a->blocks, *next; b != NULL; b = next) {
        next = b->next;
        free(b);
    }
    *a = (struct sm_arena){.max = a->max};
}

void *sm_arena_alloc(struct sm_arena *a, size_t n) {
    if (n > a->max - a->used) return NULL;
    size_t want = (n + 15) & ~(size_t)15;
    struct sm_arena_block *b = a->blocks;
    if (b == NULL || b->size - b->used < want) {
        size_t size = want > BLOCK_BYTES ? want : BLOCK_BYTES;
        b = calloc(1, sizeof *b + size);
        if (b == NULL) return NULL;
        b->size = size;
        b->next = a->blocks;
        a->blocks = b;
    }
    void *p = b->data + b->used;
    b->used += want;
    a->used += n;
    return p;
}

char *sm_arena_strn(struct sm_arena *a, const char *s, size_t n) {
    char *p = sm_arena_alloc(a, n + 1);
    if (p != NULL) memcpy(p, s, n);
    return p;
}

char *sm_arena_str(struct sm_arena *a, const char *s) {
    return sm_arena_strn(a, s, strlen(s));
}

/* What lib/digest.c and lib/sha.c share: a hash in progress. */
#pragma once

#include <stddef.h>

struct sm_hash {
    void *state;
    void (*add)(void *state, const void *bytes, size_t n);
    void (*end)(void *state, char *hex); /* frees state; hex may be NULL */
};

void sm_hash_hex(const unsigned char *bytes, size_t n, char *hex);

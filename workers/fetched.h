/* A file that comes from the broker in pieces, in memory that ends with the process. Before: job.c
 * asks for the next piece. After: the whole is mapped, and whoever asked compares its digest. */
#pragma once

#include "lib/err.h"

#include <stddef.h>
#include <stdint.h>

struct sm_fetched {
    int fd; /* -1: nothing has come yet */
    void *map;
    uint64_t got, total;
};

void sm_fetched_init(struct sm_fetched *f);
/* Takes the piece that lies at f->got of a file of total bytes, at most max (from lib/limits.h). 1:
 * the file is whole and mapped at f->map, 0: more is to come. what: "the index". SM_E_PROTOCOL: a
 * length that cannot be; SM_E_CHANGED: the length is another than before. */
int sm_fetched_take(struct sm_fetched *f, const void *bytes, size_t n, uint64_t total, uint64_t max,
                    const char *what, struct sm_err *err);
void sm_fetched_release(struct sm_fetched *f);

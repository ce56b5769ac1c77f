/* A thread that waits for the disk: it finishes parts (fsync, rename) and seals shards, while the
 * shell speaks with its broker and the cage makes the next samples. Tasks are handed over and taken
 * back; nobody shares one. */
#pragma once

#include "workers/sinks/sink.h"

#include <stdbool.h>
#include <stdint.h>

struct sm_disk_task {
    void *owner;          /* the caller's; to know it again */
    struct sm_part *part; /* to finish; NULL: seal */
    bool last;
    char *dir; /* of a seal: freed with the task, as parts and sha256 are its own */
    uint64_t shard;
    enum sm_shard_format format;
    struct sm_part_name *parts;
    size_t n_parts;
    char single[SM_SHA_HEX];
    /* the result */
    int failed;
    struct sm_err err;
    uint64_t bytes;
    char sha256[SM_SHA_HEX];
    struct sm_disk_task *next;
};
void sm_disk_task_free(struct sm_disk_task **task);

struct sm_disk;
struct sm_disk *sm_disk_start(struct sm_err *err);
/* Readable when a task is done. */
int sm_disk_fd(const struct sm_disk *d);
/* Takes the task. */
void sm_disk_add(struct sm_disk *d, struct sm_disk_task **task);
/* Gives a task that is done; NULL when there is none. */
struct sm_disk_task *sm_disk_take(struct sm_disk *d);
/* Waits at most so long for the task in work and throws the others away. True when the thread is
 * gone; else it is left to the end of the process, with what it uses. */
bool sm_disk_stop(struct sm_disk **d, int wait_ms);

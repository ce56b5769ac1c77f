/* The shard sink. A lease ends in a part: a run of tar members, complete or absent. When all parts
 * of a shard are there the broker has it sealed: parts are joined in order under the shard's final
 * name (one part: it is renamed). Only a seal writes a final name, so a worker that slept through
 * its lease can harm nothing. */
#pragma once

#include "lib/digest.h"
#include "lib/err.h"

#include <stdbool.h>
#include <stdint.h>

struct sm_part_name {
    uint64_t shard, first; /* first: position in the plan */
    uint32_t count, generation;
};
/* "shard-000000.00000000-64.g0.part" */
enum { SM_PART_NAME_MAX = 96 };
void sm_part_file(const struct sm_part_name *part, char name[SM_PART_NAME_MAX]);
void sm_shard_file(uint64_t shard, char name[SM_PART_NAME_MAX]); /* "shard-000000.tar" */

struct sm_part; /* an open part, under a temporary name of its own */
int sm_part_open(struct sm_part **gives, const char *dir, const struct sm_part_name *name,
                 struct sm_err *err);
/* Adds the members of one sample: KEY.extension, KEY.cls, KEY.json, in this order. */
int sm_part_add(struct sm_part *p, const char *key, const char *extension, const void *bytes,
                size_t n, uint32_t label, const char *json, size_t json_n, struct sm_err *err);
/* last: this part ends its shard, so the end-of-archive blocks are written. fsync, rename, fsync of
 * the folder. Frees. */
int sm_part_finish(struct sm_part **p, bool last, uint64_t *bytes, char sha256[SM_SHA_HEX],
                   struct sm_err *err);
/* Throws the part away. */
void sm_part_abandon(struct sm_part **p);

/* Joins the parts (in order) to the shard; a shard that is already there and has no parts left is
 * only read. One part whose digest is known is renamed. Missing part: SM_E_PART_MISSING. */
int sm_seal(const char *dir, uint64_t shard, const struct sm_part_name *parts, size_t n_parts,
            const char *sha256_of_single, uint64_t *bytes, char sha256[SM_SHA_HEX],
            struct sm_err *err);
/* Removes parts and temporary files that no run needs any more. */
void sm_sink_sweep(const char *dir);

/* A dataset's index as it lies in its file: the header, entries, classes, samples by class,
 * strings, XXH3-128 (canonical) of all that. Numbers are little-endian. workers/sources/ writes and
 * maps it; a trainer asks its broker for the one piece that has the classes' names. If you change
 * it, raise SM_INDEX_VERSION; an index of another version is built anew. */
#pragma once

#include <stdint.h>

#define SM_INDEX_MAGIC "SMINDEX\n"
enum { SM_INDEX_VERSION = 1, SM_INDEX_TRAILER = 16 };
#define SM_INDEX_NONE UINT64_MAX /* as a string's offset: there is none */

struct sm_index_header {
    char magic[8];
    uint32_t version, reserved;
    uint64_t samples, classes, string_bytes, ignored;
    char dataset_digest[40]; /* hex and NULs */
};

struct sm_index_record { /* an entry; file and member are offsets into the strings */
    uint64_t file, member, offset, length, file_bytes, checksum;
    int64_t mtime_ns;
    uint32_t label, reserved;
};

struct sm_index_class_record {
    uint64_t name;
    uint64_t first, samples; /* of its samples in the table by class */
};

/* Where the strings begin in a file of `total` bytes, or 0 when this is no header of one. The first
 * strings are the names of the classes, in their order, each ended by NUL. */
uint64_t sm_index_strings(const struct sm_index_header *h, uint64_t total);

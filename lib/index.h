/* A dataset's index as it lies in its file. Of images: the header, entries, classes, samples by
 * class, strings, times, XXH3-128 (canonical) of all that. Of a table: the header, struct
 * sm_index_table, of a csv its rows as a matrix, the tables that struct sm_index_table counts,
 * strings, times, XXH3-128. Times (int64_t, ns) are those of files whose bytes the index knows by a
 * digest: they tell quickly that a file is unchanged and say nothing about content, so the digest
 * of an index leaves them out, and a dataset that was only touched keeps it. Numbers are
 * little-endian. workers/sources/ writes and maps it; a trainer asks its broker for the one piece
 * that has the classes' names. If you change it, raise SM_INDEX_VERSION; an index of another
 * version is built anew. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SM_INDEX_MAGIC "SMINDEX\n"
enum { SM_INDEX_VERSION = 2, SM_INDEX_TRAILER = 16 };
#define SM_INDEX_NONE UINT64_MAX /* as a string's offset: there is none */

enum sm_index_kind { SM_INDEX_IMAGES, SM_INDEX_TABLE };

/* The folder of artifacts beside a dataset's index. */
#define SM_ARTIFACTS_NAME "artifacts"
/* How many characters of an index's path name the folder that it lies in, the last / included. */
static inline int sm_index_folder(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? (int)(slash + 1 - path) : 0;
}

struct sm_index_header {
    char magic[8];
    uint32_t version, kind; /* enum sm_index_kind */
    uint64_t samples, classes, string_bytes, ignored;
    char dataset_digest[40]; /* hex and NULs */
    uint64_t times; /* of a table: one for each file; of images with checksums: for each sample;
                       else 0 */
};

struct sm_index_record { /* an entry; file and member are offsets into the strings */
    uint64_t file, member, offset, length, file_bytes, checksum;
    int64_t mtime_ns; /* 0 with a checksum: then it is among the times */
    uint32_t label, reserved;
};

struct sm_index_class_record {
    uint64_t name;
    uint64_t first, samples; /* of its samples in the table by class */
};

/* Follows the header of a table. The matrix begins at SM_INDEX_MATRIX, row after row, and ends
 * before `tables`, where these stand one after the other: classes, files, columns, categories
 * (uint64_t: strings), bad rows, marks, groups (uint64_t for each row, or none), labels and rows by
 * class (uint32_t for each row); then the strings. */
enum { SM_INDEX_MATRIX = 4096, SM_INDEX_TABLES_ALIGNED = 64 };

struct sm_index_table {
    uint64_t files, columns, categories, bad_rows, marks, tables;
    uint32_t is_double, has_groups, has_matrix, reserved;
};

struct sm_index_file { /* rows `first` to `first + rows - 1` of the source, bad ones counted */
    uint64_t name, first, rows, file_bytes;
    uint64_t data;           /* npy: where its elements begin */
    uint32_t type, columns;  /* npy: enum sm_npy_type, elements of a row */
    uint32_t skip, reserved; /* npy: the column that is no feature, or UINT32_MAX */
    uint8_t digest[16];      /* XXH3-128 of its bytes; npy: up to the last element */
};

struct sm_index_column {
    uint64_t name, first_category;
    uint32_t kind, categories;
};

struct sm_index_bad_row {
    uint64_t row, line, offset, text;
    uint32_t file, code;
};

/* Of a csv: where the first of each so many rows of a file begins, so that any row's line is found
 * by a short reading. */
enum { SM_INDEX_MARK_ROWS = 1024 };
struct sm_index_mark {
    uint64_t row, line, offset;
};

/* Where the strings begin in a file of `total` bytes, or 0 when this is no header of one. The first
 * strings are the names of the classes, in their order, each ended by NUL. */
uint64_t sm_index_strings(const struct sm_index_header *h, uint64_t total);
/* Of a file of `total` bytes that begins with these n: how many bytes from its beginning its digest
 * is over. Of an index all before the times; of anything else all. */
uint64_t sm_index_digested(const void *beginning, size_t n, uint64_t total);

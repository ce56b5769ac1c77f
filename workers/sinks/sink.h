/* The shard sink. A lease ends in a part: a run of tar members or of rows, complete or absent. When
 * all parts of a shard are there the broker has it sealed: parts are joined in order under the
 * shard's final name (one part: it is renamed). Only a seal writes a final name, so a worker that
 * slept through its lease can harm nothing. */
#pragma once

#include "lib/digest.h"
#include "lib/err.h"
#include "lib/plan.h"
#include "workers/table/rows.h"

#include <stdbool.h>
#include <stdint.h>

struct sm_part_name {
    uint64_t shard, first; /* first: position in the plan */
    uint32_t count, generation;
};
/* "shard-000000.00000000-64.g0.part" */
enum { SM_PART_NAME_MAX = 96 };
void sm_part_file(const struct sm_part_name *part, char name[SM_PART_NAME_MAX]);
enum sm_shard_format {
    SM_SHARD_TAR,
    SM_SHARD_CSV,
    SM_SHARD_NPY,
    SM_SHARD_PARTIAL /* of a fit's range; not in files by users */
};
/* Of expand.encode (enum sm_encode): csv and npy hold rows, all others tar members. */
enum sm_shard_format sm_shard_format(int encode);
/* Their names, which are the extensions of files: "tar", "csv", "npy", "partial". */
extern const char *const sm_shard_words[];
/* "shard-000000.tar", ".csv", ".npy" */
void sm_shard_file(uint64_t shard, enum sm_shard_format format, char name[SM_PART_NAME_MAX]);

struct sm_part; /* an open part, under a temporary name of its own */
int sm_part_open(struct sm_part **gives, const char *dir, const struct sm_part_name *name,
                 struct sm_err *err);
/* Adds the members of one sample: KEY.extension, KEY.cls, KEY.json, in this order. */
int sm_part_add(struct sm_part *p, const char *key, const char *extension, const void *bytes,
                size_t n, uint32_t label, const char *json, size_t json_n, struct sm_err *err);

/* What the rows of a job's shards look like. Everything is kept. */
struct sm_row_format {
    enum sm_shard_format format;    /* SM_SHARD_CSV, SM_SHARD_NPY */
    bool is_double;                 /* float64 leaves, else float32 */
    const struct sm_schema *schema; /* what leaves the pipeline */
    const char *const *classes;     /* n_classes names; a label is written as its class's name */
    uint32_t n_classes;
    const char *row_name; /* the column of sm_row_record.row: "row"; of images "sample" */
    bool copy;            /* samples come more than once: a column says which copy it is */
    bool parents;         /* rows may be synthetic: parent and, but of noise, neighbour and gap */
    bool weight;          /* importance weights */
    struct sm_plan plan;  /* says where shards begin and how long they are */
};
/* The columns behind the features, in their order: label, where the row comes from, its weight.
 * Gives how many. */
enum { SM_ROW_NAMES = 7 };
size_t sm_row_format_names(const struct sm_row_format *f, const char *names[SM_ROW_NAMES]);
/* Where a row comes from. */
struct sm_row_record {
    int64_t row; /* in the source, as a user counts; -1: synthetic */
    uint32_t label, copy;
    int64_t parent, neighbour; /* rows in the source; -1: not synthetic, or parent and noise */
    double gap; /* row = parent + gap x (neighbour - parent); NaN: there is no neighbour */
    float weight;
};
/* A part of rows. Of csv the first part of a shard starts with the names of its columns; of npy
 * with the array's header, so that parts joined are one array of records:
 *
 *   csv  the schema's columns, label, row[, copy][, parent, neighbour, gap][, weight]
 *        RFC 4180, lines end in LF; numbers in the shortest form that reads back equal, categories
 *        and classes as their words, missing cells empty
 *   npy  features float[columns] (a category is its index, a missing cell NaN), label int64 (the
 *        class's index), row int64[, copy int64][, parent int64, neighbour int64, gap float64]
 *        [, weight float32] */
int sm_part_open_rows(struct sm_part **gives, const char *dir, const struct sm_part_name *name,
                      const struct sm_row_format *format, struct sm_err *err);
/* Appends rows->n rows; records has as many. The rows' columns are the schema's. */
int sm_part_rows(struct sm_part *p, const struct sm_rows *rows, const struct sm_row_record *records,
                 struct sm_err *err);

/* The whole of a partial: bytes as a fit left them. */
int sm_part_partial(struct sm_part *p, const void *bytes, size_t n, struct sm_err *err);

/* last: this part ends its shard, so the end-of-archive blocks of a tar are written. fsync, rename,
 * fsync of the folder. Frees. */
int sm_part_finish(struct sm_part **p, bool last, uint64_t *bytes, char sha256[SM_SHA_HEX],
                   struct sm_err *err);
/* Throws the part away. */
void sm_part_abandon(struct sm_part **p);

/* Joins the parts (in order) to the shard; a shard that is already there and has no parts left is
 * only read. One part whose digest is known is renamed. Missing part: SM_E_PART_MISSING. */
int sm_seal(const char *dir, uint64_t shard, enum sm_shard_format format,
            const struct sm_part_name *parts, size_t n_parts, const char *sha256_of_single,
            uint64_t *bytes, char sha256[SM_SHA_HEX], struct sm_err *err);
/* Removes parts and temporary files that no run needs any more. */
void sm_sink_sweep(const char *dir);

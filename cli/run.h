/* The record of an offline run: what it was made from, which shards it wrote, which samples it
 * could not read. Kept while it runs as DIR/.shardmill/run.json, by a slice as
 * DIR/slice-K-of-N.json, and at the end as DIR/manifest.json with DIR/quarantine.jsonl. One
 * function writes the manifest, so N merged slices and one run cannot differ. */
#pragma once

#include "lib/digest.h"
#include "lib/err.h"
#include "lib/plan.h"
#include "lib/wire.h"
#include "pipelines/lang/pipeline.h"
#include "workers/places.h"
#include "workers/sinks/sink.h"

#include <stddef.h>
#include <stdint.h>

#define SM_MANIFEST_VERSION 1
#define SM_MANIFEST_NAME "manifest.json"
#define SM_QUARANTINE_NAME "quarantine.jsonl"
#define SM_STATE_NAME ".shardmill"

struct sm_run_class {
    uint64_t planned;     /* positions of the plan whose sample has this class */
    uint64_t quarantined; /* of these, the ones whose sample could not be read */
    uint64_t in_shards;   /* samples of this class in the shards, substitutes included */
    /* of a job that rebalances, for one copy of the epoch (workers/places.h) */
    uint64_t present, distinct, repeated, synthetic;
    double log_prior_shift, weight;
};

struct sm_shard_record {
    uint64_t shard, samples, bytes;
    char sha256[SM_SHA_HEX];
};

/* One quarantined position. Strings are owned by the run. */
struct sm_bad {
    uint64_t position, sample, line, offset; /* line: of a table, from 1 */
    int64_t row;                             /* of a table: its number in the source; else -1 */
    char *file, *stage, *code, *text;
    uint32_t label;
};

/* A row of a table that is no sample, since it could not be read. Strings are owned by the run. */
struct sm_bad_line {
    uint64_t row, line, offset;
    char *file, *code, *text;
};

struct sm_run {
    char pipeline_digest[SM_XXH_HEX], dataset_digest[SM_XXH_HEX];
    char asked_digest[SM_XXH_HEX]; /* of a pipeline that learns: what the other says, before
                                      anything was learned; else "" */
    char *name, *fingerprint;      /* fingerprint: NULL as long as nobody has worked */
    struct sm_plan plan;
    enum sm_shard_format format;
    uint32_t slice, slices;
    char **classes;
    size_t n_classes;
    struct sm_run_class *counts; /* n_classes */
    bool weights;                /* samples carry importance weights */
    char *part, *rebalance;      /* "train", "val", a method; NULL: no split, no rebalancing */
    char **columns;              /* of rows: names */
    size_t n_columns;
    struct sm_shard_record *shards;
    size_t n_shards, max_shards;
    struct sm_bad *bad;
    size_t n_bad, max_bad;
    struct sm_bad_line *lines;
    size_t n_lines, max_lines;
    uint64_t unreadable; /* rows; their lines are not read back from a manifest */
};

/* What a run is made from. */
struct sm_run_source {
    const struct sm_pipeline *pipeline;
    const struct sm_index *index;
    const struct sm_places *places;
    const struct sm_schema *columns; /* that leave the pipeline; NULL: images do */
    uint32_t epoch, slice, slices;   /* slice K of N, counted from 0; 1 slice is the whole */
};
/* Fills an empty run: digests, plan, counts by class, rows that could not be read. A slice is
 * counted position by position. */
int sm_run_plan(struct sm_run *r, const struct sm_run_source *source, struct sm_err *err);
void sm_run_release(struct sm_run *r);
int sm_run_add_shard(struct sm_run *r, const struct sm_shard_record *record, struct sm_err *err);
/* Whether the plan has a shard like this. Asked of every record that comes from a broker or a file,
 * before it is added. */
bool sm_run_has_shard(const struct sm_run *r, const struct sm_shard_record *record);
/* Copies the strings of *bad. */
int sm_run_keep_bad(struct sm_run *r, const struct sm_bad *bad, struct sm_err *err);
/* The same, and counts it in its class. substitute_label: the class that fills the place. */
int sm_run_add_bad(struct sm_run *r, const struct sm_bad *bad, uint32_t substitute_label,
                   struct sm_err *err);
/* What the broker says of a position. It knows the plan but neither the part of the dataset nor
 * rebalancing: which sample stands there is found out here. */
int sm_run_take_bad(struct sm_run *r, const struct sm_places *places,
                    const Shardmill__Quarantined *q, struct sm_err *err);
/* Of a table: in which file each of the bad ones stands, and where. They are sorted. 1: not all
 * were found, since a file is not what was indexed; err says so. What was made does not depend on
 * it. */
int sm_run_find_bad(struct sm_run *r, const struct sm_places *places, const char *root,
                    struct sm_err *err);
/* In the order of the dataset, then of positions. */
void sm_run_sort_bad(struct sm_run *r);
int sm_run_add_line(struct sm_run *r, const struct sm_bad_line *line, struct sm_err *err);

uint64_t sm_run_planned(const struct sm_run *r);
/* Shards and positions of slice K of N: shards K, K+N, K+2N, … */
uint64_t sm_run_slice_shards(const struct sm_run *r);

/* Names what differs between two runs ("seed (7, was 42)"), or NULL. text is the caller's. Slices
 * are not compared. */
const char *sm_run_differs(const struct sm_run *now, const struct sm_run *before, char *text,
                           size_t text_max);

/* DIR/.shardmill/run.json: the header only. */
int sm_run_write_header(const struct sm_run *r, const char *path, struct sm_err *err);
/* "slice-K-of-N.json" (K from 1): header, counts, records, bad. */
void sm_slice_file(uint32_t slice, uint32_t slices, char name[64]);
int sm_run_write_slice(const struct sm_run *r, const char *dir, struct sm_err *err);
/* Writes quarantine.jsonl, then the manifest: it comes last. Records and bad are sorted first. */
int sm_run_write_manifest(struct sm_run *r, const char *dir, struct sm_err *err);
/* Reads any of the three. Gives. Of the three only a slice's record names its bad ones. */
int sm_run_read(struct sm_run *gives, const char *path, struct sm_err *err);
/* Adds the bad ones to a manifest that was read: they stand beside it in DIR/quarantine.jsonl. */
int sm_run_read_quarantine(struct sm_run *r, const char *dir, struct sm_err *err);

/* A source turns a dataset into an index (once) and an index entry into bytes (for each lease). The
 * index is a file that is mapped read-only: magic, version, classes, entries sorted by path as
 * bytes, strings, times, and a checksum over all. */
#pragma once

#include "lib/digest.h"
#include "lib/err.h"
#include "lib/limits.h"
#include "pipelines/lang/pipeline.h"
#include "workers/table/rows.h"

#include <stdint.h>

struct sm_index; /* a mapped index file, of images or of table rows */

struct sm_entry {
    const char *file;   /* path relative to the source's root; of a tar: the tar's path */
    const char *member; /* of a tar: the member's name without extension (its key); else NULL */
    uint64_t offset, length;
    uint32_t label; /* class index */
    int64_t mtime_ns;
    uint64_t file_bytes; /* of the file as it was when indexed */
    uint64_t checksum;   /* XXH3-64 of the sample's bytes, 0 when not recorded */
};

/* Where the entries' paths start: of `folder` the folder itself, of `list` the folder of the list,
 * of `webdataset` the folder of the tars. */
int sm_source_root(const struct sm_pipeline_source *source, char root[SM_MAX_PATH_BYTES],
                   struct sm_err *err);

/* How a class gets its index: names are sorted as bytes, of a table, list or webdataset by value
 * when all are numbers. When every label of a list, webdataset or table is a whole number, the
 * number is the index, because it goes straight into a loss; numbers that do not occur are classes
 * without samples. */

/* Scans the dataset and writes the index to index_path (temporary name, fsync, rename). An empty
 * dataset, a missing folder, a class without images, a malformed list line or tar: an error that
 * names it. */
int sm_index_build(const struct sm_pipeline_source *source, const char *index_path,
                   struct sm_err *err);
/* Maps and verifies. Gives. */
int sm_index_open(struct sm_index **gives, const char *index_path, struct sm_err *err);
/* The same from bytes in memory that must outlive it (a worker that fetched the index from its
 * broker). */
int sm_index_open_bytes(struct sm_index **gives, const void *bytes, size_t n, struct sm_err *err);
void sm_index_close(struct sm_index **index);

uint64_t sm_index_samples(const struct sm_index *index);
uint32_t sm_index_classes(const struct sm_index *index);
/* How many of them have samples. */
uint32_t sm_index_classes_occur(const struct sm_index *index);
const char *sm_index_class(const struct sm_index *index, uint32_t label);
uint64_t sm_index_class_samples(const struct sm_index *index, uint32_t label);
/* The k-th sample of a class in index order, k < its samples; and which k a sample is. */
uint64_t sm_index_class_sample(const struct sm_index *index, uint32_t label, uint64_t k);
uint64_t sm_index_class_rank(const struct sm_index *index, uint64_t sample);
/* Files that were passed over because they are no images. */
uint64_t sm_index_ignored(const struct sm_index *index);
struct sm_entry sm_index_entry(const struct sm_index *index, uint64_t sample);
/* XXH3-128 over (relative path, member, length, label, checksum) of every entry and the class
 * names: the same on every machine that holds the same files. */
const char *sm_index_dataset_digest(const struct sm_index *index);
/* XXH3-128 of the index file without its times (lib/index.h): the same for the same content and
 * options. */
const char *sm_index_digest(const struct sm_index *index);

/* The label alone; works for images and rows. */
uint32_t sm_index_label(const struct sm_index *index, uint64_t sample);

/* --- tables (csv, npy): a sample is a row ---
 *
 * The index of a csv holds its sound rows as one matrix, so that a row is read without parsing; npy
 * files are read where they lie, by offset. The label's column (and the `split.by` column, if it is
 * named there) is not among the columns. A row that cannot be read is no sample: it is listed.
 *
 * source.path is a file, a folder (its .csv or .npy files in any case, sorted as bytes), a range
 * `x-{00..17}.csv` or a glob; of a csv each file begins with the same header. header auto: the
 * first row is a header when a cell of it is named in the pipeline, or when no cell of it is a
 * number, not all are empty, and those that are not empty differ; a word in it over numbers alone
 * makes it a header, or doubtful (refused) when other cells are numbers, as cells 0, 1, 2, … are. A
 * column without a name is
 * called x and its place ("x0"). label and categorical name a column of the file, or say its number
 * from 0. A column is one of numbers when each cell that is not missing is one; a column in which
 * all are missing too. Blanks around a number or a word for "missing" do not count, elsewhere they
 * do. Without a label every row is of the class "". An infinity is no number that an op could take:
 * its row is listed.
 *
 * npy: two axes, C order, little-endian; of whole numbers of 32 and 64 bits and of f8 the matrix is
 * float64, else float32. label is a file (or several) seen from the arrays' folder, one axis of
 * whole numbers or names, as many as all arrays have rows. */

bool sm_index_is_table(const struct sm_index *index);
/* Lends: columns, kinds, categories, element type. */
const struct sm_schema *sm_index_schema(const struct sm_index *index);
/* Number of the row in the source, as a user counts: data rows from 0, bad ones counted too. */
uint64_t sm_index_row(const struct sm_index *index, uint64_t sample);
/* The group of a row: XXH3-64 of the text of the split.by column; 0 when there is none. */
uint64_t sm_index_group(const struct sm_index *index, uint64_t sample);

/* Whether a table's files have the sizes and times that were indexed; of images: true, each is
 * looked at when it is read. */
bool sm_index_is_current(const struct sm_index *index, const char *root);

struct sm_bad_row {
    uint64_t row, line, offset; /* line from 1 (npy: row of the array), byte offset in the file */
    const char *file, *text;    /* what is wrong, for people; never empty */
    enum sm_code code;
};
uint64_t sm_index_bad_rows(const struct sm_index *index);
struct sm_bad_row sm_index_bad_row(const struct sm_index *index, uint64_t k);

/* Where rows stand in their files, for people who look for one: a csv is read from the last mark
 * of its index on, so rows that are asked for in ascending order are found in one reading. */
struct sm_finder;
struct sm_found {
    const char *file;      /* lent by the index */
    uint64_t line, offset; /* as of a bad row */
};
/* Keeps what it is given. root: of the source. */
int sm_finder_open(struct sm_finder **gives, const struct sm_index *index,
                   const struct sm_pipeline_source *source, const char *root, struct sm_err *err);
void sm_finder_close(struct sm_finder **f);
/* SM_E_CHANGED: a file is not the indexed one. Then too found->file says which, and the line is 0.
 */
int sm_finder_find(struct sm_finder *f, uint64_t sample, struct sm_found *found,
                   struct sm_err *err);

/* Reads rows into memory, in bounded pieces by pread (fits), or gathers any rows (leases). */
struct sm_table; /* belongs to one thread */
int sm_table_open(struct sm_table **gives, const struct sm_index *index, const char *root,
                  struct sm_err *err);
void sm_table_close(struct sm_table **t);
/* out is allocated with n rows and the schema's columns and type. samples: n index numbers, in any
 * order, NULL: first, first + 1, … . SM_E_IO, SM_E_CHANGED as sm_reader_read. */
int sm_table_read(struct sm_table *t, const uint64_t *samples, uint64_t first, size_t n,
                  struct sm_rows *out, struct sm_err *err);
/* A row where it lies, as elements of the schema's type: what is made of rows needs no copy of
 * them. Lends until the table is closed. NULL: the table lies in no memory, and its rows must be
 * read. */
const void *sm_table_lend(struct sm_table *t, uint64_t sample);

/* Reads a sample's bytes into the caller's memory (out_max >= entry.length, else SM_E_TOO_LARGE).
 * EIO, ESTALE and the like are tried again with growing pauses, then SM_E_IO; a file whose size or
 * mtime is not the indexed one: SM_E_CHANGED, by name; of an entry with a checksum that decides,
 * and not the time. Keeps the last few files open. */
struct sm_reader;
struct sm_reader *sm_reader_new(const char *root);
void sm_reader_free(struct sm_reader **r);
int sm_reader_read(struct sm_reader *r, const struct sm_entry *entry, void *out, size_t out_max,
                   struct sm_err *err);

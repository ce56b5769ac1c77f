/* The pipeline file: YAML in, checked structs out. Parsing knows no op by itself: the caller hands
 * in the table of ops. Next in the flow: lib/plan.h says what stands where, workers/engine.h runs
 * the ops. */
#pragma once

#include "lib/arena.h"
#include "lib/buf.h"
#include "lib/digest.h"
#include "lib/err.h"
#include "lib/param.h"

#include <stdbool.h>
#include <stdint.h>

/* What the pipeline file may say about one op. */
struct sm_op_info {
    const char *name;    /* "RandomResizedCrop", as in torchvision.transforms.v2 */
    const char *doc;     /* one or two sentences */
    const char *example; /* one line of YAML, `RandomResizedCrop: {size: 224}` */
    const struct sm_param *params;
    size_t n_params, params_size;
    bool control; /* has a parameter of type SM_T_OPS */
    bool rows;    /* works on rows, not on images */
};

/* One op of the file. params is the op's own struct, every default filled in. */
struct sm_op_node {
    const struct sm_op_info *info;
    void *params;
    struct sm_op_node *children; /* of a control op */
    size_t n_children;
    int line, column; /* 1-based; where its name stands */
    size_t offset;    /* the same in bytes */
};

enum sm_source_format {
    SM_SOURCE_FOLDER,
    SM_SOURCE_LIST,
    SM_SOURCE_WEBDATASET,
    SM_SOURCE_CSV,
    SM_SOURCE_NPY
};
enum sm_on_error { SM_ON_ERROR_QUARANTINE, SM_ON_ERROR_FAIL };
enum sm_mode { SM_MODE_RGB, SM_MODE_L };
enum sm_layout { SM_LAYOUT_NCHW, SM_LAYOUT_NHWC, SM_LAYOUT_ROWS /* features; not in files */ };
/* AUTO is resolved by the parser: uint8 for images, float32 for features. */
enum sm_dtype {
    SM_DTYPE_UINT8,
    SM_DTYPE_FLOAT32,
    SM_DTYPE_FLOAT16,
    SM_DTYPE_BFLOAT16,
    SM_DTYPE_FLOAT64,
    SM_DTYPE_AUTO
};
/* AUTO is resolved by the parser: jpeg for images, csv for features. */
enum sm_encode {
    SM_ENCODE_JPEG,
    SM_ENCODE_PNG,
    SM_ENCODE_WEBP,
    SM_ENCODE_TENSOR,
    SM_ENCODE_CSV,
    SM_ENCODE_NPY,
    SM_ENCODE_AUTO
};

struct sm_pipeline_source {
    int format;       /* enum sm_source_format */
    const char *path; /* relative to the pipeline file's folder; made absolute by the caller */
    int on_error;     /* enum sm_on_error */
    int mode;         /* enum sm_mode: what every image is turned into when it is read */
    struct sm_nums background; /* null: alpha is dropped, as PIL's convert does; else blended over
                                  this colour */
    bool exif;                 /* apply the EXIF orientation */
    bool gif, tiff;            /* read these formats too */
    bool checksum; /* record a checksum of each file in the index and verify it at every read */
    /* tables */
    const char *label;       /* name or number of the label's column (csv), file of labels (npy) */
    const char *delimiter;   /* csv: one ASCII character */
    const char *decimal;     /* csv: one ASCII character, the point of a number */
    bool skip_initial_space; /* csv: spaces at the beginning of a cell do not belong to it */
    int header;              /* csv: enum sm_csv_header */
    struct sm_strs missing;  /* csv: cells that mean "missing", beside the empty one */
    struct sm_strs categorical; /* columns that are categories even where every cell is a number */
    struct sm_strs numeric;     /* csv: columns of numbers; a row with another word there is bad */
    bool float64;               /* elements of the matrix; else float32 */
    const char *group; /* split.by, so that the index keeps the groups; set by the parser */
};
enum sm_csv_header { SM_HEADER_AUTO, SM_HEADER_TRUE, SM_HEADER_FALSE };

/* A part of the dataset that is held out. */
struct sm_pipeline_split {
    double val;     /* share of the samples, 0: no split */
    const char *by; /* column whose groups stay together, or NULL */
    bool stratify;  /* the same share of each class */
};
enum sm_part_of { SM_PART_TRAIN, SM_PART_VAL };

struct sm_pipeline_output {
    int64_t batch_size; /* per rank */
    bool shuffle, drop_last;
    int layout, dtype;
    bool weights; /* each sample's importance weight, in batches and in what is expanded */
};

struct sm_pipeline_expand {
    int64_t copies;
    bool originals; /* copy 0 is the source file's own bytes */
    int encode;     /* enum sm_encode */
    int64_t quality;
    int64_t samples_per_shard;
};

struct sm_pipeline {
    int64_t version;
    const char *name;
    int64_t seed; /* >= 0 */
    struct sm_pipeline_source source;
    struct sm_pipeline_split split;
    int part; /* enum sm_part_of: of which part a job is; set by commands, not in files by users */
    struct sm_op_node *rebalance; /* NULL: none; its info is one of the rebalance table's */
    size_t rebalance_after; /* how many of the ops come before synthetic rows are made; set by the
                               parser from the op that the method names (a parameter that
                               names_op), 0: they are made of rows of the source */
    struct sm_op_node *ops;
    size_t n_ops;
    /* SHA-256 of what each top-level op has learned, "" for none; count 0 before the fits. Filled
     * by cli/fit.c; part of the JSON and of the digest. */
    struct sm_strs artifacts;
    const char *rebalance_artifact; /* of SMOTE: its neighbours; NULL */
    struct sm_pipeline_output output;
    struct sm_pipeline_expand expand;
    struct sm_arena arena; /* owns all of the above */
};

/* Finds an op by name (NULL when there is none) and lists the names for hints. */
struct sm_op_table {
    const struct sm_op_info *(*find)(const char *name);
    const char *const *names;
    size_t n_names;
    /* What ranges cannot say about an op's parameters; the caret of its error points at the op.
     * Optional. */
    int (*check)(const struct sm_op_info *info, const void *params, struct sm_err *err);
    /* Methods of `rebalance:`, another table of the same kind; its check is called for them. */
    const struct sm_op_table *rebalance;
};
/* Whether rows leave the pipeline (a table, or images behind Flatten) rather than images. */
bool sm_pipeline_is_rows(const struct sm_pipeline *p);
bool sm_source_is_table(const struct sm_pipeline_source *s);
/* How many top-level ops work on images: those before Flatten, which counts too; all of them when
 * images leave the pipeline; none of a table's. */
size_t sm_pipeline_image_ops(const struct sm_pipeline *p);

/* Parses text (of file `name`, which is used in errors only). On failure err->text has
 * "file:line:column: what", the offending line, a caret under the column and the nearest valid name
 * or the range. Gives *p, to be released in any case. */
int sm_pipeline_parse(struct sm_pipeline *p, const char *name, const char *text, size_t n,
                      const struct sm_op_table *ops, struct sm_err *err);
/* Reads and parses a file; source.path becomes relative to the working directory or absolute. */
int sm_pipeline_load(struct sm_pipeline *p, const char *path, const struct sm_op_table *ops,
                     struct sm_err *err);
void sm_pipeline_release(struct sm_pipeline *p);

/* The resolved pipeline as canonical JSON: every default filled in (but for `later` rows), keys in
 * the order of the tables, no white space. It is itself a valid pipeline file that parses to the
 * same structs; workers and cages get this text. */
void sm_pipeline_json(const struct sm_pipeline *p, struct sm_buf *out);
/* XXH3-128 over that JSON without name, seed and source.path: what, with dataset and seed, decides
 * every byte. */
void sm_pipeline_digest(const struct sm_pipeline *p, char hex[SM_XXH_HEX]);

/* The tables of the file's sections, for help, schema and docs. */
struct sm_section {
    const char *name; /* "" for the top level */
    const char *doc;
    const struct sm_param *params;
    size_t n_params;
};
extern const struct sm_section sm_sections[];
extern const size_t sm_sections_count;

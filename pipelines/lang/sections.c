/* The tables of the pipeline file: every key outside of the ops, its default and its limits. The
 * parser, `explain`, the schema and the documents read these rows and nothing else, so a new key is
 * one row and one member of a struct. */
#include "lib/limits.h"
#include "pipelines/lang/pipeline.h"

#include <stddef.h>

/* In the order of the enums of pipeline.h. */
static const char *const formats[] = {"folder", "list", "webdataset", "csv", "npy", NULL};
static const char *const on_errors[] = {"quarantine", "fail", NULL};
static const char *const modes[] = {"RGB", "L", NULL};
static const char *const layouts[] = {"NCHW", "NHWC", NULL};
static const char *const dtypes[] = {"uint8",   "float32", "float16", "bfloat16",
                                     "float64", "auto",    NULL};
static const char *const headers[] = {"auto", "yes", "no", NULL};
static const char *const parts[] = {"train", "val", NULL};
static const char *const encodes[] = {"jpeg", "png", "webp", "tensor", "csv", "npy", "auto", NULL};

#define TOP(member) offsetof(struct sm_pipeline, member)
static const struct sm_param top[] = {
    {.name = "version",
     .type = SM_T_INT,
     .offset = TOP(version),
     .min = 1,
     .max = 1,
     .doc = "version of this file format"},
    {.name = "name",
     .type = SM_T_STR,
     .offset = TOP(name),
     .dflt = "null",
     .null_ok = true,
     .doc = "name of the pipeline, for people; null: the file's name"},
    {.name = "seed",
     .type = SM_T_INT,
     .offset = TOP(seed),
     .dflt = "0",
     .max = (double)INT64_MAX,
     .doc = "with pipeline and dataset it decides every byte"},
    {.name = "rebalance",
     .type = SM_T_METHOD,
     .offset = TOP(rebalance),
     .dflt = "null",
     .null_ok = true,
     .doc = "how an epoch is drawn from skewed classes: one method, as {SMOTE: {k_neighbors: 5}}"},
    {.name = "ops", .type = SM_T_OPS, .dflt = "[]", .doc = "what is done to each sample, in order"},
    {.name = "part",
     .type = SM_T_ENUM,
     .offset = TOP(part),
     .dflt = "train",
     .choices = parts,
     .hidden = true,
     .doc = "which part of the split a job is of"},
    {.name = "artifacts",
     .type = SM_T_STRS,
     .offset = TOP(artifacts),
     .dflt = "[]",
     .hidden = true,
     .doc = "SHA-256 of what each op has learned"},
    {.name = "rebalance_artifact",
     .type = SM_T_STR,
     .offset = TOP(rebalance_artifact),
     .dflt = "null",
     .null_ok = true,
     .hidden = true,
     .doc = "SHA-256 of the neighbours of a method"},
};

#define SOURCE(member) offsetof(struct sm_pipeline, source.member)
static const struct sm_param source[] = {
    {.name = "format",
     .type = SM_T_ENUM,
     .offset = SOURCE(format),
     .dflt = "folder",
     .choices = formats,
     .doc = "folder: a subfolder for each class; list: a text file of paths and labels; "
            "webdataset: tar shards; csv, npy: table rows"},
    {.name = "path",
     .type = SM_T_STR,
     .offset = SOURCE(path),
     .doc = "where the data lies, seen from the pipeline file's folder; several files of a table "
            "go in the order of their names as bytes (a10 before a9); --source overrides it"},
    {.name = "on_error",
     .type = SM_T_ENUM,
     .offset = SOURCE(on_error),
     .dflt = "quarantine",
     .choices = on_errors,
     .doc = "a sample that cannot be read is put on a list and replaced, or stops the run"},
    {.name = "mode",
     .type = SM_T_ENUM,
     .offset = SOURCE(mode),
     .dflt = "RGB",
     .choices = modes,
     .doc = "what every image is turned into when it is read: colour or grey"},
    {.name = "background",
     .type = SM_T_NUMS,
     .offset = SOURCE(background),
     .dflt = "null",
     .max = 255,
     .count_min = 3,
     .count_max = 3,
     .null_ok = true,
     .integral = true,
     .doc = "colour under transparent pixels; null: the alpha channel is dropped"},
    {.name = "exif",
     .type = SM_T_BOOL,
     .offset = SOURCE(exif),
     .dflt = "true",
     .doc = "turn photos upright as their EXIF orientation says"},
    {.name = "gif",
     .type = SM_T_BOOL,
     .offset = SOURCE(gif),
     .dflt = "false",
     .doc = "read GIF files too, their first frame"},
    {.name = "tiff",
     .type = SM_T_BOOL,
     .offset = SOURCE(tiff),
     .dflt = "false",
     .doc = "read TIFF files too"},
    {.name = "checksum",
     .type = SM_T_BOOL,
     .offset = SOURCE(checksum),
     .dflt = "false",
     .doc = "record a checksum of each sample in the index and verify it at every read"},
    {.name = "label",
     .type = SM_T_STR,
     .offset = SOURCE(label),
     .dflt = "null",
     .null_ok = true,
     .whole_ok = true,
     .doc = "csv: name or number (from 0) of the column of labels; npy: the file of labels, seen "
            "from the data's folder; each value is a class, and when all are whole numbers from 0 "
            "on they are the classes' numbers, with empty classes between them"},
    {.name = "delimiter",
     .type = SM_T_STR,
     .offset = SOURCE(delimiter),
     .dflt = ",",
     .doc = "csv: the character between cells"},
    {.name = "skip_initial_space",
     .type = SM_T_BOOL,
     .offset = SOURCE(skip_initial_space),
     .dflt = "false",
     .yes_ok = true,
     .doc = "csv: spaces before a cell, and before its quote, do not count"},
    {.name = "header",
     .type = SM_T_ENUM,
     .offset = SOURCE(header),
     .dflt = "auto",
     .choices = headers,
     .yes_ok = true,
     .doc = "csv: whether the first row holds the names of the columns; auto: when a cell is named "
            "in this file, or none is a number and all differ; else refused if a word stands over "
            "numbers"},
    {.name = "missing",
     .type = SM_T_STRS,
     .offset = SOURCE(missing),
     .dflt = "null",
     .null_ok = true,
     .doc = "csv: words that mean a missing cell, beside the empty one; null: NA, N/A, NaN, nan, "
            "null, NULL, None and pandas' others; not '?'"},
    {.name = "categorical",
     .type = SM_T_STRS,
     .offset = SOURCE(categorical),
     .dflt = "[]",
     .doc = "csv: columns that are categories although all their cells are numbers"},
    {.name = "numeric",
     .type = SM_T_STRS,
     .offset = SOURCE(numeric),
     .dflt = "[]",
     .later = true,
     .doc = "csv: columns of numbers; a row with any other word there is quarantined, where else "
            "the column became categories"},
    {.name = "float64",
     .type = SM_T_BOOL,
     .offset = SOURCE(float64),
     .dflt = "false",
     .yes_ok = true,
     .doc = "csv, npy: rows flow through the ops as float64 instead of float32; not said, as "
            "output.dtype"},
};

#define SPLIT(member) offsetof(struct sm_pipeline, split.member)
static const struct sm_param split[] = {
    {.name = "val",
     .type = SM_T_NUM,
     .offset = SPLIT(val),
     .dflt = "0",
     .max = 0.99,
     .doc = "share of the samples that is held out for validation, rounded to a whole number of "
            "samples (by: as near as whole groups come), 0: none; a part without samples is "
            "refused"},
    {.name = "by",
     .type = SM_T_STR,
     .offset = SPLIT(by),
     .dflt = "null",
     .null_ok = true,
     .whole_ok = true,
     .doc = "column whose equal values (a person, a day) never stand in both parts; it is no "
            "feature"},
    {.name = "stratify",
     .type = SM_T_BOOL,
     .offset = SPLIT(stratify),
     .dflt = "true",
     .doc = "hold out the same share of each class: rounded down, and one more where the fraction "
            "is largest; a class of one sample stays in training"},
};

#define OUTPUT(member) offsetof(struct sm_pipeline, output.member)
static const struct sm_param output[] = {
    {.name = "batch_size",
     .type = SM_T_INT,
     .offset = OUTPUT(batch_size),
     .dflt = "32",
     .min = 1,
     .max = 65536,
     .doc = "samples of a batch, for each rank"},
    {.name = "shuffle",
     .type = SM_T_BOOL,
     .offset = OUTPUT(shuffle),
     .dflt = "true",
     .doc = "deal the samples in an order that the seed decides"},
    {.name = "drop_last",
     .type = SM_T_BOOL,
     .offset = OUTPUT(drop_last),
     .dflt = "false",
     .doc = "leave out a last batch that is not full"},
    {.name = "layout",
     .type = SM_T_ENUM,
     .offset = OUTPUT(layout),
     .dflt = "NCHW",
     .choices = layouts,
     .doc = "order of a tensor's axes: channels first or last"},
    {.name = "dtype",
     .type = SM_T_ENUM,
     .offset = OUTPUT(dtype),
     .dflt = "auto",
     .choices = dtypes,
     .doc = "type of a tensor's elements; auto: uint8, of rows float32"},
    {.name = "weights",
     .type = SM_T_BOOL,
     .offset = OUTPUT(weights),
     .dflt = "false",
     .later = true,
     .doc = "each sample with its importance weight, natural / drawn probability: in every batch "
            "and in shards; 1 without 'rebalance'; a column of weights stays a feature unless "
            "DropColumns takes it"},
};

#define EXPAND(member) offsetof(struct sm_pipeline, expand.member)
static const struct sm_param expand[] = {
    {.name = "copies",
     .type = SM_T_INT,
     .offset = EXPAND(copies),
     .dflt = "1",
     .min = 1,
     .max = SM_MAX_COPIES,
     .doc = "copies of each sample, every one with its own draws"},
    {.name = "originals",
     .type = SM_T_BOOL,
     .offset = EXPAND(originals),
     .dflt = "false",
     .doc = "copy 0 is the source file's own bytes"},
    {.name = "encode",
     .type = SM_T_ENUM,
     .offset = EXPAND(encode),
     .dflt = "auto",
     .choices = encodes,
     .doc = "file format of the samples in the shards; tensor: .npy; csv, npy: shards of rows; "
            "auto: jpeg, of rows csv"},
    {.name = "quality",
     .type = SM_T_INT,
     .offset = EXPAND(quality),
     .dflt = "90",
     .min = 1,
     .max = 100,
     .doc = "quality of jpeg and webp"},
    {.name = "samples_per_shard",
     .type = SM_T_INT,
     .offset = EXPAND(samples_per_shard),
     .dflt = "1000",
     .min = 1,
     .max = SM_MAX_SHARD_SAMPLES,
     .doc = "samples of a shard; the last shard may hold fewer"},
};

#define ROWS(table) .params = table, .n_params = sizeof table / sizeof *table
const struct sm_section sm_sections[] = {
    {.name = "", .doc = "top level of the file", ROWS(top)},
    {.name = "source", .doc = "where the samples come from", ROWS(source)},
    {.name = "split", .doc = "what is held out for validation", ROWS(split)},
    {.name = "output", .doc = "how samples are dealt to batches and shards", ROWS(output)},
    {.name = "expand", .doc = "offline runs: what is written to the shards", ROWS(expand)},
};
const size_t sm_sections_count = sizeof sm_sections / sizeof *sm_sections;

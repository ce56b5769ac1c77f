/* The tables of the pipeline file: every key outside of the ops, its default and its limits. The
 * parser, `explain`, the schema and the documents read these rows and nothing else, so a new key is
 * one row and one member of a struct. */
#include "lib/limits.h"
#include "pipelines/lang/pipeline.h"

#include <stddef.h>

/* In the order of the enums of pipeline.h. */
static const char *const formats[] = {"folder", "list", "webdataset", NULL};
static const char *const on_errors[] = {"quarantine", "fail", NULL};
static const char *const modes[] = {"RGB", "L", NULL};
static const char *const layouts[] = {"NCHW", "NHWC", NULL};
static const char *const dtypes[] = {"uint8", "float32", "float16", "bfloat16", NULL};
static const char *const encodes[] = {"jpeg", "png", "webp", "tensor", NULL};

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
    {.name = "ops", .type = SM_T_OPS, .dflt = "[]", .doc = "what is done to each sample, in order"},
};

#define SOURCE(member) offsetof(struct sm_pipeline, source.member)
static const struct sm_param source[] = {
    {.name = "format",
     .type = SM_T_ENUM,
     .offset = SOURCE(format),
     .dflt = "folder",
     .choices = formats,
     .doc = "folder: a subfolder for each class; list: a text file of paths and labels; "
            "webdataset: tar shards"},
    {.name = "path",
     .type = SM_T_STR,
     .offset = SOURCE(path),
     .doc = "where the data lies, seen from the pipeline file's folder; --source overrides it"},
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
     .dflt = "uint8",
     .choices = dtypes,
     .doc = "type of a tensor's elements"},
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
     .dflt = "jpeg",
     .choices = encodes,
     .doc = "file format of the samples in the shards; tensor: .npy"},
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
    {.name = "output", .doc = "how samples are dealt to batches and shards", ROWS(output)},
    {.name = "expand", .doc = "offline runs: what is written to the shards", ROWS(expand)},
};
const size_t sm_sections_count = sizeof sm_sections / sizeof *sm_sections;

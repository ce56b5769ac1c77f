/* `shardmill preview`: the sources beside what a trainer would see. Next in the flow:
 * cli/preview.c. */
#include "cli/cli.h"
#include "cli/preview.h"
#include "workers/engine.h"

#include <string.h>
#include <strings.h>

struct values {
    struct sm_common common;
    const char *out, *class_name;
    int64_t samples, copies, tile, epoch;
};

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n;
    struct sm_err err = {0};
    struct sm_pipeline pipeline;
    struct sm_engine *engine = NULL;
    size_t length = strlen(v->out);
    if (length < 4 || strcasecmp(v->out + length - 4, ".png") != 0) {
        sm_fail(&err, SM_E_USAGE, "'%s' is not the name of a PNG (hint: -o sheet.png)", v->out);
        return sm_cli_fail(&err);
    }
    int r = sm_cli_load(&pipeline, operands[0], &v->common, &err);
    if (r == 0) r = sm_engine_start("shardmill", &err);
    if (r == 0) r = sm_engine_new(&engine, &pipeline, 0, &err);
    sm_engine_free(&engine);
    struct sm_preview_options options = {.out_path = v->out,
                                         .samples = v->samples,
                                         .copies = v->copies,
                                         .tile = v->tile,
                                         .class_name = v->class_name,
                                         .epoch = (uint32_t)v->epoch,
                                         .no_sandbox = !v->common.sandbox,
                                         .no_fuse = !v->common.fuse};
    if (r == 0) r = sm_preview(&pipeline, &options, &err);
    sm_pipeline_release(&pipeline);
    if (r < 0) return sm_cli_fail(&err);
    if (!v->common.quiet) printf("%s\n", v->out);
    return SM_EXIT_DONE;
}

#define AT(member) offsetof(struct values, member)
static const struct sm_option options[] = {
    {.param = {.name = "out", .type = SM_T_STR, .offset = AT(out), .doc = "the PNG to write"},
     .metavar = "SHEET.png",
     .letter = 'o',
     .required = true},
    SM_OPTION_SOURCE,
    SM_OPTION_SEED,
    {.param = {.name = "samples",
               .type = SM_T_INT,
               .offset = AT(samples),
               .dflt = "8",
               .min = 1,
               .max = 256,
               .doc = "rows of the sheet, taken from all classes in turn"},
     .metavar = "N",
     .letter = 'n'},
    {.param = {.name = "copies",
               .type = SM_T_INT,
               .offset = AT(copies),
               .dflt = "3",
               .min = 1,
               .max = 15,
               .doc = "augmented pictures beside each source"},
     .metavar = "N"},
    {.param = {.name = "tile",
               .type = SM_T_INT,
               .offset = AT(tile),
               .dflt = "224",
               .min = 64,
               .max = 1024,
               .doc = "side of a picture on the sheet in pixels; larger ones are shrunk"},
     .metavar = "N"},
    {.param = {.name = "class",
               .type = SM_T_STR,
               .offset = AT(class_name),
               .doc = "only samples of this class"},
     .metavar = "NAME"},
    SM_OPTION_EPOCH(AT(epoch)),
    SM_OPTION_FUSE,
    SM_OPTION_SANDBOX,
    SM_OPTION_QUIET,
};
static const char *const examples[] = {
    "shardmill preview pipelines/photos.yaml --source ~/pets -o sheet.png",
    "shardmill preview photos.yaml -o cats.png --class cat --samples 12", NULL};

const struct sm_command sm_cmd_preview = {
    .name = "preview",
    .order = 10,
    .brief = "a contact sheet: sources beside what a trainer would see",
    .operands = "FILE",
    .operands_min = 1,
    .operands_max = 1,
    .operand = SM_OPERAND_PIPELINE,
    .details =
        "Each row shows a source, its class and file, and its augmented copies with everything that chance decided: "
        "the same draws as in `expand`. A sample that cannot be read shows why. Normalize is left out, since its "
        "result is no picture.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

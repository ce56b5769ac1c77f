/* `shardmill preview`: the sources beside what a trainer would see. Next in the flow:
 * cli/preview.c. */
#include "cli/cli.h"
#include "cli/preview.h"
#include "cli/shape.h"
#include "cli/stream.h"

#include <string.h>
#include <strings.h>

struct values {
    struct sm_common common;
    const char *out, *class_name, *state;
    int64_t samples, copies, tile, epoch;
};

static bool ends_in(const char *name, const char *end) {
    const size_t n = strlen(name), m = strlen(end);
    return n > m && strcasecmp(name + n - m, end) == 0;
}

/* Images need a PNG, rows of a table text. */
static int check_out(const struct sm_pipeline *p, const char *out, struct sm_err *err) {
    if (sm_source_is_table(&p->source)) {
        if (out == NULL || ends_in(out, ".txt") || ends_in(out, ".csv")) return 0;
        return sm_fail(err, SM_E_USAGE,
                       "'%s' is not the name of a text: rows of a table are shown as text (hint: "
                       "no -o, or -o rows.txt, or -o rows.csv)",
                       out);
    }
    if (out == NULL)
        return sm_fail(err, SM_E_USAGE, "images are shown on a sheet (hint: -o sheet.png)");
    if (ends_in(out, ".png")) return 0;
    return sm_fail(err, SM_E_USAGE, "'%s' is not the name of a PNG (hint: -o sheet.png)", out);
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n;
    struct sm_err err = {0};
    struct sm_pipeline pipeline;
    struct sm_shape shape;
    int r = sm_cli_load(&pipeline, operands[0], &v->common, &err);
    if (r == 0) r = check_out(&pipeline, v->out, &err);
    if (r == 0) r = sm_cli_compile(&pipeline, operands[0], &shape, NULL, &err);
    struct sm_preview_options options = {.out_path = v->out,
                                         .samples = v->samples,
                                         .copies = v->copies,
                                         .tile = v->tile,
                                         .class_name = v->class_name,
                                         .epoch = (uint32_t)v->epoch,
                                         .state_dir = v->state,
                                         .common = &v->common};
    if (r == 0) {
        r = sm_preview(&pipeline, &options, &err);
        if (r < 0 && err.code == SM_E_PIPELINE) sm_err_context(&err, "%s", operands[0]);
    }
    sm_pipeline_release(&pipeline);
    if (r < 0) return sm_cli_fail(&err);
    if (!v->common.quiet && v->out != NULL) printf("%s\n", v->out);
    return SM_EXIT_DONE;
}

#define AT(member) offsetof(struct values, member)
static const struct sm_option options[] = {
    {.param = {.name = "out",
               .type = SM_T_STR,
               .offset = AT(out),
               .doc =
                   "the PNG to write; of a table a .txt or .csv (without this: standard output)"},
     .metavar = "FILE",
     .letter = 'o'},
    SM_OPTION_SOURCE,
    SM_OPTION_SEED,
    {.param = {.name = "samples",
               .type = SM_T_INT,
               .offset = AT(samples),
               .dflt = "8",
               .min = 1,
               .max = 256,
               .doc = "samples, taken from all classes in turn; of a table the first of the epoch"},
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
    SM_OPTION_STATE(AT(state),
                    "folder where what the ops learn is kept, made only for such pipelines"),
    SM_OPTION_WORKERS,
    SM_OPTION_FUSE,
    SM_OPTION_SANDBOX,
    SM_OPTION_QUIET,
};
static const char *const examples[] = {
    "shardmill preview pipelines/photos.yaml --source ~/pets -o sheet.png",
    "shardmill preview photos.yaml -o cats.png --class cat --samples 12",
    "shardmill preview table.yaml --samples 5", NULL};

const struct sm_command sm_cmd_preview = {
    .name = "preview",
    .order = 10,
    .brief = "what a trainer would see: a contact sheet of images, rows of a table",
    .operands = "FILE",
    .operands_min = 1,
    .operands_max = 1,
    .operand = SM_OPERAND_PIPELINE,
    .details =
        "Each row shows a source, its class and file, and its augmented copies with everything that chance decided: "
        "the same draws as in `expand`. A sample that cannot be read shows why. Normalize is left out, since its "
        "result is no picture. Images that become features show what PCA has learned (mean, components, explained "
        "variance) and what the features keep of some samples. Of a table the first rows are printed as read and as "
        "a trainer gets them, then the rows that are quarantined. What ops learn is fitted first, or found.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

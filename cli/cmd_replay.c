/* `shardmill replay`: a batch that a trainer saw, again. Next in the flow: cli/replay.c. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/replay.h"
#include "cli/stream.h"
#include "lib/fs.h"
#include "workers/engine.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct values {
    struct sm_common common;
    const char *sheet, *tensor, *weights, *state;
    int64_t epoch, step, rank, world_size, position;
};

/* From a file: the index goes through a folder that is gone when this returns (it is mapped). */
static int open_file(struct sm_replay *r, const char *file, const struct values *v,
                     struct sm_err *err) {
    char dir[SM_MAX_PATH_BYTES];
    if (sm_fs_scratch_begin(dir, err) < 0) return -1;
    const struct sm_stream_options options = {
        .common = &v->common, .state_dir = dir, .learned = v->state};
    struct sm_stream stream;
    int result = sm_stream_open(&stream, file, &options, err);
    if (result == 0)
        result = sm_replay_open_spec(r, stream.id, &stream.spec, !v->common.sandbox, err);
    sm_fs_scratch_end();
    sm_stream_release(&stream);
    return result;
}

/* Whether a name can only be that of a file. */
static bool is_path(const char *name) {
    const char *dot = strrchr(name, '.');
    return strchr(name, '/') != NULL ||
           (dot != NULL && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0));
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n;
    struct sm_err err = {0};
    struct sm_replay r = {0};
    struct stat st;
    if (v->rank >= v->world_size) {
        sm_fail(&err, SM_E_USAGE,
                "--rank is %" PRId64 ", wanted less than --world-size, which is %" PRId64, v->rank,
                v->world_size);
        return sm_cli_fail(&err);
    }
    const char *endpoint = v->common.broker != NULL ? v->common.broker : SM_BROKER_ENDPOINT;
    bool file = v->common.broker == NULL && stat(operands[0], &st) == 0 && !S_ISDIR(st.st_mode);
    if (!file && v->common.broker == NULL && is_path(operands[0])) {
        sm_fail(&err, SM_E_USAGE, "'%s' is no file (hint: a pipeline file, or a job's name)",
                operands[0]);
        return sm_cli_fail(&err);
    }
    int result = sm_engine_start("shardmill", &err);
    if (result == 0)
        result = file ? open_file(&r, operands[0], v, &err)
                      : sm_replay_open_job(&r, endpoint, operands[0], !v->common.sandbox, &err);
    const struct sm_replay_step step = {.epoch = (uint32_t)v->epoch,
                                        .rank = (uint32_t)v->rank,
                                        .world_size = (uint32_t)v->world_size,
                                        .step = (uint64_t)v->step,
                                        .position = (uint64_t)v->position};
    if (result == 0) result = sm_replay_make(&r, &step, &err);
    if (result == 0 && v->tensor != NULL) result = sm_replay_write_tensor(&r, v->tensor, &err);
    if (result == 0 && v->weights != NULL) result = sm_replay_write_weights(&r, v->weights, &err);
    if (result == 0 && v->sheet != NULL) result = sm_replay_write_sheet(&r, v->sheet, &err);
    if (result == 0)
        printf("{\"epoch\":%u,\"step\":%" PRIu64
               ",\"samples\":%u,\"padding\":%u,\"digest\":\"%s\"}\n",
               r.batch.epoch, r.batch.step, r.batch.count, r.padding, r.digest);
    sm_replay_release(&r);
    return result == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

#define AT(member) offsetof(struct values, member)
#define INT(option, member, deflt, least, most, text) \
    {                                                 \
        .param = {.name = option,                     \
                  .type = SM_T_INT,                   \
                  .offset = AT(member),               \
                  .dflt = deflt,                      \
                  .min = least,                       \
                  .max = most,                        \
                  .doc = text},                       \
        .metavar = "N"                                \
    }
static const struct sm_option options[] = {
    {.param = {.name = "out",
               .type = SM_T_STR,
               .offset = AT(sheet),
               .doc = "a contact sheet of the batch"},
     .metavar = "SHEET.png",
     .letter = 'o'},
    {.param = {.name = "tensor",
               .type = SM_T_STR,
               .offset = AT(tensor),
               .doc = "the batch's tensor, as numpy.load reads it"},
     .metavar = "FILE.npy"},
    {.param = {.name = "weights",
               .type = SM_T_STR,
               .offset = AT(weights),
               .doc = "its importance weights likewise, of a pipeline with output.weights"},
     .metavar = "FILE.npy"},
    INT("epoch", epoch, "0", 0, (double)UINT32_MAX, "which epoch, from 0 on"),
    {.param = {.name = "step",
               .type = SM_T_INT,
               .offset = AT(step),
               .max = 1e15,
               .doc = "which step of it, from 0 on"},
     .metavar = "N",
     .required = true},
    INT("rank", rank, "0", 0, 65535, "whose batch"),
    INT("world-size", world_size, "1", 1, 65536, "how many trainers there were"),
    INT("position", position, "0", 0, 1e15,
        "where they entered the epoch, when they resumed within it"),
    SM_OPTION_BROKER,
    SM_OPTION_KEYS,
    SM_OPTION_SOURCE,
    SM_OPTION_SEED,
    SM_OPTION_PART,
    SM_OPTION_STATE(
        AT(state),
        "folder in which `fit` or `serve` has kept what ops learn; else they are fitted again"),
    SM_OPTION_SANDBOX,
};
static const char *const examples[] = {
    "shardmill replay photos.yaml --epoch 3 --step 18342 -o batch.png",
    "shardmill replay photos --step 7 --rank 1 --world-size 4 --tensor batch.npy", NULL};

const struct sm_command sm_cmd_replay = {
    .name = "replay",
    .order = 45,
    .brief = "make a batch again that a trainer saw",
    .operands = "FILE|JOB",
    .operands_min = 1,
    .operands_max = 1,
    .operand = SM_OPERAND_PIPELINE,
    .details =
        "From a pipeline file, or (when there is no such file, or with --broker) from a job at a broker. A batch is a "
        "function of pipeline, dataset, seed, epoch and step, so nothing of the run is needed. Prints the line that "
        "`read --digest` printed for that step.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

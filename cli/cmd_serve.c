/* `shardmill serve`: one command that feeds trainers. Next in the flow: cli/serve.c. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/serve.h"

#include <unistd.h>

struct values {
    struct sm_common common;
    const char *bind, *state;
    int64_t epochs;
    bool reindex, die_with_parent;
};

static void ready(void *context, const char *endpoint) {
    const struct sm_stream *s = context;
    printf("serving %s at %s\n", s->spec.name, endpoint);
    fflush(stdout);
}

/* Of a dataset that is split the held-out part is there as well, for as many epochs as anyone
 * wants: a training loop looks at it after each of its own. */
static int held_out_open(struct sm_stream *s, const char *file, struct sm_stream_options described,
                         struct sm_err *err) {
    struct sm_common common = *described.common;
    common.part = SM_PART_VAL;
    described.common = &common;
    described.epochs = 0;
    described.reindex = false; /* done for the first */
    return sm_stream_open(s, file, &described, err);
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct sm_stream_options described = {.common = &v->common,
                                          .state_dir = v->state,
                                          .epochs = (uint32_t)v->epochs,
                                          .reindex = v->reindex,
                                          .stop = sm_cli_stop()};
    struct sm_serve_options options = {.bind = v->bind,
                                       .workers = v->common.workers ? (int)v->common.workers
                                                  : cores > 0       ? (int)cores
                                                                    : 1,
                                       .no_sandbox = !v->common.sandbox,
                                       .quiet = v->common.quiet,
                                       .die_with_parent = v->die_with_parent,
                                       .parent = getppid(),
                                       .stop = sm_cli_stop()};
    struct sm_stream stream, held_out;
    struct sm_err err = {0};
    int r = sm_stream_open(&stream, operands[0], &described, &err);
    const bool both = r == 0 && stream.pipeline.split.val > 0 && v->common.part == SM_PART_TRAIN;
    if (both) r = held_out_open(&held_out, operands[0], described, &err);
    if (both) options.also = &held_out;
    if (r == 0 && !v->common.quiet)
        fprintf(stderr, "shardmill: journal and index in '%s'\n", stream.state);
    if (r == 0 && both && !v->common.quiet)
        fprintf(stderr, "shardmill: the held-out part is the job '%s'\n", held_out.spec.name);
    if (r == 0) r = sm_serve(&stream, &options, ready, &stream, &err);
    if (both) sm_stream_release(&held_out);
    sm_stream_release(&stream);
    return r == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

#define AT(member) offsetof(struct values, member)
static const struct sm_option options[] = {
    {.param = {.name = "bind",
               .type = SM_T_STR,
               .offset = AT(bind),
               .dflt = SM_BROKER_ENDPOINT,
               .doc = "where trainers find it: a loopback address (port * takes a free one), "
                      "ipc:///path, or with --keys any address"},
     .metavar = "ENDPOINT"},
    SM_OPTION_WORKERS,
    SM_OPTION_KEYS,
    SM_OPTION_SOURCE,
    SM_OPTION_SEED,
    SM_OPTION_PART,
    {.param = {.name = "epochs",
               .type = SM_T_INT,
               .offset = AT(epochs),
               .dflt = "0",
               .max = (double)UINT32_MAX,
               .doc = "end after so many, 0: go on until it is stopped"},
     .metavar = "N"},
    SM_OPTION_STATE(AT(state),
                    "folder of the journal (what trainers committed) and of the dataset's index"),
    SM_OPTION_REINDEX(AT(reindex)),
    {.param = {.name = "die-with-parent",
               .type = SM_T_BOOL,
               .offset = AT(die_with_parent),
               .dflt = "false",
               .doc = "end when the process that started this command ends"}},
    SM_OPTION_SANDBOX,
    SM_OPTION_QUIET,
};
static const char *const examples[] = {
    "shardmill serve pipelines/photos.yaml --source ~/pets",
    "shardmill serve photos.yaml --bind ipc:///run/user/1000/photos --workers 8 --epochs 90", NULL};

const struct sm_command sm_cmd_serve = {
    .name = "serve",
    .order = 40,
    .brief = "feed training loops from a pipeline",
    .operands = "FILE",
    .operands_min = 1,
    .operands_max = 1,
    .operand = SM_OPERAND_PIPELINE,
    .details =
        "Indexes the dataset, starts a broker and one worker for each core, and prints `serving NAME at ENDPOINT` "
        "when trainers may come: `shardmill read NAME`, the Python package, the C library. With `split:` in the file the "
        "held-out part is the job NAME/val beside it. Children that die are "
        "started again, and trainers go on.\n\n"
        "Runs until SIGTERM or SIGINT, or until all ranks have had --epochs N. What trainers committed lies in "
        "--state DIR and survives any end.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

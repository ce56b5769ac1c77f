/* `shardmill expand`: the main job, offline. Before: sm_cli_load has the pipeline. Next in the
 * flow: cli/expand.c. */
#include "cli/cli.h"
#include "cli/expand.h"
#include "cli/expand_folder.h"
#include "cli/lock.h"
#include "cli/summary.h"
#include "lib/limits.h"
#include "workers/engine.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

struct values {
    struct sm_common common;
    const char *out, *slice, *state;
    double max_quarantine;
    int64_t epoch, lease;
};

/* "K/N", K from 1 */
static int read_slice(const char *text, struct sm_expand_options *options, struct sm_err *err) {
    unsigned k = 0, n = 0;
    int end = 0;
    options->slices = 1;
    if (text == NULL) return 0;
    if (sscanf(text, "%u/%u%n", &k, &n, &end) != 2 || text[end] != 0 || k < 1 || k > n ||
        n > SM_MAX_SLICES)
        return sm_fail(
            err, SM_E_USAGE,
            "--slice is '%s', wanted K/N with K from 1 to N and N up to %d (hint: --slice 1/8)",
            text, SM_MAX_SLICES);
    options->slice = k - 1;
    options->slices = n;
    return 0;
}

/* Everything that can be wrong with the pipeline is said before a folder is made or a process
 * started. */
static int check_pipeline(const struct sm_pipeline *p, struct sm_err *err) {
    struct sm_engine *engine = NULL;
    if (sm_engine_start("shardmill", err) < 0) return -1;
    int r = sm_engine_new(&engine, p, 0, err);
    sm_engine_free(&engine);
    return r;
}

/* A word as a shell takes it. */
static void print_word(const char *before, const char *word) {
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:+,=@-";
    fputs(before, stderr);
    if (word[strspn(word, plain)] == 0) {
        fputs(word, stderr);
        return;
    }
    fputc('\'', stderr);
    for (; *word; word++)
        if (*word == '\'')
            fputs("'\\''", stderr);
        else
            fputc(*word, stderr);
    fputc('\'', stderr);
}

/* Every option that decides what is made and where is said again: without it the line would be
 * refused as another run. */
static void print_resume(const struct values *v, const char *file) {
    fprintf(stderr, "shardmill: what is finished in '%s' is kept; to resume: shardmill expand",
            v->out);
    print_word(" ", file);
    print_word(" -o ", v->out);
    if (v->common.source) print_word(" --source ", v->common.source);
    if (v->common.seed >= 0) fprintf(stderr, " --seed %" PRId64, v->common.seed);
    if (v->common.part == SM_PART_VAL) fputs(" --part val", stderr);
    if (v->epoch > 0) fprintf(stderr, " --epoch %" PRId64, v->epoch);
    if (v->slice) print_word(" --slice ", v->slice);
    if (strcmp(v->state, SM_STREAM_STATE) != 0) print_word(" --state ", v->state);
    if (v->common.broker) print_word(" --broker ", v->common.broker);
    if (!v->common.fuse) fputs(" --no-fuse", stderr);
    fputs(v->common.sandbox ? "\n" : " --no-sandbox\n", stderr);
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n;
    const volatile sig_atomic_t *stop = sm_cli_stop();
    struct sm_err err = {0};
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    struct sm_expand_options options = {.out_dir = v->out,
                                        .learned = v->state,
                                        .broker = v->common.broker,
                                        .workers = v->common.workers ? (int)v->common.workers
                                                   : cores > 0       ? (int)cores
                                                                     : 1,
                                        .no_sandbox = !v->common.sandbox,
                                        .no_fuse = !v->common.fuse,
                                        .quiet = v->common.quiet,
                                        .epoch = (uint32_t)v->epoch,
                                        .lease_samples = v->lease,
                                        .stop = stop};
    if (v->common.broker != NULL && !v->common.fuse) {
        sm_fail(&err, SM_E_USAGE,
                "--no-fuse is for workers of its own, and --broker has others (hint: shardmill "
                "worker --no-fuse)");
        return sm_cli_fail(&err);
    }
    char lock[PATH_MAX];
    if (read_slice(v->slice, &options, &err) < 0 || sm_lock_path(operands[0], lock, &err) < 0)
        return sm_cli_fail(&err);
    options.lock = lock;
    struct sm_pipeline pipeline;
    struct sm_run record = {0};
    int code;
    if (sm_cli_load(&pipeline, operands[0], &v->common, &err) < 0 ||
        check_pipeline(&pipeline, &err) < 0) {
        code = sm_cli_fail(&err);
        sm_pipeline_release(&pipeline);
        return code;
    }
    enum sm_expand_end end;
    if (sm_expand(&pipeline, &options, &record, &end, &err) < 0) {
        code = sm_cli_fail(&err);
        bool others = err.code == SM_E_BUSY || err.code == SM_E_DIFFERS; /* it is not our run */
        if (!others && sm_folder_started(v->out)) print_resume(v, operands[0]);
    } else {
        code =
            sm_summary(&record, v->out, end == SM_EXPAND_WAS_DONE, v->max_quarantine, &v->common);
    }
    sm_run_release(&record);
    sm_pipeline_release(&pipeline);
    return code;
}

#define AT(member) offsetof(struct values, member)
static const struct sm_option options[] = {
    {.param = {.name = "out",
               .type = SM_T_STR,
               .offset = AT(out),
               .doc = "folder for shards and manifest"},
     .metavar = "DIR",
     .letter = 'o',
     .required = true},
    SM_OPTION_SOURCE,
    SM_OPTION_SEED,
    SM_OPTION_PART,
    SM_OPTION_EPOCH(AT(epoch)),
    SM_OPTION_WORKERS,
    SM_OPTION_BROKER,
    SM_OPTION_KEYS,
    SM_OPTION_STATE(
        AT(state),
        "folder in which `fit` has kept what ops learn; what is of this run is taken over"),
    {.param = {.name = "slice",
               .type = SM_T_STR,
               .offset = AT(slice),
               .doc = "make only every N-th shard from the K-th on; `merge` joins the slices"},
     .metavar = "K/N"},
    {.param = {.name = "max-quarantine",
               .type = SM_T_NUM,
               .offset = AT(max_quarantine),
               .dflt = "0.01",
               .max = 1,
               .doc = "share of positions that may be quarantined; beyond it the exit code is 3"},
     .metavar = "SHARE"},
    {.param = {.name = "lease",
               .type = SM_T_INT,
               .offset = AT(lease),
               .dflt = "0",
               .max = SM_MAX_LEASE_SAMPLES,
               .doc = "samples that a worker takes at a time, 0: chosen; the bytes stay the same"},
     .metavar = "N"},
    SM_OPTION_FUSE,
    SM_OPTION_SANDBOX,
    SM_OPTION_JSON,
    SM_OPTION_QUIET,
};
static const char *const examples[] = {
    "shardmill expand pipelines/photos.yaml --source ~/pets -o out",
    "shardmill expand photos.yaml -o /shared/out --slice 3/16 --workers 8",
    "shardmill expand photos.yaml -o /shared/out --broker tcp://127.0.0.1:5570", NULL};

const struct sm_command sm_cmd_expand = {
    .name = "expand",
    .order = 20,
    .brief = "make augmented copies of a dataset as shard files",
    .operands = "FILE",
    .operands_min = 1,
    .operands_max = 1,
    .operand = SM_OPERAND_PIPELINE,
    .details =
        "Indexes the dataset, starts a broker and one worker for each core (or uses a running broker), and writes "
        "shard-000000.tar (of rows .csv or .npy) and so on, manifest.json and quarantine.jsonl into DIR. The bytes depend on pipeline, "
        "dataset, seed and epoch alone.\n\n"
        "Run it again after an interruption: it goes on where it stopped. A DIR that holds a run of another "
        "pipeline, seed or dataset is refused.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

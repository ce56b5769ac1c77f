/* `shardmill fit FILE`: learns what the ops of a pipeline have to learn, and pins it in the lock
 * file beside it. Before: sm_cli_load has the pipeline. Next in the flow: cli/fit.c. */
#include "cli/fit.h"
#include "cli/lock.h"
#include "cli/shape.h"
#include "cli/stream.h"
#include "lib/fs.h"
#include "workers/places.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct values {
    struct sm_common common;
    const char *state;
    bool reindex;
    int64_t spread;
};

static void print_text(const struct sm_fits *fits, const char *lock) {
    for (size_t i = 0; i < fits->n; i++) {
        const struct sm_fitted *f = &fits->list[i];
        printf("%3zu  %-16s %.12s  %10" PRIu64 " bytes  %s  %s\n", f->op, f->name, f->sha256,
               f->bytes, f->fresh ? "fitted" : "known ", f->facts);
    }
    if (fits->n == 0) printf("nothing is to be learned\n");
    printf("pinned in '%s'\n", lock);
}

static void print_json(const struct sm_fits *fits, const char *lock, const char *digest) {
    struct sm_buf b;
    sm_buf_init(&b, 1 << 20);
    sm_buf_text(&b, "{\"lock\":");
    sm_buf_json(&b, lock);
    sm_buf_printf(&b, ",\"pipeline_digest\":\"%s\",\"fits\":[", digest);
    for (size_t i = 0; i < fits->n; i++) {
        const struct sm_fitted *f = &fits->list[i];
        sm_buf_printf(&b, "%s{\"op\":\"%s\",\"place\":%zu,\"key\":\"%s\",\"sha256\":\"%s\"",
                      i ? ",\n " : "", f->name, f->op, f->key, f->sha256);
        sm_buf_printf(&b, ",\"bytes\":%" PRIu64 ",\"fitted\":%s,\"learned\":", f->bytes,
                      f->fresh ? "true" : "false");
        sm_buf_json(&b, f->facts);
        sm_buf_text(&b, "}");
    }
    sm_buf_text(&b, "]}\n");
    fputs(b.data, stdout);
    sm_buf_release(&b);
}

/* Index, fits, lock. */
static int fit(struct sm_pipeline *p, const char *file, const struct values *v,
               struct sm_err *err) {
    struct sm_dataset data = {0};
    struct sm_fits fits = {0};
    char state[PATH_MAX], lock[PATH_MAX], digest[SM_XXH_HEX];
    if (sm_fs_mkdirs(v->state, err) < 0) return -1;
    if (realpath(v->state, state) == NULL) return sm_fail_errno(err, "cannot use '%s'", v->state);
    if (sm_lock_path(file, lock, err) < 0) return -1;
    struct sm_fit_options options = sm_fit_options_of(&v->common, state, NULL);
    options.spread_bytes = (uint64_t)v->spread;
    options.stop = sm_cli_stop();
    int r = sm_dataset_open(&data, &p->source, state, v->reindex, err);
    if (r == 0) r = sm_fit_ensure(p, &options, &data, &fits, err);
    if (r == 0) r = sm_lock_write(lock, p, &data, &fits, err);
    sm_pipeline_digest(p, digest);
    if (r == 0 && v->common.json)
        print_json(&fits, lock, digest);
    else if (r == 0 && !v->common.quiet)
        print_text(&fits, lock);
    sm_fits_release(&fits);
    sm_dataset_close(&data);
    return r;
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    struct sm_err err = {0};
    struct sm_pipeline p;
    struct sm_shape shape;
    (void)n;
    int r = sm_cli_load(&p, operands[0], &v->common, &err);
    if (r == 0) r = sm_cli_compile(&p, operands[0], &shape, NULL, &err);
    if (r == 0 && (r = fit(&p, operands[0], v, &err)) != 0) sm_err_context(&err, "%s", operands[0]);
    sm_pipeline_release(&p);
    return r == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

#define AT(member) offsetof(struct values, member)
static const struct sm_option options[] = {
    SM_OPTION_SOURCE,
    SM_OPTION_SEED,
    SM_OPTION_WORKERS,
    SM_OPTION_BROKER,
    SM_OPTION_KEYS,
    SM_OPTION_STATE(AT(state), "folder for the dataset's index and for what is learned"),
    SM_OPTION_REINDEX(AT(reindex)),
    {.param = {.name = "spread",
               .type = SM_T_INT,
               .offset = AT(spread),
               .dflt = "0",
               .max = (double)((int64_t)1 << 50),
               .doc = "bytes of rows from which on workers share a fit, 0: as is worth while; what "
                      "is learned is the same"},
     .metavar = "BYTES"},
    SM_OPTION_SANDBOX,
    SM_OPTION_JSON,
    SM_OPTION_QUIET,
};
static const char *const examples[] = {
    "shardmill fit pipelines/table.yaml",
    "shardmill fit pipelines/table.yaml --state /shared/state --broker tcp://127.0.0.1:5570", NULL};

const struct sm_command sm_cmd_fit = {
    .name = "fit",
    .order = 15,
    .brief = "learn what a pipeline's ops need, and pin it in a lock file",
    .operands = "FILE",
    .operands_min = 1,
    .operands_max = 1,
    .operand = SM_OPERAND_PIPELINE,
    .details =
        "Indexes the dataset and fits each op that learns (StandardScaler, PCA, ...) in the order of the pipeline, on "
        "the training part alone. What was fitted before on the same is found again in --state DIR. Writes FILE with "
        "the ending .lock: the dataset's digest, every default filled in, and the SHA-256 of what each op has learned.\n\n"
        "expand, serve and submit fit by themselves; where there is a lock file they end with an error when anything "
        "comes out otherwise. `check --locked` compares without fitting.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

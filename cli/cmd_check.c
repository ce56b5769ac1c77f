/* `shardmill check FILE…`: parses each file and compiles its ops, as every run does before it
 * touches data. In a repository's CI this is the test of its pipeline files. */
#include "cli/cli.h"
#include "cli/explain_rows.h"
#include "cli/lock.h"
#include "cli/shape.h"
#include "lib/fs.h"

struct values {
    struct sm_common common;
    bool locked;
};

/* What is known of a file that is all right. */
struct verdict {
    size_t ops;
    char digest[SM_XXH_HEX];
    bool rows;      /* rows come out, not images */
    char shape[64]; /* "224x224 RGB uint8", "rows float32" */
};

static int file_check(const char *path, const struct values *v, struct verdict *verdict,
                      struct sm_err *err);

static void verdict_print(const char *path, const struct verdict *v) {
    printf("%s: ok (%zu op%s, %s%s)\n", path, v->ops, v->ops == 1 ? "" : "s", v->rows ? "" : "out ",
           v->shape);
}

static void json_print(const char *path, int rc, const struct verdict *v, const struct sm_err *err,
                       bool first) {
    struct sm_buf b;
    sm_buf_init(&b, 1 << 16);
    sm_buf_text(&b, first ? "{\"file\":" : ",\n {\"file\":");
    sm_buf_json(&b, path);
    sm_buf_printf(&b, ",\"ok\":%s", rc == 0 ? "true" : "false");
    if (rc == 0) {
        sm_buf_printf(&b, ",\"ops\":%zu,\"out\":\"%s\",\"pipeline_digest\":\"%s\"", v->ops,
                      v->shape, v->digest);
    } else {
        sm_buf_printf(&b, ",\"code\":\"%s\",\"error\":", sm_code_word(err->code));
        sm_buf_json(&b, err->text);
    }
    sm_buf_text(&b, "}");
    fputs(b.data, stdout);
    sm_buf_release(&b);
}

static int exit_of(const struct sm_err *err) {
    return err->code == SM_E_PIPELINE || err->code == SM_E_USAGE ? SM_EXIT_USAGE : SM_EXIT_FAILED;
}

static int run(const void *values, int n, char **files) {
    const struct values *v = values;
    const struct sm_common *common = &v->common;
    int worst = SM_EXIT_DONE;
    if (common->json) printf("[");
    for (int i = 0; i < n; i++) {
        struct verdict verdict = {0};
        struct sm_err err = {0};
        int rc = file_check(files[i], v, &verdict, &err);
        if (common->json)
            json_print(files[i], rc, &verdict, &err, i == 0);
        else if (rc == 0 && !common->quiet)
            verdict_print(files[i], &verdict);
        int code = rc == 0 ? SM_EXIT_DONE : common->json ? exit_of(&err) : sm_cli_fail(&err);
        if (code > worst) worst = code;
    }
    if (common->json) printf("]\n");
    return worst;
}

static const struct sm_option options[] = {
    SM_OPTION_SOURCE,
    {.param = {.name = "locked",
               .type = SM_T_BOOL,
               .offset = offsetof(struct values, locked),
               .dflt = "false",
               .doc = "also compare with the lock file, pipeline and dataset (exit 1 when stale)"}},
    SM_OPTION_JSON,
    SM_OPTION_QUIET,
};
static const char *const examples[] = {"shardmill check pipelines/*.yaml",
                                       "shardmill check --locked pipelines/table.yaml", NULL};

const struct sm_command sm_cmd_check = {
    .name = "check",
    .order = 1,
    .brief = "parse and validate pipeline files",
    .operands = "FILE…",
    .operands_min = 1,
    .operands_max = 100000,
    .operand = SM_OPERAND_PIPELINE,
    .details =
        "Prints one line for each file. An error names file, line and column, shows the line "
        "and the nearest name that would be valid. The data is not read. Exit 0 when all "
        "files are valid, else 2.\n\nWith --locked the lock file that `shardmill fit` wrote must be "
        "there and agree with the file, the dataset (which is indexed for it) and the versions of "
        "this machine; what does not is named, exit 1.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

/* --- one file ------------------------------------------------------------------------------- */

static size_t ops_count(const struct sm_op_node *ops, size_t n) {
    size_t total = n;
    for (size_t i = 0; i < n; i++)
        total += ops_count(ops[i].children, ops[i].n_children);
    return total;
}

/* The dataset is looked at anew. */
static int lock_check(const char *path, const struct sm_pipeline *p, struct sm_err *err) {
    char lock_path[PATH_MAX], dir[SM_MAX_PATH_BYTES];
    struct sm_lock *lock = NULL;
    struct sm_dataset data = {0};
    if (sm_lock_path(path, lock_path, err) < 0) return -1;
    int rc = sm_lock_read(&lock, lock_path, err);
    if (rc < 0 && err->code == SM_E_MISSING)
        sm_fail(err, SM_E_MISSING, "there is no '%s' (hint: shardmill fit)", lock_path);
    if (rc == 0 && (rc = sm_fs_scratch_begin(dir, err)) == 0) {
        rc = sm_dataset_open(&data, &p->source, dir, true, err);
        if (rc == 0) rc = sm_lock_compare(lock, p, &data, err);
        if (rc == 0) rc = sm_lock_knows(lock, p, &data, err);
        sm_dataset_close(&data);
        sm_fs_scratch_end();
    }
    sm_lock_free(&lock);
    return rc == 0 ? 0 : sm_err_context(err, "%s", path);
}

/* Of images that become rows the columns are known without data. */
static int pixels_check(const struct sm_pipeline *p, const char *path, struct sm_err *err) {
    const struct sm_dataset none = {.index = NULL};
    struct sm_row_plan *plan = NULL;
    int rc = sm_row_plan_new(&plan, p, path, &none, 0, "", err);
    sm_row_plan_free(&plan);
    return rc;
}

static int file_check(const char *path, const struct values *v, struct verdict *verdict,
                      struct sm_err *err) {
    struct sm_pipeline p;
    struct sm_shape shape;
    int rc = sm_cli_load(&p, path, &v->common, err);
    if (rc == 0) rc = sm_cli_compile(&p, path, &shape, NULL, err);
    if (rc == 0 && sm_pipeline_is_rows(&p) && !sm_source_is_table(&p.source))
        rc = pixels_check(&p, path, err);
    if (rc == 0 && v->locked) rc = lock_check(path, &p, err);
    if (rc == 0) {
        verdict->ops = ops_count(p.ops, p.n_ops);
        verdict->rows = sm_pipeline_is_rows(&p);
        sm_pipeline_digest(&p, verdict->digest);
        sm_shape_text(&p, &shape, verdict->shape, sizeof verdict->shape);
    }
    sm_pipeline_release(&p);
    return rc;
}

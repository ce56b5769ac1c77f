/* `shardmill merge`: the slices of an expansion become one run. Next in the flow: cli/merge.c. */
#include "cli/cli.h"
#include "cli/merge.h"
#include "cli/summary.h"

struct values {
    struct sm_common common;
    bool verify;
    double max_quarantine;
};

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n;
    struct sm_err err = {0};
    struct sm_run record;
    bool was_done = false;
    int code = sm_merge(operands[0], v->verify, &record, &was_done, &err) < 0
                   ? sm_cli_fail(&err)
                   : sm_summary(&record, operands[0], was_done, v->max_quarantine, &v->common);
    sm_run_release(&record);
    return code;
}

#define AT(member) offsetof(struct values, member)
static const struct sm_option options[] = {
    {.param = {.name = "verify",
               .type = SM_T_BOOL,
               .offset = AT(verify),
               .dflt = "false",
               .doc = "read every shard and compare its SHA-256, not only its size"}},
    {.param = {.name = "max-quarantine",
               .type = SM_T_NUM,
               .offset = AT(max_quarantine),
               .dflt = "0.01",
               .max = 1,
               .doc = "share of positions that may be quarantined; beyond it the exit code is 3"},
     .metavar = "SHARE"},
    SM_OPTION_JSON,
    SM_OPTION_QUIET,
};
static const char *const examples[] = {"shardmill merge /shared/out", NULL};

const struct sm_command sm_cmd_merge = {
    .name = "merge",
    .order = 21,
    .brief = "join the slices of an expansion: check, then write the manifest",
    .operands = "DIR",
    .operands_min = 1,
    .operands_max = 1,
    .operand = SM_OPERAND_DIR,
    .details =
        "For a DIR into which `expand --slice 1/N` to `--slice N/N` have written, on one host or on many. Checks that "
        "every slice is there and fits the others, and writes the manifest that one run would have written, byte for "
        "byte. A missing slice is named.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

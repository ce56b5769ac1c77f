/* `shardmill cancel`: ends a job at its broker. Next in the flow: broker/jobs.c. */
#include "cli/cli.h"
#include "cli/client.h"

enum { PATIENCE_MS = 3000 };

struct values {
    struct sm_common common;
};

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n;
    const char *endpoint = v->common.broker != NULL ? v->common.broker : SM_BROKER_ENDPOINT;
    struct sm_client *client = NULL;
    struct sm_err err = {0};
    char id[SM_MAX_JOB_ID_BYTES + 1];
    int r = sm_client_new(&client, endpoint, NULL, &err);
    if (r == 0) r = sm_client_find(client, operands[0], PATIENCE_MS, id, &err);
    if (r == 0) r = sm_client_cancel(client, id, &err);
    sm_client_free(&client);
    if (r < 0) return sm_cli_fail(&err);
    if (!v->common.quiet) printf("%s\n", id);
    return SM_EXIT_DONE;
}

static const struct sm_option options[] = {SM_OPTION_BROKER, SM_OPTION_KEYS, SM_OPTION_QUIET};
static const char *const examples[] = {
    "shardmill cancel photos", "shardmill cancel photos --broker ipc:///run/shardmill/broker",
    NULL};

const struct sm_command sm_cmd_cancel = {
    .name = "cancel",
    .order = 44,
    .brief = "end a job at its broker",
    .operands = "JOB",
    .operands_min = 1,
    .operands_max = 1,
    .details =
        "JOB is a name, or an id as `jobs` shows it. Its leases are taken back and its trainers are told. What "
        "they committed stays: the same `submit` or `expand` goes on from there.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

/* `shardmill jobs`: the jobs that a broker holds. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/status.h"

enum { PATIENCE_MS = 3000, OUTPUT_BYTES = 16 << 20 };

struct values {
    struct sm_common common;
};

static void json_print(const Shardmill__Status *s) {
    struct sm_buf b;
    sm_buf_init(&b, OUTPUT_BYTES);
    for (size_t i = 0; i < s->n_jobs; i++) {
        sm_status_job_json(&b, s->jobs[i]);
        sm_buf_text(&b, "\n");
    }
    if (s->n_jobs > 0) fputs(b.data, stdout);
    sm_buf_release(&b);
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n, (void)operands;
    const char *endpoint = v->common.broker != NULL ? v->common.broker : SM_BROKER_ENDPOINT;
    struct sm_client *client = NULL;
    sm_envelope *answer = NULL;
    struct sm_err err = {0};
    int r = sm_client_new(&client, endpoint, NULL, &err);
    if (r == 0) r = sm_client_status(client, PATIENCE_MS, &answer, &err);
    if (r == 0 && v->common.json) json_print(answer->status);
    if (r == 0 && !v->common.json) sm_status_jobs_print(answer->status);
    if (r == 0) sm_wire_free(&answer);
    sm_client_free(&client);
    return r == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

static const struct sm_option options[] = {SM_OPTION_BROKER, SM_OPTION_KEYS, SM_OPTION_JSON};
static const char *const examples[] = {"shardmill jobs", "shardmill jobs --json | jq .name", NULL};

const struct sm_command sm_cmd_jobs = {
    .name = "jobs",
    .order = 43,
    .brief = "list a broker's jobs",
    .operands = "",
    .details = "One line a job: id, state, how far it is. With --json one object a line.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

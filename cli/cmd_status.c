/* `shardmill status`: asks a broker how its jobs and workers stand, and prints it once, as tables
 * or as JSON. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/status.h"

#include <inttypes.h>
#include <string.h>

enum { PATIENCE_MS = 3000, OUTPUT_BYTES = 16 << 20 };

struct values {
    struct sm_common common;
};

static void tables_print(const Shardmill__Status *s, const char *endpoint);
static void json_print(const Shardmill__Status *s, const char *endpoint);

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n, (void)operands;
    const char *endpoint = v->common.broker != NULL ? v->common.broker : SM_BROKER_ENDPOINT;
    struct sm_client *client = NULL;
    sm_envelope *answer = NULL;
    struct sm_err err = {0};
    int rc = sm_client_new(&client, endpoint, NULL, &err);
    if (rc == 0) rc = sm_client_status(client, PATIENCE_MS, &answer, &err);
    if (rc == 0 && v->common.json) json_print(answer->status, endpoint);
    if (rc == 0 && !v->common.json) tables_print(answer->status, endpoint);
    sm_wire_free(&answer);
    sm_client_free(&client);
    return rc == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

static void tables_print(const Shardmill__Status *s, const char *endpoint) {
    char up[32];
    sm_duration_text(s->up_ms, up);
    printf("broker at %s, up %s, start %u on %s", endpoint, up, s->incarnation, s->state_dir);
    printf("; %" PRIu64 " stale results, %" PRIu64 " messages dropped, %" PRIu64
           " connections refused\n\n",
           s->stale, s->dropped, s->refused);
    sm_status_jobs_print(s);
    printf("\n");
    if (s->n_workers == 0)
        printf("no workers\n");
    else
        printf("%-34s %12s %24s %12s  %s\n", "WORKER", "HEARD", "POSITIONS", "DONE", "JOB");
    for (size_t i = 0; i < s->n_workers; i++) {
        const Shardmill__WorkerStatus *w = s->workers[i];
        char range[64] = "-", done[32] = "-", heard[48];
        sm_duration_text(w->silent_ms, heard);
        if (w->count > 0) {
            snprintf(range, sizeof range, "%" PRIu64 "-%" PRIu64, w->first,
                     w->first + w->count - 1);
            snprintf(done, sizeof done, "%u/%u", w->done, w->count);
        }
        strcat(heard, " ago");
        printf("%-34s %12s %24s %12s  %s\n", w->name, heard, range, done,
               w->job[0] != 0 ? w->job : "idle");
    }
}

static void json_print(const Shardmill__Status *s, const char *endpoint) {
    struct sm_buf b;
    sm_buf_init(&b, OUTPUT_BYTES);
    sm_buf_text(&b, "{");
    sm_json_text(&b, "broker", endpoint, ",");
    sm_json_text(&b, "state_dir", s->state_dir, ",");
    sm_buf_printf(&b,
                  "\"up_ms\":%" PRIu64 ",\"incarnation\":%u,\"dropped\":%" PRIu64
                  ",\"stale\":%" PRIu64 ",\"refused\":%" PRIu64,
                  s->up_ms, s->incarnation, s->dropped, s->stale, s->refused);
    sm_buf_text(&b, ",\n \"jobs\":[");
    for (size_t i = 0; i < s->n_jobs; i++) {
        sm_buf_text(&b, i > 0 ? ",\n  " : "\n  ");
        sm_status_job_json(&b, s->jobs[i]);
    }
    sm_buf_text(&b, "],\n \"workers\":[");
    for (size_t i = 0; i < s->n_workers; i++) {
        sm_buf_text(&b, i > 0 ? ",\n  " : "\n  ");
        sm_status_worker_json(&b, s->workers[i]);
    }
    sm_buf_text(&b, "]}\n");
    fputs(b.data, stdout);
    sm_buf_release(&b);
}

static const struct sm_option options[] = {SM_OPTION_BROKER, SM_OPTION_KEYS, SM_OPTION_JSON};
static const char *const examples[] = {"shardmill status", "shardmill status --json | jq .jobs",
                                       NULL};

const struct sm_command sm_cmd_status = {
    .name = "status",
    .order = 52,
    .brief = "show a broker's jobs and workers",
    .operands = "",
    .details =
        "Asks the broker at tcp://127.0.0.1:5570, or at --broker ENDPOINT. A job that does not move says who waits "
        "for whom. Exit 1 when nobody answers within 3 seconds.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

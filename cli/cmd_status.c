/* `shardmill status`: asks a broker how its jobs and workers stand, and prints it once, as tables
 * or as JSON. */
#include "cli/cli.h"
#include "cli/client.h"

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
    const char *endpoint = v->common.broker != NULL ? v->common.broker : "tcp://127.0.0.1:5570";
    struct sm_client *client = NULL;
    sm_envelope *answer = NULL;
    struct sm_err err = {0};
    Shardmill__StatusGet get = SHARDMILL__STATUS_GET__INIT;
    sm_envelope request = SHARDMILL__ENVELOPE__INIT;
    request.protocol = SM_PROTOCOL;
    request.body_case = SHARDMILL__ENVELOPE__BODY_STATUS_GET;
    request.status_get = &get;
    int rc = sm_client_new(&client, endpoint, NULL, &err);
    if (rc == 0)
        rc = sm_client_ask(client, &request, SHARDMILL__ENVELOPE__BODY_STATUS, PATIENCE_MS, &answer,
                           &err);
    if (rc == 0 && v->common.json) json_print(answer->status, endpoint);
    if (rc == 0 && !v->common.json) tables_print(answer->status, endpoint);
    sm_wire_free(&answer);
    sm_client_free(&client);
    return rc == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

static const char *state_word(Shardmill__JobState state) {
    static const char *const words[] = {"running", "complete", "failed", "cancelled"};
    return (unsigned)state < sizeof words / sizeof *words ? words[state] : "unknown";
}

static void duration_text(uint64_t ms, char text[32]) {
    uint64_t s = ms / 1000;
    if (s < 60)
        snprintf(text, 32, "%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
    else if (s < 3600)
        snprintf(text, 32, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else
        snprintf(text, 32, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
}

static void tables_print(const Shardmill__Status *s, const char *endpoint) {
    char up[32];
    duration_text(s->up_ms, up);
    printf("broker at %s, up %s, start %u on %s", endpoint, up, s->incarnation, s->state_dir);
    printf("; %" PRIu64 " stale results, %" PRIu64 " messages dropped\n\n", s->stale, s->dropped);
    if (s->n_jobs == 0)
        printf("no jobs\n");
    else
        printf("%-34s %-10s %14s %12s %9s %11s %8s\n", "JOB", "STATE", "MADE", "SHARDS", "WORKERS",
               "QUARANTINED", "LOST");
    for (size_t i = 0; i < s->n_jobs; i++) {
        const Shardmill__JobStatus *j = s->jobs[i];
        char made[48], shards[48];
        snprintf(made, sizeof made, "%" PRIu64 "/%" PRIu64, j->made + j->in_work, j->planned);
        snprintf(shards, sizeof shards, "%" PRIu64 "/%" PRIu64, j->sealed, j->shards);
        printf("%-34s %-10s %14s %12s %9u %11" PRIu64 " %8" PRIu64 "\n", j->job,
               state_word(j->state), made, shards, j->workers, j->quarantined, j->leases_lost);
        if (j->name[0] != 0) printf("  %s\n", j->name);
        if (j->text[0] != 0) printf("  %s: %s\n", sm_code_word((int)j->code), j->text);
        if (j->waits_for[0] != 0) printf("  %s\n", j->waits_for);
    }
    printf("\n");
    if (s->n_workers == 0)
        printf("no workers\n");
    else
        printf("%-34s %12s %24s %12s  %s\n", "WORKER", "HEARD", "POSITIONS", "DONE", "JOB");
    for (size_t i = 0; i < s->n_workers; i++) {
        const Shardmill__WorkerStatus *w = s->workers[i];
        char range[64] = "-", done[32] = "-", heard[48];
        duration_text(w->silent_ms, heard);
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

static void text_add(struct sm_buf *b, const char *key, const char *text, const char *behind) {
    sm_buf_printf(b, "\"%s\":", key);
    sm_buf_json(b, text);
    sm_buf_text(b, behind);
}

static void job_add(struct sm_buf *b, const Shardmill__JobStatus *j) {
    sm_buf_text(b, "{");
    text_add(b, "job", j->job, ",");
    text_add(b, "name", j->name, ",");
    text_add(b, "state", state_word(j->state), ",");
    sm_buf_printf(b,
                  "\"planned\":%" PRIu64 ",\"made\":%" PRIu64 ",\"in_work\":%" PRIu64
                  ",\"quarantined\":%" PRIu64,
                  j->planned, j->made, j->in_work, j->quarantined);
    sm_buf_printf(b, ",\"shards\":%" PRIu64 ",\"sealed\":%" PRIu64 ",\"workers\":%u", j->shards,
                  j->sealed, j->workers);
    sm_buf_printf(b, ",\"leases_lost\":%" PRIu64 ",\"cages_replaced\":%" PRIu64 ",", j->leases_lost,
                  j->cages_replaced);
    text_add(b, "code", sm_code_word((int)j->code), ",");
    text_add(b, "text", j->text, ",");
    text_add(b, "fingerprint", j->fingerprint, ",");
    text_add(b, "waits_for", j->waits_for, "}");
}

static void worker_add(struct sm_buf *b, const Shardmill__WorkerStatus *w) {
    sm_buf_text(b, "{");
    text_add(b, "name", w->name, ",");
    text_add(b, "fingerprint", w->fingerprint, ",");
    sm_buf_printf(b, "\"silent_ms\":%" PRIu64 ",\"first\":%" PRIu64 ",\"count\":%u,\"done\":%u,",
                  w->silent_ms, w->first, w->count, w->done);
    text_add(b, "job", w->job, "}");
}

static void json_print(const Shardmill__Status *s, const char *endpoint) {
    struct sm_buf b;
    sm_buf_init(&b, OUTPUT_BYTES);
    sm_buf_text(&b, "{");
    text_add(&b, "broker", endpoint, ",");
    text_add(&b, "state_dir", s->state_dir, ",");
    sm_buf_printf(
        &b, "\"up_ms\":%" PRIu64 ",\"incarnation\":%u,\"dropped\":%" PRIu64 ",\"stale\":%" PRIu64,
        s->up_ms, s->incarnation, s->dropped, s->stale);
    sm_buf_text(&b, ",\n \"jobs\":[");
    for (size_t i = 0; i < s->n_jobs; i++) {
        sm_buf_text(&b, i > 0 ? ",\n  " : "\n  ");
        job_add(&b, s->jobs[i]);
    }
    sm_buf_text(&b, "],\n \"workers\":[");
    for (size_t i = 0; i < s->n_workers; i++) {
        sm_buf_text(&b, i > 0 ? ",\n  " : "\n  ");
        worker_add(&b, s->workers[i]);
    }
    sm_buf_text(&b, "]}\n");
    fputs(b.data, stdout);
    sm_buf_release(&b);
}

static const struct sm_option options[] = {SM_OPTION_BROKER, SM_OPTION_JSON};
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

/* `shardmill read`: a trainer that only counts. Next in the flow: cli/trainer.c reads; here its
 * results are told. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/drawn.h"
#include "cli/trainer.h"
#include "cli/verdict.h"

#include <inttypes.h>
#include <jansson.h>
#include <string.h>

enum { STATUS_MS = 1500, TEXT_BYTES = 1 << 16 };

struct values {
    struct sm_common common;
    const char *token, *transport, *ledger;
    int64_t epochs, rank, world_size, steps, hold_ms, timeout_s, checkpoint, credit_mb;
    bool digest, commit;
};

struct reading {
    const struct values *v;
    const char *endpoint;
    struct sm_busy before, after;
    struct sm_buf epochs; /* JSON, for --json */
};

static volatile sig_atomic_t stop;

static void on_signal(int number) {
    stop = number;
    sm_trainer_interrupt();
}

static void workers_look(const char *endpoint, struct sm_busy *busy) {
    struct sm_client *client = NULL;
    sm_envelope *answer = NULL;
    if (sm_client_new(&client, endpoint, &stop, NULL) == 0 &&
        sm_client_status(client, STATUS_MS, &answer, NULL) == 0) {
        sm_busy_look(busy, answer->status);
        sm_wire_free(&answer);
    }
    sm_client_free(&client);
}

static void at_end(void *context) {
    struct reading *r = context;
    workers_look(r->endpoint, &r->after);
}

static uint64_t number(const json_t *audit, const char *key) {
    return (uint64_t)json_integer_value(json_object_get(audit, key));
}

/* The audit line of an epoch: what was planned for this rank and what it got. */
static void epoch_end(void *context, uint32_t epoch, uint64_t steps, const char chain[SM_XXH_HEX],
                      const char *info, const char *drawn, const struct sm_weights_seen *weights) {
    struct reading *r = context;
    json_t *root = json_loads(info, 0, NULL), *audit = json_object_get(root, "audit");
    uint64_t planned = number(audit, "planned"), delivered = number(audit, "delivered"),
             padded = number(audit, "padded"), dropped = number(audit, "dropped"),
             quarantined = number(audit, "quarantined");
    json_decref(root);
    sm_buf_printf(&r->epochs,
                  "%s{\"epoch\":%u,\"steps\":%" PRIu64 ",\"planned\":%" PRIu64
                  ",\"delivered\":%" PRIu64 ",\"padded\":%" PRIu64 ",\"dropped\":%" PRIu64
                  ",\"quarantined\":%" PRIu64 ",\"digest\":\"%s\",\"classes\":%s",
                  r->epochs.len > 0 ? "," : "", epoch, steps, planned, delivered, padded, dropped,
                  quarantined, chain, drawn);
    if (weights->n > 0)
        sm_buf_printf(&r->epochs, ",\"weights\":{\"mean\":%.9g,\"min\":%.9g,\"max\":%.9g}",
                      weights->sum / (double)weights->n, (double)weights->least,
                      (double)weights->most);
    sm_buf_text(&r->epochs, "}");
    if (r->v->common.json || r->v->common.quiet) return;
    FILE *to = r->v->digest ? stderr : stdout;
    fprintf(to,
            "epoch %u: %" PRIu64 " planned, %" PRIu64 " delivered, %" PRIu64 " padded, %" PRIu64
            " dropped, %" PRIu64 " quarantined, %" PRIu64 " steps, digest %s\n",
            epoch, planned, delivered, padded, dropped, quarantined, steps, chain);
    sm_drawn_print(drawn, to);
    if (weights->n > 0)
        fprintf(to, "  importance weights: mean %.6g, from %.4g to %.4g\n",
                weights->sum / (double)weights->n, (double)weights->least, (double)weights->most);
    fflush(stdout);
}

static void summary_json(const struct reading *r, const struct sm_trainer_report *t,
                         const struct sm_verdict *verdict, double seconds) {
    struct sm_buf text, quoted;
    sm_buf_init(&text, TEXT_BYTES);
    sm_buf_init(&quoted, TEXT_BYTES);
    sm_verdict_text(verdict, &text);
    sm_buf_json(&quoted, text.data);
    printf("{\"steps\":%" PRIu64 ",\"samples\":%" PRIu64 ",\"padding\":%" PRIu64
           ",\"substitutes\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"seconds\":%.3f,",
           t->steps, t->samples, t->padding, t->substitutes, t->bytes, seconds);
    printf("\"samples_per_s\":%.1f,\"gb_per_s\":%.4f,\"wait_p50_ms\":%.3f,\"wait_p99_ms\":%.3f,",
           seconds > 0 ? (double)t->samples / seconds : 0,
           seconds > 0 ? (double)t->bytes / seconds / 1e9 : 0, sm_waits_quantile_ms(&t->waits, 0.5),
           sm_waits_quantile_ms(&t->waits, 0.99));
    printf("\"transport\":\"%s\",\"limit\":\"%s\",\"workers\":%u,\"workers_enough\":%u,"
           "\"verdict\":%s,\"epochs\":[%s]}\n",
           t->transport, sm_limit_word(verdict->limit), verdict->workers, verdict->enough,
           quoted.data, r->epochs.len > 0 ? r->epochs.data : "");
    sm_buf_release(&text);
    sm_buf_release(&quoted);
}

static void summary_text(const struct reading *r, const struct sm_trainer_report *t,
                         const struct sm_verdict *verdict, double seconds) {
    struct sm_buf text;
    sm_buf_init(&text, TEXT_BYTES);
    sm_verdict_text(verdict, &text);
    FILE *to = r->v->digest ? stderr : stdout; /* lines of steps stay alone on stdout */
    fprintf(to,
            "%" PRIu64 " samples in %" PRIu64 " steps, %.2f s: %.0f samples/s, %.3f GB/s over %s; "
            "waits p50 %.2f ms, p99 %.2f ms\n",
            t->samples, t->steps, seconds, seconds > 0 ? (double)t->samples / seconds : 0,
            seconds > 0 ? (double)t->bytes / seconds / 1e9 : 0,
            t->transport[0] != 0 ? t->transport : "nothing", sm_waits_quantile_ms(&t->waits, 0.5),
            sm_waits_quantile_ms(&t->waits, 0.99));
    if (t->substitutes > 0)
        fprintf(to, "%" PRIu64 " stand in for samples that cannot be read\n", t->substitutes);
    fprintf(to, "limited by %s\n", text.data);
    sm_buf_release(&text);
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n;
    struct sm_err err = {0};
    if (v->rank >= v->world_size) {
        sm_fail(&err, SM_E_USAGE,
                "--rank is %" PRId64 ", wanted less than --world-size, which is %" PRId64 "",
                v->rank, v->world_size);
        return sm_cli_fail(&err);
    }
    struct reading r = {
        .v = v, .endpoint = v->common.broker != NULL ? v->common.broker : SM_BROKER_ENDPOINT};
    sm_buf_init(&r.epochs, 64 << 20);
    struct sm_trainer_options options = {.broker = r.endpoint,
                                         .job = operands[0],
                                         .token = v->token,
                                         .transport = v->transport,
                                         .ledger = v->ledger,
                                         .key_dir = v->common.keys,
                                         .rank = (uint32_t)v->rank,
                                         .world_size = (uint32_t)v->world_size,
                                         .epochs = (uint32_t)v->epochs,
                                         .steps = (uint64_t)v->steps,
                                         .checkpoint = (uint64_t)v->checkpoint,
                                         .hold_ms = (int)v->hold_ms,
                                         .timeout_ms = (int)v->timeout_s * 1000,
                                         .credit_bytes = (uint64_t)v->credit_mb << 20,
                                         .commit = v->commit,
                                         .lines = v->digest,
                                         .stop = &stop};
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    bool told = !v->common.quiet;
    struct sm_trainer_report report;
    if (told) workers_look(r.endpoint, &r.before);
    int code = sm_trainer_run(&options, &report, epoch_end, at_end, &r, &err);
    double seconds = (double)report.elapsed_ns / 1e9;
    if (told && report.steps > 0) {
        struct sm_verdict verdict = sm_verdict_make(&report, &r.before, &r.after);
        (v->common.json ? summary_json : summary_text)(&r, &report, &verdict, seconds);
    }
    sm_buf_release(&r.epochs);
    return code == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

#define AT(member) offsetof(struct values, member)
#define INT(option, letters, deflt, least, most, text) \
    {                                                  \
        .param = {.name = option,                      \
                  .type = SM_T_INT,                    \
                  .offset = AT(letters),               \
                  .dflt = deflt,                       \
                  .min = least,                        \
                  .max = most,                         \
                  .doc = text},                        \
        .metavar = "N"                                 \
    }
static const struct sm_option options[] = {
    SM_OPTION_BROKER,
    SM_OPTION_KEYS,
    INT("epochs", epochs, "1", 0, (double)UINT32_MAX, "epochs to read, 0: until the job ends"),
    INT("steps", steps, "0", 0, 1e15, "stop after so many steps, 0: no limit"),
    INT("rank", rank, "0", 0, 65535, "which of the trainers this is"),
    INT("world-size", world_size, "1", 1, 65536, "how many trainers share the job"),
    {.param = {.name = "digest",
               .type = SM_T_BOOL,
               .offset = AT(digest),
               .dflt = "false",
               .doc = "print a JSON line for each step; the summary goes to stderr"}},
    {.param = {.name = "token",
               .type = SM_T_STR,
               .offset = AT(token),
               .doc = "go on from this position, as a checkpoint holds it"},
     .metavar = "TOKEN"},
    {.param = {.name = "hold",
               .type = SM_T_INT,
               .offset = AT(hold_ms),
               .dflt = "0",
               .max = 3600000,
               .doc = "hold each batch for so long, as a training step does"},
     .metavar = "MS"},
    {.param = {.name = "transport",
               .type = SM_T_STR,
               .offset = AT(transport),
               .doc = "insist on shm (memory of this host) or tcp"},
     .metavar = "shm|tcp"},
    INT("credit", credit_mb, "0", 0, 1 << 20, "megabytes of batches on their way, 0: chosen"),
    {.param = {.name = "timeout",
               .type = SM_T_INT,
               .offset = AT(timeout_s),
               .dflt = "60",
               .min = 1,
               .max = 86400,
               .doc = "how long to wait for the broker or for a batch"},
     .metavar = "SECONDS"},
    {.param = {.name = "ledger",
               .type = SM_T_STR,
               .offset = AT(ledger),
               .doc = "write a line for each sample and each checkpoint; go on from its last "
                      "checkpoint"},
     .metavar = "FILE"},
    {.param = {.name = "commit",
               .type = SM_T_BOOL,
               .offset = AT(commit),
               .dflt = "true",
               .doc = "keep the ledger's checkpoints from the broker"}},
    INT("checkpoint", checkpoint, "10", 1, 1e9, "steps between two checkpoints of the ledger"),
    SM_OPTION_JSON,
    SM_OPTION_QUIET,
};
static const char *const examples[] = {
    "shardmill read photos", "shardmill read photos --hold 120 --epochs 2 --json",
    "shardmill read photos --digest --steps 100 --rank 1 --world-size 4", NULL};

const struct sm_command sm_cmd_read = {
    .name = "read",
    .order = 41,
    .brief = "read batches as a trainer does, and tell how fast and what limited it",
    .operands = "JOB",
    .operands_min = 1,
    .operands_max = 1,
    .details =
        "JOB is a name or id at the broker (see `serve`, `submit`, `jobs`). Ends with an audit of each epoch, "
        "samples/s, GB/s, the waits, and a verdict: whether the trainer, the workers, the network or the disk was "
        "the limit, and how many workers would do; --hold stands for the time of a training step. Of batches that carry "
        "importance weights the audit has the mean, which is 1 where every class is drawn.\n\n"
        "With --digest one line a step: {\"epoch\":0,\"step\":7,\"samples\":256,\"padding\":0,\"digest\":\"…\"}. The "
        "digests are the same for any number of workers, any transport and after any crash; `replay` makes them "
        "again. With --ledger it checkpoints and commits like a training loop, and can be killed and started again.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

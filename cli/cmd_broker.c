/* `shardmill broker`: plans, leases and the journal, for jobs that clients submit. Next in the
 * flow: broker/loop.c. */
#include "broker/core.h"
#include "broker/loop.h"
#include "cli/cli.h"

struct values {
    struct sm_common common;
    const char *bind, *state;
    int64_t heartbeat_ms, lease_ms;
};

static void started(void *arg, const char *endpoint) {
    const struct values *v = arg;
    if (v->common.quiet) return;
    printf("broker at %s, state in %s\n", endpoint, v->state);
    fflush(stdout);
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n, (void)operands;
    const volatile sig_atomic_t *stop = sm_cli_stop();
    struct sm_broker_options options = {.endpoint = v->bind,
                                        .state_dir = v->state,
                                        .heartbeat_ms = (uint32_t)v->heartbeat_ms,
                                        .lease_ms = (uint32_t)v->lease_ms,
                                        .started = started,
                                        .arg = (void *)values};
    struct sm_err err = {0};
    struct sm_keys *keys = NULL;
    int rc = sm_keys_load(NULL, &keys, &err);
    options.keys = keys;
    if (rc == 0) rc = sm_broker_run(&options, stop, &err);
    sm_keys_free(&keys);
    return rc == 0 ? SM_EXIT_DONE : sm_cli_fail(&err);
}

#define AT(member) offsetof(struct values, member)
static const struct sm_option options[] = {
    {.param = {.name = "bind",
               .type = SM_T_STR,
               .offset = AT(bind),
               .dflt = "tcp://127.0.0.1:5570",
               .doc = "where to listen: a loopback address, ipc:///path, or with --keys any "
                      "address"},
     .metavar = "ENDPOINT"},
    {.param = {.name = "state",
               .type = SM_T_STR,
               .offset = AT(state),
               .dflt = "./shardmill-state",
               .doc = "folder of the journal, on a local disk"},
     .metavar = "DIR"},
    {.param = {.name = "heartbeat-ms",
               .type = SM_T_INT,
               .offset = AT(heartbeat_ms),
               .dflt = "1000",
               .min = SM_HEARTBEAT_MIN_MS,
               .max = SM_HEARTBEAT_MAX_MS,
               .doc = "how often both sides speak; a worker silent for three is dead"},
     .metavar = "MS"},
    {.param = {.name = "lease-ms",
               .type = SM_T_INT,
               .offset = AT(lease_ms),
               .dflt = "30000",
               .min = 100,
               .max = 86400000,
               .doc = "without progress for so long, a worker's lease is given to another as well"},
     .metavar = "MS"},
    SM_OPTION_KEYS,
    SM_OPTION_QUIET,
};
static const char *const examples[] = {
    "shardmill broker --state /var/lib/shardmill",
    "shardmill broker --bind ipc:///run/shardmill/broker",
    "shardmill broker --bind tcp://0.0.0.0:5570 --keys /etc/shardmill/keys", NULL};

const struct sm_command sm_cmd_broker = {
    .name = "broker",
    .order = 50,
    .brief = "run a broker for jobs of other processes",
    .operands = "",
    .details =
        "Prints its endpoint and runs until SIGTERM or SIGINT. What it has acknowledged is in the journal and "
        "survives any end: started again on the same state, it goes on. Two brokers on one state folder are "
        "refused. Without --keys it listens only where this host alone can reach it; with keys it lets in those whose "
        "public key lies in its folder allowed (`shardmill keygen`), and a key can be put in or taken out while it runs.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

/* `shardmill keygen`: a CURVE key pair in a folder of its own. Next in the flow: lib/keys.c. */
#include "cli/cli.h"
#include "lib/keys.h"

struct values {
    struct sm_common common;
    const char *join;
};

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n;
    char public_key[SM_KEY_TEXT];
    struct sm_err err = {0};
    const char *dir = operands[0];
    if (sm_keys_make(dir, v->join, public_key, &err) != 0) return sm_cli_fail(&err);
    if (v->common.quiet) return SM_EXIT_DONE;
    printf("public key %s\n", public_key);
    printf("%s/secret.key stays here; %s/public.key is for others\n", dir, dir);
    if (v->join != NULL)
        printf("the broker of '%s' lets it in from now on; use it with --keys %s\n", v->join, dir);
    else
        printf("to listen: put public keys of others into %s/allowed; to connect: put the broker's "
               "public.key there as %s/server.key\n",
               dir, dir);
    return SM_EXIT_DONE;
}

static const struct sm_option options[] = {
    {.param = {.name = "join",
               .type = SM_T_STR,
               .offset = offsetof(struct values, join),
               .doc = "a broker's folder of keys on this host: trust it, and be allowed by it"},
     .metavar = "BROKER_DIR"},
    SM_OPTION_QUIET,
};
static const char *const examples[] = {"shardmill keygen broker-keys",
                                       "shardmill keygen trainer-keys --join broker-keys", NULL};

const struct sm_command sm_cmd_keygen = {
    .name = "keygen",
    .order = 60,
    .brief = "make CURVE keys for a broker, worker or trainer",
    .operands = "DIR",
    .operands_min = 1,
    .operands_max = 1,
    .operand = SM_OPERAND_DIR,
    .details =
        "Makes DIR with secret.key (mode 0600; it is never printed), public.key and an empty folder allowed. Who listens lets in "
        "those whose public.key lies in its allowed folder, under any file name; who connects needs the broker's public.key as "
        "DIR/server.key; without that file, DIR is taken for the broker's own. With --join both are done for a broker whose folder is on this host.\n\n"
        "Nothing is written over. The files are in CZMQ's certificate format, which pyzmq reads too.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

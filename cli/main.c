/* The program: finds the command, has its options read, runs it, and turns how that ended into an
 * exit code. Everything else is in the commands' own files, cli/cmd_NAME.c. */
#include "cli/cli.h"
#include "cli/help.h"
#include "cli/options.h"
#include "lib/keys.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

enum { TEXT_BYTES_MAX = 1 << 20 };

static int overview(FILE *to, int exit_code);
static int command_run(const struct sm_command *command, int argc, char **argv);
static int output_end(int exit_code);

int main(int argc, char **argv) {
    prctl(PR_SET_NAME,
          "shardmill"); /* a child is started from /proc/self/exe and would be called so */
    if (argc < 2) return overview(stderr, SM_EXIT_USAGE);
    const char *name = argv[1];
    if (strcmp(name, "--version") == 0) {
        printf("shardmill " SM_VERSION "\n");
        return output_end(SM_EXIT_DONE);
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        return output_end(overview(stdout, SM_EXIT_DONE));
    const struct sm_command *command = sm_command_find(name);
    struct sm_err err;
    if (command == NULL && sm_command_unknown(name, &err) != 0) return sm_cli_fail(&err);
    return output_end(command_run(command, argc - 1, argv + 1));
}

static int overview(FILE *to, int exit_code) {
    struct sm_buf text;
    sm_buf_init(&text, TEXT_BYTES_MAX);
    sm_help_overview(&text);
    fputs(text.data, to);
    sm_buf_release(&text);
    return exit_code;
}

static int help(const struct sm_command *command) {
    struct sm_buf text;
    sm_buf_init(&text, TEXT_BYTES_MAX);
    sm_help_command(command, &text);
    fputs(text.data, stdout);
    sm_buf_release(&text);
    return SM_EXIT_DONE;
}

/* argv[0] is the command's name. */
static int command_run(const struct sm_command *command, int argc, char **argv) {
    if (command->run_raw != NULL) return command->run_raw(argc, argv);
    void *values = calloc(1, command->values_size);
    assert(values != NULL);
    int n_operands, code;
    bool wants_help;
    struct sm_err err;
    int failed =
        sm_options_read(command, argc - 1, argv + 1, values, &n_operands, &wants_help, &err);
    const char *keys = ((struct sm_common *)values)->keys;
    if (!failed && keys != NULL) setenv(SM_KEYS_ENV, keys, 1);
    if (failed)
        code = sm_cli_fail(&err);
    else if (wants_help)
        code = help(command);
    else
        code = command->run(values, n_operands, argv + 1);
    free(values);
    return code;
}

/* A result that did not reach the disk is no result. */
static int output_end(int exit_code) {
    if (fflush(stdout) == 0 && !ferror(stdout)) return exit_code;
    fprintf(stderr, "shardmill: cannot write the result: %s\n", strerror(errno));
    return exit_code == SM_EXIT_DONE ? SM_EXIT_FAILED : exit_code;
}

int sm_cli_fail(const struct sm_err *err) {
    /* a place in a file stands first on its line, where editors look for it */
    bool place = err->code == SM_E_PIPELINE && strchr(err->text, '\n') != NULL;
    fflush(stdout);
    fprintf(stderr, "%s%s\n", place ? "" : "shardmill: ", err->text);
    switch (err->code) {
    case SM_E_USAGE:
    case SM_E_PIPELINE:
        return SM_EXIT_USAGE;
    case SM_E_QUARANTINE:
        return SM_EXIT_QUARANTINE;
    default:
        return SM_EXIT_FAILED;
    }
}

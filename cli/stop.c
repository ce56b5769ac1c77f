/* The flag by which a running command is asked to end. Before: main.c has called the command.
 * After: its loops (broker/loop.h, workers/shell.h, expand.h, serve.h, top) look at it. */
#include "cli/cli.h"

static volatile sig_atomic_t stop;

static void on_signal(int number) {
    stop = number;
}

const volatile sig_atomic_t *sm_cli_stop(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    return &stop;
}

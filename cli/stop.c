/* The flag by which a running command is asked to end. Before: main.c has called the command.
 * After: its loops (broker/loop.h, workers/shell.h, expand.h, serve.h, top) look at it. */
#include "cli/cli.h"

#include <unistd.h>

static volatile sig_atomic_t stop, at_once;

static void end_at_once(int number) {
    static const char text[] = "\nshardmill: stopped on request\n";
    const ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
    signal(number, SIG_DFL);
    raise(number);
}

static void on_signal(int number) {
    stop = number;
    if (at_once) end_at_once(number);
}

void sm_cli_stop_at_once(bool on) {
    at_once = on;
    if (on && stop) end_at_once(stop);
}

const volatile sig_atomic_t *sm_cli_stop(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    return &stop;
}

/* `shardmill top`: how a broker's jobs, trainers and workers do, live. Next in the flow: cli/top.c
 * draws a frame. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/top.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

enum { PATIENCE_MS = 3000, FRAME_BYTES = 4 << 20, COLUMNS = 200, LOOK_MS = 400 };

struct values {
    struct sm_common common;
    double interval;
};

static const volatile sig_atomic_t *stop;
static struct termios terminal_before;

/* Keys come at once and unseen; the screen that was there comes back at the end. */
static void terminal_take(void) {
    struct termios raw;
    if (tcgetattr(STDIN_FILENO, &terminal_before) == 0) {
        raw = terminal_before;
        raw.c_lflag &= (tcflag_t) ~(ICANON | ECHO);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    fputs("\033[?1049h\033[?25l", stdout);
}

static void terminal_give_back(void) {
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
    if (isatty(STDIN_FILENO)) tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
}

/* Every line clears what stood behind it, and the last what stood below: no flicker. */
static void screen_draw(const char *frame) {
    fputs("\033[H", stdout);
    for (const char *at = frame; *at != 0;) {
        size_t n = strcspn(at, "\n");
        printf("%.*s\033[K\r\n", (int)n, at);
        at += n + (at[n] == '\n');
    }
    fputs("\033[J\033[7m q ends \033[0m\033[K", stdout);
    fflush(stdout);
}

/* Whether to go on after the pause. */
static bool pause_for(double seconds) {
    struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
    if (poll(&fd, 1, (int)(seconds * 1000)) > 0) {
        char key = 'q';
        if (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q' || key == 'Q') return false;
    }
    return !*stop;
}

static int frame_show(struct sm_client *client, struct sm_top *top, const char *endpoint,
                      bool screen, struct sm_buf *frame, struct sm_err *err) {
    sm_envelope *answer = NULL;
    struct winsize size = {0};
    if (sm_client_status(client, PATIENCE_MS, &answer, err) < 0) return -1;
    bool sized = screen && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    sm_buf_reset(frame);
    sm_top_frame(top, answer->status, endpoint, sm_now_ms(), sized ? size.ws_col - 1 : COLUMNS,
                 sized ? size.ws_row - 1 : 0, screen, frame);
    if (screen) screen_draw(frame->data);
    sm_wire_free(&answer);
    return 0;
}

/* Two looks, so that the one frame that is printed has rates. */
static int frame_print(struct sm_client *client, struct sm_top *top, const char *endpoint,
                       struct sm_buf *frame, struct sm_err *err) {
    if (frame_show(client, top, endpoint, false, frame, err) < 0) return -1;
    poll(NULL, 0, LOOK_MS);
    if (frame_show(client, top, endpoint, false, frame, err) < 0) return -1;
    fputs(frame->data, stdout);
    return 0;
}

static int run(const void *values, int n, char **operands) {
    const struct values *v = values;
    (void)n, (void)operands;
    const char *endpoint = v->common.broker != NULL ? v->common.broker : SM_BROKER_ENDPOINT;
    bool live = isatty(STDOUT_FILENO) && isatty(STDIN_FILENO);
    struct sm_client *client = NULL;
    struct sm_top *top = sm_top_new();
    struct sm_err err = {0};
    struct sm_buf frame;
    sm_buf_init(&frame, FRAME_BYTES);
    stop = sm_cli_stop();
    int r = top == NULL ? sm_fail(&err, SM_E_MEMORY, "out of memory")
                        : sm_client_new(&client, endpoint, stop, &err);
    if (r == 0 && !live) r = frame_print(client, top, endpoint, &frame, &err);
    if (r == 0 && live) {
        terminal_take();
        while ((r = frame_show(client, top, endpoint, true, &frame, &err)) == 0 &&
               pause_for(v->interval))
            ;
        terminal_give_back();
    }
    sm_client_free(&client);
    sm_top_free(&top);
    sm_buf_release(&frame);
    return r == 0 || stop ? SM_EXIT_DONE : sm_cli_fail(&err);
}

static const struct sm_option options[] = {
    SM_OPTION_BROKER,
    SM_OPTION_KEYS,
    {.param = {.name = "interval",
               .type = SM_T_NUM,
               .offset = offsetof(struct values, interval),
               .dflt = "1",
               .min = 0.1,
               .max = 3600,
               .doc = "time between two frames"},
     .metavar = "SECONDS"},
};
static const char *const examples[] = {"shardmill top", "shardmill top | cat", NULL};

const struct sm_command sm_cmd_top = {
    .name = "top",
    .order = 53,
    .brief = "watch a broker's jobs, trainers and workers live",
    .operands = "",
    .details =
        "Rates, queues, waits and quarantine, once a second: per job, per trainer and per worker. A line in "
        "yellow says who waits for whom. q or Ctrl-C ends it. Where there is no terminal it prints one "
        "frame and ends.",
    .examples = examples,
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .values_size = sizeof(struct values),
    .run = run,
};

/* Rate and time left come from this run's own work since its start. */
#include "cli/progress.h"

#include "lib/wire.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    TERMINAL_MS = 100,
    LINES_MS = 5000,
    BAR_MIN = 10,
    BAR_MAX = 40,
    TEXT_COLUMNS = 66,
    COLUMNS_MIN = 60
};

void sm_progress_start(struct sm_progress *p, bool quiet, const char *unit, uint64_t done) {
    *p = (struct sm_progress){.quiet = quiet,
                              .terminal = isatty(STDERR_FILENO),
                              .unit = unit,
                              .start_ms = sm_now_ms(),
                              .start_done = done};
}

static void time_text(double seconds, char text[32]) {
    if (seconds >= 3600)
        snprintf(text, 32, "%.0f h %02d min", seconds / 3600 - 0.5, (int)(seconds / 60) % 60);
    else if (seconds >= 60)
        snprintf(text, 32, "%d min %02d s", (int)(seconds / 60), (int)seconds % 60);
    else
        snprintf(text, 32, "%.0f s", seconds);
}

static int columns(void) {
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col >= COLUMNS_MIN ? w.ws_col : 80;
}

/* As wide as the line leaves room beside the figures. */
static void bar(double share, char text[BAR_MAX + 1]) {
    int width = columns() - TEXT_COLUMNS;
    width = width < BAR_MIN ? BAR_MIN : width > BAR_MAX ? BAR_MAX : width;
    int full = (int)(share * width);
    memset(text, '#', (size_t)full);
    memset(text + full, '.', (size_t)(width - full));
    text[width] = 0;
}

void sm_progress_show(struct sm_progress *p, uint64_t done, uint64_t total, uint64_t quarantined,
                      const char *waits_for) {
    int64_t now = sm_now_ms();
    bool end = done >= total;
    if (p->quiet || (end && p->ended)) return; /* shards that are still joined add no line */
    p->ended = end;
    if ((!end && now - p->last_ms < (p->terminal ? TERMINAL_MS : LINES_MS))) return;
    if (!p->terminal && !end && p->last_ms == 0) { /* the first line comes after the first pause */
        p->last_ms = now;
        return;
    }
    p->last_ms = now;
    double seconds = (double)(now - p->start_ms) / 1000;
    double rate = seconds > 0 ? (double)(done - p->start_done) / seconds : 0;
    double share = total ? (double)done / (double)total : 1;
    char left[32] = "", line[512], drawn[BAR_MAX + 1];
    if (rate > 0 && !end) time_text((double)(total - done) / rate, left);
    bar(share, drawn);
    int n = snprintf(line, sizeof line, "%s%s%s%5.1f %%  %" PRIu64 "/%" PRIu64 " %s  %.0f/s",
                     p->terminal ? "[" : "", p->terminal ? drawn : "", p->terminal ? "]" : "",
                     share * 100, done, total, p->unit, rate);
    if (left[0]) n += snprintf(line + n, sizeof line - (size_t)n, "  %s left", left);
    if (quarantined)
        n += snprintf(line + n, sizeof line - (size_t)n, "  %" PRIu64 " quarantined", quarantined);
    if (waits_for != NULL && waits_for[0] && !end)
        snprintf(line + n, sizeof line - (size_t)n, "  (%.200s)", waits_for);
    if (p->terminal)
        fprintf(stderr, "\r\033[K%.*s", columns() - 1, line);
    else
        fprintf(stderr, "%s\n", line);
    p->drawn = true;
    fflush(stderr);
}

void sm_progress_end(struct sm_progress *p) {
    if (p->drawn && p->terminal) fputc('\n', stderr);
    p->drawn = false;
}

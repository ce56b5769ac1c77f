/* Tables of jobs, trainers and workers, with rates. Before: cli/cmd_top.c asks the broker once a
 * second. A rate is the difference of two counts that belong to the same name; the first frame has
 * none. */
#include "cli/top.h"

#include "cli/status.h"
#include "lib/limits.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 192, LINE_BYTES = 1024, COUNTS_MAX = 8192 };

/* A count under a name. */
struct count {
    char name[NAME_BYTES];
    uint64_t value;
};

struct counts {
    struct count *list;
    size_t n, cap;
    int64_t at_ms;
};

struct sm_top {
    struct counts before, now;
};

struct frame {
    struct sm_top *top;
    const Shardmill__Status *status;
    struct sm_buf *out;
    int columns, rows, lines;
    bool color;
};

struct sm_top *sm_top_new(void) {
    return calloc(1, sizeof(struct sm_top));
}

void sm_top_free(struct sm_top **top) {
    if (*top == NULL) return;
    free((*top)->before.list);
    free((*top)->now.list);
    free(*top);
    *top = NULL;
}

/* Keeps a count and gives its rate a second, or -1 when the last frame had none. */
static double rate_of(struct sm_top *top, const char *name, uint64_t value) {
    struct counts *now = &top->now, *before = &top->before;
    if (now->n == now->cap && now->cap < COUNTS_MAX) {
        size_t cap = now->cap * 2 + 64;
        struct count *grown = reallocarray(now->list, cap, sizeof *grown);
        if (grown == NULL) return -1;
        now->list = grown;
        now->cap = cap;
    }
    if (now->n == now->cap) return -1;
    struct count *c = &now->list[now->n++];
    snprintf(c->name, sizeof c->name, "%s", name);
    c->value = value;
    double seconds = (double)(now->at_ms - before->at_ms) / 1000;
    for (size_t i = 0; i < before->n && seconds > 0; i++)
        if (strcmp(before->list[i].name, c->name) == 0)
            return value >= before->list[i].value
                       ? (double)(value - before->list[i].value) / seconds
                       : -1;
    return -1;
}

static void rate_text(double rate, char text[24]) {
    if (rate < 0)
        snprintf(text, 24, "-");
    else
        snprintf(text, 24, rate < 10 ? "%.1f/s" : "%.0f/s", rate);
}

/* One line, cut at the terminal's width; style is "", "1" (bold), "7" (inverse), "33" (yellow). */
static void line(struct frame *f, const char *style, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void line(struct frame *f, const char *style, const char *fmt, ...) {
    char text[LINE_BYTES];
    va_list args;
    if (f->rows > 0 && f->lines >= f->rows) return;
    f->lines++;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    int columns = 0;
    char *end = text;
    for (; *end != 0; end++) { /* a character of UTF-8 begins with any byte but 10xxxxxx */
        if (((unsigned char)*end & 0xc0) != 0x80 && columns++ == f->columns) break;
        if ((unsigned char)*end < 0x20) *end = '?'; /* nothing commands a terminal */
    }
    *end = 0;
    bool styled = f->color && style[0] != 0;
    if (styled) sm_buf_printf(f->out, "\033[%sm", style);
    sm_buf_text(f->out, text);
    if (styled) sm_buf_text(f->out, "\033[0m");
    sm_buf_text(f->out, "\n");
}

static void session_line(struct frame *f, const Shardmill__JobStatus *j,
                         const Shardmill__SessionStatus *s) {
    char key[NAME_BYTES], rate[24], at[64], heard[32];
    snprintf(key, sizeof key, "s%.128s %u", j->job, s->rank);
    rate_text(rate_of(f->top, key, s->delivered), rate);
    snprintf(at, sizeof at, "%u:%" PRIu64, s->epoch, s->step);
    sm_duration_text(s->silent_ms, heard);
    line(f, "",
         "  rank %u of %-6u %14s %10s  ready %u, in work %u, of %u  committed %u:%" PRIu64
         "  heard %s ago",
         s->rank, s->world_size, at, rate, s->made, s->in_work, s->window, s->committed_epoch,
         s->committed_position, heard);
    if (s->waits_for[0] != 0) line(f, "33", "    %s", s->waits_for);
}

static void job_lines(struct frame *f, const Shardmill__JobStatus *j) {
    char key[NAME_BYTES], rate[24], made[48];
    uint64_t done = j->made + j->in_work, delivered = 0;
    bool stream = j->kind == SHARDMILL__JOB_KIND__STREAM;
    for (size_t i = 0; i < j->n_sessions; i++)
        delivered += j->sessions[i]->delivered;
    snprintf(key, sizeof key, "j%.128s", j->job);
    rate_text(rate_of(f->top, key, stream ? delivered : done), rate);
    if (j->planned > 0)
        snprintf(made, sizeof made, "%" PRIu64 "/%" PRIu64, done, j->planned);
    else
        snprintf(made, sizeof made, "%" PRIu64, done);
    line(f, "", "%-24.24s %-10s %24s %10s %8u %11" PRIu64 " %6" PRIu64 "  %.34s",
         j->name[0] != 0 ? j->name : j->job, sm_state_word(j->state), made, rate, j->workers,
         j->quarantined, j->leases_lost, j->job);
    if (j->text[0] != 0) line(f, "33", "    %s: %s", sm_code_word((int)j->code), j->text);
    if (j->waits_for[0] != 0) line(f, "33", "    %s", j->waits_for);
    for (size_t i = 0; i < j->n_sessions; i++)
        session_line(f, j, j->sessions[i]);
}

static const char *job_name(const Shardmill__Status *s, const char *id) {
    for (size_t i = 0; i < s->n_jobs; i++)
        if (strcmp(s->jobs[i]->job, id) == 0 && s->jobs[i]->name[0] != 0) return s->jobs[i]->name;
    return id[0] != 0 ? id : "idle";
}

static void worker_line(struct frame *f, const Shardmill__WorkerStatus *w) {
    char key[NAME_BYTES], rate[24], heard[32], done[32] = "-";
    snprintf(key, sizeof key, "w%.160s", w->name);
    rate_text(rate_of(f->top, key, w->made), rate);
    sm_duration_text(w->silent_ms, heard);
    if (w->count > 0) snprintf(done, sizeof done, "%u/%u", w->done, w->count);
    line(f, "", "%-34.34s %10s %12s %12s ago  %.34s", w->name, rate, done, heard,
         job_name(f->status, w->job));
}

void sm_top_frame(struct sm_top *top, const Shardmill__Status *s, const char *endpoint,
                  int64_t now_ms, int columns, int rows, bool color, struct sm_buf *out) {
    struct frame f = {
        .top = top, .status = s, .out = out, .columns = columns, .rows = rows, .color = color};
    char up[32];
    top->now.n = 0;
    top->now.at_ms = now_ms;
    sm_duration_text(s->up_ms, up);
    line(&f, "1", "shardmill: broker at %s, up %s, start %u", endpoint, up, s->incarnation);
    line(&f, "", "%zu jobs, %zu workers, %" PRIu64 " stale results, %" PRIu64 " messages dropped",
         s->n_jobs, s->n_workers, s->stale, s->dropped);
    line(&f, "", "%s", "");
    line(&f, "7", "%-24s %-10s %24s %10s %8s %11s %6s  %s", "JOB", "STATE", "MADE", "RATE",
         "WORKERS", "QUARANTINED", "LOST", "ID");
    for (size_t i = 0; i < s->n_jobs; i++)
        job_lines(&f, s->jobs[i]);
    line(&f, "", "%s", "");
    line(&f, "7", "%-34s %10s %12s %16s  %s", "WORKER", "RATE", "IN WORK", "HEARD", "JOB");
    for (size_t i = 0; i < s->n_workers; i++)
        worker_line(&f, s->workers[i]);
    struct counts swap = top->before;
    top->before = top->now;
    top->now = swap;
}

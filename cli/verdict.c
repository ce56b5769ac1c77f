/* Arithmetic on waits and processor time. Before: cli/cmd_read.c has both. The rule: who waits is
 * not the limit. A trainer that hardly waits limits itself; else batches were late, because workers
 * were at work the whole time, or waited for a processor (workers), because they were not and the
 * bytes crossed a network (network), or because they were not though nothing lay between (disk). */
#include "cli/verdict.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHILDREN_BYTES = 4096 };

static const double WAITS_LITTLE = 0.05; /* of its time: then the trainer is the limit */
static const double BUSY_MUCH = 0.6;     /* of a processor for each worker */
static const double OWN_MUCH = 0.05;     /* of its time: less, and it is no training loop */
static const double HOST_FULL = 0.85; /* of all processors: a worker that has none waits for one */

/* User and system time of a process in milliseconds, 0 when it is not there. */
static int64_t process_cpu_ms(long pid) {
    char path[64], line[1024];
    unsigned long long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) return 0;
    char *rest = fgets(line, sizeof line, file) != NULL ? strrchr(line, ')') : NULL;
    fclose(file);
    if (rest == NULL || sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
                               &user, &system) != 2)
        return 0;
    return (int64_t)((user + system) * 1000 / (unsigned long long)sysconf(_SC_CLK_TCK));
}

/* A worker and its cages. */
static int64_t worker_cpu_ms(long pid) {
    char path[64], children[CHILDREN_BYTES];
    int64_t sum = process_cpu_ms(pid);
    snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", pid, pid);
    FILE *file = fopen(path, "re");
    if (file == NULL) return sum;
    if (fgets(children, sizeof children, file) != NULL)
        for (char *at = children, *end; *at != 0; at = end) {
            long child = strtol(at, &end, 10);
            if (end == at) break;
            sum += process_cpu_ms(child);
        }
    fclose(file);
    return sum;
}

static void host_look(struct sm_busy *b) {
    unsigned long long t[8] = {0}; /* user, nice, system, idle, iowait, irq, softirq, steal */
    FILE *file = fopen("/proc/stat", "re");
    if (file == NULL) return;
    if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3],
               &t[4], &t[5], &t[6], &t[7]) == 8) {
        for (int i = 0; i < 8; i++)
            b->all += t[i];
        b->idle = t[3] + t[4];
    }
    fclose(file);
}

void sm_busy_look(struct sm_busy *b, const Shardmill__Status *status) {
    char host[256] = "";
    gethostname(host, sizeof host - 1);
    *b = (struct sm_busy){.workers = (uint32_t)status->n_workers, .at_ms = sm_now_ms()};
    host_look(b);
    for (size_t i = 0; i < status->n_workers; i++) { /* "host/pid" */
        const char *name = status->workers[i]->name, *slash = strrchr(name, '/');
        size_t n = slash != NULL ? (size_t)(slash - name) : 0;
        if (n == 0 || n != strlen(host) || strncmp(name, host, n) != 0) continue;
        int64_t cpu = worker_cpu_ms(atol(slash + 1));
        if (cpu == 0) continue;
        b->local++;
        b->cpu_ms += cpu;
    }
}

const char *sm_limit_word(enum sm_limit limit) {
    static const char *const words[] = {"trainer", "workers", "network", "disk"};
    return words[limit];
}

struct sm_verdict sm_verdict_make(const struct sm_trainer_report *r, const struct sm_busy *before,
                                  const struct sm_busy *after) {
    struct sm_verdict v = {.workers = after->workers, .busy = -1};
    double elapsed = (double)r->elapsed_ns, own = elapsed - (double)r->waits.total_ns;
    v.waited = elapsed > 0 ? (double)r->waits.total_ns / elapsed : 0;
    double wall = (double)(after->at_ms - before->at_ms);
    if (wall > 0 && after->local > 0 && after->local == before->local &&
        after->cpu_ms >= before->cpu_ms)
        v.busy = (double)(after->cpu_ms - before->cpu_ms) / wall / after->local;
    double ticks = (double)(after->all - before->all);
    if (after->all > before->all) v.host = 1 - (double)(after->idle - before->idle) / ticks;
    bool tcp = strcmp(r->transport, "tcp") == 0;
    if (v.waited < WAITS_LITTLE)
        v.limit = SM_LIMIT_TRAINER;
    else if (v.busy >= BUSY_MUCH || (v.busy >= 0 && v.host >= HOST_FULL) || (v.busy < 0 && !tcp))
        v.limit = SM_LIMIT_WORKERS;
    else
        v.limit = tcp ? SM_LIMIT_NETWORK : SM_LIMIT_DISK;
    if (v.limit == SM_LIMIT_WORKERS && own > elapsed * OWN_MUCH) {
        double enough = ceil(v.workers * elapsed / own);
        v.enough = enough > 1e6 ? 0 : (uint32_t)enough;
    } else if (v.limit == SM_LIMIT_TRAINER && v.busy >= 0) {
        double enough = ceil(v.workers * v.busy * 1.1); /* a little room */
        v.enough = enough < 1 ? 1 : enough > v.workers ? v.workers : (uint32_t)enough;
    }
    return v;
}

void sm_verdict_text(const struct sm_verdict *v, struct sm_buf *out) {
    double waited = v->waited * 100, busy = v->busy * 100;
    const char *s = v->workers == 1 ? "" : "s";
    switch (v->limit) {
    case SM_LIMIT_TRAINER:
        sm_buf_printf(out, "the trainer: it waited %.1f %% of the time", waited);
        if (v->enough > 0)
            sm_buf_printf(out, "; %u of the %u worker%s would do", v->enough, v->workers, s);
        return;
    case SM_LIMIT_WORKERS:
        sm_buf_printf(out, "the workers: the trainer waited %.1f %% of the time for %u of them",
                      waited, v->workers);
        if (v->busy >= 0 && v->busy < BUSY_MUCH)
            sm_buf_printf(out, ", and this host's processors were %.0f %% busy", v->host * 100);
        if (v->enough > v->workers)
            sm_buf_printf(out, "; about %u would do", v->enough);
        else
            sm_buf_text(out, " (hint: --hold MS, the time of your step, tells how many would do)");
        return;
    case SM_LIMIT_NETWORK:
        sm_buf_printf(out, "the network: the trainer waited %.1f %% of the time", waited);
        break;
    case SM_LIMIT_DISK:
        sm_buf_printf(out, "the disk: the trainer waited %.1f %% of the time", waited);
        break;
    }
    if (v->busy >= 0)
        sm_buf_printf(out, ", and the worker%s used a processor for %.0f %% only", s, busy);
}

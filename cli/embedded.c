/* Supervises the children of `expand` and `serve`: one broker, N workers, all of them this same
 * program. What places and restarts processes on many hosts is never ours; inside one command it
 * has to be. */
#include "cli/embedded.h"

#include "lib/wire.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    QUICK_MS = 2000,  /* a child that lives shorter than this died at once */
    QUICK_DEATHS = 5, /* so many in a row, and it is not worth another try */
    RESTART_MS = 100, /* pause before a start, doubled after each quick death */
    LAST_WORDS = 512,
};

struct child {
    pid_t pid; /* 0: not running */
    int64_t started_ms, start_at_ms;
    int quick_deaths;
    int words_fd; /* its stderr */
    char words[LAST_WORDS];
    size_t n_words;
};

struct sm_embedded {
    char endpoint[256], batch_memory[24];
    char *state_dir;
    bool no_sandbox, no_fuse;
    int n, restarts; /* children: [0] is the broker */
    struct child *children;
};

static int child_start(struct sm_embedded *e, struct child *c, struct sm_err *err);

int sm_embedded_start(struct sm_embedded **gives, const struct sm_embedded_options *options,
                      struct sm_err *err) {
    assert(options->workers > 0);
    unsigned long long name[2];
    if (getrandom(name, sizeof name, 0) != sizeof name)
        return sm_fail_errno(err, "cannot get random bytes");
    struct sm_embedded *e = calloc(1, sizeof *e);
    if (e == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    /* an abstract address: it has no file, so nothing is left when everyone is killed */
    if (options->endpoint != NULL)
        snprintf(e->endpoint, sizeof e->endpoint, "%s", options->endpoint);
    else
        snprintf(e->endpoint, sizeof e->endpoint, "ipc://@shardmill-%016llx%016llx", name[0],
                 name[1]);
    if (options->batch_memory_mb > 0)
        snprintf(e->batch_memory, sizeof e->batch_memory, "%" PRId64, options->batch_memory_mb);
    e->no_sandbox = options->no_sandbox;
    e->no_fuse = options->no_fuse;
    e->state_dir = strdup(options->state_dir);
    e->n = options->workers + 1;
    e->children = calloc((size_t)e->n, sizeof *e->children);
    for (int i = 0; i < e->n; i++)
        e->children[i].words_fd = -1;
    for (int i = 0; i < e->n; i++)
        if (child_start(e, &e->children[i], err) < 0) {
            sm_embedded_stop(&e, 0);
            return -1;
        }
    *gives = e;
    return 0;
}

const char *sm_embedded_endpoint(const struct sm_embedded *e) {
    return e->endpoint;
}

int sm_embedded_restarts(const struct sm_embedded *e) {
    return e->restarts;
}

static int child_start(struct sm_embedded *e, struct child *c, struct sm_err *err) {
    char *broker[] = {"shardmill", "broker",     "--bind",  e->endpoint,
                      "--state",   e->state_dir, "--quiet", NULL};
    char *worker[10] = {"shardmill", "worker", "--broker", e->endpoint, "--quiet"};
    int n = 5;
    if (e->no_sandbox) worker[n++] = "--no-sandbox";
    if (e->no_fuse) worker[n++] = "--no-fuse";
    if (e->batch_memory[0] != 0) {
        worker[n++] = "--batch-memory";
        worker[n++] = e->batch_memory;
    }
    char **argv = c == &e->children[0] ? broker : worker;
    int words[2];
    if (pipe2(words, O_CLOEXEC) < 0) return sm_fail_errno(err, "cannot make a pipe");
    fcntl(words[0], F_SETFL, O_NONBLOCK);
    pid_t parent = getpid(), pid = fork();
    if (pid == 0) { /* only async-signal-safe calls here: the parent may have threads */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1); /* it died in between */
        setpgid(0, 0);                     /* Ctrl-C is the parent's to answer */
        dup2(words[1], STDERR_FILENO);
        int null = open("/dev/null", O_RDWR);
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execv("/proc/self/exe", argv);
        _exit(127);
    }
    close(words[1]);
    if (pid < 0) {
        close(words[0]);
        return sm_fail_errno(err, "cannot start 'shardmill %s'", argv[1]);
    }
    if (c->words_fd >= 0) close(c->words_fd);
    c->words_fd = words[0];
    c->n_words = 0;
    c->pid = pid;
    c->started_ms = sm_now_ms();
    return 0;
}

/* Keeps the last words of a child, and passes them on line by line to our own stderr. */
static void child_listen(struct child *c) {
    if (c->words_fd < 0) return;
    for (;;) {
        char piece[LAST_WORDS];
        ssize_t n = read(c->words_fd, piece, sizeof piece);
        if (n <= 0) break;
        size_t keep = sizeof c->words - 1;
        if ((size_t)n >= keep) {
            memcpy(c->words, piece + n - keep, keep);
            c->n_words = keep;
        } else {
            size_t over = c->n_words + (size_t)n > keep ? c->n_words + (size_t)n - keep : 0;
            memmove(c->words, c->words + over, c->n_words - over);
            memcpy(c->words + c->n_words - over, piece, (size_t)n);
            c->n_words += (size_t)n - over;
        }
        c->words[c->n_words] = 0;
        fwrite(piece, 1, (size_t)n, stderr);
    }
}

static int child_died(struct sm_embedded *e, struct child *c, int status, struct sm_err *err) {
    int64_t now = sm_now_ms();
    child_listen(c);
    c->pid = 0;
    /* killed from outside (SIGKILL) is not a reason to give up; dying by itself at once is */
    bool by_itself = !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    bool quick = now - c->started_ms < QUICK_MS;
    c->quick_deaths = quick && by_itself ? c->quick_deaths + 1 : 0;
    const char *role = c == &e->children[0] ? "broker" : "worker";
    if (c->quick_deaths >= QUICK_DEATHS) {
        size_t n = c->n_words;
        while (n > 0 && c->words[n - 1] == '\n')
            c->words[--n] = 0;
        return sm_fail(err, SM_E_PEER, "the %s does not stay up (%s %d): %s", role,
                       WIFSIGNALED(status) ? "signal" : "exit",
                       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
                       n ? c->words : "it said nothing");
    }
    c->start_at_ms = now + (c->quick_deaths ? RESTART_MS << (c->quick_deaths - 1) : 0);
    return 0;
}

int sm_embedded_tend(struct sm_embedded *e, struct sm_err *err) {
    for (int i = 0; i < e->n; i++) {
        struct child *c = &e->children[i];
        int status;
        child_listen(c);
        if (c->pid > 0 && waitpid(c->pid, &status, WNOHANG) == c->pid &&
            child_died(e, c, status, err) < 0)
            return -1;
        if (c->pid == 0 && sm_now_ms() >= c->start_at_ms) {
            if (child_start(e, c, err) < 0) return -1;
            e->restarts++;
        }
    }
    return 0;
}

static int still_there(struct sm_embedded *e) {
    int n = 0;
    for (int i = 0; i < e->n; i++) {
        struct child *c = &e->children[i];
        child_listen(c);
        if (c->pid > 0 && waitpid(c->pid, NULL, WNOHANG) == c->pid) c->pid = 0;
        n += c->pid > 0;
    }
    return n;
}

static void send_all(struct sm_embedded *e, int first, int signal_number) {
    for (int i = first; i < e->n; i++)
        if (e->children[i].pid > 0) kill(e->children[i].pid, signal_number);
}

void sm_embedded_stop(struct sm_embedded **ep, int grace_ms) {
    struct sm_embedded *e = *ep;
    if (e == NULL) return;
    int64_t start = sm_now_ms();
    send_all(e, 1, SIGTERM); /* workers first: they still say goodbye to the broker */
    bool broker_told = false;
    while (still_there(e) && sm_now_ms() - start < grace_ms) {
        bool workers_gone = true;
        for (int i = 1; i < e->n; i++)
            workers_gone &= e->children[i].pid == 0;
        if (!broker_told && (workers_gone || sm_now_ms() - start > grace_ms * 3 / 4)) {
            if (e->children[0].pid > 0) kill(e->children[0].pid, SIGTERM);
            broker_told = true;
        }
        poll(NULL, 0, 10);
    }
    send_all(e, 0, SIGKILL);
    for (int i = 0; i < e->n; i++) {
        if (e->children[i].pid > 0) waitpid(e->children[i].pid, NULL, 0);
        if (e->children[i].words_fd >= 0) close(e->children[i].words_fd);
    }
    free(e->children);
    free(e->state_dir);
    free(e);
    *ep = NULL;
}

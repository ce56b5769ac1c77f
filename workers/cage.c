/* The shell's side of a cage: starts the process, hands samples over, takes answers back, and
 * replaces a cage that dies, is late or answers nonsense. lease.c drives it; the other side is
 * cage_main.c. */
#include "workers/cage_page.h"

#include "lib/wire.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    START_MS = 10000,     /* a cage that is not ready by then is broken */
    START_TRIES = 5,      /* so often it may die before that */
    KEEP_BYTES = 8 << 20, /* of an area; what a large sample touched beyond is given back */
    ENVIRONMENT_MAX = 32,
};

struct sm_cage {
    struct sm_cage_options options;
    char *pipeline;
    size_t pipeline_n;
    int memory_fd, socket; /* socket -1: no process */
    struct sm_cage_memory *memory;
    pid_t pid;
    clockid_t clock; /* its processor time */
    bool busy;
    struct sm_cage_request request; /* our own copy */
    int tries;                      /* cages that this request has used up */
    int64_t started_ms, cpu_started_ns;
    uint64_t seq, samples, replaced;
    size_t touched[SM_CAGE_SLOTS];
};

static int make_memory(struct sm_cage *c, struct sm_err *err);
static int launch(struct sm_cage *c, struct sm_err *err);
static void stop(struct sm_cage *c);
static void hand_over(struct sm_cage *c);
static int replace(struct sm_cage *c, const struct sm_err *why, bool try_again, struct sm_err *err);
static void explain_death(struct sm_cage *c, struct sm_err *why);
static bool is_late(struct sm_cage *c, struct sm_err *why, bool *cpu);

int sm_cage_new(struct sm_cage **gives, const char *pipeline_json,
                const struct sm_cage_options *options, struct sm_err *err) {
    *gives = NULL;
    struct sm_cage *c = calloc(1, sizeof *c);
    if (c == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    c->memory_fd = c->socket = -1;
    c->options = *options;
    if (c->options.memory_bytes == 0) c->options.memory_bytes = SM_MAX_CAGE_MEMORY_BYTES;
    if (c->options.cpu_ms == 0) c->options.cpu_ms = SM_MAX_SAMPLE_CPU_MS;
    if (c->options.wall_ms == 0) c->options.wall_ms = SM_MAX_SAMPLE_WALL_MS;
    c->pipeline = strdup(pipeline_json);
    c->pipeline_n = strlen(pipeline_json);
    int failed = 0;
    if (c->pipeline == NULL)
        failed = sm_fail(err, SM_E_MEMORY, "out of memory");
    else if (c->pipeline_n > SM_CAGE_PIPELINE_BYTES)
        failed = sm_fail(err, SM_E_PIPELINE, "the pipeline is longer than %d bytes",
                         SM_CAGE_PIPELINE_BYTES);
    if (!failed) failed = make_memory(c, err);
    if (!failed) failed = launch(c, err);
    if (failed) {
        sm_cage_free(&c);
        return -1;
    }
    *gives = c;
    return 0;
}

void sm_cage_free(struct sm_cage **cp) {
    struct sm_cage *c = *cp;
    if (c == NULL) return;
    stop(c);
    if (c->memory != NULL) munmap(c->memory, sizeof *c->memory);
    if (c->memory_fd >= 0) close(c->memory_fd);
    free(c->pipeline);
    free(c);
    *cp = NULL;
}

/* The memory outlives each process that it is shared with, so a sample need not be read again for
 * the next. */
static int make_memory(struct sm_cage *c, struct sm_err *err) {
    int fd = memfd_create("shardmill-cage", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, sizeof *c->memory) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        sm_fail_errno(err, "cannot make memory for a cage");
        if (fd >= 0) close(fd);
        return -1;
    }
    c->memory_fd = fd;
    void *map = mmap(NULL, sizeof *c->memory, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return sm_fail_errno(err, "cannot map the memory of a cage");
    c->memory = map;
    return 0;
}

/* Environment that a cage may see: what finds its libraries, steers a sanitizer or marks a family
 * of processes; nothing that steers a decoder. */
static char **cage_environment(char *out[ENVIRONMENT_MAX]) {
    static const char *const keep[] = {
        "LD_LIBRARY_PATH=", "LD_PRELOAD=",   "ASAN_OPTIONS=", "UBSAN_OPTIONS=",
        "TSAN_OPTIONS=",    "LSAN_OPTIONS=", "SHARDMILL_"};
    size_t n = 0;
    out[n++] = "LC_ALL=C";
    out[n++] =
        "VIPSHOME=/nonexistent"; /* no modules: readers of formats that are never read here */
    out[n++] =
        "MALLOC_ARENA_MAX=1"; /* or decoders' large blocks scatter over arenas that never shrink */
    for (char **e = environ; *e != NULL; e++)
        for (size_t i = 0; i < sizeof keep / sizeof *keep && n + 1 < ENVIRONMENT_MAX; i++)
            if (strncmp(*e, keep[i], strlen(keep[i])) == 0) out[n++] = *e;
    out[n] = NULL;
    return out;
}

/* Starts the program anew (exec, not a bare fork: the shell has threads and secrets) with two
 * descriptors and no more. */
static int spawn(struct sm_cage *c, int child_end, struct sm_err *err) {
    char parent[24], bytes[24], *environment[ENVIRONMENT_MAX];
    snprintf(parent, sizeof parent, "%ld", (long)getpid());
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)c->options.memory_bytes);
    char *argv[] = {"shardmill", "cage",
                    parent,      c->options.no_sandbox ? "0" : "1",
                    bytes,       c->options.no_fuse ? "0" : "1",
                    NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&files, 0, 1);
    if (!sm_cage_is_relaxed()) posix_spawn_file_actions_adddup2(&files, 0, 2);
    posix_spawn_file_actions_adddup2(&files, child_end, SM_CAGE_SOCKET);
    posix_spawn_file_actions_adddup2(&files, c->memory_fd, SM_CAGE_MEMORY);
    posix_spawn_file_actions_addclosefrom_np(&files, SM_CAGE_MEMORY + 1);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setpgroup(&attr, 0); /* Ctrl-C is the shell's to answer */
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                        POSIX_SPAWN_SETPGROUP);
    int why =
        posix_spawn(&c->pid, "/proc/self/exe", &files, &attr, argv, cage_environment(environment));
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    if (why == 0) return 0;
    c->pid = 0;
    return sm_fail(err, SM_E_SANDBOX, "cannot start a cage: %s", strerror(why));
}

/* A descriptor above those that the child's are moved to. */
static int move_up(int fd) {
    int up = fcntl(fd, F_DUPFD_CLOEXEC, SM_CAGE_MEMORY + 4);
    close(fd);
    return up;
}

/* Waits for the first answer: ready, or why not. */
static int await_ready(struct sm_cage *c, struct sm_err *err) {
    struct pollfd p = {.fd = c->socket, .events = POLLIN};
    char byte;
    int64_t end = sm_now_ms() + START_MS;
    int n;
    do
        n = poll(&p, 1, (int)(end > sm_now_ms() ? end - sm_now_ms() : 0));
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        return sm_fail(err, SM_E_SANDBOX, "a cage did not start within %d s", START_MS / 1000);
    if (read(c->socket, &byte, 1) != 1) {
        struct sm_err why = {0};
        explain_death(c, &why);
        return sm_fail(err, SM_E_CAGE_DIED, "a cage died while it started: %s", why.text);
    }
    struct sm_cage_answer a = c->memory->page.answer;
    a.text[sizeof a.text - 1] = 0;
    if (a.status == 0 && a.seq == c->seq) return 0;
    return sm_fail(err, a.code > SM_E_OK && a.code < SM_E_COUNT ? a.code : SM_E_SANDBOX, "%s",
                   a.text[0] != 0 ? a.text : "a cage did not start");
}

static int launch_once(struct sm_cage *c, struct sm_err *err) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return sm_fail_errno(err, "cannot make a socket pair");
    ends[0] = move_up(ends[0]);
    ends[1] = move_up(ends[1]);
    c->memory_fd = c->memory_fd > SM_CAGE_MEMORY ? c->memory_fd : move_up(c->memory_fd);
    if (ends[0] < 0 || ends[1] < 0 || c->memory_fd < 0)
        return sm_fail_errno(err, "too many open files");
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    struct sm_cage_page *page = &c->memory->page;
    memset(page, 0, sizeof *page);
    memcpy(c->memory->pipeline, c->pipeline, c->pipeline_n); /* a former cage may have changed it */
    page->pipeline_bytes = c->pipeline_n;
    page->request.seq = ++c->seq;
    c->socket = ends[0];
    int failed = spawn(c, ends[1], err);
    close(ends[1]);
    if (!failed) failed = await_ready(c, err);
    if (!failed && clock_getcpuclockid(c->pid, &c->clock) != 0)
        failed = sm_fail(err, SM_E_SANDBOX, "the processor time of a cage cannot be read");
    if (failed) stop(c);
    c->samples = 0;
    return failed;
}

/* A cage that is killed while it starts (a machine short of memory does that) is no reason to stop
 * a run; one that dies each time is. */
static int launch(struct sm_cage *c, struct sm_err *err) {
    struct sm_err own;
    if (err == NULL) err = &own;
    int failed, tries = 0;
    do
        failed = launch_once(c, err);
    while (failed && err->code == SM_E_CAGE_DIED && ++tries < START_TRIES);
    if (failed && err->code == SM_E_CAGE_DIED) err->code = SM_E_SANDBOX;
    return failed;
}

static void stop(struct sm_cage *c) {
    if (c->pid > 0) {
        kill(c->pid, SIGKILL);
        while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    c->pid = 0;
    if (c->socket >= 0) close(c->socket);
    c->socket = -1;
}

/* Gives pages back that a large sample or result touched. */
static void trim(struct sm_cage *c, int slot) {
    if (c->touched[slot] <= KEEP_BYTES) return;
    off_t in = (off_t)offsetof(struct sm_cage_memory, input) + (off_t)slot * SM_MAX_SAMPLE_BYTES;
    off_t out = (off_t)offsetof(struct sm_cage_memory, result) + (off_t)slot * SM_MAX_RESULT_BYTES;
    const int how = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    fallocate(c->memory_fd, how, in + KEEP_BYTES, SM_MAX_SAMPLE_BYTES - KEEP_BYTES);
    fallocate(c->memory_fd, how, out + KEEP_BYTES, SM_MAX_RESULT_BYTES - KEEP_BYTES);
    c->touched[slot] = 0;
}

uint8_t *sm_cage_input(struct sm_cage *c, int slot, size_t *max) {
    assert(slot >= 0 && slot < SM_CAGE_SLOTS);
    trim(c, slot);
    *max = SM_MAX_SAMPLE_BYTES;
    return c->memory->input[slot];
}

static int begin(struct sm_cage *c, const struct sm_cage_request *request, struct sm_err *err) {
    assert(!c->busy);
    if (c->samples >= SM_MAX_CAGE_SAMPLES) stop(c); /* fresh memory now and then; not a death */
    if (c->socket < 0 && launch(c, err) != 0) return -1;
    c->request = *request;
    c->tries = 0;
    c->busy = true;
    c->samples++;
    hand_over(c);
    return 0;
}

int sm_cage_submit(struct sm_cage *c, int slot, const struct sm_engine_request *r,
                   struct sm_err *err) {
    assert(slot >= 0 && slot < SM_CAGE_SLOTS && r->n_bytes <= SM_MAX_SAMPLE_BYTES);
    return begin(c,
                 &(struct sm_cage_request){.ask = SM_CAGE_SAMPLE,
                                           .slot = (uint32_t)slot,
                                           .seed = r->seed,
                                           .epoch = r->epoch,
                                           .sample = r->sample,
                                           .copy = r->copy,
                                           .original = r->original,
                                           .tensor = r->tensor,
                                           .added = r->added,
                                           .n_bytes = r->n_bytes},
                 err);
}

static int64_t cpu_ns(const struct sm_cage *c) {
    struct timespec t;
    if (clock_gettime(c->clock, &t) != 0) return 0;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Writes the request and wakes the cage. A dead one shows at the descriptor. */
static void hand_over(struct sm_cage *c) {
    c->request.seq = ++c->seq;
    c->memory->page.request = c->request;
    c->memory->page.out_of_memory = 0;
    c->started_ms = sm_now_ms();
    c->cpu_started_ns = cpu_ns(c);
    while (send(c->socket, "", 1, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

int sm_cage_fd(const struct sm_cage *c) {
    return c->socket;
}

int sm_cage_wait_ms(const struct sm_cage *c) {
    if (!c->busy) return -1;
    int64_t cpu_left = c->options.cpu_ms - (cpu_ns(c) - c->cpu_started_ns) / 1000000;
    int64_t wall_left = c->options.wall_ms - (sm_now_ms() - c->started_ms);
    int64_t left = cpu_left < wall_left ? cpu_left : wall_left;
    return left < 1 ? 1 : left > 1000 ? 1000 : (int)left;
}

int sm_cage_collect(struct sm_cage *c, struct sm_engine_result *result, const uint8_t **out,
                    const char **draws, struct sm_err *err) {
    assert(c->busy);
    struct sm_err why = {0};
    bool cpu = false, failed;
    char byte;
    ssize_t n = recv(c->socket, &byte, 1, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        if (!is_late(c, &why, &cpu)) return 0;
        return replace(c, &why, !cpu, err);
    }
    if (n != 1) {
        explain_death(c, &why);
        return replace(c, &why, true, err);
    }
    struct sm_cage_answer a = c->memory->page.answer;
    uint32_t slot = c->request.slot;
    if (sm_cage_answer_check(&a, c->seq, c->memory->draws[slot], result, &failed, &why) == 0) {
        c->busy = false;
        *out = c->memory->result[slot];
        *draws = c->memory->draws[slot];
        c->touched[slot] = a.n_bytes > c->request.n_bytes ? a.n_bytes : c->request.n_bytes;
        return 1;
    }
    if (!failed) return replace(c, &why, true, err);
    c->busy = false;
    if (c->request.n_bytes > KEEP_BYTES) c->touched[slot] = c->request.n_bytes;
    if (err != NULL) *err = why;
    return -1;
}

/* Past one of the two limits. */
static bool is_late(struct sm_cage *c, struct sm_err *why, bool *cpu) {
    int64_t used_ms = (cpu_ns(c) - c->cpu_started_ns) / 1000000,
            wall_ms = sm_now_ms() - c->started_ms;
    *cpu = used_ms >= c->options.cpu_ms;
    if (*cpu)
        sm_fail(why, SM_E_TIME_LIMIT, "it took more than %lld ms of processor time",
                (long long)c->options.cpu_ms);
    else if (wall_ms >= c->options.wall_ms)
        sm_fail(why, SM_E_TIME_LIMIT, "it took more than %lld ms", (long long)c->options.wall_ms);
    return *cpu || wall_ms >= c->options.wall_ms;
}

/* The process has closed its end: it is dead or about to be. */
static void explain_death(struct sm_cage *c, struct sm_err *why) {
    int status = 0;
    struct rusage usage = {0};
    kill(c->pid, SIGKILL); /* it may have closed the socket and live on */
    while (wait4(c->pid, &status, 0, &usage) < 0 && errno == EINTR)
        ;
    c->pid = 0;
    bool memory = c->memory->page.out_of_memory != 0;
    if (memory)
        sm_fail(why, SM_E_MEMORY_LIMIT, "it needs more than the %llu MiB that a cage may have",
                (unsigned long long)(c->options.memory_bytes >> 20));
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        sm_fail(why, SM_E_CAGE_DIED, "the cage was killed for a system call that it may not make");
    else if (WIFSIGNALED(status))
        sm_fail(why, SM_E_CAGE_DIED, "the cage died of signal %d (%s)", WTERMSIG(status),
                strsignal(WTERMSIG(status)));
    else
        sm_fail(why, SM_E_CAGE_DIED, "the cage ended with status %d", WEXITSTATUS(status));
}

/* Puts a new cage in place of this one. The sample is tried again, or failed with the reason when
 * it has had its tries. */
static int replace(struct sm_cage *c, const struct sm_err *why, bool try_again,
                   struct sm_err *err) {
    stop(c);
    c->replaced++;
    bool again = try_again && ++c->tries < SM_MAX_SAMPLE_CAGES && c->request.ask == SM_CAGE_SAMPLE;
    if (launch(c, err) != 0) {
        c->busy = false;
        return -1;
    }
    if (again) {
        hand_over(c);
        return 0;
    }
    c->busy = false;
    if (err != NULL) *err = *why;
    return -1;
}

void sm_cage_abandon(struct sm_cage *c) {
    if (c->busy) stop(c);
    c->busy = false;
}

uint64_t sm_cage_replaced(const struct sm_cage *c) {
    return c->replaced;
}

pid_t sm_cage_pid(const struct sm_cage *c) {
    return c->pid;
}

/* Death by the filter is a refusal; any other end is not. */
bool sm_cage_probe(struct sm_cage *c, enum sm_probe probe, struct sm_err *err) {
    if (begin(c, &(struct sm_cage_request){.ask = SM_CAGE_PROBE, .probe = probe}, err) != 0)
        return false;
    struct pollfd p = {.fd = c->socket, .events = POLLIN};
    int n;
    do
        n = poll(&p, 1, START_MS);
    while (n < 0 && errno == EINTR);
    char byte;
    bool refused = false;
    struct sm_err why = {0};
    if (n > 0 && recv(c->socket, &byte, 1, MSG_DONTWAIT) == 1) {
        struct sm_cage_answer a = c->memory->page.answer;
        refused = a.seq == c->seq && a.status == -1;
        c->busy = false;
        return refused;
    }
    int status = 0;
    kill(c->pid, SIGKILL);
    while (waitpid(c->pid, &status, 0) < 0 && errno == EINTR)
        ;
    c->pid = 0;
    refused = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
    sm_fail(&why, SM_E_CAGE_DIED, "killed");
    struct sm_err start = {0};
    replace(c, &why, false, &start);
    if (c->socket >= 0) return refused;
    if (err != NULL) *err = start;
    return false;
}

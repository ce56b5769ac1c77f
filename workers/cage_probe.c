/* The probes: each tries what a caged process must not be able to do. They run inside a real cage,
 * so that a refusal is the kernel's and not a belief about it. */
#include "workers/cage_page.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct probe {
    const char *name;
    bool (*succeeds)(void);
};
static const struct probe probes[SM_PROBE_COUNT];

const char *sm_probe_name(enum sm_probe probe) {
    assert(probe < SM_PROBE_COUNT);
    return probes[probe].name;
}

bool sm_probe_run(enum sm_probe probe) {
    assert(probe < SM_PROBE_COUNT);
    return !probes[probe].succeeds();
}

static bool can_open(void) {
    return open("/proc/self/status", O_RDONLY) >= 0 || open("/tmp", O_RDONLY | O_DIRECTORY) >= 0;
}

static bool can_socket(void) {
    return socket(AF_UNIX, SOCK_STREAM, 0) >= 0;
}

/* Where it is allowed the process ends with 0, which its shell does not take for a refusal. */
static bool can_exec(void) {
    char *argv[] = {"true", NULL}, *env[] = {NULL};
    execve("/bin/true", argv, env);
    return false;
}

static bool can_ptrace(void) {
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0;
}

static bool can_fork(void) {
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid(pid, NULL, 0);
    return pid > 0;
}

static bool can_map_exec(void) {
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) !=
           MAP_FAILED;
}

static bool can_kill(void) {
    return kill(getppid(), 0) == 0;
}

static const struct probe probes[SM_PROBE_COUNT] = {
    [SM_PROBE_OPEN] = {"open a file", can_open},
    [SM_PROBE_SOCKET] = {"make a socket", can_socket},
    [SM_PROBE_EXEC] = {"run a program", can_exec},
    [SM_PROBE_PTRACE] = {"trace a process", can_ptrace},
    [SM_PROBE_FORK] = {"fork", can_fork},
    [SM_PROBE_MAP_EXEC] = {"map executable memory", can_map_exec},
    [SM_PROBE_KILL] = {"signal its shell", can_kill},
};

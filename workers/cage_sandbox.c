/* Locks a process in: rlimits, Landlock, no_new_privs, seccomp. Called in the cage when the
 * libraries are loaded and before the first byte from outside is looked at; there is no way back.
 */
#include "workers/cage_page.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||       \
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
static const bool RELAXED = true;
#else
static const bool RELAXED = false;
#endif

static int set_limits(uint64_t address_space, struct sm_err *err);
static int set_landlock(struct sm_err *err);
static int set_filter(struct sm_err *err);

bool sm_cage_is_relaxed(void) {
    return RELAXED;
}

int sm_cage_lock(uint64_t address_space, struct sm_err *err) {
    if (set_limits(address_space, err) != 0) return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return sm_fail(err, SM_E_SANDBOX, "no_new_privs is refused: %s", strerror(errno));
    if (set_landlock(err) != 0) return -1;
    return RELAXED ? 0 : set_filter(err);
}

static int set_limits(uint64_t address_space, struct sm_err *err) {
    const struct {
        int what;
        rlim_t value;
    } limits[] = {
        {RLIMIT_CORE, 0},
        {RLIMIT_FSIZE, 0},
        {RLIMIT_NOFILE, SM_CAGE_MEMORY + 1},
        {RLIMIT_AS, address_space},
    };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        if (RELAXED && limits[i].what != RLIMIT_CORE)
            continue; /* a sanitizer maps terabytes and opens /proc */
        struct rlimit r = {limits[i].value, limits[i].value};
        if (setrlimit(limits[i].what, &r) == 0) continue;
        return sm_fail(err, SM_E_SANDBOX, "resource limit %d is refused: %s", limits[i].what,
                       strerror(errno));
    }
    return 0;
}

/* Handles all that the kernel knows of and allows none of it. A kernel without Landlock: the filter
 * stands alone, as it does for the threads that libvips has started before, since Landlock binds
 * only the thread that asks for it. */
static int set_landlock(struct sm_err *err) {
    static const uint64_t fs_by_abi[] = {0, 0x1fff, 0x3fff, 0x7fff, 0x7fff, 0xffff};
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi <= 0) return 0;
    struct { /* as in the newest headers; the size tells the kernel how much is known */
        uint64_t fs, net, scoped;
    } attr = {.fs = fs_by_abi[abi < 5 ? abi : 5]};
    size_t size = 8;
    if (abi >= 4) {
        attr.net = 3; /* bind and connect by TCP */
        size = 16;
    }
    if (abi >= 6) {
        attr.scoped = 3; /* abstract sockets and signals outside */
        size = 24;
    }
    int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    int failed = fd < 0 || syscall(SYS_landlock_restrict_self, fd, 0) != 0;
    int why = errno;
    if (fd >= 0) close(fd);
    if (!failed) return 0;
    return sm_fail(err, SM_E_SANDBOX, "landlock is refused: %s", strerror(why));
}

/* The calls that decoding, arithmetic and waiting need; measured over 11,796 odd and hostile
 * images. */
static const int allowed[] = {
    SCMP_SYS(futex),
    SCMP_SYS(brk),
    SCMP_SYS(munmap),
    SCMP_SYS(madvise),
    SCMP_SYS(mremap),
    SCMP_SYS(clock_gettime),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(getrandom),
    SCMP_SYS(sched_yield),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(nanosleep),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(restart_syscall),
};

static int add_rules(scmp_filter_ctx f) {
    int failed = 0;
    for (size_t i = 0; i < sizeof allowed / sizeof *allowed; i++)
        failed |= seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
    /* its one socket, and /dev/null */
    failed |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(read), 1,
                               SCMP_A0(SCMP_CMP_LE, SM_CAGE_SOCKET, 0));
    failed |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(write), 1,
                               SCMP_A0(SCMP_CMP_LE, SM_CAGE_SOCKET, 0));
    failed |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                               SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    failed |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                               SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    failed |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                               SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    failed |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
                               SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME, 0));
    /* abort() signals itself, and nobody else */
    failed |= seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                               SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid(), 0));
    /* what libraries try and can do without */
    failed |= seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 0);
    failed |= seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    failed |= seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOTTY), SCMP_SYS(ioctl), 0);
    return failed;
}

static int set_filter(struct sm_err *err) {
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (f == NULL) return sm_fail(err, SM_E_SANDBOX, "seccomp cannot be set up");
    int failed = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
    failed |= seccomp_attr_set(f, SCMP_FLTATR_CTL_NNP, 0); /* it is on already */
    failed |= seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    failed |= add_rules(f);
    if (!failed) failed = seccomp_load(f);
    seccomp_release(f);
    if (!failed) return 0;
    return sm_fail(err, SM_E_SANDBOX, "the kernel refuses the filter of system calls: %s",
                   strerror(failed < 0 ? -failed : EINVAL));
}

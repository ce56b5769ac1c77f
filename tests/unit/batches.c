/* Batch memory: no two batches share a byte, freed room is used again, and a trainer gets memory
 * that it can read and nobody else can change. */
#include "workers/batches.h"
#include "lib/batch.h"
#include "lib/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct sm_batches *make(uint64_t bytes) {
    struct sm_batches *b;
    struct sm_err err = {0};
    if (sm_batches_new(&b, bytes, &err) != 0) fail_msg("%s", err.text);
    return b;
}

static void batches_never_share_a_byte_whatever_is_freed_when(void **state) {
    (void)state;
    enum { MEMORY = 1 << 16, ROUNDS = 20000 };
    struct sm_batches *b = make(MEMORY);
    uint32_t random = 7;
    uint64_t next = 1;
    int full = 0;
    for (int k = 0; k < ROUNDS; k++) {
        random = random * 1664525 + 1013904223;
        size_t n = sm_batches_count(b);
        if (random >> 31 && n > 0) {
            uint64_t attempt = sm_batches_slot(b, (random >> 8) % n)->attempt;
            assert_true(sm_batches_release(b, "job", attempt));
            assert_false(sm_batches_release(b, "job", attempt));
        } else if (sm_batches_take(b, "job", next, 1 + (random >> 12) % 9000) != NULL) {
            next++;
        } else {
            full++;
        }
        uint64_t end = 0;
        for (size_t i = 0; i < sm_batches_count(b); i++) {
            const struct sm_slot *s = sm_batches_slot(b, i);
            assert_true(s->offset >= end && s->offset % SM_BATCH_ALIGN == 0);
            end = s->offset + s->bytes;
            assert_true(end <= MEMORY);
        }
    }
    assert_true(full > 100); /* the memory was full often enough to mean something */
    sm_batches_release_all(b);
    const struct sm_slot *all = sm_batches_take(b, "job", next, MEMORY);
    assert_non_null(all); /* nothing was lost on the way */
    assert_null(sm_batches_take(b, "job", next + 1, 1));
    sm_batches_free(&b);
}

static void a_batch_is_found_only_when_it_is_whole_and_freed_only_by_its_job(void **state) {
    (void)state;
    struct sm_batches *b = make(4096);
    assert_null(sm_batches_take(b, "a", 1, 4097));
    assert_non_null(sm_batches_take(b, "a", 1, 100));
    assert_null(sm_batches_find(b, 1));
    sm_batches_made(b, 1);
    assert_int_equal(sm_batches_find(b, 1)->bytes, 128);
    assert_false(sm_batches_release(b, "b", 1));
    assert_non_null(sm_batches_find(b, 1));
    assert_true(sm_batches_release(b, "a", 1));
    assert_null(sm_batches_find(b, 1));
    sm_batches_free(&b);
}

static int connect_to(const char *address) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path + 1, address + 1, strlen(address) - 1);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(
        connect(s, (struct sockaddr *)&a, (socklen_t)(sizeof a.sun_family + strlen(address))), 0);
    return s;
}

/* Takes the memory as a trainer does, in a process of its own that tells by its exit status. */
static int in_child(struct sm_batches *b, int (*body)(const char *address)) {
    pid_t pid = fork();
    if (pid == 0) _exit(body(sm_batches_address(b)));
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0)
        sm_batches_serve(b);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int read_only_reader(const char *address) {
    struct sm_err err = {0};
    int fd;
    uint64_t bytes;
    if (sm_handover_take(address, 5000, &fd, &bytes, &err) != 0) return 1;
    if (bytes != 1 << 16) return 2;
    const uint8_t *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED || strcmp((const char *)map + 64, "hello") != 0) return 3;
    if (mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED) return 4;
    if (pwrite(fd, "x", 1, 0) >= 0) return 5;
    if (ftruncate(fd, 0) == 0) return 6;
    char path[48];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, O_RDWR); /* the same user may open it, but still not write */
    if (again >= 0 && mmap(NULL, bytes, PROT_WRITE, MAP_SHARED, again, 0) != MAP_FAILED) return 7;
    if (again >= 0 && (pwrite(again, "x", 1, 0) >= 0 || ftruncate(again, 0) == 0)) return 8;
    if (again >= 0 && fallocate(again, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) == 0)
        return 9;
    return 0;
}

static void a_trainer_reads_the_memory_and_cannot_change_it(void **state) {
    (void)state;
    struct sm_batches *b = make(1 << 16);
    sm_batches_take(b, "job", 1, 64);
    const struct sm_slot *s = sm_batches_take(b, "job", 2, 64);
    strcpy((char *)sm_batches_at(b, s), "hello");
    assert_int_equal(in_child(b, read_only_reader), 0);
    assert_string_equal((char *)sm_batches_at(b, s), "hello");
    sm_batches_free(&b);
}

static int stranger(const char *address) {
    int fd;
    uint64_t bytes;
    struct sm_err err = {0};
    if (setresuid(12345, 12345, 12345) != 0) return 77;
    int s = connect_to(address);
    char byte;
    if (recv(s, &byte, 1, 0) > 0) return 1;
    if (sm_handover_take(address, 5000, &fd, &bytes, &err) == 0) return 2;
    return err.code == SM_E_PEER ? 0 : 3;
}

static void another_users_process_gets_nothing(void **state) {
    (void)state;
    if (geteuid() != 0) skip(); /* only root can become another */
    struct sm_batches *b = make(4096);
    assert_int_equal(in_child(b, stranger), 0);
    assert_int_equal(in_child(b, read_only_reader), 2); /* and it still serves its own */
    sm_batches_free(&b);
}

static void peers_that_say_nothing_block_nobody(void **state) {
    (void)state;
    struct sm_batches *b = make(1 << 16);
    int waiting[40];
    for (int i = 0; i < 40; i++)
        waiting[i] = connect_to(sm_batches_address(b)); /* and never read */
    strcpy((char *)sm_batches_at(b, sm_batches_take(b, "job", 1, 64)) + 64, "hello");
    assert_int_equal(in_child(b, read_only_reader), 0);
    for (int i = 0; i < 40; i++)
        close(waiting[i]);
    sm_batches_serve(b);
    sm_batches_free(&b);
}

static void the_memory_outlives_its_killed_worker_and_the_address_does_not(void **state) {
    (void)state;
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct sm_batches *b = make(8192);
        strcpy((char *)sm_batches_at(b, sm_batches_take(b, "job", 1, 64)), "still here");
        if (write(ready[1], sm_batches_address(b), SM_HANDOVER_NAME) < 0) _exit(1);
        for (;;)
            sm_batches_serve(b);
    }
    char address[SM_HANDOVER_NAME];
    struct sm_err err = {0};
    int fd, none;
    uint64_t bytes;
    assert_int_equal(read(ready[0], address, sizeof address), sizeof address);
    if (sm_handover_take(address, 5000, &fd, &bytes, &err) != 0) fail_msg("%s", err.text);
    const char *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_string_equal(map, "still here");
    munmap((void *)map, bytes);
    assert_int_equal(sm_handover_take(address, 5000, &none, &bytes, &err), -1);
    assert_int_equal(err.code, SM_E_PEER);
    close(ready[0]);
    close(ready[1]);
}

static void what_is_no_address_or_no_memory_is_refused(void **state) {
    (void)state;
    int fd;
    uint64_t bytes;
    struct sm_err err = {0};
    char longer[200];
    memset(longer, '@', sizeof longer);
    longer[199] = 0;
    const char *bad[] = {"", "@", "/tmp/x", longer};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(sm_handover_take(bad[i], 100, &fd, &bytes, &err), -1);
        assert_int_equal(err.code, SM_E_PROTOCOL);
    }
    int listener, memory = memfd_create("x", MFD_ALLOW_SEALING);
    char name[SM_HANDOVER_NAME];
    assert_int_equal(sm_handover_listen(&listener, name, &err), 0);
    /* nobody answers: the time limit holds */
    assert_int_equal(sm_handover_take(name, 50, &fd, &bytes, &err), -1);
    assert_int_equal(err.code, SM_E_PEER);
    assert_int_equal(sm_handover_give(listener, memory, 4096), -1); /* it has gone */
    /* memory that could be shortened under a reader, or is shorter than said */
    for (int sealed = 0; sealed < 2; sealed++) {
        pid_t pid = fork();
        if (pid == 0) {
            while (sm_handover_give(listener, memory, 4096) != 1)
                ;
            _exit(0);
        }
        assert_int_equal(sm_handover_take(name, 5000, &fd, &bytes, &err), -1);
        assert_int_equal(err.code, SM_E_PROTOCOL);
        waitpid(pid, NULL, 0);
        fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK);
    }
    close(memory);
    close(listener);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_never_share_a_byte_whatever_is_freed_when),
        cmocka_unit_test(a_batch_is_found_only_when_it_is_whole_and_freed_only_by_its_job),
        cmocka_unit_test(a_trainer_reads_the_memory_and_cannot_change_it),
        cmocka_unit_test(another_users_process_gets_nothing),
        cmocka_unit_test(peers_that_say_nothing_block_nobody),
        cmocka_unit_test(the_memory_outlives_its_killed_worker_and_the_address_does_not),
        cmocka_unit_test(what_is_no_address_or_no_memory_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

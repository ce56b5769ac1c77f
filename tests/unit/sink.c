/* The shard sink: bytes that follow from the samples alone, names that appear only when all is on
 * the disk, whatever call fails on the way. */
#include "workers/sinks/sink.h"
#include "lib/fs.h"
#include "tests/unit/scratch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

/* The calls that can fail, in front of libc's: the fail_at-th one in all fails. */
static int calls, fail_at;
static int fail_errno;

static int fails(void) {
    if (fail_at == 0 || ++calls != fail_at) return 0;
    errno = fail_errno;
    return 1;
}

ssize_t write(int fd, const void *bytes, size_t n) {
    if (fails()) {
        if (fail_errno != EINTR) return -1;
        if (n > 1) n /= 2; /* a signal came after half of it */
    }
    return syscall(SYS_write, fd, bytes, n);
}

int fsync(int fd) {
    return fails() ? -1 : (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to) {
    return fails() ? -1 : (int)syscall(SYS_rename, from, to);
}

static void add_samples(struct sm_part *p, int first, int n) {
    struct sm_err err = {0};
    for (int i = first; i < first + n; i++) {
        char key[16], json[64];
        static uint8_t bytes[300000];
        memset(bytes, i, sizeof bytes);
        snprintf(key, sizeof key, "%010d", i);
        int json_n = snprintf(json, sizeof json, "{\"position\":%d}", i);
        /* sizes on both sides of a block's and of the buffer's border */
        static const size_t sizes[] = {1, 511, 512, 513, 70000, 131072, 140000, 300000};
        if (sm_part_add(p, key, "jpg", bytes, sizes[i % 8], (uint32_t)i % 3, json, (size_t)json_n,
                        &err) != 0)
            fail_msg("%s", err.text);
    }
}

static struct sm_part_name write_part(const char *dir, int first, int n, bool last,
                                      char sha[SM_SHA_HEX]) {
    struct sm_part_name name = {.shard = 0, .first = (uint64_t)first, .count = (uint32_t)n};
    struct sm_part *p;
    struct sm_err err = {0};
    uint64_t bytes;
    if (sm_part_open(&p, dir, &name, &err) != 0) fail_msg("%s", err.text);
    add_samples(p, first, n);
    if (sm_part_finish(&p, last, &bytes, sha, &err) != 0) fail_msg("%s", err.text);
    assert_null(p);
    return name;
}

/* Names in the folder, sorted, in one line. Lent. */
static const char *names_in(const char *dir) {
    static char text[4096];
    struct dirent **list;
    text[0] = 0;
    int n = scandir(dir, &list, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (strcmp(list[i]->d_name, ".") != 0 && strcmp(list[i]->d_name, "..") != 0) {
            strcat(text, list[i]->d_name);
            strcat(text, " ");
        }
        free(list[i]);
    }
    if (n >= 0) free(list);
    return text;
}

static void parts_joined_are_the_bytes_of_one_part(void **state) {
    (void)state;
    char sha[4][SM_SHA_HEX];
    uint64_t size[2];
    struct sm_err err = {0};
    struct scratch one = scratch_make(), three = scratch_make();
    struct sm_part_name whole = write_part(one.dir, 0, 20, true, sha[0]);
    assert_int_equal(sm_seal(one.dir, 0, SM_SHARD_TAR, &whole, 1, sha[0], &size[0], sha[1], &err),
                     0);
    struct sm_part_name parts[3] = {write_part(three.dir, 0, 7, false, sha[2]),
                                    write_part(three.dir, 7, 1, false, sha[2]),
                                    write_part(three.dir, 8, 12, true, sha[2])};
    assert_int_equal(sm_seal(three.dir, 0, SM_SHARD_TAR, parts, 3, NULL, &size[1], sha[3], &err),
                     0);
    assert_string_equal(sha[0], sha[1]);
    assert_string_equal(sha[1], sha[3]);
    assert_int_equal(size[0], size[1]);
    size_t n[2];
    void *bytes[2] = {scratch_read(scratch_path(&one, "shard-000000.tar"), &n[0]),
                      scratch_read(scratch_path(&three, "shard-000000.tar"), &n[1])};
    assert_int_equal(n[0], size[0]);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(bytes[0], bytes[1], n[0]);
    assert_string_equal(names_in(three.dir), "shard-000000.tar ");
    free(bytes[0]);
    free(bytes[1]);
    scratch_remove(&one);
    scratch_remove(&three);
}

static void pythons_tarfile_reads_what_was_written(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    char sha[SM_SHA_HEX], command[1024];
    struct sm_part_name part = write_part(s.dir, 3, 11, true, sha);
    uint64_t size;
    assert_int_equal(sm_seal(s.dir, 0, SM_SHARD_TAR, &part, 1, sha, &size, sha, NULL), 0);
    scratch_text(
        &s, "check.py",
        "import tarfile, hashlib, sys\n"
        "t = tarfile.open('shard-000000.tar')\n"
        "assert hashlib.sha256(open('shard-000000.tar', 'rb').read()).hexdigest() == sys.argv[1]\n"
        "m = t.getmembers()\n"
        "sizes = [1, 511, 512, 513, 70000, 131072, 140000, 300000]\n"
        "assert len(m) == 33, len(m)\n"
        "for i in range(11):\n"
        "    k = i + 3; jpg, cls, js = m[3 * i:3 * i + 3]\n"
        "    assert [x.name for x in (jpg, cls, js)] == ['%010d.%s' % (k, e) for e in ('jpg', 'cls', 'json')]\n"
        "    assert t.extractfile(jpg).read() == bytes([k]) * sizes[k % 8]\n"
        "    assert t.extractfile(cls).read() == b'%d' % (k % 3)\n"
        "    assert t.extractfile(js).read() == b'{\"position\":%d}' % k\n"
        "    assert (jpg.mtime, jpg.uid, jpg.gid, jpg.mode, jpg.uname) == (0, 0, 0, 0o644, '')\n");
    snprintf(command, sizeof command, "cd %s && /usr/bin/python3 check.py %s", s.dir, sha);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof command, "tar -tf %s/shard-000000.tar > %s/list", s.dir, s.dir);
    assert_int_equal(system(command), 0);
    scratch_remove(&s);
}

/* One part, written and sealed alone; 0 when all went well. */
static int write_and_seal(const char *dir, struct sm_err *err) {
    struct sm_part_name name = {.count = 9};
    struct sm_part *p;
    uint64_t bytes;
    char sha[SM_SHA_HEX];
    static const char data[300000];
    if (sm_part_open(&p, dir, &name, err) != 0) return -1;
    for (int i = 0; i < 3; i++)
        if (sm_part_add(p, "k", "jpg", data, sizeof data, 1, "{}", 2, err) != 0) {
            sm_part_abandon(&p);
            return -1;
        }
    if (sm_part_finish(&p, true, &bytes, sha, err) != 0) return -1;
    return sm_seal(dir, 0, SM_SHARD_TAR, &name, 1, NULL, &bytes, sha, err);
}

static void whatever_call_fails_no_shard_has_its_name(void **state) {
    (void)state;
    static const int errnos[] = {EIO, ENOSPC};
    for (size_t k = 0; k < 2; k++) {
        int points = 0;
        for (fail_at = 1;; fail_at++) {
            struct scratch s = scratch_make();
            struct sm_err err = {0};
            calls = 0;
            fail_errno = errnos[k];
            int failed = write_and_seal(s.dir, &err), reached = calls >= fail_at;
            int at = fail_at;
            fail_at = 0;
            if (reached) {
                assert_int_equal(failed, -1);
                assert_int_equal(access(scratch_path(&s, "shard-000000.tar"), F_OK), -1);
                assert_int_equal(err.code, errnos[k] == EIO ? SM_E_IO : SM_E_DISK_FULL);
                assert_non_null(strstr(err.text, s.dir));
                assert_null(strstr(names_in(s.dir), ".tmp-"));
                /* what a failure left behind does not disturb the next try */
                if (write_and_seal(s.dir, &err) != 0) fail_msg("after call %d: %s", at, err.text);
                assert_string_equal(names_in(s.dir), "shard-000000.tar ");
            } else {
                assert_int_equal(failed, 0);
            }
            scratch_remove(&s);
            fail_at = at;
            if (!reached) break;
            points++;
        }
        fail_at = 0;
        assert_true(points >= 10); /* writes, fsyncs and renames of part, shard and folder */
    }
}

static void a_full_disk_says_where_and_how_many_bytes(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    struct sm_err err = {0};
    calls = 0;
    fail_at = 1;
    fail_errno = ENOSPC;
    assert_int_equal(write_and_seal(s.dir, &err), -1);
    fail_at = 0;
    assert_int_equal(err.code, SM_E_DISK_FULL);
    assert_non_null(strstr(err.text, "shard-000000.00000000-9.g0.part"));
    assert_non_null(strstr(err.text, "bytes missing"));
    scratch_remove(&s);
}

static void a_write_cut_by_a_signal_goes_on(void **state) {
    (void)state;
    struct scratch a = scratch_make(), b = scratch_make();
    char sha[2][SM_SHA_HEX];
    write_part(a.dir, 0, 9, true, sha[0]);
    calls = 0;
    fail_at = 2;
    fail_errno = EINTR;
    write_part(b.dir, 0, 9, true, sha[1]);
    fail_at = 0;
    size_t n[2];
    void *bytes[2] = {scratch_read(scratch_path(&a, "shard-000000.00000000-9.g0.part"), &n[0]),
                      scratch_read(scratch_path(&b, "shard-000000.00000000-9.g0.part"), &n[1])};
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(bytes[0], bytes[1], n[0]);
    free(bytes[0]);
    free(bytes[1]);
    scratch_remove(&a);
    scratch_remove(&b);
}

static void a_seal_may_be_repeated_at_any_point(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    char sha[SM_SHA_HEX], again[SM_SHA_HEX];
    uint64_t size, size2;
    struct sm_err err = {0};
    struct sm_part_name parts[2] = {write_part(s.dir, 0, 4, false, sha),
                                    write_part(s.dir, 4, 4, true, sha)};
    assert_int_equal(sm_seal(s.dir, 0, SM_SHARD_TAR, parts, 2, NULL, &size, sha, &err), 0);
    assert_int_equal(sm_seal(s.dir, 0, SM_SHARD_TAR, parts, 2, NULL, &size2, again, &err),
                     0); /* parts are gone */
    assert_string_equal(sha, again);
    assert_int_equal(size, size2);
    write_part(s.dir, 0, 4, false, again); /* the crash came after the first unlink */
    assert_int_equal(sm_seal(s.dir, 0, SM_SHARD_TAR, parts, 2, NULL, &size2, again, &err), 0);
    assert_string_equal(sha, again);
    assert_string_equal(names_in(s.dir), "shard-000000.tar ");
    scratch_remove(&s);
}

static void a_part_that_is_missing_is_named(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    char sha[SM_SHA_HEX];
    uint64_t size;
    struct sm_err err = {0};
    struct sm_part_name parts[2] = {write_part(s.dir, 0, 4, false, sha), {.first = 4, .count = 4}};
    assert_int_equal(sm_seal(s.dir, 0, SM_SHARD_TAR, parts, 2, NULL, &size, sha, &err), -1);
    assert_int_equal(err.code, SM_E_PART_MISSING);
    assert_non_null(strstr(err.text, "00000004-4.g0.part"));
    assert_string_equal(names_in(s.dir), "shard-000000.00000000-4.g0.part ");
    scratch_remove(&s);
}

static void an_abandoned_part_leaves_nothing(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    struct sm_part *p;
    struct sm_part_name name = {.count = 1};
    assert_int_equal(sm_part_open(&p, s.dir, &name, NULL), 0);
    add_samples(p, 0, 8);
    sm_part_abandon(&p);
    assert_null(p);
    sm_part_abandon(&p);
    assert_string_equal(names_in(s.dir), "");
    scratch_remove(&s);
}

static void a_sweep_spares_what_is_still_written_or_needed(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    char sha[SM_SHA_HEX];
    struct sm_part *open;
    struct sm_part_name name = {.shard = 1, .count = 1};
    write_part(s.dir, 0, 1, true, sha);
    scratch_text(&s, "shard-000007.00000000-9.g1.part", "of a shard that is there");
    scratch_text(&s, "shard-000007.tar", "x");
    scratch_text(&s, ".tmp-0123-shard-000003.tar", "its writer is dead");
    scratch_text(&s, "mine.part", "not ours");
    assert_int_equal(sm_part_open(&open, s.dir, &name, NULL), 0);
    pid_t child = fork(); /* another process sweeps */
    if (child == 0) {
        sm_sink_sweep(s.dir);
        _exit(0);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    uint64_t size;
    assert_int_equal(sm_part_finish(&open, true, &size, sha, NULL), 0);
    assert_string_equal(names_in(s.dir), "mine.part shard-000000.00000000-1.g0.part "
                                         "shard-000001.00000000-1.g0.part shard-000007.tar ");
    scratch_remove(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_joined_are_the_bytes_of_one_part),
        cmocka_unit_test(pythons_tarfile_reads_what_was_written),
        cmocka_unit_test(whatever_call_fails_no_shard_has_its_name),
        cmocka_unit_test(a_full_disk_says_where_and_how_many_bytes),
        cmocka_unit_test(a_write_cut_by_a_signal_goes_on),
        cmocka_unit_test(a_seal_may_be_repeated_at_any_point),
        cmocka_unit_test(a_part_that_is_missing_is_named),
        cmocka_unit_test(an_abandoned_part_leaves_nothing),
        cmocka_unit_test(a_sweep_spares_what_is_still_written_or_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

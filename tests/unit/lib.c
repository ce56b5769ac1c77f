/* The library's small parts: Philox against Random123's published vectors, the permutation, the
 * plan, digests, buffers, errors. A change in any number here changes every shard that users have,
 * so these values are fixed. */
#include "lib/arena.h"
#include "lib/buf.h"
#include "lib/digest.h"
#include "lib/err.h"
#include "lib/fs.h"
#include "lib/guard.h"
#include "lib/permutation.h"
#include "lib/plan.h"
#include "lib/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/scratch.h"

/* Against libm, and that the bits are these on every machine. */
static void normals_are_normal_and_the_same_everywhere(void **state) {
    (void)state;
    struct sm_rng r = sm_rng_op(3, 1, 4, 1, 5), same = r;
    double sum = 0, squares = 0, fourth = 0;
    enum { N = 200000 };
    for (int i = 0; i < N; i++) {
        const double x = sm_rng_normal(&r), u = 1 - sm_rng_double(&same), v = sm_rng_double(&same);
        const double want = sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v);
        if (!(fabs(x - want) < 4e-15)) fail_msg("%.17g, and by libm %.17g", x, want);
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
    }
    assert_true(fabs(sum / N) < 0.01 && fabs(squares / N - 1) < 0.02 && fabs(fourth / N - 3) < 0.1);
    static const double bits[] = {-0x1.df4a8938f084dp-7, -0x1.0bad1d36f5539p-2,
                                  -0x1.7945550cad024p-2, 0x1.f9f3929b93ea5p-1};
    r = sm_rng_op(3, 1, 4, 1, 5);
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
        const double x = sm_rng_normal(&r);
        if (x != bits[i]) fail_msg("%zu: %a", i, x);
    }
}

static void philox_gives_random123s_published_vectors(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        uint32_t out[4];
        sm_philox(kat[i].counter, kat[i].key, out);
        assert_memory_equal(out, kat[i].want, sizeof out);
    }
}

static void streams_with_other_names_differ_and_the_same_name_repeats(void **state) {
    (void)state;
    struct sm_rng a = sm_rng_op(1, 2, 3, 4, 5), b = sm_rng_op(1, 2, 3, 4, 5);
    struct sm_rng other[] = {
        sm_rng_op(9, 2, 3, 4, 5), sm_rng_op(1, 9, 3, 4, 5),
        sm_rng_op(1, 2, 9, 4, 5), sm_rng_op(1, 2, 3, 9, 5),
        sm_rng_op(1, 2, 3, 4, 9), sm_rng_op(UINT64_C(1) << 32 | 1, 2, 3, 4, 5)};
    uint32_t first[8];
    for (int i = 0; i < 8; i++) {
        first[i] = sm_rng_u32(&a);
        assert_int_equal(first[i], sm_rng_u32(&b));
    }
    for (size_t k = 0; k < sizeof other / sizeof *other; k++) {
        int same = 0;
        for (int i = 0; i < 8; i++)
            same += sm_rng_u32(&other[k]) == first[i];
        assert_int_equal(same, 0);
    }
}

static void numbers_are_uniform_and_stay_in_their_range(void **state) {
    (void)state;
    struct sm_rng r = sm_rng_op(7, 0, 0, 0, 0);
    long bin[10] = {0};
    double sum = 0;
    for (int i = 0; i < 100000; i++) {
        uint64_t v = sm_rng_below(&r, 10);
        assert_true(v < 10);
        bin[v]++;
        double u = sm_rng_uniform(&r, -2, 3);
        assert_true(u >= -2 && u < 3);
        sum += u;
    }
    double chi2 = 0;
    for (int i = 0; i < 10; i++)
        chi2 += (double)(bin[i] - 10000) * (double)(bin[i] - 10000) / 10000;
    assert_true(chi2 < 27.9); /* 9 degrees of freedom, p = 0.001 */
    assert_true(sum / 100000 > 0.48 && sum / 100000 < 0.52);
    assert_true(sm_rng_uniform(&r, 1, 1) == 1);
}

static void the_permutation_is_a_bijection_with_a_working_inverse(void **state) {
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 100, 1000, 4096, 4097, 65537};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint64_t n = sizes[s];
        struct sm_permutation p = sm_permutation_make(n, 42, 3);
        char *seen = calloc(n, 1);
        uint64_t *many = calloc(n, sizeof *many);
        for (uint64_t i = 0; i < n; i++)
            many[i] = i;
        sm_permutation_many(&p, many, n);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t v = sm_permutation_at(&p, i);
            assert_true(v < n);
            assert_int_equal(many[i], v);
            assert_int_equal(seen[v], 0);
            seen[v] = 1;
            assert_int_equal(sm_permutation_find(&p, v), i);
        }
        free(seen);
        free(many);
    }
    const uint64_t sizes_big[] = {UINT64_C(1000000000000), UINT64_C(1) << 62};
    for (int s = 0; s < 2; s++) {
        struct sm_permutation big =
            sm_permutation_make(sizes_big[s], UINT64_C(0xfedcba9876543210), 3);
        for (uint64_t i = 0; i < 1000; i++) {
            uint64_t at = i * 999999937 % big.n, many = at;
            sm_permutation_many(&big, &many, 1);
            assert_int_equal(many, sm_permutation_at(&big, at));
            assert_int_equal(sm_permutation_find(&big, many), at);
        }
    }
}

static void every_order_of_four_comes_up_equally_often(void **state) {
    (void)state;
    long count[256] = {0};
    for (uint32_t epoch = 0; epoch < 24000; epoch++) {
        struct sm_permutation p = sm_permutation_make(4, 5, epoch);
        int code = 0;
        for (uint64_t i = 0; i < 4; i++)
            code = code * 4 + (int)sm_permutation_at(&p, i);
        count[code]++;
    }
    int orders = 0;
    double chi2 = 0;
    for (int i = 0; i < 256; i++)
        if (count[i]) {
            orders++;
            chi2 += (double)(count[i] - 1000) * (double)(count[i] - 1000) / 1000;
        }
    assert_int_equal(orders, 24);
    assert_true(chi2 < 49.7); /* 23 degrees of freedom, p = 0.001 */
}

static void the_plan_deals_every_sample_and_copy_once(void **state) {
    (void)state;
    for (int shuffle = 0; shuffle < 2; shuffle++) {
        struct sm_plan plan = {
            .samples = 37, .copies = 3, .shuffle = shuffle, .seed = 11, .shard_samples = 10};
        assert_int_equal(sm_plan_positions(&plan), 111);
        assert_int_equal(sm_plan_shards(&plan), 12);
        int seen[37][3] = {{0}};
        uint64_t positions = 0;
        for (uint64_t s = 0; s < sm_plan_shards(&plan); s++) {
            assert_int_equal(sm_plan_shard_first(&plan, s), positions);
            for (uint64_t i = 0; i < sm_plan_shard_count(&plan, s); i++) {
                struct sm_place at = sm_plan_at(&plan, positions++);
                seen[at.sample][at.copy]++;
            }
        }
        assert_int_equal(positions, 111);
        for (int i = 0; i < 37; i++)
            for (int c = 0; c < 3; c++)
                assert_int_equal(seen[i][c], 1);
        struct sm_place first = sm_plan_at(&plan, 4);
        if (!shuffle) {
            assert_int_equal(first.sample, 1);
            assert_int_equal(first.copy, 1);
        }
    }
}

static void a_billion_positions_cost_no_more_than_ten(void **state) {
    (void)state;
    struct sm_plan plan = {
        .samples = 1000000000, .copies = 1, .shuffle = true, .seed = 1, .shard_samples = 1000};
    assert_int_equal(sm_plan_shards(&plan), 1000000);
    assert_true(sm_plan_at(&plan, 999999999).sample < 1000000000);
}

static void digests_are_those_of_standard_tools(void **state) {
    (void)state;
    char hex[SM_SHA_HEX];
    sm_xxh("", 0, hex); /* printf '' | xxh128sum */
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
    struct sm_hash *h = sm_hash_new_sha256(); /* printf abc | sha256sum */
    sm_hash_add(h, "a", 1);
    sm_hash_add(h, "bc", 2);
    sm_hash_end(&h, hex);
    assert_null(h);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    char whole[SM_XXH_HEX];
    sm_xxh("abcdef", 6, whole);
    h = sm_hash_new_xxh();
    sm_hash_add(h, "abc", 3);
    sm_hash_add(h, "def", 3);
    sm_hash_end(&h, hex);
    assert_string_equal(hex, whole);
}

static void a_buffer_never_grows_beyond_its_maximum(void **state) {
    (void)state;
    struct sm_buf b;
    sm_buf_init(&b, 10);
    assert_true(sm_buf_text(&b, "12345"));
    assert_true(sm_buf_printf(&b, "%d", 67890));
    assert_string_equal(b.data, "1234567890");
    assert_false(sm_buf_text(&b, "x"));
    assert_true(b.full);
    assert_string_equal(b.data, "1234567890");
    sm_buf_release(&b);
    sm_buf_init(&b, 1000);
    assert_true(sm_buf_json(&b, "a\"b\\c\n\x01 \xc3\xa4 \xff\xc3"));
    assert_string_equal(b.data, "\"a\\\"b\\\\c\\n\\u0001 \xc3\xa4 \\ufffd\\ufffd\"");
    sm_buf_release(&b);
}

static void a_float_is_written_in_the_fewest_digits_that_read_back(void **state) {
    (void)state;
    static const struct {
        float x;
        const char *text;
    } cases[] = {{0, "0"},
                 {1, "1"},
                 {0.25f, "0.25"},
                 {0.1f, "0.1"},
                 {1.0f / 3, "0.33333334"},
                 {1e20f, "1e+20"},
                 {6.0f / 13, "0.46153846"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sm_buf b;
        sm_buf_init(&b, 100);
        assert_true(sm_buf_float(&b, cases[i].x));
        assert_string_equal(b.data, cases[i].text);
        assert_true(strtof(b.data, NULL) == cases[i].x);
        sm_buf_release(&b);
    }
}

static void an_arena_gives_zeroed_memory_up_to_its_maximum(void **state) {
    (void)state;
    struct sm_arena a;
    sm_arena_init(&a, 100000);
    unsigned char *p = sm_arena_alloc(&a, 50000);
    assert_non_null(p);
    for (int i = 0; i < 50000; i++)
        assert_int_equal(p[i], 0);
    assert_string_equal(sm_arena_str(&a, "text"), "text");
    assert_null(sm_arena_alloc(&a, 50000));
    sm_arena_release(&a);
    assert_non_null(sm_arena_alloc(&a, 100000));
    sm_arena_release(&a);
}

static void errors_keep_code_cause_and_context(void **state) {
    (void)state;
    struct sm_err err = {0};
    errno = ENOSPC;
    assert_int_equal(sm_fail_errno(&err, "cannot write '%s'", "x"), -1);
    assert_int_equal(err.code, SM_E_DISK_FULL);
    sm_err_context(&err, "shard %d", 3);
    assert_string_equal(err.text, "shard 3: cannot write 'x': No space left on device");
    for (int i = 0; i < 400; i++)
        sm_err_context(&err, "a longer and longer text");
    assert_true(strlen(err.text) < sizeof err.text);
    sm_fail(&err, SM_E_DECODE, "%s", "");
    assert_true(err.text[0] != 0);
    for (int c = 0; c < SM_E_COUNT; c++)
        assert_int_equal(sm_code_find(sm_code_word(c)), c);
    assert_true(sm_code_charges_sample(SM_E_TRUNCATED));
    assert_false(sm_code_charges_sample(SM_E_IO));
}

static void an_error_has_one_place(void **state) {
    (void)state;
    struct sm_err err, from_a_worker;
    sm_fail(&err, SM_E_OP, "line of %d columns", 3);
    assert_int_equal(sm_err_at(&err, 5, 12, "PCA"), -1);
    assert_string_equal(err.text, "line 5, column 12: 'PCA': line of 3 columns");
    sm_fail(&from_a_worker, err.code, "%s", err.text);
    sm_err_at(&from_a_worker, 6, 1, "KMeans");
    assert_string_equal(from_a_worker.text, err.text);
    sm_fail(&err, SM_E_OP, "no");
    sm_err_at(&err, 2, 7, NULL);
    sm_err_at(&err, 3, 1, "PCA");
    assert_string_equal(err.text, "line 2, column 7: no");
}

static void a_scratch_folder_is_gone_after_its_end_and_after_ctrl_c(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    setenv("TMPDIR", s.dir, 1);
    for (int ctrl_c = 0; ctrl_c < 2; ctrl_c++) {
        pid_t pid = fork();
        if (pid == 0) {
            char dir[SM_MAX_PATH_BYTES], path[SM_MAX_PATH_BYTES + 8];
            struct sm_err err;
            if (sm_fs_scratch_begin(dir, &err) < 0) _exit(1);
            snprintf(path, sizeof path, "%s/index", dir);
            if (strncmp(dir, s.dir, strlen(s.dir)) != 0 || access(dir, F_OK) != 0) _exit(2);
            if (sm_fs_write_file(path, "x", 1, &err) < 0) _exit(3);
            if (ctrl_c) raise(SIGINT);
            sm_fs_scratch_end();
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (ctrl_c)
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
        else
            assert_int_equal(status, 0);
    }
    unsetenv("TMPDIR");
    assert_int_equal(rmdir(s.dir), 0); /* so nothing is left in it */
}

struct look {
    const char *at;
    char seen;
};

static void look_at(void *context) {
    struct look *l = context;
    l->seen = *(const volatile char *)l->at;
}

static void a_page_that_is_no_longer_there_is_told_and_not_a_death(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const char *path = scratch_path(&s, "mapped");
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    for (int turn = 0; turn < 3; turn++) { /* and again after it was caught */
        assert_int_equal(ftruncate(fd, (off_t)(2 * page)), 0);
        char *map = mmap(NULL, 2 * page, PROT_READ, MAP_SHARED, fd, 0);
        assert_true(map != MAP_FAILED);
        struct look first = {.at = map}, last = {.at = map + page, .seen = 1};
        assert_true(sm_guard(look_at, &last) && last.seen == 0);
        assert_int_equal(ftruncate(fd, (off_t)page), 0);
        assert_false(sm_guard(look_at, &last));
        assert_true(sm_guard(look_at, &first));
        munmap(map, 2 * page);
    }
    close(fd);
    scratch_remove(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_random123s_published_vectors),
        cmocka_unit_test(streams_with_other_names_differ_and_the_same_name_repeats),
        cmocka_unit_test(normals_are_normal_and_the_same_everywhere),
        cmocka_unit_test(numbers_are_uniform_and_stay_in_their_range),
        cmocka_unit_test(the_permutation_is_a_bijection_with_a_working_inverse),
        cmocka_unit_test(every_order_of_four_comes_up_equally_often),
        cmocka_unit_test(the_plan_deals_every_sample_and_copy_once),
        cmocka_unit_test(a_billion_positions_cost_no_more_than_ten),
        cmocka_unit_test(digests_are_those_of_standard_tools),
        cmocka_unit_test(a_buffer_never_grows_beyond_its_maximum),
        cmocka_unit_test(a_float_is_written_in_the_fewest_digits_that_read_back),
        cmocka_unit_test(an_arena_gives_zeroed_memory_up_to_its_maximum),
        cmocka_unit_test(errors_keep_code_cause_and_context),
        cmocka_unit_test(an_error_has_one_place),
        cmocka_unit_test(a_page_that_is_no_longer_there_is_told_and_not_a_death),
        cmocka_unit_test(a_scratch_folder_is_gone_after_its_end_and_after_ctrl_c),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

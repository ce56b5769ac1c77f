/* The cage: what a hostile sample gets, what a caged process is refused, what happens when it dies,
 * and that nothing it answers is believed unchecked. Each test has real caged processes. */
#include "lib/wire.h"
#include "tests/unit/samples.h"
#include "workers/cage_page.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>

#include <cmocka.h>

static const char PIPELINE[] =
    "{\"version\":1,\"source\":{\"path\":\".\"},\"ops\":[{\"Resize\":{\"size\":[16,16]}},"
    "{\"RandomHorizontalFlip\":{\"p\":0.5}}],\"expand\":{\"encode\":\"png\"}}";

static struct sm_cage *cage_with(const struct sm_cage_options *options) {
    struct sm_cage *c;
    struct sm_err err = {0};
    if (sm_cage_new(&c, PIPELINE, options, &err) != 0) fail_msg("%s", err.text);
    return c;
}

static struct sm_cage *cage(void) {
    return cage_with(&(struct sm_cage_options){0});
}

static void submit(struct sm_cage *c, const void *bytes, size_t n) {
    size_t max;
    struct sm_err err = {0};
    uint8_t *input = sm_cage_input(c, 0, &max);
    assert_true(n <= max);
    if (n > 0) memcpy(input, bytes, n);
    struct sm_engine_request request = {.seed = 1, .sample = 2, .copy = 3, .n_bytes = n};
    if (sm_cage_submit(c, 0, &request, &err) != 0) fail_msg("%s", err.text);
}

struct outcome {
    int made;
    struct sm_err err;
    struct sm_engine_result result;
    const uint8_t *out;
    const char *draws;
};

static struct outcome collect(struct sm_cage *c) {
    struct outcome o = {0};
    while (o.made == 0) {
        struct pollfd p = {.fd = sm_cage_fd(c), .events = POLLIN};
        poll(&p, 1, sm_cage_wait_ms(c));
        o.made = sm_cage_collect(c, &o.result, &o.out, &o.draws, &o.err);
    }
    return o;
}

static struct outcome run(struct sm_cage *c, const void *bytes, size_t n) {
    submit(c, bytes, n);
    return collect(c);
}

/* A sound sample is made, whatever was before. */
static void assert_works(struct sm_cage *c) {
    struct bytes good = make_jpeg(64, 48, 7);
    struct outcome o = run(c, good.data, good.n);
    if (o.made != 1) fail_msg("%s", o.err.text);
    assert_string_equal(o.result.extension, "png");
    assert_memory_equal(o.out, "\x89PNG", 4);
    assert_int_equal(o.result.width, 16);
    assert_int_equal(o.result.in_width, 64);
    free(good.data);
}

static void a_hostile_sample_ends_with_its_code_and_a_text_in_a_second(void **state) {
    (void)state;
    struct bytes good = make_jpeg(640, 480, 3), bomb = make_png_header(60000, 60000);
    struct {
        const char *what;
        const void *bytes;
        size_t n;
        int code;
    } const cases[] = {
        {"cut in half", good.data, good.n / 2, SM_E_TRUNCATED},
        {"svgz", svgz, sizeof svgz - 1, SM_E_FORMAT},
        {"60,000 x 60,000", bomb.data, bomb.n, SM_E_TOO_LARGE},
        {"no bytes", "", 0, SM_E_EMPTY},
        {"text", "not a picture at all\n", 21, SM_E_FORMAT},
    };
    struct sm_cage *c = cage();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t start = sm_now_ms();
        struct outcome o = run(c, cases[i].bytes, cases[i].n);
        assert_int_equal(o.made, -1);
        if (strcmp(sm_code_word(o.err.code), sm_code_word(cases[i].code)) != 0)
            fail_msg("%s: %s: %s", cases[i].what, sm_code_word(o.err.code), o.err.text);
        assert_true(o.err.text[0] != 0);
        assert_true(sm_now_ms() - start < 1000);
    }
    assert_int_equal(sm_cage_replaced(c), 0); /* they are the decoders' ordinary business */
    assert_works(c);
    sm_cage_free(&c);
    free(good.data);
    free(bomb.data);
}

static void every_probe_is_refused_and_the_next_sample_is_made(void **state) {
    (void)state;
    if (sm_cage_is_relaxed())
        skip(); /* a sanitizer needs the system calls that the filter takes away */
    struct sm_cage *c = cage();
    for (int p = 0; p < SM_PROBE_COUNT; p++) {
        struct sm_err err = {0};
        if (!sm_cage_probe(c, (enum sm_probe)p, &err))
            fail_msg("%s: %s", sm_probe_name((enum sm_probe)p), err.text);
        assert_works(c);
    }
    assert_true(sm_cage_replaced(c) >= 5); /* most are killed for it */
    sm_cage_free(&c);
}

static void without_a_sandbox_the_probes_succeed(void **state) {
    (void)state;
    struct sm_cage *c = cage_with(&(struct sm_cage_options){.no_sandbox = true});
    for (int p = 0; p < SM_PROBE_COUNT; p++) {
        if (p == SM_PROBE_PTRACE) continue; /* machines differ */
        assert_false(sm_cage_probe(c, (enum sm_probe)p, NULL));
    }
    assert_works(c);
    sm_cage_free(&c);
}

static void a_cage_killed_in_the_middle_of_a_sample_is_replaced_and_the_sample_made(void **state) {
    (void)state;
    struct bytes good = make_jpeg(64, 48, 9);
    struct sm_cage *c = cage();
    struct outcome o = run(c, good.data, good.n);
    assert_int_equal(o.made, 1);
    size_t n = o.result.n_bytes;
    uint8_t *want = malloc(n);
    memcpy(want, o.out, n);
    for (int i = 1; i <= 3; i++) {
        assert_int_equal(kill(sm_cage_pid(c), SIGSTOP),
                         0); /* so that it is in the middle for sure */
        submit(c, good.data, good.n);
        assert_int_equal(kill(sm_cage_pid(c), SIGKILL), 0);
        o = collect(c);
        if (o.made != 1) fail_msg("%s", o.err.text);
        assert_int_equal(o.result.n_bytes, n);
        assert_memory_equal(o.out, want, n);
        assert_int_equal(sm_cage_replaced(c), i);
    }
    sm_cage_free(&c);
    free(want);
    free(good.data);
}

static void a_sample_that_costs_three_cages_is_charged(void **state) {
    (void)state;
    struct bytes large = make_jpeg(6000, 5000, 1);
    struct sm_cage *c = cage();
    submit(c, large.data, large.n);
    struct outcome o = {0};
    while (o.made == 0) { /* as soon as there is a cage it is killed */
        kill(sm_cage_pid(c), SIGKILL);
        struct pollfd p = {.fd = sm_cage_fd(c), .events = POLLIN};
        poll(&p, 1, sm_cage_wait_ms(c));
        o.made = sm_cage_collect(c, &o.result, &o.out, &o.draws, &o.err);
    }
    assert_int_equal(o.made, -1);
    assert_string_equal(sm_code_word(o.err.code), "cage-died");
    assert_non_null(strstr(o.err.text, "signal 9"));
    assert_int_equal(sm_cage_replaced(c), SM_MAX_SAMPLE_CAGES);
    assert_works(c);
    sm_cage_free(&c);
    free(large.data);
}

static void a_sample_beyond_its_processor_time_is_charged_at_once(void **state) {
    (void)state;
    struct bytes large = make_jpeg(9000, 9000, 1);
    struct sm_cage *c = cage_with(&(struct sm_cage_options){.cpu_ms = 30});
    struct outcome o = run(c, large.data, large.n);
    assert_int_equal(o.made, -1);
    assert_string_equal(sm_code_word(o.err.code), "time-limit");
    assert_int_equal(sm_cage_replaced(c), 1);
    assert_works(c);
    sm_cage_free(&c);
    free(large.data);
}

static void a_cage_that_hangs_is_replaced_after_the_wall_time(void **state) {
    (void)state;
    struct bytes good = make_jpeg(64, 48, 9);
    struct sm_cage *c = cage_with(&(struct sm_cage_options){.wall_ms = 300});
    kill(sm_cage_pid(c), SIGSTOP);
    struct outcome o = run(c, good.data, good.n);
    if (o.made != 1) fail_msg("%s", o.err.text);
    assert_int_equal(sm_cage_replaced(c), 1);
    sm_cage_free(&c);
    free(good.data);
}

static void a_sample_that_needs_more_memory_than_a_cage_has_is_charged_for_it(void **state) {
    (void)state;
    if (sm_cage_is_relaxed()) skip(); /* a sanitizer's address space has no limit */
    struct bytes large =
        make_jpeg_as(9000, 9000, 1, 1); /* progressive: its coefficients are all kept */
    struct sm_cage *c = cage_with(&(struct sm_cage_options){.memory_bytes = 400 << 20});
    struct outcome o = run(c, large.data, large.n);
    assert_int_equal(o.made, -1);
    if (strcmp(sm_code_word(o.err.code), "memory-limit") != 0)
        fail_msg("%s: %s", sm_code_word(o.err.code), o.err.text);
    assert_works(c);
    sm_cage_free(&c);
    free(large.data);
}

static void a_sample_given_up_leaves_the_cage_usable(void **state) {
    (void)state;
    struct bytes large = make_jpeg(6000, 5000, 1);
    struct sm_cage *c = cage();
    submit(c, large.data, large.n);
    sm_cage_abandon(c);
    assert_works(c);
    sm_cage_free(&c);
    free(large.data);
}

static void a_pipeline_that_is_not_valid_is_an_error_with_its_place(void **state) {
    (void)state;
    struct sm_cage *c;
    struct sm_err err = {0};
    struct sm_cage_options options = {0};
    const char *bad =
        "{\"version\":1,\"source\":{\"path\":\".\"},\"ops\":[{\"Resise\":{\"size\":16}}]}";
    assert_int_equal(sm_cage_new(&c, bad, &options, &err), -1);
    assert_null(c);
    assert_string_equal(sm_code_word(err.code), "pipeline");
    assert_non_null(strstr(err.text, "Resise"));
}

static struct sm_cage_answer sound_answer(void) {
    return (struct sm_cage_answer){.seq = 5,
                                   .n_bytes = 100,
                                   .draws_bytes = 2,
                                   .width = 16,
                                   .height = 16,
                                   .channels = 3,
                                   .in_width = 64,
                                   .in_height = 64,
                                   .extension = "png"};
}

/* 1 made, -1 failed by the sample, 0 not believed. */
static int believe(const struct sm_cage_answer *a, const char *draws, struct sm_err *err) {
    struct sm_engine_result result;
    bool failed;
    if (sm_cage_answer_check(a, 5, draws, &result, &failed, err) == 0) return 1;
    if (!failed) assert_int_equal(err->code, SM_E_CAGE_DIED);
    return failed ? -1 : 0;
}

static void an_answer_that_cannot_be_is_not_believed(void **state) {
    (void)state;
    struct sm_err err = {0};
    struct sm_cage_answer a = sound_answer();
    static char draws[SM_MAX_DRAWS_BYTES + 1] = "[]";
    assert_int_equal(believe(&a, draws, &err), 1);
#define REFUSED(change)                                \
    do {                                               \
        a = sound_answer();                            \
        change;                                        \
        assert_int_equal(believe(&a, draws, &err), 0); \
    } while (0)
    REFUSED(a.seq = 4);
    REFUSED(a.status = 1);
    REFUSED(a.status = -1; a.code = SM_E_OK);
    REFUSED(a.status = -1; a.code = SM_E_COUNT);
    REFUSED(a.status = -1; a.code = UINT32_MAX);
    REFUSED(memset(a.text, 'x', sizeof a.text));
    REFUSED(a.n_bytes = 0);
    REFUSED(a.n_bytes = SM_MAX_RESULT_BYTES + 1u);
    REFUSED(a.n_bytes = UINT64_MAX);
    REFUSED(a.draws_bytes = SM_MAX_DRAWS_BYTES + 1);
    REFUSED(a.draws_bytes = UINT64_MAX);
    REFUSED(a.draws_bytes = 1);
    REFUSED(a.width = -1);
    REFUSED(a.height = INT32_MAX);
    REFUSED(a.channels = 5);
    REFUSED(a.in_width = -7);
    REFUSED(memset(a.extension, 'x', sizeof a.extension));
    REFUSED(strcpy(a.extension, "../x"));
    REFUSED(a.extension[0] = 0);
    strcpy(draws, "{}");
    REFUSED((void)0);
    strcpy(draws, "[]");
}

static void a_cage_has_no_say_over_the_run(void **state) {
    (void)state;
    for (int code = SM_E_OK + 1; code < SM_E_COUNT; code++) {
        struct sm_err err = {0};
        struct sm_cage_answer a = sound_answer();
        a.status = -1;
        a.code = (uint32_t)code;
        strcpy(a.text, code % 2 ? "" : "a line\nand\x1b[2Janother");
        assert_int_equal(believe(&a, "[]", &err), -1);
        assert_true(sm_code_charges_sample(err.code));
        if (sm_code_charges_sample(code)) assert_int_equal(err.code, code);
        assert_true(err.text[0] != 0);
        assert_null(strpbrk(err.text, "\n\x1b"));
    }
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "cage") == 0) return sm_cage_main(argc - 1, argv + 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hostile_sample_ends_with_its_code_and_a_text_in_a_second),
        cmocka_unit_test(every_probe_is_refused_and_the_next_sample_is_made),
        cmocka_unit_test(without_a_sandbox_the_probes_succeed),
        cmocka_unit_test(a_cage_killed_in_the_middle_of_a_sample_is_replaced_and_the_sample_made),
        cmocka_unit_test(a_sample_that_costs_three_cages_is_charged),
        cmocka_unit_test(a_sample_beyond_its_processor_time_is_charged_at_once),
        cmocka_unit_test(a_cage_that_hangs_is_replaced_after_the_wall_time),
        cmocka_unit_test(a_sample_that_needs_more_memory_than_a_cage_has_is_charged_for_it),
        cmocka_unit_test(a_sample_given_up_leaves_the_cage_usable),
        cmocka_unit_test(a_pipeline_that_is_not_valid_is_an_error_with_its_place),
        cmocka_unit_test(an_answer_that_cannot_be_is_not_believed),
        cmocka_unit_test(a_cage_has_no_say_over_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Values against their rows: what is taken, what is refused, and the words of each refusal, which
 * users read. */
#include "lib/param.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct all {
    bool flag;
    int64_t whole;
    double number;
    struct sm_nums nums, sizes;
    int word;
    const char *text, *maybe;
};

static const char *const words[] = {"nearest", "bilinear", "bicubic", NULL};
#define AT(member) offsetof(struct all, member)
static const struct sm_param rows[] = {
    {.name = "flag", .type = SM_T_BOOL, .offset = AT(flag), .dflt = "true"},
    {.name = "whole", .type = SM_T_INT, .offset = AT(whole), .dflt = "3", .min = 1, .max = 100},
    {.name = "number", .type = SM_T_NUM, .offset = AT(number), .dflt = "0.5", .max = 1},
    {.name = "nums",
     .type = SM_T_NUMS,
     .offset = AT(nums),
     .dflt = "[0.08, 1.0]",
     .min = -10,
     .max = 10,
     .count_min = 2,
     .count_max = 2,
     .null_ok = true},
    {.name = "sizes",
     .type = SM_T_NUMS,
     .offset = AT(sizes),
     .dflt = "224",
     .min = 1,
     .max = 32768,
     .count_min = 1,
     .count_max = 2,
     .integral = true},
    {.name = "word", .type = SM_T_ENUM, .offset = AT(word), .dflt = "bilinear", .choices = words},
    {.name = "text", .type = SM_T_STR, .offset = AT(text), .dflt = "plain"},
    {.name = "maybe", .type = SM_T_STR, .offset = AT(maybe), .dflt = "null", .null_ok = true},
};
enum { N = sizeof rows / sizeof *rows };

static const struct sm_param *row(const char *name) {
    const struct sm_param *p = sm_param_find(rows, N, name);
    assert_non_null(p);
    return p;
}

static void defaults_fill_every_type(void **state) {
    (void)state;
    struct all a;
    memset(&a, 0x5a, sizeof a);
    sm_param_defaults(rows, N, &a);
    assert_true(a.flag);
    assert_int_equal(a.whole, 3);
    assert_true(a.number == 0.5);
    assert_int_equal(a.nums.count, 2);
    assert_false(a.nums.scalar);
    assert_true(a.nums.v[0] == 0.08 && a.nums.v[1] == 1.0);
    assert_int_equal(a.sizes.count, 1);
    assert_true(a.sizes.scalar);
    assert_int_equal(a.word, 1);
    assert_string_equal(a.text, "plain");
    assert_null(a.maybe);
}

static void wrong_values_are_refused_in_words(void **state) {
    (void)state;
    static const struct {
        const char *name, *text, *want;
    } cases[] = {
        {"flag", "yes", "'flag' must be true or false, not 'yes' (hint: write true)"},
        {"flag", "Off", "'flag' must be true or false, not 'Off' (hint: write false)"},
        {"flag", "1", "'flag' must be true or false, not 1 (hint: write true)"},
        {"flag", "maybe", "'flag' must be true or false, not 'maybe'"},
        {"whole", "0", "'whole' must be a whole number in [1, 100], not 0"},
        {"whole", "2.5", "'whole' must be a whole number in [1, 100], not 2.5"},
        {"whole", "7.0", "'whole' must be a whole number in [1, 100], not 7.0 (hint: write 7)"},
        {"whole", "99999999999999999999",
         "'whole' must be a whole number in [1, 100], not "
         "99999999999999999999"},
        {"whole", "", "'whole' must be a whole number in [1, 100], not null"},
        {"whole", "true", "'whole' must be a whole number in [1, 100], not true"},
        {"number", "1.5", "'number' must be a number in [0, 1], not 1.5"},
        {"number", ".nan", "'number' must be a number in [0, 1], not .nan"},
        {"number", "-.inf", "'number' must be a number in [0, 1], not -.inf"},
        {"number", "half", "'number' must be a number in [0, 1], not 'half'"},
        {"nums", "[1]", "'nums' must be a number in [-10, 10], list of 2 or null, not a list of 1"},
        {"nums", "[]", "'nums' must be a number in [-10, 10], list of 2 or null, not a list of 0"},
        {"nums", "[1, 11]", "'nums' must be a number in [-10, 10], list of 2 or null, not 11"},
        {"nums", "[1, 2", "'nums' is not a list that ends: '[1, 2' (hint: [a, b])"},
        {"nums", "[.nan, 1]", "'nums' must be a number in [-10, 10], list of 2 or null, not .nan"},
        {"sizes", "null",
         "'sizes' must be a whole number in [1, 32768] or list of 1 to 2, not null"},
        {"sizes", "[2, 3.0]",
         "'sizes' must be a whole number in [1, 32768] or list of 1 to 2, not "
         "3.0 (hint: write 3)"},
        {"sizes", "[1,2,3,4,5,6,7,8,9,10,11]",
         "'sizes' must be a whole number in [1, 32768] or "
         "list of 1 to 2, not a list of 9"},
        {"word", "bilinaer",
         "'word' must be one of nearest, bilinear, bicubic, not 'bilinaer' "
         "(hint: did you mean 'bilinear'?)"},
        {"word", "lanczos", "'word' must be one of nearest, bilinear, bicubic, not 'lanczos'"},
        {"text", "", "'text' must be text, not ''"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct all a, before;
        struct sm_err err = {0};
        memset(&a, 0, sizeof a);
        before = a;
        assert_int_equal(sm_param_set_text(row(cases[i].name), &a, cases[i].text, &err), -1);
        assert_string_equal(err.text, cases[i].want);
        assert_memory_equal(&a, &before, sizeof a); /* a refused value leaves no trace */
    }
}

static void text_that_looks_like_a_number_needs_quotes_in_a_file(void **state) {
    (void)state;
    struct all a = {0};
    struct sm_err err;
    struct sm_value v = sm_value_scalar("123");
    assert_int_equal(sm_param_set(row("text"), &a, &v, &err), -1);
    assert_string_equal(err.text,
                        "'text' must be text, not 123 (hint: in quotes it is text: \"123\")");
    assert_int_equal(sm_param_set_text(row("text"), &a, "123", &err), 0);
    assert_string_equal(a.text, "123");
    struct sm_param column = *row("text");
    column.whole_ok = true;
    v = sm_value_scalar("4");
    assert_int_equal(sm_param_set(&column, &a, &v, &err), 0);
    assert_string_equal(a.text, "4");
    v = sm_value_scalar("4.5");
    assert_int_equal(sm_param_set(&column, &a, &v, &err), -1);
}

static void scalars_follow_the_core_schema(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int kind;
        double number;
    } cases[] = {
        {"", SM_V_NULL, 0},
        {"~", SM_V_NULL, 0},
        {"NULL", SM_V_NULL, 0},
        {"nULL", SM_V_STR, 0},
        {"true", SM_V_BOOL, 0},
        {"TRUE", SM_V_BOOL, 0},
        {"tRue", SM_V_STR, 0},
        {"yes", SM_V_STR, 0},
        {"no", SM_V_STR, 0},
        {"on", SM_V_STR, 0},
        {"0", SM_V_INT, 0},
        {"-12", SM_V_INT, -12},
        {"+7", SM_V_INT, 7},
        {"007", SM_V_INT, 7},
        {"0o17", SM_V_INT, 15},
        {"0x1F", SM_V_INT, 31},
        {"0o8", SM_V_STR, 0},
        {"0x", SM_V_STR, 0},
        {"1_000", SM_V_STR, 0},
        {"1e3", SM_V_NUM, 1000},
        {".5", SM_V_NUM, 0.5},
        {"5.", SM_V_NUM, 5},
        {"-1.5E-2", SM_V_NUM, -0.015},
        {".", SM_V_STR, 0},
        {"1e", SM_V_STR, 0},
        {"-", SM_V_STR, 0},
        {"+", SM_V_STR, 0},
        {"0x1p3", SM_V_STR, 0},
        {"inf", SM_V_STR, 0},
        {"nan", SM_V_STR, 0},
        {".inf", SM_V_NUM, INFINITY},
        {"-.INF", SM_V_NUM, -INFINITY},
        {"12:30:45", SM_V_STR, 0},
        {"9223372036854775807", SM_V_INT, 9223372036854775807.0},
        {"9223372036854775808", SM_V_NUM, 9223372036854775808.0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sm_value v = sm_value_scalar(cases[i].text);
        if ((int)v.kind != cases[i].kind) fail_msg("'%s' is of kind %d", cases[i].text, v.kind);
        if (v.kind == SM_V_INT || v.kind == SM_V_NUM) assert_true(v.number == cases[i].number);
    }
    assert_true(isnan(sm_value_scalar(".NaN").number));
}

static const char *json_of(const char *name, const char *text, struct sm_buf *out) {
    struct all a = {0};
    sm_buf_reset(out);
    assert_int_equal(sm_param_set_text(row(name), &a, text, NULL), 0);
    sm_param_json(row(name), &a, out);
    return out->data;
}

static void numbers_are_written_in_their_shortest_form(void **state) {
    (void)state;
    struct sm_buf b;
    sm_buf_init(&b, 4096);
    assert_string_equal(json_of("number", "0.1", &b), "0.1");
    assert_string_equal(json_of("number", "1e-7", &b), "1e-07");
    assert_string_equal(json_of("number", "0.30000000000000004", &b), "0.30000000000000004");
    assert_string_equal(json_of("number", "-0", &b), "0");
    assert_string_equal(json_of("number", "-0.0", &b), "0");
    assert_string_equal(json_of("whole", "0x10", &b), "16");
    assert_string_equal(json_of("nums", "~", &b), "null");
    assert_string_equal(json_of("nums", "3", &b), "3");
    assert_string_equal(json_of("nums", "[3,  4.50]", &b), "[3,4.5]");
    assert_string_equal(json_of("sizes", "[224]", &b), "[224]");
    assert_string_equal(json_of("word", "bicubic", &b), "\"bicubic\"");
    assert_string_equal(json_of("maybe", "null", &b), "null");
    assert_string_equal(json_of("text", "a \"b\"", &b), "\"a \\\"b\\\"\"");
    assert_string_equal(json_of("flag", "False", &b), "false");
    sm_buf_release(&b);
}

static void any_double_reads_back_equal_from_its_json(void **state) {
    (void)state;
    static const struct sm_param p = {.name = "x", .type = SM_T_NUM};
    struct sm_buf b;
    sm_buf_init(&b, 256);
    uint64_t bits = 88172645463325252u;
    for (int i = 0; i < 20000; i++) {
        bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
        double x, y;
        memcpy(&x, &bits, sizeof x);
        if (!isfinite(x)) continue;
        sm_buf_reset(&b);
        sm_param_json(&p, &x, &b);
        assert_int_equal(sm_param_set_text(&p, &y, b.data, NULL), 0);
        assert_true(x == y);
    }
    sm_buf_release(&b);
}

static void the_nearest_name_is_near_or_none(void **state) {
    (void)state;
    static const char *const names[] = {
        "RandomHorizontalFlip", "RandomVerticalFlip", "Resize", "RandomResizedCrop", "size", "p"};
    enum { COUNT = sizeof names / sizeof *names };
    assert_string_equal(sm_nearest("RandomHorizonalFlip", names, COUNT), "RandomHorizontalFlip");
    assert_string_equal(sm_nearest("HorizontalFlip", names, COUNT), "RandomHorizontalFlip");
    assert_string_equal(sm_nearest("randomverticalflip", names, COUNT), "RandomVerticalFlip");
    assert_string_equal(sm_nearest("Reszie", names, COUNT), "Resize");
    assert_string_equal(sm_nearest("siez", names, COUNT), "size");
    assert_null(sm_nearest("q", names, COUNT));
    assert_null(sm_nearest("Blur", names, COUNT));
    assert_null(sm_nearest("", names, COUNT));
    char vast[10000];
    memset(vast, 'R', sizeof vast - 1);
    vast[sizeof vast - 1] = 0;
    assert_null(sm_nearest(vast, names, COUNT));
}

static void help_tells_type_and_range(void **state) {
    (void)state;
    static const struct sm_param seed = {
        .name = "s", .type = SM_T_INT, .max = 9223372036854775807.0};
    static const struct sm_param sigma = {.name = "s",
                                          .type = SM_T_NUMS,
                                          .min = 0.1,
                                          .max = INFINITY,
                                          .count_min = 2,
                                          .count_max = 2};
    static const struct sm_param max_size = {
        .name = "m", .type = SM_T_NUMS, .min = 1, .max = 32768, .null_ok = true, .integral = true};
    struct sm_buf b;
    sm_buf_init(&b, 256);
    sm_param_type_text(&seed, &b);
    assert_string_equal(b.data, "whole number of at least 0");
    sm_buf_reset(&b);
    sm_param_type_text(&sigma, &b);
    assert_string_equal(b.data, "number of at least 0.1 or list of 2");
    sm_buf_reset(&b);
    sm_param_type_text(&max_size, &b);
    assert_string_equal(b.data, "whole number in [1, 32768] or null");
    sm_buf_reset(&b);
    sm_param_type_text(row("word"), &b);
    assert_string_equal(b.data, "one of nearest, bilinear, bicubic");
    sm_buf_release(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_fill_every_type),
        cmocka_unit_test(wrong_values_are_refused_in_words),
        cmocka_unit_test(text_that_looks_like_a_number_needs_quotes_in_a_file),
        cmocka_unit_test(scalars_follow_the_core_schema),
        cmocka_unit_test(numbers_are_written_in_their_shortest_form),
        cmocka_unit_test(any_double_reads_back_equal_from_its_json),
        cmocka_unit_test(the_nearest_name_is_near_or_none),
        cmocka_unit_test(help_tells_type_and_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

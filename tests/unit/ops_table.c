/* The tables of every op: parser, help, schema, docs and a sample's JSON are derived from them, so
 * a row that lies would lie everywhere. Walks the generated list; an op that is added is covered
 * without a change here. */
#include "lib/buf.h"
#include "lib/limits.h"
#include "workers/ops/op.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

static void fail_op(const struct sm_op *op, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void fail_op(const struct sm_op *op, const char *fmt, ...) {
    char text[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fail_msg("%s: %s", op->info.name, text);
}

static size_t type_size(enum sm_type type) {
    switch (type) {
    case SM_T_BOOL:
        return sizeof(bool);
    case SM_T_INT:
        return sizeof(int64_t);
    case SM_T_NUM:
        return sizeof(double);
    case SM_T_NUMS:
        return sizeof(struct sm_nums);
    case SM_T_ENUM:
        return sizeof(int);
    case SM_T_STR:
        return sizeof(const char *);
    case SM_T_STRS:
        return sizeof(struct sm_strs);
    case SM_T_ANY:
        return sizeof(struct sm_any);
    case SM_T_OPS:
    case SM_T_METHOD:
        return 0;
    }
    fail_msg("type %d is none", type);
    return 0;
}

static void assert_one_line(const struct sm_op *op, const char *what, const char *text) {
    if (text == NULL || text[0] == 0) fail_op(op, "'%s' has no text", what);
    if (strpbrk(text, "\n\r\t") != NULL) fail_op(op, "'%s' is more than a line", what);
    if (text[0] == ' ' || text[strlen(text) - 1] == ' ') fail_op(op, "'%s' has loose spaces", what);
}

/* Names, texts and places of a table's rows. */
static void assert_rows(const struct sm_op *op, const struct sm_param *rows, size_t n,
                        size_t size) {
    for (size_t i = 0; i < n; i++) {
        const struct sm_param *p = &rows[i];
        assert_one_line(op, "name", p->name);
        assert_one_line(op, p->name, p->doc);
        if (sm_param_find(rows, n, p->name) != p) fail_op(op, "'%s' stands twice", p->name);
        if (p->offset + type_size(p->type) > size)
            fail_op(op, "'%s' lies outside its struct of %zu bytes", p->name, size);
        if (p->type != SM_T_ANY && (p->type == SM_T_ENUM) != (p->choices != NULL))
            fail_op(op, "'%s': choices and SM_T_ENUM go together", p->name);
        if (p->min > p->max) fail_op(op, "'%s' has an empty range", p->name);
        if (p->count_min > p->count_max || p->count_max > SM_NUMS_MAX)
            fail_op(op, "'%s' has impossible lengths", p->name);
        for (size_t k = 0; k < i; k++)
            if (rows[k].type != SM_T_OPS && p->type != SM_T_OPS &&
                rows[k].offset < p->offset + type_size(p->type) &&
                p->offset < rows[k].offset + type_size(rows[k].type))
                fail_op(op, "'%s' and '%s' share bytes", p->name, rows[k].name);
    }
}

static void ops_are_there_once_and_sorted_by_name(void **state) {
    (void)state;
    assert_true(sm_ops_count >= 13);
    for (size_t i = 0; i < sm_ops_count; i++) {
        assert_one_line(sm_ops[i], "name", sm_ops[i]->info.name);
        if (i > 0 && strcasecmp(sm_ops[i - 1]->info.name, sm_ops[i]->info.name) >= 0)
            fail_op(sm_ops[i], "comes after '%s'", sm_ops[i - 1]->info.name);
        assert_ptr_equal(sm_op_find(sm_ops[i]->info.name), sm_ops[i]);
    }
    assert_null(sm_op_find("NoSuchOp"));
}

static void every_op_has_its_texts_and_functions(void **state) {
    (void)state;
    for (size_t i = 0; i < sm_ops_count; i++) {
        const struct sm_op *op = sm_ops[i];
        assert_one_line(op, "doc", op->info.doc);
        assert_one_line(op, "example", op->info.example);
        const struct sm_row_op *rows = op->rows;
        if ((rows != NULL) != op->info.rows || (rows != NULL && op->shape != NULL))
            fail_op(op, "an op works on images or on rows, and says so");
        if (rows != NULL ? rows->schema == NULL || rows->apply == NULL
                         : op->shape == NULL || op->apply == NULL)
            fail_op(op, "shape or schema, or apply is missing");
        size_t lists = 0;
        for (size_t k = 0; k < op->info.n_params; k++)
            lists += op->info.params[k].type == SM_T_OPS;
        if (lists != op->info.control || (op->selects != NULL) != op->info.control)
            fail_op(op, "a control op has one list of ops and selects, and no other op has");
    }
}

static void rows_of_parameters_and_draws_are_sound(void **state) {
    (void)state;
    for (size_t i = 0; i < sm_ops_count; i++) {
        const struct sm_op *op = sm_ops[i];
        assert_rows(op, op->info.params, op->info.n_params, op->info.params_size);
        assert_rows(op, op->draws, op->n_draws, op->draw_size);
        bool random = op->draw != NULL;
        if (random != (op->n_draws > 0) || random != (op->draw_size > 0))
            fail_op(op, "an op draws if and only if it has a table of draws");
    }
}

static void every_default_parses_within_its_range(void **state) {
    (void)state;
    for (size_t i = 0; i < sm_ops_count; i++) {
        const struct sm_op *op = sm_ops[i];
        void *params = calloc(1, op->info.params_size + 1);
        bool complete = true;
        struct sm_err err;
        for (size_t k = 0; k < op->info.n_params; k++) {
            const struct sm_param *p = &op->info.params[k];
            if (p->dflt == NULL)
                complete = false;
            else if (sm_param_set_text(p, params, p->dflt, &err) < 0)
                fail_op(op, "the default of '%s': %s", p->name, err.text);
        }
        if (complete && op->check != NULL && op->check(params, &err) < 0)
            fail_op(op, "its own defaults are refused: %s", err.text);
        free(params);
    }
}

/* Parses an op's example as the only op of a pipeline. */
static void example_parse(const struct sm_op *op, struct sm_pipeline *p) {
    char text[2048];
    struct sm_err err = {0};
    int n = snprintf(text, sizeof text,
                     "version: 1\nname: example\nsource: {format: %s, path: .}\nops:\n  - %s\n",
                     op->info.rows ? "csv" : "folder", op->info.example);
    assert_true(n > 0 && (size_t)n < sizeof text);
    if (sm_pipeline_parse(p, "example", text, (size_t)n, sm_op_table(), &err) < 0)
        fail_op(op, "its example does not parse: %s", err.text);
    assert_int_equal(p->n_ops, 1);
    assert_ptr_equal(p->ops[0].info, &op->info);
}

static void every_example_parses_and_survives_its_json(void **state) {
    (void)state;
    for (size_t i = 0; i < sm_ops_count; i++) {
        struct sm_pipeline p, again;
        struct sm_buf json, json_again;
        struct sm_err err = {0};
        example_parse(sm_ops[i], &p);
        sm_buf_init(&json, 1 << 16);
        sm_buf_init(&json_again, 1 << 16);
        sm_pipeline_json(&p, &json);
        if (sm_pipeline_parse(&again, "json", json.data, json.len, sm_op_table(), &err) < 0)
            fail_op(sm_ops[i], "its JSON does not parse: %s", err.text);
        sm_pipeline_json(&again, &json_again);
        assert_string_equal(json.data, json_again.data);
        sm_buf_release(&json);
        sm_buf_release(&json_again);
        sm_pipeline_release(&p);
        sm_pipeline_release(&again);
    }
}

/* A draw struct, drawn over the given byte, as JSON. Gives. */
static char *draw_text(const struct sm_op *op, const void *params, const struct sm_shape *in,
                       int byte, void *draw) {
    struct sm_rng rng = sm_rng_op(11, 0, 5, 0, 0);
    struct sm_buf out;
    memset(draw, byte, op->draw_size);
    op->draw(params, in, &rng, draw);
    sm_buf_init(&out, SM_MAX_DRAWS_BYTES);
    for (size_t k = 0; k < op->n_draws; k++) {
        sm_buf_printf(&out, "%s: ", op->draws[k].name);
        sm_param_json(&op->draws[k], draw, &out);
        sm_buf_text(&out, "\n");
    }
    assert_false(out.full);
    char *text = strdup(out.data);
    sm_buf_release(&out);
    return text;
}

static void a_draw_fills_every_field_of_its_table(void **state) {
    (void)state;
    const struct sm_shape in = {.width = 500, .height = 375, .channels = 3};
    for (size_t i = 0; i < sm_ops_count; i++) {
        const struct sm_op *op = sm_ops[i];
        if (op->draw == NULL) continue;
        struct sm_pipeline p;
        example_parse(op, &p);
        void *draw = malloc(op->draw_size);
        char *a = draw_text(op, p.ops[0].params, &in, 0, draw);
        char *b = draw_text(op, p.ops[0].params, &in, 0xa5, draw);
        if (strcmp(a, b) != 0) fail_op(op, "a field is left as it was:\n%s%s", a, b);
        free(a), free(b), free(draw);
        sm_pipeline_release(&p);
    }
}

static void a_size_declared_before_chance_is_the_size_after_it(void **state) {
    (void)state;
    for (size_t i = 0; i < sm_ops_count; i++) {
        const struct sm_op *op = sm_ops[i];
        struct sm_pipeline p;
        struct sm_err err = {0};
        if (op->info.rows) continue;
        example_parse(op, &p);
        struct sm_shape in = {.width = 500, .height = 375, .channels = 3}, before = in, after = in;
        void *draw = op->draw_size ? calloc(1, op->draw_size) : NULL;
        if (op->shape(p.ops[0].params, NULL, &before, &err) < 0)
            fail_op(op, "no shape before the draw: %s", err.text);
        struct sm_rng rng = sm_rng_op(12, 0, 0, 0, 0);
        if (op->draw != NULL) op->draw(p.ops[0].params, &in, &rng, draw);
        if (op->shape(p.ops[0].params, draw, &after, &err) < 0)
            fail_op(op, "no shape after the draw: %s", err.text);
        if ((before.width && before.width != after.width) ||
            (before.height && before.height != after.height) || before.is_float != after.is_float ||
            (before.channels && before.channels != after.channels) || !after.width || !after.height)
            fail_op(op, "%dx%d before the draw, %dx%d after it", before.width, before.height,
                    after.width, after.height);
        free(draw);
        sm_pipeline_release(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ops_are_there_once_and_sorted_by_name),
        cmocka_unit_test(every_op_has_its_texts_and_functions),
        cmocka_unit_test(rows_of_parameters_and_draws_are_sound),
        cmocka_unit_test(every_default_parses_within_its_range),
        cmocka_unit_test(every_example_parses_and_survives_its_json),
        cmocka_unit_test(a_draw_fills_every_field_of_its_table),
        cmocka_unit_test(a_size_declared_before_chance_is_the_size_after_it),
    };
    return cmocka_run_group_tests_name("ops_table", tests, NULL, NULL);
}

/* Ranges, blocks and the tree of a fit: what decides the bytes of an artifact. The fit here writes
 * down which rows it was shown and in which order partials were merged. */
#include "workers/table/fit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { COLUMNS = 1024, TEXT = 4096 };

struct partial {
    uint64_t rows, sum;
    char text[TEXT]; /* the tree, as brackets */
};

static int begin(const struct sm_fit_context *c, struct sm_buf *state, struct sm_err *err) {
    (void)c, (void)err;
    return sm_buf_text(state, "0") ? 0 : -1;
}
static size_t partial_bytes(const struct sm_fit_context *c, const struct sm_buf *state) {
    (void)c, (void)state;
    return sizeof(struct partial);
}
static int map(const struct sm_fit_context *c, const struct sm_buf *state,
               const struct sm_rows *block, uint64_t first, void *partial, struct sm_err *err) {
    struct partial *p = partial;
    (void)c, (void)state, (void)err;
    if (p->rows == 0) snprintf(p->text, TEXT, "%llu", (unsigned long long)first);
    for (size_t i = 0; i < block->n; i++)
        p->sum += (uint64_t)block->f32[i * block->columns];
    p->rows += block->n;
    return 0;
}
static void merge(const struct sm_fit_context *c, const struct sm_buf *state, void *into,
                  const void *other) {
    struct partial *a = into;
    const struct partial *b = other;
    char text[TEXT];
    (void)c, (void)state;
    assert_true((size_t)snprintf(text, TEXT, "(%.*s %.*s)", TEXT / 2 - 4, a->text, TEXT / 2 - 4,
                                 b->text) < TEXT);
    memcpy(a->text, text, TEXT);
    a->rows += b->rows;
    a->sum += b->sum;
}
static char tree[TEXT];
static uint64_t sum;
static int next(const struct sm_fit_context *c, struct sm_buf *state, const void *merged,
                bool *done, struct sm_artifact *a, struct sm_arena *arena, struct sm_err *err) {
    const struct partial *p = merged;
    (void)a, (void)arena, (void)err;
    assert_int_equal(p->rows, c->rows);
    memcpy(tree, p->text, TEXT);
    sum = p->sum;
    *done = strcmp(state->data, "01") == 0; /* two rounds */
    sm_buf_text(state, "1");
    return 0;
}
static const struct sm_fit fit = {begin, partial_bytes, map, merge, next};

/* Row k holds k in its first column. */
static int rows_read(void *context, uint64_t first, struct sm_rows *out, struct sm_err *err) {
    (void)context, (void)err;
    memset(out->data, 0, out->n * out->columns * sizeof(float));
    for (size_t i = 0; i < out->n; i++)
        out->f32[i * out->columns] = (float)(first + i);
    return 0;
}
static const struct sm_fit_rows rows = {rows_read, NULL};

static struct sm_schema schema = {.n = COLUMNS};

/* As FIT leases do it: ranges in any order, each block by block. */
static int round_backwards(void *context, const struct sm_fit *f, const struct sm_fit_context *c,
                           const struct sm_buf *state, uint64_t ranges, size_t bytes,
                           void *partials, struct sm_err *err) {
    unsigned *steps = context;
    for (uint64_t i = ranges; i-- > 0;) {
        struct sm_fit_cursor cursor;
        uint8_t *to = (uint8_t *)partials + i * bytes;
        int r = sm_fit_map_begin(&cursor, f, c, state, i, to, err);
        for (; r == 0; (*steps)++)
            r = sm_fit_map_step(&cursor, f, c, state, &rows, to, err);
        sm_fit_map_end(&cursor);
        assert_int_equal(r, 1);
    }
    return 0;
}

static void run(uint64_t n, const struct sm_fit_executor *executor) {
    const struct sm_fit_context c = {.in = &schema, .rows = n};
    struct sm_artifact artifact;
    struct sm_arena arena;
    struct sm_err err;
    sm_arena_init(&arena, 1 << 20);
    tree[0] = 0;
    assert_int_equal(sm_fit_run(&fit, &c, &rows, executor, &artifact, &arena, &err), 0);
    sm_arena_release(&arena);
}

static void
test_every_row_is_mapped_once_and_the_tree_is_the_same_wherever_ranges_are_mapped(void **state) {
    static const uint64_t sizes[] = {1, 63, 256, 1024, 1025, 5000, 20001, 100003};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const uint64_t n = sizes[i];
        char here[TEXT];
        unsigned steps = 0;
        const struct sm_fit_executor there = {round_backwards, &steps};
        run(n, NULL);
        memcpy(here, tree, TEXT);
        assert_int_equal(sum, n * (n - 1) / 2);
        run(n, &there);
        assert_string_equal(here, tree);
        assert_int_equal(sum, n * (n - 1) / 2);
        const struct sm_fit_context c = {.in = &schema, .rows = n};
        const uint64_t ranges = sm_fit_ranges(&c, sizeof(struct partial));
        assert_true(steps >= 2 * ranges); /* of two rounds; a range has a block at least */
        assert_true(ranges > 1 || n < 5000);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            test_every_row_is_mapped_once_and_the_tree_is_the_same_wherever_ranges_are_mapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

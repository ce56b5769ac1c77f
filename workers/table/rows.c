/* Blocks of rows and their schema: memory, names, faults. Sources and leases make blocks with it,
 * row ops (workers/ops/) turn one into the next. */
#include "workers/table/rows.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <xxhash.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

/* A large block is written from one end to the other soon: pages of 2 MiB, where the kernel has
 * them, spare a fault for every 4 KiB, which costs several times what filling that does. The last
 * one may be half empty. */
static void *block_alloc(size_t bytes) {
    if (bytes < 2 * HUGE_PAGE) return aligned_alloc(ALIGNMENT, bytes);
    const size_t huge = (bytes + HUGE_PAGE / 2) / HUGE_PAGE * HUGE_PAGE;
    void *block = NULL;
    if (posix_memalign(&block, HUGE_PAGE, huge > bytes ? huge : bytes) != 0) return NULL;
    madvise(block, huge, MADV_HUGEPAGE);
    return block;
}

int sm_rows_alloc(struct sm_rows *r, size_t n, size_t columns, bool is_double, struct sm_err *err) {
    *r = (struct sm_rows){.n = n, .columns = columns, .is_double = is_double};
    size_t cells, bytes;
    if (__builtin_mul_overflow(n, columns, &cells) ||
        __builtin_mul_overflow(cells, sm_rows_element(r), &bytes) || bytes > PTRDIFF_MAX)
        return sm_fail(err, SM_E_TOO_LARGE, "a block of %zu rows with %zu columns", n, columns);
    bytes = bytes == 0 ? ALIGNMENT : (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    r->data = block_alloc(bytes);
    if (r->data == NULL)
        return sm_fail(err, SM_E_MEMORY, "out of memory for %zu rows with %zu columns", n, columns);
    return 0;
}

void sm_rows_free(struct sm_rows *r) {
    free(r->data);
    *r = (struct sm_rows){0};
}

void sm_row_fault(struct sm_row_faults *f, size_t row, const char *fmt, ...) {
    if (f->bad[row]) return;
    f->bad[row] = 1;
    if (f->n_bad++ > 0 && row > f->first) return;
    f->first = row;
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->text, sizeof f->text, fmt, args);
    va_end(args);
}

/* What is no name but a whole number is a place. */
static long place_of(const struct sm_schema *s, const char *name) {
    size_t digits = strspn(name, "0123456789");
    if (digits == 0 || digits > 9 || name[digits] != 0) return -1;
    unsigned long at = strtoul(name, NULL, 10);
    return at < s->n ? (long)at : -1;
}

long sm_schema_find(const struct sm_schema *s, const char *name) {
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->columns[i].name, name) == 0) return (long)i;
    return place_of(s, name);
}

/* The slot of the first column of this name, or the free one where it would be. */
static uint32_t *name_slot(const struct sm_schema_names *n, const char *name) {
    size_t i = XXH3_64bits(name, strlen(name)) & (n->n_slots - 1);
    while (n->slots[i] != 0 && strcmp(n->schema->columns[n->slots[i] - 1].name, name) != 0)
        i = (i + 1) & (n->n_slots - 1);
    return &n->slots[i];
}

struct sm_schema_names sm_schema_names_make(const struct sm_schema *s) {
    struct sm_schema_names n = {.schema = s, .n_slots = 2};
    while (n.n_slots < 2 * s->n)
        n.n_slots *= 2;
    n.slots = calloc(n.n_slots, sizeof *n.slots);
    for (size_t i = 0; n.slots != NULL && i < s->n; i++) {
        uint32_t *slot = name_slot(&n, s->columns[i].name);
        if (*slot == 0) *slot = (uint32_t)i + 1;
    }
    return n;
}

void sm_schema_names_release(struct sm_schema_names *n) {
    free(n->slots);
    *n = (struct sm_schema_names){0};
}

long sm_schema_names_find(const struct sm_schema_names *n, const char *name) {
    if (n->slots == NULL) return sm_schema_find(n->schema, name);
    const uint32_t slot = *name_slot(n, name);
    return slot != 0 ? (long)slot - 1 : place_of(n->schema, name);
}

static int copy_column(struct sm_column *to, const struct sm_column *from, struct sm_arena *arena) {
    *to = *from;
    to->name = sm_arena_str(arena, from->name);
    if (to->name == NULL) return -1;
    if (from->n_categories == 0) return 0;
    const char **names = sm_arena_alloc(arena, from->n_categories * sizeof *names);
    if (names == NULL) return -1;
    for (uint32_t i = 0; i < from->n_categories; i++)
        if ((names[i] = sm_arena_str(arena, from->categories[i])) == NULL) return -1;
    to->categories = names;
    return 0;
}

const char *sm_schema_twice(const struct sm_schema *s) {
    struct sm_schema_names by_name = sm_schema_names_make(s);
    const char *twice = NULL;
    for (size_t c = 0; c < s->n && twice == NULL; c++)
        if (sm_schema_names_find(&by_name, s->columns[c].name) != (long)c)
            twice = s->columns[c].name;
    sm_schema_names_release(&by_name);
    return twice;
}

int sm_schema_copy(struct sm_schema *to, const struct sm_schema *from, struct sm_arena *arena,
                   struct sm_err *err) {
    *to = *from;
    to->columns = sm_arena_alloc(arena, from->n * sizeof *to->columns);
    int failed = to->columns == NULL;
    for (size_t i = 0; i < from->n && !failed; i++)
        failed = copy_column(&to->columns[i], &from->columns[i], arena) != 0;
    if (failed) return sm_fail(err, SM_E_MEMORY, "out of memory for %zu columns", from->n);
    return 0;
}

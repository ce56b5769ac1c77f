/* What ops on rows share: which columns they work on, cells of either float type, and the arrays of
 * what was learned. Only those ops include it. */
#pragma once

#include "workers/ops/op.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The parameter row of the columns an op works on. */
#define COLUMNS_PARAM(owner, what)                                                                \
    {                                                                                             \
        .name = "columns", .type = SM_T_STRS, .offset = offsetof(owner, columns), .dflt = "null", \
        .null_ok = true, .doc = "names of the columns; null: " what                               \
    }

enum { COLUMNS_ANY = -1 };

/* The places of names that columns_check has let pass. */
static inline void columns_places(const struct sm_schema *in, const struct sm_strs *names,
                                  size_t *at) {
    struct sm_schema_names by_name = sm_schema_names_make(in);
    for (size_t i = 0; i < names->count; i++)
        at[i] = (size_t)sm_schema_names_find(&by_name, names->v[i]);
    sm_schema_names_release(&by_name);
}

/* Marks the columns: those that are named, or without names all of a kind (COLUMNS_ANY: of any).
 * picked: one byte a column. Returns how many. */
static inline size_t columns_pick(const struct sm_schema *in, const struct sm_strs *names, int kind,
                                  uint8_t *picked) {
    size_t n = 0;
    for (size_t c = 0; c < in->n; c++)
        picked[c] = names->v == NULL && (kind == COLUMNS_ANY || in->columns[c].kind == kind);
    struct sm_schema_names by_name = sm_schema_names_make(in);
    for (size_t i = 0; i < names->count; i++) {
        const long c = sm_schema_names_find(&by_name, names->v[i]);
        if (c >= 0) picked[c] = 1;
    }
    sm_schema_names_release(&by_name);
    for (size_t c = 0; c < in->n; c++)
        n += picked[c];
    return n;
}

/* For ops whose apply needs no more of the names: these marks, made once, become what is prepared.
 */
static inline int columns_prepare(const struct sm_schema *in, const struct sm_strs *names, int kind,
                                  struct sm_artifact *learned, struct sm_err *err) {
    uint8_t *picked = calloc(in->n + 1, 1);
    if (picked == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    columns_pick(in, names, kind, picked);
    learned->prepared = picked;
    learned->release = free;
    return 0;
}

static inline int column_unknown(const struct sm_schema *in, const char *name, struct sm_err *err) {
    const char **all = calloc(in->n + 1, sizeof *all);
    if (all == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t k = 0; k < in->n; k++)
        all[k] = in->columns[k].name;
    const char *near = sm_nearest(name, all, in->n);
    free(all);
    return sm_fail(err, SM_E_PIPELINE, "no column '%.80s'%s%.80s%s", name,
                   near ? " (hint: did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

/* Every name is a column, and of the kind that the op takes. */
static inline int columns_check(const struct sm_schema *in, const struct sm_strs *names, int kind,
                                struct sm_err *err) {
    struct sm_schema_names by_name = sm_schema_names_make(in);
    int failed = 0;
    for (size_t i = 0; !failed && i < names->count; i++) {
        const long c = sm_schema_names_find(&by_name, names->v[i]);
        if (c < 0)
            failed = column_unknown(in, names->v[i], err);
        else if (kind != COLUMNS_ANY && in->columns[c].kind != kind)
            failed = sm_fail(err, SM_E_PIPELINE,
                             kind == SM_COLUMN_NUMBER
                                 ? "column '%.80s' holds categories, and this op works on numbers "
                                   "(hint: OneHotEncoder before it)"
                                 : "column '%.80s' holds numbers, and this op works on categories "
                                   "(hint: source: {categorical: [%.80s]})",
                             names->v[i], names->v[i]);
    }
    sm_schema_names_release(&by_name);
    return failed;
}

/* The schema of ops that change cells and leave the columns what they are. */
static inline int columns_keep(const struct sm_schema *in, const struct sm_strs *names, int kind,
                               struct sm_schema *out, struct sm_arena *arena, struct sm_err *err) {
    if (columns_check(in, names, kind, err) != 0) return -1;
    return sm_schema_copy(out, in, arena, err);
}

/* Nothing can be learned from column k. */
static inline int column_empty(const struct sm_fit_context *c, size_t k, struct sm_err *err) {
    return sm_fail(err, SM_E_DATASET,
                   "column '%.80s' has no value in %llu rows (hint: DropColumns)",
                   c->in->columns[k].name, (unsigned long long)c->rows);
}

/* What column k has taught must be a number that rows can be scaled by. */
static inline int learned_finite(const struct sm_fit_context *c, size_t k, const char *what,
                                 double v, struct sm_err *err) {
    if (isfinite(v)) return 0;
    return sm_fail(err, SM_E_DATASET,
                   "column '%.80s' has numbers too large: %s is no finite number (hint: a smaller "
                   "unit in the source, or DropColumns)",
                   c->in->columns[k].name, what);
}

static inline void rows_copy(const struct sm_rows *from, struct sm_rows *to) {
    memcpy(to->data, from->data, from->n * from->columns * sm_rows_element(from));
}

/* An array of what was learned; NULL when it is not there, not of this type or length. */
static inline const void *learned_find(const struct sm_artifact *a, const char *name, int type,
                                       uint64_t n) {
    const struct sm_array *array = a != NULL ? sm_artifact_find(a, name) : NULL;
    if (array == NULL || array->type != type) return NULL;
    const uint64_t count = array->shape[0] * (array->ndim == 2 ? array->shape[1] : 1);
    return count == n ? array->data : NULL;
}

static inline int learned_wrong(struct sm_err *err) {
    return sm_fail(err, SM_E_DIFFERS,
                   "what it has learned is of other columns (hint: shardmill fit)");
}

/* Numbers to calculate with. A digest says that these were learned, not that they make sense. */
static inline bool learned_are_finite(const double *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(v[i])) return false;
    return true;
}

/* Prepares a scaler: which columns it works on, by what they are shifted and scaled; the others by
 * nothing, or categories would no longer be such. divides: the scale is what a cell is divided by.
 */
static inline int scales_prepare(const struct sm_schema *in, const struct sm_strs *names,
                                 const char *shift_name, bool divides, struct sm_artifact *learned,
                                 struct sm_err *err) {
    const double *shift = learned_find(learned, shift_name, SM_ARRAY_F64, in->n),
                 *scale = learned_find(learned, "scale_", SM_ARRAY_F64, in->n);
    if (columns_prepare(in, names, SM_COLUMN_NUMBER, learned, err) != 0) return -1;
    const uint8_t *picked = learned->prepared;
    if (shift == NULL || scale == NULL || !learned_are_finite(shift, in->n) ||
        !learned_are_finite(scale, in->n))
        return learned_wrong(err);
    for (size_t k = 0; k < in->n; k++)
        if (picked[k] ? divides && scale[k] == 0 : shift[k] != 0 || scale[k] != 1)
            return learned_wrong(err);
    return 0;
}

/* Adds an array of n values, copied into the arena. */
static inline int learned_add(struct sm_artifact *a, struct sm_arena *arena, const char *name,
                              int type, uint64_t rows, uint64_t columns, const void *values,
                              struct sm_err *err) {
    const size_t n = (size_t)(rows * (columns ? columns : 1)) * sm_array_bytes(type);
    void *copy = sm_arena_alloc(arena, n ? n : 1);
    if (copy == NULL) return sm_fail(err, SM_E_MEMORY, "no memory for what an op has learned");
    memcpy(copy, values, n);
    sm_artifact_add(a, name, type, rows, columns, copy);
    return 0;
}

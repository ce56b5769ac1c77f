/* Option tables: one row says everything about a parameter, and the parser, `--help`, the man page,
 * ops.md, schema.json, shell completion and the tests all read that row. Ops, sections of the
 * pipeline file and commands use the same kind of table. */
#pragma once

#include "lib/buf.h"
#include "lib/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sm_type {
    SM_T_BOOL,   /* bool */
    SM_T_INT,    /* int64_t */
    SM_T_NUM,    /* double */
    SM_T_NUMS,   /* struct sm_nums: null, one number or a list of count_min to count_max numbers */
    SM_T_ENUM,   /* int: index into choices */
    SM_T_STR,    /* const char *, NULL for null */
    SM_T_OPS,    /* a list of ops; only the pipeline's parser fills it */
    SM_T_METHOD, /* null, or one op of the table of rebalancing methods; the parser fills it */
    SM_T_STRS,   /* struct sm_strs: null, or a list of words */
    SM_T_ANY,    /* struct sm_any: a word, a number or a map of numbers, as the row allows */
};

/* A list of words; count 0 with v NULL: null. */
struct sm_strs {
    size_t count;
    const char *const *v;
};

/* What may be a word (`auto`), a number (0.5) or a map (`{cat: 100, dog: 50}`). choices of its row
 * lists the words, NULL: any word; min and max hold for numbers and for the values of the map. */
struct sm_any {
    enum { SM_ANY_NULL, SM_ANY_WORD, SM_ANY_NUMBER, SM_ANY_MAP } kind;
    const char *word;
    double number;
    bool fraction; /* the number is written with a point or exponent: 1.0 is a share, 1 a count */
    size_t count;  /* of the map */
    const char *const *names;
    const double *values;
};

enum { SM_NUMS_MAX = 8 };

/* A number, a list of numbers, or nothing. torchvision takes `0.4`, `[0.6, 1.4]` and None in the
 * same place, and the three mean different things; the op decides. */
struct sm_nums {
    int count;   /* 0: null */
    bool scalar; /* written as one number, not as a list of one */
    double v[SM_NUMS_MAX];
};

struct sm_param {
    const char *name;
    enum sm_type type;
    size_t offset;            /* of the value in the owner's struct */
    const char *dflt;         /* the default, as it would be written in the file; NULL: required */
    double min, max;          /* inclusive, for numbers and for each of a list; both 0: no range */
    int count_min, count_max; /* SM_T_NUMS: lengths that a list may have */
    bool null_ok;             /* `null` may be written */
    bool integral;            /* SM_T_NUMS, SM_T_ANY: whole numbers only */
    bool map_ok;              /* SM_T_ANY: a map may be written */
    bool whole_ok;            /* SM_T_STR: a whole number is its text, also without quotes */
    bool names_op;            /* SM_T_STR: the name of one of the pipeline's top-level ops */
    bool yes_ok;              /* yes and true, no and false are one, of a bool or of choices */
    bool hidden;              /* set by programs: in the JSON for workers, in no document */
    bool later; /* younger than digests that are kept: in the JSON only when it is not its default,
                   so that those stay, and workers from before it take what does not use it */
    const char *const *choices; /* SM_T_ENUM, SM_T_ANY: words, ended by NULL */
    const char *doc;            /* one line */
};

/* A value as it stands in a file or on a command line, before its type is known. */
struct sm_value {
    enum { SM_V_NULL, SM_V_BOOL, SM_V_INT, SM_V_NUM, SM_V_STR, SM_V_LIST, SM_V_MAP } kind;
    bool boolean;
    int64_t integer;
    double number; /* set for SM_V_INT too */
    const char *str;
    const struct sm_value *items; /* SM_V_LIST, SM_V_MAP */
    /* For SM_T_STRS and SM_T_ANY, which keep them: the items' texts; a map's keys and numbers. */
    const char *const *texts;
    const char *const *keys;
    const double *numbers;
    size_t n_items;
};

/* Puts a value into base + p->offset. Type, range, length and choice are checked; the error names
 * what was expected, the range or the nearest choice, and what stands there. Strings are kept, not
 * copied. SM_T_OPS is refused here. */
int sm_param_set(const struct sm_param *p, void *base, const struct sm_value *v,
                 struct sm_err *err);
/* Parses a scalar or a flat list `[a, b]` as YAML 1.2's core schema would and sets it. text is kept
 * for strings. */
int sm_param_set_text(const struct sm_param *p, void *base, const char *text, struct sm_err *err);
/* Fills every parameter that has a default; asserts that each default parses. */
void sm_param_defaults(const struct sm_param *params, size_t n, void *base);
/* Writes the value as JSON: numbers in the shortest form that reads back equal. */
void sm_param_json(const struct sm_param *p, const void *base, struct sm_buf *out);
/* Its type and range in words, for help: "number in [0, 1]", "whole number or list of 2", "one of
 * nearest, bilinear". */
void sm_param_type_text(const struct sm_param *p, struct sm_buf *out);
const struct sm_param *sm_param_find(const struct sm_param *params, size_t n, const char *name);
/* The nearest name by edit distance, or NULL when none is near (more than a third of it would have
 * to change). */
const char *sm_nearest(const char *name, const char *const *names, size_t n);
/* A scalar by YAML 1.2's core schema: null, bool, int, number, else string. */
struct sm_value sm_value_scalar(const char *text);

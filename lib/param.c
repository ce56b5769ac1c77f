/* Values from files and command lines, checked against their row of a table. Before it: a YAML node
 * or an argument as text. After it: the owner's struct. Every message about a wrong value is
 * written here, so that all of them read alike. */
#include "lib/param.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum {
    TEXT_BYTES_MAX = 600, /* of a type in words */
    LIST_TEXT_MAX = 512,  /* of a list given as text */
    NAME_BYTES_MAX = 64,  /* a longer name is near to nothing */
};

static int fail_value(const struct sm_param *p, const struct sm_value *v, const char *hint,
                      struct sm_err *err);
static int set_int(const struct sm_param *p, int64_t *out, const struct sm_value *v,
                   struct sm_err *err);
static int set_nums(const struct sm_param *p, struct sm_nums *out, const struct sm_value *v,
                    struct sm_err *err);
static int set_enum(const struct sm_param *p, int *out, const struct sm_value *v,
                    struct sm_err *err);
static int set_bool(const struct sm_param *p, bool *out, const struct sm_value *v,
                    struct sm_err *err);
static int set_str(const struct sm_param *p, const char **out, const struct sm_value *v,
                   struct sm_err *err);
static int set_num(const struct sm_param *p, double *out, const struct sm_value *v,
                   struct sm_err *err);
static int set_strs(const struct sm_param *p, struct sm_strs *out, const struct sm_value *v,
                    struct sm_err *err);
static int set_any(const struct sm_param *p, struct sm_any *out, const struct sm_value *v,
                   struct sm_err *err);
static bool has_range(const struct sm_param *p);

int sm_param_set(const struct sm_param *p, void *base, const struct sm_value *v,
                 struct sm_err *err) {
    void *at = (char *)base + p->offset;
    switch (p->type) {
    case SM_T_BOOL:
        return set_bool(p, at, v, err);
    case SM_T_INT:
        return set_int(p, at, v, err);
    case SM_T_NUM:
        return set_num(p, at, v, err);
    case SM_T_NUMS:
        return set_nums(p, at, v, err);
    case SM_T_ENUM:
        return set_enum(p, at, v, err);
    case SM_T_STR:
        return set_str(p, at, v, err);
    case SM_T_STRS:
        return set_strs(p, at, v, err);
    case SM_T_ANY:
        return set_any(p, at, v, err);
    case SM_T_OPS:
    case SM_T_METHOD:
        break;
    }
    return sm_fail(err, SM_E_USAGE, "'%s' must be a list of ops", p->name);
}

/* Cuts "[a, b]" into values that point into buf. */
static int list_from_text(const struct sm_param *p, const char *text, char buf[LIST_TEXT_MAX],
                          struct sm_value items[SM_NUMS_MAX + 1], struct sm_value *list,
                          struct sm_err *err) {
    size_t n = strlen(text);
    if (n >= LIST_TEXT_MAX || n < 2 || text[n - 1] != ']')
        return sm_fail(err, SM_E_USAGE, "'%s' is not a list that ends: '%.40s' (hint: [a, b])",
                       p->name, text);
    memcpy(buf, text + 1, n - 2);
    buf[n - 2] = 0;
    *list = (struct sm_value){.kind = SM_V_LIST, .items = items};
    if (buf[strspn(buf, " ")] == 0) return 0;
    for (char *rest = buf, *item; rest != NULL;) {
        item = strsep(&rest, ",");
        item += strspn(item, " ");
        for (size_t end = strlen(item); end > 0 && item[end - 1] == ' ';)
            item[--end] = 0;
        if (list->n_items > SM_NUMS_MAX) break; /* one too many is enough to be refused */
        items[list->n_items++] = sm_value_scalar(item);
    }
    return 0;
}

int sm_param_set_text(const struct sm_param *p, void *base, const char *text, struct sm_err *err) {
    char buf[LIST_TEXT_MAX];
    struct sm_value items[SM_NUMS_MAX + 1], v;
    if (p->type == SM_T_NUMS && text[0] == '[') {
        if (list_from_text(p, text, buf, items, &v, err) != 0) return -1;
    } else {
        v = sm_value_scalar(text);
        bool verbatim = p->type == SM_T_STR || p->type == SM_T_ENUM;
        if (p->type == SM_T_STRS && strcmp(text, "[]") == 0)
            v = (struct sm_value){.kind = SM_V_LIST};
        if (verbatim && !(v.kind == SM_V_NULL && p->null_ok))
            v = (struct sm_value){.kind = SM_V_STR, .str = text};
    }
    return sm_param_set(p, base, &v, err);
}

void sm_param_defaults(const struct sm_param *params, size_t n, void *base) {
    for (size_t i = 0; i < n; i++) {
        if (params[i].dflt == NULL || params[i].type == SM_T_OPS || params[i].type == SM_T_METHOD)
            continue;
        struct sm_err err;
        int rc = sm_param_set_text(&params[i], base, params[i].dflt, &err);
        assert(rc == 0 && "a default of a table does not parse");
        (void)rc;
    }
}

const struct sm_param *sm_param_find(const struct sm_param *params, size_t n, const char *name) {
    for (size_t i = 0; i < n; i++)
        if (strcmp(params[i].name, name) == 0) return &params[i];
    return NULL;
}

/* --- one type each ------------------------------------------------------------------------- */

static int set_bool(const struct sm_param *p, bool *out, const struct sm_value *v,
                    struct sm_err *err) {
    static const struct {
        const char *word, *hint;
    } others[] = {{"yes", "write true"}, {"on", "write true"},  {"y", "write true"},
                  {"1", "write true"},   {"no", "write false"}, {"off", "write false"},
                  {"n", "write false"},  {"0", "write false"}};
    if (v->kind == SM_V_BOOL) {
        *out = v->boolean;
        return 0;
    }
    if (p->yes_ok && v->str != NULL &&
        (strcasecmp(v->str, "yes") == 0 || strcasecmp(v->str, "no") == 0)) {
        *out = strcasecmp(v->str, "yes") == 0;
        return 0;
    }
    for (size_t i = 0; v->str != NULL && i < sizeof others / sizeof *others; i++)
        if (strcasecmp(v->str, others[i].word) == 0) return fail_value(p, v, others[i].hint, err);
    return fail_value(p, v, NULL, err);
}

static bool in_range(const struct sm_param *p, double x) {
    return !has_range(p) || (x >= p->min && x <= p->max);
}

/* The hint for 224.0 where a whole number is wanted. */
static int fail_whole(const struct sm_param *p, const struct sm_value *v, struct sm_err *err) {
    char hint[80];
    /* a limit at the end of the type is not in the type's text: see range_text */
    if (p->type == SM_T_INT && v->kind == SM_V_NUM && v->number >= 0x1p63 &&
        trunc(v->number) == v->number && (!has_range(p) || p->max >= 0x1p63)) {
        snprintf(hint, sizeof hint, "the largest is %" PRId64, INT64_MAX);
        return fail_value(p, v, hint, err);
    }
    if (v->kind != SM_V_NUM || trunc(v->number) != v->number || fabs(v->number) > 1e15)
        return fail_value(p, v, NULL, err);
    snprintf(hint, sizeof hint, "write %.0f", v->number);
    return fail_value(p, v, hint, err);
}

static int set_int(const struct sm_param *p, int64_t *out, const struct sm_value *v,
                   struct sm_err *err) {
    if (v->kind != SM_V_INT) return fail_whole(p, v, err);
    if (!in_range(p, (double)v->integer)) return fail_value(p, v, NULL, err);
    *out = v->integer;
    return 0;
}

/* A finite number within the range, for NUM and for each of NUMS. */
static bool number_ok(const struct sm_param *p, const struct sm_value *v) {
    if (v->kind != SM_V_INT && (v->kind != SM_V_NUM || p->integral)) return false;
    return isfinite(v->number) && in_range(p, v->number);
}

static int set_num(const struct sm_param *p, double *out, const struct sm_value *v,
                   struct sm_err *err) {
    if (!number_ok(p, v)) return fail_value(p, v, NULL, err);
    *out = v->number + 0.0; /* -0 becomes 0: one number, one digest */
    return 0;
}

static int set_nums(const struct sm_param *p, struct sm_nums *out, const struct sm_value *v,
                    struct sm_err *err) {
    struct sm_nums nums = {0};
    if (v->kind == SM_V_NULL && p->null_ok) {
        *out = nums;
        return 0;
    }
    nums.scalar = v->kind != SM_V_LIST;
    size_t n = nums.scalar ? 1 : v->n_items;
    const struct sm_value *items = nums.scalar ? v : v->items;
    assert(p->count_max <= SM_NUMS_MAX);
    if (!nums.scalar && (n < (size_t)p->count_min || n > (size_t)p->count_max || n == 0))
        return fail_value(p, v, NULL, err);
    for (size_t i = 0; i < n; i++) {
        if (!number_ok(p, &items[i]))
            return p->integral ? fail_whole(p, &items[i], err)
                               : fail_value(p, &items[i], NULL, err);
        nums.v[i] = items[i].number + 0.0;
    }
    nums.count = (int)n;
    *out = nums;
    return 0;
}

static int set_enum(const struct sm_param *p, int *out, const struct sm_value *v,
                    struct sm_err *err) {
    /* a word such as `null` or `1` may be a choice, so the text counts and not the kind */
    const char *word = v->kind == SM_V_LIST ? NULL : v->str;
    if (p->yes_ok && v->kind == SM_V_BOOL) word = v->boolean ? "yes" : "no";
    size_t n = 0;
    for (; p->choices[n] != NULL; n++) {
        if (word != NULL && strcmp(word, p->choices[n]) == 0) {
            *out = (int)n;
            return 0;
        }
    }
    const char *near = word != NULL ? sm_nearest(word, p->choices, n) : NULL;
    if (near == NULL) return fail_value(p, v, NULL, err);
    char hint[128];
    snprintf(hint, sizeof hint, "did you mean '%s'?", near);
    return fail_value(p, v, hint, err);
}

static int set_str(const struct sm_param *p, const char **out, const struct sm_value *v,
                   struct sm_err *err) {
    bool whole = v->kind == SM_V_INT && p->whole_ok && v->str != NULL;
    bool text = whole || (v->kind == SM_V_STR && v->str[0] != 0);
    if (text || (v->kind == SM_V_NULL && p->null_ok)) {
        *out = text ? v->str : NULL;
        return 0;
    }
    char hint[80];
    if (v->kind == SM_V_LIST || v->str == NULL || strlen(v->str) > 40 || v->str[0] == 0)
        return fail_value(p, v, NULL, err);
    snprintf(hint, sizeof hint, "in quotes it is text: \"%s\"", v->str);
    return fail_value(p, v, hint, err);
}

static int set_strs(const struct sm_param *p, struct sm_strs *out, const struct sm_value *v,
                    struct sm_err *err) {
    static const char *const none[] = {NULL};
    bool list = v->kind == SM_V_LIST && (v->n_items == 0 || v->texts != NULL);
    if (!list && !(v->kind == SM_V_NULL && p->null_ok)) return fail_value(p, v, NULL, err);
    for (size_t i = 0; list && i < v->n_items; i++)
        if (v->items[i].kind == SM_V_LIST || v->items[i].kind == SM_V_NULL)
            return fail_value(p, v, "a list of words", err);
    *out = (struct sm_strs){0};
    if (list) *out = (struct sm_strs){v->n_items, v->n_items > 0 ? v->texts : none};
    return 0;
}

static bool any_number_fits(const struct sm_param *p, double x) {
    return in_range(p, x) && (!p->integral || trunc(x) == x);
}

static int set_any(const struct sm_param *p, struct sm_any *out, const struct sm_value *v,
                   struct sm_err *err) {
    *out = (struct sm_any){0};
    if (v->kind == SM_V_NULL && p->null_ok) return 0;
    if (v->kind == SM_V_MAP && p->map_ok && v->numbers != NULL) {
        for (size_t i = 0; i < v->n_items; i++)
            if (!any_number_fits(p, v->numbers[i])) {
                struct sm_param one = *p;
                one.name = v->keys[i];
                one.map_ok = false;
                return fail_value(&one, &v->items[i], NULL, err);
            }
        *out = (struct sm_any){
            .kind = SM_ANY_MAP, .count = v->n_items, .names = v->keys, .values = v->numbers};
        return 0;
    }
    if (v->kind == SM_V_INT || v->kind == SM_V_NUM) {
        *out = (struct sm_any){
            .kind = SM_ANY_NUMBER, .number = v->number, .fraction = v->kind == SM_V_NUM};
        return any_number_fits(p, v->number) ? 0 : fail_value(p, v, NULL, err);
    }
    if (v->kind != SM_V_STR) return fail_value(p, v, NULL, err);
    *out = (struct sm_any){.kind = SM_ANY_WORD, .word = v->str};
    size_t n = 0;
    for (; p->choices != NULL && p->choices[n] != NULL; n++)
        if (strcmp(p->choices[n], v->str) == 0) return 0;
    if (p->choices == NULL) return 0;
    const char *near = sm_nearest(v->str, p->choices, n);
    char hint[128];
    snprintf(hint, sizeof hint, "did you mean '%s'?", near != NULL ? near : "");
    return fail_value(p, v, near != NULL ? hint : NULL, err);
}

/* --- words ---------------------------------------------------------------------------------- */

static void value_text(const struct sm_value *v, struct sm_buf *out) {
    switch (v->kind) {
    case SM_V_LIST:
        sm_buf_printf(out, "a list of %zu", v->n_items);
        break;
    case SM_V_MAP:
        sm_buf_printf(out, "a map of %zu", v->n_items);
        break;
    case SM_V_NULL:
        sm_buf_text(out, v->str != NULL && v->str[0] ? v->str : "null");
        break;
    case SM_V_BOOL:
        sm_buf_text(out, v->boolean ? "true" : "false");
        break;
    case SM_V_INT:
    case SM_V_NUM:
        sm_buf_printf(out, "%.40s", v->str != NULL ? v->str : "a number");
        break;
    case SM_V_STR:
        sm_buf_printf(out, "'%.40s'", v->str);
        break;
    }
}

static int fail_value(const struct sm_param *p, const struct sm_value *v, const char *hint,
                      struct sm_err *err) {
    struct sm_buf type, value;
    sm_buf_init(&type, TEXT_BYTES_MAX);
    sm_buf_init(&value, TEXT_BYTES_MAX);
    sm_param_type_text(p, &type);
    value_text(v, &value);
    const char *words = type.data != NULL ? type.data : "something else";
    bool article = strchr("nwl", words[0]) != NULL && strncmp(words, "null", 4) != 0;
    sm_fail(err, SM_E_USAGE, "'%s' must be %s%s, not %s%s%s%s", p->name, article ? "a " : "", words,
            value.data != NULL ? value.data : "that", hint ? " (hint: " : "", hint ? hint : "",
            hint ? ")" : "");
    sm_buf_release(&type);
    sm_buf_release(&value);
    return -1;
}

static bool has_range(const struct sm_param *p) {
    return p->min != 0 || p->max != 0;
}

static void number_text(double x, struct sm_buf *out) {
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    /* 1e+02 is no shorter than 100 for a reader */
    if (fabs(x) < 1e15 && trunc(x) == x) snprintf(text, sizeof text, "%.0f", x);
    sm_buf_text(out, text);
}

static void range_text(const struct sm_param *p, struct sm_buf *out) {
    const double open_end = 9e15; /* beyond it a limit only says that the type ends there */
    if (!has_range(p)) return;
    bool low = p->min > -open_end, high = p->max < open_end;
    if (low && high) {
        sm_buf_text(out, " in [");
        number_text(p->min, out);
        sm_buf_text(out, ", ");
        number_text(p->max, out);
        sm_buf_text(out, "]");
    } else if (low || high) {
        sm_buf_text(out, low ? " of at least " : " of at most ");
        number_text(low ? p->min : p->max, out);
    }
}

static void nums_text(const struct sm_param *p, struct sm_buf *out) {
    sm_buf_text(out, p->integral ? "whole number" : "number");
    range_text(p, out);
    if (p->count_max > 0) {
        sm_buf_text(out, p->null_ok ? ", list of " : " or list of ");
        if (p->count_min == p->count_max)
            sm_buf_printf(out, "%d", p->count_max);
        else
            sm_buf_printf(out, "%d to %d", p->count_min, p->count_max);
    }
    if (p->null_ok) sm_buf_text(out, " or null");
}

/* "one of auto, all, number in [0, 1], map of numbers or null" */
static void any_text(const struct sm_param *p, struct sm_buf *out) {
    const bool words = p->choices == NULL || p->choices[0] != NULL;
    if (p->choices == NULL) sm_buf_text(out, "text");
    for (size_t i = 0; p->choices != NULL && p->choices[i] != NULL; i++)
        sm_buf_printf(out, "%s%s", i ? ", " : "one of ", p->choices[i]);
    if (words) sm_buf_text(out, ", ");
    sm_buf_text(out, p->integral ? "whole number" : "number");
    range_text(p, out);
    if (p->map_ok) sm_buf_text(out, " or map of such numbers");
    if (p->null_ok) sm_buf_text(out, " or null");
}

void sm_param_type_text(const struct sm_param *p, struct sm_buf *out) {
    switch (p->type) {
    case SM_T_BOOL:
        sm_buf_text(out, "true or false");
        break;
    case SM_T_INT:
    case SM_T_NUM:
        if (has_range(p) && p->min == p->max) {
            number_text(p->min, out);
            break;
        }
        sm_buf_text(out, p->type == SM_T_INT ? "whole number" : "number");
        range_text(p, out);
        break;
    case SM_T_NUMS:
        nums_text(p, out);
        break;
    case SM_T_ENUM:
        sm_buf_text(out, "one of ");
        for (size_t i = 0; p->choices[i] != NULL; i++)
            sm_buf_printf(out, "%s%s", i ? ", " : "", p->choices[i]);
        break;
    case SM_T_STR:
        sm_buf_text(out, p->null_ok ? "text or null" : "text");
        break;
    case SM_T_STRS:
        sm_buf_text(out, p->null_ok ? "list of words or null" : "list of words");
        break;
    case SM_T_ANY:
        any_text(p, out);
        break;
    case SM_T_OPS:
        sm_buf_text(out, "list of ops");
        break;
    case SM_T_METHOD:
        sm_buf_text(out, "a method with its parameters or null");
        break;
    }
}

static void strs_json(const struct sm_strs *s, struct sm_buf *out) {
    if (s->v == NULL) {
        sm_buf_text(out, "null");
        return;
    }
    for (size_t i = 0; i < s->count; i++) {
        sm_buf_text(out, i ? "," : "[");
        sm_buf_json(out, s->v[i]);
    }
    sm_buf_text(out, s->count == 0 ? "[]" : "]");
}

static void any_json(const struct sm_any *a, struct sm_buf *out) {
    if (a->kind == SM_ANY_NULL)
        sm_buf_text(out, "null");
    else if (a->kind == SM_ANY_WORD)
        sm_buf_json(out, a->word);
    else if (a->kind == SM_ANY_NUMBER)
        number_text(a->number, out);
    else {
        for (size_t i = 0; i < a->count; i++) {
            sm_buf_text(out, i ? "," : "{");
            sm_buf_json(out, a->names[i]);
            sm_buf_text(out, ":");
            number_text(a->values[i], out);
        }
        sm_buf_text(out, a->count == 0 ? "{}" : "}");
    }
}

void sm_param_json(const struct sm_param *p, const void *base, struct sm_buf *out) {
    const void *at = (const char *)base + p->offset;
    switch (p->type) {
    case SM_T_BOOL:
        sm_buf_text(out, *(const bool *)at ? "true" : "false");
        break;
    case SM_T_INT:
        sm_buf_printf(out, "%" PRId64, *(const int64_t *)at);
        break;
    case SM_T_NUM:
        number_text(*(const double *)at, out);
        break;
    case SM_T_NUMS: {
        const struct sm_nums *nums = at;
        if (nums->count == 0) {
            sm_buf_text(out, "null");
            break;
        }
        if (!nums->scalar) sm_buf_text(out, "[");
        for (int i = 0; i < nums->count; i++) {
            if (i) sm_buf_text(out, ",");
            number_text(nums->v[i], out);
        }
        if (!nums->scalar) sm_buf_text(out, "]");
        break;
    }
    case SM_T_ENUM:
        sm_buf_json(out, p->choices[*(const int *)at]);
        break;
    case SM_T_STR: {
        const char *s = *(const char *const *)at;
        if (s == NULL)
            sm_buf_text(out, "null");
        else
            sm_buf_json(out, s);
        break;
    }
    case SM_T_STRS:
        strs_json(at, out);
        break;
    case SM_T_ANY:
        any_json(at, out);
        break;
    case SM_T_OPS:
    case SM_T_METHOD:
        assert(!"a list of ops is written by the pipeline");
    }
}

/* --- YAML 1.2's core schema ----------------------------------------------------------------- */

static bool is_one_of(const char *text, const char *const *words) {
    for (; *words != NULL; words++)
        if (strcmp(text, *words) == 0) return true;
    return false;
}

static bool scalar_int(const char *text, struct sm_value *v) {
    static const char digits[] = "0123456789abcdefABCDEF";
    const char *s = text + (*text == '-' || *text == '+');
    int base = 10, valid = 10;
    if (text[0] == '0' && (text[1] == 'o' || text[1] == 'x')) {
        base = text[1] == 'o' ? 8 : 16;
        valid = text[1] == 'o' ? 8 : 22;
        s = text + 2;
    }
    if (*s == 0) return false;
    for (const char *c = s; *c; c++)
        if (memchr(digits, *c, (size_t)valid) == NULL) return false;
    errno = 0;
    v->integer = strtoll(base == 10 ? text : s, NULL, base);
    v->kind = errno == 0 ? SM_V_INT : SM_V_NUM; /* beyond 64 bits it is only a number */
    v->number = base == 10 ? strtod(text, NULL) : errno == 0 ? (double)v->integer : INFINITY;
    return true;
}

static bool scalar_float(const char *text, struct sm_value *v) {
    static const char *const infinite[] = {".inf", ".Inf", ".INF", NULL};
    static const char *const nan_words[] = {".nan", ".NaN", ".NAN", NULL};
    const char *s = text + (*text == '-' || *text == '+');
    v->kind = SM_V_NUM;
    if (is_one_of(s, infinite)) {
        v->number = *text == '-' ? -INFINITY : INFINITY;
        return true;
    }
    if (is_one_of(text, nan_words)) {
        v->number = NAN;
        return true;
    }
    size_t whole = strspn(s, "0123456789");
    s += whole;
    if (*s == '.') {
        size_t part = strspn(++s, "0123456789");
        if (whole + part == 0) return false;
        s += part;
    } else if (whole == 0) {
        return false;
    }
    if (*s == 'e' || *s == 'E') {
        s++;
        s += *s == '-' || *s == '+';
        if (strspn(s, "0123456789") == 0) return false;
        s += strspn(s, "0123456789");
    }
    if (*s != 0) return false;
    v->number = strtod(text, NULL);
    return true;
}

struct sm_value sm_value_scalar(const char *text) {
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    struct sm_value v = {.kind = SM_V_NULL, .str = text};
    if (is_one_of(text, nulls)) return v;
    if (is_one_of(text, trues) || is_one_of(text, falses)) {
        v.kind = SM_V_BOOL;
        v.boolean = text[0] == 't' || text[0] == 'T';
        return v;
    }
    if (scalar_int(text, &v) || scalar_float(text, &v)) return v;
    return (struct sm_value){.kind = SM_V_STR, .str = text};
}

/* --- the nearest name ------------------------------------------------------------------------ */

static int fold(char c) {
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

/* Edit distance with swaps of neighbours, letters' case ignored. Both at most NAME_BYTES_MAX. */
static int distance(const char *a, size_t n, const char *b, size_t m) {
    int d[3][NAME_BYTES_MAX + 1];
    for (size_t j = 0; j <= m; j++)
        d[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *row = d[i % 3], *up = d[(i + 2) % 3], *up2 = d[(i + 1) % 3];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int best = up[j - 1] + (fold(a[i - 1]) != fold(b[j - 1]));
            if (up[j] + 1 < best) best = up[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            bool swap = i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) &&
                        fold(a[i - 2]) == fold(b[j - 1]);
            if (swap && up2[j - 2] + 1 < best) best = up2[j - 2] + 1;
            row[j] = best;
        }
    }
    return d[n % 3][m];
}

const char *sm_nearest(const char *name, const char *const *names, size_t n) {
    size_t length = strlen(name);
    const char *best = NULL;
    int best_distance = 0;
    if (length > NAME_BYTES_MAX) return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t other = strlen(names[i]);
        if (other > NAME_BYTES_MAX) continue;
        int d = distance(name, length, names[i], other);
        size_t longer = length > other ? length : other;
        if ((size_t)d * 3 > longer || (best != NULL && d >= best_distance)) continue;
        best = names[i];
        best_distance = d;
    }
    return best;
}

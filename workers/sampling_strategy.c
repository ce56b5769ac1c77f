/* Targets of classes, as imbalanced-learn computes them. Classes without samples do not count: it
 * never sees them. Among classes of equal size the first is the minority or majority. */
#include "workers/sampling_strategy.h"

#include "lib/limits.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

const char *const sm_strategy_over_words[] = {"auto",         "minority", "not minority",
                                              "not majority", "all",      NULL};
const char *const sm_strategy_under_words[] = {"auto",         "majority", "not minority",
                                               "not majority", "all",      NULL};

/* The smallest and the largest class. */
struct extremes {
    uint32_t minority, majority;
    uint64_t least, most;
};

static int extremes_find(const struct sm_rebalance *r, struct extremes *e, uint32_t *classes,
                         struct sm_err *err) {
    *e = (struct extremes){.least = UINT64_MAX};
    *classes = 0;
    for (uint32_t c = 0; c < r->classes; c++) {
        const uint64_t n = r->of[c].present;
        if (n == 0) continue;
        ++*classes;
        if (n < e->least) e->least = n, e->minority = c;
        if (n > e->most) e->most = n, e->majority = c;
    }
    if (*classes > 1) return 0;
    return sm_fail(err, SM_E_PIPELINE,
                   "%" PRIu32 " class has samples, and there is nothing to balance with "
                   "fewer than 2 (hint: source.label)",
                   *classes);
}

int sm_strategy_check(const struct sm_any *s, struct sm_err *err) {
    if (s->kind == SM_ANY_NUMBER && !(s->number > 0 && s->number <= 1))
        return sm_fail(err, SM_E_PIPELINE,
                       "'sampling_strategy' as a number is a ratio above 0 and at most 1, not %g "
                       "(hint: counts are a map, {name: count})",
                       s->number);
    for (size_t i = 0; s->kind == SM_ANY_MAP && i < s->count; i++) {
        const double n = s->values[i];
        if (n >= 0 && n <= (double)SM_REBALANCE_TOTAL_MAX && trunc(n) == n) continue;
        return sm_fail(err, SM_E_PIPELINE,
                       "'sampling_strategy' of class '%.60s' is a count of samples, not %g",
                       s->names[i], n);
    }
    return 0;
}

static long class_find(const struct sm_method_data *data, const char *name) {
    for (uint32_t c = 0; c < data->n; c++)
        if (strcmp(data->classes[c], name) == 0) return (long)c;
    return -1;
}

int sm_strategy_names(const struct sm_any *map, const char *what, const struct sm_method_data *data,
                      const struct sm_rebalance *r, struct sm_err *err) {
    for (size_t i = 0; map->kind == SM_ANY_MAP && i < map->count; i++) {
        long c = class_find(data, map->names[i]);
        if (c >= 0 && r->of[c].present > 0) continue;
        const char *near = c < 0 ? sm_nearest(map->names[i], data->classes, data->n) : NULL;
        return sm_fail(err, SM_E_PIPELINE,
                       "'%s' names class '%.60s', of which the data has 0%s%s%s", what,
                       map->names[i], near != NULL ? " (hint: did you mean '" : "",
                       near != NULL ? near : "", near != NULL ? "'?)" : "");
    }
    return 0;
}

/* Whether a word targets a class. auto: all but the one that gives the size. */
static bool targets(const char *word, const char *what_auto_is, uint32_t c,
                    const struct extremes *e) {
    if (strcmp(word, "auto") == 0) word = what_auto_is;
    if (strcmp(word, "minority") == 0) return c == e->minority;
    if (strcmp(word, "majority") == 0) return c == e->majority;
    if (strcmp(word, "not minority") == 0) return c != e->minority;
    if (strcmp(word, "not majority") == 0) return c != e->majority;
    assert(strcmp(word, "all") == 0);
    return true;
}

/* --- over ------------------------------------------------------------------------------------- */

static int over_ratio(double ratio, const struct sm_method_data *data, struct sm_rebalance *r,
                      const struct extremes *e, struct sm_err *err) {
    for (uint32_t c = 0; c < r->classes; c++) {
        struct sm_rebalance_class *of = &r->of[c];
        if (of->present == 0 || c == e->majority) continue;
        const double more = trunc((double)e->most * ratio - (double)of->present);
        if (more <= 0)
            return sm_fail(err, SM_E_PIPELINE,
                           "'sampling_strategy' %g of the %" PRIu64 " samples of class '%.60s' is "
                           "not more than the %" PRIu64 " of class '%.60s' (hint: a larger ratio)",
                           ratio, e->most, data->classes[e->majority], of->present,
                           data->classes[c]);
        of->drawn = of->present + (uint64_t)more;
    }
    return 0;
}

static int over_map(const struct sm_any *s, const struct sm_method_data *data,
                    struct sm_rebalance *r, struct sm_err *err) {
    if (sm_strategy_names(s, "sampling_strategy", data, r, err) != 0) return -1;
    for (size_t i = 0; i < s->count; i++) {
        struct sm_rebalance_class *of = &r->of[class_find(data, s->names[i])];
        of->drawn = (uint64_t)s->values[i];
        if (of->drawn < of->present)
            return sm_fail(err, SM_E_PIPELINE,
                           "class '%.60s' has %" PRIu64 " samples, and 'sampling_strategy' asks "
                           "for %" PRIu64 "; over-sampling only adds (hint: RandomUnderSampler)",
                           s->names[i], of->present, of->drawn);
    }
    return 0;
}

static int ratio_is_binary(double ratio, uint32_t classes, struct sm_err *err) {
    if (classes == 2) return 0;
    return sm_fail(err, SM_E_PIPELINE,
                   "'sampling_strategy' %g is a ratio of two classes, and the data has %" PRIu32
                   " (hint: a map of targets, {name: count})",
                   ratio, classes);
}

int sm_strategy_over(const struct sm_any *s, const struct sm_method_data *data,
                     struct sm_rebalance *r, struct sm_err *err) {
    struct extremes e;
    uint32_t classes;
    if (extremes_find(r, &e, &classes, err) != 0) return -1;
    for (uint32_t c = 0; c < r->classes; c++) {
        struct sm_rebalance_class *of = &r->of[c];
        of->drawn = of->present;
        if (s->kind == SM_ANY_WORD && of->present > 0 && targets(s->word, "not majority", c, &e))
            of->drawn = e.most;
    }
    if (s->kind == SM_ANY_MAP) return over_map(s, data, r, err);
    if (s->kind != SM_ANY_NUMBER) return 0;
    if (ratio_is_binary(s->number, classes, err) != 0) return -1;
    return over_ratio(s->number, data, r, &e, err);
}

/* --- under ------------------------------------------------------------------------------------ */

static int under_ratio(double ratio, const struct sm_method_data *data, struct sm_rebalance *r,
                       const struct extremes *e, struct sm_err *err) {
    for (uint32_t c = 0; c < r->classes; c++) {
        struct sm_rebalance_class *of = &r->of[c];
        if (of->present == 0 || c == e->minority) continue;
        const double left = trunc((double)e->least / ratio);
        if (left > (double)of->present)
            return sm_fail(
                err, SM_E_PIPELINE,
                "'sampling_strategy' %g makes %.0f samples of class '%.60s' out of the "
                "%" PRIu64 " of class '%.60s', and it has %" PRIu64 " (hint: a larger ratio)",
                ratio, left, data->classes[c], e->least, data->classes[e->minority], of->present);
        of->drawn = (uint64_t)left;
    }
    return 0;
}

static int under_map(const struct sm_any *s, const struct sm_method_data *data,
                     struct sm_rebalance *r, struct sm_err *err) {
    if (sm_strategy_names(s, "sampling_strategy", data, r, err) != 0) return -1;
    for (size_t i = 0; i < s->count; i++) {
        struct sm_rebalance_class *of = &r->of[class_find(data, s->names[i])];
        of->drawn = (uint64_t)s->values[i];
        if (of->drawn > of->present)
            return sm_fail(err, SM_E_PIPELINE,
                           "class '%.60s' has %" PRIu64 " samples, and 'sampling_strategy' asks "
                           "for %" PRIu64 "; under-sampling only takes away (hint: "
                           "RandomOverSampler)",
                           s->names[i], of->present, of->drawn);
    }
    return 0;
}

int sm_strategy_under(const struct sm_any *s, const struct sm_method_data *data,
                      struct sm_rebalance *r, struct sm_err *err) {
    struct extremes e;
    uint32_t classes;
    if (extremes_find(r, &e, &classes, err) != 0) return -1;
    for (uint32_t c = 0; c < r->classes; c++) {
        struct sm_rebalance_class *of = &r->of[c];
        of->drawn = of->present;
        if (s->kind == SM_ANY_WORD && of->present > 0 && targets(s->word, "not minority", c, &e))
            of->drawn = e.least;
    }
    if (s->kind == SM_ANY_MAP) return under_map(s, data, r, err);
    if (s->kind != SM_ANY_NUMBER) return 0;
    if (ratio_is_binary(s->number, classes, err) != 0) return -1;
    return under_ratio(s->number, data, r, &e, err);
}

/* --- SMOTE ------------------------------------------------------------------------------------ */

const struct sm_param sm_smote_params[SM_SMOTE_PARAMS] = {
    SM_STRATEGY_PARAM(struct sm_smote_params, sm_strategy_over_words,
                      "which classes grow to the size of the largest; of two classes, the ratio "
                      "that they get; or a count for each class"),
    {.name = "k_neighbors",
     .type = SM_T_INT,
     .offset = offsetof(struct sm_smote_params, k_neighbors),
     .dflt = "5",
     .min = 1,
     .max = SM_MAX_NEIGHBORS,
     .doc = "nearest rows of its class, towards one of which a new row lies"},
    {.name = "after",
     .type = SM_T_STR,
     .offset = offsetof(struct sm_smote_params, after),
     .dflt = "null",
     .null_ok = true,
     .names_op = true,
     .later = true,
     .doc = "op of 'ops' behind which neighbours are searched and rows made, the last of that "
            "name; null: among rows of the source"},
};

int sm_smote_check(const void *p, struct sm_err *err) {
    return sm_strategy_check(&((const struct sm_smote_params *)p)->sampling_strategy, err);
}

uint32_t sm_smote_neighbours(const void *p) {
    return (uint32_t)((const struct sm_smote_params *)p)->k_neighbors;
}

int sm_smote_plan(const void *p_, const char *name, const struct sm_method_data *data,
                  struct sm_rebalance *r, struct sm_err *err) {
    const struct sm_smote_params *p = p_;
    const uint64_t needed = (uint64_t)p->k_neighbors + 1;
    if (data->schema == NULL)
        return sm_fail(err, SM_E_PIPELINE,
                       "%s makes rows between rows, and the source holds images (hint: "
                       "RandomOverSampler with augment_minority)",
                       name);
    r->method = SM_REBALANCE_SMOTE;
    if (sm_strategy_over(&p->sampling_strategy, data, r, err) != 0) return -1;
    for (uint32_t c = 0; c < r->classes; c++) {
        const struct sm_rebalance_class *of = &r->of[c];
        if (of->drawn == of->present || of->present >= needed) continue;
        if (of->present < 2)
            return sm_fail(err, SM_E_PIPELINE,
                           "class '%.60s' has %s, and %s makes rows between two (hint: "
                           "RandomOverSampler, or leave the class out of sampling_strategy)",
                           data->classes[c], of->present == 1 ? "a single row" : "no row", name);
        return sm_fail(err, SM_E_PIPELINE,
                       "class '%.60s' has %" PRIu64 " rows, and %" PRId64 " neighbours of each "
                       "need %" PRIu64 " (hint: %s: {k_neighbors: %" PRIu64 "})",
                       data->classes[c], of->present, p->k_neighbors, needed, name,
                       of->present - 1);
    }
    return 0;
}

/* Rebalancing: the counts of every method are exact in each epoch, samples come equally often, and
 * what the data forbids is refused by name. */
#include "lib/rebalance.h"
#include "workers/ops/op.h"
#include "workers/rebalance/method.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { CLASSES_MAX = 64 };

struct planned {
    struct sm_pipeline p;
    struct sm_rebalance r;
    struct sm_schema schema;
    struct sm_column columns[2];
    struct sm_err err;
    int rc;
};

/* What a method makes of classes a, b, c … with these numbers of samples. kinds: of two columns of
 * a table ("nn", "nc"), NULL: images. */
static void plan_as(struct planned *x, const char *yaml, const char *kinds, int batch_size,
                    const uint64_t *present, uint32_t n) {
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"};
    char text[600];
    snprintf(text, sizeof text,
             "version: 1\nsource: {path: x%s}\nrebalance:\n  %s\noutput: {batch_size: %d}\n",
             kinds != NULL ? ", format: csv, label: y" : "", yaml, batch_size);
    memset(x, 0, sizeof *x);
    x->rc = sm_pipeline_parse(&x->p, "test.yaml", text, strlen(text), sm_op_table(), &x->err);
    if (x->rc != 0) return;
    for (size_t i = 0; kinds != NULL && i < 2; i++)
        x->columns[i] =
            (struct sm_column){.name = i ? "second" : "first",
                               .kind = kinds[i] == 'c' ? SM_COLUMN_CATEGORY : SM_COLUMN_NUMBER};
    x->schema = (struct sm_schema){.columns = x->columns, .n = 2};
    x->r = (struct sm_rebalance){.seed = 7, .classes = n, .of = calloc(n, sizeof *x->r.of)};
    for (uint32_t c = 0; c < n; c++)
        x->r.of[c].present = present[c], x->r.of[c].weight = 1;
    const struct sm_method_data data = {.classes = names,
                                        .n = n,
                                        .schema = kinds != NULL ? &x->schema : NULL,
                                        .batch_size = (uint64_t)batch_size};
    if (data.schema != NULL) x->rc = sm_method_columns(x->p.rebalance, data.schema, &x->err);
    if (x->rc == 0)
        x->rc = sm_method_of(x->p.rebalance)->plan(x->p.rebalance->params, &data, &x->r, &x->err);
    if (x->rc == 0 && x->r.method != SM_REBALANCE_ROWS) x->rc = sm_rebalance_lay(&x->r, &x->err);
}

static void planned_free(struct planned *x) {
    sm_rebalance_release(&x->r);
    sm_pipeline_release(&x->p);
}

static void expect_counts(const char *yaml, const uint64_t *present, const uint64_t *drawn,
                          uint32_t n) {
    struct planned x;
    plan_as(&x, yaml, NULL, 32, present, n);
    if (x.rc != 0) fail_msg("%s: %s", yaml, x.err.text);
    uint64_t total = 0;
    for (uint32_t c = 0; c < n; c++) {
        if (x.r.of[c].drawn != drawn[c])
            fail_msg("%s: class %" PRIu32 " is drawn %" PRIu64 " times, not %" PRIu64, yaml, c,
                     x.r.of[c].drawn, drawn[c]);
        total += drawn[c];
    }
    assert_int_equal(x.r.total, total);
    planned_free(&x);
}

static void expect_refused(const char *yaml, const char *kinds, const uint64_t *present, uint32_t n,
                           const char *says) {
    struct planned x;
    plan_as(&x, yaml, kinds, 32, present, n);
    if (x.rc == 0) fail_msg("%s is taken", yaml);
    if (strstr(x.err.text, says) == NULL) fail_msg("%s: '%s' lacks '%s'", yaml, x.err.text, says);
    assert_int_equal(x.err.code, SM_E_PIPELINE);
    planned_free(&x);
}

/* Every position of an epoch: counts by class as planned, samples equally often. times, when not
 * NULL, gets how often each sample comes, class after class. */
static void expect_even(const struct sm_rebalance *r, uint32_t epoch, uint32_t *times) {
    uint64_t all = 0, base[CLASSES_MAX + 1] = {0};
    for (uint32_t c = 0; c < r->classes; c++)
        base[c + 1] = all += r->of[c].present;
    uint32_t *own = calloc(all + 1, sizeof *own), *n = times != NULL ? times : own;
    uint64_t drawn[CLASSES_MAX] = {0};
    for (uint64_t v = 0; v < r->total; v++) {
        const struct sm_drawn d = sm_rebalance_at(r, epoch, v);
        assert_true(d.label < r->classes && d.k < r->of[d.label].present);
        assert_int_equal(d.added, d.copy > 0);
        drawn[d.label]++;
        n[base[d.label] + d.k]++;
    }
    for (uint32_t c = 0; c < r->classes; c++) {
        assert_int_equal(drawn[c], r->of[c].drawn);
        for (uint64_t k = 0; k < r->of[c].present; k++) {
            const uint64_t least = drawn[c] / r->of[c].present;
            assert_true(n[base[c] + k] == least || n[base[c] + k] == least + 1);
        }
    }
    free(own);
}

static void counts_are_exact_and_samples_come_equally_often_in_every_epoch(void **state) {
    (void)state;
    static const char *const methods[] = {
        "RandomOverSampler: {}",
        "RandomOverSampler: {sampling_strategy: {a: 1000, c: 77}}",
        "RandomUnderSampler: {}",
        "RandomUnderSampler: {sampling_strategy: {b: 0, d: 13}}",
        "WeightedSampler: {}",
        "WeightedSampler: {weights: {a: 3, b: 0.5}, num_samples: 777}",
        "RepeatFactor: {threshold: 0.3}",
        "ClassBalancedBatches: {n_classes: 3, n_samples: 4}",
        "ClassBalancedBatches: {n_classes: 4, n_samples: 3}",
        "ClassBalancedBatches: {n_classes: 2, n_samples: 6}",
    };
    const uint64_t present[] = {101, 57, 1, 30, 0};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        struct planned x;
        plan_as(&x, methods[i], NULL, 12, present, 5);
        if (x.rc != 0) fail_msg("%s: %s", methods[i], x.err.text);
        for (uint32_t epoch = 0; epoch < 3; epoch++)
            expect_even(&x.r, epoch, NULL);
        planned_free(&x);
    }
}

static void which_samples_come_once_more_differs_by_epoch(void **state) {
    (void)state;
    static const char *const methods[] = {"RandomOverSampler: {}", "RandomUnderSampler: {}"};
    const uint64_t present[] = {300, 200};
    for (size_t i = 0; i < 2; i++) {
        uint32_t times[3][500] = {{0}};
        struct planned x;
        plan_as(&x, methods[i], NULL, 12, present, 2);
        for (uint32_t e = 0; e < 3; e++)
            expect_even(&x.r, e, times[e]);
        assert_memory_not_equal(times[0], times[1], sizeof times[0]);
        assert_memory_not_equal(times[1], times[2], sizeof times[0]);
        planned_free(&x);
    }
}

static void a_copy_has_a_number_of_its_own(void **state) {
    (void)state;
    const uint64_t present[] = {90, 7};
    struct planned x;
    uint8_t seen[7][32] = {{0}};
    plan_as(&x, "RandomOverSampler: {}", NULL, 12, present, 2);
    for (uint64_t v = x.r.of[1].first; v < x.r.total; v++) {
        const struct sm_drawn d = sm_rebalance_at(&x.r, 3, v);
        assert_int_equal(seen[d.k][d.copy]++, 0);
    }
    planned_free(&x);
}

static void a_batch_holds_n_classes_with_m_samples_each(void **state) {
    (void)state;
    const uint64_t present[] = {10, 3, 0, 25, 8, 1, 40, 9};
    static const struct { int n, m; } cases[] = {{1, 5}, {2, 4}, {3, 3}, {4, 8}, {5, 2}, {7, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int n = cases[i].n, m = cases[i].m;
        char yaml[100];
        struct planned x;
        snprintf(yaml, sizeof yaml, "ClassBalancedBatches: {n_classes: %d, n_samples: %d}", n, m);
        plan_as(&x, yaml, NULL, n * m, present, 8);
        assert_int_equal(x.rc, 0);
        assert_true(x.r.total >= 96 && x.r.total % (uint64_t)(n * m) == 0);
        for (uint64_t b = 0; b < x.r.total; b += (uint64_t)(n * m)) {
            int of[8] = {0}, classes = 0;
            for (int k = 0; k < n * m; k++)
                of[sm_rebalance_at(&x.r, 1, b + (uint64_t)k).label]++;
            for (int c = 0; c < 8; c++) {
                assert_true(of[c] == 0 || of[c] == m);
                classes += of[c] > 0;
            }
            assert_int_equal(classes, n);
        }
        planned_free(&x);
    }
}

static void strategies_have_the_counts_of_imbalanced_learn(void **state) {
    (void)state;
    const uint64_t three[] = {50, 20, 120}, two[] = {900, 100}, ties[] = {30, 30, 80};
#define OVER(s) "RandomOverSampler: {sampling_strategy: " s "}"
#define UNDER(s) "RandomUnderSampler: {sampling_strategy: " s "}"
    expect_counts(OVER("auto"), three, (uint64_t[]){120, 120, 120}, 3);
    expect_counts(OVER("minority"), three, (uint64_t[]){50, 120, 120}, 3);
    expect_counts(OVER("minority"), ties, (uint64_t[]){80, 30, 80}, 3);
    expect_counts(OVER("not minority"), three, (uint64_t[]){120, 20, 120}, 3);
    expect_counts(OVER("not majority"), three, (uint64_t[]){120, 120, 120}, 3);
    expect_counts(OVER("all"), three, (uint64_t[]){120, 120, 120}, 3);
    expect_counts(OVER("0.5"), two, (uint64_t[]){900, 450}, 2);
    expect_counts(OVER("1"), two, (uint64_t[]){900, 900}, 2);
    expect_counts(OVER("{b: 300}"), three, (uint64_t[]){50, 300, 120}, 3);
    expect_counts(UNDER("auto"), three, (uint64_t[]){20, 20, 20}, 3);
    expect_counts(UNDER("majority"), three, (uint64_t[]){50, 20, 20}, 3);
    expect_counts(UNDER("not minority"), ties, (uint64_t[]){30, 30, 30}, 3);
    expect_counts(UNDER("not majority"), three, (uint64_t[]){20, 20, 120}, 3);
    expect_counts(UNDER("all"), three, (uint64_t[]){20, 20, 20}, 3);
    expect_counts(UNDER("0.3"), two, (uint64_t[]){333, 100}, 2);
    expect_counts(UNDER("{a: 0, c: 7}"), three, (uint64_t[]){0, 20, 7}, 3);
}

static void weights_and_repeat_factors_follow_their_formulas(void **state) {
    (void)state;
    const uint64_t three[] = {50, 20, 130};
    /* n / 3 each, what is left over to the first */
    expect_counts("WeightedSampler: {}", three, (uint64_t[]){67, 67, 66}, 3);
    /* 400 x (2 x 50, 20, 0 x 130) / 120 = 333.3, 66.7, 0 */
    expect_counts("WeightedSampler: {weights: {a: 2, c: 0}, num_samples: 400}", three,
                  (uint64_t[]){333, 67, 0}, 3);
    /* f = 0.25, 0.1, 0.65; t = 0.4: sqrt(1.6) x 50 = 63.2, 2 x 20 = 40 */
    expect_counts("RepeatFactor: {threshold: 0.4}", three, (uint64_t[]){63, 40, 130}, 3);
    expect_counts("RepeatFactor: {}", three, three, 3);
}

static void what_the_data_forbids_is_refused_with_class_and_count(void **state) {
    (void)state;
    const uint64_t three[] = {50, 20, 120}, two[] = {900, 100}, one[] = {5, 0}, few[] = {40, 4};
    expect_refused(OVER("{b: 19}"), NULL, three, 3, "class 'b' has 20 samples, and");
    expect_refused(UNDER("{c: 121}"), NULL, three, 3, "class 'c' has 120 samples, and");
    expect_refused(OVER("{x: 19}"), NULL, three, 3, "names class 'x', of which the data has 0");
    expect_refused(OVER("0.5"), NULL, three, 3, "the data has 3");
    expect_refused(OVER("0.1"), NULL, two, 2, "not more than the 100 of class 'b'");
    expect_refused(UNDER("0.01"), NULL, two, 2, "makes 10000 samples of class 'a'");
    expect_refused(OVER("1.5"), NULL, two, 2, "a ratio above 0 and at most 1, not 1.5");
    expect_refused(OVER("{b: 200.5}"), NULL, two, 2, "of class 'b' is a count of samples");
    expect_refused(OVER("{b: -1}"), NULL, two, 2, "of class 'b' is a count of samples");
    expect_refused(OVER("auto"), NULL, one, 2, "1 class has samples");
    expect_refused("WeightedSampler: {weights: {a: 0, b: 0}}", NULL, two, 2, "add up to 0");
    expect_refused("WeightedSampler: {weights: {zebra: 1}}", NULL, two, 2, "'zebra'");
    expect_refused("WeightedSampler: {weights: column}", NULL, two, 2, "column 'column'");
    expect_refused("ClassBalancedBatches: {n_classes: 4, n_samples: 8}", NULL, three, 3,
                   "'n_classes' is 4, and 3 classes have samples");
    expect_refused("ClassBalancedBatches: {n_classes: 3, n_samples: 8}", NULL, three, 3,
                   "output.batch_size is 32");
    expect_refused("SMOTE: {}", NULL, two, 2, "the source holds images");
    expect_refused("SMOTE: {}", "nn", few, 2, "class 'b' has 4 rows, and 5 neighbours of each");
    expect_refused("SMOTE: {}", "nc", two, 2, "1 column holds categories, 'second' first");
    expect_refused("SMOTENC: {}", "nn", two, 2, "all 2 columns hold numbers");
    expect_refused("SMOTENC: {}", "cc", two, 2, "all 2 columns hold categories");
    expect_refused("RandomOverSampler: {shrinkage: 1}", NULL, two, 2, "the source holds images");
    expect_refused("RandomOverSampler: {shrinkage: 1}", "nc", two, 2, "column 'second'");
    expect_refused("RandomOverSampler: {shrinkage: {a: 1}}", "nn", two, 2,
                   "no factor for class 'b', to which 800");
    expect_refused(UNDER("{a: 0, b: 0}"), NULL, two, 2, "no sample at all");
    expect_refused(OVER("{b: 1000000000000000}"), NULL, two, 2, "is a count of samples");
}

static void words_of_the_wrong_kind_are_refused_at_their_place(void **state) {
    (void)state;
    const uint64_t two[] = {900, 100};
    expect_refused(OVER("majority"), NULL, two, 2, "'sampling_strategy' must be one of auto,");
    expect_refused(UNDER("minority"), NULL, two, 2, "'sampling_strategy' must be one of auto,");
    expect_refused("WeightedSampler: {weights: 3}", NULL, two, 2, "not one number");
    expect_refused("WeightedSampler: {weights: {a: -1}}", NULL, two, 2, "not -1");
    expect_refused("WeightedSampler: {weights: {a: .nan}}", NULL, two, 2, "not .nan");
    expect_refused("SMOTE: {k_neighbors: 0}", "nn", two, 2, "'k_neighbors' must be");
    expect_refused("RandomOverSampler: {shrinkage: -1}", "nn", two, 2, "'shrinkage' must be");
}

static void smote_adds_synthetic_rows_and_keeps_every_row(void **state) {
    (void)state;
    const uint64_t two[] = {90, 12};
    struct planned x;
    uint64_t own = 0, made = 0;
    plan_as(&x, "SMOTE: {}", "nn", 32, two, 2);
    assert_int_equal(x.rc, 0);
    for (uint64_t v = x.r.of[1].first; v < x.r.total; v++) {
        const struct sm_drawn d = sm_rebalance_at(&x.r, 0, v);
        assert_int_equal(d.label, 1);
        assert_int_equal(d.k, d.synthetic ? made++ : own++);
    }
    assert_int_equal(own, 12);
    assert_int_equal(made, 78);
    planned_free(&x);
}

/* Weights from 0 to large; each row comes total x w / sum times, down or up to a whole number. */
static void rows_come_as_often_as_their_weight_says(void **state) {
    (void)state;
    enum { N = 1000 };
    double sums[N], w[N], sum = 0;
    for (int i = 0; i < N; i++)
        sums[i] = sum += w[i] = i % 7 == 0 || i > 990 ? 0 : (i % 13) * 0.1 + (i == 500) * 300;
    for (uint64_t total = 1; total < 20000; total = total * 3 + 1)
        for (uint32_t epoch = 0; epoch < 4; epoch++) {
            struct sm_rebalance r = {
                .method = SM_REBALANCE_ROWS, .seed = 5, .total = total, .sums = sums, .sums_n = N};
            struct sm_err err;
            uint32_t times[N] = {0};
            assert_int_equal(sm_rebalance_lay(&r, &err), 0);
            for (uint64_t v = 0; v < total; v++) {
                const struct sm_drawn d = sm_rebalance_at(&r, epoch, v);
                assert_int_equal(d.copy, times[d.k]++);
            }
            for (uint64_t k = 0; k < N; k++) {
                const double quota = (double)total * w[k] / sum;
                assert_true(fabs((double)times[k] - quota) < 1 + 1e-9);
                assert_true(w[k] > 0 || times[k] == 0);
                assert_int_equal(sm_rebalance_row_count(&r, epoch, k), times[k]);
            }
            sm_rebalance_release(&r);
        }
}

static void draws_with_replacement_reach_the_whole_class_and_repeat(void **state) {
    (void)state;
    const uint64_t two[] = {400, 100};
    struct planned x;
    uint32_t times[400] = {0}, repeated = 0;
    plan_as(&x, "RandomUnderSampler: {sampling_strategy: {a: 400}, replacement: true}", NULL, 32,
            two, 2);
    for (uint64_t v = 0; v < 400; v++)
        repeated += times[sm_rebalance_at(&x.r, 0, v).k]++ > 0;
    /* 400 x (1 - 1/e) distinct are expected, the standard deviation is 10 */
    assert_in_range(400 - repeated, 200, 305);
    planned_free(&x);
}

static void a_trillion_positions_are_planned_like_a_few(void **state) {
    (void)state;
    const uint64_t present[] = {UINT64_C(900000000000), UINT64_C(3)};
    struct planned x;
    plan_as(&x, "RandomOverSampler: {sampling_strategy: {b: 1000000007}}", NULL, 32, present, 2);
    assert_int_equal(x.rc, 0);
    const struct sm_drawn d = sm_rebalance_at(&x.r, 9, x.r.total - 1);
    assert_int_equal(d.label, 1);
    assert_int_equal(d.copy, 1000000006 / 3);
    planned_free(&x);
}

/* --- the op behind which rows are made -------------------------------------------------------- */

#define TABLE "version: 1\nsource: {path: x, format: csv, label: y}\n"

static void after_is_the_last_op_of_its_name(void **state) {
    (void)state;
    static const struct {
        const char *rest;
        size_t after;
    } cases[] = {
        {"rebalance: {SMOTE: {after: StandardScaler}}\nops: [SimpleImputer, StandardScaler, PCA]\n",
         2},
        {"ops: [SimpleImputer, PCA]\nrebalance:\n  SMOTENC:\n    after: SimpleImputer\n", 1},
        {"rebalance: {SMOTE: {after: SimpleImputer}}\n"
         "ops: [SimpleImputer, StandardScaler, SimpleImputer: {strategy: median}, PCA]\n",
         3},
        {"rebalance: {SMOTE: {after: null}}\nops: [StandardScaler]\n", 0},
        {"rebalance: {SMOTE: {}}\nops: [StandardScaler]\n", 0},
        {"rebalance: SMOTE\nops: [StandardScaler]\n", 0},
        {"rebalance: {RandomOverSampler: {}}\nops: [StandardScaler]\n", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sm_pipeline p, again;
        struct sm_err err;
        struct sm_buf json;
        char text[512];
        snprintf(text, sizeof text, TABLE "%s", cases[i].rest);
        if (sm_pipeline_parse(&p, "t.yaml", text, strlen(text), sm_op_table(), &err) != 0)
            fail_msg("%s", err.text);
        assert_int_equal(p.rebalance_after, cases[i].after);
        sm_buf_init(&json, 1 << 20);
        sm_pipeline_json(&p, &json);
        /* what was written before there was an 'after' stays as it was, its digest too */
        assert_int_equal(strstr(json.data, "\"after\"") != NULL, cases[i].after > 0);
        if (strstr(text, "SMOTE: {}") != NULL)
            assert_non_null(strstr(
                json.data,
                "\"rebalance\":{\"SMOTE\":{\"sampling_strategy\":\"auto\",\"k_neighbors\":5}},"));
        if (sm_pipeline_parse(&again, "json", json.data, json.len, sm_op_table(), &err) != 0)
            fail_msg("%s", err.text);
        assert_int_equal(again.rebalance_after, cases[i].after);
        sm_pipeline_release(&again);
        sm_pipeline_release(&p);
        sm_buf_release(&json);
    }
}

static void an_after_that_is_no_op_is_shown_at_its_place(void **state) {
    (void)state;
    static const struct {
        const char *rest, *says;
    } cases[] = {
        {"rebalance: {SMOTE: {after: StandardScalar}}\nops: [SimpleImputer, StandardScaler]\n",
         "t.yaml:3:28: 'after' names 'StandardScalar', and 'ops' has no such op (hint: did you mean "
         "'StandardScaler'?)\nrebalance: {SMOTE: {after: StandardScalar}}\n"
         "                           ^"},
        {"ops: [SimpleImputer, PCA]\nrebalance:\n  SMOTENC:\n    k_neighbors: 3\n"
         "    after: KMeans\n",
         "t.yaml:7:12: 'after' names 'KMeans', and 'ops' has no such op (hint: there are "
         "SimpleImputer, PCA)"},
        {"rebalance: {SMOTE: {after: PCA}}\n",
         "t.yaml:3:28: 'after' names 'PCA', and 'ops' has no such op (hint: 'ops' is empty)"},
        {"rebalance: {SMOTE: {after: [PCA]}}\nops: [PCA]\n", "t.yaml:3:28: 'after'"},
        {"rebalance: {RandomOverSampler: {after: PCA}}\nops: [PCA]\n",
         "t.yaml:3:33: unknown parameter 'after'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sm_pipeline p;
        struct sm_err err;
        char text[512];
        snprintf(text, sizeof text, TABLE "%s", cases[i].rest);
        assert_int_equal(sm_pipeline_parse(&p, "t.yaml", text, strlen(text), sm_op_table(), &err),
                         -1);
        if (strncmp(err.text, cases[i].says, strlen(cases[i].says)) != 0)
            fail_msg("'%s' begins not with '%s'", err.text, cases[i].says);
        sm_pipeline_release(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_exact_and_samples_come_equally_often_in_every_epoch),
        cmocka_unit_test(which_samples_come_once_more_differs_by_epoch),
        cmocka_unit_test(a_copy_has_a_number_of_its_own),
        cmocka_unit_test(a_batch_holds_n_classes_with_m_samples_each),
        cmocka_unit_test(strategies_have_the_counts_of_imbalanced_learn),
        cmocka_unit_test(weights_and_repeat_factors_follow_their_formulas),
        cmocka_unit_test(what_the_data_forbids_is_refused_with_class_and_count),
        cmocka_unit_test(words_of_the_wrong_kind_are_refused_at_their_place),
        cmocka_unit_test(after_is_the_last_op_of_its_name),
        cmocka_unit_test(an_after_that_is_no_op_is_shown_at_its_place),
        cmocka_unit_test(smote_adds_synthetic_rows_and_keeps_every_row),
        cmocka_unit_test(rows_come_as_often_as_their_weight_says),
        cmocka_unit_test(draws_with_replacement_reach_the_whole_class_and_repeat),
        cmocka_unit_test(a_trillion_positions_are_planned_like_a_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

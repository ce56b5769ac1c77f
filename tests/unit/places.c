/* What stands at a position: parts of a split are exact and disjoint, an epoch holds what its
 * account says, and a batch, a copy and a synthetic row are what rebalancing promised. */
#include "lib/buf.h"
#include "tests/unit/tables.h"

#include <math.h>

enum { ROWS = 120 };

/* Rows of three classes, a: 80, b: 30, c: 10, mixed; groups of four rows; a column of weights. */
static void write_table(struct data *d) {
    static char text[ROWS * 40];
    size_t n = (size_t)sprintf(text, "x,w,g,y\n");
    for (int i = 0; i < ROWS; i++)
        n += (size_t)sprintf(text + n, "%d,%g,g%d,%s\n", i, i % 5 * 0.5, i / 4,
                             i % 12 == 5  ? "c"
                             : i % 4 == 2 ? "b"
                                          : "a");
    scratch_text(&d->s, "t.csv", text);
}

static void open_as(struct data *d, const char *rest) {
    data_open(d, "t.csv", ", format: csv, label: y", rest);
}

static struct sm_plan plan_of(const struct data *d, uint32_t epoch, uint32_t copies) {
    return (struct sm_plan){.samples = sm_places_samples(d->places),
                            .copies = copies,
                            .shuffle = true,
                            .seed = 11,
                            .epoch = epoch,
                            .shard_samples = 10};
}

/* Marks the samples of a part; every way of asking tells the same. */
static void part_take(struct data *d, int part, uint8_t in[ROWS]) {
    if (data_place(d, part, NULL) != 0) fail_msg("%s", d->err.text);
    uint64_t of_classes = 0, last = 0;
    for (uint64_t i = 0; i < sm_places_part_samples(d->places); i++) {
        const uint64_t sample = sm_places_part_sample(d->places, i);
        assert_true(i == 0 || sample > last);
        last = sample;
        in[sample]++;
    }
    for (uint32_t c = 0; c < sm_index_classes(d->index); c++) {
        of_classes += sm_places_class_samples(d->places, c);
        for (uint64_t k = 0; k < sm_places_class_samples(d->places, c); k++) {
            const uint64_t sample = sm_places_class_sample(d->places, c, k);
            assert_int_equal(sm_index_label(d->index, sample), c);
            assert_int_equal(in[sample], 1);
        }
    }
    assert_int_equal(of_classes, sm_places_part_samples(d->places));
}

static void parts_are_disjoint_and_exact(void **state) {
    (void)state;
    struct data d = data_make();
    write_table(&d);
    open_as(&d, "split: {val: 0.25}\n");
    uint8_t train[ROWS] = {0}, val[ROWS] = {0};
    part_take(&d, SM_PART_VAL, val);
    assert_int_equal(sm_places_class_samples(d.places, 0), 20);
    assert_in_range(sm_places_class_samples(d.places, 1), 7, 8); /* 7.5 */
    assert_in_range(sm_places_class_samples(d.places, 2), 2, 3); /* 2.5 */
    assert_int_equal(sm_places_samples(d.places), 30);
    part_take(&d, SM_PART_TRAIN, train);
    for (int i = 0; i < ROWS; i++)
        assert_int_equal(train[i] + val[i], 1);
    open_as(&d, "split: {val: 0.3, stratify: false}\n");
    memset(val, 0, sizeof val);
    part_take(&d, SM_PART_VAL, val);
    assert_int_equal(sm_places_samples(d.places), 36);
    data_done(&d);
}

static void groups_stay_together(void **state) {
    (void)state;
    static const char *const stratify[] = {"true", "false"};
    struct data d = data_make();
    write_table(&d);
    for (int k = 0; k < 2; k++) {
        char split[80];
        uint8_t train[ROWS] = {0}, val[ROWS] = {0};
        snprintf(split, sizeof split, "split: {val: 0.2, by: g, stratify: %s}\n", stratify[k]);
        open_as(&d, split);
        part_take(&d, SM_PART_VAL, val);
        /* the share as near as whole groups of 4 allow */
        assert_in_range(sm_places_samples(d.places), 20, 28);
        part_take(&d, SM_PART_TRAIN, train);
        for (int i = 0; i < ROWS; i++) {
            assert_int_equal(train[i] + val[i], 1);
            assert_int_equal(val[i], val[i / 4 * 4]);
        }
    }
    data_done(&d);
}

static void a_split_depends_on_seed_and_data_alone(void **state) {
    (void)state;
    struct data d = data_make();
    uint8_t one[ROWS] = {0}, again[ROWS] = {0}, other[ROWS] = {0};
    write_table(&d);
    open_as(&d, "split: {val: 0.25}\n");
    part_take(&d, SM_PART_VAL, one);
    open_as(&d, "split: {val: 0.25}\noutput: {batch_size: 3, shuffle: false}\n");
    part_take(&d, SM_PART_VAL, again);
    assert_memory_equal(one, again, sizeof one);
    d.p.seed = 12;
    part_take(&d, SM_PART_VAL, other);
    assert_memory_not_equal(one, other, sizeof one);
    data_done(&d);
}

/* A table of classes of so many rows each. */
static void write_classes(struct data *d, int classes, int rows) {
    struct sm_buf text;
    sm_buf_init(&text, 1 << 20);
    sm_buf_text(&text, "x,y\n");
    for (int i = 0; i < classes * rows; i++)
        sm_buf_printf(&text, "%d,c%d\n", i, i % classes);
    assert_false(text.full);
    scratch_write(&d->s, "t.csv", text.data, text.len);
    sm_buf_release(&text);
}

static void the_share_is_that_of_all_however_small_the_classes_are(void **state) {
    (void)state;
    static const struct {
        int classes, rows;
        const char *val;
        uint64_t held;
    } shapes[] = {{100, 2, "0.2", 40},  {100, 3, "0.2", 60}, {100, 8, "0.2", 160},
                  {300, 4, "0.1", 120}, {7, 11, "0.29", 22}, {100, 100, "0.29", 2900},
                  {3, 5, "0.5", 8},     {1, 9, "0.99", 8},   {20, 2, "0.9", 20}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct data d = data_make();
        char split[64];
        const int rows = shapes[i].rows;
        uint64_t first = 0;
        write_classes(&d, shapes[i].classes, rows);
        snprintf(split, sizeof split, "split: {val: %s}\n", shapes[i].val);
        open_as(&d, split);
        if (data_place(&d, SM_PART_VAL, NULL) != 0) fail_msg("%s", d.err.text);
        assert_int_equal(sm_places_samples(d.places), shapes[i].held);
        for (int c = 0; c < shapes[i].classes; c++) {
            const double share = strtod(shapes[i].val, NULL) * rows;
            const uint64_t held = sm_places_class_samples(d.places, (uint32_t)c);
            assert_true(fabs((double)held - share) < 1 && held < (uint64_t)rows);
            if (c < shapes[i].classes / 2) first += held;
        }
        if (shapes[i].classes == 100 && rows < 10) /* ties are for no half of the classes */
            assert_in_range(first, shapes[i].held * 3 / 10, shapes[i].held * 7 / 10);
        data_done(&d);
    }
}

static void a_class_of_one_sample_stays_in_training(void **state) {
    (void)state;
    struct data d = data_make();
    scratch_text(&d.s, "t.csv", "x,y\n1,a\n2,a\n3,a\n4,rare\n5,b\n6,b\n7,b\n8,rarer\n");
    open_as(&d, "split: {val: 0.6}\n");
    if (data_place(&d, SM_PART_VAL, NULL) != 0) fail_msg("%s", d.err.text);
    assert_int_equal(sm_places_class_samples(d.places, 0), 2);
    assert_int_equal(sm_places_class_samples(d.places, 1), 2);
    assert_int_equal(sm_places_samples(d.places), 4); /* of the wanted 5: none can give more */
    data_done(&d);
}

static void a_split_of_which_a_part_is_empty_is_refused_with_what_helps(void **state) {
    (void)state;
    static const struct {
        int classes, rows;
        const char *split, *says;
    } cases[] = {
        {3, 100, "val: 0.001", "val part of 300 samples with val: 0.001 (hint: val: 0.0034)"},
        {50, 1, "val: 0.2", "in training: stratify: false, val: 0.2)"},
        {50, 1, "val: 0.001", "in training: stratify: false, val: 0.02)"},
        {5, 2, "val: 0.99, stratify: false",
         "train part of 10 samples with val: 0.99 (hint: val: "
         "0.5)"},
        {1, 1, "val: 0.5", "one sample cannot be split: val: 0"},
        {2, 50, "val: 0.1, by: x", "100 groups"},
        {2, 50, "val: 0.04, by: g",
         "2 groups by 'g', the smallest of 10: stratify: false, val: "
         "0.1)"},
        {2, 50, "val: 0.04, by: g, stratify: false", "the smallest of 10: val: 0.1)"},
        {2, 50, "val: 0.99, by: g", "train part"},
        {2, 50, "val: 0.2, by: one", "one value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct data d = data_make();
        struct sm_buf text;
        sm_buf_init(&text, 1 << 20);
        sm_buf_text(&text, "x,g,one,y\n");
        for (int k = 0; k < cases[i].classes * cases[i].rows; k++)
            sm_buf_printf(&text, "%d,%d,1,c%d\n", k, k < 10, k % cases[i].classes);
        assert_false(text.full);
        scratch_write(&d.s, "t.csv", text.data, text.len);
        sm_buf_release(&text);
        char split[96];
        snprintf(split, sizeof split, "split: {%s}\n", cases[i].split);
        open_as(&d, split);
        for (int part = SM_PART_TRAIN; part <= SM_PART_VAL; part++) {
            const int failed = data_place(&d, part, NULL);
            if (strstr(cases[i].says, "100 groups") != NULL) {
                assert_int_equal(failed, 0);
                continue;
            }
            if (failed == 0) fail_msg("%s", split);
            if (strstr(d.err.text, cases[i].says) == NULL) fail_msg("%s", d.err.text);
        }
        /* what the hint says helps */
        const char *hint = strstr(d.err.text, "val: 0.");
        const char *last = NULL;
        for (; hint != NULL; hint = strstr(hint + 1, "val: 0."))
            last = hint;
        if (last != NULL && strstr(cases[i].says, "one ") == NULL) {
            d.p.split.val = strtod(last + 5, NULL);
            if (strstr(d.err.text, "stratify: false") != NULL) d.p.split.stratify = false;
            if (data_place(&d, SM_PART_TRAIN, NULL) != 0) fail_msg("%s", d.err.text);
        }
        data_done(&d);
    }
}

static void groups_of_small_classes_are_held_out_as_well(void **state) {
    (void)state;
    struct data d = data_make();
    static char text[1 << 16];
    size_t n = (size_t)sprintf(text, "x,g,y\n");
    for (int i = 0; i < 400; i++)
        n += (size_t)sprintf(text + n, "%d,%d,c%d\n", i, i / 4, i % 100);
    scratch_text(&d.s, "t.csv", text);
    open_as(&d, "split: {val: 0.1, by: g}\n"); /* of each class 0.4 rows */
    if (data_place(&d, SM_PART_VAL, NULL) != 0) fail_msg("%s", d.err.text);
    assert_int_equal(sm_places_samples(d.places), 40);
    data_done(&d);
}

static void an_epoch_holds_each_sample_of_its_part_once_for_each_copy(void **state) {
    (void)state;
    struct data d = data_make();
    write_table(&d);
    open_as(&d, "split: {val: 0.25}\n");
    for (int part = SM_PART_TRAIN; part <= SM_PART_VAL; part++) {
        uint8_t in[ROWS] = {0}, seen[ROWS][3] = {{0}};
        part_take(&d, part, in);
        const struct sm_plan plan = plan_of(&d, 2, 3);
        for (uint64_t i = 0; i < sm_plan_positions(&plan); i++) {
            const struct sm_placed at = sm_places_at(d.places, &plan, i);
            assert_int_equal(in[at.sample], 1);
            assert_int_equal(at.label, sm_index_label(d.index, at.sample));
            assert_false(at.added || at.synthetic);
            assert_int_equal(seen[at.sample][at.copy]++, 0);
        }
    }
    data_done(&d);
}

/* Counts by class, distinct samples and repeats of an epoch, against its account. Every copy of a
 * sample has a number of its own. */
static void expect_account(struct data *d, uint32_t epoch, uint32_t copies) {
    const struct sm_plan plan = plan_of(d, epoch, copies);
    static uint8_t seen[ROWS][4096];
    uint64_t drawn[3] = {0}, distinct[3] = {0}, total = 0;
    double weights[3] = {0};
    memset(seen, 0, sizeof seen);
    for (uint64_t i = 0; i < sm_plan_positions(&plan); i++) {
        const struct sm_placed at = sm_places_at(d->places, &plan, i);
        assert_int_equal(at.label, sm_index_label(d->index, at.sample));
        assert_true(at.copy < 4096);
        assert_int_equal(seen[at.sample][at.copy]++, 0);
        drawn[at.label]++;
        weights[at.label] += (double)at.weight;
    }
    for (int i = 0; i < ROWS; i++)
        for (int k = 0; k < 4096; k++)
            if (seen[i][k] && ++distinct[sm_index_label(d->index, (uint64_t)i)]) break;
    for (uint32_t c = 0; c < 3; c++) {
        const struct sm_account a = sm_places_account(d->places, c);
        total += a.drawn;
        assert_int_equal(drawn[c], a.drawn * copies);
        assert_int_equal(distinct[c], a.distinct);
        assert_int_equal(a.repeated, a.drawn - a.distinct);
        assert_int_equal(a.present, sm_places_class_samples(d->places, c));
        const double share = (double)a.present / (double)sm_places_part_samples(d->places),
                     now = (double)a.drawn / (double)sm_places_samples(d->places);
        if (a.drawn == 0) {
            assert_true(isnan(a.log_prior_shift));
            continue;
        }
        assert_true(fabs(a.log_prior_shift - log(share / now)) < 1e-12);
        assert_true(fabs(a.weight - weights[c] / (double)drawn[c]) < 1e-6 * a.weight);
        if (sm_places_rebalance(d->places)->method != SM_REBALANCE_ROWS)
            assert_true(fabs(a.weight - share / now) < 1e-12);
    }
    assert_int_equal(total, sm_places_samples(d->places));
}

static void an_epoch_is_what_its_account_says(void **state) {
    (void)state;
    static const char *const methods[] = {
        "RandomOverSampler: {}",
        "RandomUnderSampler: {}",
        "RandomUnderSampler: {sampling_strategy: {b: 0}}",
        "WeightedSampler: {num_samples: 500}",
        "RepeatFactor: {threshold: 0.5}",
        "ClassBalancedBatches: {n_classes: 2, n_samples: 4}",
        "WeightedSampler: {weights: w, num_samples: 300}",
        "RandomUnderSampler: {replacement: true}",
    };
    struct data d = data_make();
    write_table(&d);
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        char rest[200];
        snprintf(rest, sizeof rest, "split: {val: 0.2}\nrebalance: {%s}\noutput: {batch_size: 8}\n",
                 methods[i]);
        open_as(&d, rest);
        if (data_place(&d, SM_PART_TRAIN, NULL) != 0) fail_msg("%s", d.err.text);
        /* these differ by epoch, and their account is of the first */
        const bool by_epoch = strstr(methods[i], "replacement") || strstr(methods[i], ": w");
        for (uint32_t epoch = 0; epoch < (by_epoch ? 1 : 3); epoch++)
            for (uint32_t copies = 1; copies <= 3; copies += 2)
                expect_account(&d, epoch, copies);
    }
    data_done(&d);
}

/* The weight of each position of an epoch is natural / drawn probability of its class; their mean
 * is `mean`. */
static void expect_weights(struct data *d, uint32_t epoch, double mean) {
    const struct sm_plan plan = plan_of(d, epoch, 2);
    double sum = 0;
    for (uint64_t i = 0; i < sm_plan_positions(&plan); i++) {
        const struct sm_placed at = sm_places_at(d->places, &plan, i);
        assert_true(at.weight == (float)sm_places_account(d->places, at.label).weight);
        sum += (double)at.weight;
    }
    assert_true(fabs(sum / (double)sm_plan_positions(&plan) - mean) < 1e-6);
}

/* a: 80, b: 30, c: 10 of 120. */
static void weights_of_classes_are_natural_over_drawn_probability(void **state) {
    (void)state;
    static const struct {
        const char *method;
        double mean;
    } cases[] = {
        {"RandomOverSampler: {}", 1},
        {"RandomUnderSampler: {}", 1},
        {"RandomUnderSampler: {replacement: true}", 1},
        {"WeightedSampler: {num_samples: 500}", 1},
        {"WeightedSampler: {weights: {a: 0.1, c: 7}}", 1},
        {"RepeatFactor: {threshold: 0.5}", 1},
        {"ClassBalancedBatches: {n_classes: 2, n_samples: 4}", 1},
        /* of what is not drawn nothing stands for the share: the mean is that of the others */
        {"RandomUnderSampler: {sampling_strategy: {b: 0}}", 90 / 120.0},
        {"WeightedSampler: {weights: {a: 0}}", 40 / 120.0},
    };
    struct data d = data_make();
    write_table(&d);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char rest[200];
        snprintf(rest, sizeof rest, "rebalance: {%s}\noutput: {batch_size: 8}\n", cases[i].method);
        open_as(&d, rest);
        if (data_place(&d, SM_PART_TRAIN, NULL) != 0) fail_msg("%s", d.err.text);
        for (uint32_t epoch = 0; epoch < 2; epoch++)
            expect_weights(&d, epoch, cases[i].mean);
    }
    open_as(&d, "rebalance: {WeightedSampler: {weights: {a: 0}}}\n");
    assert_int_equal(data_place(&d, SM_PART_TRAIN, NULL), 0);
    assert_true(sm_places_account(d.places, 0).weight == 0);
    open_as(&d, "rebalance: {RandomOverSampler: {}}\nsplit: {val: 0.2}\n");
    assert_int_equal(data_place(&d, SM_PART_VAL, NULL), 0); /* not rebalanced */
    expect_weights(&d, 0, 1);
    open_as(&d, "");
    assert_int_equal(data_place(&d, SM_PART_TRAIN, NULL), 0);
    expect_weights(&d, 0, 1);
    data_done(&d);
}

/* Column w is i % 5 / 2: 0, 0.5, 1, 1.5, 2. */
static void weights_of_rows_undo_the_column_by_which_they_are_drawn(void **state) {
    (void)state;
    struct data d = data_make();
    write_table(&d);
    open_as(&d, "rebalance: {WeightedSampler: {weights: w, num_samples: 3000}}\n");
    if (data_place(&d, SM_PART_TRAIN, NULL) != 0) fail_msg("%s", d.err.text);
    double sum = 0;
    for (uint32_t epoch = 0; epoch < 20; epoch++) {
        const struct sm_plan plan = plan_of(&d, epoch, 1);
        for (uint64_t i = 0; i < 3000; i++) {
            const struct sm_placed at = sm_places_at(d.places, &plan, i);
            const double w = (double)(at.sample % 5) * 0.5, want = (1.0 / ROWS) / (w / ROWS);
            assert_true(w > 0 && fabs((double)at.weight / want - 1) < 1e-6);
            sum += (double)at.weight;
        }
    }
    /* a fifth of the rows has weight 0 and is never drawn */
    assert_true(fabs(sum / (20 * 3000) - 0.8) < 0.002);
    data_done(&d);
}

static void the_held_out_part_is_never_rebalanced(void **state) {
    (void)state;
    struct data d = data_make();
    write_table(&d);
    open_as(&d, "split: {val: 0.25}\nrebalance: {RandomOverSampler: {}}\n");
    assert_int_equal(data_place(&d, SM_PART_VAL, NULL), 0);
    assert_null(sm_places_rebalance(d.places));
    assert_int_equal(sm_places_samples(d.places), 30);
    assert_int_equal(sm_places_account(d.places, 2).drawn, sm_places_class_samples(d.places, 2));
    data_done(&d);
}

static void batches_stand_together_whatever_the_order_and_the_copies(void **state) {
    (void)state;
    struct data d = data_make();
    write_table(&d);
    open_as(&d, "rebalance: {ClassBalancedBatches: {n_classes: 2, n_samples: 4}}\n"
                "output: {batch_size: 8}\n");
    assert_int_equal(data_place(&d, SM_PART_TRAIN, NULL), 0);
    for (uint32_t copies = 1; copies <= 2; copies++) {
        const struct sm_plan plan = plan_of(&d, 0, copies);
        for (uint64_t b = 0; b < sm_plan_positions(&plan); b += 8) {
            int of[3] = {0};
            for (uint64_t i = 0; i < 8; i++)
                of[sm_places_at(d.places, &plan, b + i).label]++;
            assert_int_equal((of[0] == 4) + (of[1] == 4) + (of[2] == 4), 2);
        }
    }
    data_done(&d);
}

static void a_column_of_weights_that_is_none_is_refused_by_row(void **state) {
    (void)state;
    static const struct {
        const char *table, *says;
    } cases[] = {
        {"x,w,y\n1,1,a\n2,-3,b\n", "row 1 in column 'w' is -3"},
        {"x,w,y\n1,,a\n2,3,b\n", "row 0 in column 'w' is "},
        {"x,w,y\n1,0,a\n2,0,b\n", "the weights in column 'w' are all 0"},
        {"x,w,y\n1,1e308,a\n2,1e308,b\n", "the weights in column 'w' add up to inf"},
        {"x,w,y\n1,u,a\n2,v,b\n", "'w', which is no column of numbers"},
        {"x,v,y\n1,1,a\n2,2,b\n", "'w', which is no column of numbers"},
    };
    struct data d = data_make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scratch_text(&d.s, "t.csv", cases[i].table);
        data_open(&d, "t.csv", ", format: csv, label: y, float64: true",
                  "rebalance: {WeightedSampler: {weights: w}}\n");
        assert_int_equal(data_place(&d, SM_PART_TRAIN, NULL), -1);
        if (strstr(d.err.text, cases[i].says) == NULL)
            fail_msg("'%s' is not in: %s", cases[i].says, d.err.text);
    }
    data_done(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_disjoint_and_exact),
        cmocka_unit_test(groups_stay_together),
        cmocka_unit_test(a_split_depends_on_seed_and_data_alone),
        cmocka_unit_test(the_share_is_that_of_all_however_small_the_classes_are),
        cmocka_unit_test(a_class_of_one_sample_stays_in_training),
        cmocka_unit_test(a_split_of_which_a_part_is_empty_is_refused_with_what_helps),
        cmocka_unit_test(groups_of_small_classes_are_held_out_as_well),
        cmocka_unit_test(an_epoch_holds_each_sample_of_its_part_once_for_each_copy),
        cmocka_unit_test(an_epoch_is_what_its_account_says),
        cmocka_unit_test(weights_of_classes_are_natural_over_drawn_probability),
        cmocka_unit_test(weights_of_rows_undo_the_column_by_which_they_are_drawn),
        cmocka_unit_test(the_held_out_part_is_never_rebalanced),
        cmocka_unit_test(batches_stand_together_whatever_the_order_and_the_copies),
        cmocka_unit_test(a_column_of_weights_that_is_none_is_refused_by_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

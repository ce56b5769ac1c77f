/* Counts are exact: what the ranks of a world are given of each class in an epoch, summed over its
 * steps, is what the formula of the method says, for any world, and also when a world of another
 * size goes on in the middle. */
#include "lib/steps.h"
#include "tests/unit/tables.h"
#include "workers/neighbours.h"

enum { ROWS = 120, CLASSES = 3, BATCH = 8 };

/* Rows of three classes, a: 80, b: 30, c: 10, mixed; kinds: a column of words. */
static void write_table(struct data *d, bool kinds) {
    static char text[ROWS * 40];
    size_t n = (size_t)sprintf(text, kinds ? "x,k,y\n" : "x,w,y\n");
    for (int i = 0; i < ROWS; i++)
        n += (size_t)sprintf(text + n, "%d.5,%s%d,%s\n", i * 37 % 101, kinds ? "k" : "", i % 7,
                             i % 12 == 5  ? "c"
                             : i % 4 == 2 ? "b"
                                          : "a");
    scratch_text(&d->s, "t.csv", text);
}

/* Adds what every rank gets from entered on, up to so many steps; gives the position behind. */
static uint64_t world_add(const struct data *d, const struct sm_plan *plan, uint64_t entered,
                          uint32_t world, uint64_t steps_max, uint64_t counts[CLASSES]) {
    const struct sm_steps steps = {.positions = sm_plan_positions(plan),
                                   .entered = entered,
                                   .batch_size = BATCH,
                                   .world_size = world};
    uint64_t n = sm_steps_count(&steps), behind = entered;
    if (n > steps_max) n = steps_max;
    for (uint64_t k = 0; k < n; k++)
        for (uint32_t rank = 0; rank < world; rank++) {
            const struct sm_step step = sm_steps_at(&steps, rank, k);
            for (uint32_t i = 0; i < step.count - step.padding; i++)
                counts[sm_places_at(d->places, plan, step.first + i).label]++;
            behind = step.position;
        }
    return behind;
}

static void expect(const char *what, const uint64_t counts[CLASSES],
                   const uint64_t wanted[CLASSES]) {
    for (int c = 0; c < CLASSES; c++)
        if (counts[c] != wanted[c])
            fail_msg("%s: class %d drawn %llu times, wanted %llu", what, c,
                     (unsigned long long)counts[c], (unsigned long long)wanted[c]);
}

static void each_world_alone_and_after_another(const struct data *d, const char *what,
                                               const uint64_t wanted[CLASSES]) {
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        const struct sm_plan plan = {.samples = sm_places_samples(d->places),
                                     .copies = 1,
                                     .shuffle = true,
                                     .seed = 11,
                                     .epoch = epoch,
                                     .shard_samples = 10};
        for (uint32_t world = 1; world <= 4; world++) {
            uint64_t counts[CLASSES] = {0};
            world_add(d, &plan, 0, world, UINT64_MAX, counts);
            expect(what, counts, wanted);
            for (uint32_t next = 1; next <= 4; next++) {
                uint64_t resumed[CLASSES] = {0};
                uint64_t at = world_add(d, &plan, 0, world, 1, resumed);
                if (at < sm_plan_positions(&plan))
                    world_add(d, &plan, at, next, UINT64_MAX, resumed);
                expect(what, resumed, wanted);
            }
        }
    }
}

static void drawn_counts_are_the_formulas_for_any_world_and_after_resume(void **state) {
    (void)state;
    static const struct {
        const char *method;
        uint64_t wanted[CLASSES];
    } cases[] = {
        {"RandomOverSampler: {}", {80, 80, 80}},
        {"RandomOverSampler: {sampling_strategy: minority}", {80, 30, 80}},
        {"RandomUnderSampler: {}", {10, 10, 10}},
        {"RandomUnderSampler: {sampling_strategy: majority}", {10, 30, 10}},
        {"SMOTE: {k_neighbors: 3}", {80, 80, 80}},
        {"SMOTE: {k_neighbors: 3, sampling_strategy: {c: 33}}", {80, 30, 33}},
        {"SMOTENC: {k_neighbors: 3}", {80, 80, 80}},
        {"ClassBalancedBatches: {n_classes: 2, n_samples: 4}", {40, 40, 40}}, /* 15 batches */
        /* r = max(1, sqrt(t / f)): of 0.5 and 2/3, 1/4, 1/12 */
        {"RepeatFactor: {threshold: 0.5}", {80, 42, 24}},
    };
    struct data d = data_make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char rest[200];
        struct sm_artifact learned;
        const bool kinds = strncmp(cases[i].method, "SMOTENC", 7) == 0;
        write_table(&d, kinds);
        struct sm_arena arena;
        snprintf(rest, sizeof rest, "rebalance: {%s}\noutput: {batch_size: %d}\n", cases[i].method,
                 BATCH);
        data_open(&d, "t.csv", ", format: csv, label: y", rest);
        if (data_place(&d, SM_PART_TRAIN, NULL) != 0) fail_msg("%s", d.err.text);
        sm_arena_init(&arena, 1 << 24);
        if (strncmp(cases[i].method, "SMOTE", 5) == 0 &&
            (sm_neighbours_learn(d.places, d.s.dir, d.root, NULL, &learned, &arena, &d.err) != 0 ||
             data_place(&d, SM_PART_TRAIN, &learned) != 0))
            fail_msg("%s", d.err.text);
        each_world_alone_and_after_another(&d, cases[i].method, cases[i].wanted);
        sm_arena_release(&arena);
    }
    data_done(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drawn_counts_are_the_formulas_for_any_world_and_after_resume),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

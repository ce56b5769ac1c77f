/* SMOTE and SMOTENC behind an op: neighbours are those of the rows that come out of it, ranges make
 * the bytes of the whole, a synthetic row lies between rows as they come out of it and goes through
 * the ops that follow, and a block is its rows one by one. */
#include "workers/epoch_rows.h"
#include "lib/index.h"
#include "tests/unit/tables.h"
#include "workers/fit_input.h"
#include "workers/neighbours.h"
#include "workers/rebalance/method.h"
#include "workers/synthesis.h"

#include <math.h>

enum { K = 4, RARE = 60, ROWS = 260, ARENA_MAX = 64 << 20 };

struct learned {
    struct sm_artifact artifact;
    struct sm_arena arena;
};

static double random_unit(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(*state >> 11) * 0x1p-53;
}

/* Columns of very different widths, so that scaling changes who is near; one has missing cells, and
 * so has one of words. */
static void write_table(struct data *d, int rows, int rare) {
    uint64_t state = 21;
    struct sm_buf text;
    sm_buf_init(&text, 1 << 22);
    sm_buf_text(&text, "a,b,tree,c,mark,y\n");
    for (int i = 0; i < rows; i++) {
        const bool gap = random_unit(&state) < 0.2, blank = random_unit(&state) < 0.1;
        sm_buf_printf(&text, "%.9g,", random_unit(&state) * 1000);
        sm_buf_printf(&text, gap ? "," : "%.9g,", random_unit(&state) - 0.3);
        sm_buf_printf(
            &text, "%s,",
            blank ? "" : (const char *[]){"ash", "elm", "fir"}[(int)(random_unit(&state) * 3)]);
        sm_buf_printf(&text, "%.9g,%s,%d\n", random_unit(&state) * 1e-4,
                      random_unit(&state) < 0.4 ? "x" : "z",
                      i * rare / rows != (i + 1) * rare / rows);
    }
    scratch_write(&d->s, "t.csv", text.data, text.len);
    sm_buf_release(&text);
}

/* Each op that learns, as the ops before it leave the training rows. */
static void ops_learn(struct data *d) {
    const char **shas = calloc(d->p.n_ops + 1, sizeof *shas);
    d->p.artifacts = (struct sm_strs){.v = shas, .count = d->p.n_ops};
    for (size_t i = 0; i < d->p.n_ops; i++) {
        struct sm_fit_input *in;
        struct sm_artifact a;
        struct sm_arena arena;
        shas[i] = "";
        if (sm_op_find(d->p.ops[i].info->name)->rows->fit == NULL) continue;
        const struct sm_fit_source source = {
            .pipeline = &d->p, .op = i, .index = d->index, .root = d->root, .artifacts = d->s.dir};
        sm_arena_init(&arena, ARENA_MAX);
        if (sm_fit_input_new(&in, &source, &d->err) != 0) fail_msg("%s", d->err.text);
        const struct sm_fit_rows rows = sm_fit_input_rows(in);
        if (sm_fit_run(sm_fit_input_fit(in), sm_fit_input_context(in), &rows, NULL, &a, &arena,
                       &d->err) != 0 ||
            sm_artifact_write(&a, d->s.dir, &d->err) != 0)
            fail_msg("%s", d->err.text);
        shas[i] = sm_arena_str(&d->p.arena, a.sha256);
        sm_fit_input_free(&in);
        sm_arena_release(&arena);
    }
}

static void after_close(struct data *d) {
    free((void *)d->p.artifacts.v);
    d->p.artifacts = (struct sm_strs){0};
}

static int search(struct data *d, struct learned *l) {
    sm_arena_init(&l->arena, ARENA_MAX);
    if (data_place(d, SM_PART_TRAIN, NULL) != 0) fail_msg("%s", d->err.text);
    return sm_neighbours_learn(d->places, d->s.dir, d->root, NULL, &l->artifact, &l->arena,
                               &d->err);
}

static void after_open(struct data *d, const char *method, const char *ops, bool wide) {
    char text[1024];
    snprintf(text, sizeof text, "rebalance: {%s}\nops: [%s]\n", method, ops);
    after_close(d);
    data_open(d, "t.csv",
              wide ? ", format: csv, label: y, float64: true" : ", format: csv, label: y", text);
    ops_learn(d);
}

/* A row of the table, by itself, as it comes out of ops that f has. */
static void row_behind(struct data *d, struct sm_features *f, uint64_t sample,
                       struct sm_rows *out) {
    struct sm_rows in;
    uint8_t bad = 0;
    struct sm_row_faults faults = {.bad = &bad};
    const struct sm_schema *s = sm_features_in(f);
    if (sm_rows_alloc(&in, 1, s->n, s->is_double, &d->err) != 0 ||
        sm_table_read(d->table, &sample, 0, 1, &in, &d->err) != 0 ||
        sm_features_apply(f, &in, out, &faults, &d->err) != 0)
        fail_msg("%s", d->err.text);
    assert_int_equal(faults.n_bad, 0);
    sm_rows_free(&in);
}

static struct sm_rows rows_for(struct data *d, const struct sm_schema *s, size_t n) {
    struct sm_rows r;
    if (sm_rows_alloc(&r, n, s->n, s->is_double, &d->err) != 0) fail_msg("%s", d->err.text);
    return r;
}

/* The rarer class behind the ops of f. */
static struct sm_rows class_behind(struct data *d, struct sm_features *f) {
    struct sm_rows all = rows_for(d, sm_features_out(f), sm_places_class_samples(d->places, 1));
    for (size_t i = 0; i < all.n; i++) {
        struct sm_rows one = all;
        one.n = 1;
        one.data = (char *)all.data + i * all.columns * sm_rows_element(&all);
        row_behind(d, f, sm_places_class_sample(d->places, 1, i), &one);
    }
    return all;
}

static struct sm_features *features_upto(struct data *d, size_t n) {
    struct sm_features *f;
    if (sm_features_new(&f, &d->p, n, d->index, d->s.dir, &d->err) != 0)
        fail_msg("%s", d->err.text);
    return f;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The square of the median of the numbers' standard deviations. */
static double category_weight(const struct sm_rows *r, const struct sm_schema *s) {
    double sd[64];
    size_t n = 0;
    for (size_t c = 0; c < s->n; c++) {
        double mean = 0, var = 0;
        if (s->columns[c].kind != SM_COLUMN_NUMBER) continue;
        for (size_t i = 0; i < r->n; i++)
            mean += sm_rows_cell(r, i, c) / (double)r->n;
        for (size_t i = 0; i < r->n; i++)
            var += pow(sm_rows_cell(r, i, c) - mean, 2) / (double)r->n;
        sd[n++] = sqrt(var);
    }
    qsort(sd, n, sizeof *sd, by_value);
    return pow((sd[(n - 1) / 2] + sd[n / 2]) / 2, 2);
}

/* The plain reference: all distances; of equals the first. */
static void nearest(const struct sm_rows *r, const struct sm_schema *s, double category, size_t i,
                    uint32_t *out) {
    double *apart = calloc(r->n, sizeof *apart);
    for (size_t j = 0; j < r->n; j++)
        for (size_t c = 0; c < s->n; c++) {
            const double x = sm_rows_cell(r, i, c) - sm_rows_cell(r, j, c);
            apart[j] += s->columns[c].kind == SM_COLUMN_NUMBER ? x * x : x != 0 ? category : 0;
        }
    apart[i] = INFINITY;
    for (size_t at = 0; at < K; at++) {
        size_t least = 0;
        for (size_t j = 1; j < r->n; j++)
            if (apart[j] < apart[least]) least = j;
        out[at] = (uint32_t)least;
        apart[least] = INFINITY;
    }
    free(apart);
}

/* Columns that stay, become fewer, more, or others; categories that stay. */
#define FILLED "SimpleImputer: {columns: [a, b, c]}, "
#define WORDS "SimpleImputer: {columns: [tree, mark], strategy: most_frequent}, "
static const struct {
    const char *method, *ops;
    size_t after;
} cases[] = {
    {"SMOTE: {k_neighbors: 4, after: StandardScaler}",
     "DropColumns: {columns: [tree, mark]}, SimpleImputer, StandardScaler", 3},
    {"SMOTE: {k_neighbors: 4, after: SimpleImputer}",
     "SelectColumns: {columns: [c, a]}, SimpleImputer, PCA: {n_components: 1}", 2},
    {"SMOTE: {k_neighbors: 4, after: OneHotEncoder}",
     FILLED WORDS "OneHotEncoder, StandardScaler, PCA: {n_components: 3}", 3},
    {"SMOTE: {k_neighbors: 4, after: PCA}",
     FILLED WORDS "OneHotEncoder, StandardScaler, PCA: {n_components: 3}, StandardScaler", 5},
    {"SMOTENC: {k_neighbors: 4, after: SimpleImputer}", FILLED WORDS "OneHotEncoder", 2},
    {"SMOTENC: {k_neighbors: 4, after: StandardScaler}",
     FILLED WORDS "StandardScaler: {columns: [a, b, c]}, OneHotEncoder", 3},
};
enum { CASES = sizeof cases / sizeof *cases };

static void neighbours_are_those_of_the_rows_behind_the_op(void **state) {
    (void)state;
    struct data d = data_make();
    write_table(&d, ROWS, RARE);
    for (int i = 0; i < 2 * CASES; i++) {
        struct learned l;
        after_open(&d, cases[i / 2].method, cases[i / 2].ops, i % 2);
        assert_int_equal(d.p.rebalance_after, cases[i / 2].after);
        if (search(&d, &l) != 0) fail_msg("%s", d.err.text);
        struct sm_features *f = features_upto(&d, d.p.rebalance_after);
        const struct sm_schema *s = sm_features_out(f);
        struct sm_rows rows = class_behind(&d, f);
        const double category = category_weight(&rows, s);
        const struct sm_array *near = sm_artifact_find(&l.artifact, "neighbours");
        assert_true(near->shape[0] == RARE && near->shape[1] == K);
        for (size_t row = 0; row < rows.n; row++) {
            uint32_t want[K];
            nearest(&rows, s, category, row, want);
            assert_memory_equal((const uint32_t *)near->data + row * K, want, sizeof want);
        }
        sm_rows_free(&rows);
        sm_features_free(&f);
        sm_arena_release(&l.arena);
    }
    after_close(&d);
    data_done(&d);
}

/* Each from a search of its own, as workers make them. */
static void ranges_behind_an_op_make_the_bytes_of_the_whole(void **state) {
    (void)state;
    struct data d = data_make();
    write_table(&d, 4600, 2100);
    for (int i = 0; i < CASES; i++) {
        struct learned l, ranged;
        struct sm_buf from;
        after_open(&d, cases[i].method, cases[i].ops, i % 2);
        if (search(&d, &l) != 0) fail_msg("%s", d.err.text);
        struct sm_neighbours_plan plan = sm_neighbours_plan(d.places, d.s.dir);
        assert_in_range(plan.ranges, 2, 64);
        assert_true(plan.memory > 0 && plan.memory <= SM_MAX_NEIGHBOR_BYTES);
        uint32_t *partials = malloc(plan.ranges * plan.partial_bytes);
        for (uint64_t at = plan.ranges + 1; at-- > 0;) {
            struct sm_neighbours_search *s;
            struct sm_neighbours_range *range = NULL;
            if (sm_neighbours_search_new(&s, d.places, d.s.dir, d.root, &d.err) != 0)
                fail_msg("%s", d.err.text);
            if (at == plan.ranges) { /* what all go out from */
                sm_buf_init(&from, 1 << 20);
                assert_int_equal(sm_neighbours_state(s, &from, &d.err), 0);
                assert_int_equal(plan.state_bytes, from.len);
            } else {
                int done = sm_neighbours_range_new(&range, s, &from, at,
                                                   partials + at * plan.partial_bytes / 4, &d.err);
                while (done == 0)
                    done = sm_neighbours_range_step(range, &d.err);
                if (done < 0) fail_msg("%s", d.err.text);
            }
            sm_neighbours_range_free(&range);
            if (at == 0) {
                sm_arena_init(&ranged.arena, ARENA_MAX);
                assert_int_equal(
                    sm_neighbours_finish(s, partials, &ranged.artifact, &ranged.arena, &d.err), 0);
            }
            sm_neighbours_search_free(&s);
        }
        assert_int_equal(sm_artifact_write(&l.artifact, d.s.dir, &d.err), 0);
        assert_int_equal(sm_artifact_write(&ranged.artifact, d.s.dir, &d.err), 0);
        assert_string_equal(l.artifact.sha256, ranged.artifact.sha256);
        assert_int_equal(sm_artifact_size(&l.artifact), plan.artifact);
        free(partials);
        sm_buf_release(&from);
        sm_arena_release(&l.arena);
        sm_arena_release(&ranged.arena);
    }
    after_close(&d);
    data_done(&d);
}

/* Before the ops have learned only counts are known. */
static void a_plan_without_what_the_ops_learn_has_counts(void **state) {
    (void)state;
    struct data d = data_make();
    write_table(&d, ROWS, RARE);
    after_open(&d, cases[2].method, cases[2].ops, false);
    after_close(&d);
    assert_int_equal(data_place(&d, SM_PART_TRAIN, NULL), 0);
    const struct sm_neighbours_plan plan = sm_neighbours_plan(d.places, d.s.dir);
    assert_true(plan.rows == RARE && plan.k == K && plan.artifact > RARE * K * 4);
    assert_true(plan.ranges == 0 && plan.memory == 0);
    data_done(&d);
}

/* --- rows ------------------------------------------------------------------------------------- */

struct maker {
    struct sm_features *all, *first, *rest;
    struct sm_epoch_rows *rows;
    struct sm_rows ends[2], made; /* of one row, behind the op */
};

static struct sm_plan plan_of(const struct data *d) {
    return (struct sm_plan){.samples = sm_places_samples(d->places),
                            .copies = 1,
                            .shuffle = true,
                            .seed = 11,
                            .epoch = 2,
                            .shard_samples = 10};
}

/* The formula: parent and neighbour by themselves through the first ops, the way between them, and
 * that through the rest. */
static void row_expect(struct data *d, struct maker *m, const struct learned *l,
                       const struct sm_placed *at, const void *got, size_t bytes) {
    struct sm_rows want = rows_for(d, sm_features_out(m->all), 1);
    uint8_t bad = 0;
    struct sm_row_faults faults = {.bad = &bad};
    const struct sm_schema *s = sm_features_out(m->first);
    row_behind(d, m->first, at->sample, &m->ends[0]);
    row_behind(d, m->first, at->neighbour, &m->ends[1]);
    const uint32_t *near =
        (const uint32_t *)sm_artifact_find(&l->artifact, "neighbours")->data + at->parent * K;
    for (size_t c = 0; c < s->n; c++) {
        const double x = sm_rows_cell(&m->ends[0], 0, c), y = sm_rows_cell(&m->ends[1], 0, c);
        if (!at->synthetic || s->columns[c].kind == SM_COLUMN_NUMBER) {
            sm_rows_put(&m->made, 0, c, at->synthetic ? x + at->gap * (y - x) : x);
            continue;
        }
        int votes[3] = {0}, most = 0;
        struct sm_rows voter = rows_for(d, s, 1);
        for (size_t k = 0; k < K; k++) {
            row_behind(d, m->first, sm_places_class_sample(d->places, 1, near[k]), &voter);
            votes[(int)sm_rows_cell(&voter, 0, c)]++;
        }
        for (int v = 1; v < 3; v++)
            if (votes[v] > votes[most]) most = v;
        sm_rows_put(&m->made, 0, c, most);
        sm_rows_free(&voter);
    }
    if (sm_features_apply_part(m->all, d->p.rebalance_after, d->p.n_ops, &m->made, &want, &faults,
                               &d->err) != 0)
        fail_msg("%s", d->err.text);
    assert_memory_equal(want.data, got, bytes);
    sm_rows_free(&want);
}

static void synthetic_rows_lie_between_rows_behind_the_op(void **state) {
    (void)state;
    enum { MOST = 150 };
    static struct sm_placed places[MOST];
    static uint64_t positions[MOST];
    struct data d = data_make();
    write_table(&d, ROWS, RARE);
    for (int i = 0; i < 2 * CASES; i++) {
        struct learned l;
        struct maker m = {0};
        size_t synthetic = 0;
        after_open(&d, cases[i / 2].method, cases[i / 2].ops, i % 2);
        if (search(&d, &l) != 0 || data_place(&d, SM_PART_TRAIN, &l.artifact) != 0)
            fail_msg("%s", d.err.text);
        m.all = features_upto(&d, d.p.n_ops);
        m.first = features_upto(&d, d.p.rebalance_after);
        m.made = rows_for(&d, sm_features_out(m.first), 1);
        for (int e = 0; e < 2; e++)
            m.ends[e] = rows_for(&d, sm_features_out(m.first), 1);
        const struct sm_epoch_rows_from from = {d.places, d.table, &l.artifact, m.all};
        const struct sm_plan plan = plan_of(&d);
        struct sm_rows in = rows_for(&d, sm_features_in(m.all), MOST),
                       out = rows_for(&d, sm_features_out(m.all), MOST);
        const size_t bytes = out.columns * sm_rows_element(&out);
        for (size_t n = 1; n <= MOST; n += 1 + n / 3) {
            /* room for a block, or for some of it: fewer rows than neighbours too */
            uint8_t bad[MOST] = {0};
            struct sm_row_faults faults = {.bad = bad};
            if (sm_epoch_rows_new(&m.rows, &from, n < 20 ? n : MOST, &d.err) != 0)
                fail_msg("%s", d.err.text);
            for (size_t k = 0; k < n; k++)
                positions[k] = (k * 7 + n) % sm_plan_positions(&plan);
            sm_places_many(d.places, &plan, positions, n, places);
            in.n = out.n = n;
            if (sm_epoch_rows_make(m.rows, places, &in, &out, &faults, &d.err) != 0)
                fail_msg("%s", d.err.text);
            assert_int_equal(faults.n_bad, 0);
            for (size_t k = 0; k < n; k++) {
                synthetic += places[k].synthetic;
                row_expect(&d, &m, &l, &places[k], (const char *)out.data + k * bytes, bytes);
            }
            sm_epoch_rows_free(&m.rows);
        }
        assert_true(synthetic > 100);
        sm_rows_free(&in);
        sm_rows_free(&out);
        sm_rows_free(&m.made);
        sm_rows_free(&m.ends[0]);
        sm_rows_free(&m.ends[1]);
        sm_features_free(&m.all);
        sm_features_free(&m.first);
        sm_arena_release(&l.arena);
    }
    after_close(&d);
    data_done(&d);
}

/* Ops in two parts give the bytes of all at once, wherever they are cut. */
static void parts_of_the_ops_give_the_bytes_of_all(void **state) {
    (void)state;
    struct data d = data_make();
    write_table(&d, ROWS, RARE);
    after_open(&d, cases[3].method, cases[3].ops, false);
    struct sm_features *f = features_upto(&d, d.p.n_ops);
    struct sm_rows in = rows_for(&d, sm_features_in(f), ROWS), whole,
                   out = rows_for(&d, sm_features_out(f), ROWS);
    uint8_t bad[ROWS] = {0};
    struct sm_row_faults faults = {.bad = bad};
    whole = rows_for(&d, sm_features_out(f), ROWS);
    assert_int_equal(sm_table_read(d.table, NULL, 0, ROWS, &in, &d.err), 0);
    assert_int_equal(sm_features_apply(f, &in, &whole, &faults, &d.err), 0);
    for (size_t cut = 0; cut <= d.p.n_ops; cut++) {
        struct sm_rows between = rows_for(&d, sm_features_behind(f, cut), ROWS);
        memset(out.data, 0xa5, ROWS * out.columns * sm_rows_element(&out));
        assert_int_equal(sm_features_apply_part(f, 0, cut, &in, &between, &faults, &d.err), 0);
        assert_int_equal(sm_features_apply_part(f, cut, d.p.n_ops, &between, &out, &faults, &d.err),
                         0);
        assert_memory_equal(whole.data, out.data, ROWS * out.columns * sm_rows_element(&out));
        sm_rows_free(&between);
    }
    sm_rows_free(&in);
    sm_rows_free(&out);
    sm_rows_free(&whole);
    sm_features_free(&f);
    after_close(&d);
    data_done(&d);
}

/* --- what cannot be --------------------------------------------------------------------------- */

static void expect_refused(struct data *d, enum sm_code code, const char *says) {
    struct learned l;
    assert_int_equal(search(d, &l), -1);
    if (strstr(d->err.text, says) == NULL) fail_msg("'%s' lacks '%s'", d->err.text, says);
    assert_int_equal(d->err.code, code);
    sm_arena_release(&l.arena);
}

static void what_cannot_be_compared_behind_the_op_is_refused(void **state) {
    (void)state;
    struct data d = data_make();
    write_table(&d, ROWS, RARE);
    after_open(&d, "SMOTE: {after: DropColumns}",
               "DropColumns: {columns: [tree, mark]}, SimpleImputer", false);
    expect_refused(&d, SM_E_DATASET, "class '1': column 'b' has missing cells (");
    assert_non_null(strstr(d.err.text, "as they come out of 'DropColumns' (hint: SimpleImputer"));
    after_open(&d, "SMOTENC: {}", FILLED WORDS "OneHotEncoder", false);
    expect_refused(&d, SM_E_DATASET, "(hint: SimpleImputer in 'ops', and {after: SimpleImputer})");
    after_open(&d, "SMOTE: {after: SimpleImputer}", FILLED WORDS "OneHotEncoder", false);
    expect_refused(&d, SM_E_PIPELINE, "2 columns hold categories, 'tree' first (hint: SMOTENC)");
    after_open(&d, "SMOTENC: {after: OneHotEncoder}", FILLED WORDS "OneHotEncoder", false);
    expect_refused(&d, SM_E_PIPELINE, "SMOTENC works on numbers and categories, and all 8 columns");
    after_close(&d);
    data_done(&d);
}

/* Half of the rows of each class tell the spread, and one lies where float32 ends after scaling. */
static void a_row_that_an_op_before_cannot_take_is_named(void **state) {
    (void)state;
    struct data d = data_make();
    char text[60 * 24];
    size_t n = (size_t)sprintf(text, "a,b,y\n");
    for (int i = 0; i < 40; i++)
        n += (size_t)sprintf(text + n, "%s,%d,%d\n",
                             i == 33 ? "1e38"
                             : i % 3 ? "1e-10"
                                     : "3e-10",
                             i % 7, i >= 28);
    scratch_text(&d.s, "t.csv", text);
    after_open(&d, "SMOTE: {after: RobustScaler}", "RobustScaler", false);
    expect_refused(
        &d, SM_E_DATASET,
        "row 33 of class '1' cannot be compared with others: 'RobustScaler' makes column "
        "'a' infinite");
    after_close(&d);
    data_done(&d);
}

/* Rows between others are made out of the mapped index; a file that somebody cuts short is an
 * error. */
static void an_index_that_is_cut_short_amid_synthetic_rows_is_an_error(void **state) {
    (void)state;
    enum { MANY = 3000, N = 64 };
    struct data d = data_make();
    struct learned l;
    struct sm_buf text;
    sm_buf_init(&text, 1 << 20);
    sm_buf_text(&text, "a,b,y\n");
    for (int i = 0; i < MANY; i++)
        sm_buf_printf(&text, "%d,%d.5,%d\n", i * 7 % 1000, i, i % 10 == 0);
    scratch_write(&d.s, "t.csv", text.data, text.len);
    sm_buf_release(&text);
    data_open(&d, "t.csv", ", format: csv, label: y", "rebalance: {SMOTE: {k_neighbors: 3}}\n");
    if (search(&d, &l) != 0 || data_place(&d, SM_PART_TRAIN, &l.artifact) != 0)
        fail_msg("%s", d.err.text);
    const struct sm_plan plan = {.samples = sm_places_samples(d.places), .copies = 1, .seed = 11};
    struct sm_placed placed[N];
    for (uint64_t i = 0, n = 0; n < N; i++) {
        placed[n] = sm_places_at(d.places, &plan, i);
        n += placed[n].synthetic;
    }
    struct sm_rows rows = rows_for(&d, sm_index_schema(d.index), N);
    assert_int_equal(sm_placed_rows(d.places, d.table, &l.artifact, placed, &rows, &d.err), 0);
    for (size_t i = 0; i < N; i++)
        assert_true(rows.f32[2 * i + 1] >= 0.5f && rows.f32[2 * i + 1] <= MANY);
    const char *index = scratch_path(&d.s, "index");
    struct stat st;
    assert_int_equal(stat(index, &st), 0);
    assert_int_equal(truncate(index, SM_INDEX_MATRIX), 0);
    assert_int_equal(sm_placed_rows(d.places, d.table, &l.artifact, placed, &rows, &d.err), -1);
    assert_int_equal(d.err.code, SM_E_CHANGED);
    assert_int_equal(truncate(index, st.st_size), 0);
    sm_rows_free(&rows);
    sm_arena_release(&l.arena);
    data_done(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        /* first: cmocka takes SIGBUS for itself at the beginning of each test */
        cmocka_unit_test(an_index_that_is_cut_short_amid_synthetic_rows_is_an_error),
        cmocka_unit_test(neighbours_are_those_of_the_rows_behind_the_op),
        cmocka_unit_test(ranges_behind_an_op_make_the_bytes_of_the_whole),
        cmocka_unit_test(a_plan_without_what_the_ops_learn_has_counts),
        cmocka_unit_test(synthetic_rows_lie_between_rows_behind_the_op),
        cmocka_unit_test(parts_of_the_ops_give_the_bytes_of_all),
        cmocka_unit_test(what_cannot_be_compared_behind_the_op_is_refused),
        cmocka_unit_test(a_row_that_an_op_before_cannot_take_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What SMOTE learns and makes: exact neighbours, against a plain search of all pairs, whatever the
 * numbers look like; synthetic rows that lie where they are said to. */
#include "workers/neighbours.h"
#include "tests/unit/tables.h"
#include "workers/synthesis.h"

#include <math.h>

struct learned {
    struct sm_artifact artifact;
    struct sm_arena arena;
};

static int learn(struct data *d, struct learned *l) {
    sm_arena_init(&l->arena, 64 << 20);
    if (data_place(d, SM_PART_TRAIN, NULL) != 0) fail_msg("%s", d->err.text);
    return sm_neighbours_learn(d->places, d->s.dir, d->root, NULL, &l->artifact, &l->arena,
                               &d->err);
}

static double random_unit(uint64_t *state) {
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(*state >> 11) * 0x1p-53;
}

/* Rows of a class, as the table holds them. Gives (sm_rows_free). */
static struct sm_rows class_rows(struct data *d, uint32_t label) {
    struct sm_rows r;
    const struct sm_schema *s = sm_index_schema(d->index);
    const uint64_t n = sm_places_class_samples(d->places, label);
    uint64_t *samples = calloc(n, sizeof *samples);
    for (uint64_t k = 0; k < n; k++)
        samples[k] = sm_places_class_sample(d->places, label, k);
    if (sm_rows_alloc(&r, n, s->n, s->is_double, &d->err) != 0 ||
        sm_table_read(d->table, samples, 0, n, &r, &d->err) != 0)
        fail_msg("%s", d->err.text);
    free(samples);
    return r;
}

static double cell(const struct sm_rows *r, size_t i, size_t k) {
    return r->is_double ? r->f64[i * r->columns + k] : (double)r->f32[i * r->columns + k];
}

/* The plain reference: all distances, sorted by (distance, number). category: what a difference in
 * a column of categories adds. */
static void nearest(const struct sm_rows *r, const struct sm_schema *s, double category, size_t i,
                    size_t k, uint32_t *out) {
    double *best = calloc(r->n, sizeof *best);
    for (size_t j = 0; j < r->n; j++)
        for (size_t c = 0; c < r->columns; c++) {
            const double x = cell(r, i, c) - cell(r, j, c);
            best[j] += s->columns[c].kind == SM_COLUMN_NUMBER ? x * x : x != 0 ? category : 0;
        }
    best[i] = INFINITY;
    for (size_t at = 0; at < k; at++) {
        size_t least = 0;
        for (size_t j = 1; j < r->n; j++)
            if (best[j] < best[least]) least = j;
        out[at] = (uint32_t)least;
        best[least] = INFINITY;
    }
    free(best);
}

/* Learns and compares each `step`-th row of the class 1. */
static void expect_exact(struct data *d, size_t k, double category, size_t step) {
    struct learned l;
    uint32_t want[32];
    if (learn(d, &l) != 0) fail_msg("%s", d->err.text);
    const struct sm_array *near = sm_artifact_find(&l.artifact, "neighbours"),
                          *offsets = sm_artifact_find(&l.artifact, "offsets");
    struct sm_rows rows = class_rows(d, 1);
    assert_int_equal(near->shape[0], rows.n);
    assert_int_equal(near->shape[1], k);
    const int64_t *at = offsets->data;
    assert_true(at[0] == 0 && at[1] == 0 && at[2] == (int64_t)rows.n);
    for (size_t i = 0; i < rows.n; i += step) {
        nearest(&rows, sm_index_schema(d->index), category, i, k, want);
        assert_memory_equal((const uint32_t *)near->data + i * k, want, k * sizeof *want);
    }
    sm_rows_free(&rows);
    sm_arena_release(&l.arena);
}

/* n rows of class 0 and m of class 1, `columns` numbers each by `make`. */
static void write_numbers(struct data *d, size_t n, size_t m, size_t columns,
                          double (*make)(uint64_t *)) {
    uint64_t state = 5;
    struct sm_buf text;
    sm_buf_init(&text, 64 << 20);
    for (size_t k = 0; k < columns; k++)
        sm_buf_printf(&text, "x%zu,", k);
    sm_buf_text(&text, "y\n");
    for (size_t i = 0; i < n + m; i++) {
        for (size_t k = 0; k < columns; k++)
            sm_buf_printf(&text, "%.17g,", make(&state));
        sm_buf_printf(&text, "%d\n", i >= n);
    }
    scratch_write(&d->s, "t.csv", text.data, text.len);
    sm_buf_release(&text);
}

static double spread_out(uint64_t *state) {
    return random_unit(state) * 20 - 7;
}
static double on_a_grid(uint64_t *state) {
    return floor(random_unit(state) * 3);
}
static double far_from_zero(uint64_t *state) {
    return 1e7 + random_unit(state);
}
static double next_to_nothing(uint64_t *state) {
    return random_unit(state) * 1e-22;
}
static double beyond_float(uint64_t *state) {
    return random_unit(state) * 1e100;
}
static double in_two_heaps(uint64_t *state) {
    return (random_unit(state) < 0.5 ? 1e6 : -1e6) + random_unit(state);
}
static double beside_an_outlier(uint64_t *state) {
    return random_unit(state) < 0.002 ? 1e8 : random_unit(state);
}
static double at_the_ends_of_float(uint64_t *state) {
    return random_unit(state) < 0.5 ? random_unit(state) * 3e19 : random_unit(state) * 1e-19;
}
static double of_all_sizes(uint64_t *state) {
    return ldexp(random_unit(state) - 0.5, (int)(random_unit(state) * 60) - 30);
}

static void neighbours_equal_those_of_a_plain_search(void **state) {
    (void)state;
    static const struct {
        double (*make)(uint64_t *);
        size_t columns;
        bool wide_only; /* not a number in float32 */
    } cases[] = {
        {spread_out, 7, false},    {spread_out, 1, false},          {on_a_grid, 2, false},
        {far_from_zero, 5, false}, {next_to_nothing, 4, false},     {beyond_float, 4, true},
        {of_all_sizes, 3, false},  {in_two_heaps, 1, false},        {beside_an_outlier, 5, false},
        {spread_out, 70, false},   {at_the_ends_of_float, 2, false}};
    struct data d = data_make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_numbers(&d, 610, 600, cases[i].columns, cases[i].make);
        for (int wide = cases[i].wide_only; wide < 2; wide++) {
            data_open(&d, "t.csv",
                      wide ? ", format: csv, label: y, float64: true" : ", format: csv, label: y",
                      "rebalance: {SMOTE: {k_neighbors: 6}}\n");
            expect_exact(&d, 6, 0, 1);
        }
    }
    data_done(&d);
}

/* The artifact of all ranges, made one after the other, a step of each at a time when they are
 * `woven`: so they share nothing that they change. */
static void expect_ranges_equal_the_whole(struct data *d, bool woven) {
    enum { MOST = 64 };
    struct learned whole, ranged = {0};
    struct sm_neighbours_search *search;
    struct sm_neighbours_range *ranges[MOST];
    struct sm_buf state;
    if (learn(d, &whole) != 0) fail_msg("%s", d->err.text);
    sm_arena_init(&ranged.arena, 64 << 20);
    sm_buf_init(&state, 1 << 20);
    if (sm_neighbours_search_new(&search, d->places, d->s.dir, d->root, &d->err) != 0 ||
        sm_neighbours_state(search, &state, &d->err) != 0)
        fail_msg("%s", d->err.text);
    const struct sm_neighbours_plan *plan = sm_neighbours_search_plan(search);
    const struct sm_array *want = sm_artifact_find(&whole.artifact, "neighbours");
    assert_int_equal(plan->rows, want->shape[0]);
    assert_int_equal(plan->state_bytes, state.len);
    assert_in_range(plan->ranges, 2, MOST);
    assert_true(plan->ranges * plan->range_rows >= plan->rows &&
                (plan->ranges - 1) * plan->range_rows < plan->rows);
    assert_true(plan->memory > 0 && plan->memory <= SM_MAX_NEIGHBOR_BYTES);
    uint32_t *partials = malloc(plan->ranges * plan->partial_bytes);
    memset(partials, 0xff, plan->ranges * plan->partial_bytes);
    for (uint64_t i = 0; i < plan->ranges; i++)
        if (sm_neighbours_range_new(&ranges[i], search, &state, i,
                                    partials + i * plan->partial_bytes / sizeof *partials,
                                    &d->err) != 0)
            fail_msg("%s", d->err.text);
    for (uint64_t i = 0, left = plan->ranges; left > 0; i = (i + (woven ? 1 : 0)) % plan->ranges) {
        while (ranges[i] == NULL)
            i = (i + 1) % plan->ranges;
        const uint64_t before = sm_neighbours_range_at(ranges[i]);
        const int r = sm_neighbours_range_step(ranges[i], &d->err);
        if (r < 0) fail_msg("%s", d->err.text);
        assert_true(sm_neighbours_range_at(ranges[i]) > before);
        if (r == 0) continue;
        sm_neighbours_range_free(&ranges[i]);
        left--;
    }
    if (sm_neighbours_finish(search, partials, &ranged.artifact, &ranged.arena, &d->err) != 0)
        fail_msg("%s", d->err.text);
    assert_memory_equal(partials, want->data, want->shape[0] * want->shape[1] * sizeof *partials);
    assert_int_equal(sm_artifact_write(&whole.artifact, d->s.dir, &d->err), 0);
    assert_int_equal(sm_artifact_write(&ranged.artifact, d->s.dir, &d->err), 0);
    assert_string_equal(whole.artifact.sha256, ranged.artifact.sha256);
    assert_int_equal(sm_artifact_size(&whole.artifact), plan->artifact);
    partials[plan->k] = (uint32_t)plan->rows;
    assert_int_equal(
        sm_neighbours_finish(search, partials, &ranged.artifact, &ranged.arena, &d->err), -1);
    free(partials);
    sm_buf_release(&state);
    sm_neighbours_search_free(&search);
    sm_arena_release(&whole.arena);
    sm_arena_release(&ranged.arena);
}

/* Rows so wide that two blocks of them and more make the class. */
static void neighbours_are_exact_across_blocks(void **state) {
    (void)state;
    enum { COLUMNS = 65536, MINOR = 300, ALL = MINOR + 2 };
    struct data d = data_make();
    char path[512], header[128];
    snprintf(path, sizeof path, "%s/t.npy", d.s.dir);
    FILE *f = fopen(path, "wb");
    float *row = malloc(COLUMNS * sizeof *row);
    assert_true(f != NULL && row != NULL);
    memset(header, ' ', sizeof header);
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10);
    int n = sprintf(header + 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }",
                    ALL, COLUMNS);
    header[10 + n] = ' ';
    header[127] = '\n';
    assert_int_equal(fwrite(header, 1, 128, f), 128);
    for (int i = 0; i < ALL; i++) {
        for (int k = 0; k < COLUMNS; k++)
            row[k] = (float)(i * 37 % 300 * (i * 37 % 300) * (k % 7));
        assert_int_equal(fwrite(row, sizeof *row, COLUMNS, f), COLUMNS);
    }
    assert_int_equal(fclose(f), 0);
    free(row);
    int64_t labels[ALL];
    for (int i = 0; i < ALL; i++)
        labels[i] = i < MINOR;
    memset(header + 10, ' ', 117);
    n = sprintf(header + 10, "{'descr': '<i8', 'fortran_order': False, 'shape': (%d,), }", ALL);
    header[10 + n] = ' ';
    char bytes[128 + sizeof labels];
    memcpy(bytes, header, 128);
    memcpy(bytes + 128, labels, sizeof labels);
    scratch_write(&d.s, "y.npy", bytes, sizeof bytes);
    data_open(&d, "t.npy", ", format: npy, label: y.npy",
              "rebalance: {SMOTE: {k_neighbors: 1, sampling_strategy: {\"1\": 301}}}\n");
    expect_exact(&d, 1, 0, 60);
    expect_ranges_equal_the_whole(&d, false);
    data_done(&d);
}

static void write_mixed(struct data *d) {
    uint64_t state = 3;
    char text[400 * 60];
    size_t n = (size_t)sprintf(text, "colour,a,shape,b,y\n");
    for (int i = 0; i < 300; i++)
        n += (size_t)sprintf(text + n, "c%d,%.6g,%s,%.6g,%d\n", (int)(random_unit(&state) * 4),
                             random_unit(&state) * 3, random_unit(&state) < 0.3 ? "round" : "flat",
                             random_unit(&state), i % 3 == 0);
    scratch_write(&d->s, "t.csv", text, n);
}

/* The median of the two columns' standard deviations over the class, squared. */
static double category_weight(const struct sm_rows *r) {
    double sd[2];
    for (size_t c = 0; c < 2; c++) {
        double mean = 0, var = 0;
        for (size_t i = 0; i < r->n; i++)
            mean += cell(r, i, 1 + 2 * c) / (double)r->n;
        for (size_t i = 0; i < r->n; i++)
            var += pow(cell(r, i, 1 + 2 * c) - mean, 2) / (double)r->n;
        sd[c] = sqrt(var);
    }
    return pow((sd[0] + sd[1]) / 2, 2);
}

static void categories_count_in_distances_as_the_paper_says(void **state) {
    (void)state;
    struct data d = data_make();
    write_mixed(&d);
    data_open(&d, "t.csv", ", format: csv, label: y, float64: true", "rebalance: {SMOTENC: {}}\n");
    assert_int_equal(data_place(&d, SM_PART_TRAIN, NULL), 0);
    struct sm_rows rows = class_rows(&d, 1);
    expect_exact(&d, 5, category_weight(&rows), 1);
    sm_rows_free(&rows);
    data_done(&d);
}

/* Classes of which ranges hold several, and classes that lie in several ranges. */
static void write_classes(struct data *d, double (*make)(uint64_t *), bool mixed) {
    static const int sizes[] = {2600, 2100, 40, 900, 30, 25, 1300};
    uint64_t state = 9;
    struct sm_buf text;
    sm_buf_init(&text, 64 << 20);
    sm_buf_text(&text, "a,b,c,y\n");
    for (int c = 0; c < 7; c++)
        for (int i = 0; i < sizes[c]; i++) {
            sm_buf_printf(&text, "%.17g,%.17g,", make(&state), make(&state));
            if (mixed)
                sm_buf_printf(&text, "w%d,", (int)(random_unit(&state) * 5));
            else
                sm_buf_printf(&text, "%.17g,", make(&state));
            sm_buf_printf(&text, "%d\n", c);
        }
    scratch_write(&d->s, "t.csv", text.data, text.len);
    sm_buf_release(&text);
}

static void ranges_of_rows_make_the_bytes_of_the_whole(void **state) {
    (void)state;
    static const struct {
        double (*make)(uint64_t *);
        bool mixed;
    } cases[] = {{spread_out, false},      {on_a_grid, false}, {far_from_zero, false},
                 {spread_out, true},       {on_a_grid, true},  {in_two_heaps, false},
                 {beside_an_outlier, true}};
    struct data d = data_make();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_classes(&d, cases[i].make, cases[i].mixed);
        data_open(&d, "t.csv",
                  i % 2 ? ", format: csv, label: y" : ", format: csv, label: y, float64: true",
                  cases[i].mixed ? "rebalance: {SMOTENC: {}}\n"
                                 : "rebalance: {SMOTE: {k_neighbors: 7}}\n");
        expect_ranges_equal_the_whole(&d, i % 2 != 0);
    }
    data_done(&d);
}

static void a_range_refuses_the_state_of_another_search(void **state) {
    (void)state;
    struct data d = data_make();
    struct sm_neighbours_search *search;
    struct sm_neighbours_range *range;
    struct sm_buf bytes;
    write_classes(&d, spread_out, false);
    data_open(&d, "t.csv", ", format: csv, label: y", "rebalance: {SMOTE: {}}\n");
    assert_int_equal(data_place(&d, SM_PART_TRAIN, NULL), 0);
    assert_int_equal(sm_neighbours_search_new(&search, d.places, d.s.dir, d.root, &d.err), 0);
    sm_buf_init(&bytes, 1 << 20);
    sm_buf_text(&bytes, "of another");
    assert_int_equal(sm_neighbours_range_new(&range, search, &bytes, 0, NULL, &d.err), -1);
    assert_int_equal(d.err.code, SM_E_DIFFERS);
    assert_null(range);
    sm_buf_release(&bytes);
    sm_neighbours_search_free(&search);
    data_done(&d);
}

static void a_missing_cell_is_refused_by_column_and_count(void **state) {
    (void)state;
    struct data d = data_make();
    struct learned l;
    scratch_text(&d.s, "t.csv",
                 "a,b,y\n1,2,0\n1,2,0\n1,2,0\n1,2,0\n1,2,0\n1,2,1\n3,,1\n4,1,1\n,,1\n");
    data_open(&d, "t.csv", ", format: csv, label: y", "rebalance: {SMOTE: {k_neighbors: 2}}\n");
    assert_int_equal(learn(&d, &l), -1);
    assert_non_null(strstr(d.err.text, "class '1': column 'b' has missing cells (3 in all"));
    sm_arena_release(&l.arena);
    data_done(&d);
}

/* --- synthetic rows --------------------------------------------------------------------------- */

static struct sm_plan plan_of(const struct data *d, uint32_t epoch, uint32_t copies) {
    return (struct sm_plan){.samples = sm_places_samples(d->places),
                            .copies = copies,
                            .shuffle = true,
                            .seed = 11,
                            .epoch = epoch,
                            .shard_samples = 10};
}

/* The row at a position, made. */
static void row_make(struct data *d, const struct sm_artifact *a, const struct sm_placed *at,
                     struct sm_rows *row) {
    if (sm_placed_rows(d->places, d->table, a, at, row, &d->err) != 0) fail_msg("%s", d->err.text);
}

static struct sm_rows row_alloc(struct data *d) {
    struct sm_rows r;
    const struct sm_schema *s = sm_index_schema(d->index);
    assert_int_equal(sm_rows_alloc(&r, 1, s->n, s->is_double, &d->err), 0);
    return r;
}

static void open_learned(struct data *d, const char *rest, struct learned *l) {
    data_open(d, "t.csv", ", format: csv, label: y, float64: true", rest);
    if (learn(d, l) != 0 || data_place(d, SM_PART_TRAIN, &l->artifact) != 0)
        fail_msg("%s", d->err.text);
}

static void a_synthetic_row_lies_between_its_parent_and_a_neighbour(void **state) {
    (void)state;
    struct data d = data_make();
    struct learned l;
    write_numbers(&d, 200, 20, 3, spread_out);
    open_learned(&d, "rebalance: {SMOTE: {}}\nsplit: {val: 0.1}\n", &l);
    struct sm_rows row = row_alloc(&d), ends[2] = {row_alloc(&d), row_alloc(&d)};
    const struct sm_plan plan = plan_of(&d, 4, 1);
    const uint32_t *near = sm_artifact_find(&l.artifact, "neighbours")->data;
    int made = 0;
    for (uint64_t i = 0; i < sm_plan_positions(&plan); i++) {
        const struct sm_placed at = sm_places_at(d.places, &plan, i);
        if (!at.synthetic) continue;
        bool found = false;
        for (size_t k = 0; k < 5; k++)
            found |= at.neighbour == sm_places_class_sample(d.places, 1, near[at.parent * 5 + k]);
        assert_true(found && at.label == 1 && at.gap >= 0 && at.gap < 1);
        assert_int_equal(at.sample, sm_places_class_sample(d.places, 1, at.parent));
        row_make(&d, &l.artifact, &at, &row);
        sm_table_read(d.table, &at.sample, 0, 1, &ends[0], &d.err);
        sm_table_read(d.table, &at.neighbour, 0, 1, &ends[1], &d.err);
        for (size_t k = 0; k < 3; k++)
            assert_true(fabs(row.f64[k] - (ends[0].f64[k] +
                                           at.gap * (ends[1].f64[k] - ends[0].f64[k]))) < 1e-12);
        made++;
    }
    assert_int_equal(made, 180 - 18);
    for (int i = 0; i < 2; i++)
        sm_rows_free(&ends[i]);
    sm_rows_free(&row);
    sm_arena_release(&l.arena);
    data_done(&d);
}

/* Blocks of all sizes, of rows that lie in memory and of rows that do not. */
static void a_block_of_places_is_its_rows_one_by_one(void **state) {
    (void)state;
    static const char *const methods[] = {"rebalance: {SMOTE: {}}\n", "rebalance: {SMOTENC: {}}\n",
                                          "rebalance: {RandomOverSampler: {shrinkage: 1}}\n", ""};
    enum { MOST = 150 };
    static struct sm_placed places[MOST];
    static uint64_t positions[MOST];
    struct data d = data_make();
    for (int m = 0; m < 8; m++) {
        struct learned l = {0};
        struct sm_rows row, rows;
        if (m % 4 == 1)
            write_mixed(&d);
        else
            write_numbers(&d, 200, 50, 3, spread_out);
        data_open(&d, "t.csv",
                  m < 4 ? ", format: csv, label: y" : ", format: csv, label: y, float64: true",
                  methods[m % 4]);
        if (m % 4 != 3) assert_int_equal(learn(&d, &l), 0);
        assert_int_equal(data_place(&d, SM_PART_TRAIN, m % 4 != 3 ? &l.artifact : NULL), 0);
        const struct sm_schema *s = sm_index_schema(d.index);
        const struct sm_plan plan = plan_of(&d, 3, 1);
        const size_t bytes = s->n * (s->is_double ? sizeof(double) : sizeof(float));
        row = row_alloc(&d);
        assert_int_equal(sm_rows_alloc(&rows, MOST, s->n, s->is_double, &d.err), 0);
        for (size_t n = 0; n <= MOST; n += 1 + n / 5) {
            for (size_t i = 0; i < n; i++)
                positions[i] = (i * 7 + n) % sm_plan_positions(&plan);
            sm_places_many(d.places, &plan, positions, n, places);
            rows.n = n;
            assert_int_equal(sm_placed_rows(d.places, d.table, &l.artifact, places, &rows, &d.err),
                             0);
            for (size_t i = 0; i < n; i++) {
                row_make(&d, &l.artifact, &places[i], &row);
                assert_memory_equal(row.data, (const char *)rows.data + i * bytes, bytes);
            }
        }
        sm_rows_free(&row);
        sm_rows_free(&rows);
        if (m % 4 != 3) sm_arena_release(&l.arena);
    }
    data_done(&d);
}

/* Over all added rows of two copies and two epochs: none is another's twin, and each is made alike
 * when it is made again. */
static void added_rows_differ_by_copy_and_epoch_and_are_made_alike_again(void **state) {
    (void)state;
    static const char *const methods[] = {"rebalance: {SMOTE: {}}\n",
                                          "rebalance: {RandomOverSampler: {shrinkage: 1}}\n"};
    struct data d = data_make();
    for (int m = 0; m < 2; m++) {
        struct learned l;
        double seen[1000];
        int n = 0;
        write_numbers(&d, 100, 20, 2, spread_out);
        open_learned(&d, methods[m], &l);
        struct sm_rows row = row_alloc(&d), again = row_alloc(&d);
        for (uint32_t epoch = 0; epoch < 2; epoch++) {
            const struct sm_plan plan = plan_of(&d, epoch, 2);
            for (uint64_t i = 0; i < sm_plan_positions(&plan); i++) {
                const struct sm_placed at = sm_places_at(d.places, &plan, i);
                if (!at.synthetic) continue;
                row_make(&d, &l.artifact, &at, &row);
                row_make(&d, &l.artifact, &at, &again);
                assert_memory_equal(row.f64, again.f64, 2 * sizeof(double));
                for (int k = 0; k < n; k++)
                    assert_true(seen[k] != row.f64[0]);
                seen[n++] = row.f64[0];
            }
        }
        assert_int_equal(n, 4 * 80);
        sm_rows_free(&row);
        sm_rows_free(&again);
        sm_arena_release(&l.arena);
    }
    data_done(&d);
}

/* imbalanced-learn's formula: shrinkage x (4 / ((d + 2) n))^(1 / (d + 4)) x standard deviation. */
static void noise_is_as_wide_as_the_smoothed_bootstraps(void **state) {
    (void)state;
    struct data d = data_make();
    struct learned l;
    write_numbers(&d, 4000, 100, 2, spread_out);
    open_learned(&d, "rebalance: {RandomOverSampler: {shrinkage: {\"1\": 0.5}}}\n", &l);
    struct sm_rows rows = class_rows(&d, 1), row = row_alloc(&d);
    const struct sm_plan plan = plan_of(&d, 0, 1);
    double sum[2] = {0}, square[2] = {0}, n = 0;
    for (uint64_t i = 0; i < sm_plan_positions(&plan); i++) {
        const struct sm_placed at = sm_places_at(d.places, &plan, i);
        if (!at.synthetic) continue;
        row_make(&d, &l.artifact, &at, &row);
        struct sm_rows parent = row_alloc(&d);
        sm_table_read(d.table, &at.sample, 0, 1, &parent, &d.err);
        for (size_t k = 0; k < 2; k++) {
            const double noise = row.f64[k] - parent.f64[k];
            sum[k] += noise;
            square[k] += noise * noise;
        }
        sm_rows_free(&parent);
        n++;
    }
    assert_true(n == 3900);
    for (size_t k = 0; k < 2; k++) {
        double mean = 0, var = 0;
        for (size_t i = 0; i < rows.n; i++)
            mean += cell(&rows, i, k) / (double)rows.n;
        for (size_t i = 0; i < rows.n; i++)
            var += pow(cell(&rows, i, k) - mean, 2) / (double)rows.n;
        const double want = 0.5 * pow(4.0 / (4 * 4100), 1.0 / 6) * sqrt(var);
        const double got = sqrt(square[k] / n - pow(sum[k] / n, 2));
        assert_true(fabs(sum[k] / n) < 5 * want / sqrt(n)); /* five standard errors */
        assert_true(fabs(got / want - 1) < 5 / sqrt(2 * n));
        const double scale = ((const double *)sm_artifact_find(&l.artifact, "scales")->data)[2 + k];
        assert_true(fabs(scale / want - 1) < 1e-12);
    }
    sm_rows_free(&rows);
    sm_rows_free(&row);
    sm_arena_release(&l.arena);
    data_done(&d);
}

static void categories_of_a_synthetic_row_are_the_neighbours_most_frequent(void **state) {
    (void)state;
    struct data d = data_make();
    struct learned l;
    write_mixed(&d);
    open_learned(&d, "rebalance: {SMOTENC: {}}\n", &l);
    struct sm_rows rows = class_rows(&d, 1), row = row_alloc(&d);
    const uint32_t *near = sm_artifact_find(&l.artifact, "neighbours")->data;
    const struct sm_plan plan = plan_of(&d, 0, 1);
    for (uint64_t i = 0; i < sm_plan_positions(&plan); i++) {
        const struct sm_placed at = sm_places_at(d.places, &plan, i);
        if (!at.synthetic) continue;
        row_make(&d, &l.artifact, &at, &row);
        for (size_t c = 0; c <= 2; c += 2) { /* no other category is more frequent */
            int votes[4] = {0};
            for (size_t k = 0; k < 5; k++)
                votes[(int)cell(&rows, near[at.parent * 5 + k], c)]++;
            for (int v = 0; v < 4; v++)
                assert_true(votes[v] <= votes[(int)row.f64[c]]);
        }
    }
    sm_rows_free(&rows);
    sm_rows_free(&row);
    sm_arena_release(&l.arena);
    data_done(&d);
}

static void neighbours_of_another_dataset_are_refused(void **state) {
    (void)state;
    struct data d = data_make(), e = data_make();
    struct learned l;
    write_numbers(&d, 100, 20, 2, spread_out);
    open_learned(&d, "rebalance: {SMOTE: {}}\n", &l);
    write_numbers(&e, 100, 21, 2, spread_out);
    data_open(&e, "t.csv", ", format: csv, label: y", "rebalance: {SMOTE: {}}\n");
    assert_int_equal(data_place(&e, SM_PART_TRAIN, &l.artifact), -1);
    assert_int_equal(e.err.code, SM_E_DIFFERS);
    /* fewer neighbours than the method wants */
    data_open(&d, "t.csv", ", format: csv, label: y", "rebalance: {SMOTE: {k_neighbors: 7}}\n");
    assert_int_equal(data_place(&d, SM_PART_TRAIN, &l.artifact), -1);
    assert_int_equal(d.err.code, SM_E_DIFFERS);
    /* none at all, where some are needed; and a number that is no row */
    data_open(&d, "t.csv", ", format: csv, label: y", "rebalance: {SMOTE: {}}\n");
    struct sm_artifact broken = l.artifact;
    broken.n = 1;
    assert_int_equal(data_place(&d, SM_PART_TRAIN, &broken), -1);
    uint32_t *numbers = (uint32_t *)sm_artifact_find(&l.artifact, "neighbours")->data;
    numbers[33] = 20;
    assert_int_equal(data_place(&d, SM_PART_TRAIN, &l.artifact), -1);
    int64_t *offsets = (int64_t *)sm_artifact_find(&l.artifact, "offsets")->data;
    numbers[33] = 2;
    offsets[0] = offsets[1] = -4;
    offsets[2] = 16;
    assert_int_equal(data_place(&d, SM_PART_TRAIN, &l.artifact), -1);
    sm_arena_release(&l.arena);
    data_done(&d);
    data_done(&e);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbours_equal_those_of_a_plain_search),
        cmocka_unit_test(neighbours_are_exact_across_blocks),
        cmocka_unit_test(categories_count_in_distances_as_the_paper_says),
        cmocka_unit_test(ranges_of_rows_make_the_bytes_of_the_whole),
        cmocka_unit_test(a_range_refuses_the_state_of_another_search),
        cmocka_unit_test(a_missing_cell_is_refused_by_column_and_count),
        cmocka_unit_test(a_synthetic_row_lies_between_its_parent_and_a_neighbour),
        cmocka_unit_test(a_block_of_places_is_its_rows_one_by_one),
        cmocka_unit_test(added_rows_differ_by_copy_and_epoch_and_are_made_alike_again),
        cmocka_unit_test(noise_is_as_wide_as_the_smoothed_bootstraps),
        cmocka_unit_test(categories_of_a_synthetic_row_are_the_neighbours_most_frequent),
        cmocka_unit_test(neighbours_of_another_dataset_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

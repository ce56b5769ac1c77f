/* Shards of rows: however a shard is cut into leases its bytes are the same, and Python's own csv
 * and numpy read exactly the numbers and words that went in. */
#include "tests/unit/scratch.h"
#include "workers/sinks/sink.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum { ROWS = 40, COLUMNS = 4, SHARD = 25 };

static const char *const colours[] = {"", "blue, dark", "red"};
static const char *const classes[] = {"no", "yes \"really\"", "a\nb"};
static struct sm_column columns[COLUMNS] = {
    {.name = "plain"},
    {.name = "with, comma"},
    {.name = "colour", .kind = SM_COLUMN_CATEGORY, .categories = colours, .n_categories = 3},
    {.name = "said \"so\""},
};
static const struct sm_schema schema_of[2] = {{columns, COLUMNS, false}, {columns, COLUMNS, true}};

static struct sm_row_format format_of(enum sm_shard_format format, bool is_double) {
    return (struct sm_row_format){.format = format,
                                  .is_double = is_double,
                                  .schema = &schema_of[is_double],
                                  .classes = classes,
                                  .n_classes = 3,
                                  .row_name = "row",
                                  .copy = true,
                                  .parents = true,
                                  .plan = {.samples = ROWS, .copies = 1, .shard_samples = SHARD}};
}

/* The i-th row: numbers with many digits, whole, missing, without end, and as small as there are.
 */
static void row(size_t i, double x[COLUMNS]) {
    static const double special[] = {0.1,     -0.0,   1e300,   5e-324, 16777217, NAN, INFINITY,
                                     -1.5e-7, 123456, 1.0 / 3, 0,      -2,       1e22};
    x[0] = special[i % 13];
    x[1] = (double)((i * 2654435761u) % 1000003) / 997.0 - 400;
    x[2] = i % 4 == 3 ? NAN : (double)(i % 4);
    x[3] = pow(1.7, (double)i) * (i % 2 ? -1 : 1);
}

static struct sm_row_record record(size_t i) {
    bool synthetic = i % 5 == 4;
    return (struct sm_row_record){.row = synthetic ? -1 : (int64_t)(1000 + i),
                                  .label = (uint32_t)(i % 3),
                                  .copy = (uint32_t)(i / 30),
                                  .parent = synthetic ? (int64_t)i : -1,
                                  .neighbour = synthetic ? (int64_t)i + 7 : -1,
                                  .gap = synthetic ? (double)i / 41 : NAN,
                                  .weight = (float)(i + 1) / 7};
}

static struct sm_part_name write_part(const char *dir, const struct sm_row_format *f,
                                      uint64_t shard, uint64_t first, uint32_t n, bool last) {
    struct sm_part_name name = {.shard = shard, .first = first, .count = n};
    struct sm_err err = {0};
    struct sm_part *p;
    if (sm_part_open_rows(&p, dir, &name, f, &err) != 0) fail_msg("%s", err.text);
    double wide[ROWS][COLUMNS];
    float narrow[ROWS][COLUMNS];
    struct sm_row_record records[ROWS];
    for (size_t i = 0; i < n; i++) {
        row(first + i, wide[i]);
        for (int c = 0; c < COLUMNS; c++)
            narrow[i][c] = (float)wide[i][c];
        records[i] = record(first + i);
    }
    uint32_t half = n / 2; /* in two calls, of which one may be empty */
    for (int k = 0; k < 2; k++) {
        uint32_t from = k ? half : 0;
        struct sm_rows rows = {.n = k ? n - half : half,
                               .columns = COLUMNS,
                               .is_double = f->schema->is_double,
                               .data = f->schema->is_double ? (void *)wide[from]
                                                            : (void *)narrow[from]};
        if (sm_part_rows(p, &rows, records + from, &err) != 0) fail_msg("%s", err.text);
    }
    uint64_t bytes;
    char sha[SM_SHA_HEX];
    if (sm_part_finish(&p, last, &bytes, sha, &err) != 0) fail_msg("%s", err.text);
    return name;
}

static void seal(const char *dir, const struct sm_row_format *f, uint64_t shard,
                 const struct sm_part_name *parts, size_t n) {
    uint64_t bytes;
    char sha[SM_SHA_HEX];
    struct sm_err err = {0};
    if (sm_seal(dir, shard, f->format, parts, n, NULL, &bytes, sha, &err) != 0)
        fail_msg("%s", err.text);
}

/* Both shards, the first in parts of `cut` rows. */
static void write_shards(const char *dir, const struct sm_row_format *f, uint32_t cut) {
    struct sm_part_name parts[SHARD];
    size_t n = 0;
    for (uint32_t at = 0; at < SHARD; at += cut, n++) {
        uint32_t count = SHARD - at < cut ? SHARD - at : cut;
        parts[n] = write_part(dir, f, 0, at, count, at + count == SHARD);
    }
    seal(dir, f, 0, parts, n);
    parts[0] = write_part(dir, f, 1, SHARD, ROWS - SHARD, true);
    seal(dir, f, 1, parts, 1);
}

static void a_shards_bytes_do_not_tell_how_it_was_cut(void **state) {
    (void)state;
    for (int format = SM_SHARD_CSV; format <= SM_SHARD_NPY; format++) {
        const struct sm_row_format f = format_of((enum sm_shard_format)format, false);
        char name[SM_PART_NAME_MAX];
        sm_shard_file(0, f.format, name);
        struct scratch whole = scratch_make();
        write_shards(whole.dir, &f, SHARD);
        size_t want_n, n;
        void *want = scratch_read(scratch_path(&whole, name), &want_n);
        for (uint32_t cut = 1; cut < SHARD; cut += 5) {
            struct scratch s = scratch_make();
            write_shards(s.dir, &f, cut);
            void *got = scratch_read(scratch_path(&s, name), &n);
            assert_int_equal(n, want_n);
            assert_memory_equal(got, want, n);
            free(got);
            scratch_remove(&s);
        }
        free(want);
        scratch_remove(&whole);
    }
}

/* What the rows are, as Python would write them: floats by their bits. */
static void write_expected(struct scratch *s, bool is_double) {
    static char text[1 << 16];
    int n = snprintf(text, sizeof text, "rows = [\n");
    for (size_t i = 0; i < ROWS; i++) {
        double x[COLUMNS];
        struct sm_row_record r = record(i);
        row(i, x);
        n += snprintf(text + n, sizeof text - (size_t)n, " ([");
        for (int c = 0; c < COLUMNS; c++) {
            double v = is_double ? x[c] : (double)(float)x[c];
            n += snprintf(text + n, sizeof text - (size_t)n, "float.fromhex('%a'), ", v);
        }
        n += snprintf(text + n, sizeof text - (size_t)n,
                      "], %u, %lld, %u, %lld, %lld, float.fromhex('%a')),\n", r.label,
                      (long long)r.row, r.copy, (long long)r.parent, (long long)r.neighbour, r.gap);
    }
    snprintf(
        text + n, sizeof text - (size_t)n,
        "]\ncolours = ['', 'blue, dark', 'red']\nclasses = ['no', 'yes \"really\"', 'a\\nb']\n");
    scratch_text(s, "expected.py", text);
}

/* Runs the script in the folder that has the shards. */
static void check_by_python(struct scratch *s, const char *script, const char *argument) {
    char command[1024];
    scratch_text(s, "check.py", script);
    snprintf(command, sizeof command, "cd %s && /usr/bin/python3 -B check.py %s", s->dir, argument);
    assert_int_equal(system(command), 0);
}

static void python_reads(enum sm_shard_format format, bool is_double, const char *script) {
    struct scratch s = scratch_make();
    const struct sm_row_format f = format_of(format, is_double);
    write_shards(s.dir, &f, 10);
    write_expected(&s, is_double);
    check_by_python(&s, script, is_double ? "8" : "4");
    scratch_remove(&s);
}

static void pythons_csv_module_reads_the_same_numbers_and_words(void **state) {
    (void)state;
    static const char script[] =
        "import csv, sys, struct\n"
        "from expected import rows, colours, classes\n"
        "size = int(sys.argv[1])\n"
        "narrow = (lambda x: x) if size == 8 else lambda x: struct.unpack('f', struct.pack('f', x))[0]\n"
        "names = ['plain', 'with, comma', 'colour', 'said \"so\"', 'label', 'row', 'copy', 'parent',"
        " 'neighbour', 'gap']\n"
        "def number(x, to=float): return '' if x != x else x\n"
        "at = 0\n"
        "for shard, n in ((0, 25), (1, 15)):\n"
        "    lines = list(csv.reader(open('shard-%06d.csv' % shard, newline=''), strict=True))\n"
        "    assert lines[0] == names, lines[0]\n"
        "    assert len(lines) == n + 1, len(lines)\n"
        "    for cells in lines[1:]:\n"
        "        x, label, row, copy, parent, neighbour, gap = rows[at]\n"
        "        for c in (0, 1, 3):\n"
        "            assert (cells[c] == '') == (x[c] != x[c]), cells\n"
        "            if cells[c]:\n"
        "                assert narrow(float(cells[c])) == x[c], (cells[c], x[c])\n"
        "                assert cells[c].startswith('-') == (str(x[c])[0] == '-'), cells[c]\n"
        "                digits = len(cells[c].split('e')[0].strip('-').replace('.', '').strip('0'))\n"
        "                best = min(d for d in range(1, 18) if narrow(float('%.*g' % (d, x[c]))) == x[c]) \\\n"
        "                    if abs(x[c]) != float('inf') else digits\n"
        "                assert digits <= best or x[c] == int(x[c]), (cells[c], best)\n"
        "        assert cells[2] == ('' if x[2] != x[2] else colours[int(x[2])])\n"
        "        assert cells[4] == classes[label]\n"
        "        whole = lambda v: '' if v < 0 else str(v)\n"
        "        assert cells[5:9] == [whole(v) for v in (row, copy, parent, neighbour)], cells\n"
        "        assert cells[9] == '' if gap != gap else float(cells[9]) == gap, cells\n"
        "        at += 1\n"
        "assert at == len(rows)\n";
    python_reads(SM_SHARD_CSV, false, script);
    python_reads(SM_SHARD_CSV, true, script);
}

static void numpy_loads_a_shard_as_one_array_of_records(void **state) {
    (void)state;
    static const char script[] =
        "import numpy as np, sys\n"
        "from expected import rows\n"
        "size = int(sys.argv[1])\n"
        "both = [np.load('shard-%06d.npy' % k, allow_pickle=False) for k in (0, 1)]\n"
        "assert [b.shape for b in both] == [(25,), (15,)]\n"
        "a = np.concatenate(both)\n"
        "assert a.dtype.names == ('features', 'label', 'row', 'copy', 'parent', 'neighbour', 'gap')\n"
        "assert a['features'].dtype == '<f%d' % size and a['features'].shape == (40, 4)\n"
        "assert np.array_equal(a['features'], np.array([r[0] for r in rows]), equal_nan=True)\n"
        "for k, name in enumerate(('label', 'row', 'copy', 'parent', 'neighbour', 'gap'), 1):\n"
        "    assert np.array_equal(a[name], [r[k] for r in rows], equal_nan=name == 'gap'), name\n"
        "data = open('shard-000000.npy', 'rb').read()\n"
        "assert (len(data) - 25 * a.dtype.itemsize) % 64 == 0\n";
    python_reads(SM_SHARD_NPY, false, script);
    python_reads(SM_SHARD_NPY, true, script);
}

/* Numbers of all sizes, among them those at the borders of digits and of the fast way, read back to
 * the bit and are no longer than they have to be. */
static void every_number_reads_back_in_the_fewest_digits(void **state) {
    (void)state;
    enum { NUMBERS = 60000 };
    static float x[NUMBERS];
    static double wide[NUMBERS];
    static struct sm_row_record records[NUMBERS];
    uint64_t bits = 1;
    for (int i = 0; i < NUMBERS; i++) {
        bits = bits * 6364136223846793005u + 1442695040888963407u;
        double tens = pow(10, (int)(bits >> 40) % 14 - 5), unit = (double)(bits >> 33) / 4294967296;
        wide[i] = i % 3 == 0   ? unit * tens
                  : i % 3 == 1 ? round(unit * 1e4) * tens / 1e4
                               : nextafter(tens, i % 2 ? 0 : 1e30);
        if (i % 5 == 0) wide[i] = -wide[i];
        x[i] = (float)wide[i];
        records[i] = (struct sm_row_record){.parent = -1, .neighbour = -1, .gap = NAN};
    }
    for (int is_double = 0; is_double < 2; is_double++) {
        struct scratch s = scratch_make();
        struct sm_schema one = {columns, 1, is_double};
        struct sm_row_format f = format_of(SM_SHARD_CSV, is_double);
        f.schema = &one;
        f.copy = f.parents = false;
        struct sm_part_name name = {.shard = 1, .first = 3, .count = NUMBERS}; /* no header */
        struct sm_part *p;
        struct sm_err err = {0};
        uint64_t bytes;
        char sha[SM_SHA_HEX], file[SM_PART_NAME_MAX];
        struct sm_rows rows = {.n = NUMBERS, .columns = 1, .is_double = is_double};
        rows.data = is_double ? (void *)wide : (void *)x;
        assert_int_equal(sm_part_open_rows(&p, s.dir, &name, &f, &err), 0);
        assert_int_equal(sm_part_rows(p, &rows, records, &err), 0);
        assert_int_equal(sm_part_finish(&p, true, &bytes, sha, &err), 0);
        sm_part_file(&name, file);
        size_t n;
        char *text = scratch_read(scratch_path(&s, file), &n), *at = text;
        text = realloc(text, n + 1);
        text[n] = 0;
        at = text;
        for (int i = 0; i < NUMBERS; i++) {
            char *end, shorter[40];
            bool same = is_double ? strtod(at, &end) == wide[i] : strtof(at, &end) == x[i];
            if (!same) fail_msg("%.9g is written as %.30s", is_double ? wide[i] : (double)x[i], at);
            int digits = 0, zeros = 0;
            for (char *c = at; c < end && *c != 'e'; c++) {
                if (*c < '0' || *c > '9' || (*c == '0' && digits == 0)) continue;
                digits++;
                zeros = *c == '0' ? zeros + 1 : 0;
            }
            snprintf(shorter, sizeof shorter, "%.*e",
                     digits - zeros - 2 < 0 ? 0 : digits - zeros - 2,
                     is_double ? wide[i] : (double)x[i]);
            same = is_double ? strtod(shorter, NULL) == wide[i] : strtof(shorter, NULL) == x[i];
            if (same && digits - zeros > 1) fail_msg("%.30s could be %s", at, shorter);
            at = strchr(end, '\n') + 1;
        }
        free(text);
        scratch_remove(&s);
    }
}

static void weights_are_the_last_column_and_read_back_equal(void **state) {
    (void)state;
    static const char script[] =
        "import numpy as np, csv\n"
        "a = np.load('shard-000000.npy')\n"
        "assert a.dtype.names[-2:] == ('gap', 'weight') and a.dtype['weight'] == np.float32\n"
        "want = (np.arange(25) + 1).astype('f4') / np.float32(7)\n"
        "assert np.array_equal(a['weight'], want) and a['row'][3] == 1003\n"
        "lines = list(csv.reader(open('shard-000000.csv', newline='')))\n"
        "assert lines[0][-2:] == ['gap', 'weight'] and lines[7][-1] == '1', lines[7]\n"
        "assert [np.float32(line[-1]) for line in lines[1:]] == list(want)\n";
    struct scratch s = scratch_make();
    for (int format = SM_SHARD_CSV; format <= SM_SHARD_NPY; format++) {
        struct sm_row_format f = format_of((enum sm_shard_format)format, true);
        f.weight = true;
        write_shards(s.dir, &f, 10);
    }
    check_by_python(&s, script, "");
    scratch_remove(&s);
}

/* A pipeline of float64 columns may leave as float32, and the other way round. */
static void elements_are_converted_to_what_leaves(void **state) {
    (void)state;
    static const char script[] =
        "import numpy as np, csv\n"
        "a = np.load('shard-000000.npy')\n"
        "assert a['features'].dtype == np.float32 and a['features'][9, 0] == np.float32(1.0 / 3)\n"
        "lines = list(csv.reader(open('shard-000001.csv', newline='')))\n"
        "assert lines[1 + 35 - 25][0] == '0.33333334', lines[11]\n";
    struct scratch s = scratch_make();
    struct sm_row_format f = format_of(SM_SHARD_NPY, true);
    f.is_double = false;
    write_shards(s.dir, &f, 25);
    f.format = SM_SHARD_CSV;
    write_shards(s.dir, &f, 25);
    check_by_python(&s, script, "");
    scratch_remove(&s);
}

static void a_plain_job_has_no_columns_of_rebalancing(void **state) {
    (void)state;
    struct scratch s = scratch_make();
    struct sm_row_format f = format_of(SM_SHARD_CSV, false);
    f.copy = f.parents = false;
    f.row_name = "sample";
    write_shards(s.dir, &f, 25);
    size_t n;
    char *text = scratch_read(scratch_path(&s, "shard-000000.csv"), &n);
    const char *header = "plain,\"with, comma\",colour,\"said \"\"so\"\"\",label,sample\n";
    assert_memory_equal(text, header, strlen(header));
    assert_memory_equal(text + strlen(header), "0.1,", 4);
    free(text);
    scratch_remove(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_shards_bytes_do_not_tell_how_it_was_cut),
        cmocka_unit_test(pythons_csv_module_reads_the_same_numbers_and_words),
        cmocka_unit_test(numpy_loads_a_shard_as_one_array_of_records),
        cmocka_unit_test(every_number_reads_back_in_the_fewest_digits),
        cmocka_unit_test(weights_are_the_last_column_and_read_back_equal),
        cmocka_unit_test(elements_are_converted_to_what_leaves),
        cmocka_unit_test(a_plain_job_has_no_columns_of_rebalancing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

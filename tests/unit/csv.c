/* Cells and rows of CSV, by hand: what each fault gets, that reading goes on behind it, and that
 * numbers are rounded as strtod rounds them. test_csv.py compares with Python on generated tables.
 */
#include "workers/sources/csv.h"
#include "tests/unit/scratch.h"
#include "workers/sources/csv_cell.h"
#include "workers/sources/csv_scan.h"
#include "workers/sources/number.h"
#include "workers/sources/number_round.h"
#include "workers/sources/numbers.h"

#include "lib/limits.h"
#include "lib/rng.h"

#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* Rows as text: fields between bars, a row on a line, a bad one as its line, offset and reason. */
static char *rows_of(const void *bytes, size_t n, char delimiter, size_t buffer) {
    static char out[1 << 16];
    struct scratch s = scratch_make();
    struct sm_err err;
    struct sm_csv *csv;
    struct sm_csv_row row;
    scratch_write(&s, "t.csv", bytes, n);
    assert_int_equal(sm_csv_open_sized(&csv, scratch_path(&s, "t.csv"), delimiter, buffer, &err),
                     0);
    size_t used = 0;
    int got;
    out[0] = 0;
    while ((got = sm_csv_next(csv, &row, &err)) == 1) {
        if (row.code != SM_E_OK)
            used += (size_t)sprintf(out + used, "!%d %d %s\n", (int)row.line, (int)row.offset,
                                    row.text);
        for (size_t i = 0; i < row.n; i++) {
            const struct sm_csv_field f = sm_csv_cell(&row, i);
            used +=
                (size_t)sprintf(out + used, "%.*s%s", (int)f.n, f.s, i + 1 < row.n ? "|" : "\n");
        }
    }
    assert_int_equal(got, 0);
    assert_int_equal(sm_csv_bytes(csv), n);
    sm_csv_close(&csv);
    scratch_remove(&s);
    return out;
}

static void assert_rows(const char *text, const char *want) {
    for (size_t buffer = 1; buffer < 40; buffer++)
        assert_string_equal(rows_of(text, strlen(text), ',', buffer), want);
    assert_string_equal(rows_of(text, strlen(text), ',', 1 << 16), want);
}

static void quotes_newlines_and_marks_are_read_as_rfc_4180_says(void **state) {
    (void)state;
    assert_rows("a,b\n1,2\n", "a|b\n1|2\n");
    assert_rows("a,b\r\n1,2", "a|b\n1|2\n");
    assert_rows("a,b\r1,2\r", "a|b\n1|2\n");
    assert_rows("\xEF\xBB\xBF\"a\",b\n", "a|b\n");
    assert_rows("a,\n,\n", "a|\n|\n");
    assert_rows("\n\n\r\n a \n\n", " a \n");
    assert_rows("\"x\ny\",\"z\r\n\",\"\"\n", "x\ny|z\r\n|\n");
    assert_rows("\"a\"\"b\",\"\"\"\",c\"d\"\n", "a\"b|\"|c\"d\"\n");
    assert_rows("\"a,b\",c", "a,b|c\n");
    assert_rows("", "");
    assert_rows("a,\"b\"", "a|b\n");
    assert_string_equal(rows_of("a;b,c\t", 6, ';', 64), "a|b,c\t\n");
}

static void each_fault_has_line_and_offset_and_reading_goes_on(void **state) {
    (void)state;
    assert_rows("a,b\n\"x\"y,1\n2,3\n",
                "a|b\n!2 4 a quoted field goes on behind its closing quote\n"
                "2|3\n");
    assert_rows("a,b\n\"x\n\"y,1\n2,3\n",
                "a|b\n!2 4 a quoted field goes on behind its closing quote\n2|3\n");
    assert_rows("a,b\n1,\"x\n2,3\n4,5\n", "a|b\n!2 4 a quote is never closed\n2|3\n4|5\n");
    assert_rows(
        "a\n\xFF,1\n\xC3\xA9\n",
        "a\n!2 2 the row is not UTF-8 (hint: of Latin-1: iconv -f LATIN1 -t UTF-8)\n\xC3\xA9\n");
    assert_string_equal(
        rows_of("a\r\nb\0c\r\nd", 9, ',', 64),
        "a\n!2 3 a NUL stands in the row (hint: of UTF-16: iconv -f UTF-16 -t UTF-8)\nd\n");
}

static void a_row_or_field_beyond_the_limit_is_a_bad_row_and_memory_stays_bounded(void **state) {
    (void)state;
    size_t n = (size_t)SM_MAX_CSV_ROW_BYTES * 2;
    char *text = malloc(n + 64);
    memset(text, 'x', n + 64);
    memcpy(text, "1,2\n\"", 5);
    memcpy(text + n, "\n3,4\n", 5);
    assert_string_equal(rows_of(text, n + 5, ',', 1 << 16),
                        "1|2\n!2 4 a row longer than a row may be, or a quote never closed\n3|4\n");
    size_t field = SM_MAX_CSV_FIELD_BYTES + 1;
    memset(text, 'x', field);
    memcpy(text + field, "\n3,4\n", 5);
    assert_string_equal(rows_of(text, field + 5, ',', 1 << 16),
                        "!1 0 a field longer than a field may be\n3|4\n");
    memset(text, ',', SM_MAX_TABLE_COLUMNS);
    memcpy(text + SM_MAX_TABLE_COLUMNS, "\n3,4\n", 5);
    assert_string_equal(rows_of(text, SM_MAX_TABLE_COLUMNS + 5, ',', 1 << 16),
                        "!1 0 more fields than a table may have columns\n3|4\n");
    free(text);
}

/* A row of n bytes with its newline, and a short one behind it: alone in the file or behind a short
 * one, in buffers that hold it at once and that grow until they do. quoted: in quotes, with a
 * newline on the way. */
static void assert_bound(size_t n, bool quoted, bool sound) {
    static const size_t buffers[] = {4096, 24 << 20};
    char *text = malloc(n + 16);
    assert_non_null(text);
    memcpy(text, "1,2\n", 4);
    memset(text + 4, 'x', n);
    for (size_t i = 1 << 19; i < n; i += 1 << 19)
        text[4 + i] = ',';
    if (quoted) {
        text[4 + n - (1 << 18)] = '"';
        text[4 + n - (1 << 18) - 1] = ',';
        text[4 + n - 1000] = '\n';
        text[4 + n - 2] = '"';
    }
    memcpy(text + 4 + n - 1, "\n3,4\n", 5);
    for (size_t i = 0; i < 2 * sizeof buffers / sizeof *buffers; i++) {
        const size_t from = i % 2 * 4;
        struct scratch s = scratch_make();
        struct sm_err err;
        struct sm_csv *csv;
        struct sm_csv_row row;
        scratch_write(&s, "t.csv", text + from, 4 + n + 4 - from);
        assert_int_equal(
            sm_csv_open_sized(&csv, scratch_path(&s, "t.csv"), ',', buffers[i / 2], &err), 0);
        if (from == 0) assert_int_equal(sm_csv_next(csv, &row, &err), 1);
        for (int again = 0; again < 2; again++) { /* and after a seek, when the buffer has grown */
            assert_int_equal(sm_csv_next(csv, &row, &err), 1);
            if (sound != (row.code == SM_E_OK))
                fail_msg("%zu bytes, buffer %zu: %s", n, buffers[i / 2], row.text);
            if (!sound) assert_int_equal(row.code, SM_E_TOO_LARGE);
            if (!sound && quoted) assert_int_equal(sm_csv_next(csv, &row, &err), 1);
            assert_int_equal(sm_csv_next(csv, &row, &err), 1);
            assert_int_equal(row.n, 2);
            if (again == 0) assert_int_equal(sm_csv_seek(csv, 4 - from, 2, &err), 0);
        }
        sm_csv_close(&csv);
        scratch_remove(&s);
    }
    free(text);
}

static void the_bound_of_a_row_does_not_depend_on_the_buffer(void **state) {
    (void)state;
    for (int quoted = 0; quoted < 2; quoted++) {
        assert_bound(SM_MAX_CSV_ROW_BYTES - 1, quoted, true);
        assert_bound(SM_MAX_CSV_ROW_BYTES, quoted, true);
        assert_bound(SM_MAX_CSV_ROW_BYTES + 1, quoted, false);
    }
}

struct marks {
    uint32_t at[400], others[400];
    struct sm_csv_marks m;
};

static struct sm_csv_marks *empty(struct marks *m) {
    memset(m, 0xA5, sizeof *m);
    m->m = (struct sm_csv_marks){.at = m->at, .others = m->others};
    return &m->m;
}

static void assert_same_marks(const struct marks *a, const struct marks *b) {
    assert_int_equal(a->m.n, b->m.n);
    assert_memory_equal(a->at, b->at, a->m.n * sizeof *a->at);
    assert_int_equal(a->m.n_others, b->m.n_others);
    assert_memory_equal(a->others, b->others, a->m.n_others * sizeof *a->others);
    assert_int_equal(a->m.plain, b->m.plain);
}

static void marks_equal_the_reference_at_every_length_and_place(void **state) {
    (void)state;
    struct sm_rng rng = sm_rng_op(7, 0, 0, 0, 0);
    static char bytes[400];
    static struct marks fast, sse2, plain;
    static const char some[] = ",\"\r\n;ab\x80\xFF\0\x7F \x02\x0C\x1A\x2A\x2D\x8A\xA2";
    for (int i = 0; i < 4000; i++) {
        size_t n = (size_t)i % sizeof bytes;
        const char delimiter = ",;\t *-|"[i % 7];
        bool odd = i % 3 == 0;
        for (size_t k = 0; k < n; k++)
            bytes[k] = odd ? some[sm_rng_u32(&rng) % sizeof some] : some[sm_rng_u32(&rng) % 7];
        sm_csv_mark(bytes, n, delimiter, empty(&fast));
        sm_csv_mark_sse2(bytes, n, delimiter, empty(&sse2));
        sm_csv_mark_reference(bytes, n, delimiter, empty(&plain));
        assert_same_marks(&fast, &plain);
        assert_same_marks(&sse2, &plain);
    }
    for (int c = 0; c < 256; c++) { /* each byte there is, at each place of a block */
        memset(bytes, 'a', sizeof bytes);
        for (size_t k = 0; k < 128; k += 7)
            bytes[k] = (char)c;
        sm_csv_mark(bytes, 128, ',', empty(&fast));
        sm_csv_mark_sse2(bytes, 128, ',', empty(&sse2));
        sm_csv_mark_reference(bytes, 128, ',', empty(&plain));
        assert_same_marks(&fast, &plain);
        assert_same_marks(&sse2, &plain);
    }
}

static void what_is_not_utf8_is_told_from_what_is(void **state) {
    (void)state;
    static const char *const good[] = {"",
                                       "abcdefghij",
                                       "\xC2\x80",
                                       "\xDF\xBF",
                                       "\xE0\xA0\x80",
                                       "\xED\x9F\xBF",
                                       "\xEE\x80\x80",
                                       "\xF0\x90\x80\x80",
                                       "\xF4\x8F\xBF\xBF",
                                       "abcdefgh\xC3\xA9xxxxxxxx"};
    static const char *const bad[] = {"\x80",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xC2",
                                      "\xC2x",
                                      "\xE0\x9F\x80",
                                      "\xED\xA0\x80",
                                      "\xF0\x8F\x80\x80",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xE2\x82",
                                      "abcdefgh\xFF",
                                      "\xE2\x82x"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_null(sm_csv_text_fault(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_non_null(sm_csv_text_fault(bad[i], strlen(bad[i])));
    assert_non_null(sm_csv_text_fault("a\0b", 3));
}

static void assert_number(const char *text) {
    double fast = -7, plain = -7;
    int a = (int)sm_number_parse(text, strlen(text), &fast);
    int b = (int)sm_number_parse_reference(text, strlen(text), &plain);
    if (a != b || memcmp(&fast, &plain, sizeof fast) != 0)
        fail_msg("'%s': %d %.17g, strtod: %d %.17g", text, a, fast, b, plain);
    /* among others, as cells are: with digits right before and behind it */
    char cells[1300];
    uint32_t n = (uint32_t)strlen(text);
    if (n > 1000) return;
    memset(cells, '7', sizeof cells);
    memcpy(cells + SM_CSV_BEFORE + 3, text, n);
    const uint32_t begins[] = {0, 3, 3 + n, 3 + n, 3 + n},
                   ends[] = {3, 3 + n, 5 + n, 18 + n, 19 + n};
    const struct sm_csv_row row = {.bytes = cells + SM_CSV_BEFORE, .begins = begins, .ends = ends};
    for (size_t cell = 0; cell < 2; cell++)
        for (size_t count = 2 - cell; cell + count <= 5; count++) {
            double out[5] = {-7, -7, -7, -7, -7};
            size_t found = sm_numbers_parse(&row, cell, count, true, out);
            if (found != (b == SM_NUMBER_FINITE ? count : 1 - cell))
                fail_msg("'%s' among others: %zu of %zu", text, found, count);
            if (found == count && memcmp(&out[1 - cell], &plain, sizeof plain) != 0)
                fail_msg("'%s' among others: %.17g, strtod: %.17g", text, out[1 - cell], plain);
            if (found == 5 && (out[0] != 777 || out[2] != 77 || out[3] != 777777777777777 ||
                               out[4] != 7777777777777777))
                fail_msg("'%s' changes its neighbours", text);
        }
}

static void numbers_are_strtods_in_every_form(void **state) {
    (void)state;
    static const char *const forms[] = {"0",
                                        "-0",
                                        "+1",
                                        "1.",
                                        ".5",
                                        "-.5e-3",
                                        "00012.500",
                                        "1e5",
                                        "1E+05",
                                        "1e",
                                        "e5",
                                        ".",
                                        "-",
                                        "",
                                        "+",
                                        "1.2.3",
                                        "1e5.5",
                                        "0x10",
                                        "1_000",
                                        "1,5",
                                        " 7 ",
                                        "\t8",
                                        "1 2",
                                        "nan",
                                        "NaN",
                                        "inf",
                                        "-Infinity",
                                        "infinit",
                                        "+inf",
                                        "1e400",
                                        "-1e400",
                                        "1e-400",
                                        "4.9e-324",
                                        "2.4e-324",
                                        "1.7976931348623157e308",
                                        "1.7976931348623159e308",
                                        "9007199254740993",
                                        "9007199254740992.5",
                                        "18446744073709551615",
                                        "18446744073709551616",
                                        "9999999999999999999",
                                        "10000000000000000000",
                                        "0.00000000000000000001234567890123456789",
                                        "123456789012345678901234567890",
                                        "1e19",
                                        "1e23",
                                        "8.5e22",
                                        "9007199254740993e-3",
                                        "0.1",
                                        "0.30000000000000004",
                                        "5e-324",
                                        "2.2250738585072014e-308",
                                        "100000000000000000000000000000000000e-35",
                                        "0000000000000000000000000000001",
                                        "1e0000000000001",
                                        "1e-99999999999",
                                        "0e99999999999",
                                        "12345678",
                                        "123456789",
                                        "1234567x",
                                        "--1",
                                        "1-"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        assert_number(forms[i]);
    char text[1100];
    memset(text, '9', sizeof text);
    text[1000] = 0;
    assert_number(text);
    text[1000] = '9';
    text[1001] = 0;
    assert_number(text);
}

static void random_numbers_are_rounded_as_strtod_rounds_them(void **state) {
    (void)state;
    struct sm_rng rng = sm_rng_op(11, 0, 0, 0, 0);
    char text[64];
    for (int i = 0; i < 200000; i++) {
        uint64_t bits = (uint64_t)sm_rng_u32(&rng) << 32 | sm_rng_u32(&rng);
        uint64_t digits = bits >> (sm_rng_u32(&rng) % 64);
        int exponent = (int)(sm_rng_u32(&rng) % 50) - 25;
        snprintf(text, sizeof text, "%llue%d", (unsigned long long)digits, exponent);
        assert_number(text);
        double v;
        memcpy(&v, &bits, sizeof v);
        snprintf(text, sizeof text, "%.*g", (int)(sm_rng_u32(&rng) % 18) + 1, v);
        assert_number(text);
        snprintf(text, sizeof text, "%.*f", (int)(sm_rng_u32(&rng) % 20),
                 (double)(int32_t)bits / 65536);
        assert_number(text);
        /* halfway between two doubles, and a little to both sides */
        uint64_t odd = ((uint64_t)1 << 53) + 1 + 2 * (bits % 1000000);
        snprintf(text, sizeof text, "%llu.%s", (unsigned long long)odd,
                 i % 3 == 0   ? "0"
                 : i % 3 == 1 ? "1"
                              : "");
        assert_number(text);
    }
}

/* Cells as tables have them; of some kinds the vectors take whole groups. */
static int random_cell(struct sm_rng *rng, int kind, char text[64]) {
    static const char *const odd[] = {"",
                                      "NA",
                                      "-",
                                      ".",
                                      "-.",
                                      "1..2",
                                      "+5",
                                      "1e3",
                                      "1e39",
                                      "-0",
                                      "-0.0",
                                      ".5",
                                      "5.",
                                      "1-2",
                                      "--1",
                                      "1e-400",
                                      " 3",
                                      "3 ",
                                      "0x1",
                                      "1.2.",
                                      "..1",
                                      "-.5",
                                      "3.5e38",
                                      "3e38",
                                      "340282356779733661637539395458142568448",
                                      "word",
                                      "...",
                                      "-....",
                                      "1.2.3.4.5",
                                      "................",
                                      "-...............5",
                                      "12345678901234567.8.9",
                                      "1e400",
                                      "nan",
                                      "0.000000",
                                      "99999999",
                                      "-9999999"};
    const uint64_t bits = (uint64_t)sm_rng_u32(rng) << 32 | sm_rng_u32(rng);
    const double v = ((double)(int64_t)bits) * 0x1p-62;
    switch (kind) {
    case 0:
        return sprintf(text, "%d", (int)(bits % 10));
    case 1:
        return sprintf(text, "%d", (int)(bits % 100000) - 9);
    case 2:
        return sprintf(text, "%lld", (long long)(int64_t)bits >> (bits % 64));
    case 3:
        return sprintf(text, "%.7g", v);
    case 4:
        return sprintf(text, "%.17g", v);
    case 5:
        return sprintf(text, "%.*f", (int)(bits % 34), v * (double)(bits % 1000));
    case 6:
        return sprintf(text, "%.*g", (int)(bits % 20) + 1, v);
    case 7:
        return sprintf(text, "%0*d", (int)(bits % 40) + 1, (int)(bits >> 40));
    default:
        return sprintf(text, "%s", odd[bits % (sizeof odd / sizeof *odd)]);
    }
}

enum { CELLS = 75 };
struct cells {
    char text[SM_CSV_BEFORE + CELLS * 64];
    uint32_t begins[CELLS], ends[CELLS + 1]; /* ends[0] is before the first */
};

/* between: a delimiter, or NUL for none. */
static struct sm_csv_row random_row(struct cells *c, struct sm_rng *rng, size_t n, int kind,
                                    char between) {
    uint32_t at = 0;
    char *bytes = c->text + SM_CSV_BEFORE;
    memset(c->text, '8', sizeof c->text);
    c->ends[0] = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        char text[64];
        int some = kind < 9 ? kind : (int)(sm_rng_u32(rng) % (kind == 9 ? 8 : 9));
        if (kind == 11) some = sm_rng_u32(rng) % 20 == 0 ? 8 : 3;
        const uint32_t length = (uint32_t)random_cell(rng, some, text);
        memcpy(bytes + at, text, length);
        c->begins[i] = at;
        c->ends[i + 1] = at += length;
        if (between != 0) bytes[at++] = between;
    }
    return (struct sm_csv_row){.bytes = bytes,
                               .begins = between != 0 ? c->ends : c->begins,
                               .ends = c->ends + 1,
                               .gap = between != 0,
                               .n = n};
}

static void assert_same_numbers(const struct sm_csv_row *row, size_t first, size_t n,
                                bool is_double) {
    double fast[CELLS + 1], plain[CELLS + 1];
    const size_t element = is_double ? sizeof(double) : sizeof(float);
    memset(fast, 0xA5, sizeof fast);
    size_t found = sm_numbers_parse(row, first, n, is_double, fast);
    size_t want = sm_numbers_parse_reference(row, first, n, is_double, plain);
    if (found != want || memcmp(fast, plain, found * element) != 0)
        fail_msg("%zu of %zu numbers in '%.*s', the reference %zu", found, n,
                 (int)row->ends[row->n - 1], row->bytes, want);
    static const uint64_t untouched = 0xA5A5A5A5A5A5A5A5u; /* what is behind the last */
    assert_memory_equal((char *)fast + n * element, &untouched, sizeof untouched);
}

static void numbers_of_a_row_are_those_of_its_cells_one_by_one(void **state) {
    (void)state;
    struct sm_rng rng = sm_rng_op(13, 0, 0, 0, 0);
    static struct cells c;
    for (int i = 0; i < 60000; i++) {
        const size_t n = 1 + (size_t)sm_rng_u32(&rng) % CELLS;
        const char between = ",,;\t-.0\n"[i % 9]; /* the ninth: none */
        const struct sm_csv_row row = random_row(&c, &rng, n, i % 12, between);
        for (size_t first = 0, found; first < n; first += found + 1) {
            found = sm_numbers_parse_reference(&row, first, n - first, i & 1, (double[CELLS]){0});
            assert_same_numbers(&row, first, n - first, i & 1);
            if (i % 3 == 0) break; /* from behind each cell that is none only now and then */
        }
    }
}

/* Anywhere, in the middle of two doubles, and near the ends of 64 bits. */
static void quotients_are_rounded_as_an_exact_division_rounds_them(void **state) {
    (void)state;
    struct sm_rng rng = sm_rng_op(17, 0, 0, 0, 0);
    for (int i = 0; i < 3000000; i++) {
        const uint64_t bits = (uint64_t)sm_rng_u32(&rng) << 32 | sm_rng_u32(&rng);
        const unsigned k = sm_rng_u32(&rng) % SM_POWERS, shift = sm_rng_u32(&rng) % 64;
        uint64_t digits = bits >> shift;
        if (i % 4 == 1)
            digits = (bits | 1) >> 10 << (shift % 11); /* 54 bits: in the middle when k is 0 */
        if (i % 4 == 2) digits = UINT64_MAX - (bits & 1023);
        if (i % 4 == 3) digits = ((uint64_t)1 << shift) + (bits & 3);
        if (digits == 0) digits = 1;
        const double fast = sm_quotient_round(digits, k), exact = sm_quotient_exact(digits, k);
        if (memcmp(&fast, &exact, sizeof fast) != 0)
            fail_msg("%llu / 10^%u: %.17g, exact: %.17g", (unsigned long long)digits, k, fast,
                     exact);
    }
}

static void words_for_missing_cells_are_pandas_or_the_users(void **state) {
    (void)state;
    struct sm_cells m;
    struct sm_pipeline_source source = {0};
    double v;
    sm_cells_init(&m, &source);
    static const char *const missing[] = {"", " ", "NA", "nan", "-NaN", "None", " N/A ", "<NA>"};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        struct sm_csv_field f = {.s = missing[i], .n = strlen(missing[i])};
        assert_int_equal(sm_cell_number(&m, &f, &v), SM_CELL_MISSING);
    }
    struct sm_csv_field na = {.s = "NA", .n = 2}, n = {.s = "N", .n = 1},
                        nine = {.s = "-9 ", .n = 3};
    struct sm_csv_field big = {.s = "1e999", .n = 5}, inf = {.s = "-inf", .n = 4};
    assert_int_equal(sm_cell_number(&m, &n, &v), SM_CELL_WORD);
    assert_int_equal(sm_cell_number(&m, &nine, &v), SM_CELL_NUMBER);
    assert_int_equal(sm_cell_number(&m, &big, &v), SM_CELL_OVERFLOW);
    assert_int_equal(sm_cell_number(&m, &inf, &v), SM_CELL_OVERFLOW);
    static const char *const own[] = {"?", "-9"};
    source.missing = (struct sm_strs){.v = own, .count = 2};
    sm_cells_init(&m, &source);
    assert_int_equal(sm_cell_number(&m, &na, &v), SM_CELL_WORD);
    assert_int_equal(sm_cell_number(&m, &nine, &v), SM_CELL_MISSING);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotes_newlines_and_marks_are_read_as_rfc_4180_says),
        cmocka_unit_test(each_fault_has_line_and_offset_and_reading_goes_on),
        cmocka_unit_test(a_row_or_field_beyond_the_limit_is_a_bad_row_and_memory_stays_bounded),
        cmocka_unit_test(the_bound_of_a_row_does_not_depend_on_the_buffer),
        cmocka_unit_test(marks_equal_the_reference_at_every_length_and_place),
        cmocka_unit_test(what_is_not_utf8_is_told_from_what_is),
        cmocka_unit_test(numbers_are_strtods_in_every_form),
        cmocka_unit_test(random_numbers_are_rounded_as_strtod_rounds_them),
        cmocka_unit_test(numbers_of_a_row_are_those_of_its_cells_one_by_one),
        cmocka_unit_test(quotients_are_rounded_as_an_exact_division_rounds_them),
        cmocka_unit_test(words_for_missing_cells_are_pandas_or_the_users),
    };
    return cmocka_run_group_tests_name("csv", tests, NULL, NULL);
}

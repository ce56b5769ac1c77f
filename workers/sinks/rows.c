/* Writes rows into a part, as csv or as records of a npy array. Comes after the row ops of a lease;
 * shard.c finishes the part and joins it to its shard. What a row looks like depends on it alone.
 */
#include "lib/limits.h"
#include "workers/sinks/part.h"

#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIECE_BYTES = 1 << 20, /* rows go to the file in pieces of about this */
    ROW_BYTES = SM_MAX_RESULT_BYTES,
    NPY_ALIGN = 64, /* of the data, as numpy.save does it */
    NPY_START = 10, /* magic, version, length */
    NUMBER_BYTES = 32,
};

static void csv_header(struct sm_buf *b, const struct sm_row_format *f);
static void npy_header(struct sm_buf *b, const struct sm_row_format *f, uint64_t rows);
static void csv_row(struct sm_buf *b, const struct sm_row_format *f, const struct sm_rows *rows,
                    size_t i, const struct sm_row_record *record);
static void npy_row(struct sm_buf *b, const struct sm_row_format *f, const struct sm_rows *rows,
                    size_t i, const struct sm_row_record *record);
static int flush(struct sm_part *p, size_t when_over, struct sm_err *err);

int sm_part_open_rows(struct sm_part **gives, const char *dir, const struct sm_part_name *name,
                      const struct sm_row_format *format, struct sm_err *err) {
    assert(format->format == SM_SHARD_CSV || format->format == SM_SHARD_NPY);
    if (sm_part_open(gives, dir, name, err) != 0) return -1;
    struct sm_part *p = *gives;
    p->rows = format;
    sm_buf_init(&p->text, PIECE_BYTES + ROW_BYTES);
    if (name->first != sm_plan_shard_first(&format->plan, name->shard)) return 0;
    if (format->format == SM_SHARD_CSV)
        csv_header(&p->text, format);
    else
        npy_header(&p->text, format, sm_plan_shard_count(&format->plan, name->shard));
    if (flush(p, 0, err) == 0) return 0;
    sm_part_abandon(gives);
    return -1;
}

int sm_part_rows(struct sm_part *p, const struct sm_rows *rows, const struct sm_row_record *records,
                 struct sm_err *err) {
    const struct sm_row_format *f = p->rows;
    assert(f != NULL && rows->columns == f->schema->n);
    for (size_t i = 0; i < rows->n; i++) {
        assert(records[i].label < f->n_classes);
        if (f->format == SM_SHARD_CSV)
            csv_row(&p->text, f, rows, i, &records[i]);
        else
            npy_row(&p->text, f, rows, i, &records[i]);
        if (flush(p, PIECE_BYTES, err) != 0) return -1;
    }
    return flush(p, 0, err);
}

static int flush(struct sm_part *p, size_t when_over, struct sm_err *err) {
    if (p->text.full) return sm_fail(err, SM_E_MEMORY, "out of memory");
    if (p->text.len <= when_over) return 0;
    int failed = sm_part_put(p, p->text.data, p->text.len, err);
    sm_buf_reset(&p->text);
    return failed;
}

/* ---- csv ---- */

/* A cell by RFC 4180: quoted where it has to be. An empty text is quoted too, since an empty cell
 * is a missing one. */
static void csv_text(struct sm_buf *b, const char *text) {
    if (text[0] != 0 && text[strcspn(text, ",\"\r\n")] == 0) {
        sm_buf_text(b, text);
        return;
    }
    sm_buf_add(b, "\"", 1);
    for (const char *quote; (quote = strchr(text, '"')) != NULL; text = quote + 1) {
        sm_buf_add(b, text, (size_t)(quote - text) + 1);
        sm_buf_add(b, "\"", 1);
    }
    sm_buf_text(b, text);
    sm_buf_add(b, "\"", 1);
}

size_t sm_row_format_names(const struct sm_row_format *f, const char *names[SM_ROW_NAMES]) {
    size_t n = 0;
    names[n++] = "label";
    names[n++] = f->row_name;
    if (f->copy) names[n++] = "copy";
    if (f->parents) {
        names[n++] = "parent";
        names[n++] = "neighbour";
        names[n++] = "gap";
    }
    if (f->weight) names[n++] = "weight";
    return n;
}

static void csv_header(struct sm_buf *b, const struct sm_row_format *f) {
    const char *own[SM_ROW_NAMES];
    const size_t n = sm_row_format_names(f, own);
    for (size_t c = 0; c < f->schema->n + n; c++) {
        if (c > 0) sm_buf_add(b, ",", 1);
        csv_text(b, c < f->schema->n ? f->schema->columns[c].name : own[c - f->schema->n]);
    }
    sm_buf_add(b, "\n", 1);
}

/* m / 10^decimals without zeros at the end; m is not 0. */
static int digits_text(bool minus, uint64_t m, int decimals, char text[NUMBER_BYTES]) {
    char reversed[NUMBER_BYTES];
    int n = 0, length = 0;
    while (decimals > 0 && m % 10 == 0) {
        m /= 10;
        decimals--;
    }
    for (int place = 0; m > 0 || place <= decimals; place++) {
        if (place == decimals && place > 0) reversed[n++] = '.';
        reversed[n++] = (char)('0' + m % 10);
        m /= 10;
    }
    if (minus) text[length++] = '-';
    while (n > 0)
        text[length++] = reversed[--n];
    text[length] = 0;
    return length;
}

/* The usual case of number_text below, ten times as fast: the digits as an integer, and a division
 * that is exact enough to tell whether they read back. 0: not so easy. */
static int fixed_text(double x, bool is_double, char text[NUMBER_BYTES]) {
    static const double ten[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,
                                 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19};
    static const uint64_t midpoint = UINT64_C(1) << 28, below_float = (UINT64_C(1) << 29) - 1;
    const double a = fabs(x);
    const int least = is_double ? 15 : 6, most = is_double ? 15 : 9; /* significant digits */
    if (!(a >= 1e-3 && a < ten[least])) return 0;
    int above = -2; /* 10^above > a: digits before the point */
    while (above < 0 ? a * ten[-above] >= 1 : a >= ten[above])
        above++;
    for (int digits = least; digits <= most; digits++) {
        const int decimals = digits - above;
        const double m = nearbyint(a * ten[decimals]), back = m / ten[decimals];
        uint64_t bits;
        memcpy(&bits, &back, sizeof bits);
        if (is_double ? back != a : (double)(float)back != a) continue;
        if (!is_double && (bits & below_float) == midpoint) continue; /* rounded twice */
        return digits_text(x < 0, (uint64_t)m, decimals, text);
    }
    return 0;
}

/* Whole numbers as such; others with the fewest digits that read back equal. A decimal number of 6
 * (float32) or 15 (float64) digits survives the way through its type, so a shorter one is found
 * there already, its zeros cut off by %g. Numbers too small for all their bits have fewer digits.
 */
static int number_text(double x, bool is_double, char text[NUMBER_BYTES]) {
    const double exact = is_double ? 9007199254740992.0 : 16777216.0; /* 2^53, 2^24 */
    if (fabs(x) <= exact && trunc(x) == x && !(x == 0 && signbit(x)))
        return snprintf(text, NUMBER_BYTES, "%" PRId64, (int64_t)x);
    int n = fixed_text(x, is_double, text);
    if (n > 0) return n;
    const bool tiny = fabs(x) < (is_double ? DBL_MIN : (double)FLT_MIN);
    for (int digits = tiny        ? 1
                      : is_double ? 15
                                  : 6,
             most = is_double ? 17 : 9;
         digits <= most; digits++) {
        n = snprintf(text, NUMBER_BYTES, "%.*g", digits, x);
        if (is_double ? strtod(text, NULL) == x : (double)strtof(text, NULL) == x) break;
    }
    return n;
}

static void csv_number(struct sm_buf *b, double x, bool is_double) {
    char text[NUMBER_BYTES];
    if (isnan(x)) return;
    int n = number_text(x, is_double, text);
    sm_buf_add(b, text, (size_t)n);
}

static void csv_integer(struct sm_buf *b, int64_t x) {
    if (x >= 0)
        sm_buf_printf(b, ",%" PRId64, x);
    else
        sm_buf_add(b, ",", 1);
}

static void csv_cell(struct sm_buf *b, const struct sm_column *column, double x, bool is_double) {
    if (column->kind != SM_COLUMN_CATEGORY || isnan(x)) {
        csv_number(b, is_double ? x : (double)(float)x, is_double);
        return;
    }
    assert(x >= 0 && x < column->n_categories);
    csv_text(b, column->categories[(uint32_t)x]);
}

static void csv_row(struct sm_buf *b, const struct sm_row_format *f, const struct sm_rows *rows,
                    size_t i, const struct sm_row_record *record) {
    for (size_t c = 0; c < rows->columns; c++) {
        csv_cell(b, &f->schema->columns[c], sm_rows_cell(rows, i, c), f->is_double);
        sm_buf_add(b, ",", 1);
    }
    csv_text(b, f->classes[record->label]);
    csv_integer(b, record->row);
    if (f->copy) csv_integer(b, record->copy);
    if (f->parents) {
        csv_integer(b, record->parent);
        csv_integer(b, record->neighbour);
        sm_buf_add(b, ",", 1);
        csv_number(b, record->gap, true);
    }
    if (f->weight) {
        sm_buf_add(b, ",", 1);
        csv_number(b, (double)record->weight, false);
    }
    sm_buf_add(b, "\n", 1);
}

/* ---- npy ---- */

static void npy_header(struct sm_buf *b, const struct sm_row_format *f, uint64_t rows) {
    struct sm_buf text;
    sm_buf_init(&text, PIECE_BYTES);
    sm_buf_printf(
        &text,
        "{'descr': [('features', '<f%d', (%zu,)), ('label', '<i8'), ('%s', '<i8')%s%s%s], "
        "'fortran_order': False, 'shape': (%" PRIu64 ",), }",
        f->is_double ? 8 : 4, f->schema->n, f->row_name, f->copy ? ", ('copy', '<i8')" : "",
        f->parents ? ", ('parent', '<i8'), ('neighbour', '<i8'), ('gap', '<f8')" : "",
        f->weight ? ", ('weight', '<f4')" : "", rows);
    while ((NPY_START + text.len + 1) % NPY_ALIGN != 0)
        sm_buf_add(&text, " ", 1);
    sm_buf_add(&text, "\n", 1);
    const uint8_t start[NPY_START] = {
        0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (uint8_t)text.len, (uint8_t)(text.len >> 8)};
    assert(text.len <= UINT16_MAX);
    sm_buf_add(b, start, sizeof start);
    if (!sm_buf_add(b, text.data, text.len) || text.full) b->full = true;
    sm_buf_release(&text);
}

static void npy_features(struct sm_buf *b, const struct sm_row_format *f,
                         const struct sm_rows *rows, size_t i) {
    const size_t n = rows->columns, size = f->is_double ? sizeof(double) : sizeof(float);
    if (f->is_double == rows->is_double) {
        sm_buf_add(b, (const uint8_t *)rows->data + i * n * size, n * size);
        return;
    }
    uint8_t *to = sm_buf_room(b, n * size);
    if (to == NULL) return;
    for (size_t c = 0; c < n; c++) {
        double x = sm_rows_cell(rows, i, c);
        float narrow = (float)x;
        memcpy(to + c * size, f->is_double ? (const void *)&x : (const void *)&narrow, size);
    }
    b->len += n * size;
}

static void npy_row(struct sm_buf *b, const struct sm_row_format *f, const struct sm_rows *rows,
                    size_t i, const struct sm_row_record *r) {
    npy_features(b, f, rows, i);
    const int64_t label = r->label, copy = r->copy;
    sm_buf_add(b, &label, sizeof label);
    sm_buf_add(b, &r->row, sizeof r->row);
    if (f->copy) sm_buf_add(b, &copy, sizeof copy);
    if (f->parents) {
        sm_buf_add(b, &r->parent, sizeof r->parent);
        sm_buf_add(b, &r->neighbour, sizeof r->neighbour);
        sm_buf_add(b, &r->gap, sizeof r->gap);
    }
    if (f->weight) sm_buf_add(b, &r->weight, sizeof r->weight);
}

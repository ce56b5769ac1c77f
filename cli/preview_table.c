/* The first rows of an epoch as they are read and as a trainer gets them, as text in columns or as
 * CSV. Before: preview.c has the dataset, what the ops have learned and the places. After: a user
 * reads it, so nothing of the data may command a terminal. */
#include "cli/preview_state.h"
#include "lib/fs.h"
#include "workers/epoch_rows.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { COLUMNS_SHOWN = 40, BAD_SHOWN = 5, NAME_WIDTH = 28, CELL_WIDTH = 22, TEXT_MAX = 64 << 20 };
enum { CELL_BYTES = 4 * CELL_WIDTH + 8, HEADER_LINES = 4 };

struct table_preview {
    struct preview *v;
    struct sm_table *table;
    struct sm_features *features;
    struct sm_epoch_rows *made;
    struct sm_placed *placed;
    size_t n;
    struct sm_rows in, out;
    struct sm_row_faults *faults; /* of each row */
    uint8_t *bad;
    bool all; /* every column, not the first few */
};

static int choose(struct table_preview *t, struct sm_err *err);
static int make(struct table_preview *t, struct sm_err *err);
static int show(struct table_preview *t, struct sm_err *err);

int preview_table(struct preview *v, struct sm_err *err) {
    struct table_preview t = {.v = v, .all = v->options->out_path != NULL};
    int r = sm_table_open(&t.table, v->data.index, v->data.root, err);
    if (r == 0)
        r = sm_features_new(&t.features, v->pipeline, v->pipeline->n_ops, v->data.index,
                            v->artifacts, err);
    if (r == 0) r = choose(&t, err);
    if (r == 0) r = make(&t, err);
    if (r == 0) r = show(&t, err);
    sm_rows_free(&t.in);
    sm_rows_free(&t.out);
    sm_epoch_rows_free(&t.made);
    sm_features_free(&t.features);
    sm_table_close(&t.table);
    free(t.placed);
    free(t.faults);
    free(t.bad);
    return r;
}

/* --- the rows --------------------------------------------------------------------------------- */

/* The first positions of the epoch, or those of one class. */
static int choose(struct table_preview *t, struct sm_err *err) {
    const struct preview *v = t->v;
    const size_t want = (size_t)v->options->samples;
    const uint64_t positions = sm_plan_positions(&v->plan);
    uint32_t label = 0;
    if (v->options->class_name != NULL && preview_class(v, &label, err) < 0) return -1;
    t->placed = calloc(want, sizeof *t->placed);
    t->faults = calloc(want, sizeof *t->faults);
    t->bad = calloc(want, 1);
    if (t->placed == NULL || t->faults == NULL || t->bad == NULL)
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (uint64_t at = 0; at < positions && at < PREVIEW_SCAN_MAX && t->n < want; at++) {
        const struct sm_placed placed = sm_places_at(v->places, &v->plan, at);
        if (v->options->class_name == NULL || placed.label == label) t->placed[t->n++] = placed;
    }
    if (t->n > 0) return 0;
    return sm_fail(err, SM_E_DATASET, "no row of class '%s' is drawn in epoch %u",
                   v->options->class_name, v->options->epoch);
}

/* Row n of a block as a block of its own. */
static struct sm_rows row_of(const struct sm_rows *rows, size_t n) {
    struct sm_rows one = *rows;
    one.n = 1;
    one.data = (uint8_t *)rows->data + n * rows->columns * sm_rows_element(rows);
    return one;
}

/* Row by row, so that each has its own sentence when an op cannot take it. */
static int make(struct table_preview *t, struct sm_err *err) {
    const struct sm_schema *in = sm_features_in(t->features), *out = sm_features_out(t->features);
    if (sm_rows_alloc(&t->in, t->n, in->n, in->is_double, err) < 0 ||
        sm_rows_alloc(&t->out, t->n, out->n, out->is_double, err) < 0)
        return -1;
    const struct sm_epoch_rows_from source = {.places = t->v->places,
                                              .table = t->table,
                                              .learned = &t->v->neighbours,
                                              .features = t->features};
    if (sm_epoch_rows_new(&t->made, &source, 1, err) < 0) return -1;
    for (size_t i = 0; i < t->n; i++) {
        struct sm_rows from = row_of(&t->in, i), to = row_of(&t->out, i);
        t->faults[i].bad = &t->bad[i];
        if (sm_epoch_rows_make(t->made, &t->placed[i], &from, &to, &t->faults[i], err) < 0)
            return -1;
    }
    return 0;
}

/* --- text in columns -------------------------------------------------------------------------- */

/* A cell of text: control characters become '?', what is too long ends in '…'. Returns its columns.
 */
static int tidy(const char *text, int most, char *to) {
    int columns = 0;
    for (; *text != 0 && columns < most; columns++) {
        const bool cut =
            columns == most - 1 && text[1] != 0 && ((unsigned char)text[1] & 0xc0) != 0x80;
        if (cut) break;
        *to++ = (unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text;
        for (text++; ((unsigned char)*text & 0xc0) == 0x80; text++)
            *to++ = *text;
    }
    if (*text != 0) {
        to = stpcpy(to, "…");
        columns++;
    }
    *to = 0;
    return columns;
}

static int value_text(const struct sm_column *column, double value, char *to) {
    char text[32];
    if (value != value) return tidy("missing", CELL_WIDTH, to);
    if (column->kind == SM_COLUMN_CATEGORY && value >= 0 && value < column->n_categories)
        return tidy(column->categories[(size_t)value], CELL_WIDTH, to);
    snprintf(text, sizeof text, "%.6g", value);
    return tidy(text, CELL_WIDTH, to);
}

static uint64_t row_number(const struct table_preview *t, uint64_t sample) {
    return sm_index_row(t->v->data.index, sample);
}

static bool labelled(const struct table_preview *t) {
    return t->v->pipeline->source.label != NULL;
}

/* The lines above the values: number of the row, its class, how it came to be here, its importance
 * weight. */
static int header_text(const struct table_preview *t, size_t line, size_t i, char *to) {
    const struct sm_placed *p = &t->placed[i];
    char text[96] = "";
    const bool between = p->synthetic && p->neighbour != p->sample; /* else a row and noise */
    if (line == 0 && between)
        snprintf(text, sizeof text, "%" PRIu64 " to %" PRIu64, row_number(t, p->sample),
                 row_number(t, p->neighbour));
    else if (line == 0)
        snprintf(text, sizeof text, "%" PRIu64, row_number(t, p->sample));
    else if (line == 3)
        snprintf(text, sizeof text, "%.4g", (double)p->weight);
    else if (line == 1)
        return tidy(sm_index_class(t->v->data.index, p->label), CELL_WIDTH, to);
    else if (p->synthetic && !between)
        snprintf(text, sizeof text, "synthetic, noise");
    else if (p->synthetic)
        snprintf(text, sizeof text, "synthetic, at %.3f", p->gap);
    else if (p->added)
        snprintf(text, sizeof text, "added");
    return tidy(text, CELL_WIDTH, to);
}

/* The op behind which synthetic rows are made; NULL: they are made of rows of the source. */
static const char *made_by(const struct table_preview *t) {
    const struct sm_pipeline *p = t->v->pipeline;
    return p->rebalance_after > 0 ? p->ops[p->rebalance_after - 1].info->name : NULL;
}

struct block {
    const struct table_preview *t;
    const struct sm_schema *schema;
    const struct sm_rows *rows;
    bool after; /* rows that an op cannot take have no values */
};

static int cell_text(const struct block *b, size_t line, size_t i, char *to) {
    if (line < HEADER_LINES) return header_text(b->t, line, i, to);
    const size_t c = line - HEADER_LINES;
    if (b->after && b->t->bad[i]) return tidy("quarantined", CELL_WIDTH, to);
    if (!b->after && made_by(b->t) != NULL && b->t->placed[i].synthetic)
        return tidy("made later", CELL_WIDTH, to);
    return value_text(&b->schema->columns[c], sm_rows_cell(b->rows, i, c), to);
}

static void padded(struct sm_buf *out, const char *text, int columns, int width) {
    sm_buf_printf(out, "%s%*s", text, columns < width ? width - columns : 0, "");
}

static void line_text(const struct block *b, size_t line, int name_width, const int *widths,
                      struct sm_buf *out) {
    static const char *const headers[HEADER_LINES] = {"row", "label", "drawn as", "weight"};
    char name[4 * NAME_WIDTH + 8], kind[32] = "", cell[CELL_BYTES];
    const struct sm_column *column =
        line < HEADER_LINES ? NULL : &b->schema->columns[line - HEADER_LINES];
    const int columns = tidy(column == NULL ? headers[line] : column->name, NAME_WIDTH, name);
    if (column != NULL && column->kind == SM_COLUMN_CATEGORY)
        snprintf(kind, sizeof kind, "category (%" PRIu32 ")", column->n_categories);
    else if (column != NULL)
        snprintf(kind, sizeof kind, "number");
    sm_buf_text(out, "  ");
    padded(out, name, columns, name_width);
    sm_buf_printf(out, "  %-14s", kind);
    for (size_t i = 0; i < b->t->n; i++) {
        const int used = cell_text(b, line, i, cell);
        sm_buf_printf(out, "  %*s%s", widths[i] - used, "", cell);
    }
    while (out->len > 0 && out->data[out->len - 1] == ' ')
        out->data[--out->len] = 0;
    sm_buf_text(out, "\n");
}

static int block_text(const struct block *b, const char *title, struct sm_buf *out,
                      struct sm_err *err) {
    const struct table_preview *t = b->t;
    const size_t shown = t->all || b->schema->n < COLUMNS_SHOWN ? b->schema->n : COLUMNS_SHOWN;
    char text[4 * NAME_WIDTH + CELL_BYTES];
    int name_width = 8, *widths = calloc(t->n, sizeof *widths);
    if (widths == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    for (size_t line = 0; line < HEADER_LINES + shown; line++) {
        const int w = line < HEADER_LINES
                          ? 0
                          : tidy(b->schema->columns[line - HEADER_LINES].name, NAME_WIDTH, text);
        if (w > name_width) name_width = w;
        for (size_t i = 0; i < t->n; i++) {
            const int used = cell_text(b, line, i, text);
            if (used > widths[i]) widths[i] = used;
        }
    }
    sm_buf_printf(out, "%s: %zu column%s of %s\n", title, b->schema->n,
                  b->schema->n == 1 ? "" : "s", b->schema->is_double ? "float64" : "float32");
    for (size_t line = 0; line < HEADER_LINES + shown; line++)
        if ((line != 1 || labelled(t)) && (line != 2 || t->v->pipeline->rebalance != NULL) &&
            (line != 3 || t->v->pipeline->output.weights))
            line_text(b, line, name_width, widths, out);
    if (shown < b->schema->n)
        sm_buf_printf(out, "  … and %zu more columns (-o rows.txt has all)\n",
                      b->schema->n - shown);
    free(widths);
    return 0;
}

static void faults_text(const struct table_preview *t, struct sm_buf *out) {
    const struct sm_index *index = t->v->data.index;
    const uint64_t n = sm_index_bad_rows(index);
    bool first = true;
    for (size_t i = 0; i < t->n; i++) {
        if (!t->bad[i]) continue;
        sm_buf_printf(out, "%s  row %" PRIu64 ": %s\n",
                      first ? "\nquarantined by the ops, of the rows above:\n" : "",
                      row_number(t, t->placed[i].sample), t->faults[i].text);
        first = false;
    }
    if (n > 0)
        sm_buf_printf(out, "\n%" PRIu64 " row%s of the table cannot be read and %s quarantined:\n",
                      n, n == 1 ? "" : "s", n == 1 ? "is" : "are");
    for (uint64_t k = 0; k < n && k < BAD_SHOWN; k++) {
        const struct sm_bad_row bad = sm_index_bad_row(index, k);
        sm_buf_printf(out, "  row %" PRIu64 ", line %" PRIu64 ", byte %" PRIu64 ": %s\n", bad.row,
                      bad.line, bad.offset, bad.text);
    }
    if (n > BAD_SHOWN) sm_buf_printf(out, "  … and %" PRIu64 " more\n", n - BAD_SHOWN);
}

static int as_text(const struct table_preview *t, struct sm_buf *out, struct sm_err *err) {
    const struct sm_pipeline *p = t->v->pipeline;
    const struct block read = {t, sm_features_in(t->features), &t->in, false},
                       made = {t, sm_features_out(t->features), &t->out, true};
    sm_buf_printf(out, "%s, seed %" PRId64 ", epoch %u: the first %zu row%s%s%s\n\n", p->name,
                  p->seed, t->v->options->epoch, t->n, t->n == 1 ? "" : "s",
                  t->v->options->class_name ? " of class " : "",
                  t->v->options->class_name ? t->v->options->class_name : "");
    if (block_text(&read, "as read", out, err) < 0) return -1;
    if (made_by(t) != NULL)
        sm_buf_printf(out, "  (synthetic rows are made behind '%s')\n", made_by(t));
    sm_buf_text(out, "\n");
    if (block_text(&made, "as a trainer gets them", out, err) < 0) return -1;
    faults_text(t, out);
    return 0;
}

/* --- CSV -------------------------------------------------------------------------------------- */

static void quoted(const char *text, struct sm_buf *out) {
    if (strpbrk(text, ",\"\r\n") == NULL) {
        sm_buf_text(out, text);
        return;
    }
    sm_buf_text(out, "\"");
    for (; *text; text++)
        sm_buf_add(out, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
    sm_buf_text(out, "\"");
}

/* What a trainer gets: rows that an op cannot take are left out, as a run replaces them. */
static void as_csv(const struct table_preview *t, struct sm_buf *out) {
    const struct sm_schema *schema = sm_features_out(t->features);
    sm_buf_text(out, labelled(t) ? "row,label" : "row");
    for (size_t c = 0; c < schema->n; c++) {
        sm_buf_text(out, ",");
        quoted(schema->columns[c].name, out);
    }
    sm_buf_text(out, t->v->pipeline->output.weights ? ",weight\n" : "\n");
    for (size_t i = 0; i < t->n; i++) {
        if (t->bad[i]) continue;
        const struct sm_placed *p = &t->placed[i];
        if (!p->synthetic) sm_buf_printf(out, "%" PRIu64, row_number(t, p->sample));
        if (labelled(t)) {
            sm_buf_text(out, ",");
            quoted(sm_index_class(t->v->data.index, p->label), out);
        }
        for (size_t c = 0; c < schema->n; c++) {
            const double value = sm_rows_cell(&t->out, i, c);
            sm_buf_text(out, ",");
            if (value != value) continue;
            if (schema->columns[c].kind == SM_COLUMN_CATEGORY && value >= 0 &&
                value < schema->columns[c].n_categories)
                quoted(schema->columns[c].categories[(size_t)value], out);
            else
                sm_buf_printf(out, schema->is_double ? "%.17g" : "%.9g", value);
        }
        if (t->v->pipeline->output.weights) {
            sm_buf_text(out, ",");
            sm_buf_float(out, p->weight);
        }
        sm_buf_text(out, "\n");
    }
}

static int show(struct table_preview *t, struct sm_err *err) {
    const char *path = t->v->options->out_path;
    const size_t n = path == NULL ? 0 : strlen(path);
    struct sm_buf out;
    int r = 0;
    sm_buf_init(&out, TEXT_MAX);
    if (n > 4 && strcasecmp(path + n - 4, ".csv") == 0)
        as_csv(t, &out);
    else
        r = as_text(t, &out, err);
    if (r == 0 && out.full) r = sm_fail(err, SM_E_TOO_LARGE, "the preview is too long");
    if (r == 0 && path == NULL)
        fputs(out.data, stdout);
    else if (r == 0)
        r = sm_fs_write_file(path, out.data, out.len, err);
    sm_buf_release(&out);
    return r;
}

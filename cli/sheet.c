/* Cells are kept as libvips images and joined at the end; each row is as high as its tallest text
 * needs. */
#include "cli/sheet.h"

#include "lib/fs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vips/vips.h>

enum { CELLS_MAX = 4096, GAP = 10, DPI = 72 };
static const double ink[3] = {34, 34, 40}, paper[3] = {255, 255, 255}, frame[3] = {238, 238, 241};

struct cell {
    VipsImage *picture, *text; /* RGB; either may be NULL */
};

struct sm_sheet {
    char *title;
    int columns, tile, n;
    struct cell cells[CELLS_MAX];
};

int sm_sheet_new(struct sm_sheet **gives, const char *title, int columns, int tile,
                 struct sm_err *err) {
    struct sm_sheet *s = calloc(1, sizeof *s);
    if (s == NULL || (s->title = strdup(title)) == NULL) {
        free(s);
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    s->columns = columns;
    s->tile = tile;
    *gives = s;
    return 0;
}

void sm_sheet_free(struct sm_sheet **sp) {
    struct sm_sheet *s = *sp;
    if (s == NULL) return;
    for (int i = 0; i < s->n; i++) {
        VIPS_UNREF(s->cells[i].picture);
        VIPS_UNREF(s->cells[i].text);
    }
    free(s->title);
    free(s);
    *sp = NULL;
}

static int vips_failed(struct sm_err *err, const char *what) {
    sm_fail(err, SM_E_INTERNAL, "cannot draw %s: %s", what, vips_error_buffer());
    vips_error_clear();
    return -1;
}

/* Dark text on paper, wrapped at the width. Pango escapes are neutralised, so that a file name is
 * only a name. */
static int draw_text(const char *text, const char *font, int width, VipsImage **out,
                     struct sm_err *err) {
    VipsImage *mask = NULL, *dark = NULL, *ground = NULL;
    char *safe = g_markup_escape_text(text, -1);
    int r = vips_text(&mask, safe, "font", font, "width", width, "dpi", DPI, "wrap",
                      VIPS_TEXT_WRAP_WORD_CHAR, NULL);
    g_free(safe);
    if (r == 0) {
        dark = vips_image_new_from_image(mask, ink, 3);
        ground = vips_image_new_from_image(mask, paper, 3);
        r = dark == NULL || ground == NULL ||
            vips_ifthenelse(mask, dark, ground, out, "blend", TRUE, NULL);
    }
    VIPS_UNREF(mask);
    VIPS_UNREF(dark);
    VIPS_UNREF(ground);
    return r ? vips_failed(err, "text") : 0;
}

/* To RGB, shrunk into the tile, copied out of the caller's memory. */
static int fit(const uint8_t *pixels, int width, int height, int channels, int tile,
               VipsImage **out, struct sm_err *err) {
    VipsImage *raw =
        vips_image_new_from_memory(pixels, (size_t)width * (size_t)height * (size_t)channels, width,
                                   height, channels, VIPS_FORMAT_UCHAR);
    VipsImage *rgb = NULL, *small = NULL;
    int longest = width > height ? width : height;
    int r = raw == NULL;
    if (!r) {
        VipsImage *three[3] = {raw, raw, raw};
        r = channels == 3 ? vips_copy(raw, &rgb, "interpretation", VIPS_INTERPRETATION_sRGB, NULL)
                          : vips_bandjoin(three, &rgb, 3, NULL);
    }
    if (!r && longest > tile) {
        r = vips_resize(rgb, &small, (double)tile / longest, NULL);
    } else if (!r) {
        small = rgb;
        g_object_ref(small);
    }
    if (!r) r = (*out = vips_image_copy_memory(small)) == NULL;
    VIPS_UNREF(raw);
    VIPS_UNREF(rgb);
    VIPS_UNREF(small);
    return r ? vips_failed(err, "a picture") : 0;
}

int sm_sheet_add(struct sm_sheet *s, const uint8_t *pixels, int width, int height, int channels,
                 const char *text, struct sm_err *err) {
    if (s->n == CELLS_MAX)
        return sm_fail(err, SM_E_USAGE, "a sheet holds %d cells at most", CELLS_MAX);
    struct cell *c = &s->cells[s->n];
    if (pixels != NULL && fit(pixels, width, height, channels, s->tile, &c->picture, err) < 0)
        return -1;
    s->n++;
    return text[0] ? draw_text(text, "sans 10", s->tile, &c->text, err) : 0;
}

/* What stands in a column of the curve: height 0 at the bottom. */
static const uint8_t *shade(int y, int height, double share, double sum) {
    static const uint8_t ground[3] = {250, 250, 252}, area[3] = {198, 214, 236},
                         bar[3] = {62, 104, 168}, line[3] = {34, 34, 40}, grid[3] = {214, 214, 220};
    const int top = (int)(sum * (height - 1) + 0.5);
    if (y == top || y == top - 1) return line;
    if (y < (int)(share * (height - 1) + 0.5)) return bar;
    for (int quarter = 1; quarter < 4; quarter++)
        if (y == quarter * (height - 1) / 4) return grid;
    return y < top ? area : ground;
}

int sm_sheet_add_shares(struct sm_sheet *s, const double *shares, size_t n, const char *text,
                        struct sm_err *err) {
    const int side = s->tile;
    uint8_t *pixels = malloc((size_t)side * (size_t)side * 3);
    if (pixels == NULL) return sm_fail(err, SM_E_MEMORY, "out of memory");
    double sum = 0;
    size_t taken = 0;
    for (int x = 0; x < side; x++) {
        const size_t i = (size_t)x * n / (size_t)side;
        for (; taken <= i && taken < n; taken++)
            sum += shares[taken];
        for (int y = 0; y < side; y++)
            memcpy(pixels + ((size_t)(side - 1 - y) * (size_t)side + (size_t)x) * 3,
                   shade(y, side, n > 0 ? shares[i] : 0, sum), 3);
    }
    int r = sm_sheet_add(s, pixels, side, side, 3, text, err);
    free(pixels);
    return r;
}

int sm_sheet_end_row(struct sm_sheet *s, struct sm_err *err) {
    while (s->n % s->columns != 0)
        if (sm_sheet_add(s, NULL, 0, 0, 0, "", err) < 0) return -1;
    return 0;
}

static int put(VipsImage **canvas, VipsImage *piece, int x, int y, struct sm_err *err) {
    VipsImage *next = NULL;
    if (vips_insert(*canvas, piece, &next, x, y, NULL)) return vips_failed(err, "the sheet");
    g_object_unref(*canvas);
    *canvas = next;
    return 0;
}

static int plain(int width, int height, const double colour[3], VipsImage **out,
                 struct sm_err *err) {
    VipsImage *black = NULL;
    if (vips_black(&black, width, height, NULL)) return vips_failed(err, "the sheet");
    *out = vips_image_new_from_image(black, colour, 3);
    g_object_unref(black);
    return *out == NULL ? vips_failed(err, "the sheet") : 0;
}

static int row_text_height(const struct sm_sheet *s, int first) {
    int high = 0;
    for (int i = first; i < first + s->columns && i < s->n; i++)
        if (s->cells[i].text != NULL && vips_image_get_height(s->cells[i].text) > high)
            high = vips_image_get_height(s->cells[i].text);
    return high;
}

/* One row as an image of its own: joining a tall sheet cell by cell would nest libvips' pipeline
 * too deep. */
static int draw_row(const struct sm_sheet *s, int first, VipsImage **out, struct sm_err *err) {
    int width = s->columns * (s->tile + GAP) + GAP;
    VipsImage *row = NULL, *back = NULL;
    if (plain(width, s->tile + row_text_height(s, first) + 2 * GAP, paper, &row, err) < 0)
        return -1;
    if (plain(s->tile, s->tile, frame, &back, err) < 0) {
        g_object_unref(row);
        return -1;
    }
    int r = 0;
    for (int i = first; i < first + s->columns && i < s->n && r == 0; i++) {
        const struct cell *c = &s->cells[i];
        int x = GAP + (i - first) * (s->tile + GAP);
        if (c->picture != NULL || c->text != NULL) r = put(&row, back, x, 0, err);
        if (r == 0 && c->picture != NULL)
            r = put(&row, c->picture, x + (s->tile - vips_image_get_width(c->picture)) / 2,
                    (s->tile - vips_image_get_height(c->picture)) / 2, err);
        if (r == 0 && c->text != NULL) r = put(&row, c->text, x, s->tile + GAP / 2, err);
    }
    g_object_unref(back);
    if (r == 0) {
        *out = vips_image_copy_memory(row);
        if (*out == NULL) r = vips_failed(err, "a row");
    }
    g_object_unref(row);
    return r;
}

/* Puts a row under what is there; takes *row. */
static int append(VipsImage **sheet, VipsImage **row, struct sm_err *err) {
    VipsImage *both = NULL;
    int r = *sheet == NULL ? 0 : vips_join(*sheet, *row, &both, VIPS_DIRECTION_VERTICAL, NULL);
    if (*sheet == NULL) {
        both = *row;
        g_object_ref(both);
    }
    VIPS_UNREF(*row);
    VIPS_UNREF(*sheet);
    *sheet = both;
    return r ? vips_failed(err, "the sheet") : 0;
}

static int draw_title(const struct sm_sheet *s, VipsImage **out, struct sm_err *err) {
    int width = s->columns * (s->tile + GAP) + GAP;
    VipsImage *title = NULL;
    if (draw_text(s->title, "sans bold 12", width - 2 * GAP, &title, err) < 0) return -1;
    int r = plain(width, vips_image_get_height(title) + 2 * GAP, paper, out, err);
    if (r == 0) r = put(out, title, GAP, GAP, err);
    g_object_unref(title);
    return r;
}

int sm_sheet_write(struct sm_sheet **sp, const char *path, struct sm_err *err) {
    struct sm_sheet *s = *sp;
    VipsImage *sheet = NULL, *row = NULL;
    void *png = NULL;
    size_t png_n = 0;
    int r = draw_title(s, &row, err);
    if (r == 0) r = append(&sheet, &row, err);
    for (int first = 0; first < s->n && r == 0; first += s->columns) {
        r = draw_row(s, first, &row, err);
        if (r == 0) r = append(&sheet, &row, err);
    }
    if (r == 0 && vips_pngsave_buffer(sheet, &png, &png_n, "compression", 9, "filter",
                                      VIPS_FOREIGN_PNG_FILTER_ALL, NULL))
        r = vips_failed(err, "the sheet");
    if (r == 0) r = sm_fs_write_file(path, png, png_n, err);
    g_free(png);
    VIPS_UNREF(row);
    VIPS_UNREF(sheet);
    sm_sheet_free(sp);
    return r;
}

/* A contact sheet: rows of pictures with a few lines of text under each, drawn with libvips from
 * raw pixels. */
#pragma once

#include "lib/err.h"

#include <stddef.h>
#include <stdint.h>

struct sm_sheet;

/* tile: side in pixels of the square that a picture is fitted into (it is shrunk, never enlarged).
 * title: one line. */
int sm_sheet_new(struct sm_sheet **gives, const char *title, int columns, int tile,
                 struct sm_err *err);
/* The next cell, row by row. pixels: height x width x channels (1 or 3) uint8, copied; NULL: text
 * only. */
int sm_sheet_add(struct sm_sheet *s, const uint8_t *pixels, int width, int height, int channels,
                 const char *text, struct sm_err *err);
/* A cell with a curve: running sums of n shares (of 0 to 1 in all) from left to right, each share
 * by itself in a darker bar, lines at a quarter, a half and three quarters. */
int sm_sheet_add_shares(struct sm_sheet *s, const double *shares, size_t n, const char *text,
                        struct sm_err *err);
/* Leaves the rest of a row empty. */
int sm_sheet_end_row(struct sm_sheet *s, struct sm_err *err);
/* Writes the PNG (temporary name, rename) and frees; takes the sheet in any case. */
int sm_sheet_write(struct sm_sheet **s, const char *path, struct sm_err *err);
void sm_sheet_free(struct sm_sheet **s);

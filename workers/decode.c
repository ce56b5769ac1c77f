/* Which decoder, how large, and which way up. workers/image.c asks for a window in upright
 * coordinates; the readers (decode_jpeg.c, decode_vips.c) know only pixels as they are stored. */
#include "workers/decode.h"
#include "lib/limits.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sm_decoder {
    struct sm_decode_options options;
    struct sm_jpeg *jpeg;
    struct sm_vips *vips;
    bool open;
    enum sm_format format;
    struct sm_header header;
};

struct sm_decoder *sm_decoder_new(const struct sm_decode_options *options) {
    assert(options->channels == 1 || options->channels == 3);
    struct sm_decoder *d = calloc(1, sizeof *d);
    if (d == NULL) return NULL;
    d->options = *options;
    d->jpeg = sm_jpeg_new(options);
    d->vips = sm_vips_new(options);
    if (d->jpeg == NULL || d->vips == NULL) sm_decoder_free(&d);
    return d;
}

void sm_decoder_free(struct sm_decoder **d) {
    if (*d == NULL) return;
    sm_decoder_close(*d);
    sm_jpeg_free(&(*d)->jpeg);
    sm_vips_free(&(*d)->vips);
    free(*d);
    *d = NULL;
}

void sm_decoder_close(struct sm_decoder *d) {
    if (!d->open) return;
    if (d->format == SM_FORMAT_JPEG)
        sm_jpeg_close(d->jpeg);
    else
        sm_vips_close(d->vips);
    d->open = false;
}

/* --- magic bytes --- */

struct magic {
    int at, n;
    const char *bytes;
    int format; /* -1: known, not read */
    const char *name;
};

static const struct magic magics[] = {
    {0, 3, "\xff\xd8\xff", SM_FORMAT_JPEG, "JPEG"},
    {0, 8, "\x89PNG\r\n\x1a\n", SM_FORMAT_PNG, "PNG"},
    {8, 4, "WEBP", SM_FORMAT_WEBP, "WebP"},
    {0, 6, "GIF87a", SM_FORMAT_GIF, "GIF"},
    {0, 6, "GIF89a", SM_FORMAT_GIF, "GIF"},
    {0, 4, "II*\0", SM_FORMAT_TIFF, "TIFF"},
    {0, 4, "MM\0*", SM_FORMAT_TIFF, "TIFF"},
    {0, 4, "II+\0", -1, "BigTIFF"},
    {0, 4, "MM\0+", -1, "BigTIFF"},
    {0, 2, "\x1f\x8b", -1, "gzip (perhaps svgz)"},
    {0, 2, "BM", -1, "BMP"},
    {0, 5, "%PDF-", -1, "PDF"},
    {4, 8, "ftypavif", -1, "AVIF"},
    {4, 4, "ftyp", -1, "HEIF or a video"},
    {0, 12, "\0\0\0\x0cJXL \r\n\x87\n", -1, "JPEG XL"},
    {0, 2, "\xff\x0a", -1, "JPEG XL"},
    {0, 8, "\0\0\0\x0cjP  ", -1, "JPEG 2000"},
    {0, 4, "\xff\x4f\xff\x51", -1, "JPEG 2000"},
    {0, 4, "8BPS", -1, "a Photoshop file"},
    {0, 4, "PK\x03\x04", -1, "a zip archive"},
    {0, 4, "\x76\x2f\x31\x01", -1, "OpenEXR"},
    {257, 5, "ustar", -1, "a tar archive"},
    {0, 4, "<svg", -1, "SVG"},
    {0, 5, "<?xml", -1, "XML or SVG"},
    {0, 14, "<!DOCTYPE html", -1, "an HTML page"},
    {0, 5, "<html", -1, "an HTML page"},
};

static const struct magic *magic_find(const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        const struct magic *m = &magics[i];
        if (n < (size_t)(m->at + m->n) || memcmp(bytes + m->at, m->bytes, (size_t)m->n) != 0)
            continue;
        if (m->format == SM_FORMAT_WEBP && memcmp(bytes, "RIFF", 4) != 0) continue;
        return m;
    }
    return NULL;
}

static int fail_unknown(const uint8_t *bytes, size_t n, struct sm_err *err) {
    size_t text = 0, control = 0, zeros = 0, look = n < 64 ? n : 64;
    for (size_t i = 0; i < look; i++) {
        text += isprint(bytes[i]) || isspace(bytes[i]);
        control += bytes[i] < 0x20 && !isspace(bytes[i]);
        zeros += bytes[i] == 0;
    }
    if (zeros == look) return sm_fail(err, SM_E_FORMAT, "not an image: it begins with zero bytes");
    if (control == 0 && text > look / 2) /* the rest may be UTF-8 */
        return sm_fail(err, SM_E_FORMAT, "not an image: it looks like text");
    char hex[32] = "";
    for (size_t i = 0; i < n && i < 8; i++)
        snprintf(hex + i * 3, sizeof hex - i * 3, "%02x ", bytes[i]);
    hex[strlen(hex) - 1] = 0;
    return sm_fail(err, SM_E_FORMAT, "not an image that is known here: it begins with '%s'", hex);
}

static int sniff(const struct sm_decoder *d, const uint8_t *bytes, size_t n, enum sm_format *format,
                 struct sm_err *err) {
    const struct magic *m = magic_find(bytes, n);
    if (m == NULL) return fail_unknown(bytes, n, err);
    if (m->format < 0)
        return sm_fail(
            err, SM_E_FORMAT,
            "it looks like %s, which is not read here (hint: convert it to JPEG, PNG or WebP)",
            m->name);
    if ((m->format == SM_FORMAT_GIF && !d->options.gif) ||
        (m->format == SM_FORMAT_TIFF && !d->options.tiff))
        return sm_fail(err, SM_E_FORMAT,
                       "it looks like %s, which is read on request only (hint: source: {%s: true})",
                       m->name, m->format == SM_FORMAT_GIF ? "gif" : "tiff");
    *format = (enum sm_format)m->format;
    return 0;
}

/* --- is the end there? --- */

static uint32_t u32_big(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint32_t u32_little(const uint8_t *p) {
    return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

/* Chunks of length, type, body, checksum, up to IEND. */
static bool png_is_whole(const uint8_t *bytes, size_t n) {
    for (size_t at = 8; n - at >= 12;) {
        size_t length = u32_big(bytes + at);
        if (length > n - at - 12) return false;
        if (memcmp(bytes + at + 4, "IEND", 4) == 0) return true;
        at += 12 + length;
    }
    return false;
}

static bool webp_is_whole(const uint8_t *bytes, size_t n) {
    return n >= 12 && u32_little(bytes + 4) <= n - 8;
}

static uint32_t tiff_number(const uint8_t *p, int bytes, bool big) {
    uint32_t v = 0;
    for (int i = 0; i < bytes; i++)
        v |= (uint32_t)p[i] << 8 * (big ? bytes - 1 - i : i);
    return v;
}

/* A list of numbers in a TIFF directory: strip or tile offsets, or their byte counts. */
struct tiff_list {
    const uint8_t *at;
    uint32_t count;
    int size; /* bytes of a number: 2 or 4 */
};

/* False when the list itself lies behind the end. entry: tag, type, count, then the numbers or
 * where they stand. */
static bool tiff_list_read(const uint8_t *bytes, size_t n, const uint8_t *entry, bool big,
                           struct tiff_list *list) {
    list->size = tiff_number(entry + 2, 2, big) == 3 ? 2 : 4;
    list->count = tiff_number(entry + 4, 4, big);
    const uint64_t length = (uint64_t)list->count * (uint64_t)list->size;
    const uint32_t offset = tiff_number(entry + 8, 4, big);
    const bool within = offset <= n && length <= n - offset;
    list->at = length <= 4 ? entry + 8 : within ? bytes + offset : NULL;
    return list->at != NULL;
}

static uint64_t tiff_list_at(const struct tiff_list *list, uint32_t i, bool big) {
    return tiff_number(list->at + (size_t)i * (size_t)list->size, list->size, big);
}

/* libtiff shortens a strip that runs over the end and a JPEG in it is then made up, so every strip
 * or tile of the first directory must lie in the file. */
static bool tiff_is_whole(const uint8_t *bytes, size_t n) {
    if (n < 8) return false;
    const bool big = bytes[0] == 'M';
    size_t at = tiff_number(bytes + 4, 4, big);
    if (at > n - 2) return false;
    struct tiff_list offsets = {0}, counts = {0};
    uint32_t entries = tiff_number(bytes + at, 2, big);
    for (at += 2; entries > 0; entries--, at += 12) {
        if (n - at < 12) return false;
        const uint32_t tag = tiff_number(bytes + at, 2, big);
        const bool is_offsets = tag == 273 || tag == 324, is_counts = tag == 279 || tag == 325;
        if ((is_offsets || is_counts) &&
            !tiff_list_read(bytes, n, bytes + at, big, is_offsets ? &offsets : &counts))
            return false;
    }
    for (uint32_t i = 0; i < offsets.count && i < counts.count; i++)
        if (tiff_list_at(&offsets, i, big) + tiff_list_at(&counts, i, big) > n) return false;
    return true;
}

/* The decoders find a cut too, but not every one, and not always in words. */
static bool is_whole(enum sm_format format, const uint8_t *bytes, size_t n) {
    switch (format) {
    case SM_FORMAT_PNG:
        return png_is_whole(bytes, n);
    case SM_FORMAT_WEBP:
        return webp_is_whole(bytes, n);
    case SM_FORMAT_TIFF:
        return tiff_is_whole(bytes, n);
    default:
        return true;
    }
}

/* --- open --- */

static int check_limits(const struct sm_header *h, struct sm_err *err) {
    if (h->width < 1 || h->height < 1)
        return sm_fail(err, SM_E_DECODE, "an image of %d x %d pixels", h->width, h->height);
    if (h->width > SM_MAX_IMAGE_SIDE || h->height > SM_MAX_IMAGE_SIDE)
        return sm_fail(err, SM_E_TOO_LARGE, "%d x %d pixels, a side may have %d", h->width,
                       h->height, SM_MAX_IMAGE_SIDE);
    if ((int64_t)h->width * h->height > SM_MAX_IMAGE_PIXELS)
        return sm_fail(err, SM_E_TOO_LARGE, "%d x %d pixels, an image may have %d", h->width,
                       h->height, SM_MAX_IMAGE_PIXELS);
    if (h->bands > SM_MAX_IMAGE_BANDS)
        return sm_fail(err, SM_E_TOO_LARGE, "%d bands, an image may have %d", h->bands,
                       SM_MAX_IMAGE_BANDS);
    return 0;
}

int sm_decoder_open(struct sm_decoder *d, const uint8_t *bytes, size_t n, struct sm_err *err) {
    sm_decoder_close(d);
    if (n == 0) return sm_fail(err, SM_E_EMPTY, "the file has no bytes");
    if (n > SM_MAX_SAMPLE_BYTES)
        return sm_fail(err, SM_E_TOO_LARGE, "%zu bytes, a sample may have %d", n,
                       SM_MAX_SAMPLE_BYTES);
    if (sniff(d, bytes, n, &d->format, err) != 0) return -1;
    if (!is_whole(d->format, bytes, n))
        return sm_fail(err, SM_E_TRUNCATED,
                       "%s: the file ends after %zu bytes, before the image does",
                       sm_decoder_extension(d), n);
    int failed = d->format == SM_FORMAT_JPEG
                     ? sm_jpeg_open(d->jpeg, bytes, n, &d->header, err)
                     : sm_vips_open(d->vips, d->format, bytes, n, &d->header, err);
    if (failed) return -1;
    d->open = true;
    if (check_limits(&d->header, err) != 0) {
        sm_decoder_close(d);
        return -1;
    }
    return 0;
}

int sm_decoder_width(const struct sm_decoder *d) {
    return d->header.orientation >= 5 ? d->header.height : d->header.width;
}

int sm_decoder_height(const struct sm_decoder *d) {
    return d->header.orientation >= 5 ? d->header.width : d->header.height;
}

const char *sm_decoder_extension(const struct sm_decoder *d) {
    static const char *const extensions[SM_FORMAT_COUNT] = {"jpg", "png", "webp", "gif", "tif"};
    return extensions[d->format];
}

/* --- which way up --- */

/* Upright (x, y) is stored (x, y), swapped if `transpose`, then counted from the far end of a
 * flipped axis. */
static const struct turn {
    bool transpose, flip_x, flip_y;
} turns[9] = {[2] = {0, 1, 0}, [3] = {0, 1, 1}, [4] = {0, 0, 1}, [5] = {1, 0, 0},
              [6] = {1, 0, 1}, [7] = {1, 1, 1}, [8] = {1, 1, 0}};

static struct sm_rect stored_window(const struct sm_decoder *d, struct sm_rect w) {
    const struct turn *t = &turns[d->header.orientation];
    struct sm_rect s = t->transpose ? (struct sm_rect){w.y, w.x, w.height, w.width} : w;
    if (t->flip_x) s.x = d->header.width - s.x - s.width;
    if (t->flip_y) s.y = d->header.height - s.y - s.height;
    return s;
}

static void turn_tile(const struct turn *t, const struct sm_tile *in, const struct sm_tile *out) {
    const size_t channels = (size_t)in->channels;
    for (int y = 0; y < out->height; y++) {
        uint8_t *to = out->u8 + (size_t)y * out->stride;
        for (int x = 0; x < out->width; x++, to += channels) {
            int sx = t->transpose ? y : x, sy = t->transpose ? x : y;
            if (t->flip_x) sx = in->width - 1 - sx;
            if (t->flip_y) sy = in->height - 1 - sy;
            memcpy(to, in->u8 + (size_t)sy * in->stride + (size_t)sx * channels, channels);
        }
    }
}

static int read_stored(struct sm_decoder *d, struct sm_rect window, struct sm_block *to,
                       struct sm_tile *tile, struct sm_err *err) {
    if (d->format == SM_FORMAT_JPEG) return sm_jpeg_read(d->jpeg, window, to, tile, err);
    return sm_vips_read(d->vips, window, to, tile, err);
}

int sm_decoder_read(struct sm_decoder *d, struct sm_rect window, struct sm_block *to,
                    struct sm_block *spare, struct sm_tile *tile, struct sm_err *err) {
    assert(d->open);
    if (d->header.orientation == 1) return read_stored(d, window, to, tile, err);
    struct sm_tile stored;
    if (read_stored(d, stored_window(d, window), spare, &stored, err) != 0) return -1;
    const size_t stride = ((size_t)window.width * (size_t)stored.channels + 15) & ~(size_t)15;
    if (sm_block_reserve(to, stride * (size_t)window.height, err) != 0) return -1;
    *tile = (struct sm_tile){.u8 = to->data,
                             .width = window.width,
                             .height = window.height,
                             .channels = stored.channels,
                             .stride = stride};
    turn_tile(&turns[d->header.orientation], &stored, tile);
    return 0;
}

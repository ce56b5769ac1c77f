/* The last step of a tensor: flips, Normalize's table, element type and layout in one pass over the
 * pixels, written straight into the caller's memory. Comes after the chain of ops; what it writes
 * is what a trainer gets. */
#include "workers/kernels/copy.h"

#include <assert.h>
#include <string.h>

uint32_t sm_float_bits32(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

uint32_t sm_float_bitsb16(float v) {
    uint32_t bits = sm_float_bits32(v);
    if ((bits & 0x7fffffff) > 0x7f800000) return bits >> 16 | 0x40; /* not a number stays none */
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

uint32_t sm_float_bits16(float v) {
    const uint32_t bits = sm_float_bits32(v), sign = bits >> 16 & 0x8000,
                   mantissa = bits & 0x7fffff;
    const int exponent = (int)(bits >> 23 & 0xff) - 127 + 15;
    if (exponent == 255 - 127 + 15) return sign | 0x7c00 | (mantissa ? 0x200 : 0);
    if (exponent >= 31) return sign | 0x7c00;
    if (exponent < -10) return sign;
    /* normal: drop 13 bits; subnormal: the leading one becomes part of the mantissa and more bits
     * drop */
    const int drop = exponent > 0 ? 13 : 14 - exponent;
    const uint32_t whole = exponent > 0 ? (uint32_t)exponent << 23 | mantissa : mantissa | 0x800000;
    const uint32_t half = 1u << (drop - 1), rest = whole & ((1u << drop) - 1);
    uint32_t kept = whole >> drop;
    if (rest > half || (rest == half && (kept & 1)))
        kept++; /* a carry runs into the exponent, as it should */
    return sign | kept;
}

static inline void put(uint8_t *to, uint32_t element, int size) {
    memcpy(to, &element, (size_t)size);
}

/* One row, element by element. to_pixel and to_channel: bytes from one to the next in out. */
__attribute__((always_inline)) static inline void write_row(const struct sm_layout_job *job,
                                                            const uint8_t *from, uint8_t *to,
                                                            size_t to_pixel, size_t to_channel,
                                                            int size) {
    const struct sm_tile *t = &job->tile;
    const ptrdiff_t step = (ptrdiff_t)sm_tile_pixel(t) * (job->flip_x ? -1 : 1);
    if (job->flip_x) from += (size_t)(t->width - 1) * sm_tile_pixel(t);
    for (int x = 0; x < t->width; x++, from += step, to += to_pixel)
        for (int c = 0; c < t->channels; c++) {
            uint32_t element;
            if (t->is_float) {
                float v;
                memcpy(&v, from + (size_t)c * sizeof v, sizeof v);
                element = job->narrow(v);
            } else {
                element = job->table != NULL ? job->table[c][from[c]] : from[c];
            }
            put(to + (size_t)c * to_channel, element, size);
        }
}

/* The common case, uint8 RGB to planes, without a table. */
static void write_planes_rgb(const uint8_t *restrict from, uint8_t *restrict r, uint8_t *restrict g,
                             uint8_t *restrict b, int width, bool flip) {
    if (flip) {
        from += (size_t)(width - 1) * 3;
        for (int x = 0; x < width; x++, from -= 3) {
            r[x] = from[0];
            g[x] = from[1];
            b[x] = from[2];
        }
        return;
    }
    for (int x = 0; x < width; x++, from += 3) {
        r[x] = from[0];
        g[x] = from[1];
        b[x] = from[2];
    }
}

void sm_layout_write(const struct sm_layout_job *job, uint8_t *out) {
    const struct sm_tile *t = &job->tile;
    const size_t size = (size_t)job->size, channels = (size_t)t->channels;
    const size_t plane = (size_t)t->width * (size_t)t->height * size;
    const size_t to_pixel = job->planes ? size : size * channels,
                 to_channel = job->planes ? plane : size;
    assert(t->is_float ? job->narrow != NULL : job->size == 1 || job->table != NULL);
    const bool bytes = !t->is_float && job->table == NULL;
    for (int y = 0; y < t->height; y++) {
        const uint8_t *from = sm_tile_row(t, job->flip_y ? t->height - 1 - y : y);
        uint8_t *to = out + (size_t)y * (size_t)t->width * to_pixel;
        if (bytes && job->planes && channels == 3)
            write_planes_rgb(from, to, to + plane, to + 2 * plane, t->width, job->flip_x);
        else if (bytes && !job->flip_x && (channels == 1 || !job->planes))
            memcpy(to, from, (size_t)t->width * channels);
        else if (size == 1)
            write_row(job, from, to, to_pixel, to_channel, 1);
        else if (size == 2)
            write_row(job, from, to, to_pixel, to_channel, 2);
        else
            write_row(job, from, to, to_pixel, to_channel, 4);
    }
}

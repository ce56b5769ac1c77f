/* The encoders: a finished uint8 tile into the caller's memory. JPEG by libjpeg-turbo and PNG by
 * libpng directly, on this thread and without a copy; WebP by libvips. Comes after the chain of
 * ops; before the sink. */
#pragma once

#include "lib/err.h"
#include "workers/image.h"

#include <stddef.h>
#include <stdint.h>

struct sm_encoder; /* belongs to one thread */

struct sm_encoder *sm_encoder_new(void);
void sm_encoder_free(struct sm_encoder **e);

/* Each fills out and *n (bytes written). A result that does not fit is SM_E_TOO_LARGE. */
int sm_encode_jpeg(struct sm_encoder *e, const struct sm_tile *tile, int quality, uint8_t *out,
                   size_t out_max, size_t *n, struct sm_err *err);
int sm_encode_png(const struct sm_tile *tile, uint8_t *out, size_t out_max, size_t *n,
                  struct sm_err *err);
int sm_encode_webp(const struct sm_tile *tile, int quality, uint8_t *out, size_t out_max, size_t *n,
                   struct sm_err *err);
/* The version of libpng that is loaded. */
const char *sm_encode_png_version(void);

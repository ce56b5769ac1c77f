/* XXH3 by libxxhash. SHA-256 stands in lib/sha.c, so that what needs no SHA needs no libcrypto. */
#include "lib/digest.h"

#include "lib/hash.h"

#include <stdlib.h>
#include <xxhash.h>

void sm_hash_hex(const unsigned char *bytes, size_t n, char *hex) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        hex[2 * i] = digits[bytes[i] >> 4];
        hex[2 * i + 1] = digits[bytes[i] & 15];
    }
    hex[2 * n] = 0;
}

static void xxh_hex(XXH128_hash_t h, char *hex) {
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, h);
    sm_hash_hex(c.digest, sizeof c.digest, hex);
}

void sm_xxh(const void *bytes, size_t n, char hex[SM_XXH_HEX]) {
    xxh_hex(XXH3_128bits(bytes, n), hex);
}

static void xxh_add(void *state, const void *bytes, size_t n) {
    XXH3_128bits_update(state, bytes, n);
}

static void xxh_end(void *state, char *hex) {
    if (hex != NULL) xxh_hex(XXH3_128bits_digest(state), hex);
    XXH3_freeState(state);
}

struct sm_hash *sm_hash_new_xxh(void) {
    struct sm_hash *h = calloc(1, sizeof *h);
    XXH3_state_t *state = XXH3_createState();
    if (h == NULL || state == NULL || XXH3_128bits_reset(state) != XXH_OK) {
        XXH3_freeState(state);
        free(h);
        return NULL;
    }
    *h = (struct sm_hash){.state = state, .add = xxh_add, .end = xxh_end};
    return h;
}

void sm_hash_add(struct sm_hash *h, const void *bytes, size_t n) {
    if (n > 0) h->add(h->state, bytes, n);
}

void sm_hash_end(struct sm_hash **hp, char *hex) {
    struct sm_hash *h = *hp;
    if (h == NULL) return;
    h->end(h->state, hex);
    free(h);
    *hp = NULL;
}

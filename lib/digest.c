/* XXH3 by libxxhash, SHA-256 by libcrypto (which uses the processor's SHA instructions). */
#include "lib/digest.h"

#include <assert.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

static void to_hex(const unsigned char *bytes, size_t n, char *hex) {
    for (size_t i = 0; i < n; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
}

static void xxh_hex(XXH128_hash_t h, char *hex) {
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, h);
    to_hex(c.digest, sizeof c.digest, hex);
}

void sm_xxh(const void *bytes, size_t n, char hex[SM_XXH_HEX]) {
    xxh_hex(XXH3_128bits(bytes, n), hex);
}

struct sm_hash {
    XXH3_state_t *xxh;
    EVP_MD_CTX *sha;
};

struct sm_hash *sm_hash_new_xxh(void) {
    struct sm_hash *h = calloc(1, sizeof *h);
    assert(h != NULL);
    h->xxh = XXH3_createState();
    assert(h->xxh != NULL && XXH3_128bits_reset(h->xxh) == XXH_OK);
    return h;
}

struct sm_hash *sm_hash_new_sha256(void) {
    struct sm_hash *h = calloc(1, sizeof *h);
    assert(h != NULL);
    h->sha = EVP_MD_CTX_new();
    int ok = h->sha != NULL && EVP_DigestInit_ex(h->sha, EVP_sha256(), NULL);
    assert(ok);
    return h;
}

void sm_hash_add(struct sm_hash *h, const void *bytes, size_t n) {
    if (n == 0) return;
    if (h->xxh != NULL)
        XXH3_128bits_update(h->xxh, bytes, n);
    else
        EVP_DigestUpdate(h->sha, bytes, n);
}

void sm_hash_end(struct sm_hash **hp, char *hex) {
    struct sm_hash *h = *hp;
    if (h == NULL) return;
    if (h->xxh != NULL) {
        if (hex != NULL) xxh_hex(XXH3_128bits_digest(h->xxh), hex);
        XXH3_freeState(h->xxh);
    } else {
        unsigned char md[EVP_MAX_MD_SIZE];
        unsigned n = 0;
        EVP_DigestFinal_ex(h->sha, md, &n);
        if (hex != NULL) to_hex(md, n, hex);
        EVP_MD_CTX_free(h->sha);
    }
    free(h);
    *hp = NULL;
}

/* SHA-256 by libcrypto, which uses the processor's SHA instructions. */
#include "lib/digest.h"

#include "lib/hash.h"

#include <openssl/evp.h>
#include <stdlib.h>

static void sha_add(void *state, const void *bytes, size_t n) {
    EVP_DigestUpdate(state, bytes, n);
}

static void sha_end(void *state, char *hex) {
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    EVP_DigestFinal_ex(state, md, &n);
    if (hex != NULL) sm_hash_hex(md, n, hex);
    EVP_MD_CTX_free(state);
}

struct sm_hash *sm_hash_new_sha256(void) {
    struct sm_hash *h = calloc(1, sizeof *h);
    EVP_MD_CTX *state = EVP_MD_CTX_new();
    if (h == NULL || state == NULL || !EVP_DigestInit_ex(state, EVP_sha256(), NULL)) {
        EVP_MD_CTX_free(state);
        free(h);
        return NULL;
    }
    *h = (struct sm_hash){.state = state, .add = sha_add, .end = sha_end};
    return h;
}

void sm_sha256(const void *bytes, size_t n, char hex[SM_SHA_HEX]) {
    struct sm_hash *hash = sm_hash_new_sha256();
    if (hash == NULL) abort();
    sm_hash_add(hash, bytes, n);
    sm_hash_end(&hash, hex);
}

/* Digests as text: XXH3-128 where equality is the question (datasets, pipelines, tensors), SHA-256
 * where a reader with standard tools checks a file. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

enum { SM_XXH_HEX = 33, SM_SHA_HEX = 65 }; /* bytes of the hex text with its NUL */

/* Fills hex with the XXH3-128 of the bytes: 32 lower-case digits, the canonical (big-endian) form
 * that `xxh128sum` prints. */
void sm_xxh(const void *bytes, size_t n, char hex[SM_XXH_HEX]);

/* The same with SHA-256: 64 digits, as `sha256sum` prints them. Aborts where there is no memory for
 * some hundred bytes: commands and workers call it, which end without harm, never the broker. */
void sm_sha256(const void *bytes, size_t n, char hex[SM_SHA_HEX]);
/* Whether a text is so many lower-case hex digits and nothing else. */
static inline bool sm_is_hex(const char *s, size_t digits) {
    return strspn(s, "0123456789abcdef") == digits && s[digits] == 0;
}

/* XXH3-128 or SHA-256 over pieces. NULL without memory. */
struct sm_hash;
struct sm_hash *sm_hash_new_xxh(void);
struct sm_hash *sm_hash_new_sha256(void);
void sm_hash_add(struct sm_hash *h, const void *bytes, size_t n);
/* Fills hex (33 or 65 bytes), frees *h and nulls it. hex may be NULL to give up. */
void sm_hash_end(struct sm_hash **h, char *hex);

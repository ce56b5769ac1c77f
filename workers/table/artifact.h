/* An artifact: what a fit has learned, a few named arrays, as the bytes of an uncompressed .npz
 * (`numpy.load` opens it), named by their SHA-256. The same arrays give the same bytes everywhere.
 * Before: fit.h makes it. After: row ops apply it. */
#pragma once

#include "lib/buf.h"
#include "lib/digest.h"
#include "lib/err.h"
#include "lib/index.h"

#include <stdint.h>

enum sm_array_type { SM_ARRAY_F64, SM_ARRAY_F32, SM_ARRAY_I64, SM_ARRAY_U32, SM_ARRAY_U8 };
enum { SM_ARTIFACT_ARRAYS_MAX = 16, SM_ARRAY_NAME_MAX = 32 };

struct sm_array {
    char name[SM_ARRAY_NAME_MAX]; /* as scikit-learn's attribute: "mean_", "components_" */
    int type;                     /* enum sm_array_type */
    int ndim;                     /* 1 or 2 */
    uint64_t shape[2];
    const void *data; /* C-contiguous, 64-byte aligned within the file */
};

struct sm_artifact {
    struct sm_array arrays[SM_ARTIFACT_ARRAYS_MAX];
    size_t n;
    char sha256[SM_SHA_HEX];
    void *map; /* of an opened file; owned */
    uint64_t bytes;
    void *prepared; /* what the op that applies it has made of it, and how that is freed */
    void (*release)(void *prepared);
};

/* Bytes of an element. */
size_t sm_array_bytes(int type);
/* One more array, of rows x columns, or with 0 columns of one axis. Keeps data. */
void sm_artifact_add(struct sm_artifact *a, const char *name, int type, uint64_t rows,
                     uint64_t columns, const void *data);
const struct sm_array *sm_artifact_find(const struct sm_artifact *a, const char *name);
/* Bytes of the file that it would be; 0: none can be. No array needs its data. */
uint64_t sm_artifact_size(const struct sm_artifact *a);
/* Writes the arrays (name, type, shape and data set) to dir/<sha256>.npz by a temporary name, fsync
 * and rename; fills a->sha256. */
int sm_artifact_write(struct sm_artifact *a, const char *dir, struct sm_err *err);
/* Maps dir/<sha256>.npz, checks the hash and every header. SM_E_MISSING when it is not there. */
int sm_artifact_open(struct sm_artifact *a, const char *dir, const char *sha256,
                     struct sm_err *err);
/* The same from bytes that the caller keeps mapped for longer than a. */
int sm_artifact_read(struct sm_artifact *a, const void *bytes, uint64_t n, struct sm_err *err);
void sm_artifact_close(struct sm_artifact *a);

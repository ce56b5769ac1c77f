/* Arrays as numpy.save writes them (format 1.0 to 3.0, "A simple file format for NumPy arrays"):
 * the header, and elements turned into those of a matrix. Private to the sources. */
#pragma once

#include "lib/err.h"
#include "lib/index.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sm_npy_type {
    SM_NPY_F4,
    SM_NPY_F8,
    SM_NPY_I1,
    SM_NPY_I2,
    SM_NPY_I4,
    SM_NPY_I8,
    SM_NPY_U1,
    SM_NPY_U2,
    SM_NPY_U4,
    SM_NPY_U8,
    SM_NPY_BOOL,
    SM_NPY_TEXT,  /* '<U7': UTF-32 */
    SM_NPY_BYTES, /* '|S7' */
    SM_NPY_TYPES
};

struct sm_npy {
    int type;          /* enum sm_npy_type */
    size_t item;       /* bytes of an element */
    int ndim;          /* 1 or 2 */
    uint64_t shape[2]; /* of one axis: shape[1] is 1 */
    uint64_t data;     /* where the elements begin */
};

/* Reads the header of an open file of file_bytes bytes. Another order or byte order, objects,
 * records, a file too short for its shape: SM_E_DATASET, SM_E_FORMAT. */
int sm_npy_header(int fd, const char *name, uint64_t file_bytes, struct sm_npy *out,
                  struct sm_err *err);
/* Whether a float32 holds every value of the type. */
bool sm_npy_is_single(int type);
/* Whether an index's file can be read as rows of so many columns. */
bool sm_npy_fits(const struct sm_index_file *f, uint64_t columns);
size_t sm_npy_item(int type);
/* n rows of file f's own columns at `from` become rows of the matrix at `to`. */
void sm_npy_convert(const struct sm_index_file *f, const void *from, size_t n, bool is_double,
                    void *to);

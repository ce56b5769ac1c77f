/* Reads tables from stdin (uint32 length, a byte of delimiter, whose highest bit says
 * that spaces before a field are skipped, a byte of buffer size, the bytes)
 * and writes what the CSV reader makes of each: per row uint32 fields (UINT32_MAX: a bad row),
 * uint32 line, uint64 offset, then length and bytes of each field; UINT32_MAX - 1 ends the table.
 * For the differential test. */
#include "workers/sources/csv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void put(const void *bytes, size_t n) {
    if (fwrite(bytes, 1, n, stdout) != n) exit(1);
}

static void put_row(const struct sm_csv_row *row) {
    uint32_t head[2] = {row->code == SM_E_OK ? (uint32_t)row->n : UINT32_MAX, (uint32_t)row->line};
    put(head, sizeof head);
    put(&row->offset, sizeof row->offset);
    for (size_t i = 0; row->code == SM_E_OK && i < row->n; i++) {
        const struct sm_csv_field f = sm_csv_cell(row, i);
        uint32_t n = (uint32_t)f.n;
        put(&n, sizeof n);
        put(f.s, n);
    }
}

static void read_table(const char *bytes, size_t n, unsigned char how, size_t buffer) {
    const char delimiter = (char)(how & 127);
    struct sm_err err;
    struct sm_csv *csv;
    struct sm_csv_row row;
    char path[64];
    int fd = memfd_create("table", 0), got;
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n) exit(1);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (sm_csv_open_sized(&csv, path, delimiter, buffer, &err) != 0) exit(1);
    if (how & 128) sm_csv_skip_initial_space(csv);
    while ((got = sm_csv_next(csv, &row, &err)) == 1)
        put_row(&row);
    if (got < 0 || sm_csv_bytes(csv) != n) exit(1);
    sm_csv_close(&csv);
    close(fd);
    uint32_t end = UINT32_MAX - 1;
    put(&end, sizeof end);
}

int main(void) {
    uint32_t n;
    unsigned char how[2];
    while (fread(&n, sizeof n, 1, stdin) == 1) {
        char *bytes = malloc((size_t)n + 1);
        if (bytes == NULL || fread(how, 1, 2, stdin) != 2 || fread(bytes, 1, n, stdin) != n)
            return 1;
        read_table(bytes, n, how[0], how[1]);
        free(bytes);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}

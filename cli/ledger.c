/* Lines of samples and checkpoints. Before: cli/trainer.c has a batch. After: tests compare what
 * all ranks' ledgers hold with the plan. */
#include "cli/ledger.h"

#include "lib/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { LINE_BYTES = 512 };

struct sm_ledger {
    FILE *file;
    char *path;
};

static int history_cut(struct sm_ledger *l, char token[SM_TOKEN_BYTES], struct sm_err *err);

int sm_ledger_open(struct sm_ledger **gives, const char *path, char token[SM_TOKEN_BYTES],
                   struct sm_err *err) {
    struct sm_ledger *l = calloc(1, sizeof *l);
    if (l == NULL || (l->path = strdup(path)) == NULL) {
        free(l);
        return sm_fail(err, SM_E_MEMORY, "out of memory");
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    l->file = fd >= 0 ? fdopen(fd, "r+") : NULL;
    int r = 0;
    if (l->file == NULL) {
        r = sm_fail_errno(err, "cannot open the ledger '%s'", path);
        if (fd >= 0) close(fd);
    } else if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        r = sm_fail(err, SM_E_BUSY, "another trainer writes the ledger '%s'", path);
    } else {
        r = history_cut(l, token, err);
    }
    if (r < 0) sm_ledger_close(&l);
    *gives = l;
    return r;
}

void sm_ledger_close(struct sm_ledger **lp) {
    struct sm_ledger *l = *lp;
    if (l == NULL) return;
    if (l->file != NULL) fclose(l->file);
    free(l->path);
    free(l);
    *lp = NULL;
}

/* What stands behind the last whole line of a checkpoint was not trained on, as far as the model
 * that goes on knows. */
static int history_cut(struct sm_ledger *l, char token[SM_TOKEN_BYTES], struct sm_err *err) {
    char line[LINE_BYTES];
    long at = 0, keep = 0;
    token[0] = 0;
    while (fgets(line, sizeof line, l->file) != NULL) {
        size_t n = strlen(line);
        at += (long)n;
        if (n < 3 || line[n - 1] != '\n' || line[0] != 'c') continue;
        line[n - 1] = 0;
        if (n - 3 >= SM_TOKEN_BYTES)
            return sm_fail(err, SM_E_IO, "'%s' is no ledger: a token of %zu bytes", l->path, n - 3);
        memcpy(token, line + 2, n - 2);
        keep = at;
    }
    if (ferror(l->file) || fflush(l->file) != 0 || fseek(l->file, keep, SEEK_SET) != 0 ||
        ftruncate(fileno(l->file), keep) != 0)
        return sm_fail_errno(err, "cannot read the ledger '%s'", l->path);
    return 0;
}

int sm_ledger_add(struct sm_ledger *l, const struct sm_batch_view *view, struct sm_err *err) {
    size_t bytes = view->count > 0 ? view->data_bytes / view->count : 0;
    for (uint32_t i = 0; i < view->count; i++) {
        char digest[SM_XXH_HEX];
        sm_xxh((const char *)view->data + i * bytes, bytes, digest);
        if (fprintf(l->file, "s %u %" PRIu64 " %" PRIu64 " %u %s\n", view->epoch, view->position[i],
                    view->index[i], view->flags[i], digest) < 0)
            return sm_fail_errno(err, "cannot write the ledger '%s'", l->path);
    }
    return 0;
}

int sm_ledger_checkpoint(struct sm_ledger *l, const char *token, struct sm_err *err) {
    if (fprintf(l->file, "c %s\n", token) < 0 || fflush(l->file) != 0 ||
        fdatasync(fileno(l->file)) != 0)
        return sm_fail_errno(err, "cannot write the ledger '%s'", l->path);
    return 0;
}

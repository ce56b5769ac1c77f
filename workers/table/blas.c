/* Finds OpenBLAS when it is first needed. */
#include "workers/table/blas.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sm_blas blas;
static struct sm_err failure;
static bool loaded;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void) {
    /* read by the library's constructor; a second thread of it would only be in the way */
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        sm_fail(&failure, SM_E_MISSING,
                "ops on rows need OpenBLAS: %s (hint: install libopenblas0)", dlerror());
        return;
    }
    const struct {
        const char *name;
        void *at;
    } symbols[] = {{"cblas_sgemm", &blas.sgemm}, {"cblas_dgemm", &blas.dgemm},
                   {"cblas_ssyrk", &blas.ssyrk}, {"cblas_dsyrk", &blas.dsyrk},
                   {"dsyevd_", &blas.dsyevd},    {"dgeqrf_", &blas.dgeqrf},
                   {"dorgqr_", &blas.dorgqr}};
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (symbol == NULL) {
            sm_fail(&failure, SM_E_MISSING,
                    "this OpenBLAS has no '%s' (hint: install libopenblas0)", symbols[i].name);
            return;
        }
        memcpy(symbols[i].at, &symbol, sizeof symbol);
    }
    char *(*config)(void), *(*core)(void);
    void (*threads)(int);
    *(void **)&config = dlsym(library, "openblas_get_config");
    *(void **)&core = dlsym(library, "openblas_get_corename");
    *(void **)&threads = dlsym(library, "openblas_set_num_threads");
    if (threads != NULL) threads(1);
    const char *words = config != NULL ? config() : "OpenBLAS"; /* "OpenBLAS 0.3.21 …" */
    int version = (int)strcspn(words, " ");
    if (words[version] == ' ') version += 1 + (int)strcspn(words + version + 1, " ");
    snprintf(blas.version, sizeof blas.version, "%.*s %s", version, words,
             core != NULL ? core() : "unknown core");
    loaded = true;
}

const struct sm_blas *sm_blas(struct sm_err *err) {
    pthread_once(&once, load);
    if (loaded) return &blas;
    if (err != NULL) *err = failure;
    return NULL;
}

/* The fit phase of a command: what the ops of a pipeline have to learn is learned, once, before
 * anything is planned. Before: the pipeline is loaded and its dataset open. After: the pipeline's
 * artifacts are complete, so that its digest says all. */
#pragma once

#include "cli/cli.h"
#include "cli/dataset.h"
#include "lib/digest.h"
#include "pipelines/lang/pipeline.h"
#include "workers/table/artifact.h"

#include <signal.h>
#include <stdbool.h>

struct sm_fit_options {
    const char *state;  /* absolute folder; artifacts are kept in STATE/artifacts */
    const char *borrow; /* another STATE, where the same may have been fitted; NULL: none */
    const char *lock;   /* lock file that pins what is learned, NULL: none */
    const char *broker; /* whose workers share large fits; NULL: embedded ones */
    int workers;
    bool no_sandbox, quiet;
    uint64_t spread_bytes; /* rows of so many bytes are shared among workers; 0: SM_FIT_SPREAD */
    const volatile sig_atomic_t *stop; /* NULL: nothing stops it */
};
/* Multiplications that workers must save, of a search for neighbours: some seconds' worth. */
#define SM_SEARCH_SPREAD 2e11
/* Below this a round takes less time than to hand it out. */
#define SM_FIT_SPREAD (UINT64_C(128) << 20)

/* What an op has learned. */
struct sm_fitted {
    size_t op; /* its place; of rebalancing the number of ops */
    const char *name;
    char key[SM_XXH_HEX]; /* of all that decides the artifact's bytes */
    char sha256[SM_SHA_HEX];
    uint64_t bytes;
    bool fresh;      /* fitted by this call, not found */
    char facts[256]; /* "components_ [8, 30]; explained variance ratio 0.94", for people */
};
struct sm_fits {
    struct sm_fitted *list; /* owned */
    size_t n;
};
void sm_fits_release(struct sm_fits *fits);

/* From the options that commands share. lock may be NULL. Keeps all. */
struct sm_fit_options sm_fit_options_of(const struct sm_common *common, const char *state,
                                        const char *lock);

bool sm_op_learns(const struct sm_op_node *node);
/* Whether anything in it is to be learned from data. */
bool sm_pipeline_learns(const struct sm_pipeline *p);
/* Completes p->artifacts and p->rebalance_artifact: each op that learns is fitted in the order of
 * the pipeline on the training part, or found when it was fitted before on the same. A pipeline
 * that learns nothing is left as it is. With a lock file that is there, what comes out must be what
 * it says: SM_E_DIFFERS names what differs. fits (may be NULL): filled, to be released in any case.
 */
int sm_fit_ensure(struct sm_pipeline *p, const struct sm_fit_options *options,
                  const struct sm_dataset *data, struct sm_fits *fits, struct sm_err *err);
/* Fills p->artifacts with what is kept in STATE, up to the first op that has not been fitted. */
void sm_fit_look(struct sm_pipeline *p, const char *state, const struct sm_dataset *data);
/* The key of an op's fit, when the artifacts of the ops before it are known; op = n_ops: of
 * rebalancing. */
void sm_fit_key(const struct sm_pipeline *p, size_t op, const char *dataset_digest,
                char key[SM_XXH_HEX]);
/* Versions that decide what is learned: the engine's and OpenBLAS's. */
const char *sm_fit_fingerprint(void);

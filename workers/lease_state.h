/* The inside of a lease, shared by lease.c (samples that go through the cage one by one),
 * lease_rows.c (rows, in blocks) and lease_fit.c (a range of a fit). Private to these three. */
#pragma once

#include "lib/buf.h"
#include "workers/lease.h"

/* What is tried for a place: the sample that the plan says, or a substitute. */
struct attempt {
    uint32_t i;   /* which place of the lease */
    bool padding; /* of a batch: its position has been in the epoch already */
    uint64_t position, sample;
    uint32_t copy; /* that chance is drawn for */
    bool added;    /* by rebalancing */
    float weight;  /* of the place: what fills it in the end has the same; 0 of padding */
    int tries;     /* the substitute's number; 0: the plan's own sample */
    int tried;     /* substitutes that there were so far: a number may stand for none */
    int slot;
    bool skipped; /* the broker says that it kills workers */
    int failed;   /* reading it */
    struct sm_err err;
};

struct sm_lease {
    struct sm_lease_job job;
    struct sm_part_name range;
    uint64_t *skip;
    size_t n_skip;
    struct sm_part *part;        /* RANGE */
    struct sm_batch_place batch; /* STEP: memory is not NULL */
    struct sm_hash *hash;        /* of the batch's samples so far */
    uint32_t done;               /* samples in the part or batch */
    bool busy, have_next;
    struct attempt now, next; /* in the cage; read ahead */
    struct sm_quarantined *bad;
    size_t n_bad, bad_cap;
    struct sm_buf json;
    struct lease_rows *rows; /* NULL: images leave the pipeline */
    struct lease_fit *fit;   /* of a FIT job */
};

/* Set in the copy number of a substitute, so that its draws differ from those of its own copies. */
#define SUBSTITUTE_COPY (UINT32_C(1) << 31)

/* --- lease.c --- */
bool lease_is_skipped(const struct sm_lease *l, uint64_t position);
/* The next sample that may fill the place of `original`; *tries counts on. */
bool lease_substitute(const struct sm_lease *l, uint64_t original, int *tries, uint64_t *sample);
int lease_note_bad(struct sm_lease *l, uint64_t position, uint64_t sample, const char *stage,
                   const struct sm_err *why, struct sm_err *err);
void lease_note_substitute(struct sm_lease *l, uint64_t position, uint64_t sample);

/* --- lease_rows.c --- */
int lease_rows_start(struct sm_lease *l, struct sm_err *err);
void lease_rows_free(struct sm_lease *l);
/* A table: makes the next block. As sm_lease_step. */
int lease_rows_step(struct sm_lease *l, struct sm_err *err);
/* Images: takes the tensor of a place (an .npy of n bytes) in. Places come in their order. */
int lease_rows_collect(struct sm_lease *l, const struct attempt *a, const uint8_t *npy, size_t n,
                       struct sm_err *err);

/* --- lease_fit.c --- */
int lease_fit_start(struct sm_lease *l, struct sm_err *err);
void lease_fit_free(struct sm_lease *l);
/* The training row, or the step of a search, that is next. */
uint64_t lease_fit_row(const struct sm_lease *l);
/* Maps the next block. As sm_lease_step. */
int lease_fit_step(struct sm_lease *l, struct sm_err *err);

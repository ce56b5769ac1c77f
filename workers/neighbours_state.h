/* The inside of the search for neighbours: rows of a class (neighbours_rows.c), the search itself
 * (neighbours_search.c), what is learned in one process (neighbours.c) and by many
 * (neighbour_ranges.c). Private to these four. */
#pragma once

#include "workers/features.h"
#include "workers/kernels/codes.h"
#include "workers/kernels/distances.h"
#include "workers/neighbours.h"

/* Rows of one class in memory. */
struct block {
    uint64_t first; /* number within the class of the first */
    size_t room;    /* rows that it may hold */
    struct sm_rows rows;
    float *norms; /* squared lengths of shifted rows: numbers less the class's mean, without gaps;
                     NaN: too long for float32 */
    struct sm_codes codes; /* of them */
    /* instead, when codes are too coarse: */
    float *shifted;
    float *panels; /* -2 times them, as what the rows of a tile are multiplied with; NULL: not */
};

struct search {
    const struct sm_places *places;
    const struct sm_schema *schema; /* of the rows that are compared; NULL: nobody knows the columns
                                       before the ops that come first have learned */
    struct sm_table *table;
    /* with `after:` rows are read in pieces and go through the ops up to it: */
    struct sm_features *features; /* else NULL */
    struct sm_rows raw;           /* of a piece, as they stand in the table */
    uint8_t *bad;
    uint32_t label;
    uint64_t n;          /* rows of the class */
    size_t numbers, *at; /* columns that hold numbers */
    double *mean;        /* of them */
    bool is_centred;     /* mean is that of the class, which has no missing cells */
    uint32_t k;
    bool mixed;             /* SMOTENC */
    double category_weight; /* what a differing category adds to a squared distance */
    uint64_t asked;         /* rows whose neighbours are looked for */
    float *products;        /* of a tile */
    bool is_fine;           /* float32 instead of codes */
    struct sm_slack slack;  /* bounds of distances from below, and from above: */
    float grow, most;       /* norms * grow + product + most */
    uint64_t seen, passed;  /* pairs; those that may be near */
    float *few, *zeros; /* shifted rows on their way to codes; what their length is taken from */
};

/* The k best of one row so far, sorted by (distance, number). */
struct near {
    double distance;
    uint32_t number;
};

/* One that may be among them, and how near it may be. */
enum { WAITING = 32 };
struct waiting {
    float low;
    uint32_t number;
};

/* Of each row of a block: those that were measured, the k least bounds from above of all that were
 * seen, those that wait, and beyond which distance nobody is wanted. worst: the same of the rows
 * that they are compared with, -INFINITY when those look for nobody. */
struct lists {
    struct near *near;
    float *ups;
    struct waiting *waiting;
    uint8_t *n;
    float *bound, *apart;
    const float *worst;
};

/* Rows of a class that are looked up among all of it, one step after the other. */
struct piece {
    bool one;          /* they are all of it: each pair is seen once, for both its rows */
    struct block q, b; /* the rows; those of the class that they are compared with (not: one) */
    struct lists lists;
    uint64_t at; /* where in the class b begins */
    size_t i0;   /* the next row of q */
};

/* root NULL: only counts are wanted. artifacts: folder of what the ops up to `after` have learned;
 * where one is missing that is SM_E_MISSING, and counts are known all the same. Keeps places. Close
 * in any case. */
int search_open(struct search *s, const struct sm_places *places, const char *artifacts,
                const char *root, struct sm_err *err);
void search_close(struct search *s);
/* Whether rows are added to it, so that neighbours are needed; then it is the class of s. */
bool search_class(struct search *s, uint32_t label);
/* Rows first … of the class, as many as rows->n. */
int search_read(const struct search *s, uint64_t first, struct sm_rows *rows, struct sm_err *err);
/* Whether loops over float32 do for its rows. */
bool search_is_plain(const struct search *s);
size_t search_row_bytes(const struct search *s);
/* Means (into s->mean) and variances (NULL: not wanted) of the class's numbers; refuses missing
 * cells. held: all its rows; NULL: they are read. */
int search_moments(struct search *s, const struct sm_rows *held, double *variance,
                   struct sm_err *err);
/* Mean of the class's numbers, from the table; refuses missing cells. */
int search_centre(struct search *s, struct sm_err *err);
/* Of SMOTENC, for the class. */
int search_category_weight(struct search *s, struct sm_err *err);
/* The arrays of the artifact; list is kept. */
int search_artifact(const struct search *s, const uint32_t *list, struct sm_artifact *a,
                    struct sm_arena *arena, struct sm_err *err);

/* What reading takes when ops come first; and what is left for rows and what goes with them: at
 * least half, so that only with rows of tens of thousands of columns all takes more than the bound.
 */
size_t search_reading_bytes(const struct search *s);
size_t search_room(const struct search *s);
/* Bytes of a row of the source that goes through ops first; 0: none does. */
size_t search_source_bytes(const struct search *s);
/* Bytes of memory for each row that is looked up, and for each that others are compared with; and
 * what a search takes besides. */
size_t search_query_bytes(const struct search *s);
size_t search_other_bytes(const struct search *s);
size_t search_own_bytes(const struct search *s);
/* Rows in each of two blocks of a search in one process, and what it takes. */
size_t search_block_rows(const struct search *s);
size_t search_block_bytes(const struct search *s);

/* others: rows in b; 0: one. Free in any case. */
int piece_make(struct search *s, struct piece *p, size_t rows, size_t others, struct sm_err *err);
void piece_free(struct search *s, struct piece *p);
/* Rows first … first + rows - 1 of the class. */
int piece_begin(struct search *s, struct piece *p, uint64_t first, size_t rows, struct sm_err *err);
/* A strip of them against a block: 1: all is seen, 0: go on. */
int piece_step(struct search *s, struct piece *p, struct sm_err *err);
/* Of how many steps how many are done. */
uint64_t piece_steps(const struct search *s, const struct piece *p);
uint64_t piece_step_at(const struct search *s, const struct piece *p);
/* out: rows x k. */
void piece_end(const struct search *s, const struct piece *p, uint32_t *out);

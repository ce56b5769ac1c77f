/* shardmill.h: batches for training loops.
 *
 * Read this first:
 *  - A view that sm_next gives is yours until sm_release; then its memory is somebody else's. Copy
 * what you keep.
 *  - Views that you hold are credit that you do not have: with all of it held, sm_next waits until
 * you release one (it says so when it times out).
 *  - The position that is safe in case of a crash is the one that you stored with your model: call
 * sm_state after a step, save the token with the checkpoint, then sm_commit(token). On restart give
 * the token to sm_open.
 *  - One thread uses a loader at a time; loaders are independent. After fork() a child may not use
 * its parent's loaders (every call fails with a clear error), but may open its own.
 *  - Functions return 0 (or a positive number) for success and -1 for failure; sm_last_error tells
 * why.
 */
#ifndef SHARDMILL_H
#define SHARDMILL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SM_API __attribute__((visibility("default")))
#else
#define SM_API
#endif

enum { SM_API_VERSION = 2 };
enum sm_tensor_type {
    SM_UINT8 = 0,
    SM_FLOAT32 = 1,
    SM_FLOAT16 = 2,
    SM_BFLOAT16 = 3,
    SM_FLOAT64 = 4
};

struct sm_loader; /* opaque */

struct sm_open_options {
    uint32_t api_version;      /* SM_API_VERSION; a program of version 1 goes on as it was */
    const char *broker;        /* "tcp://127.0.0.1:5570", "ipc://…" */
    const char *job;           /* its name or id */
    uint32_t rank, world_size; /* as in torch.distributed; world_size 0 means 1 */
    const char
        *token; /* of sm_state, or NULL: from the last committed position, else from the start */
    uint64_t credit_bytes; /* for batches that are not released; 0: room for four, at least */
    int timeout_ms;        /* of sm_open itself; 0: 30 s */
    const char *key_dir;   /* CURVE keys, NULL: none */
    const char *transport; /* NULL: chosen; "shm" or "tcp" to insist */
};

/* One batch. All pointers lie in memory that is mapped read-only, on 64-byte boundaries. */
struct sm_batch_view {
    uint32_t epoch;
    uint64_t step;    /* of this epoch, at this world size */
    uint32_t count;   /* samples, padding included */
    uint32_t padding; /* the last ones: repeated from the start of the epoch's order */
    int type;         /* enum sm_tensor_type */
    int ndim;         /* 4; of rows (a table, or features) 2 */
    int64_t shape[4]; /* count, then C,H,W or H,W,C as the pipeline's layout says; of rows count,
                         columns (and 1, 1) */
    const void *data;
    size_t data_bytes;
    const int64_t *label;     /* count */
    const uint64_t *index;    /* count: the sample's index in the dataset */
    const uint64_t *position; /* count: in the epoch's order */
    const uint8_t *flags; /* count: 1 padding, 2 stands in for a sample that could not be read */
    char digest[40];      /* XXH3-128 of the batch, in hex */
    void *handle;         /* ours */
    /* since api_version 2: a loader that was opened with 1 does not touch it */
    const float *weight; /* count: importance weights, natural probability / that of being drawn, of
                            what was planned there; 0 of padding. NULL unless the pipeline says
                            output: {weights: true} */
};

/* What sm_next says. */
enum sm_next_result { SM_NEXT_BATCH = 1, SM_NEXT_EPOCH_END = 2, SM_NEXT_JOB_END = 3 };

/* Connects, attaches, and starts the background thread that speaks ZeroMQ. Gives *loader. */
SM_API int sm_open(struct sm_loader **loader, const struct sm_open_options *options);
/* Fills *view with the next batch in order, or says that an epoch (a next call goes on with the
 * next one) or the whole job has ended. timeout_ms < 0: as long as it takes. -1 with a sentence
 * that says who waits for whom when the time is over. */
SM_API int sm_next(struct sm_loader *loader, struct sm_batch_view *view, int timeout_ms);
/* Gives a view back: its bytes are credit again. Nulls view->data. */
SM_API int sm_release(struct sm_loader *loader, struct sm_batch_view *view);
/* Writes the token of the position behind the last batch that sm_next gave; text of at most n
 * bytes, NUL included (256 is enough). Returns its length. */
SM_API int sm_state(struct sm_loader *loader, char *token, size_t n);
/* Tells the broker that the token is in a checkpoint. Waits up to timeout_ms until the broker's
 * journal holds it (0: not at all, < 0: as long as it takes); it is said again until then in any
 * case, also to a broker that was restarted meanwhile. */
SM_API int sm_commit(struct sm_loader *loader, const char *token, int timeout_ms);
/* Goes to where the token stands, of this job, forwards or backwards: the next sm_next gives the
 * batch behind it, as from a loader that was opened with it, and the token counts as committed as
 * it does there. Views that you hold stay valid until you release them (or close). What was on its
 * way is dropped, and so is a commit that was not confirmed. At once; when the broker refuses the
 * place (with other ranks attached it must lie between two of their steps), sm_next says so, and
 * another sm_seek may follow. */
SM_API int sm_seek(struct sm_loader *loader, const char *token);
/* The names of the dataset's classes as a JSON array of texts, in the order of their labels. Asks
 * the broker the first time; timeout_ms as of sm_next. Returns the text's length; when that is n or
 * more, json was left alone: call again with more room. json may be NULL when n is 0. */
SM_API int sm_classes(struct sm_loader *loader, char *json, size_t n, int timeout_ms);
/* Of one class: samples in the part of the dataset that is drawn from; positions in an epoch, all
 * ranks together (other than present when the job rebalances); how often this loader has handed it
 * out, padding not counted, in the last epoch that ended and in the present one. An epoch that was
 * entered in the middle is counted from there. */
struct sm_class_count {
    uint64_t present, drawn, last_epoch, this_epoch;
};
/* Fills the counts of the first n classes, in the order of their labels. Returns how many classes
 * there are; 0 when the job does not say (beyond 32768 classes). counts may be NULL when n is 0. */
SM_API int sm_class_counts(struct sm_loader *loader, struct sm_class_count *counts, size_t n);
/* Facts as JSON text, at most 16384 bytes: job, steps_per_epoch, shape (after the first batch),
 * transport ("shm", "tcp" or "shm+tcp"), waits, counts of what was dropped, the last epoch's audit;
 * weights: where importance weights are found, "in_batches" (sm_batch_view.weight), "by_class" (not
 * there, but (share of present) / (share of drawn) of a sample's class) or "by_sample" (not there,
 * as samples are drawn by weights of their own). Returns its length. */
SM_API int sm_info(struct sm_loader *loader, char *json, size_t n);
/* Interrupts a waiting sm_next from another thread or a signal handler: it returns -1 at once.
 * When none waits, the next one does. */
SM_API void sm_interrupt(struct sm_loader *loader);
/* Detaches, unmaps everything (views become invalid), joins the thread. *loader is nulled; twice is
 * harmless. */
SM_API void sm_close(struct sm_loader **loader);
/* The text of the last failure of this loader (NULL: of sm_open in this thread). Lent until the
 * next call. With NULL it is the last failure of any call in this thread, which is also what is
 * left to read when another thread closed the loader. */
SM_API const char *sm_last_error(const struct sm_loader *loader);
/* What kind of failure it was, in one word that stays the same: "timeout" (of sm_open, sm_next,
 * sm_commit or sm_classes), "cancelled" (the job was cancelled, the loader closed or interrupted),
 * "differs" (a token of another pipeline, dataset or seed; another world size), "busy" (another
 * trainer has this rank), "missing" (no such job), "key", "usage", "protocol", "peer", "memory", or
 * the word with which the job failed. Lent for ever. */
SM_API const char *sm_last_code(const struct sm_loader *loader);
SM_API const char *sm_version(void);

#ifdef __cplusplus
}
#endif
#endif

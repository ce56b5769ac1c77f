/* A library with the calls of client/c/shardmill.h whose batches come from nowhere: the Python
 * package is tested against it where a real server cannot be made to do what the test needs (wait
 * for ever, fail, run out of credit). The job's name is a list of words that say how it behaves:
 * "slow" never has a batch, "broken" fails, "bf16" has that type, "rows" has features, "weights"
 * carries importance weights, "column" draws by weights that it does not carry. */
#include "client/c/shardmill.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { N = 4, STEPS = 5, CREDIT = 3, PIXELS = 3 * 8 * 8, SLOT = 4096, EPOCHS = 3, COLUMNS = 5 };

struct sm_loader {
    char job[64], error[256];
    const char *code;
    uint32_t epoch, rank;
    uint64_t step;
    int held, ended;
    uint8_t *memory; /* CREDIT slots */
    int used[CREDIT];
};

static char open_error[256];
static const char *open_code = "";

static int fail(struct sm_loader *l, const char *code, const char *why) {
    l->code = code;
    snprintf(l->error, sizeof l->error, "%s", why);
    return -1;
}

static void go(struct sm_loader *l, const char *token) {
    unsigned long position = 0;
    if (sscanf(token, "fake:%" SCNu32 ":%lu:", &l->epoch, &position) != 2) abort();
    l->step = position / N;
    l->ended = 0;
}

int sm_open(struct sm_loader **gives, const struct sm_open_options *o) {
    *gives = NULL;
    if (o->api_version != SM_API_VERSION || strstr(o->job, "unknown") != NULL) {
        snprintf(open_error, sizeof open_error, "no job '%s' (hint: shardmill jobs)", o->job);
        open_code = "missing";
        return -1;
    }
    if (strstr(o->job, "unreachable") != NULL) sleep(5);
    struct sm_loader *l = calloc(1, sizeof *l);
    snprintf(l->job, sizeof l->job, "%s", o->job);
    l->rank = o->rank;
    if (o->token != NULL) go(l, o->token);
    l->memory =
        mmap(NULL, CREDIT * SLOT, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *gives = l;
    return 0;
}

static int wait_ms(struct sm_loader *l, int ms, const char *why) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&t, NULL);
    return fail(l, "timeout", why);
}

int sm_next(struct sm_loader *l, struct sm_batch_view *v, int timeout_ms) {
    memset(v, 0, sizeof *v);
    if (strstr(l->job, "slow") != NULL)
        return wait_ms(l, timeout_ms, "the trainer waits for a worker");
    if (strstr(l->job, "broken") != NULL) return fail(l, "cancelled", "the job was cancelled");
    if (l->epoch == EPOCHS) return SM_NEXT_JOB_END;
    if (l->ended) {
        l->ended = 0;
        return SM_NEXT_EPOCH_END;
    }
    int slot = 0;
    while (slot < CREDIT && l->used[slot])
        slot++;
    if (slot == CREDIT)
        return wait_ms(l, timeout_ms, "shardmill waits for you: 3 batches are not released");
    l->used[slot] = 1;
    l->held++;
    uint8_t *at = l->memory + slot * SLOT;
    mprotect(l->memory, CREDIT * SLOT, PROT_READ | PROT_WRITE);
    int wide = strstr(l->job, "bf16") != NULL ? 2 : 1;
    for (int i = 0; i < N * PIXELS; i++) {
        if (wide == 1)
            at[i] = (uint8_t)(l->step * 16 + (uint64_t)i / PIXELS);
        else
            ((uint16_t *)(void *)at)[i] = 0x3fc0; /* 1.5 */
    }
    int64_t *label = (int64_t *)(void *)(at + 2048);
    uint64_t *index = (uint64_t *)(void *)(at + 2112), *position = (uint64_t *)(void *)(at + 2176);
    uint8_t *flags = at + 2240;
    for (int i = 0; i < N; i++) {
        label[i] = i % 3;
        position[i] = l->step * N + (uint64_t)i;
        index[i] = 1000 * l->epoch + position[i];
        flags[i] = l->step == STEPS - 1 && i == N - 1 ? 1 : i == 1 ? 2 : 0;
    }
    mprotect(l->memory, CREDIT * SLOT, PROT_READ);
    *v = (struct sm_batch_view){.epoch = l->epoch,
                                .step = l->step,
                                .count = N,
                                .padding = l->step == STEPS - 1,
                                .type = wide == 2 ? SM_BFLOAT16 : SM_UINT8,
                                .ndim = 4,
                                .shape = {N, 3, 8, 8},
                                .data = at,
                                .data_bytes = (size_t)(N * PIXELS * wide),
                                .label = label,
                                .index = index,
                                .position = position,
                                .flags = flags,
                                .digest = "00112233",
                                .handle = at};
    if (strstr(l->job, "weights") != NULL) {
        float *weight = (float *)(void *)(at + 2304);
        mprotect(l->memory, CREDIT * SLOT, PROT_READ | PROT_WRITE);
        for (int i = 0; i < N; i++)
            weight[i] = flags[i] & 1 ? 0 : 1 / (float)(position[i] + 1);
        mprotect(l->memory, CREDIT * SLOT, PROT_READ);
        v->weight = weight;
    }
    if (strstr(l->job, "rows") != NULL) {
        v->type = SM_FLOAT64;
        v->ndim = 2;
        v->shape[1] = COLUMNS;
        v->shape[2] = v->shape[3] = 0;
        v->data_bytes = N * COLUMNS * sizeof(double);
        mprotect(l->memory, CREDIT * SLOT, PROT_READ | PROT_WRITE);
        for (int i = 0; i < N * COLUMNS; i++)
            ((double *)(void *)at)[i] = i / 8.0;
        mprotect(l->memory, CREDIT * SLOT, PROT_READ);
    }
    if (++l->step == STEPS) {
        l->step = 0;
        l->epoch++;
        l->ended = 1;
    }
    return SM_NEXT_BATCH;
}

int sm_release(struct sm_loader *l, struct sm_batch_view *v) {
    if (v->handle == NULL) return 0;
    l->used[((uint8_t *)v->handle - l->memory) / SLOT] = 0;
    l->held--;
    v->data = v->handle = NULL;
    return 0;
}

int sm_state(struct sm_loader *l, char *token, size_t n) {
    return snprintf(token, n, "fake:%" PRIu32 ":%" PRIu64 ":7:aa:bb", l->epoch, l->step * N);
}

int sm_commit(struct sm_loader *l, const char *token, int timeout_ms) {
    if (strstr(l->job, "slow") != NULL)
        return wait_ms(l, timeout_ms, "the broker did not confirm the commit");
    return strncmp(token, "fake:", 5) == 0 ? 0 : fail(l, "usage", "no token");
}

int sm_seek(struct sm_loader *l, const char *token) {
    if (strstr(token, ":aa:bb") == NULL)
        return fail(l, "differs", "the token is of another dataset");
    go(l, token);
    return 0;
}

int sm_classes(struct sm_loader *l, char *json, size_t n, int timeout_ms) {
    static const char text[] = "[\"cat\",\"d\\\"og\",\"\\u00e9lan\"]";
    if (strstr(l->job, "slow") != NULL)
        return wait_ms(l, timeout_ms, "the broker did not tell the names");
    if (n >= sizeof text) memcpy(json, text, sizeof text);
    return sizeof text - 1;
}

int sm_info(struct sm_loader *l, char *json, size_t n) {
    const char *weights = strstr(l->job, "weights") != NULL  ? "in_batches"
                          : strstr(l->job, "column") != NULL ? "by_sample"
                                                             : "by_class";
    return snprintf(json, n,
                    "{\"job\":\"%s\",\"steps_per_epoch\":%d,\"held\":%d,\"weights\":\"%s\"}",
                    l->job, STEPS, l->held, weights);
}

void sm_interrupt(struct sm_loader *l) {
    (void)l;
}

void sm_close(struct sm_loader **l) {
    if (*l == NULL) return;
    munmap((*l)->memory, CREDIT * SLOT);
    free(*l);
    *l = NULL;
}

const char *sm_last_error(const struct sm_loader *l) {
    return l != NULL ? l->error : open_error;
}

int sm_class_counts(struct sm_loader *l, struct sm_class_count *counts, size_t n) {
    for (uint64_t i = 0; i < n && i < 3; i++)
        counts[i] = (struct sm_class_count){10 + i, 20 + i, l->epoch, l->step};
    return 3;
}

const char *sm_last_code(const struct sm_loader *l) {
    return l != NULL ? l->code : open_code;
}

const char *sm_version(void) {
    return "fake";
}

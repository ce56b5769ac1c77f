/* A trainer for the end-to-end tests: reads a job through the client library's header alone and
 * prints one line a step, `EPOCH STEP PADDING DIGEST POSITION…`, flushed, and behind it `weight W…`
 * of batches that carry weights; then `end EPOCH` and `info JSON`. It holds the last HOLD views, so
 * that memory is still read when its maker is gone.
 *
 * client_run BROKER JOB [rank=R] [world=W] [transport=shm|tcp] [token=T] [credit=BYTES] [hold=N]
 *            [epochs=N] [steps=N] [pause_ms=N] [commit=1] [timeout_ms=N] [keys=DIR] */
#include "client/c/shardmill.h"

#include "lib/digest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HOLD_MAX = 64 };

struct options {
    struct sm_open_options open;
    int hold, pause_ms, timeout_ms;
    unsigned epochs;
    long steps;
    int commit;
};

static struct options options_read(int argc, char **argv);

static int failed(const struct sm_loader *l) {
    fflush(stdout);
    fprintf(stderr, "client_run: %s\n", sm_last_error(l));
    return 1;
}

static void print_step(const struct sm_batch_view *v) {
    printf("%u %llu %u %s", v->epoch, (unsigned long long)v->step, v->padding, v->digest);
    for (uint32_t i = 0; i < v->count; i++)
        printf(" %llu", (unsigned long long)v->position[i]);
    putchar('\n');
    for (uint32_t i = 0; i < v->count && v->weight != NULL; i++)
        printf("%s%.9g%s", i > 0 ? " " : "weight ", (double)v->weight[i],
               i + 1 < v->count ? "" : "\n");
    fflush(stdout);
}

struct ring {
    struct sm_batch_view views[HOLD_MAX];
    char digests[HOLD_MAX][SM_XXH_HEX];
    int n, next;
};

/* The view that has been held for longest goes back; its tensor must be what it was. */
static int let_go(struct sm_loader *l, struct ring *r, int hold) {
    char now[SM_XXH_HEX];
    int at = (r->next - r->n + HOLD_MAX) % HOLD_MAX;
    (void)hold;
    sm_xxh(r->views[at].data, r->views[at].data_bytes, now);
    if (strcmp(now, r->digests[at]) != 0) {
        fprintf(stderr, "client_run: a batch changed while it was held\n");
        exit(4);
    }
    r->n--;
    return sm_release(l, &r->views[at]);
}

static int keep(struct sm_loader *l, struct ring *r, const struct sm_batch_view *v, int hold) {
    r->views[r->next] = *v;
    sm_xxh(v->data, v->data_bytes, r->digests[r->next]);
    r->next = (r->next + 1) % HOLD_MAX;
    r->n++;
    return r->n > hold ? let_go(l, r, hold) : 0;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    struct options o = options_read(argc, argv);
    struct sm_loader *l;
    static struct ring ring;
    char token[256], info[16384];
    if (sm_open(&l, &o.open) != 0) return failed(NULL);
    unsigned ended = 0;
    long steps = 0;
    while (ended < o.epochs && (o.steps == 0 || steps < o.steps)) {
        struct sm_batch_view v;
        int rc = sm_next(l, &v, o.timeout_ms);
        if (rc < 0) return failed(l);
        if (rc == SM_NEXT_JOB_END) break;
        if (rc == SM_NEXT_EPOCH_END) {
            printf("end %u\n", ended++);
            continue;
        }
        print_step(&v);
        steps++;
        if (keep(l, &ring, &v, o.hold) != 0) return failed(l);
        if (o.commit && (sm_state(l, token, sizeof token) < 0 || sm_commit(l, token, 20000) != 0))
            return failed(l);
        if (o.pause_ms > 0) usleep((unsigned)o.pause_ms * 1000);
    }
    while (ring.n > 0)
        if (let_go(l, &ring, o.hold) != 0) return failed(l);
    if (sm_state(l, token, sizeof token) < 0 || sm_info(l, info, sizeof info) < 0) return failed(l);
    printf("token %s\ninfo %s\n", token, info);
    sm_close(&l);
    return 0;
}

static struct options options_read(int argc, char **argv) {
    struct options o = {.timeout_ms = 30000, .epochs = 1};
    o.open = (struct sm_open_options){
        .api_version = SM_API_VERSION, .broker = argv[1], .job = argv[2], .timeout_ms = 15000};
    for (int i = 3; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value == NULL) exit(2);
        *value++ = 0;
        const char *name = argv[i];
        long n = atol(value);
        if (strcmp(name, "rank") == 0)
            o.open.rank = (uint32_t)n;
        else if (strcmp(name, "world") == 0)
            o.open.world_size = (uint32_t)n;
        else if (strcmp(name, "transport") == 0)
            o.open.transport = value;
        else if (strcmp(name, "token") == 0)
            o.open.token = value;
        else if (strcmp(name, "keys") == 0)
            o.open.key_dir = value;
        else if (strcmp(name, "credit") == 0)
            o.open.credit_bytes = (uint64_t)n;
        else if (strcmp(name, "hold") == 0)
            o.hold = (int)n;
        else if (strcmp(name, "epochs") == 0)
            o.epochs = (unsigned)n;
        else if (strcmp(name, "steps") == 0)
            o.steps = n;
        else if (strcmp(name, "pause_ms") == 0)
            o.pause_ms = (int)n;
        else if (strcmp(name, "timeout_ms") == 0)
            o.timeout_ms = (int)n;
        else if (strcmp(name, "commit") == 0)
            o.commit = (int)n;
        else
            exit(2);
    }
    if (o.hold >= HOLD_MAX) exit(2);
    return o;
}

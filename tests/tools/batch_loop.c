/* What workers can do by themselves, for benchmarks: N processes make the batches of a pipeline as
 * workers do (the same leases, cages, batch memory and digests), but each takes the next step from
 * a counter in memory. No broker, no message, no trainer. tests/bench/bench_stream_read.py runs it
 * beside `shardmill read` and ends it.
 *
 * batch_loop PIPELINE INDEX SIDE PROCESSES
 *
 * Samples are 3 x SIDE x SIDE bytes; INDEX is written. Prints "EPOCH STEP DIGEST" for each batch,
 * as it is made, without end. */
#include "lib/steps.h"
#include "workers/batches.h"
#include "workers/lease.h"
#include "workers/ops/op.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KEPT = 4 }; /* batches that wait for their release, as a trainer's credit lets them */

struct loop {
    struct sm_pipeline pipeline;
    struct sm_index *index;
    struct sm_places *places;
    struct sm_lease_job job;
    struct sm_batch_header header;
    struct sm_steps steps;
    struct sm_batches *batches;
    _Atomic uint64_t *next; /* shared by all processes */
};

static void make_all(struct loop *w);
static void make(struct loop *w, uint64_t k);

static void die(const struct sm_err *err) {
    fprintf(stderr, "batch_loop: %s\n", err->text);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "cage") == 0) return sm_cage_main(argc - 1, argv + 1);
    if (argc != 5) return 2;
    struct loop w = {0};
    struct sm_err err = {0};
    if (sm_pipeline_load(&w.pipeline, argv[1], sm_op_table(), &err) != 0 ||
        sm_index_build(&w.pipeline.source, argv[2], &err) != 0 ||
        sm_index_open(&w.index, argv[2], &err) != 0)
        die(&err);
    uint32_t side = (uint32_t)atoi(argv[3]), count = (uint32_t)w.pipeline.output.batch_size;
    w.header =
        (struct sm_batch_header){.count = count, .channels = 3, .height = side, .width = side};
    if (sm_batch_layout(&w.header, &err) != 0) die(&err);
    w.steps = (struct sm_steps){.positions = sm_index_samples(w.index),
                                .batch_size = count,
                                .world_size = 1,
                                .drop_last = w.pipeline.output.drop_last};
    w.next = mmap(NULL, sizeof *w.next, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (w.next == MAP_FAILED) return 1;
    for (int i = atoi(argv[4]); i > 0; i--)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            make_all(&w);
        }
    while (wait(NULL) > 0)
        ;
    return 1; /* they end by a failure alone */
}

static void make_all(struct loop *w) {
    struct sm_err err = {0};
    struct sm_buf json;
    char root[SM_MAX_PATH_BYTES];
    sm_buf_init(&json, SM_MAX_YAML_BYTES);
    sm_pipeline_json(&w->pipeline, &json);
    if (sm_source_root(&w->pipeline.source, root, &err) != 0 ||
        sm_batches_new(&w->batches, (KEPT + 2) * w->header.bytes, &err) != 0 ||
        sm_cage_new(&w->job.cage, json.data, &(struct sm_cage_options){0}, &err) != 0)
        die(&err);
    w->job.pipeline = &w->pipeline;
    w->job.index = w->index;
    if (sm_places_new(&w->places, &w->pipeline, w->index, SM_PART_TRAIN, NULL, &err) != 0)
        die(&err);
    w->job.places = w->places;
    w->job.reader = sm_reader_new(root);
    w->job.plan = (struct sm_plan){.samples = w->steps.positions,
                                   .copies = 1,
                                   .shuffle = w->pipeline.output.shuffle,
                                   .seed = (uint64_t)w->pipeline.seed,
                                   .shard_samples = SM_MAX_SHARD_SAMPLES};
    for (;;)
        make(w, atomic_fetch_add(w->next, 1));
}

/* The k-th step of all epochs. */
static void make(struct loop *w, uint64_t k) {
    static uint64_t made;
    struct sm_err err = {0};
    struct sm_lease *lease;
    char digest[SM_XXH_HEX], line[128];
    uint64_t n = sm_steps_count(&w->steps), attempt = ++made;
    struct sm_batch_header h = w->header;
    h.epoch = w->job.plan.epoch = (uint32_t)(k / n);
    h.step = k % n;
    h.first = sm_steps_at(&w->steps, 0, h.step).first;
    if (attempt > KEPT) sm_batches_release(w->batches, "", attempt - KEPT);
    const struct sm_slot *slot = sm_batches_take(w->batches, "", attempt, h.bytes);
    if (slot == NULL) exit(1);
    struct sm_batch_place place = {.memory = sm_batches_at(w->batches, slot), .header = h};
    struct sm_range range = {.part = {.first = h.first, .count = h.count}, .batch = &place};
    if (sm_lease_start(&lease, &w->job, &range, &err) != 0) die(&err);
    for (int more = 0; more == 0;) {
        struct pollfd fd = {.fd = sm_lease_fd(lease), .events = POLLIN};
        poll(&fd, 1, sm_lease_wait_ms(lease));
        if ((more = sm_lease_step(lease, &err)) < 0) die(&err);
    }
    sm_lease_finish_batch(lease, digest);
    sm_lease_free(&lease);
    sm_batches_made(w->batches, attempt);
    int length =
        snprintf(line, sizeof line, "%u %llu %s\n", h.epoch, (unsigned long long)h.step, digest);
    if (write(STDOUT_FILENO, line, (size_t)length) != length) exit(0); /* nobody listens any more */
}

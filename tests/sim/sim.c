/* `sim [--kills N] [--seed S] [--epoch E] [--plants EPOCHS] [--streams M]`: simulated epochs until
 * N kills have been survived, every M-th one (default 30; 0: none) of a stream with trainers; then,
 * to prove that the checks see anything, the same with each planted bug until it is caught. A
 * failure prints the seed and epoch that replay exactly it. */
#include "tests/sim/sim.h"

#include "tests/sim/stream.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const plants[] = {"none",
#define X(name) #name,
                                     SM_PLANTS(X)
#undef X
};

static uint64_t kills_of(const struct stats *s) {
    return s->kills[KILL_WORKER] + s->kills[KILL_BROKER] + s->kills[KILL_CLIENT];
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint64_t streams = 30; /* every so manieth epoch is a stream's */

static bool epoch_run(struct world *w, uint64_t seed, uint64_t epoch, struct stats *s) {
    bool stream = streams > 0 && epoch % streams == streams - 1;
    return stream ? stream_epoch(seed, epoch, s, w->wrong) : world_epoch(w, seed, epoch, s);
}

static int failed(const struct world *w, uint64_t seed, uint64_t epoch) {
    printf("sim: epoch %" PRIu64 " of seed %" PRIu64 ": %s\n", epoch, seed, w->wrong);
    printf("sim: replay it with: sim --streams %" PRIu64 " --seed %" PRIu64 " --epoch %" PRIu64
           "\n",
           streams, seed, epoch);
    return 1;
}

static int survive(struct world *w, uint64_t seed, uint64_t kills) {
    struct stats s = {0};
    double start = seconds();
    for (uint64_t epoch = 0; kills_of(&s) < kills; epoch++)
        if (!epoch_run(w, seed, epoch, &s)) return failed(w, seed, epoch);
    printf("sim: seed %" PRIu64 ": %" PRIu64 " epochs, %" PRIu64 " kills (%" PRIu64
           " of workers, %" PRIu64 " of the broker, %" PRIu64 " of the client, %" PRIu64
           " times all at once), %" PRIu64 " messages, %" PRIu64 " dropped, %" PRIu64
           " doubled, %" PRIu64 " stale results, %" PRIu64 " failed leases, %" PRIu64
           " shards made again, %" PRIu64 " positions quarantined; lost 0, "
           "duplicated 0; %.1f s\n",
           seed, s.epochs, kills_of(&s), s.kills[KILL_WORKER], s.kills[KILL_BROKER],
           s.kills[KILL_CLIENT], s.kills[KILL_ALL], s.messages, s.dropped, s.doubled, s.stale,
           s.failures, s.remade, s.quarantined, seconds() - start);
    return 0;
}

/* What the child that runs with a planted bug tells its parent. */
struct finding {
    uint64_t epochs; /* begun */
    bool caught;
    char how[256];
};

/* A process of its own, because a bug may also break one of the core's assertions: that is caught
 * too. */
static void plant_run(struct world *w, int plant, uint64_t seed, uint64_t epochs,
                      struct finding *f) {
    *f = (struct finding){0};
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        struct stats s = {0};
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(2);
        sm_planted = plant;
        while (f->epochs < epochs && !f->caught) {
            f->caught = plant < PLANT_step_skipped ? !world_epoch(w, seed, f->epochs, &s)
                                                   : !stream_epoch(seed, f->epochs, &s, w->wrong);
            f->epochs++;
            memcpy(f->how, w->wrong, sizeof f->how);
        }
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return;
    f->caught = true;
    snprintf(f->how, sizeof f->how, "an assertion of the core (%s %d)",
             WIFSIGNALED(status) ? "signal" : "exit",
             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

/* Each planted bug must be caught within so many epochs, or the simulator proves nothing. */
static int plants_catch(struct world *w, uint64_t seed, uint64_t epochs) {
    int missed = 0;
    struct finding *f =
        mmap(NULL, sizeof *f, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (f == MAP_FAILED) return 1;
    for (int p = 1; p < (streams > 0 ? PLANT_count : PLANT_step_skipped); p++) {
        plant_run(w, p, seed, epochs, f);
        missed += !f->caught;
        printf("sim: planted %-22s ", plants[p]);
        if (f->caught)
            printf("caught in epoch %" PRIu64 ": %s\n", f->epochs, f->how);
        else
            printf("NOT caught within %" PRIu64 " epochs\n", epochs);
    }
    munmap(f, sizeof *f);
    return missed != 0;
}

int main(int argc, char **argv) {
    uint64_t kills = 1000000, seed = 1, epoch = UINT64_MAX, plant_epochs = 20000;
    const char *plant = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        uint64_t n = strtoull(argv[i + 1], NULL, 10);
        if (strcmp(argv[i], "--kills") == 0)
            kills = n;
        else if (strcmp(argv[i], "--seed") == 0)
            seed = n;
        else if (strcmp(argv[i], "--epoch") == 0)
            epoch = n;
        else if (strcmp(argv[i], "--streams") == 0)
            streams = n;
        else if (strcmp(argv[i], "--plants") == 0)
            plant_epochs = n;
        else if (strcmp(argv[i], "--plant") == 0)
            plant = argv[i + 1];
        else {
            fprintf(
                stderr,
                "usage: sim [--kills N] [--seed S] [--epoch E] [--plants EPOCHS] [--plant NAME] [--streams M]\n");
            return 2;
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct world *w = calloc(1, sizeof *w);
    sm_actions_init(&w->actions);
    int rc;
    for (int p = 0; plant != NULL && p < PLANT_count; p++)
        if (strcmp(plant, plants[p]) == 0) sm_planted = p;
    if (epoch != UINT64_MAX) {
        struct stats s = {0};
        w->trace = getenv("SIM_TRACE") != NULL;
        rc = epoch_run(w, seed, epoch, &s) ? 0 : failed(w, seed, epoch);
        if (rc == 0) printf("sim: epoch %" PRIu64 " of seed %" PRIu64 " holds\n", epoch, seed);
    } else {
        rc = survive(w, seed, kills);
        if (rc == 0 && plant_epochs > 0) rc = plants_catch(w, seed, plant_epochs);
    }
    world_release(w);
    return rc;
}

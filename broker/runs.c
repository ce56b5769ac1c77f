/* Where a trainer begins: its token, or what the ranks have committed, against the run that is on.
 * A run is a world of trainers and the position at which it entered; that fixes the grid of its
 * steps, so that ranks which restart one by one still share the epoch without a gap. Before it:
 * Attach (sessions.c). */
#include "broker/state.h"

#include <stdlib.h>
#include <string.h>

static bool behind(uint32_t epoch_a, uint64_t position_a, uint32_t epoch_b, uint64_t position_b) {
    return epoch_a != epoch_b ? epoch_a < epoch_b : position_a < position_b;
}

void core_run_set(struct job *job, uint32_t world_size, uint32_t epoch, uint64_t position) {
    free(job->run.commits);
    job->run = (struct run){.number = job->run.number + 1,
                            .world_size = world_size,
                            .epoch = epoch,
                            .position = position,
                            .commits = core_calloc(world_size, sizeof *job->run.commits)};
}

static void run_begin(struct sm_core *core, struct job *job, uint32_t world_size, uint32_t epoch,
                      uint64_t position) {
    core_persist(core, &(struct sm_record){.kind = SM_RECORD_RUN,
                                           .job = job->id,
                                           .world_size = world_size,
                                           .epoch = epoch,
                                           .position = position});
}

struct sm_steps core_steps(const struct session *s, uint32_t epoch) {
    const Shardmill__JobSpec *spec = s->job->spec;
    return (struct sm_steps){.positions = spec->samples,
                             .entered = epoch == s->start_epoch ? s->start_position : 0,
                             .batch_size = spec->batch_size,
                             .world_size = s->world_size,
                             .drop_last = spec->drop_last};
}

/* Whether the run stands between two steps there. What is before its beginning is no place of it.
 */
static bool run_fits(const struct job *job, uint32_t epoch, uint64_t position) {
    struct sm_steps s = {.positions = job->spec->samples,
                         .entered = epoch == job->run.epoch ? job->run.position : 0,
                         .batch_size = job->spec->batch_size,
                         .world_size = job->run.world_size};
    return !behind(epoch, position, job->run.epoch, job->run.position) &&
           sm_steps_boundary(&s, position);
}

/* The least that all ranks of the last run have committed; its beginning for those that have not.
 */
static void committed_by_all(const struct job *job, uint32_t *epoch, uint64_t *position) {
    *epoch = 0;
    *position = 0;
    for (uint32_t r = 0; r < job->run.world_size; r++) {
        struct commit c = job->run.commits[r];
        if (!c.set) c = (struct commit){true, job->run.epoch, job->run.position};
        if (r > 0 && !behind(c.epoch, c.position, *epoch, *position)) continue;
        *epoch = c.epoch;
        *position = c.position;
    }
}

static bool token_refuse(struct sm_core *core, const struct sm_peer *peer, const struct job *job,
                         const Shardmill__Attach *m) {
    const Shardmill__JobSpec *spec = job->spec;
    const char *what = NULL, *theirs = "", *ours = "";
    if (m->pipeline_digest[0] != 0 && strcmp(m->pipeline_digest, spec->pipeline_digest) != 0)
        what = "pipeline", theirs = m->pipeline_digest, ours = spec->pipeline_digest;
    else if (m->dataset_digest[0] != 0 && strcmp(m->dataset_digest, spec->dataset_digest) != 0)
        what = "dataset", theirs = m->dataset_digest, ours = spec->dataset_digest;
    else if (m->pipeline_digest[0] != 0 && m->seed != spec->seed)
        what = "seed", theirs = core_text(core, "%llu", (unsigned long long)m->seed),
        ours = core_text(core, "%llu", (unsigned long long)spec->seed);
    if (what != NULL) {
        core_refuse(
            core, peer, SM_E_DIFFERS,
            "the token is of another %s: it has '%.40s', job '%s' has '%.40s' (hint: resume "
            "with the pipeline file, data and seed that the checkpoint was made with)",
            what, theirs, job->id, ours);
        return true;
    }
    uint64_t epochs = spec->epochs;
    if (m->position > spec->samples ||
        (epochs != 0 && (m->epoch > epochs || (m->epoch == epochs && m->position > 0)))) {
        core_refuse(core, peer, SM_E_DIFFERS,
                    "the token says epoch %u, position %llu, and job '%s' has %u epochs of %llu "
                    "positions",
                    m->epoch, (unsigned long long)m->position, job->id, spec->epochs,
                    (unsigned long long)spec->samples);
        return true;
    }
    return false;
}

/* Ranks that are there may be dead, and this one's world restarted as a whole. */
static bool grid_refuse(struct sm_core *core, const struct sm_peer *peer, const struct job *job,
                        const Shardmill__Attach *m, uint32_t epoch, uint64_t position) {
    int64_t wait_ms = 0;
    for (struct session *s = job->sessions; s != NULL; s = s->next_of_job) {
        if (s->gone || s->rank == m->rank) continue;
        int64_t ms = core_session_gone_in_ms(core, s);
        if (ms > wait_ms) wait_ms = ms;
        core_session_probe(core, s);
    }
    core_refuse_for(
        core, peer, SM_E_DIFFERS, wait_ms,
        core_text(
            core,
            "the token says epoch %u, position %llu, which is between no two steps of the ranks "
            "that are attached (they entered at epoch %u, position %llu; %u positions a step): "
            "samples would be lost or doubled (hint: restart all ranks from the same checkpoint)",
            epoch, (unsigned long long)position, job->run.epoch,
            (unsigned long long)job->run.position, job->spec->batch_size * job->run.world_size));
    return false;
}

static bool others_live(const struct job *job, uint32_t rank) {
    for (const struct session *s = job->sessions; s != NULL; s = s->next_of_job)
        if (s->rank != rank && !s->gone) return true;
    return false;
}

static bool token_enter(struct sm_core *core, struct job *job, const struct sm_peer *peer,
                        const Shardmill__Attach *m, uint32_t *epoch, uint64_t *position) {
    if (token_refuse(core, peer, job, m)) return false;
    *epoch = m->epoch;
    *position = m->position;
    if (*position == job->spec->samples) {
        (*epoch)++;
        *position = 0;
    }
    bool same = job->run.world_size == m->world_size;
    bool fits = same && run_fits(job, *epoch, *position);
    /* A loader that goes elsewhere of its own will does what its whole loop does: the first rank to
     * do so begins the run that the others will join. One that starts may have the wrong token. */
    if (!fits && !m->elsewhere && others_live(job, m->rank) && !PLANTED(grid_ignored))
        return grid_refuse(core, peer, job, m, *epoch, *position);
    if (!fits) run_begin(core, job, m->world_size, *epoch, *position);
    struct commit *c = &job->run.commits[m->rank];
    /* A token that is presented is in a checkpoint; a trainer that only attaches again says where
     * it stands, and that is in none yet. */
    if (m->again || (c->set && c->epoch == *epoch && c->position == *position)) return true;
    core_persist(core, &(struct sm_record){.kind = SM_RECORD_COMMIT,
                                           .job = job->id,
                                           .rank = m->rank,
                                           .epoch = *epoch,
                                           .position = *position});
    return true;
}

/* The other ranks' sessions have been checked: those that are there are of this world size. */
bool core_run_enter(struct sm_core *core, struct job *job, const struct sm_peer *peer,
                    const Shardmill__Attach *m, uint32_t *epoch, uint64_t *position) {
    bool alone = true;
    for (const struct session *s = job->sessions; s != NULL; s = s->next_of_job)
        if (s->rank != m->rank) alone = false;
    if (m->has_token) return token_enter(core, job, peer, m, epoch, position);
    if (!alone) {
        const struct commit *c = &job->run.commits[m->rank];
        *epoch = c->set ? c->epoch : job->run.epoch;
        *position = c->set ? c->position : job->run.position;
        return true;
    }
    committed_by_all(job, epoch, position);
    run_begin(core, job, m->world_size, *epoch, *position);
    return true;
}

/* The output folder: parts and shards, each complete or absent, as fsync and rename make them; and
 * the check that is made of it and of what the client collected when an epoch has ended. */
#include "tests/sim/sim.h"

#include <string.h>

uint64_t content_sha(const uint8_t *content, uint32_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (uint32_t i = 0; i < n; i++)
        h = (h ^ content[i]) * 0x100000001b3u;
    return h | 1;
}

/* A substitute is never as long as the sample. */
uint64_t content_bytes(const uint8_t *content, uint32_t n) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < n; i++)
        bytes += content[i] == SAMPLE ? 100 : 53;
    return bytes;
}

static struct part_file *part_find(struct world *w, uint64_t shard, const struct part_row *row) {
    for (int i = 0; i < PARTS; i++) {
        struct part_file *p = &w->parts[i];
        if (p->there && p->shard == shard && p->row.first == row->first &&
            p->row.count == row->count && p->row.generation == row->generation)
            return p;
    }
    return NULL;
}

void part_write(struct world *w, uint64_t shard, const struct part_row *row,
                const uint8_t *content) {
    struct part_file *p = part_find(w, shard, row);
    for (int i = 0; i < PARTS && p == NULL; i++)
        if (!w->parts[i].there) p = &w->parts[i];
    if (p == NULL) {
        world_violation(w, "the simulated folder is full");
        return;
    }
    p->there = true;
    p->shard = shard;
    p->row = *row;
    memcpy(p->content, content, row->count);
}

int shard_seal(struct world *w, const struct msg *lease, uint32_t removed, uint64_t *sha,
               uint64_t *bytes) {
    struct shard_file *s = &w->shards[lease->shard];
    struct part_file *parts[SHARD];
    bool all = true;
    for (uint32_t i = 0; i < lease->n; i++)
        all = (parts[i] = part_find(w, lease->shard, &lease->parts[i])) != NULL && all;
    if (!all && !s->there) return SM_E_PART_MISSING;
    if (all) {
        s->there = true;
        s->n = 0;
        for (uint32_t i = 0; i < lease->n; i++) {
            for (uint32_t k = 0; k < lease->parts[i].count && s->n < 2 * SHARD; k++) {
                s->position[s->n] = lease->parts[i].first + k;
                s->content[s->n++] = parts[i]->content[k];
            }
        }
    }
    for (uint32_t i = 0; i < lease->n && i < removed; i++)
        if (parts[i] != NULL) parts[i]->there = false;
    *sha = content_sha(s->content, s->n);
    *bytes = content_bytes(s->content, s->n);
    return 0;
}

/* Somebody removes a part. */
void folder_tamper(struct world *w) {
    for (int tries = 0; tries < 8; tries++) {
        struct part_file *p = &w->parts[below(w, 32)];
        if (!p->there) continue;
        p->there = false;
        w->tampered |= (uint64_t)1 << p->shard;
        return;
    }
}

static void shard_check(struct world *w, const struct shard_row *row) {
    uint64_t first = sm_plan_shard_first(&w->plan, row->shard),
             count = sm_plan_shard_count(&w->plan, row->shard);
    const struct shard_file *s = &w->shards[row->shard];
    uint32_t at = 0;
    if (!s->there) world_violation(w, "shard %d is reported and not there", (int)row->shard);
    if (row->samples != count)
        world_violation(w, "shard %d is reported with %d samples", (int)row->shard,
                        (int)row->samples);
    if (s->n < count)
        world_violation(w, "shard %d has %u of %u positions: lost", (int)row->shard, s->n,
                        (unsigned)count);
    if (s->n > count)
        world_violation(w, "shard %d has %u of %u positions: duplicated", (int)row->shard, s->n,
                        (unsigned)count);
    if (row->sha != content_sha(s->content, s->n))
        world_violation(w, "shard %d has another digest", (int)row->shard);
    for (uint32_t i = 0; i < count && w->wrong[0] == 0; i++) {
        uint64_t position = first + i, sample = sm_plan_at(&w->plan, position).sample;
        if (s->position[i] != position)
            world_violation(w, "shard %d has position %d at place %u", (int)row->shard,
                            (int)s->position[i], i);
        bool listed = at < row->n && row->entries[at].position == position;
        uint32_t code = listed ? row->entries[at++].code : 0;
        if (s->content[i] != (listed ? SUBSTITUTE : SAMPLE))
            world_violation(w, "position %d is %squarantined and holds a %s", (int)position,
                            listed ? "" : "not ",
                            s->content[i] == SAMPLE ? "sample" : "substitute");
        if (w->nature[sample] == BAD && !listed)
            world_violation(w, "position %d is bad and not quarantined", (int)position);
        if (listed && code == SM_E_DECODE && w->nature[sample] != BAD)
            world_violation(w, "position %d is good and quarantined", (int)position);
        if (w->nature[sample] == POISON && code != SM_E_WORKER_DIED)
            world_violation(w, "position %d is poison and was made", (int)position);
        if (code == SM_E_WORKER_DIED && w->nature[sample] != POISON &&
            (w->quiet || w->accused[position] < SM_SINGLE_DEATHS))
            world_violation(w, "position %d is quarantined after %u deaths", (int)position,
                            w->accused[position]);
    }
    if (at != row->n && w->wrong[0] == 0)
        world_violation(w, "shard %d lists a position that is none of it", (int)row->shard);
}

/* planned = delivered + quarantined; nothing lost, nothing duplicated; each shard exactly its
 * positions in order. */
void folder_check(struct world *w) {
    const struct client_sim *c = &w->actors[CLIENT].client;
    uint64_t planned = 0, delivered = 0, quarantined = 0, next = w->spec.slice;
    for (uint64_t shard = w->spec.slice; shard < sm_plan_shards(&w->plan); shard += w->spec.slices)
        planned += sm_plan_shard_count(&w->plan, shard);
    for (uint32_t i = 0; i < c->n && w->wrong[0] == 0; i++, next += w->spec.slices) {
        const struct shard_row *row = &c->rows[i];
        if (row->shard != next)
            world_violation(w, "shard %d is reported where %d should be", (int)row->shard,
                            (int)next);
        else
            shard_check(w, row);
        quarantined += row->n;
        delivered += row->samples - row->n;
    }
    if (planned != delivered + quarantined && w->wrong[0] == 0)
        world_violation(w, "planned %d, delivered %d and quarantined %d", (int)planned,
                        (int)delivered, (int)quarantined);
    w->stats->quarantined += quarantined;
}

/* Which files a job has: its index, what its pipeline has learned, the state of a fit's round and
 * the partials of it. files.c keeps and sends them. */
#include "broker/state.h"

#include "lib/index.h"

#include <stdio.h>
#include <string.h>

enum { SHA_DIGITS = SM_SHA_HEX - 1 };

/* Whether the job's pipeline says that an op, or rebalancing, has learned this. */
static bool names_artifact(const Shardmill__JobSpec *spec, const char *sha256) {
    char word[SM_SHA_HEX + 2];
    snprintf(word, sizeof word, "\"%s\"", sha256);
    return strstr(spec->pipeline, word) != NULL;
}

bool core_spec_is_carried(const Shardmill__JobSpec *spec) {
    return spec->kind == SHARDMILL__JOB_KIND__FIT && spec->out_dir[0] == 0;
}

static bool names_partial(const struct job *job, const char *sha256) {
    uint8_t asked[sizeof job->shards->sha256];
    core_hex_bytes(sha256, asked, sizeof asked);
    for (uint64_t n = 0; core_spec_is_carried(job->spec) && n < job->n_shards; n++)
        if (job->shards[n].sealed && memcmp(job->shards[n].sha256, asked, sizeof asked) == 0)
            return true;
    return false;
}

/* Where the submitter has it, should it not be kept; "": nowhere that the broker knows. */
static const char *path_of(struct sm_core *core, const Shardmill__JobSpec *spec,
                           const char *sha256) {
    const char *index = spec->index_path;
    if (!names_artifact(spec, sha256)) return "";
    return core_text(core, "%.*s" SM_ARTIFACTS_NAME "/%s.npz", sm_index_folder(index), index,
                     sha256);
}

void core_on_file_get(struct sm_core *core, const struct sm_peer *peer,
                      const Shardmill__FileGet *m) {
    struct job *job = core_job_asked(core, peer, m->job);
    if (job == NULL) return;
    const Shardmill__JobSpec *spec = job->spec;
    if (m->sha256[0] == 0)
        core_send_file(core, peer, job, spec->index_digest, spec->index_path, m->offset);
    else if (sm_is_hex(m->sha256, SHA_DIGITS) &&
             (names_artifact(spec, m->sha256) || strcmp(spec->fit_state, m->sha256) == 0 ||
              names_partial(job, m->sha256)))
        core_send_file(core, peer, job, m->sha256, path_of(core, spec, m->sha256), m->offset);
    else
        core_refuse_of(core, peer, m->job, 0, SM_E_MISSING, "job '%.64s' has no file '%.64s'",
                       m->job, m->sha256);
}

/* Every word of so many hexadecimal digits: the pipeline is canonical, so an artifact's name is
 * one. */
static void artifacts_each(const char *pipeline, void (*each)(void *context, const char *digest),
                           void *context) {
    for (const char *at = pipeline; (at = strchr(at, '"')) != NULL; at++) {
        char sha256[SM_SHA_HEX];
        if (strspn(at + 1, "0123456789abcdef") != SHA_DIGITS || at[1 + SHA_DIGITS] != '"') continue;
        snprintf(sha256, sizeof sha256, "%.*s", SHA_DIGITS, at + 1);
        each(context, sha256);
    }
}

void sm_core_wants(const struct sm_core *core, void (*each)(void *context, const char *digest),
                   void *context) {
    char sha256[SM_SHA_HEX];
    for (const struct job *job = core->jobs; job != NULL; job = job->next) {
        const Shardmill__JobSpec *spec = job->spec;
        const bool fit = spec->kind == SHARDMILL__JOB_KIND__FIT;
        /* its partials may not be read yet: what nobody has read stays a while by itself */
        if (fit && job->state != SHARDMILL__JOB_STATE__RUNNING) continue;
        each(context, spec->index_digest);
        artifacts_each(spec->pipeline, each, context);
        each(context, spec->fit_state);
        for (uint64_t n = 0; core_spec_is_carried(spec) && n < job->n_shards; n++) {
            if (!job->shards[n].sealed) continue;
            core_shard_sha(&job->shards[n], sha256);
            each(context, sha256);
        }
    }
}

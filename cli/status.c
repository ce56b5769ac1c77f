/* A broker's Status as text and JSON. Before: client.h has asked for it. */
#include "cli/status.h"

#include <inttypes.h>
#include <stdio.h>

const char *sm_state_word(Shardmill__JobState state) {
    static const char *const words[] = {"running", "complete", "failed", "cancelled"};
    return (unsigned)state < sizeof words / sizeof *words ? words[state] : "unknown";
}

void sm_duration_text(uint64_t ms, char text[32]) {
    uint64_t s = ms / 1000;
    if (s < 60)
        snprintf(text, 32, "%" PRIu64 ".%" PRIu64 " s", s, ms % 1000 / 100);
    else if (s < 3600)
        snprintf(text, 32, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else
        snprintf(text, 32, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
}

static void session_print(const Shardmill__SessionStatus *s) {
    char heard[32];
    sm_duration_text(s->silent_ms, heard);
    printf("  rank %u of %u at epoch %u, step %" PRIu64 ": %u batches ready, %u in work, of %u; "
           "committed epoch %u, position %" PRIu64 "; heard %s ago\n",
           s->rank, s->world_size, s->epoch, s->step, s->made, s->in_work, s->window,
           s->committed_epoch, s->committed_position, heard);
    if (s->waits_for[0] != 0) printf("    %s\n", s->waits_for);
}

void sm_status_jobs_print(const Shardmill__Status *s) {
    if (s->n_jobs == 0)
        printf("no jobs\n");
    else
        printf("%-34s %-10s %14s %12s %9s %11s %8s\n", "JOB", "STATE", "MADE", "SHARDS", "WORKERS",
               "QUARANTINED", "LOST");
    for (size_t i = 0; i < s->n_jobs; i++) {
        const Shardmill__JobStatus *j = s->jobs[i];
        char made[48], shards[48];
        snprintf(made, sizeof made, "%" PRIu64 "/%" PRIu64, j->made + j->in_work, j->planned);
        snprintf(shards, sizeof shards, "%" PRIu64 "/%" PRIu64, j->sealed, j->shards);
        printf("%-34s %-10s %14s %12s %9u %11" PRIu64 " %8" PRIu64 "\n", j->job,
               sm_state_word(j->state), made, shards, j->workers, j->quarantined, j->leases_lost);
        if (j->name[0] != 0) printf("  %s\n", j->name);
        if (j->text[0] != 0) printf("  %s: %s\n", sm_code_word((int)j->code), j->text);
        if (j->waits_for[0] != 0) printf("  %s\n", j->waits_for);
        for (size_t k = 0; k < j->n_sessions; k++)
            session_print(j->sessions[k]);
    }
}

void sm_json_text(struct sm_buf *b, const char *key, const char *text, const char *behind) {
    sm_buf_printf(b, "\"%s\":", key);
    sm_buf_json(b, text);
    sm_buf_text(b, behind);
}

static void session_json(struct sm_buf *b, const Shardmill__SessionStatus *s) {
    sm_buf_printf(b,
                  "{\"rank\":%u,\"world_size\":%u,\"epoch\":%u,\"step\":%" PRIu64
                  ",\"position\":%" PRIu64 ",\"made\":%u,\"in_work\":%u,\"window\":%u,",
                  s->rank, s->world_size, s->epoch, s->step, s->position, s->made, s->in_work,
                  s->window);
    sm_buf_printf(
        b,
        "\"credit_bytes\":%" PRIu64 ",\"committed_epoch\":%u,\"committed_position\":%" PRIu64
        ",\"delivered\":%" PRIu64 ",\"silent_ms\":%" PRIu64 ",",
        s->credit_bytes, s->committed_epoch, s->committed_position, s->delivered, s->silent_ms);
    sm_json_text(b, "host", s->host, ",");
    sm_json_text(b, "waits_for", s->waits_for, "}");
}

static const char *kind_word(Shardmill__JobKind kind) {
    return kind == SHARDMILL__JOB_KIND__STREAM ? "stream"
           : kind == SHARDMILL__JOB_KIND__FIT  ? "fit"
                                               : "expand";
}

void sm_status_job_json(struct sm_buf *b, const Shardmill__JobStatus *j) {
    sm_buf_text(b, "{");
    sm_json_text(b, "job", j->job, ",");
    sm_json_text(b, "name", j->name, ",");
    sm_json_text(b, "state", sm_state_word(j->state), ",");
    sm_buf_printf(b,
                  "\"planned\":%" PRIu64 ",\"made\":%" PRIu64 ",\"in_work\":%" PRIu64
                  ",\"quarantined\":%" PRIu64,
                  j->planned, j->made, j->in_work, j->quarantined);
    sm_buf_printf(b, ",\"shards\":%" PRIu64 ",\"sealed\":%" PRIu64 ",\"workers\":%u", j->shards,
                  j->sealed, j->workers);
    sm_buf_printf(b, ",\"leases_lost\":%" PRIu64 ",\"cages_replaced\":%" PRIu64 ",", j->leases_lost,
                  j->cages_replaced);
    sm_json_text(b, "code", sm_code_word((int)j->code), ",");
    sm_json_text(b, "text", j->text, ",");
    sm_json_text(b, "fingerprint", j->fingerprint, ",");
    sm_json_text(b, "waits_for", j->waits_for, ",");
    sm_json_text(b, "kind", kind_word(j->kind), ",");
    sm_buf_text(b, "\"sessions\":[");
    for (size_t i = 0; i < j->n_sessions; i++) {
        sm_buf_text(b, i > 0 ? "," : "");
        session_json(b, j->sessions[i]);
    }
    sm_buf_text(b, "]}");
}

void sm_status_worker_json(struct sm_buf *b, const Shardmill__WorkerStatus *w) {
    sm_buf_text(b, "{");
    sm_json_text(b, "name", w->name, ",");
    sm_json_text(b, "fingerprint", w->fingerprint, ",");
    sm_buf_printf(b,
                  "\"silent_ms\":%" PRIu64 ",\"first\":%" PRIu64
                  ",\"count\":%u,\"done\":%u,\"made\":%" PRIu64 ",",
                  w->silent_ms, w->first, w->count, w->done, w->made);
    sm_json_text(b, "job", w->job, "}");
}

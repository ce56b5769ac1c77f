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
    }
}

void sm_json_text(struct sm_buf *b, const char *key, const char *text, const char *behind) {
    sm_buf_printf(b, "\"%s\":", key);
    sm_buf_json(b, text);
    sm_buf_text(b, behind);
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
    sm_json_text(b, "waits_for", j->waits_for, "}");
}

void sm_status_worker_json(struct sm_buf *b, const Shardmill__WorkerStatus *w) {
    sm_buf_text(b, "{");
    sm_json_text(b, "name", w->name, ",");
    sm_json_text(b, "fingerprint", w->fingerprint, ",");
    sm_buf_printf(b, "\"silent_ms\":%" PRIu64 ",\"first\":%" PRIu64 ",\"count\":%u,\"done\":%u,",
                  w->silent_ms, w->first, w->count, w->done);
    sm_json_text(b, "job", w->job, "}");
}

/* The server's loop: tend the children, ask how the job stands, say what changed. Before:
 * cli/stream.c has described the job. Next in the flow: broker/, which leases its steps when a
 * trainer attaches. */
#include "cli/serve.h"

#include "cli/client.h"
#include "cli/embedded.h"

#include <arpa/inet.h>
#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    TEND_MS = 50,
    LOOK_MS = 1000,
    ASK_MS = 500,
    START_MS = 30000,  /* for the broker to answer at all */
    BATCHES_AHEAD = 4, /* that a worker's memory holds at least */
    BATCH_MEMORY_MB = 256,
};

struct server {
    struct sm_stream *stream;
    const struct sm_serve_options *options;
    char endpoint[256];
    struct sm_embedded *embedded;
    struct sm_client *client;
    int lock_fd, port_fd;
    int restarts; /* as last said */
    int64_t looked_ms;
};

static int endpoint_choose(struct server *s, struct sm_err *err);
static int state_claim(struct server *s, struct sm_err *err);
static int children_start(struct server *s, struct sm_err *err);
static int job_submit(struct server *s, struct sm_stream *stream, struct sm_err *err);
static int others_give_way(struct server *s, struct sm_err *err);
static int tend(struct server *s, struct sm_err *err);
static int job_look(struct server *s, struct sm_err *err);

int sm_serve(struct sm_stream *stream, const struct sm_serve_options *options,
             void (*ready)(void *context, const char *endpoint), void *context,
             struct sm_err *err) {
    struct server s = {.stream = stream, .options = options, .lock_fd = -1, .port_fd = -1};
    int r = -1;
    if (endpoint_choose(&s, err) == 0 && state_claim(&s, err) == 0 &&
        children_start(&s, err) == 0 && job_submit(&s, stream, err) == 0 &&
        (options->also == NULL || job_submit(&s, options->also, err) == 0) &&
        others_give_way(&s, err) == 0) {
        ready(context, s.endpoint);
        while ((r = tend(&s, err)) == 0 && (r = job_look(&s, err)) == 0)
            poll(NULL, 0, TEND_MS);
    }
    sm_client_free(&s.client);
    sm_embedded_stop(&s.embedded, SM_GRACE_MS);
    if (s.lock_fd >= 0) close(s.lock_fd);
    if (s.port_fd >= 0) close(s.port_fd);
    return r < 0 && err->code == SM_E_CANCELLED && *options->stop ? 0 : r < 0 ? -1 : 0;
}

/* A port of "*" or "0" is chosen here, once: a broker that is started again must be where the
 * trainers look for it. The socket that chose stays bound, so that nobody else is given the port;
 * only who asks for that very port, as the broker does, may have it too (SO_REUSEADDR, set after
 * the choice: before it, the kernel would share a port that another such socket holds). */
static int endpoint_choose(struct server *s, struct sm_err *err) {
    const char *bind_to = s->options->bind, *port = strrchr(bind_to, ':');
    snprintf(s->endpoint, sizeof s->endpoint, "%s", bind_to);
    if (strlen(bind_to) >= sizeof s->endpoint)
        return sm_fail(err, SM_E_USAGE, "the endpoint '%.60s…' is too long", bind_to);
    if (strncmp(bind_to, "tcp://", 6) != 0 || port == NULL ||
        (strcmp(port, ":*") != 0 && strcmp(port, ":0") != 0))
        return 0;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    s->port_fd = fd;
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, n) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &n) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) < 0)
        return sm_fail_errno(err, "cannot choose a port for '%s'", bind_to);
    snprintf(s->endpoint, sizeof s->endpoint, "%.*s:%u", (int)(port - bind_to), bind_to,
             ntohs(at.sin_port));
    return 0;
}

/* Keeps a second serve out, which would find this one's broker and take it for its own. */
static int state_claim(struct server *s, struct sm_err *err) {
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/serve.lock", s->stream->state);
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0) return sm_fail_errno(err, "cannot make '%s'", path);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return sm_fail(err, SM_E_BUSY,
                       "another serve is at work in '%s' (hint: `--state` names another folder)",
                       s->stream->state);
    return 0;
}

/* Whether the broker that answers is our own: another one may be at the endpoint already, and ours
 * cannot bind then. 1 yes, 0 nobody answers yet, -1 another's. */
static int broker_check(struct server *s, struct sm_err *err) {
    sm_envelope *answer = NULL;
    if (sm_client_status(s->client, ASK_MS, &answer, err) < 0)
        return err->code == SM_E_PEER ? 0 : -1;
    int r = 1;
    if (strcmp(answer->status->state_dir, s->stream->state) != 0)
        r = sm_fail(err, SM_E_BUSY,
                    "another broker is at '%s' already, with its state in '%.200s' (hint: --bind "
                    "'tcp://127.0.0.1:*' takes a free port)",
                    s->endpoint, answer->status->state_dir);
    sm_wire_free(&answer);
    return r;
}

static int children_start(struct server *s, struct sm_err *err) {
    uint64_t want = BATCHES_AHEAD * s->stream->spec.batch_bytes;
    int64_t mb = (int64_t)((want + (1 << 20) - 1) >> 20);
    struct sm_embedded_options embedded = {.state_dir = s->stream->state,
                                           .workers = s->options->workers,
                                           .no_sandbox = s->options->no_sandbox,
                                           .endpoint = s->endpoint,
                                           .batch_memory_mb = mb > BATCH_MEMORY_MB ? mb : 0};
    if (sm_embedded_start(&s->embedded, &embedded, err) < 0) return -1;
    return sm_client_new(&s->client, s->endpoint, s->options->stop, err);
}

/* Keeps the children alive. -1 when one does not stay up, or when it is time to go. */
static int tend(struct server *s, struct sm_err *err) {
    if (*s->options->stop) return sm_fail(err, SM_E_CANCELLED, "stopped on request");
    if (s->options->die_with_parent && getppid() != s->options->parent)
        return sm_fail(err, SM_E_CANCELLED, "the process that started this has ended");
    if (sm_embedded_tend(s->embedded, err) < 0) return -1;
    int restarts = sm_embedded_restarts(s->embedded);
    if (restarts != s->restarts && !s->options->quiet)
        fprintf(stderr, "shardmill: %d of the broker and its workers died and were started again\n",
                restarts - s->restarts);
    s->restarts = restarts;
    return 0;
}

static int job_submit(struct server *s, struct sm_stream *stream, struct sm_err *err) {
    for (int64_t start = sm_now_ms();;) {
        if (tend(s, err) < 0) return -1;
        int ours = broker_check(s, err);
        if (ours < 0 || (ours == 0 && sm_now_ms() - start > START_MS)) return -1;
        if (ours == 0) continue;
        if (sm_client_submit(s->client, stream->id, &stream->spec, ASK_MS, err) == 0) return 0;
        if (err->code == SM_E_DIFFERS)
            return sm_err_context(err, "'%s' (hint: `--state` names another folder)",
                                  s->stream->state);
        if (err->code != SM_E_PEER || sm_now_ms() - start > START_MS) return -1;
    }
}

/* A trainer asks by name. What was served from this folder under the same name, with another
 * pipeline or other data, is cancelled; served again it goes on from what was committed. */
static int others_give_way(struct server *s, struct sm_err *err) {
    const struct sm_stream *ours[] = {s->stream, s->options->also};
    sm_envelope *answer = NULL;
    for (const int64_t start = sm_now_ms();;) {
        if (tend(s, err) < 0) return -1;
        if (sm_client_status(s->client, ASK_MS, &answer, err) == 0) break;
        if (err->code != SM_E_PEER || sm_now_ms() - start > START_MS) return -1;
    }
    const Shardmill__Status *status = answer->status;
    int failed = 0;
    for (size_t i = 0; i < status->n_jobs && !failed; i++) {
        const Shardmill__JobStatus *j = status->jobs[i];
        for (size_t k = 0; k < 2 && ours[k] != NULL && !failed; k++) {
            if (j->state != SHARDMILL__JOB_STATE__RUNNING || strcmp(j->name, ours[k]->name) != 0 ||
                strcmp(j->job, ours[0]->id) == 0 || (ours[1] && strcmp(j->job, ours[1]->id) == 0))
                continue;
            failed = sm_client_cancel(s->client, j->job, err);
            if (!failed && !s->options->quiet)
                fprintf(stderr,
                        "shardmill: an earlier job '%s' of this folder, of another pipeline or "
                        "dataset, gives way (what trainers committed of it is kept)\n",
                        j->name);
        }
    }
    sm_wire_free(&answer);
    return failed;
}

/* 0: it goes on; 1: the job is complete; -1: it failed. A broker that does not answer has died and
 * is being started again. */
static int job_look(struct server *s, struct sm_err *err) {
    int64_t now = sm_now_ms();
    if (now - s->looked_ms < LOOK_MS) return 0;
    s->looked_ms = now;
    sm_envelope *answer = NULL;
    if (sm_client_job(s->client, s->stream->id, ASK_MS, &answer, err) < 0)
        return err->code == SM_E_PEER ? 0 : -1;
    const Shardmill__JobStatus *j = answer->job_status;
    int r = 0;
    if (j->state == SHARDMILL__JOB_STATE__COMPLETE)
        r = 1;
    else if (j->state == SHARDMILL__JOB_STATE__FAILED)
        r = sm_fail(err, (enum sm_code)j->code, "%s", j->text);
    else if (j->state == SHARDMILL__JOB_STATE__CANCELLED)
        r = sm_fail(err, SM_E_CANCELLED, "the job was cancelled");
    sm_wire_free(&answer);
    return r;
}

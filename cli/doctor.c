/* What Shardmill needs of a machine, tried out rather than looked up: each refusal of the cage is
 * provoked in a real cage. One function a check, one table of them. */
#include "cli/doctor.h"

#include "lib/limits.h"
#include "lib/wire.h"
#include "workers/cage.h"
#include "workers/engine.h"

#include <linux/landlock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>
#include <vips/vips.h>

struct finding {
    const char *check;
    enum sm_health health;
    char text[1200];
};

struct report {
    struct finding found[64];
    size_t n;
};

static void say(struct report *r, const char *check, enum sm_health health, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

static void say(struct report *r, const char *check, enum sm_health health, const char *fmt, ...) {
    if (r->n == sizeof r->found / sizeof *r->found) return;
    struct finding *f = &r->found[r->n++];
    f->check = check;
    f->health = health;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(f->text, sizeof f->text, fmt, ap);
    va_end(ap);
}

static void check_versions(struct report *r) {
    say(r, "versions", SM_HEALTH_OK, "shardmill %s; %s", SM_VERSION, sm_engine_fingerprint());
}

static void check_processor(struct report *r) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
#if defined(__x86_64__)
    bool fast = __builtin_cpu_supports("avx2");
    say(r, "processor", fast ? SM_HEALTH_OK : SM_HEALTH_WARN, "%ld cores, %s", cores,
        fast ? "AVX2" : "no AVX2: the plain kernels run (the same bytes, slower)");
#else
    say(r, "processor", SM_HEALTH_WARN, "%ld cores; the plain kernels run (the same bytes, slower)",
        cores);
#endif
}

static void check_memory(struct report *r) {
    struct sysinfo info;
    if (sysinfo(&info) != 0) return;
    double have = (double)info.totalram * info.mem_unit / (1 << 30);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    double want = (double)cores * SM_MAX_CAGE_MEMORY_BYTES / (1 << 30);
    say(r, "memory", have < want ? SM_HEALTH_WARN : SM_HEALTH_OK,
        "%.1f GiB; one worker for each core may use up to %.1f GiB in the worst case", have, want);
}

static void check_files(struct report *r) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    say(r, "open files", limit.rlim_cur < 256 ? SM_HEALTH_BAD : SM_HEALTH_OK, "up to %llu%s",
        (unsigned long long)limit.rlim_cur, limit.rlim_cur < 256 ? " (hint: ulimit -n 1024)" : "");
}

static void check_environment(struct report *r) {
    bool unlimited = getenv("VIPS_UNLIMITED") != NULL;
    say(r, "environment", unlimited ? SM_HEALTH_BAD : SM_HEALTH_OK, "%s",
        unlimited ? "VIPS_UNLIMITED is set: it takes the decoders' own limits away (hint: unset it)"
                  : "nothing that loosens a limit");
}

static void check_landlock(struct report *r) {
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi > 0)
        say(r, "landlock", SM_HEALTH_OK, "the kernel has it, version %ld", abi);
    else
        say(r, "landlock", SM_HEALTH_WARN,
            "the kernel lacks it; seccomp alone keeps the cage (Linux 5.13 has it)");
}

static void check_cage(struct report *r) {
    static const char pipeline[] =
        "{\"version\":1,\"source\":{\"path\":\".\"},\"ops\":[{\"Resize\":{\"size\":8}}]}";
    struct sm_cage_options options = {0};
    struct sm_cage *cage = NULL;
    struct sm_err err = {0};
    int64_t start = sm_now_ms();
    if (sm_cage_new(&cage, pipeline, &options, &err) < 0) {
        say(r, "cage", SM_HEALTH_BAD, "%s", err.text);
        return;
    }
    say(r, "cage", SM_HEALTH_OK, "starts in %d ms", (int)(sm_now_ms() - start));
    for (int p = 0; p < SM_PROBE_COUNT; p++) {
        bool refused = sm_cage_probe(cage, (enum sm_probe)p, &err);
        say(r, sm_probe_name((enum sm_probe)p), refused ? SM_HEALTH_OK : SM_HEALTH_BAD,
            "%s in the cage", refused ? "refused" : "NOT refused");
    }
    sm_cage_free(&cage);
}

static void check_fonts(struct report *r) {
    VipsImage *text = NULL;
    bool drawn = vips_text(&text, "Ag", "font", "sans 10", NULL) == 0;
    VIPS_UNREF(text);
    vips_error_clear();
    say(r, "fonts", drawn ? SM_HEALTH_OK : SM_HEALTH_WARN, "%s",
        drawn ? "there is one for contact sheets"
              : "none: contact sheets stay without text (hint: fonts-dejavu-core)");
}

static void (*const checks[])(struct report *) = {check_versions, check_processor,   check_memory,
                                                  check_files,    check_environment, check_landlock,
                                                  check_cage,     check_fonts};

static void as_json(const struct report *r, enum sm_health worst, struct sm_buf *out) {
    static const char *const words[] = {"ok", "warn", "bad"};
    sm_buf_printf(out, "{\"healthy\": %s, \"checks\": [",
                  worst == SM_HEALTH_BAD ? "false" : "true");
    for (size_t i = 0; i < r->n; i++) {
        sm_buf_text(out, i ? ",\n  {\"check\": " : "\n  {\"check\": ");
        sm_buf_json(out, r->found[i].check);
        sm_buf_printf(out, ", \"health\": \"%s\", \"text\": ", words[r->found[i].health]);
        sm_buf_json(out, r->found[i].text);
        sm_buf_text(out, "}");
    }
    sm_buf_text(out, "\n]}\n");
}

enum sm_health sm_doctor(bool json, struct sm_buf *out) {
    static const char *const words[] = {"ok", "WARN", "BAD"};
    struct report r = {.n = 0};
    struct sm_err err = {0};
    if (sm_engine_start("shardmill", &err) < 0)
        say(&r, "libraries", SM_HEALTH_BAD, "%s", err.text);
    else
        for (size_t i = 0; i < sizeof checks / sizeof *checks; i++)
            checks[i](&r);
    enum sm_health worst = SM_HEALTH_OK;
    for (size_t i = 0; i < r.n; i++)
        if (r.found[i].health > worst) worst = r.found[i].health;
    if (json) {
        as_json(&r, worst, out);
        return worst;
    }
    for (size_t i = 0; i < r.n; i++)
        sm_buf_printf(out, "%-5s %-26s %s\n", words[r.found[i].health], r.found[i].check,
                      r.found[i].text);
    return worst;
}

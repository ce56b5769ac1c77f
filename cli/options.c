/* Options of a command line, each checked against its row as a parameter of a pipeline file is.
 * Before it: main.c found the command. After it: the command's run(). */
#include "cli/options.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { OPTIONS_MAX = 32, NAME_MAX_BYTES = 48 };

struct reader {
    const struct sm_command *command;
    void *values;
    bool given[OPTIONS_MAX];
    struct sm_err *err;
};

static int option_read(struct reader *r, int argc, char **argv, int *i);
static int required_check(struct reader *r);
static int operands_check(struct reader *r, int n, char **operands);

int sm_options_read(const struct sm_command *command, int argc, char **argv, void *values,
                    int *n_operands, bool *help, struct sm_err *err) {
    struct reader r = {.command = command, .values = values, .err = err};
    assert(command->n_options <= OPTIONS_MAX && command->values_size >= sizeof(struct sm_common));
    ((struct sm_common *)values)->seed = -1;
    for (size_t k = 0; k < command->n_options; k++)
        sm_param_defaults(&command->options[k].param, 1, values);
    *n_operands = 0;
    *help = false;
    bool ended = false; /* after "--" */
    for (int i = 0; i < argc; i++) {
        if (!ended && strcmp(argv[i], "--") == 0) {
            ended = true;
        } else if (ended || argv[i][0] != '-' || argv[i][1] == 0) {
            argv[(*n_operands)++] = argv[i];
        } else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            *help = true;
            return 0;
        } else if (option_read(&r, argc, argv, &i) != 0) {
            return -1;
        }
    }
    if (operands_check(&r, *n_operands, argv) != 0) return -1;
    return required_check(&r);
}

static const struct sm_option *option_find(const struct sm_command *c, const char *name) {
    for (size_t i = 0; i < c->n_options; i++)
        if (strcmp(c->options[i].param.name, name) == 0) return &c->options[i];
    return NULL;
}

static const struct sm_option *option_by_letter(const struct sm_command *c, char letter) {
    for (size_t i = 0; i < c->n_options; i++)
        if (c->options[i].letter == letter) return &c->options[i];
    return NULL;
}

static int fail_unknown(struct reader *r, const char *written) {
    const struct sm_command *c = r->command;
    const char *names[OPTIONS_MAX + 1];
    size_t n = 0;
    for (size_t i = 0; i < c->n_options; i++)
        if (!c->options[i].hidden) names[n++] = c->options[i].param.name;
    names[n++] = "help";
    const char *near = sm_nearest(written + strspn(written, "-"), names, n);
    if (near != NULL)
        return sm_fail(r->err, SM_E_USAGE,
                       "unknown option '%.60s' of '%s' (hint: did you mean '--%s'?)", written,
                       c->name, near);
    return sm_fail(r->err, SM_E_USAGE,
                   "unknown option '%.60s' of '%s' (hint: 'shardmill %s --help' lists them)",
                   written, c->name, c->name);
}

/* Sets an option from text; messages call it as it is written on a command line. */
static int option_set(struct reader *r, const struct sm_option *o, const char *text) {
    char name[NAME_MAX_BYTES];
    snprintf(name, sizeof name, "--%s", o->param.name);
    struct sm_param p = o->param;
    p.name = name;
    r->given[o - r->command->options] = true;
    return sm_param_set_text(&p, r->values, text, r->err);
}

/* value: what stands behind '=' or the letter, or NULL: then it is the next argument. */
static int option_take(struct reader *r, const struct sm_option *o, const char *value, int argc,
                       char **argv, int *i) {
    if (value == NULL && o->param.type == SM_T_BOOL) return option_set(r, o, "true");
    if (value != NULL) return option_set(r, o, value);
    if (*i + 1 >= argc)
        return sm_fail(r->err, SM_E_USAGE, "option '%s' needs a value (hint: --%s %s)", argv[*i],
                       o->param.name, o->metavar != NULL ? o->metavar : "VALUE");
    return option_set(r, o, argv[++*i]);
}

static int option_read(struct reader *r, int argc, char **argv, int *i) {
    const char *written = argv[*i];
    if (written[1] != '-') { /* -o VALUE, -oVALUE */
        const struct sm_option *o = option_by_letter(r->command, written[1]);
        if (o == NULL || (o->param.type == SM_T_BOOL && written[2] != 0))
            return fail_unknown(r, written);
        return option_take(r, o, written[2] != 0 ? written + 2 : NULL, argc, argv, i);
    }
    const char *equals = strchr(written, '=');
    size_t n = equals != NULL ? (size_t)(equals - written) - 2 : strlen(written) - 2;
    char name[NAME_MAX_BYTES];
    if (n >= sizeof name) return fail_unknown(r, written);
    memcpy(name, written + 2, n);
    name[n] = 0;
    const struct sm_option *o = option_find(r->command, name);
    if (o != NULL) return option_take(r, o, equals != NULL ? equals + 1 : NULL, argc, argv, i);
    if (equals == NULL && strncmp(name, "no-", 3) == 0) {
        o = option_find(r->command, name + 3);
        if (o != NULL && o->param.type == SM_T_BOOL) return option_set(r, o, "false");
    }
    return fail_unknown(r, written);
}

static int required_check(struct reader *r) {
    for (size_t i = 0; i < r->command->n_options; i++) {
        const struct sm_option *o = &r->command->options[i];
        if (!o->required || r->given[i]) continue;
        return sm_fail(r->err, SM_E_USAGE, "'%s' needs --%s %s (hint: 'shardmill %s --help')",
                       r->command->name, o->param.name, o->metavar, r->command->name);
    }
    return 0;
}

static int operands_check(struct reader *r, int n, char **operands) {
    const struct sm_command *c = r->command;
    if (n < c->operands_min)
        return sm_fail(r->err, SM_E_USAGE, "'%s' needs %s (hint: 'shardmill %s --help')", c->name,
                       c->operands, c->name);
    if (n > c->operands_max)
        return sm_fail(r->err, SM_E_USAGE,
                       "'%s' does not take '%.60s' (hint: usage: shardmill %s %s)", c->name,
                       operands[c->operands_max], c->name, c->operands);
    return 0;
}

/* Help texts from the commands' tables. Before it: main.c or a command that was asked for --help.
 */
#include "cli/help.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 100, COLUMN = 26 };

static void options_write(const struct sm_command *c, struct sm_buf *out);

/* Columns of the first n bytes of UTF-8. */
static int columns(const char *s, size_t n) {
    int count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xc0) != 0x80;
    return count;
}

void sm_help_wrap(struct sm_buf *out, const char *text, int column, int indent, int width) {
    bool first = true;
    while (*text) {
        size_t n = strcspn(text, " \n");
        int word = columns(text, n);
        if (!first && column + 1 + word > width) {
            sm_buf_printf(out, "\n%*s", indent, "");
            column = indent;
            first = true;
        }
        if (!first) sm_buf_text(out, " ");
        sm_buf_add(out, text, n);
        column += word + !first;
        first = false;
        text += n;
        if (text[0] == '\n' && text[1] == '\n') { /* a new paragraph */
            sm_buf_printf(out, "\n\n%*s", indent, "");
            column = indent;
            first = true;
        }
        text += strspn(text, " \n");
    }
    sm_buf_text(out, "\n");
}

static int by_order(const void *a, const void *b) {
    const struct sm_command *x = *(const struct sm_command *const *)a;
    const struct sm_command *y = *(const struct sm_command *const *)b;
    return x->order != y->order ? (x->order > y->order) - (x->order < y->order)
                                : strcmp(x->name, y->name);
}

size_t sm_commands_sorted(const struct sm_command **out) {
    size_t n = 0;
    for (size_t i = 0; i < sm_commands_count; i++)
        if (!sm_commands[i]->hidden) out[n++] = sm_commands[i];
    qsort(out, n, sizeof *out, by_order);
    return n;
}

const struct sm_command *sm_command_find(const char *name) {
    for (size_t i = 0; i < sm_commands_count; i++)
        if (strcmp(sm_commands[i]->name, name) == 0) return sm_commands[i];
    return NULL;
}

int sm_command_unknown(const char *name, struct sm_err *err) {
    const struct sm_command *sorted[64];
    const char *names[64];
    assert(sm_commands_count <= 64);
    size_t n = sm_commands_sorted(sorted);
    for (size_t i = 0; i < n; i++)
        names[i] = sorted[i]->name;
    const char *near = sm_nearest(name, names, n);
    if (near != NULL)
        return sm_fail(err, SM_E_USAGE, "unknown command '%.60s' (hint: did you mean '%s'?)", name,
                       near);
    return sm_fail(err, SM_E_USAGE, "unknown command '%.60s' (hint: 'shardmill help' lists them)",
                   name);
}

void sm_help_overview(struct sm_buf *out) {
    const struct sm_command *sorted[64];
    assert(sm_commands_count <= 64);
    size_t n = sm_commands_sorted(sorted);
    sm_buf_text(out, "usage: shardmill COMMAND [OPTION]…\n\n"
                     "Images in, augmented training data out: the same bytes each time, whatever "
                     "happens on the way.\n\ncommands:\n");
    for (size_t i = 0; i < n; i++)
        sm_buf_printf(out, "  %-10s %s\n", sorted[i]->name, sorted[i]->brief);
    sm_buf_text(out, "\n'shardmill COMMAND --help' tells more about one; --version the version.\n"
                     "First steps: shardmill check FILE, shardmill preview FILE -o sheet.png, "
                     "shardmill expand FILE -o DIR\n");
}

void sm_help_command(const struct sm_command *c, struct sm_buf *out) {
    sm_buf_printf(out, "usage: shardmill %s%s%s [OPTION]…\n\n", c->name, c->operands[0] ? " " : "",
                  c->operands);
    sm_help_wrap(out, c->brief, 0, 0, WIDTH);
    if (c->details != NULL) {
        sm_buf_text(out, "\n");
        sm_help_wrap(out, c->details, 0, 0, WIDTH);
    }
    sm_buf_text(out, "\noptions:\n");
    options_write(c, out);
    if (c->examples != NULL) sm_buf_text(out, "\nexamples:\n");
    for (size_t i = 0; c->examples != NULL && c->examples[i] != NULL; i++)
        sm_buf_printf(out, "  %s\n", c->examples[i]);
}

/* The head of one option ("-o, --out DIR"), then its documentation in a column of its own. */
static void option_write(struct sm_buf *out, const char *head, const char *doc) {
    int n = columns(head, strlen(head));
    sm_buf_printf(out, "  %s", head);
    if (n + 3 > COLUMN)
        sm_buf_printf(out, "\n%*s", COLUMN, "");
    else
        sm_buf_printf(out, "%*s", COLUMN - n - 2, "");
    sm_help_wrap(out, doc, COLUMN, COLUMN, WIDTH);
}

bool sm_option_is_on(const struct sm_option *o) {
    const char *dflt = o->param.dflt;
    return o->param.type == SM_T_BOOL && dflt != NULL && strcmp(dflt, "true") == 0;
}

void sm_option_doc(const struct sm_option *o, struct sm_buf *out) {
    const struct sm_param *p = &o->param;
    sm_buf_text(out, p->doc);
    if (p->type != SM_T_BOOL && p->type != SM_T_STR) {
        sm_buf_text(out, "; ");
        sm_param_type_text(p, out);
    }
    if (p->type != SM_T_BOOL && p->dflt != NULL && strcmp(p->dflt, "null") != 0)
        sm_buf_printf(out, " (default %s)", p->dflt);
    if (o->required) sm_buf_text(out, " (required)");
}

static void options_write(const struct sm_command *c, struct sm_buf *out) {
    for (size_t i = 0; i < c->n_options; i++) {
        const struct sm_option *o = &c->options[i];
        struct sm_buf doc;
        char head[96], letter[8] = "";
        if (o->hidden) continue;
        if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(head, sizeof head, "%s--%s%s%s%s", letter, sm_option_is_on(o) ? "no-" : "",
                 o->param.name, o->metavar ? " " : "", o->metavar ? o->metavar : "");
        sm_buf_init(&doc, 4096);
        sm_option_doc(o, &doc);
        option_write(out, head, doc.data);
        sm_buf_release(&doc);
    }
    option_write(out, "-h, --help", "this text");
}

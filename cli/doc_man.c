/* The man page, from the tables of the commands. */
#include "cli/help.h"

static void command_write(const struct sm_command *c, struct sm_buf *out);

/* Text for roff: hyphens that stay hyphens, no line that begins as a request, paragraphs kept. */
static void roff(struct sm_buf *out, const char *text) {
    bool line_start = out->len == 0 || out->data[out->len - 1] == '\n';
    for (const char *s = text; *s; s++) {
        if (line_start && (*s == '.' || *s == '\'')) sm_buf_text(out, "\\&");
        line_start = *s == '\n';
        if (*s == '-')
            sm_buf_text(out, "\\-");
        else if (*s == '\\')
            sm_buf_text(out, "\\e");
        else if (s[0] == '\n' && s[1] == '\n')
            sm_buf_text(out, "\n.PP");
        else
            sm_buf_add(out, s, 1);
    }
}

static void line(struct sm_buf *out, const char *text) {
    roff(out, text);
    sm_buf_text(out, "\n");
}

void sm_doc_man(struct sm_buf *out) {
    const struct sm_command *commands[64];
    size_t n = sm_commands_sorted(commands);
    sm_buf_text(out, ".TH SHARDMILL 1 \"\" \"shardmill " SM_VERSION "\" \"User Commands\"\n"
                     ".SH NAME\nshardmill \\- augmented training data, the same bytes each time\n"
                     ".SH SYNOPSIS\n.B shardmill\n.I COMMAND\n[\\fIOPTION\\fR]...\n"
                     ".SH DESCRIPTION\n");
    line(out, "Shardmill reads a pipeline file (YAML) that says where samples lie, what is done to "
              "each and what is written. A broker hands batches to worker processes, which decode, "
              "augment and encode in a sandbox; the result is WebDataset shards. Every byte is a "
              "function of pipeline, dataset and seed: not of the number of workers, nor of what "
              "crashed on the way.");
    sm_buf_text(out, ".SH COMMANDS\n");
    for (size_t i = 0; i < n; i++)
        command_write(commands[i], out);
    sm_buf_text(out, ".SH EXIT STATUS\n.TP\n.B 0\ndone\n.TP\n.B 1\nfailed\n.TP\n.B 2\n"
                     "wrong use, or a pipeline file that is not valid\n.TP\n.B 3\n"
                     "done, but more samples quarantined than allowed\n"
                     ".SH FILES\n.TP\n.I schema.json\n");
    line(out, "JSON Schema of pipeline files, for editors; installed in share/shardmill beside the "
              "recipes.");
    sm_buf_text(out, ".SH SEE ALSO\n");
    line(out, "shardmill ops lists the ops and their parameters.");
}

static void option_head(const struct sm_option *o, struct sm_buf *out) {
    sm_buf_text(out, ".TP\n\\fB");
    if (o->letter) sm_buf_printf(out, "\\-%c\\fR, \\fB", o->letter);
    roff(out, sm_option_is_on(o) ? "--no-" : "--");
    roff(out, o->param.name);
    sm_buf_text(out, "\\fR");
    if (o->metavar != NULL) {
        sm_buf_text(out, " \\fI");
        roff(out, o->metavar);
        sm_buf_text(out, "\\fR");
    }
    sm_buf_text(out, "\n");
}

static void option_write(const struct sm_option *o, struct sm_buf *out) {
    struct sm_buf doc;
    option_head(o, out);
    sm_buf_init(&doc, 4096);
    sm_option_doc(o, &doc);
    line(out, doc.data);
    sm_buf_release(&doc);
}

static void command_write(const struct sm_command *c, struct sm_buf *out) {
    sm_buf_printf(out, ".SS %s%s", c->name, c->operands[0] ? " " : "");
    line(out, c->operands);
    line(out, c->brief);
    if (c->details != NULL) {
        sm_buf_text(out, ".PP\n");
        line(out, c->details);
    }
    for (size_t i = 0; i < c->n_options; i++)
        if (!c->options[i].hidden) option_write(&c->options[i], out);
    sm_buf_text(out, ".TP\n\\fB\\-h\\fR, \\fB\\-\\-help\\fR\nall about this command\n");
    if (c->examples == NULL) return;
    sm_buf_text(out, ".PP\nExamples:\n.PP\n.nf\n.RS\n");
    for (size_t i = 0; c->examples[i] != NULL; i++)
        line(out, c->examples[i]);
    sm_buf_text(out, ".RE\n.fi\n");
}

/* Completion for bash, from the tables of commands and ops: commands, their options, the words that
 * an option takes, op names, and files where files are wanted. */
#include "cli/help.h"
#include "workers/ops/op.h"

#include <string.h>

static void command_write(const struct sm_command *c, struct sm_buf *out);
static void operand_write(const struct sm_command *c, struct sm_buf *out);

static void names_write(const struct sm_command **commands, size_t n, struct sm_buf *out) {
    for (size_t i = 0; i < n; i++)
        sm_buf_printf(out, "%s%s", i ? " " : "", commands[i]->name);
}

void sm_doc_bash(struct sm_buf *out) {
    const struct sm_command *commands[64];
    size_t n = sm_commands_sorted(commands);
    sm_buf_text(out, "# bash completion for shardmill, made by `shardmill docs bash`\n"
                     "_shardmill() {\n"
                     "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
                     "  local files= words= found=()\n"
                     "  COMPREPLY=()\n"
                     "  if ((COMP_CWORD == 1)); then\n"
                     "    words='");
    names_write(commands, n, out);
    sm_buf_text(out, " --help --version'\n  fi\n"
                     "  ((COMP_CWORD == 1)) || case ${COMP_WORDS[1]} in\n");
    for (size_t i = 0; i < n; i++)
        command_write(commands[i], out);
    sm_buf_text(out, "  esac\n"
                     "  # read line by line: names may hold blanks\n"
                     "  mapfile -t found < <(\n"
                     "    [[ -z $words ]] || compgen -W \"$words\" -- \"$cur\"\n"
                     "    [[ $files != any ]] || compgen -f -- \"$cur\"\n"
                     "    [[ $files != folder && $files != pipeline ]] || compgen -d -- \"$cur\"\n"
                     "    [[ $files != pipeline ]] || compgen -f -X '!*.y*ml' -- \"$cur\")\n"
                     "  COMPREPLY=(\"${found[@]}\")\n"
                     "}\n"
                     "complete -o filenames -F _shardmill shardmill\n");
}

/* What stands behind an option that takes a value. */
static void value_write(const struct sm_option *o, struct sm_buf *out) {
    const struct sm_param *p = &o->param;
    sm_buf_text(out, "        ");
    if (o->letter) sm_buf_printf(out, "-%c|", o->letter);
    sm_buf_printf(out, "--%s) ", p->name);
    if (p->type == SM_T_ENUM) {
        sm_buf_text(out, "words='");
        for (size_t i = 0; p->choices[i] != NULL; i++)
            sm_buf_printf(out, "%s%s", i ? " " : "", p->choices[i]);
        sm_buf_text(out, "'");
    } else if (p->type == SM_T_STR && o->metavar != NULL) {
        bool dir = strcmp(o->metavar, "DIR") == 0;
        bool path = strcmp(o->metavar, "PATH") == 0 || strcmp(o->metavar, "FILE") == 0;
        sm_buf_text(out, dir ? "files=folder" : path ? "files=any" : ":");
    } else {
        sm_buf_text(out, ":");
    }
    sm_buf_text(out, " ;;\n");
}

static void command_write(const struct sm_command *c, struct sm_buf *out) {
    sm_buf_printf(out, "    %s)\n      case $prev in\n", c->name);
    for (size_t i = 0; i < c->n_options; i++)
        if (c->options[i].param.type != SM_T_BOOL && !c->options[i].hidden)
            value_write(&c->options[i], out);
    sm_buf_text(out, "        *) if [[ $cur == -* ]]; then words='");
    for (size_t i = 0; i < c->n_options; i++) {
        const struct sm_option *o = &c->options[i];
        if (!o->hidden)
            sm_buf_printf(out, "--%s%s ", sm_option_is_on(o) ? "no-" : "", o->param.name);
    }
    sm_buf_text(out, "--help'; else ");
    operand_write(c, out);
    sm_buf_text(out, "; fi ;;\n      esac ;;\n");
}

static void operand_write(const struct sm_command *c, struct sm_buf *out) {
    const struct sm_command *commands[64];
    switch (c->operand) {
    case SM_OPERAND_NONE:
        sm_buf_text(out, ":");
        break;
    case SM_OPERAND_PIPELINE:
        sm_buf_text(out, "files=pipeline");
        break;
    case SM_OPERAND_DIR:
        sm_buf_text(out, "files=folder");
        break;
    case SM_OPERAND_COMMAND:
        sm_buf_text(out, "words='");
        names_write(commands, sm_commands_sorted(commands), out);
        sm_buf_text(out, "'");
        break;
    case SM_OPERAND_OP:
        sm_buf_text(out, "words='");
        for (size_t i = 0; i < sm_ops_count; i++)
            sm_buf_printf(out, "%s%s", i ? " " : "", sm_ops[i]->info.name);
        sm_buf_text(out, "'");
        break;
    case SM_OPERAND_DOC:
        sm_buf_text(out, "words='man bash schema ops limits'");
        break;
    }
}

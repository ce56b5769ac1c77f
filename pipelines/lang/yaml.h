/* YAML as a tree of scalars, lists and maps with the place of each. Anchors, aliases, tags,
 * directives and a second document do not exist in a pipeline file and are refused. JSON is YAML,
 * so it reads that too. */
#pragma once

#include "lib/arena.h"
#include "lib/err.h"
#include "pipelines/lang/text.h"

#include <stdbool.h>
#include <stddef.h>

enum sm_node_kind { SM_NODE_SCALAR, SM_NODE_LIST, SM_NODE_MAP };

struct sm_node {
    enum sm_node_kind kind;
    bool plain;            /* a scalar without quotes: its type is open */
    const char *text;      /* of a scalar */
    size_t offset;         /* of its first byte; of an empty value: of its key */
    struct sm_node *first; /* items of a list; keys of a map */
    struct sm_node *next;  /* item or key after this one */
    struct sm_node *value; /* of a key */
    size_t count;          /* items or keys */
};

/* Fills *root with a tree that lives in the arena. An empty text is an empty map. */
int sm_yaml_read(const struct sm_text *text, struct sm_arena *arena, struct sm_node **root,
                 struct sm_err *err);

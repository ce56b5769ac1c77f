/* CURVE keys on disk. A side that connects or listens beyond its host has a folder:
 *
 *   DIR/secret.key   its pair; readable by its owner only
 *   DIR/public.key   the public half, to be given to others
 *   DIR/server.key   of who connects: the public key of the broker that it trusts; without it
 *                    DIR is the broker's own, and who uses the same folder belongs to it
 *   DIR/allowed/     of who listens: a public key file for each who may connect
 *
 * Files are in CZMQ's certificate format, which pyzmq reads and writes too. Before this:
 * `shardmill keygen`. After it: lib/wire.c, which puts keys on sockets, and lib/zap.c. */
#pragma once

#include "lib/err.h"

#include <stdbool.h>

enum { SM_KEY_TEXT = 41 }; /* a key as Z85 text, with its NUL */

#define SM_KEYS_ENV "SHARDMILL_KEYS"

struct sm_keys;

/* Makes DIR with a new pair and an empty allowed folder; fills the public key. What is there
 * already is never written over (SM_E_BUSY). join (may be NULL) is a broker's folder: its public
 * key becomes DIR/server.key, and the new public key is put among those that it allows. */
int sm_keys_make(const char *dir, const char *join, char public_key[SM_KEY_TEXT],
                 struct sm_err *err);

/* Loads DIR; dir NULL or "" stands for the folder that SHARDMILL_KEYS names, and when it names
 * none, *gives is NULL and that is no failure. A secret that others can read, or a public key that
 * others can change, is refused (SM_E_KEY). */
int sm_keys_load(const char *dir, struct sm_keys **gives, struct sm_err *err);
/* Wipes the secret. Twice is harmless. */
void sm_keys_free(struct sm_keys **keys);

/* All lent until the keys are freed. */
const char *sm_keys_dir(const struct sm_keys *keys);
const char *sm_keys_public(const struct sm_keys *keys);
const char *sm_keys_secret(const struct sm_keys *keys); /* for a socket's option; never to print */
const char *sm_keys_server(const struct sm_keys *keys); /* its own, without a server.key */

/* Whether text is a key at all: 40 characters of Z85. */
bool sm_key_valid(const char *text);

/* The folder of those who may connect; the own key may in any case. It is read again when it has
 * changed, and at least once a second, so that a key can be put in or taken out while a server
 * runs. */
struct sm_allowed;
/* SM_E_KEY when the folder is not there or others may write to it. Gives. */
int sm_allowed_open(const struct sm_keys *keys, struct sm_allowed **gives, struct sm_err *err);
bool sm_allowed_has(struct sm_allowed *allowed, const char key[SM_KEY_TEXT]);
const char *sm_allowed_dir(const struct sm_allowed *allowed);
void sm_allowed_free(struct sm_allowed **allowed);

/* Which mechanism a ZeroMQ server has: the one thing that libzmq does not tell when the server ends
 * the connection first. */
#pragma once

enum sm_greeting {
    SM_GREETING_UNKNOWN, /* no answer, or no ZeroMQ */
    SM_GREETING_PLAIN,
    SM_GREETING_CURVE,
};

/* Asks a tcp endpoint ("tcp://host:port"), with a connection of its own; takes a second at most,
 * and the time to resolve its name. */
enum sm_greeting sm_greeting_ask(const char *endpoint);

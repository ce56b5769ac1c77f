/* The handler of SIGBUS, and where it goes back to in each thread. Outside of a guard the signal
 * ends the process as ever. */
#include "lib/guard.h"

#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

static _Thread_local sigjmp_buf *volatile back;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void on_bus(int signal_number) {
    if (back != NULL) siglongjmp(*back, 1);
    signal(signal_number, SIG_DFL); /* it comes again when the handler returns */
}

static void install(void) {
    struct sigaction action = {.sa_handler = on_bus, .sa_flags = SA_NODEFER};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

bool sm_guard(void (*body)(void *context), void *context) {
    sigjmp_buf here;
    assert(back == NULL);
    pthread_once(&once, install);
    if (sigsetjmp(here, 0) != 0) {
        back = NULL;
        return false;
    }
    back = &here;
    body(context);
    back = NULL;
    return true;
}

/* A stack of its own for a call that has to wait in its middle while the thread goes on. GnuTLS calls for a signature
 * and wants it at once: the handshake then waits here, and the loop does not. Everything runs on the thread that starts
 * it. */
#ifndef CB_TRANSPORT_FIBER_H
#define CB_TRANSPORT_FIBER_H

#include <stdbool.h>

typedef struct cb_fiber cb_fiber;

/* CB_ENOMEM. */
int cb_fiber_new(cb_fiber **out);
/* Runs fn on the other stack. True: it has returned, and the fiber may start again. False: it waits. */
bool cb_fiber_start(cb_fiber *f, void (*fn)(void *arg), void *arg);
/* Lets what waits go on; as cb_fiber_start(). */
bool cb_fiber_go_on(cb_fiber *f);
/* Inside fn: back to who started or continued it. */
void cb_fiber_wait(cb_fiber *f);
/* Nothing may wait on it. NULL is fine. */
void cb_fiber_free(cb_fiber *f);

#endif

/* A bell that any thread can ring and that one loop hears: however often it was rung before a turn, fn is called once.
 */
#ifndef CB_LOOP_BELL_H
#define CB_LOOP_BELL_H

#include "loop/loop_int.h"

typedef struct cb_bell cb_bell;

/* Keeps cb_loop_run() going. CB_ESYS, CB_ENOMEM, CB_ENOTSUP (a virtual loop). */
int cb_bell_new(cb_bell **out, cb_loop *loop, void (*fn)(void *user), void *user);
/* Any thread, while the bell exists: whoever rings and whoever frees agree on that by a lock of their own. */
void cb_bell_ring(cb_bell *bell);
void cb_bell_free(cb_bell *bell); /* NULL is fine; also inside fn */

#endif

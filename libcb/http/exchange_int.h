/* What exchange.c, exchange_in.c and exchange_out.c share. */
#ifndef CB_HTTP_EXCHANGE_INT_H
#define CB_HTTP_EXCHANGE_INT_H

#include "http/hconn.h"

/* Every function that may reach the user runs between these two. While one is on the stack x stays; the last one to
 * leave calls on_close when it is due. True: x is over and must not be touched. */
static inline void cb_exchange_enter(cb_exchange *x) {
    x->busy++;
}
bool cb_exchange_left(cb_exchange *x); /* the last one did */
static inline bool cb_exchange_leave(cb_exchange *x) {
    if (x->busy == 1 && !x->done) return cb_exchange_left(x);
    x->busy--;
    return x->closed;
}

/* Calls of the user; the result is CB_OK, CB_ECLOSED (x ended meanwhile) or CB_EUSER. */
int cb_exchange_tell(cb_exchange *x, int (*fn)(cb_exchange *x, void *user), const char *what);
/* Gives what is held to the user, then on_end when it is due. x must be entered. */
int cb_exchange_deliver(cb_exchange *x);

/* Gives framing what a whole response left over. */
int cb_exchange_push_rest(cb_exchange *x);

extern const cb_exchange_ops cb_exchange_no_ops;

#endif

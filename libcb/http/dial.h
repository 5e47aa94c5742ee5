/* One TCP connection to a host with several addresses: Happy Eyeballs (RFC 8305). */
#ifndef CB_HTTP_DIAL_H
#define CB_HTTP_DIAL_H

#include "base/addr.h"
#include "loop/loop_int.h"
#include <cb/resolver.h>

typedef struct cb_dial cb_dial;

/* fd >= 0 (owned by the callee) with the address that answered, or a cb_error with the detail of every attempt. The
 * dial is gone after the call. */
typedef void (*cb_dial_fn)(int fd_or_rc, const cb_addr *at, void *user);

/* Tries the addresses (n >= 1, copied) in their order, the next one `delay` after the one before or when that failed.
 * fn comes from the loop, never inside this call. The time limit is the caller's: cb_dial_cancel(). */
int cb_dial_start(cb_dial **out, cb_loop *loop, const cb_addr *at, size_t n, cb_time delay, cb_dial_fn fn, void *user);
void cb_dial_cancel(cb_dial *d); /* NULL is fine; fn is not called any more */

/* The addresses of an answer with a port, families in turn beginning with that of the first (RFC 8305, 4). Returns how
 * many, at most cap. */
size_t cb_dial_order(cb_addr *out, size_t cap, const cb_host_address *at, size_t n, uint16_t port);

#endif

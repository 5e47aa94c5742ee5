/* When addresses or routes of this host change (rtnetlink), and what the kernel would send from. */
#ifndef CB_LOOP_NETWATCH_H
#define CB_LOOP_NETWATCH_H

#include "base/addr.h"
#include "loop/loop_int.h"

typedef struct cb_netwatch cb_netwatch;

/* Called from the loop some milliseconds after the first of a burst of changes: addresses added or removed, links up or
 * down, routes. It does not say which: ask what matters to you. */
typedef void (*cb_netwatch_fn)(void *user);

/* Keeps the loop alive, as every descriptor that is watched. CB_ESYS (no netlink here), CB_ENOMEM. */
int cb_netwatch_new(cb_netwatch **out, cb_loop *loop, cb_netwatch_fn fn, void *user);
void cb_netwatch_free(cb_netwatch *w); /* NULL is fine; also inside fn */

/* Is it (still) an address of this host? "Any" addresses always are, and those of a virtual loop. */
bool cb_net_has_address(cb_loop *loop, const cb_addr *at);
/* The local address that packets to `remote` leave from now, without a port. CB_EUNREACH: there is no route, or there
 * is one and no address yet (so it is for a moment when one address takes the place of another); CB_ENOTSUP: a virtual
 * loop, where nobody knows. */
int cb_net_source(cb_loop *loop, const cb_addr *remote, cb_addr *out);

#endif

/* What comes in on an extended CONNECT stream of HTTP/2 or HTTP/3: bytes for the user, or capsules, of which DATAGRAM
 * is taken out (RFC 9297). */
#ifndef CB_HTTP_TUNNEL_IN_H
#define CB_HTTP_TUNNEL_IN_H

#include "http/exchange.h"
#include "tunnel/capsule.h"

typedef struct cb_tunnel_in {
    cb_capsules capsules;
    cb_exchange *x;
    size_t passed;
} cb_tunnel_in;

/* Gives bytes to x. *passed: how many of them count as body, for which the user gives credit back; the rest has been
 * used up here. Results as of cb_exchange_in_body(). asked: the client's own request was for capsules. */
int cb_tunnel_in_feed(cb_tunnel_in **t, cb_exchange *x, bool asked, cb_slice bytes, size_t *passed);
int cb_tunnel_in_end(const cb_tunnel_in *t); /* CB_EPROTO: in the middle of a capsule. t may be NULL */
void cb_tunnel_in_free(cb_tunnel_in *t, const cb_alloc *alloc);
/* Does this protocol of extended CONNECT always use capsules? */
bool cb_tunnel_has_capsules(cb_slice protocol);

#endif

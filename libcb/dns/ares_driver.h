/* c-ares on our loop: its sockets as watches, its timeouts as an alarm. resolver.c keeps cache and waiting lookups. */
#ifndef CB_DNS_ARES_DRIVER_H
#define CB_DNS_ARES_DRIVER_H

#include "loop/loop_int.h"
#include <cb/resolver.h>

typedef struct cb_ares cb_ares;

/* The answer, from inside c-ares: only note it, and act at the end of the turn. at is valid during the call; ttl_s is
 * that of the record. On failure the detail of this thread is set; `lasting`: the name does not exist, as against a
 * server in trouble. */
typedef void (*cb_ares_fn)(int rc, bool lasting, const cb_host_address *at, size_t n, void *user);

int cb_ares_new(cb_ares **out, cb_loop *loop, const cb_resolver_opts *opts);
void cb_ares_ask(cb_ares *a, const char *name, int family, cb_ares_fn fn, void *user); /* fn may come at once */
void cb_ares_free(cb_ares *a); /* every question that is open gets CB_ECLOSED */

#endif

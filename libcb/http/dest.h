/* What earlier connections to an origin taught: which family and which transport came through, which addresses were
 * dead, and where else the origin serves (Alt-Svc). Bounded; times are given, nothing here reads a clock. */
#ifndef CB_HTTP_DEST_H
#define CB_HTTP_DEST_H

#include "base/addr.h"
#include "base/list.h"
#include "base/map.h"
#include "http/alt_svc.h"

enum { CB_DEST_ALTS = 3, CB_DEST_DEAD = 8, CB_DEST_MAX = 1024 };

/* What to expect of QUIC. */
enum cb_quic_hope {
    CB_QUIC_UNTRIED, /* nothing is known */
    CB_QUIC_WORKS,   /* it came through the last time */
    CB_QUIC_BROKEN,  /* it did not: not now */
    CB_QUIC_DUE      /* it did not, and enough time has passed to try it beside TCP */
};

typedef struct cb_dest_alt {
    cb_alt_value v;
    cb_time expires;
} cb_dest_alt;

typedef struct cb_dest {
    cb_list link; /* in cb_dests.order */
    unsigned pins;
    uint8_t family; /* 4 or 6: came through last; 0 = not known */
    bool quic_works;
    uint8_t quic_failures; /* in a row */
    cb_time family_until, broken_until;
    struct {
        cb_addr at;
        cb_time until;
    } dead[CB_DEST_DEAD];
    size_t next_dead;
    cb_dest_alt *alts; /* CB_DEST_ALTS when there was ever one, else NULL */
    size_t n_alts, key_len;
    uint8_t key[];
} cb_dest;

typedef struct cb_dests {
    cb_map map;
    cb_list order; /* least recently asked for first */
    const cb_alloc *alloc;
    cb_time first_delay; /* of the back-off after QUIC failed; doubles to at most an hour */
    size_t max;
} cb_dests;

void cb_dests_init(cb_dests *d, const cb_alloc *alloc, const uint8_t hash_key[16], cb_time first_delay);
void cb_dests_free(cb_dests *d);
/* Finds or makes, with a pin: what is pinned is never dropped. NULL: no memory. */
cb_dest *cb_dest_get(cb_dests *d, const void *key, size_t len);
void cb_dest_unpin(cb_dest *t); /* NULL is fine */
/* Another network: what was learned of the old one is void, alternatives without `persist` too (RFC 7838, 2.2). */
void cb_dests_network_changed(cb_dests *d);

int cb_dest_quic(const cb_dest *t, cb_time now); /* enum cb_quic_hope */
void cb_dest_quic_worked(cb_dest *t);
void cb_dest_quic_failed(cb_dest *t, const cb_dests *d, cb_time now);

void cb_dest_came_through(cb_dest *t, const cb_addr *at, cb_time now);
void cb_dest_went_dead(cb_dest *t, const cb_addr *at, cb_time now);
bool cb_dest_is_dead(const cb_dest *t, const cb_addr *at, cb_time now);
int cb_dest_family(const cb_dest *t, cb_time now); /* AF_INET, AF_INET6, or 0 */

/* One Alt-Svc field value; `more`: it adds to what a field line before it in the same response said. Malformed ones
 * change nothing. */
void cb_dest_alt_svc(cb_dest *t, const cb_dests *d, cb_slice value, bool more, cb_time now);
const cb_dest_alt *cb_dest_offer(cb_dest *t, cb_time now); /* the first that is fresh, or NULL */
/* It did not prove to be the origin, or said so itself (421). */
void cb_dest_alt_drop(cb_dest *t, const char *host, uint16_t port);

#endif

/* Answers to introspections by SHA-256 of the token, for all threads, and who is asking. Locks by itself. */
#ifndef CB_AUTH_INTROSPECT_CACHE_H
#define CB_AUTH_INTROSPECT_CACHE_H

#include "base/list.h"
#include "loop/bell.h"
#include <cb/oidc.h>

typedef struct cb_introspect_cache cb_introspect_cache;

/* One that asks: its bell rings when another one's answer came that it waits for. */
typedef struct cb_introspect_reader {
    cb_list link;
    cb_bell *bell;
} cb_introspect_reader;

enum cb_introspect_state {
    CB_INTROSPECT_MINE,   /* nobody knows: the caller asks now, and settles it */
    CB_INTROSPECT_BUSY,   /* another reader asks: the caller's bell will ring */
    CB_INTROSPECT_ACTIVE, /* *token is a reference for the caller */
    CB_INTROSPECT_INACTIVE,
    CB_INTROSPECT_FAILED /* a moment ago the provider did not answer: *rc, for a second */
};

/* 0: the defaults of cb_oidc_opts. CB_ENOMEM, CB_ETLS. */
int cb_introspect_cache_new(cb_introspect_cache **out, uint32_t max, uint32_t ttl_s, uint32_t inactive_ttl_s);
void cb_introspect_cache_free(cb_introspect_cache *c); /* NULL is fine */
void cb_introspect_cache_join(cb_introspect_cache *c, cb_introspect_reader *r);
/* What it was asking, others may ask. */
void cb_introspect_cache_leave(cb_introspect_cache *c, cb_introspect_reader *r);

enum cb_introspect_state cb_introspect_cache_look(cb_introspect_cache *c, const uint8_t sum[32],
                                                  const cb_introspect_reader *r, int64_t now_s, cb_jwt **token,
                                                  int *rc);
/* The answer to what was MINE: rc CB_OK with a token (referenced), CB_EAUTH: not active, or why there is none. */
void cb_introspect_cache_settle(cb_introspect_cache *c, const uint8_t sum[32], const cb_introspect_reader *r, int rc,
                                cb_jwt *token, int64_t now_s);
/* Nobody waits for what was MINE any more. */
void cb_introspect_cache_give_up(cb_introspect_cache *c, const uint8_t sum[32], const cb_introspect_reader *r);
void cb_introspect_cache_forget(cb_introspect_cache *c, cb_slice token); /* empty: all */
void cb_introspect_cache_count(cb_introspect_cache *c, cb_oidc_stats *stats);

#endif

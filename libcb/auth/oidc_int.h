/* A provider from the inside: what its readers on any thread share. */
#ifndef CB_AUTH_OIDC_INT_H
#define CB_AUTH_OIDC_INT_H

#include "auth/introspect_cache.h"
#include "auth/oidc_meta.h"
#include "http/fetch.h"
#include <pthread.h>

typedef struct cb_oidc_runner cb_oidc_runner;

struct cb_oidc {
    _Atomic uint32_t refs;
    struct cb_shown *shown; /* NULL: in no registry */
    cb_oidc_conf conf;
    cb_revocations *revocations; /* NULL: none */
    cb_introspect_cache *answers;
    pthread_mutex_t lock; /* guards all below */
    cb_oidc_meta *meta;
    cb_jwks *keys;
    cb_oidc_runner *runner; /* NULL: no loop fetches */
    uint64_t fetches, failures, rotations, misses;
    int64_t good_at_s, failed_at_s;
    char error[512];
};

/* References, or NULL. */
cb_oidc_meta *cb_oidc_meta_get(cb_oidc *o);
/* What somebody who is not the runner has learned: taken when there is none. */
void cb_oidc_meta_offer(cb_oidc *o, cb_oidc_meta *meta);
/* Fills an answer from an exchange. */
void cb_oidc_answer_of(cb_oidc_answer *out, cb_exchange *x, const cb_fetch *fetch);

#endif

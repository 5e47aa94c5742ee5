/* A set of keys from the inside. */
#ifndef CB_AUTH_JWKS_H
#define CB_AUTH_JWKS_H

#include "auth/jwk.h"
#include "base/map.h"

struct cb_jwks {
    _Atomic uint32_t refs;
    uint32_t len;
    cb_jwk *keys;
    char **notes;
    size_t notes_len;
};

/* Is the key that print stands for in the set? */
bool cb_jwks_holds(const cb_jwks *set, const uint8_t print[32]);
/* A set of the public keys of all n sets; of those with one name and algorithm, the first. The notes are those of the
 * first set. CB_ENOMEM. */
int cb_jwks_union(cb_jwks **out, cb_jwks *const *sets, size_t n);
/* Do both have the same keys, by name too? */
bool cb_jwks_same(const cb_jwks *a, const cb_jwks *b);

#endif

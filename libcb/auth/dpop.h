/* A DPoP proof (RFC 9449 4.2), read and judged but for what a server remembers. */
#ifndef CB_AUTH_DPOP_H
#define CB_AUTH_DPOP_H

#include "auth/jwt.h"

enum { CB_DPOP_URL_BYTES = 2048, CB_DPOP_TEXT_BYTES = 256 };

typedef struct cb_dpop_proof {
    char jkt[CB_DPOP_JKT_BYTES];
    char jti[CB_DPOP_TEXT_BYTES + 1], nonce[CB_DPOP_TEXT_BYTES + 1]; /* nonce "": none */
    double iat;
} cb_dpop_proof;

/* 4.3 without nonce and replay. */
int cb_dpop_read(cb_dpop_proof *out, const cb_dpop_request *r, uint32_t window_s, uint32_t leeway_s, int32_t *reason);
/* The two steps of cb_dpop_verify(), for those who judge the token between them: a proof for a token that is not good
 * must not use up memory. The second one is nonce and replay. */
int cb_dpop_look(const cb_dpop *d, cb_dpop_proof *out, const cb_dpop_request *r, int32_t *reason);
int cb_dpop_remember(cb_dpop *d, const cb_dpop_proof *p, int64_t now_s, int32_t *reason);
/* RFC 3986 6.2.2 and 6.2.3, without query and fragment; into CB_DPOP_URL_BYTES. CB_EINVAL: no URL of http. */
int cb_dpop_url(char *out, const char *url);

#endif

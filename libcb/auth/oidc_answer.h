/* Reading what token, device and introspection endpoints answer. */
#ifndef CB_AUTH_OIDC_ANSWER_H
#define CB_AUTH_OIDC_ANSWER_H

#include "auth/jwt.h"
#include "auth/oidc_meta.h"

/* An OAuth error (RFC 6749 5.2): error gets its code, or "". CB_EAUTH with its words; CB_OK: the answer is no error. */
int cb_oidc_error_read(const cb_oidc_answer *a, const char *what, char error[64]);
/* A good token answer (RFC 6749 5.1). What *out points to lives as long as *j, which is to be closed. CB_EPROTO. */
int cb_oidc_tokens_read(cb_oidc_tokens *out, cb_json *j, const cb_oidc_answer *a, int64_t now_s);
/* A device answer (RFC 8628 3.2); likewise. */
int cb_oidc_device_read(cb_oidc_device *out, const char **code, uint32_t *interval_s, cb_json *j,
                        const cb_oidc_conf *conf, const cb_oidc_answer *a, int64_t now_s);
/* An introspection (RFC 7662 2.2): CB_OK with a token; CB_EAUTH with a reason: not active, or of another issuer. */
int cb_oidc_active_read(cb_jwt **out, const cb_oidc_conf *conf, const cb_oidc_answer *a, int32_t *reason);
/* What an ID token must answer to. */
typedef struct cb_oidc_asked {
    const char *nonce;  /* NULL: none was sent */
    uint32_t max_age_s; /* 0: auth_time is not judged */
} cb_oidc_asked;

/* Judges an ID token (OpenID Connect Core 3.1.3.7): issuer, aud, azp, times, nonce, auth_time, at_hash. */
int cb_oidc_identity_check(cb_jwt **out, const cb_oidc_conf *conf, const cb_jwks *keys, const cb_oidc_tokens *tokens,
                           const cb_oidc_asked *asked, int64_t now_s, int32_t *reason);

#endif

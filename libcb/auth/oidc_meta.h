/* What a provider says of itself (OpenID Connect Discovery 3, RFC 8414 2), and what we were told of it. */
#ifndef CB_AUTH_OIDC_META_H
#define CB_AUTH_OIDC_META_H

#include "auth/json.h"
#include <cb/oidc.h>

enum { CB_OIDC_ENDPOINTS = CB_OIDC_END_SESSION + 1, CB_OIDC_URL_BYTES = 1024, CB_OIDC_ANSWER_BYTES = 262144 };

/* The options of a provider: never change. */
typedef struct cb_oidc_conf {
    char *issuer, *client_id, *client_secret, *assertion_aud;
    cb_jwt_signer *client_key;
    int32_t client_auth; /* enum cb_oidc_auth, not DEFAULT */
    uint32_t timeout_ms;
    int64_t refresh_ms, grace_ms, stale_ms;
    uint32_t seed; /* of jitter */
    bool other_hosts, loopback_http;
} cb_oidc_conf;

/* Immutable, shared by reference. */
typedef struct cb_oidc_meta {
    _Atomic uint32_t refs;
    char *endpoints[CB_OIDC_ENDPOINTS]; /* NULL: none */
    bool iss_parameter;                 /* authorization answers have iss (RFC 9207 3) */
    bool no_s256;                       /* says which challenges it knows, and S256 is not among them */
} cb_oidc_meta;

/* An answer: what the readers look at. Fields that are not there are empty. */
typedef struct cb_oidc_answer {
    int status;
    cb_slice content_type, cache_control, age, etag;
    int64_t retry_ms; /* Retry-After: after how long; 0: nothing is said */
    cb_slice body;
} cb_oidc_answer;

/* CB_EINVAL with the detail unless url may be an issuer: https (or http to loopback where that is allowed), and neither
 * query nor fragment. */
int cb_oidc_issuer_check(const char *url, bool loopback_http);
/* CB_EPROTO unless url may be asked: as that, and of the issuer's origin unless other_hosts. */
int cb_oidc_url_check(const cb_oidc_conf *conf, const char *url, const char *what);
/* Where the document is: OpenID Connect Discovery 4, or (alt) RFC 8414 3. out: CB_OIDC_URL_BYTES + 1. */
int cb_oidc_discovery_url(const cb_oidc_conf *conf, bool alt, char *out);
/* Reads an answer to that. CB_EPROTO, CB_ENOMEM. */
int cb_oidc_meta_read(cb_oidc_meta **out, const cb_oidc_conf *conf, const cb_oidc_answer *a);
cb_oidc_meta *cb_oidc_meta_ref(cb_oidc_meta *m);
void cb_oidc_meta_unref(cb_oidc_meta *m); /* NULL is fine */

/* CB_OK for a status of 200 and JSON; else CB_EPROTO, CB_EAUTH (4xx), CB_ELIMIT (429) or CB_EUNREACH (5xx). */
int cb_oidc_answer_check(const cb_oidc_answer *a, const char *what);
/* Opens the body as one JSON object; CB_EPROTO. */
int cb_oidc_open(cb_json *j, const cb_oidc_answer *a, const char *what);
/* Reads the keys of an answer: CB_EPROTO also when not one of them can be used. */
int cb_oidc_keys_read(cb_jwks **out, const cb_oidc_answer *a);

#endif

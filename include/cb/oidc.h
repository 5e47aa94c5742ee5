/* cb/oidc.h - a client of OpenID Connect and OAuth 2.0 providers: the keys that verify their tokens, introspection,
 * grants, token sources, logins and revocation (OpenID Connect Core and Discovery, RFC 6749, 6750, 7009, 7521, 7523,
 * 7636, 7662, 8414, 8628, 8705, 9207).
 *
 * A server that checks tokens: one cb_oidc a provider, shared by all workers; one loop keeps it fresh.
 *
 *   cb_oidc_new(&provider, CB_OPTS(cb_oidc_opts, .issuer = "https://id.example.org"));
 *   cb_oidc_run(provider, loop, client);                       // on one loop
 *   rc = cb_oidc_verify(provider, cache, &token, text, &rules, &facts, &reason); // any thread, never waits
 *
 * cb_oidc_verify() gives CB_EAGAIN until there are keys, and CB_EAUTH with a reason for a token that is not good. For
 * opaque tokens each worker makes a cb_introspector with the HTTP client of its loop, and asks cb_introspect(), which
 * knows the answer at once (CB_OK, CB_EAUTH) or calls back (CB_EAGAIN). The answer is a cb_jwt: judge it with
 * cb_jwt_check() and the rules of the route, as a verified token. At the end: free introspectors, cb_oidc_stop() before
 * its loop or client go, cb_oidc_unref().
 *
 * The provider is trusted for what it says of its users, and for nothing else: every URL must be https (http to a
 * loopback address only with `loopback_http`) and of the issuer's origin unless `other_hosts` is set, redirects are not
 * followed, answers are bounded in size and time, read strictly, and must be of the right content type. */
#ifndef CB_OIDC_H
#define CB_OIDC_H

#include <cb/auth.h>
#include <cb/http.h>

CB_BEGIN

/* ---- the provider ---- */

/* What is known of a provider. Shared by reference; thread-safe but for cb_oidc_run() and cb_oidc_stop(). */
typedef struct cb_oidc cb_oidc;

/* How we show the provider who we are (RFC 6749 2.3, OpenID Connect Core 9). */
enum cb_oidc_auth {
    CB_OIDC_AUTH_DEFAULT = 0, /* private_key_jwt with a client_key, client_secret_basic with a secret, else none */
    CB_OIDC_AUTH_NONE = 1,    /* a public client: client_id alone */
    CB_OIDC_AUTH_BASIC = 2,   /* client_secret_basic */
    CB_OIDC_AUTH_POST = 3,    /* client_secret_post */
    CB_OIDC_AUTH_KEY = 4,     /* private_key_jwt (RFC 7523 2.2) */
    CB_OIDC_AUTH_TLS = 5      /* tls_client_auth (RFC 8705 2): the certificate is that of the HTTP client's identity */
};

typedef struct cb_oidc_opts {
    size_t size;
    const char *issuer;          /* exactly as in its tokens; required */
    const char *client_id;       /* for introspection, grants, logins and revocation; NULL = only keys are wanted */
    const char *client_secret;   /* NULL = none */
    cb_jwt_signer *client_key;   /* referenced; of private_key_jwt; NULL = none */
    const char *assertion_aud;   /* aud of private_key_jwt and JWT-bearer assertions; NULL = the issuer */
    cb_revocations *revocations; /* referenced; judged at each introspection, also of what is remembered; NULL = none */
    int32_t client_auth;         /* enum cb_oidc_auth */
    uint32_t refresh_s;        /* keys are fetched this often, and earlier when Cache-Control asks for it. Keep it below
                                * the time in which the provider publishes a new key before using it. 0 = 300, at most
                                * 86,400 */
    uint32_t grace_s;          /* a key that is no longer published verifies so much longer; 0 = 300 */
    uint32_t stale_s;          /* while the provider cannot be reached its keys stay so long; 0 = 86,400 */
    uint32_t timeout_ms;       /* of a request; 0 = 10,000 */
    uint32_t introspect_ttl_s; /* an active answer is remembered so long, never beyond its exp; 0 = 60, at most 3,600 */
    uint32_t inactive_ttl_s;   /* one that is not active; 0 = 10, at most 3,600 */
    uint32_t introspect_max;   /* how many answers are remembered; 0 = 16,384 */
    uint8_t no_grace;          /* 1: a key that is no longer published is not taken at once */
    uint8_t other_hosts;       /* 1: endpoints may be on other https hosts than the issuer */
    uint8_t loopback_http;     /* 1: http is taken for 127.0.0.0/8, ::1 and localhost: for tests and local agents */
    uint8_t reserved;
    uint32_t reserved2;
} cb_oidc_opts;

/* Nothing is sent. CB_EINVAL (out; the detail names the field), CB_ENOMEM, CB_E2BIG, CB_ETLS (no random bytes). */
CB_API int cb_oidc_new(cb_oidc **out, const cb_oidc_opts *opts);
CB_API cb_oidc *cb_oidc_ref(cb_oidc *o);
/* NULL is fine. The last one does what cb_oidc_stop() does, and then must be on that loop's thread. */
CB_API void cb_oidc_unref(cb_oidc *o);

/* From now on this loop fetches: discovery (OpenID Connect Discovery 4; where that is not found, RFC 8414), then the
 * keys (RFC 7517), again and again. Failures are tried again after 1 s, then after twice as long up to 60 s, or when
 * Retry-After says; meanwhile what is known stays. Keeps cb_loop_run() going. client is borrowed. CB_EINVAL (o, loop,
 * client), CB_EEXIST (a loop does that already), CB_ESYS, CB_ENOMEM, CB_ENOTSUP (a loop of a simulation). */
CB_API int cb_oidc_run(cb_oidc *o, cb_loop *loop, cb_http_client *client);
/* Ends that, on the loop's thread, before the client and the loop are freed. What is known stays. Nothing runs: fine.
 */
CB_API void cb_oidc_stop(cb_oidc *o);

CB_API const char *cb_oidc_issuer(const cb_oidc *o);
/* The keys that verify now, with a reference for the caller; NULL: none yet, or stale_s has passed. */
CB_API cb_jwks *cb_oidc_keys(cb_oidc *o);
/* A token names a key that is not there: fetches the keys when the last fetch was 10 s ago or more, else when these
 * are over. cb_oidc_verify() does this by itself. */
CB_API void cb_oidc_miss(cb_oidc *o);
/* As cb_jwt_cache_verify() (cache NULL: cb_jwt_verify()) with the provider's keys. rules->issuer NULL: the provider's.
 * CB_EAGAIN: there are no keys (yet): answer 503, not 401. */
CB_API int cb_oidc_verify(cb_oidc *o, cb_jwt_cache *cache, cb_jwt **out, cb_slice token, const cb_jwt_rules *rules,
                          const cb_jwt_facts *facts, int32_t *reason);

enum cb_oidc_endpoint {
    CB_OIDC_AUTHORIZATION = 0,
    CB_OIDC_TOKEN = 1,
    CB_OIDC_JWKS = 2,
    CB_OIDC_INTROSPECTION = 3,
    CB_OIDC_REVOCATION = 4,
    CB_OIDC_DEVICE = 5,
    CB_OIDC_USERINFO = 6,
    CB_OIDC_END_SESSION = 7
};
/* Writes the URL of an endpoint (cap bytes with its NUL; 1,025 are always enough) and returns its length. CB_EAGAIN:
 * nothing was discovered yet; CB_ENOENT: the provider has none; CB_ELIMIT (cap), CB_EINVAL (endpoint, out). */
CB_API int64_t cb_oidc_endpoint(cb_oidc *o, int endpoint, char *out, size_t cap);

typedef struct cb_oidc_stats {
    size_t size;         /* set by the caller */
    uint64_t fetches;    /* of keys: answered well, unchanged ones too */
    uint64_t failures;   /* of discovery and keys */
    uint64_t rotations;  /* fetches that changed the keys */
    uint64_t misses;     /* tokens with an unknown key */
    uint64_t keys;       /* that verify now, with those in their grace time */
    int64_t good_at_s;   /* when keys last came, seconds since 1970; 0 = never */
    int64_t failed_at_s; /* the last failure; 0 = never */
    uint64_t introspections, introspect_hits, introspect_failures; /* asked the provider; remembered; not answered */
    uint64_t introspect_kept;                                      /* answers that are remembered now */
} cb_oidc_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_oidc_stats_get(cb_oidc *o, cb_oidc_stats *out);
/* Shows its statistics in a registry from now on, as the families cb_oidc_* of docs/metrics.md with this
 * value of their label "name" (NULL = ""), until it is freed. Once. CB_EINVAL, CB_EEXIST, CB_ENOMEM. */
CB_API int cb_oidc_metrics(cb_oidc *o, cb_metrics *m, const char *name);
/* Copies why the last fetch failed (cut to cap with its NUL); "" when the last one was good. Returns its length. */
CB_API size_t cb_oidc_error(cb_oidc *o, char *out, size_t cap);

/* ---- introspection (RFC 7662) ---- */

/* Asks a provider about tokens, on one loop. Answers are remembered in the cb_oidc, for all of its introspectors; of
 * one token at most one question is under way at a time, whoever asks. */
typedef struct cb_introspector cb_introspector;
/* A question that waits for its answer. */
typedef struct cb_introspection cb_introspection;

/* CB_OK: the token is active; `token` has the answer's claims, borrowed for the call. CB_EAUTH: it is not (reason:
 * CB_JWT_INACTIVE), or it was revoked (CB_JWT_REVOKED), or the answer is of another issuer (CB_JWT_ISSUER). Other
 * codes: the provider did not answer well; the detail tells. The question is over and its handle dead. */
typedef void (*cb_introspect_fn)(int rc, cb_jwt *token, int32_t reason, void *user);

typedef struct cb_introspector_opts {
    size_t size;
    cb_oidc *provider;      /* referenced; with a client_id; required */
    cb_http_client *client; /* of the same loop; borrowed; required */
    uint32_t max_waiting;   /* questions that wait; 0 = 4,096 */
    uint32_t max_requests;  /* to the provider at a time; 0 = 64 */
} cb_introspector_opts;

/* CB_EINVAL (out, loop; the detail names the field), CB_ESYS, CB_ENOMEM, CB_E2BIG, CB_ENOTSUP (a loop of a simulation).
 * Keeps cb_loop_run() going. */
CB_API int cb_introspector_new(cb_introspector **out, cb_loop *loop, const cb_introspector_opts *opts);
/* Questions that wait end without a call. NULL is fine. */
CB_API void cb_introspector_free(cb_introspector *in);

/* Is this token active? CB_OK: yes, *token is the caller's reference. CB_EAUTH: no, *reason (may be NULL) says why, as
 * above. CB_EAGAIN: `done` will be called on the loop's thread, not before this returns, once; *ask (may be NULL) can
 * cancel that. exp, nbf and revocations are judged here; the rest of the claims, such as audience and scope, by
 * cb_jwt_check() with `typ` NULL and, where the provider tells neither, `any_audience` and `exp_optional`; an answer
 * without iss counts as the provider's. CB_EINVAL (an empty token, or more than 8,192 bytes, or bytes that no bearer
 * token has: RFC 6750 2.1), CB_ELIMIT (max_waiting), CB_ENOMEM. */
CB_API int cb_introspect(cb_introspector *in, cb_introspection **ask, cb_slice text, int64_t now_s, cb_jwt **token,
                         int32_t *reason, cb_introspect_fn done, void *user);
CB_API void cb_introspection_cancel(cb_introspection *ask); /* NULL is fine */

/* Forgets the answer about one token, or (empty slice) all of them: the next cb_introspect() asks. */
CB_API void cb_oidc_forget(cb_oidc *o, cb_slice token);

/* ---- grants, and giving tokens back ---- */

/* What a token endpoint answered (RFC 6749 5.1); valid during the call. What it did not say is 0 or NULL. Filled by the
 * library. */
typedef struct cb_oidc_tokens {
    size_t size;
    const char *access_token;
    const char *token_type; /* "Bearer" or "DPoP", in the provider's spelling */
    const char *refresh_token;
    const char *id_token;
    const char *scope;    /* NULL: what was asked for */
    cb_jwt *identity;     /* id_token, verified (OpenID Connect Core 3.1.3.7); keep it by cb_jwt_ref() */
    int64_t expires_at_s; /* of access_token, seconds since 1970 */
    int64_t received_at_s;
} cb_oidc_tokens;

/* What the person is to see in a device flow (RFC 8628 3.2); valid during the call. Filled by the library. */
typedef struct cb_oidc_device {
    size_t size;
    const char *url;          /* where to go */
    const char *user_code;    /* what to type there */
    const char *url_complete; /* both in one, such as for a QR code; NULL = there is none */
    int64_t expires_at_s;
} cb_oidc_device;

enum cb_oidc_request_type {
    CB_OIDC_CLIENT_CREDENTIALS = 1, /* RFC 6749 4.4 */
    CB_OIDC_JWT_BEARER = 2,         /* RFC 7523 2.1, also the service accounts of Zitadel */
    CB_OIDC_CODE = 3,               /* RFC 6749 4.1.3 with PKCE, RFC 7636 */
    CB_OIDC_REFRESH = 4,            /* RFC 6749 6 */
    CB_OIDC_DEVICE_CODE = 5,        /* RFC 8628 */
    CB_OIDC_REVOKE = 6              /* RFC 7009: tokens is NULL in done; the token is forgotten by introspection, too */
};

typedef struct cb_oidc_request cb_oidc_request;

typedef struct cb_oidc_request_opts {
    size_t size;
    cb_oidc *provider;      /* referenced; required */
    cb_http_client *client; /* borrowed; required */
    const char *scope;      /* parted by spaces; NULL = none is sent */
    const char *audience;   /* what some providers want to know beside the scope; NULL = none */
    const char *resource;   /* RFC 8707; NULL = none */
    const char *code;       /* CODE: all four come from cb_oidc_login */
    const char *redirect_uri;
    const char *verifier;
    const char *nonce;
    const char *token;      /* REFRESH: the refresh token; REVOKE: what is to be revoked */
    const char *token_hint; /* REVOKE: "access_token" or "refresh_token"; NULL = none is sent */
    cb_jwt_signer *key;     /* JWT_BEARER: signs the assertion; referenced */
    const char *subject;    /* JWT_BEARER: iss and sub of the assertion */
    /* DEVICE_CODE: the person is to see this, while the request waits for them. Required there. */
    void (*on_device)(cb_oidc_request *r, const cb_oidc_device *device, void *user);
    int32_t type;       /* enum cb_oidc_request_type; required */
    uint32_t max_age_s; /* CODE: the ID token's auth_time is not older; 0 = not judged */
} cb_oidc_request_opts;

/* The request is over. rc: CB_OK, then tokens has what came. CB_EAUTH: the provider refuses, and `error` has its code,
 * such as "invalid_grant" (RFC 6749 5.2), or "" (then an ID token was not good); CB_ETIMEOUT, CB_ENOTSUP (the provider
 * has no such endpoint), CB_EPROTO (an answer that breaks the protocol), CB_ELIMIT (429), CB_EUNREACH (5xx), or what
 * requests of the client give. The detail is in cb_last_error(). May free r. */
typedef void (*cb_oidc_request_fn)(cb_oidc_request *r, int rc, const cb_oidc_tokens *tokens, const char *error,
                                   void *user);

/* Starts a request; `done` comes once, not inside this call, unless it is freed before. It discovers the endpoints when
 * nobody has yet. What may be sent twice is tried up to three times; codes and refresh tokens are not. CB_EINVAL (out,
 * loop; the detail names what is missing), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_oidc_request_start(cb_oidc_request **out, cb_loop *loop, const cb_oidc_request_opts *opts,
                                 cb_oidc_request_fn done, void *user);
/* Also after it is over, and inside its callbacks. NULL is fine. */
CB_API void cb_oidc_request_free(cb_oidc_request *r);

/* Reads a key file of a Zitadel service account ({"type":"serviceaccount","keyId","key","userId"}) or application
 * ("application", with clientId). *key is the caller's reference; id (cap bytes with its NUL; 256 are enough) gets who
 * it is. Returns the type of request that it is for: CB_OIDC_JWT_BEARER, where key and id are its `key` and `subject`;
 * or CB_OIDC_CLIENT_CREDENTIALS, where they are the client_key and client_id of cb_oidc_opts. CB_EINVAL (the detail
 * says what), CB_ELIMIT (cap), CB_ENOMEM. */
CB_API int cb_oidc_account_read(cb_jwt_signer **key, char *id, size_t cap, cb_slice json);

/* ---- logins: authorization code with PKCE (RFC 6749 4.1, RFC 7636, OpenID Connect Core 3.1) ---- */

/* One login of one person: state, nonce and verifier are random, the challenge is S256. Never changes; keep it where
 * the browser that began finds it again, such as under a cookie of that browser. Thread-safe. */
typedef struct cb_oidc_login cb_oidc_login;

typedef struct cb_oidc_login_opts {
    size_t size;
    const char *redirect_uri; /* where the browser comes back to, exactly as the provider knows it; required */
    const char *scope;        /* NULL = "openid"; without openid in it there is no ID token, and none is asked for */
    const char *prompt;       /* such as "login" or "select_account"; NULL = none is sent */
    const char *login_hint;   /* NULL = none */
    const char *acr_values;   /* NULL = none */
    const char *resource;     /* RFC 8707; NULL = none */
    uint32_t max_age_s;       /* the person must have shown who they are within so long; 0 = no limit */
    uint32_t reserved;
} cb_oidc_login_opts;

/* CB_EAGAIN: the provider was not discovered yet; CB_ENOTSUP: it has no authorization endpoint, or no S256; CB_EINVAL
 * (out, o without a client_id; the detail names the field), CB_ETLS (no random bytes), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_oidc_login_new(cb_oidc_login **out, cb_oidc *o, const cb_oidc_login_opts *opts);
CB_API void cb_oidc_login_free(cb_oidc_login *l);               /* NULL is fine */
CB_API const char *cb_oidc_login_url(const cb_oidc_login *l);   /* send the browser there (302 or 303) */
CB_API const char *cb_oidc_login_state(const cb_oidc_login *l); /* what `state` of the answer will be */
/* The browser came back with this query (what is behind "?"): fills code, redirect_uri, verifier, nonce, max_age_s and
 * type of *request, which live as long as l and the next call for it; provider, client and size are the caller's.
 * CB_EAUTH: the state is another, the answer comes from another issuer (RFC 9207), or the provider says an error such
 * as access_denied: error (64 bytes, may be NULL) gets its code, else "". CB_EPROTO: no code, or a parameter twice;
 * CB_ENOMEM. */
CB_API int cb_oidc_login_answer(cb_oidc_login *l, cb_slice query, cb_oidc_request_opts *request, char *error);

/* ---- a token that is always good ---- */

/* Keeps an access token on one loop: asks for one, and for the next after 80 % of its lifetime (less up to a tenth of
 * it, by chance). Failures are tried again after 1 s, then after twice as long up to 60 s; the token that is there
 * stays until it expires. */
typedef struct cb_token_source cb_token_source;

typedef struct cb_token_source_opts {
    size_t size;
    /* CLIENT_CREDENTIALS, JWT_BEARER or REFRESH (whose new refresh tokens take the place of the old one); copied. */
    const cb_oidc_request_opts *request;
    /* A token came (rc CB_OK; tokens is valid during the call: a refresh token is to be kept by whoever wants to go on
     * with it later), or an attempt failed. May free s. NULL = nobody is told. */
    void (*on_token)(cb_token_source *s, int rc, const cb_oidc_tokens *tokens, void *user);
    void *user;
    uint32_t lifetime_s; /* of tokens whose answer does not say it; 0 = 300 */
    uint32_t reserved;
} cb_token_source_opts;

/* Errors as cb_oidc_request_start(). Keeps cb_loop_run() going. */
CB_API int cb_token_source_new(cb_token_source **out, cb_loop *loop, const cb_token_source_opts *opts);
CB_API void cb_token_source_free(cb_token_source *s); /* on its loop's thread. NULL is fine */
/* Copies the token (cap bytes with its NUL) and returns its length; *expires_s (may be NULL) gets when it expires. Any
 * thread, while s exists. CB_EAGAIN: there is none (yet), or it has expired: the detail says why; CB_ELIMIT (cap),
 * CB_EINVAL (s, out). */
CB_API int64_t cb_token_source_get(cb_token_source *s, char *out, size_t cap, int64_t *expires_s);

CB_END
#endif

/* cb/authn.h - who sends a request: bearer tokens, client certificates and API keys, combined to a gate.
 *
 * A source knows one kind of credential and whose it is. A gate (cb_authn) names the sources of which one, or all, must
 * agree, and what the identity must have: a tenant, scopes, roles. Both are made once, never change, and are shared by
 * threads; to reload, make others. Each request takes a cb_authn_call, which belongs to one thread and is used again:
 *
 *   cb_authn_source_jwt(&staff, CB_OPTS(cb_authn_jwt_opts, .name = "staff", .keys = keys, .rules = &rules));
 *   cb_authn_new(&gate, CB_OPTS(cb_authn_opts, .sources = &staff, .n_sources = 1, .realm = "api"));
 *   ...
 *   cb_authn_request_of(&request, x, now_s);
 *   int rc = cb_authn_begin(call, gate, &request, NULL, NULL);
 *   if (rc == CB_EAUTH) return cb_exchange_send(x, cb_authn_status(call), cb_authn_challenges(call, &n), n, nothing);
 *
 * What is refused, and with which challenge: RFC 6750 (Bearer), RFC 9449 (DPoP), RFC 8705 (tokens bound to a
 * certificate). Tokens are taken from the field Authorization only. A credential that is sent in a field which the gate
 * reads, and that no source of the gate takes, refuses the request, also when another one is good. A client certificate
 * accompanies every request of a connection, so one that is not wanted is no offence. */
#ifndef CB_AUTHN_H
#define CB_AUTHN_H

#include <cb/auth.h>
#include <cb/http.h>
#include <cb/oidc.h>
#include <cb/peer.h>

CB_BEGIN

typedef struct cb_authn_source cb_authn_source;
typedef struct cb_authn cb_authn;
typedef struct cb_authn_call cb_authn_call;

/* The kind of a source. */
enum cb_authn_kind {
    CB_AUTHN_JWT = 1,     /* signed tokens */
    CB_AUTHN_TOKEN = 2,   /* opaque tokens that somebody else knows: introspection (RFC 7662), or a lookup of yours */
    CB_AUTHN_MTLS = 3,    /* the client's certificate */
    CB_AUTHN_API_KEY = 4, /* keys of cb_api_keys */
    CB_AUTHN_KINDS = 5    /* one more than the last */
};

/* "jwt", "token", "mtls", "api_key". Never NULL; static. */
CB_API const char *cb_authn_kind_text(int kind);

/* Where an identity's parts stand in the claims of a source. Paths are those of cb_jwt_claim(). */
typedef struct cb_authn_claims {
    size_t size;
    const char *subject; /* NULL = "sub". An identity without a subject is refused */
    const char *tenant; /* NULL = none: then, unless tenant_is is set, identities have no tenant. There is no default */
    const char *tenant_is; /* every identity of this source belongs to this tenant; not together with `tenant` */
    const char *roles;     /* a text is one role, a list has several, and so has an object, whose members' names they
                            * are (urn:zitadel:iam:org:project:roles); NULL = none */
} cb_authn_claims;

/* ---- sources: immutable, reference counted, thread-safe ---- */

typedef struct cb_authn_jwt_opts {
    size_t size;
    const char *name;          /* for logs; required */
    cb_jwks *keys;             /* referenced; this or provider is required */
    const cb_jwt_rules *rules; /* copied, revocations referenced; required. With a provider, issuer NULL is its own */
    cb_jwt_cache *cache;       /* referenced; share one by all sources of a process; NULL = one of its own */
    cb_dpop *dpop;             /* referenced; NULL = the scheme DPoP is not taken, and neither are tokens bound to
                                * a key. Workers of a process, and its reloads, must share one */
    const cb_authn_claims *claims; /* copied; NULL = defaults */
    int32_t need_dpop;             /* 1: the scheme Bearer is not taken */
    uint32_t reserved;
    cb_oidc *provider; /* referenced: the keys that it publishes at the time of each request; some loop must run it */
} cb_authn_jwt_opts;

/* CB_EINVAL (out; the detail names the field), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_authn_source_jwt(cb_authn_source **out, const cb_authn_jwt_opts *opts);

/* Who knows opaque tokens. Called on the threads of the calls. */
typedef struct cb_authn_token_ops {
    size_t size;
    /* Looks up a token, which is valid during the call. CB_EAGAIN: cb_authn_answer() follows, on this thread and not
     * within this call. All else answers at once: CB_OK (after cb_authn_answer() with the claims, within this call),
     * CB_EAUTH (not good), other errors (not known now: 503). Required. */
    int (*look)(cb_authn_call *call, cb_slice token, void *user);
    /* A call that waits is not interested any more: no answer may follow. Required if look() ever gives CB_EAGAIN. */
    void (*cancel)(cb_authn_call *call, void *user);
    /* The last reference is gone. */
    void (*release)(void *user);
} cb_authn_token_ops;

typedef struct cb_authn_token_opts {
    size_t size;
    const char *name;              /* required */
    const cb_authn_token_ops *ops; /* borrowed; required */
    void *user;
    const cb_authn_claims *claims; /* copied; NULL = defaults */
    cb_revocations *revocations;   /* referenced; NULL = none. By the claims iss (else the source's name), jti, sub */
} cb_authn_token_opts;

/* Bearer tokens that `ops` knows. CB_EINVAL, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_authn_source_token(cb_authn_source **out, const cb_authn_token_opts *opts);
/* The answer to look(): CB_OK with the claims, one JSON object (copied); CB_EAUTH; or why it is not known. Claims that
 * cannot be read are not known either; a cnf that the request does not meet (x5t#S256; jkt never does), an exp that is
 * past and an nbf to come are refused. */
CB_API void cb_authn_answer(cb_authn_call *call, int rc, cb_slice claims);
/* Whatever the owner of a source keeps with a call that waits. */
CB_API void cb_authn_call_keep(cb_authn_call *call, void *kept);
CB_API void *cb_authn_call_kept(const cb_authn_call *call);

/* Opaque tokens, about which a provider is asked (RFC 7662); its answers are remembered, see cb_oidc_opts. */
typedef struct cb_authn_introspect_opts {
    size_t size;
    const char *name;          /* required */
    cb_oidc *provider;         /* referenced; with a client_id; some loop must run it; required */
    const cb_jwt_rules *rules; /* copied, for the claims of an answer: typ NULL, and any_audience or exp_optional where
                                * the provider tells neither; issuer NULL is the provider's; required */
    cb_identity *identity;     /* referenced: trust roots for the provider; NULL = the system's */
    const char *resolver;      /* DNS servers; copied; NULL = the system's */
    const cb_authn_claims *claims; /* copied; NULL = defaults */
} cb_authn_introspect_opts;

/* Its calls must be made with a cb_authn_worker. Bearer only. CB_EINVAL, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_authn_source_introspect(cb_authn_source **out, const cb_authn_introspect_opts *opts);

/* What of a certificate is the subject. */
enum cb_authn_name {
    CB_AUTHN_NAME_ANY = 0,    /* the first that there is, in the order below */
    CB_AUTHN_NAME_SPIFFE = 1, /* the SPIFFE ID */
    CB_AUTHN_NAME_URI = 2,    /* the first URI, of a certificate without a SPIFFE ID */
    CB_AUTHN_NAME_EMAIL = 3,
    CB_AUTHN_NAME_DNS = 4,
    CB_AUTHN_NAME_CN = 5 /* the common name, of a certificate without the names above only (RFC 9525, 2) */
};

typedef struct cb_authn_mtls_opts {
    size_t size;
    const char *name; /* required */
    /* Certificates have these claims, as cb/peer.h reads them: sub, spiffe_id, cn, subject, issuer, serial, sha256
     * (hexadecimal) and, as lists, uri, dns, email, ip; iat and exp are its dates. */
    const cb_authn_claims *claims; /* copied; NULL = defaults */
    cb_revocations *revocations;   /* referenced; NULL = none. By the source's name, the serial number, the subject */
    int32_t subject;               /* enum cb_authn_name */
    uint32_t reserved;
} cb_authn_mtls_opts;

/* Certificates that the TLS layer has verified. CB_EINVAL, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_authn_source_mtls(cb_authn_source **out, const cb_authn_mtls_opts *opts);

/* ---- API keys ----
 *
 * A key is "cbk_" ID "_" SECRET: 12 and 43 characters of base64url without "-" and "_" in the ID. A file holds lines,
 * one JSON object each, with the members key (the ID), hash (HMAC-SHA-256 of the whole key, hexadecimal), sub, and, as
 * you like, tenant, roles, iat, exp (seconds since 1970) and others: claims of the identity. Empty lines and lines that
 * begin with # are skipped. The HMAC's key (32 bytes) is another file: who gets one of the two has nothing. */
typedef struct cb_api_keys cb_api_keys;

enum { CB_API_KEY_HASH_BYTES = 32, CB_API_KEYS_MAX = 65536 };

/* Reads both files; blocks. With `make`, a hash_key_file that is absent is made with mode 0600. CB_EINVAL (the line and
 * what is wrong with it; the hash key has not 32 bytes, or others may read it), CB_ENOENT, CB_EPERM, CB_ESYS, CB_ELIMIT
 * (8 MiB, CB_API_KEYS_MAX), CB_ENOMEM. keys_file may be NULL: an empty set. */
CB_API int cb_api_keys_load(cb_api_keys **out, const char *keys_file, const char *hash_key_file, int make);
/* The same from memory. */
CB_API int cb_api_keys_new(cb_api_keys **out, cb_slice text, cb_slice hash_key);
CB_API size_t cb_api_keys_len(const cb_api_keys *keys);
CB_API cb_api_keys *cb_api_keys_ref(cb_api_keys *keys);
CB_API void cb_api_keys_unref(cb_api_keys *keys); /* NULL is fine */

typedef struct cb_api_key_opts {
    size_t size;
    const char *subject; /* required */
    const char *tenant;  /* NULL = none */
    const char *const *roles;
    size_t n_roles;
    int64_t now_s;     /* iat; required */
    int64_t expires_s; /* exp; 0 = never */
} cb_api_key_opts;

enum { CB_API_KEY_BYTES = 64 };

/* A new key, for its owner (CB_API_KEY_BYTES, NUL-terminated), and the line for the file (without a newline; to be
 * freed with cb_jwt_text_free()). CB_EINVAL (subject, now_s, a text that is not UTF-8), CB_ETLS (no random bytes),
 * CB_ENOMEM, CB_E2BIG. */
CB_API int cb_api_key_make(char *key, char **line, const cb_api_keys *keys, const cb_api_key_opts *opts);

typedef struct cb_authn_api_key_opts {
    size_t size;
    const char *name;              /* required */
    cb_api_keys *keys;             /* referenced; required */
    const char *field;             /* that keys come in, lower case; NULL = "x-api-key" */
    const cb_authn_claims *claims; /* copied; NULL = sub, tenant and roles, as cb_api_key_make() writes them */
    cb_revocations *revocations;   /* referenced; NULL = none. By the source's name, the key's ID, the subject */
} cb_authn_api_key_opts;

/* CB_EINVAL, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_authn_source_api_key(cb_authn_source **out, const cb_authn_api_key_opts *opts);

CB_API const char *cb_authn_source_name(const cb_authn_source *source);
CB_API int cb_authn_source_kind(const cb_authn_source *source); /* enum cb_authn_kind */
CB_API cb_authn_source *cb_authn_source_ref(cb_authn_source *source);
CB_API void cb_authn_source_unref(cb_authn_source *source); /* NULL is fine */

/* ---- the gate: immutable, reference counted, thread-safe ---- */

enum { CB_AUTHN_SOURCES = 8 };

typedef struct cb_authn_opts {
    size_t size;
    cb_authn_source *const *sources; /* referenced; 1 to CB_AUTHN_SOURCES */
    size_t n_sources;
    const char *realm;         /* of challenges: no quotes, backslashes and controls; NULL = "api" */
    const char *const *scopes; /* all of them are needed (claim scope, of any identity) */
    size_t n_scopes;
    const char *const *roles; /* one of them is needed */
    size_t n_roles;
    const char *tenant;  /* exactly this one is needed; NULL = any */
    int32_t all;         /* 1: every source must agree; 0: one. The first that does, in this order, is the identity */
    int32_t need_tenant; /* 1: an identity without a tenant is refused */
} cb_authn_opts;

/* With `all`, tenants that two sources name must be the same, and roles and scopes of all count together. CB_EINVAL
 * (out; the detail names the field), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_authn_new(cb_authn **out, const cb_authn_opts *opts);
CB_API cb_authn *cb_authn_ref(cb_authn *authn);
CB_API void cb_authn_unref(cb_authn *authn); /* NULL is fine */
/* Is `lower_name` a field that carries credentials which this gate reads? 1 or 0. Whoever passes a request on decides
 * whether it keeps those. */
CB_API int cb_authn_reads(const cb_authn *authn, cb_slice lower_name);
/* The same for spellings with "_" in the place of "-", which this gate does not read, but which some programs take for
 * the same field. */
CB_API int cb_authn_reads_like(const cb_authn *authn, cb_slice lower_name);

/* ---- one request ---- */

/* What is known of a request. Slices live during cb_authn_begin(), and until done where that comes later. */
typedef struct cb_authn_request {
    size_t size;
    const cb_field *fields; /* names in lower case */
    size_t n_fields;
    cb_slice method, scheme, authority, path; /* as the client sees them: what a DPoP proof must name */
    const cb_peer *peer;                      /* the client's verified certificate; NULL = none */
    int64_t now_s;                            /* seconds since 1970; required */
} cb_authn_request;

/* Fills a request from an exchange of a server. */
CB_API void cb_authn_request_of(cb_authn_request *out, const cb_exchange *x, int64_t now_s);

/* What calls of one loop need to ask providers: HTTP clients and introspectors, made when they are first needed. */
typedef struct cb_authn_worker cb_authn_worker;

/* CB_EINVAL (out, loop), CB_ENOMEM. */
CB_API int cb_authn_worker_new(cb_authn_worker **out, cb_loop *loop);
/* Reset its calls first. NULL is fine. */
CB_API void cb_authn_worker_free(cb_authn_worker *worker);

/* worker: borrowed; NULL = without sources of cb_authn_source_introspect(), which cannot tell then. CB_EINVAL (out),
 * CB_ENOMEM. It belongs to the calling thread; used again, it allocates nothing in the end. */
CB_API int cb_authn_call_new(cb_authn_call **out, cb_authn_worker *worker);
/* Cancels what is under way, and forgets the result. */
CB_API void cb_authn_call_reset(cb_authn_call *call);
CB_API void cb_authn_call_free(cb_authn_call *call); /* NULL is fine */

/* rc as of cb_authn_begin(), never CB_EAGAIN. May reset and free the call. */
typedef void (*cb_authn_done)(cb_authn_call *call, int rc, void *user);

/* Judges a request; the call is reset first. CB_OK: let in. CB_EAUTH: refused, see cb_authn_status(). CB_EAGAIN: done
 * follows once, not within this call. CB_EINVAL (call, authn, request, now_s; done is missing and was needed). */
CB_API int cb_authn_begin(cb_authn_call *call, cb_authn *authn, const cb_authn_request *request, cb_authn_done done,
                          void *user);

/* ---- the result, until the call is reset ---- */

/* 200, or what to answer: 400 (malformed: two credentials, unreadable), 401 (none, or not good), 403 (not enough), 503
 * (a source cannot tell now). */
CB_API int cb_authn_status(const cb_authn_call *call);
/* Why it was refused: "no-credentials", a name of cb_jwt_reason_text(), "unknown-key", "revoked", "tenant", "role",
 * "scope", "claims", "provider" ...; "" when it was not. Static. */
CB_API const char *cb_authn_reason(const cb_authn_call *call);
/* Fields for the answer: WWW-Authenticate, DPoP-Nonce, Retry-After, as the refusal needs. */
CB_API const cb_field *cb_authn_challenges(const cb_authn_call *call, size_t *n);

/* Who was let in, or, as far as it is known, who was refused with 403. */
typedef struct cb_principal {
    const char *subject;   /* NULL = nobody is known */
    const char *tenant;    /* NULL = none */
    const char *source;    /* name of the source that the identity is of */
    const char *spiffe_id; /* of the client's certificate, where a source has read it; NULL = none */
    const cb_slice *roles;
    size_t n_roles;
    int32_t kind;      /* enum cb_authn_kind of that source */
    int32_t with_cert; /* 1: a source took the client's certificate */
} cb_principal;

/* Valid until the call is reset. */
CB_API const cb_principal *cb_authn_principal(const cb_authn_call *call);
CB_API int cb_authn_has_role(const cb_authn_call *call, const char *role); /* 1 or 0 */
/* A claim of the identity, by a path of cb_jwt_claim(). CB_ENOENT. */
CB_API int cb_authn_claim(const cb_authn_call *call, const char *path, cb_claim *out);
/* The next value within a list or object, as cb_jwt_claim_next(). CB_ENOENT at the end. */
CB_API int cb_authn_claim_next(const cb_authn_call *call, const cb_claim *of, uint32_t *it, cb_claim *out);

CB_END
#endif

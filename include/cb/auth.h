/* cb/auth.h - JSON Web Tokens: key sets, verification, signing, a cache of verdicts, revocation and proofs of
 * possession (RFC 7515, 7517, 7518, 7519, 7638, 8037, 8705, 8725, 9068, 9449).
 *
 * A key has exactly one algorithm, which comes from the key or its configuration. A token's header can agree with it
 * or be refused; it never chooses. "none" cannot be written down in this interface. Nothing here opens a connection:
 * jku, x5u, jwk and x5c of a token's header are never followed.
 *
 * Refused tokens give CB_EAUTH with a stable reason (enum cb_jwt_reason) beside it; CB_EINVAL always is a mistake of
 * the caller. Times are seconds since 1970 and arguments: no function reads a clock.
 *
 * Threads. cb_jwks, cb_jwt and cb_jwt_signer never change after they are made; with cb_jwt_cache, cb_revocations and
 * cb_dpop, which lock by themselves, all objects here are thread-safe and shared. */
#ifndef CB_AUTH_H
#define CB_AUTH_H

#include <cb/metrics.h>

CB_BEGIN

/* A signature algorithm (RFC 7518 3.1, RFC 8037 3.1). */
enum cb_jwt_alg {
    CB_JWT_ALG_DEFAULT = 0, /* in options: what the key itself implies */
    CB_JWT_HS256 = 1,
    CB_JWT_HS384 = 2,
    CB_JWT_HS512 = 3,
    CB_JWT_RS256 = 4,
    CB_JWT_RS384 = 5,
    CB_JWT_RS512 = 6,
    CB_JWT_PS256 = 7,
    CB_JWT_PS384 = 8,
    CB_JWT_PS512 = 9,
    CB_JWT_ES256 = 10,
    CB_JWT_ES384 = 11,
    CB_JWT_ES512 = 12,
    CB_JWT_EDDSA = 13 /* Ed25519; "EdDSA" and "Ed25519" (RFC 9864) in tokens and keys */
};

/* Why a token was refused. The values are frozen; cb_jwt_reason_text() names them. */
enum cb_jwt_reason {
    CB_JWT_GOOD = 0,
    CB_JWT_SIZE = 1,         /* longer than allowed, or empty */
    CB_JWT_FORMAT = 2,       /* not three parts */
    CB_JWT_ENCRYPTED = 3,    /* five parts: a JWE */
    CB_JWT_BASE64 = 4,       /* not strict base64url: padding, white space, other characters, unused bits */
    CB_JWT_JSON = 5,         /* header or claims are not one JSON object in UTF-8, or too deep or too large */
    CB_JWT_DUPLICATE = 6,    /* a member name is there twice */
    CB_JWT_HEADER = 7,       /* a header member has the wrong type */
    CB_JWT_ALG = 8,          /* alg is missing or none that is known here ("none" for one) */
    CB_JWT_CRIT = 9,         /* crit names what is not known here, or is malformed (RFC 7515 4.1.11) */
    CB_JWT_UNENCODED = 10,   /* b64 is there (RFC 7797) */
    CB_JWT_KID = 11,         /* kid is longer than 256 bytes or empty */
    CB_JWT_UNKNOWN_KEY = 12, /* no key of the set has this kid (a moment to fetch the set again) */
    CB_JWT_KEY_ALG = 13,     /* alg is not that of the key */
    CB_JWT_SIG_FORM = 14,    /* a signature that cannot be one: length or range */
    CB_JWT_SIGNATURE = 15,   /* the signature is wrong */
    CB_JWT_TYPE = 16,        /* typ is not what the rules ask for */
    CB_JWT_CLAIM = 17,       /* a registered claim has the wrong type or range */
    CB_JWT_ISSUER = 18,
    CB_JWT_AUDIENCE = 19,
    CB_JWT_NO_EXPIRY = 20,
    CB_JWT_EXPIRED = 21,
    CB_JWT_NOT_YET = 22, /* nbf or iat is in the future */
    CB_JWT_TOO_OLD = 23, /* iat is missing or longer ago than max_age_s */
    CB_JWT_REVOKED = 24,
    CB_JWT_BINDING = 25,     /* bound to another certificate or key, or not bound where that is asked for */
    CB_JWT_DPOP_KEY = 26,    /* the jwk of a proof is missing, private or not usable */
    CB_JWT_DPOP_METHOD = 27, /* htm */
    CB_JWT_DPOP_URL = 28,    /* htu */
    CB_JWT_DPOP_TOKEN = 29,  /* ath */
    CB_JWT_DPOP_NONCE = 30,  /* a nonce of this server is missing or too old: answer with a new one */
    CB_JWT_DPOP_REPLAY = 31, /* this proof was used before */
    CB_JWT_DPOP_FULL = 32,   /* too many proofs to remember: refused, not forgotten */
    CB_JWT_INACTIVE = 33     /* its provider says that it is not active (cb/oidc.h) */
};

/* A short stable name, such as "expired" or "key-alg", for logs and metrics. Never NULL; static. */
CB_API const char *cb_jwt_reason_text(int reason);
/* "RS256" ...; "" for no algorithm. Static. */
CB_API const char *cb_jwt_alg_text(int alg);
/* The algorithm of that name (exact, "Ed25519" too), or CB_ENOENT. */
CB_API int cb_jwt_alg_find(const char *name);

/* ---- keys that verify ---- */

/* An immutable set of keys, one algorithm each. Shared by reference and swapped as a whole. */
typedef struct cb_jwks cb_jwks;

/* One key beside those of a document: exactly one of pem and secret. */
typedef struct cb_jwk_opts {
    size_t size;
    cb_slice pem;    /* a public key or a certificate (of which only the key counts) */
    cb_slice secret; /* HS256 to HS512: at least as long as the hash; never text of a key file */
    const char *kid; /* NULL = matches tokens with any kid or none */
    int32_t alg;     /* enum cb_jwt_alg; needed for secrets and RSA, else must fit the key when set */
    uint32_t reserved;
} cb_jwk_opts;

typedef struct cb_jwks_opts {
    size_t size;
    cb_slice json;                  /* a JWK set or a single JWK (RFC 7517); may be empty */
    const cb_jwk_opts *const *keys; /* further keys; a bad one fails the call */
    size_t keys_len;
    int32_t rsa_alg;    /* enum cb_jwt_alg of RSA keys in json without "alg"; 0 = RS256 */
    int32_t symmetric;  /* 1: "oct" keys of json (with "alg") are taken; they are left out otherwise */
    uint32_t max_keys;  /* in all; 0 = 64, at most 1,024 */
    uint32_t max_bytes; /* of json; 0 = 262,144, at most 1 MiB */
} cb_jwks_opts;

/* Makes a set. A key of json that cannot be used is left out and noted (cb_jwks_note): unknown kty, crv or alg, use
 * other than "sig", key_ops without "verify", RSA under 2,048 or above 8,192 bits or with an exponent under 65,537,
 * points off the curve or of small order, oct without `symmetric`, a kid above 256 bytes, a (kid, alg) that was there
 * already, and keys whose private part is published. x5c and x5u are ignored. An empty set is valid: it verifies
 * nothing. CB_EINVAL (out, opts; json is no JWK set; a bad key in keys: the detail says what), CB_ELIMIT (max_keys,
 * max_bytes), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_jwks_new(cb_jwks **out, const cb_jwks_opts *opts);
/* The same from a file, which replaces opts->json: JSON, or the PEM of one key, to which alg is given (0: what the key
 * implies; needed for RSA). Blocks. opts may be NULL. CB_ENOENT, CB_EPERM, CB_ESYS beside those of cb_jwks_new(). */
CB_API int cb_jwks_load(cb_jwks **out, const char *path, int alg, const cb_jwks_opts *opts);
CB_API cb_jwks *cb_jwks_ref(cb_jwks *set);
CB_API void cb_jwks_unref(cb_jwks *set); /* NULL is fine */
CB_API size_t cb_jwks_len(const cb_jwks *set);
/* Of key i < len: kid (NULL: none), algorithm, RFC 7638 thumbprint (43 characters). Live as long as the set. */
CB_API const char *cb_jwks_kid(const cb_jwks *set, size_t i);
CB_API int cb_jwks_alg(const cb_jwks *set, size_t i);
CB_API const char *cb_jwks_thumbprint(const cb_jwks *set, size_t i);
/* Is there a key with this kid? 1 or 0. */
CB_API int cb_jwks_has(const cb_jwks *set, const char *kid);
/* What was left out and why, one line a key; NULL past the last. Lives as long as the set. */
CB_API const char *cb_jwks_note(const cb_jwks *set, size_t i);

/* ---- revocation ---- */

/* What was revoked before it expires. Consulted by every check, so it holds at once for cached tokens too. */
typedef struct cb_revocations cb_revocations;

typedef struct cb_revocation {
    size_t size;
    const char *issuer;  /* required */
    const char *jti;     /* this token; or */
    const char *subject; /* tokens of this subject; neither: all of the issuer */
    int64_t before_s;    /* with subject or neither: tokens issued (iat) up to here, and those without iat; required */
    int64_t until_s;     /* forgotten then, at the earliest: when the last such token has expired; required */
} cb_revocation;

/* max: entries; 0 = 65,536. CB_EINVAL (out), CB_ENOMEM. */
CB_API int cb_revocations_new(cb_revocations **out, uint32_t max);
/* Adds one, or prolongs it; what is over at now_s makes room. CB_EINVAL (what is missing), CB_ELIMIT (full: nothing is
 * forgotten for it), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_revocations_add(cb_revocations *r, const cb_revocation *what, int64_t now_s);
/* Adds what a file says: lines, one JSON object each, with issuer, and jti or subject or neither, before and until as
 * above (seconds since 1970; without until it is never forgotten), and note for people. Empty lines and those that
 * begin with # are skipped. A line that is no good is named, and nothing is added. Blocks. CB_EINVAL, CB_ELIMIT (32
 * MiB, or no room: what was added stays), CB_ENOENT, CB_EPERM, CB_ESYS, CB_ENOMEM. */
CB_API int cb_revocations_load(cb_revocations *r, const char *path, int64_t now_s);
/* A line for such a file, without a newline, to be freed with cb_jwt_text_free(). until_s 0: never forgotten. CB_EINVAL
 * (what is missing, or not UTF-8), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_revocation_line(char **out, const cb_revocation *what);
CB_API size_t cb_revocations_len(const cb_revocations *r);
CB_API cb_revocations *cb_revocations_ref(cb_revocations *r);
CB_API void cb_revocations_unref(cb_revocations *r); /* NULL is fine */

/* ---- tokens ---- */

/* A token whose signature is good: its claims. Immutable, shared by reference. */
typedef struct cb_jwt cb_jwt;

/* What a token must be. */
typedef struct cb_jwt_rules {
    size_t size;
    const char *issuer;           /* iss, exactly; required unless any_issuer */
    const char *const *audiences; /* aud (a text or a list) has one of these; required unless any_audience */
    size_t audiences_len;
    const char *typ;             /* such as "at+jwt" (RFC 9068): without case and "application/"; NULL = any */
    cb_revocations *revocations; /* borrowed; NULL = none */
    int32_t leeway_s;            /* for exp, nbf and iat; 0 = 30, -1 = none, at most 300 */
    uint32_t max_age_s;          /* since iat; 0 = no limit */
    int32_t any_issuer;          /* 1: iss is not judged */
    int32_t any_audience;        /* 1: aud is not judged */
    int32_t exp_optional;        /* 1: a token without exp passes; one with it is judged */
    int32_t need_binding;        /* 1: a token without cnf is refused */
    uint32_t max_token_bytes;    /* 0 = 8,192, at most 65,536 */
    uint32_t reserved;
} cb_jwt_rules;

/* What is known of the request. A token that is bound (cnf) passes only with a match here, whatever the rules. */
typedef struct cb_jwt_facts {
    size_t size;
    int64_t now_s;              /* required */
    const uint8_t *cert_sha256; /* 32 bytes: SHA-256 of the client's certificate (DER), for x5t#S256; NULL = none */
    const char *jkt;            /* of a proof that cb_dpop_verify() took; NULL = none */
} cb_jwt_facts;

/* Verifies the signature with the key that kid names (without kid: with each key of that algorithm, at most 4), then
 * judges the claims. *out is the caller's reference. CB_EAUTH: refused, and *reason (may be NULL) says why, the detail
 * for people; CB_EINVAL (out, keys, rules, facts: what is missing), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_jwt_verify(cb_jwt **out, cb_slice token, const cb_jwks *keys, const cb_jwt_rules *rules,
                         const cb_jwt_facts *facts, int32_t *reason);
/* Judges the claims of a verified token again, by other rules or at another time. As cb_jwt_verify(). */
CB_API int cb_jwt_check(const cb_jwt *token, const cb_jwt_rules *rules, const cb_jwt_facts *facts, int32_t *reason);
CB_API cb_jwt *cb_jwt_ref(cb_jwt *token);
CB_API void cb_jwt_unref(cb_jwt *token); /* NULL is fine */

/* The kind of a claim's value. */
enum cb_claim_kind {
    CB_CLAIM_NULL = 1,
    CB_CLAIM_BOOL = 2,
    CB_CLAIM_NUMBER = 3,
    CB_CLAIM_TEXT = 4,
    CB_CLAIM_LIST = 5,
    CB_CLAIM_OBJECT = 6
};

/* A value within a token, valid as long as that. Filled by the library. */
typedef struct cb_claim {
    int32_t kind;  /* enum cb_claim_kind */
    uint32_t node; /* its place in the token */
    cb_slice name; /* of a member of an object; else empty. NUL-terminated, as text */
    cb_slice text; /* of a text: UTF-8 without NUL within; of a number: as written */
    double number; /* of a number; 1 or 0 of a bool */
    size_t len;    /* of a list or object: how many */
} cb_claim;

/* The claim at path: a member's name as it is ("scope", "https://a.example/roles"), or, beginning with "/", an RFC 6901
 * pointer ("/realm_access/roles/0"). CB_ENOENT. */
CB_API int cb_jwt_claim(const cb_jwt *token, const char *path, cb_claim *out);
/* The next value within a list or object: start with *it = 0. CB_ENOENT at the end. */
CB_API int cb_jwt_claim_next(const cb_jwt *token, const cb_claim *of, uint32_t *it, cb_claim *out);
/* Does the claim at path hold text: equal to it, a list with it, or an object with a member of that name (the roles of
 * Zitadel)? 1 or 0. */
CB_API int cb_jwt_has(const cb_jwt *token, const char *path, const char *text);
/* Is scope (RFC 8693 4.2: a text, parted by spaces; or a list) one with this value? 1 or 0. */
CB_API int cb_jwt_has_scope(const cb_jwt *token, const char *scope);
/* The text at path; NULL when there is none or it is no text. */
CB_API const char *cb_jwt_text(const cb_jwt *token, const char *path);
CB_API const char *cb_jwt_issuer(const cb_jwt *token);     /* NULL: no iss */
CB_API const char *cb_jwt_subject(const cb_jwt *token);    /* NULL: no sub */
CB_API const char *cb_jwt_type(const cb_jwt *token);       /* typ; NULL: none */
CB_API const char *cb_jwt_kid(const cb_jwt *token);        /* of the key that verified; NULL: none */
CB_API int cb_jwt_algorithm(const cb_jwt *token);          /* enum cb_jwt_alg */
CB_API int64_t cb_jwt_expires(const cb_jwt *token);        /* 0: no exp */
CB_API const char *cb_jwt_bound_cert(const cb_jwt *token); /* cnf x5t#S256, base64url; NULL: not bound */
CB_API const char *cb_jwt_bound_key(const cb_jwt *token);  /* cnf jkt; NULL: not bound */
/* Audience i; NULL past the last. */
CB_API const char *cb_jwt_audience(const cb_jwt *token, size_t i);

/* ---- a cache of verdicts ---- */

/* Remembers signature verdicts and parsed claims by SHA-256 of the token, and nothing else: claims, revocation and
 * binding are judged anew in every call. An entry counts only while the key that verified it is in the set of the
 * call, with the same kid and algorithm: a changed set needs no flush. */
typedef struct cb_jwt_cache cb_jwt_cache;

typedef struct cb_jwt_cache_opts {
    size_t size;
    uint32_t max_tokens; /* 0 = 16,384 */
    uint32_t ttl_s;      /* then, or when the token expires, the signature is verified again; 0 = 60 */
    uint64_t max_bytes;  /* of all kept tokens; 0 = 64 MiB */
} cb_jwt_cache_opts;

typedef struct cb_jwt_cache_stats {
    size_t size;
    uint64_t hits, misses, evicted, refused; /* refused: misses whose token was not good; these are not kept */
    uint64_t tokens, bytes;
} cb_jwt_cache_stats;

/* CB_EINVAL (out), CB_ENOMEM, CB_E2BIG. opts may be NULL. */
CB_API int cb_jwt_cache_new(cb_jwt_cache **out, const cb_jwt_cache_opts *opts);
/* As cb_jwt_verify(). A token that is remembered costs no allocation. */
CB_API int cb_jwt_cache_verify(cb_jwt_cache *cache, cb_jwt **out, cb_slice token, const cb_jwks *keys,
                               const cb_jwt_rules *rules, const cb_jwt_facts *facts, int32_t *reason);
/* Forgets everything. */
CB_API void cb_jwt_cache_flush(cb_jwt_cache *cache);
CB_API int cb_jwt_cache_stats_get(const cb_jwt_cache *cache, cb_jwt_cache_stats *out);
/* Shows its statistics in a registry from now on, as the families cb_jwt_cache_* of docs/metrics.md with this
 * value of their label "name" (NULL = ""), until it is freed. Once. CB_EINVAL, CB_EEXIST, CB_ENOMEM. */
CB_API int cb_jwt_cache_metrics(cb_jwt_cache *cache, cb_metrics *m, const char *name);
CB_API cb_jwt_cache *cb_jwt_cache_ref(cb_jwt_cache *cache);
CB_API void cb_jwt_cache_unref(cb_jwt_cache *cache); /* NULL is fine */

/* ---- signing ---- */

/* A private key (or secret) with its algorithm. Its memory is wiped at the end. */
typedef struct cb_jwt_signer cb_jwt_signer;

typedef struct cb_jwt_signer_opts {
    size_t size;
    cb_slice pem;    /* a private key without a password; or */
    cb_slice jwk;    /* a private JWK; or */
    cb_slice secret; /* for HS256 to HS512 */
    const char *kid; /* NULL: that of the JWK, or none */
    int32_t alg;     /* enum cb_jwt_alg; 0 = what JWK, curve or, for RSA, RS256 imply; needed for secrets */
    uint32_t reserved;
} cb_jwt_signer_opts;

/* CB_EINVAL (out; no or several keys; a key that cannot be used or does not fit alg), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_jwt_signer_new(cb_jwt_signer **out, const cb_jwt_signer_opts *opts);
CB_API cb_jwt_signer *cb_jwt_signer_ref(cb_jwt_signer *signer);
CB_API void cb_jwt_signer_unref(cb_jwt_signer *signer); /* NULL is fine */
CB_API int cb_jwt_signer_alg(const cb_jwt_signer *signer);
/* RFC 7638 thumbprint of the public key (43 characters), and that key as JSON; NULL for secrets. Live as long as the
 * signer. */
CB_API const char *cb_jwt_signer_thumbprint(const cb_jwt_signer *signer);
CB_API const char *cb_jwt_signer_jwk(const cb_jwt_signer *signer);

/* A member of a header or of claims: text, else json (one strict JSON value), else number. */
typedef struct cb_jwt_field {
    const char *name;
    const char *text;
    const char *json;
    int64_t number;
} cb_jwt_field;

/* Signs claims. The header has alg, kid where known, typ "JWT" unless `header` has a typ, and `header`'s fields, which
 * may not name alg, kid, crit or b64. *out is the compact token, to be freed with cb_jwt_text_free(). CB_EINVAL (a name
 * that is missing, twice or not UTF-8; bad json), CB_ETLS (the key does not sign), CB_ENOMEM. */
CB_API int cb_jwt_sign(char **out, const cb_jwt_signer *signer, const cb_jwt_field *header, size_t header_len,
                       const cb_jwt_field *claims, size_t claims_len);
CB_API void cb_jwt_text_free(char *text); /* NULL is fine */

/* ---- proofs of possession: DPoP (RFC 9449) ---- */

/* What a server remembers of proofs: which were used, and the key of its nonces. Replays are seen by one object; share
 * it by the workers. Hosts with a common nonce_key do not see each other's proofs: bind clients to a host, or give each
 * host a key of its own. */
typedef struct cb_dpop cb_dpop;

typedef struct cb_dpop_opts {
    size_t size;
    cb_slice nonce_key;  /* 32 bytes, shared by servers that take each other's nonces; empty = random */
    uint32_t window_s;   /* how old a proof may be; 0 = 60, at most 3,600 */
    uint32_t leeway_s;   /* how far in the future; 0 = 10, at most 300 */
    uint32_t max_proofs; /* remembered at a time; 0 = 65,536; more are refused (CB_JWT_DPOP_FULL) */
    uint32_t nonce_s;    /* a nonce is good for so long, up to twice as long; 0 = 300 */
    int32_t need_nonce;  /* 1: every proof needs one; else only those from before this object could remember */
    uint32_t reserved;
} cb_dpop_opts;

/* CB_EINVAL (out, a field), CB_ENOMEM, CB_ETLS (no random bytes), CB_E2BIG. opts may be NULL. */
CB_API int cb_dpop_new(cb_dpop **out, const cb_dpop_opts *opts);
CB_API cb_dpop *cb_dpop_ref(cb_dpop *dpop);
CB_API void cb_dpop_unref(cb_dpop *dpop); /* NULL is fine */

typedef struct cb_dpop_request {
    size_t size;
    cb_slice proof;     /* the value of the one DPoP field */
    const char *method; /* of the request, exactly */
    const char *url;    /* https://host[:port]/path of the request as clients see it; query and fragment are ignored */
    cb_slice access_token; /* presented with it: ath must be its hash; empty at a token endpoint */
    int64_t now_s;         /* required */
} cb_dpop_request;

enum { CB_DPOP_JKT_BYTES = 44, CB_DPOP_NONCE_BYTES = 48 };

/* Checks a proof and remembers it. jkt (CB_DPOP_JKT_BYTES, NUL-terminated) gets the thumbprint of its key, for
 * cb_jwt_facts. Errors as cb_jwt_verify(); CB_JWT_DPOP_NONCE asks for an answer with cb_dpop_nonce(). Only a proof that
 * is otherwise good is remembered. */
CB_API int cb_dpop_verify(cb_dpop *dpop, const cb_dpop_request *request, char *jkt, int32_t *reason);
/* A nonce for the field DPoP-Nonce, into out (CB_DPOP_NONCE_BYTES, NUL-terminated). */
CB_API void cb_dpop_nonce(const cb_dpop *dpop, int64_t now_s, char *out);

CB_END
#endif

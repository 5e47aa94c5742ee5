/* A token from the inside: parsed, and its signature found good. */
#ifndef CB_AUTH_JWT_H
#define CB_AUTH_JWT_H

#include "auth/json.h"
#include "auth/jwks.h"

enum {
    CB_JWT_TOKEN_BYTES = 8192,
    CB_JWT_TOKEN_BYTES_MAX = 65536,
    CB_JWT_HEADER_BYTES = 4096,
    CB_JWT_HEADER_NODES = 256,
    CB_JWT_TRIES = 4 /* keys for a token without kid */
};

struct cb_jwt {
    _Atomic uint32_t refs;
    int32_t alg;
    const char *typ, *kid; /* NULL: none */
    const char *issuer, *subject, *jti, *bound_cert, *bound_key;
    double exp, nbf, iat; /* NAN: none */
    uint8_t print[32];    /* of the key that verified */
    cb_json claims;
    size_t bytes; /* of this block */
};

/* The compact form, cut at its dots, and its header. */
typedef struct cb_jws {
    cb_slice head, payload, sig; /* base64url */
    cb_slice signed_bytes;       /* head "." payload */
    cb_json header;
    cb_json_node nodes[CB_JWT_HEADER_NODES];
    char text[CB_JWT_HEADER_BYTES + 4]; /* of the header */
    const cb_jwa *jwa;
    const char *kid, *typ;
    uint8_t sig_bytes[CB_JWK_SIG_BYTES + 2];
    size_t sig_len;
} cb_jws;

/* Sets *reason (may be NULL) and the detail; gives CB_EAUTH. */
int cb_jwt_refuse(int32_t *reason, int why, const char *fmt, ...) __attribute__((format(printf, 3, 4), cold));

/* Reads all but the payload. */
int cb_jws_read(cb_jws *s, cb_slice token, size_t max_bytes, int32_t *reason);
/* Decodes and reads a payload into a block: *claims points into what the caller frees. */
int cb_jwt_payload(void **block, size_t lead, cb_slice payload, cb_json *claims, size_t *bytes, int32_t *reason);
/* The token, verified by the keys. No claim is judged, but those registered have their types. */
int cb_jwt_open(cb_jwt **out, cb_slice token, const cb_jwks *keys, size_t max_bytes, int32_t *reason);
/* The answer to an introspection, as a token: its members are the claims, and iss, when it has none, is `issuer`.
 * Errors as cb_jwt_open(). */
int cb_jwt_from_claims(cb_jwt **out, cb_slice json, const char *issuer, int32_t *reason);
/* A time claim: NAN when it is not there. */
int cb_jwt_date(const cb_json *claims, const char *name, double *out, int32_t *reason);

/* Judges all but revocation. Both structs are read by cb_jwt_rules_read() before. */
int cb_jwt_rules_read(cb_jwt_rules *rules, cb_jwt_facts *facts, const cb_jwt_rules *given, const cb_jwt_facts *seen);
/* Judges exp (if there is one), nbf and iat only, with the usual leeway. */
int cb_jwt_judge_time(const cb_jwt *t, int64_t now_s, int32_t *reason);
int cb_jwt_judge(const cb_jwt *t, const cb_jwt_rules *rules, const cb_jwt_facts *facts, int32_t *reason);

#endif

/* What ACME needs of JOSE: an ES256 account key and flattened JWS (RFC 7515 7.2.2, RFC 8555 6.2). */
#ifndef CB_AUTH_ACME_JWS_H
#define CB_AUTH_ACME_JWS_H

#include "auth/jwk.h"
#include "base/buf.h"

enum { CB_ACME_THUMBPRINT = 43 };

typedef cb_jwk cb_acme_key;

/* CB_EINVAL: not a private ECDSA P-256 key in PEM. The key is to be cleared (cb_jwk_clear()) in any case. */
int cb_acme_key_read(cb_acme_key *key, cb_slice pem);

int cb_acme_base64url(cb_buf *out, const void *bytes, size_t len);
/* out (cap bytes). The length, or CB_EINVAL. */
int64_t cb_acme_base64url_decode(uint8_t *out, size_t cap, const char *text);
/* base64url(SHA-256(text)), NUL-terminated. */
int cb_acme_sha256_text(char out[44], const char *text);

/* {"protected","payload","signature"}: signed with key, or (key NULL) HS256 with secret. */
int cb_acme_jws(cb_buf *out, const cb_acme_key *key, cb_slice secret, cb_slice protected_json, cb_slice payload);

#endif

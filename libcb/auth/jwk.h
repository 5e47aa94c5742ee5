/* One key with its one algorithm, and what it does: verify, or sign. */
#ifndef CB_AUTH_JWK_H
#define CB_AUTH_JWK_H

#include "auth/json.h"
#include <cb/auth.h>
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

enum cb_jwk_family { CB_JWK_SECRET = 1, CB_JWK_RSA, CB_JWK_EC, CB_JWK_ED25519 };

/* A row of the table of algorithms. */
typedef struct cb_jwa {
    const char *name;
    int32_t alg, family; /* enum cb_jwt_alg, enum cb_jwk_family */
    gnutls_sign_algorithm_t sign;
    gnutls_mac_algorithm_t mac;
    gnutls_ecc_curve_t curve;
    uint32_t bytes; /* EC: of r and of s; secrets: of the hash */
    const char *curve_name;
    const uint8_t *order; /* EC */
} cb_jwa;

const cb_jwa *cb_jwa_find(const char *name, size_t len); /* NULL: none */
const cb_jwa *cb_jwa_get(int alg);                       /* NULL: none */

enum { CB_JWK_KID_BYTES = 256, CB_JWK_SIG_BYTES = 1024 };

typedef struct cb_jwk {
    const cb_jwa *jwa;
    gnutls_pubkey_t pub;
    gnutls_privkey_t priv;
    uint8_t *secret;
    size_t secret_len;
    char *kid;  /* NULL: none */
    char *json; /* the public key as RFC 7638 writes it; NULL for secrets */
    char thumbprint[44];
    uint8_t print[32]; /* of thumbprint, algorithm and kid: stands for this key in caches */
} cb_jwk;

/* What a key is read for. */
enum cb_jwk_use { CB_JWK_VERIFY, CB_JWK_VERIFY_SECRET, CB_JWK_SIGN, CB_JWK_EMBEDDED /* of a proof: alg is given */ };

/* Reads a JWK. alg: enum cb_jwt_alg that it must have or, when it names none, gets (RSA); 0: from the key. CB_EINVAL
 * with the detail; CB_ENOMEM. The key is to be cleared in any case. */
int cb_jwk_read(cb_jwk *key, const cb_json *j, const cb_json_node *at, enum cb_jwk_use use, int alg);
int cb_jwk_from_pem(cb_jwk *key, cb_slice pem, enum cb_jwk_use use, int alg);
int cb_jwk_from_secret(cb_jwk *key, cb_slice secret, int alg);
/* Sets kid (NULL: none) and with it what stands for the key. Called last. */
int cb_jwk_name(cb_jwk *key, const char *kid);
void cb_jwk_clear(cb_jwk *key);

/* CB_JWT_GOOD, CB_JWT_SIG_FORM or CB_JWT_SIGNATURE. */
int cb_jwk_verify(const cb_jwk *key, cb_slice signed_bytes, cb_slice signature);
/* Signs into out (CB_JWK_SIG_BYTES) and returns the length; CB_ETLS. */
int64_t cb_jwk_sign(const cb_jwk *key, cb_slice bytes, uint8_t *out);

#endif

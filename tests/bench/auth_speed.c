/* What checking a token costs beside what cannot be saved: `auth_speed ROW COUNT` prints "count cpu_seconds
 * allocations".
 *
 * ROW: bare-ALG (GnuTLS verifies the same bytes), full-ALG (cb_jwt_verify()), again-ALG (a token that the cache knows),
 * with ALG of RS256, ES256, EdDSA. */
#include "allocations.h"
#include <cb/auth.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NOW = 1700000000 };

static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

typedef struct job {
    cb_jwks *keys;
    cb_jwt_cache *cache;
    char *token;
    gnutls_pubkey_t pub;
    gnutls_privkey_t priv;
    gnutls_sign_algorithm_t sign;
    gnutls_datum_t bytes, sig;
} job;

static void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "auth_speed: %s: %s\n", what, cb_last_error());
    exit(1);
}

static void make_key(job *j, const char *alg, gnutls_datum_t *pem) {
    gnutls_x509_privkey_t key;
    int rsa = strcmp(alg, "RS256") == 0, ec = strcmp(alg, "ES256") == 0;
    gnutls_privkey_t priv;
    gnutls_x509_privkey_init(&key);
    must(gnutls_x509_privkey_generate(key,
                                      rsa  ? GNUTLS_PK_RSA
                                      : ec ? GNUTLS_PK_ECDSA
                                           : GNUTLS_PK_EDDSA_ED25519,
                                      rsa  ? 2048
                                      : ec ? GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1)
                                           : GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_ED25519),
                                      0) == 0,
         "key");
    must(gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, pem) == 0, "PEM");
    gnutls_privkey_init(&priv);
    gnutls_pubkey_init(&j->pub);
    gnutls_privkey_import_x509(priv, key, GNUTLS_PRIVKEY_IMPORT_COPY);
    gnutls_pubkey_import_privkey(j->pub, priv, 0, 0);
    j->sign = rsa ? GNUTLS_SIGN_RSA_SHA256 : ec ? GNUTLS_SIGN_ECDSA_SHA256 : GNUTLS_SIGN_EDDSA_ED25519;
    j->priv = priv;
    gnutls_x509_privkey_deinit(key);
}

/* A token such as providers give: 10 claims, about 600 bytes. */
static void make_token(job *j, const char *alg, const gnutls_datum_t *pem) {
    static const cb_jwt_field claims[] = {
        {.name = "iss", .text = "https://issuer.example"},
        {.name = "sub", .text = "0f8fad5b-d9cb-469f-a165-70867728950e"},
        {.name = "aud", .json = "[\"edge\",\"234567890123456789@project\"]"},
        {.name = "exp", .number = NOW + 3000},
        {.name = "iat", .number = NOW - 10},
        {.name = "nbf", .number = NOW - 10},
        {.name = "jti", .text = "7c9e6679-7425-40de-944b-e07fc1f90ae7"},
        {.name = "client_id", .text = "234567890123456789@project"},
        {.name = "scope", .text = "openid profile email read write"},
        {.name = "roles", .json = "{\"admin\":{\"1\":\"a.example\"},\"viewer\":{\"1\":\"a.example\"}}"}};
    const cb_jwt_field typ = {.name = "typ", .text = "at+jwt"};
    cb_jwt_signer *s = NULL;
    must(cb_jwt_signer_new(&s, CB_OPTS(cb_jwt_signer_opts, .pem = {pem->data, pem->size}, .kid = "key-1",
                                       .alg = cb_jwt_alg_find(alg))) == 0,
         "signer");
    must(cb_jwt_sign(&j->token, s, &typ, 1, claims, sizeof claims / sizeof *claims) == 0, "token");
    must(cb_jwks_new(&j->keys, CB_OPTS(cb_jwks_opts, .json = cb_slice_str(cb_jwt_signer_jwk(s)))) == 0, "keys");
    must(cb_jwt_cache_new(&j->cache, NULL) == 0, "cache");
    cb_jwt_signer_unref(s);
}

static void one(const job *j, int kind) {
    static const char *const audiences[] = {"edge"};
    static const cb_jwt_rules rules = {.size = sizeof rules,
                                       .issuer = "https://issuer.example",
                                       .audiences = audiences,
                                       .audiences_len = 1,
                                       .typ = "at+jwt"};
    static const cb_jwt_facts facts = {.size = sizeof facts, .now_s = NOW};
    cb_jwt *t = NULL;
    if (kind == 'b') {
        must(gnutls_pubkey_verify_data2(j->pub, j->sign, 0, &j->bytes, &j->sig) >= 0, "verify");
        return;
    }
    must((kind == 'f' ? cb_jwt_verify(&t, cb_slice_str(j->token), j->keys, &rules, &facts, NULL)
                      : cb_jwt_cache_verify(j->cache, &t, cb_slice_str(j->token), j->keys, &rules, &facts, NULL)) == 0,
         "check");
    cb_jwt_unref(t);
}

int main(int argc, char **argv) {
    job j = {0};
    gnutls_datum_t pem = {0};
    const char *alg = argc == 3 ? strchr(argv[1], '-') : NULL;
    if (!alg) {
        fprintf(stderr, "usage: auth_speed bare|full|again-RS256|ES256|EdDSA COUNT\n");
        return 2;
    }
    make_key(&j, alg + 1, &pem);
    make_token(&j, alg + 1, &pem);
    /* The bare row verifies the bytes that the token's signature covers. */
    j.bytes = (gnutls_datum_t){.data = (unsigned char *)j.token, .size = (unsigned)(strrchr(j.token, '.') - j.token)};
    must(gnutls_privkey_sign_data2(j.priv, j.sign, 0, &j.bytes, &j.sig) == 0, "sign");
    long count = atol(argv[2]);
    for (int i = 0; i < 20; i++)
        one(&j, *argv[1]);
    unsigned long before = allocations;
    double start = cpu();
    for (long i = 0; i < count; i++)
        one(&j, *argv[1]);
    double spent = cpu() - start;
    printf("%ld %.6f %lu\n", count, spent, allocations - before);
    return 0;
}

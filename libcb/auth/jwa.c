/* The algorithms (RFC 7518 3.1, RFC 8037 3.1, RFC 9864) and their signatures. */
#include "auth/jwk.h"
#include "base/error.h"
#include "base/mem.h"
#include <gnutls/crypto.h>
#include <string.h>

/* The orders of the groups (FIPS 186-4, D.1.2). */
static const uint8_t order_p256[] = {0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff,
                                     0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17,
                                     0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51};
static const uint8_t order_p384[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                     0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2,
                                     0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73};
static const uint8_t order_p521[] = {0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                     0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                     0xff, 0xff, 0xff, 0xff, 0xff, 0xfa, 0x51, 0x86, 0x87, 0x83, 0xbf, 0x2f, 0x96, 0x6b,
                                     0x7f, 0xcc, 0x01, 0x48, 0xf7, 0x09, 0xa5, 0xd0, 0x3b, 0xb5, 0xc9, 0xb8, 0x89, 0x9c,
                                     0x47, 0xae, 0xbb, 0x6f, 0xb7, 0x1e, 0x91, 0x38, 0x64, 0x09};
/* That of Ed25519's (RFC 8032 5.1), in the order of its signatures: the low byte first. */
static const uint8_t order_ed25519[] = {0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7,
                                        0xa2, 0xde, 0xf9, 0xde, 0x14, 0,    0,    0,    0,    0,    0,
                                        0,    0,    0,    0,    0,    0,    0,    0,    0,    0x10};

#define SECRET(n, hash)                                                                                                \
    { .name = "HS" #n, .alg = CB_JWT_HS##n, .family = CB_JWK_SECRET, .mac = GNUTLS_MAC_SHA##n, .bytes = (hash) }
#define RSA(n)                                                                                                         \
    { .name = "RS" #n, .alg = CB_JWT_RS##n, .family = CB_JWK_RSA, .sign = GNUTLS_SIGN_RSA_SHA##n }
#define PSS(n)                                                                                                         \
    { .name = "PS" #n, .alg = CB_JWT_PS##n, .family = CB_JWK_RSA, .sign = GNUTLS_SIGN_RSA_PSS_SHA##n }
#define EC(n, len, bits)                                                                                               \
    {                                                                                                                  \
        .name = "ES" #n, .alg = CB_JWT_ES##n, .family = CB_JWK_EC, .sign = GNUTLS_SIGN_ECDSA_SHA##n,                   \
        .curve = GNUTLS_ECC_CURVE_SECP##bits##R1, .bytes = (len), .curve_name = "P-" #bits, .order = order_p##bits     \
    }
#define ED(text)                                                                                                       \
    {                                                                                                                  \
        .name = (text), .alg = CB_JWT_EDDSA, .family = CB_JWK_ED25519, .bytes = 32, .sign = GNUTLS_SIGN_EDDSA_ED25519, \
        .curve = GNUTLS_ECC_CURVE_ED25519, .curve_name = "Ed25519"                                                     \
    }
static const cb_jwa table[] = {SECRET(256, 32),  SECRET(384, 48),  SECRET(512, 64), RSA(256),     RSA(384),
                               RSA(512),         PSS(256),         PSS(384),        PSS(512),     EC(256, 32, 256),
                               EC(384, 48, 384), EC(512, 66, 521), ED("EdDSA"),     ED("Ed25519")};
enum { ROWS = sizeof table / sizeof *table };

const cb_jwa *cb_jwa_find(const char *name, size_t len) {
    for (size_t i = 0; i < ROWS; i++)
        if (strlen(table[i].name) == len && memcmp(table[i].name, name, len) == 0) return table + i;
    return NULL;
}

const cb_jwa *cb_jwa_get(int alg) {
    return alg >= CB_JWT_HS256 && alg <= CB_JWT_EDDSA ? table + alg - 1 : NULL;
}

const char *cb_jwt_alg_text(int alg) {
    const cb_jwa *row = cb_jwa_get(alg);
    return row ? row->name : "";
}

int cb_jwt_alg_find(const char *name) {
    const cb_jwa *row = name ? cb_jwa_find(name, strlen(name)) : NULL;
    return row ? row->alg : cb_fail(CB_ENOENT, "\"%.40s\" is no algorithm that is known here", name ? name : "");
}

/* 0 < number < order, both big-endian? */
static bool in_range(const uint8_t *number, const uint8_t *order, size_t len) {
    uint8_t any = 0;
    for (size_t i = 0; i < len; i++)
        any |= number[i];
    return any && memcmp(number, order, len) < 0;
}

/* RFC 8032 5.1.7: S below the order, so that a signature has one form only. */
static bool ed25519_range(const uint8_t *s) {
    for (size_t i = 32; i-- > 0;)
        if (s[i] != order_ed25519[i]) return s[i] < order_ed25519[i];
    return false;
}

static int verify_public(const cb_jwk *key, cb_slice bytes, gnutls_datum_t *sig) {
    gnutls_datum_t data = {.data = (unsigned char *)bytes.base, .size = (unsigned)bytes.len};
    return gnutls_pubkey_verify_data2(key->pub, key->jwa->sign, 0, &data, sig) >= 0 ? CB_JWT_GOOD : CB_JWT_SIGNATURE;
}

/* r and s, each as long as the order (RFC 7518 3.4), become the DER that GnuTLS reads. */
static int verify_ec(const cb_jwk *key, cb_slice bytes, cb_slice sig) {
    size_t n = key->jwa->bytes;
    if (sig.len != 2 * n || !in_range(sig.base, key->jwa->order, n) || !in_range(sig.base + n, key->jwa->order, n))
        return CB_JWT_SIG_FORM;
    gnutls_datum_t r = {.data = (unsigned char *)sig.base, .size = (unsigned)n};
    gnutls_datum_t s = {.data = (unsigned char *)sig.base + n, .size = (unsigned)n};
    gnutls_datum_t der = {0};
    if (gnutls_encode_rs_value(&der, &r, &s) < 0) return CB_JWT_SIGNATURE;
    int verdict = verify_public(key, bytes, &der);
    gnutls_free(der.data);
    return verdict;
}

static int verify_secret(const cb_jwk *key, cb_slice bytes, cb_slice sig) {
    uint8_t mac[64];
    if (sig.len != key->jwa->bytes) return CB_JWT_SIG_FORM;
    if (gnutls_hmac_fast(key->jwa->mac, key->secret, key->secret_len, bytes.base, bytes.len, mac) < 0)
        return CB_JWT_SIGNATURE;
    return gnutls_memcmp(mac, sig.base, sig.len) == 0 ? CB_JWT_GOOD : CB_JWT_SIGNATURE;
}

int cb_jwk_verify(const cb_jwk *key, cb_slice bytes, cb_slice sig) {
    gnutls_datum_t datum = {.data = (unsigned char *)sig.base, .size = (unsigned)sig.len};
    unsigned bits = 0;
    switch (key->jwa->family) {
    case CB_JWK_SECRET:
        return verify_secret(key, bytes, sig);
    case CB_JWK_EC:
        return verify_ec(key, bytes, sig);
    case CB_JWK_ED25519:
        if (sig.len != 64 || !ed25519_range(sig.base + 32)) return CB_JWT_SIG_FORM;
        return verify_public(key, bytes, &datum);
    default:
        gnutls_pubkey_get_pk_algorithm(key->pub, &bits);
        return sig.len == (bits + 7) / 8 ? verify_public(key, bytes, &datum) : CB_JWT_SIG_FORM;
    }
}

static int64_t raw_from_der(const gnutls_datum_t *der, uint8_t *out, size_t n) {
    gnutls_datum_t part[2] = {{0}, {0}};
    if (gnutls_decode_rs_value(der, &part[0], &part[1]) < 0) return CB_ETLS;
    memset(out, 0, 2 * n);
    for (size_t i = 0; i < 2; i++) {
        const uint8_t *p = part[i].data;
        size_t len = part[i].size;
        for (; len > n && !*p; len--)
            p++;
        if (len <= n) memcpy(out + i * n + n - len, p, len);
        gnutls_free(part[i].data);
    }
    return (int64_t)(2 * n);
}

int64_t cb_jwk_sign(const cb_jwk *key, cb_slice bytes, uint8_t *out) {
    gnutls_datum_t data = {.data = (unsigned char *)bytes.base, .size = (unsigned)bytes.len}, sig = {0};
    int64_t len = CB_ETLS;
    if (key->jwa->family == CB_JWK_SECRET) {
        int rc = gnutls_hmac_fast(key->jwa->mac, key->secret, key->secret_len, bytes.base, bytes.len, out);
        return rc < 0 ? cb_fail(CB_ETLS, "signing: %s", gnutls_strerror(rc)) : (int64_t)key->jwa->bytes;
    }
    int rc = gnutls_privkey_sign_data2(key->priv, key->jwa->sign, 0, &data, &sig);
    if (rc < 0) return cb_fail(CB_ETLS, "signing with %s: %s", key->jwa->name, gnutls_strerror(rc));
    if (key->jwa->family == CB_JWK_EC) {
        len = raw_from_der(&sig, out, key->jwa->bytes);
    } else if (sig.size <= CB_JWK_SIG_BYTES) {
        memcpy(out, sig.data, sig.size);
        len = sig.size;
    }
    gnutls_free(sig.data);
    return len < 0 ? cb_fail(CB_ETLS, "signing with %s: a signature of another form", key->jwa->name) : len;
}

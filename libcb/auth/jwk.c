#include "auth/jwk.h"
#include "auth/base64url.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <string.h>

/* RSA: 2,048 bits (RFC 7518 3.3) to 8,192, so that verifying stays cheap; exponents as FIPS 186-5 has them. */
enum { RSA_BITS_MIN = 2048, RSA_BITS_MAX = 8192, NUMBER_BYTES = RSA_BITS_MAX / 8 + 1, SECRET_BYTES = 4096 };

typedef struct number {
    uint8_t bytes[NUMBER_BYTES + 3];
    size_t len;
} number;

static int tls_fail(int rc, const char *what) {
    return rc == GNUTLS_E_MEMORY_ERROR ? cb_fail(CB_ENOMEM, "no memory for a key")
                                       : cb_fail(CB_EINVAL, "%s: %s", what, gnutls_strerror(rc));
}

static gnutls_datum_t datum(const number *n) {
    return (gnutls_datum_t){.data = (unsigned char *)n->bytes, .size = (unsigned)n->len};
}

/* A member that holds base64url; len 0: any length, else exactly that many bytes. */
static int read_number(number *out, const cb_json *j, const cb_json_node *at, const char *name, size_t len) {
    const cb_json_node *member = cb_json_get(j, at, name, strlen(name));
    if (!cb_json_is(member, CB_JSON_TEXT) || !member->len)
        return cb_fail(CB_EINVAL, "\"%s\" is missing or no text", name);
    if (member->len > cb_base64url_chars(NUMBER_BYTES)) return cb_fail(CB_EINVAL, "\"%s\" is too long", name);
    int64_t n = cb_base64url_decode(out->bytes, j->text + member->at, member->len);
    if (n <= 0) return cb_fail(CB_EINVAL, "\"%s\" is not base64url", name);
    if (len && (size_t)n != len) return cb_fail(CB_EINVAL, "\"%s\" has %d bytes, not %zu", name, (int)n, len);
    out->len = (size_t)n;
    return CB_OK;
}

/* ---- what every key must be ---- */

static int check_rsa(gnutls_pubkey_t pub) {
    gnutls_datum_t m = {0}, e = {0};
    int rc = gnutls_pubkey_export_rsa_raw2(pub, &m, &e, GNUTLS_EXPORT_FLAG_NO_LZ);
    if (rc < 0) return tls_fail(rc, "RSA");
    size_t bits = m.size * 8;
    for (unsigned top = m.size ? m.data[0] : 0; bits && !(top & 0x80); top <<= 1)
        bits--;
    uint64_t exponent = 0;
    for (size_t i = 0; i < e.size && e.size <= 8; i++)
        exponent = exponent << 8 | e.data[i];
    bool odd = m.size && (m.data[m.size - 1] & 1);
    gnutls_free(m.data);
    gnutls_free(e.data);
    if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX)
        return cb_fail(CB_EINVAL, "an RSA key of %zu bits: 2048 to 8192 are taken", bits);
    if (!odd) return cb_fail(CB_EINVAL, "an RSA modulus that is even");
    if (exponent < 65537 || !(exponent & 1) || exponent > UINT32_MAX)
        return cb_fail(CB_EINVAL, "an RSA exponent that is not safe: 65537 is usual, odd ones up to 32 bits are taken");
    return CB_OK;
}

/* Points of small order, and encodings that are not reduced: any signature could fit (RFC 8032 5.1.3, 8). */
static int check_ed25519(const uint8_t *x) {
    static const uint8_t small[][32] = {
        {0},
        {1},
        {0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
         0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
        {0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
         0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a}};
    uint8_t y[32];
    memcpy(y, x, 32);
    y[31] &= 0x7f;
    bool high = y[31] == 0x7f; /* p - 1, which has small order, and all from p on */
    for (size_t i = 1; i < 31; i++)
        high = high && y[i] == 0xff;
    if (high && y[0] >= 0xec) return cb_fail(CB_EINVAL, "\"x\" is no point that may be a key");
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        if (memcmp(y, small[i], 32) == 0) return cb_fail(CB_EINVAL, "\"x\" is a point of small order");
    return CB_OK;
}

static void put_member(cb_buf *b, const char *name, const gnutls_datum_t *value, size_t width) {
    uint8_t padded[72] = {0};
    char text[(NUMBER_BYTES * 4 + 2) / 3 + 1];
    const uint8_t *p = value->data;
    size_t len = value->size;
    if (width) {
        for (; len > width && !*p; len--)
            p++;
        if (len <= width) memcpy(padded + width - len, p, len);
        p = padded;
        len = width;
    }
    if (len > NUMBER_BYTES) return;
    cb_base64url_encode(text, p, len);
    cb_buf_printf(b, "\"%s\":\"%s\"", name, text);
}

/* The members that RFC 7638 3.2 names, in their order. */
static int write_json(cb_jwk *key) {
    const cb_jwa *a = key->jwa;
    gnutls_datum_t first = {0}, second = {0};
    cb_buf b;
    cb_buf_init(&b, &cb_alloc_libc, 4096);
    int rc = 0;
    if (a->family == CB_JWK_RSA) {
        rc = gnutls_pubkey_export_rsa_raw2(key->pub, &first, &second, GNUTLS_EXPORT_FLAG_NO_LZ);
        if (rc >= 0) {
            cb_buf_text(&b, "{");
            put_member(&b, "e", &second, 0);
            cb_buf_text(&b, ",\"kty\":\"RSA\",");
            put_member(&b, "n", &first, 0);
        }
    } else {
        rc = gnutls_pubkey_export_ecc_raw(key->pub, NULL, &first, a->family == CB_JWK_EC ? &second : NULL);
        if (rc >= 0) {
            cb_buf_printf(&b, "{\"crv\":\"%s\",\"kty\":\"%s\",", a->curve_name, a->family == CB_JWK_EC ? "EC" : "OKP");
            put_member(&b, "x", &first, a->bytes);
        }
        if (rc >= 0 && a->family == CB_JWK_EC) {
            cb_buf_text(&b, ",");
            put_member(&b, "y", &second, a->bytes);
        }
    }
    if (rc >= 0 && cb_buf_add(&b, "}", 2) == CB_OK) key->json = cb_mem_text(&cb_alloc_libc, (char *)b.base);
    gnutls_free(first.data);
    gnutls_free(second.data);
    cb_buf_free(&b);
    if (rc < 0) return tls_fail(rc, "the key");
    return key->json ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a key");
}

/* The public key is there: is it sound, and what is its algorithm? named: what the key itself says, or NULL. */
static int settle(cb_jwk *key, const cb_jwa *named, int alg) {
    const cb_jwa *a = named;
    gnutls_ecc_curve_t curve = GNUTLS_ECC_CURVE_INVALID;
    gnutls_datum_t x = {0};
    int pk = gnutls_pubkey_get_pk_algorithm(key->pub, NULL), rc = CB_OK;
    if (pk == GNUTLS_PK_RSA || pk == GNUTLS_PK_RSA_PSS) {
        if (!a) a = cb_jwa_get(alg);
        if (!a) return cb_fail(CB_EINVAL, "an RSA key needs its algorithm (RS256, PS256 ...)");
        rc = a->family == CB_JWK_RSA ? check_rsa(key->pub) : CB_OK;
        if (rc == CB_OK && pk == GNUTLS_PK_RSA_PSS && a->alg < CB_JWT_PS256)
            rc = cb_fail(CB_EINVAL, "a key for RSA-PSS cannot do %s", a->name);
        if (rc < 0) return rc;
        if (a->family != CB_JWK_RSA) return cb_fail(CB_EINVAL, "an RSA key cannot do %s", a->name);
        key->jwa = a;
        return write_json(key);
    }
    rc = gnutls_pubkey_export_ecc_raw(key->pub, &curve, &x, NULL);
    if (rc < 0) return cb_fail(CB_EINVAL, "this kind of key is not known here");
    if (curve == GNUTLS_ECC_CURVE_ED25519) rc = x.size == 32 ? check_ed25519(x.data) : CB_EINVAL;
    gnutls_free(x.data);
    if (rc < 0) return rc;
    for (int i = CB_JWT_ES256; i <= CB_JWT_EDDSA; i++)
        if (cb_jwa_get(i)->curve == curve) key->jwa = cb_jwa_get(i);
    if (!key->jwa) return cb_fail(CB_EINVAL, "keys on %s are not known here", gnutls_ecc_curve_get_name(curve));
    if ((named && named->alg != key->jwa->alg) || (alg && alg != key->jwa->alg))
        return cb_fail(CB_EINVAL, "a key on %s cannot do %s", key->jwa->curve_name,
                       named ? named->name : cb_jwt_alg_text(alg));
    rc = gnutls_pubkey_verify_params(key->pub);
    if (rc < 0) return cb_fail(CB_EINVAL, "the point is not on %s", key->jwa->curve_name);
    return write_json(key);
}

/* ---- JWK ---- */

static int read_ec(cb_jwk *key, const cb_json *j, const cb_json_node *at, bool okp, bool private) {
    const char *crv = cb_json_text(j, at, "crv");
    const cb_jwa *a = NULL;
    number x, y, d;
    for (int i = CB_JWT_ES256; crv && i <= CB_JWT_EDDSA; i++)
        if (strcmp(cb_jwa_get(i)->curve_name, crv) == 0) a = cb_jwa_get(i);
    if (!a || (a->family == CB_JWK_ED25519) != okp)
        return cb_fail(CB_EINVAL, "crv \"%.40s\" is not known here", crv ? crv : "(missing)");
    int rc = read_number(&x, j, at, "x", a->bytes);
    if (rc == CB_OK && !okp) rc = read_number(&y, j, at, "y", a->bytes);
    if (rc == CB_OK && private) rc = read_number(&d, j, at, "d", a->bytes);
    if (rc < 0) return rc;
    gnutls_datum_t dx = datum(&x), dy = datum(&y), dd = datum(&d);
    if (!private) {
        rc = gnutls_pubkey_import_ecc_raw(key->pub, a->curve, &dx, okp ? NULL : &dy);
        return rc < 0 ? tls_fail(rc, "the point") : CB_OK;
    }
    rc = gnutls_privkey_import_ecc_raw(key->priv, a->curve, &dx, okp ? NULL : &dy, &dd);
    cb_mem_wipe(&d, sizeof d);
    return rc < 0 ? tls_fail(rc, "the private key") : CB_OK;
}

static int read_rsa(cb_jwk *key, const cb_json *j, const cb_json_node *at, bool private) {
    static const char *const names[] = {"n", "e", "d", "p", "q", "qi", "dp", "dq"};
    number v[8];
    gnutls_datum_t m[8];
    int rc = CB_OK;
    if (private && cb_json_get(j, at, "oth", 3)) return cb_fail(CB_EINVAL, "RSA keys of more than two primes");
    for (size_t i = 0; i < (private ? 8u : 2u) && rc == CB_OK; i++) {
        rc = read_number(&v[i], j, at, names[i], 0);
        if (rc == CB_OK) m[i] = datum(&v[i]);
    }
    if (rc == CB_OK) {
        int t = private
                    ? gnutls_privkey_import_rsa_raw(key->priv, &m[0], &m[1], &m[2], &m[3], &m[4], &m[5], &m[6], &m[7])
                    : gnutls_pubkey_import_rsa_raw(key->pub, &m[0], &m[1]);
        if (t < 0) rc = tls_fail(t, "the RSA key");
    }
    if (private) cb_mem_wipe(v, sizeof v);
    return rc;
}

static bool has_private(const cb_json *j, const cb_json_node *at) {
    static const char *const names[] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (cb_json_get(j, at, names[i], strlen(names[i]))) return true;
    return false;
}

/* use and key_ops (RFC 7517 4.2, 4.3). */
static int check_use(const cb_json *j, const cb_json_node *at, enum cb_jwk_use use) {
    const cb_json_node *member = cb_json_get(j, at, "use", 3), *op = NULL;
    const char *want = use == CB_JWK_SIGN ? "sign" : "verify";
    if (member && (member->kind != CB_JSON_TEXT || strcmp(j->text + member->at, "sig") != 0))
        return cb_fail(CB_EINVAL, "its use is not \"sig\"");
    member = cb_json_get(j, at, "key_ops", 7);
    if (!member) return CB_OK;
    if (member->kind == CB_JSON_LIST)
        for (op = cb_json_first(j, member); op; op = cb_json_next(j, member, op))
            if (op->kind == CB_JSON_TEXT && strcmp(j->text + op->at, want) == 0) return CB_OK;
    return cb_fail(CB_EINVAL, "its key_ops have no \"%s\"", want);
}

static int read_secret(cb_jwk *key, const cb_json *j, const cb_json_node *at, const cb_jwa *named, int alg) {
    const cb_json_node *k = cb_json_get(j, at, "k", 1);
    uint8_t bytes[SECRET_BYTES + 2];
    if (!named && !alg) return cb_fail(CB_EINVAL, "a secret needs its \"alg\"");
    if (named && alg && named->alg != alg) return cb_fail(CB_EINVAL, "its alg is %s", named->name);
    if (!cb_json_is(k, CB_JSON_TEXT) || k->len > cb_base64url_chars(SECRET_BYTES))
        return cb_fail(CB_EINVAL, "\"k\" is missing or too long");
    int64_t n = cb_base64url_decode(bytes, j->text + k->at, k->len);
    if (n < 0) return cb_fail(CB_EINVAL, "\"k\" is not base64url");
    int rc = cb_jwk_from_secret(key, (cb_slice){bytes, (size_t)n}, named ? named->alg : alg);
    cb_mem_wipe(bytes, sizeof bytes);
    return rc;
}

static int make_handles(cb_jwk *key, bool private) {
    int rc = gnutls_pubkey_init(&key->pub);
    if (rc >= 0 && private) rc = gnutls_privkey_init(&key->priv);
    return rc < 0 ? tls_fail(rc, "a key") : CB_OK;
}

/* The public half of a private key that was imported. */
static int derive_public(cb_jwk *key) {
    int rc = gnutls_privkey_verify_params(key->priv);
    if (rc >= 0) rc = gnutls_pubkey_import_privkey(key->pub, key->priv, 0, 0);
    return rc < 0 ? tls_fail(rc, "the private key") : CB_OK;
}

int cb_jwk_read(cb_jwk *key, const cb_json *j, const cb_json_node *at, enum cb_jwk_use use, int alg) {
    *key = (cb_jwk){0};
    if (at->kind != CB_JSON_OBJECT) return cb_fail(CB_EINVAL, "a key must be an object");
    const char *kty = cb_json_text(j, at, "kty");
    const cb_json_node *member = cb_json_get(j, at, "alg", 3);
    const cb_jwa *named = cb_json_is(member, CB_JSON_TEXT) ? cb_jwa_find(j->text + member->at, member->len) : NULL;
    bool private = use == CB_JWK_SIGN;
    if (!kty) return cb_fail(CB_EINVAL, "\"kty\" is missing");
    if (member && !named) return cb_fail(CB_EINVAL, "its alg is not known here");
    int rc = check_use(j, at, use);
    if (rc < 0) return rc;
    if (strcmp(kty, "oct") == 0)
        return use == CB_JWK_VERIFY_SECRET || private
                   ? read_secret(key, j, at, named, private ? alg : 0)
                   : cb_fail(CB_EINVAL, "secrets (kty \"oct\") are not allowed here");
    if (!private && has_private(j, at)) return cb_fail(CB_EINVAL, "its private part is published");
    rc = make_handles(key, private);
    if (rc < 0) return rc;
    if (strcmp(kty, "RSA") == 0)
        rc = read_rsa(key, j, at, private);
    else if (strcmp(kty, "EC") == 0 || strcmp(kty, "OKP") == 0)
        rc = read_ec(key, j, at, *kty == 'O', private);
    else
        rc = cb_fail(CB_EINVAL, "kty \"%.40s\" is not known here", kty);
    if (rc == CB_OK && private) rc = derive_public(key);
    if (rc < 0) return rc;
    bool rsa = strcmp(kty, "RSA") == 0;
    if (named && alg && named->alg != alg && use != CB_JWK_VERIFY && use != CB_JWK_VERIFY_SECRET)
        return cb_fail(CB_EINVAL, "its alg is %s, not %s", named->name, cb_jwt_alg_text(alg));
    return settle(key, named, rsa || use == CB_JWK_SIGN || use == CB_JWK_EMBEDDED ? alg : 0);
}

/* ---- PEM and secrets ---- */

static int import_public(cb_jwk *key, const gnutls_datum_t *pem) {
    gnutls_x509_crt_t crt;
    if (!memmem(pem->data, pem->size, "-----BEGIN CERTIFICATE-----", 27)) {
        int rc = gnutls_pubkey_import(key->pub, pem, GNUTLS_X509_FMT_PEM);
        return rc < 0 ? tls_fail(rc, "the PEM has no public key") : CB_OK;
    }
    int rc = gnutls_x509_crt_init(&crt);
    if (rc < 0) return tls_fail(rc, "a certificate");
    rc = gnutls_x509_crt_import(crt, pem, GNUTLS_X509_FMT_PEM);
    if (rc >= 0) rc = gnutls_pubkey_import_x509(key->pub, crt, 0);
    gnutls_x509_crt_deinit(crt);
    return rc < 0 ? tls_fail(rc, "the certificate") : CB_OK;
}

int cb_jwk_from_pem(cb_jwk *key, cb_slice pem, enum cb_jwk_use use, int alg) {
    *key = (cb_jwk){0};
    gnutls_datum_t data = {.data = (unsigned char *)pem.base, .size = (unsigned)pem.len};
    bool private = use == CB_JWK_SIGN;
    if (pem.len > 65536) return cb_fail(CB_EINVAL, "a PEM of more than 64 KiB");
    if (alg && !cb_jwa_get(alg)) return cb_fail(CB_EINVAL, "alg %d is not known here", alg);
    if (alg && cb_jwa_get(alg)->family == CB_JWK_SECRET)
        return cb_fail(CB_EINVAL, "a key file cannot do %s: that needs a secret", cb_jwt_alg_text(alg));
    int rc = make_handles(key, private);
    if (rc < 0) return rc;
    if (!private) {
        rc = import_public(key, &data);
    } else {
        int t = gnutls_privkey_import_x509_raw(key->priv, &data, GNUTLS_X509_FMT_PEM, NULL, 0);
        rc = t < 0 ? tls_fail(t, "the PEM has no private key without a password") : derive_public(key);
    }
    return rc < 0 ? rc : settle(key, NULL, alg);
}

/* Keys of other kinds as secrets are how a public key becomes everybody's secret (CVE-2022-29217 and its kin). */
static bool looks_like_key_file(cb_slice s) {
    static const char *const starts[] = {"-----BEGIN", "---- BEGIN", "ssh-", "ecdsa-sha2-", "{", "["};
    size_t at = 0;
    while (at < s.len && (s.base[at] <= ' ' || s.base[at] == 0xef || s.base[at] == 0xbb || s.base[at] == 0xbf))
        at++;
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        size_t n = strlen(starts[i]);
        if (s.len - at >= n && memcmp(s.base + at, starts[i], n) == 0) return true;
    }
    return memmem(s.base, s.len, "-----BEGIN ", 11) != NULL;
}

int cb_jwk_from_secret(cb_jwk *key, cb_slice secret, int alg) {
    *key = (cb_jwk){0};
    const cb_jwa *a = cb_jwa_get(alg);
    if (!a || a->family != CB_JWK_SECRET) return cb_fail(CB_EINVAL, "a secret needs alg HS256, HS384 or HS512");
    if (looks_like_key_file(secret)) return cb_fail(CB_EINVAL, "the secret is text of a key file");
    if (secret.len < a->bytes || secret.len > SECRET_BYTES)
        return cb_fail(CB_EINVAL, "a secret for %s has %u to %d bytes, not %zu", a->name, a->bytes, SECRET_BYTES,
                       secret.len);
    key->jwa = a;
    key->secret = cb_mem_get(&cb_alloc_libc, secret.len);
    if (!key->secret) return cb_fail(CB_ENOMEM, "no memory for a key");
    memcpy(key->secret, secret.base, secret.len);
    key->secret_len = secret.len;
    return CB_OK;
}

/* ---- names ---- */

int cb_jwk_name(cb_jwk *key, const char *kid) {
    uint8_t sum[32];
    cb_buf b;
    if (kid && (!*kid || strlen(kid) > CB_JWK_KID_BYTES))
        return cb_fail(CB_EINVAL, "a kid must have 1 to %d bytes", CB_JWK_KID_BYTES);
    if (kid && !(key->kid = cb_mem_text(&cb_alloc_libc, kid))) return cb_fail(CB_ENOMEM, "no memory for a key");
    gnutls_hash_fast(GNUTLS_DIG_SHA256, key->json ? (void *)key->json : key->secret,
                     key->json ? strlen(key->json) : key->secret_len, sum);
    if (key->json) cb_base64url_encode(key->thumbprint, sum, sizeof sum);
    cb_buf_init(&b, &cb_alloc_libc, 1024);
    int rc = cb_buf_add(&b, sum, sizeof sum);
    if (rc == CB_OK) rc = cb_buf_printf(&b, "%d.%s", key->jwa->alg, kid ? kid : "");
    if (rc == CB_OK) rc = cb_buf_add(&b, kid ? "1" : "0", 1);
    if (rc == CB_OK && gnutls_hash_fast(GNUTLS_DIG_SHA256, b.base, b.len, key->print) < 0)
        rc = cb_fail(CB_EINVAL, "SHA-256 does not work here");
    cb_buf_free(&b);
    return rc;
}

void cb_jwk_clear(cb_jwk *key) {
    if (key->pub) gnutls_pubkey_deinit(key->pub);
    if (key->priv) gnutls_privkey_deinit(key->priv);
    if (key->secret) cb_mem_wipe(key->secret, key->secret_len);
    cb_mem_free(&cb_alloc_libc, key->secret);
    cb_mem_free(&cb_alloc_libc, key->kid);
    cb_mem_free(&cb_alloc_libc, key->json);
    *key = (cb_jwk){0};
}

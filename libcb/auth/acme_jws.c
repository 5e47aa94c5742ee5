#include "auth/acme_jws.h"
#include "auth/base64url.h"
#include "base/error.h"
#include "base/mem.h"
#include <gnutls/crypto.h>
#include <string.h>

enum { SHA256 = 32 };

int cb_acme_base64url(cb_buf *out, const void *bytes, size_t len) {
    int rc = cb_buf_reserve(out, cb_base64url_chars(len) + 1);
    if (rc >= 0) out->len += cb_base64url_encode((char *)out->base + out->len, bytes, len);
    return rc;
}

int64_t cb_acme_base64url_decode(uint8_t *out, size_t cap, const char *text) {
    const size_t len = strlen(text);
    return cb_base64url_room(len) > cap ? CB_EINVAL : cb_base64url_decode(out, text, len);
}

int cb_acme_sha256_text(char out[44], const char *text) {
    uint8_t digest[SHA256];
    int grc = gnutls_hash_fast(GNUTLS_DIG_SHA256, text, strlen(text), digest);
    if (grc < 0) return cb_fail(CB_ETLS, "SHA-256: %s", gnutls_strerror(grc));
    cb_base64url_encode(out, digest, sizeof digest);
    return CB_OK;
}

int cb_acme_key_read(cb_acme_key *key, cb_slice pem) {
    memset(key, 0, sizeof *key);
    int rc = cb_jwk_from_pem(key, pem, CB_JWK_SIGN, CB_JWT_ES256);
    return rc < 0 ? rc : cb_jwk_name(key, NULL);
}

static int sign_es256(cb_buf *out, const cb_acme_key *key, cb_slice text) {
    int rc = cb_buf_reserve(out, CB_JWK_SIG_BYTES);
    if (rc < 0) return rc;
    const int64_t n = cb_jwk_sign(key, text, out->base + out->len);
    if (n < 0) return (int)n;
    out->len += (size_t)n;
    return CB_OK;
}

static int sign_hs256(cb_buf *out, cb_slice secret, cb_slice text) {
    uint8_t mac[SHA256];
    int grc = gnutls_hmac_fast(GNUTLS_MAC_SHA256, secret.base, secret.len, text.base, text.len, mac);
    return grc < 0 ? cb_fail(CB_ETLS, "HMAC: %s", gnutls_strerror(grc)) : cb_buf_add(out, mac, sizeof mac);
}

int cb_acme_jws(cb_buf *out, const cb_acme_key *key, cb_slice secret, cb_slice protected_json, cb_slice payload) {
    cb_buf text, sig;
    size_t dot = 0;
    cb_buf_init(&text, &cb_alloc_libc, out->max);
    cb_buf_init(&sig, &cb_alloc_libc, CB_JWK_SIG_BYTES);
    int rc = cb_acme_base64url(&text, protected_json.base, protected_json.len);
    if (rc >= 0) {
        dot = text.len;
        rc = cb_buf_text(&text, ".");
    }
    if (rc >= 0) rc = cb_acme_base64url(&text, payload.base, payload.len);
    if (rc >= 0) rc = key ? sign_es256(&sig, key, cb_buf_slice(&text)) : sign_hs256(&sig, secret, cb_buf_slice(&text));
    if (rc >= 0) rc = cb_buf_text(out, "{\"protected\":\"");
    if (rc >= 0) rc = cb_buf_add(out, text.base, dot);
    if (rc >= 0) rc = cb_buf_text(out, "\",\"payload\":\"");
    if (rc >= 0) rc = cb_buf_add(out, text.base + dot + 1, text.len - dot - 1);
    if (rc >= 0) rc = cb_buf_text(out, "\",\"signature\":\"");
    if (rc >= 0) rc = cb_acme_base64url(out, sig.base, sig.len);
    if (rc >= 0) rc = cb_buf_text(out, "\"}");
    cb_buf_free(&text);
    cb_buf_free(&sig);
    return rc;
}

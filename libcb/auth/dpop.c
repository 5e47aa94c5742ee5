#include "auth/dpop.h"
#include "auth/base64url.h"
#include "base/error.h"
#include "base/mem.h"
#include <gnutls/crypto.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static int claim(const cb_json *j, const char *name, const char **out, int32_t *reason) {
    *out = cb_json_text(j, j->nodes, name);
    if (*out && strlen(*out) <= CB_DPOP_TEXT_BYTES) return CB_OK;
    return cb_jwt_refuse(reason, CB_JWT_CLAIM, "\"%s\" of the proof is missing, no text or too long", name);
}

static int check_target(const cb_json *j, const cb_dpop_request *r, int32_t *reason) {
    char said[CB_DPOP_URL_BYTES], asked[CB_DPOP_URL_BYTES];
    const char *htm = cb_json_text(j, j->nodes, "htm"), *htu = cb_json_text(j, j->nodes, "htu");
    if (!htm || strcmp(htm, r->method) != 0)
        return cb_jwt_refuse(reason, CB_JWT_DPOP_METHOD, "the proof is for \"%.20s\", not %.20s", htm ? htm : "",
                             r->method);
    if (cb_dpop_url(asked, r->url) < 0) return cb_fail(CB_EINVAL, "cb_dpop_request: url is no URL of http");
    if (htu && cb_dpop_url(said, htu) == CB_OK && strcmp(said, asked) == 0) return CB_OK;
    return cb_jwt_refuse(reason, CB_JWT_DPOP_URL, "the proof is for \"%.200s\", not %.200s", htu ? htu : "", asked);
}

static int check_time(const cb_json *j, const cb_dpop_request *r, uint32_t window_s, uint32_t leeway_s, double *iat,
                      int32_t *reason) {
    double now = (double)r->now_s;
    int rc = cb_jwt_date(j, "iat", iat, reason);
    if (rc < 0) return rc;
    if (isnan(*iat)) return cb_jwt_refuse(reason, CB_JWT_CLAIM, "the proof has no iat");
    if (*iat > now + leeway_s)
        return cb_jwt_refuse(reason, CB_JWT_NOT_YET, "the proof was made %.0f s in the future", *iat - now);
    if (*iat < now - window_s)
        return cb_jwt_refuse(reason, CB_JWT_TOO_OLD, "the proof was made %.0f s ago", now - *iat);
    return CB_OK;
}

static int check_token(const cb_json *j, const cb_dpop_request *r, int32_t *reason) {
    uint8_t sum[32];
    char want[CB_DPOP_JKT_BYTES];
    const char *ath = cb_json_text(j, j->nodes, "ath");
    if (!r->access_token.len) return CB_OK;
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, r->access_token.base, r->access_token.len, sum) < 0)
        return cb_fail(CB_ENOMEM, "SHA-256 does not work here");
    cb_base64url_encode(want, sum, sizeof sum);
    if (ath && strcmp(ath, want) == 0) return CB_OK;
    return cb_jwt_refuse(reason, CB_JWT_DPOP_TOKEN, "the proof is for another access token, or names none");
}

static int read_claims(cb_dpop_proof *out, const cb_json *j, const cb_dpop_request *r, uint32_t window_s,
                       uint32_t leeway_s, int32_t *reason) {
    const char *jti = NULL, *nonce = NULL;
    int rc = claim(j, "jti", &jti, reason);
    if (rc == CB_OK && !*jti) rc = cb_jwt_refuse(reason, CB_JWT_CLAIM, "\"jti\" of the proof is empty");
    if (rc == CB_OK && cb_json_get(j, j->nodes, "nonce", 5)) rc = claim(j, "nonce", &nonce, reason);
    if (rc == CB_OK) rc = check_target(j, r, reason);
    if (rc == CB_OK) rc = check_time(j, r, window_s, leeway_s, &out->iat, reason);
    if (rc == CB_OK) rc = check_token(j, r, reason);
    if (rc < 0) return rc;
    snprintf(out->jti, sizeof out->jti, "%s", jti);
    snprintf(out->nonce, sizeof out->nonce, "%s", nonce ? nonce : "");
    return CB_OK;
}

/* Here the key is in the header: it proves nothing but itself, and the access token says which one it must be. */
static int check_signature(cb_dpop_proof *out, const cb_jws *s, int32_t *reason) {
    const cb_json_node *jwk = cb_json_get(&s->header, s->nodes, "jwk", 3);
    cb_jwk key = {0};
    int rc = jwk ? cb_jwk_read(&key, &s->header, jwk, CB_JWK_EMBEDDED, s->jwa->alg) : CB_EINVAL;
    if (rc == CB_OK) rc = cb_jwk_name(&key, NULL);
    if (rc == CB_OK) {
        int verdict = cb_jwk_verify(&key, s->signed_bytes, (cb_slice){s->sig_bytes, s->sig_len});
        memcpy(out->jkt, key.thumbprint, sizeof out->jkt);
        if (verdict != CB_JWT_GOOD) rc = cb_jwt_refuse(reason, verdict, "the signature of the proof is wrong");
    } else if (rc == CB_EINVAL) {
        char why[200];
        snprintf(why, sizeof why, "%s", jwk ? cb_last_error() : "it is missing");
        rc = cb_jwt_refuse(reason, CB_JWT_DPOP_KEY, "the jwk of the proof: %s", why);
    }
    cb_jwk_clear(&key);
    return rc;
}

/* What costs little comes first, the signature last: the sender of junk pays more than we do. */
int cb_dpop_read(cb_dpop_proof *out, const cb_dpop_request *r, uint32_t window_s, uint32_t leeway_s, int32_t *reason) {
    cb_jws s;
    void *block = NULL;
    cb_json claims;
    size_t bytes = 0;
    int rc = cb_jws_read(&s, r->proof, CB_JWT_TOKEN_BYTES, reason);
    if (rc < 0) return rc;
    if (!s.typ || (strcasecmp(s.typ, "dpop+jwt") != 0 && strcasecmp(s.typ, "application/dpop+jwt") != 0))
        return cb_jwt_refuse(reason, CB_JWT_TYPE, "typ of the proof is \"%.40s\", not dpop+jwt", s.typ ? s.typ : "");
    if (s.jwa->family == CB_JWK_SECRET)
        return cb_jwt_refuse(reason, CB_JWT_ALG, "a proof cannot be made with %s", s.jwa->name);
    rc = cb_jwt_payload(&block, 0, s.payload, &claims, &bytes, reason);
    if (rc < 0) return rc;
    rc = read_claims(out, &claims, r, window_s, leeway_s, reason);
    cb_mem_free(&cb_alloc_libc, block);
    return rc == CB_OK ? check_signature(out, &s, reason) : rc;
}

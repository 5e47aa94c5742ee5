#include "auth/oidc_answer.h"
#include "auth/base64url.h"
#include "base/error.h"
#include "http/web.h"
#include <gnutls/crypto.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { LEEWAY_S = 30, DEVICE_INTERVAL_S = 5, DEVICE_MAX_S = 3600 };

static const cb_json_node *member(const cb_json *j, const char *name) {
    return cb_json_get(j, j->nodes, name, strlen(name));
}

/* A text member that may be absent; *out NULL then. */
static int text_of(const cb_json *j, const char *name, const char **out) {
    const cb_json_node *at = member(j, name);
    *out = NULL;
    if (!at || at->kind == CB_JSON_NULL) return CB_OK;
    if (at->kind != CB_JSON_TEXT) return cb_fail(CB_EPROTO, "\"%s\" is no text", name);
    *out = j->text + at->at;
    return CB_OK;
}

/* A number of seconds that may be absent; -1 then. Some providers write it as a text. */
static int seconds_of(const cb_json *j, const char *name, int64_t *out) {
    const cb_json_node *at = member(j, name);
    *out = -1;
    if (!at || at->kind == CB_JSON_NULL) return CB_OK;
    const bool digits = at->kind == CB_JSON_TEXT && at->len && strspn(j->text + at->at, "0123456789") == at->len;
    const double v = at->kind == CB_JSON_NUMBER || digits ? cb_json_number(j, at) : -1;
    if (!(v >= 0 && v < 4e9)) return cb_fail(CB_EPROTO, "\"%s\" is no number of seconds", name);
    *out = (int64_t)v;
    return CB_OK;
}

/* Printable and without spaces (RFC 6749 appendix A), so that it cannot end a field. */
static bool token_text(const char *text) {
    if (!*text) return false;
    for (; *text; text++)
        if (*text <= ' ' || *text >= 0x7f) return false;
    return true;
}

int cb_oidc_error_read(const cb_oidc_answer *a, const char *what, char error[64]) {
    char words[300] = "";
    const char *code = NULL, *text = NULL;
    cb_json j = {0};
    error[0] = '\0';
    if (a->status < 400 || a->status > 499 || a->status == 429) return CB_OK;
    if (cb_web_is_type(a->content_type, "application/json") && cb_oidc_open(&j, a, what) == CB_OK) {
        if (text_of(&j, "error", &code) < 0) code = NULL;
        if (text_of(&j, "error_description", &text) < 0) text = NULL;
    }
    cb_web_plain(error, 64, code);
    cb_web_plain(words, sizeof words, text);
    cb_json_close(&j);
    return cb_fail(CB_EAUTH, "%s: status %d%s%s%s%s", what, a->status, *error ? ": " : "", error, *words ? ": " : "",
                   words);
}

int cb_oidc_tokens_read(cb_oidc_tokens *out, cb_json *j, const cb_oidc_answer *a, int64_t now_s) {
    cb_oidc_tokens t = {.size = sizeof t, .received_at_s = now_s};
    int64_t lifetime = -1;
    int rc = cb_oidc_answer_check(a, "token");
    if (rc == CB_OK) rc = cb_oidc_open(j, a, "token");
    if (rc == CB_OK) rc = text_of(j, "access_token", &t.access_token);
    if (rc == CB_OK) rc = text_of(j, "token_type", &t.token_type);
    if (rc == CB_OK) rc = text_of(j, "refresh_token", &t.refresh_token);
    if (rc == CB_OK) rc = text_of(j, "id_token", &t.id_token);
    if (rc == CB_OK) rc = text_of(j, "scope", &t.scope);
    if (rc == CB_OK) rc = seconds_of(j, "expires_in", &lifetime);
    if (rc < 0) return rc;
    if (!t.access_token || !token_text(t.access_token)) return cb_fail(CB_EPROTO, "token: no usable access_token");
    if (!t.token_type || (strcasecmp(t.token_type, "Bearer") != 0 && strcasecmp(t.token_type, "DPoP") != 0))
        return cb_fail(CB_EPROTO, "token: the token_type is neither Bearer nor DPoP");
    if (t.refresh_token && !token_text(t.refresh_token)) return cb_fail(CB_EPROTO, "token: no usable refresh_token");
    t.expires_at_s = lifetime < 0 ? 0 : now_s + lifetime;
    *out = t;
    return CB_OK;
}

/* The page is shown to a person: it may be on another host, but not lead anywhere else than to the web. */
static int page(const cb_oidc_conf *conf, const char *url, const char *what) {
    cb_oidc_conf any = *conf;
    any.other_hosts = true;
    return url ? cb_oidc_url_check(&any, url, what) : CB_OK;
}

int cb_oidc_device_read(cb_oidc_device *out, const char **code, uint32_t *interval_s, cb_json *j,
                        const cb_oidc_conf *conf, const cb_oidc_answer *a, int64_t now_s) {
    cb_oidc_device d = {.size = sizeof d};
    int64_t lifetime = -1, interval = -1;
    int rc = cb_oidc_answer_check(a, "device");
    if (rc == CB_OK) rc = cb_oidc_open(j, a, "device");
    if (rc == CB_OK) rc = text_of(j, "device_code", code);
    if (rc == CB_OK) rc = text_of(j, "user_code", &d.user_code);
    if (rc == CB_OK) rc = text_of(j, "verification_uri", &d.url);
    if (rc == CB_OK) rc = text_of(j, "verification_uri_complete", &d.url_complete);
    if (rc == CB_OK) rc = seconds_of(j, "expires_in", &lifetime);
    if (rc == CB_OK) rc = seconds_of(j, "interval", &interval);
    if (rc == CB_OK && (!*code || !**code || !d.user_code || !token_text(d.user_code) || !d.url || lifetime < 0))
        rc = cb_fail(CB_EPROTO, "device: device_code, user_code, verification_uri or expires_in is missing");
    if (rc == CB_OK) rc = page(conf, d.url, "verification_uri");
    if (rc == CB_OK) rc = page(conf, d.url_complete, "verification_uri_complete");
    if (rc < 0) return rc;
    d.expires_at_s = now_s + (lifetime < DEVICE_MAX_S ? lifetime : DEVICE_MAX_S);
    *interval_s = interval < 0 ? DEVICE_INTERVAL_S : interval < 60 ? (uint32_t)interval : 60;
    *out = d;
    return CB_OK;
}

int cb_oidc_active_read(cb_jwt **out, const cb_oidc_conf *conf, const cb_oidc_answer *a, int32_t *reason) {
    char why[300];
    cb_json j;
    cb_jwt *t = NULL;
    *reason = CB_JWT_GOOD;
    int rc = cb_oidc_answer_check(a, "introspection");
    if (rc == CB_EAUTH) return cb_fail(CB_EPROTO, "introspection: status %d: it does not take our client", a->status);
    if (rc == CB_OK) rc = cb_oidc_open(&j, a, "introspection");
    if (rc < 0) return rc;
    const cb_json_node *active = member(&j, "active");
    const int kind = active ? active->kind : 0;
    cb_json_close(&j);
    if (kind == CB_JSON_FALSE) return cb_jwt_refuse(reason, CB_JWT_INACTIVE, "the token is not active");
    if (kind != CB_JSON_TRUE) return cb_fail(CB_EPROTO, "introspection: \"active\" is neither true nor false");
    rc = cb_jwt_from_claims(&t, a->body, conf->issuer, reason);
    if (rc == CB_EAUTH) {
        snprintf(why, sizeof why, "%s", cb_last_error());
        *reason = CB_JWT_GOOD;
        return cb_fail(CB_EPROTO, "introspection: %s", why);
    }
    if (rc < 0) return rc;
    if (strcmp(t->issuer, conf->issuer) != 0) {
        rc = cb_jwt_refuse(reason, CB_JWT_ISSUER, "iss is \"%.200s\", not \"%.200s\"", t->issuer, conf->issuer);
        cb_jwt_unref(t);
        return rc;
    }
    *out = t;
    return CB_OK;
}

/* ---- ID tokens ---- */

/* The left half of the hash that goes with the signature's algorithm. */
static int check_at_hash(const cb_jwt *t, const char *access_token, int32_t *reason) {
    const char *want = cb_jwt_text(t, "at_hash");
    uint8_t digest[64];
    char text[64];
    if (!want) return CB_OK;
    const char *alg = cb_jwt_alg_text(t->alg);
    const size_t n = strlen(alg);
    const bool b256 = n > 3 && strcmp(alg + n - 3, "256") == 0, b384 = n > 3 && strcmp(alg + n - 3, "384") == 0;
    const gnutls_digest_algorithm_t hash = b256 ? GNUTLS_DIG_SHA256 : b384 ? GNUTLS_DIG_SHA384 : GNUTLS_DIG_SHA512;
    if (gnutls_hash_fast(hash, access_token, strlen(access_token), digest) < 0) return cb_fail(CB_ETLS, "no SHA-2");
    cb_base64url_encode(text, digest, b256 ? 16 : b384 ? 24 : 32);
    if (strcmp(text, want) == 0) return CB_OK;
    return cb_jwt_refuse(reason, CB_JWT_CLAIM, "at_hash is not that of the access token");
}

/* OpenID Connect Core 3.1.2.1: with max_age, auth_time is there. */
static int check_age(const cb_jwt *t, uint32_t max_age_s, int64_t now_s, int32_t *reason) {
    double at;
    if (!max_age_s) return CB_OK;
    int rc = cb_jwt_date(&t->claims, "auth_time", &at, reason);
    if (rc < 0) return rc;
    if (!isnan(at) && (double)now_s <= at + max_age_s + LEEWAY_S) return CB_OK;
    return cb_jwt_refuse(reason, CB_JWT_TOO_OLD, "auth_time is missing or longer ago than %u s", max_age_s);
}

static int check_party(const cb_jwt *t, const cb_oidc_conf *conf, const char *nonce, int32_t *reason) {
    const char *azp = cb_jwt_text(t, "azp"), *got = cb_jwt_text(t, "nonce");
    if (azp ? strcmp(azp, conf->client_id) != 0 : cb_jwt_audience(t, 1) != NULL)
        return cb_jwt_refuse(reason, CB_JWT_AUDIENCE, "azp is %s",
                             azp ? "another client" : "missing beside several aud");
    if (!cb_jwt_subject(t)) return cb_jwt_refuse(reason, CB_JWT_CLAIM, "an ID token without sub");
    if (isnan(t->iat)) return cb_jwt_refuse(reason, CB_JWT_CLAIM, "an ID token without iat");
    if (nonce && (!got || strcmp(got, nonce) != 0))
        return cb_jwt_refuse(reason, CB_JWT_CLAIM, "the ID token has another nonce, or none");
    return CB_OK;
}

int cb_oidc_identity_check(cb_jwt **out, const cb_oidc_conf *conf, const cb_jwks *keys, const cb_oidc_tokens *tokens,
                           const cb_oidc_asked *asked, int64_t now_s, int32_t *reason) {
    const char *const audience[] = {conf->client_id};
    const cb_jwt_rules rules = {.size = sizeof rules,
                                .issuer = conf->issuer,
                                .audiences = audience,
                                .audiences_len = 1,
                                .max_token_bytes = CB_JWT_TOKEN_BYTES_MAX};
    cb_jwt_rules r;
    cb_jwt_facts f;
    cb_jwt *t = NULL;
    int rc = cb_jwt_rules_read(&r, &f, &rules, CB_OPTS(cb_jwt_facts, .now_s = now_s));
    if (rc == CB_OK) rc = cb_jwt_open(&t, cb_slice_str(tokens->id_token), keys, r.max_token_bytes, reason);
    if (rc == CB_OK) rc = cb_jwt_judge(t, &r, &f, reason);
    if (rc == CB_OK) rc = check_party(t, conf, asked->nonce, reason);
    if (rc == CB_OK) rc = check_age(t, asked->max_age_s, now_s, reason);
    if (rc == CB_OK) rc = check_at_hash(t, tokens->access_token, reason);
    if (rc < 0) {
        cb_jwt_unref(t);
        return rc;
    }
    *out = t;
    return CB_OK;
}

/* Are the claims of a token what a route asks for? And the names of the reasons why not. */
#include "auth/base64url.h"
#include "auth/jwt.h"
#include "base/error.h"
#include "base/opts.h"
#include <math.h>
#include <string.h>
#include <strings.h>

enum { LEEWAY_S = 30, LEEWAY_MAX_S = 300 };

const char *cb_jwt_reason_text(int reason) {
    static const char *const names[] = {
        "good",     "size",       "format",     "encrypted",   "base64",    "json",        "duplicate",
        "header",   "alg",        "crit",       "unencoded",   "kid",       "unknown-key", "key-alg",
        "sig-form", "signature",  "type",       "claim",       "issuer",    "audience",    "no-expiry",
        "expired",  "not-yet",    "too-old",    "revoked",     "binding",   "dpop-key",    "dpop-method",
        "dpop-url", "dpop-token", "dpop-nonce", "dpop-replay", "dpop-full", "inactive"};
    return reason >= 0 && reason <= CB_JWT_INACTIVE ? names[reason] : "unknown";
}

int cb_jwt_rules_read(cb_jwt_rules *r, cb_jwt_facts *f, const cb_jwt_rules *given, const cb_jwt_facts *seen) {
    if (!given || !seen) return cb_fail(CB_EINVAL, "a token is judged by rules and facts: one is NULL");
    int rc = cb_opts_read(r, sizeof *r, given, "cb_jwt_rules");
    if (rc == CB_OK) rc = cb_opts_read(f, sizeof *f, seen, "cb_jwt_facts");
    if (rc < 0) return rc;
    if (f->now_s <= 0) return cb_fail(CB_EINVAL, "cb_jwt_facts: now_s is needed");
    if (!r->issuer && !r->any_issuer) return cb_fail(CB_EINVAL, "cb_jwt_rules: issuer is needed (or any_issuer)");
    if (!r->audiences_len && !r->any_audience)
        return cb_fail(CB_EINVAL, "cb_jwt_rules: audiences are needed (or any_audience)");
    if (r->audiences_len && !r->audiences) return cb_fail(CB_EINVAL, "cb_jwt_rules: audiences is NULL");
    if (r->leeway_s < -1 || r->leeway_s > LEEWAY_MAX_S)
        return cb_fail(CB_EINVAL, "cb_jwt_rules: leeway_s is -1 to %d", LEEWAY_MAX_S);
    if (r->max_token_bytes > CB_JWT_TOKEN_BYTES_MAX)
        return cb_fail(CB_EINVAL, "cb_jwt_rules: max_token_bytes is at most %d", CB_JWT_TOKEN_BYTES_MAX);
    r->leeway_s = r->leeway_s == 0 ? LEEWAY_S : r->leeway_s < 0 ? 0 : r->leeway_s;
    if (!r->max_token_bytes) r->max_token_bytes = CB_JWT_TOKEN_BYTES;
    return CB_OK;
}

/* RFC 7515 4.1.9: media types, where "application/" may be left out. */
static bool type_is(const char *typ, const char *want) {
    if (strncasecmp(typ, "application/", 12) == 0) typ += 12;
    if (strncasecmp(want, "application/", 12) == 0) want += 12;
    return strcasecmp(typ, want) == 0;
}

static int judge_source(const cb_jwt *t, const cb_jwt_rules *r, int32_t *reason) {
    if (r->typ && (!t->typ || !type_is(t->typ, r->typ)))
        return cb_jwt_refuse(reason, CB_JWT_TYPE, "typ is \"%.40s\", not \"%.40s\"", t->typ ? t->typ : "", r->typ);
    if (!r->any_issuer && (!t->issuer || strcmp(t->issuer, r->issuer) != 0))
        return cb_jwt_refuse(reason, CB_JWT_ISSUER, "iss is \"%.200s\", not \"%.200s\"", t->issuer ? t->issuer : "",
                             r->issuer);
    if (r->any_audience) return CB_OK;
    for (size_t i = 0; i < r->audiences_len; i++)
        if (r->audiences[i] && cb_jwt_has(t, "aud", r->audiences[i])) return CB_OK;
    return cb_jwt_refuse(reason, CB_JWT_AUDIENCE, "aud does not have \"%.200s\"",
                         r->audiences[0] ? r->audiences[0] : "");
}

static int judge_time(const cb_jwt *t, const cb_jwt_rules *r, double now, int32_t *reason) {
    double leeway = r->leeway_s;
    if (isnan(t->exp) && !r->exp_optional) return cb_jwt_refuse(reason, CB_JWT_NO_EXPIRY, "the token has no exp");
    if (!isnan(t->exp) && now >= t->exp + leeway)
        return cb_jwt_refuse(reason, CB_JWT_EXPIRED, "the token expired %.0f s ago", now - t->exp);
    if (!isnan(t->nbf) && now + leeway < t->nbf)
        return cb_jwt_refuse(reason, CB_JWT_NOT_YET, "the token becomes valid in %.0f s (nbf)", t->nbf - now);
    if (!isnan(t->iat) && now + leeway < t->iat)
        return cb_jwt_refuse(reason, CB_JWT_NOT_YET, "the token was issued %.0f s in the future (iat)", t->iat - now);
    if (r->max_age_s && (isnan(t->iat) || now > t->iat + r->max_age_s + leeway))
        return cb_jwt_refuse(reason, CB_JWT_TOO_OLD, "the token has no iat, or one older than %u s", r->max_age_s);
    return CB_OK;
}

int cb_jwt_judge_time(const cb_jwt *t, int64_t now_s, int32_t *reason) {
    const cb_jwt_rules rules = {.exp_optional = 1, .leeway_s = LEEWAY_S};
    return judge_time(t, &rules, (double)now_s, reason);
}

/* Every binding that the token names must hold (RFC 8705 3, RFC 9449 6). */
static int judge_binding(const cb_jwt *t, const cb_jwt_rules *r, const cb_jwt_facts *f, int32_t *reason) {
    char print[CB_DPOP_JKT_BYTES];
    if (t->bound_cert) {
        if (!f->cert_sha256)
            return cb_jwt_refuse(reason, CB_JWT_BINDING, "the token is bound to a certificate, and none was shown");
        cb_base64url_encode(print, f->cert_sha256, 32);
        if (strcmp(print, t->bound_cert) != 0)
            return cb_jwt_refuse(reason, CB_JWT_BINDING, "the token is bound to another certificate");
    }
    if (t->bound_key && (!f->jkt || strcmp(f->jkt, t->bound_key) != 0))
        return cb_jwt_refuse(reason, CB_JWT_BINDING, "the token is bound to %s",
                             f->jkt ? "another key" : "a key: DPoP is needed");
    if (r->need_binding && !t->bound_cert && !t->bound_key)
        return cb_jwt_refuse(reason, CB_JWT_BINDING, "the token is not bound to a certificate or key");
    return CB_OK;
}

int cb_jwt_judge(const cb_jwt *t, const cb_jwt_rules *r, const cb_jwt_facts *f, int32_t *reason) {
    int rc = judge_source(t, r, reason);
    if (rc == CB_OK) rc = judge_time(t, r, (double)f->now_s, reason);
    return rc == CB_OK ? judge_binding(t, r, f, reason) : rc;
}

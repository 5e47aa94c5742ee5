/* What a verified token says. */
#include "auth/claims.h"
#include "auth/jwt.h"
#include "base/error.h"
#include <math.h>

int cb_jwt_claim(const cb_jwt *t, const char *path, cb_claim *out) {
    const cb_json_node *at = cb_claims_find(&t->claims, path);
    if (!at) return cb_fail(CB_ENOENT, "the token has no claim \"%.80s\"", path);
    cb_claims_give(&t->claims, at, out);
    return CB_OK;
}

int cb_jwt_claim_next(const cb_jwt *t, const cb_claim *of, uint32_t *it, cb_claim *out) {
    return cb_claims_next(&t->claims, of, it, out);
}

int cb_jwt_has(const cb_jwt *t, const char *path, const char *text) {
    return cb_claims_has(&t->claims, path, text);
}

int cb_jwt_has_scope(const cb_jwt *t, const char *scope) {
    return cb_claims_has_scope(&t->claims, scope);
}

const char *cb_jwt_text(const cb_jwt *t, const char *path) {
    return cb_claims_text(&t->claims, path);
}

const char *cb_jwt_audience(const cb_jwt *t, size_t i) {
    const cb_json *j = &t->claims;
    const cb_json_node *aud = cb_json_get(j, j->nodes, "aud", 3);
    if (!aud) return NULL;
    if (aud->kind == CB_JSON_TEXT) return i ? NULL : j->text + aud->at;
    const cb_json_node *at = cb_json_first(j, aud);
    while (at && i--)
        at = cb_json_next(j, aud, at);
    return at ? j->text + at->at : NULL;
}

const char *cb_jwt_issuer(const cb_jwt *t) {
    return t->issuer;
}

const char *cb_jwt_subject(const cb_jwt *t) {
    return t->subject;
}

const char *cb_jwt_type(const cb_jwt *t) {
    return t->typ;
}

const char *cb_jwt_kid(const cb_jwt *t) {
    return t->kid;
}

int cb_jwt_algorithm(const cb_jwt *t) {
    return t->alg;
}

int64_t cb_jwt_expires(const cb_jwt *t) {
    return isnan(t->exp) ? 0 : (int64_t)t->exp;
}

const char *cb_jwt_bound_cert(const cb_jwt *t) {
    return t->bound_cert;
}

const char *cb_jwt_bound_key(const cb_jwt *t) {
    return t->bound_key;
}

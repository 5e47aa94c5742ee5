/* Signature, claims and revocation together. */
#include "auth/jwt.h"
#include "auth/revocations.h"
#include "base/error.h"
#include <math.h>

int cb_jwt_check_read(const cb_jwt *t, const cb_jwt_rules *r, const cb_jwt_facts *f, int32_t *reason) {
    int rc = cb_jwt_judge(t, r, f, reason);
    if (rc < 0 || !r->revocations || !cb_revocations_hit(r->revocations, t->issuer, t->jti, t->subject, t->iat))
        return rc;
    return cb_jwt_refuse(reason, CB_JWT_REVOKED, "the token was revoked");
}

int cb_jwt_check(const cb_jwt *t, const cb_jwt_rules *rules, const cb_jwt_facts *facts, int32_t *reason) {
    cb_jwt_rules r;
    cb_jwt_facts f;
    if (!t) return cb_fail(CB_EINVAL, "cb_jwt_check: no token");
    int rc = cb_jwt_rules_read(&r, &f, rules, facts);
    if (reason) *reason = CB_JWT_GOOD;
    return rc < 0 ? rc : cb_jwt_check_read(t, &r, &f, reason);
}

int cb_jwt_verify(cb_jwt **out, cb_slice token, const cb_jwks *keys, const cb_jwt_rules *rules,
                  const cb_jwt_facts *facts, int32_t *reason) {
    cb_jwt_rules r;
    cb_jwt_facts f;
    cb_jwt *t = NULL;
    if (!out || !keys) return cb_fail(CB_EINVAL, "cb_jwt_verify: out and keys are needed");
    int rc = cb_jwt_rules_read(&r, &f, rules, facts);
    if (reason) *reason = CB_JWT_GOOD;
    if (rc == CB_OK) rc = cb_jwt_open(&t, token, keys, r.max_token_bytes, reason);
    if (rc == CB_OK) rc = cb_jwt_check_read(t, &r, &f, reason);
    if (rc < 0) {
        cb_jwt_unref(t);
        return rc;
    }
    *out = t;
    return CB_OK;
}

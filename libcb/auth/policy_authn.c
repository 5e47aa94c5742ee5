/* Requests of those whom a gate has let in. */
#include "auth/authn_int.h"
#include "auth/claims.h"
#include "base/error.h"
#include <cb/policy.h>

static int claim(const char *path, uint32_t *it, cb_slice *value, void *user) {
    const cb_json *claims = user;
    return cb_claims_value(claims, cb_claims_find(claims, path), it, value);
}

static cb_slice text_of(const char *text) {
    return cb_slice_str(text ? text : "");
}

int cb_policy_request_of(cb_policy_request *out, const cb_authn_call *call) {
    if (!out || !call) return cb_fail(CB_EINVAL, "cb_policy_request_of: %s is NULL", out ? "call" : "out");
    const cb_principal *who = cb_authn_principal(call);
    *out = (cb_policy_request){.size = sizeof *out,
                               .tenant = text_of(who->tenant),
                               .subject = text_of(who->subject),
                               .spiffe_id = text_of(who->spiffe_id),
                               .roles = who->roles,
                               .roles_len = who->n_roles,
                               .mtls = who->with_cert};
    if (!call->claims) return CB_OK;
    out->issuer = text_of(cb_claims_text(call->claims, "iss"));
    out->claim = claim;
    out->user = (void *)(uintptr_t)call->claims;
    return CB_OK;
}

/* What a refusal says to the client: challenges of RFC 6750 and RFC 9449. */
#include "auth/authn_int.h"
#include "base/error.h"
#include "http/fields.h"
#include <string.h>

/* As much as all of it can take: realm, scopes and a reason, three times. Slices into the buffer stay. */
enum { ROOM = 8192 };

static const char *const error_names[] = {
    [CB_AUTHN_ERROR_NONE] = "",
    [CB_AUTHN_INVALID_REQUEST] = "invalid_request",
    [CB_AUTHN_INVALID_TOKEN] = "invalid_token",
    [CB_AUTHN_INSUFFICIENT_SCOPE] = "insufficient_scope",
    [CB_AUTHN_INVALID_PROOF] = "invalid_dpop_proof",
    [CB_AUTHN_USE_NONCE] = "use_dpop_nonce",
};

static void add(cb_authn_call *c, const char *text) {
    if (c->text.cap - c->text.len > strlen(text)) cb_buf_text(&c->text, text);
}

static void add_pair(cb_authn_call *c, const char *before, const char *name, const char *value) {
    add(c, before);
    add(c, name);
    add(c, "=\"");
    add(c, value);
    add(c, "\"");
}

static void put(cb_authn_call *c, const char *name, size_t from) {
    c->challenges[c->n_challenges++] =
        (cb_field){cb_slice_str(name), (cb_slice){c->text.base + from, c->text.len - from}};
}

/* with_error: the client has used this scheme, or none. */
static void challenge(cb_authn_call *c, const char *scheme, const char *more, bool with_error) {
    const cb_authn *a = c->authn;
    size_t from = c->text.len;
    add(c, scheme);
    add_pair(c, " ", "realm", a->realm);
    if (with_error && c->refusal.error) {
        add_pair(c, ", ", "error", error_names[c->refusal.error]);
        add_pair(c, ", ", "error_description", c->refusal.reason);
    }
    if (a->scope_text && (c->refusal.error == CB_AUTHN_INSUFFICIENT_SCOPE || !c->refusal.error))
        add_pair(c, ", ", "scope", a->scope_text);
    add(c, more);
    put(c, "www-authenticate", from);
}

static bool has_keys(const cb_authn *a) {
    for (size_t i = 0; i < a->n; i++)
        if (a->sources[i]->vt->kind == CB_AUTHN_API_KEY) return true;
    return false;
}

void cb_authn_challenge(cb_authn_call *c) {
    static const char algs[] = ", algs=\"ES256 ES384 ES512 EdDSA Ed25519 RS256 PS256\"";
    const cb_authn *a = c->authn;
    int status = c->refusal.status, error = c->refusal.error;
    bool dpop_used = cb_slice_ieq(c->scheme, "dpop");
    bool of_scheme = status == 401 || error == CB_AUTHN_INSUFFICIENT_SCOPE || error == CB_AUTHN_INVALID_REQUEST;
    if (cb_buf_reserve(&c->text, ROOM) < 0) return; /* the status says enough */
    if (status == 503) {
        size_t from = c->text.len;
        add(c, "1");
        put(c, "retry-after", from);
    }
    if (!of_scheme) return;
    if (a->dpop) challenge(c, "DPoP", algs, dpop_used || !a->bearer);
    if (a->bearer) challenge(c, "Bearer", "", !dpop_used);
    if (has_keys(a)) challenge(c, "ApiKey", "", !a->bearer && !a->dpop);
    if (c->nonce_of && error == CB_AUTHN_USE_NONCE) {
        char nonce[CB_DPOP_NONCE_BYTES];
        size_t from = c->text.len;
        cb_dpop_nonce(c->nonce_of, c->request.now_s, nonce);
        add(c, nonce);
        put(c, "dpop-nonce", from);
    }
}

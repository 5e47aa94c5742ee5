/* Signed tokens as a source, with proofs of possession. */
#include "auth/authn_int.h"
#include "auth/dpop.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "http/fields.h"
#include <stdio.h>
#include <string.h>

enum { METHOD_BYTES = 32 };

typedef struct jwt_source {
    cb_authn_source head;
    cb_jwks *keys;     /* or: */
    cb_oidc *provider; /* whose keys they are */
    cb_jwt_cache *cache;
    cb_dpop *dpop;
    cb_authn_rules with;
} jwt_source;

static void jwt_free(cb_authn_source *head) {
    jwt_source *s = (jwt_source *)head;
    cb_jwks_unref(s->keys);
    cb_oidc_unref(s->provider);
    cb_jwt_cache_unref(s->cache);
    cb_dpop_unref(s->dpop);
    cb_authn_rules_clear(&s->with);
}

/* ---- proofs (RFC 9449, 4.3 and 7.1) ---- */

/* The URL as the client sees it; longer ones match no proof. */
static bool request_url(const cb_authn_request *r, char out[CB_DPOP_URL_BYTES]) {
    int n =
        snprintf(out, CB_DPOP_URL_BYTES, "%.*s://%.*s%.*s", (int)r->scheme.len, (const char *)r->scheme.base,
                 (int)r->authority.len, (const char *)r->authority.base, (int)r->path.len, (const char *)r->path.base);
    return r->scheme.len && r->authority.len && n > 0 && n < CB_DPOP_URL_BYTES;
}

/* The signature and the request are right, no more: the token must be good before the proof is remembered. */
static int look_at_proof(const jwt_source *s, cb_authn_call *c, cb_dpop_proof *out) {
    const cb_authn_request *r = &c->request;
    char url[CB_DPOP_URL_BYTES], method[METHOD_BYTES];
    int32_t reason = 0;
    if (c->n_proof != 1)
        return cb_authn_deny(c, 401, CB_AUTHN_INVALID_PROOF, 1, c->n_proof ? "two-proofs" : "no-proof");
    if (!request_url(r, url) || r->method.len >= sizeof method)
        return cb_authn_deny(c, 401, CB_AUTHN_INVALID_PROOF, 1, cb_jwt_reason_text(CB_JWT_DPOP_URL));
    memcpy(method, r->method.base, r->method.len);
    method[r->method.len] = '\0';
    const cb_dpop_request q = {
        .size = sizeof q, .proof = c->proof, .method = method, .url = url, .access_token = c->token, .now_s = r->now_s};
    int rc = cb_dpop_look(s->dpop, out, &q, &reason);
    return rc == CB_EAUTH ? cb_authn_deny(c, 401, CB_AUTHN_INVALID_PROOF, 1, cb_jwt_reason_text(reason)) : rc;
}

static int remember_proof(const jwt_source *s, cb_authn_call *c, const cb_dpop_proof *proof) {
    int32_t reason = 0;
    int rc = cb_dpop_remember(s->dpop, proof, c->request.now_s, &reason);
    if (rc != CB_EAUTH) return rc;
    if (reason == CB_JWT_DPOP_FULL) return cb_authn_deny(c, 503, CB_AUTHN_ERROR_NONE, 2, cb_jwt_reason_text(reason));
    bool nonce = reason == CB_JWT_DPOP_NONCE;
    if (nonce) c->nonce_of = s->dpop;
    return cb_authn_deny(c, 401, nonce ? CB_AUTHN_USE_NONCE : CB_AUTHN_INVALID_PROOF, 1, cb_jwt_reason_text(reason));
}

/* ---- tokens ---- */

/* Is it a token of somebody else, whom another source may know? */
static bool foreign(int reason) {
    static const uint8_t rows[] = {CB_JWT_FORMAT,  CB_JWT_ENCRYPTED, CB_JWT_UNKNOWN_KEY,
                                   CB_JWT_KEY_ALG, CB_JWT_SIG_FORM,  CB_JWT_SIGNATURE,
                                   CB_JWT_TYPE,    CB_JWT_ISSUER,    CB_JWT_AUDIENCE};
    return memchr(rows, reason, sizeof rows) != NULL;
}

static int verify(const jwt_source *s, cb_authn_call *c, cb_jwt **out, const char *jkt) {
    const cb_jwt_facts facts = cb_authn_facts(c, jkt);
    int32_t reason = 0;
    int rc = s->provider ? cb_oidc_verify(s->provider, s->cache, out, c->token, &s->with.rules, &facts, &reason)
                         : cb_jwt_cache_verify(s->cache, out, c->token, s->keys, &s->with.rules, &facts, &reason);
    if (rc == CB_EAGAIN) return cb_authn_deny(c, 503, CB_AUTHN_ERROR_NONE, 2, "provider");
    if (rc != CB_EAUTH) return rc;
    return cb_authn_deny(c, 401, CB_AUTHN_INVALID_TOKEN, !foreign(reason), cb_jwt_reason_text(reason));
}

static int jwt_judge(const cb_authn_source *head, cb_authn_call *c, cb_authn_part *out) {
    const jwt_source *s = (const jwt_source *)head;
    cb_dpop_proof proof;
    cb_jwt *token = NULL;
    int rc = cb_authn_scheme(head, c);
    if (rc != CB_OK) return rc;
    bool dpop = cb_slice_ieq(c->scheme, "dpop");
    if (dpop) rc = look_at_proof(s, c, &proof);
    if (rc == CB_OK) rc = verify(s, c, &token, dpop ? proof.jkt : NULL);
    if (rc < 0) return rc;
    /* RFC 9449, 7.1: the scheme DPoP is for tokens that are bound to the key. */
    if (dpop && !token->bound_key)
        rc = cb_authn_deny(c, 401, CB_AUTHN_INVALID_TOKEN, 1, cb_jwt_reason_text(CB_JWT_BINDING));
    if (dpop && rc == CB_OK) rc = remember_proof(s, c, &proof);
    if (rc < 0) {
        cb_jwt_unref(token);
        return rc;
    }
    out->claims = token->claims;
    out->token = token;
    return CB_OK;
}

static const cb_authn_source_vt jwt_vt = {
    .kind = CB_AUTHN_JWT, .carrier = CB_CARRIER_AUTHORIZATION, .judge = jwt_judge, .free = jwt_free};

int cb_authn_source_jwt(cb_authn_source **out, const cb_authn_jwt_opts *opts) {
    cb_authn_jwt_opts o;
    cb_authn_source *head = NULL;
    if (!out) return cb_fail(CB_EINVAL, "cb_authn_source_jwt: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_authn_jwt_opts");
    if (rc < 0) return rc;
    if (!o.keys == !o.provider || !o.rules)
        return cb_fail(CB_EINVAL, "cb_authn_jwt_opts: rules, and keys or a provider, are needed");
    if (o.need_dpop && !o.dpop) return cb_fail(CB_EINVAL, "cb_authn_jwt_opts: need_dpop needs dpop");
    rc = cb_authn_source_make(&head, sizeof(jwt_source), &jwt_vt, o.name, o.claims, NULL);
    if (rc < 0) return rc;
    jwt_source *s = (jwt_source *)head;
    s->keys = o.keys ? cb_jwks_ref(o.keys) : NULL;
    s->provider = o.provider ? cb_oidc_ref(o.provider) : NULL;
    s->dpop = o.dpop ? cb_dpop_ref(o.dpop) : NULL;
    head->dpop = o.dpop != NULL;
    head->bearer = !o.need_dpop;
    rc = cb_authn_rules_copy(&s->with, o.rules, o.provider ? cb_oidc_issuer(o.provider) : NULL);
    if (rc == CB_OK && o.cache)
        s->cache = cb_jwt_cache_ref(o.cache);
    else if (rc == CB_OK)
        rc = cb_jwt_cache_new(&s->cache, NULL);
    if (rc < 0) {
        cb_authn_source_unref(head);
        return rc;
    }
    *out = head;
    return CB_OK;
}

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
    cb_jwks *keys;
    cb_jwt_cache *cache;
    cb_dpop *dpop;
    cb_jwt_rules rules;
    char *issuer, *typ;
    char **audiences;
    size_t n_audiences;
} jwt_source;

static void jwt_free(cb_authn_source *head) {
    jwt_source *s = (jwt_source *)head;
    cb_jwks_unref(s->keys);
    cb_jwt_cache_unref(s->cache);
    cb_dpop_unref(s->dpop);
    cb_revocations_unref(s->rules.revocations);
    cb_mem_free(&cb_alloc_libc, s->issuer);
    cb_mem_free(&cb_alloc_libc, s->typ);
    cb_authn_texts_free(s->audiences, s->n_audiences);
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

static int jwt_judge(const cb_authn_source *head, cb_authn_call *c, cb_authn_part *out) {
    const jwt_source *s = (const jwt_source *)head;
    const cb_authn_request *r = &c->request;
    cb_dpop_proof proof;
    cb_jwt *token = NULL;
    int32_t reason = 0;
    int rc = cb_authn_scheme(head, c);
    if (rc != CB_OK) return rc;
    bool dpop = cb_slice_ieq(c->scheme, "dpop");
    if (dpop) rc = look_at_proof(s, c, &proof);
    if (rc < 0) return rc;
    const cb_jwt_facts facts = {.size = sizeof facts,
                                .now_s = r->now_s,
                                .cert_sha256 = r->peer ? cb_peer_cert_sha256(r->peer) : NULL,
                                .jkt = dpop ? proof.jkt : NULL};
    rc = cb_jwt_cache_verify(s->cache, &token, c->token, s->keys, &s->rules, &facts, &reason);
    if (rc == CB_EAUTH)
        return cb_authn_deny(c, 401, CB_AUTHN_INVALID_TOKEN, !foreign(reason), cb_jwt_reason_text(reason));
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

static int copy_rules(jwt_source *s, const cb_jwt_rules *rules) {
    const cb_jwt_facts facts = {.size = sizeof facts, .now_s = 1};
    cb_jwt_facts seen;
    cb_jwt_rules r;
    int rc = cb_jwt_rules_read(&r, &seen, rules, &facts); /* refuses here what each token would be refused for */
    if (rc == CB_OK) rc = cb_opts_read(&s->rules, sizeof s->rules, rules, "cb_jwt_rules");
    if (rc < 0) return rc;
    s->rules.size = sizeof s->rules;
    if (s->rules.revocations) cb_revocations_ref(s->rules.revocations);
    s->issuer = cb_mem_text(&cb_alloc_libc, r.issuer);
    s->typ = cb_mem_text(&cb_alloc_libc, r.typ);
    if ((r.issuer && !s->issuer) || (r.typ && !s->typ)) return cb_fail(CB_ENOMEM, "no memory for rules");
    rc = cb_authn_texts(&s->audiences, &s->n_audiences, r.audiences, r.audiences_len, "cb_jwt_rules: audiences");
    s->rules.issuer = s->issuer;
    s->rules.typ = s->typ;
    s->rules.audiences = (const char *const *)s->audiences;
    s->rules.audiences_len = s->n_audiences;
    return rc;
}

int cb_authn_source_jwt(cb_authn_source **out, const cb_authn_jwt_opts *opts) {
    cb_authn_jwt_opts o;
    cb_authn_source *head = NULL;
    if (!out) return cb_fail(CB_EINVAL, "cb_authn_source_jwt: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_authn_jwt_opts");
    if (rc < 0) return rc;
    if (!o.keys || !o.rules) return cb_fail(CB_EINVAL, "cb_authn_jwt_opts: keys and rules are needed");
    if (o.need_dpop && !o.dpop) return cb_fail(CB_EINVAL, "cb_authn_jwt_opts: need_dpop needs dpop");
    rc = cb_authn_source_make(&head, sizeof(jwt_source), &jwt_vt, o.name, o.claims, NULL);
    if (rc < 0) return rc;
    jwt_source *s = (jwt_source *)head;
    s->keys = cb_jwks_ref(o.keys);
    s->dpop = o.dpop ? cb_dpop_ref(o.dpop) : NULL;
    head->dpop = o.dpop != NULL;
    head->bearer = !o.need_dpop;
    rc = copy_rules(s, o.rules);
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

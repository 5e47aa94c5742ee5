/* Opaque tokens as a source: a provider is asked, and what it said is judged like a token. */
#include "auth/authn_int.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"

typedef struct introspect_source {
    cb_authn_source head;
    cb_oidc *provider;
    cb_identity *identity;
    char *resolver;
    cb_authn_rules with;
} introspect_source;

static void introspect_free(cb_authn_source *head) {
    introspect_source *s = (introspect_source *)head;
    cb_oidc_unref(s->provider);
    cb_identity_unref(s->identity);
    cb_mem_free(&cb_alloc_libc, s->resolver);
    cb_authn_rules_clear(&s->with);
}

/* Takes the reference on token, if there is one. */
static int judge(const introspect_source *s, cb_authn_call *c, cb_authn_part *out, int rc, cb_jwt *token,
                 int32_t reason) {
    const cb_jwt_facts facts = cb_authn_facts(c, NULL);
    out->token = token;
    if (rc == CB_OK) rc = cb_jwt_check(token, &s->with.rules, &facts, &reason);
    if (rc == CB_OK) out->claims = token->claims;
    if (rc == CB_OK || rc == CB_ENOMEM) return rc;
    if (rc == CB_EINVAL) return cb_authn_deny(c, 401, CB_AUTHN_INVALID_TOKEN, 0, cb_jwt_reason_text(CB_JWT_FORMAT));
    if (rc != CB_EAUTH) return cb_authn_deny(c, 503, CB_AUTHN_ERROR_NONE, 2, "provider");
    return cb_authn_deny(c, 401, CB_AUTHN_INVALID_TOKEN, 1, cb_jwt_reason_text(reason));
}

static void on_answer(int rc, cb_jwt *token, int32_t reason, void *user) {
    cb_authn_call *c = user;
    const introspect_source *s = (const introspect_source *)c->authn->sources[c->at];
    c->ask = NULL;
    cb_authn_go_on(c, judge(s, c, &c->parts[c->at], rc, token ? cb_jwt_ref(token) : NULL, reason));
}

static void introspect_cancel(const cb_authn_source *head, cb_authn_call *c) {
    (void)head;
    cb_introspection_cancel(c->ask);
    c->ask = NULL;
}

static int introspect_judge(const cb_authn_source *head, cb_authn_call *c, cb_authn_part *out) {
    const introspect_source *s = (const introspect_source *)head;
    cb_introspector *in = NULL;
    cb_jwt *token = NULL;
    int32_t reason = 0;
    int rc = cb_authn_scheme(head, c);
    if (rc != CB_OK) return rc;
    if (!c->worker) return cb_authn_deny(c, 503, CB_AUTHN_ERROR_NONE, 2, "provider");
    rc = cb_authn_worker_ask(&in, c->worker, s->provider, s->identity, s->resolver);
    if (rc == CB_OK) rc = cb_introspect(in, &c->ask, c->token, c->request.now_s, &token, &reason, on_answer, c);
    return rc == CB_EAGAIN ? rc : judge(s, c, out, rc, token, reason);
}

static const cb_authn_source_vt introspect_vt = {.kind = CB_AUTHN_TOKEN,
                                                 .carrier = CB_CARRIER_AUTHORIZATION,
                                                 .judge = introspect_judge,
                                                 .cancel = introspect_cancel,
                                                 .free = introspect_free};

int cb_authn_source_introspect(cb_authn_source **out, const cb_authn_introspect_opts *opts) {
    cb_authn_introspect_opts o;
    cb_authn_source *head = NULL;
    if (!out) return cb_fail(CB_EINVAL, "cb_authn_source_introspect: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_authn_introspect_opts");
    if (rc < 0) return rc;
    if (!o.provider || !o.rules) return cb_fail(CB_EINVAL, "cb_authn_introspect_opts: provider and rules are needed");
    rc = cb_authn_source_make(&head, sizeof(introspect_source), &introspect_vt, o.name, o.claims, NULL);
    if (rc < 0) return rc;
    introspect_source *s = (introspect_source *)head;
    s->provider = cb_oidc_ref(o.provider);
    s->identity = o.identity ? cb_identity_ref(o.identity) : NULL;
    s->resolver = cb_mem_text(&cb_alloc_libc, o.resolver);
    head->bearer = true;
    rc = o.resolver && !s->resolver ? cb_fail(CB_ENOMEM, "no memory for a source of identities") : CB_OK;
    if (rc == CB_OK) rc = cb_authn_rules_copy(&s->with, o.rules, cb_oidc_issuer(o.provider));
    if (rc < 0) {
        cb_authn_source_unref(head);
        return rc;
    }
    *out = head;
    return CB_OK;
}

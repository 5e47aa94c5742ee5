/* What a token must be, kept by a source. */
#include "auth/authn_int.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"

static int copy_text(char **out, const char *text) {
    *out = cb_mem_text(&cb_alloc_libc, text);
    return text && !*out ? cb_fail(CB_ENOMEM, "no memory for rules") : CB_OK;
}

/* What each token would be refused for is refused here. */
int cb_authn_rules_copy(cb_authn_rules *out, const cb_jwt_rules *rules, const char *issuer) {
    const cb_jwt_facts facts = {.size = sizeof facts, .now_s = 1};
    cb_jwt_rules copy, full;
    cb_jwt_facts seen;
    int rc = cb_opts_read(&copy, sizeof copy, rules, "cb_jwt_rules");
    if (rc < 0) return rc;
    copy.size = sizeof copy;
    if (!copy.issuer) copy.issuer = issuer;
    rc = cb_jwt_rules_read(&full, &seen, &copy, &facts);
    if (rc < 0) return rc;
    out->rules = copy;
    if (copy.revocations) cb_revocations_ref(copy.revocations);
    rc = copy_text(&out->issuer, copy.issuer);
    if (rc == CB_OK) rc = copy_text(&out->typ, copy.typ);
    if (rc == CB_OK)
        rc = cb_authn_texts(&out->audiences, &out->n_audiences, copy.audiences, copy.audiences_len,
                            "cb_jwt_rules: audiences");
    out->rules.issuer = out->issuer;
    out->rules.typ = out->typ;
    out->rules.audiences = (const char *const *)out->audiences;
    out->rules.audiences_len = out->n_audiences;
    return rc;
}

void cb_authn_rules_clear(cb_authn_rules *r) {
    cb_revocations_unref(r->rules.revocations);
    cb_mem_free(&cb_alloc_libc, r->issuer);
    cb_mem_free(&cb_alloc_libc, r->typ);
    cb_authn_texts_free(r->audiences, r->n_audiences);
}

cb_jwt_facts cb_authn_facts(const cb_authn_call *c, const char *jkt) {
    const cb_authn_request *r = &c->request;
    return (cb_jwt_facts){.size = sizeof(cb_jwt_facts),
                          .now_s = r->now_s,
                          .cert_sha256 = r->peer ? cb_peer_cert_sha256(r->peer) : NULL,
                          .jkt = jkt};
}

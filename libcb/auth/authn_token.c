/* Opaque tokens that somebody else knows. */
#include "auth/authn_int.h"
#include "auth/base64url.h"
#include "auth/revocations.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <math.h>
#include <string.h>

enum { LEEWAY_S = 30, SUM_BYTES = 32, SUM_TEXT = 44 };

typedef struct token_source {
    cb_authn_source head;
    const cb_authn_token_ops *ops;
    void *user;
} token_source;

static void token_free(cb_authn_source *head) {
    token_source *s = (token_source *)head;
    if (s->ops && s->ops->release) s->ops->release(s->user);
}

static void token_cancel(const cb_authn_source *head, cb_authn_call *c) {
    const token_source *s = (const token_source *)head;
    if (s->ops->cancel) s->ops->cancel(c, s->user);
}

static int bad(cb_authn_call *c, int why) {
    return cb_authn_deny(c, 401, CB_AUTHN_INVALID_TOKEN, 1, cb_jwt_reason_text(why));
}

/* Every binding that is named must hold; one that is not understood does not. */
static int judge_binding(cb_authn_call *c, const cb_json *j) {
    const cb_json_node *cnf = cb_json_get(j, j->nodes, "cnf", 3);
    const cb_peer *peer = c->request.peer;
    char print[SUM_TEXT];
    if (!cnf) return CB_OK;
    const char *x5t = cb_json_text(j, cnf, "x5t#S256");
    if (!x5t || cnf->len != 1 || !peer) return bad(c, CB_JWT_BINDING);
    cb_base64url_encode(print, cb_peer_cert_sha256(peer), SUM_BYTES);
    return strcmp(print, x5t) == 0 ? CB_OK : bad(c, CB_JWT_BINDING);
}

static int judge_claims(const cb_authn_source *s, cb_authn_call *c, const cb_json *j) {
    int64_t exp = 0, nbf = 0, iat = 0, now = c->request.now_s;
    const char *issuer = cb_claims_text(j, "iss");
    if (!cb_claims_date(j, "exp", &exp) || !cb_claims_date(j, "nbf", &nbf) || !cb_claims_date(j, "iat", &iat))
        return bad(c, CB_JWT_CLAIM);
    if (exp && now >= exp + LEEWAY_S) return bad(c, CB_JWT_EXPIRED);
    if (nbf && now + LEEWAY_S < nbf) return bad(c, CB_JWT_NOT_YET);
    if (s->revocations && cb_revocations_hit(s->revocations, issuer ? issuer : s->name, cb_claims_text(j, "jti"),
                                             cb_claims_text(j, s->subject), iat ? (double)iat : (double)NAN))
        return bad(c, CB_JWT_REVOKED);
    return judge_binding(c, j);
}

/* The answer becomes part of the call: what judge() would have returned. */
static int take(cb_authn_call *c, int rc, cb_slice claims) {
    const cb_authn_source *s = c->authn->sources[c->at];
    cb_authn_part *p = &c->parts[c->at];
    if (rc == CB_EAUTH) return cb_authn_deny(c, 401, CB_AUTHN_INVALID_TOKEN, 1, "not-active");
    if (rc == CB_OK) rc = cb_authn_claims_read(p, claims);
    if (rc < 0) return cb_authn_deny(c, 503, CB_AUTHN_ERROR_NONE, 2, "provider");
    return judge_claims(s, c, &p->claims);
}

void cb_authn_answer(cb_authn_call *c, int rc, cb_slice claims) {
    if (!c->authn || !(c->in_look || c->waiting)) return; /* nobody asked, or not any more */
    int judged = take(c, rc, claims);
    if (!c->in_look) {
        cb_authn_go_on(c, judged);
        return;
    }
    c->answered = true;
    c->answer = judged;
}

static int token_judge(const cb_authn_source *head, cb_authn_call *c, cb_authn_part *out) {
    const token_source *s = (const token_source *)head;
    int rc = cb_authn_scheme(head, c);
    (void)out;
    if (rc != CB_OK) return rc;
    c->in_look = true;
    c->answered = false;
    rc = s->ops->look(c, c->token, s->user);
    c->in_look = false;
    if (c->answered) return c->answer;
    if (rc == CB_EAGAIN) return rc;
    return take(c, rc == CB_OK ? CB_EINVAL : rc, (cb_slice){.base = NULL}); /* CB_OK without claims is no answer */
}

static const cb_authn_source_vt token_vt = {.kind = CB_AUTHN_TOKEN,
                                            .carrier = CB_CARRIER_AUTHORIZATION,
                                            .judge = token_judge,
                                            .cancel = token_cancel,
                                            .free = token_free};

int cb_authn_source_token(cb_authn_source **out, const cb_authn_token_opts *opts) {
    cb_authn_token_opts o;
    cb_authn_source *head = NULL;
    if (!out) return cb_fail(CB_EINVAL, "cb_authn_source_token: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_authn_token_opts");
    if (rc == CB_OK && !o.ops) rc = cb_fail(CB_EINVAL, "cb_authn_token_opts: ops is needed");
    if (rc == CB_OK) rc = cb_ops_check(o.ops, sizeof(cb_authn_token_ops), "cb_authn_token_ops");
    if (rc == CB_OK && !o.ops->look) rc = cb_fail(CB_EINVAL, "cb_authn_token_ops: look is needed");
    if (rc == CB_OK) rc = cb_authn_source_make(&head, sizeof(token_source), &token_vt, o.name, o.claims, o.revocations);
    if (rc < 0) return rc;
    token_source *s = (token_source *)head;
    s->ops = o.ops;
    s->user = o.user;
    head->bearer = true;
    *out = head;
    return CB_OK;
}

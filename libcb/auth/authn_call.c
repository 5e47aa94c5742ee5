/* One request at a gate: each source is asked in turn, then the identity is put together and measured. */
#include "auth/authn_int.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "http/fields.h"
#include <string.h>

enum { TEXT_MAX = 16384 };

/* ---- life ---- */

int cb_authn_call_new(cb_authn_call **out, cb_authn_worker *worker) {
    if (!out) return cb_fail(CB_EINVAL, "cb_authn_call_new: out is NULL");
    cb_authn_call *c = cb_mem_new(&cb_alloc_libc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for a call");
    cb_buf_init(&c->text, &cb_alloc_libc, TEXT_MAX);
    c->worker = worker;
    *out = c;
    return CB_OK;
}

static void part_clear(cb_authn_part *p) {
    cb_jwt_unref(p->token);
    if (p->own_claims) cb_json_close(&p->claims);
    *p = (cb_authn_part){.present = false};
}

void cb_authn_call_reset(cb_authn_call *c) {
    cb_authn *a = c->authn;
    if (!a) return;
    if (c->waiting) {
        const cb_authn_source *s = a->sources[c->at];
        c->waiting = false;
        if (s->vt->cancel) s->vt->cancel(s, c);
    }
    if (c->since) c->since = cb_authn_count_wait(c->worker, c->since);
    for (size_t i = 0; i < a->n; i++)
        part_clear(&c->parts[i]);
    c->authn = NULL;
    c->done = NULL;
    c->kept = NULL;
    c->at = c->n_challenges = 0;
    c->status = 0;
    c->refusal = (cb_refusal){.status = 0};
    c->principal = (cb_principal){.subject = NULL};
    c->claims = NULL;
    c->nonce_of = NULL;
    c->text.len = 0;
    cb_authn_unref(a);
}

void cb_authn_call_free(cb_authn_call *c) {
    if (!c) return;
    cb_authn_call_reset(c);
    cb_buf_free(&c->text);
    cb_mem_free(&cb_alloc_libc, c);
}

void cb_authn_call_keep(cb_authn_call *c, void *kept) {
    c->kept = kept;
}

void *cb_authn_call_kept(const cb_authn_call *c) {
    return c->kept;
}

int cb_authn_deny(cb_authn_call *c, int status, int error, int grave, const char *reason) {
    if (!c->refusal.status || grave > c->refusal.grave)
        c->refusal = (cb_refusal){.status = status, .error = error, .grave = grave, .reason = reason};
    return CB_EAUTH;
}

/* ---- what the request carries ---- */

/* "Scheme token" (RFC 9110, 11.4), one space or more between. */
static void read_authorization(cb_authn_call *c, cb_slice value) {
    const uint8_t *space = value.len ? memchr(value.base, ' ', value.len) : NULL;
    size_t n = space ? (size_t)(space - value.base) : value.len, from = n;
    c->scheme = (cb_slice){value.base, n};
    while (from < value.len && value.base[from] == ' ')
        from++;
    c->token = (cb_slice){value.base + from, value.len - from};
}

static void read_fields(cb_authn_call *c) {
    const cb_authn_request *r = &c->request;
    c->n_authorization = c->n_proof = 0;
    c->scheme = c->token = c->proof = (cb_slice){.base = NULL};
    for (size_t i = 0; i < r->n_fields; i++) {
        const cb_field *f = &r->fields[i];
        if (cb_slice_eq(f->name, "authorization")) {
            if (!c->n_authorization++) read_authorization(c, f->value);
        } else if (cb_slice_eq(f->name, "dpop")) {
            if (!c->n_proof++) c->proof = f->value;
        }
    }
}

/* What token68 is made of (RFC 9110, 11.2); the rest of 256 is zero. */
static const uint8_t token68[256] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                                     0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1,
                                     1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1,
                                     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0};

static bool is_token68(cb_slice s) {
    const uint8_t *p = s.base, *end = p + s.len;
    while (p < end && token68[*p])
        p++;
    if (p == s.base) return false;
    while (p < end && *p == '=')
        p++;
    return p == end;
}

int cb_authn_scheme(const cb_authn_source *s, cb_authn_call *c) {
    if (!c->n_authorization) return CB_ENOENT;
    if (c->n_authorization > 1) return cb_authn_deny(c, 400, CB_AUTHN_INVALID_REQUEST, 1, "two-credentials");
    bool bearer = s->bearer && cb_slice_ieq(c->scheme, "bearer"), dpop = s->dpop && cb_slice_ieq(c->scheme, "dpop");
    if (!bearer && !dpop) return cb_authn_deny(c, 401, CB_AUTHN_ERROR_NONE, 0, "scheme");
    if (!is_token68(c->token)) return cb_authn_deny(c, 400, CB_AUTHN_INVALID_REQUEST, 1, "syntax");
    return CB_OK;
}

void cb_authn_request_of(cb_authn_request *out, const cb_exchange *x, int64_t now_s) {
    *out = (cb_authn_request){.size = sizeof *out,
                              .method = cb_exchange_method(x),
                              .scheme = cb_exchange_scheme(x),
                              .authority = cb_exchange_authority(x),
                              .path = cb_exchange_path(x),
                              .peer = cb_exchange_peer(x),
                              .now_s = now_s};
    out->fields = cb_exchange_fields(x, &out->n_fields);
}

int cb_authn_claims_read(cb_authn_part *out, cb_slice text) {
    if (!text.len || text.len > CB_JWT_TOKEN_BYTES_MAX) return cb_fail(CB_EINVAL, "claims of %zu bytes", text.len);
    int rc = cb_json_open(&out->claims, text);
    if (rc == CB_ENOMEM) return rc;
    out->own_claims = rc == 0;
    if (rc || out->claims.nodes->kind != CB_JSON_OBJECT) return cb_fail(CB_EINVAL, "claims are one JSON object");
    return CB_OK;
}

/* ---- the identity ---- */

static int forbid(cb_authn_call *c, int error, const char *reason) {
    c->refusal = (cb_refusal){.status = 403, .error = error, .grave = 1, .reason = reason};
    return CB_EAUTH;
}

static const cb_authn_part *part_at(const cb_authn_call *c, size_t i) {
    return c->parts[i].good ? &c->parts[i] : NULL;
}

static int add_role(cb_authn_call *c, cb_slice role) {
    if (!role.len) return CB_OK;
    if (c->principal.n_roles == CB_AUTHN_ROLES) return forbid(c, CB_AUTHN_ERROR_NONE, "too-many-roles");
    c->roles[c->principal.n_roles++] = role;
    return CB_OK;
}

static int add_roles(cb_authn_call *c, const cb_authn_source *s, const cb_authn_part *p) {
    const cb_json *j = &p->claims;
    const cb_json_node *of = s->roles ? cb_claims_find(j, s->roles) : NULL;
    if (!of) return CB_OK;
    if (of->kind == CB_JSON_TEXT) return add_role(c, cb_json_slice(j, of));
    for (const cb_json_node *at = cb_json_first(j, of); at; at = cb_json_next(j, of, at)) {
        bool object = of->kind == CB_JSON_OBJECT;
        if (!object && at->kind != CB_JSON_TEXT) return forbid(c, CB_AUTHN_ERROR_NONE, "claims");
        cb_slice name = {(const uint8_t *)j->text + at->name, at->name_len};
        int rc = add_role(c, object ? name : cb_json_slice(j, at));
        if (rc < 0) return rc;
    }
    return CB_OK;
}

/* A claim that is there and is no text is no tenant, and not the absence of one either. */
static int add_tenant(cb_authn_call *c, const cb_authn_source *s, const cb_authn_part *p) {
    const char *tenant = s->tenant_is;
    if (s->tenant) {
        const cb_json_node *at = cb_claims_find(&p->claims, s->tenant);
        tenant = cb_json_is(at, CB_JSON_TEXT) ? p->claims.text + at->at : NULL;
        if (at && (!tenant || !*tenant)) return forbid(c, CB_AUTHN_ERROR_NONE, "tenant");
    }
    if (!tenant) return CB_OK;
    if (c->principal.tenant && strcmp(c->principal.tenant, tenant) != 0)
        return forbid(c, CB_AUTHN_ERROR_NONE, "tenant");
    c->principal.tenant = tenant;
    return CB_OK;
}

static int add_part(cb_authn_call *c, size_t i) {
    const cb_authn_source *s = c->authn->sources[i];
    const cb_authn_part *p = &c->parts[i];
    const char *subject = cb_claims_text(&p->claims, s->subject);
    if (!subject || !*subject) return forbid(c, CB_AUTHN_ERROR_NONE, "subject");
    if (!c->principal.subject) {
        c->principal.subject = subject;
        c->principal.source = s->name;
        c->principal.kind = s->vt->kind;
        c->claims = &p->claims;
    }
    if (p->spiffe_id) c->principal.spiffe_id = p->spiffe_id;
    if (s->vt->carrier == CB_CARRIER_CERT) c->principal.with_cert = 1;
    c->principal.roles = c->roles;
    int rc = add_tenant(c, s, p);
    return rc == CB_OK ? add_roles(c, s, p) : rc;
}

int cb_authn_has_role(const cb_authn_call *c, const char *role) {
    for (size_t i = 0; i < c->principal.n_roles; i++)
        if (cb_slice_eq(c->roles[i], role)) return 1;
    return 0;
}

static bool has_scope(const cb_authn_call *c, const char *scope) {
    for (size_t i = 0; i < c->authn->n; i++) {
        const cb_authn_part *p = part_at(c, i);
        if (p && (c->authn->all || &p->claims == c->claims) && cb_claims_has_scope(&p->claims, scope)) return true;
    }
    return false;
}

static int measure(cb_authn_call *c) {
    const cb_authn *a = c->authn;
    bool role = !a->n_roles;
    if (a->need_tenant && !c->principal.tenant) return forbid(c, CB_AUTHN_ERROR_NONE, "tenant");
    if (a->tenant && strcmp(a->tenant, c->principal.tenant) != 0) return forbid(c, CB_AUTHN_ERROR_NONE, "tenant");
    for (size_t i = 0; i < a->n_roles && !role; i++)
        role = cb_authn_has_role(c, a->roles[i]);
    if (!role) return forbid(c, CB_AUTHN_ERROR_NONE, "role");
    for (size_t i = 0; i < a->n_scopes; i++)
        if (!has_scope(c, a->scopes[i])) return forbid(c, CB_AUTHN_INSUFFICIENT_SCOPE, "scope");
    return CB_OK;
}

static int identify(cb_authn_call *c) {
    const cb_authn *a = c->authn;
    int rc = CB_OK;
    for (size_t i = 0; i < a->n && rc == CB_OK; i++)
        if (part_at(c, i) && (a->all || !c->claims)) rc = add_part(c, i);
    return rc == CB_OK ? measure(c) : rc;
}

/* ---- the way through the sources ---- */

static bool same_carrier(const cb_authn_source *a, const cb_authn_source *b) {
    if (a->vt->carrier != b->vt->carrier) return false;
    return a->vt->carrier != CB_CARRIER_FIELD || strcmp(a->field, b->field) == 0;
}

/* Has another source taken what this one would read? */
static bool taken(const cb_authn_call *c, size_t i) {
    for (size_t k = 0; k < c->authn->n; k++)
        if (k != i && c->parts[k].good && same_carrier(c->authn->sources[i], c->authn->sources[k])) return true;
    return false;
}

/* A certificate that nobody needs any more is not looked at. */
static bool needless(const cb_authn_call *c, size_t i) {
    if (c->authn->all) return false;
    if (taken(c, i)) return true;
    for (size_t k = 0; k < i && c->authn->sources[i]->vt->carrier == CB_CARRIER_CERT; k++)
        if (c->parts[k].good) return true;
    return false;
}

static int missing(cb_authn_call *c) {
    bool cert = false, other = false;
    for (size_t i = 0; i < c->authn->n; i++) {
        if (c->parts[i].good) continue;
        bool is_cert = c->authn->sources[i]->vt->carrier == CB_CARRIER_CERT;
        cert = cert || is_cert;
        other = other || !is_cert;
    }
    /* No challenge makes a client show a certificate in the middle of a connection. */
    bool hopeless = cert && (c->authn->all || !other);
    c->refusal = (cb_refusal){
        .status = hopeless ? 403 : 401, .grave = 1, .reason = hopeless ? "no-certificate" : "no-credentials"};
    return CB_EAUTH;
}

static int verdict(cb_authn_call *c) {
    const cb_authn *a = c->authn;
    size_t good = 0;
    for (size_t i = 0; i < a->n; i++) {
        const cb_authn_part *p = &c->parts[i];
        good += p->good;
        if (!p->present || p->good) continue;
        bool ambient = a->sources[i]->vt->carrier == CB_CARRIER_CERT;
        if (a->all || (!ambient && !taken(c, i))) return CB_EAUTH; /* its refusal is noted */
    }
    if (a->all ? good == a->n : good > 0) return identify(c);
    return !a->all && c->refusal.status ? CB_EAUTH : missing(c);
}

/* The end: rc is CB_OK, CB_EAUTH, or that something failed here. */
static int conclude(cb_authn_call *c, int rc) {
    if (rc < 0 && rc != CB_EAUTH)
        c->refusal = (cb_refusal){.status = 503, .grave = 2, .reason = rc == CB_ENOMEM ? "memory" : "internal"};
    c->status = rc == CB_OK ? 200 : c->refusal.status;
    if (rc == CB_OK)
        c->refusal = (cb_refusal){.status = 0};
    else
        cb_authn_challenge(c);
    if (c->since) c->since = cb_authn_count_wait(c->worker, c->since);
    cb_authn_count(c->worker, rc == CB_OK ? c->principal.source : "", c->status, rc == CB_OK ? "" : cb_authn_reason(c));
    return rc == CB_OK ? CB_OK : CB_EAUTH;
}

static int heard(cb_authn_call *c, int rc) {
    cb_authn_part *p = &c->parts[c->at++];
    p->present = rc != CB_ENOENT;
    p->good = rc == CB_OK;
    return rc == CB_OK || rc == CB_ENOENT || rc == CB_EAUTH ? CB_OK : rc;
}

static int step(cb_authn_call *c) {
    const cb_authn *a = c->authn;
    while (c->at < a->n) {
        if (needless(c, c->at)) {
            c->at++;
            continue;
        }
        const cb_authn_source *s = a->sources[c->at];
        int rc = s->vt->judge(s, c, &c->parts[c->at]);
        if (rc == CB_EAGAIN) {
            c->waiting = true;
            if (!c->since) c->since = cb_authn_count_wait(c->worker, 0);
            return CB_EAGAIN;
        }
        rc = heard(c, rc);
        if (rc < 0) return conclude(c, rc);
    }
    return conclude(c, verdict(c));
}

void cb_authn_go_on(cb_authn_call *c, int rc) {
    c->waiting = false;
    rc = heard(c, rc);
    rc = rc < 0 ? conclude(c, rc) : step(c);
    if (rc != CB_EAGAIN) c->done(c, rc, c->user);
}

int cb_authn_begin(cb_authn_call *c, cb_authn *a, const cb_authn_request *request, cb_authn_done done, void *user) {
    cb_authn_request r;
    if (!c || !a || !request) return cb_fail(CB_EINVAL, "cb_authn_begin: call, authn and request are needed");
    int rc = cb_opts_read(&r, sizeof r, request, "cb_authn_request");
    if (rc < 0) return rc;
    if (r.now_s <= 0) return cb_fail(CB_EINVAL, "cb_authn_request: now_s is needed");
    cb_authn_call_reset(c);
    c->authn = cb_authn_ref(a);
    c->request = r;
    c->done = done;
    c->user = user;
    read_fields(c);
    rc = step(c);
    if (rc != CB_EAGAIN || done) return rc;
    cb_authn_call_reset(c);
    return cb_fail(CB_EINVAL, "cb_authn_begin: a source of this gate needs done");
}

/* ---- the result ---- */

int cb_authn_status(const cb_authn_call *c) {
    return c->status;
}

const char *cb_authn_reason(const cb_authn_call *c) {
    return c->refusal.reason ? c->refusal.reason : "";
}

const cb_field *cb_authn_challenges(const cb_authn_call *c, size_t *n) {
    *n = c->n_challenges;
    return c->challenges;
}

const cb_principal *cb_authn_principal(const cb_authn_call *c) {
    return &c->principal;
}

int cb_authn_claim(const cb_authn_call *c, const char *path, cb_claim *out) {
    const cb_json_node *at = c->claims ? cb_claims_find(c->claims, path) : NULL;
    if (!at) return cb_fail(CB_ENOENT, "the identity has no claim \"%.80s\"", path);
    cb_claims_give(c->claims, at, out);
    return CB_OK;
}

int cb_authn_claim_next(const cb_authn_call *c, const cb_claim *of, uint32_t *it, cb_claim *out) {
    return c->claims ? cb_claims_next(c->claims, of, it, out) : CB_ENOENT;
}

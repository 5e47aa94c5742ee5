/* Who comes: a pass at the gate of its route, and what the origin is told of them. */
#include "base/error.h"
#include "base/mem.h"
#include "http/fields.h"
#include "http/proxy_int.h"
#include <string.h>
#include <time.h>

enum { TEXT_MAX = 64 * 1024 };

/* ---- life ---- */

static cb_pass_auth *auth_get(cb_proxy *p) {
    if (!cb_list_empty(&p->spare_auth)) {
        cb_pass_auth *a = CB_CONTAINER(p->spare_auth.next, cb_pass_auth, link);
        cb_list_del(&a->link);
        return a;
    }
    cb_pass_auth *a = cb_mem_new(p->alloc, sizeof *a);
    if (!a) return NULL;
    cb_buf_init(&a->text, p->alloc, TEXT_MAX);
    if (cb_authn_call_new(&a->call, p->asks) == CB_OK) return a;
    cb_mem_free(p->alloc, a);
    return NULL;
}

void cb_pass_auth_destroy(cb_pass_auth *a) {
    const cb_alloc *alloc = a->text.alloc;
    cb_list_del(&a->link);
    cb_authn_call_free(a->call);
    cb_buf_free(&a->text);
    cb_mem_free(alloc, a);
}

void cb_pass_auth_release(cb_pass *pass) {
    cb_pass_auth *a = pass->auth;
    if (!a) return;
    pass->auth = NULL;
    if (a->opa) cb_opa_cancel(a->opa);
    a->opa = NULL;
    cb_authn_call_reset(a->call);
    a->n_more = a->text.len = 0;
    a->waiting = false;
    a->reason = a->rule = NULL;
    cb_list_add_tail(&pass->proxy->spare_auth, &a->link);
}

/* ---- fields of the identity ---- */

static int no_field(const char *name) {
    return cb_fail(CB_EAUTH, "a claim cannot stand in the field %s", name);
}

/* An item of a list must not look like two. */
static int add_item(cb_pass_auth *a, cb_slice item, size_t from, bool list, const char *name) {
    if (list && (!item.len || memchr(item.base, ',', item.len))) return no_field(name);
    int rc = a->text.len > from ? cb_buf_text(&a->text, ", ") : CB_OK;
    return rc == CB_OK ? cb_buf_add(&a->text, item.base, item.len) : rc;
}

static int add_claim(cb_pass_auth *a, const cb_claim *c, size_t from, bool list, const char *name) {
    switch (c->kind) {
    case CB_CLAIM_TEXT:
    case CB_CLAIM_NUMBER:
        return add_item(a, c->text, from, list, name);
    case CB_CLAIM_BOOL:
        return add_item(a, cb_slice_str(c->number != 0 ? "true" : "false"), from, list, name);
    case CB_CLAIM_NULL:
        return list ? no_field(name) : CB_OK;
    default:
        return no_field(name);
    }
}

static int add_pointed(cb_pass_auth *a, const char *pointer, size_t from, const char *name) {
    cb_claim claim, item;
    uint32_t it = 0;
    int rc = CB_OK;
    if (cb_authn_claim(a->call, pointer, &claim) < 0) return CB_OK;
    if (claim.kind != CB_CLAIM_LIST && claim.kind != CB_CLAIM_OBJECT) return add_claim(a, &claim, from, false, name);
    while (rc == CB_OK && cb_authn_claim_next(a->call, &claim, &it, &item) == CB_OK)
        rc = claim.kind == CB_CLAIM_OBJECT ? add_item(a, item.name, from, true, name)
                                           : add_claim(a, &item, from, true, name);
    return rc;
}

static int add_word(cb_pass_auth *a, const char *word, size_t from, const char *name) {
    const cb_principal *who = cb_authn_principal(a->call);
    const struct {
        const char *word, *value;
    } rows[] = {{"subject", who->subject},
                {"tenant", who->tenant},
                {"source", who->source},
                {"kind", cb_authn_kind_text(who->kind)},
                {"spiffe_id", who->spiffe_id}};
    int rc = CB_OK;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(word, rows[i].word) == 0) return cb_buf_text(&a->text, rows[i].value ? rows[i].value : "");
    for (size_t i = 0; i < who->n_roles && rc == CB_OK; i++)
        rc = add_item(a, who->roles[i], from, true, name);
    return rc;
}

/* Values are gathered first: the text may move while it grows. */
static int make_fields(cb_pass_auth *a, const cb_route_guard *g) {
    size_t ends[CB_ROUTE_HEADERS], from = 0;
    a->text.len = a->n_more = 0;
    for (size_t i = 0; i < g->n_headers; i++) {
        const char *source = g->from[i];
        int rc = *source == '/' ? add_pointed(a, source, a->text.len, g->names[i])
                                : add_word(a, source, a->text.len, g->names[i]);
        if (rc < 0) return rc;
        ends[i] = a->text.len;
    }
    for (size_t i = 0; i < g->n_headers; from = ends[i++]) {
        cb_slice value = {a->text.base + from, ends[i] - from};
        if (!value.len) continue;
        if (!cb_field_value_ok(value)) return no_field(g->names[i]);
        a->more[a->n_more++] = (cb_field){cb_slice_str(g->names[i]), value};
    }
    return CB_OK;
}

void cb_pass_drop_credentials(const cb_pass *pass, cb_relay *f) {
    const cb_route_guard *g = pass->guard;
    bool keep = g->keep_credentials && pass->auth;
    size_t to = 0;
    for (size_t i = 0; i < f->n; i++) {
        bool exact = cb_authn_reads(g->authn, f->at[i].name);
        bool like = !exact && cb_authn_reads_like(g->authn, f->at[i].name); /* nobody has looked at it */
        if ((exact && !keep) || like) continue;
        f->at[to++] = f->at[i];
    }
    f->n = to;
}

/* ---- the gate ---- */

static int refuse(cb_pass *pass) {
    size_t n = 0;
    const cb_field *fields = cb_authn_challenges(pass->auth->call, &n);
    int status = cb_authn_status(pass->auth->call);
    const char *reason = status == 400   ? "bad_credentials"
                         : status == 401 ? "unauthorized"
                         : status == 403 ? "forbidden"
                                         : "auth_unavailable";
    pass->proxy->stats.refused++;
    return cb_pass_refuse_with(pass, status, reason, fields, n);
}

static int forbid(cb_pass *pass, const char *reason) {
    pass->auth->reason = reason;
    pass->proxy->stats.refused++;
    return cb_pass_refuse(pass, 403, "forbidden");
}

/* What policy and agent are told. source is what r->source points to. */
static int facts(cb_pass *pass, cb_policy_request *r, cb_prefix *source) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    const cb_exchange *x = pass->front;
    const cb_peer *peer = cb_exchange_peer(x);
    struct timespec wall;
    int rc = cb_policy_request_of(r, pass->auth->call);
    if (rc == CB_OK) rc = cb_pass_build_fields(pass); /* tells who the client is */
    if (rc < 0) return rc;
    clock_gettime(CLOCK_REALTIME_COARSE, &wall);
    r->route = cb_slice_str(pass->group->def->opts.name);
    r->method = cb_exchange_method(x);
    r->path = cb_exchange_path(x);
    r->now_s = (int64_t)wall.tv_sec;
    r->mtls = peer != NULL;
    if (peer && !r->spiffe_id.len) r->spiffe_id = cb_slice_str(cb_peer_spiffe_id(peer));
    if (cb_prefix_parse(source, pass->client) < 0) return CB_OK; /* it is unknown: no rule allows by it */
    const bool v4 = memcmp(source->bytes, mapped, sizeof mapped) == 0;
    r->source = v4 ? (cb_slice){source->bytes + 12, 4} : (cb_slice){source->bytes, sizeof source->bytes};
    return CB_OK;
}

/* CB_OK: allowed, or refused already. */
static int ask_policy(cb_pass *pass, const cb_policy_request *r) {
    cb_policy_decision d = {.size = sizeof d};
    int rc = cb_policy_decide(pass->guard->policy, r, &d);
    pass->auth->rule = d.rule;
    cb_cells_add(cb_loop_cells(pass->proxy->loop),
                 rc == CB_OK ? CB_C_POLICY_DECISIONS_ALLOWED
                 : d.rule    ? CB_C_POLICY_DECISIONS_DENIED
                             : CB_C_POLICY_DECISIONS_UNDECIDED,
                 1);
    return rc == CB_EAUTH ? forbid(pass, "policy") : rc;
}

static int go_on(cb_pass *pass) {
    int rc = make_fields(pass->auth, pass->guard);
    if (rc == CB_EAUTH) return forbid(pass, "identity-field");
    return rc < 0 ? rc : cb_pass_start(pass);
}

/* ---- agents ---- */

void cb_proxy_table_opas_free(cb_proxy_table *t) {
    for (size_t i = 0; t->opas && i < t->router->n_guards; i++)
        cb_opa_free(t->opas[i]);
    cb_mem_free(t->proxy->alloc, t->opas);
    t->opas = NULL;
}

static int agent_of(cb_opa **out, cb_pass *pass) {
    cb_proxy *p = pass->proxy;
    cb_proxy_table *t = pass->table;
    const cb_route_guard *g = pass->guard;
    int rc = p->agents ? CB_OK : cb_http_client_new(&p->agents, p->loop, NULL);
    if (rc < 0) return rc;
    if (!t->opas) t->opas = cb_mem_new(p->alloc, t->router->n_guards * sizeof *t->opas);
    if (!t->opas) return cb_fail(CB_ENOMEM, "no memory for a policy agent");
    const cb_opa_opts o = {.size = sizeof o,
                           .loop = p->loop,
                           .client = p->agents,
                           .url = g->opa.url,
                           .token = g->opa.token,
                           .timeout_ms = g->opa.timeout_ms,
                           .cache_ms = g->opa.cache_ms,
                           .fail_open = g->opa.fail_open};
    if (!t->opas[g->index]) rc = cb_opa_new(&t->opas[g->index], &o);
    *out = t->opas[g->index];
    return rc;
}

static int agent_said(cb_pass *pass, const cb_opa_decision *d, int rc) {
    if (rc == CB_OK) return go_on(pass);
    if (rc != CB_EAUTH) return rc;
    if (d->reason && d->reason != CB_OPA_RESULT) pass->auth->rule = cb_opa_reason_text(d->reason);
    return forbid(pass, "opa");
}

static void on_agent(const cb_opa_decision *d, int rc, void *user) {
    cb_pass *pass = user;
    pass->auth->opa = NULL;
    pass->auth->waiting = false;
    if (agent_said(pass, d, rc) < 0 && pass->front) cb_pass_refuse(pass, 502, "internal");
    if (pass->front) cb_exchange_resume(pass->front);
}

static int ask_agent(cb_pass *pass, const cb_policy_request *r) {
    cb_opa_decision d = {.size = sizeof d};
    cb_opa *opa = NULL;
    int rc = agent_of(&opa, pass);
    if (rc < 0) return rc;
    pass->auth->waiting = true;
    rc = cb_opa_ask(opa, r, (cb_slice){.base = NULL}, &d, &pass->auth->opa, on_agent, pass);
    if (rc == CB_EAGAIN) return CB_OK;
    pass->auth->waiting = false;
    pass->auth->opa = NULL;
    return agent_said(pass, &d, rc);
}

static int let_in(cb_pass *pass) {
    const cb_route_guard *g = pass->guard;
    cb_policy_request r;
    cb_prefix source;
    if (!g->policy && !g->opa.url) return go_on(pass);
    int rc = facts(pass, &r, &source);
    if (rc == CB_ELIMIT) return cb_pass_refuse(pass, 508, "loop");
    if (rc == CB_OK && g->policy) rc = ask_policy(pass, &r);
    if (rc < 0 || pass->answered) return rc;
    return g->opa.url ? ask_agent(pass, &r) : go_on(pass);
}

static int decided(cb_pass *pass, int rc) {
    if (rc == CB_OK) return let_in(pass);
    return rc == CB_EAUTH ? refuse(pass) : rc;
}

static void on_decided(cb_authn_call *call, int rc, void *user) {
    cb_pass *pass = user;
    (void)call;
    pass->auth->waiting = false;
    if (decided(pass, rc) < 0 && pass->front) cb_pass_refuse(pass, 502, "internal");
    if (pass->front) cb_exchange_resume(pass->front);
}

static bool is_preflight(const cb_exchange *x) {
    return cb_slice_eq(cb_exchange_method(x), "OPTIONS") && cb_exchange_field(x, "origin").len &&
           cb_exchange_field(x, "access-control-request-method").len;
}

int cb_pass_authenticate(cb_pass *pass) {
    cb_exchange *x = pass->front;
    const cb_route_guard *g = pass->guard;
    cb_authn_request request;
    struct timespec wall;
    if (cb_exchange_is_early(x) || cb_exchange_field(x, "early-data").base)
        return cb_pass_refuse(pass, 425, "early_data");
    if (g->pass_preflight && is_preflight(x)) return cb_pass_start(pass);
    pass->auth = auth_get(pass->proxy);
    if (!pass->auth) return cb_fail(CB_ENOMEM, "no memory for one more request");
    clock_gettime(CLOCK_REALTIME_COARSE, &wall);
    cb_authn_request_of(&request, x, (int64_t)wall.tv_sec);
    pass->auth->waiting = true;
    int rc = cb_authn_begin(pass->auth->call, g->authn, &request, on_decided, pass);
    if (rc == CB_EAGAIN) return CB_OK;
    pass->auth->waiting = false;
    return decided(pass, rc);
}

/* Who may come in on a route: made with the router, immutable like it. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "http/fields.h"
#include "http/route.h"
#include <string.h>

enum { HIDDEN_MAX = 1024 };

static const char *const words[] = {"subject", "tenant", "roles", "source", "kind", "spiffe_id"};

/* Fields with a meaning of their own, which an identity must not take over. */
static bool reserved(const char *name) {
    static const char *const names[] = {"host",           "connection",
                                        "content-length", "transfer-encoding",
                                        "authorization",  "dpop",
                                        "cookie",         "te",
                                        "upgrade",        "via",
                                        "early-data",     "proxy-authorization",
                                        "trailer",        "expect",
                                        "forwarded",      "keep-alive",
                                        "content-type",   "range",
                                        "max-forwards",   "http2-settings",
                                        "client-cert",    "client-cert-chain",
                                        "x-real-ip"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    return strncmp(name, "x-forwarded-", 12) == 0 || strncmp(name, "sec-websocket-", 14) == 0 ||
           strncmp(name, "access-control-", 15) == 0;
}

static bool known_source(const char *from) {
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(from, words[i]) == 0) return true;
    return *from == '/';
}

static int check_header(const cb_route_guard *g, const cb_route_header *h) {
    cb_slice name = cb_slice_str(h->name);
    if (!cb_field_name_ok(name) || !cb_field_name_no_upper(name) || strchr(h->name, '_'))
        return cb_fail(CB_EINVAL, "identity field \"%.60s\": not a name of small letters without \"_\"",
                       h->name ? h->name : "");
    if (reserved(h->name)) return cb_fail(CB_EINVAL, "identity field \"%.60s\": HTTP needs it for itself", h->name);
    if (!h->from || !known_source(h->from))
        return cb_fail(CB_EINVAL, "identity field \"%.60s\": \"%.60s\" is no part of an identity, and no pointer",
                       h->name, h->from ? h->from : "");
    if (cb_authn_reads(g->authn, name))
        return cb_fail(CB_EINVAL, "identity field \"%.60s\": credentials come in it", h->name);
    for (size_t i = 0; i < g->n_headers; i++)
        if (strcmp(g->names[i], h->name) == 0)
            return cb_fail(CB_EINVAL, "identity field \"%.60s\": it is there twice", h->name);
    return CB_OK;
}

static int hide(cb_router *r, const char *name) {
    for (size_t i = 0; i < r->n_hidden; i++)
        if (strcmp(r->hidden[i], name) == 0) return CB_OK;
    if (r->n_hidden == HIDDEN_MAX) return cb_fail(CB_ELIMIT, "more than %d identity fields", HIDDEN_MAX);
    char **all = cb_mem_grow(&cb_alloc_libc, r->hidden, (r->n_hidden + 1) * sizeof *all);
    if (!all) return cb_fail(CB_ENOMEM, "no memory for a field's name");
    r->hidden = all;
    all[r->n_hidden] = cb_mem_text(&cb_alloc_libc, name);
    if (!all[r->n_hidden]) return cb_fail(CB_ENOMEM, "no memory for a field's name");
    r->n_hidden++;
    return CB_OK;
}

static int add_header(cb_route_guard *g, cb_router *r, const cb_route_header *h) {
    int rc = check_header(g, h);
    if (rc < 0) return rc;
    size_t i = g->n_headers++;
    g->names[i] = cb_mem_text(&cb_alloc_libc, h->name);
    g->from[i] = cb_mem_text(&cb_alloc_libc, h->from);
    if (!g->names[i] || !g->from[i]) return cb_fail(CB_ENOMEM, "no memory for an identity field");
    return hide(r, h->name);
}

static int copy_opa(cb_route_guard *g, const cb_route_opa *from) {
    cb_route_opa o;
    int rc = cb_opts_read(&o, sizeof o, from, "cb_route_opa");
    if (rc < 0) return rc;
    if (!o.url) return cb_fail(CB_EINVAL, "cb_route_opa: url is missing");
    const char *url = o.url, *token = o.token;
    o.url = cb_mem_text(&cb_alloc_libc, url);
    o.token = cb_mem_text(&cb_alloc_libc, token);
    g->opa = o;
    return !o.url || (token && !o.token) ? cb_fail(CB_ENOMEM, "no memory for a route") : CB_OK;
}

/* On failure the guard stays with the router, which nobody uses then. */
int cb_route_guard_new(cb_route_guard **out, cb_router *r, const cb_route_auth *auth) {
    cb_route_auth a;
    int rc = cb_opts_read(&a, sizeof a, auth, "cb_route_auth");
    if (rc < 0) return rc;
    if (!a.authn) return cb_fail(CB_EINVAL, "cb_route_auth: authn is missing");
    if (a.n_headers > CB_ROUTE_HEADERS || (a.n_headers && !a.headers))
        return cb_fail(CB_EINVAL, "cb_route_auth: headers are NULL, or more than %d", CB_ROUTE_HEADERS);
    cb_route_guard *g = cb_mem_new(&cb_alloc_libc, sizeof *g);
    if (!g) return cb_fail(CB_ENOMEM, "no memory for a route");
    g->next = r->guards;
    r->guards = g;
    g->index = r->n_guards++;
    g->authn = cb_authn_ref(a.authn);
    g->policy = a.policy ? cb_policy_ref(a.policy) : NULL;
    g->keep_credentials = a.keep_credentials != 0;
    g->pass_preflight = a.pass_preflight != 0;
    if (a.opa) rc = copy_opa(g, a.opa);
    for (size_t i = 0; i < a.n_headers && rc == CB_OK; i++)
        rc = add_header(g, r, &a.headers[i]);
    if (rc == CB_OK) *out = g;
    return rc;
}

void cb_route_guards_free(cb_router *r) {
    for (cb_route_guard *g = r->guards, *next; g; g = next) {
        next = g->next;
        for (size_t i = 0; i < g->n_headers; i++) {
            cb_mem_free(&cb_alloc_libc, g->names[i]);
            cb_mem_free(&cb_alloc_libc, g->from[i]);
        }
        cb_authn_unref(g->authn);
        cb_policy_unref(g->policy);
        cb_mem_free(&cb_alloc_libc, (char *)(uintptr_t)g->opa.url);
        cb_mem_free(&cb_alloc_libc, (char *)(uintptr_t)g->opa.token);
        cb_mem_free(&cb_alloc_libc, g);
    }
    for (size_t i = 0; i < r->n_hidden; i++)
        cb_mem_free(&cb_alloc_libc, r->hidden[i]);
    cb_mem_free(&cb_alloc_libc, r->hidden);
}

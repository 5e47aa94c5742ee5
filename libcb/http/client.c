/* cb_http_client: URLs and options in front of a pool. */
#include "base/error.h"
#include "base/opts.h"
#include "http/fields.h"
#include "http/pool.h"
#include "http/url.h"
#include "loop/netwatch.h"
#include <stdio.h>
#include <string.h>

enum { MAX_VERSIONS = CB_HTTP_1 | CB_HTTP_2 | CB_HTTP_3, LOG_CHARS = 64 };

struct cb_http_client {
    cb_loop *loop;
    const cb_alloc *alloc;
    cb_http_client_opts opts;
    cb_identity *identity;
    char *server_name;
    cb_resolver *resolver;
    cb_pool *pool;
    cb_origin *last; /* of the request before: most go to the same one */
    char *last_key;  /* scheme, authority, connect_to and versions of that */
    size_t last_len, last_cap;
    cb_netwatch *watch; /* NULL: the network is not followed */
    uint64_t network_changes;
    cb_grave grave;
};

/* ---- life ---- */

static void client_bury(cb_grave *g) {
    cb_http_client *c = CB_CONTAINER(g, cb_http_client, grave);
    cb_resolver_free(c->resolver); /* here, for it must not go inside of its own callback */
    cb_identity_unref(c->identity);
    cb_mem_free(c->alloc, c->server_name);
    cb_mem_free(c->alloc, c->last_key);
    cb_mem_free(c->alloc, c);
}

static void on_network(void *user) {
    (void)cb_http_client_network_changed(user);
}

static int make_parts(cb_http_client *c) {
    const cb_http_client_opts *o = &c->opts;
    const cb_resolver_opts names = {.size = sizeof names, .servers = o->resolver};
    int rc = cb_resolver_new(&c->resolver, c->loop, &names);
    if (rc < 0) return rc;
    const cb_identity_opts anybody = {.size = sizeof anybody};
    if (o->identity)
        c->identity = cb_identity_ref(o->identity);
    else
        rc = cb_identity_new(&c->identity, &anybody); /* one for all connections: it keeps the system's roots */
    if (rc < 0) return rc;
    if (o->server_name && !(c->server_name = cb_mem_text(c->alloc, o->server_name)))
        return cb_fail(CB_ENOMEM, "server_name");
    const cb_pool_opts pool = {.resolver = c->resolver,
                               .limits = o->limits,
                               .connect_timeout = o->connect_timeout_ms * CB_MS,
                               .idle_timeout = o->idle_timeout_ms * CB_MS,
                               .happy_eyeballs = o->happy_eyeballs_ms * CB_MS,
                               .max_conns = o->max_conns_per_host,
                               .max_idle = o->max_idle_per_host,
                               .max_queue = 65536,
                               .h3_grace = o->h3_head_start_ms * CB_MS,
                               .quic_retry = o->h3_retry_ms * CB_MS,
                               .cc = o->cc,
                               .follows = o->follow_network,
                               .sessions = o->sessions};
    rc = cb_pool_new(&c->pool, c->loop, &pool);
    if (rc == CB_OK && o->follow_network) rc = cb_netwatch_new(&c->watch, c->loop, on_network, c);
    return rc;
}

int cb_http_client_new(cb_http_client **out, cb_loop *loop, const cb_http_client_opts *opts) {
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_http_client_new: %s is NULL", !out ? "out" : "loop");
    const cb_alloc *alloc = cb_loop_alloc(loop);
    cb_http_client *c = cb_mem_new(alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "HTTP client");
    c->loop = loop;
    c->alloc = alloc;
    int rc = cb_opts_read(&c->opts, sizeof c->opts, opts, "cb_http_client_opts");
    cb_http_client_opts *o = &c->opts;
    if (rc == CB_OK && o->versions & ~(uint32_t)MAX_VERSIONS)
        rc = cb_fail(CB_EINVAL, "versions: 0x%x has unknown bits", o->versions);
    if (rc == CB_OK && o->verify > CB_VERIFY_NONE)
        rc = cb_fail(CB_EINVAL, "verify: %u is no enum cb_verify", o->verify);
    if (rc == CB_OK && o->send_proxy > 2)
        rc = cb_fail(CB_EINVAL, "send_proxy: %u is no version of the PROXY protocol", o->send_proxy);
    if (rc == CB_OK) rc = make_parts(c);
    if (rc < 0) {
        cb_http_client_free(c);
        return rc;
    }
    *out = c;
    return CB_OK;
}

void cb_http_client_free(cb_http_client *c) {
    if (!c) return;
    cb_pool *pool = c->pool;
    c->pool = NULL; /* what callbacks still want to send is refused */
    cb_origin_unref(c->last);
    c->last = NULL;
    cb_netwatch_free(c->watch);
    c->watch = NULL;
    cb_pool_free(pool);
    cb_loop_bury(c->loop, &c->grave, client_bury);
}

/* ---- the network, and figures ---- */

int cb_http_client_network_changed(cb_http_client *c) {
    if (!c) return cb_fail(CB_EINVAL, "cb_http_client_network_changed: c is NULL");
    if (!c->pool) return cb_fail(CB_ECLOSED, "the client is closed");
    c->network_changes++;
    cb_pool_network_changed(c->pool);
    return CB_OK;
}

int cb_http_client_stats_get(const cb_http_client *c, cb_http_client_stats *out) {
    if (!c) return cb_fail(CB_EINVAL, "cb_http_client_stats_get: c is NULL");
    if (!c->pool) return cb_fail(CB_ECLOSED, "the client is closed");
    const cb_pool_stats *p = cb_pool_stats_of(c->pool);
    cb_http_client_stats s = {.opened_h1 = p->opened[CB_HTTP_1],
                              .opened_h2 = p->opened[CB_HTTP_2],
                              .opened_h3 = p->opened[CB_HTTP_3],
                              .failed = p->failed,
                              .retried = p->retried,
                              .moved = p->moved,
                              .silent = p->silent,
                              .probes = p->probes,
                              .migrated = p->migrated,
                              .network_changes = c->network_changes,
                              .resumed = p->resumed};
    return cb_stats_give(out, &s, sizeof s, "cb_http_client_stats");
}

/* ---- requests ---- */

static int check_fields(const cb_request *req) {
    char safe[LOG_CHARS];
    if (req->n_fields && !req->fields) return cb_fail(CB_EINVAL, "n_fields %zu, and fields is NULL", req->n_fields);
    for (size_t i = 0; i < req->n_fields; i++) {
        const cb_field *f = &req->fields[i];
        if (!cb_field_name_ok(f->name))
            return cb_fail(CB_EINVAL, "fields[%zu]: \"%s\" is no field name", i,
                           cb_text_escape(safe, sizeof safe, f->name));
        if (!cb_field_value_ok(f->value))
            return cb_fail(CB_EINVAL, "fields[%zu]: the value of %s has control characters or is not trimmed", i,
                           cb_text_escape(safe, sizeof safe, f->name));
    }
    return CB_OK;
}

static int get_origin(cb_origin **out, cb_http_client *c, const cb_request *req, const cb_url *url) {
    const cb_http_client_opts *o = &c->opts;
    const uint32_t versions = req->versions ? req->versions : o->versions;
    char dial[CB_ADDR_TEXT];
    cb_pool_target t = {.host = url->host,
                        .port = url->port,
                        .tls = url->tls,
                        .tls12 = o->tls12,
                        .early_data = o->early_data,
                        .verify = o->verify,
                        .send_proxy = o->send_proxy,
                        .versions = versions,
                        .alt_svc = url->tls && !o->alt_svc && (!versions || versions & CB_HTTP_3),
                        .server_name = c->server_name ? c->server_name : url->host,
                        .identity = c->identity};
    if (!t.tls) {
        if (t.versions == CB_HTTP_3) return cb_fail(CB_EINVAL, "%s: HTTP/3 needs an https URL", req->url);
        t.versions &= ~(uint32_t)CB_HTTP_3;
    }
    if (cb_unix_path(req->connect_to)) {
        t.host = req->connect_to;
        t.port = 0;
        t.alt_svc = false;
        if (t.versions != CB_HTTP_3) t.versions &= ~(uint32_t)CB_HTTP_3;
    } else if (req->connect_to) {
        cb_addr at;
        int rc = cb_addr_parse(&at, req->connect_to, url->port);
        if (rc < 0) return rc;
        t.host = cb_addr_host(&at, dial);
        t.port = cb_addr_port(&at);
    }
    return cb_origin_get(out, c->pool, &t);
}

/* What decides the origin, beside the client's own options. */
static size_t short_key(char *out, size_t cap, const cb_request *req, const cb_url *url) {
    int n = snprintf(out, cap, "%d%u %s %s", url->tls, req->versions, url->authority,
                     req->connect_to ? req->connect_to : "");
    return n > 0 && (size_t)n < cap ? (size_t)n : 0;
}

/* Borrowed from c->last. */
static int find_origin(cb_origin **out, cb_http_client *c, const cb_request *req, const cb_url *url) {
    char key[512];
    const size_t n = short_key(key, sizeof key, req, url);
    if (n && c->last && n == c->last_len && memcmp(key, c->last_key, n) == 0) {
        *out = c->last;
        return CB_OK;
    }
    cb_origin *o = NULL;
    int rc = get_origin(&o, c, req, url);
    if (rc < 0) return rc;
    cb_origin_unref(c->last);
    c->last = o;
    c->last_len = 0;
    if (n > c->last_cap) {
        char *grown = cb_mem_grow(c->alloc, c->last_key, n);
        if (grown) {
            c->last_key = grown;
            c->last_cap = n;
        }
    }
    if (n && n <= c->last_cap) {
        memcpy(c->last_key, key, n);
        c->last_len = n;
    }
    *out = o;
    return CB_OK;
}

static int64_t declared_length(const cb_request *req) {
    for (size_t i = 0; i < req->n_fields; i++)
        if (cb_slice_ieq(req->fields[i].name, "content-length")) return cb_content_length(req->fields[i].value);
    return -1;
}

int cb_http_request(cb_exchange **out, cb_http_client *c, const cb_request *request, const cb_exchange_ops *ops,
                    void *user) {
    cb_request req;
    cb_url url;
    cb_origin *origin = NULL;
    if (!out || !c) return cb_fail(CB_EINVAL, "cb_http_request: %s is NULL", !out ? "out" : "c");
    if (!c->pool) return cb_fail(CB_ECLOSED, "the client is closed");
    int rc = ops ? cb_ops_check(ops, sizeof *ops, "cb_exchange_ops") : CB_OK;
    if (rc == CB_OK) rc = cb_opts_read(&req, sizeof req, request, "cb_request");
    if (rc == CB_OK) rc = cb_url_parse(&url, req.url);
    if (rc == CB_OK) rc = check_fields(&req);
    if (rc == CB_OK && req.versions & ~(uint32_t)MAX_VERSIONS)
        rc = cb_fail(CB_EINVAL, "versions: 0x%x has unknown bits", req.versions);
    if (rc < 0) return rc;
    const cb_slice method = cb_slice_str(req.method ? req.method : req.protocol ? "CONNECT" : "GET");
    if (!cb_method_ok(method)) return cb_fail(CB_EINVAL, "method: not a token");
    if (req.protocol && !cb_field_name_ok(cb_slice_str(req.protocol)))
        return cb_fail(CB_EINVAL, "protocol: not a token");
    rc = find_origin(&origin, c, &req, &url);
    if (rc < 0) return rc;

    const bool tunnel = cb_slice_eq(method, "CONNECT") && !req.protocol;
    cb_head head = {.method = method,
                    .scheme = cb_slice_str(url.tls ? "https" : "http"),
                    .authority = cb_slice_str(url.authority),
                    .path = url.target,
                    .protocol = cb_slice_str(req.protocol),
                    .fields = req.fields,
                    .n = req.n_fields,
                    .length = declared_length(&req)};
    char slashed[2048];
    if (tunnel) { /* authority form: always with a port (RFC 9110, 9.3.6) */
        snprintf(slashed, sizeof slashed, "%s%s%s:%u", url.v6 ? "[" : "", url.host, url.v6 ? "]" : "", url.port);
        head.authority = cb_slice_str(slashed);
        head.path = (cb_slice){0};
    } else if (url.add_slash) {
        if (url.target.len >= sizeof slashed) return cb_fail(CB_EINVAL, "URL: a query of %zu bytes", url.target.len);
        slashed[0] = '/';
        if (url.target.len) memcpy(slashed + 1, url.target.base, url.target.len);
        head.path = (cb_slice){(const uint8_t *)slashed, url.target.len + 1};
    }
    const cb_pool_request send = {.head = &head,
                                  .has_body = req.has_body || tunnel || req.protocol,
                                  .timeout = req.timeout_ms * CB_MS,
                                  .ops = ops,
                                  .user = user};
    return cb_pool_send(out, origin, &send);
}

/* Checks by a request: HTTP/1.1, /2 and /3, and gRPC's health service. Each has a pool of its own for its time, so that
 * each makes a new connection, as a client would, and nothing stays open between two. F3. */
#include "base/buf.h"
#include "base/error.h"
#include "http/fields.h"
#include "http/pool.h"
#include "lb/probe.h"
#include "lb/probe_wire.h"
#include <stdio.h>
#include <string.h>

typedef struct ask {
    cb_probe *probe;
    cb_pool *pool;
    cb_origin *origin;
    cb_exchange *x;
    cb_buf body;
    size_t sent, message_len;
    uint8_t message[CB_GRPC_REQUEST_MAX];
} ask;

static const char *version_name(int version) {
    return version == CB_HTTP_3 ? "HTTP/3" : version == CB_HTTP_2 ? "HTTP/2" : "HTTP/1.1";
}

/* ---- both ---- */

static void on_close(cb_exchange *x, int rc, void *user) {
    ask *a = user;
    (void)x;
    a->x = NULL;
    if (a->probe->is_over) return;
    if (rc == CB_OK)
        rc = cb_fail(CB_EPROTO, "%s: the response ended before it said anything", cb_origin_name(a->origin));
    cb_probe_failed(a->probe);
}

static int open_pool(ask *a) {
    const cb_probe *p = a->probe;
    const cb_check *c = &p->conf->c;
    const cb_pool_opts opts = {
        .resolver = p->resolver, .connect_timeout = p->timeout, .max_conns = 1, .max_idle = 1, .max_queue = 1};
    const cb_pool_target t = {.host = p->conf->host,
                              .port = p->conf->port,
                              .tls = c->tls,
                              .tls12 = !c->tls13_only,
                              .verify = c->verify,
                              .versions = c->versions,
                              .server_name = c->server_name,
                              .identity = c->identity};
    int rc = cb_pool_new(&a->pool, p->loop, &opts);
    if (rc == CB_OK) rc = cb_origin_get(&a->origin, a->pool, &t);
    return rc;
}

static int begin(cb_probe *p, const cb_exchange_ops *ops, const char *method, const char *path, const cb_field *fields,
                 size_t n, bool has_body) {
    ask *a = cb_mem_new(p->alloc, sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "no memory for a check");
    a->probe = p;
    p->state = a;
    cb_buf_init(&a->body, p->alloc, CB_CHECK_BODY_MAX);
    const cb_head head = {.method = cb_slice_str(method),
                          .scheme = cb_slice_str(p->conf->c.tls ? "https" : "http"),
                          .authority = cb_slice_str(p->conf->c.host),
                          .path = cb_slice_str(path),
                          .fields = fields,
                          .n = n,
                          .length = has_body ? -1 : 0};
    const cb_pool_request req = {.head = &head, .has_body = has_body, .no_retry = true, .ops = ops, .user = a};
    int rc = open_pool(a);
    return rc == CB_OK ? cb_pool_send(&a->x, a->origin, &req) : rc;
}

static void ask_end(cb_probe *p) {
    ask *a = p->state;
    if (!a) return;
    if (a->x) cb_exchange_abandon(a->x);
    cb_origin_unref(a->origin);
    if (a->pool) cb_pool_free(a->pool);
    cb_buf_free(&a->body);
    cb_mem_free(p->alloc, a);
    p->state = NULL;
}

/* ---- HTTP ---- */

static void http_well(const ask *a, const cb_exchange *x) {
    char took[24];
    cb_probe_over(a->probe, true, "%s: status %d by %s after %s", cb_origin_name(a->origin), cb_exchange_status(x),
                  version_name(cb_exchange_version(x)), cb_probe_took(a->probe, took));
}

static int on_head(cb_exchange *x, void *user) {
    const ask *a = user;
    const int status = cb_exchange_status(x);
    char took[24];
    if (status < 0 || status > 999 || !(a->probe->conf->ok[status / 8] >> status % 8 & 1))
        cb_probe_over(a->probe, false, "%s: status %d by %s after %s, which is none of %s", cb_origin_name(a->origin),
                      status, version_name(cb_exchange_version(x)), cb_probe_took(a->probe, took),
                      a->probe->conf->c.statuses);
    else if (!a->probe->conf->c.body)
        http_well(a, x);
    return CB_OK;
}

static void no_text(const ask *a, const cb_exchange *x, const char *where) {
    char took[24], seen[80];
    cb_probe_over(a->probe, false, "%s: status %d after %s, and %s has not the text \"%.60s\": it begins with %s",
                  cb_origin_name(a->origin), cb_exchange_status(x), cb_probe_took(a->probe, took), where,
                  a->probe->conf->c.body, cb_probe_quote(cb_buf_slice(&a->body), seen));
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    ask *a = user;
    const char *want = a->probe->conf->c.body;
    if (a->probe->is_over) return (int64_t)data.len;
    const size_t room = CB_CHECK_BODY_MAX - a->body.len, n = data.len < room ? data.len : room;
    int rc = cb_buf_add(&a->body, data.base, n);
    if (rc < 0) return rc;
    if (memmem(a->body.base, a->body.len, want, strlen(want)))
        http_well(a, x);
    else if (a->body.len == CB_CHECK_BODY_MAX)
        no_text(a, x, "the first 64 KiB of the body");
    return (int64_t)data.len;
}

static int on_end(cb_exchange *x, void *user) {
    const ask *a = user;
    if (!a->probe->is_over) no_text(a, x, "the body");
    return CB_OK;
}

static int http_begin(cb_probe *p) {
    static const cb_exchange_ops ops = {
        .size = sizeof ops, .on_head = on_head, .on_body = on_body, .on_end = on_end, .on_close = on_close};
    char agent[48];
    snprintf(agent, sizeof agent, "libcb-check/%s", cb_version_text());
    const cb_field fields[] = {{cb_slice_str("user-agent"), cb_slice_str(agent)},
                               {cb_slice_str("accept"), cb_slice_str("*/*")}};
    return begin(p, &ops, p->conf->c.method, p->conf->c.path, fields, 2, false);
}

const cb_probe_kind cb_probe_http = {
    .name = "http", .begin = http_begin, .end = ask_end, .dials = true, .needs_address = true};

/* ---- gRPC ---- */

static int write_message(cb_exchange *x, void *user) {
    ask *a = user;
    while (a->sent < a->message_len) {
        const int64_t n = cb_exchange_write(x, (cb_slice){a->message + a->sent, a->message_len - a->sent});
        if (n < 0) return n == CB_EAGAIN ? CB_OK : (int)n;
        a->sent += (size_t)n;
    }
    if (!a->message_len) return CB_OK;
    a->message_len = a->sent = 0;
    return cb_exchange_finish(x);
}

static int64_t grpc_body(cb_exchange *x, cb_slice data, void *user) {
    ask *a = user;
    (void)x;
    if (a->probe->is_over) return (int64_t)data.len;
    if (data.len > CB_GRPC_ANSWER_MAX - a->body.len) {
        cb_probe_over(a->probe, false, "%s: an answer of more than %d bytes is none of a health service",
                      cb_origin_name(a->origin), CB_GRPC_ANSWER_MAX);
        return (int64_t)data.len;
    }
    const int rc = cb_buf_add(&a->body, data.base, data.len);
    return rc < 0 ? rc : (int64_t)data.len;
}

/* In the trailers, or in the head of a response that has nothing else. */
static cb_slice status_field(const cb_exchange *x, const char *name) {
    size_t n = 0;
    const cb_field *f = cb_exchange_trailers(x, &n);
    for (size_t i = 0; i < n; i++)
        if (cb_slice_eq(f[i].name, name)) return f[i].value;
    return cb_exchange_field(x, name);
}

static void grpc_refused(const ask *a, const cb_exchange *x, int status) {
    const char *service = a->probe->conf->c.service, *origin = cb_origin_name(a->origin);
    char seen[80];
    enum { NOT_FOUND = 5, UNIMPLEMENTED = 12 };
    if (status == NOT_FOUND)
        cb_probe_over(a->probe, false, "%s: SERVICE_UNKNOWN: it knows no service \"%.100s\"", origin, service);
    else if (status == UNIMPLEMENTED)
        cb_probe_over(a->probe, false, "%s: UNIMPLEMENTED: it has no grpc.health.v1.Health", origin);
    else
        cb_probe_over(a->probe, false, "%s: gRPC status %d (%s), message %s", origin, status,
                      cb_grpc_status_name(status), cb_probe_quote(status_field(x, "grpc-message"), seen));
}

static int grpc_end(cb_exchange *x, void *user) {
    const ask *a = user;
    const cb_slice type = cb_exchange_field(x, "content-type"), text = status_field(x, "grpc-status");
    const int status = cb_grpc_status(text);
    const char *origin = cb_origin_name(a->origin), *service = a->probe->conf->c.service;
    uint64_t serving = CB_GRPC_UNKNOWN;
    char took[24], seen[80];
    cb_probe_took(a->probe, took);
    if (a->probe->is_over) return CB_OK;
    if (cb_exchange_status(x) != 200 || type.len < 16 || memcmp(type.base, "application/grpc", 16) != 0)
        cb_probe_over(a->probe, false, "%s: no gRPC: status %d, content-type %s", origin, cb_exchange_status(x),
                      cb_probe_quote(type, seen));
    else if (status < 0)
        cb_probe_over(a->probe, false, "%s: no gRPC: its grpc-status is %s", origin, cb_probe_quote(text, seen));
    else if (status)
        grpc_refused(a, x, status);
    else if (cb_grpc_health_answer(&serving, cb_buf_slice(&a->body)) < 0)
        cb_probe_failed(a->probe);
    else
        cb_probe_over(a->probe, serving == CB_GRPC_SERVING, "%s: service \"%.100s\" is %s after %s", origin, service,
                      cb_grpc_serving_name(serving), took);
    return CB_OK;
}

static int grpc_begin(cb_probe *p) {
    static const cb_exchange_ops ops = {.size = sizeof ops,
                                        .on_body = grpc_body,
                                        .on_end = grpc_end,
                                        .on_writable = write_message,
                                        .on_close = on_close};
    char timeout[24], agent[48];
    snprintf(timeout, sizeof timeout, "%llum", (unsigned long long)(p->timeout / CB_MS));
    snprintf(agent, sizeof agent, "libcb-check/%s", cb_version_text());
    const cb_field fields[] = {{cb_slice_str("content-type"), cb_slice_str("application/grpc")},
                               {cb_slice_str("te"), cb_slice_str("trailers")},
                               {cb_slice_str("grpc-timeout"), cb_slice_str(timeout)},
                               {cb_slice_str("user-agent"), cb_slice_str(agent)}};
    int rc = begin(p, &ops, "POST", "/grpc.health.v1.Health/Check", fields, 4, true);
    if (rc < 0) return rc;
    ask *a = p->state;
    a->message_len = cb_grpc_health_request(a->message, p->conf->c.service);
    return write_message(a->x, a);
}

const cb_probe_kind cb_probe_grpc = {
    .name = "grpc", .begin = grpc_begin, .end = ask_end, .dials = true, .needs_address = true};

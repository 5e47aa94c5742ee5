/* What the reverse proxy counts: by route, tenant, group and origin. */
#include "http/fields.h"
#include "support/http_fixture.h"
#include "support/moved.h"
#include <cb/proxy.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct meter_world {
    http_world w; /* its server is the origin */
    cb_router *router;
    cb_proxy *proxy;
    cb_http_server *front;
    char origin[96]; /* its URL */
} meter_world;

static int look(cb_authn_call *call, cb_slice token, void *user) {
    char claims[400];
    (void)user;
    if (cb_slice_eq(token, "bad")) return CB_EAUTH;
    snprintf(claims, sizeof claims, "{\"sub\":\"joe\",\"t\":\"%.*s\"}", (int)token.len, (const char *)token.base);
    cb_authn_answer(call, CB_OK, cb_slice_str(claims));
    return CB_OK;
}

/* A token names its tenant. */
static void guarded_route(cb_router *r, cb_policy *policy) {
    static const cb_authn_token_ops ops = {.size = sizeof ops, .look = look};
    const cb_authn_claims claims = {.size = sizeof claims, .tenant = "t"};
    cb_authn_source *source = NULL;
    cb_authn *gate = NULL;
    cr_assert_eq(
        cb_authn_source_token(&source, CB_OPTS(cb_authn_token_opts, .name = "tokens", .ops = &ops, .claims = &claims)),
        CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_authn_new(&gate, CB_OPTS(cb_authn_opts, .sources = &source, .n_sources = 1)), CB_OK);
    const cb_route_auth auth = {.size = sizeof auth, .authn = gate, .policy = policy};
    cr_assert_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .host = "localhost", .path = "/echo", .group = "web",
                                            .tenant = "routed", .auth = &auth)),
                 CB_OK, "%s", cb_last_error());
    cb_authn_unref(gate);
    cb_authn_source_unref(source);
}

static cb_router *make_router(const meter_world *m, const char *first, cb_origin_group_opts o) {
    cb_router *r = NULL;
    o.size = sizeof o;
    o.name = "web";
    o.policy = CB_LB_ROUND_ROBIN; /* the first one is asked first */
    cr_assert_eq(cb_router_new(&r), CB_OK);
    cr_assert_eq(cb_router_group(r, &o), CB_OK, "%s", cb_last_error());
    if (first) cr_assert_eq(cb_router_origin(r, "web", CB_OPTS(cb_origin_opts, .url = first)), CB_OK);
    cr_assert_eq(cb_router_origin(r, "web", CB_OPTS(cb_origin_opts, .url = m->origin)), CB_OK);
    cr_assert_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .host = "localhost", .path = "/", .group = "web")), CB_OK);
    guarded_route(r, NULL);
    return r;
}

static void open_world(meter_world *m, const char *first, cb_origin_group_opts o) {
    memset(m, 0, sizeof *m);
    http_world_open(&m->w);
    http_serve(&m->w, (cb_http_server_opts){.versions = CB_HTTP_1, .name = "origin"});
    snprintf(m->origin, sizeof m->origin, "http://%s", cb_http_server_address(m->w.server));
    m->router = make_router(m, first, o);
    cr_assert_eq(cb_proxy_new(&m->proxy, m->w.loop, CB_OPTS(cb_proxy_opts, .router = m->router)), CB_OK, "%s",
                 cb_last_error());
    cr_assert_eq(cb_http_server_new(&m->front, m->w.loop,
                                    CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0", .versions = CB_HTTP_2,
                                            .name = "front", .ops = cb_proxy_exchange_ops(), .user = m->proxy)),
                 CB_OK, "%s", cb_last_error());
    snprintf(m->w.url, sizeof m->w.url, "http://localhost%s", strrchr(cb_http_server_address(m->front), ':'));
    http_client_make(&m->w, (cb_http_client_opts){.versions = CB_HTTP_2});
}

static void close_world(meter_world *m) {
    cb_http_client_free(m->w.client);
    m->w.client = NULL;
    cb_http_server_free(m->front);
    cb_proxy_free(m->proxy);
    cb_router_unref(m->router);
    http_world_close(&m->w);
}

static void turns(meter_world *m, int n) {
    while (n-- > 0) {
        cb_loop_step(m->w.loop);
        usleep(200);
    }
}

static int get(meter_world *m, const char *path) {
    http_reply r = {0};
    http_fetch(&r, &m->w, (cb_request){0}, path);
    turns(m, 3);
    return r.status;
}

static int post_as(meter_world *m, const char *tenant) {
    char value[400];
    snprintf(value, sizeof value, "Bearer %s", tenant);
    const cb_field f = {cb_slice_str("authorization"), cb_slice_str(value)};
    http_reply r = {.send = (const uint8_t *)"12345", .send_len = 5};
    http_fetch(&r, &m->w, (cb_request){.method = "POST", .fields = &f, .n_fields = 1}, "/echo");
    turns(m, 3);
    return r.status;
}

Test(proxy_meters, routes_and_tenants) {
    meter_world m;
    open_world(&m, NULL, (cb_origin_group_opts){.tenant = "owner"});
    EXPECT_MOVED(m.w.metrics, 1, "cb_origin_up", "web", m.origin);
    cr_expect_eq(get(&m, "/hello"), 200);
    cr_expect_eq(get(&m, "/hello"), 200);
    cr_expect_eq(get(&m, "/nothing"), 404);
    cr_expect_eq(post_as(&m, "acme"), 200);
    cr_expect_eq(post_as(&m, "acme"), 200);
    cr_expect_eq(post_as(&m, "routed"), 200);
    cr_expect_eq(post_as(&m, "bad"), 401);
    cb_metrics *x = m.w.metrics;
    EXPECT_MOVED(x, 2, "cb_proxy_requests", "localhost/", "web", "owner", "2xx");
    EXPECT_MOVED(x, 1, "cb_proxy_requests", "localhost/", "web", "owner", "4xx");
    EXPECT_MOVED(x, 2, "cb_proxy_requests", "localhost/echo", "web", "acme", "2xx");
    EXPECT_MOVED(x, 1, "cb_proxy_requests", "localhost/echo", "web", "routed", "2xx");
    EXPECT_MOVED(x, 1, "cb_proxy_requests", "localhost/echo", "web", "routed", "4xx");
    EXPECT_MOVED(x, 3, "cb_proxy_request_seconds", "localhost/");
    EXPECT_MOVED(x, 4, "cb_proxy_request_seconds", "localhost/echo");
    EXPECT_MOVED(x, 6 + 6 + 13, "cb_proxy_body_bytes", "localhost/", "owner", "out");
    EXPECT_MOVED(x, 0, "cb_proxy_body_bytes", "localhost/", "owner", "in");
    EXPECT_MOVED(x, 10, "cb_proxy_body_bytes", "localhost/echo", "acme", "in");
    EXPECT_MOVED(x, 10, "cb_proxy_body_bytes", "localhost/echo", "acme", "out");
    EXPECT_MOVED(x, 5, "cb_origin_requests", "web", m.origin, "2xx");
    EXPECT_MOVED(x, 1, "cb_origin_requests", "web", m.origin, "4xx");
    EXPECT_MOVED(x, 6, "cb_origin_response_seconds", "web");
    EXPECT_MOVED(x, 1, "cb_proxy_phase_seconds", "connect");
    EXPECT_MOVED(x, 0, "cb_proxy_phase_seconds", "auth"); /* nobody was asked who takes time */
    cr_assert(moved_sum(x, "cb_origin_response_seconds", "web", NULL) <
              moved_sum(x, "cb_proxy_request_seconds", "localhost/", NULL) +
                  moved_sum(x, "cb_proxy_request_seconds", "localhost/echo", NULL));
    EXPECT_MOVED(x, 1, "cb_proxy_refused_requests", "unauthorized");
    EXPECT_MOVED(x, 0, "cb_proxy_active_requests", "web");
    close_world(&m);
}

Test(proxy_meters, what_is_under_way) {
    meter_world m;
    http_reply later = {.keep_running = true}, cut = {.keep_running = true};
    open_world(&m, NULL, (cb_origin_group_opts){0});
    cr_assert_eq(http_begin(&later, &m.w, (cb_request){0}, "/later"), CB_OK);
    cr_assert_eq(http_begin(&cut, &m.w, (cb_request){0}, "/never"), CB_OK);
    while (m.w.heads < 2)
        turns(&m, 1);
    EXPECT_MOVED(m.w.metrics, 2, "cb_proxy_active_requests", "web");
    EXPECT_MOVED(m.w.metrics, 2, "cb_origin_active_requests", "web", m.origin);
    http_answer_later(&m.w);
    http_run(&m.w, &later.closes);
    cb_exchange_reset(cut.x, CB_RESET_CANCEL);
    http_run(&m.w, &cut.closes);
    turns(&m, 10);
    EXPECT_MOVED(m.w.metrics, 0, "cb_proxy_active_requests", "web");
    EXPECT_MOVED(m.w.metrics, 0, "cb_origin_active_requests", "web", m.origin);
    EXPECT_MOVED(m.w.metrics, 1, "cb_proxy_failures", "web", "client_gone");
    EXPECT_MOVED(m.w.metrics, 1, "cb_proxy_requests", "localhost/", "web", "", "none");
    close_world(&m);
}

Test(proxy_meters, origins_that_fail) {
    static const char nowhere[] = "http://127.0.0.1:1";
    meter_world m;
    open_world(&m, nowhere, (cb_origin_group_opts){.max_fails = 1, .fail_out_ms = 60000});
    cr_expect_eq(get(&m, "/hello"), 200);
    cb_metrics *x = m.w.metrics;
    /* Refused, but a host without free ports has other reasons: what the log says was counted, whatever it is. */
    char reason[32] = "";
    const char *said = strstr(m.w.log, "proxy: http://127.0.0.1:1: ");
    cr_assert(said && sscanf(said, "proxy: http://127.0.0.1:1: %31[a-z_]:", reason) == 1, "no reason in %s", m.w.log);
    EXPECT_MOVED(x, 1, "cb_origin_failures", "web", nowhere, reason);
    EXPECT_MOVED(x, 1, "cb_origin_requests", "web", nowhere, "none");
    EXPECT_MOVED(x, 1, "cb_origin_ejections", "web", nowhere);
    EXPECT_MOVED(x, 1, "cb_origin_outliers", "web", nowhere, "failures");
    EXPECT_MOVED(x, 0, "cb_origin_up", "web", nowhere);
    EXPECT_MOVED(x, 1, "cb_origin_up", "web", m.origin);
    EXPECT_MOVED(x, 1, "cb_proxy_retries", "web");
    EXPECT_MOVED(x, 0, "cb_proxy_failures", "web", "connect_failed");
    cb_http_server_free(m.w.server);
    m.w.server = NULL;
    cr_expect_eq(get(&m, "/hello"), 502);
    EXPECT_MOVED(x, 1, "cb_proxy_failures", "web", "connect_failed");
    EXPECT_MOVED(x, 0, "cb_origin_up", "web", m.origin);
    EXPECT_MOVED(x, 1, "cb_proxy_requests", "localhost/", "web", "", "5xx");
    close_world(&m);
}

/* Other routes are taken over: what was counted stays, series of origins that left go on only while somebody counts. */
Test(proxy_meters, routes_change) {
    meter_world m;
    open_world(&m, "http://127.0.0.1:1", (cb_origin_group_opts){.max_fails = 1, .fail_out_ms = 60000});
    cr_expect_eq(get(&m, "/hello"), 200);
    cb_router *other = make_router(&m, NULL, (cb_origin_group_opts){.tenant = "new"});
    cr_assert_eq(cb_proxy_swap(m.proxy, other), CB_OK);
    cb_router_unref(other);
    EXPECT_MOVED(m.w.metrics, 1, "cb_proxy_router_swaps");
    cr_expect_eq(get(&m, "/hello"), 200);
    turns(&m, 5);
    EXPECT_MOVED(m.w.metrics, 1, "cb_proxy_requests", "localhost/", "web", "", "2xx");
    EXPECT_MOVED(m.w.metrics, 1, "cb_proxy_requests", "localhost/", "web", "new", "2xx");
    EXPECT_MOVED(m.w.metrics, 2, "cb_origin_requests", "web", m.origin, "2xx");
    EXPECT_MOVED(m.w.metrics, 1, "cb_origin_up", "web", m.origin);
    close_world(&m);
}

/* A hostile issuer, or many tenants: beyond a limit they are one. */
Test(proxy_meters, tenants_are_capped) {
    meter_world m;
    char name[32];
    open_world(&m, NULL, (cb_origin_group_opts){0});
    for (int i = 0; i < 1005; i++) {
        snprintf(name, sizeof name, "tenant-%d", i);
        http_reply r = {.send = (const uint8_t *)"1", .send_len = 1};
        char value[64];
        snprintf(value, sizeof value, "Bearer %s", name);
        const cb_field f = {cb_slice_str("authorization"), cb_slice_str(value)};
        http_fetch(&r, &m.w, (cb_request){.method = "POST", .fields = &f, .n_fields = 1}, "/echo");
        cr_assert_eq(r.status, 200);
    }
    turns(&m, 10);
    EXPECT_MOVED(m.w.metrics, 1, "cb_proxy_requests", "localhost/echo", "web", "tenant-7", "2xx");
    EXPECT_MOVED(m.w.metrics, 0, "cb_proxy_requests", "localhost/echo", "web", "tenant-1004", "2xx");
    EXPECT_MOVED(m.w.metrics, 1005, "cb_proxy_request_seconds", "localhost/echo");
    close_world(&m);
}

static int status_of(meter_world *m, cb_request req, const char *path) {
    http_reply r = {0};
    http_fetch(&r, &m->w, req, path);
    turns(m, 3);
    return r.status;
}

Test(proxy_meters, what_never_gets_to_an_origin) {
    static const cb_field early = {{(const uint8_t *)"early-data", 10}, {(const uint8_t *)"1", 1}};
    static const struct {
        cb_request req;
        const char *path, *family, *reason;
        int status;
    } rows[] = {
        {{0}, "/../x", "cb_proxy_unrouted_requests", "bad_path", 400},
        {{.method = "TRACE"}, "/", "cb_proxy_refused_requests", "method", 405},
        {{.method = "POST", .fields = &early, .n_fields = 1}, "/", "cb_proxy_refused_requests", "early_data", 425},
        {{.method = "CONNECT", .protocol = "other"}, "/", "cb_proxy_refused_requests", "connect", 501},
    };
    meter_world m;
    open_world(&m, NULL, (cb_origin_group_opts){0});
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(status_of(&m, rows[i].req, rows[i].path), rows[i].status, "row %zu", i);
        EXPECT_MOVED(m.w.metrics, 1, rows[i].family, rows[i].reason);
    }
    snprintf(m.w.url, sizeof m.w.url, "http://127.0.0.1%s", strrchr(cb_http_server_address(m.front), ':'));
    cr_expect_eq(get(&m, "/"), 404);
    EXPECT_MOVED(m.w.metrics, 1, "cb_proxy_unrouted_requests", "no_host");
    EXPECT_MOVED(m.w.metrics, 0, "cb_origin_requests", "web", m.origin, "2xx");
    close_world(&m);
}

Test(proxy_meters, redirects_and_websockets) {
    meter_world m;
    cb_http_server *plain = NULL;
    http_reply r = {0};
    char url[96];
    open_world(&m, NULL, (cb_origin_group_opts){0});
    cr_assert_eq(cb_http_server_new(&plain, m.w.loop,
                                    CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0", .versions = CB_HTTP_2,
                                            .ops = cb_proxy_redirect_ops(), .user = m.proxy)),
                 CB_OK);
    snprintf(url, sizeof url, "http://localhost%s/x", strrchr(cb_http_server_address(plain), ':'));
    http_fetch(&r, &m.w, (cb_request){0}, url);
    cr_expect_eq(r.status, 301);
    EXPECT_MOVED(m.w.metrics, 1, "cb_proxy_redirects");
    cb_http_server_free(plain);
    close_world(&m);
}

static int take_websocket(cb_exchange *x, void *user) {
    (void)user;
    return cb_exchange_reply(x, 200, NULL, 0);
}

Test(proxy_meters, tunnels) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = take_websocket};
    meter_world m;
    cb_http_server *origin = NULL;
    http_reply r = {.keep_running = true};
    cb_router *router = NULL;
    open_world(&m, NULL, (cb_origin_group_opts){0});
    cr_assert_eq(
        cb_http_server_new(&origin, m.w.loop,
                           CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0", .versions = CB_HTTP_2, .ops = &ops)),
        CB_OK);
    snprintf(m.origin, sizeof m.origin, "http://%s", cb_http_server_address(origin));
    router = make_router(&m, NULL, (cb_origin_group_opts){.versions = CB_HTTP_2});
    cr_assert_eq(cb_proxy_swap(m.proxy, router), CB_OK);
    cb_router_unref(router);
    cr_assert_eq(http_begin(&r, &m.w, (cb_request){.method = "CONNECT", .protocol = "websocket"}, "/ws"), CB_OK);
    while (!r.heads && !r.closes)
        turns(&m, 1);
    cr_assert_eq(r.status, 200, "%s", r.detail);
    EXPECT_MOVED(m.w.metrics, 1, "cb_proxy_tunnels", "web");
    cb_exchange_reset(r.x, CB_RESET_CANCEL);
    http_run(&m.w, &r.closes);
    turns(&m, 10);
    EXPECT_MOVED(m.w.metrics, 0, "cb_proxy_tunnels", "web");
    cb_http_server_free(origin);
    close_world(&m);
}

static int find_exemplar(cb_slice piece, void *user) {
    static const char part[] = "trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"";
    if (piece.len && memmem(piece.base, piece.len, part, sizeof part - 1)) ++*(int *)user;
    return CB_OK;
}

/* OpenMetrics shows the trace of a request behind the bucket that it fell into. */
Test(proxy_meters, exemplars) {
    static const cb_field parent = {{(const uint8_t *)"traceparent", 11},
                                    {(const uint8_t *)"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", 55}};
    meter_world m;
    cb_tracer *tracer = NULL;
    int found = 0;
    open_world(&m, NULL, (cb_origin_group_opts){0});
    cr_assert_eq(
        cb_tracer_new(&tracer, m.w.loop, CB_OPTS(cb_tracer_opts, .url = "http://127.0.0.1:1", .service_name = "test")),
        CB_OK);
    cr_assert_eq(cb_proxy_set_tracing(m.proxy, tracer, NULL, CB_TRACE_FROM_ALL), CB_OK);
    cr_expect_eq(status_of(&m, (cb_request){.fields = &parent, .n_fields = 1}, "/hello"), 200);
    cr_assert_eq(cb_metrics_render(m.w.metrics, CB_METRICS_OPENMETRICS, 0, find_exemplar, &found), CB_OK);
    cr_expect_eq(found, 1);
    cb_proxy_set_tracing(m.proxy, NULL, NULL, CB_TRACE_FROM_ALL);
    cb_tracer_free(tracer);
    close_world(&m);
}

Test(proxy_meters, policies) {
    static const char rules[] = "{\"rules\": [{\"name\": \"yes\", \"effect\": \"allow\", \"tenants\": [\"acme\"]},"
                                "{\"name\": \"no\", \"effect\": \"deny\", \"tenants\": [\"evil\"]}]}";
    meter_world m;
    cb_policy *policy = NULL;
    cb_router *router = NULL;
    open_world(&m, NULL, (cb_origin_group_opts){0});
    cr_assert_eq(cb_policy_parse(&policy, cb_slice_str(rules), "test", NULL, NULL), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_router_new(&router), CB_OK);
    cr_assert_eq(cb_router_group(router, CB_OPTS(cb_origin_group_opts, .name = "web")), CB_OK);
    cr_assert_eq(cb_router_origin(router, "web", CB_OPTS(cb_origin_opts, .url = m.origin)), CB_OK);
    guarded_route(router, policy);
    cb_policy_unref(policy);
    cr_assert_eq(cb_proxy_swap(m.proxy, router), CB_OK);
    cb_router_unref(router);
    cr_expect_eq(post_as(&m, "acme"), 200);
    cr_expect_eq(post_as(&m, "acme"), 200);
    cr_expect_eq(post_as(&m, "evil"), 403);
    cr_expect_eq(post_as(&m, "other"), 403);
    EXPECT_MOVED(m.w.metrics, 2, "cb_policy_decisions", "allowed");
    EXPECT_MOVED(m.w.metrics, 1, "cb_policy_decisions", "denied");
    EXPECT_MOVED(m.w.metrics, 1, "cb_policy_decisions", "undecided");
    EXPECT_MOVED(m.w.metrics, 4, "cb_auth_decisions", "tokens", "allowed", "");
    EXPECT_MOVED(m.w.metrics, 2, "cb_proxy_refused_requests", "forbidden");
    close_world(&m);
}

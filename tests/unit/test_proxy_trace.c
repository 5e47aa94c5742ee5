/* The proxy's part in traces: context in and out over every pair of versions, and the spans that a collector gets. */
#include "support/http_fixture.h"
#include "support/scratch.h"
#include <cb/proxy.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TRACE    "4bf92f3577b34da6a3ce929d0e0e4736"
#define CALLER   "00f067aa0ba902b7"
#define SAMPLED  "00-" TRACE "-" CALLER "-01"
#define UNCHOSEN "00-" TRACE "-" CALLER "-00"

typedef struct trace_world {
    http_world w; /* its server is the origin */
    cb_router *router;
    cb_proxy *proxy;
    cb_http_server *front, *collector;
    cb_tracer *tracer;
    cb_sampler *sampler;
    char got[65536]; /* what the collector was sent, as JSON */
    size_t n_got;
    int posts;
} trace_world;

static int64_t collect(cb_exchange *x, cb_slice data, void *user) {
    trace_world *t = user;
    (void)x;
    cr_assert_lt(t->n_got + data.len, sizeof t->got);
    memcpy(t->got + t->n_got, data.base, data.len);
    t->n_got += data.len;
    return (int64_t)data.len;
}

static int collected(cb_exchange *x, void *user) {
    ((trace_world *)user)->posts++;
    return cb_exchange_send_text(x, 200, "{}");
}

static void open_tracer(trace_world *t) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_body = collect, .on_end = collected};
    char url[96];
    cr_assert_eq(cb_http_server_new(&t->collector, t->w.loop,
                                    CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0", .ops = &ops, .user = t)),
                 CB_OK, "%s", cb_last_error());
    snprintf(url, sizeof url, "http://%s", cb_http_server_address(t->collector));
    cr_assert_eq(cb_tracer_new(&t->tracer, t->w.loop,
                               CB_OPTS(cb_tracer_opts, .url = url, .service_name = "edge", .json = 1, .batch_ms = 5)),
                 CB_OK, "%s", cb_last_error());
}

/* first: an origin that is asked before the real one; NULL: there is none. */
static void open_router(trace_world *t, const http_way *origin, const char *first) {
    cr_assert_eq(cb_router_new(&t->router), CB_OK);
    cr_assert_eq(
        cb_router_group(t->router, CB_OPTS(cb_origin_group_opts, .name = "web", .policy = CB_LB_ROUND_ROBIN,
                                           .versions = origin->version, .identity = t->w.roots, .tenant = "acme")),
        CB_OK, "%s", cb_last_error());
    if (first) cr_assert_eq(cb_router_origin(t->router, "web", CB_OPTS(cb_origin_opts, .url = first)), CB_OK);
    cr_assert_eq(cb_router_origin(t->router, "web", CB_OPTS(cb_origin_opts, .url = t->w.url)), CB_OK);
    cr_assert_eq(cb_router_route(t->router, CB_OPTS(cb_route_opts, .path = "/", .group = "web", .host = "localhost")),
                 CB_OK);
}

static void open_world(trace_world *t, const http_way *front, const http_way *origin, const char *first,
                       const cb_sampler_opts *sampler, int trace_from, bool traced) {
    memset(t, 0, sizeof *t);
    http_world_open(&t->w);
    http_serve(&t->w, (cb_http_server_opts){.identity = origin->tls ? t->w.me : NULL, .versions = origin->version});
    open_router(t, origin, first);
    if (traced) open_tracer(t);
    if (sampler) cr_assert_eq(cb_sampler_new(&t->sampler, sampler), CB_OK);
    cr_assert_eq(cb_proxy_new(&t->proxy, t->w.loop,
                              CB_OPTS(cb_proxy_opts, .router = t->router, .tracer = t->tracer, .sampler = t->sampler,
                                      .trace_from = (uint8_t)trace_from)),
                 CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_http_server_new(&t->front, t->w.loop,
                                    CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0",
                                            .identity = front->tls ? t->w.me : NULL, .versions = front->version,
                                            .ops = cb_proxy_exchange_ops(), .user = t->proxy)),
                 CB_OK, "%s", cb_last_error());
    snprintf(t->w.url, sizeof t->w.url, "%s://localhost%s", front->tls ? "https" : "http",
             strrchr(cb_http_server_address(t->front), ':'));
    http_client_make(&t->w, (cb_http_client_opts){.versions = front->version});
}

static void close_world(trace_world *t) {
    cb_http_client_free(t->w.client);
    t->w.client = NULL;
    cb_http_server_free(t->front);
    cb_proxy_free(t->proxy);
    cb_router_unref(t->router);
    cb_tracer_free(t->tracer);
    cb_sampler_free(t->sampler);
    cb_http_server_free(t->collector);
    http_world_close(&t->w);
}

static void ask(trace_world *t, http_reply *r, const char *path, const char *parent, const char *state) {
    const cb_field fields[] = {{cb_slice_str("traceparent"), cb_slice_str(parent)},
                               {cb_slice_str("tracestate"), cb_slice_str(state)}};
    memset(r, 0, sizeof *r);
    http_fetch(r, &t->w, (cb_request){.fields = fields, .n_fields = !parent ? 0 : state ? 2 : 1}, path);
}

static void collect_all(trace_world *t) {
    cb_tracer_flush(t->tracer);
    if (!t->posts) http_run(&t->w, &t->posts);
    t->got[t->n_got] = '\0';
}

/* The span of that name (the k-th), from its traceId to the next span's. */
static const char *span(const trace_world *t, const char *name, int k) {
    static char text[8192];
    char want[64];
    snprintf(want, sizeof want, "\"name\":\"%s\",\"kind\"", name);
    const char *at = t->got;
    for (at = strstr(at, want); at && k-- > 0;)
        at = strstr(at + 1, want);
    if (!at) return NULL;
    const char *from = at, *to = strstr(at, "\"traceId\"");
    while (from > t->got && strncmp(from, "\"traceId\"", 9) != 0)
        from--;
    snprintf(text, sizeof text, "%.*s", (int)(to ? to - from : (long)strlen(from)), from);
    return text;
}

static int count(const char *text, const char *part) {
    int n = 0;
    for (const char *at = strstr(text, part); at; at = strstr(at + 1, part))
        n++;
    return n;
}

/* "key":"value" of a span, or of an attribute. */
static const char *value(const char *text, const char *key, char out[64]) {
    char want[64];
    snprintf(want, sizeof want, "\"%s\":\"", key);
    const char *at = text ? strstr(text, want) : NULL;
    snprintf(out, 64, "%.*s", at ? (int)strcspn(at + strlen(want), "\"") : 0, at ? at + strlen(want) : "");
    return out;
}

static bool has(const char *text, const char *key, const char *type, const char *v) {
    char want[256];
    snprintf(want, sizeof want, "{\"key\":\"%s\",\"value\":{\"%s\":%s}}", key, type, v);
    return text && strstr(text, want);
}

static const char *line(const char *head, const char *name, char out[80]) {
    char want[64];
    snprintf(want, sizeof want, "\n%s: ", name);
    const char *at = strstr(head, want);
    snprintf(out, 80, "%.*s", at ? (int)strcspn(at + strlen(want), "\n") : 0, at ? at + strlen(want) : "");
    return out;
}

Test(proxy_trace, context_passes_between_all_versions) {
    for (size_t front = 0; front < HTTP_WAYS; front++) {
        for (size_t origin = 0; origin < HTTP_WAYS; origin++) {
            trace_world t;
            http_reply r;
            char parent[80], state[80], id[64], upstream[64], server[64], pair[64];
            snprintf(pair, sizeof pair, "%s to %s", http_ways[front].name, http_ways[origin].name);
            open_world(&t, &http_ways[front], &http_ways[origin], NULL, NULL, 0, true);
            ask(&t, &r, "/head", SAMPLED, "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7");
            cr_assert(r.status == 200, "%s: %d %s", pair, r.status, r.detail);
            line(r.body, "traceparent", parent);
            cr_expect_str_eq(line(r.body, "tracestate", state), "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", "%s", pair);
            cr_expect(!strncmp(parent, "00-" TRACE "-", 36) && !strcmp(parent + 52, "-01"), "%s: %s", pair, parent);
            collect_all(&t);
            cr_expect_eq(count(t.got, "\"traceId\":\"" TRACE "\""), count(t.got, "\"traceId\""), "%s", pair);
            const char *s = span(&t, "GET /", 0);
            cr_assert(s, "%s: %s", pair, t.got);
            cr_expect(strstr(s, "\"kind\":2") && !strcmp(value(s, "parentSpanId", id), CALLER), "%s: %s", pair, s);
            value(s, "spanId", server);
            s = span(&t, "GET", 0);
            cr_expect(s && strstr(s, "\"kind\":3") && !strcmp(value(s, "parentSpanId", id), server), "%s: %s", pair, s);
            value(s, "spanId", upstream);
            cr_expect(!strncmp(parent + 36, upstream, 16), "%s: the origin got %s, the span is %s", pair, parent,
                      upstream);
            cr_expect(strstr(s, "\"traceState\":\"congo=t61rcWkgMzE,rojo=00f067aa0ba902b7\""), "%s: %s", pair, s);
            s = span(&t, "connect", 0);
            cr_expect(s && !strcmp(value(s, "parentSpanId", id), upstream), "%s: %s", pair, s);
            s = span(&t, "route", 0);
            cr_expect(s && !strcmp(value(s, "parentSpanId", id), server), "%s: %s", pair, s);
            s = span(&t, "accept", 0);
            cr_expect(s && !strcmp(value(s, "parentSpanId", id), server), "%s: %s", pair, s);
            cr_expect_eq(span(&t, "handshake", 0) != NULL, http_ways[front].tls, "%s: %s", pair, t.got);
            close_world(&t);
        }
    }
}

Test(proxy_trace, what_spans_say) {
    trace_world t;
    http_reply r;
    char from[64], to[64], server_from[64];
    open_world(&t, &http_ways[3], &http_ways[4], NULL, NULL, 0, true);
    ask(&t, &r, "/head?x=1&token=hush", NULL, NULL);
    collect_all(&t);
    cr_expect_null(strstr(t.got, "hush"), "%s", t.got);
    const char *s = span(&t, "GET /", 0);
    value(s, "startTimeUnixNano", server_from);
    value(s, "endTimeUnixNano", to);
    cr_expect(strtoull(to, NULL, 10) >= strtoull(server_from, NULL, 10));
    cr_expect_eq(strlen(to), 19, "%s: nanoseconds since 1970", to);
    cr_expect_null(strstr(s, "parentSpanId"));
    const struct {
        const char *key, *type, *value;
    } server[] = {{"http.request.method", "stringValue", "\"GET\""},
                  {"url.path", "stringValue", "\"/head\""},
                  {"url.query", "stringValue", "\"x=1&token=REDACTED\""},
                  {"url.scheme", "stringValue", "\"https\""},
                  {"http.response.status_code", "intValue", "\"404\""},
                  {"http.route", "stringValue", "\"/\""},
                  {"network.protocol.version", "stringValue", "\"2\""},
                  {"server.address", "stringValue", "\"localhost\""},
                  {"client.address", "stringValue", "\"127.0.0.1\""},
                  {"network.peer.address", "stringValue", "\"127.0.0.1\""},
                  {"http.request.body.size", "intValue", "\"0\""},
                  {"http.response.body.size", "intValue", "\"13\""},
                  {"tls.protocol.version", "stringValue", "\"1.3\""},
                  {"cb.route", "stringValue", "\"localhost/\""},
                  {"cb.group", "stringValue", "\"web\""},
                  {"cb.tenant", "stringValue", "\"acme\""}};
    for (size_t i = 0; i < sizeof server / sizeof *server; i++)
        cr_expect(has(s, server[i].key, server[i].type, server[i].value), "%s: %s", server[i].key, s);
    cr_expect_null(strstr(s, "\"code\":2"), "404 is no failure of a server's");
    s = span(&t, "GET", 0);
    cr_expect(has(s, "http.response.status_code", "intValue", "\"404\"") &&
                  has(s, "network.protocol.version", "stringValue", "\"3\"") &&
                  has(s, "error.type", "stringValue", "\"404\"") && strstr(s, "/head?x=1&token=REDACTED\""),
              "%s", s);
    cr_expect_null(strstr(s, "resend_count"));
    s = span(&t, "handshake", 0);
    cr_expect(has(s, "tls.protocol.version", "stringValue", "\"1.3\"") &&
                  has(s, "tls.next_protocol", "stringValue", "\"h2\"") &&
                  has(s, "tls.client.server_name", "stringValue", "\"localhost\""),
              "%s", s);
    value(s, "startTimeUnixNano", from);
    cr_expect(strtoull(from, NULL, 10) <= strtoull(server_from, NULL, 10), "a handshake comes before its request");
    s = span(&t, "connect", 0);
    cr_expect(has(s, "network.transport", "stringValue", "\"udp\""), "%s", s);
    close_world(&t);
}

Test(proxy_trace, malformed_ones_begin_a_new_trace) {
    static const char *const bad[] = {"00-zz", "00-" TRACE "-0000000000000000-01", "ff-" TRACE "-" CALLER "-01",
                                      SAMPLED "-x", "00-00000000000000000000000000000000-" CALLER "-01"};
    char parent[80], state[80];
    for (size_t i = 0; i <= sizeof bad / sizeof *bad; i++) {
        const bool twice = i == sizeof bad / sizeof *bad;
        const cb_field two[] = {{cb_slice_str("traceparent"), cb_slice_str(SAMPLED)},
                                {cb_slice_str("traceparent"), cb_slice_str(SAMPLED)},
                                {cb_slice_str("tracestate"), cb_slice_str("a=1")}};
        trace_world t;
        http_reply r = {0};
        open_world(&t, &http_ways[0], &http_ways[0], NULL, NULL, 0, true);
        if (twice)
            http_fetch(&r, &t.w, (cb_request){.fields = two, .n_fields = 3}, "/head");
        else
            ask(&t, &r, "/head", bad[i], "a=1");
        line(r.body, "traceparent", parent);
        cr_expect(strlen(parent) == 55 && !strstr(parent, TRACE) && !strcmp(parent + 52, "-03"), "%zu: %s", i, parent);
        cr_expect_eq(count(r.body, "traceparent: "), 1, "%zu: %s", i, r.body);
        cr_expect_str_empty(line(r.body, "tracestate", state));
        collect_all(&t);
        cr_expect_null(strstr(t.got, TRACE));
        close_world(&t);
    }
}

Test(proxy_trace, a_bad_state_does_not_go_on) {
    const cb_field two[] = {{cb_slice_str("traceparent"), cb_slice_str(SAMPLED)},
                            {cb_slice_str("tracestate"), cb_slice_str("a=1")},
                            {cb_slice_str("tracestate"), cb_slice_str("b=2")}};
    trace_world t;
    http_reply r;
    char text[80];
    open_world(&t, &http_ways[0], &http_ways[0], NULL, NULL, 0, true);
    ask(&t, &r, "/head", SAMPLED, "a=1,a=2");
    cr_expect(!strncmp(line(r.body, "traceparent", text), "00-" TRACE, 35), "%s", text);
    cr_expect_str_empty(line(r.body, "tracestate", text));
    memset(&r, 0, sizeof r);
    http_fetch(&r, &t.w, (cb_request){.fields = two, .n_fields = 3}, "/head");
    cr_expect_str_eq(line(r.body, "tracestate", text), "a=1,b=2");
    close_world(&t);
}

/* Whose context counts; without a tracer it passes as it is, but for strangers'. */
Test(proxy_trace, who_is_believed) {
    static const struct {
        int from;
        bool traced, trusted, kept;
    } rows[] = {{CB_TRACE_FROM_ALL, true, false, true},      {CB_TRACE_FROM_NOBODY, true, true, false},
                {CB_TRACE_FROM_TRUSTED, true, false, false}, {CB_TRACE_FROM_TRUSTED, true, true, true},
                {CB_TRACE_FROM_ALL, false, false, true},     {CB_TRACE_FROM_NOBODY, false, true, false},
                {CB_TRACE_FROM_TRUSTED, false, true, true},  {CB_TRACE_FROM_TRUSTED, false, false, false}};
    char parent[80], state[80];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trace_world t;
        http_reply r;
        open_world(&t, &http_ways[0], &http_ways[0], NULL, NULL, rows[i].from, rows[i].traced);
        if (rows[i].trusted) cr_assert_eq(cb_router_trust(t.router, "127.0.0.0/8"), CB_OK);
        ask(&t, &r, "/head", SAMPLED, "a=1");
        line(r.body, "traceparent", parent);
        line(r.body, "tracestate", state);
        cr_expect_eq(strstr(parent, TRACE) != NULL, rows[i].kept, "row %zu: %s", i, parent);
        cr_expect_str_eq(state, rows[i].kept ? "a=1" : "", "row %zu", i);
        if (!rows[i].traced) cr_expect_str_eq(parent, rows[i].kept ? SAMPLED : "", "row %zu", i);
        if (rows[i].traced) cr_expect_eq(strlen(parent), 55, "row %zu: %s", i, parent);
        close_world(&t);
    }
}

static void settle(trace_world *t) {
    for (int i = 0; i < 50; i++) {
        cb_tracer_flush(t->tracer);
        cb_loop_step(t->w.loop);
        usleep(1000);
    }
    t->got[t->n_got] = '\0';
}

Test(proxy_trace, samplers_decide) {
    static const struct {
        const char *what, *parent, *path;
        cb_sampler_opts o;
        bool down, kept;
        const char *flags;
    } rows[] = {
        {"the caller says no", UNCHOSEN, "/head", {.ratio = 1}, false, false, "-00"},
        {"the caller is not asked", UNCHOSEN, "/head", {.ratio = 1, .not_parent = 1}, false, true, "-01"},
        {"the caller says yes", SAMPLED, "/head", {.ratio = 0}, false, true, "-01"},
        {"none", NULL, "/head", {.ratio = 0}, false, false, "-02"},
        {"failures, and it is none", NULL, "/head", {.ratio = 0, .errors = 1}, false, false, "-02"},
        {"failures", NULL, "/head", {.ratio = 0, .errors = 1}, true, true, NULL},
        {"a client's mistake is none", NULL, "/nothing", {.ratio = 0, .errors = 1}, false, false, NULL},
        {"slow", NULL, "/later", {.ratio = 0, .slow_ms = 20}, false, true, NULL},
        {"not slow", NULL, "/head", {.ratio = 0, .slow_ms = 60000}, false, false, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trace_world t;
        http_reply r = {0};
        char parent[80];
        cb_sampler_opts o = rows[i].o;
        o.size = sizeof o;
        open_world(&t, &http_ways[0], &http_ways[0], NULL, &o, 0, true);
        if (rows[i].down) {
            cb_http_server_free(t.w.server);
            t.w.server = NULL;
        }
        if (strcmp(rows[i].path, "/later") == 0) {
            cr_assert_eq(http_begin(&r, &t.w, (cb_request){0}, "/later"), CB_OK);
            http_run(&t.w, &t.w.heads);
            usleep(30000);
            cb_loop_step(t.w.loop);
            http_answer_later(&t.w);
            http_run(&t.w, &r.closes);
        } else {
            ask(&t, &r, rows[i].path, rows[i].parent, NULL);
        }
        if (rows[i].flags)
            cr_expect_str_eq(line(r.body, "traceparent", parent) + 52, rows[i].flags, "%s", rows[i].what);
        settle(&t);
        cr_expect_eq(t.posts > 0, rows[i].kept, "%s", rows[i].what);
        if (rows[i].down) {
            const char *s = span(&t, "GET /", 0);
            cr_expect(strstr(s, "\"code\":2,\"message\":\"connect_failed\"") &&
                          has(s, "error.type", "stringValue", "\"connect_failed\"") &&
                          has(s, "http.response.status_code", "intValue", "\"502\""),
                      "%s", s);
        }
        close_world(&t);
    }
}

Test(proxy_trace, each_attempt_is_a_span) {
    trace_world t;
    http_reply r;
    char id[64], parent[80];
    open_world(&t, &http_ways[0], &http_ways[0], "http://127.0.0.1:1", NULL, 0, true);
    ask(&t, &r, "/head", NULL, NULL);
    cr_expect_eq(r.status, 200);
    collect_all(&t);
    const char *s = span(&t, "GET", 0);
    cr_assert(s && has(s, "error.type", "stringValue", "\"connect_failed\"") &&
                  has(s, "server.port", "intValue", "\"1\""),
              "%s", s);
    s = span(&t, "GET", 1);
    cr_assert(s && has(s, "http.request.resend_count", "intValue", "\"1\"") && !strstr(s, "error.type"), "%s", s);
    cr_expect(!strncmp(line(r.body, "traceparent", parent) + 36, value(s, "spanId", id), 16));
    cr_expect_null(span(&t, "GET", 2));
    s = span(&t, "GET /", 0);
    cr_expect_null(strstr(s, "error.type"), "it went well in the end");
    close_world(&t);
}

Test(proxy_trace, without_a_route) {
    trace_world t;
    http_reply r;
    open_world(&t, &http_ways[0], &http_ways[0], NULL, NULL, 0, true);
    snprintf(t.w.url, sizeof t.w.url, "http://127.0.0.1%s", strrchr(cb_http_server_address(t.front), ':'));
    memset(&r, 0, sizeof r);
    http_fetch(&r, &t.w, (cb_request){.method = "PROPFIND"}, "/x");
    cr_expect_eq(r.status, 404);
    collect_all(&t);
    const char *s = span(&t, "HTTP", 0);
    cr_assert_not_null(s, "%s", t.got);
    cr_expect(has(s, "http.request.method", "stringValue", "\"_OTHER\"") &&
                  has(s, "http.request.method_original", "stringValue", "\"PROPFIND\"") &&
                  has(s, "cb.reason", "stringValue", "\"no_host\"") && !strstr(s, "error.type"),
              "%s", s);
    cr_expect_eq(count(t.got, "\"kind\":3"), 0, "nobody was asked");
    close_world(&t);
}

/* New tracers and none, while requests are under way. */
Test(proxy_trace, changes_in_the_middle) {
    trace_world t;
    http_reply r = {.keep_running = true}, next;
    char parent[80];
    open_world(&t, &http_ways[2], &http_ways[2], NULL, NULL, 0, true);
    cr_assert_eq(http_begin(&r, &t.w, (cb_request){0}, "/later"), CB_OK);
    http_run(&t.w, &t.w.heads);
    cr_expect_eq(cb_proxy_set_tracing(t.proxy, NULL, NULL, 3), CB_EINVAL);
    cr_expect_eq(cb_proxy_set_tracing(t.proxy, NULL, NULL, CB_TRACE_FROM_ALL), CB_OK);
    http_answer_later(&t.w);
    http_run(&t.w, &r.closes);
    ask(&t, &next, "/head", SAMPLED, NULL);
    cr_expect_str_eq(line(next.body, "traceparent", parent), SAMPLED);
    settle(&t);
    cr_expect_eq(t.posts, 0);
    cr_expect_eq(cb_proxy_set_tracing(t.proxy, t.tracer, NULL, CB_TRACE_FROM_ALL), CB_OK);
    ask(&t, &next, "/head", SAMPLED, NULL);
    collect_all(&t);
    cr_expect_not_null(span(&t, "GET /", 0));
    cr_expect_null(span(&t, "accept", 0), "the connection is not new");
    close_world(&t);
}

/* The same IDs are in the access log, with phases and fields of both messages. */
Test(proxy_trace, ids_in_the_access_log) {
    static const char *const fields[] = {"trace_id",      "span_id",     "tls_version",    "tls_cipher",
                                         "sni",           "head_ms",     "wait_ms",        "connect_ms",
                                         "first_byte_ms", "body_ms",     "auth_ms",        "request.x-color",
                                         "pattern",       "tenant",      "response.via",   "response.content-type=type",
                                         "local",         "tls_resumed", "request.cookie", "scheme"};
    const cb_field request[] = {{cb_slice_str("traceparent"), cb_slice_str(SAMPLED)},
                                {cb_slice_str("x-color"), cb_slice_str("red")},
                                {cb_slice_str("cookie"), cb_slice_str("hush=1")}};
    for (size_t way = 1; way < HTTP_WAYS; way++) {
        if (!http_ways[way].tls) continue;
        char path[SCRATCH_TEXT], text[4096] = "", id[64], server[64];
        int fd = scratch_file(path, sizeof path, "access");
        trace_world t;
        http_reply r = {0};
        cb_access_log *log = NULL;
        open_world(&t, &http_ways[way], &http_ways[0], NULL, NULL, 0, true);
        cr_assert_eq(cb_access_log_open(&log, t.w.loop,
                                        CB_OPTS(cb_access_log_opts, .path = path, .fields = fields,
                                                .n_fields = sizeof fields / sizeof *fields)),
                     CB_OK, "%s", cb_last_error());
        cb_proxy_set_log(t.proxy, log);
        http_fetch(&r, &t.w, (cb_request){.fields = request, .n_fields = 3}, "/hello");
        cr_expect_eq(r.status, 200);
        collect_all(&t);
        value(span(&t, "GET /", 0), "spanId", server);
        cb_proxy_set_log(t.proxy, NULL);
        cb_access_log_free(log);
        cr_assert_gt(read(fd, text, sizeof text - 1), 0);
        const char *const parts[] = {"{\"trace_id\":\"" TRACE "\",",
                                     "\"tls_version\":\"1.3\",\"tls_cipher\":\"TLS_",
                                     "\"sni\":\"localhost\"",
                                     "\"head_ms\":",
                                     "\"wait_ms\":",
                                     "\"connect_ms\":",
                                     "\"first_byte_ms\":",
                                     "\"body_ms\":",
                                     "\"x-color\":\"red\"",
                                     "\"pattern\":\"localhost/\"",
                                     "\"tenant\":\"acme\"",
                                     "\"type\":\"text/plain; charset=utf-8\"",
                                     "\"via\":\"1.1 libcb\"",
                                     "\"local\":\"127.0.0.1:",
                                     "\"cookie\":\"REDACTED\"",
                                     "\"scheme\":\"https\"}\n"};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            cr_expect(strstr(text, parts[i]) != NULL, "%s: %s is not in %s", http_ways[way].name, parts[i], text);
        cr_expect_null(strstr(text, "auth_ms"));
        cr_expect_str_eq(value(text, "span_id", id), server);
        close(fd);
        unlink(path);
        close_world(&t);
    }
}

/* Gates in front of a route, with a real server and a real client: what passes, what does not, and what the origin is
 * told, over every version. */
#include "support/http_fixture.h"
#include "support/moved.h"
#include <cb/proxy.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* Knows the tokens "good" and "later", and answers the second when it is told to. */
typedef struct knower {
    cb_authn_call *waits;
    int asked, cancelled;
    const char *claims;
} knower;

typedef struct auth_world {
    http_world w; /* its server is the origin, its client asks the front */
    cb_proxy *proxy;
    cb_http_server *front;
    knower k;
} auth_world;

static int look(cb_authn_call *call, cb_slice token, void *user) {
    knower *k = user;
    k->asked++;
    if (token.len == 5 && memcmp(token.base, "later", 5) == 0) {
        k->waits = call;
        return CB_EAGAIN;
    }
    if (token.len != 4 || memcmp(token.base, "good", 4) != 0) return CB_EAUTH;
    cb_authn_answer(call, CB_OK, cb_slice_str(k->claims));
    return CB_OK;
}

static void cancel(cb_authn_call *call, void *user) {
    knower *k = user;
    cr_expect_eq(k->waits, call);
    k->waits = NULL;
    k->cancelled++;
}

static const cb_authn_token_ops ops = {.size = sizeof ops, .look = look, .cancel = cancel};
static const cb_route_header headers[] = {
    {"x-user", "subject"}, {"x-roles", "roles"}, {"x-mail", "/email"}, {"x-teams", "/teams"}, {"x-kind", "kind"}};

static cb_router *router_for(auth_world *a, const char *origin, const char *guarded, cb_route_auth auth) {
    const cb_authn_claims claims = {.size = sizeof claims, .roles = "roles"};
    cb_authn_source *source = NULL;
    cb_authn *gate = NULL;
    cb_router *r = NULL;
    cr_assert_eq(cb_authn_source_token(&source, CB_OPTS(cb_authn_token_opts, .name = "knower", .ops = &ops,
                                                        .user = &a->k, .claims = &claims)),
                 CB_OK);
    cr_assert_eq(cb_authn_new(&gate, CB_OPTS(cb_authn_opts, .sources = &source, .n_sources = 1)), CB_OK);
    cr_assert_eq(cb_router_new(&r), CB_OK);
    cr_assert_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "origin", .identity = a->w.roots)), CB_OK);
    cr_assert_eq(cb_router_origin(r, "origin", CB_OPTS(cb_origin_opts, .url = origin)), CB_OK);
    auth.size = sizeof auth;
    auth.authn = gate;
    if (!auth.headers) {
        auth.headers = headers;
        auth.n_headers = sizeof headers / sizeof *headers;
    }
    cr_assert_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .path = guarded, .group = "origin", .auth = &auth)), CB_OK,
                 "%s", cb_last_error());
    if (strcmp(guarded, "/") != 0) cr_assert_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .group = "origin")), CB_OK);
    cb_authn_unref(gate);
    cb_authn_source_unref(source);
    return r;
}

static void open_world(auth_world *a, const http_way *way, const char *guarded, cb_route_auth auth) {
    memset(a, 0, sizeof *a);
    a->k.claims = "{\"sub\":\"joe\"}";
    http_world_open(&a->w);
    http_serve(&a->w, (cb_http_server_opts){.versions = CB_HTTP_1});
    cb_router *r = router_for(a, a->w.url, guarded, auth);
    cr_assert_eq(cb_proxy_new(&a->proxy, a->w.loop, CB_OPTS(cb_proxy_opts, .router = r)), CB_OK);
    cb_router_unref(r);
    cr_assert_eq(
        cb_http_server_new(&a->front, a->w.loop,
                           CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0", .identity = way->tls ? a->w.me : NULL,
                                   .versions = way->version, .ops = cb_proxy_exchange_ops(), .user = a->proxy)),
        CB_OK, "%s", cb_last_error());
    const char *port = strrchr(cb_http_server_address(a->front), ':');
    snprintf(a->w.url, sizeof a->w.url, "%s://localhost%s", way->tls ? "https" : "http", port);
    http_client_make(&a->w, (cb_http_client_opts){.versions = way->version});
}

static void close_world(auth_world *a) {
    cb_http_client_free(a->w.client);
    a->w.client = NULL;
    cb_http_server_free(a->front);
    cb_proxy_free(a->proxy);
    http_world_close(&a->w);
}

#define FIELD(name, value)                                                                                             \
    {                                                                                                                  \
        {(const uint8_t *)(name), sizeof(name) - 1}, {                                                                 \
            (const uint8_t *)(value), sizeof(value) - 1                                                                \
        }                                                                                                              \
    }
#define GOOD FIELD("authorization", "Bearer good")

static const cb_field spoofed[] = {GOOD,
                                   FIELD("x-user", "evil"),
                                   FIELD("X-User", "evil"),
                                   FIELD("x_user", "evil"),
                                   FIELD("x-roles", "evil"),
                                   FIELD("x_roles", "evil"),
                                   FIELD("x-mail", "evil"),
                                   FIELD("x-userx", "harmless"),
                                   FIELD("x-use", "harmless")};
enum { SPOOFED = sizeof spoofed / sizeof *spoofed };

static int times(const char *text, const char *what) {
    int n = 0;
    for (const char *p = text; (p = strstr(p, what)); p++)
        n++;
    return n;
}

Test(proxy_auth, what_the_origin_is_told) {
    for (size_t way = 0; way < HTTP_WAYS; way++) {
        auth_world a;
        http_reply in = {0}, out = {0};
        const char *name = http_ways[way].name;
        open_world(&a, &http_ways[way], "/head", (cb_route_auth){0});
        a.k.claims = "{\"sub\":\"joe\",\"roles\":[\"a\",\"b\"],\"teams\":{\"x\":1,\"y\":2}}";
        http_fetch(&in, &a.w, (cb_request){.fields = spoofed, .n_fields = SPOOFED}, "/head");
        cr_expect_eq(in.status, 200, "%s: %d %s", name, in.status, in.detail);
        cr_expect(strstr(in.body, "x-user: joe\n") && strstr(in.body, "x-roles: a, b\n") &&
                      strstr(in.body, "x-teams: x, y\n") && strstr(in.body, "x-kind: token\n"),
                  "%s: %s", name, in.body);
        cr_expect(!strstr(in.body, "evil") && !strstr(in.body, "uthorization") && !strstr(in.body, "x-mail"), "%s: %s",
                  name, in.body);
        cr_expect_eq(times(in.body, "harmless"), 2, "%s: %s", name, in.body);
        close_world(&a);
        /* On a route that is open to everybody they do not pass either; what else was sent does. */
        open_world(&a, &http_ways[way], "/other", (cb_route_auth){0});
        http_fetch(&out, &a.w, (cb_request){.fields = spoofed, .n_fields = SPOOFED}, "/head");
        cr_expect(out.status == 200 && !strstr(out.body, "evil"), "%s: %s", name, out.body);
        cr_expect(strstr(out.body, "authorization: Bearer good\n") != NULL, "%s: %s", name, out.body);
        cr_expect_eq(a.k.asked, 0);
        close_world(&a);
    }
}

Test(proxy_auth, credentials_that_are_kept) {
    auth_world a;
    http_reply r = {0};
    open_world(&a, &http_ways[0], "/", (cb_route_auth){.keep_credentials = 1});
    http_fetch(&r, &a.w, (cb_request){.fields = spoofed, .n_fields = 1}, "/head");
    cr_expect(strstr(r.body, "authorization: Bearer good\n") && strstr(r.body, "x-user: joe\n"), "%s", r.body);
    close_world(&a);
}

Test(proxy_auth, what_is_refused) {
    static const struct {
        const char *name;
        cb_field field;
        const char *claims;
        int status;
        const char *challenge;
    } rows[] = {
        {"nothing", FIELD("x-user", "joe"), NULL, 401, "www-authenticate: Bearer realm=\"api\"\n"},
        {"bad", FIELD("authorization", "Bearer bad"), NULL, 401,
         "www-authenticate: Bearer realm=\"api\", error=\"invalid_token\", error_description=\"not-active\"\n"},
        {"malformed", FIELD("authorization", "Bearer a b"), NULL, 400, "error=\"invalid_request\""},
        {"basic", FIELD("authorization", "Basic Og=="), NULL, 401, "www-authenticate: Bearer realm=\"api\"\n"},
        {"a role that would be two", GOOD, "{\"sub\":\"joe\",\"roles\":[\"a,admin\"]}", 403, ""},
        {"a claim with a line break", GOOD, "{\"sub\":\"joe\",\"email\":\"a\\r\\nx-user: root\"}", 403, ""},
        {"a list in a list", GOOD, "{\"sub\":\"joe\",\"email\":[[1]]}", 403, ""},
        {"no answer", GOOD, "", 503, "retry-after: 1\n"},
    };
    for (size_t way = 0; way < HTTP_WAYS; way++) {
        auth_world a;
        open_world(&a, &http_ways[way], "/", (cb_route_auth){0});
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            http_reply r = {0};
            if (rows[i].claims) a.k.claims = rows[i].claims;
            http_fetch(&r, &a.w, (cb_request){.fields = &rows[i].field, .n_fields = 1}, "/head");
            cr_expect_eq(r.status, rows[i].status, "%s, %s: %d %s", http_ways[way].name, rows[i].name, r.status,
                         r.detail);
            cr_expect(strstr(r.head, rows[i].challenge), "%s, %s: %s", http_ways[way].name, rows[i].name, r.head);
            cr_expect_eq(a.w.heads, 0, "%s, %s: it reached the origin", http_ways[way].name, rows[i].name);
        }
        cb_proxy_stats stats = {.size = sizeof stats};
        cb_proxy_stats_get(a.proxy, &stats);
        cr_expect_eq(stats.refused, sizeof rows / sizeof *rows);
        close_world(&a);
    }
}

Test(proxy_auth, preflight_by_choice) {
    static const cb_field preflight[] = {FIELD("origin", "https://app.example"),
                                         FIELD("access-control-request-method", "PUT"),
                                         FIELD("authorization", "Bearer bad")};
    for (uint8_t pass = 0; pass < 2; pass++) {
        auth_world a;
        http_reply r = {0}, plain = {0};
        open_world(&a, &http_ways[0], "/", (cb_route_auth){.pass_preflight = pass, .keep_credentials = 1});
        http_fetch(&r, &a.w, (cb_request){.method = "OPTIONS", .fields = preflight, .n_fields = 3}, "/head");
        cr_expect_eq(r.status, pass ? 200 : 401, "%d", r.status);
        cr_expect(!strstr(r.body, "Bearer"), "%s", r.body);
        http_fetch(&plain, &a.w, (cb_request){.method = "OPTIONS", .fields = preflight, .n_fields = 1}, "/head");
        cr_expect_eq(plain.status, 401, "not a preflight");
        close_world(&a);
    }
}

static const cb_field later[] = {FIELD("authorization", "Bearer later")};

static void until_asked(auth_world *a) {
    http_run(&a->w, &a->k.asked);
    cr_assert_not_null(a->k.waits);
}

/* The body waits with its request, whatever its size, and none of it is lost or reaches the origin before. */
Test(proxy_auth, an_answer_that_comes_later) {
    static uint8_t body[400000];
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 7 + i / 256);
    for (size_t way = 0; way < HTTP_WAYS; way++) {
        for (size_t len = 0; len <= sizeof body; len += sizeof body) {
            auth_world a;
            http_reply r = {.send = body, .send_len = len}, no = {.send = body, .send_len = len};
            const char *name = http_ways[way].name;
            open_world(&a, &http_ways[way], "/", (cb_route_auth){0});
            cr_assert_eq(http_begin(&r, &a.w,
                                    (cb_request){.method = "POST", .has_body = 1, .fields = later, .n_fields = 1},
                                    "/echo"),
                         CB_OK);
            until_asked(&a);
            EXPECT_MOVED(a.w.metrics, 1, "cb_auth_waiting_requests");
            for (int turn = 0; turn < 20; turn++) {
                int due = cb_loop_timeout_ms(a.w.loop);
                cb_loop_step(a.w.loop);
                if (due < 0) break;
            }
            cr_expect_eq(a.w.heads, 0);
            cb_authn_answer(a.k.waits, CB_OK, cb_slice_str("{\"sub\":\"joe\"}"));
            http_run(&a.w, &r.closes);
            cr_expect(r.status == 200 && r.bytes == len && r.sum == http_sum(0, body, len),
                      "%s, %zu: %d, %zu bytes, %s", name, len, r.status, r.bytes, r.detail);
            a.k.asked = 0;
            cr_assert_eq(http_begin(&no, &a.w,
                                    (cb_request){.method = "POST", .has_body = 1, .fields = later, .n_fields = 1},
                                    "/echo"),
                         CB_OK);
            until_asked(&a);
            a.w.heads = 0;
            cb_authn_answer(a.k.waits, CB_EAUTH, (cb_slice){0});
            http_run(&a.w, &no.closes);
            cr_expect(no.status == 401 && a.w.heads == 0, "%s: %d %s", name, no.status, no.detail);
            EXPECT_MOVED(a.w.metrics, 0, "cb_auth_waiting_requests");
            EXPECT_MOVED(a.w.metrics, 2, "cb_auth_wait_seconds");
            EXPECT_MOVED(a.w.metrics, 1, "cb_auth_decisions", "knower", "allowed", "");
            EXPECT_MOVED(a.w.metrics, 1, "cb_auth_decisions", "", "unauthorized", "not-active");
            close_world(&a);
        }
    }
}

Test(proxy_auth, who_leaves_before_the_answer) {
    for (size_t way = 0; way < HTTP_WAYS; way++) {
        auth_world a;
        http_reply r = {0}, next = {0};
        open_world(&a, &http_ways[way], "/", (cb_route_auth){0});
        cr_assert_eq(http_begin(&r, &a.w, (cb_request){.fields = later, .n_fields = 1}, "/head"), CB_OK);
        until_asked(&a);
        cb_exchange_reset(r.x, CB_RESET_CANCEL);
        if (http_ways[way].version == CB_HTTP_1) /* who closes there may still read: the answer is awaited */
            cb_authn_answer(a.k.waits, CB_EAUTH, (cb_slice){0});
        else
            http_run(&a.w, &a.k.cancelled);
        http_fetch(&next, &a.w, (cb_request){.fields = spoofed, .n_fields = 1}, "/head");
        cr_expect_eq(next.status, 200, "%s: %d %s", http_ways[way].name, next.status, next.detail);
        /* And when the proxy goes away. */
        http_reply last = {.keep_running = true};
        a.k.asked = 0;
        cr_assert_eq(http_begin(&last, &a.w, (cb_request){.fields = later, .n_fields = 1}, "/head"), CB_OK);
        until_asked(&a);
        int before = a.k.cancelled;
        close_world(&a);
        cr_expect_eq(a.k.cancelled, before + 1, "%s", http_ways[way].name);
    }
}

Test(proxy_auth, routes_that_cannot_be_made) {
    static const struct {
        cb_route_header header;
        const char *says;
    } rows[] = {{{"X-User", "subject"}, "small letters"},
                {{"x_user", "subject"}, "small letters"},
                {{"", "subject"}, "small letters"},
                {{"a b", "subject"}, "small letters"},
                {{"host", "subject"}, "for itself"},
                {{"content-length", "subject"}, "for itself"},
                {{"x-forwarded-for", "subject"}, "for itself"},
                {{"authorization", "subject"}, "for itself"},
                {{"x-user", "sub"}, "no part of an identity"},
                {{"x-user", ""}, "no part of an identity"},
                {{"x-user", NULL}, "no part of an identity"}};
    auth_world a;
    cb_authn_source *source = NULL;
    cb_authn *gate = NULL;
    cb_router *r = NULL;
    memset(&a, 0, sizeof a);
    cr_assert_eq(cb_authn_source_token(&source, CB_OPTS(cb_authn_token_opts, .name = "k", .ops = &ops, .user = &a.k)),
                 CB_OK);
    cr_assert_eq(cb_authn_new(&gate, CB_OPTS(cb_authn_opts, .sources = &source, .n_sources = 1)), CB_OK);
    cr_assert_eq(cb_router_new(&r), CB_OK);
    cr_assert_eq(cb_router_group(r, CB_OPTS(cb_origin_group_opts, .name = "g")), CB_OK);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const cb_route_auth auth = {.size = sizeof auth, .authn = gate, .headers = &rows[i].header, .n_headers = 1};
        cr_expect_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .group = "g", .auth = &auth)), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), rows[i].says), "row %zu: %s", i, cb_last_error());
    }
    const cb_route_header twice[] = {{"x-user", "subject"}, {"x-user", "tenant"}};
    const cb_route_auth two = {.size = sizeof two, .authn = gate, .headers = twice, .n_headers = 2};
    cr_expect_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .group = "g", .auth = &two)), CB_EINVAL);
    const cb_route_auth none = {.size = sizeof none};
    cr_expect_eq(cb_router_route(r, CB_OPTS(cb_route_opts, .group = "g", .auth = &none)), CB_EINVAL);
    cb_router_unref(r);
    cb_authn_unref(gate);
    cb_authn_source_unref(source);
}

/* cb_admin: doors, roles, and what every daemon has. */
#include "admin/admin_int.h"
#include "support/admin_fixture.h"
#include "support/http_fixture.h"
#include <criterion/criterion.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static admin_reply r;

Test(admin, health) {
    admin_world w;
    admin_open(&w, 0, "viewer", NULL);
    cr_expect_eq(admin_ask(&w, &r, "GET /livez", NULL, NULL), 200, "%s", r.text);
    cr_expect_eq(admin_ask(&w, &r, "GET /readyz", NULL, NULL), 503, "%s", r.text);
    cr_expect(strstr(r.body, "starting"), "%s", r.text);
    cb_admin_ready(w.a, 1, NULL);
    cr_expect_eq(admin_ask(&w, &r, "GET /readyz", NULL, NULL), 200, "%s", r.text);
    cr_expect_eq(admin_ask(&w, &r, "GET /healthz", NULL, NULL), 200, "%s", r.text);
    cb_admin_alive(w.a, 0, "worker 3 hangs");
    cr_expect_eq(admin_ask(&w, &r, "GET /healthz", NULL, NULL), 503, "%s", r.text);
    cr_expect(strstr(r.body, "worker 3 hangs"), "%s", r.text);
    cr_expect_eq(admin_ask(&w, &r, "POST /livez", NULL, NULL), 405, "%s", r.text);
    admin_close(&w);
}

Test(admin, whoami_says_what_the_kernel_says) {
    admin_world w;
    char name[32];
    admin_open(&w, ADMIN_METRICS, "service-owner", NULL);
    snprintf(name, sizeof name, "\"name\":\"uid:%u\"", getuid());
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", NULL, NULL), 200, "%s", r.text);
    cr_expect(strstr(r.body, name), "%s", r.body);
    cr_expect(strstr(r.body, "\"roles\":[\"service-owner\"]"), "%s", r.body);
    cr_expect(strstr(r.body, "\"rights\":[\"read\",\"metrics\",\"change-owned\"]"), "%s", r.body);
    cr_expect(strstr(r.body, "\"owned\":[\"team-a\",\"team-b\"]"), "%s", r.body);
    cr_expect_eq(admin_ask(&w, &r, "GET /metrics", NULL, NULL), 200, "%s", r.text);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/openapi.json", NULL, NULL), 200, "%s", r.text);
    admin_close(&w);
}

Test(admin, the_log_is_asked_and_changed) {
    static const struct {
        const char *line, *body;
        int status;
        const char *answer;
    } cases[] = {
        {"GET /v1/log", NULL, 200, "\"levels\":\"info\""},
        {"PUT /v1/log", "{\"levels\":\"warn,quic=debug\"}", 200, "\"levels\":\"warn,quic=debug\""},
        {"PUT /v1/log", "{\"levels\":\"loud\"}", 400, "\"pointer\":\"/levels\""},
        {"PUT /v1/log", "{\"levels\":\"\"}", 400, "\"pointer\":\"/levels\""},
        {"PUT /v1/log", "{\"level\":\"warn\"}", 400, "\"pointer\":\"/level\""},
        {"GET /v1/log", NULL, 200, "\"levels\":\"warn,quic=debug\""},
    };
    admin_world w;
    admin_open(&w, ADMIN_LOG, "operator", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        admin_ask(&w, &r, cases[i].line, cases[i].body ? "content-type: application/json" : NULL, cases[i].body);
        cr_expect_eq(r.status, cases[i].status, "case %zu: %s", i, r.text);
        cr_expect(strstr(r.body, cases[i].answer), "case %zu: %s", i, r.body);
    }
    char moved[80];
    snprintf(moved, sizeof moved, "%s.1", w.log_path);
    cr_assert_eq(rename(w.log_path, moved), 0);
    cr_expect_eq(admin_ask(&w, &r, "POST /v1/log/reopen", "content-length: 0", NULL), 204, "%s", r.text);
    cr_expect_eq(access(w.log_path, F_OK), 0, "it was not opened anew");
    admin_role(&w, "viewer");
    cr_expect_eq(admin_ask(&w, &r, "PUT /v1/log", "content-type: application/json", "{\"levels\":\"info\"}"), 403);
    cr_expect_eq(admin_ask(&w, &r, "POST /v1/log/reopen", "content-length: 0", NULL), 403);
    admin_close(&w);
}

/* ---- doors ---- */

static int look(cb_authn_call *call, cb_slice token, void *user);
static void cancel(cb_authn_call *call, void *user);
static const cb_authn_token_ops token_ops = {.size = sizeof token_ops, .look = look, .cancel = cancel};

static cb_authn_call *asked; /* the gate that has not answered yet */
static int cancelled;

/* Tokens are names; "slow" ones are known when somebody says so. */
static int look(cb_authn_call *call, cb_slice token, void *user) {
    char claims[128];
    (void)user;
    if (token.len > 4 && memcmp(token.base, "slow", 4) == 0) {
        asked = call;
        return CB_EAGAIN;
    }
    if (token.len && token.base[0] == 'x') return CB_EAUTH;
    snprintf(claims, sizeof claims, "{\"sub\":\"%.*s\",\"tenant\":\"acme\",\"roles\":[\"ops\"]}", (int)token.len,
             (const char *)token.base);
    cb_authn_answer(call, CB_OK, cb_slice_str(claims));
    return CB_OK;
}

static void cancel(cb_authn_call *call, void *user) {
    (void)call;
    (void)user;
    asked = NULL;
    cancelled++;
}

typedef struct gated {
    http_world w;
    cb_admin *a;
    cb_admin_roles *roles;
    cb_authn_source *sources[2];
    cb_authn *gate;
    int door;
} gated;

static void gated_open(gated *g, const cb_admin_grant *grants, size_t n, const cb_admin_opts *opts) {
    static const cb_authn_claims claims = {.size = sizeof claims, .tenant = "tenant", .roles = "roles"};
    cb_admin_opts o = opts ? *opts : (cb_admin_opts){0};
    memset(g, 0, sizeof *g);
    http_world_open(&g->w);
    cr_assert_eq(cb_authn_source_token(&g->sources[0], CB_OPTS(cb_authn_token_opts, .name = "staff", .ops = &token_ops,
                                                               .claims = &claims)),
                 CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_authn_source_mtls(&g->sources[1],
                                      CB_OPTS(cb_authn_mtls_opts, .name = "certs", .subject = CB_AUTHN_NAME_DNS)),
                 CB_OK);
    cr_assert_eq(cb_authn_new(&g->gate, CB_OPTS(cb_authn_opts, .sources = g->sources, .n_sources = 2)), CB_OK);
    cr_assert_eq(cb_admin_roles_new(&g->roles), CB_OK);
    for (size_t i = 0; i < n; i++) {
        cb_admin_grant one = grants[i];
        one.size = sizeof one;
        cr_assert_eq(cb_admin_roles_add(g->roles, &one), CB_OK, "%s", cb_last_error());
    }
    o.size = sizeof o;
    o.roles = g->roles;
    cr_assert_eq(cb_admin_new(&g->a, g->w.loop, &o), CB_OK, "%s", cb_last_error());
    g->door = cb_admin_listen(
        g->a, CB_OPTS(cb_admin_door_opts, .address = "127.0.0.1:0", .identity = g->w.me, .gate = g->gate));
    cr_assert_geq(g->door, 0, "%s", cb_last_error());
    snprintf(g->w.url, sizeof g->w.url, "https://localhost%s", strrchr(cb_admin_address(g->a, g->door), ':'));
    http_client_make(&g->w, (cb_http_client_opts){.versions = CB_HTTP_1 | CB_HTTP_2});
}

static void gated_close(gated *g) {
    cb_admin_free(g->a);
    cb_admin_roles_unref(g->roles);
    cb_authn_unref(g->gate);
    cb_authn_source_unref(g->sources[0]);
    cb_authn_source_unref(g->sources[1]);
    http_world_close(&g->w);
}

static cb_request with_token(const char *token) {
    static char value[64];
    static cb_field field;
    snprintf(value, sizeof value, "Bearer %s", token);
    field = (cb_field){cb_slice_str("authorization"), cb_slice_str(value)};
    return (cb_request){.fields = &field, .n_fields = token ? 1 : 0};
}

Test(admin_doors, another_gate) {
    static const cb_admin_grant grants[] = {{.who = "subject:alice", .role = "viewer"}};
    gated g;
    cb_authn *other = NULL;
    http_reply before = {0}, after = {0}, again = {0};
    gated_open(&g, grants, 1, NULL);
    cr_assert_eq(cb_authn_new(&other, CB_OPTS(cb_authn_opts, .sources = g.sources + 1, .n_sources = 1)), CB_OK);
    http_fetch(&before, &g.w, with_token("alice"), "/v1/whoami");
    http_reply stream = {0};
    cr_assert_eq(http_begin(&stream, &g.w, with_token("alice"), "/v1/events"), CB_OK);
    http_run(&g.w, &stream.heads);
    cr_expect_eq(cb_admin_set_gate(g.a, g.door, other), CB_OK);
    http_run(&g.w, &stream.closes); /* whoever came through the gate of before comes again */
    cr_expect_eq(stream.rc, CB_OK, "%s", stream.detail);
    http_fetch(&after, &g.w, with_token("alice"), "/v1/whoami");
    cr_expect(before.status == 200 && after.status == 403, "%d, %d", before.status, after.status);
    cr_expect_eq(cb_admin_set_gate(g.a, g.door, g.gate), CB_OK);
    http_fetch(&again, &g.w, with_token("alice"), "/v1/whoami");
    cr_expect_eq(again.status, 200);
    cr_expect_eq(cb_admin_set_gate(g.a, g.door + 1, other), CB_EINVAL);
    cr_expect_eq(cb_admin_set_gate(g.a, g.door, NULL), CB_EINVAL);
    cb_authn_unref(other);
    gated_close(&g);
}

Test(admin_doors, through_a_gate) {
    static const cb_admin_grant grants[] = {{.who = "subject:alice", .role = "viewer", .source = "staff"},
                                            {.who = "role:ops", .role = "tenant-admin"},
                                            {.who = "subject:robot.test", .role = "operator", .source = "certs"}};
    static const struct {
        const char *token;
        int status;
        const char *part;
    } cases[] = {
        {"alice", 200, "\"name\":\"staff:alice\""},
        {"alice", 200, "\"roles\":[\"viewer\",\"tenant-admin\"]"},
        {"alice", 200, "\"tenants\":[\"acme\"]"},
        {"xavier", 401, "\"status\":401"},
        {NULL, 401, "no-credentials"},
    };
    gated g;
    gated_open(&g, grants, 3, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        http_reply reply = {0};
        http_fetch(&reply, &g.w, with_token(cases[i].token), "/v1/whoami");
        cr_expect_eq(reply.status, cases[i].status, "case %zu: %d %s %s", i, reply.status, reply.body, reply.detail);
        cr_expect(strstr(reply.body, cases[i].part), "case %zu: %s", i, reply.body);
        if (reply.status == 401) cr_expect(strstr(reply.head, "www-authenticate: Bearer"), "%s", reply.head);
        if (reply.status == 401)
            cr_expect(strstr(reply.head, "content-type: application/problem+json"), "%s", reply.head);
    }
    http_reply health = {0}, metrics = {0};
    http_fetch(&health, &g.w, (cb_request){0}, "/livez");
    cr_expect_eq(health.status, 200, "health needs nobody: %s", health.body);
    http_fetch(&metrics, &g.w, (cb_request){0}, "/metrics");
    cr_expect_eq(metrics.status, 401, "metrics do");
    const cb_slice unknown = cb_slice_str("unknown");
    double denied = 0;
    cr_assert_eq(cb_metrics_value(g.w.metrics, "cb_admin_denied_requests", &unknown, &denied), CB_OK, "%s",
                 cb_last_error());
    cr_expect_eq(denied, 3);
    gated_close(&g);
}

Test(admin_doors, a_certificate) {
    static const cb_admin_grant grants[] = {{.who = "subject:robot.test", .role = "operator", .source = "certs"}};
    gated g;
    http_reply reply = {0};
    gated_open(&g, grants, 1, NULL);
    cb_http_client_free(g.w.client);
    cb_identity *robot = tls_pki_identity(&g.w.pki, "robot.test");
    http_client_make(&g.w, (cb_http_client_opts){.versions = CB_HTTP_2, .identity = robot});
    http_fetch(&reply, &g.w, (cb_request){0}, "/v1/whoami");
    cr_expect_eq(reply.status, 200, "%d %s %s", reply.status, reply.body, reply.detail);
    cr_expect(strstr(reply.body, "\"name\":\"certs:robot.test\""), "%s", reply.body);
    cb_identity_unref(robot);
    gated_close(&g);
}

static int count_body(cb_admin_call *c, void *user) {
    *(size_t *)user = cb_admin_body(c).len;
    return cb_admin_send_nothing(c);
}

/* While nobody is known the body of a request is not taken: it waits in the client. */
Test(admin_doors, a_gate_that_takes_its_time) {
    static const cb_admin_grant grants[] = {{.who = "role:ops", .role = "tenant-admin"},
                                            {.who = "subject:slow-bob", .role = "admin"}};
    static uint8_t big[900000];
    gated g;
    size_t got = 0;
    gated_open(&g, grants, 2, NULL);
    const cb_admin_resource row = {.size = sizeof row,
                                   .method = "PUT",
                                   .path = "/v1/bytes",
                                   .id = "putBytes",
                                   .summary = "Bytes",
                                   .rights = CB_RIGHT_CHANGE,
                                   .flags = CB_ADMIN_CHANGES | CB_ADMIN_RAW,
                                   .consumes = "application/octet-stream",
                                   .handle = count_body};
    cr_assert_eq(cb_admin_add(g.a, &row, &got), CB_OK, "%s", cb_last_error());
    for (int i = 0; i < 3; i++) { /* 0: let in, 1: not good, 2: the client goes away meanwhile */
        http_reply reply = {.send = big, .send_len = sizeof big};
        const cb_field fields[] = {{cb_slice_str("authorization"), cb_slice_str("Bearer slow-bob")},
                                   {cb_slice_str("content-type"), cb_slice_str("application/octet-stream")}};
        const cb_request request = {.method = "PUT", .fields = fields, .n_fields = 2};
        asked = NULL;
        cancelled = 0;
        got = 0;
        cr_assert_eq(http_begin(&reply, &g.w, request, "/v1/bytes"), CB_OK, "%s", reply.detail);
        for (int k = 0; k < 400 && !(asked && k > 100); k++) {
            cb_loop_step(g.w.loop);
            usleep(200);
        }
        cr_assert(asked);
        cr_expect_lt(reply.sent, sizeof big, "the whole body left before anybody was known");
        if (i == 0) cb_authn_answer(asked, CB_OK, cb_slice_str("{\"sub\":\"slow-bob\"}"));
        if (i == 1) cb_authn_answer(asked, CB_EAUTH, (cb_slice){0});
        if (i == 2) cb_exchange_reset(reply.x, CB_RESET_CANCEL);
        http_run(&g.w, &reply.closes);
        for (int k = 0; k < 200 && i == 2 && !cancelled; k++) {
            cb_loop_step(g.w.loop);
            usleep(200);
        }
        cr_expect_eq(reply.status,
                     i == 0   ? 204
                     : i == 1 ? 401
                              : 0,
                     "%d: %s %s", reply.status, reply.body, reply.detail);
        cr_expect_eq(got, i == 0 ? sizeof big : 0);
        cr_expect_eq(cancelled, i == 2);
    }
    gated_close(&g);
}

/* Comments keep a stream awake, and one through a gate ends by and by: its token may have been revoked. */
Test(admin_doors, a_stream_through_a_gate_ends) {
    static const cb_admin_grant grants[] = {{.who = "subject:alice", .role = "viewer"}};
    gated g;
    http_reply reply = {0};
    gated_open(&g, grants, 1, NULL);
    g.a->beat_every = 20 * CB_MS;
    g.a->gated_for = 200 * CB_MS;
    cr_assert_eq(http_begin(&reply, &g.w, with_token("alice"), "/v1/events"), CB_OK, "%s", reply.detail);
    http_run(&g.w, &reply.heads);
    cr_expect_eq(reply.status, 200);
    cr_expect_eq(cb_admin_listeners(g.a), 1);
    http_run(&g.w, &reply.closes);
    cr_expect_eq(reply.rc, CB_OK, "%d %s", reply.rc, reply.detail);
    int beats = 0;
    for (const char *at = strstr(reply.body, ":\n\n"); at; at = strstr(at + 1, ":\n\n"))
        beats++;
    cr_expect_geq(beats, 3, "%s", reply.body);
    cr_expect_eq(cb_admin_listeners(g.a), 0);
    gated_close(&g);
}

Test(admin_doors, a_gate_that_never_answers) {
    const cb_admin_opts o = {.request_timeout_ms = 150};
    gated g;
    http_reply reply = {0};
    gated_open(&g, NULL, 0, &o);
    cancelled = 0;
    http_fetch(&reply, &g.w, with_token("slow-eve"), "/v1/whoami");
    cr_expect_eq(reply.status, 408, "%d %s %s", reply.status, reply.body, reply.detail);
    cr_expect_eq(cancelled, 1);
    http_reply again = {0};
    cr_assert_eq(http_begin(&again, &g.w, with_token("slow-eve"), "/v1/whoami"), CB_OK);
    for (int k = 0; k < 100; k++) {
        cb_loop_step(g.w.loop);
        usleep(200);
    }
    gated_close(&g); /* while the gate is asked */
    cr_expect_eq(cancelled, 2);
}

Test(admin_doors, what_no_door_may_be) {
    gated g;
    gated_open(&g, NULL, 0, NULL);
    char unix_path[] = "unix:/tmp/cb-admin-no-door";
    const struct {
        cb_admin_door_opts o;
        const char *part; /* of the detail */
    } rows[] = {
        {{.address = NULL}, "address"},
        {{.address = "127.0.0.1:0"}, "only with TLS"},
        {{.address = "127.0.0.1:0", .identity = g.w.me}, "the gate is missing"},
        {{.address = "127.0.0.1:0", .gate = g.gate}, "the identity is missing"},
        {{.address = "0.0.0.0:0", .public_only = 1}, "loopback"},
        {{.address = ":0", .public_only = 1}, "loopback"},
        {{.address = "[::]:0", .public_only = 1}, "loopback"},
        {{.address = "192.0.2.1:0", .public_only = 1}, "loopback"},
        {{.address = "[::ffff:192.0.2.1]:0", .public_only = 1}, "loopback"},
        {{.address = "localhost:0", .public_only = 1}, "loopback"},
        {{.address = "127.0.0.1:0", .public_only = 1, .identity = g.w.me}, "no TLS"},
        {{.address = "127.0.0.1:0", .public_only = 2}, "public_only"},
        {{.address = "127.0.0.1:0", .public_only = 1, .mode = 0600}, "unix"},
        {{.address = "127.0.0.1:0", .identity = g.w.me, .gate = g.gate, .client_cert = 3}, "client_cert"},
        {{.address = unix_path, .public_only = 1}, "not public"},
        {{.address = unix_path, .identity = g.w.me}, "no TLS"},
        {{.address = unix_path, .gate = g.gate}, "no gate"},
        {{.address = unix_path, .mode = 04755}, "permissions"},
        {{.address = "unix:@abstract"}, "abstract"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_door_opts o = rows[i].o;
        o.size = sizeof o;
        cr_expect_eq(cb_admin_listen(g.a, &o), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), rows[i].part), "row %zu: %s", i, cb_last_error());
    }
    cr_expect_null(cb_admin_address(g.a, 1));
    cr_expect_null(cb_admin_server(g.a, -1));
    gated_close(&g);
}

static int ask_tcp(admin_world *w, int door, const char *text) {
    const int fd = admin_dial_tcp(cb_admin_address(w->a, door));
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    admin_read(w, fd, &r);
    close(fd);
    return r.status;
}

/* Everybody on the host, but only what everybody may know, and no page of a browser under a name of its own. */
Test(admin_doors, public_ones) {
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {"GET /livez HTTP/1.1\r\nhost: 127.0.0.1:9\r\n\r\n", 200},
        {"GET /metrics HTTP/1.1\r\nhost: localhost:9100\r\n\r\n", 200},
        {"GET /metrics HTTP/1.1\r\nhost: [::1]:9100\r\naccept: application/openmetrics-text\r\n\r\n", 200},
        {"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n", 503},
        {"POST /metrics HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n", 405},
        {"DELETE /livez HTTP/1.1\r\nhost: localhost\r\n\r\n", 405},
        {"GET /v1/whoami HTTP/1.1\r\nhost: localhost\r\n\r\n", 404},
        {"GET /v1/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n", 404},
        {"GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n", 404},
        {"PUT /v1/log HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n", 404},
        {"GET /metrics HTTP/1.1\r\nhost: rebound.example:9100\r\n\r\n", 421},
        {"GET /metrics HTTP/1.1\r\nhost: localhost.example\r\n\r\n", 421},
        {"GET /livez HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site\r\n\r\n", 403},
        {"GET /%6civez HTTP/1.1\r\nhost: localhost\r\n\r\n", 200}, /* the same path, spelled out */
        {"GET /livez/../v1/whoami HTTP/1.1\r\nhost: localhost\r\n\r\n", 400},
        {"GET /metrics?x=1 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400},
    };
    static const char *const addresses[] = {"127.0.0.1:0", "[::1]:0", "127.9.9.9:0"};
    admin_world w;
    admin_open(&w, ADMIN_METRICS | ADMIN_LOG | ADMIN_NO_DOOR, "admin", NULL);
    for (int k = 0; k < 3; k++)
        cr_assert_eq(cb_admin_listen(w.a, CB_OPTS(cb_admin_door_opts, .address = addresses[k], .public_only = 1)), k,
                     "%s", cb_last_error());
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int k = 0; k < 3; k++)
            cr_expect_eq(ask_tcp(&w, k, cases[i].text), cases[i].status, "%s: %s", cases[i].text, r.text);
    admin_close(&w);
}

static void drained(cb_loop *loop, void *user) {
    (void)loop;
    ++*(int *)user;
}

Test(admin_doors, drained_once_and_told_of_it) {
    for (int doors = 0; doors < 3; doors++) {
        admin_world w;
        int told = 0;
        admin_open(&w, ADMIN_NO_DOOR, "viewer", NULL);
        if (doors > 0)
            cr_assert_eq(cb_admin_listen(w.a, CB_OPTS(cb_admin_door_opts, .address = w.address)), 0, "%s",
                         cb_last_error());
        if (doors > 1)
            cr_assert_eq(cb_admin_listen(w.a, CB_OPTS(cb_admin_door_opts, .address = "127.0.0.1:0", .public_only = 1)),
                         1, "%s", cb_last_error());
        const int idle = doors ? admin_dial(w.path) : -1;
        admin_turn(&w, 5);
        cr_assert_eq(cb_admin_drain(w.a, 10000, 0, NULL, NULL), CB_OK);
        cr_assert_eq(cb_admin_drain(w.a, 50, 0, drained, &told), CB_OK);
        cr_expect_eq(cb_admin_listen(w.a, CB_OPTS(cb_admin_door_opts, .address = w.address)), CB_EINVAL);
        for (int i = 0; i < 400 && !told; i++) /* a connection lingers until its client closes, too, for 2 s at most */
            admin_turn(&w, 10);
        cr_expect_eq(told, 1, "%d doors: told %d times", doors, told);
        cr_assert_eq(cb_admin_drain(w.a, 50, 0, drained, &told), CB_OK);
        admin_turn(&w, 20);
        cr_expect_eq(told, 2, "%d doors: who asks again is told again", doors);
        if (idle >= 0) close(idle);
        admin_close(&w);
    }
}

/* A successor opens the path while the first one runs; who yields leaves it alone. */
Test(admin_doors, a_successor_takes_over) {
    admin_world w;
    cb_admin *next = NULL;
    admin_open(&w, 0, "viewer", NULL);
    cr_assert_eq(cb_admin_new(&next, w.loop, CB_OPTS(cb_admin_opts, .roles = w.roles, .name = "next")), CB_OK);
    cr_expect_eq(cb_admin_listen(next, CB_OPTS(cb_admin_door_opts, .address = w.address)), CB_EEXIST);
    cr_assert_eq(cb_admin_listen(next, CB_OPTS(cb_admin_door_opts, .address = w.address, .replace = 1)), 0, "%s",
                 cb_last_error());
    cr_assert_eq(cb_admin_drain(w.a, 100, 1, NULL, NULL), CB_OK);
    cb_admin_free(w.a);
    w.a = next;
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/openapi.json", NULL, NULL), 200, "%s", r.text);
    cr_expect(strstr(r.body, "\"title\":\"next\""), "%s", r.body);
    admin_close(&w);
}

/* In `processes`: children of other users, with few groups and with many, ask who they are. */
Test(processes, an_admin_knows_users_and_groups) {
    enum { MANY = 40 };
    static const cb_admin_grant grants[] = {{.size = sizeof grants[0], .who = "gid:5039", .role = "viewer"},
                                            {.size = sizeof grants[0], .who = "uid:4001", .role = "operator"}};
    static const struct {
        gid_t gid;
        size_t groups;
        uid_t uid;
        const char *status, *part;
    } cases[] = {{4000, MANY, 4000, "200", "\"roles\":[\"viewer\"]"},
                 {4000, MANY - 1, 4000, "403", "uid:4000 has no role here"},
                 {4000, 0, 4000, "403", "uid:4000 has no role here"},
                 {5039, 0, 4001, "200", "\"roles\":[\"viewer\",\"operator\"]"}};
    admin_world w;
    cb_admin_roles *roles = NULL;
    if (getuid() != 0) cr_skip_test("needs root, to become somebody else");
    admin_open(&w, ADMIN_NO_ROLE, NULL, NULL);
    cr_assert_eq(chmod(w.folder, 0755), 0);
    cr_assert_eq(chmod(w.path, 0666), 0);
    cr_assert_eq(cb_admin_roles_new(&roles), CB_OK);
    for (size_t i = 0; i < 2; i++)
        cr_assert_eq(cb_admin_roles_add(roles, &grants[i]), CB_OK, "%s", cb_last_error());
    cb_admin_set_roles(w.a, roles);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static const char question[] = "GET /v1/whoami HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        char answer[2048] = "";
        int fds[2], status = 0;
        cr_assert_eq(pipe(fds), 0);
        const pid_t child = fork();
        if (child == 0) {
            gid_t groups[MANY];
            alarm(60); /* should it fail, it must not be waited for */
            for (gid_t k = 0; k < MANY; k++)
                groups[k] = 5000 + k;
            if (setgroups(cases[i].groups, groups) != 0 || setgid(cases[i].gid) != 0 || setuid(cases[i].uid) != 0)
                _exit(2);
            const int fd = admin_dial(w.path);
            if (write(fd, question, sizeof question - 1) < 0) _exit(3);
            for (ssize_t n; (n = read(fd, answer, sizeof answer)) > 0;)
                if (write(fds[1], answer, (size_t)n) != n) _exit(4);
            _exit(0);
        }
        close(fds[1]);
        for (int k = 0; k < 5000 && waitpid(child, &status, WNOHANG) == 0; k++)
            admin_turn(&w, 1);
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "case %zu: the child: %x", i, status);
        cr_expect_gt(read(fds[0], answer, sizeof answer - 1), 0);
        close(fds[0]);
        cr_expect(strstr(answer, cases[i].status) && strstr(answer, cases[i].part), "case %zu: %s", i, answer);
    }
    cb_admin_roles_unref(roles);
    admin_close(&w);
}

/* Decisions of an agent that answers well, badly, late and not at all; by a server on loopback that speaks as OPA does.
 */
#include "support/http_fixture.h"
#include "support/moved.h"
#include <cb/opa.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct agent {
    int asked;
    size_t len;
    char body[2048], token[64];
} agent;

static agent last;

static const struct {
    const char *path, *type, *body;
    int status;
} answers[] = {{"/true", "application/json", "{\"result\":true}", 200},
               {"/false", "application/json; charset=utf-8", "{\"decision_id\":\"x\",\"result\":false}", 200},
               {"/allow", "application/json", "{\"result\":{\"allow\":true,\"why\":[1,2]}}", 200},
               {"/deny", "application/json", "{\"result\":{\"allow\":false}}", 200},
               {"/undefined", "application/json", "{}", 200},
               {"/text", "application/json", "{\"result\":\"true\"}", 200},
               {"/number", "application/json", "{\"result\":1}", 200},
               {"/no-allow", "application/json", "{\"result\":{\"allowed\":true}}", 200},
               {"/twice", "application/json", "{\"result\":false,\"result\":true}", 200},
               {"/list", "application/json", "[{\"result\":true}]", 200},
               {"/cut", "application/json", "{\"result\":true", 200},
               {"/html", "text/html", "{\"result\":true}", 200},
               {"/gone", "application/json", "{\"result\":true}", 404},
               {"/broken", "application/json", "{\"result\":true}", 503}};
enum { ANSWERS = sizeof answers / sizeof *answers };

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    (void)user;
    for (size_t i = 0; i < data.len && last.len + 1 < sizeof last.body; i++)
        last.body[last.len++] = (char)data.base[i];
    last.body[last.len] = '\0';
    return (int64_t)data.len;
}

static int on_head(cb_exchange *x, void *user) {
    const cb_slice token = cb_exchange_field(x, "authorization");
    (void)user;
    last.len = 0;
    *last.body = '\0';
    snprintf(last.token, sizeof last.token, "%.*s", (int)token.len, token.len ? (const char *)token.base : "");
    return 0;
}

static int on_end(cb_exchange *x, void *user) {
    static char huge[80000];
    const cb_slice path = cb_exchange_path(x);
    (void)user;
    last.asked++;
    for (size_t i = 0; i < ANSWERS; i++) {
        if (path.len != strlen(answers[i].path) || memcmp(path.base, answers[i].path, path.len) != 0) continue;
        const cb_field type = {cb_slice_str("content-type"), cb_slice_str(answers[i].type)};
        return cb_exchange_send(x, answers[i].status, &type, 1, cb_slice_str(answers[i].body));
    }
    if (path.len == 6 && memcmp(path.base, "/never", 6) == 0) return 0;
    memset(huge, ' ', sizeof huge);
    const cb_field type = {cb_slice_str("content-type"), cb_slice_str("application/json")};
    return cb_exchange_send(x, 200, &type, 1, (cb_slice){(uint8_t *)huge, sizeof huge});
}

static const cb_exchange_ops agent_ops = {
    .size = sizeof agent_ops, .on_head = on_head, .on_body = on_body, .on_end = on_end};

typedef struct told {
    cb_opa_decision d;
    int rc, done;
    char why[256];
} told;

static void on_decision(const cb_opa_decision *d, int rc, void *user) {
    told *t = user;
    t->d = *d;
    t->rc = rc;
    snprintf(t->why, sizeof t->why, "%s", cb_last_error());
    t->done = 1;
}

static void world_of(http_world *w) {
    http_world_open(w);
    http_serve(w, (cb_http_server_opts){.ops = &agent_ops});
    http_client_make(w, (cb_http_client_opts){.connect_timeout_ms = 5000});
    memset(&last, 0, sizeof last);
}

static cb_opa *opa_of(http_world *w, const char *path, cb_opa_opts o) {
    char url[160];
    cb_opa *opa = NULL;
    o.size = sizeof o;
    o.loop = w->loop;
    o.client = w->client;
    o.url = http_url(w, path, url);
    if (!o.timeout_ms) o.timeout_ms = 10000;
    cr_assert_eq(cb_opa_new(&opa, &o), CB_OK, "%s", cb_last_error());
    return opa;
}

static const cb_policy_request simple = {
    .size = sizeof simple, .tenant = {(const uint8_t *)"acme", 4}, .method = {(const uint8_t *)"GET", 3}};

static told ask(http_world *w, cb_opa *opa, const cb_policy_request *r, cb_slice extra) {
    told t = {.d = {.size = sizeof t.d}};
    int rc = cb_opa_ask(opa, r, extra, &t.d, NULL, on_decision, &t);
    if (rc == CB_EAGAIN) {
        cr_assert_eq(t.done, 0);
        http_run(w, &t.done);
    } else {
        t.rc = rc;
    }
    return t;
}

Test(opa, answers) {
    static const struct {
        const char *path;
        int allowed, reason;
    } rows[] = {{"/true", 1, CB_OPA_RESULT},   {"/false", 0, CB_OPA_RESULT},        {"/allow", 1, CB_OPA_RESULT},
                {"/deny", 0, CB_OPA_RESULT},   {"/undefined", 0, CB_OPA_UNDEFINED}, {"/text", 0, CB_OPA_ANSWER},
                {"/number", 0, CB_OPA_ANSWER}, {"/no-allow", 0, CB_OPA_ANSWER},     {"/twice", 0, CB_OPA_ANSWER},
                {"/list", 0, CB_OPA_ANSWER},   {"/cut", 0, CB_OPA_ANSWER},          {"/html", 0, CB_OPA_ANSWER},
                {"/gone", 0, CB_OPA_ANSWER},   {"/huge", 0, CB_OPA_ANSWER},         {"/broken", 0, CB_OPA_OUTAGE}};
    http_world w;
    world_of(&w);
    for (int open = 0; open < 2; open++) {
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            cb_opa *opa = opa_of(&w, rows[i].path, (cb_opa_opts){.fail_open = open});
            told t = ask(&w, opa, &simple, (cb_slice){NULL, 0});
            const int want = rows[i].reason == CB_OPA_OUTAGE ? open : rows[i].allowed;
            cr_expect_eq(t.d.allowed, want, "%s: %s", rows[i].path, t.why);
            cr_expect_eq(t.d.reason, rows[i].reason, "%s: %d %s", rows[i].path, t.d.reason, t.why);
            cr_expect_eq(t.rc, want ? CB_OK : CB_EAUTH);
            cb_opa_free(opa);
        }
    }
    EXPECT_MOVED(w.metrics, 4, "cb_opa_decisions", "allowed");
    EXPECT_MOVED(w.metrics, 4, "cb_opa_decisions", "denied");
    EXPECT_MOVED(w.metrics, 2, "cb_opa_decisions", "undefined");
    EXPECT_MOVED(w.metrics, 18, "cb_opa_decisions", "senseless");
    EXPECT_MOVED(w.metrics, 2, "cb_opa_decisions", "outage");
    EXPECT_MOVED(w.metrics, 1, "cb_opa_open_failures");
    EXPECT_MOVED(w.metrics, 30, "cb_opa_seconds");
    http_world_close(&w);
}

Test(opa, the_input) {
    static const uint8_t v4[] = {192, 0, 2, 7};
    const cb_slice roles[] = {cb_slice_str("a \"b\""), {NULL, 0}, cb_slice_str("c")};
    cb_policy_request r = simple;
    http_world w;
    world_of(&w);
    cb_opa *opa = opa_of(&w, "/true", (cb_opa_opts){.token = "secret"});
    r.roles = roles;
    r.roles_len = 3;
    r.path = cb_slice_str("/v1/x?y");
    r.source = (cb_slice){v4, 4};
    r.target_host = cb_slice_str("db");
    r.target_port = 5432;
    r.mtls = 1;
    r.now_s = 1700000000;
    told t = ask(&w, opa, &r, cb_slice_str("{\"claims\":{\"a\":[1]}}"));
    cr_expect_eq(t.rc, CB_OK, "%s", t.why);
    cr_expect_str_eq(last.token, "Bearer secret");
    cr_expect_str_eq(
        last.body,
        "{\"input\":{\"mtls\":true,\"tenant\":\"acme\",\"method\":\"GET\",\"path\":\"/v1/x?y\",\"target_host\":"
        "\"db\",\"target_port\":5432,\"roles\":[\"a \\\"b\\\"\",\"c\"],\"source\":\"192.0.2.7\",\"extra\":"
        "{\"claims\":{\"a\":[1]}},\"time\":1700000000}}");
    const int before = last.asked;
    r.tenant = (cb_slice){NULL, 0};
    t = ask(&w, opa, &r, (cb_slice){NULL, 0});
    cr_expect(t.rc == CB_EAUTH && t.d.reason == CB_OPA_UNDEFINED && last.asked == before,
              "without a tenant nobody is asked");
    r.tenant = cb_slice_str("\xff");
    cr_expect_eq(ask(&w, opa, &r, (cb_slice){NULL, 0}).rc, CB_EINVAL);
    r.tenant = cb_slice_str("acme");
    cr_expect_eq(ask(&w, opa, &r, cb_slice_str("[1]")).rc, CB_EINVAL);
    cr_expect_eq(ask(&w, opa, &r, cb_slice_str("{}}")).rc, CB_EINVAL);
    r.source.len = 3;
    cr_expect_eq(ask(&w, opa, &r, (cb_slice){NULL, 0}).rc, CB_EINVAL);
    cr_expect_eq(cb_opa_ask(opa, &r, (cb_slice){NULL, 0}, NULL, NULL, NULL, NULL), CB_EINVAL);
    cb_opa_free(opa);
    http_world_close(&w);
}

Test(opa, time_outages_and_limits) {
    http_world w;
    char url[160];
    world_of(&w);
    for (int open = 0; open < 2; open++) {
        cb_opa *opa = opa_of(&w, "/never", (cb_opa_opts){.timeout_ms = 50, .fail_open = open});
        told t = ask(&w, opa, &simple, (cb_slice){NULL, 0});
        cr_expect(t.d.reason == CB_OPA_TIMEOUT && t.d.allowed == open, "%d %s", t.d.reason, t.why);
        cb_opa_free(opa);
    }
    EXPECT_MOVED(w.metrics, 2, "cb_opa_decisions", "timeout");
    cb_opa *opa = opa_of(&w, "/never", (cb_opa_opts){.max_calls = 1}), *nobody = NULL;
    told first = {.done = 0}, t;
    cb_opa_call *call = NULL;
    cr_assert_eq(cb_opa_ask(opa, &simple, (cb_slice){NULL, 0}, NULL, &call, on_decision, &first), CB_EAGAIN);
    t = ask(&w, opa, &simple, (cb_slice){NULL, 0});
    cr_expect(t.rc == CB_EAUTH && t.d.reason == CB_OPA_OUTAGE, "one at a time");
    cb_opa_stats s = {.size = sizeof s};
    cb_opa_stats_get(opa, &s);
    cr_expect(s.calls == 1 && s.asked == 2 && s.outages == 1 && s.denied == 1);
    cb_opa_cancel(call);
    cr_assert_eq(cb_opa_ask(opa, &simple, (cb_slice){NULL, 0}, NULL, &call, on_decision, &first), CB_EAGAIN);
    cb_opa_free(opa); /* with a call under way */
    cr_expect_eq(first.done, 0);
    const cb_opa_opts closed = {
        .size = sizeof closed, .loop = w.loop, .client = w.client, .url = "http://127.0.0.1:1/x"};
    cr_assert_eq(cb_opa_new(&nobody, &closed), CB_OK);
    t = ask(&w, nobody, &simple, (cb_slice){NULL, 0});
    cr_expect(t.d.reason == CB_OPA_OUTAGE && !t.d.allowed && *t.why, "%s", t.why);
    cb_opa_free(nobody);
    const cb_opa_opts bad[] = {
        {.size = sizeof bad[0], .client = w.client, .url = "http://a/"},
        {.size = sizeof bad[0], .loop = w.loop, .url = "http://a/"},
        {.size = sizeof bad[0], .loop = w.loop, .client = w.client},
        {.size = sizeof bad[0], .loop = w.loop, .client = w.client, .url = "ftp://a/"},
        {.size = sizeof bad[0], .loop = w.loop, .client = w.client, .url = "http://a/", .cache_ms = 60001}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(cb_opa_new(&opa, &bad[i]), CB_EINVAL, "row %zu", i);
    cr_expect_eq(cb_opa_new(NULL, &closed), CB_EINVAL);
    cr_expect_not_null(http_url(&w, "/", url));
    http_world_close(&w);
}

Test(opa, decisions_are_remembered) {
    cb_policy_request r = simple;
    cb_opa_stats s = {.size = sizeof s};
    http_world w;
    world_of(&w);
    cb_opa *opa = opa_of(&w, "/allow", (cb_opa_opts){.cache_ms = 60000});
    r.now_s = 1;
    told t = ask(&w, opa, &r, (cb_slice){NULL, 0});
    cr_expect(t.rc == CB_OK && !t.d.cached && last.asked == 1);
    r.now_s = 2;
    t = ask(&w, opa, &r, (cb_slice){NULL, 0});
    cr_expect(t.rc == CB_OK && t.d.cached && last.asked == 1, "the time does not count");
    r.path = cb_slice_str("/other");
    t = ask(&w, opa, &r, (cb_slice){NULL, 0});
    cr_expect(!t.d.cached && last.asked == 2);
    cb_opa_flush(opa);
    t = ask(&w, opa, &r, (cb_slice){NULL, 0});
    cr_expect(!t.d.cached && last.asked == 3);
    cb_opa_stats_get(opa, &s);
    EXPECT_MOVED(w.metrics, 1, "cb_opa_cached_decisions");
    cr_expect(s.asked == 3 && s.cached == 1 && s.allowed == 4 && s.denied == 0 && s.calls == 0);
    cb_opa_free(opa);
    opa = opa_of(&w, "/broken", (cb_opa_opts){.cache_ms = 60000, .fail_open = 1});
    for (int i = 0; i < 2; i++) {
        t = ask(&w, opa, &r, (cb_slice){NULL, 0});
        cr_expect(t.rc == CB_OK && !t.d.cached, "outages are not remembered");
    }
    cr_expect_eq(last.asked, 5);
    cb_opa_free(opa);
    cr_expect_str_eq(cb_opa_reason_text(CB_OPA_TIMEOUT), "timeout");
    cr_expect_str_eq(cb_opa_reason_text(99), "");
    http_world_close(&w);
}

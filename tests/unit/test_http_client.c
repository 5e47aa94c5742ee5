/* cb_http_client: what it refuses, how it chooses a version, what it says when something fails. */
#include "support/http_fixture.h"
#include "support/moved.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

Test(http_client, refuses_bad_requests) {
    static const cb_field bad_name = {{(const uint8_t *)"a b", 3}, {(const uint8_t *)"x", 1}};
    static const cb_field bad_value = {{(const uint8_t *)"a", 1}, {(const uint8_t *)"x\r\ny: z", 7}};
    const cb_request rows[] = {{.url = NULL},
                               {.url = "ftp://a.test/"},
                               {.url = "http://a.test/", .method = "G T"},
                               {.url = "http://a.test/", .method = ""},
                               {.url = "http://a.test/", .fields = &bad_name, .n_fields = 1},
                               {.url = "http://a.test/", .fields = &bad_value, .n_fields = 1},
                               {.url = "http://a.test/", .n_fields = 1},
                               {.url = "http://a.test/", .versions = 8},
                               {.url = "http://a.test/", .versions = CB_HTTP_3},
                               {.url = "http://a.test/", .protocol = "web socket"},
                               {.url = "http://a.test/", .connect_to = "a.test:80"}};
    static const char *const why[] = {"URL",      "http://",  "method", "method",   "fields[0]", "fields[0]",
                                      "n_fields", "versions", "HTTP/3", "protocol", "a.test:80"};
    http_world w;
    http_world_open(&w);
    http_client_make(&w, (cb_http_client_opts){0});
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_exchange *x = NULL;
        cb_request req = rows[i];
        req.size = sizeof req;
        cr_expect_eq(cb_http_request(&x, w.client, &req, NULL, NULL), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), why[i]), "row %zu: %s", i, cb_last_error());
        cr_expect_null(x, "row %zu", i);
    }
    const cb_http_client_opts opts[] = {{.size = sizeof opts[0], .versions = 16},
                                        {.size = sizeof opts[0], .verify = 3},
                                        {.size = sizeof opts[0], .send_proxy = 3},
                                        {.size = sizeof opts[0], .resolver = "nowhere"}};
    for (size_t i = 0; i < sizeof opts / sizeof *opts; i++) {
        cb_http_client *c = NULL;
        cr_expect_eq(cb_http_client_new(&c, w.loop, &opts[i]), CB_EINVAL, "options %zu", i);
    }
    http_world_close(&w);
}

Test(http_client, chooses_the_version) {
    enum { H1 = CB_HTTP_1, H2 = CB_HTTP_2, H3 = CB_HTTP_3 };
    static const struct {
        uint32_t client, server;
        int got;
    } rows[] = {{0, 0, H2},
                {H1, 0, H1},
                {H2, 0, H2},
                {H3, 0, H3},
                {H1 | H2, H1, H1},
                {H1 | H2, H2, H2},
                {H1 | H2 | H3, 0, H3},
                {H2 | H3, H1 | H2, H2},
                {H1 | H3, H1, H1},
                {H1 | H2 | H3, H1 | H2, H2}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        http_world w;
        http_reply r = {0};
        http_world_open(&w);
        http_serve(&w, (cb_http_server_opts){.identity = w.me, .versions = rows[i].server});
        http_client_make(&w, (cb_http_client_opts){.versions = rows[i].client, .connect_timeout_ms = 5000});
        http_fetch(&r, &w, (cb_request){0}, "/hello");
        cr_expect_eq(r.rc, CB_OK, "row %zu: %d %s", i, r.rc, r.detail);
        cr_expect_eq(r.version, rows[i].got, "row %zu: version %d", i, r.version);
        http_world_close(&w);
    }
}

Test(http_client, names_the_reason_of_a_failure) {
    http_world w;
    char cert[160], key[160], url[160], at[64];
    http_world_open(&w);
    tls_pki_leaf(&w.pki, "old.test", 0, "old", time(NULL) - 20 * 86400, 10);
    const cb_identity_opts old = {.size = sizeof old,
                                  .cert_file = tls_pki_path(&w.pki, "old.pem", cert),
                                  .key_file = tls_pki_path(&w.pki, "old-key.pem", key)};
    cr_assert_eq(cb_identity_add(w.me, &old), CB_OK, "%s", cb_last_error());
    http_serve(&w, (cb_http_server_opts){.identity = w.me, .versions = CB_HTTP_1 | CB_HTTP_2});
    http_client_make(&w, (cb_http_client_opts){.connect_timeout_ms = 3000, .resolver = "127.0.0.1:1"});
    snprintf(at, sizeof at, "%s", cb_http_server_address(w.server));
    static const struct {
        const char *url; /* %s: the server's port */
        uint32_t versions;
        bool direct;
        int rc;
        const char *why;
    } rows[] = {{"https://strange.test:%s/hello", 0, true, CB_EAUTH, "strange.test"},
                {"https://old.test:%s/hello", 0, true, CB_EAUTH, "expired"},
                {"http://127.0.0.1:1/", 0, false, CB_EUNREACH, "refused"},
                {"https://127.0.0.1:%s/hello", CB_HTTP_3, false, CB_EUNREACH, "refused"}, /* no QUIC there */
                {"http://127.0.0.1:%s/hello", 0, false, CB_EPROTO, "HTTP/1.1"},           /* clear text to TLS */
                {"http://no-such-name.test/", 0, false, CB_EDNS, "no-such-name.test"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        http_reply r = {0};
        snprintf(url, sizeof url, rows[i].url, strrchr(at, ':') + 1);
        http_fetch(&r, &w, (cb_request){.connect_to = rows[i].direct ? at : NULL, .versions = rows[i].versions}, url);
        cr_expect_eq(r.rc, rows[i].rc, "%s: %d %s", url, r.rc, r.detail);
        cr_expect(strstr(r.detail, rows[i].why), "%s: %s", url, r.detail);
        cr_expect_eq(r.closes, 1, "%s: %d on_close", url, r.closes);
        cr_expect_eq(r.heads, 0, "%s: a head came", url);
    }
    http_world_close(&w);
}

Test(http_client, time_limits) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        http_reply r = {0}, after = {0};
        http_world_open(&w);
        http_serve(&w, (cb_http_server_opts){.identity = way->tls ? w.me : NULL});
        http_client_make(&w, (cb_http_client_opts){.versions = way->version});
        http_fetch(&r, &w, (cb_request){.timeout_ms = 300}, "/never");
        cr_expect_eq(r.rc, CB_ETIMEOUT, "%s: %d %s", way->name, r.rc, r.detail);
        cr_expect(strstr(r.detail, "time limit"), "%s: %s", way->name, r.detail);
        http_fetch(&after, &w, (cb_request){.timeout_ms = 20000}, "/hello");
        cr_expect_eq(after.rc, CB_OK, "%s: the next one: %d %s", way->name, after.rc, after.detail);
        http_world_close(&w);
    }
}

Test(http_client, truncated_responses_fail) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        http_reply r = {0};
        http_world_open(&w);
        http_serve(&w, (cb_http_server_opts){.identity = way->tls ? w.me : NULL});
        http_client_make(&w, (cb_http_client_opts){.versions = way->version});
        http_fetch(&r, &w, (cb_request){0}, "/cut?500000");
        cr_expect_lt(r.rc, 0, "%s: rc %d", way->name, r.rc);
        cr_expect_eq(r.ends, 0, "%s: on_end came", way->name);
        cr_expect_eq(r.closes, 1, "%s: %d on_close", way->name, r.closes);
        http_world_close(&w);
    }
}

struct chain {
    http_world *world;
    int left, done, failed;
};

static const cb_exchange_ops chain_ops;

static int chain_next(struct chain *c) {
    char url[160];
    cb_exchange *x = NULL;
    const cb_request req = {.size = sizeof req, .url = http_url(c->world, "/hello", url)};
    return cb_http_request(&x, c->world->client, &req, &chain_ops, c);
}

static void chain_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    struct chain *c = user;
    if (rc < 0) c->failed++;
    if (--c->left == 0)
        c->done = 1;
    else if (chain_next(c) < 0)
        c->failed = c->done = 1;
}

static const cb_exchange_ops chain_ops = {.size = sizeof chain_ops, .on_close = chain_close};

/* The next request is made inside of on_close of the one before: the same connection serves all. */
Test(http_client, one_connection_for_requests_in_turn) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        cb_http_server_stats st = {.size = sizeof st};
        http_world_open(&w);
        http_serve(&w, (cb_http_server_opts){.identity = way->tls ? w.me : NULL});
        http_client_make(&w, (cb_http_client_opts){.versions = way->version});
        struct chain c = {.world = &w, .left = 50};
        cr_assert_eq(chain_next(&c), CB_OK, "%s", cb_last_error());
        http_run(&w, &c.done);
        cb_http_server_stats_get(w.server, &st);
        cr_expect_eq(c.failed, 0, "%s: %d failed", way->name, c.failed);
        cr_expect_eq(st.conns_total, 1, "%s: %llu connections", way->name, (unsigned long long)st.conns_total);
        http_world_close(&w);
    }
}

/* 40 at one time: HTTP/2 and HTTP/3 share one connection. */
Test(http_client, many_at_one_time) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        static http_reply r[40];
        cb_http_server_stats st = {.size = sizeof st};
        memset(r, 0, sizeof r);
        http_world_open(&w);
        http_serve(&w, (cb_http_server_opts){.identity = way->tls ? w.me : NULL});
        http_client_make(&w, (cb_http_client_opts){.versions = way->version, .max_conns_per_host = 4});
        for (int k = 0; k < 40; k++)
            cr_assert_eq(http_begin(&r[k], &w, (cb_request){0}, k % 2 ? "/hello" : "/big?70000"), CB_OK, "begin");
        for (int k = 0; k < 40; k++) {
            http_run(&w, &r[k].closes);
            cr_expect_eq(r[k].rc, CB_OK, "%s %d: %d %s", way->name, k, r[k].rc, r[k].detail);
            cr_expect_eq(r[k].bytes, k % 2 ? 6 : 70000, "%s %d: %zu bytes", way->name, k, r[k].bytes);
        }
        cb_http_server_stats_get(w.server, &st);
        if (way->version == CB_HTTP_1)
            cr_expect_leq(st.conns_total, 4, "%s: %llu connections", way->name, (unsigned long long)st.conns_total);
        else
            cr_expect_eq(st.conns_total, 1, "%s: %llu connections", way->name, (unsigned long long)st.conns_total);
        http_world_close(&w);
    }
}

static void fetch_anew(http_reply *r, http_world *w, const char *method) {
    cb_http_server_stats st = {.size = sizeof st};
    *r = (http_reply){0};
    for (int i = 0; i < 3000 && (cb_http_server_stats_get(w->server, &st), st.conns_h3); i++) {
        usleep(1000);
        cb_loop_step(w->loop);
    }
    cr_assert_eq(st.conns_h3, 0, "the idle connection stays");
    for (int i = 0; i < 100; i++) { /* the client's end may live a moment longer */
        usleep(1000);
        cb_loop_step(w->loop);
    }
    http_fetch(r, w, (cb_request){.method = method}, "/head");
    cr_expect_eq(r->rc, CB_OK, "%s: %d %s", method, r->rc, r->detail);
}

/* With 0-RTT a request that changes nothing is sent at once; any other waits for the handshake. */
Test(http_client, early_data_only_for_safe_methods) {
    http_world w;
    http_reply r;
    http_world_open(&w);
    http_serve(&w, (cb_http_server_opts){.identity = w.me, .early_data = 1});
    http_client_make(&w, (cb_http_client_opts){.versions = CB_HTTP_3, .early_data = 1, .idle_timeout_ms = 100});
    fetch_anew(&r, &w, "GET");
    cr_expect(strstr(r.body, "early=0"), "first: %s", r.body);
    fetch_anew(&r, &w, "GET");
    cr_expect(strstr(r.body, "early=1"), "GET: %s", r.body);
    fetch_anew(&r, &w, "POST");
    cr_expect(strstr(r.body, "early=0"), "POST: %s", r.body);
    fetch_anew(&r, &w, "HEAD");
    fetch_anew(&r, &w, "OPTIONS");
    cr_expect(strstr(r.body, "early=1"), "OPTIONS: %s", r.body);
    EXPECT_MOVED(w.metrics, 3, "cb_http_server_early_requests", "taken");
    EXPECT_MOVED(w.metrics, 3, "cb_pool_early_requests");
    EXPECT_MOVED(w.metrics, 0, "cb_http_server_early_requests", "refused");
    http_world_close(&w);
}

static void free_client(cb_exchange *x, int rc, void *user) {
    (void)x;
    (void)rc;
    http_world *w = user;
    cb_http_client *c = w->client;
    w->client = NULL;
    cb_http_client_free(c);
}

static int free_client_at_head(cb_exchange *x, void *user) {
    free_client(x, 0, user);
    return CB_OK;
}

Test(http_client, freed_in_callbacks) {
    static const cb_exchange_ops at_close = {.size = sizeof at_close, .on_close = free_client};
    static const cb_exchange_ops at_head = {.size = sizeof at_head, .on_head = free_client_at_head};
    static const char *const paths[] = {"/hello", "/big?400000"};
    for (int i = 0; i < HTTP_WAYS; i++)
        for (int how = 0; how < 4; how++) {
            const http_way *way = &http_ways[i];
            http_world w;
            http_reply other = {0};
            char url[160];
            cb_exchange *x = NULL;
            http_world_open(&w);
            http_serve(&w, (cb_http_server_opts){.identity = way->tls ? w.me : NULL});
            http_client_make(&w, (cb_http_client_opts){.versions = way->version});
            const cb_request req = {.size = sizeof req, .url = http_url(&w, paths[how / 2], url)};
            cr_assert_eq(cb_http_request(&x, w.client, &req, how % 2 ? &at_head : &at_close, &w), CB_OK, "request");
            cr_assert_eq(http_begin(&other, &w, (cb_request){0}, "/never"), CB_OK, "begin");
            http_run(&w, &other.closes);
            cr_expect_eq(other.rc, CB_ECLOSED, "%s %d: %d %s", way->name, how, other.rc, other.detail);
            cr_expect_null(w.client, "%s %d: the client was not freed", way->name, how);
            http_world_close(&w);
        }
}

struct at_once {
    http_world *w;
    int closes, closes_at_return;
};

static void free_client_and_count(cb_exchange *x, int rc, void *user) {
    struct at_once *a = user;
    (void)x;
    (void)rc;
    a->closes++;
    if (!a->w->client) return;
    cb_http_client *c = a->w->client;
    a->w->client = NULL;
    cb_http_client_free(c);
    a->closes_at_return = a->closes;
}

/* A client that the first of several failing requests frees ends the others before the call returns. */
Test(http_client, freed_while_a_queue_fails) {
    enum { REQUESTS = 4 };
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_close = free_client_and_count};
    http_world w;
    http_world_open(&w);
    http_client_make(&w, (cb_http_client_opts){.versions = CB_HTTP_1});
    struct at_once a = {.w = &w};
    /* Port 9 of loopback: nobody is there. */
    const cb_request req = {.size = sizeof req, .url = "http://127.0.0.1:9/"};
    for (int i = 0; i < REQUESTS; i++) {
        cb_exchange *x = NULL;
        cr_assert_eq(cb_http_request(&x, w.client, &req, &ops, &a), CB_OK, "request");
    }
    http_run(&w, &a.closes);
    cr_expect_eq(a.closes, REQUESTS);
    cr_expect_eq(a.closes_at_return, REQUESTS, "%d of %d", a.closes_at_return, REQUESTS);
    http_world_close(&w);
}

Test(http_client, shows_its_certificate) {
    for (int i = 2; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        http_reply none = {0}, shown = {0};
        http_world_open(&w);
        http_serve(&w, (cb_http_server_opts){.identity = w.me, .request_client_cert = 2});
        http_client_make(&w, (cb_http_client_opts){.versions = way->version});
        http_fetch(&none, &w, (cb_request){0}, "/hello");
        cr_expect_lt(none.rc, 0, "%s: served without a certificate", way->name);
        cr_expect_eq(w.heads, 0, "%s: served without a certificate", way->name);
        cb_http_client_free(w.client);
        http_client_make(&w, (cb_http_client_opts){.versions = way->version, .identity = w.me});
        http_fetch(&shown, &w, (cb_request){0}, "/hello");
        cr_expect_eq(shown.rc, CB_OK, "%s: %d %s", way->name, shown.rc, shown.detail);
        http_world_close(&w);
    }
}

/* Answers early requests with 425 as long as it is told to, and counts. */
static int early_heads, too_early_answers;
static int answer_too_early(cb_exchange *x, void *user) {
    char text[32];
    (void)user;
    early_heads += cb_exchange_is_early(x) != 0;
    if (cb_exchange_is_early(x)) {
        too_early_answers++;
        return cb_exchange_send_text(x, 425, "not yet\n");
    }
    snprintf(text, sizeof text, "early=%d\n", cb_exchange_is_early(x));
    return cb_exchange_send_text(x, 200, text);
}

static int answer_always_425(cb_exchange *x, void *user) {
    (void)user;
    too_early_answers++;
    return cb_exchange_send_text(x, 425, "never\n");
}

/* RFC 8470, 5.2: what was sent early and is answered with 425 is sent again after the handshake, by itself and once; a
 * 425 to what was not sent early is the answer. */
Test(http_client, too_early_is_sent_again_after_the_handshake) {
    static const cb_exchange_ops ops[] = {{.size = sizeof ops[0], .on_head = answer_too_early},
                                          {.size = sizeof ops[0], .on_head = answer_always_425}};
    for (int always = 0; always < 2; always++) {
        http_world w;
        http_reply r;
        early_heads = too_early_answers = 0;
        http_world_open(&w);
        http_serve(&w, (cb_http_server_opts){.identity = w.me, .ops = &ops[always], .early_data = 1});
        http_client_make(&w, (cb_http_client_opts){.versions = CB_HTTP_3, .early_data = 1, .idle_timeout_ms = 100});
        fetch_anew(&r, &w, "GET");
        cr_expect_eq(r.status, always ? 425 : 200, "first: %d", r.status);
        too_early_answers = 0;
        fetch_anew(&r, &w, "GET");
        cr_expect_eq(r.status, always ? 425 : 200, "second: %d %s", r.status, r.body);
        cr_expect_eq(r.heads, 1, "the first answer was shown");
        cr_expect_eq(too_early_answers, always ? 2 : 1, "%d", too_early_answers);
        if (!always) cr_expect(early_heads == 1 && strstr(r.body, "early=0"), "%d %s", early_heads, r.body);
        EXPECT_MOVED(w.metrics, 1, "cb_pool_retried_requests", "too_early");
        http_world_close(&w);
    }
}

/* What tickets are bound to besides: SETTINGS that a client may remember, and a tenant. Where it differs: a round trip.
 */
Test(http_client, tickets_go_by_settings_and_tenant) {
    http_world w;
    http_reply r;
    char address[64];
    cb_tickets *ring = NULL;
    http_world_open(&w);
    cr_assert_eq(cb_tickets_new(&ring, NULL), CB_OK);
    cb_http_server_opts so = {.identity = w.me, .tickets = ring, .early_data = 1, .ticket_context = "tenant a"};
    http_serve(&w, so);
    snprintf(address, sizeof address, "%s", cb_http_server_address(w.server));
    http_client_make(&w, (cb_http_client_opts){.versions = CB_HTTP_3, .early_data = 1, .idle_timeout_ms = 100});
    fetch_anew(&r, &w, "GET");
    fetch_anew(&r, &w, "GET");
    cr_expect(strstr(r.body, "early=1"), "%s", r.body);
    cr_assert_eq(cb_http_server_set_limits(w.server, CB_OPTS(cb_http_limits, .max_head_bytes = 4096)), CB_OK);
    fetch_anew(&r, &w, "GET");
    cr_expect(strstr(r.body, "early=0"), "with smaller SETTINGS than the client may remember: %s", r.body);
    fetch_anew(&r, &w, "GET");
    cr_expect(strstr(r.body, "early=1"), "%s", r.body);
    static const char *const tenants[] = {"tenant b", "tenant b", NULL};
    for (size_t i = 0; i < 3; i++) {
        cb_http_server_free(w.server);
        cb_loop_step(w.loop);
        so.listen = address;
        so.ticket_context = tenants[i];
        so.limits = CB_OPTS(cb_http_limits, .max_head_bytes = 4096);
        http_serve(&w, so);
        fetch_anew(&r, &w, "GET");
        cr_expect(strstr(r.body, i == 1 ? "early=1" : "early=0"), "row %zu: %s", i, r.body);
    }
    cb_tickets_unref(ring);
    http_world_close(&w);
}

/* cb_http_server with cb_http_client as its peer, over every version. (Other peers: tests/interop.) */
#include "base/addr.h"
#include "support/http_fixture.h"
#include "support/moved.h"
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static cb_http_server_opts plain(const http_world *w, const http_way *way) {
    return (cb_http_server_opts){.identity = way->tls ? w->me : NULL};
}

Test(http_server, answers_over_every_version) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        int turns = 0;
        http_world w;
        http_world_open(&w);
        http_serve(&w, plain(&w, way));
        http_client_make(&w, (cb_http_client_opts){.versions = way->version});
        for (int k = 0; k < 3; k++) {
            http_reply r = {0};
            http_fetch(&r, &w, (cb_request){0}, "/hello");
            cr_assert_eq(r.rc, CB_OK, "%s: %d %s\n%s", way->name, r.rc, r.detail, w.log);
            cr_expect_eq(r.status, 200, "%s: status %d", way->name, r.status);
            cr_expect_eq(r.version, (int)way->version, "%s: version %d", way->name, r.version);
            cr_expect_str_eq(r.body, "hello\n", "%s: body %s", way->name, r.body);
            cr_expect(strstr(r.head, "content-length: 6\n"), "%s: head %s", way->name, r.head);
            const char *date = strstr(r.head, "date: ");
            cr_expect(date && strlen(date) > 35 && strncmp(date + 6 + 25, " GMT", 4) == 0, "%s: head %s", way->name,
                      r.head);
            cr_expect_eq(strstr(r.head, "alt-svc: h3=\":") != NULL, way->tls && way->version != CB_HTTP_3,
                         "%s: alt-svc: %s", way->name, r.head);
        }
        cb_http_server_stats st = {.size = sizeof st};
        do { /* HTTP/3: a stream is over when its last byte is acknowledged */
            cr_assert_eq(cb_http_server_stats_get(w.server, &st), CB_OK, "stats");
        } while (st.exchanges_now && ++turns < 1000 && usleep(100) == 0 && cb_loop_step(w.loop) == CB_OK);
        cr_expect_eq(st.conns_total, 1, "%s: %llu connections for 3 requests", way->name,
                     (unsigned long long)st.conns_total);
        cr_expect_eq(st.exchanges_total, 3, "%s: %llu exchanges", way->name, (unsigned long long)st.exchanges_total);
        cr_expect_eq(st.exchanges_now, 0, "%s: %llu open", way->name, (unsigned long long)st.exchanges_now);
        http_world_close(&w);
    }
}

Test(http_server, bodies_both_ways) {
    enum { SIZE = 3000000 };
    uint8_t *data = malloc(SIZE);
    for (size_t k = 0; k < SIZE; k++)
        data[k] = (uint8_t)(k * 2654435761u >> 13);
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        http_reply up = {.send = data, .send_len = SIZE}, down = {0}, empty = {.send = data, .send_len = 0};
        http_world_open(&w);
        http_serve(&w, plain(&w, way));
        http_client_make(&w, (cb_http_client_opts){.versions = way->version});
        http_fetch(&up, &w, (cb_request){0}, "/echo");
        cr_expect_eq(up.rc, CB_OK, "%s echo: %d %s\n%s", way->name, up.rc, up.detail, w.log);
        cr_expect_eq(up.bytes, SIZE, "%s echo: %zu bytes", way->name, up.bytes);
        cr_expect_eq(up.sum, http_sum(0, data, SIZE), "%s echo: other bytes", way->name);
        http_fetch(&down, &w, (cb_request){0}, "/big?7000000");
        cr_expect_eq(down.rc, CB_OK, "%s big: %d %s", way->name, down.rc, down.detail);
        cr_expect_eq(down.bytes, 7000000, "%s big: %zu bytes", way->name, down.bytes);
        http_fetch(&empty, &w, (cb_request){0}, "/echo");
        cr_expect_eq(empty.rc, CB_OK, "%s empty: %d %s", way->name, empty.rc, empty.detail);
        cr_expect_eq(empty.bytes, 0, "%s empty: %zu bytes", way->name, empty.bytes);
        http_world_close(&w);
    }
    free(data);
}

static void told(cb_loop *loop, void *user) {
    (void)loop;
    ++*(int *)user;
}

Test(http_server, drain_lets_exchanges_finish) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        http_reply r = {0};
        int drained = 0;
        http_world_open(&w);
        http_serve(&w, plain(&w, way));
        http_client_make(&w, (cb_http_client_opts){.versions = way->version, .connect_timeout_ms = 1000});
        cb_http_server_on_drained(w.server, told, &drained);
        cr_assert_eq(http_begin(&r, &w, (cb_request){0}, "/later"), CB_OK, "%s", way->name);
        http_run(&w, &w.heads);
        cr_assert_eq(cb_http_server_drain(w.server, 20000), CB_OK, "drain");
        for (int k = 0; k < 20; k++)
            cb_loop_step(w.loop);
        cr_expect_eq(drained, 0, "%s: drained before its exchange ended", way->name);
        http_answer_later(&w);
        http_run(&w, &r.closes);
        cr_expect_eq(r.rc, CB_OK, "%s: %d %s", way->name, r.rc, r.detail);
        cr_expect_str_eq(r.body, "later\n", "%s: %s", way->name, r.body);
        http_run(&w, &drained);
        cr_expect_eq(drained, 1, "%s: told %d times", way->name, drained);
        http_world_close(&w);
    }
}

Test(http_server, drain_deadline_and_free_end_exchanges) {
    static const char *const paths[] = {"/never", "/never", "/free"};
    for (int i = 0; i < HTTP_WAYS; i++)
        for (int how = 0; how < 3; how++) {
            const http_way *way = &http_ways[i];
            http_world w;
            http_reply r = {0};
            int drained = 0;
            http_world_open(&w);
            http_serve(&w, plain(&w, way));
            http_client_make(&w, (cb_http_client_opts){.versions = way->version});
            cb_http_server_on_drained(w.server, told, &drained);
            cr_assert_eq(http_begin(&r, &w, (cb_request){0}, paths[how]), CB_OK, "%s", way->name);
            http_run(&w, &w.heads);
            if (how == 0) cb_http_server_drain(w.server, 1);
            if (how == 1) {
                cb_http_server_free(w.server);
                w.server = NULL;
            }
            http_run(&w, &w.closes);
            cr_expect_eq(w.closes, 1, "%s %d: the server's on_close came %d times", way->name, how, w.closes);
            cr_expect_lt(w.last_rc, 0, "%s %d: server's result %d", way->name, how, w.last_rc);
            http_run(&w, &r.closes);
            cr_expect_eq(r.closes, 1, "%s %d: the client's on_close came %d times", way->name, how, r.closes);
            cr_expect_lt(r.rc, 0, "%s %d: client's result %d", way->name, how, r.rc);
            if (how == 0) http_run(&w, &drained);
            http_world_close(&w);
            cr_expect_eq(drained, how == 0, "%s %d: drained %d times", way->name, how, drained);
        }
}

Test(http_server, address_and_its_mistakes) {
    http_world w;
    http_world_open(&w);
    http_serve(&w, (cb_http_server_opts){.identity = w.me});
    char text[CB_ADDR_TEXT];
    snprintf(text, sizeof text, "%s", cb_http_server_address(w.server));
    cr_expect(strncmp(text, "127.0.0.1:", 10) == 0 && strcmp(text, "127.0.0.1:0") != 0, "address %s", text);
    const cb_http_server_opts rows[] = {
        {.size = sizeof rows[0], .listen = text},                                          /* taken by TCP and UDP */
        {.size = sizeof rows[0], .listen = text, .identity = w.me, .versions = CB_HTTP_3}, /* by UDP */
        {.size = sizeof rows[0], .listen = NULL},
        {.size = sizeof rows[0], .listen = "localhost:80"},
        {.size = sizeof rows[0], .listen = "127.0.0.1:0", .versions = CB_HTTP_3},
        {.size = sizeof rows[0], .listen = "127.0.0.1:0", .versions = 8},
        {.size = sizeof rows[0], .listen = "127.0.0.1:0", .retry = 3},
        {.size = sizeof rows[0], .listen = "127.0.0.1:0", .request_client_cert = 3},
        {.size = sizeof rows[0], .listen = "127.0.0.1:0", .server_name = "a\r\nb"},
        {.size = 4, .listen = "127.0.0.1:0"}};
    static const int want[] = {CB_EEXIST, CB_EEXIST, CB_EINVAL, CB_EINVAL, CB_EINVAL,
                               CB_EINVAL, CB_EINVAL, CB_EINVAL, CB_EINVAL, CB_EINVAL};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_http_server *s = NULL;
        int rc = cb_http_server_new(&s, w.loop, &rows[i]);
        cr_expect_eq(rc, want[i], "row %zu: %d %s", i, rc, cb_last_error());
        cr_expect_null(s, "row %zu: a server in spite of the failure", i);
        if (rc == CB_EEXIST)
            cr_expect(strstr(cb_last_error(), text), "row %zu: the address is not named: %s", i, cb_last_error());
        if (rc == CB_OK) cb_http_server_free(s);
    }
    http_world_close(&w);
}

/* Two workers on one address, as two threads would be: each connection has one owner, both get some. */
Test(http_server, workers_share_an_address) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        cb_http_server *second = NULL;
        cb_group *group = NULL;
        cb_http_server_stats st[2] = {{.size = sizeof st[0]}, {.size = sizeof st[0]}};
        http_world_open(&w);
        cr_assert_eq(cb_group_new(&group, CB_OPTS(cb_group_opts, .workers = 2)), CB_OK, "%s", cb_last_error());
        cb_http_server_opts o = plain(&w, way);
        o.group = group;
        http_serve(&w, o);
        o.size = sizeof o;
        o.listen = cb_http_server_address(w.server);
        o.worker = 1;
        o.ops = w.ops;
        o.user = &w;
        cr_assert_eq(cb_http_server_new(&second, w.loop, &o), CB_OK, "%s: %s", way->name, cb_last_error());
        for (int k = 0; k < 24; k++) { /* a connection each; the chance that one worker gets all is 2^-23 */
            http_reply r = {0};
            http_client_make(&w, (cb_http_client_opts){.versions = way->version});
            http_fetch(&r, &w, (cb_request){0}, "/hello");
            cr_expect_eq(r.rc, CB_OK, "%s %d: %d %s", way->name, k, r.rc, r.detail);
            cb_http_client_free(w.client);
            w.client = NULL;
        }
        cb_http_server_stats_get(w.server, &st[0]);
        cb_http_server_stats_get(second, &st[1]);
        cr_expect_eq(st[0].exchanges_total + st[1].exchanges_total, 24, "%s: %llu + %llu exchanges", way->name,
                     (unsigned long long)st[0].exchanges_total, (unsigned long long)st[1].exchanges_total);
        cr_expect(st[0].exchanges_total && st[1].exchanges_total, "%s: one worker got all", way->name);
        cb_http_server_free(second);
        http_world_close(&w);
        cb_group_unref(group);
    }
}

static int tcp_to(const char *address) {
    cb_addr a;
    cr_assert_eq(cb_addr_parse(&a, address, 0), CB_OK, "address");
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, &a.sa, cb_addr_len(&a)), 0, "connect");
    return fd;
}

Test(http_server, max_conns_pauses_accepting) {
    http_world w;
    http_reply r = {0};
    int fds[2];
    http_world_open(&w);
    http_serve(&w, (cb_http_server_opts){.max_conns = 2});
    http_client_make(&w, (cb_http_client_opts){.connect_timeout_ms = 20000});
    cb_http_server_stats st = {.size = sizeof st};
    for (int i = 0; i < 2; i++)
        fds[i] = tcp_to(cb_http_server_address(w.server));
    for (int i = 0; i < 100 && st.conns_total < 2; i++) {
        cb_loop_step(w.loop);
        cb_http_server_stats_get(w.server, &st);
    }
    cr_assert_eq(st.conns_total, 2, "%llu connections", (unsigned long long)st.conns_total);
    cr_assert_eq(http_begin(&r, &w, (cb_request){0}, "/hello"), CB_OK, "begin");
    for (int i = 0; i < 50; i++)
        cb_loop_step(w.loop);
    cr_expect_eq(r.closes, 0, "a third connection was served");
    cr_expect(strstr(w.log, "max_conns"), "nothing in the log: %s", w.log);
    close(fds[0]);
    http_run(&w, &r.closes);
    cr_expect_eq(r.rc, CB_OK, "after one left: %d %s", r.rc, r.detail);
    close(fds[1]);
    http_world_close(&w);
}

Test(http_server, misdirected_request) {
    for (int i = 2; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        char cert[160], key[160], url[160], at[CB_ADDR_TEXT];
        http_world w;
        http_world_open(&w);
        tls_pki_leaf(&w.pki, "other.example", 0, "other", 0, 0);
        const cb_identity_opts more = {.size = sizeof more,
                                       .cert_file = tls_pki_path(&w.pki, "other.pem", cert),
                                       .key_file = tls_pki_path(&w.pki, "other-key.pem", key)};
        cr_assert_eq(cb_identity_add(w.me, &more), CB_OK, "%s", cb_last_error());
        http_serve(&w, plain(&w, way));
        snprintf(at, sizeof at, "%s", cb_http_server_address(w.server));
        http_client_make(&w, (cb_http_client_opts){.versions = way->version, .server_name = "a.test"});
        static const struct {
            const char *host;
            int status;
        } rows[] = {{"a.test", 200}, {"b.test", 200}, {"localhost", 200}, {"other.example", 421}};
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            http_reply r = {0};
            snprintf(url, sizeof url, "https://%s:%s/hello", rows[k].host, strrchr(at, ':') + 1);
            http_fetch(&r, &w, (cb_request){.connect_to = at}, url);
            cr_expect_eq(r.rc, CB_OK, "%s %s: %d %s", way->name, rows[k].host, r.rc, r.detail);
            cr_expect_eq(r.status, rows[k].status, "%s %s: status %d", way->name, rows[k].host, r.status);
        }
        EXPECT_MOVED(w.metrics, 1, "cb_http_server_misdirected_requests", "host");
        EXPECT_MOVED(w.metrics, 0, "cb_http_server_misdirected_requests", "certificate");
        http_world_close(&w);
    }
}

Test(http_server, proxy_protocol) {
    for (int i = 0; i < 4; i++)
        for (uint8_t version = 1; version <= 2; version++) {
            const http_way *way = &http_ways[i];
            http_world w;
            http_reply r = {0};
            http_world_open(&w);
            cb_http_server_opts o = plain(&w, way);
            o.proxy_protocol = 1;
            http_serve(&w, o);
            http_client_make(&w, (cb_http_client_opts){.versions = way->version, .send_proxy = version});
            http_fetch(&r, &w, (cb_request){0}, "/head");
            cr_expect_eq(r.rc, CB_OK, "%s v%u: %d %s\n%s", way->name, version, r.rc, r.detail, w.log);
            cr_expect(strstr(r.body, "remote=127.0.0.1:"), "%s v%u: %s", way->name, version, r.body);
            http_world_close(&w);
        }
}

Test(http_server, failed_handshakes_are_counted_and_logged) {
    for (int i = 2; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        http_reply r = {0};
        tls_pki strange;
        cb_http_server_stats st = {.size = sizeof st};
        http_world_open(&w);
        tls_pki_make(&strange);
        cb_identity *stranger = tls_pki_client(&strange);
        http_serve(&w, plain(&w, way));
        http_client_make(&w, (cb_http_client_opts){.versions = way->version, .identity = stranger});
        http_fetch(&r, &w, (cb_request){0}, "/hello");
        cr_expect(r.rc == CB_EAUTH || r.rc == CB_ETLS, "%s: %d %s", way->name, r.rc, r.detail);
        cr_expect(strstr(r.detail, "localhost"), "%s: %s", way->name, r.detail);
        for (int k = 0; k < 50 && !st.handshakes_failed; k++) {
            cb_loop_step(w.loop);
            cb_http_server_stats_get(w.server, &st);
        }
        cr_expect_eq(st.handshakes_failed, 1, "%s: %llu", way->name, (unsigned long long)st.handshakes_failed);
        if (way->version != CB_HTTP_3) cr_expect(strstr(w.log, "handshake failed"), "%s: %s", way->name, w.log);
        cr_expect_eq(w.heads, 0, "%s: a request was served", way->name);
        http_world_close(&w);
        cb_identity_unref(stranger);
        tls_pki_drop(&strange);
    }
}

typedef struct seen_conns {
    cb_http_conn at[8];
    char remotes[8][CB_ADDR_TEXT], snis[8][64], tls[8][8];
    size_t n, most;
} seen_conns;

static int see_conn(const cb_http_conn *c, void *user) {
    seen_conns *s = user;
    if (s->n == s->most) return CB_EUSER;
    snprintf(s->remotes[s->n], sizeof s->remotes[0], "%s", c->remote);
    snprintf(s->snis[s->n], sizeof s->snis[0], "%s", c->sni);
    snprintf(s->tls[s->n], sizeof s->tls[0], "%s", c->tls);
    s->at[s->n++] = *c;
    return CB_OK;
}

Test(http_server, connections_are_listed) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        http_reply r[2] = {{0}};
        seen_conns all = {.most = 8}, one = {.most = 1}, rest = {.most = 8};
        cb_http_client *first;
        http_world_open(&w);
        http_serve(&w, plain(&w, way));
        http_client_make(&w, (cb_http_client_opts){.versions = way->version});
        http_fetch(&r[0], &w, (cb_request){0}, "/hello");
        first = w.client;
        http_client_make(&w, (cb_http_client_opts){.versions = way->version});
        http_fetch(&r[1], &w, (cb_request){0}, "/hello");
        cr_assert_eq(cb_http_server_conns(w.server, 0, see_conn, &all), CB_OK);
        cr_assert_eq(all.n, 2, "%s: %zu", way->name, all.n);
        for (size_t k = 0; k < 2; k++) {
            cr_expect(all.at[k].number == k + 1 && all.at[k].version == (int)way->version && !all.at[k].draining);
            cr_expect(strncmp(all.remotes[k], "127.0.0.1:", 10) == 0, "%s", all.remotes[k]);
            cr_expect_str_eq(all.snis[k], way->tls ? "localhost" : "");
            cr_expect_str_eq(all.tls[k], way->tls ? "1.3" : "");
            cr_expect_leq(all.at[k].active + all.at[k].requests, 1);
        }
        cr_expect_eq(cb_http_server_conns(w.server, 0, see_conn, &one), CB_EUSER);
        cr_expect_eq(cb_http_server_conns(w.server, 1, see_conn, &rest), CB_OK);
        cr_expect(rest.n == 1 && rest.at[0].number == 2);
        cr_expect_eq(cb_http_server_conns(w.server, 0, NULL, NULL), CB_EINVAL);
        cb_http_client_free(first);
        http_world_close(&w);
    }
}

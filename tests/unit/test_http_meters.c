/* What HTTP servers count, over every version; and what both sides of a connection count. */
#include "http/pool.h"
#include "support/fake_quic.h"
#include "support/http_fixture.h"
#include "support/http_pair.h"
#include "support/moved.h"
#include "telemetry/cells.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *const version_of[HTTP_WAYS] = {"1.1", "2", "1.1", "2", "3"};

static void turns(http_world *w, int n) {
    while (n-- > 0) {
        cb_loop_step(w->loop);
        usleep(200);
    }
}

static void serve(http_world *w, const http_way *way, cb_http_server_opts o) {
    http_world_open(w);
    o.identity = way->tls ? w->me : NULL;
    if (!o.versions) o.versions = way->version;
    o.name = "front";
    http_serve(w, o);
    http_client_make(w, (cb_http_client_opts){.versions = way->version});
}

Test(http_meters, requests_and_connections_of_every_version) {
    for (size_t i = 0; i < HTTP_WAYS; i++) {
        const char *v = version_of[i];
        http_world w;
        http_reply hello = {0}, again = {0}, none = {0}, post = {.send = (const uint8_t *)"12345", .send_len = 5},
                   later = {.keep_running = true};
        serve(&w, &http_ways[i], (cb_http_server_opts){0});
        http_fetch(&hello, &w, (cb_request){0}, "/hello");
        http_fetch(&again, &w, (cb_request){.method = "HEAD"}, "/hello");
        http_fetch(&none, &w, (cb_request){.method = "DELETE"}, "/nothing");
        http_fetch(&post, &w, (cb_request){.method = "POST"}, "/echo");
        cr_assert_eq(http_begin(&later, &w, (cb_request){0}, "/later"), CB_OK);
        http_run(&w, &w.heads);
        for (int k = 0; k < 2000 && (w.heads < 5 || moved(w.metrics, "cb_http_server_active_requests", v, NULL) > 1);
             k++)
            turns(&w, 1); /* HTTP/3: a stream is over when its last byte is acknowledged */
        EXPECT_MOVED(w.metrics, 1, "cb_http_server_active_requests", v);
        EXPECT_MOVED(w.metrics, 1, "cb_http_server_connections", v);
        http_answer_later(&w);
        http_run(&w, &later.closes);
        for (int k = 0; k < 2000 && moved(w.metrics, "cb_http_server_active_requests", v, NULL) > 0; k++)
            turns(&w, 1);
        EXPECT_MOVED(w.metrics, 0, "cb_http_server_active_requests", v);
        EXPECT_MOVED(w.metrics, 2, "cb_http_server_requests", "front", v, "GET", "2xx");
        EXPECT_MOVED(w.metrics, 1, "cb_http_server_requests", "front", v, "HEAD", "2xx");
        EXPECT_MOVED(w.metrics, 1, "cb_http_server_requests", "front", v, "DELETE", "4xx");
        EXPECT_MOVED(w.metrics, 1, "cb_http_server_requests", "front", v, "POST", "2xx");
        EXPECT_MOVED(w.metrics, 0, "cb_http_server_requests", "front", v, "GET", "none");
        EXPECT_MOVED(w.metrics, 5, "cb_http_server_request_seconds", v);
        EXPECT_MOVED(w.metrics, 5, "cb_http_server_body_bytes", "in");
        EXPECT_MOVED(w.metrics, 6 + 13 + 5 + 6, "cb_http_server_body_bytes", "out");
        EXPECT_MOVED(w.metrics, 1, "cb_http_server_opened_connections", v);
        cb_http_client_free(w.client);
        w.client = NULL;
        for (int k = 0; k < 2000 && moved(w.metrics, "cb_http_server_connections", v, NULL) > 0; k++)
            turns(&w, 1);
        EXPECT_MOVED(w.metrics, 0, "cb_http_server_connections", v);
        EXPECT_MOVED(w.metrics, 1, "cb_http_server_connection_seconds");
        EXPECT_MOVED(w.metrics, 1, "cb_http_server_connection_requests");
        cr_expect_eq(moved_sum(w.metrics, "cb_http_server_connection_requests", NULL), 5);
        http_world_close(&w);
    }
}

/* ---- with sockets of our own ---- */

static int dial(const http_world *w) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    at.sin_port = htons((uint16_t)atoi(strrchr(cb_http_server_address(w->server), ':') + 1));
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

/* Sends and gives the status of the answer; 0: closed without one. */
static int say(http_world *w, const char *text, size_t len) {
    char answer[256] = "";
    int fd = dial(w), status = 0;
    cr_assert_eq(send(fd, text, len, MSG_NOSIGNAL), (ssize_t)len);
    for (int i = 0; i < 3000; i++) {
        turns(w, 1);
        ssize_t n = recv(fd, answer, sizeof answer - 1, MSG_DONTWAIT);
        if (n >= 0) break;
    }
    sscanf(answer, "HTTP/1.1 %d", &status);
    close(fd);
    turns(w, 10);
    return status;
}

Test(http_meters, what_is_refused) {
    static const cb_http_limits limits = {.size = sizeof limits,
                                          .max_head_bytes = 1000,
                                          .max_target_bytes = 100,
                                          .max_body_bytes = 10,
                                          .head_timeout_ms = 60,
                                          .body_timeout_ms = 60};
    static const struct {
        const char *text, *pad; /* pad: repeated 200 times between */
        const char *rest;
        int status;
        const char *refused, *limit;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\nX: ", "12345678", "\r\n\r\n", 431, "431", "head"},
        {"GET /", "12345678", " HTTP/1.1\r\nHost: a\r\n\r\n", 414, "414", "target"},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n12345678901", "", "", 413, "413", NULL},
        {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n", "12345678", "", 200, NULL,
         "body"},
        {"GET / HTTP/1.1\r\nHost: a\r\n", "", "", 408, "408", "head_timeout"},
        {"POST /never HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n1", "", "", 408, NULL, "body_timeout"},
        {"GET / HTTP/1.1\r\nbad header\r\n\r\n", "", "", 400, "400", NULL},
        {"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", "", "", 501, "other", NULL},
        {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
         "\r\n", 200, NULL, "chunk_extensions"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        static char text[16384];
        http_world w;
        size_t n = (size_t)snprintf(text, sizeof text, "%s", rows[i].text);
        for (int k = 0; k < 200 && *rows[i].pad; k++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", rows[i].pad);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s", rows[i].rest);
        http_world_open(&w);
        http_serve(&w, (cb_http_server_opts){.versions = CB_HTTP_1, .limits = &limits, .name = "front"});
        cr_expect_eq(say(&w, text, n), rows[i].status, "row %zu", i);
        if (rows[i].refused) EXPECT_MOVED(w.metrics, 1, "cb_http_server_refused_requests", rows[i].refused);
        if (rows[i].limit) EXPECT_MOVED(w.metrics, 1, "cb_http_server_limits", rows[i].limit);
        EXPECT_MOVED(w.metrics, rows[i].refused ? 0 : 1, "cb_http_server_request_seconds", "1.1");
        http_world_close(&w);
    }
}

static int other_host(cb_exchange *x, void *user) {
    (void)user;
    return cb_exchange_send_text(x, 200, "");
}

/* Tunnels that are open, ends in good order, and what comes when nothing more may. */
Test(http_meters, tunnels_drains_and_too_many) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = other_host};
    static const char upgrade[] = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    http_world w;
    http_reply r = {.keep_running = true}, udp = {.keep_running = true}, connect = {.keep_running = true};
    serve(&w, &http_ways[3], (cb_http_server_opts){.ops = &ops});
    cr_assert_eq(http_begin(&r, &w, (cb_request){.method = "CONNECT", .protocol = "websocket"}, "/chat"), CB_OK);
    cr_assert_eq(http_begin(&udp, &w, (cb_request){.method = "CONNECT", .protocol = "connect-udp"}, "/m"), CB_OK);
    cr_assert_eq(http_begin(&connect, &w, (cb_request){.method = "CONNECT", .protocol = "something"}, "/s"), CB_OK);
    while (!r.heads || !udp.heads || !connect.heads)
        turns(&w, 1);
    EXPECT_MOVED(w.metrics, 3, "cb_http_server_tunnels");
    EXPECT_MOVED(w.metrics, 1, "cb_http_server_upgrades", "websocket");
    EXPECT_MOVED(w.metrics, 1, "cb_http_server_upgrades", "connect_udp");
    EXPECT_MOVED(w.metrics, 1, "cb_http_server_upgrades", "other");
    EXPECT_MOVED(w.metrics, 0, "cb_http_server_upgrades", "connect");
    cb_exchange_reset(udp.x, CB_RESET_CANCEL);
    while (!udp.closes)
        turns(&w, 1);
    turns(&w, 10);
    EXPECT_MOVED(w.metrics, 2, "cb_http_server_tunnels");
    EXPECT_MOVED(w.metrics, 1, "cb_http_stream_resets", "server", "in");
    EXPECT_MOVED(w.metrics, 1, "cb_http_stream_resets", "client", "out");
    cr_assert_eq(cb_http_server_drain(w.server, 10), CB_OK);
    EXPECT_MOVED(w.metrics, 1, "cb_http_server_drains");
    while (!r.closes || !connect.closes)
        turns(&w, 1);
    turns(&w, 10);
    EXPECT_MOVED(w.metrics, 0, "cb_http_server_tunnels");
    EXPECT_MOVED(w.metrics, 1, "cb_http_server_closed_connections", "drain");
    http_world_close(&w);

    http_world_open(&w);
    http_serve(&w, (cb_http_server_opts){.versions = CB_HTTP_1, .name = "front", .ops = &ops});
    cr_expect_eq(say(&w, upgrade, sizeof upgrade - 1), 200, "it did not take the upgrade");
    EXPECT_MOVED(w.metrics, 0, "cb_http_server_tunnels");
    EXPECT_MOVED(w.metrics, 1, "cb_http_server_closed_connections", "done");
    http_world_close(&w);
}

Test(http_meters, more_connections_than_may_be) {
    http_world w;
    http_world_open(&w);
    http_serve(&w, (cb_http_server_opts){.versions = CB_HTTP_1, .max_conns = 1});
    int fds[] = {dial(&w), dial(&w), dial(&w)};
    turns(&w, 20);
    EXPECT_MOVED(w.metrics, moved(w.metrics, "cb_tcp_listener_accepted_connections", NULL) - 1,
                 "cb_http_server_dropped_connections");
    EXPECT_MOVED(w.metrics, 0, "cb_http_server_opened_connections", "1.1");
    cr_assert_eq(send(fds[0], "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n", 32, MSG_NOSIGNAL), 32);
    for (int i = 0; i < 1000 && moved(w.metrics, "cb_http_server_opened_connections", "1.1", NULL) < 1; i++)
        turns(&w, 1);
    EXPECT_MOVED(w.metrics, 1, "cb_http_server_opened_connections", "1.1");
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    http_world_close(&w);
}

/* ---- both sides of a connection in memory ---- */

static cb_cells *count_in(pair *p, cb_metrics **m) {
    cb_cells *cells = NULL;
    cr_assert_eq(cb_metrics_new(m, NULL), CB_OK);
    cr_assert_eq(cb_cells_new(&cells, *m), CB_OK, "%s", cb_last_error());
    p->env[0].cells = p->env[1].cells = cells;
    return cells;
}

static int hint_and_answer(cb_exchange *x, void *user) {
    (void)user;
    const cb_field f = {cb_slice_str("x-table"), cb_slice_str("a value that goes into the table")};
    cb_exchange_reply(x, 103, NULL, 0);
    return cb_exchange_send(x, 200, &f, 1, cb_slice_str("x"));
}

static int give_up(cb_exchange *x, void *user) {
    (void)user;
    cb_exchange_reset(x, CB_RESET_INTERNAL);
    return CB_OK;
}

static int send_back(cb_exchange *x, cb_slice payload, void *user) {
    (void)user;
    return cb_exchange_datagram_send(x, payload);
}

static int take_tunnel(cb_exchange *x, void *user) {
    (void)user;
    return cb_exchange_reply(x, 200, NULL, 0);
}

Test(http_meters, frames_of_both_sides) {
    for (int version = CB_HTTP_2; version <= CB_HTTP_3; version *= 2) {
        static const cb_exchange_ops answers = {.size = sizeof answers, .on_head = hint_and_answer},
                                     resets = {.size = sizeof resets, .on_head = give_up},
                                     tunnels = {
                                         .size = sizeof tunnels, .on_head = take_tunnel, .on_datagram = send_back};
        pair p;
        call ok = {0}, bad = {0}, early = {0}, tunnel = {.no_finish = true};
        cb_metrics *m = NULL;
        pair_init(&p, version);
        cb_cells *cells = count_in(&p, &m);
        p.serve = &answers;
        pair_start(&p);
        call_start(&p, &ok, NULL);
        pair_run(&p);
        cr_expect_eq(ok.status, 200);
        EXPECT_MOVED(m, 1, "cb_http_interim_responses", "server");
        EXPECT_MOVED(m, 1, "cb_http_interim_responses", "client");
        EXPECT_MOVED(m, 0, "cb_http_stream_resets", "server", "out");
        p.serve = &resets;
        call_start(&p, &bad, NULL);
        pair_run(&p);
        EXPECT_MOVED(m, 1, "cb_http_stream_resets", "server", "out");
        EXPECT_MOVED(m, 1, "cb_http_stream_resets", "client", "in");
        p.serve = &tunnels;
        call_start(&p, &tunnel,
                   &(call_head){.method = "CONNECT", .path = "/", .protocol = "connect-udp", .scheme = "https"});
        pair_run(&p);
        cr_expect_eq(cb_exchange_datagram_send(tunnel.x, cb_slice_str("from the client")), CB_OK);
        pair_run(&p);
        EXPECT_MOVED(m, 1, "cb_http_datagrams", "server", "out");
        EXPECT_MOVED(m, 1, "cb_http_datagrams", "client", "in");
        EXPECT_MOVED(m, 1, "cb_http_datagrams", "client", "out");
        EXPECT_MOVED(m, 1, "cb_http_datagrams", "server", "in");
        cb_exchange_reset(tunnel.x, CB_RESET_CANCEL);
        pair_run(&p);
        if (version == CB_HTTP_3) {
            p.quic->side[1].early = true;
            call_start(&p, &early, &(call_head){.method = "POST", .path = "/", .scheme = "https", .end = true});
            pair_run(&p);
            p.quic->side[1].early = false;
            cr_expect_eq(early.status, 425);
            EXPECT_MOVED(m, 1, "cb_http_server_early_requests", "refused");
            EXPECT_MOVED(m, 1, "cb_http_server_refused_requests", "other");
        }
        p.side[1]->vt->drain(p.side[1]);
        pair_run(&p);
        EXPECT_MOVED_IN(m, 1, 2, "cb_http_goaways", "server", "out");
        EXPECT_MOVED(m, moved(m, "cb_http_goaways", "server", "out", NULL), "cb_http_goaways", "client", "in");
        pair_stop(&p);
        if (version == CB_HTTP_2) {
            EXPECT_MOVED(m, 2, "cb_http_hpack_table_bytes", "in");
            EXPECT_MOVED(m, 2, "cb_http_hpack_table_bytes", "out");
            cr_expect_gt(moved_sum(m, "cb_http_hpack_table_bytes", "out", NULL), 32);
        }
        call_free(&ok);
        call_free(&bad);
        call_free(&early);
        call_free(&tunnel);
        cb_cells_free(cells);
        cb_metrics_unref(m);
    }
}

/* ---- connections to origins ---- */

Test(pool_meters, connections_and_requests_of_every_version) {
    for (size_t i = 0; i < HTTP_WAYS; i++) {
        const char *v = version_of[i];
        http_world w;
        http_reply later = {.keep_running = true};
        serve(&w, &http_ways[i], (cb_http_server_opts){0});
        for (int k = 0; k < 3; k++) {
            http_reply r = {0};
            http_fetch(&r, &w, (cb_request){0}, "/hello");
            cr_assert_eq(r.rc, CB_OK, "%s", r.detail);
        }
        EXPECT_MOVED(w.metrics, 1, "cb_pool_connections", v);
        EXPECT_MOVED(w.metrics, 1, "cb_pool_idle_connections");
        EXPECT_MOVED(w.metrics, 1, "cb_pool_origins");
        cr_assert_eq(http_begin(&later, &w, (cb_request){0}, "/later"), CB_OK);
        EXPECT_MOVED(w.metrics, 1, "cb_pool_waiting_requests");
        while (w.heads < 4)
            turns(&w, 1);
        EXPECT_MOVED(w.metrics, 0, "cb_pool_waiting_requests");
        EXPECT_MOVED(w.metrics, 1, "cb_pool_active_requests");
        EXPECT_MOVED(w.metrics, 0, "cb_pool_idle_connections");
        EXPECT_MOVED(w.metrics, 1, "cb_pool_opened_connections", v);
        EXPECT_MOVED(w.metrics, 1, "cb_pool_connect_seconds", i == 4 ? "quic" : "tcp");
        EXPECT_MOVED(w.metrics, 1, "cb_pool_requests", "new");
        EXPECT_MOVED(w.metrics, 3, "cb_pool_requests", "used");
        EXPECT_MOVED_IN(w.metrics, 1, 4, "cb_pool_wait_seconds"); /* the first, for its connection */
        http_answer_later(&w);
        http_run(&w, &later.closes);
        cb_http_client_free(w.client);
        w.client = NULL;
        turns(&w, 20);
        EXPECT_MOVED(w.metrics, 0, "cb_pool_active_requests");
        EXPECT_MOVED(w.metrics, 0, "cb_pool_connections", v);
        EXPECT_MOVED(w.metrics, 0, "cb_pool_idle_connections");
        EXPECT_MOVED(w.metrics, 0, "cb_pool_origins");
        EXPECT_MOVED(w.metrics, 1, "cb_pool_closed_connections", "pool");
        http_world_close(&w);
    }
}

Test(pool_meters, what_fails) {
    static const struct {
        const char *url, *reason, *name; /* url NULL: of the server, over TLS */
        bool tls;
    } rows[] = {{"http://127.0.0.1:1/", "unreachable", NULL, false},
                {NULL, "certificate", "other.test", true},
                {NULL, "tls", NULL, false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        http_world w;
        http_reply r = {0};
        char url[96];
        http_world_open(&w);
        http_serve(&w, (cb_http_server_opts){.identity = rows[i].tls ? w.me : NULL, .versions = CB_HTTP_1});
        snprintf(url, sizeof url, "https://localhost%s/hello", strrchr(cb_http_server_address(w.server), ':'));
        http_client_make(&w, (cb_http_client_opts){.versions = CB_HTTP_1, .server_name = rows[i].name});
        http_fetch(&r, &w, (cb_request){0}, rows[i].url ? rows[i].url : url);
        cr_expect_lt(r.rc, 0);
        EXPECT_MOVED(w.metrics, 1, "cb_pool_failed_connections", rows[i].reason);
        EXPECT_MOVED(w.metrics, 0, "cb_pool_opened_connections", "1.1");
        http_world_close(&w);
    }
}

/* One connection for three requests: two wait, of which one is too many. The server leaves in the middle. */
Test(pool_meters, queues_and_repeats) {
    http_world w;
    http_reply hello = {0}, gone = {0};
    cb_pool *pool = NULL;
    cb_origin *o = NULL;
    serve(&w, &http_ways[0], (cb_http_server_opts){0});
    const uint16_t port = (uint16_t)atoi(strrchr(w.url, ':') + 1);
    cr_assert_eq(
        cb_pool_new(&pool, w.loop, &(cb_pool_opts){.max_conns = 1, .max_queue = 1, .queue_timeout = 20 * CB_MS}),
        CB_OK);
    cr_assert_eq(cb_origin_get(&o, pool, &(cb_pool_target){.host = "127.0.0.1", .port = port}), CB_OK);
    const cb_head head = {.method = cb_slice_str("GET"),
                          .scheme = cb_slice_str("http"),
                          .authority = cb_slice_str("localhost"),
                          .path = cb_slice_str("/never"),
                          .length = -1};
    const cb_pool_request req = {.head = &head};
    cb_exchange *x = NULL;
    cr_assert_eq(cb_pool_send(&x, o, &req), CB_OK);
    while (!w.heads)
        turns(&w, 1);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(cb_pool_send(&x, o, &req), CB_OK);
    turns(&w, 5);
    EXPECT_MOVED(w.metrics, 1, "cb_pool_rejected_requests", "queue");
    for (int i = 0; i < 500 && moved(w.metrics, "cb_pool_waiting_requests", NULL) > 0; i++)
        turns(&w, 1);
    EXPECT_MOVED(w.metrics, 1, "cb_pool_rejected_requests", "time");
    cb_origin_unref(o);
    cb_pool_free(pool);
    http_fetch(&hello, &w, (cb_request){0}, "/hello");
    http_fetch(&gone, &w, (cb_request){0}, "/free");
    EXPECT_MOVED(w.metrics, 1, "cb_pool_retried_requests", "lost");
    EXPECT_MOVED(w.metrics, 1, "cb_pool_failed_connections", "unreachable");
    EXPECT_MOVED(w.metrics, 1, "cb_pool_closed_connections", "origin");
    http_world_close(&w);
}

static int large_head(cb_exchange *x, void *user) {
    static char big[200000];
    (void)user;
    memset(big, 'x', sizeof big);
    const cb_field f = {cb_slice_str("x-big"), {(const uint8_t *)big, sizeof big}};
    return cb_exchange_send(x, 200, &f, 1, cb_slice_str(""));
}

Test(pool_meters, limits_of_responses) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = large_head};
    http_world w;
    http_reply r = {0};
    serve(&w, &http_ways[0], (cb_http_server_opts){.ops = &ops});
    http_fetch(&r, &w, (cb_request){.method = "POST"}, "/");
    cr_expect_lt(r.rc, 0);
    EXPECT_MOVED_IN(w.metrics, 1, 2, "cb_pool_limits");
    http_world_close(&w);
}

Test(pool_meters, resumed_connections) {
    http_world w;
    http_reply r[2] = {{0}};
    http_world_open(&w);
    http_serve(&w, (cb_http_server_opts){.identity = w.me, .versions = CB_HTTP_1});
    http_client_make(&w, (cb_http_client_opts){.versions = CB_HTTP_1, .idle_timeout_ms = 30});
    for (int i = 0; i < 2; i++) {
        http_fetch(&r[i], &w, (cb_request){0}, "/hello");
        cr_expect_eq(r[i].rc, CB_OK, "%s", r[i].detail);
        EXPECT_MOVED(w.metrics, i, "cb_pool_resumed_connections");
        for (int k = 0; k < 2000 && moved(w.metrics, "cb_pool_connections", "1.1", NULL) > 0; k++)
            turns(&w, 1);
        EXPECT_MOVED(w.metrics, i + 1, "cb_pool_closed_connections", "done");
    }
    http_world_close(&w);
}

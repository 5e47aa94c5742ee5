/* A client and a server of the same version talk to each other: everything that HTTP/2 and HTTP/3 promise alike. */
#include "base/mem.h"
#include "support/fake_quic.h"
#include "support/http_pair.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* ---- a server that does what the path says ---- */

typedef struct service {
    unsigned heads, ends, closes, resets;
    int last_rc;
    uint64_t got, wrong; /* bytes of request bodies; those that are not the pattern */
    char trailer[64], protocol[32], method[16], priority[32];
    size_t left; /* of the body that is being sent */
    uint64_t written;
    bool hold; /* take no body */
    cb_exchange *held;
} service;

static int send_pattern(cb_exchange *x, service *s) {
    uint8_t piece[7000];
    while (s->left) {
        size_t n = s->left < sizeof piece ? s->left : sizeof piece;
        for (size_t i = 0; i < n; i++)
            piece[i] = pattern_at(s->written + i);
        int64_t took = cb_exchange_write(x, (cb_slice){piece, n});
        if (took == CB_EAGAIN) return CB_OK;
        cr_assert_gt(took, 0, "write: %s", cb_last_error());
        s->left -= (size_t)took;
        s->written += (uint64_t)took;
    }
    return cb_exchange_finish(x);
}

static int on_head(cb_exchange *x, void *user) {
    service *s = user;
    cb_slice path = cb_exchange_path(x), method = cb_exchange_method(x), protocol = cb_exchange_protocol(x);
    s->heads++;
    snprintf(s->method, sizeof s->method, "%.*s", (int)method.len, (const char *)method.base);
    snprintf(s->protocol, sizeof s->protocol, "%.*s", (int)protocol.len, (const char *)protocol.base);
    cb_slice priority = cb_exchange_field(x, "priority");
    if (priority.base)
        snprintf(s->priority, sizeof s->priority, "%.*s", (int)priority.len, (const char *)priority.base);
    if (cb_slice_eq(path, "/hints")) {
        const cb_field link = {cb_slice_str("link"), cb_slice_str("</a.css>; rel=preload")};
        cr_assert_eq(cb_exchange_reply(x, 103, &link, 1), CB_OK);
        cr_assert_eq(cb_exchange_reply(x, 100, NULL, 0), CB_OK);
    }
    if (cb_slice_eq(path, "/early")) return cb_exchange_send_text(x, 403, "no");
    if (cb_slice_eq(path, "/fail")) return CB_EUSER;
    if (cb_slice_eq(path, "/hold")) {
        s->hold = true;
        s->held = x;
    }
    if (cb_slice_eq(path, "/reset")) {
        s->held = x;
        cb_exchange_reset(x, CB_RESET_CANCEL);
        return CB_OK;
    }
    if (cb_slice_eq(path, "/refuse")) {
        cb_exchange_reset(x, CB_RESET_REFUSED);
        return CB_OK;
    }
    if (cb_slice_eq(method, "CONNECT")) {
        s->held = x;
        return cb_exchange_reply(x, 200, NULL, 0);
    }
    return CB_OK;
}
static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    service *s = user;
    if (s->hold) return CB_EAGAIN;
    for (size_t i = 0; i < data.len; i++)
        s->wrong += data.base[i] != pattern_at(s->got + i);
    s->got += data.len;
    /* a tunnel echoes */
    if (cb_slice_eq(cb_exchange_method(x), "CONNECT")) cr_assert_eq(cb_exchange_write(x, data), (int64_t)data.len);
    return (int64_t)data.len;
}
static int on_end(cb_exchange *x, void *user) {
    service *s = user;
    size_t n;
    const cb_field *t = cb_exchange_trailers(x, &n);
    cb_slice path = cb_exchange_path(x);
    s->ends++;
    if (n) snprintf(s->trailer, sizeof s->trailer, "%.*s", (int)t->value.len, (const char *)t->value.base);
    if (cb_slice_eq(path, "/hold") || cb_slice_eq(path, "/early")) return CB_OK;
    if (cb_slice_eq(cb_exchange_method(x), "CONNECT")) return cb_exchange_finish(x);
    if (cb_slice_eq(path, "/big")) {
        s->left = 1 << 20;
        s->written = 0;
        int rc = cb_exchange_reply(x, 200, NULL, 0);
        return rc < 0 ? rc : send_pattern(x, s);
    }
    if (cb_slice_eq(path, "/trailers")) {
        const cb_field f = {cb_slice_str("x-trailer"), cb_slice_str("from the server")};
        cr_assert_eq(cb_exchange_reply(x, 200, NULL, 0), CB_OK);
        cr_assert_eq(cb_exchange_write(x, cb_slice_str("body")), 4);
        return cb_exchange_finish_trailers(x, &f, 1);
    }
    if (cb_slice_eq(path, "/none")) return cb_exchange_send(x, 204, NULL, 0, (cb_slice){NULL, 0});
    cb_field echo = {cb_slice_str("X-Echo"), cb_exchange_field(x, "x-say")};
    return cb_exchange_send(x, 200, &echo, echo.value.base != NULL, cb_slice_str("hello"));
}
static int on_writable(cb_exchange *x, void *user) {
    return send_pattern(x, user);
}
static int on_datagram(cb_exchange *x, cb_slice payload, void *user) {
    (void)user;
    int rc = cb_exchange_datagram_send(x, payload);
    cr_assert_eq(rc, CB_OK, "datagram: %s", cb_last_error());
    return CB_OK;
}
static void on_close(cb_exchange *x, int rc, void *user) {
    service *s = user;
    s->closes++;
    s->last_rc = rc;
    if (rc < 0) s->resets++;
    if (s->held == x) s->held = NULL;
}
static const cb_exchange_ops serve = {.size = sizeof serve,
                                      .on_head = on_head,
                                      .on_body = on_body,
                                      .on_end = on_end,
                                      .on_writable = on_writable,
                                      .on_datagram = on_datagram,
                                      .on_close = on_close};

static const int versions[] = {CB_HTTP_2, CB_HTTP_3};
enum { VERSIONS = sizeof versions / sizeof *versions };

static void begin(pair *p, service *s, int version, uint32_t seed) {
    pair_init(p, version);
    memset(s, 0, sizeof *s);
    p->serve = &serve;
    p->serve_user = s;
    p->seed = seed;
}

Test(http_pair, requests_of_all_kinds) {
    static const cb_field say[] = {{{(const uint8_t *)"x-say", 5}, {(const uint8_t *)"ho", 2}}};
    static const cb_field prio[] = {{{(const uint8_t *)"priority", 8}, {(const uint8_t *)"u=1, i", 6}}};
    static const struct {
        call_head head;
        int status;
        const char *body, *header;
        int infos;
    } rows[] = {
        {{.method = "GET", .path = "/", .end = true}, 200, "hello", "", 0},
        {{.method = "GET", .path = "/", .fields = say, .n = 1, .end = true}, 200, "hello", "ho", 0},
        {{.method = "GET", .path = "/", .fields = prio, .n = 1, .end = true}, 200, "hello", "", 0},
        {{.method = "HEAD", .path = "/", .end = true}, 200, "", "", 0},
        {{.method = "OPTIONS", .path = "*", .end = true}, 200, "hello", "", 0},
        {{.method = "DELETE", .path = "/none", .end = true}, 204, "", "", 0},
        {{.method = "GET", .path = "/hints", .end = true}, 200, "hello", "", 2},
        {{.method = "POST", .path = "/"}, 200, "hello", "", 0},
        {{.method = "GET", .path = "/trailers", .end = true}, 200, "body", "", 0},
        {{.method = "GET", .path = "/early", .end = true}, 403, "no", "", 0},
    };
    for (int v = 0; v < VERSIONS; v++)
        for (uint32_t seed = 1; seed < 20; seed++) {
            pair p;
            service s;
            begin(&p, &s, versions[v], seed);
            pair_start(&p);
            for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
                call c = {.source = cb_slice_str("a body"), .send_trailer = true};
                call_start(&p, &c, &rows[i].head);
                pair_run(&p);
                cr_assert_eq(c.rc, CB_OK,
                             "version %d, seed %u, row %zu: closed with %d: %s (heads %d, ends %d, infos %d)",
                             versions[v], seed, i, c.rc, c.reason, c.heads, c.ends, c.infos);
                cr_assert_eq(c.closes, 1);
                cr_assert_eq(c.ends, 1);
                cr_assert_eq(c.heads, 1);
                cr_assert_eq(c.infos, rows[i].infos, "row %zu: %d infos", i, c.infos);
                cr_assert_eq(c.status, rows[i].status, "row %zu: status %d", i, c.status);
                cr_assert(cb_slice_eq(cb_buf_slice(&c.body), rows[i].body), "row %zu: another body", i);
                cr_assert_str_eq(c.header, rows[i].header);
                cr_assert_eq(s.closes, i + 1);
                cr_assert_eq(s.last_rc, CB_OK, "row %zu: %d", i, s.last_rc);
                call_free(&c);
            }
            cr_assert_str_eq(s.trailer, "from the client");
            cr_assert_str_eq(s.priority, "u=1, i");
            cr_assert_eq(p.done[0], sizeof rows / sizeof *rows);
            cr_assert_eq(p.done[1], sizeof rows / sizeof *rows);
            pair_stop(&p);
        }
}

Test(http_pair, many_at_once) {
    for (int v = 0; v < VERSIONS; v++) {
        pair p;
        service s;
        begin(&p, &s, versions[v], 3);
        pair_start(&p);
        pair_run(&p);
        call calls[100] = {{0}};
        cr_assert_geq(p.side[0]->vt->capacity(p.side[0]), 100);
        for (int i = 0; i < 100; i++)
            call_start(&p, &calls[i], NULL);
        pair_run(&p);
        for (int i = 0; i < 100; i++) {
            cr_assert_eq(calls[i].rc, CB_OK);
            cr_assert(cb_slice_eq(cb_buf_slice(&calls[i].body), "hello"));
            call_free(&calls[i]);
        }
        cr_assert_eq(s.heads, 100);
        pair_stop(&p);
    }
}

Test(http_pair, a_mebibyte_each_way_in_bounded_memory) {
    for (int v = 0; v < VERSIONS; v++) {
        pair p;
        service s;
        begin(&p, &s, versions[v], 5);
        for (int i = 0; i < 2; i++)
            p.limits[i].send_buffer_bytes = p.limits[i].stream_window_bytes = 65536;
        pair_start(&p);
        pair_run(&p);
        size_t rest = p.live;
        p.peak = p.live;
        call up = {.repeat = 1 << 20};
        call_start(&p, &up, &(call_head){.method = "POST", .path = "/"});
        pair_run(&p);
        cr_assert_eq(up.rc, CB_OK, "%s", up.reason);
        cr_assert_eq(s.got, 1 << 20);
        cr_assert_eq(s.wrong, 0);
        call down = {.count_only = true};
        call_start(&p, &down, &(call_head){.method = "GET", .path = "/big", .end = true});
        pair_run(&p);
        cr_assert_eq(down.rc, CB_OK, "%s", down.reason);
        cr_assert_eq(down.received, 1 << 20);
        cr_assert_eq(down.sum, 0);
        cr_assert_lt(p.peak - rest, 4 * 65536, "%zu bytes held", p.peak - rest);
        call_free(&up);
        call_free(&down);
        pair_stop(&p);
    }
}

Test(http_pair, a_stalled_reader_holds_one_window_and_nobody_else) {
    for (int v = 0; v < VERSIONS; v++) {
        pair p;
        service s;
        begin(&p, &s, versions[v], 9);
        for (int i = 0; i < 2; i++)
            p.limits[i].send_buffer_bytes = p.limits[i].stream_window_bytes = 65536;
        pair_start(&p);
        call slow = {.count_only = true, .stalled = true};
        call_start(&p, &slow, &(call_head){.method = "GET", .path = "/big", .end = true});
        pair_run(&p);
        cr_assert_eq(slow.heads, 1);
        cr_assert_eq(slow.received, 0);
        cr_assert_gt(s.left, 0, "the server could send everything to a reader that takes nothing");
        call other = {0};
        size_t left = s.left;
        call_start(&p, &other, NULL);
        pair_run(&p);
        cr_assert_eq(other.rc, CB_OK);
        cr_assert_eq(s.left, left);
        slow.stalled = false;
        cb_exchange_resume(slow.x);
        pair_run(&p);
        cr_assert_eq(slow.rc, CB_OK, "%s", slow.reason);
        cr_assert_eq(slow.received, 1 << 20);
        cr_assert_eq(slow.sum, 0);
        call_free(&slow);
        call_free(&other);
        pair_stop(&p);
    }
}

Test(http_pair, tunnels_echo_bytes_and_datagrams) {
    static const cb_field capsules[] = {{{(const uint8_t *)"capsule-protocol", 16}, {(const uint8_t *)"?1", 2}}};
    static const struct {
        call_head head;
        bool datagrams;
    } rows[] = {{{.method = "CONNECT"}, false},
                {{.method = "CONNECT", .protocol = "websocket", .path = "/chat"}, false},
                {{.method = "CONNECT", .protocol = "connect-udp", .path = "/x", .fields = capsules, .n = 1}, true},
                {{.method = "CONNECT", .protocol = "connect-udp", .path = "/x"}, true}};
    for (int v = 0; v < VERSIONS; v++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            pair p;
            service s;
            begin(&p, &s, versions[v], 21 + (uint32_t)i);
            pair_start(&p);
            call c = {.no_finish = true};
            call_start(&p, &c, &rows[i].head); /* before SETTINGS are there: it waits for them */
            pair_run(&p);
            cr_assert_eq(c.status, 200, "row %zu: %d, %s", i, c.status, c.reason);
            cr_assert_str_eq(s.protocol, rows[i].head.protocol ? rows[i].head.protocol : "");
            for (int n = 0; n < 20 && rows[i].datagrams; n++) {
                char text[24];
                snprintf(text, sizeof text, "gram %d", n);
                cr_assert_eq(cb_exchange_datagram_send(c.x, cb_slice_str(text)), CB_OK, "%s", cb_last_error());
                if (n % 3 == 0) pair_run(&p);
            }
            if (!rows[i].datagrams) {
                cr_assert_eq(cb_exchange_write(c.x, cb_slice_str("ping")), 4);
                pair_run(&p);
                cr_assert(cb_slice_eq(cb_buf_slice(&c.body), "ping"), "row %zu: no echo", i);
            }
            pair_pass(&p, 3600 * CB_SEC); /* a silent tunnel stays */
            cr_assert_eq(c.closes, 0);
            cr_assert_eq(cb_exchange_finish(c.x), CB_OK);
            pair_run(&p);
            cr_assert_eq(c.rc, CB_OK, "row %zu: %s", i, c.reason);
            cr_assert_eq(s.last_rc, CB_OK);
            if (rows[i].datagrams) {
                cr_assert_eq(c.body.len, 0, "row %zu: capsules came as bytes", i);
                cr_assert_eq(c.datagrams.len, 10 * 7 + 10 * 8, "row %zu: %zu bytes", i, c.datagrams.len);
                cr_assert(!memcmp(c.datagrams.base, "gram 0;gram 1;", 14));
            }
            call_free(&c);
            pair_stop(&p);
        }
}

Test(http_pair, resets_from_both_sides_in_every_phase) {
    for (int v = 0; v < VERSIONS; v++) {
        pair p;
        service s;
        begin(&p, &s, versions[v], 31);
        pair_start(&p);
        pair_run(&p);
        call c[8] = {{0}};
        unsigned closes = 0;

        /* the server, before and instead of an answer */
        call_start(&p, &c[0], &(call_head){.method = "GET", .path = "/reset", .end = true});
        pair_run(&p);
        cr_assert_eq(c[0].rc, CB_ECLOSED, "%d", c[0].rc);
        cr_assert_eq(s.closes, ++closes);
        call_start(&p, &c[1], &(call_head){.method = "GET", .path = "/fail", .end = true});
        pair_run(&p);
        cr_assert_lt(c[1].rc, 0);
        cr_assert_eq(s.last_rc, CB_EUSER, "%d", s.last_rc);
        cr_assert_eq(s.closes, ++closes);
        /* the server, not having looked at it: may be sent again */
        call_start(&p, &c[2], &(call_head){.method = "GET", .path = "/refuse", .end = true});
        pair_run(&p);
        cr_assert_eq(c[2].rc, CB_EAGAIN, "%d: %s", c[2].rc, c[2].reason);
        cr_assert_eq(s.closes, ++closes);
        /* the client, before anything went out */
        call_start(&p, &c[3], NULL);
        cb_exchange_reset(c[3].x, CB_RESET_CANCEL);
        pair_run(&p);
        cr_assert_eq(c[3].rc, CB_ECLOSED);
        cr_assert_eq(c[3].closes, 1);
        /* the client, while it uploads */
        closes = s.closes;
        call up = {.repeat = 1 << 20};
        call_start(&p, &up, &(call_head){.method = "POST", .path = "/hold"});
        for (int n = 0; n < 1000 && !s.held; n++)
            pair_step(&p);
        cr_assert(s.held);
        cb_exchange_reset(up.x, CB_RESET_CANCEL);
        pair_run(&p);
        cr_assert_eq(s.closes, closes + 1);
        cr_assert_lt(s.last_rc, 0);
        s.hold = false;
        /* the server, while the client uploads */
        call up2 = {.repeat = 1 << 20};
        call_start(&p, &up2, &(call_head){.method = "POST", .path = "/hold"});
        pair_run(&p);
        cr_assert(s.held);
        cb_exchange_reset(s.held, CB_RESET_CALM);
        pair_run(&p);
        cr_assert_eq(up2.closes, 1);
        cr_assert_lt(up2.rc, 0);
        s.hold = false;
        /* the client, while it downloads */
        call down = {.stalled = true};
        closes = s.closes;
        call_start(&p, &down, &(call_head){.method = "GET", .path = "/big", .end = true});
        pair_run(&p);
        cr_assert_eq(down.heads, 1);
        cb_exchange_reset(down.x, CB_RESET_CANCEL);
        pair_run(&p);
        cr_assert_eq(down.rc, CB_ECLOSED);
        cr_assert_eq(s.closes, closes + 1);
        cr_assert_lt(s.last_rc, 0);
        /* and the connection is as good as before: windows are whole again */
        for (int n = 0; n < 8; n++) {
            call big = {.count_only = true};
            call_start(&p, &big, &(call_head){.method = "GET", .path = "/big", .end = true});
            pair_run(&p);
            cr_assert_eq(big.rc, CB_OK, "%s", big.reason);
            call_free(&big);
        }
        for (int i = 0; i < 8; i++)
            call_free(&c[i]);
        call_free(&up);
        call_free(&up2);
        call_free(&down);
        cr_assert_eq(p.rc[0], 0);
        cr_assert_eq(p.rc[1], 0);
        pair_stop(&p);
    }
}

Test(http_pair, a_server_drains_with_streams_in_flight) {
    for (int v = 0; v < VERSIONS; v++) {
        pair p;
        service s;
        begin(&p, &s, versions[v], 41);
        pair_start(&p);
        pair_run(&p);
        call slow = {.stalled = true, .count_only = true};
        call_start(&p, &slow, &(call_head){.method = "GET", .path = "/big", .end = true});
        pair_run(&p);
        p.side[1]->vt->drain(p.side[1]);
        /* a request that crosses the first GOAWAY is served */
        call late = {0};
        call_start(&p, &late, NULL);
        pair_run(&p);
        cr_assert_eq(late.rc, CB_OK, "%s", late.reason);
        cr_assert_eq(p.side[0]->vt->capacity(p.side[0]), 0, "the client has seen no GOAWAY");
        call never = {0};
        cr_assert_eq(call_try(&p, &never, NULL), CB_EAGAIN);
        pair_pass(&p, CB_SEC);
        pair_pass(&p, CB_SEC);
        cr_assert_not(p.side[1]->vt->done(p.side[1]), "the server is done while it serves");
        cr_assert_not(p.side[0]->vt->done(p.side[0]));
        slow.stalled = false;
        cb_exchange_resume(slow.x);
        pair_run(&p);
        cr_assert_eq(slow.rc, CB_OK, "%s", slow.reason);
        cr_assert_eq(slow.received, 1 << 20);
        pair_pass(&p, 2 * CB_SEC);
        cr_assert(p.side[1]->vt->done(p.side[1]));
        cr_assert(p.side[0]->vt->done(p.side[0]));
        call_free(&slow);
        call_free(&late);
        call_free(&never);
        pair_stop(&p);
    }
}

Test(http_pair, a_client_drains) {
    for (int v = 0; v < VERSIONS; v++) {
        pair p;
        service s;
        begin(&p, &s, versions[v], 42);
        pair_start(&p);
        call c = {0};
        call_start(&p, &c, NULL);
        p.side[0]->vt->drain(p.side[0]);
        cr_assert_eq(p.side[0]->vt->capacity(p.side[0]), 0);
        cr_assert_not(p.side[0]->vt->done(p.side[0]));
        pair_run(&p);
        cr_assert_eq(c.rc, CB_OK);
        cr_assert(p.side[0]->vt->done(p.side[0]));
        call_free(&c);
        pair_stop(&p);
    }
}

Test(http_pair, the_last_request_of_a_connection) {
    for (int v = 0; v < VERSIONS; v++) {
        pair p;
        service s;
        begin(&p, &s, versions[v], 43);
        p.limits[1].max_requests = 3;
        pair_start(&p);
        pair_run(&p);
        for (int i = 0; i < 3; i++) {
            call c = {0};
            call_start(&p, &c, NULL);
            pair_run(&p);
            cr_assert_eq(c.rc, CB_OK);
            call_free(&c);
        }
        cr_assert_eq(p.side[0]->vt->capacity(p.side[0]), 0);
        pair_pass(&p, 2 * CB_SEC);
        pair_pass(&p, 2 * CB_SEC);
        cr_assert(p.side[0]->vt->done(p.side[0]));
        cr_assert(p.side[1]->vt->done(p.side[1]));
        pair_stop(&p);
    }
}

Test(http_pair, what_is_too_much_gets_its_status) {
    static char big[70000];
    memset(big, 'a', sizeof big - 1);
    static char path[9000];
    memset(path, 'a', sizeof path - 1);
    path[0] = '/';
    cb_field many[120];
    for (int i = 0; i < 120; i++)
        many[i] = (cb_field){cb_slice_str("x-y"), cb_slice_str("z")};
    const cb_field huge = {cb_slice_str("x-y"), cb_slice_str(big)};
    const cb_field long_body = {cb_slice_str("content-length"), cb_slice_str("200000")};
    const struct {
        call_head head;
        int status;
        const char *limit;
        size_t body;
    } rows[] = {
        {{.method = "GET", .fields = many, .n = 120, .end = true}, 431, "head bytes", 0},
        {{.method = "GET", .path = path, .end = true}, 414, "", 0},
        {{.method = "POST", .fields = &long_body, .n = 1}, 413, "body bytes", 200000},
        {{.method = "POST"}, 413, "body bytes", 200000},
        {{.method = "GET", .fields = &huge, .n = 1, .end = true}, 431, "head bytes", 0},
    };
    for (int v = 0; v < VERSIONS; v++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            pair p;
            service s;
            begin(&p, &s, versions[v], 51);
            p.limits[1].max_body_bytes = 100000;
            p.limits[1].max_continuations = 20;
            pair_start(&p);
            call c = {.repeat = rows[i].body};
            call_start(&p, &c, &rows[i].head);
            pair_run(&p);
            cr_assert_eq(c.status, rows[i].status, "version %d, row %zu: %d, %s", versions[v], i, c.status, c.reason);
            cr_assert_str_eq(p.limit[1], rows[i].limit);
            cr_assert_eq(c.ends, 1);
            if (c.x) cb_exchange_reset(c.x, CB_RESET_CANCEL); /* h3: the rest of the upload is of no use */
            call other = {0};
            call_start(&p, &other, NULL);
            pair_run(&p);
            cr_assert_eq(other.status, 200);
            call_free(&c);
            call_free(&other);
            pair_stop(&p);
        }
}

Test(http_pair, time_limits) {
    for (int v = 0; v < VERSIONS; v++) {
        pair p;
        service s;
        begin(&p, &s, versions[v], 61);
        pair_start(&p);
        pair_run(&p);
        /* no body comes */
        call c = {.source = cb_slice_str("the beginning"), .no_finish = true};
        call_start(&p, &c, &(call_head){.method = "POST"});
        pair_run(&p);
        pair_pass(&p, 29 * CB_SEC);
        cr_assert_eq(c.status, 0);
        cr_assert_eq(cb_exchange_write(c.x, cb_slice_str("more")), 4);
        pair_run(&p);
        pair_pass(&p, 29 * CB_SEC);
        cr_assert_eq(c.status, 0);
        pair_pass(&p, 2 * CB_SEC);
        cr_assert_eq(c.status, 408, "version %d: %d %s", versions[v], c.status, c.reason);
        cr_assert_str_eq(p.limit[1], "body timeout");
        if (c.x) cb_exchange_reset(c.x, CB_RESET_CANCEL);
        pair_run(&p);
        /* the user does not take it: no fault of the client */
        call held = {.source = cb_slice_str("x"), .no_finish = true};
        call_start(&p, &held, &(call_head){.method = "POST", .path = "/hold"});
        pair_run(&p);
        cr_assert(s.held);
        for (int i = 0; i < 10; i++)
            pair_pass(&p, 20 * CB_SEC);
        cr_assert_eq(held.closes, 0);
        cb_exchange_reset(held.x, CB_RESET_CANCEL);
        pair_run(&p);
        s.hold = false;
        /* the client does not take the response */
        call stuck = {.stalled = true};
        call_start(&p, &stuck, &(call_head){.method = "GET", .path = "/big", .end = true});
        pair_run(&p);
        pair_pass(&p, 31 * CB_SEC);
        cr_assert_eq(s.last_rc, CB_ETIMEOUT, "version %d: %d", versions[v], s.last_rc);
        cr_assert_str_eq(p.limit[1], "send timeout");
        cr_assert_lt(stuck.rc, 0);
        /* nothing happens at all */
        pair_run(&p);
        cr_assert_eq(p.side[1]->n_exchanges, 0);
        const unsigned rests = p.quic ? p.quic->side[1].rests : 0;
        pair_pass(&p, 4 * CB_SEC);
        if (p.quic) cr_assert_eq(p.quic->side[1].rests, rests);
        pair_pass(&p, 2 * CB_SEC);
        if (p.quic) cr_assert_eq(p.quic->side[1].rests, rests + 1);
        for (int i = 0; i < 5; i++)
            pair_pass(&p, 30 * CB_SEC);
        cr_assert(p.side[1]->vt->done(p.side[1]), "version %d: an idle connection stays", versions[v]);
        call_free(&c);
        call_free(&held);
        call_free(&stuck);
        pair_stop(&p);
    }
}

Test(http_pair, each_exchange_ends_once_when_the_connection_goes) {
    for (int v = 0; v < VERSIONS; v++)
        for (int steps = 0; steps < 40; steps++) {
            pair p;
            service s;
            begin(&p, &s, versions[v], 71 + (uint32_t)steps);
            pair_start(&p);
            call c[4] = {{.repeat = 100000}, {.count_only = true}, {0}, {.no_finish = true}};
            call_start(&p, &c[0], &(call_head){.method = "POST"});
            call_start(&p, &c[1], &(call_head){.method = "GET", .path = "/big", .end = true});
            call_start(&p, &c[2], NULL);
            call_start(&p, &c[3], &(call_head){.method = "CONNECT"});
            for (int i = 0; i < steps; i++)
                pair_step(&p);
            unsigned heads = s.heads;
            pair_stop(&p);
            for (int i = 0; i < 4; i++) {
                cr_assert_eq(c[i].closes, 1, "exchange %d has %d ends", i, c[i].closes);
                call_free(&c[i]);
            }
            cr_assert_eq(s.closes, heads);
        }
}

/* Memory runs out at each point once: something fails, everything ends once, nothing is left. Only with HTTP/3: when
 * its queue of streams cannot grow, nghttp2 1.52 frees a DATA item that the stream still points to. */
typedef struct plain {
    unsigned heads, closes;
} plain;
static int plain_head(cb_exchange *x, void *user) {
    (void)x;
    ((plain *)user)->heads++;
    return CB_OK;
}
static int plain_end(cb_exchange *x, void *user) {
    static const uint8_t big[50000];
    (void)user;
    const cb_field trailer = {cb_slice_str("x-trailer"), cb_slice_str("y")};
    if (!cb_slice_eq(cb_exchange_path(x), "/trailers"))
        return cb_exchange_send(x, 200, NULL, 0, (cb_slice){big, sizeof big});
    int rc = cb_exchange_reply(x, 200, NULL, 0);
    return rc < 0 ? rc : cb_exchange_finish_trailers(x, &trailer, 1);
}
static void plain_close(cb_exchange *x, int rc, void *user) {
    (void)x, (void)rc;
    ((plain *)user)->closes++;
}

Test(http_pair, memory_runs_out_at_every_point) {
    static const cb_exchange_ops ops = {
        .size = sizeof ops, .on_head = plain_head, .on_end = plain_end, .on_close = plain_close};
    for (unsigned at = 1;; at++) {
        pair p;
        plain s = {0};
        pair_init(&p, CB_HTTP_3);
        p.serve = &ops;
        p.serve_user = &s;
        p.seed = 5;
        pair_start(&p);
        p.fail_at = at;
        call c[3] = {{.count_only = true}, {.count_only = true}, {0}};
        static const call_head heads[3] = {{.method = "GET", .path = "/trailers", .end = true},
                                           {.method = "GET", .path = "/", .end = true},
                                           {.method = "HEAD", .path = "/", .end = true}};
        bool made[3];
        for (int i = 0; i < 3; i++)
            made[i] = !p.gone[0] && (call_try(&p, &c[i], &heads[i]) == CB_OK || c[i].closes);
        pair_run(&p);
        bool reached = p.failed;
        p.fail_at = 0;
        pair_stop(&p);
        for (int i = 0; i < 3; i++) {
            if (made[i]) cr_assert_eq(c[i].closes, 1, "exchange %d at %u: %d ends", i, at, c[i].closes);
            if (c[i].body.max) call_free(&c[i]);
        }
        cr_assert_eq(s.closes, s.heads, "at %u", at);
        if (!reached) {
            cr_assert_gt(at, 30, "only %u allocations", at);
            break;
        }
    }
}

#include "support/h1_peer.h"
#include <criterion/criterion.h>

static int on_head(cb_exchange *x, void *user) {
    h1_peer *p = user;
    h1_log(p, "head %d", cb_exchange_status(x));
    size_t n;
    const cb_field *f = cb_exchange_fields(x, &n);
    for (size_t i = 0; i < n; i++)
        h1_log(p, " %.*s=%.*s", (int)f[i].name.len, f[i].name.base, (int)f[i].value.len, f[i].value.base);
    h1_log(p, ";");
    if (x->tunnel) h1_log(p, "tunnel %.*s;", (int)x->protocol.len, x->protocol.base);
    return p->act == 1 ? CB_EINVAL : CB_OK;
}

static int on_info(cb_exchange *x, int status, void *user) {
    h1_peer *p = user;
    cb_slice link = cb_exchange_field(x, "link");
    h1_log(p, "info %d %.*s;", status, (int)link.len, link.base);
    return p->act == 2 ? CB_EINVAL : CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    h1_peer *p = user;
    p->body += data.len;
    return p->act == 3 ? CB_EINVAL : (int64_t)data.len;
}

static int on_end(cb_exchange *x, void *user) {
    h1_peer *p = user;
    size_t n;
    const cb_field *t = cb_exchange_trailers(x, &n);
    h1_log(p, "end");
    for (size_t i = 0; i < n; i++)
        h1_log(p, " %.*s=%.*s", (int)t[i].name.len, t[i].name.base, (int)t[i].value.len, t[i].value.base);
    h1_log(p, ";");
    return CB_OK;
}

static int on_writable(cb_exchange *x, void *user) {
    (void)x;
    h1_log(user, "writable;");
    return CB_OK;
}

static int on_datagram(cb_exchange *x, cb_slice payload, void *user) {
    (void)x;
    h1_log(user, "datagram %zu;", payload.len);
    return CB_OK;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    h1_peer *p = user;
    h1_log(p, "close %d;", rc);
    p->closed++;
    if (p->x == x) p->x = NULL;
}

static const cb_exchange_ops ops = {.size = sizeof ops,
                                    .on_head = on_head,
                                    .on_info = on_info,
                                    .on_body = on_body,
                                    .on_end = on_end,
                                    .on_writable = on_writable,
                                    .on_close = on_close};
static const cb_exchange_ops datagram_ops = {.size = sizeof ops,
                                             .on_head = on_head,
                                             .on_body = on_body,
                                             .on_end = on_end,
                                             .on_datagram = on_datagram,
                                             .on_close = on_close};

static const cb_hconn_owner_ops owner = {.wake = h1_on_wake};

static h1_peer *start(const cb_http_limits *l) {
    h1_peer *p = calloc(1, sizeof *p);
    if (l) p->limits = *l;
    h1_peer_open(p, false, &owner);
    return p;
}

static void stop(h1_peer *p) {
    h1_peer_close(p);
    cr_expect_eq(p->live, 0, "%zu pieces of memory are left", p->live);
    free(p);
}

static cb_slice str(const char *s) {
    return cb_slice_str(s);
}

/* `what`: "GET", "HEAD", "CONNECT", or "websocket" for an upgrade; body: the request's body follows. */
static int ask(h1_peer *p, const char *what, bool body, const cb_exchange_ops *o) {
    bool upgrade = what[0] >= 'a';
    const cb_head head = {.method = str(upgrade ? "CONNECT" : what),
                          .scheme = str("http"),
                          .authority = str("origin.example:8080"),
                          .path = strcmp(what, "CONNECT") == 0 ? str("") : str("/path?q"),
                          .protocol = upgrade ? str(what) : str(""),
                          .length = -1};
    int rc = cb_exchange_new(&p->x, NULL, &p->alloc, false, &p->limits);
    if (rc < 0) return rc;
    cb_exchange_handle(p->x, o, p);
    rc = p->h->vt->open(p->h, p->x);
    if (rc == CB_OK) rc = cb_exchange_send_request(p->x, &head, !body && !upgrade && what[0] != 'C');
    p->opened++;
    return rc == CB_OK ? p->h->vt->flush(p->h, 1) : rc;
}

typedef struct row {
    const char *name, *what, *in;
    int eof;         /* 1: the server closes after that */
    const char *log; /* up to the end of the connection */
    int rc;          /* of the connection */
    bool reuse;      /* another request may follow */
} row;

#define OK "HTTP/1.1 200 OK\r\n"

static const row rows[] = {
    {"length", "GET", OK "Content-Length: 5\r\n\r\nhello", 0, "head 200 content-length=5;body 5;end;close 0;", 0, true},
    {"no reason phrase", "GET", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 0,
     "head 200 content-length=0;end;close 0;", 0, true},
    {"chunked", "GET", OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: v\r\n\r\n", 0,
     "head 200;body 5;end t=v;close 0;", 0, true},
    {"until close", "GET", OK "\r\nhello", 1, "head 200;body 5;end;close 0;", 0, false},
    {"until close, nothing", "GET", OK "\r\n", 1, "head 200;end;close 0;", 0, false},
    {"1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", 0, "head 200 content-length=2;body 2;end;close 0;",
     0, false},
    {"1.0 keep-alive", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nab", 0,
     "head 200 content-length=2;body 2;end;close 0;", 0, true},
    {"close", "GET", OK "Connection: close\r\nContent-Length: 2\r\n\r\nab", 0,
     "head 200 content-length=2;body 2;end;close 0;", 0, false},
    {"HEAD", "HEAD", OK "Content-Length: 5\r\n\r\n", 0, "head 200 content-length=5;end;close 0;", 0, true},
    {"HEAD chunked", "HEAD", OK "Transfer-Encoding: chunked\r\n\r\n", 0, "head 200;end;close 0;", 0, true},
    {"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", 0, "head 204;end;close 0;", 0, true},
    {"304 with length", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 0,
     "head 304 content-length=9;end;close 0;", 0, true},
    {"interim", "GET",
     "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" OK "Content-Length: 1\r\n\r\na", 0,
     "info 103 </x>;info 100 ;head 200 content-length=1;body 1;end;close 0;", 0, true},
    {"upgrade", "websocket", "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw", 0,
     "head 101;tunnel websocket;body 3;close -4;", 0, false},
    {"upgrade, then the end", "websocket", "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw", 1,
     "head 101;tunnel websocket;body 3;end;close -4;", 0, false},
    {"upgrade refused", "websocket", "HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno", 0,
     "head 403 content-length=2;body 2;end;close -4;", 0, false},
    {"CONNECT", "CONNECT", OK "\r\nraw", 0, "head 200;tunnel ;body 3;close -4;", 0, false},
    {"CONNECT ignores lengths", "CONNECT", OK "Content-Length: 0\r\n\r\nraw", 0,
     "head 200 content-length=0;tunnel ;body 3;close -4;", 0, false},
    {"CONNECT refused", "CONNECT", "HTTP/1.1 407 X\r\nContent-Length: 0\r\n\r\n", 0,
     "head 407 content-length=0;end;close -4;", 0, false},
    {"hop-by-hop", "GET", OK "Connection: X-H\r\nX-H: 1\r\nKeep-Alive: 2\r\nUpgrade: h2\r\nContent-Length: 0\r\n\r\n",
     0, "head 200 content-length=0;end;close 0;", 0, true},

    {"cut in the head", "GET", "HTTP/1.1 200 O", 1, "close -4;", CB_ECLOSED, false},
    {"nothing", "GET", "", 1, "close -4;", CB_ECLOSED, false},
    {"cut in the body", "GET", OK "Content-Length: 5\r\n\r\nhel", 1, "head 200 content-length=5;body 3;close -4;",
     CB_ECLOSED, false},
    {"cut in a chunk", "GET", OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhel", 1, "head 200;body 3;close -4;",
     CB_ECLOSED, false},
    {"cut before the last chunk", "GET", OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", 1,
     "head 200;body 5;close -4;", CB_ECLOSED, false},
    {"only interim", "GET", "HTTP/1.1 100 Continue\r\n\r\n", 1, "info 100 ;close -4;", CB_ECLOSED, false},
    {"more than asked for", "GET", OK "Content-Length: 0\r\n\r\n" OK "Content-Length: 0\r\n\r\n", 0,
     "head 200 content-length=0;end;close 0;", CB_EPROTO, false},
    {"two lengths", "GET", OK "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 0, "close -6;", CB_EPROTO, false},
    {"both", "GET", OK "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "close -6;", CB_EPROTO,
     false},
    {"coding", "GET", OK "Transfer-Encoding: gzip\r\n\r\n", 0, "close -6;", CB_EPROTO, false},
    {"length in 204", "GET", "HTTP/1.1 204 X\r\nContent-Length: 3\r\n\r\n", 0, "close -6;", CB_EPROTO, false},
    {"coding in 204", "GET", "HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n", 0, "close -6;", CB_EPROTO, false},
    {"length in 103", "GET", "HTTP/1.1 103 X\r\nContent-Length: 3\r\n\r\n", 0, "close -6;", CB_EPROTO, false},
    {"101 that nobody asked for", "GET", "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n", 0,
     "close -6;", CB_EPROTO, false},
    {"101 without Upgrade", "websocket", "HTTP/1.1 101 X\r\nConnection: upgrade\r\n\r\n", 0, "close -6;", CB_EPROTO,
     false},
    {"status 099", "GET", "HTTP/1.1 099 X\r\n\r\n", 0, "close -6;", CB_EPROTO, false},
    {"status 1000", "GET", "HTTP/1.1 1000 X\r\n\r\n", 0, "close -6;", CB_EPROTO, false},
    {"status 700", "GET", "HTTP/1.1 700 X\r\n\r\n", 0, "close -6;", CB_EPROTO, false},
    {"version 2", "GET", "HTTP/2.0 200 X\r\n\r\n", 0, "close -6;", CB_EPROTO, false},
    {"not HTTP", "GET", "SSH-2.0-x\r\n", 0, "close -6;", CB_EPROTO, false},
    {"obs-fold", "GET", OK "A: b\r\n c\r\n\r\n", 0, "close -6;", CB_EPROTO, false},
    {"space before colon", "GET", OK "Content-Length : 0\r\n\r\n", 0, "close -6;", CB_EPROTO, false},
    {"bare LF", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", 0, "close -6;", CB_EPROTO, false},
    {"bad chunk", "GET", OK "Transfer-Encoding: chunked\r\n\r\nx\r\n", 0, "head 200;close -6;", CB_EPROTO, false},
};

Test(h1_client, table) {
    static const size_t steps[] = {0, 1, 3, SIZE_MAX - 1, SIZE_MAX - 2};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
            const row *r = &rows[i];
            h1_peer *p = start(NULL);
            cr_assert_eq(ask(p, r->what, false, &ops), CB_OK);
            h1_peer_feed(p, r->in, strlen(r->in), steps[k], 2);
            if (r->eof) h1_peer_eof(p, 3);
            cr_expect(p->rc == r->rc, "%s, step %zu: rc %d, not %d", r->name, steps[k], p->rc, r->rc);
            bool reuse = p->rc >= 0 && p->h->vt->capacity(p->h) == 1;
            cr_expect(reuse == r->reuse, "%s, step %zu: reuse %d", r->name, steps[k], reuse);
            if (reuse) {
                p->out_len = 0;
                cr_expect_eq(ask(p, "GET", false, &ops), CB_OK);
                cr_expect_eq(p->h->vt->capacity(p->h), 0);
                cr_expect(strncmp(p->out, "GET /path?q HTTP/1.1\r\n", 22) == 0, "%s", r->name);
                cb_exchange_abandon(p->x);
                cr_expect(p->h->vt->done(p->h), "%s", r->name);
            }
            h1_peer_close(p);
            cr_expect(strcmp(p->log, r->log) == 0, "%s, step %zu: %s", r->name, steps[k], p->log);
            stop(p);
        }
}

Test(h1_client, requests_as_they_go_out) {
    static const struct {
        const char *what;
        bool body;
        const char *out;
    } want[] = {
        {"GET", false, "GET /path?q HTTP/1.1\r\nhost: origin.example:8080\r\n\r\n"},
        {"POST", false, "POST /path?q HTTP/1.1\r\nhost: origin.example:8080\r\ncontent-length: 0\r\n\r\n"},
        {"POST", true, "POST /path?q HTTP/1.1\r\nhost: origin.example:8080\r\ntransfer-encoding: chunked\r\n\r\n"},
        {"CONNECT", false, "CONNECT origin.example:8080 HTTP/1.1\r\nhost: origin.example:8080\r\n\r\n"},
        {"websocket", false,
         "GET /path?q HTTP/1.1\r\nhost: origin.example:8080\r\nupgrade: websocket\r\nconnection: "
         "upgrade\r\n\r\n"}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        h1_peer *p = start(NULL);
        cr_assert_eq(ask(p, want[i].what, want[i].body, &ops), CB_OK);
        cr_expect(strcmp(p->out, want[i].out) == 0, "%s: %s", want[i].what, p->out);
        stop(p);
    }
    h1_peer *p = start(NULL);
    const cb_field f[] = {{str("Host"), str("other")}, {str("TE"), str("trailers")}, {str("Connection"), str("x")}};
    const cb_head head = {.method = str("GET"), .authority = str("a"), .path = str("/"), .fields = f, .n = 3};
    cr_assert_eq(cb_exchange_new(&p->x, NULL, &p->alloc, false, &p->limits), CB_OK);
    cr_assert_eq(p->h->vt->open(p->h, p->x), CB_OK);
    cr_assert_eq(cb_exchange_send_request(p->x, &head, true), CB_OK);
    cr_assert_str_eq(p->out, "GET / HTTP/1.1\r\nhost: a\r\nTE: trailers\r\nconnection: te\r\n\r\n");
    stop(p);
}

Test(h1_client, what_the_owner_noted_stays) {
    h1_peer *p = start(NULL);
    cr_assert_eq(ask(p, "GET", false, &ops), CB_OK);
    p->x->method = str("GET");
    p->x->protocol = str("noted");
    h1_peer_feed(p, OK "Content-Length: 1\r\n\r\n", 38, 0, 2);
    cr_assert(cb_slice_eq(cb_exchange_method(p->x), "GET"));
    cr_assert(cb_slice_eq(cb_exchange_protocol(p->x), "noted"));
    stop(p);
}

Test(h1_client, a_body_with_trailers) {
    h1_peer *p = start(NULL);
    cr_assert_eq(ask(p, "POST", true, &ops), CB_OK);
    p->out_len = 0;
    cr_assert_eq(cb_exchange_write(p->x, str("hello, origin")), 13);
    const cb_field t = {str("x-sum"), str("1")}, bad = {str("content-length"), str("1")};
    cr_assert_eq(cb_exchange_finish_trailers(p->x, &bad, 1), CB_EINVAL);
    cr_assert_eq(cb_exchange_finish_trailers(p->x, &t, 1), CB_OK);
    cr_assert_str_eq(p->out, "d\r\nhello, origin\r\n0\r\nx-sum: 1\r\n\r\n");
    h1_peer_feed(p, OK "Content-Length: 0\r\n\r\n", 38, 0, 2);
    cr_assert_str_eq(p->log, "head 200 content-length=0;end;close 0;");
    stop(p);
}

Test(h1_client, an_answer_before_the_request_is_over) {
    h1_peer *p = start(NULL);
    cr_assert_eq(ask(p, "POST", true, &ops), CB_OK);
    h1_peer_feed(p, "HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n", 37, 0, 2);
    cr_assert_str_eq(p->log, "head 413 content-length=0;end;");
    cr_assert_eq(p->h->vt->capacity(p->h), 0);
    cr_assert_eq(cb_exchange_finish(p->x), CB_OK);
    cr_assert_eq(p->closed, 1);
    cr_assert_eq(p->h->vt->capacity(p->h), 1);
    stop(p);
}

Test(h1_client, an_exchange_without_a_connection) {
    h1_peer *p = start(NULL);
    cr_assert_eq(cb_exchange_new(&p->x, NULL, &p->alloc, false, &p->limits), CB_OK);
    cb_exchange_handle(p->x, &ops, p);
    cr_assert_eq(cb_exchange_write(p->x, str("x")), CB_EAGAIN);
    cr_assert_eq(cb_exchange_room(p->x), 0);
    cr_assert_eq(p->h->vt->open(p->h, p->x), CB_OK);
    const cb_head head = {.method = str("PUT"), .authority = str("a"), .path = str("/"), .length = -1};
    cr_assert_eq(cb_exchange_send_request(p->x, &head, false), CB_OK);
    cr_assert_eq(p->h->vt->flush(p->h, 1), CB_OK);
    cr_assert_str_eq(p->log, "writable;");
    cb_exchange_reset(p->x, CB_RESET_CANCEL);
    cr_assert_str_eq(p->log, "writable;close -4;");

    cr_assert_eq(cb_exchange_new(&p->x, NULL, &p->alloc, false, &p->limits), CB_OK); /* it never gets one */
    cb_exchange_handle(p->x, &ops, p);
    cr_assert_eq(cb_exchange_finish(p->x), CB_OK);
    cr_assert_eq(cb_exchange_write(p->x, str("x")), CB_EINVAL);
    cb_exchange_reset(p->x, CB_RESET_CANCEL);
    cr_assert_str_eq(p->log, "writable;close -4;close -4;");
    stop(p);
}

Test(h1_client, callbacks_that_fail) {
    for (int act = 1; act <= 3; act++) {
        h1_peer *p = start(NULL);
        p->act = act;
        cr_assert_eq(ask(p, "GET", false, &ops), CB_OK);
        const char *in = "HTTP/1.1 103 X\r\n\r\n" OK "Content-Length: 5\r\n\r\nhello";
        h1_peer_feed(p, in, strlen(in), 0, 2);
        cr_expect_eq(p->rc, CB_EUSER, "act %d: %d", act, p->rc);
        stop(p);
    }
}

Test(h1_client, interim_responses_are_counted) {
    h1_peer *p = start(NULL);
    cr_assert_eq(ask(p, "GET", false, &ops), CB_OK);
    for (int i = 0; i < 64; i++)
        h1_peer_feed(p, "HTTP/1.1 103 X\r\n\r\n", 18, 0, 2);
    cr_assert_eq(p->rc, CB_OK);
    h1_peer_feed(p, "HTTP/1.1 103 X\r\n\r\n", 18, 0, 2);
    cr_assert_eq(p->rc, CB_EPROTO);
    stop(p);
}

Test(h1_client, limits_and_deadlines) {
    const cb_http_limits l = {.max_fields = 3, .body_timeout_ms = 100, .idle_timeout_ms = 200};
    h1_peer *p = start(&l);
    cr_assert_eq(ask(p, "GET", false, &ops), CB_OK);
    const char *many = OK "A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n";
    h1_peer_feed(p, many, strlen(many), 0, 2);
    cr_assert_eq(p->rc, CB_ELIMIT);
    stop(p);

    p = start(&l);
    cr_assert_eq(ask(p, "GET", false, &ops), CB_OK);
    cr_assert_eq(p->h->vt->deadline(p->h), CB_NEVER); /* how long a server thinks is its client's business */
    const char *half = OK "Content-Length: 5\r\n\r\nhe";
    h1_peer_feed(p, half, strlen(half), 0, 50 * CB_MS);
    cr_assert_eq(p->h->vt->deadline(p->h), 150 * CB_MS);
    cr_assert_eq(p->h->vt->expire(p->h, 150 * CB_MS), CB_ETIMEOUT);
    stop(p);

    p = start(&l);
    cr_assert_eq(p->h->vt->deadline(p->h), 200 * CB_MS);
    cr_assert_eq(p->h->vt->expire(p->h, 200 * CB_MS), CB_OK);
    cr_assert(p->h->vt->done(p->h));
    stop(p);
}

Test(h1_client, tunnels_carry_bytes_both_ways) {
    h1_peer *p = start(NULL);
    p->sink.shut = h1_sink_shut;
    cr_assert_eq(ask(p, "websocket", false, &ops), CB_OK);
    cr_assert_eq(cb_exchange_write(p->x, str("too early")), CB_EAGAIN);
    const char *up = "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    p->out_len = 0;
    h1_peer_feed(p, up, strlen(up), 0, 2);
    cr_assert_str_eq(p->log, "head 101;tunnel websocket;writable;");
    cr_assert_eq(cb_exchange_write(p->x, str("bytes")), 5);
    cr_assert_str_eq(p->out, "bytes");
    cr_assert_eq(cb_exchange_finish(p->x), CB_OK);
    cr_assert(p->shut);
    h1_peer_feed(p, "more", 4, 0, 3);
    cr_assert(!p->h->vt->done(p->h));
    h1_peer_eof(p, 4);
    cr_assert_str_eq(p->log, "head 101;tunnel websocket;writable;body 4;end;close 0;");
    cr_assert(p->h->vt->done(p->h));
    stop(p);
}

Test(h1_client, tunnels_of_capsules_carry_datagrams) {
    h1_peer *p = start(NULL);
    cr_assert_eq(ask(p, "connect-udp", false, &datagram_ops), CB_OK);
    cr_assert_eq(cb_exchange_datagram_send(p->x, str("x")), CB_EAGAIN);
    const char *up = "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n\r\n";
    h1_peer_feed(p, up, strlen(up), 0, 2);
    p->out_len = 0;
    cr_assert_eq(cb_exchange_datagram_send(p->x, str("hello")), CB_OK);
    cr_assert_eq(p->out_len, 7);
    cr_assert_eq(memcmp(p->out, "\x00\x05hello", 7), 0);
    static const uint8_t in[] = "\x00\x03"
                                "abc"
                                "\x29\x02"
                                "xy"
                                "\x00\x00"
                                "\x00\x40\x01"
                                "z";
    h1_peer_feed(p, in, sizeof in - 1, 1, 2);
    cr_assert_str_eq(p->log,
                     "head 101 capsule-protocol=?1;tunnel connect-udp;datagram 3;body 4;datagram 0;datagram 1;");
    p->room = 10;
    cr_assert_eq(cb_exchange_datagram_send(p->x, str("hello")), CB_EAGAIN);
    p->room = SIZE_MAX;
    static const uint8_t big[65536];
    cr_assert_eq(cb_exchange_datagram_send(p->x, (cb_slice){big, sizeof big}), CB_ELIMIT);
    stop(p);
}

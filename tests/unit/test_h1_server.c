#include "support/h1_peer.h"
#include <criterion/criterion.h>

/* A server whose paths say what it does. */

static cb_slice str(const char *s) {
    return cb_slice_str(s);
}

static bool path_is(cb_exchange *x, const char *p) {
    return cb_slice_eq(cb_exchange_path(x), p);
}

static int on_head(cb_exchange *x, void *user) {
    h1_peer *p = user;
    cb_slice m = cb_exchange_method(x), t = cb_exchange_path(x), a = cb_exchange_authority(x);
    h1_log(p, "head %.*s %.*s @%.*s", (int)m.len, m.base, (int)t.len, t.base, (int)a.len, a.base);
    size_t n;
    const cb_field *f = cb_exchange_fields(x, &n);
    for (size_t i = 0; i < n; i++)
        if (!cb_slice_eq(f[i].name, "host"))
            h1_log(p, " %.*s=%.*s", (int)f[i].name.len, f[i].name.base, (int)f[i].value.len, f[i].value.base);
    h1_log(p, ";");
    p->x = x;
    p->opened++;
    if (path_is(x, "/early")) return cb_exchange_send_text(x, 200, "early");
    if (path_is(x, "/echo")) return cb_exchange_reply(x, 200, NULL, 0);
    if (path_is(x, "/fail")) return CB_EINVAL;
    if (path_is(x, "/deny")) return cb_exchange_send_text(x, 403, "no");
    if (path_is(x, "/info")) {
        const cb_field link = {str("link"), str("</a.css>; rel=preload")};
        return cb_exchange_reply(x, 103, &link, 1);
    }
    if (path_is(x, "/ws") && cb_exchange_protocol(x).len) {
        h1_log(p, "upgrade %.*s;", (int)cb_exchange_protocol(x).len, cb_exchange_protocol(x).base);
        return cb_exchange_reply(x, 101, NULL, 0);
    }
    if (path_is(x, "/nows") && cb_exchange_protocol(x).len) return cb_exchange_send_text(x, 200, "plain");
    if (x->connect) return cb_exchange_reply(x, cb_slice_eq(a, "no.example:1") ? 403 : 200, NULL, 0);
    return CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    h1_peer *p = user;
    p->body += data.len;
    if (!path_is(x, "/echo") && !x->tunnel) return (int64_t)data.len;
    int64_t n = cb_exchange_write(x, data);
    cr_assert_eq(n, (int64_t)data.len);
    return n;
}

static int on_end(cb_exchange *x, void *user) {
    h1_peer *p = user;
    size_t n;
    const cb_field *t = cb_exchange_trailers(x, &n);
    h1_log(p, "end");
    for (size_t i = 0; i < n; i++)
        h1_log(p, " %.*s=%.*s", (int)t[i].name.len, t[i].name.base, (int)t[i].value.len, t[i].value.base);
    h1_log(p, ";");
    if (path_is(x, "/echo")) return cb_exchange_finish_trailers(x, t, n);
    if (path_is(x, "/204")) return cb_exchange_send(x, 204, NULL, 0, str(""));
    if (path_is(x, "/304")) return cb_exchange_send(x, 304, NULL, 0, str("never"));
    if (path_is(x, "/nothing")) return CB_OK;
    if (x->tunnel) return cb_exchange_finish(x);
    if (path_is(x, "/nows") || path_is(x, "/early") || path_is(x, "/deny") || x->head_out) return CB_OK;
    return cb_exchange_send_text(x, 200, "hello");
}

static void on_close(cb_exchange *x, int rc, void *user) {
    h1_peer *p = user;
    h1_log(p, "close %d;", rc);
    p->closed++;
    if (p->x == x) p->x = NULL;
}

static const cb_exchange_ops ops = {
    .size = sizeof ops, .on_head = on_head, .on_body = on_body, .on_end = on_end, .on_close = on_close};

static void exchange_new(cb_hconn *h, cb_exchange *x) {
    cb_exchange_handle(x, &ops, h->env.owner_user);
}

static void limit(cb_hconn *h, const char *what) {
    (void)what;
    ((h1_peer *)h->env.owner_user)->act++;
}

static const cb_hconn_owner_ops owner = {.exchange_new = exchange_new, .wake = h1_on_wake, .limit = limit};

typedef struct row {
    const char *name;
    const char *in;
    const char *out; /* statuses, in order: "200 200"; "-" is none */
    const char *log; /* NULL: not looked at; else it must be equal */
    bool open;       /* the connection stays open */
} row;

/* The statuses of all heads in the output. */
static void statuses(const char *out, char *to) {
    *to = '\0';
    for (const char *p = out; (p = strstr(p, "HTTP/1.1 ")); p += 9) {
        if (*to) strcat(to, " ");
        strncat(to, p + 9, 3);
    }
    if (!*to) strcpy(to, "-");
}

#define H "Host: a.example\r\n"
#define G "GET / HTTP/1.1\r\n"

static const row rows[] = {
    /* --- what must work --- */
    {"simple", G H "\r\n", "200", "head GET / @a.example;end;close 0;", true},
    {"fields", G H "X-One: 1\r\nx-two:  two words \t\r\nX-Three:\r\n\r\n", "200",
     "head GET / @a.example x-one=1 x-two=two words x-three=;end;close 0;", true},
    {"empty lines before", "\r\n\r\n" G H "\r\n", "200", "head GET / @a.example;end;close 0;", true},
    {"pipelined", G H "\r\nGET /early HTTP/1.1\r\n" H "\r\nGET /204 HTTP/1.1\r\n" H "\r\n", "200 200 204",
     "head GET / @a.example;end;close 0;head GET /early @a.example;end;close 0;head GET /204 @a.example;end;close 0;",
     true},
    {"close", G H "Connection: close\r\n\r\n", "200", "head GET / @a.example;end;close 0;", false},
    {"close hides what follows", G H "Connection: close\r\n\r\n" G H "\r\n", "200",
     "head GET / @a.example;end;close 0;", false},
    {"1.0", "GET / HTTP/1.0\r\n\r\n", "200", "head GET / @;end;close 0;", false},
    {"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200", "head GET / @;end;close 0;", true},
    {"1.0 unknown length", "POST /echo HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc", "200",
     "head POST /echo @ content-length=3;body 3;end;close 0;", false},
    {"content-length", "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\n12345" G H "\r\n", "200 200",
     "head POST / @a.example content-length=5;body 5;end;close 0;head GET / @a.example;end;close 0;", true},
    {"chunked and trailers",
     "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nX-T: "
     "v\r\n\r\n",
     "200", "head POST /echo @a.example;body 13;end x-t=v;close 0;", true},
    {"chunked, upper case coding", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", "200",
     "head POST / @a.example;end;close 0;", true},
    {"HEAD", "HEAD / HTTP/1.1\r\n" H "\r\n", "200", "head HEAD / @a.example;end;close 0;", true},
    {"304", "GET /304 HTTP/1.1\r\n" H "\r\n", "304", NULL, true},
    {"interim", "GET /info HTTP/1.1\r\n" H "\r\n", "103 200", NULL, true},
    {"interim to 1.0", "GET /info HTTP/1.0\r\n" H "\r\n", "200", NULL, false},
    {"absolute form", "GET http://A.Example/x?y HTTP/1.1\r\n" H "\r\n", "200", "head GET /x?y @A.Example;end;close 0;",
     true},
    {"absolute form, no path", "GET http://a.example?q HTTP/1.1\r\n" H "\r\n", "200",
     "head GET /?q @a.example;end;close 0;", true},
    {"absolute form, nothing", "GET http://a.example HTTP/1.1\r\n" H "\r\n", "200",
     "head GET / @a.example;end;close 0;", true},
    {"asterisk", "OPTIONS * HTTP/1.1\r\n" H "\r\n", "200", "head OPTIONS * @a.example;end;close 0;", true},
    {"hop-by-hop fields stay here",
     G H "Connection: keep-alive, X-Hop, TE\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers, deflate\r\nX: 2\r\n\r\n",
     "200", "head GET / @a.example te=trailers x=2;end;close 0;", true},
    {"Connection cannot remove what others need", G H "Connection: host, cookie\r\nCookie: a=b\r\n\r\n", "200",
     "head GET / @a.example cookie=a=b;end;close 0;", true},
    {"upgrade", "GET /ws HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw\r\nbytes", "101",
     "head GET /ws @a.example;upgrade websocket;body 10;", true},
    {"upgrade refused", "GET /nows HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n" G H "\r\n",
     "200 200", "head GET /nows @a.example;end;close 0;head GET / @a.example;end;close 0;", true},
    {"upgrade that nobody looks at", G H "Connection: Upgrade\r\nUpgrade: foo\r\n\r\n" G H "\r\n", "200 200",
     "head GET / @a.example;end;close 0;head GET / @a.example;end;close 0;", true},
    {"h2c upgrade is ignored", "GET /ws HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "200",
     "head GET /ws @a.example;end;close 0;", true},
    {"upgrade needs Connection", "GET /ws HTTP/1.1\r\n" H "Upgrade: websocket\r\n\r\n", "200",
     "head GET /ws @a.example;end;close 0;", true},
    {"upgrade with a body is none",
     "POST /ws HTTP/1.1\r\n" H "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nab", "200",
     "head POST /ws @a.example content-length=2;body 2;end;close 0;", true},
    {"CONNECT", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\nGET / not HTTP", "200",
     "head CONNECT  @a.example:443;body 14;", true},
    {"CONNECT refused", "CONNECT no.example:1 HTTP/1.1\r\nHost: no.example:1\r\n\r\n" G H "\r\n", "403", NULL, true},
    {"early answer to a body", "POST /early HTTP/1.1\r\n" H "Content-Length: 4\r\n\r\nabcd" G H "\r\n", "200 200",
     "head POST /early @a.example content-length=4;body 4;end;close 0;head GET / @a.example;end;close 0;", true},
    {"a failing callback", "GET /fail HTTP/1.1\r\n" H "\r\n" G H "\r\n", "500", "head GET /fail @a.example;close -14;",
     false},
    {"obs-text", G H "X: \xc3\xa9\r\n\r\n", "200", NULL, true},
    {"IPv6 host", G "Host: [2001:db8::1]:8080\r\n\r\n", "200", "head GET / @[2001:db8::1]:8080;end;close 0;", true},
    {"chunk size with leading zeros",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0003\r\nabc\r\n00\r\n\r\n", "200", NULL, true},

    /* --- framing that two parsers could read differently --- */
    {"two content-lengths", "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", "400", "",
     false},
    {"differing content-lengths", "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400", "",
     false},
    {"content-length list", "POST / HTTP/1.1\r\n" H "Content-Length: 1, 1\r\n\r\na", "400", "", false},
    {"content-length sign", "POST / HTTP/1.1\r\n" H "Content-Length: +1\r\n\r\na", "400", "", false},
    {"content-length negative", "POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\na", "400", "", false},
    {"content-length hex", "POST / HTTP/1.1\r\n" H "Content-Length: 0x1\r\n\r\na", "400", "", false},
    {"content-length empty", "POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n", "400", "", false},
    {"content-length inner space", "POST / HTTP/1.1\r\n" H "Content-Length: 1 1\r\n\r\na", "400", "", false},
    {"content-length overflow", "POST / HTTP/1.1\r\n" H "Content-Length: 99999999999999999999\r\n\r\na", "400", "",
     false},
    {"both", "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "",
     false},
    {"both, other order", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
     "400", "", false},
    {"coding unknown", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n", "501", "", false},
    {"codings", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400", "", false},
    {"chunked not last", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", "400", "", false},
    {"chunked twice", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "400", "", false},
    {"two codings fields",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "",
     false},
    {"coding with parameter", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", "501", "",
     false},
    {"xchunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501", "", false},
    {"quoted chunked", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "501", "", false},
    {"identity", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n", "501", "", false},
    {"coding in 1.0", "POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "", false},
    {"vertical tab in coding",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\x0b"
     "chunked\r\n\r\n0\r\n\r\n",
     "400", "", false},
    {"obs-fold", G H "X: a\r\n b\r\n\r\n", "400", "", false},
    {"obs-fold first", G " X: a\r\n" H "\r\n", "400", "", false},
    {"space before colon", G "Host : a.example\r\n\r\n", "400", "", false},
    {"space before colon in TE", "POST / HTTP/1.1\r\n" H "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "400", "",
     false},
    {"no colon", G H "nonsense\r\n\r\n", "400", "", false},
    {"empty name", G H ": x\r\n\r\n", "400", "", false},
    {"bad name", G H "X(Y): x\r\n\r\n", "400", "", false},
    {"name with 8 bit", G H "X\xe9: x\r\n\r\n", "400", "", false},
    {"bare LF in head", "GET / HTTP/1.1\nHost: a.example\n\n", "400", "", false},
    {"bare LF after a field", G "Host: a.example\nX: y\r\n\r\n", "400", "", false},
    {"bare LF at the end", G H "\n", "400", "", false},
    {"bare CR in a value", G H "X: a\rb\r\n\r\n", "400", "", false},
    {"CR CR LF", G H "X: a\r\r\n\r\n", "400", "", false},
    {"DEL in a value", G H "X: a\x7f\r\n\r\n", "400", "", false},
    {"control in a value", G H "X: a\x01\r\n\r\n", "400", "", false},
    {"bare LF in chunk size", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", "400",
     NULL, false},
    {"bare LF after a chunk", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", "400",
     NULL, false},
    {"chunk longer than said", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
     "400", NULL, false},
    {"chunk size not hex", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\ng\r\n", "400", NULL, false},
    {"chunk size empty", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n\r\nabc", "400", NULL, false},
    {"chunk size with 0x", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", "400",
     NULL, false},
    {"chunk size with a space", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n",
     "400", NULL, false},
    {"chunk size overflow",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n", "400", NULL,
     false},
    {"chunk size negative", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", "400",
     NULL, false},
    {"trailer framing", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\n",
     "400", NULL, false},
    {"trailer coding",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", "400", NULL,
     false},
    {"trailer host", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\nHost: b\r\n\r\n", "400", NULL,
     false},

    /* --- request lines --- */
    {"no Host", G "\r\n", "400", "", false},
    {"two Hosts", G H H "\r\n", "400", "", false},
    {"empty Host", G "Host:\r\n\r\n", "400", "", false},
    {"Host with userinfo", G "Host: me@a.example\r\n\r\n", "400", "", false},
    {"Host with a path", G "Host: a.example/x\r\n\r\n", "400", "", false},
    {"Host list", G "Host: a.example, b.example\r\n\r\n", "400", "", false},
    {"Host with a bad port", G "Host: a.example:99999\r\n\r\n", "400", "", false},
    {"Host with a space", G "Host: a example\r\n\r\n", "400", "", false},
    {"Host against the target", "GET http://b.example/ HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"userinfo in the target", "GET http://me@a.example/ HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"other scheme", "GET ftp://a.example/ HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"fragment", "GET /#x HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"asterisk for GET", "GET * HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"path without slash", "GET x HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"control in the target", "GET /\x01 HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"8 bit in the target", "GET /\xe9 HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"tab in the target", "GET /\tx HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"two spaces", "GET  / HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"space in the target", "GET / x HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"trailing space", "GET / HTTP/1.1 \r\n" H "\r\n", "400", "", false},
    {"HTTP/0.9", "GET /\r\n\r\n", "400", "", false},
    {"HTTP/1.2", "GET / HTTP/1.2\r\n" H "\r\n", "505", "", false},
    {"HTTP/2.0", "GET / HTTP/2.0\r\n" H "\r\n", "505", "", false},
    {"HTTP/3.0", "GET / HTTP/3.0\r\n" H "\r\n", "505", "", false},
    {"HTTP/1", "GET / HTTP/1\r\n" H "\r\n", "400", "", false},
    {"lower case http", "GET / http/1.1\r\n" H "\r\n", "400", "", false},
    {"another protocol", "GET / RTSP/1.0\r\n" H "\r\n", "400", "", false},
    {"unknown method", "BREW / HTTP/1.1\r\n" H "\r\n", "501", "", false},
    {"longer method", "GETS / HTTP/1.1\r\n" H "\r\n", "501", "", false},
    {"lower case method", "get / HTTP/1.1\r\n" H "\r\n", "501", "", false},
    {"bad method", "G@T / HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"TLS to a clear port", "\x16\x03\x01\x02", "400", "", false},
    {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400", "", false},
    {"CONNECT without a port", "CONNECT a.example HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"CONNECT with a path", "CONNECT /x HTTP/1.1\r\n" H "\r\n", "400", "", false},
    {"CONNECT with a body", "CONNECT a.example:1 HTTP/1.1\r\nHost: a.example:1\r\nContent-Length: 1\r\n\r\na", "400",
     "", false},
    {"unknown expectation", "POST / HTTP/1.1\r\n" H "Expect: more\r\nContent-Length: 1\r\n\r\na", "417", "", false},
};

static void run(h1_peer *p, const char *in, size_t len, size_t step) {
    h1_peer_open(p, true, &owner);
    p->sink.shut = h1_sink_shut;
    h1_peer_feed(p, in, len, step, 1);
}

Test(h1_server, table) {
    static const size_t steps[] = {0, 1, 2, 7, SIZE_MAX - 1, SIZE_MAX - 2, SIZE_MAX - 3};
    h1_peer *p = malloc(sizeof *p);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t k = 0; k < sizeof steps / sizeof *steps; k++) {
            const row *r = &rows[i];
            char got[256];
            memset(p, 0, sizeof *p);
            run(p, r->in, strlen(r->in), steps[k]);
            h1_flush_log(p);
            statuses(p->out, got);
            cr_expect(strcmp(got, r->out) == 0, "%s, step %zu: statuses %s, not %s", r->name, steps[k], got, r->out);
            cr_expect(!r->log || strcmp(p->log, r->log) == 0, "%s, step %zu: log %s", r->name, steps[k], p->log);
            bool done = p->rc < 0 || p->h->vt->done(p->h);
            cr_expect(done == !r->open, "%s, step %zu: %s", r->name, steps[k], done ? "closed" : "open");
            cr_expect(p->rc == CB_OK, "%s, step %zu: %d %s", r->name, steps[k], p->rc, cb_last_error());
            if (!r->open) cr_expect(strstr(p->out, "connection: close\r\n") != NULL, "%s: %s", r->name, p->out);
            h1_peer_close(p);
            cr_expect(p->live == 0, "%s: %zu pieces of memory are left", r->name, p->live);
            cr_expect(p->opened == p->closed, "%s: %d heads, %d closes", r->name, p->opened, p->closed);
        }
    }
    free(p);
}

/* A tunnel whose one direction ends before the other: TCP's half-close on HTTP/1.1, the end of a stream's side later.
 */
#include "support/http_fixture.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { MUCH = 2 << 20 };

/* One end. The one that is `first` ends its direction at once; the other answers that with MUCH bytes and its end. */
typedef struct side {
    bool server, first, sending;
    int ends, closes, rc;
    size_t sent, got;
    size_t got_after; /* bytes that came after this side had ended its own direction */
} side;

static int send_much(cb_exchange *x, side *s) {
    static uint8_t block[16384];
    while (s->sent < MUCH) {
        size_t left = MUCH - s->sent;
        int64_t n = cb_exchange_write(x, (cb_slice){block, left < sizeof block ? left : sizeof block});
        if (n == CB_EAGAIN) return CB_OK;
        cr_assert_gt(n, 0, "%s", cb_last_error());
        s->sent += (size_t)n;
    }
    s->sending = false;
    return cb_exchange_finish(x);
}

static int on_head(cb_exchange *x, void *user) {
    side *s = user;
    if (s->server) {
        const bool upgrade = cb_exchange_version(x) == CB_HTTP_1 && cb_exchange_protocol(x).len;
        int rc = cb_exchange_reply(x, upgrade ? 101 : 200, NULL, 0);
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    } else {
        cr_expect_lt(cb_exchange_status(x), 300);
    }
    return s->first ? cb_exchange_finish(x) : CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    side *s = user;
    (void)x;
    s->got += data.len;
    if (s->first) s->got_after += data.len;
    return (int64_t)data.len;
}

static int on_end(cb_exchange *x, void *user) {
    side *s = user;
    s->ends++;
    if (s->first) return CB_OK;
    s->sending = true;
    return send_much(x, s);
}

static int on_writable(cb_exchange *x, void *user) {
    side *s = user;
    return s->sending ? send_much(x, s) : CB_OK;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    side *s = user;
    (void)x;
    s->closes++;
    s->rc = rc;
}

static const cb_exchange_ops ops = {.size = sizeof ops,
                                    .on_head = on_head,
                                    .on_body = on_body,
                                    .on_end = on_end,
                                    .on_writable = on_writable,
                                    .on_close = on_close};

static void run(const http_way *way, bool server_first, const char *protocol) {
    http_world w;
    cb_exchange *x = NULL;
    char url[160];
    side server = {.server = true, .first = server_first}, client = {.first = !server_first};
    http_world_open(&w);
    cb_http_server_opts o = {
        .size = sizeof o, .listen = "127.0.0.1:0", .identity = way->tls ? w.me : NULL, .ops = &ops, .user = &server};
    cr_assert_eq(cb_http_server_new(&w.server, w.loop, &o), CB_OK, "%s", cb_last_error());
    snprintf(w.url, sizeof w.url, "%s://localhost%s", way->tls ? "https" : "http",
             strrchr(cb_http_server_address(w.server), ':'));
    http_client_make(&w, (cb_http_client_opts){.versions = way->version});
    cb_request req = {.size = sizeof req, .url = http_url(&w, "/", url), .method = "CONNECT", .protocol = protocol};
    cr_assert_eq(cb_http_request(&x, w.client, &req, &ops, &client), CB_OK, "%s", cb_last_error());
    http_run(&w, &client.closes);
    http_run(&w, &server.closes);
    const side *first = server_first ? &server : &client;
    const char *who = server_first ? "server" : "client";
    cr_expect_eq(first->got_after, MUCH, "%s, %s first: it got %zu bytes after its end", way->name, who,
                 first->got_after);
    cr_expect_eq(client.ends, 1, "%s, %s first", way->name, who);
    cr_expect_eq(server.ends, 1, "%s, %s first", way->name, who);
    cr_expect_eq(client.rc, CB_OK, "%s, %s first: the client's end is %d", way->name, who, client.rc);
    cr_expect_eq(server.rc, CB_OK, "%s, %s first: the server's end is %d", way->name, who, server.rc);
    http_world_close(&w);
}

Test(http_half_close, either_side_ends_first_and_still_receives) {
    for (int i = 0; i < HTTP_WAYS; i++)
        for (int server_first = 0; server_first < 2; server_first++) {
            run(&http_ways[i], server_first, NULL);
            run(&http_ways[i], server_first, "echo");
        }
}

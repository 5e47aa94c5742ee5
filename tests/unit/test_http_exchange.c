#include "base/error.h"
#include "base/mem.h"
#include "http/hconn.h"
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An exchange between a user that logs and framing that logs. The version of framing is the test's choice. */

typedef struct world {
    cb_hconn h; /* first */
    cb_hconn_vt vt;
    cb_http_limits limits;
    char log[4096];
    size_t room, taken;
    int64_t take;
    cb_exchange *x;
    int retries; /* on_retry says yes so often */
    int released;
    cb_exchange *kept; /* to be used again */
    bool inside;       /* a callback is running */
} world;

static void note(world *w, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    size_t at = strlen(w->log);
    vsnprintf(w->log + at, sizeof w->log - at, fmt, ap);
    va_end(ap);
}

static cb_slice str(const char *s) {
    return cb_slice_str(s);
}

/* ---- framing ---- */

static int v_send_head(cb_hconn *h, cb_exchange *x, const cb_head *head, bool end) {
    (void)x;
    if (head->status)
        note((world *)h, "HEAD %d%s;", head->status, end ? " end" : "");
    else
        note((world *)h, "HEAD %.*s%s;", (int)head->method.len, head->method.base, end ? " end" : "");
    return CB_OK;
}
static size_t v_room(const cb_hconn *h, const cb_exchange *x) {
    (void)x;
    return ((const world *)h)->room;
}
static int64_t v_send_body(cb_hconn *h, cb_exchange *x, cb_slice data, bool end) {
    (void)x;
    world *w = (world *)h;
    size_t n = data.len < w->room ? data.len : w->room;
    if (data.len && !n) return CB_EAGAIN;
    w->room -= n;
    note(w, "BODY %zu%s;", n, end && n == data.len ? " end" : "");
    return (int64_t)n;
}
static int v_send_trailers(cb_hconn *h, cb_exchange *x, const cb_field *f, size_t n) {
    (void)x, (void)f;
    note((world *)h, "TRAILERS %zu;", n);
    return CB_OK;
}
static void v_reset(cb_hconn *h, cb_exchange *x, int code) {
    (void)x;
    note((world *)h, "RESET %d;", code);
}
static void v_took(cb_hconn *h, cb_exchange *x, size_t n) {
    (void)x;
    ((world *)h)->taken += n;
}
static void v_detach(cb_hconn *h, cb_exchange *x) {
    (void)x;
    note((world *)h, "DETACH;");
}
static void o_new(cb_hconn *h, cb_exchange *x);
static void o_done(cb_hconn *h, cb_exchange *x) {
    (void)x;
    note((world *)h, "DONE;");
}
static cb_exchange *o_spare(cb_hconn *h);
static const cb_hconn_owner_ops owner = {.exchange_new = o_new, .exchange_done = o_done, .spare = o_spare};

/* ---- the user ---- */

static int on_head(cb_exchange *x, void *user) {
    note(user, "head %d;", cb_exchange_status(x));
    return CB_OK;
}
static int on_info(cb_exchange *x, int status, void *user) {
    (void)x;
    note(user, "info %d;", status);
    return CB_OK;
}
static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    world *w = user;
    int64_t n = w->take >= 0 && (size_t)w->take < data.len ? w->take : (int64_t)data.len;
    note(w, "body %lld of %zu;", (long long)n, data.len);
    return n ? n : CB_EAGAIN;
}
static int on_end(cb_exchange *x, void *user) {
    (void)x;
    note(user, "end;");
    return CB_OK;
}
static int on_writable(cb_exchange *x, void *user) {
    (void)x;
    note(user, "writable;");
    return CB_OK;
}
static void on_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    cr_expect(!((world *)user)->inside);
    note(user, "close %d;", rc);
}
static const cb_exchange_ops ops = {.size = sizeof ops,
                                    .on_head = on_head,
                                    .on_info = on_info,
                                    .on_body = on_body,
                                    .on_end = on_end,
                                    .on_writable = on_writable,
                                    .on_close = on_close};
static void o_new(cb_hconn *h, cb_exchange *x) {
    cb_exchange_handle(x, &ops, h);
}

static void keep(cb_exchange *x, void *user) {
    ((world *)user)->kept = x;
}

static cb_exchange *o_spare(cb_hconn *h) {
    world *w = (world *)(void *)h;
    cb_exchange *x = w->kept;
    w->kept = NULL;
    return x;
}

static world *make(int version, bool server) {
    world *w = calloc(1, sizeof *w);
    w->take = -1;
    w->room = 1000;
    cb_http_limits_fill(&w->limits, NULL);
    w->vt = (cb_hconn_vt){.version = version,
                          .send_head = v_send_head,
                          .room = v_room,
                          .send_body = v_send_body,
                          .send_trailers = v_send_trailers,
                          .reset = v_reset,
                          .took = v_took,
                          .detach = v_detach};
    const cb_hconn_env env = {.limits = &w->limits, .owner = &owner, .scheme = "https", .server = server};
    cb_hconn_init(&w->h, &w->vt, &env);
    if (server) {
        cr_assert_eq(cb_hconn_exchange(&w->h, &w->x), CB_OK);
    } else {
        cr_assert_eq(cb_exchange_new(&w->x, NULL, NULL, false, &w->limits), CB_OK);
        cb_exchange_handle(w->x, &ops, w);
    }
    return w;
}

static void stop(world *w) {
    cb_hconn_end_all(&w->h, CB_ECLOSED);
    cr_expect_eq(w->h.n_exchanges, 0);
    if (w->kept) cb_exchange_destroy(w->kept);
    free(w);
}

static int pseudo(world *w, const char *name, const char *value) {
    return cb_exchange_in_pseudo(w->x, str(name), str(value));
}

/* "name: value" pairs, NULL at the end; pseudo-header fields begin with a colon. */
static int head(world *w, const char *const *pairs, bool end) {
    for (; pairs[0]; pairs += 2) {
        int rc = pairs[0][0] == ':' ? pseudo(w, pairs[0], pairs[1])
                                    : cb_exchange_in_field(w->x, str(pairs[0]), str(pairs[1]));
        if (rc < 0) return rc;
    }
    return cb_exchange_in_head(w->x, end);
}

#define M ":method", "GET"
#define S ":scheme", "https"
#define A ":authority", "a.example"
#define P ":path", "/x"

Test(http_exchange, request_heads_of_http2_and_3) {
    static const struct {
        const char *pairs[16];
        int rc, status;
    } rows[] = {{{M, S, A, P}, CB_OK, 0},
                {{M, S, A, P, "host", "a.example"}, CB_OK, 0},
                {{M, S, P, "host", "a.example"}, CB_OK, 0},
                {{M, S, A, P, "te", "trailers"}, CB_OK, 0},
                {{":method", "CONNECT", ":authority", "a:443"}, CB_OK, 0},
                {{":method", "CONNECT", ":protocol", "websocket", S, A, P}, CB_OK, 0},
                {{":method", "OPTIONS", S, A, ":path", "*"}, CB_OK, 0},
                {{S, A, P}, CB_EPROTO, 400},
                {{M, A, P}, CB_EPROTO, 400},
                {{M, S, A}, CB_EPROTO, 400},
                {{M, S, P}, CB_EPROTO, 400},
                {{M, M, S, A, P}, CB_EPROTO, 400},
                {{M, S, A, P, P}, CB_EPROTO, 400},
                {{M, S, A, P, ":status", "200"}, CB_EPROTO, 400},
                {{M, S, A, P, ":other", "x"}, CB_EPROTO, 400},
                {{M, S, A, ":path", ""}, CB_EPROTO, 400},
                {{M, S, A, ":path", "x"}, CB_EPROTO, 400},
                {{M, S, A, ":path", "*"}, CB_EPROTO, 400},
                {{M, S, A, ":path", "/a b"}, CB_EPROTO, 400},
                {{M, S, A, ":path", "/a#b"}, CB_EPROTO, 400},
                {{M, S, ":authority", "me@a", P}, CB_EPROTO, 400},
                {{M, ":scheme", "ht tp", A, P}, CB_EPROTO, 400},
                {{":method", "G T", S, A, P}, CB_EPROTO, 400},
                {{M, S, A, P, "host", "b.example"}, CB_EPROTO, 400},
                {{M, S, A, P, "host", "a.example", "host", "a.example"}, CB_EPROTO, 400},
                {{":method", "CONNECT", S, A, P}, CB_EPROTO, 400},
                {{":method", "CONNECT"}, CB_EPROTO, 400},
                {{M, ":protocol", "websocket", S, A, P}, CB_EPROTO, 400},
                {{M, S, A, P, "Upper", "x"}, CB_EPROTO, 400},
                {{M, S, A, P, "bad name", "x"}, CB_EPROTO, 400},
                {{M, S, A, P, "x", "a\r\nb"}, CB_EPROTO, 400},
                {{M, S, A, P, "x", " a"}, CB_EPROTO, 400},
                {{M, S, A, P, "connection", "close"}, CB_EPROTO, 400},
                {{M, S, A, P, "transfer-encoding", "chunked"}, CB_EPROTO, 400},
                {{M, S, A, P, "keep-alive", "1"}, CB_EPROTO, 400},
                {{M, S, A, P, "proxy-connection", "x"}, CB_EPROTO, 400},
                {{M, S, A, P, "upgrade", "x"}, CB_EPROTO, 400},
                {{M, S, A, P, "te", "gzip"}, CB_EPROTO, 400},
                {{M, S, A, P, "content-length", "x"}, CB_EPROTO, 400},
                {{M, S, A, P, "content-length", "1", "content-length", "2"}, CB_EPROTO, 400},
                {{M, S, A, P, "content-length", "5"}, CB_EPROTO, 400}}; /* and the stream ends */
    for (int version = CB_HTTP_2; version <= CB_HTTP_3; version++)
        for (size_t i = 0; version != 3 && i < sizeof rows / sizeof *rows; i++) {
            world *w = make(version, true);
            int rc = head(w, rows[i].pairs, true);
            cr_expect(rc == rows[i].rc, "row %zu: %d %s", i, rc, cb_last_error());
            if (rc < 0) {
                cr_expect(w->x->fail_status == rows[i].status, "row %zu: %d", i, w->x->fail_status);
                cr_expect(strcmp(w->log, "") == 0, "row %zu: the user saw %s", i, w->log);
                cb_exchange_abort(w->x, rc);
                cr_expect(strcmp(w->log, "RESET 3;DETACH;") == 0, "row %zu: %s", i, w->log);
            } else {
                cr_expect(strcmp(w->log, "head 0;end;") == 0, "row %zu: %s", i, w->log);
            }
            stop(w);
        }
}

Test(http_exchange, response_heads) {
    static const struct {
        const char *pairs[10];
        bool end;
        int rc;
        const char *log;
    } rows[] = {{{":status", "200"}, true, CB_OK, "head 200;end;"},
                {{":status", "103", "link", "x"}, false, CB_OK, "info 103;"},
                {{":status", "103"}, true, CB_EPROTO, ""},
                {{":status", "101"}, false, CB_EPROTO, ""},
                {{":status", "20"}, false, CB_EPROTO, ""},
                {{":status", "2x0"}, false, CB_EPROTO, ""},
                {{":status", "099"}, false, CB_EPROTO, ""},
                {{"a", "b"}, false, CB_EPROTO, ""},
                {{":status", "200", ":status", "200"}, false, CB_EPROTO, ""},
                {{":status", "200", ":path", "/"}, false, CB_EPROTO, ""},
                {{":status", "204", "content-length", "1"}, false, CB_EPROTO, ""},
                {{":status", "200", "content-length", "1"}, true, CB_EPROTO, ""},
                {{":status", "304", "content-length", "1"}, true, CB_OK, "head 304;end;"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        world *w = make(CB_HTTP_2, false);
        cb_exchange_attach(w->x, &w->h);
        int rc = head(w, rows[i].pairs, rows[i].end);
        cr_expect(rc == rows[i].rc, "row %zu: %d", i, rc);
        cr_expect(strcmp(w->log, rows[i].log) == 0, "row %zu: %s", i, w->log);
        stop(w);
    }
}

static const char *const get[] = {M, S, A, P, NULL};
static const char *const post[] = {":method", "POST", S, A, P, "content-length", "10", NULL};

Test(http_exchange, the_end_waits_for_what_is_held) {
    world *w = make(CB_HTTP_2, true);
    w->take = 4;
    cr_assert_eq(head(w, post, false), CB_OK);
    cr_assert_eq(cb_exchange_in_body(w->x, str("0123456789")), CB_OK);
    cr_assert_eq(cb_exchange_in_end(w->x), CB_OK);
    cr_assert_eq(cb_exchange_send_text(w->x, 200, "ok"), CB_OK);
    cb_exchange_closed(w->x, CB_OK);
    cr_assert_str_eq(w->log, "head 0;body 4 of 10;HEAD 200;BODY 2 end;");
    cr_assert_eq(w->taken, 4);
    cb_exchange_resume(w->x);
    w->take = -1;
    cb_exchange_resume(w->x);
    cr_assert_str_eq(w->log,
                     "head 0;body 4 of 10;HEAD 200;BODY 2 end;body 4 of 6;body 2 of 2;end;close 0;DETACH;DONE;");
    cr_assert_eq(w->taken, 10);
    stop(w);
}

Test(http_exchange, a_complete_message_outlives_its_connection) {
    for (int reset = 0; reset < 2; reset++) {
        world *w = make(CB_HTTP_1, false);
        cb_exchange *x = w->x;
        const char *const ok[] = {":status", "200", NULL};
        cb_exchange_attach(x, &w->h);
        w->take = 0;
        cr_assert_eq(head(w, ok, false), CB_OK);
        cr_assert_eq(cb_exchange_in_body(x, str("rest")), CB_OK);
        cr_assert_eq(cb_exchange_in_end(x), CB_OK);
        cb_exchange_closed(x, CB_OK);
        cb_hconn_end_all(&w->h, CB_ECLOSED);
        cr_assert_str_eq(w->log, "head 200;body 0 of 4;DETACH;");
        cr_assert_eq(w->h.n_exchanges, 0);
        cr_assert(cb_slice_eq(cb_exchange_field(x, "none"), ""));
        w->take = -1;
        if (reset)
            cb_exchange_reset(x, CB_RESET_CANCEL);
        else
            cb_exchange_resume(x);
        cr_assert_str_eq(w->log, reset ? "head 200;body 0 of 4;DETACH;close -4;"
                                       : "head 200;body 0 of 4;DETACH;body 4 of 4;end;close 0;");
        stop(w);
    }
}

Test(http_exchange, a_connection_that_dies_drops_what_is_incomplete) {
    world *w = make(CB_HTTP_2, true);
    w->take = 4;
    cr_assert_eq(head(w, post, false), CB_OK);
    cr_assert_eq(cb_exchange_in_body(w->x, str("01234567")), CB_OK);
    cb_hconn_end_all(&w->h, CB_ETIMEOUT);
    cr_assert_str_eq(w->log, "head 0;body 4 of 8;close -5;DETACH;DONE;");
    stop(w);
}

Test(http_exchange, lengths_are_enforced) {
    static const struct {
        const char *pieces[4];
        bool end;
        int rc;
    } rows[] = {{{"0123456789"}, true, CB_OK},        {{"01234", "56789"}, true, CB_OK},
                {{"012345678901"}, false, CB_EPROTO}, {{"012345", "67890"}, false, CB_EPROTO},
                {{"012345"}, true, CB_EPROTO},        {{NULL}, true, CB_EPROTO}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        world *w = make(CB_HTTP_2, true);
        int rc = head(w, post, false);
        for (size_t k = 0; rc == CB_OK && rows[i].pieces[k]; k++)
            rc = cb_exchange_in_body(w->x, str(rows[i].pieces[k]));
        if (rc == CB_OK && rows[i].end) rc = cb_exchange_in_end(w->x);
        cr_expect(rc == rows[i].rc, "row %zu: %d", i, rc);
        stop(w);
    }
    world *w = make(CB_HTTP_2, true);
    w->x->held_max = 5;
    w->take = 0;
    cr_assert_eq(head(w, post, false), CB_OK);
    cr_assert_eq(cb_exchange_in_body(w->x, str("01234")), CB_OK);
    cr_assert_eq(cb_exchange_in_body(w->x, str("5")), CB_ELIMIT);
    stop(w);
}

Test(http_exchange, trailers) {
    static const struct {
        const char *name, *value;
        int rc;
    } rows[] = {{"x-sum", "1", CB_OK},     {"grpc-status", "0", CB_OK}, {"content-length", "1", CB_EPROTO},
                {"host", "a", CB_EPROTO},  {"te", "x", CB_EPROTO},      {"connection", "x", CB_EPROTO},
                {"Upper", "x", CB_EPROTO}, {":path", "x", CB_EPROTO}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        world *w = make(CB_HTTP_2, true);
        size_t n;
        cr_assert_eq(head(w, get, false), CB_OK);
        int rc = cb_exchange_in_trailer(w->x, str(rows[i].name), str(rows[i].value));
        cr_expect(rc == rows[i].rc, "row %zu: %d", i, rc);
        if (rc == CB_OK) {
            cb_exchange_trailers(w->x, &n);
            cr_expect_eq(n, 0);
            cr_assert_eq(cb_exchange_in_end(w->x), CB_OK);
            const cb_field *t = cb_exchange_trailers(w->x, &n);
            cr_assert_eq(n, 1);
            cr_expect(cb_slice_eq(t[0].name, rows[i].name) && cb_slice_eq(t[0].value, rows[i].value));
        }
        stop(w);
    }
}

static bool retry(cb_exchange *x, int rc, void *user) {
    world *w = user;
    note(w, "retry %d?;", rc);
    cr_expect(!x->conn && !x->head_out && !x->end_out);
    return w->retries-- > 0;
}

static void released(cb_exchange *x, void *user) {
    (void)x;
    note(user, "released;");
}

Test(http_exchange, the_pool_may_take_it_back) {
    world *w = make(CB_HTTP_2, false);
    const cb_head h = {.method = str("GET"), .authority = str("a"), .path = str("/"), .length = -1};
    w->x->on_retry = retry;
    w->x->on_release = released;
    w->x->release_user = w;
    w->retries = 1;
    cb_exchange_attach(w->x, &w->h);
    cr_assert_eq(cb_exchange_send_request(w->x, &h, true), CB_OK);
    cb_exchange_closed(w->x, CB_ECLOSED);
    cr_assert_eq(w->h.n_exchanges, 0);
    cb_exchange_attach(w->x, &w->h);
    cr_assert_eq(cb_exchange_send_request(w->x, &h, true), CB_OK);
    cb_exchange_closed(w->x, CB_ETIMEOUT);
    cr_assert_str_eq(w->log, "HEAD GET end;DETACH;retry -4?;HEAD GET end;DETACH;retry -5?;close -5;released;");
    stop(w);

    w = make(CB_HTTP_2, false); /* not when the user gives up */
    w->x->on_retry = retry;
    w->x->release_user = w;
    w->retries = 1;
    cb_exchange_attach(w->x, &w->h);
    cr_assert_eq(cb_exchange_send_request(w->x, &h, true), CB_OK);
    cb_exchange_reset(w->x, CB_RESET_CANCEL);
    cr_assert_str_eq(w->log, "HEAD GET end;RESET 0;close -4;DETACH;DONE;");
    stop(w);
}

Test(http_exchange, writing_follows_the_room) {
    world *w = make(CB_HTTP_2, true);
    w->room = 5;
    cr_assert_eq(head(w, get, true), CB_OK);
    cr_assert_eq(cb_exchange_reply(w->x, 200, NULL, 0), CB_OK);
    cr_assert_eq(cb_exchange_room(w->x), 5);
    cr_assert_eq(cb_exchange_write(w->x, str("01234567")), 5);
    cr_assert(cb_exchange_out_wanted(w->x));
    cr_assert_eq(cb_exchange_write(w->x, str("567")), CB_EAGAIN);
    w->room = 100;
    cb_exchange_out_writable(w->x);
    cr_assert(!cb_exchange_out_wanted(w->x));
    cr_assert_eq(cb_exchange_write(w->x, str("567")), 3);
    cr_assert_eq(cb_exchange_finish(w->x), CB_OK);
    cr_assert_eq(cb_exchange_finish(w->x), CB_EINVAL);
    cr_assert_eq(cb_exchange_write(w->x, str("x")), CB_EINVAL);
    cr_assert_str_eq(w->log, "head 0;end;HEAD 200;BODY 5;writable;BODY 3;BODY 0 end;");
    stop(w);

    w = make(CB_HTTP_2, true); /* a whole response larger than the room is kept */
    w->room = 3;
    cr_assert_eq(head(w, get, true), CB_OK);
    cr_assert_eq(cb_exchange_send(w->x, 200, NULL, 0, str("0123456789")), CB_OK);
    w->room = 3;
    cb_exchange_out_writable(w->x);
    w->room = 30;
    cb_exchange_out_writable(w->x);
    cr_assert(!cb_exchange_out_wanted(w->x));
    cr_assert_str_eq(w->log, "head 0;end;HEAD 200;BODY 3;BODY 3;BODY 4 end;");
    stop(w);
}

Test(http_exchange, a_refused_request_gets_a_status) {
    world *w = make(CB_HTTP_2, true);
    cb_exchange_fail_status(w->x, 431); /* never seen: only framing knows */
    cr_assert_str_eq(w->log, "HEAD 431 end;");
    cb_exchange_closed(w->x, CB_OK);
    cr_assert_str_eq(w->log, "HEAD 431 end;DETACH;");
    stop(w);

    w = make(CB_HTTP_2, true); /* seen: the user learns why */
    cr_assert_eq(head(w, post, false), CB_OK);
    cb_exchange_fail_status(w->x, 408);
    cr_assert_eq(cb_exchange_in_body(w->x, str("late")), CB_OK);
    cb_exchange_closed(w->x, CB_OK);
    cr_assert_str_eq(w->log, "head 0;HEAD 408 end;close -5;DETACH;DONE;");
    stop(w);

    w = make(CB_HTTP_2, true); /* too late for a status */
    cr_assert_eq(head(w, post, false), CB_OK);
    cr_assert_eq(cb_exchange_reply(w->x, 200, NULL, 0), CB_OK);
    cb_exchange_fail_status(w->x, 413);
    cr_assert_str_eq(w->log, "head 0;HEAD 200;RESET 4;close -11;DETACH;DONE;");
    stop(w);
}

Test(http_exchange, abandoning_is_silent) {
    world *w = make(CB_HTTP_2, true);
    cr_assert_eq(head(w, post, false), CB_OK);
    cb_exchange_abandon(w->x);
    cr_assert_str_eq(w->log, "head 0;RESET 0;DETACH;DONE;");
    stop(w);

    w = make(CB_HTTP_2, true); /* complete on both sides: framing finishes it */
    w->take = 0;
    cr_assert_eq(head(w, post, false), CB_OK);
    cr_assert_eq(cb_exchange_in_body(w->x, str("0123456789")), CB_OK);
    cr_assert_eq(cb_exchange_in_end(w->x), CB_OK);
    cr_assert_eq(cb_exchange_send_text(w->x, 200, "ok"), CB_OK);
    cb_exchange_abandon(w->x);
    cr_assert_eq(w->taken, 10);
    cb_exchange_closed(w->x, CB_OK);
    cr_assert_str_eq(w->log, "head 0;body 0 of 10;HEAD 200;BODY 2 end;DETACH;DONE;");
    stop(w);
}

Test(http_exchange, exchanges_are_used_again) {
    world *w = make(CB_HTTP_2, true);
    cb_exchange *first = w->x;
    first->on_keep = keep;
    first->keep_user = w;
    cr_assert_eq(head(w, get, true), CB_OK);
    cr_assert_eq(cb_exchange_send_text(w->x, 200, "ok"), CB_OK);
    cb_exchange_closed(w->x, CB_OK);
    cr_assert_eq(cb_hconn_exchange(&w->h, &w->x), CB_OK);
    cr_assert_eq(w->x, first);
    cr_assert_eq(w->h.n_served, 1);
    cr_assert_eq(head(w, post, false), CB_OK);
    cr_assert(cb_slice_eq(cb_exchange_method(w->x), "POST"));
    cr_assert_eq(cb_exchange_length(w->x), 10);
    stop(w);
}

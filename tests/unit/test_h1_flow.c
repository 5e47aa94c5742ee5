#include "support/h1_peer.h"
#include <criterion/criterion.h>

/* How HTTP/1.1 exchanges behave in time: backpressure, limits, deadlines, callbacks that end what they are called for.
 */

enum { AT_HEAD = 1, AT_BODY, AT_END, AT_WRITABLE };
enum { DO_RESET = 1, DO_ABANDON, DO_FAIL, DO_SEND, DO_RESET_TWICE };

typedef struct plan {
    int at, what;   /* one callback does one thing */
    int64_t take;   /* on_body: bytes taken at most at a time; -1: all */
    bool resume_in; /* on_body resumes by itself */
    size_t answer;  /* on_end: a body of so many bytes, streamed; 0: "hello" */
    size_t written;
    bool silent; /* no answer by itself */
    bool whole;  /* answer by cb_exchange_send() */
    bool polite; /* after a write that took less than it was given it waits, as it may, without asking once more */
    int limits;
    char limit[64];
    h1_peer *p;
    int closes;
    bool abandoned;
    cb_exchange *kept; /* to be used again */
} plan;

static const uint8_t filler[1 << 17] = {'f', 'i', 'l', 'l'};

static int do_it(cb_exchange *x, plan *t) {
    switch (t->what) {
    case DO_RESET:
        cb_exchange_reset(x, CB_RESET_CANCEL);
        return CB_OK;
    case DO_RESET_TWICE:
        cb_exchange_reset(x, CB_RESET_CANCEL);
        cb_exchange_reset(x, CB_RESET_INTERNAL);
        cr_expect_eq(cb_exchange_write(x, cb_slice_str("x")), CB_ECLOSED);
        cr_expect_eq(cb_exchange_finish(x), CB_ECLOSED);
        cr_expect_eq(cb_exchange_room(x), 0);
        return CB_OK;
    case DO_ABANDON:
        t->abandoned = true;
        cb_exchange_abandon(x);
        return CB_OK;
    case DO_FAIL:
        return CB_EINVAL;
    default:
        return x->head_out ? CB_OK : cb_exchange_send_text(x, 200, "now");
    }
}

static int stream(cb_exchange *x, plan *t) {
    while (t->written < t->answer) {
        size_t n = t->answer - t->written < 5000 ? t->answer - t->written : 5000;
        int64_t took = cb_exchange_write(x, (cb_slice){filler, n});
        if (took == CB_EAGAIN) return CB_OK;
        if (took < 0) return (int)took;
        t->written += (size_t)took;
        if (t->polite && (size_t)took < n) return CB_OK;
    }
    return cb_exchange_finish(x);
}

static int on_head(cb_exchange *x, void *user) {
    plan *t = user;
    t->p->x = x;
    t->p->opened++;
    return t->at == AT_HEAD ? do_it(x, t) : CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    plan *t = user;
    if (t->at == AT_BODY) {
        int rc = do_it(x, t);
        if (rc < 0) return rc;
    }
    size_t n = t->take >= 0 && (size_t)t->take < data.len ? (size_t)t->take : data.len;
    t->p->body += n;
    if (t->resume_in) cb_exchange_resume(x);
    return (int64_t)n;
}

static int on_end(cb_exchange *x, void *user) {
    plan *t = user;
    h1_log(t->p, "end;");
    if (t->at == AT_END) return do_it(x, t);
    if (t->silent || x->head_out) return CB_OK;
    if (t->answer && t->whole) return cb_exchange_send(x, 200, NULL, 0, (cb_slice){filler, t->answer});
    if (!t->answer) return cb_exchange_send_text(x, 200, "hello");
    int rc = cb_exchange_reply(x, 200, NULL, 0);
    return rc < 0 ? rc : stream(x, t);
}

static int on_writable(cb_exchange *x, void *user) {
    plan *t = user;
    h1_log(t->p, "writable;");
    if (t->at == AT_WRITABLE) return do_it(x, t);
    return stream(x, t);
}

static void on_close(cb_exchange *x, int rc, void *user) {
    plan *t = user;
    h1_log(t->p, "close %d;", rc);
    t->closes++;
    t->p->closed++;
    if (t->p->x == x) t->p->x = NULL;
    cb_exchange_reset(x, CB_RESET_CANCEL); /* nothing happens any more */
}

static const cb_exchange_ops ops = {.size = sizeof ops,
                                    .on_head = on_head,
                                    .on_body = on_body,
                                    .on_end = on_end,
                                    .on_writable = on_writable,
                                    .on_close = on_close};

static void keep(cb_exchange *x, void *user) {
    plan *t = user;
    if (t->kept) cb_exchange_destroy(t->kept);
    t->kept = x;
}

static void exchange_new(cb_hconn *h, cb_exchange *x) {
    h1_peer *p = h->env.owner_user;
    cb_exchange_handle(x, &ops, p->user);
    x->on_keep = keep;
    x->keep_user = p->user;
}

static cb_exchange *spare(cb_hconn *h) {
    plan *t = ((h1_peer *)h->env.owner_user)->user;
    cb_exchange *x = t->kept;
    t->kept = NULL;
    return x;
}

static void limit(cb_hconn *h, const char *what) {
    plan *t = ((h1_peer *)h->env.owner_user)->user;
    t->limits++;
    snprintf(t->limit, sizeof t->limit, "%s", what);
}

static const cb_hconn_owner_ops owner = {
    .exchange_new = exchange_new, .spare = spare, .wake = h1_on_wake, .limit = limit};

#define H "Host: a\r\n"

static h1_peer *start(plan *t, const cb_http_limits *l) {
    h1_peer *p = calloc(1, sizeof *p);
    if (l) p->limits = *l;
    p->user = t;
    t->p = p;
    h1_peer_open(p, true, &owner);
    return p;
}

static void stop(h1_peer *p) {
    plan *t = p->user;
    h1_peer_close(p);
    if (t->kept) cb_exchange_destroy(t->kept);
    t->kept = NULL;
    cr_expect_eq(p->live, 0, "%zu pieces of memory are left", p->live);
    free(p);
}

static void feed(h1_peer *p, const char *text, cb_time now) {
    h1_peer_feed(p, text, strlen(text), 0, now);
}

static bool done(const h1_peer *p) {
    return p->rc < 0 || p->h->vt->done(p->h);
}

Test(h1_flow, steady_keep_alive_allocates_nothing) {
    plan t = {.take = -1};
    h1_peer *p = start(&t, NULL);
    const char *get =
        "GET /index.html HTTP/1.1\r\nHost: www.example\r\nUser-Agent: a browser/1.0\r\nAccept: */*\r\n\r\n";
    feed(p, get, 1);
    size_t before = p->allocs;
    for (int i = 0; i < 50; i++) {
        p->out_len = 0;
        feed(p, get, 1);
        cr_assert_eq(strncmp(p->out, "HTTP/1.1 200 OK\r\n", 17), 0);
    }
    cr_assert_eq(p->allocs, before, "%zu allocations in 50 requests", p->allocs - before);
    cr_assert_eq(t.closes, 51);
    stop(p);
}

Test(h1_flow, a_whole_response_is_one_write) {
    plan t = {.take = -1};
    h1_peer *p = start(&t, NULL);
    feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 1);
    cr_assert_str_eq(p->out, "HTTP/1.1 200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-type: text/plain; "
                             "charset=utf-8\r\ncontent-length: 5\r\n\r\nhello");
    stop(p);
}

Test(h1_flow, each_callback_may_end_its_exchange) {
    for (int at = AT_HEAD; at <= AT_WRITABLE; at++)
        for (int what = DO_RESET; what <= DO_RESET_TWICE; what++)
            for (int split = 0; split < 2; split++) {
                plan t = {.at = at, .what = what, .take = -1, .answer = at == AT_WRITABLE ? 60000 : 0};
                h1_peer *p = start(&t, NULL);
                p->room = 1000;
                const char *in =
                    "POST / HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\n0123456789GET / HTTP/1.1\r\n" H "\r\n";
                h1_peer_feed(p, in, strlen(in), split ? 1 : 0, 1);
                p->room = 2000;
                if (p->rc >= 0) p->rc = p->h->vt->flush(p->h, 2);
                bool ends = what != DO_SEND;
                cr_expect(!ends || done(p), "at %d, doing %d: open", at, what);
                cr_expect(!ends || t.closes == !t.abandoned, "at %d, doing %d: %d closes", at, what, t.closes);
                cr_expect(what != DO_FAIL || at == AT_WRITABLE || strstr(p->out, "HTTP/1.1 500 "), "at %d", at);
                h1_peer_close(p);
                cr_expect(t.abandoned || t.closes == p->opened, "at %d, doing %d: %d closes", at, what, t.closes);
                stop(p);
            }
}

Test(h1_flow, a_body_waits_for_its_user) {
    plan t = {.take = 3, .silent = true};
    h1_peer *p = start(&t, NULL);
    feed(p, "POST / HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\n0123456789", 1);
    cr_assert_eq(p->body, 3);
    cr_assert(cb_exchange_in_blocked(p->x));
    for (int i = 2; i <= 4; i++) {
        cb_exchange_resume(p->x);
        cr_assert_eq(p->body, i < 4 ? (uint64_t)i * 3 : 10);
    }
    cr_assert_eq(p->h->vt->flush(p->h, 2), CB_OK);
    h1_flush_log(p);
    cr_assert_str_eq(p->log, "body 10;end;");
    cr_assert_eq(cb_exchange_send_text(p->x, 200, "ok"), CB_OK);
    cr_assert_eq(p->closed, 1);
    cr_assert(!done(p));
    stop(p);
}

Test(h1_flow, a_user_that_resumes_inside_gets_all) {
    plan t = {.take = 1, .resume_in = true};
    h1_peer *p = start(&t, NULL);
    feed(p, "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n", 1);
    for (int i = 0; i < 5 && !p->closed; i++)
        feed(p, "", 2);
    cr_assert_str_eq(p->log, "body 10;end;close 0;");
    stop(p);
}

Test(h1_flow, what_is_not_taken_stays_outside) {
    plan t = {.take = 0, .silent = true};
    h1_peer *p = start(&t, &(cb_http_limits){.stream_window_bytes = 4096});
    feed(p, "POST / HTTP/1.1\r\n" H "Content-Length: 100000\r\n\r\n", 1);
    size_t all = 0;
    for (int i = 0; i < 20; i++) {
        int64_t n = p->h->vt->feed(p->h, (cb_slice){filler, 5000}, 1);
        cr_assert_geq(n, 0);
        all += (size_t)n;
    }
    cr_assert_leq(all, 4096);
    cr_assert_gt(all, 0);
    stop(p);
}

Test(h1_flow, a_response_waits_for_room) {
    for (int whole = 0; whole < 2; whole++) {
        plan t = {.take = -1, .answer = 100000, .whole = whole};
        h1_peer *p = start(&t, NULL);
        p->room = 3000;
        feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 1);
        cr_assert_leq(p->out_len, 3200);
        for (int i = 0; i < 1000 && !p->closed; i++) {
            p->room = 1500;
            cr_assert_eq(p->h->vt->flush(p->h, 2), CB_OK);
            cr_assert_leq(p->out_len, (size_t)(i + 3) * 1700);
        }
        cr_assert_eq(p->closed, 1);
        cr_assert(whole || memcmp(p->out + p->out_len - 7, "\r\n0\r\n\r\n", 7) == 0);
        cr_assert(!whole || strstr(p->out, "content-length: 100000\r\n"));
        cr_assert_gt(p->out_len, 100000);
        stop(p);
    }
}

/* A sink tells of room when it had none: whoever waits must have left it none, also who stops at the first write that
 * took less. */
Test(h1_flow, who_waits_has_left_no_room) {
    plan t = {.take = -1, .answer = 100000, .polite = true};
    h1_peer *p = start(&t, NULL);
    p->room = 3000;
    feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 0);
    for (int i = 0; i < 1000 && !p->closed; i++) {
        if (p->x && p->x->blocked) cr_assert_eq(p->room, 0, "round %d: %zu bytes of room", i, p->room);
        p->room = 1500;
        cr_assert_eq(p->h->vt->flush(p->h, 2), CB_OK);
    }
    cr_assert_eq(p->closed, 1);
    stop(p);
}

Test(h1_flow, content_length_is_kept) {
    plan t = {.take = -1, .silent = true};
    h1_peer *p = start(&t, NULL);
    const cb_field five = {cb_slice_str("Content-Length"), cb_slice_str("5")};
    feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 1);
    cr_assert_eq(cb_exchange_write(p->x, cb_slice_str("x")), CB_EINVAL);
    cr_assert_eq(cb_exchange_finish(p->x), CB_EINVAL);
    cr_assert_eq(cb_exchange_send(p->x, 200, &five, 1, cb_slice_str("1234")), CB_EINVAL);
    cr_assert_eq(cb_exchange_reply(p->x, 200, &five, 1), CB_OK);
    cr_assert_eq(cb_exchange_reply(p->x, 200, &five, 1), CB_EINVAL);
    cr_assert_eq(cb_exchange_room(p->x), 5);
    cr_assert_eq(cb_exchange_write(p->x, cb_slice_str("123456")), CB_EINVAL);
    cr_assert_eq(cb_exchange_write(p->x, cb_slice_str("123")), 3);
    cr_assert_eq(cb_exchange_finish(p->x), CB_EINVAL); /* and that was it */
    cr_assert_eq(p->closed, 1);
    cr_assert(done(p));
    stop(p);
}

Test(h1_flow, bad_replies_are_named) {
    static const struct {
        int status;
        const char *name, *value, *says;
    } bad[] = {{99, "x", "y", "99 is not a status"},
               {600, "x", "y", "600 is not a status"},
               {101, "x", "y", "101 needs"},
               {200, "x y", "z", "x y"},
               {200, "x", "a\r\nb: c", "\"x\""},
               {200, "x", " a", "\"x\""},
               {200, "", "a", "not a field name"},
               {200, "content-length", "1,2", "content-length"},
               {200, "content-length", "-1", "content-length"}};
    plan t = {.take = -1, .silent = true};
    h1_peer *p = start(&t, NULL);
    feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const cb_field f = {cb_slice_str(bad[i].name), cb_slice_str(bad[i].value)};
        cr_expect_eq(cb_exchange_reply(p->x, bad[i].status, &f, 1), CB_EINVAL);
        cr_expect(strstr(cb_last_error(), bad[i].says), "row %zu: %s", i, cb_last_error());
    }
    const cb_field hop[] = {
        {cb_slice_str("Connection"), cb_slice_str("close")}, {cb_slice_str("Transfer-Encoding"), cb_slice_str("gzip")},
        {cb_slice_str("Keep-Alive"), cb_slice_str("1")},     {cb_slice_str("Upgrade"), cb_slice_str("x")},
        {cb_slice_str("Date"), cb_slice_str("today")},       {cb_slice_str("X"), cb_slice_str("y")}};
    cr_assert_eq(cb_exchange_send(p->x, 200, hop, 6, cb_slice_str("")), CB_OK);
    cr_assert_str_eq(p->out, "HTTP/1.1 200 OK\r\nDate: today\r\nX: y\r\ncontent-length: 0\r\n\r\n");
    stop(p);
}

Test(h1_flow, bodies_are_left_out_where_there_is_none) {
    static const struct {
        const char *in;
        int status;
        bool length;
    } rows[] = {{"HEAD / HTTP/1.1\r\n" H "\r\n", 200, true},
                {"GET / HTTP/1.1\r\n" H "\r\n", 204, false},
                {"GET / HTTP/1.1\r\n" H "\r\n", 304, true}};
    const cb_field five = {cb_slice_str("content-length"), cb_slice_str("5")};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int streamed = 0; streamed < 2; streamed++) {
            plan t = {.take = -1, .silent = true};
            h1_peer *p = start(&t, NULL);
            feed(p, rows[i].in, 1);
            if (streamed) {
                cr_assert_eq(cb_exchange_reply(p->x, rows[i].status, &five, 1), CB_OK);
                cr_assert_eq(cb_exchange_write(p->x, cb_slice_str("12345")), 5);
                cr_assert_eq(cb_exchange_finish(p->x), CB_OK);
            } else {
                cr_assert_eq(cb_exchange_send(p->x, rows[i].status, &five, 1, cb_slice_str("12345")), CB_OK);
            }
            cr_expect_eq(p->closed, 1);
            cr_expect(!strstr(p->out, "12345"), "row %zu: %s", i, p->out);
            cr_expect((strstr(p->out, "content-length") != NULL) == rows[i].length, "row %zu: %s", i, p->out);
            cr_expect(!strstr(p->out, "chunked"), "row %zu: %s", i, p->out);
            p->out_len = 0;
            feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 1);
            cr_expect_eq(p->opened, 2);
            stop(p);
        }
}

Test(h1_flow, expect_continue) {
    static const char head[] = "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    plan t = {.take = -1};
    h1_peer *p = start(&t, NULL); /* the user waits for the body */
    feed(p, head, 1);
    cr_assert_str_eq(p->out, "HTTP/1.1 100 Continue\r\n\r\n");
    feed(p, "abc", 2);
    cr_assert(strstr(p->out, "HTTP/1.1 200 OK\r\n"));
    cr_assert(!done(p));
    p->out_len = 0; /* the body comes with the head: no need to ask for it */
    char both[256];
    snprintf(both, sizeof both, "%sabc", head);
    feed(p, both, 3);
    cr_assert_eq(strncmp(p->out, "HTTP/1.1 200 OK\r\n", 17), 0);
    stop(p);

    t = (plan){.take = -1, .at = AT_HEAD, .what = DO_SEND}; /* the user does not want it */
    p = start(&t, NULL);
    feed(p, head, 1);
    cr_assert_eq(strncmp(p->out, "HTTP/1.1 200 OK\r\n", 17), 0);
    cr_assert(strstr(p->out, "connection: close\r\n"));
    cr_assert(done(p));
    cr_assert_eq(p->closed, 1);
    stop(p);

    t = (plan){.take = -1}; /* HTTP/1.0 knows no interim responses */
    p = start(&t, NULL);
    feed(p, "POST / HTTP/1.0\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", 1);
    cr_assert_eq(p->out_len, 0);
    feed(p, "abc", 1);
    cr_assert_eq(strncmp(p->out, "HTTP/1.1 200 OK\r\n", 17), 0);
    stop(p);
}

/* ---- limits ---- */

static char *repeat(const char *before, const char *what, size_t n, const char *after) {
    size_t w = strlen(what);
    char *s = malloc(strlen(before) + n * w + strlen(after) + 1), *at = s;
    at += sprintf(at, "%s", before);
    for (size_t i = 0; i < n; i++, at += w)
        memcpy(at, what, w);
    strcpy(at, after);
    return s;
}

Test(h1_flow, each_limit_answers_and_closes) {
    static const struct {
        const char *before, *what;
        size_t good, bad;
        const char *after, *status, *limit;
        cb_http_limits l;
    } rows[] = {
        {"GET / HTTP/1.1\r\n" H, "X: y\r\n", 9, 10, "\r\n", "431", "head", {.max_fields = 10}},
        {"GET / HTTP/1.1\r\n" H "X: ", "y", 900, 1000, "\r\n\r\n", "431", "head", {.max_head_bytes = 1000}},
        {"GET / HTTP/1.1\r\n" H, "Name", 200, 250, ": x\r\n\r\n", "431", "head", {.max_head_bytes = 1000}},
        {"GET /", "x", 99, 100, " HTTP/1.1\r\n" H "\r\n", "414", "target bytes", {.max_target_bytes = 100}},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n",
         "1\r\nx\r\n",
         50,
         51,
         "0\r\n\r\n",
         "413",
         "body bytes",
         {.max_body_bytes = 50}},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n1;",
         "e",
         900,
         1100,
         "\r\nx\r\n0\r\n\r\n",
         "400",
         "chunk extensions",
         {0}},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n",
         "1;e=f\r\nx\r\n",
         200,
         400,
         "0\r\n\r\n",
         "400",
         "chunk extensions",
         {0}},
        {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n",
         "T: x\r\n",
         10,
         11,
         "\r\n",
         "431",
         "head",
         {.max_fields = 10}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int over = 0; over < 2; over++)
            for (size_t step = 0; step < 2; step++) {
                plan t = {.take = -1};
                h1_peer *p = start(&t, &rows[i].l);
                char *in = repeat(rows[i].before, rows[i].what, over ? rows[i].bad : rows[i].good, rows[i].after);
                h1_peer_feed(p, in, strlen(in), step, 1);
                char want[16];
                snprintf(want, sizeof want, "HTTP/1.1 %s", over ? rows[i].status : "200");
                cr_expect(strncmp(p->out, want, strlen(want)) == 0, "row %zu, over %d: %.20s", i, over, p->out);
                cr_expect(done(p) == over, "row %zu, over %d: done %d", i, over, done(p));
                cr_expect(!over || strcmp(t.limit, rows[i].limit) == 0, "row %zu: limit %s", i, t.limit);
                free(in);
                stop(p);
            }
    plan t = {.take = -1};
    h1_peer *p = start(&t, &(cb_http_limits){.max_body_bytes = 50}); /* declared: refused before it comes */
    feed(p, "POST / HTTP/1.1\r\n" H "Content-Length: 51\r\n\r\n", 1);
    cr_expect(strncmp(p->out, "HTTP/1.1 413", 12) == 0, "%.20s", p->out);
    cr_expect_eq(p->opened, 0);
    stop(p);
}

Test(h1_flow, the_number_of_requests_is_limited) {
    plan t = {.take = -1};
    h1_peer *p = start(&t, &(cb_http_limits){.max_requests = 3});
    for (int i = 0; i < 3; i++) {
        cr_assert(!done(p));
        p->out_len = 0;
        feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 1);
        cr_assert_eq(strstr(p->out, "connection: close\r\n") != NULL, i == 2);
    }
    cr_assert(done(p));
    stop(p);
}

static void until(h1_peer *p, cb_time now) {
    cr_assert_eq(p->h->vt->deadline(p->h), now, "deadline %llu ms, not %llu",
                 (unsigned long long)(p->h->vt->deadline(p->h) / CB_MS), (unsigned long long)(now / CB_MS));
    cr_assert_eq(p->h->vt->expire(p->h, now - 1), CB_OK);
    cr_assert(!p->h->vt->done(p->h));
    int rc = p->h->vt->expire(p->h, now);
    if (rc < 0)
        p->rc = rc;
    else
        p->h->vt->flush(p->h, now);
}

Test(h1_flow, deadlines) {
    const cb_http_limits l = {
        .head_timeout_ms = 100, .body_timeout_ms = 200, .idle_timeout_ms = 300, .send_timeout_ms = 400};
    plan t = {.take = -1};
    h1_peer *p = start(&t, &l); /* idle from the beginning, and after a request */
    until(p, 300 * CB_MS);
    cr_assert(done(p));
    cr_assert_eq(p->out_len, 0);
    stop(p);

    p = start(&t, &l);
    feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 50 * CB_MS);
    p->out_len = 0;
    until(p, 350 * CB_MS);
    cr_assert(done(p));
    cr_assert_eq(p->out_len, 0);
    stop(p);

    p = start(&t, &l); /* a byte now and then does not help */
    feed(p, "GE", 10 * CB_MS);
    feed(p, "T / HTTP/1.1\r\nHo", 60 * CB_MS);
    until(p, 110 * CB_MS);
    cr_assert(done(p));
    cr_assert(strncmp(p->out, "HTTP/1.1 408", 12) == 0);
    cr_assert_str_eq(t.limit, "head timeout");
    stop(p);

    p = start(&t, &l); /* also before the request line */
    feed(p, "\r\n", 10 * CB_MS);
    until(p, 110 * CB_MS);
    cr_assert(done(p));
    stop(p);

    p = start(&t, &l); /* each byte of a body counts */
    feed(p, "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\n", 10 * CB_MS);
    feed(p, "a", 100 * CB_MS);
    until(p, 300 * CB_MS);
    cr_assert(done(p));
    cr_assert(strncmp(p->out, "HTTP/1.1 408", 12) == 0);
    h1_flush_log(p);
    cr_assert(strstr(p->log, "close -5;"), "%s", p->log);
    stop(p);

    p = start(&t, &l); /* but not what is only framing */
    feed(p, "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n", 10 * CB_MS);
    feed(p, "0000", 100 * CB_MS);
    until(p, 210 * CB_MS);
    cr_assert(done(p));
    stop(p);

    t = (plan){.take = 0, .silent = true}; /* a user that does not take is not the peer's fault */
    p = start(&t, &l);
    feed(p, "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\na", 10 * CB_MS);
    cr_assert_eq(p->h->vt->deadline(p->h), CB_NEVER);
    stop(p);

    t = (plan){.take = -1, .silent = true}; /* nor one that does not answer */
    p = start(&t, &l);
    feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 10 * CB_MS);
    cr_assert_eq(p->h->vt->deadline(p->h), CB_NEVER);
    stop(p);

    t = (plan){.take = -1, .answer = 100000}; /* the peer does not read */
    p = start(&t, &l);
    p->room = 1000;
    feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 10 * CB_MS);
    until(p, 410 * CB_MS);
    cr_assert_eq(p->rc, CB_ETIMEOUT);
    cr_assert_str_eq(t.limit, "send timeout");
    stop(p);
}

Test(h1_flow, idle_connections_shrink) {
    plan t = {.take = -1};
    h1_peer *p = start(&t, NULL);
    size_t least = p->live;
    feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 1 * CB_SEC);
    cr_assert_gt(p->live, least);
    cr_assert_eq(p->h->vt->deadline(p->h), 6 * CB_SEC);
    cr_assert_eq(p->h->vt->expire(p->h, 6 * CB_SEC), CB_OK);
    keep(NULL, &t); /* the exchange is not the connection's */
    cr_assert_eq(p->live, least);
    cr_assert_eq(p->h->vt->deadline(p->h), 61 * CB_SEC);
    feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 7 * CB_SEC);
    cr_assert_eq(p->closed, 2);
    stop(p);
}

/* ---- ends ---- */

Test(h1_flow, a_client_that_goes_away) {
    static const struct {
        const char *in;
        bool silent;
        int rc;
        const char *log;
        bool answered;
    } rows[] = {{"", false, CB_OK, "", false},
                {"GET / HTT", false, CB_ECLOSED, "", false},
                {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nab", false, CB_ECLOSED, "body 2;close -4;", false},
                {"GET / HTTP/1.1\r\n" H "\r\n", false, CB_OK, "end;close 0;", true},
                {"GET / HTTP/1.1\r\n" H "\r\n", true, CB_OK, "end;close -4;", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        plan t = {.take = -1, .silent = rows[i].silent};
        h1_peer *p = start(&t, NULL);
        feed(p, rows[i].in, 1);
        h1_peer_eof(p, 2);
        cr_expect_eq(p->rc, rows[i].rc, "row %zu: %d", i, p->rc);
        bool waits = rows[i].silent; /* half-closed: it still gets its answer */
        cr_expect_eq(done(p), !waits, "row %zu", i);
        h1_peer_close(p);
        cr_expect(strcmp(p->log, rows[i].log) == 0, "row %zu: %s", i, p->log);
        cr_expect_eq(p->out_len > 0, rows[i].answered, "row %zu", i);
        stop(p);
    }
    plan t = {.take = -1, .silent = true};
    h1_peer *p = start(&t, NULL);
    feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 1);
    h1_peer_eof(p, 2);
    cr_assert_eq(cb_exchange_send_text(p->x, 200, "late"), CB_OK);
    cr_assert(strstr(p->out, "late"));
    cr_assert(done(p));
    stop(p);
}

Test(h1_flow, draining) {
    plan t = {.take = -1, .silent = true};
    h1_peer *p = start(&t, NULL);
    p->h->vt->drain(p->h); /* idle: at once */
    cr_assert(done(p));
    stop(p);

    p = start(&t, NULL);
    feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 1);
    p->h->vt->drain(p->h);
    cr_assert(!done(p));
    cr_assert_eq(cb_exchange_send_text(p->x, 200, "last"), CB_OK);
    cr_assert(strstr(p->out, "connection: close\r\n"));
    cr_assert(done(p));
    stop(p);

    t = (plan){.take = -1};
    p = start(&t, NULL); /* a head that has begun is answered */
    feed(p, "GET / HT", 1);
    p->h->vt->drain(p->h);
    cr_assert(!done(p));
    feed(p, "TP/1.1\r\n" H "\r\n", 1);
    cr_assert(strstr(p->out, "HTTP/1.1 200") && strstr(p->out, "connection: close\r\n"));
    cr_assert(done(p));
    stop(p);
}

Test(h1_flow, an_answer_before_the_body_was_taken_keeps_the_order) {
    plan t = {.at = AT_HEAD, .what = DO_SEND, .take = 0};
    h1_peer *p = start(&t, NULL);
    const char *in = "POST / HTTP/1.1\r\n" H "Content-Length: 4\r\n\r\nabcdGET / HTTP/1.1\r\n" H "\r\n";
    feed(p, in, 1);
    cr_assert_eq(p->opened, 1); /* the next request waits for the user of this one */
    cr_assert(strstr(p->out, "HTTP/1.1 200"));
    t.take = -1;
    cb_exchange_resume(p->x);
    cr_assert_eq(p->h->vt->flush(p->h, 2), CB_OK);
    h1_peer_feed(p, "GET / HTTP/1.1\r\n" H "\r\n", 27, 0, 2);
    cr_assert_eq(p->closed, 2);
    stop(p);
}

Test(h1_flow, memory_that_ends_is_an_answer_or_an_end) {
    const char *in = "POST /p HTTP/1.1\r\n" H "X-Long: 0123456789012345678901234567890123456789\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\nT: v\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n";
    for (size_t allowed = 1; allowed < 40; allowed++) {
        plan t = {.take = allowed % 2 ? 1 : -1, .answer = 1000};
        h1_peer *p = start(&t, NULL);
        p->fail_after = p->allocs + allowed;
        feed(p, in, 1);
        p->fail_after = 0;
        h1_peer_close(p);
        cr_expect_eq(p->opened, p->closed, "allowed %zu", allowed);
        stop(p);
    }
}

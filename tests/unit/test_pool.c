/* Pools against origins that misbehave: bare sockets that answer what a test tells them to. */
#include "http/dial.h"
#include "http/pool.h"
#include "loop/tcp.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNS = 16 };

/* An HTTP/1.1 origin: `answers[i]` is what request number i gets; NULL closes the connection without a word. */
struct origin {
    cb_loop *loop;
    cb_tcp_listener *listener;
    cb_watch *watch[CONNS];
    int fd[CONNS];
    size_t conns, requests;
    const char *const *answers;
    size_t n_answers;
    bool hold;         /* take requests, answer nothing */
    size_t drop_after; /* this request's answer is cut off at its end */
    char last[2048];
    uint16_t port;
};

static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

static void origin_drop(struct origin *o, size_t i) {
    if (!o->watch[i]) return;
    cb_watch_free(o->watch[i]);
    close(o->fd[i]);
    o->watch[i] = NULL;
}

static void on_bytes(cb_watch *w, unsigned events, void *user) {
    (void)events;
    struct origin *o = user;
    size_t i = 0;
    while (i < CONNS && o->watch[i] != w)
        i++;
    ssize_t n = recv(o->fd[i], o->last, sizeof o->last - 1, MSG_DONTWAIT);
    if (n <= 0) {
        origin_drop(o, i);
        return;
    }
    o->last[n] = '\0';
    o->requests++;
    if (o->hold) return;
    const char *answer = o->requests <= o->n_answers ? o->answers[o->requests - 1] : ok;
    if (answer) cr_assert_eq(send(o->fd[i], answer, strlen(answer), MSG_NOSIGNAL), (ssize_t)strlen(answer), "answer");
    if (!answer || o->requests == o->drop_after) origin_drop(o, i);
}

static void on_accept(cb_tcp_listener *l, int fd, const cb_addr *remote, void *user) {
    (void)l;
    (void)remote;
    struct origin *o = user;
    cr_assert_lt(o->conns, CONNS, "too many connections");
    o->fd[o->conns] = fd;
    cr_assert_eq(cb_watch_new(&o->watch[o->conns], o->loop, fd, CB_READABLE, on_bytes, o), CB_OK, "watch");
    o->conns++;
}

static void origin_open(struct origin *o, cb_loop *loop, const char *const *answers, size_t n) {
    *o = (struct origin){.loop = loop, .answers = answers, .n_answers = n};
    cb_tcp_listener_opts opts = {.on_accept = on_accept, .user = o};
    cr_assert_eq(cb_addr_parse(&opts.bind, "127.0.0.1:0", 0), CB_OK, "address");
    cr_assert_eq(cb_tcp_listen(&o->listener, loop, &opts), CB_OK, "%s", cb_last_error());
    o->port = cb_addr_port(cb_tcp_listener_local(o->listener));
}

static void origin_close(struct origin *o) {
    for (size_t i = 0; i < CONNS; i++)
        origin_drop(o, i);
    cb_tcp_listener_free(o->listener);
}

struct got {
    int status, rc, closes, phase;
    bool reused;
    char body[64], detail[300];
};

static int on_head(cb_exchange *x, void *user) {
    ((struct got *)user)->status = cb_exchange_status(x);
    return CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    struct got *g = user;
    size_t used = strlen(g->body);
    snprintf(g->body + used, sizeof g->body - used, "%.*s", (int)data.len, (const char *)data.base);
    return (int64_t)data.len;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    struct got *g = user;
    g->rc = rc;
    g->closes++;
    g->phase = cb_pool_phase(x);
    g->reused = cb_pool_reused(x);
    snprintf(g->detail, sizeof g->detail, "%s", rc < 0 ? cb_last_error() : "");
}

static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = on_head, .on_body = on_body, .on_close = on_close};

static cb_exchange *begin(cb_origin *o, const char *method, cb_time timeout, cb_time head_timeout, struct got *g) {
    cb_exchange *x = NULL;
    const cb_head head = {.method = cb_slice_str(method),
                          .scheme = cb_slice_str("http"),
                          .authority = cb_slice_str("origin.test"),
                          .path = cb_slice_str("/"),
                          .length = -1};
    const cb_pool_request req = {
        .head = &head, .timeout = timeout, .head_timeout = head_timeout, .ops = &ops, .user = g};
    *g = (struct got){0};
    cr_assert_eq(cb_pool_send(&x, o, &req), CB_OK, "send: %s", cb_last_error());
    cr_assert_eq(g->closes, 0, "a callback inside of cb_pool_send()");
    return x;
}

static void run(cb_loop *loop, const int *until) {
    struct pollfd p = {.fd = cb_loop_fd(loop), .events = POLLIN};
    for (int i = 0; !*until; i++) {
        int64_t ms = cb_loop_timeout_ms(loop);
        cr_assert_lt(i, 20000, "nothing happens");
        if (ms) poll(&p, 1, ms < 0 || ms > 100 ? 100 : (int)ms);
        cb_loop_step(loop);
    }
}

static void turns(cb_loop *loop, int n) {
    struct pollfd p = {.fd = cb_loop_fd(loop), .events = POLLIN};
    for (int i = 0; i < n; i++) {
        poll(&p, 1, 1);
        cb_loop_step(loop);
    }
}

struct world {
    cb_loop *loop;
    cb_pool *pool;
    cb_origin *origin;
    struct origin peer;
};

static void world_open(struct world *w, cb_pool_opts opts, const char *const *answers, size_t n) {
    cr_assert_eq(cb_loop_new(&w->loop, NULL), CB_OK, "loop");
    origin_open(&w->peer, w->loop, answers, n);
    cr_assert_eq(cb_pool_new(&w->pool, w->loop, &opts), CB_OK, "pool: %s", cb_last_error());
    const cb_pool_target t = {.host = "127.0.0.1", .port = w->peer.port};
    cr_assert_eq(cb_origin_get(&w->origin, w->pool, &t), CB_OK, "origin: %s", cb_last_error());
}

static void world_close(struct world *w) {
    cb_pool_free(w->pool);
    cb_origin_unref(w->origin);
    origin_close(&w->peer);
    cb_loop_free(w->loop);
}

Test(pool, keeps_and_reuses) {
    struct world w;
    struct got g, many[6];
    world_open(&w, (cb_pool_opts){.max_idle = 2}, NULL, 0);
    for (int i = 0; i < 5; i++) {
        begin(w.origin, "GET", 0, 0, &g);
        run(w.loop, &g.closes);
        cr_expect_eq(g.rc, CB_OK, "%d %s", g.rc, g.detail);
        cr_expect_str_eq(g.body, "ok", "%s", g.body);
        cr_expect_eq(g.reused, i > 0, "request %d", i);
        cr_expect_eq(g.phase, CB_PHASE_ANSWERED, "phase %d", g.phase);
    }
    cr_expect_eq(w.peer.conns, 1, "%zu connections for 5 requests in turn", w.peer.conns);
    for (int i = 0; i < 6; i++)
        begin(w.origin, "GET", 0, 0, &many[i]);
    for (int i = 0; i < 6; i++)
        run(w.loop, &many[i].closes);
    turns(w.loop, 5);
    cb_origin_stats st;
    cb_origin_stats_get(w.origin, &st);
    cr_expect_eq(w.peer.conns, 6, "%zu connections for 6 at one time", w.peer.conns);
    cr_expect_eq(st.idle, 2, "%u are kept of at most 2", st.idle);
    cr_expect_eq(st.conns, 2, "%u connections", st.conns);
    cr_expect_eq(st.requests, 11, "%llu requests", (unsigned long long)st.requests);
    cr_expect_geq(st.reused, 5, "%llu reused", (unsigned long long)st.reused);
    world_close(&w);
}

Test(pool, notices_when_an_idle_connection_closes) {
    struct world w;
    struct got g;
    cb_origin_stats st;
    world_open(&w, (cb_pool_opts){0}, NULL, 0);
    begin(w.origin, "GET", 0, 0, &g);
    run(w.loop, &g.closes);
    origin_drop(&w.peer, 0);
    turns(w.loop, 5);
    cb_origin_stats_get(w.origin, &st);
    cr_expect_eq(st.conns, 0, "%u connections", st.conns);
    begin(w.origin, "GET", 0, 0, &g);
    run(w.loop, &g.closes);
    cr_expect_eq(g.rc, CB_OK, "%d %s", g.rc, g.detail);
    cr_expect_eq(g.reused, false, "it was closed");
    world_close(&w);
}

Test(pool, sends_again_only_what_is_safe) {
    static const char *const answers[] = {ok, NULL};
    static const struct {
        const char *method;
        bool again;
    } rows[] = {{"GET", true}, {"HEAD", true}, {"PUT", true}, {"DELETE", true}, {"POST", false}, {"PATCH", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct world w;
        struct got g;
        world_open(&w, (cb_pool_opts){0}, answers, 2);
        begin(w.origin, "GET", 0, 0, &g);
        run(w.loop, &g.closes);
        begin(w.origin, rows[i].method, 0, 0, &g); /* the origin closes without a word */
        run(w.loop, &g.closes);
        if (rows[i].again)
            cr_expect_eq(g.rc == CB_OK && w.peer.conns == 2, 1, "%s: %d %s", rows[i].method, g.rc, g.detail);
        else
            cr_expect_eq(g.rc, CB_ECLOSED, "%s: %d %s", rows[i].method, g.rc, g.detail);
        cr_expect_eq(w.peer.requests, rows[i].again ? 3 : 2, "%s: the origin saw %zu requests", rows[i].method,
                     w.peer.requests);
        world_close(&w);
    }
}

/* Status and fields of a head that did not come to its end are nothing of the response that another connection gives.
 */
Test(pool, half_a_head_is_forgotten) {
    static const char *const answers[] = {ok, "HTTP/1.1 503 No\r\nContent-Length: 9\r\nX-Half: 1\r\nX-Next: "};
    struct world w;
    struct got g;
    world_open(&w, (cb_pool_opts){0}, answers, 2);
    w.peer.drop_after = 2;
    begin(w.origin, "GET", 0, 0, &g);
    run(w.loop, &g.closes);
    begin(w.origin, "GET", 0, 0, &g);
    run(w.loop, &g.closes);
    cr_expect_eq(g.rc, CB_OK, "%d %s", g.rc, g.detail);
    cr_expect_eq(g.status, 200, "status %d", g.status);
    cr_expect_str_eq(g.body, "ok", "%s", g.body);
    cr_expect_eq(w.peer.requests, 3, "%zu requests", w.peer.requests);
    world_close(&w);
}

Test(pool, never_sends_again_on_a_fresh_connection) {
    static const char *const answers[] = {NULL, NULL, NULL};
    struct world w;
    struct got g;
    world_open(&w, (cb_pool_opts){0}, answers, 3);
    begin(w.origin, "GET", 0, 0, &g);
    run(w.loop, &g.closes);
    cr_expect_eq(g.rc, CB_ECLOSED, "%d %s", g.rc, g.detail);
    cr_expect_eq(g.phase, CB_PHASE_SENT, "phase %d", g.phase);
    cr_expect_eq(w.peer.requests, 1, "%zu requests", w.peer.requests);
    world_close(&w);
}

Test(pool, queues_in_order_and_bounded) {
    struct world w;
    struct got g[5];
    cb_origin_stats st;
    world_open(&w, (cb_pool_opts){.max_conns = 1, .max_queue = 3, .queue_timeout = 1000 * CB_MS}, NULL, 0);
    w.peer.hold = true;
    for (int i = 0; i < 5; i++) {
        begin(w.origin, "GET", 0, 0, &g[i]);
        turns(w.loop, 10);
    }
    cb_origin_stats_get(w.origin, &st);
    cr_expect_eq(st.active, 1, "%u active", st.active);
    cr_expect_eq(w.peer.conns, 1, "%zu connections of at most 1", w.peer.conns);
    cr_expect_eq(g[4].rc, CB_ELIMIT, "the fifth: %d %s", g[4].rc, g[4].detail);
    run(w.loop, &g[1].closes);
    cr_expect_eq(g[1].rc, CB_ETIMEOUT, "the second: %d %s", g[1].rc, g[1].detail);
    cr_expect(strstr(g[1].detail, "no connection was free"), "%s", g[1].detail);
    cr_expect_eq(g[1].phase, CB_PHASE_QUEUED, "phase %d", g[1].phase);
    cr_expect_eq(g[0].closes, 0, "the first is on its connection");
    cb_origin_stats_get(w.origin, &st);
    w.peer.hold = false;
    cr_assert_eq(send(w.peer.fd[0], ok, strlen(ok), 0), (ssize_t)strlen(ok), "answer");
    run(w.loop, &g[0].closes);
    cr_expect_eq(g[0].rc, CB_OK, "the first: %d %s", g[0].rc, g[0].detail);
    world_close(&w);
}

Test(pool, time_limits) {
    struct world w;
    struct got g;
    world_open(&w, (cb_pool_opts){0}, NULL, 0);
    w.peer.hold = true;
    begin(w.origin, "GET", 20 * CB_MS, 0, &g);
    run(w.loop, &g.closes);
    cr_expect_eq(g.rc, CB_ETIMEOUT, "%d", g.rc);
    cr_expect(strstr(g.detail, "time limit"), "%s", g.detail);
    begin(w.origin, "GET", 0, 20 * CB_MS, &g);
    run(w.loop, &g.closes);
    cr_expect_eq(g.rc, CB_ETIMEOUT, "%d", g.rc);
    cr_expect(strstr(g.detail, "response head"), "%s", g.detail);
    cr_expect_eq(g.phase, CB_PHASE_SENT, "phase %d", g.phase);
    turns(w.loop, 3);
    cb_origin_stats st;
    cb_origin_stats_get(w.origin, &st);
    cr_expect_eq(st.conns, 0, "a connection whose answer was not awaited is not used again: %u", st.conns);
    world_close(&w);
}

Test(pool, unreachable_and_unknown) {
    static const struct {
        const char *host;
        int rc;
        const char *why;
    } rows[] = {
        {"127.0.0.1", CB_EUNREACH, "refused"}, {"::1", CB_EUNREACH, "refused"}, {"name.test", CB_EDNS, "resolver"}};
    struct world w;
    world_open(&w, (cb_pool_opts){0}, NULL, 0);
    origin_close(&w.peer); /* its port refuses now */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_origin *o = NULL;
        struct got g[3];
        const cb_pool_target t = {.host = rows[i].host, .port = w.peer.port};
        cr_assert_eq(cb_origin_get(&o, w.pool, &t), CB_OK, "%s", cb_last_error());
        for (int k = 0; k < 3; k++)
            begin(o, "GET", 0, 0, &g[k]);
        for (int k = 0; k < 3; k++) {
            run(w.loop, &g[k].closes);
            cr_expect_eq(g[k].rc, rows[i].rc, "%s: %d %s", rows[i].host, g[k].rc, g[k].detail);
            cr_expect(strstr(g[k].detail, rows[i].why), "%s: %s", rows[i].host, g[k].detail);
        }
        cb_origin_unref(o);
    }
    origin_open(&w.peer, w.loop, NULL, 0);
    world_close(&w);
}

Test(pool, connection_limit_of_time) {
    struct world w;
    struct got g;
    world_open(&w, (cb_pool_opts){.connect_timeout = 30 * CB_MS}, NULL, 0);
    const cb_pool_target t = {
        .host = "127.0.0.1", .port = w.peer.port, .tls = true}; /* it never answers the ClientHello */
    cb_origin *o = NULL;
    cr_assert_eq(cb_origin_get(&o, w.pool, &t), CB_OK, "%s", cb_last_error());
    w.peer.hold = true;
    begin(o, "GET", 0, 0, &g);
    run(w.loop, &g.closes);
    cr_expect_eq(g.rc, CB_ETIMEOUT, "%d %s", g.rc, g.detail);
    cr_expect(strstr(g.detail, "30 ms") || strstr(g.detail, "handshake"), "%s", g.detail);
    cb_origin_unref(o);
    world_close(&w);
}

static void free_pool(cb_exchange *x, int rc, void *user) {
    (void)x;
    struct world *w = user;
    cr_expect_lt(rc, 0, "rc %d", rc);
    cb_pool_free(w->pool);
    w->pool = NULL;
}

Test(pool, reset_and_free_at_every_stage) {
    static const cb_exchange_ops freeing = {.size = sizeof freeing, .on_close = free_pool};
    for (int stage = 0; stage < 6; stage++) {
        struct world w;
        struct got g, other;
        world_open(&w, (cb_pool_opts){.max_conns = stage < 3 ? 1 : 8}, NULL, 0);
        w.peer.hold = true;
        cb_exchange *x = begin(w.origin, "GET", 0, 0, &g);
        begin(w.origin, "GET", 0, 0, &other);
        turns(w.loop, stage % 3 * 4);
        if (stage < 3) {
            cb_exchange_reset(x, CB_RESET_CANCEL);
            turns(w.loop, 2);
            cr_expect_eq(g.closes, 1, "stage %d: %d on_close", stage, g.closes);
            cr_expect_eq(g.rc, CB_ECLOSED, "stage %d: %d", stage, g.rc);
            cr_expect_eq(other.closes, 0, "stage %d: the other one ended: %s", stage, other.detail);
            cb_pool_free(w.pool);
        } else {
            cb_exchange_handle(x, &freeing, &w);
            cb_exchange_reset(x, CB_RESET_CANCEL); /* its on_close frees the pool */
        }
        w.pool = NULL;
        turns(w.loop, 2);
        cr_expect_eq(other.closes, 1, "stage %d: the other one: %d on_close", stage, other.closes);
        world_close(&w);
    }
}

Test(pool, refuses_bad_targets) {
    static const cb_pool_target rows[] = {
        {.port = 80},
        {.host = "", .port = 80},
        {.host = "a.test"},
        {.host = "a.test", .port = 80, .send_proxy = 3},
        {.host = "a.test", .port = 80, .versions = 8},
        {.host = "a.test", .port = 80, .versions = CB_HTTP_3},
        {.host = "a.test", .port = 443, .tls = true, .versions = CB_HTTP_3, .send_proxy = 1}};
    struct world w;
    world_open(&w, (cb_pool_opts){0}, NULL, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_origin *o = NULL;
        cr_expect_eq(cb_origin_get(&o, w.pool, &rows[i]), CB_EINVAL, "row %zu", i);
    }
    /* What differs in anything that matters is another origin; what does not is the same. */
    const cb_pool_target same = {.host = "127.0.0.1", .port = w.peer.port};
    const cb_pool_target other = {.host = "127.0.0.1", .port = w.peer.port, .send_proxy = 2};
    cb_origin *a = NULL, *b = NULL;
    cr_assert_eq(cb_origin_get(&a, w.pool, &same), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_origin_get(&b, w.pool, &other), CB_OK, "%s", cb_last_error());
    cr_expect_eq(a, w.origin, "the same target gave another origin");
    cr_expect_neq(b, w.origin, "another target gave the same origin");
    cb_origin_unref(a);
    cb_origin_unref(b);
    world_close(&w);
}

static void host(cb_dial *d, char family, size_t k, bool late) {
    cb_host_address h = {.family = (uint8_t)(family - '0')};
    cb_addr at;
    h.bytes[0] = (uint8_t)(k + 1);
    cb_dial_addr(&at, &h, 443);
    cr_expect_eq(cb_addr_port(&at), 443, "port");
    cb_dial_add(d, &at, late);
}

/* Families in turn, beginning with the one that came through last, else IPv6. */
Test(pool, addresses_in_turn) {
    static const struct {
        const char *in, *out;
        int first;
    } rows[] = {{"6664", "6466", 0},   {"4466", "6464", 0},   {"4466", "4646", AF_INET},
                {"4", "4", 0},         {"66", "66", AF_INET}, {"6444", "6444", 0},
                {"44466", "64644", 0}, {"", "", 0},           {"66666666666666666666", "6666666666666666", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_dial d = {.first = rows[i].first};
        char text[32] = "";
        const cb_addr *at;
        for (int twice = 0; twice < 2; twice++) /* nothing is there twice */
            for (size_t k = 0; rows[i].in[k]; k++)
                host(&d, rows[i].in[k], k, false);
        for (size_t k = 0; (at = cb_dial_next(&d)); k++)
            text[k] = at->sa.sa_family == AF_INET ? '4' : '6';
        cr_expect_str_eq(text, rows[i].out, "%s: %s", rows[i].in, text);
    }
}

/* Answers for the second family that come late take their turn; dead ones come last; one broken off comes again. */
Test(pool, addresses_that_come_late) {
    cb_dial d = {0};
    host(&d, '4', 0, false);
    host(&d, '4', 1, false);
    cr_expect_eq(cb_dial_next(&d)->sa.sa_family, AF_INET);
    host(&d, '6', 2, false);
    host(&d, '6', 3, true);
    const cb_addr *six = cb_dial_next(&d);
    cr_expect_eq(six->sa.sa_family, AF_INET6);
    cr_expect_eq(six->v6.sin6_addr.s6_addr[0], 3, "not the dead one");
    cr_expect_eq(cb_dial_next(&d)->sa.sa_family, AF_INET);
    cr_expect(cb_dial_has(&d, AF_INET6) && !cb_dial_has(&d, AF_INET));
    cr_expect_eq(cb_dial_next(&d)->v6.sin6_addr.s6_addr[0], 4, "the dead one at last");
    cr_expect(!cb_dial_has(&d, 0));
    cr_expect_null(cb_dial_next(&d));
    cb_dial_again(&d, six);
    cr_expect_eq(cb_dial_next(&d), six);
    cr_expect_null(cb_dial_next(&d));
}

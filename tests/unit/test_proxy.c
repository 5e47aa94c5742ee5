/* The proxy between a real server and a real client on one loop: every pair of versions, and ends at bad moments. */
#include "support/http_fixture.h"
#include <cb/proxy.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct proxy_world {
    http_world w; /* its server is the origin, its client asks the front */
    cb_router *router;
    cb_proxy *proxy;
    cb_http_server *front;
} proxy_world;

static void route_to(cb_router **out, proxy_world *p, const char *url, uint32_t versions, cb_origin_group_opts o) {
    o.size = sizeof o;
    o.name = "origin";
    o.versions = versions;
    o.identity = p->w.roots;
    cr_assert_eq(cb_router_new(out), CB_OK);
    cr_assert_eq(cb_router_group(*out, &o), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_router_origin(*out, "origin", CB_OPTS(cb_origin_opts, .url = url)), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_router_route(*out, CB_OPTS(cb_route_opts, .group = "origin")), CB_OK, "%s", cb_last_error());
}

static void open_front(proxy_world *p, const http_way *front) {
    cr_assert_eq(cb_http_server_new(&p->front, p->w.loop,
                                    CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0",
                                            .identity = front->tls ? p->w.me : NULL, .versions = front->version,
                                            .ops = cb_proxy_exchange_ops(), .user = p->proxy)),
                 CB_OK, "%s", cb_last_error());
    const char *port = strrchr(cb_http_server_address(p->front), ':');
    snprintf(p->w.url, sizeof p->w.url, "%s://localhost%s", front->tls ? "https" : "http", port);
    http_client_make(&p->w, (cb_http_client_opts){.versions = front->version});
}

static void open_world(proxy_world *p, const http_way *front, const http_way *origin, cb_origin_group_opts o) {
    memset(p, 0, sizeof *p);
    http_world_open(&p->w);
    http_serve(&p->w, (cb_http_server_opts){.identity = origin->tls ? p->w.me : NULL, .versions = origin->version});
    route_to(&p->router, p, p->w.url, origin->version, o);
    cr_assert_eq(cb_proxy_new(&p->proxy, p->w.loop, CB_OPTS(cb_proxy_opts, .router = p->router)), CB_OK, "%s",
                 cb_last_error());
    open_front(p, front);
}

static void close_world(proxy_world *p) {
    cb_http_client_free(p->w.client);
    p->w.client = NULL;
    cb_http_server_free(p->front);
    cb_proxy_free(p->proxy);
    cb_router_unref(p->router);
    http_world_close(&p->w);
}

static void until(proxy_world *p, const int *not_zero) {
    http_run(&p->w, not_zero);
}

Test(proxy, every_pair_of_versions) {
    static uint8_t body[300000];
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 11 + i / 256);
    for (size_t front = 0; front < HTTP_WAYS; front++) {
        for (size_t origin = 0; origin < HTTP_WAYS; origin++) {
            proxy_world p;
            http_reply hello = {0}, echo = {.send = body, .send_len = sizeof body}, big = {0}, cut = {0}, head = {0};
            char pair[64];
            snprintf(pair, sizeof pair, "%s to %s", http_ways[front].name, http_ways[origin].name);
            open_world(&p, &http_ways[front], &http_ways[origin], (cb_origin_group_opts){0});
            http_fetch(&hello, &p.w, (cb_request){0}, "/hello");
            cr_expect(hello.status == 200 && hello.rc == CB_OK && !strcmp(hello.body, "hello\n"), "%s: %d %d %s", pair,
                      hello.status, hello.rc, hello.detail);
            http_fetch(&echo, &p.w, (cb_request){.method = "POST", .has_body = 1}, "/echo");
            cr_expect(echo.rc == CB_OK && echo.bytes == sizeof body, "%s: echo %d, %zu bytes, %s", pair, echo.rc,
                      echo.bytes, echo.detail);
            cr_expect_eq(echo.sum, http_sum(0, body, sizeof body), "%s: other bytes", pair);
            http_fetch(&big, &p.w, (cb_request){0}, "/big?1000000");
            cr_expect(big.rc == CB_OK && big.bytes == 1000000, "%s: big %d, %zu bytes, %s", pair, big.rc, big.bytes,
                      big.detail);
            http_fetch(&cut, &p.w, (cb_request){0}, "/cut?50000");
            /* Where the reset overtakes the head there is nothing yet: 502. */
            cr_expect(cut.status == 502 || (cut.rc < 0 && cut.ends == 0),
                      "%s: a body that was cut ended well (%zu bytes)", pair, cut.bytes);
            http_fetch(&head, &p.w, (cb_request){.method = "HEAD"}, "/hello");
            cr_expect(head.status == 200 && head.rc == CB_OK && head.bytes == 0, "%s: HEAD %d %s", pair, head.rc,
                      head.detail);
            cb_proxy_stats stats = {.size = sizeof stats};
            cr_expect_eq(cb_proxy_stats_get(p.proxy, &stats), CB_OK);
            cr_expect(stats.requests >= 5 && stats.failed >= 1, "%s: %llu requests, %llu failed", pair,
                      (unsigned long long)stats.requests, (unsigned long long)stats.failed);
            close_world(&p);
        }
    }
}

Test(proxy, an_origin_that_is_not_there) {
    proxy_world p;
    http_reply r = {0}, again = {.send = (const uint8_t *)"body", .send_len = 4};
    open_world(&p, &http_ways[0], &http_ways[0], (cb_origin_group_opts){.connect_timeout_ms = 1000});
    cb_http_server_free(p.w.server);
    p.w.server = NULL;
    http_fetch(&r, &p.w, (cb_request){0}, "/hello");
    cr_expect_eq(r.status, 502, "%d %s", r.status, r.detail);
    http_fetch(&again, &p.w, (cb_request){.method = "POST", .has_body = 1}, "/hello");
    cr_expect_eq(again.status, 502, "%d %s", again.status, again.detail);
    close_world(&p);
}

Test(proxy, an_origin_that_takes_too_long) {
    for (size_t way = 0; way < HTTP_WAYS; way++) {
        proxy_world p;
        http_reply r = {0}, after = {0};
        open_world(&p, &http_ways[way], &http_ways[way], (cb_origin_group_opts){.response_timeout_ms = 50});
        http_fetch(&r, &p.w, (cb_request){0}, "/never");
        cr_expect_eq(r.status, 504, "%s: %d %s", http_ways[way].name, r.status, r.detail);
        http_fetch(&after, &p.w, (cb_request){0}, "/hello");
        cr_expect_eq(after.status, 200, "%s: %d %s", http_ways[way].name, after.status, after.detail);
        close_world(&p);
    }
}

/* A new router while a request is under way: that one ends on the old, the next goes by the new. */
Test(proxy, swap_in_the_middle) {
    for (size_t way = 0; way < HTTP_WAYS; way++) {
        proxy_world p;
        http_reply slow = {.keep_running = true}, next = {0};
        cb_router *nowhere = NULL;
        open_world(&p, &http_ways[way], &http_ways[0], (cb_origin_group_opts){0});
        cr_assert_eq(http_begin(&slow, &p.w, (cb_request){0}, "/later"), CB_OK);
        until(&p, &p.w.heads);
        cr_assert_eq(cb_router_new(&nowhere), CB_OK);
        cr_assert_eq(cb_proxy_swap(p.proxy, nowhere), CB_OK);
        cr_expect_eq(cb_proxy_swap(p.proxy, NULL), CB_EINVAL);
        cb_router_unref(nowhere);
        cb_router_unref(p.router);
        p.router = NULL;
        http_fetch(&next, &p.w, (cb_request){0}, "/hello");
        cr_expect_eq(next.status, http_ways[way].tls && way > 2 ? 421 : 404, "%s: %d", http_ways[way].name,
                     next.status);
        http_answer_later(&p.w);
        until(&p, &slow.closes);
        cr_expect(slow.status == 200 && slow.rc == CB_OK, "%s: %d %d %s", http_ways[way].name, slow.status, slow.rc,
                  slow.detail);
        close_world(&p);
    }
}

/* Who goes first: the client, the origin, the front, the proxy. Nothing is left over (sanitizers look). */
Test(proxy, ends_at_bad_moments) {
    static const char *const paths[] = {"/later", "/big?100000000", "/free"};
    for (size_t way = 0; way < HTTP_WAYS; way += 2) {
        for (size_t path = 0; path < sizeof paths / sizeof *paths; path++) {
            for (int who = 0; who < 4; who++) {
                proxy_world p;
                http_reply r = {.keep_running = true};
                open_world(&p, &http_ways[way], &http_ways[way], (cb_origin_group_opts){0});
                cr_assert_eq(http_begin(&r, &p.w, (cb_request){0}, paths[path]), CB_OK);
                until(&p, &p.w.heads);
                if (who == 0) cb_exchange_reset(r.x, CB_RESET_CANCEL);
                if (who == 1) {
                    cb_http_server_free(p.w.server);
                    p.w.server = NULL;
                }
                if (who == 2 || who == 3) {
                    cb_http_server_free(p.front);
                    p.front = NULL;
                }
                if (who == 3) {
                    cb_proxy_free(p.proxy);
                    p.proxy = NULL;
                }
                if (!r.closes) until(&p, &r.closes);
                cr_expect_eq(r.closes, 1, "%s %s: %d", http_ways[way].name, paths[path], who);
                close_world(&p);
            }
        }
    }
}

/* The proxy may also go before its server: what runs is reset. */
Test(proxy, goes_before_its_server) {
    for (size_t way = 0; way < HTTP_WAYS; way++) {
        proxy_world p;
        http_reply r = {.keep_running = true};
        open_world(&p, &http_ways[way], &http_ways[0], (cb_origin_group_opts){0});
        cr_assert_eq(http_begin(&r, &p.w, (cb_request){0}, "/later"), CB_OK);
        until(&p, &p.w.heads);
        cb_proxy_free(p.proxy);
        p.proxy = NULL;
        until(&p, &r.closes);
        cr_expect(r.rc < 0 && r.status == 0, "%s: %d %d", http_ways[way].name, r.rc, r.status);
        close_world(&p);
    }
}

Test(proxy, options_that_are_refused) {
    http_world w;
    cb_proxy *p = NULL;
    cb_router *r = NULL;
    http_world_open(&w);
    cr_assert_eq(cb_router_new(&r), CB_OK);
    cr_expect_eq(cb_proxy_new(&p, w.loop, CB_OPTS(cb_proxy_opts, .router = NULL)), CB_EINVAL);
    cr_expect_eq(cb_proxy_new(&p, w.loop, CB_OPTS(cb_proxy_opts, .router = r, .via = "two words")), CB_EINVAL);
    cr_expect_eq(cb_proxy_new(&p, w.loop, CB_OPTS(cb_proxy_opts, .router = r, .https_port = 70000)), CB_EINVAL);
    cr_expect_eq(cb_proxy_new(&p, w.loop, CB_OPTS(cb_proxy_opts, .router = r, .resolver = "nowhere")), CB_EINVAL);
    cr_expect_null(p);
    cb_router_unref(r);
    cb_proxy_free(NULL);
    http_world_close(&w);
}

typedef struct seen_origins {
    cb_proxy_origin at[4];
    char urls[4][96];
    size_t n;
} seen_origins;

static void see_origin(const cb_proxy_origin *o, void *user) {
    seen_origins *s = user;
    cr_assert_lt(s->n, 4);
    snprintf(s->urls[s->n], sizeof s->urls[0], "%s", o->url);
    s->at[s->n++] = *o;
}

static cb_proxy_origin look(proxy_world *p) {
    seen_origins s = {.n = 0};
    cr_assert_eq(cb_proxy_origins(p->proxy, see_origin, &s), CB_OK);
    cr_assert_eq(s.n, 1);
    cr_expect(strncmp(s.urls[0], "http", 4) == 0, "%s", s.urls[0]);
    return s.at[0];
}

Test(proxy, an_origin_is_held_and_let_in_again) {
    proxy_world p;
    http_reply before = {0}, held = {0}, after = {0};
    open_world(&p, &http_ways[0], &http_ways[0], (cb_origin_group_opts){0});
    http_fetch(&before, &p.w, (cb_request){0}, "/hello");
    cb_proxy_origin o = look(&p);
    cr_expect(before.status == 200 && o.requests == 1 && o.opened == 1 && o.conns == 1 && o.idle == 1 && !o.active);
    cr_expect(o.number == 0 && o.weight == 1 && !o.held && !o.out_ms);
    cr_expect_eq(cb_proxy_hold(p.proxy, "origin", 0, 1), CB_OK);
    http_fetch(&held, &p.w, (cb_request){0}, "/hello");
    o = look(&p);
    cr_expect(held.status == 503 && o.held && o.requests == 1, "%d", held.status);
    cr_expect_eq(cb_proxy_hold(p.proxy, "origin", 0, 0), CB_OK);
    http_fetch(&after, &p.w, (cb_request){0}, "/hello");
    cr_expect(after.status == 200 && look(&p).requests == 2);
    cr_expect_eq(cb_proxy_hold(p.proxy, "origin", 1, 1), CB_ENOENT);
    cr_expect_eq(cb_proxy_hold(p.proxy, "nobody", 0, 1), CB_ENOENT);
    cr_expect_eq(cb_proxy_hold(NULL, "origin", 0, 1), CB_EINVAL);
    cr_expect_eq(cb_proxy_origins(p.proxy, NULL, NULL), CB_EINVAL);
    close_world(&p);
}

/* What checks say: who is down comes last, or not at all; and another router with the same origin knows it, too. */
Test(proxy, checks_say_what_an_origin_may_have) {
    for (uint8_t refuses = 0; refuses < 2; refuses++) {
        proxy_world p;
        http_reply r[3] = {{0}};
        open_world(&p, &http_ways[0], &http_ways[0], (cb_origin_group_opts){.down_is_out = refuses});
        cr_expect_eq(look(&p).share, 100);
        cr_expect_eq(cb_proxy_allow(p.proxy, "origin", 0, 0), CB_OK);
        http_fetch(&r[0], &p.w, (cb_request){0}, "/hello");
        cr_expect_eq(r[0].status, refuses ? 503 : 200);
        cb_router *again = NULL;
        char url[96];
        seen_origins s = {.n = 0};
        cr_assert_eq(cb_proxy_origins(p.proxy, see_origin, &s), CB_OK);
        snprintf(url, sizeof url, "%s", s.urls[0]);
        route_to(&again, &p, url, http_ways[0].version, (cb_origin_group_opts){.down_is_out = refuses});
        cr_expect_eq(cb_proxy_swap(p.proxy, again), CB_OK);
        cb_router_unref(again);
        cr_expect_eq(look(&p).share, 0, "a swap knows what checks said");
        http_fetch(&r[1], &p.w, (cb_request){0}, "/hello");
        cr_expect_eq(r[1].status, refuses ? 503 : 200);
        cr_expect_eq(cb_proxy_allow(p.proxy, "origin", 0, 40), CB_OK);
        http_fetch(&r[2], &p.w, (cb_request){0}, "/hello");
        cr_expect(r[2].status == 200 && look(&p).share == 40);
        cr_expect_eq(cb_proxy_allow(p.proxy, "origin", 1, 1), CB_ENOENT);
        cr_expect_eq(cb_proxy_allow(p.proxy, "nobody", 0, 1), CB_ENOENT);
        cr_expect_eq(cb_proxy_allow(p.proxy, "origin", 0, 101), CB_EINVAL);
        cr_expect_eq(cb_proxy_allow(NULL, "origin", 0, 1), CB_EINVAL);
        close_world(&p);
    }
}

Test(proxy, failures_of_an_origin_are_shown) {
    proxy_world p;
    http_reply r[3] = {{0}};
    open_world(&p, &http_ways[0], &http_ways[0],
               (cb_origin_group_opts){.connect_timeout_ms = 1000, .max_fails = 2, .fail_out_ms = 60000});
    cb_http_server_free(p.w.server);
    p.w.server = NULL;
    http_fetch(&r[0], &p.w, (cb_request){0}, "/hello");
    cr_expect(look(&p).failures == 1 && !look(&p).out_ms && look(&p).failed == 1);
    http_fetch(&r[1], &p.w, (cb_request){0}, "/hello");
    cr_expect(look(&p).out_ms > 50000 && look(&p).out_ms <= 60000, "%u", look(&p).out_ms);
    cr_expect_eq(cb_proxy_hold(p.proxy, "origin", 0, 0), CB_OK);
    cr_expect_eq(look(&p).out_ms, 0, "let in again");
    close_world(&p);
}

/* An HTTP server gives its address to another one: its sockets pass, the new one rests until it is told to begin, and
 * the old one yields. */
#include "support/http_fixture.h"
#include "support/quic_fixture.h"
#include <cb/group.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MANY = 8 };

/* Opens another server at the address of w's, with its sockets; which is returned. */
static cb_http_server *successor(http_world *w, cb_http_server_opts o) {
    int32_t fds[MANY];
    cb_http_server *young = NULL;
    int n = cb_http_server_fds(w->server, fds, MANY);
    cr_assert(n >= 1 && n <= MANY);
    for (int i = 0; i < n; i++)
        fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
    o.size = sizeof o;
    o.listen = cb_http_server_address(w->server);
    o.ops = w->ops;
    o.user = w;
    o.fds = fds;
    o.n_fds = (uint32_t)n;
    o.at_rest = 1;
    cr_assert_eq(cb_http_server_new(&young, w->loop, &o), CB_OK, "%s", cb_last_error());
    cr_assert_str_eq(cb_http_server_address(young), cb_http_server_address(w->server));
    return young;
}

static uint64_t taken(const cb_http_server *s) {
    cb_http_server_stats st = {.size = sizeof st};
    cb_http_server_stats_get(s, &st);
    return st.conns_total;
}

static void done(cb_loop *loop, void *user) {
    (void)loop;
    ++*(int *)user;
}

static void fetch(http_world *w, const char *name) {
    http_reply r = {0};
    http_fetch(&r, w, (cb_request){0}, "/hello");
    cr_assert(r.rc == CB_OK && r.status == 200, "%s: %d %d %s\n%s", name, r.rc, r.status, r.detail, w->log);
}

static void fetch_afresh(http_world *w, const http_way *way) {
    cb_http_client_free(w->client);
    http_client_make(w, (cb_http_client_opts){.versions = way->version});
    fetch(w, way->name);
}

Test(http_succession, a_server_yields_to_another) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        cb_group *before = NULL, *after = NULL;
        int drained = 0;
        http_world_open(&w);
        cr_assert_eq(cb_group_new(&before, CB_OPTS(cb_group_opts, .workers = 2)), CB_OK);
        cr_assert_eq(cb_group_new(&after, CB_OPTS(cb_group_opts, .workers = 2, .predecessor = before)), CB_OK);
        http_serve(&w, (cb_http_server_opts){.identity = way->tls ? w.me : NULL, .group = before});
        http_client_make(&w, (cb_http_client_opts){.versions = way->version});
        fetch(&w, way->name);
        cb_http_server *young =
            successor(&w, (cb_http_server_opts){.identity = way->tls ? w.me : NULL, .group = after});
        fetch_afresh(&w, way); /* it rests */
        cr_assert(taken(w.server) == 2 && taken(young) == 0, "%s", way->name);
        cb_http_server_resume(young);
        cb_http_server_on_drained(w.server, done, &drained);
        cr_assert_eq(cb_http_server_yield(w.server, 2000), CB_OK);
        fetch(&w, way->name); /* on the kept connection, or where it is told to go */
        for (int k = 0; k < 3; k++)
            fetch_afresh(&w, way);
        cr_assert_eq(taken(w.server), 2, "%s", way->name);
        cr_assert_geq(taken(young), 3, "%s", way->name);
        http_run(&w, &drained);
        fetch_afresh(&w, way);
        cb_http_server_free(young);
        http_world_close(&w);
        cb_group_unref(before);
        cb_group_unref(after);
    }
}

Test(http_succession, an_unused_connection_is_answered_once_more) {
    http_world w;
    int drained = 0;
    http_world_open(&w);
    http_serve(&w, (cb_http_server_opts){0});
    http_client_make(&w, (cb_http_client_opts){.versions = CB_HTTP_1});
    fetch(&w, "before");
    cb_http_server_on_drained(w.server, done, &drained);
    cr_assert_eq(cb_http_server_yield(w.server, 5000), CB_OK);
    for (int i = 0; i < 20; i++) { /* it is not closed in the meantime */
        usleep(1000);
        cb_loop_step(w.loop);
    }
    cr_assert_eq(drained, 0);
    http_reply r = {0};
    http_fetch(&r, &w, (cb_request){0}, "/hello");
    cr_assert(r.rc == CB_OK && r.status == 200 && taken(w.server) == 1, "%d %s", r.rc, r.detail);
    cb_time answered = cb_loop_now(w.loop);
    http_run(&w, &drained);
    cr_assert_lt(cb_loop_now(w.loop) - answered, 2 * CB_SEC, "with that response, not at the end of its time");
    http_world_close(&w);
}

Test(http_succession, an_unused_connection_is_closed_after_half_the_time) {
    http_world w;
    int drained = 0;
    http_world_open(&w);
    http_serve(&w, (cb_http_server_opts){0});
    http_client_make(&w, (cb_http_client_opts){.versions = CB_HTTP_1});
    fetch(&w, "before");
    cb_http_server_on_drained(w.server, done, &drained);
    cr_assert_eq(cb_http_server_yield(w.server, 40), CB_OK);
    http_run(&w, &drained);
    http_world_close(&w);
}

Test(http_succession, what_is_not_needed_is_closed_and_mistakes_are_named) {
    http_world w;
    int pipes[2], closed = 0;
    http_world_open(&w);
    http_serve(&w, (cb_http_server_opts){.identity = w.me});
    int32_t fds[MANY];
    int n = cb_http_server_fds(w.server, fds, MANY);
    cr_assert_eq(n, 2);
    cr_assert_eq(cb_http_server_fds(w.server, fds, 1), 2);
    cb_http_server_fds(w.server, fds, MANY);
    for (int i = 0; i < n; i++)
        fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
    cr_assert_eq(pipe(pipes), 0);
    cb_http_server *s = NULL;
    cb_http_server_opts o = {
        .size = sizeof o, .listen = cb_http_server_address(w.server), .identity = w.me, .fds = fds, .n_fds = 2};
    const int32_t bad[] = {fds[0], pipes[0]};
    o.fds = bad;
    cr_expect_eq(cb_http_server_new(&s, w.loop, &o), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "not a socket"), "%s", cb_last_error());
    o.fds = NULL;
    cr_expect_eq(cb_http_server_new(&s, w.loop, &o), CB_EINVAL);
    o.fds = fds;
    o.n_fds = CB_HTTP_SERVER_FDS + 1;
    cr_expect_eq(cb_http_server_new(&s, w.loop, &o), CB_EINVAL);
    for (int i = 0; i < n; i++)
        cr_assert_geq(fcntl(fds[i], F_GETFD), 0, "still ours");
    o.n_fds = 2;
    o.versions = CB_HTTP_1;
    cr_assert_eq(cb_http_server_new(&s, w.loop, &o), CB_OK, "%s", cb_last_error());
    for (int i = 0; i < n; i++)
        closed += fcntl(fds[i], F_GETFD) < 0;
    cr_expect_eq(closed, 1, "the UDP socket, which nobody would read");
    cb_http_server_free(s);
    close(pipes[0]);
    close(pipes[1]);
    http_world_close(&w);
}

/* ---- HTTP/3: a handshake that is under way when draining begins ---- */

static int say_hello(cb_exchange *x, void *user) {
    (void)user;
    return cb_exchange_send(x, 200, NULL, 0, cb_slice_str("hello"));
}

typedef struct answer {
    int closed, rc, status;
} answer;

static void note_answer(cb_exchange *x, int rc, void *user) {
    answer *a = user;
    *a = (answer){.closed = a->closed + 1, .rc = rc, .status = cb_exchange_status(x)};
}

/* In virtual time, so many milliseconds each way. Nobody else serves there: a request that is refused has no second
 * try. */
Test(http_succession, a_handshake_under_way_brings_a_request_that_is_answered) {
    static const cb_exchange_ops hello = {.size = sizeof hello, .on_head = say_hello};
    static const cb_exchange_ops asking = {.size = sizeof asking, .on_close = note_answer};
    static const uint32_t delays_us[] = {1000, 50000, 200000};
    for (size_t i = 0; i < sizeof delays_us / sizeof *delays_us; i++) {
        const cb_sim_link_opts line = {.size = sizeof line, .rate_bps = 100000000, .delay_us = delays_us[i]};
        cb_http_server *s = NULL;
        cb_http_client *c = NULL;
        cb_exchange *x = NULL;
        answer got = {0};
        int drained = 0;
        qt_world w;
        qt_world_make_sim(&w, 1, &line, NULL);
        cb_identity *me = tls_pki_identity(&w.pki, "10.0.0.2");
        int rc = cb_http_server_new(
            &s, w.loop,
            CB_OPTS(cb_http_server_opts, .listen = ":443", .identity = me, .versions = CB_HTTP_3, .ops = &hello));
        if (rc == CB_OK)
            rc = cb_http_client_new(&c, w.client_loop,
                                    CB_OPTS(cb_http_client_opts, .identity = w.client_id, .versions = CB_HTTP_3));
        if (rc == CB_OK) rc = cb_http_request(&x, c, CB_OPTS(cb_request, .url = "https://10.0.0.2/"), &asking, &got);
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
        for (int ms = 0; ms < 2000 && taken(s) == 0; ms++)
            qt_turn(&w, 1);
        cr_assert_eq(taken(s), 1);
        cb_http_server_on_drained(s, done, &drained);
        cr_assert_eq(cb_http_server_yield(s, 8000), CB_OK);
        cr_assert(qt_until(&w, &got.closed, 1));
        cr_expect(got.rc == CB_OK && got.status == 200, "%u us: %d, status %d", delays_us[i], got.rc, got.status);
        cr_expect(qt_until(&w, &drained, 1));
        cb_http_client_free(c);
        cb_http_server_free(s);
        cb_identity_unref(me);
        qt_world_drop(&w);
    }
}

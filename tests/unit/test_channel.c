#include "base/error.h"
#include "base/mem.h"
#include "loop/tcp.h"
#include "loop/turn.h"
#include "support/moved.h"
#include "support/tls_fixture.h"
#include "transport/channel.h"
#include "transport/proxy_header.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One end of a conversation. It sends `to_send` bytes of a pattern and checks that it gets that pattern. */
typedef struct end {
    cb_channel *ch;
    uint64_t to_send, sent, got;
    size_t max_queued;
    int opened, eofs, drains, closes, turns, rc;
    bool bad, echo_end, slow, abort_in_data, free_in_data;
    size_t bite; /* take at most this of a delivery, then resume in the same turn; 0 = all */
    char detail[256];
} end;

static uint8_t pattern(uint64_t i) {
    return (uint8_t)(i * 31 + (i >> 13));
}

static void pump(end *e) {
    uint8_t block[8192];
    while (e->sent < e->to_send && cb_channel_room(e->ch) > 0) {
        uint64_t left = e->to_send - e->sent;
        size_t n = left < sizeof block ? (size_t)left : sizeof block;
        for (size_t i = 0; i < n; i++) {
            block[i] = pattern(e->sent + i);
        }
        cb_slice v[2] = {{block, n / 3}, {block + n / 3, n - n / 3}};
        int rc = cb_channel_write(e->ch, v, 2);
        if (rc < 0) {
            cb_channel_abort(e->ch, rc);
            return;
        }
        e->sent += n;
    }
    size_t queued = cb_channel_queued(e->ch);
    if (queued > e->max_queued) e->max_queued = queued;
    if (e->echo_end && e->sent == e->to_send) cb_channel_shutdown(e->ch);
}

static void on_open(cb_channel *c, void *user) {
    end *e = user;
    (void)c;
    e->opened++;
    pump(e);
}

static int64_t on_data(cb_channel *c, cb_slice data, void *user) {
    end *e = user;
    if (e->abort_in_data) {
        cb_channel_abort(c, cb_fail(CB_EUSER, "enough"));
        return (int64_t)data.len;
    }
    if (e->free_in_data) {
        cb_channel_free(c);
        e->ch = NULL;
        return 0;
    }
    size_t n = e->bite && e->bite < data.len ? e->bite : data.len;
    for (size_t i = 0; i < n; i++) {
        e->bad = e->bad || data.base[i] != pattern(e->got + i);
    }
    e->got += n;
    return (int64_t)n;
}

static void on_turn(cb_channel *c, void *user) {
    end *e = user;
    e->turns++;
    if (e->bite) cb_channel_resume(c);
}

static void on_eof(cb_channel *c, void *user) {
    end *e = user;
    (void)c;
    e->eofs++;
}

static void on_drain(cb_channel *c, void *user) {
    end *e = user;
    (void)c;
    e->drains++;
    pump(e);
}

static void on_close(cb_channel *c, int rc, void *user) {
    end *e = user;
    (void)c;
    e->closes++;
    e->rc = rc;
    e->ch = NULL;
    snprintf(e->detail, sizeof e->detail, "%s", rc < 0 ? cb_last_error() : "");
}

static const cb_channel_ops ops = {on_open, on_data, on_turn, on_eof, on_drain, on_close};

typedef struct world {
    cb_metrics *metrics;
    cb_loop *loop;
    tls_pki pki;
    cb_identity *server_id, *client_id;
    cb_tls_opts server_tls, client_tls;
    cb_channel_opts server_opts, client_opts;
    int wait_ms; /* 0 = 20 */
    end c, s;
} world;

static void begin(world *w, bool tls) {
    memset(w, 0, sizeof *w);
    cr_assert_eq(cb_metrics_new(&w->metrics, NULL), CB_OK);
    cr_assert_eq(cb_loop_new(&w->loop, CB_OPTS(cb_loop_opts, .metrics = w->metrics)), CB_OK);
    w->server_opts = (cb_channel_opts){.ops = &ops, .user = &w->s};
    w->client_opts = (cb_channel_opts){.ops = &ops, .user = &w->c};
    if (!tls) return;
    tls_pki_make(&w->pki);
    w->server_id = tls_pki_identity(&w->pki, "localhost");
    w->client_id = tls_pki_client(&w->pki);
    w->server_tls = (cb_tls_opts){.server = true, .identity = w->server_id, .alpn = "h2"};
    w->client_tls = (cb_tls_opts){.identity = w->client_id, .alpn = "h2", .server_name = "localhost"};
    w->server_opts.tls = &w->server_tls;
    w->client_opts.tls = &w->client_tls;
}

static int raw_pair(int fd[2]) {
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fd);
}

static void open_channel(world *w, end *e, int fd, const cb_channel_opts *o) {
    int rc = cb_channel_new(&e->ch, w->loop, fd, NULL, o);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

static void connect_both(world *w) {
    int fd[2];
    cr_assert_eq(raw_pair(fd), 0);
    open_channel(w, &w->c, fd[0], &w->client_opts);
    open_channel(w, &w->s, fd[1], &w->server_opts);
}

/* One turn; waits for at most wait_ms. */
static void turn(world *w) {
    int64_t limit = cb_loop_timeout_ms(w->loop);
    const int most = w->wait_ms ? w->wait_ms : 20;
    struct pollfd p = {.fd = cb_loop_fd(w->loop), .events = POLLIN};
    poll(&p, 1, limit < 0 || limit > most ? most : (int)limit);
    cr_assert_eq(cb_loop_step(w->loop), CB_OK);
}

#define UNTIL(w, condition)                                                                                            \
    for (int turns_ = 0; turns_ < 20000 && !(condition); turns_++) {                                                   \
        turn(w);                                                                                                       \
    }                                                                                                                  \
    cr_assert(condition, "it did not come to: %s", #condition)

static void finish(world *w) {
    cb_channel_free(w->c.ch);
    cb_channel_free(w->s.ch);
    for (int i = 0; i < 1000 && cb_loop_alive(w->loop); i++) {
        turn(w);
    }
    cr_expect_not(cb_loop_alive(w->loop), "something is left on the loop");
    EXPECT_MOVED(w->metrics, 0, "cb_tcp_connections");
    cb_loop_free(w->loop);
    cb_metrics_unref(w->metrics);
    cb_identity_unref(w->server_id);
    cb_identity_unref(w->client_id);
    if (w->pki.ca) tls_pki_drop(&w->pki);
}

/* Counts what lives, and fails once when told to. */
typedef struct meter {
    size_t bytes, calls, fail_at; /* 0 = never */
} meter;

static void *metered(void *ptr, size_t size, void *user) {
    meter *m = user;
    size_t *block = ptr ? (size_t *)ptr - 2 : NULL;
    if (size && ++m->calls == m->fail_at) return NULL;
    m->bytes -= block ? block[0] : 0;
    if (!size) {
        free(block);
        return NULL;
    }
    block = realloc(block, size + 16);
    cr_assert_not_null(block);
    block[0] = size;
    m->bytes += size;
    return block + 2;
}

static void begin_metered(world *w, meter *m, bool tls) {
    const cb_alloc alloc = {metered, m};
    begin(w, tls);
    cb_loop_free(w->loop);
    cr_assert_eq(cb_loop_new(&w->loop, CB_OPTS(cb_loop_opts, .alloc = &alloc, .metrics = w->metrics)), CB_OK);
}

Test(channel, carries_much_both_ways) {
    for (int tls = 0; tls < 2; tls++) {
        world w;
        begin(&w, tls);
        w.c.to_send = 64 << 20;
        w.s.to_send = 64 << 20;
        connect_both(&w);
        UNTIL(&w, w.s.got == 64 << 20 && w.c.got == 64 << 20);
        cr_expect_not(w.c.bad);
        cr_expect_not(w.s.bad);
        cr_expect(w.c.drains > 0, "there was no backpressure");
        cr_expect(w.c.max_queued < (256 << 10) + 16384, "%zu bytes were queued", w.c.max_queued);
        cb_channel_shutdown(w.c.ch);
        UNTIL(&w, w.s.eofs == 1);
        cr_expect_eq(w.s.closes, 0);
        cb_channel_shutdown(w.s.ch);
        UNTIL(&w, w.s.closes == 1 && w.c.closes == 1);
        cr_expect_eq(w.c.rc, CB_OK, "%s", w.c.detail);
        cr_expect_eq(w.s.rc, CB_OK, "%s", w.s.detail);
        EXPECT_MOVED(w.metrics, 2, "cb_tcp_closed_connections", "closed");
        EXPECT_MOVED(w.metrics, 2, "cb_tcp_connection_seconds");
        if (!tls) EXPECT_MOVED(w.metrics, 2 * (64 << 20), "cb_tcp_connection_bytes", "out");
        EXPECT_MOVED(w.metrics, moved(w.metrics, "cb_tcp_connection_bytes", "out", NULL), "cb_tcp_connection_bytes",
                     "in");
        EXPECT_MOVED_IN(w.metrics, 1, 1e6, "cb_tcp_connection_stalls");
        finish(&w);
    }
}

Test(channel, one_direction_ends_before_the_other) {
    for (int row = 0; row < 4; row++) {
        const bool tls = row & 1;
        world w;
        begin(&w, tls);
        w.c.to_send = 3 << 20; /* more than the sockets hold: the end has to wait for it */
        connect_both(&w);
        UNTIL(&w, w.c.opened && w.s.opened && w.c.sent == w.c.to_send);
        cb_channel_end_output(w.c.ch);
        cb_channel_end_output(w.c.ch);
        cb_slice late = {(const uint8_t *)"x", 1};
        cr_expect_eq(cb_channel_write(w.c.ch, &late, 1), CB_ECLOSED, "row %d: written after the end", row);
        UNTIL(&w, w.s.eofs == 1);
        cr_expect_eq(w.s.got, w.c.to_send, "row %d", row);
        cr_expect_eq(w.s.closes + w.c.closes, 0, "row %d", row);
        w.s.to_send = 3 << 20;
        pump(&w.s);
        UNTIL(&w, w.c.got == w.s.to_send);
        if (row < 2) {
            cb_channel_shutdown(w.s.ch);
            UNTIL(&w, w.c.eofs == 1);
            cb_channel_shutdown(w.c.ch);
        } else {
            cb_channel_end_output(w.s.ch);
            UNTIL(&w, w.c.eofs == 1);
            cr_expect_eq(w.s.closes + w.c.closes, 0, "row %d: closed by itself", row);
            cb_channel_shutdown(w.s.ch);
            cb_channel_shutdown(w.c.ch);
        }
        UNTIL(&w, w.s.closes == 1 && w.c.closes == 1);
        cr_expect_eq(w.c.rc, CB_OK, "row %d: %s", row, w.c.detail);
        cr_expect_eq(w.s.rc, CB_OK, "row %d: %s", row, w.s.detail);
        cr_expect_not(w.c.bad || w.s.bad);
        finish(&w);
    }
}

Test(channel, a_reader_that_takes_bites_gets_all) {
    for (int tls = 0; tls < 2; tls++) {
        world w;
        begin(&w, tls);
        w.c.to_send = 300000;
        w.c.echo_end = true;
        w.s.bite = 777;
        connect_both(&w);
        UNTIL(&w, w.s.eofs == 1);
        cr_expect_eq(w.s.got, 300000);
        cr_expect_not(w.s.bad);
        finish(&w);
    }
}

Test(channel, a_reader_that_pauses_bounds_the_writer) {
    for (int tls = 0; tls < 2; tls++) {
        world w;
        begin(&w, tls);
        w.c.to_send = 32 << 20;
        connect_both(&w);
        UNTIL(&w, w.s.opened && w.s.got > 0);
        cb_channel_pause(w.s.ch);
        uint64_t got = w.s.got;
        for (int i = 0; i < 20; i++) {
            turn(&w);
        }
        cr_expect_eq(w.s.got, got, "data came while paused");
        cr_expect(cb_channel_queued(w.c.ch) <= (256 << 10) + 16384);
        cr_expect(w.c.sent < w.c.to_send);
        cb_channel_resume(w.s.ch);
        UNTIL(&w, w.s.got == 32 << 20);
        cr_expect_not(w.s.bad);
        finish(&w);
    }
}

Test(channel, a_peer_that_reads_nothing_times_out) {
    world w;
    int fd[2];
    begin(&w, false);
    cr_assert_eq(raw_pair(fd), 0);
    w.s.to_send = 8 << 20;
    w.server_opts.write_timeout = 20 * CB_MS;
    open_channel(&w, &w.s, fd[0], &w.server_opts);
    UNTIL(&w, w.s.closes == 1);
    cr_expect_eq(w.s.rc, CB_ETIMEOUT);
    EXPECT_MOVED(w.metrics, 1, "cb_tcp_closed_connections", "timeout");
    EXPECT_MOVED(w.metrics, 1, "cb_tcp_connection_stalls");
    close(fd[1]);
    finish(&w);
}

Test(channel, handshakes_that_come_to_nothing) {
    static const struct {
        const char *bytes;
        bool hang_up;
        int rc;
    } rows[] = {
        {"", false, CB_ETIMEOUT},
        {"\x16\x03\x01\x02", false, CB_ETIMEOUT},
        {"", true, CB_ECLOSED},
        {"\x16\x03\x01\x02", true, CB_ECLOSED},
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", false, CB_ETLS},
        {"\x16\x03\x01\x01\x05\x01\x01\x01\x01\x03\x03zzzzzzzzzzzz", true, CB_ECLOSED},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        world w;
        int fd[2];
        begin(&w, true);
        cr_assert_eq(raw_pair(fd), 0);
        w.server_opts.handshake_timeout = 20 * CB_MS;
        open_channel(&w, &w.s, fd[0], &w.server_opts);
        size_t len = strlen(rows[i].bytes);
        cr_assert_eq(write(fd[1], rows[i].bytes, len), (ssize_t)len);
        if (rows[i].hang_up) close(fd[1]);
        UNTIL(&w, w.s.closes == 1);
        cr_expect_eq(w.s.rc, rows[i].rc, "row %zu: %d %s", i, w.s.rc, w.s.detail);
        cr_expect_eq(w.s.opened, 0);
        const char *why = rows[i].rc == CB_ETIMEOUT ? "handshake_timeout" : rows[i].rc == CB_ETLS ? "tls" : "peer";
        if (!rows[i].hang_up) close(fd[1]);
        UNTIL(&w, moved(w.metrics, "cb_tcp_closed_connections", why, NULL) == 1); /* an alert lingers */
        finish(&w);
    }
}

Test(channel, a_refused_certificate_is_told_to_both_sides) {
    world w;
    begin(&w, true);
    w.client_tls.server_name = "other.example";
    connect_both(&w);
    UNTIL(&w, w.c.closes == 1 && w.s.closes == 1);
    cr_expect_eq(w.c.rc, CB_EAUTH);
    cr_expect(strstr(w.c.detail, "other.example") != NULL, "%s", w.c.detail);
    cr_expect_eq(w.s.rc, CB_ETLS);
    cr_expect(strstr(w.s.detail, "alert") != NULL, "%s", w.s.detail);
    cr_expect_eq(w.s.opened + w.c.opened, 0);
    finish(&w);
}

Test(channel, may_be_ended_inside_its_callbacks) {
    for (int how = 0; how < 4; how++) {
        world w;
        begin(&w, how & 1);
        w.c.to_send = 100000;
        w.s.abort_in_data = how < 2;
        w.s.free_in_data = how >= 2;
        connect_both(&w);
        if (how < 2) {
            UNTIL(&w, w.s.closes == 1);
            cr_expect_eq(w.s.rc, CB_EUSER);
            cr_expect_str_eq(w.s.detail, "enough");
            EXPECT_MOVED(w.metrics, 1, "cb_tcp_closed_connections", "other");
            UNTIL(&w, w.c.closes == 1);
            cr_expect(w.c.rc < 0);
        } else {
            UNTIL(&w, w.c.eofs == 1);
            cr_expect_eq(w.s.closes, 0, "a freed channel called back");
        }
        finish(&w);
    }
}

Test(channel, the_last_answer_survives_input_that_nobody_read) {
    world w;
    int fd[2];
    char got[64];
    begin(&w, false);
    cr_assert_eq(raw_pair(fd), 0);
    open_channel(&w, &w.s, fd[0], &w.server_opts);
    cr_assert_eq(write(fd[1], "unread", 6), 6);
    cb_slice last = cb_slice_str("413 enough\n");
    cb_channel_pause(w.s.ch);
    UNTIL(&w, w.s.opened);
    cb_channel_write(w.s.ch, &last, 1);
    cb_channel_shutdown(w.s.ch);
    cr_expect_eq(cb_channel_write(w.s.ch, &last, 1), CB_ECLOSED);
    for (int i = 0; i < 5; i++) {
        turn(&w);
    }
    cr_expect_eq(write(fd[1], "more", 4), 4); /* the peer has not seen the end yet */
    turn(&w);
    cr_expect_eq(w.s.closes, 0, "it did not linger");
    cr_expect_eq(read(fd[1], got, sizeof got), 11);
    cr_expect_eq(read(fd[1], got, sizeof got), 0);
    close(fd[1]);
    UNTIL(&w, w.s.closes == 1);
    cr_expect_eq(w.s.rc, CB_OK);
    finish(&w);
}

Test(channel, what_lingers_ends_with_its_loop) {
    for (int how = 0; how < 4; how++) {
        world w;
        int fd[2];
        meter m = {0};
        begin_metered(&w, &m, how & 1);
        cr_assert_eq(raw_pair(fd), 0);
        open_channel(&w, &w.s, fd[0], &w.server_opts);
        if (how == 1) { /* a failed handshake: the owner heard of it, the alert lingers */
            cr_assert_eq(write(fd[1], "GET / HTTP/1.1\r\n\r\n", 18), 18);
            UNTIL(&w, w.s.closes == 1);
        }
        if (how == 0 || how == 2) {
            UNTIL(&w, w.s.opened == 1);
        }
        if (how == 2) { /* much is queued, and nobody reads */
            w.s.to_send = 8 << 20;
            pump(&w.s);
        }
        cb_channel_free(w.s.ch);
        if (how == 0) turn(&w);
        cb_loop_free(w.loop);
        cr_expect_eq(m.bytes, 0, "case %d leaks", how);
        EXPECT_MOVED(w.metrics, 1, "cb_tcp_connection_seconds");
        cb_metrics_unref(w.metrics);
        close(fd[1]);
        cb_identity_unref(w.server_id);
        cb_identity_unref(w.client_id);
        if (w.pki.ca) tls_pki_drop(&w.pki);
    }
}

Test(channel, proxy_header_comes_first) {
    static const struct {
        const char *bytes, *remote;
        int rc;
        uint64_t got;
    } rows[] = {
        {"PROXY TCP4 192.0.2.1 192.0.2.2 5 6\r\n", "192.0.2.1:5", CB_OK, 0},
        {"PROXY UNKNOWN\r\n", NULL, CB_OK, 0},
        {"GET / HTTP/1.1\r\n", NULL, CB_EPROTO, 0},
        {"PROXY TCP4 192.0.2.1\r\n", NULL, CB_EPROTO, 0},
        {"PROXY TCP4", NULL, CB_ETIMEOUT, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int whole = 0; whole < 2; whole++) {
            world w;
            int fd[2];
            begin(&w, false);
            cr_assert_eq(raw_pair(fd), 0);
            w.server_opts.accept_proxy_header = true;
            w.server_opts.handshake_timeout = 30 * CB_MS;
            open_channel(&w, &w.s, fd[0], &w.server_opts);
            size_t len = strlen(rows[i].bytes);
            for (size_t at = 0, n; at < len; at += n) {
                n = whole ? len : 1;
                cr_assert_eq(write(fd[1], rows[i].bytes + at, n), (ssize_t)n);
                turn(&w);
            }
            if (rows[i].rc < 0) {
                UNTIL(&w, w.s.closes == 1);
                cr_expect_eq(w.s.rc, rows[i].rc, "row %zu: %s", i, w.s.detail);
                cr_expect_eq(w.s.opened, 0);
                EXPECT_MOVED(w.metrics, rows[i].rc == CB_EPROTO, "cb_tcp_proxy_headers", "bad");
            } else {
                char text[CB_ADDR_TEXT];
                uint8_t first = pattern(0);
                UNTIL(&w, w.s.opened == 1);
                if (rows[i].remote) cr_expect_str_eq(cb_addr_text(cb_channel_remote(w.s.ch), text), rows[i].remote);
                cr_assert_eq(write(fd[1], &first, 1), 1);
                UNTIL(&w, w.s.got == 1);
                cr_expect_not(w.s.bad);
                EXPECT_MOVED(w.metrics, 1, "cb_tcp_proxy_headers", rows[i].remote ? "named" : "unnamed");
            }
            close(fd[1]);
            if (rows[i].rc == CB_EPROTO) {
                UNTIL(&w, moved(w.metrics, "cb_tcp_closed_connections", "protocol", NULL) == 1);
            }
            finish(&w);
        }
    }
}

static void take_guest(cb_tcp_listener *l, int fd, const cb_addr *remote, void *user) {
    (void)l;
    (void)remote;
    *(int *)user = fd;
}

/* Over TCP itself: the kernel's part, and a peer that resets. */
Test(channel, the_kernel_tells_of_round_trips_and_resets) {
    for (int how = 0; how < 2; how++) {
        world w;
        cb_tcp_listener *l = NULL;
        int guest = -1;
        const struct linger reset = {.l_onoff = 1, .l_linger = 0};
        begin(&w, false);
        cb_tcp_listener_opts lo = {.on_accept = take_guest, .user = &guest};
        cr_assert_eq(cb_addr_parse(&lo.bind, "127.0.0.1:0", 0), CB_OK);
        cr_assert_eq(cb_tcp_listen(&l, w.loop, &lo), CB_OK);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        cr_assert_eq(connect(fd, &cb_tcp_listener_local(l)->sa, cb_addr_len(cb_tcp_listener_local(l))), 0);
        UNTIL(&w, guest >= 0);
        w.s.to_send = 10000;
        open_channel(&w, &w.s, guest, &w.server_opts);
        EXPECT_MOVED(w.metrics, 1, "cb_tcp_connections");
        UNTIL(&w, w.s.sent == 10000 && cb_channel_queued(w.s.ch) == 0);
        if (how == 0) cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
        if (how == 1) {
            cb_channel_shutdown(w.s.ch);
            turn(&w);
        }
        close(fd);
        UNTIL(&w, w.s.closes == 1);
        EXPECT_MOVED(w.metrics, 1, "cb_tcp_closed_connections", how ? "closed" : "reset");
        EXPECT_MOVED(w.metrics, 10000, "cb_tcp_connection_bytes", "out");
        EXPECT_MOVED(w.metrics, 1, "cb_tcp_connection_rtt_seconds");
        cr_expect_lt(moved_sum(w.metrics, "cb_tcp_connection_rtt_seconds", NULL), 1.0);
        EXPECT_MOVED(w.metrics, 0, "cb_tcp_connection_retransmits"); /* loopback loses nothing */
        cb_tcp_listener_free(l);
        finish(&w);
    }
}

Test(channel, an_idle_one_holds_no_buffers) {
    for (int tls = 0; tls < 2; tls++) {
        world w;
        meter m = {0};
        begin_metered(&w, &m, tls);
        cb_loop_fd(w.loop);
        size_t before = m.bytes;
        w.c.to_send = 100000;
        w.s.to_send = 100000;
        connect_both(&w);
        UNTIL(&w, w.s.got == 100000 && w.c.got == 100000);
        turn(&w);
        size_t stock = 0; /* the loop's, for all */
        for (size_t i = 0; i < CB_BLOCK_SIZES; i++)
            stock += ((const cb_turn *)(const void *)w.loop)->blocks.sizes[i].len * ((size_t)CB_BLOCK_MIN << i);
        size_t each = (m.bytes - before - stock) / 2;
        cr_expect(each < 2048, "%zu bytes for an idle channel beside GnuTLS's", each);
        finish(&w);
        cr_expect_eq(m.bytes, 0);
    }
}

Test(channel, lack_of_memory_at_each_point_is_survived) {
    for (int tls = 0; tls < 2; tls++) {
        size_t failures = 0;
        for (size_t n = 1; n < 30; n++) {
            world w;
            int fd[2];
            meter m = {0};
            begin_metered(&w, &m, tls);
            w.wait_ms = 1;
            cr_assert_eq(raw_pair(fd), 0);
            w.c.to_send = 40000;
            w.s.to_send = 40000;
            w.s.bite = 15000;
            m.fail_at = m.calls + n;
            if (cb_channel_new(&w.c.ch, w.loop, fd[0], NULL, &w.client_opts) < 0) {
                close(fd[0]);
                failures++;
            }
            if (cb_channel_new(&w.s.ch, w.loop, fd[1], NULL, &w.server_opts) < 0) {
                close(fd[1]);
                failures++;
            }
            for (int i = 0; i < 100 && !w.c.closes && !w.s.closes && (w.c.ch || w.s.ch); i++) {
                if (w.c.got == 40000 && w.s.got == 40000) break;
                turn(&w);
            }
            failures += (size_t)(w.c.closes + w.s.closes);
            finish(&w);
            cr_expect_eq(m.bytes, 0, "failing allocation %zu leaked", n);
        }
        cr_expect(failures > 5, "only %zu failures", failures);
    }
}

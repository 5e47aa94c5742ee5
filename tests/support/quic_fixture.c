#include "support/quic_fixture.h"
#include "support/moved.h"
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static uint8_t pattern(uint64_t at) {
    return (uint8_t)(at * 2654435761u >> 13 ^ at);
}

static uint64_t add_up(uint64_t sum, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        sum = sum * 31 + p[i];
    }
    return sum;
}

uint64_t qt_sum_of(uint64_t n) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint8_t b = pattern(i);
        sum = add_up(sum, &b, 1);
    }
    return sum;
}

/* What the test wants to happen in this callback. */
static int act(qt_side *s, cb_quic_conn *c, const char *where) {
    if (s->closes && !s->echo) s->after_close++;
    if (s->close_in && strcmp(s->close_in, where) == 0) cb_quic_conn_close(c, 7, "as the test wants");
    if (s->free_in && strcmp(s->free_in, where) == 0) {
        cb_quic_endpoint_free(s->endpoint);
        s->endpoint = NULL;
    }
    return s->fail_in && strcmp(s->fail_in, where) == 0 ? CB_EUSER : CB_OK;
}

static int on_handshake(cb_quic_conn *c, void *user) {
    qt_side *s = user;
    s->conn = c;
    s->handshakes++;
    return act(s, c, "handshake");
}

static int on_stream_open(cb_quic_conn *c, int64_t stream, void *user) {
    qt_side *s = user;
    s->opened++;
    s->last_stream = stream;
    return act(s, c, "open");
}

static int64_t on_stream_data(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user) {
    qt_side *s = user;
    int64_t n = s->hold ? 0 : (int64_t)(data.len < s->take ? data.len : s->take);
    int rc = act(s, c, "data");
    if (rc < 0) return rc;
    bool whole = n == (int64_t)data.len;
    if (s->echo && !s->hold) {
        int64_t got = cb_quic_stream_write(c, stream, (cb_slice){data.base, (size_t)n}, fin && whole);
        if (got == CB_EAGAIN) got = 0;
        if (got < 0) got = n; /* it was reset: throw away */
        whole = whole && got == n;
        n = got;
    }
    if (n && stream == 0) s->sum = add_up(s->sum, data.base, (size_t)n);
    s->bytes += (uint64_t)n;
    if (stream / 4 < QT_STREAMS) s->stream_bytes[stream / 4] += (uint64_t)n;
    if (fin && whole && !s->hold) {
        s->fins++;
        if (s->close_streams && !s->echo) cb_quic_stream_write(c, stream, (cb_slice){NULL, 0}, 1);
    }
    return n;
}

static void pump(qt_side *s) {
    uint8_t piece[8192];
    while (s->sent < s->to_send) {
        size_t n = s->to_send - s->sent < sizeof piece ? (size_t)(s->to_send - s->sent) : sizeof piece;
        for (size_t i = 0; i < n; i++) {
            piece[i] = pattern(s->sent + i);
        }
        int64_t got = cb_quic_stream_write(s->conn, s->send_stream, (cb_slice){piece, n}, s->sent + n == s->to_send);
        if (got <= 0) return;
        s->sent += (uint64_t)got;
    }
}

void qt_send(qt_side *s, uint64_t n) {
    cr_assert_eq(cb_quic_stream_open(s->conn, 1, &s->send_stream), CB_OK, "%s", cb_last_error());
    s->to_send = n;
    s->sent = 0;
    pump(s);
}

static int on_stream_writable(cb_quic_conn *c, int64_t stream, void *user) {
    qt_side *s = user;
    int rc = act(s, c, "writable");
    if (s->echo)
        cb_quic_stream_resume(c, stream);
    else if (s->endpoint && stream == s->send_stream)
        pump(s);
    return rc;
}

void qt_release(qt_side *s, int64_t stream) {
    s->hold = false;
    cb_quic_stream_resume(s->conn, stream);
}

static int on_stream_reset(cb_quic_conn *c, int64_t stream, uint64_t code, void *user) {
    qt_side *s = user;
    (void)stream;
    s->resets++;
    s->reset_code = code;
    return act(s, c, "reset");
}

static int on_stream_close(cb_quic_conn *c, int64_t stream, uint64_t code, void *user) {
    qt_side *s = user;
    (void)stream;
    s->stream_closes++;
    s->stream_close_code = code;
    return act(s, c, "stream_close");
}

static int on_streams_available(cb_quic_conn *c, void *user) {
    qt_side *s = user;
    s->available++;
    return act(s, c, "available");
}

static int on_datagram(cb_quic_conn *c, cb_slice data, void *user) {
    qt_side *s = user;
    s->datagrams++;
    s->datagram_len = data.len;
    if (s->echo) (void)cb_quic_datagram_send(c, data);
    return act(s, c, "datagram");
}

static int on_path_change(cb_quic_conn *c, void *user) {
    qt_side *s = user;
    s->path_changes++;
    return act(s, c, "path");
}

static void on_close(cb_quic_conn *c, int rc, void *user) {
    qt_side *s = user;
    s->closes++;
    s->close_rc = rc;
    snprintf(s->detail, sizeof s->detail, "%s", rc < 0 ? cb_last_error() : "");
    if (s->free_in && strcmp(s->free_in, "close") == 0) {
        cb_quic_endpoint_free(s->endpoint);
        s->endpoint = NULL;
    }
    if (s->conn == c) s->conn = NULL;
}

static const cb_quic_conn_ops ops = {
    .size = sizeof ops,
    .on_handshake = on_handshake,
    .on_stream_open = on_stream_open,
    .on_stream_data = on_stream_data,
    .on_stream_writable = on_stream_writable,
    .on_stream_reset = on_stream_reset,
    .on_stream_close = on_stream_close,
    .on_streams_available = on_streams_available,
    .on_datagram = on_datagram,
    .on_path_change = on_path_change,
    .on_close = on_close,
};

static void make(qt_world *w, int key_type) {
    memset(w, 0, sizeof *w);
    cr_assert_eq(cb_metrics_new(&w->metrics, NULL), CB_OK);
    tls_pki_make_of(&w->pki, key_type);
    w->server_id = tls_pki_identity(&w->pki, "server.test,127.0.0.1");
    w->client_id = tls_pki_client(&w->pki);
    w->server = (qt_side){.w = w, .echo = true, .take = SIZE_MAX};
    w->client = (qt_side){.w = w, .take = SIZE_MAX};
}

void qt_world_make(qt_world *w) {
    make(w, 0);
    cr_assert_eq(cb_loop_new(&w->loop, CB_OPTS(cb_loop_opts, .metrics = w->metrics)), CB_OK);
    w->client_loop = w->loop;
}

void qt_world_make_sim(qt_world *w, uint64_t seed, const cb_sim_link_opts *there, const cb_sim_link_opts *back) {
    make(w, CB_KEY_ED25519);
    cr_assert_eq(cb_sim_new(&w->sim, CB_OPTS(cb_sim_opts, .seed = seed, .metrics = w->metrics)), CB_OK, "%s",
                 cb_last_error());
    int rc = cb_sim_host_new(&w->client_host, w->sim, "client", "10.0.0.1");
    if (rc == CB_OK) rc = cb_sim_host_new(&w->server_host, w->sim, "server", "10.0.0.2");
    if (rc == CB_OK) rc = cb_sim_connect(w->client_host, w->server_host, there, back, &w->there, &w->back);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    w->client_loop = cb_sim_host_loop(w->client_host);
    w->loop = cb_sim_host_loop(w->server_host);
}

/* What was begun has ended, for one reason each, and nothing is left. */
static void check_counts(const qt_world *w) {
    static const char *const reasons[] = {"closed",  "peer",     "idle",        "handshake_timeout",
                                          "reset",   "tls",      "refused",     "unreachable",
                                          "version", "protocol", "application", "other"};
    for (size_t i = 0; i < 2; i++) {
        const char *side = i ? "client" : "server";
        double closed = 0;
        for (size_t k = 0; k < sizeof reasons / sizeof *reasons; k++)
            closed += moved(w->metrics, "cb_quic_closed_connections", side, reasons[k], NULL);
        EXPECT_MOVED(w->metrics, closed, "cb_quic_opened_connections", side);
        EXPECT_MOVED(w->metrics, 0, "cb_quic_connections", side);
        EXPECT_MOVED(w->metrics, 0, "cb_quic_handshakes_under_way", side);
        EXPECT_MOVED(w->metrics, 0, "cb_tls_handshakes_under_way", side);
    }
    EXPECT_MOVED(w->metrics,
                 moved(w->metrics, "cb_quic_opened_connections", "server", NULL) +
                     moved(w->metrics, "cb_quic_opened_connections", "client", NULL),
                 "cb_quic_connection_seconds");
    EXPECT_MOVED(w->metrics, 0, "cb_quic_open_streams");
    EXPECT_MOVED(w->metrics, 0, "cb_quic_draining_connections");
    EXPECT_MOVED(w->metrics, 0, "cb_udp_open_sockets");
}

void qt_world_drop(qt_world *w) {
    cb_quic_endpoint_free(w->client.endpoint);
    cb_quic_endpoint_free(w->server.endpoint);
    if (w->sim)
        (void)cb_sim_run_until(w->sim, cb_sim_now(w->sim));
    else
        cb_loop_step(w->loop);
    cr_assert_eq(w->client.after_close, 0);
    check_counts(w);
    cb_sim_free(w->sim);
    if (!w->sim) cb_loop_free(w->loop);
    cb_metrics_unref(w->metrics);
    cb_identity_unref(w->server_id);
    cb_identity_unref(w->client_id);
    tls_pki_drop(&w->pki);
}

cb_quic_opts qt_server_opts(qt_world *w) {
    return (cb_quic_opts){
        .size = sizeof(cb_quic_opts), .alpn = "test", .identity = w->server_id, .ops = &ops, .user = &w->server};
}

cb_quic_opts qt_client_opts(qt_world *w) {
    return (cb_quic_opts){
        .size = sizeof(cb_quic_opts), .alpn = "test", .identity = w->client_id, .ops = &ops, .user = &w->client};
}

void qt_listen(qt_world *w, const cb_quic_opts *o) {
    int rc = cb_quic_listen(&w->server.endpoint, w->loop, w->sim ? "10.0.0.2:4433" : "127.0.0.1:0", o);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    snprintf(w->remote, sizeof w->remote, "%s", cb_quic_endpoint_local(w->server.endpoint));
}

void qt_client_open(qt_world *w, const cb_quic_opts *o) {
    int rc = cb_quic_client(&w->client.endpoint, w->client_loop, w->sim ? "0.0.0.0:0" : "127.0.0.1:0", o);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

void qt_connect(qt_world *w) {
    int rc = cb_quic_connect(&w->client.conn, w->client.endpoint, w->remote, "server.test");
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

void qt_start(qt_world *w) {
    cb_quic_opts so = qt_server_opts(w), co = qt_client_opts(w);
    qt_listen(w, &so);
    qt_client_open(w, &co);
    qt_connect(w);
    cr_assert(qt_until(w, &w->client.handshakes, 1), "no handshake: %s", w->client.detail);
    cr_assert(qt_until(w, &w->server.handshakes, 1));
}

static int64_t now_ms(const qt_world *w) {
    if (w->sim) return (int64_t)(cb_sim_now(w->sim) / 1000000);
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void one_turn(qt_world *w, int64_t left) {
    if (w->sim) {
        int rc = cb_sim_run_until(w->sim, cb_sim_now(w->sim) + 1000000);
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
        return;
    }
    int64_t wait = cb_loop_timeout_ms(w->loop);
    if (wait < 0 || wait > left) wait = left;
    struct pollfd p = {.fd = cb_loop_fd(w->loop), .events = POLLIN};
    poll(&p, 1, (int)wait);
    cb_loop_step(w->loop);
}

bool qt_until(qt_world *w, const int *value, int target) {
    int64_t end = now_ms(w) + (w->sim ? 600000 : 30000), now;
    while (*value < target && (now = now_ms(w)) < end) {
        one_turn(w, end - now);
    }
    return *value >= target;
}

bool qt_until_bytes(qt_world *w, const uint64_t *value, uint64_t target) {
    int64_t end = now_ms(w) + (w->sim ? 600000 : 60000), now;
    while (*value < target && (now = now_ms(w)) < end) {
        one_turn(w, end - now);
    }
    return *value >= target;
}

void qt_turn(qt_world *w, int ms) {
    int64_t end = now_ms(w) + ms, now;
    while ((now = now_ms(w)) < end) {
        one_turn(w, end - now);
    }
}

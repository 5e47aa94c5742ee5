/* The governor below real endpoints, over simulated lines, beside cubic on the same line: docs/design/governor.md has
 * the whole grid, this is a handful of its points. */
#include "support/quic_fixture.h"
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

typedef struct point {
    double mbit, rtt_ms, bdp, loss;
    unsigned seconds, warm_up;
} point;

typedef struct figures {
    double goodput_mbit, queue_ms, queue_p95_ms, jitter_ms;
    cb_quic_conn_stats cc;
} figures;

typedef struct jitter {
    cb_time last;
    double sum;
    uint64_t n;
} jitter;

static void on_packet(const cb_sim_packet *p, void *user) {
    jitter *j = user;
    if (p->event != CB_SIM_DELIVERED) return;
    cb_time delay = p->at - p->sent_at;
    if (j->last) {
        j->sum += fabs((double)delay - (double)j->last) / 1e6;
        j->n++;
    }
    j->last = delay;
}

static void open_line(qt_world *w, const point *p, int cc, uint64_t seed) {
    cb_sim_link_opts line = {
        .size = sizeof line,
        .rate_bps = (uint64_t)(p->mbit * 1e6),
        .delay_us = (uint64_t)(p->rtt_ms * 500),
        .buffer_bdp = p->bdp,
        .loss = p->loss,
    };
    cb_sim_link_opts back = {.size = sizeof back, .delay_us = line.delay_us};
    qt_world_make_sim(w, seed, &line, &back);
    cb_quic_opts so = qt_server_opts(w), co = qt_client_opts(w);
    so.conn_window_bytes = so.stream_window_bytes = 8 << 20;
    co.stream_send_bytes = 8 << 20;
    co.cc = cc;
    qt_listen(w, &so);
    qt_client_open(w, &co);
}

static void connect_and_send(qt_world *w, uint64_t bytes) {
    int before = w->client.handshakes;
    qt_connect(w);
    cr_assert(qt_until(w, &w->client.handshakes, before + 1), "%s", w->client.detail);
    qt_send(&w->client, bytes);
}

static figures measure(const point *p, int cc) {
    qt_world w;
    figures f = {0};
    jitter j = {0};
    open_line(&w, p, cc, 1);
    connect_and_send(&w, (uint64_t)(p->mbit * 125000 * p->seconds * 2));
    qt_turn(&w, (int)p->warm_up * 1000);
    cb_sim_link_stats_reset(w.there);
    cb_sim_link_tap(w.there, on_packet, &j);
    uint64_t before = w.server.bytes;
    qt_turn(&w, (int)(p->seconds - p->warm_up) * 1000);
    cb_sim_link_stats s = {.size = sizeof s};
    cb_sim_link_stats_get(w.there, &s);
    f.cc.size = sizeof f.cc;
    cb_quic_conn_stats_get(w.client.conn, &f.cc);
    f.goodput_mbit = (double)(w.server.bytes - before) * 8 / 1e6 / (p->seconds - p->warm_up);
    f.queue_ms = (double)s.wait_mean_ns / 1e6;
    f.queue_p95_ms = (double)s.wait_p95_ns / 1e6;
    f.jitter_ms = j.n ? j.sum / (double)j.n : 0;
    qt_world_drop(&w);
    return f;
}

#define SAID(what, x)                                                                                                  \
    "%g Mbit/s, %g ms, %g BDP: %s governor %.3f, cubic %.3f", p->mbit, p->rtt_ms, p->bdp, what, g.x, c.x

Test(governor_sim, clean_lines_same_goodput_short_queue_even_packets) {
    static const point points[] = {
        {20, 40, 1, 0, 12, 3},
        {20, 40, 8, 0, 12, 3},
        {5, 100, 2, 0, 20, 5},
        {100, 20, 2, 0, 6, 2},
    };
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        const point *p = &points[i];
        figures c = measure(p, CB_CC_CUBIC), g = measure(p, CB_CC_BBRV3);
        cr_expect_gt(g.goodput_mbit, 0.995 * c.goodput_mbit, SAID("goodput", goodput_mbit));
        cr_expect_lt(g.queue_ms, c.queue_ms / 6, SAID("queue", queue_ms));
        cr_expect_lt(g.queue_p95_ms, c.queue_p95_ms / 3, SAID("queue p95", queue_p95_ms));
        cr_expect_lt(g.jitter_ms, c.jitter_ms / 2, SAID("jitter", jitter_ms));
        cr_expect_eq(g.cc.cc, CB_CC_BBRV3);
        cr_expect_eq(g.cc.cc_below, CB_CC_CUBIC);
        cr_expect_gt(g.cc.cc_phase, CB_CC_PHASE_DRAIN);
        cr_expect_lt(fabs((double)g.cc.bandwidth_bytes_s * 8 / 1e6 - p->mbit), 0.1 * p->mbit);
        cr_expect_lt(fabs((double)g.cc.path_rtt_ns / 1e6 - p->rtt_ms), 0.1 * p->rtt_ms + 1);
    }
}

/* The first connection finds out that the line loses packets, the second is not held up by it. */
Test(governor_sim, a_lossy_host_is_remembered) {
    static const point p = {20, 40, 2, 0.01, 10, 0};
    qt_world w;
    open_line(&w, &p, CB_CC_BBRV3, 3);
    connect_and_send(&w, 1 << 30);
    qt_turn(&w, 10000);
    uint64_t first = w.server.bytes;
    cb_quic_conn_stats s = {.size = sizeof s};
    cb_quic_conn_stats_get(w.client.conn, &s);
    cr_expect_eq(s.cc_below, CB_CC_CUBIC);
    cb_quic_conn_close(w.client.conn, 0, NULL);
    qt_turn(&w, 1000);
    w.client.closes = w.server.closes = 0; /* the sides go on with another connection */
    uint64_t before = w.server.bytes;
    connect_and_send(&w, 1 << 30);
    qt_turn(&w, 10000);
    cb_quic_conn_stats_get(w.client.conn, &s);
    cr_expect_eq(s.cc, CB_CC_BBRV3);
    cr_expect_eq(s.cc_below, CB_CC_BBR);
    uint64_t second = w.server.bytes - before;
    cr_expect_gt(second, 2 * first, "%llu and %llu bytes", (unsigned long long)second, (unsigned long long)first);
    qt_world_drop(&w);
}

static cb_time time_of(int cc, uint64_t bytes) {
    static const point p = {50, 40, 4, 0, 1, 0}; /* without losses, which one seed puts here and another there */
    qt_world w;
    open_line(&w, &p, cc, 1);
    connect_and_send(&w, bytes);
    cb_time start = cb_sim_now(w.sim);
    cr_assert(qt_until_bytes(&w, &w.server.bytes, bytes));
    cb_time took = cb_sim_now(w.sim) - start;
    qt_world_drop(&w);
    return took;
}

Test(governor_sim, short_transfers_take_no_more_round_trips_than_cubic) {
    static const uint64_t sizes[] = {4 << 10, 64 << 10, 256 << 10, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        double c = (double)time_of(CB_CC_CUBIC, sizes[i]) / 1e6, g = (double)time_of(CB_CC_BBRV3, sizes[i]) / 1e6;
        cr_expect_lt(g, c + 40, "%llu bytes: governor %.1f ms, cubic %.1f ms", (unsigned long long)sizes[i], g, c);
    }
}

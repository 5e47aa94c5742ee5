/* The governor by itself: its model over a path that is a formula, and its edges. */
#include "transport/governor.h"
#include <criterion/criterion.h>
#include <math.h>

enum { PACKET = 1250 };
static const double LINK = 2.5e6;         /* bytes a second: 20 Mbit/s */
static const uint64_t BASE = 40000000ull; /* round trip of the empty path */

/* One flow over one bottleneck, as a formula: packets leave the link in order at its rate, acknowledgements come back
 * after the round trip. */
typedef struct path_model {
    cb_gov g;
    double rate;
    uint64_t base, buffer;
    cb_time now, link_free, cut_at;
    uint64_t inflight, cwnd, dropped, delivered, rtt;
    struct {
        cb_time at, sent;
        bool lost;
    } flight[8192];
    size_t head, tail;
    uint64_t waiting_again; /* bytes lost and not yet sent again */
    bool idle;              /* the application has nothing to send */
    double queue_sum;
    uint64_t queue_n;
} path_model;

static void path_make(path_model *p) {
    *p = (path_model){.rate = LINK, .base = BASE, .buffer = 200000, .now = 1000000000, .cwnd = 14720};
    cb_gov_init(&p->g, p->now, PACKET);
}

static void path_ack(path_model *p) {
    while (p->head != p->tail && p->flight[p->head % 8192].at <= p->now) {
        bool lost = p->flight[p->head % 8192].lost;
        p->inflight -= PACKET;
        if (lost) {
            p->waiting_again += PACKET;
            if (p->flight[p->head % 8192].sent > p->cut_at) { /* once a round */
                p->cwnd = p->cwnd * 7 / 10;
                p->cut_at = p->now;
            }
        } else {
            p->delivered += PACKET;
            p->rtt = p->now - p->flight[p->head % 8192].sent;
            if (p->cwnd < 3000000) p->cwnd += PACKET;
        }
        p->head++;
    }
}

static void path_send(path_model *p) {
    cb_time start = p->link_free > p->now ? p->link_free : p->now;
    bool lost = (double)(start - p->now) * p->rate / 1e9 + PACKET > (double)p->buffer;
    if (lost) {
        p->dropped++;
    } else {
        p->queue_sum += (double)(start - p->now) / 1e6;
        p->queue_n++;
        p->link_free = start + (cb_time)(PACKET * 1e9 / p->rate);
    }
    cb_time back = lost ? start + p->base : p->link_free + p->base;
    p->flight[p->tail % 8192].at = back;
    p->flight[p->tail % 8192].sent = p->now;
    p->flight[p->tail++ % 8192].lost = lost;
    p->inflight += PACKET;
}

static void path_poll(path_model *p) {
    cb_gov_path in = {
        .packet = PACKET,
        .latest_rtt = p->rtt,
        .smoothed_rtt = p->rtt,
        .cwnd = p->cwnd,
        .inflight = p->inflight,
    };
    cb_gov_observe(&p->g, p->now, &in);
    size_t allowed = cb_gov_allowance(&p->g, p->now);
    cb_gov_burst b = {.settled = p->waiting_again == 0};
    while (!p->idle && b.sent + PACKET <= allowed && p->inflight + PACKET <= p->cwnd) {
        bool again = p->waiting_again != 0;
        if (again) p->waiting_again -= PACKET;
        path_send(p);
        b.sent += PACKET;
        b.retransmitted += again ? PACKET : 0;
        b.settled = !again;
    }
    b.inflight = p->inflight;
    b.app_limited = p->idle;
    cb_gov_sent(&p->g, p->now, &b);
}

static void path_run(path_model *p, uint64_t ms) {
    cb_time end = p->now + ms * 1000000ull;
    path_poll(p);
    while (p->now < end) {
        cb_time next = p->idle || p->inflight + PACKET > p->cwnd ? UINT64_MAX : cb_gov_wake(&p->g);
        if (p->head != p->tail && p->flight[p->head % 8192].at < next) next = p->flight[p->head % 8192].at;
        if (next > end) next = end;
        if (next <= p->now) next = p->now + 1000;
        p->now = next;
        path_ack(p);
        path_poll(p);
    }
}

static cb_gov_view path_look(const path_model *p) {
    cb_gov_view v;
    cb_gov_look(&p->g, &v);
    return v;
}

Test(governor, finds_the_rate_and_the_round_trip_and_keeps_the_queue_short) {
    path_model p;
    path_make(&p);
    path_run(&p, 2000);
    p.queue_sum = 0;
    p.queue_n = 0;
    uint64_t before = p.delivered;
    path_run(&p, 4000);
    cb_gov_view v = path_look(&p);
    cr_assert_lt(fabs(v.bandwidth - LINK), LINK * 0.01, "%.0f", v.bandwidth);
    cr_assert_lt(v.min_rtt, BASE + 1500000, "%llu", (unsigned long long)v.min_rtt);
    cr_assert_gt((double)(p.delivered - before), 0.995 * 4 * LINK, "%.4f", (double)(p.delivered - before) / 4 / LINK);
    cr_assert_lt(p.queue_sum / (double)p.queue_n, 4.0, "%f ms", p.queue_sum / (double)p.queue_n);
}

Test(governor, follows_steps_of_the_rate) {
    static const double factor[] = {10, 0.1, 0.5, 2};
    for (size_t i = 0; i < sizeof factor / sizeof factor[0]; i++) {
        path_model p;
        path_make(&p);
        path_run(&p, 3000);
        p.rate = LINK * factor[i];
        path_run(&p, 8000);
        cb_gov_view v = path_look(&p);
        cr_assert_lt(fabs(v.bandwidth - p.rate), p.rate * 0.05, "x%g: %.0f for %.0f", factor[i], v.bandwidth, p.rate);
    }
}

/* An application that has little to say must not make the path look slow. */
Test(governor, an_idle_application_lowers_nothing) {
    path_model p;
    path_make(&p);
    path_run(&p, 3000);
    double before = path_look(&p).bandwidth;
    for (int i = 0; i < 100; i++) {
        p.idle = true;
        path_run(&p, 97);
        p.idle = false;
        path_run(&p, 3);
    }
    cr_assert_gt(path_look(&p).bandwidth, before * 0.98);
    uint64_t mark = p.delivered;
    path_run(&p, 1000);
    cr_assert_gt((double)(p.delivered - mark), 0.9 * LINK);
}

Test(governor, bursts_are_small_and_lateness_is_made_up_for_within_bounds) {
    path_model p;
    path_make(&p);
    path_run(&p, 3000);
    cb_gov *g = &p.g;
    cr_assert_eq(path_look(&p).phase == CB_GOV_STARTUP, false);
    g->path.inflight = 0; /* nothing but the pacer decides */
    g->cap = UINT64_MAX;
    g->pacing = LINK;
    g->next_tx = p.now;
    cr_assert_eq(cb_gov_allowance(g, p.now), PACKET);
    cr_assert_eq(cb_gov_allowance(g, p.now - 1), 0);
    cr_assert_eq(cb_gov_allowance(g, p.now + 1000000), 3 * (size_t)PACKET); /* and 2,500 bytes for a millisecond */
    cr_assert_leq(cb_gov_allowance(g, p.now + 60000000000ull), 5 * (size_t)PACKET);
    g->pacing = 125e6; /* 1 Gbit/s: a quarter of a millisecond leaves together */
    size_t burst = cb_gov_allowance(g, p.now);
    cr_assert_gt(burst, 20 * (size_t)PACKET);
    cr_assert_leq(burst, 32000);
}

/* Packets a wake-up of the pacer, whose timers are late. What was sent is acknowledged at once. */
static double packets_a_wake_up(double rate, cb_time late) {
    enum { SETTLE = 256, WAKE_UPS = 512 };
    const cb_gov_path empty = {.packet = PACKET, .latest_rtt = BASE, .smoothed_rtt = BASE, .cwnd = 3000000};
    path_model p;
    path_make(&p);
    path_run(&p, 3000);
    cb_gov *g = &p.g;
    double sent = 0;
    cb_time since = 0;
    g->next_tx = p.now;
    for (int i = 0; i < SETTLE + WAKE_UPS; i++) {
        p.now = g->next_tx + late;
        if (i == SETTLE) since = p.now;
        cb_gov_observe(g, p.now, &empty);
        g->pacing = rate;
        g->cap = UINT64_MAX;
        cb_gov_burst b = {.settled = true};
        b.sent = b.inflight = cb_gov_allowance(g, p.now);
        cb_gov_sent(g, p.now, &b);
        if (i >= SETTLE) sent += (double)b.sent;
    }
    double got = sent * 1e9 / (double)(p.now - since);
    cr_expect_float_eq(got / rate, 1, 0.02, "%.0f of %.0f bytes a second", got, rate);
    return sent / PACKET / WAKE_UPS;
}

/* Late timers make bursts, of a millisecond and the lateness at most; exact ones none. A wake-up for another reason
 * sends early. */
Test(governor, spaces_no_finer_than_timers_are) {
    static const struct {
        double mbit, late_us, packets;
    } rows[] = {{100, 0, 1}, {100, 30, 2}, {100, 100, 8}, {100, 800, 18}, {20, 30, 1}, {20, 800, 3}, {5, 800, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double n = packets_a_wake_up(rows[i].mbit * 1e6 / 8, (cb_time)(rows[i].late_us * 1000));
        cr_expect_float_eq(n, rows[i].packets, 0.45, "%g Mbit/s, %g us late: %.2f packets a wake-up", rows[i].mbit,
                           rows[i].late_us, n);
    }
    path_model p;
    path_make(&p);
    path_run(&p, 3000);
    p.g.path.inflight = 0;
    p.g.cap = UINT64_MAX;
    p.g.lateness = 25000;
    p.g.next_tx = p.now + 99000;
    cr_expect_eq(cb_gov_allowance(&p.g, p.now), PACKET);
    p.g.next_tx = p.now + 101000;
    cr_expect_eq(cb_gov_allowance(&p.g, p.now), 0);
}

/* Clocks that stand or run backwards, and counts that fall, end in nothing worse than a wrong model. */
Test(governor, strange_inputs_do_no_harm) {
    cb_gov g;
    uint32_t x = 1;
    cb_time now = 5;
    cb_gov_init(&g, now, PACKET);
    for (int i = 0; i < 200000; i++) {
        x = x * 1664525u + 1013904223u;
        switch (x >> 29) {
        case 0:
            now = now > (x & 0xffffff) ? now - (x & 0xffffff) : 0;
            break;
        case 1:
            now += (uint64_t)(x & 0xffff) << (x & 31);
            break;
        default:
            now += x & 0xfffff;
            break;
        }
        cb_gov_path in = {.packet = x & 1 ? PACKET : 0,
                          .latest_rtt = x & 2 ? x : 0,
                          .smoothed_rtt = x >> 3,
                          .cwnd = x & 4 ? UINT64_MAX : x,
                          .inflight = x & 8 ? UINT64_MAX / 2 : x >> 5};
        cb_gov_observe(&g, now, &in);
        (void)cb_gov_allowance(&g, now);
        cb_gov_burst b = {.sent = x >> 9,
                          .retransmitted = x & 16 ? x >> 8 : 0,
                          .inflight = x & 32 ? 0 : x,
                          .app_limited = x & 64,
                          .settled = x & 128};
        cb_gov_sent(&g, now, &b);
        (void)cb_gov_wake(&g);
        cb_gov_view v;
        cb_gov_look(&g, &v);
        cr_assert(isfinite(v.bandwidth) && isfinite(v.pacing) && v.bandwidth >= 0 && v.pacing >= 0);
        cr_assert(v.loss >= 0 && v.loss <= 1);
    }
}

/* A link does what its options say: measured, not assumed. */
#include "support/sim_fixture.h"
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LINK(...) CB_OPTS(cb_sim_link_opts, __VA_ARGS__)

/* Is a share, counted in n tries, within five standard deviations of what it should be? */
static bool near_share(double counted, double n, double share) {
    double off = counted - n * share;
    return off * off <= 25 * n * share * (1 - share) + 1;
}

Test(sim_link, rate_and_delay_are_exact) {
    enum { N = 1000 };
    st_pair *p = st_make(1, LINK(.rate_bps = 7000000, .delay_us = 12345, .buffer_bytes = 1u << 30), NULL);
    st_send(p, N, 0);
    st_run(p);
    cr_assert_eq(p->count, N);
    for (uint32_t i = 0; i < N; i++) {
        cr_assert_eq(p->got[i].number, i);
        cb_time should = (cb_time)(i + 1) * ST_WIRE * 8 * ST_S / 7000000 + 12345000;
        cr_assert_leq(p->got[i].at, should, "%u", i);
        cr_assert_geq(p->got[i].at + 1, should, "%u", i);
    }
    cb_sim_link_stats s = st_stats(p->ab);
    cr_assert_eq(s.out_bytes, (uint64_t)N * ST_WIRE);
    cr_assert_eq(s.busy_ns, p->got[N - 1].at - 12345000);
    cr_assert_eq(s.wait_max_ns, (uint64_t)(N - 1) * ST_WIRE * 8 * ST_S / 7000000);
    st_drop(p);
}

Test(sim_link, a_perfect_line_is_instant) {
    st_pair *p = st_make(1, NULL, NULL);
    st_send(p, 3, 0);
    st_run(p);
    cr_assert_eq(p->count, 3);
    cr_assert_eq(p->got[2].at, 0);
    st_drop(p);
}

Test(sim_link, buffers_in_bytes_and_in_bdp) {
    static const struct {
        uint64_t bytes, delay_us, rtt_us;
        double bdp;
        size_t arrive; /* of a burst of 400: one is being sent, the rest waits */
    } rows[] = {
        {10 * ST_WIRE, 1000, 0, 0, 11},          {10 * ST_WIRE - 1, 1000, 0, 0, 10},          {1, 1000, 0, 0, 1},
        {0, 20000, 0, 1, 1 + 50000 / ST_WIRE},                                                /* 10 Mbit/s x 40 ms */
        {0, 20000, 0, 0.3, 1 + 15000 / ST_WIRE}, {0, 20000, 100000, 2, 1 + 250000 / ST_WIRE}, /* 10 Mbit/s x 100 ms x 2
                                                                                               */
        {0, 100, 0, 0, 1 + 65536 / ST_WIRE},     /* the default has a floor */
        {0, 100000, 0, 0, 1 + 250000 / ST_WIRE}, /* and is one BDP above it */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        st_pair *p = st_make(1,
                             LINK(.rate_bps = 10000000, .delay_us = rows[i].delay_us, .buffer_bytes = rows[i].bytes,
                                  .buffer_bdp = rows[i].bdp, .buffer_rtt_us = rows[i].rtt_us),
                             NULL);
        st_send(p, 400, 0);
        st_run(p);
        cr_assert_eq(p->count, rows[i].arrive, "row %zu: %zu", i, p->count);
        cb_sim_link_stats s = st_stats(p->ab);
        cr_assert_eq(s.drop_queue, 400 - rows[i].arrive, "row %zu", i);
        cr_assert_eq(s.queue_bytes_max, (rows[i].arrive - 1) * ST_WIRE, "row %zu", i);
        st_drop(p);
    }
}

Test(sim_link, random_loss) {
    static const double shares[] = {0.001, 0.01, 0.2, 0.5, 1};
    for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
        enum { N = 20000 };
        st_pair *p = st_make(i, LINK(.loss = shares[i]), NULL);
        st_send(p, N, 0);
        st_run(p);
        cr_assert(near_share((double)(N - p->count), N, shares[i]), "%g: %zu lost", shares[i], N - p->count);
        cr_assert_eq(st_stats(p->ab).drop_loss, N - p->count);
        st_drop(p);
    }
}

Test(sim_link, losses_in_bursts) {
    enum { N = 40000 };
    st_pair *p = st_make(3, LINK(.burst_enter = 0.01, .burst_leave = 0.2), NULL);
    st_send(p, N - 1, 0);
    st_run(p);
    double lost = (double)(N - 1 - p->count), bursts = 0;
    for (size_t i = 1; i < p->count; i++)
        if (p->got[i].number != p->got[i - 1].number + 1) bursts++;
    /* In the bad state for 0.01 / 0.21 of the packets, and 5 packets in a row; of independent losses, 5 in a row are
     * rare. */
    cr_assert(lost / N > 0.038 && lost / N < 0.058, "%g", lost / N);
    cr_assert(lost / bursts > 4.4 && lost / bursts < 5.6, "%g in a row", lost / bursts);
    cr_assert_eq(st_stats(p->ab).drop_burst, (uint64_t)lost);
    st_drop(p);
    p = st_make(3, LINK(.burst_enter = 0.01, .burst_leave = 0.2, .burst_loss = 0.5), NULL);
    st_send(p, N - 1, 0);
    st_run(p);
    double half = (double)(N - 1 - p->count);
    cr_assert(half > lost * 0.35 && half < lost * 0.65, "%g of %g", half, lost);
    st_drop(p);
}

Test(sim_link, reordering_delays_some_so_that_others_overtake) {
    enum { N = 20000 };
    st_pair *p = st_make(4, LINK(.delay_us = 1000, .reorder = 0.05, .reorder_us = 5000), NULL);
    st_send_each(p, N, ST_MS, 0);
    st_run(p);
    size_t late = 0, overtaken = 0;
    uint32_t highest = 0;
    cr_assert_eq(p->count, N);
    for (size_t i = 0; i < N; i++) {
        cb_time took = p->got[i].at - p->got[i].sent;
        cr_assert(took == ST_MS || took == 6 * ST_MS, "%zu: %d us", i, (int)(took / 1000));
        late += took != ST_MS;
        overtaken += p->got[i].number < highest;
        if (p->got[i].number > highest) highest = p->got[i].number;
    }
    cr_assert(near_share((double)late, N, 0.05), "%zu", late);
    cr_assert_gt(overtaken, late * 9 / 10);
    cr_assert_eq(st_stats(p->ab).reordered, late);
    st_drop(p);
}

Test(sim_link, aggregation_lets_packets_arrive_together) {
    enum { N = 1000, BATCH = 20 };
    st_pair *p = st_make(4, LINK(.delay_us = 3000, .batch_us = BATCH * 1000), NULL);
    st_send_each(p, N, ST_MS, 0);
    st_run(p);
    size_t instants = 0;
    cr_assert_eq(p->count, N);
    for (size_t i = 0; i < N; i++) {
        cb_time took = p->got[i].at - p->got[i].sent;
        cr_assert_eq(p->got[i].at % (BATCH * ST_MS), 0);
        cr_assert(took >= 3 * ST_MS && took < (3 + BATCH) * ST_MS);
        cr_assert(i == 0 || p->got[i].number == p->got[i - 1].number + 1, "the order changed");
        instants += i == 0 || p->got[i].at != p->got[i - 1].at;
    }
    cr_assert(instants >= N / BATCH && instants <= N / BATCH + 1, "%zu", instants);
    st_drop(p);
}

Test(sim_link, jitter_keeps_the_order) {
    enum { N = 20000 };
    st_pair *p = st_make(5, LINK(.delay_us = 1000, .jitter_us = 2000), NULL);
    st_send_each(p, N / 2, 3 * ST_MS, 0); /* far apart: delays are independent */
    st_run(p);
    double sum = 0;
    for (size_t i = 0; i < p->count; i++) {
        cb_time took = p->got[i].at - p->got[i].sent;
        cr_assert(took >= ST_MS && took <= 3 * ST_MS, "%d us", (int)(took / 1000));
        sum += (double)took;
    }
    cr_assert(fabs(sum / (N / 2) - 2e6) < 3e4, "mean %g", sum / (N / 2));
    st_send_each(p, N / 2, ST_MS / 10, 0); /* close together */
    st_run(p);
    cr_assert_eq(p->count, N);
    for (uint32_t i = 0; i < N; i++)
        cr_assert_eq(p->got[i].number, i);
    st_drop(p);
}

Test(sim_link, duplicates_and_damage) {
    enum { N = 20000 };
    st_pair *p = st_make(6, LINK(.duplicate = 0.1), NULL);
    st_send(p, N, 0);
    st_run(p);
    cr_assert(near_share((double)(p->count - N), N, 0.1), "%zu", p->count - N);
    cr_assert_eq(st_stats(p->ab).duplicated, p->count - N);
    st_drop(p);
    static const uint32_t bits[] = {1, 3};
    for (size_t k = 0; k < 2; k++) {
        p = st_make(7, LINK(.corrupt = 0.2, .corrupt_bits = bits[k]), NULL);
        st_send(p, N, 0);
        st_run(p);
        size_t damaged = 0;
        cr_assert_eq(p->count, N, "damage is no loss");
        for (size_t i = 0; i < N; i++) {
            cr_assert_leq(p->got[i].flipped, bits[k]);
            damaged += p->got[i].flipped != 0;
        }
        cr_assert(near_share((double)damaged, N, 0.2 * (1 - 4.0 / ST_PAYLOAD)), "%zu", damaged);
        st_drop(p);
    }
}

Test(sim_link, marks_ect_above_the_threshold) {
    for (unsigned ecn = 0; ecn < 4; ecn++) {
        st_pair *p = st_make(8, LINK(.rate_bps = 1000000, .mark_bytes = 5 * ST_WIRE, .buffer_bytes = 1u << 30), NULL);
        st_send(p, 100, ecn);
        st_run(p);
        for (size_t i = 0; i < 100; i++) {
            bool above = i >= 6; /* one is being sent, five wait */
            unsigned should = above && (ecn == 1 || ecn == 2) ? 3 : ecn;
            cr_assert_eq(p->got[i].ecn, should, "%zu: %u", i, p->got[i].ecn);
        }
        cr_assert_eq(st_stats(p->ab).marked, ecn == 1 || ecn == 2 ? 94 : 0);
        st_drop(p);
    }
}

Test(sim_link, a_policer_lets_its_rate_through) {
    enum { N = 20000 };
    st_pair *p = st_make(9, LINK(.police_bps = 5000000, .police_burst_bytes = 20 * ST_WIRE), NULL);
    st_send(p, 100, 0);
    st_run(p);
    cr_assert_eq(p->count, 20, "the bucket was full");
    st_send_each(p, N, 822400, 0); /* 10 Mbit/s */
    st_run(p);
    double seconds = N * 822400e-9, through = (double)(p->count - 20) * ST_WIRE * 8 / seconds;
    cr_assert(fabs(through / 5e6 - 1) < 0.01, "%g bit/s", through);
    cr_assert_eq(st_stats(p->ab).drop_policer, 100 + N - p->count);
    st_drop(p);
}

Test(sim_link, options_change_under_traffic) {
    cb_sim_link_opts o = {.size = sizeof o, .rate_bps = 8000000, .delay_us = 1000, .buffer_bytes = 1u << 30};
    st_pair *p = st_make(10, &o, NULL);
    st_send(p, 100, 0); /* 1,028 us each */
    st_until(p->sim, 10 * 1028000 + 514000);
    o.rate_bps = 800000; /* in the middle of the eleventh: 5,140 us are left of it */
    o.delay_us = 2000;
    cr_assert_eq(cb_sim_link_set(p->ab, &o), CB_OK);
    st_until(p->sim, ST_S / 2);
    cr_assert_eq(p->got[9].at, 10 * 1028000 + ST_MS);
    cr_assert_eq(p->got[10].at, 10 * 1028000 + 514000 + 5140000 + 2 * ST_MS);
    cr_assert_eq(p->got[11].at, p->got[10].at + 10280000);
    o.rate_bps = 0;
    cr_assert_eq(cb_sim_link_set(p->ab, &o), CB_OK);
    st_run(p);
    cr_assert_eq(p->count, 100);
    cr_assert_eq(p->got[99].at, ST_S / 2 + 2 * ST_MS);
    /* a change that is refused changes nothing */
    o.loss = 2;
    cr_assert_eq(cb_sim_link_set(p->ab, &o), CB_EINVAL);
    cb_sim_link_opts now = {.size = sizeof now};
    cr_assert_eq(cb_sim_link_get(p->ab, &now), CB_OK);
    cr_assert(now.loss == 0 && now.delay_us == 2000 && now.mtu_bytes == 1500);
    st_drop(p);
}

Test(sim_link, black_holes_and_narrow_links) {
    st_pair *p = st_make(11, LINK(.delay_us = 1000, .mtu_bytes = ST_WIRE), NULL);
    st_send(p, 10, 0);
    cb_sim_link_down(p->ab, 1);
    st_send(p, 10, 0);
    cb_sim_link_down(p->ab, 0);
    st_send(p, 10, 0);
    st_run(p);
    cr_assert_eq(p->count, 20, "what was on the wire arrives");
    cr_assert_eq(st_stats(p->ab).drop_down, 10);
    uint8_t longer[ST_PAYLOAD + 1] = {0};
    cr_assert_eq(cb_sim_socket_send(p->from, "b:7000", (cb_slice){longer, sizeof longer}, 0), CB_OK);
    st_run(p);
    cr_assert_eq(p->count, 20);
    cr_assert_eq(st_stats(p->ab).drop_mtu, 1);
    st_drop(p);
}

static void count_cross(const cb_sim_packet *k, void *user) {
    size_t *counts = user;
    if (k->event == CB_SIM_DELIVERED) counts[k->from ? 0 : 1]++;
}

Test(sim_link, cross_traffic_takes_its_share) {
    static const struct {
        uint32_t on_ms, off_ms;
        uint8_t poisson;
        double share; /* of 5 Mbit/s */
    } rows[] = {{0, 0, 0, 1}, {0, 0, 1, 1}, {30, 70, 0, 0.3}, {100, 300, 1, 0.25}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t counts[2] = {0, 0};
        cb_sim_traffic *t;
        st_pair *p = st_make(12, LINK(.rate_bps = 10000000, .delay_us = 1000), NULL);
        cb_sim_link_tap(p->ab, count_cross, counts);
        int rc =
            cb_sim_traffic_new(&t, p->ab,
                               CB_OPTS(cb_sim_traffic_opts, .rate_bps = 5000000, .packet_bytes = 500,
                                       .on_ms = rows[i].on_ms, .off_ms = rows[i].off_ms, .poisson = rows[i].poisson));
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
        st_until(p->sim, 40 * ST_S);
        double bps = (double)counts[1] * 500 * 8 / 40;
        cr_assert(fabs(bps / (5e6 * rows[i].share) - 1) < 0.02, "row %zu: %g", i, bps);
        /* and it competes: with as much of ours as the link is wide, nobody gets all */
        cb_sim_link_stats before = st_stats(p->ab);
        st_send_each(p, 2000, 822400, 0);
        st_run(p); /* ends, although cross traffic does not */
        cb_sim_link_stats after = st_stats(p->ab);
        cr_assert_eq(counts[0], p->count);
        if (rows[i].share >= 1) cr_assert_gt(after.drop_queue, before.drop_queue);
        cb_sim_traffic_free(t);
        st_run(p);
        st_until(p->sim, cb_sim_now(p->sim) + ST_S);
        size_t ended = counts[1];
        st_until(p->sim, cb_sim_now(p->sim) + ST_S);
        cr_assert_eq(counts[1], ended);
        st_drop(p);
    }
}

typedef struct waits {
    uint64_t ns[ST_KEPT];
    size_t n, entered, dropped;
    const cb_sim_host *from, *to;
} waits;

static void on_tap(const cb_sim_packet *k, void *user) {
    waits *w = user;
    cr_assert_eq(k->size, sizeof *k);
    cr_assert_eq(k->wire_bytes, ST_WIRE);
    cr_assert_eq(k->data.len, ST_PAYLOAD);
    cr_assert_eq(k->to_port, 7000);
    cr_assert_eq(k->from, w->from);
    cr_assert_eq(k->to, w->to);
    if (k->event == CB_SIM_ENTERED) w->entered++;
    if (k->event == CB_SIM_DROPPED) {
        cr_assert_eq(k->cause, CB_SIM_CAUSE_QUEUE);
        w->dropped++;
    }
    if (k->event != CB_SIM_DELIVERED) return;
    w->ns[w->n++] = k->wait_ns;
    /* 10 Mbit/s and 5 ms */
    cr_assert_eq(k->at - k->entered_at, k->wait_ns + (cb_time)ST_WIRE * 800 + 5 * ST_MS);
    cr_assert_eq(k->sent_at, k->entered_at);
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void cr_near(uint64_t got, uint64_t exact, const char *what) {
    cr_assert(fabs((double)got - (double)exact) <= 0.01 * (double)exact + 1, "%s: %llu for %llu", what,
              (unsigned long long)got, (unsigned long long)exact);
}

Test(sim_link, taps_and_waiting_times_agree) {
    waits *w = calloc(1, sizeof *w);
    st_pair *p = st_make(13, LINK(.rate_bps = 10000000, .delay_us = 5000, .buffer_bytes = 60 * ST_WIRE), NULL);
    w->from = p->a;
    w->to = p->b;
    cb_sim_link_tap(p->ab, on_tap, w);
    for (int burst = 0; burst < 300; burst++) {
        st_send(p, 1 + (size_t)(cb_sim_random(p->sim) % 70), 0);
        st_until(p->sim, cb_sim_now(p->sim) + cb_sim_random(p->sim) % (60 * ST_MS));
    }
    st_run(p);
    cb_sim_link_stats s = st_stats(p->ab);
    cr_assert_eq(w->entered, s.in_packets - s.drop_queue);
    cr_assert_eq(w->n, w->entered);
    cr_assert_eq(w->dropped, s.drop_queue);
    cr_assert_gt(w->dropped, 0);
    double sum = 0;
    for (size_t i = 0; i < w->n; i++)
        sum += (double)w->ns[i];
    qsort(w->ns, w->n, sizeof w->ns[0], compare);
    cr_near(s.wait_mean_ns, (uint64_t)(sum / (double)w->n), "mean");
    cr_near(s.wait_p50_ns, w->ns[w->n / 2], "median");
    cr_near(s.wait_p95_ns, w->ns[w->n * 95 / 100], "p95");
    cr_near(s.wait_p99_ns, w->ns[w->n * 99 / 100], "p99");
    cr_assert_eq(s.wait_max_ns, w->ns[w->n - 1]);
    cb_sim_link_stats_reset(p->ab);
    s = st_stats(p->ab);
    cr_assert(s.in_packets == 0 && s.wait_max_ns == 0 && s.busy_ns == 0 && s.since_ns == cb_sim_now(p->sim));
    st_drop(p);
    free(w);
}

static void nobody(cb_sim_socket *s, const cb_sim_datagram *d, void *user) {
    (void)s;
    (void)user;
    cr_assert_fail("%s", d->from);
}

Test(sim_link, several_hosts_share_a_bottleneck) {
    enum { HOSTS = 5, EACH = 200 };
    cb_sim *sim;
    cb_sim_host *hosts[HOSTS], *server;
    cb_sim_link *access[HOSTS], *bottleneck;
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&server, sim, "server", "10.1.0.1"), CB_OK);
    cr_assert_eq(cb_sim_link_new(&bottleneck, sim, LINK(.rate_bps = 1000000, .buffer_bytes = 1u << 30)), CB_OK);
    for (int i = 0; i < HOSTS; i++) {
        static const char *const names[] = {"h0", "h1", "h2", "h3", "h4"};
        static const char *const addresses[] = {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"};
        cr_assert_eq(cb_sim_host_new(&hosts[i], sim, names[i], addresses[i]), CB_OK);
        cr_assert_eq(cb_sim_link_new(&access[i], sim, LINK(.delay_us = 1000u * (unsigned)i)), CB_OK);
        cb_sim_link *way[] = {access[i], bottleneck};
        cr_assert_eq(cb_sim_path(hosts[i], server, NULL, way, 2), CB_OK);
        cr_assert_eq(cb_sim_path(server, hosts[i], NULL, NULL, 0), CB_OK);
    }
    uint8_t payload[ST_PAYLOAD] = {0};
    for (int i = 0; i < HOSTS; i++) {
        cb_sim_socket *s;
        cr_assert_eq(cb_sim_socket_new(&s, hosts[i], 0, nobody, NULL), CB_OK);
        for (int k = 0; k < EACH; k++)
            cr_assert_eq(cb_sim_socket_send(s, "server:7000", (cb_slice){payload, sizeof payload}, 0), CB_OK);
    }
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_assert_eq(cb_sim_now(sim), (cb_time)HOSTS * EACH * ST_WIRE * 8000, "one line, never idle");
    cr_assert_eq(st_stats(bottleneck).out_packets, HOSTS * EACH);
    cr_assert_eq(st_host_stats(server).drop_port, HOSTS * EACH, "nobody listens");
    cb_sim_free(sim);
}

Test(sim_link, wrong_options_are_named) {
    static const struct {
        cb_sim_link_opts o;
        const char *name;
    } rows[] = {
        {{.loss = 1.5}, "loss"},
        {{.loss = -0.1}, "loss"},
        {{.loss = NAN}, "loss"},
        {{.burst_enter = 0.1}, "burst_leave"},
        {{.burst_enter = 0.1, .burst_leave = 2}, "burst_leave"},
        {{.burst_loss = 7}, "burst_loss"},
        {{.corrupt = 1.01}, "corrupt"},
        {{.duplicate = -1}, "duplicate"},
        {{.reorder = 0.1}, "reorder_us"},
        {{.reorder = 3, .reorder_us = 1}, "reorder"},
        {{.buffer_bdp = 1}, "buffer_bdp"},
        {{.buffer_bdp = 1, .rate_bps = 1000}, "buffer_bdp"},
        {{.buffer_bdp = -1}, "buffer_bdp"},
        {{.buffer_bdp = 1, .buffer_bytes = 1, .rate_bps = 1000, .delay_us = 1}, "buffer_bdp"},
        {{.mtu_bytes = 67}, "mtu_bytes"},
        {{.mtu_bytes = 70000}, "mtu_bytes"},
        {{.rate_bps = UINT64_MAX}, "rate_bps"},
        {{.police_bps = UINT64_MAX}, "police_bps"},
        {{.delay_us = UINT64_MAX}, "delay_us"},
        {{.jitter_us = UINT64_MAX}, "jitter_us"},
        {{.buffer_rtt_us = UINT64_MAX}, "buffer_rtt_us"},
        {{.down = 2}, "down"},
    };
    cb_sim *sim;
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cb_sim_link_opts o = rows[i].o;
        cb_sim_link *l = NULL;
        o.size = sizeof o;
        cr_assert_eq(cb_sim_link_new(&l, sim, &o), CB_EINVAL, "row %zu", i);
        cr_assert(strstr(cb_last_error(), rows[i].name), "row %zu: %s", i, cb_last_error());
    }
    static const struct {
        cb_sim_traffic_opts o;
        const char *name;
    } sources[] = {
        {{.rate_bps = 0}, "rate_bps"},
        {{.rate_bps = 1, .packet_bytes = 27}, "packet_bytes"},
        {{.rate_bps = 1, .packet_bytes = 65536}, "packet_bytes"},
        {{.rate_bps = 1, .on_ms = 1}, "off_ms"},
        {{.rate_bps = 1, .off_ms = 1}, "on_ms"},
        {{.rate_bps = 1, .poisson = 2}, "poisson"},
        {{.rate_bps = 1, .ecn = 4}, "ecn"},
    };
    cb_sim_link *l;
    cr_assert_eq(cb_sim_link_new(&l, sim, NULL), CB_OK);
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        cb_sim_traffic_opts o = sources[i].o;
        cb_sim_traffic *t;
        o.size = sizeof o;
        cr_assert_eq(cb_sim_traffic_new(&t, l, &o), CB_EINVAL, "source %zu", i);
        cr_assert(strstr(cb_last_error(), sources[i].name), "source %zu: %s", i, cb_last_error());
    }
    cb_sim_free(sim);
}

/* ccdraft - the example test cases of draft-ietf-ccwg-bbr-06 (appendix A), as stories on simulated links.
 *
 *   ccdraft --list
 *   ccdraft CONTROL [CASE]...
 *
 * Prints a JSON line for each case: {"case", "title", "verdict": "holds" | "fails" | "hidden", "measured"}. A case is
 * "hidden" when it asks for a state that the control does not show; ngtcp2 shows none of its BBR's. What can be seen
 * from outside (rates, queue, bytes in flight) is judged for every control. A round is the round-trip time of the empty
 * path. */
#include "lab/lab.h"
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 70000 };

/* Each millisecond. */
typedef struct sample {
    double received, inflight, bandwidth, wait_ms; /* bytes, bytes, bytes a second */
    uint8_t phase;
} sample;

typedef struct story {
    lab lab;
    lab_flow *flow;
    cb_sim_link_opts link;
    int cc;
    double rtt_s;
    sample *at; /* [ms] */
    size_t n;
    double wait_ms;
    uint8_t trigger; /* phase: the first entry after trigger_from_s calls `then` */
    double trigger_from_s, triggered_s;
    void (*then)(struct story *s);
    char verdict[8], measured[256];
} story;

/* ---- the stage ---- */

static void on_packet(const cb_sim_packet *p, void *user) {
    if (p->event == CB_SIM_DELIVERED) ((story *)user)->wait_ms = (double)p->wait_ns / 1e6;
}

static void on_sample(cb_sim *sim, void *user) {
    story *s = user;
    cb_quic_conn_stats c = {.size = sizeof c};
    (void)sim;
    if (s->flow->down) cb_quic_conn_stats_get(s->flow->down, &c);
    if (s->n < SAMPLES)
        s->at[s->n++] = (sample){.received = (double)s->flow->received,
                                 .inflight = (double)c.bytes_in_flight,
                                 .bandwidth = (double)c.bandwidth_bytes_s,
                                 .wait_ms = s->wait_ms,
                                 .phase = c.cc_phase};
    if (s->trigger && c.cc_phase == s->trigger && lab_now(&s->lab) >= s->trigger_from_s) {
        s->trigger = 0;
        s->triggered_s = lab_now(&s->lab);
        s->then(s);
    }
    lab_at(&s->lab, (double)s->n / 1e3, on_sample, s);
}

/* A flow over a bottleneck; app_mbit 0 = bulk. */
static int stage(story *s, double mbit, double rtt_ms, double buffer_bdp, double app_mbit) {
    s->rtt_s = rtt_ms / 1e3;
    s->link = (cb_sim_link_opts){.size = sizeof s->link,
                                 .rate_bps = (uint64_t)(mbit * 1e6),
                                 .delay_us = (uint64_t)(rtt_ms * 500),
                                 .buffer_bytes = (uint64_t)(buffer_bdp * mbit * 1e6 / 8 * s->rtt_s)};
    int rc = lab_open(&s->lab, 1, rtt_ms, &s->link);
    if (rc == CB_OK) rc = lab_add(&s->lab, &(lab_flow){.cc = s->cc, .app_mbit = app_mbit});
    s->flow = &s->lab.flows[0];
    if (rc == CB_OK) cb_sim_link_tap(s->lab.bottleneck, on_packet, s);
    return rc == CB_OK ? lab_at(&s->lab, 0, on_sample, s) : rc;
}

static int relink(story *s) {
    return cb_sim_link_set(s->lab.bottleneck, &s->link);
}

static void set_rate(story *s, double mbit) {
    s->link.rate_bps = (uint64_t)(mbit * 1e6);
    relink(s);
}

static void set_loss(story *s, double share) {
    s->link.loss = share;
    relink(s);
}

static void end_loss(cb_sim *sim, void *user) {
    (void)sim;
    set_loss(user, 0);
}

static void two_rounds_of_loss(story *s) {
    set_loss(s, 0.15);
    lab_at(&s->lab, lab_now(&s->lab) + 2 * s->rtt_s, end_loss, s);
}

static void a_tenth_slower(story *s) {
    set_rate(s, (double)s->link.rate_bps * 0.9 / 1e6);
}

static void on_phase(story *s, int phase, double from_s, void (*then)(story *s)) {
    s->trigger = (uint8_t)phase;
    s->trigger_from_s = from_s;
    s->then = then;
}

/* ---- what is read off ---- */

static const sample *at(const story *s, double t) {
    size_t i = t > 0 ? (size_t)(t * 1e3) : 0;
    return &s->at[i < s->n ? i : s->n - 1];
}

/* Mbit/s that arrived in [from, to). */
static double rate(const story *s, double from, double to) {
    return (at(s, to)->received - at(s, from)->received) * 8 / (to - from) / 1e6;
}

/* What stream data can reach of the link. */
static double capacity(const story *s) {
    return (double)s->link.rate_bps / 1e6 * lab_payload_share(1500);
}

static double bdp(const story *s) {
    return (double)s->link.rate_bps / 8 * s->rtt_s;
}

/* The first second from `from` on from which the mean over the next `window` reaches share x capacity; -1 = never. */
static double reaches(const story *s, double from, double window, double share) {
    for (double t = from; t + window < (double)s->n / 1e3; t += 0.001)
        if (rate(s, t, t + window) >= share * capacity(s)) return t;
    return -1;
}

static double longest_wait(const story *s, double from, double to) {
    double most = 0;
    for (double t = from; t < to; t += 0.001)
        if (at(s, t)->wait_ms > most) most = at(s, t)->wait_ms;
    return most;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The median rate of the seconds in [from, to): a probe of a few hundred milliseconds does not count. */
static double median_rate(const story *s, double from, double to) {
    double rates[128];
    size_t n = 0;
    for (double t = from; t + 1 <= to && n < 128; t++)
        rates[n++] = rate(s, t, t + 1);
    qsort(rates, n, sizeof *rates, by_value);
    return n ? rates[n / 2] : 0;
}

/* The first time from `from` on at which the phase is / is not this one; -1 = never. */
static double phase_begins(const story *s, int phase, double from) {
    for (size_t i = (size_t)(from * 1e3); i < s->n; i++)
        if (s->at[i].phase == phase) return (double)i / 1e3;
    return -1;
}

static double phase_ends(const story *s, int phase, double from) {
    for (size_t i = (size_t)(from * 1e3); i < s->n; i++)
        if (s->at[i].phase != phase) return (double)i / 1e3;
    return -1;
}

static void say(story *s, bool holds, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void say(story *s, bool holds, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->measured, sizeof s->measured, fmt, ap);
    va_end(ap);
    snprintf(s->verdict, sizeof s->verdict, "%s", holds ? "holds" : "fails");
}

static bool hidden(story *s) {
    if (s->cc == CB_CC_BBRV3) return false;
    snprintf(s->verdict, sizeof s->verdict, "hidden");
    snprintf(s->measured, sizeof s->measured, "this control does not show its state");
    return true;
}

static const char *name_of(int phase) {
    static const char *const names[] = {"none", "startup", "drain", "up", "down", "cruise", "probe-rtt", "compete"};
    return phase >= 0 && phase < 8 ? names[phase] : "?";
}

/* ---- the cases ---- */

static void startup_plateau(story *s) {
    if (stage(s, 20, 40, 2, 0) < 0) return;
    lab_run(&s->lab, 3);
    double full = reaches(s, 0, 2 * s->rtt_s, 0.98), drained = -1;
    for (double t = full; full > 0 && t < 2.9 && drained < 0; t += 0.001)
        if (at(s, t)->wait_ms < 0.1 * s->rtt_s * 1e3 && longest_wait(s, 0, t) > 0.2 * s->rtt_s * 1e3) drained = t;
    double model = at(s, 2)->bandwidth * 8 / 1e6 / ((double)s->link.rate_bps / 1e6 * 1472 / 1500);
    bool known = s->cc != CB_CC_BBRV3 || (fabs(model - 1) <= 0.02 && phase_begins(s, CB_CC_PHASE_DRAIN, 0) > 0);
    say(s, full > 0 && full <= 12 * s->rtt_s && drained > 0 && known,
        "98 %% of the link after %.0f rounds, queue gone after %.0f%s%.3f", full / s->rtt_s, drained / s->rtt_s,
        s->cc == CB_CC_BBRV3 ? "; bandwidth of the model / of the link " : "; longest wait of the startup, rounds ",
        s->cc == CB_CC_BBRV3 ? model : longest_wait(s, 0, 2) / 1e3 / s->rtt_s);
}

static void some_loss(cb_sim *sim, void *user) {
    (void)sim;
    two_rounds_of_loss(user);
}

/* Enough packets and losses for the draft's criterion: six holes in a round. */
static void startup_loss_limited(story *s) {
    if (hidden(s) || stage(s, 100, 40, 2, 16) < 0) return;
    lab_at(&s->lab, 2, some_loss, s);
    lab_run(&s->lab, 4);
    double out = phase_ends(s, CB_CC_PHASE_STARTUP, 0.2);
    say(s, out >= 2 &&
                   out<2 + 8 * s->rtt_s, "startup until %.0f rounds after the loss began (-1: before, or never)", out> 0
               ? (out - 2) / s->rtt_s
               : -1);
}

static void drain_inflight(story *s) {
    if (hidden(s) || stage(s, 20, 40, 2, 0) < 0) return;
    lab_run(&s->lab, 3);
    double in = phase_begins(s, CB_CC_PHASE_DRAIN, 0), out = in > 0 ? phase_ends(s, CB_CC_PHASE_DRAIN, in) : -1;
    double share = out > 0 ? at(s, out)->inflight / bdp(s) : 9;
    say(s, share <= 1.1, "drain ends with %.2f BDP in flight, after %.1f rounds", share, (out - in) / s->rtt_s);
}

static void drain_time(story *s) {
    if (hidden(s) || stage(s, 20, 40, 2, 0) < 0) return;
    on_phase(s, CB_CC_PHASE_DRAIN, 0, a_tenth_slower);
    lab_run(&s->lab, 4);
    double out = s->triggered_s > 0 ? phase_ends(s, CB_CC_PHASE_DRAIN, s->triggered_s) : -1;
    double rounds = out > 0 ? (out - s->triggered_s) / s->rtt_s : 99;
    say(s, rounds <= 4.5, "drain ends after %.1f rounds on a link that became a tenth slower", rounds);
}

static void up_plateau(story *s) {
    if (hidden(s) || stage(s, 20, 40, 2, 0) < 0) return;
    lab_run(&s->lab, 3);
    cb_sim_link_stats_reset(s->lab.bottleneck);
    lab_run(&s->lab, 12);
    double in = phase_begins(s, CB_CC_PHASE_UP, 3), out = in > 0 ? phase_ends(s, CB_CC_PHASE_UP, in) : -1;
    int next = out > 0 ? at(s, out)->phase : 0;
    cb_sim_link_stats l = {.size = sizeof l};
    cb_sim_link_stats_get(s->lab.bottleneck, &l);
    say(s, next == CB_CC_PHASE_DOWN && out - in <= 4 * s->rtt_s && l.drop_queue == 0,
        "up for %.1f rounds, then %s; %" PRIu64 " packets dropped", (out - in) / s->rtt_s, name_of(next), l.drop_queue);
}

static void up_loss_limited(story *s) {
    if (hidden(s) || stage(s, 20, 40, 2, 0) < 0) return;
    lab_run(&s->lab, 3);
    s->flow->app_mbit = 12;
    on_phase(s, CB_CC_PHASE_UP, 3, two_rounds_of_loss);
    lab_run(&s->lab, 12);
    if (s->triggered_s <= 0) {
        say(s, true, "limited by its application it does not probe");
        return;
    }
    double out = phase_ends(s, CB_CC_PHASE_UP, s->triggered_s);
    say(s, out > 0 && out - s->triggered_s <= 4 * s->rtt_s, "up ends %.1f rounds after the loss began",
        (out - s->triggered_s) / s->rtt_s);
}

static void limited_stays(story *s) {
    if (stage(s, 20, 40, 2, 2) < 0) return;
    lab_run(&s->lab, 10);
    double left = s->cc == CB_CC_BBRV3 ? phase_ends(s, CB_CC_PHASE_STARTUP, 0.2) : -1;
    s->flow->app_mbit = 0;
    lab_run(&s->lab, 14);
    double full = reaches(s, 10, 2 * s->rtt_s, 0.95);
    say(s, left < 0 && full > 0 && full - 10 <= 20 * s->rtt_s,
        "startup %s in 10 s at a tenth of the link; then full after %.0f rounds",
        s->cc != CB_CC_BBRV3 ? "not shown"
        : left < 0           ? "not left"
                             : "left",
        full > 0 ? (full - 10) / s->rtt_s : -1);
}

static void down_inflight(story *s) {
    if (hidden(s) || stage(s, 20, 40, 2, 0) < 0) return;
    lab_run(&s->lab, 12);
    double in = phase_begins(s, CB_CC_PHASE_DOWN, 3), out = in > 0 ? phase_ends(s, CB_CC_PHASE_DOWN, in) : -1;
    double share = out > 0 ? at(s, out)->inflight / bdp(s) : 9;
    int next = out > 0 ? at(s, out)->phase : 0;
    say(s, share <= 1.1 && next == CB_CC_PHASE_CRUISE, "down ends with %.2f BDP in flight, then %s", share,
        name_of(next));
}

static void down_time(story *s) {
    if (hidden(s) || stage(s, 20, 40, 2, 0) < 0) return;
    on_phase(s, CB_CC_PHASE_DOWN, 3, a_tenth_slower);
    lab_run(&s->lab, 14);
    double t = s->triggered_s, out = t > 0 ? phase_ends(s, CB_CC_PHASE_DOWN, t) : -1, wait = longest_wait(s, t + 5, 14);
    say(s, out > 0 && out - t <= 20 * s->rtt_s && wait < 0.6 * s->rtt_s * 1e3,
        "down ends after %.1f rounds on a link that became a tenth slower; later waits up to %.2f rounds",
        (out - t) / s->rtt_s, wait / 1e3 / s->rtt_s);
}

/* A dip of what is in flight below 0.7 BDP for at least 150 ms, from `from` on; -1 = none. */
static double dip(const story *s, double from, double to) {
    int length = 0;
    for (double t = from; t < to; t += 0.001) {
        length = at(s, t)->inflight < 0.7 * bdp(s) ? length + 1 : 0;
        if (length >= 150) return t - 0.150;
    }
    return -1;
}

static void probe_rtt(story *s) {
    if (stage(s, 20, 40, 2, 0) < 0) return;
    lab_run(&s->lab, 40);
    double in = s->cc == CB_CC_BBRV3 ? phase_begins(s, CB_CC_PHASE_PROBE_RTT, 2) : dip(s, 2, 38);
    double after = in > 0 ? reaches(s, in + 0.2, 0.2, 0.9) : -1;
    if (in < 0) {
        say(s, false, "none in 38 s");
        return;
    }
    say(s, after > 0 && after - in < 2, "first after %.1f s; 90 %% of the link again after %.0f ms", in,
        1e3 * (after - in));
}

static void speak(cb_sim *sim, void *user) {
    (void)sim;
    ((story *)user)->flow->app_mbit = 0;
}

static void idle_skips_probe_rtt(story *s) {
    if (stage(s, 20, 40, 2, 19) < 0) return;
    lab_run(&s->lab, 4);
    s->flow->app_mbit = 1e-9;
    lab_at(&s->lab, 10, speak, s);
    lab_run(&s->lab, 12);
    double in = s->cc == CB_CC_BBRV3 ? phase_begins(s, CB_CC_PHASE_PROBE_RTT, 10.0) : -1,
           full = reaches(s, 10, 2 * s->rtt_s, 0.9);
    say(s, (in < 0 || in > 11) && full > 0 && full - 10 <= 12 * s->rtt_s,
        "after 6 idle seconds 90 %% of the link after %.0f rounds", full > 0 ? (full - 10) / s->rtt_s : -1);
}

static int aggregate(story *s) {
    return cb_sim_link_set(s->flow->back,
                           CB_OPTS(cb_sim_link_opts, .delay_us = (uint64_t)(s->rtt_s * 5e5), .batch_us = 20000));
}

static void aggregation_startup(story *s) {
    if (stage(s, 50, 40, 2, 0) < 0 || aggregate(s) < 0) return;
    lab_run(&s->lab, 4);
    double full = reaches(s, 0, 4 * s->rtt_s, 0.95);
    say(s, full > 0 && full <= 20 * s->rtt_s, "acknowledgements each 20 ms: 95 %% of the link after %.0f rounds",
        full > 0 ? full / s->rtt_s : -1);
}

static void aggregation_cruise(story *s) {
    if (stage(s, 50, 40, 2, 0) < 0 || aggregate(s) < 0) return;
    lab_run(&s->lab, 20);
    double share = median_rate(s, 5, 20) / capacity(s);
    say(s, share >= 0.95, "acknowledgements each 20 ms: %.1f %% of the link", 100 * share);
}

static void sub_packet(story *s) {
    if (stage(s, 0.128, 20, 1, 0) < 0) return;
    s->link.buffer_bytes = 15000;
    relink(s);
    lab_run(&s->lab, 60);
    double share = rate(s, 20, 60) / capacity(s), flight = at(s, 59)->inflight / 1472;
    say(s, share >= 0.9 && flight <= 10, "128 kbit/s, 20 ms: %.1f %% of the link, %.1f packets in flight", 100 * share,
        flight);
}

static void ten_times_faster(cb_sim *sim, void *user) {
    (void)sim;
    set_rate(user, 100);
}

static void ten_times_slower(cb_sim *sim, void *user) {
    (void)sim;
    set_rate(user, 10);
}

static void rate_up(story *s) {
    if (stage(s, 10, 40, 2, 0) < 0) return;
    s->link.buffer_bytes = 500000;
    relink(s);
    lab_at(&s->lab, 10, ten_times_faster, s);
    lab_run(&s->lab, 40);
    double full = reaches(s, 10, 4 * s->rtt_s, 0.9);
    say(s, full > 0 && full - 10 <= 150 * s->rtt_s, "10 to 100 Mbit/s: 90 %% of it after %.0f rounds (%.1f s)",
        full > 0 ? (full - 10) / s->rtt_s : -1, full > 0 ? full - 10 : -1);
}

static void rate_down(story *s) {
    if (stage(s, 100, 40, 2, 0) < 0) return;
    s->link.buffer_bytes = 500000;
    relink(s);
    lab_at(&s->lab, 10, ten_times_slower, s);
    lab_run(&s->lab, 30);
    double share = median_rate(s, 18, 30) / capacity(s), wait = 0;
    for (double t = 18; t < 30; t += 0.001)
        wait += at(s, t)->wait_ms / 12000;
    double model = at(s, 18)->bandwidth * 8 / 1e6;
    say(s, share >= 0.9 && wait <= s->rtt_s * 1e3 && (s->cc != CB_CC_BBRV3 || model <= 11),
        "100 to 10 Mbit/s: 8 s later %.1f %% of it, mean wait %.0f ms", 100 * share, wait);
}

static void policer(story *s) {
    if (stage(s, 100, 40, 2, 0) < 0) return;
    s->link.police_bps = 10000000;
    relink(s);
    lab_run(&s->lab, 20);
    cb_sim_link_stats_reset(s->lab.bottleneck);
    lab_run(&s->lab, 40);
    cb_sim_link_stats l = {.size = sizeof l};
    cb_sim_link_stats_get(s->lab.bottleneck, &l);
    double share = rate(s, 20, 40) / (10 * lab_payload_share(1500)),
           lost = l.in_packets ? (double)l.drop_policer / (double)l.in_packets : 1;
    say(s, share >= 0.8 && lost <= 0.05, "10 Mbit/s of tokens: %.1f %% of them used, %.1f %% lost", 100 * share,
        100 * lost);
}

static void orderly(cb_sim *sim, void *user) {
    story *s = user;
    (void)sim;
    s->link.reorder = 0;
    s->link.reorder_us = 0;
    relink(s);
}

static void reordering(story *s) {
    if (stage(s, 20, 40, 2, 0) < 0) return;
    lab_run(&s->lab, 8);
    s->link.reorder = 0.02;
    s->link.reorder_us = 8000;
    relink(s);
    lab_at(&s->lab, 9, orderly, s);
    lab_run(&s->lab, 20);
    double during = rate(s, 8.2, 9) / capacity(s), after = reaches(s, 9, 0.4, 0.95);
    say(s, after > 0 && after - 9 <= 2, "%.0f %% of the link while 2 %% come 8 ms late, 95 %% again %.1f s later",
        100 * during, after > 0 ? after - 9 : -1);
}

static void back_to_normal(cb_sim *sim, void *user) {
    story *s = user;
    (void)sim;
    cb_sim_link_set(s->flow->back, CB_OPTS(cb_sim_link_opts, .delay_us = (uint64_t)(s->rtt_s * 5e5)));
}

static void spurious_pto(story *s) {
    if (stage(s, 20, 40, 2, 0) < 0) return;
    lab_run(&s->lab, 8);
    cb_sim_link_set(s->flow->back, CB_OPTS(cb_sim_link_opts, .delay_us = 800000));
    lab_at(&s->lab, 8.5, back_to_normal, s);
    lab_run(&s->lab, 20);
    double after = reaches(s, 9, 0.4, 0.95);
    say(s, after > 0 && after - 9.3 <= 3,
        "acknowledgements 800 ms late for half a second: 95 %% of the link %.1f s later",
        after > 9.3 ? after - 9.3
        : after > 0 ? 0
                    : -1);
}

static void startup_probe_rtt(story *s) {
    if (hidden(s) || stage(s, 20, 40, 2, 2) < 0) return;
    lab_run(&s->lab, 30);
    double in = phase_begins(s, CB_CC_PHASE_PROBE_RTT, 0.2),
           out = in > 0 ? phase_ends(s, CB_CC_PHASE_PROBE_RTT, in) : -1;
    int next = out > 0 ? at(s, out)->phase : CB_CC_PHASE_STARTUP;
    say(s, next == CB_CC_PHASE_STARTUP,
        in > 0 ? "after it comes %s" : "limited by its application it drains by itself and %s goes on", name_of(next));
}

static void up_loss(story *s) {
    if (hidden(s) || stage(s, 20, 40, 2, 0) < 0) return;
    on_phase(s, CB_CC_PHASE_UP, 4, two_rounds_of_loss);
    lab_run(&s->lab, 14);
    double t = s->triggered_s, out = t > 0 ? phase_ends(s, CB_CC_PHASE_UP, t) : -1,
           again = t > 0 ? reaches(s, t + 3 * s->rtt_s, 0.4, 0.95) : -1;
    say(s, out > 0 && out - t <= 3 * s->rtt_s && again > 0 &&
                   again - t<4, "up ends %.1f rounds after the loss began; 95 %% of the link %.1f s later",
                             (out - t) / s->rtt_s, again> 0
               ? again - t
               : -1);
}

static void limited_refill(story *s) {
    if (hidden(s) || stage(s, 20, 40, 2, 0) < 0) return;
    lab_run(&s->lab, 5);
    double before = at(s, 4.9)->bandwidth, least = before;
    s->flow->app_mbit = 2;
    lab_run(&s->lab, 7);
    for (double t = 5; t < 7; t += 0.001)
        if (at(s, t)->bandwidth < least) least = at(s, t)->bandwidth;
    say(s, least >= 0.9 * before, "2 s at a tenth of the link: the model keeps %.0f %% of its bandwidth",
        100 * least / before);
}

static void cruise(story *s) {
    if (stage(s, 20, 40, 2, 0) < 0) return;
    lab_run(&s->lab, 30);
    double share = median_rate(s, 5, 30) / capacity(s);
    say(s, share >= 0.98, "%.1f %% of the link", 100 * share);
}

static const struct {
    const char *id, *title;
    void (*run)(story *s);
} cases[] = {
    {"A.1", "Exiting STARTUP on bandwidth plateau", startup_plateau},
    {"A.2", "Exiting STARTUP on loss when application-limited", startup_loss_limited},
    {"A.3", "Exiting DRAIN based on inflight", drain_inflight},
    {"A.4", "Exiting DRAIN based on time", drain_time},
    {"A.5", "Exiting PROBE_UP on bandwidth plateau", up_plateau},
    {"A.6", "Exiting PROBE_UP on loss when application-limited", up_loss_limited},
    {"A.7", "Never exiting STARTUP when application-limited without loss", limited_stays},
    {"A.8", "Exiting PROBE_DOWN on inflight", down_inflight},
    {"A.9", "Exiting PROBE_DOWN after max time", down_time},
    {"A.10", "Entering and exiting PROBE_RTT", probe_rtt},
    {"A.11", "Skipping PROBE_RTT after idleness", idle_skips_probe_rtt},
    {"A.12", "STARTUP bandwidth on a link with aggregation", aggregation_startup},
    {"A.13", "Cruise bandwidth on a link with aggregation", aggregation_cruise},
    {"A.14", "Sub-packet BDP", sub_packet},
    {"A.15", "Ten times the bandwidth", rate_up},
    {"A.16", "A tenth of the bandwidth", rate_down},
    {"A.17", "Token bucket policer", policer},
    {"A.18", "Spurious fast recovery (reordering)", reordering},
    {"A.19", "Spurious probe timeout (late acknowledgements)", spurious_pto},
    {"A.20", "PROBE_RTT during STARTUP", startup_probe_rtt},
    {"A.21", "Loss during PROBE_UP", up_loss},
    {"A.22", "Application-limited sending during PROBE_REFILL", limited_refill},
    {"cruise", "Cruise bandwidth within 2 %", cruise},
};
enum { CASES = sizeof cases / sizeof *cases };

static int play(int cc, size_t i) {
    static sample samples[SAMPLES];
    story s = {.cc = cc, .at = samples};
    cases[i].run(&s);
    lab_close(&s.lab);
    if (!s.verdict[0]) {
        fprintf(stderr, "ccdraft: %s: %s\n", cases[i].id, cb_last_error());
        return 1;
    }
    printf("{\"case\": \"%s\", \"title\": \"%s\", \"control\": \"%s\", \"verdict\": \"%s\", \"measured\": \"%s\"}\n",
           cases[i].id, cases[i].title, cb_cc_name(cc), s.verdict, s.measured);
    return 0;
}

static bool wanted(const char *id, int argc, char **argv) {
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], id) == 0) return true;
    return argc <= 2;
}

int main(int argc, char **argv) {
    int failed = 0, played = 0;
    if (argc < 2) {
        fputs("usage: ccdraft CONTROL [CASE]...\n       ccdraft --list\n", stderr);
        return 2;
    }
    if (strcmp(argv[1], "--list") == 0) {
        for (size_t i = 0; i < CASES; i++)
            printf("%s %s\n", cases[i].id, cases[i].title);
        return 0;
    }
    int cc = cb_cc_parse(argv[1]);
    if (cc < 0) {
        fprintf(stderr, "ccdraft: %s\n", cb_last_error());
        return 2;
    }
    for (size_t i = 0; i < CASES; i++) {
        if (!wanted(cases[i].id, argc, argv)) continue;
        failed |= play(cc, i);
        played++;
    }
    if (!played) fputs("ccdraft: no such case (see --list)\n", stderr);
    return failed || !played;
}

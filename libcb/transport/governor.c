/* The governor's states, its pacer and its cap. */
#include "transport/governor.h"
#include <string.h>

#define MS     1000000ull
#define SECOND 1000000000ull

static const double STARTUP_GAIN = 2.77, DRAIN_GAIN = 0.5, UP_GAIN = 1.25, DOWN_GAIN = 0.9;
static const double FULL_GROWTH = 1.25; /* startup: less growth than this for three rounds: the path is full */
enum { FULL_ROUNDS = 3, DRAIN_ROUNDS = 3, CYCLE_ROUNDS = 8 };
static const uint64_t PROBE_RTT_AFTER = 5 * SECOND;
static const uint64_t PROBE_RTT_CHECK = 3 * SECOND, PROBE_RTT_CHECK_MAX = 24 * SECOND;
static const uint64_t SLACK = 2 * MS; /* how much lateness the pacer makes up for */

static const char *const names[] = {"none", "startup", "drain", "up", "down", "cruise", "probe_rtt", "compete"};

const char *cb_gov_phase_name(int phase) {
    return phase >= 0 && phase < (int)(sizeof names / sizeof names[0]) ? names[phase] : "unknown";
}

void cb_gov_init(cb_gov *g, cb_time now, size_t packet) {
    memset(g, 0, sizeof *g);
    cb_gov_model_init(&g->m, packet);
    g->phase = CB_GOV_STARTUP;
    g->cap = UINT64_MAX;
    g->phase_since = now;
    g->checked_at = now;
    g->check_every = PROBE_RTT_CHECK;
    g->jitter = (uint32_t)(now / 1000) * 2654435761u + 1;
}

static void enter(cb_gov *g, cb_time now, int phase) {
    g->phase = (uint8_t)phase;
    g->phase_since = now;
    g->phase_rounds = 0;
    g->held = false;
}

static void start_cycle(cb_gov *g, cb_time now) {
    g->jitter = g->jitter * 1664525u + 1013904223u;
    g->cycle = g->m.min_rtt * (CYCLE_ROUNDS - 2) + (uint64_t)((double)g->m.min_rtt * 4 * (g->jitter >> 8) / 0x1p24);
    g->cycle_since = now;
    g->before_up = cb_gov_model_bandwidth(&g->m);
    cb_gov_model_cycle(&g->m);
    g->most_inflight = 0;
    g->most_rtt = g->m.min_rtt;
    enter(g, now, CB_GOV_UP);
}

/* A flow that has the bottleneck for itself sees all of its own probe as delay; one of several sees its share. */
static bool alone(const cb_gov *g) {
    return g->alone;
}

static uint64_t headroom(const cb_gov *g) {
    return 2 * g->m.packet + cb_gov_model_extra(&g->m);
}

static uint64_t queue_limit(const cb_gov *g) { /* more round trip than this above the least is a queue */
    uint64_t q = g->m.min_rtt / 8;
    return q < 4 * MS ? 4 * MS : q;
}

static void startup(cb_gov *g, cb_time now) {
    const cb_gov_model *m = &g->m;
    if (m->rounds < 2) return;
    if (m->round_samples >= 8 && m->round_min_rtt > m->min_rtt + queue_limit(g)) {
        enter(g, now, CB_GOV_DRAIN);
        return;
    }
    if (!m->round_started) return;
    bool loss = m->last_loss > 0.02 && m->last_lost >= 3 * m->packet;
    double bw = m->last_best;
    if (bw >= g->full_bw * FULL_GROWTH) {
        g->full_bw = bw;
        g->full_rounds = 0;
    } else if (!m->last_limited) {
        g->full_rounds++;
    }
    if (g->full_rounds >= FULL_ROUNDS || loss) enter(g, now, CB_GOV_DRAIN);
}

static void probe_rtt(cb_gov *g, cb_time now) {
    cb_gov_model *m = &g->m;
    if (!g->held) {
        if (m->inflight > g->cap + m->packet) return;
        g->held = true;
        g->phase_since = now;
        g->phase_rounds = 0;
        m->round_min_rtt = UINT64_MAX;
        return;
    }
    if (g->phase_rounds < 1 || now - g->phase_since < m->min_rtt) return;
    uint64_t least = m->last_min_rtt < m->round_min_rtt ? m->last_min_rtt : m->round_min_rtt;
    if (least != UINT64_MAX && least > m->min_rtt) {
        bool far = least > m->min_rtt + m->min_rtt / 32;
        if (far && now - m->min_at > 2 * PROBE_RTT_AFTER) m->min_rtt = least; /* the path has become longer */
    }
    g->checked_at = now;
    g->check_every = g->check_every * 2 > PROBE_RTT_CHECK_MAX ? PROBE_RTT_CHECK_MAX : g->check_every * 2;
    m->min_at = now;
    start_cycle(g, now);
}

static bool rtt_is_old(const cb_gov *g, cb_time now) {
    return now - g->m.min_at > PROBE_RTT_AFTER || (!alone(g) && now - g->checked_at > g->check_every);
}

static void advance(cb_gov *g, cb_time now) {
    cb_gov_model *m = &g->m;
    double bw = cb_gov_model_bandwidth(m);
    uint64_t bdp = cb_gov_model_bdp(m);
    if (m->round_started && g->phase_rounds < UINT8_MAX) g->phase_rounds++;
    if (m->inflight > g->most_inflight) g->most_inflight = m->inflight;
    if (g->path.latest_rtt > g->most_rtt) g->most_rtt = g->path.latest_rtt;
    switch (g->phase) {
    case CB_GOV_STARTUP:
        startup(g, now);
        return;
    case CB_GOV_DRAIN:
        if (m->inflight <= bdp + headroom(g) || g->phase_rounds >= DRAIN_ROUNDS) start_cycle(g, now);
        return;
    case CB_GOV_UP:
        if (now - g->phase_since >= m->min_rtt) enter(g, now, CB_GOV_DOWN);
        return;
    case CB_GOV_DOWN:
        if (now - g->phase_since < m->min_rtt * 5 / 4) return;
        g->alone =
            bw > 0 && (double)(g->most_rtt - m->min_rtt) > 0.6 * ((double)g->most_inflight - (double)bdp) * 1e9 / bw;
        if (bw > g->before_up * 1.1)
            start_cycle(g, now);
        else
            enter(g, now, CB_GOV_CRUISE);
        return;
    case CB_GOV_CRUISE:
        if (rtt_is_old(g, now))
            enter(g, now, CB_GOV_PROBE_RTT);
        else if (now - g->cycle_since >= g->cycle && !m->limited_until)
            start_cycle(g, now);
        return;
    case CB_GOV_PROBE_RTT:
        probe_rtt(g, now);
        return;
    default:
        return;
    }
}

/* Holds a queue of a fraction of a packet: less would leave the link idle, more is delay. */
static double cruise_gain(const cb_gov *g, double bw) {
    const cb_gov_model *m = &g->m;
    if (bw <= 0 || m->last_min_rtt == UINT64_MAX || m->last_min_rtt < m->min_rtt) return 1;
    uint64_t rtt = g->path.latest_rtt < m->last_min_rtt ? g->path.latest_rtt : m->last_min_rtt;
    double queue = (double)(rtt - m->min_rtt);
    double target = 0.25 * (double)m->packet * 1e9 / bw + (double)m->min_rtt / 64;
    double gain = 1 - (queue - target) / (4 * (double)m->min_rtt);
    return gain < 0.9 ? 0.9 : gain;
}

static void control(cb_gov *g) {
    const cb_gov_model *m = &g->m;
    double bw = cb_gov_model_bandwidth(m);
    double bdp = (double)cb_gov_model_bdp(m), room = (double)headroom(g);
    double cap = 0, gain = 1;
    switch (g->phase) {
    case CB_GOV_STARTUP:
        gain = STARTUP_GAIN;
        break;
    case CB_GOV_DRAIN:
        gain = DRAIN_GAIN;
        cap = bdp + room;
        break;
    case CB_GOV_UP:
        gain = UP_GAIN;
        cap = UP_GAIN * bdp + room;
        break;
    case CB_GOV_DOWN:
        gain = m->inflight > bdp + room ? DOWN_GAIN : cruise_gain(g, bw);
        cap = bdp + room;
        break;
    case CB_GOV_PROBE_RTT:
        cap = bdp / 2;
        break;
    default:
        cap = bdp + room;
        gain = cruise_gain(g, bw);
        break;
    }
    g->gain = gain;
    g->pacing = gain * bw;
    if (g->phase == CB_GOV_STARTUP) {
        double window = g->path.smoothed_rtt ? 2.0 * (double)g->path.cwnd * 1e9 / (double)g->path.smoothed_rtt : 0;
        if (!g->path.smoothed_rtt)
            g->pacing = 0; /* the first window goes as it is */
        else if (window > g->pacing)
            g->pacing = window;
        g->cap = UINT64_MAX;
        return;
    }
    double least = 4.0 * (double)m->packet;
    if (g->phase != CB_GOV_PROBE_RTT && g->phase != CB_GOV_DRAIN) {
        double share = m->loss * 30 > 0.5 ? 0.5 : m->loss * 30;
        cap += share * bdp;
    }
    g->cap = (uint64_t)(cap > least ? cap : least);
}

void cb_gov_observe(cb_gov *g, cb_time now, const cb_gov_path *path) {
    g->path = *path;
    if (path->packet) g->m.packet = path->packet;
    if (g->blocked && g->next_tx < now) g->next_tx = now; /* only the timer's lateness is made up for */
    cb_gov_model_rtt(&g->m, now, path->latest_rtt);
}

/* Bytes that leave together: one packet at rates where the timer can follow. */
static size_t quantum(const cb_gov *g) {
    double q = g->pacing > 32e6 ? g->pacing * 250e-6 : 0;
    if (q > 64000) q = 64000;
    return q > (double)g->m.packet ? (size_t)q : g->m.packet;
}

size_t cb_gov_allowance(const cb_gov *g, cb_time now) {
    if (g->cap != UINT64_MAX && g->path.inflight + g->m.packet > g->cap) return 0;
    if (g->pacing <= 0) return SIZE_MAX;
    if (g->next_tx > now) return 0;
    uint64_t late = now - g->next_tx;
    if (late > SLACK) late = SLACK;
    double credit = g->pacing * (double)late / 1e9;
    uint64_t allowed = (uint64_t)credit + quantum(g);
    if (g->cap != UINT64_MAX && g->path.inflight + allowed > g->cap) allowed = g->cap - g->path.inflight;
    return allowed < g->m.packet ? g->m.packet : (size_t)(allowed / g->m.packet * g->m.packet);
}

void cb_gov_sent(cb_gov *g, cb_time now, const cb_gov_burst *b) {
    cb_gov_model_update(&g->m, now, g->path.inflight, b->inflight, b->retransmitted, b->app_limited, b->settled);
    if (g->pacing > 0 && b->sent) {
        if (g->next_tx + SLACK < now) g->next_tx = now - SLACK;
        g->next_tx += (uint64_t)((double)b->sent * 1e9 / g->pacing);
    }
    g->path.inflight = b->inflight;
    advance(g, now);
    control(g);
    g->blocked = b->app_limited || b->inflight + g->m.packet > g->cap || b->inflight + g->m.packet > g->path.cwnd;
}

cb_time cb_gov_wake(const cb_gov *g) {
    if (g->cap != UINT64_MAX && g->path.inflight + g->m.packet > g->cap) return UINT64_MAX;
    return g->next_tx;
}

void cb_gov_look(const cb_gov *g, cb_gov_view *out) {
    *out = (cb_gov_view){
        .bandwidth = cb_gov_model_bandwidth(&g->m),
        .pacing = g->pacing,
        .loss = g->m.loss,
        .cap = g->cap,
        .min_rtt = g->m.min_rtt,
        .phase = g->phase,
        .competitive = g->phase == CB_GOV_COMPETE,
    };
}

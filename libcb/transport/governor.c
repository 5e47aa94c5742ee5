/* The governor's states, its pacer and its cap. */
#include "transport/governor.h"
#include <string.h>

#define MS     1000000ull
#define SECOND 1000000000ull

static const double STARTUP_WINDOW_GAIN = 4; /* a window in a quarter of a round trip: as early as cubic's */
static const double STARTUP_GAIN = 2.77, DRAIN_GAIN = 0.5, UP_GAIN = 1.25, UP_GAIN_SHARED = 1.15, DOWN_GAIN = 0.9;
static const double SHARE_FLOOR = 0.93; /* what a flow gives up at most in a cycle to those who share the path */
static const double LEAST_GAIN = 0.85, MOST_GAIN = 1.1;
static const double FULL_GROWTH = 1.25; /* startup: less growth than this for three rounds: the path is full */
enum {
    FULL_ROUNDS = 3,
    DRAIN_ROUNDS = 3,
    CYCLE_ROUNDS = 8,
    CROWDED_ROUNDS = 10,
    CROWDED_AGAIN = 4,
    SWOLLEN_ROUNDS = 10,
    SAME_LEASTS = 3,
    SLOT_ROUNDS = 32,
    UNPACED_PACKETS = 48
};
static const uint64_t PROBE_RTT_AFTER = 5 * SECOND;
static const uint64_t SLOT = 4 * SECOND, SLOT_MAX = 16 * SECOND;
static const uint64_t COMPETE_MEMORY = 30 * SECOND;
static const uint64_t SLACK = 2 * MS; /* how much lateness the pacer makes up for */
/* Packets are spaced no finer than the host keeps time: wake-ups are what pacing costs. In multiples of how late the
 * pacer's timers are on average; a burst lasts at most BURST_MAX. */
static const double BURST_LATENESS = 8, EARLY_LATENESS = 4, BURST_MAX = MS;

static const char *const names[] = {"none", "startup", "drain", "up", "down", "cruise", "probe_rtt", "compete"};

const char *cb_gov_phase_name(int phase) {
    return phase >= 0 && phase < (int)(sizeof names / sizeof names[0]) ? names[phase] : "unknown";
}

void cb_gov_init(cb_gov *g, cb_time now, size_t packet) {
    memset(g, 0, sizeof *g);
    cb_gov_model_init(&g->m, packet);
    g->phase = CB_GOV_STARTUP;
    g->alone = true;
    g->cap = UINT64_MAX;
    g->phase_since = now;
    g->yielded_at = now;
    g->jitter = (uint32_t)(now / 1000) * 2654435761u + 1;
}

void cb_gov_restart(cb_gov *g, cb_time now) {
    g->m.min_rtt = 0;
    g->m.min_at = now;
    g->m.round_min_rtt = g->m.last_min_rtt = UINT64_MAX;
    g->m.round_max_rtt = g->m.last_max_rtt = 0;
    g->path.latest_rtt = 0;
    g->yielded_at = now;
    g->alone = true;
    g->competing = false;
    g->competed_at = g->overflow_at = 0;
    g->crowded = g->swollen = g->same = 0;
    if (g->phase > CB_GOV_DRAIN) {
        g->phase = CB_GOV_CRUISE;
        g->cycle_since = now;
    }
}

/* Conversion of what is out of range is undefined. */
static uint64_t whole(double x) {
    return x >= 0x1p63 ? UINT64_MAX / 2 : x > 0 ? (uint64_t)x : 0;
}

static void enter(cb_gov *g, cb_time now, int phase) {
    g->phase = (uint8_t)phase;
    g->phase_since = now;
    g->phase_rounds = 0;
    g->held = false;
    if (phase != CB_GOV_PROBE_RTT) return;
    g->yield_until = now + 2 * g->path.latest_rtt;
    g->yield_rate = g->m.last_rate;
}

static void start_cycle(cb_gov *g, cb_time now) {
    g->jitter = g->jitter * 1664525u + 1013904223u;
    uint64_t w = cb_gov_model_window(&g->m);
    g->cycle = w * (CYCLE_ROUNDS - 2) + whole((double)w * 4 * (g->jitter >> 8) / 0x1p24);
    g->cycle_since = now;
    g->before_up = cb_gov_model_bandwidth(&g->m);
    cb_gov_model_cycle(&g->m);
    g->most_inflight = 0;
    g->most_rtt = g->m.min_rtt;
    enter(g, now, CB_GOV_UP);
}

static uint64_t headroom(const cb_gov *g) {
    uint64_t extra = cb_gov_model_extra(&g->m), usual = 4 * g->m.packet; /* of delayed acknowledgements */
    return (g->alone ? 4 : 3) * g->m.packet / 2 + (extra > usual ? extra - usual : 0);
}

static uint64_t queue_limit(const cb_gov *g) { /* more round trip than this above the least is a queue */
    uint64_t q = g->m.min_rtt / 8;
    return q < 4 * MS ? 4 * MS : q;
}

static void startup(cb_gov *g, cb_time now) {
    const cb_gov_model *m = &g->m;
    if (m->rounds < 2) return;
    bool enough = m->round_samples >= 8 && now - m->round_since >= m->min_rtt * 3 / 4;
    if (enough && m->round_min_rtt > m->min_rtt + queue_limit(g)) {
        enter(g, now, CB_GOV_DRAIN);
        return;
    }
    if (!m->round_started) return;
    /* The first rounds of a new path repeat what was lost on the old one. */
    bool loss = m->rounds >= 4 && m->last_loss > 0.02 && m->last_lost >= 3 * m->packet;
    double bw = m->last_best;
    if (bw >= g->full_bw * FULL_GROWTH) {
        g->full_bw = bw;
        g->full_rounds = 0;
    } else if (!m->last_limited) {
        g->full_rounds++;
    }
    if (g->full_rounds >= FULL_ROUNDS || loss) enter(g, now, CB_GOV_DRAIN);
}

static void start_competing(cb_gov *g, cb_time now) {
    if (!g->competing) g->compete_cap = cb_gov_model_bdp(&g->m) * 5 / 4 + 4 * g->m.packet;
    g->competing = true;
    g->competed_at = now;
    g->crowded = 0;
    enter(g, now, CB_GOV_COMPETE);
}

/* What a round of half a window found. */
static void judge(cb_gov *g, cb_time now, uint64_t least) {
    cb_gov_model *m = &g->m;
    /* On a path of few packets half a window of our own is a queue. */
    uint64_t own = g->yield_rate > 0 ? whole(1.1 * (double)g->cap * 1e9 / g->yield_rate) : 0;
    bool emptied = least <= (own > m->min_rtt ? own : m->min_rtt) + queue_limit(g);
    uint64_t apart = least > g->least ? least - g->least : g->least - least;
    g->same = !emptied && apart <= least / 64 + MS / 4 ? (uint8_t)(g->same + 1) : 0;
    g->least = least;
    if (g->same >= SAME_LEASTS) { /* the path itself has become longer */
        m->min_rtt = least;
        g->same = 0;
        emptied = true;
    }
    bool stood = g->crowded >= CROWDED_ROUNDS || least > m->min_rtt + m->min_rtt / 4 + 4 * MS;
    g->crowded = 0;
    g->yielded_at = now;
    m->min_at = now;
    if (!emptied && (g->competing || stood)) {
        start_competing(g, now);
        return;
    }
    if (!g->competing) {
        start_cycle(g, now);
        return;
    }
    cb_gov_model_restart(m, g->yield_rate); /* peaks of a crowd are nobody's share */
    g->competing = false;
    g->cycle_since = now;
    enter(g, now, CB_GOV_CRUISE); /* who yielded together does not probe together */
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
    if (g->phase_rounds < 1 || now - g->phase_since < m->min_rtt || now < g->yield_until) return;
    uint64_t least = m->last_min_rtt < m->round_min_rtt ? m->last_min_rtt : m->round_min_rtt;
    judge(g, now, least == UINT64_MAX ? m->min_rtt : least);
}

/* A queue that stands although we yield is somebody else's. Governed flows hold two packets each, which is the more
 * delay for each of them the more they are, and never less than four are in flight. */
static bool crowded(const cb_gov *g) {
    const cb_gov_model *m = &g->m;
    double rate = m->last_rate > g->peak / 8 ? m->last_rate : g->peak / 8;
    if (m->last_min_rtt == UINT64_MAX || rate <= 0) return false;
    double held = 4.0 * (double)m->packet * 1e9 / rate, base = (double)m->min_rtt;
    return (double)m->last_min_rtt > 1.1 * base + (held < base / 4 ? held : base / 4) + 1e6;
}

/* Flows that share a queue see it empty only when they yield together: at the same seconds of the clock, which those of
 * one host share. Long paths yield less often, at some of the same seconds. */
static bool slot(const cb_gov *g, cb_time now, unsigned every) {
    uint64_t length = SLOT;
    while (length < SLOT_MAX && length < SLOT_ROUNDS * g->m.min_rtt)
        length *= 2;
    length *= every;
    return now % length < SECOND / 20 && now - g->yielded_at > length / 2;
}

static uint8_t count(uint8_t rounds, bool more) {
    return !more ? 0 : rounds < UINT8_MAX ? (uint8_t)(rounds + 1) : rounds;
}

/* Who fills the queue until it overflows, while we yield, is no governed flow: we lose packets in a queue that stood
 * for long before, twice in half a minute. */
static bool overflows(cb_gov *g, cb_time now) {
    const cb_gov_model *m = &g->m;
    bool swollen = m->last_min_rtt != UINT64_MAX && m->last_min_rtt > m->min_rtt + m->min_rtt / 8 + MS;
    g->swollen = count(g->swollen, swollen);
    if (!m->last_lost || g->swollen < SWOLLEN_ROUNDS) return false;
    bool again = g->overflow_at && now - g->overflow_at < COMPETE_MEMORY;
    g->overflow_at = now;
    g->swollen = 0;
    return again;
}

/* True: the phase has changed. */
static bool beset(cb_gov *g, cb_time now) {
    if (!g->m.round_started || g->phase < CB_GOV_UP || g->phase > CB_GOV_CRUISE) return false;
    g->crowded = count(g->crowded, crowded(g));
    bool again = g->competed_at && now - g->competed_at < COMPETE_MEMORY && g->crowded >= CROWDED_AGAIN;
    if (!overflows(g, now) && !again) return false;
    start_competing(g, now);
    return true;
}

static void compete(cb_gov *g, cb_time now) {
    const cb_gov_model *m = &g->m;
    if (slot(g, now, 2)) {
        enter(g, now, CB_GOV_PROBE_RTT);
        return;
    }
    if (now - g->cycle_since >= g->cycle) { /* the filters must not keep what was before */
        cb_gov_model_cycle(&g->m);
        g->cycle_since = now;
    }
    if (!m->round_started) return;
    if (g->compete_cap < UINT64_MAX / 2) g->compete_cap += g->compete_cap / 16;
    if (m->last_lost || g->compete_cap > g->path.cwnd) g->compete_cap = UINT64_MAX;
}

/* The empty path was not seen for long; or others are there, and yield now. */
static bool time_to_yield(const cb_gov *g, cb_time now) {
    uint64_t old = now - g->m.min_at;
    return slot(g, now, 1) && (!g->alone || old > PROBE_RTT_AFTER);
}

static void advance(cb_gov *g, cb_time now) {
    cb_gov_model *m = &g->m;
    double bw = cb_gov_model_bandwidth(m);
    uint64_t bdp = cb_gov_model_bdp(m);
    if (bw > g->peak) g->peak = bw;
    if (m->round_started && g->phase_rounds < UINT8_MAX) g->phase_rounds++;
    if (m->inflight > g->most_inflight) g->most_inflight = m->inflight;
    if (g->path.latest_rtt > g->most_rtt) g->most_rtt = g->path.latest_rtt;
    if (beset(g, now)) return;
    if (g->phase >= CB_GOV_UP && g->phase <= CB_GOV_CRUISE && time_to_yield(g, now)) {
        enter(g, now, CB_GOV_PROBE_RTT);
        return;
    }
    switch (g->phase) {
    case CB_GOV_STARTUP:
        startup(g, now);
        return;
    case CB_GOV_DRAIN:
        if (m->inflight <= bdp + headroom(g) || g->phase_rounds >= DRAIN_ROUNDS) start_cycle(g, now);
        return;
    case CB_GOV_UP:
        if (now - g->phase_since >= cb_gov_model_window(m)) enter(g, now, CB_GOV_DOWN);
        return;
    case CB_GOV_DOWN:
        if (now - g->phase_since < cb_gov_model_window(m) * 5 / 4) return;
        g->alone = bw > 0 && m->min_at >= g->cycle_since &&
                   (double)(g->most_rtt - m->min_rtt) > 0.6 * ((double)g->most_inflight - (double)bdp) * 1e9 / bw;
        if (bw > g->before_up * 1.1)
            start_cycle(g, now);
        else
            enter(g, now, CB_GOV_CRUISE);
        return;
    case CB_GOV_CRUISE:
        if (now - g->cycle_since >= g->cycle && !m->limited_until) start_cycle(g, now);
        return;
    case CB_GOV_PROBE_RTT:
        probe_rtt(g, now);
        return;
    case CB_GOV_COMPETE:
        compete(g, now);
        return;
    default:
        return;
    }
}

/* Alone, it holds a queue of a fraction of a packet: less would leave the link idle, more is delay. Beside others it
 * holds two packets of its own, whatever its rate: that is the same delay for all only when all have the same rate. */
static double cruise_gain(const cb_gov *g, double bw) {
    const cb_gov_model *m = &g->m;
    if (bw <= 0 || m->last_min_rtt == UINT64_MAX || m->last_min_rtt < m->min_rtt) return 1;
    uint64_t rtt = g->path.latest_rtt < m->last_min_rtt ? g->path.latest_rtt : m->last_min_rtt;
    double queue = rtt > m->min_rtt ? (double)(rtt - m->min_rtt) : 0;
    double packets = g->alone ? 0.25 : 2;
    double target =
        packets * (double)m->packet * 1e9 / bw + (double)m->min_rtt * (1.0 / 64 + cb_gov_model_loss_room(m)) + 200e3;
    double gain = 1 - (queue - target) / (4 * (double)m->min_rtt);
    return gain < LEAST_GAIN ? LEAST_GAIN : gain > MOST_GAIN ? MOST_GAIN : gain;
}

/* What is in flight beside others, without the room: what the path delivered in the latest round, not the best of two
 * cycles, in which each flow had its turn; and a part that grows less than the rate, so that the slower gain. */
static double share(const cb_gov *g, double bdp) {
    const cb_gov_model *m = &g->m;
    if (g->alone || m->last_rate <= 0 || m->last_limited) return bdp;
    double now = m->last_rate * (double)m->min_rtt / 1e9;
    double floor = SHARE_FLOOR * bdp;
    return now > bdp ? bdp : now < floor ? floor : now;
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
        gain = g->alone ? UP_GAIN : UP_GAIN_SHARED;
        cap = gain * bdp + room + (double)m->packet;
        break;
    case CB_GOV_DOWN:
        gain = m->inflight > bdp + room ? DOWN_GAIN : cruise_gain(g, bw);
        cap = bdp + room;
        break;
    case CB_GOV_PROBE_RTT:
        cap = bdp / 2;
        break;
    default:
        gain = cruise_gain(g, bw);
        cap = share(g, bdp) + room;
        break;
    }
    g->pacing = gain * bw;
    /* Amid heavy losses few samples are left and these are low: four packets a round trip are always allowed. */
    if (g->path.smoothed_rtt) {
        double least = 4.0 * (double)m->packet * 1e9 / (double)g->path.smoothed_rtt;
        if (g->pacing < least) g->pacing = least;
    }
    if (g->phase == CB_GOV_STARTUP) {
        double window =
            g->path.smoothed_rtt ? STARTUP_WINDOW_GAIN * (double)g->path.cwnd * 1e9 / (double)g->path.smoothed_rtt : 0;
        /* The first windows go as they are, by the clock of the acknowledgements: short answers must not wait. */
        if (!g->path.smoothed_rtt || g->path.cwnd < UNPACED_PACKETS * m->packet)
            g->pacing = 0;
        else if (window > g->pacing)
            g->pacing = window;
        g->cap = UINT64_MAX;
        return;
    }
    if (!m->min_rtt) { /* a new path: until the first sample ngtcp2's first window bounds it */
        g->cap = UINT64_MAX;
        return;
    }
    if (g->phase == CB_GOV_COMPETE) {
        g->pacing = g->path.smoothed_rtt ? 1.25 * (double)g->path.cwnd * 1e9 / (double)g->path.smoothed_rtt : bw;
        g->cap = g->compete_cap;
        return;
    }
    double least = (g->phase == CB_GOV_PROBE_RTT ? 2.0 : 4.0) * (double)m->packet;
    if (g->phase != CB_GOV_PROBE_RTT && g->phase != CB_GOV_DRAIN) {
        cap += 1.5 * cb_gov_model_loss_room(m) * bdp;
    }
    g->cap = whole(cap > least ? cap : least);
}

void cb_gov_observe(cb_gov *g, cb_time now, const cb_gov_path *path) {
    g->path = *path;
    if (path->packet) g->m.packet = path->packet;
    if (g->blocked && g->next_tx < now) g->next_tx = now; /* only the timer's lateness is made up for */
    if (g->timed && g->next_tx <= now) {
        uint64_t late = now - g->next_tx;
        g->lateness += ((double)(late < SLACK ? late : SLACK) - g->lateness) / 32;
    }
    cb_gov_model_rtt(&g->m, now, path->latest_rtt);
}

static double within(double ns, double most) {
    return ns < most ? ns : most;
}

/* Bytes that leave together: one packet at rates where the timer can follow. */
static size_t quantum(const cb_gov *g) {
    double span = within(BURST_LATENESS * g->lateness, BURST_MAX);
    if (g->pacing > 32e6 && span < 250e3) span = 250e3;
    double q = g->pacing * span / 1e9;
    if (q > 64000) q = 64000;
    return q > (double)g->m.packet ? (size_t)q : g->m.packet;
}

size_t cb_gov_allowance(const cb_gov *g, cb_time now) {
    if (g->cap != UINT64_MAX && g->path.inflight + g->m.packet > g->cap) return 0;
    if (g->pacing <= 0) return SIZE_MAX;
    if (g->next_tx > now + whole(within(EARLY_LATENESS * g->lateness, BURST_MAX))) return 0;
    uint64_t late = now > g->next_tx ? now - g->next_tx : 0;
    if (late > SLACK) late = SLACK;
    double credit = g->pacing * (double)late / 1e9;
    uint64_t allowed = whole(credit) + quantum(g);
    if (g->cap != UINT64_MAX && g->path.inflight + allowed > g->cap) allowed = g->cap - g->path.inflight;
    return allowed < g->m.packet ? g->m.packet : (size_t)(allowed / g->m.packet * g->m.packet);
}

void cb_gov_sent(cb_gov *g, cb_time now, const cb_gov_burst *b) {
    /* Acknowledgements are not paced: they are not in the bandwidth either, which counts what is acknowledged. */
    uint64_t flown = b->inflight > g->path.inflight ? b->inflight - g->path.inflight : 0;
    cb_gov_model_update(&g->m, now, g->path.inflight, b->inflight, b->retransmitted, b->app_limited, b->settled);
    if (g->pacing > 0 && flown) {
        if (g->next_tx + SLACK < now) g->next_tx = now - SLACK;
        g->next_tx += whole((double)flown * 1e9 / g->pacing);
    }
    g->path.inflight = b->inflight;
    advance(g, now);
    control(g);
    g->blocked = b->app_limited || b->inflight + g->m.packet > g->cap || b->inflight + g->m.packet > g->path.cwnd;
    g->timed = !g->blocked && g->pacing > 0 && g->next_tx > now;
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
        .competitive = g->competing,
    };
}

int cb_gov_verdict(const cb_gov *g) {
    const cb_gov_model *m = &g->m;
    uint64_t packets = m->judged / m->packet;
    if (g->competed_at) return CB_GOV_CLEAN; /* a window that answers losses is what competes */
    if (packets >= 500 && m->loss >= 0.0004) return CB_GOV_LOSSY;
    return packets >= 2000 && m->loss < 0.0002 ? CB_GOV_CLEAN : CB_GOV_UNKNOWN;
}

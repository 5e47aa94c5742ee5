/* The model of the path: windowed filters over what was delivered and how long it took. */
#include "transport/governor_model.h"
#include <string.h>

/* On a path of microseconds, what hosts need to wake up and to read in batches is most of the round trip. */
static const uint64_t HOST_DELAY = 1000000;
enum { WINDOW_MIN = 4 * 1000000, WINDOW_PACKETS = 12, CALM_ROUNDS = 3 };

/* Conversion of what is out of range is undefined. */
static uint64_t whole(double x) {
    return x >= 0x1p63 ? UINT64_MAX / 2 : x > 0 ? (uint64_t)x : 0;
}

void cb_gov_model_init(cb_gov_model *m, size_t packet) {
    memset(m, 0, sizeof *m);
    m->packet = packet;
    m->round_min_rtt = UINT64_MAX;
    m->last_min_rtt = UINT64_MAX;
}

double cb_gov_model_bandwidth(const cb_gov_model *m) {
    return m->best[0] > m->best[1] ? m->best[0] : m->best[1];
}

uint64_t cb_gov_model_bdp(const cb_gov_model *m) {
    uint64_t rtt = m->min_rtt > HOST_DELAY || !m->min_rtt ? m->min_rtt : HOST_DELAY;
    return whole(cb_gov_model_bandwidth(m) * (double)rtt / 1e9);
}

double cb_gov_model_loss_room(const cb_gov_model *m) {
    double room = m->loss * 100;
    return room > 0.4 ? 0.4 : room;
}

uint64_t cb_gov_model_extra(const cb_gov_model *m) {
    return m->extra[0] > m->extra[1] ? m->extra[0] : m->extra[1];
}

void cb_gov_model_cycle(cb_gov_model *m) {
    if (m->best[0] > 0) { /* a cycle without a sample says nothing */
        m->best[1] = m->best[0];
        m->best[0] = 0;
    }
    m->extra[1] = m->extra[0];
    m->extra[0] = 0;
}

void cb_gov_model_restart(cb_gov_model *m, double rate) {
    m->best[0] = rate;
    m->best[1] = 0;
    m->extra[0] = m->extra[1] = 0;
}

void cb_gov_model_rtt(cb_gov_model *m, cb_time now, uint64_t rtt) {
    if (!rtt) return;
    m->round_samples++;
    if (rtt < m->round_min_rtt) m->round_min_rtt = rtt;
    if (rtt > m->round_max_rtt) m->round_max_rtt = rtt;
    if (!m->min_rtt || rtt < m->min_rtt) m->min_rtt = rtt;
    double bw = cb_gov_model_bandwidth(m);
    uint64_t packet = bw > 0 ? whole((double)m->packet * 1e9 / bw) : 0;
    if (packet > m->min_rtt / 8) packet = m->min_rtt / 8;
    if (rtt <= m->min_rtt + m->min_rtt / 32 + packet) m->min_at = now;
}

uint64_t cb_gov_model_window(const cb_gov_model *m) {
    double bw = cb_gov_model_bandwidth(m);
    uint64_t w = m->min_rtt > WINDOW_MIN ? m->min_rtt : WINDOW_MIN;
    uint64_t packets = bw > 0 ? whole((double)(WINDOW_PACKETS * m->packet) * 1e9 / bw) : 0;
    if (packets > 4 * w) packets = 4 * w;
    return packets > w ? packets : w;
}

/* The rate over the last window, measured between two acknowledgements: their distance is exact, however many packets
 * each of them covers. */
static void sample(cb_gov_model *m, cb_time now) {
    uint64_t w = cb_gov_model_window(m);
    m->rate = 0;
    for (unsigned i = 0; i < m->count; i++) {
        const cb_gov_mark *k = &m->marks[(m->newest + CB_GOV_MARKS - i) % CB_GOV_MARKS];
        if (now - k->at < w) continue;
        m->rate = (double)(m->delivered - k->delivered) * 1e9 / (double)(now - k->at);
        break;
    }
    if (!m->count || now - m->marks[m->newest].at >= w / (CB_GOV_MARKS / 2)) {
        m->newest = (uint8_t)((m->newest + 1) % CB_GOV_MARKS);
        m->marks[m->newest] = (cb_gov_mark){now, m->delivered};
        if (m->count < CB_GOV_MARKS) m->count++;
    }
    bool limited = m->limited_until != 0;
    if (m->rate > m->best[0] && (!limited || m->rate > cb_gov_model_bandwidth(m))) m->best[0] = m->rate;
    if (m->rate > m->round_best) m->round_best = m->rate;
}

/* What came back beyond the rate since the interval began: acknowledgements that wait for each other on their way. */
static void aggregate(cb_gov_model *m, cb_time now, uint64_t before) {
    double bw = cb_gov_model_bandwidth(m);
    double expected = bw * (double)(now - m->extra_since) / 1e9;
    if ((double)(m->delivered - m->extra_from) <= expected || now - m->extra_since > 16 * m->min_rtt) {
        m->extra_since = now;
        m->extra_from = before; /* what this acknowledgement brings came at once */
        expected = 0;
    }
    double got = (double)(m->delivered - m->extra_from);
    uint64_t extra = got > expected ? whole(got - expected) : 0, most = cb_gov_model_bdp(m);
    if (extra > most) extra = most;
    if (extra > m->extra[0]) m->extra[0] = extra;
}

static void round_over(cb_gov_model *m, cb_time now) {
    m->last_rate =
        now > m->round_since ? (double)(m->delivered - m->round_from) * 1e9 / (double)(now - m->round_since) : 0;
    m->round_since = now;
    m->round_from = m->delivered;
    uint64_t sent = m->flown - m->round_sent, lost = m->repeated - m->round_lost;
    m->rounds++;
    m->round_started = true;
    m->round_ends = m->flown;
    m->round_sent = m->flown;
    m->round_lost = m->repeated;
    m->last_lost = lost;
    m->last_loss = sent ? (double)lost / (double)sent : 0;
    if (m->last_loss > 1) m->last_loss = 1;
    m->last_min_rtt = m->round_min_rtt;
    m->last_max_rtt = m->round_max_rtt;
    m->last_best = m->round_best;
    m->last_limited = m->round_limited;
    m->round_min_rtt = UINT64_MAX;
    m->round_max_rtt = 0;
    m->round_best = 0;
    m->round_samples = 0;
    m->round_limited = false;
    /* What a full buffer drops says nothing about the path; it is sent again a round or two later. */
    double usual = (double)m->min_rtt * (1.125 + 1.5 * cb_gov_model_loss_room(m)) + 1e6; /* what we hold ourselves */
    if ((double)m->last_max_rtt > usual)
        m->calm_rounds = 0;
    else if (m->calm_rounds < CALM_ROUNDS)
        m->calm_rounds++;
    if (m->last_lost && m->calm_rounds < CALM_ROUNDS) return;
    double weight = (double)sent / (2048.0 * (double)m->packet); /* of some 2,000 packets */
    if (weight > 0.25) weight = 0.25;
    m->loss += (m->last_loss - m->loss) * weight;
    m->judged += sent;
}

void cb_gov_model_update(cb_gov_model *m, cb_time now, uint64_t before, uint64_t after, uint64_t repeated, bool limited,
                         bool settled) {
    if (before < m->inflight) m->gone_at = now;
    if (after > before) m->flown += after - before;
    m->repeated += repeated;
    m->inflight = after;
    m->round_started = false;
    uint64_t gone = m->flown > after ? m->flown - after : 0;
    uint64_t delivered = gone > m->repeated ? gone - m->repeated : 0;
    if (settled && delivered > m->delivered) {
        uint64_t known = m->delivered;
        m->delivered = delivered;
        if (m->limited_until && delivered > m->limited_until) m->limited_until = 0;
        sample(m, m->gone_at);
        aggregate(m, m->gone_at, known);
    }
    if (limited) m->limited_until = m->delivered + after ? m->delivered + after : 1;
    if (m->limited_until) m->round_limited = true;
    if (gone >= m->round_ends && m->flown > m->round_ends) round_over(m, m->gone_at);
}

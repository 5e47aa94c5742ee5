/* Between a connection and the governor: what ngtcp2 tells, in the governor's words. */
#include "transport/quic_pace.h"
#include "base/error.h"
#include "base/mem.h"

/* Acknowledgements may wait so long: far less than max_ack_delay. */
static const cb_time SHORT_WAIT = 1000000;
enum { PROBES = 2 };

int cb_quic_pace_open(cb_quic_conn *c, cb_time now) {
    if (c->cc != CB_CC_BBRV3) return CB_OK;
    c->pace = cb_mem_new(c->alloc, sizeof *c->pace);
    if (!c->pace) return cb_fail(CB_ENOMEM, "no memory for congestion control");
    cb_gov_init(&c->pace->gov, now, CB_QUIC_PACKET_MIN);
    c->pace->wake = UINT64_MAX;
    return CB_OK;
}

void cb_quic_pace_reset(cb_quic_conn *c, cb_time now) {
    cb_quic_pace *p = c->pace;
    if (!p) return;
    cb_gov_restart(&p->gov, now);
    p->told_round = 0;
    p->told = CB_GOV_UNKNOWN;
}

void cb_quic_pace_free(cb_quic_conn *c) {
    cb_mem_free(c->alloc, c->pace);
    c->pace = NULL;
}

static void look(const cb_quic_conn *c, cb_gov_path *out) {
    ngtcp2_conn_info info;
    ngtcp2_conn_get_conn_info(c->ng, &info);
    bool known = info.min_rtt != UINT64_MAX; /* there was a sample */
    *out = (cb_gov_path){
        .packet = ngtcp2_conn_get_path_max_tx_udp_payload_size(c->ng),
        .latest_rtt = known ? info.latest_rtt : 0,
        .smoothed_rtt = known ? info.smoothed_rtt : 0,
        .cwnd = info.cwnd,
        .inflight = info.bytes_in_flight,
    };
}

/* Whatever the model says, a probe timeout sends its two packets (RFC 9002, 6.2.4): with one, amid heavy losses, half
 * as many connections again fall silent. ngtcp2 does not tell which of its timers ran out; this one does when nothing
 * has left for so long. */
static bool probes(const cb_quic_conn *c, cb_time now) {
    return c->expired && now - c->pace->sent_at >= ngtcp2_conn_get_pto(c->ng);
}

size_t cb_quic_pace_begin(cb_quic_conn *c, cb_time now) {
    cb_quic_pace *p = c->pace;
    if (!p) return ngtcp2_conn_get_send_quantum(c->ng);
    cb_gov_path path;
    look(c, &path);
    cb_gov_observe(&p->gov, now, &path);
    p->burst = (cb_gov_burst){0};
    p->allowed = cb_gov_allowance(&p->gov, now);
    if (probes(c, now) && p->allowed < PROBES * path.packet) p->allowed = PROBES * path.packet;
    c->expired = false;
    p->now = now;
    c->quiet = p->allowed == 0;
    c->fresh = 0;
    return p->allowed;
}

bool cb_quic_pace_wait(cb_quic_conn *c, cb_time now) {
    cb_quic_pace *p = c->pace;
    if (!p || p->allowed) return false;
    cb_time wake = cb_gov_wake(&p->gov), patience = p->sent_at + SHORT_WAIT;
    if (wake > now + SHORT_WAIT && now >= patience) return false;
    p->burst.inflight = p->gov.path.inflight;
    cb_gov_sent(&p->gov, now, &p->burst);
    wake = cb_gov_wake(&p->gov);
    p->wake = wake < patience || now >= patience ? wake : patience;
    c->quiet = false;
    return true;
}

void cb_quic_pace_packet(cb_quic_conn *c, size_t len) {
    cb_quic_pace *p = c->pace;
    if (!p) return;
    size_t again = c->handshaken ? cb_gov_retransmitted(len, c->fresh) : 0;
    p->burst.sent += len;
    p->sent_at = p->now;
    p->burst.retransmitted += again;
    p->burst.settled = !again && !c->quiet;
    c->fresh = 0;
}

/* Now and then, not only at the end: other connections to the same host may begin before. */
static void tell(cb_quic_conn *c) {
    enum { ROUNDS = 16 };
    cb_quic_pace *p = c->pace;
    if (!c->host->path_learned || p->gov.m.rounds < p->told_round + ROUNDS) return;
    p->told_round = p->gov.m.rounds;
    int verdict = cb_gov_verdict(&p->gov);
    if (verdict != p->told && verdict != CB_GOV_UNKNOWN) c->host->path_learned(c, verdict == CB_GOV_LOSSY);
    p->told = (uint8_t)verdict;
}

bool cb_quic_pace_end(cb_quic_conn *c, cb_time now, bool drained) {
    cb_quic_pace *p = c->pace;
    if (!p) {
        ngtcp2_conn_update_pkt_tx_time(c->ng, now);
        return false;
    }
    cb_gov_path path;
    look(c, &path);
    bool room = path.inflight + path.packet <= path.cwnd;
    p->burst.inflight = path.inflight;
    p->burst.app_limited = drained && room && !c->quiet;
    if (drained && room) p->burst.settled = true;
    cb_gov_sent(&p->gov, now, &p->burst);
    tell(c);
    p->wake = drained && !c->quiet ? UINT64_MAX : cb_gov_wake(&p->gov);
    c->quiet = false;
    return !drained && p->wake <= now;
}

cb_time cb_quic_pace_wake(const cb_quic_conn *c) {
    return c->pace && c->phase == CB_QUIC_OPEN ? c->pace->wake : UINT64_MAX;
}

static uint64_t whole(double rate) {
    return rate > 0 ? (uint64_t)rate : 0;
}

void cb_quic_pace_stats(const cb_quic_conn *c, cb_quic_conn_stats *out) {
    out->cc_below = c->cc_below;
    if (!c->pace) return;
    cb_gov_view v;
    cb_gov_look(&c->pace->gov, &v);
    out->cc_phase = v.phase;
    out->bandwidth_bytes_s = whole(v.bandwidth);
    out->pacing_bytes_s = whole(v.pacing);
    out->inflight_cap_bytes = v.cap;
    out->path_rtt_ns = v.min_rtt;
}

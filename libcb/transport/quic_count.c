#include "transport/quic_count.h"
#include "transport/quic_pace.h"

static const cb_time LOOK_EACH = 1000000000;

/* ---- the handshake ---- */

static enum cb_cell_id controller(const cb_quic_conn *c) {
    switch (c->cc) {
    case CB_CC_RENO:
        return CB_C_QUIC_CC_RENO;
    case CB_CC_BBR:
        return CB_C_QUIC_CC_BBR;
    case CB_CC_BBRV3:
        return CB_C_QUIC_CC_BBRV3;
    default:
        return CB_C_QUIC_CC_CUBIC;
    }
}

static void count_early(const cb_quic_conn *c) {
    const bool tried = c->server ? cb_tls_session_offered_early(c->tls) : c->early_tried;
    if (!tried) return;
    if (c->early == 1)
        cb_cells_add(c->cells, c->server ? CB_C_QUIC_EARLY_SERVER_ACCEPTED : CB_C_QUIC_EARLY_CLIENT_ACCEPTED, 1);
    else
        cb_cells_add(c->cells, c->server ? CB_C_QUIC_EARLY_SERVER_REJECTED : CB_C_QUIC_EARLY_CLIENT_REJECTED, 1);
}

void cb_quic_count_handshake(const cb_quic_conn *c) {
    const cb_cells *cells = c->cells;
    if (!cells) return;
    const bool v2 = ngtcp2_conn_get_negotiated_version(c->ng) == NGTCP2_PROTO_VER_V2;
    cb_cells_observe(cells, CB_SIDE(c->server, QUIC_HANDSHAKE), c->host->now((cb_quic_conn *)(uintptr_t)c) - c->began);
    cb_cells_add(cells, v2 ? CB_C_QUIC_VERSION_2 : CB_C_QUIC_VERSION_1, 1);
    cb_cells_add(cells, controller(c), 1);
    cb_cells_add(cells, c->aead->id == CB_AEAD_IPSEC_MB ? CB_C_QUIC_AEAD_IPSEC_MB : CB_C_QUIC_AEAD_GNUTLS, 1);
    count_early(c);
}

/* ---- the end ---- */

enum reason {
    CLOSED,
    PEER,
    IDLE,
    HANDSHAKE_TIMEOUT,
    RESET,
    TLS,
    REFUSED,
    UNREACHABLE,
    VERSION,
    PROTOCOL,
    APPLICATION,
    OTHER
};

static enum reason reason_of(const cb_quic_conn *c) {
    static const uint8_t told[] = {[CB_QUIC_WHY_PEER] = PEER,
                                   [CB_QUIC_WHY_IDLE] = IDLE,
                                   [CB_QUIC_WHY_SLOW] = HANDSHAKE_TIMEOUT,
                                   [CB_QUIC_WHY_RESET] = RESET,
                                   [CB_QUIC_WHY_REFUSED] = REFUSED,
                                   [CB_QUIC_WHY_VERSION] = VERSION,
                                   [CB_QUIC_WHY_APPLICATION] = APPLICATION};
    if (c->why != CB_QUIC_WHY_RESULT) return (enum reason)told[c->why];
    switch (c->close_rc) {
    case CB_OK:
        return CLOSED;
    case CB_ETLS:
    case CB_EAUTH:
        return TLS;
    case CB_EUNREACH:
        return UNREACHABLE;
    case CB_EPROTO:
    case CB_ELIMIT:
        return PROTOCOL;
    case CB_EUSER:
        return APPLICATION;
    default:
        return OTHER;
    }
}

static const uint16_t closed_cells[][2] = {
#define REASON(name) [name] = {CB_C_QUIC_CLOSED_CLIENT_##name, CB_C_QUIC_CLOSED_SERVER_##name}
    REASON(CLOSED),  REASON(PEER),     REASON(IDLE),        REASON(HANDSHAKE_TIMEOUT),
    REASON(RESET),   REASON(TLS),      REASON(REFUSED),     REASON(UNREACHABLE),
    REASON(VERSION), REASON(PROTOCOL), REASON(APPLICATION), REASON(OTHER),
#undef REASON
};

/* What may end a handshake; the rest is other. */
static const uint16_t failed_cells[][2] = {
#define FAILURE(why, name) [why] = {CB_C_QUIC_FAILED_CLIENT_##name, CB_C_QUIC_FAILED_SERVER_##name}
    FAILURE(CLOSED, CLOSED),
    FAILURE(PEER, PEER),
    FAILURE(IDLE, HANDSHAKE_TIMEOUT),
    FAILURE(HANDSHAKE_TIMEOUT, HANDSHAKE_TIMEOUT),
    FAILURE(RESET, OTHER),
    FAILURE(TLS, TLS),
    FAILURE(REFUSED, REFUSED),
    FAILURE(UNREACHABLE, UNREACHABLE),
    FAILURE(VERSION, VERSION),
    FAILURE(PROTOCOL, PROTOCOL),
    FAILURE(APPLICATION, OTHER),
    FAILURE(OTHER, OTHER),
#undef FAILURE
};

static void look(const cb_quic_conn *c);

void cb_quic_count_end(const cb_quic_conn *c) {
    const cb_cells *cells = c->cells;
    ngtcp2_conn_info info;
    if (!cells || !c->ng) return;
    const enum reason why = reason_of(c);
    cb_cells_add(cells, (enum cb_cell_id)closed_cells[why][c->server], 1);
    if (!c->handshaken) cb_cells_add(cells, (enum cb_cell_id)failed_cells[why][c->server], 1);
    cb_cells_observe(cells, CB_C_QUIC_LIFE, c->host->now((cb_quic_conn *)(uintptr_t)c) - c->began);
    cb_cells_move(cells, CB_C_QUIC_OPEN_STREAMS, -(int64_t)c->streams);
    if (!c->handshaken) return;
    ngtcp2_conn_get_conn_info(c->ng, &info);
    look(c);
    if (info.min_rtt != UINT64_MAX) cb_cells_observe(cells, CB_C_QUIC_MIN_RTT, info.min_rtt);
    cb_cells_observe(cells, CB_C_QUIC_MTU, ngtcp2_conn_get_path_max_tx_udp_payload_size(c->ng));
    cb_cells_add(cells, c->ecn ? CB_C_QUIC_ECN_USED : CB_C_QUIC_ECN_UNUSED, 1);
}

void cb_quic_count_close(const cb_cells *cells, bool sent, const ngtcp2_ccerr *err) {
    static const uint16_t table[][2] = {
#define CODE(name) {CB_C_QUIC_ERRORS_IN_##name, CB_C_QUIC_ERRORS_OUT_##name}
        CODE(NO_ERROR),
        CODE(INTERNAL_ERROR),
        CODE(CONNECTION_REFUSED),
        CODE(FLOW_CONTROL_ERROR),
        CODE(STREAM_LIMIT_ERROR),
        CODE(STREAM_STATE_ERROR),
        CODE(FINAL_SIZE_ERROR),
        CODE(FRAME_ENCODING_ERROR),
        CODE(TRANSPORT_PARAMETER_ERROR),
        CODE(CONNECTION_ID_LIMIT_ERROR),
        CODE(PROTOCOL_VIOLATION),
        CODE(INVALID_TOKEN),
        CODE(APPLICATION_ERROR),
        CODE(CRYPTO_BUFFER_EXCEEDED),
        CODE(KEY_UPDATE_ERROR),
        CODE(AEAD_LIMIT_REACHED),
        CODE(NO_VIABLE_PATH),
        CODE(CRYPTO_ERROR),
        CODE(APPLICATION),
        CODE(OTHER),
#undef CODE
    };
    enum { NUMBERED = 17, CRYPTO = NUMBERED, APP, REST };
    size_t at = REST;
    if (err->type == NGTCP2_CCERR_TYPE_APPLICATION)
        at = APP;
    else if (err->error_code < NUMBERED)
        at = (size_t)err->error_code;
    else if (err->error_code >= NGTCP2_CRYPTO_ERROR && err->error_code <= NGTCP2_CRYPTO_ERROR + 0xff)
        at = CRYPTO;
    cb_cells_add(cells, (enum cb_cell_id)table[at][sent], 1);
}

/* ---- in between ---- */

static enum cb_cell_id phase(int phase) {
    static const uint16_t cells[] = {
        [CB_GOV_STARTUP] = CB_C_QUIC_PHASE_STARTUP, [CB_GOV_DRAIN] = CB_C_QUIC_PHASE_DRAIN,
        [CB_GOV_UP] = CB_C_QUIC_PHASE_UP,           [CB_GOV_DOWN] = CB_C_QUIC_PHASE_DOWN,
        [CB_GOV_CRUISE] = CB_C_QUIC_PHASE_CRUISE,   [CB_GOV_PROBE_RTT] = CB_C_QUIC_PHASE_PROBE_RTT,
        [CB_GOV_COMPETE] = CB_C_QUIC_PHASE_COMPETE};
    return (enum cb_cell_id)cells[phase];
}

/* How the path does. */
static void look(const cb_quic_conn *c) {
    ngtcp2_conn_info info;
    ngtcp2_conn_get_conn_info(c->ng, &info);
    if (info.min_rtt == UINT64_MAX) return; /* there was no sample */
    cb_cells_observe(c->cells, CB_C_QUIC_RTT, info.smoothed_rtt);
    cb_cells_observe(c->cells, CB_C_QUIC_CWND, info.cwnd);
    cb_cells_observe(c->cells, CB_C_QUIC_IN_FLIGHT, info.bytes_in_flight);
    if (!c->pace) return;
    cb_gov_view v;
    cb_gov_look(&c->pace->gov, &v);
    cb_cells_observe(c->cells, CB_C_QUIC_PACING, v.pacing > 0 ? (uint64_t)v.pacing : 0);
    cb_cells_observe(c->cells, CB_C_QUIC_BANDWIDTH, v.bandwidth > 0 ? (uint64_t)v.bandwidth : 0);
    cb_cells_add(c->cells, phase(v.phase), 1);
}

uint64_t cb_quic_in_flight(const cb_quic_conn *c) {
    ngtcp2_conn_info info;
    ngtcp2_conn_get_conn_info(c->ng, &info);
    return info.bytes_in_flight;
}

void cb_quic_count_written(cb_quic_conn *c, uint64_t in_flight_before, size_t packets, size_t bytes, cb_time now) {
    const cb_cells *cells = c->cells;
    ngtcp2_conn_info info;
    cb_cells_add(cells, CB_C_QUIC_PACKETS_OUT, packets);
    cb_cells_add(cells, CB_C_QUIC_BYTES_OUT, bytes);
    cb_cells_observe(cells, CB_C_QUIC_TRAIN, packets);
    ngtcp2_conn_get_conn_info(c->ng, &info);
    if (info.bytes_in_flight > in_flight_before) c->asked_at = now;
    if (info.ssthresh != c->ssthresh) {
        if (info.ssthresh != UINT64_MAX) cb_cells_add(cells, CB_C_QUIC_CONGESTION, 1);
        c->ssthresh = info.ssthresh; /* UINT64_MAX: a path that is new */
    }
    if (now < c->look_at) return;
    c->look_at = now + LOOK_EACH;
    look(c);
}

size_t cb_quic_count_again(cb_quic_conn *c, size_t packet, size_t fresh) {
    if (!c->handshaken || !cb_gov_retransmitted(packet, fresh)) return 0;
    if (packet > ngtcp2_conn_get_path_max_tx_udp_payload_size(c->ng)) return 0; /* a probe for the path's MTU */
    if (c->own_due) { /* that is no data of the application's, either */
        c->own_due = false;
        return 0;
    }
    return packet;
}

/* A timer for lost packets takes them out of flight; that for probes leaves them, and comes when all was silent. */
void cb_quic_count_expired(const cb_quic_conn *c, uint64_t in_flight_before, cb_time now) {
    if (!in_flight_before || c->phase != CB_QUIC_OPEN) return;
    if (cb_quic_in_flight(c) == in_flight_before && now - c->asked_at >= ngtcp2_conn_get_pto(c->ng))
        cb_cells_add(c->cells, CB_C_QUIC_PROBES, 1);
}

/* What an app, and the users of cb/quic.h, ask of a connection. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/quic_count.h"
#include "transport/quic_keys.h"
#include "transport/quic_pace.h"
#include <stdio.h>
#include <string.h>

static bool open_now(const cb_quic_conn *c) {
    return c->phase == CB_QUIC_OPEN;
}

/* --- streams --- */

int cb_quic_conn_open_stream(cb_quic_conn *c, bool bidi, int64_t *stream) {
    if (!open_now(c)) return cb_fail(CB_ECLOSED, "the connection is closed");
    int rv =
        bidi ? ngtcp2_conn_open_bidi_stream(c->ng, stream, NULL) : ngtcp2_conn_open_uni_stream(c->ng, stream, NULL);
    if (rv == 0) {
        cb_quic_count_stream(c, true, *stream);
        return CB_OK;
    }
    if (rv == NGTCP2_ERR_NOMEM) return cb_fail(CB_ENOMEM, "no memory for a stream");
    cb_cells_add(c->cells, CB_C_QUIC_BLOCKED_STREAMS, 1);
    return CB_EAGAIN;
}

void cb_quic_conn_wake(cb_quic_conn *c) {
    if (open_now(c)) c->host->wake(c);
}

void cb_quic_conn_rest(cb_quic_conn *c) {
    if (open_now(c) && !c->busy) cb_quic_keys_rest(c);
}

void cb_quic_conn_credit(cb_quic_conn *c, int64_t stream, size_t bytes) {
    if (!open_now(c) || !bytes) return;
    if (stream >= 0) (void)ngtcp2_conn_extend_max_stream_offset(c->ng, stream, bytes); /* gone already: nothing to do */
    ngtcp2_conn_extend_max_offset(c->ng, bytes);
    c->host->wake(c);
}

void cb_quic_conn_reset_stream(cb_quic_conn *c, int64_t stream, uint64_t code) {
    if (!open_now(c)) return;
    if (ngtcp2_conn_shutdown_stream_write(c->ng, 0, stream, code) == 0)
        cb_cells_add(c->cells, CB_C_QUIC_STREAM_RESETS_OUT, 1);
    c->host->wake(c);
}

void cb_quic_conn_stop_stream(cb_quic_conn *c, int64_t stream, uint64_t code) {
    if (!open_now(c)) return;
    if (ngtcp2_conn_shutdown_stream_read(c->ng, 0, stream, code) == 0)
        cb_cells_add(c->cells, CB_C_QUIC_STREAM_STOPS_OUT, 1);
    c->host->wake(c);
}

void cb_quic_conn_extend_streams(cb_quic_conn *c, bool bidi, size_t n) {
    if (!open_now(c)) return;
    if (bidi)
        ngtcp2_conn_extend_max_streams_bidi(c->ng, n);
    else
        ngtcp2_conn_extend_max_streams_uni(c->ng, n);
    c->host->wake(c);
}

/* --- the end --- */

static void set_app_error(cb_quic_conn *c, uint64_t code, const char *reason) {
    const char *said = cb_quic_core_reason(c, reason ? reason : "");
    ngtcp2_ccerr_set_application_error(&c->err, code, (const uint8_t *)said, strlen(said));
    c->err_set = true;
}

int cb_quic_conn_fail(cb_quic_conn *c, uint64_t app_error, const char *reason) {
    if (open_now(c) && !c->err_set) set_app_error(c, app_error, reason);
    return cb_fail(CB_EPROTO, "%s", reason ? reason : "");
}

void cb_quic_conn_close(cb_quic_conn *c, uint64_t app_error, const char *reason) {
    if (!open_now(c)) return;
    set_app_error(c, app_error, reason);
    cb_quic_core_finish(c, CB_OK, true, "closed here");
}

/* --- datagrams --- */

/* DATAGRAM with a length field, in a packet with our connection ID of the peer, packet number and tag. */
static size_t datagram_room(const cb_quic_conn *c) {
    const ngtcp2_transport_params *peer = ngtcp2_conn_get_remote_transport_params(c->ng);
    if (!peer || !peer->max_datagram_frame_size) return 0;
    enum { FRAME = 1 + 2, SHORT_HEADER = 1 + 4, TAG = 16 };
    size_t overhead = SHORT_HEADER + ngtcp2_conn_get_dcid(c->ng)->datalen + TAG + FRAME;
    size_t packet = ngtcp2_conn_get_path_max_tx_udp_payload_size(c->ng);
    uint64_t frame = peer->max_datagram_frame_size > FRAME ? peer->max_datagram_frame_size - FRAME : 0;
    size_t room = packet > overhead ? packet - overhead : 0;
    return frame < room ? (size_t)frame : room;
}

size_t cb_quic_datagram_max(const cb_quic_conn *c) {
    return open_now(c) ? datagram_room(c) : 0;
}

int cb_quic_conn_datagram(cb_quic_conn *c, const cb_slice *v, size_t n) {
    if (!open_now(c)) return cb_fail(CB_ECLOSED, "the connection is closed");
    const ngtcp2_transport_params *peer = ngtcp2_conn_get_remote_transport_params(c->ng);
    if (!peer) return CB_EAGAIN;
    if (!peer->max_datagram_frame_size) return cb_fail(CB_ENOTSUP, "the peer takes no datagrams");
    size_t len = 0, room = datagram_room(c);
    for (size_t i = 0; i < n; i++) {
        len += v[i].len;
    }
    if (len > room) cb_cells_add(c->cells, CB_C_QUIC_DATAGRAMS_DROPPED_TOO_BIG, 1);
    if (len > room) return cb_fail(CB_ELIMIT, "a datagram of %zu bytes: at most %zu fit the path now", len, room);
    int rc = cb_quic_dgrams_add(&c->dgrams, c->alloc, v, n);
    if (rc == CB_EAGAIN) cb_cells_add(c->cells, CB_C_QUIC_DATAGRAMS_DROPPED_FULL, 1);
    if (rc >= 0) c->host->wake(c);
    return rc;
}

int cb_quic_datagram_send(cb_quic_conn *c, cb_slice data) {
    return cb_quic_conn_datagram(c, &data, 1);
}

/* --- keys --- */

int cb_quic_conn_key_update(cb_quic_conn *c) {
    if (!open_now(c)) return cb_fail(CB_ECLOSED, "the connection is closed");
    if (!c->handshaken) return CB_EAGAIN;
    if (c->busy) { /* inside the library: after this call */
        c->key_update_due = true;
        c->host->wake(c);
        return CB_OK;
    }
    int rc = ngtcp2_conn_initiate_key_update(c->ng, c->host->now(c));
    if (rc == 0) cb_quic_count_key_update(c);
    c->host->wake(c); /* refused: ngtcp2 makes the keys for the next time only where it reads or writes packets */
    return rc != 0 ? CB_EAGAIN : CB_OK;
}

/* --- what it knows --- */

const char *cb_quic_conn_alpn(const cb_quic_conn *c) {
    return c->tls ? cb_tls_session_alpn(c->tls) : "";
}

const char *cb_quic_conn_sni(const cb_quic_conn *c) {
    return c->tls ? cb_tls_session_sni(c->tls) : "";
}

const cb_peer *cb_quic_conn_peer(const cb_quic_conn *c) {
    return c->tls ? cb_tls_session_peer(c->tls) : NULL;
}

const char *cb_quic_conn_remote(const cb_quic_conn *c, char *out, size_t cap) {
    char text[CB_ADDR_TEXT];
    snprintf(out, cap, "%s", cb_addr_text(&c->remote, text));
    return out;
}

bool cb_quic_conn_is_server(const cb_quic_conn *c) {
    return c->server;
}

cb_time cb_quic_conn_now(const cb_quic_conn *c) {
    return c->host->now((cb_quic_conn *)(uintptr_t)c);
}

const cb_alloc *cb_quic_conn_alloc(const cb_quic_conn *c) {
    return c->alloc;
}

const cb_log *cb_quic_conn_log(const cb_quic_conn *c) {
    return c->log;
}

cb_loop *cb_quic_conn_loop(const cb_quic_conn *c) {
    return c->loop;
}

const cb_addr *cb_quic_conn_peer_addr(const cb_quic_conn *c) {
    return &c->remote;
}

const cb_addr *cb_quic_conn_local_addr(const cb_quic_conn *c) {
    return &c->local;
}

cb_tls_session *cb_quic_conn_tls(const cb_quic_conn *c) {
    return c->tls;
}

bool cb_quic_conn_in_early_data(const cb_quic_conn *c) {
    return !c->handshaken;
}

bool cb_quic_conn_is_over(const cb_quic_conn *c) {
    return !open_now(c);
}

cb_quic_pulse cb_quic_conn_pulse(const cb_quic_conn *c) {
    return (cb_quic_pulse){
        .owed = c->owed, .pto = open_now(c) ? ngtcp2_conn_get_pto(c->ng) : 0, .rx_bytes = c->rx_bytes};
}

void cb_quic_conn_keep_alive(cb_quic_conn *c, cb_time every) {
    if (!open_now(c)) return;
    if (!every && c->opts->keep_alive_ms) every = c->opts->keep_alive_ms * NGTCP2_MILLISECONDS;
    ngtcp2_conn_set_keep_alive_timeout(c->ng, every ? every : UINT64_MAX); /* the latter: none */
    c->host->wake(c);
}

int cb_quic_conn_stats_get(const cb_quic_conn *c, cb_quic_conn_stats *out) {
    cb_quic_conn_stats s = {.size = sizeof s};
    if (c->ng) {
        ngtcp2_conn_info info;
        ngtcp2_conn_get_conn_info(c->ng, &info);
        if (info.min_rtt != UINT64_MAX) { /* there was a sample */
            s.smoothed_rtt_ns = info.smoothed_rtt;
            s.min_rtt_ns = info.min_rtt;
            s.latest_rtt_ns = info.latest_rtt;
            s.rtt_var_ns = info.rttvar;
        }
        s.cwnd_bytes = info.cwnd;
        s.bytes_in_flight = info.bytes_in_flight;
        s.ssthresh_bytes = info.ssthresh;
        s.version = ngtcp2_conn_get_negotiated_version(c->ng);
        if (!s.version) s.version = ngtcp2_conn_get_client_chosen_version(c->ng);
        s.resumed = c->handshaken && cb_tls_session_resumed(c->tls);
    }
    s.tx_packets = c->tx_packets;
    s.tx_bytes = c->tx_bytes;
    s.rx_packets = c->rx_packets;
    s.rx_bytes = c->rx_bytes;
    s.lost_packets = UINT64_MAX; /* ngtcp2 tells it from 1.16 on */
    s.migrations = c->migrations;
    s.cc = c->cc;
    s.early_data = c->early;
    s.ecn = c->ecn != 0;
    s.aead = (uint8_t)c->aead->id;
    cb_quic_pace_stats(c, &s);
    return cb_stats_give(out, &s, sizeof s, "cb_quic_conn_stats");
}

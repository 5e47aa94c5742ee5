/* HTTP/3 on libcb's own QUIC connections. */
#include "http/h3_conn.h"

static cb_time rtt(const cb_quic_conn *q) {
    cb_quic_conn_stats s = {.size = sizeof s};
    return cb_quic_conn_stats_get(q, &s) == CB_OK ? s.smoothed_rtt_ns : 0;
}

const h3_below cb_h3_below_quic = {.open_stream = cb_quic_conn_open_stream,
                                   .wake = cb_quic_conn_wake,
                                   .credit = cb_quic_conn_credit,
                                   .reset_stream = cb_quic_conn_reset_stream,
                                   .stop_stream = cb_quic_conn_stop_stream,
                                   .extend_streams = cb_quic_conn_extend_streams,
                                   .fail = cb_quic_conn_fail,
                                   .datagram = cb_quic_conn_datagram,
                                   .now = cb_quic_conn_now,
                                   .rtt = rtt,
                                   .in_early_data = cb_quic_conn_in_early_data,
                                   .rest = cb_quic_conn_rest};

int cb_h3_new(cb_hconn **out, const cb_hconn_env *env, cb_quic_conn *qc) {
    return cb_h3_new_on(out, env, qc, &cb_h3_below_quic);
}

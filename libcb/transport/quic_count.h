/* What a QUIC connection counts beside what its own files count in passing: how it went, how it ends, and now and then
 * how its path does. */
#ifndef CB_TRANSPORT_QUIC_COUNT_H
#define CB_TRANSPORT_QUIC_COUNT_H

#include "transport/quic_conn.h"

/* Why a connection ends, where its result does not tell. */
enum cb_quic_why {
    CB_QUIC_WHY_RESULT, /* by close_rc */
    CB_QUIC_WHY_PEER,
    CB_QUIC_WHY_IDLE,
    CB_QUIC_WHY_SLOW, /* the handshake took too long */
    CB_QUIC_WHY_RESET,
    CB_QUIC_WHY_REFUSED,
    CB_QUIC_WHY_VERSION,
    CB_QUIC_WHY_APPLICATION
};

void cb_quic_count_handshake(const cb_quic_conn *c); /* it is complete */
void cb_quic_count_end(const cb_quic_conn *c);       /* while ngtcp2 still knows all */
/* CONNECTION_CLOSE with what ngtcp2 or we put into it. */
void cb_quic_count_close(const cb_cells *cells, bool sent, const ngtcp2_ccerr *err);

/* What follows is for connections that count (c->cells). Around what is written: what ngtcp2 has in flight. */
uint64_t cb_quic_in_flight(const cb_quic_conn *c);
void cb_quic_count_written(cb_quic_conn *c, uint64_t in_flight_before, size_t packets, size_t bytes, cb_time now);
/* One packet of it, with `fresh` new bytes of the application's: bytes that repeat what was lost, as far as can be
 * told. */
size_t cb_quic_count_again(cb_quic_conn *c, size_t packet, size_t fresh);
/* Around a deadline: ngtcp2 does not tell which of its timers it was. */
void cb_quic_count_expired(const cb_quic_conn *c, uint64_t in_flight_before, cb_time now);

static inline void cb_quic_count_stream(cb_quic_conn *c, bool local, int64_t stream) {
    if (!c->cells) return;
    const bool one_way = stream & 2;
    c->streams++;
    cb_cells_move(c->cells, CB_C_QUIC_OPEN_STREAMS, 1);
    cb_cells_add(c->cells,
                 local     ? one_way ? CB_C_QUIC_STREAMS_LOCAL_UNIDIRECTIONAL : CB_C_QUIC_STREAMS_LOCAL_BIDIRECTIONAL
                 : one_way ? CB_C_QUIC_STREAMS_PEER_UNIDIRECTIONAL
                           : CB_C_QUIC_STREAMS_PEER_BIDIRECTIONAL,
                 1);
}

/* One that we began. */
static inline void cb_quic_count_key_update(cb_quic_conn *c) {
    c->key_update_ours = true;
    cb_cells_add(c->cells, CB_C_QUIC_KEY_UPDATES_LOCAL, 1);
}

/* n streams are over. */
static inline void cb_quic_count_streams_over(cb_quic_conn *c, uint32_t n) {
    if (!c->cells) return;
    c->streams -= n;
    cb_cells_move(c->cells, CB_C_QUIC_OPEN_STREAMS, -(int64_t)n);
}

#endif

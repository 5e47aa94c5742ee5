/* When and how much a connection sends: by ngtcp2's own pacing, or by the governor (governor.h) when bbrv3 runs. */
#ifndef CB_TRANSPORT_QUIC_PACE_H
#define CB_TRANSPORT_QUIC_PACE_H

#include "transport/governor.h"
#include "transport/quic_conn.h"

typedef struct cb_quic_pace {
    cb_gov gov;
    cb_gov_burst burst; /* the one under way */
    size_t allowed;
    cb_time wake, now, sent_at;
    uint64_t told_round;
    uint8_t told; /* enum cb_gov_verdict */
} cb_quic_pace;

int cb_quic_pace_open(cb_quic_conn *c, cb_time now);   /* CB_ENOMEM */
void cb_quic_pace_reset(cb_quic_conn *c, cb_time now); /* the path is another one */
void cb_quic_pace_free(cb_quic_conn *c);
/* Bytes of the next train. 0: nothing of the application's, one packet of what ngtcp2 itself has to say. */
size_t cb_quic_pace_begin(cb_quic_conn *c, cb_time now);
/* After begin said 0. True: it is for so short that nothing need be written at all before; acknowledgements travel with
 * the next data. */
bool cb_quic_pace_wait(cb_quic_conn *c, cb_time now);
void cb_quic_pace_packet(cb_quic_conn *c, size_t len); /* one of the train */
/* drained: ngtcp2 had nothing more that it wanted to send. True: more may leave now. */
bool cb_quic_pace_end(cb_quic_conn *c, cb_time now, bool drained);
/* When to ask for packets again although nothing happened; UINT64_MAX = never. */
cb_time cb_quic_pace_wake(const cb_quic_conn *c);
void cb_quic_pace_stats(const cb_quic_conn *c, cb_quic_conn_stats *out); /* adds the governor's part */

#endif

/* Raw streams: the app behind cb_quic_conn_ops. */
#ifndef CB_TRANSPORT_QUIC_STREAM_H
#define CB_TRANSPORT_QUIC_STREAM_H

#include "transport/quic_app.h"

/* ops may be NULL; copied. */
int cb_quic_raw_new(cb_quic_app **out, cb_quic_conn *c, const cb_quic_conn_ops *ops, void *user);

#endif

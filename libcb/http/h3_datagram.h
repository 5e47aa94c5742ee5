/* HTTP/3 datagrams (RFC 9297, 2.1): which request a QUIC DATAGRAM belongs to. A core. */
#ifndef CB_HTTP_H3_DATAGRAM_H
#define CB_HTTP_H3_DATAGRAM_H

#include <cb/base.h>

enum { CB_H3_DATAGRAM_HEAD_MAX = 8 };

/* Reads the Quarter Stream ID. *stream is the ID of the client's bidirectional stream. CB_EPROTO: truncated, or an ID
 * that no stream can have (H3_DATAGRAM_ERROR). */
int cb_h3_datagram_read(cb_slice datagram, int64_t *stream, cb_slice *payload);
/* Writes the Quarter Stream ID of a client's bidirectional stream; returns its size. */
size_t cb_h3_datagram_head(uint8_t out[CB_H3_DATAGRAM_HEAD_MAX], int64_t stream);

#endif

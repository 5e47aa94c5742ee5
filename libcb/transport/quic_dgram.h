/* The queue of DATAGRAM frames that wait for a packet (RFC 9221): a ring of bytes with a limit. */
#ifndef CB_TRANSPORT_QUIC_DGRAM_H
#define CB_TRANSPORT_QUIC_DGRAM_H

#include <cb/base.h>

enum { CB_QUIC_DGRAMS_MAX = 64 << 10 };

typedef struct cb_quic_dgrams {
    uint8_t *ring;       /* CB_QUIC_DGRAMS_MAX bytes, allocated at the first use */
    uint32_t head, tail; /* offsets; equal = empty */
    uint32_t count;
} cb_quic_dgrams;

/* Copies the pieces in. CB_EAGAIN: no room; CB_ELIMIT: more than 65,000 bytes; CB_ENOMEM. */
int cb_quic_dgrams_add(cb_quic_dgrams *q, const cb_alloc *alloc, const cb_slice *v, size_t n);
cb_slice cb_quic_dgrams_first(const cb_quic_dgrams *q); /* in one piece; only when count > 0 */
void cb_quic_dgrams_pop(cb_quic_dgrams *q);
void cb_quic_dgrams_free(cb_quic_dgrams *q, const cb_alloc *alloc);

#endif

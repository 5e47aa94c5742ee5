/* The PROXY protocol (HAProxy's proxy-protocol.txt, versions 1 and 2): who the client of a TCP balancer is. Sans-I/O.
 */
#ifndef CB_TRANSPORT_PROXY_HEADER_H
#define CB_TRANSPORT_PROXY_HEADER_H

#include "base/addr.h"

#define CB_PROXY_HEADER_MAX 4096 /* longest accepted header, all its TLVs included */

typedef struct cb_proxy_header {
    int version;          /* 1 or 2 */
    bool named;           /* source and destination are there: not LOCAL, not UNKNOWN, not a unix socket */
    cb_addr source, dest; /* the client, and what it connected to */
} cb_proxy_header;

/* Reads a header at the front of `in`. > 0: its length; CB_EAGAIN: not whole yet (so far it could become one);
 * CB_EPROTO: not a header, or one longer than CB_PROXY_HEADER_MAX. TLVs are skipped. */
int64_t cb_proxy_header_read(cb_proxy_header *out, cb_slice in);

/* Writes one; returns its length (at most 107). Addresses of different families are written as IPv6; source NULL
 * writes "unknown" (version 1) or LOCAL (version 2: a connection of the balancer's own). CB_EINVAL: no such version. */
int cb_proxy_header_write(uint8_t out[128], int version, const cb_addr *source, const cb_addr *dest);

#endif

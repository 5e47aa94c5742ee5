/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Reads the packet that an ICMP error quotes. We sent it: turned around it is one of the client's, of the same flow. */
#ifndef CB_FW_QUOTE_H
#define CB_FW_QUOTE_H

#include "fw_packet.h"

enum { FW_ICMP_HEADER = 8, FW_QUIC_CID_MAX = 20 };

static __always_inline int fw_quote_ports(const void *data, const void *end, struct fw_packet *q) {
    const __u8 *h = fw_l4(data, q);
    if (q->protocol != FW_TCP && q->protocol != FW_UDP) return FW_OTHER;
    if (q->l4_bytes < 4 || (const void *)(h + 4) > end) return FW_BAD;
    const __u32 from = FW_LOAD(__u16, h), to = FW_LOAD(__u16, h + 2);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    q->ports = to << 16 | from;
#else
    q->ports = to | from << 16;
#endif
    q->port = (__u16)from;
    return FW_OK;
}

static __always_inline int fw_quote_ip4(const void *data, const void *end, __u32 at, __u32 bytes, struct fw_packet *q) {
    const __u8 *h = (const __u8 *)data + (at & FW_FRAME_MASK);
    if (bytes < 20 || (const void *)(h + 20) > end) return FW_BAD;
    const __u32 header = (__u32)(h[0] & 15) * 4;
    if (h[0] >> 4 != 4 || header < 20 || header > bytes) return FW_BAD;
    q->source[0] = q->source[1] = q->destination[0] = q->destination[1] = 0;
    q->source[2] = q->destination[2] = FW_BE32(0xffff);
    q->source[3] = FW_LOAD(__u32, h + 16);
    q->destination[3] = FW_LOAD(__u32, h + 12);
    q->ip_bytes = FW_BE16(FW_LOAD(__u16, h + 2));
    q->protocol = h[9];
    q->l4 = at + header;
    q->l4_bytes = bytes - header;
    return FW_LOAD(__u16, h + 6) & FW_BE16(0x1fff) ? FW_OTHER : FW_OK;
}

static __always_inline int fw_quote_ip6(const void *data, const void *end, __u32 at, __u32 bytes, struct fw_packet *q) {
    const __u8 *h = (const __u8 *)data + (at & FW_FRAME_MASK);
    if (bytes < 40 || (const void *)(h + 40) > end || h[0] >> 4 != 6) return FW_BAD;
    for (int i = 0; i < 4; i++) {
        q->source[i] = FW_LOAD(__u32, h + 24 + 4 * i);
        q->destination[i] = FW_LOAD(__u32, h + 8 + 4 * i);
    }
    q->ip_bytes = 40 + (__u32)FW_BE16(FW_LOAD(__u16, h + 4));
    __u32 next = h[6], skip = 40;
    for (int i = 0; i < FW_EXTENSIONS; i++) {
        if (next != 0 && next != 43 && next != 44 && next != 60) break;
        if (skip > FW_EXTENSION_BYTES || skip + 8 > bytes) return FW_BAD;
        const __u8 *e = h + skip;
        if ((const void *)(e + 8) > end) return FW_BAD;
        if (next == 44 && (FW_LOAD(__u16, e + 2) & FW_BE16(0xfff8))) return FW_OTHER;
        skip += next == 44 ? 8 : ((__u32)e[1] + 1) * 8;
        next = e[0];
    }
    if (skip > FW_EXTENSION_BYTES || skip > bytes) return FW_BAD;
    q->protocol = (__u8)next;
    q->l4 = at + skip;
    q->l4_bytes = bytes - skip;
    return FW_OK;
}

/* What the error p quotes, as if the client had sent it: source is the client, destination the VIP; l4 and l4_bytes are
 * what is there of the quoted transport header. FW_OTHER: nothing that has ports; FW_BAD: cut short or no IP packet. */
static __always_inline int fw_quote_read(const void *data, const void *end, const struct fw_packet *p,
                                         struct fw_packet *q) {
    if (p->l4_bytes < FW_ICMP_HEADER || p->fragment != FW_WHOLE) return FW_BAD;
    const __u32 at = p->l4 + FW_ICMP_HEADER, bytes = p->l4_bytes - FW_ICMP_HEADER;
    q->family = p->family;
    q->ip = at;
    q->fragment = FW_WHOLE;
    q->fragment_id = 0;
    q->traffic_class = q->type = q->code = 0;
    int rc = p->family == 4 ? fw_quote_ip4(data, end, at, bytes, q) : fw_quote_ip6(data, end, at, bytes, q);
    return rc == FW_OK ? fw_quote_ports(data, end, q) : rc;
}

/* Where the source connection ID of a quoted packet of QUIC is, and its length: 0 = it has none (a short header), or it
 * is not within the quote. */
static __always_inline __u32 fw_quote_scid(const void *data, const void *end, const struct fw_packet *q, __u32 *at) {
    const __u8 *h = fw_l4(data, q);
    if (q->l4_bytes < 8 + 7 || (const void *)(h + 8 + 7) > end || !(h[8] & 0x80)) return 0;
    const __u32 skip = h[8 + 5];
    if (skip > FW_QUIC_CID_MAX) return 0;
    const __u8 *s = h + 8 + 6 + skip;
    if ((const void *)(s + 1) > end) return 0;
    const __u32 len = s[0];
    if (!len || len > FW_QUIC_CID_MAX || 8 + 7 + skip + len > q->l4_bytes) return 0;
    *at = q->l4 + 8 + 7 + skip;
    return len;
}

#endif

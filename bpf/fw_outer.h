/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Reads what other hosts put in front of a packet: GUE with our private data, or a bare IP header. */
#ifndef CB_FW_OUTER_H
#define CB_FW_OUTER_H

#include "forward.h"
#include "fw_packet.h"

enum { FW_INNER_MIN = 20, FW_UDP_HEADER = 8 };

struct fw_outer {
    __u32 inner;       /* where the inner packet begins in the frame */
    __u32 inner_bytes; /* what the outer headers say about its length */
    __u8 family;       /* of the inner packet */
    __u8 traffic_class;
    __u8 gue; /* else IPIP, and nothing below is known */
    __u8 hop, flags, tag_key;
    __u16 reserved;
    __u32 head, previous, version; /* as on the wire: what the tag is made of, */
    __u32 inner_from, inner_to;    /* ... and of the inner addresses the last four bytes */
    __u64 tag;
};

/* FW_OTHER: GUE, but of another form than ours. */
static __always_inline int fw_outer_gue(const void *data, const void *end, const struct fw_packet *p,
                                        struct fw_outer *o) {
    const __u8 *h = fw_l4(data, p);
    const __u8 *g = h + FW_UDP_HEADER, *inner = g + CB_FW_GUE_BYTES;
    const __u32 before = FW_UDP_HEADER + CB_FW_GUE_BYTES;
    if (p->l4_bytes < before + FW_INNER_MIN || (const void *)(inner + FW_INNER_MIN) > end) return FW_BAD;
    if (FW_BE16(FW_LOAD(__u16, h + 4)) != p->l4_bytes) return FW_BAD;
    if (g[0] != CB_FW_GUE_WORDS || FW_LOAD(__u16, g + 2) != FW_BE16(1)) return FW_BAD;
    if (g[1] != FW_IPIP && g[1] != FW_IPV6) return FW_BAD;
    o->gue = 1;
    o->family = g[1] == FW_IPIP ? 4 : 6;
    o->inner = p->l4 + before;
    o->inner_bytes = p->l4_bytes - before;
    o->head = FW_LOAD(__u32, g + 4);
    o->hop = g[5];
    o->flags = g[6];
    o->tag_key = g[7];
    o->previous = FW_LOAD(__u32, g + 8);
    o->version = FW_LOAD(__u32, g + 12);
    o->tag = FW_LE64(FW_LOAD(__u64, g + 16));
    if (o->family == 4) {
        o->inner_from = FW_LOAD(__u32, inner + 12);
        o->inner_to = FW_LOAD(__u32, inner + 16);
    } else {
        if (o->inner_bytes < 40 || (const void *)(inner + 40) > end) return FW_BAD;
        o->inner_from = FW_LOAD(__u32, inner + 20);
        o->inner_to = FW_LOAD(__u32, inner + 36);
    }
    return g[4] == CB_FW_PRIVATE && o->tag_key < CB_FW_TAG_KEYS ? FW_OK : FW_OTHER;
}

/* The encapsulation that p begins with. FW_BAD: its lengths or fields contradict each other. */
static __always_inline int fw_outer_read(const void *data, const void *end, const struct fw_packet *p,
                                         struct fw_outer *o) {
    o->traffic_class = p->traffic_class;
    o->gue = o->hop = o->flags = 0;
    o->previous = 0;
    if (p->fragment != FW_WHOLE) return FW_BAD; /* hosts send whole packets to each other */
    if (p->protocol == FW_UDP) return fw_outer_gue(data, end, p, o);
    o->family = p->protocol == FW_IPIP ? 4 : 6;
    o->inner = p->l4;
    o->inner_bytes = p->l4_bytes;
    return p->l4_bytes < FW_INNER_MIN ? FW_BAD : FW_OK;
}

/* What congestion marks become when the outer header goes (RFC 6040, figure 4): -1 = the packet is to be dropped. */
static __always_inline int fw_outer_ecn(__u8 inner, __u8 outer) {
    inner &= 3;
    outer &= 3;
    if (outer == 3) return inner ? 3 : -1;
    return outer == 1 && inner == 2 ? 1 : inner;
}

#endif

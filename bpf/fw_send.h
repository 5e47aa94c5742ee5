/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Puts a packet into an encapsulation, and out of the program. */
#ifndef CB_FW_SEND_H
#define CB_FW_SEND_H

#include "fw_maps.h"

/* Where a packet goes, and what goes with it. */
struct fw_way {
    __u32 slot;     /* of the member */
    __u32 previous; /* cb_fw_gue.previous */
    __u32 entropy;  /* of the flow: source port and flow label */
    __u32 counter;  /* enum cb_fw_counter: what is counted when it leaves */
    __u8 hop;       /* cb_fw_gue.hop: 1 from the first host; what is more goes by GUE always */
    __u8 hop_flags; /* enum cb_fw_gue_flags */
    __u8 inside;    /* it came from another host, by whom its sender is not told anything */
    __u8 reserved;  /* older verifiers want all bytes of what functions of their own get */
};

#include "fw_too_big.h"

enum { FW_OUTER_TTL = 64, FW_OUTER4 = 20, FW_OUTER6 = 40, FW_OUTER_UDP = 8, FW_PORT_FIRST = 49152, FW_PORTS = 16384 };

/* The tag of a GUE header, of what decides anything: eight bytes of the inner addresses, then `previous` and what is
 * behind the first byte of `head`, as on the wire. What comes out of the table last is hashed last. */
static __always_inline __u64 fw_tag(const __u64 *key, __u32 head, __u32 previous, __u32 source, __u32 destination) {
    struct sip v = sip_begin(key[0], key[1]);
    sip_word(&v, (__u64)FW_LE32(source) | (__u64)FW_LE32(destination) << 32);
    sip_word(&v, (__u64)FW_LE32(previous) | (__u64)(FW_LE32(head) >> 8) << 32 | 15ULL << 56);
    return sip_end(&v);
}

static __always_inline __u16 fw_entropy_port(__u32 entropy) {
    return FW_BE16(FW_PORT_FIRST + (entropy & (FW_PORTS - 1)));
}

static __always_inline void fw_write_gue(const struct cb_fw_control *c, const struct fw_packet *p,
                                         const struct fw_way *w, __u8 *h, __u32 ip_bytes) {
    const __u8 *inner = h + FW_OUTER_UDP + CB_FW_GUE_BYTES;
    const __u32 from = FW_LOAD(__u32, inner + (p->family == 4 ? 12 : 20));
    const __u32 to = FW_LOAD(__u32, inner + (p->family == 4 ? 16 : 36));
    const __u32 at = c->tag_current & (CB_FW_TAG_KEYS - 1);
    FW_STORE(__u16, h, fw_entropy_port(w->entropy));
    FW_STORE(__u16, h + 2, c->gue_port);
    FW_STORE(__u32, h + 4, FW_BE32((FW_OUTER_UDP + CB_FW_GUE_BYTES + ip_bytes) << 16)); /* no checksum */
    h += FW_OUTER_UDP;
    FW_STORE(__u32, h, FW_BE32(CB_FW_GUE_WORDS << 24 | (__u32)(p->family == 4 ? FW_IPIP : FW_IPV6) << 16 | 1));
    const __u32 head = FW_BE32((__u32)CB_FW_PRIVATE << 24 | (__u32)w->hop << 16 | (__u32)w->hop_flags << 8 | at);
    const __u32 previous = FW_BE32(w->previous), version = FW_BE32(c->table_version);
    FW_STORE(__u32, h + 4, head);
    FW_STORE(__u32, h + 8, previous);
    FW_STORE(__u32, h + 12, version);
    const __u64 tag = fw_tag(c->tag_key[at], head, previous, from, to);
    FW_STORE(__u64, h + 16, FW_LE64(tag));
}

static __always_inline void fw_write_eth(__u8 *h, const struct cb_fw_member *m, __u16 type) {
    FW_STORE(__u64, h, FW_LOAD(__u64, m->next_hop)); /* and two bytes of the source, which follows */
    FW_STORE(__u32, h + 8, FW_LOAD(__u32, m->next_hop + 8));
    FW_STORE(__u16, h + 12, type);
}

static __always_inline void fw_write_ip4(const struct cb_fw_control *c, const struct cb_fw_member *m,
                                         const struct fw_packet *p, __u8 *h, __u32 bytes, __u8 protocol) {
    const __u32 first = FW_BE32(0x45000000 | (__u32)p->traffic_class << 16 | bytes);
    const __u32 second = FW_BE32(0x4000); /* not to be cut into pieces: it was seen to fit */
    const __u32 source = FW_LOAD(__u32, c->address4), destination = FW_LOAD(__u32, m->address);
    const __u32 ttl = FW_BE32((__u32)FW_OUTER_TTL << 24 | (__u32)protocol << 16);
    __u64 sum = (__u64)first + second + ttl + source + destination;
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    FW_STORE(__u32, h, first);
    FW_STORE(__u32, h + 4, second);
    FW_STORE(__u32, h + 8, ttl);
    FW_STORE(__u16, h + 10, (__u16)~sum);
    FW_STORE(__u32, h + 12, source);
    FW_STORE(__u32, h + 16, destination);
}

static __always_inline void fw_write_ip6(const struct cb_fw_control *c, const struct cb_fw_member *m,
                                         const struct fw_packet *p, const struct fw_way *w, __u8 *h, __u32 bytes,
                                         __u8 protocol) {
    FW_STORE(__u32, h, FW_BE32(0x60000000 | (__u32)p->traffic_class << 20 | (w->entropy & 0xfffff)));
    FW_STORE(__u32, h + 4, FW_BE32(bytes << 16 | (__u32)protocol << 8 | FW_OUTER_TTL));
    FW_STORE(__u64, h + 8, FW_LOAD(__u64, c->address6));
    FW_STORE(__u64, h + 16, FW_LOAD(__u64, c->address6 + 8));
    FW_STORE(__u64, h + 24, FW_LOAD(__u64, m->address));
    FW_STORE(__u64, h + 32, FW_LOAD(__u64, m->address + 8));
}

static __always_inline int fw_out(struct xdp_md *ctx, const struct cb_fw_member *m, const struct fw_way *w,
                                  __u32 bytes) {
    __u32 slot = w->slot;
    struct cb_fw_traffic *t = bpf_map_lookup_elem(&member_counters, &slot);
    if (t) {
        t->packets++;
        t->bytes += bytes;
    }
    fw_count(w->counter);
    return m->ifindex == ctx->ingress_ifindex ? XDP_TX : (int)bpf_redirect(m->ifindex, 0);
}

/* To another station of this network: the same packet, with one hop less, so that it cannot go round for ever. */
static __always_inline int fw_send_mac(struct xdp_md *ctx, const struct cb_fw_member *m, const struct fw_packet *p,
                                       const struct fw_way *w) {
    __u8 *h = (void *)(long)ctx->data;
    const void *end = (const void *)(long)ctx->data_end;
    if ((const void *)(h + FW_ETH + 20) > end) return fw_drop(CB_FW_N_MALFORMED);
    if (p->family == 4) {
        if (h[FW_ETH + 8] <= 1) return fw_drop(CB_FW_N_LOOP);
        h[FW_ETH + 8]--;
        __u32 sum = FW_LOAD(__u16, h + FW_ETH + 10) + (__u32)FW_BE16(0x0100); /* RFC 1624 */
        FW_STORE(__u16, h + FW_ETH + 10, (__u16)(sum + (sum >= 0xffff)));
    } else {
        if (h[FW_ETH + 7] <= 1) return fw_drop(CB_FW_N_LOOP);
        h[FW_ETH + 7]--;
    }
    fw_write_eth(h, m, p->family == 4 ? FW_BE16(0x0800) : FW_BE16(0x86dd));
    return fw_out(ctx, m, w, p->ip_bytes);
}

/* Does it fit? How much longer it gets is in *more. */
static __always_inline int fw_fits(const struct cb_fw_member *m, const struct fw_packet *p, const struct fw_way *w,
                                   __u32 *more) {
    const __u32 form = w->hop > 1 ? CB_FW_GUE : m->encapsulation;
    *more = 0;
    if (form == CB_FW_MAC) return 1;
    *more = (m->family == 4 ? FW_OUTER4 : FW_OUTER6) + (form == CB_FW_GUE ? FW_OUTER_UDP + CB_FW_GUE_BYTES : 0);
    return p->ip_bytes + *more <= m->mtu;
}

/* Takes what is behind the Ethernet header at the front of the frame, p->ip_bytes of it (and what the frame has
 * beyond), to the member: it fits, by fw_fits(). The frame changes: nothing that was read of it is valid afterwards. */
static __always_inline int fw_encapsulate(struct xdp_md *ctx, const struct cb_fw_control *c,
                                          const struct cb_fw_member *m, const struct fw_packet *p,
                                          const struct fw_way *w, __u32 more) {
    if (!more) return fw_send_mac(ctx, m, p, w);
    if (bpf_xdp_adjust_head(ctx, -(int)more)) return fw_drop(CB_FW_N_TOO_BIG);
    const int gue = more == FW_OUTER4 + FW_OUTER_UDP + CB_FW_GUE_BYTES || more > FW_OUTER6;
    __u8 *h = (void *)(long)ctx->data;
    const void *end = (const void *)(long)ctx->data_end;
    const __u8 protocol = gue ? FW_UDP : p->family == 4 ? FW_IPIP : FW_IPV6;
    const __u32 addresses = p->family == 4 ? 20 : 40; /* it is there: what follows asks for the verifier */
    if (m->family == 4) {
        if ((const void *)(h + FW_ETH + FW_OUTER4 + FW_OUTER_UDP + CB_FW_GUE_BYTES + addresses) > end && gue)
            return XDP_DROP;
        if ((const void *)(h + FW_ETH + FW_OUTER4) > end) return XDP_DROP;
        fw_write_eth(h, m, FW_BE16(0x0800));
        fw_write_ip4(c, m, p, h + FW_ETH, p->ip_bytes + more, protocol);
        if (gue) fw_write_gue(c, p, w, h + FW_ETH + FW_OUTER4, p->ip_bytes);
    } else {
        if ((const void *)(h + FW_ETH + FW_OUTER6 + FW_OUTER_UDP + CB_FW_GUE_BYTES + addresses) > end && gue)
            return XDP_DROP;
        if ((const void *)(h + FW_ETH + FW_OUTER6) > end) return XDP_DROP;
        fw_write_eth(h, m, FW_BE16(0x86dd));
        fw_write_ip6(c, m, p, w, h + FW_ETH, p->ip_bytes + more - FW_OUTER6, protocol);
        if (gue) fw_write_gue(c, p, w, h + FW_ETH + FW_OUTER6, p->ip_bytes);
    }
    return fw_out(ctx, m, w, p->ip_bytes);
}

/* The same with all that can come between. */
static __always_inline int fw_send(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *p,
                                   const struct fw_way *w) {
    __u32 more;
    const struct cb_fw_member *m = fw_member(w->slot);
    if (!m) return fw_drop(CB_FW_N_NO_OWNER);
    if (!m->ifindex) return fw_drop(CB_FW_N_NO_NEIGHBOUR);
    if (!fw_fits(m, p, w, &more)) return w->inside ? fw_drop(CB_FW_N_TOO_BIG) : fw_too_big(ctx, p, m->mtu - more);
    return fw_encapsulate(ctx, c, m, p, w, more);
}

/* The same, for whom a call more is no matter. */
FW_GLOBAL int fw_send_on(struct xdp_md *ctx, const struct fw_packet *p, const struct fw_way *w) {
    const struct cb_fw_control *c = fw_control();
    return c && p && w ? fw_send(ctx, c, p, w) : XDP_DROP;
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Delivered here, or sent on to the bucket's other owner. */
#ifndef CB_FW_HERE_H
#define CB_FW_HERE_H

#include "fw_fragment.h"
#include "fw_rate.h"
#include "fw_route.h"
#include "fw_send.h"

enum { FW_TCP_LISTEN = 10, FW_TCP_SYN = 0x02, FW_TCP_RST = 0x04, FW_TCP_ACK = 0x10 };

/* Somebody listens, and has no socket for this: a SYN is new, and an ACK may have our SYN cookie. */
static __always_inline int fw_listener_keeps(struct xdp_md *ctx, struct bpf_sock *sk, const struct fw_packet *p) {
    const __u8 *data = (const __u8 *)(long)ctx->data;
    const void *end = (const void *)(long)ctx->data_end;
    const __u8 *h = fw_l4(data, p);
    if ((const void *)(h + 20) > end) return 0;
    const __u8 flags = h[13] & (FW_TCP_SYN | FW_TCP_RST | FW_TCP_ACK);
    if (flags == FW_TCP_SYN) return 1;
    if (flags != FW_TCP_ACK) return 0;
    const __u8 *ip = data + FW_ETH;
    if (p->family == 4) {
        if ((const void *)(ip + 20) > end) return 0;
        return bpf_tcp_check_syncookie(sk, (void *)ip, 20, (void *)h, 20) == 0;
    }
    if ((const void *)(ip + 40) > end) return 0;
    return bpf_tcp_check_syncookie(sk, (void *)ip, 40, (void *)h, 20) == 0;
}

/* Does this host have the connection of q? quoted: by an ICMP error, so a listener does not count. */
FW_GLOBAL int fw_tcp_keeps(struct xdp_md *ctx, const struct fw_packet *q, int quoted) {
    struct bpf_sock_tuple t = {};
    __u32 bytes = sizeof(t.ipv4);
    if (!q) return 0;
    if (q->family == 4) {
        t.ipv4.saddr = q->source[3];
        t.ipv4.daddr = q->destination[3];
        __builtin_memcpy(&t.ipv4.sport, &q->ports, 4);
    } else {
        __builtin_memcpy(t.ipv6.saddr, q->source, 16);
        __builtin_memcpy(t.ipv6.daddr, q->destination, 16);
        __builtin_memcpy(&t.ipv6.sport, &q->ports, 4);
        bytes = sizeof(t.ipv6);
    }
    struct bpf_sock *sk = bpf_skc_lookup_tcp(ctx, &t, bytes, BPF_F_CURRENT_NETNS, 0);
    if (!sk) return 0;
    int keeps = sk->state != FW_TCP_LISTEN; /* half open, established, closing, TIME_WAIT */
    if (!keeps && !quoted) keeps = fw_listener_keeps(ctx, sk, q);
    bpf_sk_release(sk);
    return keeps;
}

enum fw_quic { FW_QUIC_OURS, FW_QUIC_KNOWN, FW_QUIC_UNKNOWN };

/* Has a packet of QUIC an ID that its client chose, and does the endpoint here know it? */
FW_GLOBAL int fw_quic_who(struct xdp_md *ctx, const struct fw_packet *p) {
    struct cb_fw_dcid key = {};
    if (!p) return FW_QUIC_OURS;
    const __u8 *h = fw_l4((const void *)(long)ctx->data, p) + 8;
    if (p->fragment != FW_WHOLE || p->l4_bytes < 8 + 7) return FW_QUIC_OURS;
    if ((const void *)(h + 7) > (const void *)(long)ctx->data_end || !(h[0] & 0x80)) return FW_QUIC_OURS;
    const __u32 version = FW_BE32(FW_LOAD(__u32, h + 1)), type = h[0] >> 4 & 3;
    if (!version) return FW_QUIC_OURS;
    if (version == 1 && type > 1) return FW_QUIC_OURS;                        /* Handshake, Retry */
    if (version == 0x6b3343cf && type != 1 && type != 2) return FW_QUIC_OURS; /* the same of RFC 9369 */
    __u64 n = h[5];
    if (n < 1) return FW_QUIC_OURS;
    FW_KEEP(n);
    if (n > sizeof(key.bytes)) return FW_QUIC_OURS;
    FW_KEEP(n);
    if (bpf_xdp_load_bytes(ctx, (p->l4 & FW_FRAME_MASK) + 8 + 6, key.bytes, (__u32)n)) return FW_QUIC_OURS;
    key.length = (__u8)n;
    return bpf_map_lookup_elem(&live, &key) ? FW_QUIC_KNOWN : FW_QUIC_UNKNOWN;
}

/* `other` is the slot of the bucket's other owner, who lives. 0 = p (or what it quotes, q) stays, else how it goes on:
 * CB_FW_FINAL or CB_FW_ASK. */
static __always_inline __u32 fw_goes_on(struct xdp_md *ctx, const struct fw_packet *p, const struct fw_packet *q,
                                        __u32 vip_flags) {
    if (q->protocol == FW_TCP) return fw_tcp_keeps(ctx, q, p != q) ? 0 : CB_FW_FINAL;
    if (vip_flags & CB_FW_QUIC && p == q && fw_quic_who(ctx, p) == FW_QUIC_UNKNOWN) return CB_FW_ASK;
    return 0;
}

/* Did the frame come from this very member, as an ordinary packet? It would go round: two hosts that differ about the
 * owner would send it to each other. */
static __always_inline int fw_came_from(struct xdp_md *ctx, __u32 slot) {
    const __u8 *h = (const __u8 *)(long)ctx->data;
    const struct cb_fw_member *m = fw_member(slot);
    if (!m || m->encapsulation != CB_FW_MAC || (const void *)(h + FW_ETH) > (const void *)(long)ctx->data_end) return 0;
    return FW_LOAD(__u32, h + 6) == FW_LOAD(__u32, m->next_hop) &&
           FW_LOAD(__u16, h + 10) == FW_LOAD(__u16, m->next_hop + 4);
}

/* Another host says that this is first owner, and cannot say who is second: by the own table it is who is not this
 * host. 0: nobody else has the bucket, or nobody that lives. */
static __always_inline int fw_other_owner(const struct cb_fw_control *c, struct fw_owners *o) {
    if (!c->self || o->by_cid) return 0;
    if (o->first != c->self_slot) o->second = o->first;
    return o->second != c->self_slot && fw_living(o->second);
}

/* This host has the packet p of flow q (p itself, or what the ICMP error p quotes); o->second is the slot of the
 * bucket's other owner, who lives. The frame is as it came from outside, or was taken out of its encapsulation. `hop`
 * is what it came with: 0 from outside. */
static __always_inline int fw_decide_here(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *p,
                                          const struct fw_packet *q, __u32 vip_flags, const struct fw_owners *o,
                                          __u32 hop) {
    const __u32 flags = fw_goes_on(ctx, p, q, vip_flags);
    if (!flags) return fw_pass(CB_FW_N_KEPT);
    if (!fw_rate_take(CB_FW_RATE_HOP, c->hop_rate)) {
        /* A handshake is most likely a new one. TCP would be answered with RST, and what lives at the other owner would
         * end with a flood: dropped, it is sent again. */
        return flags == CB_FW_ASK ? fw_pass(CB_FW_N_RATE_LIMITED) : fw_drop(CB_FW_N_RATE_LIMITED);
    }
    if (p->fragment == FW_FIRST) fw_fragment_way(p, o->second, CB_FW_NOBODY);
    const struct fw_way w = {.slot = o->second,
                             .previous = flags == CB_FW_ASK ? c->self : 0,
                             .entropy = o->entropy,
                             .counter = flags == CB_FW_ASK ? CB_FW_N_ASKED : CB_FW_N_SECOND_HOP,
                             .hop = hop ? (__u8)(hop + 1) : 2,
                             .hop_flags = (__u8)flags,
                             .inside = hop > 0};
    return fw_send_on(ctx, p, &w);
}

#endif

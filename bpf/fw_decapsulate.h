/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Packets that another host encapsulated for this one. */
#ifndef CB_FW_DECAPSULATE_H
#define CB_FW_DECAPSULATE_H

#include "fw_here.h"
#include "fw_icmp.h"
#include "fw_outer.h"

/* The outer packet is p: is it of one of ours? -1 = yes, else it was dropped. */
static __always_inline int fw_outer_trusted(const struct cb_fw_control *c, const struct fw_packet *p,
                                            struct fw_outer *o) {
    if (!o->gue) {
        const __u32 *slot = bpf_map_lookup_elem(&underlay, p->source);
        if (!slot) return fw_drop(CB_FW_N_BAD_TAG);
        if (c->self && *slot == c->self_slot) return fw_drop(CB_FW_N_LOOP);
        o->hop = 1;
        return -1;
    }
    __u32 at = o->tag_key;
    FW_KEEP(at); /* was seen to be small, in a way that not every verifier can follow */
    const __u64 *key = c->tag_key[at & (CB_FW_TAG_KEYS - 1)];
    if (!(key[0] | key[1])) return fw_drop(CB_FW_N_BAD_TAG);
    if (fw_tag(key, o->head, o->previous, o->inner_from, o->inner_to) != o->tag) return fw_drop(CB_FW_N_BAD_TAG);
    return o->hop < 1 || o->hop > CB_FW_HOPS ? fw_drop(CB_FW_N_LOOP) : -1;
}

/* A congestion mark of the way between the hosts. */
static __always_inline int fw_outer_mark(struct xdp_md *ctx, const struct fw_packet *p, __u8 outer) {
    const int ecn = fw_outer_ecn(p->traffic_class, outer);
    if (ecn < 0) return fw_drop(CB_FW_N_MALFORMED);
    if (ecn == (p->traffic_class & 3)) return -1;
    __u8 *h = (__u8 *)(long)ctx->data + FW_ETH;
    if ((void *)(h + 20) > (void *)(long)ctx->data_end) return fw_drop(CB_FW_N_MALFORMED);
    const __u16 before = FW_LOAD(__u16, h);
    if (p->family == 6) {
        FW_STORE(__u16, h, (before & ~FW_BE16(0x30)) | FW_BE16((__u16)(ecn << 4)));
        return -1;
    }
    const __u16 after = (before & ~FW_BE16(3)) | FW_BE16((__u16)ecn);
    FW_STORE(__u16, h, after);
    __u32 sum = (__u32)(__u16)~FW_LOAD(__u16, h + 10) + (__u16)~before + after; /* RFC 1624, equation 3 */
    sum = (sum & 0xffff) + (sum >> 16);
    FW_STORE(__u16, h + 10, (__u16) ~(sum + (sum >> 16)));
    return -1;
}

/* Takes the outer headers away: p becomes the inner packet. -1 = done, else it was dropped. */
static __always_inline int fw_outer_strip(struct xdp_md *ctx, const struct fw_outer *o, struct fw_packet *p) {
    __u8 *h = (__u8 *)(long)ctx->data;
    if ((void *)(h + FW_ETH) > (void *)(long)ctx->data_end) return fw_drop(CB_FW_N_MALFORMED);
    const __u64 macs = FW_LOAD(__u64, h);
    const __u32 rest = FW_LOAD(__u32, h + 8);
    if (bpf_xdp_adjust_head(ctx, (int)(o->inner - FW_ETH))) return fw_drop(CB_FW_N_MALFORMED);
    h = (__u8 *)(long)ctx->data;
    const void *end = (const void *)(long)ctx->data_end;
    if ((const void *)(h + FW_ETH) > end) return fw_drop(CB_FW_N_MALFORMED);
    FW_STORE(__u64, h, macs);
    FW_STORE(__u32, h + 8, rest);
    FW_STORE(__u16, h + 12, o->family == 4 ? FW_BE16(0x0800) : FW_BE16(0x86dd));
    const int rc = fw_parse(h, end, p);
    if (rc == FW_OTHER) return fw_drop(CB_FW_N_NOT_VIP);
    return rc == FW_BAD || p->ip_bytes != o->inner_bytes ? fw_drop(CB_FW_N_MALFORMED) : -1;
}

/* The other owner of the bucket of q: as the packet says, or if it cannot, as this host's table does. */
static __always_inline void fw_outer_owners(const struct cb_fw_control *c, const struct fw_packet *q,
                                            const struct fw_outer *outer, struct fw_owners *o) {
    if (outer->gue) {
        const __u32 id = FW_BE32(outer->previous);
        const __u32 *slot = id ? bpf_map_lookup_elem(&ids, &id) : 0;
        o->first = c->self_slot;
        o->second = slot ? *slot : CB_FW_NOBODY;
        o->entropy = (q->source[3] ^ q->ports) * 0x9e3779b1U >> 8;
        o->by_cid = 0;
    } else {
        fw_route_table(c, q, o);
    }
    if (!fw_other_owner(c, o)) o->second = CB_FW_NOBODY;
}

/* The packet p of flow q is out of its encapsulation. */
static __always_inline int fw_taken(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *p,
                                    const struct fw_packet *q, __u32 vip_flags, const struct fw_outer *outer) {
    struct fw_owners o;
    if (outer->flags & (CB_FW_FINAL | CB_FW_BY_CID) || !c->self) {
        if (outer->hop == CB_FW_HOPS) fw_count(CB_FW_N_RETURNED);
        return XDP_PASS;
    }
    fw_outer_owners(c, q, outer, &o);
    if (o.second == CB_FW_NOBODY) return XDP_PASS;
    if (!(outer->flags & CB_FW_ASK)) return outer->hop > 1 ? XDP_PASS : fw_decide_here(ctx, c, p, q, vip_flags, &o, 1);

    if (outer->hop >= CB_FW_HOPS || fw_quic_who(ctx, p) != FW_QUIC_UNKNOWN) return XDP_PASS;
    const struct fw_way w = {.slot = o.second,
                             .entropy = o.entropy,
                             .counter = CB_FW_N_RETURNED,
                             .hop = (__u8)(outer->hop + 1),
                             .hop_flags = CB_FW_FINAL,
                             .inside = 1};
    return fw_send_on(ctx, p, &w);
}

/* `p` is the outer packet: whole, to the own address, IPIP or UDP to the GUE port. */
FW_GLOBAL int fw_decapsulate(struct xdp_md *ctx, __u32 interface_flags, struct fw_packet *p) {
    const struct cb_fw_control *c = fw_control();
    struct fw_outer o;
    if (!c || !p) return XDP_DROP;
    if (!(interface_flags & CB_FW_UNDERLAY)) return fw_drop(CB_FW_N_BAD_INTERFACE);
    const int rc = fw_outer_read((const void *)(long)ctx->data, (const void *)(long)ctx->data_end, p, &o);
    if (rc != FW_OK) return fw_drop(rc == FW_BAD ? CB_FW_N_MALFORMED : CB_FW_N_BAD_TAG);
    int done = fw_outer_trusted(c, p, &o);
    if (done < 0) done = fw_outer_strip(ctx, &o, p);
    if (done < 0) done = fw_outer_mark(ctx, p, o.traffic_class);
    if (done >= 0) return done;

    if (p->fragment != FW_LATER && (p->protocol == FW_TCP || p->protocol == FW_UDP)) {
        const struct cb_fw_vip *vip = fw_vip(c, p->destination, p->port, p->protocol);
        if (!vip) return fw_drop(CB_FW_N_NOT_VIP);
        fw_count(CB_FW_N_DECAPSULATED);
        if (p->fragment == FW_FIRST) fw_fragment_way(p, c->self_slot, CB_FW_NOBODY);
        return fw_taken(ctx, c, p, p, vip->flags, &o);
    }
    if (p->fragment != FW_LATER && (p->protocol == FW_IPIP || p->protocol == FW_IPV6)) return fw_drop(CB_FW_N_NOT_VIP);
    if (!fw_vip_address(c, p->destination)) return fw_drop(CB_FW_N_NOT_VIP);
    fw_count(CB_FW_N_DECAPSULATED);
    if (p->fragment == FW_LATER) return o.flags & CB_FW_FINAL ? XDP_PASS : fw_fragment_follows(ctx, c, p, o.hop);
    if (!fw_is_icmp_error(p)) return XDP_PASS;
    int bad;
    struct fw_packet *q = fw_room(FW_ROOM_QUOTE);
    const struct cb_fw_vip *vip = q ? fw_icmp_quoted(ctx, c, p, q, &bad) : 0;
    return vip ? fw_taken(ctx, c, p, q, vip->flags, &o) : XDP_PASS;
}

#endif

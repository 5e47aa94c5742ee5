/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* ICMP errors go to the owner of what they quote. */
#ifndef CB_FW_ICMP_H
#define CB_FW_ICMP_H

#include "fw_here.h"
#include "fw_quote.h"

/* Nobody can tell whose connection it is: user space sends it to all members but those of `slot`. 0: it does not, for
 * the rate is used up, or nobody reads. */
static __always_inline int fw_icmp_fan_out(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *p,
                                           __u32 slot) {
    __u64 n = p->ip_bytes;
    if (n > CB_FW_FANNED_BYTES) return 0; /* no error is as long (RFC 4443, 2.4) */
    FW_KEEP(n);
    if (n < 1) return 0;
    struct cb_fw_fanned *f = 0;
    if (fw_rate_take(CB_FW_RATE_FANOUT, c->icmp_rate)) f = bpf_ringbuf_reserve(&fanout, sizeof(*f), 0);
    if (!f) {
        fw_count(CB_FW_N_RATE_LIMITED);
        return 0;
    }
    f->length = (__u32)n;
    f->slot = slot;
    if (bpf_xdp_load_bytes(ctx, FW_ETH, f->packet, (__u32)n)) {
        bpf_ringbuf_discard(f, 0);
        return 0;
    }
    bpf_ringbuf_submit(f, 0);
    fw_count(CB_FW_N_ICMP_FANNED);
    return 1;
}

/* What p quotes, and the VIP that it is of. 0: nothing of ours; *bad: it contradicts itself. */
static __always_inline const struct cb_fw_vip *fw_icmp_quoted(struct xdp_md *ctx, const struct cb_fw_control *c,
                                                              const struct fw_packet *p, struct fw_packet *q,
                                                              int *bad) {
    const int rc = fw_quote_read((const void *)(long)ctx->data, (const void *)(long)ctx->data_end, p, q);
    *bad = rc == FW_BAD;
    if (rc != FW_OK) return 0;
    for (int i = 0; i < 4; i++) /* an error goes to whom its quote came from */
        *bad |= p->destination[i] != q->destination[i];
    return *bad ? 0 : fw_vip(c, q->destination, q->port, q->protocol);
}

/* By the connection ID of ours in a quoted packet, that of its source: the slot of a living member, or CB_FW_NOBODY. A
 * short header has none. */
static __always_inline __u32 fw_icmp_cid(struct xdp_md *ctx, const struct fw_packet *q) {
    const __u8 *data = (const __u8 *)(long)ctx->data;
    const void *end = (const void *)(long)ctx->data_end;
    struct fw_dcid d = {.is_long = 1};
    __u32 at = 0;
    __u8 unknown = 0;
    d.bytes = fw_quote_scid(data, end, q, &at);
    const __u8 *cid = data + (at & FW_FRAME_MASK);
    if (!d.bytes || (const void *)(cid + FW_CID_BYTES) > end) return CB_FW_NOBODY;
    d.at = cid;
    const __u32 slot = fw_route_cid(&d, 0, &unknown);
    if (unknown) fw_count(CB_FW_N_CID_UNKNOWN);
    return slot;
}

/* Who owns what an error quotes. */
static __always_inline void fw_icmp_owners(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *q,
                                           __u32 vip_flags, struct fw_owners *o) {
    if (q->protocol == FW_UDP && vip_flags & CB_FW_QUIC) {
        o->first = fw_icmp_cid(ctx, q);
        o->second = CB_FW_NOBODY;
        o->by_cid = 1;
        o->entropy = q->ports;
        if (o->first != CB_FW_NOBODY) return;
    }
    fw_route_table(c, q, o);
}

/* `p` is an error (fw_is_icmp_error()) to the address of a VIP, from outside, or from another host's hands. */
FW_GLOBAL int fw_icmp_error(struct xdp_md *ctx, const struct fw_packet *p, __u32 handed) {
    const struct cb_fw_control *c = fw_control();
    struct fw_packet *q = fw_room(FW_ROOM_QUOTE);
    struct fw_owners o;
    if (!c || !p || !q) return XDP_DROP;
    int bad;
    const struct cb_fw_vip *vip = fw_icmp_quoted(ctx, c, p, q, &bad);
    if (bad) return fw_drop(CB_FW_N_MALFORMED);
    if (!vip) return fw_pass(CB_FW_N_LOCAL); /* of echoes, for example */
    const __u32 flags = vip->flags;
    fw_icmp_owners(ctx, c, q, flags, &o);
    if (handed || fw_came_from(ctx, o.first))
        return fw_other_owner(c, &o) ? fw_decide_here(ctx, c, p, q, flags, &o, 1) : fw_pass(CB_FW_N_LOCAL);
    if (o.first == CB_FW_NOBODY) return fw_drop(CB_FW_N_NO_OWNER);
    if (q->protocol == FW_UDP && flags & CB_FW_QUIC && !o.by_cid) {
        /* It may be of this host as well, and there is only one of it: this host takes it, all others get copies. */
        if (fw_icmp_fan_out(ctx, c, p, c->self ? c->self_slot : o.first) && c->self) return XDP_PASS;
    }

    const __u32 previous = fw_living(o.second);
    if (c->self && o.first == c->self_slot) {
        if (previous) return fw_decide_here(ctx, c, p, q, flags, &o, 0);
        return fw_pass(CB_FW_N_LOCAL);
    }
    if (!fw_rate_take(CB_FW_RATE_ICMP, c->icmp_rate)) return fw_drop(CB_FW_N_RATE_LIMITED);
    const struct fw_way w = {.slot = o.first,
                             .previous = previous,
                             .entropy = o.entropy,
                             .counter = CB_FW_N_ICMP,
                             .hop = 1,
                             .hop_flags = o.by_cid ? CB_FW_BY_CID : 0};
    return fw_send_on(ctx, p, &w);
}

#endif

// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Every host forwards: packets for common addresses (VIPs) go to the host that owns them, by connection ID or by the
 * table. docs/design/datapath.md has the rules, forward.h the maps' layout. */
#include "fw_maps.h"

#include "fw_decapsulate.h"
#include "fw_fragment.h"
#include "fw_icmp.h"
#include "fw_mss.h"
#include "fw_route.h"
#include "fw_send.h"

/* Is it of another host, to this one's own address? */
static __always_inline int encapsulated(const struct cb_fw_control *c, const struct fw_packet *p) {
    if (p->fragment != FW_WHOLE) return 0;
    if (p->protocol == FW_UDP ? p->port != c->gue_port : p->protocol != FW_IPIP && p->protocol != FW_IPV6) return 0;
    if (p->family == 4) return p->destination[3] == FW_LOAD(__u32, c->address4);
    return p->destination[0] == FW_LOAD(__u32, c->address6) && p->destination[1] == FW_LOAD(__u32, c->address6 + 4) &&
           p->destination[2] == FW_LOAD(__u32, c->address6 + 8) &&
           p->destination[3] == FW_LOAD(__u32, c->address6 + 12);
}

static __always_inline struct fw_way first_hop(const struct fw_owners *o, __u32 previous) {
    struct fw_way w = {.slot = o->first,
                       .previous = previous,
                       .entropy = o->entropy,
                       .counter = o->by_cid ? CB_FW_N_BY_CID : CB_FW_N_FORWARDED,
                       .hop = 1,
                       .hop_flags = o->by_cid ? CB_FW_BY_CID : 0};
    return w;
}

/* A TCP or UDP packet from outside, or from the hands of another host: an ordinary packet (CB_FW_MAC), which comes by
 * an interface that is not of the edge, or from the very member that it would be sent to. (Stacks of functions that
 * call each other have 512 bytes together: hence the many of their own.) */
FW_GLOBAL int to_owner(struct xdp_md *ctx, const struct fw_packet *p, __u32 handed) {
    const struct cb_fw_control *c = fw_control();
    struct fw_owners o;
    if (!c || !p) return XDP_DROP;
    const struct cb_fw_vip *vip = fw_vip(c, p->destination, p->port, p->protocol);
    if (!vip) return fw_pass(CB_FW_N_PASSED);
    const __u32 flags = vip->flags;
    if (!handed) fw_count_vip(vip, p->ip_bytes); /* else the host did that it came from outside to */
    fw_route(ctx, c, p, vip, &o);
    if (o.unknown) fw_count(CB_FW_N_CID_UNKNOWN);
    if (handed || fw_came_from(ctx, o.first)) {
        if (p->fragment == FW_FIRST) fw_fragment_way(p, c->self_slot, CB_FW_NOBODY);
        return fw_other_owner(c, &o) ? fw_decide_here(ctx, c, p, p, flags, &o, 1) : fw_pass(CB_FW_N_LOCAL);
    }
    if (o.first == CB_FW_NOBODY) return fw_drop(CB_FW_N_NO_OWNER);
    if (p->fragment == FW_FIRST) fw_fragment_first(p, &o);

    const __u32 previous = fw_living(o.second);
    const struct fw_way w = first_hop(&o, previous);
    if (!c->self || o.first != c->self_slot) return fw_send_on(ctx, p, &w);
    if (previous) return fw_decide_here(ctx, c, p, p, flags, &o, 0);
    return fw_pass(o.by_cid ? CB_FW_N_BY_CID : CB_FW_N_LOCAL);
}

/* What is still to be done with a packet; below are verdicts. */
enum { UNUSUAL = 16, OF_ANOTHER_HOST, OF_AN_OWNER, AN_ERROR, A_FRAGMENT };

/* What has no ports: later fragments, ICMP. */
static __always_inline int without_ports(const struct cb_fw_control *c, const struct fw_packet *p) {
    if (!fw_vip_address(c, p->destination)) return fw_pass(CB_FW_N_PASSED);
    if (p->fragment == FW_LATER) return A_FRAGMENT;
    if (fw_is_icmp_error(p)) return AN_ERROR;
    return fw_pass(CB_FW_N_LOCAL); /* echo requests and the like: any host answers */
}

/* Reads a packet of any kind. */
FW_GLOBAL int examine(struct xdp_md *ctx, __u32 interface_flags) {
    const struct cb_fw_control *c = fw_control();
    struct fw_packet *p = fw_room(FW_ROOM_PACKET);
    if (!c || !p) return XDP_PASS;
    const int parsed = fw_parse((const void *)(long)ctx->data, (const void *)(long)ctx->data_end, p);
    if (parsed == FW_OTHER) return fw_pass(CB_FW_N_PASSED);
    if (parsed == FW_BAD)
        return fw_vip_address(c, p->destination) ? fw_drop(CB_FW_N_MALFORMED) : fw_pass(CB_FW_N_PASSED);
    if (encapsulated(c, p)) return OF_ANOTHER_HOST;
    if (!(interface_flags & (CB_FW_EDGE | CB_FW_UNDERLAY))) return fw_pass(CB_FW_N_PASSED);
    if (p->fragment == FW_LATER || (p->protocol != FW_TCP && p->protocol != FW_UDP)) return without_ports(c, p);
    return OF_AN_OWNER;
}

/* All but what most packets are. */
static __always_inline int unusual(struct xdp_md *ctx, __u32 interface_flags) {
    const int what = examine(ctx, interface_flags);
    struct fw_packet *p = fw_room(FW_ROOM_PACKET);
    if (what < UNUSUAL || !p) return what;
    if (what == OF_ANOTHER_HOST) return fw_decapsulate(ctx, interface_flags, p);
    const __u32 handed = !(interface_flags & CB_FW_EDGE);
    if (what == OF_AN_OWNER) return to_owner(ctx, p, handed);
    return what == AN_ERROR ? fw_icmp_error(ctx, p, handed) : fw_fragment(ctx, p, handed);
}

/* The same for what most packets are. All that is rare is left to unusual(): so it fits into registers, and each family
 * gets code of its own. */
static __always_inline int usual(struct xdp_md *ctx, const struct cb_fw_control *c, __u32 interface_flags,
                                 const struct fw_packet *p) {
    struct fw_owners o;
    __u32 more;
    if (encapsulated(c, p) || !(interface_flags & CB_FW_EDGE)) return UNUSUAL;
    const struct cb_fw_vip *vip = fw_vip(c, p->destination, p->port, p->protocol);
    if (!vip) return fw_pass(CB_FW_N_PASSED);
    fw_route(ctx, c, p, vip, &o);
    const __u32 previous = fw_living(o.second), here = c->self && o.first == c->self_slot;
    const struct fw_way w = first_hop(&o, previous);
    const struct cb_fw_member *m = fw_member(o.first);
    if (!m || !m->ifindex || o.unknown || (here && previous) || !fw_fits(m, p, &w, &more)) return UNUSUAL;
    if (!more && !here && fw_came_from(ctx, o.first)) return UNUSUAL;
    fw_count_vip(vip, p->ip_bytes);
    if (here) return fw_pass(w.counter == CB_FW_N_BY_CID ? CB_FW_N_BY_CID : CB_FW_N_LOCAL);
    return fw_encapsulate(ctx, c, m, p, &w, more);
}

/* What usual() needs of the stack is its own: what unusual() calls, one below the other, takes nearly all there is. */
FW_GLOBAL int plain(struct xdp_md *ctx, __u32 interface_flags) {
    const void *data = (const void *)(long)ctx->data, *end = (const void *)(long)ctx->data_end;
    const struct cb_fw_control *c = fw_control();
    struct fw_packet p;
    if (!c) return XDP_PASS;
    if (fw_parse_plain4(data, end, &p)) return usual(ctx, c, interface_flags, &p);
    if (fw_parse_plain6(data, end, &p)) return usual(ctx, c, interface_flags, &p);
    return UNUSUAL;
}

static __always_inline int fw_forward(struct xdp_md *ctx) {
    const __u32 ifindex = ctx->ingress_ifindex;
    const struct cb_fw_control *c = fw_control();
    if (!c) return XDP_PASS;
    const __u32 interface_flags = fw_interface(c, ifindex);
    if (!interface_flags) return XDP_PASS;
    const int verdict = plain(ctx, interface_flags);
    return verdict == UNUSUAL ? unusual(ctx, interface_flags) : verdict;
}

SEC("xdp")
int forward(struct xdp_md *ctx) {
    return fw_forward(ctx);
}

SEC("tc")
int cb_forward_mss(struct __sk_buff *skb) {
    fw_mss_lower(skb);
    return -1; /* TC_ACT_UNSPEC: what else is attached decides */
}

char licence_text[] SEC("license") = "Dual MIT/GPL";

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

/* A TCP or UDP packet for a VIP, from outside. (Apart: the stacks of all that is called one from the other have 512
 * bytes together.) */
static __always_inline int to_owner(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *p,
                                    const struct cb_fw_vip *vip) {
    struct fw_owners o;
    fw_count_vip(vip, p->ip_bytes);
    fw_route(ctx, c, p, vip, &o);
    if (o.first == CB_FW_NOBODY) return fw_drop(CB_FW_N_NO_OWNER);
    if (p->fragment == FW_FIRST) fw_fragment_first(p, &o);

    const __u32 previous = fw_living(o.second);
    if (c->self && o.first == c->self_slot) {
        if (previous) return fw_decide_here(ctx, c, p, p, vip->flags, &o, 0);
        return fw_pass(o.by_cid ? CB_FW_N_BY_CID : CB_FW_N_LOCAL);
    }
    const struct fw_way w = {.slot = o.first,
                             .previous = previous,
                             .entropy = o.entropy,
                             .counter = o.by_cid ? CB_FW_N_BY_CID : CB_FW_N_FORWARDED,
                             .hop = 1,
                             .hop_flags = o.by_cid ? CB_FW_BY_CID : 0};
    return fw_send(ctx, c, p, &w);
}

/* What has no ports: later fragments, ICMP. */
static __always_inline int without_ports(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *p) {
    if (!fw_vip_address(c, p->destination)) return fw_pass(CB_FW_N_PASSED);
    if (p->fragment == FW_LATER) return fw_fragment(ctx, p);
    if (fw_is_icmp_error(p)) return fw_icmp_error(ctx, p);
    return fw_pass(CB_FW_N_LOCAL); /* echo requests and the like: any host answers */
}

SEC("xdp")
int forward(struct xdp_md *ctx) {
    struct fw_packet p = {};
    const __u32 ifindex = ctx->ingress_ifindex;
    const struct cb_fw_control *c = fw_control();
    const struct cb_fw_interface *in = bpf_map_lookup_elem(&interfaces, &ifindex);
    if (!c || !in) return XDP_PASS;

    const int parsed = fw_parse((const void *)(long)ctx->data, (const void *)(long)ctx->data_end, &p);
    if (parsed == FW_OTHER) return fw_pass(CB_FW_N_PASSED);
    if (parsed == FW_BAD)
        return fw_vip_address(c, p.destination) ? fw_drop(CB_FW_N_MALFORMED) : fw_pass(CB_FW_N_PASSED);
    if (encapsulated(c, &p)) return fw_decapsulate(ctx, in->flags, &p);
    if (!(in->flags & CB_FW_EDGE)) return fw_pass(CB_FW_N_PASSED);
    if (p.fragment == FW_LATER || (p.protocol != FW_TCP && p.protocol != FW_UDP)) return without_ports(ctx, c, &p);

    const struct cb_fw_vip *vip = fw_vip(c, p.destination, p.port, p.protocol);
    if (!vip) return fw_pass(CB_FW_N_PASSED);
    return to_owner(ctx, c, &p, vip);
}

SEC("tc")
int cb_forward_mss(struct __sk_buff *skb) {
    fw_mss_lower(skb);
    return -1; /* TC_ACT_UNSPEC: what else is attached decides */
}

char licence_text[] SEC("license") = "Dual MIT/GPL";

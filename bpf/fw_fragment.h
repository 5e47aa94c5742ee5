/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Fragments without ports go where their first one went. */
#ifndef CB_FW_FRAGMENT_H
#define CB_FW_FRAGMENT_H

#include "fw_route.h"
#include "fw_send.h"

#define FW_FRAGMENT_AGE 30000000000ULL /* no receiver waits longer for the rest (RFC 1122, 3.3.2; RFC 8200: 60 s) */

static __always_inline void fw_fragment_key(const struct fw_packet *p, struct cb_fw_fragment *key) {
    __builtin_memset(key, 0, sizeof(*key));
    __builtin_memcpy(key->source, p->source, 16);
    __builtin_memcpy(key->destination, p->destination, 16);
    key->id = p->fragment_id;
    key->protocol = p->family == 4 ? p->protocol : 0; /* only IPv4 has identifications by protocol */
}

/* p is a first fragment, and goes this way. */
FW_GLOBAL int fw_fragment_way(const struct fw_packet *p, __u32 slot, __u32 second) {
    struct cb_fw_fragment key;
    if (!p) return -1;
    const struct cb_fw_fragment_way way = {.slot = slot, .second = second, .at = bpf_ktime_get_ns()};
    fw_fragment_key(p, &key);
    return (int)bpf_map_update_elem(&fragments, &key, &way, BPF_ANY);
}

static __always_inline const struct cb_fw_fragment_way *fw_fragment_find(const struct fw_packet *p) {
    struct cb_fw_fragment key;
    fw_fragment_key(p, &key);
    const struct cb_fw_fragment_way *way = bpf_map_lookup_elem(&fragments, &key);
    return way && bpf_ktime_get_ns() - way->at < FW_FRAGMENT_AGE ? way : 0;
}

/* A first fragment is on its way to this owner: before it is sent or delivered. */
static __always_inline void fw_fragment_first(const struct fw_packet *p, const struct fw_owners *o) {
    fw_fragment_way(p, o->first, o->second);
}

/* `p` is a later fragment to the address of a VIP; `hop` is what it came with: 0 from outside, where those whose first
 * one was not seen are dropped. Whom another host sent it to keeps them: it may have been overtaken. */
static __always_inline int fw_fragment_follows(struct xdp_md *ctx, const struct cb_fw_control *c,
                                               const struct fw_packet *p, __u32 hop) {
    const struct cb_fw_fragment_way *way = fw_fragment_find(p);
    if (!way) return hop ? XDP_PASS : fw_drop(CB_FW_N_FRAGMENT_UNKNOWN);
    if (c->self && way->slot == c->self_slot) return fw_pass(CB_FW_N_FRAGMENTS);
    if (hop >= 2) return fw_pass(CB_FW_N_FRAGMENTS); /* whatever the first one did: further than this nothing goes */
    const struct fw_way w = {.slot = way->slot,
                             .previous = fw_living(way->second),
                             .entropy = (p->source[3] ^ p->fragment_id) * 0x9e3779b1U >> 8,
                             .counter = CB_FW_N_FRAGMENTS,
                             .hop = (__u8)(hop + 1),
                             .hop_flags = hop ? CB_FW_FINAL : 0,
                             .inside = hop > 0};
    return fw_send_on(ctx, p, &w);
}

FW_GLOBAL int fw_fragment(struct xdp_md *ctx, const struct fw_packet *p, __u32 handed) {
    const struct cb_fw_control *c = fw_control();
    return c && p ? fw_fragment_follows(ctx, c, p, handed ? 1 : 0) : XDP_DROP;
}

#endif

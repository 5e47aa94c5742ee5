/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Finds the MSS among the options of a TCP header. */
#ifndef CB_FW_MSS_H
#define CB_FW_MSS_H

#include "fw_types.h"

enum {
    FW_TCP_OPTIONS = 40,
    FW_MSS_BUFFER = 64,
    FW_MSS_STEPS = 8 /* options that are looked at: kernels write the MSS first, or right behind a signature */
};

/* options: a buffer of FW_MSS_BUFFER bytes, of which n <= FW_TCP_OPTIONS are options. Where the two bytes of the MSS
 * are; 0 = there is none among the first ones, or they contradict themselves. */
static __always_inline __u32 fw_mss_find(const __u8 *options, __u32 n) {
    __u32 at = 0;
    for (int i = 0; i < FW_MSS_STEPS; i++) {
        if (at + 2 > n) return 0;
        FW_KEEP(at);
        const __u32 kind = options[at & (FW_MSS_BUFFER - 1)], len = options[(at + 1) & (FW_MSS_BUFFER - 1)];
        if (kind == 0) return 0;
        if (kind == 1) {
            at++;
            continue;
        }
        if (len < 2 || at + len > n) return 0;
        if (kind == 2) return len == 4 ? at + 2 : 0;
        at += len;
    }
    return 0;
}

#ifdef __bpf__

#include "fw_maps.h"

/* The largest segment that fits between hosts, in the longest encapsulation. */
static __always_inline __u32 fw_mss_limit(const struct cb_fw_control *c, __u32 headers) {
    const __u64 six = FW_LOAD(__u64, c->address6) | FW_LOAD(__u64, c->address6 + 8);
    const __u32 taken = (six ? 40 : 20) + 8 + CB_FW_GUE_BYTES + headers;
    return c->underlay_mtu > taken ? c->underlay_mtu - taken : 0;
}

/* Addresses, and where TCP begins; 0 = this is no whole TCP packet, or one with extension headers, as ours never are.
 */
static __always_inline __u32 fw_mss_tcp(struct __sk_buff *skb, __u32 source[4]) {
    __u8 h[40];
    if (bpf_skb_load_bytes(skb, 14, h, 20)) return 0;
    if (h[0] >> 4 == 4) {
        if (h[9] != FW_TCP || (h[6] & 0x3f) | h[7]) return 0;
        source[0] = source[1] = 0;
        source[2] = FW_BE32(0xffff);
        __builtin_memcpy(&source[3], h + 12, 4);
        return 14 + (h[0] & 15) * 4;
    }
    if (h[0] >> 4 != 6 || h[6] != FW_TCP || bpf_skb_load_bytes(skb, 14, h, 40)) return 0;
    __builtin_memcpy(source, h + 8, 16);
    return 14 + 40;
}

/* Ethernet frames on their way out: SYN-ACKs of VIPs offer no larger segments than what fits between hosts. */
static __always_inline void fw_mss_lower(struct __sk_buff *skb) {
    __u8 options[FW_MSS_BUFFER] = {}, tcp[20];
    __u32 source[4];
    const struct cb_fw_control *c = fw_control();
    if (!c || !c->underlay_mtu || (skb->protocol != FW_BE16(0x0800) && skb->protocol != FW_BE16(0x86dd))) return;
    const __u32 l4 = fw_mss_tcp(skb, source);
    if (!l4 || bpf_skb_load_bytes(skb, l4, tcp, sizeof(tcp)) || (tcp[13] & 0x16) != 0x12) return;
    __u64 n = (tcp[12] >> 4) * 4;
    if (n <= 20) return;
    n -= 20;
    FW_KEEP(n);
    if (n < 4 || n > FW_TCP_OPTIONS || !fw_vip(c, source, FW_LOAD(__u16, tcp), FW_TCP)) return;
    if (bpf_skb_load_bytes(skb, l4 + 20, options, (__u32)n)) return;
    const __u32 at = fw_mss_find(options, (__u32)n);
    __u16 before;
    if (!at || bpf_skb_load_bytes(skb, l4 + 20 + at, &before, 2)) return;
    const __u32 has = FW_BE16(before);
    const __u32 limit = fw_mss_limit(c, skb->protocol == FW_BE16(0x0800) ? 40 : 60);
    if (!limit || has <= limit) return;
    const __u16 after = FW_BE16(limit);
    const int odd = at & 1; /* then the checksum has these two bytes the other way round */
    if (bpf_skb_store_bytes(skb, l4 + 20 + at, &after, 2, 0)) return;
    if (odd)
        bpf_l4_csum_replace(skb, l4 + 16, __builtin_bswap16(before), __builtin_bswap16(after), 2);
    else
        bpf_l4_csum_replace(skb, l4 + 16, before, after, 2);
    fw_count(CB_FW_N_MSS_LOWERED);
}

#endif

#endif

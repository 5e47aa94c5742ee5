// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Gives packets that rules name to the AF_XDP socket of their queue and everything else to the kernel. What needs more
 * than a look at fixed places (tags, fragments, IPv4 options, IPv6 extension headers) and what is not for this
 * interface's own address goes to the kernel, whatever the rules say. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "xsk.h"

#define IP_MORE_OR_OFFSET 0x3fff /* of frag_off: more fragments, or one that is not the first */

struct {
    __uint(type, BPF_MAP_TYPE_XSKMAP);
    __uint(max_entries, CB_XSK_MAP_QUEUES);
    __type(key, __u32);
    __type(value, __u32);
} sockets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CB_XSK_MAP_RULES);
    __type(key, struct cb_xsk_key);
    __type(value, __u32);
} rules SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct cb_xsk_state);
} state SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CB_XSK_COUNTERS);
    __type(key, __u32);
    __type(value, __u64);
} counters SEC(".maps");

static __always_inline int done(__u32 what, int verdict) {
    __u64 *n = bpf_map_lookup_elem(&counters, &what);
    if (n) (*n)++;
    return verdict;
}

/* The destination of a packet. 1: found; 0: it is something that only the kernel handles; -1: no IP, or cut short. */
static __always_inline int read_key(const struct xdp_md *ctx, const struct cb_xsk_state *s, struct cb_xsk_key *key) {
    const __u8 *end = (const __u8 *)(long)ctx->data_end, *at = (const __u8 *)(long)ctx->data;
    const struct ethhdr *eth = (const void *)at;
    const __u16 *ports;

    if ((const __u8 *)(eth + 1) > end) return -1;
    for (int i = 0; i < ETH_ALEN; i++)
        if (eth->h_dest[i] != s->mac[i]) return 0;
    at += sizeof(*eth);
    if (eth->h_proto == bpf_htons(ETH_P_IP)) {
        const struct iphdr *ip = (const void *)at;
        if ((const __u8 *)(ip + 1) > end || ip->version != 4) return -1;
        if (ip->ihl != 5 || ip->frag_off & bpf_htons(IP_MORE_OR_OFFSET)) return 0;
        key->family = 4;
        key->protocol = ip->protocol;
        __builtin_memcpy(key->address, &ip->daddr, sizeof(ip->daddr));
        at += sizeof(*ip);
    } else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
        const struct ipv6hdr *ip = (const void *)at;
        if ((const __u8 *)(ip + 1) > end || ip->version != 6) return -1;
        switch (ip->nexthdr) {
        case IPPROTO_HOPOPTS:
        case IPPROTO_ROUTING:
        case IPPROTO_FRAGMENT:
        case IPPROTO_AH:
        case IPPROTO_DSTOPTS:
        case IPPROTO_MH:
        case 139: /* HIP */
        case 140: /* SHIM6 */
            return 0;
        default:
            break;
        }
        key->family = 6;
        key->protocol = ip->nexthdr;
        __builtin_memcpy(key->address, &ip->daddr, sizeof(ip->daddr));
        at += sizeof(*ip);
    } else {
        return eth->h_proto == bpf_htons(ETH_P_8021Q) || eth->h_proto == bpf_htons(ETH_P_8021AD) ? 0 : -1;
    }
    if (key->protocol != IPPROTO_UDP && key->protocol != IPPROTO_TCP) return 1;
    ports = (const void *)at;
    if ((const __u8 *)(ports + 2) > end) return -1;
    key->port = ports[1];
    return 1;
}

static __always_inline int named(const struct cb_xsk_state *s, const struct cb_xsk_key *key) {
    for (__u32 shape = 0; shape < CB_XSK_SHAPES; shape++) {
        struct cb_xsk_key ask = *key;
        if (!(s->shapes & 1u << shape)) continue;
        if (shape & CB_XSK_OPEN_ADDRESS) __builtin_memset(ask.address, 0, sizeof(ask.address));
        if (shape & CB_XSK_OPEN_PORT) ask.port = 0;
        if (shape & CB_XSK_OPEN_PROTOCOL) ask.protocol = CB_XSK_PROTOCOL_ANY;
        if (bpf_map_lookup_elem(&rules, &ask)) return 1;
    }
    return 0;
}

SEC("xdp")
int cb_xsk(struct xdp_md *ctx) {
    struct cb_xsk_key key = {};
    __u32 zero = 0;
    const struct cb_xsk_state *s = bpf_map_lookup_elem(&state, &zero);

    if (!s || !s->shapes) return done(CB_XSK_PASSED, XDP_PASS);
    int found = read_key(ctx, s, &key);
    if (found == 0) return done(CB_XSK_UNSUITABLE, XDP_PASS);
    if (found < 0 || !named(s, &key)) return done(CB_XSK_PASSED, XDP_PASS);
    if (bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS) != XDP_REDIRECT)
        return done(CB_XSK_NO_SOCKET, XDP_PASS);
    return done(CB_XSK_TAKEN, XDP_REDIRECT);
}

char licence_text[] SEC("license") = "Dual MIT/GPL";

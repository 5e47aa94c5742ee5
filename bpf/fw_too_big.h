/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What does not fit between hosts: its sender is told, as a router would (RFC 1191, RFC 8201). */
#ifndef CB_FW_TOO_BIG_H
#define CB_FW_TOO_BIG_H

#include "fw_rate.h"

enum {
    FW_QUOTED4 = 512,  /* at most 576 bytes in all (RFC 1812, 4.3.2.3) */
    FW_QUOTED6 = 1232, /* 1280 (RFC 4443, 3.2) */
    FW_ANSWER4 = 20 + 8,
    FW_ANSWER6 = 40 + 8,
    FW_ANSWER_TTL = 64
};

/* May this packet be answered with an error? (RFC 1812, 4.3.2.7; RFC 4443, 2.4) */
static __always_inline int fw_may_answer(const __u8 *h, const void *end, const struct fw_packet *p) {
    if ((const void *)(h + FW_ETH + 20) > end || h[0] & 1) return 0;
    if (p->fragment == FW_LATER || fw_is_icmp_error(p)) return 0;
    if (p->family == 6) {
        const __u32 first = FW_BE32(p->source[0]);
        return first >> 24 != 0xff && p->source[0] | p->source[1] | p->source[2] | p->source[3];
    }
    const __u32 source = FW_BE32(p->source[3]);
    const int dont_fragment = (h[FW_ETH + 6] & 0x40) != 0;
    return dont_fragment && source >> 24 != 0 && source >> 24 != 127 && source >> 28 < 14;
}

static __always_inline __u16 fw_folded(__u64 sum) {
    sum = (sum & 0xffffffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    return (__u16)~sum;
}

/* The first `quoted` bytes of the packet behind a new Ethernet header, and room for `before` bytes between them. */
static __always_inline int fw_answer_room(struct xdp_md *ctx, int before, __u32 quoted) {
    __u8 *h = (__u8 *)(long)ctx->data;
    const void *end = (const void *)(long)ctx->data_end;
    if ((const void *)(h + FW_ETH) > end) return -1;
    const __u32 to4 = FW_LOAD(__u32, h), from4 = FW_LOAD(__u32, h + 6);
    const __u16 to2 = FW_LOAD(__u16, h + 4), from2 = FW_LOAD(__u16, h + 10), type = FW_LOAD(__u16, h + 12);
    const int has = (int)(ctx->data_end - ctx->data);
    if (bpf_xdp_adjust_tail(ctx, FW_ETH + (int)quoted - has)) return -1;
    if (bpf_xdp_adjust_head(ctx, -before)) return -1;
    h = (__u8 *)(long)ctx->data;
    end = (const void *)(long)ctx->data_end;
    if ((const void *)(h + FW_ETH) > end) return -1;
    FW_STORE(__u32, h, from4);
    FW_STORE(__u16, h + 4, from2);
    FW_STORE(__u32, h + 6, to4);
    FW_STORE(__u16, h + 10, to2);
    FW_STORE(__u16, h + 12, type);
    return 0;
}

static __always_inline int fw_answer4(struct xdp_md *ctx, const struct fw_packet *p, __u32 mtu) {
    if (fw_answer_room(ctx, FW_ANSWER4, FW_QUOTED4)) return -1;
    __u8 *h = (__u8 *)(long)ctx->data + FW_ETH, *icmp = h + 20, *quote = icmp + 8;
    if ((const void *)(quote + FW_QUOTED4) > (const void *)(long)ctx->data_end) return -1;
    const __u32 first = FW_BE32(0x45c00000 | (FW_ANSWER4 + FW_QUOTED4)), ttl = FW_BE32(FW_ANSWER_TTL << 24 | 1 << 16);
    FW_STORE(__u32, h, first);
    FW_STORE(__u32, h + 4, 0);
    FW_STORE(__u32, h + 8, ttl);
    FW_STORE(__u32, h + 12, p->destination[3]);
    FW_STORE(__u32, h + 16, p->source[3]);
    FW_STORE(__u16, h + 10, fw_folded((__u64)first + ttl + p->destination[3] + p->source[3]));
    const __u32 what = FW_BE32(3 << 24 | 4 << 16), next = FW_BE32(mtu);
    FW_STORE(__u32, icmp, what);
    FW_STORE(__u32, icmp + 4, next);
    const __u64 sum = (__u32)bpf_csum_diff(0, 0, (__be32 *)(void *)quote, FW_QUOTED4, 0);
    FW_STORE(__u16, icmp + 2, fw_folded(sum + what + next));
    return 0;
}

static __always_inline int fw_answer6(struct xdp_md *ctx, const struct fw_packet *p, __u32 mtu) {
    if (fw_answer_room(ctx, FW_ANSWER6, FW_QUOTED6)) return -1;
    __u8 *h = (__u8 *)(long)ctx->data + FW_ETH, *icmp = h + 40, *quote = icmp + 8;
    if ((const void *)(quote + FW_QUOTED6) > (const void *)(long)ctx->data_end) return -1;
    FW_STORE(__u32, h, FW_BE32(0x60000000));
    FW_STORE(__u32, h + 4, FW_BE32((8 + FW_QUOTED6) << 16 | FW_ICMP6 << 8 | FW_ANSWER_TTL));
    const __u32 what = FW_BE32(2 << 24), next = FW_BE32(mtu < 1280 ? 1280 : mtu); /* less is not believed */
    __u64 sum = (__u64)what + next + FW_BE32(8 + FW_QUOTED6) + FW_BE32(FW_ICMP6);
    for (int i = 0; i < 4; i++) {
        FW_STORE(__u32, h + 8 + 4 * i, p->destination[i]);
        FW_STORE(__u32, h + 24 + 4 * i, p->source[i]);
        sum += (__u64)p->destination[i] + p->source[i];
    }
    FW_STORE(__u32, icmp, what);
    FW_STORE(__u32, icmp + 4, next);
    sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)(void *)quote, 512, 0); /* the most at once */
    sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)(void *)(quote + 512), 512, 0);
    sum += (__u32)bpf_csum_diff(0, 0, (__be32 *)(void *)(quote + 1024), FW_QUOTED6 - 1024, 0);
    FW_STORE(__u16, icmp + 2, fw_folded(sum));
    return 0;
}

/* The packet p, which came from outside by this interface, is larger than `mtu`, the largest that would have fitted. */
FW_GLOBAL int fw_too_big(struct xdp_md *ctx, const struct fw_packet *p, __u32 mtu) {
    const struct cb_fw_control *c = fw_control();
    if (!c || !p || mtu < 68 || mtu > 65535) return fw_drop(CB_FW_N_TOO_BIG);
    if (p->ip_bytes < (p->family == 4 ? FW_QUOTED4 : FW_QUOTED6)) return fw_drop(CB_FW_N_TOO_BIG);
    if (!fw_may_answer((const __u8 *)(long)ctx->data, (const void *)(long)ctx->data_end, p))
        return fw_drop(CB_FW_N_TOO_BIG);
    if (!fw_rate_spend(CB_FW_RATE_ICMP, c->icmp_rate)) return fw_drop(CB_FW_N_RATE_LIMITED);
    const int rc = p->family == 4 ? fw_answer4(ctx, p, mtu) : fw_answer6(ctx, p, mtu);
    if (rc) return fw_drop(CB_FW_N_TOO_BIG);
    fw_count(CB_FW_N_TOO_BIG_SENT);
    return XDP_TX;
}

#endif

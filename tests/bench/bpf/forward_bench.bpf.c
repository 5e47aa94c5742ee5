// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The datapath's program as it is, in a harness for the kernel's test run: that gives each repetition the frame that
 * the one before left behind, so what encapsulates would be measured once, and packets that pass a million times.
 *
 * Each repetition takes another flow (its number is mixed, so that neighbours have nothing in common), and puts the
 * frame back into its old state. `floor_20` and `floor_52` are the same with a program that only makes room and writes
 * constant headers. */
#include "../../../bpf/forward.bpf.c"

enum { ETH_BYTES = 14 };

const volatile __u32 flow_mask = 0; /* number of flows - 1 */
const volatile __u32 source_at = 0; /* of the last four bytes of the source address */
const volatile __u32 port_at = 0;   /* of the source port */
const volatile __u32 ports = 0;     /* destination and 0 */
const volatile __u32 ttl_at = 0;
const volatile __u32 ether_type = 0; /* as in the frame */
const volatile __u32 more = 0;       /* bytes that the packet is longer by afterwards */
const volatile __u32 expected = 0;   /* the verdict */

__u64 packets, wrong;

static __always_inline int next_flow(struct xdp_md *ctx) {
    __u8 *h = (void *)(long)ctx->data;
    const void *end = (const void *)(long)ctx->data_end;
    const __u32 flow = (__u32)(packets++) & flow_mask, mixed = flow * 0x9e3779b1U;
    if ((void *)(h + 128) > end) return 0;
    FW_STORE(__u32, h + (source_at & 63), mixed);
    /* All that the program will read as one word: a packet does not come from the store buffer. */
    FW_STORE(__u32, h + (port_at & 63), (flow >> 4 & 0xffff) | ports);
    return 1;
}

static __always_inline int put_back(struct xdp_md *ctx, int bytes, __u16 type) {
    if (bytes && bpf_xdp_adjust_head(ctx, bytes)) return 0;
    __u8 *h = (void *)(long)ctx->data;
    const void *end = (const void *)(long)ctx->data_end;
    if ((void *)(h + 64) > end) return 0;
    h[ttl_at & 63] = 64; /* a packet to another station has one hop less */
    FW_STORE(__u64, h, 0x0100000000000002ULL);
    FW_STORE(__u32, h + 8, 0);
    FW_STORE(__u16, h + 12, type);
    return 1;
}

SEC("xdp")
int bench(struct xdp_md *ctx) {
    if (!next_flow(ctx)) return XDP_ABORTED;
    const int verdict = fw_forward(ctx);
    if ((__u32)verdict != expected) {
        wrong++;
        return verdict;
    }
    return put_back(ctx, (int)more, (__u16)ether_type) ? verdict : XDP_ABORTED;
}

SEC("xdp")
int harness(struct xdp_md *ctx) {
    if (!next_flow(ctx)) return XDP_ABORTED;
    return put_back(ctx, 0, (__u16)ether_type) ? XDP_TX : XDP_ABORTED;
}

static __always_inline int floor_of(struct xdp_md *ctx, int bytes) {
    if (!next_flow(ctx)) return XDP_ABORTED;
    if (bpf_xdp_adjust_head(ctx, -bytes)) return XDP_ABORTED;
    __u8 *h = (void *)(long)ctx->data;
    const void *end = (const void *)(long)ctx->data_end;
    if ((void *)(h + ETH_BYTES + bytes) > end) return XDP_ABORTED;
    for (int i = 0; i + 8 <= ETH_BYTES + bytes; i += 8)
        FW_STORE(__u64, h + i, 0x0123456789abcdefULL);
    return put_back(ctx, bytes, (__u16)ether_type) ? XDP_TX : XDP_ABORTED;
}

SEC("xdp")
int floor_20(struct xdp_md *ctx) {
    return floor_of(ctx, 20);
}

SEC("xdp")
int floor_52(struct xdp_md *ctx) {
    return floor_of(ctx, 52);
}

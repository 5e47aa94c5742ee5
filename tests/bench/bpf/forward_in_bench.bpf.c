// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* The datapath's program on packets of other hosts, in a harness for the kernel's test run, which gives each repetition
 * the frame that the one before left behind: what was taken off is put back. `floor_off` takes off as much, and does
 * nothing else. */
#include "../../../bpf/forward.bpf.c"

enum { WORDS = 9 }; /* Ethernet, the outer headers of IPv4 and GUE, and a bit of what follows */

const volatile __u64 before[WORDS] = {}; /* the frame's first bytes */
const volatile __u32 expected = 0;       /* the verdict */
const volatile __u32 less = 0;           /* bytes that the packet is shorter by afterwards */

__u64 wrong;

static __always_inline int put_back(struct xdp_md *ctx) {
    if (less && bpf_xdp_adjust_head(ctx, -(int)less)) return 0;
    __u8 *h = (void *)(long)ctx->data;
    if ((void *)(h + sizeof(before)) > (void *)(long)ctx->data_end) return 0;
    for (int i = 0; i < WORDS; i++)
        FW_STORE(__u64, h + 8 * i, before[i]);
    return 1;
}

SEC("xdp")
int bench(struct xdp_md *ctx) {
    const int verdict = fw_forward(ctx);
    if ((__u32)verdict != expected) {
        wrong++;
        return verdict;
    }
    return put_back(ctx) ? verdict : XDP_ABORTED;
}

SEC("xdp")
int floor_off(struct xdp_md *ctx) {
    if (less && bpf_xdp_adjust_head(ctx, (int)less)) return XDP_ABORTED;
    return put_back(ctx) ? (int)expected : XDP_ABORTED;
}

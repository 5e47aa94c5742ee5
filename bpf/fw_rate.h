/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Token buckets, one of each kind for each CPU: time that was not spent is saved. */
#ifndef CB_FW_RATE_H
#define CB_FW_RATE_H

#include "fw_maps.h"

#define FW_SECOND 1000000000ULL

/* Rates are caps, not promises: a tenth of a second may come at once. */
static __always_inline int fw_rate_take_at(struct cb_fw_rate *r, __u32 rate, __u64 now) {
    if (!rate) return 0;
    const __u64 cost = FW_SECOND / rate, most = cost > FW_SECOND / 10 ? cost : FW_SECOND / 10;
    __u64 saved = r->saved + (now - r->at);
    if (saved > most) saved = most;
    r->at = now;
    const int enough = saved >= cost;
    r->saved = enough ? saved - cost : saved;
    return enough;
}

static __always_inline int fw_rate_spend(__u32 which, __u32 rate) {
    struct cb_fw_rate *r = bpf_map_lookup_elem(&rates, &which);
    return r ? fw_rate_take_at(r, rate, bpf_ktime_get_ns()) : 0;
}

FW_GLOBAL int fw_rate_take(__u32 which, __u32 rate) {
    return fw_rate_spend(which, rate);
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Delivered here, or sent on to the bucket's other owner. */
#ifndef CB_FW_HERE_H
#define CB_FW_HERE_H

#include "fw_route.h"
#include "fw_send.h"

/* This host is the first owner, `second` is the slot of the other one, and it lives (`previous` is its ID). The frame
 * is as it came from outside, or was taken out of its encapsulation. `hop` is what it came with: 0 from outside. */
static __always_inline int fw_decide_here(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *p,
                                          const struct cb_fw_vip *vip, const struct fw_owners *o, __u32 previous,
                                          __u8 hop) {
    (void)ctx;
    (void)c;
    (void)p;
    (void)vip;
    (void)o;
    (void)previous;
    (void)hop;
    return fw_pass(CB_FW_N_KEPT);
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What does not fit between hosts. */
#ifndef CB_FW_TOO_BIG_H
#define CB_FW_TOO_BIG_H

#include "fw_maps.h"

/* `mtu`: the largest IP packet that would have fitted. */
static __always_inline int fw_too_big(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *p,
                                      __u32 mtu) {
    (void)ctx;
    (void)c;
    (void)p;
    (void)mtu;
    return fw_drop(CB_FW_N_TOO_BIG);
}

#endif

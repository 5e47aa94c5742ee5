/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Packets that another host encapsulated for this one. */
#ifndef CB_FW_DECAPSULATE_H
#define CB_FW_DECAPSULATE_H

#include "fw_here.h"

/* `p` is the outer packet: whole, to the own address, IPIP or UDP to the GUE port. */
static __always_inline int fw_decapsulate(struct xdp_md *ctx, const struct cb_fw_control *c, __u32 interface_flags,
                                          const struct fw_packet *p) {
    (void)ctx;
    (void)c;
    (void)p;
    if (!(interface_flags & CB_FW_UNDERLAY)) return fw_drop(CB_FW_N_BAD_INTERFACE);
    return XDP_PASS;
}

#endif

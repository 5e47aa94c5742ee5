/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* ICMP errors go to the owner of what they quote. */
#ifndef CB_FW_ICMP_H
#define CB_FW_ICMP_H

#include "fw_here.h"

/* `p` is an error (fw_is_icmp_error()) to the address of a VIP, whole or a first fragment. */
static __always_inline int fw_icmp_error(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *p) {
    (void)ctx;
    (void)c;
    (void)p;
    return fw_pass(CB_FW_N_LOCAL);
}

#endif

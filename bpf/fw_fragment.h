/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Fragments without ports go where their first one went. */
#ifndef CB_FW_FRAGMENT_H
#define CB_FW_FRAGMENT_H

#include "fw_here.h"

/* A first fragment is on its way to this owner: before it is sent or delivered. */
static __always_inline void fw_fragment_first(const struct fw_packet *p, const struct fw_owners *o) {
    (void)p;
    (void)o;
}

/* `p` is a later fragment to the address of a VIP. */
static __always_inline int fw_fragment(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *p) {
    (void)ctx;
    (void)c;
    (void)p;
    return fw_drop(CB_FW_N_FRAGMENT_UNKNOWN);
}

#endif

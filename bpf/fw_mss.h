/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Finds the MSS among the options of a TCP header. */
#ifndef CB_FW_MSS_H
#define CB_FW_MSS_H

#include "fw_types.h"

enum { FW_TCP_OPTIONS = 40, FW_MSS_BUFFER = 64 };

/* options: a buffer of FW_MSS_BUFFER bytes, of which n <= FW_TCP_OPTIONS are options. Where the two bytes of the MSS
 * are; 0 = there is none, or the options contradict themselves before it. */
static __always_inline __u32 fw_mss_find(const __u8 *options, __u32 n) {
    __u32 at = 0;
    for (int i = 0; i < FW_TCP_OPTIONS; i++) {
        if (at + 2 > n || at > FW_TCP_OPTIONS - 2) return 0;
        const __u32 kind = options[at & (FW_MSS_BUFFER - 1)], len = options[(at + 1) & (FW_MSS_BUFFER - 1)];
        if (kind == 0) return 0;
        if (kind == 1) {
            at++;
            continue;
        }
        if (len < 2 || at + len > n) return 0;
        if (kind == 2) return len == 4 ? at + 2 : 0;
        at += len;
    }
    return 0;
}

#endif

/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Connection IDs of QUIC-LB (draft-ietf-quic-load-balancers-21): whom does one name? */
#ifndef CB_FW_CID_H
#define CB_FW_CID_H

#include "forward.h"
#include "fw_types.h"

/* What is looked at of a connection ID, whatever its length: a packet of QUIC has at least as much behind a shorter one
 * (number, payload and its seal). */
enum { FW_CID_BYTES = 20 };

/* Server ID and rotation as the key of `servers`: words of little endian, of which byte 0 is rotation and length. */
static __always_inline void fw_cid_key(struct cb_fw_server *out, __u32 rotation, __u32 n, __u64 low, __u64 high) {
    const __u64 keep_low = n >= 7 ? ~0ULL : (1ULL << (8 * (n + 1) & 63)) - 1;
    const __u64 keep_high = n <= 7 ? 0 : n >= 15 ? ~0ULL : (1ULL << (8 * (n - 7) & 63)) - 1;
    low = (low & keep_low & ~0xffULL) | (rotation << 4 | n);
    FW_STORE(__u64, out, FW_LE64(low));
    FW_STORE(__u64, (__u8 *)out + 8, FW_LE64(high & keep_high));
}

/* Reads whom a connection ID of this configuration's form names; FW_CID_BYTES of it can be read. 0: nobody can be read
 * from it. */
static __always_inline int fw_cid_server(const struct cb_fw_cid *f, const __u8 *cid, struct cb_fw_server *out) {
    const __u32 n = f->server_id_bytes;
    if (f->codec != 0 || n < 1 || n > 15) return 0;
    fw_cid_key(out, cid[0] >> 5, n, FW_LE64(FW_LOAD(__u64, cid)), FW_LE64(FW_LOAD(__u64, cid + 8)));
    return 1;
}

#endif

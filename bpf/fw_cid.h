/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Connection IDs of QUIC-LB (draft-ietf-quic-load-balancers-21): whom does one name? */
#ifndef CB_FW_CID_H
#define CB_FW_CID_H

#include "forward.h"
#include "fw_aes.h"
#include "fw_packet.h"

/* What is looked at of a connection ID, whatever its length: a packet of QUIC has at least as much behind a shorter one
 * (number, payload and its seal). */
enum { FW_CID_BYTES = 20 };

enum { FW_CID_PLAIN, FW_CID_ONE, FW_CID_FOUR }; /* enum cb_quic_lb_codec */

/* Four passes of a Feistel network backwards (draft, 5.4.2), of which a server ID that is not longer than the nonce
 * needs the last three only: one half is encrypted, with length and pass behind it, and changes the other. Halves of an
 * odd length share the middle octet: the left has its upper four bits, the right the lower. Words, whose highest byte
 * is the first. Shifts by up to nine bytes are done without branches, which the verifier would have to follow each by
 * itself. */
FW_GLOBAL __u64 fw_open_four(const struct cb_fw_cid *f, __u64 first, __u64 *second, __u64 third) {
    if (!f || !second) return 0;
    __u32 len = (__u32)f->server_id_bytes + f->nonce_bytes, at = len >> 1, bits = 8 * (at & 7);
    __u64 word = -(__u64)(at >> 3 & 1); /* the right half begins eight bytes behind the left, or later */
    __u64 to[2] = {first & f->left[0], *second & f->left[1]}, from[2];
    first = (first & ~word) | (*second & word);
    from[1] = (*second & ~word) | (third & word);
    from[0] = (first << bits | from[1] >> 1 >> (63 - bits)) & f->right[0];
    from[1] = (from[1] << bits | (third & ~word) >> 1 >> (63 - bits)) & f->right[1];

    const __u32 last = f->server_id_bytes * 2U > len ? 1 : 2;
    for (__u32 pass = 4; pass >= last; pass--) {
        const __u64 *mask = pass & 1 ? f->right : f->left;
        __u64 low = from[1] | len << 8 | pass;
        const __u64 high = (to[0] ^ fw_aes_encrypt(f->round_keys, from[0], &low)) & mask[0];
        low = (to[1] ^ low) & mask[1];
        to[0] = from[0];
        to[1] = from[1];
        from[0] = high;
        from[1] = low;
    }
    if (last == 2) { /* the left half was changed last: it is all that is needed */
        *second = from[1];
        return from[0];
    }
    from[1] = from[1] >> bits | from[0] << 1 << (63 - bits);
    from[0] >>= bits;
    *second = to[1] | (from[1] & ~word) | (from[0] & word);
    return to[0] | (from[0] & ~word);
}

/* One pass. */
FW_GLOBAL __u64 fw_open_one(const struct cb_fw_cid *f, __u64 first, __u64 *second) {
    return f && second ? fw_aes_decrypt(f->round_keys, first, second) : 0;
}

/* Reads whom a connection ID of this configuration's form names; FW_CID_BYTES of it can be read. */
static __always_inline void fw_cid_server(const struct cb_fw_cid *f, const __u8 *cid, struct cb_fw_server *out) {
    __u64 low, high;
    if (f->codec == FW_CID_PLAIN) {
        low = FW_LE64(FW_LOAD(__u64, cid));
        high = FW_LE64(FW_LOAD(__u64, cid + 8));
    } else {
        __u64 first = FW_BE64(FW_LOAD(__u64, cid + 1)), second = FW_BE64(FW_LOAD(__u64, cid + 9));
        if (f->codec == FW_CID_ONE)
            first = fw_open_one(f, first, &second);
        else
            first = fw_open_four(f, first, &second, (__u64)FW_BE32(FW_LOAD(__u32, cid + 16)) << 40);
        first = FW_LE64(FW_BE64(first));
        second = FW_LE64(FW_BE64(second));
        low = first << 8;
        high = second << 8 | first >> 56;
    }
    low = (low & f->keep[0]) | (__u32)(cid[0] >> 5) << 4 | f->server_id_bytes;
    FW_STORE(__u64, out, FW_LE64(low));
    FW_STORE(__u64, (__u8 *)out + 8, FW_LE64(high & f->keep[1]));
}

/* A connection ID where it lies in a packet. */
struct fw_dcid {
    const __u8 *at; /* FW_CID_BYTES can be read; 0 = this is no packet of QUIC, or a very short one */
    __u32 bytes;    /* of a short header: the most that it can have */
    int is_long;
};

static __always_inline struct fw_dcid fw_dcid(const __u8 *data, const void *end, const struct fw_packet *p) {
    struct fw_dcid d = {};
    const __u8 *h = fw_l4(data, p) + 8;
    if (p->l4_bytes < 8 + 1 + FW_CID_BYTES || (const void *)(h + 1 + FW_CID_BYTES) > end) return d;
    d.is_long = h[0] >> 7;
    d.bytes = p->l4_bytes - (8 + 1);
    d.at = h + 1;
    if (!d.is_long) return d;
    d.at = 0;
    if (p->l4_bytes < 8 + 6 + FW_CID_BYTES || (const void *)(h + 6 + FW_CID_BYTES) > end) return d;
    d.bytes = h[5];
    d.at = h + 6;
    return d;
}

#ifndef __bpf__

/* For user space: makes a configuration; `key` has 16 bytes and is not looked at for plain ones. -1: there is none such
 * (cb_quic_lb_new() says what there is). */
static inline int fw_cid_prepare(struct cb_fw_cid *f, int codec, __u32 server_id_bytes, __u32 nonce_bytes,
                                 __u32 host_bytes, const __u8 *key) {
    const __u32 n = server_id_bytes, len = n + nonce_bytes, half = (len + 1) / 2;
    __u8 keep[16] = {0}, left[16] = {0}, right[16] = {0};
    if (n < 1 || nonce_bytes < 4 || n > 15 || len > 19 || len + host_bytes > 19) return -1;
    if (codec < FW_CID_PLAIN || codec > FW_CID_FOUR || (codec == FW_CID_ONE && len != 16)) return -1;
    memset(f, 0, sizeof *f);
    f->used = 1;
    f->codec = (__u8)codec;
    f->server_id_bytes = (__u8)n;
    f->nonce_bytes = (__u8)nonce_bytes;
    f->cid_bytes = (__u8)(1 + len + host_bytes);
    memset(keep + 1, 0xff, n);
    memset(left, 0xff, half);
    memset(right, 0xff, half);
    if (len & 1) {
        left[half - 1] = 0xf0;
        right[0] = 0x0f;
    }
    for (int i = 0; i < 2; i++) {
        f->keep[i] = FW_LE64(FW_LOAD(__u64, keep + 8 * i));
        f->left[i] = FW_BE64(FW_LOAD(__u64, left + 8 * i));
        f->right[i] = FW_BE64(FW_LOAD(__u64, right + 8 * i));
    }
    if (codec == FW_CID_ONE)
        fw_aes_keys_back(f->round_keys, key);
    else if (codec == FW_CID_FOUR)
        fw_aes_keys(f->round_keys, key);
    return 0;
}

#endif

#endif

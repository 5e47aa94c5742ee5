/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Connection IDs of QUIC-LB (draft-ietf-quic-load-balancers-21): whom does one name? */
#ifndef CB_FW_CID_H
#define CB_FW_CID_H

#include "forward.h"
#include "fw_aes.h"

/* What is looked at of a connection ID, whatever its length: a packet of QUIC has at least as much behind a shorter one
 * (number, payload and its seal). */
enum { FW_CID_BYTES = 20 };

enum { FW_CID_PLAIN, FW_CID_ONE, FW_CID_FOUR }; /* enum cb_quic_lb_codec */

/* Server ID and rotation as the key of `servers`: words of little endian, of which byte 0 is rotation and length. */
static __always_inline void fw_cid_key(struct cb_fw_server *out, __u32 rotation, __u32 n, __u64 low, __u64 high) {
    const __u64 keep_low = n >= 7 ? ~0ULL : (1ULL << (8 * (n + 1) & 63)) - 1;
    const __u64 keep_high = n <= 7 ? 0 : n >= 15 ? ~0ULL : (1ULL << (8 * (n - 7) & 63)) - 1;
    low = (low & keep_low & ~0xffULL) | (rotation << 4 | n);
    FW_STORE(__u64, out, FW_LE64(low));
    FW_STORE(__u64, (__u8 *)out + 8, FW_LE64(high & keep_high));
}

/* The body of a connection ID, server ID and nonce, as words whose highest byte is the first. */
struct fw_body {
    __u64 w[2];
};

/* All but the first `n` bytes of 16 become zero; n <= 16. */
static __always_inline struct fw_body fw_first_bytes(__u32 n) {
    struct fw_body m;
    m.w[0] = n >= 8 ? ~0ULL : ~(~0ULL >> (8 * n & 63));
    m.w[1] = n <= 8 ? 0 : n >= 16 ? ~0ULL : ~(~0ULL >> (8 * (n - 8) & 63));
    return m;
}

/* One pass of the Feistel network backwards (draft, 5.4.2): `from` is encrypted, with length and pass behind it, and
 * changes `to`, of which `mask` is what there is. */
static __always_inline void fw_feistel(const struct cb_fw_cid *f, __u32 len, __u32 pass, const struct fw_body *from,
                                       struct fw_body *to, const struct fw_body *mask) {
    __u64 low = from->w[1] | len << 8 | pass;
    to->w[0] = (to->w[0] ^ fw_aes_encrypt(f->round_keys, from->w[0], &low)) & mask->w[0];
    to->w[1] = (to->w[1] ^ low) & mask->w[1];
}

/* Four passes, of which a server ID that is not longer than the nonce needs the last three only. Halves of an odd
 * length share the middle octet: the left has its upper four bits, the right the lower. */
static __noinline int fw_open_four(const struct cb_fw_cid *f, struct fw_body *body, __u64 third) {
    const __u32 len = (__u32)f->server_id_bytes + f->nonce_bytes, half = (len + 1) / 2, at = len - half;
    if (len < 5 || len > 19) return -1;
    struct fw_body left, right, left_mask = fw_first_bytes(half), right_mask = left_mask;
    if (at < 8) { /* the right half begins `at` bytes behind the left */
        right.w[0] = body->w[0] << (8 * at & 63) | body->w[1] >> ((64 - 8 * at) & 63);
        right.w[1] = body->w[1] << (8 * at & 63) | third >> ((64 - 8 * at) & 63);
    } else {
        right.w[0] = at == 8 ? body->w[1] : body->w[1] << 8 | third >> 56;
        right.w[1] = at == 8 ? third : third << 8;
    }
    if (len & 1) {
        right_mask.w[0] &= ~0ULL >> 4;
        if (half <= 8)
            left_mask.w[0] &= left_mask.w[0] << 4;
        else
            left_mask.w[1] &= left_mask.w[1] << 4;
    }
    left.w[0] = body->w[0] & left_mask.w[0];
    left.w[1] = body->w[1] & left_mask.w[1];
    right.w[0] &= right_mask.w[0];
    right.w[1] &= right_mask.w[1];
    fw_feistel(f, len, 4, &right, &left, &left_mask);
    fw_feistel(f, len, 3, &left, &right, &right_mask);
    fw_feistel(f, len, 2, &right, &left, &left_mask);
    *body = left;
    if (f->server_id_bytes * 2U <= len) return 0;
    fw_feistel(f, len, 1, &left, &right, &right_mask);
    if (at < 8) {
        body->w[0] |= right.w[0] >> (8 * at & 63);
        body->w[1] |= right.w[0] << ((64 - 8 * at) & 63) | right.w[1] >> (8 * at & 63);
    } else {
        body->w[1] |= at == 8 ? right.w[0] : right.w[0] >> 8;
    }
    return 0;
}

/* Decrypts what stands behind the first octet of a connection ID; `third` is what of it is not in the body. */
FW_GLOBAL int fw_cid_open(const struct cb_fw_cid *f, struct fw_body *body, __u64 third) {
    if (!f || !body) return -1;
    if (f->codec != FW_CID_ONE) return fw_open_four(f, body, third);
    body->w[0] = fw_aes_decrypt(f->round_keys, body->w[0], &body->w[1]);
    return 0;
}

/* Reads whom a connection ID of this configuration's form names; FW_CID_BYTES of it can be read. 0: nobody can be read
 * from it. */
static __always_inline int fw_cid_server(const struct cb_fw_cid *f, const __u8 *cid, struct cb_fw_server *out) {
    const __u32 n = f->server_id_bytes, rotation = cid[0] >> 5;
    struct fw_body body;
    if (n < 1 || n > sizeof out->server_id) return 0;
    if (f->codec == FW_CID_PLAIN) {
        fw_cid_key(out, rotation, n, FW_LE64(FW_LOAD(__u64, cid)), FW_LE64(FW_LOAD(__u64, cid + 8)));
        return 1;
    }
    body.w[0] = FW_BE64(FW_LOAD(__u64, cid + 1));
    body.w[1] = FW_BE64(FW_LOAD(__u64, cid + 9));
    if (fw_cid_open(f, &body, (__u64)FW_BE32(FW_LOAD(__u32, cid + 16)) << 40)) return 0;
    const __u64 low = FW_LE64(FW_BE64(body.w[0])), high = FW_LE64(FW_BE64(body.w[1]));
    fw_cid_key(out, rotation, n, low << 8, high << 8 | low >> 56);
    return 1;
}

#ifndef __bpf__

/* For user space: puts a key into a configuration whose other fields are set. */
static inline void fw_cid_set_key(struct cb_fw_cid *f, const __u8 key[16]) {
    if (f->codec == FW_CID_ONE)
        fw_aes_keys_back(f->round_keys, key);
    else
        fw_aes_keys(f->round_keys, key);
}

#endif

#endif

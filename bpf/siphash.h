/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* SipHash-2-4 over words that are in registers already; the last one carries the length in its highest byte. */
#ifndef CB_BPF_SIPHASH_H
#define CB_BPF_SIPHASH_H

#include "fw_types.h"

struct sip {
    __u64 a, b, c, d;
};

static __always_inline __u64 sip_rotl(__u64 x, int n) {
    return x << n | x >> (64 - n);
}

static __always_inline void sip_round(struct sip *v) {
    v->a += v->b;
    v->c += v->d;
    v->b = sip_rotl(v->b, 13) ^ v->a;
    v->d = sip_rotl(v->d, 16) ^ v->c;
    v->a = sip_rotl(v->a, 32);
    v->c += v->b;
    v->a += v->d;
    v->b = sip_rotl(v->b, 17) ^ v->c;
    v->d = sip_rotl(v->d, 21) ^ v->a;
    v->c = sip_rotl(v->c, 32);
}

static __always_inline struct sip sip_begin(__u64 k0, __u64 k1) {
    struct sip v = {k0 ^ 0x736f6d6570736575ULL, k1 ^ 0x646f72616e646f6dULL, k0 ^ 0x6c7967656e657261ULL,
                    k1 ^ 0x7465646279746573ULL};
    return v;
}

static __always_inline void sip_word(struct sip *v, __u64 m) {
    v->d ^= m;
    sip_round(v);
    sip_round(v);
    v->a ^= m;
}

static __always_inline __u64 sip_end(struct sip *v) {
    v->c ^= 0xff;
    sip_round(v);
    sip_round(v);
    sip_round(v);
    sip_round(v);
    return v->a ^ v->b ^ v->c ^ v->d;
}

#endif

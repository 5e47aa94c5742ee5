/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What each packet asks for, in one array that is looked into without a call: interfaces, VIPs and server IDs. A hash
 * map of the kernel's takes about fifteen nanoseconds more, three times a packet.
 *
 * The hash maps have all of it and count; an entry has two places here and may find both taken. Only where control.near
 * says that everything of a kind is here is a miss the end of the search. */
#ifndef CB_FW_NEAR_H
#define CB_FW_NEAR_H

#include "forward.h"
#include "fw_types.h"

/* Two words as they lie behind each other in memory. */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define FW_PAIR(a, b) ((__u64)(a) << 32 | (b))
#else
#define FW_PAIR(a, b) ((__u64)(a) | (__u64)(b) << 32)
#endif

struct fw_near_key {
    __u64 word[3]; /* the kind is in the last one, which is never zero */
};

static __always_inline struct fw_near_key fw_near_interface(__u32 ifindex) {
    struct fw_near_key k = {{ifindex, 0, FW_PAIR(0, CB_FW_NEAR_INTERFACE)}};
    return k;
}

/* The last four bytes of struct cb_fw_vip_key. */
static __always_inline __u32 fw_near_port(__u16 port, __u8 protocol) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    return (__u32)port << 16 | (__u32)protocol << 8;
#else
    return (__u32)port | (__u32)protocol << 16;
#endif
}

static __always_inline struct fw_near_key fw_near_vip(__u64 address, __u64 address2, __u16 port, __u8 protocol) {
    struct fw_near_key k = {{address, address2, FW_PAIR(fw_near_port(port, protocol), CB_FW_NEAR_VIP)}};
    return k;
}

static __always_inline struct fw_near_key fw_near_server(__u64 first, __u64 second) {
    struct fw_near_key k = {{first, second, FW_PAIR(0, CB_FW_NEAR_SERVER)}};
    return k;
}

/* The first of the two places; the other is its neighbour, in the same line of the cache. */
static __always_inline __u32 fw_near_place(const struct fw_near_key *k) {
    const __u64 mixed = ((k->word[0] ^ k->word[2]) * 0x9e3779b97f4a7c15ULL + k->word[1]) * 0xd6e8feb86659fd93ULL;
    return (__u32)(mixed >> (64 - CB_FW_NEAR_BITS));
}

static __always_inline int fw_near_is(const struct cb_fw_near *e, const struct fw_near_key *k) {
    return e->key[0] == k->word[0] && e->key[1] == k->word[1] && e->key[2] == k->word[2];
}

#endif

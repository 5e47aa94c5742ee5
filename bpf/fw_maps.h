/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The maps of the datapath (forward.h has their layout), and the look-ups that its parts share. */
#ifndef CB_FW_MAPS_H
#define CB_FW_MAPS_H

#include "forward.h"
#include "fw_near.h"
#include "fw_packet.h"
#include "siphash.h"

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, struct cb_fw_control);
} control SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 65537); /* set before loading: as many as the table has buckets */
    __uint(map_flags, BPF_F_MMAPABLE);
    __type(key, __u32);
    __type(value, __u64);
} table SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, CB_FW_MEMBERS);
    __uint(map_flags, BPF_F_MMAPABLE); /* as in `near` */
    __type(key, __u32);
    __type(value, struct cb_fw_member);
} members SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CB_FW_MEMBERS);
    __type(key, __u32);
    __type(value, __u32);
} ids SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CB_FW_MEMBERS);
    __type(key, __u8[16]);
    __type(value, __u32);
} underlay SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CB_FW_VIPS);
    __type(key, struct cb_fw_vip_key);
    __type(value, struct cb_fw_vip);
} vips SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, CB_FW_VIPS);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct cb_fw_prefix);
    __type(value, struct cb_fw_vip);
} prefixes SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, CB_FW_CID_CONFIGS);
    __type(key, __u32);
    __type(value, struct cb_fw_cid);
} cids SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CB_FW_MEMBERS *CB_FW_CID_CONFIGS);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct cb_fw_server);
    __type(value, __u32);
} servers SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, CB_FW_LIVE_CIDS);
    __type(key, struct cb_fw_dcid);
    __type(value, __u64);
} live SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, CB_FW_FRAGMENTED);
    __type(key, struct cb_fw_fragment);
    __type(value, struct cb_fw_fragment_way);
} fragments SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CB_FW_INTERFACES);
    __type(key, __u32);
    __type(value, struct cb_fw_interface);
} interfaces SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1 << CB_FW_NEAR_BITS);
    __uint(map_flags, BPF_F_MMAPABLE); /* begins with a page, so that no entry lies across two lines */
    __type(key, __u32);
    __type(value, struct cb_fw_near);
} near SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CB_FW_N_ALL);
    __type(key, __u32);
    __type(value, __u64);
} counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CB_FW_VIPS);
    __type(key, __u32);
    __type(value, struct cb_fw_traffic);
} vip_counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CB_FW_MEMBERS);
    __type(key, __u32);
    __type(value, struct cb_fw_traffic);
} member_counters SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, CB_FW_FANOUT_BYTES);
} fanout SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CB_FW_RATES);
    __type(key, __u32);
    __type(value, struct cb_fw_rate);
} rates SEC(".maps");

/* Packets whose description has no room on stacks: those of functions that call each other have 512 bytes together. */
enum fw_rooms { FW_ROOM_PACKET, FW_ROOM_QUOTE, FW_ROOMS };

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, FW_ROOMS);
    __type(key, __u32);
    __type(value, struct fw_packet);
} rooms SEC(".maps");

static __always_inline struct fw_packet *fw_room(__u32 which) {
    return bpf_map_lookup_elem(&rooms, &which);
}

/* The value of an entry of `near`. */
static __always_inline const __u32 *fw_near(const struct fw_near_key *k) {
    __u32 at = fw_near_place(k);
    const struct cb_fw_near *e = bpf_map_lookup_elem(&near, &at);
    if (e && fw_near_is(e, k)) return e->value;
    at ^= 1;
    e = bpf_map_lookup_elem(&near, &at);
    return e && fw_near_is(e, k) ? e->value : 0;
}

static __always_inline int fw_all_near(const struct cb_fw_control *c, __u32 kind) {
    return (c->near >> kind) & 1;
}

#define FW_CONFIGURED (1U << 31)

/* The flags of an interface, and FW_CONFIGURED; 0 = it is not configured. */
static __always_inline __u32 fw_interface(const struct cb_fw_control *c, __u32 ifindex) {
    const struct fw_near_key k = fw_near_interface(ifindex);
    const __u32 *flags = fw_near(&k);
    if (flags) return *flags | FW_CONFIGURED;
    if (fw_all_near(c, CB_FW_NEAR_INTERFACE)) return 0;
    const struct cb_fw_interface *in = bpf_map_lookup_elem(&interfaces, &ifindex);
    return in ? in->flags | FW_CONFIGURED : 0;
}

static __always_inline const struct cb_fw_control *fw_control(void) {
    const __u32 first = 0;
    return bpf_map_lookup_elem(&control, &first);
}

static __always_inline void fw_count(__u32 what) {
    __u64 *n = bpf_map_lookup_elem(&counters, &what);
    if (n) (*n)++;
}

/* Counts, and drops. */
static __always_inline int fw_drop(__u32 why) {
    fw_count(why);
    return XDP_DROP;
}

/* Counts, and leaves the packet to the kernel. */
static __always_inline int fw_pass(__u32 why) {
    fw_count(why);
    return XDP_PASS;
}

static __always_inline void fw_count_vip(const struct cb_fw_vip *vip, __u32 bytes) {
    __u32 at = vip->index;
    struct cb_fw_traffic *t = bpf_map_lookup_elem(&vip_counters, &at);
    if (!t) return;
    t->packets++;
    t->bytes += bytes;
}

static __always_inline const struct cb_fw_member *fw_member(__u32 slot) {
    const struct cb_fw_member *m = bpf_map_lookup_elem(&members, &slot);
    return m && m->flags & CB_FW_HERE ? m : 0;
}

/* The ID of a slot's member if it may be second hop, 0 if not. */
static __always_inline __u32 fw_living(__u32 slot) {
    if (slot == CB_FW_NOBODY) return 0;
    const struct cb_fw_member *m = bpf_map_lookup_elem(&members, &slot);
    const __u32 want = CB_FW_HERE | CB_FW_LIVE;
    return m && (m->flags & want) == want ? m->id : 0;
}

/* ---- VIPs ---- */

static __noinline const struct cb_fw_vip *fw_vip_prefix(const __u32 *address, __u32 want) {
    struct cb_fw_prefix key = {.length = 128};
    __builtin_memcpy(key.address, address, 16);
    const struct cb_fw_vip *v = bpf_map_lookup_elem(&prefixes, &key);
    return v && v->flags & want ? v : 0;
}

/* The VIP of a TCP or UDP packet to this address (as in struct fw_packet) and port. */
static __always_inline const struct cb_fw_vip *fw_vip(const struct cb_fw_control *c, const __u32 *address, __u16 port,
                                                      __u8 protocol) {
    const __u64 first = FW_PAIR(address[0], address[1]), second = FW_PAIR(address[2], address[3]);
    struct fw_near_key k = fw_near_vip(first, second, port, protocol);
    const struct cb_fw_vip *v = (const struct cb_fw_vip *)fw_near(&k);
    if (v) return v;
    if (!fw_all_near(c, CB_FW_NEAR_VIP)) {
        struct cb_fw_vip_key key = {.port = port, .protocol = protocol};
        __builtin_memcpy(key.address, address, 16);
        v = bpf_map_lookup_elem(&vips, &key);
        if (v) return v;
        key.port = 0;
        if (c->flags & CB_FW_ANY_PORT) v = bpf_map_lookup_elem(&vips, &key);
    } else if (c->flags & CB_FW_ANY_PORT) {
        k = fw_near_vip(first, second, 0, protocol);
        v = (const struct cb_fw_vip *)fw_near(&k);
    }
    if (v || !(c->flags & CB_FW_PREFIXES)) return v;
    return fw_vip_prefix(address, protocol == FW_TCP ? CB_FW_TCP : CB_FW_UDP);
}

/* Is this the address of some VIP? For what has no ports that could be asked for. */
static __noinline int fw_vip_address(const struct cb_fw_control *c, const __u32 *address) {
    struct cb_fw_vip_key key = {};
    __builtin_memcpy(key.address, address, 16);
    if (bpf_map_lookup_elem(&vips, &key)) return 1;
    return c->flags & CB_FW_PREFIXES && fw_vip_prefix(address, CB_FW_TCP | CB_FW_UDP);
}

/* ---- the table ---- */

/* SipHash-2-4 of a tuple as on the wire: addresses as in struct fw_packet, both ports in one word. */
static __always_inline __u64 fw_hash(const struct cb_fw_control *c, __u8 family, const __u32 *source,
                                     const __u32 *destination, __u32 ports, __u8 protocol) {
    struct sip v = sip_begin(c->hash_key[0], c->hash_key[1]);
    __u64 bytes = 13;
    if (family == 4) {
        sip_word(&v, (__u64)FW_LE32(source[3]) | (__u64)FW_LE32(destination[3]) << 32);
    } else {
        sip_word(&v, (__u64)FW_LE32(source[0]) | (__u64)FW_LE32(source[1]) << 32);
        sip_word(&v, (__u64)FW_LE32(source[2]) | (__u64)FW_LE32(source[3]) << 32);
        sip_word(&v, (__u64)FW_LE32(destination[0]) | (__u64)FW_LE32(destination[1]) << 32);
        sip_word(&v, (__u64)FW_LE32(destination[2]) | (__u64)FW_LE32(destination[3]) << 32);
        bytes = 37;
    }
    sip_word(&v, (__u64)FW_LE32(ports) | (__u64)protocol << 32 | bytes << 56);
    return sip_end(&v);
}

/* The word of a hash's bucket: the first owner's slot in bits 0-15, the second's in 16-31. */
static __always_inline __u64 fw_bucket(const struct cb_fw_control *c, __u64 hash) {
    __u32 bucket = (__u32)((hash >> 32) * c->buckets >> 32);
    const __u64 *word = bpf_map_lookup_elem(&table, &bucket);
    return word ? *(const volatile __u64 *)word : ((__u64)CB_FW_NOBODY << 16 | CB_FW_NOBODY);
}

#endif

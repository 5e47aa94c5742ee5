// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Chooses the socket of a SO_REUSEPORT group for a QUIC packet: the worker that owns its connection.
 *
 * Our connection IDs name worker and process generation, masked by SipHash-2-4 of the QUIC-LB block (the same as
 * libcb/lb/quic_lb.c). A destination ID that a client chose (Initial, 0-RTT), or whose owner has gone, is hashed over
 * the sockets of the current generation, so that the packets of one handshake stay together. */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>

#include "cid_steer.h"
#include "siphash.h"

#define UDP_HEADER   8
#define LONG_HEADER  0x80
#define CID_MAX      20
#define HASHED_BYTES 24 /* an ID with zeros behind it: three words */
#define PROBES       8

struct {
    __uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
    __uint(max_entries, CB_STEER_SOCKETS);
    __type(key, __u32);
    __type(value, __u64);
} sockets SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, CB_STEER_SITES);
    __type(key, __u32);
    __type(value, struct cb_steer_state);
} state SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, CB_STEER_COUNTERS);
    __type(key, __u32);
    __type(value, __u64);
} counters SEC(".maps");

const volatile __u32 site = 0; /* set before loading: each site has a copy of the program, all share the maps */

/* SipHash of two whole words and a last one that already carries the length. */
static __always_inline __u64 siphash(const struct cb_steer_state *s, __u64 m0, __u64 m1, __u64 last) {
    struct sip v = sip_begin(s->key[0], s->key[1]);
    sip_word(&v, m0);
    sip_word(&v, m1);
    sip_word(&v, last);
    return sip_end(&v);
}

static __always_inline __u64 load64(const __u8 *p) {
    __u64 x;
    __builtin_memcpy(&x, p, sizeof(x));
    return FW_LE64(x);
}

static __always_inline void count(__u32 what) {
    __u64 *n = bpf_map_lookup_elem(&counters, &what);
    if (n) (*n)++;
}

/* The destination connection ID, with zeros behind it. Returns its length, < 0 for what is no QUIC packet. */
static __always_inline int read_dcid(struct sk_reuseport_md *ctx, __u8 cid[HASHED_BYTES]) {
    __u8 head[6];
    __u32 len = CB_STEER_CID; /* a short header does not say; ours have this length */
    __u32 at = UDP_HEADER + 1;

    if (bpf_skb_load_bytes(ctx, UDP_HEADER, head, 1) < 0) return -1;
    if (head[0] & LONG_HEADER) {
        if (bpf_skb_load_bytes(ctx, UDP_HEADER, head, sizeof(head)) < 0) return -1;
        len = head[5];
        at = UDP_HEADER + 6;
        if (!len || len > CID_MAX) return -1;
    }
    if (len < 1 || len > CID_MAX) return -1; /* for the verifier */
    if (bpf_skb_load_bytes(ctx, at, cid, len) < 0) return -1;
    return (int)len;
}

static __always_inline bool choose(struct sk_reuseport_md *ctx, __u32 generation, __u32 worker) {
    __u32 at = site * CB_STEER_SITE_SOCKETS + (generation % CB_STEER_GENERATIONS) * CB_STEER_WORKERS + worker;
    return bpf_sk_select_reuseport(ctx, &sockets, &at, 0) == 0;
}

static __always_inline bool to_owner(struct sk_reuseport_md *ctx, const struct cb_steer_state *s, const __u8 *cid) {
    /* Three bits of rotation (7: unroutable), five of length. */
    if ((cid[0] & 0x1f) != CB_STEER_CID - 1 || cid[0] >> 5 == 7) return false;
    __u64 mask = siphash(s, load64(cid), load64(cid + 8), (__u64)cid[16] | (__u64)CB_STEER_BLOCK << 56);
    __u32 worker = cid[CB_STEER_BLOCK] ^ (mask & 0xff);
    __u32 generation = cid[CB_STEER_BLOCK + 1] ^ (mask >> 8 & 0xff);
    __u32 place = generation % CB_STEER_GENERATIONS;
    if (s->generation[place] == generation && choose(ctx, generation, worker)) return true;
    count(CB_STEER_GONE);
    return false;
}

SEC("sk_reuseport")
int cid_steer(struct sk_reuseport_md *ctx) {
    __u32 own = site;
    __u8 cid[HASHED_BYTES] = {0};
    const struct cb_steer_state *s = bpf_map_lookup_elem(&state, &own);
    if (!s) return SK_PASS;
    int len = read_dcid(ctx, cid);
    if (len < 0) return SK_PASS; /* nothing chosen: the kernel hashes the addresses */
    if (len == CB_STEER_CID && to_owner(ctx, s, cid)) {
        count(CB_STEER_BY_CID);
        return SK_PASS;
    }

    __u32 workers = s->workers[s->current % CB_STEER_GENERATIONS];
    if (!workers) return SK_PASS;
    __u32 start = (__u32)siphash(s, load64(cid), load64(cid + 8), load64(cid + 16) ^ (__u64)len << 56);
    for (__u32 i = 0; i < PROBES; i++) {
        __u32 worker = (start + i) % workers;
        if (worker < CB_STEER_WORKERS && choose(ctx, s->current, worker)) {
            count(CB_STEER_BY_HASH);
            return SK_PASS;
        }
    }
    return SK_PASS;
}

char licence_text[] SEC("license") = "Dual MIT/GPL";

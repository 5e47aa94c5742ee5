/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Who owns a packet for a VIP: by connection ID, or by the table. */
#ifndef CB_FW_ROUTE_H
#define CB_FW_ROUTE_H

#include "fw_cid.h"
#include "fw_maps.h"

struct fw_owners {
    __u32 first, second; /* slots; second: CB_FW_NOBODY = nobody. By connection ID there is never a second */
    __u32 entropy;
    __u8 by_cid;
    __u8 unknown; /* has a connection ID of our form, which names nobody */
};

/* By connection ID: the slot of a living member, or CB_FW_NOBODY. */
static __always_inline __u32 fw_route_cid(const struct fw_dcid *d, int all_near, __u8 *unknown) {
    struct cb_fw_server key;
    if (!d->at) return CB_FW_NOBODY;
    const __u32 first = d->at[0], rotation = first >> 5;
    const struct cb_fw_cid *f = bpf_map_lookup_elem(&cids, &rotation);
    if (!f || !f->used || (first & 31) + 1 != f->cid_bytes) return CB_FW_NOBODY;
    if (d->is_long ? d->bytes != f->cid_bytes : d->bytes < f->cid_bytes) return CB_FW_NOBODY;
    fw_cid_server(f, d->at, &key);
    const struct fw_near_key k = fw_near_server(FW_LOAD(__u64, &key), FW_LOAD(__u64, (const __u8 *)&key + 8));
    const __u32 *slot = fw_near(&k);
    if (!slot && !all_near) slot = bpf_map_lookup_elem(&servers, &key);
    if (slot && fw_living(*slot)) return *slot;
    *unknown = 1;
    return CB_FW_NOBODY;
}

/* The owners of a tuple. */
static __always_inline void fw_route_table(const struct cb_fw_control *c, const struct fw_packet *p,
                                           struct fw_owners *o) {
    const __u64 hash = fw_hash(c, p->family, p->source, p->destination, p->ports, p->protocol);
    const __u64 word = fw_bucket(c, hash);
    o->first = word & 0xffff;
    o->second = word >> 16 & 0xffff;
    o->entropy = (__u32)hash;
    o->by_cid = 0;
}

/* The owners of a TCP or UDP packet for this VIP. */
static __always_inline void fw_route(struct xdp_md *ctx, const struct cb_fw_control *c, const struct fw_packet *p,
                                     const struct cb_fw_vip *vip, struct fw_owners *o) {
    o->unknown = 0;
    if (p->protocol == FW_UDP && vip->flags & CB_FW_QUIC) {
        const struct fw_dcid d = fw_dcid((const __u8 *)(long)ctx->data, (const void *)(long)ctx->data_end, p);
        o->first = fw_route_cid(&d, fw_all_near(c, CB_FW_NEAR_SERVER), &o->unknown);
        if (o->first != CB_FW_NOBODY) {
            o->second = CB_FW_NOBODY;
            o->entropy = (p->source[3] ^ p->ports) * 0x9e3779b1U >> 8;
            o->by_cid = 1;
            return;
        }
    }
    fw_route_table(c, p, o);
}

#endif

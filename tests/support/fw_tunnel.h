/* What another host would send to the lab's: a packet in GUE or IPIP; and a look at what the lab sends on. */
#ifndef FW_TUNNEL_H
#define FW_TUNNEL_H

#include "base/siphash.h"
#include "support/fw_lab.h"
#include <arpa/inet.h>
#include <string.h>

enum { FW_TUNNEL_ETH = 14, FW_TUNNEL_GUE = 8 + CB_FW_GUE_BYTES };

typedef struct fw_tunnel {
    const char *from, *to;
    int form; /* enum cb_fw_encapsulation */
    uint8_t hop, flags, key, tos;
    uint32_t previous;
} fw_tunnel;

/* What is in a GUE header that the lab sent. */
typedef struct fw_sent {
    uint8_t hop, flags;
    uint32_t previous;
    const uint8_t *inner;
    size_t inner_bytes;
} fw_sent;

/* The tag of the GUE header at g, whose inner packet follows, by the key that it names. */
static inline uint64_t fw_tunnel_tag(const struct cb_fw_control *c, const uint8_t *g) {
    const uint8_t *ip = g + CB_FW_GUE_BYTES;
    const bool v4 = g[1] == IPPROTO_IPIP;
    uint8_t key[16], said[15];
    for (size_t i = 0; i < 16; i++)
        key[i] = (uint8_t)(c->tag_key[g[7] & 3][i / 8] >> (i % 8 * 8));
    memcpy(said, v4 ? ip + 12 : ip + 20, 4);
    memcpy(said + 4, v4 ? ip + 16 : ip + 36, 4);
    memcpy(said + 8, g + 8, 4);
    memcpy(said + 12, g + 5, 3);
    return cb_siphash(key, said, sizeof said);
}

static inline void fw_tunnel_sign(const struct cb_fw_control *c, uint8_t *g) {
    const uint64_t tag = fw_tunnel_tag(c, g);
    for (int i = 0; i < 8; i++)
        g[16 + i] = (uint8_t)(tag >> (8 * i));
}

/* n bytes of an IP packet in a tunnel. */
static inline void fw_tunnel_wrap(const struct cb_fw_control *c, fw_frame *f, const fw_tunnel *t, const uint8_t *packet,
                                  size_t n) {
    static uint8_t payload[FW_FRAME_MAX];
    const bool inner4 = packet[0] >> 4 == 4;
    fw_spec outer = {.source = t->from, .destination = t->to, .tos = t->tos, .dont = true, .payload = payload};
    if (t->form == CB_FW_IPIP) {
        memcpy(payload, packet, n);
        outer.protocol = inner4 ? IPPROTO_IPIP : IPPROTO_IPV6;
        outer.payload_bytes = n;
        fw_frame_make(f, &outer);
        return;
    }
    const struct cb_fw_gue g = {.variant_length = CB_FW_GUE_WORDS,
                                .protocol = inner4 ? IPPROTO_IPIP : IPPROTO_IPV6,
                                .flags = htons(1),
                                .private = CB_FW_PRIVATE,
                                .hop = t->hop,
                                .hop_flags = t->flags,
                                .tag_key = t->key,
                                .previous = htonl(t->previous),
                                .table_version = htonl(c->table_version)};
    memcpy(payload, &g, sizeof g);
    memcpy(payload + sizeof g, packet, n);
    fw_tunnel_sign(c, payload);
    outer.protocol = IPPROTO_UDP;
    outer.sport = 50000;
    outer.dport = ntohs(c->gue_port);
    outer.payload_bytes = sizeof g + n;
    fw_frame_make(f, &outer);
    uint8_t *udp = f->b + FW_TUNNEL_ETH + (strchr(t->to, ':') ? 40 : 20);
    udp[6] = udp[7] = 0;
}

static inline void fw_tunnel_make(const struct cb_fw_control *c, fw_frame *f, const fw_tunnel *t,
                                  const fw_spec *inner) {
    static uint8_t packet[FW_FRAME_MAX];
    const size_t n = fw_packet_make(packet, inner);
    fw_tunnel_wrap(c, f, t, packet, n);
}

/* The frame is a GUE packet with a valid tag: what it says. */
static inline bool fw_tunnel_read(const struct cb_fw_control *c, const fw_frame *f, fw_sent *out) {
    const uint8_t *ip = f->b + FW_TUNNEL_ETH, *udp = ip + (ip[0] >> 4 == 4 ? 20 : 40), *g = udp + 8;
    if (f->n < FW_TUNNEL_ETH + 20 + FW_TUNNEL_GUE + 20) return false;
    if ((ip[0] >> 4 == 4 ? ip[9] : ip[6]) != IPPROTO_UDP || memcmp(udp + 2, &c->gue_port, 2) != 0) return false;
    const uint64_t tag = fw_tunnel_tag(c, g);
    for (int i = 0; i < 8; i++)
        if (g[16 + i] != (uint8_t)(tag >> (8 * i))) return false;
    *out = (fw_sent){.hop = g[5],
                     .flags = g[6],
                     .previous = (uint32_t)g[8] << 24 | (uint32_t)g[9] << 16 | (uint32_t)g[10] << 8 | g[11],
                     .inner = g + CB_FW_GUE_BYTES};
    out->inner_bytes = (size_t)(udp[4] << 8 | udp[5]) - FW_TUNNEL_GUE;
    return true;
}

#endif

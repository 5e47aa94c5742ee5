/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Reads the headers of a packet: Ethernet, IPv4 with options, IPv6 with extension headers, TCP, UDP, ICMP. Nothing
 * beyond `end` is touched; what the kernel runs is what tests and fuzzers run in C.
 *
 * Checksums are not looked at: the headers travel as they came, and who gets them looks. */
#ifndef CB_FW_PACKET_H
#define CB_FW_PACKET_H

#include "fw_types.h"

enum fw_parsed {
    FW_OK,
    FW_OTHER, /* not IP, or of a protocol without ports: nothing of ours */
    FW_BAD    /* contradicts itself or is cut short; family and addresses are valid */
};

enum fw_fragments { FW_WHOLE, FW_FIRST, FW_LATER /* has no ports */ };

enum {
    FW_ETH = 14,
    FW_EXTENSIONS = 6,        /* headers between IPv6 and the transport's; more are taken for an attack */
    FW_EXTENSION_BYTES = 512, /* ... and so is more of them */
    FW_ICMP4 = 1,
    FW_IPIP = 4,
    FW_TCP = 6,
    FW_UDP = 17,
    FW_IPV6 = 41,
    FW_ICMP6 = 58
};

struct fw_packet {
    __u32 source[4], destination[4]; /* network byte order, IPv4 as ::ffff:a.b.c.d */
    __u32 ip_bytes;                  /* of the IP packet, its header included: what the header says */
    __u32 ip, l4;                    /* where these headers begin in the frame */
    __u32 l4_bytes;                  /* from there to the end of the IP packet */
    __u32 fragment_id;
    __u32 ports;   /* TCP, UDP: source and destination as on the wire */
    __u16 port;    /* of the destination, network byte order */
    __u8 family;   /* 4 or 6 */
    __u8 protocol; /* of the transport */
    __u8 fragment; /* enum fw_fragments */
    __u8 traffic_class;
    __u8 type, code; /* ICMP */
};

/* Headers are within so many bytes of a frame; the mask tells the verifier what the parser has seen to already. */
enum { FW_FRAME_MASK = 0x1fff };

/* The transport's header. */
static __always_inline const __u8 *fw_l4(const void *data, const struct fw_packet *p) {
    return (const __u8 *)data + (p->l4 & FW_FRAME_MASK);
}

static __always_inline int fw_parse_tcp(const __u8 *h, const void *end, struct fw_packet *p) {
    if (p->l4_bytes < 20 || (const void *)(h + 20) > end) return FW_BAD;
    const __u32 header = (__u32)(h[12] >> 4) * 4;
    if (header < 20 || (header > p->l4_bytes && p->fragment == FW_WHOLE)) return FW_BAD;
    p->ports = FW_LOAD(__u32, h);
    p->port = FW_LOAD(__u16, h + 2);
    return FW_OK;
}

static __always_inline int fw_parse_udp(const __u8 *h, const void *end, struct fw_packet *p) {
    if (p->l4_bytes < 8 || (const void *)(h + 8) > end) return FW_BAD;
    const __u32 bytes = FW_BE16(FW_LOAD(__u16, h + 4));
    if (bytes < 8 || (bytes > p->l4_bytes && p->fragment == FW_WHOLE)) return FW_BAD;
    p->ports = FW_LOAD(__u32, h);
    p->port = FW_LOAD(__u16, h + 2);
    return FW_OK;
}

static __always_inline int fw_parse_icmp(const __u8 *h, const void *end, struct fw_packet *p) {
    if (p->l4_bytes < 8 || (const void *)(h + 8) > end) return FW_BAD;
    p->type = h[0];
    p->code = h[1];
    return FW_OK;
}

static __always_inline int fw_parse_l4(const void *data, const void *end, struct fw_packet *p) {
    const __u8 *h = fw_l4(data, p);
    if (p->protocol == FW_TCP) return fw_parse_tcp(h, end, p);
    if (p->protocol == FW_UDP) return fw_parse_udp(h, end, p);
    if (p->protocol == (p->family == 4 ? FW_ICMP4 : FW_ICMP6)) return fw_parse_icmp(h, end, p);
    return p->protocol == FW_IPIP || p->protocol == FW_IPV6 ? FW_OK : FW_OTHER;
}

/* The 16 bytes from `at` on, of which `bytes` are a piece: does it fit into a datagram, and end as pieces end? */
static __always_inline int fw_parse_piece(struct fw_packet *p, __u32 offset, int more) {
    if (more && (p->l4_bytes & 7)) return FW_BAD;
    if (offset + p->l4_bytes > 65535) return FW_BAD;
    if (offset == 8 && p->protocol == FW_TCP) return FW_BAD; /* would overwrite flags (RFC 3128) */
    p->fragment = offset ? FW_LATER : more ? FW_FIRST : FW_WHOLE;
    return FW_OK;
}

/* The IPv4 packet that begins `at` bytes into the frame. */
static __always_inline int fw_parse_ip4(const void *data, const void *end, __u32 at, struct fw_packet *p) {
    const __u8 *h = (const __u8 *)data + at;
    if ((const void *)(h + 20) > end) return FW_OTHER;
    p->family = 4;
    p->ip = at;
    p->source[0] = p->source[1] = p->destination[0] = p->destination[1] = 0;
    p->source[2] = p->destination[2] = FW_BE32(0xffff);
    p->source[3] = FW_LOAD(__u32, h + 12);
    p->destination[3] = FW_LOAD(__u32, h + 16);
    p->traffic_class = h[1];
    p->protocol = h[9];
    p->fragment = FW_WHOLE;
    p->ip_bytes = FW_BE16(FW_LOAD(__u16, h + 2));
    const __u32 header = (__u32)(h[0] & 15) * 4;
    if (h[0] >> 4 != 4 || header < 20 || p->ip_bytes < header || (const void *)(h + p->ip_bytes) > end) return FW_BAD;
    p->l4 = at + header;
    p->l4_bytes = p->ip_bytes - header;
    const __u32 piece = FW_BE16(FW_LOAD(__u16, h + 6));
    if (piece & 0x3fff) {
        p->fragment_id = FW_LOAD(__u16, h + 4);
        int rc = fw_parse_piece(p, (piece & 0x1fff) * 8, (piece & 0x2000) != 0);
        if (rc != FW_OK || p->fragment == FW_LATER) return rc;
    }
    return fw_parse_l4(data, end, p);
}

static __always_inline int fw_is_extension(__u32 next) {
    return next == 0 || next == 43 || next == 44 || next == 60;
}

/* Walks over the extension headers of IPv6 that begin at `first`; `bytes` is what the IP packet has from there on.
 * Tells all in one word, so that the verifier does not walk each chain to the end of the program: the protocol of the
 * transport in bits 0-7 (0: bad), how far it is in 8-16; of a piece, whether more follow in bit 17, its offset in 18-30
 * (both in units of eight bytes), and the datagram's ID in the upper half. */
#define FW_WALKED(at, next)    ((__u64)(at) << 5 | (next))
#define FW_WALKED_PIECE(piece) ((__u64)((piece)&1) << 17 | (__u64)((piece)&0xfff8) << 15)
static __noinline __u64 fw_walk(const __u8 *first, const void *end, __u32 next, __u32 bytes) {
    __u32 at = 0, fragmented = 0;
    for (int i = 0; i < FW_EXTENSIONS && fw_is_extension(next); i++) {
        const __u8 *h = first + at;
        if (at > FW_EXTENSION_BYTES || at + 8 > bytes || (const void *)(h + 8) > end) return 0;
        if (next == 0 && i) return 0; /* hop-by-hop options come first (RFC 8200, 4.1) */
        const __u32 is_fragment = next == 44;
        next = h[0];
        at += is_fragment ? 8 : ((__u32)h[1] + 1) * 8;
        if (!is_fragment) continue;
        if (fragmented++) return 0;
        const __u32 piece = FW_BE16(FW_LOAD(__u16, h + 2));
        if (!(piece & 0xfff9)) continue; /* an atomic fragment is a whole packet (RFC 6946) */
        if (!(piece & 0xfff8) && fw_is_extension(next)) return 0;
        return (__u64)FW_LOAD(__u32, h + 4) << 32 | FW_WALKED(at, next) | FW_WALKED_PIECE(piece);
    }
    return at > FW_EXTENSION_BYTES || at > bytes || fw_is_extension(next) ? 0 : FW_WALKED(at, next);
}

static __always_inline int fw_parse_extensions(const void *data, const void *end, struct fw_packet *p) {
    const __u64 walked = fw_walk(fw_l4(data, p), end, p->protocol, p->l4_bytes);
    const __u32 at = (__u32)walked >> 5 & 0xff8, offset = (__u32)walked >> 15 & 0xfff8, more = walked >> 17 & 1;
    if (!(walked & 0xff)) return FW_BAD;
    p->protocol = (__u8)walked;
    p->l4 += at;
    p->l4_bytes -= at;
    if (!offset && !more) return FW_OK;
    p->fragment_id = (__u32)(walked >> 32);
    return fw_parse_piece(p, offset, (int)more);
}

/* Addresses of IPv4 in the form of IPv6 are how maps have IPv4: in packets nobody sends them but to be taken for it. */
static __always_inline int fw_is_mapped(const __u32 *address) {
    return !(address[0] | address[1]) && address[2] == FW_BE32(0xffff);
}

static __always_inline int fw_parse_ip6(const void *data, const void *end, __u32 at, struct fw_packet *p) {
    const __u8 *h = (const __u8 *)data + at;
    if ((const void *)(h + 40) > end) return FW_OTHER;
    p->family = 6;
    p->ip = at;
    for (int i = 0; i < 4; i++) {
        p->source[i] = FW_LOAD(__u32, h + 8 + 4 * i);
        p->destination[i] = FW_LOAD(__u32, h + 24 + 4 * i);
    }
    if (fw_is_mapped(p->source) || fw_is_mapped(p->destination)) return FW_OTHER;
    p->traffic_class = (__u8)(FW_BE16(FW_LOAD(__u16, h)) >> 4);
    p->protocol = h[6];
    p->fragment = FW_WHOLE;
    p->l4 = at + 40;
    p->l4_bytes = FW_BE16(FW_LOAD(__u16, h + 4));
    p->ip_bytes = 40 + p->l4_bytes;
    if (h[0] >> 4 != 6 || (const void *)(h + p->ip_bytes) > end) return FW_BAD;
    if (p->protocol != FW_TCP && p->protocol != FW_UDP && p->protocol != FW_ICMP6) {
        int rc = fw_parse_extensions(data, end, p);
        if (rc != FW_OK || p->fragment == FW_LATER) return rc;
    }
    return fw_parse_l4(data, end, p);
}

/* The same for what most packets are: TCP or UDP right behind an IP header without options, in one piece. 0: it is
 * something else, or bad. What is read here is constant in what follows, so that both families get code of their own.
 */
static __always_inline int fw_parse_plain4(const void *data, const void *end, struct fw_packet *p) {
    const __u8 *h = data;
    if ((const void *)(h + FW_ETH + 20) > end || FW_LOAD(__u16, h + 12) != FW_BE16(0x0800)) return 0;
    if (h[FW_ETH] != 0x45 || FW_LOAD(__u16, h + FW_ETH + 6) & FW_BE16(0x3fff)) return 0;
    if (h[FW_ETH + 9] != FW_TCP && h[FW_ETH + 9] != FW_UDP) return 0;
    return fw_parse_ip4(data, end, FW_ETH, p) == FW_OK;
}

static __always_inline int fw_parse_plain6(const void *data, const void *end, struct fw_packet *p) {
    const __u8 *h = data;
    if ((const void *)(h + FW_ETH + 40) > end || FW_LOAD(__u16, h + 12) != FW_BE16(0x86dd)) return 0;
    if (h[FW_ETH + 6] != FW_TCP && h[FW_ETH + 6] != FW_UDP) return 0;
    return fw_parse_ip6(data, end, FW_ETH, p) == FW_OK;
}

/* A frame. FW_OTHER: not of IP, or too short to have its addresses. */
static __always_inline int fw_parse(const void *data, const void *end, struct fw_packet *p) {
    const __u8 *h = data;
    if ((const void *)(h + FW_ETH) > end) return FW_OTHER;
    const __u16 type = FW_LOAD(__u16, h + 12);
    if (type == FW_BE16(0x0800)) return fw_parse_ip4(data, end, FW_ETH, p);
    if (type == FW_BE16(0x86dd)) return fw_parse_ip6(data, end, FW_ETH, p);
    return FW_OTHER;
}

/* Is it an error that quotes a packet of ours? */
static __always_inline int fw_is_icmp_error(const struct fw_packet *p) {
    if (p->protocol == FW_ICMP6) return p->family == 6 && p->type < 128;
    return p->protocol == FW_ICMP4 && p->family == 4 &&
           (p->type == 3 || p->type == 4 || p->type == 5 || p->type == 11 || p->type == 12);
}

#endif

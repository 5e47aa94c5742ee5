/* Ethernet frames with UDP datagrams in them: reading what came from outside, and writing what leaves. */
#ifndef CB_PACKET_FRAME_H
#define CB_PACKET_FRAME_H

#include <cb/packet.h>
#include <stdbool.h>

enum {
    FRAME_ETH = 14,
    FRAME_IP4 = 20, /* without options */
    FRAME_IP6 = 40,
    FRAME_UDP = 8,
    FRAME_HEADERS = FRAME_ETH + FRAME_IP6 + FRAME_UDP, /* room that the headers of either family need */
    FRAME_IP_MIN_MTU = 1280                            /* every link carries so much (IPv6: RFC 8200, 5) */
};

/* What a frame is. */
enum frame_kind {
    FRAME_OK,        /* a datagram */
    FRAME_MALFORMED, /* cut short, lengths that contradict each other, a source that cannot be */
    FRAME_CHECKSUM,  /* of IPv4 or UDP is wrong; or UDP over IPv6 has none (RFC 8200, 8.1) */
    FRAME_FRAGMENT,  /* a part of a datagram */
    FRAME_OTHER      /* no UDP over IP: another protocol, a VLAN tag, an extension header */
};

typedef struct frame_udp {
    cb_packet_addr local, remote; /* destination and source; scope is 0 */
    uint8_t *payload;
    uint32_t len;
    uint8_t ecn;
    uint8_t source_mac[6];
} frame_udp;

/* Reads the frame [data, len); nothing behind is touched. out is complete on FRAME_OK only. verify false: checksums are
 * not looked at (a missing one over IPv6 still is). */
enum frame_kind frame_read(frame_udp *out, uint8_t *data, size_t len, bool verify);

typedef struct frame_head {
    uint8_t to_mac[6], from_mac[6];
    cb_packet_addr local, remote; /* of one family */
    uint32_t flow;                /* of IPv6: 20 bits */
    uint16_t id;                  /* of IPv4 */
    uint8_t ecn, ttl;
    bool may_fragment; /* IPv4 */
} frame_head;

/* How many bytes of headers stand before the payload. */
static inline uint32_t frame_headers(uint8_t family) {
    return FRAME_ETH + FRAME_UDP + (family == 4 ? FRAME_IP4 : FRAME_IP6);
}

/* Writes the headers into the frame_headers() bytes before the payload of len bytes, checksums included. */
void frame_write(uint8_t *payload, uint32_t len, const frame_head *h);

/* The ones' complement sum of RFC 1071 over bytes, folded to 16 bits, in the order of the wire as memory has it. */
uint32_t frame_sum(const uint8_t *data, size_t len, uint32_t sum);

#endif

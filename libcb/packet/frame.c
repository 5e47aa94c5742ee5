#include "packet/frame.h"
#include <string.h>

enum { TYPE_IP4 = 0x0800, TYPE_IP6 = 0x86dd, PROTOCOL_UDP = 17, FLAG_DF = 0x4000, MORE_OR_OFFSET = 0x3fff };

/* ---- bytes and sums ---- */

static uint16_t get16(const uint8_t *p) {
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static uint32_t fold(uint64_t sum) {
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 32) + (sum & 0xffffffff);
    sum = (sum >> 16) + (sum & 0xffff);
    sum = (sum >> 16) + (sum & 0xffff);
    return (uint32_t)sum;
}

/* Words of the machine's own order are added: the sum does not depend on it (RFC 1071, 2), as long as the result is
 * stored the same way. */
uint32_t frame_sum(const uint8_t *data, size_t len, uint32_t sum) {
    uint64_t all = sum;
    uint32_t word;
    uint16_t half = 0;
    while (len >= 16) {
        uint32_t four[4];
        memcpy(four, data, 16);
        all += (uint64_t)four[0] + four[1] + four[2] + four[3];
        data += 16;
        len -= 16;
    }
    for (; len >= 4; data += 4, len -= 4) {
        memcpy(&word, data, 4);
        all += word;
    }
    if (len >= 2) {
        memcpy(&half, data, 2);
        all += half;
        data += 2;
        len -= 2;
    }
    half = 0;
    if (len) {
        memcpy(&half, data, 1);
        all += half;
    }
    return fold(all);
}

/* Of the pseudo-header: addresses that stand together in the IP header, the protocol, the length of UDP. */
static uint32_t pseudo_sum(const uint8_t *addresses, size_t len, uint32_t udp_len) {
    uint8_t rest[4] = {0, PROTOCOL_UDP, (uint8_t)(udp_len >> 8), (uint8_t)udp_len};
    return frame_sum(rest, sizeof rest, frame_sum(addresses, len, 0));
}

static bool sums_to_zero(uint32_t sum) {
    return sum == 0xffff;
}

/* ---- reading ---- */

/* What no packet may come from (RFC 1122, 3.2.1.3; RFC 4291, 2.5 and 2.7). */
static bool bad_source4(const uint8_t *ip) {
    return ip[0] == 0 || ip[0] == 127 || ip[0] >= 224;
}

static bool bad_source6(const uint8_t *ip) {
    static const uint8_t zeros[16], mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    if (ip[0] == 0xff || memcmp(ip, mapped, sizeof mapped) == 0) return true;
    return memcmp(ip, zeros, 15) == 0 && ip[15] <= 1; /* :: and ::1 */
}

/* The UDP header and what it carries, in the `len` bytes that IP says there are. */
static enum frame_kind read_udp(frame_udp *out, uint8_t *udp, size_t len, const uint8_t *addresses, bool verify) {
    const bool v6 = out->remote.family == 6;
    if (len < FRAME_UDP) return FRAME_MALFORMED;
    const uint32_t udp_len = get16(udp + 4);
    if (udp_len < FRAME_UDP || udp_len > len) return FRAME_MALFORMED;
    const bool summed = get16(udp + 6) != 0;
    if (v6 && !summed) return FRAME_CHECKSUM;
    if (verify && summed && !sums_to_zero(frame_sum(udp, udp_len, pseudo_sum(addresses, v6 ? 32 : 8, udp_len))))
        return FRAME_CHECKSUM;
    out->remote.port = get16(udp);
    out->local.port = get16(udp + 2);
    out->payload = udp + FRAME_UDP;
    out->len = udp_len - FRAME_UDP;
    return FRAME_OK;
}

static enum frame_kind read_ip4(frame_udp *out, uint8_t *ip, size_t len, bool verify) {
    if (len < FRAME_IP4 || ip[0] >> 4 != 4) return FRAME_MALFORMED;
    const size_t head = (ip[0] & 15U) * 4U, total = get16(ip + 2);
    if (head < FRAME_IP4 || total < head || total > len) return FRAME_MALFORMED; /* more than total: padding */
    if (verify && !sums_to_zero(frame_sum(ip, head, 0))) return FRAME_CHECKSUM;
    if (get16(ip + 6) & MORE_OR_OFFSET) return FRAME_FRAGMENT;
    if (ip[9] != PROTOCOL_UDP) return FRAME_OTHER;
    if (bad_source4(ip + 12)) return FRAME_MALFORMED;
    out->ecn = ip[1] & 3;
    out->remote.family = out->local.family = 4;
    memcpy(out->remote.ip, ip + 12, 4);
    memcpy(out->local.ip, ip + 16, 4);
    return read_udp(out, ip + head, total - head, ip + 12, verify);
}

static enum frame_kind read_ip6(frame_udp *out, uint8_t *ip, size_t len, bool verify) {
    if (len < FRAME_IP6 || ip[0] >> 4 != 6) return FRAME_MALFORMED;
    const size_t payload = get16(ip + 4);
    if (payload > len - FRAME_IP6) return FRAME_MALFORMED;
    if (ip[6] != PROTOCOL_UDP) return FRAME_OTHER; /* also extension headers, fragments among them: the kernel's */
    if (bad_source6(ip + 8)) return FRAME_MALFORMED;
    out->ecn = ip[1] >> 4 & 3;
    out->remote.family = out->local.family = 6;
    memcpy(out->remote.ip, ip + 8, 16);
    memcpy(out->local.ip, ip + 24, 16);
    return read_udp(out, ip + FRAME_IP6, payload, ip + 8, verify);
}

enum frame_kind frame_read(frame_udp *out, uint8_t *data, size_t len, bool verify) {
    *out = (frame_udp){.len = 0};
    if (len < FRAME_ETH) return FRAME_MALFORMED;
    memcpy(out->source_mac, data + 6, 6);
    switch (get16(data + 12)) {
    case TYPE_IP4:
        return read_ip4(out, data + FRAME_ETH, len - FRAME_ETH, verify);
    case TYPE_IP6:
        return read_ip6(out, data + FRAME_ETH, len - FRAME_ETH, verify);
    default:
        return FRAME_OTHER;
    }
}

/* ---- writing ---- */

static void put_sum(uint8_t *at, uint32_t sum, bool zero_means_none) {
    uint16_t folded = (uint16_t)~sum;
    if (zero_means_none && !folded) folded = 0xffff;
    memcpy(at, &folded, 2);
}

static void write_ip4(uint8_t *ip, uint32_t udp_len, const frame_head *h) {
    memset(ip, 0, FRAME_IP4);
    ip[0] = 0x45;
    ip[1] = h->ecn & 3;
    put16(ip + 2, FRAME_IP4 + udp_len);
    put16(ip + 4, h->id);
    put16(ip + 6, h->may_fragment ? 0 : FLAG_DF);
    ip[8] = h->ttl;
    ip[9] = PROTOCOL_UDP;
    memcpy(ip + 12, h->local.ip, 4);
    memcpy(ip + 16, h->remote.ip, 4);
    put_sum(ip + 10, frame_sum(ip, FRAME_IP4, 0), false);
}

static void write_ip6(uint8_t *ip, uint32_t udp_len, const frame_head *h) {
    ip[0] = 0x60;
    ip[1] = (uint8_t)((h->ecn & 3) << 4 | (h->flow >> 16 & 15));
    put16(ip + 2, h->flow & 0xffff);
    put16(ip + 4, udp_len);
    ip[6] = PROTOCOL_UDP;
    ip[7] = h->ttl;
    memcpy(ip + 8, h->local.ip, 16);
    memcpy(ip + 24, h->remote.ip, 16);
}

void frame_write(uint8_t *payload, uint32_t len, const frame_head *h) {
    const bool v4 = h->remote.family == 4;
    const uint32_t udp_len = len + FRAME_UDP;
    uint8_t *udp = payload - FRAME_UDP, *ip = udp - (v4 ? FRAME_IP4 : FRAME_IP6), *eth = ip - FRAME_ETH;

    memcpy(eth, h->to_mac, 6);
    memcpy(eth + 6, h->from_mac, 6);
    put16(eth + 12, v4 ? TYPE_IP4 : TYPE_IP6);
    v4 ? write_ip4(ip, udp_len, h) : write_ip6(ip, udp_len, h);
    put16(udp, h->local.port);
    put16(udp + 2, h->remote.port);
    put16(udp + 4, udp_len);
    put16(udp + 6, 0);
    put_sum(udp + 6, frame_sum(udp, udp_len, pseudo_sum(v4 ? ip + 12 : ip + 8, v4 ? 8 : 32, udp_len)), true);
}

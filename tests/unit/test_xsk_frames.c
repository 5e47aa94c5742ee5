/* Frames from outside, branch by branch, and frames that we write. */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(xsk_frames, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "packet/frame.h"
#include <stdlib.h>
#include <string.h>

enum { ROOM = 2048, ETH = 14, AT = 64 };

typedef struct made {
    uint8_t bytes[ROOM];
    uint8_t *data;
    size_t len;
} made;

static const uint8_t mac_a[6] = {2, 0, 0, 0, 0, 0xa}, mac_b[6] = {2, 0, 0, 0, 0, 0xb};

static frame_head head_of(int family) {
    frame_head h = {.ttl = 64, .ecn = 1, .flow = 0xabcde, .id = 0x1234};
    memcpy(h.to_mac, mac_b, 6);
    memcpy(h.from_mac, mac_a, 6);
    cr_assert_eq(cb_packet_addr_parse(&h.local, family == 4 ? "192.0.2.1:1000" : "[2001:db8::1]:1000"), CB_OK);
    cr_assert_eq(cb_packet_addr_parse(&h.remote, family == 4 ? "192.0.2.2:53" : "[2001:db8::2]:53"), CB_OK);
    return h;
}

static void make(made *m, int family, size_t len) {
    const frame_head h = head_of(family);
    memset(m, 0, sizeof *m);
    for (size_t i = 0; i < len; i++)
        m->bytes[AT + i] = (uint8_t)(i * 7 + 3);
    frame_write(m->bytes + AT, (uint32_t)len, &h);
    m->data = m->bytes + AT - frame_headers((uint8_t)family);
    m->len = len + frame_headers((uint8_t)family);
}

static enum frame_kind read_made(made *m, frame_udp *u) {
    /* exactly so many bytes: what reads beyond is seen by the sanitizer */
    uint8_t *copy = malloc(m->len ? m->len : 1);
    memcpy(copy, m->data, m->len);
    enum frame_kind kind = frame_read(u, copy, m->len, true);
    free(copy);
    return kind;
}

/* The sum again, one 16-bit word at a time (RFC 1071, 4.1). */
static uint16_t slow_sum(const uint8_t *p, size_t len, uint32_t sum) {
    for (; len > 1; p += 2, len -= 2)
        sum += (uint32_t)p[0] << 8 | p[1];
    if (len) sum += (uint32_t)p[0] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)sum;
}

static void fix_ip4(made *m) {
    uint8_t *ip = m->data + ETH;
    ip[10] = ip[11] = 0;
    const uint16_t sum = (uint16_t)~slow_sum(ip, (ip[0] & 15U) * 4U, 0);
    ip[10] = (uint8_t)(sum >> 8);
    ip[11] = (uint8_t)sum;
}

Test(xsk_frames, what_is_written_is_read) {
    static const size_t sizes[] = {1, 2, 3, 15, 16, 17, 31, 100, 511, 1200, 1452, 1472};
    for (int family = 4; family <= 6; family += 2)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            made m;
            frame_udp u;
            const frame_head h = head_of(family);
            make(&m, family, sizes[i]);
            cr_assert_eq(frame_read(&u, m.data, m.len, true), FRAME_OK, "IPv%d, %zu bytes", family, sizes[i]);
            cr_expect(cb_packet_addr_equal(&u.remote, &h.local) && cb_packet_addr_equal(&u.local, &h.remote));
            cr_expect_eq(u.payload, m.bytes + AT);
            cr_expect_eq(u.len, sizes[i]);
            cr_expect_eq(u.ecn, 1);
            cr_expect_eq(memcmp(u.source_mac, mac_a, 6), 0);
            cr_expect_eq(m.bytes[AT + sizes[i] - 1], (uint8_t)((sizes[i] - 1) * 7 + 3), "the payload is as it was");
        }
}

Test(xsk_frames, sums_are_those_of_the_rfc) {
    uint8_t bytes[259];
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)((x = x * 1103515245 + 12345) >> 16);
    for (size_t len = 0; len <= sizeof bytes; len++) {
        const uint16_t got = (uint16_t)frame_sum(bytes, len, 0), want = slow_sum(bytes, len, 0);
        uint8_t as_stored[2];
        memcpy(as_stored, &got, 2);
        cr_assert_eq(as_stored[0] << 8 | as_stored[1], want, "%zu bytes", len);
    }
}

Test(xsk_frames, fields_are_where_the_rfcs_put_them) {
    made m;
    make(&m, 4, 5);
    const uint8_t *ip = m.data + ETH;
    static const uint8_t v4[20] = {0x45, 1, 0, 33, 0x12, 0x34, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2};
    cr_expect_eq(memcmp(m.data, mac_b, 6) | memcmp(m.data + 6, mac_a, 6), 0);
    cr_expect(m.data[12] == 8 && m.data[13] == 0);
    cr_expect_eq(memcmp(ip, v4, 10) | memcmp(ip + 12, v4 + 12, 8), 0);
    cr_expect_eq(slow_sum(ip, 20, 0), 0xffff);
    frame_head h = head_of(4);
    h.may_fragment = true;
    frame_write(m.bytes + AT, 5, &h);
    cr_expect(ip[6] == 0 && ip[7] == 0);
    make(&m, 6, 5);
    ip = m.data + ETH;
    static const uint8_t v6[8] = {0x60, 0x1a, 0xbc, 0xde, 0, 13, 17, 64};
    cr_expect(m.data[12] == 0x86 && m.data[13] == 0xdd);
    cr_expect_eq(memcmp(ip, v6, 8), 0);
    cr_expect_eq(slow_sum(ip + 8, 32 + 13, 17 + 13), 0xffff, "UDP with its pseudo-header");
}

/* A datagram whose sum is zero is sent with ones: zero means that there is none. */
Test(xsk_frames, a_sum_of_zero_is_written_as_ones) {
    int found = 0;
    for (int family = 4; family <= 6; family += 2)
        for (uint32_t word = 0; word < 65536; word++) {
            uint8_t bytes[128] = {0};
            const frame_head h = head_of(family);
            uint8_t *payload = bytes + AT;
            payload[0] = (uint8_t)(word >> 8);
            payload[1] = (uint8_t)word;
            frame_write(payload, 2, &h);
            cr_assert(payload[-2] || payload[-1]);
            if (payload[-2] != 0xff || payload[-1] != 0xff) continue;
            frame_udp u;
            const uint32_t head = frame_headers((uint8_t)family);
            cr_assert_eq(frame_read(&u, payload - head, head + 2, true), FRAME_OK);
            found++;
        }
    cr_expect_eq(found, 2, "one payload of two bytes a family");
}

Test(xsk_frames, nothing_shorter_is_taken_and_nothing_behind_is_read) {
    for (int family = 4; family <= 6; family += 2) {
        made m;
        frame_udp u;
        make(&m, family, 40);
        const size_t whole = m.len;
        for (m.len = 0; m.len < whole; m.len++)
            cr_assert_eq(read_made(&m, &u), FRAME_MALFORMED, "IPv%d, %zu bytes", family, m.len);
        memset(m.data + whole, 0, 20); /* an Ethernet frame is padded to 60 bytes */
        m.len = whole + 20;
        cr_assert_eq(read_made(&m, &u), FRAME_OK);
        cr_expect_eq(u.len, 40);
    }
}

typedef struct change {
    const char *what;
    int family;
    int at; /* behind the Ethernet header; < 0: in it, from its end */
    uint8_t value;
    bool fix; /* the header's sum is made good again */
    enum frame_kind kind;
} change;

Test(xsk_frames, each_branch) {
    static const change rows[] = {
        {"a VLAN tag", 4, -2, 0x81, false, FRAME_OTHER},
        {"ARP", 4, -1, 0x06, false, FRAME_OTHER},
        {"version 5", 4, 0, 0x55, true, FRAME_MALFORMED},
        {"a header of 16 bytes", 4, 0, 0x44, true, FRAME_MALFORMED},
        {"a header beyond the packet", 4, 0, 0x4f, true, FRAME_MALFORMED},
        {"total length beyond the frame", 4, 2, 0x10, true, FRAME_MALFORMED},
        {"total length less than the header", 4, 3, 19, true, FRAME_MALFORMED},
        {"total length that cuts UDP short", 4, 3, 20 + 7, true, FRAME_MALFORMED},
        {"total length that cuts the payload short", 4, 3, 20 + 9, true, FRAME_MALFORMED},
        {"a wrong sum of the header", 4, 10, 0, false, FRAME_CHECKSUM},
        {"more fragments", 4, 6, 0x20, true, FRAME_FRAGMENT},
        {"a later fragment", 4, 7, 1, true, FRAME_FRAGMENT},
        {"without DF", 4, 6, 0, true, FRAME_OK},
        {"TCP", 4, 9, 6, true, FRAME_OTHER},
        {"from 0.0.2.1", 4, 12, 0, true, FRAME_MALFORMED},
        {"from 127.0.2.1", 4, 12, 127, true, FRAME_MALFORMED},
        {"from 224.0.2.1", 4, 12, 224, true, FRAME_MALFORMED},
        {"from 255.0.2.1", 4, 12, 255, true, FRAME_MALFORMED},
        {"from elsewhere than the sum says", 4, 13, 9, true, FRAME_CHECKSUM},
        {"a length of UDP beyond IP's", 4, 24, 1, false, FRAME_MALFORMED},
        {"a length of UDP below its header", 4, 25, 7, false, FRAME_MALFORMED},
        {"a wrong sum of UDP", 4, 26, 0x55, false, FRAME_CHECKSUM},
        {"a flipped byte of the payload", 4, 28, 0x55, false, FRAME_CHECKSUM},
        {"version 7", 6, 0, 0x70, false, FRAME_MALFORMED},
        {"payload length beyond the frame", 6, 4, 1, false, FRAME_MALFORMED},
        {"payload length that cuts UDP short", 6, 5, 7, false, FRAME_MALFORMED},
        {"payload length of a jumbogram", 6, 5, 0, false, FRAME_MALFORMED},
        {"hop-by-hop options", 6, 6, 0, false, FRAME_OTHER},
        {"routing header", 6, 6, 43, false, FRAME_OTHER},
        {"fragment header", 6, 6, 44, false, FRAME_OTHER},
        {"destination options", 6, 6, 60, false, FRAME_OTHER},
        {"TCP over IPv6", 6, 6, 6, false, FRAME_OTHER},
        {"from multicast", 6, 8, 0xff, false, FRAME_MALFORMED},
        {"a length of UDP beyond IPv6's", 6, 44, 1, false, FRAME_MALFORMED},
        {"a wrong sum of UDP over IPv6", 6, 46, 0x55, false, FRAME_CHECKSUM},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        made m;
        frame_udp u;
        make(&m, rows[i].family, 30);
        uint8_t *at = m.data + ETH + rows[i].at;
        cr_assert_neq(*at, rows[i].value, "%s: changes nothing", rows[i].what);
        *at = rows[i].value;
        if (rows[i].fix) fix_ip4(&m);
        cr_expect_eq(read_made(&m, &u), rows[i].kind, "%s: %d", rows[i].what, (int)read_made(&m, &u));
    }
}

Test(xsk_frames, sources_of_ipv6_that_cannot_be) {
    static const char *const rows[] = {"[::]:1", "[::1]:1", "[::ffff:1.2.3.4]:1"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        made m;
        frame_udp u;
        make(&m, 6, 8);
        uint8_t *source = m.data + ETH + 8;
        memset(source, 0, 16);
        source[15] = i == 1;
        if (i == 2) memcpy(source + 10, "\xff\xff\1\2\3\4", 6);
        cr_expect_eq(read_made(&m, &u), FRAME_MALFORMED, "%s", rows[i]);
    }
}

Test(xsk_frames, a_missing_sum_is_fine_with_ipv4_and_not_with_ipv6) {
    made m;
    frame_udp u;
    make(&m, 4, 9);
    memset(m.data + ETH + 26, 0, 2);
    cr_expect_eq(read_made(&m, &u), FRAME_OK);
    make(&m, 6, 9);
    memset(m.data + ETH + 46, 0, 2);
    cr_expect_eq(read_made(&m, &u), FRAME_CHECKSUM);
    cr_expect_eq(frame_read(&u, m.data, m.len, false), FRAME_CHECKSUM, "also where sums are not looked at");
    make(&m, 6, 9);
    m.data[ETH + 47] ^= 1;
    cr_expect_eq(frame_read(&u, m.data, m.len, false), FRAME_OK);
    make(&m, 4, 9);
    m.data[ETH + 27] ^= 1;
    m.data[ETH + 11] ^= 1;
    cr_expect_eq(frame_read(&u, m.data, m.len, false), FRAME_OK);
}

Test(xsk_frames, options_of_ipv4_are_passed_over) {
    made m, with = {.len = 0};
    frame_udp u;
    make(&m, 4, 12);
    with.data = with.bytes;
    memcpy(with.bytes, m.data, ETH + 20);
    memset(with.bytes + ETH + 20, 1, 40); /* no operation */
    memcpy(with.bytes + ETH + 60, m.data + ETH + 20, 8 + 12);
    with.len = m.len + 40;
    with.bytes[ETH] = 0x4f;
    with.bytes[ETH + 3] = 60 + 8 + 12;
    fix_ip4(&with);
    cr_expect_eq(read_made(&with, &u), FRAME_OK);
    cr_expect_eq(u.len, 12);
    with.bytes[ETH + 3] = 59;
    fix_ip4(&with);
    cr_expect_eq(read_made(&with, &u), FRAME_MALFORMED, "shorter than its own header");
}

Test(xsk_frames, udp_may_be_shorter_than_ip_says) {
    made m;
    frame_udp u;
    make(&m, 4, 20);
    uint8_t *udp = m.data + ETH + 20;
    udp[5] = 8 + 4; /* four bytes, and sixteen that nobody knows */
    udp[6] = udp[7] = 0;
    cr_expect_eq(read_made(&m, &u), FRAME_OK);
    cr_expect_eq(u.len, 4);
    udp[5] = 8;
    cr_expect_eq(read_made(&m, &u), FRAME_OK);
    cr_expect_eq(u.len, 0, "an empty datagram is one");
}

#endif

/* The way out of a host that does not own a packet: each encapsulation, byte by byte (docs/design/datapath.md). */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(forward_out, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "base/siphash.h"
#include "support/fw_lab.h"
#include <linux/bpf.h>
#include <string.h>

enum { ETH = 14, GUE = 8 + CB_FW_GUE_BYTES, SLOT = 5, SECOND = 6 };

static const char *const clients[] = {"198.51.100.7", "2001:db8:c::7"};
static const char *const vips[] = {"203.0.113.1", "2001:db8:f::1"};
static const char *const hosts[] = {"192.0.2.5", "2001:db8::5"};

static uint32_t be16(const uint8_t *p) {
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t be32(const uint8_t *p) {
    return be16(p) << 16 | be16(p + 2);
}

static fw_spec tcp_to(int family6) {
    static const uint8_t payload[] = "GET / HTTP/1.1\r\n\r\n";
    return (fw_spec){.source = clients[family6],
                     .destination = vips[family6],
                     .sport = 40000,
                     .dport = 443,
                     .protocol = IPPROTO_TCP,
                     .payload = payload,
                     .payload_bytes = sizeof payload - 1};
}

/* What every tunnel has: stations, an outer header of the right family, length and protocol. Returns where it ends. */
static const uint8_t *outer(const fw_lab *l, bool host6, size_t inner, uint8_t protocol, uint8_t tos, uint64_t hash) {
    static const uint8_t stations[12] = {2, 0, 0, 0, 1, SLOT, 2, 0, 0, 0, 0, 9};
    const uint8_t *ip = l->out.b + ETH;
    uint8_t address[16];
    cr_expect_eq(memcmp(l->out.b, stations, sizeof stations), 0);
    cr_expect_eq(be16(l->out.b + 12), host6 ? 0x86ddU : 0x0800U);
    fw_address(hosts[host6], address);
    if (host6) {
        cr_expect_eq(be32(ip), 0x60000000U | (uint32_t)tos << 20 | (hash & 0xfffff));
        cr_expect_eq(be16(ip + 4), inner);
        cr_expect(ip[6] == protocol && ip[7] == 64);
        cr_expect_eq(memcmp(ip + 8, l->control.address6, 16), 0);
        cr_expect_eq(memcmp(ip + 24, address, 16), 0);
        cr_expect_eq(l->out.n, ETH + 40 + inner);
        return ip + 40;
    }
    cr_expect_eq(be32(ip), 0x45000000U | (uint32_t)tos << 16 | (20 + (uint32_t)inner));
    cr_expect_eq(be32(ip + 4), 0x4000U, "no fragment, and none may be made of it");
    cr_expect(ip[8] == 64 && ip[9] == protocol);
    cr_expect(fw_ip4_checksum_holds(ip));
    cr_expect_eq(memcmp(ip + 12, l->control.address4, 4), 0);
    cr_expect_eq(memcmp(ip + 16, address + 12, 4), 0);
    cr_expect_eq(l->out.n, ETH + 20 + inner);
    return ip + 20;
}

/* The tag as the design page has it, computed from the packet as it left. */
static bool tag_holds(const fw_lab *l, const uint8_t *gue) {
    const uint8_t *ip = gue + CB_FW_GUE_BYTES;
    const bool v4 = ip[0] >> 4 == 4;
    uint8_t key[16], said[15];
    for (size_t i = 0; i < 16; i++)
        key[i] = (uint8_t)(l->control.tag_key[gue[7]][i / 8] >> (i % 8 * 8));
    memcpy(said, v4 ? ip + 12 : ip + 20, 4);
    memcpy(said + 4, v4 ? ip + 16 : ip + 36, 4);
    memcpy(said + 8, gue + 8, 4);
    memcpy(said + 12, gue + 5, 3);
    const uint64_t want = cb_siphash(key, said, sizeof said);
    uint64_t tag = 0;
    for (int i = 7; i >= 0; i--)
        tag = tag << 8 | gue[16 + i];
    return tag == want;
}

static const uint8_t *gue_of(const fw_lab *l, const uint8_t *udp, size_t inner, bool inner6, uint64_t hash,
                             uint32_t previous) {
    const uint8_t *gue = udp + 8;
    cr_expect_eq(be16(udp), 49152 + (hash & 16383));
    cr_expect_eq(be16(udp + 2), (uint32_t)CB_FW_GUE_PORT);
    cr_expect_eq(be16(udp + 4), GUE + inner);
    cr_expect_eq(be16(udp + 6), 0U, "no checksum");
    cr_expect(gue[0] == 5 && gue[1] == (inner6 ? 41 : 4) && gue[2] == 0 && gue[3] == 1);
    cr_expect(gue[4] == CB_FW_PRIVATE && gue[5] == 1 && gue[6] == 0 && gue[7] == l->control.tag_current);
    cr_expect_eq(be32(gue + 8), previous);
    cr_expect_eq(be32(gue + 12), l->control.table_version);
    cr_expect(tag_holds(l, gue));
    return gue + CB_FW_GUE_BYTES;
}

static void lab_with_vips(fw_lab *l) {
    fw_lab_open(l);
    for (int six = 0; six < 2; six++) {
        fw_lab_vip(l, vips[six], 443, IPPROTO_TCP, 0);
        fw_lab_vip(l, vips[six], 53, IPPROTO_UDP, 0);
    }
}

static void one_way(fw_lab *l, int encapsulation, bool host6, const fw_spec *s, uint32_t second) {
    fw_frame f;
    const bool inner6 = strchr(s->source, ':');
    fw_frame_make(&f, s);
    const size_t inner = f.n - ETH;
    fw_lab_member(l, SLOT, hosts[host6], encapsulation);
    fw_lab_member(l, SECOND, "192.0.2.6", CB_FW_GUE);
    const uint64_t hash = fw_lab_tuple(l, s, SLOT, second);
    cr_assert_eq(fw_lab_run(l, &f), XDP_TX);
    cr_expect(fw_lab_only(l, CB_FW_N_FORWARDED, -1));
    const uint8_t *at;
    if (encapsulation == CB_FW_GUE) {
        at = outer(l, host6, GUE + inner, IPPROTO_UDP, s->tos, hash);
        at = gue_of(l, at, inner, inner6, hash, second == SECOND ? 100 + SECOND : 0);
    } else {
        at = outer(l, host6, inner, inner6 ? IPPROTO_IPV6 : IPPROTO_IPIP, s->tos, hash);
    }
    cr_expect_eq(memcmp(at, f.b + ETH, inner), 0, "the packet itself is as it came");
}

Test(forward_out, gue_and_ipip_in_all_families) {
    fw_lab l;
    lab_with_vips(&l);
    for (int encapsulation = CB_FW_GUE; encapsulation <= CB_FW_IPIP; encapsulation++)
        for (int host6 = 0; host6 < 2; host6++)
            for (int inner6 = 0; inner6 < 2; inner6++) {
                fw_spec s = tcp_to(inner6);
                one_way(&l, encapsulation, host6, &s, CB_FW_NOBODY);
                one_way(&l, encapsulation, host6, &s, SECOND);
                s.tos = 0xb9; /* DSCP 46, ECT(1): both are copied */
                one_way(&l, encapsulation, host6, &s, CB_FW_NOBODY);
                s = tcp_to(inner6);
                s.protocol = IPPROTO_UDP;
                s.dport = 53;
                one_way(&l, encapsulation, host6, &s, CB_FW_NOBODY);
            }
    fw_lab_close(&l);
}

#endif

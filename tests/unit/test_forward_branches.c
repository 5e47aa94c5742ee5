/* Which packets are ours, which are dropped and why, and what becomes of the rest (docs/design/datapath.md). */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(forward_branches, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "forward.skel.h"
#include "support/fw_lab.h"
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <string.h>

enum { ETH = 14, SLOT = 5 };

static const char *const clients[] = {"198.51.100.7", "2001:db8:c::7"};
static const char *const vips[] = {"203.0.113.1", "2001:db8:f::1"};
static const char *const strangers[] = {"203.0.113.9", "2001:db8:f::9"};

static fw_spec to(bool six, uint8_t protocol, uint16_t dport) {
    static const uint8_t payload[32] = "some bytes";
    return (fw_spec){.source = clients[six],
                     .destination = vips[six],
                     .sport = 40000,
                     .dport = dport,
                     .protocol = protocol,
                     .payload = payload,
                     .payload_bytes = sizeof payload};
}

/* TCP 443 and UDP 53 of both addresses; the table gives all to SLOT, which is another host. */
static void lab(fw_lab *l) {
    fw_lab_open(l);
    for (int six = 0; six < 2; six++) {
        fw_lab_vip(l, vips[six], 443, IPPROTO_TCP, 0);
        fw_lab_vip(l, vips[six], 53, IPPROTO_UDP, 0);
    }
    fw_lab_member(l, SLOT, "192.0.2.5", CB_FW_GUE);
    fw_lab_table(l, SLOT, CB_FW_NOBODY);
}

static int run(fw_lab *l, const fw_spec *s) {
    fw_frame f;
    fw_frame_make(&f, s);
    return fw_lab_run(l, &f);
}

static bool forwarded(fw_lab *l, const fw_spec *s) {
    return run(l, s) == XDP_TX && l->out.b[5] == SLOT && fw_lab_only(l, CB_FW_N_FORWARDED, -1);
}

/* Left to the kernel as it came. */
static bool untouched(fw_lab *l, const fw_frame *f) {
    return fw_lab_run(l, f) == XDP_PASS && l->out.n == f->n && !memcmp(l->out.b, f->b, f->n);
}

static bool passed(fw_lab *l, const fw_spec *s) {
    fw_frame f;
    fw_frame_make(&f, s);
    return untouched(l, &f) && fw_lab_only(l, CB_FW_N_PASSED, -1);
}

Test(forward_branches, an_interface_that_is_not_configured) {
    fw_lab l;
    fw_frame f;
    lab(&l);
    cr_assert_eq(bpf_map_delete_elem(bpf_map__fd(l.skel->maps.interfaces), &(uint32_t){1}), 0);
    const fw_spec s = to(false, IPPROTO_TCP, 443);
    fw_frame_make(&f, &s);
    cr_expect(untouched(&l, &f));
    cr_expect(fw_lab_only(&l, -1), "nothing is counted");
    fw_lab_interface(&l, CB_FW_UNDERLAY); /* another host handed it over (CB_FW_MAC), so it is not forwarded again */
    fw_lab_table(&l, CB_FW_NOBODY, CB_FW_NOBODY);
    cr_expect(untouched(&l, &f) && fw_lab_only(&l, CB_FW_N_LOCAL, -1));
    fw_lab_interface(&l, CB_FW_EDGE);
    fw_lab_table(&l, SLOT, CB_FW_NOBODY);
    cr_expect(forwarded(&l, &s));
    fw_lab_close(&l);
}

Test(forward_branches, what_is_not_ip_is_left_alone) {
    fw_lab l;
    fw_frame f;
    lab(&l);
    const fw_spec s = to(false, IPPROTO_TCP, 443);
    static const uint8_t types[][2] = {{8, 6}, {0x81, 0}, {0x88, 0xa8}, {0, 60}, {0x88, 0x47}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        fw_frame_make(&f, &s);
        memcpy(f.b + 12, types[i], 2);
        cr_expect(untouched(&l, &f));
        cr_expect(fw_lab_only(&l, CB_FW_N_PASSED, -1));
    }
    /* The address itself is cut off: nobody knows whose it is. The kernel's test run takes no frame below 14 bytes. */
    for (int six = 0; six < 2; six++) {
        const fw_spec cut = to(six, IPPROTO_TCP, 443);
        for (size_t n = ETH; n < (six ? ETH + 40U : ETH + 20U); n++) {
            fw_frame_make(&f, &cut);
            f.n = n;
            cr_expect(untouched(&l, &f), "%zu bytes", n);
            cr_expect(fw_lab_only(&l, CB_FW_N_PASSED, -1));
        }
    }
    fw_lab_close(&l);
}

Test(forward_branches, vips_by_address_port_and_protocol) {
    fw_lab l;
    lab(&l);
    for (int six = 0; six < 2; six++) {
        fw_spec s = to(six, IPPROTO_TCP, 443);
        cr_expect(forwarded(&l, &s));
        s = to(six, IPPROTO_UDP, 53);
        cr_expect(forwarded(&l, &s));
        s = to(six, IPPROTO_UDP, 443);
        cr_expect(passed(&l, &s), "443 is TCP's");
        s = to(six, IPPROTO_TCP, 444);
        cr_expect(passed(&l, &s));
        s = to(six, IPPROTO_TCP, 443);
        s.destination = strangers[six];
        cr_expect(passed(&l, &s));
        s = to(six, 47, 0);
        cr_expect(passed(&l, &s), "a protocol without ports");
        s = to(six, IPPROTO_SCTP, 443);
        cr_expect(passed(&l, &s));
    }
    fw_lab_close(&l);
}

Test(forward_branches, vips_of_all_ports) {
    fw_lab l;
    lab(&l);
    struct cb_fw_member m = fw_lab_member(&l, 6, "192.0.2.6", CB_FW_GUE);
    (void)m;
    for (int six = 0; six < 2; six++) {
        fw_spec s = to(six, IPPROTO_TCP, 8080);
        fw_lab_vip(&l, vips[six], 0, IPPROTO_TCP, 0);
        l.control.flags = 0;
        fw_lab_control(&l);
        cr_expect(passed(&l, &s), "the flag says whether to look");
        l.control.flags = CB_FW_ANY_PORT;
        fw_lab_control(&l);
        cr_expect(forwarded(&l, &s));
        s.protocol = IPPROTO_UDP;
        cr_expect(passed(&l, &s));
        const struct cb_fw_traffic before = fw_lab_traffic(&l, true, 443);
        s = to(six, IPPROTO_TCP, 443);
        cr_expect(forwarded(&l, &s));
        cr_expect_eq(fw_lab_traffic(&l, true, 443).packets, before.packets + 1, "a port of its own comes first");
    }
    cr_expect_eq(fw_lab_traffic(&l, true, 0).packets, 2U);
    fw_lab_close(&l);
}

static void prefix(fw_lab *l, const char *address, uint32_t bits, uint32_t index, uint32_t flags) {
    struct cb_fw_prefix key = {.length = bits};
    fw_address(address, key.address);
    cr_assert_eq(bpf_map_update_elem(bpf_map__fd(l->skel->maps.prefixes), &key,
                                     &(struct cb_fw_vip){.index = index, .flags = flags}, BPF_ANY),
                 0);
}

Test(forward_branches, vips_by_prefix) {
    fw_lab l;
    lab(&l);
    prefix(&l, "198.18.0.0", 96 + 15, 70, CB_FW_TCP);
    prefix(&l, "198.18.5.0", 96 + 24, 71, CB_FW_UDP);
    prefix(&l, "2001:db8:e::", 48, 72, CB_FW_TCP | CB_FW_UDP);
    fw_spec s = to(false, IPPROTO_TCP, 7);
    s.destination = "198.19.255.255";
    cr_expect(passed(&l, &s), "the flag says whether to look");
    l.control.flags = CB_FW_PREFIXES;
    fw_lab_control(&l);
    cr_expect(forwarded(&l, &s));
    cr_expect_eq(fw_lab_traffic(&l, true, 70).packets, 1U);
    s.protocol = IPPROTO_UDP;
    cr_expect(passed(&l, &s), "only TCP");
    s.destination = "198.18.5.77";
    cr_expect(forwarded(&l, &s));
    cr_expect_eq(fw_lab_traffic(&l, true, 71).packets, 1U, "the longest prefix");
    s.protocol = IPPROTO_TCP;
    cr_expect(passed(&l, &s), "the longest prefix decides, also against");
    s = to(true, IPPROTO_UDP, 9);
    s.destination = "2001:db8:e:ffff::1";
    cr_expect(forwarded(&l, &s));
    s.destination = "2001:db8:d:ffff::1";
    cr_expect(passed(&l, &s));
    s = to(false, IPPROTO_TCP, 7);
    s.destination = "198.20.0.0";
    cr_expect(passed(&l, &s));
    /* Headers that contradict themselves are dropped below a prefix, too. */
    fw_frame f;
    s.destination = "198.18.0.1";
    fw_frame_make(&f, &s);
    f.b[ETH + 20 + 12] = 0x10;
    cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_MALFORMED, -1));
    fw_lab_close(&l);
}

Test(forward_branches, delivered_here_when_this_host_is_the_owner) {
    fw_lab l;
    fw_frame f;
    lab(&l);
    fw_lab_table(&l, 0, CB_FW_NOBODY);
    for (int six = 0; six < 2; six++) {
        const fw_spec s = to(six, IPPROTO_TCP, 443);
        fw_frame_make(&f, &s);
        cr_expect(untouched(&l, &f));
        cr_expect(fw_lab_only(&l, CB_FW_N_LOCAL, -1));
    }
    cr_expect_eq(fw_lab_traffic(&l, true, 443).packets, 2U);
    cr_expect_eq(fw_lab_traffic(&l, false, 0).packets, 0U, "nothing was sent");

    /* The other owner of the bucket is dead: nobody is asked. */
    struct cb_fw_member m = fw_lab_member(&l, 6, "192.0.2.6", CB_FW_GUE);
    m.flags = CB_FW_HERE;
    fw_lab_member_put(&l, 6, &m);
    fw_lab_table(&l, 0, 6);
    const fw_spec s = to(false, IPPROTO_TCP, 443);
    fw_frame_make(&f, &s);
    cr_expect(untouched(&l, &f));
    cr_expect(fw_lab_only(&l, CB_FW_N_LOCAL, -1));

    /* Nor is a dead one named to who gets the packet. */
    fw_lab_table(&l, SLOT, 6);
    cr_expect(forwarded(&l, &s));
    cr_expect_eq(memcmp(l.out.b + ETH + 28 + 8, "\0\0\0\0", 4), 0);

    /* A host that only forwards owns nothing, whatever slot 0 is. */
    l.control.self = 0;
    fw_lab_control(&l);
    fw_lab_member(&l, 0, "192.0.2.77", CB_FW_GUE);
    fw_lab_table(&l, 0, CB_FW_NOBODY);
    cr_expect_eq(run(&l, &s), XDP_TX);
    cr_expect(fw_lab_only(&l, CB_FW_N_FORWARDED, -1));
    fw_lab_close(&l);
}

Test(forward_branches, nobody_and_nowhere) {
    fw_lab l;
    lab(&l);
    const fw_spec s = to(false, IPPROTO_TCP, 443);
    fw_lab_table(&l, CB_FW_NOBODY, CB_FW_NOBODY);
    cr_expect_eq(run(&l, &s), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_NO_OWNER, -1));

    fw_lab_table(&l, 77, CB_FW_NOBODY); /* a slot that nobody has */
    cr_expect_eq(run(&l, &s), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_NO_OWNER, -1));
    fw_lab_table(&l, CB_FW_MEMBERS, CB_FW_NOBODY); /* and one that there is not */
    cr_expect_eq(run(&l, &s), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_NO_OWNER, -1));

    struct cb_fw_member m = fw_lab_member(&l, SLOT, "192.0.2.5", CB_FW_GUE);
    m.ifindex = 0;
    fw_lab_member_put(&l, SLOT, &m);
    fw_lab_table(&l, SLOT, CB_FW_NOBODY);
    cr_expect_eq(run(&l, &s), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_NO_NEIGHBOUR, -1));
    cr_expect_eq(fw_lab_traffic(&l, false, SLOT).packets, 0U, "what was not sent is not counted as sent");

    /* A table of no buckets: no table yet. */
    l.control.buckets = 0;
    fw_lab_control(&l);
    fw_lab_table(&l, CB_FW_NOBODY, CB_FW_NOBODY);
    cr_expect_eq(run(&l, &s), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_NO_OWNER, -1));
    fw_lab_close(&l);
}

Test(forward_branches, by_another_interface) {
    fw_lab l;
    lab(&l);
    for (int form = CB_FW_GUE; form <= CB_FW_MAC; form++) {
        struct cb_fw_member m = fw_lab_member(&l, SLOT, "192.0.2.5", form);
        const fw_spec s = to(false, IPPROTO_TCP, 443);
        m.ifindex = 2;
        fw_lab_member_put(&l, SLOT, &m);
        cr_expect_eq(run(&l, &s), XDP_REDIRECT);
        cr_expect(fw_lab_only(&l, CB_FW_N_FORWARDED, -1));
    }
    const struct cb_fw_traffic sent = fw_lab_traffic(&l, false, SLOT);
    cr_expect_eq(sent.packets, 3U);
    cr_expect_eq(sent.bytes, 3U * (40 + 32));
    fw_lab_close(&l);
}

Test(forward_branches, to_another_station) {
    static const uint8_t stations[12] = {2, 0, 0, 0, 1, SLOT, 2, 0, 0, 0, 0, 9};
    fw_lab l;
    lab(&l);
    fw_lab_member(&l, SLOT, "192.0.2.5", CB_FW_MAC);
    for (int six = 0; six < 2; six++)
        for (int ttl = 1; ttl < 256; ttl++)
            for (uint16_t id = 0; id < (six ? 1 : 0xffff - 0x1800); id = (uint16_t)(id + 0x1800)) {
                fw_frame f;
                fw_spec s = to(six, IPPROTO_TCP, 443);
                s.ttl = (uint8_t)ttl;
                s.id = id; /* so that the checksum takes many values */
                fw_frame_make(&f, &s);
                fw_lab_run(&l, &f);
                if (ttl == 1) {
                    cr_expect_eq(l.verdict, XDP_DROP);
                    cr_expect(fw_lab_only(&l, CB_FW_N_LOOP, -1));
                    continue;
                }
                cr_assert_eq(l.verdict, XDP_TX);
                cr_assert(l.out.n == f.n && !memcmp(l.out.b, stations, sizeof stations));
                cr_assert_eq(l.out.b[ETH + (six ? 7 : 8)], ttl - 1);
                if (!six) cr_assert(fw_ip4_checksum_holds(l.out.b + ETH));
                cr_assert(fw_l4_checksum_holds(l.out.b + ETH));
                memcpy(f.b, stations, sizeof stations);
                f.b[ETH + (six ? 7 : 8)]--;
                if (!six) memcpy(f.b + ETH + 10, l.out.b + ETH + 10, 2);
                cr_assert_eq(memcmp(f.b, l.out.b, f.n), 0, "nothing else changed");
            }
    fw_lab_close(&l);
}

/* The largest that fits, and one byte more. */
Test(forward_branches, what_fits_between_hosts) {
    static const struct {
        const char *host;
        int form, more;
    } ways[] = {{"192.0.2.5", CB_FW_GUE, 52},
                {"192.0.2.5", CB_FW_IPIP, 20},
                {"2001:db8::5", CB_FW_GUE, 72},
                {"2001:db8::5", CB_FW_IPIP, 40}};
    static const uint8_t payload[1600];
    fw_lab l;
    lab(&l);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct cb_fw_member m = fw_lab_member(&l, SLOT, ways[i].host, ways[i].form);
        fw_spec s = to(false, IPPROTO_UDP, 53);
        m.mtu = 1400;
        fw_lab_member_put(&l, SLOT, &m);
        s.payload = payload;
        s.payload_bytes = 1400 - 28 - (size_t)ways[i].more;
        cr_expect(forwarded(&l, &s));
        cr_expect_eq(l.out.n, ETH + 1400U);
        s.payload_bytes++;
        cr_expect_eq(run(&l, &s), XDP_DROP); /* of UDP without DF nothing comes back */
        cr_expect(fw_lab_only(&l, CB_FW_N_TOO_BIG, -1));
    }
    fw_lab_close(&l);
}

Test(forward_branches, echo_is_answered_by_whoever_gets_it) {
    fw_lab l;
    fw_frame f;
    lab(&l);
    for (int six = 0; six < 2; six++) {
        fw_spec s = to(six, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP, 0);
        s.icmp_type = six ? 128 : 8;
        fw_frame_make(&f, &s);
        cr_expect(untouched(&l, &f));
        cr_expect(fw_lab_only(&l, CB_FW_N_LOCAL, -1));
        s.destination = strangers[six];
        cr_expect(passed(&l, &s));
    }
    fw_lab_close(&l);
}

/* ---- headers ---- */

Test(forward_branches, options_and_extension_headers_are_walked_over) {
    static const uint8_t nops[40] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    static const uint8_t chain[48] = {[0] = 43,           [2] = 1,  [3] = 4,  /* hop by hop, padded */
                                      [8] = 60,           [9] = 2,            /* routing, 24 bytes */
                                      [32] = 44,          [34] = 1, [35] = 4, /* destination options */
                                      [40] = IPPROTO_TCP, [47] = 9};          /* an atomic fragment */
    fw_lab l;
    lab(&l);
    for (size_t n = 4; n <= sizeof nops; n += 4) {
        fw_spec s = to(false, IPPROTO_TCP, 443);
        s.options = nops;
        s.options_bytes = n;
        const uint64_t hash = fw_lab_tuple(&l, &s, SLOT, CB_FW_NOBODY);
        cr_expect(forwarded(&l, &s));
        cr_expect_eq(ntohs(*(uint16_t *)(void *)(l.out.b + ETH + 20)), 49152 + (hash & 16383), "the tuple was found");
    }
    fw_spec s = to(true, IPPROTO_TCP, 443);
    s.options = chain;
    s.options_bytes = sizeof chain;
    const uint64_t hash = fw_lab_tuple(&l, &s, SLOT, CB_FW_NOBODY);
    cr_expect(forwarded(&l, &s));
    cr_expect_eq(ntohs(*(uint16_t *)(void *)(l.out.b + ETH + 20)), 49152 + (hash & 16383), "the tuple was found");
    fw_lab_close(&l);
}

static bool malformed(fw_lab *l, const fw_frame *f) {
    return fw_lab_run(l, f) == XDP_DROP && fw_lab_only(l, CB_FW_N_MALFORMED, -1);
}

/* Octets that are changed in a good packet. */
typedef struct damage {
    const char *what;
    uint8_t protocol;
    bool six;
    int n;
    struct {
        int at, to;
    } octet[3];
} damage;

static const damage damages[] = {
    {"IP version 5", IPPROTO_TCP, false, 1, {{0, 0x55}}},
    {"IP version 6 in a frame of IPv4", IPPROTO_TCP, false, 1, {{0, 0x65}}},
    {"an IP header of 16 bytes", IPPROTO_TCP, false, 1, {{0, 0x44}}},
    {"an IP header longer than the packet", IPPROTO_UDP, false, 3, {{0, 0x4f}, {2, 0}, {3, 59}}},
    {"an IP packet longer than the frame", IPPROTO_TCP, false, 2, {{2, 0}, {3, 73}}},
    {"an IP packet much longer than the frame", IPPROTO_TCP, false, 1, {{2, 0xff}}},
    {"an IP packet shorter than its header", IPPROTO_TCP, false, 2, {{2, 0}, {3, 19}}},
    {"an IP packet that ends in the TCP header", IPPROTO_TCP, false, 2, {{2, 0}, {3, 39}}},
    {"a TCP header of 16 bytes", IPPROTO_TCP, false, 1, {{20 + 12, 0x40}}},
    {"a TCP header longer than the packet", IPPROTO_TCP, false, 3, {{20 + 12, 0xf0}, {2, 0}, {3, 79}}},
    {"an IP packet that ends in the UDP header", IPPROTO_UDP, false, 2, {{2, 0}, {3, 27}}},
    {"a UDP length below its header", IPPROTO_UDP, false, 2, {{20 + 4, 0}, {20 + 5, 7}}},
    {"a UDP length of zero", IPPROTO_UDP, false, 2, {{20 + 4, 0}, {20 + 5, 0}}},
    {"a UDP length beyond the packet", IPPROTO_UDP, false, 2, {{20 + 4, 0}, {20 + 5, 41}}},
    {"an IP packet that ends in the ICMP header", IPPROTO_ICMP, false, 2, {{2, 0}, {3, 27}}},
    {"a piece whose length is no multiple of eight", IPPROTO_TCP, false, 3, {{6, 0x20}, {2, 0}, {3, 71}}},
    {"a piece that ends beyond 65,535", IPPROTO_TCP, false, 2, {{6, 0x1f}, {7, 0xff}}},
    {"a first piece without the whole TCP header", IPPROTO_TCP, false, 3, {{6, 0x20}, {2, 0}, {3, 36}}},
    {"IP version 4 in a frame of IPv6", IPPROTO_TCP, true, 1, {{0, 0x40}}},
    {"an IPv6 packet longer than the frame", IPPROTO_TCP, true, 2, {{4, 0}, {5, 53}}},
    {"an IPv6 packet without its TCP header", IPPROTO_TCP, true, 2, {{4, 0}, {5, 0}}},
    {"an IPv6 packet that ends in the UDP header", IPPROTO_UDP, true, 2, {{4, 0}, {5, 7}}},
    {"a TCP header of 12 bytes, IPv6", IPPROTO_TCP, true, 1, {{40 + 12, 0x30}}},
    {"an extension header longer than the packet", IPPROTO_TCP, true, 2, {{6, 60}, {40 + 1, 6}}},
    {"hop-by-hop options behind destination options", IPPROTO_TCP, true, 3, {{6, 60}, {40, 0}, {41, 0}}},
};

Test(forward_branches, headers_that_contradict_themselves) {
    fw_lab l;
    lab(&l);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        const damage *d = &damages[i];
        fw_spec s = to(d->six, d->protocol, d->protocol == IPPROTO_TCP ? 443 : 53);
        for (int other = 0; other < 2; other++) {
            fw_frame f;
            if (other) s.destination = strangers[d->six];
            fw_frame_make(&f, &s);
            for (int k = 0; k < d->n; k++)
                f.b[ETH + d->octet[k].at] = (uint8_t)d->octet[k].to;
            if (other) {
                cr_expect(untouched(&l, &f), "%s: of nobody's concern", d->what);
                cr_expect(fw_lab_only(&l, CB_FW_N_PASSED, -1), "%s", d->what);
            } else {
                cr_expect(malformed(&l, &f), "%s", d->what);
            }
        }
    }
    fw_lab_close(&l);
}

/* A frame that ends anywhere: what the header says does not fit. */
Test(forward_branches, frames_cut_short) {
    fw_lab l;
    lab(&l);
    for (int six = 0; six < 2; six++)
        for (int udp = 0; udp < 2; udp++) {
            const fw_spec s = udp ? to(six, IPPROTO_UDP, 53) : to(six, IPPROTO_TCP, 443);
            fw_frame f;
            fw_frame_make(&f, &s);
            const size_t whole = f.n;
            for (f.n = six ? ETH + 40 : ETH + 20; f.n < whole; f.n++)
                cr_expect(malformed(&l, &f), "%zu of %zu bytes", f.n, whole);
            cr_expect_eq(fw_lab_run(&l, &f), XDP_TX);
            /* Behind the packet the frame may have more (Ethernet's padding): it is no part of it. */
            f.n += 20;
            cr_expect_eq(fw_lab_run(&l, &f), XDP_TX);
        }
    fw_lab_close(&l);
}

Test(forward_branches, chains_of_extension_headers_are_bounded) {
    uint8_t chain[2056];
    fw_lab l;
    fw_frame f;
    lab(&l);
    for (int n = 1; n < 12; n++) {
        memset(chain, 0, sizeof chain);
        for (int i = 0; i < n; i++)
            chain[8 * i] = i + 1 < n ? 60 : IPPROTO_TCP;
        fw_spec s = to(true, IPPROTO_TCP, 443);
        s.options = chain;
        s.options_bytes = (size_t)n * 8;
        s.extension = 60;
        fw_frame_make(&f, &s);
        cr_expect(n <= 6 ? fw_lab_run(&l, &f) == XDP_TX : malformed(&l, &f), "%d headers", n);
    }
    for (int bytes = 256; bytes <= 2048; bytes += 256) { /* two long ones */
        memset(chain, 0, sizeof chain);
        chain[0] = 60;
        chain[1] = (uint8_t)(bytes / 2 / 8 - 1);
        chain[bytes / 2] = IPPROTO_TCP;
        chain[bytes / 2 + 1] = chain[1];
        fw_spec s = to(true, IPPROTO_TCP, 443);
        s.options = chain;
        s.options_bytes = (size_t)bytes;
        s.extension = 60;
        struct cb_fw_member m = fw_lab_member(&l, SLOT, "192.0.2.5", CB_FW_GUE);
        m.mtu = 9000;
        fw_lab_member_put(&l, SLOT, &m);
        fw_frame_make(&f, &s);
        cr_expect(bytes <= 512 ? fw_lab_run(&l, &f) == XDP_TX : malformed(&l, &f), "%d bytes", bytes);
    }
    /* Two fragment headers in one packet. */
    memset(chain, 0, 16);
    chain[0] = 44;
    chain[8] = IPPROTO_TCP;
    fw_spec s = to(true, IPPROTO_TCP, 443);
    s.options = chain;
    s.options_bytes = 16;
    s.extension = 44;
    fw_frame_make(&f, &s);
    cr_expect(malformed(&l, &f));
    fw_lab_close(&l);
}

/* Whoever delivers it finds that out: nothing here depends on it. */
Test(forward_branches, wrong_checksums_travel) {
    fw_lab l;
    fw_frame f;
    lab(&l);
    const fw_spec s = to(false, IPPROTO_TCP, 443);
    fw_frame_make(&f, &s);
    f.b[ETH + 10] ^= 0xff;
    f.b[ETH + 20 + 16] ^= 0xff;
    cr_expect_eq(fw_lab_run(&l, &f), XDP_TX);
    cr_expect(fw_ip4_checksum_holds(l.out.b + ETH), "the outer header's is its own");
    cr_expect_eq(memcmp(l.out.b + ETH + 52, f.b + ETH, f.n - ETH), 0);
    fw_lab_close(&l);
}

Test(forward_branches, the_current_key_makes_the_tag) {
    fw_lab l;
    uint8_t tags[CB_FW_TAG_KEYS][8];
    lab(&l);
    const fw_spec s = to(false, IPPROTO_TCP, 443);
    for (uint32_t k = 0; k < CB_FW_TAG_KEYS; k++) {
        l.control.tag_current = k;
        l.control.tag_key[k][0] = 0xabcdef + k;
        fw_lab_control(&l);
        cr_assert(forwarded(&l, &s));
        const uint8_t *gue = l.out.b + ETH + 28;
        cr_expect_eq(gue[7], k);
        memcpy(tags[k], gue + 16, 8);
        for (uint32_t i = 0; i < k; i++)
            cr_expect_neq(memcmp(tags[i], tags[k], 8), 0);
    }
    fw_lab_close(&l);
}

/* What a receive queue is chosen by differs between flows, and stays within one. */
Test(forward_branches, source_ports_spread_over_flows) {
    fw_lab l;
    bool seen[65536] = {false};
    int different = 0;
    lab(&l);
    for (uint16_t i = 0; i < 1000; i++) {
        fw_spec s = to(false, IPPROTO_TCP, 443);
        s.sport = (uint16_t)(1024 + i);
        cr_assert(forwarded(&l, &s));
        const uint16_t port = ntohs(*(uint16_t *)(void *)(l.out.b + ETH + 20));
        cr_assert(port >= 49152);
        different += !seen[port];
        seen[port] = true;
        s.payload_bytes = 1;
        cr_assert(forwarded(&l, &s));
        cr_assert_eq(ntohs(*(uint16_t *)(void *)(l.out.b + ETH + 20)), port);
    }
    cr_expect(different > 900, "%d different ones for 1,000 flows", different);
    fw_lab_close(&l);
}

#endif

/* Fragments go where their first one went (docs/design/datapath.md). */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(forward_fragment, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "forward.skel.h"
#include "support/fw_netns.h"
#include "support/fw_tunnel.h"
#include <bpf/bpf.h>
#include <linux/bpf.h>

enum { ETH = 14, PEER = 5, OTHER = 6, FOUND = 7, SYN = 2, ACK = 16 };

static const char *const clients[] = {"198.51.100.7", "2001:db8:c::7"};
static const char *const vips[] = {"203.0.113.1", "2001:db8:f::1"};
static const uint8_t text[64] = "a part of something larger";

static void open_lab(fw_lab *l) {
    fw_lab_open(l);
    for (int six = 0; six < 2; six++) {
        fw_lab_vip(l, vips[six], 443, IPPROTO_TCP, 0);
        fw_lab_vip(l, vips[six], 53, IPPROTO_UDP, 0);
    }
    fw_lab_member(l, PEER, "192.0.2.5", CB_FW_GUE);
    fw_lab_member(l, OTHER, "192.0.2.6", CB_FW_GUE);
    fw_lab_member(l, FOUND, "192.0.2.7", CB_FW_GUE);
    fw_lab_table(l, PEER, CB_FW_NOBODY);
}

static fw_spec piece(bool six, uint8_t protocol, uint32_t id, uint16_t offset, bool more) {
    return (fw_spec){.source = clients[six],
                     .destination = vips[six],
                     .sport = 40000,
                     .dport = protocol == IPPROTO_TCP ? 443 : 53,
                     .protocol = protocol,
                     .flags = ACK,
                     .id = id,
                     .offset = offset,
                     .more = more,
                     .payload = text,
                     .payload_bytes = more && !offset && protocol == IPPROTO_TCP ? 60 : 64};
}

static int run(fw_lab *l, const fw_spec *s) {
    fw_frame f;
    fw_frame_make(&f, s);
    return fw_lab_run(l, &f);
}

static int run_in(fw_lab *l, const fw_tunnel *t, const fw_spec *s) {
    fw_frame f;
    fw_tunnel_make(&l->control, &f, t, s);
    return fw_lab_run(l, &f);
}

Test(forward_fragment, later_ones_follow_the_first) {
    fw_lab l;
    fw_sent sent = {0};
    open_lab(&l);
    for (int six = 0; six < 2; six++)
        for (int tcp = 0; tcp < 2; tcp++) {
            const uint8_t protocol = tcp ? IPPROTO_TCP : IPPROTO_UDP;
            const uint32_t id = (six ? 0x12340000U : 0x100U) + (uint32_t)tcp;
            fw_spec first = piece(six, protocol, id, 0, true), later = piece(six, protocol, id, 72, true);
            cr_expect_eq(run(&l, &later), XDP_DROP, "before the first");
            cr_expect(fw_lab_only(&l, CB_FW_N_FRAGMENT_UNKNOWN, -1));
            fw_lab_tuple(&l, &first, FOUND, OTHER);
            cr_expect_eq(run(&l, &first), XDP_TX);
            cr_expect(fw_lab_only(&l, CB_FW_N_FORWARDED, -1));
            cr_expect_eq(l.out.b[5], FOUND);
            for (int i = 0; i < 3; i++) {
                later.offset = (uint16_t)(72 + 64 * i);
                later.more = i < 2;
                cr_expect_eq(run(&l, &later), XDP_TX);
                cr_expect(fw_lab_only(&l, CB_FW_N_FRAGMENTS, -1));
                cr_expect_eq(l.out.b[5], FOUND);
                cr_assert(fw_tunnel_read(&l.control, &l.out, &sent));
                cr_expect(sent.hop == 1 && sent.previous == 100 + OTHER && sent.flags == 0);
            }
            later.id++; /* of another datagram, client, VIP, protocol */
            cr_expect_eq(run(&l, &later), XDP_DROP);
            cr_expect(fw_lab_only(&l, CB_FW_N_FRAGMENT_UNKNOWN, -1));
            later.id--;
            later.source = six ? "2001:db8:c::8" : "198.51.100.8";
            cr_expect_eq(run(&l, &later), XDP_DROP);
            if (six) continue;
            later = piece(six, tcp ? IPPROTO_UDP : IPPROTO_TCP, id, 128, false);
            cr_expect_eq(run(&l, &later), XDP_DROP);
            cr_expect(fw_lab_only(&l, CB_FW_N_FRAGMENT_UNKNOWN, -1));
        }
    fw_spec elsewhere = piece(false, IPPROTO_UDP, 9, 64, false);
    elsewhere.destination = "203.0.113.77"; /* no VIP */
    cr_expect_eq(run(&l, &elsewhere), XDP_PASS);
    cr_expect(fw_lab_only(&l, CB_FW_N_PASSED, -1));
    fw_lab_close(&l);
}

Test(forward_fragment, they_are_forgotten_after_half_a_minute) {
    fw_lab l;
    struct cb_fw_fragment key = {0}, next;
    struct cb_fw_fragment_way way;
    open_lab(&l);
    const fw_spec first = piece(false, IPPROTO_UDP, 5, 0, true), later = piece(false, IPPROTO_UDP, 5, 72, false);
    const int fd = bpf_map__fd(l.skel->maps.fragments);
    cr_expect_eq(run(&l, &first), XDP_TX);
    cr_assert_eq(bpf_map_get_next_key(fd, NULL, &key), 0);
    cr_expect_neq(bpf_map_get_next_key(fd, &key, &next), 0, "one datagram, one entry");
    cr_assert_eq(bpf_map_lookup_elem(fd, &key, &way), 0);
    way.at -= 29000000000ULL;
    bpf_map_update_elem(fd, &key, &way, BPF_ANY);
    cr_expect_eq(run(&l, &later), XDP_TX);
    way.at -= 1000000001ULL;
    bpf_map_update_elem(fd, &key, &way, BPF_ANY);
    cr_expect_eq(run(&l, &later), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_FRAGMENT_UNKNOWN, -1));
    fw_lab_close(&l);
}

/* What the first one did at the owner, the others do. */
Test(forward_fragment, they_stay_or_go_on_with_the_first) {
    fw_lab l;
    fw_netns ns;
    fw_sent sent = {0};
    const fw_tunnel t = {.from = "192.0.2.5", .to = "192.0.2.1", .hop = 1, .key = 1, .previous = 100 + OTHER};
    open_lab(&l);
    fw_netns_enter(&ns);
    fw_lab_table(&l, 0, OTHER);
    for (int six = 0; six < 2; six++) {
        fw_netns_address(vips[six]);
        for (int listens = 0; listens < 2; listens++)
            for (int gue = 0; gue < 2; gue++) {
                const uint32_t id = (uint32_t)(1000 + 100 * six + 10 * listens + gue);
                fw_spec first = piece(six, IPPROTO_TCP, id, 0, true), later = piece(six, IPPROTO_TCP, id, 80, false);
                const int fd = listens ? fw_netns_socket(vips[six], SOCK_STREAM, 443) : -1;
                if (listens) listen(fd, 4);
                first.flags = SYN;
                const int want = listens ? XDP_PASS : XDP_TX;
                cr_expect_eq(gue ? run_in(&l, &t, &first) : run(&l, &first), want);
                cr_expect_eq(gue ? run_in(&l, &t, &later) : run(&l, &later), want);
                cr_expect_eq(fw_lab_counted(&l, CB_FW_N_FRAGMENTS), 1U);
                if (want == XDP_TX) {
                    cr_assert(fw_tunnel_read(&l.control, &l.out, &sent));
                    cr_expect(l.out.b[5] == OTHER && sent.previous == 0);
                    cr_expect(gue ? sent.hop == 2 && sent.flags == CB_FW_FINAL : sent.hop == 1);
                }
                if (fd >= 0) close(fd);
            }
    }
    /* Overtaken between hosts: who was chosen keeps it. */
    const fw_spec later = piece(false, IPPROTO_TCP, 77, 80, false);
    cr_expect_eq(run_in(&l, &t, &later), XDP_PASS);
    cr_expect(fw_lab_only(&l, CB_FW_N_DECAPSULATED, -1));
    fw_tunnel final = t;
    final.flags = CB_FW_FINAL;
    cr_expect_eq(run_in(&l, &final, &later), XDP_PASS);
    fw_netns_leave(&ns);
    fw_lab_close(&l);
}

Test(forward_fragment, atomic_fragments_are_whole_packets) {
    static const uint8_t atomic[8] = {IPPROTO_UDP, 0, 0, 0, 0, 0, 0, 1};
    fw_lab l;
    open_lab(&l);
    fw_spec s = piece(true, IPPROTO_UDP, 0, 0, false);
    s.options = atomic;
    s.options_bytes = sizeof atomic;
    s.extension = 44;
    fw_lab_tuple(&l, &s, FOUND, CB_FW_NOBODY);
    cr_expect_eq(run(&l, &s), XDP_TX);
    cr_expect(fw_lab_only(&l, CB_FW_N_FORWARDED, -1));
    cr_expect_eq(l.out.b[5], FOUND);
    struct cb_fw_fragment key;
    cr_expect_neq(bpf_map_get_next_key(bpf_map__fd(l.skel->maps.fragments), NULL, &key), 0, "nothing to remember");
    fw_lab_close(&l);
}

/* Whose ports or flags another piece could overwrite (RFC 1858, RFC 3128), or that cannot be pieces. */
Test(forward_fragment, tiny_and_overlapping_ones_are_refused) {
    fw_lab l;
    open_lab(&l);
    for (int six = 0; six < 2; six++) {
        fw_spec s = piece(six, IPPROTO_TCP, 3, 0, true);
        cr_expect_eq(run(&l, &s), XDP_TX);
        s = piece(six, IPPROTO_TCP, 3, 8, false); /* over the flags */
        cr_expect_eq(run(&l, &s), XDP_DROP);
        cr_expect(fw_lab_only(&l, CB_FW_N_MALFORMED, -1));
        s = piece(six, IPPROTO_UDP, 4, 0, true);
        s.payload_bytes = 16;
        cr_expect_eq(run(&l, &s), XDP_TX);
        s = piece(six, IPPROTO_UDP, 4, 24, true); /* not a multiple of eight, and more to come */
        s.payload_bytes = 12;
        cr_expect_eq(run(&l, &s), XDP_DROP);
        cr_expect(fw_lab_only(&l, CB_FW_N_MALFORMED, -1));
        s = piece(six, IPPROTO_UDP, 4, 65528, false); /* beyond the end of any datagram */
        cr_expect_eq(run(&l, &s), XDP_DROP);
        cr_expect(fw_lab_only(&l, CB_FW_N_MALFORMED, -1));
        fw_frame f;
        s = piece(six, IPPROTO_TCP, 5, 0, true); /* eight bytes of TCP */
        fw_frame_make(&f, &s);
        const size_t before = six ? 48 : 20;
        f.n = ETH + before + 8;
        f.b[ETH + (six ? 5 : 3)] = (uint8_t)(six ? 16 : 28);
        f.b[ETH + (six ? 4 : 2)] = 0;
        cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
        cr_expect(fw_lab_only(&l, CB_FW_N_MALFORMED, -1));
    }
    fw_lab_close(&l);
}

/* A flood of first fragments: the memory is bounded, and what it holds is right. */
Test(forward_fragment, a_flood_does_not_grow) {
    fw_lab l;
    struct cb_fw_fragment key, last;
    unsigned n = 0;
    open_lab(&l);
    const int fd = bpf_map__fd(l.skel->maps.fragments);
    const struct cb_fw_fragment_way way = {.slot = PEER, .second = CB_FW_NOBODY, .at = 1};
    for (uint32_t i = 0; i < 3 * CB_FW_FRAGMENTED; i++) {
        const struct cb_fw_fragment k = {.id = i};
        bpf_map_update_elem(fd, &k, &way, BPF_ANY);
    }
    const fw_spec first = piece(false, IPPROTO_UDP, 6, 0, true), later = piece(false, IPPROTO_UDP, 6, 72, false);
    cr_expect_eq(run(&l, &first), XDP_TX);
    cr_expect_eq(run(&l, &later), XDP_TX);
    for (int rc = bpf_map_get_next_key(fd, NULL, &key); rc == 0; rc = bpf_map_get_next_key(fd, &last, &key)) {
        last = key;
        n++;
    }
    cr_expect_leq(n, (unsigned)CB_FW_FRAGMENTED);
    fw_lab_close(&l);
}

#endif

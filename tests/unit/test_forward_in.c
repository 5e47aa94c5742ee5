/* What hosts take out of each other's encapsulations, and what they refuse (docs/design/datapath.md). */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(forward_in, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "forward.skel.h"
#include "support/fw_tunnel.h"
#include <bpf/bpf.h>
#include <linux/bpf.h>

enum { ETH = 14, PEER = 5, OTHER = 6 };

static const char *const clients[] = {"198.51.100.7", "2001:db8:c::7"};
static const char *const vips[] = {"203.0.113.1", "2001:db8:f::1"};
static const char *const peers[] = {"192.0.2.5", "2001:db8::5"};
static const char *const own[] = {"192.0.2.1", "2001:db8::1"};
static const uint8_t text[] = "something for the VIP";

static fw_spec to_vip(bool six, uint8_t protocol, uint16_t port) {
    return (fw_spec){.source = clients[six],
                     .destination = vips[six],
                     .sport = 40000,
                     .dport = port,
                     .protocol = protocol,
                     .payload = text,
                     .payload_bytes = sizeof text};
}

static fw_tunnel from_peer(bool six, int form) {
    return (fw_tunnel){.from = peers[six], .to = own[six], .form = form, .hop = 1, .key = 1};
}

static void open_lab(fw_lab *l) {
    fw_lab_open(l);
    for (int six = 0; six < 2; six++) {
        fw_lab_vip(l, vips[six], 443, IPPROTO_TCP, 0);
        fw_lab_vip(l, vips[six], 53, IPPROTO_UDP, 0);
        fw_lab_vip(l, vips[six], 443, IPPROTO_UDP, CB_FW_QUIC);
        fw_lab_member(l, PEER, peers[six], CB_FW_GUE); /* a member has one address; both are known */
    }
    fw_lab_member(l, OTHER, "192.0.2.6", CB_FW_GUE);
}

/* The frame comes out as this packet, with the Ethernet header that it came with. */
static void is_taken(fw_lab *l, const fw_frame *f, const uint8_t *packet, size_t n) {
    cr_assert_eq(fw_lab_run(l, f), XDP_PASS);
    cr_assert(fw_lab_only(l, CB_FW_N_DECAPSULATED, -1));
    cr_assert_eq(l->out.n, ETH + n);
    cr_assert_eq(memcmp(l->out.b, f->b, 12), 0);
    cr_assert(l->out.b[12] == (packet[0] >> 4 == 4 ? 8 : 0x86) && l->out.b[13] == (packet[0] >> 4 == 4 ? 0 : 0xdd));
    cr_assert_eq(memcmp(l->out.b + ETH, packet, n), 0);
}

Test(forward_in, gue_and_ipip_in_all_families) {
    fw_lab l;
    fw_frame f;
    uint8_t packet[FW_FRAME_MAX];
    open_lab(&l);
    for (int form = CB_FW_GUE; form <= CB_FW_IPIP; form++)
        for (int outer6 = 0; outer6 < 2; outer6++)
            for (int inner6 = 0; inner6 < 2; inner6++) {
                const fw_tunnel t = from_peer(outer6, form);
                fw_spec s = to_vip(inner6, IPPROTO_TCP, 443);
                size_t n = fw_packet_make(packet, &s);
                fw_tunnel_make(&l.control, &f, &t, &s);
                is_taken(&l, &f, packet, n);
                s = to_vip(inner6, IPPROTO_UDP, 443);
                n = fw_packet_make(packet, &s);
                fw_tunnel_make(&l.control, &f, &t, &s);
                is_taken(&l, &f, packet, n);
                s = to_vip(inner6, inner6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP, 0);
                s.icmp_type = inner6 ? 128 : 8;
                n = fw_packet_make(packet, &s);
                fw_tunnel_make(&l.control, &f, &t, &s);
                is_taken(&l, &f, packet, n);
                f.n += 9; /* padding of short frames */
                cr_assert_eq(fw_lab_run(&l, &f), XDP_PASS);
                cr_assert_eq(l.out.n, ETH + n + 9);
            }
    fw_lab_close(&l);
}

Test(forward_in, all_keys_are_taken_and_no_others) {
    fw_lab l;
    fw_frame f;
    open_lab(&l);
    const fw_spec s = to_vip(false, IPPROTO_TCP, 443);
    for (uint8_t k = 0; k < CB_FW_TAG_KEYS; k++) {
        l.control.tag_key[k][0] = 17u + k;
        l.control.tag_key[k][1] = k == 2 ? 0 : 99;
    }
    fw_lab_control(&l);
    for (uint8_t k = 0; k < CB_FW_TAG_KEYS; k++) {
        fw_tunnel t = from_peer(false, CB_FW_GUE);
        t.key = k;
        fw_tunnel_make(&l.control, &f, &t, &s);
        cr_assert_eq(fw_lab_run(&l, &f), XDP_PASS);
        const struct cb_fw_control was = l.control;
        l.control.tag_key[k][0] = l.control.tag_key[k][1] = 0; /* forgotten */
        fw_lab_control(&l);
        fw_tunnel_make(&l.control, &f, &t, &s); /* signed with the zero key, which nobody has */
        cr_assert_eq(fw_lab_run(&l, &f), XDP_DROP);
        cr_assert(fw_lab_only(&l, CB_FW_N_BAD_TAG, -1));
        l.control = was;
        fw_lab_control(&l);
    }
    fw_lab_close(&l);
}

/* Every byte that the tag is made of. */
Test(forward_in, nothing_under_the_tag_can_be_changed) {
    fw_lab l;
    fw_frame f;
    open_lab(&l);
    for (int inner6 = 0; inner6 < 2; inner6++) {
        const fw_spec s = to_vip(inner6, IPPROTO_TCP, 443);
        const fw_tunnel t = from_peer(false, CB_FW_GUE);
        const size_t gue = ETH + 20 + 8, ip = gue + CB_FW_GUE_BYTES;
        fw_tunnel_make(&l.control, &f, &t, &s);
        size_t at[4 + 4 + 4 + 8 + 8], n = 0;
        for (size_t i = 4; i < CB_FW_GUE_BYTES; i++)
            if (i < 12 || i >= 16) at[n++] = gue + i; /* between them the version, which decides nothing */
        for (size_t i = 0; i < 4; i++) {
            at[n++] = ip + (inner6 ? 20 : 12) + i;
            at[n++] = ip + (inner6 ? 36 : 16) + i;
        }
        for (size_t i = 0; i < n; i++) {
            f.b[at[i]] ^= 1;
            cr_assert_eq(fw_lab_run(&l, &f), XDP_DROP, "byte %zu", at[i]);
            cr_assert(fw_lab_only(&l, CB_FW_N_BAD_TAG, -1), "byte %zu", at[i]);
            f.b[at[i]] ^= 1;
        }
        cr_assert_eq(fw_lab_run(&l, &f), XDP_PASS);
    }
    fw_lab_close(&l);
}

/* ---- what is refused: a packet that would be taken, and what is done to it ---- */

enum { GUE4 = ETH + 20 + 8, INNER4 = GUE4 + CB_FW_GUE_BYTES };

typedef struct refusal {
    const char *what;
    int form;
    enum cb_fw_counter counter;
    void (*change)(fw_lab *l, fw_tunnel *t, fw_spec *s);
    void (*damage)(const fw_lab *l, fw_frame *f);
} refusal;

static void resign(const fw_lab *l, fw_frame *f) {
    fw_tunnel_sign(&l->control, f->b + GUE4);
}

static void udp_shorter(const fw_lab *l, fw_frame *f) {
    (void)l;
    f->b[GUE4 - 3]--;
}
static void variant_1(const fw_lab *l, fw_frame *f) {
    f->b[GUE4] |= 0x40;
    resign(l, f);
}
static void control_bit(const fw_lab *l, fw_frame *f) {
    f->b[GUE4] |= 0x20;
    resign(l, f);
}
static void fewer_words(const fw_lab *l, fw_frame *f) {
    f->b[GUE4]--;
    resign(l, f);
}
static void more_words(const fw_lab *l, fw_frame *f) {
    f->b[GUE4]++;
    resign(l, f);
}
static void other_protocol(const fw_lab *l, fw_frame *f) {
    f->b[GUE4 + 1] = IPPROTO_TCP;
    resign(l, f);
}
static void other_family(const fw_lab *l, fw_frame *f) {
    f->b[GUE4 + 1] = IPPROTO_IPV6; /* of an IPv4 packet */
    resign(l, f);
}
static void more_flags(const fw_lab *l, fw_frame *f) {
    f->b[GUE4 + 2] = 0x80;
    resign(l, f);
}
static void no_private(const fw_lab *l, fw_frame *f) {
    f->b[GUE4 + 3] = 0;
    resign(l, f);
}
static void other_private(const fw_lab *l, fw_frame *f) {
    f->b[GUE4 + 4] = 0xcc;
    resign(l, f);
}
static void key_4(const fw_lab *l, fw_frame *f) {
    f->b[GUE4 + 7] = 4;
    resign(l, f);
}
static void inner_longer(const fw_lab *l, fw_frame *f) {
    f->b[INNER4 + 3]++;
    resign(l, f);
}
static void inner_shorter(const fw_lab *l, fw_frame *f) {
    f->b[INNER4 + 3]--;
    resign(l, f);
}
static void inner_version(const fw_lab *l, fw_frame *f) {
    f->b[INNER4] = 0x55;
    resign(l, f);
}
static void inner_ihl(const fw_lab *l, fw_frame *f) {
    f->b[INNER4] = 0x44;
    resign(l, f);
}
static void too_short(const fw_lab *l, fw_frame *f) { /* headers say so too */
    const size_t cut = f->n - (INNER4 + 19);
    f->n -= cut;
    f->b[ETH + 3] = (uint8_t)(f->n - ETH);
    f->b[GUE4 - 3] = (uint8_t)(f->n - ETH - 20);
    f->b[ETH + 2] = f->b[GUE4 - 4] = 0;
    (void)l;
}
static void ipip_short(const fw_lab *l, fw_frame *f) {
    f->n = ETH + 20 + 19;
    f->b[ETH + 2] = 0;
    f->b[ETH + 3] = 39;
    (void)l;
}
static void hop_0(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)s;
    t->hop = 0;
}
static void hop_4(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)s;
    t->hop = CB_FW_HOPS + 1;
}
static void hop_255(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)s;
    t->hop = 255;
    t->flags = CB_FW_FINAL;
}
static void on_the_edge(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)t;
    (void)s;
    fw_lab_interface(l, CB_FW_EDGE);
}
static void on_no_side(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)t;
    (void)s;
    fw_lab_interface(l, 0);
}
static void other_vip(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)t;
    s->destination = "203.0.113.2";
}
static void other_port(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)t;
    s->dport = 22;
}
static void to_own(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)t;
    s->destination = own[0];
}
static void gue_to_own(fw_lab *l, fw_tunnel *t, fw_spec *s) { /* a Russian doll */
    (void)t;
    s->destination = own[0];
    s->protocol = IPPROTO_UDP;
    s->dport = ntohs(l->control.gue_port);
}
static void ipip_inside(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)t;
    s->protocol = IPPROTO_IPIP;
}
static void ip6_inside(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)t;
    s->protocol = IPPROTO_IPV6;
}
static void gre_inside(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)t;
    s->protocol = IPPROTO_GRE;
}
static void from_stranger(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)s;
    t->from = "192.0.2.77";
}
static void from_self(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)s;
    t->from = own[0];
}
static void icmp_elsewhere(fw_lab *l, fw_tunnel *t, fw_spec *s) {
    (void)l;
    (void)t;
    s->protocol = IPPROTO_ICMP;
    s->icmp_type = 8;
    s->destination = own[0];
}
static void congested(fw_lab *l, fw_tunnel *t, fw_spec *s) { /* marked, although it could not be */
    (void)l;
    (void)s;
    t->tos = 3;
}

static const refusal refusals[] = {
    {"a UDP length below", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, udp_shorter},
    {"variant 1", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, variant_1},
    {"a control message", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, control_bit},
    {"four words", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, fewer_words},
    {"six words", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, more_words},
    {"a TCP header inside", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, other_protocol},
    {"another family", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, other_family},
    {"flags of GUE", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, more_flags},
    {"no private data", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, no_private},
    {"private data of others", CB_FW_GUE, CB_FW_N_BAD_TAG, NULL, other_private},
    {"a key that cannot be", CB_FW_GUE, CB_FW_N_BAD_TAG, NULL, key_4},
    {"a longer inner packet", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, inner_longer},
    {"a shorter inner packet", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, inner_shorter},
    {"an inner packet of version 5", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, inner_version},
    {"an inner header of 16 bytes", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, inner_ihl},
    {"an inner packet of 19 bytes", CB_FW_GUE, CB_FW_N_MALFORMED, NULL, too_short},
    {"the same in IPIP", CB_FW_IPIP, CB_FW_N_MALFORMED, NULL, ipip_short},
    {"no hop", CB_FW_GUE, CB_FW_N_LOOP, hop_0, NULL},
    {"four hops", CB_FW_GUE, CB_FW_N_LOOP, hop_4, NULL},
    {"255 hops, final", CB_FW_GUE, CB_FW_N_LOOP, hop_255, NULL},
    {"GUE from the edge", CB_FW_GUE, CB_FW_N_BAD_INTERFACE, on_the_edge, NULL},
    {"IPIP from the edge", CB_FW_IPIP, CB_FW_N_BAD_INTERFACE, on_the_edge, NULL},
    {"GUE on an interface of neither", CB_FW_GUE, CB_FW_N_BAD_INTERFACE, on_no_side, NULL},
    {"another address", CB_FW_GUE, CB_FW_N_NOT_VIP, other_vip, NULL},
    {"another port", CB_FW_GUE, CB_FW_N_NOT_VIP, other_port, NULL},
    {"something for the host itself", CB_FW_GUE, CB_FW_N_NOT_VIP, to_own, NULL},
    {"GUE in GUE", CB_FW_GUE, CB_FW_N_NOT_VIP, gue_to_own, NULL},
    {"GUE in IPIP", CB_FW_IPIP, CB_FW_N_NOT_VIP, gue_to_own, NULL},
    {"IPIP in GUE", CB_FW_GUE, CB_FW_N_NOT_VIP, ipip_inside, NULL},
    {"IPIP in IPIP", CB_FW_IPIP, CB_FW_N_NOT_VIP, ipip_inside, NULL},
    {"IPv6 in IPv4 in GUE", CB_FW_GUE, CB_FW_N_NOT_VIP, ip6_inside, NULL},
    {"GRE in GUE", CB_FW_GUE, CB_FW_N_NOT_VIP, gre_inside, NULL},
    {"an echo request for the host itself", CB_FW_IPIP, CB_FW_N_NOT_VIP, icmp_elsewhere, NULL},
    {"IPIP of a stranger", CB_FW_IPIP, CB_FW_N_BAD_TAG, from_stranger, NULL},
    {"IPIP of itself", CB_FW_IPIP, CB_FW_N_LOOP, from_self, NULL},
    {"a mark of congestion on what has no ECN", CB_FW_GUE, CB_FW_N_MALFORMED, congested, NULL},
};

Test(forward_in, what_is_refused) {
    fw_lab l;
    fw_frame f;
    open_lab(&l);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const refusal *r = &refusals[i];
        fw_tunnel t = from_peer(false, r->form);
        fw_spec s = to_vip(false, IPPROTO_TCP, 443);
        fw_tunnel_make(&l.control, &f, &t, &s);
        cr_assert_eq(fw_lab_run(&l, &f), XDP_PASS, "%s: without it", r->what);
        if (r->change) r->change(&l, &t, &s);
        fw_tunnel_make(&l.control, &f, &t, &s);
        if (r->damage) r->damage(&l, &f);
        cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP, "%s", r->what);
        cr_expect(fw_lab_only(&l, r->counter, -1), "%s", r->what);
        fw_lab_interface(&l, CB_FW_EDGE | CB_FW_UNDERLAY);
    }
    fw_lab_close(&l);
}

/* Whoever cuts it wherever: nothing is taken that is not all there. */
Test(forward_in, frames_that_are_cut_short) {
    fw_lab l;
    fw_frame f;
    open_lab(&l);
    for (int form = CB_FW_GUE; form <= CB_FW_IPIP; form++)
        for (int six = 0; six < 2; six++) {
            const fw_tunnel t = from_peer(six, form);
            const fw_spec s = to_vip(!six, IPPROTO_TCP, 443);
            fw_tunnel_make(&l.control, &f, &t, &s);
            const size_t whole = f.n;
            for (f.n = 14; f.n < whole; f.n++) {
                fw_lab_run(&l, &f);
                cr_assert_eq(fw_lab_counted(&l, CB_FW_N_DECAPSULATED), 0U, "%zu of %zu bytes", f.n, whole);
            }
        }
    fw_lab_close(&l);
}

Test(forward_in, what_is_for_others_is_left_to_the_kernel) {
    fw_lab l;
    fw_frame f;
    open_lab(&l);
    for (int form = CB_FW_GUE; form <= CB_FW_IPIP; form++)
        for (int six = 0; six < 2; six++) {
            fw_tunnel t = from_peer(six, form);
            const fw_spec s = to_vip(false, IPPROTO_TCP, 443);
            t.to = six ? "2001:db8::2" : "192.0.2.2";
            fw_tunnel_make(&l.control, &f, &t, &s);
            cr_assert_eq(fw_lab_run(&l, &f), XDP_PASS);
            cr_assert(fw_lab_only(&l, CB_FW_N_PASSED, -1));
            cr_assert(l.out.n == f.n && memcmp(l.out.b, f.b, f.n) == 0);
        }
    const fw_tunnel t = from_peer(false, CB_FW_GUE);
    const fw_spec s = to_vip(false, IPPROTO_TCP, 443);
    fw_tunnel_make(&l.control, &f, &t, &s);
    f.b[GUE4 - 3]++; /* no UDP header that could be ours: the kernel drops it */
    cr_assert_eq(fw_lab_run(&l, &f), XDP_PASS);
    cr_assert(fw_lab_only(&l, CB_FW_N_PASSED, -1));
    fw_lab_close(&l);
}

/* An IPv6 packet is none of IPv4, whatever its addresses look like. */
Test(forward_in, mapped_addresses_are_not_taken_for_ipv4) {
    fw_lab l;
    fw_frame f;
    open_lab(&l);
    fw_lab_table(&l, PEER, CB_FW_NOBODY);
    fw_spec s = to_vip(true, IPPROTO_TCP, 443);
    s.destination = "::ffff:203.0.113.1";
    fw_frame_make(&f, &s);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_PASS);
    cr_expect(fw_lab_only(&l, CB_FW_N_PASSED, -1));
    s.destination = vips[1];
    s.source = "::ffff:198.51.100.7";
    fw_frame_make(&f, &s);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_PASS);
    cr_expect(fw_lab_only(&l, CB_FW_N_PASSED, -1));
    fw_tunnel t = from_peer(false, CB_FW_GUE);
    fw_tunnel_make(&l.control, &f, &t, &s);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_NOT_VIP, -1));
    t = from_peer(true, CB_FW_IPIP);
    t.from = "::ffff:192.0.2.6"; /* a member, if it were IPv4 */
    s = to_vip(false, IPPROTO_TCP, 443);
    fw_tunnel_make(&l.control, &f, &t, &s);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_PASS);
    cr_expect(fw_lab_only(&l, CB_FW_N_PASSED, -1));
    fw_lab_close(&l);
}

Test(forward_in, congestion_marks_as_in_rfc_6040) {
    /* figure 4: rows are the inner, columns the outer mark; 9 = dropped */
    static const uint8_t becomes[4][4] = {{0, 0, 0, 9}, {1, 1, 1, 3}, {2, 1, 2, 3}, {3, 3, 3, 3}};
    fw_lab l;
    fw_frame f;
    uint8_t packet[FW_FRAME_MAX];
    open_lab(&l);
    for (int inner6 = 0; inner6 < 2; inner6++)
        for (uint8_t inner = 0; inner < 4; inner++)
            for (uint8_t outer = 0; outer < 4; outer++) {
                fw_tunnel t = from_peer(!inner6, inner & 1 ? CB_FW_GUE : CB_FW_IPIP);
                fw_spec s = to_vip(inner6, IPPROTO_TCP, 443);
                s.tos = 0xb8 | inner;
                t.tos = 0x28 | outer; /* another DSCP, which is the way's */
                fw_tunnel_make(&l.control, &f, &t, &s);
                const int want = becomes[inner][outer] == 9 ? XDP_DROP : XDP_PASS;
                cr_assert_eq(fw_lab_run(&l, &f), want, "%d in %d", inner, outer);
                if (want == XDP_DROP) continue;
                s.tos = 0xb8 | becomes[inner][outer];
                const size_t n = fw_packet_make(packet, &s);
                cr_assert(l.out.n == ETH + n && memcmp(l.out.b + ETH, packet, n) == 0, "%d in %d", inner, outer);
            }
    fw_lab_close(&l);
}

#endif

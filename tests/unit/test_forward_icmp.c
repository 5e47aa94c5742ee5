/* ICMP errors find the owner of what they quote; what does not fit between hosts is answered with one; SYN-ACKs ask for
 * segments that fit (docs/design/datapath.md). */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(forward_icmp, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "forward.skel.h"
#include "fw_cid.h"
#include "support/fw_netns.h"
#include "support/fw_tunnel.h"
#include <bpf/bpf.h>
#include <linux/bpf.h>

enum { ETH = 14, PEER = 5, OTHER = 6, FOUND = 7 };

static const char *const clients[] = {"198.51.100.7", "2001:db8:c::7"};
static const char *const vips[] = {"203.0.113.1", "2001:db8:f::1"};
static const char *const routers[] = {"198.51.100.254", "2001:db8:c::fe"};

static void open_lab(fw_lab *l) {
    fw_lab_open(l);
    for (int six = 0; six < 2; six++) {
        fw_lab_vip(l, vips[six], 443, IPPROTO_TCP, 0);
        fw_lab_vip(l, vips[six], 53, IPPROTO_UDP, 0);
        fw_lab_vip(l, vips[six], 443, IPPROTO_UDP, CB_FW_QUIC);
    }
    fw_lab_member(l, PEER, "192.0.2.5", CB_FW_GUE);
    fw_lab_member(l, OTHER, "192.0.2.6", CB_FW_GUE);
    fw_lab_member(l, FOUND, "192.0.2.7", CB_FW_GUE);
}

/* What the VIP sent, and a client's packet of the same flow. */
static fw_spec sent_by_vip(bool six, uint8_t protocol, uint16_t port) {
    static const uint8_t payload[64] = {1, 2, 3};
    return (fw_spec){.source = vips[six],
                     .destination = clients[six],
                     .sport = port,
                     .dport = 40000,
                     .protocol = protocol,
                     .payload = payload,
                     .payload_bytes = sizeof payload};
}

static fw_spec of_client(const fw_spec *v) {
    fw_spec c = *v;
    c.source = v->destination;
    c.destination = v->source;
    c.sport = v->dport;
    c.dport = v->sport;
    return c;
}

/* An error of a router that quotes `bytes` of the packet. */
static fw_spec error_about(bool six, uint8_t type, uint8_t code, const uint8_t *quote, size_t bytes) {
    return (fw_spec){.source = routers[six],
                     .destination = vips[six],
                     .protocol = six ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
                     .icmp_type = type,
                     .icmp_code = code,
                     .icmp_rest = 1400,
                     .payload = quote,
                     .payload_bytes = bytes};
}

/* The error goes to this slot with these flags. */
static void finds(fw_lab *l, const fw_spec *e, uint32_t slot, uint8_t flags, uint32_t previous, const char *what) {
    fw_frame f;
    fw_sent sent = {0};
    fw_frame_make(&f, e);
    cr_expect_eq(fw_lab_run(l, &f), XDP_TX, "%s: %d", what, l->verdict);
    if (l->verdict != XDP_TX) return;
    cr_assert(fw_tunnel_read(&l->control, &l->out, &sent), "%s", what);
    cr_expect_eq(l->out.b[5], slot, "%s went to slot %d", what, l->out.b[5]);
    cr_expect(sent.flags == flags && sent.previous == previous && sent.hop == 1, "%s: flags %d, previous %u, hop %d",
              what, sent.flags, sent.previous, sent.hop);
    cr_expect(sent.inner_bytes == f.n - ETH && memcmp(sent.inner, f.b + ETH, sent.inner_bytes) == 0, "%s", what);
}

Test(forward_icmp, errors_find_the_owner_of_what_they_quote) {
    static const uint8_t types4[][2] = {{3, 4}, {3, 1}, {3, 3}, {11, 0}, {12, 0}};
    static const uint8_t types6[][2] = {{1, 0}, {2, 0}, {3, 0}, {4, 0}};
    fw_lab l;
    uint8_t quote[FW_FRAME_MAX];
    open_lab(&l);
    fw_lab_table(&l, PEER, CB_FW_NOBODY);
    for (int six = 0; six < 2; six++)
        for (size_t i = 0; i < (six ? 4 : 5); i++) {
            const uint8_t *type = six ? types6[i] : types4[i];
            for (int udp = 0; udp < 2; udp++) {
                const fw_spec v = sent_by_vip(six, udp ? IPPROTO_UDP : IPPROTO_TCP, udp ? 53 : 443), c = of_client(&v);
                const size_t n = fw_packet_make(quote, &v);
                fw_lab_tuple(&l, &c, FOUND, OTHER);
                const fw_spec e = error_about(six, type[0], type[1], quote, n);
                finds(&l, &e, FOUND, 0, 100 + OTHER, "an error");
                cr_expect(fw_lab_only(&l, CB_FW_N_ICMP, -1));
                const fw_spec cut = error_about(six, type[0], type[1], quote, (six ? 40 : 20) + 8);
                finds(&l, &cut, FOUND, 0, 100 + OTHER, "an error that quotes eight bytes");
                const fw_spec short_one = error_about(six, type[0], type[1], quote, (six ? 40 : 20) + 4);
                finds(&l, &short_one, FOUND, 0, 100 + OTHER, "an error that quotes the ports");
                fw_lab_tuple(&l, &c, PEER, CB_FW_NOBODY);
            }
        }
    fw_lab_close(&l);
}

Test(forward_icmp, quotes_with_options_and_extension_headers) {
    static const uint8_t options[8] = {7, 7, 4, 0, 0, 0, 0, 0};
    static const uint8_t extensions[] = {43, 0, 1, 4, 0, 0, 0, 0, 60, 0, 0, 0, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0};
    fw_lab l;
    fw_frame f;
    uint8_t quote[FW_FRAME_MAX];
    open_lab(&l);
    fw_lab_table(&l, PEER, CB_FW_NOBODY);
    for (int six = 0; six < 2; six++) {
        fw_spec v = sent_by_vip(six, IPPROTO_TCP, 443);
        const fw_spec c = of_client(&v);
        v.options = six ? extensions : options;
        v.options_bytes = six ? sizeof extensions : sizeof options;
        const size_t n = fw_packet_make(quote, &v);
        fw_lab_tuple(&l, &c, FOUND, CB_FW_NOBODY);
        const fw_spec e = error_about(six, six ? 2 : 3, six ? 0 : 4, quote, n);
        finds(&l, &e, FOUND, 0, 0, "with options");
        for (size_t bytes = 0; bytes < (six ? 40 + sizeof extensions : 28) + 4; bytes++) { /* no ports to be seen */
            const fw_spec cut = error_about(six, six ? 2 : 3, six ? 0 : 4, quote, bytes);
            fw_frame_make(&f, &cut);
            cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP, "%zu bytes", bytes);
            cr_expect(fw_lab_only(&l, CB_FW_N_MALFORMED, -1), "%zu bytes", bytes);
        }
    }
    fw_lab_close(&l);
}

Test(forward_icmp, what_is_left_to_the_kernel_and_what_is_dropped) {
    fw_lab l;
    fw_frame f;
    uint8_t quote[FW_FRAME_MAX];
    open_lab(&l);
    fw_lab_table(&l, PEER, CB_FW_NOBODY);
    for (int six = 0; six < 2; six++) {
        const uint8_t type = six ? 1 : 3;
        fw_spec e = error_about(six, six ? 128 : 8, 0, quote, 40); /* an echo request */
        fw_frame_make(&f, &e);
        cr_expect_eq(fw_lab_run(&l, &f), XDP_PASS);
        cr_expect(fw_lab_only(&l, CB_FW_N_LOCAL, -1));

        fw_spec v = sent_by_vip(six, six ? IPPROTO_ICMPV6 : IPPROTO_ICMP, 0); /* about our echo reply */
        e = error_about(six, type, 0, quote, fw_packet_make(quote, &v));
        fw_frame_make(&f, &e);
        cr_expect_eq(fw_lab_run(&l, &f), XDP_PASS);
        cr_expect(fw_lab_only(&l, CB_FW_N_LOCAL, -1));

        v = sent_by_vip(six, IPPROTO_TCP, 22); /* no VIP has this port */
        e = error_about(six, type, 0, quote, fw_packet_make(quote, &v));
        fw_frame_make(&f, &e);
        cr_expect_eq(fw_lab_run(&l, &f), XDP_PASS);
        cr_expect(fw_lab_only(&l, CB_FW_N_LOCAL, -1));

        v = sent_by_vip(six, IPPROTO_UDP, 53); /* about a later fragment: it has no ports */
        v.offset = 1480;
        v.id = 7;
        e = error_about(six, type, 0, quote, fw_packet_make(quote, &v));
        fw_frame_make(&f, &e);
        cr_expect_eq(fw_lab_run(&l, &f), XDP_PASS);
        cr_expect(fw_lab_only(&l, CB_FW_N_LOCAL, -1));

        v = sent_by_vip(six, IPPROTO_TCP, 443); /* of somebody else: it did not come from here */
        v.source = six ? "2001:db8:f::2" : "203.0.113.2";
        e = error_about(six, type, 0, quote, fw_packet_make(quote, &v));
        fw_frame_make(&f, &e);
        cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
        cr_expect(fw_lab_only(&l, CB_FW_N_MALFORMED, -1));

        v = sent_by_vip(!six, IPPROTO_TCP, 443); /* of the other family */
        e = error_about(six, type, 0, quote, fw_packet_make(quote, &v));
        fw_frame_make(&f, &e);
        cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
        cr_expect(fw_lab_only(&l, CB_FW_N_MALFORMED, -1));
    }
    const fw_spec v = sent_by_vip(false, IPPROTO_TCP, 443);
    const fw_spec e = error_about(false, 3, 4, quote, fw_packet_make(quote, &v));
    fw_frame_make(&f, &e);
    l.control.icmp_rate = 0;
    fw_lab_control(&l);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_RATE_LIMITED, -1));
    fw_lab_table(&l, CB_FW_NOBODY, CB_FW_NOBODY);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_NO_OWNER, -1));
    fw_lab_close(&l);
}

/* ---- QUIC ---- */

typedef struct fanned {
    unsigned n;
    struct cb_fw_fanned last;
} fanned;

static int take(void *user, void *data, size_t size) {
    fanned *f = user;
    cr_assert_eq(size, sizeof f->last);
    memcpy(&f->last, data, sizeof f->last);
    f->n++;
    return 0;
}

static void stays_and_is_fanned(fw_lab *l, const fw_spec *e, bool unknown, const char *what) {
    fw_frame f;
    fw_frame_make(&f, e);
    cr_expect_eq(fw_lab_run(l, &f), XDP_PASS, "%s", what);
    cr_expect_eq(fw_lab_counted(l, CB_FW_N_CID_UNKNOWN), (uint64_t)unknown, "%s", what);
    cr_expect_eq(fw_lab_counted(l, CB_FW_N_ICMP_FANNED), 1U, "%s", what);
    cr_expect_eq(fw_lab_counted(l, CB_FW_N_ICMP), 0U, "%s", what);
}

Test(forward_icmp, quic_by_the_id_of_its_source_or_to_all) {
    fw_lab l;
    fw_spec last = {0};
    fw_frame frame;
    uint8_t quote[FW_FRAME_MAX], quic[1200];
    fanned f = {0};
    open_lab(&l);
    fw_lab_table(&l, PEER, OTHER);
    struct ring_buffer *ring = ring_buffer__new(bpf_map__fd(l.skel->maps.fanout), take, &f, NULL);
    cr_assert_not_null(ring);
    struct cb_fw_cid config;
    cr_assert_eq(fw_cid_prepare(&config, FW_CID_PLAIN, 4, 6, 2, NULL), 0);
    const struct cb_fw_server server = {.rotation_length = 2 << 4 | 4, .server_id = "srv7"};
    const uint32_t slot = FOUND;
    bpf_map_update_elem(bpf_map__fd(l.skel->maps.cids), &(uint32_t){2}, &config, BPF_ANY);
    bpf_map_update_elem(bpf_map__fd(l.skel->maps.servers), &server, &slot, BPF_ANY);
    for (int six = 0; six < 2; six++)
        for (int length = 0; length <= 20; length += 4) { /* of the client's ID */
            memset(quic, 0x11, sizeof quic);
            memcpy(quic, "\xc0\0\0\0\1", 5);
            quic[5] = (uint8_t)length;
            uint8_t *scid = quic + 6 + length;
            scid[0] = 13;
            scid[1] = 2 << 5 | 12;
            memcpy(scid + 2, "srv7", 4);
            fw_spec v = sent_by_vip(six, IPPROTO_UDP, 443);
            v.payload = quic;
            v.payload_bytes = sizeof quic;
            const size_t n = fw_packet_make(quote, &v);
            fw_spec e = error_about(six, six ? 2 : 3, six ? 0 : 4, quote, n < 1000 ? n : 1000);
            finds(&l, &e, FOUND, CB_FW_BY_CID, 0, "a long header");
            cr_expect(fw_lab_only(&l, CB_FW_N_ICMP, -1));

            scid[5] = '8'; /* nobody's */
            fw_packet_make(quote, &v);
            stays_and_is_fanned(&l, &e, true, "a long header of nobody");
            quic[0] = 0x40; /* a short header: the ID is the client's */
            fw_packet_make(quote, &v);
            stays_and_is_fanned(&l, &e, false, "a short header");
            e.payload_bytes = (six ? 40 : 20) + 8;
            stays_and_is_fanned(&l, &e, false, "no more than the UDP header");
            f.n = 0;
            ring_buffer__consume(ring);
            cr_expect_eq(f.n, 3U);
            fw_frame_make(&frame, &e);
            cr_expect(f.last.length == frame.n - ETH && f.last.slot == 0, "this host has it");
            cr_expect_eq(memcmp(f.last.packet, frame.b + ETH, f.last.length), 0);
            last = e;
        }
    /* A host that only forwards is no member: the owner by the tuple gets it as well. */
    l.control.self = 0;
    fw_lab_control(&l);
    finds(&l, &last, PEER, 0, 100 + OTHER, "forwarded only");
    cr_expect(fw_lab_only(&l, CB_FW_N_ICMP, CB_FW_N_ICMP_FANNED, -1));
    l.control.self = 100;
    fw_lab_control(&l);
    for (int i = 0; i < 400; i++) /* nobody reads: the ring is full some time, and then the tuple decides */
        fw_lab_run(&l, &frame);
    finds(&l, &last, PEER, 0, 100 + OTHER, "the ring is full");
    cr_expect(fw_lab_only(&l, CB_FW_N_ICMP, CB_FW_N_RATE_LIMITED, -1));
    fw_lab_table(&l, 0, OTHER);
    cr_expect_eq(fw_lab_run(&l, &frame), XDP_PASS);
    cr_expect(fw_lab_only(&l, CB_FW_N_KEPT, CB_FW_N_RATE_LIMITED, -1));
    ring_buffer__free(ring);
    fw_lab_close(&l);
}

/* TCP errors follow the segment's socket. */
Test(forward_icmp, tcp_errors_stay_with_the_socket) {
    fw_lab l;
    fw_netns ns;
    fw_frame f;
    uint8_t quote[FW_FRAME_MAX];
    open_lab(&l);
    fw_netns_enter(&ns);
    fw_lab_table(&l, 0, OTHER);
    for (int six = 0; six < 2; six++) {
        uint16_t port = 0;
        fw_netns_address(clients[six]);
        fw_netns_address(vips[six]);
        const int listener = fw_netns_socket(vips[six], SOCK_STREAM, 443);
        listen(listener, 4);
        const int client = fw_netns_connect(clients[six], vips[six], 443, &port);
        for (int known = 0; known < 2; known++) {
            fw_spec v = sent_by_vip(six, IPPROTO_TCP, 443);
            v.dport = known ? port : 1; /* a listener is no reason to keep an error */
            const size_t n = fw_packet_make(quote, &v);
            const fw_spec e = error_about(six, six ? 2 : 3, six ? 0 : 4, quote, n);
            fw_frame_make(&f, &e);
            cr_expect_eq(fw_lab_run(&l, &f), known ? XDP_PASS : XDP_TX);
            cr_expect(fw_lab_only(&l, known ? CB_FW_N_KEPT : CB_FW_N_SECOND_HOP, -1));
            const fw_tunnel t = {.from = "192.0.2.5", .to = "192.0.2.1", .hop = 1, .key = 1, .previous = 100 + OTHER};
            fw_tunnel_make(&l.control, &f, &t, &e);
            cr_expect_eq(fw_lab_run(&l, &f), known ? XDP_PASS : XDP_TX);
            cr_expect(fw_lab_only(&l, CB_FW_N_DECAPSULATED, known ? CB_FW_N_KEPT : CB_FW_N_SECOND_HOP, -1));
        }
        close(client);
        close(listener);
    }
    fw_netns_leave(&ns);
    fw_lab_close(&l);
}

/* ---- what does not fit ---- */

static uint32_t be16(const uint8_t *p) {
    return (uint32_t)p[0] << 8 | p[1];
}

static fw_spec large(bool six, size_t bytes) {
    static uint8_t payload[FW_FRAME_MAX];
    fw_spec s = sent_by_vip(six, IPPROTO_TCP, 443);
    s = of_client(&s);
    s.payload = payload;
    s.payload_bytes = bytes - (six ? 60 : 40);
    s.dont = true;
    return s;
}

Test(forward_icmp, what_is_too_big_is_answered_by_the_vip) {
    fw_lab l;
    fw_frame f;
    open_lab(&l);
    for (int six = 0; six < 2; six++)
        for (int outer6 = 0; outer6 < 2; outer6++)
            for (int form = CB_FW_GUE; form <= CB_FW_IPIP; form++) {
                struct cb_fw_member m = fw_lab_member(&l, PEER, outer6 ? "2001:db8::5" : "192.0.2.5", form);
                m.mtu = 1500;
                fw_lab_member_put(&l, PEER, &m);
                fw_lab_table(&l, PEER, CB_FW_NOBODY);
                const size_t fits = 1500 - (outer6 ? 40 : 20) - (form == CB_FW_GUE ? 32 : 0);
                fw_spec s = large(six, fits);
                fw_frame_make(&f, &s);
                cr_expect_eq(fw_lab_run(&l, &f), XDP_TX);
                cr_expect(fw_lab_only(&l, CB_FW_N_FORWARDED, -1));
                cr_expect_eq(l.out.n, 1500U + ETH);

                s = large(six, fits + 1);
                fw_frame_make(&f, &s);
                cr_expect_eq(fw_lab_run(&l, &f), XDP_TX);
                cr_expect(fw_lab_only(&l, CB_FW_N_TOO_BIG_SENT, -1));
                const uint8_t *ip = l.out.b + ETH, *icmp = ip + (six ? 40 : 20);
                cr_expect(memcmp(l.out.b, f.b + 6, 6) == 0 && memcmp(l.out.b + 6, f.b, 6) == 0, "back to its station");
                cr_expect_eq(memcmp(l.out.b + 12, f.b + 12, 2), 0);
                cr_expect(fw_l4_checksum_holds(ip));
                uint8_t from[16], to[16];
                fw_address(vips[six], from);
                fw_address(clients[six], to);
                if (six) {
                    cr_expect(l.out.n == ETH + 1280 && be16(ip + 4) == 1240 && ip[6] == IPPROTO_ICMPV6);
                    cr_expect(memcmp(ip + 8, from, 16) == 0 && memcmp(ip + 24, to, 16) == 0);
                    cr_expect(icmp[0] == 2 && icmp[1] == 0 && be16(icmp + 4) == 0);
                } else {
                    cr_expect(l.out.n == ETH + 540 && be16(ip + 2) == 540 && ip[9] == IPPROTO_ICMP);
                    cr_expect(memcmp(ip + 12, from + 12, 4) == 0 && memcmp(ip + 16, to + 12, 4) == 0);
                    cr_expect(fw_ip4_checksum_holds(ip));
                    cr_expect(icmp[0] == 3 && icmp[1] == 4 && be16(icmp + 4) == 0);
                }
                cr_expect_eq(be16(icmp + 6), fits);
                cr_expect_eq(memcmp(icmp + 8, f.b + ETH, six ? 1232 : 512), 0, "and quotes what it is about");
            }
    fw_lab_close(&l);
}

Test(forward_icmp, what_is_too_big_and_gets_no_answer) {
    fw_lab l;
    fw_frame f;
    open_lab(&l);
    struct cb_fw_member m = fw_lab_member(&l, PEER, "192.0.2.5", CB_FW_GUE);
    m.mtu = 1500;
    fw_lab_member_put(&l, PEER, &m);
    fw_lab_table(&l, PEER, CB_FW_NOBODY);
    static const char *const odd4[] = {"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"};
    static const char *const odd6[] = {"::", "ff02::1"};
    for (size_t i = 0; i < 7; i++) {
        fw_spec s = large(i >= 5, 1500);
        s.source = i < 5 ? odd4[i] : odd6[i - 5];
        fw_frame_make(&f, &s);
        cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP, "%s", s.source);
        cr_expect(fw_lab_only(&l, CB_FW_N_TOO_BIG, -1), "%s", s.source);
    }
    fw_spec s = large(false, 1500);
    s.dont = false; /* a router would cut it; here it is dropped */
    fw_frame_make(&f, &s);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_TOO_BIG, -1));
    s.dont = true;
    fw_frame_make(&f, &s);
    f.b[0] |= 1; /* to all stations */
    cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_TOO_BIG, -1));
    f.b[0] &= 0xfe;
    for (int six = 0; six < 2; six++) { /* an error */
        uint8_t quote[FW_FRAME_MAX] = {0};
        const fw_spec v = sent_by_vip(six, IPPROTO_TCP, 443);
        fw_packet_make(quote, &v);
        fw_spec e = error_about(six, six ? 2 : 3, six ? 0 : 4, quote, 1440);
        e.dont = true;
        fw_frame_make(&f, &e);
        cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
        cr_expect(fw_lab_only(&l, CB_FW_N_TOO_BIG, -1));
    }
    /* From another host: it would not be the client that is told. */
    fw_lab_table(&l, 0, PEER);
    s = large(false, 1500);
    const fw_tunnel t = {.from = "192.0.2.6", .to = "192.0.2.1", .hop = 1, .key = 1, .previous = 100 + PEER};
    fw_tunnel_make(&l.control, &f, &t, &s);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_DECAPSULATED, CB_FW_N_TOO_BIG, -1));
    fw_frame_make(&f, &s); /* from outside the client is */
    cr_expect_eq(fw_lab_run(&l, &f), XDP_TX);
    cr_expect(fw_lab_only(&l, CB_FW_N_TOO_BIG_SENT, -1));
    l.control.icmp_rate = 0;
    fw_lab_control(&l);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_RATE_LIMITED, -1));
    m.mtu = 0; /* not set */
    fw_lab_member_put(&l, PEER, &m);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_DROP);
    cr_expect(fw_lab_only(&l, CB_FW_N_TOO_BIG, -1));
    fw_lab_close(&l);
}

/* ---- the MSS of SYN-ACKs ---- */

typedef struct mss_case {
    const char *what;
    uint8_t options[24], bytes, at; /* at: of the MSS among them; 0 = nothing is changed */
} mss_case;

static const mss_case mss_cases[] = {
    {"first", {2, 4, 0x05, 0xb4, 4, 2, 1, 1}, 8, 2},
    {"behind a no-op: at an odd place", {1, 2, 4, 0x05, 0xb4, 1, 1, 1}, 8, 3},
    {"behind others", {4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 0x23, 0x28}, 16, 14},
    {"behind a signature",
     {1, 1, 19, 18, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 2, 4, 0x23, 0x28},
     24,
     22},
    {"small enough", {2, 4, 0x04, 0x00}, 4, 0},
    {"none", {1, 1, 4, 2}, 4, 0},
    {"behind the end", {0, 2, 4, 0x05, 0xb4, 0, 0, 0}, 8, 0},
    {"of another length", {2, 3, 0x05, 1, 2, 4, 5, 0xb4}, 8, 0},
    {"cut short", {1, 1, 2, 4}, 4, 0},
    {"an option of no length", {9, 0, 2, 4, 5, 0xb4, 1, 1}, 8, 0},
    {"an option that is too long", {9, 200, 2, 4, 5, 0xb4, 1, 1}, 8, 0},
};

Test(forward_icmp, syn_acks_of_vips_leave_with_an_mss_that_fits) {
    fw_lab l;
    fw_frame f;
    open_lab(&l);
    l.program = bpf_program__fd(l.skel->progs.cb_forward_mss);
    for (int longest = 0; longest < 2; longest++) /* the outer header is of IPv6, or of IPv4 only */
        for (int six = 0; six < 2; six++)
            for (size_t i = 0; i < sizeof mss_cases / sizeof *mss_cases; i++) {
                const mss_case *m = &mss_cases[i];
                l.control.underlay_mtu = 1500;
                memset(l.control.address6, longest ? 1 : 0, 16);
                fw_lab_control(&l);
                fw_spec s = sent_by_vip(six, IPPROTO_TCP, 443);
                s.payload_bytes = 0;
                s.flags = 0x12;
                s.tcp_options = m->options;
                s.tcp_options_bytes = m->bytes;
                fw_frame_make(&f, &s);
                cr_assert_eq(fw_lab_run(&l, &f), -1, "%s", m->what);
                if (!m->at) {
                    cr_expect(l.out.n == f.n && memcmp(l.out.b, f.b, f.n) == 0, "%s", m->what);
                    continue;
                }
                cr_expect(fw_lab_only(&l, CB_FW_N_MSS_LOWERED, -1), "%s", m->what);
                const uint8_t *ip = l.out.b + ETH, *tcp = ip + (six ? 40 : 20);
                cr_expect_eq(be16(tcp + 20 + m->at), 1500U - (longest ? 72 : 52) - (six ? 60 : 40), "%s", m->what);
                cr_expect(fw_l4_checksum_holds(ip), "%s", m->what);
                memcpy(l.out.b + (tcp + 20 + m->at - l.out.b), m->options + m->at, 2);
                memcpy(l.out.b + (tcp + 16 - l.out.b), f.b + ETH + (six ? 40 : 20) + 16, 2);
                cr_expect(l.out.n == f.n && memcmp(l.out.b, f.b, f.n) == 0, "%s: nothing else changed", m->what);
            }
    static const uint8_t plain[] = {2, 4, 0x05, 0xb4};
    static const struct {
        const char *source;
        uint16_t port;
        uint8_t flags;
        bool more;
    } others[] = {{"203.0.113.1", 443, 0x02, false}, {"203.0.113.1", 443, 0x10, false},
                  {"203.0.113.1", 443, 0x16, false}, {"203.0.113.1", 22, 0x12, false},
                  {"203.0.113.9", 443, 0x12, false}, {"203.0.113.1", 443, 0x12, true}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        fw_spec s = sent_by_vip(false, IPPROTO_TCP, others[i].port);
        s.source = others[i].source;
        s.flags = others[i].flags;
        s.more = others[i].more;
        s.payload_bytes = 0;
        s.tcp_options = plain;
        s.tcp_options_bytes = sizeof plain;
        fw_frame_make(&f, &s);
        cr_expect_eq(fw_lab_run(&l, &f), -1);
        cr_expect(l.out.n == f.n && memcmp(l.out.b, f.b, f.n) == 0, "row %zu", i);
    }
    l.control.underlay_mtu = 0; /* not known */
    fw_lab_control(&l);
    fw_spec s = sent_by_vip(false, IPPROTO_TCP, 443);
    s.flags = 0x12;
    s.payload_bytes = 0;
    s.tcp_options = plain;
    s.tcp_options_bytes = sizeof plain;
    fw_frame_make(&f, &s);
    cr_expect_eq(fw_lab_run(&l, &f), -1);
    cr_expect_eq(memcmp(l.out.b, f.b, f.n), 0);
    fw_lab_close(&l);
}

#endif

/* Delivered here, or sent on to the bucket's other owner: with the sockets of a real kernel, in a network namespace of
 * its own (docs/design/datapath.md). */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(forward_hop, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "forward.skel.h"
#include "support/fw_netns.h"
#include "support/fw_tunnel.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

enum { ETH = 14, PEER = 5, OTHER = 6, SYN = 2, RST = 4, ACK = 16, FIN = 1 };

static const char *const clients[] = {"198.51.100.7", "2001:db8:c::7"};
static const char *const vips[] = {"203.0.113.1", "2001:db8:f::1"};

typedef struct stage {
    fw_lab lab;
    fw_netns ns;
} stage;

/* This host is first owner, OTHER the second, of all buckets. */
static void open_stage(stage *s) {
    memset(s, 0, sizeof *s);
    fw_lab_open(&s->lab);
    fw_netns_enter(&s->ns);
    for (int six = 0; six < 2; six++) {
        fw_netns_address(clients[six]);
        fw_netns_address(vips[six]);
        fw_lab_vip(&s->lab, vips[six], 443, IPPROTO_TCP, 0);
        fw_lab_vip(&s->lab, vips[six], 53, IPPROTO_UDP, 0);
        fw_lab_vip(&s->lab, vips[six], 443, IPPROTO_UDP, CB_FW_QUIC);
    }
    fw_lab_member(&s->lab, PEER, "192.0.2.5", CB_FW_GUE);
    fw_lab_member(&s->lab, OTHER, "192.0.2.6", CB_FW_IPIP); /* second hops go by GUE all the same */
    fw_lab_table(&s->lab, 0, OTHER);
}

static void close_stage(stage *s) {
    fw_netns_leave(&s->ns);
    fw_lab_close(&s->lab);
}

static fw_spec tcp_from(bool six, uint16_t port, uint8_t flags) {
    return (fw_spec){.source = clients[six],
                     .destination = vips[six],
                     .sport = port,
                     .dport = 443,
                     .protocol = IPPROTO_TCP,
                     .flags = flags};
}

static const fw_tunnel first_hop = {
    .from = "192.0.2.5", .to = "192.0.2.1", .form = CB_FW_GUE, .hop = 1, .key = 1, .previous = 100 + OTHER};

/* From outside, in GUE and in IPIP: it stays in each case. */
static void stays(stage *s, const fw_spec *p, const char *what) {
    fw_frame f;
    fw_tunnel t = first_hop;
    fw_frame_make(&f, p);
    cr_expect_eq(fw_lab_run(&s->lab, &f), XDP_PASS, "%s: verdict %d", what, s->lab.verdict);
    cr_expect(fw_lab_only(&s->lab, CB_FW_N_KEPT, -1), "%s", what);
    fw_tunnel_make(&s->lab.control, &f, &t, p);
    cr_expect_eq(fw_lab_run(&s->lab, &f), XDP_PASS, "%s in GUE: verdict %d", what, s->lab.verdict);
    cr_expect(fw_lab_only(&s->lab, CB_FW_N_DECAPSULATED, CB_FW_N_KEPT, -1), "%s in GUE", what);
    t.form = CB_FW_IPIP;
    fw_tunnel_make(&s->lab.control, &f, &t, p);
    cr_expect_eq(fw_lab_run(&s->lab, &f), XDP_PASS, "%s in IPIP: verdict %d", what, s->lab.verdict);
    cr_expect(fw_lab_only(&s->lab, CB_FW_N_DECAPSULATED, CB_FW_N_KEPT, -1), "%s in IPIP", what);
}

static void is_sent(stage *s, const fw_spec *p, uint8_t hop, uint8_t flags, uint32_t previous, const char *what) {
    uint8_t packet[FW_FRAME_MAX];
    fw_sent sent = {0};
    const size_t n = fw_packet_make(packet, p);
    cr_expect_eq(s->lab.verdict, XDP_TX, "%s: verdict %d", what, s->lab.verdict);
    if (s->lab.verdict != XDP_TX) return;
    cr_assert(fw_tunnel_read(&s->lab.control, &s->lab.out, &sent), "%s", what);
    cr_expect(sent.hop == hop && sent.flags == flags && sent.previous == previous, "%s: hop %d, flags %d, previous %u",
              what, sent.hop, sent.flags, sent.previous);
    cr_expect(sent.inner_bytes == n && memcmp(sent.inner, packet, n) == 0, "%s: it changed on the way", what);
}

/* ... it goes on to OTHER in each case. */
static void goes_on(stage *s, const fw_spec *p, bool ask, const char *what) {
    const enum cb_fw_counter how = ask ? CB_FW_N_ASKED : CB_FW_N_SECOND_HOP;
    const uint8_t flags = ask ? CB_FW_ASK : CB_FW_FINAL;
    fw_frame f;
    fw_tunnel t = first_hop;
    fw_frame_make(&f, p);
    fw_lab_run(&s->lab, &f);
    is_sent(s, p, 2, flags, ask ? 100 : 0, what);
    cr_expect(fw_lab_only(&s->lab, how, -1), "%s", what);
    fw_tunnel_make(&s->lab.control, &f, &t, p);
    fw_lab_run(&s->lab, &f);
    is_sent(s, p, 2, flags, ask ? 100 : 0, what);
    cr_expect(fw_lab_only(&s->lab, CB_FW_N_DECAPSULATED, how, -1), "%s in GUE", what);
    t.form = CB_FW_IPIP;
    fw_tunnel_make(&s->lab.control, &f, &t, p);
    fw_lab_run(&s->lab, &f);
    is_sent(s, p, 2, flags, ask ? 100 : 0, what);
    cr_expect(fw_lab_only(&s->lab, CB_FW_N_DECAPSULATED, how, -1), "%s in IPIP", what);
}

static int listen_at(bool six, int deferred) {
    int fd = fw_netns_socket(vips[six], SOCK_STREAM, 443);
    if (deferred) cr_assert_eq(setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &deferred, sizeof deferred), 0);
    cr_assert_eq(listen(fd, 16), 0);
    return fd;
}

Test(forward_hop, a_connection_stays_in_all_its_states) {
    stage s;
    open_stage(&s);
    for (int six = 0; six < 2; six++) {
        uint16_t port = 0;
        const int listener = listen_at(six, 0);
        int client = fw_netns_connect(clients[six], vips[six], 443, &port);
        int server = accept(listener, NULL, NULL);
        cr_assert(server >= 0);
        static const uint8_t flags[] = {ACK, ACK | FIN, ACK | RST, SYN, RST, SYN | ACK};
        for (size_t i = 0; i < sizeof flags; i++) {
            const fw_spec p = tcp_from(six, port, flags[i]);
            stays(&s, &p, "established");
        }
        const fw_spec p = tcp_from(six, port, ACK);
        shutdown(server, SHUT_WR);
        usleep(20000);
        stays(&s, &p, "FIN_WAIT_2");
        close(client);
        usleep(20000);
        close(server);
        stays(&s, &p, "TIME_WAIT");

        client = fw_netns_connect(clients[six], vips[six], 443, &port);
        server = accept(listener, NULL, NULL);
        close(client);
        usleep(20000);
        const fw_spec closing = tcp_from(six, port, ACK);
        stays(&s, &closing, "CLOSE_WAIT");
        close(server);
        usleep(20000);
        goes_on(&s, &closing, false, "closed"); /* the other side had TIME_WAIT */
        close(listener);
    }
    close_stage(&s);
}

Test(forward_hop, half_open_connections_stay) {
    stage s;
    open_stage(&s);
    for (int six = 0; six < 2; six++) {
        uint16_t port = 0;
        const int listener = listen_at(six, 30); /* no connection before there are data */
        const int client = fw_netns_connect(clients[six], vips[six], 443, &port);
        const fw_spec p = tcp_from(six, port, ACK);
        stays(&s, &p, "NEW_SYN_RECV");
        close(client);
        close(listener);
    }
    close_stage(&s);
}

Test(forward_hop, a_listener_keeps_syns_only) {
    stage s;
    open_stage(&s);
    for (int six = 0; six < 2; six++) {
        const fw_spec syn = tcp_from(six, 40001, SYN);
        goes_on(&s, &syn, false, "SYN, and nobody listens");
        const int listener = listen_at(six, 0);
        stays(&s, &syn, "SYN");
        fw_spec p = tcp_from(six, 40001, SYN | 0xc0);
        stays(&s, &p, "SYN with ECN");
        static const uint8_t flags[] = {ACK, RST, RST | ACK, FIN | ACK, FIN, SYN | ACK, SYN | RST, 0x3f, 8};
        for (size_t i = 0; i < sizeof flags; i++) {
            p = tcp_from(six, 40001, flags[i]);
            goes_on(&s, &p, false, "not a SYN");
        }
        close(listener);
        goes_on(&s, &syn, false, "SYN, and nobody listens any more");
    }
    close_stage(&s);
}

/* A SYN that really comes, and the sequence number of the answer: a cookie. */
static uint32_t cookie_of(bool six, const fw_spec *syn) {
    uint8_t packet[FW_FRAME_MAX], got[256];
    const size_t header = six ? 40 : 20, n = fw_packet_make(packet, syn);
    const int raw = fw_netns_socket(clients[six], SOCK_RAW, IPPROTO_TCP);
    fw_netns_send(raw, vips[six], packet + header, n - header);
    for (int i = 0; i < 10; i++) { /* others are seen too */
        struct pollfd p = {.fd = raw, .events = POLLIN};
        cr_assert_eq(poll(&p, 1, 1000), 1, "no answer to the SYN");
        const ssize_t len = recv(raw, got, sizeof got, 0);
        const uint8_t *tcp = got + (six ? 0 : 20);
        if (len < 20 || tcp[13] != (SYN | ACK)) continue;
        close(raw);
        return (uint32_t)tcp[4] << 24 | (uint32_t)tcp[5] << 16 | (uint32_t)tcp[6] << 8 | tcp[7];
    }
    cr_assert_fail("no SYN-ACK");
    return 0;
}

Test(forward_hop, syn_cookies_of_this_host_stay) {
    stage s;
    open_stage(&s);
    fw_netns_sysctl("net/ipv4/tcp_syncookies", "2"); /* always */
    for (int six = 0; six < 2; six++) {
        const int listener = listen_at(six, 0);
        static const uint8_t mss[] = {2, 4, 5, 0xb4};
        fw_spec p = tcp_from(six, (uint16_t)(40100 + six), SYN);
        p.seq = 12345;
        p.tcp_options = mss;
        p.tcp_options_bytes = sizeof mss;
        const uint32_t cookie = cookie_of(six, &p);
        p = tcp_from(six, (uint16_t)(40100 + six), ACK);
        p.seq = 12346;
        p.ack = cookie + 1;
        stays(&s, &p, "an ACK with our cookie");
        p.sport++;
        goes_on(&s, &p, false, "the cookie of another port");
        p.sport--;
        p.ack += 0x01000000;
        goes_on(&s, &p, false, "another cookie");
        p.ack -= 0x01000000;
        p.flags = ACK | RST;
        goes_on(&s, &p, false, "RST with the cookie");
        close(listener);
    }
    close_stage(&s);
}

Test(forward_hop, who_listens_at_all_addresses_counts) {
    stage s;
    open_stage(&s);
    const int listener = fw_netns_socket("::", SOCK_STREAM, 443);
    cr_assert_eq(listen(listener, 16), 0);
    for (int six = 0; six < 2; six++) {
        const fw_spec syn = tcp_from(six, 40001, SYN);
        stays(&s, &syn, "a SYN for [::]:443");
    }
    close(listener);
    close_stage(&s);
}

/* ---- UDP and QUIC ---- */

static fw_spec udp_from(bool six, uint16_t port, const uint8_t *payload, size_t n) {
    return (fw_spec){.source = clients[six],
                     .destination = vips[six],
                     .sport = 40000,
                     .dport = port,
                     .protocol = IPPROTO_UDP,
                     .payload = payload,
                     .payload_bytes = n};
}

static void knows(stage *s, const uint8_t *id, uint8_t n, bool known) {
    struct cb_fw_dcid key = {.length = n};
    const uint64_t changes = 1;
    memcpy(key.bytes, id, n);
    const int fd = bpf_map__fd(s->lab.skel->maps.live);
    if (known)
        cr_assert_eq(bpf_map_update_elem(fd, &key, &changes, BPF_ANY), 0);
    else
        bpf_map_delete_elem(fd, &key);
}

static const struct quic_case {
    const char *what;
    uint8_t first, length;
    uint32_t version;
    bool asked;
} quic_cases[] = {
    {"Initial", 0xc0, 8, 1, true},
    {"Initial with an ID of 20 bytes", 0xcf, 20, 1, true},
    {"Initial with an ID of one byte", 0xc0, 1, 1, true},
    {"0-RTT", 0xd0, 8, 1, true},
    {"Handshake", 0xe0, 8, 1, false},
    {"Retry", 0xf0, 8, 1, false},
    {"Initial of version 2", 0xd0, 8, 0x6b3343cf, true},
    {"0-RTT of version 2", 0xe0, 8, 0x6b3343cf, true},
    {"Handshake of version 2", 0xf0, 8, 0x6b3343cf, false},
    {"Retry of version 2", 0xc0, 8, 0x6b3343cf, false},
    {"an unknown version", 0xf0, 8, 0x1a2a3a4a, true},
    {"an unknown version without fixed bit", 0x80, 8, 0xff00001d, true},
    {"version negotiation", 0xc0, 8, 0, false},
    {"no connection ID", 0xc0, 0, 1, false},
    {"an ID that is too long", 0xc0, 21, 1, false},
    {"an ID of 255 bytes", 0xc0, 255, 0x1a2a3a4a, false},
    {"a short header", 0x40, 8, 1, false},
};

static size_t quic_packet(uint8_t *out, const struct quic_case *q) {
    memset(out, 0x5a, 60);
    out[0] = q->first;
    for (int i = 0; i < 4; i++)
        out[1 + i] = (uint8_t)(q->version >> (24 - 8 * i));
    out[5] = q->length;
    return 60;
}

Test(forward_hop, quic_asks_only_about_ids_that_clients_chose) {
    stage s;
    uint8_t packet[64];
    open_stage(&s);
    for (int six = 0; six < 2; six++)
        for (size_t i = 0; i < sizeof quic_cases / sizeof *quic_cases; i++) {
            const struct quic_case *q = &quic_cases[i];
            const size_t n = quic_packet(packet, q);
            fw_spec p = udp_from(six, 443, packet, n);
            if (!q->asked) {
                stays(&s, &p, q->what);
                continue;
            }
            goes_on(&s, &p, true, q->what);
            knows(&s, packet + 6, q->length, true);
            stays(&s, &p, q->what);
            knows(&s, packet + 6, q->length, false);
            p.dport = 53; /* no VIP of QUIC */
            stays(&s, &p, q->what);
        }
    for (size_t n = 0; n < 14; n++) { /* cut short: shorter than its ID, or no packet of QUIC at all */
        quic_packet(packet, &quic_cases[0]);
        const fw_spec p = udp_from(false, 443, packet, n);
        stays(&s, &p, "a cut Initial");
    }
    close_stage(&s);
}

Test(forward_hop, who_is_asked_keeps_what_it_knows_and_returns_the_rest) {
    stage s;
    fw_frame f;
    uint8_t packet[64];
    open_stage(&s);
    const size_t n = quic_packet(packet, &quic_cases[0]);
    const fw_spec p = udp_from(false, 443, packet, n);
    fw_tunnel t = first_hop;
    t.hop = 2;
    t.flags = CB_FW_ASK;
    t.previous = 100 + PEER;
    fw_tunnel_make(&s.lab.control, &f, &t, &p);
    fw_lab_run(&s.lab, &f);
    is_sent(&s, &p, 3, CB_FW_FINAL, 0, "returned");
    cr_expect(fw_lab_only(&s.lab, CB_FW_N_DECAPSULATED, CB_FW_N_RETURNED, -1));
    cr_expect_eq(s.lab.out.b[5], PEER, "to whom it came from, whoever owns the bucket");

    knows(&s, packet + 6, 8, true);
    cr_expect_eq(fw_lab_run(&s.lab, &f), XDP_PASS);
    cr_expect(fw_lab_only(&s.lab, CB_FW_N_DECAPSULATED, -1));
    knows(&s, packet + 6, 8, false);

    static const uint32_t nobody[] = {0, 100, 4711}; /* none, this host, a stranger */
    for (size_t i = 0; i < 3; i++) {
        t.previous = nobody[i];
        fw_tunnel_make(&s.lab.control, &f, &t, &p);
        cr_expect_eq(fw_lab_run(&s.lab, &f), XDP_PASS);
        cr_expect(fw_lab_only(&s.lab, CB_FW_N_DECAPSULATED, -1));
    }
    t.previous = 100 + PEER;
    t.hop = 3; /* it has gone far enough */
    fw_tunnel_make(&s.lab.control, &f, &t, &p);
    cr_expect_eq(fw_lab_run(&s.lab, &f), XDP_PASS);
    t.flags = CB_FW_FINAL; /* came back */
    fw_tunnel_make(&s.lab.control, &f, &t, &p);
    cr_expect_eq(fw_lab_run(&s.lab, &f), XDP_PASS);
    cr_expect(fw_lab_only(&s.lab, CB_FW_N_DECAPSULATED, CB_FW_N_RETURNED, -1));
    close_stage(&s);
}

/* ---- who the other owner is, and whether there is one ---- */

Test(forward_hop, nothing_goes_on_that_is_final_or_has_nobody_to_go_to) {
    stage s;
    fw_frame f;
    open_stage(&s);
    const fw_spec p = tcp_from(false, 40001, ACK);
    static const struct {
        uint8_t hop, flags;
        uint32_t previous;
    } rows[] = {{1, CB_FW_FINAL, 100 + OTHER},
                {2, CB_FW_FINAL, 100 + OTHER},
                {1, CB_FW_BY_CID, 100 + OTHER},
                {2, 0, 100 + OTHER},
                {3, 0, 100 + OTHER},
                {1, 0, 0},
                {1, 0, 100},
                {1, 0, 4711}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fw_tunnel t = first_hop;
        t.hop = rows[i].hop;
        t.flags = rows[i].flags;
        t.previous = rows[i].previous;
        fw_tunnel_make(&s.lab.control, &f, &t, &p);
        cr_expect_eq(fw_lab_run(&s.lab, &f), XDP_PASS, "row %zu", i);
        cr_expect_eq(fw_lab_counted(&s.lab, CB_FW_N_SECOND_HOP) + fw_lab_counted(&s.lab, CB_FW_N_KEPT), 0U);
    }
    struct cb_fw_member m = fw_lab_member(&s.lab, OTHER, "192.0.2.6", CB_FW_GUE);
    m.flags = CB_FW_HERE; /* not living */
    fw_lab_member_put(&s.lab, OTHER, &m);
    fw_tunnel_make(&s.lab.control, &f, &first_hop, &p);
    cr_expect_eq(fw_lab_run(&s.lab, &f), XDP_PASS);
    cr_expect(fw_lab_only(&s.lab, CB_FW_N_DECAPSULATED, -1));
    fw_frame_make(&f, &p);
    cr_expect_eq(fw_lab_run(&s.lab, &f), XDP_PASS);
    cr_expect(fw_lab_only(&s.lab, CB_FW_N_LOCAL, -1));
    close_stage(&s);
}

Test(forward_hop, ipip_is_judged_by_the_own_table) {
    stage s;
    fw_frame f;
    open_stage(&s);
    const fw_spec p = tcp_from(false, 40001, ACK);
    fw_tunnel t = first_hop;
    t.form = CB_FW_IPIP;
    static const struct {
        uint32_t first, second;
        int to; /* slot, -1: it stays */
    } rows[] = {{0, CB_FW_NOBODY, -1},
                {0, OTHER, OTHER},
                {OTHER, 0, OTHER},
                {OTHER, CB_FW_NOBODY, OTHER},
                {OTHER, PEER, OTHER},
                {0, 0, -1},
                {CB_FW_NOBODY, CB_FW_NOBODY, -1},
                {CB_FW_NOBODY, OTHER, -1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fw_lab_table(&s.lab, rows[i].first, rows[i].second);
        fw_tunnel_make(&s.lab.control, &f, &t, &p);
        cr_expect_eq(fw_lab_run(&s.lab, &f), rows[i].to < 0 ? XDP_PASS : XDP_TX, "row %zu", i);
        if (rows[i].to >= 0) cr_expect_eq(s.lab.out.b[5], rows[i].to, "row %zu", i);
    }
    close_stage(&s);
}

/* What comes as an ordinary packet from another host (CB_FW_MAC) is not forwarded like one from outside. */
Test(forward_hop, what_is_handed_over_as_it_is_goes_on_by_gue_only) {
    stage s;
    fw_frame f;
    open_stage(&s);
    const fw_spec p = tcp_from(false, 40001, ACK);
    static const struct {
        uint32_t first, second;
        int to; /* slot, -1: it stays */
    } rows[] = {{0, CB_FW_NOBODY, -1},        {0, OTHER, OTHER},    {OTHER, 0, OTHER},
                {OTHER, CB_FW_NOBODY, OTHER}, {OTHER, PEER, OTHER}, {CB_FW_NOBODY, CB_FW_NOBODY, -1}};
    fw_lab_member(&s.lab, OTHER, "192.0.2.6", CB_FW_MAC);
    for (int apart = 0; apart < 2; apart++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            if (!apart && rows[i].first != OTHER) continue; /* from outside, for all that can be seen */
            fw_lab_interface(&s.lab, apart ? CB_FW_UNDERLAY : CB_FW_EDGE | CB_FW_UNDERLAY);
            fw_lab_table(&s.lab, rows[i].first, rows[i].second);
            fw_frame_make(&f, &p);
            if (!apart) memcpy(f.b + 6, (uint8_t[]){2, 0, 0, 0, 1, OTHER}, 6); /* by whom it would be sent to */
            cr_expect_eq(fw_lab_run(&s.lab, &f), rows[i].to < 0 ? XDP_PASS : XDP_TX, "row %zu", i);
            if (rows[i].to < 0) {
                cr_expect(fw_lab_only(&s.lab, CB_FW_N_LOCAL, -1), "row %zu", i);
                continue;
            }
            is_sent(&s, &p, 2, CB_FW_FINAL, 0, "handed over");
            cr_expect(s.lab.out.b[5] == rows[i].to && fw_lab_only(&s.lab, CB_FW_N_SECOND_HOP, -1), "row %zu", i);
        }
    close_stage(&s);
}

/* Whoever floods ends no connection of the other owner: there is no RST. */
Test(forward_hop, above_the_rate_tcp_is_dropped_and_quic_stays) {
    stage s;
    fw_frame f;
    uint8_t packet[64];
    open_stage(&s);
    const fw_spec quic = udp_from(false, 443, packet, quic_packet(packet, &quic_cases[0]));
    const fw_spec p = tcp_from(false, 40001, ACK);
    s.lab.control.hop_rate = 0;
    fw_lab_control(&s.lab);
    fw_frame_make(&f, &quic);
    cr_expect_eq(fw_lab_run(&s.lab, &f), XDP_PASS);
    cr_expect(fw_lab_only(&s.lab, CB_FW_N_RATE_LIMITED, -1));
    fw_frame_make(&f, &p);
    cr_expect_eq(fw_lab_run(&s.lab, &f), XDP_DROP);
    cr_expect(fw_lab_only(&s.lab, CB_FW_N_RATE_LIMITED, -1));
    s.lab.control.hop_rate = 100; /* ten at once, and no more than a hundred a second */
    fw_lab_control(&s.lab);
    unsigned sent = 0;
    for (int i = 0; i < 60; i++)
        sent += fw_lab_run(&s.lab, &f) == XDP_TX;
    cr_expect(sent >= 9 && sent <= 40, "%u of 60 were sent", sent);
    usleep(200000);
    cr_expect_eq(fw_lab_run(&s.lab, &f), XDP_TX);
    const int listener = listen_at(false, 0); /* what needs no second hop needs no rate */
    s.lab.control.hop_rate = 0;
    fw_lab_control(&s.lab);
    const fw_spec syn = tcp_from(false, 40001, SYN);
    stays(&s, &syn, "a SYN during a flood");
    close(listener);
    close_stage(&s);
}

#endif

/* A PoP of hosts whose tables differ: each has the program with maps of its own, a network namespace with real sockets,
 * and a copy of the table that is some records behind. Packets come to any of them, and are carried from host to host
 * as they leave. None goes around, and each finds the host that its connection lives on. */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(forward_pop, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "forward.skel.h"
#include "support/fw_netns.h"
#include "support/fw_tunnel.h"
#include "support/lb_rig.h"
#include <bpf/bpf.h>
#include <linux/bpf.h>

enum { HOSTS = 4, FLOWS = 160, ETH = 14, ID = 100, SYN = 2, ACK = 16, FIRST_PORT = 10000 };

static const char *const client_of[] = {"198.51.100.7", "2001:db8:c::7"};
static const char *const vip_of[] = {"203.0.113.1", "2001:db8:f::1"};

typedef struct place { /* a host */
    fw_lab lab;
    cb_lb_table *table;
    size_t applied;
    int netns, listener[2], slot;
    char address[2][32];
} place;

typedef struct flow {
    bool live, six, quic;
    int owner, client, server;
    uint64_t bucket_hash;
} flow;

typedef struct pop {
    rig r;
    place host[HOSTS];
    flow flows[FLOWS];
    uint64_t x, packets, hops[CB_FW_HOPS + 2];
    bool apart; /* hosts have an interface of its own for what they send each other */
    fw_netns ns;
} pop;

static uint64_t step(uint64_t *x) {
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

static uint32_t below(pop *p, uint32_t n) {
    return (uint32_t)(step(&p->x) % n);
}

static void go_to(const place *h) {
    cr_assert_eq(setns(h->netns, CLONE_NEWNET), 0);
}

static void host_takes_table(place *h) {
    size_t n = 0;
    const uint64_t *words = cb_lb_table_words(h->table, &n);
    for (uint32_t i = 0; i < n; i++)
        cr_assert_eq(bpf_map_update_elem(bpf_map__fd(h->lab.skel->maps.table), &i, &words[i], BPF_ANY), 0);
}

static void host_applies(pop *p, int at) {
    place *h = &p->host[at];
    if (h->applied >= p->r.n) return;
    cr_assert_eq(cb_lb_table_apply(h->table, (cb_slice){p->r.log[h->applied].base, p->r.log[h->applied].len}), CB_OK);
    h->applied++;
    cb_lb_writer_ack(p->r.writer, ID + (uint32_t)at, h->applied);
    host_takes_table(h);
}

static void host_reports(pop *p, int at) {
    for (uint32_t b = 0; b < FW_LAB_BUCKETS; b++) {
        cb_lb_owner o;
        bool busy = false;
        cb_lb_table_bucket(p->r.table, b, &o);
        if (o.phase != CB_LB_MOVED || o.second != ID + (uint32_t)at) continue;
        for (size_t i = 0; i < FLOWS && !busy; i++)
            busy = p->flows[i].live && p->flows[i].owner == at &&
                   cb_lb_bucket(p->flows[i].bucket_hash, FW_LAB_BUCKETS) == b;
        if (!busy) cr_assert_geq(cb_lb_writer_idle(p->r.writer, o.second, b, p->r.now), 0);
    }
}

static fw_spec packet_of(const pop *p, const flow *f, uint8_t flags) {
    static uint8_t initial[64] = {0xc0, 0, 0, 0, 1, 8};
    const uint32_t number = (uint32_t)(f - p->flows);
    fw_spec s = {.source = client_of[f->six],
                 .destination = vip_of[f->six],
                 .sport = (uint16_t)(FIRST_PORT + number),
                 .dport = 443,
                 .protocol = f->quic ? IPPROTO_UDP : IPPROTO_TCP,
                 .flags = flags};
    if (!f->quic) return s;
    initial[6] = 0xd0; /* the client's ID */
    memcpy(initial + 7, &number, sizeof number);
    s.payload = initial;
    s.payload_bytes = sizeof initial;
    return s;
}

/* From host to host, from `at` on: where it is delivered. */
static int carry(pop *p, int at, const fw_spec *s) {
    fw_frame f;
    fw_frame_make(&f, s);
    const size_t whole = f.n;
    f.b[4] = 9; /* the router's */
    f.b[11] = 99;
    p->packets++;
    for (int hop = 0;; hop++) {
        place *h = &p->host[at];
        go_to(h);
        if (p->apart) fw_lab_interface(&h->lab, hop ? CB_FW_UNDERLAY : CB_FW_EDGE | CB_FW_UNDERLAY);
        const int verdict = fw_lab_run(&h->lab, &f);
        if (verdict == XDP_PASS) {
            cr_assert(h->lab.out.n == whole, "it was delivered in an encapsulation");
            p->hops[hop]++;
            return at;
        }
        if (verdict != XDP_TX)
            for (uint32_t i = 0; i < CB_FW_N_ALL; i++)
                cr_expect_eq(fw_lab_counted(&h->lab, i), 0U, "counter %u of host %d rose", i, at);
        cr_assert_eq(verdict, XDP_TX, "host %d: verdict %d", at, verdict);
        cr_assert_leq(hop, CB_FW_HOPS, "it goes around"); /* by MAC once more */
        f = h->lab.out;
        cr_assert(f.b[4] == 1 && f.b[5] < CB_FW_MEMBERS);
        int next = -1;
        for (int i = 0; i < HOSTS; i++)
            if (p->host[i].slot == f.b[5]) next = i;
        cr_assert(next >= 0 && next != at, "host %d sends it to slot %d", at, f.b[5]);
        at = next;
    }
}

static void knows(pop *p, const flow *f, bool known) {
    const fw_spec s = packet_of(p, f, 0);
    struct cb_fw_dcid key = {.length = 8};
    const uint64_t n = 1;
    memcpy(key.bytes, s.payload + 6, 8);
    const int fd = bpf_map__fd(p->host[f->owner].lab.skel->maps.live);
    if (known)
        cr_assert_eq(bpf_map_update_elem(fd, &key, &n, BPF_ANY), 0);
    else
        cr_assert_eq(bpf_map_delete_elem(fd, &key), 0);
}

static void begin(pop *p, flow *f) {
    f->quic = below(p, 3) == 0;
    f->six = below(p, 2);
    const fw_spec s = packet_of(p, f, SYN);
    f->owner = carry(p, (int)below(p, HOSTS), &s);
    f->bucket_hash = fw_lab_hash(&p->host[0].lab, &s);
    f->live = true;
    if (f->quic) {
        knows(p, f, true);
        return;
    }
    place *h = &p->host[f->owner];
    go_to(h);
    f->client = fw_netns_socket(client_of[f->six], SOCK_STREAM, s.sport);
    fw_netns_reach(f->client, vip_of[f->six], 443);
    f->server = accept(h->listener[f->six], NULL, NULL);
    cr_assert(f->server >= 0);
}

static void end(pop *p, flow *f) {
    const struct linger at_once = {.l_onoff = 1};
    f->live = false;
    if (f->quic) {
        knows(p, f, false);
        return;
    }
    setsockopt(f->client, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    setsockopt(f->server, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(f->client);
    close(f->server);
}

static void packet(pop *p, flow *f) {
    const int at = (int)below(p, HOSTS);
    if (!f->live && below(p, 4)) {
        begin(p, f);
        return;
    }
    const fw_spec s = packet_of(p, f, ACK); /* of one that has ended: somebody gets it, and answers with RST */
    const int got = carry(p, at, &s);
    cr_assert(!f->live || got == f->owner,
              "flow %d lives at host %d; host %d, %zu records behind, had it delivered to host %d", (int)(f - p->flows),
              f->owner, at, p->r.n - p->host[at].applied, got);
}

static void change(pop *p) {
    const uint32_t who = 1 + below(p, HOSTS - 1), weight = 1 + below(p, 9);
    member(&p->r, ID + who, weight, below(p, 4) ? CB_LB_UP : CB_LB_DRAINING);
}

static void open_host(pop *p, int at) {
    place *h = &p->host[at];
    h->slot = cb_lb_table_seat(p->r.table, ID + (uint32_t)at);
    snprintf(h->address[0], sizeof h->address[0], "192.0.2.%d", 1 + at);
    snprintf(h->address[1], sizeof h->address[1], "2001:db8::%d", 1 + at);
    fw_lab_open(&h->lab);
    h->lab.control.self = ID + (uint32_t)at;
    h->lab.control.self_slot = (uint32_t)h->slot;
    inet_pton(AF_INET, h->address[0], h->lab.control.address4);
    inet_pton(AF_INET6, h->address[1], h->lab.control.address6);
    fw_lab_control(&h->lab);
    for (int six = 0; six < 2; six++) {
        fw_lab_vip(&h->lab, vip_of[six], 443, IPPROTO_TCP, 0);
        fw_lab_vip(&h->lab, vip_of[six], 443, IPPROTO_UDP, CB_FW_QUIC);
    }
    cr_assert_eq(cb_lb_table_new(&h->table, CB_OPTS(cb_lb_table_opts, .key = key)), CB_OK);
    cr_assert_eq(unshare(CLONE_NEWNET), 0);
    h->netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    fw_netns_run("ip link set lo up");
    for (int six = 0; six < 2; six++) {
        fw_netns_address(client_of[six]);
        fw_netns_address(vip_of[six]);
        h->listener[six] = fw_netns_socket(vip_of[six], SOCK_STREAM, 443);
        cr_assert_eq(listen(h->listener[six], 64), 0);
    }
}

/* Each host knows all, by addresses of both families; form: to even and to odd hosts. */
static void introduce(pop *p, const int form[2]) {
    for (int at = 0; at < HOSTS; at++)
        for (int i = 0; i < HOSTS; i++) {
            const uint32_t slot = (uint32_t)p->host[i].slot;
            fw_lab_member(&p->host[at].lab, slot, p->host[i].address[at & 1], form[i & 1]);
            struct cb_fw_member m = fw_lab_member(&p->host[at].lab, slot, p->host[i].address[!(at & 1)], form[i & 1]);
            m.id = ID + (uint32_t)i;
            memcpy(m.source, (uint8_t[]){2, 0, 0, 0, 1, (uint8_t)p->host[at].slot}, 6);
            fw_lab_member_put(&p->host[at].lab, slot, &m);
        }
}

static void play(pop *p, int packets) {
    while (packets) {
        const uint32_t what = below(p, 1000);
        const int h = (int)below(p, HOSTS);
        if (what < 20) {
            p->r.now += S / 4;
            run(&p->r);
        } else if (what < 60) {
            if (h || below(p, 4) == 0) host_applies(p, h); /* one is slower than the others */
        } else if (what < 80) {
            host_reports(p, h);
        } else if (what < 84) {
            change(p);
        } else if (what < 150) {
            flow *f = &p->flows[below(p, FLOWS)];
            if (f->live) end(p, f);
        } else {
            packet(p, &p->flows[below(p, FLOWS)]);
            packets--;
        }
    }
}

static pop *open_pop(int even, int odd, bool apart) {
    pop *p = calloc(1, sizeof *p);
    cr_assert_not_null(p);
    p->x = 0x9e3779b97f4a7c15u + (unsigned)(even * 8 + odd);
    p->apart = apart;
    make_of(&p->r,
            &(cb_lb_writer_opts){
                .buckets = FW_LAB_BUCKETS, .moves_per_step = 150, .ack_ms = UINT32_MAX, .settle_ms = UINT32_MAX});
    for (uint32_t i = 0; i < HOSTS; i++)
        member(&p->r, ID + i, 5, CB_LB_UP);
    run(&p->r);
    fw_lab_open(&p->host[0].lab); /* is skipped here, if at all */
    fw_lab_close(&p->host[0].lab);
    fw_netns_enter(&p->ns);
    for (int i = 0; i < HOSTS; i++)
        open_host(p, i);
    introduce(p, (const int[2]){even, odd});
    for (int i = 0; i < HOSTS; i++)
        while (p->host[i].applied < p->r.n)
            host_applies(p, i);
    return p;
}

static void close_pop(pop *p) {
    for (size_t i = 0; i < FLOWS; i++)
        if (p->flows[i].live) end(p, &p->flows[i]);
    for (int i = 0; i < HOSTS; i++) {
        close(p->host[i].listener[0]);
        close(p->host[i].listener[1]);
        close(p->host[i].netns);
        fw_lab_close(&p->host[i].lab);
        cb_lb_table_free(p->host[i].table);
    }
    fw_netns_leave(&p->ns);
    drop(&p->r);
    free(p);
}

static void run_pop(int even, int odd, bool apart) {
    pop *p = open_pop(even, odd, apart);
    play(p, 6000);
    cb_lb_writer_stats w = {.size = sizeof w};
    cb_lb_writer_stats_get(p->r.writer, &w);
    cr_expect_gt(w.moves, 200, "%d moves", (int)w.moves);
    cr_expect(p->hops[0] > 100 && p->hops[1] > 1000 && p->hops[2] > 50, "delivered by hops: %d %d %d %d",
              (int)p->hops[0], (int)p->hops[1], (int)p->hops[2], (int)p->hops[3]);
    close_pop(p);
}

/* ---- whatever comes ---- */

/* Tables that have nothing to do with each other: more than any delay of the log could do. */
static void disagree(pop *p) {
    for (int at = 0; at < HOSTS; at++)
        for (uint32_t i = 0; i < FW_LAB_BUCKETS; i++) {
            const uint32_t second = below(p, 3) ? (uint32_t)p->host[below(p, HOSTS)].slot : CB_FW_NOBODY;
            const uint64_t word = (uint64_t)p->host[below(p, HOSTS)].slot | (uint64_t)second << 16 | 1ULL << 32;
            cr_assert_eq(bpf_map_update_elem(bpf_map__fd(p->host[at].lab.skel->maps.table), &i, &word, BPF_ANY), 0);
        }
}

/* A packet of some kind: TCP, QUIC, a piece, an ICMP error; as it is, or as another host would send it. */
static void any_frame(pop *p, fw_frame *f) {
    static uint8_t quote[FW_FRAME_MAX], packet[FW_FRAME_MAX];
    flow some = {.six = below(p, 2), .quic = below(p, 2)};
    p->flows[0] = some;
    fw_spec s = packet_of(p, &p->flows[0], (uint8_t)below(p, 64));
    s.sport = (uint16_t)below(p, 65536);
    const uint32_t kind = below(p, 8);
    if (kind < 2) {
        s.more = true;
        s.id = below(p, 8);
        s.offset = kind ? 64 : 0;
        s.payload = quote;
        s.payload_bytes = some.quic || kind ? 64 : 60;
    } else if (kind < 4) { /* turned around: what the VIP sent */
        fw_spec v = s;
        v.source = s.destination;
        v.destination = s.source;
        v.sport = 443;
        v.dport = s.sport;
        s.protocol = some.six ? IPPROTO_ICMPV6 : IPPROTO_ICMP;
        s.icmp_type = some.six ? 2 : 3;
        s.icmp_code = some.six ? 0 : 4;
        s.payload_bytes = fw_packet_make(quote, &v);
        s.payload = quote;
    }
    const size_t n = fw_packet_make(packet, &s);
    const place *from = &p->host[below(p, HOSTS)], *to = &p->host[below(p, HOSTS)];
    const fw_tunnel t = {.from = from->address[0],
                         .to = to->address[0],
                         .form = (int)below(p, 2),
                         .hop = (uint8_t)below(p, 5),
                         .flags = (uint8_t)below(p, 8),
                         .key = 1,
                         .previous = ID + below(p, HOSTS + 1)};
    if (below(p, 2))
        fw_tunnel_wrap(&from->lab.control, f, &t, packet, n);
    else
        fw_frame_make(f, &s);
    for (uint32_t i = below(p, 3) ? 0 : 1 + below(p, 4); i > 0; i--) /* and what may happen to it */
        f->b[12 + below(p, (uint32_t)(f->n < 120 ? f->n : 120) - 12)] ^= (uint8_t)(1u << below(p, 8));
}

/* How often it was sent on before it ended somewhere. */
static int wander(pop *p, int at, fw_frame *f) {
    for (int sent = 0;; sent++) {
        place *h = &p->host[at];
        go_to(h);
        if (p->apart) fw_lab_interface(&h->lab, sent ? CB_FW_UNDERLAY : CB_FW_EDGE | CB_FW_UNDERLAY);
        if (fw_lab_run(&h->lab, f) != XDP_TX) return sent;
        uint64_t counted = 0;
        for (uint32_t i = 0; i < CB_FW_N_ALL; i++)
            counted += fw_lab_counted(&h->lab, i);
        cr_assert_gt(counted, 0U, "what is sent is counted");
        *f = h->lab.out;
        int next = -1;
        for (int i = 0; i < HOSTS; i++)
            if (f->b[4] == 1 && p->host[i].slot == f->b[5]) next = i;
        if (next < 0) return sent; /* an answer to who sent it */
        cr_assert_lt(sent, CB_FW_HOPS, "it goes around");
        at = next;
    }
}

static void wander_in_pop(int even, int odd) {
    pop *p = open_pop(even, odd, true);
    fw_frame f;
    uint64_t ended[CB_FW_HOPS + 1] = {0};
    for (int i = 0; i < 8000; i++) {
        if (i % 2000 == 0) disagree(p);
        any_frame(p, &f);
        f.b[4] = 9;
        f.b[11] = 99;
        ended[wander(p, (int)below(p, HOSTS), &f)]++;
    }
    p->flows[0].live = false;
    cr_expect(ended[0] > 1000 && ended[1] > 500 && ended[2] > 200, "ended after hops: %d %d %d %d", (int)ended[0],
              (int)ended[1], (int)ended[2], (int)ended[3]);
    close_pop(p);
}

Test(forward_pop, nothing_goes_around_whatever_tables_and_packets_say) {
    wander_in_pop(CB_FW_GUE, CB_FW_IPIP);
}

Test(forward_pop, nothing_goes_around_as_it_is) {
    wander_in_pop(CB_FW_MAC, CB_FW_MAC);
}

Test(forward_pop, every_packet_finds_its_connection_by_gue) {
    run_pop(CB_FW_GUE, CB_FW_GUE, false);
}

Test(forward_pop, every_packet_finds_its_connection_by_ipip) {
    run_pop(CB_FW_IPIP, CB_FW_IPIP, false);
}

Test(forward_pop, every_packet_finds_its_connection_by_both) {
    run_pop(CB_FW_GUE, CB_FW_IPIP, true);
}

Test(forward_pop, every_packet_finds_its_connection_as_it_is) {
    run_pop(CB_FW_MAC, CB_FW_MAC, true);
}

Test(forward_pop, every_packet_finds_its_connection_as_it_is_by_one_interface) {
    run_pop(CB_FW_MAC, CB_FW_MAC, false);
}

Test(forward_pop, every_packet_finds_its_connection_in_any_form) {
    run_pop(CB_FW_MAC, CB_FW_GUE, false);
}

#endif

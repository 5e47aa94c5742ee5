/* AF_XDP without the network: rings in memory of the test's own, chunks and their owners, the table of peers, options
 * that are refused, and the XDP program packet by packet. */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(xsk, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "packet/frame.h"
#include "packet/peers.h"
#include "packet/xsk_int.h"
#include "xsk.h"
#include "xsk.skel.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a socket whose kernel is the test ---- */

enum { FRAMES = 64, CHUNK = 2048, SHIFT = 11 };

typedef struct fake {
    cb_xsk x;
    _Atomic uint32_t index[XSK_RINGS][3];
    uint64_t fill[FRAMES / 2], completion[FRAMES / 4];
    struct xdp_desc rx[FRAMES / 2], tx[FRAMES / 4];
} fake;

static void lay(fake *f, int i, xsk_ring *r, void *desc, uint32_t size, uint32_t start) {
    *r = (xsk_ring){.producer = &f->index[i][0],
                    .consumer = &f->index[i][1],
                    .flags = &f->index[i][2],
                    .desc = desc,
                    .size = size,
                    .mask = size - 1,
                    .mine = start,
                    .theirs = start};
    f->index[i][0] = f->index[i][1] = start;
}

static fake *new_fake(uint32_t start) {
    fake *f = calloc(1, sizeof *f);
    f->x.chunk_bytes = CHUNK;
    f->x.chunk_shift = SHIFT;
    f->x.interface.mtu = 1500;
    f->x.memory.base = malloc((size_t)FRAMES * CHUNK);
    cr_assert_eq(cb_chunks_init(&f->x.chunks, &cb_alloc_libc, FRAMES), CB_OK);
    lay(f, 0, &f->x.fill, f->fill, FRAMES / 2, start);
    lay(f, 1, &f->x.completion, f->completion, FRAMES / 4, start);
    lay(f, 2, &f->x.rx, f->rx, FRAMES / 2, start);
    lay(f, 3, &f->x.tx, f->tx, FRAMES / 4, start);
    return f;
}

static void free_fake(fake *f) {
    cb_chunks_clear(&f->x.chunks, &cb_alloc_libc);
    free(f->x.memory.base);
    free(f);
}

/* The kernel receives n frames: each takes a chunk of the fill ring. Returns how many it could. */
static uint32_t kernel_receives(fake *f, uint32_t n, uint32_t len) {
    uint32_t done = 0;
    while (done < n && f->index[0][1] != f->index[0][0] && f->index[2][0] - f->index[2][1] < f->x.rx.size) {
        const uint64_t addr = f->fill[f->index[0][1]++ & f->x.fill.mask];
        f->rx[f->index[2][0]++ & f->x.rx.mask] = (struct xdp_desc){.addr = addr + 256, .len = len};
        done++;
    }
    return done;
}

/* It sends what is in tx, and gives the chunks back. */
static uint32_t kernel_sends(fake *f) {
    uint32_t n = 0;
    for (; f->index[3][1] != f->index[3][0]; n++)
        f->completion[f->index[1][0]++ & f->x.completion.mask] = f->tx[f->index[3][1]++ & f->x.tx.mask].addr;
    return n;
}

static void publish_tx(fake *f) {
    xsk_ring_publish(&f->x.tx);
}

/* Indices wrap at 2^32: both starts must do the same. */
Test(xsk, frames_go_round_and_none_is_lost) {
    static const uint32_t starts[] = {0, UINT32_MAX - 100};
    for (size_t s = 0; s < 2; s++) {
        fake *f = new_fake(starts[s]);
        uint64_t received = 0, sent = 0;
        uint32_t seed = 7;
        for (int round = 0; round < 2000; round++) {
            cb_xsk_frame frames[CB_XSK_BATCH];
            seed = seed * 1103515245 + 12345;
            xsk_reap(&f->x);
            xsk_refill(&f->x);
            const uint32_t came = kernel_receives(f, seed >> 16 & 31, 100);
            uint32_t n = xsk_receive(&f->x, frames);
            cr_assert_eq(n, came);
            received += n;
            for (uint32_t i = 0; i < n; i++) {
                cr_assert_eq(frames[i].data, (uint8_t *)f->x.memory.base + frames[i].chunk * CHUNK + 256);
                cr_assert_eq(frames[i].room, CHUNK - 256);
                if (xsk_ring_room(&f->x.tx, 1) && i % 2) {
                    cr_assert_eq(xsk_put(&f->x, &frames[i]), CB_OK);
                    sent++;
                } else {
                    cr_assert_eq(cb_xsk_release(&f->x, &frames[i]), CB_OK);
                }
            }
            publish_tx(f);
            if (seed & 1 << 20) kernel_sends(f);
        }
        kernel_sends(f);
        xsk_reap(&f->x);
        cr_expect(received > 10000 && sent > 1000);
        cr_expect_eq(f->x.stats.rx_frames, received);
        cr_expect_eq(f->x.stats.tx_frames, sent);
        cr_expect_eq(f->x.chunks.user, 0);
        cr_expect_eq(f->x.chunks.free + (f->index[0][0] - f->index[0][1]), FRAMES, "each is free or waits in fill");
        free_fake(f);
    }
}

Test(xsk, a_quarter_is_kept_for_sending) {
    fake *f = new_fake(0);
    cb_xsk_frame frames[CB_XSK_BATCH];
    uint32_t held = 0;
    for (int i = 0; i < 10; i++) { /* a user who keeps everything */
        xsk_refill(&f->x);
        kernel_receives(f, 16, 60);
        held += xsk_receive(&f->x, frames);
    }
    cr_expect_eq(held, FRAMES * 3 / 4);
    cr_expect_eq(f->x.chunks.free, FRAMES / 4);
    cr_expect_eq(f->x.chunks.user, held);
    free_fake(f);
}

Test(xsk, a_frame_has_one_owner) {
    fake *f = new_fake(0);
    cb_xsk_frame one, other = {.chunk = FRAMES};
    cr_assert_eq(cb_xsk_take(&f->x, &one), CB_OK);
    cr_expect_eq(one.room, CHUNK);
    cr_expect_eq(cb_xsk_release(&f->x, &one), CB_OK);
    cr_expect_eq(cb_xsk_release(&f->x, &one), CB_EINVAL, "twice");
    cr_expect_eq(cb_xsk_release(&f->x, &other), CB_EINVAL, "there is no such chunk");
    one.len = 60;
    cr_expect_eq(xsk_put(&f->x, &one), CB_EINVAL, "it is not the caller's any more");
    cr_assert_eq(cb_xsk_take(&f->x, &one), CB_OK);
    one.len = 13;
    cr_expect_eq(xsk_put(&f->x, &one), CB_EINVAL, "no Ethernet header");
    one.len = 1519;
    cr_expect_eq(xsk_put(&f->x, &one), CB_EINVAL, "more than the MTU");
    one.len = 100;
    one.data += CHUNK - 99;
    cr_expect_eq(xsk_put(&f->x, &one), CB_EINVAL, "over the end of its chunk");
    one.data -= 1;
    cr_expect_eq(xsk_put(&f->x, &one), CB_OK, "up to the end of its chunk");
    one.data -= 2 * CHUNK;
    cr_expect_eq(xsk_put(&f->x, &one), CB_EINVAL, "in another chunk");
    free_fake(f);
}

Test(xsk, descriptors_that_cannot_be_are_not_followed) {
    fake *f = new_fake(0);
    cb_xsk_frame frames[CB_XSK_BATCH];
    xsk_refill(&f->x);
    kernel_receives(f, 4, 100);
    f->rx[0].addr = (uint64_t)FRAMES * CHUNK;
    f->rx[1].len = CHUNK;
    f->rx[2].addr = UINT64_MAX;
    cr_expect_eq(xsk_receive(&f->x, frames), 1);
    kernel_receives(f, 1, 100);
    f->rx[4].addr = f->rx[3].addr; /* the same once more */
    cr_expect_eq(xsk_receive(&f->x, frames), 0);
    f->completion[0] = UINT64_MAX;
    f->index[1][0]++;
    xsk_reap(&f->x);
    f->index[2][0] += 1000; /* a producer that runs away is bounded by the ring */
    cr_expect(xsk_receive(&f->x, frames) <= FRAMES / 2);
    free_fake(f);
}

/* ---- peers ---- */

Test(xsk, the_table_of_peers_is_bounded_and_forgets_the_oldest) {
    cb_peers p;
    cb_packet_addr a = {.family = 4, .ip = {10}}, first = a;
    cr_assert_eq(cb_peers_init(&p, &cb_alloc_libc, 0x1234), CB_OK);
    cr_expect_null(cb_peers_find(&p, &a, 1, false));
    for (uint32_t i = 0; i < 100000; i++) {
        a.ip[1] = (uint8_t)(i >> 16);
        a.ip[2] = (uint8_t)(i >> 8);
        a.ip[3] = (uint8_t)i;
        cb_peer_way *w = cb_peers_find(&p, &a, i + 1, true);
        cr_assert_eq(w->learnt_until, 0, "a new place knows nothing");
        w->learnt_until = i + 1;
        cr_assert_eq(cb_peers_find(&p, &a, i + 1, false), w);
        if (i % 64 == 0) cb_peers_find(&p, &first, i + 1, false); /* who is used stays */
    }
    cr_expect_not_null(cb_peers_find(&p, &first, 100001, false));
    cr_expect_not_null(cb_peers_find(&p, &a, 100001, false));
    a.family = 6;
    cr_expect_null(cb_peers_find(&p, &a, 100001, false), "the same bytes of the other family");
    size_t used = 0;
    for (size_t i = 0; i < PEERS_SETS * PEERS_WAYS; i++)
        used += p.ways[i].family != 0;
    cr_expect(used > PEERS_SETS * PEERS_WAYS * 9 / 10);
    cb_peers_clear(&p, &cb_alloc_libc);
}

/* ---- options ---- */

static const cb_xsk_ops no_ops = {.size = sizeof no_ops};

Test(xsk, opening_says_what_is_wrong) {
    cb_loop *loop = NULL;
    cb_xsk *x = NULL;
    cb_packet_io *io = NULL;
    cb_xsk_program *p = NULL;
    static const cb_packet_ops packet_ops = {.size = sizeof packet_ops};
    const cb_packet_io_opts *good = CB_OPTS(cb_packet_io_opts, .ops = &packet_ops);
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK);
    cr_expect_eq(cb_xsk_open(NULL, loop, NULL), CB_EINVAL);
    cr_expect_eq(cb_xsk_open(&x, loop, NULL), CB_EINVAL, "neither an interface nor a program");
    cr_expect_eq(cb_xsk_open(&x, loop, CB_OPTS(cb_xsk_opts, .interface = "lo")), CB_EINVAL, "no ops");
#define REFUSED(code, ...)                                                                                             \
    cr_expect_eq(cb_xsk_open(&x, loop, CB_OPTS(cb_xsk_opts, .ops = &no_ops, __VA_ARGS__)), code, "%s", cb_last_error())
    REFUSED(CB_EINVAL, .interface = "lo", .frames = 100);
    REFUSED(CB_EINVAL, .interface = "lo", .frames = 32);
    REFUSED(CB_EINVAL, .interface = "lo", .frame_bytes = 1024);
    REFUSED(CB_EINVAL, .interface = "lo", .queue = CB_XSK_QUEUES);
    REFUSED(CB_EINVAL, .interface = "lo", .mode = 3);
    REFUSED(CB_EINVAL, .interface = "lo", .attach = 3);
    REFUSED(CB_ENOENT, .interface = "no-such-if");
    REFUSED(CB_ENOENT, .interface = "a-name-that-is-longer-than-any");
    REFUSED(CB_ENOENT, .interface = "lo");
    cr_assert(strstr(cb_last_error(), "no Ethernet"), "%s", cb_last_error());
    cr_expect_eq(cb_xsk_program_new(NULL, NULL), CB_EINVAL);
    cr_expect_eq(cb_xsk_program_new(&p, NULL), CB_EINVAL);
    cr_expect_eq(cb_packet_io_open_xdp(&io, loop, "127.0.0.1:1", good, NULL), CB_EINVAL);
    cr_expect_eq(cb_packet_io_open_xdp(&io, loop, NULL, good, CB_OPTS(cb_xsk_opts, .interface = "lo")), CB_EINVAL);
    cr_expect_eq(
        cb_packet_io_open_xdp(&io, loop, "127.0.0.1:1", good, CB_OPTS(cb_xsk_opts, .interface = "lo", .ops = &no_ops)),
        CB_EINVAL);
    cr_expect_eq(cb_packet_io_open_xdp(&io, loop, "127.0.0.1:1", good, CB_OPTS(cb_xsk_opts, .interface = "lo")),
                 CB_ENOENT);
    cr_expect(!x && !io && !p);
    cb_xsk_free(NULL);
    cb_xsk_program_unref(NULL);
    cb_loop_free(loop);
}

/* ---- the program ---- */

typedef struct lab {
    struct xsk_bpf *skel;
    uint8_t frame[256];
    size_t len;
} lab;

static const uint8_t our_mac[6] = {2, 0, 0, 0, 0, 0xb};

static void open_lab(lab *l) {
    *l = (lab){.skel = xsk_bpf__open()};
    cr_assert_not_null(l->skel);
    const int rc = xsk_bpf__load(l->skel);
    if (rc == -EPERM) {
        xsk_bpf__destroy(l->skel);
        cr_skip_test("this process may not load BPF programs");
    }
    cr_assert_eq(rc, 0, "the verifier refuses the program: %d", rc);
}

static void rule(lab *l, const char *address, uint16_t port, uint8_t protocol, uint8_t family, uint32_t shape) {
    struct cb_xsk_state state = {.shapes = 0};
    struct cb_xsk_key key = {.port = htons(port), .protocol = protocol, .family = family};
    uint32_t zero = 0, one = 1;
    cb_packet_addr a;
    if (address) {
        cr_assert_eq(cb_packet_addr_parse(&a, address), CB_OK);
        memcpy(key.address, a.ip, sizeof key.address);
    }
    cr_assert_eq(bpf_map_lookup_elem(bpf_map__fd(l->skel->maps.state), &zero, &state), 0);
    state.shapes |= 1U << shape;
    memcpy(state.mac, our_mac, sizeof state.mac);
    cr_assert_eq(bpf_map_update_elem(bpf_map__fd(l->skel->maps.state), &zero, &state, BPF_ANY), 0);
    cr_assert_eq(bpf_map_update_elem(bpf_map__fd(l->skel->maps.rules), &key, &one, BPF_ANY), 0);
}

static void fill_frame(lab *l, int family) {
    frame_head h = {.ttl = 64};
    memset(l->frame, 0, sizeof l->frame);
    memcpy(h.to_mac, our_mac, 6);
    h.from_mac[0] = 2;
    cr_assert_eq(cb_packet_addr_parse(&h.local, family == 4 ? "192.0.2.1:1000" : "[2001:db8::1]:1000"), CB_OK);
    cr_assert_eq(cb_packet_addr_parse(&h.remote, family == 4 ? "192.0.2.2:53" : "[2001:db8::2]:53"), CB_OK);
    const uint32_t head = frame_headers((uint8_t)family);
    frame_write(l->frame + head, 40, &h);
    l->len = head + 40;
}

static uint64_t counter(const lab *l, uint32_t which) {
    uint64_t values[1024], all = 0; /* of each processor */
    const int cpus = libbpf_num_possible_cpus();
    cr_assert(cpus > 0 && cpus <= 1024);
    cr_assert_eq(bpf_map_lookup_elem(bpf_map__fd(l->skel->maps.counters), &which, values), 0);
    for (int i = 0; i < cpus; i++)
        all += values[i];
    return all;
}

/* Which counter moves when the frame comes. No queue has a socket here: what would be taken is CB_XSK_NO_SOCKET. */
static int fate(const lab *l) {
    uint64_t before[CB_XSK_COUNTERS];
    uint8_t out[512];
    int found = -1;
    for (uint32_t i = 0; i < CB_XSK_COUNTERS; i++)
        before[i] = counter(l, i);
    LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = l->frame, .data_size_in = (uint32_t)l->len, .data_out = out,
                .data_size_out = sizeof out, .repeat = 1);
    cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(l->skel->progs.cb_xsk), &o), 0);
    cr_assert_eq(o.retval, 2, "XDP_PASS");
    cr_assert(o.data_size_out == l->len && memcmp(out, l->frame, l->len) == 0, "the frame is as it was");
    for (uint32_t i = 0; i < CB_XSK_COUNTERS; i++) {
        const uint64_t now = counter(l, i);
        if (now == before[i]) continue;
        cr_assert(found < 0 && now == before[i] + 1);
        found = (int)i;
    }
    return found;
}

typedef struct poke {
    const char *what;
    int family, at; /* -1: nowhere */
    uint8_t value;
    int fate;
} poke;

Test(xsk, the_program_takes_what_rules_name_and_nothing_else) {
    static const poke rows[] = {
        {"what the rule names", 4, -1, 0, CB_XSK_NO_SOCKET},
        {"what the rule names, IPv6", 6, -1, 0, CB_XSK_NO_SOCKET},
        {"for another station", 4, 5, 9, CB_XSK_UNSUITABLE},
        {"broadcast", 4, 0, 0xff, CB_XSK_UNSUITABLE},
        {"ARP", 4, 13, 6, CB_XSK_PASSED},
        {"a VLAN tag", 4, 12, 0x81, CB_XSK_UNSUITABLE},
        {"options", 4, 14, 0x46, CB_XSK_UNSUITABLE},
        {"version 5", 4, 14, 0x55, CB_XSK_PASSED},
        {"more fragments", 4, 20, 0x20, CB_XSK_UNSUITABLE},
        {"a later fragment", 4, 21, 8, CB_XSK_UNSUITABLE},
        {"TCP to that port", 4, 23, 6, CB_XSK_PASSED},
        {"ICMP", 4, 23, 1, CB_XSK_PASSED},
        {"another address", 4, 33, 9, CB_XSK_PASSED},
        {"another port", 4, 37, 54, CB_XSK_PASSED},
        {"version 7", 6, 14, 0x70, CB_XSK_PASSED},
        {"hop-by-hop options", 6, 20, 0, CB_XSK_UNSUITABLE},
        {"routing header", 6, 20, 43, CB_XSK_UNSUITABLE},
        {"fragment header", 6, 20, 44, CB_XSK_UNSUITABLE},
        {"authentication header", 6, 20, 51, CB_XSK_UNSUITABLE},
        {"destination options", 6, 20, 60, CB_XSK_UNSUITABLE},
        {"mobility header", 6, 20, 135, CB_XSK_UNSUITABLE},
        {"host identity protocol", 6, 20, 139, CB_XSK_UNSUITABLE},
        {"shim6", 6, 20, 140, CB_XSK_UNSUITABLE},
        {"neighbour discovery", 6, 20, 58, CB_XSK_PASSED},
        {"another address of IPv6", 6, 53, 9, CB_XSK_PASSED},
        {"another port over IPv6", 6, 57, 54, CB_XSK_PASSED},
    };
    lab l;
    open_lab(&l);
    fill_frame(&l, 4);
    cr_expect_eq(fate(&l), CB_XSK_PASSED, "without rules");
    rule(&l, "192.0.2.2:53", 53, IPPROTO_UDP, 4, 0);
    rule(&l, "[2001:db8::2]:53", 53, IPPROTO_UDP, 6, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fill_frame(&l, rows[i].family);
        if (rows[i].at >= 0) l.frame[rows[i].at] = rows[i].value;
        const int got = fate(&l);
        cr_expect_eq(got, rows[i].fate, "%s: %d", rows[i].what, got);
    }
    xsk_bpf__destroy(l.skel);
}

Test(xsk, frames_that_are_cut_short_pass) {
    lab l;
    open_lab(&l);
    rule(&l, "192.0.2.2:53", 53, IPPROTO_UDP, 4, 0);
    rule(&l, "[2001:db8::2]:53", 53, IPPROTO_UDP, 6, 0);
    for (int family = 4; family <= 6; family += 2) {
        fill_frame(&l, family);
        const size_t ports = frame_headers((uint8_t)family) - 4;
        for (l.len = 14; l.len < ports; l.len++) /* the kernel tests no frames below 14 bytes */
            cr_expect_eq(fate(&l), CB_XSK_PASSED, "IPv%d, %zu bytes", family, l.len);
        l.len = ports;
        cr_expect_eq(fate(&l), CB_XSK_NO_SOCKET, "with both ports");
    }
    xsk_bpf__destroy(l.skel);
}

Test(xsk, rules_may_leave_things_open) {
    static const struct {
        const char *what, *address;
        uint16_t port;
        uint8_t protocol;
        uint32_t shape;
        bool tcp53, udp54, other53, icmp; /* besides UDP to 192.0.2.2:53, which all of them take */
    } rows[] = {
        {"any address", NULL, 53, 17, CB_XSK_OPEN_ADDRESS, false, false, true, false},
        {"any port", "192.0.2.2:1", 0, 17, CB_XSK_OPEN_PORT, false, true, false, false},
        {"any protocol", "192.0.2.2:1", 0, 255, CB_XSK_OPEN_PORT | CB_XSK_OPEN_PROTOCOL, true, true, false, true},
        {"anything", NULL, 0, 255, CB_XSK_OPEN_ADDRESS | CB_XSK_OPEN_PORT | CB_XSK_OPEN_PROTOCOL, true, true, true,
         true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lab l;
        open_lab(&l);
        rule(&l, rows[i].address, rows[i].port, rows[i].protocol, 4, rows[i].shape);
        fill_frame(&l, 4);
        cr_expect_eq(fate(&l), CB_XSK_NO_SOCKET, "%s", rows[i].what);
        l.frame[23] = 6;
        cr_expect_eq(fate(&l) == CB_XSK_NO_SOCKET, rows[i].tcp53, "%s: TCP", rows[i].what);
        l.frame[23] = 1;
        cr_expect_eq(fate(&l) == CB_XSK_NO_SOCKET, rows[i].icmp, "%s: ICMP", rows[i].what);
        fill_frame(&l, 4);
        l.frame[37] = 54;
        cr_expect_eq(fate(&l) == CB_XSK_NO_SOCKET, rows[i].udp54, "%s: port 54", rows[i].what);
        fill_frame(&l, 4);
        l.frame[33] = 9;
        cr_expect_eq(fate(&l) == CB_XSK_NO_SOCKET, rows[i].other53, "%s: another address", rows[i].what);
        fill_frame(&l, 6);
        cr_expect_eq(fate(&l), CB_XSK_PASSED, "%s: the other family", rows[i].what);
        xsk_bpf__destroy(l.skel);
    }
}

#endif

/* What the datapath costs packets that other hosts sent, or that stay here or go on by the sockets of this host, by the
 * kernel's test run (tests/bench/bpf/forward_in_bench.bpf.c), with real sockets in a network namespace:
 *   forward_in_speed ROUNDS REPEAT
 * prints for each row "name TAB median ns TAB smallest ns", all rows measured in turn in each round. Ends with 77 where
 * BPF programs may not be loaded or namespaces not be made. */
#include "forward.h"
#include "forward_in_bench.skel.h"
#include "fw_packet.h"
#include "siphash.h"
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ETH = 14, IP4 = 20, UDP = 8, PAYLOAD = 96, CANNOT = 77, ROUNDS_MAX = 101, CLIENT_PORT = 40000, BEFORE = 72 };
enum wrapping { NOTHING, IN_IPIP, IN_GUE };
enum flow { CONNECTED, UNKNOWN, NEW, QUIC_INITIAL };

typedef struct row {
    const char *name;
    enum wrapping wrapping;
    enum flow flow;
    int other; /* the bucket has another owner */
    int sent;  /* to whom it goes on */
    int floor;
} row;

static const row rows[] = {
    {"floor: 20 bytes off", IN_IPIP, CONNECTED, 0, 0, 1},
    {"floor: 52 bytes off", IN_GUE, CONNECTED, 0, 0, 1},
    {"out of IPIP", IN_IPIP, CONNECTED, 0, 0, 0},
    {"out of GUE", IN_GUE, CONNECTED, 0, 0, 0},
    {"out of GUE, another owner: the socket is here", IN_GUE, CONNECTED, 1, 0, 0},
    {"out of GUE, another owner: a SYN, and a listener", IN_GUE, NEW, 1, 0, 0},
    {"out of GUE, another owner: it goes on", IN_GUE, UNKNOWN, 1, 1, 0},
    {"out of GUE, another owner: a QUIC Initial is asked about", IN_GUE, QUIC_INITIAL, 1, 1, 0},
    {"from outside, another owner: the socket is here", NOTHING, CONNECTED, 1, 0, 0},
};
enum { ROWS = sizeof rows / sizeof *rows };

static void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "forward_in_speed: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void put(const struct bpf_map *map, const void *key, const void *value) {
    must(bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY) == 0, bpf_map__name(map));
}

/* ---- sockets ---- */

static struct sockaddr_in name(const char *address, uint16_t port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &at.sin_addr);
    return at;
}

/* A listener and one connection, in a namespace that ends with this process. */
static void connect_one(void) {
    const struct sockaddr_in vip = name("203.0.113.1", 443), client = name("198.51.100.7", CLIENT_PORT);
    if (unshare(CLONE_NEWNET) != 0) {
        fprintf(stderr, "forward_in_speed: no network namespace may be made: %s\n", strerror(errno));
        exit(CANNOT);
    }
    must(system("ip link set lo up && ip addr add 203.0.113.1/32 dev lo && ip addr add 198.51.100.7/32 dev lo") == 0,
         "ip");
    const int listener = socket(AF_INET, SOCK_STREAM, 0), from = socket(AF_INET, SOCK_STREAM, 0);
    must(bind(listener, (const struct sockaddr *)&vip, sizeof vip) == 0 && listen(listener, 4) == 0, "listen");
    must(bind(from, (const struct sockaddr *)&client, sizeof client) == 0, "bind");
    must(connect(from, (const struct sockaddr *)&vip, sizeof vip) == 0 && accept(listener, NULL, NULL) >= 0, "connect");
}

/* ---- the frame ---- */

typedef struct frame {
    size_t n;
    uint8_t b[256];
} frame;

static void put16(uint8_t *p, size_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void ip4(uint8_t *h, size_t bytes, uint8_t protocol, const char *from, const char *to) {
    h[0] = 0x45;
    put16(h + 2, bytes);
    h[8] = 64;
    h[9] = protocol;
    inet_pton(AF_INET, from, h + 12);
    inet_pton(AF_INET, to, h + 16);
}

static size_t inner(uint8_t *h, enum flow flow) {
    const int udp = flow == QUIC_INITIAL;
    const size_t bytes = (size_t)IP4 + (udp ? UDP : 20) + PAYLOAD;
    uint8_t *l4 = h + IP4;
    ip4(h, bytes, udp ? IPPROTO_UDP : IPPROTO_TCP, "198.51.100.7", "203.0.113.1");
    put16(l4, flow == CONNECTED ? CLIENT_PORT : CLIENT_PORT + 1);
    put16(l4 + 2, 443);
    if (udp) {
        put16(l4 + 4, UDP + PAYLOAD);
        memcpy(l4 + UDP, "\xc0\0\0\0\1\x08", 6);
        memset(l4 + UDP + 6, 0xff, 8); /* rotation 7: no server's */
    } else {
        l4[12] = 0x50;
        l4[13] = flow == NEW ? 0x02 : 0x10;
    }
    return bytes;
}

static void tag(const struct cb_fw_control *c, uint8_t *g) {
    uint64_t words[2] = {0};
    memcpy(words, g + CB_FW_GUE_BYTES + 12, 8);
    memcpy(&words[1], g + 8, 4);
    memcpy((uint8_t *)words + 12, g + 5, 3);
    ((uint8_t *)words)[15] = 15;
    struct sip v = sip_begin(c->tag_key[0][0], c->tag_key[0][1]);
    for (int i = 0; i < 2; i++)
        sip_word(&v, FW_LE64(words[i]));
    const uint64_t t = FW_LE64(sip_end(&v));
    memcpy(g + 16, &t, sizeof t);
}

static void make(frame *f, const row *r, const struct cb_fw_control *c) {
    memset(f, 0, sizeof *f);
    f->b[12] = 8;
    uint8_t *outer = f->b + ETH, *g = outer + IP4 + UDP;
    const size_t off = r->wrapping == IN_GUE ? IP4 + UDP + CB_FW_GUE_BYTES : r->wrapping == IN_IPIP ? IP4 : 0;
    const size_t bytes = inner(outer + off, r->flow);
    f->n = ETH + off + bytes;
    if (!off) return;
    ip4(outer, off + bytes, r->wrapping == IN_GUE ? IPPROTO_UDP : IPPROTO_IPIP, "192.0.2.2", "192.0.2.1");
    if (r->wrapping == IN_IPIP) return;
    put16(outer + IP4, 50000);
    put16(outer + IP4 + 2, CB_FW_GUE_PORT);
    put16(outer + IP4 + 4, off + bytes - IP4);
    const struct cb_fw_gue said = {.variant_length = CB_FW_GUE_WORDS,
                                   .protocol = IPPROTO_IPIP,
                                   .flags = htons(1),
                                   .private = CB_FW_PRIVATE,
                                   .hop = 1,
                                   .previous = htonl(r->other ? 2 : 0)};
    memcpy(g, &said, sizeof said);
    tag(c, g);
}

/* ---- measuring ---- */

static struct forward_in_bench_bpf *prepare(const row *r, frame *f) {
    struct cb_fw_control c = {.hash_key = {1, 2},
                              .tag_key = {{3, 4}},
                              .buckets = 1009,
                              .self = 1,
                              .hop_rate = UINT32_MAX,
                              .gue_port = htons(CB_FW_GUE_PORT),
                              .address4 = {192, 0, 2, 1}};
    struct forward_in_bench_bpf *skel = forward_in_bench_bpf__open();
    must(skel != NULL, "open");
    bpf_map__set_max_entries(skel->maps.table, c.buckets);
    make(f, r, &c);
    memcpy((void *)skel->rodata->before, f->b, BEFORE);
    skel->rodata->expected = r->sent ? XDP_TX : XDP_PASS;
    skel->rodata->less = r->sent || r->wrapping == NOTHING ? 0 : r->wrapping == IN_GUE ? 52 : 20;
    const int rc = forward_in_bench_bpf__load(skel);
    if (rc == -EPERM) {
        fprintf(stderr, "forward_in_speed: this process may not load BPF programs\n");
        exit(CANNOT);
    }
    must(rc == 0, "load");
    put(skel->maps.control, &(uint32_t){0}, &c);
    put(skel->maps.interfaces, &(uint32_t){1}, &(struct cb_fw_interface){.flags = CB_FW_EDGE | CB_FW_UNDERLAY});
    for (int udp = 0; udp < 2; udp++) {
        struct cb_fw_vip_key key = {.port = htons(443), .protocol = udp ? IPPROTO_UDP : IPPROTO_TCP};
        key.address[10] = key.address[11] = 0xff;
        inet_pton(AF_INET, "203.0.113.1", key.address + 12);
        put(skel->maps.vips, &key, &(struct cb_fw_vip){.index = 1, .flags = udp ? CB_FW_QUIC : 0});
    }
    for (uint32_t slot = 0; slot < 2; slot++) {
        const struct cb_fw_member m = {.id = slot + 1,
                                       .ifindex = 1,
                                       .flags = CB_FW_HERE | CB_FW_LIVE,
                                       .family = 4,
                                       .next_hop = {2, 0, 0, 0, 0, 1},
                                       .source = {2, 0, 0, 0, 0, 2},
                                       .address = {192, 0, 2, (uint8_t)(1 + slot)},
                                       .mtu = 1600};
        uint8_t address[16] = {[10] = 0xff, [11] = 0xff, 192, 0, 2, (uint8_t)(1 + slot)};
        put(skel->maps.members, &slot, &m);
        put(skel->maps.ids, &m.id, &slot);
        put(skel->maps.underlay, address, &slot);
    }
    const uint64_t word = (r->other ? 1ULL : CB_FW_NOBODY) << 16 | 1ULL << 32;
    for (uint32_t i = 0; i < c.buckets; i++)
        put(skel->maps.table, &i, &word);
    return skel;
}

static double measure(struct forward_in_bench_bpf *skel, const row *r, const frame *f, int repeat) {
    frame out;
    const struct bpf_program *program = r->floor ? skel->progs.floor_off : skel->progs.bench;
    LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = f->b, .data_size_in = (uint32_t)f->n, .data_out = out.b,
                .data_size_out = sizeof out.b, .repeat = repeat);
    must(bpf_prog_test_run_opts(bpf_program__fd(program), &run) == 0, "test run");
    if (skel->bss->wrong || run.data_size_out != f->n || memcmp(out.b, f->b, f->n) != 0) {
        fprintf(stderr, "forward_in_speed: %s: verdict %u, %llu packets went another way\n", r->name, run.retval,
                (unsigned long long)skel->bss->wrong);
        exit(1);
    }
    return run.duration;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap) {
    (void)level;
    (void)fmt;
    (void)ap;
    return 0;
}

int main(int argc, char **argv) {
    static struct forward_in_bench_bpf *skel[ROWS];
    static frame frames[ROWS];
    static double took[ROWS][ROUNDS_MAX];
    if (argc != 3) return 2;
    const int rounds = atoi(argv[1]), repeat = atoi(argv[2]);
    if (rounds < 1 || rounds > ROUNDS_MAX || repeat < 1) return 2;
    libbpf_set_print(quiet);
    connect_one();
    for (int i = 0; i < ROWS; i++)
        skel[i] = prepare(&rows[i], &frames[i]);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < ROWS; i++) {
            if (!round) measure(skel[i], &rows[i], &frames[i], repeat / 10 + 1); /* once for warmth */
            took[i][round] = measure(skel[i], &rows[i], &frames[i], repeat);
        }
    for (int i = 0; i < ROWS; i++) {
        qsort(took[i], (size_t)rounds, sizeof took[i][0], by_size);
        printf("%s\t%.0f\t%.0f\n", rows[i].name, took[i][rounds / 2], took[i][0]);
        forward_in_bench_bpf__destroy(skel[i]);
    }
    return 0;
}

/* What the datapath's program costs a packet, by the kernel's test run (tests/bench/bpf/forward_bench.bpf.c):
 *   forward_speed ROUNDS REPEAT [ROW...]
 * prints for each row "name TAB median ns TAB smallest ns", all rows measured in turn in each round. Row 0 is the
 * harness alone, rows 1 and 2 the harness with an encapsulation that only writes constants. Ends with 77 where BPF
 * programs may not be loaded. */
#include "forward_bench.skel.h"
#include "fw_cid.h"
#include "fw_near.h"
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <cb/quic_lb.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 65537, MEMBERS = 100, ROWS_MAX = 64, ROUNDS_MAX = 101, SERVER_SLOT = 42, CANNOT = 77 };
enum { ETH = 14, PAYLOAD = 96, FLOWS_64K = 1 << 16, FLOWS_1M = 1 << 20 };
enum special { PACKET, HARNESS, FLOOR_20, FLOOR_52, STRANGER, HERE, NO_INTERFACE };

typedef struct row {
    const char *name;
    int special, six, udp, quic; /* quic: 1 + codec; 1 + FW_CID_FOUR + 1: with a long server ID */
    int form, host6, previous;
    uint32_t flows;
} row;

static const row rows[] = {
    {"harness", HARNESS, 0, 0, 0, 0, 0, 0, 1},
    {"floor, 20 bytes", FLOOR_20, 0, 0, 0, 0, 0, 0, 1},
    {"floor, 52 bytes", FLOOR_52, 0, 0, 0, 0, 0, 0, 1},
    {"TCP, GUE with the other owner, 1 flow", PACKET, 0, 0, 0, CB_FW_GUE, 0, 1, 1},
    {"TCP, GUE with the other owner, 64 k flows", PACKET, 0, 0, 0, CB_FW_GUE, 0, 1, FLOWS_64K},
    {"TCP, GUE with the other owner, 1 M flows", PACKET, 0, 0, 0, CB_FW_GUE, 0, 1, FLOWS_1M},
    {"TCP, GUE, 1 M flows", PACKET, 0, 0, 0, CB_FW_GUE, 0, 0, FLOWS_1M},
    {"TCP, IPIP, 1 flow", PACKET, 0, 0, 0, CB_FW_IPIP, 0, 1, 1},
    {"TCP, IPIP, 64 k flows", PACKET, 0, 0, 0, CB_FW_IPIP, 0, 1, FLOWS_64K},
    {"TCP, IPIP, 1 M flows", PACKET, 0, 0, 0, CB_FW_IPIP, 0, 1, FLOWS_1M},
    {"TCP, MAC, 1 M flows", PACKET, 0, 0, 0, CB_FW_MAC, 0, 1, FLOWS_1M},
    {"UDP, GUE with the other owner, 1 flow", PACKET, 0, 1, 0, CB_FW_GUE, 0, 1, 1},
    {"UDP, GUE with the other owner, 64 k flows", PACKET, 0, 1, 0, CB_FW_GUE, 0, 1, FLOWS_64K},
    {"UDP, GUE with the other owner, 1 M flows", PACKET, 0, 1, 0, CB_FW_GUE, 0, 1, FLOWS_1M},
    {"QUIC, plain ID, 1 tuple", PACKET, 0, 1, 1 + FW_CID_PLAIN, CB_FW_GUE, 0, 1, 1},
    {"QUIC, plain ID, 1 M tuples", PACKET, 0, 1, 1 + FW_CID_PLAIN, CB_FW_GUE, 0, 1, FLOWS_1M},
    {"QUIC, plain ID, IPIP, 1 M tuples", PACKET, 0, 1, 1 + FW_CID_PLAIN, CB_FW_IPIP, 0, 1, FLOWS_1M},
    {"QUIC, one AES pass, 1 tuple", PACKET, 0, 1, 1 + FW_CID_ONE, CB_FW_GUE, 0, 1, 1},
    {"QUIC, one AES pass, 1 M tuples", PACKET, 0, 1, 1 + FW_CID_ONE, CB_FW_GUE, 0, 1, FLOWS_1M},
    {"QUIC, three passes of four, 1 M tuples", PACKET, 0, 1, 1 + FW_CID_FOUR, CB_FW_GUE, 0, 1, FLOWS_1M},
    {"QUIC, four passes of four, 1 M tuples", PACKET, 0, 1, 2 + FW_CID_FOUR, CB_FW_GUE, 0, 1, FLOWS_1M},
    {"TCP over IPv6, GUE over IPv4, 1 M flows", PACKET, 1, 0, 0, CB_FW_GUE, 0, 1, FLOWS_1M},
    {"TCP over IPv4, GUE over IPv6, 1 M flows", PACKET, 0, 0, 0, CB_FW_GUE, 1, 1, FLOWS_1M},
    {"TCP over IPv6, GUE over IPv6, 1 M flows", PACKET, 1, 0, 0, CB_FW_GUE, 1, 1, FLOWS_1M},
    {"TCP, delivered here, 1 M flows", HERE, 0, 0, 0, 0, 0, 0, FLOWS_1M},
    {"not for a VIP", STRANGER, 0, 0, 0, 0, 0, 0, FLOWS_1M},
    {"interface not configured", NO_INTERFACE, 0, 0, 0, 0, 0, 0, FLOWS_1M},
};
enum { ROWS = sizeof rows / sizeof *rows };
_Static_assert((int)ROWS <= (int)ROWS_MAX, "every row has a place");

static void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "forward_speed: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void put(const struct bpf_map *map, const void *key, const void *value) {
    must(bpf_map_update_elem(bpf_map__fd(map), key, value, BPF_ANY) == 0, bpf_map__name(map));
}

/* ---- the packet ---- */

typedef struct frame {
    size_t n;
    uint8_t b[256];
} frame;

static const uint8_t server_id[10] = "server-42";
static const uint8_t cid_key[16] = "0123456789abcde";

static void id_lengths(const row *r, size_t *id, size_t *nonce) {
    *id = r->quic == 2 + FW_CID_FOUR ? 9 : 8;
    *nonce = r->quic == 1 + FW_CID_FOUR ? 9 : 8;
}

/* A connection ID of our server: the inverse of what the program computes. */
static void write_cid(const row *r, uint8_t *cid) {
    size_t id, nonce;
    id_lengths(r, &id, &nonce);
    cb_quic_lb *lb = NULL;
    const uint8_t zeros[18] = {0};
    const cb_quic_lb_opts o = {.size = sizeof o,
                               .server_id = server_id,
                               .server_id_bytes = (uint32_t)id,
                               .nonce_bytes = (uint32_t)nonce,
                               .no_host_bytes = 1,
                               .codec = r->quic > 1 + FW_CID_FOUR ? CB_QUIC_LB_AES_FOUR : r->quic - 1,
                               .key = r->quic == 1 + FW_CID_PLAIN ? NULL : cid_key};
    must(cb_quic_lb_new(&lb, &o) == CB_OK && cb_quic_lb_encode(lb, cid, 20, zeros, 0, 0) > 0, cb_last_error());
    cb_quic_lb_free(lb);
}

static void make(frame *f, const row *r) {
    memset(f, 0, sizeof *f);
    uint8_t *ip = f->b + ETH, *l4 = ip + (r->six ? 40 : 20);
    const size_t header = r->udp ? 8 : 20, bytes = header + PAYLOAD;
    f->n = (size_t)(l4 - f->b) + bytes;
    if (r->six) {
        f->b[12] = 0x86, f->b[13] = 0xdd;
        ip[0] = 0x60, ip[5] = (uint8_t)bytes, ip[6] = r->udp ? IPPROTO_UDP : IPPROTO_TCP, ip[7] = 64;
        inet_pton(AF_INET6, "2001:db8:c::7", ip + 8);
        inet_pton(AF_INET6, "2001:db8:f::1", ip + 24);
    } else {
        f->b[12] = 8;
        ip[0] = 0x45, ip[3] = (uint8_t)(20 + bytes), ip[8] = 64, ip[9] = r->udp ? IPPROTO_UDP : IPPROTO_TCP;
        inet_pton(AF_INET, r->special == STRANGER ? "203.0.113.9" : "203.0.113.1", ip + 16);
    }
    l4[2] = 443 >> 8, l4[3] = 443 & 255;
    if (r->udp)
        l4[5] = (uint8_t)bytes;
    else
        l4[12] = 0x50, l4[13] = 0x10;
    if (!r->quic) return;
    l4[8] = 0x41;
    write_cid(r, l4 + 9);
}

/* ---- the maps ---- */

static struct cb_fw_member member(uint32_t slot, const row *r) {
    struct cb_fw_member m = {.id = slot + 1,
                             .ifindex = 1,
                             .flags = CB_FW_HERE | CB_FW_LIVE,
                             .family = r->host6 ? 6 : 4,
                             .encapsulation = (uint8_t)r->form,
                             .next_hop = {2, 0, 0, 0, 0, 1},
                             .source = {2, 0, 0, 0, 0, 2},
                             .mtu = 1600};
    m.address[r->host6 ? 15 : 3] = (uint8_t)(slot + 1);
    return m;
}

/* As libcb-xdp does beside the hash maps; here nothing is in the way. */
static void put_near(struct forward_bench_bpf *skel, const struct fw_near_key *k, uint32_t first, uint32_t second) {
    struct cb_fw_near e = {.key = {k->word[0], k->word[1], k->word[2]}, .value = {first, second}}, before;
    uint32_t at = fw_near_place(k);
    must(bpf_map_lookup_elem(bpf_map__fd(skel->maps.near), &at, &before) == 0, "near");
    if (before.key[2]) at ^= 1;
    put(skel->maps.near, &at, &e);
}

static void fill(struct forward_bench_bpf *skel, const row *r) {
    struct cb_fw_control c = {.hash_key = {1, 2},
                              .tag_key = {{3, 4}},
                              .buckets = BUCKETS,
                              .self = r->special == HERE ? 1 : 0,
                              .gue_port = htons(CB_FW_GUE_PORT),
                              .near = 1 << CB_FW_NEAR_INTERFACE | 1 << CB_FW_NEAR_VIP | 1 << CB_FW_NEAR_SERVER,
                              .table_version = 9,
                              .address4 = {192, 0, 2, 1},
                              .address6 = {0x20, 1, 0xd, 0xb8, [15] = 1}};
    struct cb_fw_vip_key vip = {.port = htons(443), .protocol = r->udp ? IPPROTO_UDP : IPPROTO_TCP, .address = {0}};
    uint64_t mixed = 88172645463325252U;
    put(skel->maps.control, &(uint32_t){0}, &c);
    if (r->special != NO_INTERFACE)
        put_near(skel, &(struct fw_near_key[]){fw_near_interface(1)}[0], CB_FW_EDGE | CB_FW_UNDERLAY, 0);
    vip.address[10] = vip.address[11] = 0xff;
    inet_pton(AF_INET, "203.0.113.1", vip.address + 12);
    if (r->six) inet_pton(AF_INET6, "2001:db8:f::1", vip.address);
    const struct fw_near_key at =
        fw_near_vip(FW_LOAD(uint64_t, vip.address), FW_LOAD(uint64_t, vip.address + 8), vip.port, vip.protocol);
    put_near(skel, &at, 1, r->quic ? CB_FW_QUIC : 0);
    for (uint32_t slot = 0; slot < MEMBERS; slot++)
        put(skel->maps.members, &slot, &(struct cb_fw_member[]){member(slot, r)});
    for (uint32_t i = 0; i < BUCKETS; i++) {
        mixed ^= mixed << 13;
        mixed ^= mixed >> 7;
        mixed ^= mixed << 17;
        const uint32_t first = r->special == HERE ? 0 : (uint32_t)(mixed >> 33) % MEMBERS;
        const uint64_t word = first | (r->previous ? (first + 1) % MEMBERS : CB_FW_NOBODY) << 16 | 1ULL << 32;
        put(skel->maps.table, &i, &word);
    }
    if (!r->quic) return;
    size_t id, nonce;
    id_lengths(r, &id, &nonce);
    struct cb_fw_cid f;
    must(fw_cid_prepare(&f, r->quic > 1 + FW_CID_FOUR ? FW_CID_FOUR : r->quic - 1, (uint32_t)id, (uint32_t)nonce, 0,
                        cid_key) == 0,
         "configuration");
    struct cb_fw_server key = {.rotation_length = (uint8_t)id};
    put(skel->maps.cids, &(uint32_t){0}, &f);
    for (uint32_t slot = 0; slot < MEMBERS; slot++) {
        memcpy(key.server_id, server_id, id);
        if (slot != SERVER_SLOT) key.server_id[0] = (uint8_t)slot;
        const struct fw_near_key k =
            fw_near_server(FW_LOAD(uint64_t, &key), FW_LOAD(uint64_t, (const uint8_t *)&key + 8));
        put_near(skel, &k, slot, 0);
    }
}

static struct forward_bench_bpf *prepare(const row *r) {
    struct forward_bench_bpf *skel = forward_bench_bpf__open();
    must(skel != NULL, "open");
    bpf_map__set_max_entries(skel->maps.table, BUCKETS);
    bpf_map__set_max_entries(skel->maps.live, 1024);
    bpf_map__set_max_entries(skel->maps.fragments, 1024);
    const uint32_t sent = r->special == PACKET, gue = r->form == CB_FW_GUE ? 32 : 0;
    skel->rodata->flow_mask = r->flows - 1;
    skel->rodata->source_at = r->six ? ETH + 20 : ETH + 12;
    skel->rodata->ports = htonl(443);
    skel->rodata->ttl_at = ETH + (r->six ? 7 : 8);
    skel->rodata->port_at = r->six ? ETH + 40 : ETH + 20;
    skel->rodata->expected = sent ? XDP_TX : XDP_PASS;
    skel->rodata->more = sent && r->form != CB_FW_MAC ? (r->host6 ? 40 : 20) + gue : 0;
    skel->rodata->ether_type = r->six ? htons(0x86dd) : htons(0x0800);
    int rc = forward_bench_bpf__load(skel);
    if (rc == -EPERM) {
        fprintf(stderr, "forward_speed: this process may not load BPF programs\n");
        exit(CANNOT);
    }
    must(rc == 0, "load");
    fill(skel, r);
    return skel;
}

/* ---- measuring ---- */

static double measure(struct forward_bench_bpf *skel, const row *r, int repeat) {
    frame f, out;
    make(&f, r);
    const struct bpf_program *program = r->special == HARNESS    ? skel->progs.harness
                                        : r->special == FLOOR_20 ? skel->progs.floor_20
                                        : r->special == FLOOR_52 ? skel->progs.floor_52
                                                                 : skel->progs.bench;
    LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = f.b, .data_size_in = (uint32_t)f.n, .data_out = out.b,
                .data_size_out = sizeof out.b, .repeat = repeat);
    must(bpf_prog_test_run_opts(bpf_program__fd(program), &run) == 0, "test run");
    if (skel->bss->wrong || run.retval != (r->special < STRANGER ? XDP_TX : XDP_PASS) || run.data_size_out != f.n) {
        fprintf(stderr, "forward_speed: %s: verdict %u, %llu packets went another way\n", r->name, run.retval,
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
    static struct forward_bench_bpf *skel[ROWS];
    static double took[ROWS][ROUNDS_MAX];
    if (argc < 3) return 2;
    const int rounds = atoi(argv[1]), repeat = atoi(argv[2]);
    if (rounds < 1 || rounds > ROUNDS_MAX || repeat < 1) return 2;
    int chosen[ROWS], n = 0;
    for (int i = 3; i < argc && n < ROWS; i++)
        if (atoi(argv[i]) >= 0 && atoi(argv[i]) < ROWS) chosen[n++] = atoi(argv[i]);
    if (argc == 3)
        while (n < ROWS)
            chosen[n] = n, n++;
    libbpf_set_print(quiet);
    for (int i = 0; i < n; i++)
        skel[i] = prepare(&rows[chosen[i]]);
    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < n; i++) {
            if (!round) measure(skel[i], &rows[chosen[i]], repeat / 10 + 1); /* once for warmth */
            took[i][round] = measure(skel[i], &rows[chosen[i]], repeat);
        }
    for (int i = 0; i < n; i++) {
        qsort(took[i], (size_t)rounds, sizeof took[i][0], by_size);
        printf("%s\t%.0f\t%.0f\n", rows[chosen[i]].name, took[i][rounds / 2], took[i][0]);
        forward_bench_bpf__destroy(skel[i]);
    }
    return 0;
}

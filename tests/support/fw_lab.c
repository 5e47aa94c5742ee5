#ifdef CB_HAVE_XDP

#include "support/fw_lab.h"
#include "base/siphash.h"
#include "forward.skel.h"
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <cb/lb.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { ETH = 14 };

/* ---- packets ---- */

static void put16(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v) {
    put16(p, v >> 16);
    put16(p + 2, v & 0xffff);
}

static uint32_t get16(const uint8_t *p) {
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t sum_of(uint32_t sum, const uint8_t *p, size_t n) {
    for (size_t i = 0; i + 1 < n; i += 2)
        sum += get16(p + i);
    if (n & 1) sum += (uint32_t)p[n - 1] << 8;
    return sum;
}

static uint32_t folded(uint32_t sum) {
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return sum;
}

int fw_address(const char *text, uint8_t out[16]) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    memcpy(out, mapped, sizeof mapped);
    if (inet_pton(AF_INET, text, out + 12) == 1) return 4;
    cr_assert_eq(inet_pton(AF_INET6, text, out), 1, "%s is no address", text);
    return 6;
}

/* Of the pseudo header. */
static uint32_t pseudo(const uint8_t *ip, uint8_t protocol, size_t n) {
    const bool v4 = ip[0] >> 4 == 4;
    return sum_of((uint32_t)protocol + (uint32_t)n, v4 ? ip + 12 : ip + 8, v4 ? 8 : 32);
}

static size_t l4_make(uint8_t *out, const fw_spec *s) {
    size_t n = s->payload_bytes;
    if (s->offset) {
        memcpy(out, s->payload, n);
        return n;
    }
    put16(out, s->sport);
    put16(out + 2, s->dport);
    if (s->protocol == IPPROTO_TCP) {
        n = 20 + s->tcp_options_bytes;
        put32(out + 4, s->seq);
        put32(out + 8, s->ack);
        out[12] = (uint8_t)(n / 4 << 4);
        out[13] = s->flags ? s->flags : 0x10;
        put16(out + 14, 65535);
        if (s->tcp_options_bytes) memcpy(out + 20, s->tcp_options, s->tcp_options_bytes);
    } else if (s->protocol == IPPROTO_UDP) {
        n = 8;
        put16(out + 4, (uint32_t)(8 + s->payload_bytes));
    } else if (s->protocol == IPPROTO_ICMP || s->protocol == IPPROTO_ICMPV6) {
        n = 8;
        out[0] = s->icmp_type;
        out[1] = s->icmp_code;
        put16(out + 2, 0);
        put32(out + 4, s->icmp_rest);
    } else {
        n = 0;
    }
    if (s->payload_bytes) memcpy(out + n, s->payload, s->payload_bytes);
    return n + s->payload_bytes;
}

static int checksum_at(uint8_t protocol) {
    return protocol == IPPROTO_TCP                                  ? 16
           : protocol == IPPROTO_UDP                                ? 6
           : protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6 ? 2
                                                                    : -1;
}

static void l4_sum(const uint8_t *ip, uint8_t *l4, size_t n, uint8_t protocol) {
    const int at = checksum_at(protocol);
    if (at < 0) return;
    uint32_t sum = folded(sum_of(protocol == IPPROTO_ICMP ? 0 : pseudo(ip, protocol, n), l4, n)) ^ 0xffff;
    put16(l4 + at, sum || protocol != IPPROTO_UDP ? sum : 0xffff);
}

static size_t ip4_make(uint8_t *out, const fw_spec *s, const uint8_t *source, const uint8_t *destination) {
    const size_t header = 20 + s->options_bytes;
    cr_assert_eq(header % 4, 0U);
    out[0] = (uint8_t)(0x40 | header / 4);
    out[1] = s->tos;
    put16(out + 4, s->id);
    put16(out + 6, (uint32_t)(s->offset / 8 | (s->more ? 0x2000 : 0) | (s->dont ? 0x4000 : 0)));
    out[8] = s->ttl ? s->ttl : 64;
    out[9] = s->protocol;
    memcpy(out + 12, source + 12, 4);
    memcpy(out + 16, destination + 12, 4);
    if (s->options_bytes) memcpy(out + 20, s->options, s->options_bytes);
    const size_t n = l4_make(out + header, s);
    if (!s->offset) l4_sum(out, out + header, n, s->protocol);
    put16(out + 2, (uint32_t)(header + n));
    put16(out + 10, folded(sum_of(0, out, header)) ^ 0xffff);
    return header + n;
}

static size_t ip6_make(uint8_t *out, const fw_spec *s, const uint8_t *source, const uint8_t *destination) {
    const bool fragment = s->more || s->offset;
    size_t at = 40;
    put32(out, 0x60000000U | (uint32_t)s->tos << 20 | 0x12345);
    out[6] = s->options_bytes ? s->extension : fragment ? 44 : s->protocol;
    out[7] = s->ttl ? s->ttl : 64;
    memcpy(out + 8, source, 16);
    memcpy(out + 24, destination, 16);
    if (s->options_bytes) memcpy(out + at, s->options, s->options_bytes);
    at += s->options_bytes;
    if (fragment) {
        out[at] = s->protocol;
        put16(out + at + 2, (uint32_t)s->offset | s->more);
        put32(out + at + 4, s->id);
        at += 8;
    }
    const size_t n = l4_make(out + at, s);
    if (!s->offset) l4_sum(out, out + at, n, s->protocol);
    put16(out + 4, (uint32_t)(at - 40 + n));
    return at + n;
}

size_t fw_packet_make(uint8_t *out, const fw_spec *s) {
    uint8_t source[16], destination[16];
    const int family = fw_address(s->source, source);
    cr_assert_eq(fw_address(s->destination, destination), family);
    memset(out, 0, 128);
    return (family == 4 ? ip4_make : ip6_make)(out, s, source, destination);
}

void fw_frame_make(fw_frame *f, const fw_spec *s) {
    static const uint8_t stations[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
    cr_assert(s->payload_bytes + s->options_bytes + 128 < sizeof f->b);
    memcpy(f->b, stations, sizeof stations);
    f->n = ETH + fw_packet_make(f->b + ETH, s);
    put16(f->b + 12, f->b[ETH] >> 4 == 4 ? 0x0800 : 0x86dd);
}

bool fw_ip4_checksum_holds(const uint8_t *ip) {
    return folded(sum_of(0, ip, (size_t)(ip[0] & 15) * 4)) == 0xffff;
}

bool fw_l4_checksum_holds(const uint8_t *ip) {
    const bool v4 = ip[0] >> 4 == 4;
    const size_t header = v4 ? (size_t)(ip[0] & 15) * 4 : 40, n = v4 ? get16(ip + 2) - header : get16(ip + 4);
    const uint8_t protocol = v4 ? ip[9] : ip[6];
    return folded(sum_of(protocol == IPPROTO_ICMP ? 0 : pseudo(ip, protocol, n), ip + header, n)) == 0xffff;
}

/* ---- the lab ---- */

static void put(int fd, const void *key, const void *value) {
    cr_assert_eq(bpf_map_update_elem(fd, key, value, BPF_ANY), 0, "%s", strerror(errno));
}

static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap) {
    (void)level;
    (void)fmt;
    (void)ap;
    return 0;
}

void fw_lab_open(fw_lab *l) {
    memset(l, 0, sizeof *l);
    libbpf_set_print(quiet);
    l->skel = forward_bpf__open();
    cr_assert_not_null(l->skel, "%s", strerror(errno));
    bpf_map__set_max_entries(l->skel->maps.table, FW_LAB_BUCKETS);
    int rc = forward_bpf__load(l->skel);
    if (rc == -EPERM) {
        forward_bpf__destroy(l->skel);
        cr_skip_test("this process may not load BPF programs");
    }
    cr_assert_eq(rc, 0, "loading: %s", strerror(-rc));
    l->program = bpf_program__fd(l->skel->progs.forward);
    l->control = (struct cb_fw_control){.hash_key = {0x0706050403020100, 0x0f0e0d0c0b0a0908},
                                        .tag_key = {[1] = {0x1111222233334444, 0x5555666677778888}},
                                        .tag_current = 1,
                                        .buckets = FW_LAB_BUCKETS,
                                        .self = 100,
                                        .hop_rate = 1000000,
                                        .icmp_rate = 1000000,
                                        .table_version = 7,
                                        .gue_port = htons(CB_FW_GUE_PORT),
                                        .underlay_mtu = 1600,
                                        .address4 = {192, 0, 2, 1}};
    inet_pton(AF_INET6, "2001:db8::1", l->control.address6);
    fw_lab_control(l);
    fw_lab_interface(l, CB_FW_EDGE | CB_FW_UNDERLAY);
    fw_lab_table(l, CB_FW_NOBODY, CB_FW_NOBODY);
    fw_lab_member(l, 0, "192.0.2.1", CB_FW_GUE);
}

void fw_lab_close(fw_lab *l) {
    forward_bpf__destroy(l->skel);
    l->skel = NULL;
}

void fw_lab_control(fw_lab *l) {
    put(bpf_map__fd(l->skel->maps.control), &(uint32_t){0}, &l->control);
}

void fw_lab_interface(fw_lab *l, uint32_t flags) {
    put(bpf_map__fd(l->skel->maps.interfaces), &(uint32_t){1}, &(struct cb_fw_interface){.flags = flags});
}

void fw_lab_member_put(fw_lab *l, uint32_t slot, const struct cb_fw_member *m) {
    uint8_t address[16] = {[10] = 0xff, [11] = 0xff};
    if (m->family == 4)
        memcpy(address + 12, m->address, 4);
    else
        memcpy(address, m->address, 16);
    put(bpf_map__fd(l->skel->maps.members), &slot, m);
    put(bpf_map__fd(l->skel->maps.ids), &m->id, &slot);
    put(bpf_map__fd(l->skel->maps.underlay), address, &slot);
}

struct cb_fw_member fw_lab_member(fw_lab *l, uint32_t slot, const char *address, int encapsulation) {
    uint8_t bytes[16];
    struct cb_fw_member m = {.id = 100 + slot,
                             .ifindex = 1,
                             .flags = CB_FW_HERE | CB_FW_LIVE,
                             .encapsulation = (uint8_t)encapsulation,
                             .next_hop = {2, 0, 0, 0, 1, (uint8_t)slot},
                             .source = {2, 0, 0, 0, 0, 9},
                             .mtu = 1600};
    m.family = (uint8_t)fw_address(address, bytes);
    memcpy(m.address, m.family == 4 ? bytes + 12 : bytes, m.family == 4 ? 4 : 16);
    fw_lab_member_put(l, slot, &m);
    return m;
}

void fw_lab_vip(fw_lab *l, const char *address, uint16_t port, uint8_t protocol, uint32_t flags) {
    struct cb_fw_vip_key key = {.port = htons(port), .protocol = protocol};
    struct cb_fw_vip vip = {.index = port % CB_FW_VIPS, .flags = flags};
    fw_address(address, key.address);
    put(bpf_map__fd(l->skel->maps.vips), &key, &vip);
    key.port = 0;
    key.protocol = 0;
    put(bpf_map__fd(l->skel->maps.vips), &key, &vip);
}

void fw_lab_table(fw_lab *l, uint32_t first, uint32_t second) {
    const uint64_t word = first | (uint64_t)second << 16 | 1ULL << 32;
    for (uint32_t i = 0; i < FW_LAB_BUCKETS; i++)
        put(bpf_map__fd(l->skel->maps.table), &i, &word);
}

uint64_t fw_lab_hash(const fw_lab *l, const fw_spec *s) {
    uint8_t source[16], destination[16], tuple[37], key[16];
    const int family = fw_address(s->source, source);
    const size_t at = family == 4 ? 12 : 0, n = 16 - at;
    fw_address(s->destination, destination);
    memcpy(tuple, source + at, n);
    memcpy(tuple + n, destination + at, n);
    put16(tuple + 2 * n, s->sport);
    put16(tuple + 2 * n + 2, s->dport);
    tuple[2 * n + 4] = s->protocol;
    for (size_t i = 0; i < 16; i++)
        key[i] = (uint8_t)(l->control.hash_key[i / 8] >> (i % 8 * 8));
    return cb_siphash(key, tuple, 2 * n + 5);
}

uint64_t fw_lab_tuple(fw_lab *l, const fw_spec *s, uint32_t first, uint32_t second) {
    const uint64_t hash = fw_lab_hash(l, s), word = first | (uint64_t)second << 16 | 1ULL << 32;
    const uint32_t bucket = cb_lb_bucket(hash, FW_LAB_BUCKETS);
    put(bpf_map__fd(l->skel->maps.table), &bucket, &word);
    return hash;
}

static uint64_t counter(const fw_lab *l, uint32_t which) {
    uint64_t each[512] = {0}, sum = 0;
    const int cpus = libbpf_num_possible_cpus();
    cr_assert(cpus > 0 && cpus <= 512);
    cr_assert_eq(bpf_map_lookup_elem(bpf_map__fd(l->skel->maps.counters), &which, each), 0);
    for (int i = 0; i < cpus; i++)
        sum += each[i];
    return sum;
}

int fw_lab_run(fw_lab *l, const fw_frame *f) {
    LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = f->b, .data_size_in = (uint32_t)f->n, .data_out = l->out.b,
                .data_size_out = sizeof l->out.b, .repeat = 1);
    for (uint32_t i = 0; i < CB_FW_N_ALL; i++)
        l->before[i] = counter(l, i);
    cr_assert_eq(bpf_prog_test_run_opts(l->program, &run), 0, "%s", strerror(errno));
    l->out.n = run.data_size_out;
    l->verdict = (int)run.retval;
    return l->verdict;
}

uint64_t fw_lab_counted(fw_lab *l, enum cb_fw_counter which) {
    return counter(l, which) - l->before[which];
}

bool fw_lab_only(fw_lab *l, ...) {
    static const char *const names[] = {
#define NAME(name, label, help) label,
        CB_FW_COUNTERS(NAME)
#undef NAME
    };
    uint64_t want[CB_FW_N_ALL] = {0};
    bool good = true;
    va_list ap;
    va_start(ap, l);
    for (int which = va_arg(ap, int); which >= 0; which = va_arg(ap, int))
        want[which]++;
    va_end(ap);
    for (uint32_t i = 0; i < CB_FW_N_ALL; i++) {
        const uint64_t got = counter(l, i) - l->before[i];
        cr_expect_eq(got, want[i], "%s rose by %d, not by %d", names[i], (int)got, (int)want[i]);
        good &= got == want[i];
    }
    return good;
}

struct cb_fw_traffic fw_lab_traffic(fw_lab *l, bool vip, uint32_t at) {
    struct cb_fw_traffic each[512], sum = {0};
    const int cpus = libbpf_num_possible_cpus();
    const int fd = bpf_map__fd(vip ? l->skel->maps.vip_counters : l->skel->maps.member_counters);
    cr_assert_eq(bpf_map_lookup_elem(fd, &at, each), 0);
    for (int i = 0; i < cpus; i++) {
        sum.packets += each[i].packets;
        sum.bytes += each[i].bytes;
    }
    return sum;
}

#else
typedef int fw_lab_needs_libcb_xdp; /* a file is not empty */
#endif

/* The datapath's program under the kernel's test run: one frame in, verdict, frame and counters out. Needs the right to
 * load BPF programs; without it the test is skipped. */
#ifndef FW_LAB_H
#define FW_LAB_H

#include "forward.h"
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct forward_bpf;

enum { FW_FRAME_MAX = 3500, FW_LAB_BUCKETS = 1009 };

typedef struct fw_frame {
    size_t n;
    uint8_t b[FW_FRAME_MAX];
} fw_frame;

/* A packet to be made; lengths and checksums are right. Its family is that of its addresses. */
typedef struct fw_spec {
    const char *source, *destination;
    uint16_t sport, dport;
    uint8_t protocol; /* IPPROTO_TCP, _UDP, _ICMP, _ICMPV6, or another: nothing but the payload behind IP */
    uint8_t tos, ttl; /* ttl 0 = 64 */
    uint8_t flags;    /* TCP: the octet; 0 = ACK */
    uint8_t icmp_type, icmp_code;
    uint32_t icmp_rest; /* the four bytes behind the checksum, host byte order */
    uint32_t seq, ack;
    uint32_t id;     /* of fragments */
    uint16_t offset; /* of a fragment, in bytes */
    bool more, dont;
    const uint8_t *options; /* IPv4 options, or IPv6 extension headers, whose last names `protocol` */
    size_t options_bytes;
    uint8_t extension; /* the number of the first extension header; 0 with options: hop by hop */
    const uint8_t *tcp_options;
    size_t tcp_options_bytes; /* a multiple of 4 */
    const uint8_t *payload;
    size_t payload_bytes;
} fw_spec;

void fw_frame_make(fw_frame *f, const fw_spec *s);
/* The same as IP packet, without Ethernet: what quotes and outer headers carry. */
size_t fw_packet_make(uint8_t *out, const fw_spec *s);
/* The Internet checksum's sum is that of correct headers (what the receiver computes gives zero). */
bool fw_ip4_checksum_holds(const uint8_t *ip);
bool fw_l4_checksum_holds(const uint8_t *ip);
/* 16 bytes, IPv4 as ::ffff:a.b.c.d. Returns the family, 4 or 6. */
int fw_address(const char *text, uint8_t out[16]);

typedef struct fw_lab {
    struct forward_bpf *skel;
    struct cb_fw_control control;
    int program; /* descriptor of `forward` */
    uint64_t before[CB_FW_N_ALL];
    fw_frame out; /* of the latest run */
    int verdict;
} fw_lab;

/* Loads the program: an edge and underlay interface (the one frames come in by, index 1), the own address 192.0.2.1 and
 * 2001:db8::1 with slot 0 and ID 100, an all-NOBODY table, tag key 1 of 4. */
void fw_lab_open(fw_lab *l);
void fw_lab_close(fw_lab *l);
void fw_lab_control(fw_lab *l); /* writes l->control */
void fw_lab_interface(fw_lab *l, uint32_t flags);
/* A living member with ID 100 + slot and this underlay address, reached by interface 1 (XDP_TX). */
struct cb_fw_member fw_lab_member(fw_lab *l, uint32_t slot, const char *address, int encapsulation);
void fw_lab_member_put(fw_lab *l, uint32_t slot, const struct cb_fw_member *m);
/* A VIP, and the entry of its address. Its number in the counters is the port's. */
void fw_lab_vip(fw_lab *l, const char *address, uint16_t port, uint8_t protocol, uint32_t flags);
/* Both owners of all buckets; CB_FW_NOBODY. */
void fw_lab_table(fw_lab *l, uint32_t first, uint32_t second);
/* Who is first in the bucket of a tuple; the rest of the table stays. Returns the tuple's hash. */
uint64_t fw_lab_tuple(fw_lab *l, const fw_spec *s, uint32_t first, uint32_t second);
/* Hash of a tuple by libcb's own SipHash. */
uint64_t fw_lab_hash(const fw_lab *l, const fw_spec *s);

/* Runs a frame: the verdict. l->out is what became of it. */
int fw_lab_run(fw_lab *l, const fw_frame *f);
/* By how much a counter rose in the latest run. */
uint64_t fw_lab_counted(fw_lab *l, enum cb_fw_counter which);
/* Only these counters rose in the latest run, by one each; ends with -1. */
bool fw_lab_only(fw_lab *l, ...);
struct cb_fw_traffic fw_lab_traffic(fw_lab *l, bool vip, uint32_t at);

#endif

/* A frame as the datapath reads it (bpf/): its headers, what is in an encapsulation, what an ICMP error quotes, TCP
 * options and QUIC's connection ID. What the kernel's verifier proves for BPF, the sanitizers look for here; and what
 * is said of a packet must lie within it. */
#include "../../bpf/fw_cid.h"
#include "../../bpf/fw_mss.h"
#include "../../bpf/fw_outer.h"
#include "../../bpf/fw_quote.h"
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int good) {
    if (!good) abort();
}

static void within(const struct fw_packet *p, size_t size) {
    must(p->family == 4 || p->family == 6);
    must(p->l4 > p->ip && (size_t)p->ip + p->ip_bytes <= size);
    must((size_t)p->l4 + p->l4_bytes == (size_t)p->ip + p->ip_bytes);
    if (p->fragment == FW_LATER) return;
    if (p->protocol == FW_TCP) must(p->l4_bytes >= 20);
    if (p->protocol == FW_UDP) must(p->l4_bytes >= 8);
}

static void options(const uint8_t *tcp, size_t bytes) {
    uint8_t buffer[FW_MSS_BUFFER] = {0};
    uint32_t n = (uint32_t)(tcp[12] >> 4) * 4 - 20;
    if (n > FW_TCP_OPTIONS || 20 + n > bytes) return;
    memcpy(buffer, tcp + 20, n);
    const uint32_t at = fw_mss_find(buffer, n);
    must(at == 0 || (at >= 2 && at + 2 <= n && buffer[at - 2] == 2 && buffer[at - 1] == 4));
}

static void quoted(const uint8_t *data, size_t size, const struct fw_packet *p) {
    struct fw_packet q;
    uint32_t at = 0;
    if (fw_quote_read(data, data + size, p, &q) != FW_OK) return;
    const size_t end = (size_t)p->ip + p->ip_bytes;
    must(q.protocol == FW_TCP || q.protocol == FW_UDP);
    must(q.l4 >= p->l4 + 8 + 20 && q.l4 + 4 <= end && q.l4 + q.l4_bytes == end);
    const uint32_t n = q.protocol == FW_UDP ? fw_quote_scid(data, data + size, &q, &at) : 0;
    must(n <= FW_QUIC_CID_MAX && (n == 0 || (at >= q.l4 + 8 + 7 && at + n <= end)));
}

/* The way that most packets take reads them as the long one does. */
static void plain(const uint8_t *data, size_t size, const struct fw_packet *p, int parsed) {
    struct fw_packet q = {0};
    int is = fw_parse_plain4(data, data + size, &q);
    if (!is) is = fw_parse_plain6(data, data + size, &q);
    if (!is) return;
    must(parsed == FW_OK && q.fragment == FW_WHOLE && (q.protocol == FW_TCP || q.protocol == FW_UDP));
    must(memcmp(q.source, p->source, 16) == 0 && memcmp(q.destination, p->destination, 16) == 0);
    must(q.family == p->family && q.protocol == p->protocol && q.traffic_class == p->traffic_class);
    must(q.ip == p->ip && q.l4 == p->l4 && q.ip_bytes == p->ip_bytes && q.l4_bytes == p->l4_bytes);
    must(q.ports == p->ports && q.port == p->port);
}

static void connection_id(const uint8_t *data, size_t size, const struct fw_packet *p) {
    struct cb_fw_cid form;
    struct cb_fw_server server;
    const struct fw_dcid d = fw_dcid(data, data + size, p);
    if (!d.at) return;
    must(d.at >= data + p->l4 + 9 && d.at + FW_CID_BYTES <= data + p->l4 + p->l4_bytes);
    must(d.is_long ? d.bytes == d.at[-1] : d.at + d.bytes == data + p->l4 + p->l4_bytes);
    for (int codec = FW_CID_PLAIN; codec <= FW_CID_FOUR; codec++) {
        const uint32_t n = 1 + d.at[1] % 12;
        must(fw_cid_prepare(&form, codec, n, codec == FW_CID_ONE ? 16 - n : 7, 0, data) == 0);
        fw_cid_server(&form, d.at, &server);
        must(server.rotation_length == (d.at[0] >> 5 << 4 | (int)n));
        for (uint32_t i = n; i < sizeof server.server_id; i++)
            must(!server.server_id[i]);
    }
}

static void look(const uint8_t *data, size_t size, int inner) {
    struct fw_packet p = {0};
    struct fw_outer o;
    const int parsed = fw_parse(data, data + size, &p);
    plain(data, size, &p, parsed);
    if (parsed != FW_OK) return;
    within(&p, size);
    if (p.protocol == FW_TCP && p.fragment == FW_WHOLE) options(data + p.l4, p.l4_bytes);
    if (p.protocol == FW_UDP && p.fragment == FW_WHOLE) connection_id(data, size, &p);
    if (fw_is_icmp_error(&p)) quoted(data, size, &p);
    if (inner || (p.protocol != FW_UDP && p.protocol != FW_IPIP && p.protocol != FW_IPV6)) return;
    if (fw_outer_read(data, data + size, &p, &o) != FW_OK) return;
    must(o.inner > FW_ETH && o.inner_bytes >= 20 && (size_t)o.inner + o.inner_bytes <= size);
    must(fw_outer_ecn(p.traffic_class, o.traffic_class) <= 3);

    /* As it lies there when the outer headers have gone: the Ethernet header is right before it. */
    const size_t n = size - (o.inner - FW_ETH);
    uint8_t *frame = malloc(n);
    must(frame != NULL);
    memcpy(frame, data + o.inner - FW_ETH, n);
    memcpy(frame, data, 12);
    frame[12] = o.family == 4 ? 0x08 : 0x86;
    frame[13] = o.family == 4 ? 0x00 : 0xdd;
    look(frame, n, 1);
    free(frame);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size > 4000) return 0;
    look(data, size, 0);
    return 0;
}

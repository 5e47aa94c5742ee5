/* QUIC goes by connection ID, whoever sends it from where (docs/design/datapath.md). */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(forward_quic, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "forward.skel.h"
#include "fw_cid.h"
#include "lb/quic_lb.h"
#include "support/fw_lab.h"
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>

enum { ETH = 14, TABLE_SLOT = 3, CID_SLOT = 8, QUIC_MIN = 21 };

static const char vip4[] = "203.0.113.1", vip6[] = "2001:db8:f::1";

static size_t from_hex(const char *hex, uint8_t *out) {
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned v = 0;
        cr_assert_eq(sscanf(hex + 2 * i, "%2x", &v), 1);
        out[i] = (uint8_t)v;
    }
    return n;
}

/* By the table to TABLE_SLOT; CID_SLOT is there too. */
static void lab_with_quic(fw_lab *l) {
    fw_lab_open(l);
    fw_lab_vip(l, vip4, 443, IPPROTO_UDP, CB_FW_QUIC);
    fw_lab_vip(l, vip6, 443, IPPROTO_UDP, CB_FW_QUIC);
    fw_lab_vip(l, vip4, 53, IPPROTO_UDP, 0);
    fw_lab_member(l, TABLE_SLOT, "192.0.2.3", CB_FW_GUE);
    fw_lab_member(l, CID_SLOT, "192.0.2.8", CB_FW_GUE);
    fw_lab_table(l, TABLE_SLOT, CB_FW_NOBODY);
}

static void configure(fw_lab *l, uint32_t rotation, int codec, size_t id_bytes, size_t nonce_bytes, size_t host_bytes,
                      const uint8_t *key) {
    struct cb_fw_cid f;
    cr_assert_eq(fw_cid_prepare(&f, codec, (uint32_t)id_bytes, (uint32_t)nonce_bytes, (uint32_t)host_bytes, key), 0);
    cr_assert_eq(bpf_map_update_elem(bpf_map__fd(l->skel->maps.cids), &rotation, &f, BPF_ANY), 0);
}

static void serve(fw_lab *l, uint32_t rotation, const uint8_t *id, size_t id_bytes, uint32_t slot) {
    struct cb_fw_server key = {.rotation_length = (uint8_t)(rotation << 4 | id_bytes)};
    memcpy(key.server_id, id, id_bytes);
    cr_assert_eq(bpf_map_update_elem(bpf_map__fd(l->skel->maps.servers), &key, &slot, BPF_ANY), 0);
}

/* Behind the ID: what a packet has at least. */
static size_t short_header(uint8_t *out, const uint8_t *cid, size_t n) {
    out[0] = 0x41;
    memcpy(out + 1, cid, n);
    memset(out + 1 + n, 0xaa, QUIC_MIN);
    return 1 + n + QUIC_MIN;
}

static size_t long_header(uint8_t *out, uint8_t first, const uint8_t *cid, size_t n) {
    out[0] = first;
    memcpy(out + 1, "\0\0\0\1", 4);
    out[5] = (uint8_t)n;
    memcpy(out + 6, cid, n);
    memset(out + 6 + n, 0xaa, 60);
    return 6 + n + 60;
}

static int run_quic(fw_lab *l, bool six, uint16_t sport, const uint8_t *payload, size_t n) {
    fw_frame f;
    fw_frame_make(&f, &(fw_spec){.source = six ? "2001:db8:c::9" : "198.51.100.9",
                                 .destination = six ? vip6 : vip4,
                                 .sport = sport,
                                 .dport = 443,
                                 .protocol = IPPROTO_UDP,
                                 .payload = payload,
                                 .payload_bytes = n});
    return fw_lab_run(l, &f);
}

/* Went by connection ID, and says so. */
static bool by_cid(fw_lab *l) {
    return l->verdict == XDP_TX && l->out.b[5] == CID_SLOT && l->out.b[ETH + 28 + 6] == CB_FW_BY_CID &&
           fw_lab_only(l, CB_FW_N_BY_CID, -1);
}

static bool by_table(fw_lab *l, int also) {
    return l->verdict == XDP_TX && l->out.b[5] == TABLE_SLOT && l->out.b[ETH + 28 + 6] == 0 &&
           (also < 0 ? fw_lab_only(l, CB_FW_N_FORWARDED, -1) : fw_lab_only(l, CB_FW_N_FORWARDED, also, -1));
}

/* The draft's vectors, in the kernel: one configuration each, all at once. */
static const struct {
    const char *key, *id, *cid;
    int codec, nonce_bytes;
} vectors[] = {
    {NULL, "c4605e", "07c4605e4504cc4f", FW_CID_PLAIN, 4},
    {NULL, "a350d28b42", "2aa350d28b4203487d970b", FW_CID_PLAIN, 5},
    {"8f95f09245765f80256934e50c66207f", "ed793a", "0720b1d07b359d3c", FW_CID_FOUR, 4},
    {"8f95f09245765f80256934e50c66207f", "ed793a51d49b8f5fab65", "2fcc381bc74cb4fbad2823a3d1f8fed2", FW_CID_FOUR, 5},
    {"8f95f09245765f80256934e50c66207f", "ed793a51d49b8f5f", "504dd2d05a7b0de9b2b9907afb5ecf8cc3", FW_CID_ONE, 8},
    {"8f95f09245765f80256934e50c66207f", "ed793a51d49b8f5fab", "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc", FW_CID_FOUR,
     9},
    {"fdf726a9893ec05c0632d3956680baf0", "31441a", "0767947d29be054a", FW_CID_FOUR, 4},
};

Test(forward_quic, vectors_of_the_draft_in_the_kernel) {
    fw_lab l;
    lab_with_quic(&l);
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        for (uint32_t rotation = 0; rotation < CB_FW_CID_CONFIGS; rotation++) {
            uint8_t key[16], cid[FW_CID_BYTES], id[15], packet[128];
            if (vectors[i].key) from_hex(vectors[i].key, key);
            const size_t n = from_hex(vectors[i].id, id), len = from_hex(vectors[i].cid, cid);
            cid[0] = (uint8_t)((cid[0] & 31) | rotation << 5); /* the rotation is no part of what is encrypted */
            configure(&l, rotation, vectors[i].codec, n, (size_t)vectors[i].nonce_bytes, 0, key);
            serve(&l, rotation, id, n, CID_SLOT);
            for (int six = 0; six < 2; six++) {
                run_quic(&l, six, 4000, packet, short_header(packet, cid, len));
                cr_expect(by_cid(&l), "vector %zu, rotation %u, short", i, rotation);
                run_quic(&l, six, 4000, packet, long_header(packet, 0xe0, cid, len));
                cr_expect(by_cid(&l), "vector %zu, rotation %u, long", i, rotation);
            }
        }
    fw_lab_close(&l);
}

/* An endpoint's own IDs, with its bytes of the host behind them, from ever new addresses. */
Test(forward_quic, a_migrating_client_stays_with_its_server) {
    static const uint8_t id[8] = "server-1", key[16] = "balancer's key", mask[16] = "mask";
    fw_lab l;
    lab_with_quic(&l);
    configure(&l, 2, FW_CID_ONE, 8, 8, 2, key);
    serve(&l, 2, id, 8, CID_SLOT);
    cb_quic_lb lb;
    cr_assert_eq(cb_quic_lb_init(&lb, &(cb_quic_lb_opts){.size = sizeof(cb_quic_lb_opts),
                                                         .server_id = id,
                                                         .server_id_bytes = 8,
                                                         .mask_key = mask,
                                                         .rotation = 2,
                                                         .key = key,
                                                         .codec = CB_QUIC_LB_AES_ONE}),
                 CB_OK);
    for (uint16_t i = 0; i < 50; i++) {
        uint8_t cid[20], nonce[8] = {(uint8_t)i, 1, 2}, packet[128];
        cr_assert_eq(cb_quic_lb_encode(&lb, cid, sizeof cid, nonce, 5, 6), 19);
        run_quic(&l, i & 1, (uint16_t)(1024 + i), packet, short_header(packet, cid, 19));
        cr_assert(by_cid(&l));
    }
    struct cb_fw_traffic sent = fw_lab_traffic(&l, false, CID_SLOT), vip = fw_lab_traffic(&l, true, 443);
    cr_expect_eq(sent.packets, 50U);
    cr_expect_eq(vip.packets, 50U);
    cr_expect_eq(vip.bytes, 25U * (28 + 1 + 19 + QUIC_MIN) + 25U * (48 + 1 + 19 + QUIC_MIN));
    fw_lab_close(&l);
}

Test(forward_quic, what_names_nobody_goes_by_the_table) {
    static const uint8_t id[8] = "server-1", other[8] = "server-2";
    uint8_t cid[20] = {0}, packet[128];
    fw_lab l;
    lab_with_quic(&l);
    configure(&l, 0, FW_CID_PLAIN, 8, 8, 0, NULL);
    serve(&l, 0, id, 8, CID_SLOT);
    cid[0] = 16;
    memcpy(cid + 1, id, 8);
    const size_t n = short_header(packet, cid, 17);
    run_quic(&l, false, 4000, packet, n);
    cr_expect(by_cid(&l));

    memcpy(packet + 2, other, 8);
    run_quic(&l, false, 4000, packet, n);
    cr_expect(by_table(&l, CB_FW_N_CID_UNKNOWN), "nobody has this server ID");
    memcpy(packet + 2, id, 8);

    for (int six = 1; six < 8; six++) { /* no such configuration, and 7, which is unroutable */
        packet[1] = (uint8_t)(16 | six << 5);
        run_quic(&l, false, 4000, packet, n);
        cr_expect(by_table(&l, -1), "rotation %d", six);
    }
    packet[1] = 15;
    run_quic(&l, false, 4000, packet, n);
    cr_expect(by_table(&l, -1), "another length");
    packet[1] = 16;

    run_quic(&l, false, 4000, packet, long_header(packet, 0xc3, cid, 16));
    cr_expect(by_table(&l, -1), "a long header that says another length than the configuration");
    run_quic(&l, false, 4000, packet, long_header(packet, 0xc3, cid, 8));
    cr_expect(by_table(&l, -1));
    run_quic(&l, false, 4000, packet, long_header(packet, 0xc3, cid, 0));
    cr_expect(by_table(&l, -1));

    /* Dead, or not there any more. */
    struct cb_fw_member m = fw_lab_member(&l, CID_SLOT, "192.0.2.8", CB_FW_GUE);
    short_header(packet, cid, 17);
    m.flags = CB_FW_HERE;
    fw_lab_member_put(&l, CID_SLOT, &m);
    run_quic(&l, false, 4000, packet, n);
    cr_expect(by_table(&l, CB_FW_N_CID_UNKNOWN), "it is dead");
    m.flags = CB_FW_LIVE;
    fw_lab_member_put(&l, CID_SLOT, &m);
    run_quic(&l, false, 4000, packet, n);
    cr_expect(by_table(&l, CB_FW_N_CID_UNKNOWN), "it is gone");
    fw_lab_close(&l);
}

/* Shorter than any packet of QUIC: nothing is read of them, and nothing beyond them. */
Test(forward_quic, short_ones_go_by_the_table) {
    static const uint8_t id[8] = "server-1";
    uint8_t cid[20] = {0}, packet[128], longer[128];
    fw_lab l;
    lab_with_quic(&l);
    configure(&l, 0, FW_CID_PLAIN, 8, 8, 0, NULL);
    serve(&l, 0, id, 8, CID_SLOT);
    cid[0] = 16;
    memcpy(cid + 1, id, 8);
    short_header(packet, cid, 17);
    long_header(longer, 0xe0, cid, 17);
    for (size_t n = 0; n < 60; n++) {
        run_quic(&l, false, 4000, packet, n < 39 ? n : 39);
        cr_expect(n < 1 + FW_CID_BYTES ? by_table(&l, -1) : by_cid(&l), "%zu bytes, short", n);
        run_quic(&l, false, 4000, longer, n);
        cr_expect(n < 6 + FW_CID_BYTES ? by_table(&l, -1) : by_cid(&l), "%zu bytes, long", n);
    }
    fw_lab_close(&l);
}

Test(forward_quic, by_connection_id_to_this_host_it_is_delivered) {
    static const uint8_t id[4] = "self";
    uint8_t cid[20] = {11}, packet[128];
    fw_frame before;
    fw_lab l;
    lab_with_quic(&l);
    configure(&l, 0, FW_CID_PLAIN, 4, 7, 0, NULL);
    serve(&l, 0, id, 4, 0);
    memcpy(cid + 1, id, 4);
    const size_t n = short_header(packet, cid, 12);
    fw_frame_make(&before, &(fw_spec){.source = "198.51.100.9",
                                      .destination = vip4,
                                      .sport = 4000,
                                      .dport = 443,
                                      .protocol = IPPROTO_UDP,
                                      .payload = packet,
                                      .payload_bytes = n});
    cr_expect_eq(fw_lab_run(&l, &before), XDP_PASS);
    cr_expect(fw_lab_only(&l, CB_FW_N_BY_CID, -1));
    cr_expect(l.out.n == before.n && !memcmp(l.out.b, before.b, before.n));
    fw_lab_close(&l);
}

/* A VIP that is not of QUIC never looks at connection IDs, and TCP does not either. */
Test(forward_quic, only_where_the_vip_says_so) {
    static const uint8_t id[8] = "server-1";
    uint8_t cid[20] = {16}, packet[128];
    fw_frame f;
    fw_lab l;
    lab_with_quic(&l);
    configure(&l, 0, FW_CID_PLAIN, 8, 8, 0, NULL);
    serve(&l, 0, id, 8, CID_SLOT);
    memcpy(cid + 1, id, 8);
    fw_spec s = {.source = "198.51.100.9",
                 .destination = vip4,
                 .sport = 4000,
                 .dport = 53,
                 .protocol = IPPROTO_UDP,
                 .payload = packet,
                 .payload_bytes = short_header(packet, cid, 17)};
    fw_frame_make(&f, &s);
    fw_lab_run(&l, &f);
    cr_expect(by_table(&l, -1));
    fw_lab_vip(&l, vip4, 443, IPPROTO_TCP, CB_FW_QUIC);
    s.dport = 443;
    s.protocol = IPPROTO_TCP;
    fw_frame_make(&f, &s);
    fw_lab_run(&l, &f);
    cr_expect(by_table(&l, -1));
    fw_lab_close(&l);
}

#endif

/* The map `near` (bpf/fw_near.h): the program finds there what is there, and looks further only where it has to;
 * libcb-xdp keeps it equal to the hash maps. */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(forward_near, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "forward.skel.h"
#include "fw_cid.h"
#include "fw_near.h"
#include "lb/forward_int.h"
#include "support/fw_lab.h"
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <string.h>

enum { SLOT = 5, ALL = 1 << CB_FW_NEAR_INTERFACE | 1 << CB_FW_NEAR_VIP | 1 << CB_FW_NEAR_SERVER };

/* ---- the program ---- */

static void put_near(fw_lab *l, const struct fw_near_key *k, uint32_t neighbour, uint32_t first, uint32_t second) {
    const struct cb_fw_near e = {.key = {k->word[0], k->word[1], k->word[2]}, .value = {first, second}};
    const uint32_t at = fw_near_place(k) ^ neighbour;
    cr_assert_eq(bpf_map_update_elem(bpf_map__fd(l->skel->maps.near), &at, &e, BPF_ANY), 0);
}

static struct fw_near_key vip_key(const char *address, uint16_t port, uint8_t protocol) {
    uint8_t a[16];
    fw_address(address, a);
    return fw_near_vip(FW_LOAD(uint64_t, a), FW_LOAD(uint64_t, a + 8), htons(port), protocol);
}

static int run(fw_lab *l, const char *vip, uint16_t dport) {
    static const uint8_t payload[40] = {0};
    fw_frame f;
    fw_frame_make(&f, &(fw_spec){.source = strchr(vip, ':') ? "2001:db8:c::1" : "198.51.100.1",
                                 .destination = vip,
                                 .sport = 4000,
                                 .dport = dport,
                                 .protocol = IPPROTO_TCP,
                                 .payload = payload,
                                 .payload_bytes = sizeof payload});
    return fw_lab_run(l, &f);
}

static void near(fw_lab *l, uint32_t kinds, uint32_t flags) {
    l->control.near = kinds;
    l->control.flags = flags;
    fw_lab_control(l);
}

Test(forward_near, the_program_looks_here_first_and_further_if_it_has_to) {
    static const char *const vips[] = {"203.0.113.1", "2001:db8:f::1"};
    fw_lab l;
    fw_lab_open(&l);
    fw_lab_member(&l, SLOT, "192.0.2.5", CB_FW_GUE);
    fw_lab_table(&l, SLOT, CB_FW_NOBODY);
    for (int six = 0; six < 2; six++)
        for (uint32_t neighbour = 0; neighbour < 2; neighbour++) {
            const uint16_t port = (uint16_t)(443 + neighbour), any = (uint16_t)(1000 + neighbour);
            struct fw_near_key k = vip_key(vips[six], port, IPPROTO_TCP);
            near(&l, 0, 0);
            put_near(&l, &k, neighbour, port, 0);
            cr_expect_eq(run(&l, vips[six], port), XDP_TX, "it is only here");
            cr_expect_eq(run(&l, vips[six], any), XDP_PASS);
            fw_lab_vip(&l, vips[six], any, IPPROTO_TCP, 0);
            cr_expect_eq(run(&l, vips[six], any), XDP_TX, "it is only in the hash map");
            near(&l, 1 << CB_FW_NEAR_VIP, 0);
            cr_expect_eq(run(&l, vips[six], any), XDP_PASS, "all of them are said to be here");
            cr_expect_eq(run(&l, vips[six], port), XDP_TX);

            k = vip_key(vips[six], 0, IPPROTO_TCP);
            put_near(&l, &k, neighbour, 9, 0);
            cr_expect_eq(run(&l, vips[six], 7), XDP_PASS);
            near(&l, 1 << CB_FW_NEAR_VIP, CB_FW_ANY_PORT);
            cr_expect_eq(run(&l, vips[six], 7), XDP_TX, "of all ports");
            near(&l, 0, 0);
            for (uint32_t i = 0; i < 2; i++) { /* gone again */
                const uint32_t at = fw_near_place(&k) ^ i;
                bpf_map_update_elem(bpf_map__fd(l.skel->maps.near), &at, &(struct cb_fw_near){{0}, {0}}, BPF_ANY);
            }
        }
    cr_expect_eq(fw_lab_traffic(&l, true, 443).packets, 4U, "its number is in the value");
    fw_lab_close(&l);
}

Test(forward_near, interfaces) {
    fw_lab l;
    fw_lab_open(&l);
    fw_lab_vip(&l, "203.0.113.1", 443, IPPROTO_TCP, 0);
    fw_lab_member(&l, SLOT, "192.0.2.5", CB_FW_GUE);
    fw_lab_table(&l, SLOT, CB_FW_NOBODY);
    near(&l, 1 << CB_FW_NEAR_INTERFACE, 0);
    cr_expect_eq(run(&l, "203.0.113.1", 443), XDP_PASS);
    cr_expect(fw_lab_only(&l, -1), "not configured");
    const struct fw_near_key k = fw_near_interface(1);
    put_near(&l, &k, 1, 0, 0);
    cr_expect_eq(run(&l, "203.0.113.1", 443), XDP_PASS);
    cr_expect(fw_lab_only(&l, CB_FW_N_PASSED, -1), "configured, for nothing");
    put_near(&l, &k, 1, CB_FW_EDGE, 0);
    cr_expect_eq(run(&l, "203.0.113.1", 443), XDP_TX);
    fw_lab_close(&l);
}

Test(forward_near, servers) {
    fw_lab l;
    fw_frame f;
    struct cb_fw_cid form;
    struct cb_fw_server server = {.rotation_length = 4, .server_id = "srv7"};
    const uint32_t zero = 0, slot = SLOT;
    uint8_t quic[60] = {0x41, 11, 's', 'r', 'v', '7'};
    fw_lab_open(&l);
    fw_lab_vip(&l, "203.0.113.1", 443, IPPROTO_UDP, CB_FW_QUIC);
    fw_lab_member(&l, SLOT, "192.0.2.5", CB_FW_GUE);
    fw_lab_member(&l, SLOT + 1, "192.0.2.6", CB_FW_GUE);
    fw_lab_table(&l, SLOT + 1, CB_FW_NOBODY);
    cr_assert_eq(fw_cid_prepare(&form, FW_CID_PLAIN, 4, 7, 0, NULL), 0);
    bpf_map_update_elem(bpf_map__fd(l.skel->maps.cids), &zero, &form, BPF_ANY);
    fw_frame_make(&f, &(fw_spec){.source = "198.51.100.1",
                                 .destination = "203.0.113.1",
                                 .sport = 4000,
                                 .dport = 443,
                                 .protocol = IPPROTO_UDP,
                                 .payload = quic,
                                 .payload_bytes = sizeof quic});
    bpf_map_update_elem(bpf_map__fd(l.skel->maps.servers), &server, &slot, BPF_ANY);
    near(&l, 1 << CB_FW_NEAR_SERVER, 0);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_TX);
    cr_expect(fw_lab_only(&l, CB_FW_N_CID_UNKNOWN, CB_FW_N_FORWARDED, -1), "all are said to be here");
    near(&l, 0, 0);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_TX);
    cr_expect(fw_lab_only(&l, CB_FW_N_BY_CID, -1), "it is only in the hash map");
    bpf_map_delete_elem(bpf_map__fd(l.skel->maps.servers), &server);
    const struct fw_near_key k =
        fw_near_server(FW_LOAD(uint64_t, &server), FW_LOAD(uint64_t, (const uint8_t *)&server + 8));
    put_near(&l, &k, 0, SLOT, 0);
    near(&l, 1 << CB_FW_NEAR_SERVER, 0);
    cr_expect_eq(fw_lab_run(&l, &f), XDP_TX);
    cr_expect(fw_lab_only(&l, CB_FW_N_BY_CID, -1), "it is only here");
    fw_lab_close(&l);
}

/* ---- what libcb-xdp writes ---- */

static cb_forward *forward_or_skip(void) {
    cb_forward *f = NULL;
    const cb_forward_opts o = {.size = sizeof o,
                               .hash_key = (const uint8_t *)"hash key 16 byte",
                               .tag_key = (const uint8_t *)"tag key 16 bytes",
                               .address4 = "192.0.2.1",
                               .id = 1,
                               .buckets = 1009};
    int rc = cb_forward_new(&f, &o);
    if (rc == CB_EPERM || rc == CB_ENOTSUP) cr_skip_test("%s", cb_last_error());
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    return f;
}

static struct cb_fw_vip_key numbered(uint32_t i) {
    struct cb_fw_vip_key k = {.port = htons((uint16_t)(i % 7)), .protocol = i % 5 ? IPPROTO_TCP : 0};
    k.address[10] = k.address[11] = 0xff;
    memcpy(k.address + 12, &i, 4);
    return k;
}

static bool is_near(const cb_forward *f, const struct cb_fw_vip_key *vip, struct cb_fw_near *e) {
    const struct fw_near_key k =
        fw_near_vip(FW_LOAD(uint64_t, vip->address), FW_LOAD(uint64_t, vip->address + 8), vip->port, vip->protocol);
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t at = fw_near_place(&k) ^ i;
        cr_assert_eq(bpf_map_lookup_elem(fw_map_fd(f, FW_NEAR), &at, e), 0);
        if (fw_near_is(e, &k)) return true;
    }
    return false;
}

/* All of the hash map's with a protocol are near, with their values, but for `missing`; and nothing else is. */
static void compare(const cb_forward *f, uint32_t keys, size_t *missing) {
    size_t there = 0, found = 0;
    *missing = 0;
    for (uint32_t i = 0; i < keys; i++) {
        const struct cb_fw_vip_key k = numbered(i);
        struct cb_fw_vip v;
        struct cb_fw_near e;
        const bool has = bpf_map_lookup_elem(fw_map_fd(f, FW_VIPS), &k, &v) == 0, near = is_near(f, &k, &e);
        if (!has || !k.protocol) cr_assert(!near, "key %u", i);
        if (near) cr_assert_eq(memcmp(e.value, &v, sizeof v), 0, "key %u", i);
        there += has && k.protocol;
        found += near;
    }
    *missing = there - found;
    size_t used = 0;
    for (uint32_t at = 0; at < 1U << CB_FW_NEAR_BITS; at++) {
        struct cb_fw_near e;
        cr_assert_eq(bpf_map_lookup_elem(fw_map_fd(f, FW_NEAR), &at, &e), 0);
        used += e.key[2] != 0;
    }
    cr_expect_eq(used, found);
}

Test(forward_near, it_follows_the_hash_maps) {
    enum { KEYS = 200 };
    cb_forward *f = forward_or_skip();
    uint64_t seed = 88172645463325252U;
    size_t missing;
    cr_expect_eq(f->control->near, (uint32_t)ALL);
    for (int i = 0; i < 4000; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        const struct cb_fw_vip_key k = numbered((uint32_t)(seed >> 40) % KEYS);
        const struct cb_fw_vip v = {.index = (uint32_t)(seed >> 20) % 100, .flags = (uint32_t)seed & 7};
        if (seed >> 62)
            cr_assert_eq(fw_map_put(f, FW_VIPS, &k, &v), CB_OK, "%s", cb_last_error());
        else
            cr_assert_eq(fw_map_del(f, FW_VIPS, &k), CB_OK, "%s", cb_last_error());
        if (i % 500 == 0) compare(f, KEYS, &missing);
    }
    compare(f, KEYS, &missing);
    cr_expect_eq(!missing, (f->control->near >> CB_FW_NEAR_VIP) & 1);

    /* A successor finds whatever a predecessor left: an entry that is not configured any more, and one that is lost. */
    const struct cb_fw_vip_key k = numbered(KEYS + 1), lost = numbered(KEYS + 3);
    cr_assert_eq(fw_near_put(f, FW_VIPS, &k, &(struct cb_fw_vip){.index = 1}), CB_OK);
    cr_assert_eq(fw_map_put(f, FW_VIPS, &lost, &(struct cb_fw_vip){.index = 2}), CB_OK);
    cr_assert_eq(fw_near_del(f, FW_VIPS, &lost), CB_OK);
    cr_assert_eq(fw_near_build(f), CB_OK);
    compare(f, KEYS + 4, &missing);
    cr_expect_eq(!missing, (f->control->near >> CB_FW_NEAR_VIP) & 1);
    cb_forward_free(f);
}

/* Three that want the same two places. */
Test(forward_near, what_finds_no_place_is_looked_for_in_the_hash_map) {
    cb_forward *f = forward_or_skip();
    struct cb_fw_vip_key same[3];
    uint32_t n = 0, place = 0;
    for (uint32_t i = 1; n < 3; i++) {
        const struct cb_fw_vip_key k = numbered(i);
        if (!k.protocol) continue;
        const struct fw_near_key at =
            fw_near_vip(FW_LOAD(uint64_t, k.address), FW_LOAD(uint64_t, k.address + 8), k.port, k.protocol);
        if (!n) place = fw_near_place(&at) >> 1;
        if (fw_near_place(&at) >> 1 == place) same[n++] = k;
    }
    for (uint32_t i = 0; i < 3; i++) {
        struct cb_fw_near e;
        cr_assert_eq(fw_map_put(f, FW_VIPS, &same[i], &(struct cb_fw_vip){.index = i}), CB_OK);
        cr_expect_eq(is_near(f, &same[i], &e), i < 2);
        cr_expect_eq(f->control->near, i < 2 ? (uint32_t)ALL : (uint32_t)ALL & ~(1U << CB_FW_NEAR_VIP));
    }
    cr_assert_eq(fw_near_build(f), CB_OK);
    cr_expect_eq(f->control->near, (uint32_t)ALL & ~(1U << CB_FW_NEAR_VIP), "it still does not fit");
    cr_assert_eq(fw_map_del(f, FW_VIPS, &same[0]), CB_OK);
    cr_assert_eq(fw_near_build(f), CB_OK);
    cr_expect_eq(f->control->near, (uint32_t)ALL);
    cb_forward_free(f);
}

#endif

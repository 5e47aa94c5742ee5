/* The datapath's reader of connection IDs (bpf/fw_cid.h) against the draft's vectors and libcb's codec: in C here, in
 * the kernel in test_forward_quic.c. */
#include "fw_cid.h"
#include "lb/quic_lb.h"
#include <criterion/criterion.h>
#include <nettle/aes.h>
#include <stdio.h>
#include <string.h>

static uint64_t seed = 0x2545f4914f6cdd1d;

static void draw(uint8_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        out[i] = (uint8_t)(seed >> 32);
    }
}

static size_t from_hex(const char *hex, uint8_t *out) {
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned v = 0;
        cr_assert_eq(sscanf(hex + 2 * i, "%2x", &v), 1);
        out[i] = (uint8_t)v;
    }
    return n;
}

static struct cb_fw_cid form(int codec, size_t id_bytes, size_t nonce_bytes, size_t host_bytes, const uint8_t *key) {
    struct cb_fw_cid f;
    cr_assert_eq(fw_cid_prepare(&f, codec, (uint32_t)id_bytes, (uint32_t)nonce_bytes, (uint32_t)host_bytes, key), 0);
    return f;
}

Test(forward_cid, codecs_have_the_same_numbers) {
    cr_expect(FW_CID_PLAIN == (int)CB_QUIC_LB_PLAIN && FW_CID_ONE == (int)CB_QUIC_LB_AES_ONE &&
              FW_CID_FOUR == (int)CB_QUIC_LB_AES_FOUR);
}

/* As nettle has it, both ways; and FIPS 197, appendix B. */
Test(forward_cid, one_block_of_aes) {
    uint8_t key[16], in[16], out[16];
    uint32_t keys[44], back[44];
    for (int i = 0; i < 2000; i++) {
        struct aes128_ctx nettle;
        if (i) {
            draw(key, 16);
            draw(in, 16);
        } else {
            from_hex("2b7e151628aed2a6abf7158809cf4f3c", key);
            from_hex("3243f6a8885a308d313198a2e0370734", in);
        }
        aes128_set_encrypt_key(&nettle, key);
        aes128_encrypt(&nettle, 16, out, in);
        fw_aes_keys(keys, key);
        fw_aes_keys_back(back, key);
        uint64_t low = FW_BE64(FW_LOAD(uint64_t, in + 8));
        uint64_t high = fw_aes_encrypt(keys, FW_BE64(FW_LOAD(uint64_t, in)), (__u64 *)&low);
        cr_assert_eq(high, FW_BE64(FW_LOAD(uint64_t, out)));
        cr_assert_eq(low, FW_BE64(FW_LOAD(uint64_t, out + 8)));
        if (!i) cr_assert_eq(high, 0x3925841d02dc09fbU);
        high = fw_aes_decrypt(back, high, (__u64 *)&low);
        cr_assert_eq(high, FW_BE64(FW_LOAD(uint64_t, in)));
        cr_assert_eq(low, FW_BE64(FW_LOAD(uint64_t, in + 8)));
    }
}

/* Draft -21, appendix B and 5.4.2; tests/unit/test_quic_lb_aes.c says where its tables disagree with themselves. */
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

Test(forward_cid, vectors_of_the_draft) {
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint8_t key[16], cid[FW_CID_BYTES], id[15];
        struct cb_fw_server got, want = {0};
        memset(cid, 0xee, sizeof cid); /* what follows in the packet */
        if (vectors[i].key) from_hex(vectors[i].key, key);
        const size_t n = from_hex(vectors[i].id, id);
        from_hex(vectors[i].cid, cid);
        const struct cb_fw_cid f = form(vectors[i].codec, n, (size_t)vectors[i].nonce_bytes, 0, key);
        want.rotation_length = (uint8_t)(cid[0] >> 5 << 4 | n);
        memcpy(want.server_id, id, n);
        fw_cid_server(&f, cid, &got);
        cr_expect_eq(memcmp(&got, &want, sizeof got), 0, "vector %zu", i);
    }
}

/* Every length of server ID and nonce, with and without bytes of the host, written by libcb's codec. */
Test(forward_cid, reads_what_the_endpoints_write) {
    int forms = 0;
    for (int host = 0; host <= 2; host += 2)
        for (int plain = 0; plain < 2; plain++)
            for (uint32_t body = 5; body <= 19U - (uint32_t)host; body++)
                for (uint32_t n = 1; n + 4 <= body; n++, forms++) {
                    uint8_t id[15], key[16];
                    cb_quic_lb lb;
                    draw(id, sizeof id);
                    draw(key, sizeof key);
                    const cb_quic_lb_opts o = {.size = sizeof o,
                                               .server_id = id,
                                               .server_id_bytes = n,
                                               .nonce_bytes = body - n,
                                               .mask_key = host ? key : NULL,
                                               .no_host_bytes = !host,
                                               .rotation = n % 7,
                                               .key = plain ? NULL : key,
                                               .codec = plain        ? CB_QUIC_LB_PLAIN
                                                        : body == 16 ? CB_QUIC_LB_AES_ONE
                                                                     : CB_QUIC_LB_AES_FOUR};
                    cr_assert_eq(cb_quic_lb_init(&lb, &o), CB_OK, "%s", cb_last_error());
                    const struct cb_fw_cid f = form(o.codec, n, body - n, (size_t)host, key);
                    struct cb_fw_server got, want = {.rotation_length = (uint8_t)(n % 7 << 4 | n)};
                    memcpy(want.server_id, id, n);
                    for (int i = 0; i < 20; i++) {
                        uint8_t cid[FW_CID_BYTES + 8], nonce[18];
                        draw(cid, sizeof cid);
                        draw(nonce, sizeof nonce);
                        cr_assert_eq(cb_quic_lb_encode(&lb, cid, FW_CID_BYTES, nonce, host ? 3 : 0, host ? 200 : 0),
                                     f.cid_bytes);
                        fw_cid_server(&f, cid, &got);
                        cr_assert_eq(memcmp(&got, &want, sizeof got), 0, "server ID %u, body %u, host %d, plain %d", n,
                                     body, host, plain);
                    }
                }
    cr_expect_eq(forms, 2 * (120 + 91));
}

Test(forward_cid, configurations_that_there_are_not) {
    struct cb_fw_cid f;
    const uint8_t key[16] = {0};
    int good = 0;
    for (uint32_t host = 0; host <= 2; host++)
        for (int codec = -1; codec <= 3; codec++)
            for (uint32_t n = 0; n < 22; n++)
                for (uint32_t nonce = 0; nonce < 22; nonce++) {
                    const bool can = n >= 1 && n <= 15 && nonce >= 4 && n + nonce + host <= 19 && codec >= 0 &&
                                     codec <= 2 && (codec != FW_CID_ONE || n + nonce == 16);
                    cr_assert_eq(fw_cid_prepare(&f, codec, n, nonce, host, key), can ? 0 : -1);
                    good += can;
                }
    cr_expect(good > 600);
}

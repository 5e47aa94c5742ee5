#include "lb/quic_lb.h"
#include <criterion/criterion.h>
#include <string.h>

static const uint8_t id[15] = {0xed, 0x79, 0x3a, 0x51, 0xd4, 0x9b, 0x8f, 0x5f, 1, 2, 3, 4, 5, 6, 7};
static const uint8_t key[16] = {0x8f, 0x95, 0xf0, 0x92, 0x45, 0x76, 0x5f, 0x80,
                                0x25, 0x69, 0x34, 0xe5, 0x0c, 0x66, 0x20, 0x7f};
static const uint8_t nonce[16] = {0xee, 0x08, 0x0d, 0xbf, 0x48, 0xc0, 0xd1, 0xe5, 9, 9, 9, 9, 7, 7, 7, 7};

Test(quic_lb, what_is_written_is_read) {
    static const struct {
        uint32_t id_bytes, nonce_bytes, rotation;
        size_t cid_bytes;
        uint8_t first;
    } rows[] = {{8, 0, 0, 19, 0x12},  {4, 0, 3, 19, 0x72},  {1, 4, 6, 8, 0xc7},
                {13, 4, 1, 20, 0x33}, {1, 16, 2, 20, 0x53}, {12, 0, 0, 19, 0x12}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_quic_lb *lb = NULL;
        uint8_t cid[CB_QUIC_LB_CID_MAX];
        cb_quic_lb_info info;
        cr_assert_eq(cb_quic_lb_new(&lb, CB_OPTS(cb_quic_lb_opts, .server_id = id, .server_id_bytes = rows[i].id_bytes,
                                                 .nonce_bytes = rows[i].nonce_bytes, .rotation = rows[i].rotation,
                                                 .mask_key = key)),
                     CB_OK);
        cr_expect_eq(cb_quic_lb_cid_bytes(lb), rows[i].cid_bytes);
        size_t n = cb_quic_lb_nonce_bytes(lb);
        for (uint32_t w = 0; w < 256; w += 5) {
            cr_assert_eq(cb_quic_lb_encode(lb, cid, sizeof cid, nonce, w, 255 - w), (int)rows[i].cid_bytes);
            cr_assert_eq(cid[0], rows[i].first);
            cr_assert(!memcmp(cid + 1, id, rows[i].id_bytes) && !memcmp(cid + 1 + rows[i].id_bytes, nonce, n));
            cr_assert_eq(cb_quic_lb_decode(lb, (cb_slice){cid, rows[i].cid_bytes}, &info), CB_QUIC_LB_OURS);
            cr_assert(info.worker == w && info.generation == 255 - w && info.rotation == rows[i].rotation);
            cr_assert(info.server_id_bytes == rows[i].id_bytes && !memcmp(info.server_id, id, rows[i].id_bytes));
        }
        /* Every single changed bit of the first octet and every other length make it foreign; of the ID, another's. */
        for (int bit = 0; bit < 8; bit++) {
            cid[0] ^= (uint8_t)(1 << bit);
            cr_expect_eq(cb_quic_lb_decode(lb, (cb_slice){cid, rows[i].cid_bytes}, &info), CB_QUIC_LB_FOREIGN);
            cr_expect_eq(info.rotation, cid[0] >> 5);
            cid[0] ^= (uint8_t)(1 << bit);
        }
        for (size_t len = 0; len <= 20; len++)
            if (len != rows[i].cid_bytes)
                cr_expect_eq(cb_quic_lb_decode(lb, (cb_slice){len ? cid : NULL, len}, &info), CB_QUIC_LB_FOREIGN);
        cid[rows[i].id_bytes] ^= 1;
        cr_expect_eq(cb_quic_lb_decode(lb, (cb_slice){cid, rows[i].cid_bytes}, &info), CB_QUIC_LB_OTHER);
        cr_expect_eq(cb_quic_lb_encode(lb, cid, rows[i].cid_bytes - 1, nonce, 0, 0), CB_EINVAL);
        cr_expect_eq(cb_quic_lb_encode(lb, cid, sizeof cid, nonce, 256, 0), CB_EINVAL);
        cr_expect_eq(cb_quic_lb_encode(lb, cid, sizeof cid, nonce, 0, 256), CB_EINVAL);
        cb_quic_lb_free(lb);
    }
    cb_quic_lb_free(NULL);
}

Test(quic_lb, the_mask_depends_on_key_and_block_and_hides_the_worker) {
    cb_quic_lb a, b;
    uint8_t cid[20], other[16], mine = 0, theirs = 0;
    int seen[256] = {0}, distinct = 0;
    memcpy(other, key, 16);
    other[15] ^= 1;
    cr_assert_eq(cb_quic_lb_init(&a, CB_OPTS(cb_quic_lb_opts, .server_id = id, .server_id_bytes = 8, .mask_key = key)),
                 CB_OK);
    cr_assert_eq(
        cb_quic_lb_init(&b, CB_OPTS(cb_quic_lb_opts, .server_id = id, .server_id_bytes = 8, .mask_key = other)), CB_OK);
    for (int i = 0; i < 256; i++) {
        uint8_t n[8] = {(uint8_t)i};
        cb_quic_lb_info info;
        cb_quic_lb_encode(&a, cid, sizeof cid, n, 3, 1);
        distinct += !seen[cid[17]]++;
        cb_quic_lb_decode(&a, (cb_slice){cid, 19}, &info);
        mine += info.worker == 3;
        cb_quic_lb_decode(&b, (cb_slice){cid, 19}, &info);
        theirs += info.worker == 3;
    }
    cr_assert(mine == 0 && theirs < 16); /* 256 of 256 wrap to 0 */
    cr_assert(distinct > 100, "the masked byte of one worker took only %d values", distinct);
}

Test(quic_lb, bad_options_are_named) {
    const cb_quic_lb_opts good = {.size = sizeof good, .server_id = id, .server_id_bytes = 8, .mask_key = key};
    cb_quic_lb_opts rows[16];
    static const char *const names[] = {
        "server_id", "server_id", "server_id", "mask_key", "nonce_bytes", "nonce_bytes", "nonce_bytes", "rotation",
        "codec",     "key",       "key",       "key",      "nonce_bytes", "nonce_bytes", "nonce_bytes", "server_id"};
    enum { N = sizeof names / sizeof *names };
    for (int i = 0; i < N; i++)
        rows[i] = good;
    rows[0].server_id_bytes = UINT32_MAX;
    rows[1].server_id_bytes = 0;
    rows[2].server_id_bytes = 14;
    rows[3].mask_key = NULL;
    rows[4].nonce_bytes = 3;
    rows[5].nonce_bytes = 10;
    rows[6].server_id_bytes = 13; /* leaves 3 of 16 for the nonce */
    rows[7].rotation = 7;
    rows[8].codec = 77;
    rows[9].key = key; /* and plain */
    rows[10].codec = CB_QUIC_LB_AES_ONE;
    rows[11].codec = CB_QUIC_LB_AES_FOUR;
    rows[12].codec = CB_QUIC_LB_AES_ONE, rows[12].key = key, rows[12].nonce_bytes = 9;
    rows[13].codec = CB_QUIC_LB_AES_FOUR, rows[13].key = key; /* 16 in all */
    rows[14].no_host_bytes = 1, rows[14].nonce_bytes = 12;
    rows[15].no_host_bytes = 1, rows[15].server_id_bytes = 16;
    cb_quic_lb *lb = NULL;
    for (int i = 0; i < N; i++) {
        cr_expect_eq(cb_quic_lb_new(&lb, &rows[i]), CB_EINVAL, "row %d", i);
        cr_expect(strstr(cb_last_error(), names[i]), "%s", cb_last_error());
    }
    cr_expect_null(lb);
}

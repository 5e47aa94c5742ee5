/* Encrypted connection IDs: the draft's vectors, and what must hold for every length. */
#include "lb/quic_lb.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { BODY_MIN = 5 };

static const uint8_t mask_key[16] = {7, 7, 7};
static const uint8_t key[16] = {0x8f, 0x95, 0xf0, 0x92, 0x45, 0x76, 0x5f, 0x80,
                                0x25, 0x69, 0x34, 0xe5, 0x0c, 0x66, 0x20, 0x7f};
static uint64_t seed = 0x9e3779b97f4a7c15;

static void draw(uint8_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) { /* xorshift: each run is the same */
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

/* Block of this server ID and nonce length under the codec that fits them; bare: no bytes of the host. */
static void make(cb_quic_lb *lb, const uint8_t *id, uint32_t id_bytes, uint32_t nonce_bytes, const uint8_t *with,
                 bool bare) {
    const cb_quic_lb_opts o = {.size = sizeof o,
                               .server_id = id,
                               .server_id_bytes = id_bytes,
                               .nonce_bytes = nonce_bytes,
                               .mask_key = bare ? NULL : mask_key,
                               .no_host_bytes = bare,
                               .rotation = id_bytes % 7,
                               .key = with,
                               .codec = id_bytes + nonce_bytes == 16 ? CB_QUIC_LB_AES_ONE : CB_QUIC_LB_AES_FOUR};
    cr_assert_eq(cb_quic_lb_init(lb, &o), CB_OK, "%s", cb_last_error());
}

/* Draft -21, appendix B, all of which have no bytes behind the block. Where the columns of its tables disagree, the
 * connection ID counts: the server ID of the second begins with its a3, the last has configuration 0 and not 3. The
 * first octet of the second, printed as 20, is what "configured to encode the CID length" makes of ten bytes. */
static const struct {
    const char *name, *key, *id, *nonce, *cid;
    int32_t codec;
    uint32_t rotation;
} vectors[] = {
    {"B.1, first", NULL, "c4605e", "4504cc4f", "07c4605e4504cc4f", CB_QUIC_LB_PLAIN, 0},
    {"B.1, second", NULL, "a350d28b42", "03487d970b", "2aa350d28b4203487d970b", CB_QUIC_LB_PLAIN, 1},
    {"B.2, first: odd, three passes", "8f95f09245765f80256934e50c66207f", "ed793a", "ee080dbf", "0720b1d07b359d3c",
     CB_QUIC_LB_AES_FOUR, 0},
    {"B.2, second: a long server ID, four passes", "8f95f09245765f80256934e50c66207f", "ed793a51d49b8f5fab65",
     "ee080dbf48", "2fcc381bc74cb4fbad2823a3d1f8fed2", CB_QUIC_LB_AES_FOUR, 1},
    {"B.2, third: one pass", "8f95f09245765f80256934e50c66207f", "ed793a51d49b8f5f", "ee080dbf48c0d1e5",
     "504dd2d05a7b0de9b2b9907afb5ecf8cc3", CB_QUIC_LB_AES_ONE, 2},
    {"B.2, fourth: even, 18 bytes", "8f95f09245765f80256934e50c66207f", "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d",
     "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc", CB_QUIC_LB_AES_FOUR, 0},
    {"5.4.2, the worked example", "fdf726a9893ec05c0632d3956680baf0", "31441a", "9c69c275", "0767947d29be054a",
     CB_QUIC_LB_AES_FOUR, 0},
};

Test(quic_lb_aes, vectors_of_the_draft) {
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        uint8_t secret[16], id[15], nonce[18], want[20], cid[20];
        cb_quic_lb_info info;
        cb_quic_lb *lb = NULL;
        if (vectors[i].key) from_hex(vectors[i].key, secret);
        cb_quic_lb_opts o = {.size = sizeof o,
                             .server_id = id,
                             .key = vectors[i].key ? secret : NULL,
                             .codec = vectors[i].codec,
                             .rotation = vectors[i].rotation,
                             .no_host_bytes = 1};
        o.server_id_bytes = (uint32_t)from_hex(vectors[i].id, id);
        o.nonce_bytes = (uint32_t)from_hex(vectors[i].nonce, nonce);
        size_t n = from_hex(vectors[i].cid, want);
        cr_assert_eq(cb_quic_lb_new(&lb, &o), CB_OK, "%s: %s", vectors[i].name, cb_last_error());
        cr_assert_eq(cb_quic_lb_encode(lb, cid, sizeof cid, nonce, 0, 0), (int)n, "%s", vectors[i].name);
        cr_expect_eq(memcmp(cid, want, n), 0, "%s", vectors[i].name);
        cr_expect_eq(cb_quic_lb_decode(lb, (cb_slice){want, n}, &info), CB_QUIC_LB_OURS, "%s", vectors[i].name);
        cr_expect_eq(memcmp(info.server_id, id, o.server_id_bytes), 0, "%s", vectors[i].name);
        cr_expect(info.worker == 0 && info.generation == 0);
        cr_expect_eq(cb_quic_lb_encode(lb, cid, sizeof cid, nonce, 1, 0), CB_EINVAL);
        cr_expect_eq(cb_quic_lb_encode(lb, cid, sizeof cid, nonce, 0, 1), CB_EINVAL);
        cb_quic_lb_free(lb);
    }
}

/* Calls `each` for every server ID and nonce length there is. */
static int every_form(void (*each)(const cb_quic_lb *lb, const uint8_t *id)) {
    int forms = 0;
    for (int bare = 0; bare < 2; bare++)
        for (uint32_t body = BODY_MIN; body <= (bare ? 19U : 17U); body++)
            for (uint32_t id_bytes = 1; id_bytes + 4 <= body; id_bytes++, forms++) {
                uint8_t id[15];
                cb_quic_lb lb;
                draw(id, sizeof id);
                make(&lb, id, id_bytes, body - id_bytes, key, bare);
                each(&lb, id);
            }
    return forms;
}

static void round_trip(const cb_quic_lb *lb, const uint8_t *id) {
    for (int i = 0; i < 50; i++) {
        uint8_t cid[20], nonce[18], host[2] = {0}, body[CB_QUIC_LB_BODY_MAX];
        cb_quic_lb_info info;
        draw(nonce, sizeof nonce);
        if (lb->host_bytes) draw(host, sizeof host);
        int n = cb_quic_lb_encode(lb, cid, sizeof cid, nonce, host[0], host[1]);
        cr_assert_eq(n, 1 + lb->server_id_bytes + lb->nonce_bytes + lb->host_bytes);
        cr_assert_eq(cid[0], lb->rotation << 5 | (n - 1));
        cr_assert_eq(cb_quic_lb_decode(lb, (cb_slice){cid, (size_t)n}, &info), CB_QUIC_LB_OURS, "server ID of %u in %d",
                     lb->server_id_bytes, n);
        cr_assert_eq(memcmp(info.server_id, id, lb->server_id_bytes), 0);
        cr_assert(info.worker == host[0] && info.generation == host[1] && info.rotation == lb->rotation);
        cb_quic_lb_body_open(lb, cid + 1, CB_QUIC_LB_BODY_MAX, body);
        cr_assert_eq(memcmp(body, id, lb->server_id_bytes), 0);
        cr_assert_eq(memcmp(body + lb->server_id_bytes, nonce, lb->nonce_bytes), 0);
    }
}

Test(quic_lb_aes, round_trips_of_every_length) {
    cr_assert_eq(every_form(round_trip), 13 * 14 / 2 + 15 * 16 / 2);
}

/* One changed bit of the block changes the plaintext, and about half of its bits. */
static void flip(const cb_quic_lb *lb, const uint8_t *id) {
    uint8_t cid[20], nonce[18], was[CB_QUIC_LB_BODY_MAX], is[CB_QUIC_LB_BODY_MAX];
    const size_t len = (size_t)lb->server_id_bytes + lb->nonce_bytes;
    int changed = 0, tries = 0;
    (void)id;
    for (int i = 0; i < 10; i++) {
        draw(nonce, sizeof nonce);
        cb_quic_lb_encode(lb, cid, sizeof cid, nonce, 0, 0);
        cb_quic_lb_body_open(lb, cid + 1, len, was);
        for (size_t bit = 0; bit < len * 8; bit++, tries++) {
            int here = 0;
            cid[1 + bit / 8] ^= (uint8_t)(1 << bit % 8);
            cb_quic_lb_body_open(lb, cid + 1, len, is);
            for (size_t k = 0; k < len; k++)
                here += __builtin_popcount(was[k] ^ is[k]);
            cr_assert_gt(here, 0, "bit %zu of %zu bytes", bit, len);
            changed += here;
            cid[1 + bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
    }
    const double share = changed / ((double)tries * (double)len * 8);
    cr_assert(share > 0.46 && share < 0.54, "%.3f of the bits change in %zu bytes", share, len);
}

Test(quic_lb_aes, every_bit_counts) {
    every_form(flip);
}

/* IDs made with one key and read with another: as many are "ours" as chance has it, and no more. */
Test(quic_lb_aes, a_wrong_key_reads_noise) {
    enum { N = 1 << 16 };
    static const struct {
        uint32_t id_bytes, nonce_bytes;
    } rows[] = {{1, 15}, {1, 4}, {1, 8}, {2, 14}, {2, 4}, {4, 12}, {13, 4}};
    uint8_t other[16], id[15];
    memcpy(other, key, 16);
    other[15] ^= 1;
    draw(id, sizeof id);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        cb_quic_lb writer, reader;
        make(&writer, id, rows[r].id_bytes, rows[r].nonce_bytes, key, false);
        make(&reader, id, rows[r].id_bytes, rows[r].nonce_bytes, other, false);
        int ours = 0;
        for (int i = 0; i < N; i++) {
            uint8_t cid[20], nonce[18];
            cb_quic_lb_info info;
            draw(nonce, sizeof nonce);
            int n = cb_quic_lb_encode(&writer, cid, sizeof cid, nonce, 9, 9);
            ours += cb_quic_lb_decode(&reader, (cb_slice){cid, (size_t)n}, &info) == CB_QUIC_LB_OURS;
            cr_assert(info.worker == 9 && info.generation == 9); /* the host reads its bytes without the key */
        }
        /* 256 expected, 1 and 0: six standard deviations. */
        if (rows[r].id_bytes == 1)
            cr_expect(ours > 160 && ours < 352, "row %zu: %d", r, ours);
        else
            cr_expect(ours <= 7, "row %zu: %d", r, ours);
    }
}

/* The server ID cannot be seen: under one nonce, what two servers' IDs have in common is chance. */
Test(quic_lb_aes, nobody_sees_which_ids_are_of_one_server) {
    static const uint8_t id[15] = {1, 2, 3};
    uint8_t cid[20], nonce[18];
    int ones[19 * 8] = {0};
    enum { N = 4096 };
    for (uint32_t body = BODY_MIN; body <= 19; body++) {
        cb_quic_lb lb;
        memset(ones, 0, sizeof ones);
        make(&lb, id, 1, body - 1, key, true);
        for (int i = 0; i < N; i++) {
            draw(nonce, sizeof nonce);
            cb_quic_lb_encode(&lb, cid, sizeof cid, nonce, 0, 0);
            for (size_t bit = 0; bit < body * 8; bit++)
                ones[bit] += cid[1 + bit / 8] >> bit % 8 & 1;
        }
        for (size_t bit = 0; bit < body * 8; bit++) /* six standard deviations, of 32 */
            cr_assert(ones[bit] > N / 2 - 192 && ones[bit] < N / 2 + 192, "bit %zu of %u bytes: %d", bit, body,
                      ones[bit]);
    }
}

Test(quic_lb_aes, a_balancer_reads_and_never_writes) {
    static const uint8_t id[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    static const uint8_t nonce[8] = {9};
    uint8_t cid[20];
    cb_quic_lb_info info;
    cb_quic_lb host;
    cb_quic_lb *lb = NULL;
    make(&host, id, 8, 8, key, false);
    cr_assert_eq(cb_quic_lb_new(&lb, CB_OPTS(cb_quic_lb_opts, .server_id_bytes = 8, .codec = CB_QUIC_LB_AES_ONE,
                                             .key = key, .rotation = host.rotation)),
                 CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_quic_lb_encode(&host, cid, sizeof cid, nonce, 3, 4), 19);
    cr_assert_eq(cb_quic_lb_decode(lb, (cb_slice){cid, 19}, &info), CB_QUIC_LB_OTHER);
    cr_assert(info.server_id_bytes == 8 && !memcmp(info.server_id, id, 8) && !info.worker && !info.generation);
    static const uint8_t zeros[8]; /* a server ID like any other, and not the balancer's */
    make(&host, zeros, 8, 8, key, false);
    cr_assert_eq(cb_quic_lb_encode(&host, cid, sizeof cid, nonce, 3, 4), 19);
    cr_expect_eq(cb_quic_lb_decode(lb, (cb_slice){cid, 19}, &info), CB_QUIC_LB_OTHER);
    cr_expect_eq(cb_quic_lb_encode(lb, cid, sizeof cid, nonce, 0, 0), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "server_id"), "%s", cb_last_error());
    cb_quic_lb_free(lb);
}

Test(quic_lb_aes, a_set_reads_old_and_new_configurations) {
    static const uint8_t id[8] = {0xa, 0xb, 0xc, 0xd, 1, 2, 3, 4};
    static const uint8_t nonce[18] = {5, 6, 7};
    cb_quic_lb codecs[7];
    const cb_quic_lb *all[8];
    cb_quic_lb_set *set = NULL, *two = NULL;
    cb_quic_lb_info info;
    uint8_t cid[20];
    for (uint32_t i = 0; i < 7; i++) {
        uint8_t own[16] = {(uint8_t)i};
        make(&codecs[i], id, i + 1, 9, own, i % 2); /* rotation 1..6, 0; 16 bytes once */
        all[i] = &codecs[i];
    }
    all[7] = &codecs[0];
    cr_assert_eq(cb_quic_lb_set_new(&set, all, 7, NULL), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_quic_lb_set_new(&two, all + 2, 2, NULL), CB_OK);
    for (uint32_t i = 0; i < 7; i++) {
        int n = cb_quic_lb_encode(cb_quic_lb_set_codec(set, codecs[i].rotation), cid, sizeof cid, nonce, 0, 0);
        cr_assert_eq(cb_quic_lb_set_decode(set, (cb_slice){cid, (size_t)n}, &info), CB_QUIC_LB_OURS);
        cr_assert(info.rotation == (i + 1) % 7 && info.server_id_bytes == i + 1);
        cr_expect_eq(cb_quic_lb_set_decode(two, (cb_slice){cid, (size_t)n}, &info),
                     i == 2 || i == 3 ? CB_QUIC_LB_OURS : CB_QUIC_LB_FOREIGN);
        cr_expect_eq(info.rotation, (i + 1) % 7);
        cid[0] |= 7 << 5; /* unroutable */
        cr_expect_eq(cb_quic_lb_set_decode(set, (cb_slice){cid, (size_t)n}, &info), CB_QUIC_LB_FOREIGN);
        cr_expect_eq(info.rotation, 7);
    }
    cr_expect_eq(cb_quic_lb_set_decode(set, (cb_slice){NULL, 0}, &info), CB_QUIC_LB_FOREIGN);
    cr_expect(!cb_quic_lb_set_codec(set, 7) && !cb_quic_lb_set_codec(two, 1) && cb_quic_lb_set_codec(two, 3));
    cb_quic_lb_set_free(set);
    cb_quic_lb_set_free(two);
    cb_quic_lb_set_free(NULL);
    set = NULL;
    cr_expect_eq(cb_quic_lb_set_new(&set, all + 1, 7, NULL), CB_OK); /* 1..6 and 0 again: each once */
    cb_quic_lb_set_free(set);
    set = NULL;
    const cb_quic_lb *twice[] = {all[0], all[1], all[0]}, *none[] = {all[0], NULL};
    cr_expect_eq(cb_quic_lb_set_new(&set, twice, 3, NULL), CB_EEXIST);
    cr_expect_eq(cb_quic_lb_set_new(&set, none, 2, NULL), CB_EINVAL);
    cr_expect_eq(cb_quic_lb_set_new(&set, all, 8, NULL), CB_EINVAL);
    cr_expect_eq(cb_quic_lb_set_new(&set, all, 0, NULL), CB_EINVAL);
    cr_expect_eq(cb_quic_lb_set_new(&set, NULL, 1, NULL), CB_EINVAL);
    cr_expect_eq(cb_quic_lb_set_new(NULL, all, 1, NULL), CB_EINVAL);
    cr_expect_null(set);
}

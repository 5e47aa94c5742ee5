/* Packet protection: both backends against the standards and against each other, and how one is chosen. */
#include "base/addr.h"
#include "base/error.h"
#include "support/quic_fixture.h"
#include "transport/quic_aead_choice.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PACKET = 1500 };

static size_t from_hex(uint8_t *out, const char *hex) {
    size_t n = 0;
    for (unsigned byte; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++) {
        out[n] = (uint8_t)byte;
    }
    return n;
}

static void fill(uint8_t *out, size_t len, uint32_t seed) {
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525 + 1013904223;
        out[i] = (uint8_t)(seed >> 24);
    }
}

/* The backends that this machine has: GnuTLS first. */
static size_t backends(const cb_quic_aead *out[2]) {
    out[0] = &cb_quic_aead_gnutls;
    return cb_quic_aead_choose(&out[1], CB_AEAD_IPSEC_MB, NULL, NULL) == CB_OK ? 2 : 1;
}

/* --- RFC 9001, appendix A --- */

static const char crypto_frame[] =
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c000000010"
    "000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e00050005010000000000330026"
    "0024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e040305030603"
    "0203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff0801100104800075300901"
    "100f088394c8f03e51570806048000ffff";

static const struct {
    const char *what;
    int cipher;
    const char *key, *hp, *nonce, *header, *payload;
    size_t payload_len; /* with padding */
    size_t pn_len;
    const char *protected_header;
    const char *tag; /* what the packet ends with */
} appendix[] = {
    {"A.2", CB_QUIC_AES_128_GCM, "1f369613dd76d5467730efcbe3b1a22d", "9f50449e04a0e810283a1e9933adedd2",
     "fa044b2f42a3fd3b46fb255e", "c300000001088394c8f03e5157080000449e00000002", crypto_frame, 1162, 4,
     "c000000001088394c8f03e5157080000449e7b9aec34", "e221af44860018ab0856972e194cd934"},
    {"A.3", CB_QUIC_AES_128_GCM, "cf3a5331653c364c88f0f379b6067e37", "c206b8d9b9f0f37644430b490eeaa314",
     "0ac1493ca1905853b0bba03f", "c1000000010008f067a5502a4262b50040750001",
     "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045a1200130100002e0033002"
     "4"
     "001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00020304",
     99, 2, "cf000000010008f067a5502a4262b5004075c0d9", "2158407dd074ee"},
    {"A.4", CB_QUIC_AES_128_GCM, "be0c690b9f66575a1d766b54e368c84e", NULL, "461599d35d632bf2239825bb",
     "088394c8f03e515708ff000000010008f067a5502a4262b5746f6b656e", "", 0, 0, NULL, "04a265ba2eff4d829058fb3f0f2496ba"},
    {"A.5", CB_QUIC_CHACHA20_POLY1305, "c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8",
     "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4", "e0459b3474bdd0e46d417eb0", "4200bff4", "01",
     1, 3, "4cfe4189", "5cd55c41f69080575d7999c25a5bfb"},
};

/* Sealed, with its header protected; returns the length. */
static size_t protect(const cb_quic_aead *a, size_t row, uint8_t *packet) {
    uint8_t key[32], hp[32], nonce[12], text[PACKET] = {0}, mask[16] = {0};
    size_t header = from_hex(packet, appendix[row].header), len = appendix[row].payload_len;
    from_hex(key, appendix[row].key);
    from_hex(nonce, appendix[row].nonce);
    cr_assert_leq(from_hex(text, appendix[row].payload), len);
    cb_quic_key *k = a->key_new(appendix[row].cipher, key, &cb_alloc_libc);
    cr_assert(k->seal(k, packet + header, text, len, nonce, packet, header));
    k->free(k);
    if (appendix[row].hp) {
        uint8_t *pn = packet + header - appendix[row].pn_len;
        from_hex(hp, appendix[row].hp);
        cb_quic_mask *m = a->mask_new(appendix[row].cipher, hp, &cb_alloc_libc);
        cr_assert(m->make(m, mask, pn + 4));
        m->free(m);
        packet[0] ^= mask[0] & (packet[0] & 0x80 ? 0x0f : 0x1f);
        for (size_t i = 0; i < appendix[row].pn_len; i++) {
            pn[i] ^= mask[1 + i];
        }
    }
    return header + len + CB_QUIC_TAG;
}

Test(quic_aead, rfc_9001_appendix_a) {
    const cb_quic_aead *a[2];
    for (size_t n = backends(a); n-- > 0;) {
        for (size_t row = 0; row < sizeof appendix / sizeof appendix[0]; row++) {
            uint8_t packet[PACKET], wanted[64];
            size_t len = protect(a[n], row, packet), tag = from_hex(wanted, appendix[row].tag);
            cr_assert_arr_eq(packet + len - tag, wanted, tag, "%s %s", cb_aead_name(a[n]->id), appendix[row].what);
            if (!appendix[row].protected_header) continue;
            size_t header = from_hex(wanted, appendix[row].protected_header);
            cr_assert_arr_eq(packet, wanted, header, "%s %s", cb_aead_name(a[n]->id), appendix[row].what);
        }
    }
}

/* A server takes the client's packet of appendix A.2 and answers with the server's keys of A.1: what is derived from
 * the client's first connection ID is right in both directions. (The answer is a refusal: the transport parameters of
 * the appendix do not fit its packet.) */
static void answer_appendix(uint8_t backend) {
    qt_world w;
    cb_addr to;
    uint8_t packet[PACKET], answer[PACKET], raw[16], mask[16], nonce[12];
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w);
    so.alpn = "alpn";
    so.aead = backend;
    qt_listen(&w, &so);
    cr_assert_eq(cb_addr_parse(&to, w.remote, 0), CB_OK);
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    size_t len = protect(&cb_quic_aead_gnutls, 0, packet);
    cr_assert_eq(sendto(s, packet, len, 0, &to.sa, cb_addr_len(&to)), (ssize_t)len);
    struct pollfd wait = {.fd = s, .events = POLLIN};
    for (int i = 0; i < 500 && poll(&wait, 1, 0) == 0; i++) {
        qt_turn(&w, 10);
    }
    ssize_t got = recv(s, answer, sizeof answer, MSG_DONTWAIT);
    cr_assert_gt(got, 40, "the server did not understand the packet");
    cr_assert_eq(answer[0] & 0xf0, 0xc0, "not an Initial packet: %02x", answer[0]);
    cr_assert_eq(answer[5], 0, "the client's connection ID has no bytes");
    size_t at = 7 + answer[6]; /* version, IDs; then a token's length of 0, and the length as a variable one */
    cr_assert_eq(answer[at], 0);
    size_t rest = answer[at + 1] & 0x3f, pn = at + 1 + (size_t)(1 << (answer[at + 1] >> 6));
    for (size_t i = at + 2; i < pn; i++) {
        rest = rest << 8 | answer[i];
    }
    cr_assert_leq(pn + rest, (size_t)got);
    cr_assert_gt(rest, 4 + CB_QUIC_TAG);
    from_hex(raw, "c206b8d9b9f0f37644430b490eeaa314");
    cb_quic_mask *m = cb_quic_aead_gnutls.mask_new(CB_QUIC_AES_128_GCM, raw, &cb_alloc_libc);
    cr_assert(m->make(m, mask, answer + pn + 4));
    m->free(m);
    answer[0] ^= mask[0] & 0x0f;
    size_t pn_len = 1 + (answer[0] & 3);
    from_hex(nonce, "0ac1493ca1905853b0bba03e");
    for (size_t i = 0; i < pn_len; i++) {
        answer[pn + i] ^= mask[1 + i];
        nonce[12 - pn_len + i] ^= answer[pn + i];
    }
    from_hex(raw, "cf3a5331653c364c88f0f379b6067e37");
    cb_quic_key *k = cb_quic_aead_gnutls.key_new(CB_QUIC_AES_128_GCM, raw, &cb_alloc_libc);
    size_t head = pn + pn_len, text = rest - pn_len - CB_QUIC_TAG;
    cr_assert(k->open(k, answer + head, answer + head, text, nonce, answer, head), "the answer is not authentic");
    k->free(k);
    close(s);
    qt_world_drop(&w);
}

Test(quic_aead, initial_keys_of_rfc_9001) {
    const cb_quic_aead *a[2];
    for (size_t n = backends(a); n-- > 0;) {
        answer_appendix((uint8_t)a[n]->id);
    }
}

/* --- the backends against each other --- */

Test(quic_aead, same_at_all_lengths) {
    const cb_quic_aead *a[2];
    if (backends(a) < 2) cr_skip_test("only GnuTLS is here");
    for (int cipher = 0; cipher < CB_QUIC_CIPHERS; cipher++) {
        uint8_t raw[32], nonce[12], text[PACKET], aad[PACKET], one[PACKET + 16], two[PACKET + 16];
        fill(raw, sizeof raw, (uint32_t)cipher);
        cb_quic_key *k0 = a[0]->key_new(cipher, raw, &cb_alloc_libc), *k1 = a[1]->key_new(cipher, raw, &cb_alloc_libc);
        cb_quic_mask *m0 = a[0]->mask_new(cipher, raw, &cb_alloc_libc);
        cb_quic_mask *m1 = a[1]->mask_new(cipher, raw, &cb_alloc_libc);
        for (size_t len = 0; len <= PACKET; len++) {
            size_t aad_len = len % 10 ? 1 + len % 70 : 1 + len * 7 % PACKET;
            fill(text, len, (uint32_t)len);
            fill(aad, aad_len, (uint32_t)len + 1);
            fill(nonce, sizeof nonce, (uint32_t)len + 2);
            cr_assert(k0->seal(k0, one, text, len, nonce, aad, aad_len));
            memcpy(two, text, len);
            cr_assert(k1->seal(k1, two, two, len, nonce, aad, aad_len)); /* in place */
            cr_assert_arr_eq(one, two, len + 16, "cipher %d, %zu bytes, %zu associated", cipher, len, aad_len);
            cr_assert(k0->open(k0, two, two, len, nonce, aad, aad_len));
            cr_assert(memcmp(two, text, len) == 0);
            cr_assert(k1->open(k1, one, one, len, nonce, aad, aad_len));
            cr_assert(memcmp(one, text, len) == 0);
            uint8_t mask0[16], mask1[16];
            cr_assert(m0->make(m0, mask0, text) && m1->make(m1, mask1, text));
            cr_assert_arr_eq(mask0, mask1, CB_QUIC_MASK);
        }
        k0->free(k0);
        k1->free(k1);
        m0->free(m0);
        m1->free(m1);
    }
}

Test(quic_aead, refuses_what_was_tampered_with) {
    const cb_quic_aead *a[2];
    for (size_t n = backends(a); n-- > 0;) {
        for (int cipher = 0; cipher < CB_QUIC_CIPHERS; cipher++) {
            enum { LEN = 300, AAD = 21 };
            uint8_t raw[32], all[LEN + 16 + AAD + 12], out[LEN];
            fill(raw, sizeof raw, 5);
            fill(all, sizeof all, 6);
            uint8_t *aad = all + LEN + 16, *nonce = aad + AAD;
            cb_quic_key *k = a[n]->key_new(cipher, raw, &cb_alloc_libc);
            cr_assert(k->seal(k, all, all, LEN, nonce, aad, AAD));
            for (size_t bit = 0; bit < 8 * sizeof all; bit++) {
                all[bit / 8] ^= (uint8_t)(1 << bit % 8);
                cr_assert_not(k->open(k, out, all, LEN, nonce, aad, AAD), "%s, cipher %d: bit %zu",
                              cb_aead_name(a[n]->id), cipher, bit);
                all[bit / 8] ^= (uint8_t)(1 << bit % 8);
            }
            cr_assert(k->open(k, out, all, LEN, nonce, aad, AAD));
            k->free(k);
        }
    }
}

/* --- keys are wiped --- */

static uint8_t freed[2][4096]; /* what the last blocks held when they were given back */
static size_t freed_len[2], n_freed;

static void *recording(void *ptr, size_t size, void *user) {
    size_t *block = ptr ? (size_t *)ptr - 2 : NULL;
    (void)user;
    if (size) {
        block = malloc(size + 2 * sizeof *block);
        *block = size;
        return block + 2;
    }
    if (!block) return NULL;
    size_t at = n_freed++ % 2;
    freed_len[at] = *block < sizeof freed[at] ? *block : 0;
    memcpy(freed[at], ptr, freed_len[at]);
    free(block);
    return NULL;
}

static bool holds(const uint8_t *part, size_t len) {
    return memmem(freed[0], freed_len[0], part, len) || memmem(freed[1], freed_len[1], part, len);
}

/* Before its first packet a key is as it came, then it is what GCM makes of it, which begins with the key itself. */
Test(quic_aead, keys_are_wiped) {
    const cb_quic_aead *a[2];
    const cb_alloc alloc = {recording, NULL};
    if (backends(a) < 2) cr_skip_test("GnuTLS keeps its keys in memory of its own");
    for (int i = 0; i < 2 * CB_QUIC_CIPHERS; i++) {
        int cipher = i / 2;
        uint8_t raw[32], packet[100 + 16] = {0};
        fill(raw, sizeof raw, 99);
        cb_quic_key *k = a[1]->key_new(cipher, raw, &alloc);
        cr_assert_neq(memmem(k, ((size_t *)(void *)k)[-2], raw, 16), NULL, "the test looks for what is not there");
        if (i % 2) { /* a rest between two packets changes nothing but memory */
            uint8_t again[100 + 16] = {0}, zeros[13] = {0};
            cr_assert(k->seal(k, packet, packet, 100, zeros, zeros, 13));
            if (k->rest) k->rest(k);
            cr_assert(k->seal(k, again, again, 100, zeros, zeros, 13));
            cr_assert_arr_eq(again, packet, sizeof packet);
        }
        n_freed = 0;
        k->free(k);
        cr_assert_eq(n_freed, (size_t)(i % 2 && cipher != CB_QUIC_CHACHA20_POLY1305 ? 2 : 1));
        cr_assert_not(holds(raw, 16), "cipher %d", cipher);
        if (cipher == CB_QUIC_CHACHA20_POLY1305) continue;
        cb_quic_mask *m = a[1]->mask_new(cipher, raw, &alloc);
        cr_assert_neq(memmem(m, ((size_t *)(void *)m)[-2], raw, 16), NULL);
        m->free(m);
        cr_assert_not(holds(raw, 16), "mask, cipher %d", cipher);
    }
}

/* --- the choice --- */

static bool lie(cb_quic_key *k, uint8_t *dst, const uint8_t *src, size_t len, const uint8_t *nonce, const uint8_t *aad,
                size_t aad_len) {
    (void)k;
    (void)dst;
    (void)src;
    (void)len;
    (void)nonce;
    (void)aad;
    (void)aad_len;
    return true;
}

static cb_quic_key *credulous(int cipher, const uint8_t *key, const cb_alloc *alloc) {
    cb_quic_key *k = cb_quic_aead_gnutls.key_new(cipher, key, alloc);
    k->open = lie; /* any tag will do */
    return k;
}

static cb_quic_key *confused(int cipher, const uint8_t *key, const cb_alloc *alloc) {
    uint8_t other[32];
    memcpy(other, key, cb_quic_cipher_key_len(cipher));
    if (cipher == CB_QUIC_AES_256_GCM) other[31] ^= 1;
    return cb_quic_aead_gnutls.key_new(cipher, other, alloc);
}

static cb_quic_mask *masked(int cipher, const uint8_t *key, const cb_alloc *alloc) {
    return cb_quic_aead_gnutls.mask_new(cipher == CB_QUIC_AES_256_GCM ? CB_QUIC_AES_128_GCM : cipher, key, alloc);
}

Test(quic_aead, wrong_answers_are_noticed) {
    const cb_quic_aead good = cb_quic_aead_gnutls;
    cb_quic_aead bad = good;
    cr_assert(cb_quic_aead_proves(&good));
    bad.key_new = credulous;
    cr_assert_not(cb_quic_aead_proves(&bad));
    bad.key_new = confused;
    cr_assert_not(cb_quic_aead_proves(&bad));
    bad.key_new = good.key_new;
    bad.mask_new = masked;
    cr_assert_not(cb_quic_aead_proves(&bad));
}

Test(quic_aead, choice) {
    const cb_quic_aead *found[2], *got = NULL;
    bool mb = backends(found) == 2;
    const struct {
        int option;
        const char *environment;
        int rc, id;
        const char *detail;
    } table[] = {
        {CB_AEAD_GNUTLS, "ipsec-mb", CB_OK, CB_AEAD_GNUTLS, NULL}, /* the option comes first */
        {CB_AEAD_DEFAULT, "gnutls", CB_OK, CB_AEAD_GNUTLS, NULL},
        {CB_AEAD_DEFAULT, "GnuTLS", CB_OK, CB_AEAD_GNUTLS, NULL},
        {CB_AEAD_DEFAULT, "ipsec-mb", mb ? CB_OK : CB_ENOTSUP, CB_AEAD_IPSEC_MB, "libipsec-mb"},
        {CB_AEAD_IPSEC_MB, "gnutls", mb ? CB_OK : CB_ENOTSUP, CB_AEAD_IPSEC_MB, "libipsec-mb"},
        {CB_AEAD_DEFAULT, "rot13", CB_EINVAL, 0, "CBR_AEAD: \"rot13\" is not one of auto, gnutls, ipsec-mb"},
        {3, NULL, CB_EINVAL, 0, "packet protection 3"},
        {CB_AEAD_DEFAULT, "auto", CB_OK, -1, NULL},
        {CB_AEAD_DEFAULT, "", CB_OK, -1, NULL},
        {CB_AEAD_DEFAULT, NULL, CB_OK, -1, NULL},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        int rc = cb_quic_aead_choose(&got, table[i].option, table[i].environment, NULL);
        cr_assert_eq(rc, table[i].rc, "row %zu: %d", i, rc);
        if (rc < 0) cr_assert(strstr(cb_last_error(), table[i].detail) != NULL, "row %zu: %s", i, cb_last_error());
        if (rc >= 0 && table[i].id >= 0) cr_assert_eq(got->id, table[i].id, "row %zu", i);
    }
    cr_assert_str_eq(cb_aead_name(CB_AEAD_GNUTLS), "gnutls");
    cr_assert_str_eq(cb_aead_name(CB_AEAD_IPSEC_MB), "ipsec-mb");
    cr_assert_str_eq(cb_aead_name(CB_AEAD_DEFAULT), "default");
    cr_assert_str_eq(cb_aead_name(9), "unknown");
}

/* Each of both sides with each backend: a transfer with a change of keys in it. */
Test(quic_aead, connections_and_statistics) {
    const cb_quic_aead *a[2];
    size_t n = backends(a);
    for (size_t i = 0; i < n * n; i++) {
        qt_world w;
        qt_world_make(&w);
        cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
        so.aead = (uint8_t)a[i / n]->id;
        co.aead = (uint8_t)a[i % n]->id;
        qt_listen(&w, &so);
        qt_client_open(&w, &co);
        qt_connect(&w);
        cr_assert(qt_until(&w, &w.client.handshakes, 1), "%s", w.client.detail);
        w.server.echo = true;
        for (int round = 1; round <= 2; round++) {
            uint64_t before = w.client.bytes;
            qt_send(&w.client, 200000);
            cr_assert(qt_until_bytes(&w, &w.client.bytes, before + 200000), "round %d", round);
            if (round == 1) cr_assert_eq(cb_quic_conn_key_update(w.client.conn), CB_OK);
        }
        cb_quic_conn_stats cs = {.size = sizeof cs};
        cb_quic_endpoint_stats es = {.size = sizeof es};
        cr_assert_eq(cb_quic_conn_stats_get(w.client.conn, &cs), CB_OK);
        cr_assert_eq(cs.aead, co.aead);
        cr_assert_eq(cb_quic_endpoint_stats_get(w.server.endpoint, &es), CB_OK);
        cr_assert_eq(es.aead, so.aead);
        cr_assert_eq(w.client.closes + w.server.closes, 0, "%s", w.client.detail);
        qt_world_drop(&w);
    }
}

Test(quic_aead, wrong_option) {
    qt_world w;
    cb_quic_endpoint *e = NULL;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w);
    so.aead = 3;
    cr_assert_eq(cb_quic_listen(&e, w.loop, "127.0.0.1:0", &so), CB_EINVAL);
    cr_assert(strstr(cb_last_error(), "packet protection 3") != NULL, "%s", cb_last_error());
    qt_world_drop(&w);
}

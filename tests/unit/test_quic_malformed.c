/* Packets that nobody should send: none of them may crash a server or hurt another connection. */
#include "support/moved.h"
#include "support/quic_fixture.h"
#include "transport/quic_endpoint_int.h"
#include <criterion/criterion.h>
#include <string.h>

typedef struct attack {
    qt_world w;
    uint8_t initial[1500];
    size_t len;
    cb_addr from;
} attack;

static void start(attack *a) {
    qt_world *w = &a->w;
    qt_world_make(w);
    qt_start(w); /* the bystander */
    /* a second client's first packet, taken out of it */
    cb_quic_conn *good = w->client.conn;
    qt_connect(w);
    cb_quic_train t;
    ep_conn *c = CB_CONTAINER(w->client.endpoint->conns.prev, ep_conn, all);
    cb_quic_core_write(&c->core, a->initial, sizeof a->initial, cb_loop_now(w->loop), &t);
    cr_assert_geq(t.len, 1200);
    a->len = t.len;
    cb_quic_core_finish(&c->core, CB_OK, false, "never sent");
    cr_assert(qt_until(w, &w->client.closes, 1));
    w->client.closes = 0;
    w->client.conn = good;
    cb_addr_parse(&a->from, "127.0.0.1:9", 0); /* discard */
}

static void throw(attack * a, uint8_t *data, size_t len) {
    cb_quic_endpoint *e = a->w.server.endpoint;
    /* a block of exactly this size, so that a read behind it is seen */
    uint8_t *copy = cb_mem_get(&cb_alloc_libc, len ? len : 1);
    if (len) memcpy(copy, data, len);
    cb_datagram d = {.local = *cb_quic_endpoint_addr(e), .remote = a->from, .data = copy, .len = len};
    cb_quic_endpoint_packet(e, &e->main, &d);
    cb_mem_free(&cb_alloc_libc, copy);
}

static void stop(attack *a) {
    qt_world *w = &a->w;
    int fins = w->client.fins;
    cr_assert_eq(w->client.closes, 0);
    qt_send(&w->client, 100000);
    cr_assert(qt_until(w, &w->client.fins, fins + 1), "the bystander was hurt: %s", w->client.detail);
    qt_world_drop(w);
}

Test(quic_malformed, truncated_at_each_length) {
    attack a;
    start(&a);
    for (size_t n = 0; n < a.len; n++) {
        throw(&a, a.initial, n);
        if (n % 64 == 0) qt_turn(&a.w, 1);
    }
    cb_quic_endpoint_stats s = {.size = sizeof s};
    cb_quic_endpoint_stats_get(a.w.server.endpoint, &s);
    cr_assert_eq(s.conns_total, 1, "%d", (int)s.conns_total); /* too short for a first packet, each of them */
    cr_assert_gt(s.malformed, 1000);
    EXPECT_MOVED(a.w.metrics, s.malformed, "cb_quic_malformed_packets");
    stop(&a);
}

Test(quic_malformed, one_bit_wrong, .timeout = 60) {
    attack a;
    start(&a);
    for (size_t bit = 0; bit < a.len * 8; bit += bit < 100 * 8 ? 1 : 37) {
        uint8_t copy[1500];
        memcpy(copy, a.initial, a.len);
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        throw(&a, copy, a.len);
        if (bit % 128 == 0) qt_turn(&a.w, 1);
    }
    qt_turn(&a.w, 2);
    cr_assert_eq(a.w.server.handshakes, 1);
    for (size_t i = 100; i < a.len; i += 100) { /* the same once more: nothing leads to what is gone */
        uint8_t copy[1500];
        memcpy(copy, a.initial, a.len);
        copy[i] ^= 1;
        throw(&a, copy, a.len);
        qt_turn(&a.w, 1);
    }
    cr_assert_leq(a.w.server.endpoint->cids.len, 12, "%zu", a.w.server.endpoint->cids.len);
    stop(&a);
}

Test(quic_malformed, noise_and_duplicates) {
    attack a;
    uint32_t seed = 1;
    start(&a);
    for (int i = 0; i < 3000; i++) {
        uint8_t noise[1500];
        seed = seed * 1103515245 + 12345;
        size_t len = (seed >> 8) % sizeof noise;
        for (size_t j = 0; j < len; j++) {
            seed = seed * 1103515245 + 12345;
            noise[j] = (uint8_t)(seed >> 16);
        }
        if (len > 5 && i % 2) { /* get past the first checks */
            noise[0] |= 0xc0;
            memcpy(noise + 1, "\0\0\0\1", 4);
        }
        if (len > 6 && i % 4 == 1) noise[5] %= 21;
        throw(&a, noise, len);
        if (i % 100 == 0) qt_turn(&a.w, 1);
    }
    for (int i = 0; i < 200; i++)
        throw(&a, a.initial, a.len);
    cb_quic_endpoint_stats s = {.size = sizeof s};
    cb_quic_endpoint_stats_get(a.w.server.endpoint, &s);
    cr_assert_eq(s.conns_now, 2, "%d", (int)s.conns_now); /* the bystander, and one for all the copies */
    qt_turn(&a.w, 2);
    stop(&a);
}

/* Long headers with lengths that lie. */
Test(quic_malformed, lying_headers) {
    attack a;
    start(&a);
    for (int type = 0; type < 4; type++) {
        for (int dcid = 0; dcid < 256; dcid++) {
            uint8_t p[1300] = {0};
            p[0] = (uint8_t)(0xc0 | type << 4);
            memcpy(p + 1, dcid % 2 ? "\0\0\0\1" : "\x6b\x33\x43\xcf", 4);
            p[5] = (uint8_t)dcid;
            size_t at = 6 + (size_t)dcid;
            p[at++] = (uint8_t)(dcid * 7);
            memset(p + at, 0xff, 8 + 8); /* token and packet of 2^62 - 1 bytes */
            throw(&a, p, sizeof p);
            throw(&a, p, at);
            throw(&a, p, 6);
        }
    }
    static const uint8_t cases[][24] = {
        {0xc0, 0, 0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 1}, /* Version Negotiation, to a server */
        {0xf0, 0, 0, 0, 1, 0, 0, 1, 2, 3},                            /* Retry, to a server */
        {0x80, 0, 0, 0, 1, 8},                                        /* the fixed bit is missing */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t p[1200] = {0};
        memcpy(p, cases[i], sizeof cases[i]);
        throw(&a, p, sizeof p);
        throw(&a, p, 24);
    }
    qt_turn(&a.w, 2);
    stop(&a);
}

/* The other direction: what a server, or somebody in its place, might send to a client. */
Test(quic_malformed, a_client_under_fire) {
    attack a;
    start(&a);
    cb_quic_endpoint *e = a.w.client.endpoint;
    ep_conn *c = CB_CONTAINER(e->conns.next, ep_conn, all);
    ngtcp2_cid ids[8];
    size_t n = ngtcp2_conn_get_scid(c->core.ng, NULL);
    cr_assert(n >= 1 && n <= 8);
    ngtcp2_conn_get_scid(c->core.ng, ids);
    uint32_t seed = 7;
    for (int i = 0; i < 4000; i++) {
        uint8_t p[1500];
        seed = seed * 1103515245 + 12345;
        size_t len = 1 + (seed >> 8) % 1400;
        for (size_t j = 0; j < len; j++) {
            seed = seed * 1103515245 + 12345;
            p[j] = (uint8_t)(seed >> 16);
        }
        if (i % 3 && len > 40) { /* to its connection ID, short or long */
            size_t at = i % 3 == 1 ? 1 : 6;
            p[0] = i % 3 == 1 ? 0x40 : (uint8_t)(0xc0 | (p[0] & 0x3f));
            if (at == 6) {
                memcpy(p + 1, i % 2 ? "\0\0\0\1" : "\0\0\0\0", 4);
                p[5] = (uint8_t)ids[0].datalen;
            }
            memcpy(p + at, ids[0].data, ids[0].datalen);
        }
        cb_datagram d = {.local = *cb_udp_local(e->main.udp),
                         .remote = *cb_quic_endpoint_addr(a.w.server.endpoint),
                         .data = p,
                         .len = len};
        cb_quic_endpoint_packet(e, &e->main, &d);
    }
    qt_turn(&a.w, 2);
    stop(&a);
}

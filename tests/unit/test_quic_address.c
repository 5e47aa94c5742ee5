/* Address validation and answers without state, some of them to packets written by hand. */
#include "support/moved.h"
#include "support/quic_fixture.h"
#include "transport/quic_endpoint_int.h"
#include "transport/quic_token.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void stats_of(cb_quic_endpoint *e, cb_quic_endpoint_stats *s) {
    *s = (cb_quic_endpoint_stats){.size = sizeof *s};
    cb_quic_endpoint_stats_get(e, s);
}

Test(quic_address, retry_always) {
    for (uint8_t version = 0; version <= 2; version += 2) {
        qt_world w;
        cb_quic_endpoint_stats s;
        qt_world_make(&w);
        cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
        so.retry = 1;
        co.version = version;
        qt_listen(&w, &so);
        qt_client_open(&w, &co);
        qt_connect(&w);
        cr_assert(qt_until(&w, &w.server.handshakes, 1), "%s", w.client.detail);
        stats_of(w.server.endpoint, &s);
        cr_assert_eq(s.retries_sent, 1);
        cr_assert_eq(s.conns_total, 1);
        qt_send(&w.client, 50000);
        cr_assert(qt_until(&w, &w.client.fins, 1));
        /* the second connection shows the token that came in NEW_TOKEN: no Retry */
        qt_connect(&w);
        cr_assert(qt_until(&w, &w.server.handshakes, 2), "%s", w.client.detail);
        stats_of(w.server.endpoint, &s);
        cr_assert_eq(s.retries_sent, 1);
        EXPECT_MOVED(w.metrics, 1, "cb_quic_retries", "out");
        EXPECT_MOVED(w.metrics, 1, "cb_quic_retries", "in");
        EXPECT_MOVED(w.metrics, 1, "cb_quic_tokens", "none");
        EXPECT_MOVED(w.metrics, 1, "cb_quic_tokens", "retry");
        EXPECT_MOVED(w.metrics, 1, "cb_quic_tokens", "new_token");
        EXPECT_MOVED(w.metrics, 2, "cb_quic_new_tokens", "out");
        EXPECT_MOVED_IN(w.metrics, 1, 2, "cb_quic_new_tokens", "in");
        qt_world_drop(&w);
    }
}

Test(quic_address, retry_under_load_or_never) {
    enum { N = 20 };
    for (int never = 0; never < 2; never++) {
        qt_world w;
        cb_quic_endpoint_stats s;
        qt_world_make(&w);
        cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
        so.retry_above = 4;
        so.retry = never ? 2 : 0;
        qt_listen(&w, &so);
        qt_client_open(&w, &co);
        for (int i = 0; i < N; i++)
            qt_connect(&w);
        cr_assert(qt_until(&w, &w.server.handshakes, N), "%d: %s", w.server.handshakes, w.client.detail);
        stats_of(w.server.endpoint, &s);
        if (never)
            cr_assert_eq(s.retries_sent, 0);
        else
            cr_assert(s.retries_sent >= N - 5 && s.retries_sent < N, "%d", (int)s.retries_sent);
        qt_world_drop(&w);
    }
}

Test(quic_address, tokens) {
    uint8_t secret[32] = {1}, other[32] = {2}, token[CB_QUIC_TOKEN_MAX], packet[1200];
    cb_addr a, b;
    ngtcp2_cid odcid, retry_scid;
    const uint64_t day = 86400ull * 1000000000, now = 20000 * day;
    cb_addr_parse(&a, "192.0.2.1:1000", 0);
    cb_addr_parse(&b, "192.0.2.2:1000", 0);
    size_t n = cb_quic_token_make(secret, &a, now, token, sizeof token);
    cr_assert_gt(n, 0);
    cr_assert_eq(cb_quic_token_make(secret, &a, now, token, 8), 0);
    n = cb_quic_token_make(secret, &a, now, token, sizeof token);
    ngtcp2_pkt_hd hd = {.version = NGTCP2_PROTO_VER_V1, .token = token, .tokenlen = n};
    ngtcp2_cid_init(&hd.dcid, (const uint8_t *)"12345678", 8);
    ngtcp2_cid_init(&hd.scid, (const uint8_t *)"abcdefgh", 8);
    cr_assert_eq(cb_quic_token_check(secret, &hd, &a, now + 1, &odcid), CB_QUIC_TOKEN_NEW);
    cr_assert_eq(cb_quic_token_check(secret, &hd, &b, now + 1, &odcid), CB_QUIC_TOKEN_NONE);
    cr_assert_eq(cb_quic_token_check(other, &hd, &a, now + 1, &odcid), CB_QUIC_TOKEN_NONE);
    cr_assert_eq(cb_quic_token_check(secret, &hd, &a, now + 2 * day, &odcid), CB_QUIC_TOKEN_NONE);
    hd.tokenlen = n - 1;
    cr_assert_eq(cb_quic_token_check(secret, &hd, &a, now + 1, &odcid), CB_QUIC_TOKEN_NONE);
    hd.tokenlen = 0;
    cr_assert_eq(cb_quic_token_check(secret, &hd, &a, now + 1, &odcid), CB_QUIC_TOKEN_NONE);
    /* Retry: bound to address, to the connection ID that it gave, and to ten seconds */
    ngtcp2_cid_init(&retry_scid, (const uint8_t *)"retryretryretryretr", 19);
    n = cb_quic_retry_packet(packet, sizeof packet, secret, &hd, &retry_scid, &a, now);
    cr_assert_gt(n, 0);
    size_t head = 1 + 4 + 1 + 8 + 1 + 19;
    ngtcp2_pkt_hd again = hd;
    again.token = packet + head;
    again.tokenlen = n - head - 16;
    again.dcid = retry_scid;
    cr_assert_eq(cb_quic_token_check(secret, &again, &a, now + 1, &odcid), CB_QUIC_TOKEN_RETRY);
    cr_assert(ngtcp2_cid_eq(&odcid, &hd.dcid));
    cr_assert_eq(cb_quic_token_check(secret, &again, &b, now + 1, &odcid), CB_QUIC_TOKEN_INVALID);
    cr_assert_eq(cb_quic_token_check(secret, &again, &a, now + 11000000000ull, &odcid), CB_QUIC_TOKEN_INVALID);
    again.dcid = hd.dcid;
    cr_assert_eq(cb_quic_token_check(secret, &again, &a, now + 1, &odcid), CB_QUIC_TOKEN_INVALID);
}

/* A plain socket beside the endpoints. */
static int plain_socket(const char *remote) {
    cb_addr to;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    cr_assert_eq(cb_addr_parse(&to, remote, 0), CB_OK);
    cr_assert_eq(connect(fd, &to.sa, cb_addr_len(&to)), 0);
    return fd;
}

static ssize_t ask(qt_world *w, int fd, const uint8_t *packet, size_t len, uint8_t *answer, size_t cap) {
    ssize_t n = -1;
    cr_assert_eq(send(fd, packet, len, 0), (ssize_t)len);
    for (int i = 0; i < 10 && n < 0; i++) {
        qt_turn(w, 2);
        n = recv(fd, answer, cap, 0);
    }
    return n;
}

Test(quic_address, version_negotiation) {
    qt_world w;
    uint8_t packet[1200] = {0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 5, 9, 8, 7, 6, 5}, answer[1500];
    cb_quic_endpoint_stats s;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w);
    qt_listen(&w, &so);
    int fd = plain_socket(w.remote);
    ssize_t n = ask(&w, fd, packet, sizeof packet, answer, sizeof answer);
    cr_assert_eq(n, 1 + 4 + 1 + 5 + 1 + 8 + 12, "%zd", n);
    cr_assert(answer[0] & 0x80);
    cr_assert_eq(memcmp(answer + 1, "\0\0\0\0", 4), 0);
    cr_assert_eq(memcmp(answer + 5, "\x05\x09\x08\x07\x06\x05\x08\x01\x02\x03\x04\x05\x06\x07\x08", 15), 0);
    cr_assert_eq(answer[20] & 0x0f, 0x0a); /* a reserved version, then those that are spoken */
    cr_assert_eq(memcmp(answer + 24, "\0\0\0\1\x6b\x33\x43\xcf", 8), 0);
    cr_assert_eq(ask(&w, fd, packet, 1199, answer, sizeof answer), -1); /* too small to be answered */
    /* connection IDs longer than QUIC v1 has are repeated as they are (RFC 8999) */
    packet[5] = 200;
    packet[6 + 200] = 250;
    n = ask(&w, fd, packet, sizeof packet, answer, sizeof answer);
    cr_assert_eq(n, 1 + 4 + 1 + 250 + 1 + 200 + 12, "%zd", n);
    stats_of(w.server.endpoint, &s);
    cr_assert_eq(s.version_negotiations, 2);
    EXPECT_MOVED(w.metrics, 2, "cb_quic_version_negotiations", "out");
    cr_assert_eq(s.conns_total, 0);
    close(fd);
    qt_world_drop(&w);
}

Test(quic_address, stateless_reset) {
    qt_world w;
    uint8_t packet[1200] = {0x40}, answer[1500];
    cb_quic_endpoint_stats s;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w);
    qt_listen(&w, &so);
    int fd = plain_socket(w.remote);
    for (size_t i = 1; i < sizeof packet; i++)
        packet[i] = (uint8_t)(i * 7);
    for (size_t len = 1; len <= sizeof packet; len += len < 100 ? 1 : 100) {
        ssize_t n = ask(&w, fd, packet, len, answer, sizeof answer);
        if (len < 22) {
            cr_assert_eq(n, -1, "%zu bytes were answered with %zd", len, n);
            continue;
        }
        cr_assert(n >= 21 && n < (ssize_t)len && n <= 43, "%zu bytes were answered with %zd", len, n);
        cr_assert_eq(answer[0] & 0xc0, 0x40);
    }
    /* two that answer each other come to an end: a reset as the trigger of the next */
    int rounds = 0;
    ssize_t n = 1200;
    memcpy(answer, packet, sizeof packet);
    while ((n = ask(&w, fd, answer, (size_t)n, answer, sizeof answer)) > 0)
        cr_assert_lt(++rounds, 40);
    stats_of(w.server.endpoint, &s);
    /* and no more than so many a second */
    uint64_t before = s.stateless_resets;
    for (int i = 0; i < 2000; i++) {
        cr_assert_eq(send(fd, packet, 100, 0), 100);
        if (i % 100 == 0) qt_turn(&w, 1);
    }
    qt_turn(&w, 10);
    stats_of(w.server.endpoint, &s);
    cr_assert_leq(s.stateless_resets - before, 1000);
    EXPECT_MOVED(w.metrics, s.stateless_resets, "cb_quic_stateless_resets", "out");
    /* each of the last 2,000 was answered or held, as was the last of the rounds that was too short, by none of them */
    EXPECT_MOVED_IN(w.metrics, 1000, 2000, "cb_quic_suppressed_stateless_resets");
    cr_assert_eq(s.conns_total, 0);
    close(fd);
    qt_world_drop(&w);
}

/* A server that lost its memory ends the client's connection at the next packet. */
Test(quic_address, stateless_reset_ends_a_connection) {
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    qt_send(&w.client, 1000);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    qt_turn(&w, 5);
    cb_quic_endpoint *e = w.server.endpoint;
    cb_map_free(&e->cids);
    e->last_len = 0;
    qt_send(&w.client, 1000);
    cr_assert(qt_until(&w, &w.client.closes, 1));
    cr_assert_eq(w.client.close_rc, CB_ECLOSED);
    cr_assert(strstr(w.client.detail, "stateless reset") != NULL, "%s", w.client.detail);
    EXPECT_MOVED(w.metrics, 1, "cb_quic_stateless_resets", "in");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_closed_connections", "client", "reset");
    qt_world_drop(&w);
}

/* After the end, a peer that did not hear it is told again, ever more rarely, and then not known any more. */
Test(quic_address, what_is_closed_is_repeated) {
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    cb_quic_endpoint *e = w.server.endpoint;
    cb_quic_endpoint_stats s;
    stats_of(e, &s);
    uint64_t before = s.tx_datagrams;
    cb_quic_conn_close(w.server.conn, 5, "enough");
    cb_quic_endpoint_flush(&e->flush);
    cr_assert_eq(w.server.closes, 1);
    cr_assert(!cb_list_empty(&e->tombs));
    ep_tomb *t = CB_CONTAINER(e->tombs.next, ep_tomb, link);
    cr_assert_gt(t->packet_len, 0);
    EXPECT_MOVED(w.metrics, 1, "cb_quic_draining_connections");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_closed_connections", "server", "closed");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_closes", "out", "application");
    uint8_t packet[100] = {0x40};
    memcpy(packet + 1, t->cid[0].data, t->cid[0].datalen);
    cb_datagram d = {.data = packet, .len = sizeof packet};
    cb_addr_parse(&d.remote, w.remote, 0);
    d.local = d.remote;
    for (int i = 0; i < 100; i++)
        cb_quic_endpoint_packet(e, &e->main, &d);
    cr_assert_eq(t->hits, 100);
    cr_assert(qt_until(&w, &w.client.closes, 1));
    cr_assert_eq(w.client.close_rc, CB_ECLOSED);
    cr_assert(strstr(w.client.detail, "enough") != NULL, "%s", w.client.detail);
    EXPECT_MOVED(w.metrics, 1, "cb_quic_closed_connections", "client", "peer");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_closes", "in", "application");
    stats_of(e, &s);
    cr_assert_eq(s.tx_datagrams - before, 7 + 1, "%d", (int)(s.tx_datagrams - before)); /* 1, 2, 4 ... 64; the first */
    qt_turn(&w, 300);
    cr_assert(cb_list_empty(&e->tombs));
    cr_assert_eq(e->cids.len, 0);
    qt_world_drop(&w);
}

/* Until the client's address is proven, a server sends at most three times what it got (RFC 9000, 8.1). */
Test(quic_address, amplification_is_limited) {
    qt_world w;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    /* a chain of certificates that does not fit: many names */
    char names[512] = "server.test", cert[160], key[160];
    for (int i = 0; i < 7; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), ",a-rather-long-name-%d-that-fills-packets.test",
                 i);
    cb_identity *id = NULL;
    tls_pki_leaf(&w.pki, names, 0, "long", 0, 0);
    cb_identity_new(&id, CB_OPTS(cb_identity_opts, .cert_file = tls_pki_path(&w.pki, "long.pem", cert),
                                 .key_file = tls_pki_path(&w.pki, "long-key.pem", key)));
    so.identity = id;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    /* the client's first packet, from a socket that never answers */
    qt_connect(&w);
    cb_quic_endpoint *ce = w.client.endpoint;
    uint8_t initial[1500], answer[1500];
    cb_quic_train train;
    ep_conn *c = CB_CONTAINER(ce->conns.next, ep_conn, all);
    cb_quic_core_write(&c->core, initial, sizeof initial, cb_loop_now(w.loop), &train);
    cr_assert_geq(train.len, 1200);
    int fd = plain_socket(w.remote);
    cr_assert_eq(send(fd, initial, train.len, 0), (ssize_t)train.len);
    cb_quic_endpoint_free(ce);
    w.client.endpoint = NULL;
    size_t got = 0;
    for (int i = 0; i < 50; i++) {
        ssize_t n;
        qt_turn(&w, 20);
        while ((n = recv(fd, answer, sizeof answer, 0)) > 0)
            got += (size_t)n;
    }
    cr_assert_gt(got, 1000);
    cr_assert_leq(got, 3 * train.len, "%zu bytes for %zu", got, train.len);
    close(fd);
    cb_identity_unref(id);
    qt_world_drop(&w);
}

/* Every bit of a token turned over, every length of it, another secret, another address, another time: none counts, and
 * a spoiled Retry token never passes for one that was not there. */
Test(quic_address, tokens_changed_in_any_way) {
    uint8_t secret[32] = {7}, other[32] = {8}, packet[1200], token[CB_QUIC_TOKEN_MAX];
    cb_addr a, b;
    ngtcp2_cid odcid, retry_scid;
    const uint64_t s = 1000000000ull, now = 20000 * 86400ull * s;
    cb_addr_parse(&a, "192.0.2.1:1000", 0);
    cb_addr_parse(&b, "192.0.2.1:1001", 0);
    ngtcp2_pkt_hd hd = {.version = NGTCP2_PROTO_VER_V1};
    ngtcp2_cid_init(&hd.dcid, (const uint8_t *)"12345678", 8);
    ngtcp2_cid_init(&hd.scid, (const uint8_t *)"abcdefgh", 8);
    ngtcp2_cid_init(&retry_scid, (const uint8_t *)"retryretryretryretr", 19);
    size_t n = cb_quic_retry_packet(packet, sizeof packet, secret, &hd, &retry_scid, &a, now);
    const size_t head = 1 + 4 + 1 + 8 + 1 + 19;
    for (int retry = 0; retry < 2; retry++) {
        size_t len = retry ? n - head - 16 : cb_quic_token_make(secret, &a, now, token, sizeof token);
        if (retry) memcpy(token, packet + head, len);
        ngtcp2_pkt_hd with = hd;
        if (retry) with.dcid = retry_scid;
        with.token = token;
        with.tokenlen = len;
        const enum cb_quic_token_kind good = retry ? CB_QUIC_TOKEN_RETRY : CB_QUIC_TOKEN_NEW;
        cr_assert_eq(cb_quic_token_check(secret, &with, &a, now + s, &odcid), good);
        for (size_t bit = 0; bit < len * 8; bit++) {
            token[bit / 8] ^= (uint8_t)(1 << bit % 8);
            enum cb_quic_token_kind kind = cb_quic_token_check(secret, &with, &a, now + s, &odcid);
            bool as_none = !retry || bit < 8; /* the first byte says what it is */
            cr_expect(kind == CB_QUIC_TOKEN_INVALID || (as_none && kind == CB_QUIC_TOKEN_NONE), "retry %d, bit %zu: %d",
                      retry, bit, kind);
            token[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        for (size_t cut = 0; cut < len; cut++) {
            with.tokenlen = cut;
            cr_expect_neq(cb_quic_token_check(secret, &with, &a, now + s, &odcid), good, "retry %d, %zu bytes", retry,
                          cut);
        }
        with.tokenlen = len;
        cr_expect_neq(cb_quic_token_check(other, &with, &a, now + s, &odcid), good);
        cr_expect_eq(cb_quic_token_check(secret, &with, &b, now + s, &odcid), retry ? CB_QUIC_TOKEN_INVALID : good,
                     "a NAT may give another port between connections, not within one");
        cr_expect_neq(cb_quic_token_check(secret, &with, &a, now + 2 * 86400 * s, &odcid), good);
    }
}

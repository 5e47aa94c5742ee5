#include "base/addr.h"
#include "support/moved.h"
#include "support/quic_fixture.h"
#include "transport/quic_cc.h"
#include "transport/quic_endpoint_int.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* One handshake that must fail: what the client is told, and that the server goes on. */
typedef struct failing {
    const char *what;
    const char *server_name;
    const char *client_alpn;
    const char *names; /* of the server's certificate; NULL = the usual */
    int64_t not_before;
    uint32_t days;
    bool stranger; /* signed by an unknown CA */
    uint8_t request_cert, verify;
    int rc;
    const char *detail; /* part of it */
} failing;

static void fail_once(const failing *f) {
    qt_world w;
    tls_pki other;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    cb_identity *id = NULL;
    if (f->stranger) tls_pki_make(&other);
    if (f->names) {
        tls_pki *p = f->stranger ? &other : &w.pki;
        char cert[160], key[160];
        tls_pki_leaf(p, f->names, 0, "bad", f->not_before, f->days);
        cr_assert_eq(cb_identity_new(&id, CB_OPTS(cb_identity_opts, .cert_file = tls_pki_path(p, "bad.pem", cert),
                                                  .key_file = tls_pki_path(p, "bad-key.pem", key))),
                     CB_OK, "%s", cb_last_error());
        so.identity = id;
    }
    so.request_client_cert = f->request_cert;
    co.verify = f->verify;
    if (f->client_alpn) co.alpn = f->client_alpn;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    int rc = cb_quic_connect(&w.client.conn, w.client.endpoint, w.remote, f->server_name);
    cr_assert_eq(rc, CB_OK, "%s: %s", f->what, cb_last_error());
    if (f->rc == CB_OK) {
        cr_assert(qt_until(&w, &w.client.handshakes, 1), "%s: %s", f->what, w.client.detail);
    } else {
        cr_assert(qt_until(&w, &w.client.closes, 1), "%s", f->what);
        cr_assert_eq(w.client.close_rc, f->rc, "%s: %s: %s", f->what, cb_strerror(w.client.close_rc), w.client.detail);
        cr_assert(strstr(w.client.detail, f->detail) != NULL, "%s: \"%s\"", f->what, w.client.detail);
        cb_quic_endpoint_stats s = {.size = sizeof s};
        qt_turn(&w, 5);
        cb_quic_endpoint_stats_get(w.server.endpoint, &s);
        cr_assert_eq(s.conns_now, 0, "%s", f->what);
        if (!f->request_cert) cr_assert_eq(w.server.handshakes, 0, "%s", f->what);
    }
    qt_world_drop(&w);
    cb_identity_unref(id);
    if (f->stranger) tls_pki_drop(&other);
}

Test(quic_handshake, what_a_client_refuses_and_what_a_server_does) {
    int64_t now = time(NULL);
    const failing table[] = {
        {.what = "no common protocol",
         .server_name = "server.test",
         .client_alpn = "other",
         .rc = CB_ETLS,
         .detail = "alert"},
        {.what = "wrong name", .server_name = "elsewhere.test", .rc = CB_EAUTH, .detail = "elsewhere.test"},
        {.what = "wrong name, chain only", .server_name = "elsewhere.test", .verify = CB_VERIFY_CHAIN, .rc = CB_OK},
        {.what = "address in the certificate", .server_name = "127.0.0.1", .rc = CB_OK},
        {.what = "expired",
         .server_name = "server.test",
         .names = "server.test",
         .not_before = now - 20 * 86400,
         .days = 10,
         .rc = CB_EAUTH,
         .detail = "expired"},
        {.what = "not yet",
         .server_name = "server.test",
         .names = "server.test",
         .not_before = now + 86400,
         .days = 10,
         .rc = CB_EAUTH,
         .detail = "valid"},
        {.what = "unknown CA",
         .server_name = "server.test",
         .names = "server.test",
         .stranger = true,
         .rc = CB_EAUTH,
         .detail = ""},
        {.what = "unknown CA, unverified",
         .server_name = "server.test",
         .names = "server.test",
         .stranger = true,
         .verify = CB_VERIFY_NONE,
         .rc = CB_OK},
        {.what = "client certificate asked for", .server_name = "server.test", .request_cert = 1, .rc = CB_OK},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        fail_once(&table[i]);
    }
}

Test(quic_handshake, client_certificate_required) {
    qt_world w;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.request_client_cert = 2;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.closes, 1)); /* its own handshake was complete before the server judged */
    cr_assert_eq(w.client.close_rc, CB_ETLS, "%s", w.client.detail);
    cr_assert_eq(w.server.handshakes, 0);
    cb_quic_endpoint_free(w.client.endpoint);
    w.client = (qt_side){.w = &w, .take = SIZE_MAX};
    co.identity = w.server_id; /* one that shows a certificate of the same CA */
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.server.handshakes, 1), "%s", w.client.detail);
    qt_world_drop(&w);
}

Test(quic_handshake, nobody_answers) {
    qt_world w;
    cb_addr deaf = {.v4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof deaf;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    cr_assert_eq(bind(fd, &deaf.sa, sizeof deaf.v4), 0);
    cr_assert_eq(getsockname(fd, &deaf.sa, &len), 0);
    qt_world_make(&w);
    cb_quic_opts co = qt_client_opts(&w);
    co.handshake_timeout_ms = 60;
    cb_addr_text(&deaf, w.remote);
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.closes, 1));
    cr_assert_eq(w.client.close_rc, CB_ETIMEOUT);
    cr_assert(strstr(w.client.detail, "60 ms") != NULL, "%s", w.client.detail);
    EXPECT_MOVED(w.metrics, 1, "cb_quic_closed_connections", "client", "handshake_timeout");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_failed_handshakes", "client", "handshake_timeout");
    qt_world_drop(&w);
    close(fd);
}

Test(quic_handshake, idle_connections_end_and_keep_alive_holds_them) {
    for (int keep = 0; keep < 2; keep++) {
        qt_world w;
        qt_world_make(&w);
        cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
        so.idle_timeout_ms = 150;
        co.keep_alive_ms = keep ? 40 : 0;
        qt_listen(&w, &so);
        qt_client_open(&w, &co);
        qt_connect(&w);
        cr_assert(qt_until(&w, &w.server.handshakes, 1));
        qt_turn(&w, 400);
        cr_assert_eq(w.server.closes, !keep);
        cr_assert_eq(w.client.closes, !keep);
        if (!keep) {
            cr_assert_eq(w.server.close_rc, CB_OK, "%s", w.server.detail);
            cr_assert_eq(w.client.close_rc, CB_ETIMEOUT, "%s", w.client.detail);
        }
        EXPECT_MOVED(w.metrics, !keep, "cb_quic_closed_connections", "server", "idle");
        EXPECT_MOVED(w.metrics, !keep, "cb_quic_closed_connections", "client", "idle");
        qt_world_drop(&w);
    }
}

Test(quic_handshake, max_conns_and_refuse) {
    qt_world w;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.max_conns = 2;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    qt_connect(&w);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.server.handshakes, 2));
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.closes, 1));
    cr_assert_eq(w.client.close_rc, CB_EUNREACH, "%s", w.client.detail);
    cr_assert(strstr(w.client.detail, "CONNECTION_REFUSED") != NULL, "%s", w.client.detail);
    EXPECT_MOVED(w.metrics, 1, "cb_quic_refused_connections", "full");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_failed_handshakes", "client", "refused");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_closes", "in", "connection_refused");
    cb_quic_endpoint_free(w.client.endpoint);
    cr_assert(qt_until(&w, &w.server.closes, 2));
    w.client = (qt_side){.w = &w, .take = SIZE_MAX};
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.server.handshakes, 3), "%s", w.client.detail);
    cb_quic_endpoint_refuse(w.server.endpoint);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.closes, 1));
    cr_assert_eq(w.client.close_rc, CB_EUNREACH);
    EXPECT_MOVED(w.metrics, 1, "cb_quic_refused_connections", "draining");
    cb_quic_endpoint_stats s = {.size = sizeof s};
    cb_quic_endpoint_stats_get(w.server.endpoint, &s);
    cr_assert_eq(s.refused, 2);
    cr_assert_eq(s.conns_now, 1);
    qt_world_drop(&w);
}

Test(quic_handshake, versions_and_controllers) {
    static const struct {
        uint8_t version;
        int cc, runs;
        uint32_t wire;
    } table[] = {{0, 0, 0, 1}, {2, CB_CC_RENO, CB_CC_RENO, 0x6b3343cf}, {1, CB_CC_BBRV3, CB_CC_BBRV3, 1}};
    const int unsaid = cb_quic_cc_choose(0, getenv("CBR_CC")); /* what runs where the options leave it open */
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        qt_world w;
        qt_world_make(&w);
        cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
        co.version = table[i].version;
        co.cc = so.cc = table[i].cc;
        qt_listen(&w, &so);
        qt_client_open(&w, &co);
        qt_connect(&w);
        cr_assert(qt_until(&w, &w.client.handshakes, 1), "%s", w.client.detail);
        cr_assert(qt_until(&w, &w.server.handshakes, 1));
        qt_send(&w.client, 1000);
        cr_assert(qt_until(&w, &w.client.fins, 1));
        cb_quic_conn_stats s = {.size = sizeof s}, t = {.size = sizeof t};
        cb_quic_conn_stats_get(w.client.conn, &s);
        cb_quic_conn_stats_get(w.server.conn, &t);
        cr_assert_eq(s.version, table[i].wire);
        cr_assert_eq(t.version, table[i].wire);
        cr_assert_eq(s.cc, table[i].runs ? table[i].runs : unsaid);
        cr_assert_gt(s.min_rtt_ns, 0);
        cr_assert_gt(s.tx_packets, 2);
        cr_assert_gt(s.rx_bytes, 1000);
        cr_assert_eq(s.lost_packets, UINT64_MAX);
        EXPECT_MOVED(w.metrics, 2, "cb_quic_versions", table[i].wire == 1 ? "1" : "2");
        EXPECT_MOVED(w.metrics, 2, "cb_quic_congestion_controllers", cb_cc_name(s.cc));
        EXPECT_MOVED(w.metrics, 2, "cb_quic_packet_protections", s.aead == CB_AEAD_IPSEC_MB ? "ipsec_mb" : "gnutls");
        EXPECT_MOVED(w.metrics, 1, "cb_quic_handshake_seconds", "server");
        EXPECT_MOVED(w.metrics, 1, "cb_quic_handshake_seconds", "client");
        qt_world_drop(&w);
    }
}

/* Version Negotiation with one version in it, as if the server had answered the client's first packet. */
static void answer_versions(qt_world *w, uint32_t version) {
    cb_quic_endpoint *e = w->client.endpoint;
    ep_conn *c = CB_CONTAINER(e->conns.next, ep_conn, all);
    uint8_t first[1500], answer[64] = {0x80};
    cb_quic_train t;
    cb_quic_core_write(&c->core, first, sizeof first, cb_loop_now(w->loop), &t);
    size_t dcid = first[5], scid = first[6 + dcid];
    uint8_t *p = answer + 5;
    *p++ = (uint8_t)scid;
    memcpy(p, first + 7 + dcid, scid);
    p += scid;
    *p++ = (uint8_t)dcid;
    memcpy(p, first + 6, dcid);
    p += dcid;
    for (int shift = 24; shift >= 0; shift -= 8)
        *p++ = (uint8_t)(version >> shift);
    cb_datagram d = {.local = *cb_udp_local(e->main.udp), .data = answer, .len = (size_t)(p - answer)};
    cb_addr_parse(&d.remote, w->remote, 0);
    cb_quic_endpoint_packet(e, &e->main, &d);
}

/* A server that has none of our versions ends the attempt; one that is said to have version 1 only, and proves in the
 * handshake to have both, was not the one who said so (RFC 9368, 4). */
Test(quic_handshake, version_negotiation_that_leads_nowhere) {
    static const struct {
        uint32_t offered;
        int rc;
        const char *why;
    } rows[] = {{0xff00001d, CB_ENOTSUP, "0x6b3343cf"}, {0x0a1a2a3a, CB_ENOTSUP, "0x6b3343cf"}, {1, CB_EPROTO, ""}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qt_world w;
        qt_world_make(&w);
        cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
        co.version = 2;
        qt_listen(&w, &so);
        qt_client_open(&w, &co);
        qt_connect(&w);
        answer_versions(&w, rows[i].offered);
        cr_assert(qt_until(&w, &w.client.closes, 1));
        cr_expect_eq(w.client.close_rc, rows[i].rc, "%zu: %d %s", i, w.client.close_rc, w.client.detail);
        cr_expect(strstr(w.client.detail, rows[i].why) != NULL, "%s", w.client.detail);
        cr_expect_eq(w.client.handshakes, 0, "%zu", i);
        EXPECT_MOVED(w.metrics, 1, "cb_quic_version_negotiations", "in");
        EXPECT_MOVED(w.metrics, 1, "cb_quic_failed_handshakes", "client",
                     rows[i].rc == CB_ENOTSUP ? "version" : "protocol");
        qt_world_drop(&w);
    }
}

/* Version 2 first, against servers of both and of version 1 only: the second sends Version Negotiation. */
Test(quic_handshake, version_2_falls_back_to_1) {
    static const struct {
        uint8_t server, client;
        uint32_t got;
        uint64_t negotiations;
    } rows[] = {{0, 2, 0x6b3343cf, 0}, {1, 2, 1, 1}, {1, 0, 1, 0}, {2, 1, 0x6b3343cf, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qt_world w;
        qt_world_make(&w);
        cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
        so.version = rows[i].server;
        co.version = rows[i].client;
        qt_listen(&w, &so);
        qt_client_open(&w, &co);
        qt_connect(&w);
        cr_assert(qt_until(&w, &w.client.handshakes, 1), "%zu: %s", i, w.client.detail);
        qt_send(&w.client, 300000);
        cr_assert(qt_until(&w, &w.client.fins, 1), "%zu: %s", i, w.client.detail);
        cr_expect_eq(w.client.sum, qt_sum_of(300000));
        cb_quic_conn_stats s = {.size = sizeof s};
        cb_quic_endpoint_stats e = {.size = sizeof e};
        cb_quic_conn_stats_get(w.client.conn, &s);
        cb_quic_endpoint_stats_get(w.server.endpoint, &e);
        cr_expect_eq(s.version, rows[i].got, "%zu: 0x%x", i, s.version);
        cr_expect_eq(e.version_negotiations, rows[i].negotiations, "%zu: %d", i, (int)e.version_negotiations);
        EXPECT_MOVED(w.metrics, rows[i].negotiations, "cb_quic_version_negotiations", "in");
        qt_world_drop(&w);
    }
}

Test(quic_handshake, names_of_controllers) {
    cr_assert_eq(cb_cc_parse("CuBiC"), CB_CC_CUBIC);
    cr_assert_eq(cb_cc_parse("bbrv3"), CB_CC_BBRV3);
    cr_assert_eq(cb_cc_parse("vegas"), CB_EINVAL);
    cr_assert(strstr(cb_last_error(), "vegas") != NULL);
    cr_assert_eq(cb_cc_parse(NULL), CB_EINVAL);
    cr_assert_str_eq(cb_cc_name(CB_CC_RENO), "reno");
    cr_assert_str_eq(cb_cc_name(77), "unknown");
    cr_assert_eq(cb_quic_cc_choose(CB_CC_RENO, "bbr"), CB_CC_RENO);
    cr_assert_eq(cb_quic_cc_choose(0, "bbr"), CB_CC_BBR);
    cr_assert_eq(cb_quic_cc_choose(0, ""), CB_CC_CUBIC);
    cr_assert_eq(cb_quic_cc_choose(0, NULL), CB_CC_CUBIC);
    cr_assert_eq(cb_quic_cc_choose(0, "turbo"), CB_EINVAL);
    cr_assert(strstr(cb_last_error(), "CBR_CC") != NULL);
    cr_assert_eq(cb_quic_cc_choose(9, NULL), CB_EINVAL);
}

Test(quic_handshake, options_are_checked) {
    qt_world w;
    qt_world_make(&w);
    cb_quic_endpoint *e = NULL;
    cb_quic_opts good = qt_server_opts(&w);
    for (int i = 0; i < 9; i++) {
        cb_quic_opts o = good;
        const char *listen = "127.0.0.1:0";
        switch (i) {
        case 0:
            o.alpn = NULL;
            break;
        case 1:
            o.identity = NULL;
            break;
        case 2:
            o.retry = 3;
            break;
        case 3:
            o.request_client_cert = 3;
            break;
        case 4:
            o.version = 1 + 2;
            break;
        case 5:
            o.cc = 99;
            break;
        case 6:
            listen = "somewhere:1";
            break;
        case 7:
            listen = NULL;
            break;
        case 8:
            o.worker = 1;
            break; /* of a private group */
        }
        int rc = cb_quic_listen(&e, w.loop, listen, &o);
        cr_assert_eq(rc, CB_EINVAL, "%d", i);
        cr_assert_null(e);
        cr_assert_gt(strlen(cb_last_error()), 10);
    }
    qt_listen(&w, &good);
    cr_assert_eq(cb_quic_listen(&e, w.loop, w.remote, &good), CB_EEXIST);
    cb_quic_conn *c = NULL;
    cr_assert_eq(cb_quic_connect(&c, w.server.endpoint, w.remote, "x"), CB_EINVAL);
    cb_quic_opts co = qt_client_opts(&w);
    qt_client_open(&w, &co);
    cr_assert_eq(cb_quic_connect(&c, w.client.endpoint, "127.0.0.1", "x"), CB_EINVAL); /* no port */
    cr_assert_eq(cb_quic_connect(&c, w.client.endpoint, NULL, "x"), CB_EINVAL);
    cr_assert_eq(cb_quic_connect(&c, w.client.endpoint, w.remote, NULL), CB_EINVAL); /* whom to verify? */
    cr_assert_null(c);
    qt_world_drop(&w);
}

/* A server gives TLS back when the handshake is over, and still knows what came out of it. */
Test(quic_handshake, a_server_keeps_no_tls) {
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    cb_quic_conn_stats s = {.size = sizeof s};
    cr_assert_null(cb_tls_session_handle(w.server.conn->tls));
    cr_assert_not_null(cb_tls_session_handle(w.client.conn->tls)); /* tickets come to it */
    cr_assert_str_eq(cb_quic_conn_alpn(w.server.conn), cb_quic_conn_alpn(w.client.conn));
    cr_assert_str_eq(cb_quic_conn_sni(w.server.conn), "server.test");
    cr_assert_eq(cb_quic_conn_stats_get(w.server.conn, &s), CB_OK);
    cr_assert_eq(s.resumed, 0);
    cr_assert_not(cb_tls_session_has_peer_cert(w.server.conn->tls));
    qt_world_drop(&w);
}

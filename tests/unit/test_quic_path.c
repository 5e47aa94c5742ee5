#include "support/moved.h"
#include "support/quic_fixture.h"
#include "transport/quic_endpoint_int.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { SIZE = 8 << 20 };

Test(quic_path, key_updates_in_a_transfer) {
    enum { LONG = 4 * SIZE }; /* an update is possible again after three probe timeouts, some 100 ms */
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    qt_send(&w.client, LONG);
    int updates = 0;
    for (uint64_t next = LONG / 32; next <= LONG; next += LONG / 32) {
        cr_assert(qt_until_bytes(&w, &w.client.bytes, next));
        cb_quic_conn *c = updates % 2 ? w.server.conn : w.client.conn;
        if (cb_quic_conn_key_update(c) == CB_OK) updates++;
    }
    cr_assert_geq(updates, 2);
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    cr_assert_eq(w.client.sum, qt_sum_of(LONG));
    /* each is an update of its beginner's, and of the other's when he hears of it: the last may not have been heard of
     */
    EXPECT_MOVED(w.metrics, updates, "cb_quic_key_updates", "local");
    EXPECT_MOVED_IN(w.metrics, updates - 1, updates, "cb_quic_key_updates", "peer");
    qt_world_drop(&w);
}

Test(quic_path, a_client_migrates_in_a_transfer) {
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    char before[64], after[64];
    cb_quic_conn_remote(w.server.conn, before, sizeof before);
    qt_send(&w.client, SIZE);
    cr_assert(qt_until_bytes(&w, &w.client.bytes, SIZE / 4));
    cr_assert_eq(cb_quic_conn_migrate(w.server.conn, NULL), CB_EINVAL);
    cr_assert_eq(cb_quic_conn_migrate(w.client.conn, "nonsense"), CB_EINVAL);
    for (int i = 0; i < 3; i++) {
        int rc = cb_quic_conn_migrate(w.client.conn, "127.0.0.1:0");
        cr_assert_eq(rc, CB_OK, "%d: %s", i, cb_last_error());
        cr_assert(qt_until(&w, &w.server.path_changes, i + 1), "%d: %s", i, w.client.detail);
        cr_assert(qt_until(&w, &w.client.path_changes, i + 1));
    }
    cb_quic_conn_remote(w.server.conn, after, sizeof after);
    cr_assert_str_neq(before, after);
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    cr_assert_eq(w.client.sum, qt_sum_of(SIZE));
    cb_quic_conn_stats s = {.size = sizeof s};
    cb_quic_conn_stats_get(w.server.conn, &s);
    cr_assert_eq(s.migrations, 3);
    EXPECT_MOVED(w.metrics, 2 * 3, "cb_quic_migrations", "port"); /* on either side */
    EXPECT_MOVED_IN(w.metrics, 2 * 3, 3 * 3, "cb_quic_path_validations", "ok");
    EXPECT_MOVED_IN(w.metrics, 2 * 6, 40, "cb_quic_connection_ids", "issued");
    /* The last old path's go some probe timeouts after the transfer may have ended. */
    for (int i = 0; i < 100 && moved(w.metrics, "cb_quic_connection_ids", "retired", NULL) < 3; i++)
        qt_turn(&w, 20);
    EXPECT_MOVED_IN(w.metrics, 3, 12, "cb_quic_connection_ids", "retired");
    qt_world_drop(&w);
}

Test(quic_path, a_server_may_forbid_migration) {
    qt_world w;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.no_migration = 1;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.handshakes, 1));
    qt_turn(&w, 20); /* confirmed */
    cr_assert_eq(cb_quic_conn_migrate(w.client.conn, "127.0.0.1:0"), CB_EINVAL);
    cr_assert(strstr(cb_last_error(), "no migration"), "%s", cb_last_error());
    qt_send(&w.client, 1000);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    qt_world_drop(&w);
}

/* A NAT between them that forgets: packets of the client arrive from another port, without its knowing. */
Test(quic_path, the_nat_rebinds) {
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    qt_send(&w.client, 100000);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    cb_quic_endpoint *e = w.client.endpoint;
    /* swap the socket below the client's feet, keeping its idea of the local address */
    ep_socket fresh = {0};
    cb_addr any;
    cb_addr_parse(&any, "127.0.0.1:0", 0);
    cr_assert_eq(cb_quic_endpoint_socket(e, &fresh, &any), CB_OK);
    cb_list_del(&fresh.link);
    cb_udp *old = e->main.udp;
    e->main.udp = fresh.udp;
    fresh.udp = old;
    qt_send(&w.client, 100000);
    qt_turn(&w, 20);
    cr_assert(qt_until(&w, &w.server.path_changes, 1));
    char now[64];
    snprintf(now, sizeof now, "127.0.0.1:%u", cb_addr_port(cb_udp_local(e->main.udp)));
    char seen[64];
    cb_quic_conn_remote(w.server.conn, seen, sizeof seen);
    cr_assert_str_eq(seen, now);
    cb_udp_close(old);
    cr_assert_eq(w.client.closes, 0);
    qt_world_drop(&w);
}

Test(quic_path, ecn_and_trains_are_in_use) {
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    qt_send(&w.client, SIZE);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    cb_quic_endpoint_stats s = {.size = sizeof s};
    cb_quic_endpoint_stats_get(w.server.endpoint, &s);
    cb_quic_conn_stats c = {.size = sizeof c};
    cb_quic_conn_stats_get(w.client.conn, &c);
    if (s.ecn) cr_assert(c.ecn, "marked packets went out");
    cr_assert_gt(moved_sum(w.metrics, "cb_quic_train_packets", NULL),
                 2 * moved(w.metrics, "cb_quic_train_packets", NULL), "packets leave one by one");
    cr_assert_gt(s.rx_datagrams, 5000);
    cr_assert_lt(s.tx_calls, s.tx_datagrams / 4, "%d calls for %d datagrams", (int)s.tx_calls, (int)s.tx_datagrams);
    qt_world_drop(&w);
    /* and without any of it */
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.no_gso = so.no_gro = so.no_ecn = so.no_pmtud = 1;
    co.no_gso = co.no_gro = co.no_ecn = co.no_pmtud = 1;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.handshakes, 1));
    qt_send(&w.client, 1000000);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    cb_quic_endpoint_stats_get(w.server.endpoint, &s);
    cr_assert(!s.gso && !s.gro && !s.ecn);
    cr_assert_leq(s.tx_bytes, s.tx_datagrams * 1200);
    cb_quic_conn_stats_get(w.client.conn, &c);
    cr_assert(!c.ecn);
    qt_world_drop(&w);
}

/* One socket for both families; each answer leaves in the family, and from the address, that it was asked by. */
Test(quic_path, both_families) {
    static const char *const addresses[] = {"127.0.0.1", "[::1]"};
    qt_world w;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    cr_assert_eq(cb_quic_listen(&w.server.endpoint, w.loop, ":0", &so), CB_OK, "%s", cb_last_error());
    unsigned port = cb_addr_port(cb_quic_endpoint_addr(w.server.endpoint));
    for (int i = 0; i < 2; i++) {
        if (cb_quic_endpoint_addr(w.server.endpoint)->sa.sa_family == AF_INET && i) break; /* a kernel without IPv6 */
        char remote[64], seen[64];
        snprintf(w.remote, sizeof w.remote, "%s:%u", addresses[i], port);
        cr_assert_eq(cb_quic_client(&w.client.endpoint, w.loop, NULL, &co), CB_OK); /* the family of what comes */
        qt_connect(&w);
        cr_assert(qt_until(&w, &w.server.handshakes, i + 1), "%s: %s", addresses[i], w.client.detail);
        cr_assert(qt_until(&w, &w.client.handshakes, i + 1));
        cr_assert_str_eq(cb_quic_conn_remote(w.client.conn, seen, sizeof seen), w.remote);
        snprintf(remote, sizeof remote, "%s:%u", addresses[i], cb_addr_port(cb_quic_endpoint_addr(w.client.endpoint)));
        cr_assert_str_eq(cb_quic_conn_remote(w.server.conn, seen, sizeof seen), remote);
        qt_send(&w.client, 100000);
        cr_assert(qt_until(&w, &w.client.fins, 2 * i + 1));
        int rc = cb_quic_conn_migrate(w.client.conn, NULL); /* a new port of the same family */
        cr_assert_eq(rc, CB_OK, "%s: %s", addresses[i], cb_last_error());
        cr_assert(qt_until(&w, &w.client.path_changes, i + 1), "%s", addresses[i]);
        qt_send(&w.client, 100000);
        cr_assert(qt_until(&w, &w.client.fins, 2 * i + 2), "%s: %s", addresses[i], w.client.detail);
        if (i) cr_assert_eq(cb_quic_conn_migrate(w.client.conn, "127.0.0.1:0"), CB_EINVAL);
        cb_quic_endpoint_free(w.client.endpoint);
        w.client.endpoint = NULL;
        w.client.closes = 0;
    }
    qt_world_drop(&w);
}

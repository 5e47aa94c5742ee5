#include "support/moved.h"
#include "support/quic_fixture.h"
#include <criterion/criterion.h>

Test(quic, handshake_and_echo) {
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    cr_assert_str_eq(cb_quic_conn_alpn(w.client.conn), "test");
    cr_assert_str_eq(cb_quic_conn_alpn(w.server.conn), "test");
    cr_assert_str_eq(cb_quic_conn_sni(w.server.conn), "server.test");
    qt_send(&w.client, 5000);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    cr_assert_eq(w.client.bytes, 5000);
    cr_assert_eq(w.client.sum, qt_sum_of(5000));
    cr_assert(qt_until(&w, &w.client.stream_closes, 1));
    cr_assert(qt_until(&w, &w.server.stream_closes, 1));
    cb_quic_conn_close(w.client.conn, 0, "done");
    cr_assert(qt_until(&w, &w.client.closes, 1));
    cr_assert(qt_until(&w, &w.server.closes, 1));
    cr_assert_eq(w.client.close_rc, CB_OK);
    cr_assert_eq(w.server.close_rc, CB_OK, "%s", w.server.detail);
    qt_world_drop(&w);
}

Test(quic, megabytes_both_ways) {
    enum { SIZE = 16 << 20 };
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    qt_send(&w.client, SIZE);
    cr_assert(qt_until_bytes(&w, &w.client.bytes, SIZE), "%llu", (unsigned long long)w.client.bytes);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    uint64_t sum = qt_sum_of(SIZE);
    cr_assert_eq(w.server.sum, sum);
    cr_assert_eq(w.client.sum, sum);
    qt_world_drop(&w);
}

Test(quic, many_streams) {
    enum { N = 400 };
    qt_world w;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.max_streams_bidi = 50; /* more come as old ones close */
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.handshakes, 1));
    int opened = 0, refused = 0;
    while (opened < N) {
        int64_t id;
        int rc = cb_quic_stream_open(w.client.conn, 1, &id);
        if (rc == CB_EAGAIN) {
            int before = w.client.available;
            refused++;
            cr_assert(qt_until(&w, &w.client.available, before + 1), "after %d streams", opened);
            continue;
        }
        cr_assert_eq(rc, CB_OK);
        cr_assert_eq(cb_quic_stream_write(w.client.conn, id, cb_slice_str("twelve bytes"), 1), 12);
        opened++;
    }
    cr_assert(qt_until(&w, &w.client.stream_closes, N));
    cr_assert_geq(refused, 3);
    cr_assert_eq(w.client.bytes, N * 12);
    cr_assert_eq(w.server.opened, N);
    EXPECT_MOVED(w.metrics, N, "cb_quic_streams", "local", "bidirectional");
    EXPECT_MOVED(w.metrics, N, "cb_quic_streams", "peer", "bidirectional");
    EXPECT_MOVED(w.metrics, refused, "cb_quic_flow_control_blocks", "streams");
    EXPECT_MOVED(w.metrics, 2 * 12 * N, "cb_quic_stream_bytes", "in");
    EXPECT_MOVED(w.metrics, 2 * 12 * N, "cb_quic_stream_bytes", "out");
    for (int i = 0; i < N; i++) {
        cr_assert_eq(w.client.stream_bytes[i], 12, "stream %d", i);
    }
    qt_world_drop(&w);
}

Test(quic, unidirectional_streams) {
    qt_world w;
    int64_t id;
    qt_world_make(&w);
    qt_start(&w);
    w.server.echo = false;
    cr_assert_eq(cb_quic_stream_open(w.client.conn, 0, &id), CB_OK);
    cr_assert_eq(id, 2);
    cr_assert_eq(cb_quic_stream_write(w.client.conn, id, cb_slice_str("hello"), 1), 5);
    cr_assert(qt_until(&w, &w.server.fins, 1));
    cr_assert_eq(w.server.bytes, 5);
    cr_assert_eq(cb_quic_stream_write(w.server.conn, id, cb_slice_str("no"), 1), CB_ECLOSED);
    cr_assert_eq(cb_quic_stream_write(w.client.conn, id, cb_slice_str("no"), 1), CB_ECLOSED);
    cr_assert(qt_until(&w, &w.client.stream_closes, 1));
    cr_assert_eq(w.client.stream_close_code, UINT64_MAX);
    qt_world_drop(&w);
}

/* A taker that takes nothing bounds what the sender can push: its window, and our own buffer on top. */
Test(quic, slow_taker_bounds_memory) {
    enum { WINDOW = 64 << 10, BUFFER = 32 << 10, SIZE = 4 << 20 };
    qt_world w;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.stream_window_bytes = so.conn_window_bytes = so.max_window_bytes = WINDOW;
    co.stream_send_bytes = BUFFER;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.handshakes, 1));
    w.server.echo = false;
    w.server.hold = true;
    qt_send(&w.client, SIZE);
    qt_turn(&w, 100);
    cb_quic_conn_stats stats = {.size = sizeof stats};
    cb_quic_conn_stats_get(w.client.conn, &stats);
    cr_assert_eq(w.server.bytes, 0);
    cr_assert_leq(w.client.sent, WINDOW + BUFFER, "%llu", (unsigned long long)w.client.sent);
    cr_assert_geq(w.client.sent, WINDOW, "%llu", (unsigned long long)w.client.sent);
    cr_assert_lt(stats.tx_bytes, WINDOW + WINDOW / 4, "%llu on the wire", (unsigned long long)stats.tx_bytes);
    qt_release(&w.server, 0);
    cr_assert(qt_until_bytes(&w, &w.server.bytes, SIZE));
    cr_assert(qt_until(&w, &w.server.fins, 1));
    cr_assert_eq(w.server.sum, qt_sum_of(SIZE));
    qt_world_drop(&w);
}

Test(quic, taker_of_small_pieces) {
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    w.server.echo = false;
    w.server.take = 1000;
    qt_send(&w.client, 100000);
    while (w.server.bytes < 100000) {
        uint64_t before = w.server.bytes;
        cr_assert(qt_until_bytes(&w, &w.server.bytes, 1));
        for (int i = 0; i < 50; i++)
            qt_release(&w.server, 0);
        if (w.server.bytes == before) qt_turn(&w, 2);
    }
    cr_assert(qt_until(&w, &w.server.fins, 1));
    cr_assert_eq(w.server.sum, qt_sum_of(100000));
    qt_world_drop(&w);
}

Test(quic, reset_by_the_opener_and_by_the_peer) {
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    w.server.hold = true;
    qt_send(&w.client, 300000);
    cr_assert(qt_until(&w, &w.server.opened, 1));
    for (int i = 0; i < 500 && moved(w.metrics, "cb_quic_flow_control_blocks", "stream", NULL) == 0; i++)
        qt_turn(&w, 10); /* the server takes nothing */
    EXPECT_MOVED(w.metrics, 1, "cb_quic_flow_control_blocks", "stream");
    cr_assert_eq(cb_quic_stream_reset(w.client.conn, 0, 42), CB_OK);
    cr_assert(qt_until(&w, &w.server.resets, 1));
    cr_assert_eq(w.server.reset_code, 42);
    cr_assert(qt_until(&w, &w.server.stream_closes, 1));
    cr_assert(qt_until(&w, &w.client.stream_closes, 1));
    cr_assert_eq(w.server.stream_close_code, 42);
    EXPECT_MOVED(w.metrics, 2, "cb_quic_stream_resets", "in"); /* one of them answers STOP_SENDING */
    EXPECT_MOVED(w.metrics, 1, "cb_quic_stream_resets", "out");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_stream_stops", "in");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_stream_stops", "out");
    /* the window of the connection came back: a second stream can carry as much again, and more */
    w.server.hold = false;
    w.client.fins = 0;
    for (int i = 0; i < 5; i++) {
        w.server.hold = true;
        qt_send(&w.client, 250000);
        qt_turn(&w, 5);
        int before = w.server.stream_closes;
        cr_assert_eq(cb_quic_stream_reset(w.client.conn, w.client.send_stream, 43), CB_OK);
        cr_assert(qt_until(&w, &w.server.stream_closes, before + 1), "round %d", i);
    }
    w.server.hold = false;
    qt_send(&w.client, 2000000);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    /* now the server refuses */
    int resets = w.client.resets;
    w.server.hold = true;
    qt_send(&w.client, 300000);
    int opened = w.server.opened;
    cr_assert(qt_until(&w, &w.server.opened, opened + 1));
    cr_assert_eq(cb_quic_stream_reset(w.server.conn, w.server.last_stream, 44), CB_OK);
    cr_assert(qt_until(&w, &w.client.resets, resets + 1));
    cr_assert_eq(w.client.reset_code, 44);
    cr_assert_eq(w.client.closes, 0);
    qt_world_drop(&w);
}

Test(quic, calls_on_what_is_gone) {
    qt_world w;
    int64_t id;
    qt_world_make(&w);
    qt_start(&w);
    cr_assert_eq(cb_quic_stream_write(w.client.conn, 400, cb_slice_str("x"), 0), CB_ECLOSED);
    cr_assert_eq(cb_quic_stream_reset(w.client.conn, 400, 0), CB_ENOENT);
    cb_quic_stream_resume(w.client.conn, 400);
    cb_quic_conn *c = w.client.conn;
    cb_quic_conn_close(c, 0, NULL);
    cr_assert_eq(cb_quic_stream_open(c, 1, &id), CB_ECLOSED);
    cr_assert_eq(cb_quic_stream_write(c, 0, cb_slice_str("x"), 0), CB_ECLOSED);
    cr_assert_eq(cb_quic_datagram_send(c, cb_slice_str("x")), CB_ECLOSED);
    cr_assert_eq(cb_quic_datagram_max(c), 0);
    cr_assert_eq(cb_quic_conn_key_update(c), CB_ECLOSED);
    cr_assert_eq(cb_quic_conn_migrate(c, NULL), CB_ECLOSED);
    cb_quic_conn_close(c, 9, "again");
    cr_assert(qt_until(&w, &w.client.closes, 1));
    cr_assert(qt_until(&w, &w.server.closes, 1));
    qt_world_drop(&w);
}

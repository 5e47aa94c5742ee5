/* What QUIC counts of the paths of connections and of their ends; mostly in virtual time, where it is known what must
 * come. Other tests say what they moved, too: of addresses, versions, streams, workers, early data. */
#include "support/moved.h"
#include "support/quic_fixture.h"
#include "transport/quic_count.h"
#include "transport/quic_endpoint_int.h"
#include <stdio.h>
#include <string.h>

static const cb_sim_link_opts clean = {.size = sizeof clean, .rate_bps = 20000000, .delay_us = 20000, .buffer_bdp = 4};

Test(quic_meters, a_transfer_over_a_clean_path) {
    enum { SIZE = 8 << 20 };
    qt_world w;
    qt_world_make_sim(&w, 1, &clean, NULL);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.cc = co.cc = CB_CC_CUBIC; /* whatever the environment says: nothing of the governor's is to be counted */
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.handshakes, 1));
    cr_assert(qt_until(&w, &w.server.handshakes, 1));
    EXPECT_MOVED(w.metrics, 1, "cb_quic_connections", "server");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_connections", "client");
    EXPECT_MOVED(w.metrics, 0, "cb_quic_handshakes_under_way", "client");
    cr_assert_geq(moved_sum(w.metrics, "cb_quic_handshake_seconds", "client", NULL), 0.04);
    qt_send(&w.client, SIZE);
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    qt_turn(&w, 200);
    cb_quic_conn_stats c = {.size = sizeof c}, s = {.size = sizeof s};
    cb_quic_conn_stats_get(w.client.conn, &c);
    cb_quic_conn_stats_get(w.server.conn, &s);
    EXPECT_MOVED(w.metrics, c.tx_packets + s.tx_packets, "cb_quic_packets", "out");
    EXPECT_MOVED(w.metrics, c.rx_packets + s.rx_packets, "cb_quic_packets", "in");
    EXPECT_MOVED(w.metrics, c.tx_bytes + s.tx_bytes, "cb_quic_bytes", "out");
    EXPECT_MOVED(w.metrics, c.rx_bytes + s.rx_bytes, "cb_quic_bytes", "in");
    cr_expect(moved_sum(w.metrics, "cb_quic_train_packets", NULL) == (double)(c.tx_packets + s.tx_packets));
    EXPECT_MOVED(w.metrics, 2 * SIZE, "cb_quic_stream_bytes", "in");
    EXPECT_MOVED(w.metrics, 2 * SIZE, "cb_quic_stream_bytes", "out");
    EXPECT_MOVED(w.metrics, 0, "cb_quic_retransmitted_bytes");
    EXPECT_MOVED(w.metrics, 0, "cb_quic_congestion_events");
    EXPECT_MOVED(w.metrics, 0, "cb_quic_probe_timeouts");
    /* About once a second and connection: it took about four. */
    const double looks = moved(w.metrics, "cb_quic_rtt_seconds", NULL);
    cr_expect(looks >= 6 && looks <= 12, "%g looks", looks);
    EXPECT_MOVED(w.metrics, looks, "cb_quic_congestion_window_bytes");
    EXPECT_MOVED(w.metrics, looks, "cb_quic_in_flight_bytes");
    cr_expect_geq(moved_sum(w.metrics, "cb_quic_rtt_seconds", NULL), 0.04 * looks);
    cr_expect_leq(moved_sum(w.metrics, "cb_quic_rtt_seconds", NULL), 0.3 * looks);
    EXPECT_MOVED(w.metrics, 0, "cb_quic_pacing_bytes_per_second"); /* the governor does not run */

    cb_quic_conn_close(w.client.conn, 0, NULL);
    cr_assert(qt_until(&w, &w.server.closes, 1));
    EXPECT_MOVED(w.metrics, 2, "cb_quic_min_rtt_seconds");
    const double least = moved_sum(w.metrics, "cb_quic_min_rtt_seconds", NULL);
    cr_expect(least >= 2 * 0.04 && least < 2 * 0.045, "%g", least);
    EXPECT_MOVED(w.metrics, 2, "cb_quic_path_payload_bytes");
    cr_expect(moved_sum(w.metrics, "cb_quic_path_payload_bytes", NULL) == 2 * 1472);
    EXPECT_MOVED(w.metrics, 2, "cb_quic_ecn_connections", "used");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_closed_connections", "client", "closed");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_closed_connections", "server", "peer");
    qt_world_drop(&w);
}

Test(quic_meters, what_is_lost_is_sent_again) {
    static const cb_sim_link_opts lossy = {
        .size = sizeof lossy, .rate_bps = 20000000, .delay_us = 20000, .buffer_bdp = 4, .loss = 0.02};
    enum { SIZE = 4 << 20 };
    qt_world w;
    qt_world_make_sim(&w, 3, &lossy, NULL);
    qt_start(&w);
    qt_send(&w.client, SIZE);
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    cb_sim_link_stats there = {.size = sizeof there}, back = {.size = sizeof back};
    cb_sim_link_stats_get(w.there, &there);
    cb_sim_link_stats_get(w.back, &back);
    const double lost = (double)(there.drop_loss + back.drop_loss) * 1400; /* some of them were acknowledgements */
    EXPECT_MOVED_IN(w.metrics, lost * 0.5, lost * 1.3, "cb_quic_retransmitted_bytes");
    EXPECT_MOVED_IN(w.metrics, 20, (double)(there.drop_loss + back.drop_loss), "cb_quic_congestion_events");
    qt_world_drop(&w);
}

Test(quic_meters, silence_is_probed) {
    qt_world w;
    qt_world_make_sim(&w, 4, &clean, NULL);
    qt_start(&w);
    qt_turn(&w, 500);
    cb_sim_link_down(w.there, 1);
    qt_send(&w.client, 500);
    qt_turn(&w, 3000);
    /* RTT 40 ms: after some 80 to 150 ms, and twice as long each time: 5 in 3 s, or one less */
    EXPECT_MOVED_IN(w.metrics, 4, 5, "cb_quic_probe_timeouts");
    cb_sim_link_down(w.there, 0);
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    qt_world_drop(&w);
}

Test(quic_meters, the_governor_is_looked_at) {
    qt_world w;
    qt_world_make_sim(&w, 5, &clean, NULL);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.cc = co.cc = CB_CC_BBRV3;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.handshakes, 1));
    qt_send(&w.client, 12 << 20);
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    const double looks = moved(w.metrics, "cb_quic_rtt_seconds", NULL);
    static const char *const phases[] = {"startup", "drain", "up", "down", "cruise", "probe_rtt", "compete"};
    double in_phases = 0;
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++)
        in_phases += moved(w.metrics, "cb_quic_governor_samples", phases[i], NULL);
    cr_expect(in_phases == looks && looks >= 8, "%g of %g", in_phases, looks);
    EXPECT_MOVED(w.metrics, looks, "cb_quic_pacing_bytes_per_second");
    EXPECT_MOVED(w.metrics, looks, "cb_quic_bandwidth_bytes_per_second");
    /* 20 Mbit/s are 2.5 MB/s, in either direction. */
    const double mean = moved_sum(w.metrics, "cb_quic_bandwidth_bytes_per_second", NULL) / looks;
    cr_expect(mean > 1.2e6 && mean < 4e6, "%g bytes a second", mean);
    EXPECT_MOVED_IN(w.metrics, 1, looks, "cb_quic_governor_samples", "cruise");
    qt_world_drop(&w);
}

Test(quic_meters, lost_datagrams) {
    static const cb_sim_link_opts lossy = {.size = sizeof lossy, .rate_bps = 20000000, .delay_us = 20000, .loss = 0.05};
    enum { N = 500 };
    uint8_t data[1000] = {1};
    qt_world w;
    qt_world_make_sim(&w, 6, &lossy, &clean);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.max_datagram_bytes = 1200;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.handshakes, 1));
    for (int i = 0; i < N; i++) {
        cr_assert_eq(cb_quic_datagram_send(w.client.conn, (cb_slice){data, sizeof data}), CB_OK, "%d: %s", i,
                     cb_last_error());
        qt_turn(&w, 10);
    }
    qt_turn(&w, 1000);
    EXPECT_MOVED(w.metrics, N, "cb_quic_datagram_frames", "out");
    EXPECT_MOVED(w.metrics, w.server.datagrams, "cb_quic_datagram_frames", "in");
    EXPECT_MOVED(w.metrics, N - w.server.datagrams, "cb_quic_dropped_datagram_frames", "lost");
    cr_expect(w.server.datagrams < N - 10, "nothing was lost");
    qt_world_drop(&w);
}

Test(quic_meters, a_client_on_another_address) {
    qt_world w;
    qt_world_make_sim(&w, 7, &clean, NULL);
    qt_start(&w);
    qt_turn(&w, 200);
    cr_assert_eq(cb_sim_host_add_address(w.client_host, "10.0.0.9", 0), CB_OK);
    cr_assert_eq(cb_quic_conn_migrate(w.client.conn, "10.0.0.9:0"), CB_OK, "%s", cb_last_error());
    cr_assert(qt_until(&w, &w.server.path_changes, 1), "%s", w.client.detail);
    cr_assert(qt_until(&w, &w.client.path_changes, 1));
    EXPECT_MOVED_IN(w.metrics, 1, 2, "cb_quic_migrations", "address"); /* a client's socket is bound to any: a port */
    EXPECT_MOVED(w.metrics, 2 - moved(w.metrics, "cb_quic_migrations", "address", NULL), "cb_quic_migrations", "port");
    EXPECT_MOVED_IN(w.metrics, 2, 3, "cb_quic_path_validations", "ok");
    qt_world_drop(&w);
}

Test(quic_meters, the_window_of_a_connection_shuts) {
    qt_world w;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.conn_window_bytes = so.max_window_bytes = 65536;
    so.stream_window_bytes = 65536;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.server.handshakes, 1));
    w.server.hold = true;
    qt_send(&w.client, 200000);
    qt_turn(&w, 50);
    EXPECT_MOVED(w.metrics, 65536, "cb_quic_stream_bytes", "out");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_flow_control_blocks", "connection");
    qt_release(&w.server, w.client.send_stream);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    qt_world_drop(&w);
}

Test(quic_meters, streams_of_both_kinds_are_open_until_they_are_over) {
    qt_world w;
    int64_t one_way;
    qt_world_make(&w);
    qt_start(&w);
    w.server.hold = true;
    qt_send(&w.client, 100);
    cr_assert_eq(cb_quic_stream_open(w.client.conn, 0, &one_way), CB_OK);
    cr_assert_eq(cb_quic_stream_write(w.client.conn, one_way, cb_slice_str("x"), 0), 1);
    cr_assert(qt_until(&w, &w.server.opened, 2));
    EXPECT_MOVED(w.metrics, 4, "cb_quic_open_streams"); /* on two sides */
    EXPECT_MOVED(w.metrics, 1, "cb_quic_streams", "local", "unidirectional");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_streams", "peer", "unidirectional");
    cb_quic_stream_reset(w.client.conn, one_way, 1);
    qt_turn(&w, 20);
    EXPECT_MOVED(w.metrics, 2, "cb_quic_open_streams");
    qt_world_drop(&w);
}

Test(quic_meters, why_connections_end) {
    static const struct {
        const char *fail_in; /* of the server */
        const char *client_alpn, *name;
        const char *server, *client, *failed_server, *failed_client, *sent, *got;
    } rows[] = {
        {"data", NULL, "server.test", "application", "protocol", NULL, NULL, "internal_error", "internal_error"},
        {NULL, "other", "server.test", "tls", "tls", "tls", "tls", "crypto_error", "crypto_error"},
        {NULL, NULL, "elsewhere.test", "tls", "tls", "tls", "tls", "crypto_error", "crypto_error"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qt_world w;
        qt_world_make(&w);
        cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
        if (rows[i].client_alpn) co.alpn = rows[i].client_alpn;
        w.server.fail_in = rows[i].fail_in;
        qt_listen(&w, &so);
        qt_client_open(&w, &co);
        cr_assert_eq(cb_quic_connect(&w.client.conn, w.client.endpoint, w.remote, rows[i].name), CB_OK);
        if (rows[i].fail_in) {
            cr_assert(qt_until(&w, &w.client.handshakes, 1));
            qt_send(&w.client, 10);
        }
        cr_assert(qt_until(&w, &w.client.closes, 1));
        qt_turn(&w, 20);
        EXPECT_MOVED(w.metrics, 1, "cb_quic_closed_connections", "server", rows[i].server);
        EXPECT_MOVED(w.metrics, 1, "cb_quic_closed_connections", "client", rows[i].client);
        if (rows[i].failed_server)
            EXPECT_MOVED(w.metrics, 1, "cb_quic_failed_handshakes", "server", rows[i].failed_server);
        if (rows[i].failed_client)
            EXPECT_MOVED(w.metrics, 1, "cb_quic_failed_handshakes", "client", rows[i].failed_client);
        EXPECT_MOVED(w.metrics, 1, "cb_quic_closes", "out", rows[i].sent);
        EXPECT_MOVED(w.metrics, 1, "cb_quic_closes", "in", rows[i].got);
        if (rows[i].client_alpn) {
            EXPECT_MOVED(w.metrics, 1, "cb_tls_alerts", "out", "no_application_protocol");
            EXPECT_MOVED(w.metrics, 1, "cb_tls_alerts", "in", "no_application_protocol");
        }
        qt_world_drop(&w);
    }
}

/* By number; violations of the protocol that lead to each are in test_quic_violations.c. */
Test(quic_meters, codes_of_the_end_have_their_names) {
    static const struct {
        uint64_t code;
        bool application;
        const char *name;
    } rows[] = {{0, false, "no_error"},
                {1, false, "internal_error"},
                {2, false, "connection_refused"},
                {3, false, "flow_control_error"},
                {4, false, "stream_limit_error"},
                {5, false, "stream_state_error"},
                {6, false, "final_size_error"},
                {7, false, "frame_encoding_error"},
                {8, false, "transport_parameter_error"},
                {9, false, "connection_id_limit_error"},
                {10, false, "protocol_violation"},
                {11, false, "invalid_token"},
                {12, false, "application_error"},
                {13, false, "crypto_buffer_exceeded"},
                {14, false, "key_update_error"},
                {15, false, "aead_limit_reached"},
                {16, false, "no_viable_path"},
                {0x11, false, "other"}, /* VERSION_NEGOTIATION_ERROR of RFC 9368 */
                {0x128, false, "crypto_error"},
                {0x100, true, "application"},
                {UINT64_MAX >> 2, false, "other"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        qt_world w;
        ngtcp2_ccerr err;
        qt_world_make(&w);
        if (rows[i].application)
            ngtcp2_ccerr_set_application_error(&err, rows[i].code, NULL, 0);
        else
            ngtcp2_ccerr_set_transport_error(&err, rows[i].code, NULL, 0);
        for (int sent = 0; sent < 2; sent++) {
            cb_quic_count_close(cb_loop_cells(w.loop), sent, &err);
            EXPECT_MOVED(w.metrics, 1, "cb_quic_closes", sent ? "out" : "in", rows[i].name);
        }
        qt_world_drop(&w);
    }
}

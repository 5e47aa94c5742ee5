/* Ending things inside the callbacks: of the connection, of the endpoint, by an error, on either side. */
#include "support/quic_fixture.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const char *const places[] = {"handshake", "open",     "data",         "writable", "reset",
                                     "available", "datagram", "stream_close", "path"};

/* Makes every callback of both sides happen, as far as the connection lives. */
static void story(qt_world *w) {
    int64_t id;
    cb_quic_conn *c = w->client.conn;
    qt_turn(w, 3);
    if (!w->client.handshakes) qt_until(w, w->client.closes ? &w->client.closes : &w->client.handshakes, 1);
    if (w->client.closes || !w->client.endpoint) return;
    qt_send(&w->client, 700000);
    qt_turn(w, 10);
    if (w->client.closes || !w->client.endpoint) return;
    (void)cb_quic_datagram_send(c, cb_slice_str("datagram"));
    if (cb_quic_stream_open(c, 1, &id) == CB_OK) {
        (void)cb_quic_stream_write(c, id, cb_slice_str("then reset"), 0);
        qt_turn(w, 2);
        if (w->client.closes || !w->client.endpoint) return;
        (void)cb_quic_stream_reset(c, id, 3);
    }
    qt_turn(w, 3);
    if (w->client.closes || !w->client.endpoint) return;
    (void)cb_quic_conn_migrate(c, "127.0.0.1:0");
    qt_turn(w, 10);
    if (w->server.conn && w->server.endpoint && !w->server.closes) {
        (void)cb_quic_stream_reset(w->server.conn, w->server.last_stream, 4);
        if (cb_quic_stream_open(w->server.conn, 1, &id) == CB_OK)
            (void)cb_quic_stream_write(w->server.conn, id, cb_slice_str("from the server"), 1);
    }
    qt_turn(w, 3);
}

static void world(qt_world *w) {
    qt_world_make(w);
    cb_quic_opts so = qt_server_opts(w), co = qt_client_opts(w);
    so.max_datagram_bytes = co.max_datagram_bytes = 65535;
    so.max_streams_bidi = 2;
    qt_listen(w, &so);
    qt_client_open(w, &co);
    qt_connect(w);
}

static void once(const char *place, bool server, int how) {
    qt_world w;
    world(&w);
    qt_side *s = server ? &w.server : &w.client;
    if (how == 0) s->close_in = place;
    if (how == 1) s->free_in = place;
    if (how == 2) s->fail_in = place;
    story(&w);
    cb_quic_endpoint_free(w.client.endpoint);
    w.client.endpoint = NULL;
    qt_turn(&w, 3);
    cb_quic_endpoint_free(w.server.endpoint);
    w.server.endpoint = NULL;
    qt_turn(&w, 1);
    cr_assert_eq(w.client.closes, 1, "%s, %s, %d", place, server ? "server" : "client", how);
    /* a server's user hears the end of what he heard the beginning of */
    int known = w.server.handshakes || w.server.opened;
    cr_assert_eq(w.server.closes, known, "%s, %s, %d", place, server ? "server" : "client", how);
    qt_world_drop(&w);
}

Test(quic_free, in_every_callback, .timeout = 60) {
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        for (int how = 0; how < 3; how++) {
            once(places[i], false, how);
            once(places[i], true, how);
        }
    }
}

Test(quic_free, the_endpoint_in_on_close) {
    for (int server = 0; server < 2; server++) {
        qt_world w;
        world(&w);
        cr_assert(qt_until(&w, &w.server.handshakes, 1));
        (server ? &w.server : &w.client)->free_in = "close";
        cb_quic_conn_close(w.client.conn, 1, "bye");
        qt_turn(&w, 5);
        cr_assert_eq(w.client.closes, 1);
        cr_assert_eq(w.server.closes, 1);
        cr_assert(server ? !w.server.endpoint : !w.client.endpoint);
        qt_world_drop(&w);
    }
}

/* The peer that was failed upon hears why. */
Test(quic_free, a_failing_callback_closes_the_connection) {
    qt_world w;
    world(&w);
    w.server.fail_in = "data";
    cr_assert(qt_until(&w, &w.client.handshakes, 1));
    qt_send(&w.client, 10);
    cr_assert(qt_until(&w, &w.client.closes, 1));
    cr_assert(qt_until(&w, &w.server.closes, 1));
    cr_assert_eq(w.server.close_rc, CB_EUSER);
    cr_assert_lt(w.client.close_rc, 0);
    qt_world_drop(&w);
}

Test(quic_free, before_anything_happened) {
    qt_world w;
    world(&w);
    cb_quic_endpoint_free(w.client.endpoint); /* not one turn of the loop */
    w.client.endpoint = NULL;
    cr_assert_eq(w.client.closes, 1);
    cb_quic_conn *c = NULL;
    cb_quic_opts co = qt_client_opts(&w);
    qt_client_open(&w, &co);
    qt_connect(&w);
    c = w.client.conn;
    cb_quic_conn_close(c, 0, "changed my mind");
    cr_assert(qt_until(&w, &w.client.closes, 2));
    cr_assert_eq(w.client.close_rc, CB_OK);
    cb_quic_endpoint_free(NULL);
    qt_world_drop(&w);
    /* the loop goes first to its end */
    qt_world_make(&w);
    qt_start(&w);
    cb_quic_endpoint_free(w.server.endpoint);
    cb_quic_endpoint_free(w.client.endpoint);
    w.server.endpoint = w.client.endpoint = NULL;
    qt_world_drop(&w);
}

/* The user asks for more, and in the callback that brings it he ends everything. */
Test(quic_free, inside_resume) {
    for (int how = 0; how < 3; how++) {
        qt_world w;
        world(&w);
        cr_assert(qt_until(&w, &w.server.handshakes, 1));
        w.client.hold = true;
        qt_send(&w.client, 50000);
        qt_turn(&w, 10);
        cr_assert_eq(w.client.bytes, 0);
        if (how == 0) w.client.free_in = "data";
        if (how == 1) w.client.close_in = "data";
        if (how == 2) w.client.fail_in = "data";
        qt_release(&w.client, w.client.send_stream);
        qt_turn(&w, 3);
        cr_assert_eq(w.client.closes, 1, "%d", how);
        qt_world_drop(&w);
    }
}

/* A loop with nothing but a closed client ends. */
Test(quic_free, a_loop_ends_when_endpoints_are_gone) {
    qt_world w;
    world(&w);
    cr_assert(qt_until(&w, &w.server.handshakes, 1));
    w.client.free_in = w.server.free_in = "close";
    cb_quic_conn_close(w.client.conn, 0, "bye");
    cr_assert_eq(cb_loop_run(w.loop), CB_OK);
    cr_assert_eq(w.client.closes, 1);
    cr_assert_eq(w.server.closes, 1);
    qt_world_drop(&w);
}

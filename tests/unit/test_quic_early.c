#include "support/moved.h"
#include "support/quic_fixture.h"
#include "transport/quic_endpoint_int.h"
#include <criterion/criterion.h>
#include <string.h>

typedef struct early {
    qt_world w;
    cb_tickets *tickets;
} early;

static void start(early *e, uint8_t server_early, uint8_t client_early) {
    qt_world *w = &e->w;
    qt_world_make(w);
    cr_assert_eq(cb_tickets_new(&e->tickets, NULL), CB_OK);
    cb_quic_opts so = qt_server_opts(w), co = qt_client_opts(w);
    so.early_data = server_early;
    so.tickets = e->tickets;
    co.early_data = client_early;
    qt_listen(w, &so);
    qt_client_open(w, &co);
    qt_connect(w);
    cr_assert(qt_until(w, &w->client.handshakes, 1));
    cr_assert(qt_until(w, &w->server.handshakes, 1));
    qt_send(&w->client, 100);
    cr_assert(qt_until(w, &w->client.fins, 1));
    qt_turn(w, 20); /* the tickets */
    cb_quic_conn_close(w->client.conn, 0, NULL);
    cr_assert(qt_until(w, &w->client.closes, 1));
    cr_assert(qt_until(w, &w->server.closes, 1));
    w->client.closes = 0;
}

static void stop(early *e) {
    qt_world_drop(&e->w);
    cb_tickets_unref(e->tickets);
}

static cb_quic_conn_stats stats_of(cb_quic_conn *c) {
    cb_quic_conn_stats s = {.size = sizeof s};
    cb_quic_conn_stats_get(c, &s);
    return s;
}

Test(quic_early, accepted) {
    early e;
    start(&e, 1, 1);
    qt_world *w = &e.w;
    qt_connect(w);
    int64_t id;
    cr_assert_eq(cb_quic_stream_open(w->client.conn, 1, &id), CB_OK, "streams can be opened before the handshake");
    cr_assert_eq(cb_quic_stream_write(w->client.conn, id, cb_slice_str("early bird"), 1), 10);
    uint64_t before = w->server.bytes;
    cr_assert(qt_until_bytes(w, &w->server.bytes, before + 10));
    cr_assert(qt_until(w, &w->client.fins, 2), "%s", w->client.detail);
    cr_assert(qt_until(w, &w->client.handshakes, 2));
    cr_assert_eq(stats_of(w->client.conn).early_data, 1);
    cr_assert_eq(stats_of(w->client.conn).resumed, 1);
    cr_assert(qt_until(w, &w->server.handshakes, 2));
    cr_assert_eq(stats_of(w->server.conn).early_data, 1);
    cr_assert_eq(stats_of(w->server.conn).resumed, 1);
    EXPECT_MOVED(w->metrics, 1, "cb_quic_early_data", "client", "accepted");
    EXPECT_MOVED(w->metrics, 1, "cb_quic_early_data", "server", "accepted");
    stop(&e);
}

Test(quic_early, off_is_off) {
    early e;
    start(&e, 0, 0);
    qt_world *w = &e.w;
    qt_connect(w);
    int64_t id;
    cr_assert_eq(cb_quic_stream_open(w->client.conn, 1, &id), CB_EAGAIN);
    cr_assert(qt_until(w, &w->client.handshakes, 2));
    cr_assert_eq(stats_of(w->client.conn).early_data, 0);
    cr_assert_eq(stats_of(w->client.conn).resumed, 1); /* resumption is another thing */
    stop(&e);
}

/* The server was restarted with early data off: what was sent is void, and the client is told. */
Test(quic_early, rejected) {
    early e;
    start(&e, 1, 1);
    qt_world *w = &e.w;
    cb_quic_endpoint_free(w->server.endpoint);
    cb_loop_step(w->loop);
    cb_quic_opts so = qt_server_opts(w);
    so.tickets = e.tickets;
    char bound[64];
    strcpy(bound, w->remote);
    cr_assert_eq(cb_quic_listen(&w->server.endpoint, w->loop, bound, &so), CB_OK, "%s", cb_last_error());
    int closes = w->client.stream_closes;
    qt_connect(w);
    int64_t id;
    cr_assert_eq(cb_quic_stream_open(w->client.conn, 1, &id), CB_OK);
    cr_assert_eq(cb_quic_stream_write(w->client.conn, id, cb_slice_str("too early"), 1), 9);
    cr_assert(qt_until(w, &w->client.handshakes, 2), "%s", w->client.detail);
    cr_assert_eq(stats_of(w->client.conn).early_data, 2);
    cr_assert_eq(w->client.stream_closes, closes + 1);
    cr_assert_eq(w->client.stream_close_code, UINT64_MAX);
    uint64_t bytes = w->server.bytes;
    qt_send(&w->client, 50); /* again */
    cr_assert_eq(w->client.send_stream, 0);
    cr_assert(qt_until(w, &w->client.fins, 2), "%s", w->client.detail);
    cr_assert_eq(w->server.bytes, bytes + 50);
    EXPECT_MOVED(w->metrics, 1, "cb_quic_early_data", "client", "rejected");
    EXPECT_MOVED(w->metrics, 1, "cb_quic_early_data", "server", "rejected");
    stop(&e);
}

/* The same first flight a second time, as somebody on the way could send it: its early data must not count again. */
Test(quic_early, a_replay_is_refused) {
    early e;
    start(&e, 1, 1);
    qt_world *w = &e.w;
    qt_connect(w);
    int64_t id;
    cr_assert_eq(cb_quic_stream_open(w->client.conn, 1, &id), CB_OK);
    cr_assert_eq(cb_quic_stream_write(w->client.conn, id, cb_slice_str("pay 100"), 1), 7);
    /* take the flight out of the connection instead of letting it go */
    uint8_t flight[4][1500];
    size_t len[4], n = 0;
    ep_conn *c = CB_CONTAINER(w->client.endpoint->conns.next, ep_conn, all);
    cb_quic_train t;
    for (; n < 4; n++) {
        cb_quic_core_write(&c->core, flight[n], sizeof flight[n], cb_loop_now(w->loop), &t);
        if (!t.len) break;
        len[n] = t.len;
    }
    cr_assert_geq(n, 1);
    uint64_t before = w->server.bytes;
    cb_quic_endpoint *se = w->server.endpoint;
    for (int round = 0; round < 2; round++) {
        cb_datagram d = {.local = *cb_quic_endpoint_addr(se), .remote = *cb_quic_endpoint_addr(w->client.endpoint)};
        for (size_t i = 0; i < n; i++) {
            uint8_t copy[1500];
            memcpy(copy, flight[i], len[i]);
            d.data = copy;
            d.len = len[i];
            cb_quic_endpoint_packet(se, &se->main, &d);
        }
        cr_assert_eq(w->server.bytes, before + 7, "round %d", round);
        if (round) break;
        /* the server forgets the connection, as after its end, so that the replay makes a new one */
        ep_conn *s = CB_CONTAINER(se->conns.prev, ep_conn, all);
        cb_quic_core_finish(&s->core, CB_OK, false, "test");
        cb_quic_endpoint_finish(s);
    }
    qt_turn(w, 20);
    cr_assert_eq(w->server.bytes, before + 7);
    cb_quic_endpoint_free(se);
    w->server.endpoint = NULL;
    qt_turn(w, 1);
    EXPECT_MOVED(w->metrics, 1, "cb_tls_early_data_replays");
    stop(&e);
}

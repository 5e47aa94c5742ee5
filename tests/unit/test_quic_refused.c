/* Nobody listens: a connection attempt ends at once when ICMP says so, and nothing else does. */
#include "support/http_fixture.h"
#include "support/moved.h"
#include "support/quic_fixture.h"
#include "transport/quic_endpoint_int.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(quic_refused, a_port_without_listener) {
    qt_world w;
    qt_world_make(&w);
    qt_start(&w);
    cb_quic_endpoint_free(w.server.endpoint);
    cr_assert(qt_until(&w, &w.client.closes, 1)); /* the server said good-bye */
    w.server.endpoint = NULL;
    w.client.closes = 0;
    qt_connect(&w);
    cb_time began = cb_loop_now(w.loop);
    cr_assert(qt_until(&w, &w.client.closes, 1));
    cr_expect_lt(cb_loop_now(w.loop) - began, 4 * CB_SEC); /* the handshake may take 10 s */
    cr_expect_eq(w.client.close_rc, CB_EUNREACH, "%d: %s", w.client.close_rc, w.client.detail);
    cr_expect(strstr(w.client.detail, "refused"), "%s", w.client.detail);
    cr_expect(strstr(w.client.detail, "127.0.0.1:"), "%s", w.client.detail);
    EXPECT_MOVED(w.metrics, 1, "cb_quic_failed_handshakes", "client", "unreachable");
    EXPECT_MOVED(w.metrics, 1, "cb_quic_closed_connections", "client", "unreachable");
    qt_world_drop(&w);
}

/* A first packet as ICMP would quote it. */
static size_t quote_of(cb_quic_conn *c, uint8_t *out) {
    ngtcp2_cid scid[16];
    static const uint8_t head[] = {0xc3, 0, 0, 0, 1, 4, 'd', 'c', 'i', 'd'};
    cr_assert_leq(ngtcp2_conn_get_scid(c->ng, NULL), 16);
    cr_assert_geq(ngtcp2_conn_get_scid(c->ng, scid), 1);
    memcpy(out, head, sizeof head);
    out[sizeof head] = (uint8_t)scid[0].datalen;
    memcpy(out + sizeof head + 1, scid[0].data, scid[0].datalen);
    memset(out + sizeof head + 1 + scid[0].datalen, 0, 40);
    return sizeof head + 1 + scid[0].datalen + 40;
}

Test(quic_refused, what_icmp_says_is_not_believed_lightly) {
    qt_world w;
    uint8_t quote[128];
    qt_world_make(&w);
    qt_start(&w);
    cb_quic_endpoint *e = w.client.endpoint;
    cb_quic_conn *good = w.client.conn;
    size_t n = quote_of(good, quote);
    cb_quic_endpoint_unreachable(e, ECONNREFUSED, &good->remote, (cb_slice){quote, n}); /* established */
    cr_expect_eq(good->phase, CB_QUIC_OPEN, "ICMP ended an established connection");

    qt_connect(&w);
    cb_quic_conn *young = w.client.conn;
    cb_addr other;
    n = quote_of(young, quote);
    cr_assert_eq(cb_addr_parse(&other, "127.0.0.1:9", 0), CB_OK);
    cb_quic_endpoint_unreachable(e, ECONNREFUSED, &other, (cb_slice){quote, n});
    for (size_t len = 0; len < 11 + CB_QUIC_CID_CLIENT; len++)
        cb_quic_endpoint_unreachable(e, ECONNREFUSED, &young->remote, (cb_slice){quote, len});
    quote[11] ^= 1;
    cb_quic_endpoint_unreachable(e, ECONNREFUSED, &young->remote, (cb_slice){quote, n});
    quote[11] ^= 1;
    cr_expect_eq(young->phase, CB_QUIC_OPEN, "ICMP of somebody who saw no packet of ours ended an attempt");
    young->rx_packets++; /* something came from there */
    cb_quic_endpoint_unreachable(e, ECONNREFUSED, &young->remote, (cb_slice){quote, n});
    cr_expect_eq(young->phase, CB_QUIC_OPEN, "the peer is there");
    young->rx_packets--;
    cb_quic_endpoint_unreachable(e, EHOSTUNREACH, &young->remote, (cb_slice){quote, n});
    cr_expect_eq(young->phase, CB_QUIC_CLOSING);
    cr_assert(qt_until(&w, &w.client.closes, 1));
    cr_expect_eq(w.client.close_rc, CB_EUNREACH);
    w.client.conn = good;
    w.client.closes = 0;
    qt_send(&w.client, 1000);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    qt_world_drop(&w);
}

/* "localhost" is ::1 first, and the server has only 127.0.0.1: the second address is tried at once. */
Test(quic_refused, the_next_address_is_tried_at_once) {
    http_world w;
    http_reply r = {0};
    http_world_open(&w);
    http_serve(&w, (cb_http_server_opts){.identity = w.me});
    http_client_make(&w, (cb_http_client_opts){.versions = CB_HTTP_3, .happy_eyeballs_ms = 20000});
    cb_time began = cb_loop_now(w.loop);
    http_fetch(&r, &w, (cb_request){0}, "/hello");
    cr_expect_eq(r.rc, CB_OK, "%d %s", r.rc, r.detail);
    cr_expect_lt(cb_loop_now(w.loop) - began, 10 * CB_SEC, "it waited for the delay between attempts");
    http_world_close(&w);
}

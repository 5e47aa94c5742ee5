/* What stays of closed connections is bounded. */
#include "support/quic_fixture.h"
#include "transport/quic_endpoint_int.h"
#include <criterion/criterion.h>

Test(quic_tombs, the_oldest_goes_when_there_are_too_many) {
    enum { CONNS = 6, KEPT = 3 };
    qt_world w;
    ngtcp2_cid cid[CONNS];
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    cb_quic_endpoint *e = w.server.endpoint;
    cr_assert_eq(e->tombs_max, 4096);
    e->tombs_max = KEPT;
    for (int i = 0; i < CONNS; i++) {
        qt_connect(&w);
        cr_assert(qt_until(&w, &w.server.handshakes, i + 1), "%s", w.client.detail);
        ngtcp2_cid all[16];
        ep_conn *c = CB_CONTAINER(e->conns.prev, ep_conn, all);
        cr_assert_leq(ngtcp2_conn_get_scid(c->core.ng, NULL), 16);
        cr_assert_geq(ngtcp2_conn_get_scid(c->core.ng, all), 1);
        cid[i] = all[0];
    }
    cr_assert_eq(e->conns_now, CONNS);
    cb_quic_endpoint_free(w.client.endpoint); /* all close at one time */
    w.client.endpoint = NULL;
    cr_assert(qt_until(&w, &w.server.closes, CONNS));
    cr_expect_eq(e->tombs_now, KEPT, "%u", e->tombs_now);
    size_t found = 0;
    for (int i = 0; i < CONNS; i++) {
        const ep_route *route = cb_quic_endpoint_lookup(e, cid[i].data, cid[i].datalen);
        if (route) found++;
        if (route) cr_expect_eq(route->kind, ROUTE_TOMB);
    }
    cr_expect_eq(found, KEPT, "%zu of %d connections still have a route", found, CONNS);
    cr_expect_leq(e->cids.len, KEPT * 12, "%zu connection IDs are left", e->cids.len);
    for (int i = 0; i < 2000 && e->tombs_now; i++)
        qt_turn(&w, 1);
    cr_expect_eq(e->tombs_now, 0, "they stay");
    cr_expect_eq(e->cids.len, 0, "%zu connection IDs are left", e->cids.len);
    qt_world_drop(&w);
}

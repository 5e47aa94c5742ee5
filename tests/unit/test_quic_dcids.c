/* Who is told which connection IDs of clients have handshakes under way (cb_dcid_hook). */
#include "support/quic_fixture.h"
#include <criterion/criterion.h>
#include <string.h>

enum { MAX = 64 };

typedef struct ledger {
    uint8_t id[MAX][20];
    size_t len[MAX];
    int opened, closed, live, strangers;
} ledger;

static int opened(cb_slice dcid, void *user) {
    ledger *l = user;
    cr_assert(l->opened < MAX && dcid.len >= 8 && dcid.len <= 20, "%zu bytes", dcid.len);
    memcpy(l->id[l->opened], dcid.base, dcid.len);
    l->len[l->opened++] = dcid.len;
    l->live++;
    return CB_EUSER; /* says nothing to the connection */
}

static void closed(cb_slice dcid, void *user) {
    ledger *l = user;
    int found = 0;
    l->closed++;
    l->live--;
    for (int i = 0; i < l->opened; i++) {
        if (l->len[i] != dcid.len || memcmp(l->id[i], dcid.base, dcid.len)) continue;
        l->len[i] = 0; /* once */
        found++;
    }
    l->strangers += found != 1;
}

static cb_group *group_of(ledger *l, cb_group *predecessor) {
    cb_group *g = NULL;
    const cb_dcid_hook hook = {.size = sizeof hook, .opened = opened, .closed = closed, .user = l};
    cr_assert_eq(
        cb_group_new(&g, CB_OPTS(cb_group_opts, .predecessor = predecessor, .dcids = predecessor ? NULL : &hook)),
        CB_OK, "%s", cb_last_error());
    return g;
}

static void listen_with(qt_world *w, cb_group *g, uint8_t retry) {
    qt_world_make(w);
    cb_quic_opts so = qt_server_opts(w), co = qt_client_opts(w);
    so.group = g;
    so.retry = retry;
    qt_listen(w, &so);
    qt_client_open(w, &co);
}

Test(quic_dcids, each_handshake_is_told_of_from_its_beginning_to_its_end) {
    qt_world w;
    ledger l = {.opened = 0};
    cb_group *first = group_of(&l, NULL), *g = group_of(&l, first); /* a successor tells the same */
    listen_with(&w, g, 2);
    for (int i = 0; i < 10; i++)
        qt_connect(&w);
    cr_assert(qt_until(&w, &l.opened, 1));
    cr_assert(l.live > 0, "over before it began");
    cr_assert(qt_until(&w, &w.server.handshakes, 10));
    cr_expect(l.opened == 10 && l.closed == 10 && l.strangers == 0, "%d, %d, %d", l.opened, l.closed, l.strangers);
    cr_expect_eq(w.server.closes, 0, "the connections live on");
    qt_world_drop(&w);
    cr_expect_eq(l.closed, 10, "told again at the end of a connection");
    cb_group_unref(g);
    cb_group_unref(first);
}

static void end_in_the_middle(qt_world *w) {
    cb_quic_endpoint_free(w->server.endpoint);
    w->server.endpoint = NULL;
    qt_turn(w, 5);
}

Test(quic_dcids, a_handshake_that_ends_in_the_middle_is_told_of_too) {
    qt_world w;
    ledger l = {.opened = 0};
    cb_group *g = group_of(&l, NULL);
    listen_with(&w, g, 2);
    qt_connect(&w);
    while (!l.opened)
        cb_loop_step(w.loop);
    if (l.live) end_in_the_middle(&w);
    cr_expect(l.opened == 1 && l.closed == 1 && l.live == 0 && l.strangers == 0);
    qt_world_drop(&w);
    cb_group_unref(g);
}

Test(quic_dcids, after_a_retry_the_id_is_ours_and_nobody_is_told) {
    qt_world w;
    ledger l = {.opened = 0};
    cb_group *g = group_of(&l, NULL);
    listen_with(&w, g, 1);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.handshakes, 1), "%s", w.client.detail);
    cr_expect(l.opened == 0 && l.closed == 0);
    qt_world_drop(&w);
    cb_group_unref(g);
}

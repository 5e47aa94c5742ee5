/* Clients that move in the middle of a download, in virtual time: how long nothing comes. */
#include "support/quic_fixture.h"
#include "support/sim_fixture.h"
#include "transport/quic_endpoint_int.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { SIZE = 24 << 20, MOVES = 8 };
#define MS 1000000ULL

enum how {
    TOLD,   /* to move to another address; the one before stays, but the host prefers the new one */
    GONE,   /* the address is replaced, and the endpoint is told that something changed */
    REBOUND /* nobody is told */
};

static void move(qt_world *w, enum how how, int i, cb_sim_nat *nat) {
    static char now[20];
    char next[20], port[24];
    if (i == 0) strcpy(now, "10.0.0.1");
    if (how == REBOUND) {
        cr_assert_eq(cb_sim_nat_rebind(nat, NULL), CB_OK);
        return;
    }
    snprintf(next, sizeof next, "10.0.1.%d", i + 1);
    cr_assert_eq(cb_sim_host_add_address(w->client_host, next, 1), CB_OK, "%s", cb_last_error());
    if (how == GONE) {
        cr_assert_eq(cb_sim_host_remove_address(w->client_host, now), CB_OK, "%s: %s", now, cb_last_error());
        cr_assert_eq(cb_quic_endpoint_follow(w->client.endpoint), 1);
    } else {
        snprintf(port, sizeof port, "%s:0", next);
        cr_assert_eq(cb_quic_conn_migrate(w->client.conn, port), CB_OK, "%s", cb_last_error());
    }
    strcpy(now, next);
}

/* The longest time without a byte from now on until `until`. */
static cb_time pause_until(qt_world *w, uint64_t until) {
    cb_time last = cb_sim_now(w->sim), longest = 0;
    for (uint64_t seen = w->client.bytes; w->client.bytes < until;) {
        cr_assert_eq(cb_sim_run_until(w->sim, cb_sim_now(w->sim) + MS / 4), CB_OK);
        const cb_time now = cb_sim_now(w->sim);
        if (now - last > longest) longest = now - last;
        if (w->client.bytes != seen) last = now;
        seen = w->client.bytes;
        cr_assert_lt(longest, 20000 * MS, "nothing comes any more: %s", w->client.detail);
        cr_assert_eq(w->client.closes, 0, "%s", w->client.detail);
    }
    return longest;
}

/* A bottleneck with a buffer of its bandwidth-delay product, and full: what is on its way, twice the round trip, is
 * lost with the old address and must be asked for again. */
Test(quic_moves, in_a_download) {
    static const struct {
        const char *name;
        enum how how;
        unsigned rtts; /* that nothing may come for, and 180 ms on top */
    } rows[] = {
        {"told, the old address stays", TOLD, 1}, {"the address is gone", GONE, 2}, {"a NAT rebinds", REBOUND, 3}};
    static const unsigned rtts[] = {10, 40, 200};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t r = 0; r < sizeof rtts / sizeof *rtts; r++) {
            const cb_sim_link_opts line = {
                .size = sizeof line, .rate_bps = 20000000, .delay_us = rtts[r] * 500, .buffer_bdp = 1};
            cb_quic_conn_stats s = {.size = sizeof s};
            cb_sim_nat *nat = NULL;
            cb_time worst = 0;
            qt_world w;
            qt_world_make_sim(&w, 1, &line, NULL);
            if (rows[i].how == REBOUND)
                cr_assert_eq(cb_sim_nat_new(&nat, w.client_host, CB_OPTS(cb_sim_nat_opts, .address = "192.0.2.1")),
                             CB_OK, "%s", cb_last_error());
            qt_start(&w);
            if (rows[i].how == GONE) cb_quic_endpoint_pin(w.client.endpoint);
            w.server.echo = false;
            qt_send(&w.server, SIZE);
            for (int k = 0; k < MOVES; k++) {
                (void)pause_until(&w, (uint64_t)SIZE / (MOVES + 1) * (uint64_t)(k + 1));
                move(&w, rows[i].how, k, nat);
                cb_time pause = pause_until(&w, w.client.bytes + SIZE / (MOVES + 2));
                if (pause > worst) worst = pause;
            }
            (void)pause_until(&w, SIZE);
            cb_quic_conn_stats_get(w.server.conn, &s);
            cr_expect_eq(s.migrations, MOVES, "%s, %u ms: the server saw %d", rows[i].name, rtts[r], (int)s.migrations);
            cr_expect_leq(worst, (rows[i].rtts * rtts[r] + 180) * MS, "%s, %u ms: nothing for %d ms", rows[i].name,
                          rtts[r], (int)(worst / MS));
            cr_expect_eq(w.client.bytes, SIZE);
            qt_world_drop(&w);
        }
    }
}

/* Real endpoints in virtual time. */
#include "support/quic_fixture.h"
#include "support/sim_fixture.h"
#include <cb/http.h>
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const cb_sim_link_opts dsl = {.size = sizeof dsl, .rate_bps = 20000000, .delay_us = 20000, .buffer_bdp = 1};

Test(sim_quic, handshake_and_transfer_take_the_time_they_must) {
    enum { SIZE = 4 << 20 };
    qt_world w;
    qt_world_make_sim(&w, 1, &dsl, NULL);
    qt_start(&w);
    cb_time shaken = cb_sim_now(w.sim);
    cr_assert_geq(shaken, 40000000, "a handshake takes a round trip");
    cr_assert_lt(shaken, 90000000, "and not two: %d us", (int)(shaken / 1000));
    qt_send(&w.client, SIZE);
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    cr_assert_eq(w.client.sum, qt_sum_of(SIZE));
    cb_time took = cb_sim_now(w.sim) - shaken;
    cr_assert_geq(took, (cb_time)SIZE * 8 * 50, "20 Mbit/s are 50 ns a bit");
    cr_assert_lt(took, (cb_time)SIZE * 8 * 50 * 3 / 2 + 400000000, "%d ms", (int)(took / 1000000));
    qt_turn(&w, 200); /* the last acknowledgements */
    cb_sim_link_stats s = {.size = sizeof s};
    cr_assert_eq(cb_sim_link_stats_get(w.there, &s), CB_OK);
    cr_assert_geq(s.in_bytes, SIZE);
    cr_assert_eq(s.in_packets, s.out_packets + s.drop_queue);
    qt_world_drop(&w);
}

typedef struct trace {
    uint64_t digest, packets;
    cb_time end;
} trace;

static trace run_once(uint64_t seed) {
    static const cb_sim_link_opts bad = {.size = sizeof bad,
                                         .rate_bps = 10000000,
                                         .delay_us = 15000,
                                         .loss = 0.02,
                                         .duplicate = 0.01,
                                         .reorder = 0.02,
                                         .reorder_us = 5000,
                                         .jitter_us = 1000};
    qt_world w;
    qt_world_make_sim(&w, seed, &bad, NULL);
    qt_start(&w);
    qt_send(&w.client, 300000);
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    cb_sim_link_stats s = {.size = sizeof s};
    cb_sim_link_stats_get(w.there, &s);
    trace t = {cb_sim_digest(w.sim), s.in_packets, cb_sim_now(w.sim)};
    qt_world_drop(&w);
    return t;
}

Test(sim_quic, one_seed_gives_one_run) {
    trace a = run_once(7), b = run_once(7), c = run_once(8);
    cr_assert_eq(a.digest, b.digest, "%d and %d packets, %d and %d us", (int)a.packets, (int)b.packets,
                 (int)(a.end / 1000), (int)(b.end / 1000));
    cr_assert_eq(a.end, b.end);
    cr_assert_neq(a.digest, c.digest);
}

static void *run_in_thread(void *seed) {
    trace *t = malloc(sizeof *t);
    *t = run_once(*(const uint64_t *)seed);
    return t;
}

/* Nothing is shared between simulations: each thread has its own, and they are what they are alone. */
Test(sim_quic, simulations_run_side_by_side) {
    static const uint64_t seeds[] = {20, 21, 20};
    pthread_t threads[3];
    trace *got[3];
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, run_in_thread, (void *)(uintptr_t)&seeds[i]), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_join(threads[i], (void **)&got[i]), 0);
    cr_assert_eq(got[0]->digest, got[2]->digest);
    cr_assert_neq(got[0]->digest, got[1]->digest);
    cr_assert_eq(got[0]->digest, run_once(20).digest);
    for (int i = 0; i < 3; i++)
        free(got[i]);
}

/* In another process, with another certificate and other addresses in memory. */
Test(sim_quic, another_process_sees_the_same) {
    int ends[2];
    trace here = run_once(9), there = {0};
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        trace t = run_once(9);
        _exit(write(ends[1], &t, sizeof t) == (ssize_t)sizeof t ? 0 : 1);
    }
    int status = 1;
    cr_assert_eq(read(ends[0], &there, sizeof there), (ssize_t)sizeof there);
    waitpid(child, &status, 0);
    close(ends[0]);
    close(ends[1]);
    cr_assert_eq(status, 0);
    cr_assert_eq(here.digest, there.digest);
    cr_assert_eq(here.end, there.end);
}

/* ---- what happens to a path ---- */

static void start_behind_nat(qt_world *w, cb_sim_nat **nat) {
    qt_world_make_sim(w, 3, &dsl, NULL);
    int rc = cb_sim_nat_new(nat, w->client_host, CB_OPTS(cb_sim_nat_opts, .address = "203.0.113.1", .idle_ms = 20000));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    qt_start(w);
}

Test(sim_quic, a_nat_rebinds_in_a_transfer) {
    enum { SIZE = 3 << 20 };
    static const char *const addresses[] = {NULL, "203.0.113.2", NULL, "203.0.113.1"};
    qt_world w;
    cb_sim_nat *nat;
    char seen[64];
    start_behind_nat(&w, &nat);
    qt_send(&w.client, SIZE);
    for (int i = 0; i < 4; i++) {
        cr_assert(qt_until_bytes(&w, &w.client.bytes, (uint64_t)(i + 1) * SIZE / 6));
        cr_assert_eq(cb_sim_nat_rebind(nat, addresses[i]), CB_OK);
        cr_assert(qt_until(&w, &w.server.path_changes, i + 1), "%d: %s", i, w.client.detail);
        cb_quic_conn_remote(w.server.conn, seen, sizeof seen);
        if (addresses[i]) cr_assert_eq(strncmp(seen, addresses[i], strlen(addresses[i])), 0, "%s", seen);
    }
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    cr_assert_eq(w.client.sum, qt_sum_of(SIZE));
    qt_world_drop(&w);
}

Test(sim_quic, a_nat_forgets_an_idle_connection) {
    qt_world w;
    cb_sim_nat *nat;
    start_behind_nat(&w, &nat);
    cr_assert_eq(cb_sim_nat_flows(nat), 1);
    qt_turn(&w, 25000);
    cr_assert_eq(cb_sim_nat_flows(nat), 0);
    qt_send(&w.client, 50000);
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    cr_assert_eq(w.client.sum, qt_sum_of(50000));
    cr_assert(qt_until(&w, &w.server.path_changes, 1));
    qt_world_drop(&w);
}

/* The old address dies, a new one appears on a slower line; the client is told, and moves. */
Test(sim_quic, a_host_changes_its_address) {
    enum { SIZE = 2 << 20 };
    qt_world w;
    cb_sim_link *out, *in;
    char seen[64];
    qt_world_make_sim(&w, 4, &dsl, NULL);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    qt_listen(&w, &so);
    cr_assert_eq(cb_quic_client(&w.client.endpoint, w.client_loop, "10.0.0.1:0", &co), CB_OK, "%s", cb_last_error());
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.handshakes, 1), "%s", w.client.detail);
    qt_send(&w.client, SIZE);
    cr_assert(qt_until_bytes(&w, &w.client.bytes, SIZE / 4));
    cr_assert_eq(cb_sim_host_remove_address(w.client_host, "10.0.0.1"), CB_OK);
    cr_assert_eq(cb_sim_host_add_address(w.client_host, "172.16.0.1", 1), CB_OK);
    cr_assert_eq(cb_sim_link_new(&out, w.sim, CB_OPTS(cb_sim_link_opts, .rate_bps = 5000000, .delay_us = 35000)),
                 CB_OK);
    cr_assert_eq(cb_sim_link_new(&in, w.sim, CB_OPTS(cb_sim_link_opts, .rate_bps = 5000000, .delay_us = 35000)), CB_OK);
    cr_assert_eq(cb_sim_path(w.client_host, w.server_host, "172.16.0.1", &out, 1), CB_OK);
    cr_assert_eq(cb_sim_path(w.server_host, w.client_host, NULL, &in, 1), CB_OK);
    cr_assert_eq(cb_quic_conn_migrate(w.client.conn, "172.16.0.1:0"), CB_OK, "%s", cb_last_error());
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    cr_assert_eq(w.client.sum, qt_sum_of(SIZE));
    cb_quic_conn_remote(w.server.conn, seen, sizeof seen);
    cr_assert_eq(strncmp(seen, "172.16.0.1:", 11), 0, "%s", seen);
    cr_assert_gt(st_stats(out).out_packets, 1000);
    qt_world_drop(&w);
}

Test(sim_quic, a_black_hole_ends_or_heals) {
    static const struct {
        uint32_t hole_ms;
        int rc;
    } rows[] = {{5000, CB_OK}, {40000, CB_ETIMEOUT}};
    for (size_t i = 0; i < 2; i++) {
        qt_world w;
        qt_world_make_sim(&w, 5, &dsl, NULL);
        qt_start(&w);
        qt_send(&w.client, 2 << 20);
        cr_assert(qt_until_bytes(&w, &w.client.bytes, 1 << 19));
        cb_sim_link_down(w.there, 1);
        cb_sim_link_down(w.back, 1);
        cb_time since = cb_sim_now(w.sim);
        qt_turn(&w, (int)rows[i].hole_ms);
        cb_sim_link_down(w.there, 0);
        cb_sim_link_down(w.back, 0);
        if (rows[i].rc == CB_OK) {
            cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
        } else {
            cr_assert_eq(w.client.closes, 1);
            cr_assert_eq(w.client.close_rc, CB_ETIMEOUT, "%s", w.client.detail);
        }
        cr_assert_lt(cb_sim_now(w.sim) - since, 60 * ST_S);
        qt_world_drop(&w);
    }
}

/* A closed port answers by ICMP, also through a NAT; a host that does not answer at all takes the whole handshake
 * timeout. */
Test(sim_quic, a_closed_port_is_told_at_once) {
    static const struct {
        bool nat, hole;
        int rc;
        cb_time least, most;
    } rows[] = {
        {false, false, CB_EUNREACH, 40 * ST_MS, 60 * ST_MS},
        {true, false, CB_EUNREACH, 40 * ST_MS, 60 * ST_MS},
        {false, true, CB_ETIMEOUT, 10 * ST_S, 11 * ST_S},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        qt_world w;
        cb_sim_nat *nat;
        qt_world_make_sim(&w, 5, &dsl, NULL);
        cb_quic_opts co = qt_client_opts(&w);
        qt_client_open(&w, &co);
        if (rows[i].nat)
            cr_assert_eq(cb_sim_nat_new(&nat, w.client_host, CB_OPTS(cb_sim_nat_opts, .address = "203.0.113.1")),
                         CB_OK);
        if (rows[i].hole) cb_sim_link_down(w.there, 1);
        snprintf(w.remote, sizeof w.remote, "10.0.0.2:4433");
        qt_connect(&w);
        cr_assert(qt_until(&w, &w.client.closes, 1));
        cr_assert_eq(w.client.close_rc, rows[i].rc, "row %zu: %s", i, w.client.detail);
        cr_assert(cb_sim_now(w.sim) >= rows[i].least && cb_sim_now(w.sim) <= rows[i].most, "row %zu: %d us", i,
                  (int)(cb_sim_now(w.sim) / 1000));
        cr_assert_eq(st_host_stats(w.server_host).drop_port, rows[i].hole ? 0 : 1, "row %zu", i);
        qt_world_drop(&w);
    }
}

Test(sim_quic, marks_slow_a_sender_without_losses) {
    qt_world w;
    qt_world_make_sim(
        &w, 6, CB_OPTS(cb_sim_link_opts, .rate_bps = 20000000, .delay_us = 20000, .buffer_bdp = 8, .mark_bytes = 40000),
        NULL);
    qt_start(&w);
    qt_send(&w.client, 8 << 20);
    cr_assert(qt_until(&w, &w.client.fins, 1), "%s", w.client.detail);
    cb_sim_link_stats s = st_stats(w.there);
    cr_assert_gt(s.marked, 10);
    cr_assert_eq(s.drop_queue, 0);
    cr_assert_lt(s.wait_p95_ns, 60 * ST_MS, "eight BDP would be 320 ms: %d", (int)(s.wait_p95_ns / 1000000));
    qt_world_drop(&w);
}

/* ---- HTTP/3 ---- */

typedef struct getter {
    int status, closed, rc;
    size_t bytes;
    char date[64];
} getter;

static int serve_hello(cb_exchange *x, void *user) {
    (void)user;
    return cb_exchange_send_text(x, 200, "hello from virtual time\n");
}

static int on_head(cb_exchange *x, void *user) {
    getter *g = user;
    g->status = cb_exchange_status(x);
    cb_slice date = cb_exchange_field(x, "date");
    snprintf(g->date, sizeof g->date, "%.*s", (int)date.len, (const char *)date.base);
    return CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    ((getter *)user)->bytes += data.len;
    return (int64_t)data.len;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    ((getter *)user)->closed++;
    ((getter *)user)->rc = rc;
}

static const cb_exchange_ops serving = {.size = sizeof serving, .on_head = serve_hello};
static const cb_exchange_ops getting = {
    .size = sizeof getting, .on_head = on_head, .on_body = on_body, .on_close = on_close};

Test(sim_quic, an_http3_get_by_the_name_of_the_host) {
    static const char *const urls[] = {"https://server/", "https://10.0.0.2/"};
    tls_pki pki;
    cb_sim *sim;
    cb_sim_host *client, *server;
    cb_http_server *s;
    cb_http_client *c;
    cb_exchange *x;
    tls_pki_make_of(&pki, CB_KEY_ED25519);
    cb_identity *server_id = tls_pki_identity(&pki, "server,10.0.0.2"), *client_id = tls_pki_client(&pki);
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&client, sim, "client", "10.0.0.1"), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_sim_host_new(&server, sim, "server", "10.0.0.2,fd00::2"), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_sim_connect(client, server, &dsl, NULL, NULL, NULL), CB_OK);
    int rc = cb_http_server_new(
        &s, cb_sim_host_loop(server),
        CB_OPTS(cb_http_server_opts, .listen = ":443", .identity = server_id, .versions = CB_HTTP_3, .ops = &serving));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    rc = cb_http_client_new(&c, cb_sim_host_loop(client),
                            CB_OPTS(cb_http_client_opts, .identity = client_id, .versions = CB_HTTP_3));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        getter g = {0};
        rc = cb_http_request(&x, c, CB_OPTS(cb_request, .url = urls[i]), &getting, &g);
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
        cr_assert_eq(cb_sim_run_until(sim, cb_sim_now(sim) + 1000000000), CB_OK, "%s", cb_last_error());
        cr_assert_eq(g.closed, 1);
        cr_assert_eq(g.rc, CB_OK, "%s", cb_last_error());
        cr_assert_eq(g.status, 200);
        cr_assert_eq(g.bytes, 24);
        cr_assert(strstr(g.date, "Jan 2026"), "%s", g.date);
    }
    getter lost = {0};
    cb_http_request(&x, c, CB_OPTS(cb_request, .url = "https://nowhere/"), &getting, &lost);
    /* Until the idle connections have closed by themselves: minutes, and no time at all. */
    cr_assert_eq(cb_sim_run(sim), CB_OK, "%s", cb_last_error());
    cr_assert_eq(lost.rc, CB_EDNS);
    cb_http_client_free(c);
    cb_http_server_free(s);
    cb_sim_free(sim);
    cb_identity_unref(server_id);
    cb_identity_unref(client_id);
    tls_pki_drop(&pki);
}

/* Random walks: real endpoints, and a hand that does anything at any time: opens, writes, resets, closes, frees, moves,
 * breaks the line. Whatever happens, each connection ends once, nothing is told after that, and all memory
 * comes back. */
#include "sim/rng.h"
#include "support/counting.h"
#include "support/sim_fixture.h"
#include "support/tls_fixture.h"
#include <cb/quic.h>
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { CONNS_MAX = 64, STEPS = 150, CLIENTS = 2, MEMORY_MAX = 64 << 20 };

typedef struct walk walk;

/* One end of a connection. It is never reused, so that a late callback is seen. */
typedef struct end {
    walk *w;
    cb_quic_conn *c; /* NULL when it is over */
    bool closed;
} end;

struct walk {
    counting memory;
    sim_rng rng;
    cb_sim *sim;
    cb_sim_host *clients[CLIENTS], *server_host;
    cb_sim_link *up, *down;
    cb_sim_nat *nat;
    cb_identity *server_id, *client_id;
    cb_quic_endpoint *client[CLIENTS], *server;
    end ends[2 * CONNS_MAX];
    size_t made, opened, closed, late; /* of ends; late: told after the end */
    uint64_t bytes, streams;
    int left;
};

static uint64_t pick(walk *w, uint64_t n) {
    return sim_rng_below(&w->rng, n);
}

/* ---- what is told ---- */

static void note(end *e) {
    e->w->late += e->closed;
}

/* In a callback, too, anything may happen: now and then its connection is closed. */
static int anything(end *e) {
    note(e);
    uint64_t dice = pick(e->w, 60);
    if (dice == 0 && e->c) cb_quic_conn_close(e->c, dice, "from inside");
    return dice == 1 ? CB_EUSER : CB_OK;
}

static int on_handshake(cb_quic_conn *c, void *user) {
    (void)c;
    return anything(user);
}

static int on_stream_open(cb_quic_conn *c, int64_t stream, void *user) {
    end *e = user;
    e->w->streams++;
    if (pick(e->w, 10) == 0) (void)cb_quic_stream_reset(c, stream, 3);
    return anything(e);
}

static int64_t on_stream_data(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user) {
    end *e = user;
    note(e);
    e->w->bytes += data.len;
    if (fin && stream % 4 < 2) (void)cb_quic_stream_write(c, stream, (cb_slice){NULL, 0}, 1);
    switch (pick(e->w, 20)) {
    case 0:
        return CB_EUSER;
    case 1:
        return (int64_t)(data.len / 2); /* the rest waits for a resume that the hand may give */
    case 2:
        cb_quic_conn_close(c, 4, "in the middle of data");
        return (int64_t)data.len;
    default:
        return (int64_t)data.len;
    }
}

static int on_stream_event(cb_quic_conn *c, int64_t stream, void *user) {
    (void)c;
    (void)stream;
    return anything(user);
}

static int on_stream_code(cb_quic_conn *c, int64_t stream, uint64_t code, void *user) {
    (void)c;
    (void)stream;
    (void)code;
    note(user);
    return CB_OK;
}

static int on_datagram(cb_quic_conn *c, cb_slice data, void *user) {
    end *e = user;
    note(e);
    if (pick(e->w, 2)) (void)cb_quic_datagram_send(c, data);
    return CB_OK;
}

static int on_event(cb_quic_conn *c, void *user) {
    (void)c;
    note(user);
    return CB_OK;
}

static void on_close(cb_quic_conn *c, int rc, void *user) {
    end *e = user;
    (void)c;
    note(e);
    cr_assert(rc <= 0 && rc >= CB_EUNREACH, "%d", rc);
    e->closed = true;
    e->c = NULL;
    e->w->closed++;
}

static const cb_quic_conn_ops end_ops = {.size = sizeof end_ops,
                                         .on_handshake = on_handshake,
                                         .on_stream_open = on_stream_open,
                                         .on_stream_data = on_stream_data,
                                         .on_stream_writable = on_stream_event,
                                         .on_stream_reset = on_stream_code,
                                         .on_stream_close = on_stream_code,
                                         .on_streams_available = on_event,
                                         .on_datagram = on_datagram,
                                         .on_path_change = on_event,
                                         .on_close = on_close};

static end *new_end(walk *w, cb_quic_conn *c) {
    if (w->made == 2 * CONNS_MAX) return NULL;
    end *e = &w->ends[w->made++];
    *e = (end){.w = w, .c = c};
    w->opened++;
    return e;
}

/* A connection that a client made: at first its user is the walk. */
static int on_accepted(cb_quic_conn *c, void *user) {
    end *e = new_end(user, c);
    if (!e) return CB_ELIMIT;
    return cb_quic_conn_handle(c, &end_ops, e);
}

static void on_refused(cb_quic_conn *c, int rc, void *user) {
    (void)c;
    (void)rc;
    (void)user;
}

static const cb_quic_conn_ops accepting = {
    .size = sizeof accepting, .on_handshake = on_accepted, .on_close = on_refused};

/* ---- the hand ---- */

static void open_server(walk *w) {
    int rc = cb_quic_listen(&w->server, cb_sim_host_loop(w->server_host), ":443",
                            CB_OPTS(cb_quic_opts, .alpn = "walk", .identity = w->server_id, .idle_timeout_ms = 5000,
                                    .handshake_timeout_ms = 4000, .max_datagram_bytes = 1000, .max_streams_bidi = 8,
                                    .max_streams_uni = 4, .stream_window_bytes = 20000, .early_data = pick(w, 2) != 0,
                                    .retry = (uint8_t)pick(w, 3), .ops = &accepting, .user = w));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

static void open_client(walk *w, size_t i) {
    int rc = cb_quic_client(&w->client[i], cb_sim_host_loop(w->clients[i]), "0.0.0.0:0",
                            CB_OPTS(cb_quic_opts, .alpn = "walk", .identity = w->client_id, .idle_timeout_ms = 6000,
                                    .handshake_timeout_ms = 4000, .max_datagram_bytes = 1000,
                                    .keep_alive_ms = pick(w, 2) ? 1000 : 0, .early_data = pick(w, 2) != 0,
                                    .version = pick(w, 2) ? 2 : 0, .ops = &end_ops));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

static void do_connect(walk *w) {
    size_t i = pick(w, CLIENTS);
    cb_quic_conn *c;
    if (w->made + 2 > 2 * CONNS_MAX) return;
    if (cb_quic_connect(&c, w->client[i], "10.0.0.9:443", "server") < 0) return;
    end *e = new_end(w, c);
    cr_assert_eq(cb_quic_conn_handle(c, &end_ops, e), CB_OK);
}

static end *any_end(walk *w) {
    for (int tries = 0; w->made && tries < 8; tries++) {
        end *e = &w->ends[pick(w, w->made)];
        if (e->c) return e;
    }
    return NULL;
}

static void do_write(walk *w) {
    static const uint8_t data[30000];
    end *e = any_end(w);
    int64_t stream;
    if (!e || cb_quic_stream_open(e->c, (int)pick(w, 2), &stream) < 0) return;
    (void)cb_quic_stream_write(e->c, stream, (cb_slice){data, pick(w, sizeof data)}, (int)pick(w, 2));
}

static void do_reset(walk *w) {
    end *e = any_end(w);
    if (e) (void)cb_quic_stream_reset(e->c, (int64_t)pick(w, 20), 5);
}

static void do_resume(walk *w) {
    end *e = any_end(w);
    for (int64_t stream = 0; e && e->c && stream < 24; stream++)
        cb_quic_stream_resume(e->c, stream);
}

static void do_datagram(walk *w) {
    static const uint8_t data[900];
    end *e = any_end(w);
    if (e) (void)cb_quic_datagram_send(e->c, (cb_slice){data, pick(w, sizeof data)});
}

static void do_key_update(walk *w) {
    end *e = any_end(w);
    if (e) (void)cb_quic_conn_key_update(e->c);
}

static void do_migrate(walk *w) {
    end *e = any_end(w);
    if (e) (void)cb_quic_conn_migrate(e->c, pick(w, 2) ? NULL : "10.0.0.77:0");
}

static void do_close(walk *w) {
    end *e = any_end(w);
    if (e) cb_quic_conn_close(e->c, pick(w, 100), "by hand");
}

static void do_rebind(walk *w) {
    cr_assert_eq(cb_sim_nat_rebind(w->nat, NULL), CB_OK);
}

static void do_move(walk *w) {
    static const char *const two[] = {"10.0.0.2", "10.0.0.3"};
    size_t gone = pick(w, 2);
    if (cb_sim_host_remove_address(w->clients[1], two[gone]) < 0) return;
    (void)cb_sim_host_add_address(w->clients[1], two[!gone], 1);
}

static void do_line(walk *w) {
    const cb_sim_link_opts o = {.size = sizeof o,
                                .rate_bps = 500000 << pick(w, 8),
                                .delay_us = 1000 << pick(w, 8),
                                .loss = pick(w, 3) ? 0 : 0.3,
                                .corrupt = pick(w, 3) ? 0 : 0.2,
                                .duplicate = pick(w, 3) ? 0 : 0.3,
                                .reorder = pick(w, 3) ? 0 : 0.3,
                                .reorder_us = 40000,
                                .jitter_us = pick(w, 10000),
                                .mtu_bytes = pick(w, 4) ? 1500 : 1300,
                                .mark_bytes = pick(w, 2) ? 5000 : 0};
    cr_assert_eq(cb_sim_link_set(pick(w, 2) ? w->up : w->down, &o), CB_OK, "%s", cb_last_error());
}

static void do_hole(walk *w) {
    cb_sim_link_down(pick(w, 2) ? w->up : w->down, pick(w, 3) == 0);
}

static void do_client_anew(walk *w) {
    size_t i = pick(w, CLIENTS);
    if (pick(w, 4)) return;
    cb_quic_endpoint_free(w->client[i]);
    open_client(w, i);
}

static void do_server_anew(walk *w) {
    if (pick(w, 6)) return;
    if (pick(w, 2)) cb_quic_endpoint_refuse(w->server);
    cb_quic_endpoint_free(w->server);
    open_server(w);
}

static void (*const deeds[])(walk *) = {
    do_connect, do_connect, do_connect, do_write,    do_write,      do_write,       do_write,
    do_reset,   do_resume,  do_resume,  do_datagram, do_key_update, do_migrate,     do_close,
    do_rebind,  do_move,    do_line,    do_hole,     do_hole,       do_client_anew, do_server_anew};

static void on_step(cb_sim *sim, void *user) {
    walk *w = user;
    deeds[pick(w, sizeof deeds / sizeof deeds[0])](w);
    if (--w->left > 0) cb_sim_at(sim, cb_sim_now(sim) + pick(w, 200 * ST_MS), on_step, w);
}

static void walk_once(uint64_t seed, cb_identity *server_id, cb_identity *client_id, uint64_t *bytes) {
    walk *w = calloc(1, sizeof *w);
    cr_assert_not_null(w);
    const cb_alloc alloc = counting_alloc(&w->memory);
    const cb_sim_link_opts line = {.size = sizeof line, .rate_bps = 10000000, .delay_us = 10000};
    sim_rng_init(&w->rng, seed, 99);
    w->server_id = server_id;
    w->client_id = client_id;
    w->left = STEPS;
    int rc = cb_sim_new(&w->sim, CB_OPTS(cb_sim_opts, .seed = seed, .alloc = &alloc));
    if (rc == CB_OK) rc = cb_sim_host_new(&w->clients[0], w->sim, "behind", "192.168.1.2");
    if (rc == CB_OK) rc = cb_sim_host_new(&w->clients[1], w->sim, "moving", "10.0.0.2");
    if (rc == CB_OK) rc = cb_sim_host_new(&w->server_host, w->sim, "server", "10.0.0.9");
    if (rc == CB_OK) rc = cb_sim_link_new(&w->up, w->sim, &line);
    if (rc == CB_OK) rc = cb_sim_link_new(&w->down, w->sim, &line);
    for (int i = 0; i < CLIENTS && rc == CB_OK; i++) { /* both share the line */
        rc = cb_sim_path(w->clients[i], w->server_host, NULL, &w->up, 1);
        if (rc == CB_OK) rc = cb_sim_path(w->server_host, w->clients[i], NULL, &w->down, 1);
    }
    if (rc == CB_OK) rc = cb_sim_nat_new(&w->nat, w->clients[0], CB_OPTS(cb_sim_nat_opts, .address = "203.0.113.1"));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    open_server(w);
    for (size_t i = 0; i < CLIENTS; i++)
        open_client(w, i);
    cb_sim_at(w->sim, 0, on_step, w);
    rc = cb_sim_run_until(w->sim, 60 * ST_S);
    cr_assert_eq(rc, CB_OK, "seed %llu: %s", (unsigned long long)seed, cb_last_error());
    for (size_t i = 0; i < CLIENTS; i++)
        cb_quic_endpoint_free(w->client[i]);
    cr_assert_eq(cb_sim_run(w->sim), CB_OK, "seed %llu: %s", (unsigned long long)seed, cb_last_error());
    cb_quic_endpoint_free(w->server);
    cb_sim_run(w->sim);
    cr_assert_eq(w->late, 0, "seed %llu: told after on_close", (unsigned long long)seed);
    cr_assert_eq(w->closed, w->opened, "seed %llu: %zu of %zu ends", (unsigned long long)seed, w->closed, w->opened);
    cb_sim_free(w->sim);
    cr_assert_eq(w->memory.now, 0, "seed %llu: %zu bytes are left", (unsigned long long)seed, w->memory.now);
    cr_assert_lt(w->memory.most, (size_t)MEMORY_MAX, "seed %llu: %zu bytes", (unsigned long long)seed, w->memory.most);
    *bytes += w->bytes;
    free(w);
}

Test(sim_walk, anything_at_any_time) {
    enum { WALKS = 40 };
    uint64_t bytes = 0;
    tls_pki pki;
    tls_pki_make_of(&pki, CB_KEY_ED25519);
    cb_identity *server_id = tls_pki_identity(&pki, "server"), *client_id = tls_pki_client(&pki);
    for (uint64_t seed = 1; seed <= WALKS; seed++)
        walk_once(seed, server_id, client_id, &bytes);
    cr_assert_gt(bytes, (uint64_t)WALKS * 10000, "walks must get somewhere: %llu", (unsigned long long)bytes);
    cb_identity_unref(server_id);
    cb_identity_unref(client_id);
    tls_pki_drop(&pki);
}

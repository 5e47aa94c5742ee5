/* The cases of the QUIC interop runner, by its names, in virtual time: our client and our server, with what the runner
 * asks of a pass. The same names against other programs are in tests/interop/test_quic_interop.py; docs/interop.md has
 * the whole matrix. What the runner reads from a capture is counted here on the links. */
#include "support/quic_fixture.h"
#include "transport/quic_endpoint_int.h"
#include <cb/ca.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum { MB = 1 << 20 };
#define V2 0x6b3343cf

/* The runner's line: 10 Mbit/s, 15 ms, 25 packets. */
static const cb_sim_link_opts runner_line = {
    .size = sizeof runner_line, .rate_bps = 10000000, .delay_us = 15000, .buffer_bytes = 25 * 1500};

/* ---- what is seen on a link ---- */

typedef struct tap {
    uint64_t packets, bytes, initial, early, handshake, retry, negotiation, shorts, v2, ect0, ce;
    uint64_t handshake_bytes, tokens;
    size_t cid_len; /* of short headers; 0: not looked at */
    uint32_t first_version;
    uint16_t ports[8]; /* senders */
    uint8_t cids[8][20], n_ports;
} tap;

static void tap_port(tap *t, const cb_sim_packet *p) {
    uint8_t i = 0;
    while (i < t->n_ports && t->ports[i] != p->from_port)
        i++;
    if (i == t->n_ports && i < 8) t->ports[t->n_ports++] = p->from_port;
    if (i < 8 && p->data.len > t->cid_len && !(p->data.base[0] & 0x80))
        memcpy(t->cids[i], p->data.base + 1, t->cid_len);
}

static void tap_long(tap *t, const uint8_t *d, size_t len) {
    uint32_t version = (uint32_t)d[1] << 24 | (uint32_t)d[2] << 16 | (uint32_t)d[3] << 8 | d[4];
    unsigned type = d[0] >> 4 & 3;
    if (!t->first_version) t->first_version = version;
    if (version == V2) type = (type + 3) & 3; /* RFC 9369, 3.2 */
    t->v2 += version == V2;
    t->negotiation += version == 0;
    if (!version) return;
    t->initial += type == 0;
    t->early += type == 1;
    t->handshake += type == 2;
    t->retry += type == 3;
    if (type == 2) t->handshake_bytes += len;
    size_t at = 6 + (size_t)d[5];
    at += 1 + (size_t)d[at];
    if (type == 0 && at < len && d[at]) t->tokens++;
}

static void on_packet(const cb_sim_packet *p, void *user) {
    tap *t = user;
    if (p->event != CB_SIM_DELIVERED || !p->data.len) return;
    t->packets++;
    t->bytes += p->data.len;
    t->ect0 += p->ecn == 2;
    t->ce += p->ecn == 3;
    if (p->data.base[0] & 0x80)
        tap_long(t, p->data.base, p->data.len);
    else
        t->shorts++;
    tap_port(t, p);
}

/* ---- the world of a case ---- */

typedef struct rig {
    qt_world w;
    tap up, down; /* to the server, to the client */
    cb_quic_opts so, co;
} rig;

static void make(rig *g, uint64_t seed, const cb_sim_link_opts *there, const cb_sim_link_opts *back) {
    memset(g, 0, sizeof *g);
    qt_world_make_sim(&g->w, seed, there, back);
    g->so = qt_server_opts(&g->w);
    g->co = qt_client_opts(&g->w);
    cb_sim_link_tap(g->w.there, on_packet, &g->up);
    cb_sim_link_tap(g->w.back, on_packet, &g->down);
}

static void begin(rig *g) {
    qt_listen(&g->w, &g->so);
    qt_client_open(&g->w, &g->co);
    qt_connect(&g->w);
}

static void shake_hands(rig *g, int n) {
    cr_assert(qt_until(&g->w, &g->w.client.handshakes, n), "no handshake: %s", g->w.client.detail);
    cr_assert(qt_until(&g->w, &g->w.server.handshakes, n));
}

/* Up and, by the server's echo, down again; byte-exact when it is stream 0. */
static void transfer(rig *g, uint64_t bytes) {
    qt_side *c = &g->w.client;
    uint64_t before = c->bytes;
    int fins = c->fins;
    c->sum = 0;
    qt_send(c, bytes);
    cr_assert(qt_until(&g->w, &c->fins, fins + 1), "%d of %d bytes: %s", (int)(c->bytes - before), (int)bytes,
              c->detail);
    cr_assert_eq(c->bytes - before, bytes);
    if (c->send_stream == 0) cr_assert_eq(c->sum, qt_sum_of(bytes));
}

static void hang_up(rig *g) {
    qt_side *c = &g->w.client;
    cb_quic_conn_close(c->conn, 0, NULL);
    cr_assert(qt_until(&g->w, &c->closes, 1));
    c->closes = 0;
    qt_turn(&g->w, 100); /* the last packet arrives */
}

static cb_quic_conn_stats stats_of(cb_quic_conn *c) {
    cb_quic_conn_stats s = {.size = sizeof s};
    cr_assert_eq(cb_quic_conn_stats_get(c, &s), CB_OK);
    return s;
}

static cb_sim_link_stats link_of(cb_sim_link *l) {
    cb_sim_link_stats s = {.size = sizeof s};
    cr_assert_eq(cb_sim_link_stats_get(l, &s), CB_OK);
    return s;
}

static void drop(rig *g) {
    g->w.client.after_close = 0; /* of the connections before the last one */
    qt_world_drop(&g->w);
}

/* ---- cases ---- */

/* One handshake, no Retry, and a file. */
Test(interop_case, handshake) {
    rig g;
    make(&g, 1, &runner_line, NULL);
    begin(&g);
    shake_hands(&g, 1);
    transfer(&g, 1024);
    cr_assert_eq(g.w.server.handshakes, 1);
    cr_assert_eq(g.down.retry, 0);
    cr_assert_eq(g.up.first_version, 1);
    drop(&g);
}

/* Three files on one connection, each far beyond the first windows: flow control has to be raised, both ways. */
Test(interop_case, transfer) {
    rig g;
    make(&g, 1, &runner_line, NULL);
    g.so.stream_window_bytes = g.co.stream_window_bytes = 65536;
    g.so.conn_window_bytes = g.co.conn_window_bytes = 131072;
    begin(&g);
    shake_hands(&g, 1);
    transfer(&g, 2 * MB);
    transfer(&g, 3 * MB);
    transfer(&g, 5 * MB);
    cr_assert_eq(g.w.server.handshakes, 1);
    drop(&g);
}

/* A round trip of 1.5 s: the first timeout is earlier, so the ClientHello goes out twice at least. */
Test(interop_case, longrtt) {
    static const cb_sim_link_opts far = {.size = sizeof far, .rate_bps = 10000000, .delay_us = 750000};
    rig g;
    make(&g, 1, &far, NULL);
    begin(&g);
    shake_hands(&g, 1);
    transfer(&g, 1024);
    cr_assert_geq(g.up.initial, 2, "%d", (int)g.up.initial);
    cr_assert_geq(stats_of(g.w.client.conn).min_rtt_ns, 1500 * (cb_time)1000000);
    drop(&g);
}

/* 1999 small files, each on a stream of its own, on one connection; never more than 100 streams may be open. */
Test(interop_case, multiplexing) {
    enum { FILES = 1999 };
    static const uint8_t file[32];
    rig g;
    make(&g, 1, &runner_line, NULL);
    begin(&g);
    shake_hands(&g, 1);
    qt_side *c = &g.w.client;
    for (int sent = 0; sent < FILES;) {
        int64_t id;
        int told = c->available, rc = cb_quic_stream_open(c->conn, 1, &id);
        if (rc == CB_EAGAIN) {
            cr_assert(qt_until(&g.w, &c->available, told + 1), "after %d streams", sent);
            continue;
        }
        cr_assert_eq(rc, CB_OK);
        cr_assert_eq(cb_quic_stream_write(c->conn, id, (cb_slice){file, sizeof file}, 1), (int64_t)sizeof file);
        sent++;
    }
    cr_assert(qt_until(&g.w, &c->fins, FILES), "%d came back", c->fins);
    cr_assert_eq(c->bytes, FILES * sizeof file);
    cr_assert_eq(g.w.server.handshakes, 1);
    drop(&g);
}

/* The server sends Retry, and the client comes back with the token. */
Test(interop_case, retry) {
    rig g;
    make(&g, 1, &runner_line, NULL);
    g.so.retry = 1;
    begin(&g);
    shake_hands(&g, 1);
    transfer(&g, 1024);
    cr_assert_eq(g.down.retry, 1);
    cr_assert_geq(g.up.tokens, 1);
    drop(&g);
}

static void resumable(rig *g, uint8_t early) {
    make(g, 1, &runner_line, NULL);
    g->so.early_data = g->co.early_data = early;
    begin(g);
    shake_hands(g, 1);
    transfer(g, 1024);
    qt_turn(&g->w, 200); /* the tickets */
    hang_up(g);
}

/* The second handshake has no Certificate: what the server says in it is much shorter. */
Test(interop_case, resumption) {
    rig g;
    resumable(&g, 0);
    tap first = g.down;
    memset(&g.down, 0, sizeof g.down);
    qt_connect(&g.w);
    shake_hands(&g, 2);
    transfer(&g, 1024);
    cr_assert(stats_of(g.w.client.conn).resumed);
    cr_assert(stats_of(g.w.server.conn).resumed);
    cr_assert_lt(g.down.bytes - 1024, first.bytes - 1024 - 300, "%d bytes, %d the first time", (int)g.down.bytes,
                 (int)first.bytes);
    drop(&g);
}

/* Forty requests go before the server has said anything. */
Test(interop_case, zerortt) {
    enum { FILES = 40 };
    static const uint8_t request[250];
    rig g;
    resumable(&g, 1);
    memset(&g.up, 0, sizeof g.up);
    int fins = g.w.client.fins;
    qt_connect(&g.w);
    for (int i = 0; i < FILES; i++) {
        int64_t id;
        cr_assert_eq(cb_quic_stream_open(g.w.client.conn, 1, &id), CB_OK, "stream %d", i);
        int64_t n = cb_quic_stream_write(g.w.client.conn, id, (cb_slice){request, sizeof request}, 1);
        cr_assert_eq(n, (int64_t)sizeof request);
    }
    uint64_t before = g.w.server.bytes;
    qt_turn(&g.w, 31); /* a way there and nearly back: the client knows nothing yet */
    cr_assert_eq(g.w.client.handshakes, 1);
    cr_assert_eq(g.w.server.bytes - before, FILES * sizeof request, "%d bytes came early",
                 (int)(g.w.server.bytes - before));
    cr_assert_geq(g.up.early, FILES * sizeof request / 1300);
    cr_assert_eq(g.up.shorts, 0);
    shake_hands(&g, 2);
    cr_assert(qt_until(&g.w, &g.w.client.fins, fins + FILES));
    cr_assert_eq(stats_of(g.w.client.conn).early_data, 1);
    drop(&g);
}

/* Nothing gets through for two seconds in the middle. */
Test(interop_case, blackhole) {
    rig g;
    make(&g, 1, &runner_line, NULL);
    begin(&g);
    shake_hands(&g, 1);
    qt_send(&g.w.client, 8 * MB);
    qt_turn(&g.w, 3000);
    cb_sim_link_down(g.w.there, 1);
    cb_sim_link_down(g.w.back, 1);
    qt_turn(&g.w, 2000);
    cb_sim_link_down(g.w.there, 0);
    cb_sim_link_down(g.w.back, 0);
    cr_assert_lt(g.w.client.bytes, 8 * MB);
    cr_assert(qt_until(&g.w, &g.w.client.fins, 1), "%s", g.w.client.detail);
    cr_assert_eq(g.w.client.sum, qt_sum_of(8 * MB));
    cr_assert_gt(link_of(g.w.there).drop_down, 0);
    drop(&g);
}

/* Keys change by either side; the next update is allowed only when the other side has answered with the new keys, so
 * that the second and third show packets of both phases in both directions (RFC 9001, 6.1). */
Test(interop_case, keyupdate) {
    rig g;
    make(&g, 1, &runner_line, NULL);
    begin(&g);
    shake_hands(&g, 1);
    qt_send(&g.w.client, 3 * MB);
    qt_turn(&g.w, 200);
    for (int i = 0; i < 3; i++) {
        cb_quic_conn *who = i == 1 ? g.w.server.conn : g.w.client.conn;
        for (int tries = 0; cb_quic_conn_key_update(who) != CB_OK; tries++) {
            cr_assert_lt(tries, 50, "update %d: %s", i, cb_last_error());
            qt_turn(&g.w, 20);
        }
        qt_turn(&g.w, 100);
        cr_assert_lt(g.w.client.bytes, 3 * MB, "too short a transfer");
    }
    cr_assert(qt_until(&g.w, &g.w.client.fins, 1), "%s", g.w.client.detail);
    cr_assert_eq(g.w.client.sum, qt_sum_of(3 * MB));
    drop(&g);
}

/* Where the packets that confirmed one update were the last ones, asking for the next is enough. */
Test(interop_case, keyupdate_idle) {
    rig g;
    make(&g, 1, &runner_line, NULL);
    begin(&g);
    shake_hands(&g, 1);
    qt_turn(&g.w, 2000);
    for (int i = 0; i < 3; i++) {
        for (int tries = 0; cb_quic_conn_key_update(g.w.client.conn) != CB_OK; tries++) {
            cr_assert_lt(tries, 5, "update %d is refused for ever", i);
            qt_turn(&g.w, 20);
        }
        qt_send(&g.w.client, 1000);
        qt_turn(&g.w, 2000);
    }
    cr_assert_eq(g.w.client.closes + g.w.server.closes, 0);
    drop(&g);
}

/* ECT(0) both ways, validated by ACK_ECN; and CE, set by the line, keeps its queue short without a single loss. */
Test(interop_case, ecn) {
    uint64_t queue[2];
    for (int marks = 0; marks < 2; marks++) {
        cb_sim_link_opts deep = {.size = sizeof deep, .rate_bps = 10000000, .delay_us = 15000, .buffer_bytes = 4 * MB};
        deep.mark_bytes = marks ? 37500 : 0;
        rig g;
        make(&g, 1, &deep, NULL);
        g.so.cc = g.co.cc = CB_CC_CUBIC;
        g.so.max_window_bytes = g.co.max_window_bytes = 4 * MB;
        begin(&g);
        shake_hands(&g, 1);
        transfer(&g, 6 * MB);
        cb_sim_link_stats s = link_of(g.w.there);
        cr_assert_gt(g.up.ect0 + g.up.ce, g.up.packets / 2, "%d of %d", (int)g.up.ect0, (int)g.up.packets);
        cr_assert_gt(g.down.ect0 + g.down.ce, g.down.packets / 2);
        cr_assert(stats_of(g.w.client.conn).ecn, "not validated: no ACK_ECN came");
        cr_assert(stats_of(g.w.server.conn).ecn);
        cr_assert_eq(s.drop_queue, 0);
        cr_assert_eq(g.up.ce > 0, marks == 1);
        cr_assert_eq(s.marked, g.up.ce);
        queue[marks] = s.queue_bytes_max;
        drop(&g);
    }
    cr_assert_lt(queue[1], queue[0] / 2, "CE provokes nothing: %d bytes, %d without", (int)queue[1], (int)queue[0]);
}

/* A certificate far too large for three times the client's first packet, and the client's second to seventh packets are
 * lost: the server must not say more than it may, and both must get out of it. */
Test(interop_case, amplificationlimit) {
    enum { NAMES = 40 };
    static char text[NAMES][240];
    const char *names[NAMES] = {"server.test"};
    rig g;
    make(&g, 1, &runner_line, NULL);
    for (int i = 1; i < NAMES; i++) {
        for (int at = 0; at < 180; at += 60)
            snprintf(text[i] + at, sizeof text[i] - (size_t)at, "%058d-.", i);
        for (char *p = text[i]; *p; p++)
            if (*p == '-') *p = 'x';
        strcat(text[i], "test");
        names[i] = text[i];
    }
    char *cert = NULL, *key = NULL;
    int rc = cb_ca_issue(
        g.w.pki.ca,
        CB_OPTS(cb_leaf_opts, .names = names, .names_len = NAMES, .file_stem = "huge", .key_type = CB_KEY_ED25519),
        &cert, &key);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    cb_identity *huge = NULL;
    rc = cb_identity_new(&huge,
                         CB_OPTS(cb_identity_opts, .cert_file = cert, .key_file = key, .ca_file = g.w.pki.ca_file));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    g.so.identity = huge;
    g.so.handshake_timeout_ms = g.co.handshake_timeout_ms = 60000;
    begin(&g);
    bool more = true;
    for (int ms = 0; ms < 60000 && !g.w.server.handshakes; ms++) {
        qt_turn(&g.w, 1);
        if (g.up.packets >= 1 && more) cb_sim_link_down(g.w.there, 1);
        more = link_of(g.w.there).drop_down < 6;
        if (!more) cb_sim_link_down(g.w.there, 0);
        /* until something else than an Initial came, the address is not proven */
        if (!g.up.handshake)
            cr_assert_leq(link_of(g.w.back).in_bytes - 28 * link_of(g.w.back).in_packets, 3 * g.up.bytes);
    }
    cr_assert_eq(link_of(g.w.there).drop_down, 6);
    shake_hands(&g, 1);
    cr_assert_gt(g.down.handshake_bytes + g.down.bytes, 3 * 1200 + 3000, "the certificate is too small for this test");
    transfer(&g, 5000);
    cb_identity_unref(huge);
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    drop(&g);
}

/* Fifty connections, one after the other, each with a small file. */
static void fifty(const cb_sim_link_opts *line) {
    rig g;
    make(&g, 5, line, NULL);
    g.so.handshake_timeout_ms = g.co.handshake_timeout_ms = 300000;
    g.so.idle_timeout_ms = g.co.idle_timeout_ms = 300000;
    begin(&g);
    for (int n = 1; n <= 50; n++) {
        if (n > 1) qt_connect(&g.w);
        shake_hands(&g, n);
        transfer(&g, 1024);
        hang_up(&g);
    }
    cr_assert_eq(g.w.client.handshakes, 50);
    drop(&g);
}

static cb_sim_link_opts bad_line(double loss, double corrupt) {
    cb_sim_link_opts o = runner_line;
    o.loss = loss;
    o.corrupt = corrupt;
    return o;
}

Test(interop_case, handshakeloss, .timeout = 60) {
    cb_sim_link_opts o = bad_line(0.3, 0);
    fifty(&o);
}

Test(interop_case, handshakecorruption, .timeout = 60) {
    cb_sim_link_opts o = bad_line(0, 0.3);
    fifty(&o);
}

static void bad_transfer(double loss, double corrupt) {
    cb_sim_link_opts o = bad_line(loss, corrupt);
    rig g;
    make(&g, 2, &o, NULL);
    begin(&g);
    shake_hands(&g, 1);
    transfer(&g, 2 * MB);
    cb_sim_link_stats s = link_of(g.w.there);
    cr_assert_gt(s.drop_loss + s.corrupted, 10);
    cr_assert_eq(g.w.server.handshakes, 1);
    drop(&g);
}

Test(interop_case, transferloss) {
    bad_transfer(0.02, 0);
}

Test(interop_case, transfercorruption) {
    bad_transfer(0, 0.02);
}

Test(interop_case, ipv6) {
    rig g;
    make(&g, 1, &runner_line, NULL);
    cr_assert_eq(cb_sim_host_add_address(g.w.client_host, "fd00::1", 0), CB_OK);
    cr_assert_eq(cb_sim_host_add_address(g.w.server_host, "fd00::2", 0), CB_OK);
    cr_assert_eq(cb_quic_listen(&g.w.server.endpoint, g.w.loop, "[fd00::2]:4433", &g.so), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_quic_client(&g.w.client.endpoint, g.w.client_loop, NULL, &g.co), CB_OK);
    snprintf(g.w.remote, sizeof g.w.remote, "[fd00::2]:4433");
    qt_connect(&g.w);
    shake_hands(&g, 1);
    transfer(&g, 2 * MB);
    char seen[64];
    cr_assert(strstr(cb_quic_conn_remote(g.w.server.conn, seen, sizeof seen), "fd00::1"), "%s", seen);
    drop(&g);
}

/* The client begins with version 1 and both go on with version 2 (RFC 9368), because the server prefers it. */
Test(interop_case, v2) {
    rig g;
    make(&g, 1, &runner_line, NULL);
    g.so.version = 2;
    begin(&g);
    shake_hands(&g, 1);
    transfer(&g, 2 * MB);
    cr_assert_eq(g.up.first_version, 1);
    cr_assert_eq(g.down.first_version, V2);
    cr_assert_eq(g.down.negotiation, 0);
    cr_assert_eq(stats_of(g.w.client.conn).version, V2);
    cr_assert_eq(stats_of(g.w.server.conn).version, V2);
    drop(&g);
}

/* A NAT that forgets: the server must validate each new path (PATH_CHALLENGE; a path counts as changed only after the
 * answer), and the transfer goes on. */
static void rebind(const char *const *addresses, int times) {
    rig g;
    cb_sim_nat *nat = NULL;
    make(&g, 1, &runner_line, NULL);
    cr_assert_eq(cb_sim_nat_new(&nat, g.w.client_host, CB_OPTS(cb_sim_nat_opts, .address = "192.0.2.1")), CB_OK, "%s",
                 cb_last_error());
    begin(&g);
    shake_hands(&g, 1);
    qt_send(&g.w.client, 8 * MB);
    char before[64], after[64];
    for (int i = 0; i < times; i++) {
        qt_turn(&g.w, 1000);
        cr_assert_eq(g.w.client.fins, 0, "too short a transfer");
        cb_quic_conn_remote(g.w.server.conn, before, sizeof before);
        cr_assert_eq(cb_sim_nat_rebind(nat, addresses ? addresses[i] : NULL), CB_OK, "%s", cb_last_error());
        cr_assert(qt_until(&g.w, &g.w.server.path_changes, i + 1), "rebinding %d: %s", i, g.w.client.detail);
        cb_quic_conn_remote(g.w.server.conn, after, sizeof after);
        cr_assert_str_neq(before, after);
        if (addresses) cr_assert(strstr(after, addresses[i]), "%s", after);
    }
    cr_assert(qt_until(&g.w, &g.w.client.fins, 1), "%s", g.w.client.detail);
    cr_assert_eq(g.w.client.sum, qt_sum_of(8 * MB));
    cr_assert_eq(g.w.client.path_changes, 0, "the client knows nothing of it");
    drop(&g);
}

Test(interop_case, rebind_port) {
    rebind(NULL, 3);
}

Test(interop_case, rebind_addr) {
    static const char *const addresses[] = {"192.0.2.2", "192.0.2.3", "192.0.2.4"};
    rebind(addresses, 3);
}

/* The client moves, knowingly, and by another connection ID than before. */
Test(interop_case, connectionmigration) {
    rig g;
    make(&g, 1, &runner_line, NULL);
    cr_assert_eq(cb_sim_host_add_address(g.w.client_host, "10.0.1.1", 0), CB_OK);
    begin(&g);
    g.up.cid_len = g.w.server.endpoint->cid_len;
    shake_hands(&g, 1);
    qt_send(&g.w.client, 4 * MB);
    qt_turn(&g.w, 1000);
    cr_assert_eq(cb_quic_conn_migrate(g.w.client.conn, "10.0.1.1:0"), CB_OK, "%s", cb_last_error());
    cr_assert(qt_until(&g.w, &g.w.server.path_changes, 1));
    cr_assert(qt_until(&g.w, &g.w.client.path_changes, 1));
    char seen[64];
    cr_assert(strstr(cb_quic_conn_remote(g.w.server.conn, seen, sizeof seen), "10.0.1.1:"), "%s", seen);
    cr_assert(qt_until(&g.w, &g.w.client.fins, 1), "%s", g.w.client.detail);
    cr_assert_eq(g.w.client.sum, qt_sum_of(4 * MB));
    cr_assert_eq(g.up.n_ports, 2);
    cr_assert_neq(memcmp(g.up.cids[0], g.up.cids[1], g.up.cid_len), 0, "both paths have one connection ID");
    drop(&g);
}

/* A server that lists what it speaks, and a client that finds nothing in the list (RFC 9000, 6.2). */
typedef struct lister {
    uint32_t asked;
    int packets;
} lister;

static void list_versions(cb_sim_socket *s, const cb_sim_datagram *d, void *user) {
    lister *l = user;
    const uint8_t *in = d->data.base;
    uint8_t out[64] = {0x80}, *at = out + 5;
    l->packets++;
    l->asked = (uint32_t)in[1] << 24 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 8 | in[4];
    size_t dcid = in[5], scid = in[6 + dcid];
    *at++ = (uint8_t)scid;
    memcpy(at, in + 7 + dcid, scid);
    at += scid;
    *at++ = (uint8_t)dcid;
    memcpy(at, in + 6, dcid);
    at += dcid;
    memcpy(at, "\x1a\x2a\x3a\x4a\xff\0\0\x1d", 8); /* a reserved one, draft 29 */
    cr_assert_eq(cb_sim_socket_send(s, d->from, (cb_slice){out, (size_t)(at + 8 - out)}, 0), CB_OK);
}

Test(interop_case, versionnegotiation) {
    rig g;
    cb_sim_socket *other = NULL, *probe = NULL;
    lister l = {0}, heard = {0};
    make(&g, 1, &runner_line, NULL);
    /* our server answers an unknown version with its list */
    qt_listen(&g.w, &g.so);
    uint8_t first[1200] = {0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 2, 9, 9};
    cr_assert_eq(cb_sim_socket_new(&probe, g.w.client_host, 0, list_versions, &heard), CB_OK);
    cr_assert_eq(cb_sim_socket_send(probe, g.w.remote, (cb_slice){first, sizeof first}, 0), CB_OK);
    cr_assert(qt_until(&g.w, &heard.packets, 1));
    cr_assert_eq(heard.asked, 0);
    cr_assert_eq(g.down.negotiation, 1);
    cb_sim_socket_free(probe);
    /* our client gives up at once, and says which version the server does not speak */
    cr_assert_eq(cb_sim_socket_new(&other, g.w.server_host, 4444, list_versions, &l), CB_OK);
    snprintf(g.w.remote, sizeof g.w.remote, "10.0.0.2:4444");
    qt_client_open(&g.w, &g.co);
    qt_connect(&g.w);
    cr_assert(qt_until(&g.w, &g.w.client.closes, 1));
    cr_assert_eq(l.asked, 1);
    cr_assert_eq(g.w.client.close_rc, CB_ENOTSUP, "%s", g.w.client.detail);
    cr_assert_lt(cb_sim_now(g.w.sim), 1000 * (cb_time)1000000);
    cb_sim_socket_free(other);
    drop(&g);
}

/* How fast 8 MiB come over the runner's line, up and down at once; with other traffic, the share of what it leaves. */
static double goodput(uint64_t cross_bps) {
    cb_sim_link_opts line = runner_line;
    cb_sim_traffic *other = NULL;
    rig g;
    line.buffer_bytes = 0; /* one bandwidth-delay product, at least 64 KiB */
    make(&g, 3, &line, NULL);
    if (cross_bps)
        cr_assert_eq(
            cb_sim_traffic_new(&other, g.w.there, CB_OPTS(cb_sim_traffic_opts, .rate_bps = cross_bps, .poisson = 1)),
            CB_OK);
    begin(&g);
    shake_hands(&g, 1);
    cb_time since = cb_sim_now(g.w.sim);
    transfer(&g, 8 * MB);
    double rate = 8.0 * 8 * MB / ((double)(cb_sim_now(g.w.sim) - since) / 1e9);
    cb_sim_traffic_free(other);
    drop(&g);
    return rate;
}

Test(interop_case, goodput) {
    double rate = goodput(0);
    cr_assert_gt(rate, 0.85 * 10e6, "%d kbit/s", (int)(rate / 1000));
}

Test(interop_case, crosstraffic) {
    double rate = goodput(5000000);
    cr_assert_gt(rate, 0.6 * 5e6, "%d kbit/s", (int)(rate / 1000));
    cr_assert_lt(rate, 5.5e6);
}

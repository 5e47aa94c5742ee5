/* One handler for datagrams, whatever carries them: sockets, simulated ones, and a driver of the test's own. */
#include "loop/loop_int.h"
#include "support/moved.h"
#include <cb/packet.h>
#include <cb/sim.h>
#include <stdlib.h>
#include <string.h>

/* ---- addresses ---- */

Test(packet_io, addresses_are_read_and_written) {
    static const struct {
        const char *in, *out;
        int family;
    } rows[] = {{"192.0.2.1:53", "192.0.2.1:53", 4},
                {"[2001:db8::1]:53", "[2001:db8::1]:53", 6},
                {"[::ffff:192.0.2.1]:7", "192.0.2.1:7", 4},
                {"[fe80::1%3]:9", "[fe80::1%3]:9", 6}};
    static const char *const bad[] = {"192.0.2.1", "192.0.2.1:0", "[2001:db8::1]", "name:53", "", "1.2.3.4:99999"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_packet_addr a, b;
        char text[64], cut[8];
        cr_assert_eq(cb_packet_addr_parse(&a, rows[i].in), CB_OK, "%s: %s", rows[i].in, cb_last_error());
        cr_expect_str_eq(cb_packet_addr_text(&a, text, sizeof text), rows[i].out);
        cr_expect_eq(a.family, rows[i].family);
        cr_expect_eq(strlen(cb_packet_addr_text(&a, cut, sizeof cut)), sizeof cut - 1);
        b = a;
        b.scope = 77;
        cr_expect(cb_packet_addr_equal(&a, &b));
        b.port++;
        cr_expect(!cb_packet_addr_equal(&a, &b));
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cb_packet_addr a;
        cr_expect_eq(cb_packet_addr_parse(&a, bad[i]), CB_EINVAL, "%s", bad[i]);
    }
    cb_packet_addr none = {.family = 0};
    char text[8];
    cr_expect_str_eq(cb_packet_addr_text(&none, text, sizeof text), "-");
    cr_expect_eq(cb_packet_addr_parse(NULL, "1.2.3.4:5"), CB_EINVAL);
}

/* ---- an echo and who asks it ---- */

typedef struct end {
    cb_packet_io *io, *other;
    cb_loop *loop;
    size_t got, bytes, batches, want;
    uint8_t last[2048];
    size_t last_len;
    uint8_t last_ecn;
    int reply_rc, again_rc;
    bool free_inside, by_reserve;
} end;

static void echo(cb_packet_io *io, const cb_packet *p, void *user) {
    end *e = user;
    e->got++;
    e->last_ecn = p->ecn;
    if (e->free_inside) {
        cb_packet_io_free(io);
        e->io = NULL;
        e->reply_rc = cb_packet_io_reply(io, p, 1, 0);
        return;
    }
    if (e->by_reserve) {
        uint8_t *room = cb_packet_io_reserve(io, p->len + 3);
        cr_assert_not_null(room);
        memcpy(room, "re:", 3);
        memcpy(room + 3, p->data, p->len);
        e->reply_rc = cb_packet_io_commit(io, &p->local, &p->remote, p->ecn, p->len + 3);
        return;
    }
    e->reply_rc = cb_packet_io_reply(io, p, p->len, p->ecn);
    e->again_rc = cb_packet_io_reply(io, p, p->len, p->ecn);
}

static void note(cb_packet_io *io, const cb_packet *p, void *user) {
    end *e = user;
    (void)io;
    e->got++;
    e->bytes += p->len;
    e->last_len = p->len < sizeof e->last ? p->len : sizeof e->last;
    memcpy(e->last, p->data, e->last_len);
    e->last_ecn = p->ecn;
    if (e->got == e->want) cb_loop_stop(e->loop);
}

static void batch_end(cb_packet_io *io, void *user) {
    (void)io;
    ((end *)user)->batches++;
}

static const cb_packet_ops echo_ops = {.size = sizeof echo_ops, .on_packet = echo, .on_batch_end = batch_end};
static const cb_packet_ops note_ops = {.size = sizeof note_ops, .on_packet = note};

static void give_up(cb_loop *loop, void *user) {
    (void)user;
    cb_loop_stop(loop);
}

static void open_pair(end *server, end *client, const char *listen) {
    cb_loop *loop = NULL;
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK);
    server->loop = client->loop = loop;
    cr_assert_eq(
        cb_packet_io_open(&server->io, loop, listen, CB_OPTS(cb_packet_io_opts, .ops = &echo_ops, .user = server)),
        CB_OK, "%s", cb_last_error());
    cr_assert_eq(
        cb_packet_io_open(&client->io, loop, listen, CB_OPTS(cb_packet_io_opts, .ops = &note_ops, .user = client)),
        CB_OK, "%s", cb_last_error());
}

static void run_at_most_2_s(cb_loop *loop) {
    cb_timer *limit = NULL;
    cr_assert_eq(cb_timer_start(&limit, loop, 2000, 0, give_up, NULL), CB_OK);
    cr_assert_eq(cb_loop_run(loop), CB_OK);
    cb_timer_free(limit);
}

static void close_pair(end *server, end *client) {
    cb_packet_io_free(server->io);
    cb_packet_io_free(client->io);
    cb_loop_free(client->loop);
}

Test(packet_io, a_socket_echoes_what_it_gets) {
    static const char *const listens[] = {"127.0.0.1:0", "[::1]:0"};
    for (size_t i = 0; i < sizeof listens / sizeof *listens; i++) {
        end server = {.io = NULL}, client = {.want = 3};
        cb_packet_io_stats s = {.size = sizeof s};
        open_pair(&server, &client, listens[i]);
        const cb_packet_addr to = cb_packet_io_local(server.io);
        cr_assert_neq(to.port, 0);
        for (int n = 0; n < 3; n++)
            cr_assert_eq(cb_packet_io_send(client.io, NULL, &to, 2, (cb_slice){(const uint8_t *)"question", 8}), CB_OK);
        run_at_most_2_s(client.loop);
        cr_expect_eq(client.got, 3);
        cr_expect_eq(client.bytes, 24);
        cr_expect_eq(memcmp(client.last, "question", 8), 0);
        cr_expect_eq(client.last_ecn, 2, "ECN goes both ways");
        cr_expect_eq(server.reply_rc, CB_OK);
        cr_expect_eq(server.again_rc, CB_EINVAL, "a datagram is replied to once");
        cr_expect(server.batches >= 1);
        cr_assert_eq(cb_packet_io_stats_get(server.io, &s), CB_OK);
        cr_expect(s.rx_packets == 3 && s.tx_packets == 3 && s.rx_bytes == 24 && s.tx_bytes == 24 && !s.xdp);
        close_pair(&server, &client);
    }
}

Test(packet_io, datagrams_are_built_where_they_leave_from) {
    end server = {.by_reserve = true}, client = {.want = 1};
    open_pair(&server, &client, "127.0.0.1:0");
    const cb_packet_addr to = cb_packet_io_local(server.io);
    cr_assert_eq(cb_packet_io_send(client.io, NULL, &to, 0, (cb_slice){(const uint8_t *)"x", 1}), CB_OK);
    run_at_most_2_s(client.loop);
    cr_expect_eq(client.last_len, 4);
    cr_expect_eq(memcmp(client.last, "re:x", 4), 0);
    close_pair(&server, &client);
}

Test(packet_io, it_may_be_freed_inside_its_callback) {
    end server = {.free_inside = true}, client = {.want = 1};
    open_pair(&server, &client, "127.0.0.1:0");
    const cb_packet_addr to = cb_packet_io_local(server.io);
    for (int n = 0; n < 5; n++)
        cr_assert_eq(cb_packet_io_send(client.io, NULL, &to, 0, (cb_slice){(const uint8_t *)"x", 1}), CB_OK);
    for (int n = 0; n < 20 && !server.got; n++)
        cr_assert_eq(cb_loop_step(client.loop), CB_OK);
    cr_expect_eq(server.got, 1, "nothing is called back any more");
    cr_expect_eq(server.reply_rc, CB_ECLOSED);
    close_pair(&server, &client);
}

Test(packet_io, what_cannot_be_sent_is_refused) {
    end server = {.io = NULL}, client = {.want = 1};
    static uint8_t large[CB_PACKET_MAX + 1];
    open_pair(&server, &client, "127.0.0.1:0");
    const cb_packet_addr to = cb_packet_io_local(server.io);
    cb_packet_addr nowhere = to, nobody = {.port = 7};
    cb_packet p = {.size = sizeof p, .remote = to, .len = 1, .room = 1, .data = large};
    nowhere.port = 0;
    cr_expect_eq(cb_packet_io_send(client.io, NULL, &to, 0, (cb_slice){large, 0}), CB_EINVAL);
    cr_expect_eq(cb_packet_io_send(client.io, NULL, &to, 0, (cb_slice){large, sizeof large}), CB_EINVAL);
    cr_expect_eq(cb_packet_io_send(client.io, NULL, &nowhere, 0, (cb_slice){large, 1}), CB_EINVAL);
    cr_expect_eq(cb_packet_io_send(client.io, NULL, &nobody, 0, (cb_slice){large, 1}), CB_EINVAL);
    cr_expect_eq(cb_packet_io_commit(client.io, NULL, &to, 0, 1), CB_EINVAL, "nothing is reserved");
    cr_expect_eq(cb_packet_io_reply(client.io, &p, 1, 0), CB_EINVAL, "outside of its callback");
    cr_assert_not_null(cb_packet_io_reserve(client.io, 10));
    cr_expect_eq(cb_packet_io_commit(client.io, NULL, &to, 0, 11), CB_EINVAL, "more than was reserved");
    cr_expect_null(cb_packet_io_reserve(client.io, 0));
    cr_expect_null(cb_packet_io_reserve(client.io, sizeof large));
    close_pair(&server, &client);
}

Test(packet_io, opening_says_what_is_wrong) {
    static const cb_packet_ops unsized = {.on_packet = note};
    static const cb_packet_driver half = {.size = sizeof half};
    cb_loop *loop = NULL;
    cb_packet_io *io = NULL, *second = NULL;
    char text[64];
    const cb_packet_io_opts *good = CB_OPTS(cb_packet_io_opts, .ops = &note_ops);
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK);
    cr_expect_eq(cb_packet_io_open(NULL, loop, "127.0.0.1:0", good), CB_EINVAL);
    cr_expect_eq(cb_packet_io_open(&io, NULL, "127.0.0.1:0", good), CB_EINVAL);
    cr_expect_eq(cb_packet_io_open(&io, loop, NULL, good), CB_EINVAL);
    cr_expect_eq(cb_packet_io_open(&io, loop, "somewhere:1", good), CB_EINVAL);
    cr_expect_eq(cb_packet_io_open(&io, loop, "127.0.0.1:0", NULL), CB_EINVAL, "ops is required");
    cr_expect_eq(cb_packet_io_open(&io, loop, "127.0.0.1:0", CB_OPTS(cb_packet_io_opts, .ops = &unsized)), CB_EINVAL);
    cr_expect_eq(cb_packet_io_new(&io, loop, good, &half, NULL), CB_EINVAL);
    cr_expect_eq(cb_packet_io_new(&io, loop, good, NULL, NULL), CB_EINVAL);
    cr_assert_eq(cb_packet_io_open(&io, loop, "127.0.0.1:0", good), CB_OK);
    const cb_packet_addr at = cb_packet_io_local(io);
    cb_packet_addr_text(&at, text, sizeof text);
    cr_expect_eq(cb_packet_io_open(&second, loop, text, good), CB_EEXIST);
    cb_packet_io_stats unset = {.size = 0};
    cr_expect_eq(cb_packet_io_stats_get(io, &unset), CB_EINVAL);
    cb_packet_io_free(io);
    cb_packet_io_free(NULL);
    cb_loop_free(loop);
}

/* ---- in a simulation ---- */

Test(packet_io, the_same_handler_runs_in_a_simulation) {
    cb_sim *sim = NULL;
    cb_sim_host *a = NULL, *b = NULL;
    cb_packet_addr to;
    end server = {.io = NULL}, client = {.want = 100};
    cr_assert_eq(cb_sim_new(&sim, NULL), CB_OK);
    cr_assert_eq(cb_sim_host_new(&a, sim, "a", "10.0.0.1"), CB_OK);
    cr_assert_eq(cb_sim_host_new(&b, sim, "b", "10.0.0.2"), CB_OK);
    cr_assert_eq(cb_sim_path(a, b, NULL, NULL, 0), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_sim_path(b, a, NULL, NULL, 0), CB_OK, "%s", cb_last_error());
    client.loop = cb_sim_host_loop(a);
    cr_assert_eq(cb_packet_io_open(&server.io, cb_sim_host_loop(b), "10.0.0.2:53",
                                   CB_OPTS(cb_packet_io_opts, .ops = &echo_ops, .user = &server)),
                 CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_packet_io_open(&client.io, client.loop, "10.0.0.1:1000",
                                   CB_OPTS(cb_packet_io_opts, .ops = &note_ops, .user = &client)),
                 CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_packet_addr_parse(&to, "10.0.0.2:53"), CB_OK);
    cr_assert_eq(cb_packet_io_send(client.io, NULL, &to, 0, (cb_slice){(const uint8_t *)"simulated", 9}), CB_OK);
    cr_assert_eq(cb_sim_run(sim), CB_OK);
    cr_expect_eq(client.got, 1);
    cr_expect_eq(client.bytes, 9);
    cb_packet_io_free(server.io);
    cb_packet_io_free(client.io);
    cb_sim_free(sim);
}

/* ---- a driver of one's own ---- */

typedef struct loopback {
    cb_packet_io *io;
    cb_packet_io_stats stats;
    uint8_t room[128];
    size_t len;
    int closed, destroyed, flushed;
    bool full;
} loopback;

static uint8_t *lo_reserve(void *self, size_t want) {
    loopback *l = self;
    return l->full || want > sizeof l->room ? NULL : l->room;
}

static int lo_commit(void *self, const cb_packet_addr *local, const cb_packet_addr *remote, uint32_t ecn, size_t len) {
    (void)local;
    (void)remote;
    (void)ecn;
    ((loopback *)self)->len = len;
    return CB_OK;
}

static int lo_reply(void *self, const cb_packet *p, size_t len, uint32_t ecn) {
    return lo_commit(self, &p->local, &p->remote, ecn, len);
}

static void lo_flush(void *self) {
    ((loopback *)self)->flushed++;
}

static void lo_local(void *self, cb_packet_addr *out) {
    (void)self;
    *out = (cb_packet_addr){.family = 4, .port = 99};
}

static void lo_stats(void *self, cb_packet_io_stats *out) {
    *out = ((loopback *)self)->stats;
}

static void lo_close(void *self) {
    ((loopback *)self)->closed++;
}

static void lo_destroy(void *self) {
    ((loopback *)self)->destroyed++;
}

static const cb_packet_driver lo_driver = {.size = sizeof lo_driver,
                                           .reserve = lo_reserve,
                                           .commit = lo_commit,
                                           .reply = lo_reply,
                                           .flush = lo_flush,
                                           .local = lo_local,
                                           .stats = lo_stats,
                                           .close = lo_close,
                                           .destroy = lo_destroy};

Test(packet_io, a_driver_of_ones_own_carries_datagrams) {
    cb_loop *loop = NULL;
    loopback l = {.full = false};
    end e = {.want = 1};
    uint8_t bytes[4] = "abc";
    cb_packet p = {.size = sizeof p,
                   .data = bytes,
                   .len = 3,
                   .room = 4,
                   .local = {.family = 4, .port = 99, .ip = {1, 2, 3, 4}},
                   .remote = {.family = 4, .port = 98, .ip = {1, 2, 3, 5}},
                   .path = CB_PACKET_OWN};
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK);
    cr_assert_eq(
        cb_packet_io_new(&l.io, loop, CB_OPTS(cb_packet_io_opts, .ops = &echo_ops, .user = &e), &lo_driver, &l), CB_OK);
    cr_expect_eq(cb_packet_io_local(l.io).port, 99);
    cr_expect_eq(cb_packet_io_deliver(l.io, &p), 1);
    cr_expect(e.got == 1 && e.reply_rc == CB_OK && e.again_rc == CB_EINVAL && l.len == 3);
    cr_assert_eq(cb_loop_step(loop), CB_OK);
    cr_expect_eq(l.flushed, 1, "at the end of the turn");
    cr_expect_eq(cb_packet_io_batch_end(l.io), 1);
    l.full = true;
    cr_expect_eq(cb_packet_io_send(l.io, NULL, &p.remote, 0, (cb_slice){bytes, 3}), CB_EAGAIN);
    cb_packet_io_free(l.io);
    cr_expect(l.closed == 1 && l.destroyed == 0);
    cr_expect_eq(cb_packet_io_deliver(l.io, &p), 0, "in the turn in which it was freed");
    cr_assert_eq(cb_loop_step(loop), CB_OK);
    cr_expect_eq(l.destroyed, 1);
    cb_loop_free(loop);
}

Test(packet_io, what_drivers_count_becomes_metrics) {
    cb_metrics *m = NULL;
    cb_loop *loop = NULL;
    loopback l = {.stats = {.size = sizeof l.stats, .xdp = 1}};
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_loop_new(&loop, CB_OPTS(cb_loop_opts, .metrics = m)), CB_OK);
    cr_assert_eq(cb_packet_io_new(&l.io, loop, CB_OPTS(cb_packet_io_opts, .ops = &note_ops), &lo_driver, &l), CB_OK);
    EXPECT_MOVED(m, 1, "cb_xdp_open_sockets");
    l.stats.xdp_rx_packets = 5;
    l.stats.xdp_rx_bytes = 500;
    l.stats.xdp_tx_packets = 4;
    l.stats.xdp_tx_bytes = 400;
    l.stats.xdp_malformed = 1;
    l.stats.xdp_checksum = 2;
    l.stats.xdp_other = 3;
    l.stats.xdp_ring_full = 6;
    l.stats.xdp_fill_empty = 7;
    l.stats.xdp_dropped = 8;
    l.stats.xdp_invalid = 9;
    l.stats.xdp_unresolved = 10;
    cb_packet_io_free(l.io); /* also after less than a second */
    EXPECT_MOVED(m, 0, "cb_xdp_open_sockets");
    EXPECT_MOVED(m, 5, "cb_xdp_datagrams", "in");
    EXPECT_MOVED(m, 4, "cb_xdp_datagrams", "out");
    EXPECT_MOVED(m, 500, "cb_xdp_bytes", "in");
    EXPECT_MOVED(m, 400, "cb_xdp_bytes", "out");
    EXPECT_MOVED(m, 1, "cb_xdp_dropped_frames", "malformed");
    EXPECT_MOVED(m, 2, "cb_xdp_dropped_frames", "checksum");
    EXPECT_MOVED(m, 3, "cb_xdp_dropped_frames", "other_address");
    EXPECT_MOVED(m, 6, "cb_xdp_dropped_frames", "ring_full");
    EXPECT_MOVED(m, 7, "cb_xdp_dropped_frames", "no_chunk");
    EXPECT_MOVED(m, 8, "cb_xdp_dropped_frames", "too_large");
    EXPECT_MOVED(m, 9, "cb_xdp_dropped_frames", "invalid");
    EXPECT_MOVED(m, 10, "cb_xdp_unresolved_datagrams");
    cb_loop_free(loop);
    cb_metrics_unref(m);
}
